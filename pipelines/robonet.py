"""RoboNet, 2 -> 10 frames of 120 x 160 RGB: from trajectory files to scores and a model.

Trains SimVPv2 (paper: 27.6 M parameters, 100 epochs), scores it beside persistence on trajectories
that training never saw, and prints the published figures beside both.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stforecast.cli import VideoOptions, run, run_benchmark
from stforecast.datasets import open_robonet


@dataclass(kw_only=True)
class Options(VideoOptions):
    """Train and score a forecaster of robot video."""

    data: Path
    """RoboNet's trajectory files (*.hdf5), in this directory or below."""
    output: Path = Path("runs/robonet")
    test_files: Path | None = None
    """A text file that names the test trajectories, one a line. Default: a tenth, by a hash."""
    camera: int = 0
    """Which camera's video."""
    size: tuple[int, int] = (120, 160)
    """Height and width of the frames. The paper's unless given."""


def main(options: Options) -> None:
    """Run the pipeline."""
    names = options.test_files and options.test_files.read_text().split()
    part = partial(open_robonet, options.data, camera=options.camera, size=options.size)
    run_benchmark("robonet", partial(part, test_files=names), options)


if __name__ == "__main__":
    run(main, Options)
