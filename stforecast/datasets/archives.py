"""Zips and tars: files found in them by name, and unpacked behind one guard."""

from __future__ import annotations

import hashlib
import logging
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..errors import InputError
from .backends import READ_ERRORS, existing, reason, stamp
from .download import checksum
from .limits import MAX_MEMBERS, MAX_RATIO, open_zip, refuse_claim
from .tar_files import open_tar

logger = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**30
_MOST_BYTES = 2**30  # of one member, which is read into memory
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)


@dataclass(frozen=True)
class Member:
    """A file on disk, or one in a zip."""

    file: Path  # the file itself, or the zip
    name: str | None = None  # its name in the zip

    def __str__(self) -> str:
        return str(self.file) if self.name is None else f"{self.file}: {self.name}"

    @property
    def length(self) -> int:
        """Bytes in it."""
        if self.name is None:
            return self.file.stat().st_size
        with open_zip(self.file) as archive:
            return archive.getinfo(self.name).file_size

    @property
    def stamp(self) -> tuple[int, ...]:
        """What changes when the file does."""
        return stamp(self.file)

    def read(self, most: int = -1) -> bytes:
        """Read it, or its first `most` bytes; all of it is held against a zip's checksum."""
        if self.name is None:
            with open(self.file, "rb") as file:
                return file.read(most)
        try:
            with open_zip(self.file) as archive:
                info = archive.getinfo(self.name)
                if most < 0:
                    refuse_claim(self, info.file_size, info.compress_size)
                if info.file_size > _MOST_BYTES:
                    raise InputError(f"{self}: more than {_MOST_BYTES} bytes. Extract the zip")
                with archive.open(self.name) as member:
                    return member.read(most)
        except InputError:
            raise
        except (*READ_ERRORS, *_DAMAGE, KeyError, struct.error) as error:
            raise InputError(
                f"{self}: cannot be read from the zip ({error}): it is damaged or was changed. "
                "Download it again"
            ) from error


def find_members(
    root: Path, pattern: re.Pattern[str], *, skip: tuple[str, ...] = ()
) -> Iterator[tuple[re.Match[str], Member]]:
    """Find files whose names end as `pattern` says, in a directory, the zips in it, or one zip.

    The pattern matches the end of a path with forward slashes, from the beginning of a name in it;
    directories named in `skip` are not looked into. In order of names; hidden files are left out.
    """
    whole = re.compile(f"(?:.*/)?{pattern.pattern}", pattern.flags)
    for path in _files(root, skip):
        if path.suffix.lower() == ".zip":
            for name in _names(path):
                if match := whole.fullmatch(name):
                    yield match, Member(path, name)
        # From two directories up, so that a file given by its name is known by its directory too.
        elif match := whole.fullmatch(path.absolute().as_posix()):
            yield match, Member(path)


def first_of(
    root: Path, kinds: Mapping[str, re.Pattern[str]], *, skip: tuple[str, ...] = ()
) -> str | None:
    """Say in one line which kind of file is in `root`, of several named kinds; None if none is."""
    for line, pattern in kinds.items():
        try:
            found = next(find_members(root, pattern, skip=skip), None)
        except (InputError, OSError):
            return None
        if found is not None:
            return f"{line}, first {found[1].name or found[1].file.name}"
    return None


def _files(root: Path, skip: tuple[str, ...]) -> Iterator[Path]:
    if existing(root).is_file():
        yield root
        return
    for directory, below, files in os.walk(root):
        below[:] = sorted(d for d in below if d not in skip and not d.startswith("."))
        yield from (Path(directory, name) for name in sorted(files) if not name.startswith("."))


def _names(path: Path) -> list[str]:
    try:
        with open_zip(path) as archive:
            return sorted(m.filename for m in checked_members(path, archive))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(
            f"{path}: damaged, incomplete or unknown zip ({error}). Download it again"
        ) from error


# --- unpacking ------------------------------------------------------------------------------------


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
        If the archive is none, damaged, encrypted, or another than expected; if a member would
        leave the directory (``..``, absolute path), is a link, a device or a second of its name; if
        there are more than 20,000 members, more than 256 GiB, more than the disk has free, or it
        expands more than a hundredfold; if the directory cannot be written.
    """
    path = Path(archive).expanduser()
    into = path.parent if target is None else Path(target).expanduser()
    if not path.is_file():
        raise InputError(f"{path}: no such archive")
    if sha256 is not None:
        checksum(path, sha256)
    with open(path, "rb") as file:
        head = file.read(4)
    if head[:2] == b"7z" or head == b"Rar!":
        raise InputError(f"{path}: unpack it yourself; only .zip and .tar archives are read here")
    is_zip = head[:2] == b"PK" or path.suffix.lower() == ".zip"
    unpack, kind = (_unpack_zip, "unknown zip") if is_zip else (_unpack_tar, "no archive")
    try:
        return unpack(path, into)
    except InputError:
        raise
    except OSError as error:
        # The errors of gzip and bz2 on damage are OSErrors without a number.
        where = f"cannot be extracted to {into}" if error.errno else "damaged archive"
        raise InputError(
            f"{path}: {where} ({reason(error)}): name a directory that can be written with "
            "extract_to= or target="
        ) from error
    except (*_DAMAGE, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path}: damaged, incomplete or {kind} ({reason(error)}). Download it again"
        ) from error


def _unpack_zip(archive: Path, parent: Path) -> Path:
    with open_zip(archive) as opened:
        members = checked_members(archive, opened)
        contents = sorted((m.filename, m.file_size, m.CRC) for m in members)
        digest = hashlib.sha256(repr(contents).encode()).hexdigest()[:8]

        def write(directory: Path) -> None:
            for member in members:
                path = directory / member.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                # zipfile stops at the declared size and checks the CRC: a lying header ends here.
                with opened.open(member) as source, open(path, "xb") as sink:
                    shutil.copyfileobj(source, sink, 2**20)

        sizes = {m.filename: m.file_size for m in members}
        return _unpacked(archive, sizes, parent / f"{archive.stem}-{digest}", write)


def checked_members(archive: Path, opened: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Files in a zip that is fit to be extracted."""
    infos = opened.infolist()
    if len(infos) > MAX_MEMBERS:
        raise InputError(f"{archive}: {len(infos)} members, at most {MAX_MEMBERS} are extracted")
    members = [m for m in infos if not m.filename.endswith("/")]
    members = [m for m in members if not m.filename.startswith("__MACOSX/")]
    seen: set[str] = set()
    for member in infos:
        kind = stat.S_IFMT(member.external_attr >> 16)
        plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
        _guard(archive, member.filename, plain, kind == stat.S_IFLNK)
        if member.flag_bits & 1:
            raise InputError(
                f"{archive}: member '{member.filename}' is encrypted; extract the zip yourself"
            )
    for member in members:
        _once(archive, member.filename, seen)
    total, size = sum(m.file_size for m in members), archive.stat().st_size
    if total > MAX_BYTES or total > MAX_RATIO * max(size, 2**20):
        raise InputError(
            f"{archive}: {size} bytes would expand to {total}; at most {MAX_BYTES} bytes and "
            f"{MAX_RATIO} times the size of the zip are extracted. If you trust it, extract it "
            "yourself and give the directory"
        )
    return members


def _unpack_tar(archive: Path, parent: Path) -> Path:
    with open(archive, "rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()[:8]
    sizes: dict[str, int] = {}
    seen: set[str] = set()
    most = _most_bytes(archive)
    with open_tar(archive, most) as tar:  # all of it is read once, to know that it is sound
        for count, member in enumerate(tar):
            if count >= MAX_MEMBERS:
                raise InputError(f"{archive}: more than {MAX_MEMBERS} members, none was extracted")
            if not 0 <= member.size <= most:  # as a pax header may say: it would be sought for ever
                raise InputError(
                    f"{archive}: member '{member.name}' says that it has {member.size} bytes: "
                    "damaged, or made to be endless; nothing was extracted"
                )
            plain = member.isdir() or (member.isreg() and not member.issparse())
            _guard(archive, member.name, plain, member.issym())
            if member.isreg():
                _once(archive, member.name, seen)
                sizes[member.name] = member.size

    def write(directory: Path) -> None:
        with open_tar(archive, most) as tar:
            for member in tar:
                if member.isreg():
                    tar.extract(member, directory, set_attrs=False, filter="data")

    name = archive.name.removesuffix(archive.suffix).removesuffix(".tar")
    return _unpacked(archive, sizes, parent / f"{name}-{digest}", write)


def _most_bytes(archive: Path) -> int:
    """What an archive may expand to."""
    return min(MAX_BYTES, MAX_RATIO * max(archive.stat().st_size, 2**20))


def _guard(archive: Path, name: str, plain: bool, symbolic: bool) -> None:
    """Refuse a member that would leave the directory, or is no file and no directory."""
    path = PureWindowsPath(name)  # it knows both kinds of slash, and drives
    if not path.parts or any(0xD800 <= ord(c) < 0xE000 for c in name):
        raise InputError(
            f"{archive}: a member called {name!a}, expected a name, in UTF-8; nothing was extracted"
        )
    if path.is_absolute() or path.drive or path.root or ".." in path.parts:
        raise InputError(
            f"{archive}: member '{name}' would be written outside the directory of extraction; "
            "nothing was extracted"
        )
    if not plain:
        raise InputError(
            f"{archive}: member '{name}' is a {'symbolic ' * symbolic}link or a special file, "
            "expected files and directories only; nothing was extracted"
        )


def _once(archive: Path, name: str, seen: set[str]) -> None:
    """Refuse a second member of a name: in upper or lower case, or composed in other ways."""
    plain = unicodedata.normalize("NFC", PureWindowsPath(name).as_posix().casefold())
    if plain in seen:
        raise InputError(f"{archive}: holds several members called '{name}'")
    seen.add(plain)


def _unpacked(
    archive: Path, sizes: Mapping[str, int], target: Path, write: Callable[[Path], None]
) -> Path:
    """Return `target` with all files; `write` fills a temporary directory, which is renamed."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        free, total = shutil.disk_usage(target.parent).free, sum(sizes.values())
        if total > free:
            raise InputError(f"{archive}: needs {total} bytes in {target.parent}, {free} are free")
        logger.info("extracting %s to %s", archive, target)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            partial.chmod(0o755)
            write(partial)
            try:
                partial.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was first
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    wrong = [
        name
        for name, size in sizes.items()
        if not (file := target / name).is_file() or file.stat().st_size != size
    ]
    if wrong:
        raise InputError(
            f"{target}: {len(wrong)} files extracted earlier from {archive.name} are missing or "
            f"changed (first '{wrong[0]}'). Delete the directory, and it is extracted anew"
        )
    return target
