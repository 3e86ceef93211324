"""Files as they come from elsewhere: opened lazily, and refused by name where they are damaged."""

from __future__ import annotations

import errno
import logging
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from ..conventions.number_dates import decode_times
from ..errors import InputError
from .decoding import open_decoded
from .headers import another_kind, refuse_truncated_netcdf3
from .limits import refuse_hdf5_claims

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]
#: What the netCDF, HDF5 and zarr libraries raise on data they cannot read.
READ_ERRORS = (OSError, RuntimeError, ValueError, EOFError, OverflowError, zlib.error)
#: Packages with kinds of errors of their own.
_FOREIGN = ("gribapi", "eccodes", "cfgrib", "obstore")
#: What is in the names of storage options that give credentials.
_CREDENTIALS = ("key", "token", "secret", "credential", "service_account")
_GROUPS_DEPTH = 4


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


@dataclass(frozen=True)
class Reading:
    """How a file or store is read.

    Parameters
    ----------
    storage_options : mapping, optional
        For a URL, as in :func:`object_store`.
    group : str, optional
        The group of a netCDF file or zarr store that holds the data; the root unless given.
    missing_chunks : {"raise", "fill"}
        What a chunk is that a zarr store does not hold: lost, or all fill values.
    """

    storage_options: Mapping[str, Any] | None = None
    group: str | None = None
    missing_chunks: Literal["raise", "fill"] = "raise"

    def __post_init__(self) -> None:
        if self.missing_chunks not in ("raise", "fill"):
            raise InputError(
                f"missing_chunks must be 'raise' or 'fill', found {self.missing_chunks!r}"
            )


_PLAINLY = Reading()


def open_lazy(source: str | Path, reading: Reading = _PLAINLY) -> xr.Dataset:
    """Open a netCDF file (3 or 4), a zarr store or the URL of one, without dask and a cache.

    Metadata and coordinates are read, data are not. A missing chunk of a zarr store is refused
    later, on reading.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if is_remote(source) or Path(source).is_dir():
                ds = _open_zarr(source, reading)
            else:
                refuse_truncated_netcdf3(Path(source))
                refuse_hdf5_claims(Path(source))
                opening = partial(xr.open_dataset, source, engine="netcdf4", cache=False)
                ds = _decoded(source, partial(opening, group=reading.group))
        except InputError:
            raise
        except Exception as error:
            # zarr looks into damaged metadata, and finds a number where a mapping should be.
            misled = isinstance(error, (AttributeError, KeyError, TypeError))
            if not (is_read_error(error) or misled):
                raise
            why = _misfit(source, error, reading.group) or fault(error)
            raise InputError(f"{source}: cannot be opened ({reason(error)}): {why}") from error
    for warning in caught:
        logger.info("%s: %s", source, warning.message)
    return ds


def _decoded(source: str | Path, opening: Callable[..., xr.Dataset]) -> xr.Dataset:
    try:
        return open_decoded(source, opening)
    except ValueError as error:
        if "unable to decode time" not in str(error):
            raise
    return decode_times(opening(decode_times=False))


def groups_of(source: str | Path, reading: Reading = _PLAINLY) -> list[str]:
    """Names of the groups in a netCDF file or zarr store; none where they cannot be listed."""
    try:
        if is_remote(source) or Path(source).is_dir():
            import zarr

            root = zarr.open_group(_store(source, reading), mode="r")
            members = root.members(max_depth=_GROUPS_DEPTH)
            return sorted(name for name, member in members if isinstance(member, zarr.Group))
        import netCDF4

        with netCDF4.Dataset(source) as file:
            return sorted(_below(file))
    except Exception:  # it is looked at to make a message better
        return []


def _below(group: Any) -> Iterator[str]:
    for child in group.groups.values():
        yield child.path.strip("/")
        yield from _below(child)


def _misfit(source: str | Path, error: Exception, group: str | None) -> str | None:
    """Say why a source that is whole is not opened, and what to do; None if it may be damaged."""
    if group is not None and (there := groups_of(source)) and group.strip("/") not in there:
        return f"it has no group '{group}', its groups are {', '.join(there)}"
    if "decode time" in str(error) or "calendar" in str(error):
        return (
            "its times are in units or a calendar that are not understood. Correct these "
            "attributes, as with ncatted, or open it with xarray (decode_times=False) and assign "
            "the times"
        )
    if is_remote(source):
        return None
    path = Path(source)
    if path.is_dir():
        # xarray looks for those of NCZarr, in a way that zarr no longer has, and then gives up.
        said = ("dimension_names", "_ARRAY_DIMENSIONS", "'prototype'")
        if any(word in str(error) for word in said):
            return "its arrays do not say which dimensions they have: it was not written by xarray"
        return None
    return another_kind(path) if os.access(path, os.R_OK) else None


def fault(error: BaseException, otherwise: str = "neither netCDF nor zarr") -> str:
    """Say what an error on reading means for the file, and what to do.

    Damage is what remains: first comes whatever else makes a sound file unreadable.
    """
    said, kind = str(error), type(error).__name__
    number = getattr(error, "errno", None)
    if isinstance(error, UnicodeError):
        return (
            "the locale of this process cannot write the letters of its path. Set LC_ALL=C.UTF-8 "
            "or PYTHONUTF8=1, or rename it"
        )
    if "Permission" in kind or number in (errno.EACCES, errno.EPERM) or "403 Forbidden" in said:
        return "it may not be read. Ask for the permission, or give credentials"
    if kind == "UnauthenticatedError":
        return "it wants credentials: give them in storage_options"
    if type(error).__module__.startswith("obstore"):
        if "error sending request" in said or "timed out" in said or "operation timed" in said:
            return "it cannot be reached. Is there a network, and is the address right?" + _s3(said)
        return "the server does not give it out. Try again later" + _s3(said)
    if kind in ("GroupNotFoundError", "FileNotFoundError", "NodeNotFoundError"):
        return "there is no zarr store or file of this name. Is the address right?"
    if number in (errno.EMFILE, errno.ENFILE):
        return "too many files are open. Raise the limit, with ulimit -n"
    if number in (errno.EIO, errno.ESTALE, errno.ENODEV):
        return "the disk does not answer. Is it mounted and sound?"
    if number == errno.EAGAIN or "unable to lock" in said:
        return (
            "another process holds a lock on it. Wait until it is written, or set "
            "HDF5_USE_FILE_LOCKING=FALSE"
        )
    if "ilter" in said or "codec" in said:
        return (
            "it is compressed by a filter that is not installed here. Install it, as with "
            "pip install hdf5plugin, or write it anew with zlib"
        )
    return f"it is truncated, damaged or {otherwise}. Copy or download it again"


def _s3(said: str) -> str:
    if "S3" not in said:
        return ""
    return (
        " For S3 name the region, as in storage_options={'region': 'eu-central-1'}: the options "
        "are those of obstore, not of s3fs"
    )


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


def _open_zarr(source: str | Path, reading: Reading) -> xr.Dataset:
    store = _store(source, reading)
    opening = partial(xr.open_dataset, store, engine="zarr", cache=False, group=reading.group)
    return _decoded(source, opening)


def _store(source: str | Path, reading: Reading) -> Any:
    from zarr.storage import LocalStore, ObjectStore

    from .guarded_store import GuardedStore
    from .strict_store import StrictStore

    store: ObjectStore | LocalStore
    if is_remote(source):
        store = ObjectStore(object_store(str(source), reading.storage_options), read_only=True)
    else:
        store = LocalStore(source, read_only=True)
    return GuardedStore(StrictStore(store, fill=reading.missing_chunks == "fill"))


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
        why = another_kind(path) or fault(error, "no HDF5 file")
        raise InputError(f"{path}: {why.removeprefix('it is ')} ({what})") from error
