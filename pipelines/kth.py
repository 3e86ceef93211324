"""KTH human actions, 10 -> 20 frames of 128 x 128: from the published zips to scores and a model.

Trains SimVPv2, scores it beside copying the last frame on persons that training never saw, and
prints the published figures beside both. ``--target-steps 40`` rolls the same model out further.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stforecast import Task
from stforecast.cli import Training, run, train_and_score
from stforecast.datasets import open_kth, protocol_times
from stforecast.models import SimVPv2

TASK = Task("intensity", input_steps=10, target_steps=20, timestep="40ms")


@dataclass(kw_only=True)
class Options(Training):
    """Train and score a forecaster of human actions."""

    data: Path
    """boxing.zip to walking.zip or their videos, or extracted frames; with 00sequences.txt."""
    output: Path = Path("runs/kth")
    preset: Literal["fast", "paper"] = "fast"
    """fast: a small network that forecasts the change, trained on all windows; fits a CPU.
    paper: 15.6 M parameters, 100 epochs of the protocol's windows; wants a GPU."""
    target_steps: Literal[20, 40] = 20
    """Frames to forecast and score. The model is trained for 20."""
    actions: tuple[str, ...] | None = None
    """Some of the six. Default: all."""
    steps: int | None = None
    """Optimiser steps (fast: 200 unless given; paper: 100 epochs)."""
    batch_size: int | None = None
    """Windows in a step (fast: 4; paper: 16)."""
    stride: int = 1
    """Score every n-th window of the protocol."""
    size: tuple[int, int] = (128, 128)
    """Height and width of the frames. The paper's unless given."""


def main(options: Options) -> None:
    """Run the pipeline."""
    open_part = partial(open_kth, options.data, actions=options.actions, size=options.size)
    parts = {name: open_part(name) for name in ("train", "validation", "test")}
    paper = options.preset == "paper"
    network = partial(SimVPv2, TASK.input_steps, TASK.target_steps, translator_blocks=6)
    if paper:
        network = partial(network, encoder_channels=64, translator_channels=256, drop_path=0.2)
    else:
        network = partial(network, encoder_channels=16, translator_channels=64, drop_path=0.0)
        network = partial(network, mlp_ratio=4.0, predict_change=True)
    config = options.config(
        epochs=100,
        steps=None if paper else 200,
        batch_size=16 if paper else 4,
        learning_rate=1e-3,
    )
    table = train_and_score(
        f"kth_10_{options.target_steps}",
        parts,
        TASK,
        network,
        config,
        options,
        train_times=protocol_times(parts["train"], TASK) if paper else None,
        init_time=protocol_times(parts["test"], TASK, options.target_steps),
        steps=options.target_steps,
        stride=options.stride,
    )
    print(table.to_string())
    print("\nTrained on persons 1-14, validated on 15 and 16; the paper trains on 1-16.")
    print(f"Results: {options.output.resolve()}: model/, forecast.zarr, scores.nc, scores.csv")


if __name__ == "__main__":
    run(main, Options)
