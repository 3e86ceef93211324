"""Forecast and truth piece by piece, on whatever scheduler dask has, and what the pieces add up to.

A *piece* is a chunk of the forecast, whichever dims it is cut along. Its statistics are summed
where it is read, by dask's threads or by the workers of a cluster, and only the sums travel. What
the pieces are, and the order in which their sums are added, depend on the chunks alone: every
scheduler gives the same figures to the last bit.

A *run* scores one forecast: of an ensemble its mean, or one member, each in the order in which it
would be scored alone. All runs go through the pieces together, so truth is read once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from ..baselines.lookup import climatology_at
from ..conventions.lazy import in_memory
from ..conventions.times import valid_times
from ..errors import InputError
from ..parallel import Graph, slices_of
from .job import Job
from .metrics import (
    WeightedMean,
    absolute_error,
    anomaly_products,
    correlation,
    error,
    squared_error,
)

FRAMES = "frames"  # all variables of a forecast together: the channels of a clip
_ACC = anomaly_products
_OF_ERROR = (error, squared_error, absolute_error, _ACC)  # made from one difference each block
BLOCK = 2**20  # bytes of float32 worked on at once: more leave the cache, fewer wait for Python
PIECE = 2**24  # bytes of a piece of data without chunks
TASK = 2**22  # bytes of small chunks that make one task; a larger one is a task, where it was read
NODE = 2**28  # bytes of a climatology that is read as a whole, once
_ZERO = 273.15  # K
FAN = 8  # sums added in one task

# Sums by variable, statistic and place: (start, stop) along the dims that it keeps.
Parts = dict[tuple[str, str, tuple[tuple[int, int], ...]], WeightedMean]
# The same by the number of a run and these three.
_RunParts = dict[tuple[int, str, str, tuple[tuple[int, int], ...]], WeightedMean]


@dataclass(frozen=True)
class Piece:
    """Where a piece lies and which steps of truth it needs."""

    at: tuple[slice, ...]
    steps: np.ndarray  # (N, L): positions in truth's time
    starts: np.ndarray  # position of the first step of each chunk of truth that comes with it
    index: np.ndarray  # (N, L): positions among the different ones of `steps`


# --- the graph ------------------------------------------------------------------------------------


def compute(
    runs: Sequence[tuple[Job, Sequence[xr.Dataset]]],
    truth: xr.Dataset,
    positions: np.ndarray,
    climatology: xr.Dataset | None,
) -> list[Parts]:
    """Sum over all pieces: on dask's scheduler where the forecast is lazy, else on its threads.

    A run is a job and the members of an ensemble that it is of, or one forecast. All have one grid
    and one set of times.
    """
    job, (first, *_) = runs[0]
    if any(j.of_frames for j, _ in runs) and first.chunks:
        dims = first[job.variables[0]].dims[2:]
        whole = {d: -1 for d in dims if d in first.chunks}
        runs = [(j, [f.chunk(whole) for f in members]) for j, members in runs]
        first = runs[0][1][0]
    lazy = any(first[v].chunks is not None for v in job.variables)
    cuts = _cuts(first)
    truth, positions = _used(truth, positions)
    times = _cuts(truth)[0]
    starts = np.cumsum([0, *times[:-1]])
    graph = Graph()
    blocks = [
        [[graph.blocks(f[v].variable, cuts) for f in members] for v in job.variables]
        for _, members in runs
    ]
    observed = [graph.blocks(truth[v].variable, (times, *cuts[2:])) for v in job.variables]
    shared = [graph.put(j) for j, _ in runs]
    known = None
    if climatology is not None and climatology.nbytes <= NODE:
        climatology = climatology.compute()
    if climatology is not None and not climatology.chunks:
        known = graph.put(climatology)

    tasks: list[str] = []
    pieces: list[Piece] = []
    keys: list[tuple[Any, Any, Any]] = []  # of forecasts by run, of truth, of the climatology
    size = 0

    def close() -> None:
        """Make tasks of the pieces so far, one a run: alone or not, a run adds in this order."""
        forecasts, truths, climatologies = map(list, zip(*keys, strict=True))
        leaves = [
            graph.add(partial(_task, run, tuple(pieces)), key, [f[run] for f in forecasts], truths)
            if climatology is None
            else graph.add(
                partial(_task, run, tuple(pieces)),
                *(key, [f[run] for f in forecasts], truths, climatologies),
            )
            for run, key in enumerate(shared)
        ]
        tasks.append(leaves[0] if len(leaves) == 1 else graph.add(merge, leaves))
        pieces.clear()
        keys.clear()

    slices = [slices_of(cut) for cut in cuts]
    # Leads and places of some initialisations come together: they share steps of truth.
    for n, h, w, m in itertools.product(*(range(len(slices[axis])) for axis in (0, 2, 3, 1))):
        where = (n, m, h, w)
        at = tuple(axis[i] for axis, i in zip(slices, where, strict=True))
        steps = positions[at[:2]]
        chunks = np.unique(np.searchsorted(starts, steps, side="right") - 1)
        unique, index = np.unique(steps, return_inverse=True)
        pieces.append(Piece(at, steps, starts[chunks], index.reshape(steps.shape)))
        some: Any = None
        if climatology is not None:
            look_up = partial(_known, truth["time"].values[unique], at[2:])
            if known is not None:
                some = graph.add(look_up, known)
            else:  # only what is needed of a large one on chunks
                some = [graph.whole(array) for array in look_up(climatology, load=False)]
        forecasts = [[[block[where] for block in of_v] for of_v in run] for run in blocks]
        keys.append((forecasts, [[block[c, h, w] for c in chunks] for block in observed], some))
        size += 4 * len(observed) * int(np.prod([s.stop - s.start for s in at]))
        if size >= TASK:
            close()
            size = 0
    if pieces:
        close()
    while len(tasks) > 1:
        groups = (tasks[i : i + FAN] for i in range(0, len(tasks), FAN))
        tasks = [graph.add(merge, group) for group in groups]
    found = graph.compute(tasks[0], "active" if lazy else "threads")
    out: list[Parts] = [{} for _ in runs]
    for (run, *key), state in found.items():
        out[run][tuple(key)] = state
    return out


def _cuts(ds: xr.Dataset) -> tuple[tuple[int, ...], ...]:
    """Sizes of the pieces along each dim: dask's chunks, or time (and leads) cut to `PIECE`."""
    first = next(iter(ds.data_vars.values()))
    chunks = ds.unify_chunks().chunksizes
    rest = 4
    out: list[tuple[int, ...]] = []
    for size, dim in reversed(list(zip(first.shape, first.dims, strict=True))):
        step = max(1, min(size, PIECE // rest)) if len(out) >= 2 else size
        rest *= size
        own = tuple(min(step, size - a) for a in range(0, size, step))
        out.append(tuple(chunks.get(dim, own if not chunks else (size,))))
    return tuple(reversed(out))


def _used(truth: xr.Dataset, positions: np.ndarray) -> tuple[xr.Dataset, np.ndarray]:
    """Leave out what no forecast is of, where that costs no copy and spares reading."""
    steps = np.unique(positions)
    dense = steps[-1] - steps[0] < len(steps)
    if dense or truth.chunks or all(in_memory(v.variable) for v in truth.data_vars.values()):
        return truth.isel(time=slice(steps[0], steps[-1] + 1)), positions - steps[0]
    return truth.isel(time=steps), np.searchsorted(steps, positions)


# --- what is done to a piece ----------------------------------------------------------------------


def _known(
    times: np.ndarray, space: tuple[slice, ...], climatology: xr.Dataset, load: bool = True
) -> list[Any]:
    """Climatology of each variable at some times (T, H, W)."""
    dims = next(iter(climatology.data_vars.values())).dims[2:]
    found = climatology_at(climatology.isel(dict(zip(dims, space, strict=True))), times)
    return [array.to_numpy() if load else array.variable for array in found.data_vars.values()]


def _task(
    run: int,
    pieces: Sequence[Piece],
    job: Job,
    forecasts: Sequence[Sequence[Sequence[np.ndarray]]],
    truths: Sequence[Sequence[Sequence[np.ndarray]]],
    climatologies: Sequence[Sequence[np.ndarray]] | None = None,
) -> _RunParts:
    """Sums over some pieces; with each come the arrays of all variables (and members)."""
    known: list[Any] = list(climatologies) if climatologies else [None for _ in pieces]
    combine = np.stack if job.stacked else _mean
    out = []
    for piece, members, truth, climatology in zip(pieces, forecasts, truths, known, strict=True):
        forecast = [combine(of_variable) for of_variable in members]
        parts = _Sums(job, piece, forecast, truth, climatology).parts()
        out.append({(run, *key): state for key, state in parts.items()})
    return merge(out)


def _mean(members: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over members, added in their order: the same bits whatever the chunks."""
    if len(members) == 1:
        return members[0]
    total = members[0] + members[1]
    for other in members[2:]:
        total += other
    total /= len(members)
    return total


def merge(parts: Sequence[_RunParts]) -> _RunParts:
    """Add the sums that belong to one place, in the order in which they come."""
    out: _RunParts = {}
    for key, state in itertools.chain.from_iterable(part.items() for part in parts):
        out[key] = out[key] + state if key in out else state
    return out


class _Sums:
    """Sums over one piece, made from blocks of it that fit in the cache."""

    def __init__(
        self,
        job: Job,
        piece: Piece,
        forecasts: Sequence[np.ndarray],
        truths: Sequence[Sequence[np.ndarray]],
        climatology: Sequence[np.ndarray] | None,
    ) -> None:
        self.job, self.piece = job, piece
        self.forecasts, self.truths, self.climatology = forecasts, truths, climatology
        sizes = forecasts[0].shape[-4:]
        self.mask = job.mask[piece.at[2:]]
        self.any_mask = bool(self.mask.any())
        # By map, and what is not kept of that is added at the end; by place where that is kept.
        self.inner = job.keep if set(job.keep) & {2, 3} else (0, 1)
        # Arrays that came over a network may not lie on whole words, which changes sums' order.
        weights = np.require(job.weights[(slice(None), *piece.at[2:])], requirements=["C", "A"])
        # Where the weight is the same all along a row, sums of rows are enough.
        even = (weights == weights[:, :, :1]).all(axis=(1, 2)) & (3 not in self.inner)
        new = partial(_Total, weights, even, sizes, self.inner)
        self.totals: dict[tuple[str, str], list[_Total]] = {}
        self.frames: dict[tuple[str, str], np.ndarray] = {}
        for kind in job.kinds:
            for v in (FRAMES,) if "variable" in kind.dims else job.variables:
                if kind.name in job.of_frames:
                    self.frames[v, kind.name] = np.full((1, *sizes[:2]), np.nan)
                else:
                    sums = 3 if kind.statistic is _ACC else 1
                    self.totals[v, kind.name] = [new() for _ in range(sums)]
        self.there = {v: new() for v in job.variables} if job.masked else {}
        self.alone = None if job.masked else new().alone()
        self.hidden = dict.fromkeys(job.variables, 0)

        steps = list(_steps(sizes, bool(job.of_frames)))
        # New memory for every block would cost threads more than the sums do.
        most = max(int(np.prod([s.stop - s.start for s in at])) for at in steps)
        self.narrow, self.wide = np.empty(most, dtype=np.float32), np.empty((2, most))
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
        everywhere: Any = (..., *at)  # with an axis of members before, or not
        f = self.forecasts[i][everywhere]
        t = _take(self.truths[i], self.piece.starts, self.piece.steps[at[:2]], at[2:])
        hide = self.mask[at[2:]] if self.any_mask else None
        if job.masked:
            gap = job.gap(t)
            self.hidden[v] += int(np.count_nonzero(gap & ~self.mask[at[2:]]))
            hide = gap | self.mask[at[2:]]
            self.there[v].add(at, (~gap).astype(np.float64))
        if not self.totals and not np.isfinite(np.subtract(f, t).sum(dtype=np.float64)):
            raise self._not_finite(i)
        if not job.stacked:
            self._add_errors(i, at, f, t, hide)
        for kind in job.kinds:
            if kind.statistic in _OF_ERROR or "variable" in kind.dims:
                continue
            wide = [x.astype(np.float64, order="C") for x in (f, t)]
            if hide is not None:
                wide = [np.where(hide, 0.0, x) for x in wide]
            values = kind.statistic(*wide)
            expected = t.shape[:2] if kind.name in job.of_frames else t.shape
            if np.shape(values) != expected:
                raise InputError(
                    f"the statistic of {kind.name!r} must give an array of shape {expected} for "
                    f"truth of shape {t.shape}, found {np.shape(values)}"
                )
            if kind.name in job.of_frames:
                self.frames[v, kind.name][0][at[:2]] = values
                continue
            if hide is not None:  # 0 / 0 of a point that does not count must not reach the sum
                values = np.where(hide, 0.0, values)
            self.totals[v, kind.name][0].add(at, np.asarray(values, dtype=np.float64))
        return f, t

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
            elif kind.statistic is _ACC and self.climatology is not None:
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
            ("forecast", job.init[piece.at[0]], self.forecasts[i]),
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
        rest = tuple(1 + a for a in (0, 1) if a not in job.keep) if self.inner == (0, 1) else ()
        out: Parts = {}
        for key, values in self.frames.items():
            out[(*key, maps)] = WeightedMean(values, np.ones(values.shape))
        for i, v in enumerate(job.variables):
            there = self.there[v].sums() if self.alone is None else self.alone
            for kind in job.kinds:
                if (v, kind.name) not in self.totals:
                    continue
                total = np.stack([total.sums() for total in self.totals[v, kind.name]])
                if not np.isfinite(total).all():
                    raise self._not_finite(i)
                place = kept
                if kind.statistic is not _ACC:
                    state = WeightedMean(total[0].sum(rest), there.sum(rest))
                elif self.mask.shape == job.mask.shape:
                    scores, are = _correlations(total, there)
                    state = WeightedMean(scores.sum(rest), are.sum(rest))
                else:  # to be added to other parts of these maps
                    state, place = WeightedMean(total, there), maps
                out[v, kind.name, place] = state
            if self.hidden[v]:
                out[v, "hidden", ()] = WeightedMean(np.array(float(self.hidden[v])), np.ones(()))
        return out


class _Total:
    """Weighted sums (R, *keep) of a statistic over a piece (N, L, H, W), in float64.

    Matrix products, whose order of summation depends on BLAS and its threads, are not used: dot
    products of single rows do not.
    """

    def __init__(
        self, weights: np.ndarray, even: np.ndarray, sizes: tuple[int, ...], keep: tuple[int, ...]
    ) -> None:
        self.weights, self.even, self.sizes, self.keep = weights, even, sizes, keep
        self.letters = "r" + "".join("nlhw"[axis] for axis in keep)
        self.rows = np.zeros(sizes[:3]) if even.any() else None
        self.ones = np.ones(sizes[3])
        self.points = np.zeros((np.count_nonzero(~even), *(sizes[axis] for axis in keep)))

    def add(
        self, at: tuple[slice, ...], values: np.ndarray, times: np.ndarray | None = None
    ) -> None:
        """Take in a block: its values, or their products with others."""
        if self.rows is not None:
            np.vecdot(values, self.ones if times is None else times, out=self.rows[at[:3]])
        if len(self.points):
            values = values if times is None else values * times
            place = (slice(None), *(at[axis] for axis in self.keep))
            weights = self.weights[~self.even][:, at[2]]
            self.points[place] += np.einsum(f"nlhw,rhw->{self.letters}", values, weights)

    def sums(self) -> np.ndarray:
        """Sums over all that was taken in."""
        out = np.empty((len(self.weights), *self.points.shape[1:]))
        out[~self.even] = self.points
        if self.rows is not None:
            weights = self.weights[self.even][:, :, 0]
            out[self.even] = np.einsum(f"nlh,rh->{self.letters}", self.rows, weights)
        return out

    def alone(self) -> np.ndarray:
        """Sums of the weights alone."""
        one = np.einsum(f"nlhw,rhw->{self.letters}", np.ones((1, 1, *self.sizes[2:])), self.weights)
        times = np.prod([self.sizes[axis] for axis in (0, 1) if axis not in self.keep])
        return np.broadcast_to(one * times, (len(one), *self.points.shape[1:]))


def _steps(sizes: tuple[int, ...], whole: bool) -> Iterator[tuple[slice, ...]]:
    """Cut a piece (N, L, H, W) in blocks of about `BLOCK` bytes, within maps only if need be."""
    rows = max(1, BLOCK // (4 * sizes[3]))
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


def _correlations(sums: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of maps and which there are: a map without a point that counts is no map."""
    there = (weights > 0).astype(np.float64)
    return np.where(there > 0, correlation(*sums), 0.0), there


# --- what the pieces add up to --------------------------------------------------------------------


def gather(
    job: Job, parts: Parts, shape: tuple[int, ...], together: bool
) -> tuple[dict[tuple[str, str], WeightedMean], dict[str, int]]:
    """Put sums in their places: states (R, *keep) by variable and statistic, and points hidden.

    Statistics of frames are kept frame by frame, and become states of a metric here: the root and
    the logarithm of PSNR are taken of a frame, and the mean over frames is of these. With
    `together` there are states of all variables as well.
    """
    hidden = dict.fromkeys(job.variables, 0)
    found: dict[tuple[str, str], list[Any]] = {}
    for (v, name, place), state in parts.items():
        if name == "hidden":
            hidden[v] = int(state.total)
        else:
            found.setdefault((v, name), []).append((place, state))
    kinds = {kind.name: kind for kind in job.kinds}
    out: dict[tuple[str, str], WeightedMean] = {}
    frames: dict[tuple[str, str], np.ndarray] = {}
    rest = tuple(1 + axis for axis in (0, 1) if axis not in job.keep)
    for (v, name), placed in found.items():
        of_frames, first = name in job.of_frames, placed[0][1]
        cut = kinds[name].statistic is _ACC and first.total.ndim == 4  # sums of parts of maps
        sizes = shape[:2] if of_frames or cut else tuple(shape[axis] for axis in job.keep)
        total = np.zeros(first.total.shape[: first.total.ndim - len(sizes)] + sizes)
        weight = np.zeros(first.weight.shape[: first.weight.ndim - len(sizes)] + sizes)
        for place, state in placed:
            at: Any = (..., *(slice(*edges) for edges in place))
            total[at] += state.total
            weight[at] += state.weight
        if of_frames:
            frames[v, name] = total
        elif cut:
            out[v, name] = WeightedMean(*(x.sum(rest) for x in _correlations(total, weight)))
        else:
            out[v, name] = WeightedMean(total, weight)
    for name, kind in kinds.items() if together else ():
        if "variable" in kind.dims:  # has no value for one variable, unless that is all there is
            alone = frames[FRAMES, name] * (1.0 if len(job.variables) == 1 else np.nan)
            frames |= {(v, name): alone for v in job.variables}
        elif name in job.of_frames:  # a frame's mean is the mean over its channels
            frames[FRAMES, name] = np.mean([frames[v, name] for v in job.variables], axis=0)
        else:
            out[FRAMES, name] = WeightedMean.merge([out[v, name] for v in job.variables])
    for (v, name), values in frames.items():
        scores = kinds[name].finish(values)
        out[v, name] = WeightedMean(scores.sum(rest), np.ones(scores.shape).sum(rest))
    return out, hidden
