"""Places in the week and in the year, in every calendar, by hand."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr

from stforecast.conventions.cycles import (
    DAY,
    calendar_parts,
    fractions,
    harmonics,
    phase,
    terms,
    year_lengths,
)
from stforecast.errors import InputError

HOUR = DAY // 24
#: Of the ordinary calendar: a Monday, a leap day, the last day of a leap year, the last Sunday
#: before 1970, with nanoseconds.
DATES = np.array(
    ["2018-01-01T00", "2020-02-29T06", "2020-12-31T12:30", "1969-12-28T23:59:59.999999999"],
    "datetime64[ns]",
)


def test_places_in_the_week_and_in_the_year():
    week, half = 7 * DAY, 30 * 60 * 10**9
    expected = [0, 5 * DAY + 6 * HOUR, 3 * DAY + 12 * HOUR + half, week - 1]
    np.testing.assert_array_equal(phase(DATES, "week"), expected)
    of_year = [0, 59 * DAY + 6 * HOUR, 365 * DAY + 12 * HOUR + half, 362 * DAY - 1]
    np.testing.assert_array_equal(phase(DATES, "year"), of_year)
    square = phase(DATES.reshape(2, 2), "year")
    np.testing.assert_array_equal(square, np.reshape(of_year, (2, 2)))
    with pytest.raises(InputError, match="weekly climatology needs dates of the ordinary"):
        phase(np.array([cftime.DatetimeNoLeap(2001, 1, 1)]), "week")


@pytest.mark.parametrize(
    ("calendar", "day", "length"),
    [
        *(("standard", 61, 366), ("julian", 61, 366), ("noleap", 60, 365)),
        *(("all_leap", 61, 366), ("360_day", 61, 360)),
    ],
)
def test_parts_of_dates_of_other_calendars(calendar, day, length):
    first = cftime.datetime(2004, 3, 1, 18, 20, 30, 250_000, calendar=calendar)
    times = np.array([first, first.replace(year=2005, month=1)])
    clock = ((18 * 60 + 20) * 60 + 30) * 10**9 + 250_000_000
    year, of_year, since = calendar_parts(times)
    assert year.tolist() == [2004, 2005]
    assert of_year.tolist() == [day, 1]
    assert since.tolist() == [clock, clock]
    other = {"standard": 365, "julian": 365}.get(calendar, length)
    assert year_lengths(times, year).tolist() == [length, other]
    part_of_year, part_of_day = fractions(times)
    np.testing.assert_allclose(part_of_day, clock / DAY, rtol=1e-15)
    np.testing.assert_allclose(
        part_of_year, [(day - 1 + clock / DAY) / length, clock / DAY / other], rtol=1e-15
    )
    assert year_lengths(times[:0], year[:0]).tolist() == []


def test_years_of_the_ordinary_calendar_end_with_one():
    times = np.array(["1900-12-31T12", "2000-12-31T12", "2001-01-01"], "datetime64[ns]")
    assert year_lengths(times, np.array([1900, 2000, 2001])).tolist() == [365, 366, 365]
    np.testing.assert_allclose(fractions(times)[0], [1 - 0.5 / 365, 1 - 0.5 / 366, 0], rtol=1e-15)


def test_harmonics_are_products_of_those_of_the_year_and_of_the_day():
    times = xr.date_range("2001-01-01", periods=2, freq="2163h", calendar="360_day").values
    found = harmonics(times, 2, 1)
    assert found.shape == (2, 5 * 3)
    for row, t in zip(found, (0.0, 90.125), strict=True):
        a, d = 2 * np.pi * t / 360, 2 * np.pi * (t % 1)
        of_year = [1, np.cos(a), np.sin(a), np.cos(2 * a), np.sin(2 * a)]
        np.testing.assert_allclose(row, np.outer(of_year, [1, np.cos(d), np.sin(d)]).ravel())
    assert harmonics(times, 0, 0).tolist() == [[1], [1]]
    weights = terms("harmonics", np.array([2, 1]), times.reshape(2, 1))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, found[:, None], atol=1e-7)


def test_a_climatology_is_looked_up_at_its_slots_only():
    slots = np.arange(0, 7 * DAY, 12 * HOUR)
    times = np.array(["2018-01-01T12", "2018-01-07T12", "2018-01-08"], "datetime64[ns]")
    assert terms("week", slots, times).tolist() == [1, 13, 0]
    for late in ("2018-01-02T06", "2018-01-07T18"):  # between two slots, and beyond the last
        with pytest.raises(InputError, match=f"nothing at the time of the week of {late}"):
            terms("week", slots, np.append(times, np.datetime64(late, "ns")))
