"""Grids of fields (H, W): where the points lie, their cells, and the areas of these as weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .angles import is_global
from .axes import LAT, LON, X, Y

log = logging.getLogger(__name__)

#: Degrees: coordinates that differ by less are rounded versions of each other.
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the points of fields (H, W) lie: by latitude and longitude, or by y and x.

    Parameters
    ----------
    latitude, longitude : numpy.ndarray of shape (H,), (W,)
        Degrees north, ascending or descending; degrees east, ascending without a break.
    y, x : numpy.ndarray of shape (H,), (W,), or int
        Of pixels and cells: their coordinates, or only how many there are.

    Examples
    --------
    >>> globe = Grid(np.array([-45.0, 45.0]), np.array([0.0, 120.0, 240.0]))
    >>> globe.describe()
    '2 x 3 points, 90 x 120 degrees, -45 to 45 north, 0 to 240 east'
    >>> globe.difference(Grid(np.array([-45.0, 44.0]), globe.longitude))
    'latitude has 2 points from -45 to 45 and 2 points from -45 to 44, up to 1 apart'
    """

    latitude: np.ndarray | None = None
    longitude: np.ndarray | None = None
    y: np.ndarray | int | None = None
    x: np.ndarray | int | None = None

    @classmethod
    def of(cls, ds: xr.Dataset | xr.DataArray) -> Grid:
        """Return the grid of canonical data; refuse data without one."""
        for roles in ((LAT, LON), (Y, X)):
            if set(roles) <= set(ds.dims):
                found = {r: ds[r].to_numpy() if r in ds.coords else ds.sizes[r] for r in roles}
                return cls(**found)  # type: ignore[arg-type]
        raise InputError(
            f"expected latitude and longitude (or y and x), found dims {tuple(ds.dims)}"
        )

    @classmethod
    def from_dict(cls, grid: Mapping[str, Any]) -> Grid:
        """Read what :meth:`to_dict` gives."""
        sized = {k: v if isinstance(v, int) else np.asarray(v, float) for k, v in grid.items()}
        return cls(**sized)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"latitude": [...], "longitude": [...]}`` or the sizes ``{"y": H, "x": W}``."""
        if self.geographic:
            return {k: np.asarray(v, float).tolist() for k, v in self.axes.items()}
        return {k: _count(v) for k, v in self.axes.items()}

    @property
    def axes(self) -> dict[str, np.ndarray | int]:
        """The two axes by name."""
        given = {LAT: self.latitude, LON: self.longitude, Y: self.y, X: self.x}
        return {name: values for name, values in given.items() if values is not None}

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return tuple(_count(v) for v in self.axes.values())

    @property
    def geographic(self) -> bool:
        """Whether the axes are latitude and longitude."""
        return self.latitude is not None

    @property
    def periodic(self) -> bool:
        """Whether longitudes go round the globe."""
        return self.longitude is not None and is_global(self.longitude)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of the cells of both axes.

        Returns
        -------
        rows, columns : numpy.ndarray of shape (H, 2), (W, 2), float64
            Lower and upper bound. Latitude as :func:`cell_bounds`; longitudes that go round the
            globe meet; other cells end half a spacing beyond the last point. A single row or column
            has no extent.

        Raises
        ------
        InputError
            If latitudes are none (see :func:`area_weights`).
        """
        if self.latitude is None or self.longitude is None:
            rows, columns = (
                cell_edges(np.arange(v) if isinstance(v, int) else v) for v in self.axes.values()
            )
            return _pairs(rows), _pairs(columns)
        edges = cell_edges(lon := np.asarray(self.longitude, np.float64))
        if self.periodic:
            edges[0] = (lon[-1] - 360 + lon[0]) / 2
            edges[-1] = edges[0] + 360
        return cell_bounds(self.latitude), _pairs(edges)

    def area(self) -> np.ndarray:
        """Weights (H, W), float64, mean 1: :func:`area_weights` of the rows; 1 without latitude."""
        rows = np.ones(1) if self.latitude is None else area_weights(self.latitude)
        return np.broadcast_to(rows[:, None], self.shape)

    def difference(self, other: Grid, tolerance: float = TOLERANCE) -> str | None:
        """Say in words where another grid differs; None where it is the same.

        Parameters
        ----------
        other : Grid
            Named second in the text. Where one of them has no coordinates, sizes are compared.
        tolerance : float
            By how much coordinates may differ, in their units.

        Returns
        -------
        str or None
        """
        if self.axes.keys() != other.axes.keys():
            return f"{' and '.join(self.axes)} in one, {' and '.join(other.axes)} in the other"
        for name, ours in self.axes.items():
            theirs = other.axes[name]
            if isinstance(ours, int) or isinstance(theirs, int):
                ours, theirs = _count(ours), _count(theirs)
            if text := axis_difference(name, ours, theirs, tolerance):
                return text
        return None

    def same_as(self, other: Grid, tolerance: float = TOLERANCE) -> bool:
        """Whether another grid has the same points; parameters as of :meth:`difference`."""
        return self.difference(other, tolerance) is None

    def same_cells(self, other: Grid, *, turned: bool = True) -> bool:
        """Whether a geographic grid has the same cells as another, to 0.3 of its spacing.

        A regular and a Gaussian grid of one resolution are the same.

        Parameters
        ----------
        other : Grid
        turned : bool
            Whether round the globe only the spacing of longitude counts, not where it starts.

        Returns
        -------
        bool
        """
        return self.shape == other.shape and all(
            axis_difference(name, ours, other.axes[name], 0.3 * spacing(other.axes[name])) is None
            for name, ours in self.axes.items()
            if not (turned and name == LON and self.periodic and other.periodic)
        )

    def describe(self) -> str:
        """Return the grid in words: size, spacing, extent."""
        height, width = self.shape
        if self.latitude is None or self.longitude is None:
            return f"{height} x {width} points without latitude and longitude"
        lat, lon = self.latitude, self.longitude
        return (
            f"{height} x {width} points, {spacing(lat):.4g} x {spacing(lon):.4g} degrees, "
            f"{lat.min():.4g} to {lat.max():.4g} north, {lon.min():.4g} to {lon.max():.4g} east"
        )


def axis_difference(
    name: str, ours: np.ndarray | int, theirs: np.ndarray | int, tolerance: float = TOLERANCE
) -> str | None:
    """Say in words where two axes differ; None where they are the same.

    Parameters
    ----------
    name : str
        What the axis is called in the text.
    ours, theirs : numpy.ndarray of shape (N,), or int
        Coordinates, or how many points there are.
    tolerance : float
        By how much numbers may differ; other coordinates (times, words) may not.
    """
    text = f"{name} has {_span(ours)} and {_span(theirs)}"
    if isinstance(ours, int) or isinstance(theirs, int):
        same = isinstance(ours, int) and isinstance(theirs, int) and ours == theirs
        return None if same else text
    if ours.shape != theirs.shape:
        return text
    if ours.dtype.kind not in "fiu" or theirs.dtype.kind not in "fiu":
        return None if (ours == theirs).all() else text
    gap = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max(initial=0)
    return None if gap <= tolerance else f"{text}, up to {gap:.6g} apart"


def _count(axis: np.ndarray | int) -> int:
    return axis if isinstance(axis, int) else len(axis)


def _span(axis: np.ndarray | int) -> str:
    if isinstance(axis, int) or not len(axis):
        return f"{_count(axis)} points"
    ends = (f"{v:.6g}" if axis.dtype.kind in "fiu" else str(v) for v in (axis[0], axis[-1]))
    return f"{len(axis)} points from {' to '.join(ends)}"


def spacing(points: Any) -> float:
    """Mean distance between neighbouring points; 360 for a single one."""
    return float(np.abs(np.diff(points)).mean()) if np.size(points) > 1 else 360.0


def cell_edges(points: np.ndarray) -> np.ndarray:
    """Edges (N + 1,) of the cells round monotonic points (N,).

    They lie midway between the points, and half a spacing beyond the last. The cell of a single
    point has no extent.
    """
    points = np.asarray(points, np.float64)
    if len(points) == 1:
        return np.repeat(points, 2)
    first, last = (points[1] - points[0]) / 2, (points[-1] - points[-2]) / 2
    middle = (points[:-1] + points[1:]) / 2
    return np.concatenate([[points[0] - first], middle, [points[-1] + last]])


def _pairs(edges: np.ndarray) -> np.ndarray:
    """Edges (N + 1,) as lower and upper bounds (N, 2)."""
    return np.sort(np.stack([edges[:-1], edges[1:]], axis=1), axis=1)


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
    low, high = np.deg2rad(cell_bounds(latitude, bounds=bounds).T)
    if low.size == 1 and bounds is None:  # a row without extent weighs what it weighs
        return np.ones(1)
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
    if bounds is None:
        edges = cell_edges(lat)
        # The slack lets a regional grid that ends one (rounded) spacing before the pole keep its
        # cell.
        for end, outward in ((0, -steps[0]), (-1, steps[-1])) if steps.size else ():
            pole = np.copysign(90.0, outward)
            if abs(pole - lat[end]) < abs(outward) * (1 - 1e-4):
                edges[end] = pole
        return np.clip(_pairs(edges), -90, 90)
    edges = np.asarray(bounds, dtype=np.float64)
    pairs = _pairs(edges) if edges.shape == (lat.size + 1,) else edges
    if pairs.shape != (lat.size, 2):
        raise InputError(
            f"bounds of {lat.size} latitudes must have shape ({lat.size + 1},) or "
            f"({lat.size}, 2), found {np.shape(bounds)}"
        )
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    if np.any(low > lat + 1e-6) or np.any(high < lat - 1e-6):
        raise InputError("each latitude must lie within the bounds given for it")
    return np.clip(np.stack([low, high], axis=1), -90, 90)


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
        Areas of the cells between latitudes a < b, sin(b) - sin(a), with the rule for the poles of
        :func:`area_weights`; or the same weight for every point.

    Returns
    -------
    weights : numpy.ndarray of shape (H, W), float64
        Without a unit, mean 1.
    name : str
        The policy in force: ``"area"`` or ``"uniform"``.
    description : str
        The policy in words, for the attributes of a result.

    Raises
    ------
    InputError
        If the policy is another, or latitudes are none (see :func:`area_weights`).
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
