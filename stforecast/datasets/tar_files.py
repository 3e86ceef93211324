"""Tars as streams that end: bombs, endless headers and damage are refused as they are read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from ..errors import InputError
from .limits import MAX_RATIO

_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
_IN_A_ROW, _EXTENSION_BYTES = 8, 2**20
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_DAMAGED = ("InvalidHeaderError", "TruncatedHeaderError")


class _Bounded(io.RawIOBase):
    """A decompressed stream that stops at a size: a bomb need not be read to its end."""

    def __init__(self, file: IO[bytes], most: int, archive: Path) -> None:
        self.file, self.left, self.archive = file, most, archive

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(len(buffer))
        self.left -= len(data)
        if self.left < 0:
            raise InputError(
                f"{self.archive}: {self.archive.stat().st_size} bytes expand to more than "
                f"{MAX_RATIO} times as many, or to more than 256 GiB. If you trust it, unpack it "
                "yourself"
            )
        buffer[: len(data)] = data
        return len(data)


class _Header(tarfile.TarInfo):
    """A header in a tar; long names and pax headers are read in memory, and one in the other."""

    archive: Path  # these two are of one stream: see open_tar
    in_a_row = 0

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if type(error).__name__ in _DAMAGED:  # elsewhere than at the start, tarfile just ends
                raise tarfile.ReadError(str(error)) from error
            raise
        cls.in_a_row = cls.in_a_row + 1 if info.type in _EXTENSIONS else 0
        if cls.in_a_row > _IN_A_ROW or (cls.in_a_row and not 0 <= info.size <= _EXTENSION_BYTES):
            raise InputError(
                f"{cls.archive}: its headers of long names or extra fields are {info.size} bytes "
                f"long, or {cls.in_a_row} in a row: at most {_EXTENSION_BYTES} and {_IN_A_ROW} are "
                "read; nothing was extracted"
            )
        return info


@contextmanager
def open_tar(archive: Path, most: int) -> Iterator[tarfile.TarFile]:
    """Open a tar as a stream; at the end all of it was read, checksum included."""
    header = type("_Header", (_Header,), {"archive": archive})
    with open(archive, "rb") as raw:
        opener = _OPENERS.get(raw.read(2))
        raw.seek(0)
        bounded = _Bounded(opener(raw) if opener else raw, most, archive)
        with tarfile.open(fileobj=bounded, mode="r|", tarinfo=header) as tar:
            yield tar
        while bounded.read(2**20):
            pass
