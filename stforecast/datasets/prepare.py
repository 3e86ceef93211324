"""Any adapter's result as one zarr store that training reads at the speed of the disk."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.axes import TIME, Y
from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..errors import InputError
from ..parallel import each
from ..storing import Unfinished, write_region
from .backends import READ_ERRORS, Reading, is_remote, is_zarr, open_lazy
from .content import (
    BLOCK_BYTES,
    Packing,
    Summary,
    combine_digests,
    cuts,
    digest,
    read,
    step_digests,
)
from .joining import open_joined, some
from .periods import select_period, when

logger = logging.getLogger(__name__)

CHUNK_BYTES = 4 * 2**20  # of float32, as read
SHARD_BYTES = 128 * 2**20  # as stored, before compression
WORK_BYTES = 2 * 2**30  # in memory, all workers together
_FORMAT = 1
_ORDER = "variables"  # the attribute that holds their order: zarr's is the alphabet's

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
    if target.exists() or target.is_symlink():
        if not overwrite and _is_same(target, plan):
            logger.info("%s holds these data already (overwrite=True writes it anew)", target)
            return target
        if not overwrite or not is_zarr(target):
            raise InputError(
                f"{target} exists and holds something else than these data so prepared: choose "
                "another name" + (", or give overwrite=True" if is_zarr(target) else "")
            )
    growing = Unfinished(target, "preparing", "shards", len(plan.shards))
    with growing.held():
        plan = _begin(growing, plan, overwrite)
        while True:
            most = max(1, WORK_BYTES // plan.worker_bytes)
            crew = workers or min(os.cpu_count() or 1, most)
            run = partial(each, scheduler=scheduler, workers=crew)
            try:
                _fill(growing, plan, run, progress)
                break
            except _NotPackedError as error:
                logger.warning("'%s' does not fit its packing: stored as float32", error)
                plan = plan.unpacked(str(error))
                plan.lay_out(growing)
        _verify(growing, plan, run, progress)
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
        As in :func:`open_weatherbench`.

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
    reading = Reading(storage_options)
    raw = open_lazy(source, reading)
    along = {name: c.variable for name, c in raw.coords.items() if c.dims == (TIME,)}
    along = {n: c.load().drop_encoding() for n, c in along.items() if n != TIME}
    names = raw.attrs.get(_ORDER, list(raw.data_vars))
    raw.close()
    return open_joined([source], source, names, chunks, reading).assign_coords(along)


def statistics(ds: xr.Dataset) -> dict[str, dict[str, float]]:
    """Read the statistics of a prepared store from its attributes.

    Parameters
    ----------
    ds : xarray.Dataset
        From :func:`open_prepared`.

    Returns
    -------
    dict of str to dict
        For each variable ``count``, ``mean``, ``std``, ``min``, ``max`` (in its units) and
        ``nan_share``, over all times and places; NaN are left out, None stands for what has no
        value.

    Raises
    ------
    InputError
        If `ds` is another Dataset.
    """
    if "statistics" not in ds.attrs:
        raise InputError("the Dataset has no statistics: expected one from open_prepared()")
    return json.loads(ds.attrs["statistics"])


def recognise(path: Path) -> str | None:
    """Say in one line whether a path is what :func:`prepare` wrote; None if not."""
    if not (is_remote(path) or is_zarr(path)):
        return None
    with open_lazy(path) as ds:
        mark = ds.attrs.get("data_fingerprint")
    return None if mark is None else f"open_prepared: prepared for training, {mark[:19]}"


# --- what is to be written ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shard:
    """A stretch of time of one variable or a few: a file each, written by one worker at once."""

    names: tuple[str, ...]
    start: int
    stop: int

    @property
    def region(self) -> str:
        return f"{','.join(self.names)}/{self.start}"

    def of(self, ds: xr.Dataset) -> dict[str, xr.Variable]:
        here = {TIME: slice(self.start, self.stop)}
        return {name: ds.variables[name].isel(here) for name in self.names}


@dataclass(frozen=True)
class _Plan:
    """What is to be written, and how."""

    ds: xr.Dataset  # canonical
    packings: Mapping[str, Packing | None]
    chunk: int  # in time steps, as the next
    shard: int
    about: Mapping[str, Any]  # to know the same data and settings again, after a kill

    @property
    def shards(self) -> list[_Shard]:
        """All of them, in order of time."""
        names, steps = [str(n) for n in self.ds.data_vars], self.ds.sizes[TIME]
        # The channels of a clip are decoded together, so they are written together.
        together = [tuple(names)] if Y in self.ds.dims else [(n,) for n in names]
        starts = range(0, steps, self.shard)
        return [_Shard(of, a, min(a + self.shard, steps)) for a in starts for of in together]

    @property
    def worker_bytes(self) -> int:
        """What a worker needs: the numbers of a shard, compressed too, and what it reads."""
        most = max(len(s.names) for s in self.shards) * self.shard * _widest(self.ds, self.packings)
        return 2 * most + 4 * BLOCK_BYTES

    def unpacked(self, name: str) -> _Plan:
        """Return the plan with one variable as float32."""
        return replace(self, packings={**self.packings, name: None})

    def lay_out(self, growing: Unfinished) -> None:
        """Write everything but the data: coordinates, attributes, the form of the arrays."""
        import dask.array as da

        template = self.ds.drop_encoding()
        template.attrs[_ORDER] = [str(n) for n in self.ds.data_vars]
        encoding: dict[Any, dict[str, Any]] = {}
        for name, array in self.ds.data_vars.items():
            space, packing = array.shape[1:], self.packings[str(name)]
            nothing = da.zeros(array.shape, dtype=np.float32, chunks=(self.shard, *space))
            template[name] = (array.dims, nothing, array.attrs)
            encoding[name] = {
                "chunks": (self.chunk, *space),
                "shards": (self.shard, *space),
                **(packing.encoding if packing else {"dtype": "float32", "_FillValue": np.nan}),
            }
        unpacked = [n for n, p in self.about["packing"].items() if p and not self.packings[n]]
        growing.begin({**self.about, "unpacked": unpacked}, template, encoding)


def _widest(ds: xr.Dataset, packings: Mapping[str, Packing | None]) -> int:
    """Bytes of the largest map as it is stored."""
    of = {n: np.dtype(p.dtype).itemsize if p else 4 for n, p in packings.items()}
    return max(of[str(n)] * math.prod(v.shape[1:]) for n, v in ds.data_vars.items())


def _plan(
    source: Any,
    variables: str | Sequence[str] | None,
    period: str | int | None,
    chunks: int | None,
    shards: int | None,
) -> _Plan:
    if isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"expected a Dataset to prepare, found the path {source}: open it with the adapter "
            "that datasets.describe(path) names"
        )
    ds, labels = canonicalize(source, variables, form="history")
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
    chunk = _steps("chunks", chunks, max(1, CHUNK_BYTES // (4 * max(sizes.values()))))
    chunk = min(chunk, steps)
    shard = _steps("shards", shards, max(1, SHARD_BYTES // (_widest(ds, packings) * chunk)) * chunk)
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
    return _Plan(ds, packings, chunk, shard, json.loads(json.dumps(about)))


def _steps(name: str, given: int | None, default: int) -> int:
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < 1:
        raise InputError(f"{name} must be a number of time steps of at least 1, found {given!r}")
    return int(given)


def _is_same(target: Path, plan: _Plan) -> bool:
    """Whether a finished store holds what is planned."""
    try:
        with open_lazy(target) as there:
            return there.attrs.get("prepared_from") == json.dumps(plan.about)
    except (InputError, OSError):
        return False


def _begin(growing: Unfinished, plan: _Plan, overwrite: bool) -> _Plan:
    """Take up what a killed call left, or lay out a new store."""
    begun = growing.read()
    if begun is not None:
        changed = [k for k, v in plan.about.items() if begun.get(k) != v]
        if not changed:
            done = len(growing.done)
            logger.info("going on with %s: %d of %d shards are done", growing.work, done,
                        growing.total)  # fmt: skip
            return replace(plan, packings={**plan.packings, **dict.fromkeys(begun["unpacked"])})
        if not overwrite:
            told = [k for k in changed if k not in ("grid", "packing", "values")]
            differs = "; ".join(
                f"{k}: {begun.get(k)} there, {plan.about[k]} asked for" for k in told
            )
            raise InputError(
                f"{growing.work}: an unfinished preparation of other data, or with other settings, "
                f"is there; {differs or f'its {some(changed)} differ'}. Run that one to its end, "
                "give overwrite=True to discard it, or choose another name"
            )
    plan.lay_out(growing)
    return plan


# --- the work -------------------------------------------------------------------------------------


class _NotPackedError(Exception):
    """A variable has values that its packing cannot hold."""


def _fill(
    growing: Unfinished, plan: _Plan, run: Callable[..., None], progress: Progress | None
) -> None:
    """Write the shards that are not there yet."""

    def done(result: tuple[_Shard, dict[str, Any]]) -> None:
        growing.note(result[0].region, result[1])
        _tell(progress, "write", len(growing.done), growing.total, result[0])

    missing = [s for s in plan.shards if s.region not in growing.done]
    run((partial(_write, s.of(plan.ds), s, growing.store, plan.packings) for s in missing), done)


def _verify(
    growing: Unfinished, plan: _Plan, run: Callable[..., None], progress: Progress | None
) -> None:
    """Read everything back as others will, compare, add statistics and fingerprint, and finish."""
    digests: dict[str, dict[str, bytes]] = {}

    def done(result: tuple[_Shard, dict[str, bytes]]) -> None:
        digests[result[0].region] = result[1]
        _tell(progress, "verify", len(digests), growing.total, result[0])

    def sound(region: str, steps: dict[str, bytes]) -> bool:
        hashes = {name: hashlib.sha256(d).hexdigest() for name, d in steps.items()}
        return hashes == growing.done[region]["sha256"]

    with _open(growing.store, None, None) as ds:
        run((partial(_reread, s.of(ds), s) for s in plan.shards), done)
        joined, summaries = {}, {}
        for name in map(str, plan.ds.data_vars):
            regions = [s.region for s in plan.shards if name in s.names]
            joined[name] = b"".join(digests[r][name] for r in regions)
            parts = (Summary(**growing.done[r]["summary"][name]) for r in regions)
            summaries[name] = sum(parts, Summary()).to_dict()
        attrs = {
            "statistics": json.dumps(summaries),
            "data_fingerprint": combine_digests(ds, joined),
            "prepared_from": json.dumps(plan.about),
        }
    growing.finish([r for r, steps in digests.items() if not sound(r, steps)], attrs)


def _tell(progress: Progress | None, stage: str, step: int, steps: int, shard: _Shard) -> None:
    if progress is not None:
        samples = shard.stop - shard.start
        progress({"stage": stage, "step": step, "steps": steps, "samples": samples})


def _write(
    arrays: Mapping[str, xr.Variable],
    shard: _Shard,
    store: Path,
    packings: Mapping[str, Packing | None],
) -> tuple[_Shard, dict[str, Any]]:
    """Read a stretch of the source, and write it as one shard a variable."""
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
        write_region(store, name, (slice(shard.start, shard.stop),), numbers)
    return shard, {
        "sha256": {name: h.hexdigest() for name, h in hashes.items()},
        "summary": {name: asdict(s) for name, s in summaries.items()},
    }


def _reread(arrays: Mapping[str, xr.Variable], shard: _Shard) -> tuple[_Shard, dict[str, bytes]]:
    """Digests of a stretch of the written store; of a part that cannot be read, none."""
    digests = {}
    for name, array in arrays.items():
        try:
            digests[name] = b"".join(step_digests(read(array, a, b)) for a, b in cuts(array))
        except (InputError, *READ_ERRORS) as error:
            logger.warning("%s: %s", shard.region, error)
            digests[name] = b""
    return shard, digests
