"""The climatology of traffic: mean or median of the training weeks at the time of the week."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.cycles import phase
from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..conventions.overlap import period_of, write_period
from ..conventions.times import time_blocks
from ..errors import InputError
from ..files import replacing
from ..task import Task, require_task
from .climatology import ByTime
from .lookup import as_labelled


class WeeklyClimatology(ByTime):
    """Forecast what training weeks have at the day of the week and the time of day.

    It has the protocol of :class:`stforecast.Climatology`, so it is a baseline beside it. A network
    learns what flows differ by from their usual week with ``Task(reference="weekly")``.

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
