"""Files from the network: resumed, verified, unpacked safely, one process at a time."""

from __future__ import annotations

import difflib
import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import locked
from .transport import Answer, Source, StaleError, TransientError, reason_of, source_of

logger = logging.getLogger(__name__)

_BLOCK = 2**20
_PAUSE = 0.2  # s, before another attempt; doubled with each
_SUMS = "SHA256SUMS"
_SLOWEST = 1024  # bytes in the time of a timeout: less is no progress

Progress = Callable[[int, int | None], None]


def fetch(
    url: str,
    target: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    timeout: float = 60.0,
    tries: int = 4,
    wait: float = 0.0,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a file, once.

    The file appears under its name when it is complete and verified. Until then it grows in
    ``.NAME.part`` beside it, and the same call goes on there: after an error, a kill, a reboot.

    Parameters
    ----------
    url : str
        ``http://``, ``https://``, ``file://`` or a path; ``gs://``, ``s3://`` and ``az://`` go
        through obstore.
    target : path-like
        The file to write.
    sha256 : str, optional
        Its SHA-256 in hexadecimal. ``"md5:..."`` is taken too, for files whose owners publish
        only that; it tells damage, not forgery. Without it nothing is verified but the length,
        which a warning says, with the sum that was found.
    timeout : float
        Seconds to wait for an answer, and for at least a kilobyte of data. (obstore has its own.)
    tries : int
        Attempts in a row, without a byte between them, after a broken connection, a timeout or a
        server error.
    wait : float
        Seconds to wait for another process that downloads the same; 0: refuse.
    storage_options : mapping, optional
        For obstore, as in :func:`open_weatherbench`.
    progress : callable, optional
        Called with bytes that are there, and bytes in all or None.

    Returns
    -------
    Path
        The file. If it is there already it is verified and not downloaded again.

    Raises
    ------
    InputError
        If the address cannot be reached or has no such file; if the file has another sum; if the
        disk is full; if another process downloads it. What has arrived is kept to go on with,
        except after a wrong sum.

    Notes
    -----
    HTTP: a part is continued by ``Range`` with ``If-Range``, so a file that has changed meanwhile,
    or a server that knows no ranges, starts anew. Redirections from https to http are refused.
    """
    target, check = Path(target).expanduser(), _Sum.of(sha256)
    if target.is_dir():
        raise InputError(f"{target} is a directory: give the name of the file to write")
    source = source_of(url, storage_options or {})
    with locked(target.with_name(f".{target.name}.lock"), f"downloading {target}", wait=wait):
        if target.exists():
            check.hold_against(target, f"{target} is there already, but it is another file")
            return target
        part = _Part(target, url)
        try:
            _persist(part, source, timeout, tries, check.value is not None, progress)
        except BaseException as error:
            size = part.size
            if not size:
                part.remove()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(
                    f"{target.parent}: the disk is full; {size} bytes of {url} are kept: make "
                    "room, and run the same again"
                ) from error
            raise
        try:
            found = check.hold_against(part.path, f"{url} sent another file than expected")
        except InputError:
            part.remove()
            raise
        if check.value is None:
            logger.warning(
                "%s is not verified: no checksum is known; its SHA-256 is %s", target, found
            )
        with open(part.path, "rb") as file:
            os.fsync(file.fileno())
        part.path.replace(target)
        part.remove()
    return target


def checksum(path: Path, expected: str | None = None) -> str:
    """Return a file's SHA-256 (or MD5, if ``md5:...`` is expected); refuse one not `expected`."""
    return _Sum.of(expected).hold_against(path, f"{path} is another file than expected")


def _persist(
    part: _Part,
    source: Source,
    timeout: float,
    tries: int,
    verified: bool,
    progress: Progress | None,
) -> None:
    """Receive a file, over as many broken connections as bring it forward."""
    failures = 0
    while True:
        before = part.size
        try:
            return part.receive(source, timeout, verified, progress)
        except TransientError as error:
            failures = 1 if part.size > before else failures + 1
            if failures >= tries:
                raise InputError(
                    f"{part.url}: {error}, {failures} times; {part.size} bytes have arrived and "
                    "are kept: run the same again to go on"
                ) from error
            logger.warning("%s: %s; trying again", part.url, error)
            time.sleep(min(_PAUSE * 2**failures, 10))


@dataclass(frozen=True)
class _Sum:
    """An expected checksum, or None."""

    algorithm: str
    value: str | None

    @classmethod
    def of(cls, text: str | None) -> _Sum:
        if text is None:
            return cls("sha256", None)
        algorithm, _, value = text.lower().strip().rpartition(":")
        digits = {"sha256": 64, "md5": 32}.get(algorithm or "sha256", 0)
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", value) or not digits:
            raise InputError(
                f"sha256 must be 64 hexadecimal digits (or md5: and 32), found {text!r}"
            )
        return cls(algorithm or "sha256", value)

    def hold_against(self, path: Path, wrong: str) -> str:
        """Return the file's sum; raise if it is another."""
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, self.algorithm).hexdigest()
        if self.value is not None and found != self.value:
            raise InputError(
                f"{wrong}: its {self.algorithm} is {found}, expected {self.value} "
                f"({path.stat().st_size} bytes)"
            )
        return found


# --- the part that has arrived --------------------------------------------------------------------


class _Part:
    """The beginning of a file, and beside it what tells whether it is of the file there now."""

    def __init__(self, target: Path, url: str) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self.notes = target.with_name(f".{target.name}.part.json")
        self.url = url

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def receive(
        self, source: Source, timeout: float, verified: bool, progress: Progress | None
    ) -> None:
        """Get what is missing."""
        noted = self._noted()
        validator = noted.get("validator")
        start = self.size if validator or (verified and noted) else 0
        try:
            with source(self.url, start, validator, timeout) as answer:
                self._receive(answer, timeout, progress)
        except StaleError:
            self.remove()
            raise

    def _receive(self, answer: Answer, timeout: float, progress: Progress | None) -> None:
        if answer.complete:
            return
        if answer.total is not None:
            free = shutil.disk_usage(self.path.parent).free
            if answer.total - answer.start > free:
                raise OSError(errno.ENOSPC, "No space left on device")
        self.notes.write_text(json.dumps({"url": self.url, "validator": answer.validator}))
        arrived = answer.start
        with open(self.path, "r+b" if arrived else "wb") as sink:
            sink.truncate(arrived)
            sink.seek(arrived)
            for block in _blocks(answer.file, timeout):
                sink.write(block)
                arrived += len(block)
                if progress is not None:
                    progress(arrived, answer.total)
        if answer.total is not None and arrived < answer.total:
            raise TransientError(f"broke off after {arrived} bytes of {answer.total}")

    def _noted(self) -> dict[str, Any]:
        """What was noted of the part, if it is of this address."""
        try:
            noted = json.loads(self.notes.read_text())
        except (OSError, ValueError):
            return {}
        return noted if noted.get("url") == self.url else {}

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


def _blocks(file: Any, timeout: float) -> Iterator[bytes]:
    """Read what comes as it comes; stop where it all but stops."""
    read = getattr(file, "read1", file.read)
    since, arrived = time.monotonic(), 0
    while True:
        try:
            block = read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(reason_of(error, timeout)) from error
        if not block:
            return
        yield block
        arrived += len(block)
        if time.monotonic() - since > timeout:
            if arrived < _SLOWEST:
                raise TransientError(f"sent {arrived} bytes in {timeout:g} s")
            since, arrived = time.monotonic(), 0


# --- data sets by name ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Address:
    """One data set."""

    about: str
    licence: str
    size: str  # roughly
    reader: str  # the function that opens what was downloaded
    #: URL of each file, and its checksum (see :func:`fetch`) where the owners publish one.
    files: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    by_hand: str = ""  # where to get it, if it has no address to download from


def addresses() -> dict[str, Address]:
    """Where the data sets of the benchmarks are, by name: ``addresses.json``."""
    table = json.loads(Path(__file__).with_name("addresses.json").read_text())
    return {name: Address(**entry) for name, entry in table.items()}


def download(
    name: str,
    target: str | os.PathLike[str],
    *,
    timeout: float = 60.0,
    progress: Progress | None = None,
) -> Path:
    """Download a data set that has a public address.

    Parameters
    ----------
    name : str
        ``mnist``, ``moving_mnist_test``, ``kth``, ``weatherbench_t2m``; of others the message says
        where to get them.
    target : path-like
        Directory for its files. What is there already is verified and kept.
    timeout, progress
        As in :func:`fetch`.

    Returns
    -------
    Path
        `target`, for the data set's adapter. Where the owners publish no checksum, a warning says
        that the file is not verified, and its SHA-256 goes to ``SHA256SUMS`` there (the file is
        held against it next time; ``sha256sum -c`` reads it).

    Raises
    ------
    InputError
        If there is no such data set, or it must be got by hand; else as :func:`fetch`.
    """
    table = addresses()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        raise InputError(
            f"no data set '{name}', there are {', '.join(table)}"
            + (f" (did you mean '{near[0]}'?)" if near else "")
        )
    address, directory = table[name], Path(target).expanduser()
    if not address.files:
        raise InputError(
            f"{address.about} ({address.licence}, {address.size}) has no address to download from: "
            f"{address.by_hand}. {address.reader}() then opens it"
        )
    logger.info("%s: %s, %s", name, address.licence, address.size)
    for file, (url, known) in address.files.items():
        recorded = _recorded(directory).get(file)
        path = fetch(url, directory / file, sha256=known or recorded, timeout=timeout,
                     progress=progress)  # fmt: skip
        if known is None and recorded is None:
            with open(directory / _SUMS, "a") as sums:
                sums.write(f"{checksum(path)}  {file}\n")
    return directory


def _recorded(directory: Path) -> dict[str, str]:
    """Checksums that earlier downloads were found to have."""
    try:
        lines = (directory / _SUMS).read_text().splitlines()
    except OSError:
        return {}
    return {name.strip(): value for value, _, name in (line.partition(" ") for line in lines)}
