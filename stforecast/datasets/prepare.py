"""Any adapter's result as one zarr store that training reads at the speed of the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.axes import TIME
from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..errors import InputError
from ..files import locked, replacing
from ._journal import ORDER, Journal, Plan, Shard, widest
from ._workers import Done, each
from .content import Packing, Summary, combine_digests, cuts, digest, read, step_digests
from .joining import open_joined
from .periods import select_period, when
from .sources import READ_ERRORS, is_remote, is_zarr, open_lazy

logger = logging.getLogger(__name__)

CHUNK_BYTES = 4 * 2**20  # of float32, as read
SHARD_BYTES = 128 * 2**20  # as stored, before compression
WORK_BYTES = 2 * 2**30  # in memory, all workers together
_FORMAT = 1

Progress = Callable[[dict[str, Any]], None]


def prepare(
    source: xr.Dataset,
    store: str | os.PathLike[str],
    *,
    variables: str | Sequence[str] | None = None,
    period: str | int | None = None,
    chunks: int | None = None,
    shards: int | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a Dataset as a zarr store (version 3) that is fit for training.

    Chunks are whole maps of as many time steps as make 4 MiB of float32: a window or a shuffle
    buffer needs every place of some times, and 4 MiB is long enough for a disk to read at its
    speed and short enough for many to be in memory. Shards, the files, hold whole chunks, 128 MiB
    before compression: ten years of hourly maps are then tens of files and not tens of thousands.
    What the source stores as small integers with ``scale_factor`` and ``add_offset`` stays packed
    where every value comes back; all else is float32. The codec is Blosc-LZ4 with byte shuffle: of
    eight that were tried it decodes float32 fastest (1.4 to 1.6 GB/s, zstd 0.6 to 0.9) and packs
    weather as well as they do, by a factor of 1.6.

    The store appears under its name when it is complete and was read back and found equal. Until
    then it grows in ``.NAME.preparing`` beside it; the same call goes on there after a kill.
    Data count as the same by their labels, units and packing and by the values of three maps.

    Parameters
    ----------
    source : xarray.Dataset
        What an ``open_*()`` returned, or any Dataset that :func:`stforecast.conventions.\
canonicalize` takes.
    store : path-like
        The directory to write, ``NAME.zarr``.
    variables : str or sequence of str, optional
        What to take, by any known name. Default: all on time and a grid.
    period : str or int, optional
        Times to take, as :func:`select_period` reads them.
    chunks, shards : int, optional
        Time steps in a chunk and in a shard; `shards` must be a multiple of `chunks`.
    scheduler : {"threads", "synchronous"}, optional
        Default: the ``dask.distributed`` client if there is one (its workers must see the paths of
        the source and of the store), else threads.
    workers : int, optional
        Shards worked on at once. Default: as many as there are processors and as fit 2 GiB, at
        twice a shard and 64 MiB each.
    overwrite : bool
        Replace a store that is at `store`, and discard an unfinished one of other data.
    progress : callable, optional
        Called with ``{"stage", "step", "steps", "samples"}`` after every shard: ``"write"`` or
        ``"verify"``, shards done and to do in all, time steps in this one.

    Returns
    -------
    Path
        The store; :func:`open_prepared` opens it. Its attributes hold ``statistics`` (JSON: count,
        mean, std, min, max and nan_share of each variable over all times; for the normalisation
        of a model take those of the training period, as :func:`stforecast.fit` does) and
        ``data_fingerprint`` (see :func:`stforecast.datasets.content.fingerprint`).

    Raises
    ------
    InputError
        If the source cannot be used or read; if something else is at `store` or being prepared
        there; if another process prepares it; if the disk is full; if what was written does not
        read back equal.

    Examples
    --------
    >>> import tempfile
    >>> from stforecast.testing import make_weather
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     store = prepare(make_weather(steps=48), f"{directory}/small.zarr")
    ...     open_prepared(store).sizes["time"]
    48
    """
    target = Path(store)
    plan = _plan(source, variables, period, chunks, shards)
    work = target.with_name(f".{target.name}.preparing")
    if target.exists() or target.is_symlink():
        if not overwrite and _is_same(target, plan):
            logger.info("%s holds these data already (overwrite=True writes it anew)", target)
            return target
        if not overwrite or not is_zarr(target):
            raise InputError(
                f"{target} exists and holds something else than these data so prepared: choose "
                "another name" + (", or give overwrite=True" if is_zarr(target) else "")
            )
    with locked(work.with_name(f"{work.name}.lock"), f"preparing {target}"):
        journal = Journal.begin(work, plan, overwrite)
        try:
            while True:
                most = max(1, WORK_BYTES // journal.plan.worker_bytes)
                crew = workers or min(os.cpu_count() or 1, most)
                run = partial(each, scheduler=scheduler, workers=crew)
                try:
                    _fill(journal, run, progress)
                    break
                except _NotPackedError as error:
                    logger.warning("'%s' does not fit its packing: stored as float32", error)
                    journal.discard()
                    journal = Journal.begin(work, journal.plan.unpacked(str(error)), overwrite)
            _verify(journal, run, progress)
            with replacing(target) as whole:
                journal.store.rename(whole)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"{target}: the disk is full after {len(journal.done)} of "
                f"{len(journal.plan.shards)} shards: make room, and run the same again"
            ) from error
        finally:
            if not journal.done or not journal.store.exists():  # nothing to go on from
                journal.discard()
    return target


def open_prepared(
    store: str | os.PathLike[str],
    *,
    chunks: Any = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open what :func:`prepare` wrote.

    Parameters
    ----------
    store : path or URL
        The store.
    chunks : {"auto"}, None or mapping
        ``"auto"``: dask arrays, whole maps by about 16 MiB of time steps. None: xarray's own lazy
        arrays, quicker to feed from. A mapping: dask chunk sizes by dimension.
    storage_options : mapping, optional
        For fsspec, with a URL.

    Returns
    -------
    xarray.Dataset
        Canonical and lazy, with all coordinates along time that were prepared.

    Raises
    ------
    InputError
        If there is no prepared store.
    """
    source = str(store) if is_remote(store) else Path(store).expanduser()
    if isinstance(source, Path) and not is_zarr(source):
        found = "a file" if source.is_file() else "no zarr store" if source.exists() else "nothing"
        raise InputError(f"{source}: expected a store that prepare() wrote, found {found}")
    ds = _open(source, chunks, storage_options)
    if "data_fingerprint" not in ds.attrs:
        ds.close()
        raise InputError(
            f"{source}: no prepared store, it has no fingerprint. Open it with the adapter that "
            "describe() names"
        )
    return ds


def _open(source: str | Path, chunks: Any, storage_options: Mapping[str, Any] | None) -> xr.Dataset:
    raw = open_lazy(source, storage_options)
    along = {name: c.variable for name, c in raw.coords.items() if c.dims == (TIME,)}
    along = {name: c.load() for name, c in along.items() if name != TIME}
    names = raw.attrs.get(ORDER, list(raw.data_vars))
    raw.close()
    return open_joined([source], source, names, chunks, storage_options).assign_coords(along)


def statistics(ds: xr.Dataset) -> dict[str, dict[str, float]]:
    """Statistics of every variable over all times of a prepared store, from its attributes."""
    if "statistics" not in ds.attrs:
        raise InputError("the Dataset has no statistics: expected one from open_prepared()")
    return json.loads(ds.attrs["statistics"])


def recognise(path: Path) -> str | None:
    """Say in one line whether a path is what :func:`prepare` wrote; None if not."""
    if not is_zarr(path):
        return None
    with open_lazy(path) as ds:
        mark = ds.attrs.get("data_fingerprint")
    return None if mark is None else f"open_prepared: prepared for training, {mark[:19]}"


# --- what is to be written ------------------------------------------------------------------------


def _plan(
    source: Any,
    variables: str | Sequence[str] | None,
    period: str | int | None,
    chunks: int | None,
    shards: int | None,
) -> Plan:
    if isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"expected a Dataset to prepare, found the path {source}: open it with the adapter "
            "that datasets.describe(path) names"
        )
    ds, labels = canonicalize(source, variables)
    axis = labels.axes[TIME]
    for name, extra in labels.extras.items():  # clip, step: in the order of time
        if extra.dims == (axis.dim,) and extra.dtype.kind in "biufmM":
            values = extra.to_numpy() if axis.order is None else extra.to_numpy()[axis.order]
            ds = ds.assign_coords({name: (TIME, values, extra.attrs)})
    if period is not None:
        ds = select_period(ds, period)
    packings = {name: Packing.of(labels.fields[name]) for name in map(str, ds.data_vars)}
    sizes = {str(n): math.prod(v.shape[1:]) for n, v in ds.data_vars.items()}
    steps = ds.sizes[TIME]
    chunk = _whole("chunks", chunks, max(1, CHUNK_BYTES // (4 * max(sizes.values()))))
    chunk = min(chunk, steps)
    shard = _whole("shards", shards, max(1, SHARD_BYTES // (widest(ds, packings) * chunk)) * chunk)
    shard = min(shard, -(-steps // chunk) * chunk)
    if shard % chunk:
        raise InputError(f"shards ({shard} time steps) must be a multiple of chunks ({chunk})")
    probe = sorted({0, steps // 2, steps - 1})
    values = hashlib.sha256()
    for array in ds.data_vars.values():
        values.update(step_digests(array.isel({TIME: probe}).compute().to_numpy()))
    about = {
        "format": _FORMAT,
        "variables": ", ".join(map(str, ds.data_vars)),
        "times": f"{steps} from {when(ds[TIME].values[0])} to {when(ds[TIME].values[-1])} "
        f"({digest(ds[TIME].to_numpy()).hex()[:12]})",
        "grid": hashlib.sha256(json.dumps(Grid.of(ds).to_dict()).encode()).hexdigest()[:12],
        "values": values.hexdigest()[:12],
        "packing": {name: asdict(p) if p else None for name, p in packings.items()},
        "time steps in a chunk": chunk,
        "time steps in a shard": shard,
    }
    return Plan(ds, packings, chunk, shard, json.loads(json.dumps(about)))


def _whole(name: str, given: int | None, default: int) -> int:
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < 1:
        raise InputError(f"{name} must be a number of time steps of at least 1, found {given!r}")
    return int(given)


def _is_same(target: Path, plan: Plan) -> bool:
    """Whether a finished store holds what is planned."""
    try:
        with open_lazy(target) as there:
            return there.attrs.get("prepared_from") == json.dumps(plan.about)
    except (InputError, OSError):
        return False


# --- the work -------------------------------------------------------------------------------------


class _NotPackedError(Exception):
    """A variable has values that its packing cannot hold."""


def _fill(journal: Journal, run: Callable[..., None], progress: Progress | None) -> None:
    """Write the shards that are not there yet."""
    shards = [s for s in journal.plan.shards if s.key not in journal.done]

    def done(shard: Shard, entry: dict[str, Any], _: Any) -> None:
        journal.add(shard, entry)
        _tell(progress, "write", len(journal.done), journal.plan, shard)

    ds, packings = journal.plan.ds, journal.plan.packings
    run((partial(_write, _parts(ds, s), s, journal.store, packings) for s in shards), done)


def _verify(journal: Journal, run: Callable[..., None], progress: Progress | None) -> None:
    """Read everything back as others will, compare, and write statistics and fingerprint."""
    import zarr

    plan, wrong = journal.plan, []
    digests: dict[str, dict[str, bytes]] = {}

    def done(shard: Shard, entry: dict[str, Any], steps: dict[str, bytes]) -> None:
        digests[shard.key] = steps
        if entry["sha256"] != journal.done[shard.key]["sha256"]:
            wrong.append(shard)
        _tell(progress, "verify", len(digests), plan, shard)

    with _open(journal.store, None, None) as ds:
        run((partial(_reread, _parts(ds, s), s) for s in plan.shards), done)
        if wrong:
            journal.forget(s.key for s in wrong)
            raise InputError(
                f"{journal.store}: {len(wrong)} of {len(plan.shards)} shards do not read back as "
                f"they were written, the first that of {', '.join(wrong[0].names)} from time step "
                f"{wrong[0].start}: is the disk sound? Run the same again to write them anew"
            )
        joined, summaries = {}, {}
        for name in map(str, plan.ds.data_vars):
            keys = [s.key for s in plan.shards if name in s.names]
            joined[name] = b"".join(digests[k][name] for k in keys)
            parts = (Summary(**journal.done[k]["summary"][name]) for k in keys)
            summaries[name] = sum(parts, Summary()).to_dict()
        mark = combine_digests(ds, joined)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr, on what its third version has not specified yet
        zarr.open_group(journal.store, mode="r+").attrs.update(
            {
                "statistics": json.dumps(summaries),
                "data_fingerprint": mark,
                "prepared_from": json.dumps(plan.about),
            }
        )
        zarr.consolidate_metadata(journal.store)


def _tell(progress: Progress | None, stage: str, step: int, plan: Plan, shard: Shard) -> None:
    if progress is not None:
        of = {"step": step, "steps": len(plan.shards), "samples": shard.stop - shard.start}
        progress({"stage": stage, **of})


def _parts(ds: xr.Dataset, shard: Shard) -> dict[str, xr.Variable]:
    when = {TIME: slice(shard.start, shard.stop)}
    return {name: ds.variables[name].isel(when) for name in shard.names}


def _write(
    arrays: Mapping[str, xr.Variable],
    shard: Shard,
    store: Path,
    packings: Mapping[str, Packing | None],
) -> Done:
    """Read a stretch of the source, and write it as one shard a variable."""
    import zarr

    stored = {
        name: np.empty(array.shape, p.dtype if (p := packings[name]) else np.float32)
        for name, array in arrays.items()
    }
    summaries = dict.fromkeys(arrays, Summary())
    hashes = {name: hashlib.sha256() for name in arrays}
    for start, stop in cuts(next(iter(arrays.values()))):
        for name, array in arrays.items():
            values = numbers = read(array, start, stop)
            if np.isinf(values).any():
                raise InputError(
                    f"'{name}' holds infinite values in time steps {shard.start + start} to "
                    f"{shard.start + stop - 1}: set them to NaN, or correct the source"
                )
            if (packing := packings[name]) is not None:
                both = packing.encode(values)
                if both is None:
                    raise _NotPackedError(name)
                numbers, values = both
            stored[name][start:stop] = numbers
            summaries[name] += Summary.of(values)
            hashes[name].update(step_digests(values))
    for name, numbers in stored.items():
        # Chunks that hold only the fill value are written too: what is missing is then an error.
        file = zarr.open_array(store, path=name, mode="r+")
        file.with_config({"write_empty_chunks": True})[shard.start : shard.stop] = numbers
    entry = {
        "sha256": {name: h.hexdigest() for name, h in hashes.items()},
        "summary": {name: asdict(s) for name, s in summaries.items()},
    }
    return shard, entry, {}


def _reread(arrays: Mapping[str, xr.Variable], shard: Shard) -> Done:
    """Hash a stretch of the written store; a part that cannot be read has another hash."""
    digests = {}
    for name, array in arrays.items():
        try:
            digests[name] = b"".join(step_digests(read(array, a, b)) for a, b in cuts(array))
        except (InputError, *READ_ERRORS) as error:
            logger.warning("%s: %s", shard.key, error)
            digests[name] = b""
    hashes = {name: hashlib.sha256(d).hexdigest() for name, d in digests.items()}
    return shard, {"sha256": hashes}, digests
