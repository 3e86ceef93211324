"""GRIB files through cfgrib, which is imported when first used (extra ``grib``)."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import xarray as xr

from ..errors import InputError

SUFFIXES = (".grib", ".grb", ".grib1", ".grb1", ".grib2", ".grb2", ".gb2")


def is_grib(path: Path) -> bool:
    """Whether a file says that it is GRIB, by its first four bytes or else by its name."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"GRIB" or path.suffix.lower() in SUFFIXES


def open_grib(path: Path) -> list[xr.Dataset]:
    """Open a GRIB file lazily: a Dataset for every kind of level and grid in it.

    The headers of all messages are read, as nothing else tells what the file holds; no index is
    left beside it. Forecast steps (ERA5's accumulations) lie on their valid times.

    Raises
    ------
    InputError
        If cfgrib is not installed; if the file is truncated, damaged or no GRIB.
    """
    try:
        import cfgrib
    except (ImportError, RuntimeError) as error:  # the latter where the library ecCodes is missing
        raise InputError(
            f"{path}: reading GRIB needs a package that is not installed ({error}): "
            "pip install 'stforecast[grib]'"
        ) from error
    _refuse_cut(path)
    options: dict[str, Any] = {"errors": "raise", "time_dims": ("valid_time",), "squeeze": False}
    try:
        # cfgrib reads all headers for every kind of field; with an index for this time, once.
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
            warnings.simplefilter("ignore")
            options["indexpath"] = f"{scratch}/{{short_hash}}.idx"
            parts = cfgrib.open_datasets(str(path), backend_kwargs=options, cache=False)
    except Exception as error:  # ecCodes has some sixty kinds, cfgrib its own
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: cannot be opened ({type(error).__name__}: {reason}): it is truncated, "
            "damaged or no GRIB. Copy or download it again"
        ) from error
    if not parts:
        raise InputError(f"{path}: it has no GRIB message. Copy or download it again")
    return list(parts)


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
