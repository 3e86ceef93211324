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
from .opening import (
    PAPER_PERIODS,
    flow_floors,
    flow_parts,
    look_back,
    title_of,
    weather_floors,
    weather_parts,
    with_constants,
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
    "PAPER_PERIODS",
    "PRINTED_PERIODS",
    "RECIPES",
    "BenchmarkOptions",
    "Recipe",
    "TrainingOptions",
    "VideoOptions",
    "as_printed",
    "clip_to_unit",
    "flow_floors",
    "flow_parts",
    "look_back",
    "members_of",
    "recipe",
    "run",
    "run_benchmark",
    "sample_of",
    "task_for",
    "title_of",
    "to_lines",
    "train",
    "train_and_score",
    "unfinished",
    "weather_floors",
    "weather_parts",
    "with_constants",
]
