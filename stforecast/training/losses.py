"""The loss: squared errors, their weights, and the points that they are of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..conventions.grid import area_weights
from ..task import Task
from .distributed import all_sum

if TYPE_CHECKING:
    import xarray as xr

    from .config import TrainConfig


def loss_weights(config: TrainConfig, task: Task, ds: xr.Dataset, change: Tensor) -> Tensor:
    """Weights (T', C', H, 1) of the squared error; all ones for the paper's loss."""
    weights = torch.ones(1, 1, 1, 1)
    if config.area_weighted and "latitude" in ds.coords:
        rows = area_weights(ds["latitude"].values)
        weights = weights * torch.as_tensor(np.asarray(rows), dtype=torch.float32)[:, None]
    if config.balance_leads:
        lead = 1 / change.clamp_min(1e-12)
        weights = (
            weights
            * (lead * change.square().sum(0) / (lead * change.square()).sum(0))[..., None, None]
        )
    return weights


def _points(y: Tensor, windows: int, *, masked: bool) -> Tensor | int:
    """Points that the targets of a step have, on all ranks; of those (B, T', C', H, W) of this one.

    Where NaN is masked, only those that are not NaN.
    """
    if not masked:
        return windows * math.prod(y.shape[1:])
    return all_sum(y.isfinite().sum()).clamp_min(1)


def _squares(prediction: Tensor, y: Tensor, weights: Tensor, *, masked: bool) -> Tensor:
    """Weighted sum of the squared errors (B, T', C', H, W), over the points that are not NaN."""
    if masked:
        y = torch.where(y.isfinite(), y, prediction.detach())  # no error there, and no gradient
    return (weights * (prediction - y) ** 2).sum()
