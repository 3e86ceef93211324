"""Scores: aligned on the valid time, weighted by area, streamed."""

from __future__ import annotations

from .comparison import compare_forecasts, to_text
from .evaluate import evaluate
from .events import (
    brier,
    csi,
    ets,
    fss,
    hss,
    quantile_score,
    reliability,
    roc,
    roc_area,
)
from .images import psnr, ssim
from .metrics import METRICS, Above, Metric, WeightedMean, anomaly_correlation
from .published import benchmark_names, benchmark_table, cost_table, not_comparable
from .regions import REGIONS, region_fractions
from .scorecards import save_scores, scorecard, to_table, verdicts
from .significance import compare
from .thresholds import climatological_quantiles

__all__ = [
    "METRICS",
    "REGIONS",
    "Above",
    "Metric",
    "WeightedMean",
    "anomaly_correlation",
    "benchmark_names",
    "benchmark_table",
    "brier",
    "climatological_quantiles",
    "compare",
    "compare_forecasts",
    "cost_table",
    "csi",
    "ets",
    "evaluate",
    "fss",
    "hss",
    "not_comparable",
    "psnr",
    "quantile_score",
    "region_fractions",
    "reliability",
    "roc",
    "roc_area",
    "save_scores",
    "scorecard",
    "ssim",
    "to_table",
    "to_text",
    "verdicts",
]
