"""Weather on grids: WeatherBench directories and stores, any CF files, the embedded sample."""

from __future__ import annotations

import glob
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..conventions import TIME, InputError, canonical_name, time_gaps, time_step
from .joining import open_joined, some
from .periods import when
from .sources import extract_zip, is_remote, is_zarr

logger = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "sample" / "plasim_t2m.zarr"
_NETCDF = (".nc", ".nc4", ".cdf", ".netcdf")
_LEVELS = 4  # of directories to look into

PathLike = str | os.PathLike[str]


def open_sample(*, chunks: Any = "auto") -> xr.Dataset:
    """Open the embedded sample: one year of hourly 2 m temperature, and later blocks.

    *Simulated by a general circulation model (PlaSim), not observed*: dates label model years.
    32 x 64 Gaussian grid, K, stored in steps of 0.02 K; CC0-1.0. ``attrs["train_period"]``,
    ``["valid_period"]`` and ``["test_period"]`` are made for :func:`select_period`; between the
    blocks time has gaps.

    Parameters
    ----------
    chunks : {"auto"}, None or mapping
        As in :func:`open_weatherbench`.

    Returns
    -------
    xarray.Dataset
        Canonical and lazy: ``2m_temperature`` (time, latitude, longitude).

    Examples
    --------
    >>> from stforecast.datasets import open_sample, select_period
    >>> ds = open_sample()
    >>> select_period(ds, ds.attrs["train_period"]).sizes["time"]
    8760
    """
    return open_joined([SAMPLE], SAMPLE, None, chunks, None)


def open_weatherbench(
    path: PathLike | Sequence[PathLike],
    variables: str | Sequence[str] | None = None,
    *,
    chunks: Any = "auto",
    extract_to: PathLike | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open weather data on disk or in the cloud as one canonical, lazy Dataset.

    Parameters
    ----------
    path : path, URL, glob or a list of these
        A directory of netCDF files (WeatherBench 1: ``2m_temperature_2013_5.625deg.nc`` and so on,
        also in subdirectories named by variable), such a file, a ``.zip`` of them, a zarr store
        (WeatherBench 2) or its URL (``gs://...``, with the extra ``cloud``).
    variables : str or sequence of str, optional
        Variables by their own or their canonical names. Default: all known ones on time and a grid,
        or if none is known, the only one there is. Variables without time, as in WeatherBench 1's
        ``constants_5.625deg.nc``, are taken when asked for beside others, repeated along time.
    chunks : {"auto"}, None or mapping
        ``"auto"``: dask arrays, whole maps by about 16 MiB of time steps. None: xarray's own lazy
        arrays, quicker to feed from. A mapping: dask chunk sizes by canonical dimension.
    extract_to : path, optional
        Where a zip is extracted (to a subdirectory, once). Default: beside the zip.
    storage_options : mapping, optional
        For fsspec, with a URL. Default for ``gs://``: anonymous.

    Returns
    -------
    xarray.Dataset
        See :mod:`stforecast.conventions`. Coordinates are read, and for temperatures one time step
        to hold the units against the values; data are read when used. Missing times are logged, not
        filled in; windows never cross them.

    Raises
    ------
    InputError
        If there is nothing to open; if a file is truncated, damaged or on another grid, or overlaps
        another in time: the files are named. When data are read: if a part of a file is damaged, or
        a chunk of a zarr store is missing (it is never read as fill values).

    Notes
    -----
    Variables that have different times keep the times they share; how many others have is logged.
    """
    wanted = [variables] if isinstance(variables, str) else variables
    if wanted is not None and not wanted:
        raise InputError("variables=[] asks for nothing: name some, or leave it out")
    into = None if extract_to is None else Path(extract_to)
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    sources = [s for p in paths for s in _sources(p, wanted, into)]
    label = paths[0] if len(paths) == 1 else f"{len(paths)} paths"
    ds = open_joined(sources, label, wanted, chunks, storage_options)
    _report_gaps(ds, label)
    return ds


# --- what there is to open ------------------------------------------------------------------------


def _sources(path: PathLike, wanted: Sequence[str] | None, into: Path | None) -> list[str | Path]:
    """Find the files and stores behind a path."""
    text = os.fspath(path)
    if is_remote(text) and not text.startswith("file://"):
        if text.endswith((*_NETCDF, ".zip")):
            raise InputError(
                f"{text}: only zarr stores are read from a URL. Download the file first"
            )
        return [text]
    local = Path(text.removeprefix("file://")).expanduser()
    if local.is_dir():
        return [local] if is_zarr(local) else _in_directory(local, wanted)
    if local.is_file():
        if zipfile.is_zipfile(local) or local.suffix.lower() == ".zip":
            return _sources(extract_zip(local, into), wanted, into)
        return [local]
    if glob.has_magic(str(local)):
        matches = sorted(glob.glob(str(local), recursive=True))
        if not matches:
            raise InputError(f"{path}: no file matches this pattern")
        return [s for m in matches for s in _sources(m, wanted, into)]
    raise InputError(f"{path}: no such file or directory")


def _in_directory(directory: Path, wanted: Sequence[str] | None) -> list[str | Path]:
    """Find netCDF files and zarr stores in a directory, or else in the levels below."""
    names = {canonical_name(w) for w in wanted or ()}
    level = [directory]
    for _ in range(_LEVELS):
        entries = sorted(e for d in level for e in d.iterdir() if not e.name.startswith("."))
        below = [e for e in entries if e.is_dir() and not is_zarr(e)]
        by_variable = [d for d in below if d.name in names]
        if names and len(by_variable) == len(names):  # WeatherBench 1: a directory a variable
            level = by_variable
            continue
        if found := [e for e in entries if _is_netcdf(e) or (e.is_dir() and e not in below)]:
            return list(found)
        level = below
    here = sorted(e.name for e in directory.iterdir())
    zips = [name for name in here if name.lower().endswith(".zip")]
    raise InputError(
        f"{directory}: no netCDF file (*.nc) or zarr store in it or below; found "
        f"{some(here) or 'nothing, it is empty'}"
        + (f". Give a zip by its name: {zips[0]}" if zips else "")
    )


def _is_netcdf(path: Path) -> bool:
    return path.suffix.lower() in _NETCDF and path.is_file()


def _report_gaps(ds: xr.Dataset, label: object) -> None:
    """Log which times are missing."""
    if ds.sizes[TIME] < 3:
        return
    time = ds[TIME].to_numpy()
    step = time_step(time)
    gaps = time_gaps(time, step)
    if gaps:
        places = some(f"{n} between {when(a)} and {when(b)}" for a, b, n in gaps)
        logger.warning(
            "%s: %d steps of %g h are missing: %s. Windows do not cross gaps",
            label,
            sum(n for _, _, n in gaps),
            step / np.timedelta64(1, "h"),
            places,
        )
