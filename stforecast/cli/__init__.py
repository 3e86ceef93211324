"""What is run: options from the command line, benchmarks, scores."""

from __future__ import annotations

from .benchmark import Training, clip_to_unit, train, train_and_score
from .run import run

__all__ = ["Training", "clip_to_unit", "run", "train", "train_and_score"]
