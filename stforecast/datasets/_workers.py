"""Many independent jobs, through dask: threads, or the workers of a cluster."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import InputError
from ._journal import Shard

#: What a job returns: its shard, what the journal writes down, the digests of its steps.
Done = tuple[Shard, dict[str, Any], dict[str, bytes]]


def each(
    jobs: Iterable[Callable[[], Done]],
    done: Callable[..., None],
    *,
    scheduler: str | None,
    workers: int,
) -> None:
    """Call all jobs, `workers` at once, and `done` with what each returns, one at a time.

    At an error no new job begins, and those that run come to their end before it is raised.
    """
    if scheduler not in (None, "threads", "synchronous"):
        raise InputError(f"scheduler must be 'threads' or 'synchronous', found {scheduler!r}")
    client = _client() if scheduler is None else None
    if client is not None:
        return _on_cluster(client, jobs, done)
    if scheduler == "synchronous":
        for job in jobs:
            done(*job())
        return None
    import dask

    stop, one = threading.Event(), threading.Lock()

    def call(job: Callable[[], Done]) -> Exception | None:
        try:
            if not stop.is_set():
                result = job()
                with one:
                    done(*result)
        except Exception as error:
            stop.set()
            return error
        return None

    with ThreadPoolExecutor(workers) as pool:  # which waits, after Ctrl-C too
        try:
            tasks = [dask.delayed(call, pure=False)(job) for job in jobs]
            errors = dask.compute(*tasks, scheduler="threads", pool=pool, optimize_graph=False)
        finally:
            stop.set()
    for error in filter(None, errors):
        raise error
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


def _on_cluster(client: Any, jobs: Iterable[Callable[[], Done]], done: Callable[..., None]) -> None:
    queue = iter(jobs)
    most = 2 * max(1, sum(client.nthreads().values()))  # in flight: the cluster's memory is bounded
    running = sys.modules["distributed"].as_completed(
        [client.submit(job, pure=False) for job in itertools.islice(queue, most)]
    )
    try:
        for future in running:
            done(*future.result())
            for job in itertools.islice(queue, 1):
                running.add(client.submit(job, pure=False))
    finally:
        client.cancel(list(running.futures))
