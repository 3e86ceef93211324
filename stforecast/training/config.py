"""How a network is trained: all settings, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from ..loading.feeds import BUFFER


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
        fit the device at once. The gradient is that of the mean over all of them. (Batch
        normalisation takes the statistics of each pass.)
    learning_rate : float
        The peak of the schedule.
    schedule : {"onecycle", "cosine"}
        ``"onecycle"`` is PyTorch's, by step, with ``final_div_factor`` 1e4; ``"cosine"`` falls by
        epoch to 1e-6. Both as in the paper's code.
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
    compile : {"auto", "always", "never"}
        Whether ``torch.compile`` makes the network's forward and backward pass. ``"auto"``: on a
        GPU, in runs of at least 2,000 steps, which pay for the minute or two that it takes. On a
        CPU hand-written gradients are faster (see ``benchmarks/RECORDS.md``).
    area_weighted : bool
        Weight the squared error by the cell's area. Beyond the paper.
    balance_leads : bool
        Divide the squared error at each lead time by the typical change up to then, so that the
        first hours count for more than their small errors would. Beyond the paper.
    validate_every : int, optional
        Steps between validations (and checkpoints); once an epoch unless given.
    checkpoint_every : int, optional
        Steps between checkpoints that are written beside those, within long epochs. What a killed
        run loses; its result is the same to the bit whatever this is.
    val_windows : int
        Windows of the validation period to score, evenly spread over it.
    patience : int, optional
        End the training after so many validations without a better score.
    minutes : float, optional
        End this call after so long (when the step is done), with a checkpoint. The same call goes
        on from there.
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
    """

    epochs: int = 50
    steps: int | None = None
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-3
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    warmup_epochs: int = 0
    clip_norm: float | None = None
    ema: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "always", "never"] = "auto"
    area_weighted: bool = False
    balance_leads: bool = False
    validate_every: int | None = None
    checkpoint_every: int | None = None
    val_windows: int = 256
    patience: int | None = None
    minutes: float | None = None
    feed: Literal["auto", "resident", "stream"] = "auto"
    storage: Literal["fp32", "bf16", "fp16"] = "fp32"
    buffer: int = BUFFER
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "accumulate", "val_windows", "buffer")
        for name in (*counts, "steps", "validate_every", "checkpoint_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"TrainConfig.{name} must be at least 1, found {value}")
        if self.warmup_epochs < 0:
            raise InputError(
                f"TrainConfig.warmup_epochs must be at least 0, found {self.warmup_epochs}"
            )
        for name in ("learning_rate", "clip_norm", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"TrainConfig.{name} must be positive, found {value}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(f"TrainConfig.ema must lie between 0 and 1, found {self.ema}")
        for name, allowed in (
            ("schedule", ("onecycle", "cosine")),
            ("precision", ("auto", "fp32", "bf16")),
            ("compile", ("auto", "always", "never")),
            ("feed", ("auto", "resident", "stream")),
            ("storage", ("fp32", "bf16", "fp16")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"TrainConfig.{name} must be one of {', '.join(allowed)}, "
                    f"found {getattr(self, name)!r}"
                )
        if self.feed == "stream" and self.storage != "fp32":
            raise InputError(
                f"TrainConfig.storage is {self.storage!r}, but a stream is float32: give "
                f"storage='fp32', or feed='resident'"
            )
