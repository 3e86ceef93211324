"""Forecasts to disk, block by block; a write that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import zlib
from collections.abc import Collection, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..storing import Unfinished, note, write_region

logger = logging.getLogger(__name__)

#: Ends of names by which others know files of another format.
_OTHERS = {
    ".nc",
    ".nc4",
    ".cdf",
    ".h5",
    ".hdf5",
    ".grib",
    ".grb",
    ".grib2",
    ".csv",
    ".json",
    ".txt",
}


def write_forecast(
    forecast: xr.Dataset, path: str | os.PathLike[str], *, progress: bool = False
) -> Path:
    """Write a forecast as zarr, block by block where it is lazy; an older one is replaced whole.

    The store grows in ``.NAME.zarr.writing`` beside `path`. There each block that is written is
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
        If `path` has the name of another format or cannot be written to, another process is
        writing there, or what is read back is not what was written.

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
    if path.suffix.lower() in _OTHERS:
        raise InputError(
            f"write_forecast writes a zarr store, and {path.name!r} is the name of another format: "
            f"give {path.with_suffix('.zarr').name!r}, or write netCDF: forecast.to_netcdf(path)"
        )
    if not path.name or (path.exists() and not path.is_dir()):
        raise InputError(
            f"{path} is no place for a zarr store, which is a directory: give another name"
        )
    forecast = _uniform(forecast.drop_encoding())
    lazy = {str(k): v for k, v in forecast.data_vars.items() if v.chunks is not None}
    wanted = {
        f"{name}/{'.'.join(map(str, block))}": (name, block)
        for name, array in lazy.items()
        for block in np.ndindex(*array.data.numblocks)
    }
    store = Unfinished(path, "writing", "blocks", len(wanted))
    with store.held():
        identity = _identity(forecast, lazy)
        begun = store.read()
        if begun == identity:
            store.forget(_damaged(store, lazy, wanted))
            logger.info("%s: %d of %d blocks are there already", path, len(store.done), len(wanted))
        else:
            if begun is not None:
                logger.info("%s: what was begun there is another forecast; beginning anew", path)
            store.begin(identity, forecast, _encoding(forecast))
        missing = [wanted[region] for region in wanted if region not in store.done]
        with _bar(store) if progress else nullcontext():
            _write_blocks(store, lazy, missing)
        store.read()
        store.finish(_damaged(store, lazy, wanted))
    return path


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


def _encoding(forecast: xr.Dataset) -> dict[Hashable, dict[str, Any]]:
    """Chunks of what is lazy; numbers are compressed."""
    return {
        name: {"chunks": tuple(c[0] for c in array.chunks)} if array.chunks is not None else {}
        for name, array in forecast.data_vars.items()
        if array.dtype.kind in "fiub"
    }


# --- blocks ---------------------------------------------------------------------------------------


def _write_blocks(
    store: Unfinished, lazy: Mapping[str, xr.DataArray], blocks: list[tuple[str, tuple[int, ...]]]
) -> None:
    """Compute and write blocks, with whatever scheduler dask has."""
    import dask.array as da
    from dask.base import compute_as_if_collection, tokenize
    from dask.highlevelgraph import HighLevelGraph

    if not blocks:
        return
    graphs, keys = [], []
    for name in dict.fromkeys(n for n, _ in blocks):
        array = lazy[name].data
        written = array.map_blocks(
            _write,
            name,
            store.store,
            store.record,
            array.chunksize,
            dtype=bool,
            chunks=tuple((1,) * n for n in array.numblocks),
            name=f"write-{name}-{tokenize(array.name, str(store.store))}",
            meta=np.empty((0,) * array.ndim, bool),
        )
        graphs.append(written.__dask_graph__())
        keys += [(written.name, *block) for n, block in blocks if n == name]
    compute_as_if_collection(da.Array, HighLevelGraph.merge(*graphs), keys)


def _write(
    values: np.ndarray,
    name: str,
    store: Path,
    record: Path,
    sizes: tuple[int, ...],
    block_id: tuple[int, ...] = (),
) -> np.ndarray:
    """Write one block; note it when it is there."""
    region = _region(block_id, sizes)
    write_region(store, name, region, values)
    note(record, f"{name}/{'.'.join(map(str, block_id))}", {"crc32": _checksum(values)})
    return np.ones((1,) * values.ndim, bool)


def _region(block: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(i * n, (i + 1) * n) for i, n in zip(block, sizes, strict=True))


def _checksum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data.cast("B")) if values.size else 0


def _damaged(
    store: Unfinished,
    lazy: Mapping[str, xr.DataArray],
    wanted: Mapping[str, tuple[str, tuple[int, ...]]],
) -> Collection[str]:
    """Read back the blocks: those that are not there, or not what was written."""
    import zarr

    arrays = {name: zarr.open_array(store.store, path=name, mode="r") for name in lazy}

    def sound(region: str) -> bool:
        name, block = wanted[region]
        try:
            values = np.asarray(arrays[name][_region(block, lazy[name].data.chunksize)])
        except Exception as error:  # whatever a codec says of damaged bytes
            logger.warning("%s: %s does not read: %s", store.work, region, error)
            return False
        return _checksum(values) == store.done[region]["crc32"]

    noted = [region for region in wanted if region in store.done]
    with ThreadPoolExecutor(2) as pool:
        good = {region for region, yes in zip(noted, pool.map(sound, noted), strict=True) if yes}
    return wanted.keys() - good


@contextmanager
def _bar(store: Unfinished) -> Iterator[None]:
    """Show how many blocks the record holds, whoever writes them."""
    from rich.console import Console
    from rich.progress import Progress

    stop = threading.Event()

    def watch(bar: Progress, line: Any) -> None:
        while not stop.wait(0.5):
            bar.update(line, completed=store.record.read_bytes().count(b"\n") - 1)

    with Progress(console=Console(stderr=True)) as bar:
        line = bar.add_task(store.target.name, total=store.total)
        thread = threading.Thread(target=watch, args=(bar, line), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            bar.update(line, completed=store.record.read_bytes().count(b"\n") - 1)
