"""KTH human actions, 10 -> 20 frames of 128 x 128: from the published zips to scores and a model.

Trains SimVPv2 (paper: 15.6 M parameters, 100 epochs of the protocol's windows), scores it beside
persistence on persons that training never saw, and prints the published figures beside both.
``--target-steps 40`` rolls the same model out further.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stforecast.cli import VideoOptions, run, run_benchmark
from stforecast.datasets import open_kth


@dataclass(kw_only=True)
class Options(VideoOptions):
    """Train and score a forecaster of human actions."""

    data: Path
    """boxing.zip to walking.zip or their videos, or extracted frames; with 00sequences.txt."""
    output: Path = Path("runs/kth")
    target_steps: Literal[20, 40] = 20
    """Frames to forecast and score. The model is trained for 20."""
    actions: tuple[str, ...] | None = None
    """Some of the six. Default: all."""
    size: tuple[int, int] = (128, 128)
    """Height and width of the frames. The paper's unless given."""


def main(options: Options) -> None:
    """Run the pipeline."""
    part = partial(open_kth, options.data, actions=options.actions, size=options.size)
    steps = options.target_steps
    run_benchmark("kth", part, options, published=f"kth_10_{steps}", steps=steps)
    print("Trained on persons 1-14, validated on 15 and 16; the paper trains on 1-16.")


if __name__ == "__main__":
    run(main, Options)
