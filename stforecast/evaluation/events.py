"""Scores of events: what reaches a threshold, where, and how probable it was said to be.

Functions here make metrics for :func:`stforecast.evaluate`. A single threshold gives a score along
the dim ``metric``; several give a variable of their own, ``V_name``, with the dim ``threshold``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import InputError
from . import probabilistic
from .metrics import MEMBERS, Metric
from .probabilistic import Happens
from .thresholds import LABEL, Thresholds

QUANTILE, WINDOW = "quantile", "window"


def _no_unit(_: str) -> str:
    return "1"


def _counts(
    forecast: np.ndarray, truth: np.ndarray, limits: Sequence[Happens]
) -> Iterator[np.ndarray]:
    """Hits, forecasts of the event, and events, by threshold."""
    for happens in limits:
        forecast_has, truth_has = happens(forecast), happens(truth)
        yield forecast_has & truth_has
        yield forecast_has
        yield truth_has


def _csi(hits: np.ndarray, forecasts: np.ndarray, events: np.ndarray) -> np.ndarray:
    return hits / (forecasts + events - hits)


def _ets(hits: np.ndarray, forecasts: np.ndarray, events: np.ndarray) -> np.ndarray:
    chance = forecasts * events
    return (hits - chance) / (forecasts + events - hits - chance)


def _hss(hits: np.ndarray, forecasts: np.ndarray, events: np.ndarray) -> np.ndarray:
    # (a + d - chance) / (1 - chance), with d = 1 - forecasts - events + hits
    chance = forecasts * events
    return 2 * (hits - chance) / (forecasts + events - 2 * chance)


def _metric(
    thresholds: Any, below: bool, name: str, statistic: Any, score: Any, **options: Any
) -> Metric:
    """Make the metric of an event, whose score has the thresholds first."""
    limits = thresholds if isinstance(thresholds, Thresholds) else Thresholds(thresholds, below)
    coords = ({} if limits.scalar else {LABEL: limits.labels}) | options.pop("coords", {})
    return Metric(
        name,
        statistic,
        partial(_finish, score, limits.count, limits.scalar),
        _no_unit,
        coords=coords or None,
        several=True,
        thresholds=limits,
        narrow=True,
        **options,
    )


def _finish(score: Any, thresholds: int, scalar: bool, terms: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        out = score(terms, thresholds)
    return out[0] if scalar else out


def _of_counts(formula: Any, terms: np.ndarray, thresholds: int) -> np.ndarray:
    return formula(*np.moveaxis(terms.reshape(thresholds, 3, *terms.shape[1:]), 1, 0))


def _of_table(thresholds: Any, below: bool, name: str, formula: Any, words: str) -> Metric:
    score = partial(_of_counts, formula)
    return _metric(thresholds, below, name, _counts, score, long_name=words)


def csi(thresholds: Any, *, below: bool = False) -> Metric:
    """Critical success index (threat score): hits / (hits + misses + false alarms).

    Parameters
    ----------
    thresholds : float, sequence of float, mapping of str to these, or xarray.Dataset
        An event is to reach the threshold (``>=``), in the unit of the variable; by the name of the
        variable where they differ; or the result of
        :func:`stforecast.evaluation.climatological_quantiles`.
    below : bool
        Whether the event is to stay below it (``<``).

    Returns
    -------
    Metric
        0 to 1; NaN where neither has an event. Of an ensemble its mean is scored.

    Notes
    -----
    Hits, false alarms and misses are summed with the weights of the points, over times and places;
    the ratio is last. Wilks (2019), *Statistical Methods in the Atmospheric Sciences*, eq. 9.8.
    """
    return _of_table(thresholds, below, "csi", _csi, "critical success index")


def ets(thresholds: Any, *, below: bool = False) -> Metric:
    """Equitable threat score: the critical success index without the hits of chance.

    Parameters
    ----------
    thresholds, below
        As of :func:`csi`.

    Returns
    -------
    Metric
        -1/3 to 1, 0 for chance. With a hits, b false alarms, c misses of n cases and
        r = (a + b) (a + c) / n: (a - r) / (a + b + c - r) (Gilbert's score; Wilks 2019, eq. 9.20).
    """
    return _of_table(thresholds, below, "ets", _ets, "equitable threat score")


def hss(thresholds: Any, *, below: bool = False) -> Metric:
    """Heidke skill score: the share of right answers, beyond chance.

    Parameters
    ----------
    thresholds, below
        As of :func:`csi`.

    Returns
    -------
    Metric
        -1 to 1, 0 for chance: 2 (a d - b c) / ((a + c) (c + d) + (a + b) (b + d)) with a hits, b
        false alarms, c misses, d right rejections (Wilks 2019, eq. 9.17).
    """
    return _of_table(thresholds, below, "hss", _hss, "Heidke skill score")


def _fractions(
    forecast: np.ndarray,
    truth: np.ndarray,
    limits: Sequence[Happens],
    windows: Sequence[int],
    circular_longitude: bool,
) -> Iterator[np.ndarray]:
    """(p - o)^2 and p^2 + o^2 by threshold and window, p and o shares of the window's points."""
    for happens in limits:
        events = happens(forecast), happens(truth)
        for window in windows:
            p, o = (_share(event, window, circular_longitude) for event in events)
            yield np.square(p - o)
            yield np.square(p) + np.square(o)


def _share(event: np.ndarray, window: int, circular: bool) -> np.ndarray:
    """Share of a window around each point that has the event; none has it beyond the map."""
    half = window // 2
    if half >= min(event.shape[-2:]):
        raise InputError(f"a window of {window} points is too wide for maps of {event.shape[-2:]}")
    around = [(0, 0)] * (event.ndim - 2)
    out = np.pad(event.astype(np.int32), [*around, (half, half), (0, 0)])
    out = np.pad(out, [*around, (0, 0), (half, half)], mode="wrap" if circular else "constant")
    for axis in (-2, -1):
        sums = np.cumsum(out, axis=axis)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
        size = sums.shape[axis]
        upper = sums.take(range(window, size), axis)
        out = upper - sums.take(range(size - window), axis)
    return out / window**2


def _of_fractions(windows: int, scalar: bool, terms: np.ndarray, thresholds: int) -> np.ndarray:
    apart, most = np.moveaxis(terms.reshape(thresholds, windows, 2, *terms.shape[1:]), 2, 0)
    return (1 - apart / most)[:, 0] if scalar else 1 - apart / most


def fss(thresholds: Any, windows: int | Sequence[int], *, below: bool = False) -> Metric:
    """Fractions skill score: whether the event is about as frequent in a neighbourhood.

    Parameters
    ----------
    thresholds, below
        As of :func:`csi`.
    windows : int or sequence of int
        Odd numbers of points: the sides of the squares around each point; 1 is the point alone.

    Returns
    -------
    Metric
        0 to 1; NaN where neither has an event. Several windows give the dim ``window``.

    Notes
    -----
    With p and o the shares of points of the square that have the event in forecast and truth,
    1 - sum (p - o)^2 / (sum p^2 + sum o^2); sums over times and places, with the weights of the
    points, and the ratio last. Points beyond the map, and masked points, have no event; rows that
    go round the globe have no end. Roberts and Lean (2008), *Scale-selective verification of
    rainfall accumulations*, MWR 136, eq. 5 to 7.
    """
    scalar = np.ndim(windows) == 0
    sides = [int(w) for w in np.atleast_1d(np.asarray(windows))]
    if not sides or any(w < 1 or w % 2 == 0 for w in sides) or sides != sorted(set(sides)):
        raise InputError(f"windows are odd numbers of points, ascending, found {windows}")
    return _metric(
        thresholds,
        below,
        "fss",
        partial(_fractions, windows=sides),
        partial(_of_fractions, len(sides), scalar),
        settings=("circular_longitude",),
        whole=True,
        coords={} if scalar else {WINDOW: sides},
        long_name="fractions skill score",
    )


# --- probabilities --------------------------------------------------------------------------------


_probability = partial(_metric, dims=(MEMBERS,), single=True)


def brier(thresholds: Any, *, below: bool = False, fair: bool = False) -> Metric:
    """Brier score: the mean square of probability minus outcome.

    Parameters
    ----------
    thresholds, below
        As of :func:`csi`. The probability is the share of members that have the event.
    fair : bool
        Score the distribution that the members are drawn from: minus p (1 - p) / (M - 1) (Ferro
        2014, *Fair scores for ensemble forecasts*, eq. 5). The metric is then "brier_fair".

    Returns
    -------
    Metric
        0 is perfect (Brier 1950). A forecast without members has the probabilities 0 and 1.
    """
    return _probability(
        thresholds,
        below,
        "brier_fair" if fair else "brier",
        probabilistic.brier_terms,
        partial(probabilistic.brier, fair=fair),
        least=2 if fair else 1,
        long_name="fair Brier score" if fair else "Brier score",
    )


def reliability(thresholds: Any, *, below: bool = False, bins: int | None = 10) -> Metric:
    """Reliability table: how often the event came, by the probability that was forecast.

    Parameters
    ----------
    thresholds, below
        As of :func:`csi`.
    bins : int, optional
        Classes lie around 0, 1 / bins, ..., 1. None: around the M + 1 probabilities that M members
        can give.

    Returns
    -------
    Metric
        Dims ``threshold`` if several, ``part`` ("probability", the mean that was forecast;
        "frequency" of the event; "share" of the cases) and ``probability``, the classes. The first
        two are NaN for a class that has no case. Wilks (2019), section 9.4.4.
    """
    _check_bins(bins)
    return _probability(
        thresholds,
        below,
        "reliability",
        partial(probabilistic.joint_terms, bins=bins),
        probabilistic.reliability,
        coords={"part": ("probability", "frequency", "share"), "probability": _probabilities},
        long_name="reliability: probability, frequency and share by class of probability",
    )


def roc(thresholds: Any, *, below: bool = False, bins: int | None = None) -> Metric:
    """Relative operating characteristic: hits and false alarms of those who act on a probability.

    Parameters
    ----------
    thresholds, below, bins
        As of :func:`reliability`.

    Returns
    -------
    Metric
        Dims ``threshold`` if several, ``rate`` ("false_alarm_rate": the share of the non-events
        that were warned of; "hit_rate": of the events) and ``warning``: the least probability
        that warns. Mason (1982), *A model for assessment of weather forecasts*.
    """
    _check_bins(bins)
    return _probability(
        thresholds,
        below,
        "roc",
        partial(probabilistic.joint_terms, bins=bins),
        probabilistic.roc,
        coords={"rate": ("false_alarm_rate", "hit_rate"), "warning": _probabilities},
        long_name="relative operating characteristic",
    )


def roc_area(thresholds: Any, *, below: bool = False) -> Metric:
    """Area under the curve of :func:`roc`, its points joined by straight lines.

    Parameters
    ----------
    thresholds, below
        As of :func:`csi`.

    Returns
    -------
    Metric
        1 is perfect, 0.5 chance.
    """
    return _probability(
        thresholds,
        below,
        "roc_area",
        partial(probabilistic.joint_terms, bins=None),
        probabilistic.roc_area,
        long_name="area under the relative operating characteristic",
    )


def _check_bins(bins: int | None) -> None:
    if bins is not None and (isinstance(bins, bool) or int(bins) != bins or bins < 1):
        raise InputError(f"bins must be a whole number from 1 on, or None, found {bins!r}")


def _probabilities(size: int) -> np.ndarray:
    return np.arange(size) / (size - 1)


def quantile_score(levels: float | Sequence[float]) -> Metric:
    """Quantile (pinball) score of the members' quantiles.

    Parameters
    ----------
    levels : float or sequence of float
        From 0 to 1. The forecast of a quantile is interpolated between the members, as
        ``xarray.DataArray.quantile`` does.

    Returns
    -------
    Metric
        The mean of tau (y - q) where truth y is above the quantile q at the level tau, else of
        (1 - tau) (q - y); several levels give the dim ``quantile``. Koenker and Bassett (1978);
        Gneiting and Raftery (2007), section 6.1.
    """
    scalar = np.ndim(levels) == 0
    some = np.atleast_1d(np.asarray(levels, np.float64))
    if some.ndim != 1 or not some.size or not ((some >= 0) & (some <= 1)).all():
        raise InputError(f"levels of quantiles lie from 0 to 1, found {levels!r}")
    return Metric(
        "quantile_score",
        partial(probabilistic.pinball, levels=tuple(some.tolist())),
        _first if scalar else _all,
        long_name="quantile score",
        dims=(MEMBERS,),
        several=True,
        narrow=True,
        single=True,
        coords=None if scalar else {QUANTILE: some.tolist()},
    )


def _first(terms: np.ndarray) -> np.ndarray:
    return terms[0]


def _all(terms: np.ndarray) -> np.ndarray:
    return terms
