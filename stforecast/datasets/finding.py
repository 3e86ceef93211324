"""The files and stores behind a path to gridded data."""

from __future__ import annotations

import glob
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ..conventions.levels import split_level
from ..conventions.variables import canonical_name
from ..errors import InputError
from .archives import extract
from .backends import existing, is_remote, is_zarr
from .grib import SUFFIXES
from .joining import some

FILES = (".nc", ".nc4", ".cdf", ".netcdf", *SUFFIXES)
_DEPTH = 4  # of directories to look into
_FIXED = "constants"
_PACKED = tuple(
    f"{suffix}{end}" for suffix in FILES for end in (".gz", ".bz2", ".xz", ".zst", ".z")
)


def find_sources(
    path: str | os.PathLike[str], wanted: Sequence[str] | None, into: Path | None
) -> list[str | Path]:
    """Find the files and stores behind a path."""
    text = os.fspath(path)
    if is_remote(text) and not text.startswith("file://"):
        if text.endswith((*FILES, ".zip")):
            raise InputError(
                f"{text}: only zarr stores are read from a URL. Download the file first"
            )
        return [text]
    local = Path(text.removeprefix("file://")).expanduser()
    if glob.has_magic(str(local)) and not local.exists():
        matches = sorted(glob.glob(str(local), recursive=True))
        if not matches:
            raise InputError(f"{path}: no file matches this pattern")
        return [s for m in matches for s in find_sources(m, wanted, into)]
    if existing(local).is_dir():
        return [local] if is_zarr(local) else _in_directory(local, wanted)
    if zipfile.is_zipfile(local) or local.suffix.lower() == ".zip":
        return find_sources(extract(local, into), wanted, into)
    return [local]


def _in_directory(directory: Path, wanted: Sequence[str] | None) -> list[str | Path]:
    """Find netCDF and GRIB files and zarr stores in a directory, or else in the levels below."""
    names = {canonical_name(w) for w in wanted or ()}
    level = [directory]
    for _ in range(_DEPTH):
        entries = sorted(e for d in level for e in d.iterdir() if not e.name.startswith("."))
        below = [e for e in entries if e.is_dir() and not is_zarr(e)]
        by_variable = [_directory_of(n, below) for n in names]
        own = sorted({d for d in by_variable if d is not None})
        if None not in by_variable and any(d.name != _FIXED for d in own):
            level = own  # WeatherBench 1: a directory a variable
            continue
        if found := [e for e in entries if is_data(e) or (e.is_dir() and e not in below)]:
            return list(found)
        level = below
    here = sorted(e.name for e in directory.iterdir())
    packed = [name for name in here if name.lower().endswith(_PACKED)]
    zips = [name for name in here if name.lower().endswith(".zip")]
    raise InputError(
        f"{directory}: no netCDF file (*.nc), GRIB file or zarr store in it or below; found "
        f"{some(here) or 'nothing, it is empty'}"
        + (f". Give a zip by its name: {zips[0]}" if zips else "")
        + (f". {packed[0]} is compressed: unpack it first" if packed else "")
    )


def _directory_of(name: str, directories: Sequence[Path]) -> Path | None:
    """Directory of a variable: by its name, its levels' common name, or else the constants'."""
    on_level = split_level(name)
    for wanted in (name, on_level[0] if on_level else name, _FIXED):
        if found := [d for d in directories if d.name == wanted]:
            return found[0]
    return None


def is_data(path: Path) -> bool:
    """Whether a file is netCDF or GRIB by its name."""
    return path.suffix.lower() in FILES and path.is_file()
