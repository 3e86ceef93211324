"""Pressure levels: the coordinates that hold them, and their place in a variable's name.

However they are written (``level``, ``plev`` in Pa, ...), they are hPa here.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .attributes import text

_LEVEL_NAMES = (
    *("level", "levels", "lev", "plev", "plevel", "pressure_level", "pressure", "air_pressure"),
    *("isobaricinhpa", "isobaricinpa", "isobaric", "isobaric1"),
)
_HECTOPASCALS = {
    **dict.fromkeys(("hpa", "hectopascal", "hectopascals"), 1.0),
    **dict.fromkeys(("millibar", "millibars", "mbar", "mb"), 1.0),
    **dict.fromkeys(("pa", "pascal", "pascals"), 0.01),
    "kpa": 10.0,
}
_IN_PASCALS = ("plev", "isobaricinpa")  # without units
_OTHER_LEVELS = ("model", "hybrid", "sigma", "soil", "depth")
_LEVELLED = re.compile(r"(.+)_(\d+(?:\.\d+)?)")


class Levels(NamedTuple):
    """The pressure levels of a variable."""

    coord: Hashable
    dim: Hashable | None  # None: a scalar coordinate
    values: np.ndarray  # hPa

    def find(self, level: float) -> int | None:
        """Position of a level, or None."""
        near = np.flatnonzero(np.abs(self.values - level) <= 1e-4 * level)
        return int(near[0]) if len(near) else None

    @property
    def text(self) -> str:
        """The values, for a message."""
        return ", ".join(f"{v:g}" for v in self.values)


def level_name(base: str, level: float) -> str:
    """Name of a variable on a level (hPa): ``geopotential_500``."""
    return f"{base}_{level:g}"


def split_level(name: str) -> tuple[str, float] | None:
    """Read ``geopotential_500``: the variable and the level; None if there is no level in it."""
    match = _LEVELLED.fullmatch(name)
    return (match[1], float(match[2])) if match and float(match[2]) > 0 else None


def level_attrs(level: float) -> dict[str, Any]:
    """Attributes of a variable on one level."""
    return {"level": float(level), "level_units": "hPa"}


def levels_of(ds: xr.Dataset, name: Hashable) -> Levels | None:
    """Find the pressure levels that a variable lies on; only coordinates are read."""
    for coord, dim in _candidates(ds, name):
        values = _hectopascals(coord, ds.variables[coord], along=dim is not None)
        if values is not None:
            return Levels(coord, dim, values)
    return None


def _candidates(ds: xr.Dataset, name: Hashable) -> Iterator[tuple[Hashable, Hashable | None]]:
    dims = ds.variables[name].dims
    for coord, array in ds.coords.items():
        if array.ndim == 1 and array.dims[0] in dims:
            yield coord, array.dims[0]
    for coord, array in ds.coords.items():
        if array.ndim == 0:
            yield coord, None


def _hectopascals(name: Hashable, variable: xr.Variable, *, along: bool) -> np.ndarray | None:
    """Values of a coordinate in hPa, or None if it is no pressure level."""
    if variable.dtype.kind not in "fiu":
        return None
    attrs, lower = variable.attrs, str(name).lower()
    units = text(attrs, "units").lower()
    factor = _HECTOPASCALS.get(units)
    about = f"{text(attrs, 'long_name')} {text(attrs, 'standard_name')}".lower()
    named = lower in _LEVEL_NAMES or "air_pressure" in about
    if not (named or (along and factor)) or (units not in ("", "1") and factor is None):
        return None
    if factor is None and any(word in about for word in _OTHER_LEVELS):
        return None
    values = np.atleast_1d(variable.to_numpy()).astype(np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        return None
    if factor is None:  # no level lies below 1100 hPa, and hardly a file ends above 11 hPa
        factor = 0.01 if lower in _IN_PASCALS or values.max() > 1100 else 1.0
    return np.round(values * factor, 6)
