"""GRIB files, read through cfgrib."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.forms import EXPVER, FINAL, PRELIMINARY, stream_number
from ..errors import InputError
from ..package import load_proj
from .backends import Reading, fault, is_remote, open_lazy, reason

SUFFIXES = (".grib", ".grb", ".grib1", ".grb1", ".grib2", ".grb2", ".gb2")
_STREAM = "experimentVersionNumber"
#: Header keys that say when a field was made and for when; the others say what it is.
_WHEN = ("dataDate", "dataTime", "endStep", "time", "step")


def is_grib(path: Path) -> bool:
    """Whether a file says that it is GRIB, by its first four bytes or else by its name."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"GRIB" or path.suffix.lower() in SUFFIXES


def open_parts(source: str | Path, reading: Reading | None = None) -> list[xr.Dataset]:
    """Open a source lazily: a GRIB file gives a Dataset a grid, all else is one."""
    if not is_remote(source) and is_grib(Path(source)):
        return open_grib(Path(source))
    return [open_lazy(source, reading or Reading())]


def open_grib(path: Path, *, forecast: bool = False) -> list[xr.Dataset]:
    """Open a GRIB file lazily: a Dataset for every kind of level and grid in it.

    The headers of all messages are read, as nothing else tells what the file holds; no index is
    left beside it.

    Parameters
    ----------
    path : Path
        The file.
    forecast : bool
        Keep initialisations and lead times apart (``time``, ``step``). Else steps (ERA5's
        accumulations) lie on their valid times.

    Returns
    -------
    list of xarray.Dataset
        Where some fields are there twice, final (ERA5) and preliminary (ERA5T), a Dataset for each
        stream, with a scalar coordinate ``expver``.

    Raises
    ------
    InputError
        If the file is cut, damaged or no GRIB; if cfgrib is not installed; if two fields lie on
        one time with different values: nothing tells which one is meant.
    """
    load_proj()
    try:
        import cfgrib
    except (ImportError, RuntimeError) as error:  # the latter where the library ecCodes is missing
        raise InputError(
            f"{path}: reading GRIB needs a package that is not installed ({error}): "
            "pip install 'stforecast[grib]'"
        ) from error
    _refuse_cut(path)
    options: dict[str, Any] = {
        "errors": "raise",
        "squeeze": False,
        "time_dims": ("time", "step") if forecast else ("valid_time",),
    }

    def opened(**more: Any) -> list[xr.Dataset]:
        return cfgrib.open_datasets(str(path), backend_kwargs=options | more, cache=False)

    try:
        # cfgrib reads all headers for every kind of field; with an index for this time, once.
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
            warnings.simplefilter("ignore")
            options["indexpath"] = f"{scratch}/{{short_hash}}.idx"
            parts = opened()
            if streams := _streams(path, options["indexpath"], forecast):
                parts = [
                    part.assign_coords({EXPVER: stream_number(stream)})
                    for stream in streams
                    for part in opened(filter_by_keys={_STREAM: stream})
                ]
    except InputError:
        raise
    except Exception as error:  # ecCodes has some sixty kinds, cfgrib its own
        raise InputError(
            f"{path}: cannot be opened ({reason(error)}): {fault(error, 'no GRIB')}"
        ) from error
    if not parts:
        raise InputError(f"{path}: it has no GRIB message. Copy or download it again")
    return list(parts)


def open_forecast(source: str | Path) -> xr.Dataset:
    """Open a forecast as it is, lazily: netCDF, a zarr store or its URL, or GRIB.

    Raises
    ------
    InputError
        As :func:`open_grib`; and if a GRIB file holds grids or levels that do not fit into one
        Dataset.
    """
    if is_remote(source) or not is_grib(Path(source)):
        return open_lazy(source)
    parts = open_grib(Path(source), forecast=True)
    try:
        return xr.merge([p.drop_attrs(deep=False) for p in parts], join="exact")
    except (ValueError, xr.MergeError) as error:
        raise InputError(
            f"{source}: its fields lie on several grids or levels ({reason(error)}): split it, as "
            "with grib_copy -w shortName=..., or convert it to netCDF"
        ) from error


def _streams(path: Path, indexpath: str, forecast: bool) -> list[str]:
    """Look for fields that cfgrib would lay over each other: it keeps the last without a word.

    Returns the streams to be opened one by one, as ERA5 and ERA5T; none where each field has its
    place. Refuses fields that differ in nothing but their values.
    """
    from cfgrib.dataset import open_fileindex
    from cfgrib.messages import FileStream

    index = open_fileindex(FileStream(str(path), errors="raise"), indexpath)
    kept = [i for i, key in enumerate(index.index_keys) if key not in _WHEN]
    time, step = (index.index_keys.index(key) for key in ("time", "step"))
    places: dict[Any, list[tuple[int, float, Any]]] = {}
    for header, numbers in index.iter_index():
        run, hours = header[time], header[step]
        place = (run, hours) if forecast else run + round(hours * 3600)
        fields = places.setdefault((place, *(header[i] for i in kept)), [])
        fields += [(run, hours, number) for number in numbers]
    twice = [fields for fields in places.values() if len(fields) > 1]

    def stream(number: Any) -> str:
        return str(index.get_field(number).get(_STREAM, "undef"))

    by_stream = False
    for fields in twice:
        streams = {stream_number(stream(number)) for _, _, number in fields}
        if len(streams) == len(fields) and streams <= {FINAL, PRELIMINARY}:
            by_stream = True
            continue
        values = [index.get_field(number)["values"] for _, _, number in fields]
        if all(np.array_equal(values[0], other, equal_nan=True) for other in values[1:]):
            continue  # the same message again
        name = index.get_field(fields[0][2])["shortName"]
        when = pd.Timestamp(fields[0][0] + round(fields[0][1] * 3600), unit="s")
        runs = " and ".join(
            f"{pd.Timestamp(run, unit='s'):%Y-%m-%dT%H:%M} + {hours:g} h"
            for run, hours, _ in fields
        )
        raise InputError(
            f"{path}: {len(twice)} of its fields are there twice with other values, the first is "
            f"{name} at the valid time {when:%Y-%m-%dT%H:%M}, from the runs {runs}: keep one run "
            f"(grib_copy -w dataTime=... {path.name} run.grib), or open it as a forecast, with "
            'xarray.open_dataset(..., engine="cfgrib")'
        )
    if not by_stream:
        return []
    return sorted({stream(number) for _, numbers in index.iter_index() for number in numbers})


def _refuse_cut(path: Path) -> None:
    """Refuse what does not begin and end as GRIB: ecCodes passes over what it cannot read."""
    with open(path, "rb") as file:
        begins = file.read(4)
        file.seek(0, os.SEEK_END)
        file.seek(-min(file.tell(), 64), os.SEEK_END)
        ends = file.read().rstrip(b"\0")[-4:]
    if begins != b"GRIB" or ends != b"7777":
        raise InputError(
            f"{path}: begins with {begins!r} and ends with {ends!r}, expected b'GRIB' and b'7777': "
            "it is truncated, damaged or no GRIB. Copy or download it again"
        )
