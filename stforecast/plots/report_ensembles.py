"""Pictures of the ensembles among forecasts, in the report."""

from __future__ import annotations

import base64
import html
import logging
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.forms import with_members
from ..errors import InputError
from ..evaluation.scorecards import variables_of
from ..forecasting.ensemble import DIM
from .diagrams import (
    power_spectrum,
    rank_histogram,
    reliability_diagram,
    roc_curve,
    spread_skill,
)
from .members import member_stamps, plume, widest_place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
_DIAGRAMS: dict[str, tuple[Callable[..., Figure], str]] = {
    "rank_histogram": (rank_histogram, "how often truth has each rank among the members"),
    "reliability": (reliability_diagram, "how often an event came, by its forecast probability"),
    "roc": (roc_curve, "hits and false alarms of those who act on a probability"),
    "spectrum": (power_spectrum, "power by wavenumber"),
}


def ensemble_section(
    card: xr.Dataset, forecasts: Mapping[str, xr.Dataset], truth: xr.Dataset
) -> str:
    """Pictures of forecasts with members as a part of the page; nothing where there are none."""
    parts = []
    try:
        for words, figure in _pictures(card, forecasts, truth):
            stream = BytesIO()
            figure.savefig(stream, format="png", dpi=110, bbox_inches="tight", pad_inches=0.1)
            data = base64.b64encode(stream.getvalue()).decode()
            text = html.escape(words)
            parts.append(
                f'<figure class="picture"><figcaption>{text}</figcaption>'
                f'<img alt="{text}" src="data:image/png;base64,{data}"></figure>'
            )
    except (ImportError, InputError) as error:
        log.warning("pictures of ensembles are left out: %s", error)
    if not parts:
        return ""
    title = '<h2 id="members-title">How sure?</h2>'
    return f'<section aria-labelledby="members-title">{title}{"".join(parts)}</section>'


def _pictures(
    card: xr.Dataset, forecasts: Mapping[str, xr.Dataset], truth: xr.Dataset
) -> Iterator[tuple[str, Figure]]:
    """Pictures with words for each, of the first variable.

    Members at the point where they differ most and as maps, of the last initialisation with truth;
    then a diagram of every score of members that the scorecard has.
    """
    for model, forecast in forecasts.items():
        if with_members(forecast).sizes.get(DIM, 1) < 2 or "clip" in truth.coords:
            continue
        place = widest_place(forecast, truth)
        yield f"{model}: members where they differ most", plume(forecast, truth, place=place)
        yield f"{model}: members at the last lead time", member_stamps(forecast, truth)
        scores = card.sel(model=model)
        scores = scores.isel({d: 0 for d in ("weights", "region") if d in scores.dims})
        v = variables_of(card)[0]
        if LEAD in scores[v].dims and {"rmse", "spread_skill"} <= set(scores["metric"].values):
            words = f"{model}: spread of the members, error of their mean"
            yield words, spread_skill(scores, variable=v)
        for name, (draw, words) in _DIAGRAMS.items():
            if f"{v}_{name}" in scores and np.isfinite(scores[f"{v}_{name}_overall"]).any():
                yield f"{model}: {words}", draw(scores, variable=v)
