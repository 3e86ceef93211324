"""What a network's forecasts are differences from: fields by the time of the week or the year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..conventions.cycles import Cycle, phase
from ..errors import InputError


class Reference(nn.Module):
    """A climatology on the device: fields of some variables, looked up by time.

    Parameters
    ----------
    cycle : {"week", "year"}
        What times are looked up in.
    slots : array-like of int, shape (K,)
        Nanoseconds since the beginning of the cycle, ascending.
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
        fits = self.fields.ndim == 4 and self.fields.shape[:2] == (count, len(self.variables))
        if cycle not in get_args(Cycle) or not (count and fits and (self.slots.diff() > 0).all()):
            raise InputError(
                f"a climatology of the week or the year has fields of {len(self.variables)} "
                f"variables at ascending times, found {cycle!r}, times {tuple(self.slots.shape)} "
                f"and fields {tuple(self.fields.shape)}"
            )

    def at(self, time: np.ndarray, variables: Sequence[str]) -> Tensor:
        """Look up times (B, T): fields (B, T, C, H, W), 0 for variables that it does not have.

        Raises
        ------
        InputError
            If it has nothing at a time.
        """
        wanted, own = phase(time, self.cycle), self.slots.cpu().numpy()
        index = np.searchsorted(own, wanted).clip(max=len(own) - 1)
        if np.any(lost := own[index] != wanted):
            raise InputError(
                f"the climatology that the forecast is a difference from has nothing at the time "
                f"of the {self.cycle} of {time[lost].flat[0]}"
            )
        chosen = self.fields[torch.as_tensor(index, device=self.fields.device)]
        nothing = torch.zeros_like(chosen[:, :, 0])
        have = [self.variables.index(v) if v in self.variables else None for v in variables]
        return torch.stack([nothing if i is None else chosen[:, :, i] for i in have], dim=2)
