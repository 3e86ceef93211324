"""Tables of scores for a terminal of 80 columns."""

from __future__ import annotations

import re
import textwrap

import numpy as np
import pandas as pd

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
