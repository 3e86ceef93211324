"""Batches of windows for training.

A feed maps a step number to a batch, and nothing else: which windows, in which order, is a pure
function of the seed and the epoch. A run that stops at step n goes on at step n.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .windows import Task


class ResidentFeed:
    """Windows gathered from one tensor that lives on the device.

    Parameters
    ----------
    data : Tensor of shape (N, C, H, W)
        All time steps, channels in the order of ``task.channels``, physical units.
    starts : array of int, shape (M,)
        First step of each window, from :func:`stforecast.windows.window_starts`.
    task : Task
    batch_size : int
        Windows in a batch; the last batch of an epoch may be smaller.
    seed : int
    shuffle : bool
        A new order every epoch; otherwise the order of `starts`.
    """

    def __init__(
        self,
        data: Tensor,
        starts: np.ndarray,
        task: Task,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        if len(starts) == 0:
            raise ValueError("no windows to feed")
        self.data, self.starts, self.task = data, np.asarray(starts), task
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self._offsets = torch.arange(task.window, device=data.device)
        channels = task.channels
        self._inputs = slice(0, len(task.variables))  # task.channels starts with the inputs
        targets = [channels.index(v) for v in task.outputs]
        self._targets = None if targets == list(range(len(channels))) else targets
        self._epoch, self._order = -1, torch.empty(0)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that show every window once."""
        return math.ceil(len(self.starts) / self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Window starts in the order in which epoch `epoch` shows them."""
        if not self.shuffle:
            return self.starts
        bits = np.random.Philox(np.random.SeedSequence([self.seed, epoch]))
        return np.random.Generator(bits).permutation(self.starts)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs (B, T, C, H, W) and targets (B, T', C', H, W) of step `step`, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.as_tensor(self.order(epoch), device=self.data.device)
        starts = self._order[position * self.batch_size : (position + 1) * self.batch_size]
        index = (starts[:, None] + self._offsets).flatten()
        window = self.data.index_select(0, index).unflatten(0, (len(starts), self.task.window))
        x = window[:, : self.task.input_steps, self._inputs]
        y = window[:, self.task.input_steps :]
        return x, y if self._targets is None else y[:, :, self._targets]
