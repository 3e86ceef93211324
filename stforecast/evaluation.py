"""Score forecasts against truth, and put the scores of several models in one table."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from . import __version__
from .baselines import Climatology, climatology_at, conform, iso_time, time_blocks
from .conventions import InputError, canonicalize, valid_times
from .metrics import METRICS, STATISTICS, WeightedMean, anomaly_correlation, grid_weights

__all__ = ["evaluate", "save_scores", "scorecard", "to_table"]

log = logging.getLogger(__name__)

_TOLERANCE = 1e-3  # degrees: coordinates that differ by less are rounded versions of each other
_BLOCK = 2**23  # bytes of float32 forecast worked on at once; small enough to stay near the core
_LEAD = "prediction_timedelta"
# Attributes that tell the sample: scores that differ in one do not compare.
_SAMPLE = (
    *("weights", "grid", "lead_hours"),
    *("initialisations", "first_initialisation", "last_initialisation"),
)


def evaluate(
    forecast: Any,
    truth: Any,
    *,
    metrics: str | Sequence[str] = ("rmse", "mae", "bias"),
    climatology: Climatology | xr.Dataset | None = None,
    weights: str | xr.DataArray = "area",
    by: str | Sequence[str] = (_LEAD,),
) -> xr.Dataset:
    """Score a forecast against truth, by lead time and overall.

    Both pass the gate (:func:`stforecast.conventions.canonicalize`), so they may differ in names,
    units, order and longitude convention. Truth is taken at the forecast's *valid* times
    (initialisation + lead), and each of these must be there: nothing is dropped silently.

    Forecasts of dask are computed block by block of initialisations (whole chunks); sums are in
    float64. RMSE is the root of the mean square over initialisations and area, and for the
    overall value over lead times too: the root comes last.

    Parameters
    ----------
    forecast : xarray.Dataset
        Dims (time, prediction_timedelta, latitude, longitude) in any order, as
        :func:`stforecast.predict` gives it, or (…, y, x). ``time`` is the initialisation. A
        single time or lead time may be a scalar coordinate.
    truth : xarray.Dataset
        The same variables with dims (time, latitude, longitude).
    metrics : sequence of {"rmse", "mse", "mae", "bias", "acc"}
        What to compute. The anomaly correlation ("acc", see
        :func:`stforecast.metrics.anomaly_correlation`) needs a `climatology`: it is the mean of
        the correlations of single maps.
    climatology : Climatology or its Dataset, optional
        For "acc", which is added to `metrics` when this is given.
    weights : {"area", "uniform"} or xarray.DataArray
        Area of the cells, or every point the same (as in the SimVPv2 paper's tables). An array
        on the forecast's grid gives weights of your own; where it is 0, points are masked:
        neither scored nor checked for NaN. A grid without latitude has uniform weights.
    by : sequence of {"prediction_timedelta", "time", "latitude", "longitude"}
        Dimensions to keep (``y``, ``x`` on grids without latitude).

    Returns
    -------
    xarray.Dataset
        For each variable V: ``V`` with dims (metric, *by) and ``V_overall`` with dim (metric),
        float64. Attributes tell the units (``units`` where all metrics share it, and
        ``units_rmse`` and so on), the weights in force (``weights``, ``weights_policy``), the
        number of initialisations, the first and the last of them, and the version.

    Raises
    ------
    InputError
        If grids differ by more than 0.001 degrees, units differ, truth lacks a valid time, or a
        value is NaN or infinite where the weight is not 0. A NaN is never skipped: it would make
        the rest look like the whole.
    """
    names = _choose(metrics, METRICS, "metrics")
    if climatology is not None and "acc" not in names:
        names = (*names, "acc")
    if "acc" in names and climatology is None:
        raise InputError('metric "acc" needs climatology=: Climatology.fit(train, task)')

    forecast = _open_forecast(forecast)
    variables = [str(v) for v in forecast.data_vars]
    truth, _ = canonicalize(truth, variables)
    if _LEAD in truth.dims:
        raise InputError(f"truth has {_LEAD}; give observations or analyses by time, not forecasts")
    space = forecast[variables[0]].dims[2:]
    by = _choose(by, ("time", _LEAD, *space), "by", empty=True)
    if "acc" in names and set(by) & set(space):
        raise InputError(f'"acc" is a correlation over the map: it has no value by {space}')
    check_units(forecast, truth, variables)
    check_grid(forecast, truth, space, "truth")
    positions = valid_positions(forecast, truth)
    grid, policy, description = _weights(weights, forecast, space)
    reference = None
    if climatology is not None:
        reference = climatology.dataset if isinstance(climatology, Climatology) else climatology
        reference = conform(reference, variables)
        check_grid(forecast, reference, space, "climatology")

    keep = [("time", _LEAD, *space).index(name) for name in by]
    kinds = {METRICS[name].statistic for name in names}
    states: dict[tuple[str, str], list[WeightedMean]] = {}
    for v, ours, theirs, known in _blocks(forecast, truth, positions, reference, grid):
        for kind in kinds:
            if kind == "anomaly_correlation":
                maps = anomaly_correlation(ours, theirs, known, grid)
                state = WeightedMean.of(maps, np.ones(maps.shape), keep)
            else:
                state = WeightedMean.of(STATISTICS[kind](ours, theirs), grid, keep)
            states.setdefault((v, kind), []).append(state)

    axis = by.index("time") if "time" in by else None
    merged = {key: WeightedMean.merge(parts, axis) for key, parts in states.items()}
    coords: dict[str, Any] = {"metric": list(names)}
    coords |= {name: forecast[name].variable for name in by if name in forecast.coords}
    init = forecast["time"].values
    out = xr.Dataset(
        coords=coords,
        attrs={
            "weights": policy,
            "weights_policy": description,
            "root": "taken last, of the mean over initialisations and area",
            "initialisations": init.size,
            "first_initialisation": iso_time(init[0]),
            "last_initialisation": iso_time(init[-1]),
            "lead_hours": ", ".join(_hours(forecast[_LEAD].values)),
            "grid": f"{grid.shape[0]} x {grid.shape[1]}",
            "stforecast_version": __version__,
        },
    )
    if reference is not None and "climatology_period" in reference.attrs:
        out.attrs["acc_climatology_period"] = reference.attrs["climatology_period"]
    for v in variables:
        attrs = _score_attrs(forecast[v], names)
        final = [(METRICS[m].finish, merged[v, METRICS[m].statistic]) for m in names]
        out[v] = (("metric", *by), np.stack([f(s.mean) for f, s in final]), attrs)
        overall = np.stack([f(s.collapse().mean) for f, s in final])
        out[f"{v}_overall"] = (("metric",), overall, attrs)
    return out


def _choose(
    asked: str | Sequence[str],
    known: Sequence[str] | Mapping[str, Any],
    what: str,
    empty: bool = False,
) -> tuple[str, ...]:
    names = (asked,) if isinstance(asked, str) else tuple(dict.fromkeys(asked))
    unknown = [name for name in names if name not in known]
    if unknown or not (names or empty):
        raise InputError(f"{what} must be among {list(known)}, found {unknown or list(names)}")
    return names


def _open_forecast(forecast: Any) -> xr.Dataset:
    """Pass a forecast through the gate, and check what makes it a forecast."""
    out, _ = canonicalize(forecast)
    if _LEAD not in out.dims:
        raise InputError(
            f"a forecast has dims time (the initialisation) and {_LEAD}, found "
            f"{tuple(out.dims)}; stforecast.predict gives this form"
        )
    return out


def check_units(forecast: xr.Dataset, truth: xr.Dataset, variables: Sequence[str]) -> None:
    for v in variables:
        ours, theirs = forecast[v].attrs.get("units"), truth[v].attrs.get("units")
        if ours is None or theirs is None:
            log.info("%s: units are not given (forecast %s, truth %s)", v, ours, theirs)
        elif ours != theirs:
            raise InputError(
                f"{v} is in {ours!r} in the forecast and {theirs!r} in truth; convert one and set "
                "its attribute units"
            )


def check_grid(forecast: xr.Dataset, other: xr.Dataset, space: Sequence[Any], whose: str) -> None:
    """Refuse another grid; coordinates that agree to the tolerance count as the same.

    All that follows is positional, which is as good as exact labels once this has passed; an
    xarray operation on the two would silently drop rows whose coordinates differ in rounding.
    """
    for name in space:
        if name not in other.dims:
            raise InputError(f"{whose} has no {name}, found dims {tuple(other.dims)}")
        if forecast.sizes[name] != other.sizes[name]:
            raise InputError(
                f"{whose} has {other.sizes[name]} points of {name} and the forecast "
                f"{forecast.sizes[name]}; put both on one grid first"
            )
        if name in forecast.coords and name in other.coords:
            gap = np.abs(forecast[name].values.astype(float) - other[name].values.astype(float))
            if not gap.max() <= _TOLERANCE:
                raise InputError(
                    f"{name} of forecast and {whose} differ by up to {gap.max():.6g} (allowed: "
                    f"{_TOLERANCE:g}, for rounding); put both on one grid first"
                )


def valid_positions(forecast: xr.Dataset, truth: xr.Dataset) -> np.ndarray:
    """Positions in truth's time of every valid time: (initialisations, leads)."""
    valid = valid_times(forecast["time"].values, forecast[_LEAD].values)
    have = truth.indexes["time"]
    calendars = [getattr(t, "calendar", "standard") for t in (valid.flat[0], have[0])]
    if calendars[0] != calendars[1]:
        raise InputError(
            f"the forecast's calendar is {calendars[0]} and truth's {calendars[1]}; bring one to "
            "the other with ds.convert_calendar"
        )
    found = have.get_indexer(pd.Index(valid.ravel()))
    absent = valid.ravel()[found < 0]
    if absent.size:
        different = np.unique(absent)
        raise InputError(
            f"truth lacks {different.size} of the forecast's {np.unique(valid).size} valid times, "
            f"first {different[0]}, last {different[-1]} (truth runs from {have[0]} to "
            f"{have[-1]}); give all of truth, or select the initialisations that it covers"
        )
    return found.reshape(valid.shape)


def _weights(
    weights: str | xr.DataArray, forecast: xr.Dataset, space: Sequence[Any]
) -> tuple[np.ndarray, str, str]:
    shape = (forecast.sizes[space[0]], forecast.sizes[space[1]])
    if not isinstance(weights, xr.DataArray):
        latitude = forecast["latitude"].values if "latitude" in space else None
        return grid_weights(shape, latitude, weights)
    # The gate wants a time; an array of weights has none.
    array = weights.drop_vars("time", errors="ignore").rename("weights")
    own, _ = canonicalize(array.expand_dims(time=forecast["time"].values[:1]).to_dataset())
    check_grid(forecast, own, space, "the array of weights")
    grid = own["weights"].isel(time=0).transpose(*space).values.astype(np.float64)
    if not (np.all(np.isfinite(grid)) and grid.min() >= 0 and grid.max() > 0):
        raise InputError("an array of weights must be finite, nowhere negative and not all zero")
    masked = np.count_nonzero(grid == 0)
    return grid / grid.mean(), "custom", f"weights of the caller, {masked} of {grid.size} masked"


def _blocks(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    positions: np.ndarray,
    climatology: xr.Dataset | None,
    grid: np.ndarray,
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Variable, forecast, truth and climatology (N, L, H, W) in float64, for all blocks of inits.

    Values are finite wherever `grid` has a weight, and 0 elsewhere. Without a climatology its
    array is empty.
    """
    mask = grid == 0
    rows = max(1, _BLOCK // (4 * grid.size * positions.shape[1]))
    for outer in time_blocks(forecast):
        # All variables at once: they share a graph, for a lazy forecast one run of the network.
        chunk = forecast.isel(time=outer).compute()
        # Windows overlap: a step of truth is read once in a block, and used for several leads.
        unique, index = np.unique(positions[outer], return_inverse=True)
        index = index.reshape(-1, positions.shape[1])
        steps = truth.isel(time=unique).compute()
        known = None
        if climatology is not None:
            known = climatology_at(climatology, steps["time"]).compute()
        for name in map(str, forecast.data_vars):
            f = _finite(chunk[name], mask, "forecast")
            t = _finite(steps[name], mask, "truth")
            c = None if known is None else _finite(known[name], mask, "climatology")
            for start in range(0, len(index), rows):
                at = slice(start, start + rows)
                usual = np.empty(0) if c is None else c[index[at]].astype(np.float64)
                yield name, f[at].astype(np.float64), t[index[at]].astype(np.float64), usual


def _finite(array: xr.DataArray, mask: np.ndarray, whose: str) -> np.ndarray:
    """Values, 0 where masked; refuse NaN and infinity elsewhere."""
    values = array.values
    if mask.any():
        values = np.where(mask, np.float32(0), values)
    with np.errstate(invalid="ignore"):  # a sum needs no temporary, and finite data don't overflow
        if np.isfinite(values.sum(dtype=np.float64)):
            return values
    bad = np.argwhere(~np.isfinite(values))
    raise InputError(
        f"{array.name} of the {whose} is NaN or infinite: first at time "
        f"{array['time'].values[bad[0][0]]}, {len(bad)} values there and in the times near it; "
        "leave these times out, or mask points by weights= (an array that is 0 there)"
    )


def _score_attrs(variable: xr.DataArray, names: Sequence[str]) -> dict[str, Any]:
    unit = variable.attrs.get("units", "unknown")
    units = {f"units_{m}": METRICS[m].units(unit) for m in names}
    attrs: dict[str, Any] = {"long_name": variable.attrs.get("long_name", str(variable.name))}
    if len(set(units.values())) == 1:
        attrs["units"] = next(iter(units.values()))
    return attrs | units


def scorecard(
    scores: Mapping[str, xr.Dataset], references: Sequence[str] | None = None
) -> xr.Dataset:
    """Put the scores of several models in one Dataset, with skill against the baselines.

    Parameters
    ----------
    scores : mapping of str to xarray.Dataset
        Results of :func:`evaluate` by name of model. All must be of the same variables, metrics,
        weights, grid, lead times and initialisations: other samples do not compare.
    references : sequence of str, optional
        Models to measure skill against; by default those named "Persistence" and "Climatology".
        Skill needs "rmse" or "mse" among the metrics.

    Returns
    -------
    xarray.Dataset
        As from :func:`evaluate` with a leading dim ``model``; and for each variable V,
        ``V_skill`` with dims (model, reference, *by) and ``V_skill_overall`` (model, reference):
        1 - RMSE / RMSE of the reference; 1 is perfect, 0 no better than the reference.

    Raises
    ------
    InputError
        If scores do not compare, or a reference is not among them.
    """
    if not scores:
        raise InputError("a scorecard needs the scores of at least one model")
    first_name, first = next(iter(scores.items()))
    for name, other in scores.items():
        for what, a, b in [
            ("variables", list(first.data_vars), list(other.data_vars)),
            ("metrics", first["metric"].values.tolist(), other["metric"].values.tolist()),
            *((key, first.attrs.get(key), other.attrs.get(key)) for key in _SAMPLE),
            *((v, first[v].dims, other[v].dims) for v in first.data_vars if v in other),
            *((d, first[d].values, other[d].values) for d in first.dims if d in other.coords),
        ]:
            if not np.array_equal(a, b):
                raise InputError(
                    f"scores of {first_name!r} and {name!r} do not compare: {what} {a} and {b}"
                )
    if references is None:
        references = [name for name in ("Persistence", "Climatology") if name in scores]
    missing = [name for name in references if name not in scores]
    if missing:
        raise InputError(f"references {missing} are not among the models {list(scores)}")

    models = xr.DataArray(list(scores), dims="model", name="model")
    # override: the check above has found all coordinates equal
    card = xr.concat(list(scores.values()), models, join="override", combine_attrs="override")
    if references:
        metric = next((m for m in ("rmse", "mse") if m in first["metric"].values), None)
        if metric is None:
            raise InputError('skill needs "rmse" or "mse" among the metrics, or references=()')
        for v in list(first.data_vars):
            error = card[v].sel(metric=metric, drop=True)
            error = error if metric == "rmse" else error**0.5
            base = error.sel(model=list(references)).rename(model="reference")
            with np.errstate(divide="ignore", invalid="ignore"):  # a reference without error
                skill = 1 - error / base
            name = f"{str(v).removesuffix('_overall')}_skill"
            name += "_overall" if str(v).endswith("_overall") else ""
            order = ("model", "reference", *error.dims[1:])
            card[name] = skill.transpose(*order).assign_attrs(
                units="1", long_name=f"1 - RMSE / RMSE of the reference, {v}"
            )
    return card


def _variables(card: xr.Dataset) -> list[str]:
    """Return the variables of a scorecard: the names that have an overall score too."""
    names = [str(v) for v in card.data_vars]
    return [v for v in names if f"{v}_overall" in names and "metric" in card[v].dims]


def _model_card(card: xr.Dataset) -> None:
    if "model" not in card.dims:
        raise InputError('expected a scorecard; make one with scorecard({"name": scores})')


def _hours(lead: np.ndarray) -> list[str]:
    return [f"{value:g}" for value in lead / np.timedelta64(1, "h")]


def to_table(
    card: xr.Dataset, *, variable: str | None = None, metric: str = "rmse", digits: int = 3
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
    digits : int
        Decimals.

    Returns
    -------
    pandas.DataFrame
        A row for each model; for "rmse" and "mse" also one for the skill of each model that is no
        reference against each reference. Columns: lead times (``"6 h"``), where scores are by
        lead time only, and ``"overall"``. The columns' name says variable, unit and weights.
    """
    _model_card(card)
    known = _variables(card)
    v = known[0] if variable is None else variable
    if v not in known or metric not in card["metric"].values:
        raise InputError(
            f"the scorecard has the variables {known} and metrics "
            f"{card['metric'].values.tolist()}, found {v!r}, {metric!r}"
        )
    leads = card[v].dims == ("model", "metric", _LEAD)
    columns = [f"{h} h" for h in _hours(card[_LEAD].values)] if leads else []

    def row(name: str, **labels: str) -> list[float]:
        by_lead = card[name].sel(labels).values.tolist() if leads else []
        return [*by_lead, float(card[f"{name}_overall"].sel(labels))]

    models = [str(m) for m in card["model"].values]
    rows = {m: row(v, model=m, metric=metric) for m in models}
    if f"{v}_skill" in card and metric in ("rmse", "mse"):
        references = [str(r) for r in card["reference"].values]
        for m in (m for m in models if m not in references):
            for r in references:
                rows[f"{m}: skill vs {r}"] = row(f"{v}_skill", model=m, reference=r)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*columns, "overall"])
    unit = card[v].attrs.get(f"units_{metric}", "unknown")
    table.columns.name = f"{v} {metric} [{unit}], {card.attrs.get('weights', '?')} weights"
    return table.round(digits)


def _to_csv_table(card: xr.Dataset) -> pd.DataFrame:
    """Every score of a scorecard in tidy rows."""
    parts = []
    for v in _variables(card):
        for name in (v, f"{v}_overall"):
            part = card[name].to_series().rename("value").reset_index()
            part["units"] = [card[name].attrs.get(f"units_{m}", "") for m in part["metric"]]
            parts.append(part.assign(variable=v))
        for name in (f"{v}_skill", f"{v}_skill_overall"):
            if name in card:
                part = card[name].to_series().rename("value").reset_index()
                part["metric"] = "skill_vs_" + part["reference"].astype(str)
                parts.append(part.drop(columns="reference").assign(variable=v, units="1"))
    for part in parts:
        part["lead_hours"] = _hours(part.pop(_LEAD).to_numpy()) if _LEAD in part else "overall"
    table = pd.concat(parts, ignore_index=True).assign(weights=card.attrs.get("weights", ""))
    front = ["model", "variable", "metric", "lead_hours"]
    back = ["value", "units", "weights"]
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
        "overall"), value, units, weights.

    Raises
    ------
    InputError
        If the directory cannot be written to.
    """
    _model_card(card)
    directory = Path(directory)
    nc, csv = directory / "scores.nc", directory / "scores.csv"
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in (nc, csv)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        encoding = {_LEAD: {"units": "hours", "dtype": "float64"}} if _LEAD in card.coords else {}
        card.drop_encoding().to_netcdf(temporary[nc], engine="netcdf4", encoding=encoding)
        _to_csv_table(card).to_csv(temporary[csv], index=False)
        for path, part in temporary.items():
            part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write the scores to {directory}: {error}") from error
    finally:
        for part in temporary.values():
            with suppress(OSError):  # the error that matters is the one under way
                part.unlink()
    return nc, csv
