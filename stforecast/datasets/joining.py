"""Several files or stores as one lazy, canonical Dataset."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LAT, LEAD, LON, TIME, VALID, find_axes, role_of, scalar
from ..conventions.forms import FINAL, PRELIMINARY
from ..conventions.gate import canonicalize
from ..conventions.grid import axis_difference
from ..conventions.number_dates import dates_from_numbers
from ..conventions.times import canonical_times
from ..conventions.variables import VARIABLES, Meant, canonical_name, levels_of, meant, split_level
from ..errors import InputError
from .backends import Reading, groups_of, stamp
from .drift import kind_of_scale
from .grib import open_parts
from .lazy import Joined, Repeated, as_slice, in_chunks
from .periods import when
from .streams import streams_of

logger = logging.getLogger(__name__)

_PACKING = ("dtype", "scale_factor", "add_offset", "_FillValue")


def open_joined(
    sources: Sequence[str | Path],
    label: object,
    wanted: Sequence[str] | None,
    chunks: Any,
    reading: Reading | None = None,
    *,
    adapt: Callable[[xr.Dataset, object], xr.Dataset] | None = None,
    every: bool = False,
) -> xr.Dataset:
    """Open files, stores or URLs, join them and bring them through the gate, lazily.

    `label` is what messages call all of them. Unless variables are `wanted`, all known ones are
    taken, or with `every` all that lie on time and a grid. `adapt` makes plain what is peculiar to
    a source, given its Dataset and its name. `chunks` is as in
    :func:`stforecast.datasets.open_weatherbench`.
    """
    with ExitStack() as stack:
        opened = []
        for source in sources:
            for ds in open_parts(source, reading):
                stack.callback(ds.close)
                ds = ds if adapt is None else adapt(ds, source)
                opened.append(_part(source, ds, wanted, every))
        raw, dims, spans = _combine(opened, label, wanted)
        stamps = [(str(s), *stamp(s)) for s in sources]  # a file that changed is another
        raw = in_chunks(raw, chunks, dims, partial(cut, spans), stamps, raw[dims[TIME]].variable)
        try:
            result, labels = canonicalize(raw, [str(v) for v in raw.data_vars])
        except InputError as error:
            named = str(label) in str(error)  # by what could not be read
            raise InputError(str(error) if named else f"{label}: {error}") from error
        stack.pop_all()
    result.encoding["on_levels"] = _on_levels(opened)
    for name, field in labels.fields.items():
        packing = {k: field.encoding[k] for k in _PACKING if k in field.encoding}
        if field.unit in (None, "K") and np.dtype(packing.get("dtype", "f4")).kind in "iu":
            result[name].encoding = packing  # so that it can be written as it came
    result.encoding["sources"] = [str(s) for s in sources]  # for who reads it long
    result.set_close(partial(_close, [part.ds for part in opened]))
    return result


def _close(datasets: Iterable[xr.Dataset]) -> None:  # can be pickled, as a Dataset must be
    for ds in datasets:
        ds.close()


def some(names: Iterable[object], most: int = 8) -> str:
    """Write a list, at most `most` of it."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


@dataclass(frozen=True, eq=False)
class _Part:
    """One opened file or store; dimensions and variables are looked up by their canonical names."""

    source: str | Path
    ds: xr.Dataset
    dims: dict[str, Hashable]
    coords: dict[str, Hashable | None]
    labels: dict[str, Hashable]  # the file's names of variables
    variables: dict[str, xr.Variable]
    times: np.ndarray
    streams: np.ndarray  # of ERA5, one for each time

    def at(self, chosen: np.ndarray) -> _Part:
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
        return f"{when(self.times.min())} to {when(self.times.max())}"


def _part(source: str | Path, ds: xr.Dataset, wanted: Sequence[str] | None, every: bool) -> _Part:
    """Look at an opened file: its axes, its times, and the variables to take from it."""
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
    return _Part(source, ds, dims, coords, labels, variables, times, streams)


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


def _with_levels(ds: xr.Dataset, name: Hashable) -> str:
    levels = levels_of(ds, name)
    return f"{name} (on {levels.text} hPa)" if levels and levels.dim else str(name)


def _on_levels(opened: Sequence[_Part]) -> list[str]:
    """Variables on several levels, of which none is taken unless it is asked for."""
    found = {str(v): levels_of(p.ds, v) for p in opened for v in p.ds.data_vars}
    several = {v: x.text for v, x in found.items() if x and x.dim and len(x.values) > 1}
    return [f"{v} (on {text} hPa)" for v, text in sorted(several.items())]


def _same_grid(a: _Part, b: _Part) -> None:
    """Refuse two files that do not share a grid: xarray would keep what they have in common."""
    for role in [r for r in a.dims if r != TIME and r in b.dims]:
        if difference := axis_difference(role, _axis(a, role), _axis(b, role)):
            raise InputError(
                f"{a.source} and {b.source} have different grids: {difference}. Open them one by "
                "one, or regrid one of them"
            )


def _axis(part: _Part, role: str) -> np.ndarray | int:
    coord = part.coords[role]
    return part.ds.sizes[part.dims[role]] if coord is None else part.ds[coord].to_numpy()


def _join(name: str, parts: Sequence[_Part], first: _Part) -> xr.Variable:
    """Join one variable over files in order of time, in `first`'s names of dimensions."""
    pieces: list[tuple[str, xr.Variable]] = []
    forms: dict[tuple[Any, str], _Part] = {}
    for part in parts:
        variable = part.variables[name]
        rename = {dim: first.dims[role] for role, dim in part.dims.items() if role in first.dims}
        piece = variable.to_base_variable().copy(deep=False)
        piece.dims = tuple(rename.get(d, d) for d in variable.dims)
        pieces.append((str(part.source), piece))
        forms.setdefault((piece.dims, str(piece.attrs.get("units", ""))), part)
    if len(forms) > 1:
        (one, a), (other, b) = list(forms.items())[:2]
        raise InputError(
            f"{a.source} and {b.source} hold '{name}' in different forms: (dimensions, units) are "
            f"{one} and {other}. Open them one by one"
        )
    head = pieces[0][1]
    axis = head.dims.index(first.dims[TIME]) if TIME in parts[0].roles(name) else None
    packings = [str({k: piece.encoding.get(k) for k in _PACKING}) for _, piece in pieces]
    alike = len(set(packings)) == 1
    encoding = {k: v for k, v in head.encoding.items() if alike or k not in _PACKING}
    joined = Joined(parts[0].labels[name], pieces, axis, kind_of_scale(name, head.attrs))
    return joined.variable(head.dims, head.attrs, encoding)


def _combine(
    opened: Sequence[_Part], label: object, wanted: Sequence[str] | None
) -> tuple[xr.Dataset, dict[str, Hashable], list[tuple[int, int]]]:
    """Join all variables; also dimensions by canonical name, and `spans` as :func:`cut` takes."""
    parts: dict[str, list[_Part]] = {}
    for part in opened:
        for name in part.variables:
            parts.setdefault(name, []).append(part)
    missing = [w for w in wanted or () if canonical_name(w) not in parts]
    if missing or not parts:
        there = sorted({_with_levels(p.ds, v) for p in opened for v in p.ds.data_vars})
        sought = (
            f"variable {', '.join(map(repr, missing))}"
            if missing
            else "known variable on time and a grid"
        )
        hint = "" if missing or not there else ". Name what you want with variables=[...]"
        if any("hPa" in v for v in there):
            hint += ", a level as in 'geopotential_500'" if hint else ""
        raise InputError(
            f"{label}: no {sought} in it; found {some(there) or 'no variables'}{hint}"
            f"{_elsewhere(opened)}"
        )
    timed = {n: [p for p in ps if TIME in p.roles(n)] for n, ps in parts.items()}
    moving = {n: _in_order(ps) for n, ps in timed.items() if ps}
    fixed = {n: ps[:1] for n, ps in parts.items() if n not in moving}
    if not moving:
        raise InputError(
            f"{label}: {some(map(repr, fixed))} has no time: ask for it beside a variable that "
            "has, or open the file with xarray"
        )
    first = next(iter(moving.values()))[0]
    for other in {id(p): p for ps in (*moving.values(), *fixed.values()) for p in ps}.values():
        _same_grid(first, other)

    along = first.dims[TIME]
    times = {n: np.concatenate([p.times for p in ps]) for n, ps in moving.items()}
    every = next(iter(times.values()))
    spans = [(len(p.times), p.stored(n)) for n in list(moving)[:1] for p in moving[n]]
    data = {n: _join(n, ps, first) for n, ps in moving.items()}
    if not all(np.array_equal(every, t) for t in times.values()):
        every = reduce(np.intersect1d, times.values())
        spans = [(len(every), 1)]
        covers = ", ".join(
            f"{n} {when(t.min())} to {when(t.max())} ({len(t)})" for n, t in times.items()
        )
        if not len(every):
            raise InputError(f"{label}: the variables share no times: {covers}")
        logger.warning(
            "%s: kept the %d times that the variables share: %s", label, len(every), covers
        )
        for name, own in times.items():
            order = np.argsort(own, kind="stable")
            data[name] = data[name].isel({along: order[np.searchsorted(own[order], every)]})
    for name, ps in fixed.items():
        still = _join(name, ps, first)
        data[name] = Repeated(still, len(every)).variable((along, *still.dims), still.attrs)

    time = first.ds.variables[first.coords[TIME]]
    here = {d for v in data.values() for d in v.dims} - {along}
    coords = {c: v.variable for c, v in first.ds.coords.items() if here.issuperset(v.dims)}
    coords[first.coords[TIME]] = xr.Variable((along,), every, time.attrs)
    if wanted is None and (left_out := _on_levels(opened)):
        logger.warning(
            "%s: left out, as they lie on several levels: %s. Name one with its level, as in "
            "variables=['geopotential_500']",
            label,
            some(left_out),
        )
    asked = [canonical_name(w) for w in wanted or data]
    names = {parts[n][0].labels[n]: data[n] for n in asked}
    return xr.Dataset(names, coords, first.ds.attrs), first.dims, spans


def _elsewhere(opened: Sequence[_Part]) -> str:
    """Say where else the data may be: in groups, or on a grid without a time."""
    for part in opened:
        if groups := groups_of(part.source):
            return (
                f". {part.source} has groups: {some(groups)}. Open one with open_grid(path, "
                f"group='{groups[0]}')"
            )
    bare = [p for p in opened if TIME not in p.dims and p.ds.data_vars]
    if bare and not any(TIME in {r for r, _ in find_axes(p.ds).values()} for p in opened):
        said = [k for k in bare[0].ds.attrs if "time" in k.lower() or "date" in k.lower()]
        hint = f" (its attribute {said[0]} is {bare[0].ds.attrs[said[0]]!r})" if said else ""
        return (
            f". {bare[0].source} has no time{hint}: give it one, with ds.expand_dims(time=[...]), "
            "and write it anew"
        )
    return ""


def _final_first(parts: Sequence[_Part]) -> list[_Part]:
    """Leave out preliminary data (ERA5T) of times that have final data, in whichever file."""
    final = [p.times[p.streams == FINAL] for p in parts]
    out = []
    for part in parts:
        late = part.streams == PRELIMINARY
        if late.any():
            late &= np.isin(part.times, np.concatenate(final))
        if late.any():
            logger.warning(
                "%s: %d times are preliminary (ERA5T), and final (ERA5) in %s: the final are taken",
                part.source,
                late.sum(),
                some(
                    dict.fromkeys(
                        str(p.source) for p, t in zip(parts, final, strict=True) if len(t)
                    )
                ),
            )
            part = part.at(~late)
        out += [part] if len(part.times) else []
    return out


def _in_order(parts: list[_Part]) -> list[_Part]:
    """Sort files by time; refuse overlaps."""
    parts = _final_first(parts)
    for part in parts:
        if twice := len(part.times) - len(np.unique(part.times)):
            raise InputError(
                f"{part.source}: {twice} of its {len(part.times)} times are duplicates"
            )
    calendars = {(p.times.dtype.kind, getattr(p.times[0], "calendar", "")): p for p in parts}
    if len(calendars) > 1:
        a, b = list(calendars.values())[:2]
        raise InputError(f"{a.source} and {b.source} have times in different calendars: open one")
    parts = sorted(parts, key=lambda p: p.times.min())
    for a, b in itertools.pairwise(parts):
        if b.times.min() <= a.times.max():
            twice = len(np.intersect1d(a.times, b.times))
            raise InputError(
                f"{a.source} ({a.covers}) and {b.source} ({b.covers}) overlap in time, "
                f"{twice} times are in both: leave one of them out"
            )
    return parts


def cut(spans: Sequence[tuple[int, int]], most: int) -> tuple[int, ...]:
    """Cut stretches of time into `most` steps each, in whole stored chunks, none across two.

    `spans` are their lengths, and their lengths of stored chunks.
    """
    sizes = [(length, max(most // stored * stored, stored)) for length, stored in spans]
    return tuple(min(size, length - i) for length, size in sizes for i in range(0, length, size))
