"""Weather on grids: WeatherBench, ERA5, NCEP/NCAR, any CF files, the embedded sample."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..conventions.axes import LAT, LON, TIME, find_axes
from ..conventions.forms import EXPVER
from ..conventions.gate import canonicalize
from ..conventions.times import time_gaps, time_step
from ..conventions.variables import VARIABLES
from ..errors import InputError
from .backends import PathLike, Reading, is_remote, is_zarr
from .finding import FILES, find_sources
from .grib import SUFFIXES, is_grib, open_parts
from .joining import open_joined, some
from .limits import open_zip
from .periods import when
from .streams import one_stream

logger = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "sample" / "plasim_t2m.zarr"
_WEATHERBENCH1 = re.compile(r"_\d{4}_[\d.]+deg\.nc$|^constants_[\d.]+deg\.nc$")
_NCEP = re.compile(r"\b(NMC|NCEP)\b.{0,12}reanalysis", re.IGNORECASE)


def open_sample(*, chunks: Any = "auto") -> xr.Dataset:
    """Open the embedded sample: one year of hourly 2 m temperature, and later blocks.

    *Simulated by a general circulation model (PlaSim), not observed*: dates label model years.
    32 x 64 Gaussian grid, K, stored in steps of 0.02 K; CC0-1.0. ``attrs["train_period"]``,
    ``["validation_period"]`` and ``["test_period"]`` are made for :func:`select_period`; between
    the blocks time has gaps.

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
    return open_joined([SAMPLE], SAMPLE, None, chunks)


def open_weatherbench(
    path: PathLike | Sequence[PathLike] | Any,
    variables: str | Sequence[str] | None = None,
    *,
    chunks: Any = "auto",
    extract_to: PathLike | None = None,
    storage_options: Mapping[str, Any] | None = None,
    missing_chunks: Literal["raise", "fill"] = "raise",
) -> xr.Dataset:
    """Open WeatherBench 1, WeatherBench 2 or ARCO-ERA5, on disk or in the cloud.

    Parameters
    ----------
    path : path, URL, glob or a list of these
        A directory of netCDF files (WeatherBench 1: ``2m_temperature_2013_5.625deg.nc`` and so on,
        also in subdirectories named by variable), such a file, a ``.zip`` of them, a zarr store
        (WeatherBench 2, ARCO-ERA5) or its URL (``gs://...``, with the extra ``cloud``). Or a source
        of earthkit-data or climetlab, or another object with ``to_xarray()``: it keeps its chunks.
    variables : str or sequence of str, optional
        Variables by their own or their canonical names, and on pressure levels with the level:
        ``["z500", "t850", "t2m"]``. Default: all known ones on time and a grid, but none on several
        levels; or if none is known, the only one there is. Variables without time, as in
        WeatherBench 1's ``constants_5.625deg.nc``, are taken when asked for beside others, repeated
        along time.
    chunks : {"auto"}, None or mapping
        ``"auto"``: dask arrays, whole maps by about 16 MiB of time steps. None: xarray's own lazy
        arrays, quicker to feed from. A mapping: dask chunk sizes by canonical dimension.
    extract_to : path, optional
        Where a zip is extracted (to a subdirectory, once). Default: beside the zip.
    storage_options : mapping, optional
        For a URL: keywords of obstore's ``from_url``, such as ``{"region": "us-west-2"}``.
        Requests are anonymous unless they hold ``"skip_signature": False``.
    missing_chunks : {"raise", "fill"}
        What a chunk is that a zarr store does not hold. ``"raise"``: lost on the way, an error when
        it is read. ``"fill"``: all fill values, as zarr and xarray leave such chunks out by
        default; NaN, for floats of xarray.

    Returns
    -------
    xarray.Dataset
        See :mod:`stforecast.conventions`. Coordinates are read, and for temperatures one time step
        to hold the units against the values; data are read when used. Missing times are logged, not
        filled in; windows never cross them. Where the files do not say what they are, ``title``,
        ``source``, ``license`` and ``references`` are those of the published data.

    Raises
    ------
    InputError
        If there is nothing to open; if a file is truncated, damaged or on another grid, or overlaps
        another in time: the files are named. When data are read: if a part of a file is damaged, or
        a chunk of a zarr store is missing (it is never read as fill values).

    Notes
    -----
    Variables that have different times keep the times they share; how many others have is logged.
    A store that says which of its times are filled (ARCO-ERA5's ``valid_time_start`` and ``_stop``)
    is cut to these. Levels that a store keeps in one chunk are decoded together, each time one of
    them is read: :func:`prepare` makes a store that is quicker to read often.
    """
    return _open(
        path,
        variables,
        chunks,
        extract_to,
        Reading(storage_options, missing_chunks=missing_chunks),
        adapt=_valid_times_only,
        about={
            "title": "ERA5 on regular grids (WeatherBench, ARCO-ERA5)",
            "source": "ERA5 reanalysis, Copernicus Climate Change Service (C3S)",
            "license": "CC-BY-4.0; contains modified Copernicus Climate Change Service information",
            "references": "Hersbach et al. 2020, doi:10.1002/qj.3803; Rasp et al. 2020, "
            "doi:10.1029/2020MS002203; Rasp et al. 2024, doi:10.1029/2023MS004019",
        },
    )


def open_era5(
    path: PathLike | Sequence[PathLike],
    variables: str | Sequence[str] | None = None,
    *,
    chunks: Any = "auto",
    extract_to: PathLike | None = None,
) -> xr.Dataset:
    """Open ERA5 as downloaded from the Climate Data Store: netCDF, GRIB, or a zip of these.

    The newer netCDF layout (``valid_time``, ``number``, ``expver`` as texts) and the older one
    (``time``; ``expver`` as a dimension, of which stream 1, final, is taken where it has values and
    else stream 5, preliminary). GRIB needs the extra ``grib``; no index is left beside the file.

    Parameters
    ----------
    path : path, glob or a list of these
        A file, a directory of files, or the zip with ``data_stream-oper_stepType-instant.nc`` and
        so on.
    variables : str or sequence of str, optional
        As in :func:`open_weatherbench`. Default: all on time and a grid, none on several levels.
    chunks, extract_to
        As in :func:`open_weatherbench`.

    Returns
    -------
    xarray.Dataset
        As of :func:`open_weatherbench`.

    Raises
    ------
    InputError
        As :func:`open_weatherbench`; and if cfgrib is needed and not installed, or ``expver`` holds
        other streams than these two.
    """
    return _open(
        path,
        variables,
        chunks,
        extract_to,
        adapt=one_stream,
        every=True,
        about={
            "title": "ERA5 from the Climate Data Store",
            "source": "ERA5 reanalysis, Copernicus Climate Change Service (C3S)",
            "license": "CC-BY-4.0; contains Copernicus Climate Change Service information",
            "references": "Hersbach et al. 2020, doi:10.1002/qj.3803",
        },
    )


def open_ncep(
    path: PathLike | Sequence[PathLike],
    variables: str | Sequence[str] | None = None,
    *,
    chunks: Any = "auto",
) -> xr.Dataset:
    """Open NCEP/NCAR reanalysis 1 as NOAA PSL publishes it: yearly netCDF files, or zarr.

    Parameters
    ----------
    path : path, glob or a list of these
        ``air.sig995.2013.nc`` and so on, a directory of them, or a zarr store.
    variables : str or sequence of str, optional
        As in :func:`open_weatherbench`; of files on pressure levels with the level: ``"air_850"``.
        Variables keep NOAA's names (``air``, ``uwnd``), which do not say at which height they are.
        Default: all on time and a grid, none on several levels.
    chunks
        As in :func:`open_weatherbench`.

    Returns
    -------
    xarray.Dataset
        As of :func:`open_weatherbench`.

    Raises
    ------
    InputError
        As :func:`open_weatherbench`.
    """
    return _open(
        path,
        variables,
        chunks,
        every=True,
        about={
            "title": "NCEP/NCAR Reanalysis 1",
            "source": "NOAA Physical Sciences Laboratory, Boulder, Colorado",
            "license": "no restrictions on use",
            "references": "Kalnay et al. 1996, doi:10.1175/1520-0477(1996)077<0437:TNYRP>2.0.CO;2",
        },
    )


def open_grid(
    path: PathLike | Sequence[PathLike],
    variables: str | Sequence[str] | None = None,
    *,
    chunks: Any = "auto",
    extract_to: PathLike | None = None,
    storage_options: Mapping[str, Any] | None = None,
    missing_chunks: Literal["raise", "fill"] = "raise",
    group: str | None = None,
) -> xr.Dataset:
    """Open any gridded data that follow the CF conventions: netCDF, zarr, GRIB.

    For data that none of the other functions is for, such as ERSST's sea-surface temperature.
    Missing values stay NaN (land, in an ocean's data): ``Task(nan="mask")`` is for these.

    Parameters
    ----------
    path, variables, chunks, extract_to, storage_options, missing_chunks
        As in :func:`open_weatherbench`; by default all variables on time and a grid are taken, none
        on several levels.
    group : str, optional
        The group of the netCDF files or the zarr store that holds the data, ``"a/b"`` for one
        within another. Default: the root.

    Returns
    -------
    xarray.Dataset
        As of :func:`open_weatherbench`, with the files' own attributes.

    Raises
    ------
    InputError
        As :func:`open_weatherbench`.
    """
    about = dict.fromkeys(("title", "source", "license", "references"), "not stated by the files")
    reading = Reading(storage_options, group, missing_chunks)
    return _open(path, variables, chunks, extract_to, reading, every=True, about=about)


def _open(
    path: PathLike | Sequence[PathLike],
    variables: str | Sequence[str] | None,
    chunks: Any,
    extract_to: PathLike | None = None,
    reading: Reading | None = None,
    *,
    about: Mapping[str, str],
    adapt: Callable[[xr.Dataset, object], xr.Dataset] | None = None,
    every: bool = False,
) -> xr.Dataset:
    wanted = [variables] if isinstance(variables, str) else variables
    if wanted is not None and not wanted:
        raise InputError("variables=[] asks for nothing: name some, or leave it out")
    if hasattr(path, "to_xarray"):
        ds = canonicalize(path, wanted)[0]
        return _described(ds.chunk(chunks) if isinstance(chunks, Mapping) else ds, path, about)
    into = None if extract_to is None else Path(extract_to)
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    sources = [s for p in paths for s in find_sources(p, wanted, into)]
    label = paths[0] if len(paths) == 1 else f"{len(paths)} paths"
    ds = open_joined(sources, label, wanted, chunks, reading, adapt=adapt, every=every)
    return _described(ds, label, about)


def _described(ds: xr.Dataset, label: object, about: Mapping[str, str]) -> xr.Dataset:
    """Say what the data are, where they do not, and which times are missing."""
    if "title" not in ds.attrs and "dataset_title" in ds.attrs:
        ds.attrs["title"] = ds.attrs["dataset_title"]
    title = str(ds.attrs.get("title", ""))
    if (title or "source" in ds.attrs) and not _NCEP.search(title):
        # Data in this form that say themselves what they are may be others than the published ones.
        about = dict.fromkeys(about, "not stated by the files")
    ds.attrs = {"Conventions": "CF-1.8", **about, **ds.attrs}
    _report_gaps(ds, label)
    return ds


def _valid_times_only(ds: xr.Dataset, source: object) -> xr.Dataset:
    """Cut a store that was laid out for times to come to those that it says are filled."""
    start, stop = (ds.attrs.get(f"valid_time_{end}") for end in ("start", "stop"))
    if TIME not in ds.indexes or start is None or stop is None:
        return ds
    return ds.sel({TIME: slice(str(start), str(stop))})


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


# --- what a path is -------------------------------------------------------------------------------


def recognise(path: Path | str) -> str | None:
    """Say in a line, which begins with the function that opens it, what a path holds.

    Only names and headers are looked at; nothing is extracted. None: no weather.
    """
    try:
        if not isinstance(path, Path):
            with open_parts(path)[0] as ds:
                known = _recognise_dataset(path, ds)
                return known and f"{known}: {some(ds.data_vars)}"
        if path.is_file() and zipfile.is_zipfile(path):
            return _recognise_zip(path)
        if path.is_file() and path.suffix.lower() not in FILES and not is_grib(path):
            return None
        sources = find_sources(path, None, None)
        for source in sources[:8]:  # constants may come first
            for ds in open_parts(source):
                with ds:
                    if known := _recognise_dataset(Path(source), ds):
                        many = f"{len(sources)} files" if len(sources) > 1 else Path(source).name
                        return f"{known}, {many}: {some(ds.data_vars)}"
    except Exception:  # whatever is wrong with it, it is not for us to say what it is
        return None
    return None


def _recognise_zip(path: Path) -> str | None:
    with open_zip(path) as archive:
        names = [Path(n).name for n in archive.namelist() if n.lower().endswith(FILES)]
    if not names:
        return None
    if any(n.startswith("data_stream-") or n.endswith(SUFFIXES) for n in names):
        return f"open_era5: zip from the Climate Data Store, {len(names)} files"
    if any(_WEATHERBENCH1.search(n) for n in names):
        return f"open_weatherbench: WeatherBench 1 zip, {len(names)} files"
    return f"open_grid: zip of {len(names)} files"


def _recognise_dataset(source: Path | str, ds: xr.Dataset) -> str | None:
    roles = {dim: role for dim, (role, _) in find_axes(ds).items()}
    on_grid = [{roles.get(d) for d in v.dims} >= {TIME, LAT, LON} for v in ds.values()]
    if not any(on_grid):
        return None
    if _WEATHERBENCH1.search(str(source)):
        return "open_weatherbench: WeatherBench 1 netCDF"
    if (is_remote(source) or is_zarr(Path(source))) and any(
        name in VARIABLES for name in ds.data_vars
    ):
        return "open_weatherbench: zarr store as of WeatherBench 2"
    titles = " ".join(str(ds.attrs.get(k, "")) for k in ("title", "dataset_title"))
    if _NCEP.search(titles):
        return "open_ncep: NCEP/NCAR reanalysis"
    made = f"{ds.attrs.get('history', '')} {ds.attrs.get('GRIB_centre', '')}"
    if EXPVER in ds.variables or "grib_to_netcdf" in made or "ecmf" in made:
        return f"open_era5: {'GRIB' if is_grib(Path(source)) else 'netCDF'} as of ERA5"
    return "open_grid: gridded data"
