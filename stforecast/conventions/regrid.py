"""From one latitude-longitude grid to another, separably: rows first, then columns.

From a finer grid the result is the area mean over each target cell (first-order conservative,
Jones 1999, doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2); from a coarser one it is linear.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ..errors import InputError
from .axes import is_global


def describe(grid: Mapping[str, np.ndarray]) -> str:
    """A grid in words: size, spacing, extent."""
    lat, lon = grid["latitude"], grid["longitude"]
    return (
        f"{len(lat)} x {len(lon)} points, {_spacing(lat):.4g} x {_spacing(lon):.4g} degrees, "
        f"{lat.min():.4g} to {lat.max():.4g} north, {lon.min():.4g} to {lon.max():.4g} east"
    )


def same_grid(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    """Whether two grids have the same cells, to 0.3 of a spacing.

    So a regular and a Gaussian grid of one resolution are the same; and round the globe only the
    spacing of longitude counts, not where it starts.
    """
    if any(len(a[k]) != len(b[k]) for k in ("latitude", "longitude")):
        return False
    lat, lon = ((a[k], b[k], 0.3 * _spacing(b[k])) for k in ("latitude", "longitude"))
    if np.abs(lat[0] - lat[1]).max() > lat[2]:
        return False
    if is_global(a["longitude"]) and is_global(b["longitude"]):
        return True
    return bool(np.abs(lon[0] - lon[1]).max() <= lon[2])


def to_grid(ds: xr.Dataset, grid: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Bring every variable (..., latitude, longitude) of a canonical Dataset to another grid.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical: latitude and longitude ascending.
    grid : mapping
        ``latitude`` and ``longitude`` of the target, ascending, in degrees.

    Returns
    -------
    xarray.Dataset
        Lazy where `ds` was.

    Raises
    ------
    InputError
        If the data do not cover the target grid.
    """
    lat, lon = ds["latitude"].values.astype(float), ds["longitude"].values.astype(float)
    rows = _matrix(lat, np.asarray(grid["latitude"]), "latitude")
    columns = _matrix(
        lon, np.asarray(grid["longitude"]), "round the globe" if is_global(lon) else "longitude"
    )
    if rows is None or columns is None:
        raise InputError(
            f"cannot regrid: the data ({describe({'latitude': lat, 'longitude': lon})}) do not "
            f"cover the model's grid ({describe(grid)})"
        )
    rows, columns = rows.astype(np.float32), columns.astype(np.float32)

    def apply(x: np.ndarray) -> np.ndarray:
        return rows @ x @ columns.T

    out = {}
    for name, array in ds.data_vars.items():
        dims = array.dims[:-2]
        new = xr.apply_ufunc(
            apply,
            array.chunk({"latitude": -1, "longitude": -1}) if array.chunks else array,
            input_core_dims=[["latitude", "longitude"]],
            output_core_dims=[["latitude", "longitude"]],
            exclude_dims={"latitude", "longitude"},
            dask="parallelized",
            dask_gufunc_kwargs={"output_sizes": {"latitude": len(rows), "longitude": len(columns)}},
            output_dtypes=[np.float32],
            keep_attrs=True,
        )
        out[name] = new.transpose(*dims, "latitude", "longitude")
    coords = {
        k: (k, np.asarray(grid[k], dtype=float), ds[k].attrs) for k in ("latitude", "longitude")
    }
    return xr.Dataset(out, attrs=ds.attrs).assign_coords(coords)


def _spacing(x: np.ndarray) -> float:
    return float(np.abs(np.diff(x)).mean()) if len(x) > 1 else 360.0


def _matrix(source: np.ndarray, target: np.ndarray, axis: str) -> np.ndarray | None:
    """Weights (targets, sources), rows summing to 1; None where a target is not covered."""
    finer = _spacing(source) < 0.9 * _spacing(target)
    return (_overlap if finer else _linear)(source, target, axis)


def _edges(x: np.ndarray, axis: str) -> np.ndarray:
    """Bounds (n + 1,) of the cells round ascending points; for latitude, their sines."""
    middle = (x[1:] + x[:-1]) / 2
    edges = np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])
    if axis == "round the globe":  # the last cell meets the first one, 360 degrees on
        edges[0] = (x[0] + x[-1] - 360) / 2
        edges[-1] = edges[0] + 360
    return np.sin(np.deg2rad(np.clip(edges, -90, 90))) if axis == "latitude" else edges


def _overlap(source: np.ndarray, target: np.ndarray, axis: str) -> np.ndarray | None:
    """Shares of each target cell's area that lie in each source cell."""
    s = _edges(source, axis)
    t = _edges(target, "longitude" if axis == "round the globe" else axis)
    weights = np.zeros((len(target), len(source)))
    for shift in (-360.0, 0.0, 360.0) if axis == "round the globe" else (0.0,):
        low = np.maximum(t[:-1, None], s[None, :-1] + shift)
        high = np.minimum(t[1:, None], s[None, 1:] + shift)
        weights += np.clip(high - low, 0, None)
    total = weights.sum(1)
    return None if (total < 0.5 * np.diff(t)).any() else weights / total[:, None]


def _linear(source: np.ndarray, target: np.ndarray, axis: str) -> np.ndarray | None:
    """Linear interpolation; the rows at the poles are held constant towards the pole."""
    n, periodic, slack = len(source), axis == "round the globe", _spacing(source)
    x = np.concatenate([[source[-1] - 360], source, [source[0] + 360]]) if periodic else source
    if not periodic and (target.min() < x[0] - slack or target.max() > x[-1] + slack):
        return None
    at = np.interp(target, x, np.arange(len(x)))
    low = np.minimum(at.astype(int), len(x) - 2)
    weights = np.zeros((len(target), len(x)))
    weights[np.arange(len(target)), low] = 1 - (at - low)
    weights[np.arange(len(target)), low + 1] += at - low
    if periodic:  # the two points that were added are the last and the first
        weights[:, n] += weights[:, 0]
        weights[:, 1] += weights[:, n + 1]
        weights = weights[:, 1:-1]
    return weights
