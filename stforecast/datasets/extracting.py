"""Archives, verified before they are unpacked."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import logging
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from ..errors import InputError
from .downloads import checksum
from .sources import MAX_BYTES, MAX_MEMBERS, MAX_RATIO, extract_zip

logger = logging.getLogger(__name__)

_DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError)
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


def extract(
    archive: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    sha256: str | None = None,
) -> Path:
    """Unpack a ``.zip`` or ``.tar`` (``.gz``, ``.bz2``, ``.xz``) safely, once.

    Names, kinds and sizes of all members are looked at before anything is written. The files then
    go to ``NAME-DIGEST`` under `target`, which appears whole, with the archive's own checksums
    found right, or not at all; if it is there already it is used as it is.

    Parameters
    ----------
    archive : path
        The archive.
    target : path, optional
        Directory to unpack under. Default: the archive's own.
    sha256 : str, optional
        What the archive must be, as in :func:`fetch`.

    Returns
    -------
    Path
        The directory with the members.

    Raises
    ------
    InputError
        If the archive is none, damaged, or another than expected; if a member would leave the
        directory (``..``, absolute path), is a link, a device or a second of its name; if there are
        more than 20,000 members, more than 256 GiB, more than the disk has free, or it expands more
        than a hundredfold.
    """
    path = Path(archive).expanduser()
    into = None if target is None else Path(target).expanduser()
    if not path.is_file():
        raise InputError(f"{path}: no such archive")
    if sha256 is not None:
        checksum(path, sha256)
    with open(path, "rb") as file:
        head = file.read(4)
    if head[:2] == b"PK" or path.suffix.lower() == ".zip":
        return extract_zip(path, into)
    if head[:2] == b"7z" or head == b"Rar!":
        raise InputError(f"{path}: unpack it yourself; only .zip and .tar archives are read here")
    return _extract_tar(path, path.parent if into is None else into)


def _extract_tar(archive: Path, parent: Path) -> Path:
    with open(archive, "rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()[:8]
    name = archive.name.removesuffix(archive.suffix).removesuffix(".tar")
    target = parent / f"{name}-{digest}"
    try:
        sizes = _checked(archive)  # all of it is read once, to know that it is sound
        if not target.exists():
            _unpack(archive, sizes, target)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{archive}: damaged, incomplete or no archive ({type(error).__name__}: {error}). "
            "Download it again"
        ) from error
    except OSError as error:
        # gzip's and bz2's errors on damage are OSErrors without a number
        what = "cannot be unpacked to" if error.errno else "damaged archive, not unpacked to"
        raise InputError(f"{archive}: {what} {parent} ({error})") from error
    wrong = [
        name
        for name, size in sizes.items()
        if not (file := target / name).is_file() or file.stat().st_size != size
    ]
    if wrong:
        raise InputError(
            f"{target}: {len(wrong)} files unpacked earlier from {archive.name} are missing or "
            f"changed (first '{wrong[0]}'). Delete the directory, and it is unpacked anew"
        )
    return target


class _Bounded(io.RawIOBase):
    """A decompressed stream that stops at a size: a bomb need not be read to its end."""

    def __init__(self, file: IO[bytes], most: int, archive: Path) -> None:
        self.file, self.left, self.archive = file, most, archive

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read from the stream below."""
        data = self.file.read(len(buffer))
        self.left -= len(data)
        if self.left < 0:
            raise InputError(
                f"{self.archive}: {self.archive.stat().st_size} bytes expand to more than "
                f"{MAX_RATIO} times as many, or to more than {MAX_BYTES}. If you trust it, unpack "
                "it yourself"
            )
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _members(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive as a stream; at the end all of it was read, checksum included."""
    size = archive.stat().st_size
    with open(archive, "rb") as raw:
        head = raw.read(2)
        raw.seek(0)
        opener = _OPENERS.get(head)
        inside: Any = raw if opener is None else opener(raw)
        most = min(MAX_BYTES, MAX_RATIO * max(size, 2**20))
        bounded = _Bounded(inside, most, archive)
        with tarfile.open(fileobj=bounded, mode="r|") as tar:
            yield tar
        while bounded.read(2**20):
            pass


def _checked(archive: Path) -> dict[str, int]:
    """Names and sizes of the files in an archive that is fit to be unpacked."""
    sizes: dict[str, int] = {}
    seen: set[str] = set()
    with _members(archive) as tar:
        for count, member in enumerate(tar):
            name = PureWindowsPath(member.name)
            if count >= MAX_MEMBERS:
                raise InputError(f"{archive}: more than {MAX_MEMBERS} members, none was unpacked")
            if name.is_absolute() or name.drive or name.root or ".." in name.parts:
                raise InputError(
                    f"{archive}: member '{member.name}' would be written outside the directory of "
                    "extraction; nothing was extracted"
                )
            if not (member.isdir() or member.isreg()) or member.issparse():
                raise InputError(
                    f"{archive}: member '{member.name}' is a link or a special file, expected "
                    "files and directories only; nothing was extracted"
                )
            if member.isreg():
                if member.name.casefold() in seen:
                    raise InputError(f"{archive}: holds several members called '{member.name}'")
                seen.add(member.name.casefold())
                sizes[member.name] = member.size
    return sizes


def _unpack(archive: Path, sizes: dict[str, int], target: Path) -> None:
    """Write the files to a temporary directory, then rename it to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    free, total = shutil.disk_usage(target.parent).free, sum(sizes.values())
    if total > free:
        raise InputError(f"{archive}: needs {total} bytes in {target.parent}, {free} are free")
    logger.info("extracting %s to %s", archive, target)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        partial.chmod(0o755)
        with _members(archive) as tar:
            for member in tar:
                if not member.isreg():
                    continue
                path = partial / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None  # of a regular file it never is
                with open(path, "xb") as sink:
                    shutil.copyfileobj(source, sink, 2**20)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
