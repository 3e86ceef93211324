"""One process at a time, with a lock that dies with its holder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

_POLL = 0.05  # s


@contextmanager
def locked(path: Path, doing: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    The lock is the operating system's (``flock``), so a process that is killed leaves none behind,
    whatever file it leaves; the file only tells others who holds it. It is removed at the end.

    Parameters
    ----------
    path : Path
        The lock file; its directory is made.
    doing : str
        For the message to those who find it locked: ``"downloading x.zip"``.
    wait : float
        Seconds to wait for another holder.

    Raises
    ------
    InputError
        If another process, or another thread of this one, holds the lock and goes on holding it.
    """
    deadline = time.monotonic() + wait
    while (handle := _attempt(path)) is None:
        if time.monotonic() >= deadline:
            try:
                holder = path.read_text().strip() or "unknown"
            except OSError:
                holder = "unknown"
            raise InputError(
                f"another process (pid {holder}) is {doing} already: let it finish, or stop it"
            )
        time.sleep(_POLL)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is let go: see _attempt
        os.close(handle)


def _attempt(path: Path) -> int | None:
    """Lock the file that is at `path` now, or return None."""
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:  # the directory was removed by the holder that has just finished
        return None
    except OSError as error:
        raise InputError(
            f"cannot write to {path.parent} ({error.strerror}): choose a directory you may write"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the file between our opening and our locking it.
        if os.fstat(handle).st_ino == path.stat().st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None
