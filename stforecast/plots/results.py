"""Everything that is written of a scorecard: tables, pictures, report."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from ..conventions.axes import LEAD
from ..evaluation.aggregation import FRAMES
from ..evaluation.scorecards import save_scores
from .clips import clip_strip, is_clip
from .curves import lead_curve, scorecard
from .fields import forecast_panel
from .layout import save
from .maps import error_map
from .report import named_plainly, write_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def write_results(
    card: xr.Dataset,
    forecasts: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    directory: Path,
    *,
    fields: bool = False,
    **report: Any,
) -> list[Path]:
    """Write a scorecard in all its forms.

    ``scores.nc``, ``scores.csv``, ``report.html`` and, where matplotlib is installed and scores are
    by lead time, ``METRIC_by_lead.png`` and ``scorecard.png`` of whole frames, where these were
    scored, else of the first variable.

    Parameters
    ----------
    card : xarray.Dataset
        From :func:`compare_forecasts`.
    forecasts, truth
        What was scored.
    directory : Path
        Made if it is not there.
    fields : bool
        Draw forecasts too: ``clips.png``, where they are of one variable or of colours on clips;
        else ``maps.png`` and ``error.png`` of the first one, by variable where it has several.
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
    whole: dict[str, Any] = {"metric": metric, "variable": FRAMES if FRAMES in card else None}
    try:
        if card.sizes.get(LEAD, 1) > 1:
            figure = lead_curve(card, **whole)
            written.append(save(figure, directory / f"{metric}_by_lead.png"))
        written.append(save(scorecard(card, **whole), directory / "scorecard.png"))
        for name, figure in _fields(forecasts, truth) if fields else ():
            written.append(save(figure, directory / name))
    except ImportError as error:
        log.info("no pictures: %s", error)
    written.append(write_report(card, forecasts, truth, directory / "report.html", **report))
    return written


def _fields(forecasts: Mapping[str, xr.Dataset], truth: xr.Dataset) -> Iterator[tuple[str, Figure]]:
    """Pictures of forecasts, by the names of their files."""
    first = next(iter(forecasts.values()))
    variables = [str(v) for v in first.data_vars]
    if is_clip(first, truth):
        yield "clips.png", clip_strip(forecasts, truth)
        return
    for v in variables:
        suffix = f"_{v}" if len(variables) > 1 else ""
        yield f"maps{suffix}.png", forecast_panel(first, truth, variable=v)
        yield f"error{suffix}.png", error_map(first, truth, variable=v)
