"""What is summed of a piece: statistics at points, in blocks that fit in the cache."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..conventions.times import valid_times
from ..errors import InputError
from .job import Job, Piece
from .means import ExactMean, ExactSum, WeightedMean
from .metrics import (
    Metric,
    absolute_error,
    anomaly_products,
    correlation,
    error,
    squared_error,
)
from .totals import ExactTotal, Kept, Total

FRAMES = "frames"  # all variables of a forecast together: the channels of a clip
OF_ERROR = (error, squared_error, absolute_error, anomaly_products)  # of one difference a block
BLOCK = 2**20  # bytes of float32 worked on at once: more leave the cache, fewer wait for Python
_ZERO = 273.15  # K

# Sums by variable, statistic and place: (start, stop) along the dims that it keeps.
Parts = dict[tuple[str, str, tuple[tuple[int, int], ...]], Any]


class Sums:
    """Sums over one piece, made from blocks of it that fit in the cache."""

    def __init__(
        self,
        job: Job,
        piece: Piece,
        forecasts: Sequence[Sequence[np.ndarray]],
        truths: Sequence[Sequence[np.ndarray]],
        climatology: Sequence[np.ndarray] | None,
    ) -> None:
        self.job, self.piece = job, piece
        self.forecasts, self.truths, self.climatology = forecasts, truths, climatology
        sizes = forecasts[0][0].shape
        self.mask = job.mask[piece.at[2:]]
        self.any_mask = bool(self.mask.any())
        # By map, and what is not kept of that is added at the end; by place where that is kept.
        inner = job.keep if set(job.keep) & {2, 3} else (0, 1)
        # Arrays that came over a network may not lie on whole words, which changes sums' order.
        weights = np.require(job.weights[(slice(None), *piece.at[2:])], requirements=["C", "A"])
        # Where the weight is the same all along a row, sums of rows are enough.
        even = (weights == weights[:, :, :1]).all(axis=(1, 2)) & (3 not in inner)
        self.weights, self.kept = weights, Kept(inner, sizes)
        groups = job.groups.index[piece.at[:2]], job.groups.count
        new = partial(Total, weights, even, *groups, self.kept)
        self.new_exact = partial(ExactTotal, weights, *groups, self.kept)
        self.totals: dict[tuple[str, str], list[Total]] = {}
        self.exact: dict[tuple[str, str], list[ExactTotal]] = {}
        self.frames: dict[tuple[str, str], np.ndarray] = {}
        for kind in job.kinds:
            for v in (FRAMES,) if "variable" in kind.dims else job.variables:
                if kind.name in job.of_frames:
                    self.frames[v, kind.name] = np.full((1, *sizes[:2]), np.nan)
                elif kind.statistic in OF_ERROR:
                    sums = 3 if kind.statistic is anomaly_products else 1
                    self.totals[v, kind.name] = [new() for _ in range(sums)]
                else:  # as many as the statistic gives arrays
                    self.exact[v, kind.name] = []
        self.there: dict[str, tuple[Total, ExactTotal]] = {}
        if job.masked:
            self.there = {v: (new(), self.new_exact()) for v in job.variables}
        self.hidden = dict.fromkeys(job.variables, 0)

        members = len(forecasts[0]) if job.stacked else 1
        steps = list(_steps(sizes, job.whole, members))
        # New memory for every block would cost threads more than the sums do.
        most = max(int(np.prod([s.stop - s.start for s in at])) for at in steps)
        self.narrow, self.wide = np.empty(members * most, np.float32), np.empty((2, most))
        # Refused in words, below.
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for at in steps:
                pictures = [self._add(i, at) for i in range(len(job.variables))]
                for kind in job.together:
                    both = _channels(job.variables, pictures)
                    self.frames[FRAMES, kind.name][0][at[:2]] = kind.statistic(*both)

    def _add(self, i: int, at: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Take in a block of variable `i`; gives the forecast and truth of it."""
        job, v = self.job, self.job.variables[i]
        f = self.forecasts[i][0][at]
        t = _take(self.truths[i], self.piece.starts, self.piece.steps[at[:2]], at[2:])
        hide = self.mask[at[2:]] if self.any_mask else None
        if job.masked:
            gap = job.gap(t)
            self.hidden[v] += int(np.count_nonzero(gap & ~self.mask[at[2:]]))
            hide = gap | self.mask[at[2:]]
            for total in self.there[v] if self.exact else self.there[v][:1]:
                total.add(at, (~gap).astype(np.float64))
        self._add_errors(i, at, f, t, hide)
        others = [k for k in job.kinds if k.statistic not in OF_ERROR and "variable" not in k.dims]
        if job.stacked:
            out = self.narrow[: len(self.forecasts[i]) * t.size].reshape(-1, *t.shape)
            f = np.stack([member[at] for member in self.forecasts[i]], out=out)
        # Comparisons make a number of a NaN: it must be found before.
        if (others or not self.totals) and not all(_finite(x, hide) for x in (f, t)):
            raise self._not_finite(i)
        pairs = {
            narrow: [
                _filled(x, hide, np.nan)
                if narrow
                else _filled(x.astype(np.float64, order="C"), hide, 0.0)
                for x in (f, t)
            ]
            for narrow in {kind.narrow for kind in others}
        }
        for kind in others:
            self._add_values(v, kind, at, pairs[kind.narrow], hide, i)
        return f, t

    def _add_values(
        self,
        v: str,
        kind: Metric,
        at: tuple[slice, ...],
        pair: Sequence[np.ndarray],
        hide: np.ndarray | None,
        i: int,
    ) -> None:
        """Take in a statistic of a block."""
        job, shape = self.job, pair[1].shape
        limits = job.limits.get((kind.name, v))
        more = [] if limits is None else [list(limits.at(*self._place(at)))]
        found = kind.statistic(*pair, *more)
        totals = self.exact.get((v, kind.name), [])
        expected = shape[:2] if kind.name in job.of_frames else shape[: 3 if kind.of_rows else 4]
        for k, values in enumerate(found if kind.several else [found]):
            if np.shape(values) != expected:
                raise InputError(
                    f"the statistic of {kind.name!r} must give an array of shape {expected} for "
                    f"truth of shape {shape}, found {np.shape(values)}"
                )
            if kind.name in job.of_frames:
                self.frames[v, kind.name][0][at[:2]] = values
                continue
            if kind.of_rows:
                values = values[..., None]
            elif hide is not None:  # 0 / 0 of a point that does not count must not reach the sum
                values = np.where(hide, 0.0, values)
            if k == len(totals):
                totals.append(self.new_exact())
            if not totals[k].add(at, values):
                raise self._not_finite(i)

    def _place(self, at: tuple[slice, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Times and space of a block in the whole forecast."""
        inside = [
            slice(whole.start + part.start, whole.start + part.stop)
            for whole, part in zip(self.piece.at, at, strict=True)
        ]
        return tuple(inside[:2]), tuple(inside[2:])

    def _add_errors(
        self,
        i: int,
        at: tuple[slice, ...],
        f: np.ndarray,
        t: np.ndarray,
        hide: np.ndarray | None,
    ) -> None:
        """Take in the statistics that are made from the error, and from anomalies."""
        job, v = self.job, self.job.variables[i]
        gap = self._difference(0, f, t, hide)
        if v in job.kelvin and not any(s.start for s in at):
            self._check_zero(v, float(gap.mean()))
        for kind in job.kinds:
            totals = self.totals.get((v, kind.name), [])
            if kind.statistic is error:
                totals[0].add(at, gap)
            elif kind.statistic is squared_error:
                totals[0].add(at, gap, gap)
            elif kind.statistic is absolute_error:
                totals[0].add(at, np.abs(gap, out=gap))
            elif kind.statistic is anomaly_products and self.climatology is not None:
                index, start = self.piece.index[at[:2]], np.zeros(1, dtype=int)
                c = _take([self.climatology[i]], start, index, at[2:])
                x, y = self._difference(0, f, c, hide), self._difference(1, t, c, hide)
                for total, pair in zip(totals, ((x, y), (x, x), (y, y)), strict=True):
                    total.add(at, *pair)

    def _difference(
        self, which: int, a: np.ndarray, b: np.ndarray, hide: np.ndarray | None
    ) -> np.ndarray:
        """Difference of float32 in float64: rounded to half a float32 step of its own size.

        In C order, whatever the order of `a` and `b`: it decides the order of summation.
        """
        narrow = self.narrow[: a.size].reshape(a.shape)
        out = self.wide[which, : a.size].reshape(a.shape)
        np.copyto(out, np.subtract(a, b, out=narrow))
        if hide is not None:
            np.copyto(out, 0, where=hide)
        return out

    def _check_zero(self, v: str, bias: float) -> None:
        """Refuse what is wrong by the difference between the zeros of two scales."""
        if abs(abs(bias) - _ZERO) < 30:
            whose = "forecast" if bias < 0 else "truth"
            raise InputError(
                f"{v}: the forecast is {'below' if bias < 0 else 'above'} truth by "
                f"{abs(bias):.1f} K on average: the {whose} looks like degC, though its units say "
                "K; correct its attribute units or its values"
            )

    def _not_finite(self, i: int) -> InputError:
        """Say where a value is NaN or infinite."""
        job, piece, everything = self.job, self.piece, (slice(None), slice(None))
        steps = np.unique(piece.steps)
        valid = valid_times(job.init[piece.at[0]], job.leads[piece.at[1]])
        times = valid.ravel()[np.unique(piece.steps, return_index=True)[1]]
        observed = _take(self.truths[i], piece.starts, steps[None], everything)[0]
        known = [] if self.climatology is None else [("climatology", times, self.climatology[i])]
        for whose, labels, values in [
            ("truth", times, observed),
            ("forecast", job.init[piece.at[0]], np.stack(self.forecasts[i])),
            *known,
        ]:
            good = np.isfinite(values) | self.mask
            if job.masked:
                gap = job.gap(observed)
                good |= gap if whose != "forecast" else gap[piece.index]
            if good.all():
                continue
            bad = np.argwhere(~good)
            first = bad[0][-3 if whose != "forecast" else -4]  # members come before times
            hint = ', or nan="mask"' if whose == "truth" else ""
            return InputError(
                f"{job.variables[i]} of the {whose} is NaN or infinite: first at time "
                f"{labels[first]}, {len(bad)} values there and in the times near it; leave "
                "these times out, or mask points by weights= (an array that is 0 there)"
                f"{hint}"
            )
        return InputError(
            f"{job.variables[i]}: {', '.join(kind.name for kind in job.kinds)} overflow or are "
            "NaN, though forecast and truth are finite; what divides by truth, as mape, needs "
            "where=, which leaves out points where truth is 0"
        )

    def parts(self) -> Parts:
        """Sums of this piece by variable, statistic and place."""
        job, where = self.job, [(s.start, s.stop) for s in self.piece.at]
        kept, maps = tuple(where[axis] for axis in job.keep), tuple(where[:2])
        times, by_map = self.piece.at[:2], self.kept.by_map

        def grouped(array: np.ndarray) -> np.ndarray:
            return job.groups.sum(array, job.keep, times) if by_map else array

        out: Parts = {}
        for key, values in self.frames.items():
            out[(*key, maps)] = WeightedMean(values, np.ones(values.shape))
        for i, v in enumerate(job.variables):
            for kind in job.kinds:
                key = (v, kind.name)
                if key in self.totals:
                    there = self.there[v][0].sums() if job.masked else self._alone(False)
                    total = np.stack([total.sums() for total in self.totals[key]])
                    if not np.isfinite(total).all():
                        raise self._not_finite(i)
                    if kind.of_maps:  # to be added to other parts of these maps
                        out[(*key, maps)] = WeightedMean(total, there)
                    else:
                        out[(*key, kept)] = WeightedMean(grouped(total[0]), grouped(there))
                elif key in self.exact:
                    masked = job.masked and not kind.of_rows
                    exact = self.there[v][1].sum if masked else self._alone(True)
                    state = ExactMean(ExactSum.stack([t.sum for t in self.exact[key]]), exact)
                    if kind.of_maps:
                        scores, are = kind.finish(state.mean), exact.value > 0
                        there = are.astype(np.float64)
                        out[(*key, maps)] = WeightedMean(np.where(are, scores, 0.0), there)
                    else:
                        state = ExactMean(state.total.each(grouped), exact.each(grouped))
                        out[(*key, kept)] = state
            if self.hidden[v]:
                out[v, "hidden", ()] = WeightedMean(np.array(float(self.hidden[v])), np.ones(()))
        return out

    def _alone(self, exact: bool) -> Any:
        """Sums of the weights alone, where all points count."""
        axes = tuple(axis - 1 for axis in (2, 3) if axis not in self.kept.axes)
        shape = self.weights.sum(axes).shape
        counts = np.ones(self.kept.sizes[:2], np.int64)
        if not self.kept.by_map:
            counts = self.job.groups.sum(counts, self.job.keep, self.piece.at[:2])
        counts = counts.reshape(counts.shape + (1,) * (len(shape) - 1))

        def repeated(one: np.ndarray) -> np.ndarray:
            return one.reshape(len(one), *[1] * (counts.ndim - len(shape) + 1), *shape[1:]) * counts

        if not exact:
            return repeated(self.weights.sum(axes))
        one = ExactSum(shape)
        one.add((), self.weights.copy(), axes)
        return one.each(repeated)


def _finite(values: np.ndarray, hide: np.ndarray | None) -> bool:
    found = np.isfinite(values)
    return bool(found.all() if hide is None else (found | hide).all())


def _filled(values: np.ndarray, hide: np.ndarray | None, value: float) -> np.ndarray:
    return values if hide is None else np.where(hide, values.dtype.type(value), values)


def _steps(sizes: tuple[int, ...], whole: bool, members: int = 1) -> Iterator[tuple[slice, ...]]:
    """Cut a piece (N, L, H, W) in blocks of about `BLOCK` bytes, within maps only if need be."""
    # Statistics of members work on copies of all: twice a block, and it is still in the cache.
    rows = max(1, BLOCK // (4 * sizes[3]) * 2 // (members + 1))
    maps = max(1, rows // sizes[2])
    counts = [max(1, maps // sizes[1]), min(maps, sizes[1]), sizes[2] if whole else rows, sizes[3]]
    cuts = [
        [slice(a, min(a + c, size)) for a in range(0, size, c)]
        for size, c in zip(sizes, counts, strict=True)
    ]
    yield from itertools.product(*cuts)


def _take(
    chunks: Sequence[np.ndarray], starts: np.ndarray, steps: np.ndarray, space: Sequence[slice]
) -> np.ndarray:
    """Truth at `steps` (N, L), from its chunks: (N, L, H, W), a view where it can be."""
    flat = steps.ravel()
    which = np.searchsorted(starts, flat, side="right") - 1
    if (which == which[0]).all():
        chunk, local = chunks[which[0]], flat - starts[which[0]]
        first, last = local[0], local[-1]
        if (local == np.arange(first, first + len(local))).all():
            out = chunk[(slice(first, last + 1), *space)]
        else:
            out = chunk[(local, *space)]
    else:
        pairs = zip(which, flat, strict=True)
        out = np.stack([chunks[c][(p - starts[c], *space)] for c, p in pairs])
    return out.reshape(*steps.shape, *out.shape[1:])


def _channels(
    variables: Sequence[str], pictures: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """Forecast and truth (N, L, C, H, W) of all channels; colours in the order red, green, blue."""
    colours = ["red", "green", "blue"]
    order = colours if set(variables) == set(colours) else variables
    by_name = dict(zip(variables, pictures, strict=True))
    return [np.stack([by_name[v][i] for v in order], axis=-3) for i in (0, 1)]


def correlations(sums: WeightedMean) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of maps and which there are: a map without a point that counts is no map."""
    there = (sums.weight > 0).astype(np.float64)
    return np.where(there > 0, correlation(*sums.total), 0.0), there
