"""What the pipelines of the benchmarks share: options, training, scores."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from ..conventions.grid import Grid
from ..files import replacing
from ..forecasting.writing import write_forecast
from .run import OnlyHelped, command_line
from .tables import TABLE

if TYPE_CHECKING:
    import pandas as pd

    from ..forecasting.forecaster import Forecaster
    from ..task import Task, WindowForecaster
    from ..training.config import TrainConfig


@dataclass(kw_only=True)
class TrainingOptions:
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
    loss: Literal["mse", "mae", "huber", "tau"] | None = None
    """What the mean is taken of; the preset's unless given."""
    optimizer: Literal["adam", "adamw", "muon"] | None = None
    """muon: for the matrices, and AdamW for the rest; the preset's unless given."""
    weight_decay: float | None = None
    """Of the optimiser."""
    rollout: str | None = None
    """Applications of the network that the loss is over, each on the output before it: 4, say; or
    from which step on it is how many, 0:1,400:2,800:4."""
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
    """Budget of this training: the best weights so far are scored, and the same command goes on."""
    warm_start: Path | None = None
    """The bundle of a trained model to start from."""
    ensemble: int | None = None
    """Members of the forecast: after its training the network is taught to draw them, on the fair
    CRPS; with --warm-start the bundle's network is, and is not trained otherwise. Scores are of the
    members' mean."""
    ensemble_steps: int | None = None
    """Optimiser steps of this second training, in place of its 600; half as many, in which it
    learns what noise does, come in front of them."""
    resume: Literal["auto", "never"] = "auto"
    """never: start anew where the output directory holds a run, which is lost."""
    trials: int = 1
    """Runs with seeds of their own; mean and standard deviation of their scores are printed."""
    seed: int = 0
    """Initial weights, order of the windows."""
    device: str | None = None
    """Where to compute: cpu, cuda. A GPU if there is one."""

    def config(self, **recipe: Any) -> TrainConfig:
        """The preset's settings, and these where they are given."""
        from ..training.config import TrainConfig

        own = ("output", "warm_start", "ensemble", "ensemble_steps", "resume", "trials")
        names = (f.name for f in fields(TrainingOptions) if f.name not in own)
        given = {name: getattr(self, name) for name in names}
        if self.learning_rate == "auto":
            del given["learning_rate"]
        if self.rollout is not None:
            given["rollout"] = _rollout(self.rollout)
        return TrainConfig(**recipe | {k: v for k, v in given.items() if v is not None})


def _rollout(text: str) -> int | list[tuple[int, ...]] | str:
    """Read ``4`` or ``0:1,400:4``; what is neither stays as it is, for TrainConfig to refuse."""
    try:
        if ":" not in text:
            return int(text)
        return [tuple(int(n) for n in pair.split(":")) for pair in text.split(",")]
    except ValueError:
        return text


def clip_to_unit(ds: xr.Dataset) -> xr.Dataset:
    """Clip to [0, 1], as the published scores of video do before anything else."""
    return ds.clip(0, 1, keep_attrs=True)


def train(
    parts: Mapping[str, xr.Dataset],
    task: Task,
    network: Callable[[], Any] | str,
    config: TrainConfig,
    options: TrainingOptions,
    finish: Callable[[Forecaster], Forecaster] | None = None,
    **more: Any,
) -> Forecaster:
    """Train as the options of a pipeline say, and save the bundle.

    Writes ``run/`` (a stopped run goes on from there), ``model/`` (a bundle) and, where the
    learning rate is looked for, ``learning_rate/`` and ``learning_rate.csv``. The program ends here
    in all processes of ``torchrun`` but the first. Where a budget of minutes ended the training,
    the forecaster has the best weights so far: :func:`unfinished` says so.

    Parameters
    ----------
    parts : mapping
        Data sets ``"train"`` and, where one chooses the weights, ``"validation"``.
    task : Task
    network : callable or str
        Makes the network, or its name.
    config : TrainConfig
        From :meth:`TrainingOptions.config`.
    options : TrainingOptions
    finish : callable, optional
        Makes of the trained forecaster the one that is saved: of the data as they are, where it was
        trained on scaled ones or on anomalies.
    **more
        For :func:`stforecast.fit`.

    Returns
    -------
    Forecaster
    """
    from ..training.distributed import is_main
    from ..training.ensemble import EnsembleConfig
    from ..training.fit import fit
    from ..training.tuning import find_learning_rate

    more |= {"warm_start": options.warm_start, "resume": options.resume}
    drawing: dict[str, Any] = {"model": network}
    if options.ensemble is not None:
        steps, how = options.ensemble_steps, EnsembleConfig()
        drawing["ensemble"] = how if steps is None else replace(how, steps=steps)
    again = options.ensemble is not None and options.warm_start is not None
    if again:  # the network is the bundle's
        del drawing["model"]
    if options.learning_rate == "auto" and not again:
        began = time.monotonic()
        table = find_learning_rate(
            parts["train"],
            task,
            validation=parts["validation"],
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
        config=config,
        validation=parts.get("validation"),
        run_dir=options.output / "run",
        about={"command": command_line()},
        **drawing,
        **more,
    )
    if not is_main():
        raise OnlyHelped(0)
    forecaster = forecaster if finish is None else finish(forecaster)
    forecaster.save(options.output / "model")
    return forecaster


def members_of(forecaster: Forecaster, options: TrainingOptions) -> int | None:
    """How many members the forecast is to have; None where no training has got so far.

    Parameters
    ----------
    forecaster : Forecaster
    options : TrainingOptions

    Returns
    -------
    int or None
    """
    return None if forecaster.draws is None else options.ensemble


def unfinished(forecaster: Forecaster) -> str:
    """Say after which step a budget of minutes ended the training; empty where none did."""
    stopped = forecaster.training.get("stopped", {})
    if stopped.get("why") != "minutes":
        return ""
    best = forecaster.training.get("validation", {}).get("step", stopped["step"])
    return (
        f"Stopped after step {stopped['step']} of {stopped['steps']}, as the minutes are over; "
        f"scored are the weights of step {best}"
    )


def train_and_score(
    benchmark: str,
    parts: Mapping[str, xr.Dataset],
    task: Task,
    network: Callable[[], Any] | str,
    config: TrainConfig,
    options: TrainingOptions,
    *,
    metrics: Sequence[str] = ("mse_sum", "mae_sum", "ssim", "psnr"),
    where: Callable[[Any], Any] | None = None,
    scored: Callable[[xr.Dataset], xr.Dataset] = clip_to_unit,
    train_times: Any = None,
    init_time: Any = None,
    steps: int | None = None,
    stride: int = 1,
    references: Callable[[Forecaster], Mapping[str, WindowForecaster]] | None = None,
    finish: Callable[[Forecaster], Forecaster] | None = None,
    sample: Mapping[str, str] | None = None,
    lpips: Sequence[Path] = (),
) -> pd.DataFrame:
    """Train, score beside persistence on the test part, and put the published rows beside both.

    Writes what :func:`train` does, ``forecast.zarr``, ``table.csv``, and ``scores.nc``,
    ``scores.csv``, pictures and ``report.html`` (:func:`stforecast.plots.write_results`).

    Parameters
    ----------
    benchmark : str
        Which published table, by its name in :func:`stforecast.evaluation.benchmark_table`.
    parts : mapping
        Canonical data sets: ``"train"``, ``"validation"`` (chooses the best weights; without it
        the last ones are scored), ``"test"`` (scored once, at the end).
    task : Task
    network : callable or str
        Makes the network, or its name.
    config : TrainConfig
    options : TrainingOptions
    metrics : sequence of str
        Those of :func:`stforecast.evaluate`; where the published figures are computed otherwise,
        their way is added under its own name.
    where : callable, optional
        As of :func:`stforecast.evaluate`: which points count. Scores are of values as they are
        then, and not of whole frames on [0, 1].
    scored : callable
        What is done to forecast and truth before they are scored: they must lie in [0, 1] then.
        What is written is as it was before.
    train_times : array of times, optional
        Train on the windows of these initialisations only. Default: all there are.
    init_time : array of times, optional
        Initialisations of the test part to score. Default: all that can be.
    steps : int, optional
        Target steps to forecast and score, where the model rolls out past the trained ones.
    stride : int
        Score every `stride`-th of these initialisations.
    references : callable, optional
        Gives models to score as well, by name, for the trained forecaster; "this run" stands in
        its place.
    finish : callable, optional
        As of :func:`train`; the test part is what the forecaster that it makes takes.
    sample : mapping, optional
        What is scored, in words: published rows of something else are left out (see
        :func:`stforecast.evaluation.benchmark_table`).
    lpips : sequence of path, optional
        Weights of LPIPS (:func:`stforecast.evaluation.lpips.load_lpips`), to score it too.

    Returns
    -------
    pandas.DataFrame
        "this run" and its references among the published rows; ``attrs["written"]`` names the
        files of the scores.
    """
    import pandas as pd

    from ..baselines.persistence import Persistence
    from ..evaluation.evaluate import evaluate
    from ..evaluation.lpips import load_lpips
    from ..evaluation.published import benchmark_table
    from ..evaluation.scorecards import scorecard
    from ..forecasting.predict import predict
    from ..models.cost import summary
    from ..plots.results import write_results
    from ..task import initialisations

    seen: dict[str, Any] = {}
    if lpips:  # before the training: they may be none
        seen = {"metrics": (*metrics, "lpips"), "lpips": load_lpips(lpips)}
    forecaster = train(parts, task, network, config, options, finish, init_time=train_times)

    test, steps = parts["test"], steps or task.target_steps
    if init_time is None:
        init_time = initialisations(test, replace(task, target_steps=steps))
    init_time = init_time[::stride]
    models: dict[str, WindowForecaster] = {"this run": forecaster, "persistence": Persistence(task)}
    models |= references(forecaster) if references else {}
    drawn: dict[str, Any] = {
        "this run": {"ensemble": members_of(forecaster, options), "seed": options.seed}
    }
    how_far: dict[str, Any] = {"init_time": init_time, "steps": steps}
    forecasts = {n: predict(test, m, **how_far, **drawn.get(n, {})) for n, m in models.items()}
    store = write_forecast(forecasts["this run"], options.output / "forecast.zarr")
    names = list(forecasts["this run"].data_vars)  # zarr sorts them
    forecasts["this run"] = xr.open_zarr(store)[names]
    truth = scored(test)
    frames = {"data_range": 1.0, "protocol": "paper"} if where is None else {"where": where}
    how: dict[str, Any] = {"allow_overlap": False, "metrics": metrics} | frames | seen
    scores = {name: evaluate(scored(f), truth, **how) for name, f in forecasts.items()}
    written = write_results(
        scorecard(scores),
        forecasts,
        test,
        options.output,
        fields=True,
        training={"this run": forecaster.training},
        about={"scale": "scores are of values on [0, 1], maps show them as they are"}
        if where is None
        else {"where": f"only points where {next(iter(scores.values())).attrs['where']} count"},
    )
    table = benchmark_table(benchmark, scores, sample=sample)
    if lpips and "lpips_x100" not in table:  # it has no published ones
        values = {
            n: 100 * float(s["frames_overall"].sel(metric="lpips")) for n, s in scores.items()
        }
        table.insert(table.shape[1] - 1, "lpips_x100", pd.Series(values).reindex(table.index))
    if "gflops" in table:
        shape = (1, task.input_steps, len(task.channels), *Grid.of(test).shape)
        table.loc["this run", "gflops"] = summary(forecaster.network, shape).flops / 1e9
    size = sum(p.numel() for p in forecaster.network.parameters()) / 1e6
    words = [f"{size:.2f} M parameters", *filter(None, [unfinished(forecaster).lower()])]
    told = "; ".join([str(table.loc["this run", "protocol"]), *words])
    table.loc["this run", "protocol"] = told
    with replacing(options.output / TABLE) as path:
        table.to_csv(path)
    table.attrs["written"] = [TABLE, *(path.name for path in written)]
    return table
