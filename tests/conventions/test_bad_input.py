"""Bad input at the gate: one error that says what is wrong; and what check refuses."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.conventions.gate import canonicalize, check, restore
from stforecast.errors import InputError
from stforecast.testing.weather import make_forecast

NAME = "2m_temperature"
HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


def with_attrs(ds, **attrs):
    ds = ds.copy()
    ds[NAME].attrs = attrs
    return ds


def curvilinear(ds):
    lat2 = ds["latitude"] + 0 * ds["longitude"]
    lon2 = ds["longitude"] + 0 * ds["latitude"]
    ds = ds.drop_vars(["latitude", "longitude"]).rename(latitude="y", longitude="x")
    attrs = {"units": "degrees_north"}, {"units": "degrees_east"}
    return ds.assign_coords(
        lat=(("y", "x"), lat2.values, attrs[0]), lon=(("y", "x"), lon2.values.T, attrs[1])
    )


BAD = {
    "not xarray": (lambda ds: ds[NAME].values, ["expected an xarray Dataset", "ndarray"]),
    "a path": (lambda ds: "weather.nc", ["found str", "open it first"]),
    "empty": (lambda ds: xr.Dataset(), ["empty", "at least one data variable"]),
    "only coordinates": (lambda ds: ds.drop_vars(NAME), ["empty"]),
    "no times": (lambda ds: ds.isel(time=slice(0)), ["'time'", "size 0"]),
    "no time dimension": (
        lambda ds: ds.isel(time=0, drop=True),
        ["no time dimension", "expand_dims"],
    ),
    "time without dates": (lambda ds: ds.drop_vars("time"), ["'time'", "no coordinate"]),
    "undecoded time": (
        lambda ds: ds.assign_coords(time=("time", np.arange(7.0), {"units": "hours since 2001"})),
        ["float64", "xr.decode_cf"],
    ),
    "duplicated time": (
        lambda ds: xr.concat([ds, ds.isel(time=[2])], "time"),
        ["time 'time'", "1 duplicated", "2001-01-01T02", "drop_duplicates('time')"],
    ),
    "missing time": (
        lambda ds: ds.assign_coords(time=ds["time"].where(ds["time"] != ds["time"][1])),
        ["'time'", "1 missing"],
    ),
    "two times": (
        lambda ds: ds.rename(latitude="valid_time").assign_coords(
            valid_time=pd.date_range("2001", periods=4)
        ),
        ["more than one", "time"],
    ),
    "latitude missing": (lambda ds: ds.drop_vars("latitude"), ["'latitude'", "assign_coords"]),
    "one dimension of space": (
        lambda ds: ds.isel(latitude=0),
        ["(time, longitude)", "expected latitude and longitude"],
    ),
    "unknown dimensions": (
        lambda ds: ds.drop_vars("latitude").rename(latitude="cell"),
        ["cell", "expected latitude and longitude"],
    ),
    "NaN in latitude": (
        lambda ds: ds.assign_coords(latitude=[-60.0, np.nan, 20, 60]),
        ["'latitude'", "1 missing"],
    ),
    "latitude twice": (
        lambda ds: ds.assign_coords(latitude=[-60.0, 20, 20, 60]),
        ["latitude", "duplicated", "20"],
    ),
    "latitude beyond the pole": (
        lambda ds: ds.assign_coords(latitude=[0.0, 60, 120, 300]),
        ["300", "-90 to 90", "exchanged"],
    ),
    "latitude of text": (
        lambda ds: ds.assign_coords(latitude=list("abcd")),
        ["latitude", "expected numbers"],
    ),
    "longitude 0 and 360": (
        lambda ds: ds.isel(longitude=[0, 1, 2, 3, 4, 5, 0]).assign_coords(
            longitude=np.arange(7) * 60.0
        ),
        ["twice", "0 and 360", "isel(longitude=slice(None, -1))"],
    ),
    "uneven longitude": (
        lambda ds: ds.isel(longitude=[0, 1, 2, 4]),
        ["not evenly spaced", "120 degrees between -120 and 0"],
    ),
    "curvilinear": (curvilinear, ["curvilinear", "'lat' is 2-D", "regrid"]),
    "levels": (
        lambda ds: ds.expand_dims(level=[850, 500]),
        ["extra dimension 'level' of size 2", "ds.sel(level=850)"],
    ),
    "heights": (
        lambda ds: ds.expand_dims(height=[2.0, 10.0]),
        ["extra dimension 'height' of size 2", "ds.sel(height=2.0)"],
    ),
    "members": (
        lambda ds: xr.concat([ds, ds], "member"),
        ["extra dimension 'member' of size 2", "ds.isel(member=0)"],
    ),
    "text": (lambda ds: ds.astype(str), ["expected numbers"]),
    "wrong units": (lambda ds: with_attrs(ds, units="m s-1"), ["'m s-1'", "K, degC or degF"]),
    "Celsius called kelvin": (
        lambda ds: with_attrs(ds - 273.15, units="K"),
        ["'K'", "contradict", "'degC'"],
    ),
    "kelvin called Celsius": (
        lambda ds: with_attrs(ds, units="degC"),
        ["'degC'", "contradict", "'K'"],
    ),
    "no units, odd values": (
        lambda ds: with_attrs(ds * 0 + 100),
        ["no units", "around 100", "attrs['units']"],
    ),
    "the same twice": (
        lambda ds: ds.assign(t2m=ds[NAME]),
        ["several of '2m_temperature', 't2m'", "variables=[...]"],
    ),
    "other coordinates": (
        lambda ds: ds.assign(b=ds[NAME].rename(latitude="lat")),
        ["different dimensions of latitude", "'latitude' and 'lat'"],
    ),
    "lead time as numbers": (
        lambda ds: make_forecast(ds).assign_coords(prediction_timedelta=[1, 2, 3]),
        ["'prediction_timedelta'", "int64", "timedelta64"],
    ),
    "wrong valid time": (
        lambda ds: make_forecast(ds).pipe(
            lambda f: f.assign_coords(valid_time=f["valid_time"] + np.timedelta64(1, "D"))
        ),
        ["'valid_time'", "not time + lead time at 12 places", "2001-01-02T01"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(weather, case):
    spoil, words = BAD[case]
    with pytest.raises(InputError) as error:
        canonicalize(spoil(weather))
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert isinstance(error.value, ValueError)


def test_a_missing_variable_is_named_with_what_there_is(weather):
    with pytest.raises(InputError, match=r"'2m_temprature'.*has '2m_temperature' \(did you mean"):
        canonicalize(weather, ["2m_temprature"])
    with pytest.raises(InputError, match=r"'tcc' is not.*ds.rename"):
        canonicalize(weather, [NAME, "tcc"])
    with pytest.raises(InputError, match=r"'tas' could be any of '2m_temperature', 't2m'"):
        canonicalize(weather.assign(t2m=weather[NAME]), ["tas"])


def test_integers_cannot_hold_missing_values(weather):
    whole = weather.round().astype("int16")
    whole[NAME].attrs = {"units": "K"}
    ours, labels = canonicalize(whole)
    with pytest.raises(InputError, match="24 missing values"):
        restore(ours.where(ours["time"] != ours["time"][0], drop=False).isel(time=[0]), labels)


@pytest.mark.parametrize(
    ("dtype", "packing", "ends"),
    [
        ("uint8", {}, (0, 255)),
        ("int16", {"scale_factor": 0.01, "add_offset": 280.0}, (-47.68, 607.67)),
    ],
)
def test_numbers_do_not_go_round_the_ends_of_integers(weather, dtype, packing, ends):
    whole = (weather * 0 + 7).astype(dtype).rename({NAME: "gust"})
    whole["gust"].attrs = packing
    ours, labels = canonicalize(whole)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    for value, packed in zip(ends, (low, high), strict=True):
        assert (restore(xr.full_like(ours, value), labels)["gust"] == packed).all()
    step = packing.get("scale_factor", 1)
    for value in (ends[0] - step, ends[1] + step):
        spoiled = ours.where(ours["time"] != ours["time"][2], value)
        with pytest.raises(InputError, match=f"'gust' holds numbers from .* {dtype} cannot hold"):
            restore(spoiled, labels)
    assert restore(ours.isel(time=slice(0)), labels)["gust"].size == 0


def test_check_takes_what_is_canonical(weather):
    check(weather, ["t2m"], timestep=HOUR)
    check(make_forecast(weather).chunk(time=2))


def test_check_takes_cells_without_latitude():
    time = pd.date_range("2016-01-01", periods=3, freq="30min")
    flow = xr.Dataset({"inflow": (("time", "y", "x"), np.ones((3, 2, 2), "f4"))}, {"time": time})
    check(flow)
    with pytest.raises(InputError, match="1 values of 12"):
        check(
            flow.where((flow.time != time[1]) | (flow.x > 0) | (flow.y > 0)).transpose("time", ...)
        )


@pytest.mark.parametrize("chunks", [None, 2])
def test_check_counts_and_names_nan(weather, chunks):
    weather[NAME][2:5, 1, 3] = np.nan
    weather[NAME][6, 0, 0] = np.inf
    ds = weather if chunks is None else weather.chunk(time=chunks)
    with pytest.raises(
        InputError, match=r"'2m_temperature' holds 4 values of 168 .* 2001-01-01T02"
    ):
        check(ds)
    check(ds, nan=False)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda ds: ds.transpose("longitude", ...), "canonicalize it first"),
        (lambda ds: ds.astype("float64"), "float64, expected float32"),
        (lambda ds: ds.isel(latitude=slice(None, None, -1)), "latitude is not ascending"),
        (lambda ds: ds.isel(time=[0, 2, 1]), "time is not ascending"),
        (
            lambda ds: ds.isel(time=slice(None, None, 3)),
            "0 days 03:00:00, expected 0 days 01:00:00",
        ),
        (lambda ds: ds.isel(time=[0]), "at least 2 times"),
    ],
)
def test_check_refuses(weather, spoil, words):
    with pytest.raises(InputError, match=words):
        check(spoil(weather), timestep=HOUR)
