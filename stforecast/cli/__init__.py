"""What is run: options from the command line, benchmarks, scores."""

from __future__ import annotations

from .benchmark import (
    TrainingOptions,
    clip_to_unit,
    members_of,
    train,
    train_and_score,
    unfinished,
)
from .recipes import (
    PRINTED_PERIODS,
    RECIPES,
    BenchmarkOptions,
    Recipe,
    VideoOptions,
    as_printed,
    recipe,
    run_benchmark,
    sample_of,
    task_for,
)
from .run import run
from .tables import to_lines

__all__ = [
    "PRINTED_PERIODS",
    "RECIPES",
    "BenchmarkOptions",
    "Recipe",
    "TrainingOptions",
    "VideoOptions",
    "as_printed",
    "clip_to_unit",
    "members_of",
    "recipe",
    "run",
    "run_benchmark",
    "sample_of",
    "task_for",
    "to_lines",
    "train",
    "train_and_score",
    "unfinished",
]
