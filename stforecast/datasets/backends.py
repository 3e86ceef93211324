"""Files as they come from elsewhere: opened lazily, and refused by name where they are damaged."""

from __future__ import annotations

import logging
import math
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import xarray as xr

from ..errors import InputError
from .decoding import open_decoded
from .limits import refuse_hdf5_claims

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]
#: What the netCDF, HDF5 and zarr libraries raise on data they cannot read.
READ_ERRORS = (OSError, RuntimeError, ValueError, EOFError, OverflowError, zlib.error)
#: Packages with kinds of errors of their own.
_FOREIGN = ("gribapi", "eccodes", "cfgrib", "obstore")
#: What is in the names of storage options that give credentials.
_CREDENTIALS = ("key", "token", "secret", "credential", "service_account")


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is a URL such as ``gs://bucket/store.zarr``."""
    return isinstance(source, str) and "://" in source


def existing(path: str | os.PathLike[str]) -> Path:
    """Give a path to a file or directory, ``~`` written out; refuse it if there is none."""
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
    """Open a netCDF file (3 or 4), a zarr store or the URL of one, without dask and a cache.

    Metadata and coordinates are read, data are not. `storage_options` are as in
    :func:`object_store`. A missing chunk of a zarr store is refused later, on reading.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if is_remote(source) or Path(source).is_dir():
                ds = _open_zarr(source, storage_options)
            else:
                _refuse_truncated_netcdf3(Path(source))
                refuse_hdf5_claims(Path(source))
                opening = partial(xr.open_dataset, source, engine="netcdf4", cache=False)
                ds = open_decoded(source, opening)
        except InputError:
            raise
        except Exception as error:
            if not (is_read_error(error) or isinstance(error, (KeyError, TypeError))):
                raise
            advice = (
                ": it is truncated, damaged or neither netCDF nor zarr. Copy or download it again"
            )
            if isinstance(error, PermissionError):
                advice = ""
            raise InputError(f"{source}: cannot be opened ({reason(error)}){advice}") from error
    for warning in caught:
        logger.info("%s: %s", source, warning.message)
    return ds


def open_parts(
    source: str | Path, storage_options: Mapping[str, Any] | None = None
) -> list[xr.Dataset]:
    """Open a source as :func:`open_lazy` does; a GRIB file gives a Dataset a grid."""
    if not is_remote(source) and is_grib(Path(source)):
        return open_grib(Path(source))
    return [open_lazy(source, storage_options)]


def is_read_error(error: Exception) -> bool:
    """Whether an error came from data that a library cannot read."""
    foreign = type(error).__module__.partition(".")[0] in _FOREIGN
    return isinstance(error, READ_ERRORS) or foreign


def reason(error: BaseException) -> str:
    """Say in one line of what kind an error is, and what it says."""
    said = str(error).partition("Debug source")[0]  # obstore's errors add pages
    return f"{type(error).__name__}: {' '.join(said.split())[:200]}"


def object_store(url: str, storage_options: Mapping[str, Any] | None = None) -> Any:
    """Return obstore's store of what lies below `url`.

    `storage_options` are the keywords of obstore's ``from_url``: ``region``, ``endpoint``,
    ``access_key_id``, ``client_options``, ``credential_provider`` and so on. Requests are
    anonymous, and nothing looks for credentials, unless they name some, or say
    ``skip_signature=False``.
    """
    try:
        from obstore.store import HTTPStore, from_url
    except ImportError as error:
        raise InputError(
            f"{url}: reading it needs a package that is not installed ({error}): "
            "pip install 'stforecast[cloud]'"
        ) from error
    scheme = url.partition("://")[0]
    options = dict(storage_options or {})
    if scheme in ("http", "https"):
        # from_url would sign requests to the addresses that it knows as Amazon's.
        options["client_options"] = {"allow_http": scheme == "http"} | options.get(
            "client_options", {}
        )
        opened: Any = HTTPStore.from_url
    else:
        opened = from_url
        named = any(word in key for key in options for word in _CREDENTIALS)
        if scheme not in ("file", "memory") and not named:
            # Without it obstore asks the machine's metadata service for credentials.
            options.setdefault("skip_signature", True)
    try:
        return opened(url, **options)
    except Exception as error:  # obstore's own, ValueError and TypeError
        raise InputError(
            f"{url}: cannot be opened ({reason(error)}): expected the address of a store that "
            f"obstore knows, and storage_options that it takes, found {sorted(options)}"
        ) from error


def _open_zarr(source: str | Path, storage_options: Mapping[str, Any] | None) -> xr.Dataset:
    from zarr.storage import LocalStore, ObjectStore

    from .guarded_store import GuardedStore
    from .strict_store import StrictStore

    store: ObjectStore | LocalStore
    if is_remote(source):
        store = ObjectStore(object_store(str(source), storage_options), read_only=True)
    else:
        store = LocalStore(source, read_only=True)
    guarded = GuardedStore(StrictStore(store))
    opening = partial(xr.open_dataset, guarded, engine="zarr", cache=False)  # type: ignore[arg-type]
    return open_decoded(source, opening)


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


# --- GRIB ----------------------------------------------------------------------------------------

GRIB_SUFFIXES = (".grib", ".grb", ".grib1", ".grb1", ".grib2", ".grb2", ".gb2")


def is_grib(path: Path) -> bool:
    """Whether a file says that it is GRIB, by its first four bytes or else by its name."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"GRIB" or path.suffix.lower() in GRIB_SUFFIXES


def open_grib(path: Path) -> list[xr.Dataset]:
    """Open a GRIB file lazily: a Dataset for every kind of level and grid in it.

    The headers of all messages are read, as nothing else tells what the file holds; no index is
    left beside it. Forecast steps (ERA5's accumulations) lie on their valid times.
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
        raise InputError(
            f"{path}: cannot be opened ({reason(error)}): it is truncated, damaged or no GRIB. "
            "Copy or download it again"
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


# --- HDF5 ----------------------------------------------------------------------------------------


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; errors of opening and of reading in the block name it."""
    import h5py

    try:
        with h5py.File(path) as file:
            yield file
    except InputError:
        raise
    # A damaged tree answers with KeyError, or with a group where a dataset was.
    except (*READ_ERRORS, KeyError, AttributeError, TypeError) as error:
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: truncated, damaged or no HDF5 file ({what}). Copy or download it again"
        ) from error
