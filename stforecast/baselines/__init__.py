"""What a forecast must be better than."""

from __future__ import annotations

from .climatology import Climatology
from .forecasts import baseline_forecasts
from .lookup import climatology_at
from .persistence import FrameCopy, Persistence
from .regression import LinearRegression
from .weekly import WeeklyClimatology
from .years import ClimatologyYear, climatology_years

__all__ = [
    "Climatology",
    "ClimatologyYear",
    "FrameCopy",
    "LinearRegression",
    "Persistence",
    "WeeklyClimatology",
    "baseline_forecasts",
    "climatology_at",
    "climatology_years",
]
