"""What a forecaster is asked to do (:class:`Task`), and where its windows lie in time.

A window is ``input_steps`` consecutive time steps followed by ``target_steps`` more. Windows never
cross a missing time, and splitting a period before windows are taken keeps them inside their split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from .conventions.times import time_differences
from .conventions.variables import canonical_name
from .errors import InputError

#: What to do with calendar months where a step must have one length.
_MONTHS = (
    "months have 28 to 31 days, and a window needs steps of one length. On a calendar of 30-day "
    "months the dates stay what they are: ds.convert_calendar('360_day', align_on='date', "
    "use_cftime=True), with Task(timestep='30D'). Give months by their first days, not their last"
)


_MOST_STEPS = 1_000_000
_REFERENCES = ("climatology", "weekly")


def _several(value: Any) -> tuple[Any, ...]:
    one = isinstance(value, str) or not isinstance(value, Iterable)
    return (value,) if one else tuple(value)


def _length(value: Any, expected: str) -> pd.Timedelta:
    """Read a length of time; a number has no unit."""
    try:
        if isinstance(value, (bool, int, float, np.number)):
            raise TypeError
        return pd.Timedelta(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{expected}, found {value!r:.60}") from error


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    names = _several(value)
    if not names or not all(isinstance(n, str) and n for n in names):
        raise InputError(f"expected one or more variable names, found {value!r}")
    canonical = tuple(canonical_name(n) for n in names)
    if len(set(canonical)) != len(canonical):
        raise InputError(f"variable names must be different from each other, found {names}")
    return canonical


@dataclass(frozen=True)
class Task:
    """What is forecast from what: variables, numbers of steps, and the step.

    Parameters
    ----------
    variables : str or sequence of str
        Input variables, one channel each. Any known alias will do (``t2m`` is
        ``2m_temperature``); names are stored in their canonical form.
    input_steps, target_steps : int
        Length of the history (T) and of the forecast (T').
    timestep : str or timedelta
        Time between two steps, as :class:`pandas.Timedelta` reads it: ``"1h"``, ``"30min"``. It
        has one length: see Notes for months.
    targets : sequence of str, optional
        Variables to forecast, where they are not simply `variables`: what is an input only (a
        land-sea mask, the sun) needs no forecast, and what is a target only no history.
    nan : {"refuse", "mask"}
        What missing values (NaN) mean. ``"refuse"``: an error, wherever data are used. ``"mask"``:
        in the input they count as the training mean, in a target they carry neither loss nor
        score, and a forecast is NaN where the last input step of its variable is.
    reference : {"climatology", "weekly"}, optional
        Forecast differences from what is usual, in place of the quantities themselves; history and
        forecast stay in physical units. ``"climatology"``: harmonics of the year and of the day;
        ``"weekly"``: the median of the training weeks at the time of the week. It is fitted to the
        training period alone; a network, and :class:`stforecast.baselines.LinearRegression`,
        learn without what the window's own years (or weeks) have put into it.
    known : sequence of str
        Inputs that are known for the target times: what is computed from time and place (see
        :func:`stforecast.datasets.add_inputs`), ``"reference"`` itself, or variables of the data:
        a holiday, another model's forecast (on ``time, prediction_timedelta``), or, without a time,
        a field that never changes, which is kept with the forecaster.
    lags : sequence of str or timedelta
        Further inputs: the outputs this long before each target time, such as ``["1D", "7D"]``. The
        history is as long as they ask for; none may be shorter than the forecast.
    lower : float, optional
        No forecast is below it: 0 for counts. In the units that the network has: temperatures are
        in K, whatever the units of the data.

    Notes
    -----
    A lead time is a length, and months have several. Monthly data go on the 360-day calendar, where
    every month has 30 days and every date keeps its name:
    ``ds.convert_calendar("360_day", align_on="date", use_cftime=True)`` and ``timestep="30D"``.

    Examples
    --------
    >>> Task("t2m").variables
    ('2m_temperature',)
    >>> Task(["t2m", "lsm", "orography"], targets="t2m").outputs
    ('2m_temperature',)
    """

    variables: tuple[str, ...] | str
    input_steps: int = 12
    target_steps: int = 12
    timestep: str = "1h"
    targets: tuple[str, ...] | str | None = None
    nan: Literal["refuse", "mask"] = "refuse"
    reference: Literal["climatology", "weekly"] | None = None
    known: tuple[str, ...] | str = ()
    lags: tuple[str, ...] | str = ()
    lower: float | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "variables", _names(self.variables))
        if self.targets is not None:
            set_(self, "targets", _names(self.targets))
        for name in ("input_steps", "target_steps"):
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or not 1 <= value <= _MOST_STEPS:
                most = f" and at most {_MOST_STEPS:,}" if whole and value > 1 else ""
                raise InputError(
                    f"Task.{name} must be a whole number of at least 1{most}, found {value!r:.60}"
                )
            set_(self, name, int(value))
        if self.nan not in ("refuse", "mask"):
            raise InputError(f"Task.nan must be 'refuse' or 'mask', found {self.nan!r}")
        if isinstance(self.timestep, str) and re.search(r"\d*\s*(M|MS|ME|mon\w*)$", self.timestep):
            raise InputError(f"Task.timestep is in months, found {self.timestep!r}: {_MONTHS}")
        step = _length(self.timestep, "Task.timestep must read as a time difference such as '1h'")
        if not step > pd.Timedelta(0):
            raise InputError(f"Task.timestep must be positive, found {self.timestep!r}")
        set_(self, "timestep", _short(step))
        if self.reference not in (None, *_REFERENCES):
            raise InputError(
                f"Task.reference must be one of {', '.join(_REFERENCES)}, or None, found "
                f"{self.reference!r:.60}"
            )
        set_(self, "known", _names(self.known) if self.known else ())
        if twice := sorted(set(self.known) & set(self.variables)):
            raise InputError(
                f"{', '.join(twice)}: in Task.variables and in Task.known. What is known for the "
                "target times is an input at these; leave it out of the variables"
            )
        if both := sorted(set(self.known) & set(self.outputs)):
            raise InputError(f"{', '.join(both)}: in Task.known, and forecast: choose one of both")
        if "reference" in self.known and self.reference is None:
            raise InputError("Task.known names the reference: say which, Task(reference=...)")
        set_(self, "lags", tuple(self._lag(lag) for lag in _several(self.lags)))
        if len(set(self.lags)) < len(self.lags):
            raise InputError(f"Task.lags must be different from each other, found {self.lags}")
        if self.lags and (lost := [v for v in self.outputs if v not in self.variables]):
            raise InputError(f"Task.lags need the history of {', '.join(lost)}: add to variables")
        if self.lower is not None:
            number = isinstance(self.lower, (int, float, np.number))
            if not number or isinstance(self.lower, bool) or not np.isfinite(self.lower):
                raise InputError(f"Task.lower must be a finite number, found {self.lower!r:.60}")
            set_(self, "lower", float(self.lower))

    def _lag(self, given: Any) -> str:
        lag = _length(given, "Task.lags must read as time differences such as '1D'")
        step = pd.Timedelta(self.timestep)
        if lag % step != pd.Timedelta(0) or lag < self.target_steps * step:
            raise InputError(
                f"a lag of {given} is no use for {self.target_steps} steps of {self.timestep}: "
                f"expected a multiple of the step that is at least {self.target_steps * step}, so "
                "that it is known when the forecast is made"
            )
        if lag > _MOST_STEPS * step:
            raise InputError(f"a lag of {given} is more than {_MOST_STEPS:,} steps")
        return _short(lag)

    @property
    def step(self) -> np.timedelta64:
        """The time step as ``timedelta64[ns]``."""
        return pd.Timedelta(self.timestep).to_timedelta64().astype("timedelta64[ns]")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Canonical names of the forecast variables."""
        return self.variables if self.targets is None else self.targets  # type: ignore[return-value]

    @property
    def channels(self) -> tuple[str, ...]:
        """All variables of the data: inputs, targets that are no inputs, what is known."""
        more = (v for v in self.outputs if v not in self.variables)
        return (*self.variables, *more, *(v for v in self.known if v != "reference"))

    @property
    def channels_in(self) -> int:
        """Channels of a frame that a network sees; what it forecasts comes first, if it is seen.

        What is known for target steps lies on the frames in their order, as often as it takes.
        """
        more = len(self.known) + len(self.lags) * self.channels_out
        if "reference" in self.known:
            more += self.channels_out - 1
        return len(self.variables) + more * -(-self.target_steps // self.input_steps)

    @property
    def channels_known(self) -> int:
        """Channels of a frame, the last ones, that hold what is known for target steps."""
        return self.channels_in - len(self.variables)

    @property
    def channels_out(self) -> int:
        """Channels of a frame that a network forecasts."""
        return len(self.outputs)

    @property
    def lag_steps(self) -> tuple[int, ...]:
        """The lags in steps."""
        return tuple(int(pd.Timedelta(lag) / pd.Timedelta(self.timestep)) for lag in self.lags)

    @property
    def history(self) -> int:
        """Steps up to the initialisation, with it, that a forecast needs: inputs and lags."""
        return max(self.input_steps, *self.lag_steps, 1)

    @property
    def window(self) -> int:
        """Length of a training window in steps."""
        return self.history + self.target_steps

    def rolled(self, applications: int) -> Task:
        """What windows hold for as many applications of a network, each on the output before it.

        Parameters
        ----------
        applications : int

        Returns
        -------
        Task
            With the same history, without lags as inputs of their own, and as many times as many
            target steps.
        """
        if applications == 1:
            return self
        steps = applications * self.target_steps
        return replace(self, input_steps=self.history, target_steps=steps, lags=())

    def refuse_rollout(self, steps: int) -> None:
        """Refuse a forecast of `steps` steps on a network's own output, if it lacks inputs then."""
        if steps > self.target_steps and self.outputs != self.variables:
            raise InputError(
                f"cannot forecast {steps} steps: past {self.target_steps} the network would need "
                f"its own forecast of every input, but it forecasts {', '.join(self.outputs)} "
                f"from {', '.join(self.variables)}"
            )

    def lead_times(self, steps: int | None = None) -> np.ndarray:
        """Lead times ``timedelta64[ns]`` of `steps` target steps (default: ``target_steps``)."""
        steps = self.target_steps if steps is None else steps
        longest = np.iinfo(np.int64).max // int(self.step.astype(np.int64))
        if steps > longest:
            raise InputError(
                f"{steps} steps of {self.timestep} are longer than the 292 years that a lead time "
                f"can have (timedelta64[ns]): ask for at most {longest} steps"
            )
        return self.step * np.arange(1, steps + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        out = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        later: dict[str, Any] = {"reference": None, "known": [], "lags": [], "lower": None}
        return {k: v for k, v in out.items() if k not in later or v != later[k]}

    def __str__(self) -> str:
        usual = {None: "", "climatology": ", around the climatology", "weekly": ", around the week"}
        more = ", ".join((*self.known, *(f"{lag} before" for lag in self.lags)))
        return (
            f"{', '.join(self.variables)}: {self.input_steps} steps in, {self.target_steps} out"
            f"{'' if self.targets is None else ' of ' + ', '.join(self.outputs)}, "
            f"every {self.timestep}{', NaN masked' if self.nan == 'mask' else ''}"
            f"{usual[self.reference]}{more and f', with {more}'}"
            f"{'' if self.lower is None else f', at least {self.lower:g}'}"
        )


def require_task(task: Any) -> None:
    """Refuse what stands in the place of a Task, such as the name of a variable.

    Raises
    ------
    InputError
        With the call that makes one.
    """
    if not isinstance(task, Task):
        like = isinstance(task, str) or (isinstance(task, list | tuple) and bool(task))
        example = f"{task!r:.60}" if like else '"t2m"'
        raise InputError(
            f"expected a Task, found {task!r:.60}: Task({example}, input_steps=12, "
            "target_steps=12, timestep='1h') says what to forecast from what"
        )


def _short(step: pd.Timedelta) -> str:
    """Write a time step the way people do: '6h', '30min', '1D'."""
    ns = step.as_unit("ns").value
    seconds = {"D": 86_400, "h": 3_600, "min": 60, "s": 1, "ms": 1e-3, "us": 1e-6}
    for unit, size in seconds.items():
        if ns % int(size * 10**9) == 0:
            return f"{ns // int(size * 10**9)}{unit}"
    return f"{ns}ns"


def window_starts(time: Any, step: np.timedelta64, length: int, stride: int = 1) -> np.ndarray:
    """Find every window of `length` steps that crosses no gap.

    Parameters
    ----------
    time : array-like of shape (N,)
        Sorted, unique times: ``datetime64`` or cftime.
    step : numpy.timedelta64
        The step two neighbours in a window must be apart, exactly.
    length : int
        Steps in a window.
    stride : int
        Keep every `stride`-th window of each gap-free run.

    Returns
    -------
    numpy.ndarray of int64
        Indices of the first step of each window, ascending.
    """
    n = len(time)
    if n < length:
        return np.empty(0, dtype=np.int64)
    gap_after = np.flatnonzero(time_differences(time) != step)
    # Gap-free runs [first, last + 1).
    firsts = np.concatenate([[0], gap_after + 1])
    ends = np.concatenate([gap_after + 1, [n]])
    runs = [np.arange(a, b - length + 1, stride) for a, b in zip(firsts, ends, strict=True)]
    return np.concatenate(runs).astype(np.int64)


def refuse_months(time: Any) -> None:
    """Refuse times that are calendar months apart, with what to do about it.

    Parameters
    ----------
    time : array-like of shape (N,)
        Sorted, unique times: ``datetime64`` or cftime.

    Raises
    ------
    InputError
        If all steps have 28 to 31 days, and not all the same number.
    """
    days = time_differences(time) / np.timedelta64(1, "D")
    if len(days) and days.min() >= 28 and days.max() <= 31 and days.min() < days.max():
        raise InputError(f"the data are monthly: {_MONTHS}")


def initialisations(ds: Any, task: Task, stride: int = 1) -> np.ndarray:
    """Times from which a forecast can be made *and* verified: complete input and complete truth.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical, with the coordinate ``time``.
    task : Task
        What is forecast from what.
    stride : int
        Keep every `stride`-th of each gap-free run.

    Returns
    -------
    numpy.ndarray
        Times of the last input step.

    Raises
    ------
    InputError
        If there is none.
    """
    time = ds["time"].values
    starts = window_starts(time, task.step, task.window, stride)
    if len(starts) == 0:
        raise InputError(
            f"none of the {len(time)} times has {task.history} steps up to it and "
            f"{task.target_steps} after it without a gap ({task}); give a longer period"
        )
    return time[starts + task.history - 1]


@runtime_checkable
class WindowForecaster(Protocol):
    """What :func:`predict` needs of a model: a task, and arrays in, arrays out."""

    task: Task

    def forecast(
        self,
        inputs: np.ndarray,
        init_time: np.ndarray,
        steps: int,
        *,
        latitude: Any,
        longitude: Any,
    ) -> np.ndarray:
        """Forecast from plain arrays.

        Parameters
        ----------
        inputs : numpy.ndarray of shape (B, T, C, H, W)
            Canonical order and units, channels as ``task.variables``; T is ``task.history``.
        init_time : numpy.ndarray of shape (B,)
            Times of the last input steps.
        steps : int
            Target steps.
        latitude, longitude : numpy.ndarray or None
            Of the grid, in degrees.

        Where ``task.known`` names variables, ``known=`` is given too: their values (B, steps, K, H,
        W) at the valid times, in the order of ``task.channels``.

        Returns
        -------
        numpy.ndarray of shape (B, steps, C', H, W)
        """
        ...
