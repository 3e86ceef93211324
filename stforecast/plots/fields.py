"""One forecast by lead time, beside truth and errors; what pictures of forecasts open."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions import pairs
from ..conventions.axes import LEAD, TIME, X, Y
from ..conventions.forms import from_source, with_members
from ..conventions.gate import Labels, canonicalize
from ..conventions.grid import grid_weights
from ..conventions.overlap import refuse_other_data
from ..conventions.times import valid_times
from ..conventions.variables import canonical_name
from ..errors import InputError
from ..evaluation.alignment import check_grid, check_units, valid_positions
from ..forecasting.ensemble import DIM, mean
from . import cartography as carto
from .colours import Scale
from .labels import (
    MINUS,
    lead_label,
    number,
    sentence,
    time_label,
    unit_label,
    variable_label,
    with_unit,
)
from .layout import SMALL, TEXT, new_figure, require

if TYPE_CHECKING:
    from cartopy.crs import Projection
    from matplotlib.figure import Figure

DIFFERENCE = f"Forecast {MINUS} truth"


def forecast_panel(
    forecast: Any,
    truth: Any = None,
    *,
    variable: str | None = None,
    init_time: Any = None,
    leads: Any = None,
    title: str | None = None,
    projection: Projection | None = None,
) -> Figure:
    """Draw one forecast by lead time: forecast, truth at the valid times, and the errors.

    Lead times run down, a row each. Forecast and truth share one colour scale; errors have a
    symmetric one. Units are those of `forecast`. Over each map of errors stand its RMSE and bias,
    area-weighted where the grid has a latitude.

    Parameters
    ----------
    forecast : xarray.Dataset
        As :func:`stforecast.predict` gives it. Only what is drawn is read or computed. Of an
        ensemble the mean of its members is drawn.
    truth : xarray.Dataset, optional
        Dims (time, latitude, longitude), with the valid times. Without it the forecast alone is
        drawn, in two columns.
    variable : str, optional
        Default: the first.
    init_time : time label, optional
        Which initialisation; a day stands for the first on that day. Default: the last one whose
        valid times are all in `truth`.
    leads : time difference or sequence of them, optional
        Lead times, such as ``["1h", "6h"]``. Default: four, from the first to the last.
    title, projection : optional
        As for :func:`plot_map`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the two do not fit together, or the forecast has no such time or lead time.
    """
    case = ForecastCase.open(forecast, truth, variable, init_time, leads, default_leads=4)
    rows, grid, shown = case.fields, case.grid, case.fields["Forecast"]
    projection = case.projection(projection)
    if title is None:
        title = f"{case.name}\ninitialised {case.start}"
    n, aspect = len(case.valid), carto.aspect(grid, projection)
    labelled = not (grid.whole or (grid.geographic and carto.polar(projection)))
    margin = 0.5 * labelled  # for the labels of meridians and parallels
    scale = Scale.of(rows.values(), grid)
    subplots: dict[str, Any] = {"squeeze": False, "subplot_kw": {"projection": projection}}
    if "Truth" not in rows:
        width, columns = min(4.4, 3.2 * aspect), min(n, 2)
        lines = -(-n // columns)
        height = width / aspect + 0.3
        size = columns * (width + 0.12) + 0.9 + margin, lines * height + margin
        figure = new_figure(*size, title)
        axes = figure.subplots(lines, columns, **subplots).ravel()
        for i, (ax, field) in enumerate(zip(axes, shown, strict=False)):
            ends = {"left": i % columns == 0, "bottom": i + columns >= n}
            mesh = scale.draw(ax, grid, field, **{k: v and labelled for k, v in ends.items()})
            ax.set_title(f"{lead_label(case.leads[i])} · {case.valid[i]}", fontsize=SMALL)
        for ax in axes[n:]:
            ax.remove()
        scale.bar(figure, mesh, list(axes[:n]), inches=lines * height - 0.3)
        return figure

    errors = shown.copy(data=shown.values - rows["Truth"].values)
    label = with_unit(DIFFERENCE, shown.attrs.get("units"))
    error_scale = Scale.of([errors], grid, symmetric=True, label=label)
    width = min(2.95, 2.1 * aspect)
    letters = max(12, int(width / 0.066))  # that fit over a map
    extra = 0.15 * (letters < 25)  # titles of two lines
    height = n * (width / aspect + 0.28 + extra) + 0.85 + margin
    figure = new_figure(3 * (width + 0.12) + 0.1 + 1.6 * margin, height, title)
    axes = figure.subplots(n, 3, **subplots)
    parts = {"Forecast": (shown, scale), "Truth": (rows["Truth"], scale)}
    parts |= {DIFFERENCE: (errors, error_scale)}
    for j, (name, (fields, colours)) in enumerate(parts.items()):
        for i, (ax, field) in enumerate(zip(axes[:, j], fields, strict=True)):
            ends = {"left": labelled and j == 0, "bottom": labelled and j == 0 and i == n - 1}
            mesh = colours.draw(ax, grid, field, **ends)
            text = (lead_label(case.leads[i]), case.valid[i], error_label(field, grid))[j]
            style = {"fontsize": SMALL, "fontweight": "bold" if j == 0 else "normal"}
            ax.set_title(textwrap.fill(text, letters), pad=4, parse_math=False, **style)
        style = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
        above = (0, 20 + 72 * extra)
        axes[0, j].annotate(name, (0.5, 1), above, fontsize=TEXT, annotation_clip=False, **style)
        if j > 0:
            under, length = (axes[:, :2], 2 * width) if j == 1 else (axes[:, 2], width)
            aspect_ratio = 7.5 * length
            colours.bar(figure, mesh, under, location="bottom", inches=length, aspect=aspect_ratio)
    return figure


@dataclass(frozen=True)
class ForecastCase:
    """One initialisation of a forecast in the caller's units, with the truth where it is given.

    Parameters
    ----------
    fields : dict of xarray.DataArray
        "Forecast" and perhaps "Truth": dims (prediction_timedelta, and two of space).
    grid : Grid
    start : str
        Time of the initialisation.
    valid : list of str
        Valid times.
    """

    fields: dict[str, xr.DataArray]
    grid: carto.Grid
    start: str
    valid: list[str]

    @classmethod
    def open(
        cls,
        forecast: Any,
        truth: Any,
        variable: str | None,
        init_time: Any,
        leads: Any = None,
        default_leads: int | None = None,
    ) -> ForecastCase:
        """Read and check what is drawn of a forecast, all of its lead times by default."""
        require("matplotlib")
        ours, labels, name = open_forecast(forecast, variable, truth)
        ours = ours.isel({LEAD: lead_positions(ours[LEAD].values, leads, default_leads)})
        theirs = None if truth is None else canonicalize(truth, [name])[0]
        at, positions = choose_initialisation(ours, theirs, init_time)
        drawn = restored(ours[name].isel(time=at).compute(), labels, name)
        fields = {"Forecast": drawn}
        if theirs is not None:
            observed = theirs[name].isel(time=positions).values
            fields["Truth"] = drawn.copy(data=labels.fields[name].unpacked.encode(observed))
        grid = carto.Grid.of(drawn[0])
        starts = ours["time"].values[[at]]
        valid = valid_times(starts, ours[LEAD].values)[0]
        times = [time_label(t, grid.geographic) for t in (*starts, *valid)]
        return cls(fields, grid, times[0], times[1:])

    @property
    def name(self) -> str:
        """The variable, as a title has it."""
        return sentence(variable_label(self.fields["Forecast"]))

    @property
    def leads(self) -> np.ndarray:
        """Lead times, timedelta64."""
        return self.fields["Forecast"][LEAD].values

    def projection(self, wanted: Any) -> Any:
        """The projection asked for, or the one that fits the grid; None for pixels."""
        if not self.grid.geographic:
            return None
        require("cartopy")
        return wanted if wanted is not None else carto.projection_for(self.grid)


def restored(field: xr.DataArray, labels: Labels, name: str) -> xr.DataArray:
    """A canonical field in the caller's units, with the caller's attributes, on its own axes."""
    form = labels.fields[name].unpacked
    label = variable_label(field)
    field = field.copy(data=form.encode(field.values)).assign_attrs(form.attrs)
    field.attrs.setdefault("long_name", label)
    return on_own_axes(field, labels)


def on_own_axes(field: xr.DataArray, labels: Labels) -> xr.DataArray:
    """A canonical field whose y and x, if it has them, are called and labelled as they came."""
    for axis in (labels.axes[role] for role in (Y, X) if role in field.dims):
        field = field.rename({axis.role: axis.dim})
        if axis.variable is not None:
            field = field.drop_vars([axis.dim], errors="ignore")
            field = field.assign_coords({axis.coord: (axis.dim, axis.values, axis.variable.attrs)})
    return field


def one_variable(data: Any, variable: str | None) -> xr.DataArray:
    """The one variable to draw, from whatever xarray or earthkit object holds it."""
    data = from_source(data)
    if isinstance(data, xr.DataArray):
        return data
    if not isinstance(data, xr.Dataset):
        raise InputError(f"expected an xarray DataArray or Dataset, found {type(data).__name__}")
    names = [str(name) for name in data.data_vars]
    if variable is not None:
        names = [n for n in names if canonical_name(n) == canonical_name(variable)]
    if len(names) != 1:
        raise InputError(
            f"a map shows one variable, found {[str(n) for n in data.data_vars]}: choose one with "
            "variable='...'"
        )
    return data[names[0]]


def open_forecast(
    forecast: Any, variable: str | None, truth: Any = None
) -> tuple[xr.Dataset, Labels, str]:
    """Canonical forecast of one variable (of an ensemble the mean), its labels, that variable."""
    wanted = None if variable is None else [variable]
    ours, labels = pairs.open_forecast(mean_member(forecast), truth, wanted)
    name = min(map(str, ours.data_vars), key=lambda v: v in labels.unasked)  # else the first
    return ours[[name]], labels, name


def mean_member(data: Any) -> Any:
    """Mean of an ensemble, computed when it is read; of anything else itself."""
    ds = with_members(_dataset(data)) if isinstance(data, (xr.Dataset, xr.DataArray)) else None
    if ds is None or DIM not in ds.dims:
        return data
    return mean(ds.chunk({d: 1 for d in ds.dims if d == TIME}))


def _dataset(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    return data.to_dataset(name=data.name or "data") if isinstance(data, xr.DataArray) else data


def lead_positions(have: np.ndarray, wanted: Any, default: int | None = None) -> list[int]:
    """Positions of lead times; unless given, `default` of them, spread evenly, or all."""
    if wanted is None:
        n = min(len(have), default or len(have))
        return np.unique(np.linspace(0, len(have) - 1, n).round().astype(int)).tolist()
    if isinstance(wanted, (str, pd.Timedelta, np.timedelta64)) or not np.iterable(wanted):
        wanted = [wanted]
    positions = []
    for one in wanted:
        try:
            # numpy's timedelta64 is one of its integers
            if isinstance(one, (int, float, np.number)) and not isinstance(one, np.timedelta64):
                raise ValueError("a number has no unit")
            at = np.flatnonzero(have == pd.Timedelta(one).to_timedelta64())
        except ValueError as error:
            raise InputError(
                f"a lead time must read as a time difference such as '6h', found {one!r}"
            ) from error
        if not at.size:
            raise InputError(
                f"the forecast has no lead time {lead_label(pd.Timedelta(one).to_timedelta64())}, "
                f"found {', '.join(map(lead_label, have))}"
            )
        positions.append(int(at[0]))
    return positions


def choose_initialisation(
    forecast: xr.Dataset, truth: xr.Dataset | None, wanted: Any
) -> tuple[int, np.ndarray]:
    """Position of the initialisation, and of its valid times in truth, which must fit."""
    index = forecast.indexes["time"]
    at = len(index) - 1
    if wanted is not None:
        try:
            found = index.get_loc(wanted)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the forecast has no initialisation {wanted}, found {len(index)} from {index[0]} "
                f"to {index[-1]}"
            ) from error
        at = int(np.arange(len(index))[found].ravel()[0])
    if truth is None:
        return at, np.empty(0, int)
    name = str(next(iter(forecast.data_vars)))
    refuse_other_data(forecast, truth)
    check_units(forecast, truth, [name])
    check_grid(forecast, truth, forecast[name].dims[2:], "truth")
    if wanted is None:
        valid = pd.Index(valid_times(index.values, forecast[LEAD].values).ravel())
        there = truth.indexes["time"].get_indexer(valid).reshape(len(index), -1) >= 0
        at = int(np.flatnonzero(there.all(axis=1))[-1]) if there.all(axis=1).any() else at
    return at, valid_positions(forecast.isel(time=[at]), truth)[0]


def error_label(error: xr.DataArray, grid: carto.Grid) -> str:
    """RMSE and bias of one map, weighted as the scores are."""
    values = error.transpose(*grid.dims).values.astype(float)
    there = np.isfinite(values)
    if not there.any():
        return "no truth"
    latitude = error[grid.dims[0]].values if grid.geographic else None
    weights = grid_weights(values.shape, latitude)[0][there]
    rmse = np.sqrt(np.average(values[there] ** 2, weights=weights))
    bias = np.average(values[there], weights=weights)
    unit = unit_label(error.attrs.get("units"))
    return f"RMSE {number(rmse)} {unit}".rstrip() + f", bias {number(bias, 2, '+')} {unit}".rstrip()
