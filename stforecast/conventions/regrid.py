"""From one latitude-longitude grid to another, separably: rows first, then columns.

From a finer grid the result is the area mean over each target cell (first-order conservative,
Jones 1999, doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2); from a coarser one it is linear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .axes import LAT, LON
from .grid import Grid, spacing


def to_grid(ds: xr.Dataset, grid: Grid) -> xr.Dataset:
    """Bring every variable (..., latitude, longitude) of a canonical Dataset to another grid.

    Where the data are finer than `grid`, the integral over the area that both cover is kept, to
    rounding: cells are those of :meth:`stforecast.conventions.Grid.bounds`.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical; latitudes may descend.
    grid : Grid
        The target, of latitude and longitude.

    Returns
    -------
    xarray.Dataset
        Lazy where `ds` was; float64 where `ds` was, else float32.

    Raises
    ------
    InputError
        If the data do not cover the target grid.
    """
    source = Grid.of(ds)
    rows, columns = _matrices(source, grid)
    if rows is None or columns is None:
        raise InputError(
            f"cannot regrid: the data ({source.describe()}) do not cover the model's grid "
            f"({grid.describe()}); give data of all of it, or fit a model of your own on these"
        )

    def apply(x: np.ndarray) -> np.ndarray:
        dtype = np.result_type(x, np.float32)
        return rows.astype(dtype) @ x @ columns.astype(dtype).T

    out = {}
    for name, array in ds.data_vars.items():
        new = xr.apply_ufunc(
            apply,
            array.chunk({LAT: -1, LON: -1}) if array.chunks else array,
            input_core_dims=[[LAT, LON]],
            output_core_dims=[[LAT, LON]],
            exclude_dims={LAT, LON},
            dask="parallelized",
            dask_gufunc_kwargs={"output_sizes": dict(zip((LAT, LON), grid.shape, strict=True))},
            output_dtypes=[np.result_type(array.dtype, np.float32)],
            keep_attrs=True,
        )
        out[name] = new.transpose(*(d for d in array.dims if d not in (LAT, LON)), LAT, LON)
    coords = {k: (k, np.asarray(v, dtype=float), ds[k].attrs) for k, v in grid.axes.items()}
    return xr.Dataset(out, attrs=ds.attrs).assign_coords(coords)


def covers(source: Grid, target: Grid) -> bool:
    """Whether data on one grid can be brought to another by :func:`to_grid`."""
    return all(matrix is not None for matrix in _matrices(source, target))


def _matrices(source: Grid, target: Grid) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Weights (targets, sources) for rows and columns; None where a target is not covered."""
    ours, theirs = source.bounds(), target.bounds()
    turn = 360.0 if source.periodic else 0.0
    sines, their_sines = (np.sin(np.deg2rad(rows)) for rows in (ours[0], theirs[0]))
    return (
        _matrix(source.latitude, target.latitude, sines, their_sines, 0.0),
        _matrix(source.longitude, target.longitude, ours[1], theirs[1], turn),
    )


def _matrix(
    x: Any, y: Any, cells: np.ndarray, their_cells: np.ndarray, turn: float
) -> np.ndarray | None:
    shares = _overlap(cells, their_cells, turn)
    finer = spacing(x) < 0.9 * spacing(y)
    return shares if shares is None or finer else _linear(x, y, turn)


def _overlap(source: np.ndarray, target: np.ndarray, turn: float) -> np.ndarray | None:
    """Shares of each target cell's area that lie in each source cell, from bounds (N, 2).

    None where less than half of a target cell is covered.
    """
    weights = np.zeros((len(target), len(source)))
    for shift in (-turn, 0.0, turn) if turn else (0.0,):
        low = np.maximum(target[:, None, 0], source[None, :, 0] + shift)
        high = np.minimum(target[:, None, 1], source[None, :, 1] + shift)
        weights += np.clip(high - low, 0, None)
    total = weights.sum(1)
    covered = (total > 0) & (total >= 0.5 * np.diff(target)[:, 0])
    return weights / total[:, None] if covered.all() else None


def _linear(source: np.ndarray, target: np.ndarray, turn: float) -> np.ndarray:
    """Linear interpolation; the outer rows and columns are held constant to the ends of cells."""
    order = np.argsort(source)
    x = source[order]
    if turn:  # the last point stands before the first too, and the first after the last
        x, order = np.array([x[-1] - turn, *x, x[0] + turn]), order[[-1, *range(len(x)), 0]]
    at = np.interp(target, x, np.arange(len(x)))
    low = np.minimum(at.astype(int), len(x) - 2)
    weights, here = np.zeros((len(target), len(source))), np.arange(len(target))
    np.add.at(weights, (here, order[low]), 1 - (at - low))
    np.add.at(weights, (here, order[low + 1]), at - low)
    return weights
