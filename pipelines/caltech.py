"""KITTI to Caltech Pedestrian, 10 -> 1 frames of 128 x 160 RGB: from the files to scores.

Trains SimVPv2 on KITTI's drives, scores it beside copying the last frame on Caltech Pedestrian, and
prints the published figures beside both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stforecast import Task
from stforecast.cli import Training, run, train_and_score
from stforecast.datasets import open_caltech, open_kitti, protocol_times
from stforecast.models import SimVPv2

TASK = Task(("red", "green", "blue"), input_steps=10, target_steps=1, timestep="100ms")


@dataclass(kw_only=True)
class Options(Training):
    """Train and score a forecaster of street video."""

    data: Path
    """KITTI's raw drives or PredNet's hickle files, in this directory or below."""
    caltech: Path | None = None
    """Caltech Pedestrian's set06/V000.seq and so on. In the same directory unless given."""
    output: Path = Path("runs/caltech")
    preset: Literal["fast", "paper"] = "fast"
    """fast: a small network that forecasts the change, trained on all windows; fits a CPU.
    paper: 15.6 M parameters, 100 epochs of the protocol's windows; wants a GPU."""
    steps: int | None = None
    """Optimiser steps (fast: 200 unless given; paper: 100 epochs)."""
    batch_size: int | None = None
    """Windows in a step (fast: 4; paper: 16)."""
    stride: int = 1
    """Score every n-th window of the protocol."""


def main(options: Options) -> None:
    """Run the pipeline."""
    parts = {name: open_kitti(options.data, name) for name in ("train", "validation")}
    parts["test"] = open_caltech(options.caltech or options.data, "test")
    paper = options.preset == "paper"
    network = partial(SimVPv2, TASK.input_steps, TASK.target_steps, len(TASK.variables))
    network = partial(network, encoder_layers=2, translator_blocks=6)
    if paper:
        network = partial(network, encoder_channels=64, translator_channels=256, drop_path=0.2)
    else:
        network = partial(network, encoder_channels=16, translator_channels=64, drop_path=0.0)
        network = partial(network, mlp_ratio=4.0, predict_change=True)
    config = options.config(
        epochs=100,
        steps=None if paper else 200,
        batch_size=16 if paper else 4,
        learning_rate=5e-3 if paper else 1e-3,
    )
    table = train_and_score(
        "caltech",
        parts,
        TASK,
        network,
        config,
        options,
        train_times=protocol_times(parts["train"], TASK) if paper else None,
        init_time=protocol_times(parts["test"], TASK),
        stride=options.stride,
    )
    print(table.to_string())
    print(f"\nResults: {options.output.resolve()}: model/, forecast.zarr, scores.nc, scores.csv")


if __name__ == "__main__":
    run(main, Options)
