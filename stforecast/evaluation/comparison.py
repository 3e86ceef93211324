"""Forecasts beside each other and beside baselines: all of a scorecard, in one call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import xarray as xr

from ..conventions.axes import LEAD
from ..errors import InputError
from .scorecards import BASELINES, mean_over_time, scorecard, to_table, variables_of, verdicts

log = logging.getLogger(__name__)
_TURNED = {"better": "worse", "worse": "better"}


def compare_forecasts(
    forecasts: Mapping[str, Any],
    truth: Any,
    *,
    metrics: str | Sequence[str] = ("rmse", "mae", "bias"),
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
        As of :func:`stforecast.evaluate`; by default with both kinds of weights.
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

    options = {"metrics": metrics, "weights": weights, "nan": nan, **options}
    options["allow_overlap"] = allow_overlap
    if options.get("where") is not None:
        scored = {name: evaluate(f, truth, **options) for name, f in forecasts.items()}
        words = "none: initialisations have different numbers of points where scores are taken"
        return scorecard(scored).assign_attrs(intervals=words)
    by_time = {
        name: evaluate(f, truth, by=("time", LEAD), **options) for name, f in forecasts.items()
    }
    # The mean over initialisations of a metric of one's own need not be that of all of them.
    own = not isinstance(metrics, str) and not all(isinstance(m, str) for m in metrics)
    if nan == "refuse" and not own:
        scores = {name: mean_over_time(s) for name, s in by_time.items()}
    else:  # initialisations with more points weigh more
        scores = {name: evaluate(f, truth, **options) for name, f in forecasts.items()}
    try:
        return scorecard(scores, by_time=by_time)
    except InputError as error:
        if nan == "refuse":
            raise
        log.warning("no intervals: %s", error)
        return scorecard(scores).assign_attrs(intervals=f"none: {error}")


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
