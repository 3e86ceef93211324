"""What the dimensions of others are called, and the units of their lead times."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.conventions.axes import find_axes, says_init, scalar, unit_of_lead
from stforecast.conventions.forms import with_members

#: Names in WeatherBench, CF, ECMWF, CMIP, NEMO, WRF, GRIB tables and plain arrays.
CALLED = {
    "time": "time valid_time date datetime init_time init initialization_time initialisation_time "
    "initial_time reference_time reftime forecast_reference_time forecast_init_time",
    "prediction_timedelta": "prediction_timedelta lead_time leadtime lead step forecast_period "
    "forecast_hour fhour forecast_step forecast_lead lead_hour lead_hours lead_day lead_days",
    "latitude": "latitude lat nav_lat xlat LAT",
    "longitude": "longitude lon long nav_lon xlong Lon",
    "y": "y row rows height nj j rlat south_north grid_latitude projection_y_coordinate",
    "x": "x col column columns width ni i rlon west_east grid_longitude projection_x_coordinate",
}


@pytest.mark.parametrize("role", CALLED)
def test_dimensions_by_name(role):
    for name in CALLED[role].split():
        ds = xr.Dataset(coords={name: (name, [0.0, 1.0])})
        assert find_axes(ds) == {name: (role, name)}, name
        assert find_axes(xr.Dataset({"v": (name, [0, 1])})) == {name: (role, None)}, name


@pytest.mark.parametrize(
    ("attrs", "role"),
    [
        *(({"units": f"{d}{_}{n}"}, "latitude") for d in ("degree", "degrees") for _ in ("_", "")
          for n in ("north", "n", "N")),
        *(({"units": f"{d}{_}{e}"}, "longitude") for d in ("degree", "degrees") for _ in ("_", "")
          for e in ("east", "e", "E")),
        ({"axis": "Y", "units": "degrees"}, "latitude"),
        ({"axis": "X", "units": "degrees"}, "longitude"),
        ({"axis": "T"}, "time"),
        ({"standard_name": "projection_y_coordinate"}, "y"),
        ({"standard_name": "forecast_period"}, "prediction_timedelta"),
    ],
)  # fmt: skip
def test_dimensions_by_their_attributes(attrs, role):
    assert find_axes(xr.Dataset(coords={"k": ("k", [0.0, 1.0], attrs)})) == {"k": (role, "k")}


def test_what_says_nothing_is_no_axis():
    for attrs in ({}, {"axis": "Z"}, {"axis": "X"}, {"axis": "Y", "units": "m"}):
        assert find_axes(xr.Dataset(coords={"k": ("k", [0.0, 1.0], attrs)})) == {}, attrs
    assert find_axes(xr.Dataset({"v": ("step", [0])})) == {}  # one lead time that is not told


def test_initialisations_by_name():
    names = CALLED["time"].split()
    assert [n for n in names if says_init(n, {})] == names[4:]
    assert says_init("Init", {})
    assert says_init("x", {"standard_name": "forecast_reference_time"})


def test_scalar_times_by_name_or_standard_name():
    date, length = np.datetime64("2001-01-01", "ns"), np.timedelta64(6, "h").astype("m8[ns]")
    for name, value, attrs, role in (
        ("init_time", date, {}, "time"),
        ("a", date, {"standard_name": "forecast_reference_time"}, "time"),
        ("Step", length, {}, "prediction_timedelta"),
        ("a", length, {"standard_name": "forecast_period"}, "prediction_timedelta"),
    ):
        ds = xr.Dataset(coords={name: ((), value, attrs), "other": ((), value)})
        assert scalar(ds, role) == name
        assert scalar(ds, "time" if role != "time" else "prediction_timedelta") is None
        assert scalar(ds.expand_dims(name), role) is None
    both = xr.Dataset(coords={"time": date, "init_time": date, "valid_time": date})
    assert scalar(both, "time") == "init_time"
    assert scalar(both.drop_vars("init_time"), "time") == "time"


def test_members_by_name():
    names = "realisation number member members ensemble ensemble_member ens mem Number"
    for name in names.split():
        assert with_members(xr.Dataset({"v": (name, [1, 2])})).sizes == {"realization": 2}, name
        assert with_members(xr.Dataset({"v": (name, [1])})).sizes == {name: 1}
    both = xr.Dataset(coords={"number": [1, 2], "realization": 3})  # of another kind
    assert with_members(both)["realization"].values.tolist() == [1, 2]
    named = xr.Dataset(coords={"k": ("k", [1, 2], {"standard_name": "realization"})})
    assert with_members(named)["realization"].values.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "units", "seconds"),
    [
        *(("lead", units, 3600) for units in ("h", "hr", "hrs", "hour", "hours", " Hours ")),
        *(("lead", units, 60) for units in ("min", "mins", "minute", "minutes")),
        *(("lead", units, 1) for units in ("s", "sec", "secs", "second", "seconds")),
        *(("lead", units, 86_400) for units in ("D", "d", "day", "days")),
        *(("lead", units, 604_800) for units in ("week", "weeks")),
        ("forecast_hour", "", 3600),
        ("Lead_Days", "", 86_400),
        ("forecast_hour", "days", 86_400),
        *(("lead", units, None) for units in ("M", "months", "1", "")),
    ],
)
def test_units_of_lead_times(name, units, seconds):
    unit = unit_of_lead(name, xr.Variable("k", [1], {"units": units}))
    assert unit == (None if seconds is None else pd.Timedelta(seconds=seconds))
    assert seconds is None or unit.unit == "ns"  # of seconds, the longest leads would overflow
