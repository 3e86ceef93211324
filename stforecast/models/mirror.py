"""The mirror image of the world about the equator, which obeys the same laws.

Turned north to south, with the sign of what points north changed, an atmosphere is one that might
be: the Coriolis force changes its sign with latitude. A network that learns from both sees twice as
much weather, and other coasts and mountains behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..task import Task

#: What is known of a place and has the other sign in the mirror: it says where a row lies.
_ODD = "latitude_sin"
_VECTORS = ("v_component", "vorticity", "northward")


class Mirror(nn.Module):
    """Apply a function of fields to them, to their mirror images, or to both.

    In training each sample is turned or not, at random. A forecast is the mean of both ways; a
    member that is drawn by noise goes one way, by the sign of its first random number.

    Parameters
    ----------
    channels : int
        C, of a frame.
    odd : sequence of int
        Channels whose sign changes.
    """

    parity: Tensor

    def __init__(self, channels: int, odd: Sequence[int]) -> None:
        super().__init__()
        parity = torch.ones(channels, 1, 1)
        parity[list(odd)] = -1.0
        self.register_buffer("parity", parity, persistent=False)

    def forward(
        self,
        apply: Callable[[Tensor, Tensor | None], Tensor],
        x: Tensor,
        guess: Tensor | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Give (B, T', C', H, W), as `apply` does of x (B, T, C, H, W) and a first guess."""
        mirrored = x.flip(-2) * self.parity.to(x.dtype)
        if noise is None and not self.training:
            both = None if guess is None else torch.cat([guess, guess.flip(-2)])
            here, there = apply(torch.cat([x, mirrored]), both).chunk(2)
            return (here + there.flip(-2)) / 2
        drawn = torch.rand(len(x), device=x.device) - 0.5 if noise is None else noise[:, 0, 0, 0]
        turned = (drawn > 0)[:, None, None, None, None]
        if guess is not None:
            guess = torch.where(turned, guess.flip(-2), guess)
        y = apply(torch.where(turned, mirrored, x), guess)
        return torch.where(turned, y.flip(-2), y)


def check_rows(grid: Mapping[str, Any] | None) -> None:
    """Refuse a grid that has no mirror image, or is not known to have one.

    Raises
    ------
    InputError
    """
    rows = (grid or {}).get("latitude", ())
    latitude = np.asarray([] if isinstance(rows, int) else rows, dtype=float)
    if not len(latitude) or not np.allclose(latitude, -latitude[::-1], atol=1e-3):
        span = f"{latitude[0]:g} to {latitude[-1]:g}" if len(latitude) else "none"
        raise InputError(
            "mirror=True needs a grid of latitudes that is the same north and south of the equator "
            f"(-87.5, ..., 87.5), found latitudes {span}: leave mirror out"
        )


def refuse_vectors(task: Task) -> None:
    """Refuse a task with variables whose sign changes in the mirror.

    Raises
    ------
    InputError
    """
    if vectors := [v for v in task.channels if any(word in v for word in _VECTORS)]:
        raise InputError(
            f"mirror=True is for variables whose sign the mirror leaves, found {vectors}: leave "
            "mirror out"
        )


def odd_channels(task: Task, grid: Mapping[str, Any] | None) -> list[int]:
    """Find the channels of a frame whose sign changes in the mirror.

    Parameters
    ----------
    task : Task
    grid : mapping, optional
        As :func:`stforecast.models.registry.make_network` has it.

    Returns
    -------
    list of int

    Raises
    ------
    InputError
        If the grid is not known to have a mirror image, or a variable's sign would change too.
    """
    check_rows(grid)
    refuse_vectors(task)
    wide = task.channels_out if "reference" in task.known else 1
    first, places = len(task.variables), []
    for name in task.known:
        if name == _ODD:
            places.append(first)
        first += wide if name == "reference" else 1
    return places
