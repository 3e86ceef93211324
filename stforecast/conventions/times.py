"""Times: gaps and steps, calendars, valid times, blocks of a time axis."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import InputError


def is_cftime(values: np.ndarray) -> bool:
    """Whether an array holds cftime dates."""
    return values.dtype == object and values.size > 0 and hasattr(values.flat[0], "calendar")


def time_differences(time: Any) -> np.ndarray:
    """Differences between neighbouring times as ``timedelta64[ns]``, cftime included."""
    values = np.asarray(time)
    if values.dtype == object:  # cftime: subtraction gives datetime.timedelta
        return np.array([np.timedelta64(d) for d in np.diff(values)], dtype="timedelta64[ns]")
    return np.diff(values.astype("datetime64[ns]"))


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
        Of the kind of `time`.
    """
    time, lead = np.asarray(time), np.asarray(lead).astype("timedelta64[ns]")
    if time.dtype == object:
        return time[:, None] + np.array([pd.Timedelta(v).to_pytimedelta() for v in lead])[None]
    return time.astype("datetime64[ns]")[:, None] + lead[None]


def canonical_times(name: Hashable, values: np.ndarray) -> np.ndarray:
    """Times as ``datetime64[ns]``, or cftime where the calendar or the range demands it."""
    if is_cftime(values):
        flat = values.ravel()
        standard = flat[0].calendar in ("standard", "gregorian", "proleptic_gregorian")
        if not standard or not all(1678 <= t.year <= 2261 for t in flat):
            return values
        days = np.array([t.isoformat() for t in flat], dtype="datetime64[ns]")
        return days.reshape(values.shape)
    if values.dtype.kind != "M":
        raise InputError(
            f"time coordinate '{name}' holds {values.dtype} values, expected dates "
            "(datetime64 or cftime): decode it with xr.decode_cf(ds), or assign dates to it"
        )
    out = values.astype("datetime64[ns]")
    if ((out.astype(values.dtype) != values) & ~np.isnat(values)).any():
        raise InputError(
            f"time coordinate '{name}' leaves the years 1678 to 2261 of datetime64[ns]"
        )
    return out


def times_like(values: np.ndarray, like: np.ndarray, *, dtype: bool = True) -> np.ndarray:
    """Canonical times in the calendar of the caller's times, and if wanted in their dtype."""
    if values.dtype == object:
        return values
    if is_cftime(like):
        import cftime

        since = values.astype("datetime64[us]").astype(np.int64)
        calendar = like.flat[0].calendar
        return cftime.num2date(since, "microseconds since 1970-01-01", calendar=calendar)
    return values.astype(like.dtype) if dtype else values


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
