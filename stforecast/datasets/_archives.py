"""Files in a directory tree and in the zips in it, found by name and read one by one."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .sources import checked_members, existing, stamp

_MOST_BYTES = 2**30  # of one member, which is read into memory


@dataclass(frozen=True)
class Member:
    """A file on disk, or one in a zip."""

    file: Path  # the file itself, or the zip
    name: str | None = None  # its name in the zip

    def __str__(self) -> str:
        return str(self.file) if self.name is None else f"{self.file}: {self.name}"

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
            with zipfile.ZipFile(self.file) as archive:
                if archive.getinfo(self.name).file_size > _MOST_BYTES:
                    raise InputError(f"{self}: more than {_MOST_BYTES} bytes. Extract the zip")
                with archive.open(self.name) as member:
                    return member.read(most)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
            raise InputError(
                f"{self}: cannot be read from the zip ({error}): it is damaged or was changed. "
                "Download it again"
            ) from error


def find_members(
    root: Path, pattern: re.Pattern[str], *, skip: tuple[str, ...] = ()
) -> Iterator[tuple[re.Match[str], Member]]:
    """Find files whose names end as `pattern` says, in a directory, the zips in it, or one zip.

    Parameters
    ----------
    root : Path
        A file, a zip or a directory.
    pattern : re.Pattern
        Matches the end of a path with forward slashes, from the beginning of a name in it.
    skip : tuple of str
        Names of directories not to look into.

    Yields
    ------
    (re.Match, Member)
        In order of names; hidden files are left out.

    Raises
    ------
    InputError
        If there is no such path, or a zip is damaged or not fit to be read.
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
        with zipfile.ZipFile(path) as archive:
            return sorted(m.filename for m in checked_members(path, archive))
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: damaged, incomplete or unknown zip ({error}). Download it again"
        ) from error
