"""What is known for the times of a forecast: computed, held by the data, or fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD, TIME, find_axes
from ..conventions.forms import as_dataset
from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..conventions.variables import canonical_name, meant
from ..errors import InputError
from ..task import Task
from .forcings import COMPUTED, STILL, add_inputs


def add_known(ds: Any, task: Task) -> tuple[Any, tuple[str, ...], dict[str, xr.Dataset]]:
    """Add to a history what a task's ``known`` names and can be computed, or lacks a dimension.

    Parameters
    ----------
    ds : xarray.Dataset
        In any of the usual conventions.
    task : Task

    Returns
    -------
    xarray.Dataset
        With all of ``task.known`` on time and the grid, lazy where they are new.
    tuple of str
        Which of them never change.
    dict of str to xarray.Dataset
        Which of them are forecasts, with lead times: each by itself, no longer in the first.

    Raises
    ------
    InputError
        If one is not in the data and cannot be computed, or has dimensions that the data lack.
    """
    names = [name for name in task.known if name != "reference"]
    if not names:
        return ds, (), {}
    ds, still = as_dataset(ds), []
    led: dict[str, xr.Dataset] = {}
    for name in names:
        there = meant(ds, name)
        if not there:
            if canonical_name(name) not in COMPUTED:
                raise InputError(
                    f"Task.known names '{name}', which is not among the data and cannot be "
                    f"computed; found {', '.join(map(str, ds.data_vars))}"
                )
            ds = add_inputs(ds, name)
            still += [name] if name in STILL else []
            continue
        field = there[0].name
        roles = {dim: role for dim, (role, _) in find_axes(ds[[field]]).items()}
        if LEAD in roles.values():
            led[name], ds = ds[[field]], ds.drop_vars(field)
            continue
        whole = ds[meant(ds, task.variables[0])[0].name]
        axes = {dim: role for dim, (role, _) in find_axes(whole.to_dataset()).items()}
        if TIME not in roles.values():
            still.append(name)
        if set(roles) < set(axes) and set(ds[field].dims) <= set(axes):
            ds = ds.assign({field: _spread(ds[field], [d for d in whole.dims if d in axes], ds)})
    for one in led.values():  # a lead time that nothing else has is none of the history's
        own = {d for v in ds.data_vars.values() for d in v.dims}
        ds = ds.drop_dims([d for d in one.dims if d in ds.dims and d not in own])
    return ds, tuple(still), led


def by_lead(
    forecast: xr.Dataset, name: str, history: xr.Dataset, task: Task
) -> dict[str, xr.Variable]:
    """Take a forecast apart: a variable on the history's times for each of the task's lead times.

    Parameters
    ----------
    forecast : xarray.Dataset
        Another model's, in any of the usual conventions.
    name : str
        Of its variable.
    history : xarray.Dataset
        Canonical.
    task : Task

    Returns
    -------
    dict of str to xarray.Variable
        (time, and the grid), by names that tell the lead time.

    Raises
    ------
    InputError
        If it lies on another grid, or lacks a time or a lead time.
    """
    found, _ = canonicalize(forecast, [name], form="forecast")
    (label,) = found.data_vars
    difference = Grid.of(found).difference(Grid.of(history))
    lost = np.setdiff1d(task.lead_times(), found[LEAD].values)
    times = history.indexes[TIME]
    gone = times[~times.isin(found.indexes[TIME])]
    if difference or len(lost) or len(gone):
        what = f"the lead time {pd.Timedelta(lost[0])}" if len(lost) else ""
        what = what or (f"the time {gone[0]}" if len(gone) else f"the data's grid: {difference}")
        raise InputError(f"the forecast '{name}', which Task.known names, lacks {what}")
    found = found.sel({TIME: history[TIME]})
    return {
        f"{name} {pd.Timedelta(lead).isoformat()}": found[label].sel({LEAD: lead}).variable
        for lead in task.lead_times()
    }


def _spread(field: xr.DataArray, dims: list[Any], ds: xr.Dataset) -> xr.Variable:
    """Repeat a field along the dimensions that it lacks, in no memory."""
    values = field.transpose(*(d for d in dims if d in field.dims)).to_numpy()
    shape = [ds.sizes[d] if d in field.dims else 1 for d in dims]
    values = np.broadcast_to(values.reshape(shape), [ds.sizes[d] for d in dims])
    return xr.Variable(dims, values, field.attrs)
