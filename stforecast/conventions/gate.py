"""Names, units, orders and times of labelled arrays: the one gate for all input.

:func:`canonicalize` brings a caller's Dataset into the one form that the library works with, and
:func:`restore` gives results back in the caller's own labels. Nothing is read but coordinates and,
for temperatures, one time step to hold the units against the values.

The canonical form: variables named as WeatherBench 2 names them, dimensions ``(time[,
prediction_timedelta], latitude, longitude)``, or ``(..., y, x)`` for pixels and cells; times
sorted, unique, ``datetime64[ns]`` (cftime where the calendar demands it); latitude ascending;
longitude ascending in [0, 360), but a regional grid that crosses Greenwich stays in one piece and
starts below zero; float32; temperatures in K. Numbers are converted in float64 and rounded to
float32 once, so the round trip is good to half a float32 step (1.5e-5 K at 288 K); float32 in K and
int16 packing come back exactly.

On pressure levels there is one variable a level: ``geopotential_500`` (hPa). It is asked for by
that name, or as ``z500``, where the caller has a variable with a dimension of levels, of which no
other level is read; a variable on several levels is left out if nobody asks, but of a forecast that
is to be scored every level is taken. :func:`restore` gives it back under the caller's name with the
level, ``z_500``; one that came on a single level, as it came.

Data variables that are not asked for, or do not lie on time and a grid, are left out; coordinates
of at most one dimension come back with :func:`restore`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import InputError
from .attributes import text
from .axes import DIMS, LAT, LEAD, LON, TIME, VALID, Axis, X, Y, axes_of, find_axes, role_of
from .codecs import refuse_encoded
from .fields import Field
from .forms import Form, as_dataset, in_form
from .lazy import arrange, in_memory, one_along
from .names import refuse_names
from .times import canonical_times, time_blocks, time_step, times_like, valid_times
from .variables import VARIABLES, Meant, choose, named

#: Times of an array in memory whose values are held against their units.
_SAMPLES = 16

_COORD_ATTRS = {
    TIME: {"standard_name": "time", "long_name": "time"},
    LAT: {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"},
    LON: {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"},
}
#: In the encoding of what was read from a zarr store: how that store, of its version, keeps it.
_OF_THE_STORE = ("compressor", "compressors", "filters", "serializer", "chunks", "shards")
#: Attributes of the coordinates of a forecast.
FORECAST_ATTRS = {
    TIME: {"standard_name": "forecast_reference_time", "long_name": "initialisation time"},
    LEAD: {"standard_name": "forecast_period", "long_name": "lead time"},
    VALID: {"standard_name": "time", "long_name": "valid time"},
}


@dataclass(frozen=True, eq=False)
class Labels:
    """The caller's labels, as :func:`restore` needs them.

    Small, without data, and can be pickled. `fields` and `axes` describe variables and dimensions
    by canonical name; `extras` are the other coordinates, as they came.
    """

    fields: Mapping[str, Field]
    axes: Mapping[str, Axis]
    extras: Mapping[Hashable, xr.Variable]
    valid_time: tuple[Hashable, xr.Variable] | None
    encoding: Mapping[Any, Any]
    unasked: frozenset[str] = frozenset()  # variables that are one of several levels

    @property
    def dims(self) -> dict[Hashable, Hashable]:
        """The caller's name of every canonical dimension."""
        return {role: role if a.dim is None else a.dim for role, a in self.axes.items()}

    @property
    def valid_times(self) -> xr.Variable | None:
        """Time + lead time (time, prediction_timedelta) of a forecast; None for a history."""
        if LEAD not in self.axes:
            return None
        times = valid_times(self.axes[TIME].values, self.axes[LEAD].values)
        return xr.Variable((TIME, LEAD), times)


# --- the way in -----------------------------------------------------------------------------------


def canonicalize(
    ds: Any, variables: Sequence[str] | str | None = None, *, form: Form | None = None
) -> tuple[xr.Dataset, Labels]:
    """Bring a Dataset into canonical form, lazily.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataArray or any object with ``to_xarray()``
        A history (time and two dimensions of space) or a forecast (a lead time as well).
    variables : sequence of str, optional
        What to take, by the caller's names or the canonical ones, one level of a variable as
        ``geopotential_500`` or ``z500``. Default: every variable that lies on time and a grid, but
        none that lies on several levels; of a `form` "forecast" all of their levels too.
    form : {"history", "forecast"}, optional
        What is needed; the other is refused. One run on its valid times, and one lead time of many
        runs on theirs, can be either.

    Returns
    -------
    canonical : xarray.Dataset
        In the form that the module's head describes. Forecasts have ``valid_time``, computed anew.
        Dask arrays stay so; others are views that convert what is read of them.
    labels : Labels
        What :func:`restore` needs to give the caller's labels back.

    Raises
    ------
    InputError
        If the input cannot be used; the message says what was found, what was expected and how to
        mend it.

    Examples
    --------
    >>> from stforecast.testing import make_weather, relabel
    >>> theirs = relabel(make_weather(steps=3), names={"2m_temperature": "t2m"}, units="degC")
    >>> ours, labels = canonicalize(theirs)
    >>> ours["2m_temperature"].attrs["units"], list(restore(ours, labels))
    ('K', ['t2m'])
    """
    variables = [variables] if isinstance(variables, str) else variables
    ds = as_dataset(ds, variables)
    refuse_encoded(ds.coords.variables)
    return _through(in_form(ds, form), variables, form)


def canonicalize_along(ds: xr.Dataset, dim: str, form: Form) -> list[tuple[xr.Dataset, Labels]]:
    """Bring what lies along a dimension that is no axis into canonical form, place by place.

    Which axes and units there are is asked of the first place alone: it is the same in all.

    Parameters
    ----------
    ds : xarray.Dataset
        Such as an ensemble.
    dim : str
        Such as that of its members, of at least one place.
    form : {"history", "forecast"}

    Returns
    -------
    list of (canonical, labels)
        As of :func:`canonicalize`, for each place.

    Raises
    ------
    InputError
        As of :func:`canonicalize`.
    """
    refuse_encoded(ds.coords.variables)
    first = one_along(ds, dim, 0)
    formed = in_form(first, form)
    if formed.sizes != first.sizes or set(formed.coords) != set(first.coords):
        every = range(ds.sizes[dim])
        return [canonicalize(one_along(ds, dim, i), form=form) for i in every]
    canonical, labels = _through(formed, None, form, ds, dim)
    return [(one_along(canonical, dim, i), labels) for i in range(ds.sizes[dim])]


def _through(
    ds: xr.Dataset,
    variables: Sequence[str] | None,
    form: Form | None,
    whole: xr.Dataset | None = None,
    along: str | None = None,
) -> tuple[xr.Dataset, Labels]:
    """Canonical form of a Dataset, or of a `whole` of which it is one place `along` a dimension."""
    found = find_axes(ds)
    chosen = choose(ds, variables, found, every_level=form == "forecast")
    refuse_encoded({m.name: ds.variables[m.name] for m in chosen})
    labels = _labels(ds, chosen, found)
    _refuse_other(form, labels)
    own = [m.label for m in chosen]
    kept = [c for axis in labels.axes.values() for c in (axis.dim, axis.coord) if c is not None]
    refuse_names([*own, *kept, *labels.extras], own)
    whole = ds if whole is None else whole
    data = {m.canonical: _canonical(m.of(whole), m, labels, along) for m in chosen}
    attrs = _COORD_ATTRS | (FORECAST_ATTRS if LEAD in labels.axes else {})
    coords: dict[str, Any] = {
        role: (role, axis.values, attrs.get(role, {}))
        for role, axis in labels.axes.items()
        if axis.values is not None
    }
    if (times := labels.valid_times) is not None:
        coords[VALID] = (times.dims, times.values, attrs[VALID])
    return xr.Dataset(data, coords, ds.attrs), labels


def _refuse_other(form: Form | None, labels: Labels) -> None:
    """Refuse a forecast where a history is needed, and a history for a forecast."""
    dims = ", ".join(map(str, labels.dims.values()))
    if form == "history" and LEAD in labels.axes:
        raise InputError(
            "this needs a history (time, latitude, longitude), observations or analyses, not "
            f"forecasts; found a forecast ({dims}) with lead times '{labels.axes[LEAD].coord}'"
        )
    if form == "forecast" and LEAD not in labels.axes:
        raise InputError(
            f"a forecast has the dimensions time (the initialisation) and {LEAD}, found ({dims}) "
            "and nothing that tells lead times; stforecast.predict gives this form"
        )


def _labels(
    ds: xr.Dataset, chosen: Sequence[Meant], found: Mapping[Hashable, tuple[str, Hashable | None]]
) -> Labels:
    """Answer which axes, which units and which further coordinates the chosen variables have."""
    variables = {m.label: m.of(ds) for m in chosen}
    axes = axes_of(ds, {name: v.dims for name, v in variables.items()}, found)
    steps = [axes[role].dim for role in (TIME, LEAD) if role in axes]
    fields = {}
    for m in chosen:
        variable, samples = variables[m.label], None
        if LEAD not in axes or not text(variable.attrs, "units"):
            # A few maps; a forecast that is still to be computed is not computed for this.
            samples = partial(_samples, variable, steps)
        temperature = m.base in VARIABLES and m.base.endswith("temperature")
        fields[m.canonical] = Field.of(m.label, variable, temperature=temperature, samples=samples)
    labels = Labels(fields, axes, {}, None, dict(ds.encoding))
    valid = _valid_time(ds, labels)
    main = {axis.coord for axis in axes.values()} | ({valid[0]} if valid else set())
    dims = {d for v in variables.values() for d in v.dims}
    extras = {
        name: coord.variable.to_base_variable().compute()  # small: dask only tears it apart
        for name, coord in ds.coords.items()
        if name not in main and {*coord.dims} <= dims and sum(n > 1 for n in coord.shape) <= 1
    }
    unasked = frozenset(m.canonical for m in chosen if m.position is not None)
    return replace(labels, extras=extras, valid_time=valid, unasked=unasked)


def _samples(variable: xr.Variable, steps: Sequence[Hashable]) -> Iterable[np.ndarray]:
    """The map of the first time; in memory, where it costs nothing, of some more to the last."""
    along = [d for d in steps if d in variable.dims]
    if not along:
        return [variable.to_numpy()]
    maps = variable.isel(dict.fromkeys(along[1:], 0))
    last = maps.sizes[along[0]] - 1 if in_memory(variable) else 0
    places = np.unique(np.linspace(0, last, _SAMPLES).round().astype(int))
    return [maps.isel({along[0]: i}).to_numpy() for i in places]


def _canonical(
    variable: xr.Variable, m: Meant, labels: Labels, along: str | None = None
) -> xr.Variable:
    """One of the caller's variables in canonical form, read when it is used; `along` in front."""
    field, axes = labels.fields[m.canonical], labels.axes
    roles = {dim: role for role, dim in labels.dims.items()}
    variable.dims = tuple(roles.get(d, d) for d in variable.dims)
    orders: dict[Hashable, Any] = {role: axis.order for role, axis in axes.items()}
    whole = in_memory(variable) and field.is_canonical(variable.to_numpy())
    convert = None if whole else field.decode
    dims = [along, *axes] if along in variable.dims else list(axes)
    out = arrange(variable, dims, orders, convert, np.float32)
    out.attrs = field.unpacked.attrs | ({} if field.unit is None else {"units": "K"}) | m.attrs
    if m.base in VARIABLES:
        out.attrs.setdefault("long_name", m.base.replace("_", " "))
    return out


def _valid_time(ds: xr.Dataset, labels: Labels) -> tuple[Hashable, xr.Variable] | None:
    """Find a forecast's own coordinate of valid times; refuse it if it is wrong."""
    if (computed := labels.valid_times) is None:
        return None
    axes, dims = labels.axes, labels.dims
    for name, coord in ds.coords.items():
        valid = name in (VALID, TIME) or text(coord.attrs, "standard_name") == "time"
        places = {dims[TIME], dims[LEAD]}
        if not valid or name == axes[TIME].coord or not set(coord.dims) <= places:
            continue
        given = coord.variable.to_base_variable()
        orders = {dims[role]: axes[role].inverse for role in (TIME, LEAD)}
        times = _rearranged(computed, dims, given.dims, orders).to_numpy()
        theirs = canonical_times(name, given.to_numpy())
        wrong = np.flatnonzero(theirs != times)
        if len(wrong):
            raise InputError(
                f"coordinate '{name}' is not time + lead time at {len(wrong)} places: first "
                f"{theirs.flat[wrong[0]]}, expected {times.flat[wrong[0]]}: correct it or drop it"
            )
        return name, given
    return None


# --- the way out ----------------------------------------------------------------------------------


def restore(ds: xr.Dataset, labels: Labels) -> xr.Dataset:
    """Give a canonical Dataset the caller's labels; the inverse of :func:`canonicalize`.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical: the Dataset itself, a part of it, or a forecast made from it. In a forecast from
        a history ``time``, ``prediction_timedelta`` and ``valid_time`` keep these names and come
        first, and numbers are float32, not packed.
    labels : Labels
        From :func:`canonicalize`.

    Returns
    -------
    xarray.Dataset
        With the caller's names, order and directions of dimensions, units and attributes, and where
        the grid is the caller's, its very coordinates. Another grid keeps its values, in the
        caller's direction and longitude convention. Dask and lazy arrays stay so.
    """
    if LEAD in ds.dims and LEAD not in labels.axes:
        labels = _forecast_labels(labels, ds)
    dims = labels.dims
    orders: dict[Hashable, np.ndarray | None] = {}  # by the caller's dimensions
    coords: dict[Hashable, xr.Variable] = {}
    changed = set()
    for role, axis in labels.axes.items():
        values = np.atleast_1d(ds[role].to_numpy()) if role in ds.coords else None
        if role in ds.dims and axis.has(values):
            orders[dims[role]] = axis.inverse
            if axis.variable is not None:
                coords[axis.coord] = axis.variable
        elif values is not None and axis.variable is not None:
            changed.add(dims[role])
            given, orders[dims[role]] = axis.in_convention(values)
            single = ds[role].ndim == 0 or (axis.dim is None and len(given) == 1)
            where = () if single else (dims[role],)
            coords[axis.coord] = xr.Variable(
                where, given[0] if single else given, axis.variable.attrs
            )
    if labels.valid_time is not None and VALID in ds.coords:
        name, like = labels.valid_time
        out = _rearranged(ds.variables[VALID], dims, like.dims, orders)
        coords[name] = xr.Variable(out.dims, _times(out, like), like.attrs)
    for name, extra in labels.extras.items():
        if changed.isdisjoint(extra.dims):
            coords.setdefault(name, extra)

    data = {}
    for name, array in ds.data_vars.items():
        field = labels.fields.get(str(name))
        if field is None:  # made by others: it has no labels but the dimensions'
            order = tuple(dims.get(d, d) for d in array.dims)
            out = _rearranged(array.variable, dims, order, orders)
            out.attrs = array.attrs
        else:
            out = _rearranged(array.variable, dims, field.dims, orders, field)
            out.attrs, out.encoding = dict(field.attrs), dict(field.encoding)
        data[name if field is None else field.name] = out
    result = xr.Dataset(data, coords, ds.attrs)
    result.encoding = dict(labels.encoding)
    for variable in result.variables.values():  # another store has other codecs and chunks
        variable.encoding = {k: v for k, v in variable.encoding.items() if k not in _OF_THE_STORE}
    return result


def _rearranged(
    variable: xr.Variable,
    names: Mapping[Hashable, Hashable],
    dims: Sequence[Hashable],
    orders: Mapping[Hashable, np.ndarray | None],
    field: Field | None = None,
) -> xr.Variable:
    """Write one canonical variable in the caller's dimensions and, with `field`, numbers."""
    source = variable.to_base_variable().copy(deep=False)
    source.dims = tuple(names.get(d, d) for d in variable.dims)
    here = [d for d in dims if d in source.dims or d not in names.values()]
    here = [d for d in source.dims if d not in here and source.sizes[d] > 1] + here
    if field is None or (field.as_is and field.dtype == source.dtype):
        out = arrange(source, here, orders, None, source.dtype)
    else:
        out = arrange(source, here, orders, field.encode, field.dtype)
    return out.load() if in_memory(source) else out


def _times(variable: xr.Variable, like: xr.Variable, *, dtype: bool = True) -> np.ndarray:
    return times_like(variable.to_numpy(), like.to_numpy(), dtype=dtype)


def _forecast_labels(labels: Labels, ds: xr.Dataset) -> Labels:
    """Labels for a forecast `ds` that was made from the history which `labels` describe."""
    history = labels.axes[TIME]
    spatial = {role: axis for role, axis in labels.axes.items() if role != TIME}
    own: dict[str, xr.Variable] = {}  # these keep their names, and get the caller's calendar
    for name in (TIME, LEAD, VALID):
        if name in ds.coords:
            own[name] = ds.variables[name].to_base_variable()
    for name in own.keys() - {LEAD}:
        times = _times(own[name], history.variable, dtype=False)  # type: ignore[arg-type]
        own[name] = xr.Variable(own[name].dims, times, own[name].attrs)
    axes = {
        role: Axis(role, role, role, own[role], np.atleast_1d(ds[role].to_numpy()))
        for role in (TIME, LEAD)
    }
    places = [axis.dim for axis in spatial.values()]
    fields = {
        name: replace(f.unpacked, dims=(TIME, LEAD, *(d for d in f.dims if d in places)))
        for name, f in labels.fields.items()
    }
    # Scalars such as `number` stay; what describes the input's times and steps does not.
    extras = {
        name: extra.squeeze([d for d in extra.dims if d not in places])
        for name, extra in labels.extras.items()
        if history.dim not in extra.dims and role_of(name, extra) not in (TIME, LEAD)
    }
    valid = (VALID, own[VALID]) if VALID in own else None
    return Labels(fields, axes | spatial, extras, valid, {})


# --- what the library itself asks of canonical Datasets -------------------------------------------


def check(
    ds: xr.Dataset,
    variables: Sequence[str] | None = None,
    *,
    timestep: np.timedelta64 | None = None,
    nan: bool = True,
) -> None:
    """Refuse a canonical Dataset that cannot be worked with.

    Parameters
    ----------
    ds : xarray.Dataset
        As :func:`canonicalize` gives it.
    variables : sequence of str, optional
        Names that must be there. Default: all that are there.
    timestep : numpy.timedelta64, optional
        The step that its times must mostly have; gaps are no error here (see :func:`time_gaps`).
    nan : bool
        Read the data, a block of times after another, and refuse NaN and infinity.

    Raises
    ------
    InputError
        At the first thing that is wrong.
    """
    names = list(ds.data_vars) if variables is None else [named(ds, v).name for v in variables]
    for name in names:
        array = ds[name]
        expected = tuple(d for d in DIMS if d in array.dims)
        spatial = {LAT, LON} <= set(expected) or {Y, X} <= set(expected)
        if array.dims != expected or TIME not in expected or not spatial:
            raise InputError(
                f"'{name}' has dimensions ({', '.join(map(str, array.dims))}), expected (time, "
                "latitude, longitude) or (time, y, x): canonicalize it first"
            )
        if array.dtype != np.float32:
            raise InputError(f"'{name}' is {array.dtype}, expected float32: canonicalize it first")
    for role in (TIME, LAT, LON):
        values = ds[role].to_numpy() if role in ds.dims else np.empty(0)
        if not (values[1:] > values[:-1]).all():
            raise InputError(f"{role} is not ascending without repeats: canonicalize it first")
    if timestep is not None and (found := time_step(ds[TIME])) != timestep:
        raise InputError(
            f"the data's time step is {pd.Timedelta(found)}, expected {pd.Timedelta(timestep)}: "
            "select or resample the times, or use a Task of this step"
        )
    for name in names if nan else ():
        _refuse_nan(ds[name])


def _refuse_nan(array: xr.DataArray) -> None:
    """Read `array` in blocks of time and refuse values that are no finite numbers."""
    bad, first = 0, None
    for block in time_blocks(array):
        part = array.isel({TIME: block})
        wrong = ~np.isfinite(part.to_numpy())
        bad += int(wrong.sum())
        if wrong.any() and first is None:
            first = part[TIME].values[wrong.reshape(len(wrong), -1).any(axis=1).argmax()]
    if bad:
        raise InputError(
            f"'{array.name}' holds {bad} values of {array.size} that are NaN or infinite, the "
            f"first at {first}: fill them (ds.interpolate_na, ds.fillna), or select times and "
            "places without them"
        )
