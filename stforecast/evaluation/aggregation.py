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
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from ..baselines.lookup import climatology_at
from ..conventions.lazy import in_memory
from ..parallel import Graph, slices_of
from .job import Job, Piece
from .means import ExactMean, ExactSum, WeightedMean
from .metrics import anomaly_products
from .sums import FRAMES, Parts, Sums, correlations

PIECE = 2**24  # bytes of a piece of data without chunks
TASK = 2**22  # bytes of small chunks that make one task; a larger one is a task, where it was read
NODE = 2**28  # bytes of a climatology that is read as a whole, once
FAN = 8  # sums added in one task

# The same by the number of a run and these three.
_RunParts = dict[tuple[int, str, str, tuple[tuple[int, int], ...]], Any]


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
    if any(j.whole for j, _ in runs) and first.chunks:
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
    out = []
    for piece, members, truth, climatology in zip(pieces, forecasts, truths, known, strict=True):
        # Members are put together block by block: a copy of all would be as large as they are.
        forecast = [some if job.stacked else [_mean(some)] for some in members]
        parts = Sums(job, piece, forecast, truth, climatology).parts()
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


# --- what the pieces add up to --------------------------------------------------------------------


def gather(
    job: Job, parts: Parts, shape: tuple[int, ...], together: bool
) -> tuple[dict[tuple[str, str], Any], dict[str, int]]:
    """Put sums in their places: states (R, G, *keep) by variable and statistic, and points hidden.

    Statistics of maps are kept map by map, and become states of a metric here: the root and
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
    out: dict[tuple[str, str], Any] = {}
    frames: dict[tuple[str, str], np.ndarray] = {}
    kept = tuple(shape[axis] for axis in job.keep)
    for (v, name), placed in found.items():
        kind = kinds[name]
        whole = _placed(placed, shape[:2] if kind.of_maps else kept)
        if not kind.of_maps:
            out[v, name] = whole
        elif kind.of_frames:
            frames[v, name] = whole.total
        else:
            cut = kind.statistic is anomaly_products  # sums of what may be parts of maps
            scores, there = correlations(whole) if cut else (whole.total, whole.weight)
            out[v, name] = WeightedMean(*(job.groups.sum(x, job.keep) for x in (scores, there)))
    for name, kind in kinds.items() if together else ():
        if "variable" in kind.dims:  # has no value for one variable, unless that is all there is
            alone = frames[FRAMES, name] * (1.0 if len(job.variables) == 1 else np.nan)
            frames |= {(v, name): alone for v in job.variables}
        elif name in job.of_frames:  # a frame's mean is the mean over its channels
            frames[FRAMES, name] = np.mean([frames[v, name] for v in job.variables], axis=0)
        else:
            states = [out[v, name] for v in job.variables]
            out[FRAMES, name] = type(states[0]).merge(states)
    for (v, name), values in frames.items():
        scores = kinds[name].finish(values)
        out[v, name] = WeightedMean(
            *(job.groups.sum(x, job.keep) for x in (scores, np.ones(scores.shape)))
        )
    return out, hidden


def _placed(placed: Sequence[Any], sizes: tuple[int, ...]) -> Any:
    """Put states in their places along their last axes, which have these sizes."""
    first = placed[0][1]
    out: Any
    if isinstance(first, ExactMean):
        out = ExactMean(first.total.enlarged(sizes), first.weight.enlarged(sizes))
    else:
        pair = (first.total, first.weight)
        out = WeightedMean(*(np.zeros(x.shape[: x.ndim - len(sizes)] + sizes) for x in pair))
    for place, state in placed:
        at: Any = (..., *(slice(*edges) for edges in place))
        for whole, part in ((out.total, state.total), (out.weight, state.weight)):
            if isinstance(whole, ExactSum):
                whole.put(at, part)
            else:
                whole[at] += part
    return out
