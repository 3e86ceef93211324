"""Persistence and climatology: closed forms, then WeatherBench 2's formulas written out."""

from __future__ import annotations

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.baselines import Climatology, climatology_at
from stforecast.baselines.persistence import FrameCopy, Persistence
from stforecast.conventions.times import time_blocks
from stforecast.errors import InputError
from stforecast.task import Task
from stforecast.testing.weather import make_weather

T2M = "2m_temperature"
LATITUDE, LONGITUDE = np.array([-50.0, 0.0, 60.0]), np.array([0.0, 90.0, 180.0, 270.0])


def weather(values: np.ndarray, time, **attrs) -> xr.Dataset:
    """A data set of t2m of (time,) or (time, 3, 4) values, in K."""
    values = np.asarray(values, dtype="float32")
    if values.ndim == 1:
        values = values[:, None, None] + np.arange(12, dtype="float32").reshape(3, 4)
    coords = {"time": time, "latitude": LATITUDE, "longitude": LONGITUDE}
    dims = ("time", "latitude", "longitude")
    return xr.Dataset({"t2m": (dims, values, {"units": "K", **attrs})}, coords)


def noise(time, seed: int = 0) -> np.ndarray:
    return 280 + np.random.default_rng(seed).normal(size=(len(time), 3, 4)).astype("float32")


def triangle(days: int) -> np.ndarray:
    h = days // 2
    return np.concatenate([np.linspace(0, 1, h + 1), np.linspace(1, 0, h + 1)[1:]])


# --- persistence ----------------------------------------------------------------------------------


def test_persistence_repeats_the_last_step_of_the_targets():
    task = Task(("t2m", "z500", "u10"), input_steps=2, target_steps=3, targets=("u10", "t2m"))
    inputs = np.random.default_rng(0).normal(size=(4, 2, 3, 5, 6)).astype("float32")
    out = Persistence(task).forecast(inputs, np.arange(4), 3)
    assert out.shape == (4, 3, 2, 5, 6)
    assert out.dtype == np.float32
    for step in range(3):
        np.testing.assert_array_equal(out[:, step, 0], inputs[:, -1, 2])
        np.testing.assert_array_equal(out[:, step, 1], inputs[:, -1, 0])


def test_a_frame_copy_repeats_the_input_frame_by_frame():
    """Step k is input step k, the first in time and not the last; past T it begins again."""
    task = Task(("t2m", "z500", "u10"), input_steps=2, target_steps=2, targets=("u10", "t2m"))
    inputs = np.random.default_rng(0).normal(size=(4, 2, 3, 5, 6)).astype("float32")
    out = FrameCopy(task).forecast(inputs, np.arange(4), 5)
    assert out.dtype == np.float32
    for step, frame in enumerate([0, 1, 0, 1, 0]):
        np.testing.assert_array_equal(out[:, step], inputs[:, frame, [2, 0]])
    with pytest.raises(InputError, match="a copy of the frames repeats its input"):
        FrameCopy(Task(("z500",), targets=("t2m",)))


def test_a_frame_copy_is_exact_on_a_daily_cycle():
    """Half a day in, half a day out: the copy has the wrong half, with T = 24 h the right one."""
    time = pd.date_range("2015-01-01", periods=72, freq="1h")
    ds = weather(280 + 5 * np.cos(2 * np.pi * (time.hour.to_numpy() - 14) / 24), time)
    for hours, worst in ((24, 0.0), (12, 10.0)):
        task = Task("t2m", hours, hours)
        out = FrameCopy(task).predict(ds, init_time=time[30:40])["t2m"]
        truth = ds["t2m"].values[31:41][:, None]  # lead 1; the others are as good
        error = abs(out.isel(prediction_timedelta=[0]).values - truth).max()
        assert error == pytest.approx(worst, abs=1e-3)


def test_persistence_needs_its_targets_among_the_inputs():
    with pytest.raises(InputError, match=r"2m_temperature.*Task.variables"):
        Persistence(Task(("z500",), targets=("t2m",)))


@pytest.mark.parametrize("kind", ["persistence", "climatology"])
def test_predict_is_the_one_of_forecasters(monkeypatch, kind):
    calls = []
    forecast = lambda *a, **k: calls.append((a, k)) or "forecast"  # noqa: E731
    monkeypatch.setattr("stforecast.forecasting.core.forecast_with", forecast)
    task = Task("t2m", timestep="12h")
    time = pd.date_range("2015-01-01", "2015-12-31T12", freq="12h")
    ds = weather(noise(time), time)
    model = Persistence(task) if kind == "persistence" else Climatology.fit(ds, task)
    assert model.predict(ds, steps=2) == "forecast"
    assert calls == [((model, ds), {"steps": 2})]


def test_baselines_forecast_labelled_data_in_the_callers_labels():
    time = pd.date_range("2015-01-01", "2016-01-10T12", freq="12h")
    ds = weather(noise(time), time)
    task = Task("t2m", input_steps=2, target_steps=3, timestep="12h")
    clim = Climatology.fit(ds.sel(time="2015"), task)
    theirs = (ds - np.float32(273.15)).isel(latitude=slice(None, None, -1)).rename(latitude="lat")
    theirs.t2m.attrs["units"] = "degC"
    init = time[[720, 733]]
    for model in (Persistence(task), clim):
        out = model.predict(theirs, init_time=init)
        assert out.t2m.dims == ("time", "prediction_timedelta", "lat", "longitude")
        north = out.t2m.sel(lat=60, longitude=90) + 273.15
        there = {"latitude": 60, "longitude": 90}
        if model is clim:
            expected = clim.at(out.valid_time)[T2M].sel(there)
        else:
            expected = ds.t2m.sel(time=init, **there).expand_dims(prediction_timedelta=3, axis=1)
        np.testing.assert_allclose(north, expected, atol=1e-4)


# --- climatology: what it averages ----------------------------------------------------------------


def test_a_diurnal_cycle_comes_back_exactly():
    time = pd.date_range("2013-01-01", "2013-12-31T23", freq="1h")
    ds = weather(280 + 5 * np.sin(time.hour.to_numpy() / 24 * 2 * np.pi), time)
    clim = Climatology.fit(ds, Task("t2m")).dataset
    assert clim[T2M].dims == ("hour", "dayofyear", "latitude", "longitude")
    assert clim[T2M].shape == (24, 366, 3, 4)
    assert clim[T2M].dtype == np.float32
    assert clim[T2M].attrs["units"] == "K"
    expected = 280 + 5 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    for day in (1, 59, 60, 365, 366):
        np.testing.assert_allclose(clim[T2M].sel(dayofyear=day)[:, 0, 0], expected, atol=1e-4)
    assert clim.attrs["climatology_period"] == "2013-01-01T00:00:00/2013-12-31T23:00:00"
    assert clim.attrs["climatology_years"] == 1
    assert clim.attrs["window_days"] == 61


@pytest.mark.parametrize("window", [61, 7])
@pytest.mark.parametrize("day", [200, 3, 364])
def test_one_warm_day_is_smeared_as_a_triangle_around_the_year(window, day):
    time = pd.date_range("2015-01-01", "2015-12-31", freq="1D")
    ds = weather(np.where(time.day_of_year == day, 100.0 + 250, 250.0), time)
    clim = Climatology.fit(ds, Task("t2m", timestep="1D"), window_days=window).dataset
    expected = np.full(365, 250.0)
    offsets = np.arange(window) - window // 2
    expected[(day - 1 + offsets) % 365] += 100 * triangle(window) / triangle(window).sum()
    np.testing.assert_allclose(clim[T2M][0, :365, 0, 0], expected, atol=1e-4)
    assert clim.hour.values.tolist() == [0]


def weatherbench2(ds: xr.DataArray, window: int, hours) -> xr.DataArray:
    """compute_hourly_stat and compute_rolling_stat of WeatherBench 2 for the mean, written out."""
    weights = triangle(window)
    weights = xr.DataArray(weights / weights.mean(), dims="window")
    out = []
    for hour in hours:
        here = ds.isel(time=ds.time.dt.hour == hour)
        years = []
        for year in np.unique(here.time.dt.year):
            one = here.sel(time=str(year))
            one = one.assign_coords(time=one.time.dt.dayofyear.values)
            years.append(one.rename(time="dayofyear"))
        stacked = xr.concat(years, dim="year", join="outer")
        stacked = stacked.fillna(stacked.sel(dayofyear=365))
        stacked = stacked.pad(dayofyear=window // 2, mode="wrap")
        windows = stacked.rolling(dayofyear=window, center=True).construct("window")
        mean = windows.weighted(weights).mean(dim=("window", "year"))
        out.append(mean.isel(dayofyear=slice(window // 2, -(window // 2))))
    return xr.concat(out, dim=xr.DataArray(hours, dims="hour", name="hour"))


@pytest.mark.parametrize("years", [("2015", "2017"), ("2013", "2014"), ("2016", "2016")])
def test_climatology_is_weatherbench2s(years):
    time = pd.date_range(years[0], f"{years[1]}-12-31T18", freq="6h")
    season = 10 * np.cos((time.day_of_year.to_numpy() - 20) / 366 * 2 * np.pi)
    ds = weather(noise(time) + season[:, None, None], time)
    expected = weatherbench2(ds.t2m.astype("float64"), 61, [0, 6, 12, 18])
    ours = Climatology.fit(ds, Task("t2m", timestep="6h")).dataset[T2M]
    days = expected.sizes["dayofyear"]
    assert days == (365 if years[0] == "2013" else 366)
    np.testing.assert_allclose(
        ours.isel(dayofyear=slice(days)),
        expected.transpose("hour", "dayofyear", "latitude", "longitude"),
        rtol=1e-6,
    )


def test_day_366_of_years_without_one_is_day_365():
    time = pd.date_range("2013-01-01", "2014-12-31", freq="1D")
    clim = Climatology.fit(weather(noise(time), time), Task("t2m", timestep="1D")).dataset[T2M]
    np.testing.assert_array_equal(clim.sel(dayofyear=366), clim.sel(dayofyear=365))


def test_dask_gives_the_same_and_reads_each_chunk_once():
    time = pd.date_range("2015-01-01", "2016-12-31T12", freq="12h")
    ds = weather(noise(time), time)
    task = Task("t2m", timestep="12h")
    reads = []

    def count(block):
        if block.size:
            reads.append(block.shape[0])
        return block

    lazy = ds.chunk(time=100)
    lazy["t2m"] = lazy.t2m.copy(
        data=lazy.t2m.data.map_blocks(count, dtype="float32", meta=ds.t2m.data[:0])
    )
    ours = Climatology.fit(lazy, task).dataset
    assert reads.count(62) == 1  # the last chunk
    assert reads.count(100) <= 14 + 1  # the gate may look at the first step, for the units
    np.testing.assert_array_equal(ours[T2M], Climatology.fit(ds, task).dataset[T2M])


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((3, 3, 3, 3), [(0, 3), (3, 6), (6, 9), (9, 12)]),
        ((2, 1, 1, 2, 6), [(0, 4), (4, 6), (6, 12)]),  # 2 + 1 + 1, 2, and one over the limit
        (None, [(0, 4), (4, 8), (8, 12)]),
    ],
)
def test_blocks_are_whole_chunks_within_the_limit(chunks, expected):
    array = xr.DataArray(np.zeros((12, 5), "float32"), dims=("time", "x"))
    blocks = time_blocks(array if chunks is None else array.chunk(time=chunks), max_bytes=80)
    assert [(b.start, b.stop) for b in blocks] == expected


# --- climatology: gaps, calendars, steps ----------------------------------------------------------


def test_missing_days_and_hours_are_filled_by_the_window():
    time = pd.date_range("2015-01-01", "2015-12-31T18", freq="6h")
    keep = ~((time.hour == 6) & (time.day_of_year >= 100) & (time.day_of_year < 140))
    keep &= time.day_of_year != 7
    season = 280 + 0.1 * time.day_of_year.to_numpy()
    task = Task("t2m", timestep="6h")
    clim = Climatology.fit(weather(season, time)[{"time": keep}], task).dataset[T2M][..., 0, 0]
    assert np.isfinite(clim).all()
    # In a linear season a window with a hole in it is off its centre. By hand for day 110, 6 h:
    days = np.arange(110 - 29, 110 + 30)
    weight = triangle(61)[1:-1] * ((days < 100) | (days >= 140))
    expected = 280 + 0.1 * (weight * days).sum() / weight.sum()
    assert clim.sel(dayofyear=110, hour=6).item() == pytest.approx(expected, abs=1e-4)
    assert clim.sel(dayofyear=200, hour=12).item() == pytest.approx(300, abs=1e-4)


def test_years_are_averaged_before_days():
    # Day 150 was seen in two years, all others in one: it must not count double.
    first = pd.date_range("2014-01-01", "2014-12-31", freq="1D")
    time = first.append(pd.DatetimeIndex(["2015-05-30"]))
    values = np.where(time.day_of_year == 150, 300.0, 280.0)
    clim = Climatology.fit(weather(values, time), Task("t2m", timestep="1D")).dataset[T2M]
    expected = 280 + 20 * triangle(61).max() / triangle(61).sum()
    assert clim[0, 149, 0, 0].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("period", "step", "task_step", "message"),
    [
        (("2015-01-01", "2015-06-30"), "1D", "1D", r"no data within 29 days of day 211 .* at 0 h"),
        (("2015-01-01", "2015-12-31"), "6h", "3h", r"no data .* at 3 h"),
        (("2015-01-01", "2015-12-31"), "1h", "6h", r"time step of 6h: .*T01.* every nth"),
    ],
)
def test_bins_that_stay_empty_and_other_steps_are_refused(period, step, task_step, message):
    time = pd.date_range(*period, freq=step)
    with pytest.raises(InputError, match=message):
        Climatology.fit(weather(noise(time), time), Task("t2m", timestep=task_step))


@pytest.mark.parametrize("window", [60, 1, 367])
def test_windows_must_be_odd_and_fit_in_a_year(window):
    time = pd.date_range("2015-01-01", "2015-12-31", freq="1D")
    with pytest.raises(InputError, match="window_days"):
        Climatology.fit(weather(noise(time), time), Task("t2m", timestep="1D"), window_days=window)


@pytest.mark.parametrize(
    ("start", "step", "hours"),
    [
        ("2015-01-01T03", "6h", [3, 9, 15, 21]),
        ("2015-01-01", "8h", [0, 8, 16]),
        ("2015-01-01T12", "1D", [12]),
        ("2015-01-01", "48h", [0]),
        ("2015-01-01", "9h", list(range(0, 24, 3))),  # no divisor of a day
        ("2015-01-01T00:15", "90min", [0.25 + 1.5 * i for i in range(16)]),
    ],
)
def test_times_of_day_follow_the_step(start, step, hours):
    time = pd.date_range(start, "2015-12-31T23:59", freq=step)
    minute = time.hour * 60 + time.minute
    clim = Climatology.fit(weather(270 + minute.to_numpy() / 60, time), Task("t2m", timestep=step))
    assert clim.dataset.hour.values.tolist() == hours
    np.testing.assert_allclose(clim.dataset[T2M][:, 99, 0, 0], 270 + np.array(hours), atol=1e-4)
    at = clim.at(time[[7, 500 % len(time)]].to_numpy())[T2M][:, 0, 0]
    np.testing.assert_allclose(at, 270 + minute.to_numpy()[[7, 500 % len(time)]] / 60, atol=1e-4)


@pytest.mark.parametrize(
    ("calendar", "days"), [("360_day", 360), ("noleap", 365), ("all_leap", 366)]
)
def test_other_calendars_wrap_at_their_own_year(calendar, days):
    time = xr.date_range(
        "2001-01-01", periods=2 * days, freq="D", calendar=calendar, use_cftime=True
    )
    values = np.where(time.day_of_year == days, 300.0, 250.0)
    clim = Climatology.fit(weather(values, time), Task("t2m", timestep="1D"))
    expected = np.full(days, 250.0)
    expected[(days - 1 + np.arange(61) - 30) % days] += 50 * triangle(61) / triangle(61).sum()
    np.testing.assert_allclose(clim.dataset[T2M][0, :days, 0, 0], expected, atol=1e-4)
    assert clim.dataset.sizes["dayofyear"] == 366
    last = cftime.datetime(2004, 12, 30, calendar=calendar)
    found = clim.forecast(np.zeros((1, 1, 1, 3, 4)), np.array([last]), 2)
    index = np.array([last.dayofyr, last.dayofyr + 1]) % days
    np.testing.assert_allclose(found[0, :, 0, 0, 0], expected[index], atol=1e-4)


def test_points_that_are_masked_at_times_get_the_mean_of_the_rest():
    """Every point by itself equals the climatology of its own times, made without a mask."""
    time = pd.date_range("2001-01-01", "2003-12-31", freq="D")
    values = noise(time)
    hole = (
        np.random.default_rng(1).random((len(time), 1, 1)) < 0.3
    )  # ice: two points, the same times
    spoiled = np.where(hole & (np.arange(12).reshape(3, 4) > 9), np.nan, values)
    spoiled[:, 0, 0] = np.nan
    spoiled[100:200, 1, 1] = np.nan
    task = Task("t2m", timestep="1D", nan="mask")
    ours = Climatology.fit(weather(spoiled, time), task, window_days=21).dataset[T2M].values[0]
    rest = time[~hole.ravel()]
    alone = Climatology.fit(
        weather(values[~hole.ravel()], rest), Task("t2m", timestep="1D"), window_days=21
    )
    full = Climatology.fit(weather(values, time), Task("t2m", timestep="1D"), window_days=21)
    np.testing.assert_allclose(ours[:, 2, 2:], alone.dataset[T2M].values[0][:, 2, 2:], rtol=1e-6)
    np.testing.assert_allclose(ours[:, 0, 1:], full.dataset[T2M].values[0][:, 0, 1:], rtol=1e-6)
    assert np.isnan(ours[:, 0, 0]).all()
    assert np.isfinite(ours[:, 1, 1]).all()  # other years have these days
    with pytest.raises(InputError, match=r"NaN or infinite at some times only.*nan='mask'"):
        Climatology.fit(weather(spoiled, time), Task("t2m", timestep="1D"))


def test_points_without_any_data_stay_nan_and_others_may_not_be():
    time = pd.date_range("2015-01-01", "2015-12-31", freq="1D")
    task = Task("t2m", timestep="1D")
    values = noise(time)
    values[:, 1, 2] = np.nan
    clim = Climatology.fit(weather(values, time), task).dataset[T2M]
    assert np.isnan(clim[:, :, 1, 2]).all()
    assert np.isfinite(clim).sum() == clim.size * 11 / 12
    values[40, 0, 3] = np.nan
    with pytest.raises(InputError, match=r"2m_temperature is NaN.*2015-02-10.*1 values"):
        Climatology.fit(weather(values, time), task)
    values[40, 0, 3] = np.inf
    with pytest.raises(InputError, match="infinite"):
        Climatology.fit(weather(values, time), task)


def test_several_variables_and_grids_without_latitude():
    time = pd.date_range("2015-01-01", "2015-12-31", freq="1D")
    flow = np.random.default_rng(0).poisson(30, size=(2, len(time), 5, 3)).astype("float32")
    dims = ("time", "y", "x")
    ds = xr.Dataset({"inflow": (dims, flow[0]), "outflow": (dims, flow[1])}, {"time": time})
    task = Task(("inflow", "outflow"), timestep="1D", targets=("outflow", "inflow"))
    clim = Climatology.fit(ds, task)
    assert clim.dataset["inflow"].dims == ("hour", "dayofyear", "y", "x")
    out = clim.forecast(np.zeros((2, 1, 2, 5, 3)), time[[3, 9]].to_numpy(), 4)
    assert out.shape == (2, 4, 2, 5, 3)
    np.testing.assert_array_equal(out[1, 2, 0], clim.dataset["outflow"].sel(hour=0, dayofyear=13))
    with pytest.raises(InputError, match="y has 5 points and 3 points"):
        clim.forecast(np.zeros((2, 1, 2, 3, 5)), time[[3, 9]].to_numpy(), 4)


# --- climatology: looking up ----------------------------------------------------------------------


def stored(days: int = 366) -> xr.Dataset:
    """A climatology as WeatherBench 2 stores it; the value tells hour and day."""
    hour, day = np.arange(0, 24, 6), np.arange(1, days + 1)
    values = 200 + hour[:, None, None, None] + day[None, :, None, None] / 10
    values = np.broadcast_to(values, (4, days, 4, 3)).astype("float32")
    coords = {"hour": hour, "dayofyear": day, "longitude": LONGITUDE, "latitude": LATITUDE[::-1]}
    values = values + LATITUDE[::-1].astype("float32") / 1000  # tells the direction too
    return xr.Dataset(
        {T2M: (("hour", "dayofyear", "longitude", "latitude"), values, {"units": "K"})}, coords
    )


def test_forecasts_look_up_the_valid_time():
    clim = Climatology(stored(), Task("t2m", target_steps=3, timestep="6h"))
    init = np.array(["2015-12-31T12", "2016-12-30T18", "2016-02-28T18"], dtype="datetime64[ns]")
    out = clim.forecast(
        np.zeros((3, 2, 1, 3, 4)), init, 3, latitude=LATITUDE + 5e-4, longitude=LONGITUDE
    )
    assert out.shape == (3, 3, 1, 3, 4)
    expected = [
        [218 + 36.5, 200 + 0.1, 206 + 0.1],  # over the end of a year
        [200 + 36.6, 206 + 36.6, 212 + 36.6],  # day 366
        [200 + 6.0, 206 + 6.0, 212 + 6.0],  # 29 February is day 60
    ]
    np.testing.assert_allclose(out[:, :, 0, 1, 2], expected, atol=1e-4)
    np.testing.assert_allclose(out[0, 0, 0, :, 0] - out[0, 0, 0, 1, 0], LATITUDE / 1000, atol=1e-4)


@pytest.mark.parametrize("step", [5, 3])
def test_another_grid_is_refused(step):
    clim = Climatology(stored(), Task("t2m", timestep="6h"))
    init = np.array(["2015-12-31T12"], dtype="datetime64[ns]")
    with pytest.raises(InputError, match=r"latitude.*fit it on this grid"):
        clim.forecast(np.zeros((1, 2, 1, 3, 4)), init, 3, latitude=np.linspace(-50, 61, step))


def test_times_of_day_that_it_lacks_are_refused():
    with pytest.raises(InputError, match=r"\[0, 6, 12, 18\].*2015-01-01T03"):
        climatology_at(stored(), np.array(["2015-01-01T00", "2015-01-01T03"], "datetime64[ns]"))


def test_at_keeps_the_labels_of_the_times():
    clim = Climatology(stored(365), Task("t2m", timestep="6h"))
    valid = xr.DataArray(pd.to_datetime(["2016-12-31T06", "2016-01-01T18"]).to_numpy(), dims="case")
    found = clim.at(valid)[T2M]
    assert found.dims == ("case", "latitude", "longitude")
    np.testing.assert_array_equal(found.valid_time, valid)
    # A climatology of 365 days answers day 366 with its last.
    np.testing.assert_allclose(found[:, 1, 0], [206 + 36.5, 218 + 0.1], atol=1e-4)


def test_a_saved_climatology_is_the_same_climatology(tmp_path):
    time = pd.date_range("2015-01-01", "2015-12-31T18", freq="6h")
    task = Task("t2m", timestep="6h")
    clim = Climatology.fit(weather(noise(time), time), task)
    clim.dataset.to_netcdf(tmp_path / "climatology.nc")
    with xr.open_dataset(tmp_path / "climatology.nc") as opened:
        again = Climatology(opened, task)
        xr.testing.assert_identical(again.dataset.load(), clim.dataset)
    lazy = Climatology(clim.dataset.chunk(dayofyear=100), task)
    init = time[[40, 700]].to_numpy()
    inputs = np.zeros((2, 1, 1, 3, 4))
    np.testing.assert_array_equal(lazy.forecast(inputs, init, 5), clim.forecast(inputs, init, 5))


def test_what_is_no_climatology_is_refused():
    task = Task("t2m", timestep="6h")
    with pytest.raises(InputError, match="hour, dayofyear"):
        Climatology(stored().mean("hour"), task)
    with pytest.raises(InputError, match="2m_temperature"):
        Climatology(stored().rename({T2M: "z500"}), task)
    from_zero = stored().assign_coords(dayofyear=stored()["dayofyear"].values - 1)
    with pytest.raises(InputError, match=r"'dayofyear' from 0 to .* expected to count from 1"):
        Climatology(from_zero, task)


def test_climatology_of_clips_is_refused():
    ds = make_weather(200, shape=(4, 6), timestep="1s")
    with pytest.raises(InputError, match="compare with Persistence"):
        Climatology.fit(ds, Task("2m_temperature", input_steps=2, target_steps=1, timestep="1s"))
