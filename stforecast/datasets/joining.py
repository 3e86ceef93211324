"""Several files or stores as one lazy, canonical Dataset."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.attributes import text
from ..conventions.axes import TIME, find_axes
from ..conventions.forms import FINAL, PRELIMINARY
from ..conventions.gate import canonicalize
from ..conventions.grid import axis_difference
from ..conventions.levels import levels_of
from ..conventions.units import same_units
from ..conventions.variables import canonical_name
from ..errors import InputError
from .backends import Reading, groups_of, stamp
from .drift import kind_of_scale
from .grib import open_parts
from .lazy import Joined, Repeated, in_chunks
from .parts import Part, part_of
from .periods import when

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
                opened.append(part_of(source, ds, wanted, every))
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


def _with_levels(ds: xr.Dataset, name: Hashable) -> str:
    levels = levels_of(ds, name)
    return f"{name} (on {levels.text} hPa)" if levels and levels.dim else str(name)


def _on_levels(opened: Sequence[Part]) -> list[str]:
    """Variables on several levels, of which none is taken unless it is asked for."""
    found = {str(v): levels_of(p.ds, v) for p in opened for v in p.ds.data_vars}
    several = {v: x.text for v, x in found.items() if x and x.dim and len(x.values) > 1}
    return [f"{v} (on {text} hPa)" for v, text in sorted(several.items())]


def _same_grid(a: Part, b: Part) -> None:
    """Refuse two files that do not share a grid: xarray would keep what they have in common."""
    for role in [r for r in a.dims if r != TIME and r in b.dims]:
        if difference := axis_difference(role, _axis(a, role), _axis(b, role)):
            raise InputError(
                f"{a.source} and {b.source} have different grids: {difference}. Open them one by "
                "one, or regrid one of them"
            )


def _axis(part: Part, role: str) -> np.ndarray | int:
    coord = part.coords[role]
    return part.ds.sizes[part.dims[role]] if coord is None else part.ds[coord].to_numpy()


def _join(name: str, parts: Sequence[Part], first: Part) -> xr.Variable:
    """Join one variable over files in order of time, in `first`'s names of dimensions."""
    pieces: list[tuple[str, xr.Variable]] = []
    forms: dict[tuple[Any, str], Part] = {}
    for part in parts:
        variable = part.variables[name]
        rename = {dim: first.dims[role] for role, dim in part.dims.items() if role in first.dims}
        piece = variable.to_base_variable().copy(deep=False)
        piece.dims = tuple(rename.get(d, d) for d in variable.dims)
        pieces.append((str(part.source), piece))
        units = text(piece.attrs, "units")
        same = (u for _, u in forms if bool(u) == bool(units) and same_units(u, units))
        forms.setdefault((piece.dims, next(same, units)), part)
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
    opened: Sequence[Part], label: object, wanted: Sequence[str] | None
) -> tuple[xr.Dataset, dict[str, Hashable], list[tuple[int, int]]]:
    """Join all variables; also dimensions by canonical name, and `spans` as :func:`cut` takes."""
    parts: dict[str, list[Part]] = {}
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


def _elsewhere(opened: Sequence[Part]) -> str:
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


def _final_first(parts: Sequence[Part]) -> list[Part]:
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


def _in_order(parts: list[Part]) -> list[Part]:
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
