"""The networks that the paper compares with, in its pipelines: small forms, and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

from ..errors import InputError
from ..task import Task

_STACKED = {"hidden": (32, 32), "kernel": 3}
#: Settings of the fast preset's network, in place of the benchmark's own.
SMALL: dict[str, Mapping[str, Any]] = {
    "ConvLSTM": _STACKED,
    "CrevNet": {"blocks": (1, 1, 1), "layers": 2},
    "E3DLSTM": {"hidden": (32, 32), "kernel": 3},
    "MAU": {"hidden": (32, 32)},
    "MIM": _STACKED,
    "MMVP": {"encoder_channels": 8, "predictor_channels": 24},
    "PhyDNet": {"width": 16, "hidden": (32,)},
    "PredRNN": _STACKED,
    "PredRNNpp": _STACKED,
    "PredRNNv2": _STACKED,
    "SwinLSTM-B": {"width": 32, "depth": 2, "heads": 2},
    "SwinLSTM-D": {"width": 16, "down": (1, 1), "up": (1, 1), "heads": (2, 4)},
}
# Peak learning rates of the public code's configurations; None: it has none.
_BENCHMARKS = ("moving_mnist", "taxibj", "weatherbench_t2m", "kth", "caltech")
_RATES: dict[str, tuple[float | None, ...]] = {
    "ConvLSTM": (5e-4, 5e-4, 5e-4, 1e-3, 5e-3),
    "PredRNN": (5e-4, 1e-4, 5e-4, 1e-3, 1e-2),
    "PredRNNpp": (1e-4, 1e-4, 5e-4, 1e-3, 5e-3),
    "PredRNNv2": (5e-4, 5e-4, 5e-4, 1e-3, 1e-3),
    "MIM": (5e-4, 1e-2, None, 1e-4, 1e-2),
    "E3DLSTM": (1e-4, 5e-3, None, 5e-4, 2.5e-3),
    "PhyDNet": (1e-3, 5e-4, 1e-4, 1e-3, 5e-3),
    "MAU": (1e-3, 1e-3, 1e-4, 5e-4, 1e-3),
    "SwinLSTM-D": (1e-4, None, None, None, None),
    "MMVP": (1e-3, None, None, 1e-3, None),
    "CrevNet": (5e-3, None, None, None, None),
}
# As the tables print them: SimVPv2 by its translator; and of networks what the registry spells
# otherwise.
_TRANSLATORS = {
    "gsta": "SimVPv2",
    "incepu": "SimVP",
    "tau": "TAU",
    "vit": "ViT",
    "swin": "Swin",
    "poolformer": "PoolFormer",
    "mlpmixer": "MLP-Mixer",
    "convmixer": "ConvMixer",
    "van": "VAN",
    "moganet": "MogaNet",
    "hornet": "HorNet",
    "convnext": "ConvNeXt",
    "uniformer": "Uniformer",
}
_PRINTED = {"PredRNNpp": "PredRNN++", "E3DLSTM": "E3D-LSTM"}
_DEFAULT_RATE = 1e-3  # the public code's
_ROBOTS_RATE = 1e-4  # RoboNet, BridgeData: PredBench's, of all


def as_printed(options: Any) -> bool:
    """Whether a graph network is asked for as it was printed.

    Parameters
    ----------
    options : BenchmarkOptions

    Returns
    -------
    bool
    """
    from ..models.registry import network_class

    return options.preset == "paper" and hasattr(network_class(options.model), "printed")


def training_of(model: str, benchmark: str, *, paper: bool) -> dict[str, Any]:
    """What of a benchmark's training is the network's own.

    Parameters
    ----------
    model : str
        Key of ``SMALL``.
    benchmark : str
        Key of ``RECIPES``.
    paper : bool
        Whether it is the paper's preset. Where no configuration has the network, and in the fast
        preset, the learning rate is the public code's default, 1e-3. The fast preset's loss is the
        squared error: by the absolute one MAU, PhyDNet and SwinLSTM-D learn nothing of flows.

    Returns
    -------
    dict
        Settings of :class:`stforecast.TrainConfig`.
    """
    if not paper:
        return {"learning_rate": _DEFAULT_RATE, "loss": "mse"}
    if benchmark not in _BENCHMARKS:
        return {"learning_rate": _ROBOTS_RATE}
    rates = dict(zip(_BENCHMARKS, _RATES.get(model, (None,) * 5), strict=True))
    training: dict[str, Any] = {"learning_rate": rates[benchmark] or _DEFAULT_RATE}
    if (model, benchmark) == ("E3DLSTM", "caltech"):
        training["batch_size"] = 4
    return training


def network_of(
    model: str,
    benchmark: str,
    paper: bool,
    size: str,
    task: Task | None,
    grid: tuple[int, ...] | None,
) -> Callable[[], Any]:
    """What makes the network of a benchmark.

    Parameters
    ----------
    model, benchmark, paper
        As of :func:`training_of`.
    size : {"S", "M", "L"}
        Of ConvLSTM.
    task : Task, optional
        Whose frames may have more channels, or whose windows other lengths than the benchmark's.
    grid : (int, int), optional
        Height and width of the fields, for weights that belong to positions.

    Returns
    -------
    callable

    Raises
    ------
    InputError
        If the network has no such size.
    """
    from ..models.registry import network_class
    from ..models.sizing import of_task

    if size != "S" and model != "ConvLSTM":
        raise InputError(f"sizes M and L are of SimVPv2 and ConvLSTM, found model {model!r}")
    settings: dict[str, Any] = {} if paper or size != "S" else dict(SMALL[model])
    kind: Any = network_class(model)
    if not paper and benchmark != "moving_mnist" and kind.changes:  # as SimVPv2's fast preset
        settings["predict_change"] = True
    if size != "S":
        settings["size"] = size
    if not paper and benchmark == "weatherbench_t2m":
        settings["circular_longitude"] = True
    if task is not None:
        settings |= of_task(task)
    if grid is not None:
        settings["grid"] = grid
    return partial(kind.for_benchmark, benchmark, **settings)


def models_of(given: Sequence[str], published: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options that make models, by the names that tables print.

    Parameters
    ----------
    given : sequence of str
        Names, or several in one with commas between; ``"all"``.
    published : sequence of str
        Models of the benchmark's table: what all of them are.

    Returns
    -------
    dict of str to dict
        Settings of :class:`BenchmarkOptions` in the order given, each once.

    Raises
    ------
    InputError
        If there is no such model; all that there are are named.
    """
    from ..models.registry import names as networks

    known: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in networks():
        known[_plain(name)] = _PRINTED.get(name, name), {"model": name}
    for translator, printed in _TRANSLATORS.items():
        found: dict[str, Any] = {"model": "SimVPv2", "translator": translator}
        found |= {"loss": "tau"} if translator == "tau" else {}
        for name in (translator, printed):
            known[_plain(name)] = printed, found
    names = [name for text in given for name in text.split(",") if name.strip()]
    if [n.strip().lower() for n in names] == ["all"]:
        names = ["SimVPv2", *(m for m in published if _plain(m) in known)]
    if wrong := [name for name in names if _plain(name) not in known]:
        shown = ", ".join(sorted({printed for printed, _ in known.values()}, key=str.lower))
        raise InputError(f"no model {', '.join(wrong)}: there are {shown}; and all")
    if not names:
        raise InputError("--models names none")
    return dict(known[_plain(name)] for name in names)


def translators_of(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options that make SimVPv2 with one translator or another, by the names that tables print.

    Parameters
    ----------
    given : sequence of str
        As of :func:`models_of`; ``"all"``: all translators that there are.

    Returns
    -------
    dict of str to dict
        As of :func:`models_of`.

    Raises
    ------
    InputError
        If there is no such model, or it is another network.
    """
    everything = [name.strip().lower() for name in given] == ["all"]
    found = models_of(list(_TRANSLATORS) if everything else given, [])
    if other := [name for name, form in found.items() if "translator" not in form]:
        raise InputError(
            f"{', '.join(other)}: another network, not SimVPv2 with a translator, expected of "
            f"{', '.join(_TRANSLATORS)}; stforecast compare takes any network"
        )
    return found


def weaned(network: Any, steps: int, task: Task, grid: Any) -> Any:
    """A graph network by name with a curriculum that ends within the training, where it has one.

    Parameters
    ----------
    network : str or callable
        What makes it, which is given back where there is nothing to change.
    steps : int
        Of the training. The papers' curriculum goes on for 15,000, and a network that has hardly
        met its own output goes astray on it: here truth is fed to half at a quarter of the steps.
    task : Task
    grid : Grid

    Returns
    -------
    str or callable
    """
    from ..models.registry import make_network, network_class

    if not isinstance(network, str):
        return network
    default = signature(network_class(network)).parameters.get("curriculum_decay")
    k = getattr(default, "default", None)
    if not k or k * math.log(k) <= steps / 4:
        return network
    shorter = 1 + steps / 4
    for _ in range(50):  # Newton's steps to where k ln k is a quarter of the steps
        shorter = (shorter + steps / 4) / (math.log(shorter) + 1)
    return partial(make_network, network, task, grid.to_dict(), {"curriculum_decay": shorter})


def _plain(name: str) -> str:
    return name.strip().lower().replace("+", "p").replace("_", "").replace("-", "")
