"""Losses at single points, and the weights with which they are added up.

A loss is a callable on prediction and target (B, T', C', H, W) that gives the loss at each point,
of that shape. A prediction of several members has one more axis in front, (M, B, T', C', H, W);
what a loss leaves of that axis is averaged. Area, lead time and variable are weights, not losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..conventions.grid import area_weights
from ..conventions.variables import canonical_name
from ..errors import InputError
from ..task import Task

if TYPE_CHECKING:
    import xarray as xr

    from .config import TrainConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error."""
    return (prediction - target) ** 2


def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error."""
    return (prediction - target).abs()


def huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the squared error up to one standard deviation, linear beyond (Huber, 1964)."""
    return F.huber_loss(prediction, target.expand_as(prediction), reduction="none")


def crps(prediction: Tensor, target: Tensor) -> Tensor:
    """Continuous ranked probability score of an ensemble, fair to its size.

    Parameters
    ----------
    prediction : Tensor of shape (M, B, T', C', H, W)
        At least two members.
    target : Tensor of shape (B, T', C', H, W)

    Returns
    -------
    Tensor of shape (B, T', C', H, W)
        Mean distance of the members from the target, less half their mean distance from each
        other, over the M (M - 1) pairs of different ones.

    Raises
    ------
    InputError
        If there are fewer than two members.

    References
    ----------
    Ferro (2014), "Fair scores for ensemble forecasts", equation 8.
    """
    M = len(prediction)
    if prediction.ndim != target.ndim + 1 or M < 2:
        raise InputError(
            f"the fair CRPS needs a prediction (members, batch, ...) of at least two members, "
            f"found {tuple(prediction.shape)} for targets {tuple(target.shape)}: use loss='mae' "
            f"for one"
        )
    # Of sorted members the sum over pairs is a sum over ranks: no M x M distances in memory.
    ranked = prediction.sort(0).values
    rank = torch.arange(1 - M, M, 2, device=ranked.device, dtype=ranked.dtype)
    pairs = torch.tensordot(rank, ranked, 1) / (M * (M - 1))
    return (prediction - target).abs().mean(0) - pairs


def tau(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error, and a tenth of the divergence of the changes from step to step.

    The differential divergence regularisation of the Temporal Attention Unit. The changes of each
    sample between neighbouring steps, divided by 0.1, make a distribution over channels and points
    (softmax); the divergence (Kullback and Leibler) is that of the prediction's from the target's.
    It is spread over the steps so that its mean is that of the changes. As in the public code it
    takes three steps at least; that code adds 1e-12 inside its logarithm, which is exact here.

    Parameters
    ----------
    prediction, target : Tensor of shape (B, T', C', H, W)

    Returns
    -------
    Tensor of shape (B, T', C', H, W)

    References
    ----------
    Tan et al. (2023), "Temporal Attention Unit", arXiv:2206.12126, the section on differential
    divergence regularization.
    """
    loss, steps = mse(prediction, target), target.shape[-4]
    if steps < 3:
        return loss
    ours, theirs = (
        (y.diff(dim=-4) / 0.1).flatten(-3).log_softmax(-1)
        for y in (prediction, target.expand_as(prediction))
    )
    divergence = (ours.exp() * (ours - theirs)).unflatten(-1, target.shape[-3:])
    share = 0.1 * steps / (steps - 1)
    return loss + F.pad(share * divergence, (0, 0, 0, 0, 0, 0, 1, 0))


#: Losses by name.
LOSSES: dict[str, Loss] = {"mse": mse, "mae": mae, "huber": huber, "crps": crps, "tau": tau}


def loss_weights(config: TrainConfig, task: Task, ds: xr.Dataset, change: Tensor) -> Tensor:
    """Weights of the loss: of rows by area, of lead times, of variables.

    Parameters
    ----------
    config : TrainConfig
    task : Task
    ds : xarray.Dataset
        The training period; uniform in area without a latitude.
    change : Tensor of shape (T', C')
        Typical change up to each lead time, in physical units.

    Returns
    -------
    Tensor of shape (T', C', H, 1), or 1 in place of an axis without weights
        All ones for the paper's loss.

    Raises
    ------
    InputError
        If there are weights of variables that the task does not forecast, or too few.
    """
    weights = torch.ones(1, 1, 1, 1, dtype=torch.float32)
    if config.area_weighted and "latitude" in ds.coords:
        rows = area_weights(ds["latitude"].values)
        weights = weights * torch.as_tensor(np.asarray(rows), dtype=torch.float32)[:, None]
    if config.balance_leads:
        lead = 1 / change.clamp_min(1e-12)
        scale = lead * change.square().sum(0) / (lead * change.square()).sum(0)
        weights = weights * scale[..., None, None]
    if config.variable_weights is not None:
        each = torch.tensor(_by_variable(config.variable_weights, task), dtype=torch.float32)
        weights = weights * (each / each.mean())[:, None, None]
    return weights


def _by_variable(given: Mapping[str, float] | Sequence[float], task: Task) -> list[float]:
    """One weight for each output of the task."""
    if isinstance(given, Mapping):
        named = {canonical_name(name): float(weight) for name, weight in given.items()}
        if unknown := set(named) - set(task.outputs):
            raise InputError(
                f"variable_weights names {', '.join(sorted(unknown))}, which the task does not "
                f"forecast: it forecasts {', '.join(task.outputs)}"
            )
        return [named.get(name, 1.0) for name in task.outputs]
    if len(given) != len(task.outputs):
        raise InputError(
            f"variable_weights has {len(given)} weights, the task forecasts {len(task.outputs)} "
            f"variables ({', '.join(task.outputs)}): give one for each, or a mapping by name"
        )
    return [float(weight) for weight in given]
