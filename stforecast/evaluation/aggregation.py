"""Forecast and truth piece by piece, on whatever scheduler dask has, and what the pieces add up to.

A *piece* is a chunk of the forecast, whichever dims it is cut along. Its statistics are summed
where it is read, by dask's threads or by the workers of a cluster, and only the sums travel. What
the pieces are, and the order in which their sums are added, depend on the chunks alone: every
scheduler gives the same figures to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from ..baselines.climatology import climatology_at
from ..conventions.times import valid_times
from ..errors import InputError
from ..parallel import Graph, slices_of
from .alignment import Grids
from .metrics import FRAME_STATISTICS, METRICS, PERCEPTUAL, STATISTICS, WeightedMean, correlation

FRAMES = "frames"  # all variables of a forecast together: the channels of a clip
_ACC = "anomaly_correlation"
_OF_ERROR = ("error", "absolute_error", "squared_error")  # those made from the error, made once
_BLOCK = 2**20  # bytes of float32 worked on at once: more leave the cache, fewer wait for Python
_PIECE = 2**24  # bytes of a piece of data without chunks
_TASK = 2**22  # bytes of small chunks that make one task; a larger one is a task, where it was read
_NODE = 2**28  # bytes of a climatology that is read as a whole, once
_ZERO = 273.15  # K
_FAN = 8  # sums added in one task

# Sums by variable, statistic and place: (start, stop) along the dims that it keeps.
Parts = dict[tuple[str, str, tuple[tuple[int, int], ...]], WeightedMean]


@dataclass(frozen=True)
class Job:
    """What is asked of every piece. Axes are 0 to 3: initialisations, leads, rows and columns."""

    variables: tuple[str, ...]
    kinds: tuple[str, ...]
    of_frames: frozenset[str]  # kinds with one value for a frame
    functions: Mapping[str, Callable[..., np.ndarray]]  # statistics that are not of the error alone
    grids: np.ndarray  # weights (R, H, W)
    mask: np.ndarray  # (H, W): True where no grid has a weight
    keep: tuple[int, ...]  # axes of the result, ascending
    init: np.ndarray  # times (N,)
    leads: np.ndarray  # (L,)
    kelvin: frozenset[str]  # variables in K in forecast and truth
    masked: bool  # nan="mask"
    data_range: float
    perceptual: Any

    @classmethod
    def of(
        cls,
        forecast: xr.Dataset,
        kinds: set[str],
        grids: Grids,
        keep: Sequence[int],
        nan: str,
        data_range: float | None,
        perceptual: Any,
    ) -> Job:
        known: dict[str, Callable[..., np.ndarray]] = {**STATISTICS, **FRAME_STATISTICS}
        return cls(
            tuple(map(str, forecast.data_vars)),
            tuple(sorted(kinds)),
            frozenset(kind for kind in kinds if kind in FRAME_STATISTICS or kind == PERCEPTUAL),
            {kind: known[kind] for kind in kinds if kind in known and kind not in _OF_ERROR},
            np.stack(grids.arrays),
            grids.mask,
            tuple(sorted(keep)),
            forecast["time"].values,
            forecast["prediction_timedelta"].values,
            frozenset(str(v) for v, a in forecast.data_vars.items() if a.attrs.get("units") == "K"),
            nan == "mask",
            data_range or 1.0,
            perceptual,
        )

    @property
    def whole(self) -> bool:
        """Whether a statistic looks at all points of a map at once."""
        return bool(self.of_frames)


@dataclass(frozen=True)
class Piece:
    """Where a piece lies and which steps of truth it needs."""

    at: tuple[slice, ...]
    steps: np.ndarray  # (N, L): positions in truth's time
    starts: np.ndarray  # position of the first step of each chunk of truth that comes with it
    index: np.ndarray  # (N, L): positions among the different ones of `steps`


# --- the graph ------------------------------------------------------------------------------------


def compute(
    job: Job,
    forecast: xr.Dataset,
    truth: xr.Dataset,
    positions: np.ndarray,
    climatology: xr.Dataset | None,
) -> Parts:
    """Sum over all pieces: on dask's scheduler where the forecast is lazy, else on its threads."""
    if job.whole and forecast.chunks:
        whole = {d: -1 for d in forecast[job.variables[0]].dims[2:] if d in forecast.chunks}
        forecast = forecast.chunk(whole)
    lazy = any(forecast[v].chunks is not None for v in job.variables)
    cuts = _cuts(forecast)
    truth, positions = _used(truth, positions)
    times = _cuts(truth)[0]
    starts = np.cumsum([0, *times[:-1]])
    graph = Graph()
    blocks = [graph.blocks(forecast[v].variable, cuts) for v in job.variables]
    observed = [graph.blocks(truth[v].variable, (times, *cuts[2:])) for v in job.variables]
    shared = graph.put(job)
    known = None
    if climatology is not None and climatology.nbytes <= _NODE:
        climatology = climatology.compute()
    if climatology is not None and not climatology.chunks:
        known = graph.put(climatology)

    tasks, size = [], 0
    pieces: list[Piece] = []
    args: tuple[list[Any], ...] = ([], [], [])
    slices = [slices_of(cut) for cut in cuts]
    # Leads and places of some initialisations come together: they share steps of truth.
    for n, h, w, m in itertools.product(*(range(len(slices[axis])) for axis in (0, 2, 3, 1))):
        where = (n, m, h, w)
        at = tuple(axis[i] for axis, i in zip(slices, where, strict=True))
        steps = positions[at[:2]]
        chunks = np.unique(np.searchsorted(starts, steps, side="right") - 1)
        unique, index = np.unique(steps, return_inverse=True)
        pieces.append(Piece(at, steps, starts[chunks], index.reshape(steps.shape)))
        args[0].append([block[where] for block in blocks])
        args[1].append([[block[c, h, w] for c in chunks] for block in observed])
        if climatology is not None:
            look_up = partial(_known, truth["time"].values[unique], at[2:])
            if known is not None:
                args[2].append(graph.add(look_up, known))
            else:  # only what is needed of a large one on chunks
                some = look_up(climatology, load=False)
                args[2].append([graph.whole(array) for array in some])
        size += 4 * len(blocks) * int(np.prod([s.stop - s.start for s in at]))
        if size >= _TASK:
            tasks.append(graph.add(partial(_task, pieces), shared, *args))
            pieces, args, size = [], ([], [], []), 0
    if pieces:
        tasks.append(graph.add(partial(_task, pieces), shared, *args))
    while len(tasks) > 1:
        groups = (tasks[i : i + _FAN] for i in range(0, len(tasks), _FAN))
        tasks = [graph.add(_merge, group) for group in groups]
    return graph.compute(tasks[0], "active" if lazy else "threads")


def _cuts(ds: xr.Dataset) -> tuple[tuple[int, ...], ...]:
    """Sizes of the pieces along each dim: dask's chunks, or time (and leads) cut to `_PIECE`."""
    first = next(iter(ds.data_vars.values()))
    chunks = ds.unify_chunks().chunksizes
    rest = 4
    out: list[tuple[int, ...]] = []
    for size, dim in reversed(list(zip(first.shape, first.dims, strict=True))):
        step = max(1, min(size, _PIECE // rest)) if len(out) >= 2 else size
        rest *= size
        own = tuple(min(step, size - a) for a in range(0, size, step))
        out.append(tuple(chunks.get(dim, own if not chunks else (size,))))
    return tuple(reversed(out))


def _used(truth: xr.Dataset, positions: np.ndarray) -> tuple[xr.Dataset, np.ndarray]:
    """Leave out what no forecast is of, where that costs no copy and spares reading."""
    steps = np.unique(positions)
    dense = steps[-1] - steps[0] < len(steps)
    if dense or truth.chunks or all(v.variable._in_memory for v in truth.data_vars.values()):
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
    pieces: Sequence[Piece],
    job: Job,
    forecasts: Sequence[Sequence[np.ndarray]],
    truths: Sequence[Sequence[Sequence[np.ndarray]]],
    climatologies: Sequence[Sequence[np.ndarray]],
) -> Parts:
    """Sums over some pieces; with each come the arrays of all variables."""
    known: list[Any] = list(climatologies) if climatologies else [None for _ in pieces]
    each = zip(pieces, forecasts, truths, known, strict=True)
    return _merge([_Sums(job, *given).parts() for given in each])


def _merge(parts: Sequence[Parts]) -> Parts:
    """Add the sums that belong to one place, in the order in which they come."""
    out: Parts = {}
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
        sizes = forecasts[0].shape
        self.mask = job.mask[piece.at[2:]]
        self.any_mask = bool(self.mask.any())
        # By map, and what is not kept of that is added at the end; by place where that is kept.
        self.inner = job.keep if set(job.keep) & {2, 3} else (0, 1)
        # Arrays that came over a network may not lie on whole words, which changes sums' order.
        grids = np.require(job.grids[(slice(None), *piece.at[2:])], requirements=["C", "A"])
        # Grids with the same weight all along a row need the sums of rows only.
        even = (grids == grids[:, :, :1]).all(axis=(1, 2)) & (3 not in self.inner)
        new = partial(_Total, grids, even, sizes, self.inner)
        self.totals: dict[tuple[str, str], list[_Total]] = {}
        self.frames: dict[tuple[str, str], np.ndarray] = {}
        for v, kind in itertools.product(job.variables, job.kinds):
            if kind in job.of_frames:
                self.frames[v, kind] = np.full((1, *sizes[:2]), np.nan)
            else:
                self.totals[v, kind] = [new() for _ in range(3 if kind == _ACC else 1)]
        if PERCEPTUAL in job.kinds:
            self.frames[FRAMES, PERCEPTUAL] = np.full((1, *sizes[:2]), np.nan)
        self.there = {v: new() for v in job.variables} if job.masked else {}
        self.alone = None if job.masked else new().alone()
        self.hidden = dict.fromkeys(job.variables, 0)

        steps = list(_steps(sizes, job.whole))
        # New memory for every block would cost threads more than the sums do.
        most = max(int(np.prod([s.stop - s.start for s in at])) for at in steps)
        self.narrow, self.wide = np.empty(most, dtype=np.float32), np.empty((2, most))
        with np.errstate(invalid="ignore", over="ignore"):  # refused in words, below
            for at in steps:
                pictures = [self._add(i, at) for i in range(len(job.variables))]
                if PERCEPTUAL in job.kinds:
                    found = _look(job, pictures)
                    for v in (FRAMES, *(job.variables if len(job.variables) == 1 else ())):
                        self.frames[v, PERCEPTUAL][0][at[:2]] = found

    def _add(self, i: int, at: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Take in a block of variable `i`; gives the forecast and truth of it."""
        job, v = self.job, self.job.variables[i]
        f = self.forecasts[i][at]
        t = _take(self.truths[i], self.piece.starts, self.piece.steps[at[:2]], at[2:])
        hide = self.mask[at[2:]] if self.any_mask else None
        if job.masked:
            gap = np.isnan(t)
            self.hidden[v] += int(np.count_nonzero(gap & ~self.mask[at[2:]]))
            hide = gap | self.mask[at[2:]]
            self.there[v].add(at, (~gap).astype(np.float64))
        error = self._difference(0, f, t, hide)
        if not self.totals and not np.isfinite(error.sum()):
            raise self._not_finite(i)
        if v in job.kelvin and not any(s.start for s in at):
            self._check_zero(v, float(error.mean()))
        for kind in job.kinds:
            if kind == "error":
                self.totals[v, kind][0].add(at, error)
            elif kind == "squared_error":
                self.totals[v, kind][0].add(at, error, error)
            elif kind in job.functions:
                wide = [x.astype(np.float64, order="C") for x in (f, t)]
                if hide is not None:
                    wide = [np.where(hide, 0.0, x) for x in wide]
                if kind in job.of_frames:
                    self.frames[v, kind][0][at[:2]] = job.functions[kind](*wide, job.data_range)
                else:
                    self.totals[v, kind][0].add(at, job.functions[kind](*wide))
        if "absolute_error" in job.kinds:  # last, in place
            self.totals[v, "absolute_error"][0].add(at, np.abs(error, out=error))
        if self.climatology is not None:
            index, start = self.piece.index[at[:2]], np.zeros(1, dtype=int)
            c = _take([self.climatology[i]], start, index, at[2:])
            a, b = self._difference(0, f, c, hide), self._difference(1, t, c, hide)
            for total, (x, y) in zip(self.totals[v, _ACC], ((a, b), (a, a), (b, b)), strict=True):
                total.add(at, x, y)
        return f, t

    def _difference(
        self, which: int, a: np.ndarray, b: np.ndarray, hide: np.ndarray | None
    ) -> np.ndarray:
        """Difference of float32 in float64: rounded to half a float32 step of its own size.

        In C order, whatever that of `a` and `b`: the order of an array decides that of its sums.
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
                gap = np.isnan(observed)
                good |= gap if whose != "forecast" else gap[piece.index]
            if good.all():
                continue
            bad = np.argwhere(~good)
            hint = ', or nan="mask"' if whose == "truth" else ""
            return InputError(
                f"{job.variables[i]} of the {whose} is NaN or infinite: first at time "
                f"{labels[bad[0][0]]}, {len(bad)} values there and in the times near it; leave "
                "these times out, or mask points by weights= (an array that is 0 there)"
                f"{hint}"
            )
        return InputError(
            f"{job.variables[i]}: {', '.join(job.kinds)} overflow or are NaN, though forecast and "
            "truth are finite"
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
                if (v, kind) not in self.totals:
                    continue
                total = np.stack([total.sums() for total in self.totals[v, kind]])
                if not np.isfinite(total).all():
                    raise self._not_finite(i)
                if kind != _ACC:
                    state = WeightedMean(total[0].sum(rest), there.sum(rest))
                elif self.mask.shape == job.mask.shape:
                    scores, are = _correlations(total, there)
                    state = WeightedMean(scores.sum(rest), are.sum(rest))
                else:  # to be added to other parts of these maps
                    state = WeightedMean(total, there)
                out[v, kind, maps if state.total.ndim == 4 and kind == _ACC else kept] = state
            if self.hidden[v]:
                out[v, "hidden", ()] = WeightedMean(np.array(float(self.hidden[v])), np.ones(()))
        return out


class _Total:
    """Weighted sums (R, *keep) of a statistic over a piece (N, L, H, W), in float64.

    Matrix products, whose order of summation depends on BLAS and its threads, are not used: dot
    products of single rows do not.
    """

    def __init__(
        self, grids: np.ndarray, even: np.ndarray, sizes: tuple[int, ...], keep: tuple[int, ...]
    ) -> None:
        self.grids, self.even, self.sizes, self.keep = grids, even, sizes, keep
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
            weights = self.grids[~self.even][:, at[2]]
            self.points[place] += np.einsum(f"nlhw,rhw->{self.letters}", values, weights)

    def sums(self) -> np.ndarray:
        """Sums over all that was taken in."""
        out = np.empty((len(self.grids), *self.points.shape[1:]))
        out[~self.even] = self.points
        if self.rows is not None:
            weights = self.grids[self.even][:, :, 0]
            out[self.even] = np.einsum(f"nlh,rh->{self.letters}", self.rows, weights)
        return out

    def alone(self) -> np.ndarray:
        """Sums of the weights alone."""
        one = np.einsum(f"nlhw,rhw->{self.letters}", np.ones((1, 1, *self.sizes[2:])), self.grids)
        times = np.prod([self.sizes[axis] for axis in (0, 1) if axis not in self.keep])
        return np.broadcast_to(one * times, (len(one), *self.points.shape[1:]))


def _steps(sizes: tuple[int, ...], whole: bool) -> Iterator[tuple[slice, ...]]:
    """Cut a piece (N, L, H, W) in blocks of about `_BLOCK` bytes, within maps only if need be."""
    rows = max(1, _BLOCK // (4 * sizes[3]))
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


def _look(job: Job, pictures: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Perceptual distance of all channels together."""
    colours = ["red", "green", "blue"]
    order = colours if set(job.variables) == set(colours) else job.variables
    by_name = dict(zip(job.variables, pictures, strict=True))
    both = [np.stack([by_name[v][i] / job.data_range for v in order], axis=2) for i in (0, 1)]
    flat = [array.reshape(-1, *array.shape[2:]) for array in both]
    return job.perceptual(*flat).reshape(both[0].shape[:2])


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
    for (v, kind, place), state in parts.items():
        if kind == "hidden":
            hidden[v] = int(state.total)
        else:
            found.setdefault((v, kind), []).append((place, state))
    out: dict[tuple[str, str], WeightedMean] = {}
    frames: dict[tuple[str, str], np.ndarray] = {}
    finish = {METRICS[m].statistic: METRICS[m].finish for m in METRICS}  # one to one for frames
    rest = tuple(1 + axis for axis in (0, 1) if axis not in job.keep)
    for (v, kind), placed in found.items():
        of_maps = kind in job.of_frames
        cut = kind == _ACC and placed[0][1].total.ndim == 4
        sizes = shape[:2] if of_maps or cut else tuple(shape[axis] for axis in job.keep)
        first = placed[0][1]
        total = np.zeros(first.total.shape[: first.total.ndim - len(sizes)] + sizes)
        weight = np.zeros(first.weight.shape[: first.weight.ndim - len(sizes)] + sizes)
        for place, state in placed:
            at: Any = (..., *(slice(*edges) for edges in place))
            total[at] += state.total
            weight[at] += state.weight
        if of_maps:
            frames[v, kind] = total
        elif cut:
            out[v, kind] = WeightedMean(*(x.sum(rest) for x in _correlations(total, weight)))
        else:
            out[v, kind] = WeightedMean(total, weight)
    for kind in job.kinds if together else ():
        if kind in job.of_frames - {PERCEPTUAL}:  # a frame's mean is that over its channels'
            frames[FRAMES, kind] = np.mean([frames[v, kind] for v in job.variables], axis=0)
        elif kind != PERCEPTUAL:
            out[FRAMES, kind] = WeightedMean.merge([out[v, kind] for v in job.variables])
    for (v, kind), values in frames.items():
        scores = finish[kind](values)
        out[v, kind] = WeightedMean(scores.sum(rest), np.ones(scores.shape).sum(rest))
    return out, hidden
