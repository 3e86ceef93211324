"""The climatology of the training years, by day of the year and time of day."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.cycles import DAY, calendar_parts, year_lengths
from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..conventions.overlap import period_of, told_of, write_period
from ..conventions.times import time_blocks, valid_times
from ..errors import InputError
from ..forecasting.core import ForecastModel
from ..task import Task, require_task
from .lookup import climatology_at, conform

_MOST_A_DAY = 1440  # steps of a minute


class ByTime(ForecastModel):
    """A forecast that is looked up by its valid times."""

    dataset: xr.Dataset

    @property
    def trained_on(self) -> dict[str, str]:
        """Attributes of its forecasts that say which period it was fitted to, and of what data."""
        return told_of(self.dataset.attrs)

    def at(self, valid_time: Any) -> xr.Dataset:
        """Look up the fields of any times."""
        raise NotImplementedError

    def values(self, valid_time: Any) -> np.ndarray:
        """Look up times (B, T): an array (B, T, C', H, W)."""
        found = self.at(valid_time)
        return np.stack([found[name].values for name in self.task.outputs], axis=2)

    def _forecast(self, inputs: np.ndarray, init_time: np.ndarray, steps: int) -> np.ndarray:
        out = self.values(valid_times(init_time, self.task.lead_times(steps)))
        return out.astype(np.float32, copy=False)


class Climatology(ByTime):
    """Forecast the mean of the training years at the day of year and time of day.

    Parameters
    ----------
    dataset : xarray.Dataset
        Dims (hour, dayofyear, latitude, longitude), or (…, y, x): one variable for each of
        ``task.outputs``. ``hour`` is the time of day in hours UTC (fractions for steps below an
        hour), ``dayofyear`` runs from 1 to 366. The climatologies published with WeatherBench 2
        have this form; dimensions may come in any order, latitudes in any direction. ``month`` may
        stand for ``dayofyear``; without ``hour`` it is of data with one time of day.
    task : Task
        What is forecast.

    Raises
    ------
    InputError
        If a dimension or a variable is missing.
    """

    def __init__(self, dataset: xr.Dataset, task: Task) -> None:
        self.dataset = conform(dataset, task.outputs)
        if np.isnan(self.dataset["hour"].values).all() and int(task.step.astype("int64")) % DAY:
            raise InputError(
                "a climatology has dims (hour, dayofyear, latitude, longitude); without hour it is "
                f"of steps of whole days, and the task's are {task.timestep}"
            )
        self.task = task
        self.fitted_on = Grid.of(self.dataset)

    @classmethod
    def fit(cls, ds: Any, task: Task, *, window_days: int = 61) -> Climatology:
        """Average history by day of year and time of day, smoothed over neighbouring days.

        The method is WeatherBench 2's (``weatherbench2/utils.py``: ``create_window_weights``,
        ``compute_rolling_stat``, ``compute_hourly_stat``):

        1. All years are averaged for each day of year and time of day. In a year without a day
           366 its day 365 stands in, if any other year has a day 366.
        2. With h = (n - 1) / 2 for n = `window_days`, a bin becomes the mean of the days d - h to
           d + h, wrapped around the year, with the triangular weights
           ``[linspace(0, 1, h + 1), linspace(1, 0, h + 1)[1:]]`` divided by their mean (so the
           outermost days count nothing), over the days that have data.

        It is equal to theirs for complete years. Years are averaged first, so that a day seen
        more often does not outweigh its neighbours where years are incomplete. Where no year has
        a day 366 (or a calendar has no such day) the year wraps at its own last day, and days up
        to 366 are copies of that one.

        Parameters
        ----------
        ds : xarray.Dataset
            History, of the training period only: no period is selected here. Gaps are allowed.
            Data of dask are read block by block, and the sums need
            8 bytes x 366 x (steps in a day) x (grid points): 144 MB for hourly 32 x 64.
        task : Task
            Gives the variables and the time step, hence the times of day (6-hourly: 0, 6, 12,
            18 h). A step that does not divide the day is taken at their greatest common divisor.
        window_days : int
            Odd number of days, at least 3 (which averages years and does not smooth).

        Returns
        -------
        Climatology
            Its ``dataset`` is float32; the attributes record period and method.

        Raises
        ------
        InputError
            If a bin has no data in its whole window, times do not keep to the time step, or data
            are not finite. Points that are NaN at *all* times (land, in data of the sea surface)
            stay NaN. With ``Task(nan="mask")`` others may be NaN at times: their means are over
            the rest, NaN where there is none in the whole window.
        """
        require_task(task)
        if window_days % 2 == 0 or not 3 <= window_days <= 365:
            raise InputError(f"window_days must be odd, from 3 to 365, found {window_days}")
        canonical, _ = canonicalize(ds, task.outputs, form="history")
        time = canonical["time"].values
        year, day, clock = calendar_parts(time)
        bins = gcd(int(task.step.astype("int64")), DAY)
        if DAY // bins > _MOST_A_DAY:
            raise InputError(
                f"a climatology tells the hour and the day of the year, which a time step of "
                f"{task.timestep} would split into {DAY // bins:,} parts a day; at most "
                f"{_MOST_A_DAY:,} are of use. For clips, compare with Persistence"
            )
        phases = np.unique(clock % bins)
        if len(phases) > 1:
            raise InputError(
                f"the data do not keep to the task's time step of {task.timestep}: for one, "
                f"{time[np.argmax(clock % bins != clock[0] % bins)]} does not lie on the steps "
                f"from {time[0]}; ds.isel(time=slice(None, None, n)) takes every nth step"
            )
        slot = clock // bins
        hours = (phases[0] + bins * np.arange(DAY // bins)) / (DAY / 24)
        lengths = dict(zip(year.tolist(), year_lengths(time, year).tolist(), strict=True))
        # Whether the year wraps after 366 days or earlier: see 1. above.
        cycle = 366 if np.any(day == 366) else min(365, max(lengths.values()))

        variables = {}
        for name in task.outputs:
            array = canonical[name]
            mean, count = _daily_means(
                array, year, day, slot, len(hours), lengths, masked=task.nan == "mask"
            )
            smooth = _smooth(mean[:, :cycle], count[:, :cycle], window_days, hours)
            tail = np.repeat(smooth[:, -1:], 366 - cycle, axis=1)
            variables[name] = (
                ("hour", "dayofyear", *array.dims[1:]),
                np.concatenate([smooth, tail], axis=1),
                dict(array.attrs),
            )
        hours = hours.astype(int) if np.all(hours == np.round(hours)) else hours
        coords: dict[str, Any] = {
            "hour": ("hour", hours, {"long_name": "hour of day, UTC"}),
            "dayofyear": ("dayofyear", np.arange(1, 367), {"long_name": "day of year"}),
        }
        coords |= {str(d): canonical[d] for d in array.dims[1:] if d in canonical.coords}
        attrs = {
            "title": "climatology by day of year and hour of day",
            "climatology_period": write_period(time),
            **period_of(canonical),
            "climatology_years": len(lengths),
            "climatology_method": f"years averaged, then a triangular window of {window_days} days "
            "(as WeatherBench 2)",
            "window_days": window_days,
            "timestep": task.timestep,
        }
        return cls(xr.Dataset(variables, coords, attrs), task)

    def at(self, valid_time: Any) -> xr.Dataset:
        """Look up the climatology at any times.

        Parameters
        ----------
        valid_time : xarray.DataArray or array-like
            ``datetime64`` or cftime, of any shape. Arrays without names get the dim ``time``
            (or ``time, prediction_timedelta`` where there are two dims).

        Returns
        -------
        xarray.Dataset
            Dims (those of `valid_time`, latitude, longitude), with the coordinate `valid_time`.
        """
        return climatology_at(self.dataset, valid_time)


def _daily_means(
    array: xr.DataArray,
    year: np.ndarray,
    day: np.ndarray,
    slot: np.ndarray,
    slots: int,
    lengths: dict[int, int],
    *,
    masked: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Means over years (slots, 366, H, W) in float64, and how many values each has.

    The numbers are (slots, 366, 1, 1), or if `masked`, with NaN left out, numbers for every point.
    """
    total = np.zeros((slots * 366, *array.shape[1:]))
    count = np.zeros((slots * 366, *(array.shape[1:] if masked else (1, 1))), dtype=np.int32)
    never: np.ndarray | None = None  # where all values are NaN
    for block in time_blocks(array):
        values = array.isel(time=block).values
        bad = ~np.isfinite(values)
        if never is None:
            never = np.isnan(values).all(axis=0)
        wrong = np.isinf(values) if masked else bad != never
        if np.any(wrong):
            step, *_ = np.argwhere(wrong)[0]
            raise InputError(
                f"{array.name} is NaN or infinite at some times only: first at "
                f"{array['time'].values[block][step]}, {np.count_nonzero(wrong)} values "
                "there and near; fill or drop them (points that are NaN at all times may stay), or "
                "say that NaN are missing: Task(..., nan='mask')"
            )
        present = ~bad if masked else np.ones((len(values), 1, 1), dtype=bool)
        values = np.where(bad, 0, values) if masked else values
        # In one year a bin occurs once, so plain indexed addition is right, and fast.
        for y in np.unique(year[block]):
            at = np.flatnonzero(year[block] == y)
            index = slot[block][at] * 366 + day[block][at] - 1
            total[index] += values[at]
            count[index] += present[at]
            if lengths[int(y)] < 366:  # day 365 stands in for the missing 366
                last = day[block][at] == 365
                total[index[last] + 1] += values[at[last]]
                count[index[last] + 1] += present[at[last]]
    total /= np.maximum(count, 1)
    return total.reshape(slots, 366, *array.shape[1:]), count.reshape(slots, 366, *count.shape[1:])


def _smooth(mean: np.ndarray, count: np.ndarray, window_days: int, hours: np.ndarray) -> np.ndarray:
    """Triangular window over the days, wrapped: (slots, days, H, W) to the same in float32."""
    days, half = mean.shape[1], window_days // 2
    window = np.concatenate([np.linspace(0, 1, half + 1), np.linspace(1, 0, half + 1)[1:]])
    window /= window.mean()
    matrix = np.zeros((days, days))
    here = np.arange(days)
    for offset, weight in zip(range(-half, half + 1), window, strict=True):
        matrix[here, (here + offset) % days] += weight
    norm = (count > 0).any(axis=(2, 3)) @ matrix.T
    if np.any(norm == 0):
        slot, day = np.argwhere(norm == 0)[0]
        raise InputError(
            f"no data within {half - 1} days of day {day + 1} of the year at {hours[slot]:g} h "
            f"(and for {np.count_nonzero(norm == 0)} of {norm.size} days and hours in all): a "
            "climatology needs data through the whole year at every time of day; give a longer "
            "period, or a task with the time step of the data"
        )
    out = np.empty(mean.shape, dtype=np.float32)
    for slot in range(mean.shape[0]):  # by hour, so that no second array of that size is needed
        seen = matrix @ (count[slot] > 0).reshape(days, -1)
        with np.errstate(invalid="ignore"):  # 0 / 0: a point that is masked through the window
            flat = matrix @ mean[slot].reshape(days, -1) / seen
        out[slot] = flat.reshape(mean.shape[1:])
    return out
