"""What a network's forecasts are differences from: fields by the time of the week or the year."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..conventions.cycles import Cycle, terms
from ..errors import InputError

#: Harmonics of one axis: more are no climatology.
_MOST_ORDER = 100


class Reference(nn.Module):
    """A climatology on the device: fields of some variables, looked up by time.

    Parameters
    ----------
    cycle : {"week", "year", "harmonics"}
        What times are looked up in; "year": by bundles with a climatology by hour and day of year.
    slots : array-like of int, shape (K,)
        Nanoseconds since the beginning of the cycle, ascending; of harmonics, their orders
        (annual, diurnal): see :func:`stforecast.conventions.cycles.harmonics`.
    fields : array-like of float, shape (K, C, H, W)
        In the units of the variables.
    variables : sequence of str
        Canonical names of the C variables.
    about : mapping
        What is known of it, in words: the period it was fitted to.

    Raises
    ------
    InputError
        If these do not fit each other.
    """

    slots: Tensor
    fields: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        cycle: Cycle,
        slots: Any,
        fields: Any,
        variables: Sequence[str],
        about: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.cycle, self.variables, self.about = cycle, tuple(variables), dict(about)
        self.register_buffer("slots", torch.as_tensor(slots, dtype=torch.int64))
        self.register_buffer("fields", torch.as_tensor(fields, dtype=torch.float32))
        count = len(self.slots) if self.slots.ndim == 1 else 0
        known = cycle in get_args(Cycle)
        if cycle == "harmonics":
            orders = self.slots.tolist() if count == 2 else [-1]
            whole = min(orders) >= 0 and max(orders) <= _MOST_ORDER
            count = math.prod(2 * n + 1 for n in orders) if whole else 0
            ordered = whole
        else:
            ordered = count > 0 and bool((self.slots.diff() > 0).all())
        fits = self.fields.ndim == 4 and self.fields.shape[:2] == (count, len(self.variables))
        if not (known and ordered and fits):
            raise InputError(
                f"a climatology of the week or the year has fields of {len(self.variables)} "
                f"variables at ascending times, found {cycle!r}, times {tuple(self.slots.shape)} "
                f"and fields {tuple(self.fields.shape)}"
            )
        mean, std = _moments(self.fields, cycle)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def at(self, time: np.ndarray, variables: Sequence[str]) -> Tensor:
        """Look up times (B, T): fields (B, T, C, H, W), 0 for variables that it does not have.

        Raises
        ------
        InputError
            If it has nothing at a time.
        """
        chosen = look_up(self.fields, terms(self.cycle, self.slots.cpu().numpy(), time))
        if tuple(variables) == self.variables:
            return chosen
        nothing = torch.zeros_like(chosen[:, :, 0])
        have = [self.variables.index(v) if v in self.variables else None for v in variables]
        return torch.stack([nothing if i is None else chosen[:, :, i] for i in have], dim=2)


def look_up(fields: Tensor, weights: Any) -> Tensor:
    """Fields (..., C, H, W) at times, from all fields (K, C, H, W) and a climatology's terms.

    Parameters
    ----------
    fields : Tensor of shape (K, C, H, W)
    weights : array-like
        The number (...) of each time's field, or the weights (..., K) of all.
    """
    weights = torch.as_tensor(weights, device=fields.device)
    if weights.is_floating_point():
        return (weights @ fields.flatten(1)).unflatten(-1, fields.shape[1:])
    return fields[weights]


def _moments(fields: Tensor, cycle: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of a climatology over its cycle and its points."""
    fields = fields.double()
    if cycle == "harmonics":  # the first is the mean in time; the others are orthogonal waves
        mean, wave = fields[0], fields[1:].square().sum(0) / 2
        middle = mean.flatten(1).nanmean(1)
        power = (mean - middle[:, None, None]).square() + wave
    else:
        middle = fields.transpose(0, 1).flatten(1).nanmean(1)
        power = (fields - middle[:, None, None]).square().mean(0)
    std = power.flatten(1).nanmean(1).sqrt()
    return middle.float(), torch.where(std > 0, std, 1.0).float()
