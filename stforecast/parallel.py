"""Work that is the same on threads and on a cluster: graphs of dask, and independent jobs."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from .errors import InputError

T = TypeVar("T")


@cache
def survive_forks() -> None:
    """Let children that are forked from this process compute: threads do not come with them.

    Without it they wait for ever for the threads of torch (of OpenMP) and of dask that their
    parent had. A child computes with one thread of torch, as the workers of torch's loaders do.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
    threaded: Any = sys.modules.get("dask.threaded")
    if threaded is not None:
        threaded.default_pool = None
        threaded.pools.clear()


class Graph:
    """Tasks with string keys, over chunks of arrays that may be lazy or not.

    Like :func:`dask.delayed`, a call of which takes 2 ms where arrays of many chunks are among the
    arguments.
    """

    def __init__(self) -> None:
        self.name = f"stforecast-{uuid.uuid4().hex}"
        self.tasks: dict[Any, Any] = {}
        self.arrays: list[Any] = []

    def add(self, function: Callable[..., Any], *args: Any) -> str:
        """Add a task, whose arguments are keys or lists of keys; gives its key."""
        key = f"{self.name}-{len(self.tasks)}"
        self.tasks[key] = (function, *args)
        return key

    def put(self, value: Any) -> str:
        """Add a value that many tasks share, so that it goes to a worker once."""
        return self.add(_Value(value))

    def blocks(self, variable: xr.Variable, cuts: Sequence[Sequence[int]]) -> np.ndarray:
        """Keys of the pieces of a variable, by number along each dim.

        Parameters
        ----------
        variable : xarray.Variable
            Of dask, a file or memory.
        cuts : sequence of sequences of int
            Sizes of the pieces along each dim.
        """
        out = np.empty([len(cut) for cut in cuts], dtype=object)
        if variable.chunks is not None:
            array = variable.data.rechunk(tuple(map(tuple, cuts)))
            self.arrays.append(array)
            layer = array.dask.layers[array.name]
            views = layer.mapping if hasattr(layer, "mapping") else {}
            for where in np.ndindex(out.shape):
                key = (array.name, *where)
                # A view of a chunk is taken where it is used: a task for each costs more.
                view = views.get(key)
                taken = isinstance(view, tuple) and isinstance(view[0], itemgetter)
                out[where] = view if taken else key
            return out
        slices = [slices_of(cut) for cut in cuts]
        for where in np.ndindex(out.shape):
            at = tuple(axis[i] for axis, i in zip(slices, where, strict=True))
            out[where] = self.add(variable[at].to_numpy)
        return out

    def whole(self, variable: xr.Variable) -> Any:
        """Key of a variable in one piece."""
        return self.blocks(variable, [(size,) for size in variable.shape]).item()

    def compute(self, key: str, scheduler: str) -> Any:
        """Compute one task, on "threads" or the "active" scheduler, of a cluster for one."""
        import dask
        from dask.delayed import Delayed
        from dask.highlevelgraph import HighLevelGraph

        survive_forks()
        # Tasks of arrays are not fused: one that makes several variables must go on being shared.
        graph = HighLevelGraph.from_collections(self.name, self.tasks, self.arrays)
        options = {}
        if "distributed" in dask.config.config:  # data in memory travel within the graph
            options["distributed.admin.large-graph-warning-threshold"] = "1 TB"
        with dask.config.set(options):
            result = Delayed(key, graph, layer=self.name)
            return dask.compute(result, scheduler=None if scheduler == "active" else scheduler)[0]


class _Value:
    """A task that gives a value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


def slices_of(sizes: Sequence[int]) -> list[slice]:
    """Slices of pieces of these sizes, one after the other."""
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def each(
    jobs: Iterable[Callable[[], T]],
    done: Callable[[T], None],
    *,
    scheduler: str | None,
    workers: int,
) -> None:
    """Call independent jobs, and `done` with what each returns, one at a time.

    At an error no new job begins, and those that run come to their end before it is raised.

    Parameters
    ----------
    jobs : iterable of callables
        Those for a cluster are pickled.
    done : callable
        Called in this process.
    scheduler : {"threads", "synchronous"}, optional
        Default: the ``dask.distributed`` client if there is one, else threads.
    workers : int
        Threads.

    Raises
    ------
    InputError
        If there is no such scheduler.
    """
    if scheduler not in (None, "threads", "synchronous"):
        raise InputError(f"scheduler must be 'threads' or 'synchronous', found {scheduler!r}")
    client = _client() if scheduler is None else None
    if client is not None:
        return _on_cluster(client, jobs, done)
    if scheduler == "synchronous":
        for job in jobs:
            done(job())
        return None
    stop, one = threading.Event(), threading.Lock()

    def call(job: Callable[[], T]) -> None:
        try:
            if not stop.is_set():
                result = job()
                with one:
                    done(result)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(workers) as pool:  # which waits, after Ctrl-C too
        try:
            list(pool.map(call, jobs))
        finally:
            stop.set()
    return None


def _client() -> Any:
    """Return the current client of dask.distributed, or None."""
    distributed = sys.modules.get("distributed")  # who has a client has imported it
    if distributed is None:
        return None
    try:
        return distributed.default_client()
    except ValueError:
        return None


def _on_cluster(client: Any, jobs: Iterable[Callable[[], T]], done: Callable[[T], None]) -> None:
    queue = iter(jobs)
    most = 2 * max(1, sum(client.nthreads().values()))  # in flight: the cluster's memory is bounded
    running = sys.modules["distributed"].as_completed(
        [client.submit(job, pure=False) for job in itertools.islice(queue, most)]
    )
    try:
        for future in running:
            done(future.result())
            for job in itertools.islice(queue, 1):
                running.add(client.submit(job, pure=False))
    finally:
        client.cancel(list(running.futures))
