"""What is usual, for windows of the training period: without what they have put into it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..baselines.reference import ReferenceFit, fit_reference
from ..errors import InputError
from ..forecasting.reference import Reference, look_up
from ..task import Task


class Usual:
    """Fields that the anomalies of training windows are differences from.

    All steps of a window are differences from one climatology, which leaves out the years (weeks,
    half months) that the window lies in. One that left out the year of each step alone would leak:
    where a lag is a whole period, the target is in the mean that is subtracted from the lag.

    Parameters
    ----------
    fit : ReferenceFit
        Of the training period.
    time : array of shape (N,)
        Its times.
    window : int
        Length of the windows.
    """

    def __init__(self, fit: ReferenceFit, time: np.ndarray, window: int) -> None:
        self._fit, self._window = fit, window
        self._terms = torch.from_numpy(fit.terms(time))
        self._whole = torch.from_numpy(fit.fields)
        self._set = np.zeros(len(time), dtype=np.int64)
        self._fields = self._whole[None]

    def in_order(self, first: int, n: int) -> Tensor:
        """What is usual in `n` steps from `first` on, by all of the period: (n, C, H, W)."""
        return look_up(self._whole, self._terms[first : first + n])

    def reference(self, task: Task, about: Mapping[str, str]) -> Reference:
        """The climatology of the whole period, for a forecaster."""
        fit = self._fit
        return Reference(fit.cycle, fit.slots, fit.fields, task.outputs, about)

    def ready(self, starts: np.ndarray, device: torch.device) -> None:
        """Be ready for the windows that begin at steps `starts`, on a device."""
        pairs, which = self._fit.sets(starts, self._window)
        fields = [torch.from_numpy(self._fit.without(int(a), int(b))) for a, b in pairs]
        self._fields, self._terms = torch.stack(fields).to(device), self._terms.to(device)
        self._set[starts] = which

    def __call__(self, first: np.ndarray | None) -> Tensor:
        """Fields (B, window, C, H, W) for the windows that begin at steps `first` (B,).

        Raises
        ------
        InputError
            If nothing is known of where the windows lie.
        """
        if first is None:
            raise InputError("a feed of your own does not say where in time its windows lie")
        device, shape = self._fields.device, self._fields.shape[2:]
        rows = torch.as_tensor(first[:, None] + np.arange(self._window), device=device)
        chosen = torch.as_tensor(self._set[first], device=device)
        terms = self._terms[rows]
        if terms.is_floating_point():  # (B, window, K) @ (B, K, points)
            return (terms @ self._fields[chosen].flatten(2)).unflatten(-1, shape)
        return self._fields[chosen[:, None], terms]


def fit_usual(ds: xr.Dataset, task: Task) -> Usual | None:
    """Fit what a task's anomalies are differences from; None where it forecasts none.

    Parameters
    ----------
    ds : xarray.Dataset
        The training period, canonical.
    task : Task
    """
    if task.reference is None:
        return None
    return Usual(fit_reference(ds, task), ds["time"].values, task.window)
