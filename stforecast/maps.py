"""Maps of forecasts, truth and errors, and figures of scores.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to nobody else: pyplot is
not involved, nothing piles up, no display is needed, and a notebook shows it. Coastlines come with
the package; nothing is ever downloaded. Needs ``pip install 'stforecast[maps]'``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from . import _cartography as carto
from ._figures import (
    DIFFERENCE,
    DPI,
    MINUS,
    SMALL,
    TEXT,
    Layout,
    Scale,
    about,
    blank,
    capital,
    head,
    lead_words,
    name_lines,
    need,
    number,
    panel,
    table_cells,
    time_words,
    top,
    with_unit,
    words,
)
from ._motion import animate, clip_strip, difference_map, hovmoller, performance
from .conventions import InputError, Labels, canonical_name, canonicalize, valid_times

if TYPE_CHECKING:
    from cartopy.crs import Projection
    from matplotlib.figure import Figure

__all__ = [
    "animate",
    "clip_strip",
    "difference_map",
    "error_map",
    "forecast_panel",
    "hovmoller",
    "lead_curve",
    "performance",
    "plot_map",
    "projection_for",
    "save",
    "scorecard",
]

_LEAD = "prediction_timedelta"
# Okabe and Ito's colours, which colour-blind readers can tell apart. Baselines are grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_BASELINES = {
    "Persistence": ("0.30", "--"),
    "Climatology": ("0.55", "-."),
    "LinearRegression": ("0.45", ":"),
}
_SHORT = {"rmse": "RMSE", "mae": "MAE", "mse": "MSE", "bias": "bias", "acc": "ACC"}


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
        ``figure.add_subplot(projection=stforecast.maps.projection_for(data))``.
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
                "figure.add_subplot(projection=stforecast.maps.projection_for(data))"
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
    ours = ours.isel({_LEAD: _lead_positions(ours[_LEAD].values, leads)})
    theirs = None if truth is None else canonicalize(truth, [name])[0]
    at, positions = _choose_init(ours, theirs, init_time)
    valid = valid_times(ours["time"].values[[at]], ours[_LEAD].values)[0]
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
    from .evaluation import evaluate

    ours, _, name = _open(forecast, variable)
    if lead is not None:
        ours = ours.isel({_LEAD: _lead_positions(ours[_LEAD].values, [lead])})
    space = [str(d) for d in ours[name].dims[2:]]
    scores = evaluate(ours, truth, metrics=(metric,), weights=weights, by=space)
    score, word, unit = scores[name][0], _SHORT[metric], scores[name].attrs[f"units_{metric}"]
    long_name = words(ours[name])
    score = score.drop_vars("metric").assign_attrs(
        long_name=f"{capital(word)} of {long_name}", units=unit
    )
    if title is None:
        steps = dict.fromkeys(lead_words(ours[_LEAD].values[i]) for i in (0, -1))
        whole = number(float(scores[f"{name}_overall"][0]), 2 if metric == "bias" else 3)
        whole = f"{_weighted(scores)} {word} {whole} {unit}".removesuffix(" unknown").strip()
        small = f"lead {' to '.join(steps)} · {whole} · {_sample(scores)}"
        title = f"{capital(word)} of {long_name}\n{small}"
    limit = top(np.abs(score.values)) if vmax is None else vmax
    low, colours = (-limit, "RdBu_r") if metric == "bias" else (0.0, "YlOrRd")
    return plot_map(
        score, title=title, cmap=cmap or colours, vmin=low, vmax=limit, projection=projection
    )


def lead_curve(
    card: xr.Dataset, *, variable: str | None = None, metric: str = "rmse", title: str | None = None
) -> Figure:
    """Draw a score by lead time, a line for each model; baselines are grey and dashed.

    Where the scorecard has intervals of this score's differences, a light band around a model's
    line is that of its difference to the best baseline, laid at that baseline's line: where it
    leaves that line out, the difference is more than chance.

    Parameters
    ----------
    card : xarray.Dataset
        From :func:`stforecast.evaluation.scorecard`, or :func:`stforecast.evaluate` for one model.
    variable : str, optional
        Default: the first.
    metric : str
        One of those in `card`.
    title : str, optional
        Default: the variable and the sample.

    Returns
    -------
    matplotlib.figure.Figure
    """
    need("matplotlib")
    from matplotlib.ticker import MaxNLocator

    card, table, name = _table(card, variable, metric)
    if table.shape[1] < 2:
        raise InputError("the scores are not by lead time alone: evaluate with the default of by=")
    lead, unit = card[_LEAD].values / np.timedelta64(1, "h"), "h"
    if lead[-1] > 96:
        lead, unit = lead / 24, "days"
    elif lead[-1] < 2:
        lead, unit = lead * 60, "min"
    models = [str(m) for m in card["model"].values]
    scores = table.to_numpy(float)[: len(models), :-1]

    figure = blank(7.2, 4.4)
    ax = figure.add_axes((0.1, 0.12, 0.71, 0.69))
    colours = iter(_COLOURS * len(models))
    ends = []
    bands = _bands(card, name, metric, dict(zip(models, scores, strict=True)))
    for model, values in zip(models, scores, strict=True):
        grey, dash = _BASELINES.get(model, (None, "-"))
        colour = grey or next(colours)
        style: dict[str, Any] = {"linewidth": 1.6}
        if grey is None:
            style = {"linewidth": 2.2, "zorder": 3, "marker": "o", "markersize": 4.5}
        ax.plot(lead, values, color=colour, linestyle=dash, label=model, clip_on=False, **style)
        ends.append((float(values[-1]), model, colour, grey is None))
        if model in bands:
            ax.fill_between(lead, *bands[model], color=colour, alpha=0.2, linewidth=0, zorder=2)
    if metric in ("bias", "acc"):
        ax.axhline(0, color="0.7", linewidth=0.8, zorder=1)
    elif np.isfinite(scores).any():
        ax.set_ylim(0, 1.05 * float(np.nanmax(scores)) or 1.0)
    ax.set_xlim(min(0.0, float(lead[0])), float(lead[-1]) or 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(9, integer=unit != "days", steps=[1, 2, 3, 6, 10]))
    ax.set_xlabel(f"Lead time [{unit}]", fontsize=TEXT)
    ax.set_ylabel(_score_label(card, name, metric), fontsize=TEXT)
    ax.tick_params(labelsize=SMALL + 0.5, length=3)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    name_lines(ax, ends)
    head(figure, 0.25, _score_title(card, name) if title is None else title)
    return figure


def scorecard(
    card: xr.Dataset, *, variable: str | None = None, metric: str = "rmse", title: str | None = None
) -> Figure:
    """Draw a scorecard: the score of every model by lead time, and its skill against baselines.

    Parameters
    ----------
    card : xarray.Dataset
        From :func:`stforecast.evaluation.scorecard`.
    variable : str, optional
        Default: the first.
    metric : str
        One of those in `card`. Skill is drawn for "rmse" and "mse".
    title : str, optional
        Default: the variable and the sample.

    Returns
    -------
    matplotlib.figure.Figure
        Of more than 12 lead times 12 are shown, from the first to the last.
    """
    need("matplotlib")
    card, table, name = _table(card, variable, metric)
    n, models = table.shape[1] - 1, card.sizes["model"]
    shown = np.linspace(0, n - 1, min(n, 12)).round().astype(int)
    table = table.iloc[:, [*shown, n]].rename(lambda row: row.replace(": skill vs ", " vs "))
    scores, skill = table.iloc[:models], table.iloc[models:]
    limit = top(np.abs(scores.to_numpy(float)))
    colours, low, high = "YlOrRd", 0.0, 1.4 * limit
    if metric in ("bias", "acc"):
        colours, low, high = ("RdBu_r" if metric == "bias" else "RdBu"), -limit, limit
    blocks = [(scores, _score_label(card, name, metric), colours, low, high)]
    if len(skill):
        words_ = f"Skill: 1 {MINUS} RMSE / RMSE of the baseline (blue: better than the baseline)"
        blocks.append((skill, words_, "RdBu", -1.0, 1.0))

    cell, y, between = 0.36, 1.4, 0.75
    left, width = 0.4 + 0.082 * max(map(len, table.index)), max(0.6 * table.shape[1], 4.4)
    height = y + cell * len(table) + between * (len(blocks) - 1) + 0.15
    layout = Layout((width, cell), left=left, right=0.25, top=y, bottom=height - y - cell)
    for block, caption, colours, low, high in blocks:
        ax = layout.add(left, y, width, cell * len(block))
        table_cells(ax, block, colours, low, high)
        layout.text(left, y - 0.4, caption, fontsize=TEXT, va="center")
        y += cell * len(block) + between
    head(layout.figure, 0.25, _score_title(card, name) if title is None else title)
    return layout.figure


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: float = DPI) -> Path:
    """Write a figure; it appears whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Any figure.
    path : path-like
        Its suffix says the format: ``.png``, ``.pdf``, ``.svg``... Missing directories are made.
    dpi : float
        Dots per inch.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If the format is not known, or the directory cannot be written to.
    """
    from .files import replacing

    path = Path(path)
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise InputError(
            f"cannot tell the format of a picture from the name {path.name!r}: expected one of "
            f"{', '.join('.' + kind for kind in sorted(kinds))} at its end"
        )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, bbox_inches="tight", pad_inches=0.1)
    return path


# --- what goes in ---------------------------------------------------------------------------------


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
    if _LEAD not in ours.dims:
        raise InputError(
            f"a forecast has the dimensions time (the initialisation) and {_LEAD}, found "
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
    from .evaluation import check_grid, check_units, valid_positions

    name = str(next(iter(forecast.data_vars)))
    check_units(forecast, truth, [name])
    check_grid(forecast, truth, forecast[name].dims[2:], "truth")
    if wanted is None:
        valid = pd.Index(valid_times(index.values, forecast[_LEAD].values).ravel())
        there = truth.indexes["time"].get_indexer(valid).reshape(len(index), -1) >= 0
        at = int(np.flatnonzero(there.all(axis=1))[-1]) if there.all(axis=1).any() else at
    return at, valid_positions(forecast.isel(time=[at]), truth)[0]


def _table(
    card: xr.Dataset, variable: str | None, metric: str
) -> tuple[xr.Dataset, pd.DataFrame, str]:
    """Scorecard, its table (models and skills by lead and overall), and the variable."""
    from .evaluation import to_table

    if not isinstance(card, xr.Dataset) or "metric" not in card.coords:
        raise InputError(
            "expected scores by lead time: what stforecast.evaluate or evaluation.scorecard gives"
        )
    if "model" not in card.dims:
        card = card.expand_dims(model=["Forecast"])
    table = to_table(card, variable=variable, metric=metric, digits=9)
    return card, table, str(table.columns.name).split(" ")[0]


# --- what comes out -------------------------------------------------------------------------------


def _bands(
    card: xr.Dataset, name: str, metric: str, scores: dict[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Interval of each model's difference to the best baseline, laid at that baseline's scores."""
    differences = card.get(f"{name}_difference")
    baselines = [m for m in scores if m in _BASELINES]
    if differences is None or not baselines or metric != card.attrs.get("interval_metric"):
        return {}
    first = {d: 0 for d in ("weights", "region") if d in differences.dims}
    best = min(baselines, key=lambda m: float(np.nanmean(scores[m])))
    against = differences.isel(first).sel(rival=best)
    found = {}
    for m in (m for m in scores if m not in _BASELINES):
        low, high = (
            against.sel(model=m, quantity=q).values + scores[best] for q in ("low", "high")
        )
        found[m] = low, high
    return found


def _weighted(scores: xr.Dataset) -> str:
    weights = str(scores.attrs.get("weights", "")).split(", ")[0]  # of several the first is shown
    return {"area": "area-weighted", "uniform": "unweighted"}.get(weights, "")


def _sample(scores: xr.Dataset) -> str:
    """How many initialisations the scores rest on, and when."""
    n = int(scores.attrs.get("initialisations", 0))
    if not n:
        return ""
    a, b = (str(scores.attrs[f"{end}_initialisation"])[:10] for end in ("first", "last"))
    return f"{n} initialisation{'s' * (n != 1)}, {a if a == b else f'{a} to {b}'}"


def _score_title(card: xr.Dataset, name: str) -> str:
    small = " · ".join(filter(None, [_weighted(card), _sample(card)]))
    return f"{capital(words(card[name]))}\n{small}"


def _score_label(card: xr.Dataset, name: str, metric: str) -> str:
    return with_unit(capital(_SHORT.get(metric, metric)), card[name].attrs.get(f"units_{metric}"))
