"""Tables of scores: of a comparison, and any for a terminal of 80 columns."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..evaluation import benchmark_table

WIDTH = 80
TABLE = "table.csv"  # the file of a benchmark's table
_BY_LEAD = re.compile(r"([^_]+)_(.+)_(\d+)min")  # rmse_inflow_30min
_MINUTES = (30, 60, 90, 120, 150, 240, 360)  # as many as a line holds


def to_lines(table: pd.DataFrame) -> str:
    """Write a table of scores: figures in the table, protocols below it, each once.

    Columns without a figure are left out; figures have four significant digits. Where the table is
    wider than a terminal, the longest names of columns are broken at their underscores. Scores by
    lead time (``rmse_inflow_30min``) have a part for each metric and variable, with as many lead
    times as a line holds.

    Parameters
    ----------
    table : pandas.DataFrame
        As of :func:`stforecast.evaluation.benchmark_table`.

    Returns
    -------
    str
        Lines of at most 80 letters, as far as the names of the models allow.
    """
    protocols = list(dict.fromkeys(table.get("protocol", pd.Series(dtype=str))))
    numbers = [f"({protocols.index(p) + 1})" for p in table.get("protocol", ())]
    figures = table.drop(columns="protocol", errors="ignore").dropna(axis=1, how="all")
    lines = []
    for head, part in _parts(figures):
        there = part.notna().any(axis=1).to_numpy() | (not head)
        kept = [number for number, yes in zip(numbers, there, strict=False) if yes]
        lines += [*([head] if head else []), *_fitted(part[there], kept), *([""] if head else [])]
    for i, protocol in enumerate(protocols, 1):
        lines += textwrap.wrap(f"({i}) {protocol}", WIDTH, subsequent_indent="    ")
    return "\n".join(lines)


def _parts(figures: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Tables of scores by lead time, one for each metric and variable; else the table itself."""
    found = {str(c): m for c in figures.columns if (m := _BY_LEAD.fullmatch(str(c)))}
    if not found:
        return [("", figures)]
    parts = []
    for metric, variable in dict.fromkeys((m[1], m[2]) for m in found.values()):
        names = {f"{metric}_{variable}_{m}min": f"{m / 60:g} h" for m in _MINUTES}
        columns = [name for name in names if name in found]
        if columns:
            parts.append((f"{variable}, {metric}", figures[columns].rename(columns=names)))
    return parts


def _fitted(figures: pd.DataFrame, numbers: list[str]) -> list[str]:
    """Lines of figures, with names of columns broken until they fit."""
    columns = {str(name): _aligned(values.to_numpy(float)) for name, values in figures.items()}
    names = ["", *map(str, figures.index)]
    heads = {name: [name] for name in columns}
    lines = _grid(names, columns, numbers, list(heads.values()))
    for name in sorted(columns, key=len, reverse=True):
        if max(map(len, lines)) > WIDTH:
            heads[name] = _broken(name)
            lines = _grid(names, columns, numbers, list(heads.values()))
    return lines


def _aligned(values: np.ndarray) -> list[str]:
    """Figures with four significant digits, points below points."""
    texts = [f"{v:.4g}" if abs(v) < 9999.5 else f"{v:.0f}" for v in values]
    texts = ["-" if np.isnan(v) else t for v, t in zip(values, texts, strict=True)]
    after = [len(t) - t.index(".") if "." in t else 0 for t in texts]
    return [t + " " * (max(after) - n) for t, n in zip(texts, after, strict=True)]


def _broken(name: str) -> list[str]:
    """A name in two lines, broken at the underscore that is nearest to its middle."""
    places = [i + 1 for i, letter in enumerate(name) if letter == "_"]
    at = min(places, key=lambda i: abs(2 * i - len(name)), default=0)
    return [name[:at], name[at:]] if at else [name]


def _grid(
    names: list[str], columns: dict[str, list[str]], numbers: list[str], heads: list[list[str]]
) -> list[str]:
    """Lines of a table: names to the left, figures to the right below their heads."""
    high = max(map(len, heads), default=1)
    heads = [[""] * (high - len(head)) + head for head in heads]
    cells = [[*head, *texts] for head, texts in zip(heads, columns.values(), strict=True)]
    cells = [[text.rjust(max(map(len, column))) for text in column] for column in cells]
    first = [""] * (high - 1) + names
    beside = [""] * high + numbers if numbers else [""] * len(first)
    first = [name.ljust(max(map(len, first))) for name in first]
    return ["  ".join(row).rstrip() for row in zip(first, *cells, beside, strict=True)]


def together(scores: Mapping[str, list[xr.Dataset]]) -> xr.Dataset:
    """Scores of all models and trials in one Dataset, NaN where a model has fewer trials.

    Parameters
    ----------
    scores : mapping of str to list of xarray.Dataset
        Of :func:`stforecast.evaluate`, by name, a Dataset a trial.

    Returns
    -------
    xarray.Dataset
        With the dims ``model`` and ``trial`` before those of the scores.
    """
    each = [
        xr.concat(list(trials), "trial", combine_attrs="drop_conflicts").assign_coords(
            trial=range(1, len(trials) + 1)
        )
        for trials in scores.values()
    ]
    how: dict[str, Any] = {"combine_attrs": "drop_conflicts", "join": "outer"}
    return xr.concat(each, pd.Index(list(scores), name="model"), **how)


def compared(
    published: str,
    scores: Mapping[str, list[xr.Dataset]],
    costs: Mapping[str, pd.DataFrame],
    sample: Mapping[str, str],
) -> pd.DataFrame:
    """Table of a comparison: means and standard deviations of trials, costs, published rows.

    Parameters
    ----------
    published : str
        Name of the published table.
    scores : mapping of str to list of xarray.Dataset
        As of :func:`together`.
    costs : mapping of str to pandas.DataFrame
        A row a trial; models without costs are left out.
    sample : mapping
        What the scores are of, as :func:`stforecast.evaluation.benchmark_table` takes it.

    Returns
    -------
    pandas.DataFrame
        Index ``model``; a metric by its column's name, ``METRIC_std`` beside it where there are
        several trials, ``trials``, the costs, ``protocol``.
    """
    rows = []
    for name, each in scores.items():
        found = [benchmark_table(published, {"one": one}).loc["one"] for one in each]
        figures = pd.DataFrame([row.drop("protocol") for row in found]).astype(float)
        row: dict[str, Any] = {"model": name}
        for column in figures.columns[figures.notna().any()]:
            row[column] = figures[column].mean()
            if len(figures) > 1:
                row[f"{column}_std"] = figures[column].std(ddof=1)
        row["trials"] = len(figures)
        if name in costs:
            row |= {str(key): value for key, value in costs[name].mean().items()}
        rows.append(row | {"protocol": f"ours: {found[0]['protocol']}"})
    ours = pd.DataFrame(rows).set_index("model")
    theirs = benchmark_table(published, sample=sample)
    # Speeds of another machine have columns of their own.
    speeds = {name: f"published_{name}" for name in ("seconds_per_epoch", "fps")}
    attrs, theirs = theirs.attrs, theirs.rename(columns=speeds)
    table = pd.concat([ours, theirs.dropna(axis=1, how="all")])
    last = [c for c in table.columns if c == "protocol"]
    table = table[[c for c in table.columns if c != "protocol"] + last]
    table.attrs = dict(attrs)
    return table
