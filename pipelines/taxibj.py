"""TaxiBJ, 4 -> 4 half hours of traffic flow: from files to scores and a model.

Trains SimVPv2 (paper: 10 M parameters, 50 epochs; fast: 1000 steps on anomalies from the weekly
climatology) and scores it beside persistence and the weekly climatology on the last weeks, which
training never saw. It takes TaxiBJ itself and its cousins from New York; these also by the protocol
of Lin et al. 2020, 12 -> 12 half hours, beside a linear regression.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from stforecast import Forecaster
from stforecast.baselines import LinearRegression, WeeklyClimatology
from stforecast.cli import RECIPES, BenchmarkOptions, run, run_benchmark
from stforecast.datasets import FlowScale, describe, open_nyc_flow, open_taxibj, split
from stforecast.datasets.clips import Split
from stforecast.datasets.new_york import dsan_times, split_dsan


@dataclass(kw_only=True)
class Options(BenchmarkOptions):
    """Train and score a forecaster of traffic flow."""

    data: Path
    """The directory with BJ13_M32x32_T30_InOut.h5 to BJ16..., or dataset.npz of the authors' code;
    or NYTaxi or NYBike, or the directory with both (then taxis)."""
    protocol: Literal["paper", "dsan"] = "paper"
    """paper: 4 -> 4 half hours, all cells. dsan: New York's days 0 to 39 for training, 40 to 59 for
    the test (a week of these as history only), 12 -> 12, where the true flow is above 10."""
    output: Path = Path("runs/taxibj")


def open_parts(path: Path) -> tuple[dict[str, xr.Dataset], FlowScale]:
    """Open three parts in memory, and what scales them to [0, 1], where the paper scores them."""
    opener = open_nyc_flow if describe(path).adapter == "open_nyc_flow" else open_taxibj
    ds = opener(path, chunks=None)[list(RECIPES["taxibj"].task.variables)]
    names: tuple[Split, ...] = ("train", "validation", "test")
    if "validation_period" in ds.attrs:
        parts = split(ds, **{name: ds.attrs[f"{name}_period"] for name in names})
        scale = FlowScale.of(parts["train"])
    else:  # windows without dates, which their makers have scaled to [-1, 1]
        parts = {name: open_taxibj(path, name) for name in names}
        scale = FlowScale(-1.0, 1.0)
    return {name: part.load() for name, part in parts.items()}, scale


def main(options: Options) -> None:
    """Run the pipeline."""
    dsan = options.protocol == "dsan"
    name = "nyc_dsan" if dsan else "taxibj"
    task = RECIPES[name].task
    if dsan:
        parts = split_dsan(open_nyc_flow(options.data, chunks=None)[list(task.variables)].load())
        scale = FlowScale.of(parts["train"])
        history = xr.concat([parts["train"], parts["validation"]], "time")
    else:
        parts, scale = open_parts(options.data)
        history = parts["train"]
    span, weekly = scale.high - scale.low, None
    # Of the training weeks alone; the windows of dataset.npz have no weekdays.
    if dsan or "validation_period" in history.attrs:
        weekly = WeeklyClimatology.fit(history, task)
    around = weekly if options.preset == "fast" else None
    for part in ("train", "validation"):
        if around is None:
            parts[part] = scale.scale(parts[part])
        else:
            anomalies = around.anomalies(parts[part], trained_on=dsan or part == "train")
            parts[part] = FlowScale(0.0, span).scale(anomalies)

    def finish(forecaster: Forecaster) -> Forecaster:
        """Make it one of flows, whatever the network was trained on."""
        if around is None:
            return forecaster.rescaled(span, scale.low)
        return forecaster.rescaled(span).around(around)

    def references(forecaster: Forecaster) -> Mapping[str, Any]:
        if weekly is None:
            return {}
        weekly.save(options.output / "usual_week.nc")
        if not dsan:
            return {"usual week": weekly}
        # Few weeks for so many predictors: shrink.
        linear = LinearRegression.fit(history, task, ridge=0.1)
        return {"usual week": weekly, "linear regression": linear}

    more: dict[str, Any] = {"references": references, "finish": finish}
    if dsan:
        run_benchmark(name, parts, options, init_time=dsan_times(parts["test"], task), **more)
        return
    table = run_benchmark(name, parts, options, scored=scale.scale, **more)
    unit = "vehicles" if weekly is not None else "units of the file"
    print(f"Flows from {scale.low:g} to {scale.high:g} are 0 to 1 above. In {unit}:")
    cells = 2 * parts["test"].sizes["y"] * parts["test"].sizes["x"]
    for model, row in table[table["protocol"].str.contains("initialisations")].iterrows():
        rmse = (row["mse_x100"] / 100 / cells) ** 0.5 * span
        mae = row["mae_sum"] / cells * span
        print(f"  {model!s:12} RMSE {rmse:7.3f}  MAE {mae:7.3f}")


if __name__ == "__main__":
    run(main, Options)
