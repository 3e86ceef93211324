"""Parts of the year and of the day by which scores are taken: of the valid time, in UTC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..conventions.cycles import DAY, calendar_parts

SEASONS = ("DJF", "MAM", "JJA", "SON")


def month_of(time: np.ndarray) -> np.ndarray:
    """Months of (N,) dates, from 0 for January."""
    if time.dtype == object:
        return np.array([t.month - 1 for t in time], dtype=np.intp)
    return pd.DatetimeIndex(time).month.to_numpy() - 1


def season_of(time: np.ndarray) -> np.ndarray:
    """Places of (N,) dates in :data:`SEASONS`."""
    return (month_of(time) + 1) % 12 // 3


def _hour_of(time: np.ndarray) -> np.ndarray:
    return calendar_parts(time)[2] // (DAY // 24)


#: By the name of the dim: place of dates, and the labels of all places.
PARTS: Mapping[str, tuple[Callable[[np.ndarray], np.ndarray], Sequence[Any]]] = {
    "season": (season_of, SEASONS),
    "month": (month_of, range(1, 13)),
    "hour": (_hour_of, range(24)),
}


@dataclass(frozen=True)
class Groups:
    """Which group each forecast time (N, L) belongs to, of those that occur."""

    index: np.ndarray
    labels: dict[str, list[Any]] = field(default_factory=dict)  # the dims of the groups

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of groups along each dim."""
        return tuple(map(len, self.labels.values()))

    @property
    def count(self) -> int:
        """Number of groups; 1 where scores are taken by none."""
        return int(np.prod(self.shape, dtype=int))

    @classmethod
    def of(cls, names: Sequence[str], valid: np.ndarray) -> Groups:
        """Group valid times (N, L) by parts of the year and the day."""
        index, labels = np.zeros(valid.shape, np.intp), {}
        for name in names:
            find, all_of = PARTS[name]
            places, which = np.unique(find(valid.ravel()), return_inverse=True)
            labels[name] = [all_of[i] for i in places]
            index = index * len(places) + which.reshape(valid.shape)
        return cls(index, labels)

    def sum(self, array: Any, keep: Sequence[int], times: tuple[slice, ...] = ()) -> Any:
        """Sum an array (..., N, L) over the times of each group: (..., G, the axes kept)."""
        index = self.index[times]
        rest = tuple(axis for axis in (-2, -1) if axis + 2 not in keep)
        parts = [
            np.where(index == g, array, 0).sum(rest) if self.count > 1 else array.sum(rest)
            for g in range(self.count)
        ]
        return np.stack(parts, axis=array.ndim - 2)
