"""Files as they come from elsewhere: opened lazily, and refused by name where they are damaged."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import stat
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import IO, Any

import xarray as xr

from ..errors import InputError
from . import _grib

logger = logging.getLogger(__name__)

#: What the netCDF, HDF5 and zarr libraries raise on data they cannot read.
READ_ERRORS = (OSError, RuntimeError, ValueError, EOFError, zlib.error)

MAX_MEMBERS = 20_000
MAX_BYTES = 256 * 2**30
MAX_RATIO = 100


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is a URL such as ``gs://bucket/store.zarr``."""
    return isinstance(source, str) and "://" in source


def existing(path: str | os.PathLike[str]) -> Path:
    """Give a path to a file or directory, ``~`` written out.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(path).expanduser()
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: no such file or directory")
    return path


def stamp(source: str | os.PathLike[str]) -> tuple[int, ...]:
    """Say what changes when a file does: its time and size. Nothing is known of a URL."""
    if is_remote(source):
        return ()
    stat = os.stat(source)
    return stat.st_mtime_ns, stat.st_size


def is_zarr(path: Path) -> bool:
    """Whether a directory is a zarr group or array, version 2 or 3."""
    return any(
        (path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata", ".zarray")
    )


def open_lazy(source: str | Path, storage_options: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Open one netCDF file or zarr store; metadata and coordinates are read, data are not.

    Parameters
    ----------
    source : str or Path
        A netCDF file (3 or 4), a directory that is a zarr store, or the URL of one.
    storage_options : mapping, optional
        For fsspec, when `source` is a URL. Default for ``gs://``: anonymous.

    Returns
    -------
    xarray.Dataset
        As xarray decodes it, without dask and without a cache.

    Raises
    ------
    InputError
        If the source is truncated, damaged, not readable or of another format; if a URL needs a
        package that is not installed. Later, on reading, if a chunk of a zarr store is missing.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if is_remote(source) or Path(source).is_dir():
                ds = _open_zarr(source, storage_options)
            else:
                _refuse_truncated_netcdf3(Path(source))
                ds = xr.open_dataset(source, engine="netcdf4", cache=False)
        except InputError:
            raise
        except (*READ_ERRORS, KeyError, TypeError) as error:
            raise InputError(
                f"{source}: cannot be opened ({_reason(error)}){_advice(error)}"
            ) from error
    for warning in caught:
        logger.info("%s: %s", source, warning.message)
    return ds


def open_parts(
    source: str | Path, storage_options: Mapping[str, Any] | None = None
) -> list[xr.Dataset]:
    """Open a source as :func:`open_lazy` does; a GRIB file gives a Dataset a grid."""
    if not is_remote(source) and _grib.is_grib(Path(source)):
        return _grib.open_grib(Path(source))
    return [open_lazy(source, storage_options)]


def is_read_error(error: Exception) -> bool:
    """Whether an error came from data that a library cannot read, GRIB's among them."""
    foreign = type(error).__module__.partition(".")[0] in ("gribapi", "eccodes", "cfgrib")
    return isinstance(error, READ_ERRORS) or foreign


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _advice(error: BaseException) -> str:
    if isinstance(error, PermissionError):
        return ""
    return ": it is truncated, damaged or neither netCDF nor zarr. Copy or download it again"


def _open_zarr(source: str | Path, storage_options: Mapping[str, Any] | None) -> xr.Dataset:
    from zarr.storage import FsspecStore, LocalStore

    from ._strict_store import StrictStore

    store: FsspecStore | LocalStore
    if is_remote(source):
        url = str(source)
        options = dict(storage_options or ({"token": "anon"} if url.startswith("gs://") else {}))
        try:
            store = FsspecStore.from_url(url, storage_options=options, read_only=True)
        except ImportError as error:
            raise InputError(
                f"{url}: reading it needs a package that is not installed ({error}): "
                "pip install 'stforecast[cloud]'"
            ) from error
    else:
        store = LocalStore(source, read_only=True)
    return xr.open_dataset(StrictStore(store), engine="zarr", cache=False)  # type: ignore[arg-type]


# --- netCDF 3 -------------------------------------------------------------------------------------

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


def _refuse_truncated_netcdf3(path: Path) -> None:
    """Hold a classic netCDF file's length against its header.

    The netCDF library reads zeros beyond the end of such a file, without an error. (HDF5 checks
    the length itself.)
    """
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\1", b"\2", b"\5"):
            return
        actual = os.fstat(file.fileno()).st_size
        try:
            expected = _netcdf3_bytes(file, magic[3])
        except (struct.error, KeyError, IndexError):
            raise InputError(
                f"{path}: its netCDF 3 header is truncated or damaged ({actual} bytes). "
                "Copy or download it again"
            ) from None
    if actual < expected:
        raise InputError(
            f"{path}: truncated netCDF 3 file, {actual} bytes of {expected}. "
            "Copy or download it again"
        )


def _netcdf3_bytes(file: IO[bytes], version: int) -> int:
    """Read the header after its magic number: bytes that the data need at least.

    Source: "File Format Specifications", NetCDF User's Guide (classic, 64-bit offset and data).
    """
    wide = 8 if version == 5 else 4

    def number(size: int = wide) -> int:
        return int(struct.unpack(">q" if size == 8 else ">i", file.read(size))[0])

    def skip(size: int) -> None:
        file.seek(-(-size // 4) * 4, os.SEEK_CUR)  # padded to 4 bytes

    def skip_attributes() -> None:
        number(4)
        for _ in range(number()):
            skip(number())
            size = _TYPE_BYTES[number(4)]
            skip(number() * size)

    records = number()  # -1: written as a stream, unknown
    number(4)
    lengths = []
    for _ in range(number()):
        skip(number())
        lengths.append(number())
    skip_attributes()
    number(4)
    fixed, per_record = [0], []
    for _ in range(number()):
        skip(number())
        shape = [lengths[number()] for _ in range(number())]
        skip_attributes()
        size = _TYPE_BYTES[number(4)]
        number()  # vsize: redundant, and wrong for large variables
        begin = number(4 if version == 1 else 8)
        if shape and shape[0] == 0:
            per_record.append((begin, math.prod(shape[1:]) * size))
        else:
            fixed.append(begin + math.prod(shape) * size)
    if not per_record or records < 1:
        return max(fixed)
    single = len(per_record) == 1  # then records are not padded
    step = sum(size if single else -(-size // 4) * 4 for _, size in per_record)
    return max(*fixed, *(begin + (records - 1) * step + size for begin, size in per_record))


# --- zip ------------------------------------------------------------------------------------------


def extract_zip(archive: Path, into: Path | None = None) -> Path:
    """Extract a zip safely, once.

    The files go to ``<name of the zip>-<digest of its contents>`` under `into`, which appears whole
    or not at all; if it is there already it is used as it is.

    Parameters
    ----------
    archive : Path
        The zip file.
    into : Path, optional
        Directory to extract under. Default: the zip's own directory.

    Returns
    -------
    Path
        The directory that holds the members.

    Raises
    ------
    InputError
        If the zip is damaged or encrypted; if a member would leave the directory (``..``, absolute
        path) or is a link; if there are more than 20,000 members, more than 256 GiB, more than the
        disk has free, or it expands more than a hundredfold; if the directory cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = checked_members(archive, opened)
            parent = archive.parent if into is None else Path(into).expanduser()
            contents = sorted((m.filename, m.file_size, m.CRC) for m in members)
            digest = hashlib.sha256(repr(contents).encode()).hexdigest()[:8]
            target = parent / f"{archive.stem}-{digest}"
            if not target.exists():
                _extract(archive, opened, members, target)
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{archive}: damaged, incomplete or unknown zip ({_reason(error)}). Download it again"
        ) from error
    wrong = [
        m.filename
        for m in members
        if not (path := target / m.filename).is_file() or path.stat().st_size != m.file_size
    ]
    if wrong:
        raise InputError(
            f"{target}: {len(wrong)} files extracted earlier from {archive.name} are missing or "
            f"changed (first '{wrong[0]}'). Delete the directory, and it is extracted anew"
        )
    return target


def checked_members(archive: Path, opened: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Files in a zip that is fit to be extracted."""
    infos = opened.infolist()
    if len(infos) > MAX_MEMBERS:
        raise InputError(f"{archive}: {len(infos)} members, at most {MAX_MEMBERS} are extracted")
    members = [m for m in infos if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    for member in infos:
        name, mode = member.filename, member.external_attr >> 16
        windows = PureWindowsPath(name)
        if windows.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
            raise InputError(
                f"{archive}: member '{name}' would be written outside the directory of extraction; "
                "nothing was extracted"
            )
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(
                f"{archive}: member '{name}' is a symbolic link or a special file, expected files "
                "and directories only; nothing was extracted"
            )
        if member.flag_bits & 1:
            raise InputError(f"{archive}: member '{name}' is encrypted; extract the zip yourself")
    folded = [m.filename.casefold() for m in members]
    if len(set(folded)) < len(folded):
        raise InputError(f"{archive}: holds several members of the same name")
    total, size = sum(m.file_size for m in members), archive.stat().st_size
    if total > MAX_BYTES or total > MAX_RATIO * max(size, 2**20):
        raise InputError(
            f"{archive}: {size} bytes would expand to {total}; at most {MAX_BYTES} bytes and "
            f"{MAX_RATIO} times the size of the zip are extracted. If you trust it, extract it "
            "yourself and give the directory"
        )
    return members


def _extract(
    archive: Path, opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], target: Path
) -> None:
    """Extract `members` to a temporary directory, then rename it to `target`."""
    partial = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free, total = shutil.disk_usage(target.parent).free, sum(m.file_size for m in members)
        if total > free:
            raise InputError(f"{archive}: needs {total} bytes in {target.parent}, {free} are free")
        logger.info("extracting %s to %s", archive, target)
        partial = Path(tempfile.mkdtemp(prefix=f".{archive.stem}-", dir=target.parent))
        partial.chmod(0o755)
        for member in members:
            path = partial / member.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            # zipfile stops at the declared size and checks the CRC, so a lying header ends here.
            with opened.open(member) as source, open(path, "xb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
    except OSError as error:
        raise InputError(
            f"{archive}: cannot be extracted to {target.parent} ({_reason(error)}): name a "
            "directory that can be written with extract_to="
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
