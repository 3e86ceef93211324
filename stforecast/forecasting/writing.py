"""Forecasts to disk, block by block; a write that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
import warnings
import zlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..files import locked, move

logger = logging.getLogger(__name__)

Block = tuple[str, tuple[int, ...]]  # a variable, and the number of a chunk along each dimension
_JOURNAL = ".blocks"


def write_forecast(
    forecast: xr.Dataset, path: str | os.PathLike[str], *, progress: bool = False
) -> Path:
    """Write a forecast as zarr, block by block where it is lazy; an older one is replaced whole.

    The store grows in ``.NAME.writing.zarr`` beside `path`. There each block that is written is
    noted with its checksum, and after a kill the same call computes only the blocks that are
    missing. At the end everything is read back, compared with the checksums, and renamed: what is
    at `path` is always complete.

    Parameters
    ----------
    forecast : xarray.Dataset
        From :func:`stforecast.predict`; or any other. Its dask chunks become the store's. With a
        ``dask.distributed`` client they are computed on the cluster, whose workers must see `path`.
    path : path-like
        The store, ``NAME.zarr``.
    progress : bool
        Show a bar.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    InputError
        If `path` cannot be written to, another process is writing there, or what is read back is
        not what was written.

    Notes
    -----
    A forecast counts as the same, and is gone on with, if its labels and attributes and the names
    of its dask arrays are the same; :func:`stforecast.predict` derives these from the model's
    weights and from the names of the input's arrays, which for files hold their path and time of
    change. Otherwise the write begins anew.

    ``forecast.to_zarr(path)`` works as well. It leaves nothing that tells a killed write from a
    complete one: missing chunks read as NaN. To complete such a store, open it, find the first
    initialisation that is NaN, number `n`, and write the rest from the chunk on that holds it::

        first = n // chunk * chunk  # chunk: initialisations in a chunk, store.chunks["time"][0]
        rest = forecast.isel(time=slice(first, None))
        rest.drop_vars([v for v in rest.coords if "time" not in rest[v].dims]).to_zarr(
            path, region={"time": slice(first, None)}
        )
    """
    path = Path(path)
    forecast = _uniform(forecast.drop_encoding())
    lazy = {str(k): v for k, v in forecast.data_vars.items() if v.chunks is not None}
    part = path.with_name(f".{path.stem}.writing{path.suffix}")
    with (
        locked(path.with_name(f".{path.name}.lock"), f"writing {path}"),
        _quiet_about_metadata(),
    ):
        identity = _identity(forecast, lazy)
        wanted = {(n, b) for n, v in lazy.items() for b in np.ndindex(*_counts(v))}
        done: set[Block] = set()
        if _begun(part) == identity:
            done = _sound(part, _read_journal(part)) & wanted
            logger.info("%s: %d of %d blocks are there already", path, len(done), len(wanted))
        else:
            if part.exists():
                logger.info("%s: what was begun there is another forecast; beginning anew", path)
                shutil.rmtree(part)
            _lay_out(forecast, part, identity)
        missing = wanted - done
        with _bar(part, path.name, len(wanted)) if progress else _nothing():
            _write_blocks(part, lazy, missing)
        written = _sound(part, _read_journal(part))
        if lost := wanted - written:
            name, where = min(lost)
            raise InputError(
                f"{part}: {len(lost)} of {len(wanted)} blocks do not read back as they were "
                f"written, the first is {where} of {name}: check the disk, then run the same again"
            )
        (part / _JOURNAL).unlink()
        move(part, path)
    return path


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _quiet_about_metadata() -> Iterator[None]:
    # Readers look for consolidated metadata and warn where there is none; the writer warns that
    # zarr's third version has not specified it yet.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        yield


# --- what is to be written ------------------------------------------------------------------------


def _uniform(forecast: xr.Dataset) -> xr.Dataset:
    """Give lazy numbers chunks of one size, as zarr has them; compute what else is lazy."""
    out = forecast.copy()
    for name, array in forecast.variables.items():
        if array.chunks is None:
            continue
        if array.dtype.kind not in "fiub" or name not in forecast.data_vars:
            out[name] = out[name].compute()
        elif any(len({*c[:-1]}) > 1 or c[-1] > c[0] for c in array.chunks):
            sizes = {d: max(c) for d, c in zip(array.dims, array.chunks, strict=True)}
            out[name] = out[name].chunk(sizes)
    return out


def _counts(array: xr.DataArray) -> tuple[int, ...]:
    assert array.chunks is not None
    return tuple(len(c) for c in array.chunks)


def _identity(forecast: xr.Dataset, lazy: Mapping[str, xr.DataArray]) -> str:
    """Tell one forecast from another, without computing any."""
    digest = hashlib.sha256(repr(sorted(forecast.attrs.items(), key=str)).encode())
    for name, array in sorted(forecast.variables.items(), key=lambda item: str(item[0])):
        about = [name, array.dims, array.shape, str(array.dtype), sorted(array.attrs.items())]
        if name in lazy:
            about += [array.chunks, array.data.name]
        elif array.dtype == object:
            about += [[str(v) for v in array.values.flat]]
        digest.update(repr(about).encode())
        if name not in lazy and array.dtype != object:
            digest.update(np.ascontiguousarray(array.values).tobytes())
    return digest.hexdigest()


def _lay_out(forecast: xr.Dataset, part: Path, identity: str) -> None:
    """Write labels, attributes and all that is in memory, and begin the journal."""
    from zarr.codecs import BloscCodec

    codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    encoding: dict[Hashable, dict[str, Any]] = {}
    for name, array in forecast.data_vars.items():
        if array.dtype.kind in "fiub":
            encoding[name] = {"compressors": codec}
        if array.chunks is not None:
            encoding[name]["chunks"] = tuple(c[0] for c in array.chunks)
    forecast.to_zarr(part, mode="w", consolidated=True, compute=False, encoding=encoding)
    (part / _JOURNAL).write_text(f"{identity}\n")


# --- blocks ---------------------------------------------------------------------------------------


def _write_blocks(part: Path, lazy: Mapping[str, xr.DataArray], missing: Iterable[Block]) -> None:
    """Compute and write blocks, with whatever scheduler dask has."""
    import dask.array as da
    import zarr
    from dask.base import compute_as_if_collection, tokenize
    from dask.highlevelgraph import HighLevelGraph

    blocks = sorted(missing)
    if not blocks:
        return
    graphs, keys = [], []
    for name in dict.fromkeys(n for n, _ in blocks):
        array = lazy[name].data
        where = zarr.open_array(part / name, mode="r+")
        where = where.with_config({"write_empty_chunks": True})
        sizes = tuple(c[0] for c in array.chunks)
        written = array.map_blocks(
            _write,
            name,
            where,
            sizes,
            part / _JOURNAL,
            dtype=bool,
            chunks=tuple((1,) * n for n in array.numblocks),
            name=f"write-{name}-{tokenize(array.name, str(part))}",
            meta=np.empty((0,) * array.ndim, bool),
        )
        graphs.append(written.__dask_graph__())
        keys += [(written.name, *block) for n, block in blocks if n == name]
    compute_as_if_collection(da.Array, HighLevelGraph.merge(*graphs), keys)


def _write(
    values: np.ndarray,
    name: str,
    where: Any,
    sizes: tuple[int, ...],
    journal: Path,
    block_id: tuple[int, ...] = (),
) -> np.ndarray:
    """Write one block; note it when it is there."""
    starts = [i * n for i, n in zip(block_id, sizes, strict=True)]
    region = tuple(slice(a, a + n) for a, n in zip(starts, values.shape, strict=True))
    where[region] = values
    line = json.dumps([name, block_id, _checksum(values)]) + "\n"
    handle = os.open(journal, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, line.encode())  # one call: lines of several writers do not mix
    finally:
        os.close(handle)
    return np.ones((1,) * values.ndim, bool)


def _checksum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data.cast("B")) if values.size else 0


def _begun(part: Path) -> str | None:
    """Identity of the forecast that was begun here, if any."""
    try:
        return (part / _JOURNAL).read_text().partition("\n")[0]
    except OSError:
        return None


def _read_journal(part: Path) -> dict[Block, int]:
    """Checksums of the blocks that were written; a line that was cut off does not count."""
    found = {}
    for line in (part / _JOURNAL).read_text().splitlines()[1:]:
        try:
            name, block, checksum = json.loads(line)
        except ValueError:
            continue
        found[name, tuple(block)] = checksum
    return found


def _sound(part: Path, blocks: Mapping[Block, int]) -> set[Block]:
    """Read blocks back: those that are what was written."""
    from concurrent.futures import ThreadPoolExecutor

    import zarr

    arrays = {name: zarr.open_array(part / name, mode="r") for name, _ in blocks}

    def same(block: Block) -> bool:
        name, where = block
        region = tuple(
            slice(i * n, (i + 1) * n) for i, n in zip(where, arrays[name].chunks, strict=True)
        )
        try:
            return _checksum(np.asarray(arrays[name][region])) == blocks[block]
        except Exception as error:  # whatever a codec says of damaged bytes
            logger.warning("%s: block %s of %s does not read: %s", part, where, name, error)
            return False

    with ThreadPoolExecutor(2) as pool:
        return {b for b, good in zip(blocks, pool.map(same, blocks), strict=True) if good}


@contextmanager
def _bar(part: Path, what: str, total: int) -> Iterator[None]:
    """Show how many blocks the journal holds, whoever writes them."""
    from rich.console import Console
    from rich.progress import Progress

    stop = threading.Event()

    def watch(bar: Progress, line: Any) -> None:
        while not stop.wait(0.5):
            bar.update(line, completed=_lines(part / _JOURNAL))

    with Progress(console=Console(stderr=True)) as bar:
        line = bar.add_task(what, total=total)
        thread = threading.Thread(target=watch, args=(bar, line), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            bar.update(line, completed=_lines(part / _JOURNAL))


def _lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") - 1
