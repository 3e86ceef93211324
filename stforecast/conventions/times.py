"""Times: gaps and steps, calendars, valid times, blocks of a time axis."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import InputError

logger = logging.getLogger(__name__)

_SINCE = "microseconds since 1970-01-01"

_LATEST = np.iinfo(np.int64).max  # of datetime64[ns]: 2262-04-11

#: What times may be off by rounding, at most: a part of their step, and seconds.
_ROUNDING, _MOST_ROUNDING = 1e-3, 0.5


def is_cftime(values: np.ndarray) -> bool:
    """Whether an array holds cftime dates."""
    return values.dtype == object and values.size > 0 and hasattr(values.flat[0], "calendar")


def is_dates(values: np.ndarray) -> bool:
    """Whether an array of objects holds dates: of cftime, or of Python and pandas with a zone."""
    return is_cftime(values) or (values.size > 0 and isinstance(values.flat[0], datetime))


def time_differences(time: Any) -> np.ndarray:
    """Differences between neighbouring times as ``timedelta64[ns]``, cftime included."""
    values = np.asarray(time)
    if values.dtype == object:  # cftime: subtraction gives datetime.timedelta
        return np.array([np.timedelta64(d) for d in np.diff(values)], dtype="timedelta64[ns]")
    return np.diff(values).astype("timedelta64[ns]")


def time_step(time: Any) -> np.timedelta64:
    """Return the most common difference between neighbouring times, ``timedelta64[ns]``.

    Raises
    ------
    InputError
        If there are fewer than two times.
    """
    if len(time) < 2:
        raise InputError(f"the time step needs at least 2 times, found {len(time)}")
    steps, counts = np.unique(time_differences(time), return_counts=True)
    return steps[counts.argmax()]


def time_gaps(time: Any, step: np.timedelta64) -> list[tuple[Any, Any, int]]:
    """Find where times are missing.

    Parameters
    ----------
    time : array-like of shape (N,)
        Sorted, unique times: ``datetime64`` or cftime.
    step : numpy.timedelta64
        The expected difference between neighbours.

    Returns
    -------
    list of (last before, first after, number of missing steps)
    """
    values, differences = np.asarray(time), time_differences(time)
    return [
        (values[i], values[i + 1], int(np.ceil(differences[i] / step)) - 1)
        for i in np.flatnonzero(differences > step)
    ]


def valid_times(time: Any, lead: Any) -> np.ndarray:
    """Return ``time + lead``.

    Parameters
    ----------
    time : array-like of shape (N,)
        ``datetime64``, or cftime.
    lead : array-like of shape (L,)
        ``timedelta64``.

    Returns
    -------
    numpy.ndarray of shape (N, L)
        Of the kind of `time`; cftime where ``datetime64[ns]`` ends too early for one of them.
    """
    return shifted(np.asarray(time)[:, None], np.asarray(lead)[None])


def shifted(time: np.ndarray, lead: np.ndarray) -> np.ndarray:
    """Add lead times to times, which broadcast; in cftime where ``datetime64[ns]`` ends."""
    lead = lead.astype("timedelta64[ns]")
    if time.dtype != object and time.size and lead.size:
        time = time.astype("datetime64[ns]")
        ends = [(int(v.min()), int(v.max())) for v in (time.view("i8"), lead.view("i8"))]
        first, last = map(sum, zip(*ends, strict=True))
        if not -_LATEST <= first <= last <= _LATEST:
            time = _as_cftime(time)
    if time.dtype != object:
        return time.astype("datetime64[ns]") + lead
    steps = [pd.Timedelta(v).to_pytimedelta() for v in lead.flat]
    return time + np.array(steps, dtype=object).reshape(lead.shape)


def canonical_times(name: Hashable, values: np.ndarray) -> np.ndarray:
    """Times as ``datetime64[ns]`` in UTC, or cftime where the calendar or the range demands it.

    Times that miss whole hours, minutes, seconds or milliseconds by rounding are put right.
    """
    if values.dtype == object and is_dates(values):
        values = _plain_dates(name, values)
    if is_cftime(values):
        flat = values.ravel()
        standard = flat[0].calendar in ("standard", "gregorian", "proleptic_gregorian")
        if not standard or not all(1678 <= t.year <= 2261 for t in flat):
            return without_rounding(name, values)
        days = np.array([t.isoformat() for t in flat], dtype="datetime64[ns]")
        return without_rounding(name, days.reshape(values.shape))
    if values.dtype.kind != "M":
        text = values.dtype.kind in "USO"
        hint = f"pd.to_datetime(ds['{name}'])" if text else "dates"
        raise InputError(
            f"time coordinate '{name}' holds {values.dtype} values, expected dates (datetime64 or "
            f"cftime): {'' if text else 'decode it with xr.decode_cf(ds), or '}assign them with "
            f"ds.assign_coords({name}={hint})"
        )
    out = values.astype("datetime64[ns]")
    if not np.isnat(values).any() and (out.astype(values.dtype) != values).any():
        out = _as_cftime(values)
    return without_rounding(name, out)


def _plain_dates(name: Hashable, values: np.ndarray) -> np.ndarray:
    """Objects that are dates: those with a time zone as UTC; of one calendar."""
    flat = values.ravel()
    calendars = {getattr(t, "calendar", f"of {type(t).__name__}") for t in flat}
    if is_cftime(values):
        if len(calendars) > 1:
            raise InputError(
                f"time coordinate '{name}' holds dates of several calendars "
                f"({', '.join(sorted(calendars))}), expected one: ds.convert_calendar brings parts "
                "to one calendar before they are joined"
            )
        return values
    aware = [getattr(t, "tzinfo", None) is not None for t in flat]
    if any(aware) and not all(aware):
        raise InputError(
            f"time coordinate '{name}' has a time zone at {sum(aware)} of {len(aware)} places, "
            "expected all or none: pd.to_datetime(times, utc=True).tz_localize(None) gives UTC"
        )
    try:
        index = pd.DatetimeIndex(pd.to_datetime(list(flat), utc=True)).tz_localize(None)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"time coordinate '{name}' holds what is no date ({error}), expected datetime64 or "
            "cftime"
        ) from error
    if all(aware):
        logger.info("times '%s' have the zone %s: taken as UTC", name, flat[0].tzinfo)
    return index.to_numpy().reshape(values.shape)


def _as_cftime(values: np.ndarray) -> np.ndarray:
    """Write ``datetime64`` as cftime, in the calendar that numpy has."""
    import cftime

    since = values.astype("datetime64[us]").astype(np.int64)
    return cftime.num2date(since, _SINCE, calendar="proleptic_gregorian")


def without_rounding(name: Hashable, values: np.ndarray) -> np.ndarray:
    """Put times, or lead times, that a file rounded on whole hours, minutes, seconds or ms.

    Files that count days in floating point give 00:59:59.999997 for one o'clock. What is off by
    more than a thousandth of the step, or half a second, is no rounding and stays.
    """
    if values.dtype == object:
        import cftime

        calendar = values.flat[0].calendar
        try:
            ticks = np.asarray(cftime.date2num(values, _SINCE, calendar=calendar)).astype(np.int64)
        except OverflowError:  # so far from now that microseconds do not count
            return values
        second = 10**6
    elif np.isnat(values).any():
        return values
    else:
        ticks, second = values.astype(np.int64), 10**9
    spacing = np.diff(np.unique(ticks))
    step = float(np.median(spacing)) if len(spacing) else 10.0 * second
    most = min(_ROUNDING * step, _MOST_ROUNDING * second)
    for unit in (3600 * second, 60 * second, second, second // 1000):
        whole = (ticks + unit // 2) // unit * unit
        off = np.abs(whole - ticks).max(initial=0)
        if off <= min(most, unit / 100):
            break
    else:
        return values
    if not off:
        return values
    logger.info("times '%s' are rounded, by up to %g s: put right", name, off / second)
    if values.dtype == object:
        return np.asarray(cftime.num2date(whole, _SINCE, calendar=calendar))
    return whole.astype(values.dtype)


def as_labels(index: pd.Index, wanted: Any) -> Any:
    """Times as an axis has them, where they differ from it in rounding, zone or class only.

    Parameters
    ----------
    index : pandas.Index
        Canonical times.
    wanted : time, sequence of times, or slice
        A caller's. What is no date (a text, None) stays as it is.
    """
    if isinstance(wanted, slice):
        return slice(as_labels(index, wanted.start), as_labels(index, wanted.stop), wanted.step)
    values = np.asarray(wanted)
    if values.dtype.kind != "M" and not (values.dtype == object and is_dates(values)):
        return wanted
    steps = time_differences(index).astype(np.int64)
    step = float(steps.min()) / 1e9 if len(steps) else 10.0
    allowed = pd.Timedelta(seconds=min(_ROUNDING * step, _MOST_ROUNDING))
    try:
        times = canonical_times("init_time", np.atleast_1d(values))
        at = index.get_indexer(pd.Index(times), method="nearest", tolerance=allowed)
    except (InputError, TypeError, ValueError):
        return wanted
    labels = np.where(at >= 0, index.values[at], times)
    return labels[0] if values.ndim == 0 else labels


def times_like(values: np.ndarray, like: np.ndarray, *, dtype: bool = True) -> np.ndarray:
    """Canonical times in the calendar of the caller's times, and if wanted in their dtype."""
    import cftime

    if values.dtype == object:
        if like.dtype.kind != "M" or like.dtype == np.dtype("datetime64[ns]"):
            return values
        since = cftime.date2num(values, _SINCE, calendar="proleptic_gregorian")
        values = np.asarray(since).astype(np.int64).astype("datetime64[us]")
    elif is_cftime(like):
        since = values.astype("datetime64[us]").astype(np.int64)
        return cftime.num2date(since, _SINCE, calendar=like.flat[0].calendar)
    return values.astype(like.dtype) if dtype and like.dtype.kind == "M" else values


def time_blocks(ds: xr.Dataset | xr.DataArray, max_bytes: int = 2**26) -> Iterator[slice]:
    """Cut the `time` dimension in blocks of about `max_bytes`, made of whole dask chunks.

    Chunks are never split, since each part would read the whole chunk again: a chunk larger than
    `max_bytes` is a block by itself.
    """
    n = ds.sizes["time"]
    per_step = max(1, ds.nbytes // max(1, n))
    steps = max(1, max_bytes // per_step)
    if isinstance(ds, xr.Dataset):
        ds = ds.unify_chunks()
    chunks = ds.chunksizes.get("time")
    if chunks is None:
        yield from (slice(a, min(a + steps, n)) for a in range(0, n, steps))
        return
    start = stop = 0
    for size in chunks:
        if stop > start and stop + size - start > steps:
            yield slice(start, stop)
            start = stop
        stop += size
    yield slice(start, stop)


def iso_time(time: Any) -> str:
    """Write a time, ``datetime64`` or cftime, as ISO 8601 does."""
    return pd.Timestamp(time).isoformat() if isinstance(time, np.datetime64) else time.isoformat()
