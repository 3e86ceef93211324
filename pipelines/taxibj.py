"""TaxiBJ, 4 -> 4 half hours of traffic flow: from files to scores and a model.

Trains SimVPv2 and scores it beside copying the last half hour and beside the usual week, on the
last weeks, which training never saw. It takes TaxiBJ itself and its cousins from New York.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stforecast import Forecaster, Task
from stforecast.baselines import WeeklyClimatology
from stforecast.cli import Training, run, train_and_score
from stforecast.datasets.flow import open_scaled
from stforecast.models import SimVPv2

TASK = Task(("inflow", "outflow"), input_steps=4, target_steps=4, timestep="30min")


@dataclass(kw_only=True)
class Options(Training):
    """Train and score a forecaster of traffic flow."""

    data: Path
    """The directory with BJ13_M32x32_T30_InOut.h5 to BJ16..., or dataset.npz of the authors' code;
    or NYTaxi or NYBike, or the directory with both (then taxis)."""
    output: Path = Path("runs/taxibj")
    preset: Literal["fast", "paper"] = "fast"
    """fast: a small network that learns what differs from the usual week; fits a CPU.
    paper: the paper's network and protocol, 10 M parameters, 50 epochs; wants a GPU."""
    steps: int | None = None
    """Optimiser steps (fast: 1000 unless given; paper: 50 epochs)."""
    batch_size: int = 16
    """Windows in a step."""


def main(options: Options) -> None:
    """Run the pipeline."""
    paper = options.preset == "paper"
    parts, scale = open_scaled(options.data)
    # The usual week, of the training weeks alone; the windows of dataset.npz have no weekdays.
    dated = "validation_period" in parts["train"].attrs
    usual = WeeklyClimatology.fit(parts["train"], TASK) if dated else None

    def references(forecaster: Forecaster) -> dict[str, Any]:
        if usual is None:
            return {}
        usual.save(options.output / "usual_week.nc")
        return {"usual week": usual} | ({} if paper else {"this run": usual.around(forecaster)})

    network = partial(SimVPv2.for_benchmark, "taxibj")
    if not paper:
        network = partial(network, encoder_channels=16, translator_channels=64, translator_blocks=4)
        network = partial(network, mlp_ratio=2.0, drop_path=0.0, predict_change=True)
        if usual is not None:  # learn what differs from it
            for name in ("train", "validation"):
                parts[name] = usual.anomalies(parts[name], trained_on=name == "train")
    config = options.config(
        epochs=50,
        steps=None if paper else 1000,
        batch_size=options.batch_size,
        learning_rate=5e-4 if paper else 2e-3,
        schedule="cosine" if paper else "onecycle",
        warmup_epochs=5 if paper else 0,
        validate_every=None if paper else 100,
        val_windows=10**9 if paper else 512,
    )
    train = partial(train_and_score, "taxibj", parts, TASK, network, config, options)
    table = train(
        metrics=("mse_sum", "mae_sum", "ssim"), scored=lambda ds: ds, references=references
    )
    print(table.to_string())
    print(f"\nFlows from {scale.low:g} to {scale.high:g} are 0 to 1 above. In vehicles:")
    cells = 2 * parts["test"].sizes["y"] * parts["test"].sizes["x"]
    for model, row in table[table["protocol"].str.contains("initialisations")].iterrows():
        rmse = (row["mse_x100"] / 100 / cells) ** 0.5 * (scale.high - scale.low)
        mae = row["mae_sum"] / cells * (scale.high - scale.low)
        print(f"  {model!s:12} RMSE {rmse:7.3f}  MAE {mae:7.3f}")
    print(f"\nResults are in {options.output.resolve()}: model/, forecast.zarr, scores.csv")


if __name__ == "__main__":
    run(main, Options)
