"""Forecasts beside each other and beside baselines: all of a scorecard, in one call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from .baselines import Climatology, climatology_at, conform
from .conventions import InputError, canonicalize, valid_times
from .regression import LinearRegression
from .report import write_report
from .scorecards import (
    BASELINES,
    mean_over_time,
    save_scores,
    scorecard,
    to_table,
    variables_of,
    verdicts,
)
from .windows import Task

if TYPE_CHECKING:
    pass

__all__ = ["baseline_forecasts", "compare_forecasts", "to_text", "write_results"]

log = logging.getLogger(__name__)

_LEAD = "prediction_timedelta"
_BLOCK = 2**26  # bytes of a block of a baseline's forecasts


def compare_forecasts(
    forecasts: Mapping[str, Any],
    truth: Any,
    *,
    metrics: str | Sequence[str] = ("rmse", "mae", "bias"),
    weights: str | Sequence[str] = ("area", "uniform"),
    nan: Literal["refuse", "mask"] = "refuse",
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
    from .evaluation import evaluate  # this module's command is its own

    options = {"metrics": metrics, "weights": weights, "nan": nan, **options}
    by_time = {
        name: evaluate(f, truth, by=("time", _LEAD), **options) for name, f in forecasts.items()
    }
    if nan == "refuse":
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


def write_results(
    card: xr.Dataset,
    forecasts: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    directory: Path,
    **report: Any,
) -> list[Path]:
    """Write a scorecard in all its forms.

    ``scores.nc``, ``scores.csv``, ``report.html`` and, where matplotlib is installed and scores are
    by lead time, ``METRIC_by_lead.png`` and ``scorecard.png`` of the first variable.

    Parameters
    ----------
    card : xarray.Dataset
        From :func:`compare_forecasts`.
    forecasts, truth
        What was scored.
    directory : Path
        Made if it is not there.
    **report
        For :func:`stforecast.report.write_report`.

    Returns
    -------
    list of Path
        What was written.
    """
    written = [*save_scores(card, directory)]
    metric = "rmse" if "rmse" in card["metric"].values else str(card["metric"].values[0])
    try:
        from . import maps

        figures = {f"{metric}_by_lead.png": maps.lead_curve, "scorecard.png": maps.scorecard}
        for name, draw in figures.items():
            written.append(maps.save(draw(card, metric=metric), directory / name))
    except ImportError as error:
        log.info("no pictures: %s", error)
    written.append(write_report(card, forecasts, truth, directory / "report.html", **report))
    return written


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
                    f"  {row['model']} vs {row['rival']}: {row['verdict']} "
                    f"({row['difference']:+.3g}, {level} interval {row['low']:+.3g} to "
                    f"{row['high']:+.3g}, p {_p(row['p_value'])}"
                    + (f", {row['leads']} leads)" if row["leads"] else ")")
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


# --- baselines ------------------------------------------------------------------------------------


def baseline_forecasts(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    train: xr.Dataset | None = None,
    climatology: xr.Dataset | None = None,
    input_steps: int = 12,
) -> dict[str, xr.Dataset]:
    """Make the baselines' forecasts of the same initialisations and lead times, lazily.

    Parameters
    ----------
    forecast : xarray.Dataset
        What they are to be compared with.
    truth : xarray.Dataset
        Persistence takes its value at the initialisation, linear regression those before.
    train : xarray.Dataset, optional
        Data of a period before: climatology and linear regression are fitted to it.
    climatology : xarray.Dataset, optional
        (hour, dayofyear, latitude, longitude), in place of one fitted to `train`.
    input_steps : int
        Of linear regression.

    Returns
    -------
    dict of str to xarray.Dataset
        "Persistence", "Climatology" and "LinearRegression", those that can be had; why another
        cannot is logged as a warning.
    """
    ours, _ = canonicalize(forecast)
    variables = [str(v) for v in ours.data_vars]
    theirs, _ = canonicalize(truth, variables)
    found = {}
    try:
        found["Persistence"] = _persistence(ours, theirs)
    except InputError as error:
        log.warning("going on without persistence: %s", error)
    task = _task(ours, input_steps)
    if climatology is None and train is not None and task is not None:
        try:
            climatology = Climatology.fit(train, task).dataset
        except InputError as error:
            log.warning("going on without climatology: %s", error)
    if climatology is not None:
        found["Climatology"] = _climatological(ours, conform(climatology, variables))
    if train is not None:
        try:
            if task is None:
                raise InputError("lead times are not 1, 2, 3... times one step")
            model = LinearRegression.fit(train, task)
            init_time = ours["time"].values
            steps = ours.sizes[_LEAD]
            found["LinearRegression"] = model.predict(
                _blocks(theirs, ours), init_time=init_time, steps=steps
            )
        except InputError as error:
            log.warning("going on without linear regression: %s", error)
    return found


def _task(forecast: xr.Dataset, input_steps: int) -> Task | None:
    """The task that a forecast is of; None where its lead times are no multiples of the first."""
    lead = forecast[_LEAD].values
    if lead[0] <= np.timedelta64(0) or np.any(lead != lead[0] * np.arange(1, len(lead) + 1)):
        return None
    variables = tuple(str(v) for v in forecast.data_vars)
    return Task(variables, input_steps, len(lead), timestep=str(pd.Timedelta(lead[0])))


def _block(forecast: xr.Dataset) -> int:
    """Initialisations in a block of a baseline's forecasts."""
    size = forecast[str(next(iter(forecast.data_vars)))]
    return max(1, _BLOCK // max(1, 4 * size.size // size.sizes["time"]))


def _blocks(truth: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    return truth if truth.chunks else truth.chunk(time=max(64, _block(forecast)))


def _like(forecast: xr.Dataset, fields: xr.Dataset, source: str) -> xr.Dataset:
    """Dims and coordinates of a forecast, with other fields."""
    out = fields.transpose("time", _LEAD, ...).assign_coords(forecast.coords)
    for v in out.data_vars:
        out[v].attrs = dict(forecast[v].attrs)
    return out.assign_attrs(source=source)


def _persistence(forecast: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    at = truth.indexes["time"].get_indexer(forecast.indexes["time"])
    if np.any(at < 0):
        lost = forecast["time"].values[at < 0]
        raise InputError(f"truth lacks {lost.size} of the initialisation times, first {lost[0]}")
    start = _blocks(truth, forecast).isel(time=at).drop_vars("valid_time", errors="ignore")
    start = start.chunk(time=_block(forecast))
    fields = start.expand_dims({_LEAD: forecast[_LEAD].values})
    return _like(forecast, fields, "truth at the initialisation, kept")


def _climatological(forecast: xr.Dataset, climatology: xr.Dataset) -> xr.Dataset:
    import dask.array as da

    valid = valid_times(forecast["time"].values, forecast[_LEAD].values)
    n = _block(forecast)
    climatology = climatology.compute()
    fields = {}
    for v in forecast.data_vars:
        one = climatology[[v]]

        def look_up(times: np.ndarray, one: xr.Dataset = one, v: Any = v) -> np.ndarray:
            return climatology_at(one, times[..., 0, 0])[v].values

        space = forecast[v].shape[2:]
        times = da.from_array(valid[..., None, None], chunks=(n, -1, 1, 1))
        values = da.map_blocks(
            look_up,
            times,
            dtype=one[v].dtype,
            chunks=(times.chunks[0], times.chunks[1], (space[0],), (space[1],)),
            meta=np.empty((0, 0, 0, 0), one[v].dtype),
        )
        fields[v] = (forecast[v].dims, values)
    return _like(forecast, xr.Dataset(fields), "climatology at the valid time")
