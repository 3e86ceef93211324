"""Files of traffic flow: their arrays, times and labels, without reading the flows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.lazy import BASIC, LazyArray
from ..errors import InputError
from .backends import open_hdf5, stamp
from .joining import cut, some
from .lazy import Joined, in_chunks
from .limits import read_whole, refuse_claim
from .numpy_files import NpzMember

CHANNELS = ("inflow", "outflow")
STEP = np.timedelta64(30, "m")
_DAY = 24 * 60 * 60
_SLOTS = (24, 48, 72, 96, 144, 288)
_MINUTES = re.compile(r"_T(\d{1,3})(?=[_.])")


@dataclass(frozen=True)
class Part:
    """An array (time, 2, y, x) in a file: its shape, and what opens it to be read."""

    path: Path
    shape: tuple[int, ...]
    open: Callable[[], AbstractContextManager[Any]]
    slots: int = 48  # of a day
    order: tuple[int, int] = (0, 1)  # where inflow and outflow lie

    @classmethod
    def of_npz(cls, path: Path, key: str) -> Part:
        """Part of an array (time, y, x, 2)."""
        member = NpzMember(path, key)
        if len(member.shape) != 4:
            raise InputError(f"{path}: '{key}' is {member.shape}, expected (time, y, x, 2)")
        steps, rows, columns, channels = member.shape
        return cls(path, (steps, channels, rows, columns), partial(_channels_second, member))


@contextmanager
def _channels_second(member: NpzMember) -> Iterator[np.ndarray]:
    yield np.moveaxis(member.array, -1, 1)


@contextmanager
def _h5_data(path: Path) -> Iterator[Any]:
    import h5py

    with h5py.File(path) as file:  # what cannot be read, Joined says
        yield file["data"]


def open_taxibj_file(path: Path, slots: int | None = None) -> tuple[Part, np.ndarray]:
    """One of the owners' files, and its times; nothing of the flows is read."""
    import h5py

    with open_hdf5(path) as file:
        missing = [k for k in ("data", "date") if not isinstance(file.get(k), h5py.Dataset)]
        if missing:
            raise InputError(
                f"{path}: no '{missing[0]}' in it, expected 'data' (N, 2, 32, 32) and 'date' "
                f"(N); found {some(file) or 'nothing'}"
            )
        shape, dates = file["data"].shape, np.asarray(read_whole(path, file["date"]))
        kind, stored = file["data"].dtype.kind, file["data"].id.get_storage_size()
    if len(shape) != 4 or shape[1] != 2 or kind not in "fiu" or 0 in shape:
        raise InputError(f"{path}: 'data' is {shape}, expected numbers (N, 2, rows, columns)")
    if dates.shape != shape[:1]:
        raise InputError(f"{path}: {shape[0]} steps of 'data' and {dates.shape} of 'date'")
    refuse_claim(f"{path}: a map of {shape[2]} x {shape[3]}", 4 * shape[2] * shape[3], stored)
    times, slots = _times(dates, path, slots)
    # Trips that end in a cell flow into it; BikeNYC has those that begin there before them.
    order = (1, 0) if "newend" in path.name.lower() else (0, 1)
    return Part(path, shape, partial(_h5_data, path), slots, order), times


def _times(dates: np.ndarray, path: Path, slots: int | None) -> tuple[np.ndarray, int]:
    """Read dates YYYYMMDDSS, where SS is the slot of the day from 01; also slots in a day."""
    text = [
        d.decode("ascii", "replace") if isinstance(d, bytes) else str(d) for d in dates.tolist()
    ]
    digits = pd.Series(text, dtype=str).str
    days = pd.to_datetime(digits[:8], format="%Y%m%d", errors="coerce")
    slot = pd.to_numeric(digits[8:], errors="coerce")
    formed = (days.notna() & slot.notna() & digits.fullmatch(r"\d{10,11}")).to_numpy()
    known = slots or _slots_a_day(path, days[formed].to_numpy(), slot[formed].to_numpy(np.int64))
    bad = ~(formed & slot.between(1, known).to_numpy())
    if bad.any():
        raise InputError(
            f"{path}: {bad.sum()} of {len(text)} dates are not of the form YYYYMMDDSS with a slot "
            f"of the day SS from 01 to {known}, the first is {text[bad.argmax()]!r}"
        )
    step = np.timedelta64(_DAY // known, "s")
    times = days.to_numpy("datetime64[ns]") + (slot.to_numpy(np.int64) - 1) * step
    steps = np.diff(times)
    if (steps <= np.timedelta64(0)).any():
        at = int((steps <= np.timedelta64(0)).argmax()) + 1
        what = "occurs twice" if times[at] in times[:at] else "is out of order"
        raise InputError(
            f"{path}: date {text[at]!r} (step {at}) {what}, expected dates in ascending order"
        )
    return times, known


def _slots_a_day(path: Path, days: np.ndarray, slot: np.ndarray) -> int:
    """Slots in a day, by the file's name (``T30``: minutes in one) and by the dates in it."""
    last = int(slot.max(initial=0))
    here = pd.DataFrame({"day": days, "slot": slot}).drop_duplicates().groupby("day")["slot"]
    whole = int(((here.count() == last) & (here.max() == last)).sum()) >= 2
    seen = last if whole and last in _SLOTS else None
    if match := _MINUTES.search(path.name):
        named = 24 * 60 // int(match[1]) if int(match[1]) else 0
        if named in _SLOTS and seen in (None, named):
            return named
        if seen is not None:
            raise InputError(
                f"{path}: {match[0].strip('_')} in its name says {named} slots a day, but its days "
                f"hold the slots 01 to {seen}: say which with slots={seen} or slots={named}"
            )
    if seen is None and last <= min(_SLOTS):
        raise InputError(
            f"{path}: its slots, up to {last:02d}, do not tell how many a day has: give slots=48 "
            "for half hours, slots=24 for hours"
        )
    return seen or next((n for n in _SLOTS if last <= n and n % 48 == 0), 48)


def slot_name(slots: int) -> str:
    """Call one of the slots of a day by its length."""
    return {24: "hour", 48: "half hour"}.get(slots, f"{24 * 60 // slots} minutes")


# --- labels ---------------------------------------------------------------------------------------


class Channel(LazyArray):
    """One flow of a :class:`Part`, float32 (time, y, x), read when indexed."""

    support = BASIC

    def __init__(self, part: Part, channel: int) -> None:
        self.part, self.place = part, part.order[channel]
        self.shape = (part.shape[0], *part.shape[2:])
        self.dtype = np.dtype(np.float32)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        with self.part.open() as array:
            return np.asarray(array[key[0], self.place, key[1], key[2]], dtype=np.float32)


def label_flows(
    parts: Sequence[Part],
    times: np.ndarray,
    chunks: Any,
    attrs: Mapping[str, Any],
    noun: str,
    more: Mapping[str, xr.Variable] | None = None,
    files: Sequence[Path] = (),
) -> xr.Dataset:
    """Label parts that follow each other in time, and `more` variables, read from `files`."""
    dims, shape = ("time", "y", "x"), parts[0].shape
    for part in parts:
        if part.shape[1:] != shape[1:]:
            raise InputError(
                f"{part.path}: a grid of {part.shape[2:]}, that of {parts[0].path} is {shape[2:]}"
            )
        if part.slots != parts[0].slots:
            raise InputError(
                f"{part.path} has {part.slots} slots a day, {parts[0].path} {parts[0].slots}: open "
                "them one by one"
            )
    per = slot_name(parts[0].slots)
    data = {}
    for channel, (name, verb) in enumerate(zip(CHANNELS, ("entering", "leaving"), strict=True)):
        pieces = [(str(p.path), Channel(p, channel).variable(dims)) for p in parts]
        names = {"units": "1", "long_name": f"{noun} {verb} the cell per {per}"}
        data[name] = Joined(name, pieces, 0).variable(dims, names)
    coords = {"time": ("time", times, {"standard_name": "time", "long_name": "local time"})}
    ds = xr.Dataset({**data, **(more or {})}, coords, dict(attrs))
    stamps = [(str(path), *stamp(path)) for path in (*(p.path for p in parts), *files)]
    spans = [(p.shape[0], 1) for p in parts]
    return in_chunks(ds, chunks, {d: d for d in dims}, partial(cut, spans), stamps, times)
