"""Differences, Hovmöller diagrams, films, strips and costs: the numbers that are drawn."""

from __future__ import annotations

import builtins

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast import plots
from stforecast.errors import InputError
from stforecast.evaluation import published
from stforecast.testing import make_forecast, make_weather, relabel

pytest.importorskip("cartopy")


@pytest.fixture(scope="module")
def forecast(weather):
    return make_forecast(weather, inits=4, steps=3, bias=0.5, spread=0.0)


def drawn(figure):
    """Values and limits of the meshes, without the colour bars."""
    found = [ax.collections[0] for ax in figure.axes if ax.get_label() != "<colorbar>"]
    return [(np.asarray(m.get_array()), m.get_clim()) for m in found]


def words(figure):
    rows = [ax.get_ylabel() for ax in figure.axes]
    return " ".join([*(text.get_text() for text in figure.texts), *rows])


# --- differences ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "expected"), [("rmse", -1.5), ("mae", -1.5), ("mse", -3.75)])
def test_a_difference_map_shows_first_less_second(weather, forecast, metric, expected):
    worse = make_forecast(weather, inits=4, steps=3, bias=2.0, spread=0.0)
    figure = plots.difference_map(
        forecast, worse, weather, names=("ours", "theirs"), metric=metric, vmax=5
    )
    values, limits = drawn(figure)[0]
    np.testing.assert_allclose(values, expected, atol=1e-3)  # 2e-5 K of float32 at 300 K, squared
    assert limits == (-5, 5)
    assert f"{metric.upper()} of 2m temperature, ours less theirs" in words(figure)
    assert "+1 h to +3 h" in words(figure)
    assert "ours better on 100%" in words(figure)


def test_the_share_of_a_difference_map_is_of_the_area(weather, forecast):
    """The first is better south of 30 S: a quarter of the sphere, not a third of the rows."""
    better = weather["latitude"] < -30
    second = make_forecast(weather, inits=4, steps=3, bias=0.0, spread=0.0)
    second = second + xr.where(better, 1.0, 0.0).astype(np.float32)
    second["2m_temperature"].attrs = forecast["2m_temperature"].attrs
    figure = plots.difference_map(forecast, second, weather, lead="2h")
    assert "first better on 25%" in words(figure)
    assert "lead +2 h ·" in words(figure)


# --- Hovmöller ------------------------------------------------------------------------------------


def _ramp(weather):
    """In K: 200 + longitude / 4 + 2 x hour, and 4 more in the north."""
    north = xr.where(weather["latitude"] > 0, 4.0, 0.0)
    hour = xr.DataArray(np.arange(12.0), dims="time")
    values = 200 + weather["longitude"] / 4 + 2 * hour + north
    values = values.transpose("time", "latitude", "longitude")
    return weather.assign({"2m_temperature": weather["2m_temperature"].copy(data=values)})


@pytest.mark.parametrize(("band", "more"), [(None, 2.0), ((0, 90), 4.0), ((-60, -10), 0.0)])
def test_a_hovmoller_diagram_is_the_mean_of_its_band(weather, band, more):
    figure = plots.hovmoller(_ramp(weather), latitude=band)
    values, _ = drawn(figure)[0]
    expected = 200 + weather["longitude"].values / 4 + 2 * np.arange(12.0)[:, None] + more
    np.testing.assert_allclose(values.reshape(12, 24), expected, rtol=1e-6)
    ax = figure.axes[0]
    low, high = ax.get_ylim()
    assert low > high  # time runs down
    assert ax.get_ylabel().startswith("Hours since")


def test_a_hovmoller_diagram_weighs_rows_by_area(weather):
    field = weather["2m_temperature"]
    squared = 250 + 30 * np.sin(np.deg2rad(field["latitude"])) ** 2 + 0 * field
    figure = plots.hovmoller(field.copy(data=squared.transpose(*field.dims).values).to_dataset())
    values, _ = drawn(figure)[0]
    assert values.mean() == pytest.approx(260, abs=0.1)  # the mean over rows would be 265


def test_a_hovmoller_diagram_speaks_the_callers_units(weather):
    celsius = _ramp(weather) - 273.15
    celsius["2m_temperature"].attrs = {"units": "degC"}
    turned = relabel(celsius, north_first=True)
    for data in (celsius, turned):
        values, _ = drawn(plots.hovmoller(data, latitude=(0, 90)))[0]
        np.testing.assert_allclose(values.reshape(12, 24)[0, 0], 204 - 273.15, atol=1e-3)


def test_a_hovmoller_diagram_of_a_forecast_goes_by_lead_time(weather, forecast):
    start = forecast["time"].values[1]
    figure = plots.hovmoller(forecast, init_time=start)
    values, _ = drawn(figure)[0]
    cosine = np.cos(np.deg2rad(weather["latitude"]))
    truth = weather["2m_temperature"].isel(time=slice(2, 5)).weighted(cosine).mean("latitude")
    np.testing.assert_allclose(values.reshape(3, 24), truth + 0.5, atol=1e-3)
    assert figure.axes[0].get_ylabel() == "Lead time [h]"
    assert "from 2001-01-01 01:00" in words(figure)


def test_days_are_written_where_there_are_many_hours():
    long = make_weather(steps=40, timestep="6h", shape=(8, 16))
    assert plots.hovmoller(long).axes[0].get_ylabel().startswith("Days since")


# --- films ----------------------------------------------------------------------------------------


def _frames(path):
    if path.suffix == ".gif":
        from PIL import Image, ImageSequence

        with Image.open(path) as film:
            return [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(film)]
    av = pytest.importorskip("av")
    with av.open(str(path)) as film:
        return [f.to_ndarray(format="rgb24") for f in film.decode(video=0)]


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_a_film_has_a_frame_for_each_lead_time(weather, forecast, tmp_path, ending):
    if ending == ".mp4":
        pytest.importorskip("av")
    path = plots.animate(forecast, tmp_path / f"film{ending}", truth=weather, dpi=40)
    frames = _frames(path)
    assert len(frames) == 3
    assert np.abs(frames[0].astype(int) - frames[2]).mean() > 0.2  # the wave moves
    H, W = frames[0].shape[:2]
    assert W > 1.5 * H  # two maps, side by side
    assert not list(tmp_path.glob("*.tmp*"))


def test_films_of_pixels_need_no_map(tmp_path):
    times = pd.date_range("2020-01-01", periods=4, freq="30min")
    values = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    leads = np.arange(1, 4) * np.timedelta64(30, "m")
    clip = xr.Dataset(
        {"inflow": (("time", "prediction_timedelta", "y", "x"), values)},
        {"time": times[:1], "prediction_timedelta": leads.astype("timedelta64[ns]")},
    )
    assert len(_frames(plots.animate(clip, tmp_path / "flow.gif", dpi=40))) == 3


def test_a_film_that_fails_leaves_nothing(weather, forecast, tmp_path, monkeypatch):
    from PIL import Image

    def fail(self, path, **kwargs):
        path.write_bytes(b"half a film")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no space"):
        plots.animate(forecast, tmp_path / "film.gif", dpi=40)
    assert not list(tmp_path.iterdir())


def test_a_missing_encoder_is_named(forecast, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "av":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"stforecast\[video\].*\.gif"):
        plots.animate(forecast, tmp_path / "film.mp4", dpi=40)
    assert not list(tmp_path.iterdir())


# --- strips of clips ------------------------------------------------------------------------------


def _clip(colours=("frames",)):
    """Twelve frames, and a forecast of the last four that is 0.25 too bright."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", periods=12, freq="1s")
    truth = xr.Dataset(
        {c: (("time", "y", "x"), 0.5 * rng.random((12, 8, 6), np.float32)) for c in colours},
        {"time": times},
    )
    leads = (np.arange(1, 5) * np.timedelta64(1, "s")).astype("timedelta64[ns]")
    forecast = xr.Dataset(
        {
            c: (("time", "prediction_timedelta", "y", "x"), truth[c].values[None, 8:] + 0.25)
            for c in colours
        },
        {"time": times[[7]], "prediction_timedelta": leads},
    )
    return truth, forecast


@pytest.mark.parametrize("colours", [("frames",), ("red", "green", "blue")])
def test_a_strip_shows_truth_forecasts_and_errors(colours):
    truth, forecast = _clip(colours)
    figure = plots.clip_strip({"ours": forecast, "theirs": forecast + 0.25}, truth)
    shown = [ax.images[0] for ax in figure.axes]
    assert len(shown) == 6 * 4  # input, truth, and two rows for each
    past = np.stack([truth[c].values[4:8] for c in colours], axis=-1)
    for j, image in enumerate(shown[:4]):
        np.testing.assert_allclose(np.asarray(image.get_array()), past[j].squeeze(), atol=1e-6)
    shown = shown[4:]
    seen = np.stack([truth[c].values[8:] for c in colours], axis=-1)
    for j in range(4):
        columns = [np.asarray(image.get_array()) for image in shown[j::4]]
        np.testing.assert_allclose(columns[0].squeeze(), seen[j].squeeze(), atol=1e-6)
        np.testing.assert_allclose(columns[1] - columns[0], 0.25, atol=1e-6)
        np.testing.assert_allclose(columns[2], 0.25, atol=1e-6)
        np.testing.assert_allclose(columns[4], 0.5, atol=1e-6)
    assert all(image.get_clim() == (0, 1) for image in shown if np.asarray(image).ndim == 2)
    assert "ours" in words(figure)
    assert "theirs" in words(figure)


def test_a_strip_shows_the_leads_asked_for():
    truth, forecast = _clip()
    figure = plots.clip_strip({"ours": forecast}, truth, leads=["1s", "4s"], data_range=2.0)
    shown = [np.asarray(ax.images[0].get_array()) for ax in figure.axes]
    assert len(shown) == 4 * 2
    np.testing.assert_allclose(shown[0], truth["frames"].values[4] / 2, atol=1e-6)  # 3 s before
    shown = shown[2:]
    np.testing.assert_allclose(shown[1], truth["frames"].values[11] / 2, atol=1e-6)


def test_a_strip_has_even_leads_and_the_frames_of_its_own_clip():
    truth, _ = _clip()
    long = xr.concat([truth] * 4, "time").isel(time=slice(0, 40))
    times = pd.date_range("1970-01-01", periods=40, freq="1s")
    long = long.assign_coords(
        time=times, clip=("time", [0] * 12 + [1] * 28), step=("time", [*range(12), *range(28)])
    )
    long.attrs["clip_names"] = ["jogging", "walking"]
    leads = (np.arange(1, 26) * np.timedelta64(1, "s")).astype("timedelta64[ns]")
    values = np.zeros((1, 25, 8, 6), np.float32)
    forecast = xr.Dataset(
        {"frames": (("time", "prediction_timedelta", "y", "x"), values)},
        {"time": times[[14]], "prediction_timedelta": leads},
    )
    figure = plots.clip_strip(forecast, long)  # one forecast needs no name
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    seconds = [int(t[1:-2]) for t in titles[1:]]
    assert titles[0] == "0"  # 3 s before it the clip has no frame
    assert len(seconds) == 9
    assert np.unique(np.diff(seconds)).tolist() == [3]
    assert seconds[-1] == 25
    assert words(figure).startswith("Clip 1: walking Frames 4 to 28")
    bare = plots.clip_strip(forecast, long.drop_vars(["clip", "step"]))
    assert "1970" not in words(bare)


def test_long_names_do_not_run_under_the_frames():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    truth, forecast = _clip()
    figure = plots.clip_strip({"SimVPv2 with a very long name, trained twice": forecast}, truth)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    frames = min(ax.get_window_extent().x0 for ax in figure.axes)
    for ax in figure.axes:
        box = ax.yaxis.label.get_window_extent(canvas.get_renderer())
        assert not ax.get_ylabel() or 0 <= box.x0 < box.x1 < frames


# --- cost -----------------------------------------------------------------------------------------


def test_performance_draws_a_point_for_each_model():
    table = published.cost_table()
    table.loc["mine"] = {"seconds_per_epoch": 90.0, "mse_sum": 25.0}
    figure = plots.performance(table, highlight=["mine"])
    for ax, cost in zip(figure.axes, ("seconds_per_epoch", "frames_per_second"), strict=True):
        rows = table[["mse_sum", cost]].dropna()
        points = {line.get_xydata()[0].tobytes() for line in ax.lines}
        assert points == {np.array([r[cost], r.mse_sum]).tobytes() for _, r in rows.iterrows()}
        assert {t.get_text() for t in ax.texts} == set(rows.index)
        assert ax.get_xscale() == "log"
        bold = {t.get_text() for t in ax.texts if t.get_fontweight() == "bold"}
        assert bold == ({"mine"} if "mine" in rows.index else set())


# --- what is refused ------------------------------------------------------------------------------

REFUSALS = {
    "metric": (lambda w, f: plots.difference_map(f, f, w, metric="acc"), "rmse, mse or mae"),
    "other initialisations": (
        lambda w, f: plots.difference_map(f, f.isel(time=slice(2)), w),
        "differ in time.*in common",
    ),
    "other leads": (
        lambda w, f: plots.difference_map(f, f.isel(prediction_timedelta=[0]), w),
        "differ in prediction_timedelta",
    ),
    "no such lead": (lambda w, f: plots.difference_map(f, f, w, lead="9h"), r"no lead time \+9 h"),
    "one time": (lambda w, f: plots.hovmoller(w.isel(time=[0])), "at least two times, found 1"),
    "empty band": (lambda w, f: plots.hovmoller(w, latitude=(1, 2)), "no row.*between 1 and 2"),
    "no latitude": (
        lambda w, f: plots.hovmoller(_clip()[0], latitude=(0, 10)),
        "has no band of latitudes",
    ),
    "ending": (lambda w, f: plots.animate(f, "film.avi"), r"\.gif or \.mp4, found.*film\.avi"),
    "speed": (lambda w, f: plots.animate(f, "film.gif", frames_per_second=0), "positive, found 0"),
    "not a forecast": (lambda w, f: plots.animate(w, "film.gif"), "prediction_timedelta"),
    "nothing": (lambda w, f: plots.clip_strip({}, w), "at least one forecast"),
    "exchanged": (
        lambda w, f: plots.clip_strip(_clip()[0], {"a": _clip()[1]}),
        "look exchanged.*forecast comes first",
    ),
    "exchanged in a film": (lambda w, f: plots.animate(w, "film.gif", f), "look exchanged"),
    "exchanged in a difference": (lambda w, f: plots.difference_map(w, f, f), "look exchanged"),
    "several variables": (
        lambda w, f: plots.clip_strip({"a": _clip(("red", "blue"))[1]}, _clip()[0]),
        "one variable, or of red, green and blue",
    ),
    "different leads": (
        lambda w, f: plots.clip_strip(
            {"a": _clip()[1], "b": _clip()[1].isel(prediction_timedelta=[0])}, _clip()[0]
        ),
        "'b' has other lead times",
    ),
    "no such column": (
        lambda w, f: plots.performance(published.cost_table(), quality="ssim"),
        r"no column \['ssim'\]",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_named(weather, forecast, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, message = REFUSALS[case]
    with pytest.raises(InputError, match=message):
        call(weather, forecast)
    assert not list(tmp_path.iterdir())
