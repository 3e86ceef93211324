"""`evaluate` beside other people's scores, on random and on real data; WeatherBench 2's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scores
import xarray as xr
import zarr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stforecast.baselines.climatology import Climatology
from stforecast.baselines.persistence import Persistence
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.predict import predict
from stforecast.task import Task
from stforecast.testing.weather import make_weather

DATA = Path(__file__).parents[2].parent / "shared" / "data"
T2M, LEAD = "2m_temperature", "prediction_timedelta"
STEP = np.timedelta64(6, "h").astype("m8[ns]")
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no data at {DATA}")


# --- pairs of forecast and truth ------------------------------------------------------------------


def random_truth(latitude, longitude, steps=60) -> xr.Dataset:
    values = np.random.default_rng(0).normal(280, 8, (steps, len(latitude), len(longitude)))
    time = pd.date_range("2015-12-28", periods=steps, freq="6h").to_numpy()
    space = {"latitude": latitude, "longitude": longitude}
    data = {T2M: (("time", *space), values.astype("f4"), {"units": "K"})}
    return xr.Dataset(data, {"time": time, **space})


def real_truth() -> xr.Dataset:
    """Analyses of NCEP/NCAR over North America, 75 to 15 N, north first."""
    ds = xr.open_zarr(DATA / "ncep_air_temperature/air_temperature.zarr")
    ds = ds[["air"]].sel(time=slice("2014-02-20", "2014-03-20")).compute().astype("f4")
    names = {"air": T2M, "lat": "latitude", "lon": "longitude"}
    return ds.rename(names).transpose("time", "latitude", "longitude")


TRUTHS = {
    "random, global, poles, south first": lambda: random_truth(
        np.linspace(-90, 90, 19), np.arange(0, 360, 20.0)
    ),
    "random, global, poles, north first": lambda: random_truth(
        np.linspace(90, -90, 19), np.arange(0, 360, 20.0)
    ),
    "random, global, no poles, south first": lambda: random_truth(
        np.linspace(-87.1875, 87.1875, 32), np.arange(0, 360, 45.0)
    ),
    "random, global, no poles, north first": lambda: random_truth(
        np.linspace(87.1875, -87.1875, 32), np.arange(0, 360, 45.0)
    ),
    "random, regional, up to a pole": lambda: random_truth(
        np.linspace(90, 40, 21), np.arange(0, 50, 5.0)
    ),
    "real, regional, north first": real_truth,
    "real, regional, south first": lambda: real_truth().isel(latitude=slice(None, None, -1)),
    "real numbers on a globe with poles": lambda: real_truth().assign_coords(
        latitude=np.linspace(90, -90, 25), longitude=np.arange(53) * 360 / 53
    ),
}


def pair(truth: xr.Dataset, leads: int = 4) -> tuple[xr.Dataset, xr.Dataset]:
    """Persistence, a little damped: real errors where truth is real."""
    init = truth.time.values[:-leads]
    forecast = predict(truth, Persistence(Task(T2M, 1, leads, "6h")), init_time=init)
    middle = truth[T2M].mean("time").astype("f4")
    damped = (middle + 0.9 * (forecast[T2M] - middle)).transpose(*forecast[T2M].dims)
    return damped.assign_attrs(units="K").to_dataset(name=T2M).assign_coords(forecast.coords), truth


def aligned(forecast: xr.Dataset, truth: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Forecast and truth at its valid time in float64, as WeatherBench 2 aligns them."""
    valid = forecast.time + forecast[LEAD]
    at = truth[T2M].sel(time=valid).drop_vars("time").assign_coords(time=forecast.time)
    return forecast[T2M].astype("f8"), at.transpose(*forecast[T2M].dims).astype("f8")


def cell_areas(latitude: xr.DataArray) -> xr.DataArray:
    """Areas of cells whose bounds are midway, the outer ones half a spacing on or at the pole."""
    step = abs(float(latitude[1] - latitude[0]))
    low, high = (np.clip(latitude + side * step / 2, -90, 90) for side in (-1, 1))
    low = xr.where(latitude - step < -90, -90.0, low)
    high = xr.where(latitude + step > 90, 90.0, high)
    area = np.sin(np.deg2rad(high)) - np.sin(np.deg2rad(low))
    return area / area.mean()


# --- the `scores` package -------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("weights", ["area", "uniform"])
def test_scores_agrees(name, weights):
    if name.startswith("real") and not DATA.exists():
        pytest.skip(f"no data at {DATA}")
    forecast, truth = pair(TRUTHS[name]())
    f, t = aligned(forecast, truth)
    options = {
        "preserve_dims": [LEAD],
        "weights": cell_areas(f.latitude) if weights == "area" else None,
    }
    ours = evaluate(forecast, truth, metrics=("rmse", "mse", "mae", "bias"), weights=weights)[T2M]
    theirs = {
        "rmse": scores.continuous.rmse,
        "mse": scores.continuous.mse,
        "mae": scores.continuous.mae,
        "bias": scores.continuous.additive_bias,
    }
    size = float(ours.sel(metric="mae").min())
    for metric, function in theirs.items():
        # A bias is a difference of errors: it is held to a millionth of these.
        slack = 1e-6 * size if metric == "bias" else 0
        np.testing.assert_allclose(
            ours.sel(metric=metric), function(f, t, **options), rtol=1e-6, atol=slack
        )


# --- WeatherBench 2's formulas --------------------------------------------------------------------


def wb2_mean(x: xr.DataArray) -> xr.DataArray:
    """Its `_spatial_average` with its `get_lat_weights`, which ascend from pole to pole."""
    x = x.sortby("latitude")
    points = np.deg2rad(x.latitude.values)
    bounds = np.concatenate([[-np.pi / 2], (points[:-1] + points[1:]) / 2, [np.pi / 2]])
    w = np.sin(bounds[1:]) - np.sin(bounds[:-1])
    weights = x.latitude.copy(data=w / np.mean(w))
    return x.weighted(weights).mean(["latitude", "longitude"], skipna=False)


@pytest.mark.parametrize("name", [n for n in TRUTHS if "glob" in n])
def test_weatherbench2_agrees(name):
    if name.startswith("real") and not DATA.exists():
        pytest.skip(f"no data at {DATA}")
    forecast, truth = pair(TRUTHS[name]())
    f, t = aligned(forecast, truth)
    climatology = _climatology(truth)
    valid = f.time + f[LEAD]
    c = climatology[T2M].sel(dayofyear=valid.dt.dayofyear, hour=valid.dt.hour).astype("f8")
    c = c.transpose(*f.dims)
    ours = evaluate(
        forecast, truth, metrics=("mse", "rmse", "mae", "bias"), climatology=climatology
    )
    mse = wb2_mean((f - t) ** 2).mean("time")
    acc = wb2_mean((f - c) * (t - c)) / np.sqrt(wb2_mean((f - c) ** 2) * wb2_mean((t - c) ** 2))
    expected = {
        "mse": mse,
        "rmse": np.sqrt(mse),
        "mae": wb2_mean(abs(f - t)).mean("time"),
        "bias": wb2_mean(f - t).mean("time"),
        "acc": acc.mean("time"),
    }
    size = float(expected["mae"].min())
    for metric, theirs in expected.items():
        slack = 1e-6 * size if metric == "bias" else 0
        np.testing.assert_allclose(
            ours[T2M].sel(metric=metric), theirs, rtol=1e-6, atol=slack, err_msg=metric
        )


def _climatology(truth: xr.Dataset) -> xr.Dataset:
    days = {"hour": np.arange(0, 24, 6), "dayofyear": np.arange(1, 367)}
    middle = truth[T2M].mean("time").values
    wave = np.sin(np.arange(366) / 50)[None, :, None, None] + np.arange(4)[:, None, None, None]
    values = (middle + wave).astype("f4")
    space = {d: truth[d].values for d in ("latitude", "longitude")}
    return xr.Dataset({T2M: ((*days, *space), values, {"units": "K"})}, {**days, **space})


@needs_data
def test_real_anomalies_against_a_climatology_fitted_on_another_year():
    ds = xr.open_zarr(DATA / "ncep_air_temperature/air_temperature.zarr")[["air"]].compute()
    task = Task("air", 1, 4, "6h")
    climatology = Climatology.fit(ds.sel(time="2013"), task)
    test = ds.sel(time=slice("2014-06-01", "2014-06-20"))
    forecast = predict(test, Persistence(task), init_time=test.time.values[:-4:3])
    ours = evaluate(forecast, test, climatology=climatology, metrics="acc")["air"][0]
    valid = forecast.time + forecast[LEAD]
    c = climatology.dataset["air"].sel(dayofyear=valid.dt.dayofyear, hour=valid.dt.hour)
    c = c.rename(latitude="lat", longitude="lon").astype("f8")
    c = c.assign_coords(lat=ds.lat.values[::-1], lon=ds.lon)
    t = test["air"].sel(time=valid).drop_vars("time").assign_coords(time=forecast.time)
    f, t, c = xr.align(forecast["air"].astype("f8"), t.astype("f8"), c, join="inner")
    assert f.sizes["lat"] == 25
    w = cell_areas(f.lat.rename(lat="latitude")).rename(latitude="lat")
    a, b = f - c, t - c
    sums = [(x * y).weighted(w).mean(("lat", "lon")) for x, y in ((a, b), (a, a), (b, b))]
    acc = (sums[0] / np.sqrt(sums[1] * sums[2])).mean("time")
    np.testing.assert_allclose(ours, acc, rtol=1e-6)
    assert 0.3 < float(acc[0]) < 1


# --- scikit-image ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["random, global, poles, north first", "real, regional, north first"]
)
def test_scikit_image_agrees_on_weather(name):
    if name.startswith("real") and not DATA.exists():
        pytest.skip(f"no data at {DATA}")
    forecast, truth = pair(TRUTHS[name]().isel(time=slice(12)))
    f, t = aligned(forecast, truth)
    span = 100.0  # K
    options = {"metrics": ("ssim", "psnr"), "data_range": span, "weights": "uniform"}
    ours = evaluate(forecast, truth, **options)["frames"]
    pairs = list(
        zip(f.values.reshape(-1, *f.shape[2:]), t.values.reshape(-1, *t.shape[2:]), strict=True)
    )
    for metric, function in (
        ("ssim", lambda a, b: structural_similarity(b, a, data_range=span)),
        ("psnr", lambda a, b: peak_signal_noise_ratio(b, a, data_range=span)),
    ):
        each = np.reshape([function(a, b) for a, b in pairs], f.shape[:2]).mean(axis=0)
        np.testing.assert_allclose(ours.sel(metric=metric), each, rtol=1e-6)


# --- WeatherBench 2's files -----------------------------------------------------------------------


def write_as_weatherbench2(path: Path, forecast: xr.Dataset, units: str) -> None:
    """A store in the layout of WeatherBench 2's forecasts: zarr 2, lead times as integers."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    hours = (forecast[LEAD].values / np.timedelta64(1, "h")).astype("i8")
    leads = hours if units == "hours" else hours * 3_600_000_000_000
    time = (forecast.time.values - np.datetime64("1959-01-01")) // np.timedelta64(1, "h")
    order = ("time", LEAD, "level", "longitude", "latitude")
    array = forecast[T2M].transpose("time", LEAD, "longitude", "latitude").values
    coords = {
        "time": (
            time.astype("i8"),
            {"units": "hours since 1959-01-01", "calendar": "proleptic_gregorian"},
        ),
        LEAD: (leads, {"units": units}),
        "level": (np.array([500, 850], "i4"), {"units": "hPa"}),
        "longitude": (forecast.longitude.values, {"units": "degrees_east"}),
        "latitude": (forecast.latitude.values, {"units": "degrees_north"}),
    }
    both = np.stack([array * 100, array], axis=2)
    data = {
        T2M: (array, (*order[:2], *order[3:]), {"units": "K"}),
        "temperature": (both, order, {"units": "K"}),
    }
    for name, (values, attrs) in coords.items():
        new = group.create_array(name, data=values, fill_value=None)
        new.attrs.update({**attrs, "_ARRAY_DIMENSIONS": [name]})
    for name, (values, dims, attrs) in data.items():
        chunks = (5, 2, *values.shape[2:])
        new = group.create_array(name, data=values, chunks=chunks, fill_value=None)
        new.attrs.update({**attrs, "_ARRAY_DIMENSIONS": list(dims)})


@pytest.mark.parametrize("units", ["hours", "nanoseconds"])
@pytest.mark.parametrize("decode", [True, False])
def test_weatherbench2s_forecasts_are_input(tmp_path, units, decode):
    forecast, truth = pair(TRUTHS["random, global, poles, north first"]())
    expected = evaluate(forecast, truth)
    write_as_weatherbench2(tmp_path / "f.zarr", forecast, units)
    store = xr.open_zarr(
        tmp_path / "f.zarr", decode_timedelta=decode, consolidated=False, zarr_format=2
    )
    assert store[T2M].dims == ("time", LEAD, "longitude", "latitude")
    assert store[LEAD].dtype.kind == ("m" if decode else "i")
    found = evaluate(store[[T2M]], truth)
    xr.testing.assert_allclose(found[T2M], expected[T2M], rtol=1e-6)
    np.testing.assert_array_equal(found[LEAD], forecast[LEAD])
    # One level of several, by its name.
    on_level = truth.rename({T2M: "temperature_850"})
    level = store[["temperature"]].sel(level=850).rename(temperature="temperature_850")
    np.testing.assert_allclose(
        evaluate(level, on_level)["temperature_850"], expected[T2M], rtol=1e-6
    )


def test_our_forecasts_are_weatherbench2s_input(tmp_path):
    """What its `open_source_files` and `evaluate_in_memory` do to a forecast, written out."""
    truth = make_weather(steps=80)
    task = Task(T2M, 2, 4, "1h")
    predict(truth, Persistence(task), init_time=slice(None, None, 5)).to_zarr(
        tmp_path / "f.zarr", consolidated=False
    )
    forecast = xr.open_zarr(tmp_path / "f.zarr", decode_timedelta=True, consolidated=False)
    # Its names, its types, and latitudes that ascend or that it makes ascend.
    assert set(forecast[T2M].dims) == {"time", LEAD, "latitude", "longitude"}
    assert forecast.time.dtype == "M8[ns]"
    assert forecast[LEAD].dtype == "m8[ns]"
    assert forecast[T2M].dtype == np.float32
    forecast = forecast.sortby("latitude")
    selected = forecast.sel(time=slice(forecast.time[1], None)).isel({LEAD: slice(0, 3)})
    valid = selected.time + selected[LEAD]
    at = truth.sel(time=valid).drop_vars("time").assign_coords(time=selected.time)
    with xr.set_options(arithmetic_join="exact"):
        theirs = np.sqrt(wb2_mean((selected[T2M] - at[T2M]) ** 2).mean("time"))
    ours = evaluate(selected, truth, metrics="rmse")[T2M][0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
