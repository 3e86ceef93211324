"""Maps: one field, the errors of a forecast, the difference of two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.grid import grid_weights
from ..errors import InputError
from . import cartography as carto
from .fields import _array, _lead_positions, _open
from .layout import (
    SHORT,
    TEXT,
    Layout,
    Scale,
    about,
    capital,
    head,
    lead_words,
    need,
    number,
    sample,
    top,
    weighted,
    words,
)

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
    need("matplotlib")
    from ..evaluation.evaluate import evaluate
    from .fields import _lead_positions, _open

    if metric not in ("rmse", "mse", "mae"):
        raise InputError(f"metric must be rmse, mse or mae, found {metric!r}")
    ours, _, name = _open(first, variable)
    theirs, _, _ = _open(second, name)
    for dim in ("time", LEAD):
        if not ours.indexes[dim].equals(theirs.indexes[dim]):
            raise InputError(
                f"the two forecasts differ in {dim}: {ours.sizes[dim]} from "
                f"{ours[dim].values[0]} and {theirs.sizes[dim]} from {theirs[dim].values[0]}; "
                f"select what they have in common"
            )
    if lead is not None:
        at = _lead_positions(ours[LEAD].values, [lead])
        ours, theirs = ours.isel({LEAD: at}), theirs.isel({LEAD: at})
    space = [str(d) for d in ours[name].dims[2:]]
    scores = [evaluate(f, truth, metrics=(metric,), by=space) for f in (ours, theirs)]
    a, b = (s[name].sel(metric=metric, drop=True) for s in scores)
    word, unit = metric.upper(), scores[0][name].attrs[f"units_{metric}"]
    difference = (a - b).assign_attrs(long_name=f"{word}, {names[0]} less {names[1]}", units=unit)
    if title is None:
        steps = dict.fromkeys(lead_words(ours[LEAD].values[i]) for i in (0, -1))
        shape = difference.sizes[space[0]], difference.sizes[space[1]]
        latitude = difference["latitude"].values if space[0] == "latitude" else None
        weights = grid_weights(shape, latitude)[0]
        better = float((weights * (difference.values < 0)).sum() / weights.sum())
        whole = [number(float(s[f"{name}_overall"].sel(metric=metric))) for s in scores]
        small = f"lead {' to '.join(steps)} · {names[0]} {whole[0]}, {names[1]} {whole[1]} {unit}"
        small = f"{small.removesuffix(' unknown')} · {names[0]} better on {100 * better:.0f}%"
        title = f"{word} of {words(ours[name])}, {names[0]} less {names[1]}\n{small}"
    limit = top(np.abs(difference.values)) if vmax is None else vmax
    return plot_map(
        difference, title=title, cmap="RdBu_r", vmin=-limit, vmax=limit, projection=projection
    )


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
    array = _array(data, variable)
    space = set(carto.space_of(array))
    grid = carto.Grid.of(carto.flat(array.isel({d: 0 for d in array.dims if d not in space})))
    if not grid.geographic:
        return None
    need("cartopy")
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
        That of `ax`, where it is given.

    Raises
    ------
    InputError
        If `data` is not a single field, or holds no finite value.
    ImportError
        If matplotlib or cartopy is not installed.
    """
    field = carto.flat(_array(data, variable))
    grid = carto.Grid.of(field)
    need("matplotlib", *["cartopy"] * grid.geographic)
    scale = Scale.of([field], grid, cmap=cmap, vmin=vmin, vmax=vmax)
    title = about(field, grid.geographic) if title is None else title
    if ax is not None:
        if grid.geographic and not hasattr(ax, "projection"):
            raise InputError(
                "a map of latitude and longitude needs axes with a projection: make them with "
                "figure.add_subplot(projection=stforecast.plots.projection_for(data))"
            )
        mesh = scale.draw(ax, grid, field)
        ax.set_title(title, fontsize=TEXT)
        if colorbar:
            scale.bar(ax.figure, mesh, ax=ax, shrink=0.8)
        return ax.figure

    if projection is None and grid.geographic:
        projection = carto.projection_for(grid)
    shape = carto.shape(grid, projection)
    width = min(7.0, 4.6 * shape)
    below = colorbar and shape > 1.45
    around = 0.0 if grid.whole else 0.25  # room for the labels of meridians and parallels
    above = around * carto.labels_above(grid, projection)
    layout = Layout(
        (width, width / shape),
        left=0.3 + 1.6 * around,
        right=0.3 + 0.8 * (colorbar and not below) + around,
        top=(0.15, 0.5, 0.75)[min(len(title.splitlines()), 2)] + above,
        bottom=0.2 + 0.6 * below + 1.2 * around,
    )
    axes = layout.axes(0, 0, projection)
    mesh = scale.draw(axes, grid, field)
    head(layout.figure, 0.3, title)
    if below:
        layout.bar_below(scale, mesh, 0.12 + around)
    elif colorbar:
        layout.bar(scale, mesh, (0,), 0.15 + 1.8 * above)
    return layout.figure


def error_map(
    forecast: Any,
    truth: Any,
    *,
    variable: str | None = None,
    metric: str = "rmse",
    lead: Any = None,
    weights: str | xr.DataArray = "area",
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
    title, cmap, projection : optional
        As for :func:`plot_map`.
    vmax : float, optional
        End of the scale, which begins at 0 (or at ``-vmax`` for "bias").

    Returns
    -------
    matplotlib.figure.Figure
    """
    need("matplotlib")
    from ..evaluation.evaluate import evaluate

    ours, _, name = _open(forecast, variable)
    if lead is not None:
        ours = ours.isel({LEAD: _lead_positions(ours[LEAD].values, [lead])})
    space = [str(d) for d in ours[name].dims[2:]]
    scores = evaluate(ours, truth, metrics=(metric,), weights=weights, by=space)
    score, word, unit = scores[name][0], SHORT[metric], scores[name].attrs[f"units_{metric}"]
    long_name = words(ours[name])
    score = score.drop_vars("metric").assign_attrs(
        long_name=f"{capital(word)} of {long_name}", units=unit
    )
    if title is None:
        steps = dict.fromkeys(lead_words(ours[LEAD].values[i]) for i in (0, -1))
        whole = number(float(scores[f"{name}_overall"][0]), 2 if metric == "bias" else 3)
        whole = f"{weighted(scores)} {word} {whole} {unit}".removesuffix(" unknown").strip()
        small = f"lead {' to '.join(steps)} · {whole} · {sample(scores)}"
        title = f"{capital(word)} of {long_name}\n{small}"
    limit = top(np.abs(score.values)) if vmax is None else vmax
    low, colours = (-limit, "RdBu_r") if metric == "bias" else (0.0, "YlOrRd")
    return plot_map(
        score, title=title, cmap=cmap or colours, vmin=low, vmax=limit, projection=projection
    )
