"""Files that stay what they were: a source that changes in mid-run is trained on no further."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..datasets.backends import is_remote, is_zarr, stamp
from ..errors import InputError

_EVERY = 1.0  # seconds between two looks at a store, which has many files
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class Unchanged:
    """The files and local zarr stores of a data set, as they are now.

    A file is known by its size and time of change. Of a store these are its metadata and the
    directories of its arrays, whose time changes when a chunk is put in place or goes.

    Parameters
    ----------
    sources : iterable of str
        Paths. URLs, and what is not there, are passed over.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self._files: dict[str, tuple[int, ...] | None] = {}
        self._stores: dict[str, tuple[int, ...] | None] = {}
        for source in sources:
            if is_remote(source) or not os.path.exists(source):
                continue
            if os.path.isdir(source) and is_zarr(Path(source)):
                self._stores |= {path: _stamp(path) for path in _of_store(source)}
            else:
                self._files[source] = _stamp(source)
        self._looked = time.monotonic()

    def check(self) -> None:
        """Look whether they are as they were.

        Raises
        ------
        InputError
            If one is not: it is named.
        """
        known = dict(self._files)
        if self._stores and time.monotonic() - self._looked > _EVERY:
            self._looked = time.monotonic()
            known |= self._stores
        for path, before in known.items():
            if (now := _stamp(path)) != before:
                size = f"{before[1]} bytes before, {now[1]} now" if before and now else "it is gone"
                refuse(path, size)


def refuse(source: object, what: str) -> None:
    """Say that a source has changed."""
    raise InputError(
        f"{source}: it was changed while it was read ({what}), so training would go on with other "
        "data. Write new data to a new file, and start the run anew"
    )


def _of_store(source: str) -> Iterator[str]:
    for directory in (source, *(e.path for e in os.scandir(source) if e.is_dir())):
        yield from (p for name in _METADATA if os.path.exists(p := os.path.join(directory, name)))
        if directory != source:
            chunks = os.path.join(directory, "c")
            yield from (directory, *((chunks,) if os.path.isdir(chunks) else ()))


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        return stamp(path)
    except OSError:
        return None
