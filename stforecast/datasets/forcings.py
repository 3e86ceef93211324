"""Inputs that need no observation: the sun, the calendar, the place, and fields that never change.

Such channels are inputs only: ``Task([..., "toa_incident_solar_radiation"], targets=...)``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..conventions.angles import per_degree, to_degrees
from ..conventions.axes import LAT, LEAD, LON, TIME, Axis, find_axes
from ..conventions.gate import canonicalize
from ..conventions.grid import axis_difference
from ..conventions.lazy import LazyArray
from ..conventions.times import canonical_times
from ..conventions.variables import canonical_name, meant
from ..errors import InputError
from .finding import find_sources
from .grib import open_parts
from .joining import some
from .lazy import Repeated

#: Solar irradiance at the mean distance of the sun, W m-2 (Kopp and Lean 2011).
SOLAR_CONSTANT = 1360.8

_TROPICAL_YEAR = 365.2422  # days


class Moments(NamedTuple):
    """Times as the formulas need them: float64, of one shape."""

    year: np.ndarray  # fraction of the year that has gone, in [0, 1)
    day: np.ndarray  # fraction of the day (UTC) that has gone, in [0, 1)
    since: np.ndarray  # days since noon of 1 January 2000


# Of moments, latitude and longitude (radians), which broadcast to (time, latitude, longitude).
Compute = Callable[[Moments, np.ndarray, np.ndarray], np.ndarray]


def solar_radiation(when: Moments, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Solar radiation on a horizontal plane at the top of the atmosphere, at the instant.

    In W m-2, float32, 0 at night, for latitude and longitude in radians. The sun's place and
    distance are the Astronomical Almanac's formulas of low precision (as in Michalsky 1988), good
    to 0.01 degrees from 1950 to 2050.
    """
    mean_longitude = np.deg2rad(280.460 + 0.9856474 * when.since)
    anomaly = np.deg2rad(357.528 + 0.9856003 * when.since)
    ecliptic = mean_longitude + np.deg2rad(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    tilt = np.deg2rad(23.439 - 4e-7 * when.since)
    declination = np.arcsin(np.sin(tilt) * np.sin(ecliptic))
    ascension = np.arctan2(np.cos(tilt) * np.sin(ecliptic), np.cos(ecliptic))
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)
    # 0 where the sun is due south or north; mean longitude - ascension is the equation of time.
    hour = 2 * np.pi * when.day - np.pi + longitude + mean_longitude - ascension
    strength = SOLAR_CONSTANT / distance**2
    steady = strength * np.sin(declination) * np.sin(latitude)
    daily = strength * np.cos(declination) * np.cos(latitude)
    # Only from here on do the arrays have their full size.
    out = daily.astype(np.float32) * np.cos(hour).astype(np.float32)
    out += steady.astype(np.float32)
    return np.maximum(out, 0, out=out)


_SUN = {
    "units": "W m-2",
    "long_name": "top-of-atmosphere incident solar radiation, at the instant",
    "cell_methods": "time: point",
    "references": "Michalsky 1988, doi:10.1016/0038-092X(88)90045-X; Kopp and Lean 2011, "
    "doi:10.1029/2010GL045777",
}


def _angle(what: str) -> dict[str, Any]:
    return {"units": "1", "long_name": what}


_INPUTS: dict[str, tuple[Compute, dict[str, Any]]] = {
    "toa_incident_solar_radiation": (solar_radiation, _SUN),
    "day_of_year_sin": (
        lambda when, lat, lon: np.sin(2 * np.pi * when.year),
        _angle("sine of the time of the year, 0 at its beginning"),
    ),
    "day_of_year_cos": (
        lambda when, lat, lon: np.cos(2 * np.pi * when.year),
        _angle("cosine of the time of the year, 1 at its beginning"),
    ),
    "hour_sin": (
        lambda when, lat, lon: np.sin(2 * np.pi * when.day + lon),
        _angle("sine of the local mean solar time, 0 at midnight"),
    ),
    "hour_cos": (
        lambda when, lat, lon: np.cos(2 * np.pi * when.day + lon),
        _angle("cosine of the local mean solar time, 1 at midnight"),
    ),
    "latitude_sin": (lambda when, lat, lon: np.sin(lat), _angle("sine of latitude")),
    "latitude_cos": (lambda when, lat, lon: np.cos(lat), _angle("cosine of latitude")),
    "longitude_sin": (lambda when, lat, lon: np.sin(lon), _angle("sine of longitude")),
    "longitude_cos": (lambda when, lat, lon: np.cos(lon), _angle("cosine of longitude")),
}

#: What can be computed, and what of it never changes.
COMPUTED = frozenset(_INPUTS)
STILL = frozenset(n for n in _INPUTS if n.startswith(("latitude_", "longitude_")))


def add_inputs(
    ds: xr.Dataset,
    names: str | Sequence[str],
    *,
    constants: str | os.PathLike[str] | xr.Dataset | None = None,
) -> xr.Dataset:
    """Add input channels that are computed from time and place, or never change.

    Parameters
    ----------
    ds : xarray.Dataset
        Any with dates (also cftime), latitude and longitude; canonical stays canonical.
    names : str or sequence of str
        ``toa_incident_solar_radiation`` (W m-2, *at the instant*, not accumulated as ERA5's);
        ``day_of_year_sin``, ``day_of_year_cos``; ``hour_sin``, ``hour_cos`` (of local mean solar
        time); ``latitude_sin``, ``latitude_cos``, ``longitude_sin``, ``longitude_cos``; and with
        `constants` the variables in it, by their own or their canonical names.
    constants : path or xarray.Dataset, optional
        Fields on the same grid, such as WeatherBench 1's ``constants_5.625deg.nc`` with ``lsm`` and
        ``orography``. Where they have times, the first one is taken.

    Returns
    -------
    xarray.Dataset
        `ds` with the new variables (time, latitude, longitude), float32, lazy: dask arrays in the
        chunks of its variables where it has such, else computed as they are read.

    Raises
    ------
    InputError
        If a name is unknown or taken, `ds` has no times and places, or the constants lie on another
        grid.

    Examples
    --------
    >>> from stforecast.testing import make_weather
    >>> ds = add_inputs(make_weather(steps=3), ["toa_incident_solar_radiation", "hour_sin"])
    >>> list(ds.data_vars)
    ['2m_temperature', 'toa_incident_solar_radiation', 'hour_sin']
    """
    names = [names] if isinstance(names, str) else list(names)
    found = find_axes(ds)
    if any(role == LEAD for role, _ in found.values()):
        raise InputError("add_inputs takes a history, found a dimension of lead times")
    axes = {}
    for role in (TIME, LAT, LON):
        along = [(dim, coord) for dim, (r, coord) in found.items() if r == role]
        if len(along) != 1:
            raise InputError(f"expected one dimension of {role}, found {len(along)}: {list(found)}")
        axes[role] = along[0]
    moments = _moments(*_coordinate(ds, axes[TIME][1]))
    places = []
    for role in (LAT, LON):
        name, values = _coordinate(ds, axes[role][1])
        per = per_degree(role, name, ds.variables[name])
        degrees = to_degrees(values.astype(np.float64), per, poles=role == LAT)
        places.append(np.deg2rad(degrees))
    dims = tuple(dim for dim, _ in axes.values())
    added: dict[str, xr.Variable] = {}
    with ExitStack() as stack:
        fields = None if constants is None else _Constants(constants, stack)
        for name in names:
            canonical = canonical_name(name)
            if canonical in added or any(canonical_name(str(v)) == canonical for v in ds.data_vars):
                raise InputError(
                    f"'{name}' is in the Dataset already: drop it, or do not ask for it"
                )
            known = _INPUTS.get(canonical)
            array: LazyArray
            if fields is not None and (known is None or fields.has(name)):
                still = fields.on_grid(name, ds, axes)
                array, attrs = Repeated(still, len(moments.year)), still.attrs
            elif known is not None:
                array, attrs = _Computed(canonical, moments, *places), known[1]
            else:
                raise InputError(
                    f"'{name}' cannot be computed, expected {some(_INPUTS, 20)}; what never "
                    "changes (land_sea_mask, orography) comes from constants="
                )
            added[canonical] = array.variable(dims, dict(attrs))
    return ds.assign(_chunked_like(ds, added).variables)


def sun_at(time: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Compute the solar radiation at the top of the atmosphere, W m-2.

    Parameters
    ----------
    time : array of shape (N,)
        Dates, ``datetime64`` or cftime.
    latitude, longitude : array of shape (H,) and (W,)
        In degrees.

    Returns
    -------
    numpy.ndarray of float32, shape (N, H, W)
    """
    when = Moments(*(part[:, None, None] for part in _moments("time", time)))
    places = np.deg2rad(latitude.astype(np.float64)), np.deg2rad(longitude.astype(np.float64))
    return solar_radiation(when, places[0][:, None], places[1])


def _coordinate(ds: xr.Dataset, name: Hashable | None) -> tuple[Hashable, np.ndarray]:
    if name is None:
        raise InputError("the times and places need coordinates: set them with ds.assign_coords")
    return name, ds.variables[name].to_numpy()


def _moments(name: Hashable, times: np.ndarray) -> Moments:
    """Times in the formulas' terms, in their own calendar.

    Where that is not the one by which the seasons keep their dates, such as one of 360 days, the
    sun stands where it stands at that part of an average year.
    """
    times = canonical_times(name, times)
    if times.dtype != object:
        begun = times.astype("datetime64[Y]")
        gone = (times - begun.astype(times.dtype)) / np.timedelta64(1, "D")
        length = (begun + 1).astype("datetime64[D]") - begun.astype("datetime64[D]")
        since = (times - np.datetime64("2000-01-01T12", "ns")) / np.timedelta64(1, "D")
        return Moments(gone / (length / np.timedelta64(1, "D")), gone % 1.0, since)
    first = {"month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0, "microsecond": 0}
    years = range(times.min().year, times.max().year + 2)
    starts = {year: times[0].replace(year=year, **first) for year in years}
    gone = np.array([(t - starts[t.year]).total_seconds() for t in times]) / 86400
    year = gone / [(starts[t.year + 1] - starts[t.year]).days for t in times]
    # On the average of four years they begin 0.113 days before such a noon.
    since = (np.array([t.year for t in times]) - 2000 + year) * _TROPICAL_YEAR - 0.113
    return Moments(year, gone % 1.0, since)


class _Computed(LazyArray):
    """One of the inputs, computed as it is read."""

    def __init__(self, name: str, moments: Moments, latitude: np.ndarray, longitude: np.ndarray):
        self.name, self.moments, self.places = name, moments, (latitude, longitude)
        self.dtype = np.dtype(np.float32)
        self.shape = (len(moments.year), len(latitude), len(longitude))

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        when = Moments(*(part[key[0]][:, None, None] for part in self.moments))
        lat, lon = (p[k] for p, k in zip(self.places, key[1:], strict=True))
        values = _INPUTS[self.name][0](when, lat[:, None], lon).astype(np.float32, copy=False)
        return np.broadcast_to(values, (len(when.year), len(lat), len(lon))).copy()


class _Constants:
    """Fields without time, and where they lie."""

    def __init__(self, constants: str | os.PathLike[str] | xr.Dataset, stack: ExitStack):
        if isinstance(constants, xr.Dataset):
            self.label, self.parts = "constants", [constants]
        else:
            self.label = str(constants)
            sources = find_sources(constants, None, None)
            self.parts = [part for source in sources for part in open_parts(source)]
            for part in self.parts:
                stack.callback(part.close)

    def has(self, name: str) -> bool:
        return any(meant(part, name) for part in self.parts)

    def on_grid(
        self, name: str, ds: xr.Dataset, axes: dict[str, tuple[Hashable, Hashable | None]]
    ) -> xr.Variable:
        """Take one field (latitude, longitude), float32, in the order of `ds`."""
        part = next((p for p in self.parts if meant(p, name)), None)
        if part is None:
            there = sorted({str(v) for p in self.parts for v in p.data_vars})
            raise InputError(f"{self.label}: no variable '{name}' in it; found {some(there)}")
        one = part[[meant(part, name)[0].name]]
        for dim, (role, _) in find_axes(one).items():
            one = one.isel({dim: 0}) if role == TIME else one
        one = one.drop_vars([c for c in one.coords if one[c].dtype.kind in "mM"])
        try:
            field, _ = canonicalize(one.expand_dims({TIME: [np.datetime64(0, "ns")]}), [name])
        except InputError as error:
            raise InputError(f"{self.label}: {error}") from error
        ((_, still),) = field.isel({TIME: 0}, drop=True).data_vars.items()
        for role in (LAT, LON):
            ours, theirs = Axis.of(role, *axes[role], ds), still[role].to_numpy()
            assert ours.values is not None
            if difference := axis_difference(role, theirs, ours.values):
                raise InputError(
                    f"{self.label}: '{name}' and the data lie on different grids: {difference}: "
                    "regrid one of them"
                )
            if ours.inverse is not None:
                still = still.isel({role: ours.inverse})
        return xr.Variable(still.dims, still.to_numpy(), still.attrs)


def _chunked_like(ds: xr.Dataset, added: dict[str, xr.Variable]) -> xr.Dataset:
    """Make dask arrays of new variables where the Dataset has such."""
    new = xr.Dataset(added)
    for variable in ds.data_vars.values():
        if variable.chunks is not None and set(new.dims) <= set(variable.dims):
            return new.chunk({d: c for d, c in variable.chunksizes.items() if d in new.dims})
    return new
