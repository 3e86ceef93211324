"""Video from moving cars as clips of 128 x 160 RGB: KITTI raw, Caltech Pedestrian.

Only headers, names and directories are read on opening; frames are decoded when they are used, by
FFmpeg through PyAV (the extra ``video``).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .archives import Member, find_members, first_of
from .backends import PathLike
from .clips import Clip, Split, check_split, clip_dataset
from .hickle_files import open_hickle, read_strings
from .limits import missing_numbers, refuse_part, refuse_picture
from .seq_files import read_seq, read_seq_header
from .video import centre_crop, decode_images, read_images, resize

_RGB = ("red", "green", "blue")
_SIZE = (128, 160)  # height and width
_SKIP = ("velodyne_points", "oxts")

_DRIVE = r"(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4}_sync)"
_PNG = re.compile(rf"{_DRIVE}/image_0(?P<camera>\d)/data/(?P<number>\d+)\.png")
_HKL = re.compile(r"X_(?P<part>train|val|test)\.hkl")
# PredNet's validation and test recordings; all the others train.
_DRIVES = {
    "2011_09_26_drive_0005_sync": "validation",
    "2011_09_26_drive_0104_sync": "test",
    "2011_09_26_drive_0079_sync": "test",
    "2011_09_26_drive_0070_sync": "test",
}
_SEQ = re.compile(r"set(?P<set>\d\d)/V(?P<video>\d{3})\.seq", re.I)
_CALTECH_VALID = 5  # set05; sets 00 to 04 train, 06 to 10 test


def open_kitti(
    path: PathLike, split: Split | None = None, *, camera: int = 3, chunks: Any = "auto"
) -> xr.Dataset:
    """Open KITTI's raw drives as clips of 128 x 160 RGB, 10 frames a second.

    Parameters
    ----------
    path : path
        A directory with synchronised drives at any depth, extracted
        (``2011_09_26/2011_09_26_drive_0001_sync/image_03/data/0000000000.png``) or in their zips;
        or with PredNet's hickle files, ``X_train.hkl`` and ``sources_train.hkl``, which are read
        as HDF5, without unpickling.
    split : {"train", "validation", "test"}, optional
        PredNet's: drive 0005 of 2011_09_26 validates, 0070, 0079 and 0104 test, all others train.
        Default: all.
    camera : int
        Of raw drives: 2 is the left colour camera, 3 the right one, which PredNet takes.
    chunks : {"auto"}, None or mapping
        As in :func:`stforecast.datasets.open_weatherbench`.

    Returns
    -------
    xarray.Dataset
        ``red``, ``green``, ``blue`` (time, y, x) in [0, 1]; a drive is a clip. Frames are resized
        to a height of 128 and the middle 160 columns cut out, left and right as they were.

    Raises
    ------
    InputError
        If there is no such drive; if a frame is missing, or a hickle file holds other or pickled
        content. On reading, if a frame is damaged or of another size than those before it.

    References
    ----------
    Geiger, Lenz, Stiller and Urtasun (2013): Vision meets robotics: the KITTI dataset.
    https://www.cvlibs.net/datasets/kitti/raw_data.php
    Lotter, Kreiman and Cox (2017): Deep predictive coding networks. https://arxiv.org/abs/1605.08104
    """
    root = Path(path).expanduser()
    check_split(split)
    drives: dict[str, dict[int, Member]] = {}
    others = {f"image_0{c}" for c in range(4)} - {f"image_0{camera}"}
    for match, member in find_members(root, _PNG, skip=(*_SKIP, *others)):
        if int(match["camera"]) == camera:
            drives.setdefault(match["drive"], {})[int(match["number"])] = member
    hickles = {m["part"]: f.file for m, f in find_members(root, _HKL) if f.name is None}
    if bool(drives) == bool(hickles):
        found = "both raw drives and PredNet's" if drives else f"no drive of camera {camera} and no"
        raise InputError(
            f"{root}: {found} hickle files in it: expected "
            f"2011_09_26_drive_0001_sync/image_0{camera}/data/0000000000.png, or X_train.hkl and "
            "sources_train.hkl"
        )
    if hickles:
        part = {"validation": "val"}.get(str(split), split)
        files = [f for p, f in hickles.items() if part in (None, p)]
        clips = [clip for file in files for clip in _hickle_clips(file)]
    else:
        clips = [
            _drive_clip(drive, drives[drive])
            for drive in sorted(drives)
            if split in (None, _DRIVES.get(drive, "train"))
        ]
    source = "PredNet's hickle files" if hickles else f"raw drives, camera {camera}"
    return _street(
        clips,
        root,
        split,
        chunks,
        source,
        title="KITTI raw",
        source=f"video from a moving car, {source}",
        license="CC BY-NC-SA 3.0",
        references="Geiger et al. (2013), IJRR, doi:10.1177/0278364913491297",
    )


def _drive_clip(drive: str, frames: Mapping[int, Member]) -> Clip:
    first = frames[min(frames)]
    if missing := missing_numbers(frames, 0, max(frames), 1)[1]:
        raise InputError(
            f"{first}: frame {missing[0]:010d}.png of {drive} is missing. Get it again"
        )
    images = tuple(frames[n] for n in sorted(frames))
    name = str(first).rsplit("/data/", 1)[0]
    return Clip(name, len(images), partial(_read_images, images), first.stamp)


def _read_images(images: Sequence[Member], start: int, stop: int) -> np.ndarray:
    return read_images(images, _cut, start, stop)


def _hickle_clips(file: Path) -> list[Clip]:
    """Divide PredNet's one array of frames where the recording changes."""
    names = file.with_name(file.name.replace("X_", "sources_", 1))
    if not names.is_file():
        raise InputError(f"{file}: beside it {names.name} is missing, which says where clips end")
    with open_hickle(file) as node:
        shape, kind = getattr(node, "shape", None), getattr(node, "dtype", None)
    if shape is None or len(shape) != 4 or shape[-1] != 3 or kind != np.uint8:
        raise InputError(f"{file}: {kind} of shape {shape}, expected uint8 (frames, H, W, 3)")
    refuse_picture(file, *shape[1:3])
    sources = read_strings(names)
    if len(sources) != shape[0]:
        raise InputError(
            f"{file}: {shape[0]} frames, but {names.name} names {len(sources)}: they do not belong "
            "together, or one is truncated"
        )
    stamp, clips, start = Member(file).stamp, [], 0
    for source, run in itertools.groupby(sources):
        read = partial(_read_hickle, file, start)
        clips.append(Clip(f"{file}: {source}", len(list(run)), read, stamp))
        start += clips[-1].frames
    return clips


def _read_hickle(file: Path, first: int, start: int, stop: int) -> np.ndarray:
    with open_hickle(file) as node:
        size = (stop - start) * math.prod(node.shape[1:])
        refuse_part(file, node, size)
        return _cut(node[first + start : first + stop])


def open_caltech(
    path: PathLike, split: Split | None = None, *, every: int = 3, chunks: Any = "auto"
) -> xr.Dataset:
    """Open Caltech Pedestrian's sequences as clips of 128 x 160 RGB.

    Parameters
    ----------
    path : path
        A directory with ``set06/V000.seq`` and so on at any depth, or one such file.
    split : {"train", "validation", "test"}, optional
        The owners': sets 06 to 10 test; of their training sets 00 to 05 the last validates here.
        Default: all.
    every : int
        Which frames to take: every third of 30 a second makes 10, as in KITTI.
    chunks : {"auto"}, None or mapping
        As in :func:`stforecast.datasets.open_weatherbench`.

    Returns
    -------
    xarray.Dataset
        ``red``, ``green``, ``blue`` (time, y, x) in [0, 1]; a sequence is a clip. Times are those
        of 30 frames a second. Resized and cut as in :func:`open_kitti`.

    Raises
    ------
    InputError
        If there is no such sequence, or its header is wrong. On reading, if it is truncated or a
        frame damaged.

    References
    ----------
    Dollar, Wojek, Schiele and Perona (2012): Pedestrian detection: an evaluation of the state of
    the art. https://www.vision.caltech.edu/datasets/caltech_pedestrians/
    """
    root = Path(path).expanduser()
    check_split(split)
    if every < 1:
        raise InputError(f"every must be at least 1, found {every}")
    found = sorted(
        ((int(m["set"]), int(m["video"]), member) for m, member in find_members(root, _SEQ)),
        key=lambda f: (f[:2], str(f[2])),
    )
    for a, b in itertools.pairwise(found):
        if a[:2] == b[:2]:
            raise InputError(f"{a[2]} and {b[2]} are the same sequence: remove one")
    if not found:
        raise InputError(f"{root}: no sequence in it, expected set06/V000.seq and so on")
    clips = []
    for number, _, member in found:
        part = "test" if number > 5 else "validation" if number == _CALTECH_VALID else "train"
        if split not in (None, part):
            continue
        if member.name is not None:
            raise InputError(f"{member}: sequences are not read from a zip. Extract it")
        header = read_seq_header(member.file)
        if header.frames >= every:
            read = partial(_read_seq, member.file, header.frames, every)
            clips.append(Clip(str(member), header.frames // every, read, member.stamp))
    return _street(
        clips,
        root,
        split,
        chunks,
        f"every {every}",
        every=every,
        title="Caltech Pedestrian",
        source=f"video from a moving car, every {every}. frame of 30 a second",
        license="see https://www.vision.caltech.edu/datasets/caltech_pedestrians/",
        references="Dollar et al. (2012), TPAMI, doi:10.1109/TPAMI.2011.155",
    )


def _read_seq(path: Path, frames: int, every: int, start: int, stop: int) -> np.ndarray:
    wanted = range((start + 1) * every - 1, stop * every, every)
    images = read_seq(path, frames, wanted)
    names = (f"{path}: frame {i}" for i in wanted)
    return decode_images(zip(names, images, strict=True), _cut)


def _cut(frames: np.ndarray) -> np.ndarray:
    """Resize (..., H, W, 3) to the height of 128 and cut 160 columns out of the middle."""
    height, width = frames.shape[-3:-1]
    wide = round(width * _SIZE[0] / height)
    return centre_crop(resize(frames, (_SIZE[0], wide)), _SIZE)


def _street(
    clips: Sequence[Clip],
    root: Path,
    split: str | None,
    chunks: Any,
    options: str,
    every: int = 3,
    **attrs: str,
) -> xr.Dataset:
    if not clips:
        raise InputError(f"{root}: nothing of split={split!r} in it: give more, or split=None")
    step = f"{every * 10**9 // 30}ns"
    attrs["source"] += "; resized to a height of 128 by area means, middle 160 columns"
    return clip_dataset(
        clips,
        _RGB,
        _SIZE,
        timestep=step,
        attrs=attrs,
        chunks=chunks,
        split=split,
        options=options,
    )


def recognise(path: Path) -> str | None:
    """Say in one line whether a path holds KITTI or Caltech Pedestrian; None if not."""
    kinds = {
        "open_kitti: KITTI raw drives": _PNG,
        "open_kitti: KITTI as PredNet's hickle files": _HKL,
        "open_caltech: Caltech Pedestrian, StreamPix sequences": _SEQ,
    }
    return first_of(path, kinds, skip=_SKIP)
