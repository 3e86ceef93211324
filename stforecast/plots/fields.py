"""One forecast by lead time, beside truth and errors; what pictures of forecasts share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.gate import Labels, canonicalize
from ..conventions.times import valid_times
from ..conventions.variables import canonical_name
from ..errors import InputError
from . import cartography as carto
from .layout import DIFFERENCE, capital, lead_words, need, panel, time_words, words

if TYPE_CHECKING:
    from cartopy.crs import Projection
    from matplotlib.figure import Figure


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

    Forecast and truth share one colour scale; errors have a symmetric one. Units are those of
    `forecast`. Over each map of errors stand its RMSE and bias, area-weighted where the grid has a
    latitude.

    Parameters
    ----------
    forecast : xarray.Dataset
        As :func:`stforecast.predict` gives it. Only what is drawn is read or computed.
    truth : xarray.Dataset, optional
        Dims (time, latitude, longitude), with the valid times. Without it the forecast alone is
        drawn.
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
    ours, labels, name = _open(forecast, variable)
    ours = ours.isel({LEAD: _lead_positions(ours[LEAD].values, leads)})
    theirs = None if truth is None else canonicalize(truth, [name])[0]
    at, positions = _choose_init(ours, theirs, init_time)
    valid = valid_times(ours["time"].values[[at]], ours[LEAD].values)[0]
    form = labels.fields[name].unpacked  # the caller's units
    drawn = ours[name].isel(time=at).compute()
    long_name = words(drawn)
    drawn = drawn.copy(data=form.encode(drawn.values)).assign_attrs(form.attrs)
    drawn.attrs.setdefault("long_name", long_name)
    rows = {"Forecast": drawn}
    if theirs is not None:
        observed = form.encode(theirs[name].isel(time=positions).values)
        rows["Truth"] = drawn.copy(data=observed)
        rows[DIFFERENCE] = drawn.copy(data=drawn.values - observed)
    grid = carto.Grid.of(drawn[0])
    need("matplotlib", *["cartopy"] * grid.geographic)
    if projection is None and grid.geographic:
        projection = carto.projection_for(grid)
    if title is None:
        start = time_words(ours["time"].values[at], grid.geographic)
        title = f"{capital(words(drawn))}\ninitialised {start}"
    return panel(rows, valid, title, projection)


def _array(data: Any, variable: str | None) -> xr.DataArray:
    if not isinstance(data, (xr.DataArray, xr.Dataset)) and hasattr(data, "to_xarray"):
        data = data.to_xarray()
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


def _open(forecast: Any, variable: str | None) -> tuple[xr.Dataset, Labels, str]:
    """Canonical forecast of one variable, its labels and the variable's name."""
    ours, labels = canonicalize(forecast, None if variable is None else [variable])
    if LEAD not in ours.dims:
        raise InputError(
            f"a forecast has the dimensions time (the initialisation) and {LEAD}, found "
            f"{tuple(map(str, ours.dims))}; stforecast.predict gives this form"
        )
    name = str(next(iter(ours.data_vars)))
    return ours[[name]], labels, name


def _lead_positions(have: np.ndarray, wanted: Any) -> list[int]:
    """Positions of lead times; by default four, from the first to the last."""
    if wanted is None:
        return np.unique(np.linspace(0, len(have) - 1, 4).round().astype(int)).tolist()
    if isinstance(wanted, (str, pd.Timedelta, np.timedelta64)) or not np.iterable(wanted):
        wanted = [wanted]
    positions = []
    for one in wanted:
        try:
            if isinstance(one, (int, float, np.integer, np.floating)):
                raise ValueError("a number has no unit")
            at = np.flatnonzero(have == pd.Timedelta(one).to_timedelta64())
        except ValueError as error:
            raise InputError(
                f"a lead time must read as a time difference such as '6h', found {one!r}"
            ) from error
        if not at.size:
            raise InputError(
                f"the forecast has no lead time {lead_words(pd.Timedelta(one).to_timedelta64())}, "
                f"found {', '.join(map(lead_words, have))}"
            )
        positions.append(int(at[0]))
    return positions


def _choose_init(
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
    from ..evaluation.alignment import check_grid, check_units, valid_positions

    name = str(next(iter(forecast.data_vars)))
    check_units(forecast, truth, [name])
    check_grid(forecast, truth, forecast[name].dims[2:], "truth")
    if wanted is None:
        valid = pd.Index(valid_times(index.values, forecast[LEAD].values).ravel())
        there = truth.indexes["time"].get_indexer(valid).reshape(len(index), -1) >= 0
        at = int(np.flatnonzero(there.all(axis=1))[-1]) if there.all(axis=1).any() else at
    return at, valid_positions(forecast.isel(time=[at]), truth)[0]
