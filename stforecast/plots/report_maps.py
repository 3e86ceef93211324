"""Maps for the report: fields as 16-bit numbers that the page's script draws."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.pairs import open_forecast, open_truth
from ..conventions.times import valid_times
from ..errors import InputError
from ..evaluation.alignment import check_grid, check_units, valid_positions
from .cartography import Grid, aspect
from .coastlines import BORDERS, COASTLINE, shipped_lines
from .colours import STOPS, colours_of
from .fields import mean_member, on_own_axes
from .labels import lead_label, time_label, unit_label

_COAST = 50  # of the coastline's numbers in a degree: 16 bits hold 655 degrees
_GAP = 65535  # where there is no value; the values take 0 to 65534


def map_data(
    forecasts: Mapping[str, xr.Dataset], truth: xr.Dataset, initialisations: int, max_bytes: int
) -> dict[str, Any]:
    """Forecasts and truth as 16-bit numbers, for a few initialisations, with their grid.

    Parameters
    ----------
    forecasts, truth, initialisations, max_bytes
        As for :func:`stforecast.plots.write_report`.

    Returns
    -------
    dict
        What the page's script reads as ``maps``: JSON.

    Raises
    ------
    InputError
        If the forecasts do not fit each other or `truth`.
    """
    through = {name: open_forecast(mean_member(f), truth) for name, f in forecasts.items()}
    opened = {name: f for name, (f, _) in through.items()}
    first, labels = next(iter(through.values()))
    canonical_truth, _ = open_truth(truth, first, labels)
    variables = [str(v) for v in canonical_truth.data_vars]
    space = first[variables[0]].dims[2:]
    for name, f in opened.items():
        for dim in ("time", LEAD):
            if not np.array_equal(f[dim].values, first[dim].values):
                raise InputError(
                    f"the forecasts differ in {dim}: {name!r} and {next(iter(opened))!r}"
                )
        check_grid(first, f, space, name)
        check_units(first, f, variables)
    check_grid(first, canonical_truth, space, "truth")
    check_units(first, canonical_truth, variables)

    grid = Grid.of(on_own_axes(first[variables[0]].isel({"time": 0, LEAD: 0}), labels))
    inits, leads, variables, step = _fitting(
        first, variables, len(opened) + 1, initialisations, max_bytes
    )
    positions = valid_positions(first.isel(time=inits), canonical_truth)[:, leads]
    fields: dict[str, Any] = {}
    for v in variables:
        shown = canonical_truth[v].isel(time=positions.ravel()).values
        true = _coarse(shown.reshape(*positions.shape, *shown.shape[1:]), grid, step)
        ours = {
            name: _coarse(f[v].isel({"time": inits, LEAD: leads}).values, grid, step)
            for name, f in opened.items()
        }
        fields[v] = _quantised(true, ours, first[v])
    valid = valid_times(first["time"].values[inits], first[LEAD].values[leads])
    # Clips are counted, not dated.
    label = time_label if first["time"].dtype.kind in "MO" else str
    sizes = [first.sizes[d] for d in space]
    notes = [f"{len(inits)} of {first.sizes['time']} initialisations"]
    if len(leads) < first.sizes[LEAD]:
        notes.append(f"{len(leads)} of {first.sizes[LEAD]} lead times")
    if step > 1:
        notes.append(f"means of {step} x {step} cells of the {sizes[0]} x {sizes[1]} grid")
    coast, borders = (
        shipped_lines(what, grid.box) if grid.geographic else [] for what in (COASTLINE, BORDERS)
    )
    return {
        "initialisations": [label(t) for t in first["time"].values[inits]],
        "valid": [[label(t) for t in row] for row in valid],
        "leads": leads.tolist(),
        "leadLabels": [lead_label(x) for x in first[LEAD].values[leads]],
        "models": list(opened),
        "grid": _grid(grid, step),
        "fields": fields,
        "perDegree": _COAST,
        "coast": [_packed_line(line) for line in coast],
        "borders": [] if grid.whole else [_packed_line(line) for line in borders],
        "note": "; ".join(notes),
    }


def _fitting(
    first: xr.Dataset, variables: list[str], fields: int, initialisations: int, max_bytes: int
) -> tuple[np.ndarray, np.ndarray, list[str], int]:
    """Initialisations, leads, variables and step of the grid that the page has room for."""
    cells = int(np.prod([first.sizes[d] for d in first[variables[0]].dims[2:]]))
    room = max_bytes * 3 / 4 / 2 / (fields * cells)  # fields of 16 bits, written in base64
    variables = variables[: max(1, min(len(variables), 4, int(room / 4)))]
    room /= len(variables)
    n_inits, n_leads = max(1, min(initialisations, first.sizes["time"])), first.sizes[LEAD]
    while n_inits > 1 and n_inits * n_leads > room:
        n_inits -= 1
    n_leads = max(min(n_leads, 8), min(n_leads, 60, int(room)))
    step = max(1, int(np.ceil(np.sqrt(n_inits * n_leads / room))))
    leads = np.unique(np.linspace(0, first.sizes[LEAD] - 1, n_leads).round().astype(int))
    # The middles of equal parts of the sample, not its ends.
    inits = ((np.arange(n_inits) + 0.5) * first.sizes["time"] / n_inits).astype(int)
    return inits, leads, variables, step


def _coarse(values: np.ndarray, grid: Grid, step: int) -> np.ndarray:
    """Means of blocks of cells, in the grid's order; the last blocks hold what is left."""
    values = np.asarray(values, dtype=np.float32)
    values = values[..., grid.row_order, :][..., grid.column_order]
    if step == 1:
        return values
    for axis in (-2, -1):
        starts = np.arange(0, values.shape[axis], step)
        counts = np.diff(np.append(starts, values.shape[axis]))
        shape = [1] * values.ndim
        shape[axis] = len(starts)
        values = np.add.reduceat(values, starts, axis=axis) / counts.reshape(shape)
    return values.astype(np.float32)


def _quantised(
    true: np.ndarray, ours: Mapping[str, np.ndarray], field: xr.DataArray
) -> dict[str, Any]:
    """Fields as 16-bit numbers on one scale, and the limits of their colours."""
    every = [true, *ours.values()]
    finite = [a[np.isfinite(a)] for a in every]
    low = min((float(a.min()) for a in finite if a.size), default=0.0)
    high = max((float(a.max()) for a in finite if a.size), default=1.0)
    size = (high - low) / (_GAP - 1) or 1.0

    def packed(a: np.ndarray) -> str:
        there = np.isfinite(a)
        whole = np.round((np.where(there, a, low) - low) / size)
        return _packed(np.where(there, whole, _GAP).astype("<u2"))

    both = np.concatenate([finite[0], *finite[1:2]])
    ends = np.quantile(both, [0.005, 0.995]) if both.size else np.array([0.0, 1.0])
    colours, diverging = colours_of(field, *map(float, ends))
    if diverging:
        ends = np.quantile(np.abs(both), 0.995) * np.array([-1.0, 1.0])
    limits = {}
    for name, a in ours.items():
        error = np.abs(a - true)
        error = error[np.isfinite(error)]
        limits[name] = rounded(float(np.quantile(error, 0.995)) if error.size else 0.0) or 1.0
    return {
        "units": unit_label(field.attrs.get("units")),
        "colours": STOPS[colours].split(),
        "low": low,
        "size": size,
        "from": rounded(float(ends[0])),
        "to": rounded(float(ends[1]) if ends[1] > ends[0] else float(ends[0]) + 1),
        "errors": limits,
        "truth": packed(true),
        "models": {name: packed(a) for name, a in ours.items()},
    }


def _packed_line(line: np.ndarray) -> str:
    return _packed(np.round(line.clip(-600, 600) * _COAST).astype("<i2"))


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _grid(grid: Grid, step: int) -> dict[str, Any]:
    def sides(values: np.ndarray) -> list[float]:
        inner = values[:-1:step]
        return [round(float(x), 4) for x in (*inner, values[-1])]

    kind = "cells" if not grid.geographic else "globe" if grid.whole else "region"
    return {
        "kind": kind,
        "periodic": grid.periodic,
        "upward": grid.upward,
        "aspect": round(aspect(grid, None), 4),
        "names": list(grid.names),
        "rows": sides(grid.rows),
        "columns": sides(grid.columns),
    }


def rounded(value: float) -> float | None:
    """Six figures, which are more than anybody reads; None for what is no number."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
