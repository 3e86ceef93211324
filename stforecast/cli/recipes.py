"""What the paper's benchmarks differ by, in one table, and the way that all of them go."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from ..baselines.reference import refuse_short
from ..conventions.grid import Grid
from ..conventions.overlap import FINGERPRINT
from ..conventions.times import iso_time
from ..datasets.clips import protocol_times
from ..errors import InputError
from ..evaluation.metrics import Above
from ..task import Task
from .benchmark import TrainingOptions, train_and_score
from .compared import SMALL, as_printed, network_of, training_of
from .tables import WIDTH, to_lines

if TYPE_CHECKING:
    import pandas as pd

    from ..training.config import TrainConfig


log = logging.getLogger(__name__)

_Ablation = Literal["gsta", "incepu", "vit", "swin", "poolformer", "mlpmixer", "convmixer"]
Translator = _Ablation | Literal["tau", "van", "moganet", "hornet", "convnext", "uniformer"]


@dataclass(kw_only=True)
class BenchmarkOptions(TrainingOptions):
    """What the pipelines of all benchmarks can be told; each adds where its data are."""

    preset: Literal["fast", "paper"] = "fast"
    """fast: a small network, trained in steps that fit a CPU.
    paper: the paper's network and protocol; wants a GPU."""
    stride: int = 1
    """Score every n-th initialisation of the test part."""
    model: str = "SimVPv2"
    """Network, by its name in the registry, in any case. Others than SimVPv2 have their own
    settings; with the paper's preset those of this benchmark, where they have such. Graph networks
    are then as they were printed, with the training, windows and periods of that table."""
    translator: Translator = "gsta"
    """What SimVPv2 has in its middle, in place of gsta: one of the paper's ablation (up to
    convmixer), or of its authors' framework. incepu makes it SimVP, the first version; tau makes it
    TAU, whose loss is --loss tau."""
    drop_path: float | None = None
    """Stochastic depth of all blocks of SimVPv2, in place of the preset's: a long training on few
    years learns their weather by heart without."""
    dropout: float | None = None
    """Dropout in SimVPv2's feed-forward parts, in place of the preset's."""
    mirror: bool = False
    """Teach SimVPv2 the mirror image about the equator as well, and forecast the mean of both: for
    global grids."""


@dataclass(kw_only=True)
class VideoOptions(BenchmarkOptions):
    """What the pipelines of video can be told besides."""

    lpips: tuple[Path, ...] = ()
    """Files with the weights of LPIPS, which do not come with this package: torchvision's
    ``alexnet-owt-*.pth`` and ``alex.pth`` of the package lpips. LPIPS is scored with them."""


@dataclass(frozen=True)
class Recipe:
    """How a benchmark is trained and scored.

    Parameters
    ----------
    task : Task
        What is forecast from what.
    small : mapping
        Settings of the fast preset's network, in place of the paper's
        (:meth:`stforecast.SimVPv2.for_benchmark`).
    fast, paper : mapping
        Settings of :class:`stforecast.TrainConfig`, by preset.
    scoring : mapping
        Settings of :func:`train_and_score`.
    protocol : bool
        Whether the protocol names the windows: :func:`stforecast.datasets.protocol_times`.
    more : mapping
        What the task of the fast preset has besides: what forecasts are differences from, what is
        known for the target times. Beyond the paper.
    test : callable
        Says in words what test data are, for the comparison with those of the publication.
    like : str, optional
        The paper's benchmark whose network it has, made for its own numbers of steps.
    """

    task: Task
    small: Mapping[str, Any]
    fast: Mapping[str, Any]
    paper: Mapping[str, Any]
    scoring: Mapping[str, Any] = field(default_factory=dict)
    protocol: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)
    test: Callable[[xr.Dataset], str] = lambda ds: " to ".join(
        iso_time(t)[:10] for t in ds["time"].values[[0, -1]]
    )
    like: str | None = None


def _robots(ds: xr.Dataset) -> str:
    listed = "test files listed" in ds.attrs[FINGERPRINT]
    return "trajectories of a list" if listed else "trajectories by a hash of their names"


def _windows(ds: xr.Dataset) -> str:
    return "windows of dataset.npz" if "clip" in ds.coords else Recipe.test(ds)


_RGB = ("red", "green", "blue")
_SMALL = {"encoder_channels": 16, "mlp_ratio": 4.0}
_CHANGE = _SMALL | {"drop_path": 0.0, "predict_change": True}
_SKY = (
    "toa_incident_solar_radiation",
    "latitude_sin",
    "latitude_cos",
    "longitude_sin",
    "longitude_cos",
)
_VIDEO = {"epochs": 100, "batch_size": 4, "steps": 200, "learning_rate": 1e-3}
_ROBOT: dict[str, Any] = {"fast": _VIDEO}
_ROBOT |= {"small": _CHANGE | {"translator_channels": 128, "translator_blocks": 4}}
_ROBOT |= {"paper": {"epochs": 100, "batch_size": 64, "learning_rate": 1e-3}}
_ROBOT |= {"test": _robots}
_ALL = 10**9
_FLOW: dict[str, Any] = _CHANGE | {"translator_channels": 64, "translator_blocks": 4}
_FLOW |= {"mlp_ratio": 2.0, "drop_path": 0.1, "stochastic_depth": "uniform", "dropout": 0.1}
_FLOW |= {"linear_guess": True, "guess_ridge": 1.0}
_WEEK = {"reference": "weekly", "known": ("reference",), "lags": ("1D", "2D", "3D"), "lower": 0.0}
_FLOW_TRAINING: tuple[dict[str, Any], dict[str, Any]] = (
    {"epochs": 50, "steps": 1000, "batch_size": 16, "learning_rate": 2e-3}
    # Of counts in quiet cells the absolute error tells more; the squared one gets no worse.
    | {"validate_every": 100, "val_windows": 512, "loss": "mae"},
    {"epochs": 50, "batch_size": 16, "learning_rate": 5e-4, "schedule": "cosine"}
    | {"warmup_epochs": 5, "val_windows": _ALL},
)
_ABOVE: dict[str, Any] = {"where": Above(10)}
# The published MSE and MAE are of forecasts as they are, not clipped.
_SUMS = {"metrics": ("mse_sum", "mae_sum", "ssim"), "scored": lambda ds: ds}

# Of the graph networks' rows, by the settings of their code (the learning rate that it lets fall
# does not). Its loss is in kelvin: what is compared with gradients is divided by ERA5's 21.2 K.
_PRINTED: dict[str, Any] = {"epochs": 100, "batch_size": 32, "loss": "mae", "learning_rate": 5e-3}
_PRINTED |= {"schedule": "constant", "epsilon": 1e-3 / 21.2, "clip_norm": 5 / 21.2, "patience": 50}
#: Periods of the graph networks' rows of the weather table: seven, one and two tenths of 2010-2018.
PRINTED_PERIODS = {
    "train": "2010-01-01/2016-04-18",
    "validation": "2016-04-19/2017-03-13",
    "test": "2017-03-14/2018-12-30",
}

#: By the names of :meth:`stforecast.SimVPv2.for_benchmark`; and New York's flows by the protocol of
#: Lin et al., whose network is not ours.
RECIPES: dict[str, Recipe] = {
    "weatherbench_t2m": Recipe(
        Task("2m_temperature", input_steps=12, target_steps=12, timestep="1h"),
        _CHANGE
        | {"translator_channels": 128, "translator_blocks": 6, "circular_longitude": True}
        | {"linear_guess": True},
        {"epochs": 50, "steps": 600, "batch_size": 8, "learning_rate": 2e-3}
        | {"area_weighted": True, "balance_leads": True, "validate_every": 100}
        | {"val_windows": 128},
        {"epochs": 50, "batch_size": 16, "learning_rate": 5e-3, "schedule": "cosine"}
        | {"area_weighted": False, "balance_leads": False, "val_windows": _ALL},
        more={"reference": "climatology", "known": ("reference", *_SKY)},
    ),
    "taxibj": Recipe(
        Task(("inflow", "outflow"), input_steps=4, target_steps=4, timestep="30min"),
        _FLOW,
        *_FLOW_TRAINING,
        _SUMS,
        more=_WEEK,
        test=_windows,
    ),
    "nyc_dsan": Recipe(
        Task(("inflow", "outflow"), input_steps=12, target_steps=12, timestep="30min"),
        _FLOW | {"encoder_channels": 32},
        # Steps, rate and loss were chosen on days 33 to 39; it learns from what is scored.
        _FLOW_TRAINING[0] | {"steps": 300, "learning_rate": 4e-3, "loss": "huber", **_ABOVE},
        _FLOW_TRAINING[1],
        {"metrics": ("rmse", "mae", "mape"), "scored": lambda ds: ds, **_ABOVE},
        more=_WEEK,
        like="taxibj",
    ),
    "moving_mnist": Recipe(
        Task("intensity", input_steps=10, target_steps=10, timestep="1s"),
        _SMALL | {"translator_channels": 128, "translator_blocks": 4},
        {"epochs": 1, "learning_rate": 1e-3, "validate_every": 100, "val_windows": _ALL},
        {"epochs": 1, "learning_rate": 1e-3, "val_windows": _ALL},
        _SUMS,
        test=lambda ds: str(ds.attrs["source"]),
    ),
    "kth": Recipe(
        Task("intensity", input_steps=10, target_steps=20, timestep="40ms"),
        _CHANGE | {"translator_channels": 64},
        _VIDEO,
        {"epochs": 100, "batch_size": 16, "learning_rate": 1e-3},
        protocol=True,
        test=lambda ds: "{} persons, {} actions".format(
            *(len(np.unique(ds[name])) for name in ("person", "action"))
        ),
    ),
    "caltech": Recipe(
        Task(_RGB, input_steps=10, target_steps=1, timestep="100ms"),
        _CHANGE | {"translator_channels": 64},
        _VIDEO,
        {"epochs": 100, "batch_size": 16, "learning_rate": 5e-3},
        protocol=True,
        test=lambda ds: f"{len(np.unique(ds['clip']))} sequences",
    ),
    "robonet": Recipe(Task(_RGB, input_steps=2, target_steps=10, timestep="1s"), **_ROBOT),
    "bridgedata": Recipe(Task(_RGB, input_steps=2, target_steps=10, timestep="200ms"), **_ROBOT),
}


def recipe(
    name: str,
    options: BenchmarkOptions,
    *,
    size: str = "S",
    grid: Grid | tuple[int, ...] | None = None,
    task: Task | None = None,
    **training: Any,
) -> tuple[Callable[[], Any] | str, TrainConfig]:
    """Network and training of a benchmark, by the preset and the other options.

    Parameters
    ----------
    name : str
        Key of ``RECIPES``.
    options : BenchmarkOptions
    size : {"S", "M", "L"}
        Of SimVPv2 (S or L) or ConvLSTM.
    grid : (int, int) or Grid, optional
        Height and width of the fields, which networks with weights of positions need; the grid
        itself, which graph networks need as they were printed.
    task : Task, optional
        From :func:`task_for`, whose frames may have more channels than the recipe's.
    **training
        Settings of :class:`stforecast.TrainConfig` in place of the recipe's, where not None.

    Returns
    -------
    network : callable or str
        Makes the network; or its name, where it is made for the task with its own settings.
    config : TrainConfig

    Raises
    ------
    InputError
        If there is no such network, or SimVPv2's options are given for another.
    """
    from ..models.mirror import odd_channels
    from ..models.registry import make_network, network_class, spelled
    from ..models.simvp import SimVPv2

    own, paper, model = RECIPES[name], options.preset == "paper", spelled(options.model) or ""
    training = {key: value for key, value in training.items() if value is not None}
    steps = {"input_steps": own.task.input_steps, "target_steps": own.task.target_steps}
    steps, name = (steps, own.like) if own.like else ({}, name)
    preset = dict(own.paper if paper else own.fast) | (_PRINTED if as_printed(options) else {})
    if model in SMALL:
        preset |= training_of(model, name, paper=paper)
    config = options.config(**preset | training)
    where, grid = (grid.to_dict(), grid.shape) if isinstance(grid, Grid) else (None, grid)
    if (kind := network_class(options.model)) is not SimVPv2:
        if options.translator != "gsta" or (size != "S" and model not in SMALL):
            raise InputError(f"translator and size L are SimVPv2's, found model {options.model!r}")
        if options.drop_path is not None or options.dropout is not None or options.mirror:
            raise InputError(
                f"drop_path, dropout and mirror are SimVPv2's, found model {options.model!r}"
            )
        if model in SMALL:
            task = own.task if own.like else task
            return network_of(model, name, paper, size, task, grid), config
        if as_printed(options):
            protocol = {"protocol": "clcrn"}
            return partial(make_network, options.model, own.task, where, protocol), config
        published = paper and hasattr(kind, "for_benchmark")
        return partial(kind.for_benchmark, name, **steps) if published else options.model, config
    settings: dict[str, Any] = {"size": size, "grid": None, **steps, **({} if paper else own.small)}
    if task is not None:
        settings |= {"channels": task.channels_in, "out_channels": task.channels_out}
    if (chosen := options.translator) != "gsta":
        settings["translator"] = chosen
        settings |= {"circular_longitude": False} if chosen == "mlpmixer" else {}
    if chosen in ("swin", "mlpmixer") or settings.get("linear_guess"):
        settings["grid"] = grid
    if settings.get("linear_guess"):
        settings["known_channels"] = (task or own.task).channels_known
    if options.drop_path is not None:
        settings |= {"drop_path": options.drop_path, "stochastic_depth": "uniform"}
    if options.dropout is not None:
        settings["dropout"] = options.dropout
    if options.mirror:
        settings |= {"mirror": True, "odd_channels": odd_channels(task or own.task, where)}
    return partial(SimVPv2.for_benchmark, name, **settings), config


def task_for(name: str, options: BenchmarkOptions, train: xr.Dataset) -> Task:
    """What a benchmark forecasts from what, by the preset and the training data.

    Parameters
    ----------
    name : str
        Key of ``RECIPES``.
    options : BenchmarkOptions
    train : xarray.Dataset
        The training part. Its fields without a time (land, height) are known as well.

    Returns
    -------
    Task
        The recipe's, where the preset is the paper's; one without anomalies, where the training
        period is too short for a climatology, which is logged; one without what is known, where the
        network is not this library's.
    """
    from ..models.registry import network_class

    own = RECIPES[name]
    if options.preset == "paper" or not own.more or "clip" in train.coords:
        return own.task
    if not network_class(options.model).__module__.startswith(
        "stforecast."
    ):  # it gives what it is given, perhaps: frames of one kind
        own = replace(own, more={k: v for k, v in own.more.items() if k not in ("known", "lags")})
    fields = tuple(str(v) for v, a in train.data_vars.items() if "time" not in a.dims)
    known = (*own.more.get("known", ()), *fields) if "known" in own.more else ()
    task = replace(own.task, **(dict(own.more) | {"known": known}))
    try:
        refuse_short(train["time"].values, task)
    except InputError as error:
        log.warning("the network forecasts no anomalies: %s", error)
        task = replace(task, reference=None, known=tuple(v for v in known if v != "reference"))
    return task


def sample_of(
    name: str, test: xr.Dataset, stride: int = 1, data: str | None = None
) -> dict[str, str]:
    """Say in words what a benchmark is scored on, to be held against the publication's words.

    Parameters
    ----------
    name : str
        Key of ``RECIPES``.
    test : xarray.Dataset
        The test part.
    stride : int
        Every which initialisation of it is scored.
    data : str, optional
        What the data are. Default: their title, up to a colon.

    Returns
    -------
    dict of str to str
        ``data``, ``grid`` and ``test``, for :func:`stforecast.evaluation.benchmark_table`.
    """
    words = RECIPES[name].test(test) + (f", every {stride}. initialisation" * (stride > 1))
    grid = " x ".join(str(n) for n in Grid.of(test).shape)
    return {
        "data": data or str(test.attrs.get("title", "untitled data")).split(":")[0],
        "grid": grid,
        "test": words,
    }


def run_benchmark(
    name: str,
    parts: Mapping[str, xr.Dataset] | Callable[[str], xr.Dataset],
    options: BenchmarkOptions,
    *,
    published: str | None = None,
    size: str = "S",
    task: Task | None = None,
    training: Mapping[str, Any] | None = None,
    **scoring: Any,
) -> pd.DataFrame:
    """Train and score as a recipe says, and print the scores among the published rows.

    Parameters
    ----------
    name : str
        Key of ``RECIPES``.
    parts : mapping or callable
        Data sets ``"train"``, ``"validation"`` and ``"test"``, or what opens one by that name.
    options : BenchmarkOptions
    published : str, optional
        Name of the published table. Default: `name`.
    size, task, training
        See :func:`recipe`.
    **scoring
        For :func:`train_and_score`, in place of the recipe's.

    Returns
    -------
    pandas.DataFrame
        As :func:`train_and_score` gives it.
    """
    own = RECIPES[name]
    if callable(parts):
        parts = {part: parts(part) for part in ("train", "validation", "test")}
    grid = Grid.of(parts["test"]).shape
    own = own if task is None else replace(own, task=task)
    network, config = recipe(name, options, size=size, grid=grid, task=task, **training or {})
    if paths := getattr(options, "lpips", ()):
        scoring["lpips"] = paths
    if own.protocol:
        scoring["init_time"] = protocol_times(parts["test"], own.task, scoring.get("steps"))
        if options.preset == "paper":
            scoring["train_times"] = protocol_times(parts["train"], own.task)
    scoring = {"stride": options.stride, **own.scoring, **scoring}
    scoring.setdefault("sample", sample_of(name, parts["test"], options.stride))
    table = train_and_score(published or name, parts, own.task, network, config, options, **scoring)
    why_not = table.attrs.get("not_comparable")
    sys.stdout.write(f"\n{to_lines(table)}\n" + (f"{why_not}\n" if why_not else ""))
    written = ", ".join(["model/", "forecast.zarr", *table.attrs.get("written", ())])
    sys.stdout.write(f"\nResults are in {options.output.resolve()}:\n")
    sys.stdout.write(
        f"{textwrap.fill(written, WIDTH, initial_indent='  ', subsequent_indent='  ')}\n"
    )
    return table
