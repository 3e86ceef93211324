"""The gate reads and copies no more than it must."""

import numpy as np
import xarray as xr
from helpers import on_file

from stforecast.conventions.gate import canonicalize, restore
from stforecast.testing.weather import make_forecast, relabel

NAME = "2m_temperature"
HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


def test_of_a_file_one_time_step_is_read(weather):
    theirs = relabel(
        weather,
        names={NAME: "t2m", "longitude": "lon"},
        order=("time", "longitude", "latitude"),
        north_first=True,
        west_negative=True,
        packed=True,
    )
    lazy, arrays = on_file(theirs)
    ours, labels = canonicalize(lazy)
    size = weather[NAME].isel(time=0).size
    assert arrays["t2m"].read == size
    back = restore(ours, labels)
    assert arrays["t2m"].read == size
    window = ours[NAME].isel(time=slice(2, 5), longitude=[4, 0, 5]).values
    assert arrays["t2m"].read == size * (1 + 3 * 3 / 6)  # what was asked for, and no more
    np.testing.assert_allclose(window, weather[NAME][2:5, :, [4, 0, 5]], rtol=0, atol=0.0051)
    np.testing.assert_array_equal(back["t2m"], theirs["t2m"])


def test_lazy_views_take_every_kind_of_index(weather):
    theirs = relabel(
        weather, order=("longitude", "time", "latitude"), units="degC", dtype="float64"
    )
    ours, _ = canonicalize(on_file(theirs)[0])
    point = xr.DataArray([0, 3, 5], dims="point")
    for key in (
        {"time": 3},
        {"time": -1, "longitude": slice(None, None, -2)},
        {"time": [5, 0], "latitude": [2]},
        {"time": point, "longitude": point},
        {"latitude": slice(0, 0)},
    ):
        got, want = ours[NAME].isel(key), weather[NAME].isel(key)
        np.testing.assert_allclose(got.values, want.values, rtol=0, atol=2e-5)


def test_dask_is_not_computed(weather):
    import dask

    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    air = weather.rename({NAME: "air"}).chunk(time=2)
    air["air"].attrs = {"units": "degC"}  # an unknown variable: its units are taken as they are
    forecast = make_forecast(weather).chunk(time=1)
    forecast["valid_time"].load()
    with dask.config.set(scheduler=refuse):
        for ds in (air, forecast):
            ours, labels = canonicalize(ds)
            back = restore(ours, labels)
            assert all(v.chunks is not None for v in [*ours.values(), *back.values()])
    seen = []

    def count(graph, keys, **kwargs):
        seen.append(len(keys))
        return dask.get(graph, keys, **kwargs)

    with dask.config.set(scheduler=count):
        canonicalize(weather.chunk(time=2))
    assert seen == [1]


def test_memory_is_not_copied(weather):
    got, _ = canonicalize(relabel(weather, order=("latitude", "time", "longitude")))
    assert np.shares_memory(canonicalize(weather)[0][NAME].values, weather[NAME].values)
    assert isinstance(got[NAME].values.base, np.ndarray)
