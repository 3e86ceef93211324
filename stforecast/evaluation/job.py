"""What is asked of every piece of forecast and truth: statistics, weights, which points count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.times import valid_times
from ..errors import InputError
from .alignment import PointWeights
from .groups import Groups
from .metrics import MEMBERS, Metric, absolute_error, anomaly_products
from .thresholds import Limits

_LATE: Mapping[Any, int] = {absolute_error: 1, anomaly_products: 2}  # write over the difference


@dataclass(frozen=True)
class Piece:
    """Where a piece lies and which steps of truth it needs."""

    at: tuple[slice, ...]
    steps: np.ndarray  # (N, L): positions in truth's time
    starts: np.ndarray  # position of the first step of each chunk of truth that comes with it
    index: np.ndarray  # (N, L): positions among the different ones of `steps`


@dataclass(frozen=True)
class Job:
    """What is asked of every piece. Axes are 0 to 3: initialisations, leads, rows and columns."""

    variables: tuple[str, ...]
    kinds: tuple[Metric, ...]  # metrics with different statistics, whose settings are bound
    weights: np.ndarray  # (R, H, W)
    mask: np.ndarray  # (H, W): True where no point has a weight
    keep: tuple[int, ...]  # axes of the result, ascending
    init: np.ndarray  # times (N,)
    leads: np.ndarray  # (L,)
    kelvin: frozenset[str]  # variables in K in forecast and truth
    nan: str  # "refuse" or "mask"
    where: Callable[[np.ndarray], Any] | None  # which points of truth count
    groups: Groups  # of forecast times
    limits: Mapping[tuple[str, str], Limits]  # of events, by statistic and variable

    @classmethod
    def of(
        cls,
        forecast: xr.Dataset,
        kinds: Sequence[Metric],
        weights: PointWeights,
        keep: Sequence[int],
        nan: str,
        where: Callable[[np.ndarray], Any] | None,
        groups: Groups,
    ) -> Job:
        """Gather what tasks need to know."""
        limits: dict[tuple[str, str], Limits] = {}
        valid = valid_times(forecast["time"].values, forecast[LEAD].values)
        for kind in (kind for kind in kinds if kind.thresholds is not None):
            found = kind.thresholds.on(forecast, valid, weights.mask)
            limits |= {(kind.name, v): own for v, own in found.items()}
        # What a user gave as thresholds may be large, and is no longer needed.
        kinds = [replace(kind, thresholds=None) for kind in kinds]
        return cls(
            tuple(map(str, forecast.data_vars)),
            tuple(sorted(kinds, key=lambda kind: _LATE.get(kind.statistic, 0))),
            np.stack(weights.arrays),
            weights.mask,
            tuple(sorted(keep)),
            forecast["time"].values,
            forecast[LEAD].values,
            frozenset(str(v) for v, a in forecast.data_vars.items() if a.attrs.get("units") == "K"),
            nan,
            where,
            groups,
            limits,
        )

    @property
    def masked(self) -> bool:
        """Whether points that count differ from time to time."""
        return self.nan == "mask" or self.where is not None

    def gap(self, truth: np.ndarray) -> np.ndarray:
        """Points of truth that do not count; a NaN is one only if it may be missing."""
        missing = np.isnan(truth)
        if self.where is None:
            return missing
        chosen = np.asarray(self.where(truth))
        if chosen.shape != truth.shape or chosen.dtype != bool:
            raise InputError(
                f"where must give True or False for every point of truth, shape {truth.shape}; "
                f"found {chosen.dtype}, shape {chosen.shape}"
            )
        return missing | ~chosen if self.nan == "mask" else ~(missing | chosen)

    @property
    def whole(self) -> bool:
        """Whether a statistic must see all of a map; of parts of one, anomalies' sums add."""
        return any(
            kind.whole or kind.of_rows or (kind.of_maps and kind.statistic is not anomaly_products)
            for kind in self.kinds
        )

    @property
    def of_frames(self) -> frozenset[str]:
        """Statistics with one value for a frame, which look at all points of a map at once."""
        return frozenset(kind.name for kind in self.kinds if kind.of_maps and kind.of_frames)

    @property
    def together(self) -> tuple[Metric, ...]:
        """Statistics that all variables have together, and none by itself."""
        return tuple(kind for kind in self.kinds if "variable" in kind.dims)

    @property
    def stacked(self) -> bool:
        """Whether statistics are of all members; else of the members' mean."""
        return any(MEMBERS in kind.dims for kind in self.kinds)
