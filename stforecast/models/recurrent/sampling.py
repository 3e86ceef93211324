"""Scheduled sampling: how often a network that feeds itself is shown the true frame in training.

Bengio, Vinyals, Jaitly, Shazeer: "Scheduled Sampling for Sequence Prediction with Recurrent Neural
Networks" (arXiv:1506.03099), section 2.4; in reverse: Wang et al., "PredRNN: A Recurrent Neural
Network for Spatiotemporal Predictive Learning" (arXiv:2103.09504). Rates are functions
of the optimiser's step alone, so that a resumed run goes on with those it would have had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError
from ..sizing import check_settings


@dataclass(frozen=True)
class Sampling:
    """When true frames are fed; the defaults are the public code's, on every benchmark.

    Parameters
    ----------
    kind : {"standard", "reverse", "never", "always"}
        "standard": the T input frames, then true frames ever more rarely. "reverse": the first
        frame, then true frames ever more often among the inputs and ever more rarely among the
        targets. "never" and "always": the inputs, and no target or every one.
    start : float
        Standard: the rate before the first step.
    decay : float
        Standard: what the rate falls in a step.
    stop : int
        Standard: the step from which the rate is 0.
    reverse_start, reverse_stop : int
        Reverse: the steps between which the rates change; before, all are one half.
    reverse_scale : float
        Reverse: steps in which the rest to a rate of 1 falls to 1/e, among the inputs.
    """

    kind: str = "standard"
    start: float = 1.0
    decay: float = 2e-5
    stop: int = 50_000
    reverse_start: int = 25_000
    reverse_stop: int = 50_000
    reverse_scale: float = 5_000.0

    def __post_init__(self) -> None:
        kinds = ("standard", "reverse", "never", "always")
        if self.kind not in kinds:
            raise InputError(f"sampling must be one of {', '.join(kinds)}, found {self.kind!r:.60}")
        steps = dict.fromkeys(("stop", "reverse_start", "reverse_stop"), (0, 10**12))
        rates = {"start": (0.0, 2.0), "decay": (0.0, 2.0), "reverse_scale": (1e-9, 1e12)}
        check_settings(vars(self), steps, rates)
        if self.reverse_stop <= self.reverse_start:
            raise InputError(
                f"sampling needs reverse_start < reverse_stop, found {self.reverse_start} and "
                f"{self.reverse_stop}"
            )

    def rates(self, step: int, input_steps: int, target_steps: int) -> Tensor:
        """Probabilities of the true frame at a step of the optimiser, in float64.

        Parameters
        ----------
        step : int
            From 0.
        input_steps, target_steps : int
            T and T'.

        Returns
        -------
        Tensor of shape (n,)
            For the last n steps of the roll-out: T' - 1, or in reverse T + T' - 2.
        """
        n = target_steps - 1
        if self.kind != "reverse":
            rate = max(0.0, self.start - self.decay * (step + 1)) if step < self.stop else 0.0
            rate = {"never": 0.0, "always": 1.0}.get(self.kind, rate)
            return torch.full((n,), rate, dtype=torch.float64)
        seen = ahead = 0.5
        if step >= self.reverse_start:
            since, length = step - self.reverse_start, self.reverse_stop - self.reverse_start
            done = since >= length
            seen = 1.0 if done else 1.0 - 0.5 * math.exp(-since / self.reverse_scale)
            ahead = 0.0 if done else 0.5 - 0.5 * since / length
        rates = [seen] * (input_steps - 1) + [ahead] * n
        return torch.tensor(rates, dtype=torch.float64)


def draw(rates: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """Draw where the true frame is fed: once for a sample and step.

    Parameters
    ----------
    rates : Tensor of shape (n,)
        Probabilities.
    samples : int
        B.
    generator : torch.Generator, optional
        On the CPU; torch's own unless given.

    Returns
    -------
    Tensor of bool, shape (B, n)
        On the CPU.
    """
    uniform = torch.rand(
        samples, len(rates), generator=generator, dtype=torch.float64, device="cpu"
    )
    return uniform < rates
