"""Pressure levels by the names and units of their coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stforecast.conventions.levels import levels_of


def found(name, values, **attrs):
    ds = xr.Dataset({"t": (name, np.zeros(len(values)))}, {name: (name, values, attrs)})
    levels = levels_of(ds, "t")
    return None if levels is None else levels.values.tolist()


@pytest.mark.parametrize(
    ("per", "units"),
    [
        (1, "hPa hectopascal hectopascals millibar millibars mbar mb"),
        (100, "Pa pascal pascals"),
        (0.1, "kPa"),
    ],
)
def test_units_of_levels(per, units):
    for unit in units.split():
        assert found("any", [850 * per, 5.5 * per], units=unit) == [850, 5.5], unit


def test_names_of_levels():
    names = "level levels lev plev plevel pressure_level pressure air_pressure isobaricInhPa "
    for name in (names + "isobaricInPa isobaric isobaric1").split():
        pascals = name in ("plev", "isobaricInPa")
        assert found(name, [1000.0, 10.0]) == ([10, 0.1] if pascals else [1000, 10]), name
        assert found(name, [100_000.0, 50_000.0]) == [1000, 500], name
        assert found(name, [1.0, 2.0], units="m") is None, name
        assert found(name, [1000.0], units="1") == ([10] if pascals else [1000]), name
    assert found("level", [1100.0, 500.0]) == [1100, 500]
    assert found("any", [1000.0, 500.0]) is None
    assert found("any", [1000.0], long_name="Air_Pressure") == [1000]


def test_levels_that_are_of_something_else():
    for kind in ("model", "hybrid", "sigma", "soil", "depth"):
        assert found("level", [1.0, 2.0], long_name=f"{kind.title()} level") is None, kind
        assert found("level", [1.0, 2.0], long_name=kind, units="hPa") == [1, 2]
    for values in ([0.0, 500.0], [-1.0, 500.0], [np.nan, 500.0], ["a", "b"]):
        assert found("level", values, units="hPa") is None


def test_a_level_is_found_but_for_rounding():
    ds = xr.Dataset({"t": ("level", np.zeros(2))}, {"level": [500.0, 0.5]})
    levels = levels_of(ds, "t")
    assert [levels.find(v) for v in (500, 500.04, 500.06, 0.50004, 0.5001)] == [0, 0, None, 1, None]
    assert (levels.coord, levels.dim, levels.text) == ("level", "level", "500, 0.5")
    scalar = levels_of(ds.isel(level=1), "t")
    assert (scalar.dim, scalar.values.tolist()) == (None, [0.5])
