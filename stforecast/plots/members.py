"""The members of one forecast: quantiles at a place, every member's map, probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.forms import with_members
from ..errors import InputError
from ..forecasting.ensemble import DIM
from . import cartography as carto
from .colours import Scale, upper_limit
from .fields import ForecastCase
from .labels import (
    MINUS,
    degrees,
    lead_axis,
    lead_label,
    number,
    plain,
    unit_label,
    with_unit,
)
from .layout import SMALL, TEXT, new_figure, plain_axes
from .maps import plot_map

if TYPE_CHECKING:
    from cartopy.crs import Projection
    from matplotlib.figure import Figure

BLUE, DARK = "#0072B2", "#08306b"
Place = tuple[float, float]


def _members(
    forecast: Any, truth: Any, variable: str | None, init_time: Any, leads: Any = None
) -> tuple[xr.DataArray, ForecastCase]:
    """Members (realization, prediction_timedelta, and two of space) of one initialisation."""
    if isinstance(forecast, (xr.Dataset, xr.DataArray)):
        forecast = with_members(forecast)
    if getattr(forecast, "sizes", {}).get(DIM, 1) < 2:
        raise InputError(
            f"expected the members of an ensemble along the dim {DIM!r}, found "
            f"{dict(getattr(forecast, 'sizes', {}))}: predict(ds, ensemble=20) gives them"
        )
    cases = [
        ForecastCase.open(forecast.isel({DIM: i}, drop=True), truth, variable, init_time, leads)
        for i in range(forecast.sizes[DIM])
    ]
    fields = xr.concat([c.fields["Forecast"] for c in cases], DIM, join="override")
    return fields.assign_attrs(cases[0].fields["Forecast"].attrs), cases[0]


def plume(
    forecast: Any,
    truth: Any = None,
    *,
    place: Place | Mapping[str, Place],
    variable: str | None = None,
    init_time: Any = None,
    title: str | None = None,
) -> Figure:
    """Draw quantiles of an ensemble by lead time at places, with truth where it is given.

    The light band holds 90% of the members, the dark one half of them, the line is their median.
    Of fewer than 10 members all are in the light band, and each is a thin line.

    Parameters
    ----------
    forecast : xarray.Dataset
        With the dim ``realization``. Only one initialisation is read.
    truth : xarray.Dataset, optional
        With its valid times.
    place : (float, float), or mapping of str to these
        Latitude and longitude, degrees north and east, or the row and column of a grid without
        them; with names, a panel each. The nearest point is drawn, and the panel says which.
    variable, init_time, title : optional
        As of :func:`forecast_panel`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there are no members, or a place lies outside the grid.
    """
    fields, case = _members(forecast, truth, variable, init_time)
    places = dict(place) if isinstance(place, Mapping) else {"": place}
    columns = min(2, len(places))
    rows = -(-len(places) // columns)
    if title is None:
        title = f"{case.name}, {fields.sizes[DIM]} members\ninitialised {case.start}"
    figure = new_figure(7.2 if columns == 1 else 9.6, rows * (3.6 if columns == 1 else 2.9), title)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    hours, unit = lead_axis(case.leads)
    for ax, (name, (row, column)) in zip(axes, places.items(), strict=False):
        at, label = _nearest(case.grid, fields, row, column)
        _fan(ax, hours, fields.isel(at).transpose(DIM, LEAD).values.astype(float))
        if "Truth" in case.fields:
            observed = case.fields["Truth"].isel(at).values
            style = {"color": "black", "markersize": 4, "linewidth": 1.3}
            ax.plot(hours, observed, "o-", label="Truth", zorder=5, clip_on=False, **style)
        label = f"{plain(name, 40)} ({label})" if name else label
        ax.set_title(label, fontsize=TEXT, loc="left", parse_math=False)
        ax.set_xlim(min(0.0, float(hours[0])), float(hours[-1]))
        plain_axes(ax)
    for ax in axes[len(places) :]:
        ax.remove()
    for ax in axes[: len(places)][-columns:]:
        ax.set_xlabel(f"Lead time [{unit}]", fontsize=TEXT)
        ax.tick_params(labelbottom=True)
    for ax in axes[: len(places) : columns]:
        text = with_unit(case.name, fields.attrs.get("units"))
        ax.set_ylabel(text if rows == 1 else unit_label(fields.attrs.get("units")), fontsize=TEXT)
    handles, words = axes[0].get_legend_handles_labels()
    beside: dict[str, Any] = {"ncols": len(words), "frameon": False, "columnspacing": 1.2}
    legend = figure.legend(handles, words, loc="upper right", fontsize=SMALL, **beside)
    legend.set_in_layout(False)  # it stands beside the title
    return figure


def widest_place(forecast: Any, truth: Any = None) -> Place:
    """Where the members differ most at the last lead time: a place for :func:`plume`."""
    fields, case = _members(forecast, truth, None, None, _one(None, forecast))
    grid = case.grid
    spread = fields.isel({LEAD: 0}).std(DIM).transpose(*grid.dims).values
    spread = np.nan_to_num(spread[grid.row_order][:, grid.column_order])
    row, column = np.unravel_index(int(spread.argmax()), spread.shape)
    middle = [(s[i] + s[i + 1]) / 2 for s, i in ((grid.rows, row), (grid.columns, column))]
    return float(middle[0]), float(middle[1])


def _fan(ax: Any, x: np.ndarray, members: np.ndarray) -> None:
    """Bands of quantiles over lead times, from members (M, L)."""
    few = len(members) < 10
    wide = (0.0, 1.0) if few else (0.05, 0.95)
    words = "All members" if few else "5 to 95%"
    for ends, alpha, text in ((wide, 0.22, words), ((0.25, 0.75), 0.45, "25 to 75%")):
        low, high = np.quantile(members, ends, axis=0)
        ax.fill_between(x, low, high, color=BLUE, alpha=alpha, linewidth=0, label=text)
    if few:
        ax.plot(x, members.T, color=BLUE, linewidth=0.6, alpha=0.8)
    ax.plot(x, np.median(members, axis=0), color=DARK, linewidth=1.8, label="Median")


def _nearest(
    grid: carto.Grid, field: xr.DataArray, row: float, column: float
) -> tuple[dict[Any, int], str]:
    """Position of the cell that holds a point, and where its centre is."""
    if grid.geographic:
        column = grid.columns[0] + (column - grid.columns[0]) % 360
    inside = []
    for sides, value in ((grid.rows, row), (grid.columns, column)):
        # The last side belongs to the last cell.
        inside.append(int(np.searchsorted(sides[:-1], value, side="right")) - 1)
        if not sides[0] <= value <= sides[-1]:
            raise InputError(
                f"the place {row:g}, {column:g} lies outside the grid: rows from {grid.rows[0]:g} "
                f"to {grid.rows[-1]:g}, columns from {grid.columns[0]:g} to {grid.columns[-1]:g}"
            )
    orders = grid.row_order, grid.column_order
    at = {d: int(order[i]) for d, order, i in zip(grid.dims, orders, inside, strict=True)}
    if not grid.geographic:
        return at, ", ".join(f"{d} {at[d]}" for d in grid.dims)
    centre = [float(field[d].values[at[d]]) for d in grid.dims]
    return at, f"{degrees(round(centre[0], 2), 'NS')}, {degrees(round(centre[1], 2), 'EW')}"


def member_stamps(
    forecast: Any,
    truth: Any = None,
    *,
    departures: bool = True,
    variable: str | None = None,
    init_time: Any = None,
    lead: Any = None,
    most: int = 20,
    title: str | None = None,
    projection: Projection | None = None,
) -> Figure:
    """Draw every member's map at one lead time below their mean, their spread and truth.

    Parameters
    ----------
    forecast : xarray.Dataset
        With the dim ``realization``.
    truth : xarray.Dataset, optional
        With the valid time.
    departures : bool
        Draw members and truth minus the mean, on one symmetric scale: truth should look like one
        of them. False: the fields themselves.
    lead : time difference, optional
        Default: the last.
    most : int
        Members to draw at most: the first ones. Mean and spread are of all.
    variable, init_time, title, projection : optional
        As of :func:`forecast_panel`.

    Returns
    -------
    matplotlib.figure.Figure
        The spread is the members' standard deviation.
    """
    fields, case = _members(forecast, truth, variable, init_time, _one(lead, forecast))
    grid, projection = case.grid, case.projection(projection)
    fields = fields.isel({LEAD: 0})
    mean = fields.mean(DIM, keep_attrs=True)
    spread = fields.std(DIM, ddof=1, keep_attrs=True)
    unit, shown = fields.attrs.get("units"), slice(0, most)
    maps = [*fields.isel({DIM: shown}), *([case.fields["Truth"][0]] if truth is not None else [])]
    if departures:
        maps = [(field - mean).assign_attrs(fields.attrs) for field in maps]
        label = with_unit("Departure from the mean", unit)
        scale = Scale.of(maps, grid, symmetric=True, label=label)
        means = Scale.of([mean], grid)
    else:
        scale = means = Scale.of([mean, *maps], grid)
    spreads = Scale.of(
        [spread],
        grid,
        cmap="viridis",
        vmin=0.0,
        vmax=upper_limit(spread.values),
        label=with_unit("Spread", unit),
    )
    top = [("Mean", mean, means), ("Spread", spread, spreads)]
    if truth is not None:
        top.append((f"Truth {MINUS} mean" if departures else "Truth", maps.pop(), scale))
    aspect, count = carto.aspect(grid, projection), len(maps)
    columns = min(count, 5 if aspect > 1.3 else 7)
    lines = -(-count // columns)
    width = min(1.9, 1.55 * aspect)
    size = columns * (width + 0.1) + 1.0
    large = min(1.7 * width, size / len(top) - 0.2)
    above, height = large / aspect + 1.2, lines * (width / aspect + 0.24)
    if title is None:
        title = (
            f"{case.name}, {fields.sizes[DIM]} members\ninitialised {case.start}, lead "
            f"{lead_label(case.leads[0])}, valid {case.valid[0]}"
        )
    figure = new_figure(size, height + above, title)
    parts: Any = figure.subfigures(2, 1, height_ratios=[above, height])
    upper, lower = parts
    subplots: dict[str, Any] = {"squeeze": False, "subplot_kw": {"projection": projection}}
    for ax, (name, field, colours) in zip(
        upper.subplots(1, len(top), **subplots)[0], top, strict=True
    ):
        mesh = colours.draw(ax, grid, field, left=False, bottom=False)
        ax.set_title(name, fontsize=TEXT, fontweight="bold")
        colours.bar(upper, mesh, ax, location="bottom", inches=large, aspect=7.5 * large)
    axes = lower.subplots(lines, columns, **subplots).ravel()
    for i, (ax, field) in enumerate(zip(axes, maps, strict=False)):
        mesh = scale.draw(ax, grid, field, left=False, bottom=False)
        ax.set_title(f"Member {i + 1}", fontsize=SMALL, pad=3)
    for ax in axes[count:]:
        ax.remove()
    if lines == 1:  # too low for more than the unit
        scale = replace(scale, label=unit_label(unit))
    scale.bar(lower, mesh, list(axes[:count]), inches=height)
    return figure


def probability_map(
    forecast: Any,
    threshold: float,
    truth: Any = None,
    *,
    below: bool = False,
    variable: str | None = None,
    init_time: Any = None,
    lead: Any = None,
    title: str | None = None,
    projection: Projection | None = None,
) -> Figure:
    """Map the share of members that reach a threshold at one lead time.

    Parameters
    ----------
    forecast : xarray.Dataset
        With the dim ``realization``.
    threshold : float
        In the unit of `forecast`.
    truth : xarray.Dataset, optional
        With the valid time: a black line goes around where the event came.
    below : bool
        Whether the event is to stay below the threshold.
    lead : time difference, optional
        Default: the last.
    variable, init_time, title, projection : optional
        As of :func:`forecast_panel`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    fields, case = _members(forecast, truth, variable, init_time, _one(lead, forecast))
    if not np.isfinite(threshold):
        raise InputError(f"threshold must be a number, found {threshold!r}")

    def happens(field: xr.DataArray) -> xr.DataArray:
        event = field < threshold if below else field >= threshold
        return event.where(field.notnull())

    unit = unit_label(fields.attrs.get("units"))
    event = f"{'<' if below else '≥'} {number(threshold, 6)} {unit}".rstrip()
    if title is None:
        lines = f"lead {lead_label(case.leads[0])}, valid {case.valid[0]}, initialised {case.start}"
        around = " · line: where it came" if truth is not None else ""
        title = (
            f"Probability of {case.name[:1].lower()}{case.name[1:]} {event}\n"
            f"{fields.sizes[DIM]} members, {lines}{around}"
        )
    share = 100 * happens(fields.isel({LEAD: 0})).mean(DIM, skipna=False)
    share = share.drop_vars([c for c in share.coords if c not in share.dims])
    share.attrs = {"long_name": f"probability of {event}", "units": "%"}
    from matplotlib import colormaps  # the case has asked for it

    tenths = colormaps["YlGnBu"].resampled(10)
    projection = case.projection(projection)
    figure = plot_map(share, title=title, cmap=tenths, vmin=0, vmax=100, projection=projection)
    if truth is not None:
        _outline(figure.axes[0], case.grid, happens(case.fields["Truth"][0]))
    return figure


def _outline(ax: Any, grid: carto.Grid, event: xr.DataArray) -> None:
    """Draw a line around the cells that have an event, along their sides."""
    from matplotlib.collections import LineCollection

    inside = event.transpose(*grid.dims).values[grid.row_order][:, grid.column_order] == 1
    beside = np.pad(inside, 1, mode="edge")
    if grid.periodic:
        beside[1:-1, 0], beside[1:-1, -1] = inside[:, -1], inside[:, 0]
    lines = []
    for i, j in zip(*np.nonzero(inside), strict=True):
        (south, north), (west, east) = grid.rows[i : i + 2], grid.columns[j : j + 2]
        for other, line in (
            (beside[i, j + 1], [(west, south), (east, south)]),
            (beside[i + 2, j + 1], [(west, north), (east, north)]),
            (beside[i + 1, j], [(west, south), (west, north)]),
            (beside[i + 1, j + 2], [(east, south), (east, north)]),
        ):
            if not other:
                lines.append(line)
    if not lines:
        return
    points = np.asarray(lines, dtype=float)
    if grid.geographic:
        # A side that the edge of the map cuts would be drawn across all of it.
        seam = ax.projection.proj4_params.get("lon_0", 0.0) + 180
        off = (points[..., 0] - seam) % 360
        points = points[(off[:, 0] == 0) | (off[:, 1] == 0) | (np.ptp(off, axis=1) < 180)]
        points = carto.project(ax.projection, points[..., 0], points[..., 1])
    ax.add_collection(LineCollection(list(points), colors="black", linewidths=1.2, zorder=6))


def _one(lead: Any, forecast: Any) -> Any:
    """The lead time asked for, as the only one; the last by default."""
    if lead is not None or LEAD not in getattr(forecast, "coords", ()):
        return lead
    return forecast[LEAD].values[-1]
