"""Moving MNIST, 10 -> 10 frames of two bouncing digits: from MNIST's files to scores and a model.

Trains SimVPv2 on sequences that are drawn as they are needed and never seen twice, and scores it
beside copying the last frame on sequences of digits that training never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stforecast import Task
from stforecast.cli import Training, run, train_and_score
from stforecast.datasets import open_moving_mnist
from stforecast.models import SimVPv2

TASK = Task("intensity", input_steps=10, target_steps=10, timestep="1s")


@dataclass(kw_only=True)
class Options(Training):
    """Train and score a forecaster of bouncing digits."""

    data: Path
    """The directory with MNIST's four files (train-images-idx3-ubyte.gz and so on). If it holds
    mnist_test_seq.npy as well, that is the test, as in the paper; else sequences are drawn."""
    output: Path = Path("runs/moving_mnist")
    preset: Literal["fast", "paper"] = "fast"
    """fast: a small network and 300 steps, to see it work on a CPU.
    paper: the paper's network, 46.8 M parameters, 200 epochs of 10,000 sequences; wants a GPU."""
    size: Literal["S", "L"] = "S"
    """The paper's network: S, or L with 524 M parameters."""
    epochs: int = 200
    """Of 10,000 new sequences each, with the paper's preset; its longest run has 2,000."""
    steps: int | None = None
    """Optimiser steps (fast: 300 unless given; paper: as many as the epochs have)."""
    batch_size: int = 16
    """Sequences in a step."""
    val_sequences: int | None = None
    """How many choose the best weights (fast: 128; paper: 1000)."""
    test_sequences: int = 10_000
    """How many to score."""


def main(options: Options) -> None:
    """Run the pipeline."""
    paper = options.preset == "paper"
    steps = options.steps or (options.epochs * 10_000 // options.batch_size if paper else 300)
    published = options.data / "mnist_test_seq.npy"
    test = published if published.is_file() else options.data
    draw = partial(open_moving_mnist, options.data, seed=options.seed)
    parts = {  # one pass over all of them: an epoch of the paper is a stretch of 10,000
        "train": draw("train", sequences=steps * options.batch_size),
        "validation": draw(
            "validation", sequences=options.val_sequences or (1000 if paper else 128)
        ),
        "test": open_moving_mnist(test, "test", sequences=options.test_sequences),
    }
    network = partial(SimVPv2.for_benchmark, "moving_mnist", size=options.size)
    if not paper:
        network = partial(
            network, encoder_channels=16, translator_channels=128, translator_blocks=4
        )
        network = partial(network, mlp_ratio=4.0)
    config = options.config(
        epochs=1,
        steps=steps,
        batch_size=options.batch_size,
        learning_rate=1e-3,
        validate_every=10_000 // options.batch_size if paper else 100,
        val_windows=10**9,
    )
    train = partial(train_and_score, "moving_mnist", parts, TASK, network, config, options)
    # The published MSE and MAE are of forecasts as they are, not clipped.
    table = train(metrics=("mse_sum", "mae_sum", "ssim"), scored=lambda ds: ds)
    print(table.to_string())
    print(f"\nResults are in {options.output.resolve()}: model/, forecast.zarr, scores.csv")


if __name__ == "__main__":
    run(main, Options)
