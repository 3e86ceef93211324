"""The gate: whatever the caller's labels, the same canonical form, and the labels back."""

import logging
import pickle
from pathlib import Path

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.conventions.angles import is_global
from stforecast.conventions.gate import canonicalize, check, restore
from stforecast.conventions.grid import Grid
from stforecast.conventions.lazy import LazyArray
from stforecast.conventions.levels import split_level
from stforecast.conventions.times import time_gaps, time_step, valid_times
from stforecast.conventions.variables import canonical_name
from stforecast.errors import InputError
from stforecast.testing.weather import make_forecast, make_weather, relabel

NAME = "2m_temperature"
HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


@pytest.fixture
def weather() -> xr.Dataset:
    return make_weather(steps=7, shape=(4, 6))


def round_trip(ds, **options):
    ours, labels = canonicalize(ds, **options)
    return restore(ours, pickle.loads(pickle.dumps(labels)))


class Counted(LazyArray):
    """A lazy array, like a file, that counts what is read of it."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, 0

    def _read(self, key):
        part = xr.Variable(tuple("abcdef")[: len(key)], self.values)[key].values
        self.read += part.size
        return part


def on_file(ds):
    """The same Dataset, read lazily as from a file, and its arrays by name."""
    arrays = {name: Counted(v.values) for name, v in ds.data_vars.items()}
    lazy = {n: a.variable(ds[n].dims, ds[n].attrs) for n, a in arrays.items()}
    return xr.Dataset(lazy, ds.coords, ds.attrs), arrays


# --- any layout, the same numbers, the labels back ------------------------------------------------

layouts = st.fixed_dictionaries(
    {
        "variable": st.sampled_from([NAME, "t2m", "2t", "tas", "T2"]),
        "lat": st.sampled_from(["latitude", "lat", "y"]),
        "lon": st.sampled_from(["longitude", "lon", "x"]),
        "time": st.sampled_from(["time", "valid_time", "date", "Time"]),
        "order": st.permutations(["time", "latitude", "longitude"]),
        "north_first": st.booleans(),
        "west_negative": st.booleans(),
        "units": st.sampled_from(["K", "degC"]),
        "dtype": st.sampled_from(["float16", "float32", "float64", "packed"]),
        "calendar": st.sampled_from(["standard", "gregorian", "noleap", "360_day"]),
        "backing": st.sampled_from(["numpy", "dask", "file"]),
        "shuffled": st.booleans(),
        "extra": st.sampled_from(["none", "scalars", "size 1"]),
    }
)


def in_layout(ds, layout):
    """`ds` as a caller with this layout would have it."""
    ds = relabel(
        ds,
        order=layout["order"],
        north_first=layout["north_first"],
        west_negative=layout["west_negative"],
        units=layout["units"],
        dtype=layout["dtype"] if layout["dtype"] != "packed" else "float64",
        packed=layout["dtype"] == "packed",
        names={
            old: layout[new]
            for old, new in (("latitude", "lat"), ("longitude", "lon"), ("time", "time"))
            if old != layout[new]
        }
        | ({NAME: layout["variable"]} if layout["variable"] != NAME else {}),
    )
    if layout["calendar"] == "gregorian":  # the standard calendar, but as cftime
        ds = ds.convert_calendar("gregorian", dim=layout["time"], use_cftime=True)
    if layout["shuffled"]:
        ds = ds.isel({layout["time"]: [3, 0, 4, 1, 2]})
    if layout["extra"] != "none":
        ds = ds.assign_coords(number=0, surface=0.0, step=np.timedelta64(0, "ns"))
        ds = ds.assign_coords(expver=(layout["time"], ["0001"] * 4 + ["0005"]))
    if layout["extra"] == "size 1":
        ds = ds.expand_dims("number", axis=1)
    if layout["backing"] == "dask":
        ds = ds.chunk({layout["time"]: 2, layout["lon"]: 4})
    return on_file(ds)[0] if layout["backing"] == "file" else ds


@settings(max_examples=80, deadline=None)
@given(layout=layouts)
def test_any_layout_gives_the_same_numbers_and_comes_back(layout):
    calendar = layout["calendar"] if layout["calendar"] != "gregorian" else "standard"
    ours = make_weather(steps=5, shape=(3, 6), calendar=calendar)
    theirs = in_layout(ours, layout)
    got, labels = canonicalize(theirs)

    step = {"float16": 0.13, "packed": 0.0051}.get(layout["dtype"], 1e-4)
    assert list(got.data_vars) == [NAME]
    assert got[NAME].dims == ("time", "latitude", "longitude")
    assert got[NAME].dtype == np.float32
    assert got[NAME].attrs["units"] == "K"
    xr.testing.assert_allclose(got, ours, rtol=0, atol=step)
    np.testing.assert_array_equal(got["time"], ours["time"])
    assert (got[NAME].chunks is None) == (layout["backing"] != "dask")
    check(got, timestep=HOUR)

    back = restore(got, pickle.loads(pickle.dumps(labels)))
    assert (back[layout["variable"]].chunks is None) == (layout["backing"] != "dask")
    assert back[layout["variable"]].dtype == theirs[layout["variable"]].dtype
    if layout["units"] == "K" or layout["dtype"] == "packed":
        if layout["dtype"] == "float64":  # float32 in between
            back[layout["variable"]] = back[layout["variable"]].astype("float32").astype("float64")
            theirs = theirs.astype("float32").astype("float64")
        xr.testing.assert_identical(back, theirs)
    else:
        xr.testing.assert_allclose(back, theirs, rtol=0, atol=2e-5 if step < 0.1 else 1e-2)
        for name in theirs.variables:
            assert back[name].attrs == theirs[name].attrs
            assert back[name].dims == theirs[name].dims
            if name in theirs.coords:
                assert back[name].identical(theirs[name]) or name in back[name].coords


@settings(max_examples=40, deadline=None)
@given(layout=layouts)
def test_a_forecast_gets_the_callers_labels(layout):
    calendar = layout["calendar"] if layout["calendar"] != "gregorian" else "standard"
    theirs = in_layout(make_weather(steps=5, shape=(3, 6), calendar=calendar), layout)
    ours, labels = canonicalize(theirs)
    forecast = make_forecast(ours, inits=2, steps=3)
    got = restore(forecast, labels)

    spatial = [layout[k[:3]] for k in layout["order"] if k != "time"]
    array = got[layout["variable"]]
    assert array.dims == ("time", "prediction_timedelta", *spatial)
    assert array.dtype == np.float32
    assert array.attrs["units"] == layout["units"]
    assert "scale_factor" not in array.attrs
    assert got["valid_time"].dims == ("time", "prediction_timedelta")
    assert ("number" in got.coords) == (layout["extra"] != "none")
    assert not {"expver", "step", "date", "Time"} & set(got.coords)
    for name in spatial:
        assert got[name].variable.identical(theirs[name].variable)
    if layout["calendar"] == "gregorian":
        assert isinstance(got["valid_time"].values[0, 0], cftime.datetime)
    # What comes out goes in again, and is the same forecast.
    again, theirs_again = canonicalize(got)
    xr.testing.assert_allclose(again, forecast, rtol=0, atol=5e-5)
    back = restore(again, theirs_again)
    xr.testing.assert_allclose(back, got, rtol=0, atol=5e-5)
    assert back[layout["variable"]].dims == array.dims


def test_float64_celsius_comes_back_to_half_a_float32_step():
    theirs = relabel(make_weather(steps=4), units="degC", dtype="float64")
    back = round_trip(theirs)
    assert back[NAME].dtype == np.float64
    np.testing.assert_allclose(back[NAME], theirs[NAME], rtol=0, atol=1.6e-5)


@pytest.mark.parametrize(
    ("units", "value", "kelvin"),
    [
        ("K", 300.0, 300.0),
        ("degK", 300.0, 300.0),
        ("Kelvin", 300.0, 300.0),
        ("degC", 26.85, 300.0),
        ("°C", 26.85, 300.0),
        ("celsius", 26.85, 300.0),
        ("degrees_Celsius", 26.85, 300.0),
        ("C", 26.85, 300.0),
        ("degF", 80.33, 300.0),
        ("Fahrenheit", 80.33, 300.0),
        ("℃", 26.85, 300.0),
        ("℉", 80.33, 300.0),
    ],
)
def test_units_of_temperature(weather, units, value, kelvin):
    theirs = weather.copy()
    theirs[NAME] = xr.full_like(weather[NAME], value, dtype=np.float64).assign_attrs(units=units)
    got, labels = canonicalize(theirs)
    np.testing.assert_allclose(got[NAME], kelvin, rtol=0, atol=2e-5)
    assert got[NAME].attrs["units"] == "K"
    back = restore(got, labels)[NAME]
    assert back.attrs["units"] == units
    np.testing.assert_allclose(back, value, rtol=0, atol=5e-5)


def test_missing_values_of_packed_numbers(weather):
    packed = relabel(weather, packed=True)
    packed[NAME][2, 1, 3] = -32768
    ours, labels = canonicalize(packed)
    assert np.argwhere(np.isnan(ours[NAME].values)).tolist() == [[2, 1, 3]]
    back = restore(ours, labels)
    assert back[NAME].dtype == np.int16
    xr.testing.assert_identical(back, packed)
    filled = weather.copy(deep=True)  # a float32 file that xarray was told not to mask
    filled[NAME][2, 1, 3] = 1e20
    filled[NAME].attrs["missing_value"] = 1e20
    assert int(np.isnan(canonicalize(filled)[0][NAME]).sum()) == 1
    xr.testing.assert_identical(round_trip(filled), filled)


def test_units_of_unknown_variables(weather):
    anomaly = weather.rename({NAME: "anom"}) * 0 + 1.5
    anomaly["anom"].attrs = {"units": "degC", "long_name": "temperature anomaly"}
    got, _ = canonicalize(anomaly)
    assert float(got["anom"].mean()) == 1.5  # a difference: no 273.15
    assert got["anom"].attrs["units"] == "degC"
    soil = weather.rename({NAME: "soil"}) - 273.15
    soil["soil"].attrs = {"units": "degC"}
    got, _ = canonicalize(soil)
    np.testing.assert_allclose(got["soil"], weather[NAME], atol=1e-4)
    charge = weather.rename({NAME: "charge"}).copy()
    charge["charge"].attrs = {"units": "C"}  # coulomb
    assert canonicalize(charge)[0]["charge"].attrs["units"] == "C"


@pytest.mark.parametrize(("shift", "unit"), [(0, "K"), (-273.15, "degC")])
def test_missing_units_are_inferred_with_a_warning(weather, caplog, shift, unit):
    theirs = weather + shift
    theirs[NAME].attrs = {}
    with caplog.at_level(logging.WARNING, "stforecast.conventions"):
        got, labels = canonicalize(theirs)
    assert unit in caplog.text
    np.testing.assert_allclose(got[NAME], weather[NAME], atol=1e-4)
    assert restore(got, labels)[NAME].attrs == {}


def test_names():
    assert {canonical_name(n) for n in ("t2m", "2t", "tas", "t2", "T2M", NAME)} == {NAME}
    assert canonical_name("msl") == "mean_sea_level_pressure"
    assert canonical_name("air") == "air"
    assert canonical_name("Q") == "Q"  # single capitals mean other things elsewhere


#: Short names of ECMWF's parameter database, of CMIP's tables, WRF and NCEP.
SHORT = {
    "temperature": "t ta",
    "geopotential": "z",
    "geopotential_height": "gh zg hgt",
    "specific_humidity": "q hus",
    "relative_humidity": "r hur",
    "u_component_of_wind": "u ua",
    "v_component_of_wind": "v va",
    "vertical_velocity": "w wap",
    "vorticity": "vo",
    "potential_vorticity": "pv",
    "ozone_mass_mixing_ratio": "o3",
    "specific_cloud_ice_water_content": "ciwc",
    "specific_cloud_liquid_water_content": "clwc",
    "2m_temperature": "t2m 2t tas t2",
    "2m_dewpoint_temperature": "d2m 2d",
    "sea_surface_temperature": "sst tos",
    "skin_temperature": "skt ts",
    "10m_u_component_of_wind": "u10 10u uas",
    "10m_v_component_of_wind": "v10 10v vas",
    "100m_u_component_of_wind": "u100 100u",
    "100m_v_component_of_wind": "v100 100v",
    "10m_wind_speed": "si10 10si",
    "mean_sea_level_pressure": "msl psl slp",
    "surface_pressure": "sp ps",
    "total_precipitation": "tp",
    "total_cloud_cover": "tcc",
    "total_column_water_vapour": "tcwv",
    "total_column_water": "tcw",
    "boundary_layer_height": "blh",
    "convective_available_potential_energy": "cape",
    "sea_ice_cover": "siconc",
    "surface_solar_radiation_downwards": "ssrd",
    "surface_thermal_radiation_downwards": "strd",
    "toa_incident_solar_radiation": "tisr",
    "land_sea_mask": "lsm",
    "soil_type": "slt",
    "orography": "oro orog",
}


def test_short_names():
    for canonical, names in SHORT.items():
        for name in [canonical, *names.split()]:
            assert canonical_name(name) == canonical, name
            assert len(name) == 1 or canonical_name(name.upper()) == canonical, name


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("z500", "geopotential_500"),
        ("z_500", "geopotential_500"),
        ("Z500", "geopotential_500"),
        ("geopotential_500", "geopotential_500"),
        ("geopotential_500hPa", "geopotential_500"),
        ("t850", "temperature_850"),
        ("ta_1000", "temperature_1000"),
        ("q_5", "specific_humidity_5"),
        ("pv_0.5", "potential_vorticity_0.5"),
        ("u250", "u_component_of_wind_250"),
        ("u10", "10m_u_component_of_wind"),
        ("u100", "100m_u_component_of_wind"),  # as ECMWF means it
        ("u_100", "u_component_of_wind_100"),
        ("t2m", NAME),
        ("t2", NAME),
        ("v1", "v1"),
        ("t_0", "t_0"),
        ("swvl1", "swvl1"),
        ("air_850", "air_850"),
        ("msl500", "msl500"),
    ],
)
def test_names_with_a_level(name, canonical):
    assert canonical_name(name) == canonical
    assert canonical_name(canonical) == canonical


def test_the_level_of_a_name():
    assert split_level("geopotential_500") == ("geopotential", 500.0)
    assert split_level("potential_vorticity_0.5") == ("potential_vorticity", 0.5)
    assert all(split_level(n) is None for n in (NAME, "t_0", "v1", "500", "_500", "z500", "a_b"))


# --- pressure levels ------------------------------------------------------------------------------

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


# --- what is selected, and what comes back --------------------------------------------------------


def test_a_mask_is_taken_by_name_only(weather):
    warm = (weather[NAME] > 280).drop_attrs()
    ours, labels = canonicalize(weather.assign(warm=warm), ["warm"])
    np.testing.assert_array_equal(ours["warm"], warm.astype("f4"))
    xr.testing.assert_equal(restore(ours, labels)["warm"], warm)
    assert list(canonicalize(weather.assign(warm=warm))[0]) == [NAME]


def test_only_what_is_asked_for_is_taken(weather):
    plain = weather[NAME].assign_attrs(units="1", standard_name="cloud_area_fraction") * 0
    ds = weather.assign(tcc=plain, lsm=plain.isel(time=0))
    ds = ds.assign(bounds=("time", np.zeros(7)), text=("time", ["a"] * 7))
    assert set(canonicalize(ds)[0].data_vars) == {NAME, "total_cloud_cover"}
    for wanted in ("t2m", ["t2m"], (NAME,)):
        assert list(canonicalize(ds, wanted)[0].data_vars) == [NAME]
    assert list(round_trip(ds, variables=["tcc"]).data_vars) == ["tcc"]


def test_a_data_array_and_anything_that_becomes_xarray(weather):
    class Source:
        def to_xarray(self):
            return weather

    xr.testing.assert_identical(canonicalize(Source())[0], canonicalize(weather)[0])
    named = weather[NAME].rename("t2m")
    xr.testing.assert_identical(round_trip(named)["t2m"], named)
    unnamed = weather[NAME].rename(None)
    assert list(canonicalize(unnamed, [NAME])[0].data_vars) == [NAME]


def test_one_dimensional_coordinates_that_are_no_index(weather):
    ds = weather.rename_dims(latitude="y", longitude="x").reset_index(["latitude", "longitude"])
    ds = ds.assign_coords(y=("y", np.arange(4) * 1000.0, {"units": "m"})).isel(
        y=slice(None, None, -1)
    )
    got, _ = canonicalize(ds)
    assert got[NAME].dims == ("time", "latitude", "longitude")
    assert (got["latitude"].diff("latitude") > 0).all()
    xr.testing.assert_identical(round_trip(ds), ds)


def test_cells_without_latitude_stay_cells():
    rng = np.random.default_rng(0)
    time = pd.date_range("2016-01-01", periods=5, freq="30min")
    flow = xr.Dataset(
        {"inflow": (("x", "y", "time"), rng.poisson(9, (3, 4, 5)))},
        {"time": time, "y": ("y", [3.0, 2.0, 1.0, 0.0])},
    )
    got, _ = canonicalize(flow)
    assert got["inflow"].dims == ("time", "y", "x")
    np.testing.assert_array_equal(got["inflow"], flow["inflow"].transpose("time", "y", "x"))
    np.testing.assert_array_equal(got["y"], flow["y"])
    assert Grid.of(got).to_dict() == {"y": 4, "x": 3}
    back = round_trip(flow)
    xr.testing.assert_identical(back, flow)
    assert back["inflow"].dtype == flow["inflow"].dtype


def test_attributes_encoding_and_time_dtype_come_back(weather):
    weather["time"].encoding = {"units": "hours since 1900-01-01", "dtype": np.dtype("int32")}
    weather[NAME].encoding = {"dtype": np.dtype("int16"), "scale_factor": 0.01}
    weather.encoding = {"unlimited_dims": {"time"}}
    ds = weather.assign_coords(time=weather["time"].astype("datetime64[s]"))
    ds["time"].encoding = weather["time"].encoding
    ours, labels = canonicalize(ds)
    assert ours["time"].dtype == "datetime64[ns]"
    assert ours[NAME].encoding == {}
    back = restore(ours, labels)
    assert back["time"].dtype == "datetime64[s]"
    for name in ("time", NAME):
        assert back[name].encoding == ds[name].encoding
    assert back.encoding == ds.encoding


def test_a_part_comes_back_as_the_same_part(weather):
    theirs = relabel(
        weather, names={"latitude": "lat"}, north_first=True, west_negative=True, units="degC"
    )
    theirs = theirs.assign_coords(day=("time", np.arange(7)), name=("lat", list("abcd")))
    ours, labels = canonicalize(theirs)
    part = ours.isel(time=slice(2, 5), latitude=[0, 1], longitude=slice(1, 5))
    back = restore(part, labels)
    np.testing.assert_array_equal(back["lat"], theirs["lat"][2:])
    np.testing.assert_array_equal(back["longitude"], [-180, -120, 60, 120])
    assert not {"day", "name"} & set(back.coords)  # of whose places nothing is known
    expected = theirs.sel(longitude=back["longitude"]).isel(time=slice(2, 5), lat=[2, 3])
    xr.testing.assert_allclose(back, expected.drop_vars(["day", "name"]), rtol=0, atol=2e-5)


def test_another_grid_gets_the_callers_convention(weather):
    theirs = relabel(
        weather.assign_coords(longitude=weather["longitude"] + 15),
        names={"latitude": "lat", "longitude": "lon"},
        north_first=True,
        west_negative=True,
    )
    _, labels = canonicalize(theirs)
    finer = make_weather(steps=7, shape=(6, 8))
    back = restore(finer, labels)
    assert back[NAME].dims == theirs[NAME].dims
    np.testing.assert_array_equal(back["lon"], np.arange(-180, 180, 45))
    np.testing.assert_array_equal(back["lat"], np.arange(75, -90, -30))
    point = {"lat": 75.0, "lon": -45.0}
    assert (back[NAME].sel(point) == finer[NAME].sel(latitude=75.0, longitude=315.0)).all()


def test_whole_degrees_and_hours_do_not_cut_those_of_others(weather):
    theirs = make_weather(7, shape=(6, 12))
    whole = {name: theirs[name].astype(int) for name in ("latitude", "longitude")}
    _, labels = canonicalize(theirs.assign_coords(whole))
    back = restore(weather, labels)
    for name in whole:  # rows at 22.5 and 67.5 degrees, columns every 60
        np.testing.assert_array_equal(back[name], weather[name])
    assert back["longitude"].dtype.kind == "i"
    forecast = make_forecast(theirs)
    hours = ("prediction_timedelta", [1, 2, 3], {"units": "hours"})
    _, labels = canonicalize(forecast.assign_coords(prediction_timedelta=hours))
    leads = np.array([30, 60, 90], "timedelta64[m]").astype("timedelta64[ns]")
    other = forecast.assign_coords(prediction_timedelta=leads).drop_vars("valid_time")
    assert restore(other, labels)["prediction_timedelta"].values.tolist() == [0.5, 1.0, 1.5]


# --- longitude ------------------------------------------------------------------------------------


def with_longitude(lon, steps=2):
    values = 280 + np.arange(steps * 3 * len(lon), dtype=np.float32).reshape(steps, 3, len(lon)) / 9
    return xr.Dataset(
        {NAME: (("time", "latitude", "longitude"), values, {"units": "K"})},
        {
            "time": pd.date_range("2001", periods=steps),
            "latitude": [10.0, 20, 30],
            "longitude": lon,
        },
    )


@pytest.mark.parametrize(
    ("given_", "canonical"),
    [
        (np.arange(-180.0, 180, 60), np.arange(0.0, 360, 60)),
        (np.arange(60.0, 420, 60), np.arange(0.0, 360, 60)),
        ([-10.0, 0, 10, 20], [-10.0, 0, 10, 20]),  # Europe in one piece
        ([350.0, 360, 370, 380], [-10.0, 0, 10, 20]),
        ([0.0, 10, 20, 350], [-10.0, 0, 10, 20]),  # sorted from 0 to 360 it was torn
        ([-30.0, -20, -10], [330.0, 340, 350]),
        ([170.0, 180, -170], [170.0, 180, 190]),
        ([20.0, 10, 0], [0.0, 10, 20]),
        ([-20.0, -10, -1e-6], [-20.0, -10, 0]),  # rounding does not go round the globe
        ([12.5], [12.5]),
    ],
)
def test_longitudes(given_, canonical):
    ds = with_longitude(given_)
    got, _ = canonicalize(ds)
    np.testing.assert_allclose(got["longitude"], canonical, rtol=0, atol=1e-5)
    place = int(np.flatnonzero(np.isclose(np.mod(given_, 360), np.mod(canonical[0], 360)))[0])
    np.testing.assert_array_equal(got[NAME][:, :, 0], ds[NAME][:, :, place])
    xr.testing.assert_identical(round_trip(ds), ds)


def test_is_global():
    assert is_global(np.arange(64) * 5.625)
    assert is_global(np.arange(64) * 5.625 - 180)
    assert is_global(np.round(np.arange(1080) / 3, 2))
    assert not is_global(np.arange(63) * 5.625)
    assert not is_global(np.array([350.0, 0, 10]))
    assert not is_global(np.array([5.0]))
    assert is_global(np.array([0.0, 180.0]))
    assert is_global(np.array([0.0, 120.0, 245.0]))  # 115 is next to 120
    assert not is_global(np.array([0.0, 100.0, 200.0]))


def test_three_uneven_longitudes_are_refused():
    with pytest.raises(InputError, match="10 degrees between 0 and 10, elsewhere 15"):
        canonicalize(with_longitude([0.0, 10.0, 30.0]))
    rounded = [0.0, 10.0, 20.9, 30.0]  # a tenth of the spacing is rounding
    np.testing.assert_array_equal(canonicalize(with_longitude(rounded))[0]["longitude"], rounded)


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_steps_and_gaps(calendar):
    time = xr.date_range("2001-02-27", periods=96, freq="1h", calendar=calendar).values
    time = np.delete(time, [10, 11, 12, 40])
    assert time_step(time) == HOUR
    assert time_gaps(time, HOUR) == [(time[9], time[10], 3), (time[36], time[37], 1)]
    assert time_gaps(time[:10], HOUR) == []
    with pytest.raises(InputError, match="2 times, found 1"):
        time_step(time[:1])


def test_valid_times_of_other_calendars():
    start = np.array([cftime.DatetimeNoLeap(2004, 2, 28, 18)])
    lead = np.array([6, 12], "timedelta64[h]")
    assert valid_times(start, lead)[0, 0] == cftime.DatetimeNoLeap(2004, 3, 1, 0)
    got = valid_times(np.array(["2004-02-28T18"], "datetime64[h]"), lead)
    np.testing.assert_array_equal(got, np.array([["2004-02-29T00", "2004-02-29T06"]], "M8[h]"))


# --- forecasts ------------------------------------------------------------------------------------


@pytest.fixture
def forecast(weather) -> xr.Dataset:
    return make_forecast(weather)


def test_coordinates_say_what_they_are(weather, forecast):
    """CF's standard names, by which other software knows them."""
    ours = canonicalize(weather.drop_attrs().assign({NAME: weather[NAME]}))[0]
    told = {
        "time": {"standard_name": "time", "long_name": "time"},
        "latitude": {
            "standard_name": "latitude",
            "long_name": "latitude",
            "units": "degrees_north",
        },
        "longitude": {
            "standard_name": "longitude",
            "long_name": "longitude",
            "units": "degrees_east",
        },
    }
    assert {name: ours[name].attrs for name in ours.coords} == told
    ours = canonicalize(forecast.drop_attrs())[0]
    of_forecast = {
        "time": {"standard_name": "forecast_reference_time", "long_name": "initialisation time"},
        "prediction_timedelta": {"standard_name": "forecast_period", "long_name": "lead time"},
        "valid_time": {"standard_name": "time", "long_name": "valid time"},
    }
    assert {name: ours[name].attrs for name in ours.coords} == told | of_forecast


@pytest.mark.parametrize("name", ["valid_time", "v"])
def test_valid_times_are_known_by_name_or_standard_name(forecast, name):
    bare = forecast.drop_attrs().rename(valid_time=name)
    bare[NAME].attrs = forecast[NAME].attrs
    if name == "v":
        bare["v"].attrs = {"standard_name": "time"}
    xr.testing.assert_identical(round_trip(bare), bare)
    late = bare[name].copy(data=bare[name].values + np.timedelta64(1, "D"))
    with pytest.raises(InputError, match=f"'{name}' is not time . lead time at 12 places"):
        canonicalize(bare.assign_coords({name: late}))


def test_coordinates_of_one_dimension_that_counts_come_back(weather):
    ds = weather.expand_dims(number=[3], axis=1)
    ds = ds.assign_coords(run=(("number", "time"), [list("abcdefg")]))
    xr.testing.assert_identical(round_trip(ds), ds)


def test_forecasts_of_others(forecast):
    theirs = forecast.rename(prediction_timedelta="lead_time", longitude="lon", time="init_time")
    theirs = theirs.transpose("lon", "lead_time", "latitude", "init_time")
    xr.testing.assert_identical(round_trip(theirs), theirs)
    without = theirs.drop_vars("valid_time")
    got, _ = canonicalize(without)
    xr.testing.assert_equal(got["valid_time"], forecast["valid_time"])
    xr.testing.assert_identical(round_trip(without), without)


def test_hours_as_lead_time(forecast):
    hours = forecast.assign_coords(
        prediction_timedelta=("prediction_timedelta", [1, 2, 3], {"units": "hours"})
    )
    got, labels = canonicalize(hours)
    xr.testing.assert_equal(got, forecast)
    xr.testing.assert_identical(restore(got, labels), hours)
    part = restore(got.isel(prediction_timedelta=[2]), labels)
    assert part["prediction_timedelta"].values.tolist() == [3]


def test_one_lead_or_one_initialisation(forecast):
    for pick in ({"prediction_timedelta": 1}, {"time": 2}, {"time": 2, "prediction_timedelta": 1}):
        one = forecast.isel(pick)
        got, _ = canonicalize(one)
        want = forecast.isel({k: [v] for k, v in pick.items()})
        xr.testing.assert_equal(got, want)
        xr.testing.assert_identical(round_trip(one), one)


def test_valid_times_with_a_lead_time_are_a_history(weather):
    history = weather.rename(time="valid_time").assign_coords(step=np.timedelta64(6, "h"))
    got, _ = canonicalize(history)
    assert got[NAME].dims == ("time", "latitude", "longitude")
    xr.testing.assert_identical(round_trip(history), history)
    one = history.expand_dims("step")
    xr.testing.assert_equal(canonicalize(one)[0], got)
    xr.testing.assert_identical(round_trip(one), one)
    two = xr.concat([one, one.assign_coords(step=one["step"] * 2)], "step")
    with pytest.raises(InputError, match="beside the lead times 'step' are called 'valid_time'"):
        canonicalize(two)


def test_a_bad_forecast_is_not_taken_for_other_units(forecast):
    far_off = forecast.copy(data={NAME: forecast[NAME].values * 100})
    xr.testing.assert_identical(canonicalize(far_off)[0][NAME].variable, far_off[NAME].variable)


# --- real files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize(
    "path",
    ["plasim_t2m/2m_temperature_2013_5.625deg.nc", "era5_t2m_italy/2m_temperature.nc"],
)
def test_real_files_come_back(path, decode):
    path = Path(__file__).parents[2].parent / "shared" / "data" / path
    if not path.exists():
        pytest.skip(f"needs {path}")
    with xr.open_dataset(path, mask_and_scale=decode) as ds:
        ds = ds.isel(time=slice(0, 50))
        ours, labels = canonicalize(ds)
        check(ours, ["2m_temperature"])
        back = restore(ours, labels)
        xr.testing.assert_allclose(back, ds, rtol=0, atol=2e-5)
        assert back["t2m"].encoding == ds["t2m"].encoding
        if not decode:
            xr.testing.assert_identical(back, ds)


# --- laziness -------------------------------------------------------------------------------------


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


# --- bad input ------------------------------------------------------------------------------------


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


# --- check ----------------------------------------------------------------------------------------


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


# --- the synthetic data sets ----------------------------------------------------------------------


def test_make_weather_is_its_closed_form():
    ds = make_weather(steps=3, shape=(4, 8), noise=0)[NAME]
    # 22.5 °N, 90 °E, after 2 hours
    phi, lam, t = np.pi / 8, np.pi / 2, 2.0
    want = 285 - 35 * np.sin(phi) ** 2 + 6 * np.cos(phi) * np.sin(2 * lam - 2 * np.pi * t / 30)
    want += 4 * np.cos(phi) * np.cos(2 * np.pi * t / 24 + lam - 3.9)
    assert float(ds.sel(latitude=22.5, longitude=90.0)[2]) == pytest.approx(want, abs=2e-5)
    noise = make_weather(steps=400, noise=0.5)[NAME] - make_weather(steps=400, noise=0)[NAME]
    assert float(noise.std()) == pytest.approx(0.5, rel=0.03)
    lagged = float((noise[1:].values * noise[:-1].values).mean()) / 0.25
    assert lagged == pytest.approx(0.9, abs=0.05)


def test_make_forecast_has_the_errors_it_says():
    weather = make_weather(steps=9, shape=(5, 8))
    forecast = make_forecast(weather, inits=3, steps=4, bias=-0.5, spread=0.25)
    truth = weather[NAME].sel(time=forecast["valid_time"])
    error = (forecast[NAME] - truth).mean(["time", "latitude", "longitude"])
    square = ((forecast[NAME] - truth) ** 2).mean(["time", "latitude", "longitude"])
    np.testing.assert_allclose(error, -0.5, atol=1e-4)
    np.testing.assert_allclose(square, 0.25 + (0.25 * np.arange(1, 5)) ** 2, atol=1e-4)
