"""Climatology as an ensemble: what each of the training years had at the same time of the year."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.cycles import DAY, calendar_parts, year_lengths
from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..conventions.overlap import period_of
from ..errors import InputError
from ..task import Task, require_task
from .climatology import ByTime

logger = logging.getLogger(__name__)

_LEAP_DAY = 60  # 29 February, of the 366


class ClimatologyYear(ByTime):
    """Forecast what one year of the past had at the same date and time of day.

    :func:`climatology_years` makes one of each year.

    Parameters
    ----------
    dataset : xarray.Dataset
        Canonical, of one whole year at the task's time step; read where it is asked for.
    task : Task
        What is forecast.
    year : int
        Which year it is: the label of the member.
    """

    def __init__(self, dataset: xr.Dataset, task: Task, year: int) -> None:
        self.dataset, self.task, self.realization = dataset, task, year
        self.fitted_on = Grid.of(dataset)
        self._slots = _slots(dataset["time"].values)

    def at(self, valid_time: Any) -> xr.Dataset:
        """Look up any times, as :meth:`Climatology.at`; 29 February is the 28th if there is none.

        Raises
        ------
        InputError
            If the year lacks a date or a time of day, or has NaN there and the task masks none.
        """
        times = np.asarray(valid_time)
        wanted = _slots(times.ravel())
        if not np.any(self._slots // DAY == _LEAP_DAY):
            wanted = np.where(wanted // DAY == _LEAP_DAY, wanted - DAY, wanted)
        rows = np.searchsorted(self._slots, wanted).clip(max=len(self._slots) - 1)
        if np.any(lost := self._slots[rows] != wanted):
            raise InputError(
                f"the year {self.realization} has nothing at the date and time of day of "
                f"{times.ravel()[lost][0]}: give a training period with the time step of the "
                "forecast"
            )
        needed, where = np.unique(rows, return_inverse=True)
        dims = ("time", "prediction_timedelta")[: times.ndim]
        fields = {}
        for name in self.task.outputs:
            variable = self.dataset.variables[name]
            part = variable[needed].compute(scheduler="synchronous").to_numpy()
            bad = np.isinf(part) if self.task.nan == "mask" else ~np.isfinite(part)
            if bad.any():
                when = self.dataset["time"].values[needed[int(bad.any(axis=(1, 2)).argmax())]]
                raise InputError(f"'{name}' is NaN or infinite at {when}: fill it")
            values = part[where].reshape(*times.shape, *part.shape[1:])
            fields[name] = ((*dims, *variable.dims[1:]), values, variable.attrs)
        space = self.dataset[self.task.outputs[0]].dims[1:]
        coords = {d: self.dataset[d] for d in space if d in self.dataset.coords}
        return xr.Dataset(fields, {"valid_time": (dims, times), **coords})


def climatology_years(ds: Any, task: Task) -> list[ClimatologyYear]:
    """Make an ensemble of the years of the training period: one member a year.

    The reference of probabilistic skill scores: a forecast that knows what time of the year it is,
    and nothing else.

    Parameters
    ----------
    ds : xarray.Dataset
        History, of the training period only. Nothing is read yet where it is lazy.
    task : Task
        Gives the variables and the time step.

    Returns
    -------
    list of ClimatologyYear
        For :func:`stforecast.predict`, whose result has the years as its ``realization``. Years
        that are not whole are left out, which is logged.

    Raises
    ------
    InputError
        If there are fewer than two whole years.

    Examples
    --------
    >>> from stforecast import Task, predict
    >>> from stforecast.testing import make_weather
    >>> task = Task("2m_temperature", input_steps=1, target_steps=4, timestep="6h")
    >>> train = make_weather(2 * 365 * 4, time="2001-01-01", shape=(2, 4), timestep="6h")
    >>> test = make_weather(8, time="2004-02-28", shape=(2, 4), timestep="6h")
    >>> predict(test, climatology_years(train, task))["realization"].values.tolist()
    [2001, 2002]
    """
    require_task(task)
    canonical, _ = canonicalize(ds, task.outputs, form="history")
    time = canonical["time"].values
    if time.dtype.kind not in "MO":
        raise InputError(f"a climatology needs dates, found times of type {time.dtype}")
    year, _, clock = calendar_parts(time)
    lengths, step = year_lengths(time, year), int(task.step.astype(np.int64))
    members, short = [], []
    for one in np.unique(year):
        rows = np.flatnonzero(year == one)
        whole = int(lengths[rows[0]]) * DAY // step
        kept = rows[(clock[rows] - clock[rows[0]]) % step == 0]
        if len(kept) < whole:
            short.append(f"{one} ({len(kept)} of {whole} times)")
            continue
        part = canonical.isel(time=slice(int(rows[0]), int(rows[-1]) + 1))
        members.append(ClimatologyYear(part.assign_attrs(period_of(canonical)), task, int(one)))
    if short:
        logger.info("years that are not whole are no members: %s", ", ".join(short))
    if len(members) < 2:
        raise InputError(
            f"an ensemble of years needs at least two whole years at a step of {task.timestep}, "
            f"found {len(members)} from {time[0]} to {time[-1]}"
            + (f"; not whole: {', '.join(short[:4])}" if short else "")
        )
    return members


def _slots(time: np.ndarray) -> np.ndarray:
    """Day of a leap year and time of day of (N,) times, in nanoseconds: the same date, the same."""
    year, day, clock = calendar_parts(time)
    later = (day >= _LEAP_DAY) & (year_lengths(time, year) < 366)
    return (day + later).astype(np.int64) * DAY + clock
