"""Atomic file writing, and one process at a time."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import socket
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from .errors import DiskFullError, InputError

logger = logging.getLogger(__name__)

_POLL = 0.05  # s
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE = 2**16  # bytes
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


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
    DiskFullError
        If the disk is full. It is an InputError.
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
    except BaseException as error:
        full = isinstance(error, Exception) and _full(error, target.parent)  # before there is room
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if full:
            raise DiskFullError(
                f"cannot write {target}, the disk is full ({full}): make room there or choose "
                "another place, and run the same again; nothing half-written is left"
            ) from error
        raise


def _full(error: Exception, directory: Path) -> str:
    """Say how a full disk stopped a writer, if it did: some libraries say so, some only fail."""
    if isinstance(error, DiskFullError):  # of a part of this
        error = error.__cause__  # type: ignore[assignment]
    elif isinstance(error, InputError):
        return ""
    number = getattr(error, "errno", None)
    if found := re.search(r"code: (\d+)|os error (\d+)", str(error)):  # as Rust writes it
        number = int(found[1] or found[2])
    if number in _FULL:
        return os.strerror(number)
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as probe:
            if probe.write(bytes(_PROBE)) < _PROBE:
                return os.strerror(errno.ENOSPC)
    except OSError as failed:
        return os.strerror(failed.errno) if failed.errno in _FULL else ""
    return ""


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


def is_plain_file(path: Path) -> bool:
    """Whether a path is a regular file itself: no link, which leads elsewhere, and no pipe."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


@contextmanager
def locked(path: Path, doing: str, *, wait: float = 0.0) -> Iterator[Callable[[], bool]]:
    """Hold the lock file `path` while the block runs.

    The lock is the operating system's, so a process that is killed leaves none behind, whatever
    file it leaves. The file names its holder's process and host. Where a file system has no locks,
    the file alone decides: it counts as long as its process lives. It is removed at the end.

    Parameters
    ----------
    path : Path
        The lock file; its directory is made.
    doing : str
        For the message to those who find it locked: ``"downloading x.zip"``.
    wait : float
        Seconds to wait for another holder.

    Yields
    ------
    callable
        Whether the lock file is still there and still ours: not so once its directory was removed.

    Raises
    ------
    InputError
        If another process, or another thread of this one, holds the lock and goes on holding it;
        or if the directory cannot be written to, or something else has the lock's name.
    """
    deadline = time.monotonic() + wait
    while (lock := _attempt(path)) is None:
        if time.monotonic() >= deadline:
            pid, host = _holder(path)[0] or ("unknown", "")
            where = f" on {host}" if host not in ("", socket.gethostname()) else ""
            raise InputError(
                f"another process (pid {pid}{where}) is {doing} already: let it finish, or stop it"
            )
        time.sleep(_POLL)
    native = isinstance(lock, FileLock)
    try:
        if native:  # the other kind writes the same by itself
            with suppress(OSError):  # a full disk: the lock holds all the same
                path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
        mine = _holder(path)[1]

        def is_ours() -> bool:
            return mine is not None and _holder(path)[1] == mine

        yield is_ours
    finally:
        with suppress(OSError):
            if native and is_ours():  # before it is let go: who waits then makes another file
                path.unlink()
        lock.release()


def _attempt(path: Path) -> BaseFileLock | None:
    """Take the lock, or return None where it is held."""
    if os.path.lexists(path) and not is_plain_file(path):
        raise InputError(
            f"{path} is no lock: it is a link, a directory or a device, not a file. See who put it "
            "there, and remove it"
        )
    with ExitStack() as stack:
        left = None
        with suppress(OSError):  # open while we try, so that no other file gets its number
            left = os.fstat(stack.enter_context(open(path)).fileno())
        before = _holder(path)[0]
        for kind in (FileLock, SoftFileLock):
            lock = kind(path, timeout=0, thread_local=False, fallback_to_soft=False)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    lock.acquire()
                except (Timeout, FileNotFoundError):  # held; or its directory was removed just now
                    return None
            except OSError as error:
                if kind is FileLock and error.errno in _NO_LOCKS:
                    continue
                raise InputError(
                    f"cannot write to {path.parent} ({error.strerror}): choose a directory you may "
                    "write"
                ) from error
            now = _holder(path)[1]
            if before and left and (kind is SoftFileLock or now == (left.st_dev, left.st_ino)):
                logger.warning(
                    "taking over %s from process %s (%s), which ended without removing it",
                    path, *before,
                )  # fmt: skip
            return lock
    return None


def _holder(path: Path) -> tuple[tuple[str, str] | None, tuple[int, int] | None]:
    """The process and host that a lock file names, and the file's number."""
    try:
        with open(path) as file:
            about = os.fstat(file.fileno())
            pid, host, *_ = [*file.read(1000).split("\n"), "", ""]
        return (pid, host) if pid else None, (about.st_dev, about.st_ino)
    except (OSError, UnicodeDecodeError):
        return None, None
