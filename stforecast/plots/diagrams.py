"""Whether a spread can be trusted: diagrams of the scores of ensembles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..errors import InputError
from .curves import COLOURS
from .fields import lead_positions
from .labels import lead_axis, lead_label, number, score_title, unit_label, with_unit
from .layout import SMALL, TEXT, new_figure, plain_axes, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE = COLOURS[:2]
THRESHOLD = "threshold"


def spread_skill(
    scores: xr.Dataset, *, variable: str | None = None, title: str | None = None
) -> Figure:
    """Draw the spread of an ensemble beside the error of its mean, and their ratio, by lead time.

    Parameters
    ----------
    scores : xarray.Dataset
        Of :func:`stforecast.evaluate` with "rmse" and "spread_skill" among the metrics, by lead
        time.
    variable, title : str, optional
        Default: the first; the variable and the sample.

    Returns
    -------
    matplotlib.figure.Figure
        The spread is the root of the mean variance of the members, times (M + 1) / M: that of an
        ensemble that can be trusted equals the RMSE of its mean (Fortin et al., 2014).

    Raises
    ------
    InputError
        If these scores are not there.
    """
    name, array = _scores(scores, variable, None)
    array = _alone(array, ("metric", LEAD))
    missing = {"rmse", "spread_skill"} - set(array["metric"].values.tolist())
    if missing:
        raise InputError(f"the scores have no {sorted(missing)}: evaluate(metrics=[...]) them")
    rmse, ratio = (array.sel(metric=m).values for m in ("rmse", "spread_skill"))
    x, unit = lead_axis(scores[LEAD].values)
    figure = new_figure(7.2, 5.0, score_title(scores, name) if title is None else title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    style: dict[str, Any] = {"linewidth": 2.2, "marker": "o", "markersize": 4.5, "clip_on": False}
    above.plot(x, rmse, color=BLUE, label="RMSE of the mean", **style)
    above.plot(x, ratio * rmse, color=ORANGE, linestyle="--", label="Spread", **style)
    above.set_ylim(0, 1.08 * float(np.nanmax([rmse, ratio * rmse])) or 1.0)
    above.set_ylabel(with_unit("RMSE, spread", array.attrs.get("units_rmse")), fontsize=TEXT)
    above.legend(fontsize=SMALL, frameon=False, loc="lower right")
    below.axhspan(0.9, 1.1, color="0.93", zorder=0)
    below.axhline(1, color="0.5", linewidth=0.8)
    below.plot(x, ratio, color=ORANGE, **style)
    most = max(0.35, 1.15 * float(np.nanmax(np.abs(ratio - 1))))
    below.set_ylim(max(0.0, 1 - most), 1 + most)
    below.set_ylabel("Spread / RMSE", fontsize=TEXT)
    below.set_xlabel(f"Lead time [{unit}]", fontsize=TEXT)
    below.set_xlim(min(0.0, float(x[0])), float(x[-1]) or 1.0)
    for ax in (above, below):
        plain_axes(ax, "y")
    return figure


def rank_histogram(
    scores: xr.Dataset, *, variable: str | None = None, leads: Any = None, title: str | None = None
) -> Figure:
    """Draw how often truth has each rank among the members of an ensemble.

    Parameters
    ----------
    scores : xarray.Dataset
        Of :func:`stforecast.evaluate` with "rank_histogram" among the metrics.
    variable, title : str, optional
        Default: the first; the variable and the sample.
    leads : time difference or sequence of them, optional
        Lead times, a panel each. Default: the first, one between and the last.

    Returns
    -------
    matplotlib.figure.Figure
        1 is flat: truth cannot be told from a member. The grey band is 20% to either side; too
        little spread makes the outermost ranks high, a bias one of them.
    """
    name, array = _scores(scores, variable, "rank_histogram")
    from matplotlib.ticker import MaxNLocator

    panels = _by_lead(_alone(array, ("rank", LEAD)), leads, 3)
    width = max(2.6, min(4.2, 0.2 * array.sizes["rank"]))
    title = score_title(scores, name) if title is None else title
    figure = new_figure(0.5 + len(panels) * width, 2.9, title)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (label, share) in zip(axes, panels.items(), strict=True):
        ranks = share["rank"].values
        ax.axhspan(0.8, 1.2, color="0.93", zorder=0)
        ax.bar(ranks, share.values * len(ranks), width=0.86, color=BLUE, alpha=0.85, zorder=2)
        ax.axhline(1, color="0.25", linewidth=1, linestyle="--", zorder=3)
        ax.set_title(label, fontsize=TEXT, loc="left")
        ax.set_xlabel("Rank of truth", fontsize=TEXT)
        ax.set_xlim(-0.6, len(ranks) - 0.4)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        plain_axes(ax, "y")
        ax.grid(visible=False)
    axes[0].set_ylim(0, max(1.5, 1.08 * max(len(p) * float(p.max()) for p in panels.values())))
    axes[0].set_ylabel("Frequency (flat: 1)", fontsize=TEXT)
    return figure


def reliability_diagram(
    scores: xr.Dataset, *, variable: str | None = None, lead: Any = None, title: str | None = None
) -> Figure:
    """Draw how often an event came against the probability that was forecast for it.

    Parameters
    ----------
    scores : xarray.Dataset
        Of :func:`stforecast.evaluate` with :func:`stforecast.evaluation.reliability`.
    variable, title : str, optional
        Default: the first; the variable and the sample.
    lead : time difference, optional
        Default: all lead times together.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each threshold, with the share of cases in each class below it, on a logarithmic
        axis. Points in the grey area add to the Brier skill against the event's own frequency: they
        lie nearer to the diagonal than to that frequency (Wilks 2019, section 9.4.4).
    """
    name, array = _scores(scores, variable, "reliability", overall=lead is None)
    panels = _by_threshold(_alone(_at(array, lead), (THRESHOLD, "part", "probability")))
    title = score_title(scores, name) if title is None else title
    figure = new_figure(0.3 + 3.4 * len(panels), 4.6, title)
    axes = figure.subplots(
        2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=[3.4, 1]
    )
    for (above, below), (label, table) in zip(axes.T, panels.items(), strict=True):
        probability, frequency, share = table.transpose("part", ...).values
        there = share > 0
        base = float(np.sum(share[there] * frequency[there]) / share[there].sum())
        p = np.array([0.0, base, 1.0])
        worth = (p + base) / 2  # nearer to the diagonal than to the base rate
        above.fill_between(p[:2], 0, worth[:2], color="0.93", linewidth=0)
        above.fill_between(p[1:], worth[1:], 1, color="0.93", linewidth=0)
        above.plot([0, 1], [0, 1], color="0.35", linewidth=1)
        above.plot(p, worth, color="0.55", linewidth=0.9, linestyle=":")
        above.axhline(base, color="0.55", linewidth=0.9, linestyle="--")
        side, at = ("left", 0.005) if base > 0.5 else ("right", 0.995)  # where the curve is not
        style: dict[str, Any] = {"fontsize": SMALL, "color": "0.4", "ha": side, "va": "bottom"}
        above.text(at, base + 0.01, f"frequency {100 * base:.3g}%", **style)
        above.text(at, (round(at) + base) / 2 + 0.03, "no skill", **style)
        size = 18 + 90 * np.sqrt(share[there] / share[there].max())
        above.plot(probability[there], frequency[there], color=BLUE, linewidth=1.8, zorder=3)
        above.scatter(probability[there], frequency[there], size, color=BLUE, zorder=4)
        above.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
        above.set_box_aspect(1)
        above.set_title(label, fontsize=TEXT, loc="left", parse_math=False)
        classes = table["probability"].values
        bar = 0.8 * float(np.diff(classes).min()) if len(classes) > 1 else 0.1
        below.bar(classes, 100 * share, width=bar, color=BLUE, alpha=0.85)
        below.set_yscale("log")
        below.yaxis.set_major_formatter("{x:g}")
        below.set_xlabel("Forecast probability", fontsize=TEXT)
        for ax in (above, below):
            plain_axes(ax, "y")
    axes[0, 0].set_ylabel("Observed frequency", fontsize=TEXT)
    axes[1, 0].set_ylabel("Cases [%]", fontsize=TEXT)
    return figure


def roc_curve(
    scores: xr.Dataset, *, variable: str | None = None, lead: Any = None, title: str | None = None
) -> Figure:
    """Draw hits against false alarms of those who act on a forecast probability.

    Parameters
    ----------
    scores : xarray.Dataset
        Of :func:`stforecast.evaluate` with :func:`stforecast.evaluation.roc`.
    variable, title : str, optional
        Default: the first; the variable and the sample.
    lead : time difference, optional
        Default: all lead times together.

    Returns
    -------
    matplotlib.figure.Figure
        A line for each threshold, with the area under it; on the diagonal there is no skill.
    """
    name, array = _scores(scores, variable, "roc", overall=lead is None)
    curves = _by_threshold(_alone(_at(array, lead), (THRESHOLD, "rate", "warning")))
    figure = new_figure(5.2, 4.6, score_title(scores, name) if title is None else title)
    ax = figure.add_subplot()
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    ax.text(0.68, 0.64, "no skill", rotation=45, fontsize=SMALL, color="0.45", ha="center")
    for colour, (label, curve) in zip(COLOURS * len(curves), curves.items(), strict=False):
        false, hits = (
            np.append(curve.sel(rate=r).values, 0.0) for r in ("false_alarm_rate", "hit_rate")
        )
        area = float(np.sum((false[:-1] - false[1:]) * (hits[:-1] + hits[1:]) / 2))
        text = f"{label + ': ' if label else ''}area {area:.3f}"
        style: dict[str, Any] = {"linewidth": 2, "marker": "o", "markersize": 4, "clip_on": False}
        ax.plot(false, hits, color=colour, label=text, **style)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_box_aspect(1)
    ax.set_xlabel("False alarm rate", fontsize=TEXT)
    ax.set_ylabel("Hit rate", fontsize=TEXT)
    ax.legend(fontsize=SMALL, frameon=False, loc="lower right")
    plain_axes(ax)
    return figure


def power_spectrum(
    scores: xr.Dataset, *, variable: str | None = None, leads: Any = None, title: str | None = None
) -> Figure:
    """Draw the power of forecast and truth by wavenumber, and their ratio.

    Parameters
    ----------
    scores : xarray.Dataset
        Of :func:`stforecast.evaluate` with "spectrum" among the metrics.
    variable, title : str, optional
        Default: the first; the variable and the sample.
    leads : time difference or sequence of them, optional
        Default: four, from the first to the last; darker is later.

    Returns
    -------
    matplotlib.figure.Figure
        A ratio below 1 at high wavenumbers: the forecast is smoother than truth.
    """
    name, array = _scores(scores, variable, "spectrum")
    panels = _by_lead(_alone(array, ("field", "wavenumber", LEAD)), leads, 4)
    figure = new_figure(6.4, 5.4, score_title(scores, name) if title is None else title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    shades = np.linspace(0.35, 0.95, len(panels))
    from matplotlib import colormaps

    for i, (shade, (label, of)) in enumerate(zip(shades, panels.items(), strict=True)):
        waves = of["wavenumber"].values
        shown, colour = waves > 0, colormaps["Blues"](shade)  # the mean is no wave
        forecast, truth, ratio = of.transpose("field", ...).values[:, shown]
        if i == 0:
            above.loglog(waves[shown], truth, color="black", linewidth=1.6, label="Truth")
        above.loglog(waves[shown], forecast, color=colour, linewidth=1.8, label=label)
        below.semilogx(waves[shown], ratio, color=colour, linewidth=1.8)
    below.axhline(1, color="0.5", linewidth=0.8)
    below.set_ylim(0, max(1.4, min(2.5, 1.1 * float(np.nanmax(ratio)))))
    below.xaxis.set_major_formatter("{x:g}")
    below.set_xlabel("Wavenumber along a row", fontsize=TEXT)
    unit = unit_label(array.attrs.get("units")).replace("**2", "²")
    above.set_ylabel(f"Power{f' [{unit}]' if unit else ''}", fontsize=TEXT, parse_math=False)
    below.set_ylabel("Forecast / truth", fontsize=TEXT)
    above.legend(fontsize=SMALL, frameon=False, loc="lower left")
    for ax in (above, below):
        plain_axes(ax)
    return figure


def _scores(
    scores: xr.Dataset, variable: str | None, metric: str | None, overall: bool = False
) -> tuple[str, xr.DataArray]:
    """The variable, and its scores by lead time: those of a metric with dims of its own, or all."""
    require("matplotlib")
    if not isinstance(scores, xr.Dataset):
        raise InputError("expected scores of one forecast: what stforecast.evaluate gives")
    suffix, end = f"_{metric}" if metric else "", "_overall" if overall else ""
    known = [str(v)[: -len("_overall")] for v in scores.data_vars if str(v).endswith("_overall")]
    known = [v[: len(v) - len(suffix)] for v in known if v.endswith(suffix)]
    if metric is None:
        known = [v for v in known if v in scores and "metric" in scores[v].dims]
    name = variable if variable is not None else next(iter(known), None)
    if name not in known:
        what = f"scores {metric!r} of " if metric else ""
        raise InputError(f"there are no {what}{name!r}, found {list(map(str, scores.data_vars))}")
    return str(name), scores[f"{name}{suffix}{end}"]


def _alone(array: xr.DataArray, dims: tuple[str, ...]) -> xr.DataArray:
    """Of several weights the first; nothing else beside the dims of the diagram."""
    array = array.isel({d: 0 for d in array.dims if d == "weights"})
    beside = [str(d) for d in array.dims if d not in dims]
    if beside:
        raise InputError(
            f"a diagram shows scores of one sample, found also the dims {beside}: choose one, for "
            f"instance with scores.isel({beside[0]}=0)"
        )
    return array


def _at(array: xr.DataArray, lead: Any) -> xr.DataArray:
    if lead is None:
        return array
    return array.isel({LEAD: lead_positions(array[LEAD].values, lead)[0]})


def _by_lead(array: xr.DataArray, leads: Any, default: int) -> dict[str, xr.DataArray]:
    if LEAD not in array.dims:
        return {"all lead times": array}
    at = lead_positions(array[LEAD].values, leads, default)
    return {lead_label(array[LEAD].values[i]): array.isel({LEAD: i}) for i in at}


def _by_threshold(array: xr.DataArray) -> dict[str, xr.DataArray]:
    """Scores by threshold, with words for each: those of the scores, which name all of them."""
    words = str(array.attrs.get("thresholds", ""))
    if THRESHOLD not in array.dims:
        return {words: array}
    side = "below " if words.startswith("below") else "at or above "
    side += "quantile " * ("quantile" in words)
    labels = [side + number(float(t), 6) for t in array[THRESHOLD].values]
    return {label: array.isel({THRESHOLD: i}) for i, label in enumerate(labels)}
