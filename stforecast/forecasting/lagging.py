"""Earlier initialisations as members of an ensemble: the one that costs nothing."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD, TIME
from ..errors import InputError
from ..task import Task

_MEMBERS = 4


def lagging(task: Task, ensemble: Any, members: Any, lag: Any, steps: int) -> tuple[int, int]:
    """How many initialisations an ensemble is of, and how many steps lie between two of them.

    Parameters
    ----------
    task : Task
    ensemble, members, lag
        As of :func:`stforecast.predict`.
    steps : int
        That each of them forecasts.

    Returns
    -------
    members, apart : int
        (1, 0) without an ensemble.

    Raises
    ------
    InputError
        If these are no such numbers, or the members share no lead time.
    """
    if ensemble != "lagged":
        if ensemble is not None:
            raise InputError(
                f"ensemble must be 'lagged', or the number of members of an ensemble, found "
                f"{ensemble!r:.60}"
            )
        if members is not None or lag is not None:
            raise InputError("members and lag are those of predict(ensemble='lagged')")
        return 1, 0
    count = _MEMBERS if members is None else members
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 2:
        raise InputError(f"members must be a whole number of at least 2, found {members!r:.60}")
    step = pd.Timedelta(task.timestep)
    try:
        if isinstance(lag, (bool, int, float, np.number)):  # of what?
            raise TypeError
        apart = step if lag is None else pd.Timedelta(lag)
    except (TypeError, ValueError):
        apart = pd.Timedelta(0)
    if not apart >= step or apart % step:
        raise InputError(
            f"lag must be a multiple of the step of {task.timestep}, such as {task.timestep!r}, "
            f"found {lag!r:.60}"
        )
    count, between = int(count), int(apart / step)
    if (count - 1) * between >= steps:
        raise InputError(
            f"{count} members, each initialised {apart} before the other, share no lead time of "
            f"{steps} steps of {task.timestep}: ask for more than {(count - 1) * between} steps, "
            "for fewer members or a shorter lag"
        )
    return count, between


def lagged(forecast: xr.Dataset, where: np.ndarray, apart: int) -> xr.Dataset:
    """Put forecasts of the same valid times side by side.

    Parameters
    ----------
    forecast : xarray.Dataset
        Dims ``time`` and ``prediction_timedelta``.
    where : array of int, shape (N, M)
        Positions in ``time`` of the members of each initialisation; the first is its own.
    apart : int
        Steps between the initialisations of two members.

    Returns
    -------
    xarray.Dataset
        With a first dimension ``realization``, and the lead times that all members share.
    """
    count = where.shape[1]
    shared = forecast.sizes[LEAD] - (count - 1) * apart
    parts = []
    for member in range(count):
        leads = slice(member * apart, member * apart + shared)
        part = forecast.isel({TIME: where[:, member], LEAD: leads})
        if TIME in part.chunksizes:  # those of a batch, in all members
            part = part.chunk({TIME: max(forecast.chunksizes[TIME]), LEAD: -1})
        parts.append(part)
    own = parts[0].coords
    about = {"standard_name": "realization", "long_name": "member, from the newest initialisation"}
    out = xr.concat(
        [part.drop_vars(list(part.coords)) for part in parts],
        xr.Variable("realization", np.arange(count), about),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    ).assign_coords(own)
    source = f"{count} members, initialised {apart} steps apart: {forecast.attrs.get('source', '')}"
    return out.assign_attrs(source=source)
