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
other level is read; a variable on several levels is left out if nobody asks. :func:`restore` gives
it back under the caller's name with the level, ``z_500``; one that came on a single level, as it
came.

Data variables that are not asked for, or do not lie on time and a grid, are left out; coordinates
of at most one dimension come back with :func:`restore`.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import InputError
from .axes import (
    DIMS,
    LAT,
    LEAD,
    LON,
    TIME,
    VALID,
    Axis,
    X,
    Y,
    find_axes,
    is_global,
    role_of,
    scalar,
)
from .lazy import arrange
from .times import canonical_times, time_differences, time_gaps, time_step, times_like, valid_times
from .units import Field
from .variables import VARIABLES, Meant, canonical_name, level_name, levels_of, meant, split_level

__all__ = [
    "VARIABLES",
    "InputError",
    "Labels",
    "Meant",
    "canonical_name",
    "canonicalize",
    "check",
    "find_axes",
    "is_global",
    "levels_of",
    "meant",
    "restore",
    "split_level",
    "time_differences",
    "time_gaps",
    "time_step",
    "valid_times",
]

logger = logging.getLogger(__name__)

_COORD_ATTRS = {
    TIME: {"standard_name": "time", "long_name": "time"},
    LAT: {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"},
    LON: {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"},
}
_FORECAST_ATTRS = {
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

    @property
    def dims(self) -> dict[Hashable, Hashable]:
        """The caller's name of every canonical dimension."""
        return {role: role if a.dim is None else a.dim for role, a in self.axes.items()}


# --- the way in -----------------------------------------------------------------------------------


def canonicalize(
    ds: Any, variables: Sequence[str] | str | None = None
) -> tuple[xr.Dataset, Labels]:
    """Bring a Dataset into canonical form, lazily.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataArray or any object with ``to_xarray()``
        A history (time and two dimensions of space) or a forecast (a lead time as well).
    variables : sequence of str, optional
        What to take, by the caller's names or the canonical ones, one level of a variable as
        ``geopotential_500`` or ``z500``. Default: every variable that lies on time and a grid, but
        none that lies on several levels.

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
    ds = _dataset(ds, variables)
    found = find_axes(ds)
    ds, chosen = _chosen(ds, variables, {dim: role for dim, (role, _) in found.items()})
    axes = _axes(ds, list(chosen), found)
    roles = {axis.dim: role for role, axis in axes.items() if axis.dim is not None}
    orders: dict[Hashable, Any] = {role: axis.order for role, axis in axes.items()}
    fields, data = {}, {}
    for name, (canonical, levels) in chosen.items():
        variable, base = ds.variables[name].copy(deep=False), canonical
        if canonical not in VARIABLES and (on_level := split_level(canonical)):
            base = on_level[0]
        sample = None
        if LEAD not in axes or not variable.attrs.get("units"):
            # One step only; a forecast that is still to be computed is not computed for this.
            one = variable.isel({d: 0 for d in variable.dims if roles.get(d) in (TIME, LEAD)})
            sample = one.to_numpy
        temperature = base in VARIABLES and base.endswith("temperature")
        field = Field.of(name, variable, temperature=temperature, sample=sample)
        variable.dims = tuple(roles.get(d, d) for d in variable.dims)
        convert = None if field.as_is and field.dtype == np.float32 else field.decode
        out = arrange(variable, list(axes), orders, convert, np.float32)
        out.attrs = field.unpacked.attrs | ({} if field.unit is None else {"units": "K"})
        out.attrs |= levels
        if base in VARIABLES:
            out.attrs.setdefault("long_name", base.replace("_", " "))
        fields[canonical], data[canonical] = field, out
    attrs = _COORD_ATTRS | (_FORECAST_ATTRS if LEAD in axes else {})
    coords: dict[str, Any] = {
        role: (role, a.values, attrs.get(role, {}))
        for role, a in axes.items()
        if a.values is not None
    }
    valid = None
    if LEAD in axes:
        times = valid_times(axes[TIME].values, axes[LEAD].values)
        coords[VALID] = ((TIME, LEAD), times, attrs[VALID])
        valid = _valid_time(ds, axes, xr.Variable((TIME, LEAD), times))
    main = {axis.coord for axis in axes.values()} | ({valid[0]} if valid else set())
    dims = {d for name in chosen for d in ds.variables[name].dims}
    extras = {
        name: coord.variable.to_base_variable().compute()  # small: dask only tears it apart
        for name, coord in ds.coords.items()
        if name not in main and {*coord.dims} <= dims and sum(n > 1 for n in coord.shape) <= 1
    }
    labels = Labels(fields, axes, extras, valid, dict(ds.encoding))
    return xr.Dataset(data, coords, ds.attrs), labels


def _dataset(ds: Any, variables: Sequence[str] | None) -> xr.Dataset:
    if not isinstance(ds, (xr.Dataset, xr.DataArray)) and hasattr(ds, "to_xarray"):
        ds = ds.to_xarray()
    if isinstance(ds, xr.DataArray):
        only = variables[0] if variables is not None and len(variables) == 1 else "data"
        ds = ds.to_dataset(name=only if ds.name is None else ds.name)
    if not isinstance(ds, xr.Dataset):
        text = "open it first" if isinstance(ds, (str, PathLike)) else "make one with xr.DataArray"
        raise InputError(
            "expected an xarray Dataset or DataArray, or an object with .to_xarray(); found "
            f"{type(ds).__name__}: {text}"
        )
    if not ds.data_vars:
        raise InputError("the Dataset is empty: expected at least one data variable")
    return ds


def _quoted(names: Iterable[Hashable]) -> str:
    return ", ".join(repr(str(n)) for n in names)


def _named(ds: xr.Dataset, wanted: str) -> Meant:
    """Find the one variable that is asked for by its own name, its canonical one or an alias."""
    found = meant(ds, wanted)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"variable '{wanted}' could be any of {_quoted(m.name for m in found)}: name one"
        )
    if on_level := split_level(canonical_name(wanted)):
        base, level = on_level
        for name in (v for v in ds.data_vars if canonical_name(str(v)) == base):
            levels = levels_of(ds, name)
            there = f"has {levels.text} hPa" if levels else "has no coordinate of pressure levels"
            hint = "ask for one of these" if levels else f"ask for '{base}' if it lies on that one"
            raise InputError(f"variable '{wanted}': '{name}' {there}, not {level:g} hPa: {hint}")
    near = difflib.get_close_matches(wanted, [str(v) for v in ds.data_vars], n=3)
    raise InputError(
        f"variable '{wanted}' is not in the Dataset, which has {_quoted(ds.data_vars)}"
        f"{f' (did you mean {_quoted(near)}?)' if near else ''}: if it goes by another name, "
        f"use ds.rename({{'...': '{wanted}'}})"
    )


def _chosen(
    ds: xr.Dataset, variables: Sequence[str] | None, roles: Mapping[Hashable, str]
) -> tuple[xr.Dataset, dict[Hashable, tuple[str, dict[str, Any]]]]:
    """Take the variables asked for, or all that can be used.

    Returns the Dataset, with a variable for every level that is taken of several, and for each
    variable its canonical name and what its level adds to its attributes.
    """
    picked = meant(ds) if variables is None else [_named(ds, wanted) for wanted in variables]
    ds = ds.assign({m.label: m.of(ds) for m in picked if m.position is not None})
    reasons = {m.label: reason for m in picked if (reason := _unfit(ds, m.label, roles))}
    chosen = [m for m in picked if m.label not in reasons]
    if reasons and (variables is not None or not chosen):
        raise InputError("; ".join(list(reasons.values())[:3]))
    if reasons:
        logger.info("left out: %s", "; ".join(reasons.values()))
    if len({m.canonical for m in chosen}) < len(chosen):
        raise InputError(
            f"several of {_quoted(m.label for m in chosen)} are one variable: ask for it by "
            "variables=[...]"
        )
    return ds, {m.label: (m.canonical, m.attrs) for m in chosen}


def _unfit(ds: xr.Dataset, name: Hashable, roles: Mapping[Hashable, str]) -> str | None:
    """Why a variable cannot be used, or None."""
    variable = ds.variables[name]
    here = [roles[d] for d in variable.dims if d in roles]
    geographic = {LAT, LON} <= set(here)
    dims = f"'{name}' has dimensions ({', '.join(map(str, variable.dims))})"
    if variable.dtype.kind not in "fiu":
        return f"'{name}' holds {variable.dtype} values, expected numbers"
    for role in here:
        if here.count(role) > 1:
            return f"{dims}: more than one of them looks like {role}"
    curved = [c.name for c in ds[name].coords.values() if c.ndim == 2 and _is_latitude(c)]
    if curved and not geographic:
        return (
            f"'{name}' is on a curvilinear grid (its latitude '{curved[0]}' is 2-D), expected 1-D "
            "latitude and longitude, for area weights and maps: regrid it, or drop the 2-D "
            "coordinates with ds.drop_vars to treat its points as pixels"
        )
    if not (geographic or {Y, X} <= set(here)):
        return f"{dims}, expected latitude and longitude (or y and x) among them"
    if TIME not in here and scalar(ds, TIME) is None:
        return (
            f"{dims}: it has no time dimension. Give it one with "
            "ds.expand_dims(time=[np.datetime64('2000-01-01')])"
        )
    for dim in variable.dims:
        # Beside latitude and longitude, `height` and the like are levels.
        extra = dim not in roles or (geographic and roles[dim] in (Y, X))
        if extra and ds.sizes[dim] != 1:
            first = f"sel({dim}={ds[dim].values[0]})" if dim in ds.coords else f"isel({dim}=0)"
            levels, asked = levels_of(ds, name), ""
            if levels is not None and levels.dim == dim:
                one = level_name(canonical_name(str(name)), float(levels.values[0]))
                asked = f", or ask for a level by its name, as '{one}' (it has {levels.text} hPa)"
            return (
                f"'{name}' has an extra dimension '{dim}' of size {ds.sizes[dim]}: select one "
                f"with ds.{first}{asked}"
            )
    return None


def _is_latitude(coord: xr.DataArray) -> bool:
    return role_of(coord.name, coord.variable) == LAT


def _axes(
    ds: xr.Dataset,
    chosen: Sequence[Hashable],
    found: Mapping[Hashable, tuple[str, Hashable | None]],
) -> dict[str, Axis]:
    """Describe the canonical dimensions of the chosen variables, which must share them."""
    used: dict[str, tuple[Hashable | None, Hashable | None]] = {}  # role: dimension, coordinate
    for name in chosen:
        for dim in ds.variables[name].dims:
            role, coord = found.get(dim, (None, None))
            if role is not None and used.setdefault(role, (dim, coord))[0] != dim:
                raise InputError(
                    f"the variables {_quoted(chosen)} lie on different dimensions of {role} "
                    f"('{used[role][0]}' and '{dim}'): take one by variables=[...]"
                )
    if LAT in used:  # a level called `height`, of size 1
        used = {role: where for role, where in used.items() if role not in (Y, X)}
    if TIME not in used:
        used[TIME] = None, scalar(ds, TIME)
    lead = scalar(ds, LEAD)
    if used[TIME][1] == VALID:  # a history, whatever lead time it is made of
        dim, coord = used.pop(LEAD, (None, None))
        if coord is not None and ds[coord].size > 1:
            raise InputError(
                f"the times beside the lead times '{coord}' are called '{VALID}', expected "
                f"initialisations: rename them with ds.rename({VALID}='{TIME}') if they are that"
            )
    elif LEAD not in used and lead is not None:
        used[LEAD] = None, lead
    axes = {role: Axis.of(role, *used[role], ds) for role in DIMS if role in used}
    if LEAD in axes and not np.any(axes[LEAD].values):  # a lead time of zero: an analysis
        del axes[LEAD]
    for name in chosen:
        for role, axis in axes.items():
            if axis.dim is not None and axis.dim not in ds.variables[name].dims:
                raise InputError(
                    f"'{name}' lacks the {role} dimension '{axis.dim}' that others of "
                    f"{_quoted(chosen)} have: take them one by one by variables=[...]"
                )
    return axes


def _valid_time(
    ds: xr.Dataset, axes: Mapping[str, Axis], computed: xr.Variable
) -> tuple[Hashable, xr.Variable] | None:
    """Find a forecast's own coordinate of valid times; refuse it if it is wrong."""
    dims: dict[Hashable, Hashable] = {role: axes[role].dim or role for role in (TIME, LEAD)}
    for name, coord in ds.coords.items():
        named = name == VALID or coord.attrs.get("standard_name") == "time"
        if not named or name == axes[TIME].coord or not set(coord.dims) <= set(dims.values()):
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
    return out.load() if source._in_memory else out


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
    names = list(ds.data_vars) if variables is None else [_named(ds, v).name for v in variables]
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
    size = array.sizes[TIME]
    block = max(1, 2**24 * size // max(1, array.size))  # 64 MB
    ends = (
        np.cumsum(array.chunksizes[TIME]) if array.chunks else np.arange(block, size + block, block)
    )
    bad, first = 0, None
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        part = array.isel({TIME: slice(start, end)})
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
