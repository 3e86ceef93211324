"""predict(): labels in, labels out; windows, roll-out, dask, regridding."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stforecast
from stforecast.baselines.climatology import Climatology
from stforecast.baselines.persistence import Persistence
from stforecast.baselines.regression import LinearRegression
from stforecast.conventions.grid import Grid
from stforecast.conventions.regrid import to_grid
from stforecast.datasets.periods import select_period
from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.batches import batches
from stforecast.forecasting.forecaster import Forecaster
from stforecast.forecasting.predict import predict
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task, initialisations
from stforecast.testing.flow import make_flow
from stforecast.testing.weather import make_weather, relabel

TASK = Task("t2m", input_steps=4, target_steps=3, timestep="1h")


class Drift(torch.nn.Module):
    """x[T] + k (x[T] - x[T-1]) at lead k: a forecast that can be written down."""

    def __init__(self, steps=3):
        super().__init__()
        self.steps = steps

    def forward(self, x):
        k = torch.arange(1, self.steps + 1).view(1, -1, 1, 1, 1)
        return x[:, -1:] + k * (x[:, -1:] - x[:, -2:-1])


def network_forecaster(ds, **options):
    torch.manual_seed(0)
    sizes = {
        "encoder_channels": 4,
        "translator_channels": 12,
        "translator_blocks": 2,
        "mlp_ratio": 2.0,
    }
    network = SimVPv2(4, 3, **sizes, circular_longitude=True, predict_change=True, **options)
    network.tendency_std.copy_(torch.tensor([[0.05], [0.08], [0.1]]))
    for name, parameter in network.named_parameters():
        if "scale" in name:
            parameter.data.uniform_(0.3, 1)
    grid = {k: ds[k].values for k in ("latitude", "longitude")}
    return Forecaster(network, TASK, mean=[280.0], std=[15.0], grid=grid)


@pytest.fixture(scope="module")
def weather():
    return make_weather(40, shape=(10, 16))


def test_values_and_labels(weather):
    fc = predict(weather, Forecaster(Drift(), TASK), init_time=["2001-01-01T05", "2001-01-02T07"])
    x = weather["2m_temperature"].values
    assert dict(fc.sizes) == {"time": 2, "prediction_timedelta": 3, "latitude": 10, "longitude": 16}
    for i, at in enumerate((5, 31)):
        for k in range(3):
            expected = x[at] + (k + 1) * (x[at] - x[at - 1])
            np.testing.assert_allclose(fc["2m_temperature"][i, k], expected, atol=2e-4)
    assert fc["2m_temperature"].attrs["units"] == "K"
    assert fc["2m_temperature"].dtype == np.float32
    lead = pd.to_timedelta([1, 2, 3], unit="h")
    assert (fc["prediction_timedelta"].values == lead.values).all()
    assert (fc["valid_time"] == fc["time"] + fc["prediction_timedelta"]).all()
    np.testing.assert_array_equal(fc["latitude"], weather["latitude"])


def test_default_is_the_last_complete_window(weather):
    fc = predict(weather, Forecaster(Drift(), TASK))
    assert fc["time"].values == weather["time"].values[-1:]
    gap = weather.isel(time=np.r_[0:20, 38:40])  # the last two hours have no four steps behind them
    assert predict(gap, Forecaster(Drift(), TASK))["time"].values == weather["time"].values[19]


def test_slices_take_what_is_complete(weather):
    gap = weather.isel(time=np.r_[0:10, 12:24])
    fc = predict(gap, Forecaster(Drift(), TASK), init_time=slice("2001-01-01T02", "2001-01-01T17"))
    hours = pd.DatetimeIndex(fc["time"].values).hour.tolist()
    assert hours == [3, 4, 5, 6, 7, 8, 9, 15, 16, 17]
    with pytest.raises(InputError, match="1 of 1 initialisations lack input: 2001-01-01 13:00"):
        predict(gap, Forecaster(Drift(), TASK), init_time="2001-01-01T13")


def test_roll_out_goes_on_from_its_own_output(weather):
    fc = predict(weather, Forecaster(Drift(), TASK), steps=7)["2m_temperature"].values[0]
    x = weather["2m_temperature"].values.astype(np.float64)
    slope = x[-1] - x[-2]
    for k in range(7):  # a straight line goes on straight
        np.testing.assert_allclose(fc[k], x[-1] + (k + 1) * slope, atol=3e-3)
    month = make_weather(30, time="2004-02-28T00", shape=(4, 6))
    fc = predict(month, Persistence(TASK), init_time="2004-02-28T20", steps=30)
    assert str(fc["valid_time"].values[0, 3])[:13] == "2004-02-29T00"
    assert str(fc["valid_time"].values[0, 27])[:13] == "2004-03-01T00"


@pytest.mark.parametrize(
    ("calendar", "init", "timestep", "expected"),
    [
        ("standard", "2004-02-28T22", "1h", {2: "2004-02-29T00", 26: "2004-03-01T00"}),
        ("standard", "2100-02-28T22", "1h", {2: "2100-03-01T00"}),
        ("standard", "2003-12-31T18", "6h", {1: "2004-01-01T00", 5: "2004-01-02T00"}),
        ("proleptic_gregorian", "2004-02-27T00", "1D", {1: "2004-02-28T00", 3: "2004-03-01T00"}),
        ("noleap", "2004-02-28T22", "1h", {2: "2004-03-01T00", 26: "2004-03-02T00"}),
        ("all_leap", "2003-02-28T22", "1h", {2: "2003-02-29T00", 26: "2003-03-01T00"}),
        ("360_day", "2001-02-29T12", "6h", {2: "2001-02-30T00", 6: "2001-03-01T00"}),
        ("360_day", "2001-12-30T23", "1h", {1: "2002-01-01T00", 25: "2002-01-02T00"}),
        ("360_day", "2001-01-01T00", "30D", {1: "2001-02-01T00", 13: "2002-02-01T00"}),
        ("julian", "1900-02-28T00", "1D", {1: "1900-02-29T00", 2: "1900-03-01T00"}),
    ],
)
@pytest.mark.parametrize("chunk", [None, 2])
def test_lead_labels_over_months_years_and_calendars(calendar, init, timestep, expected, chunk):
    steps = max(expected)
    task = Task("t2m", input_steps=2, target_steps=3, timestep=timestep)
    first = xr.date_range(init, periods=2, freq=timestep, calendar=calendar)
    start = first[0] - (first[1] - first[0])
    ds = make_weather(
        2 + steps, time=f"{start:%Y-%m-%dT%H}", timestep=timestep, shape=(3, 4), calendar=calendar
    )
    time = ds["time"].values
    given_ = ds.chunk(time=chunk) if chunk else ds
    fc = predict(given_, Forecaster(Drift(), task), init_time=time[1:2], steps=steps)
    assert (fc["time"].values == time[1:2]).all()
    lead = fc["prediction_timedelta"].values
    assert (lead == pd.Timedelta(timestep).to_timedelta64() * np.arange(1, steps + 1)).all()
    valid = fc["valid_time"].values[0]
    assert valid.dtype == time.dtype
    assert (valid == time[2:]).all()  # as the calendar itself counts
    for k, date in expected.items():
        found = valid[k - 1]
        text = found.isoformat() if hasattr(found, "isoformat") else str(found)
        assert text[:13] == date
    x = ds["2m_temperature"].values.astype(np.float64)
    for k in range(steps):  # a straight line goes on straight, over every pass
        line = x[1] + (k + 1) * (x[1] - x[0])
        np.testing.assert_allclose(fc["2m_temperature"][0, k], line, atol=2e-3 * (k + 1))


def test_errors_grow_smoothly_past_the_trained_length():
    ds = stforecast.open_sample(chunks=None)
    test = select_period(ds, ds.attrs["test_period"]).load()
    task = Task("t2m", target_steps=36)
    inits = initialisations(test, task, stride=60)
    forecast = predict(test, init_time=inits, steps=36)
    rmse = evaluate(forecast, test, metrics="rmse")["2m_temperature"].values.ravel()
    copying = predict(test, Persistence(task), init_time=inits, steps=36)
    still = evaluate(copying, test, metrics="rmse")["2m_temperature"].values.ravel()
    assert len(inits) >= 8
    growth = np.diff(rmse)
    assert (growth > 0).all()
    assert growth.max() < 0.08  # K an hour; the first is 0.06
    # The first steps of a pass grow as those beside them do: there is no jump from pass to pass.
    for first in (12, 24):
        assert growth[first - 1] < 1.6 * np.median(growth[first - 6 : first + 5])
    assert (rmse < 0.7 * still).all()
    assert rmse[[0, 11, 23, 35]] == pytest.approx([0.08, 0.60, 1.07, 1.57], rel=0.2)


def test_batches_and_dask_change_nothing():
    # Round zero, where float32 has steps of 4e-6; at 288 K they are of 3e-5.
    weather = (make_weather(40, shape=(10, 16)) - 285).rename({"2m_temperature": "anomaly"})
    task = Task("anomaly", TASK.input_steps, TASK.target_steps, "1h")
    network = network_forecaster(weather).network
    model = Forecaster(network, task, mean=[0.0], std=[15.0])
    whole = predict(weather, model, init_time=slice(None), batch_size=64)
    single = predict(weather, model, init_time=slice(None), batch_size=1)
    lazy = predict(weather.chunk(time=7, longitude=5), model, init_time=slice(None), batch_size=5)
    assert lazy.chunks["time"] == (5, 5, 5, 5, 5, 5, 5, 2)
    some = weather["time"].values[[5, 9, 30, 31]]  # chunks between them are not read
    few = predict(weather.chunk(time=7), model, init_time=some, batch_size=2)
    for other in (single, lazy.compute()):
        xr.testing.assert_allclose(whole, other, atol=1e-5, rtol=0)
    xr.testing.assert_allclose(whole.sel(time=some), few.compute(), atol=1e-5, rtol=0)


class Wrapping:
    """A forecaster around another, of no class of ours."""

    def __init__(self, inner, factor):
        self.inner, self.factor, self.task = inner, factor, inner.task

    def forecast(self, inputs, init_time, steps, **grid):
        return self.factor * self.inner.forecast(inputs, init_time, steps, **grid)


def test_the_same_command_plans_the_same_tasks(weather):
    lazy = weather.chunk(time=7)
    plan = {"init_time": slice(None), "batch_size": 5}

    def name(model):
        return predict(lazy, model, **plan)["2m_temperature"].data.name

    model, again = network_forecaster(weather), network_forecaster(weather)
    assert name(model) == name(again)
    name_before = name(model)
    predict(weather, model)  # what a model counts while it is used does not change it
    assert name(model) == name_before
    with torch.no_grad():
        next(again.network.parameters()).view(-1)[0] += 1e-6
    assert name(again) != name_before
    wrapped = Wrapping(Persistence(TASK), 1.0)
    assert name(wrapped) == name(Wrapping(Persistence(TASK), 1.0)) != name_before
    assert name(Wrapping(Persistence(TASK), 2.0)) != name(wrapped)


def test_large_forecasts_come_in_small_batches():
    count = [b.stop - b.start for b in batches(1000, None, 4 * 12 * 721 * 1440)]
    assert count == [1] * 1000
    assert [b.stop - b.start for b in batches(65, None, 1000)] == [22, 22, 21]
    assert [b.stop - b.start for b in batches(33, 8, 1000)] == [7, 7, 7, 7, 5]


def test_a_forecaster_of_the_wrong_shape_is_named(weather):
    class Short(Persistence):
        def forecast(self, inputs, init_time, steps, **grid):
            return super().forecast(inputs, init_time, 1)

    with pytest.raises(InputError, match=r"Short.forecast gave .*\(1, 1, 1, 10, 16\), expected"):
        predict(weather, Short(TASK))


def make_flow_data():
    time = pd.date_range("2017-01-01", periods=1460, freq="6h")
    flow = make_flow(time, (5, 4))
    dims = ("time", "y", "x")
    return xr.Dataset({n: (dims, flow[:, i]) for i, n in enumerate(["inflow", "outflow"])},
                      {"time": time})  # fmt: skip


def make_clips():
    frames = np.random.default_rng(0).random((3, 6, 8, 7)).astype(np.float32)
    step = np.timedelta64(40, "ms")
    time = np.datetime64("2000-01-01", "ns") + step * (np.arange(3)[:, None] * 7 + np.arange(6))
    return xr.Dataset({"frames": (("time", "y", "x"), frames.reshape(18, 8, 7))},
                      {"time": time.ravel()})  # fmt: skip


@pytest.mark.parametrize("kind", ["weather", "flow", "clips"])
@pytest.mark.parametrize("chunk", [None, 4])
def test_the_same_call_for_every_forecaster(kind, chunk):
    ds, task = {
        "weather": lambda: (
            make_weather(1460, timestep="6h", shape=(4, 6)),
            Task("t2m", 3, 2, "6h"),
        ),
        "flow": lambda: (make_flow_data(), Task(["inflow", "outflow"], 3, 2, "6h")),
        "clips": lambda: (make_clips(), Task("frames", 3, 2, "40ms")),
    }[kind]()
    channels = len(task.variables)

    class Anybodys(torch.nn.Module):
        def forward(self, x):
            return x[:, -2:].flip(1)

    small = {
        "encoder_channels": 4,
        "translator_channels": 8,
        "translator_blocks": 2,
        "mlp_ratio": 1.0,
    }
    models = {
        "SimVPv2": Forecaster(SimVPv2(3, 2, channels=channels, **small), task),
        "anybody's": Forecaster(Anybodys(), task),
        "Persistence": Persistence(task),
    }
    if kind != "clips":  # which have no time of day
        models["Climatology"] = Climatology.fit(ds, task)
        models["LinearRegression"] = LinearRegression.fit(ds, task, neighbours=0)
    given_ = ds.chunk(time=chunk) if chunk else ds
    init = ds["time"].values[[3, 5]]
    forecasts = {name: predict(given_, model, init_time=init) for name, model in models.items()}
    for name, fc in forecasts.items():
        xr.testing.assert_equal(fc.coords.to_dataset(), forecasts["SimVPv2"].coords.to_dataset())
        assert list(fc.data_vars) == [*ds.data_vars], name
        assert fc[task.variables[0]].shape == (2, 2, *ds[task.variables[0]].shape[1:])
        assert bool(fc.chunks) == bool(chunk)
        assert np.isfinite(fc.to_dataarray()).all()
    flipped = forecasts["anybody's"][task.variables[0] if kind != "weather" else "2m_temperature"]
    np.testing.assert_allclose(flipped[1, 0], ds[flipped.name][5], rtol=1e-5)
    np.testing.assert_allclose(flipped[1, 1], ds[flipped.name][4], rtol=1e-5)


def test_lazy_reads_nothing_and_computes_nothing(weather):
    import dask
    import dask.array as da

    def fail(block):
        raise AssertionError("computed")

    data = weather["2m_temperature"]
    first = data.isel(time=slice(0, 4)).chunk(time=4).data
    rest = da.map_blocks(fail, data.isel(time=slice(4, None)).chunk(time=4).data, dtype=np.float32)
    lazy = weather.assign(
        {"2m_temperature": (data.dims, da.concatenate([first, rest]), data.attrs)}
    )
    with dask.config.set(scheduler="synchronous"):
        fc = predict(lazy, Forecaster(Drift(), TASK), init_time=slice(None))
        with pytest.raises(AssertionError, match="computed"):
            fc.compute()


def test_data_in_other_units_than_the_training_are_refused(weather):
    task = Task("msl", input_steps=4, target_steps=3, timestep="1h")
    data = weather.rename({"2m_temperature": "msl"})
    data["msl"].attrs = {"units": "Pa"}
    network = Forecaster(Drift(), task, variables={"mean_sea_level_pressure": {"units": "Pa"}})
    means = data.isel(time=0, drop=True).expand_dims(hour=np.arange(24.0), dayofyear=range(1, 367))
    for model in (network, Climatology(means, task)):
        right = predict(data, model)
        for units in ("pascal", "N m-2", None, ""):
            data["msl"].attrs["units"] = units
            xr.testing.assert_equal(predict(data, model), right)
        for units in ("hPa", "K"):
            data["msl"].attrs["units"] = units
            with pytest.raises(InputError, match=f"'{units}' in the data.* trained on 'Pa'"):
                predict(data, model)
        data["msl"].attrs["units"] = "Pa"


class Lopsided(torch.nn.Module):
    """A network that tells north from south, east from west, a step and a place from another."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = torch.nn.Parameter(torch.rand(2, 3, 3, 3, generator=generator) - 0.5)
        self.east = torch.nn.Parameter(torch.rand(5, 1, generator=generator))

    def forward(self, x):  # (B, 3, 1, H, W)
        around = torch.nn.functional.pad(x[:, :, 0], (1, 1, 0, 0), mode="circular")
        around = torch.nn.functional.pad(around, (0, 0, 1, 1), mode="replicate")
        change = torch.nn.functional.conv2d(around, self.kernel)
        return (x[:, -1] + 0.1 * self.east * change.tanh())[:, :, None]


PLACE = Task("t2m", input_steps=3, target_steps=2, timestep="1h")
STARTS = {  # over the end of February, as each calendar has it
    "standard": "2004-02-28T20",
    "proleptic_gregorian": "2000-02-28T20",
    "noleap": "2004-02-28T20",
    "360_day": "2001-02-30T20",
    "julian": "1900-02-28T20",
}


@cache
def place_case(calendar):
    """Canonical history, the model, its forecast of the last five, and two more times."""
    time = STARTS[calendar]
    ds = make_weather(9, time=time, shape=(5, 6), calendar=calendar)
    ds["2m_temperature"] = ds["2m_temperature"].copy(data=np.round(ds["2m_temperature"], 2))
    ds = ds.assign_coords(height=2.0, zone=("latitude", list("abcde")))
    grid = {k: ds[k].values for k in ("latitude", "longitude")}
    model = Forecaster(Lopsided(), PLACE, mean=[280.0], std=[15.0], grid=grid)
    later = make_weather(11, time=time, shape=(5, 6), calendar=calendar)["time"].values
    return ds, model, predict(ds, model, init_time=slice(None), steps=4), later


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_labels_change_nothing(data):
    draw = data.draw
    ds, model, reference, later = place_case(draw(st.sampled_from(list(STARTS))))
    time = draw(st.sampled_from(["time", "valid_time", "date"]))
    lat, lon = draw(
        st.sampled_from([("latitude", "longitude"), ("lat", "lon"), ("nav_lat", "nav_lon")])
    )
    name = draw(st.sampled_from(["t2m", "2t", "2m_temperature", "tas", "T2M"]))
    units = draw(st.sampled_from(["K", "degC", "Celsius", "degF"]))
    dtype = draw(st.sampled_from(["float32", "float64", "packed"]))
    theirs = relabel(
        ds,
        order=draw(st.permutations(["time", "latitude", "longitude"])),
        north_first=draw(st.booleans()),
        west_negative=draw(st.booleans()),
        units="degC" if units in ("degC", "Celsius") else "K",
        dtype=dtype if dtype != "packed" and units != "degF" else "float64",
        packed=dtype == "packed" and units != "degF",
    )
    if units == "degF":
        fahrenheit = theirs["2m_temperature"] * 1.8 - 459.67
        wanted = "float32" if dtype == "packed" else dtype
        theirs["2m_temperature"] = fahrenheit.astype(wanted).assign_attrs(
            theirs["2m_temperature"].attrs
        )
    theirs["2m_temperature"].attrs["units"] = units
    theirs = theirs.rename(
        {"2m_temperature": name, "time": time, "latitude": lat, "longitude": lon}
    )
    if draw(st.booleans()):  # any order of time; the forecast's is sorted
        theirs = theirs.isel({time: np.random.default_rng(draw(st.integers(0, 9))).permutation(9)})
    chunks = draw(st.sampled_from([None, {time: 1}, {time: 4, lat: 2}, {lon: 4}, {time: 9}]))
    if chunks:
        theirs = theirs.chunk(chunks)
    batch = draw(st.sampled_from([None, 2, 3]))
    chosen = draw(st.integers(1, 2**7 - 1))  # any of the seven that can be
    inits = ds["time"].values[[2 + i for i in range(7) if chosen >> i & 1]]
    fc = predict(theirs, model, init_time=inits, steps=4, batch_size=batch)

    assert list(fc.data_vars) == [name]
    assert bool(fc.chunks) == bool(chunks)
    assert fc[name].dtype == np.float32
    assert fc[name].attrs == {
        k: v
        for k, v in theirs[name].attrs.items()
        if k not in ("scale_factor", "add_offset", "_FillValue")
    }
    space = [d for d in theirs[name].dims if d != time]
    assert fc[name].dims == ("time", "prediction_timedelta", *space)
    for coord in (lat, lon, "height", "zone"):
        assert fc.variables[coord].dims == theirs.variables[coord].dims
        assert fc.variables[coord].attrs == theirs.variables[coord].attrs
        assert (fc.variables[coord].values == theirs.variables[coord].values).all()
    assert (fc["time"].values == inits).all()
    where = np.searchsorted(later, inits)
    assert (fc["valid_time"].values[:, :2] == later[where[:, None] + [1, 2]]).all()
    assert fc["valid_time"].dims == ("time", "prediction_timedelta")

    back = fc.compute(scheduler="synchronous").rename({lat: "latitude", lon: "longitude"})[name]
    back = back.assign_coords(longitude=back["longitude"] % 360).sortby(["latitude", "longitude"])
    kelvin = back.transpose("time", "prediction_timedelta", "latitude", "longitude").values
    if units == "degF":
        kelvin = (kelvin.astype(np.float64) + 459.67) / 1.8
    elif units != "K":
        kelvin = kelvin.astype(np.float64) + 273.15
    expected = reference["2m_temperature"].sel(time=inits)
    np.testing.assert_allclose(kelvin, expected, atol=2e-4, rtol=0)


def test_packed_integers(weather):
    model = network_forecaster(weather)
    packed = relabel(weather, packed=True)
    decoded = xr.decode_cf(packed, decode_times=False)
    a, b = predict(packed, model), predict(decoded, model)
    name = next(iter(a.data_vars))
    np.testing.assert_allclose(a[name], b[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("k", [2, 6, 14])
def test_rolling_longitude_rolls_the_forecast(weather, k):
    model = network_forecaster(weather)
    rolled = weather.roll(longitude=k, roll_coords=False)
    a = predict(weather, model)["2m_temperature"].roll(longitude=k, roll_coords=False)
    np.testing.assert_allclose(predict(rolled, model)["2m_temperature"], a, atol=1e-4, rtol=0)


def test_another_grid_wants_regrid(weather):
    model = network_forecaster(weather)
    fine = make_weather(8, shape=(40, 64), noise=0)
    with pytest.raises(InputError, match=r"grid of 40 x 64.*trained on\s10 x 16.*regrid=True"):
        predict(fine, model)
    fc = predict(fine, model, regrid=True)
    assert fc["2m_temperature"].shape == (1, 3, 10, 16)
    np.testing.assert_allclose(fc["latitude"], weather["latitude"])
    lazy = predict(fine.chunk(time=2), model, regrid=True)
    np.testing.assert_allclose(lazy["2m_temperature"], fc["2m_temperature"], atol=1e-4)
    part = fine.isel(latitude=slice(0, 20))
    with pytest.raises(InputError, match="do not cover"):
        predict(part, model, regrid=True)


@pytest.mark.parametrize("part", [slice(20, 40), slice(None)], ids=["Europe", "a finer globe"])
def test_regrid_is_advised_where_it_can_help(part):
    fine = make_weather(12, shape=(61, 120)).isel(longitude=part)
    with pytest.raises(InputError) as refused:
        predict(fine)
    helps = part == slice(None)
    assert ("Pass regrid=True" in str(refused.value)) == helps
    assert ("They do not cover it all: fit a model" in str(refused.value)) != helps


def test_another_step_is_refused(weather):
    with pytest.raises(InputError, match=r"3-hourly, the model needs a step of 1h.*timestep='3h'"):
        predict(weather.isel(time=slice(None, None, 3)), Forecaster(Drift(), TASK))


def test_nan_in_the_input_is_named(weather):
    bad = weather.copy(deep=True)
    bad["2m_temperature"][20, 3, 4] = np.nan
    model = Forecaster(Drift(), TASK)
    predict(bad, model)  # not in the last window
    with pytest.raises(InputError, match=r"forecast from 2001-01-01T20.*NaN.*2m_temperature"):
        predict(bad, model, init_time=["2001-01-01T19", "2001-01-01T20"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps must be a whole number"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        *(
            ({name: value}, f"{name} must be a whole number")
            for name in ("steps", "batch_size")
            for value in (float("nan"), float("inf"), -float("inf"), 10**12, True, "3", [3], 0)
        ),
        ({"init_time": "1999-01-01"}, "not among the data's times"),
        ({"model": 3}, "model must be a Forecaster"),
        ({"model": "/nowhere/bundle"}, "no bundle at"),
    ],
)
def test_bad_options(weather, options, words):
    options = {"model": Forecaster(Drift(), TASK)} | options
    with pytest.raises(InputError, match=words):
        predict(weather, **options)


def test_too_few_steps(weather):
    with pytest.raises(InputError, match="complete input window"):
        predict(weather.isel(time=slice(0, 3)), Forecaster(Drift(), TASK))


def test_targets_that_are_a_part_of_the_inputs():
    ds = make_weather(12, shape=(4, 6))
    ds["msl"] = ds["2m_temperature"] * 0 + 101325
    ds["msl"].attrs = {"units": "Pa"}

    class First(torch.nn.Module):
        def forward(self, x):
            return x[:, -1:, :1].expand(-1, 3, -1, -1, -1)

    task = Task(["t2m", "msl"], input_steps=4, target_steps=3, targets=["t2m"])
    fc = predict(ds, Forecaster(First(), task, mean=[280, 1e5], std=[10, 1e3]))
    assert list(fc.data_vars) == ["2m_temperature"]
    np.testing.assert_allclose(fc["2m_temperature"][0, 2], ds["2m_temperature"][-1], atol=1e-3)
    with pytest.raises(InputError, match="its own forecast of every input"):
        predict(ds, Forecaster(First(), task), steps=4)


def test_a_network_of_the_wrong_shape_is_named(weather):
    with pytest.raises(InputError, match="the network gives"):
        predict(weather, Forecaster(Drift(steps=2), TASK))


@pytest.mark.parametrize("size", [(90, 180), (16, 20)])
def test_regridding_keeps_a_smooth_field_and_the_mean(size):
    source, target = (make_weather(1, shape=s, noise=0) for s in (size, (24, 36)))
    grid = Grid.of(target)
    out = to_grid(source, grid)["2m_temperature"]
    wave = np.abs(out.values - target["2m_temperature"].values)
    assert wave.max() < (0.4 if size[0] > 24 else 2.0)
    constant = xr.full_like(source, 281.5)
    np.testing.assert_allclose(to_grid(constant, grid)["2m_temperature"], 281.5, rtol=1e-6)
    if size[0] > 24:  # first-order conservative: the area mean is kept
        w_in, w_out = (
            np.asarray(stforecast.conventions.grid.area_weights(d.latitude)) for d in (source, out)
        )
        mean_in = (source["2m_temperature"].values.mean(-1) * w_in).mean()
        mean_out = (out.values.mean(-1) * w_out).mean()
        assert mean_out == pytest.approx(mean_in, abs=1e-3)


def test_numbers_that_are_canonical_already_are_passed_on_and_not_changed():
    """They are not copied on the way: whoever writes into them would write into the caller's."""
    ds = make_weather(60, shape=(4, 6))
    before = ds["2m_temperature"].values.copy()
    ds["2m_temperature"].values.flags.writeable = False  # writing into them is an error
    task = Task("2m_temperature", 2, 2, "1h", nan="mask")
    for model in (Persistence(task), LinearRegression.fit(ds, task)):
        forecast = predict(ds, model, init_time=slice(None, ds["time"].values[-3]))
        evaluate(forecast, ds, nan="mask")
    np.testing.assert_array_equal(ds["2m_temperature"].values, before)
