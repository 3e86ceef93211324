"""Maps, curves, films, and the report."""

from __future__ import annotations

from .clips import clip_strip, is_clip
from .curves import lead_curve, loss_curve, performance, scorecard
from .diagrams import (
    power_spectrum,
    rank_histogram,
    reliability_diagram,
    roc_curve,
    spread_skill,
)
from .fields import forecast_panel
from .graphs import mesh
from .layout import save
from .maps import difference_map, error_map, plot_map, projection_for
from .members import member_stamps, plume, probability_map
from .motion import animate, hovmoller
from .panels import forecast_grid
from .report import write_report
from .results import write_results

__all__ = [
    "animate",
    "clip_strip",
    "difference_map",
    "error_map",
    "forecast_grid",
    "forecast_panel",
    "hovmoller",
    "is_clip",
    "lead_curve",
    "loss_curve",
    "member_stamps",
    "mesh",
    "performance",
    "plot_map",
    "plume",
    "power_spectrum",
    "probability_map",
    "projection_for",
    "rank_histogram",
    "reliability_diagram",
    "roc_curve",
    "save",
    "scorecard",
    "spread_skill",
    "write_report",
    "write_results",
]
