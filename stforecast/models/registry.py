"""Networks by name, sized to a task and a grid. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..task import Task
from .surroundings import Outline, own_defaults

#: Where each network is. A bundle has its name, and a file of weights must not import what it
#: likes: only what stands here is made from a bundle.
_NETWORKS = {
    "SimVPv2": "stforecast.models.simvp:SimVPv2",
    "ConvLSTM": "stforecast.models.recurrent.convlstm:ConvLSTM",
    "E3DLSTM": "stforecast.models.recurrent.e3d_lstm:E3DLSTM",
    "MIM": "stforecast.models.recurrent.mim:MIM",
    "PredRNN": "stforecast.models.recurrent.predrnn:PredRNN",
    "PredRNNpp": "stforecast.models.recurrent.predrnn_pp:PredRNNpp",
    "PredRNNv2": "stforecast.models.recurrent.predrnn_v2:PredRNNv2",
    "AGCRN": "stforecast.models.graph.agcrn:AGCRN",
    "ASTGCN": "stforecast.models.graph.astgcn:ASTGCN",
    "CLCRN": "stforecast.models.graph.clcrn:CLCRN",
    "CLCSTN": "stforecast.models.graph.clcstn:CLCSTN",
    "DCRNN": "stforecast.models.graph.dcrnn:DCRNN",
    "GCGRU": "stforecast.models.graph.gcgru:GCGRU",
    "MSTGCN": "stforecast.models.graph.mstgcn:MSTGCN",
    "STGCN": "stforecast.models.graph.stgcn:STGCN",
    "TGCN": "stforecast.models.graph.tgcn:TGCN",
    "CrevNet": "stforecast.models.recurrent.crevnet:CrevNet",
    "MAU": "stforecast.models.recurrent.mau:MAU",
    "MMVP": "stforecast.models.recurrent.mmvp:MMVP",
    "PhyDNet": "stforecast.models.recurrent.phydnet:PhyDNet",
    "SwinLSTM-B": "stforecast.models.recurrent.swin_lstm:SwinLSTMB",
    "SwinLSTM-D": "stforecast.models.recurrent.swin_lstm:SwinLSTMD",
}


def names() -> tuple[str, ...]:
    """Names of the networks that :func:`make_network` makes, in alphabetical order."""
    return tuple(sorted(_NETWORKS, key=str.lower))


def is_own(name: str) -> bool:
    """Whether a network is this library's, which :func:`outline` can lay out."""
    return _NETWORKS[name].startswith("stforecast.")


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
    known = spelled(name)
    if known is not None and _NETWORKS[known] != home:
        raise InputError(f"there is a network {known!r} already, found {name!r}: choose another")
    _NETWORKS[known or name] = home


def name_of(network: nn.Module) -> str:
    """Name of a network in the registry, or of its class if it is not registered."""
    kind = type(network)
    home = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, place in _NETWORKS.items() if place == home), kind.__name__)


def network_class(name: str) -> Any:
    """Import the class of a network by its name: in any case, with or without hyphens.

    A class has ``for_task(task, grid, **settings)``, which makes the network, whose attribute
    ``settings`` is a dict for JSON: ``for_task(task, grid, **network.settings)`` makes the same
    one. Its ``forward`` maps (B, T, C, H, W) to (B, T', C', H, W). It may have

    - ``check_task(task)``, which raises an InputError where it cannot forecast that;
    - ``check_grid(grid)``, which raises an InputError where its points are others;
    - ``set_tendency_std(change)``, told the root mean square change (T', C') up to each lead time,
      in standard deviations, before training;
    - ``fit_first_guess(pairs)``, shown inputs and targets of some windows before training;
    - ``set_output_range(low, high)``, told the least and the greatest value (C',) of each channel
      in the training period, in standard deviations, before training: for networks whose output is
      bounded. What it keeps of them is a buffer named ``output_range``;
    - ``folded(dtype)``, a quick form for forecasts on a CPU, or None;
    - ``compiles = True``, where ``torch.compile`` pays for many forecasts on a GPU.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    known = spelled(name)
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
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise InputError(f"its settings do not make a {spelled(name)}: {error}") from error


def outline(
    name: str,
    task: Task,
    grid: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, torch.Size]:
    """Shapes of all that :func:`make_network` would make, in no time and without its memory.

    Parameters and errors are those of :func:`make_network`.
    """
    with own_defaults("meta"), Outline():
        tensors = make_network(name, task, grid, settings).state_dict()
    return {k: v.shape for k, v in tensors.items()}


def misfit(network: Mapping[str, Sequence[int]], file: Mapping[str, Sequence[int]]) -> str:
    """Say where the tensors of a file are not those of a network; empty where they are.

    Parameters
    ----------
    network, file : mapping of str to shape
        By the names of the tensors.
    """
    shapes = [
        f"{k}: file {tuple(file[k])}, network {tuple(shape)}"
        for k, shape in network.items()
        if k in file and tuple(file[k]) != tuple(shape)
    ]
    missing, extra = sorted(set(network) - set(file)), sorted(set(file) - set(network))
    parts = (("missing", missing), ("not in the network", extra), ("other shapes", shapes))
    return "; ".join(f"{n} {what}: {', '.join(v[:4])}" for what, v in parts if (n := len(v)))


def ready_network(
    model: str | nn.Module | Callable[[], nn.Module],
    task: Task,
    grid: Mapping[str, Any] | None,
    change: Tensor,
    extremes: Callable[[], tuple[Tensor, Tensor]] | None = None,
) -> nn.Module:
    """Make the network that is to be trained, and tell it what it wants to know of the data.

    Parameters
    ----------
    model
        As :func:`stforecast.fit` has it: a name, a network, or a function that makes one.
    task, grid
        As :func:`make_network` has them.
    change : Tensor of shape (T', C')
        Root of the mean square change up to each lead time, in standard deviations.
    extremes : callable, optional
        Gives the least and the greatest value (C',), in standard deviations. It is called for a
        network with ``set_output_range`` only: it takes a pass over the data.

    Returns
    -------
    torch.nn.Module
        With the weights of its 2-D convolutions in channels-last memory: they are faster so.

    Raises
    ------
    InputError
        If `model` is none of these, or the network cannot forecast what the task says.
    """
    if isinstance(model, str) and spelled(model):
        model = make_network(model, task, grid)
    network = model if isinstance(model, nn.Module) or not callable(model) else model()
    if not isinstance(network, nn.Module):
        raise InputError(
            f"model must be {' or '.join(repr(n.lower()) for n in names())}, a torch.nn.Module or "
            f"a function that makes one, found {model!r}"
        )
    for method, argument in (
        ("check_task", task),
        ("check_grid", grid),
        ("set_tendency_std", change),
    ):
        if hasattr(network, method):
            getattr(network, method)(argument)
    told = getattr(network, "set_output_range", None)
    if told is not None and extremes is not None:
        told(*extremes())
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


def spelled(name: str) -> str | None:
    """A name as the registry spells it; None if there is no such network."""
    return next((known for known in _NETWORKS if _plain(known) == _plain(name)), None)


def _plain(name: str) -> str:
    """A name in small letters: PredRNN++, predrnn_pp and PredRNN-PP are PredRNNpp."""
    return name.lower().replace("+", "p").replace("_", "").replace("-", "")
