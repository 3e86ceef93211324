"""Periods of time as people write them: ``2013:2016``, ``2018``, ``2013-01/2013-06-15``."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import TIME, find_axes
from ..conventions.times import canonical_times, time_step
from ..errors import InputError
from ..task import Task, initialisations

logger = logging.getLogger(__name__)

_DATE = re.compile(
    r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2})(?:[T ](\d{1,2})(?::(\d{1,2})(?::(\d{1,2}))?)?)?)?)?Z?"
)
_FORMS = "'2013:2016', '2018', '2013-01-01/2013-06-30T23', or several of these joined by ';'"


def select_period(ds: xr.Dataset, period: str | int) -> xr.Dataset:
    """Select the times of one or more periods.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical, or as it was opened: times of any name and calendar, in order.
    period : str or int
        A year, a range of years ``"2013:2016"``, or an interval ``"start/end"`` of dates, times,
        months or years. Ends are inclusive to their own precision: ``2013-06-30`` is all of that
        day, ``2013-06-30T23`` all of that hour. Several, joined by ``;``, give their union.

    Returns
    -------
    xarray.Dataset
        The selected times, in order; lazy if `ds` is.

    Raises
    ------
    InputError
        If a period cannot be read, or the data have nothing in it. Years that are lacking in
        part of a period are named in a logged warning.

    Examples
    --------
    >>> import pandas as pd, xarray as xr
    >>> ds = xr.Dataset(coords={"time": pd.date_range("2013-01-01", "2014-12-31", freq="D")})
    >>> select_period(ds, "2013-01-30/2013-02;2014").sizes["time"]
    395
    """
    dim, times = _times(ds, period)
    if times.dtype != object:
        times = times.astype("datetime64[us]")
    chosen = np.zeros(len(times), dtype=bool)
    for part in (p.strip() for p in str(period).split(";") if p.strip()):
        start, stop = _interval(part, _maker(times))
        first, last = _position(times, start), _position(times, stop)
        if first == last:
            raise InputError(
                f"period '{part}' has no data: they go from {when(times[0])} to {when(times[-1])}, "
                f"years {years_in_ranges(xr.DataArray(times, dims='time').dt.year.values)}"
            )
        _report_lacking(part, times, start, stop)
        chosen[first:last] = True
    index = np.flatnonzero(chosen)
    if not len(index):
        raise InputError(f"period {period!r} is empty: expected {_FORMS}")
    contiguous = index[-1] - index[0] == len(index) - 1
    return ds.isel({dim: slice(int(index[0]), int(index[-1]) + 1) if contiguous else index})


def _times(ds: xr.Dataset, period: str | int) -> tuple[Hashable, np.ndarray]:
    """Dimension of the times, and the times, whatever they are called."""
    found = [(d, c) for d, (role, c) in find_axes(ds).items() if role == TIME and c is not None]
    if len(found) != 1:
        raise InputError(
            f"expected a time coordinate to select {period!r} from, found {list(ds.coords)}"
        )
    dim, coord = found[0]
    if not ds.sizes[dim]:
        raise InputError(f"period {period!r} has no data: the Dataset has no times at all")
    times = canonical_times(coord, ds[coord].to_numpy().ravel())
    if not pd.Index(times).is_monotonic_increasing:
        raise InputError("expected times in order: pass the Dataset through canonicalize() first")
    return dim, times


def split(ds: xr.Dataset, **periods: str | int) -> dict[str, xr.Dataset]:
    """Select periods that have no time in common, such as train, valid and test.

    Parameters
    ----------
    ds : xarray.Dataset
        As :func:`select_period` takes it.
    **periods : str or int
        As :func:`select_period` takes them.

    Returns
    -------
    dict of str to xarray.Dataset
        In the order given.

    Raises
    ------
    InputError
        As :func:`select_period`, or if two of them overlap.

    Examples
    --------
    >>> import pandas as pd, xarray as xr
    >>> ds = xr.Dataset(coords={"time": pd.date_range("2013-01-01", "2014-12-31", freq="D")})
    >>> {name: part.sizes["time"] for name, part in split(ds, train=2013, test=2014).items()}
    {'train': 365, 'test': 365}
    """
    parts = {name: select_period(ds, period) for name, period in periods.items()}
    for a, b in combinations(parts, 2):
        mine, other = (pd.Index(_times(parts[name], periods[name])[1]) for name in (a, b))
        common = mine.intersection(other)
        if len(common):
            raise InputError(
                f"{a} ({periods[a]}) and {b} ({periods[b]}) have {len(common)} times in common, "
                f"from {common[0]} to {common[-1]}: a period that was trained on cannot judge"
            )
    return parts


def when(time: Any) -> str:
    """Write a time, ``datetime64`` or cftime, to the minute."""
    stamp = time if hasattr(time, "calendar") else pd.Timestamp(time)
    return "NaT" if stamp is pd.NaT else stamp.strftime("%Y-%m-%dT%H:%M")


def _maker(times: np.ndarray) -> Callable[..., Any]:
    """Return what makes a date in the calendar of `times`: datetime or cftime."""
    if times.dtype != object:
        return datetime
    parts = ("year", "month", "day", "hour", "minute", "second", "microsecond")
    return lambda *given: times[0].replace(**dict(zip(parts, (*given, 0, 0, 0, 0), strict=False)))


def _interval(part: str, make: Callable[..., Any]) -> tuple[Any, Any]:
    """Read a period: its start, and the first instant past its end."""
    years = re.fullmatch(r"(\d{4})\s*:\s*(\d{4})", part)
    ends = list(years.groups()) if years else [p.strip() for p in part.split("/")]
    try:
        if len(ends) > 2:
            raise ValueError("more than two dates")
        start, stop = _span(ends[0], make)[0], _span(ends[-1], make)[1]
    except ValueError as error:
        raise InputError(f"cannot read the period '{part}' ({error}): expected {_FORMS}") from error
    if stop <= start:
        raise InputError(f"the period '{part}' ends before it starts")
    return start, stop


def _span(date: str, make: Callable[..., Any]) -> tuple[Any, Any]:
    """Return the first instant of a date, given to any precision, and the first one past it."""
    match = _DATE.fullmatch(date)
    if match is None:
        raise ValueError(f"'{date}' is not a date")
    given = [int(g) for g in match.groups() if g is not None]
    start = make(*given, *(1, 1)[len(given) - 1 :])
    if len(given) == 1:
        return start, make(given[0] + 1, 1, 1)
    if len(given) == 2:
        return start, make(given[0] + given[1] // 12, given[1] % 12 + 1, 1)
    unit = ("days", "hours", "minutes", "seconds")[len(given) - 3]
    return start, start + timedelta(**{unit: 1})


def _position(times: np.ndarray, bound: Any) -> int:
    """Index of the first time at or after `bound`."""
    return int(np.searchsorted(times, bound if times.dtype == object else np.datetime64(bound)))


def _report_lacking(part: str, times: np.ndarray, start: Any, stop: Any) -> None:
    """Log the years in [start, stop) for which data are lacking, wholly or partly."""
    step = pd.Timedelta(time_step(times)).to_pytimedelta() if len(times) > 1 else None
    make, absent, partial = _maker(times), [], []
    for year in range(start.year, (stop - timedelta(microseconds=1)).year + 1):
        a, b = max(start, make(year, 1, 1)), min(stop, make(year + 1, 1, 1))
        found = _position(times, b) - _position(times, a)
        expected = int((b - a) / step) if step else found
        if not found:
            absent.append(year)
        elif found < expected:
            partial.append(f"{year} ({found} of {expected} steps)")
    lacking = [f"nothing for {years_in_ranges(absent)}"] * bool(absent)
    if partial:
        shown = ", ".join(partial[:8]) + (" ..." if len(partial) > 8 else "")
        lacking.append(f"only part of {shown}")
    if lacking:
        logger.warning("period %s: the data have %s", part, "; ".join(lacking))


def years_in_ranges(years: Iterable[int]) -> str:
    """Write years as ranges: ``1979-2012, 2017``."""
    ranges: list[list[int]] = []
    for year in sorted(set(years)):
        if ranges and year == ranges[-1][1] + 1:
            ranges[-1][1] = year
        else:
            ranges.append([year, year])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def with_history(part: xr.Dataset, whole: xr.Dataset, task: Task) -> xr.Dataset:
    """Begin a part of a series earlier, by what its first forecasts look back to.

    Parameters
    ----------
    part, whole : xarray.Dataset
        A part, and the series that it is of, both with the coordinate ``time``.
    task : Task
        Its lags say how far back they look.

    Returns
    -------
    xarray.Dataset
        Of `whole`; its initialisations are those that `part` has for the same task without lags.

    Raises
    ------
    InputError
        If some of these have no such history without a gap: at the beginning of a series, say.
    """
    at = whole.indexes["time"].get_indexer(part.indexes["time"])
    begin = max(0, int(at[0]) - (task.history - task.input_steps))
    longer = whole.isel(time=np.concatenate([np.arange(begin, at[0]), at]))
    wanted = initialisations(part, replace(task, lags=()))
    lost = np.setdiff1d(wanted, initialisations(longer, task))
    if len(lost):
        raise InputError(
            f"{len(lost)} of {len(wanted)} initialisations have no history of {task.history} steps "
            f"without a gap, first {lost[0]}: leave lags out of the task, or begin later"
        )
    return longer
