"""What is run: options from the command line, benchmarks, scores."""

from __future__ import annotations

from .benchmark import TrainingOptions, clip_to_unit, train, train_and_score
from .recipes import RECIPES, BenchmarkOptions, Recipe, recipe, run_benchmark, sample_of
from .run import run

__all__ = [
    "RECIPES",
    "BenchmarkOptions",
    "Recipe",
    "TrainingOptions",
    "clip_to_unit",
    "recipe",
    "run",
    "run_benchmark",
    "sample_of",
    "train",
    "train_and_score",
]
