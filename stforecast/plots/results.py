"""Everything that is written of a scorecard: tables, pictures, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from ..evaluation.scorecards import save_scores
from .curves import lead_curve, scorecard
from .layout import save
from .report import named_plainly, write_report

log = logging.getLogger(__name__)


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
        For :func:`stforecast.plots.report.write_report`.

    Returns
    -------
    list of Path
        What was written.
    """
    known = report.pop("training", None) or {}
    card, forecasts, report["training"] = named_plainly(card, forecasts, known)
    written = [*save_scores(card, directory)]
    metric = "rmse" if "rmse" in card["metric"].values else str(card["metric"].values[0])
    try:
        figures = {f"{metric}_by_lead.png": lead_curve, "scorecard.png": scorecard}
        for name, draw in figures.items():
            written.append(save(draw(card, metric=metric), directory / name))
    except ImportError as error:
        log.info("no pictures: %s", error)
    written.append(write_report(card, forecasts, truth, directory / "report.html", **report))
    return written
