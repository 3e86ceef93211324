"""The published figures of the SimVPv2 paper's benchmarks, beside one's own.

The figures are in ``published.json``: by benchmark, its ``columns`` and its ``tables``, from a
protocol to rows by model. A column holds one measure only: columns bear the names of
:func:`stforecast.evaluate`'s metrics (``ssim_paper`` is not ``ssim``, ``rmse_area`` not ``rmse``),
and what cannot be had in a column's measure stays empty there. What a column cannot tell (years,
epochs, how the best weights were chosen) stands in ``protocol``, row by row. ``of`` says what the
rows are of: data, grid and test, each as a pipeline writes it; other scores do not compare with
them. Where ``other_tests`` has a protocol, its rows are of these tests instead, and the protocol
says so: they stand beside scores of either. ``dated`` benchmarks have dates (of weather and
traffic) as initialisations, the others only numbers (of clips).

A benchmark ``by_lead`` has a column for each metric, variable and lead time: ``rmse_inflow_30min``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD
from ..errors import InputError
from .metrics import METRICS

# What tables print for our metrics: name of the column: (metric, factor).
_SCALED = {"mse_x100": ("mse_sum", 100.0), "lpips_x100": ("lpips", 100.0)}
_OTHERS = ("gflops", "seconds_per_epoch", "fps")  # of the network, not of its forecasts


@cache
def _published() -> dict[str, dict[str, Any]]:
    path = resources.files("stforecast.evaluation") / "published.json"
    return json.loads(path.read_text("utf-8"))


def _entry(name: str) -> dict[str, Any]:
    if name not in _published():
        raise InputError(f"there is no benchmark {name!r}; there are {', '.join(_published())}")
    return _published()[name]


def benchmark_names() -> list[str]:
    """Names of the paper's benchmarks; :func:`benchmark_table` knows "nyc_dsan" too."""
    return [name for name, entry in _published().items() if not entry.get("by_lead")]


def not_comparable(name: str, sample: Mapping[str, str]) -> str | None:
    """Say why scores do not compare with the published ones of a benchmark.

    Parameters
    ----------
    name : str
        Of the benchmark.
    sample : mapping
        What was scored: ``"data"``, ``"grid"`` and ``"test"``, in words.

    Returns
    -------
    str or None
        One line; None where data, grid and test are the publication's.

    Examples
    --------
    >>> not_comparable("taxibj", {"data": "NYTaxi", "grid": "16 x 12", "test": "2016-03-13"})[:48]
    'not comparable: NYTaxi 16 x 12, test 2016-03-13,'
    """
    of = _entry(name)["of"]
    if _is_of(sample, of):
        return None
    same_test = sample["test"] in of["test"]
    words = [
        f"{data} {grid}" + ("" if same_test else f", test {test}")
        for data, grid, test in (
            (sample["data"], sample["grid"], sample["test"]),
            (of["data"], of["grid"], " or ".join(of["test"])),
        )
    ]
    models = dict.fromkeys(m for table in _entry(name)["tables"].values() for m in table)
    return (
        f"not comparable: {words[0]}, published for {words[1]} ({len(models)} models, "
        f"stforecast.evaluation.benchmark_table({name!r}))"
    )


def _is_of(sample: Mapping[str, str], of: Mapping[str, Any]) -> bool:
    same = all(sample[key] == of[key] for key in ("data", "grid"))
    return same and sample["test"] in of["test"]


def benchmark_table(
    name: str,
    results: Mapping[str, xr.Dataset | Mapping[str, Any]] | None = None,
    *,
    sample: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Put this run's scores beside the published ones of a benchmark.

    Parameters
    ----------
    name : str
        "weatherbench_t2m", "taxibj", "moving_mnist", "kth_10_20", "kth_10_40", "caltech",
        "robonet" or "bridgedata"; or "nyc_dsan", New York's taxis by lead time under the protocol
        of Lin et al. (:func:`stforecast.datasets.new_york.split_dsan`).
    results : mapping of str to xarray.Dataset or mapping, optional
        Rows to add, by name of model: what :func:`stforecast.evaluate` gives (its overall scores,
        of all variables together where there are several), or a mapping of metric to value with
        evaluate's names, in which ``"protocol"`` may say how they came about.
    sample : mapping, optional
        What `results` are of, as :func:`not_comparable` takes it. Published rows of something else
        are left out, and ``attrs["not_comparable"]`` of the table says why. Default: not asked.

    Returns
    -------
    pandas.DataFrame
        Published rows, then rows of `results`. Index ``model``; columns are metrics by evaluate's
        names, ``mse_x100`` and ``lpips_x100`` (the metric times 100), and ``protocol``. Scores
        weighted by area are in columns of their own, such as ``rmse_area``, which published rows do
        not have; and so are ``ssim`` and ``psnr`` where the published ones are ``ssim_paper`` and
        ``psnr_paper``. Other scores of a Dataset are left out. Of "nyc_dsan" the columns are
        ``rmse_inflow_30min`` and so on, and all scores of a Dataset by lead time have one.

    Raises
    ------
    InputError
        If there is no such benchmark, a mapping has names that are no metrics, or scores are of
        several variables that have no common value.

    Examples
    --------
    >>> ours = {"this run": {"ssim_paper": 0.9, "psnr_paper": 33.0, "protocol": "10 epochs"}}
    >>> table = benchmark_table("kth_10_20", ours)
    >>> table.loc[["SimVPv2", "this run"], "psnr_paper"].tolist()
    [34.24, 33.0]
    """
    entry = _entry(name)
    columns, dated = entry["columns"], entry["dated"]
    why_not = None if sample is None else not_comparable(name, sample)
    tables, tests = entry["tables"], entry.get("other_tests", {})
    if sample is not None and why_not:
        tables = {
            protocol: tables[protocol]
            for protocol, test in tests.items()
            if _is_of(sample, entry["of"] | {"test": test})
        }
    rows: list[dict[str, Any]] = [
        {"model": model, **dict(zip(columns, figures, strict=True)), "protocol": protocol}
        for protocol, table in tables.items()
        for model, figures in table.items()
    ]
    for model, scores in (results or {}).items():
        if isinstance(scores, xr.Dataset):
            of_run = _by_lead if entry.get("by_lead") else _overall
            scores, chosen = of_run(str(model), scores, dated), True
        else:
            scores, chosen = dict(scores), False
        known = [*columns, *(scores if chosen and entry.get("by_lead") else ())]
        rows.append({"model": str(model), **_row(str(model), scores, known, chosen)})
    table = pd.DataFrame(rows or {"model": [], "protocol": []}).set_index("model")
    table = table.reindex(columns=[*dict.fromkeys([*columns, *table.columns])])
    more = [c for c in table.columns if c not in (*columns, "protocol")]
    table = table[[*columns, *more, "protocol"]].astype(dict.fromkeys([*columns, *more], float))
    table.attrs = {"not_comparable": why_not} if why_not else {}
    return table


def cost_table() -> pd.DataFrame:
    """Cost beside error on Moving MNIST, for :func:`stforecast.plots.performance`.

    Returns
    -------
    pandas.DataFrame
        Table II of the paper. Index ``model``; columns ``gflops``, ``seconds_per_epoch``,
        ``frames_per_second`` (batch 1) and ``mse_sum`` after 200 epochs. All of one V100: not to be
        mixed with other machines'.
    """
    first = benchmark_table("moving_mnist").loc[lambda t: t["gflops"].notna()]
    return first[[*_OTHERS, "mse_sum"]].rename(columns={"fps": "frames_per_second"})


def _by_lead(model: str, scores: xr.Dataset, dated: bool) -> dict[str, Any]:
    """Scores by the names of columns, such as ``rmse_inflow_30min``, and the sample."""
    found: dict[str, Any] = {}
    for v in (str(v) for v in scores.data_vars if f"{v}_overall" in scores):
        if scores[v].dims != ("metric", LEAD):
            raise InputError(
                f"{model!r}: scores by lead time are asked for, of one region and one kind of "
                f"weights; {v} has the dims {scores[v].dims}"
            )
        for metric, values in zip(scores["metric"].values, scores[v].values, strict=True):
            minutes = scores[LEAD].values / np.timedelta64(1, "m")
            found |= {f"{metric}_{v}_{m:g}min": x for m, x in zip(minutes, values, strict=True)}
    if not found:
        raise InputError(f"{model!r}: expected what stforecast.evaluate gives, or a mapping")
    return {**found, "protocol": _sample_words(scores, dated)}


def _overall(model: str, scores: xr.Dataset, dated: bool) -> dict[str, Any]:
    """Overall scores by the names of columns, and the sample as ``protocol``."""
    names = [str(v) for v in scores.data_vars if str(v).endswith("_overall")]
    if not names or "metric" not in scores.dims:
        raise InputError(f"{model!r}: expected what stforecast.evaluate gives, or a mapping")
    if "frames_overall" not in names and len(names) > 1:
        raise InputError(
            f"{model!r}: scores of several variables ({', '.join(names)}) have no common value; "
            "ask evaluate for a metric of whole frames too, or give one variable"
        )
    overall = scores["frames_overall" if "frames_overall" in names else names[0]]
    extra = set(map(str, overall.dims)) - {"metric", "weights"}
    if extra:
        raise InputError(f"{model!r}: select one {' and '.join(sorted(extra))} of the scores first")
    if "weights" not in overall.dims:
        overall = overall.expand_dims(weights=[scores.attrs.get("weights", "uniform")])
    found: dict[str, Any] = {}
    for kind in overall["weights"].values.tolist():
        suffix = "" if kind == "uniform" else f"_{kind}"
        of_kind = overall.sel(weights=kind).to_series()
        found |= {f"{metric}{suffix}": value for metric, value in of_kind.items()}
    return {**found, "protocol": _sample_words(scores, dated)}


def _sample_words(scores: xr.Dataset, dated: bool) -> str:
    """What was scored, in words."""
    attrs = scores.attrs
    words = f"{attrs.get('initialisations', '?')} initialisations"
    if dated and "first_initialisation" in attrs:
        words += f", {attrs['first_initialisation']} to {attrs['last_initialisation']}"
    where = f"; where {attrs['where']}" if "where" in attrs else ""
    return f"{words}; grid {attrs.get('grid', '?')}{where}"


def _row(model: str, scores: dict[str, Any], columns: list[str], chosen: bool) -> dict[str, Any]:
    """Row of a table; `chosen`: what has a column, as published or the same by other means."""
    protocol = str(scores.pop("protocol", "not stated"))
    row = {key: float(np.asarray(value)) for key, value in scores.items()}
    for column, (metric, factor) in _SCALED.items():
        if column in columns and metric in row:
            row.setdefault(column, factor * row.pop(metric))
    known = {column.removesuffix("_paper") for column in columns}
    for key in list(row):
        stem = key.removesuffix("_area").removesuffix("_custom")
        if chosen and stem.removesuffix("_paper") not in known:
            del row[key]
        elif not chosen and stem not in METRICS and key not in (*_SCALED, *_OTHERS, *columns):
            raise InputError(
                f"{model!r}: {key!r} is no metric; the table has {', '.join(columns)}, "
                f"and takes {', '.join(METRICS)}, these with _area, "
                f"{', '.join((*_SCALED, *_OTHERS))}"
            )
    return {**row, "protocol": protocol}
