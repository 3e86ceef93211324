"""Whether forecast and truth lie on one grid, in one unit; where they meet, what points count."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.gate import canonicalize
from ..conventions.grid import TOLERANCE, Grid, grid_weights
from ..conventions.times import times_like, valid_times
from ..conventions.units import same_units
from ..errors import InputError
from .regions import choose_regions

log = logging.getLogger(__name__)

_STANDARD = {"standard", "gregorian", "proleptic_gregorian"}


def check_units(
    forecast: xr.Dataset, truth: xr.Dataset, variables: Sequence[str], whose: str = "truth"
) -> None:
    """Refuse variables whose units differ; where one is not given the log says so."""
    for v in variables:
        ours, theirs = forecast[v].attrs.get("units"), truth[v].attrs.get("units")
        if not ours or not theirs:
            log.info("%s: units are not given (forecast %s, %s %s)", v, ours, whose, theirs)
        elif not same_units(ours, theirs):
            raise InputError(
                f"{v} is in {ours!r} in the forecast and {theirs!r} in {whose}; convert one and "
                "set its attribute units"
            )


def check_grid(forecast: xr.Dataset, other: xr.Dataset, space: Sequence[Any], whose: str) -> None:
    """Refuse another grid; coordinates that agree to the tolerance count as the same.

    All that follows is positional, which is as good as exact labels once this has passed; an
    xarray operation on the two would silently drop rows whose coordinates differ in rounding.
    """
    for name in space:
        if name not in other.dims:
            raise InputError(f"{whose} has no {name}, found dims {tuple(other.dims)}")
    if difference := Grid.of(forecast).difference(Grid.of(other)):
        raise InputError(
            f"the forecast and {whose} lie on different grids: {difference} (allowed: "
            f"{TOLERANCE:g}, for rounding); put both on one grid first"
        )


def valid_positions(forecast: xr.Dataset, truth: xr.Dataset) -> np.ndarray:
    """Positions in truth's time of every valid time: (initialisations, leads)."""
    valid = valid_times(forecast["time"].values, forecast[LEAD].values)
    have = truth.indexes["time"]
    calendars = [getattr(t, "calendar", "standard") for t in (valid.flat[0], have[0])]
    if {*calendars} <= _STANDARD and valid.dtype != have.dtype:
        # One of them leaves the years of datetime64[ns], and is in cftime for that alone.
        if have.dtype == object:
            valid = times_like(valid, have.values)
        else:
            have = pd.Index(times_like(have.values, valid))
    elif calendars[0] != calendars[1]:
        raise InputError(
            f"the forecast's calendar is {calendars[0]} and truth's {calendars[1]}; bring one to "
            "the other with ds.convert_calendar"
        )
    found = have.get_indexer(pd.Index(valid.ravel()))
    absent = valid.ravel()[found < 0]
    if absent.size:
        different = np.unique(absent)
        raise InputError(
            f"truth lacks {different.size} of the forecast's {np.unique(valid).size} valid times, "
            f"first {different[0]}, last {different[-1]} (truth runs from {have[0]} to "
            f"{have[-1]}); give all of truth, or select the initialisations that it covers"
        )
    return found.reshape(valid.shape)


@dataclass(frozen=True)
class PointWeights:
    """Weights (H, W) of the points: one array for each policy and region asked for."""

    arrays: list[np.ndarray]
    coords: dict[str, list[str]]  # the dims over which `arrays` run, and their labels
    names: list[str]  # of the policies in force: "area", "uniform", "custom"
    description: str
    mask: np.ndarray  # True where no array has a weight

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of policies and of regions, where these are dims of the result."""
        return tuple(map(len, self.coords.values()))

    @classmethod
    def of(
        cls,
        weights: str | Sequence[str] | xr.DataArray,
        regions: str | Sequence[str] | Mapping[str, Any] | None,
        forecast: xr.Dataset,
        space: Sequence[Any],
    ) -> PointWeights:
        """Weights as :func:`stforecast.evaluate` takes them, on the grid of `forecast`."""
        several = isinstance(weights, (list, tuple))
        policies: list[Any] = list(weights) if several else [weights]
        if not policies:
            raise InputError('weights is empty: give "area", "uniform", both or an array')
        found: dict[str, tuple[np.ndarray, str]] = {}
        for asked in policies:  # by the name of the policy in force: without latitude both are one
            array, name, words = _weights(asked, forecast, space)
            found.setdefault(name, (array, words))
        coords: dict[str, list[str]] = {"weights": list(found)} if several else {}
        parts = {"": np.ones(())}
        if regions is not None:
            parts = _regions(regions, forecast, space)
            coords["region"] = list(parts)
        arrays = [array * part for array, _ in found.values() for part in parts.values()]
        if not all(array.any() for array in arrays):
            raise InputError("the array of weights is 0 all over one of the regions")
        mask = np.all([array == 0 for array in arrays], axis=0)
        return cls(arrays, coords, list(found), "; ".join(w for _, w in found.values()), mask)


def _weights(
    weights: str | xr.DataArray, forecast: xr.Dataset, space: Sequence[Any]
) -> tuple[np.ndarray, str, str]:
    shape = (forecast.sizes[space[0]], forecast.sizes[space[1]])
    if not isinstance(weights, (str, xr.DataArray)):
        raise InputError(
            f'weights must be "area", "uniform" or an xarray.DataArray on the grid of the forecast '
            f"({', '.join(map(str, space))}), found {type(weights).__name__}"
        )
    if not isinstance(weights, xr.DataArray):
        latitude = forecast["latitude"].values if "latitude" in space else None
        return grid_weights(shape, latitude, weights)
    grid = _on_grid(weights, forecast, space, "the array of weights")
    if not grid.max() > 0:
        raise InputError("an array of weights must be finite, nowhere negative and not all zero")
    masked = np.count_nonzero(grid == 0)
    return grid / grid.mean(), "custom", f"weights of the caller, {masked} of {grid.size} masked"


def _on_grid(
    array: xr.DataArray, forecast: xr.Dataset, space: Sequence[Any], whose: str
) -> np.ndarray:
    """Bring an array (H, W) to the order of the forecast's grid."""
    # The gate wants a time; an array of weights has none.
    if len(beside := [d for d in array.dims if array.sizes[d] > 1]) > 2:
        raise InputError(f"{whose} has the dimensions {tuple(beside)}, expected {tuple(space)}")
    if array.ndim > 2:
        array = array.squeeze([d for d in array.dims if array.sizes[d] == 1 and d not in space])
    array = array.drop_vars("time", errors="ignore").rename("weights")
    array = array.drop_attrs(deep=False)  # a mask made of a field may have its units
    if array.dtype == bool:  # a mask
        array = array.astype(np.float32)
    own, _ = canonicalize(array.expand_dims(time=forecast["time"].values[:1]).to_dataset())
    check_grid(forecast, own, space, whose)
    grid = own["weights"].isel(time=0).transpose(*space).values.astype(np.float64)
    if not (np.all(np.isfinite(grid)) and grid.min() >= 0):
        raise InputError(f"{whose} must be finite, nowhere negative and not all zero")
    return grid


def _regions(
    regions: str | Sequence[str] | Mapping[str, Any], forecast: xr.Dataset, space: Sequence[Any]
) -> dict[str, np.ndarray]:
    """Parts of the cells (H, W) in each region: of boxes, or as an array says."""
    wanted = dict(regions) if isinstance(regions, Mapping) else {}
    arrays = {name: r for name, r in wanted.items() if isinstance(r, xr.DataArray)}
    boxes = {name: r for name, r in wanted.items() if name not in arrays} if arrays else regions
    parts = {}
    if boxes or not arrays:
        if "latitude" not in space:
            raise InputError(f"regions are of latitude and longitude; the grid has {space}")
        parts = choose_regions(boxes, forecast["latitude"].values, forecast["longitude"].values)
    for name, array in arrays.items():
        parts[name] = _on_grid(array, forecast, space, f"the region {name!r}")
        if not 0 < parts[name].max() <= 1:
            raise InputError(
                f"the region {name!r} is an array of the part of each cell that lies in it, from "
                f"0 to 1, found {parts[name].min():g} to {parts[name].max():g}"
            )
    return {name: parts[name] for name in (wanted or parts)}
