"""The years of the training period as members of an ensemble."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stforecast import Task, predict
from stforecast.baselines import climatology_years
from stforecast.errors import InputError

TASK = Task("flow", input_steps=1, target_steps=3, timestep="12h")


def dated(first, last, **options):
    """Values that say their own date: years since 2000, month / 100, day / 10,000; 0.5 at noon."""
    time = xr.date_range(first, last, freq="12h", **options)
    parts = xr.DataArray(time, dims="time").dt
    date = parts.year - 2000 + parts.month / 100 + parts.day / 10_000 + parts.hour / 24
    values = np.broadcast_to(date.values[:, None, None], (len(time), 2, 3)).astype(np.float32)
    space = {"latitude": [-10.0, 10.0], "longitude": [0.0, 120.0, 240.0]}
    dims = ("time", "latitude", "longitude")
    return xr.Dataset({"flow": (dims, values)}, {"time": time, **space})


def expected(year, month, day, hour=0):
    return year - 2000 + month / 100 + day / 10_000 + hour / 24


@pytest.mark.parametrize("chunk", [None, 100])
def test_each_member_is_a_year_at_the_same_date(chunk):
    train = dated("2003-07-01", "2006-12-31T12")  # 2003 is half a year; 2004 has a leap day
    train = train.chunk(time=chunk) if chunk else train
    history = dated("2008-02-01", "2008-12-31T12")
    history = history.chunk(time=chunk) if chunk else history
    inits = np.array(["2008-02-28T12", "2008-12-30T12", "2008-06-01T00"], "datetime64[ns]")
    members = climatology_years(train, TASK)
    fc = predict(history, members, init_time=inits)
    assert fc["realization"].values.tolist() == [2004, 2005, 2006]
    assert bool(fc.chunks) == bool(chunk)
    assert fc.attrs["training_period"].startswith("2003-07-01")
    for year in (2004, 2005, 2006):
        found = fc["flow"].sel(realization=year).isel(latitude=0, longitude=1).values
        leap = (2, 29) if year == 2004 else (2, 28)  # 29 February 2008
        wanted = [
            [expected(year, *leap), expected(year, *leap, 12), expected(year, 3, 1)],
            [expected(year, 12, 31), expected(year, 12, 31, 12), expected(year, 1, 1)],
            [expected(year, 6, 1, 12), expected(year, 6, 2), expected(year, 6, 2, 12)],
        ]
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_other_calendars_have_their_own_days():
    train = dated("2001-01-01", "2002-12-30T12", calendar="360_day", use_cftime=True)
    history = dated("2008-02-01", "2008-03-30", calendar="360_day", use_cftime=True)
    fc = predict(history, climatology_years(train, TASK), init_time=history["time"].values[56])
    found = fc["flow"].isel(time=0, latitude=0, longitude=0, prediction_timedelta=2).values
    wanted = [expected(year, 2, 30, 12) for year in (2001, 2002)]  # from 29 February 00 h
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_what_is_no_ensemble_of_years():
    with pytest.raises(InputError, match=r"at least two whole years .* found 1 .*2002 \(59 of 730"):
        climatology_years(dated("2001-01-01", "2002-01-30"), TASK)
    train = dated("2001-01-01", "2002-12-31T12")
    history = dated("2008-02-01T06", "2008-02-08T06")
    with pytest.raises(
        InputError, match="the year 2001 has nothing at the date and time of day of"
    ):
        predict(history, climatology_years(train, TASK))
    train["flow"][68] = np.nan  # 4 February
    with pytest.raises(InputError, match="'flow' is NaN or infinite at 2001-02-04"):
        predict(dated("2008-02-01", "2008-02-03"), climatology_years(train, TASK))
