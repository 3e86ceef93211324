"""Hourly global 2 m temperature at 5.625 degrees: from files to a scorecard, maps and a model.

Trains SimVPv2 (or another network by name), scores it beside persistence, climatology and a linear
regression on a period that training never saw, and writes the forecast, the scores, the maps, a
report and the trained model. Presets of SimVPv2: fast has 1.6 M parameters and forecasts the change
in 600 steps; paper has 12.8 M and 50 epochs. With the preset paper a graph network is as it was
printed: one window a day, other periods. Without options it runs on the sample that is in the
package (simulated by a general circulation model, one year).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stforecast import predict
from stforecast.cli import (
    PAPER_PERIODS,
    PRINTED_PERIODS,
    RECIPES,
    BenchmarkOptions,
    as_printed,
    members_of,
    recipe,
    run,
    sample_of,
    task_for,
    title_of,
    to_lines,
    train,
    unfinished,
    weather_floors,
    weather_parts,
    with_constants,
)
from stforecast.conventions import Grid
from stforecast.datasets import open_sample, open_weatherbench
from stforecast.errors import InputError
from stforecast.evaluation import benchmark_table, compare_forecasts, to_text
from stforecast.forecasting import write_forecast
from stforecast.models import registry
from stforecast.plots import write_results
from stforecast.task import initialisations

TASK = RECIPES["weatherbench_t2m"].task


@dataclass(kw_only=True)
class Options(BenchmarkOptions):
    """Train and score a forecaster of hourly global 2 m temperature."""

    data: str | None = None
    """WeatherBench files: a directory of yearly netCDF, a .zip of it, a zarr store (also gs://...).
    Without it: the sample in the package."""
    output: Path = Path("runs/weatherbench_t2m")
    train: str | None = None
    """Training period: 2013:2016, or 2013-01-01/2013-06-30. Paper: 1979:2015."""
    validation: str | None = None
    """Validation period: chooses the best weights. Paper: 2016."""
    test: str | None = None
    """Test period: scored once, at the end. Paper: 2017:2018."""
    validate_every: int | None = None
    """Steps between validations, each with a checkpoint (fast: 100; paper: once an epoch)."""


def beside_published(name: str, scores: dict[str, float], sample: dict[str, str]) -> str:
    """Put scores that are unweighted means beside the published rows, if they compare with them."""
    protocol = "best weights chosen on the validation period"
    ours = {"this run": {**scores, "protocol": protocol}}
    table = benchmark_table("weatherbench_t2m", ours, sample=sample)
    shown = ("this run", name, "SimVPv2", "Copying", "gSTA")
    why_not = table.attrs.get("not_comparable")  # then all rows that are left are of this test
    rows = table.loc[
        table.index if why_not else list(dict.fromkeys(r for r in shown if r in table.index))
    ]
    title = "In the paper's protocol (means over all points, not area-weighted, and leads):"
    notes = [why_not] if why_not else []
    return "\n".join(["", title, to_lines(rows[["mae", "rmse", "protocol"]]), *notes])


def once_a_day(ds: xr.Dataset) -> np.ndarray:
    """Initialisations whose input begins at 00 UTC."""
    times = initialisations(ds, TASK)
    hours = xr.DataArray(times, dims="time").dt.hour.values
    found = times[hours == TASK.input_steps - 1]
    if not len(found):
        raise InputError(f"no window of {ds.sizes['time']} hours begins at 00 UTC")
    return found


def main(options: Options) -> None:
    """Run the pipeline."""
    ds = (
        open_sample()
        if options.data is None
        else with_constants(open_weatherbench(options.data, ["2m_temperature"]), options.data)
    )
    printed = as_printed(options)
    parts = weather_parts(ds, options, PRINTED_PERIODS if printed else PAPER_PERIODS)

    times = once_a_day if printed else partial(initialisations, task=TASK)
    task = TASK if printed else task_for("weatherbench_t2m", options, parts["train"])
    how: dict[str, Any] = {"validate_every": options.validate_every, "task": task}
    network, config = recipe("weatherbench_t2m", options, grid=Grid.of(ds), **how)
    some: dict[str, Any] = {}
    if printed:
        config = replace(config, val_windows=len(times(parts["validation"])))  # those, too
        some["init_time"] = times(parts["train"])
    forecaster = train(parts, task, network, config, options, **some)

    test = parts["test"].compute().chunk(time=720)  # chunks: forecasts are streamed, not held
    init_time = times(test)[:: options.stride]
    drawn: dict[str, Any] = {"ensemble": members_of(forecaster, options), "seed": options.seed}
    store = write_forecast(
        predict(test, forecaster, init_time=init_time, **drawn), options.output / "forecast.zarr"
    )
    forecast = xr.open_zarr(store)
    baselines = weather_floors(parts["train"], TASK)
    forecasts = {n: predict(test, m, init_time=init_time) for n, m in baselines.items()}
    name = registry.name_of(forecaster.network)
    forecasts = {name: forecast, **forecasts}
    card = compare_forecasts(forecasts, test, climatology=baselines.get("Climatology"))
    training = {n: m.dataset.attrs for n, m in baselines.items() if hasattr(m, "dataset")}
    training = {name: forecaster.training, **training}
    written = write_results(card, forecasts, test, options.output, fields=True, training=training)

    print("\n".join(filter(None, [to_text(card), unfinished(forecaster)])))
    overall = card["2m_temperature_overall"].sel(model=name, weights="uniform")
    stride = options.stride * (24 if printed else 1)
    sample = sample_of("weatherbench_t2m", test, stride, title_of(ds))
    scores = {m: float(overall.sel(metric=m)) for m in ("mae", "rmse")}
    print(beside_published(name, scores, sample))
    print(f"\nTrained on {forecaster.data}\nResults are in {options.output.resolve()}:")
    print("  forecast.zarr, model/ (a bundle),", ", ".join(p.name for p in written))


if __name__ == "__main__":
    run(main, Options)
