"""Networks by name, sized to a task and a grid. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..task import Task

#: Where each network is. A bundle has its name, and a file of weights must not import what it
#: likes: only what stands here is made from a bundle.
_NETWORKS = {"SimVPv2": "stforecast.models.simvp:SimVPv2"}


def names() -> tuple[str, ...]:
    """Names of the networks that :func:`make_network` makes, in alphabetical order."""
    return tuple(sorted(_NETWORKS, key=str.lower))


def register(name: str, home: str) -> None:
    """Add a network from outside the library, for this process.

    Afterwards ``fit(model=name)`` makes it, and ``load`` finds it in a bundle.

    Parameters
    ----------
    name : str
        Its name, in any case.
    home : str
        ``"module:Class"``; imported when the network is first made. The class has what
        :func:`network_class` says.

    Raises
    ------
    InputError
        If there is another network of that name, or `home` reads otherwise.
    """
    if home.count(":") != 1 or not all(home.split(":")):
        raise InputError(f"home must read 'module:Class', found {home!r}")
    known = _spelled(name)
    if known is not None and _NETWORKS[known] != home:
        raise InputError(f"there is a network {known!r} already, found {name!r}: choose another")
    _NETWORKS[known or name] = home


def name_of(network: nn.Module) -> str:
    """Name of a network in the registry, or of its class if it is not registered."""
    kind = type(network)
    home = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, place in _NETWORKS.items() if place == home), kind.__name__)


def network_class(name: str) -> Any:
    """Import the class of a network by its name, in any case.

    A class has ``for_task(task, grid, **settings)``, which makes the network, whose attribute
    ``settings`` is a dict for JSON: ``for_task(task, grid, **network.settings)`` makes the same
    one. Its ``forward`` maps (B, T, C, H, W) to (B, T', C', H, W). It may have

    - ``check_task(task)``, which raises an InputError where it cannot forecast that;
    - ``set_tendency_std(change)``, told the root mean square change (T', C') up to each lead time,
      in standard deviations, before training;
    - ``folded(dtype)``, a quick form for forecasts on a CPU, or None;
    - ``compiles = True``, where ``torch.compile`` pays for many forecasts on a GPU.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    known = _spelled(name)
    if known is None:
        raise InputError(f"no network {name!r}; there are {', '.join(names())}")
    module, _, kind = _NETWORKS[known].partition(":")
    return getattr(import_module(module), kind)


def make_network(
    name: str,
    task: Task,
    grid: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Make a network of the registry, sized to a task.

    Parameters
    ----------
    name : str
        One of :func:`names`, in any case.
    task : Task
        Which variables, and how many steps in and out.
    grid : mapping, optional
        ``{"latitude": [...], "longitude": [...]}`` or the sizes ``{"y": H, "x": W}``: networks
        that know where their points are need it.
    settings : mapping, optional
        Arguments of the class, as JSON has them; the class's own otherwise.

    Returns
    -------
    torch.nn.Module
        Maps (B, T, C, H, W) to (B, T', C', H, W).

    Raises
    ------
    InputError
        If there is no such network, or the settings do not make one.
    """
    kind = network_class(name)
    try:
        return kind.for_task(task, grid, **(settings or {}))
    except (TypeError, ValueError) as error:
        raise InputError(f"its settings do not make a {_spelled(name)}: {error}") from error


def ready_network(
    model: str | nn.Module | Callable[[], nn.Module],
    task: Task,
    grid: Mapping[str, Any] | None,
    change: Tensor,
) -> nn.Module:
    """Make the network that is to be trained, and tell it how much the data typically change.

    Parameters
    ----------
    model
        As :func:`stforecast.fit` has it: a name, a network, or a function that makes one.
    task, grid
        As :func:`make_network` has them.
    change : Tensor of shape (T', C')
        Root of the mean square change up to each lead time, in standard deviations.

    Returns
    -------
    torch.nn.Module
        With the weights of its 2-D convolutions in channels-last memory: they are faster so.

    Raises
    ------
    InputError
        If `model` is none of these, or the network cannot forecast what the task says.
    """
    if isinstance(model, str) and _spelled(model):
        model = make_network(model, task, grid)
    network = model if isinstance(model, nn.Module) or not callable(model) else model()
    if not isinstance(network, nn.Module):
        raise InputError(
            f"model must be {' or '.join(repr(n.lower()) for n in names())}, a torch.nn.Module or "
            f"a function that makes one, found {model!r}"
        )
    for method, argument in (("check_task", task), ("set_tendency_std", change)):
        if hasattr(network, method):
            getattr(network, method)(argument)
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


def _spelled(name: str) -> str | None:
    """Return a name as the registry spells it."""
    return next((known for known in _NETWORKS if known.lower() == name.lower()), None)
