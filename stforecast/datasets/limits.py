"""What a small file only claims: sizes are held against the file before memory is taken for them.

A header of a few bytes can say that terabytes follow. So whatever is read in one piece (a picture,
a map, a coordinate, a list of names) is refused where its size is above a limit and also above a
hundred times what the file has stored for it: real data are never compressed so far. Lengths that
nothing stores (sequences that are drawn, frames of all clips together) have a limit of their own.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError

MAX_RATIO = 100
MAX_MEMBERS = 20_000
_ENTRY_BYTES = 1024  # of a zip's directory, a member: 46 and its name, comment and extra fields
_MORE = "If you trust it, raise the limit: stforecast.datasets.set_limits({}=...)"


@dataclass(frozen=True)
class _Limits:
    piece_bytes: int = 2**29
    frames: int = 2**26
    picture_side: int = 2**12

    now: ClassVar[_Limits]


_Limits.now = _Limits()


class set_limits:
    """Raise, or lower, the limits on what a file may claim; as a statement or in a ``with`` block.

    They hold for this process, and count when data are opened and again when they are read.

    Parameters
    ----------
    piece_bytes : int, optional
        Bytes of one piece (a map, a coordinate, a member of an archive, a list of names) that is
        larger than a hundred times what is stored for it. Default: 512 MiB.
    frames : int, optional
        Frames of clips in one data set. Default: 67,108,864.
    picture_side : int, optional
        Height and width of a picture in pixels. Default: 4,096.

    Raises
    ------
    InputError
        If a limit is no whole number from 1.

    Examples
    --------
    >>> from stforecast.datasets import set_limits
    >>> with set_limits(piece_bytes=4 * 2**30):
    ...     pass  # open and read here
    """

    def __init__(
        self,
        *,
        piece_bytes: int | None = None,
        frames: int | None = None,
        picture_side: int | None = None,
    ) -> None:
        given = {"piece_bytes": piece_bytes, "frames": frames, "picture_side": picture_side}
        new = {name: value for name, value in given.items() if value is not None}
        for name, value in new.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be a whole number from 1, found {value!r}")
        self._before, _Limits.now = _Limits.now, replace(_Limits.now, **new)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        _Limits.now = self._before


def refuse_claim(what: object, size: int, stored: int) -> None:
    """Refuse `size` bytes in one piece of which `stored` are stored; `what` begins the message."""
    most = _Limits.now.piece_bytes
    if size > max(most, MAX_RATIO * stored):
        raise InputError(
            f"{what}: {size} bytes at once, of which {stored} bytes are stored: at most {most} "
            f"bytes or {MAX_RATIO} times what is stored are read. {_MORE.format('piece_bytes')}"
        )


def refuse_frames(what: object, frames: int) -> None:
    """Refuse more frames in one data set than the limit says."""
    if frames > (most := _Limits.now.frames):
        raise InputError(f"{what}: {frames} frames, at most {most}. {_MORE.format('frames')}")


def refuse_picture(what: object, height: int, width: int) -> None:
    """Refuse a picture that is too high or too wide."""
    if max(height, width) > (most := _Limits.now.picture_side):
        raise InputError(
            f"{what}: a picture of {height} x {width} pixels, at most {most} a side. "
            + _MORE.format("picture_side")
        )


def most_pixels() -> str:
    """What a decoder must not pass, where a picture is larger than its header says."""
    return str(_Limits.now.picture_side**2)


def missing_numbers(
    numbers: Collection[int], first: int, last: int, most: int = 8
) -> tuple[int, list[int]]:
    """How many of the numbers `first` to `last` are not there, and the first of these.

    As quick for a last number of twenty digits as for one of two.
    """
    there = {n for n in numbers if first <= n <= last}
    missing = (n for n in range(first, last + 1) if n not in there)
    count = last - first + 1 - len(there)
    return count, list(islice(missing, min(count, most)))


# --- zip ------------------------------------------------------------------------------------------


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip once its end says that its list of members is not too long to be read.

    Raises
    ------
    InputError
        If there are more than 20,000 members, or their names take more than 20 MB.
    zipfile.BadZipFile
        If it is no zip, or damaged; zipfile's other errors are given as this one.
    """
    members, size = _zip_directory(path)
    if members > MAX_MEMBERS or size > MAX_MEMBERS * _ENTRY_BYTES:
        raise InputError(
            f"{path}: {members} members in a list of {size} bytes, at most {MAX_MEMBERS} are "
            "extracted. If you trust it, extract it yourself and give the directory"
        )
    try:
        archive = zipfile.ZipFile(path)
    except (ValueError, struct.error, IndexError, OverflowError) as error:
        raise zipfile.BadZipFile(f"{type(error).__name__}: {error}") from error
    with archive:
        yield archive


def _zip_directory(path: Path) -> tuple[int, int]:
    """Members of a zip and bytes of their list, as its last record says; zeros where it has none.

    Source: PKWARE's APPNOTE.TXT, sections 4.3.14 to 4.3.16.
    """
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(-min(length, 22 + 2**16), os.SEEK_END)
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) < at + 22:
            return 0, 0
        members, size = struct.unpack_from("<HI", tail, at + 10)
        if at >= 20 and tail.startswith(b"PK\6\7", at - 20):
            file.seek(min(struct.unpack_from("<Q", tail, at - 12)[0], length))
            record = file.read(56)
            if len(record) == 56:
                members, size = struct.unpack_from("<QQ", record, 32)
        return members, min(size, length)


# --- HDF5 -----------------------------------------------------------------------------------------


def read_whole(path: Path, dataset: Any) -> Any:
    """Read all of an HDF5 data set, if the file has stored something of its size."""
    refuse_part(path, dataset, dataset.nbytes)
    return dataset[()]


def refuse_part(path: Path, dataset: Any, size: int) -> None:
    """Refuse to read `size` bytes at once of an HDF5 data set where it has stored far less."""
    if size > _Limits.now.piece_bytes:  # else nobody asks how much is stored, which takes a while
        refuse_claim(f"{path}: '{dataset.name}'", size, dataset.id.get_storage_size())


def refuse_hdf5_claims(path: Path) -> None:
    """Refuse an HDF5 file with a coordinate, map or chunk of fill values that is too large."""
    import h5py

    def look(_: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape:
            steps = node.shape[0] if node.ndim > 2 else 1  # along time, in the usual order
            refuse_part(path, node, node.nbytes // max(1, steps))
            refuse_part(path, node, math.prod(node.chunks or ()) * node.dtype.itemsize)

    with open(path, "rb") as file:
        if file.read(4) != b"\x89HDF":
            return
    try:
        with h5py.File(path) as file:
            file.visititems(look)
    except InputError:
        raise
    except Exception:  # whoever opens it says what is wrong with it
        return
