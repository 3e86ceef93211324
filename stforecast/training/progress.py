"""What a person sees while training goes on, and how it is stopped."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..loading.base import Feed

logger = logging.getLogger(__name__)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with time left, samples a second, loss and validation error, for :func:`fit`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.fields[note]}")
    console = Console(stderr=True)  # the standard output is for results
    with Progress("{task.description}", *columns, console=console) as bar:
        line = bar.add_task(what, note="", total=None)
        notes: dict[str, str] = {}
        samples, since = 0, time.monotonic()

        def update(event: dict[str, Any]) -> None:
            nonlocal samples
            samples += event["samples"]
            notes["speed"] = f"{samples / max(time.monotonic() - since, 1e-9):.3g} samples/s"
            if "loss" in event:
                notes["loss"] = f"loss {event['loss']:.3g}"
            if "val_rmse" in event:
                notes["validation"] = f"validation RMSE {event['val_rmse']:.3f}"
            if "val_to_persistence" in event:
                notes["skill"] = f"({event['val_to_persistence']:.2f} of persistence)"
            bar.update(
                line, total=event["steps"], completed=event["step"], note=" ".join(notes.values())
            )

        yield update


class Meter:
    """The speed since the last report, and how much of the time was spent on waiting for data."""

    def __init__(self, feed: Feed, step: int) -> None:
        self._feed, self._step, self._since, self._waited = feed, step, time.monotonic(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as spent on waiting."""
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

    def read(self, step: int) -> dict[str, float]:
        """What was measured since the last reading, up to `step` steps."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        samples = self._feed.shown(step) - self._feed.shown(self._step)
        found = {"samples_per_s": samples / seconds, "waiting": self._waited / seconds}
        self._step, self._since, self._waited = step, time.monotonic(), 0.0
        return found


@contextmanager
def reporting(
    progress: bool | Callable[[dict[str, Any]], None] | None,
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Where the steps are reported to: a function, a progress bar, or nowhere."""
    if callable(progress):
        yield progress
    elif progress or (progress is None and (sys.stderr.isatty() or _in_jupyter())):
        with progress_bar("training") as update:
            yield update
    else:
        yield lambda event: None


def _in_jupyter() -> bool:
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and kernel.IPKernelApp.initialized()


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C (and SIGTERM) ask for a stop; a second one stops at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        logger.warning("stopping after this step; press Ctrl-C again to stop at once")

    try:
        old = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
