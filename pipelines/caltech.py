"""KITTI to Caltech Pedestrian, 10 -> 1 frames of 128 x 160 RGB: from the files to scores.

Trains SimVPv2 (paper: 15.6 M parameters, 100 epochs of the protocol's windows) on KITTI's drives,
scores it beside persistence on Caltech Pedestrian, and prints the published figures beside both.
"""

from dataclasses import dataclass
from pathlib import Path

from stforecast.cli import VideoOptions, run, run_benchmark
from stforecast.datasets import open_caltech, open_kitti


@dataclass(kw_only=True)
class Options(VideoOptions):
    """Train and score a forecaster of street video."""

    data: Path
    """KITTI's raw drives or PredNet's hickle files, in this directory or below."""
    caltech: Path | None = None
    """Caltech Pedestrian's set06/V000.seq and so on. In the same directory unless given."""
    output: Path = Path("runs/caltech")


def main(options: Options) -> None:
    """Run the pipeline."""
    parts = {name: open_kitti(options.data, name) for name in ("train", "validation")}
    parts["test"] = open_caltech(options.caltech or options.data, "test")
    run_benchmark("caltech", parts, options)


if __name__ == "__main__":
    run(main, Options)
