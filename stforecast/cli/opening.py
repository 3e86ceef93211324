"""The data of a benchmark, opened: three parts, the task on them, and how it is scored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .. import datasets
from ..baselines import Climatology, LinearRegression, Persistence, WeeklyClimatology
from ..datasets import FlowScale, add_inputs, describe, split, with_history
from ..datasets.clips import Split, protocol_times
from ..errors import InputError
from ..task import Task, initialisations
from .benchmark import clip_to_unit
from .recipes import RECIPES, BenchmarkOptions, sample_of, task_for

if TYPE_CHECKING:
    from ..forecasting.forecaster import Forecaster
    from ..task import WindowForecaster

Parts = dict[str, xr.Dataset]
PAPER_PERIODS = {"train": "1979:2015", "validation": "2016", "test": "2017:2018"}
_FRAMES = {
    "data_range": 1.0,
    "protocol": "paper",
    "metrics": ("mse_sum", "mae_sum", "ssim", "psnr"),
}


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Opened:
    """A benchmark's data, and what is done with them.

    Parameters
    ----------
    parts : mapping
        ``"train"``, ``"validation"`` and ``"test"``.
    task : Task
        The same for every network.
    init_time : array of times
        Which initialisations of the test part are scored.
    sample : mapping
        What these are, in words, to be held against the publication's.
    scoring : mapping
        Options of :func:`stforecast.evaluate`.
    scored : callable
        What is done to forecast and truth before they are scored.
    finish : callable
        Makes of a trained forecaster the one that forecasts the test part.
    train_times : array of times, optional
        Initialisations to train on, where these are not all that there are.
    floors : callable
        Gives what a network is to be better than, by name; it takes a fit.
    """

    parts: Parts
    task: Task
    init_time: np.ndarray
    sample: Mapping[str, str]
    scoring: Mapping[str, Any]
    scored: Callable[[xr.Dataset], xr.Dataset] = _same
    finish: Callable[[Forecaster], Forecaster] = _same
    train_times: np.ndarray | None = None
    floors: Callable[[], dict[str, WindowForecaster]] = field(default=dict)


@dataclass(kw_only=True)
class Where:
    """Where a benchmark's data are."""

    data: Path | None = None
    """Directory or store of the data, as the benchmark's pipeline takes it. Without it: the sample
    in the package, where the benchmark has one."""
    train: str | None = None
    """Training period, of weather: 2013:2016, or 2013-01-01/2013-06-30."""
    validation: str | None = None
    """Validation period, of weather: chooses the best weights."""
    test: str | None = None
    """Test period, of weather."""
    sequences: int = 10_000
    """Of Moving MNIST: sequences that are drawn to train on. An epoch of the paper's has 10,000."""
    test_sequences: int = 1000
    """Of Moving MNIST: sequences that are scored."""


# --- weather --------------------------------------------------------------------------------------


def with_constants(ds: xr.Dataset, data: str | Path) -> xr.Dataset:
    """Add land and height from the file of constants beside WeatherBench's files, if there is.

    Parameters
    ----------
    ds : xarray.Dataset
        What was opened from there.
    data : path-like
        Where the files are.

    Returns
    -------
    xarray.Dataset
        With ``land_sea_mask`` and ``orography``, without a time.
    """
    found = sorted(Path(data).glob("constants*.nc")) if Path(data).is_dir() else []
    for path in found[:1]:
        names = ["land_sea_mask", "orography"]
        fields = add_inputs(ds.isel(time=slice(1)), names, constants=path)[names]
        ds = ds.assign(fields.isel(time=0, drop=True).load())
    return ds


def weather_floors(train: xr.Dataset, task: Task) -> dict[str, Any]:
    """Persistence, and what the training period is long enough for.

    Parameters
    ----------
    train : xarray.Dataset
        The training period.
    task : Task
        Plain: the regression finds its climatology by itself.

    Returns
    -------
    dict
        ``"Persistence"``, ``"Climatology"`` and ``"LinearRegression"``. What cannot be fitted is
        left out, and logged.
    """
    found: dict[str, Any] = {"Persistence": Persistence(task)}
    fits: dict[str, Callable[..., Any]] = {"Climatology": Climatology.fit}
    fits["LinearRegression"] = partial(LinearRegression.fit, windows=2000)  # enough: 30 predictors
    for name, fit in fits.items():
        try:
            found[name] = fit(train, task)
        except InputError as error:
            logging.warning("going on without %s: %s", name, error)
    return found


def title_of(ds: xr.Dataset) -> str:
    """What the data call themselves; files that say nothing are taken for WeatherBench's ERA5."""
    name = str(ds.attrs.get("title") or ds.attrs.get("source") or "ERA5")
    return "ERA5" if "era5" in name.lower() else name.split(":")[0]


def weather_parts(ds: xr.Dataset, given: Any, default: Mapping[str, str]) -> Parts:
    """Cut weather into the periods that are given, or the data's own, or the default ones.

    Parameters
    ----------
    ds : xarray.Dataset
        Its own periods are in ``attrs["train_period"]`` and so on.
    given : object
        Options with ``train``, ``validation`` and ``test``, None where not given.
    default : mapping
        Periods by these names.

    Returns
    -------
    dict of str to xarray.Dataset
    """
    own = {k: str(ds.attrs.get(f"{k}_period", period)) for k, period in default.items()}
    return split(ds, **{k: getattr(given, k) or period for k, period in own.items()})


def _weather(where: Where, options: BenchmarkOptions) -> Opened:
    name = "weatherbench_t2m"
    if where.data is None:
        ds = datasets.open_sample()
    else:
        ds = datasets.open_weatherbench(where.data, ["2m_temperature"])
        ds = with_constants(ds, where.data)
    parts = weather_parts(ds, where, PAPER_PERIODS)
    plain = RECIPES[name].task
    parts["test"] = parts["test"].compute().chunk(time=720)  # scores are streamed, not held
    return Opened(
        parts,
        task_for(name, options, parts["train"]),
        initialisations(parts["test"], plain)[:: options.stride],
        sample_of(name, parts["test"], options.stride, title_of(ds)),
        {"metrics": ("rmse", "mae"), "weights": ("uniform", "area")},
        floors=partial(weather_floors, parts["train"], plain),
    )


# --- traffic --------------------------------------------------------------------------------------


def flow_parts(path: Path) -> tuple[Parts, xr.Dataset | None, FlowScale]:
    """Open three parts in memory, all of the series, and what scales it to [0, 1] for the paper.

    Parameters
    ----------
    path : Path
        TaxiBJ, or New York's flows.

    Returns
    -------
    dict of str to xarray.Dataset, xarray.Dataset or None, FlowScale
        The series is None where there are windows without dates.
    """
    nyc = describe(path).adapter == "open_nyc_flow"
    opener = datasets.open_nyc_flow if nyc else datasets.open_taxibj
    ds = opener(path, chunks=None)[list(RECIPES["taxibj"].task.variables)]
    names: tuple[Split, ...] = ("train", "validation", "test")
    if "validation_period" in ds.attrs:
        ds = ds.load()
        parts = split(ds, **{name: ds.attrs[f"{name}_period"] for name in names})
        return parts, ds, FlowScale.of(parts["train"])
    # Windows without dates, which their makers have scaled to [-1, 1]
    parts = {n: datasets.open_taxibj(path, n).load() for n in names}
    return parts, None, FlowScale(-1.0, 1.0)


def look_back(task: Task, parts: Parts, whole: xr.Dataset) -> tuple[Task, Parts]:
    """Begin what is not trained on earlier, for the lags; without lags where there is a gap.

    Parameters
    ----------
    task : Task
        With lags.
    parts : mapping
        ``"train"``, ``"test"`` and, if there is one, ``"validation"``.
    whole : xarray.Dataset
        The series that they are of.

    Returns
    -------
    Task, dict of str to xarray.Dataset
    """
    try:
        names = [n for n in ("validation", "test") if n in parts]
        later = {n: with_history(parts[n], whole, task) for n in names}
    except InputError as error:
        logging.warning("going on without lags: %s", error)
        return replace(task, lags=()), parts
    return task, parts | later


def flow_floors(
    history: xr.Dataset,
    plain: Task,
    lags: tuple[str, ...],
    save: Path | None = None,
    where: Callable[[Any], Any] | None = None,
) -> dict[str, Any]:
    """The usual week, and a regression that gets it and the days before.

    Parameters
    ----------
    history : xarray.Dataset
        What is trained on.
    plain : Task
        Without reference and lags.
    lags : tuple of str
        Of the regression.
    save : Path, optional
        Where to write the usual week, netCDF.
    where : callable, optional
        Where truth counts: the regression is fitted on that alone.

    Returns
    -------
    dict
        ``"usual week"`` and ``"linear regression"``. What cannot be fitted is left out, and logged.
    """
    found: dict[str, Any] = {}
    try:
        found["usual week"] = WeeklyClimatology.fit(history, plain, statistic="median")
        if save is not None:
            found["usual week"].save(save)
        # Few weeks for so many predictors: shrink. Above a limit there are fewer windows still.
        linear = replace(plain, lags=lags, lower=0.0)
        how: dict[str, Any] = {"ridge": 0.05 if where is None else 0.3, "where": where}
        found["linear regression"] = LinearRegression.fit(history, linear, **how)
    except InputError as error:
        logging.warning("going on without it: %s", error)
    return found


def _traffic(where: Where, options: BenchmarkOptions) -> Opened:
    name = "taxibj"
    parts, whole, scale = flow_parts(_given(where, name))
    history, plain = parts["train"], RECIPES[name].task
    task = task_for(name, options, history)
    sample = sample_of(name, parts["test"], options.stride)
    times = initialisations(parts["test"], plain)[:: options.stride]
    if task.lags and whole is not None:
        task, parts = look_back(task, parts, whole)
    finish: Any = _same
    if task == plain:  # trained as the paper has it, on flows that are scaled
        parts |= {part: scale.scale(parts[part]) for part in ("train", "validation")}
        finish = partial(_rescaled, scale=scale)

    def floors() -> dict[str, WindowForecaster]:
        more = {} if whole is None else flow_floors(history, plain, tuple(task.lags))
        return {"persistence": Persistence(plain), **more}

    scoring = _FRAMES | {"metrics": RECIPES[name].scoring["metrics"]}
    return Opened(parts, task, times, sample, scoring, scale.scale, finish, floors=floors)


def _rescaled(forecaster: Forecaster, scale: FlowScale) -> Forecaster:
    return forecaster.rescaled(scale.high - scale.low, scale.low)


# --- clips ----------------------------------------------------------------------------------------


def _digits(where: Where, options: BenchmarkOptions) -> Opened:
    data = _given(where, "moving_mnist")
    published = data / "mnist_test_seq.npy"
    draw = partial(datasets.open_moving_mnist, data, seed=options.seed)
    of_test = published if published.is_file() else data
    parts = {
        "train": draw("train", sequences=where.sequences),
        "validation": draw("validation", sequences=max(1, min(1000, where.sequences // 10))),
        "test": datasets.open_moving_mnist(of_test, "test", sequences=where.test_sequences),
    }
    return _clips("moving_mnist", parts, options)


def _kth(where: Where, options: BenchmarkOptions) -> Opened:
    data = _given(where, "kth")
    return _clips("kth", {str(part): datasets.open_kth(data, part) for part in _SPLITS}, options)


def _caltech(where: Where, options: BenchmarkOptions) -> Opened:
    data = _given(where, "caltech")
    parts = {str(part): datasets.open_kitti(data, part) for part in _SPLITS[:2]}
    return _clips("caltech", parts | {"test": datasets.open_caltech(data, "test")}, options)


def _robots(name: str, where: Where, options: BenchmarkOptions) -> Opened:
    opener = getattr(datasets, f"open_{name}")
    data = _given(where, name)
    return _clips(name, {part: opener(data, part) for part in _SPLITS}, options)


_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def _clips(name: str, parts: Parts, options: BenchmarkOptions) -> Opened:
    own, test = RECIPES[name], parts["test"]
    times = protocol_times(test, own.task) if own.protocol else initialisations(test, own.task)
    shown = None
    if own.protocol and options.preset == "paper":
        shown = protocol_times(parts["train"], own.task)
    scoring = _FRAMES | {k: v for k, v in own.scoring.items() if k == "metrics"}
    floors = partial(dict[str, Any], persistence=Persistence(own.task))
    scored = own.scoring.get("scored", clip_to_unit)
    sample = sample_of(name, test, options.stride)
    more: dict[str, Any] = {"train_times": shown, "floors": floors}
    return Opened(parts, own.task, times[:: options.stride], sample, scoring, scored, **more)


def _given(where: Where, name: str) -> Path:
    if where.data is None:
        raise InputError(f"{name} has no sample in the package: give its data, --data DIR")
    return where.data


#: By the keys of ``RECIPES``.
OPENINGS: dict[str, Callable[[Where, BenchmarkOptions], Opened]] = {
    "weatherbench_t2m": _weather,
    "taxibj": _traffic,
    "moving_mnist": _digits,
    "kth": _kth,
    "caltech": _caltech,
    "robonet": partial(_robots, "robonet"),
    "bridgedata": partial(_robots, "bridgedata"),
}
