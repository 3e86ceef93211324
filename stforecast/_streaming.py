"""Forecast and truth, block by block of initialisations, and what the blocks add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ._alignment import Grids
from .baselines import climatology_at, time_blocks
from .conventions import InputError
from .metrics import (
    FRAME_STATISTICS,
    METRICS,
    PERCEPTUAL,
    STATISTICS,
    WeightedMean,
    anomaly_correlation,
)

FRAMES = "frames"  # all variables of a forecast together: the channels of a clip
_BLOCK = 2**23  # bytes of float32 forecast worked on at once; small enough to stay near the core


@dataclass(frozen=True)
class Block:
    """One variable of some initialisations: arrays (N, L, H, W) in float64, finite everywhere."""

    name: str
    at: slice  # which initialisations
    forecast: np.ndarray
    truth: np.ndarray
    climatology: np.ndarray  # empty without one
    gap: np.ndarray | None  # True where truth is NaN, under nan="mask" and where there is any


def blocks(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    positions: np.ndarray,
    climatology: xr.Dataset | None,
    mask: np.ndarray,
    nan: str,
) -> Iterator[Block]:
    """All blocks of initialisations, each for every variable; 0 where `mask` or a gap is."""
    rows = max(1, _BLOCK // (4 * mask.size * positions.shape[1]))
    for outer in time_blocks(forecast):
        # All variables at once: they share a graph, for a lazy forecast one run of the network.
        chunk = forecast.isel(time=outer).compute()
        # Windows overlap: a step of truth is read once in a block, and used for several leads.
        unique, index = np.unique(positions[outer], return_inverse=True)
        index = index.reshape(-1, positions.shape[1])
        steps = truth.isel(time=unique).compute()
        known = None
        if climatology is not None:
            known = climatology_at(climatology, steps["time"]).compute()
        fields = {}
        for name in map(str, forecast.data_vars):
            hidden, gap = mask, None
            if nan == "mask" and (found := np.isnan(steps[name].values)).any():
                hidden, gap = mask | found, found
            t = _finite(steps[name], hidden, "truth")
            f = _finite(chunk[name], mask if gap is None else mask | gap[index], "forecast")
            c = None if known is None else _finite(known[name], hidden, "climatology")
            fields[name] = f, t, c, gap
        for start in range(0, len(index), rows):
            at = slice(start, start + rows)
            first = outer.start + start
            for name, (f, t, c, gap) in fields.items():
                yield Block(
                    name,
                    slice(first, first + len(index[at])),
                    f[at].astype(np.float64),
                    t[index[at]].astype(np.float64),
                    np.empty(0) if c is None else c[index[at]].astype(np.float64),
                    None if gap is None else gap[index[at]],
                )


def _finite(array: xr.DataArray, mask: np.ndarray, whose: str) -> np.ndarray:
    """Values, 0 where masked; refuse NaN and infinity elsewhere."""
    values = array.values
    if mask.any():
        values = np.where(mask, np.float32(0), values)
    with np.errstate(invalid="ignore"):  # a sum needs no temporary, and finite data don't overflow
        if np.isfinite(values.sum(dtype=np.float64)):
            return values
    bad = np.argwhere(~np.isfinite(values))
    hint = ', or nan="mask"' if whose == "truth" else ""
    raise InputError(
        f"{array.name} of the {whose} is NaN or infinite: first at time "
        f"{array['time'].values[bad[0][0]]}, {len(bad)} values there and in the times near it; "
        "leave these times out, or mask points by weights= (an array that is 0 there)"
        f"{hint}"
    )


class Sums:
    """What blocks add up to: for each variable and statistic a state for each array of weights.

    Statistics of frames are kept frame by frame, and become states of a metric at the end: the
    root and the logarithm of PSNR are taken of a frame, and the mean over frames is of these.
    """

    def __init__(
        self,
        variables: list[str],
        kinds: set[str],
        shape: tuple[int, ...],
        keep: list[int],
        axis: int | None,
        perceptual: Any = None,
    ) -> None:
        self.variables, self.kinds, self.keep, self.axis = variables, kinds, keep, axis
        self.perceptual, self.pictures = perceptual, dict[str, tuple[np.ndarray, np.ndarray]]()
        self.states: dict[tuple[str, str], list[list[WeightedMean]]] = {}  # of blocks, of grids
        self.frames = {
            (v, kind): np.empty(shape) for v in variables for kind in kinds & set(FRAME_STATISTICS)
        }
        if PERCEPTUAL in kinds:
            self.frames |= {(v, PERCEPTUAL): np.full(shape, np.nan) for v in (*variables, FRAMES)}
        self.masked = dict.fromkeys(variables, 0)

    def add(self, block: Block, grids: Grids, data_range: float | None) -> None:
        v, f, t = block.name, block.forecast, block.truth
        counted = grids.arrays
        if block.gap is not None:
            counted = [grid * ~block.gap for grid in grids.arrays]
            self.masked[v] += int(np.count_nonzero(block.gap & ~grids.mask))
        for kind in self.kinds:
            if kind in FRAME_STATISTICS:
                self.frames[v, kind][block.at] = FRAME_STATISTICS[kind](f, t, data_range or 1.0)
                continue
            if kind == PERCEPTUAL:
                self._look(block, data_range or 1.0)
                continue
            if kind == "anomaly_correlation":
                parts = []
                for grid in counted:
                    maps = anomaly_correlation(f, t, block.climatology, grid)
                    # A map without a point that counts is no map.
                    there = np.broadcast_to(grid.any(axis=(-2, -1)), maps.shape)
                    parts.append(WeightedMean.of(maps, there, self.keep))
            else:
                values = STATISTICS[kind](f, t)
                parts = [WeightedMean.of(values, grid, self.keep) for grid in counted]
            self.states.setdefault((v, kind), []).append(parts)

    def _look(self, block: Block, data_range: float) -> None:
        """Perceptual distance, once all channels of some initialisations have come."""
        self.pictures[block.name] = block.forecast / data_range, block.truth / data_range
        if len(self.pictures) < len(self.variables):
            return
        colours = ["red", "green", "blue"]
        order = colours if set(self.variables) == set(colours) else self.variables
        both = [np.stack([self.pictures[v][i] for v in order], axis=2) for i in (0, 1)]
        self.pictures.clear()
        flat = [array.reshape(-1, *array.shape[2:]) for array in both]
        found = self.perceptual(*flat).reshape(both[0].shape[:2])
        for v in (FRAMES, *(self.variables if len(self.variables) == 1 else ())):
            self.frames[v, PERCEPTUAL][block.at] = found

    def merged(self, together: bool) -> dict[tuple[str, str], list[WeightedMean]]:
        """States by variable and statistic; with `together` those of all variables as well."""
        out = {
            key: [WeightedMean.merge(same, self.axis) for same in zip(*blocks, strict=True)]
            for key, blocks in self.states.items()
        }
        frames = dict(self.frames)
        for kind in self.kinds if together else ():
            if kind == PERCEPTUAL:
                continue
            if kind in FRAME_STATISTICS:  # the mean over a frame is that over its channels'
                frames[FRAMES, kind] = np.mean([frames[v, kind] for v in self.variables], axis=0)
            else:
                same = zip(*(out[v, kind] for v in self.variables), strict=True)
                out[FRAMES, kind] = [WeightedMean.merge(channels) for channels in same]
        finish = {METRICS[m].statistic: METRICS[m].finish for m in METRICS}  # one to one for frames
        for (v, kind), values in frames.items():
            scores = finish[kind](values)
            out[v, kind] = [WeightedMean.of(scores, np.ones(scores.shape), self.keep)]
        return out
