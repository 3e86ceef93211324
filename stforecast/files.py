"""Writing so that nothing half-written is left behind."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; move what was written there to `path` at the end.

    The file or directory appears under its name whole or not at all: if the block raises, whatever
    was at `path` stays as it was. Files and directories are on disk (fsync) before the renaming,
    and the new name is at the end.

    Parameters
    ----------
    path : path-like
        The file or directory to write. Missing parent directories are made.

    Yields
    ------
    Path
        Where to write, in the same directory, with the same suffix.

    Raises
    ------
    InputError
        If the directory cannot be made or written to.
    """
    target = Path(path)
    mark = uuid.uuid4().hex[:8]
    temporary = target.with_name(f".{target.stem}.{mark}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise InputError(
            f"cannot write to {target.parent} ({error.strerror}); choose a directory you may write"
        ) from error
    try:
        yield temporary
        move(temporary, target)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def move(temporary: Path, target: Path) -> None:
    """Put a finished file or directory in the place of `target`, beside it, all on disk."""
    _sync_all(temporary)
    if target.is_dir() and not target.is_symlink():
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
        target.rename(old)
        try:
            temporary.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old)
    else:
        temporary.replace(target)
    _sync(target.parent)


def _sync_all(path: Path) -> None:
    """Force a file, or a directory with all that is in it, to disk."""
    for part in [*path.rglob("*"), path] if path.is_dir() else [path]:
        if not part.is_symlink():  # what it points to is not ours
            _sync(part)


def _sync(path: Path) -> None:
    """Force a file to disk, or the names in a directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
