"""Baselines' forecasts of the same initialisations and lead times as another forecast's."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD, MEMBER
from ..conventions.forms import as_dataset, with_members
from ..conventions.overlap import refuse_other_data, refuse_trained, told_of
from ..conventions.pairs import open_forecast, open_truth
from ..conventions.times import valid_times
from ..errors import InputError
from ..task import Task
from .climatology import Climatology
from .lookup import climatology_at, conform, places
from .regression import LinearRegression

log = logging.getLogger(__name__)

_BLOCK = 2**26  # bytes of a block of a baseline's forecasts


def baseline_forecasts(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    train: xr.Dataset | None = None,
    climatology: xr.Dataset | None = None,
    input_steps: int = 12,
    allow_overlap: bool = False,
) -> dict[str, xr.Dataset]:
    """Make the baselines' forecasts of the same initialisations and lead times, lazily.

    Parameters
    ----------
    forecast : xarray.Dataset
        What they are to be compared with.
    truth : xarray.Dataset
        Persistence takes its value at the initialisation, linear regression those before.
    train : xarray.Dataset, optional
        Data of a period before: climatology and linear regression are fitted to it.
    climatology : xarray.Dataset, optional
        (hour, dayofyear, latitude, longitude), in place of one fitted to `train`.
    input_steps : int
        Of linear regression.
    allow_overlap : bool
        Take a `train` or a `climatology` of a period that is scored. The baselines then know what
        they forecast.

    Returns
    -------
    dict of str to xarray.Dataset
        "Persistence", "Climatology" and "LinearRegression", those that can be had; why another
        cannot is logged as a warning.

    Raises
    ------
    InputError
        If valid times of the forecast lie in the period that baselines are fitted to, or truth is
        of other clips than the forecast.
    """
    forecast = with_members(as_dataset(forecast))
    if MEMBER in forecast.dims:  # baselines have none
        forecast = forecast.isel({MEMBER: 0}, drop=True)
    ours, labels = open_forecast(forecast, truth)
    needed = [] if climatology is None else [climatology]
    theirs, labels = open_truth(truth, ours, labels, *needed)
    variables = [str(v) for v in theirs.data_vars]
    ours = ours[variables]
    refuse_other_data(ours, theirs)
    task = _task(ours, input_steps)
    found, fitted = {}, []
    try:
        found["Persistence"] = _persistence(ours, theirs)
    except InputError as error:
        log.warning("going on without persistence: %s", error)
    if climatology is None and train is not None and task is not None:
        try:
            climatology = Climatology.fit(train, task).dataset
        except InputError as error:
            log.warning("going on without climatology: %s", error)
    if climatology is not None:
        fitted.append(told_of(climatology.attrs))
        found["Climatology"] = _climatological(ours, conform(climatology, variables))
    if train is not None:
        try:
            if task is None:
                raise InputError("lead times are not 1, 2, 3... times one step")
            model = LinearRegression.fit(train, task)
            fitted.append(model.trained_on)
            init_time = ours["time"].values
            steps = ours.sizes[LEAD]
            found["LinearRegression"] = model.predict(
                _blocks(theirs, ours), init_time=init_time, steps=steps
            )
        except InputError as error:
            log.warning("going on without linear regression: %s", error)
    for told in [] if allow_overlap else fitted:
        refuse_trained(ours, told, theirs, clips="clip" in labels.extras)
    return found


def _task(forecast: xr.Dataset, input_steps: int) -> Task | None:
    """The task that a forecast is of; None where its lead times are no multiples of the first."""
    lead = forecast[LEAD].values
    if lead[0] <= np.timedelta64(0) or np.any(lead != lead[0] * np.arange(1, len(lead) + 1)):
        return None
    variables = tuple(str(v) for v in forecast.data_vars)
    return Task(variables, input_steps, len(lead), timestep=str(pd.Timedelta(lead[0])))


def _block(forecast: xr.Dataset) -> int:
    """Initialisations in a block of a baseline's forecasts."""
    size = forecast[str(next(iter(forecast.data_vars)))]
    return max(1, _BLOCK // max(1, 4 * size.size // size.sizes["time"]))


def _blocks(truth: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    return truth if truth.chunks else truth.chunk(time=max(64, _block(forecast)))


def _like(forecast: xr.Dataset, fields: xr.Dataset, source: str) -> xr.Dataset:
    """Dims and coordinates of a forecast, with other fields."""
    out = fields.transpose("time", LEAD, ...).assign_coords(forecast.coords)
    for v in out.data_vars:
        out[v].attrs = dict(forecast[v].attrs)
    return out.assign_attrs(source=source)


def _persistence(forecast: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    at = truth.indexes["time"].get_indexer(forecast.indexes["time"])
    if np.any(at < 0):
        lost = forecast["time"].values[at < 0]
        raise InputError(f"truth lacks {lost.size} of the initialisation times, first {lost[0]}")
    start = _blocks(truth, forecast).isel(time=at).drop_vars("valid_time", errors="ignore")
    start = start.chunk(time=_block(forecast))
    fields = start.expand_dims({LEAD: forecast[LEAD].values})
    return _like(forecast, fields, "truth at the initialisation, kept")


def _climatological(forecast: xr.Dataset, climatology: xr.Dataset) -> xr.Dataset:
    import dask.array as da

    valid = valid_times(forecast["time"].values, forecast[LEAD].values)
    places(climatology, valid)
    n = _block(forecast)
    climatology = climatology.compute()
    fields = {}
    for v in forecast.data_vars:
        one = climatology[[v]]

        def look_up(times: np.ndarray, one: xr.Dataset = one, v: Any = v) -> np.ndarray:
            return climatology_at(one, times[..., 0, 0])[v].values

        space = forecast[v].shape[2:]
        times = da.from_array(valid[..., None, None], chunks=(n, -1, 1, 1))
        values = da.map_blocks(
            look_up,
            times,
            dtype=one[v].dtype,
            chunks=(times.chunks[0], times.chunks[1], (space[0],), (space[1],)),
            meta=np.empty((0, 0, 0, 0), one[v].dtype),
        )
        fields[v] = (forecast[v].dims, values)
    return _like(forecast, xr.Dataset(fields), "climatology at the valid time")
