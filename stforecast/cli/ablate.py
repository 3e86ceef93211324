"""Take SimVPv2 apart, as the paper does, on one of its benchmarks.

modules (section V-E2, Fig. 11): encoder, translator and decoder as they were after some steps of a
training are exchanged for those after others. Every combination is scored on the test period and
drawn: what a part has learned between these steps is what is lost without it. It trains, and keeps
the states of these steps, or takes them from a run that has kept them. Writes modules.csv,
pictures.

translators (Table VIII): SimVPv2 with each translator, the same steps for all. This is
"stforecast compare" with these models: it writes the same files.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import xarray as xr

from ..errors import InputError
from ..evaluation import benchmark_table
from ..files import replacing
from ..forecasting import load, predict
from ..forecasting.forecaster import Forecaster
from ..models import PARTS, SimVPv2, assemble
from ..models.surroundings import find_device
from ..plots import clip_strip, forecast_grid, is_clip, save
from ..training import kept_steps, weights_at
from . import compare
from .benchmark import train
from .compare import evaluated, made, published_as, run_options, steps_per_epoch
from .compared import translators_of
from .opening import OPENINGS, Opened
from .tables import to_lines

log = logging.getLogger(__name__)
_TABLE_VIII = ("vit", "swin", "poolformer", "mlpmixer", "convmixer", "incepu", "gsta")
_PICTURES = {"modules": False, "modules_error": True}  # whether of the errors
_WHOLE = "as trained"  # the row of the run's own weights


@dataclass(kw_only=True)
class Options(compare.Options):
    """Take SimVPv2 apart."""

    study: Literal["modules", "translators"] = "modules"
    """modules: parts of one training, of several steps. translators: one training of each."""
    models: tuple[str, ...] = ()
    """Translators: gsta, incepu, vit, swin, poolformer, mlpmixer, convmixer, tau, van, moganet,
    hornet, convnext, uniformer; all: all of them. Default: the seven of Table VIII; of modules,
    which has one, gsta."""
    at: tuple[int, ...] = ()
    """Of modules: two or three steps of the training whose states are exchanged. Default: a tenth
    of the steps, and all of them; with --run, the first and the last that it has."""
    run: Path | None = None
    """Of modules: directory of a training of this benchmark that is done, with run/ and model/, as
    the pipelines, compare and this command leave it. It keeps its last two states, and those that
    it was told to."""
    output: Path = Path("runs/ablate")
    """Where results go."""


def main(options: Options) -> None:
    """Run the command."""
    if options.study == "modules":
        _modules(options)
        return
    if options.at or options.run:
        raise InputError("--at and --run are for --study modules, found --study translators")
    given = {f.name: getattr(options, f.name) for f in fields(compare.Options)}
    given["models"] = tuple(translators_of(options.models or _TABLE_VIII))
    compare.main(compare.Options(**given))


def _modules(options: Options) -> None:
    """Score and draw every combination of the parts of several steps."""
    if options.minutes is not None or options.trials != 1:
        raise InputError("--study modules is of one training, by --steps: no --minutes or --trials")
    if len(set(options.at)) not in (0, 2, 3) or min(options.at, default=1) < 1:
        raise InputError(f"--at must be two or three steps of a training, found {options.at}")
    told = ("models", "steps", "batch_size", "learning_rate")
    given = [f"--{name.replace('_', '-')}" for name in told if getattr(options, name)]
    if options.run and given:
        raise InputError(f"--run is of a training that is done: leave out {', '.join(given)}")
    opened = OPENINGS[options.benchmark](options, run_options(options, {}))
    directory, steps = (_trained if options.run is None else _there)(options, opened)
    whole = _whole(directory, opened).to(find_device(options.device))
    states = {step: weights_at(directory / "run", step) for step in steps}
    best = whole.training.get("validation", {}).get("step", kept_steps(directory / "run")[-1])

    rows, scores, shown = {}, {}, {}
    for at in [None, *product(steps, repeat=len(PARTS))]:
        name = _WHOLE if at is None else " / ".join(map(str, at))
        rows[name] = at or (best,) * len(PARTS)
        mixed = copy.deepcopy(whole)  # a forecast that is computed later has its own weights
        parts = dict(zip(PARTS, at or (), strict=at is not None))
        if parts:
            taken: Any = mixed.network
            assemble(taken, {part: states[step] for part, step in parts.items()})
        forecast = predict(opened.parts["test"], mixed, init_time=opened.init_time)
        if parts:
            words = ", ".join(f"{part}\N{NO-BREAK SPACE}{step}" for part, step in parts.items())
            shown[words] = forecast.isel(time=[-1]).compute()
        scores[name] = evaluated(forecast, opened)
        log.info("scored %s", name)

    found = benchmark_table(published_as(options), scores).loc[list(scores)]
    found = found.drop(columns="protocol").dropna(axis=1, how="all")
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(PARTS)).join(found)
    options.output.mkdir(parents=True, exist_ok=True)
    with replacing(options.output / "modules.csv") as path:
        table.rename_axis("parts").to_csv(path)
    drawn = _drawn(shown, opened, options.output, len(steps))
    written = ", ".join(["modules.csv", *(path.name for path in drawn)])
    per_epoch = steps_per_epoch(opened, whole.training["config"]["batch_size"])
    epochs = ", ".join(f"{step} (epoch {step / per_epoch:.3g})" for step in steps)
    sys.stdout.write(
        f"\n{' / '.join(PARTS)}, each as after step {epochs}:\n{to_lines(found)}\n"
        f"{_WHOLE}: the weights that the training has chosen, of step {best}\n"
        f"\nResults are in {options.output.resolve()}:\n  {written}\n"
    )


def _trained(options: Options, opened: Opened) -> tuple[Path, list[int]]:
    """Train, and keep the states of some steps: the directory, and these."""
    models = translators_of(options.models or ("gsta",))
    if len(models) != 1:
        raise InputError(f"--study modules is of one network, found {', '.join(models)}")
    form = {**next(iter(models.values())), "learning_rate": options.learning_rate}
    network, config = made(form, options, opened)
    total = config.steps or config.epochs * steps_per_epoch(opened, config.batch_size)
    steps = sorted(set(options.at or (max(1, total // 10), total)))
    there = kept_steps(options.output / "run")
    over = [step for step in steps if step not in there and step <= max(there, default=0)]
    if max(steps) > total or over or len(steps) < 2:
        kept = f", and is past step {over[0]}, keeping {there}" if over else ""
        raise InputError(
            f"expected two or three steps of --at, found {steps}: the training has {total}{kept}; "
            "give others, or another --output"
        )
    config = replace(config, keep_checkpoints=(*steps, *there))
    own = run_options(options, form)
    train(
        opened.parts, opened.task, network, config, own, opened.finish,
        init_time=opened.train_times,
    )  # fmt: skip
    return options.output, steps


def _there(options: Options, opened: Opened) -> tuple[Path, list[int]]:
    """The directory of a training that is done, and the steps of it that are to be exchanged."""
    assert options.run is not None
    steps = kept_steps(options.run / "run")
    if len(steps) < 2:
        raise InputError(
            f"{options.run / 'run'} has checkpoints of {len(steps)} steps, expected two or more"
        )
    return options.run, sorted(set(options.at or (steps[0], steps[-1])))


def _whole(directory: Path, opened: Opened) -> Forecaster:
    """The forecaster of a training, which must be of this benchmark, and of the run beside it."""
    whole = load(directory / "model")
    if not isinstance(whole.network, SimVPv2):
        kind = type(whole.network).__name__
        raise InputError(f"{directory} has the network {kind}, expected a SimVPv2")
    if whole.task != opened.task:
        raise InputError(
            f"{directory} is of {whole.task}, here is {opened.task}: give the --benchmark, --data "
            "and --preset that it was trained with"
        )
    own, chosen = whole.network.state_dict(), weights_at(directory / "run", "best")
    if own.keys() != chosen.keys() or not all(own[n].equal(t) for n, t in chosen.items()):
        raise InputError(
            f"{directory / 'model'} is not what {directory / 'run'} has trained: its weights differ"
        )
    return whole


def _drawn(
    shown: Mapping[str, xr.Dataset], opened: Opened, output: Path, steps: int
) -> Iterator[Path]:
    """Draw the last forecast of every combination, and its errors."""
    test, columns = opened.parts["test"], steps ** (len(PARTS) - 1)
    try:
        if is_clip(next(iter(shown.values())), test):
            yield save(clip_strip(shown, test), output / "modules.png")
            return
        for v, (name, errors) in product(opened.task.outputs, _PICTURES.items()):
            suffix = f"_{v}" if len(opened.task.outputs) > 1 else ""
            figure = forecast_grid(shown, test, errors=errors, columns=columns, variable=v)
            yield save(figure, output / f"{name}{suffix}.png")
    except ImportError as missing:
        log.info("no pictures: %s", missing)
