"""Periods that are chosen from a Dataset."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from years_of_weather import T2M

from stforecast.datasets.periods import select_period, split
from stforecast.datasets.weather import open_weatherbench
from stforecast.errors import InputError

# --- periods --------------------------------------------------------------------------------------


def days(start: str, end: str, calendar: str = "standard") -> xr.Dataset:
    time = xr.date_range(start, end, freq="D", calendar=calendar, use_cftime=calendar != "standard")
    return xr.Dataset({"n": ("time", np.arange(len(time)))}, {"time": time})


@pytest.mark.parametrize(
    ("period", "first", "last", "count"),
    [
        ("2013", "2013-01-01", "2013-12-31", 365),
        (2014, "2014-01-01", "2014-12-31", 365),
        ("2013:2014", "2013-01-01", "2014-12-31", 730),
        (" 2013 : 2014 ", "2013-01-01", "2014-12-31", 730),
        ("2013-12", "2013-12-01", "2013-12-31", 31),
        ("2014-02", "2014-02-01", "2014-02-28", 28),
        ("2013-12/2014-01", "2013-12-01", "2014-01-31", 62),
        ("2013-01-05/2013-01-06T23", "2013-01-05", "2013-01-06", 2),
        ("2013-01-05T01/2013-01-07T00:00", "2013-01-06", "2013-01-07", 2),
        ("2014-06-01/2014-06-02;2013-06-01/2013-06-02;", "2013-06-01", "2014-06-02", 4),
        ("2013-06-01/2013-06-09;2013-06-05/2013-06-10", "2013-06-01", "2013-06-10", 10),
    ],
)
@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_periods(period, first, last, count, calendar, caplog):
    ds = days("2013-01-01", "2014-12-31", calendar)
    with caplog.at_level(logging.WARNING):
        part = select_period(ds, period)
    assert part.sizes["time"] == count
    assert str(part["time"].values[0])[:10] == first
    assert str(part["time"].values[-1])[:10] == last
    assert (np.diff(part["n"]) > 0).all()
    assert not caplog.records


def test_period_of_a_360_day_calendar():
    ds = days("2013-01-01", "2014-12-30", "360_day")
    assert select_period(ds, "2013").sizes["time"] == 360
    assert select_period(ds, "2013-02-30/2013-03-01").sizes["time"] == 2
    with pytest.raises(InputError, match="2013-01-31"):
        select_period(ds, "2013-01-31")


def test_lacking_years_are_logged(caplog):
    ds = days("2013-01-01", "2017-06-30").drop_sel(time=["2014-05-01", "2014-05-02"])
    with caplog.at_level(logging.WARNING):
        part = select_period(ds, "1979:2018")
    assert part.sizes == ds.sizes
    (record,) = caplog.records
    assert record.getMessage() == (
        "period 1979:2018: the data have nothing for 1979-2012, 2018; only part of "
        "2014 (363 of 365 steps), 2017 (181 of 365 steps)"
    )


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
@pytest.mark.parametrize("period", ["1990", "2013;2016", "2013-01-01T01/2013-01-01T05"])
def test_period_without_data(period, calendar):
    ds = days("2013-01-01", "2014-12-31", calendar)
    empty = period.rpartition(";")[2]
    with pytest.raises(
        InputError, match=f"period '{empty}' has no data: .* 2013-01-01T00:00 to 2014-12-31T00:00"
    ):
        select_period(ds, period)


@pytest.mark.parametrize(
    "period",
    ["", ";", "last year", "2013-13", "2013-02-30", "2013/2014/2015", "13:14", "2013-1-1x"],
)
def test_periods_that_cannot_be_read(period):
    with pytest.raises(InputError, match="expected '2013:2016'"):
        select_period(days("2013-01-01", "2013-03-01"), period)


def test_periods_that_make_no_sense():
    with pytest.raises(InputError, match="ends before it starts"):
        select_period(days("2013-01-01", "2013-03-01"), "2014:2013")
    with pytest.raises(InputError, match="expected a time coordinate"):
        select_period(xr.Dataset(), "2013")
    with pytest.raises(InputError, match="expected times in order"):
        select_period(days("2013-01-01", "2013-03-01").isel(time=slice(None, None, -1)), "2013")


def test_selected_period_stays_lazy(years):
    ds = select_period(open_weatherbench(years[0]), "2014-01-02T00/2014-01-04T05;2014-01-06")
    assert ds[T2M].chunks is not None
    assert ds.sizes["time"] == 54 + 24


# --- genuine data ---------------------------------------------------------------------------------


def test_split_refuses_periods_that_overlap():
    ds = xr.Dataset(coords={"time": pd.date_range("2013-01-01", "2015-12-31", freq="D")})
    parts = split(ds, train="2013:2014", validation="2015-01/2015-06", test="2015-07/2015-12")
    assert [p.sizes["time"] for p in parts.values()] == [730, 181, 184]
    with pytest.raises(
        InputError, match=r"validation \(2014\) .* 365 times in common, from 2014-01-01"
    ):
        split(ds, train="2013:2014", validation="2014", test="2015")
