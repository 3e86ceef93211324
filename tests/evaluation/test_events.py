"""Scores of events, spectra, and scores by season, hour, land and sea."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.errors import InputError
from stforecast.evaluation import (
    brier,
    climatological_quantiles,
    compare_forecasts,
    csi,
    ets,
    evaluate,
    fss,
    hss,
    save_scores,
    scorecard,
    to_table,
)
from stforecast.evaluation.scorecards import mean_over_time
from stforecast.testing import make_forecast, make_weather

T2M, LEAD, MEMBERS = "2m_temperature", "prediction_timedelta", "realization"
SPACE = ("latitude", "longitude")


def make_pair(inits: int = 8, longitude: int = 24, circular: bool = True, **options):
    truth = make_weather(20, **options)
    rng = np.random.default_rng(0)
    truth[T2M] += 5 * rng.normal(size=truth[T2M].shape).astype("f4")
    if not circular:
        truth = truth.isel(longitude=slice(longitude))
    forecast = make_forecast(truth, inits=inits, steps=2, bias=0, spread=0)
    forecast[T2M] += 3 * rng.normal(size=forecast[T2M].shape).astype("f4")
    for ds in (forecast, truth):
        ds[T2M].attrs["units"] = "K"
    return forecast, truth


def paired(forecast: xr.Dataset, truth: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    at = truth[T2M].sel(time=forecast["valid_time"].rename(time="init"))
    at = at.drop_vars("time").rename(init="time").assign_coords(time=forecast["time"])
    dims = ("time", LEAD, *SPACE)
    return forecast[T2M].transpose(*dims).drop_vars("valid_time"), at.transpose(*dims)


@pytest.fixture(scope="module")
def pair():
    return make_pair()


# --- tables of hits and misses --------------------------------------------------------------------


def test_by_hand(pair):
    forecast, truth = pair
    f, t = (x.values for x in paired(forecast, truth))
    found = evaluate(forecast, truth, metrics=(csi(270), ets(270), hss(270)), weights="uniform")
    f, t = f >= 270, t >= 270
    a, b, c, d = (int(x.sum()) for x in (f & t, f & ~t, ~f & t, ~f & ~t))
    chance = (a + b) * (a + c) / f.size
    expected = (
        a / (a + b + c),
        (a - chance) / (a + b + c - chance),
        2 * (a * d - b * c) / ((a + c) * (c + d) + (a + b) * (b + d)),
    )
    np.testing.assert_allclose(found[f"{T2M}_overall"], expected, rtol=1e-12)
    cold = evaluate(forecast, truth, metrics=csi(270, below=True), weights="uniform")
    np.testing.assert_allclose(cold[f"{T2M}_overall"], d / (d + b + c), rtol=1e-12)
    assert cold[T2M].attrs["threshold_csi"] == "below 270"


def test_beside_scores(pair):
    scores = pytest.importorskip("scores")
    forecast, truth = pair
    f, t = paired(forecast, truth)
    limits = [260.0, 275.0]
    metrics = (csi(limits), ets(limits), hss(limits))
    found = evaluate(forecast, truth, metrics=metrics, weights="uniform")
    for limit in limits:
        event = scores.categorical.ThresholdEventOperator(default_event_threshold=limit)
        table = event.make_contingency_manager(f, t).transform(preserve_dims=[LEAD])
        for name, other in (
            ("csi", table.critical_success_index()),
            ("ets", table.equitable_threat_score()),
            ("hss", table.heidke_skill_score()),
        ):
            ours = found[f"{T2M}_{name}"].sel(threshold=limit)
            np.testing.assert_allclose(ours, other, rtol=1e-6)


@pytest.mark.parametrize("circular", [True, False])
def test_fractions_beside_scores(circular):
    spatial = pytest.importorskip("scores.spatial")
    forecast, truth = make_pair(inits=4, longitude=13, circular=circular)
    windows = (1, 3, 7)
    found = evaluate(forecast, truth, metrics=fss([270.0], windows), weights="uniform")
    f, t = paired(forecast, truth)
    for window in windows:
        half = window // 2
        # A window around each point: rows that go round the globe are repeated at their ends, and
        # all else ends in zeros. (The package's own padding adds windows centred beyond the map.)
        ends = {"mode": "wrap"} if circular else {"constant_values": 0.0}
        padded = [x.pad(longitude=half, **ends) for x in (f, t)]
        other = spatial.fss_2d(
            *(x.pad(latitude=half, constant_values=0.0) for x in padded),
            event_threshold=270.0,
            window_size=(window, window),
            spatial_dims=SPACE,
            preserve_dims=[LEAD],
            threshold_operator=np.greater_equal,
        )
        ours = found[f"{T2M}_fss"].sel(threshold=270, window=window)
        np.testing.assert_allclose(ours, other, rtol=1e-6)


def test_a_window_of_one_point_and_a_displaced_event():
    truth = make_weather(10)
    truth[T2M] = truth[T2M] * 0 + np.float32(250)
    truth[T2M][:, 5, 10] = 300
    forecast = make_forecast(truth, inits=4, steps=1, bias=0, spread=0)
    moved = forecast.roll(longitude=2)  # two points east
    moved[T2M].attrs = truth[T2M].attrs = {"units": "K"}
    found = evaluate(moved, truth, metrics=fss(299, [1, 3, 5]), weights="uniform")
    # Squares of 3 x 3 around points two apart share a column of three; of 5 x 5, three columns.
    np.testing.assert_allclose(found[f"{T2M}_fss_overall"], [0, 1 / 3, 3 / 5], rtol=1e-9)


def test_masked_points_have_no_event(pair):
    forecast, truth = pair
    hole = truth.copy(deep=True)
    hole[T2M][4, 3, 5] = np.nan
    f, t = (x.values for x in paired(forecast, hole))
    found = evaluate(forecast, hole, metrics=(csi(270), fss(270, 1)), weights="uniform", nan="mask")
    f, t = (f >= 270) & ~np.isnan(t), t >= 270
    expected = [(f & t).sum() / (f | t).sum(), 1 - (f ^ t).sum() / (f.sum() + t.sum())]
    np.testing.assert_allclose(found[f"{T2M}_overall"], expected, rtol=1e-12)


def test_thresholds_by_place_and_season():
    history = make_year()
    quantiles = climatological_quantiles(history, [0.2, 0.8])
    assert quantiles[T2M].dims == ("threshold", "season", *SPACE)
    winter = history[T2M].where(history["time"].dt.month.isin([12, 1, 2]), drop=True)
    expected = winter.quantile([0.2, 0.8], "time")
    ours = quantiles[T2M].sel(season="DJF")
    np.testing.assert_allclose(ours, expected.transpose(*expected.dims), rtol=1e-6)
    # Of history itself, each season has the event in a fifth of its days, wherever that is.
    forecast = make_forecast(history, inits=730, steps=1, bias=0, spread=0)
    forecast = forecast.isel(latitude=slice(None, None, -1))
    never = forecast.assign({T2M: forecast[T2M] * 0 + np.float32(150)})
    never[T2M].attrs["units"] = "K"
    found = evaluate(never, history, metrics=brier(quantiles), by=("season", *SPACE))
    share = found[f"{T2M}_brier"]
    assert share.dims == ("threshold", "season", *SPACE)
    np.testing.assert_allclose(share.sel(threshold=0.8), 0.2, atol=0.03)
    np.testing.assert_allclose(share.sel(threshold=0.2), 0.8, atol=0.03)
    with pytest.raises(InputError, match=r"history has no date in \['MAM', 'JJA', 'SON'\]"):
        climatological_quantiles(history.isel(time=slice(20)), 0.5)


def make_year() -> xr.Dataset:
    """Two years of days on a small grid, with a season."""
    time = pd.date_range("2000-12-01", periods=731, freq="D").to_numpy()
    space = {"latitude": [-60.0, 0, 60], "longitude": [0.0, 120, 240]}
    rng = np.random.default_rng(0)
    season = 10 * np.cos(np.arange(731) * 2 * np.pi / 365)[:, None, None]
    values = (280 + season + rng.normal(size=(731, 3, 3))).astype("f4")
    return xr.Dataset({T2M: (("time", *space), values, {"units": "K"})}, {"time": time, **space})


# --- spectra --------------------------------------------------------------------------------------


def test_a_wave_and_parseval(pair):
    forecast, truth = pair
    found = evaluate(forecast, truth, metrics="spectrum", weights="uniform", by=(LEAD, "latitude"))
    power = found[f"{T2M}_spectrum"]
    assert power.dims == ("field", "wavenumber", LEAD, "latitude")
    f, t = paired(forecast, truth)
    for field, x in (("forecast", f), ("truth", t)):
        whole = power.sel(field=field).sum("wavenumber")
        np.testing.assert_allclose(whole, (x.astype("f8") ** 2).mean(("time", "longitude")))
    wave = truth.assign({T2M: truth[T2M] * 0 + 3 * np.cos(np.deg2rad(5 * truth["longitude"]))})
    wave[T2M] = (wave[T2M].transpose("time", ...) + 280).astype("f4").assign_attrs(units="K")
    double = forecast.assign({T2M: make_forecast(wave, inits=8, steps=2, bias=0, spread=0)[T2M]})
    double[T2M] = ((double[T2M] - 280) * 2 + 280).assign_attrs(units="K")
    found = evaluate(double, wave, metrics="spectrum")[f"{T2M}_spectrum_overall"]
    np.testing.assert_allclose(found.sel(field="truth", wavenumber=5), 4.5, rtol=1e-5)
    np.testing.assert_allclose(found.sel(field="ratio", wavenumber=5), 4, rtol=1e-5)


def test_a_regional_row_has_no_jump_at_its_ends():
    forecast, truth = make_pair(longitude=13, circular=False)
    ramp = np.arange(13, dtype="f4")
    for ds in (forecast, truth):
        ds[T2M] = (ds[T2M] * 0 + 280 + xr.DataArray(ramp, dims="longitude")).assign_attrs(units="K")
    found = evaluate(forecast, truth, metrics="spectrum", weights="uniform")
    power = found[f"{T2M}_spectrum_overall"].sel(field="truth")
    assert power["wavenumber"].values.tolist() == [k / 2 for k in range(13)]
    np.testing.assert_allclose(power.sum(), ((280 + ramp) ** 2).mean(), rtol=1e-6)
    # The ramp is half a wave: of its cosine transform the odd half waves fall off as k**-4.
    assert float(power.sel(wavenumber=0.5) / power[1:].sum()) > 0.98
    cosine = (ramp * np.cos(np.pi * (np.arange(13) + 0.5) / 13)).mean()
    np.testing.assert_allclose(power.sel(wavenumber=0.5), 2 * cosine**2, rtol=1e-5)


def test_rows_must_be_whole(pair):
    forecast, truth = pair
    for options, message in (
        ({"regions": "europe"}, "count all points of a row the same"),
        ({"by": "longitude"}, "have no value by longitude"),
        ({"nan": "mask"}, "take no masks"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(forecast, truth, metrics="spectrum", **options)
    tropics = evaluate(forecast, truth, metrics="spectrum", regions="tropics")
    assert tropics[f"{T2M}_spectrum"].sizes["region"] == 1


# --- by season, hour, land and sea ----------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, {"time": 3, "latitude": 5}])
def test_by_hour_of_the_valid_time(pair, chunks):
    forecast, truth = pair
    given = forecast if chunks is None else forecast.chunk(chunks)
    found = evaluate(given, truth, metrics=("rmse", csi(270)), by=("hour",), weights="uniform")
    f, t = (x.values for x in paired(forecast, truth))
    hours = forecast["valid_time"].dt.hour.transpose("time", LEAD).values
    assert found["hour"].values.tolist() == sorted(set(hours.ravel().tolist()))
    for hour in found["hour"].values:
        error = np.square(f - t)[hours == hour].mean()
        ours = found[T2M].sel(metric="rmse", hour=hour)
        np.testing.assert_allclose(ours, error**0.5, rtol=1e-6)
    by_place = evaluate(given, truth, metrics="mse", by=("hour", *SPACE), weights="uniform")
    again = by_place[T2M].sel(metric="mse").mean(SPACE) ** 0.5
    np.testing.assert_allclose(again, found[T2M].sel(metric="rmse"), rtol=1e-6)


def test_by_season_and_month():
    history = make_year()
    forecast = make_forecast(history, inits=400, steps=1, bias=1, spread=0)
    forecast[T2M].attrs["units"] = "K"
    warm = forecast["valid_time"].dt.month.isin([6, 7, 8])
    forecast[T2M] = (forecast[T2M] + warm).astype("f4").assign_attrs(units="K")
    found = evaluate(forecast, history, metrics="bias", by=("season",))
    assert found["season"].values.tolist() == ["DJF", "MAM", "JJA", "SON"]
    np.testing.assert_allclose(found[T2M][0], [1, 1, 2, 1], rtol=1e-5)
    monthly = evaluate(forecast, history, metrics="bias", by=(LEAD, "month"))[T2M]
    assert monthly.dims == ("metric", LEAD, "month")
    assert monthly["month"].values.tolist() == [*range(1, 13)]
    np.testing.assert_allclose(monthly.sel(month=[5, 6])[0, 0], [1, 2], rtol=1e-5)


def test_land_and_sea(pair):
    forecast, truth = pair
    land = xr.zeros_like(truth[T2M][0], dtype="f4").reset_coords(drop=True)
    land[2:5, :9] = 1
    land[5] = 0.25
    regions = {"land": land, "sea": 1 - land, "tropics": (-20, 20)}
    found = evaluate(forecast, truth, metrics=("rmse", "mse"), regions=regions)
    assert found["region"].values.tolist() == ["land", "sea", "tropics"]
    own = evaluate(forecast, truth, metrics="mse", weights=land)
    f, t = paired(forecast, truth)
    edges = np.sin(np.deg2rad(np.linspace(-90, 90, 13)))
    area = xr.DataArray(np.diff(edges), dims="latitude") * land
    expected = ((f - t).astype("f8") ** 2).weighted(area).mean(SPACE).mean("time")
    np.testing.assert_allclose(found[T2M].sel(metric="mse", region="land"), expected, rtol=1e-5)
    assert not np.allclose(own[T2M][0], expected, rtol=1e-5)  # uniform weights, times the mask
    with pytest.raises(InputError, match="'land' is an array of the part of each cell"):
        evaluate(forecast, truth, regions={"land": 2 * land})


# --- scorecards -----------------------------------------------------------------------------------


def test_a_scorecard_of_an_ensemble_and_a_single_forecast(pair, tmp_path):
    forecast, truth = pair
    rng = np.random.default_rng(1)
    noise = 3 * rng.normal(size=(4, *forecast[T2M].shape)).astype("f4")
    parts = [truth_at(forecast, truth, noise[i]) for i in range(4)]
    whole = xr.concat(parts, MEMBERS)
    metrics = ("rmse", "crps", "crps_fair", "spread_skill", "rank_histogram", csi([265.0, 275.0]))
    card = compare_forecasts(
        {"mine": whole, "Persistence": forecast}, truth, metrics=metrics, weights="area"
    )
    assert card["model"].values.tolist() == ["mine", "Persistence"]
    values = card[f"{T2M}_overall"]
    assert np.isnan(values.sel(model="Persistence", metric="spread_skill"))
    assert np.isnan(card[f"{T2M}_rank_histogram"].sel(model="Persistence")).all()
    alone = evaluate(whole, truth, metrics=metrics)
    np.testing.assert_array_equal(values.sel(model="mine"), alone[f"{T2M}_overall"])
    ours, theirs = (values.sel(metric="crps_fair", model=m) for m in ("mine", "Persistence"))
    skill = card[f"{T2M}_crpss_overall"].sel(model="mine", reference="Persistence")
    np.testing.assert_allclose(skill, 1 - ours / theirs)
    table = to_table(card, metric="crps_fair")
    assert "mine: skill vs Persistence" in table.index
    rows = pd.read_csv(save_scores(card, tmp_path)[1])
    kinds = set(rows["metric"])
    assert kinds >= {"spread_skill", "rank_histogram", "csi", "crpss_vs_Persistence"}
    csis = rows[(rows["metric"] == "csi") & (rows["model"] == "mine")]
    assert set(csis["threshold"]) == {265.0, 275.0}


def truth_at(forecast: xr.Dataset, truth: xr.Dataset, noise: np.ndarray) -> xr.Dataset:
    exact = make_forecast(truth, inits=forecast.sizes["time"], steps=2, bias=0, spread=0)
    return exact.assign({T2M: (exact[T2M] + noise).assign_attrs(units="K")})


def test_ratios_are_no_means_over_initialisations(pair):
    forecast, truth = pair
    by = ("time", LEAD)
    for metric in (csi(270), "spectrum"):
        with pytest.raises(InputError, match="no mean of those of single ones"):
            mean_over_time(evaluate(forecast, truth, metrics=metric, by=by))
    card = scorecard({"one": evaluate(forecast, truth, metrics="spectrum")})
    assert card[f"{T2M}_spectrum"].dims == ("model", "field", "wavenumber", LEAD)
