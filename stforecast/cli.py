"""What the pipelines share: options, progress, errors in one line, forecasts streamed to disk."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import xarray as xr

from .errors import DivergenceError, InputError, RankLostError
from .writing import write_forecast

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from .forecaster import Forecaster
    from .prediction import WindowForecaster
    from .training import TrainConfig
    from .windows import Task

Options = TypeVar("Options")


@dataclass(kw_only=True)
class Training:
    """What all pipelines that train can be told; each adds what is its own."""

    output: Path = Path("runs")
    """Where results go. A run that was stopped goes on from its last checkpoint there."""
    steps: int | None = None
    """Optimiser steps, in place of the preset's epochs or steps."""
    batch_size: int | None = None
    """Windows in a step, of all processes together; the preset's unless given."""
    learning_rate: float | Literal["auto"] | None = None
    """Peak learning rate; the preset's unless given. auto: the best of the paper's grid on the
    validation period, by a short run of each."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic. auto: bf16 where the device has instructions for it."""
    accumulate: int = 1
    """Passes that a step's windows are cut into, where they need too much memory at once."""
    clip_norm: float | None = None
    """Largest norm of the gradient."""
    ema: float | None = None
    """Decay of an average of the weights, 0.999 say, which is validated and saved instead."""
    patience: int | None = None
    """Validations without a better score after which training ends."""
    minutes: float | None = None
    """Budget of this call: training ends with a checkpoint, and the same command goes on."""
    init: Path | None = None
    """The bundle of a trained model to start from."""
    trials: int = 1
    """Runs with seeds of their own; mean and deviation of their scores are printed."""
    seed: int = 0
    """Initial weights, order of the windows."""
    device: str | None = None
    """Where to compute: cpu, cuda. A GPU if there is one."""

    def config(self, **recipe: Any) -> TrainConfig:
        """The preset's settings, and these where they are given."""
        from .training import TrainConfig

        names = ("steps", "batch_size", "learning_rate", "clip_norm", "ema", "patience", "minutes")
        given = {n: getattr(self, n) for n in (*names, "precision", "accumulate", "seed", "device")}
        if self.learning_rate == "auto":
            del given["learning_rate"]
        return TrainConfig(**recipe | {k: v for k, v in given.items() if v is not None})


def run(
    main: Callable[[Options], None], options: type[Options], *, positional: bool = False
) -> None:
    """Read the options from the command line, and run `main` with them.

    Bad input ends in one line on the standard error and exit code 2; Ctrl-C in 130; a training that
    diverged, or lost one of its processes, in 1. A traceback is printed for faults of the program
    only.

    Parameters
    ----------
    main : callable
        Takes an instance of `options`.
    options : dataclass
        Its fields and their docstrings become options and their help.
    positional : bool
        Fields without a default are given by position, not by name.
    """
    import tyro

    first = os.environ.get("RANK", "0") == "0"  # of several processes one tells what goes on
    logging.basicConfig(
        level=logging.INFO if first else logging.WARNING,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    try:
        given = tyro.cli(
            options,
            description=main.__globals__["__doc__"],
            config=(tyro.conf.PositionalRequiredArgs,) if positional else (),
        )
        if isinstance(given, Training) and given.trials != 1:
            _trials(main, given)
        else:
            main(given)
    except InputError as error:
        _stop(f"error: {error}", 2)
    except (DivergenceError, RankLostError) as error:
        _stop(f"error: {error}", 1)
    except KeyboardInterrupt as stop:
        _stop(str(stop) or "stopped", 130)
    except OSError as error:
        _stop(f"error: {error}", 2)


def _stop(message: str, code: int) -> None:
    sys.stderr.write(message + "\n")
    raise SystemExit(code)


class _OnlyHelped(SystemExit):
    """A process of ``torchrun`` that is not the first has trained, and has nothing left to do."""


def _trials(main: Callable[[Any], None], options: Training) -> None:
    """Run a pipeline several times, and write and print mean and deviation of its scores."""
    import pandas as pd

    from .distributed import is_main
    from .files import replacing
    from .tuning import trials

    keys = ["model", "variable", "metric", "weights"]

    def one(i: int) -> pd.Series[float]:
        output = options.output / f"trial-{i + 1}"
        try:
            main(replace(options, trials=1, seed=options.seed + i, output=output))
        except _OnlyHelped:  # there is another trial to help with
            return pd.Series(dtype=float)
        scores = pd.read_csv(output / "scores.csv")
        overall = scores[scores["lead_hours"].astype(str) == "overall"]
        if "region" in overall:
            overall = overall[overall["region"].isin([overall["region"].iloc[0]])]
        return overall.set_index(keys)["value"]

    table = trials(options.trials, one)
    if not is_main():
        return
    with replacing(options.output / "trials.csv") as path:
        table.to_csv(path)
    shown = [f"{m:.4f} +- {d:.4f}" for m, d in zip(table["mean"], table["deviation"], strict=True)]
    text = pd.Series(shown, index=table.index).to_string()
    sys.stdout.write(f"\nMean and deviation of {options.trials} trials:\n{text}\n")


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with time left, samples a second, loss and validation error, for :func:`fit`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)  # the standard output is for results
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
        line = bar.add_task(what, note="", total=None)
        notes: dict[str, str] = {}
        samples, since = 0, time.monotonic()

        def update(event: dict[str, Any]) -> None:
            nonlocal samples
            samples += event["samples"]
            notes["speed"] = f"{samples / max(time.monotonic() - since, 1e-9):.3g} samples/s"
            if "loss" in event:
                notes["loss"] = f"loss {event['loss']:.3g}"
            if "valid_rmse" in event:
                notes["valid"] = f"validation RMSE {event['valid_rmse']:.3f}"
            if "valid_to_persistence" in event:
                notes["skill"] = f"({event['valid_to_persistence']:.2f} of persistence)"
            bar.update(
                line, total=event["steps"], completed=event["step"], note=" ".join(notes.values())
            )

        yield update


def clip_to_unit(ds: xr.Dataset) -> xr.Dataset:
    """Clip to [0, 1], as the published scores of video do before anything else."""
    return ds.clip(0, 1, keep_attrs=True)


def train(
    parts: Mapping[str, xr.Dataset],
    task: Task,
    network: Callable[[], nn.Module],
    config: TrainConfig,
    options: Training,
    **more: Any,
) -> Forecaster:
    """Train as the options of a pipeline say, and save the bundle.

    Writes ``run/`` (a stopped run goes on from there), ``model/`` (a bundle) and, where the
    learning rate is looked for, ``learning_rate/`` and ``learning_rate.csv``. The program ends here
    where a budget of minutes did, and in all processes of ``torchrun`` but the first.

    Parameters
    ----------
    parts : mapping
        Data sets ``"train"`` and ``"valid"``.
    task : Task
    network : callable
        Makes the network.
    config : TrainConfig
        From :meth:`Training.config`.
    options : Training
    **more
        For :func:`stforecast.fit`.

    Returns
    -------
    Forecaster
    """
    from . import fit
    from .distributed import is_main
    from .files import replacing
    from .tuning import find_learning_rate

    more |= {"init": options.init}
    if options.learning_rate == "auto":
        began = time.monotonic()
        table = find_learning_rate(
            parts["train"],
            task,
            valid=parts["valid"],
            model=network,
            config=config,
            steps=max(1, min(200, (config.steps or 1000) // 5)),
            run_dir=options.output / "learning_rate",
            **more,
        )
        config = replace(config, learning_rate=table.attrs["best"])
        if config.minutes is not None:  # what is left of them
            spent = (time.monotonic() - began) / 60
            config = replace(config, minutes=max(config.minutes - spent, 1e-6))
        if is_main():
            with replacing(options.output / "learning_rate.csv") as path:
                table.to_csv(path)
            sys.stdout.write(f"{table.to_string()}\nlearning rate: {config.learning_rate:g}\n\n")
    forecaster = fit(
        parts["train"],
        task,
        model=network,
        config=config,
        valid=parts["valid"],
        run_dir=options.output / "run",
        about={"command": shlex.join(["python", *sys.argv])},
        **more,
    )
    stopped = forecaster.training.get("stopped", {})
    over = stopped.get("why") == "minutes"
    if not is_main():
        raise SystemExit(0) if over else _OnlyHelped(0)
    forecaster.save(options.output / "model")
    if over:
        sys.stdout.write(
            f"Stopped after step {stopped['step']} of {stopped['steps']}, as {options.minutes:g} "
            f"minutes are over; nothing is scored yet. The same command goes on from there.\n"
            f"The best model so far is in {(options.output / 'model').resolve()}\n"
        )
        raise SystemExit(0)
    return forecaster


def train_and_score(
    benchmark: str,
    parts: Mapping[str, xr.Dataset],
    task: Task,
    network: Callable[[], nn.Module],
    config: TrainConfig,
    options: Training,
    *,
    metrics: Sequence[str] = ("mse_sum", "mae_sum", "ssim", "psnr"),
    scored: Callable[[xr.Dataset], xr.Dataset] = clip_to_unit,
    train_times: Any = None,
    init_time: Any = None,
    steps: int | None = None,
    stride: int = 1,
    rivals: Callable[[Forecaster], Mapping[str, WindowForecaster]] | None = None,
) -> pd.DataFrame:
    """Train, score beside Copying on the test part, and put the published rows beside both.

    Writes what :func:`train` does, ``forecast.zarr``, ``scores.nc`` and ``scores.csv``.

    Parameters
    ----------
    benchmark : str
        Which published table, by its name in :func:`stforecast.evaluation.benchmark_table`.
    parts : mapping
        Canonical data sets: ``"train"``, ``"valid"`` (chooses the best weights), ``"test"`` (scored
        once, at the end).
    task : Task
    network : callable
        Makes the network.
    config : TrainConfig
    options : Training
    metrics : sequence of str
        Those of :func:`stforecast.evaluate`; where the published figures are computed otherwise,
        their way is added under its own name.
    scored : callable
        What is done to forecast and truth before they are scored: they must lie in [0, 1] then.
    train_times : array of times, optional
        Train on the windows of these initialisations only. Default: all there are.
    init_time : array of times, optional
        Initialisations of the test part to score. Default: all that can be.
    steps : int, optional
        Target steps to forecast and score, where the model rolls out past the trained ones.
    stride : int
        Score every `stride`-th of these initialisations.
    rivals : callable, optional
        Gives models to score as well, by name, for the trained forecaster; "this run" stands in
        its place.

    Returns
    -------
    pandas.DataFrame
        "this run" and its rivals among the published rows.
    """
    from . import Persistence, evaluate, predict
    from .evaluation import benchmark_table, save_scores, scorecard
    from .windows import initialisations

    forecaster = train(parts, task, network, config, options, init_time=train_times)

    test, steps = parts["test"], steps or task.target_steps
    if init_time is None:
        init_time = initialisations(test, replace(task, target_steps=steps))
    init_time = init_time[::stride]
    models: dict[str, WindowForecaster] = {"this run": forecaster, "Copying": Persistence(task)}
    models |= rivals(forecaster) if rivals else {}
    forecasts = {n: predict(test, m, init_time=init_time, steps=steps) for n, m in models.items()}
    store = write_forecast(forecasts["this run"], options.output / "forecast.zarr")
    names = list(forecasts["this run"].data_vars)  # zarr sorts them
    forecasts["this run"] = xr.open_zarr(store)[names]
    truth = scored(test)
    scores = {
        name: evaluate(scored(f), truth, metrics=metrics, data_range=1.0, protocol="paper")
        for name, f in forecasts.items()
    }
    save_scores(scorecard(scores), options.output)
    return benchmark_table(benchmark, scores)
