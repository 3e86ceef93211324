"""Scores: aligned on the valid time, weighted by area, streamed."""

from __future__ import annotations

from .comparison import compare_forecasts, to_text
from .evaluate import evaluate
from .images import psnr, ssim
from .metrics import METRICS, Above, Metric, WeightedMean, anomaly_correlation
from .published import benchmark_names, benchmark_table, cost_table, not_comparable
from .regions import REGIONS, region_fractions
from .scorecards import save_scores, scorecard, to_table, verdicts
from .significance import compare

__all__ = [
    "METRICS",
    "REGIONS",
    "Above",
    "Metric",
    "WeightedMean",
    "anomaly_correlation",
    "benchmark_names",
    "benchmark_table",
    "compare",
    "compare_forecasts",
    "cost_table",
    "evaluate",
    "not_comparable",
    "psnr",
    "region_fractions",
    "save_scores",
    "scorecard",
    "ssim",
    "to_table",
    "to_text",
    "verdicts",
]
