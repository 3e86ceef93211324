"""Files of one data set that hold a variable in other units, whatever their attributes say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..conventions.levels import split_level
from ..conventions.variables import VARIABLES

_KELVIN = 100.0  # no season changes the middle of a map by as much; from K to degC it is 273
_FACTOR = 3.0  # from hPa to Pa it is 100, from geopotential to height 9.8
_FAR = 2.0  # spreads from zero: only then does a factor say something
_SCALED = ("pressure", "geopotential", "height")


def spread(values: np.ndarray) -> tuple[float, float] | None:
    """Median of a map, and the width of its middle nine tenths; None where it has no number."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, middle, high = np.percentile(finite, (5, 50, 95))
    return float(middle), float(high - low)


def kind_of_scale(name: str, attrs: Mapping[str, Any]) -> str | None:
    """Say by what a variable's units can be told: ``"shift"``, ``"factor"``, or None."""
    on_level = None if name in VARIABLES else split_level(name)
    base = on_level[0] if on_level else name
    about = f"{base} {attrs.get('standard_name', '')}"
    if "temperature" in about:
        return "shift"
    return "factor" if any(word in about for word in _SCALED) else None


def differ(kind: str, first: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two maps of one variable cannot be in the same units, by their medians."""
    if kind == "shift":
        return abs(first[0] - other[0]) > _KELVIN
    far = all(abs(middle) > _FAR * width for middle, width in (first, other))
    return far and not 1 / _FACTOR < other[0] / first[0] < _FACTOR
