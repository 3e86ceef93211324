"""What is made of a data set that nobody has said anything about: task, periods, network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from .. import datasets
from ..baselines.reference import refuse_short
from ..conventions.grid import Grid
from ..datasets.describe import Description, describe
from ..datasets.periods import split, when
from ..errors import InputError
from ..task import Task, initialisations, refuse_months

if TYPE_CHECKING:
    from ..task import WindowForecaster

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
_FLOWS = ("inflow", "outflow")
_FIRST = ("2m_temperature", *_FLOWS)  # what is forecast of a file that has it among others
_SKY = (
    "toa_incident_solar_radiation",
    "latitude_sin",
    "latitude_cos",
    "longitude_sin",
    "longitude_cos",
)
_CLIPS = 512  # sequences that are drawn of digits, where a data set has no end
_MOST_SCORED = 500  # initialisations
_WINDOWS, _FEW = 2000, 1000  # of the linear regression


@dataclass(frozen=True)
class Plan:
    """What opens a data set, what is forecast, from which periods, and by what.

    Parameters
    ----------
    path : str
    opener : str
        The function of :mod:`stforecast.datasets` that reads it.
    task : Task
    periods : mapping of str to str
        ``"train"``, ``"validation"`` and ``"test"``; empty for clips, whose opener has the parts.
    network : mapping
        Settings of :class:`stforecast.SimVPv2`.
    training : mapping
        Settings of :class:`stforecast.TrainConfig`.
    monthly : bool
        The data are monthly, and go on the 360-day calendar.
    opening : mapping
        Options of the opener.
    stride : int
        Every which initialisation of the test part is scored.
    ridge : float
        Of the linear regression: it shrinks where a point has few windows.
    """

    path: str
    opener: str
    task: Task
    periods: Mapping[str, str]
    network: Mapping[str, Any]
    training: Mapping[str, Any]
    monthly: bool = False
    opening: Mapping[str, Any] = field(default_factory=dict)
    stride: int = 1
    ridge: float = 1e-5

    def parts(self) -> dict[str, xr.Dataset]:
        """Open the data, in the three periods."""
        opener = getattr(datasets, self.opener)
        if not self.periods:
            return {part: opener(self.path, part, **self.opening) for part in PARTS}
        return split(_opened(opener(self.path, **self.opening), self.monthly), **self.periods)

    def config(self, **training: Any) -> Any:
        """The settings of the training, and others where they are given."""
        from ..training.config import TrainConfig

        return TrainConfig(**dict(self.training) | training)

    def make(self) -> Any:
        """Make the network."""
        from ..models.simvp import SimVPv2

        return SimVPv2.for_task(self.task, **self.network)

    def times(self, test: xr.Dataset) -> np.ndarray:
        """Initialisations of the test part that are scored."""
        return initialisations(test, self.task)[:: self.stride]

    def floors(self, train: xr.Dataset) -> dict[str, WindowForecaster]:
        """What a forecaster is to be better than: persistence and, but of clips, a regression."""
        from ..baselines import LinearRegression, Persistence

        if not self.periods:
            return {"Persistence": Persistence(self.task)}
        linear = LinearRegression.fit(train, self.task, windows=_WINDOWS, ridge=self.ridge)
        return {"Persistence": Persistence(self.task), "LinearRegression": linear}


def plan(
    path: str | Path,
    *,
    variables: Sequence[str] = (),
    input_steps: int | None = None,
    target_steps: int | None = None,
    periods: Mapping[str, str | None] | None = None,
) -> Plan:
    """Look at a data set, and say how to forecast it.

    Parameters
    ----------
    path : path-like or URL
        Anything that :func:`stforecast.datasets.describe` knows an opener for.
    variables : sequence of str
        What is forecast. Default: flows, 2 m temperature, or else the first variable.
    input_steps, target_steps : int, optional
        Default: half a day of hours or less, a day of longer steps, a week of days, twelve months
        in and three out, four steps of traffic, half a clip; fewer where the periods are short.
    periods : mapping, optional
        ``"train"``, ``"validation"`` and ``"test"``; each that is None, as the data say or the
        first 70%, the next 15% and the last 15% of their times.

    Returns
    -------
    Plan
        With a reference, where the training period is long enough for one.

    Raises
    ------
    InputError
        If nothing opens the path, it lacks a variable, or a period is too short for any window.
    """
    found = describe(path)
    if found.adapter is None:
        raise InputError(f"{path}: {found.reason}")
    if found.problems:
        raise InputError(f"{path}: {found.problems[0]}")
    names = _chosen(found, variables)
    local = found.path.resolve() if isinstance(found.path, Path) else found.path
    made = Plan(str(local), found.adapter, Task(names, 1, 1), {}, {}, {})
    nan: Any = "mask" if any(found.nan_share.get(v, 0) for v in names) else "refuse"
    if found.clips is not None:
        return _of_clips(found, made, nan, input_steps, target_steps)

    opener = getattr(datasets, found.adapter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xr.SerializationWarning)
        ds = opener(made.path, chunks=None)
    monthly = _is_monthly(ds["time"].values)
    ds = _opened(ds, monthly)
    step = "30D" if monthly else str(found.timestep)
    given = {name: (periods or {}).get(name) for name in PARTS}
    default = _periods(ds, monthly)
    wanted = {str(name): given[name] or default[name] for name in PARTS}
    parts = split(ds, **wanted)
    steps = _steps(pd.Timedelta(step), monthly, names == _FLOWS)
    task = _that_fits(
        parts, names, step, nan, (input_steps or steps[0], target_steps or steps[1]),
        fixed=input_steps is not None or target_steps is not None,
    )  # fmt: skip
    grid = Grid.of(ds)
    task = _with_reference(task, parts["train"], grid)
    network: dict[str, Any] = {"encoder_channels": 16, "translator_channels": 64}
    network |= {"translator_blocks": 4, "drop_path": 0.0, "predict_change": True}
    network |= {"circular_longitude": True} if grid.periodic else {}
    training: dict[str, Any] = {"steps": 300, "batch_size": 8, "learning_rate": 2e-3}
    training |= {"balance_leads": True, "validate_every": 100}
    training |= {"area_weighted": True} if grid.geographic else {"loss": "mae"}
    count = len(initialisations(parts["test"], task))
    few = len(initialisations(parts["train"], task)) < _FEW or task.reference == "weekly"
    ridge = 0.05 if few else Plan.ridge
    return replace(
        made, task=task, periods=wanted, network=network, training=training, monthly=monthly,
        opening={"chunks": None}, stride=-(-count // _MOST_SCORED), ridge=ridge,
    )  # fmt: skip


def _opened(ds: xr.Dataset, monthly: bool) -> xr.Dataset:
    """On the 360-day calendar, where every month has one length, if it is monthly."""
    if not monthly:
        return ds
    return ds.convert_calendar("360_day", align_on="date", use_cftime=True)


def _chosen(found: Description, variables: Sequence[str]) -> tuple[str, ...]:
    if variables:
        names = Task(tuple(variables)).variables
        if lacking := [v for v in names if v not in found.variables]:
            raise InputError(
                f"{found.path} has no {', '.join(lacking)}: there are {', '.join(found.variables)}"
            )
        return tuple(names)
    if set(_FLOWS) <= set(found.variables):
        return _FLOWS
    if {"red", "green", "blue"} <= set(found.variables):
        return ("red", "green", "blue")
    return (next((v for v in _FIRST if v in found.variables), next(iter(found.variables))),)


def _of_clips(
    found: Description, made: Plan, nan: Any, input_steps: int | None, target_steps: int | None
) -> Plan:
    """A plan for clips, whose opener has the parts."""
    drawn = found.adapter == "open_moving_mnist"
    opening: dict[str, Any] = {"sequences": _CLIPS} if drawn else {}
    shortest = int(str(found.clips).split(" of ")[1].split()[0])
    half = min(10, shortest // 2)
    task = Task(
        made.task.variables, input_steps or half, target_steps or half, str(found.timestep), nan=nan
    )
    planned = replace(made, task=task, opening=opening)
    count = len(initialisations(planned.parts()["test"], task))
    network = {"encoder_channels": 16, "translator_channels": 64, "translator_blocks": 4}
    training = {"steps": 300, "batch_size": 8, "learning_rate": 1e-3, "validate_every": 100}
    stride = -(-count // _MOST_SCORED)
    return replace(planned, network=network, training=training, stride=stride)


def _is_monthly(time: np.ndarray) -> bool:
    try:
        refuse_months(time)
    except InputError:
        return True
    return False


def _periods(ds: xr.Dataset, monthly: bool) -> dict[str, str]:
    """The data's own periods, or the first 70%, the next 15% and the last 15% of their times."""
    if all(f"{part}_period" in ds.attrs for part in PARTS):
        return {part: str(ds.attrs[f"{part}_period"]) for part in PARTS}
    time = ds["time"].values
    if len(time) < 6:
        raise InputError(f"{len(time)} times are too few for three periods: expected 6 at least")
    days = np.array([when(t)[:10] for t in time])
    cuts = [int(0.7 * len(time)), int(0.85 * len(time))]
    if len(np.unique(days)) > 20 and not monthly:  # at midnight
        cuts = [int(np.argmax(days == days[cut])) for cut in cuts]
    bounds = [0, *cuts, len(time)]
    text = [f"{when(time[a])}/{when(time[b - 1])}" for a, b in pairwise(bounds)]
    return dict(zip(PARTS, text, strict=True))


def _steps(step: pd.Timedelta, monthly: bool, flows: bool) -> tuple[int, int]:
    if flows:
        return 4, 4
    if monthly:
        return 12, 3
    day = pd.Timedelta("1D")
    several = 7 if step >= day else max(2, min(12, int(day / step)))
    return several, several


def _that_fits(
    parts: Mapping[str, xr.Dataset],
    names: tuple[str, ...],
    step: str,
    nan: Any,
    steps: tuple[int, int],
    *,
    fixed: bool,
) -> Task:
    """A task of which every period has windows: of half the steps, where it has none."""
    while True:
        lower = 0.0 if names == _FLOWS else None
        task = Task(names, *steps, step, nan=nan, lower=lower)
        try:
            for ds in parts.values():
                initialisations(ds, task)
        except InputError:
            if fixed or steps == (1, 1):
                raise
            steps = (max(1, steps[0] // 2), max(1, steps[1] // 2))
        else:
            return task


def _with_reference(task: Task, train: xr.Dataset, grid: Grid) -> Task:
    """The task around what is usual, where the training period is long enough to know it."""
    if task.outputs == _FLOWS:
        around = replace(task, reference="weekly", known=("reference",))
    else:
        daily = pd.Timedelta(task.timestep) >= pd.Timedelta("1D")
        sky = () if daily or not grid.geographic else _SKY
        around = replace(task, reference="climatology", known=("reference", *sky))
    try:
        refuse_short(train["time"].values, around)
    except InputError:
        return task
    return around
