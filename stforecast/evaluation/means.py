"""States of weighted means, which add; and sums that are exact.

Floating point addition rounds, and so depends on its order. For an exact sum every number is cut at
fixed powers of two, 24 bits apart, into integers, which add without rounding: neither the order nor
the chunks of the data change a bit. These are the indexed sums of Demmel and Nguyen (2013, *Fast
reproducible floating-point summation*, ARITH 21; Ahrens, Demmel and Nguyen 2020, *Algorithms for
efficient reproducible floating point summation*, ACM TOMS 46), with all of their digits kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

_BITS = 24  # of a digit: float64 holds sums of 2**29 of them, int64 sums of 2**39
_LEAST = -40  # place of the last digit: what is below 2**-960 is left out
_HALF = 1 << (_BITS - 1)


class ExactSum:
    """Sums of float64 numbers, exact, of any shape.

    Parameters
    ----------
    shape : tuple of int
    digits : dict of int to numpy.ndarray of int64, optional
        By place: the number is the sum of ``digits[i] * 2**(24 * i)``.
    """

    def __init__(self, shape: tuple[int, ...], digits: dict[int, np.ndarray] | None = None) -> None:
        self.shape = shape
        self.digits = {} if digits is None else digits

    def add(self, at: Any, values: np.ndarray, axes: tuple[int, ...]) -> bool:
        """Add the sums of `values` over `axes` at an index; False, and nothing, if not finite.

        `values` is used up.
        """
        top = max(values.max(), -values.min()) if values.size else 0.0
        if not top < 2.0**900:  # NaN, infinite, or on its way there
            return False
        place = max((int(np.frexp(top)[1]) - 1) // _BITS, _LEAST)
        left = values
        while top:
            unit = 2.0 ** (_BITS * place)
            digit = left + 1.5 * 2.0**52 * unit  # rounds to whole units
            digit -= 1.5 * 2.0**52 * unit
            left -= digit
            sums = digit.sum(axes) / unit
            if place not in self.digits:
                self.digits[place] = np.zeros(self.shape, np.int64)
            self.digits[place][at] += sums.astype(np.int64)
            if place == _LEAST or not left.any():
                break
            place -= 1
        return True

    def enlarged(self, sizes: tuple[int, ...]) -> ExactSum:
        """Nothing yet, of this shape but for the last axes, which have other sizes."""
        return ExactSum(self.shape[: len(self.shape) - len(sizes)] + sizes)

    def each(self, function: Callable[[np.ndarray], np.ndarray]) -> ExactSum:
        """Do the same, which must be linear, to the digits of each place."""
        digits = {place: function(digit) for place, digit in self.digits.items()}
        shape = function(np.zeros(self.shape, np.int64)).shape
        return ExactSum(shape, digits)

    def put(self, at: Any, other: ExactSum) -> None:
        """Add other sums at an index."""
        for place, digit in other.digits.items():
            if place not in self.digits:
                self.digits[place] = np.zeros(self.shape, np.int64)
            self.digits[place][at] += digit

    def __add__(self, other: ExactSum) -> ExactSum:
        if self.shape != other.shape:
            raise ValueError(f"sums differ in shape: {self.shape} and {other.shape}")
        both = dict(self.digits)
        for place, digit in other.digits.items():
            both[place] = both[place] + digit if place in both else digit
        return ExactSum(self.shape, both)

    @classmethod
    def stack(cls, sums: Sequence[ExactSum]) -> ExactSum:
        """Put sums of one shape along a new first axis."""
        places = {place for one in sums for place in one.digits}
        none = np.zeros(sums[0].shape, np.int64)
        digits = {p: np.stack([one.digits.get(p, none) for one in sums]) for p in places}
        return cls((len(sums), *sums[0].shape), digits)

    @property
    def value(self) -> np.ndarray:
        """The sums in float64."""
        out = np.zeros(self.shape)
        if not self.digits:
            return out
        place, last, carry = min(self.digits), max(self.digits), np.zeros(self.shape, np.int64)
        digits = []
        # One number has many digits that make it: bring each within half a unit of the next.
        while place <= last or carry.any():
            digit = self.digits.get(place, 0) + carry
            low = ((digit + _HALF) & (2 * _HALF - 1)) - _HALF
            carry = (digit - low) >> _BITS
            digits.append((low, 2.0 ** (_BITS * place)))
            place += 1
        for digit, unit in reversed(digits):
            out += digit * unit
        return out


@dataclass(frozen=True)
class WeightedMean:
    """Additive state of a weighted mean: sums of weight times value, and of weight.

    States of the same shape add; the mean of the sum is the mean over all of the data.

    Parameters
    ----------
    total, weight : numpy.ndarray, float64
        The two sums, of the same shape.
    """

    total: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray, keep: Sequence[int] = ()) -> WeightedMean:
        """Sum `values` over all axes but those in `keep`.

        Parameters
        ----------
        values : numpy.ndarray
            A statistic at every point. NaN propagates, but for points of weight zero.
        weights : numpy.ndarray
            At least 0; lies along the last axes of `values`.
        keep : sequence of int
            Axes of `values` that stay, in the order wanted.

        Returns
        -------
        WeightedMean
            With the shape of the axes kept.
        """
        values = np.asarray(values, dtype=np.float64)
        weights = np.asarray(weights, dtype=np.float64)
        if not weights.all():  # 0 * NaN is NaN: a masked point must not reach the sum
            values = np.where(weights > 0, values, 0.0)
        axes = list(range(values.ndim))
        lead, last = axes[: values.ndim - weights.ndim], axes[values.ndim - weights.ndim :]
        total = np.einsum(values, axes, weights, last, list(keep), optimize=True)
        counts: list[Any] = []  # the weights count once for each point along the leading axes
        for axis in lead:
            counts += [np.ones(values.shape[axis]), [axis]]
        weight = np.einsum(weights, last, *counts, list(keep), optimize=True)
        return cls(np.asarray(total), np.asarray(weight))

    def __add__(self, other: WeightedMean) -> WeightedMean:
        if self.total.shape != other.total.shape:
            raise ValueError(f"states differ in shape: {self.total.shape} and {other.total.shape}")
        return WeightedMean(self.total + other.total, self.weight + other.weight)

    @classmethod
    def merge(cls, states: Iterable[WeightedMean]) -> WeightedMean:
        """Add states."""
        return reduce(cls.__add__, states)

    def collapse(self, first: int = 0) -> WeightedMean:
        """State of the mean over all axes that are left, from axis `first` on."""
        rest = tuple(range(first, self.total.ndim))
        return WeightedMean(np.asarray(self.total.sum(rest)), np.asarray(self.weight.sum(rest)))

    @property
    def mean(self) -> np.ndarray:
        """Weighted mean; NaN where the weights sum to zero."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.weight > 0, self.total / self.weight, np.nan)


@dataclass(frozen=True)
class ExactMean:
    """State of a weighted mean whose sums are exact; see :class:`WeightedMean`.

    Parameters
    ----------
    total, weight : ExactSum
        Of weight times value, and of weight, whose shape is that of `total` or its end.
    """

    total: ExactSum
    weight: ExactSum

    def __add__(self, other: ExactMean) -> ExactMean:
        return ExactMean(self.total + other.total, self.weight + other.weight)

    @classmethod
    def merge(cls, states: Iterable[ExactMean]) -> ExactMean:
        """Add states."""
        return reduce(cls.__add__, states)

    def collapse(self, first: int = 0) -> ExactMean:
        """State of the mean over all axes of `weight` that are left, from axis `first` on."""
        ahead = len(self.total.shape) - len(self.weight.shape)
        rest = tuple(range(first, len(self.weight.shape)))
        over = tuple(ahead + i for i in rest)
        return ExactMean(
            self.total.each(lambda x: np.asarray(x.sum(over))),
            self.weight.each(lambda x: np.asarray(x.sum(rest))),
        )

    @property
    def mean(self) -> np.ndarray:
        """Weighted mean; NaN where the weights sum to zero."""
        weight = self.weight.value
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(weight > 0, self.total.value / weight, np.nan)
