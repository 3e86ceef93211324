"""The gate: anybody's labels to ours, and back."""

from __future__ import annotations

from .angles import is_global
from .gate import Labels, canonicalize, check, restore
from .grid import Grid, area_weights, cell_bounds, grid_weights
from .regrid import to_grid
from .times import time_gaps, time_step, valid_times
from .units import same_units
from .variables import VARIABLES, canonical_name

__all__ = [
    "VARIABLES",
    "Grid",
    "Labels",
    "area_weights",
    "canonical_name",
    "canonicalize",
    "cell_bounds",
    "check",
    "grid_weights",
    "is_global",
    "restore",
    "same_units",
    "time_gaps",
    "time_step",
    "to_grid",
    "valid_times",
]
