"""Cells of a grid: their bounds, and their areas as weights."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ..errors import InputError

log = logging.getLogger(__name__)


def area_weights(latitude: Any, *, bounds: Any = None) -> np.ndarray:
    """Weights of latitude rows in proportion to the area of their cells, with mean 1.

    A cell between latitudes a < b has area sin(b) - sin(a). Inner bounds lie midway between the
    points. An outer bound is half a spacing beyond its point; where no other point would fit
    between it and the pole (point nearer to the pole than one spacing) the cell reaches to the
    pole. So a pole point is half a cell and not nothing, as it is with cosine weights; a global
    grid, regular or Gaussian, covers the whole sphere; a regional grid is not stretched.

    On global grids these are WeatherBench 2's weights (``weatherbench2/metrics.py``,
    ``get_lat_weights``). That code stretches the outer cells of *every* grid to the poles.

    Parameters
    ----------
    latitude : array-like of shape (N,)
        Degrees north, strictly ascending or descending.
    bounds : array-like of shape (N + 1,) or (N, 2), optional
        Bounds of the cells in degrees north, where they are known.

    Returns
    -------
    numpy.ndarray of shape (N,), float64
        Weights without a unit, mean 1.

    Raises
    ------
    InputError
        If latitudes are not one-dimensional, strictly monotonic and within ±90 degrees, or the
        bounds do not enclose them.
    """
    if np.size(latitude) == 1 and bounds is None:
        cell_bounds(latitude)  # refuses what is no latitude; one row weighs what it weighs
        return np.ones(1)
    low, high = np.deg2rad(cell_bounds(latitude, bounds=bounds).T)
    area = np.sin(high) - np.sin(low)
    return area / area.mean()


def cell_bounds(latitude: Any, *, bounds: Any = None) -> np.ndarray:
    """Southern and northern bound of the cells of latitude rows, as :func:`area_weights` has them.

    Parameters
    ----------
    latitude, bounds : array-like
        As for :func:`area_weights`.

    Returns
    -------
    numpy.ndarray of shape (N, 2), float64
        Degrees north. The cell of a single row has no height: both bounds are its latitude.

    Raises
    ------
    InputError
        As :func:`area_weights`.
    """
    lat = np.asarray(latitude, dtype=np.float64)
    if lat.ndim != 1 or lat.size == 0:
        raise InputError(
            f"latitude must have one dimension and at least one point, found {lat.shape}"
        )
    if not np.all(np.abs(lat) <= 90 + 1e-6):
        raise InputError(
            f"latitude must be in degrees north, -90 to 90, found {lat.min()} to {lat.max()}"
        )
    steps = np.diff(lat)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise InputError("latitude must be strictly ascending or descending; sort the data by it")
    if bounds is not None:
        edges = np.asarray(bounds, dtype=np.float64)
        if edges.shape == (lat.size + 1,):
            edges = np.stack([edges[:-1], edges[1:]], axis=1)
        if edges.shape != (lat.size, 2):
            raise InputError(
                f"bounds of {lat.size} latitudes must have shape ({lat.size + 1},) or "
                f"({lat.size}, 2), found {np.shape(bounds)}"
            )
        low, high = edges.min(axis=1), edges.max(axis=1)
        if np.any(low > lat + 1e-6) or np.any(high < lat - 1e-6):
            raise InputError("each latitude must lie within the bounds given for it")
    elif lat.size == 1:
        low = high = lat
    else:
        mid = (lat[:-1] + lat[1:]) / 2
        edge = np.concatenate([[_outer(lat[0], -steps[0])], mid, [_outer(lat[-1], steps[-1])]])
        low, high = np.minimum(edge[:-1], edge[1:]), np.maximum(edge[:-1], edge[1:])
    return np.clip(np.stack([low, high], axis=1), -90, 90)


def _outer(point: float, outward: float) -> float:
    """Outer bound of the cell of the last `point`; `outward` is the spacing, signed outwards."""
    pole = float(np.copysign(90.0, outward))
    # The slack lets a regional grid that ends one (rounded) spacing before the pole keep its cell.
    if abs(pole - point) < abs(outward) * (1 - 1e-4):
        return pole
    return point + outward / 2


def grid_weights(
    shape: tuple[int, int], latitude: Any | None, policy: str = "area"
) -> tuple[np.ndarray, str, str]:
    """Weights of every grid point, under a named policy.

    Parameters
    ----------
    shape : (int, int)
        (H, W) of the grid.
    latitude : array-like of shape (H,) or None
        Degrees north; None for pixels and cells that have no latitude. These get uniform weights,
        whichever policy is asked for, and a line in the log says so.
    policy : {"area", "uniform"}
        Cell areas, or every point the same.

    Returns
    -------
    weights : numpy.ndarray of shape (H, W), float64
        Mean 1.
    name : str
        The policy in force: ``"area"`` or ``"uniform"``.
    description : str
        The policy in words, for the attributes of a result.
    """
    if policy not in ("area", "uniform"):
        raise InputError(f'weights must be "area" or "uniform", found {policy!r}')
    if policy == "uniform":
        return np.ones(shape), "uniform", "every grid point counts the same"
    if latitude is None:
        log.info("the grid has no latitude: every point counts the same (uniform weights)")
        return np.ones(shape), "uniform", "every point counts the same: the grid has no latitude"
    rows = np.broadcast_to(area_weights(latitude)[:, None], shape)
    return rows, "area", "cosine-free cell-area weights, mean 1"
