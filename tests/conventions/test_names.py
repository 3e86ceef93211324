"""Names and units of variables: what they are taken for."""

import logging

import numpy as np
import pytest
import xarray as xr
from helpers import round_trip

from stforecast.conventions.gate import canonicalize, restore
from stforecast.conventions.levels import split_level
from stforecast.conventions.variables import canonical_name
from stforecast.testing.weather import relabel

NAME = "2m_temperature"
HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


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
