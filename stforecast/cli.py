"""What the pipelines share: options, progress, errors in one line, forecasts streamed to disk."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import xarray as xr

from .errors import DivergenceError, InputError
from .files import replacing

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from .forecaster import Forecaster
    from .prediction import WindowForecaster
    from .training import TrainConfig
    from .windows import Task

Options = TypeVar("Options")


def run(main: Callable[[Options], None], options: type[Options]) -> None:
    """Read the options from the command line, and run `main` with them.

    Bad input ends in one line on the standard error and exit code 2; Ctrl-C in 130; a training that
    diverged in 1. A traceback is printed for faults of the program only.

    Parameters
    ----------
    main : callable
        Takes an instance of `options`.
    options : dataclass
        Its fields and their docstrings become options and their help.
    """
    import tyro

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    try:
        main(tyro.cli(options, description=main.__globals__["__doc__"]))
    except InputError as error:
        _stop(f"error: {error}", 2)
    except DivergenceError as error:
        _stop(f"error: {error}", 1)
    except KeyboardInterrupt as stop:
        _stop(str(stop) or "stopped", 130)
    except OSError as error:
        _stop(f"error: {error}", 2)


def _stop(message: str, code: int) -> None:
    sys.stderr.write(message + "\n")
    raise SystemExit(code)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with time left, samples a second, loss and validation error, for :func:`fit`."""
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
    with Progress(*columns, TextColumn("{task.fields[note]}")) as bar:
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


def write_forecast(forecast: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a forecast as zarr, block by block where it is lazy; an older one is replaced whole.

    Parameters
    ----------
    forecast : xarray.Dataset
        From :func:`stforecast.predict`.
    path : path-like
        The store, ``NAME.zarr``.

    Returns
    -------
    Path
        The store.
    """
    path = Path(path)
    with replacing(path) as store, warnings.catch_warnings():
        # Readers look for consolidated metadata and warn where there is none; the writer warns
        # that zarr's third version has not specified it yet.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        forecast.drop_encoding().to_zarr(store, mode="w", consolidated=True)
    return path


def clip_to_unit(ds: xr.Dataset) -> xr.Dataset:
    """Clip to [0, 1], as the published scores of video do before anything else."""
    return ds.clip(0, 1, keep_attrs=True)


def train_and_score(
    benchmark: str,
    parts: Mapping[str, xr.Dataset],
    task: Task,
    network: Callable[[], nn.Module],
    config: TrainConfig,
    output: Path,
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

    Writes ``run/`` (a stopped run goes on from there), ``model/`` (a bundle), ``forecast.zarr``,
    ``scores.nc`` and ``scores.csv``.

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
    output : Path
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
    from dataclasses import replace

    from . import Persistence, evaluate, fit, predict
    from .evaluation import benchmark_table, save_scores, scorecard
    from .windows import initialisations

    about = {"command": shlex.join(["python", *sys.argv])}
    forecaster = fit(
        parts["train"],
        task,
        model=network,
        config=config,
        valid=parts["valid"],
        init_time=train_times,
        run_dir=output / "run",
        about=about,
    )
    forecaster.save(output / "model")

    test, steps = parts["test"], steps or task.target_steps
    if init_time is None:
        init_time = initialisations(test, replace(task, target_steps=steps))
    init_time = init_time[::stride]
    models: dict[str, WindowForecaster] = {"this run": forecaster, "Copying": Persistence(task)}
    models |= rivals(forecaster) if rivals else {}
    forecasts = {n: predict(test, m, init_time=init_time, steps=steps) for n, m in models.items()}
    store = write_forecast(forecasts["this run"], output / "forecast.zarr")
    names = list(forecasts["this run"].data_vars)  # zarr sorts them
    forecasts["this run"] = xr.open_zarr(store)[names]
    truth = scored(test)
    scores = {
        name: evaluate(scored(f), truth, metrics=metrics, data_range=1.0, protocol="paper")
        for name, f in forecasts.items()
    }
    save_scores(scorecard(scores), output)
    return benchmark_table(benchmark, scores)
