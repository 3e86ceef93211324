"""Scores: closed forms, other people's formulas, alignment, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scores as scores_package
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast import __version__
from stforecast.baselines.climatology import Climatology
from stforecast.baselines.persistence import Persistence
from stforecast.conventions.grid import area_weights
from stforecast.errors import InputError
from stforecast.evaluation.aggregation import merge
from stforecast.evaluation.evaluate import evaluate
from stforecast.evaluation.scorecards import save_scores, scorecard, to_table
from stforecast.task import Task

shared = Path(__file__).parents[2].parent / "shared"
T2M, LEAD = "2m_temperature", "prediction_timedelta"
LATITUDE = np.array([-75.0, -45.0, -15.0, 15.0, 45.0, 75.0])
LONGITUDE = np.arange(0, 360, 40.0)
HOURS = np.array([1, 2, 3, 4], dtype="timedelta64[h]").astype("timedelta64[ns]")


def make_truth(steps: int = 30, seed: int = 0, start: str = "2015-12-30T18") -> xr.Dataset:
    values = 280 + 8 * np.random.default_rng(seed).normal(size=(steps, 6, 9))
    time = pd.date_range(start, periods=steps, freq="1h")
    coords = {"time": time, "latitude": LATITUDE, "longitude": LONGITUDE}
    dims = ("time", "latitude", "longitude")
    return xr.Dataset({T2M: (dims, values.astype("float32"), {"units": "K"})}, coords)


def make_forecast(truth: xr.Dataset, error, inits=range(3, 20), leads=HOURS) -> xr.Dataset:
    """A forecast that is truth at the valid times plus `error` (N, L, H, W)."""
    init = truth.time.values[list(inits)]
    valid = xr.DataArray(init[:, None] + leads, dims=("time", LEAD))
    values = truth[T2M].sel(time=valid).drop_vars("time").astype("float64") + error
    ds = values.astype("float32").assign_attrs(units="K").to_dataset(name=T2M)
    return ds.assign_coords({"time": init, LEAD: leads}).assign_coords(valid_time=valid)


@pytest.fixture
def truth() -> xr.Dataset:
    return make_truth()


@pytest.fixture
def pair(truth) -> tuple[xr.Dataset, xr.Dataset]:
    rng = np.random.default_rng(1)
    error = rng.normal(0.3, 1, (17, 4, 6, 9)) * np.arange(1, 5)[:, None, None]
    return make_forecast(truth, error), truth


def overall(result: xr.Dataset, metric: str = "rmse", variable: str = T2M) -> float:
    return result[f"{variable}_overall"].sel(metric=metric).item()


def aligned(forecast: xr.Dataset, truth: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Forecast and truth of the same dims, by xarray's own labels."""
    valid = (forecast.time + forecast[LEAD]).transpose("time", LEAD)
    at = truth[T2M].sel(time=valid.drop_vars(["time", LEAD])).drop_vars("time")
    return forecast[T2M].astype("float64"), at.assign_coords(forecast[T2M].coords).astype("float64")


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["area", "uniform"])
@pytest.mark.parametrize("c", [-2.5, 0.0, 1.25])
def test_a_constant_error(truth, weights, c):
    result = evaluate(
        make_forecast(truth, c), truth, metrics=("mse", "rmse", "mae", "bias"), weights=weights
    )
    assert result[T2M].dims == ("metric", LEAD)
    assert result[f"{T2M}_overall"].dims == ("metric",)
    expected = [c * c, abs(c), abs(c), c]
    np.testing.assert_allclose(result[T2M], np.repeat(expected, 4).reshape(4, 4), atol=2e-5)
    np.testing.assert_allclose(result[f"{T2M}_overall"], expected, atol=2e-5)


def test_an_error_by_lead_time_and_the_root_last(truth):
    result = evaluate(make_forecast(truth, np.arange(1.0, 5)[:, None, None]), truth)
    np.testing.assert_allclose(result[T2M].sel(metric="rmse"), [1, 2, 3, 4], atol=2e-5)
    # Root of the mean square, not mean of the roots (2.5).
    assert overall(result) == pytest.approx(np.sqrt(7.5), abs=2e-5)
    assert overall(result, "bias") == pytest.approx(2.5, abs=2e-5)


def test_the_root_comes_after_the_mean_over_initialisations(truth):
    size = np.where(np.arange(17) < 8, 1.0, 3.0)[:, None, None, None]
    result = evaluate(make_forecast(truth, size), truth)
    assert overall(result) == pytest.approx(np.sqrt((8 * 1 + 9 * 9) / 17), abs=2e-5)
    assert abs(overall(result) - (8 + 27) / 17) > 0.1


def test_an_error_by_latitude_is_weighted_by_area(truth):
    error = np.array([3.0, 0, 0, 0, 1, 2])[:, None]
    result = evaluate(make_forecast(truth, error), truth)
    s = np.sin(np.deg2rad([30.0, 60.0]))
    polar, middle = 1 - s[1], s[1] - s[0]  # areas of the cells; half a sphere is 1
    expected = (polar * (3 + 2) + middle * 1) / 2
    assert overall(result, "bias") == pytest.approx(expected, abs=2e-5)
    assert overall(result) == pytest.approx(np.sqrt((polar * (9 + 4) + middle * 1) / 2), abs=2e-5)
    uniform = evaluate(make_forecast(truth, error), truth, weights="uniform")
    assert overall(uniform, "bias") == pytest.approx(1, abs=2e-5)


def test_what_the_attributes_tell(pair):
    result = evaluate(*pair, metrics=("rmse", "mse"))
    attrs = result.attrs
    assert attrs["weights"] == "area"
    assert attrs["weights_policy"] == "cosine-free cell-area weights, mean 1"
    assert attrs["initialisations"] == 17
    assert attrs["first_initialisation"] == "2015-12-30T21:00:00"
    assert attrs["last_initialisation"] == "2015-12-31T13:00:00"
    assert attrs["lead_hours"] == "1, 2, 3, 4"
    assert attrs["stforecast_version"] == __version__
    assert result[T2M].attrs["units_rmse"] == "K"
    assert result[T2M].attrs["units_mse"] == "K**2"
    assert "units" not in result[T2M].attrs  # the two have none in common
    assert evaluate(*pair)[T2M].attrs["units"] == "K"
    assert evaluate(*pair, weights="uniform").attrs["weights"] == "uniform"


# --- other people's formulas ----------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["area", "uniform"])
def test_scores_package_agrees(pair, weights):
    forecast, truth = pair
    f, t = aligned(forecast, truth)
    w = xr.DataArray(area_weights(LATITUDE), dims="latitude", coords={"latitude": LATITUDE})
    kwargs = {"preserve_dims": [LEAD], "weights": w if weights == "area" else None}
    c = scores_package.continuous
    result = evaluate(forecast, truth, weights=weights)[T2M]
    for name, theirs in (("rmse", c.rmse), ("mae", c.mae), ("bias", c.additive_bias)):
        np.testing.assert_allclose(result.sel(metric=name), theirs(f, t, **kwargs), rtol=1e-6)


def weatherbench2_mean(x: xr.DataArray) -> xr.DataArray:
    """WeatherBench 2's _spatial_average with get_lat_weights, written out."""
    points = np.deg2rad(x.latitude.values)
    bounds = np.concatenate([[-np.pi / 2], (points[:-1] + points[1:]) / 2, [np.pi / 2]])
    w = np.sin(bounds[1:]) - np.sin(bounds[:-1])
    weights = x.latitude.copy(data=w / w.mean())
    return x.weighted(weights).mean(["latitude", "longitude"], skipna=False)


def test_weatherbench2_agrees(pair):
    forecast, truth = pair
    f, t = aligned(forecast, truth)
    result = evaluate(forecast, truth, metrics=("rmse", "mse", "mae", "bias"))[T2M]
    mse = weatherbench2_mean((f - t) ** 2).mean("time")
    np.testing.assert_allclose(result.sel(metric="mse"), mse, rtol=1e-6)
    np.testing.assert_allclose(result.sel(metric="rmse"), np.sqrt(mse), rtol=1e-6)
    mae, bias = weatherbench2_mean(abs(f - t)), weatherbench2_mean(f - t)
    np.testing.assert_allclose(result.sel(metric="mae"), mae.mean("time"), rtol=1e-6)
    np.testing.assert_allclose(result.sel(metric="bias"), bias.mean("time"), rtol=1e-6)


def make_climatology() -> Climatology:
    hour, day = np.arange(24), np.arange(1, 367)
    values = 280 + np.random.default_rng(5).normal(size=(24, 366, 6, 9)).astype("float32")
    coords = {"hour": hour, "dayofyear": day, "latitude": LATITUDE, "longitude": LONGITUDE}
    dims = ("hour", "dayofyear", "latitude", "longitude")
    return Climatology(xr.Dataset({T2M: (dims, values, {"units": "K"})}, coords), Task("t2m"))


@pytest.mark.parametrize(
    "form", [lambda c: c, lambda c: c.dataset.isel(latitude=slice(None, None, -1))]
)
def test_weatherbench2s_anomaly_correlation_agrees(pair, form):
    forecast, truth = pair
    f, t = aligned(forecast, truth)
    clim = make_climatology()
    valid = f.time + f[LEAD]
    c = clim.dataset[T2M].sel(dayofyear=valid.dt.dayofyear, hour=valid.dt.hour).astype("float64")
    c = c.transpose("time", LEAD, "latitude", "longitude")
    power = weatherbench2_mean((f - c) ** 2) * weatherbench2_mean((t - c) ** 2)
    acc = weatherbench2_mean((f - c) * (t - c)) / np.sqrt(power)
    result = evaluate(forecast, truth, climatology=form(clim), metrics="rmse")
    assert result.metric.values.tolist() == ["rmse", "acc"]  # added, since a climatology is given
    np.testing.assert_allclose(result[T2M].sel(metric="acc"), acc.mean("time"), rtol=1e-6)
    assert overall(result, "acc") == pytest.approx(acc.mean().item(), rel=1e-6)
    by_init = evaluate(forecast, truth, climatology=clim, by="time")[T2M].sel(metric="acc")
    np.testing.assert_allclose(by_init, acc.mean(LEAD), rtol=1e-6)


@pytest.mark.skipif(not shared.exists(), reason="needs ../shared/golden")
@pytest.mark.parametrize("case", ["t2m", "mv"])
def test_golden_unweighted_metrics(case):
    path = shared / "golden" / "public" / f"metric_weather_{case}"
    expected = json.loads(path.with_suffix(".json").read_text())
    with np.load(path.with_suffix(".npz")) as arrays:
        pred, true = (
            arrays[k].astype("float64") * arrays["std"] + arrays["mean"] for k in ("pred", "true")
        )
    n, leads, _, height, width = pred.shape
    # Not the names of temperatures: these numbers are none, and the gate would say so.
    names = [f"field_{v}" for v in expected["channel_names"] or ["t2m"]]
    # Samples are apart by more than the leads, so every one has its own truth.
    init = pd.date_range("2017-01-01", periods=n, freq="5D").to_numpy()
    lead = np.arange(1, leads + 1) * np.timedelta64(1, "h").astype("timedelta64[ns]")
    space = {
        "latitude": np.linspace(-87.1875, 87.1875, height),
        "longitude": np.arange(width) * 5.625,
    }
    dims, tdims = ("time", LEAD, *space), ("time", *space)
    forecast = xr.Dataset(
        {v: (dims, pred[:, :, i]) for i, v in enumerate(names)}, {"time": init, LEAD: lead, **space}
    )
    valid = (init[:, None] + lead).ravel()
    observed = {v: (tdims, true[:, :, i].reshape(-1, height, width)) for i, v in enumerate(names)}
    truth = xr.Dataset(observed, {"time": valid, **space})
    result = evaluate(forecast, truth, metrics=("mse", "mae", "rmse"), weights="uniform")
    for key in ("openstl_float32", "openstl_float64_inputs"):
        golden = expected[key]
        for metric in ("mse", "mae", "rmse"):
            each = [overall(result, metric, v) for v in names]
            if case == "mv":
                wanted = [golden[f"{metric}_{v}"] for v in expected["channel_names"]]
                np.testing.assert_allclose(each, wanted, rtol=1e-6)
            # Theirs for several variables is the plain mean over these.
            assert np.mean(each) == pytest.approx(golden[metric], rel=1e-6)


# --- alignment and layout -------------------------------------------------------------------------


def test_truth_is_taken_at_the_valid_time(truth):
    perfect = make_forecast(truth, 0.0)
    assert overall(evaluate(perfect, truth)) == 0
    late = make_forecast(truth, 0.0, leads=HOURS + np.timedelta64(1, "h"))
    shifted = perfect.drop_vars("valid_time").assign_coords({LEAD: late[LEAD].values})
    assert overall(evaluate(shifted, truth)) > 5  # another hour's weather, 8 K of noise


def test_any_layout_of_either_gives_the_same(pair):
    forecast, truth = pair
    expected = evaluate(forecast, truth)
    east = truth.assign_coords(longitude=(LONGITUDE + 180) % 360 - 180).sortby("longitude")
    celsius = (forecast - np.float32(273.15)).isel(latitude=slice(None, None, -1))
    celsius[T2M].attrs["units"] = "degC"
    celsius = celsius.rename({T2M: "t2m", "latitude": "lat", "longitude": "lon"})
    celsius = celsius.transpose("lon", LEAD, "lat", "time")
    for f, t in [
        (forecast, east),
        (celsius, truth),
        (celsius.drop_vars("valid_time"), east.transpose("longitude", "time", "latitude")),
        (forecast, truth.rename(time="valid_time")),
        (forecast[T2M], truth[T2M]),
    ]:
        result = evaluate(f, t)
        xr.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)
        assert result.attrs == expected.attrs


def test_coordinates_may_differ_by_rounding_and_no_row_is_lost(truth):
    # The error is all in the row that an inner join would drop.
    forecast = make_forecast(truth, np.array([0, 0, 0, 0, 0, 4.0])[:, None])
    moved = LATITUDE.copy()
    moved[-1] += 2e-5
    result = evaluate(forecast.assign_coords(latitude=moved), truth)
    assert overall(result) == pytest.approx(overall(evaluate(forecast, truth)), rel=1e-6)
    assert overall(result) > 1


def test_one_initialisation_or_lead_time_may_be_a_scalar(pair):
    forecast, truth = pair
    by_lead = evaluate(forecast.isel(time=2), truth)
    expected = evaluate(forecast, truth, by=("time", LEAD)).isel(time=2)
    np.testing.assert_allclose(by_lead[T2M], expected[T2M], rtol=1e-9)
    assert by_lead.attrs["initialisations"] == 1
    second = evaluate(forecast.isel({LEAD: 1}), truth)
    np.testing.assert_allclose(second[T2M][:, 0], evaluate(forecast, truth)[T2M][:, 1], rtol=1e-9)


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars(calendar):
    truth = make_truth()
    time = xr.date_range("2015-02-27T18", periods=30, freq="h", calendar=calendar, use_cftime=True)
    init = time[3:20]
    forecast = make_forecast(truth, 1.5).drop_vars("valid_time").assign_coords(time=init)
    truth = truth.assign_coords(time=time)
    result = evaluate(forecast, truth, by=("time",))
    np.testing.assert_allclose(result[T2M].sel(metric="rmse"), 1.5, atol=2e-5)
    assert result.attrs["first_initialisation"] == init[0].isoformat()
    with pytest.raises(InputError, match="calendar"):
        evaluate(forecast, make_truth())


# --- blocks ---------------------------------------------------------------------------------------


def cuts(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Any way to cut `size` points in chunks."""
    inner = st.sets(st.integers(1, size - 1), max_size=4) if size > 1 else st.just(set())
    return inner.map(lambda at: tuple(np.diff([0, *sorted(at), size]).tolist()))


@settings(max_examples=15, deadline=None)
@given(
    chunks=st.tuples(cuts(17), cuts(4), cuts(6), cuts(9)),
    truth_chunks=st.tuples(cuts(30), cuts(6), cuts(9)),
    lazy=st.sampled_from(["both", "forecast", "truth", "neither"]),
    block=st.integers(1, 300),
    piece=st.integers(1, 3000),
    fan=st.integers(2, 9),
    seed=st.integers(0, 1000),
    weights=st.sampled_from(["area", "uneven"]),
    by=st.sampled_from([(LEAD,), ("time", LEAD), (), ("latitude", "time"), ("longitude",)]),
)
def test_any_chunks_added_in_any_order_give_what_the_whole_gives(
    chunks, truth_chunks, lazy, block, piece, fan, seed, weights, by
):
    truth = make_truth()
    forecast = make_forecast(truth, np.random.default_rng(3).normal(0.3, 1, (17, 4, 6, 9)))
    options: dict = {"by": by}
    if weights == "uneven":  # along a row
        options["weights"] = truth[T2M][0] - 250
    if not {"latitude", "longitude"} & set(by):
        options["climatology"] = make_climatology()
    f, t = forecast, truth
    if lazy in ("both", "forecast"):
        f = f.chunk(dict(zip(forecast[T2M].dims, chunks, strict=True)))
    if lazy in ("both", "truth"):
        t = t.chunk(dict(zip(truth[T2M].dims, truth_chunks, strict=True)))
    whole = evaluate(forecast, truth, **options)

    order = np.random.default_rng(seed)

    def shuffled(parts):
        return [parts[i] for i in order.permutation(len(parts))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stforecast.evaluation.sums.BLOCK", 4 * block)
        patch.setattr("stforecast.evaluation.aggregation.PIECE", 4 * piece)
        patch.setattr("stforecast.evaluation.aggregation.TASK", 4 * piece)
        patch.setattr("stforecast.evaluation.aggregation.FAN", fan)
        patch.setattr(
            "stforecast.evaluation.aggregation.merge", lambda parts: merge(shuffled(parts))
        )
        result = evaluate(f, t, **options)
    xr.testing.assert_allclose(result, whole, rtol=1e-12, atol=1e-14)
    assert result.attrs == whole.attrs


def test_a_lazy_forecast_is_computed_once_for_all_its_variables(pair):
    import dask.array as da

    forecast, truth = pair
    runs = []

    def network(_, block_info):
        at = block_info[None]["array-location"][0]
        runs.append(tuple(at))
        values = forecast[T2M].values[at[0] : at[1]]
        return np.stack([values, values + 1], axis=1)

    source = da.zeros((17, 2, 4, 6, 9), chunks=(5, 2, 4, 6, 9), dtype="float32")
    both = source.map_blocks(network, dtype="float32", meta=np.zeros((0,) * 5, "float32"))
    dims = forecast[T2M].dims
    lazy = xr.Dataset({n: (dims, both[:, i]) for i, n in enumerate("ab")}, forecast.coords)
    observed = xr.Dataset({"a": truth[T2M], "b": truth[T2M]})
    observed.a.attrs = observed.b.attrs = {}
    result = evaluate(lazy, observed)
    assert sorted(runs) == [(0, 5), (5, 10), (10, 15), (15, 17)]
    difference = overall(result, "bias", "b") - overall(result, "bias", "a")
    assert difference == pytest.approx(1, abs=1e-5)
    assert overall(result, variable="a") == pytest.approx(overall(evaluate(*pair)), rel=1e-6)


def test_by_keeps_dimensions_and_the_overall_value(pair):
    forecast, truth = pair
    f, t = aligned(forecast, truth)
    expected = np.sqrt(((f - t) ** 2).mean(("time", "longitude")))
    result = evaluate(forecast, truth, by=("latitude", LEAD))
    assert result[T2M].dims == ("metric", "latitude", LEAD)
    np.testing.assert_allclose(
        result[T2M].sel(metric="rmse"), expected.transpose("latitude", LEAD), rtol=1e-6
    )
    np.testing.assert_array_equal(result.latitude, LATITUDE)
    by_time = evaluate(forecast, truth, by="time", metrics="mse")
    np.testing.assert_array_equal(by_time.time, forecast.time)
    for other in (result, evaluate(forecast, truth, by=())):
        assert overall(other) == pytest.approx(overall(evaluate(forecast, truth)), rel=1e-12)
    assert by_time[T2M].mean().item() == pytest.approx(overall(result) ** 2, rel=1e-9)


# --- masks and grids without latitude -------------------------------------------------------------


def test_nan_is_refused_unless_masked(pair):
    forecast, truth = pair
    forecast[T2M][4, 1, 2, 5] = np.nan
    with pytest.raises(InputError, match=r"2m_temperature of the forecast is NaN.*2015-12-31T01"):
        evaluate(forecast, truth)
    forecast[T2M][4, 1, 2, 5] = 280
    truth[T2M][:, 2, 5] = np.nan
    with pytest.raises(InputError, match=r"2m_temperature of the truth is NaN.*weights="):
        evaluate(forecast, truth)
    # A mask, in another layout than the forecast's.
    mask = xr.ones_like(truth[T2M][0], dtype=float)
    mask[:] = area_weights(LATITUDE)[:, None]
    mask[2, 5] = 0
    masked = evaluate(forecast, truth, weights=mask.isel(latitude=slice(None, None, -1)).T)
    f, t = aligned(forecast, truth)
    mean = ((f - t) ** 2).weighted(mask.drop_vars("time")).mean(("time", "latitude", "longitude"))
    np.testing.assert_allclose(masked[T2M].sel(metric="rmse"), np.sqrt(mean), rtol=1e-6)
    assert masked.attrs["weights"] == "custom"
    assert "1 of 54 masked" in masked.attrs["weights_policy"]
    with pytest.raises(InputError, match="not all zero"):
        evaluate(forecast, truth, weights=mask * 0)
    with pytest.raises(InputError, match=r"latitude has 6 points .* and 5 points"):
        evaluate(forecast, truth, weights=mask[:5])


def test_infinity_is_refused_and_the_time_named(pair):
    forecast, truth = pair
    truth[T2M][9, 0, 0] = np.inf
    with pytest.raises(InputError, match=r"truth is NaN or infinite.*2015-12-31T03.* 1 values"):
        evaluate(forecast, truth)


def test_a_grid_without_latitude_counts_every_cell_the_same():
    time = pd.date_range("2016-01-01", periods=12, freq="30min")
    flow = np.random.default_rng(0).poisson(20, (12, 5, 3)).astype("float32")
    truth = xr.Dataset({"inflow": (("time", "y", "x"), flow)}, {"time": time})
    lead = np.array([30, 60], dtype="timedelta64[m]").astype("timedelta64[ns]")
    error = np.arange(15.0).reshape(5, 3)
    values = np.stack([[flow[i + 1], flow[i + 2]] for i in range(8)]) + error
    forecast = xr.Dataset(
        {"inflow": (("time", LEAD, "y", "x"), values)}, {"time": time[:8], LEAD: lead}
    )
    result = evaluate(forecast, truth, by=("y",))
    np.testing.assert_allclose(result["inflow"].sel(metric="bias"), error.mean(1), rtol=1e-6)
    assert overall(result, "bias", "inflow") == pytest.approx(7)
    assert result.attrs["weights"] == "uniform"
    assert "no latitude" in result.attrs["weights_policy"]
    assert result.attrs["lead_hours"] == "0.5, 1"


# --- refusals -------------------------------------------------------------------------------------


def _units(f, t):
    t[T2M].attrs["units"] = "m"
    return f.rename({T2M: "height"}), t.rename({T2M: "height"})


def _renamed(name: str, units: tuple[str, str], scale: float):
    """Another quantity, in one unit in the forecast and in another in truth."""

    def change(f, t):
        f, t = f.rename({T2M: name}), (t * scale).rename({T2M: name})
        f[name].attrs["units"], t[name].attrs["units"] = units
        return f, t

    return change


def _hidden_hole(f, t):
    t[T2M][9, 2, 3] = np.nan
    return f, t


def _false_label(f, t):
    t[T2M].attrs["units"] = "degC"
    return f, t


def _valid_time(f, t):
    return f.assign_coords(valid_time=f.valid_time + np.timedelta64(1, "h")), t


REFUSED = {
    "a gap in truth": (
        lambda f, t: (f, t.isel(time=[i for i in range(30) if i not in (9, 10)])),
        r"lacks 2 of the forecast's 20 valid times, first 2015-12-31T03.*last 2015-12-31T04",
    ),
    "truth too short": (lambda f, t: (f, t.isel(time=slice(22))), "lacks 2 .*truth runs from"),
    "off by minutes": (
        lambda f, t: (f, t.assign_coords(time=t.time + np.timedelta64(30, "m"))),
        "lacks 20 of",
    ),
    "another grid": (
        lambda f, t: (f, t.assign_coords(latitude=LATITUDE + 0.5)),
        "forecast and truth .*latitude .* up to 0.5 apart",
    ),
    "just over the tolerance": (
        lambda f, t: (f, t.assign_coords(longitude=LONGITUDE + 0.002)),
        "longitude .* up to 0.002 apart",
    ),
    "other sizes": (
        lambda f, t: (f, t.isel(latitude=slice(1, None))),
        "latitude has 6 points .* and 5 points",
    ),
    "units": (_units, "'K' in the forecast and 'm' in truth"),
    "a missing variable": (lambda f, t: (f, t.rename({T2M: "z500"})), "2m_temperature"),
    "duplicate times in truth": (
        lambda f, t: (f, xr.concat([t, t.isel(time=[4])], "time")),
        "duplicate",
    ),
    "duplicate initialisations": (
        lambda f, t: (xr.concat([f, f.isel(time=[4])], "time"), t),
        "duplicate",
    ),
    "wrong valid times": (_valid_time, "valid_time"),
    "no forecast": (lambda f, t: (t, t), "prediction_timedelta"),
    "no truth": (lambda f, t: (f, f), "not forecasts"),
    "an empty forecast": (lambda f, t: (f.isel(time=slice(0)), t), "time"),
    "truth every six hours": (
        lambda f, t: (f, t.isel(time=slice(None, None, 6))),
        r"lacks 17 of the forecast's 20 valid times, first 2015-12-30T22",
    ),
    "truth of another year": (
        lambda f, t: (f, t.assign_coords(time=t.time + np.timedelta64(366, "D"))),
        "lacks 20 of .*truth runs from 2016-12-30",
    ),
    "duplicate lead times": (lambda f, t: (xr.concat([f, f.isel({LEAD: [1]})], LEAD), t), "dupl"),
    "duplicate rows": (
        lambda f, t: (f, xr.concat([t, t.isel(latitude=[5])], "latitude")),
        "latitude",
    ),
    "duplicate columns, 0 and 360": (
        lambda f, t: (
            f,
            xr.concat([t, t.isel(longitude=[0]).assign_coords(longitude=[360.0])], "longitude"),
        ),
        "longitude",
    ),
    "half a cell to the east": (
        lambda f, t: (f, t.assign_coords(longitude=LONGITUDE + 20)),
        "forecast and truth .*longitude .* up to 20 apart",
    ),
    "upside down without saying so": (
        lambda f, t: (f.assign_coords(latitude=LATITUDE * 0.9), t),
        "forecast and truth .*latitude .* up to 7.5 apart",
    ),
    "a region and the globe": (
        lambda f, t: (f, t.isel(longitude=slice(4))),
        "longitude has 9 points .* and 4 points",
    ),
    "Celsius called kelvin": (
        lambda f, t: (
            (f - 273.15).assign_coords(f.coords).map(lambda a: a.assign_attrs(units="K")),
            t,
        ),
        r"forecast is below truth by 27.* K on average: the forecast looks like degC",
    ),
    "kelvin called Celsius": (_false_label, "'degC', but its values .* contradict"),
    "hPa and Pa": (
        _renamed("mean_sea_level_pressure", ("hPa", "Pa"), 100),
        "'hPa' in the forecast and 'Pa' in truth",
    ),
    "a missing value in truth": (_hidden_hole, r"truth is NaN or infinite: first at time .*T03"),
    "pixels and places": (
        lambda f, t: (f, t.rename(latitude="y", longitude="x")),
        "truth has no latitude",
    ),
    "another level": (
        lambda f, t: (f.rename({T2M: "z500"}), t.rename({T2M: "geopotential_850"})),
        "500",
    ),
    "another calendar": (
        lambda f, t: (f, t.convert_calendar("noleap", use_cftime=True)),
        "calendar",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_pairs_that_do_not_fit_are_refused(pair, case):
    change, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        evaluate(*change(*pair))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("rmse", "r2")}, r"metrics must be among .*found \['r2'\]"),
        ({"metrics": ()}, "metrics"),
        ({"metrics": "acc"}, "climatology="),
        ({"weights": "cosine"}, "cosine"),
        ({"by": "level"}, "by must be among"),
        ({"by": "latitude", "climatology": make_climatology()}, "over the map"),
    ],
)
def test_options_that_do_not_fit_are_refused(pair, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(*pair, **options)


def test_a_mask_of_booleans_weighs_as_one_and_zero(pair):
    forecast, truth = pair
    field = truth[T2M].isel(time=0, drop=True)
    mask = field > field.median()
    right = evaluate(forecast, truth, weights=mask.astype("float32"))
    once = mask.expand_dims(time=truth["time"].values[:1])
    for whole in (mask, mask.astype("int8"), mask.transpose(..., field.dims[0]), once):
        xr.testing.assert_identical(evaluate(forecast, truth, weights=whole), right)
    with pytest.raises(InputError, match="not all zero"):
        evaluate(forecast, truth, weights=mask & ~mask)
    with pytest.raises(InputError, match=r"has the dimensions \('time', "):
        evaluate(forecast, truth, weights=truth[T2M] > 280)
    for other, kind in ((mask.values, "ndarray"), (mask.to_dataset(name="m"), "Dataset")):
        with pytest.raises(InputError, match=rf"weights must be .* found {kind}"):
            evaluate(forecast, truth, weights=other)


def test_a_climatology_in_other_units_is_refused(truth):
    task = Task("msl", 2, 2)
    truth = truth.rename({T2M: "msl"})
    truth["msl"].attrs = {"units": "Pa"}
    means = truth.isel(time=0, drop=True)
    reference = means.expand_dims(hour=np.arange(24.0), dayofyear=range(1, 367)).copy()
    forecast = Persistence(task).predict(truth, init_time=truth.time[4:6])
    evaluate(forecast, truth, climatology=reference)
    reference["msl"].attrs = {"units": "hPa"}
    with pytest.raises(InputError, match="'Pa' in the forecast and 'hPa' in the climatology"):
        evaluate(forecast, truth, climatology=reference)


# --- scorecards -----------------------------------------------------------------------------------


@pytest.fixture
def results(truth) -> dict[str, xr.Dataset]:
    lead = np.arange(1.0, 5)[:, None, None]
    errors = {"Net": lead / 4, "Persistence": lead, "Climatology": 2.0}
    return {name: evaluate(make_forecast(truth, e), truth) for name, e in errors.items()}


def test_scorecard_has_skill_against_each_baseline(results):
    card = scorecard(results)
    assert card[T2M].dims == ("model", "metric", LEAD)
    assert card[f"{T2M}_overall"].dims == ("model", "metric")
    assert card[f"{T2M}_skill"].dims == ("model", "reference", LEAD)
    assert card[f"{T2M}_skill_overall"].dims == ("model", "reference")
    assert card.model.values.tolist() == ["Net", "Persistence", "Climatology"]
    assert card.reference.values.tolist() == ["Persistence", "Climatology"]
    skill = card[f"{T2M}_skill"].sel(model="Net")
    np.testing.assert_allclose(skill.sel(reference="Persistence"), 0.75, atol=1e-5)
    expected = 1 - np.arange(1, 5) / 8
    np.testing.assert_allclose(skill.sel(reference="Climatology"), expected, atol=1e-4)
    total = card[f"{T2M}_skill_overall"].sel(reference="Climatology")
    np.testing.assert_allclose(total, [1 - np.sqrt(7.5) / 8, 1 - np.sqrt(7.5) / 2, 0], atol=1e-4)
    assert card.attrs["weights"] == "area"


def test_no_ratio_of_persistence_to_the_frame_copy(results):
    """Published ratios are to one of the two; all others are held against both, by name."""
    card = scorecard(results | {"FrameCopy": results["Climatology"]})
    skill = card[f"{T2M}_skill_overall"]
    assert skill.reference.values.tolist() == ["Persistence", "Climatology", "FrameCopy"]
    copies = skill.sel(model=["Persistence", "FrameCopy"], reference=["Persistence", "FrameCopy"])
    np.testing.assert_array_equal(copies, [[0, np.nan], [np.nan, 0]])
    assert np.isfinite(skill.sel(model=["Net", "Climatology"])).all()
    assert not any("FrameCopy: skill" in row for row in to_table(card).index)


def test_scorecards_are_of_the_same_sample(results, pair):
    forecast, truth = pair
    for other, what in [
        (evaluate(forecast, truth, weights="uniform"), "weights"),
        (evaluate(forecast.isel(time=slice(1, None)), truth), "initialisation"),
        (evaluate(forecast, truth, metrics="rmse"), "metrics"),
        (evaluate(forecast, truth, by=()), T2M),
        (evaluate(forecast.isel({LEAD: [0, 1]}), truth), "lead_hours"),
        (evaluate(*(d.isel(longitude=slice(5)) for d in pair)), "grid 6 x 9 and 6 x 5"),
    ]:
        with pytest.raises(InputError, match=rf"'Net' and 'other' do not compare: .*{what}"):
            scorecard({**results, "other": other})
    with pytest.raises(InputError, match="Copying"):
        scorecard(results, references=["Copying"])
    with pytest.raises(InputError, match="at least one"):
        scorecard({})
    bias = {"a": evaluate(forecast, truth, metrics="bias")}
    with pytest.raises(InputError, match="skill needs"):
        scorecard(bias, references=["a"])
    assert f"{T2M}_skill" not in scorecard(bias)


def test_skill_comes_from_mse_too(truth):
    lead = np.arange(1.0, 5)[:, None, None]
    both = {
        n: evaluate(make_forecast(truth, e), truth, metrics="mse")
        for n, e in (("Net", lead / 4), ("Ridge", lead))
    }
    skill = scorecard(both, references=["Ridge"])[f"{T2M}_skill"]
    np.testing.assert_allclose(skill.sel(model="Net"), 0.75, atol=1e-5)


def test_the_table_for_people(results):
    table = to_table(scorecard(results))
    assert table.columns.tolist() == ["1 h", "2 h", "3 h", "4 h", "overall"]
    assert table.index.tolist() == [
        "Net",
        "Persistence",
        "Climatology",
        "Net: skill vs Persistence",
        "Net: skill vs Climatology",
    ]
    assert table.loc["Persistence"].tolist() == [1, 2, 3, 4, 2.739]
    assert table.loc["Net: skill vs Climatology"].tolist() == [0.875, 0.75, 0.625, 0.5, 0.658]
    assert table.columns.name == "2m_temperature rmse [K], area weights"
    bias = to_table(scorecard(results), metric="bias", digits=1)
    assert bias.loc["Climatology"].tolist() == [2.0] * 5
    assert len(bias) == 3
    with pytest.raises(InputError, match="found 'z500'"):
        to_table(scorecard(results), variable="z500")
    with pytest.raises(InputError, match="scorecard"):
        to_table(results["Net"])


def test_a_printed_table_shows_all_leads(pair):
    leads = (np.arange(1, 25) * np.timedelta64(1, "h")).astype("timedelta64[ns]")
    scores = evaluate(*pair)
    scores = scores.isel({LEAD: np.arange(24) % scores.sizes[LEAD]}).assign_coords({LEAD: leads})
    text = str(to_table(scorecard({"Net": scores})))
    assert {f"{hour}" for hour in range(1, 25)} <= set(text.split())
    assert "..." not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", ["lat", "nav_lat", "latitude"])
def test_by_takes_the_names_of_the_files(pair, name):
    forecast, truth = (ds.rename(latitude=name) if name != "latitude" else ds for ds in pair)
    expected = evaluate(*pair, by=("latitude", LEAD))
    result = evaluate(forecast, truth, by=(name, "lead_time"))
    xr.testing.assert_equal(result[T2M], expected[T2M])
    with pytest.raises(InputError, match="by must be among"):
        evaluate(forecast, truth, by=("valid_time",))


def test_files_open_without_this_package(results, tmp_path):
    card = scorecard(results)
    nc, csv = save_scores(card, tmp_path / "run" / "1")
    assert sorted(p.name for p in nc.parent.iterdir()) == ["scores.csv", "scores.nc"]
    with xr.open_dataset(nc) as opened:
        xr.testing.assert_allclose(opened.load(), card)
        assert opened[LEAD].dtype == np.dtype("timedelta64[ns]")
        np.testing.assert_array_equal(opened[LEAD], HOURS)
        assert opened.attrs == card.attrs
    table = pd.read_csv(csv, dtype={"lead_hours": str})
    assert table.columns.tolist() == [
        *("model", "variable", "metric", "lead_hours", "value", "units", "weights")
    ]
    # 3 models x 3 metrics x (4 leads + overall), and 3 models x 2 references x (4 + 1)
    assert len(table) == 45 + 30
    row = table.query("model == 'Net' and metric == 'rmse' and lead_hours == '3'")
    assert row.value.item() == pytest.approx(0.75, abs=1e-4)
    assert row[["variable", "units", "weights"]].to_numpy().tolist() == [[T2M, "K", "area"]]
    row = table.query("metric == 'skill_vs_Persistence' and lead_hours == 'overall'")
    assert row.value.tolist() == pytest.approx([0.75, 0, 1 - 2 / np.sqrt(7.5)], abs=1e-4)


def test_other_dimensions_get_columns_of_their_own(pair, tmp_path):
    card = scorecard({"Net": evaluate(*pair, by=("latitude",), metrics=("rmse", "mse"))})
    _, csv = save_scores(card, tmp_path)
    table = pd.read_csv(csv)
    assert table.lead_hours.unique().tolist() == ["overall"]
    rows = table.dropna().query("metric == 'mse'")
    assert rows.latitude.tolist() == LATITUDE.tolist()
    assert rows.units.unique().tolist() == ["K**2"]
    assert to_table(card).columns.tolist() == ["overall"]


def test_nothing_is_half_written(results, tmp_path, monkeypatch):
    card = scorecard(results)
    save_scores(card, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(InputError, match="No space left"):
        save_scores(card.isel(model=[0]), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the scores"):
        save_scores(card, tmp_path / "file")
    with pytest.raises(InputError, match="scorecard"):
        save_scores(results["Net"], tmp_path)
