"""Dates that are written as numbers."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr

from stforecast.conventions.number_dates import dates_from_numbers, decode_times
from stforecast.errors import InputError


def read(values, **attrs):
    return dates_from_numbers("t", xr.Variable("t", values, attrs))


@pytest.mark.parametrize(
    ("values", "first", "last"),
    [
        ([199912, 200001], "1999-12-01", "2000-01-01"),
        ([19991231, 20000101], "1999-12-31", "2000-01-01"),
        ([1999123123, 2000010100], "1999-12-31T23", "2000-01-01T00"),
        ([199912312359, 200001010000], "1999-12-31T23:59", "2000-01-01T00"),
        ([19991231235958, 20000101000000], "1999-12-31T23:59:58", "2000-01-01"),
        ([19991231.25, 20000101.5], "1999-12-31T06", "2000-01-01T12"),
        ([18000101, 22001231], "1800-01-01", "2200-12-31"),
    ],
)
def test_digits_of_a_date(values, first, last):
    found = read(values)
    assert found.dtype == "M8[ns]"
    assert found.tolist() == np.array([first, last], "M8[ns]").tolist()


@pytest.mark.parametrize(
    "values",
    [
        *([199912.5, 200001.0], [17991231, 18000101], [22001231, 22010101], [1, 20000101]),
        *([20001301, 20001302], [0, 1], [1999, 2000], [20000101.0, np.nan], [-20000101, 5]),
    ],
)
def test_numbers_that_are_no_dates_stay(values):
    np.testing.assert_array_equal(read(values), values)


def test_numbers_with_other_units_stay():
    assert read([20000101], units="days since 1900-01-01").tolist() == [20000101]
    assert read(np.array(["20000101"])).tolist() == ["20000101"]
    assert read(np.empty(0)).size == 0
    scalar = dates_from_numbers("t", xr.Variable((), 20000101))
    assert scalar.tolist() == read([20000101]).tolist()


def test_months_and_years_by_the_calendar():
    found = read([-1, 11, 12.5], units="months since 2000-01-01", calendar="360")
    dates = [(1999, 12, 1), (2000, 12, 1), (2001, 1, 16)]
    assert found.tolist() == [cftime.Datetime360Day(*d) for d in dates]
    found = read([1, 1.5], units=" Years since 2000-03-01", calendar="NOLEAP")
    assert found.tolist() == [cftime.DatetimeNoLeap(2001, 3, 1), cftime.DatetimeNoLeap(2001, 9, 1)]
    found = read([0], units="month since 2001-02-29", calendar="366")
    assert found.tolist() == [cftime.DatetimeAllLeap(2001, 2, 29)]
    assert np.isnan(read([np.nan, 1.0], units="months since 2000-01-01")).tolist() == [True, False]


def test_calendars_by_their_days():
    attrs = {"units": "days since 2000-02-28", "calendar": "365"}
    ds = xr.Dataset(coords={"time": ("time", [0, 2], attrs)})
    found = decode_times(ds)["time"].values
    assert found.tolist() == [cftime.DatetimeNoLeap(2000, 2, 28), cftime.DatetimeNoLeap(2000, 3, 2)]
    assert ds["time"].attrs == attrs  # the caller's stay as they are
    none = {"units": "months since 2000-01-31"}
    with pytest.raises(InputError, match=r"'time' has units 'months since 2000-01-31'"):
        decode_times(xr.Dataset(coords={"time": ("time", [0, 1], none)}))
    months = {"units": "months since 2000-01-01", "calendar": "360", "long_name": "time"}
    ds = xr.Dataset(coords={"time": (("time", "k"), [[0], [1]], months)})
    found = decode_times(ds)["time"]
    assert (found.dims, found.attrs) == (("time", "k"), {"long_name": "time"})
    assert found.values[1, 0] == cftime.Datetime360Day(2000, 2, 1)
