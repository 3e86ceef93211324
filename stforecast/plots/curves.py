"""Scores as curves and cards: by lead time, while training, and against what a model costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD
from ..errors import InputError
from ..evaluation.scorecards import to_table
from .colours import upper_limit
from .labels import MINUS, lead_axis, plain, score_label, score_title
from .layout import SMALL, TEXT, new_figure, plain_axes, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ORANGE = "#c43c1d"  # what is to be seen first
# Okabe and Ito's colours, which colour-blind readers can tell apart. Baselines are grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_BASELINES = {
    "Persistence": ("0.30", "--"),
    "Climatology": ("0.55", "-."),
    "LinearRegression": ("0.45", ":"),
    "FrameCopy": ("0.65", (0, (1, 3))),
    "persistence": ("0.30", "--"),  # the names that the benchmarks' tables have
    "usual week": ("0.55", "-."),
}


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
        A row for each model, named by the index, as
        :func:`stforecast.evaluation.published.cost_table` gives; rows of your own may be added.
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
    require("matplotlib")
    from matplotlib.ticker import LogLocator, NullFormatter

    missing = [c for c in (quality, *costs) if c not in table.columns]
    if missing:
        raise InputError(f"the table has no column {missing}, found {list(table.columns)}")
    chosen = set(highlight) or {str(m) for m in table.index if "SimVPv2" in str(m)}
    figure = new_figure(5.1 * len(costs), 4.1, "Error against cost" if title is None else title)
    axes = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
    for ax, cost in zip(axes, costs, strict=True):
        rows = table[[quality, cost]].dropna()
        ax.set_xscale("log")
        ax.margins(x=0.18, y=0.14)
        logarithmic = [ax.xaxis]
        if 0 < 4 * rows[quality].min() < rows[quality].max():
            ax.set_yscale("log")
            logarithmic.append(ax.yaxis)
        for axis in logarithmic:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        for model, row in rows.iterrows():
            style = (_ORANGE, 8) if str(model) in chosen else ("0.35", 5)
            ax.plot(row[cost], row[quality], "o", color=style[0], markersize=style[1])
        ax.set_xlabel(plain(cost).replace("_", " "), fontsize=TEXT, parse_math=False)
        plain_axes(ax)
    axes[0].set_ylabel(plain(quality).replace("_", " "), fontsize=TEXT, parse_math=False)
    figure.draw_without_rendering()  # names are placed by where points come to lie
    for ax, cost in zip(axes, costs, strict=True):
        rows = table[[quality, cost]].dropna()
        _name_points(ax, rows[cost], rows[quality], chosen)
    return figure


def _name_points(ax: Any, x: pd.Series[float], y: pd.Series[float], bold: set[str]) -> None:
    """Write names beside points, each where it covers no other, if there is such a place."""
    from matplotlib.transforms import Affine2D, Bbox

    points = 72 / ax.figure.dpi
    at = ax.transData.transform(np.column_stack([x, y])) * points
    taken = [Bbox.from_bounds(px - 4, py - 4, 8, 8) for px, py in at]
    room = ax.bbox.transformed(Affine2D().scale(points))
    near = [(7, -3, "left"), (-7, -3, "right"), (7, 5, "left"), (-7, 5, "right")]
    near += [(7, -11, "left"), (-7, -11, "right"), (0, 8, "center"), (0, -15, "center")]
    far = [(dx, dy) for dy in (20, -26, 34, -40, 48, 62, 76) for dx in (10, -10, 30, -30, 55, -55)]
    far.sort(key=lambda place: math.hypot(*place))
    places = near + [(dx, dy, "left" if dx > 0 else "right") for dx, dy in far]
    points_of = zip(map(str, x.index), at, x, y, strict=True)
    for name, (px, py), one, two in sorted(points_of, key=lambda point: point[0] not in bold):
        shown, wide = plain(name, 40), 0.75 if name in bold else 0.62
        width = wide * SMALL * len(shown)
        shift = {"left": 0, "right": width, "center": width / 2}
        boxes = [
            Bbox.from_bounds(px + dx - shift[side], py + dy, width, SMALL)
            for dx, dy, side in places
        ]
        inside = [room.contains(*box.min) and room.contains(*box.max) for box in boxes]
        free = [i for i, b in enumerate(boxes) if inside[i] and not b.count_overlaps(taken)]
        best = free[0] if free else 0
        dx, dy, side = places[best]
        taken.append(boxes[best])
        line = {"arrowstyle": "-", "color": "0.7", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        ax.annotate(
            shown,
            (one, two),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=side,
            fontsize=SMALL,
            color=_ORANGE if name in bold else "0.35",
            fontweight="bold" if name in bold else "normal",
            arrowprops=line if best >= len(near) else None,
            parse_math=False,
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
        Lead times in minutes, hours or days; scores in the unit that `card` names.

    Raises
    ------
    InputError
        If `card` holds no scores by lead time, or not this variable or metric.
    """
    require("matplotlib")
    from matplotlib.ticker import MaxNLocator

    card, table, name = _table(card, variable, metric)
    if table.shape[1] < 2:
        raise InputError("the scores are not by lead time alone: evaluate with the default of by=")
    lead, unit = lead_axis(card[LEAD].values)
    models = [str(m) for m in card["model"].values]
    scores = table.to_numpy(float)[: len(models), :-1]

    figure = new_figure(7.2, 3.8, score_title(card, name) if title is None else title)
    ax = figure.add_subplot()
    colours = iter(COLOURS * len(models))
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
    ax.set_ylabel(score_label(card, name, metric), fontsize=TEXT, parse_math=False)
    plain_axes(ax, "y")
    _name_lines(ax, ends)
    return figure


def loss_curve(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the log of a training run: loss, and validation error where there is one, by step.

    Parameters
    ----------
    lines : sequence of mapping
        From :func:`stforecast.training.log.read_log`.

    Returns
    -------
    matplotlib.figure.Figure
        The loss has no unit (fields are normalised); validation RMSE has the variable's unit.
    """
    require("matplotlib")
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    rows = {"loss": "Loss"}
    if any("val_rmse" in line for line in lines):
        rows["val_rmse"] = "Validation RMSE"
    last = lines[-1]["step"] if lines else 1
    figure = new_figure(7.2, 0.3 + 2.3 * len(rows), f"Training, {last:,} steps")
    axes = figure.subplots(len(rows), squeeze=False)[:, 0]
    for ax, (key, label) in zip(axes, rows.items(), strict=True):
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        steps, values = zip(*points, strict=True) if points else ((), ())
        ax.plot(steps, values, "o-", color="#0b5fa5", linewidth=1.6, markersize=3, clip_on=False)
        if key == "loss" and values and min(values) > 0 and max(values) > 5 * min(values):
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
        elif values:
            ax.set_ylim(0, 1.08 * max(values) or 1.0)
        if key == "val_rmse" and values:
            best = int(np.argmin(values))
            low = values[best] < 0.2 * max(values)
            ax.plot(steps[best], values[best], "o", color=_ORANGE, markersize=6, clip_on=False)
            ax.annotate(
                f"best: {values[best]:.4g}",
                (steps[best], values[best]),
                # It is the lowest point: below it is room, unless it lies at the bottom.
                xytext=(-8 if best > len(values) / 2 else 8, 7 if low else -13),
                textcoords="offset points",
                ha="right" if best > len(values) / 2 else "left",
                fontsize=SMALL,
                color=_ORANGE,
            )
        ax.set_ylabel(label, fontsize=TEXT)
        ax.set_xlim(0, last)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        plain_axes(ax, "y")
    axes[-1].set_xlabel("Step", fontsize=TEXT)
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

    Raises
    ------
    InputError
        If `card` holds no scores by lead time, or not this variable or metric.
    """
    require("matplotlib")
    card, table, name = _table(card, variable, metric)
    n, models = table.shape[1] - 1, card.sizes["model"]
    shown = np.linspace(0, n - 1, min(n, 12)).round().astype(int)
    table = table.iloc[:, [*shown, n]]
    table.index = [plain(row.replace(": skill vs ", " vs "), 60) for row in table.index]
    scores, skill = table.iloc[:models], table.iloc[models:]
    limit = upper_limit(np.abs(scores.to_numpy(float)))
    colours, low, high = "YlOrRd", 0.0, 1.4 * limit
    if metric in ("bias", "acc"):
        colours, low, high = ("RdBu_r" if metric == "bias" else "RdBu"), -limit, limit
    blocks = [(scores, score_label(card, name, metric), colours, low, high)]
    if len(skill):
        caption = f"Skill: 1 {MINUS} RMSE / RMSE of the baseline (blue: better than the baseline)"
        blocks.append((skill, caption, "RdBu", -1.0, 1.0))

    rows = [len(block) for block, *_ in blocks]
    width = 0.4 + 0.082 * max(map(len, table.index)) + max(0.6 * table.shape[1], 4.4)
    height = 0.36 * sum(rows) + 0.68 * len(blocks)
    title = score_title(card, name) if title is None else title
    figure = new_figure(width, height, title, h_pad=0.1)
    axes = figure.subplots(len(blocks), squeeze=False, height_ratios=rows)[:, 0]
    for ax, (block, caption, colours, low, high) in zip(axes, blocks, strict=True):
        _draw_table(ax, block, colours, low, high)
        ax.set_title(caption, fontsize=TEXT, loc="left", pad=8, parse_math=False)
    return figure


def _draw_table(ax: Any, table: pd.DataFrame, cmap: str, low: float, high: float) -> None:
    """Draw a table as coloured cells with their numbers in them; the last column stands apart."""
    values = table.to_numpy(float)
    cells = np.ma.masked_invalid(values)
    mesh = ax.pcolormesh(cells, cmap=cmap, vmin=low, vmax=high, edgecolors="white", linewidth=1.5)
    ax.set_facecolor("0.9")
    ax.invert_yaxis()
    colours = mesh.cmap(mesh.norm(cells))
    digits = int(np.clip(3 - np.floor(np.log10(high)), 0, 2)) if high > 0.05 else None
    for (i, j), value in np.ndenumerate(values):
        dark = colours[i, j, :3] @ [0.299, 0.587, 0.114] < 0.5 and np.isfinite(value)
        text = f"{value:.1e}" if digits is None else f"{value:.{digits}f}"
        text = text.replace("-", MINUS) if np.isfinite(value) else "\N{EN DASH}"
        style = {"ha": "center", "va": "center_baseline", "fontsize": SMALL}
        ax.text(j + 0.5, i + 0.5, text, color="white" if dark else "black", **style)
    ax.set_yticks(np.arange(len(table)) + 0.5, table.index, fontsize=SMALL + 0.5, parse_math=False)
    ax.set_xticks(np.arange(table.shape[1]) + 0.5, table.columns, fontsize=SMALL)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.axvline(table.shape[1] - 1, color="white", linewidth=6)


def _name_lines(ax: Any, ends: Sequence[tuple[float, str, Any, bool]]) -> None:
    """Write names (value at the end, name, colour, bold) beside lines, apart from each other."""
    low, high = ax.get_ylim()
    apart = 0.065 * (high - low)
    ends = sorted((end for end in ends if np.isfinite(end[0])), key=lambda end: end[0])
    places = np.array([end[0] for end in ends])
    for _ in range(100):  # neighbours that are too close give way to each other
        push = np.maximum(0, apart - np.diff(places)) / 2
        places[1:] += push
        places[:-1] -= push
    for place, (_, name, colour, bold) in zip(places, ends, strict=True):
        ax.annotate(
            plain(name, 40),
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=TEXT,
            fontweight="bold" if bold else "normal",
            annotation_clip=False,
            parse_math=False,
        )


def _table(
    card: xr.Dataset, variable: str | None, metric: str
) -> tuple[xr.Dataset, pd.DataFrame, str]:
    """Scorecard, its table (models and skills by lead and overall), and the variable."""
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
