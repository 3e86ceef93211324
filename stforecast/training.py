"""Training: one plain loop that reads from top to bottom."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from . import conventions, metrics
from ._reading import Source
from .checkpoints import Run
from .conventions import InputError
from .errors import DivergenceError
from .feeds import BUFFER, Feed, open_feed
from .forecaster import Forecaster
from .models import SimVPv2
from .windows import Task

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger(__name__)

#: Steps on a GPU from which ``torch.compile`` pays.
_WORTH_COMPILING = 2000


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
        Windows in a step.
    learning_rate : float
        The peak of the schedule.
    schedule : {"onecycle", "cosine"}
        ``"onecycle"`` is PyTorch's, by step, with ``final_div_factor`` 1e4; ``"cosine"`` falls by
        epoch to 1e-6. Both as in the paper's code.
    warmup_epochs : int
        Of ``"cosine"``: epochs in which the rate rises linearly from 1e-5 to the peak, in place of
        the fall's first ones.
    precision : {"auto", "fp32", "bf16"}
        Arithmetic of the network (the weights stay float32). ``"auto"``: bf16 where the device
        has instructions for it.
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
    feed : {"auto", "resident", "stream"}
        All training data on the device, or streamed from where they are stored; ``"auto"`` goes by
        their size and the memory that is free, and logs what it chose.
    buffer : int
        Bytes of the shuffle buffer of a streaming feed.
    seed : int
        Initial weights, order of the windows, stochastic depth.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ...; a GPU if there is one unless given.
    """

    epochs: int = 50
    steps: int | None = None
    batch_size: int = 16
    learning_rate: float = 1e-3
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    warmup_epochs: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "always", "never"] = "auto"
    area_weighted: bool = False
    balance_leads: bool = False
    validate_every: int | None = None
    checkpoint_every: int | None = None
    valid_windows: int = 256
    feed: Literal["auto", "resident", "stream"] = "auto"
    buffer: int = BUFFER
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "valid_windows", "buffer")
        for name in (*counts, "steps", "validate_every", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"TrainConfig.{name} must be at least 1, found {value}")
        if self.warmup_epochs < 0:
            raise InputError(
                f"TrainConfig.warmup_epochs must be at least 0, found {self.warmup_epochs}"
            )
        if not self.learning_rate > 0:
            raise InputError(
                f"TrainConfig.learning_rate must be positive, found {self.learning_rate}"
            )
        for name, allowed in (
            ("schedule", ("onecycle", "cosine")),
            ("precision", ("auto", "fp32", "bf16")),
            ("compile", ("auto", "always", "never")),
            ("feed", ("auto", "resident", "stream")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"TrainConfig.{name} must be one of {', '.join(allowed)}, "
                    f"found {getattr(self, name)!r}"
                )


def schedule(
    config: TrainConfig, step: int, steps: int, steps_per_epoch: int
) -> tuple[float, float]:
    """Learning rate and Adam's first beta at a step.

    A pure function of the step, so that a resumed run needs no state.

    Parameters
    ----------
    step, steps : int
        The step, from 0, of how many.
    steps_per_epoch : int

    Returns
    -------
    tuple of float

    Notes
    -----
    ``"onecycle"``: Smith & Topin (2018), as :class:`torch.optim.lr_scheduler.OneCycleLR` with
    cosine phases, 30% warm-up from 1/25 of the peak, ``final_div_factor`` 1e4, momentum 0.95 to
    0.85 and back.
    """
    peak = config.learning_rate
    if config.schedule == "cosine":
        epoch, epochs = step // steps_per_epoch, max(steps / steps_per_epoch, 1)
        if epoch < config.warmup_epochs:
            start = min(1e-5, peak)
            return start + (peak - start) * epoch / config.warmup_epochs, 0.9
        return 1e-6 + (peak - 1e-6) * (1 + math.cos(math.pi * min(epoch / epochs, 1))) / 2, 0.9

    def between(start: float, end: float, part: float) -> float:
        return end + (start - end) / 2 * (1 + math.cos(math.pi * part))

    rise = 0.3 * steps - 1
    low, final = peak / 25, peak / 25 / 1e4
    if step <= rise:
        part = step / rise if rise > 0 else 1.0
        return between(low, peak, part), between(0.95, 0.85, part)
    part = (step - rise) / max(steps - 1 - rise, 1)
    return between(peak, final, part), between(0.85, 0.95, part)


def fit(
    ds: xr.Dataset,
    task: Task,
    *,
    model: str | nn.Module | Callable[[], nn.Module] = "simvpv2",
    config: TrainConfig | None = None,
    valid: xr.Dataset | None = None,
    init_time: Any = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: Literal["auto", "never"] = "auto",
    progress: bool | Callable[[dict[str, Any]], None] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Forecaster:
    """Train a forecaster on a data set.

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
    init_time : array of times, optional
        Train on the windows whose last input step is at one of these, in place of all there are.
    run_dir : path-like, optional
        Where to keep checkpoints and ``history.jsonl`` (see :mod:`stforecast.checkpoints`); without
        it nothing is written.
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

    Raises
    ------
    InputError
        If the data do not fit the task; or `run_dir` holds a different run, or one that goes on in
        another process, or no checkpoint that is whole, or cannot be written.
    DivergenceError
        If the loss, or a weight, is no longer finite.
    KeyboardInterrupt
        After Ctrl-C, once the step is done and a checkpoint is written; a second one stops at once.
    """
    config = config or TrainConfig()
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    half = config.precision == "bf16" or (config.precision == "auto" and has_bf16(device))

    # Data: batches on the device, and their statistics.
    source = Source(ds, task)
    ds, feed = source.ds, _feed(source, config, device, init_time=init_time)
    steps = config.steps or config.epochs * feed.steps_per_epoch
    every = config.validate_every or feed.steps_per_epoch
    mean, std, change = _statistics(feed)
    weights = _loss_weights(config, task, ds, change).to(device)

    with feed, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        network = _network(model, task, change / std[_outputs(task)])
        forecaster = Forecaster(
            network,
            task,
            mean=mean,
            std=std,
            grid=conventions.grid_of(ds),
            variables={v: _units(ds[v].attrs) for v in task.channels},
            training=_provenance(ds, task, config, steps, about),
        ).to(device)
        for weight in network.parameters():  # of 2-D convolutions: they are faster so
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        checker = None if valid is None else _Validation(valid, forecaster, config, device)
        optimizer = torch.optim.Adam(
            network.parameters(), lr=config.learning_rate, fused=device.type == "cuda"
        )
        call: Callable[[Tensor], Tensor] = network
        if config.compile == "always" or (
            config.compile == "auto" and device.type == "cuda" and steps >= _WORTH_COMPILING
        ):
            call = torch.compile(network, dynamic=False)
        run = Run(run_dir, forecaster, optimizer, config, feed, steps, resume)
        norm = forecaster.normalizer
        out = _outputs(task)

        # From its last checkpoint, if it has one: the step says all about the feed and the rate.
        with run, _reporting(progress) as report, _interruptible() as interrupted:
            loss_sum, losses = run.loss_sum, run.losses
            network.train()
            for step in range(run.step, steps):
                x, y = feed.batch(step)
                x, y = forecaster.encode(x), norm(y, out)

                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    prediction = call(x)
                loss = _loss(prediction.float(), y, weights, masked=task.nan == "mask")
                loss.backward()

                rate, beta = schedule(config, step, steps, feed.steps_per_epoch)
                for group in optimizer.param_groups:
                    group["lr"], group["betas"] = rate, (beta, 0.999)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

                loss_sum, losses = loss_sum + loss.detach(), losses + 1
                event: dict[str, Any] = {"step": step + 1, "steps": steps, "samples": len(x)}
                stop, last = interrupted(), step + 1 == steps
                due = (step + 1) % every == 0 or last
                if due or losses == 50:
                    average = float(loss_sum) / losses
                    if not math.isfinite(average):
                        raise DivergenceError(
                            f"the loss is {average} at step {step + 1} (learning rate {rate:.2g}, "
                            f"precision {'bf16' if half else 'fp32'}); try a lower learning_rate "
                            f"or precision='fp32'. The last good checkpoint is kept"
                        )
                    event["loss"] = average
                    loss_sum, losses = torch.zeros_like(loss_sum), 0
                if due:
                    event["learning_rate"] = rate
                    if checker is not None:
                        event |= checker()
                    run.record(event)
                    network.train()
                if due or stop or (step + 1) % (config.checkpoint_every or every) == 0:
                    run.checkpoint(step + 1, loss_sum, losses)
                report(event)
                if stop and not last:
                    where = f"; the same call goes on from {run.directory}" if run.directory else ""
                    raise KeyboardInterrupt(f"stopped after step {step + 1} of {steps}{where}")

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


def _outputs(task: Task) -> list[int]:
    return [task.channels.index(v) for v in task.outputs]


def _units(attrs: Mapping[str, Any]) -> dict[str, str]:
    return {k: str(attrs[k]) for k in ("units", "long_name", "standard_name") if k in attrs}


def _feed(source: Source, config: TrainConfig, device: torch.device, **options: Any) -> Feed:
    return open_feed(
        source,
        source.task,
        config.batch_size,
        feed=config.feed,
        buffer=config.buffer,
        seed=config.seed,
        device=device,
        **options,
    )


def _statistics(feed: Feed) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation (C,) of the data, and the typical change (T', C') up to each lead time.

    In one pass, in float64, over what is not NaN. The change is over about 512 windows.
    """
    task, out = feed.task, _outputs(feed.task)
    some = feed.starts[:: max(len(feed.starts) // (512 * feed.thinning), 1)]
    n = mean = square = torch.zeros(len(task.channels), dtype=torch.float64)
    changes = torch.zeros(2, task.target_steps, len(out), dtype=torch.float64)  # sums, counts
    for first, new, block in feed.sweep():
        values = block[new:].double()
        more = (~values.isnan()).sum((0, 2, 3))
        middle = values.nanmean((0, 2, 3)).nan_to_num()
        spread = (values - middle[:, None, None]).square().nansum((0, 2, 3)).cpu()
        # Chan, Golub and LeVeque (1979): moments of parts add, without cancellation.
        more, shift = more.cpu(), middle.cpu() - mean
        both = (n + more).clamp_min(1)
        square = square + spread + shift**2 * n * more / both
        n, mean = n + more, mean + shift * more / both

        here = some[(some + task.window > first + new) & (some + task.window <= first + len(block))]
        last = torch.as_tensor(here - first, device=block.device) + task.input_steps - 1
        for lead in range(task.target_steps if len(here) else 0):
            change = (block[last + 1 + lead][:, out] - block[last][:, out]).double()
            changes[0, lead] += change.square().nansum((0, 2, 3)).cpu()
            changes[1, lead] += (~change.isnan()).sum((0, 2, 3)).cpu()
    std = (square / n.clamp_min(1)).sqrt()
    change = (changes[0] / changes[1].clamp_min(1)).sqrt()
    return mean.float(), std.float(), change.float()


def _loss(prediction: Tensor, y: Tensor, weights: Tensor, *, masked: bool) -> Tensor:
    """Weighted mean square of the errors (B, T', C', H, W), over the points that are not NaN."""
    if not masked:
        return (weights * (prediction - y) ** 2).mean()
    known = y.isfinite()
    y = torch.where(known, y, prediction.detach())  # no error there, and no gradient
    return (weights * (prediction - y) ** 2).sum() / known.sum().clamp_min(1)


def _loss_weights(config: TrainConfig, task: Task, ds: xr.Dataset, change: Tensor) -> Tensor:
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


def _network(
    model: str | nn.Module | Callable[[], nn.Module], task: Task, change: Tensor
) -> nn.Module:
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
    return network


def _provenance(
    ds: xr.Dataset, task: Task, config: TrainConfig, steps: int, about: Mapping[str, Any] | None
) -> dict[str, Any]:
    time = ds.indexes["time"]
    title = ds.attrs.get("title") or ds.attrs.get("source") or "an untitled data set"
    keep = {k: str(ds.attrs[k]) for k in ("source", "comment", "license") if k in ds.attrs}
    return {
        "data": str(title),
        "data_attributes": keep,
        "period": f"{time[0]} to {time[-1]}, {len(time)} times",
        "config": asdict(replace(config, steps=steps)),
        **(about or {}),
    }


class _Validation:
    """RMSE on evenly spread windows of the validation period, and persistence's beside it."""

    def __init__(
        self, ds: xr.Dataset, forecaster: Forecaster, config: TrainConfig, device: torch.device
    ) -> None:
        task = forecaster.task
        source = Source(ds, task, "validation")
        if conventions.grid_of(source.ds) != forecaster.grid:
            raise InputError("the validation data lie on another grid than the training data")
        self.feed = _feed(source, config, device, windows=config.valid_windows, shuffle=False)
        self.forecaster = forecaster
        # One number for all variables: errors in units of each variable's deviation.
        self.std = forecaster.normalizer.std[_outputs(task), None, None]
        rows = np.ones(1)
        if "latitude" in source.ds.coords:
            rows = np.asarray(metrics.area_weights(source.ds["latitude"].values))
        self.rows = torch.as_tensor(rows, dtype=torch.float32, device=device)[:, None]

    def __call__(self) -> dict[str, float]:
        """Return area-weighted RMSE over all leads in units of the first output, and a score."""
        self.forecaster.network.eval()
        task = self.forecaster.task
        same = set(task.outputs) <= set(task.variables)
        index = [task.variables.index(v) for v in task.outputs] if same else []
        # Weighted sums of squared errors, and of the weights, in float64: of all outputs in their
        # deviations, of the first output, and of the first output as persistence has it.
        sums = torch.zeros(3, 2, dtype=torch.float64, device=self.rows.device)
        with torch.no_grad(), self.feed:
            for step in range(self.feed.steps_per_epoch):
                x, y = self.feed.batch(step)
                error = self.forecaster.apply(x) - y
                sums[0] += self._sums(error / self.std)
                sums[1] += self._sums(error[:, :, :1])
                if same:
                    sums[2] += self._sums(x[:, -1:, index[:1]] - y[:, :, :1])
        score, model, persistence = (sums[:, 0] / sums[:, 1]).sqrt().tolist()
        result = {"valid_score": score, "valid_rmse": model}
        if persistence > 0:  # NaN where it has no forecast
            result["valid_to_persistence"] = model / persistence
        return result

    def _sums(self, error: Tensor) -> Tensor:
        """Sum of weight times square, and of the weights; NaN is masked, or there is none."""
        known = torch.ones_like(error, dtype=torch.bool)
        if self.forecaster.task.nan == "mask":
            known = ~error.isnan()
        square = torch.where(known, error, 0).double().square()
        return torch.stack(
            [(square * self.rows).sum(), (known * self.rows).sum(dtype=torch.float64)]
        )


@contextmanager
def _reporting(
    progress: bool | Callable[[dict[str, Any]], None] | None,
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Where the steps are reported to: a function, a progress bar, or nowhere."""
    if callable(progress):
        yield progress
    elif progress or (progress is None and (sys.stderr.isatty() or "ipykernel" in sys.modules)):
        from .cli import progress_bar

        with progress_bar("training") as update:
            yield update
    else:
        yield lambda event: None


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
