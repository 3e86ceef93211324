"""What a network sees of a window: normalised frames, and what is known for the target steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .core import ForecastModel
from .reference import Reference


class Normalizer(nn.Module):
    """Subtract a mean and divide by a standard deviation, one pair per channel.

    Parameters
    ----------
    mean, std : sequence of float, shape (C,)
        Over the training period only, in the physical units of each channel.
    names : sequence of str, optional
        Of the channels, for messages.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Any, std: Any, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).reshape(-1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).reshape(-1))
        pairs = list(zip(self.mean.tolist(), self.std.tolist(), strict=False))
        for channel, (middle, spread) in enumerate(pairs):
            if not (math.isfinite(middle) and 0 < spread < math.inf):
                name = names[channel] if channel < len(names) else f"channel {channel}"
                raise InputError(
                    f"{name} has the mean {middle:g} and the standard deviation {spread:g}: "
                    "normalisation needs a finite mean and a positive standard deviation. A "
                    "variable that never changes tells nothing: leave it out of the task"
                )

    def forward(self, x: Tensor, channels: Any = slice(None)) -> Tensor:
        """Normalise (..., C, H, W), where `channels` (a slice or a list) says which ones C are."""
        return (x - self.mean[channels, None, None]) / self.std[channels, None, None]

    def inverse(self, x: Tensor, channels: Any = slice(None)) -> Tensor:
        """Bring back to physical units."""
        return x * self.std[channels, None, None] + self.mean[channels, None, None]


class Frames(ForecastModel):
    """Base class of a forecaster with a network: from windows to what that sees.

    Attributes
    ----------
    normalizer : Normalizer
        Of ``task.channels``.
    reference : Reference or None
        What anomalies are differences from.
    still : mapping of str to Tensor (H, W)
        What of ``task.known`` never changes.
    """

    normalizer: Normalizer
    reference: Reference | None
    still: Mapping[str, Tensor]

    def encode(self, x: Tensor, known: Tensor | None = None, usual: Tensor | None = None) -> Tensor:
        """Make what the network sees: normalised, and with what is known for the target steps.

        NaN become the mean, where the task masks them.

        Parameters
        ----------
        x : Tensor of shape (B, T, C, H, W)
            History in physical units, less what is usual; T is ``task.history``.
        known : Tensor of shape (B, T', K, H, W), optional
            Of ``task.known``, what changes with time, at the target times.
        usual : Tensor of shape (B, T', C', H, W), optional
            What is usual at the target times.

        Returns
        -------
        Tensor of shape (B, ``task.input_steps``, ``task.channels_in``, H, W)
        """
        task = self.task
        x = self.normalizer(x, slice(len(task.variables)))
        frames = x[:, -task.input_steps :]
        if task.channels_in > len(task.variables):
            frames = torch.cat([frames, self._further(x, known, usual)], dim=2)
        return frames.masked_fill(frames.isnan(), 0.0) if task.nan == "mask" else frames

    def _further(self, x: Tensor, known: Tensor | None, usual: Tensor | None) -> Tensor:
        """Channels of what is known for the target steps, on frames in their order."""
        task, moving, parts = self.task, 0, []
        T, ahead = task.input_steps, task.target_steps
        for name in task.known:
            if name == "reference":
                if self.reference is None or usual is None:
                    raise InputError("the network sees what is usual: give forecast(init_time=)")
                mean, std = self.reference.mean, self.reference.std
                parts.append((usual - mean[:, None, None]) / std[:, None, None])
                continue
            channel = [task.channels.index(name)]
            if name in self.still:
                one = self.normalizer(self.still[name][None], channel)
                parts.append(one.expand(len(x), ahead, -1, -1, -1))
                continue
            if known is None or known.shape[1] != ahead or moving >= known.shape[2]:
                raise InputError(
                    f"the network sees {name} at the target times: give forecast(known=), of shape "
                    f"(batch, {ahead} steps, variables, rows, columns)"
                )
            parts.append(self.normalizer(known[:, :, moving : moving + 1], channel))
            moving += 1
        if task.lags and x.shape[1] != task.history:
            raise InputError(
                f"the network needs a history of {task.history} steps for its lags, found "
                f"{x.shape[1]} ({task})"
            )
        outputs = [task.variables.index(v) for v in task.outputs] if task.lags else []
        for lag in task.lag_steps:
            first = task.history - lag  # the first target step is one after the history
            parts.append(x[:, first : first + ahead][:, :, outputs])
        more = torch.cat(parts, dim=2)  # (B, T', E, H, W)
        if rest := -ahead % T:
            more = torch.cat([more, torch.zeros_like(more[:, :1]).expand(-1, rest, -1, -1, -1)], 1)
        return more.unflatten(1, (-1, T)).transpose(1, 2).flatten(2, 3)

    def pair(
        self, windows: tuple[Tensor, Tensor], usual: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the network sees of windows, and what it should give.

        Parameters
        ----------
        windows : pair of Tensor
            History and targets, from a feed: see :class:`stforecast.loading.Windows`.
        usual : Tensor of shape (B, ``task.window``, C', H, W), optional
            What is usual at the steps of the windows.

        Returns
        -------
        Tensor of shape (B, T, C, H, W), Tensor of shape (B, T', C', H, W)
            Normalised.
        """
        task, (x, y), ahead = self.task, windows, None
        if usual is not None:
            past, ahead = usual[:, : task.history], usual[:, task.history :]
            x, y = self._less(x, past), y - ahead
        out = [task.channels.index(v) for v in task.outputs]
        known = getattr(windows, "known", None)
        return self.encode(x, known, ahead), self.normalizer(y, out)

    def _less(self, x: Tensor, usual: Tensor) -> Tensor:
        """History (B, T, C, H, W) less what is usual of the outputs (B, T, C', H, W)."""
        task = self.task
        both = [v for v in task.outputs if v in task.variables]
        if both == list(task.variables) == list(task.outputs):
            return x - usual
        own = torch.tensor([task.variables.index(v) for v in both], dtype=torch.int64)
        usual = usual[:, :, [task.outputs.index(v) for v in both]].to(x.dtype)
        return x.index_add(2, own.to(x.device), usual, alpha=-1)
