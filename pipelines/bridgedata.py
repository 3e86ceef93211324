"""BridgeData, 2 -> 10 frames of 120 x 160 RGB: from image trees to scores and a model.

Trains SimVPv2, scores it beside copying the last frame on trajectories that training never saw, and
prints the published figures beside both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stforecast import Task
from stforecast.cli import Training, run, train_and_score
from stforecast.datasets import open_bridgedata
from stforecast.models import SimVPv2

TASK = Task(("red", "green", "blue"), input_steps=2, target_steps=10, timestep="200ms")


@dataclass(kw_only=True)
class Options(Training):
    """Train and score a forecaster of robot video."""

    data: Path
    """A directory with traj*/images0/im_*.jpg below it."""
    output: Path = Path("runs/bridgedata")
    preset: Literal["fast", "paper"] = "fast"
    """fast: a small network that forecasts the change; fits a CPU.
    paper: 27.6 M parameters, 100 epochs at batch 64; wants a GPU."""
    camera: int = 0
    """Which camera's video."""
    steps: int | None = None
    """Optimiser steps (fast: 200 unless given; paper: 100 epochs)."""
    batch_size: int | None = None
    """Windows in a step (fast: 4; paper: 64)."""
    stride: int = 1
    """Score every n-th test trajectory."""
    size: tuple[int, int] = (120, 160)
    """Height and width of the frames. The paper's unless given."""


def main(options: Options) -> None:
    """Run the pipeline."""
    open_part = partial(open_bridgedata, options.data, camera=options.camera, size=options.size)
    paper = options.preset == "paper"
    network = partial(SimVPv2, TASK.input_steps, TASK.target_steps, len(TASK.variables))
    network = partial(network, encoder_layers=4, drop_path=0.0)
    if paper:
        network = partial(
            network, encoder_channels=64, translator_channels=512, translator_blocks=6
        )
    else:
        network = partial(
            network, encoder_channels=16, translator_channels=128, translator_blocks=4
        )
        network = partial(network, mlp_ratio=4.0, predict_change=True)
    config = options.config(
        epochs=100,
        steps=None if paper else 200,
        batch_size=64 if paper else 4,
        learning_rate=1e-3,
    )
    parts = {name: open_part(name) for name in ("train", "validation", "test")}
    table = train_and_score(
        "bridgedata", parts, TASK, network, config, options, stride=options.stride
    )
    print(table.to_string())
    print(
        f"\nResults are in {options.output.resolve()}: model/, forecast.zarr, scores.nc, scores.csv"
    )


if __name__ == "__main__":
    run(main, Options)
