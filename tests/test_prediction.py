"""predict(): labels in, labels out; windows, roll-out, dask, regridding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stforecast
from stforecast import Forecaster, Persistence, Task, predict, regridding
from stforecast.conventions import InputError
from stforecast.models import SimVPv2
from stforecast.testing import make_weather, relabel

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
    sizes = {"hidden_spatial": 4, "hidden_temporal": 12, "temporal_layers": 2, "mlp_ratio": 2.0}
    network = SimVPv2(4, 3, **sizes, periodic=True, residual=True, **options)
    network.change_scale.copy_(torch.tensor([[0.05], [0.08], [0.1]]))
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


def test_other_calendars(weather):
    ds = make_weather(30, time="2001-02-30T00", shape=(4, 6), calendar="360_day")
    fc = predict(ds, Persistence(TASK), init_time=ds["time"].values[-5], steps=24)
    assert str(fc["valid_time"].values[0, -1]) == "2001-03-02 01:00:00"


def test_batches_and_dask_change_nothing(weather):
    model = network_forecaster(weather)
    whole = predict(weather, model, init_time=slice(None), batch_size=64)
    single = predict(weather, model, init_time=slice(None), batch_size=1)
    lazy = predict(weather.chunk(time=7, longitude=5), model, init_time=slice(None), batch_size=5)
    assert lazy["2m_temperature"].chunks
    for other in (single, lazy.compute()):
        xr.testing.assert_allclose(whole, other, atol=1e-4, rtol=0)


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


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["t2m", "2t", "2m_temperature"]),
    names=st.sampled_from([{}, {"latitude": "lat", "longitude": "lon"}]),
    north_first=st.booleans(),
    west_negative=st.booleans(),
    units=st.sampled_from(["K", "degC"]),
    dtype=st.sampled_from(["float32", "float64"]),
    order=st.permutations(["time", "latitude", "longitude"]),
    chunk=st.sampled_from([None, 3, 100]),
)
def test_invariance(name, names, north_first, west_negative, units, dtype, order, chunk):
    ds = make_weather(8, shape=(10, 16))
    model = network_forecaster(ds)
    reference = predict(ds, model)["2m_temperature"]
    theirs = relabel(
        ds,
        names={"2m_temperature": name} | names,
        order=order,
        north_first=north_first,
        west_negative=west_negative,
        units=units,
        dtype=dtype,
    )
    given_ = theirs.chunk({"time": chunk}) if chunk else theirs
    fc = predict(given_, model)[name]
    assert fc.attrs["units"] == units
    assert [d for d in fc.dims if d in theirs.dims and d != "time"] == [
        d for d in theirs[name].dims if d != "time"
    ]
    lat, lon = names.get("latitude", "latitude"), names.get("longitude", "longitude")
    np.testing.assert_array_equal(fc[lat], theirs[lat])
    np.testing.assert_array_equal(fc[lon], theirs[lon])
    back = fc.compute().rename({lat: "latitude", lon: "longitude"})
    back = back.assign_coords(longitude=back["longitude"] % 360).sortby(["latitude", "longitude"])
    values = back.transpose(*reference.dims).values + (273.15 if units == "degC" else 0)
    np.testing.assert_allclose(values, reference.values, atol=1e-4, rtol=0)


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
    grid = {k: target[k].values for k in ("latitude", "longitude")}
    out = regridding.to_grid(source, grid)["2m_temperature"]
    wave = np.abs(out.values - target["2m_temperature"].values)
    assert wave.max() < (0.4 if size[0] > 24 else 2.0)
    constant = xr.full_like(source, 281.5)
    np.testing.assert_allclose(
        regridding.to_grid(constant, grid)["2m_temperature"], 281.5, rtol=1e-6
    )
    if size[0] > 24:  # first-order conservative: the area mean is kept
        w_in, w_out = (
            np.asarray(stforecast.metrics.area_weights(d.latitude)) for d in (source, out)
        )
        mean_in = (source["2m_temperature"].values.mean(-1) * w_in).mean()
        mean_out = (out.values.mean(-1) * w_out).mean()
        assert mean_out == pytest.approx(mean_in, abs=1e-3)
