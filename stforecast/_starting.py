"""What a training starts from: the network, weights of another one, weights of the loss."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from . import metrics
from .conventions import InputError
from .forecaster import Forecaster, checksum, plain_tensors, read_bundle
from .models import SimVPv2
from .windows import Task

if TYPE_CHECKING:
    import xarray as xr

    from .training import TrainConfig

logger = logging.getLogger(__name__)

#: Buffers that say how the data change, not what was learned.
_OF_THE_DATA = {"change_scale"}


def make_network(
    model: str | nn.Module | Callable[[], nn.Module], task: Task, change: Tensor
) -> nn.Module:
    """Make the network, and tell it how much the data typically change.

    Parameters
    ----------
    model
        As :func:`stforecast.fit` has it.
    task : Task
    change : Tensor of shape (T', C')
        Root of the mean square change up to each lead time, in deviations.
    """
    if model == "simvpv2":
        model = partial(
            SimVPv2,
            task.input_steps,
            task.target_steps,
            len(task.variables),
            out_channels=len(task.outputs),
        )
    network = model if isinstance(model, nn.Module) or not callable(model) else model()
    if not isinstance(network, nn.Module):
        raise InputError(
            f"model must be 'simvpv2', a torch.nn.Module or a function that makes one, "
            f"found {model!r}"
        )
    outputs = task.outputs
    if (
        isinstance(network, SimVPv2)
        and (network.residual or task.target_steps > task.input_steps)
        and task.variables[: len(outputs)] != outputs
    ):
        first = [*outputs, *(v for v in task.variables if v not in outputs)]
        raise InputError(
            f"SimVPv2 takes its first inputs for what it forecasts (with residual=True, or more "
            f"target than input steps), found inputs {list(task.variables)} and targets "
            f"{list(outputs)}: use Task({first}, targets={list(outputs)}, ...)"
        )
    if isinstance(network, SimVPv2) and network.residual:
        network.change_scale.copy_(change.clamp_min(1e-6))
    for weight in network.parameters():  # of 2-D convolutions: they are faster so
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


def carry_over(network: nn.Module, init: str | os.PathLike[str] | Forecaster) -> dict[str, Any]:
    """Copy the weights of a trained network that fit another one by name and shape.

    Parameters
    ----------
    network : torch.nn.Module
        What is to be trained. What does not fit keeps its initial values; so do buffers that
        describe the data.
    init : Forecaster or path-like
        A forecaster, or the directory of a bundle.

    Returns
    -------
    dict
        ``from``, ``sha256`` (of the weights), ``carried`` (how many tensors), ``share`` (of the
        network's parameters) and ``left``: names of those that keep their initial values, and why.

    Raises
    ------
    InputError
        If there is no bundle, or nothing fits.
    """
    if isinstance(init, Forecaster):
        name, given = "a forecaster", plain_tensors(init.network.state_dict())
    else:
        name, given = os.fspath(init), read_bundle(init)[1]
        given = {
            k.removeprefix("network."): v for k, v in given.items() if k.startswith("network.")
        }
    mine, fit, left = network.state_dict(), {}, {}
    for key, tensor in mine.items():
        if key.rpartition(".")[2] in _OF_THE_DATA:
            continue
        if key not in given:
            left[key] = "not there"
        elif given[key].shape != tensor.shape:
            left[key] = f"{tuple(given[key].shape)} there, {tuple(tensor.shape)} here"
        else:
            fit[key] = given[key]
    count = sum(mine[k].numel() for k in fit)
    if not count:
        raise InputError(
            f"init={name!r}: none of its {len(given)} tensors has the name and shape of one of the "
            f"network's {len(mine)}; give a network of the same kind and sizes"
        )
    network.load_state_dict(fit, strict=False)
    total = sum(v.numel() for v in mine.values())
    logger.info(
        "%d of %d tensors (%.1f%% of the numbers) carried over from %s%s",
        len(fit), len(fit) + len(left), 100 * count / total, name,
        "".join(f"; {k} is new ({why})" for k, why in left.items()),
    )  # fmt: skip
    return {
        "from": name,
        "sha256": checksum(given),
        "carried": len(fit),
        "share": round(count / total, 6),
        "left": left,
    }


def loss_weights(config: TrainConfig, task: Task, ds: xr.Dataset, change: Tensor) -> Tensor:
    """Weights (T', C', H, 1) of the squared error; all ones for the paper's loss."""
    weights = torch.ones(1, 1, 1, 1)
    if config.area_weighted and "latitude" in ds.coords:
        rows = metrics.area_weights(ds["latitude"].values)
        weights = weights * torch.as_tensor(np.asarray(rows), dtype=torch.float32)[:, None]
    if config.balance_leads:
        lead = 1 / change.clamp_min(1e-12)
        weights = (
            weights
            * (lead * change.square().sum(0) / (lead * change.square()).sum(0))[..., None, None]
        )
    return weights


def units(ds: xr.Dataset, task: Task) -> dict[str, dict[str, str]]:
    """CF attributes of each channel that a forecast is to have again."""
    keep = ("units", "long_name", "standard_name")
    return {v: {k: str(a[k]) for k in keep if k in (a := ds[v].attrs)} for v in task.channels}


def period(ds: xr.Dataset) -> str:
    """Say which times a data set holds."""
    time = ds.indexes["time"]
    return f"{time[0]} to {time[-1]}, {len(time)} times"


def provenance(
    ds: xr.Dataset, config: TrainConfig, steps: int, about: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a bundle says of its training: data, period, settings."""
    title = ds.attrs.get("title") or ds.attrs.get("source") or "an untitled data set"
    keep = {k: str(ds.attrs[k]) for k in ("source", "comment", "license") if k in ds.attrs}
    return {
        "data": str(title),
        "data_attributes": keep,
        "period": period(ds),
        "config": asdict(replace(config, steps=steps)),
        **(about or {}),
    }
