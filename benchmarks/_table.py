"""What the benchmarks share: fair timing, a table of ratios with their targets, the machine."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def interleaved(
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each piece of work; they take turns, so that a busy moment hits all.

    `wait` returns when the device is done. With ``time.process_time`` as `clock` it is processor
    time that counts, which other work beside this one does not lengthen: with one thread only.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, call in work.items():
            wait()
            start = clock()
            call()
            wait()
            if turn:  # the first is a warm-up
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


@dataclass
class Table:
    """Figures with what they should reach."""

    rows: list[tuple[str, str, float, float | None, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, name: str, ratio: float, target: float | None, note: str = "", *, most: bool = False
    ) -> None:
        """Add a figure that should be at least (or at most) its target; print it at once."""
        self.rows.append((name, note, ratio, target, most))
        print(self._line(self.rows[-1]), flush=True)

    def _line(self, row: tuple[str, str, float, float | None, bool]) -> str:
        name, note, ratio, target, most = row
        wanted = "" if target is None else f"{'<=' if most else '>='} {target:g}"
        state = "" if target is None else ("ok" if self.holds(row) else "SHORT")
        return f"{name:<58} {ratio:>9.3g}  {wanted:>8} {state:<6} {note}"

    @staticmethod
    def holds(row: tuple[str, str, float, float | None, bool]) -> bool:
        """Whether a row reaches its target."""
        _, _, ratio, target, most = row
        return target is None or (ratio <= target if most else ratio >= target)

    @property
    def short(self) -> list[str]:
        """Names of the figures that fall short."""
        return [row[0] for row in self.rows if not self.holds(row)]

    def finish(self, check: bool) -> None:
        """Say what falls short; with `check`, exit with 1 if anything does."""
        print(f"\n{len(self.rows)} figures, {len(self.short)} short of their targets")
        for name in self.short:
            print(f"  short: {name}")
        if check and self.short:
            sys.exit(1)


def machine() -> str:
    """The processor (or GPU), the commit and the versions, in a line."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    name += f", {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    if torch.cuda.is_available():
        name = f"{torch.cuda.get_device_name()} ({name})"
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=9"]
        commit = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return f"{name}; commit {commit}; torch {torch.__version__}, Python {platform.python_version()}"
