"""What a training run tells while it goes on: lines, curves, and where it comes from.

Beside its checkpoints (:mod:`stforecast.training.checkpoints`) a run's directory holds

``log.jsonl``
    A line of JSON for every 50 steps and every validation (and for the first step, where neither
    comes soon): step, mean loss of the steps since the
    line before, learning rate, samples a second, the share of the time spent on waiting for data,
    scores. A run that was killed and goes on has the lines of one that never stopped, but for
    times.
``about.json``
    What was trained (task, settings, network), on which data (title, period, fingerprint), and a
    list of calls: command, versions, git commit, device, times, steps.
``loss.png``
    The curves, drawn when a call ends, where matplotlib is installed.
``tensorboard/``
    The same numbers as TensorBoard reads them, where it is installed.

None of it is needed to go on: where it cannot be written, that is logged once and training goes on;
a ``log.jsonl`` that cannot be read is set aside as ``damaged-log.jsonl``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import is_plain_file, replacing
from .checkpoint_files import is_event

logger = logging.getLogger(__name__)

_PACKAGES = ("stforecast", "torch", "numpy", "xarray", "pandas", "zarr", "dask", "safetensors")


class TrainingLog:
    """Notes what happens in a training run; use it in a ``with`` block.

    Parameters
    ----------
    directory : path-like or None
        The run's directory; nothing is written without one.
    about : mapping
        What the run is, for ``about.json``: JSON.
    step : int
        Steps that are done. Lines of later ones, left by a call that was killed after its last
        checkpoint, are cut.
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None, about: Mapping[str, Any], step: int = 0
    ) -> None:
        self.directory = None if directory is None else Path(directory)
        self._about, self._first = about, step
        self._calls: list[dict[str, Any]] = []
        self._board: Any = None

    def __enter__(self) -> TrainingLog:
        if self.directory is None:
            return self
        with self._harmless():
            lines, whole = _read(self.directory / "log.jsonl") if self._first else ([], True)
            if not whole:  # a log is no state: the run goes on without what cannot be read
                aside = _set_aside(self.directory / "log.jsonl")
                logger.warning(
                    "%s cannot be read in full and was set aside as %s; the log goes on with the "
                    "%d lines that can", self.directory / "log.jsonl", aside.name, len(lines),
                )  # fmt: skip
            with replacing(self.directory / "log.jsonl") as path:
                kept = (line for line in lines if line["step"] <= self._first)
                path.write_text("".join(json.dumps(line) + "\n" for line in kept))
            self._calls = _calls(self.directory / "about.json") if self._first else []
            self._calls.append(
                {"began": _now(), "ended": None, "from_step": self._first, **origin()}
            )
            self._write_about()
            self._board = _tensorboard(self.directory, self._first)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._board is not None:
            with self._harmless():
                self._board.close()
        if self.directory is None:
            return
        with self._harmless():
            ending = {"ended": _now()}
            if error is not None:
                ending["error"] = f"{type(error).__name__}: {error}"
            self._calls[-1] |= ending
            self._write_about()
            lines = [_finite(line) for line in read_log(self.directory)]
            if lines and util.find_spec("matplotlib"):
                from ..plots.curves import loss_curve
                from ..plots.layout import save

                save(loss_curve(lines), self.directory / "loss.png", dpi=110)

    def note(self, event: Mapping[str, Any]) -> None:
        """Write a line.

        Parameters
        ----------
        event : mapping
            ``step``, and what is to be told of the steps since the last line: numbers.
        """
        if self.directory is None:
            return
        with self._harmless():
            with (self.directory / "log.jsonl").open("a") as file:
                file.write(json.dumps(dict(event)) + "\n")
            if self._board is not None:
                for name, value in event.items():
                    if isinstance(value, float):
                        part = "validation" if name.startswith("val_") else "training"
                        self._board.add_scalar(f"{part}/{name}", value, event["step"])

    def _write_about(self) -> None:
        assert self.directory is not None
        about = {**self._about, "calls": self._calls}
        with replacing(self.directory / "about.json") as path:
            path.write_text(json.dumps(about, indent=1, default=str) + "\n")

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Let training go on where a line cannot be written: its checkpoints say what is wrong."""
        try:
            yield
        except (OSError, InputError) as error:
            logger.warning("the log in %s ends here: %s", self.directory, error)
            self.directory = None


def read_log(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the lines of ``log.jsonl`` in a run's directory.

    Parameters
    ----------
    directory : path-like

    Returns
    -------
    list of dict
        In the order of the steps; a last line that was torn by a kill is left out, as is what was
        not written by a run. Empty where there is no such file.
    """
    return _read(Path(directory) / "log.jsonl")[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The lines of a log that can be read, and whether those are all, but for a torn last one."""
    if not is_plain_file(path):  # a pipe has no end, and a link leads elsewhere
        return [], not os.path.lexists(path)
    texts = path.read_text(errors="replace").split("\n")
    lines: list[dict[str, Any]] = []
    whole = True
    for number, text in enumerate(texts, 1):
        with suppress(ValueError, RecursionError):
            line = json.loads(text)
            after = lines[-1]["step"] if lines else 0
            if is_event(line) and line["step"] > after and math.isfinite(line.get("loss", 0)):
                lines.append(line)
                continue
        whole = whole and number == len(texts)
    return lines, whole


def _finite(line: Mapping[str, Any]) -> dict[str, Any]:
    """What can be drawn of a line: a score may have overflowed."""
    return {name: value for name, value in line.items() if math.isfinite(value)}


def _set_aside(path: Path) -> Path:
    """Give a damaged file another name, in the place of an earlier one."""
    aside = path.with_name(f"damaged-{path.name}")
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    path.replace(aside)
    return aside


def origin() -> dict[str, Any]:
    """Tell what runs: command, versions, the git commit of the working directory, the machine."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "git": _git(),
        "machine": torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
    }


def _calls(path: Path) -> list[dict[str, Any]]:
    try:
        if is_plain_file(path):
            return list(json.loads(path.read_text())["calls"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # the run is told by its checkpoints
    return []


def _tensorboard(directory: Path, step: int) -> Any:
    """A writer of TensorBoard's files, or None where it is not installed."""
    if not util.find_spec("tensorboard"):
        return None
    if (directory / "tensorboard").is_symlink():
        raise InputError(f"{directory / 'tensorboard'} is a link, which leads out of the run")
    from torch.utils.tensorboard import SummaryWriter

    # What an earlier call wrote of later steps is hidden.
    return SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1 if step else None)


def _git() -> str | None:
    """The commit of the working directory, with "-dirty" where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
