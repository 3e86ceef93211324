"""What the first bytes of a file say of it."""

from __future__ import annotations

import math
import os
import re
import struct
from pathlib import Path
from typing import IO

from ..errors import InputError

# Sources: the formats' own specifications.
_MAGIC = (
    (0, rb"CDF[\x01\x02\x05]", "netCDF 3 file"),
    (0, rb"\x89HDF\r\n\x1a\n", "HDF5 (or netCDF 4) file"),
    (0, rb"PK(\x03\x04|\x05\x06)", "zip archive"),
    (0, rb"\x1f\x8b", "gzip (.gz) file"),
    (0, rb"BZh[1-9]", "bzip2 (.bz2) file"),
    (0, rb"\xfd7zXZ\0", "xz (.xz) file"),
    (0, rb"\x28\xb5\x2f\xfd", "Zstandard (.zst) file"),
    (0, rb"\x1f\x9d", "compress (.Z) file"),
    (0, rb"7z\xbc\xaf\x27\x1c", "7-Zip (.7z) archive"),
    (0, rb"\x93NUMPY", "numpy array (.npy)"),
    (0, rb"\0\0[\x08\x09\x0b-\x0e][\x01-\x04]", "IDX file"),
    (0, rb"GRIB", "GRIB file"),
    (0, rb"RIFF....AVI ", "AVI video"),
    (4, rb"ftyp", "MP4 video"),
    (0, rb"\xff\xd8\xff", "JPEG image"),
    (0, rb"\x89PNG\r\n", "PNG image"),
    (0, rb"\xed\xfe\0\0N\0o\0r\0p\0i\0x\0", "StreamPix sequence (.seq)"),
    (257, rb"ustar", "tar archive"),
    (0, rb"\s*<(?i:!doctype html|html)", "web page (HTML)"),
)
_UNKNOWN, _EMPTY = "file of unknown format", "empty file"
#: What unpacks a file of a kind.
_UNPACK = {
    "gzip (.gz) file": "gunzip",
    "bzip2 (.bz2) file": "bunzip2",
    "xz (.xz) file": "unxz",
    "Zstandard (.zst) file": "unzstd",
    "compress (.Z) file": "uncompress",
    "7-Zip (.7z) archive": "7z x",
    "zip archive": "unzip",
    "tar archive": "tar xf",
}


def kind_of(path: Path) -> str:
    """Say what a file is, by its first bytes."""
    with open(path, "rb") as file:
        head = file.read(300)
    if not head:
        return _EMPTY
    for at, pattern, kind in _MAGIC:
        if re.match(pattern, head[at:], re.DOTALL):
            return "numpy archive (.npz)" if kind[:3] == "zip" and path.suffix == ".npz" else kind
    return _UNKNOWN


def another_kind(path: Path) -> str | None:
    """Say that a file is whole but of a kind that is not read here, and what to do with it.

    None where its first bytes do not tell: it may be damaged.
    """
    kind = kind_of(path)
    if kind in _UNPACK:
        return f"it is compressed, a {kind}: unpack it first, with `{_UNPACK[kind]} {path.name}`"
    if kind in (_UNKNOWN, _EMPTY) or kind.startswith(("netCDF", "HDF5", "web")):
        return None
    return f"it is a {kind}, neither netCDF nor zarr"


# --- netCDF 3 -------------------------------------------------------------------------------------

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


def refuse_truncated_netcdf3(path: Path) -> None:
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

    whole = os.fstat(file.fileno()).st_size

    def number(size: int = wide) -> int:
        return int(struct.unpack(">q" if size == 8 else ">i", file.read(size))[0])

    def count() -> int:
        """Read how many there are, of things that take a byte each at least."""
        if not 0 <= (found := number()) <= whole:
            raise IndexError(f"{found} entries in {whole} bytes")
        return found

    def skip(size: int) -> None:
        file.seek(-(-size // 4) * 4, os.SEEK_CUR)  # padded to 4 bytes

    def skip_attributes() -> None:
        number(4)
        for _ in range(count()):
            skip(count())
            size = _TYPE_BYTES[number(4)]
            skip(count() * size)

    records = number()  # -1: written as a stream, unknown
    number(4)
    lengths = []
    for _ in range(count()):
        skip(count())
        lengths.append(number())
    skip_attributes()
    number(4)
    fixed, per_record = [0], []
    for _ in range(count()):
        skip(count())
        shape = [lengths[number()] for _ in range(count())]
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
