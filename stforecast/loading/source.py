"""A lazy data set, read as tensors: in blocks of whole stored chunks, ahead of need, by threads."""

from __future__ import annotations

import itertools
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from ..conventions import gate
from ..conventions.axes import TIME
from ..conventions.lazy import LazyView, below
from ..conventions.times import as_labels, time_differences
from ..datasets.known import add_known, by_lead
from ..datasets.lazy import Joined
from ..errors import InputError
from ..task import Task, refuse_months, window_starts
from .unchanged import Unchanged, refuse

Job = TypeVar("Job")
Result = TypeVar("Result")

_SWEEP_BYTES = 2**25  # of a block where the data are read once, in order


class Source:
    """All channels of a data set as tensors (steps, C, H, W), read where and when asked for.

    Parameters
    ----------
    ds : xarray.Dataset
        As :func:`stforecast.conventions.canonicalize` takes it; best opened with ``chunks=None``,
        but dask will do: its chunks are read whole, each by the thread that asks for it.
    task : Task
        Its channels are read, its NaN policy holds, and its windows are looked for.
    what : str
        What the data are, for messages: "training", "validation".
    rollout : int
        Applications of a network that a window has targets for: its task is
        :meth:`stforecast.Task.rolled` then.

    Raises
    ------
    InputError
        If the data do not fit the task, or have no window.
    """

    def __init__(
        self, ds: xr.Dataset, task: Task, what: str = "training", rollout: int = 1
    ) -> None:
        task = task.rolled(rollout)
        ds, still, led = add_known(ds, task)
        read = [v for v in task.channels if v not in led]
        self.ds, labels = gate.canonicalize(ds, read, form="history")
        apart = {name: by_lead(one, name, self.ds, task) for name, one in led.items()}
        for variables in apart.values():
            self.ds = self.ds.assign(variables)
        #: Forecasts among what is known, and the channels that each takes, one a lead time.
        self.led = {name: tuple(variables) for name, variables in apart.items()}
        moving = [v for v in task.channels if v not in still]
        #: What is read at each time, in this order.
        self.channels = tuple(c for v in moving for c in self.led.get(v, (v,)))
        self.task, self.what = task, what
        self.invented = "clip" in ds.coords  # times of clips are no dates
        self._names = {v: labels.fields[v].encoding.get("source") for v in read}
        self._file = labels.encoding.get("source")
        files = [self._file, *self._names.values(), *labels.encoding.get("sources", ())]
        self._sources = sorted({str(file) for file in files if file is not None})
        self._unchanged = Unchanged(self._sources)
        self._sums: dict[tuple[str, int, int], tuple[int, ...]] = {}  # of what was read
        time = self.ds.indexes[TIME]
        refuse_months(time)
        gate.check(self.ds, read, timestep=task.step, nan=False)
        self.starts = window_starts(time, task.step, task.window)
        if len(self.starts) == 0:
            shorter = "shorter Task" if rollout == 1 else f"roll-out shorter than rollout={rollout}"
            raise InputError(
                f"the {what} data have no window of {task.window} steps ({task}) without a gap: "
                f"found {len(time)} times from {time[0]} to {time[-1]}; give a longer period or a "
                f"{shorter}"
            )
        self._variables = {v: self.ds.variables[v] for v in self.channels}
        #: Fields (H, W) that never change.
        self.still = {v: self._field(v) for v in still}
        space = self._variables[task.channels[0]].shape[1:]
        self.shape = (len(time), len(self.channels), *space)

    def _field(self, name: str) -> np.ndarray:
        field = self.ds.variables[name][0].to_numpy().astype(np.float32)
        if not np.isfinite(field).all():
            raise InputError(f"'{name}' is NaN or infinite at some points: fill them")
        return field

    @property
    def nbytes(self) -> int:
        """Size of the data in memory."""
        return 4 * int(np.prod(self.shape, dtype=np.int64))

    @property
    def step_bytes(self) -> int:
        """Size of one time step in memory."""
        return self.nbytes // self.shape[0]

    def read(self, first: int, stop: int) -> Tensor:
        """Read steps of the data set.

        Parameters
        ----------
        first, stop : int
            From `first` up to `stop`.

        Returns
        -------
        Tensor of shape (stop - first, C, H, W), float32

        Raises
        ------
        InputError
            If a file cannot be read or has changed, which is named, or holds what the task refuses.
        """
        self._unchanged.check()
        parts = [self._values(name, first, stop) for name in self.channels]
        self._unchanged.check()  # it may have been cut while it was read
        block = parts[0][:, None] if len(parts) == 1 else np.stack(parts, axis=1)
        return torch.from_numpy(np.require(block, np.float32, ["C", "W"]))

    def _values(self, name: str, first: int, stop: int) -> np.ndarray:
        variable = self._variables[name][first:stop]
        try:
            # No scheduler of dask's own: the threads here are the ones that read ahead.
            values = variable.compute(scheduler="synchronous").to_numpy()
        except InputError:
            raise
        except Exception as error:  # whatever the library of a file's format raises
            time = self.ds.indexes[TIME]
            where = self._names.get(name) or self._file or f"the {self.what} data"
            raise InputError(
                f"{where}: '{name}' cannot be "
                f"read from {time[first]} to {time[stop - 1]} ({type(error).__name__}: {error})"
            ) from error
        masked = self.task.nan == "mask"
        # A sum is quick and finite as long as all its terms are (and it does not overflow).
        if np.isinf(values).any() if masked else not np.isfinite(values.sum()):
            bad = (np.isinf(values) if masked else ~np.isfinite(values)).any(axis=(1, 2))
            if bad.any():
                when = self.ds.indexes[TIME][first + int(bad.argmax())]
                raise InputError(
                    f"the {self.what} data hold {'' if masked else 'NaN or '}infinite values: "
                    f"{name} at {bad.sum()} of the {stop - first} times read, first at {when}; "
                    "fill or drop them before training"
                    + ("" if masked else ", or say that they are missing: Task(..., nan='mask')")
                )
        if self._sources:
            bits = values.view(np.uint32)
            # A tenth of the time of the sum above; it tells no constant from another.
            now = (int(np.bitwise_xor.reduce(bits, axis=None)), int(bits.flat[0]))
            if self._sums.setdefault((name, first, stop), now) != now:
                times = self.ds.indexes[TIME][[first, stop - 1]]
                refuse(", ".join(self._sources[:8]), f"'{name}' from {times[0]} to {times[1]}")
        return values

    def blocks(self, steps: int) -> np.ndarray:
        """Bounds (0, ..., N) of blocks of at most `steps` steps, made of whole stored chunks.

        A chunk of more steps is a block by itself. Where nothing is known of chunks, blocks end at
        gaps in time if they can: no window goes across.
        """
        n = self.shape[0]
        known = [
            edges for v in self._variables.values() if (edges := stored_edges(v, TIME)) is not None
        ]
        stored = min(known, key=len) if known else None
        gaps = np.flatnonzero(time_differences(self.ds[TIME].values) != self.task.step)
        ends = np.append(gaps + 1 if stored is None else stored, n)
        bounds = [0]
        while bounds[-1] < n:
            reach = bounds[-1] + steps
            after = int(np.searchsorted(ends, reach, side="right"))
            if after and ends[after - 1] > bounds[-1]:
                reach = int(ends[after - 1])
            elif stored is not None:
                reach = int(ends[after])
            bounds.append(min(reach, n))
        return np.array(bounds)

    def select(self, init_time: Any) -> np.ndarray:
        """First steps of the windows that forecast from the times `init_time`.

        Raises
        ------
        InputError
            If one of them has no complete window of input and target.
        """
        index = self.ds.indexes[TIME]
        times = np.atleast_1d(as_labels(index, init_time))
        starts = index.get_indexer(pd.Index(times)) - self.task.history + 1
        lacking = np.flatnonzero(~np.isin(starts, self.starts))
        if len(lacking) or not len(times):
            raise InputError(
                f"{len(lacking)} of the {len(times)} times in init_time have no complete window "
                f"in the {self.what} data{f', first {times[lacking[0]]}' if len(lacking) else ''} "
                f"({self.task})"
            )
        return np.unique(starts)

    def sweep(self, every: int = 1) -> Iterator[tuple[int, int, Tensor]]:
        """Read all of the data once, in order, or every `every`-th block of about 32 MiB.

        Yields
        ------
        first, new : int
            The block's first step, and how many of its steps were in the block before: so many
            that every window lies in one block.
        block : Tensor of shape (steps, C, H, W)
        """
        overlap, none = (
            self.task.window - 1,
            torch.empty(0, *self.shape[1:], dtype=torch.float32, device="cpu"),
        )
        bounds = self.blocks(max(1, _SWEEP_BYTES // self.step_bytes)).tolist()
        spans, end, last = list(itertools.pairwise(bounds))[::every], 0, none
        with ReadAhead(spans, lambda span: self.read(*span), depth=2) as ahead:
            for (first, stop), block in ahead:
                block = torch.cat([last if first == end else none, block])
                yield first - (len(block) - (stop - first)), len(block) - (stop - first), block
                end, last = stop, block[max(0, len(block) - overlap) :].clone()


class ReadAhead(Generic[Job, Result]):
    """Results of jobs, in order, worked on by threads before they are asked for.

    Parameters
    ----------
    jobs : iterable
        Read only as far as needed; it may have no end. No job may hold on to this object.
    work : callable
        Done in the threads. What it raises is raised where its result is asked for.
    depth : int
        Jobs done or under way that have not been asked for, at most.
    """

    def __init__(
        self, jobs: Iterable[Job], work: Callable[[Job], Result], depth: int, threads: int = 0
    ) -> None:
        self._jobs, self._work, self._depth = iter(jobs), work, depth
        workers = min(depth, threads or reader_threads())
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="stforecast-read")
        self._pending: deque[tuple[Job, Future[Result]]] = deque()
        # Forgotten without close(): let the threads end, without waiting for them.
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[Job, Result]]:
        return self

    def __next__(self) -> tuple[Job, Result]:
        self._submit()
        if not self._pending:
            raise StopIteration
        job, future = self._pending.popleft()
        try:
            return job, future.result()
        except BaseException:
            self.close()
            raise

    def _submit(self) -> None:
        while len(self._pending) < self._depth:
            try:
                job = next(self._jobs)
            except StopIteration:
                return
            self._pending.append((job, self._pool.submit(self._work, job)))

    def close(self) -> None:
        """Drop what is not done; wait for what is under way."""
        self._pending.clear()
        self._jobs = iter(())
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ReadAhead[Job, Result]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def reader_threads() -> int:
    """Threads that read: as many as there are processors, up to four."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


def stored_edges(variable: xr.Variable, dim: Any) -> np.ndarray | None:
    """Positions along `dim` at which a stored chunk begins, without 0; None where any would do.

    Looks through xarray's lazy layers, down to what the file says. If it finds nothing it knows,
    that costs speed only: chunks that are cut are decoded twice.
    """
    size = variable.sizes[dim]
    if variable.chunks is not None:
        return np.cumsum(variable.chunksizes[dim])[:-1]
    if (found := below(variable, variable.get_axis_num(dim))) is None:
        return None
    data, axis, offset = found
    edges: np.ndarray | None = None
    if isinstance(data, LazyView):
        if data.dims[axis] not in data.source.dims:
            return None
        edges = stored_edges(data.source, data.dims[axis])
    elif isinstance(data, Joined):
        lengths = np.diff(data.ends, prepend=0) if axis == data.axis else [data.shape[axis]]
        begins = np.cumsum([0, *lengths])
        parts = [stored_edges(piece, piece.dims[axis]) for _, piece in data.pieces]
        known = [b + p for b, p in zip(begins, parts, strict=False) if p is not None]
        edges = np.unique(np.concatenate([begins[1:-1], *known]))
    elif length := (variable.encoding.get("preferred_chunks") or {}).get(dim):
        edges = np.arange(length, offset + size, length)
    if edges is None:
        return None
    edges = edges - offset
    return edges[(edges > 0) & (edges < size)].astype(np.int64)
