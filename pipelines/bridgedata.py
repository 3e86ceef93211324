"""BridgeData, 2 -> 10 frames of 120 x 160 RGB: from image trees to scores and a model.

Trains SimVPv2 (paper: 27.6 M parameters, 100 epochs), scores it beside persistence on trajectories
that training never saw, and prints the published figures beside both.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stforecast.cli import VideoOptions, run, run_benchmark
from stforecast.datasets import open_bridgedata


@dataclass(kw_only=True)
class Options(VideoOptions):
    """Train and score a forecaster of robot video."""

    data: Path
    """A directory with traj*/images0/im_*.jpg below it."""
    output: Path = Path("runs/bridgedata")
    camera: int = 0
    """Which camera's video."""
    size: tuple[int, int] = (120, 160)
    """Height and width of the frames. The paper's unless given."""


def main(options: Options) -> None:
    """Run the pipeline."""
    part = partial(open_bridgedata, options.data, camera=options.camera, size=options.size)
    run_benchmark("bridgedata", part, options)


if __name__ == "__main__":
    run(main, Options)
