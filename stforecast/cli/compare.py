"""Train the paper's models on one of its benchmarks, side by side, each with the same budget.

All get the same data, inputs, batches and number of steps, or of minutes. In the fast preset those
that can forecast the change from the last step; SimVPv2 is without the linear guess, which the
others have not. The loss is the squared error, with TAU's own addition; a graph network as printed
has its own. The best weights are chosen on the validation period, and scored once on the test
period.

Writes compare.csv, compare.nc, report.html and pictures, error against cost among them. A
comparison that was stopped goes on when the same command is given again, with more models or trials
too; a model that fails is named, and the others go on. Several processes with the same output
directory, one for each GPU, share the models.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import xarray as xr

from ..conventions.grid import Grid
from ..errors import InputError
from ..evaluation import benchmark_table, evaluate, scorecard
from ..files import locked, replacing
from ..forecasting import load, predict, write_forecast
from ..models.cost import forecasts_per_second, summary
from ..models.first_guess import RIDGE
from ..plots import performance, save, write_results
from ..task import WindowForecaster, initialisations
from ..training.tuning import find_learning_rate, pace
from .benchmark import train
from .compared import as_printed, models_of, weaned
from .opening import OPENINGS, Opened, Where
from .recipes import RECIPES, BenchmarkOptions, recipe
from .tables import compared, to_lines, together

log = logging.getLogger(__name__)
Benchmark = Literal[
    "weatherbench_t2m", "taxibj", "moving_mnist", "kth", "caltech", "robonet", "bridgedata"
]
_PUBLISHED = {"kth": "kth_10_20"}
_CHECKS = 10  # validations within a budget, which take at most a fifth of it
_SHARE = 1 / 5
_TIMED = 64  # windows of the validation that is timed
_FEWEST = 16  # windows of a validation: fewer choose by chance


@dataclass(kw_only=True)
class Options(Where):
    """Compare models on a benchmark."""

    repeats_itself: ClassVar[bool] = True

    benchmark: Benchmark = "weatherbench_t2m"
    """Which of the paper's. taxibj takes New York's flows as well."""
    models: tuple[str, ...] = ("simvpv2", "simvp", "convlstm", "predrnn")
    """By the names of the paper's tables, in any case, with commas or blanks between them: simvpv2,
    simvp, tau, vit, swin, predrnn++, clcrn, ...; all: those of the benchmark's published table."""
    steps: int | None = None
    """Budget: optimiser steps of each training."""
    minutes: float | None = None
    """Budget: minutes of each training. A few steps are timed, and as many planned as fit, so that
    the schedule of the learning rate is whole; validations take at most a fifth of it, with fewer
    windows where they are slow. Without a budget: the preset's epochs or steps."""
    trials: int = 1
    """Trainings of each model, with seeds of their own: mean and standard deviation."""
    learning_rate: float | Literal["auto"] | None = None
    """Peak learning rate. Default: the model's own. auto: the best of the paper's grid on the
    validation period, for each model, by runs of a fifth of the steps that the budget leaves
    alone."""
    preset: Literal["fast", "paper"] = "fast"
    """fast: small networks. paper: those of the paper, and its epochs; wants a GPU."""
    batch_size: int | None = None
    """Windows in a step; the preset's unless given."""
    stride: int = 1
    """Score every n-th initialisation of the test part."""
    output: Path = Path("runs/compare")
    """Where results go."""
    seed: int = 0
    """Of the first trial."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1. A GPU if there is one."""


def main(options: Options) -> None:
    """Run the command."""
    if options.steps is not None and options.minutes is not None:
        raise InputError("give --steps or --minutes, not both: a comparison has one budget")
    if options.trials < 1:
        raise InputError(f"--trials must be at least 1, found {options.trials}")
    chosen = models_of(options.models, list(map(str, benchmark_table(published_as(options)).index)))
    _one_comparison(options)
    opened = OPENINGS[options.benchmark](options, run_options(options, {}))
    shape = (
        1,
        opened.task.input_steps,
        opened.task.channels_in,
        *Grid.of(opened.parts["test"]).shape,
    )
    failed, elsewhere = dict[str, str](), list[str]()
    for name, form in chosen.items():
        directory = options.output / as_path(name)
        directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(directory / ".lock", f"comparing {name}"))
            except InputError as error:
                log.info("%s is left to another process: %s", name, error)
                elsewhere.append(name)
                continue
            try:
                _run(name, form, options, opened, directory, shape)
            except Exception as error:  # whatever it is, the other models go on
                log.warning("%s failed: %s", name, error)
                (directory / "failed.txt").write_text(traceback.format_exc())
                failed[name] = " ".join(f"{type(error).__name__}: {error}".split())
    _report(options, opened, chosen)
    notes = [f"{name} failed: {why:.300}" for name, why in failed.items()]
    if elsewhere:
        notes.append(
            f"{', '.join(elsewhere)}: in the hands of another process; give the command again "
            "when it has ended"
        )
    sys.stdout.write("".join(f"{note}\n" for note in notes))
    if failed:
        raise SystemExit(1)


def published_as(options: Options) -> str:
    """The name of the benchmark's published table."""
    return _PUBLISHED.get(options.benchmark, options.benchmark)


def as_path(name: str) -> str:
    """A model's name as a directory's."""
    return name.lower().replace("+", "p")


def _one_comparison(options: Options) -> None:
    """Refuse an output directory that holds a comparison of another kind."""
    own = {"output", "models", "trials", "device"}
    settings = json.loads(
        json.dumps({k: v for k, v in asdict(options).items() if k not in own}, default=str)
    )
    path = options.output / "compare.json"
    if path.is_file():
        before = json.loads(path.read_text())
        if other := sorted(k for k in settings if before.get(k) != settings[k]):
            raise InputError(
                f"{options.output} holds a comparison with other settings ("
                + ", ".join(f"{k} {before.get(k)!r}, now {settings[k]!r}" for k in other)
                + "): give another directory, --output DIR"
            )
        return
    with replacing(path) as new:
        new.write_text(json.dumps(settings, indent=1) + "\n")


def run_options(options: Options, form: Mapping[str, Any], **more: Any) -> BenchmarkOptions:
    """Options of one training."""
    names = ("steps", "preset", "batch_size", "stride", "seed", "device", "output")
    given = {name: getattr(options, name) for name in names}
    return BenchmarkOptions(**given | dict(form) | more)


# --- one model ------------------------------------------------------------------------------------


def _run(
    name: str,
    form: Mapping[str, Any],
    options: Options,
    opened: Opened,
    directory: Path,
    shape: tuple[int, ...],
) -> None:
    """Train and score the trials of a model that are not there yet."""
    wanted = [directory / f"trial-{i + 1}" for i in range(options.trials)]
    missing = [path for path in wanted if not (path / "result.json").is_file()]
    if not missing:
        return
    log.info("%s: %d of %d trials to go", name, len(missing), len(wanted))
    network, config = made(form, options, opened)
    planned = _planned(network, config, options, opened, directory)
    config = replace(config, **planned["training"])
    steps = config.steps or config.epochs * steps_per_epoch(opened, config.batch_size)
    network = weaned(network, steps, opened.task, Grid.of(opened.parts["test"]))
    for path in missing:
        seed = options.seed + wanted.index(path)
        own = run_options(options, form, output=path, seed=seed)
        config = replace(config, seed=seed)
        forecaster = train(
            opened.parts, opened.task, network, config, own, opened.finish,
            init_time=opened.train_times,
        )  # fmt: skip
        test = opened.parts["test"]
        forecast = predict(test, forecaster, init_time=opened.init_time)
        if path is wanted[0]:  # for the pictures
            store = write_forecast(forecast, path / "forecast.zarr")
            forecast = xr.open_zarr(store)[list(forecast.data_vars)]
        scores = evaluated(forecast, opened)
        with replacing(path / "scores.nc") as new:
            scores.drop_encoding().to_netcdf(new)
        found = planned["cost"] | _cost(forecaster, shape, config.batch_size)
        found |= {"minutes": _minutes(path / "run"), "steps": config.steps or math.nan}
        found |= {"learning_rate": config.learning_rate}
        with replacing(path / "result.json") as new:
            new.write_text(json.dumps(found, indent=1) + "\n")
    (directory / "failed.txt").unlink(missing_ok=True)


def made(form: Mapping[str, Any], options: Options, opened: Opened) -> tuple[Any, Any]:
    """The network, and its training: that of all, but for the learning rate."""
    name, own = options.benchmark, run_options(options, form)
    grid = Grid.of(opened.parts["test"])
    if not as_printed(own):
        found = recipe(name, own, grid=grid.shape, task=opened.task)
        network: Any = found[0]
        if own.model == "SimVPv2" and own.preset == "fast":
            none = {"linear_guess": False, "guess_ridge": RIDGE, "known_channels": 0}
            network = partial(network, **none)  # as the others
        return network, found[1] if "loss" in form else replace(found[1], loss="mse")
    # A graph network as printed has windows, periods and faults of its own.
    network, _ = recipe(name, replace(own, preset="fast"), grid=grid.shape, task=opened.task)
    return network, own.config(**RECIPES[name].paper)


def _planned(
    network: Any, config: Any, options: Options, opened: Opened, directory: Path
) -> dict[str, Any]:
    """How many steps the budget has, how fast they are, and the learning rate: found out once."""
    path = directory / "plan.json"
    if path.is_file():
        return json.loads(path.read_text())
    parts: dict[str, Any] = {"ds": opened.parts["train"], "validation": opened.parts["validation"]}
    parts |= {"init_time": opened.train_times}
    windows = min(config.val_windows, len(initialisations(opened.parts["validation"], opened.task)))
    timed = config
    if options.minutes is not None:
        timed = replace(config, val_windows=min(windows, _TIMED))
    found = pace(task=opened.task, model=network, config=timed, **parts)
    per_epoch = steps_per_epoch(opened, config.batch_size)
    cost = {"seconds_per_step": found["step"], "seconds_per_epoch": found["step"] * per_epoch}
    if "peak_memory" in found:
        cost["peak_memory_gib"] = found["peak_memory"] / 2**30
    training: dict[str, Any] = {}
    if options.minutes is not None:
        each, share = found["validation"] / timed.val_windows, _SHARE * 60 * options.minutes
        fit_in = int(share / _CHECKS / each) if each else windows
        training["val_windows"] = scored = min(windows, max(_FEWEST, fit_in))
        checks = max(1, min(_CHECKS, int(share / (each * scored) + 1e-9))) if each else _CHECKS
        left = 60 * options.minutes - checks * each * scored
        if left < found["step"]:
            raise InputError(
                f"{options.minutes:g} minutes are too few: a step takes {found['step']:.3g} s, a "
                f"validation {each * scored:.3g} s"
            )
        training["steps"] = int(left / found["step"])
        training["validate_every"] = math.ceil(training["steps"] / checks)
        training["compile"] = "never"  # which takes minutes of its own
    if options.learning_rate == "auto":
        config = replace(config, **training)
        steps = max(1, (config.steps or config.epochs * per_epoch) // 5)
        tried = weaned(network, steps, opened.task, Grid.of(opened.parts["test"]))
        table = find_learning_rate(
            task=opened.task, model=tried, config=config, steps=steps,
            run_dir=directory / "learning_rate", **parts,
        )  # fmt: skip
        with replacing(directory / "learning_rate.csv") as new:
            table.to_csv(new)
        training["learning_rate"] = table.attrs["best"]
    elif options.learning_rate is not None:
        training["learning_rate"] = options.learning_rate
    planned = {"training": training, "cost": cost}
    with replacing(path) as new:
        new.write_text(json.dumps(planned, indent=1) + "\n")
    return planned


def steps_per_epoch(opened: Opened, batch_size: int) -> int:
    """Optimiser steps in which every training window is shown once."""
    times = opened.train_times
    if times is None:
        times = initialisations(opened.parts["train"], opened.task)
    return math.ceil(len(times) / batch_size)


def _cost(forecaster: Any, shape: tuple[int, ...], batch: int) -> dict[str, float]:
    """What the network costs: counted, but for the speed."""
    network = forecaster.network
    found = {"parameters_m": sum(p.numel() for p in network.parameters()) / 1e6}
    try:
        counted = summary(network, shape)
        found["gflops"] = counted.flops / 1e9
        found["activations_gib"] = batch * counted.activation_bytes / 2**30
    except (RuntimeError, NotImplementedError, TypeError) as error:  # nothing to compute with
        log.info("its operations are not counted: %s", error)
    return found | {"forecasts_per_second": forecasts_per_second(network, shape)}


def _minutes(run: Path) -> float:
    """Minutes that a training took, of all its calls."""
    from ..training.log import read_log

    return max((line.get("seconds", 0.0) for line in read_log(run)), default=math.nan) / 60


def evaluated(forecast: xr.Dataset, opened: Opened) -> xr.Dataset:
    """Scores of a forecast of the test part."""
    scored = opened.scored
    how: dict[str, Any] = {"allow_overlap": False, **opened.scoring}
    return evaluate(scored(forecast), scored(opened.parts["test"]), **how)


# --- all of them ----------------------------------------------------------------------------------


def _report(options: Options, opened: Opened, chosen: Mapping[str, Any]) -> None:
    """Put what is there in tables and pictures."""
    there = {name: list(_results(options, name)) for name in chosen}
    there = {name: results for name, results in there.items() if results}
    if not there:
        return
    test, floors = opened.parts["test"], dict[str, WindowForecaster](opened.floors())
    forecasts = {
        name: _of_trial(options.output / as_path(name) / "trial-1", opened) for name in there
    }
    forecasts |= {n: predict(test, m, init_time=opened.init_time) for n, m in floors.items()}
    scores = {name: [one for _, one in results] for name, results in there.items()}
    scores |= {name: [evaluated(forecasts[name], opened)] for name in floors}

    costs = {name: pd.DataFrame([found for found, _ in results]) for name, results in there.items()}
    table = compared(published_as(options), scores, costs, opened.sample)
    ours = table.iloc[: len(there)]  # published rows may have the same names
    with replacing(options.output / "compare.csv") as path:
        table.to_csv(path)
    with replacing(options.output / "compare.nc") as path:
        together(scores).assign_attrs(opened.sample).to_netcdf(path)
    firsts = {name: each[0] for name, each in scores.items()}
    training = {
        name: load(options.output / as_path(name) / "trial-1" / "model").training for name in there
    }
    about = {"compared": f"{options.benchmark}, first of {options.trials} trials"}
    written = write_results(
        scorecard(firsts),
        forecasts,
        test,
        options.output,
        fields=True,
        training=training,
        about=about,
    )
    error = str(ours.columns[0])  # scores come before costs
    try:
        cost = ("seconds_per_epoch", "forecasts_per_second")
        figure = performance(ours, quality=error, costs=cost)
        written.append(save(figure, options.output / "error_against_cost.png"))
    except ImportError as missing:
        log.info("no pictures: %s", missing)
    cost_columns = [c for c in table.columns if any(c in of.columns for of in costs.values())]
    costly = ours[[c for c in cost_columns if c not in ("minutes", "steps")]]
    shown = table.drop(columns=["trials", *cost_columns])
    shown = shown[[c for c in shown.columns if not c.startswith("published_")]]
    sys.stdout.write(f"\n{to_lines(shown)}\n\n{to_lines(costly)}\n")
    if why_not := table.attrs.get("not_comparable"):
        sys.stdout.write(f"{why_not}\n")
    names = ", ".join(["compare.csv", "compare.nc", *(path.name for path in written)])
    sys.stdout.write(f"\nResults are in {options.output.resolve()}:\n  {names}\n")


def _results(options: Options, name: str) -> Iterator[tuple[dict[str, float], xr.Dataset]]:
    """Costs and scores of the trials that are there."""
    for i in range(options.trials):
        directory = options.output / as_path(name) / f"trial-{i + 1}"
        if (directory / "result.json").is_file():
            with xr.open_dataset(directory / "scores.nc", decode_timedelta=True) as ds:
                yield json.loads((directory / "result.json").read_text()), ds.load()


def _of_trial(directory: Path, opened: Opened) -> xr.Dataset:
    return xr.open_zarr(directory / "forecast.zarr")[list(opened.task.outputs)]
