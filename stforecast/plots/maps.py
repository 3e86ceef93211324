"""Maps: one field, the errors of a forecast, the difference of two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.grid import grid_weights
from ..errors import InputError
from ..evaluation.evaluate import evaluate
from . import cartography as carto
from .colours import Scale, upper_limit
from .fields import lead_positions, on_own_axes, one_variable, open_forecast
from .labels import (
    METRICS,
    field_title,
    lead_range,
    number,
    plain,
    sample_label,
    sentence,
    unit_label,
    variable_label,
    weights_label,
)
from .layout import TEXT, new_figure, require

if TYPE_CHECKING:
    from cartopy.crs import Projection
    from matplotlib.figure import Figure


def difference_map(
    first: Any,
    second: Any,
    truth: Any,
    *,
    names: tuple[str, str] = ("first", "second"),
    variable: str | None = None,
    metric: str = "rmse",
    lead: Any = None,
    nan: Literal["refuse", "mask"] = "refuse",
    title: str | None = None,
    vmax: float | None = None,
    projection: Projection | None = None,
) -> Figure:
    """Map where one forecast is better than another: the difference of their scores.

    Blue where the first has the smaller error, red where the second has.

    Parameters
    ----------
    first, second : xarray.Dataset
        Two forecasts of the same variable from the same initialisations, on one grid.
    truth : xarray.Dataset
        As for :func:`stforecast.evaluate`.
    names : (str, str)
        What to call the two.
    variable : str, optional
        Default: the first one's first.
    metric : {"rmse", "mse", "mae"}
        Which score.
    lead : time difference, optional
        One lead time, such as ``"6h"``. Default: all of them together.
    nan : {"refuse", "mask"}
        As for :func:`error_map`.
    title, projection : optional
        As for :func:`plot_map`.
    vmax : float, optional
        End of the scale, which begins at ``-vmax``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the two forecasts are not of the same initialisations and lead times, or do not fit
        `truth`.
    """
    require("matplotlib")
    if metric not in ("rmse", "mse", "mae"):
        raise InputError(f"metric must be rmse, mse or mae, found {metric!r}")
    ours, labels, name = open_forecast(first, variable, truth)
    theirs, _, _ = open_forecast(second, name, truth)
    for dim in ("time", LEAD):
        if not ours.indexes[dim].equals(theirs.indexes[dim]):
            raise InputError(
                f"the two forecasts differ in {dim}: {ours.sizes[dim]} from "
                f"{ours[dim].values[0]} and {theirs.sizes[dim]} from {theirs[dim].values[0]}; "
                f"select what they have in common"
            )
    found = [_at_points(f, truth, name, metric, lead, nan=nan) for f in (ours, theirs)]
    scores, leads = [s for s, _ in found], found[0][1]
    a, b = (s[name].sel(metric=metric, drop=True) for s in scores)
    unit = unit_label(scores[0][name].attrs[f"units_{metric}"])
    names = plain(names[0], 40), plain(names[1], 40)
    label = f"{METRICS[metric]}, {names[0]} less {names[1]}"
    difference = (a - b).assign_attrs(long_name=label, units=unit)
    if title is None:
        latitude = difference["latitude"].values if "latitude" in difference.dims else None
        shape = difference.sizes[difference.dims[0]], difference.sizes[difference.dims[1]]
        weights = grid_weights(shape, latitude)[0]
        better = float((weights * (difference.values < 0)).sum() / weights.sum())
        whole = [number(float(s[f"{name}_overall"].sel(metric=metric))) for s in scores]
        text = f"{names[0]} {whole[0]}, {names[1]} {whole[1]} {unit}"
        title = (
            f"{METRICS[metric]} of {variable_label(ours[name])}, {names[0]} less {names[1]}\n"
            f"{leads} · {text} · {names[0]} better on {100 * better:.0f}%"
        )
    limit = upper_limit(np.abs(difference.values)) if vmax is None else vmax
    shown = on_own_axes(difference, labels)
    return plot_map(
        shown, title=title, cmap="RdBu_r", vmin=-limit, vmax=limit, projection=projection
    )


def _at_points(
    forecast: xr.Dataset, truth: Any, name: str, metric: str, lead: Any, **options: Any
) -> tuple[xr.Dataset, str]:
    """Score at every point, over one lead time or all of them, and which these are."""
    if lead is not None:
        forecast = forecast.isel({LEAD: lead_positions(forecast[LEAD].values, [lead])})
    space = [str(d) for d in forecast[name].dims[2:]]
    scores = evaluate(forecast, truth, metrics=(metric,), by=space, **options)
    return scores, lead_range(forecast[LEAD].values)


def projection_for(data: Any, *, variable: str | None = None) -> Projection | None:
    """Choose the projection that :func:`plot_map` uses.

    Equal Earth for the globe, Lambert's conformal cone for regions of middle latitudes, a
    stereographic one for those near a pole, plain latitude and longitude near the equator.

    Parameters
    ----------
    data : xarray.DataArray or xarray.Dataset
        On a grid of latitude and longitude; other dimensions do not matter.
    variable : str, optional
        Which variable of a Dataset with several.

    Returns
    -------
    cartopy.crs.Projection or None
        None for a grid that has no latitude and longitude.
    """
    array = one_variable(data, variable)
    space = carto.space_dims(array)
    array = array.isel({d: 0 for d in array.dims if d not in space})
    grid = carto.Grid.of(carto.single_field(array))
    if not grid.geographic:
        return None
    require("cartopy")
    return carto.projection_for(grid)


def plot_map(
    data: Any,
    *,
    variable: str | None = None,
    ax: Any = None,
    title: str | None = None,
    cmap: Any = None,
    vmin: float | None = None,
    vmax: float | None = None,
    projection: Projection | None = None,
    colorbar: bool = True,
) -> Figure:
    """Draw one field on a map, in the units it comes in.

    Parameters
    ----------
    data : xarray.DataArray or xarray.Dataset
        A field of latitude and longitude in any order, direction and convention; or of two other
        dimensions, which are drawn as pixels with the first row at the top. Other dimensions must
        have size 1. NaN is drawn grey.
    variable : str, optional
        Which variable of a Dataset with several.
    ax : matplotlib.axes.Axes, optional
        Where to draw: for a geographic field axes with a projection, made with
        ``figure.add_subplot(projection=stforecast.plots.projection_for(data))``.
    title : str, optional
        Default: the field's name and times. ``""`` for none.
    cmap : str or matplotlib.colors.Colormap, optional
        Default: one that suits the variable.
    vmin, vmax : float, optional
        Limits of the colours. Default: those that leave out the outermost half per cent of the
        values at each end; a pointed colour bar says so.
    projection : cartopy.crs.Projection, optional
        Default: what :func:`projection_for` chooses.
    colorbar : bool
        Draw a colour bar with the units.

    Returns
    -------
    matplotlib.figure.Figure
        Default: the projection of `ax`, if given.

    Raises
    ------
    InputError
        If `data` is not a single field, or holds no finite value.
    ImportError
        If matplotlib or cartopy is not installed.
    """
    field = carto.single_field(one_variable(data, variable))
    grid = carto.Grid.of(field)
    require("matplotlib", *["cartopy"] * grid.geographic)
    scale = Scale.of([field], grid, cmap=cmap, vmin=vmin, vmax=vmax)
    title = field_title(field, grid.geographic) if title is None else title
    if ax is not None:
        if grid.geographic and not hasattr(ax, "projection"):
            raise InputError(
                "a map of latitude and longitude needs axes with a projection: make them with "
                "figure.add_subplot(projection=stforecast.plots.projection_for(data))"
            )
        mesh = scale.draw(ax, grid, field)
        title = "\n".join(plain(line, 200) for line in title.splitlines())
        ax.set_title(title, fontsize=TEXT, parse_math=False)
        if colorbar:
            scale.bar(ax.figure, mesh, ax, shrink=0.8, pad=0.05, aspect=20)
        return ax.figure

    if projection is None and grid.geographic:
        projection = carto.projection_for(grid)
    aspect = carto.aspect(grid, projection)
    width = min(7.0, 4.6 * aspect)
    height, below = width / aspect, aspect > 1.45
    margin = 0.0 if grid.whole else 0.45  # meridians and parallels are labelled
    figure = new_figure(
        width + 0.2 + margin + 0.9 * (colorbar and not below),
        height + 0.15 + margin + 0.65 * (colorbar and below),
        title,
    )
    axes = figure.add_subplot(projection=projection)
    mesh = scale.draw(axes, grid, field)
    if colorbar and below:
        scale.bar(figure, mesh, axes, inches=width, location="bottom", shrink=0.7, aspect=35)
    elif colorbar:
        scale.bar(figure, mesh, axes, inches=height)
    return figure


def error_map(
    forecast: Any,
    truth: Any,
    *,
    variable: str | None = None,
    metric: str = "rmse",
    lead: Any = None,
    weights: str | xr.DataArray = "area",
    nan: Literal["refuse", "mask"] = "refuse",
    title: str | None = None,
    cmap: Any = None,
    vmax: float | None = None,
    projection: Projection | None = None,
) -> Figure:
    """Map a score at every grid point, over all initialisations.

    Parameters
    ----------
    forecast, truth : xarray.Dataset
        As for :func:`stforecast.evaluate`, which computes the score and checks the input.
    variable : str, optional
        Default: the first.
    metric : {"rmse", "mse", "mae", "bias"}
        What to show.
    lead : time difference, optional
        One lead time, such as ``"6h"``. Default: all of them together, the root last.
    weights : {"area", "uniform"} or xarray.DataArray
        Of the score of the whole map, in the title. Points where an array is 0 are grey.
    nan : {"refuse", "mask"}
        What to do with missing truth: ``"mask"`` leaves these points out, as
        :func:`stforecast.evaluate` does. A point that is never there is grey.
    title, cmap, projection : optional
        As for :func:`plot_map`.
    vmax : float, optional
        End of the scale, which begins at 0 (or at ``-vmax`` for "bias").

    Returns
    -------
    matplotlib.figure.Figure
    """
    require("matplotlib")
    ours, labels, name = open_forecast(forecast, variable, truth)
    scores, leads = _at_points(ours, truth, name, metric, lead, weights=weights, nan=nan)
    score, word, unit = scores[name][0], METRICS[metric], scores[name].attrs[f"units_{metric}"]
    unit = unit_label(unit)
    label = f"{sentence(word)} of {variable_label(ours[name])}"
    score = score.drop_vars("metric").assign_attrs(long_name=label, units=unit)
    if title is None:
        whole = number(float(scores[f"{name}_overall"][0]), 2 if metric == "bias" else 3)
        whole = f"{weights_label(scores)} {word} {whole} {unit}".strip()
        title = f"{label}\n{leads} · {whole} · {sample_label(scores)}"
    limit = upper_limit(np.abs(score.values)) if vmax is None else vmax
    low, colours = (-limit, "RdBu_r") if metric == "bias" else (0.0, "YlOrRd")
    shown = on_own_axes(score, labels)
    return plot_map(
        shown, title=title, cmap=cmap or colours, vmin=low, vmax=limit, projection=projection
    )
