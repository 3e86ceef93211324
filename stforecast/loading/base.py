"""What all feeds share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..task import Task


class Windows(tuple[Tensor, Tensor]):
    """A batch of windows on the device, in physical units: history and targets, a pair.

    Parameters
    ----------
    x : Tensor of shape (B, T, C, H, W)
        History; T is ``task.history``.
    y : Tensor of shape (B, T', C', H, W)
        Targets.
    known : Tensor of shape (B, T', K, H, W), optional
        What is known for the target times.
    first : array of int, shape (B,), optional
        First steps of the windows, in the data.
    """

    known: Tensor | None
    first: np.ndarray | None

    def __new__(  # noqa: D102
        cls, x: Tensor, y: Tensor, known: Tensor | None = None, first: np.ndarray | None = None
    ) -> Windows:
        pair = super().__new__(cls, (x, y))
        pair.known, pair.first = known, first
        return pair


class Feed(ABC):
    """Batches of windows, by the number of the step."""

    kind: Literal["resident", "stream"]
    thinning = 1  # of the blocks that tell the statistics

    def __init__(
        self,
        starts: np.ndarray,
        task: Task,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int,
        world_size: int,
    ) -> None:
        if len(starts) == 0:
            raise ValueError("no windows to feed")
        if not 0 <= rank < world_size <= batch_size:
            raise InputError(
                f"a batch of {batch_size} windows cannot be shared by {world_size} processes, of "
                f"which this is number {rank}: expected 0 <= rank < world_size <= batch_size"
            )
        self.starts, self.task, self.batch_size = np.asarray(starts), task, int(batch_size)
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        self.targets = [task.channels.index(v) for v in task.outputs]  # among the channels
        #: What a window holds, in this order: the task's channels, less what never changes.
        self.channels = task.channels
        #: Forecasts among these, with the channels that each takes: they are read where a window's
        #: history ends.
        self.led: dict[str, tuple[str, ...]] = {}
        self._own = len(set(task.variables) | set(task.outputs))  # channels before what is known
        self._all_are_targets = self.targets == list(range(self._own))

    @property
    def steps_per_epoch(self) -> int:
        """Batches that show every window once."""
        return math.ceil(len(self.starts) / self.batch_size)

    def size(self, step: int) -> int:
        """Windows in step `step` on all ranks together."""
        position = step % self.steps_per_epoch
        return min(self.batch_size, len(self.starts) - position * self.batch_size)

    def shown(self, steps: int) -> int:
        """Windows in the first `steps` steps on all ranks together."""
        epochs, more = divmod(steps, self.steps_per_epoch)
        return epochs * len(self.starts) + more * self.batch_size

    @abstractmethod
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs (B, T, C, H, W) and targets (B, T', C', H, W) of step `step`, counted from 0.

        As :class:`Windows`, where the task asks for more than these.
        """

    @abstractmethod
    def sweep(self) -> Iterator[tuple[int, int, Tensor]]:
        """Every `thinning`-th block of the data, in order, for their statistics.

        See :meth:`stforecast.loading.source.Source.sweep`.
        """

    def close(self) -> None:  # noqa: B027  (resident data need none)
        """Let go of threads and memory."""

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _split(self, window: Tensor, first: np.ndarray) -> Windows:
        T, own = self.task.history, self._own
        x, y = window[:, :T, : len(self.task.variables)], window[:, T:]  # inputs come first
        known = self._known(window) if window.shape[2] > own else None
        y = y[:, :, :own] if self._all_are_targets else y[:, :, self.targets]
        return Windows(x, y, known, first)

    def _known(self, window: Tensor) -> Tensor:
        """What is known for the target times (B, T', K, H, W), in the order of the task."""
        T, parts, c = self.task.history, [], self._own
        if not self.led:
            return window[:, T:, c:]
        for name in self.task.known:
            if (count := len(self.led.get(name, ()))) > 0:
                parts.append(window[:, T - 1, c : c + count])
            elif name in self.channels:
                count = 1
                parts.append(window[:, T:, c])
            c += count
        return torch.stack(parts, dim=2)
