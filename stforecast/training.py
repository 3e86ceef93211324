"""Training: one plain loop that reads from top to bottom.

What happens in a step is in :func:`fit`; what a checkpoint holds, in :mod:`stforecast.checkpoints`;
in which order windows are shown, in :mod:`stforecast.feeds`; how several processes train as one, in
:mod:`stforecast.distributed`.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from . import conventions
from ._reading import Source
from ._schedule import schedule
from ._starting import carry_over, loss_weights, make_network, provenance, units
from ._statistics import statistics
from ._validation import Validation
from .averaging import Average
from .checkpoints import Run
from .conventions import InputError
from .distributed import Shared, World, all_sum, joined
from .errors import DivergenceError
from .feeds import BUFFER, Feed, open_feed, suited
from .forecaster import Forecaster, checksum
from .journal import Journal
from .windows import Task

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger(__name__)

#: Steps on a GPU from which ``torch.compile`` pays.
_WORTH_COMPILING = 2000
#: Steps between reports of the loss: on a GPU, between the moments in which the host waits for it.
_REPORT_EVERY = 50


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
        Decay of a moving average of the weights (see :class:`stforecast.averaging.Average`):
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
    valid_windows : int
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
        In what a resident feed keeps the data: see :func:`stforecast.feeds.open_feed`.
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
    valid_windows: int = 256
    patience: int | None = None
    minutes: float | None = None
    feed: Literal["auto", "resident", "stream"] = "auto"
    storage: Literal["fp32", "bf16", "fp16"] = "fp32"
    buffer: int = BUFFER
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "accumulate", "valid_windows", "buffer")
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


def fit(
    ds: xr.Dataset,
    task: Task,
    *,
    model: str | nn.Module | Callable[[], nn.Module] = "simvpv2",
    config: TrainConfig | None = None,
    valid: xr.Dataset | None = None,
    init: str | os.PathLike[str] | Forecaster | None = None,
    init_time: Any = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: Literal["auto", "never"] = "auto",
    progress: bool | Callable[[dict[str, Any]], None] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Forecaster:
    """Train a forecaster on a data set.

    Started by ``torchrun``, its processes share every batch and return the same forecaster: the
    one that a single process would give, to rounding, where the data are resident.

    Parameters
    ----------
    ds : xarray.Dataset
        The training period; normalisation comes from it alone.
    task : Task
        What to forecast from what.
    model : "simvpv2", torch.nn.Module or callable
        The paper's network for WeatherBench, sized to the task; or any module
        (B, T, C, H, W) -> (B, T', C', H, W); or a function that makes one, whose initial weights
        then follow from ``config.seed``.
    config : TrainConfig, optional
        How to train.
    valid : xarray.Dataset, optional
        The validation period: the weights with the smallest error on it are the ones returned.
        Without it the last ones are. The test period has no business here.
    init : Forecaster or path-like, optional
        A trained forecaster, or its bundle, to start from: weights that fit by name and shape are
        carried over, whatever its grid, variables and steps. What was not is logged, and in
        ``training["init"]`` of the result.
    init_time : array of times, optional
        Train on the windows whose last input step is at one of these, in place of all there are.
    run_dir : path-like, optional
        Where to keep checkpoints and ``history.jsonl`` (see :mod:`stforecast.checkpoints`), and
        what :mod:`stforecast.journal` tells; without it nothing is written.
    resume : {"auto", "never"}
        ``"auto"`` goes on from the last checkpoint in `run_dir`; ``"never"`` starts anew.
    progress : bool or callable, optional
        Show a progress bar; one is shown in a terminal and in Jupyter unless told otherwise. Or a
        function, called after each step with ``step``, ``steps``, ``samples``, every so often
        ``loss``, and after a validation ``valid_rmse``.
    about : mapping, optional
        More to record in the bundle: a ``command``, say.

    Returns
    -------
    Forecaster
        With the best weights so far. Where training ended before the last step,
        ``training["stopped"]`` says ``why`` ("minutes" or "patience") and after which ``step``.

    Raises
    ------
    InputError
        If the data do not fit the task; or nothing of `init` fits the network; or `run_dir` holds a
        different run, or one that goes on in another process, or no checkpoint that is whole, or
        cannot be written.
    DivergenceError
        If the loss, or a weight, is no longer finite.
    RankLostError
        If another process of ``torchrun`` has ended.
    KeyboardInterrupt
        After Ctrl-C, once the step is done and a checkpoint is written; a second one stops at once.
    """
    config, began = config or TrainConfig(), time.monotonic()
    if config.patience and valid is None:
        raise InputError(f"patience={config.patience} needs a validation period: give fit(valid=)")
    with ExitStack() as stack:
        world = stack.enter_context(joined(config.device))
        device = world.device

        # Data: batches on the device, and their statistics.
        source, feed_of = Source(ds, task), partial(_feed, config=config, world=world)
        feed = stack.enter_context(feed_of(source, init_time=init_time))
        steps = config.steps or config.epochs * feed.steps_per_epoch
        every = config.validate_every or feed.steps_per_epoch
        mean, std, change = world.from_main(lambda: statistics(feed))

        # The network, the same on all ranks, and random numbers of each rank's own.
        stack.enter_context(
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        )
        torch.manual_seed(config.seed)
        network = make_network(model, task, change / std[feed.targets])
        about = dict(about or {})
        if init is not None:
            about["init"] = carry_over(network, init)
        if world.rank:
            torch.manual_seed(config.seed + 2**32 * world.rank)
        forecaster = Forecaster(
            network,
            task,
            mean=mean,
            std=std,
            grid=conventions.grid_of(source.ds),
            variables=units(source.ds, task),
            training=provenance(source.ds, config, steps, about)
            | {"fingerprint": checksum({"mean": mean, "std": std, "change": change})[:16]},
        ).to(device)
        norm, dtype, masked = forecaster.normalizer, forecaster.dtype, task.nan == "mask"
        half = dtype == torch.float32 and (
            config.precision == "bf16" or (config.precision == "auto" and has_bf16(device))
        )
        weights = loss_weights(config, task, source.ds, change).to(device, dtype)
        optimizer = torch.optim.Adam(
            network.parameters(), lr=config.learning_rate, fused=device.type == "cuda"
        )
        call: Callable[[Tensor], Tensor] = network
        if config.compile == "always" or (
            config.compile == "auto" and device.type == "cuda" and steps >= _WORTH_COMPILING
        ):
            call = torch.compile(network, dynamic=False)
        shared = stack.enter_context(Shared(network, world, call))
        average = Average(network, config.ema)
        checker = None
        if valid is not None:
            one = partial(feed_of, windows=config.valid_windows, shuffle=False, storage="fp32")
            checker = Validation(valid, forecaster, one, device)
            forecaster.training["validation_period"] = checker.period

        # From its last checkpoint, if it has one: the step says all about the feed and the rate.
        run = Run(run_dir, forecaster, optimizer, average, config, feed, steps, resume, world)
        interrupted = stack.enter_context(_interruptible())
        stack.enter_context(run)
        report = stack.enter_context(_reporting(progress if world.is_main else False))
        journal = stack.enter_context(
            Journal(run_dir if world.is_main else None, run.description, step=run.step)
        )
        stack.enter_context(world.watched())
        loss_sum, losses, meter = run.loss_sum, run.losses, _Meter(feed, run.step)
        network.train()
        for step in range(run.step, steps):
            if config.patience and run.stale >= config.patience:
                forecaster.training["stopped"] = {"why": "patience", "step": step, "steps": steps}
                break

            # This rank's windows, on the device, in physical units; normalised there.
            with meter.waiting():
                x, y = feed.batch(step)
            x, y = forecaster.encode(x).to(dtype), norm(y, feed.targets).to(dtype)
            points = _points(y, feed.size(step), masked=masked)

            # Gradients of the mean square error of the whole step: of all passes, of all ranks.
            passes = min(config.accumulate, math.ceil(feed.size(step) / world.size))
            for inputs, targets, weight in shared.micro_batches(x, y, passes):
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    prediction = shared(inputs)
                loss = _squares(prediction.to(dtype), targets, weights, masked=masked) / points
                loss = loss * weight
                (loss * world.size).backward()  # DDP takes the mean over the ranks
                loss_sum = loss_sum + loss.detach()
            losses += 1

            rate, beta = schedule(config, step, steps, feed.steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = rate, (beta, 0.999)
            if config.clip_norm:
                grad_norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(step)

            # Report, validate, keep: nothing above makes the host wait for a GPU.
            last, due = step + 1 == steps, (step + 1) % every == 0 or step + 1 == steps
            late = config.minutes is not None and time.monotonic() - began >= 60 * config.minutes
            stop = world.largest(2 if interrupted() else 1 if late else 0)
            event: dict[str, Any] = {"step": step + 1, "steps": steps, "samples": feed.size(step)}
            if due or losses == _REPORT_EVERY:
                mean_loss = float(all_sum(loss_sum.clone())) / losses
                if not math.isfinite(mean_loss):
                    raise DivergenceError(
                        f"the loss is {mean_loss} at step {step + 1} (learning rate {rate:.2g}, "
                        f"precision {'bf16' if half else 'fp32'}); try a lower learning_rate "
                        f"or precision='fp32'. The last good checkpoint is kept"
                    )
                event["loss"] = mean_loss
                loss_sum, losses = torch.zeros_like(loss_sum), 0
            if due:
                event["learning_rate"] = rate
                with average.applied():
                    if checker is not None:
                        event |= checker()
                    run.record(event)
                network.train()
            if "loss" in event:  # before the checkpoint, that goes on after it
                line = {**event, "learning_rate": rate, "samples": feed.shown(step + 1)}
                line |= {"seconds": run.seconds, **meter.read(step + 1)}
                if config.clip_norm:
                    line["grad_norm"] = float(grad_norm)
                journal.note(line)
            if due or stop or (step + 1) % (config.checkpoint_every or every) == 0:
                run.checkpoint(step + 1, loss_sum, losses)
            report(event)
            if stop == 2 and not last:
                where = f"; the same call goes on from {run.directory}" if run.directory else ""
                raise KeyboardInterrupt(f"stopped after step {step + 1} of {steps}{where}")
            if stop and not last:
                forecaster.training["stopped"] = {
                    "why": "minutes",
                    "step": step + 1,
                    "steps": steps,
                }
                break

    run.take_best()
    forecaster.training["validation"] = run.best
    network.eval()
    return forecaster


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 2)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _feed(source: Source, *, config: TrainConfig, world: World, **options: Any) -> Feed:
    storage = options.pop("storage", config.storage)
    kind = config.feed
    if kind == "auto":
        here = world.local_size if world.device.type == "cpu" else 1
        kind = world.from_main(
            lambda: suited(source, world.device, storage=storage, processes=here)
        )
        if kind == "stream" and storage != "fp32":
            logger.warning("a stream is float32: storage=%r has no effect", storage)
            storage = "fp32"
    return open_feed(
        source,
        source.task,
        config.batch_size,
        feed=kind,
        storage=storage,
        buffer=config.buffer,
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
        device=world.device,
        **options,
    )


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


class _Meter:
    """The speed since the last report, and how much of the time was spent on waiting for data."""

    def __init__(self, feed: Feed, step: int) -> None:
        self._feed, self._step, self._since, self._waited = feed, step, time.monotonic(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

    def read(self, step: int) -> dict[str, float]:
        """What was measured since the last reading, up to `step` steps."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        samples = self._feed.shown(step) - self._feed.shown(self._step)
        found = {"samples_per_s": samples / seconds, "waiting": self._waited / seconds}
        self._step, self._since, self._waited = step, time.monotonic(), 0.0
        return found


@contextmanager
def _reporting(
    progress: bool | Callable[[dict[str, Any]], None] | None,
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Where the steps are reported to: a function, a progress bar, or nowhere."""
    if callable(progress):
        yield progress
    elif progress or (progress is None and (sys.stderr.isatty() or _in_jupyter())):
        from .cli import progress_bar

        with progress_bar("training") as update:
            yield update
    else:
        yield lambda event: None


def _in_jupyter() -> bool:
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and kernel.IPKernelApp.initialized()


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C (and SIGTERM) ask for a stop; a second one stops at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        logger.warning("stopping after this step; press Ctrl-C again to stop at once")

    try:
        old = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
