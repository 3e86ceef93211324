"""What is known for the times of a forecast: computed, held by the data, or fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD, TIME, find_axes
from ..conventions.forms import as_dataset
from ..conventions.variables import canonical_name, meant
from ..errors import InputError
from ..task import Task
from .forcings import COMPUTED, STILL, add_inputs


def add_known(ds: Any, task: Task) -> tuple[Any, tuple[str, ...]]:
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

    Raises
    ------
    InputError
        If one is not in the data and cannot be computed, or has dimensions that the data lack.
    """
    names = [name for name in task.known if name != "reference"]
    if not names:
        return ds, ()
    ds, still = as_dataset(ds), []
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
            raise InputError(
                f"'{name}' has lead times: give what it says for each time, as "
                "ds[name].isel(time=..., prediction_timedelta=...), on the dimension time"
            )
        whole = ds[meant(ds, task.variables[0])[0].name]
        axes = {dim: role for dim, (role, _) in find_axes(whole.to_dataset()).items()}
        if TIME not in roles.values():
            still.append(name)
        if set(roles) < set(axes) and set(ds[field].dims) <= set(axes):
            ds = ds.assign({field: _spread(ds[field], [d for d in whole.dims if d in axes], ds)})
    return ds, tuple(still)


def _spread(field: xr.DataArray, dims: list[Any], ds: xr.Dataset) -> xr.Variable:
    """Repeat a field along the dimensions that it lacks, in no memory."""
    values = field.transpose(*(d for d in dims if d in field.dims)).to_numpy()
    shape = [ds.sizes[d] if d in field.dims else 1 for d in dims]
    values = np.broadcast_to(values.reshape(shape), [ds.sizes[d] for d in dims])
    return xr.Variable(dims, values, field.attrs)
