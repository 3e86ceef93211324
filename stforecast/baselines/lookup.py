"""Climatologies as others make them, in one form; and the values in them at any times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.cycles import DAY, calendar_parts
from ..conventions.forms import as_dataset
from ..conventions.gate import canonicalize
from ..errors import InputError


def conform(dataset: xr.Dataset, variables: Sequence[str]) -> xr.Dataset:
    """Bring a climatology's names, order of dims, latitudes and longitudes in canonical form.

    The gate (:func:`stforecast.conventions.canonicalize`) is for arrays with a time; this is for
    those with (hour, dayofyear) in its place.

    Parameters
    ----------
    dataset : xarray.Dataset
        As for :class:`Climatology`.
    variables : sequence of str
        Canonical names of those to keep.

    Returns
    -------
    xarray.Dataset
        Dims (hour, dayofyear, latitude, longitude), or (…, y, x); hours in UTC, latitude ascending,
        temperatures in K, float32. ``month`` stays in place of ``dayofyear``; the hour of one by
        day alone is NaN.

    Raises
    ------
    InputError
        If a dimension or a variable is missing.
    """
    dataset = _plain_names(as_dataset(dataset))
    key = _key(dataset)
    if key is None:
        hint = ""
        if "hour" in dataset.dims:
            hint = "; one without seasons is ds.expand_dims(dayofyear=range(1, 367))"
        raise InputError(
            "a climatology has dims (hour, dayofyear, latitude, longitude), or (..., y, x) in "
            "place of the last two, month in place of dayofyear, and no hour for data with one "
            f"time of day; found {tuple(dataset.dims)}{hint}"
        )
    if "hour" not in dataset.dims:  # of the one time of day that the data have, whichever it is
        dataset = dataset.expand_dims("hour" if "hour" in dataset.coords else {"hour": [np.nan]})
    dataset = dataset.sortby(["hour", key])
    first, last = dataset[key].values[[0, -1]]
    if first < 1 or last > {"dayofyear": 366, "month": 12}[key]:
        raise InputError(
            f"the climatology has the '{key}' from {first} to {last}, expected to count from 1: "
            f"correct it with ds.assign_coords({key}=...)"
        )
    # To the gate a climatology is a forecast: of the hours (as lead times) from every day. The
    # leads are just numbers, from 1 h: the gate takes a lead time of 0 for no forecast at all.
    days = np.datetime64("1999-12-31", "ns") + dataset[key].values * np.timedelta64(1, "D")
    leads = np.arange(1, dataset.sizes["hour"] + 1) * np.timedelta64(1, "h").astype("m8[ns]")
    names = {key: "time", "hour": "prediction_timedelta"}
    as_forecast = dataset.rename(names).assign_coords(time=days, prediction_timedelta=leads)
    out, _ = canonicalize(as_forecast, variables)
    out = out.drop_vars("valid_time").rename({v: k for k, v in names.items()})
    out = out.assign_coords({k: dataset[k].variable for k in names})
    return out.transpose("hour", key, ...)


def _plain_names(dataset: xr.Dataset) -> xr.Dataset:
    """Call dims and variables by what they are: ``climatology_t2m``, ``day_of_year``."""
    known = {"day_of_year": "dayofyear", "doy": "dayofyear", "hour_of_day": "hour"}
    names = {}
    for name in dict.fromkeys([*dataset.variables, *dataset.dims]):
        plain = str(name).removeprefix("climatology_").removesuffix("_climatology")
        plain = known.get(plain, plain)
        if plain != name and plain not in dataset.variables and plain not in dataset.dims:
            names[name] = plain
    return dataset.rename(names)


def _key(dataset: xr.Dataset) -> str | None:
    """The dimension that tells the season."""
    return next((name for name in ("dayofyear", "month") if name in dataset.dims), None)


def climatology_at(dataset: xr.Dataset, valid_time: Any) -> xr.Dataset:
    """Look up a Dataset with dims (hour, dayofyear, …) at any times.

    Day 366 of a data set that ends with day 365 is that day.

    Parameters
    ----------
    dataset : xarray.Dataset
        Climatology as :class:`Climatology` holds it.
    valid_time : xarray.DataArray or array-like
        As for :meth:`Climatology.at`.

    Returns
    -------
    xarray.Dataset
        Dims (those of `valid_time`, latitude, longitude).

    Raises
    ------
    InputError
        If the climatology does not have a time of day that is asked for.
    """
    valid_time = as_labelled(valid_time)
    times = valid_time.values
    slot, index = places(dataset, times)
    found = dataset.isel(
        {
            "hour": xr.DataArray(slot, dims=valid_time.dims),
            str(_key(dataset)): xr.DataArray(index, dims=valid_time.dims),
        }
    )
    found = found.drop_vars(["hour", str(_key(dataset))]).transpose(*valid_time.dims, ...)
    return found.assign_coords(valid_time=(valid_time.dims, times))


def places(dataset: xr.Dataset, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find times in a climatology: positions in ``hour`` and in the season, of their shape.

    Raises
    ------
    InputError
        If the climatology does not have one of them.
    """
    flat, hours = times.ravel(), dataset["hour"].values
    _, day, clock = calendar_parts(flat)
    if np.isnan(hours).all():
        if len(several := np.unique(clock)) > 1:
            raise InputError(
                "the climatology is by day alone, and the valid times have "
                f"{len(several)} times of day: their daily cycle would count as an anomaly. Make "
                "one by hour and day, as with Climatology.fit(train, task)"
            )
        slot = np.zeros(len(flat), dtype=np.int64)
    else:
        own = np.round(hours * (DAY / 24)).astype(np.int64)
        slot = np.searchsorted(own, clock).clip(max=own.size - 1)
        if np.any(own[slot] != clock):
            first = flat[np.argmax(own[slot] != clock)]
            raise InputError(
                f"the climatology has the hours {hours.tolist()}, "
                f"which do not include that of {first}; fit it with the time step of the forecast"
            )
    key = _key(dataset)
    have = dataset[key].values
    if key == "month":
        day = xr.DataArray(flat, dims="time").dt.month.values
    elif have[-1] == 365:
        day = np.minimum(day, 365)
    index = np.searchsorted(have, day).clip(max=have.size - 1)
    if np.any(have[index] != day):
        lacking = flat[np.argmax(have[index] != day)]
        raise InputError(
            f"the climatology has {have.size} values of '{key}', from {have[0]} to {have[-1]}, "
            f"which do not include that of {lacking}; make it of whole years"
        )
    return slot.reshape(times.shape), index.reshape(times.shape)


def as_labelled(valid_time: Any) -> xr.DataArray:
    """Give times the dims ``time``, or ``(time, prediction_timedelta)``, if they have none."""
    if isinstance(valid_time, xr.DataArray):
        return valid_time
    values = np.asarray(valid_time)
    return xr.DataArray(values, dims=("time", "prediction_timedelta")[: values.ndim])
