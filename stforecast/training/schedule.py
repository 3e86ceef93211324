"""What changes from step to step, as pure functions: a resumed run needs no state of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import TrainConfig


def applications(config: TrainConfig, step: int) -> int:
    """How often the network is applied at a step, from 0, each time to its own output."""
    if isinstance(config.rollout, int):
        return config.rollout
    return next((k for first, k in reversed(config.rollout) if step >= first), 1)


def schedule(
    config: TrainConfig, step: int, steps: int, steps_per_epoch: int
) -> tuple[float, float]:
    """Learning rate and Adam's first beta at a step.

    Parameters
    ----------
    step, steps : int
        The step, from 0, of how many.
    steps_per_epoch : int

    Returns
    -------
    tuple of float

    Notes
    -----
    ``"onecycle"``: Smith & Topin (2018), as :class:`torch.optim.lr_scheduler.OneCycleLR` with
    cosine phases, 30% warm-up from 1/25 of the peak, ``final_div_factor`` 1e4, momentum 0.95 to
    0.85 and back.
    """
    peak = config.learning_rate
    if config.schedule == "constant":
        return peak, 0.9
    if config.schedule == "cosine":
        epoch, epochs = step // steps_per_epoch, max(steps / steps_per_epoch, 1)
        if epoch < config.warmup_epochs:
            start = min(1e-5, peak)
            return start + (peak - start) * epoch / config.warmup_epochs, 0.9
        return 1e-6 + (peak - 1e-6) * (1 + math.cos(math.pi * min(epoch / epochs, 1))) / 2, 0.9

    def between(start: float, end: float, part: float) -> float:
        return end + (start - end) / 2 * (1 + math.cos(math.pi * part))

    rise = 0.3 * steps - 1
    low, final = peak / 25, peak / 25 / 1e4
    if step <= rise:
        part = step / rise if rise > 0 else 1.0
        return between(low, peak, part), between(0.95, 0.85, part)
    part = (step - rise) / max(steps - 1 - rise, 1)
    return between(peak, final, part), between(0.85, 0.95, part)
