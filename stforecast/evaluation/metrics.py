"""Metrics as objects: a statistic at points, its weighted mean, and a function of that mean.

A metric is computed in three steps, so that scores of any amount of data can be streamed:

1. a *statistic* of forecast and truth at every point, such as :func:`squared_error`;
2. :class:`WeightedMean`: its weighted sum and the sum of the weights, in float64. States add, in
   any order, so blocks may come in any order or from several machines;
3. ``finish``, a function of the mean. The root of RMSE is taken here, last.

A statistic may reduce dimensions itself, which :attr:`Metric.dims` names: SSIM has one value for a
frame, and the finish is then done frame by frame, before the mean over frames.

**NaN policy.** A NaN at a point with a weight makes every mean it enters NaN: missing data must
not look like a good score. A point leaves the score only where its weight is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import InputError
from . import images, probabilistic, spectra
from .means import WeightedMean

FRAME = ("y", "x")  # the rows and columns of a map or picture, whatever their names in the data
MEMBERS = "realization"
_DIMS: tuple[set[str], ...] = (
    *(set(), {MEMBERS}, {"x"}, {MEMBERS, "x"}),
    *({*FRAME}, {MEMBERS, *FRAME}, {"variable", *FRAME}),
)
_SETTINGS = {"data_range", "lpips", "climatology", "circular_longitude"}


def error(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Forecast minus truth, at every point."""
    return forecast - truth


def absolute_error(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Size of the error, at every point."""
    return np.abs(forecast - truth)


def squared_error(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Square of the error, at every point."""
    return np.square(forecast - truth)


def percentage_error(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Size of the error in percent of truth, at every point; infinite or NaN where truth is 0."""
    return 100 * np.abs((forecast - truth) / truth)


@dataclass(frozen=True)
class Above:
    """Choose the points where truth is above a limit, for ``evaluate(..., where=Above(10))``.

    Parameters
    ----------
    limit : float
        In the unit of the variable as it is scored: of a temperature K.
    """

    limit: float

    def __call__(self, truth: np.ndarray) -> np.ndarray:
        """Tell for every point of truth whether it counts."""
        return truth > self.limit

    def __str__(self) -> str:
        return f"truth > {self.limit:g}"


def anomaly_products(
    forecast: np.ndarray, truth: np.ndarray, climatology: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products f't', f'f' and t't' of the anomalies of forecast and truth, at every point."""
    f, t = forecast - climatology, truth - climatology
    return f * t, f * f, t * t


def perceptual_distance(
    forecast: np.ndarray, truth: np.ndarray, data_range: float, lpips: Callable[..., np.ndarray]
) -> np.ndarray:
    """LPIPS of frames (N, L, C, H, W), all channels of a frame together: (N, L)."""
    flat = [(x / data_range).reshape(-1, *x.shape[2:]) for x in (forecast, truth)]
    return np.asarray(lpips(*flat)).reshape(forecast.shape[:2])


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Metric:
    """A metric, for :func:`stforecast.evaluate`.

    Parameters
    ----------
    name : str
        What it is called in results.
    statistic : callable
        ``statistic(forecast, truth, **settings)``: its value at every point, an array of truth's
        shape (N, L, H, W) without the axes that `dims` names; float64, with the dimensions
        initialisation, lead time, row and column. Points that are masked are 0 in both arrays.
    finish : callable
        From the mean of the statistic to the metric. Default: the mean is the metric.
    units : callable
        From the unit of the variable to the unit of the metric: "K" to "K", "K**2", "1" or "dB".
        Default: the same.
    long_name : str
        The metric in words.
    dims : tuple of str
        Dimensions that are taken as a whole, so that the metric has no value by these.
        ``("y", "x")``: of whole frames, whose rows and columns these are under any name; the
        statistic gives (N, L), `finish` is done frame by frame, and the score is the mean over
        frames. ``("variable", "y", "x")``: of all channels of a frame; arrays are (N, L, C, H, W).
        ``("realization",)``: of all members of an ensemble; the forecast is (M, N, L, H, W).
        ``("x",)``: of whole rows; the statistic gives (N, L, H).
    settings : tuple of str
        Arguments of ``evaluate`` that the statistic takes by name and that must be given for it:
        "data_range", "lpips"; "circular_longitude", whether rows go round the globe, is known.
    summed : bool
        Whether it is the sum over a frame's points (and variables) in place of the mean.
    several : bool
        Whether the statistic gives several arrays, one after the other (an iterator will do);
        `finish` takes the means of all, (K, ...).
    coords : mapping of str to sequence or callable, optional
        Dims that the metric has of its own, with their labels, or a function of their number (and
        the `settings`); `finish` gives these dims first. Such a metric has a variable of its own in
        the result, ``V_name``, and is not along the dim ``metric``.
    weighted : bool
        Of a metric of whole frames: whether its statistic is of points, which have weights; the
        weighted means of each map are finished, and the score is the mean over maps.
    whole : bool
        Whether the statistic gives values at points for which it must see all of their map.
    least : int
        Members that an ensemble must have.
    single : bool
        Of a metric of all members: whether a forecast without members counts as one of one member.
    thresholds : Thresholds, optional
        Of an event; the statistic has as third argument a sequence of functions, one for each
        threshold, that tell of an array where the event is.
    narrow : bool
        Whether the statistic takes arrays of float32, as the data are; NaN at points that are
        masked.

    Examples
    --------
    >>> large = Metric("large", lambda f, t: abs(f - t) > 2.0, units=lambda unit: "1")
    """

    name: str
    statistic: Callable[..., Any]
    finish: Callable[[np.ndarray], np.ndarray] = _same
    units: Callable[[str], str] = _same
    long_name: str = ""
    dims: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    summed: bool = False
    several: bool = False
    coords: Mapping[str, Any] | None = None
    weighted: bool = False
    whole: bool = False
    least: int = 1
    single: bool = False
    thresholds: Any = None
    narrow: bool = False

    @property
    def of_maps(self) -> bool:
        """Whether it is finished map by map, and the score is the mean over maps."""
        return set(FRAME) <= set(self.dims) and not self.summed

    @property
    def of_frames(self) -> bool:
        """Whether all points of a frame count alike: it knows no weights, regions and masks."""
        return set(FRAME) <= set(self.dims) and not self.weighted

    @property
    def of_rows(self) -> bool:
        """Whether it is of whole rows."""
        return "x" in self.dims and "y" not in self.dims

    def __post_init__(self) -> None:
        dims, settings = set(self.dims), set(self.settings)
        if dims not in _DIMS or not settings <= _SETTINGS:
            raise InputError(
                f"metric {self.name!r}: dims are among {[tuple(sorted(d)) for d in _DIMS]} and "
                f"settings among {sorted(_SETTINGS - {'climatology'})}, found {self.dims}, "
                f"{self.settings}"
            )

    def bound(self, settings: Mapping[str, Any]) -> Callable[..., Any]:
        """Bind the settings that the statistic takes."""
        own = {name: settings[name] for name in self.settings if name in settings}
        return partial(self.statistic, **own) if own else self.statistic


def _squared(unit: str) -> str:
    if unit == "1":
        return "1"
    return f"{unit}**2" if unit.isalpha() else f"({unit})**2"


def _none(_: str) -> str:
    return "1"


def _percent(_: str) -> str:
    return "%"


def _decibel(_: str) -> str:
    return "dB"


def _ssim(forecast: np.ndarray, truth: np.ndarray, data_range: float) -> np.ndarray:
    return images.ssim(forecast, truth, data_range=data_range)


def _relative(forecast: np.ndarray, truth: np.ndarray, data_range: float) -> np.ndarray:
    return images.relative_squared_error(forecast, truth, data_range=data_range)


def _paper_ssim(forecast: np.ndarray, truth: np.ndarray, data_range: float) -> np.ndarray:
    return images.paper_ssim(forecast, truth)  # evaluate has seen that data_range is 1


def _wrapped(forecast: np.ndarray, truth: np.ndarray, data_range: float) -> np.ndarray:
    return images.wrapped_error(forecast, truth)


def _correlation(sums: np.ndarray) -> np.ndarray:
    return correlation(*sums)


_frames = partial(Metric, dims=FRAME, settings=("data_range",))
_members = partial(Metric, dims=(MEMBERS,), several=True, narrow=True)


def _energy(name: str, fair: bool, long_name: str) -> Metric:
    return Metric(
        *(name, probabilistic.energy_terms, partial(probabilistic.energy_score, fair=fair)),
        long_name=long_name,
        dims=(MEMBERS, *FRAME),
        several=True,
        narrow=True,
        weighted=True,
        least=2 if fair else 1,
        single=True,
    )


#: The metrics that :func:`stforecast.evaluate` knows by name. It cannot be changed: give
#: ``evaluate`` a :class:`Metric` of your own as it is.
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("rmse", squared_error, np.sqrt, _same, "root of the mean squared error"),
            Metric("mse", squared_error, _same, _squared, "mean squared error"),
            Metric("mae", absolute_error, _same, _same, "mean absolute error"),
            Metric("bias", error, _same, _same, "mean error, forecast minus truth"),
            Metric("mape", percentage_error, _same, _percent, "mean absolute percentage error"),
            Metric(
                "acc",
                anomaly_products,
                _correlation,
                _none,
                "anomaly correlation coefficient",
                FRAME,
                ("climatology",),
                weighted=True,
            ),
            Metric(
                "mse_sum",
                squared_error,
                _same,
                _squared,
                "squared error summed over a frame",
                FRAME,
                summed=True,
            ),
            Metric(
                "mae_sum",
                absolute_error,
                _same,
                _same,
                "absolute error summed over a frame",
                FRAME,
                summed=True,
            ),
            _frames("ssim", _ssim, _same, _none, "structural similarity"),
            _frames("psnr", _relative, images.decibels, _decibel, "peak signal-to-noise ratio"),
            _frames(
                "ssim_paper",
                _paper_ssim,
                _same,
                _none,
                "structural similarity, as the SimVP papers print it (clipped, data range 2)",
            ),
            _frames(
                "psnr_paper",
                _wrapped,
                images.decibels,
                _decibel,
                "peak signal-to-noise ratio, as the SimVP papers print it (clipped, 8-bit "
                "wrap-around)",
            ),
            Metric(
                "lpips",
                perceptual_distance,
                _same,
                _none,
                "perceptual distance (LPIPS 0.1, AlexNet)",
                ("variable", *FRAME),
                ("data_range", "lpips"),
            ),
            _members(
                *("crps", probabilistic.crps_terms, partial(probabilistic.crps, fair=False)),
                long_name="continuous ranked probability score of the members",
                single=True,
            ),
            _members(
                *("crps_fair", probabilistic.crps_terms, partial(probabilistic.crps, fair=True)),
                long_name="fair continuous ranked probability score",
                least=2,
                single=True,
            ),
            _members(
                *("spread_skill", probabilistic.spread_terms, probabilistic.spread_skill, _none),
                "spread / skill: (M + 1) / M times the members' variance over the squared error "
                "of their mean, root last",
                least=2,
            ),
            _members(
                *("rank_histogram", probabilistic.rank_terms, _same, _none),
                "share of cases by rank of truth among the members",
                coords={"rank": np.arange},
            ),
            _energy("energy_score", fair=False, long_name="energy score of maps"),
            _energy("energy_score_fair", fair=True, long_name="fair energy score of maps"),
            Metric(
                *("spectrum", spectra.powers, spectra.spectrum, _squared),
                "power by wavenumber along rows, of forecast and truth, and their ratio (unit 1)",
                (MEMBERS, "x"),
                ("circular_longitude",),
                several=True,
                single=True,
                coords={
                    "field": ("forecast", "truth", "ratio"),
                    "wavenumber": spectra.wavenumbers,
                },
            ),
        )
    }
)


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
