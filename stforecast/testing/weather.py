"""Small synthetic data sets with known answers, for this library's tests and its users'.

>>> ds = make_weather(steps=6, shape=(4, 8), noise=0)
>>> dict(ds.sizes)
{'time': 6, 'latitude': 4, 'longitude': 8}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LAT, LEAD, LON, TIME, VALID
from ..conventions.times import valid_times

_CELSIUS = 273.15


def make_weather(
    steps: int = 72,
    *,
    time: str = "2001-01-01",
    timestep: str = "1h",
    shape: tuple[int, int] = (12, 24),
    noise: float = 0.3,
    seed: int = 0,
    calendar: str = "standard",
    chunks: int | None = None,
) -> xr.Dataset:
    """Make a global 2 m temperature in canonical form: a wave, the day, and red noise.

    ``T = 285 - 35 sin²φ + 6 cosφ sin(2λ - 2πt/30) + 4 cosφ cos(2πt/24 + λ - 3.9)`` with latitude
    φ, longitude λ and t hours since the first time, plus noise that is first-order autoregressive
    in time (0.9 from step to step) and white in space.

    Parameters
    ----------
    steps : int
        Number of times.
    time, timestep : str
        First time, and the step as :class:`pandas.Timedelta` reads it.
    shape : (int, int)
        Numbers of latitudes (cell centres, no poles) and longitudes (from 0).
    noise : float
        Standard deviation of the noise in K; 0 leaves the closed form.
    seed : int
        Of the noise.
    calendar : str
        CF calendar. Others than the standard one give cftime.
    chunks : int, optional
        Times in a dask chunk. Default: no dask.

    Returns
    -------
    xarray.Dataset
        ``2m_temperature`` (time, latitude, longitude), K, float32.
    """
    n_lat, n_lon = shape
    step = pd.Timedelta(timestep)
    times = xr.date_range(time, periods=steps, freq=step, calendar=calendar)
    lat = -90 + (np.arange(n_lat) + 0.5) * 180 / n_lat
    lon = np.arange(n_lon) * 360 / n_lon
    hours = (np.arange(steps) * step / pd.Timedelta("1h"))[:, None, None]
    phi, lam = np.deg2rad(lat)[:, None], np.deg2rad(lon)
    values = 285 - 35 * np.sin(phi) ** 2 + np.zeros((steps, n_lat, n_lon))
    values += 6 * np.cos(phi) * np.sin(2 * lam - 2 * np.pi * hours / 30)
    values += 4 * np.cos(phi) * np.cos(2 * np.pi * hours / 24 + lam - 3.9)
    white = np.random.default_rng(seed).standard_normal(values.shape)
    red = np.empty_like(white)
    for i in range(steps):
        red[i] = white[i] if i == 0 else 0.9 * red[i - 1] + np.sqrt(1 - 0.9**2) * white[i]
    attrs = {"units": "K", "long_name": "2m temperature", "standard_name": "air_temperature"}
    ds = xr.Dataset(
        {"2m_temperature": ((TIME, LAT, LON), (values + noise * red).astype(np.float32), attrs)},
        {
            TIME: (TIME, times, {"standard_name": "time"}),
            LAT: (LAT, lat, {"units": "degrees_north", "standard_name": "latitude"}),
            LON: (LON, lon, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        {"source": "stforecast.testing.make_weather: synthetic"},
    )
    return ds if chunks is None else ds.chunk({TIME: chunks})


def make_forecast(
    weather: xr.Dataset, *, inits: int = 4, steps: int = 3, bias: float = 0.5, spread: float = 1.0
) -> xr.Dataset:
    """Make a forecast whose errors against `weather` are known.

    The error at the k-th step is ``bias ± k * spread``, with alternating signs along longitude.
    Over an even number of longitudes its mean is ``bias``, its root mean square
    ``sqrt(bias² + (k * spread)²)`` and its mean absolute value ``max(|bias|, k * |spread|)``,
    whatever the latitude weights.

    Parameters
    ----------
    weather : xarray.Dataset
        The truth, canonical, with evenly spaced times.
    inits, steps : int
        Initialisations (from the first time on) and steps of each.
    bias, spread : float
        Of the error, in the variable's units.

    Returns
    -------
    xarray.Dataset
        Dimensions (time, prediction_timedelta, latitude, longitude), with ``valid_time``.
    """
    time = weather[TIME].values
    lead = np.array(
        [pd.Timedelta(time[k] - time[0]) for k in range(1, steps + 1)], "timedelta64[ns]"
    )
    sign = xr.DataArray(np.where(np.arange(weather.sizes[LON]) % 2, 1.0, -1.0), dims=LON)
    k = xr.DataArray(np.arange(1, steps + 1), dims=LEAD)
    index = xr.DataArray(np.arange(inits)[:, None] + k.values, dims=(TIME, LEAD))
    truth = weather.drop_vars(TIME).isel({TIME: index})
    with xr.set_options(keep_attrs=True):
        forecast = (truth + (bias + spread * k * sign)).astype(np.float32)
    valid = ((TIME, LEAD), valid_times(time[:inits], lead))
    forecast = forecast.assign_coords({TIME: time[:inits], LEAD: lead, VALID: valid})
    return forecast.transpose(TIME, LEAD, LAT, LON)


def relabel(
    ds: xr.Dataset,
    *,
    names: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    north_first: bool = False,
    west_negative: bool = False,
    units: str = "K",
    dtype: str = "float32",
    packed: bool = False,
) -> xr.Dataset:
    """Write a canonical Dataset the way a caller might: other names, orders, units and dtype.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical; its temperatures in K.
    names : mapping, optional
        New names of variables, dimensions and coordinates.
    order : sequence of str, optional
        Canonical names of the dimensions in the wanted order.
    north_first, west_negative : bool
        Latitude descending; longitude from -180 to 180.
    units : {"K", "degC"}
        Of the temperatures.
    dtype : str
        Of the variables; ignored where `packed`.
    packed : bool
        int16 with ``scale_factor``, ``add_offset`` and ``_FillValue`` in the attributes, as a file
        that was not decoded; rounds to 0.01.

    Returns
    -------
    xarray.Dataset
    """
    out = ds.copy()
    for name, array in ds.data_vars.items():
        temperature = array.attrs.get("units") == "K"
        values = array.astype(np.float64)
        if temperature and units == "degC":
            values = values - _CELSIUS
        attrs: dict[str, Any] = dict(array.attrs, units=units) if temperature else dict(array.attrs)
        if packed:
            middle = 273.0 if temperature and units == "K" else 0.0
            attrs |= {"scale_factor": 0.01, "add_offset": middle, "_FillValue": np.int16(-32768)}
            values = ((values - middle) / 0.01).round().fillna(-32768).astype(np.int16)
        out[name] = (values if packed else values.astype(dtype)).assign_attrs(attrs)
    if north_first:
        out = out.isel({LAT: slice(None, None, -1)})
    if west_negative:
        lon = (out[LON] + 180) % 360 - 180
        out = out.assign_coords({LON: lon.assign_attrs(ds[LON].attrs)}).sortby(LON)
    if order is not None:
        out = out.transpose(*order)
    return out.rename({} if names is None else dict(names))
