"""Pressure levels of a variable, however they are written."""

import logging
import pickle

import numpy as np
import pytest
import xarray as xr
from helpers import on_file

from stforecast.conventions.gate import canonicalize, check, restore
from stforecast.errors import InputError
from stforecast.testing.weather import make_forecast, make_weather

NAME = "2m_temperature"
HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


LEVELS = [1000.0, 850.0, 500.0, 0.5]
level_coords = {
    "WeatherBench": ("level", np.array([1000, 850, 500, 1]), {}),
    "CDS, old": ("level", np.array([1000, 850, 500, 1]), {"units": "millibars"}),
    "CDS, new": ("pressure_level", np.array(LEVELS), {"units": "hPa"}),
    "GRIB": ("isobaricInhPa", np.array(LEVELS), {"units": "hPa", "positive": "down"}),
    "GRIB, Pa": ("isobaricInPa", np.array(LEVELS) * 100, {"units": "Pa"}),
    "CMIP": ("plev", np.array(LEVELS) * 100, {"units": "Pa", "standard_name": "air_pressure"}),
    "CMIP, bare": ("plev", np.array(LEVELS) * 100, {}),
    "pascals": ("lev", np.array(LEVELS) * 100, {}),
    "by its units": ("p", np.array(LEVELS), {"units": "mbar"}),
    "by its standard name": ("k", np.array(LEVELS), {"standard_name": "air_pressure"}),
}


def on_levels(form="WeatherBench", position=1, backing="numpy", steps=5):
    """t and t2m, of which the level of t can be told by its values: 1000 hPa is 1 K warmer, ..."""
    weather = make_weather(steps=steps, shape=(4, 6))
    dim, values, attrs = level_coords[form]
    t = xr.concat([weather[NAME] - i for i in range(len(values))], dim).assign_attrs(units="K")
    order = [d for d in t.dims if d != dim]
    order.insert(position, dim)
    ds = xr.Dataset({"t": t.transpose(*order), "t2m": weather[NAME], "z": 10 * t})
    ds["z"].attrs = {"units": "m2 s-2"}
    ds = ds.assign_coords({dim: (dim, values, attrs)})
    if backing == "dask":
        return ds.chunk(time=2), {}
    return on_file(ds) if backing == "file" else (ds, {})


@pytest.mark.parametrize("form", level_coords)
@pytest.mark.parametrize("position", [0, 1, 3])
def test_levels_however_they_are_written(form, position):
    ds, _ = on_levels(form, position)
    ours, labels = canonicalize(ds, ["temperature_850", "t2m", "z1000", "t500"])
    names = ["temperature_850", NAME, "geopotential_1000", "temperature_500"]
    assert list(ours.data_vars) == names
    for name, level, shift in (("temperature_850", 850, 1), ("temperature_500", 500, 2)):
        np.testing.assert_allclose(ours[name], ours[NAME] - shift, atol=1e-4)
        assert ours[name].dims == ("time", "latitude", "longitude")
        assert (ours[name].attrs["level"], ours[name].attrs["level_units"]) == (level, "hPa")
    check(ours)
    back = restore(ours, labels)
    assert list(back.data_vars) == ["t_850", "t2m", "z_1000", "t_500"]
    assert set(back.coords) == {"time", "latitude", "longitude"}
    again, _ = canonicalize(back, names)
    xr.testing.assert_identical(again, ours)


@pytest.mark.parametrize("backing", ["numpy", "dask", "file"])
def test_no_other_level_is_read(backing):
    ds, arrays = on_levels(backing=backing)
    ours, labels = canonicalize(ds, ["z850", "t2m"])
    assert (ours["geopotential_850"].chunks is not None) == (backing == "dask")
    if backing == "file":
        assert arrays["z"].read == arrays["t"].read == 0
        ours["geopotential_850"][1:3].load()
        assert arrays["z"].read == 2 * 4 * 6
        assert arrays["t"].read == 0
    np.testing.assert_allclose(ours["geopotential_850"], 10 * (ours[NAME] - 1), rtol=1e-6)
    forecast = restore(make_forecast(ours, inits=2, steps=2), pickle.loads(pickle.dumps(labels)))
    assert forecast["z_850"].dims == ("time", "prediction_timedelta", "latitude", "longitude")
    assert forecast["z_850"].attrs["level"] == 850
    assert list(canonicalize(forecast)[0].data_vars) == ["geopotential_850", NAME]


@pytest.mark.parametrize("kind", ["scalar", "size 1"])
def test_a_single_level_comes_back_as_it_came(kind):
    ds, _ = on_levels("CMIP")
    one = ds[["z", "t"]].sel(plev=50000.0 if kind == "scalar" else [50000.0])
    for wanted in (None, ["z500", "t500"]):
        ours, labels = canonicalize(one, wanted)
        assert set(ours.data_vars) == {"geopotential_500", "temperature_500"}
        assert ours["geopotential_500"].attrs["level"] == 500
        xr.testing.assert_allclose(restore(ours, labels), one[list(restore(ours, labels))])
        assert restore(ours, labels)["z"].attrs == one["z"].attrs
    assert list(canonicalize(one, ["geopotential"])[0].data_vars) == ["geopotential"]
    surface = ds[["t2m"]].assign_coords(plev=50000.0)  # a scalar comes with every variable
    assert list(canonicalize(surface)[0].data_vars) == [NAME]
    other = surface.rename(t2m="swvl1").assign_coords(plev=50000.0)
    assert list(canonicalize(other)[0].data_vars) == ["swvl1"]
    air = ds[["t"]].rename(t="air").isel(plev=[1])  # but a dimension is the variable's own
    assert list(canonicalize(air)[0].data_vars) == ["air_850"]


def test_of_several_levels_none_is_taken_unasked(caplog):
    ds, _ = on_levels()
    with caplog.at_level(logging.INFO, "stforecast.conventions"):
        assert list(canonicalize(ds)[0].data_vars) == [NAME]
    assert "ask for a level by its name, as 'temperature_1000'" in caplog.text
    air = ds[["t"]].rename(t="air")
    assert list(canonicalize(air, ["air_500"])[0].data_vars) == ["air_500"]


@pytest.mark.parametrize(
    ("spoil", "wanted", "message"),
    [
        (lambda ds: ds, "t", "'t' has an extra dimension 'level' .* as 'temperature_1000' .it has"),
        (lambda ds: ds, "t300", "'t300': 't' has 1000, 850, 500, 1 hPa, not 300 hPa"),
        (lambda ds: ds, "q500", r"variable 'q500' is not in the Dataset, which has 't', 't2m'"),
        (lambda ds: ds.drop_vars("level"), "t500", "'t' has no coordinate of pressure levels"),
        (
            lambda ds: ds.assign_coords(
                level=("level", [1, 2, 3, 500], {"long_name": "model level"})
            ),
            "t500",
            "'t' has no coordinate of pressure levels",
        ),
        (
            lambda ds: ds.assign_coords(level=("level", [2, 10, 100, 500], {"units": "m"})),
            "t500",
            "'t' has no coordinate of pressure levels",
        ),
        (lambda ds: ds.assign(ta=ds["t"]), "t850", "'t850' could be any of 't', 'ta'"),
        (lambda ds: ds, ["t850", "temperature_850"], "several of 't_850', 't_850' are one"),
        (lambda ds: ds["t"], "t300", "'t' has 1000, 850"),
    ],
)
def test_levels_that_cannot_be_had(spoil, wanted, message):
    with pytest.raises(InputError, match=message):
        canonicalize(spoil(on_levels()[0]), wanted)
