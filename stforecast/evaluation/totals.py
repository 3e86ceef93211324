"""Weighted sums over a piece, taken in block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .means import ExactSum


@dataclass(frozen=True)
class Kept:
    """Which axes of a piece its sums keep: initialisations and leads, or some with places."""

    axes: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def by_map(self) -> bool:
        """Whether all maps are kept, so that groups can be made of these."""
        return self.axes == (0, 1)

    def shape(self, groups: int) -> tuple[int, ...]:
        """Shape of the sums."""
        kept = tuple(self.sizes[axis] for axis in self.axes)
        return kept if self.by_map else (groups, *kept)

    def parts(
        self, at: tuple[slice, ...], values: np.ndarray, groups: np.ndarray
    ) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
        """Place among the sums and values of each group in a block; the others' are 0."""
        place = tuple(at[axis] for axis in self.axes)
        if self.by_map:
            yield place, values
            return
        index = groups[at[:2]]
        index = index.reshape(*index.shape, *[1] * (values.ndim - 2))
        some = np.unique(index)
        for g in some:
            yield (g, *place), values if len(some) == 1 else np.where(index == g, values, 0.0)


class Total:
    """Weighted sums (R, N, L), or (R, G, *keep) where places are kept, of a piece; in float64.

    Matrix products, whose order of summation depends on BLAS and its threads, are not used: dot
    products of single rows do not.
    """

    def __init__(
        self, weights: np.ndarray, even: np.ndarray, groups: np.ndarray, count: int, at: Kept
    ) -> None:
        self.weights, self.even, self.groups, self.kept = weights, even, groups, at
        self.letters = "r" + "".join("nlhw"[axis] for axis in at.axes)
        self.rows = np.zeros(at.sizes[:3]) if even.any() else None
        self.ones = np.ones(at.sizes[3])
        self.points = np.zeros((np.count_nonzero(~even), *at.shape(count)))

    def add(
        self, at: tuple[slice, ...], values: np.ndarray, times: np.ndarray | None = None
    ) -> None:
        """Take in a block: its values, or their products with others."""
        if self.rows is not None:
            np.vecdot(values, self.ones if times is None else times, out=self.rows[at[:3]])
        if len(self.points):
            values = values if times is None else values * times
            weights = self.weights[~self.even][:, at[2]]
            for place, some in self.kept.parts(at, values, self.groups):
                sums = np.einsum(f"nlhw,rhw->{self.letters}", some, weights)
                self.points[(slice(None), *place)] += sums

    def sums(self) -> np.ndarray:
        """Sums over all that was taken in."""
        out = np.zeros((len(self.weights), *self.points.shape[1:]))
        out[~self.even] = self.points
        if self.rows is not None:
            weights = self.weights[self.even][:, :, 0]
            every = tuple(slice(0, size) for size in self.kept.sizes)
            for place, some in self.kept.parts(every, self.rows, self.groups):
                sums = np.einsum(f"nlh,rh->{self.letters}", some, weights)
                out[(self.even, *place)] = sums
        return out


class ExactTotal:
    """The same, exact."""

    def __init__(self, weights: np.ndarray, groups: np.ndarray, count: int, at: Kept) -> None:
        self.weights, self.groups, self.kept = weights, groups, at
        self.sum = ExactSum((len(weights), *at.shape(count)))
        self.axes = tuple(axis for axis in range(4) if axis not in at.axes)

    def add(self, at: tuple[slice, ...], values: np.ndarray) -> bool:
        """Take in a block (N, L, H, W or 1); False if the sum is not finite."""
        for r, weights in enumerate(self.weights[:, at[2]]):
            if not weights.any():
                continue
            if values.shape[-1] != weights.shape[-1]:  # of rows
                weights = weights.sum(-1, keepdims=True)
            for place, some in self.kept.parts(at, values * weights, self.groups):
                if not self.sum.add((r, *place), some, self.axes):
                    return False
        return True
