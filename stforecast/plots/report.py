"""One page that shows how forecasts did: maps by lead time, curves, tables and where all came from.

The page is a single file without a link to anything: it opens from disk, years from now, without a
network. Maps are drawn by the browser from the data themselves, which are in the page.
"""

from __future__ import annotations

import html
import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..errors import InputError
from ..evaluation.scorecards import BASELINES, variables_of, verdicts
from ..files import replacing
from ..package import __version__
from .labels import lead_label, number, variable_label
from .report_maps import map_data, rounded

__all__ = ["write_report"]

log = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).with_name("report.html")
_PACKAGES = ("stforecast", "xarray", "numpy", "torch", "dask", "zarr")
# Colours from low to high: viridis, and for differences ColorBrewer's RdBu.
_SEQUENTIAL = (
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 "
    "84d44b addc30 d8e219 fde725"
)
_DIVERGING = (
    "053061 124984 2065ab 327cb7 4393c3 6bacd1 90c4dd b1d5e7 d1e5f0 e4eef4 f7f6f6 fae9df fddbc7 "
    "f8bfa4 f3a481 e48066 d6604d c43b3c b1182b 8a0b25 67001f"
)


def write_report(
    card: xr.Dataset,
    forecasts: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    training: Mapping[str, Mapping[str, Any]] | None = None,
    about: Mapping[str, Any] | None = None,
    initialisations: int = 4,
    max_bytes: int = 3 * 2**20,
) -> Path:
    """Write a scorecard, with maps of the forecasts, as one self-contained HTML page.

    Parameters
    ----------
    card : xarray.Dataset
        From :func:`stforecast.evaluation.scorecard`; with intervals where it was given scores by
        initialisation.
    forecasts : mapping of str to xarray.Dataset
        What was scored, by the card's names of models, (time, prediction_timedelta, latitude,
        longitude) or (…, y, x). Of each only the initialisations shown are read. May be some of
        the models only, or empty: then there are no maps.
    truth : xarray.Dataset
        What they were scored against, (time, latitude, longitude).
    path : path-like
        The file to write, ``report.html`` say. It appears whole or not at all.
    title : str, optional
        Heading. Default: the variables.
    training : mapping of str to mapping, optional
        How models were trained, by their name: ``Forecaster.training``.
    about : mapping, optional
        More facts on the data or the run.
    initialisations : int
        How many forecasts to show as maps, spread evenly over the sample.
    max_bytes : int
        Limit of the maps' data in the page. A sample that needs more is shown with fewer
        initialisations and leads, then on a coarser grid; the page says so. Scores are not touched.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If `card` is no scorecard, a forecast is of no model in it or does not fit `truth`, or the
        file cannot be written.
    """
    if "model" not in card.dims or "metric" not in card.coords:
        raise InputError('expected a scorecard; make one with scorecard({"name": scores})')
    models = [str(m) for m in card["model"].values]
    unknown = [name for name in forecasts if name not in models]
    if unknown:
        raise InputError(f"forecasts of {unknown} are not in the scorecard of {models}")
    data = {
        **_scores(card),
        "baselines": [m for m in models if m in BASELINES],
        "maps": map_data(forecasts, truth, initialisations, max_bytes) if forecasts else None,
        "sequential": _SEQUENTIAL.split(),
        "diverging": _DIVERGING.split(),
    }
    names = ", ".join(v["label"] for v in data["variables"])
    heading = title or f"Forecasts of {names}"
    text = _TEMPLATE.read_text(encoding="utf-8")
    for mark, value in (
        ("TITLE", html.escape(heading)),
        ("SUMMARY", _summary(card)),
        ("PROVENANCE", _provenance(card, forecasts, truth, training or {}, about or {})),
        # No tag may open in a script; JSON has another way to write the letter.
        ("DATA", json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")),
    ):
        text = text.replace(f"%%{mark}%%", value)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


# --- scores ---------------------------------------------------------------------------------------


def _scores(card: xr.Dataset) -> dict[str, Any]:
    """Scores for the page: every array has the dims weights, region and lead."""
    variables = variables_of(card)
    by_lead = bool(variables) and LEAD in card[variables[0]].dims
    policy = str(card.attrs.get("weights", "uniform"))
    out: dict[str, Any] = {
        "models": card["model"].values.tolist(),
        "metrics": card["metric"].values.tolist(),
        "weights": card["weights"].values.tolist() if "weights" in card.dims else [policy],
        "regions": card["region"].values.tolist() if "region" in card.dims else [""],
        "references": card["reference"].values.tolist() if "reference" in card.dims else [],
        "leads": (card[LEAD].values / np.timedelta64(1, "h")).tolist() if by_lead else [],
        "leadLabels": [lead_label(x) for x in card[LEAD].values] if by_lead else [],
        "intervals": str(card.attrs.get("intervals", "none: scores by initialisation are needed")),
        "intervalMetric": str(card.attrs.get("interval_metric", "rmse")),
        "level": float(card.attrs.get("interval_level", 0.95)),
        "variables": [],
    }
    for v in variables:
        entry: dict[str, Any] = {
            "name": v,
            "label": variable_label(card[v]),
            "units": {m: card[v].attrs.get(f"units_{m}", "") for m in out["metrics"]},
        }
        for key, name, front in (
            ("scores", v, ("model", "metric")),
            ("skill", f"{v}_skill", ("model", "reference")),
            ("difference", f"{v}_difference", ("model", "other_model", "quantity")),
        ):
            for suffix, ending in (("", ""), ("Overall", "_overall")):
                lead = () if suffix else (LEAD,)
                if name + ending in card and set(lead) <= set(card[name + ending].dims):
                    entry[key + suffix] = _nested(card[name + ending], front, lead)
        out["variables"].append(entry)
    return out


def _nested(array: xr.DataArray, front: Sequence[str], lead: Sequence[str]) -> Any:
    missing = [d for d in ("weights", "region") if d not in array.dims]
    array = array.expand_dims(missing).transpose(*front, "weights", "region", *lead)
    return np.vectorize(rounded, otypes=[object])(array.values).tolist()


# --- words ----------------------------------------------------------------------------------------


def _summary(card: xr.Dataset) -> str:
    """What the scores come to, in sentences."""
    attrs = card.attrs
    n = int(attrs.get("initialisations", 0))
    a, b = (str(attrs.get(f"{end}_initialisation", "?")) for end in ("first", "last"))
    text = f"{n} initialisation{'s' * (n != 1)} from {a} to {b}, grid {attrs.get('grid', '?')}."
    level = f"{float(attrs.get('interval_level', 0.95)):.0%}"
    metric = str(attrs.get("interval_metric", "rmse"))
    variables = variables_of(card)
    policy = card["weights"].values[0] if "weights" in card.dims else attrs.get("weights", "?")
    place = f", {card['region'].values[0]}" if "region" in card.dims else ""
    items = []
    for v in variables:
        of = f" in {variable_label(card[v])}" if len(variables) > 1 else ""
        unit = str(card[v].attrs.get(f"units_{metric}", ""))
        unit = "" if unit in ("", "1", "unknown") else f" {unit}"
        for row in verdicts(card, variable=v).reset_index().to_dict("records"):
            if row["model"] in BASELINES:
                continue
            does = {"better": "beats", "worse": "is beaten by"}
            verb = does.get(str(row["verdict"]), "cannot be told from")
            p = "p < 0.001" if row["p_value"] < 0.001 else f"p = {row['p_value']:.3f}"
            leads = f"; the same at {row['leads']} lead times taken singly" if row["leads"] else ""
            low, high = _signed(row["low"]), _signed(row["high"])
            numbers = (
                f"{of}: {metric.upper()} {_signed(row['difference'])}{unit}, {level} interval "
                f"{low} to {high}, {p} ({policy} weights{place}; all lead times together"
                f"{leads if verb in does.values() else ''})."
            )
            heading = html.escape(f"{row['model']} {verb} {row['other_model']}")
            items.append(f"<li><strong>{heading}</strong>{html.escape(numbers)}</li>")
    return f"<p>{html.escape(text)}</p>" + (f"<ul>{''.join(items)}</ul>" if items else "")


def _signed(value: float) -> str:
    return number(value, sign="+") if value else "0"


def _provenance(
    card: xr.Dataset,
    forecasts: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    training: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
) -> str:
    """Where data, models and scores came from, as lists of terms and what is said of them."""
    parts = [("This run", about), ("Truth", truth.attrs)]
    parts += [(f"Training: {name}", known) for name, known in training.items()]
    parts += [("Scores", card.attrs)]
    parts += [(f"Forecast: {name}", f.attrs) for name, f in forecasts.items()]
    versions = {"python": platform.python_version(), "stforecast": __version__}
    for name in _PACKAGES[1:]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    parts.append(("Software", versions))
    out = []
    for heading, terms in parts:
        rows = "".join(
            f"<dt>{html.escape(str(key))}</dt><dd>{html.escape(str(value))}</dd>"
            for key, value in _flat(terms)
        )
        if rows:
            out.append(f"<section><h3>{html.escape(heading)}</h3><dl>{rows}</dl></section>")
    return "".join(out)


def _flat(terms: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as one list of terms."""
    out: list[tuple[str, Any]] = []
    for key, value in terms.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            out += _flat(value, f"{name}: ")
        elif value is not None and str(value) != "":
            out.append((name, value))
    return out
