"""The forms in which others hand over histories and forecasts, brought to those of the gate.

To the gate a history has one dimension of times, and a forecast one of initialisations and one of
lead times. Others write a forecast by its valid times, one run on its valid times, one lead time of
many runs, ERA5 in two streams, or a tree of Datasets. Data are not read, only coordinates.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import InputError
from ..package import load_proj
from .attributes import text
from .axes import (
    LEAD,
    MEMBER,
    MEMBERS,
    TIME,
    VALID,
    coords_along,
    find_axes,
    lead_times,
    quoted,
    role_of,
    says_init,
    says_valid,
    scalar,
    unit_of_lead,
)
from .lazy import LazyArray
from .times import canonical_times, shifted, valid_times

logger = logging.getLogger(__name__)

#: What the caller needs: times, or initialisations and lead times.
Form = Literal["history", "forecast"]

EXPVER, FINAL, PRELIMINARY = "expver", 1, 5  # the streams of ERA5, and of ERA5T


def from_source(source: Any) -> Any:
    """What a source of earthkit-data or climetlab holds, as xarray; anything else as it is.

    Raises
    ------
    InputError
        If its fields do not fit into one Dataset.
    """
    if isinstance(source, (xr.Dataset, xr.DataArray)) or not hasattr(source, "to_xarray"):
        return source
    load_proj()  # the source may be GRIB, and what it holds drawn on a map
    try:
        return source.to_xarray()
    except (InputError, MemoryError):
        raise
    except Exception as error:  # each library has kinds of its own
        name = type(source).__name__
        said = " ".join(str(error).split())
        raise InputError(
            f"{name}.to_xarray() fails ({type(error).__name__}: {said:.300}): take the fields of "
            f"one grid, time by time, as with sel(...) of {name}, or give the Dataset that "
            "to_xarray(...) makes with options of your own"
        ) from error


def as_dataset(ds: Any, variables: Sequence[str] | None = None) -> xr.Dataset:
    """Make a Dataset of a DataArray, a tree with one node of data, or what becomes xarray.

    Raises
    ------
    InputError
        If that cannot be, or there is no variable in it.
    """
    ds = from_source(ds)
    if isinstance(ds, xr.DataArray):
        only = variables[0] if variables is not None and len(variables) == 1 else "data"
        ds = ds.to_dataset(name=only if ds.name is None else ds.name)
    if isinstance(ds, xr.DataTree):
        nodes = [node for node in ds.subtree if node.data_vars]
        if len(nodes) > 1:
            paths = ", ".join(f"'{node.path}'" for node in nodes[:8])
            raise InputError(
                f"the DataTree has {len(nodes)} nodes with variables ({paths}), expected one: take "
                f"it with tree['{nodes[0].path}'].to_dataset()"
            )
        ds = nodes[0].to_dataset() if nodes else xr.Dataset()
    if not isinstance(ds, xr.Dataset):
        text = "open it first" if isinstance(ds, (str, PathLike)) else "make one with xr.DataArray"
        raise InputError(
            "expected an xarray Dataset or DataArray, or an object with .to_xarray(); found "
            f"{type(ds).__name__}: {text}"
        )
    if not ds.data_vars:
        raise InputError("the Dataset is empty: expected at least one data variable")
    return ds


def with_members(ds: Any) -> Any:
    """Call the dimension of the members of an ensemble, Dataset or array, ``realization``."""
    for dim in ds.dims if MEMBER not in ds.dims else ():
        standard = ds[dim].attrs.get("standard_name") if dim in ds.coords else None
        if (str(dim).lower() in MEMBERS.split() or standard == MEMBER) and ds.sizes[dim] > 1:
            return ds.drop_vars(MEMBER, errors="ignore").rename({dim: MEMBER})
    return ds


def in_form(ds: xr.Dataset, form: Form | None = None) -> xr.Dataset:
    """Bring a Dataset to the form of a history or a forecast, where it has another.

    Parameters
    ----------
    ds : xarray.Dataset
        The caller's.
    form : {"history", "forecast"}, optional
        Times with one lead time, or with lead times along them, can be meant as either: they are
        taken as a history unless a forecast is asked for.

    Returns
    -------
    xarray.Dataset
        The same, or another with ``time`` and ``prediction_timedelta`` in place of its times.

    Raises
    ------
    InputError
        If its coordinates contradict each other.
    """
    # A file that does not list its dates as coordinates has them among the variables.
    ds = ds.set_coords([n for n, v in ds.data_vars.items() if _dated(v.variable)])
    if not ds.data_vars:
        raise InputError("the Dataset has no variable but dates and lead times")
    if ds.sizes.get(EXPVER, 1) > 1:
        ds = merge_streams(ds, "the Dataset")
    roles = find_axes(ds)
    times = [d for d, (role, c) in roles.items() if role == TIME and c is not None]
    leads = [d for d, (role, c) in roles.items() if role == LEAD and c is not None]
    if form == "forecast" and len(times) == 2:  # of one run, beside its valid times
        runs = [d for d in times if ds.sizes[d] == 1 and says_init(*_named(ds, roles[d][1]))]
        ds, times = ds.squeeze(runs), [d for d in times if d not in runs]
    if len(times) == len(leads) == 1:
        if ds.sizes[leads[0]] == 1:
            single = ds.squeeze(leads)
            taken = _one_lead(single, times[0], roles[times[0]][1], form)
            return ds if taken is single else taken
        return _by_initialisation(ds, times[0], roles[times[0]][1], leads[0], roles[leads[0]][1])
    if len(times) == 1 and not leads:
        time, coord = times[0], roles[times[0]][1]
        ds = _one_lead(ds, time, coord, form)
        return _one_run(ds, time) if form == "forecast" and scalar(ds, LEAD) is None else ds
    if len(leads) == 1 and not times:
        starts = [c for c in _dates(ds, leads[0]) if says_init(*_named(ds, c))]
        if starts and ds.sizes[leads[0]] > 1:
            raise InputError(
                f"along the lead times '{leads[0]}' the initialisation '{starts[0]}' changes, "
                "expected one: give a forecast with dimensions of both, or a lead time at a time"
            )
        if form == "forecast" and scalar(ds, TIME) is None:
            return _one_run(ds, leads[0])
    return ds


def _named(ds: xr.Dataset, name: Hashable | None) -> tuple[Hashable, Any]:
    return name or "", {} if name is None else ds[name].attrs


def _dates(ds: xr.Dataset, *dims: Hashable) -> list[Hashable]:
    """Names of the coordinates of dates that have these dimensions."""
    return [c for c in coords_along(ds, *dims) if role_of(c, ds.variables[c]) == TIME]


def _dated(variable: xr.Variable) -> bool:
    """Whether a variable holds dates or lead times, and no quantity."""
    called = text(variable.attrs, "standard_name") in ("forecast_reference_time", "forecast_period")
    return called or variable.dtype.kind in "mM" or role_of("", variable) == TIME


def _is_lead(coord: xr.DataArray) -> bool:
    """Whether a coordinate holds lead times, which numbers without a unit are not."""
    length = coord.dtype.kind == "m" or unit_of_lead(coord.name or "", coord.variable) is not None
    return length and role_of(coord.name or "", coord.variable) == LEAD


def _times(ds: xr.Dataset, name: Hashable, *dims: Hashable) -> np.ndarray:
    """Canonical values of a coordinate of dates along `dims`."""
    variable = ds.variables[name].to_base_variable()
    variable = variable.squeeze([d for d in variable.dims if d not in dims]).transpose(*dims)
    return canonical_times(name, variable.to_numpy())


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of dates agree where the first has one."""
    there = ~pd.isna(a)
    return bool(there.any() and (a[there] == np.broadcast_to(b, a.shape)[there]).all())


# --- a forecast by its valid times ----------------------------------------------------------------


def _by_initialisation(
    ds: xr.Dataset, time: Hashable, coord: Any, lead: Hashable, period: Any
) -> xr.Dataset:
    """Lay a forecast that is given by valid time and lead time out by initialisation."""
    others = [name for name in _dates(ds, time, lead) if name not in (coord, period)]
    valid = says_valid(*_named(ds, coord)) and coord != VALID  # that one axes_of refuses
    if not others and not valid:
        return ds
    times = _times(ds, coord, time)
    leads = lead_times(period, ds.variables[period])
    if pd.isna(times).any() or len(np.unique(times)) < len(times):
        return ds  # the gate refuses them
    for name in others:
        given = _times(ds, name, time, lead)
        if _same(given, valid_times(times, leads)):
            return ds
        if _same(given, valid_times(times, -leads)):
            return _sheared(ds, time, lead, times, leads)
        if says_init(name, ds[name].attrs) and not _same(given, times[:, None]):
            raise InputError(
                f"coordinate '{name}' is called an initialisation, and is neither '{coord}' nor "
                f"'{coord}' - '{period}': correct it or drop it"
            )
    if valid:
        raise InputError(
            f"the times '{coord}' beside the lead times '{period}' are called "
            f"'{ds[coord].attrs.get('long_name')}', expected initialisations: correct that "
            "long_name if they are, else say what they are with "
            f"ds.assign_coords(init_time=ds['{coord}'] - ds['{period}'])"
        )
    return ds


def _sheared(
    ds: xr.Dataset, time: Hashable, lead: Hashable, times: np.ndarray, leads: np.ndarray
) -> xr.Dataset:
    """Take of each initialisation its valid times, for those that have all lead times."""
    starts = shifted(times, -leads[:1])
    at = pd.Index(times).get_indexer(pd.Index(valid_times(starts, leads).ravel()))
    at = at.reshape(len(starts), len(leads))
    whole = (at >= 0).all(axis=1)
    if not whole.any():
        raise InputError(
            f"the forecast is given by its valid times '{time}', and no initialisation has all of "
            f"its lead times '{lead}': score some at a time, as of ds.isel({lead}=[0])"
        )
    if not whole.all():
        logger.warning(
            "the forecast is given by its valid times '%s': %d initialisations have all lead times "
            "and count; %d of its %d fields belong to others and are left out",
            time,
            whole.sum(),
            (len(times) - whole.sum()) * len(leads),
            len(times) * len(leads),
        )
    out = ds.drop_vars([n for n, c in ds.coords.items() if time in c.dims or n == TIME])
    rows = xr.DataArray(at[whole], dims=[TIME, lead])
    columns = xr.DataArray(np.arange(len(leads)), dims=[lead])
    attrs = {"standard_name": "forecast_reference_time"}
    return out.isel({time: rows, lead: columns}).assign_coords({TIME: (TIME, starts[whole], attrs)})


# --- one lead time, one run -----------------------------------------------------------------------


def _one_lead(ds: xr.Dataset, time: Hashable, coord: Any, form: Form | None) -> xr.Dataset:
    """Tell whether times with a single lead time are initialisations or valid times."""
    periods = [
        name for name, c in ds.coords.items() if c.size == 1 and time not in c.dims and _is_lead(c)
    ]
    if not periods:
        return ds
    period = periods[0]
    lead = lead_times(period, ds.variables[period])
    if pd.isna(lead).any() or not lead.any():
        return ds  # an analysis
    times = _times(ds, coord, time)
    others = [name for name in _dates(ds, time) if name != coord]
    starts = [name for name in others if _same(_times(ds, name, time), shifted(times, -lead))]
    if starts or says_valid(*_named(ds, coord)):
        if form != "forecast":
            return ds if coord == VALID else ds.drop_vars([period])
        start, attrs = shifted(times, -lead), {"standard_name": "forecast_reference_time"}
        ds = ds.drop_vars([coord, *_dates(ds, time), *({TIME} & {*ds.coords})])
        if time != TIME:
            ds = ds.rename({time: TIME})
        ds = ds.assign_coords({TIME: (TIME, start, attrs)})
    elif ds[period].dtype.kind == "m" or not says_init(*_named(ds, coord)):
        return ds
    return ds.drop_vars([period]).assign_coords({LEAD: lead[0]})


def _one_run(ds: xr.Dataset, along: Hashable) -> xr.Dataset:
    """Lay one run, given on its valid times or on its lead times, out by its lead times."""
    dates = _dates(ds, along)
    periods = [name for name in coords_along(ds, along) if _is_lead(ds[name])]
    starts = [
        name
        for name, c in ds.coords.items()
        if c.size == 1 and name not in dates and role_of(name, c.variable) == TIME
        if c.dtype.kind in "MO" and (says_init(name, c.attrs) or name == TIME)
    ]
    dates.sort(key=lambda name: says_init(name, ds[name].attrs))
    along_it = [name for name in dates[1:] if says_init(name, ds[name].attrs)]
    starts = starts or along_it[:1]  # the same at all of its times
    if not dates or says_init(*_named(ds, dates[0])) or not (periods or starts):
        return ds
    times = _times(ds, dates[0], along)
    told = [
        shifted(times, -lead_times(periods[0], ds.variables[periods[0]])) if periods else None,
        _times(ds, starts[0], *[along] * (starts[0] in dates)).ravel() if starts else None,
    ]
    run = np.concatenate([one for one in told if one is not None])
    if pd.isna(run).any() or (run != run[0]).any():
        raise InputError(
            f"the times '{dates[0]}' belong to several initialisations, {np.min(run)} to "
            f"{np.max(run)} (by {quoted([*periods[:1], *starts[:1]])}), expected one run, or the "
            "dimensions of initialisation and lead time"
        )
    lead = times - run[0]
    if times.dtype == object:
        lead = np.array([np.timedelta64(v) for v in lead])
    gone = {*dates, *periods, *starts[:1]} | ({TIME, LEAD} & {*ds.coords})
    ds = ds.drop_vars(gone)
    if along != LEAD:
        ds = ds.rename({along: LEAD})
    coords = {LEAD: (LEAD, lead.astype("timedelta64[ns]")), TIME: ((), run[0])}
    return ds.assign_coords(coords)


# --- the two streams of ERA5 ----------------------------------------------------------------------


class FirstValid(LazyArray):
    """Values of one variable, filled from another where they are NaN."""

    def __init__(self, first: xr.Variable, second: xr.Variable):
        self.first, self.second = first, second
        self.dtype, self.shape = np.dtype(first.dtype), first.shape

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        values = self.first[key].to_numpy()
        missing = np.isnan(values)
        return np.where(missing, self.second[key].to_numpy(), values) if missing.any() else values


def merge_streams(ds: xr.Dataset, source: object) -> xr.Dataset:
    """Bring the two streams of ERA5 together, lazily: final data, else preliminary (ERA5T).

    In the Climate Data Store's older layout they lie on a dimension ``expver`` of size 2, with NaN
    where the other stream applies.

    Raises
    ------
    InputError
        If there are other streams than these two.
    """
    if EXPVER not in ds.dims:
        return ds
    if ds.sizes[EXPVER] == 1:
        return ds.isel({EXPVER: 0}, drop=True)
    streams = [stream_number(v) for v in ds[EXPVER].values] if EXPVER in ds.coords else []
    if sorted(streams) != [FINAL, PRELIMINARY]:
        raise InputError(
            f"{source}: dimension 'expver' of size {ds.sizes[EXPVER]} holds the streams "
            f"{streams or 'without their numbers'}, expected 1 (ERA5) and 5 (ERA5T): select one "
            "with ds.sel(expver=...)"
        )
    order = [streams.index(FINAL), streams.index(PRELIMINARY)]
    if any(v.dtype.kind in "iu" and "scale_factor" in v.attrs for v in ds.data_vars.values()):
        ds = xr.decode_cf(ds, decode_times=False, decode_coords=False)
    merged: dict[Hashable, xr.Variable] = {}
    for name in ds.data_vars:
        variable = ds.variables[name]
        if EXPVER in variable.dims and variable.dtype.kind == "f":
            final, late = (variable.isel({EXPVER: i}) for i in order)
            if variable.chunks is None:
                both = FirstValid(final, late).variable(final.dims)
            else:
                both = final.fillna(late)
            both.attrs, both.encoding = variable.attrs, variable.encoding
            merged[name] = both
    logger.info("%s: the streams ERA5 and ERA5T (expver 1 and 5) are taken as one", source)
    ds = ds.assign(merged)
    whole = any(EXPVER in v.dims for v in ds.data_vars.values())  # packed numbers: decode first
    return ds if whole else ds.drop_dims(EXPVER)


def stream_number(stream: Any) -> int:
    """Read ``expver``, a number or a text such as '0005'; -1 where it is neither."""
    try:
        return int(stream)
    except ValueError:
        return -1
