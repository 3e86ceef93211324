"""Parts of the globe by name or by box, and what part of each grid cell lies in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..conventions.grid import Grid
from ..errors import InputError

__all__ = ["REGIONS", "choose_regions", "region_fractions"]

#: (south, north) or (south, north, west, east) in degrees; several boxes make one region. Names and
#: bounds are those of WeatherBench 2 (``scripts/evaluate.py``). That code takes the grid points in
#: the box; here a cell counts with the part of it that lies there.
REGIONS: dict[str, tuple[tuple[float, ...], ...]] = {
    "global": ((-90, 90),),
    "tropics": ((-20, 20),),
    "extra-tropics": ((-90, -20), (20, 90)),
    "northern-hemisphere": ((20, 90),),
    "southern-hemisphere": ((-90, -20),),
    "europe": ((35, 75, -12.5, 42.5),),
    "north-america": ((25, 60, -120, -75),),
    "north-atlantic": ((25, 65, -70, -10),),
    "north-pacific": ((25, 60, 145, -130),),
    "east-asia": ((25, 60, 102.5, 150),),
    "ausnz": ((-45, -12.5, 120, 175),),
    "arctic": ((60, 90),),
    "antarctic": ((-90, -60),),
}


def choose_regions(
    regions: str | Sequence[str] | Mapping[str, Any], latitude: Any, longitude: Any
) -> dict[str, np.ndarray]:
    """Fractions of the cells of a grid that lie in each of several regions.

    Parameters
    ----------
    regions : str, sequence of str, or mapping of str to str, box or boxes
        Names in :data:`REGIONS`, or boxes under names of your own:
        ``{"alps": (44, 48, 5, 16), "both": [(-60, -20), (20, 60)]}``.
    latitude, longitude : array-like of shape (H,), (W,)
        Degrees.

    Returns
    -------
    dict of str to numpy.ndarray of shape (H, W)

    Raises
    ------
    InputError
        If a name is unknown, a box is not one, or a region has no part of the grid.
    """
    names = [regions] if isinstance(regions, str) else list(regions)
    wanted = regions if isinstance(regions, Mapping) else {name: name for name in names}
    if not wanted:
        raise InputError("regions is empty: name at least one, or leave it out")
    out = {}
    for name, region in wanted.items():
        out[str(name)] = region_fractions(latitude, longitude, region)
        if not out[str(name)].any():
            raise InputError(
                f"no part of the grid lies in the region {name!r}: latitudes run from "
                f"{np.min(latitude):g} to {np.max(latitude):g}, longitudes from "
                f"{np.min(longitude):g} to {np.max(longitude):g}"
            )
    return out


def region_fractions(latitude: Any, longitude: Any, region: Any) -> np.ndarray:
    """Part of the area of each grid cell that lies in a region: exact where an edge cuts a cell.

    Cells are those of :meth:`stforecast.conventions.Grid.bounds`. A grid of one row or column has
    points in place of cells there: they are in or out.

    Parameters
    ----------
    latitude : array-like of shape (H,)
        Degrees north.
    longitude : array-like of shape (W,)
        Degrees east, ascending without a break, in any convention.
    region : str, (south, north), (south, north, west, east), or sequence of these boxes
        A box with west > east crosses the meridian where longitudes begin anew. Boxes of one region
        may touch and must not overlap.

    Returns
    -------
    numpy.ndarray of shape (H, W), float64
        From 0 to 1.

    Raises
    ------
    InputError
        If the name is unknown or a box is not one.

    Examples
    --------
    >>> region_fractions([-30, 0, 30], [0.0, 120.0, 240.0], (0, 90))[:, 0]
    array([0. , 0.5, 1. ])
    """
    boxes = _boxes(region)
    rows, columns = Grid(np.asarray(latitude), np.asarray(longitude)).bounds()
    total = np.zeros((len(rows), len(columns)))
    for south, north, west, width in boxes:
        total += np.outer(_in_latitude(rows, south, north), _in_longitude(columns, west, width))
    return np.minimum(total, 1)  # rounding


def _boxes(region: Any) -> list[tuple[float, float, float, float]]:
    """Boxes (south, north, west, width) of a region, checked."""
    if isinstance(region, str):
        if region not in REGIONS:
            raise InputError(
                f"there is no region {region!r}; there are {', '.join(REGIONS)}, and boxes "
                "(south, north, west, east) by names of your own"
            )
        region = REGIONS[region]
    several = np.ndim(region[0]) > 0 if isinstance(region, Sequence) and len(region) else False
    boxes = []
    for box in region if several else [region]:
        try:
            south, north, *sides = map(float, box)
            west, east = sides or (0.0, 360.0)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"a box is (south, north) or (south, north, west, east) in degrees, found {box!r}"
            ) from error
        if not (-90 <= south < north <= 90 and -360 <= west <= 360 and -360 <= east <= 360):
            raise InputError(
                f"a box has -90 <= south < north <= 90 and longitudes from -360 to 360, found {box}"
            )
        width = 360.0 if abs(east - west) == 360 else (east - west) % 360
        if width == 0:
            raise InputError(f"the box {box} has no width: west is east")
        boxes.append((south, north, west, width))
    for i, (south, north, west, width) in enumerate(boxes):
        for other in boxes[:i]:
            apart = south >= other[1] or other[0] >= north
            arc = np.array([[other[2], other[2] + other[3]]])
            if not apart and _overlap(arc, west, width)[0] > 1e-9:
                raise InputError(f"boxes of one region overlap: {region}")
    return boxes


def _in_latitude(bounds: np.ndarray, south: float, north: float) -> np.ndarray:
    low, high = bounds.T
    if len(bounds) == 1 and low == high:
        return ((low >= south) & (low <= north)).astype(float)
    inside = np.sin(np.deg2rad(np.clip(bounds, south, north)))
    whole = np.sin(np.deg2rad(bounds))
    return (inside[:, 1] - inside[:, 0]) / (whole[:, 1] - whole[:, 0])


def _in_longitude(bounds: np.ndarray, west: float, width: float) -> np.ndarray:
    low, high = bounds.T
    if len(bounds) == 1 and low == high:
        return ((low - west) % 360 <= width).astype(float)
    return _overlap(bounds, west, width) / (high - low)


def _overlap(bounds: np.ndarray, west: float, width: float) -> np.ndarray:
    """Degrees of the arcs `bounds` (N, 2) that lie in the arc from `west` on, around the globe."""
    low, high = bounds.T
    parts = [
        np.clip(np.minimum(high, start + width) - np.maximum(low, start), 0, None)
        for start in west + 360.0 * np.arange(-3, 4)
    ]
    return np.sum(parts, axis=0)
