"""Several forecasts of the same time: a map each."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import xarray as xr

from ..conventions.axes import LEAD
from ..errors import InputError
from . import cartography as carto
from .colours import Scale
from .fields import DIFFERENCE, ForecastCase, error_label
from .labels import lead_label, plain, with_unit
from .layout import SMALL, TEXT, new_figure

if TYPE_CHECKING:
    from cartopy.crs import Projection
    from matplotlib.figure import Figure


def forecast_grid(
    forecasts: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    *,
    errors: bool = False,
    columns: int = 4,
    variable: str | None = None,
    init_time: Any = None,
    lead: Any = None,
    title: str | None = None,
    projection: Projection | None = None,
) -> Figure:
    """Draw several forecasts of one time beside truth, a map each, with its RMSE and bias.

    Parameters
    ----------
    forecasts : mapping of str to xarray.Dataset
        By the name that stands over the map; they fill the rows in their order. All on the grid of
        the first.
    truth : xarray.Dataset
        With the valid time.
    errors : bool
        Draw forecast minus truth, on one symmetric scale, in place of truth and the forecasts.
    columns : int
        Maps in a row.
    lead : time difference, optional
        Default: the last.
    variable, init_time, title, projection : optional
        As of :func:`forecast_panel`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no forecast, or one does not fit `truth`.
    """
    if not forecasts:
        raise InputError("a grid of forecasts needs at least one: {'name': forecast}")
    cases = {}
    for name, forecast in forecasts.items():
        wanted = forecast[LEAD].values[-1] if lead is None else lead
        cases[name] = ForecastCase.open(forecast, truth, variable, init_time, wanted)
    first = next(iter(cases.values()))
    for name, case in cases.items():
        if (case.start, case.valid) != (first.start, first.valid):
            valid = f"{case.valid[0]}, the first {first.valid[0]}"
            raise InputError(f"{name!r} is valid {valid}: give init_time= and lead=")
    grid, projection = first.grid, first.projection(projection)
    seen = first.fields["Truth"][0]
    shown = {name: case.fields["Forecast"][0] for name, case in cases.items()}
    missed = {name: field.copy(data=field.values - seen.values) for name, field in shown.items()}
    if errors:
        fields, label = missed, with_unit(DIFFERENCE, seen.attrs.get("units"))
        scale = Scale.of(fields.values(), grid, symmetric=True, label=label)
    else:
        fields, scale = shown, Scale.of([seen, *shown.values()], grid)

    columns = min(columns, len(shown))
    lines = -(-len(shown) // columns) + (not errors)
    aspect = carto.aspect(grid, projection)
    width = max(1.2, min(2.6, 9.6 / columns, 2.0 * aspect))
    fold = partial(textwrap.wrap, width=int(width / 0.058))  # letters that fit over a map
    over = {n: "\n".join([*fold(plain(n)), *fold(error_label(missed[n], grid))]) for n in shown}
    high = width / aspect + 0.15 + 0.14 * max(1 + text.count("\n") for text in over.values())
    if title is None:
        when = f"valid {first.valid[0]}, lead {lead_label(first.leads[0])}"
        title = f"{first.name}\n{when}"
    figure = new_figure(columns * (width + 0.1) + 0.2, lines * high + 0.8, title)
    axes = figure.subplots(lines, columns, squeeze=False, subplot_kw={"projection": projection})
    if not errors:
        scale.draw(axes[0, 0], grid, seen, left=False, bottom=False)
        axes[0, 0].set_title("Truth", fontsize=TEXT, fontweight="bold")
        for ax in axes[0, 1:]:
            ax.remove()
        axes = axes[1:]
    panels = axes.ravel()
    for ax, (name, field) in zip(panels, fields.items(), strict=False):
        mesh = scale.draw(ax, grid, field, left=False, bottom=False)
        ax.set_title(over[name], fontsize=SMALL, pad=3, parse_math=False)
    for ax in panels[len(fields) :]:
        ax.remove()
    under, long = list(panels[: len(fields)]), columns * width
    scale.bar(figure, mesh, under, location="bottom", inches=long, aspect=6 * long)
    return figure
