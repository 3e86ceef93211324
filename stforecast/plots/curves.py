"""Scores as curves and cards: by lead time, and against what a model costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD
from ..errors import InputError
from .layout import (
    MINUS,
    SHORT,
    SMALL,
    TEXT,
    Layout,
    blank,
    capital,
    head,
    name_lines,
    need,
    sample,
    table_cells,
    top,
    weighted,
    with_unit,
    words,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def performance(
    table: pd.DataFrame,
    *,
    quality: str = "mse_sum",
    costs: Sequence[str] = ("seconds_per_epoch", "frames_per_second"),
    highlight: Sequence[str] = (),
    title: str | None = None,
) -> Figure:
    """Draw how good models are against what they cost, as Figure 7 of the paper does.

    Parameters
    ----------
    table : pandas.DataFrame
        A row for each model, named by the index: :func:`stforecast.evaluation.published.cost_table`, rows of
        your own added.
    quality : str
        Column of the error, upwards.
    costs : sequence of str
        Columns to go across, a panel each, on a logarithmic axis.
    highlight : sequence of str
        Models to draw in colour. Default: those with SimVPv2 in their names.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If `table` lacks a column.
    """
    need("matplotlib")
    missing = [c for c in (quality, *costs) if c not in table.columns]
    if missing:
        raise InputError(f"the table has no column {missing}, found {list(table.columns)}")
    chosen = set(highlight) or {str(m) for m in table.index if "SimVPv2" in str(m)}
    wide = 5.2
    figure = blank(0.9 + wide * len(costs), 5.0)
    W = 0.9 + wide * len(costs)
    for i, cost in enumerate(costs):
        ax = figure.add_axes(((0.75 + i * wide) / W, 0.115, (wide - 0.55) / W, 0.7))
        rows = table[[quality, cost]].dropna()
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.margins(x=0.18, y=0.08)
        for model, row in rows.iterrows():
            ours = str(model) in chosen
            colour = "#c43c1d" if ours else "0.35"
            ax.plot(row[cost], row[quality], "o", color=colour, markersize=8 if ours else 5)
        _name_points(ax, rows[cost], rows[quality], chosen)
        ax.set_xlabel(cost.replace("_", " "), fontsize=TEXT)
        if i == 0:
            ax.set_ylabel(quality.replace("_", " "), fontsize=TEXT)
        ax.tick_params(labelsize=SMALL)
        ax.grid(color="0.92", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    head(figure, 0.25, title if title is not None else "Error against cost")
    return figure


def _name_points(ax: Any, x: pd.Series[float], y: pd.Series[float], bold: set[str]) -> None:
    """Write names beside points, each where it covers no other, if there is such a place."""
    ax.viewLim  # noqa: B018  (asking for the limits settles them)
    at = ax.transData.transform(np.column_stack([x, y])) * 72 / ax.figure.dpi  # in points
    taken = [(px - 4, py - 4, px + 4, py + 4) for px, py in at]
    for name, (px, py), one, two in zip(map(str, x.index), at, x, y, strict=True):
        wide, high = 0.62 * SMALL * len(name), SMALL
        places = [(7, -3, "left"), (-7, -3, "right"), (7, 5, "left"), (-7, 5, "right")]
        places += [(7, -11, "left"), (-7, -11, "right"), (0, 8, "center"), (0, -15, "center")]
        boxes = []
        for dx, dy, side in places:
            left = px + dx - {"left": 0, "right": wide, "center": wide / 2}[side]
            boxes.append((left, py + dy, left + wide, py + dy + high))
        free = [i for i, box in enumerate(boxes) if not any(_meet(box, t) for t in taken)]
        best = free[0] if free else 0
        dx, dy, side = places[best]
        taken.append(boxes[best])
        ax.annotate(
            name,
            (one, two),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=side,
            fontsize=SMALL,
            color="#c43c1d" if name in bold else "0.35",
            fontweight="bold" if name in bold else "normal",
            parse_math=False,
        )


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# Okabe and Ito's colours, which colour-blind readers can tell apart. Baselines are grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")

_BASELINES = {
    "Persistence": ("0.30", "--"),
    "Climatology": ("0.55", "-."),
    "LinearRegression": ("0.45", ":"),
}


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
    lead, unit = card[LEAD].values / np.timedelta64(1, "h"), "h"
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


def _table(
    card: xr.Dataset, variable: str | None, metric: str
) -> tuple[xr.Dataset, pd.DataFrame, str]:
    """Scorecard, its table (models and skills by lead and overall), and the variable."""
    from ..evaluation.scorecards import to_table

    if not isinstance(card, xr.Dataset) or "metric" not in card.coords:
        raise InputError(
            "expected scores by lead time: what stforecast.evaluate or evaluation.scorecard gives"
        )
    if "model" not in card.dims:
        card = card.expand_dims(model=["Forecast"])
    table = to_table(card, variable=variable, metric=metric, digits=9)
    return card, table, str(table.columns.name).split(" ")[0]


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
    against = differences.isel(first).sel(other_model=best)
    found = {}
    for m in (m for m in scores if m not in _BASELINES):
        low, high = (
            against.sel(model=m, quantity=q).values + scores[best] for q in ("low", "high")
        )
        found[m] = low, high
    return found


def _score_title(card: xr.Dataset, name: str) -> str:
    small = " · ".join(filter(None, [weighted(card), sample(card)]))
    return f"{capital(words(card[name]))}\n{small}"


def _score_label(card: xr.Dataset, name: str, metric: str) -> str:
    return with_unit(capital(SHORT.get(metric, metric)), card[name].attrs.get(f"units_{metric}"))
