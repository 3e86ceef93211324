"""TaxiBJ, 4 -> 4 half hours of traffic flow: from files to scores and a model.

Trains SimVPv2 (paper: 10 M parameters, 50 epochs; fast: 1000 steps on anomalies from the weekly
climatology) and scores it beside persistence and the weekly climatology on the last weeks, which
training never saw. It takes TaxiBJ itself and its cousins from New York.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from stforecast import Forecaster
from stforecast.baselines import WeeklyClimatology
from stforecast.cli import RECIPES, BenchmarkOptions, run, run_benchmark
from stforecast.datasets import FlowScale, describe, open_nyc_flow, open_taxibj, split


@dataclass(kw_only=True)
class Options(BenchmarkOptions):
    """Train and score a forecaster of traffic flow."""

    data: Path
    """The directory with BJ13_M32x32_T30_InOut.h5 to BJ16..., or dataset.npz of the authors' code;
    or NYTaxi or NYBike, or the directory with both (then taxis)."""
    output: Path = Path("runs/taxibj")


def open_scaled(path: Path) -> tuple[dict[str, xr.Dataset], FlowScale]:
    """Open three parts in memory and on [0, 1], as the paper scores them, and their scale."""
    opener = open_nyc_flow if describe(path).adapter == "open_nyc_flow" else open_taxibj
    ds = opener(path, chunks=None)
    if "validation_period" in ds.attrs:
        parts = split(ds, **{k: ds.attrs[f"{k}_period"] for k in ("train", "validation", "test")})
        scale = FlowScale.of(parts["train"])
    else:  # windows without dates, which their makers have scaled to [-1, 1]
        parts = {
            "train": open_taxibj(path, "train"),
            "validation": open_taxibj(path, "validation"),
            "test": open_taxibj(path, "test"),
        }
        scale = FlowScale(-1.0, 1.0)
    return {k: scale.scale(part.load()) for k, part in parts.items()}, scale


def main(options: Options) -> None:
    """Run the pipeline."""
    parts, scale = open_scaled(options.data)
    fast, train = options.preset == "fast", parts["train"]
    # Of the training weeks alone; the windows of dataset.npz have no weekdays.
    dated = "validation_period" in train.attrs
    weekly = WeeklyClimatology.fit(train, RECIPES["taxibj"].task) if dated else None
    if weekly is not None and fast:
        for name in ("train", "validation"):
            parts[name] = weekly.anomalies(parts[name], trained_on=name == "train")

    def references(forecaster: Forecaster) -> Mapping[str, Any]:
        if weekly is None:
            return {}
        weekly.save(options.output / "usual_week.nc")
        own = {"this run": weekly.around(forecaster)} if fast else {}
        return {"usual week": weekly} | own

    table = run_benchmark("taxibj", parts, options, references=references)
    print(f"Flows from {scale.low:g} to {scale.high:g} are 0 to 1 above. In vehicles:")
    cells = 2 * parts["test"].sizes["y"] * parts["test"].sizes["x"]
    for model, row in table[table["protocol"].str.contains("initialisations")].iterrows():
        rmse = (row["mse_x100"] / 100 / cells) ** 0.5 * (scale.high - scale.low)
        mae = row["mae_sum"] / cells * (scale.high - scale.low)
        print(f"  {model!s:12} RMSE {rmse:7.3f}  MAE {mae:7.3f}")


if __name__ == "__main__":
    run(main, Options)
