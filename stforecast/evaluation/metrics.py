"""Area weights, per-point statistics, an additive state, and the metrics made from it.

A metric is computed in three steps, so that scores of any amount of data can be streamed:

1. a *statistic* of forecast and truth at every point (:data:`STATISTICS`);
2. :class:`WeightedMean`: its weighted sum and the sum of the weights, in float64. States add, in
   any order, so blocks may come in any order or from several machines;
3. the *metric*, a function of the mean (:data:`METRICS`). The root of RMSE is taken here, last.

Measures of whole frames (SSIM, PSNR) have no value at a point: their statistic is one number for
each frame and variable (:data:`FRAME_STATISTICS`), the mean over variables makes it the frame's,
the metric is a function of that, and what is reported is the plain mean of the frames' metrics.

**NaN policy.** A NaN at a point with a weight makes every mean it enters NaN: missing data must
not look like a good score. A point leaves the score only where its weight is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from . import images

# Statistics: (forecast, truth) -> value at every point, whatever the shape.
STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "error": lambda forecast, truth: forecast - truth,
    "absolute_error": lambda forecast, truth: np.abs(forecast - truth),
    "squared_error": lambda forecast, truth: np.square(forecast - truth),
}

# Frame statistics: (forecast, truth, data_range) of (..., H, W) -> (...), a mean over pixels.
FRAME_STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "similarity": lambda f, t, span: images.ssim(f, t, data_range=span),
    "relative_squared_error": lambda f, t, span: images.relative_squared_error(
        f, t, data_range=span
    ),
    "paper_similarity": lambda f, t, _: images.paper_ssim(f, t),
    "wrapped_error": lambda f, t, _: images.wrapped_error(f, t),
}

PERCEPTUAL = "perceptual_distance"  # of frames too, but of all channels at once: LPIPS


@dataclass(frozen=True)
class Metric:
    """A metric: the statistic it is the mean of, and what is done to that mean.

    Parameters
    ----------
    statistic : str
        Key of :data:`STATISTICS` or :data:`FRAME_STATISTICS`; or ``"anomaly_correlation"``, which
        is not a per-point statistic and is computed by :func:`anomaly_correlation`; or
        ``"perceptual_distance"``, by :func:`stforecast.evaluation.lpips.load_lpips`.
    finish : callable
        From the mean of the statistic to the metric; of each frame for frame statistics.
    units : callable
        From the unit of the variable to that of the metric.
    long_name : str
        The metric in words.
    summed : bool
        Whether it is the sum over a frame's points (and variables) in place of the mean.
    """

    statistic: str
    finish: Callable[[np.ndarray], np.ndarray]
    units: Callable[[str], str]
    long_name: str
    summed: bool = False

    @property
    def of_frames(self) -> bool:
        """Whether it is one of whole frames, all points alike: no part of a frame has a value."""
        return self.summed or self.frame_by_frame

    @property
    def frame_by_frame(self) -> bool:
        """Whether each frame has a metric, and the score is their mean."""
        return self.statistic in FRAME_STATISTICS or self.statistic == PERCEPTUAL


def _same(value: Any) -> Any:
    return value


def _squared(unit: str) -> str:
    if unit == "1":
        return "1"
    return f"{unit}**2" if unit.isalpha() else f"({unit})**2"


def _none(_: str) -> str:
    return "1"


def _decibel(_: str) -> str:
    return "dB"


METRICS: dict[str, Metric] = {
    "rmse": Metric("squared_error", np.sqrt, _same, "root of the mean squared error"),
    "mse": Metric("squared_error", _same, _squared, "mean squared error"),
    "mae": Metric("absolute_error", _same, _same, "mean absolute error"),
    "bias": Metric("error", _same, _same, "mean error, forecast minus truth"),
    "acc": Metric("anomaly_correlation", _same, _none, "anomaly correlation coefficient"),
    "mse_sum": Metric("squared_error", _same, _squared, "squared error summed over a frame", True),
    "mae_sum": Metric("absolute_error", _same, _same, "absolute error summed over a frame", True),
    "ssim": Metric("similarity", _same, _none, "structural similarity"),
    "psnr": Metric(
        "relative_squared_error", images.decibels, _decibel, "peak signal-to-noise ratio"
    ),
    "ssim_paper": Metric(
        "paper_similarity",
        _same,
        _none,
        "structural similarity, as the SimVP papers print it (clipped, data range 2)",
    ),
    "psnr_paper": Metric(
        "wrapped_error",
        images.decibels,
        _decibel,
        "peak signal-to-noise ratio, as the SimVP papers print it (clipped, 8-bit wrap-around)",
    ),
    "lpips": Metric(PERCEPTUAL, _same, _none, "perceptual distance (LPIPS 0.1, AlexNet)"),
}


@dataclass(frozen=True)
class WeightedMean:
    """Additive state of a weighted mean: sums of weight times value, and of weight.

    States of the same shape add; the mean of the sum is the mean over all of the data.

    Parameters
    ----------
    total, weight : numpy.ndarray, float64
        The two sums, of the same shape.
    """

    total: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray, keep: Sequence[int] = ()) -> WeightedMean:
        """Sum `values` over all axes but those in `keep`.

        Parameters
        ----------
        values : numpy.ndarray
            A statistic at every point. NaN propagates, but for points of weight zero.
        weights : numpy.ndarray
            At least 0; lies along the last axes of `values`.
        keep : sequence of int
            Axes of `values` that stay, in the order wanted.

        Returns
        -------
        WeightedMean
            With the shape of the axes kept.
        """
        values = np.asarray(values, dtype=np.float64)
        weights = np.asarray(weights, dtype=np.float64)
        if not weights.all():  # 0 * NaN is NaN: a masked point must not reach the sum
            values = np.where(weights > 0, values, 0.0)
        axes = list(range(values.ndim))
        lead, last = axes[: values.ndim - weights.ndim], axes[values.ndim - weights.ndim :]
        total = np.einsum(values, axes, weights, last, list(keep), optimize=True)
        counts: list[Any] = []  # the weights count once for each point along the leading axes
        for axis in lead:
            counts += [np.ones(values.shape[axis]), [axis]]
        weight = np.einsum(weights, last, *counts, list(keep), optimize=True)
        return cls(np.asarray(total), np.asarray(weight))

    def __add__(self, other: WeightedMean) -> WeightedMean:
        if self.total.shape != other.total.shape:
            raise ValueError(f"states differ in shape: {self.total.shape} and {other.total.shape}")
        return WeightedMean(self.total + other.total, self.weight + other.weight)

    @classmethod
    def merge(cls, states: Iterable[WeightedMean]) -> WeightedMean:
        """Add states."""
        return reduce(cls.__add__, states)

    def collapse(self, first: int = 0) -> WeightedMean:
        """State of the mean over all axes that are left, from axis `first` on."""
        rest = tuple(range(first, self.total.ndim))
        return WeightedMean(np.asarray(self.total.sum(rest)), np.asarray(self.weight.sum(rest)))

    @property
    def mean(self) -> np.ndarray:
        """Weighted mean; NaN where the weights sum to zero."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.weight > 0, self.total / self.weight, np.nan)


def anomaly_correlation(
    forecast: np.ndarray, truth: np.ndarray, climatology: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Correlation in space of the anomalies of forecast and truth, for every map by itself.

    As WeatherBench 2 defines it (``weatherbench2/metrics.py``, ``ACC``): with w the weights,
    f' = forecast - climatology and t' = truth - climatology,
    sum(w f' t') / sqrt(sum(w f'^2) sum(w t'^2)). Anomalies are not centred. The score of many
    maps is the mean of their correlations.

    Parameters
    ----------
    forecast, truth, climatology : numpy.ndarray of shape (..., H, W)
        In the same units.
    weights : numpy.ndarray of shape (H, W)
        At least 0; points of weight 0 are left out.

    Returns
    -------
    numpy.ndarray of shape (...)
        Between -1 and 1; NaN where an anomaly is zero everywhere (the climatology's own score).
    """
    f = np.asarray(forecast, dtype=np.float64) - climatology
    t = np.asarray(truth, dtype=np.float64) - climatology
    keep = tuple(range(f.ndim - 2))
    sums = (WeightedMean.of(x * y, weights, keep).total for x, y in ((f, t), (f, f), (t, t)))
    return correlation(*sums)


def correlation(product: np.ndarray, power_a: np.ndarray, power_b: np.ndarray) -> np.ndarray:
    """Correlation from weighted sums of a b, a^2 and b^2; NaN where a power is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return product / np.sqrt(power_a * power_b)
