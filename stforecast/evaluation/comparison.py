"""Forecasts beside each other and beside baselines: all of a scorecard, in one call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.forms import as_dataset, with_members
from ..errors import InputError
from .metrics import MEMBERS, METRICS, Metric
from .scorecards import BASELINES, mean_over_time, scorecard, to_table, variables_of, verdicts

log = logging.getLogger(__name__)
_OWN = ("rank_histogram", "spectrum")  # have dims of their own
_TURNED = {"better": "worse", "worse": "better"}


def compare_forecasts(
    forecasts: Mapping[str, Any],
    truth: Any,
    *,
    metrics: str | Metric | Sequence[str | Metric] = ("rmse", "mae", "bias"),
    weights: str | Sequence[str] = ("area", "uniform"),
    nan: Literal["refuse", "mask"] = "refuse",
    allow_overlap: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Score forecasts against the same truth, with intervals of their differences.

    Parameters
    ----------
    forecasts : mapping of str to xarray.Dataset
        By name. "Persistence", "Climatology" and "LinearRegression" are what the others are held
        against.
    truth : xarray.Dataset
    metrics, weights, nan, **options
        As of :func:`stforecast.evaluate`; by default with both kinds of weights. Metrics of all
        members, of which a forecast without members has no score, are NaN for such a one.
    allow_overlap : bool
        Compare models on times that one of them was trained on, which is refused otherwise.

    Returns
    -------
    xarray.Dataset
        From :func:`stforecast.evaluation.scorecard`, with intervals where there are enough
        initialisations.

    Raises
    ------
    InputError
        As of :func:`stforecast.evaluate`.
    """
    from .evaluate import evaluate

    options = {"weights": weights, "nan": nan, **options, "allow_overlap": allow_overlap}
    asked = [metrics] if isinstance(metrics, (str, Metric)) else list(metrics)

    def scores_of(wanted: Sequence[str | Metric], by: Sequence[str]) -> dict[str, xr.Dataset]:
        suited = {name: _suited(wanted, f) for name, f in forecasts.items()}
        found = {
            name: evaluate(f, truth, metrics=suited[name], by=by, **options)
            for name, f in forecasts.items()
        }
        whole = next((s for n, s in found.items() if len(suited[n]) == len(wanted)), None)
        return found if whole is None else {n: _filled(s, whole) for n, s in found.items()}

    if options.get("where") is not None:
        words = "none: initialisations have different numbers of points where scores are taken"
        return scorecard(scores_of(asked, (LEAD,))).assign_attrs(intervals=words)
    # The mean over initialisations of a metric need not be that of all of them.
    means = all(isinstance(m, str) and m not in ("spread_skill", *_OWN) for m in asked)
    errors = [m for m in asked if means or m in ("rmse", "mse", "mae")]
    if not errors:
        words = "none: they need rmse, mse or mae among the metrics"
        return scorecard(scores_of(asked, (LEAD,))).assign_attrs(intervals=words)
    by_time = scores_of(errors, ("time", LEAD))
    if nan == "refuse" and means:
        scores = {name: mean_over_time(s) for name, s in by_time.items()}
    else:  # initialisations with more points weigh more
        scores = scores_of(asked, (LEAD,))
    try:
        return scorecard(scores, by_time=by_time)
    except InputError as error:
        if nan == "refuse":
            raise
        log.warning("no intervals: %s", error)
        return scorecard(scores).assign_attrs(intervals=f"none: {error}")


def _suited(metrics: Sequence[str | Metric], forecast: Any) -> list[str | Metric]:
    """Leave out metrics of all members, where a forecast has none and that is not one member."""
    if MEMBERS in with_members(as_dataset(forecast)).dims:
        return list(metrics)
    known = [(m, m if isinstance(m, Metric) else METRICS.get(m)) for m in metrics]
    return [m for m, k in known if k is None or MEMBERS not in k.dims or k.single]


def _filled(scores: xr.Dataset, whole: xr.Dataset) -> xr.Dataset:
    """Add the scores that a forecast without members has not, as NaN."""
    if "metric" in whole.dims:
        scores = scores.reindex(metric=whole["metric"])
        for v in scores.data_vars:
            scores[v].attrs = whole[v].attrs | scores[v].attrs
    lacking = [v for v in whole.data_vars if v not in scores]
    scores = scores.assign({v: xr.full_like(whole[v], np.nan) for v in lacking})
    return scores[list(whole.data_vars)]


def to_text(card: xr.Dataset, *, metric: str | None = None) -> str:
    """Write a scorecard for a terminal: scores by lead time and overall, then what they mean.

    Parameters
    ----------
    card : xarray.Dataset
        From :func:`compare_forecasts`.
    metric : str, optional
        Default: "rmse" if it is there, else the first.

    Returns
    -------
    str
        A table for each variable and region; where there are several kinds of weights, by lead time
        with the first, and overall with each, named.
    """
    have = card["metric"].values.tolist()
    metric = metric or ("rmse" if "rmse" in have else have[0])
    kinds = card["weights"].values.tolist() if "weights" in card.dims else [None]
    regions = card["region"].values.tolist() if "region" in card.dims else [None]
    parts = []
    for v in variables_of(card):
        for region in regions:
            tables = [
                to_table(card, variable=v, metric=metric, weights=w, region=region) for w in kinds
            ]
            shown = tables[0].copy()
            if len(tables) > 1:
                overall = {
                    f"overall, {w}": t["overall"] for w, t in zip(kinds, tables, strict=True)
                }
                shown = shown.drop(columns="overall").assign(**overall)
                shown.columns.name = tables[0].columns.name
            parts.append(shown.to_string())
            told = verdicts(card, variable=v, weights=kinds[0], region=region)
            if len(told):
                of = card.attrs["interval_metric"]
                level = f"{card.attrs['interval_level']:.0%}"
                lines = [
                    f"  {row['model']} vs {row['other_model']}: {row['verdict']} "
                    f"({row['difference']:+.3g}, {level} interval {row['low']:+.3g} to "
                    f"{row['high']:+.3g}, p {_p(row['p_value'])}"
                    + (f", {row['leads']} leads)" if row["leads"] else ")")
                    + (f"; {_TURNED[row['verdict']]} at {row['against']}" if row["against"] else "")
                    for row in told.reset_index().to_dict("records")
                    if row["model"] not in BASELINES
                ]
                named = f"{v} {of}, {kinds[0] or card.attrs.get('weights')} weights"
                named += f", {region}" * (region is not None)
                if lines:
                    parts.append("\n".join([f"Differences of {named}:", *lines]))
    parts.append(f"Intervals: {card.attrs.get('intervals', 'none')}")
    return "\n\n".join(parts)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
