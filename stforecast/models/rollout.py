"""Forecasts past the length that a network gives at once: on its own output."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def rollout(
    step: Callable[[Tensor], Tensor], x: Tensor, steps: int, *, detach: bool = False
) -> Iterator[Tensor]:
    """Apply `step` until `steps` steps are forecast, each time to the latest T steps.

    Parameters
    ----------
    step : callable
        Maps (B, T, C, H, W) to (B, t, C', H, W) with t of at least 1; where it is called more than
        once, C' must be C.
    x : Tensor of shape (B, T, C, H, W)
        The history; where t is less than T, its end is the beginning of the next input.
    steps : int
        How many to forecast.
    detach : bool
        Keep gradients from going through what is fed back: each application learns by itself.

    Yields
    ------
    Tensor of shape (B, t, C', H, W)
        What each application gives, the last one cut: together they have `steps` steps. Gradients
        go through all of them, unless told otherwise.
    """
    length = x.shape[1]
    while True:
        y = step(x)
        yield y[:, :steps]
        steps -= y.shape[1]
        if steps <= 0:
            return
        x = (y if y.shape[1] >= length else torch.cat([x, y], dim=1))[:, -length:]
        x = x.detach() if detach else x
