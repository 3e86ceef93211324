"""Training: one plain loop that reads from top to bottom.

What happens in a step is in :func:`fit`; what is made small, in
:mod:`stforecast.training.objective`; what a checkpoint holds, in
:mod:`stforecast.training.checkpoints`; in which order windows are shown, in
:mod:`stforecast.loading.feeds`; how several processes train as one, in
:mod:`stforecast.training.distributed`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..conventions.grid import Grid
from ..conventions.overlap import TRAINED_WHERE, period_of, with_earlier
from ..errors import DivergenceError, InputError
from ..evaluation.metrics import Above
from ..evaluation.thresholds import refuse_celsius
from ..forecasting.bundle import checksum
from ..forecasting.forecaster import Forecaster
from ..loading.base import Feed
from ..loading.feeds import open_feed, suited
from ..loading.source import Source
from ..loading.statistics import extremes, statistics, with_still
from ..models.first_guess import FirstGuess
from ..models.registry import ready_network
from ..models.surroundings import has_bf16, own_defaults
from ..task import Task
from .anomalies import Usual, fit_usual
from .checkpoints import Run
from .config import TrainConfig
from .distributed import Shared, World, all_sum, joined
from .ema import Average
from .ensemble import EnsembleConfig, fine_tuned
from .initialise import carry_over
from .log import TrainingLog
from .losses import loss_weights
from .objective import Objective, compiled
from .optimizers import Optimizer
from .progress import Meter, interruptible, reporting
from .provenance import provenance, units
from .schedule import applications, schedule
from .validation import Validation, covered, only_counted

if TYPE_CHECKING:
    import xarray as xr


logger = logging.getLogger(__name__)

#: Steps between reports of the loss: on a GPU, between the moments in which the host waits for it.
_REPORT_EVERY = 50
#: Windows that a linear first guess is fitted on.
_GUESSED_FROM = 4000


def fit(
    ds: xr.Dataset,
    task: Task,
    *,
    model: str | nn.Module | Callable[[], nn.Module] = "simvpv2",
    config: TrainConfig | None = None,
    validation: xr.Dataset | None = None,
    allow_overlap: bool = False,
    warm_start: str | os.PathLike[str] | Forecaster | None = None,
    ensemble: Literal["crps"] | EnsembleConfig | None = None,
    init_time: Any = None,
    feed: Feed | None = None,
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
        then follow from ``config.seed``. One with a method ``teach`` learns by it: see
        :class:`stforecast.training.Objective`.
    config : TrainConfig, optional
        How to train.
    validation : xarray.Dataset, optional
        The validation period: the weights with the smallest error on it are the ones returned.
        Without it the last ones are. The test period has no business here.
    allow_overlap : bool
        Take a validation period whose targets lie in the training period. It is refused otherwise:
        the weights with the smallest error on it are those that are fitted to it most closely.
    warm_start : Forecaster or path-like, optional
        A trained forecaster, or its bundle, to start from: weights that fit by name and shape are
        carried over, whatever its grid, variables and steps. What was not is logged, and in
        ``training["warm_start"]`` of the result.
    ensemble : "crps" or EnsembleConfig, optional
        Train, and then teach the network in a short training on the fair CRPS to draw members of
        an ensemble: ``predict(ds, ensemble=20)``. With `warm_start` that is all that is done, with
        the network that it has; give the training period that it was trained on. The run of this
        second training is in ``ensemble`` below `run_dir`.
    init_time : array of times, optional
        Train on the windows whose last input step is at one of these, in place of all there are.
    feed : Feed, optional
        Batches of your own making, in place of those of `ds`, whose labels they have: see
        :class:`stforecast.loading.Feed`. The normalisation comes from it, too.
    run_dir : path-like, optional
        Where to keep checkpoints and ``history.jsonl`` (see
        :mod:`stforecast.training.checkpoints`), and what :mod:`stforecast.training.log` tells;
        without it nothing is written.
    resume : {"auto", "never"}
        ``"auto"`` goes on from the last checkpoint in `run_dir`; ``"never"`` starts anew.
    progress : bool or callable, optional
        Show a progress bar; one is shown in a terminal and in Jupyter unless told otherwise.
        Elsewhere a line says after a few steps what is trained and until when, and one every five
        minutes where it is: in the log (INFO), or, if that shows none and there is a minute or
        more to wait, on the standard error, unless this is False. Or a function, called after each
        step with ``step``, ``steps``, ``samples``, every so often ``loss``, and after a validation
        ``val_rmse``.
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
        If the data do not fit the task; or the validation period overlaps the training period; or
        nothing of `warm_start` fits the network; or `run_dir`
        holds a different run, or one that goes on in another process, or no checkpoint that is
        whole, or cannot be written.
    DivergenceError
        If the loss, or a weight, is no longer finite.
    RankLostError
        If another process of ``torchrun`` has ended.
    KeyboardInterrupt
        After Ctrl-C, once the step is done and a checkpoint is written; a second one stops at once.
    """
    config, began = TrainConfig() if config is None else config, time.monotonic()
    _refuse_kinds(task, config, run_dir, about)
    if ensemble is not None:
        return fine_tuned(
            fit, ds, task, EnsembleConfig.of(ensemble), model=model, config=config,
            warm_start=warm_start, run_dir=run_dir, validation=validation, feed=feed,
            allow_overlap=allow_overlap, init_time=init_time, resume=resume, progress=progress,
            about=about,
        )  # fmt: skip
    if config.patience and validation is None:
        raise InputError(
            f"patience={config.patience} needs a validation period: give fit(validation=)"
        )
    if (rollout := config.most_applications) > 1:
        task.refuse_rollout(rollout * task.target_steps)
    with ExitStack() as stack:
        world = stack.enter_context(joined(config.device))
        device = world.device
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(own_defaults(random=device))

        # Data: batches on the device, and their statistics.
        source = Source(ds, task, rollout=rollout)
        if isinstance(config.where, Above):
            for name in task.outputs:
                refuse_celsius(source.ds[name], config.where.limit)
        opened = partial(_feed, config=config, world=world)
        own = feed
        feed = stack.enter_context(opened(source, init_time=init_time) if own is None else own)
        if own is not None and task.channels_in > len(task.variables) + bool(task.reference):
            raise InputError(f"a feed of your own gives histories and targets alone, not {task}")
        if own is not None and rollout > 1:
            raise InputError("a feed of your own gives targets of the task: TrainConfig(rollout=1)")
        steps = config.steps or config.epochs * feed.steps_per_epoch
        stages = [] if isinstance(config.rollout, int) else config.rollout
        if beyond := [first for first, _ in stages if first >= steps]:
            logger.warning("the roll-out changes at step %d, the run has %d", beyond[0], steps)
        if beyond := [step for step in config.keep_checkpoints if step > steps]:
            logger.warning("no checkpoint of step %d is kept, the run has %d", beyond[0], steps)
        usual = world.from_main(lambda: fit_usual(source.ds, source.task))
        in_order = None if usual is None else usual.in_order
        mean, std, change = world.from_main(partial(statistics, feed, in_order))

        # The network, the same on all ranks, and random numbers of each rank's own.
        torch.manual_seed(config.seed)
        grid = Grid.of(source.ds).to_dict()
        out = feed.targets

        def span() -> tuple[Tensor, Tensor]:
            low, high = world.from_main(partial(extremes, feed, in_order))
            return ((low - mean) / std)[out], ((high - mean) / std)[out]

        scale = change[: task.target_steps] / std[out]
        network = ready_network(model, task, grid, scale, span)
        starts = feed.starts if own is None else source.starts  # labels are those of all of `ds`
        seen = source.ds.sel(time=covered(source, starts, source.task.window))
        here = period_of(seen)
        before: dict[str, str] = {}
        told = provenance(source.ds, config, steps, about) | here
        if config.where is not None:
            told[TRAINED_WHERE] = config.to_dict()["where"]
        told["fingerprint"] = checksum({"mean": mean, "std": std, "change": change})[:16]
        if warm_start is not None:
            told["warm_start"] = carry_over(network, warm_start)
            before = told["warm_start"]["trained_on"]
            told |= with_earlier(here, before)
        if world.rank:
            torch.manual_seed(config.seed + 2**32 * world.rank)
        named = units(source.ds, task, source.led)
        mean, std = with_still(feed, mean, std, source.still)
        forecaster = Forecaster(
            network,
            task,
            mean=mean,
            std=std,
            grid=grid,
            variables=named,
            reference=None if usual is None else usual.reference(task, here),
            still=source.still,
            draws=config.draws if config.members > 1 else None,
        )
        forecaster.to(device)
        forecaster.try_out(*Grid.of(source.ds).shape)
        dtype = forecaster.dtype
        if usual is not None:
            usual.ready(starts, device)
        guess = getattr(network, "first_guess", None)
        keeps = warm_start is not None and config.members > 1  # what it has learned to add to
        if isinstance(guess, FirstGuess) and not keeps:
            fitted = world.from_main(lambda: guess.fit(_some(feed, forecaster, usual)))
            guess.load_state_dict(fitted)

        # What is made small, how, and by what it is judged.
        half = dtype == torch.float32 and (
            config.precision == "bf16" or (config.precision == "auto" and has_bf16(device))
        )
        if device.type == "cuda" and not half:
            # In float32 cuDNN's quickest weight gradients add up in whatever order threads end,
            # and a resumed run would not be equal to the bit; those of bfloat16 are in order.
            cudnn = torch.backends.cudnn
            flags = cudnn.flags(deterministic=True, allow_tf32=cudnn.allow_tf32)
            stack.enter_context(flags)
        objective = Objective(
            network,
            config.loss,
            loss_weights(config, task, source.ds, change).to(device, dtype),
            masked=task.nan == "mask" or config.where is not None,
            bf16=half,
            seed=config.seed,
            rank=world.rank,
            frames=forecaster if rollout > 1 else None,
            detach=config.rollout_gradients == "detached",
            members=config.members,
            draws=config.draws,
        )
        optimizer, average = Optimizer(network, config), Average(network, config.ema)
        fast = compiled(objective, config, steps, device)
        shared = stack.enter_context(Shared(objective, world, fast))
        checker = None
        if validation is not None:
            one = partial(opened, windows=config.val_windows, shuffle=False, storage="fp32")
            drawn = config.members, config.seed
            checker = Validation(
                validation, forecaster, one, device, rollout, *drawn, where=config.where
            )
            if not allow_overlap:
                checker.refuse_overlap(source, starts, before)
            told["validation_period"] = checker.period

        # From its last checkpoint, if it has one: the step says all about the feed and the rate.
        run = Run(
            run_dir, objective, forecaster, optimizer, average, config, feed, steps, resume, told,
            world,
        )  # fmt: skip
        interrupted = stack.enter_context(interruptible())
        stack.enter_context(run)
        report: Callable[[dict[str, Any]], None] = lambda event: None  # noqa: E731
        if world.is_main:
            what = f"{run.description['parameters']:,} parameters on {device}"
            report = stack.enter_context(reporting(progress, what, config.minutes))
        log = stack.enter_context(
            TrainingLog(run_dir if world.is_main else None, run.description, step=run.step)
        )
        stack.enter_context(world.watched())
        every = config.validate_every or feed.steps_per_epoch
        loss_sum, losses, meter = run.loss_sum, run.losses, Meter(feed, run.step)
        objective.train()
        for step in range(run.step, steps):
            if config.patience and run.stale >= config.patience:
                run.stop("patience", step)
                break

            # This rank's windows, on the device, in physical units; normalised there.
            with meter.waiting():
                windows = feed.batch(step)
            more: list[Tensor | None] = []
            if rollout == 1:
                x, y = _pair(windows, forecaster, usual)
            else:
                x, y, *more = _rolled(windows, forecaster, usual, applications(config, step))
            if config.where is not None:
                y = only_counted(config.where, windows[1], y)
            points = objective.points(y, feed.size(step))

            # Gradients of the mean loss of the whole step: of all passes, of all ranks.
            passes = min(config.accumulate, math.ceil(feed.size(step) / world.size))
            for inputs, targets, weight, *ahead in shared.micro_batches(x, y, passes, *more):
                total, _ = shared(inputs, targets, step, *ahead)
                loss = total / points * weight
                if not loss.requires_grad:
                    raise InputError(
                        f"the output of {type(network).__name__} depends on no weight that can be "
                        "learned: they are frozen, or it is detached, rounded or made without "
                        "gradients"
                    )
                (loss * world.size).backward()  # DDP takes the mean over the ranks
                loss_sum = loss_sum + loss.detach()
            losses += 1
            if config.clip_norm:
                grad_norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            rate, beta = schedule(config, step, steps, feed.steps_per_epoch)
            optimizer.step(rate, beta)
            average.update(step)

            # Report, validate, keep: nothing above makes the host wait for a GPU.
            last, due = step + 1 == steps, (step + 1) % every == 0 or step + 1 == steps
            late = config.minutes is not None and time.monotonic() - began >= 60 * config.minutes
            stop = world.largest(2 if interrupted() else 1 if late else 0)
            event: dict[str, Any] = {"step": step + 1, "steps": steps, "samples": feed.size(step)}
            opening = step == 0 and every > _REPORT_EVERY and not due  # where the curve begins
            if due or opening or losses == _REPORT_EVERY:
                mean_loss = float(all_sum(loss_sum.clone())) / losses
                if config.where is not None and mean_loss == 0:
                    logger.warning("no target of the last %d steps counts: where=", losses)
                if not math.isfinite(mean_loss):
                    raise DivergenceError(
                        f"the loss is {mean_loss} at step {step + 1} (learning rate {rate:.2g}, "
                        f"precision {'bf16' if half else 'fp32'}); try a lower learning_rate "
                        f"or precision='fp32'. The last good checkpoint is kept"
                    )
                event["loss"] = mean_loss
                if not opening:
                    loss_sum, losses = torch.zeros_like(loss_sum), 0
            if due:
                event["learning_rate"] = rate
                with average.applied():
                    if checker is not None:
                        event |= checker()
                    run.record(event)
                objective.train()
            if "loss" in event:  # before the checkpoint, that goes on after it
                line = {**event, "learning_rate": rate, "samples": feed.shown(step + 1)}
                line |= {"seconds": run.seconds, **meter.read(step + 1)}
                if config.clip_norm:
                    line["grad_norm"] = float(grad_norm)
                log.note(line)
            wanted = (step + 1) % (config.checkpoint_every or every) == 0
            if due or stop or wanted or step + 1 in config.keep_checkpoints:
                run.checkpoint(step + 1, loss_sum, losses)
            report(event)
            if stop == 2 and not last:
                where = f"; the same call goes on from {run.directory}" if run.directory else ""
                raise KeyboardInterrupt(f"stopped after step {step + 1} of {steps}{where}")
            if stop and not last:
                run.stop("minutes", step + 1)
                break

    run.take_best()
    forecaster.training = run.training
    network.eval()
    return forecaster


def _refuse_kinds(task: Any, config: Any, run_dir: Any, about: Any) -> None:
    """Refuse arguments that are of another kind, before the data are looked at."""
    if not isinstance(task, Task):
        raise InputError(
            f"fit needs a Task, found {task!r:.80}: say Task(variables, input_steps=...)"
        )
    if not isinstance(config, TrainConfig):
        raise InputError(f"config must be a TrainConfig, found {config!r:.80}")
    if not isinstance(run_dir, str | os.PathLike | None):
        raise InputError(f"run_dir must be a path, found {run_dir!r:.80}")
    if not isinstance(about, Mapping | None):
        raise InputError(f"about must be a mapping, found {about!r:.80}")


def _pair(windows: Any, forecaster: Forecaster, usual: Usual | None) -> tuple[Tensor, Tensor]:
    """What the network sees of windows, and what it should give."""
    own = None if usual is None else usual(getattr(windows, "first", None))
    x, y = forecaster.pair(windows, own)
    return x.to(forecaster.dtype), y.to(forecaster.dtype)


def _rolled(
    windows: Any, forecaster: Forecaster, usual: Usual | None, count: int
) -> tuple[Any, ...]:
    """The history, the targets of `count` applications, and what is known and usual at these."""
    own = None if usual is None else usual(getattr(windows, "first", None))
    x, y, known, ahead = forecaster.parts(windows, own)
    steps = count * forecaster.task.target_steps
    return x.to(forecaster.dtype), y[:, :steps].to(forecaster.dtype), known, ahead


def _some(
    feed: Feed, forecaster: Forecaster, usual: Usual | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of the first steps' windows."""
    found, step = 0, 0
    while found < _GUESSED_FROM and step < feed.steps_per_epoch:
        x, y = _pair(feed.batch(step), forecaster, usual)
        yield x, y
        found, step = found + len(x), step + 1


def _feed(source: Source, *, config: TrainConfig, world: World, **options: Any) -> Feed:
    storage = options.pop("storage", config.storage)
    kind = config.feed
    if kind == "auto":
        here = world.local_size if world.device.type == "cpu" else 1
        by_size = partial(suited, source, world.device, storage=storage, processes=here)
        kind = world.from_main(by_size)
        if kind == "stream" and storage != "fp32":
            logger.warning("a stream is float32: storage=%r has no effect", storage)
            storage = "fp32"
    options |= {"rank": world.rank, "world_size": world.size, "device": world.device}
    options |= {"feed": kind, "storage": storage, "buffer": config.buffer, "seed": config.seed}
    return open_feed(source, source.task, config.batch_size, **options)
