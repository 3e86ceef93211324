"""What a person sees while training goes on, and how it is stopped."""

from __future__ import annotations

import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from ..loading.base import Feed

logger = logging.getLogger(__name__)

#: Seconds between lines that say where training is.
EVERY = 300.0
_COUNTED = 5  # steps after the first, by which the time of a step is known
_PATIENCE = 60.0  # s that anybody waits without being told


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
                score = "crps" if "val_crps" in event else "rmse"
                notes["validation"] = f"validation {score.upper()} {event[f'val_{score}']:.3f}"
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


class Narrator:
    """Lines for who sees no bar: what is done and how long it takes; later, where it is.

    They are logged (INFO). Where the log shows none of it and there is a minute to wait, or more,
    they go to the standard error if they may: so a batch job is not silent for hours.

    Parameters
    ----------
    what : str
        What is trained, for the first line.
    minutes : float or None
        A budget after which training ends.
    aloud : bool
        Whether the standard error may be written to.
    """

    def __init__(self, what: str, minutes: float | None, *, aloud: bool) -> None:
        self._what, self._aloud = what, aloud
        self._budget = math.inf if minutes is None else 60 * minutes
        self._began = self._since = self._told = time.monotonic()
        self._seen, self._loss = 0, math.nan

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take in a step, as ``fit(progress=)`` does."""
        now, step, steps = time.monotonic(), event["step"], event["steps"]
        self._loss = event.get("loss", self._loss)
        self._seen += 1
        if self._seen == 1:  # it takes longer than others: what is compiled, tuned, filled
            self._since = now
        counted = max(self._seen - 1, 1)
        rate = (now - (self._since if self._seen > 1 else self._began)) / counted
        left = max(min((steps - step) * rate, self._began + self._budget - now), 0.0)
        end = f"{rate:.3g} s a step, until about {_clock(left)}, in {_span(left)}"
        if self._told == self._began:
            if counted == _COUNTED or now - self._began > _PATIENCE or step == steps:
                self._told = now
                work = f"{steps - step:,} of {steps:,} steps to go, of {event['samples']} windows"
                self._tell(f"training {self._what}: {work}; {end}", left)
        elif now - self._told >= EVERY:
            self._told = now
            loss = "" if math.isnan(self._loss) else f"loss {self._loss:.3g}; "
            self._tell(f"step {step:,} of {steps:,}: {loss}{end}", math.inf)

    def _tell(self, line: str, left: float) -> None:
        logger.info("%s", line)
        shown = logger.isEnabledFor(logging.INFO) and logger.hasHandlers()
        if self._aloud and not shown and left >= _PATIENCE:
            sys.stderr.write(f"{datetime.now():%H:%M:%S} {line}\n")
            sys.stderr.flush()


@contextmanager
def reporting(
    progress: bool | Callable[[dict[str, Any]], None] | None,
    what: str,
    minutes: float | None = None,
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Where the steps are reported to: a progress bar, or lines; and a function, if one is given.

    Parameters
    ----------
    progress : bool or callable, optional
        As in :func:`stforecast.fit`.
    what, minutes
        For the lines: see :class:`Narrator`.
    """
    narrate = Narrator(what, minutes, aloud=progress is None)
    if callable(progress):
        function = progress

        def both(event: dict[str, Any]) -> None:
            narrate(event)
            function(event)

        yield both
    elif progress or (progress is None and (sys.stderr.isatty() or _in_jupyter())):
        with progress_bar("training") as update:
            yield update
    else:
        yield narrate


def _clock(seconds: float) -> str:
    """The time of day in so many seconds; with its date, if it is another day's."""
    now = datetime.now()
    then = now + timedelta(seconds=min(seconds, 1e10))
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M}"


def _span(seconds: float) -> str:
    """A length of time in words: ``5 h 7 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days:,} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


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
