"""What training makes small: a network and its loss in one module, which all else wraps.

``DistributedDataParallel`` and ``torch.compile`` wrap the objective and not the network, so that a
network which wants the targets while it learns is called in the same way as one that does not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..forecasting.frames import Frames
from ..models.inference import form
from ..models.members import check_draws, draw_for_training, draw_mode
from .config import TrainConfig
from .distributed import all_sum
from .losses import LOSSES, Loss

logger = logging.getLogger(__name__)

#: Steps on a GPU from which ``torch.compile`` pays.
_WORTH_COMPILING = 2000


class Objective(nn.Module):
    """A network with its loss.

    A network that wants the targets while it learns (scheduled sampling, one more term of the
    loss) has a method ``teach(x, y, step, generator) -> (prediction, extra)``, called in place of
    the network itself: `extra` is added to the mean loss, and random numbers come from `generator`
    (on the CPU), which follows from (`seed`, step, `rank`), or from torch's own generators, which
    are in the checkpoints. Either way a resumed run draws what it would have drawn.

    Parameters
    ----------
    network : torch.nn.Module
        (B, T, C, H, W) -> (B, T', C', H, W), or (M, B, T', C', H, W) for a loss of ensembles.
    loss : str or callable
        One of :data:`stforecast.training.losses.LOSSES`, or a callable like them.
    weights : Tensor, optional
        To be broadcast to (B, T', C', H, W); of a roll-out, that of all applications.
    masked : bool
        Whether NaN in the targets is left out; else it makes the loss NaN.
    bf16 : bool
        Whether the network computes in bfloat16. The loss is of the targets' type.
    seed, rank : int
        From which `generator` follows.
    frames : Frames, optional
        Of a network that is trained on its own output: what feeds it back, as in a forecast.
    detach : bool
        Whether gradients do not go through what is fed back.
    members : int
        Members that are drawn of each window, where there are more than 1. The network is then
        in training as it is in forecasts, with the statistics that it has, and is not taught.
    draws : {"noise", "dropout"}
        How.

    Raises
    ------
    InputError
        If a network is to be fed back that is taught, or goes on to any length by itself; or is to
        draw members in a way that it does not have.
    """

    weights: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: str | Loss = "mse",
        weights: Tensor | None = None,
        *,
        masked: bool = False,
        bf16: bool = False,
        seed: int = 0,
        rank: int = 0,
        frames: Frames | None = None,
        detach: bool = False,
        members: int = 1,
        draws: str = "noise",
    ) -> None:
        super().__init__()
        self.network, self.frames, self.detach = network, frames, detach
        self.members, self.draws = members, draws if members > 1 else None
        check_draws(network, self.draws)
        self.loss: Loss = LOSSES[loss] if isinstance(loss, str) else loss
        weights = torch.ones(1, dtype=torch.float32) if weights is None else weights
        self.register_buffer("weights", weights, persistent=False)
        self.masked, self.bf16 = masked, bf16
        #: The network's own way to learn, where it has one.
        self.teach: Callable[..., tuple[Tensor, Tensor]] | None = None
        if self.draws is None:
            self.teach = getattr(network, "teach", None)
        self._seeds, self._drawn_for = (seed, rank), -1
        self._generator = torch.Generator()
        if frames is not None and (self.teach is not None or getattr(network, "goes_on", False)):
            raise InputError(
                f"{type(network).__name__} learns long forecasts in its own way: give more "
                "target_steps to its Task, and TrainConfig(rollout=1)"
            )

    def train(self, mode: bool = True) -> Objective:
        """As of any module; what draws members goes on to draw."""
        super().train(mode)
        if mode and self.draws is not None:
            draw_mode(self.network, self.draws)
        return self

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        step: int,
        known: Tensor | None = None,
        usual: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | int]:
        """Sum of the weighted loss over the points of a batch, and how many these are.

        Parameters
        ----------
        x, y : Tensor of shape (B, T, C, H, W) and (B, T', C', H, W)
            Inputs and targets, normalised. Of a roll-out: the history as
            :meth:`stforecast.Forecaster.roll` takes it, and targets of any number of applications.
        step : int
            Of the optimiser, from 0.
        known, usual : Tensor, optional
            Of a roll-out, as :meth:`stforecast.Forecaster.roll` takes them.

        Returns
        -------
        loss : Tensor
            The sum.
        points : Tensor or int
            Of this batch.

        Raises
        ------
        InputError
            If prediction, or loss, and targets are not of one shape.
        """
        extra: Tensor | float = 0.0
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            if self.teach is not None:
                prediction, extra = self.teach(x, y, step, self._draws(step))
            elif self.draws is not None:
                prediction = self._drawn(self.draws, x, y, step, known, usual)
            elif self.frames is not None:
                prediction = self._rolled(self.network, self.frames, x, y, known, usual)
            else:
                prediction = self.network(x)
        points: Tensor | int = y.numel()
        weights, targets, earlier = self.weights, y.shape, 0
        if weights.ndim == 4:  # of a roll-out with fewer applications than will come
            weights = weights[: y.shape[1]]
        if self.teach is not None and isinstance(prediction, Tensor) and prediction.ndim >= y.ndim:
            earlier = min(max(prediction.shape[-4] - y.shape[1], 0), x.shape[1])
        if earlier and self.masked:
            prediction = prediction[..., earlier:, :, :, :]
        elif earlier:
            y = torch.cat([x[:, -earlier:, : y.shape[2]].to(y.dtype), y], dim=1)
            if weights.ndim == 4 and len(weights) > 1:
                weights = torch.cat([weights[:1].expand(earlier, -1, -1, -1), weights])
        if not isinstance(prediction, Tensor) or prediction.shape[-y.ndim :] != y.shape:
            raise InputError(
                f"the network gives {form(prediction)} for input {tuple(x.shape)}, the "
                f"targets are {tuple(targets)}: give a network of the task's sizes"
            )
        prediction = prediction.to(y.dtype)
        if self.masked:  # NaN times zero would be NaN: such points are left out, not weighted
            there = y.isfinite()
            points, middle = there.sum(), prediction.detach()
            if middle.ndim > y.ndim:
                middle = middle.mean(0)
            y = torch.where(there, y, middle)  # and their gradients are finite
        loss = self.loss(prediction, y)
        if loss.ndim > y.ndim:
            loss = loss.mean(0)
        if loss.shape != y.shape:
            raise InputError(
                f"the loss is {tuple(loss.shape)} for targets {tuple(y.shape)}: it must give the "
                f"loss at each point, not their mean"
            )
        if self.masked:
            loss = torch.where(there, loss, 0)
        total = (weights * loss).sum()
        if earlier and not self.masked:  # the mean over all, for as many points as the targets have
            total = total * (targets[1] / y.shape[1])
        return (total if self.teach is None else total + extra * points), points

    def _drawn(
        self,
        draws: str,
        x: Tensor,
        y: Tensor,
        step: int,
        known: Tensor | None,
        usual: Tensor | None,
    ) -> Any:
        """Members (M, B, T', C', H, W), of which each goes on from its own output."""

        def call(seen: Tensor) -> Any:
            return draw_for_training(self.network, draws, seen, generator)

        M, generator = self.members, self._draws(step)
        known, usual = (v if v is None else v.repeat(M, 1, 1, 1, 1) for v in (known, usual))
        x = x.repeat(M, 1, 1, 1, 1)
        if self.frames is None:
            made = call(x)
        else:
            made = self._rolled(call, self.frames, x, y, known, usual)
        if not isinstance(made, Tensor) or len(made) != M * len(y):
            return made  # which is told of as that of one forecast
        return made.unflatten(0, (M, len(y)))

    def _rolled(
        self,
        call: Callable[[Tensor], Any],
        frames: Frames,
        x: Tensor,
        y: Tensor,
        known: Tensor | None,
        usual: Tensor | None,
    ) -> Tensor:
        """What the network gives, applied to its own output as often as there are targets."""

        def run(seen: Tensor) -> Tensor:
            made = call(seen.to(y.dtype))
            if not isinstance(made, Tensor) or made.shape != (len(x), *ahead, *y.shape[2:]):
                raise InputError(
                    f"the network gives {form(made)} for input {tuple(seen.shape)}; of a roll-out "
                    f"each application gives {ahead[0]} of the targets {tuple(y.shape)}"
                )
            return made

        ahead = (frames.task.target_steps,)
        return frames.roll_normalised(
            run, x, y.shape[1], known=known, usual=usual, detach=self.detach
        )

    def points(self, y: Tensor, windows: int) -> Tensor | int:
        """Points of a whole step, on all ranks, of which `y` (B, T', C', H, W) is one's part.

        Parameters
        ----------
        y : Tensor
        windows : int
            In the step.

        Returns
        -------
        Tensor or int
        """
        if not self.masked:
            return windows * math.prod(y.shape[1:])
        return all_sum(y.isfinite().sum()).clamp_min(1)

    def _draws(self, step: int) -> torch.Generator:
        """The generator of a step, which goes on through its passes."""
        if step != self._drawn_for:
            state = np.random.SeedSequence([*self._seeds, step]).generate_state(1, np.uint64)
            self._generator.manual_seed(int(state[0]))
            self._drawn_for = step
        return self._generator


def compiled(
    objective: Objective, config: TrainConfig, steps: int, device: torch.device
) -> Callable[..., Any] | None:
    """Compile an objective where it is asked for and pays; None where it stays as it is.

    Parameters
    ----------
    objective : Objective
    config : TrainConfig
        Whose ``compile`` says what to do.
    steps : int
        Of the whole run.
    device : torch.device

    Returns
    -------
    callable or None
        Compiled at its first call, for the memory layout that it is called with. With
        ``compile="auto"`` a machine that cannot compile is warned of, and goes on without.
    """
    how, auto = config.compile, config.compile == "auto"
    if how == "never" or (auto and not (device.type == "cuda" and steps >= _WORTH_COMPILING)):
        return None
    if objective.teach is not None or objective.draws is not None:  # anew at each step
        if not auto:
            logger.warning("a network that is taught or draws is not compiled: compile=%r", how)
        return None
    mode = None
    if how == "graphs":  # a graph's gradients lie in its own memory: the next pass overwrites them
        mode = "reduce-overhead" if config.accumulate == 1 else None
    fast = torch.compile(objective, dynamic=False, mode=mode)
    call: Callable[..., Any] = fast

    def run(x: Tensor, y: Tensor, step: int) -> Any:
        nonlocal call, auto
        if auto:
            auto = False
            try:
                return call(x, y, step)
            except Exception as error:
                logger.warning("not compiled: %s: %s", type(error).__name__, error)
                call = objective
        return call(x, y, step)

    return run
