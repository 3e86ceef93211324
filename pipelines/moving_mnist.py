"""Moving MNIST, 10 -> 10 frames of two bouncing digits: from MNIST's files to scores and a model.

Trains SimVPv2 (paper: 46.8 M parameters, 200 epochs of 10,000 sequences; fast: 300 steps) on
sequences that are never seen twice, and scores it beside persistence on sequences of digits that
training never saw. Those that fit in memory together are drawn before the first step (4,800 of the
fast preset: half a minute, 1.6 GB), others as they are needed.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stforecast.cli import BenchmarkOptions, run, run_benchmark
from stforecast.datasets import open_moving_mnist, set_limits


@dataclass(kw_only=True)
class Options(BenchmarkOptions):
    """Train and score a forecaster of bouncing digits."""

    data: Path
    """The directory with MNIST's four files (train-images-idx3-ubyte.gz and so on). If it holds
    mnist_test_seq.npy as well, that is the test, as in the paper; else sequences are drawn."""
    output: Path = Path("runs/moving_mnist")
    size: Literal["S", "M", "L"] = "S"
    """The paper's network: S, or L with 524 M parameters. Of ConvLSTM: 64, 128 or 192 wide."""
    epochs: int = 200
    """Of 10,000 new sequences each, with the paper's preset; its longest run has 2,000."""
    batch_size: int = 16
    """Sequences in a step."""
    val_sequences: int | None = None
    """How many choose the best weights (fast: 128; paper: 1000)."""
    test_sequences: int = 10_000
    """How many to score."""


def main(options: Options) -> None:
    """Run the pipeline."""
    paper, epoch = options.preset == "paper", 10_000 // options.batch_size
    steps = options.steps or (options.epochs * 10_000 // options.batch_size if paper else 300)
    published = options.data / "mnist_test_seq.npy"
    draw = partial(open_moving_mnist, options.data, seed=options.seed)
    if (frames := 20 * steps * options.batch_size) > 2**26:  # long runs are asked for by name
        set_limits(frames=frames)
    parts = {  # one pass over all of them: an epoch of the paper is a stretch of 10,000
        "train": draw("train", sequences=steps * options.batch_size),
        "validation": draw("validation", sequences=options.val_sequences or (128, 1000)[paper]),
        "test": open_moving_mnist(
            published if published.is_file() else options.data,
            "test",
            sequences=options.test_sequences,
        ),
    }
    training = {"steps": steps, "validate_every": epoch if paper else None}
    if not paper:  # these fit in memory
        print(f"Drawing {steps * options.batch_size:,} training sequences...", flush=True)
    run_benchmark("moving_mnist", parts, options, size=options.size, training=training)


if __name__ == "__main__":
    run(main, Options)
