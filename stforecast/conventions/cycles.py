"""Places in the week and in the year, by which climatologies are looked up."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from ..errors import InputError

DAY = 86_400 * 10**9  # ns
_WEEK = 7 * DAY
_MONDAY = np.datetime64("1970-01-05", "ns")
Cycle = Literal["week", "year"]


def phase(time: np.ndarray, cycle: Cycle) -> np.ndarray:
    """Nanoseconds since Monday 00:00, or since 1 January 00:00, of times of any shape.

    Raises
    ------
    InputError
        If the cycle is the week, and times are no dates of the ordinary calendar.
    """
    if cycle == "year":
        _, day, clock = calendar_parts(time.ravel())
        return ((day.astype(np.int64) - 1) * DAY + clock).reshape(time.shape)
    if time.dtype.kind != "M":
        raise InputError("a weekly climatology needs dates of the ordinary calendar (datetime64)")
    return (time.astype("datetime64[ns]") - _MONDAY).astype(np.int64) % _WEEK


def calendar_parts(time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Year, day of year (from 1) and nanoseconds since midnight of (N,) times."""
    if time.dtype == object:
        parts = [
            (t.year, t.dayofyr, (t.hour * 60 + t.minute) * 60 + t.second, t.microsecond)
            for t in time
        ]
        year, day, second, micro = np.array(parts, dtype=np.int64).reshape(-1, 4).T
        return year, day, second * 10**9 + micro * 1000
    index = pd.DatetimeIndex(time)
    clock = (time - time.astype("datetime64[D]")).astype("timedelta64[ns]").astype(np.int64)
    return index.year.to_numpy(), index.day_of_year.to_numpy(), clock
