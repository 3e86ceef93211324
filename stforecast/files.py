"""Atomic file writing, and one process at a time."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

logger = logging.getLogger(__name__)

_POLL = 0.05  # s


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


@contextmanager
def locked(path: Path, doing: str, *, wait: float = 0.0) -> Iterator[Callable[[], bool]]:
    """Hold the lock file `path` while the block runs.

    The lock is the operating system's (``flock``), so a process that is killed leaves none behind,
    whatever file it leaves. The file tells others who holds it: the number of the process, its
    host, boot and start time, so that a later process of the same number is not taken for it. Where
    a file system has no locks, the file alone decides: it counts as long as its process lives.
    It is removed at the end.

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
        If another process, or another thread of this one, holds the lock and goes on holding it.
    """
    deadline = time.monotonic() + wait
    while (handle := _attempt(path)) is None:
        if time.monotonic() >= deadline:
            try:
                pid, life = _record(path.read_text())
            except OSError:
                pid, life = "unknown", ""
            if life and _lives(pid, life) is False:
                raise InputError(
                    f"process {pid} was {doing} and has ended, but a child that it left behind "
                    f"still holds {path}: stop that child"
                )
            raise InputError(
                f"another process (pid {pid}) is {doing} already: let it finish, or stop it"
            )
        time.sleep(_POLL)
    try:
        pid, life = _record(os.pread(handle, 1000, 0).decode(errors="replace"))
        if life:
            logger.warning(
                "taking over %s from process %s (%s), which ended without removing it",
                path, pid, life.split()[0],
            )  # fmt: skip
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n{_life(os.getpid())}\n".encode(), 0)
        yield lambda: _is_at(handle, path)
    finally:
        with suppress(OSError):
            if _is_at(handle, path):
                path.unlink()  # before it is let go: see _attempt
        os.close(handle)


def _attempt(path: Path) -> int | None:
    """Lock the file that is at `path` now, or return None."""
    import fcntl

    made = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = True
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if made and isinstance(error, FileNotFoundError):  # removed by the holder that has ended
            return None
        raise InputError(
            f"cannot write to {path.parent} ({error.strerror}): choose a directory you may write"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except BlockingIOError:
        free = False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            os.close(handle)
            raise
        pid, life = _record(os.pread(handle, 1000, 0).decode(errors="replace"))
        free = not life or _lives(pid, life) is False
    # The last holder may have removed the file between our opening and our locking it.
    if free and _is_at(handle, path):
        return handle
    os.close(handle)
    return None


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _record(text: str) -> tuple[str, str]:
    """The number and the life of the process that wrote a lock file."""
    pid, _, life = text.strip().partition("\n")
    return pid or "unknown", life


def _life(pid: int) -> str:
    """Host, boot and start of a process: what tells it from a later one of the same number."""
    boot = start = "unknown"
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        # After the name, which may hold spaces and brackets: state, parent, ..., start time.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start = "ended" if fields[0] in "ZX" else fields[19]
    return f"{socket.gethostname()} {boot} {start}"


def _lives(pid: str, life: str) -> bool | None:
    """Whether the process goes on; None where that cannot be told, as on another host."""
    if not pid.isdigit() or life.split()[0] != socket.gethostname():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return _life(int(pid)) == life
