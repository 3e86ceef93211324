"""The climatology of traffic: mean or median of the training weeks at the time of the week."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.cycles import Cycle, phase
from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..conventions.overlap import period_of, write_period
from ..conventions.times import time_blocks, valid_times
from ..errors import InputError
from ..files import replacing
from ..task import Task, WindowForecaster, require_task
from .climatology import ByTime
from .lookup import as_labelled


class WeeklyClimatology(ByTime):
    """Forecast what training weeks have at the day of the week and the time of day.

    It has the protocol of :class:`stforecast.Climatology`, so it is a baseline beside it. What a
    flow differs by from its usual week is an easier thing to learn than the flow: :meth:`anomalies`
    gives that, and :meth:`around` makes a forecaster of it one of flows.

    Parameters
    ----------
    dataset : xarray.Dataset
        Dims (week_hour, y, x): one variable for each of ``task.outputs``. ``week_hour`` counts
        hours (with fractions) from Monday 00:00, in the time of the data. ``weeks`` (week_hour)
        says how many each mean is of.
    task : Task
        What is forecast.

    Examples
    --------
    >>> import pandas as pd, xarray as xr
    >>> from stforecast.testing.flow import make_flow
    >>> times = pd.date_range("2016-01-01", periods=21 * 48, freq="30min")
    >>> flow = xr.Dataset({"inflow": (("time", "y", "x"), make_flow(times, (3, 4))[:, 0])})
    >>> flow = flow.assign_coords(time=times)
    >>> usual = WeeklyClimatology.fit(flow, Task("inflow", 4, 4, "30min"))
    >>> usual.dataset.sizes["week_hour"] == 7 * 48
    True
    """

    def __init__(self, dataset: xr.Dataset, task: Task) -> None:
        missing = [n for n in ("week_hour", "weeks", *task.outputs) if n not in dataset.variables]
        if missing:
            raise InputError(f"a weekly climatology has no {missing}, found {list(dataset)}")
        self.dataset = dataset.sortby("week_hour")
        self.task = task
        self.fitted_on = Grid.of(dataset)

    @classmethod
    def fit(
        cls, ds: Any, task: Task, *, statistic: Literal["mean", "median"] = "mean"
    ) -> WeeklyClimatology:
        """Average history by the time of the week.

        Parameters
        ----------
        ds : xarray.Dataset
            History, of the training period only: no period is selected here. Gaps are allowed.
        task : Task
            Gives the variables.
        statistic : {"mean", "median"}
            What of the weeks is usual. One odd week moves a mean, and not the median.

        Returns
        -------
        WeeklyClimatology
            float32; times of the week without data are not in it.

        Raises
        ------
        InputError
            If times are not ``datetime64``, or data are not finite.
        """
        require_task(task)
        canonical, _ = canonicalize(ds, task.outputs, form="history")
        time = canonical["time"].values
        slots, index, weeks = np.unique(
            phase(time, "week"), return_inverse=True, return_counts=True
        )
        if statistic not in ("mean", "median"):
            raise InputError(f"statistic must be 'mean' or 'median', found {statistic!r:.60}")
        variables: dict[str, Any] = {}
        for name in task.outputs:
            array = canonical[name]
            if statistic == "median":
                variables[name] = _median(array, index, len(slots))
                continue
            total = np.zeros((len(slots), *array.shape[1:]))
            for block in time_blocks(array):
                np.add.at(total, index[block], array.isel(time=block).values)
            if not np.isfinite(total).all():
                raise InputError(f"{name} is NaN or infinite at some times: fill or drop them")
            mean = (total / weeks[:, None, None]).astype(np.float32)
            variables[name] = (("week_hour", *array.dims[1:]), mean, dict(array.attrs))
        variables["weeks"] = ("week_hour", weeks, {"long_name": "weeks in the mean"})
        hours = {"long_name": "hours since Monday 00:00", "units": "h"}
        coords: dict[str, Any] = {"week_hour": ("week_hour", slots / 3.6e12, hours)}
        coords |= {str(d): canonical[d] for d in array.dims[1:] if d in canonical.coords}
        attrs = {
            "title": f"climatology by time of the week ({statistic} of the weeks)",
            "climatology_period": write_period(time),
            **period_of(canonical),
        }
        return cls(xr.Dataset(variables, coords, attrs), task)

    def at(self, valid_time: Any) -> xr.Dataset:
        """Look up the climatology at any times.

        Parameters
        ----------
        valid_time : xarray.DataArray or array-like of datetime64
            Of one dim, ``time``, or two, ``(time, prediction_timedelta)``, unless it is labelled.

        Returns
        -------
        xarray.Dataset
            Dims (those of `valid_time`, y, x), with the coordinate `valid_time`.

        Raises
        ------
        InputError
            If the training period had nothing at one of these times of the week.
        """
        valid_time = as_labelled(valid_time)
        own = self._slots()
        wanted = phase(valid_time.values, "week")
        index = np.searchsorted(own, wanted).clip(max=own.size - 1)
        if np.any(own[index] != wanted):
            first = pd.Timestamp(valid_time.values[own[index] != wanted].ravel()[0])
            raise InputError(
                f"the training period has no data on a {first.day_name()} at {first:%H:%M}, which "
                "is asked for: give a longer one"
            )
        found = self.dataset.isel(week_hour=xr.DataArray(index, dims=valid_time.dims))
        found = found.drop_vars(["week_hour"]).transpose(*valid_time.dims, ...)
        return found.assign_coords(valid_time=(valid_time.dims, valid_time.values))

    def _slots(self) -> np.ndarray:
        return np.round(self.dataset["week_hour"].values * 3.6e12).astype(np.int64)

    def table(self) -> tuple[Cycle, np.ndarray, np.ndarray]:
        """Cycle "week", nanoseconds since Monday (K,), and fields (K, C', y, x)."""
        fields = [self.dataset[v].values for v in self.task.outputs]
        return "week", self._slots(), np.stack(fields, axis=1)

    def anomalies(self, ds: xr.Dataset, *, trained_on: bool = False) -> xr.Dataset:
        """Subtract the climatology from a history.

        Parameters
        ----------
        ds : xarray.Dataset
            Canonical, with ``task.outputs``; other variables stay as they are.
        trained_on : bool
            `ds` is what the climatology was fitted to. Its own week then counts in the mean that is
            subtracted, and makes anomalies too small by (n - 1) / n for a mean of n weeks; this
            undoes it, so that they are what they would be in a week that was not there.

        Returns
        -------
        xarray.Dataset
        """
        usual = self.at(ds["time"]).drop_vars("valid_time")
        factor = (usual["weeks"] / (usual["weeks"] - 1).clip(1)).astype(np.float32)
        out = ds.copy()
        for name in self.task.outputs:
            anomaly = ds[name] - usual[name]
            out[name] = (anomaly * factor if trained_on else anomaly).assign_attrs(ds[name].attrs)
        return out

    def around(self, forecaster: WindowForecaster) -> WindowForecaster:
        """Make a forecaster of anomalies one of flows.

        It subtracts the climatology from what it is given, and adds it to what `forecaster` makes
        of that, at the valid times.

        Parameters
        ----------
        forecaster : Forecaster or baseline
            Of the same variables, which are its inputs and its targets. A
            :class:`stforecast.Forecaster` keeps the climatology in itself, and in its bundle.
        """
        if not tuple(forecaster.task.variables) == forecaster.task.outputs == self.task.outputs:
            raise InputError(
                f"a forecaster of anomalies of {', '.join(self.task.outputs)} takes these and "
                f"forecasts these, found {forecaster.task}"
            )
        if hasattr(forecaster, "around"):
            return forecaster.around(self)
        return AroundWeek(self, forecaster)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the Dataset as netCDF; ``WeeklyClimatology(xr.open_dataset(path), task)`` reads."""
        with replacing(path) as part:
            self.dataset.to_netcdf(part, engine="netcdf4")


def _median(array: xr.DataArray, index: np.ndarray, count: int) -> Any:
    """The median of what each of `count` slots has, as a variable (week_hour, y, x)."""
    values = array.values
    if not np.isfinite(values).all():
        raise InputError(f"{array.name} is NaN or infinite at some times: fill or drop them")
    slots = [np.median(values[index == slot], axis=0) for slot in range(count)]
    fields = np.stack(slots).astype(np.float32)
    return ("week_hour", *array.dims[1:]), fields, dict(array.attrs)


class AroundWeek:
    """A baseline of what flows differ by from their usual week."""

    def __init__(self, usual: WeeklyClimatology, forecaster: WindowForecaster) -> None:
        self.usual, self.forecaster, self.task = usual, forecaster, forecaster.task

    @property
    def trained_on(self) -> dict[str, str]:
        """Attributes of its forecasts that say which period it was fitted to, and of what data."""
        return self.usual.trained_on

    def forecast(
        self, inputs: np.ndarray, init_time: np.ndarray, steps: int, **grid: Any
    ) -> np.ndarray:
        """Forecast from arrays, as :class:`stforecast.task.WindowForecaster` says."""
        before = self.task.step * np.arange(1 - self.task.input_steps, 1)
        anomalies = inputs - self.usual.values(init_time[:, None] + before)
        made = self.forecaster.forecast(anomalies, init_time, steps, **grid)
        return made + self.usual.values(valid_times(init_time, self.task.lead_times(steps)))
