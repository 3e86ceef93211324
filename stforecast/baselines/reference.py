"""What is usual at a time of the year or of the week: what anomalies are differences from.

A climatology of the training years that is used on these years holds the very values that are to
be forecast. So it is fitted in parts, one a year, week, or half a month, that can be left out: a
window learns from what is usual in all the others.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from ..conventions.cycles import DAY, calendar_parts, fractions, harmonics, phase, terms
from ..conventions.times import time_blocks
from ..errors import InputError
from ..task import Task

#: Harmonics of the year and of the day.
ANNUAL, DIURNAL = 3, 2

_ENOUGH_YEARS = 4  # from which a year is left out; of fewer, half a month
_BLOCK_DAYS = 15
_MOST_GAP = 45 / 365  # of the year without data
_FEWEST_WEEKS = 3


class ReferenceFit:
    """A climatology of some variables, whole, and without the parts that a window lies in.

    Parameters
    ----------
    cycle : {"harmonics", "week"}
    slots : array of int, shape (K,)
        Nanoseconds since Monday at which there is a field; of harmonics, their two orders.
    fields : array of float32, shape (K, C, H, W)
        Of all of the training period: one a slot, or one a harmonic.
    groups : array of int, shape (N,)
        The part of the training period that each of its times belongs to, ascending.
    """

    def __init__(
        self,
        cycle: Literal["harmonics", "week"],
        slots: np.ndarray,
        fields: np.ndarray,
        groups: np.ndarray,
    ) -> None:
        self.cycle, self.slots, self.fields, self.groups = cycle, slots, fields, groups

    def without(self, first: int, last: int) -> np.ndarray:
        """Fields (K, C, H, W) of the training period less the groups from `first` to `last`."""
        raise NotImplementedError

    def terms(self, time: np.ndarray) -> np.ndarray:
        """Weights (N, K) of the fields at (N,) times, or the number (N,) of the one at each.

        Raises
        ------
        InputError
            If the week has nothing at one of the times.
        """
        return terms(self.cycle, self.slots, time)

    def sets(self, starts: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
        """The groups that windows lie in: (S, 2) first and last, and which of them each has (M,).

        Parameters
        ----------
        starts : array of int, shape (M,)
            First steps of windows of `window` steps.
        window : int
        """
        ends = np.stack([self.groups[starts], self.groups[starts + window - 1]], axis=1)
        pairs, which = np.unique(ends, axis=0, return_inverse=True)
        return pairs, which.reshape(-1)


def fit_reference(
    ds: xr.Dataset, task: Task, *, holidays: np.ndarray | None = None
) -> ReferenceFit:
    """Fit what the anomalies of a task are differences from.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical history, of the training period only. A value that is missing counts as the mean
        of its point; a point without any stays NaN.
    task : Task
        Its ``reference``, and its outputs.
    holidays : array of bool, shape (N,), optional
        Times that are left out of the usual week; those of ``ds["holiday"]``, where the task knows
        of holidays, unless given.

    Returns
    -------
    ReferenceFit

    Raises
    ------
    InputError
        If the period leaves out a part of the year, or has fewer than three weeks.
    """
    refuse_short(ds["time"].values, task)
    if task.reference == "weekly":
        if holidays is None and "holiday" in task.known:
            holidays = ds["holiday"].values.reshape(ds.sizes["time"], -1).max(axis=1) > 0
        return _Weeks(ds, task, holidays)
    return _Harmonics(ds, task, ANNUAL)


def refuse_short(time: np.ndarray, task: Task) -> None:
    """Refuse a training period that is too short for the reference of a task.

    Parameters
    ----------
    time : array of shape (N,)
    task : Task

    Raises
    ------
    InputError
        As :func:`fit_reference`.
    """
    if time.dtype.kind not in "MO":
        raise InputError(f"a climatology needs dates, found times of type {time.dtype}")
    if task.reference == "weekly":
        week = _weeks(time)
        if week[-1] - week[0] + 1 < _FEWEST_WEEKS:
            raise InputError(
                f"the usual week needs at least {_FEWEST_WEEKS} weeks of training data, found "
                f"{time[0]} to {time[-1]}: give a longer period, or Task(reference=None)"
            )
    elif task.reference == "climatology":
        part = np.unique(fractions(time)[0])
        gap = np.diff(np.append(part, part[0] + 1)).max()
        if gap > _MOST_GAP:
            raise InputError(
                f"a climatology needs data through the whole year, and {gap * 365:.0f} days of "
                f"the year lie between {time[0]} and {time[-1]} without any: give a longer "
                "training period, or Task(reference=None)"
            )


class _Harmonics(ReferenceFit):
    """Least squares on harmonics; sums of products add, so that parts can be taken off."""

    def __init__(self, ds: xr.Dataset, task: Task, annual: int) -> None:
        time = ds["time"].values
        a_day = max(1, DAY // int(task.step.astype(np.int64)))
        diurnal = min(DIURNAL, a_day // 2)
        weights = harmonics(time, annual, diurnal)
        groups = _years(time)
        names = task.outputs
        count, (_, *space) = groups[-1] + 1, ds[names[0]].shape
        K, points = weights.shape[1], int(np.prod(space))
        self._gram = np.zeros((count, K, K))
        self._sums = np.zeros((count, K, len(names) * points))
        # Numbers near zero lose no digits: differences from a mean of the first times.
        early = [ds[v].isel(time=slice(0, 2 * a_day)).values for v in names]
        self._middle = np.stack([np.nan_to_num(_mean(x)) for x in early]).reshape(-1)
        lost = np.stack([never(ds[v]) for v in names]).reshape(-1)
        self._middle[lost] = np.nan  # there is nothing usual where there is nothing
        for block in time_blocks(ds[list(names)]):
            part = np.stack([ds[v].isel(time=block).values for v in names], axis=1)
            part = part.reshape(len(part), -1) - self._middle
            bad = ~np.isfinite(part)
            if bad.any():
                part = np.where(bad, _mean(np.where(bad, np.nan, part)), part)
                part = np.nan_to_num(part, nan=0.0)
            for group in np.unique(groups[block]):
                here = groups[block] == group
                mine = weights[block][here]
                self._gram[group] += mine.T @ mine
                self._sums[group] += mine.T @ part[here]
        self._shape = (K, len(names), *space)
        self._whole = self._gram.sum(0), self._sums.sum(0)
        super().__init__(
            "harmonics", np.array([annual, diurnal]), self._solve(*self._whole), groups
        )

    def without(self, first: int, last: int) -> np.ndarray:
        parts = slice(first, last + 1)
        gram = self._whole[0] - self._gram[parts].sum(0)
        return self._solve(gram, self._whole[1] - self._sums[parts].sum(0))

    def _solve(self, gram: np.ndarray, sums: np.ndarray) -> np.ndarray:
        # The pseudo-inverse: twelve-hourly data cannot tell all harmonics of the day apart.
        fields = np.linalg.pinv(gram, rcond=1e-9, hermitian=True) @ sums
        fields[0] += self._middle
        return fields.astype(np.float32).reshape(self._shape)


class _Weeks(ReferenceFit):
    """The median of the weeks: one odd week does not move it, as it would a mean."""

    def __init__(self, ds: xr.Dataset, task: Task, holidays: np.ndarray | None) -> None:
        time = ds["time"].values
        slots, slot = np.unique(phase(time, "week"), return_inverse=True)
        groups = _weeks(time) - _weeks(time[:1])
        names = task.outputs
        whole = np.stack([ds[v].values for v in names], axis=1).astype(np.float32)
        self._weeks = np.full((groups[-1] + 1, len(slots), *whole.shape[1:]), np.nan, np.float32)
        self._weeks[groups, slot] = whole
        odd = self._weeks.copy()
        if holidays is not None:
            odd[groups[holidays], slot[holidays]] = np.nan
        usual = _median(odd)
        # A time of the week that holidays alone have keeps what they have.
        self._all = np.where(np.isnan(usual), _median(self._weeks), usual)
        self._weeks = odd
        super().__init__("week", slots, self._all, groups)

    def without(self, first: int, last: int) -> np.ndarray:
        others = np.delete(self._weeks, slice(first, last + 1), axis=0)
        usual = _median(others) if len(others) else np.full_like(self._all, np.nan)
        return np.where(np.isnan(usual), self._all, usual)


def never(array: xr.DataArray) -> np.ndarray:
    """Points (H, W) of a variable (time, H, W) that have no value at any time.

    Times after those at which all have one are not read.
    """
    lost = np.ones(array.shape[1:], dtype=bool)
    for block in time_blocks(array):
        lost &= ~np.isfinite(array.isel(time=block).values).any(axis=0)
        if not lost.any():
            break
    return lost


def _median(values: np.ndarray) -> np.ndarray:
    """Median over the first axis of what is not NaN."""
    ranked = np.sort(values, axis=0)  # NaN come last
    count = (~np.isnan(ranked)).sum(axis=0, keepdims=True)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
    pair = [np.take_along_axis(ranked, i, axis=0)[0] for i in (low, np.maximum(high, low))]
    return (pair[0] + pair[1]) / 2


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN, 0 where all is."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def _years(time: np.ndarray) -> np.ndarray:
    """Number the years, or, where these are few, pieces of half a month."""
    year, day, _ = calendar_parts(time)
    if len(np.unique(year)) >= _ENOUGH_YEARS:
        return np.unique(year, return_inverse=True)[1].reshape(-1)
    return np.unique(year * 100 + (day - 1) // _BLOCK_DAYS, return_inverse=True)[1].reshape(-1)


def _weeks(time: np.ndarray) -> np.ndarray:
    """Number the weeks, which begin on Mondays."""
    phase(time, "week")  # refuses other calendars
    monday = np.datetime64("1970-01-05", "ns")
    return ((time.astype("datetime64[ns]") - monday) // np.timedelta64(7, "D")).astype(np.int64)
