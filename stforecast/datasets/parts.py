"""One opened file or store: its axes, its times, and the variables that are taken from it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LAT, LEAD, LON, TIME, VALID, find_axes, role_of, scalar
from ..conventions.levels import levels_of, split_level
from ..conventions.number_dates import dates_from_numbers
from ..conventions.times import canonical_times
from ..conventions.variables import VARIABLES, Meant, meant
from ..errors import InputError
from .lazy import Repeated, as_slice
from .periods import when
from .streams import streams_of


@dataclass(frozen=True, eq=False)
class Part:
    """One opened file or store; dimensions and variables are looked up by their canonical names."""

    source: str | Path
    ds: xr.Dataset
    dims: dict[str, Hashable]
    coords: dict[str, Hashable | None]
    labels: dict[str, Hashable]  # the file's names of variables
    variables: dict[str, xr.Variable]
    times: np.ndarray
    streams: np.ndarray  # of ERA5, one for each time

    def at(self, chosen: np.ndarray) -> Part:
        """The part at some of its times."""
        here = {self.dims[TIME]: as_slice(np.flatnonzero(chosen))}
        variables = {n: v.isel(here, missing_dims="ignore") for n, v in self.variables.items()}
        times, streams = self.times[chosen], self.streams[chosen]
        return replace(self, variables=variables, times=times, streams=streams)

    def roles(self, name: str) -> set[str]:
        """Canonical dimensions of a variable."""
        return {role for role, dim in self.dims.items() if dim in self.variables[name].dims}

    def stored(self, name: str) -> int:
        """Time steps in a stored chunk of a variable."""
        chunks = self.variables[name].encoding.get("preferred_chunks") or {}
        return int(chunks.get(self.dims[TIME], 1))

    @property
    def covers(self) -> str:
        """Its first and its last time, for a message."""
        return f"{when(self.times.min())} to {when(self.times.max())}"


def part_of(source: str | Path, ds: xr.Dataset, wanted: Sequence[str] | None, every: bool) -> Part:
    """Look at an opened file: its axes, its times, and the variables to take from it.

    Parameters
    ----------
    source : str or Path
        What messages call it.
    ds : xarray.Dataset
        As it was opened.
    wanted : sequence of str, optional
        Variables; otherwise all known ones, or with `every` all that lie on time and a grid.
    every : bool

    Raises
    ------
    InputError
        If it has no times where it should, or one variable twice.
    """
    ds = _with_time(ds)
    found = find_axes(ds)
    roles = {dim: role for dim, (role, _) in found.items()}
    labels: dict[str, Hashable] = {}
    variables: dict[str, xr.Variable] = {}
    sought = _worth_taking(ds, roles, every) if wanted is None else None
    for m in sought or (m for w in wanted or () for m in meant(ds, w)):
        on_level = split_level(m.canonical) if m.levels else None
        # With its level: another file may have the same variable on another one.
        label = f"{m.name}_{on_level[1]:g}" if on_level else m.name
        if labels.setdefault(m.canonical, label) != label:
            raise InputError(
                f"{source}: '{labels[m.canonical]}' and '{label}' are the same variable: name one"
            )
        variables[m.canonical] = m.of(ds)
        variables[m.canonical].attrs = variables[m.canonical].attrs | m.attrs
    dims = {
        role: dim for dim, role in roles.items() if any(dim in v.dims for v in variables.values())
    }
    coords = {role: found[dim][1] for role, dim in dims.items()}
    times = np.empty(0)
    if TIME in dims:
        if coords[TIME] is None:
            raise InputError(
                f"{source}: dimension '{dims[TIME]}' has no coordinate, expected times"
            )
        raw = ds.variables[coords[TIME]]
        if not raw.size:
            raise InputError(f"{source}: it has no times, dimension '{dims[TIME]}' has size 0")
        try:
            times = canonical_times(coords[TIME], dates_from_numbers(coords[TIME], raw))
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        if missing := int(pd.isna(times).sum()):
            raise InputError(
                f"{source}: {missing} of its {len(times)} times are missing, as of steps that were "
                f"never written. Leave these out, with ds.isel({dims[TIME]}=...), and write the "
                "file anew"
            )
    streams = streams_of(ds, dims.get(TIME), len(times))
    return Part(source, ds, dims, coords, labels, variables, times, streams)


def _with_time(ds: xr.Dataset) -> xr.Dataset:
    """Give a file of one time, which is a scalar in it, a dimension of times."""
    if any(role == TIME for role, _ in find_axes(ds).values()):
        return ds
    plain = [n for n, v in ds.data_vars.items() if v.ndim == 0 and role_of(n, v.variable) == TIME]
    ds = ds.set_coords(plain)  # what is no dimension is no coordinate to xarray, unless listed
    name = VALID if VALID in ds.coords and ds[VALID].ndim == 0 else scalar(ds, TIME)
    if name is None:
        return ds
    time = ds.variables[name]
    others = [
        c for c, v in ds.coords.items() if v.ndim == 0 and role_of(c, v.variable) in (TIME, LEAD)
    ]
    moving = {
        n: Repeated(v.variable, 1).variable((name, *v.dims), v.attrs, v.encoding)
        for n, v in ds.data_vars.items()
        if v.ndim
    }
    ds = ds.drop_vars(others).assign(moving)
    return ds.assign_coords({name: ((name,), np.atleast_1d(time.to_numpy()), time.attrs)})


def _worth_taking(ds: xr.Dataset, roles: Mapping[Hashable, str], every: bool) -> list[Meant]:
    """Variables on time and a grid: all of them, or those that are known, or else the only one."""
    fits, plain = [], []
    for m in meant(ds):
        dims = ds.variables[m.name].dims
        here = {roles[d] for d in dims if d in roles}
        on_grid = {LAT, LON} <= here or {"y", "x"} <= here
        levels = levels_of(ds, m.name)
        several = levels is not None and levels.dim is not None and len(levels.values) > 1
        if TIME in here and on_grid and not several:
            fits.append(m)
            if not any(d not in roles and ds.sizes[d] > 1 for d in dims):
                plain.append(m)
    if not every:
        plain = [m for m in plain if _is_known(m.canonical)]
    return plain if plain or len(fits) != 1 else fits


def _is_known(canonical: str) -> bool:
    on_level = split_level(canonical)
    return canonical in VARIABLES or (on_level is not None and on_level[0] in VARIABLES)
