"""One page that shows how forecasts did: maps by lead time, curves, tables and where all came from.

The page is a single file without a link to anything: it opens from disk, years from now, without a
network. Maps are drawn by the browser from the data themselves, which are in the page.
"""

from __future__ import annotations

import html
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
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
from .colours import STOPS
from .labels import lead_label, number, plain, unit_label, variable_label
from .report_ensembles import ensemble_section
from .report_maps import map_data, rounded

__all__ = ["write_report"]

_TEMPLATE = Path(__file__).with_name("report.html")
_PACKAGES = ("stforecast", "xarray", "numpy", "torch", "dask", "zarr")


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
        longitude) or (…, y, x); with ``realization`` the members are drawn, too. Of each only the
        initialisations shown are read. May be some of the models only, or empty: then there are no
        maps.
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
    card, forecasts, training = named_plainly(card, forecasts, training or {})
    models = [str(m) for m in card["model"].values]
    unknown = [name for name in forecasts if name not in models]
    if unknown:
        raise InputError(f"forecasts of {unknown} are not in the scorecard of {models}")
    data = {
        **_scores(card),
        "baselines": [m for m in models if m in BASELINES],
        "maps": map_data(forecasts, truth, initialisations, max_bytes) if forecasts else None,
        "diverging": STOPS["RdBu_r"].split(),
    }
    names = ", ".join(v["label"] for v in data["variables"])
    parts = {
        "TITLE": html.escape(plain(title or f"Forecasts of {names}", 200)),
        "SUMMARY": _summary(card),
        "MEMBERS": ensemble_section(card, forecasts, truth),
        "PROVENANCE": _provenance(card, forecasts, truth, training, about or {}),
        "WRITTEN": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        # No tag may open in a script; JSON has another way to write the letter.
        "DATA": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    # In one pass: what is put in may look like a mark.
    text = re.sub("%%([A-Z]+)%%", lambda mark: parts[mark[1]], _TEMPLATE.read_text("utf-8"))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def named_plainly(card: xr.Dataset, *named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give models names that every file and page can hold, in a scorecard and in mappings."""
    given = [str(m) for m in card["model"].values]
    short = [plain(m, 100) for m in given]
    names = dict(zip(given, short, strict=True))
    if len(set(short)) < len(short):
        names = {m: f"{names[m]} ({i})" for i, m in enumerate(given, 1)}
    dims = [d for d in ("model", "other_model", "reference") if d in card.dims]
    card = card.assign_coords({d: [names[str(m)] for m in card[d].values] for d in dims})
    arrays: list[Any] = [card, *card.variables.values()]
    for array in arrays:
        array.attrs = {
            k: plain(v, 10_000) if isinstance(v, str) else v for k, v in array.attrs.items()
        }
    return card, *({names.get(m, m): what for m, what in one.items()} for one in named)


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
            "units": {m: unit_label(card[v].attrs.get(f"units_{m}")) for m in out["metrics"]},
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
    text += f" Only points where {attrs['where']} are scored." if "where" in attrs else ""
    policy = card["weights"].values[0] if "weights" in card.dims else attrs.get("weights", "?")
    place = f", {card['region'].values[0]}" if "region" in card.dims else ""
    items = []
    for v in variables_of(card):
        for row in verdicts(card, variable=v).reset_index().to_dict("records"):
            if row["model"] not in BASELINES:
                items.append(_verdict(card, v, row, f"{policy} weights{place}"))
    return f"<p>{html.escape(text)}</p>" + (f"<ul>{''.join(items)}</ul>" if items else "")


def _verdict(card: xr.Dataset, v: str, row: Mapping[Any, Any], weights: str) -> str:
    """How one model stands to another: how large the errors are, then how sure that is."""
    ours, theirs, metric = row["model"], row["other_model"], str(card.attrs["interval_metric"])
    does = {"better": "beats", "worse": "is beaten by"}
    verb = does.get(str(row["verdict"]), "cannot be told from")
    unit = unit_label(card[v].attrs.get(f"units_{metric}"))
    unit = f" {unit}" if unit else ""
    first = {d: 0 for d in ("weights", "region") if d in card.dims}
    heading, size = f"{ours} {verb} {theirs}", ""
    if metric in card["metric"].values:
        scores = card[f"{v}_overall"].isel(first).sel(metric=metric)
        a, b = (float(scores.sel(model=m)) for m in (ours, theirs))
        if verb in does.values() and b > 0:
            share = abs(1 - a / b)
            heading += f": {share:.{int(share < 0.1)}%} {'smaller' if a < b else 'larger'} error"
        size = f" {metric.upper()} {number(a)}{unit} against {number(b)}{unit}."
    of = f" in {variable_label(card[v])}" if len(variables_of(card)) > 1 else ""
    p = "p < 0.001" if row["p_value"] < 0.001 else f"p = {row['p_value']:.3f}"
    leads = f"; the same at {row['leads']} lead times, corrected for their number"
    leads = leads if row["leads"] and verb in does.values() else ""
    word = "worse" if row["verdict"] == "better" else "better"
    against = f"; {word} at {row['against']}" if row["against"] else ""
    low, high = _signed(row["low"]), _signed(row["high"])
    sure = (
        f"Difference {_signed(row['difference'])}{unit}, "
        f"{float(card.attrs.get('interval_level', 0.95)):.0%} interval {low} to {high}, {p} "
        f"({weights}; all lead times together{leads}{against})."
    )
    return (
        f"<li><strong>{html.escape(heading)}</strong>{html.escape(of)}.{html.escape(size)} "
        f'<span class="note">{html.escape(sure)}</span></li>'
    )


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
            f"<dt>{html.escape(key)}</dt><dd>{html.escape(plain(value, 2000))}</dd>"
            for key, value in _flat(terms)
        )
        if rows:
            out.append(f"<section><h3>{html.escape(plain(heading))}</h3><dl>{rows}</dl></section>")
    return "".join(out)


def _flat(terms: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as one list of terms."""
    out: list[tuple[str, Any]] = []
    for key, value in terms.items():
        name = plain(f"{before}{key}").replace("_", " ")
        if isinstance(value, Mapping):
            out += _flat(value, f"{name}: ")
        elif value is not None and str(value) != "":
            out.append((name, value))
    return out
