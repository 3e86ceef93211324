"""Latitudes and longitudes as numbers: degrees, in ascending order, round the globe or not."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .attributes import text
from .units import parse


def is_global(longitude: np.ndarray) -> bool:
    """Whether longitudes (degrees, any convention) go round the whole globe, so are periodic."""
    lon = np.sort(wrap(longitude))
    if len(lon) < 2:
        return False
    span = float(lon[-1] - lon[0])
    spacing = span / (len(lon) - 1)
    return abs(360.0 - span - spacing) < 0.25 * spacing


def wrap(longitude: Any, start: float = 0.0) -> np.ndarray:
    """Longitudes in [start, start + 360); rounding errors below `start` do not go round."""
    wrapped = np.mod(np.asarray(longitude, dtype=np.float64) - start, 360.0)
    return np.where(wrapped > 360.0 - 1e-4, 0.0, wrapped) + start


def ascending(name: Hashable, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes ascending without a break, and their positions in what was given."""
    lon = wrap(given)
    order = np.argsort(lon, kind="stable")
    lon = lon[order]
    twice = np.flatnonzero(np.diff(lon) < 1e-4)
    if len(twice):
        a, b = given[order[twice[0]]], given[order[twice[0] + 1]]
        raise InputError(
            f"longitude '{name}' has the same meridian twice ({a:g} and {b:g}): drop one, for a "
            f"wrap point with ds.isel({name}=slice(None, -1))"
        )
    if len(lon) > 1 and not is_global(lon):
        # A region that crosses Greenwich must not be torn apart: begin after the widest gap.
        start = (int(np.argmax(np.diff(lon, append=lon[0] + 360))) + 1) % len(lon)
        if start:
            order = np.roll(order, -start)
            lon = np.concatenate([lon[start:] - 360.0, lon[:start]])
    if len(lon) > 2:
        spacing = np.diff(lon)
        deviation = np.abs(spacing - spacing.mean())
        worst = int(deviation.argmax())
        if deviation[worst] > 0.1 * spacing.mean():  # what is rounded to decimals is even enough
            raise InputError(
                f"longitude '{name}' is not evenly spaced: {spacing[worst]:g} degrees between "
                f"{lon[worst]:g} and {lon[worst + 1]:g}, elsewhere {np.median(spacing):g}. Fill in "
                "missing columns, or interpolate to even longitudes"
            )
    return lon, order


def per_degree(role: str, name: Hashable, variable: xr.Variable) -> float:
    """Read a coordinate's unit of angle, such as the radian: how much of it is a degree."""
    units = text(variable.attrs, "units")
    unit = parse(units)
    if unit is None or not unit.powers:
        return 1.0  # a text that is no unit: degrees, as latitude and longitude are
    degree = parse("degree")
    assert degree is not None
    if unit.powers != degree.powers:
        raise InputError(
            f"{role} '{name}' has units {units!r}, expected degrees or radians: if it is a distance"
            f" on a map, call it {'y' if role == 'latitude' else 'x'}"
        )
    per = degree.factor / unit.factor
    return 1.0 if abs(per - 1) < 1e-9 else per


def to_degrees(values: np.ndarray, per: float, *, poles: bool) -> np.ndarray:
    """Turn angles, of whose unit a degree has `per`, into degrees."""
    if per == 1.0:
        return values
    values = values / per
    # The pole in float32's radians lies beyond it.
    at_pole = poles & (np.abs(values) < 90.001)
    return np.where(at_pole, values.clip(-90, 90), values)
