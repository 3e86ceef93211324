"""Thresholds of events: numbers, or quantiles of a climatology by place and season."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.gate import canonicalize
from ..conventions.overlap import write_period
from ..errors import InputError
from .alignment import check_grid, check_units
from .groups import PARTS

LABEL = "threshold"
_SEASONS = ("season", "month")
_COLD = 100.0  # K: what is below is meant in degC
_BYTES = 2**28  # of history in memory at once


@dataclass(frozen=True)
class Reaches:
    """Whether values reach a threshold, or with `below` stay under it; NaN does neither."""

    limit: np.ndarray
    below: bool

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Tell it at every point."""
        return values < self.limit if self.below else values >= self.limit


@dataclass(frozen=True)
class Limits:
    """Thresholds of a variable: a table (K, S, H, W), and which of S a forecast time has."""

    table: np.ndarray
    slot: np.ndarray  # (N, L)
    below: bool

    def at(self, times: tuple[slice, ...], space: tuple[slice, ...]) -> Iterator[Reaches]:
        """Give the events of a block, one for each threshold."""
        rows, columns = (
            at if n > 1 else slice(None) for at, n in zip(space, self.table.shape[2:], strict=True)
        )
        slot = self.slot[times]
        for one in self.table[:, :, rows, columns]:
            yield Reaches(one[slot] if len(one) > 1 else one[0], self.below)


def refuse_celsius(array: xr.DataArray, limit: float) -> None:
    """Refuse a threshold of a variable that is scored in K, if it is meant in degC."""
    if array.attrs.get("units") == "K" and limit < _COLD:
        raise InputError(f"thresholds of {array.name} are in K, as it is scored, found {limit:g}")


class Thresholds:
    """Thresholds as a user gives them; equal where they are the same numbers.

    Parameters
    ----------
    values : float, sequence of float, mapping of str to these, or xarray.Dataset
        In the unit of the variable, by its name where they differ; or what
        :func:`climatological_quantiles` gives.
    below : bool
        Whether the event is to stay below them.
    """

    def __init__(self, values: Any, below: bool = False) -> None:
        self.given, self.below = values, below
        self.table = values if isinstance(values, xr.Dataset) else None
        self.by_name: dict[str, tuple[float, ...]] = {}
        self.scalar = False
        if self.table is not None:
            if LABEL not in self.table.dims:
                raise InputError(
                    f"thresholds in a Dataset have the dim {LABEL!r}, found "
                    f"{tuple(self.table.dims)}; make them with climatological_quantiles"
                )
            return
        own = values if isinstance(values, Mapping) else {"": values}
        self.scalar = all(np.ndim(v) == 0 for v in own.values())
        for name, some in own.items():
            try:
                array = np.atleast_1d(np.asarray(some, np.float64))
            except (TypeError, ValueError):
                array = np.array([np.nan])
            if array.ndim != 1 or not array.size or not np.isfinite(array).all():
                raise InputError(f"thresholds are numbers or sequences of them, found {some!r}")
            if (np.diff(array) <= 0).any():
                raise InputError(f"thresholds must ascend, found {some!r}")
            self.by_name[str(name)] = tuple(array.tolist())
        if len({len(v) for v in self.by_name.values()}) != 1:
            raise InputError(f"every variable needs as many thresholds as the others: {values!r}")

    def _key(self) -> Any:
        numbers = tuple(sorted(self.by_name.items()))
        return id(self) if self.table is not None else (numbers, self.scalar, self.below)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thresholds) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def count(self) -> int:
        """Number of thresholds."""
        if self.table is not None:
            return self.table.sizes[LABEL]
        return len(next(iter(self.by_name.values())))

    @property
    def labels(self) -> list[Any]:
        """Labels along the dim ``threshold``: thresholds or quantiles, else their number."""
        if self.table is not None:
            return self.table[LABEL].values.tolist()
        return list(self.by_name.get("", range(self.count)))

    def of(self, variable: str) -> str | None:
        """Write the thresholds of a variable, for attributes."""
        side = "below" if self.below else "at or above"
        if self.table is not None:
            return f"{side} quantiles {', '.join(f'{q:g}' for q in self.labels)} by place"
        values = self.by_name.get(variable, self.by_name.get("", ()))
        return f"{side} {', '.join(f'{v:g}' for v in values)}"

    def on(self, forecast: xr.Dataset, valid: np.ndarray, mask: np.ndarray) -> dict[str, Limits]:
        """Find the thresholds of each variable of a forecast with these valid times (N, L).

        Where `mask` is True no point counts, and there need be no threshold.
        """
        variables = [str(v) for v in forecast.data_vars]
        if self.table is not None:
            tables, slot = self._tables(self.table, forecast, variables, valid)
        else:
            missing = [v for v in variables if not {v, ""} & set(self.by_name)]
            if missing:
                raise InputError(f"there are no thresholds for {missing}, only {self.given!r}")
            values = {v: np.array(self.by_name.get(v, self.by_name.get(""))) for v in variables}
            tables = {v: a.astype(np.float32)[:, None, None, None] for v, a in values.items()}
            slot = np.zeros(valid.shape, np.intp)
        for v, table in tables.items():
            if not (np.isfinite(table) | mask).all():
                raise InputError(f"thresholds of {v} are NaN or infinite where points count")
            refuse_celsius(forecast[v], float(np.nanmin(table)))
        return {v: Limits(table, slot, self.below) for v, table in tables.items()}

    def _tables(
        self, table: xr.Dataset, forecast: xr.Dataset, variables: list[str], valid: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Thresholds (K, S, H, W) on the forecast's grid, and which of S a time has."""
        part = next((d for d in _SEASONS if d in table.dims), None)
        stacked = table.expand_dims("none") if part is None else table
        along = [LABEL, part or "none"]
        slot = np.zeros(valid.shape, np.intp)
        if part is not None:
            find, labels = PARTS[part]
            if table[part].values.tolist() != list(labels):
                raise InputError(
                    f"thresholds by {part} need {list(labels)}, found {table[part].values.tolist()}"
                )
            slot = find(valid.ravel()).reshape(valid.shape)
        # To the gate a table is a history: its thresholds and seasons are the times of it.
        flat = stacked.stack(time=along, create_index=False).drop_vars(along, errors="ignore")
        days = np.arange(flat.sizes["time"]) * np.timedelta64(1, "D")
        flat = flat.assign_coords(time=np.datetime64("2000-01-01", "ns") + days)
        own, _ = canonicalize(flat, variables)
        space = forecast[variables[0]].dims[2:]
        check_grid(forecast, own, space, "the thresholds")
        check_units(forecast, own, variables, "the thresholds")
        shape = (self.count, stacked.sizes[along[1]], *(own.sizes[d] for d in space))
        arrays = {v: own[v].transpose("time", *space).values.reshape(shape) for v in variables}
        return arrays, slot


def climatological_quantiles(
    history: Any,
    levels: float | Sequence[float],
    *,
    by: str | None = "season",
    variables: Sequence[str] | None = None,
) -> xr.Dataset:
    """Quantiles of history at every place, by season: thresholds of events that are rare there.

    Parameters
    ----------
    history : xarray.Dataset
        Of the training years only, as no period is selected here.
    levels : float or sequence of float
        Between 0 and 1, ascending.
    by : {"season", "month", None}
        Whether each season (DJF, MAM, JJA, SON) or month has quantiles of its own.
    variables : sequence of str, optional
        Default: all.

    Returns
    -------
    xarray.Dataset
        Dims (threshold, season or month, latitude, longitude), or (…, y, x), for `thresholds` of
        :func:`csi`, :func:`brier` and others. ``threshold`` has the levels. Quantiles are
        interpolated between the values; they are NaN where history has a NaN.

    Raises
    ------
    InputError
        If a level is none, or history has no date in one of the seasons.

    Examples
    --------
    >>> from stforecast.testing import make_weather
    >>> climatological_quantiles(make_weather(24), [0.1, 0.9], by=None).sizes["threshold"]
    2
    """
    some = np.atleast_1d(np.asarray(levels, np.float64))
    if some.ndim != 1 or not ((some > 0) & (some < 1)).all() or (np.diff(some) <= 0).any():
        raise InputError(f"levels lie between 0 and 1 and ascend, found {levels!r}")
    if by is not None and by not in _SEASONS:
        raise InputError(f"by must be among {[*_SEASONS, None]}, found {by!r}")
    ds, _ = canonicalize(history, variables, form="history")
    find, labels = PARTS[by] if by else (None, ("all",))
    time = ds["time"].values
    which = np.zeros(len(time), int) if find is None else find(time)
    lacking = [label for i, label in enumerate(labels) if i not in which]
    if lacking:
        raise InputError(f"history has no date in {lacking}; by=None takes all dates together")
    out = {}
    for v, array in ds.data_vars.items():
        space = array.dims[1:]
        sizes = [array.sizes[d] for d in space]
        rows = max(1, _BYTES // (4 * len(time) * sizes[1]))
        table = np.empty((len(some), len(labels), *sizes), np.float32)
        for start in range(0, sizes[0], rows):  # all times of some rows are in memory
            at = slice(start, start + rows)
            values = array.isel({space[0]: at}).to_numpy()
            for i in range(len(labels)):
                table[:, i, at] = np.quantile(values[which == i], some, axis=0)
        dims = (LABEL, by or "none", *space)
        whole = xr.Variable(dims, table, array.attrs)
        out[v] = whole if by else whole.squeeze("none")
    coords = {LABEL: some, **({by: list(labels)} if by else {})}
    coords |= {str(d): ds[d].variable for d in space if d in ds.coords}
    attrs = {"climatology_period": write_period(time)}
    result = xr.Dataset(out, coords, attrs)
    result[LABEL].attrs = {"long_name": "quantile of the climatology", "units": "1"}
    return result
