"""Scorecards with intervals, forecasts beside baselines, the command, and the page it writes."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast import (
    Climatology,
    Persistence,
    Task,
    __main__,
    evaluate,
    plots,
    predict,
)
from stforecast.baselines import LinearRegression, baseline_forecasts
from stforecast.errors import InputError
from stforecast.evaluation import (
    compare,
    compare_forecasts,
    save_scores,
    scorecard,
    to_text,
    verdicts,
)
from stforecast.evaluation.scorecards import mean_over_time
from stforecast.plots import coastlines, write_report, write_results
from stforecast.testing import make_forecast, make_weather

T2M, LEAD = "2m_temperature", "prediction_timedelta"
BOTH = ("area", "uniform")


@pytest.fixture(scope="module")
def truth():
    return make_weather(steps=80, shape=(6, 14))


def noisy(truth, size, seed, inits=50, steps=3):
    """A forecast with errors of its own at every point."""
    f = make_forecast(truth, inits=inits, steps=steps, bias=0.1, spread=0.0)
    noise = size * np.random.default_rng(seed).standard_normal(f[T2M].shape)
    return f.assign({T2M: f[T2M] + noise.astype(np.float32)})


@pytest.fixture(scope="module")
def forecasts(truth):
    named = {"Net": noisy(truth, 0.30, 1), "Other": noisy(truth, 0.33, 2)}
    return named | {"Persistence": noisy(truth, 1.0, 3)}


@pytest.fixture(scope="module")
def card(forecasts, truth):
    return compare_forecasts(forecasts, truth)


# --- scores with intervals ------------------------------------------------------------------------


def test_scores_by_lead_are_means_of_those_by_initialisation(forecasts, truth):
    options = {"weights": BOTH, "regions": ("global", "tropics"), "metrics": ("rmse", "mae")}
    series = evaluate(forecasts["Net"], truth, by=("time", LEAD), **options)
    whole = evaluate(forecasts["Net"], truth, **options)
    mean = mean_over_time(series)
    xr.testing.assert_allclose(mean, whole, rtol=1e-12)
    assert mean.attrs == whole.attrs
    assert mean[T2M].attrs == whole[T2M].attrs
    with pytest.raises(InputError, match='by "time"'):
        mean_over_time(whole)


def test_masked_points_have_no_mean_over_time(forecasts, truth):
    holes = truth.copy(deep=True)
    holes[T2M][10:20, 2] = np.nan
    series = evaluate(forecasts["Net"], holes, by=("time", LEAD), nan="mask")
    with pytest.raises(InputError, match="weigh differently"):
        mean_over_time(series)
    card = compare_forecasts(forecasts, holes, nan="mask")
    direct = evaluate(forecasts["Net"], holes, nan="mask", weights=BOTH)[T2M]
    xr.testing.assert_equal(card[T2M].sel(model="Net", drop=True), direct)


def test_differences_are_those_of_the_paired_bootstrap(card, forecasts, truth):
    a, b = (evaluate(forecasts[n], truth, by=("time", LEAD)) for n in ("Net", "Other"))
    expected = compare(a, b)
    wanted = ["difference", "low", "high", "p_value", "p_adjusted", "lag_correlation"]
    wanted.append("block_length")
    at = {"model": "Net", "other_model": "Other", "weights": "area"}
    for name in (T2M, f"{T2M}_overall"):
        found = card[name.replace(T2M, f"{T2M}_difference")].sel(at)
        np.testing.assert_allclose(found, expected[name].sel(quantity=wanted))
    # exchanged: the other sign, and the ends of the interval change places
    back = card[f"{T2M}_difference_overall"].sel(model="Other", other_model="Net", weights="area")
    there = card[f"{T2M}_difference_overall"].sel(at)
    for ours, theirs, sign in [("difference",) * 2 + (-1,), ("low", "high", -1)]:
        assert float(back.sel(quantity=ours)) == sign * float(there.sel(quantity=theirs))
    assert back.sel(quantity="p_value").item() == there.sel(quantity="p_value").item()
    assert card[f"{T2M}_difference"].sel(model="Net", other_model="Net").count() == 0
    assert "Politis and White (2004)" in card.attrs["intervals"]
    assert card[f"{T2M}_difference"].attrs["units"] == "K"


def test_verdicts(card):
    table = verdicts(card, weights="uniform")
    assert list(table.index) == [("Net", "Other"), ("Net", "Persistence"), ("Other", "Persistence")]
    assert table["verdict"].tolist() == ["better"] * 3
    row = table.loc[("Net", "Other")]
    assert row["low"] < row["difference"] < row["high"] < 0
    assert row["leads"] == "3 of 3"


def test_lead_times_on_the_other_side_are_named(truth):
    """Better on the whole, and worse at the first lead time: the text says both."""
    good, poor = noisy(truth, 0.2, 5), noisy(truth, 0.6, 6)
    first = xr.DataArray([True, False, False], {LEAD: good[LEAD]}, LEAD)
    turned = {"A": xr.where(first, poor, good), "B": xr.where(first, good, poor)}
    turned = {n: f.transpose(*good[T2M].dims) for n, f in turned.items()}
    for f in turned.values():
        f[T2M].attrs = good[T2M].attrs
    card = compare_forecasts(turned, truth)
    row = verdicts(card).loc[("A", "B")]
    assert (row["verdict"], row["leads"], row["against"]) == ("better", "2 of 3", "1 h")
    assert "A vs B: better" in to_text(card)
    assert "2 of 3 leads); worse at 1 h" in to_text(card)
    back = compare_forecasts({"B": turned["B"], "A": turned["A"]}, truth)
    assert "2 of 3 leads); better at 1 h" in to_text(back)


def test_equal_models_are_not_told_apart(truth):
    pair = {"A": noisy(truth, 0.3, 5), "B": noisy(truth, 0.3, 6)}
    row = verdicts(compare_forecasts(pair, truth)).iloc[0]
    assert row["verdict"] == "no difference shown"
    assert row["low"] < 0 < row["high"]


def test_few_initialisations_have_no_intervals(forecasts, truth):
    few = {name: f.isel(time=slice(0, 12)) for name, f in forecasts.items()}
    card = compare_forecasts(few, truth)
    assert card.attrs["intervals"].startswith("none: 12 initialisations are too few")
    assert f"{T2M}_difference" not in card
    assert verdicts(card).empty
    assert "too few" in to_text(card)


def test_by_time_must_be_of_the_same_models(forecasts, truth):
    scores = {name: evaluate(f, truth) for name, f in forecasts.items()}
    with pytest.raises(InputError, match="by_time must be of the models"):
        scorecard(scores, by_time={"Net": evaluate(forecasts["Net"], truth, by=("time", LEAD))})


def test_intervals_are_in_the_files(card, tmp_path):
    nc, csv = save_scores(card, tmp_path)
    with xr.open_dataset(nc) as opened:
        xr.testing.assert_allclose(opened.load(), card)
    rows = pd.read_csv(csv, dtype={"lead_hours": str})
    row = rows.query(
        "model == 'Net' and metric == 'rmse_minus_Persistence' and lead_hours == '2' "
        "and weights == 'uniform'"
    )
    at = {"model": "Net", "other_model": "Persistence", "weights": "uniform", LEAD: "2h"}
    expected = card[f"{T2M}_difference"].sel(at)
    names = ["value", "low", "high", "p_value", "p_adjusted", "lag_correlation", "block_length"]
    np.testing.assert_allclose(row[names].to_numpy()[0], expected)
    assert row["units"].tolist() == ["K"]
    assert rows.query("metric == 'rmse'")["low"].isna().all()


def test_text_names_both_weights_and_the_verdicts(card):
    text = to_text(card)
    assert "overall, area" in text
    assert "overall, uniform" in text
    assert "Net vs Persistence: better (" in text
    assert "Persistence vs" not in text
    assert "bootstrap" in text


def test_the_curve_has_a_band(card, forecasts, truth):
    pytest.importorskip("matplotlib")
    ax = plots.lead_curve(card).axes[0]
    assert len(ax.collections) == 2  # Net and Other; not the baseline
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    against = card[f"{T2M}_difference"].sel(model="Net", other_model="Persistence", weights="area")
    base = card[T2M].sel(model="Persistence", metric="rmse", weights="area")
    low, high = (float((base + against.sel(quantity=q)).max()) for q in ("low", "high"))
    assert low < edges.max() == pytest.approx(high)
    assert "area-weighted" in plots.lead_curve(card).texts[1].get_text()
    assert not plots.lead_curve(card, metric="mae").axes[0].collections
    plain = scorecard({name: evaluate(f, truth) for name, f in forecasts.items()})
    assert not plots.lead_curve(plain).axes[0].collections


# --- baselines of any forecast --------------------------------------------------------------------


@pytest.fixture(scope="module")
def year():
    return make_weather(steps=4 * 430, timestep="6h", shape=(4, 8))


def test_baselines_are_those_that_predict_gives(year):
    train, test = year.isel(time=slice(0, 4 * 380)), year.isel(time=slice(4 * 380, None))
    task = Task(T2M, input_steps=3, target_steps=2, timestep="6h")
    init_time = test["time"].values[5:30]
    forecast = predict(test, Persistence(task), init_time=init_time)
    found = baseline_forecasts(forecast, test, train=train, input_steps=3)
    assert list(found) == ["Persistence", "Climatology", "LinearRegression"]
    models = [Persistence(task), Climatology.fit(train, task), LinearRegression.fit(train, task)]
    for (name, ours), model in zip(found.items(), models, strict=True):
        assert ours.chunks, name
        expected = predict(test, model, init_time=init_time)
        np.testing.assert_allclose(ours[T2M], expected[T2M], rtol=1e-6, err_msg=name)
        assert ours[T2M].dims == expected[T2M].dims
        np.testing.assert_array_equal(ours["valid_time"], expected["valid_time"])


def test_what_cannot_be_had_is_left_out_and_said(year, caplog):
    test = year.isel(time=slice(0, 60))
    task = Task(T2M, input_steps=1, target_steps=2, timestep="6h")
    forecast = predict(test, Persistence(task), init_time=test["time"].values[5:30])
    uneven = forecast.isel({LEAD: [1]})
    found = baseline_forecasts(uneven, test.isel(time=slice(7, None)), train=test)
    assert found == {}
    for words in ("without persistence: truth lacks 2", "climatology", "linear regression"):
        assert words in caplog.text


# --- the page -------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, and the text of the data."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.inside, self.data = [], None, ""
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.data = json.loads(self.data)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "data":
            self.data += data


def values(maps_data, name=None):
    """Fields as the page's script reads them: (initialisation, lead, rows, columns)."""
    f = maps_data["fields"][T2M]
    raw = base64.b64decode(f["truth"] if name is None else f["models"][name])
    q = np.frombuffer(raw, "<u2").astype(float)
    grid = maps_data["grid"]
    shape = len(maps_data["initialisations"]), len(maps_data["leads"])
    shape += (len(grid["rows"]) - 1, len(grid["columns"]) - 1)
    return np.where(q == 65535, np.nan, f["low"] + f["size"] * q).reshape(shape), f["size"]


def test_the_page_holds_forecasts_truth_and_scores(card, forecasts, truth, tmp_path):
    path = write_report(card, forecasts, truth, tmp_path / "deep" / "report.html")
    page = Page(path)
    shown = page.data["maps"]
    assert shown["initialisations"][0] == "2001-01-01 06:00 UTC"  # 50 of them: the 6th, 18th, ...
    assert len(shown["initialisations"]) == 4
    assert shown["valid"][1][2] == "2001-01-01 21:00 UTC"
    for name in forecasts:
        found, step = values(shown, name)
        expected = forecasts[name][T2M].isel(time=[6, 18, 31, 43])
        np.testing.assert_allclose(found, expected, atol=0.51 * step + 2e-5)
    found, step = values(shown)
    valid = forecasts["Net"]["valid_time"].isel(time=[6, 18, 31, 43])
    np.testing.assert_allclose(found, truth[T2M].sel(time=valid), atol=0.51 * step + 2e-5)
    assert step < 0.002
    scores = np.array(page.data["variables"][0]["scores"])
    np.testing.assert_allclose(scores[:, :, :, 0], card[T2M], rtol=1e-5)
    assert page.data["baselines"] == ["Persistence"]
    assert "Net beats Persistence" in page.text
    assert "Net beats Other" in page.text


def test_the_page_asks_nothing_of_a_network(card, forecasts, truth, tmp_path):
    page = Page(write_report(card, forecasts, truth, tmp_path / "r.html"))
    for tag, attrs in page.tags:
        for key in ("src", "href", "srcset", "action"):
            assert attrs.get(key, "data:").startswith("data:"), (tag, attrs)
    rest = page.text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert "http" not in rest.replace("http-equiv", "")
    assert "default-src 'none'" in page.text
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_what_data_say_of_themselves_is_shown_and_cannot_run(card, forecasts, truth, tmp_path):
    sly = "</script><script>alert(1)</script>"
    named = {n: f.assign_attrs(comment=sly) for n, f in forecasts.items()}
    card = card.assign({T2M: card[T2M].assign_attrs(long_name=f"field {sly}")})
    training = {"Net": {"config": {"steps": 2400}, "period": "1979 & later", "none": None}}
    options = {"title": f"A {sly}", "training": training, "about": {"command": "run <me>"}}
    path = write_report(card, named, truth.assign_attrs(title=sly), tmp_path / "r.html", **options)
    text = Page(path).text
    assert "alert(1)</script>" not in text
    for words in (
        "&lt;/script&gt;",
        "config: steps</dt><dd>2400",
        "1979 &amp; later",
        "run &lt;me",
    ):
        assert words in text
    assert "none</dt>" not in text
    assert np.__version__ in text


def test_the_script_reads_what_the_page_holds(card, forecasts, truth, tmp_path):
    page = Page(write_report(card, forecasts, truth, tmp_path / "r.html"))
    used = {name: set(re.findall(rf"\b{name}\.(\w+)", page.text)) for name in "DMg"}
    assert used["D"] == page.data.keys()
    assert used["M"] == page.data["maps"].keys()
    assert used["g"] >= page.data["maps"]["grid"].keys()


def test_the_headline_says_how_large_errors_are_and_where_it_is_otherwise(
    card, forecasts, truth, tmp_path
):
    text = Page(write_report(card, forecasts, truth, tmp_path / "r.html")).text
    scores = card[f"{T2M}_overall"].sel(metric="rmse", weights="area")
    ours, theirs = (float(scores.sel(model=m)) for m in ("Net", "Persistence"))
    assert f"Net beats Persistence: {1 - ours / theirs:.0%} smaller error" in text
    assert f"RMSE {ours:.3g} K against {theirs:.3g} K" in text
    assert re.search(r"on 20\d\d-\d\d-\d\d \d\d:\d\d UTC\.", text)
    assert "; worse at" not in text
    late = forecasts | {"Net": noisy(truth, 0.3, 1).copy(deep=True)}
    late["Net"][T2M][:, 0] += 1.5
    late = {m: late[m] for m in ("Net", "Persistence")}
    text = Page(write_report(compare_forecasts(late, truth), late, truth, tmp_path / "r.html")).text
    assert "Net beats Persistence" in text
    assert "the same at 2 of 3 lead times, corrected for their number; worse at 1 h" in text


@pytest.mark.parametrize(("steps", "word"), [(2, "larger"), (0, "smaller")])
def test_a_model_that_loses_is_called_so(truth, tmp_path, steps, word):
    pair = {"Net": noisy(truth, 0.5, 1), "Persistence": noisy(truth, 0.5 + steps * -0.2 + 0.2, 2)}
    text = Page(write_report(compare_forecasts(pair, truth), pair, truth, tmp_path / "r.html")).text
    verb = {"larger": "is beaten by", "smaller": "beats"}[word]
    assert re.search(rf"Net {verb} Persistence: \d+% {word} error", text)


def test_marks_of_the_template_in_a_name_fill_nothing(card, forecasts, truth, tmp_path):
    marks = "%%DATA%%%%SUMMARY%%%%TITLE%%"
    sly = {n: f.assign_attrs(comment=marks * 1000) for n, f in forecasts.items()}
    card = card.assign({T2M: card[T2M].assign_attrs(long_name=marks)})
    path = write_report(card, sly, truth, tmp_path / "r.html", about={"title": marks * 1000})
    plain = write_report(card, forecasts, truth, tmp_path / "plain.html")
    page = Page(path)
    assert f"Forecasts of {marks}" in page.text
    assert path.stat().st_size < plain.stat().st_size + 20_000
    assert page.data["variables"][0]["label"] == marks


@pytest.mark.parametrize("name", ["a\ud800b", "x" * 1_000_000, "$\\frac{$", "a\nb\x00c"])
def test_any_name_ends_in_results(forecasts, truth, name, tmp_path):
    pytest.importorskip("matplotlib")
    pair = {name: forecasts["Net"], "Persistence": forecasts["Persistence"]}
    card = compare_forecasts(pair, truth)
    card[T2M].attrs |= {"long_name": name, "units_rmse": name}
    written = write_results(card, pair, truth, tmp_path, training={name: {"steps": 3, name: name}})
    assert {p.name for p in written} >= {"scores.nc", "scores.csv", "scorecard.png", "report.html"}
    page = Page(tmp_path / "report.html")
    first = page.data["models"][0]
    assert len(first) <= 100
    assert page.data["maps"]["models"] == [first, "Persistence"]
    assert f"Training: {first[:60]}" in page.text.replace("&#x27;", "'")
    with xr.open_dataset(tmp_path / "scores.nc") as scores:
        assert scores["model"].values.tolist() == page.data["models"]


def test_names_that_differ_only_where_they_are_cut_stay_apart(forecasts, truth, tmp_path):
    pair = {"x" * 200 + end: forecasts[m] for end, m in (("a", "Net"), ("b", "Other"))}
    page = Page(write_report(compare_forecasts(pair, truth), pair, truth, tmp_path / "r.html"))
    assert len(set(page.data["models"])) == 2
    np.testing.assert_allclose(
        values(page.data["maps"], page.data["models"][1])[0],
        forecasts["Other"][T2M].isel(time=[6, 18, 31, 43]),
        atol=1e-2,
    )


def test_terms_are_in_words(card, forecasts, truth, tmp_path):
    training = {"Net": {"config": {"learning_rate": 0.1}}}
    text = Page(write_report(card, {}, truth, tmp_path / "r.html", training=training)).text
    for words in ("<dt>config: learning rate</dt>", "<dt>first initialisation</dt>"):
        assert words in text


@pytest.mark.parametrize(
    ("attrs", "shift", "colours"),
    [
        ({"units": "K"}, 0, "RdYlBu_r"),
        ({"units": "m s-1", "long_name": "wind"}, -270, "RdBu_r"),
        ({"units": "mm", "long_name": "precipitation"}, 0, "YlGnBu"),
        ({"units": "1"}, 0, "viridis"),
    ],
)
def test_a_field_has_the_colours_of_the_pictures(truth, attrs, shift, colours, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    pytest.importorskip("cartopy")

    def other(ds):
        return (ds[T2M].drop_attrs(deep=False).assign_attrs(attrs) + shift).to_dataset(name="f")

    with xr.set_options(keep_attrs=True):
        pair = {"Persistence": other(noisy(truth, 0.3, 1))}
        seen = other(truth)
    card = compare_forecasts(pair, seen)
    page = Page(write_report(card, pair, seen, tmp_path / "r.html"))
    field = page.data["maps"]["fields"]["f"]
    stops = [tuple(int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)) for c in field["colours"]]
    expected = matplotlib.colormaps[colours](np.linspace(0, 1, len(stops)))[:, :3]
    np.testing.assert_allclose(stops, expected, atol=0.03)
    mesh = plots.plot_map(seen["f"][0]).axes[0].collections[0]
    assert mesh.get_cmap().name == colours
    if colours == "RdBu_r":
        assert field["from"] == -field["to"]


@pytest.mark.parametrize("upward", [True, False])
def test_projected_grids_are_north_up(forecasts, truth, upward, tmp_path):
    about = {"units": "degrees", "standard_name": "grid_latitude"} if upward else {"units": "1"}

    def turned(ds):
        ds = ds.rename(latitude="rlat" if upward else "y", longitude="rlon" if upward else "x")
        names = ("rlat", "rlon") if upward else ("y", "x")
        rows = (names[0], np.arange(6.0), about)
        return ds.assign_coords({names[0]: rows, names[1]: (names[1], np.arange(14.0))})

    pair = {"Net": turned(forecasts["Net"])}
    card = compare_forecasts(pair, turned(truth))
    grid = Page(write_report(card, pair, turned(truth), tmp_path / "r.html")).data["maps"]["grid"]
    assert grid["kind"] == "cells"
    assert grid["upward"] is upward
    assert grid["names"] == (["rlat [degrees]", "rlon"] if upward else ["y", "x"])


def test_large_samples_are_shown_in_part(truth, tmp_path):
    forecast = noisy(truth, 0.3, 1)
    card = compare_forecasts({"Net": forecast}, truth)
    whole = write_report(card, {"Net": forecast}, truth, tmp_path / "whole.html")
    small = write_report(card, {"Net": forecast}, truth, tmp_path / "small.html", max_bytes=900)
    shown = Page(small).data["maps"]
    assert len(shown["initialisations"]) == 1
    assert shown["note"].startswith("1 of 50 initialisations; means of 2 x 2 cells of the 6 x 14")
    fields = shown["fields"][T2M]
    assert len(fields["truth"]) + len(fields["models"]["Net"]) <= 900
    found, step = values(shown, "Net")
    mean = forecast[T2M].isel(time=25).coarsen(latitude=2, longitude=2).mean()
    np.testing.assert_allclose(found[0], mean, atol=step)
    assert small.stat().st_size < whole.stat().st_size


def test_missing_values_and_grids_of_cells(tmp_path):
    time = pd.date_range("2001-01-01", periods=40, freq="1h").to_numpy()
    rng = np.random.default_rng(0)
    flow = xr.Dataset(
        {"inflow": (("time", "y", "x"), rng.random((40, 5, 9)), {"units": "1"})}, {"time": time}
    )
    flow["inflow"][:, 0, :2] = np.nan
    task = Task("inflow", input_steps=1, target_steps=2, timestep="1h", nan="mask")
    copied = predict(flow, Persistence(task), init_time=time[:30])
    card = compare_forecasts({"Persistence": copied}, flow, nan="mask")
    page = Page(write_report(card, {"Persistence": copied}, flow, tmp_path / "r.html"))
    shown = page.data["maps"]
    assert shown["grid"]["kind"] == "cells"
    assert shown["grid"]["rows"] == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]
    assert shown["coast"] == []
    raw = np.frombuffer(base64.b64decode(shown["fields"]["inflow"]["truth"]), "<u2")
    assert (raw.reshape(-1, 5, 9) == 65535).all(axis=0).sum() == 2
    assert page.data["weights"] == ["uniform"]


def test_regions_have_their_own_coastline(forecasts, truth, tmp_path):
    part = {"longitude": slice(2, 8), "latitude": slice(1, 5)}
    ours = {n: f.isel(part) for n, f in forecasts.items()}
    card = compare_forecasts(ours, truth.isel(part))
    shown = Page(write_report(card, ours, truth.isel(part), tmp_path / "r.html")).data["maps"]
    assert shown["grid"]["kind"] == "region"
    lines = [np.frombuffer(base64.b64decode(c), "<i2").reshape(-1, 2) / 50 for c in shown["coast"]]
    assert 20 < len(lines) < 134
    assert 20 < len(shown["borders"]) < 186
    whole = Page(write_report(card, forecasts, truth, tmp_path / "w.html")).data["maps"]
    assert not whole["borders"]
    west, east = shown["grid"]["columns"][0], shown["grid"]["columns"][-1]
    assert all(line[:, 0].max() >= west and line[:, 0].min() <= east for line in lines)
    assert max(line[:, 0].max() for line in lines) > 180


def test_the_coastline_is_cartopys():
    shapereader = pytest.importorskip("cartopy.io.shapereader")
    with_cartopy = shapereader.Reader(str(coastlines.outline_file(*coastlines.COASTLINE)))
    theirs = [
        np.array(g.coords) for m in with_cartopy.geometries() for g in getattr(m, "geoms", [m])
    ]
    with_cartopy.close()
    ours = coastlines.shipped_lines(coastlines.COASTLINE, None)
    assert len(ours) == len(theirs) == 134
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_maps_there_are_scores(card, truth, tmp_path):
    page = Page(write_report(card, {}, truth, tmp_path / "r.html"))
    assert page.data["maps"] is None
    assert page.data["leadLabels"] == ["+1 h", "+2 h", "+3 h"]


def test_what_does_not_fit_is_refused_and_leaves_nothing(card, forecasts, truth, tmp_path):
    path = tmp_path / "r.html"
    net = forecasts["Net"]
    for wrong, message in [
        ({"Nobody": net}, "no scorecard|not in the scorecard"),
        ({"Net": net, "Other": net.isel(time=slice(1, None))}, "differ in time"),
        ({"Net": net.isel(longitude=slice(0, 5))}, "longitude"),
    ]:
        with pytest.raises(InputError, match=message):
            write_report(card, wrong, truth, path)
    with pytest.raises(InputError, match="truth lacks"):
        write_report(card, forecasts, truth.isel(time=slice(0, 30)), path)
    with pytest.raises(InputError, match="scorecard"):
        write_report(evaluate(net, truth), forecasts, truth, path)
    assert not list(tmp_path.iterdir())


# --- the command ----------------------------------------------------------------------------------


def command(*arguments, cwd):
    line = [sys.executable, "-W", "error", "-m", "stforecast", "score", *map(str, arguments)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_help_says_what_there_is(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stforecast", "--help"])
    __main__.main()
    assert "score FORECAST... TRUTH" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["stforecast", "scores"])
    with pytest.raises(SystemExit, match="expected a command, found 'scores'"):
        __main__.main()


def test_the_command(forecasts, truth, tmp_path):
    forecasts["Net"].to_zarr(tmp_path / "net.zarr", consolidated=False)
    forecasts["Other"].to_netcdf(tmp_path / "other.nc")
    truth.to_netcdf(tmp_path / "truth.nc")
    done = command("net.zarr", "other.nc", "truth.nc", "--output", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    files = {"scores.nc", "scores.csv", "report.html", "rmse_by_lead.png", "scorecard.png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == files
    for words in ("overall, area", "net vs other: better", "other vs Persistence", "report.html"):
        assert words in done.stdout
    with xr.open_dataset(tmp_path / "out" / "scores.nc") as scores:
        direct = evaluate(forecasts["Net"], truth)[T2M].sel(metric="rmse")
        found = scores[T2M].sel(model="net", metric="rmse", weights="area")
        np.testing.assert_allclose(found, direct, rtol=1e-12)
        start = truth[T2M].sel(time=forecasts["Net"]["time"])
        ahead = truth[T2M].sel(time=forecasts["Net"]["valid_time"].isel({LEAD: 2}))
        error = np.sqrt(((start.values - ahead.values) ** 2).mean())
        kept = scores[T2M].sel(model="Persistence", metric="rmse", weights="uniform")
        assert float(kept[2]) == pytest.approx(error, rel=1e-6)
    assert "python -m stforecast score net.zarr" in Page(tmp_path / "out/report.html").text


def test_names_and_paths_of_the_command(tmp_path):
    from stforecast.cli import score

    assert score.default_names(["a/forecast.zarr", "b/forecast.zarr"]) == [
        "a/forecast",
        "b/forecast",
    ]
    assert score.default_names(["a/x.zarr", "b/y.nc"]) == ["x", "y"]
    with pytest.raises(InputError, match="truth"):
        score.main(score.Options(paths=("one.nc",)))
    with pytest.raises(InputError, match=r"nowhere\.nc: no such file"):
        score.main(score.Options(paths=(str(tmp_path / "nowhere.nc"), "truth.nc")))
    with pytest.raises(InputError, match="as many names"):
        score.main(score.Options(paths=("a.nc", "b.nc", "truth.nc"), names=("A",)))


def test_climatology_is_scored_and_gives_acc(year, tmp_path, capsys):
    from stforecast.cli import score

    train, test = year.isel(time=slice(0, 4 * 380)), year.isel(time=slice(4 * 380, None))
    task = Task(T2M, input_steps=1, target_steps=2, timestep="6h")
    make_forecast(test, inits=30, steps=2, bias=0.1, spread=0.2).to_netcdf(tmp_path / "f.nc")
    test.to_netcdf(tmp_path / "truth.nc")
    Climatology.fit(train, task).dataset.to_netcdf(tmp_path / "c.nc")
    options = score.Options(
        paths=(str(tmp_path / "f.nc"), str(tmp_path / "truth.nc")),
        climatology=str(tmp_path / "c.nc"),
        output=tmp_path / "out",
        regions=("global", "tropics"),
    )
    score.main(options)
    with xr.open_dataset(tmp_path / "out" / "scores.nc") as scores:
        assert scores.model.values.tolist() == ["f", "Persistence", "Climatology"]
        assert scores.metric.values.tolist() == ["rmse", "mae", "bias", "acc"]
        assert scores.region.values.tolist() == ["global", "tropics"]
    assert "tropics" in capsys.readouterr().out


# --- in a browser ---------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(card, forecasts, truth, tmp_path, scheme):
    """The slider moves maps and labels; nothing is asked of a network; the console is silent."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    write_results(card, forecasts, truth, tmp_path)
    address = (tmp_path / "report.html").as_uri()
    said, asked = [], []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)

        def state():
            pixels = "id => document.getElementById(id).toDataURL()"
            shown = [page.evaluate(pixels, name) for name in ("forecast", "truth", "error")]
            label = page.locator("#lead").inner_text()
            column = page.locator("#scores thead .now").inner_text()
            return label, column, page.locator("#valid").inner_text(), *shown

        seen = [state()]
        page.locator("#slider").focus()
        for _ in range(2):
            page.keyboard.press("ArrowRight")
            seen.append(state())
        assert [s[0] for s in seen] == [s[1] for s in seen] == ["+1 h", "+2 h", "+3 h"]
        for what in zip(*seen, strict=True):
            assert len(set(what)) == 3
        page.keyboard.press("Home")
        assert state() == seen[0]

        page.locator("#model").select_option("Persistence")
        other = state()
        assert other[3] != seen[0][3]
        assert other[4] == seen[0][4]  # truth stays
        page.locator("#forecast").focus()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowUp")
        read = page.locator("#probe").inner_text()
        assert "forecast" in read
        assert "N" in read
        for name in ("mae", "bias", "rmse"):
            page.locator("#metric").select_option(name)
            assert page.locator("#curve polyline").count() == 3
        assert page.locator("#curve polygon").count() == 2
        page.locator("#play").click()
        page.wait_for_timeout(900)
        page.locator("#play").click()
        assert page.locator("#lead").inner_text() != "+1 h"
        page.set_viewport_size({"width": 380, "height": 800})
        page.wait_for_timeout(300)
        width = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert width <= 380
    assert said == []
    assert asked == [address]


@pytest.mark.parametrize("dim", ["realization", "number"])
def test_an_ensemble_is_shown_with_its_members(card, forecasts, truth, tmp_path, dim):
    pytest.importorskip("cartopy")
    assert "How sure?" not in write_report(card, forecasts, truth, tmp_path / "r.html").read_text()
    members = [noisy(truth, 0.3, seed) for seed in range(3)]
    named = forecasts | {"Net": xr.concat(members, dim)}
    text = write_report(card, named, truth, tmp_path / "r.html").read_text()
    assert "How sure?" in text
    pictures = re.findall(r'alt="([^"]+)" src="data:image/png;base64,([^"]+)"', text)
    assert [words for words, _ in pictures] == [
        "Net: members where they differ most",
        "Net: members at the last lead time",
    ]
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in pictures)
