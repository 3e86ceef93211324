"""Flows of taxis and bicycles in New York, as Lin et al. prepared them, and their protocol.

Lin, Bai, Jia, Yang, You 2020 (KDD), "Preserving Dynamic Attention for Long-Term Spatial-Temporal
Prediction", arXiv:2006.08849 (DSAN). What the files do not say stands in that paper's public code:
the bounds of the grids, and which days are for training and for the test.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..errors import InputError
from ..task import Task, initialisations
from .backends import PathLike
from .flow_files import STEP, Part, label_flows
from .lazy import Everywhere
from .periods import select_period, when

_PARTS = {"train": "flow_train.npz", "validation": "flow_val.npz", "test": "flow_test.npz"}
_TABLE = "external_knowledge.csv"
_DAY = 48  # half hours
_INCH, _FAHRENHEIT = 25.4, (5 / 9, 273.15 - 32 * 5 / 9)
# Columns of the table by name: variable, factor and offset to its unit, unit, attributes. The table
# gives no units; 27.3 of snow on 23 January 2016 are the inches of New York's blizzard.
_COLUMNS: dict[str, tuple[str, float, float, str, dict[str, str]]] = {
    "holiday": ("holiday", 1, 0, "1", {"long_name": "a holiday or day of observance, as listed"}),
    **{
        f"{which} temperature": (
            name,
            *_FAHRENHEIT,
            "K",
            {"standard_name": "air_temperature", "long_name": f"{which} temperature of the day"},
        )
        for which, name in (
            ("average", "air_temperature"),
            ("maximum", "air_temperature_max"),
            ("minimum", "air_temperature_min"),
        )
    },
    "precipitation": ("precipitation", _INCH, 0, "mm", {"long_name": "precipitation of the day"}),
    "snow fall": ("snowfall", _INCH, 0, "mm", {"long_name": "depth of the day's new snow"}),
    "snow depth": ("snow_thickness", _INCH, 0, "mm", {"long_name": "depth of snow on the ground"}),
}
# Days of the public code's protocol, from the first; seven of the test are history only.
_DSAN = {"train": (0, 33), "validation": (33, 40), "test": (40, 60)}
_DSAN_HISTORY = 7


@dataclass(frozen=True)
class _City:
    """What one of the owners' directories holds."""

    directory: str
    noun: str
    source: str
    shape: tuple[int, int]
    bounds: tuple[float, float, float, float]  # north, south, west, east


_NYC = {
    "taxi": _City(
        *("NYTaxi", "taxis", "NYC TLC trip records"),
        (16, 12),
        (40.849878, 40.699031, -74.022216, -73.873868),
    ),
    "bike": _City(
        *("NYBike", "bicycles", "Citi Bike trip histories"),
        (14, 8),
        (40.818562, 40.699031, -74.022216, -73.927320),
    ),
}


def open_nyc_flow(
    path: PathLike,
    kind: Literal["taxi", "bike"] | None = None,
    *,
    part: Literal["all", "train", "validation", "test"] = "all",
    chunks: Any = "auto",
) -> xr.Dataset:
    """Open the flows of taxis or bicycles in New York, 2016, every half hour.

    Parameters
    ----------
    path : path
        ``NYTaxi`` or ``NYBike`` with ``flow_train.npz``, ``flow_val.npz``, ``flow_test.npz`` and
        ``external_knowledge.csv``; or the directory with both.
    kind : {"taxi", "bike"}, optional
        Which, where `path` holds both; taxis unless given.
    part : {"all", "train", "validation", "test"}
        All as one series, or one of the owners' three parts of it.
    chunks : {"auto"}, None or mapping
        As in :func:`stforecast.datasets.open_weatherbench`.

    Returns
    -------
    xarray.Dataset
        Lazy: ``inflow`` (drop-offs) and ``outflow`` (pick-ups) (time, y, x); row 0 is the north.
        16 x 12 cells for taxis (1 January to 30 March 2016), 14 x 8 for bicycles (1 August to
        29 October 2016), of about 1 km; ``cell_latitude`` (y) and ``cell_longitude`` (x) are the
        degrees of their centres. ``attrs["train_period"]`` and so on are the owners' three parts.

        The table of days gives, in every cell and half hour of a day: ``holiday`` (1 or 0; the
        owners' list has observances too, such as Valentine's Day), ``air_temperature``,
        ``air_temperature_max``, ``air_temperature_min`` (K), ``precipitation``, ``snowfall`` and
        ``snow_thickness`` (mm; a trace is 0). A column that is not in the table has no variable.

    Raises
    ------
    InputError
        If a file is missing, truncated, damaged or of another form.

    Notes
    -----
    The weather is of the whole day, observed: who takes that of the forecast's own day for an
    input knows what a forecaster at noon does not. Holidays are known ahead.

    The dimensions stay ``y`` and ``x``, so that every cell counts the same in scores, as in the
    published ones; the areas of the rows differ by 0.2%. For maps and the sun,
    ``ds.rename(cell_latitude="latitude", cell_longitude="longitude")`` makes a geographic grid of
    it, which is scored by area unless ``evaluate`` is told otherwise.

    Trips within one cell, and those with an end outside the grid, are in no count.

    The files have no times. The three parts lie one behind the other, from midnight of the first
    date in the table; what shows it: the weekday and half hour in the owners' ``ex_knlg_*.npz`` for
    every step, the blizzard of 23 January, the hour from 02:00 on 13 March, which local time skips
    and which is all but empty, and the rain of 27 October, when few ride. Drop-offs lag behind
    pick-ups.
    """
    path = Path(path).expanduser()
    for name, value, known in (("kind", kind, (None, *_NYC)), ("part", part, ("all", *_PARTS))):
        if value not in known:
            words = [repr(k) for k in known if k is not None]
            raise InputError(
                f"{name} must be {', '.join(words[:-1])} or {words[-1]}, found {value!r}"
            )
    if not (path / _PARTS["train"]).is_file():
        below = path / _NYC[kind or "taxi"].directory
        if not below.is_dir():
            raise InputError(
                f"{path}: no {_PARTS['train']} and no {below.name} in it; give NYTaxi or "
                "NYBike, or the directory that holds them"
            )
        path = below
    # Only bicycles are told apart by name; another city's grid in this form opens as taxis would.
    city = _NYC["bike" if path.name == _NYC["bike"].directory else "taxi"]
    parts = [Part.of_npz(path / name, "flow") for name in _PARTS.values()]
    for one in parts:
        if one.shape != (one.shape[0], 2, *parts[0].shape[2:]):
            raise InputError(
                f"{one.path}: 'flow' is (time, {one.shape[2]}, {one.shape[3]}, "
                f"{one.shape[1]}), expected two flows on the grid of {parts[0].path.name}"
            )
    first, days, table = _read_table(path / _TABLE)
    steps = [one.shape[0] for one in parts]
    if sum(steps) > _DAY * days:
        raise InputError(
            f"{path}: {sum(steps)} half hours in its three parts, but {_TABLE} has only {days} days"
        )
    times = first.astype("datetime64[ns]") + np.arange(sum(steps)) * STEP
    attrs: dict[str, Any] = {
        "Conventions": "CF-1.11",
        "title": f"{city.directory}: flows of {city.noun} in New York, every half hour",
        "source": f"{city.source}, counted on a grid by the owners of the files",
        "license": "MIT (c) 2020 StarkLord",
        "references": "Lin, Bai, Jia, Yang, You 2020 (KDD), arXiv:2006.08849",
        "comment": "local time; row 0 is the north",
    }
    ends = np.cumsum(steps)
    for name, start, stop in zip(_PARTS, [0, *ends[:-1]], ends, strict=True):
        attrs[f"{name}_period"] = f"{when(times[start])}/{when(times[stop - 1])}"
    grid, dims = parts[0].shape[2:], ("time", "y", "x")
    daily = {
        name: Everywhere(
            partial(_half_hours, path / _TABLE, name, len(times)), (len(times), *grid)
        ).variable(dims, {**about, "units": units})
        for name, _, _, units, about in (_COLUMNS[column] for column in table)
    }
    ds = label_flows(parts, times, chunks, attrs, city.noun, daily, [path / _TABLE])
    if path.name == city.directory and grid == city.shape:
        ds = _placed(ds, city)
    return ds if part == "all" else select_period(ds, attrs[f"{part}_period"])


def city_of(path: Path) -> str | None:
    """Name of the directory of flows that `path` is, or that lies in it."""
    if all((path / name).is_file() for name in _PARTS.values()):
        return path.name
    below = (city.directory for city in _NYC.values())
    return next((name for name in below if (path / name / _PARTS["train"]).is_file()), None)


def split_dsan(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """Part the flows of New York as the public code of Lin et al. does.

    Parameters
    ----------
    ds : xarray.Dataset
        From :func:`open_nyc_flow`, all of it or at least its first 60 days.

    Returns
    -------
    dict of str to xarray.Dataset
        ``"train"`` and ``"validation"``: days 0 to 32 and 33 to 39, which are one in that code.
        ``"test"``: days 40 to 59, of which the first seven are history only, see
        :func:`dsan_times`.

    Raises
    ------
    InputError
        If these are not 60 days of half hours, without a gap, from a midnight on.
    """
    time = ds["time"].values[: _DSAN["test"][1] * _DAY]
    whole = len(time) == _DSAN["test"][1] * _DAY and (np.diff(time) == STEP).all()
    if not whole or time[0] != time[0].astype("datetime64[D]"):
        span = f"{when(time[0])} to {when(time[-1])}" if len(time) else "none"
        raise InputError(
            f"the protocol is of 60 days of half hours from a midnight on, found {len(time)} times "
            f'({span}): give open_nyc_flow(path, part="all")'
        )
    return {k: ds.isel(time=slice(a * _DAY, b * _DAY)) for k, (a, b) in _DSAN.items()}


def dsan_times(test: xr.Dataset, task: Task) -> np.ndarray:
    """Initialisations that the public code of Lin et al. scores.

    Parameters
    ----------
    test : xarray.Dataset
        The test part of :func:`split_dsan`.
    task : Task
        What is forecast from what; the protocol's has 12 target steps.

    Returns
    -------
    numpy.ndarray
        Times of the last input step: from half an hour before the eighth day on, all but the last
        that has its truth, which that code leaves out (612 for 12 target steps).
    """
    time = initialisations(test, task)
    start = test["time"].values[0] + _DSAN_HISTORY * _DAY * STEP
    return time[time + STEP >= start][:-1]


def _placed(ds: xr.Dataset, city: _City) -> xr.Dataset:
    """Give the cells the degrees of their centres, and the grid its bounds.

    Under these names and units the gate takes them for no axes: cells stay cells.
    """
    north, south, west, east = city.bounds
    for name, dim, start, stop, words in (
        ("cell_latitude", "y", north, south, "latitude of the cell's centre, north"),
        ("cell_longitude", "x", west, east, "longitude of the cell's centre, east"),
    ):
        n = ds.sizes[dim]
        centres = start + (np.arange(n) + 0.5) * (stop - start) / n
        ds = ds.assign_coords({name: (dim, centres, {"units": "degree", "long_name": words})})
    names = ("lat_max", "lat_min", "lon_min", "lon_max")
    bounds = {f"geospatial_{k}": v for k, v in zip(names, city.bounds, strict=True)}
    return ds.assign_attrs(bounds)


def _read_table(path: Path) -> tuple[np.datetime64, int, dict[str, np.ndarray]]:
    """First date and number of dates (day-month-year, every day); known columns, as they stand."""
    try:
        with open(path, newline="") as file:
            head, *rows = (row for row in csv.reader(file) if row)
        days = [datetime.strptime(row[0], "%d-%m-%Y").date() for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: expected a table of dates day-month-year ({error})") from error
    found = np.array(days, dtype="datetime64[D]")
    if not len(found) or (np.diff(found) != np.timedelta64(1, "D")).any():
        raise InputError(f"{path}: its {len(found)} dates are not one day after the other")
    if short := [row[0] for row in rows if len(row) != len(head)]:
        raise InputError(
            f"{path}: {len(head)} columns are named, and {len(short)} rows have another number, "
            f"the first on {short[0]}"
        )
    table = {}
    for column in (name for name in _COLUMNS if name in head):
        texts = [row[head.index(column)].strip() for row in rows]
        values = np.array([_number(text) for text in texts])
        if not np.isfinite(values).all():
            at = int((~np.isfinite(values)).argmax())
            raise InputError(
                f"{path}: {column!r} is {texts[at]!r} on {rows[at][0]}, expected a number, or T "
                "(a trace)"
            )
        table[column] = values
    return found[0], len(found), table


def _half_hours(path: Path, variable: str, steps: int) -> np.ndarray:
    """Read a variable of the table, for each half hour: float32 (steps,)."""
    column, (_, factor, offset, *_) = next(c for c in _COLUMNS.items() if c[1][0] == variable)
    _, days, table = _read_table(path)
    if column not in table or days * _DAY < steps:
        raise InputError(f"{path}: it has changed since it was opened: open it again")
    return (table[column] * factor + offset).astype(np.float32).repeat(_DAY)[:steps]


def _number(text: str) -> float:
    if text == "T":  # a trace: less than can be measured
        return 0.0
    try:
        return float(text)
    except ValueError:
        return np.nan
