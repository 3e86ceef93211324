"""Networks by name, sized to a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..task import Task
from .simvp import SimVPv2

#: Networks a bundle can name. Any other is passed to :func:`load` by the caller.
NETWORKS: dict[str, type[nn.Module]] = {"SimVPv2": SimVPv2}


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
        and (network.predict_change or task.target_steps > task.input_steps)
        and task.variables[: len(outputs)] != outputs
    ):
        first = [*outputs, *(v for v in task.variables if v not in outputs)]
        raise InputError(
            f"SimVPv2 takes its first inputs for what it forecasts (with predict_change=True, or more "
            f"target than input steps), found inputs {list(task.variables)} and targets "
            f"{list(outputs)}: use Task({first}, targets={list(outputs)}, ...)"
        )
    if isinstance(network, SimVPv2) and network.predict_change:
        network.tendency_std.copy_(change.clamp_min(1e-6))
    for weight in network.parameters():  # of 2-D convolutions: they are faster so
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network
