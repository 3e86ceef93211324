"""What a network sees of a window: normalised frames, and what is known for the target steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.rollout import rollout
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

    def roll(
        self,
        run: Callable[[Tensor], Tensor],
        x: Tensor,
        steps: int,
        *,
        known: Tensor | None = None,
        usual: Tensor | None = None,
        gone: Tensor | None = None,
        at_once: bool = False,
        detach: bool = False,
    ) -> Tensor:
        """Forecast `steps` steps, on its own output past the task's.

        Parameters
        ----------
        run : callable
            The network: from what :meth:`encode` gives to (B, T', C', H, W), normalised.
        x : Tensor of shape (B, T, C, H, W)
            History in physical units, less what is usual; T is ``task.history``.
        steps : int
        known : Tensor of shape (B, N, K, H, W), optional
            As of :meth:`encode`, at the target times of all applications.
        usual : Tensor of shape (B, N, C', H, W), optional
            What is usual at these.
        gone : Tensor of bool, broadcast to (B, T', C', H, W), optional
            Where there is no forecast: NaN, which the next application sees as such.
        at_once : bool
            Whether `run` gives all steps in one application.
        detach : bool
            As :func:`stforecast.models.rollout.rollout` has it.

        Returns
        -------
        Tensor of shape (B, steps, C', H, W)
            In physical units, less what is usual.
        """
        task, ahead = self.task, steps if at_once else self.task.target_steps
        out = [task.channels.index(v) for v in task.outputs]
        begins = iter(range(0, steps, ahead))

        def step(x: Tensor) -> Tensor:
            begin = next(begins)
            own = [v if v is None else v[:, begin : begin + ahead] for v in (known, usual)]
            y = self.normalizer.inverse(run(self.encode(x, *own)), out)
            if task.lower is not None:
                least = y.new_tensor(task.lower)
                y = torch.maximum(y, least if own[1] is None else least - own[1])
            return y if gone is None else y.masked_fill(gone, math.nan)

        return torch.cat(list(rollout(step, x, steps, detach=detach)), dim=1)

    def roll_normalised(
        self,
        run: Callable[[Tensor], Tensor],
        x: Tensor,
        steps: int,
        *,
        known: Tensor | None = None,
        usual: Tensor | None = None,
        detach: bool = False,
    ) -> Tensor:
        """What the network itself gives in a roll-out (B, steps, C', H, W): what a loss is of.

        Parameters
        ----------
        run, x, steps, known, usual, detach
            As :meth:`roll` has them; `steps` is a multiple of the task's.
        """
        task, made = self.task, list[Tensor]()
        if steps == task.target_steps:
            return run(self.encode(x, *(v if v is None else v[:, :steps] for v in (known, usual))))

        def noted(seen: Tensor) -> Tensor:
            made.append(run(seen))
            return made[-1]

        gone = None
        if task.nan == "mask":
            gone = x[:, -1:, [task.variables.index(v) for v in task.outputs]].isnan()
        self.roll(noted, x, steps, known=known, usual=usual, gone=gone, detach=detach)
        return torch.cat(made, dim=1)

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
        x, y, *ahead = self.parts(windows, usual)
        first = slice(self.task.target_steps)  # of windows that are longer, one application
        seen = self.encode(x, *(v if v is None else v[:, first] for v in ahead))
        return seen, y[:, first]

    def parts(
        self, windows: tuple[Tensor, Tensor], usual: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """What :meth:`roll` takes of windows, and what it should give.

        Parameters
        ----------
        windows, usual
            As :meth:`pair` has them; targets of any number of applications.

        Returns
        -------
        x : Tensor of shape (B, ``task.history``, C, H, W)
            In physical units, less what is usual.
        y : Tensor of shape (B, N, C', H, W)
            Normalised.
        known, ahead : Tensor of shape (B, N, ..., H, W), or None
            What is known, and what is usual, at the target times.
        """
        task, (x, y), ahead = self.task, windows, None
        if usual is not None:
            past, ahead = usual[:, : task.history], usual[:, task.history :]
            x, y = self._less(x, past), y - ahead
        out = [task.channels.index(v) for v in task.outputs]
        return x, self.normalizer(y, out), getattr(windows, "known", None), ahead

    def _less(self, x: Tensor, usual: Tensor) -> Tensor:
        """History (B, T, C, H, W) less what is usual of the outputs (B, T, C', H, W)."""
        task = self.task
        both = [v for v in task.outputs if v in task.variables]
        if both == list(task.variables) == list(task.outputs):
            return x - usual
        own = torch.tensor([task.variables.index(v) for v in both], dtype=torch.int64)
        usual = usual[:, :, [task.outputs.index(v) for v in both]].to(x.dtype)
        return x.index_add(2, own.to(x.device), usual, alpha=-1)
