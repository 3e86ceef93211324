"""Train a forecaster on data of any kind, score it beside what is to be beaten, and save it.

What is not said follows from the data: what is forecast from how many steps, the periods, what
forecasts are differences from. Writes the trained model, scores, pictures and report.html; a run
that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..conventions.grid import Grid
from ..evaluation.comparison import compare_forecasts, to_text
from ..forecasting import predict, write_forecast
from ..models import registry
from ..plots.results import write_results
from .benchmark import TrainingOptions, members_of, train, unfinished
from .compared import SMALL
from .plan import plan


@dataclass(kw_only=True)
class Options(TrainingOptions):
    """Train a forecaster on your data."""

    path: str
    """A file, a directory, a .zip, a zarr store: what `stforecast describe` knows."""
    output: Path = Path("fitted")
    """Where results go: model/ is the trained model."""
    variables: tuple[str, ...] = ()
    """What is forecast. Default: traffic flows, 2 m temperature, or the first variable."""
    input_steps: int | None = None
    """Length of the history; by the time step unless given."""
    target_steps: int | None = None
    """Length of the forecast; by the time step unless given."""
    train: str | None = None
    """Training period: 2013:2016, or 2013-01-01/2013-06-30. Default: the first 70% of the times."""
    validation: str | None = None
    """Validation period: chooses the best weights. Default: the next 15%."""
    test: str | None = None
    """Test period: scored once, at the end. Default: the last 15%."""
    model: str = "SimVPv2"
    """Network, by its name, in any case."""


def main(options: Options) -> None:
    """Run the command."""
    periods = {part: getattr(options, part) for part in ("train", "validation", "test")}
    found = plan(
        options.path,
        variables=options.variables,
        input_steps=options.input_steps,
        target_steps=options.target_steps,
        periods=periods,
    )
    parts, name = found.parts(), registry.spelled(options.model)
    told = ", ".join(f"{k} {v}" for k, v in found.periods.items())
    sys.stdout.write(f"{found.task}\n{told}\n\n")
    sys.stdout.flush()
    network: Any = found.make
    if name != "SimVPv2":
        grid = Grid.of(parts["train"]).to_dict()
        settings = SMALL.get(name or "", {})
        network = partial(registry.make_network, options.model, found.task, grid, settings)
    forecaster = train(parts, found.task, network, options.config(**found.training), options)

    test = parts["test"]
    models = {registry.name_of(forecaster.network): forecaster, **found.floors(parts["train"])}
    times = found.times(test)
    drawn: dict[str, Any] = {"ensemble": members_of(forecaster, options), "seed": options.seed}
    forecasts = {
        n: predict(test, m, init_time=times, **(drawn if m is forecaster else {}))
        for n, m in models.items()
    }
    write_forecast(next(iter(forecasts.values())), options.output / "forecast.zarr")
    card = compare_forecasts(forecasts, test, nan=found.task.nan)
    training = {registry.name_of(forecaster.network): forecaster.training}
    written = write_results(card, forecasts, test, options.output, fields=True, training=training)
    sys.stdout.write("\n".join(filter(None, [to_text(card), unfinished(forecaster)])))
    sys.stdout.write(f"\n\nResults are in {options.output.resolve()}:\n")
    sys.stdout.write(f"  model/, forecast.zarr, {', '.join(p.name for p in written)}\n")
