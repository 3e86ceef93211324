"""Places in the week and in the year, by which climatologies are looked up."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from ..errors import InputError

DAY = 86_400 * 10**9  # ns
_WEEK = 7 * DAY
_MONDAY = np.datetime64("1970-01-05", "ns")
Cycle = Literal["week", "year", "harmonics"]


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


def fractions(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parts of the year and of the day (UTC) that have gone, in [0, 1), of (N,) times.

    In their own calendar, whose years end with 1 whatever their length.
    """
    year, day, clock = calendar_parts(time)
    gone = clock / DAY
    return (day - 1 + gone) / year_lengths(time, year), gone


def year_lengths(time: np.ndarray, year: np.ndarray) -> np.ndarray:
    """Days in the year of each of (N,) times, in the calendar of `time`."""
    if time.dtype != object:
        return np.where(pd.DatetimeIndex(time).is_leap_year, 366, 365)
    years, first, which = np.unique(year, return_index=True, return_inverse=True)
    last = {i: 30 if time[i].calendar == "360_day" else 31 for i in first}
    lengths = [int(time[i].replace(month=12, day=last[i]).dayofyr) for i in first]
    return np.array(lengths)[which] if len(years) else np.empty(0, int)


def harmonics(time: np.ndarray, annual: int, diurnal: int) -> np.ndarray:
    """Products of annual and diurnal harmonics, the terms of a smooth climatology.

    Parameters
    ----------
    time : array of shape (N,)
        Dates, ``datetime64`` or cftime.
    annual, diurnal : int
        Orders, from 0: of the year, and of the day (UTC).

    Returns
    -------
    numpy.ndarray of float64, shape (N, (2 annual + 1) (2 diurnal + 1))
        1, cos, sin, cos 2, sin 2, ... of the day within those of the year; the first is 1.
    """

    def terms(part: np.ndarray, order: int) -> np.ndarray:
        angle = 2 * np.pi * part[:, None] * np.arange(1, order + 1)
        waves = np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(len(part), -1)
        return np.concatenate([np.ones((len(part), 1)), waves], axis=1)

    year, day = fractions(time)
    product = terms(year, annual)[:, :, None] * terms(day, diurnal)[:, None]
    return product.reshape(len(time), -1)


def terms(cycle: Cycle, slots: np.ndarray, time: np.ndarray) -> np.ndarray:
    """What a climatology is made of at some times.

    Parameters
    ----------
    cycle : {"week", "year", "harmonics"}
    slots : array of int, shape (K,)
        Nanoseconds since the beginning of the cycle at which it has a field, ascending; of
        harmonics, the orders of the year and of the day.
    time : array of any shape

    Returns
    -------
    numpy.ndarray
        The number of the field at each time (of the shape of `time`); of harmonics, the weights of
        all fields (float32, with one more dimension).

    Raises
    ------
    InputError
        If there is no field at a time.
    """
    if cycle == "harmonics":
        flat = harmonics(time.ravel(), int(slots[0]), int(slots[1]))
        return flat.astype(np.float32).reshape(*time.shape, -1)
    wanted = phase(time, cycle)
    index = np.searchsorted(slots, wanted).clip(max=len(slots) - 1)
    if np.any(lost := slots[index] != wanted):
        raise InputError(
            f"the climatology that the forecast is a difference from has nothing at the time of "
            f"the {cycle} of {time[lost].flat[0]}"
        )
    return index
