"""Video clips as one canonical, lazy Dataset.

All clips lie one behind the other on one time axis (a contiguous ragged array, as CF calls it): the
frames of a clip are one time step apart, and between two clips a step is missing. So a window never
crosses two clips, clips may differ in length without padding, and whatever works on a history with
gaps works on clips. The coordinates ``clip`` and ``step`` say which frame of which clip a time is.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD, TIME, VALID, X, Y
from ..conventions.lazy import LazyArray
from ..conventions.overlap import FINGERPRINT, make_fingerprint
from ..conventions.times import time_differences
from ..errors import InputError
from ..task import Task, window_starts
from .backends import READ_ERRORS
from .lazy import in_chunks, locate
from .limits import refuse_frames

Split = Literal["train", "validation", "test"]
#: Decoded frames that a data set keeps: the channels of a frame decode it once.
CACHE_BYTES = 128 * 2**20
_NAMED = 64  # clips, at most, whose names go to an attribute


@dataclass(frozen=True)
class Clip:
    """A run of frames of one size, read when they are used.

    Parameters
    ----------
    name : str
        What errors call it: file and member.
    frames : int
        How many there are.
    read : callable
        ``read(start, stop)`` gives (stop - start, H, W, C), uint8 or float32, and decodes no more
        than it must. To be sent to other processes it must pickle: a ``partial`` of a function of a
        module does.
    stamp : tuple
        What changes when the file does, as time and size.
    """

    name: str
    frames: int
    read: Callable[[int, int], np.ndarray]
    stamp: tuple[Any, ...] = field(default=())


def clip_times(lengths: Sequence[int], timestep: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay clips one behind the other, with one step missing between two of them.

    Gives of each frame its time (datetime64[ns], from 1970-01-01 on), its clip's number and its own
    number in the clip.

    Examples
    --------
    >>> clip_times([2, 1], "1s")[0].astype("datetime64[s]").astype(int).tolist()
    [0, 1, 3]
    """
    counts = np.asarray(lengths, dtype=np.int64)
    clip = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(len(clip)) - np.repeat(np.cumsum(counts) - counts, counts)
    ticks = np.arange(len(clip)) + clip
    apart = pd.Timedelta(timestep).to_timedelta64().astype("timedelta64[ns]")
    return np.datetime64(0, "ns") + ticks * apart, clip, step


def check_split(split: str | None) -> None:
    """Refuse a split of another name."""
    if split not in ("train", "validation", "test", None):
        raise InputError(f"split must be 'train', 'validation', 'test' or None, found {split!r}")


def clip_dataset(
    clips: Sequence[Clip],
    channels: Sequence[str],
    shape: tuple[int, int],
    *,
    timestep: str,
    attrs: Mapping[str, Any],
    scale: float = 1 / 255,
    chunks: Any = None,
    labels: Mapping[str, tuple[Sequence[int], Mapping[str, Any]]] | None = None,
    split: str | None = None,
    options: str = "",
) -> xr.Dataset:
    """Make one canonical, lazy Dataset of clips: ``(time, y, x)`` float32, a variable a channel.

    Parameters
    ----------
    clips : sequence of Clip
        All of `shape` and with as many channels as `channels`.
    channels : sequence of str
        Names of the variables: ``["intensity"]``, ``["red", "green", "blue"]``.
    shape : tuple of int
        Height and width.
    timestep : str
        Time between two frames.
    attrs : mapping
        Attributes of the Dataset. ``fingerprint`` is put in, and where there are few clips
        ``clip_names``.
    scale : float
        What uint8 is multiplied by (in float64, then rounded to float32). It goes to the
        variables' encoding, so that bytes are stored as bytes.
    chunks : {"auto"}, None or mapping
        ``"auto"``: dask arrays of about 16 MiB that end where clips end. None: xarray's own lazy
        arrays. A mapping: dask chunk sizes by dimension.
    labels : mapping, optional
        ``{name: (whole numbers, one a clip, and attributes)}``: more coordinates along time.
    split : str, optional
        Which part of the data these clips are, for the fingerprint.
    options : str
        What else the clips depend on and neither their names nor their shape tell, as "camera 0".

    Returns
    -------
    xarray.Dataset
        Nothing is read until it is used. Frames are then read clip by clip, and the last ones kept
        (128 MiB) so that several channels decode them once.

    Raises
    ------
    InputError
        If there is no clip, or one without frames. On reading, if a clip's frames are not what they
        should be: it is named.
    """
    empty = [c.name for c in clips if c.frames < 1]
    if not clips or empty:
        raise InputError(f"{empty[0]}: a clip without frames" if empty else "there are no clips")
    lengths = [c.frames for c in clips]
    refuse_frames(f"{clips[0].name} and so on" if len(clips) > 1 else clips[0].name, sum(lengths))
    times, number, step = clip_times(lengths, timestep)
    source = _Frames(clips, (*shape, len(channels)), scale)
    data = {}
    for index, name in enumerate(channels):
        about = {"units": "1", "long_name": f"{name}, 0 is dark and 1 is bright"}
        packing = {"dtype": "uint8", "scale_factor": scale}
        data[name] = _Channel(source, index).variable((TIME, Y, X), about, packing)
    coords: dict[str, Any] = {
        TIME: (TIME, times, {"standard_name": "time", "long_name": "time since the first frame"}),
        "clip": (TIME, number, {"long_name": "number of the clip"}),
        "step": (TIME, step, {"long_name": "number of the frame in its clip"}),
        Y: (Y, np.arange(shape[0]), {"units": "1", "long_name": "pixel row, from the top"}),
        X: (X, np.arange(shape[1]), {"units": "1", "long_name": "pixel column, from the left"}),
    }
    for name, (values, what) in (labels or {}).items():
        coords[name] = (TIME, np.repeat(np.asarray(values, np.int64), lengths), dict(what))
    ds = xr.Dataset(data, attrs={"Conventions": "CF-1.11", **attrs})
    # Without the directory they share, which says nothing elsewhere.
    shared = os.path.commonpath([os.path.dirname(c.name) for c in clips])
    names = [c.name.removeprefix(shared).lstrip("/") for c in clips]
    if len(clips) <= _NAMED:
        ds.attrs["clip_names"] = names
    told = ", ".join(filter(None, [f"{shape[0]} x {shape[1]}", options]))
    of = [(n, c.frames, c.stamp[1:]) for n, c in zip(names, clips, strict=True)]  # size, not time
    digest = hashlib.sha256(repr((of, list(channels), timestep, scale)).encode()).hexdigest()[:16]
    title = str(attrs.get("title", "clips")).split(":")[0]
    ds.attrs[FINGERPRINT] = make_fingerprint(title, split, told, f"digest {digest}")
    made_of = [(c.name, c.frames, c.stamp) for c in clips], shape, scale, list(channels)
    dims = {d: d for d in (TIME, Y, X)}
    return in_chunks(ds, chunks, dims, partial(_cut, lengths), *made_of).assign_coords(coords)


def _cut(lengths: Sequence[int], most: int) -> tuple[int, ...]:
    """Cut clips into chunks of at most `most` frames, several short ones in one."""
    most = max(1, most)
    sizes: list[int] = []
    room = 0
    for length in lengths:
        if length <= room:  # beside the clips before it
            sizes[-1] += length
            room -= length
            continue
        parts = -(-length // most)
        sizes += [length * (i + 1) // parts - length * i // parts for i in range(parts)]
        room = most - sizes[-1] if parts == 1 else 0
    return tuple(sizes)


class _Frames:
    """The frames of all clips, decoded once for all channels; safe to use from several threads."""

    def __init__(self, clips: Sequence[Clip], shape: tuple[int, int, int], scale: float) -> None:
        self.clips, self.shape, self.scale = list(clips), shape, scale
        self.ends = np.cumsum([c.frames for c in clips])
        self._prepare()

    def _prepare(self) -> None:
        self.table = (np.arange(256) * self.scale).astype(np.float32)
        self.cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self.held = 0
        self.guard = threading.Lock()
        # Threads that want the same clip wait for the first of them, and find it decoded.
        self.busy = [threading.Lock() for _ in range(32)]

    def __getstate__(self) -> dict[str, Any]:
        return {k: self.__dict__[k] for k in ("clips", "shape", "scale", "ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def read(self, number: int, start: int, stop: int) -> list[np.ndarray]:
        """Frames (H, W, C) of one clip."""
        with self.busy[number % len(self.busy)]:
            with self.guard:
                found = {i: self.cache.get((number, i)) for i in range(start, stop)}
                for i, frame in found.items():
                    if frame is not None:
                        self.cache.move_to_end((number, i))
            missing = [i for i, frame in found.items() if frame is None]
            if missing:
                first, last = missing[0], missing[-1] + 1
                fresh = self._decode(self.clips[number], first, last)
                found.update(zip(range(first, last), fresh, strict=True))
                self._keep(number, first, fresh)
        return [frame for frame in found.values() if frame is not None]

    def _keep(self, number: int, first: int, frames: np.ndarray) -> None:
        with self.guard:
            for i, frame in enumerate(frames, first):
                old = self.cache.pop((number, i), None)
                self.held -= 0 if old is None else old.nbytes
                # A copy: a view would keep all of `frames` in memory.
                self.cache[number, i] = frame.copy()
                self.held += frame.nbytes
            while self.held > CACHE_BYTES:
                self.held -= self.cache.popitem(last=False)[1].nbytes

    def _decode(self, clip: Clip, start: int, stop: int) -> np.ndarray:
        try:
            frames = clip.read(start, stop)
        except InputError:
            raise
        except READ_ERRORS as error:
            raise InputError(
                f"{clip.name}: frames {start} to {stop - 1} cannot be read ({type(error).__name__}:"
                f" {error}): it is truncated or damaged. Copy or download it again"
            ) from error
        if len(frames) != stop - start:
            raise InputError(
                f"{clip.name}: it ends after {start + len(frames)} frames, expected {clip.frames}: "
                "it is truncated. Copy or download it again"
            )
        if frames.shape[1:] != self.shape or frames.dtype not in (np.uint8, np.float32):
            raise InputError(
                f"{clip.name}: its frames are {frames.shape[1:]} {frames.dtype}, expected "
                f"{self.shape} (height, width, channels) uint8 or float32"
            )
        return frames


class _Channel(LazyArray):
    """One channel of all clips, (time, y, x) float32."""

    def __init__(self, source: _Frames, index: int) -> None:
        self.source, self.index = source, index
        self.shape, self.dtype = (int(source.ends[-1]), *source.shape[:2]), np.dtype(np.float32)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        along, rows, columns = key
        planes = []
        for number, start, stop, local in self._runs(along):
            frames = self.source.read(number, start, stop)
            for i in local:
                plane = frames[i - start][..., self.index][rows][..., columns]
                planes.append(self.source.table[plane] if plane.dtype == np.uint8 else plane)
        spatial = np.empty(self.shape[1:], np.bool_)[rows][..., columns].shape
        return np.stack(planes) if planes else np.empty((0, *spatial), np.float32)

    def _runs(self, along: slice | np.ndarray) -> list[tuple[int, int, int, np.ndarray]]:
        """Stretches of `along` to read at once: clip, start, stop, and the frames in them."""
        owner, local = locate(self.source.ends, along)
        # Frames far apart are read one by one; a few too many are cheaper than another look.
        far = (np.diff(owner) != 0) | (np.abs(np.diff(local)) > 16)
        frame_bytes = max(1, math.prod(self.source.shape))
        most = max(1, CACHE_BYTES // 4 // frame_bytes)
        runs = []
        for run in np.split(np.arange(len(local)), np.flatnonzero(far) + 1):
            for part in (run[i : i + most] for i in range(0, len(run), most)):
                frames = local[part]
                runs.append((int(owner[part[0]]), int(frames.min()), int(frames.max()) + 1, frames))
        return runs


def protocol_times(ds: xr.Dataset, task: Task, steps: int | None = None) -> np.ndarray:
    """Initialisation times of the windows that the benchmarks of clips take.

    They lie in each clip from its end backwards, one window behind the other without a frame in
    common; or `stride` frames apart where the data set has a coordinate of that name with more than
    0 (KTH: 3 for jogging and running).

    Parameters
    ----------
    ds : xarray.Dataset
        Clips, with the coordinate ``time``.
    task : Task
        What is forecast from what.
    steps : int, optional
        Target steps of a window, for roll-out. Default: the task's.

    Returns
    -------
    numpy.ndarray
        Times of the last input step, ascending; for ``init_time`` of :func:`stforecast.predict`.

    Raises
    ------
    InputError
        If no clip is long enough.
    """
    time = ds[TIME].values
    length = task.input_steps + (task.target_steps if steps is None else steps)
    starts = window_starts(time, task.step, length)
    if not len(starts):
        raise InputError(f"no clip has {length} frames {task.timestep} apart, as a window needs")
    stride = np.zeros(len(time), np.int64) if "stride" not in ds.coords else ds["stride"].to_numpy()
    stride = np.where(stride > 0, stride, length)[starts]
    ends = np.append(np.flatnonzero(np.diff(starts) > 1), len(starts) - 1)  # of each clip's windows
    last = starts[ends][np.searchsorted(ends, np.arange(len(starts)))]
    return time[starts[(last - starts) % stride == 0] + task.input_steps - 1]


def as_samples(ds: xr.Dataset) -> xr.Dataset:
    """Give a forecast of clips, or clips of one length, the paper's axes.

    Parameters
    ----------
    ds : xarray.Dataset
        A forecast ``(time, prediction_timedelta, y, x)``, or clips ``(time, y, x)`` that all have
        the same number of frames: whole, or cut by selecting times.

    Returns
    -------
    xarray.Dataset
        ``frames`` (sample, step, channel, y, x), where ``channel`` holds the variables' names.
        Steps count from 0 and keep their lead times as a coordinate; samples keep their
        initialisation time, or the time of their first frame.

    Raises
    ------
    InputError
        If the clips are not of one length.
    """
    if missing := [d for d in (TIME, Y, X) if d not in ds.dims]:
        raise InputError(f"expected clips (time, y, x) or a forecast of them, without {missing}")
    names = [str(n) for n in ds.data_vars]
    stacked = ds.reset_coords(drop=True).to_dataarray("channel")
    if LEAD in ds.dims:
        array = stacked.transpose(TIME, LEAD, "channel", Y, X)
        coords: dict[str, Any] = {TIME: ("sample", ds[TIME].data), LEAD: ("step", ds[LEAD].data)}
        if VALID in ds.coords:
            coords[VALID] = (("sample", "step"), ds[VALID].transpose(TIME, LEAD).data)
        data = array.data
    else:
        times = ds[TIME].to_numpy()
        apart = time_differences(times)
        new = apart > (apart.min() if len(apart) else 0)
        if "clip" in ds.coords:  # clips of one frame have none beside them to tell the step
            new |= np.diff(ds["clip"].to_numpy()) != 0
        ends = np.append(np.flatnonzero(new) + 1, len(times))
        lengths = np.diff(ends, prepend=0)
        if len(set(lengths)) > 1:
            raise InputError(
                f"the clips have {lengths.min()} to {lengths.max()} frames, expected one length: "
                "select as many of each, as ds.isel(time=ds['step'] < n)"
            )
        array = stacked.transpose(TIME, "channel", Y, X)
        data = array.data.reshape(len(lengths), lengths[0], *array.shape[1:])
        coords = {TIME: ("sample", times[ends - lengths])}
    coords |= {"step": np.arange(data.shape[1]), "channel": names}
    coords |= {d: ds[d].variable for d in (Y, X) if d in ds.coords}
    dims = ("sample", "step", "channel", Y, X)
    frames = (dims, data, {"units": "1", "long_name": "frames"})
    return xr.Dataset({"frames": frames}, coords, ds.attrs)
