"""The scores of several models in one table: scorecards, for people and for files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD
from ..errors import InputError
from ..files import replacing
from .significance import LEAST, QUANTITIES, compare

__all__ = ["mean_over_time", "save_scores", "scorecard", "to_table", "verdicts"]

# Attributes that tell the sample: scores that differ in one do not compare.
_SAMPLE = (
    *("weights", "grid", "lead_hours", "nan", "where", "data_range"),
    *("initialisations", "first_initialisation", "last_initialisation"),
)
_SKILL = ("rmse", "mse", "mse_sum")  # what skill can be made of
_CRPS = ("crps_fair", "crps")  # what CRPSS can be made of
# Ratios of means over all initialisations: the mean of those of single ones is another number.
_RATIOS = {"spread_skill", "csi", "ets", "hss", "fss", "roc_area"}
BASELINES = (
    *("Persistence", "Climatology", "LinearRegression", "FrameCopy"),
    *("persistence", "usual week"),
)
_COPIES = ("Persistence", "persistence", "FrameCopy")


def scorecard(
    scores: Mapping[str, xr.Dataset],
    references: Sequence[str] | None = None,
    *,
    by_time: Mapping[str, xr.Dataset] | None = None,
    samples: int = 2000,
    level: float = 0.95,
) -> xr.Dataset:
    """Put the scores of several models in one Dataset, with skill against the baselines.

    Parameters
    ----------
    scores : mapping of str to xarray.Dataset
        Results of :func:`evaluate` by name of model. All must be of the same variables, metrics,
        weights, grid, lead times and initialisations: other samples do not compare.
    references : sequence of str, optional
        Models to measure skill against; by default those named "Persistence", "Climatology",
        "LinearRegression" and "FrameCopy". Skill needs "rmse", "mse" or "mse_sum" among the
        metrics, or "crps_fair" or "crps".
    by_time : mapping of str to xarray.Dataset, optional
        The same scores by ``("time", "prediction_timedelta")``, from which intervals and p-values
        of the differences between models are made
        (:func:`stforecast.evaluation.significance.compare`).
    samples, level : int, float
        Of the bootstrap, and of the intervals.

    Returns
    -------
    xarray.Dataset
        As from :func:`evaluate` with a leading dim ``model``; and for each variable V,
        ``V_skill`` with dims ``(model, reference, *by)`` and ``V_skill_overall`` with (model,
        reference): 1 - RMSE / RMSE of the reference; 1 is perfect, 0 no better than the reference.
        NaN between "Persistence" and "FrameCopy": published ratios are to one or the other, and a
        ratio between the two invites to convert them. With "crps_fair" or "crps" among the metrics
        also ``V_crpss`` and ``V_crpss_overall``, the same of the first of these: 1 - CRPS / CRPS of
        the reference, a climatology of many years' members for one.

        With `by_time` also ``V_difference`` with dims ``(model, other_model, quantity, *by)`` and
        ``V_difference_overall``: RMSE of the model minus RMSE of the other_model (all models, and
        so not ``reference``, which has the references of skill only), the ends ``low`` and
        ``high`` of its interval, the ``p_value`` of no difference, ``p_adjusted`` for the number of
        lead times, the ``lag_correlation``, and the ``block_length``, NaN where no blocks were
        drawn. They are NaN for a model and itself. With fewer than 20 initialisations there are
        none. The attribute ``intervals`` tells the methods, or why there are none.

    Raises
    ------
    InputError
        If scores do not compare, or a reference is not among them.
    """
    if not scores:
        raise InputError("a scorecard needs the scores of at least one model")
    first_name, first = next(iter(scores.items()))
    for name, other in scores.items():
        checks: list[tuple[Any, Any, Any]] = [
            ("variables", list(first.data_vars), list(other.data_vars)),
            ("metrics", _metrics_of(first), _metrics_of(other)),
            *((key, first.attrs.get(key), other.attrs.get(key)) for key in _SAMPLE),
            *((v, first[v].dims, other[v].dims) for v in first.data_vars if v in other),
            *((d, first[d].values, other[d].values) for d in first.dims if d in other.coords),
        ]
        for what, a, b in checks:
            if not np.array_equal(a, b):
                raise InputError(
                    f"scores of {first_name!r} and {name!r} do not compare: {what} {a} and {b}"
                )
    have = _metrics_of(first)
    metric, crps = (next((m for m in of if m in have), None) for of in (_SKILL, _CRPS))
    if references is None:
        usual = BASELINES if metric or crps else ()
        references = [name for name in usual if name in scores]
    missing = [name for name in references if name not in scores]
    if missing:
        raise InputError(f"references {missing} are not among the models {list(scores)}")

    models = xr.DataArray(list(scores), dims="model", name="model")
    # override: the check above has found all coordinates equal
    card = xr.concat(list(scores.values()), models, join="override", combine_attrs="override")
    for key in ("ensemble", "members"):  # a mean of members may stand beside a single forecast
        if any(first.attrs.get(key) != other.attrs.get(key) for other in scores.values()):
            card.attrs.pop(key, None)
    if references:
        if not (metric or crps):
            raise InputError(
                f"skill needs one of {_SKILL + _CRPS} among the metrics, or references=()"
            )
        for v in [v for v in first.data_vars if "metric" in first[v].dims]:
            for of, words in ((metric, "skill"), (crps, "crpss")):
                if of is None:
                    continue
                error = card[v].sel(metric=of, drop=True)
                error = error**0.5 if of in _SKILL[1:] else error  # ratios are the same for all
                base = error.sel(model=list(references)).rename(model="reference")
                with np.errstate(divide="ignore", invalid="ignore"):  # one without error
                    skill = 1 - error / base
                copies = (error["model"].isin(_COPIES), base["reference"].isin(_COPIES))
                same = error["model"] == base["reference"]
                skill = skill.where(~(copies[0] & copies[1]) | same)
                name = f"{str(v).removesuffix('_overall')}_{words}"
                name += "_overall" if str(v).endswith("_overall") else ""
                score = "RMSE" if words == "skill" else of
                card[name] = skill.transpose("model", "reference", *error.dims[1:]).assign_attrs(
                    units="1", long_name=f"1 - {score} / {score} of the reference, {v}"
                )
    return card if by_time is None else _add_differences(card, by_time, samples, level)


def _add_differences(
    card: xr.Dataset, by_time: Mapping[str, xr.Dataset], samples: int, level: float
) -> xr.Dataset:
    """Differences of every model to every other, with intervals."""
    models = [str(m) for m in card["model"].values]
    if set(by_time) != set(models):
        raise InputError(f"by_time must be of the models {models}, found {list(by_time)}")
    if "where" in by_time[models[0]].attrs:  # the block bootstrap gives them equal weights
        words = "none: initialisations have different numbers of points where scores are taken"
        return card.assign_attrs(intervals=words)
    n = by_time[models[0]].sizes.get("time", 0)
    if n < LEAST:
        words = f"none: {n} initialisations are too few to tell chance, {LEAST} are needed"
        return card.assign_attrs(intervals=words)
    have = _metrics_of(card)
    metric = "rmse" if {"rmse", "mse"} & set(have) else "mae"
    if metric not in have and "mse" not in have:
        return card.assign_attrs(intervals="none: they need rmse, mse or mae among the metrics")
    several = [d for d in ("weights", "region") if d in card.dims]

    def between(a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
        dim = next((d for d in several if d in a.dims), None)
        if dim is None:
            found = compare(a, b, metric=metric, samples=samples, level=level)
            return found.sel(quantity=list(QUANTITIES))
        labels = card[dim]
        parts = [between(*(x.sel({dim: c}, drop=True) for x in (a, b))) for c in labels.values]
        return xr.concat(parts, labels, combine_attrs="override")

    done: dict[tuple[str, str], xr.Dataset] = {}
    for i, m in enumerate(models):
        for r in models[i + 1 :]:
            done[m, r] = between(by_time[m], by_time[r])
            done[r, m] = _turned(done[m, r])
    if not done:
        return card.assign_attrs(intervals="none: there is one model only")
    first = next(iter(done.values()))
    nothing = xr.full_like(first, np.nan)
    rows = [
        xr.concat([done.get((m, r), nothing) for r in models], "other_model", join="override")
        for m in models
    ]
    all_of = xr.concat(rows, "model", join="override", combine_attrs="override")
    all_of = all_of.assign_coords(model=models, other_model=models)
    for v in variables_of(card):
        for suffix in ("", "_overall"):
            if f"{v}{suffix}" not in all_of:
                continue
            array = all_of[f"{v}{suffix}"].transpose(
                "model", "other_model", "quantity", *several, ...
            )
            array.attrs = {
                "units": card[v].attrs.get(f"units_{metric}", "unknown"),
                "long_name": f"{metric} of the model minus {metric} of the other, {v}",
            }
            card[f"{v}_difference{suffix}"] = array
    about = f"{first.attrs['method']}; block length {first.attrs['block_length']}"
    if LEAD in card.dims:
        about += f"; {first.attrs['correction']}"
    return card.assign_attrs(
        intervals=about, interval_metric=metric, interval_level=level, interval_samples=samples
    )


def _turned(compared: xr.Dataset) -> xr.Dataset:
    """What :func:`compare` gives with its models exchanged."""
    signs = [-1.0 if q in ("difference", "low", "high") else 1.0 for q in QUANTITIES]
    sign = xr.DataArray(signs, {"quantity": list(QUANTITIES)}, "quantity")
    source = {"low": "high", "high": "low"}
    picked = compared.sel(quantity=[source.get(q, q) for q in QUANTITIES])
    return picked.assign_coords(quantity=list(QUANTITIES)) * sign


def mean_over_time(scores: xr.Dataset) -> xr.Dataset:
    """Scores by lead time from scores by initialisation and lead time.

    What ``evaluate(..., by=("prediction_timedelta",))`` gives, without reading the data again: the
    mean over initialisations; of RMSE the root of the mean square.

    Parameters
    ----------
    scores : xarray.Dataset
        From :func:`evaluate` with ``"time"`` in `by`.

    Returns
    -------
    xarray.Dataset
        Without the dim ``time``.

    Raises
    ------
    InputError
        If they are not by initialisation, or points are masked: then initialisations do not all
        weigh the same.
    """
    if "time" not in scores.dims:
        raise InputError(f'expected scores by "time", found the dims {tuple(scores.dims)}')
    if any(scores[v].attrs.get("masked_points", 0) for v in scores.data_vars):
        raise InputError(
            "points without truth make initialisations weigh differently: evaluate by lead time"
        )
    ratios = sorted(_RATIOS & set(_metrics_of(scores))) + [
        str(v) for v in scores.data_vars if "metric" not in scores[v].dims
    ]
    if ratios:
        raise InputError(
            f"{', '.join(ratios)} of all initialisations are no mean of those of single ones: "
            "evaluate by lead time"
        )
    root = scores["metric"] == "rmse"
    out = xr.where(root, scores**2, scores, keep_attrs=True).mean("time", keep_attrs=True)
    out = xr.where(root, out**0.5, out, keep_attrs=True)
    for v in scores.data_vars:
        if str(v).endswith("_overall"):
            out[v] = scores[v]
        else:
            dims = [d for d in scores[v].dims if d != "time"]
            out[v] = out[v].transpose(*dims).assign_attrs(scores[v].attrs)
    return out.assign_attrs(scores.attrs)


def variables_of(card: xr.Dataset) -> list[str]:
    """Return the variables of a scorecard: the names that have an overall score too."""
    names = [str(v) for v in card.data_vars]
    return [v for v in names if f"{v}_overall" in names and "metric" in card[v].dims]


def own_scores(card: xr.Dataset, variable: str) -> dict[str, str]:
    """Names of the scores of a variable that have dims of their own, by metric."""
    begin, others = f"{variable}_", {"metric", "reference", "other_model"}
    longer = tuple(f"{v}_" for v in variables_of(card) if v.startswith(begin))
    return {
        str(name).removeprefix(begin): str(name)
        for name, array in card.data_vars.items()
        if str(name).startswith(begin) and not str(name).startswith(longer)
        if f"{name}_overall" in card and not others & {*array.dims}
    }


def _metrics_of(scores: xr.Dataset) -> list[str]:
    """Metrics along ``metric``, which all may have dims of their own."""
    return scores["metric"].values.tolist() if "metric" in scores.dims else []


def _model_card(card: xr.Dataset) -> None:
    if "model" not in card.dims:
        raise InputError('expected a scorecard; make one with scorecard({"name": scores})')


def hours_of(lead: np.ndarray) -> list[str]:
    """Write lead times as numbers of hours."""
    return [f"{value:g}" for value in lead / np.timedelta64(1, "h")]


def _lead_labels(lead: np.ndarray) -> list[str]:
    """Write lead times for people: in hours, or of clips in seconds or milliseconds."""
    seconds = lead / np.timedelta64(1, "s")
    shortest = np.abs(seconds).min()
    unit, size = ("h", 3600) if shortest >= 60 else ("s", 1) if shortest >= 1 else ("ms", 1e-3)
    return [f"{value:g} {unit}" for value in seconds / size]


def _selected(
    card: xr.Dataset,
    variable: str | None,
    weights: str | None,
    region: str | None,
    metric: str | None = None,
) -> tuple[xr.Dataset, str, str]:
    """One kind of weights and one region of a scorecard, the variable, and words for the former."""
    _model_card(card)
    known = variables_of(card)
    v = known[0] if variable is None else variable
    if v not in known or (metric is not None and metric not in card["metric"].values):
        raise InputError(
            f"the scorecard has the variables {known} and metrics "
            f"{card['metric'].values.tolist()}, found {v!r}, {metric!r}"
        )
    policy, place = card.attrs.get("weights", "?"), ""
    for dim, wanted in (("weights", weights), ("region", region)):
        if dim not in card.dims:
            if wanted is not None and (dim, wanted) != ("weights", policy):
                raise InputError(f"the scores have no several {dim}; found {dim}={wanted!r}")
            continue
        labels = card[dim].values.tolist()
        chosen = labels[0] if wanted is None else wanted
        if chosen not in labels:
            raise InputError(f"the scores have the {dim} {labels}, found {chosen!r}")
        card = card.sel({dim: chosen}, drop=True)
        policy, place = (chosen, place) if dim == "weights" else (policy, f", {chosen}")
    place += f", where {card.attrs['where']}" if "where" in card.attrs else ""
    return card, v, f"{policy} weights{place}"


class _Table(pd.DataFrame):
    """A table that is printed with all of its columns, in lines of 80 letters."""

    def __repr__(self) -> str:
        with pd.option_context("display.max_columns", None, "display.width", 80):
            return super().__repr__()


def to_table(
    card: xr.Dataset,
    *,
    variable: str | None = None,
    metric: str = "rmse",
    weights: str | None = None,
    region: str | None = None,
    digits: int = 3,
) -> pd.DataFrame:
    """Lay a scorecard out for people: models down, lead times across.

    Parameters
    ----------
    card : xarray.Dataset
        From :func:`scorecard`.
    variable : str, optional
        Default: the first.
    metric : str
        Which metric to show.
    weights, region : str, optional
        Which to show where the scores have several. Default: the first; the columns' name says it.
    digits : int
        Decimals.

    Returns
    -------
    pandas.DataFrame
        A row for each model; for squared errors also one for the skill of each model that is no
        reference against each reference. Columns: lead times (``"6 h"``), where scores are by
        lead time only, and ``"overall"``. The columns' name says variable, unit and weights.
    """
    card, v, place = _selected(card, variable, weights, region, metric)
    leads = card[v].dims == ("model", "metric", LEAD)
    columns = _lead_labels(card[LEAD].values) if leads else []

    def row(name: str, **labels: str) -> list[float]:
        by_lead = card[name].sel(labels).values.tolist() if leads else []
        return [*by_lead, float(card[f"{name}_overall"].sel(labels))]

    models = [str(m) for m in card["model"].values]
    rows = {m: row(v, model=m, metric=metric) for m in models}
    skill = f"{v}_skill" if metric in _SKILL else f"{v}_crpss"
    crps = next((m for m in _CRPS if m in _metrics_of(card)), None)
    if skill in card and metric in (*_SKILL, crps):
        references = [str(r) for r in card["reference"].values]
        for m in (m for m in models if m not in references):
            for r in references:
                rows[f"{m}: skill vs {r}"] = row(skill, model=m, reference=r)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*columns, "overall"])
    unit = card[v].attrs.get(f"units_{metric}", "unknown")
    table.columns.name = f"{v} {metric} [{unit}], {place}"
    return _Table(table.round(digits))


def verdicts(
    card: xr.Dataset,
    *,
    variable: str | None = None,
    weights: str | None = None,
    region: str | None = None,
) -> pd.DataFrame:
    """Tell which model beats which by more than chance.

    Parameters
    ----------
    card : xarray.Dataset
        From :func:`scorecard` with `by_time`.
    variable, weights, region : str, optional
        As in :func:`to_table`.

    Returns
    -------
    pandas.DataFrame
        A row for each pair of models (index), of all lead times together: ``difference`` of
        the scores, ``low`` and ``high`` of its interval, ``p_value``, ``block_length`` and
        ``verdict``: "better" or "worse" where the interval leaves out 0, else "no difference
        shown". ``leads`` says at how many lead times there is a difference on the side of the
        verdict by p-values corrected for the number of lead times (Benjamini and Hochberg);
        ``against``, at which ones there is one on the other side. Empty where the card has no
        intervals.
    """
    card, v, _ = _selected(card, variable, weights, region)
    columns = [*QUANTITIES, "leads", "verdict", "against"]
    index = pd.MultiIndex.from_tuples([], names=["model", "other_model"])
    if f"{v}_difference" not in card:
        return pd.DataFrame([], index, columns)
    rows = {}
    by_lead, overall = card[f"{v}_difference"], card[f"{v}_difference_overall"]
    models = card["model"].values.tolist()
    models.sort(key=lambda m: m in BASELINES)  # these come second in a pair
    for m, r in itertools.combinations(models, 2):
        of = overall.sel(model=m, other_model=r)
        figures = dict(zip(QUANTITIES, of.values.tolist(), strict=True))
        sign = beyond_chance(by_lead.sel(model=m, other_model=r), card.attrs["interval_level"])
        verdict, beyond, contrary = "no difference shown", sign != 0, sign > 1
        if figures["high"] < 0:
            verdict, beyond, contrary = "better", sign < 0, sign > 0
        elif figures["low"] > 0:
            verdict, beyond, contrary = "worse", sign > 0, sign < 0
        leads = against = ""
        if LEAD in by_lead.dims:
            leads = f"{int(beyond.sum())} of {beyond.size}"
            labels = _lead_labels(by_lead[LEAD].values)
            against = ", ".join(t for t, yes in zip(labels, contrary, strict=False) if yes)
        rows[m, r] = [*figures.values(), leads, verdict, against]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    table.index = pd.MultiIndex.from_tuples(list(rows), names=["model", "other_model"])
    return table


def beyond_chance(difference: xr.DataArray, level: float) -> xr.DataArray:
    """Sign of each difference that is more than chance, all of them taken together; else 0."""
    found = difference.sel(quantity="p_adjusted", drop=True) <= 1 - level
    of = difference.sel(quantity="difference", drop=True)
    return of.copy(data=np.sign(of.values)).where(found, 0)


def _to_csv_table(card: xr.Dataset) -> pd.DataFrame:
    """Every score of a scorecard in tidy rows."""
    parts = []
    for v in variables_of(card):
        for name in (v, f"{v}_overall"):
            part = card[name].to_series().rename("value").reset_index()
            part["units"] = [card[name].attrs.get(f"units_{m}", "") for m in part["metric"]]
            parts.append(part.assign(variable=v))
        for metric, name in own_scores(card, v).items():
            for array in (card[name], card[f"{name}_overall"]):
                part = array.to_series().rename("value").reset_index()
                parts.append(part.assign(variable=v, metric=metric, units=array.attrs["units"]))
        for of, name in itertools.product(("skill", "crpss"), ("", "_overall")):
            if (name := f"{v}_{of}{name}") in card:
                part = card[name].to_series().rename("value").reset_index()
                part["metric"] = f"{of}_vs_" + part["reference"].astype(str)
                parts.append(part.drop(columns="reference").assign(variable=v, units="1"))
        for name in (f"{v}_difference", f"{v}_difference_overall"):
            if name in card:
                wide = card[name].to_dataset("quantity").to_dataframe().reset_index()
                wide = wide[wide["model"] != wide["other_model"]]
                of = card.attrs.get("interval_metric", "rmse")
                wide["metric"] = f"{of}_minus_" + wide["other_model"].astype(str)
                wide = wide.drop(columns="other_model").rename(columns={"difference": "value"})
                parts.append(wide.assign(variable=v, units=card[name].attrs["units"]))
    for part in parts:
        part["lead_hours"] = hours_of(part.pop(LEAD).to_numpy()) if LEAD in part else "overall"
    table = pd.concat(parts, ignore_index=True)
    if "weights" not in table:
        table["weights"] = card.attrs.get("weights", "")
    front = ["model", "variable", "metric", "lead_hours"]
    back = ["value", *(q for q in QUANTITIES[1:] if q in table), "units", "weights"]
    others = [c for c in table.columns if c not in (*front, *back)]  # other dims of `by`
    return table[[*front, *others, *back]]


def save_scores(card: xr.Dataset, directory: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a scorecard as ``scores.nc`` and ``scores.csv``; neither is ever half-written.

    Parameters
    ----------
    card : xarray.Dataset
        From :func:`scorecard`.
    directory : path
        Made if it is not there. Files of these names in it are replaced.

    Returns
    -------
    tuple of pathlib.Path
        The two files. The CSV is tidy: model, variable, metric, lead_hours (a number, or
        "overall"), other dims of the scores, value, units, weights.

    Raises
    ------
    InputError
        If the directory cannot be written to.
    """
    _model_card(card)
    directory = Path(directory)
    nc, csv = directory / "scores.nc", directory / "scores.csv"
    encoding = {LEAD: {"units": "hours", "dtype": "float64"}} if LEAD in card.coords else {}
    try:
        with replacing(nc) as new_nc, replacing(csv) as new_csv:
            card.drop_encoding().to_netcdf(new_nc, engine="netcdf4", encoding=encoding)
            _to_csv_table(card).to_csv(new_csv, index=False)
    except (OSError, InputError) as error:
        raise InputError(f"cannot write the scores to {directory}: {error}") from error
    return nc, csv
