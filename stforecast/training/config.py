"""How a network is trained: all settings, checked."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..loading.feeds import BUFFER
from ..models.members import DRAWS, Draws

_CHOICES = {
    "loss": ("mse", "mae", "huber", "crps", "tau"),
    "optimizer": ("adam", "adamw", "muon"),
    "schedule": ("onecycle", "cosine", "constant"),
    "precision": ("auto", "fp32", "bf16"),
    "compile": ("auto", "always", "graphs", "never"),
    "rollout_gradients": ("through", "detached"),
    "feed": ("auto", "resident", "stream"),
    "storage": ("fp32", "bf16", "fp16"),
    "draws": DRAWS,
}
#: Whole numbers, and the smallest that each may be.
_LEAST = {
    "epochs": 1,
    "steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "members": 1,
    "warmup_epochs": 0,
    "validate_every": 1,
    "checkpoint_every": 1,
    "val_windows": 1,
    "patience": 1,
    "buffer": 1,
}


_MOST_ROLLOUT = 1000


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
        Passes over all training windows.
    steps : int, optional
        Optimiser steps in all, instead of `epochs`.
    batch_size : int
        Windows in a step, of all processes together.
    accumulate : int
        Passes in which the windows of a step are worked on, one after the other, where they do not
        fit the device at once. The gradient is of the mean over all of them. (Batch
        normalisation takes the statistics of each pass.)
    loss : {"mse", "mae", "huber", "crps", "tau"} or callable
        What the mean is taken of, in standard deviations of each variable. "crps" is for networks
        that give several members; "tau" is that of the Temporal Attention Unit
        (``SimVPv2(translator="tau")``): MSE and a divergence of the changes. A callable takes
        prediction and target and gives the loss at each point (see
        :mod:`stforecast.training.losses`); the run is known by the callable's name.
    members : int
        Members of each window that are drawn for the loss "crps"; 1: the network is no ensemble.
        See :class:`EnsembleConfig` for a training that begins with a trained network.
    draws : {"noise", "dropout"}
        How, with several `members`: see there.
    optimizer : {"adam", "adamw", "muon"}
        ``"muon"``: :class:`torch.optim.Muon` (torch 2.9 or later) for the matrices, 1 x 1
        convolutions among them, and AdamW for the rest.
    weight_decay : float
        L2 penalty of ``"adam"``; of the others, decay that is decoupled from the gradient
        (Loshchilov and Hutter, 2019).
    learning_rate : float
        The peak of the schedule.
    epsilon : float
        Of Adam and AdamW: what is added to the root of the mean squared gradient.
    schedule : {"onecycle", "cosine", "constant"}
        ``"onecycle"`` is PyTorch's, by step, with ``final_div_factor`` 1e4; ``"cosine"`` falls by
        epoch to 1e-6. Both as in the paper's code. ``"constant"`` is the peak all along.
    warmup_epochs : int
        Of ``"cosine"``: epochs in which the rate rises linearly from 1e-5 to the peak, in place of
        the fall's first ones.
    clip_norm : float, optional
        Scale gradients down to this norm where theirs, over all weights, is larger (Pascanu,
        Mikolov and Bengio, 2013).
    ema : float, optional
        Decay of a moving average of the weights (see :class:`stforecast.training.ema.Average`):
        0.999, say. The average is what is validated, kept as the best, and returned; the weights
        themselves train on.
    precision : {"auto", "fp32", "bf16"}
        Arithmetic of the network (the weights stay float32). ``"auto"``: bf16 where the device
        has instructions for it. A network whose weights are float64 computes in float64.
    compile : {"auto", "always", "graphs", "never"}
        Whether ``torch.compile`` makes the forward and backward pass. ``"auto"``: on a GPU, in
        runs of at least 2,000 steps, which pay for the minute or two that it takes, if the machine
        can compile. ``"graphs"``: replayed as CUDA graphs, which take the host out of small steps.
        On a CPU hand-written gradients are faster (see ``benchmarks/RECORDS.md``).
    rollout : int or sequence of (step, int)
        Applications of the network that the loss is over, each on the output before it: for
        forecasts that go on past the task's target steps. A schedule says from which optimiser
        step on it is how many, ``[(0, 1), (400, 2), (800, 4)]``. Windows are as long as the most
        ask for, and validation scores all of their target steps.
    rollout_gradients : {"through", "detached"}
        Whether gradients go through what is fed back, in memory for all applications at once, or
        each application learns by itself.
    area_weighted : bool
        Weight the loss by the cell's area. Beyond the paper.
    balance_leads : bool
        Divide the loss at each lead time by the typical change up to then, so that the first hours
        count for more than their small errors would. Beyond the paper.
    variable_weights : mapping or sequence of float, optional
        Weight the loss of each forecast variable, by name (others: 1) or in the task's order; only
        their proportions matter.
    where : callable, optional
        Takes the truth, in the data's units, and tells for every point of it whether it counts, in
        the loss and in validation, as of :func:`stforecast.evaluate`:
        ``stforecast.evaluation.Above(10)``. It is given tensors. What is forecast elsewhere is then
        of no account, a false alarm as little as there.
    validate_every : int, optional
        Steps between validations (and checkpoints); once an epoch unless given.
    checkpoint_every : int, optional
        Steps between checkpoints that are written beside those, within long epochs: what a killed
        run loses. The result is the same to the bit whatever this is.
    keep_checkpoints : sequence of int
        Steps whose checkpoints are written, and kept, besides the last two: what the network was
        like at these steps (:func:`stforecast.training.weights_at`).
    val_windows : int
        Windows of the validation period to score, evenly spread over it.
    patience : int, optional
        Stop after this many validations without a better score.
    minutes : float, optional
        Stop after this many minutes: finish the current step, write a checkpoint and return. The
        same call goes on from there.
    feed : {"auto", "resident", "stream"}
        All training data on the device, or streamed from where they are stored; ``"auto"`` goes by
        their size and the memory that is free, and logs what it chose.
    storage : {"fp32", "bf16", "fp16"}
        In what a resident feed keeps the data: see :func:`stforecast.loading.feeds.open_feed`.
    buffer : int
        Bytes of the shuffle buffer of a streaming feed.
    seed : int
        Initial weights, order of the windows, stochastic depth.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ...; a GPU if there is one unless given. Each of several processes
        takes a GPU of its own.

    Raises
    ------
    InputError
        If a setting is out of its range, or of another kind.
    """

    epochs: int = 50
    steps: int | None = None
    batch_size: int = 16
    accumulate: int = 1
    loss: Literal["mse", "mae", "huber", "crps", "tau"] | Callable[[Tensor, Tensor], Tensor] = "mse"
    members: int = 1
    draws: Draws = "noise"
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    weight_decay: float = 0.0
    learning_rate: float = 1e-3
    epsilon: float = 1e-8
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    warmup_epochs: int = 0
    clip_norm: float | None = None
    ema: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "always", "graphs", "never"] = "auto"
    rollout: int | Sequence[tuple[int, int]] = 1
    rollout_gradients: Literal["through", "detached"] = "through"
    area_weighted: bool = False
    balance_leads: bool = False
    variable_weights: Mapping[str, float] | Sequence[float] | None = None
    where: Callable[[Any], Any] | None = None
    validate_every: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: Sequence[int] = ()
    val_windows: int = 256
    patience: int | None = None
    minutes: float | None = None
    feed: Literal["auto", "resident", "stream"] = "auto"
    storage: Literal["fp32", "bf16", "fp16"] = "fp32"
    buffer: int = BUFFER
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            self._number(name, int, f"must be at least {least}", partial(operator.le, least))
        self._number("seed", int, "must be at least 0 and below 2**63", lambda n: 0 <= n < 2**63)
        self._number("weight_decay", float, "must be at least 0", lambda x: x >= 0)
        for name in ("learning_rate", "epsilon", "clip_norm", "minutes"):
            self._number(name, float, "must be positive", lambda x: x > 0)
        self._number("ema", float, "must lie between 0 and 1", lambda x: 0 < x < 1)
        for name in ("area_weighted", "balance_leads"):
            if not isinstance(value := getattr(self, name), bool | np.bool_):
                raise InputError(f"TrainConfig.{name} must be True or False, found {value!r}")
            object.__setattr__(self, name, bool(value))
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            named = isinstance(value, str) and value in allowed
            if not named and not (name == "loss" and callable(value)):
                more = ", or a function" if name == "loss" else ""
                raise InputError(
                    f"TrainConfig.{name} must be one of {', '.join(allowed)}{more}, found {value!r}"
                )
        object.__setattr__(self, "rollout", _rollout(self.rollout))
        object.__setattr__(self, "keep_checkpoints", _steps(self.keep_checkpoints))
        if self.members > 1 and isinstance(self.loss, str) and self.loss != "crps":
            raise InputError(
                f"TrainConfig.members={self.members} are for loss='crps', found {self.loss!r}: "
                "of the others the best members are all the same"
            )
        if (given := self.variable_weights) is not None:
            object.__setattr__(self, "variable_weights", _weights(given))
        if self.where is not None and not callable(self.where):
            raise InputError(
                f"TrainConfig.where must be a function of truth, such as Above(10), found "
                f"{self.where!r:.60}"
            )
        if self.device is not None:
            object.__setattr__(self, "device", _device(self.device))
        if self.feed == "stream" and self.storage != "fp32":
            raise InputError(
                f"TrainConfig.storage is {self.storage!r}, but a stream is float32: give "
                f"storage='fp32', or feed='resident'"
            )

    def _number(
        self, name: str, kind: Callable[[Any], float], words: str, holds: Callable[[Any], bool]
    ) -> None:
        """Check a number and keep it as Python's own: numpy's, too, are written to JSON then."""
        value = getattr(self, name)
        if value is None and type(self).__dataclass_fields__[name].default is None:
            return
        known = numbers.Integral if kind is int else numbers.Real
        if not isinstance(value, known) or isinstance(value, bool):
            whole = "a whole number" if kind is int else "a number"
            raise InputError(f"TrainConfig.{name} must be {whole}, found {value!r}")
        try:
            number: float = kind(value)
        except OverflowError:
            number = math.inf
        if not (holds(number) and number < math.inf):
            raise InputError(f"TrainConfig.{name} {words}, found {number}")
        object.__setattr__(self, name, number)

    @property
    def most_applications(self) -> int:
        """The most applications that :attr:`rollout` asks for."""
        one = self.rollout
        return one if isinstance(one, int) else max(k for _, k in one)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values; a callable by its qualified name."""
        out = asdict(self)
        if self.rollout == 1:  # a run that was begun before there was such a setting goes on
            del out["rollout"], out["rollout_gradients"]
        if not self.keep_checkpoints:
            del out["keep_checkpoints"]
        if callable(self.loss):
            out["loss"] = _name(self.loss)
        if self.where is None:
            del out["where"]
        else:  # the class of one with a limit does not tell which
            told = type(self.where).__str__ is not object.__str__
            out["where"] = str(self.where) if told else _name(self.where)
        return out


def _name(function: Callable[..., Any]) -> str:
    """What a function is called, and where it is defined."""
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _rollout(given: Any) -> int | list[tuple[int, int]]:
    """The applications of each step, as Python's own numbers."""
    one = not isinstance(given, Sequence) or isinstance(given, str)
    try:
        pairs = [(0, given)] if one else [(step, number) for step, number in given]
        flat = [n for pair in pairs for n in pair]
        if any(isinstance(n, bool) for n in flat):
            raise TypeError
        pairs = [(operator.index(step), operator.index(number)) for step, number in pairs]
    except (TypeError, ValueError):
        pairs = []
    ordered = all(a[0] < b[0] for a, b in pairwise(pairs))
    if not (pairs and ordered and all(s >= 0 and 1 <= k <= _MOST_ROLLOUT for s, k in pairs)):
        raise InputError(
            f"TrainConfig.rollout must be a number of applications, from 1 to {_MOST_ROLLOUT}, or "
            f"say from which step on it is how many, [(0, 1), (400, 4)], found {given!r:.80}"
        )
    return pairs[0][1] if one else pairs


def _steps(given: Any) -> tuple[int, ...]:
    """Steps of a run in their order, each once."""
    steps = list(given) if isinstance(given, Sequence | Set) and not isinstance(given, str) else [0]
    if not all(
        isinstance(n, numbers.Integral) and type(n) is not bool and int(n) > 0 for n in steps
    ):
        raise InputError(
            f"TrainConfig.keep_checkpoints must be steps, whole numbers from 1 on, found {given!r}"
        )
    return tuple(sorted(set(map(int, steps))))


def _weights(given: Any) -> dict[str, float] | list[float]:
    """The weights of variables as Python's own numbers."""
    named = isinstance(given, Mapping)
    try:
        each = [float(weight) for weight in (given.values() if named else given)]
    except (TypeError, ValueError, OverflowError):
        each = []
    if isinstance(given, str) or (named and not all(isinstance(name, str) for name in given)):
        each = []
    if not (all(0 <= weight < math.inf for weight in each) and any(each)):
        raise InputError(
            f"TrainConfig.variable_weights must be finite, not negative, and not all 0, found "
            f"{given!r}"
        )
    return dict(zip(given, each, strict=True)) if named else each


def _device(given: Any) -> str:
    """The name of a device that torch knows; whether it is there is asked when it is used."""
    why = ""
    if isinstance(given, str | torch.device):
        try:
            return str(torch.device(given))
        except RuntimeError as error:
            why = f" ({str(error).splitlines()[0]})"
    raise InputError(
        f"TrainConfig.device must be a device of torch, such as 'cpu' or 'cuda', found "
        f"{given!r}{why}"
    )
