"""Whether one model beats another by more than chance, where errors resemble their neighbours.

Scores of forecasts an hour or a day apart are not independent: there is less information in them
than their number says, and a test that takes them for independent finds differences everywhere.
Where neighbours are alike the spectrum of the differences tells how little is known; else whole
stretches of initialisations are drawn in place of single ones.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..errors import InputError
from .cosines import cosine_interval

__all__ = ["adjusted_for_number", "block_length", "compare"]

LEAST = 20  # initialisations: with fewer an autocorrelation is a guess
STRONG = 0.2  # lag correlation from which blocks no longer hold what they say
QUANTITIES = (
    *("difference", "low", "high", "p_value", "p_adjusted"),
    *("lag_correlation", "block_length"),
)
_METHODS = {
    "bootstrap": "paired circular block bootstrap over initialisations (Politis and Romano, 1992), "
    "percentile interval, p-value from the centred samples",
    "cosines": "cosines of the paired differences over an AR(1) spectrum, Student's t (after "
    "Lazarus, Lewis, Stock and Watson, 2018, and Mueller and Watson, 2016)",
    "ewc": "equally weighted cosines of the paired differences, Student's t (Lazarus, Lewis, Stock "
    "and Watson, 2018)",
}
_METHODS["auto"] = (
    f"{_METHODS['cosines']} where a lag correlation of the first five is at least {STRONG}; else "
    f"{_METHODS['bootstrap']}"
)
_SAME = ("weights", "grid", "lead_hours", "nan", "initialisations", "first_initialisation")


def compare(
    scores_a: xr.Dataset,
    scores_b: xr.Dataset,
    *,
    metric: str = "rmse",
    samples: int = 2000,
    level: float = 0.95,
    block: int | None = None,
    seed: int = 0,
    method: Literal["auto", "bootstrap", "cosines", "ewc"] = "auto",
) -> xr.Dataset:
    """Difference of two models' scores, its confidence interval and its p-value.

    By default the method follows from the lag correlation of the paired differences, for each
    variable and lead time: the largest of the first five lags.

    - Below 0.2: paired circular block bootstrap (Politis and Romano, 1992). Blocks of consecutive
      initialisations are drawn with replacement, the same for both models; the root of RMSE is
      taken of each drawn mean. Their length follows from the autocorrelation
      (``block_length``). From 400 values with lag-one correlation 0, 0.6 and 0.9 about 95, 92
      and 86% of nominal 95% intervals hold the truth, which is why it ends here.
    - From 0.2 on: cosines over an AR(1) spectrum (:mod:`stforecast.evaluation.cosines`), of the
      differences or, for RMSE, of the differences to first order, ``a / (2 RMSE_a) - b / (2
      RMSE_b)`` of squared errors a and b. 93 to 97% of its 95% intervals hold the truth from 100
      values with lag correlation up to 0.97: ``benchmarks/intervals.py`` makes the table.

    Many lead times are many tests: ``p_adjusted`` is corrected for their number by Benjamini and
    Hochberg's procedure (1995, J. R. Statist. Soc. B 57, 289-300), which keeps the share of false
    ones among the differences found; it holds for tests that depend on each other positively, as
    those of neighbouring lead times do (Benjamini and Yekutieli, 2001, Annals of Statistics 29).

    Parameters
    ----------
    scores_a, scores_b : xarray.Dataset
        Of :func:`stforecast.evaluate` with ``by=("time", "prediction_timedelta")`` or ``("time",)``
        and `metric` (or "mse" for "rmse") among the metrics, over the same forecasts.
    metric : {"rmse", "mse", "mae"}
        What to compare; less is better.
    samples : int
        Bootstrap samples.
    level : float
        Of the confidence interval.
    block : int, optional
        Length of the blocks in initialisations, in place of the one chosen, for the bootstrap,
        which is then used everywhere.
    seed : int
        The same seed gives the same figures.
    method : {"auto", "bootstrap", "cosines", "ewc"}
        One method for all in place of the choice; "ewc" is that of Lazarus et al. as published,
        which holds up to a lag correlation of about 0.7.

    Returns
    -------
    xarray.Dataset
        For each variable V: ``V`` with dims (quantity, prediction_timedelta), where there are lead
        times, and ``V_overall`` (quantity). Quantities: ``a``, ``b``, ``difference`` (a - b:
        negative where a is better), ``low`` and ``high`` (of its interval), ``p_value`` (two-sided,
        of no difference), ``p_adjusted`` (the same, corrected for the number of lead times),
        ``lag_correlation`` and ``block_length`` (NaN where no blocks were drawn). Attributes name
        the method.

    Raises
    ------
    InputError
        If scores are not of the same forecasts, not by initialisation, not finite, or too few.
    """
    if metric not in ("rmse", "mse", "mae"):
        raise InputError(f'metric must be "rmse", "mse" or "mae", found {metric!r}')
    if not 0 < level < 1 or samples < 100:
        raise InputError(
            f"level must lie between 0 and 1 and samples be at least 100, found {level}, {samples}"
        )
    if method not in _METHODS:
        raise InputError(f"method must be one of {list(_METHODS)}, found {method!r}")
    if block is not None and method not in ("auto", "bootstrap"):
        raise InputError(f"block is of the bootstrap, found method={method!r}")
    _check_same(scores_a, scores_b)
    variables = [str(v) for v in scores_a.data_vars if not str(v).endswith("_overall")]
    quantities = ["a", "b", *QUANTITIES]
    leads = LEAD in scores_a[variables[0]].dims
    coords: dict[str, Any] = {"quantity": quantities}
    if leads:
        coords[LEAD] = scores_a[LEAD].variable
    out = xr.Dataset(coords=coords)
    for v in variables:
        both = [_losses(scores, v, metric) for scores in (scores_a, scores_b)]  # (N, L)
        if block is not None and not 1 <= block <= len(both[0]):
            raise InputError(f"block must be from 1 to {len(both[0])}, found {block}")
        columns = [(a, b) for a, b in zip(both[0].T, both[1].T, strict=True)]
        overall = tuple(x.mean(axis=1) for x in both)
        rows = []
        for i, (a, b) in enumerate([*columns, overall]):
            rng = np.random.default_rng([seed, i])
            rows.append(_difference(a, b, metric == "rmse", samples, level, block, method, rng))
        p = [row["p_value"] for row in rows]
        for row, adjusted in zip(rows, [*adjusted_for_number(p[:-1]), p[-1]], strict=True):
            row["p_adjusted"] = adjusted
        found = [[row[q] for q in quantities] for row in rows]
        attrs = {
            "long_name": f"{metric} of a and b, {v}",
            "units": scores_a[v].attrs.get(f"units_{metric}", "unknown"),
        }
        if leads:
            out[v] = (("quantity", LEAD), np.transpose(found[:-1]), attrs)
        out[f"{v}_overall"] = (("quantity",), np.array(found[-1]), attrs)
    out.attrs = {
        "metric": metric,
        "method": _METHODS["bootstrap" if block is not None else method],
        "correction": "p_adjusted by Benjamini and Hochberg (1995), for the number of lead times",
        "block_length": "fixed by the caller"
        if block is not None
        else "of Politis and White (2004) with the correction of Patton, Politis and White (2009)",
        "samples": samples,
        "level": level,
        "seed": seed,
        **{k: scores_a.attrs[k] for k in _SAME if k in scores_a.attrs},
    }
    return out


def adjusted_for_number(p_values: Any) -> np.ndarray:
    """Correct p-values for their number, by Benjamini and Hochberg's procedure.

    Parameters
    ----------
    p_values : array-like of shape (K,)

    Returns
    -------
    numpy.ndarray of shape (K,)
        Never less than they were. Where those of at most q are taken for differences, an expected
        share of at most q of them are none.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    out = np.empty_like(p)
    out[order] = np.minimum.accumulate(np.minimum(p[order] * len(p) / ranks, 1))
    return out


def block_length(series: Any) -> float:
    """Length of blocks for the circular block bootstrap of a mean, from the autocorrelation.

    After Politis and White (2004), "Automatic block-length selection for the dependent bootstrap",
    Econometric Reviews 23, 53-70, as corrected by Patton, Politis and White (2009), ibid. 28,
    372-375: b = (2 G^2 / D)^(1/3) n^(1/3), with G the sum of ``|k| R(k)`` and D =
    4/3 (sum of R(k))^2 over lags k up to twice that past which correlations are noise, under a
    flat-top window.

    Parameters
    ----------
    series : array-like of shape (N,)
        Equally spaced in time.

    Returns
    -------
    float
        At least 1, at most the lesser of 3 sqrt(N) and N / 3, rounded up. Round it up to use it.
    """
    x = np.asarray(series, dtype=np.float64)
    n = len(x)
    most = math.ceil(min(3 * math.sqrt(n), n / 3))
    if not _varies(x):
        return 1.0
    x = x - x.mean()
    steps = max(5, int(math.log10(n)))
    reach = math.ceil(math.sqrt(n)) + steps
    covariance = np.array([x[k:] @ x[: n - k] for k in range(reach + 1)]) / n
    square = np.concatenate([[0.0], np.cumsum(x * x)])
    ends = np.arange(reach + 1) + 1
    power = (square[-1] - square[ends]) * square[n - ends]
    noise = 2 * math.sqrt(math.log10(n) / n)
    small = np.abs(n * covariance) < noise * np.sqrt(power)
    quiet = [k for k in range(reach - steps + 1) if small[k : k + steps].all()]
    width = min(2 * max(quiet[0], 1), reach) if quiet else reach
    lags = np.arange(1, width + 1)
    window = np.where(lags / width <= 0.5, 1.0, 2 * (1 - lags / width))
    g = 2 * np.sum(window * lags * covariance[1 : width + 1])
    spectrum = covariance[0] + 2 * np.sum(window * covariance[1 : width + 1])
    if spectrum == 0:
        return 1.0
    length = (2 * g**2 / (4 / 3 * spectrum**2)) ** (1 / 3) * n ** (1 / 3)
    return float(min(max(length, 1.0), most))


def _check_same(a: xr.Dataset, b: xr.Dataset) -> None:
    for name, scores in (("scores_a", a), ("scores_b", b)):
        dims = [d for d in scores.dims if d not in ("metric", "time", LEAD)]
        if "time" not in scores.dims or "metric" not in scores.dims or dims:
            raise InputError(
                f"{name} must be by initialisation: evaluate(..., by=('time', '{LEAD}')), of one "
                f"region and one kind of weights; found dims {tuple(scores.dims)}"
            )
    pairs: list[tuple[str, Any, Any]] = [
        ("variables", list(a.data_vars), list(b.data_vars)),
        *((k, a.attrs.get(k), b.attrs.get(k)) for k in _SAME),
        *((d, a[d].values, b[d].values) for d in ("time", LEAD) if d in a.coords and d in b.coords),
        *((str(v), a[v].dims, b[v].dims) for v in a.data_vars if v in b),
    ]
    if words := a.attrs.get("where", b.attrs.get("where")):
        raise InputError(
            "initialisations have different numbers of points, and would have equal weights here: "
            f"scores are taken where {words}"
        )
    for what, x, y in pairs:
        if not np.array_equal(x, y):
            raise InputError(f"the scores are not of the same forecasts: {what} {x} and {y}")
    if a.sizes["time"] < LEAST:
        raise InputError(
            f"{a.sizes['time']} initialisations are too few to tell their autocorrelation: give at "
            f"least {LEAST}"
        )


def _losses(scores: xr.Dataset, variable: str, metric: str) -> np.ndarray:
    """What is averaged over initialisations: (N, L), squares for "rmse"."""
    have = scores["metric"].values.tolist()
    used = "mse" if metric == "rmse" and "mse" in have else metric
    if used not in have:
        raise InputError(f"the scores have no {metric!r}, found {have}")
    array = scores[variable].sel(metric=used)
    values = array.transpose("time", ...).values.reshape(array.sizes["time"], -1)
    if not np.isfinite(values).all():
        raise InputError(
            f"{variable}: {np.count_nonzero(~np.isfinite(values))} scores are NaN or infinite "
            "(forecasts without a point that counts?); leave these initialisations out"
        )
    return values**2 if used == "rmse" else values


def _difference(
    a: np.ndarray,
    b: np.ndarray,
    root: bool,
    samples: int,
    level: float,
    block: int | None,
    method: str,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Quantities of one pair of series of losses."""
    finish = np.sqrt if root else np.asarray
    score_a, score_b = float(finish(a.mean())), float(finish(b.mean()))
    difference = score_a - score_b
    # What the difference is a mean of: for roots to first order.
    series = a / (2 * score_a or 1) - b / (2 * score_b or 1) if root else a - b
    series = series - series.mean() + difference
    correlation = _lag_correlation(series)
    if block is not None or not _varies(a - b):
        method = "bootstrap"
    elif method == "auto":
        method = "cosines" if correlation >= STRONG else "bootstrap"
    length = math.nan
    if method == "bootstrap":
        length = math.ceil(block_length(a - b)) if block is None else block
        low, high, p = _bootstrap(a, b, root, samples, level, length, rng)
    else:
        half, p = cosine_interval(series, level, flat=method == "ewc")
        low, high = difference - half, difference + half
    return {
        "a": score_a,
        "b": score_b,
        "difference": difference,
        "low": low,
        "high": high,
        "p_value": p,
        "lag_correlation": correlation,
        "block_length": float(length),
    }


def _bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    root: bool,
    samples: int,
    level: float,
    length: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Interval and p-value from blocks drawn with replacement, the same for both."""
    n = len(a)
    means = []
    count, rest = divmod(n, length)
    starts = rng.integers(0, n, (samples, count + 1))
    for series in (a, b):
        # Sums of stretches around the circle, from running sums.
        running = np.concatenate([[0.0], np.cumsum(np.concatenate([series, series]) - a.mean())])
        total = (running[starts[:, :count] + length] - running[starts[:, :count]]).sum(axis=1)
        total += running[starts[:, count] + rest] - running[starts[:, count]]
        means.append(total / n + a.mean())
    finish = (lambda x: np.sqrt(np.clip(x, 0, None))) if root else np.asarray
    score_a, score_b = float(finish(a.mean())), float(finish(b.mean()))
    difference = score_a - score_b
    drawn = finish(means[0]) - finish(means[1])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    slack = 1e-12 * max(abs(score_a), abs(score_b))  # rounding is no difference
    beyond = np.abs(drawn - difference) >= abs(difference) - slack
    return float(low), float(high), (1 + np.count_nonzero(beyond)) / (1 + samples)


def _varies(series: np.ndarray) -> bool:
    """Whether a series varies by more than rounding."""
    off = np.abs(series - series.mean()).max()
    return bool(off > 1e-12 * max(1e-300, float(np.abs(series).max())))


def _lag_correlation(series: np.ndarray) -> float:
    """Largest autocorrelation at the first five lags; 0 of what does not vary."""
    if not _varies(series):
        return 0.0
    x = series - series.mean()
    return float(max(x[k:] @ x[:-k] for k in range(1, 6)) / (x @ x))
