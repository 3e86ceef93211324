"""KTH human actions as clips of grey video.

Only headers, names and directories are read on opening; frames are decoded when they are used, by
FFmpeg through PyAV (the extra ``video``).
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .archives import Member, find_members, first_of
from .backends import PathLike
from .clips import Clip, Split, check_split, clip_dataset
from .joining import some
from .limits import missing_numbers
from .periods import years_in_ranges
from .video import decode_video, read_images, resize

logger = logging.getLogger(__name__)


ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
_STRIDES = {"jogging": 3, "running": 3}
_PERSONS = {"train": range(1, 15), "validation": range(15, 17), "test": range(17, 26)}
_VIDEO = rf"person(?P<person>\d\d)_(?P<action>{'|'.join(ACTIONS)})_d(?P<scene>\d)(?:_uncomp)?"
_AVI = re.compile(rf"{_VIDEO}\.avi", re.I)
_IMAGE = re.compile(rf"{_VIDEO}/image[-_](?P<number>\d+)\.jpe?g", re.I)
_RANGES = re.compile(r"00sequences\.txt", re.I)
_RANGE_LINE = re.compile(r"^(person\d\d_[a-z]+_d\d)[ \t]+frames[ \t]+(.*)$", re.M)
# The published file breaks off after frame 304 of the 370 in its header and in 00sequences.txt.
_DAMAGED = {"person01_boxing_d4": 300}


def open_kth(
    path: PathLike,
    split: Split | None = None,
    *,
    actions: Sequence[str] | None = None,
    size: tuple[int, int] = (128, 128),
    chunks: Any = "auto",
) -> xr.Dataset:
    """Open the KTH human actions as clips of ``intensity``, a sub-sequence a clip.

    Parameters
    ----------
    path : path
        A directory with the published ``boxing.zip``, ..., ``walking.zip`` (they stay zipped), or
        with their extracted ``person01_boxing_d1_uncomp.avi``; or with extracted frames,
        ``person01_boxing_d1/image_0001.jpg`` (``..._uncomp/`` too). At any depth; or one such zip.
        ``00sequences.txt``, there or beside, divides the videos into sub-sequences; without it a
        video is one clip, and frames are clips as far as their numbers go on.
    split : {"train", "validation", "test"}, optional
        The protocol's persons: 1 to 16 train, of which 15 and 16 are kept for validation here; 17
        to 25 test. Default: all.
    actions : sequence of str, optional
        Some of boxing, handclapping, handwaving, jogging, running, walking.
    size : (int, int)
        Height and width to resize to, see :func:`stforecast.datasets.video.resize`.
    chunks : {"auto"}, None or mapping
        As in :func:`stforecast.datasets.open_weatherbench`.

    Returns
    -------
    xarray.Dataset
        ``intensity`` (time, y, x) in [0, 1], 25 frames a second. Coordinates along time: ``clip``,
        ``step``, ``person``, ``action`` (its meanings are an attribute) and ``stride``, which
        :func:`stforecast.datasets.protocol_times` reads.

    Raises
    ------
    InputError
        If there is no such video; if a zip is damaged or hostile, a header is wrong, a
        sub-sequence is not in its video or lacks a frame. On reading, if a video breaks off or a
        frame is damaged.

    Notes
    -----
    ``person13_handclapping_d3`` does not exist, and ``person01_boxing_d4_uncomp.avi`` is damaged as
    published: its last sub-sequence is cut at frame 300.

    References
    ----------
    Schuldt, Laptev and Caputo (2004): Recognizing human actions: a local SVM approach.
    https://www.csc.kth.se/cvap/actions/
    """
    root = Path(path).expanduser()
    check_split(split)
    if unknown := sorted(set(actions or ()) - set(ACTIONS)):
        raise InputError(f"unknown actions {some(unknown)}: there are {', '.join(ACTIONS)}")
    videos = [
        v
        for v in _kth_videos(root)
        if (actions is None or v.action in actions)
        and (split is None or v.person in _PERSONS[split])
    ]
    if not videos:
        there = years_in_ranges(v.person for v in _kth_videos(root))
        wanted = years_in_ranges(_PERSONS[split]) if split else "1-25"
        raise InputError(
            f"{root}: no video of split={split!r}, actions={actions!r} in it, which is of the "
            f"persons {wanted}; found those of {there or 'none'}"
        )
    ranges = _kth_ranges(root, videos)
    parts = [(v, clip) for v in videos for clip in v.clips(ranges, size)]
    rates = {v.interval: v.name for v in videos}
    if len(rates) > 1:
        raise InputError(f"{root}: the videos have different frame rates: {rates}")
    labels: Mapping[str, Any] = {
        "person": ([v.person for v, _ in parts], {"long_name": "number of the person"}),
        "action": (
            [ACTIONS.index(v.action) for v, _ in parts],
            {"flag_values": list(range(len(ACTIONS))), "flag_meanings": " ".join(ACTIONS)},
        ),
        "stride": (
            [_STRIDES.get(v.action, 0) for v, _ in parts],
            {"long_name": "frames between the protocol's windows, 0: as many as a window has"},
        ),
    }
    return clip_dataset(
        [clip for _, clip in parts],
        ["intensity"],
        size,
        timestep=f"{next(iter(rates))}us",
        attrs={
            "title": "KTH human actions",
            "source": "video of 25 persons, static camera, grey; area mean and linear resizing",
            "license": "for research, see https://www.csc.kth.se/cvap/actions/",
            "references": "Schuldt, Laptev and Caputo (2004), ICPR",
        },
        chunks=chunks,
        labels=labels,
        split=split,
        options="" if actions is None else f"actions {', '.join(sorted(actions))}",
    )


@dataclass(frozen=True)
class _Video:
    """One of KTH's videos: a file with a number of frames, or images numbered from 1."""

    name: str  # person01_boxing_d1
    file: Member | None
    length: int
    images: Mapping[int, Member]
    interval: int = 40_000  # microseconds

    @property
    def person(self) -> int:
        return int(self.name[6:8])

    @property
    def action(self) -> str:
        return self.name.split("_")[1]

    def clips(
        self, ranges: Mapping[str, list[tuple[int, int]]] | None, size: tuple[int, int]
    ) -> list[Clip]:
        """Its sub-sequences."""
        if ranges is not None and self.name not in ranges:
            raise InputError(f"{self.name} is not in 00sequences.txt: complete that, or remove it")
        if self.file is not None:
            wanted = [(1, self.length)] if ranges is None else ranges[self.name]
            if beyond := [f"{a}-{b}" for a, b in wanted if b > self.length]:
                raise InputError(
                    f"{self.file}: it has {self.length} frames, but 00sequences.txt wants "
                    f"{beyond[0]}: one of them is damaged. Download it again"
                )
            cut = [(a, min(b, _DAMAGED.get(self.name, b))) for a, b in wanted]
            file = self.file
            return [_clip(file, a, b, partial(_read_avi, file, a - 1, size)) for a, b in cut]
        if ranges is None:
            numbers = sorted(self.images)
            begins = [n for n in numbers if n - 1 not in self.images]
            ends = [n for n in numbers if n + 1 not in self.images]
            wanted = list(zip(begins, ends, strict=True))
        else:
            wanted = ranges[self.name]
        clips = []
        for a, b in wanted:
            count, missing = missing_numbers(self.images, a, b, 1)
            if missing:
                raise InputError(
                    f"{self.images[min(self.images)]}: of frames {a}-{b} in 00sequences.txt "
                    f"{count} are missing, first image_{missing[0]:04d}.jpg. Extract them "
                    "again"
                )
            images = tuple(self.images[n] for n in range(a, b + 1))
            read = partial(read_images, images, partial(resize, size=size), grey=True)
            clips.append(_clip(images[0], a, b, read))
        return clips


def _clip(file: Member, first: int, last: int, read: Callable[[int, int], np.ndarray]) -> Clip:
    return Clip(f"{file}, frames {first}-{last}", last - first + 1, read, file.stamp)


def _kth_videos(root: Path) -> list[_Video]:
    """Find videos and directories of frames."""
    files: dict[str, Member] = {}
    for match, member in find_members(root, _AVI):
        name = _kth_name(match)
        if name in files and (files[name].name is None) == (member.name is None):
            raise InputError(f"{files[name]} and {member} are the same video: remove one")
        if name not in files or member.name is None:  # extracted beside its zip
            files[name] = member
    images: dict[str, dict[int, Member]] = {}
    for match, member in find_members(root, _IMAGE):
        frames, number = images.setdefault(_kth_name(match), {}), int(match["number"])
        if number in frames:
            raise InputError(f"{frames[number]} and {member} are the same frame: remove one")
        frames[number] = member
    if twice := sorted(files.keys() & images.keys()):
        raise InputError(f"{root}: {some(twice)} are there as video and as frames: remove one form")
    if not files and not images:
        raise InputError(
            f"{root}: no KTH video in it: expected boxing.zip, person01_boxing_d1_uncomp.avi or "
            "person01_boxing_d1/image_0001.jpg"
        )
    videos = [_Video(name, None, 0, frames) for name, frames in images.items()]
    for name, member in files.items():
        length, interval = _avi_header(member)
        videos.append(_Video(name, member, length, {}, interval))
    return sorted(videos, key=lambda v: (ACTIONS.index(v.action), v.name))


def _kth_name(match: re.Match[str]) -> str:
    return f"person{match['person']}_{match['action'].lower()}_d{match['scene']}"


def _kth_ranges(root: Path, videos: Iterable[_Video]) -> dict[str, list[tuple[int, int]]] | None:
    """Read 00sequences.txt: frames of the sub-sequences by video, counted from 1, both included."""
    found = [member for _, member in find_members(root, _RANGES)]
    beside = root.parent / "00sequences.txt"
    if not found and not beside.is_file():
        logger.info("%s: no 00sequences.txt: whole videos are clips", root)
        return None
    member = found[0] if found else Member(beside)
    text = member.read().decode("utf-8", errors="replace")
    ranges: dict[str, list[tuple[int, int]]] = {}
    for name, numbers in _RANGE_LINE.findall(text):
        parts = [re.fullmatch(r"\s*(\d{1,18})\s*-\s*(\d{1,18})\s*", p) for p in numbers.split(",")]
        pairs = [(int(m[1]), int(m[2])) for m in parts if m]
        if len(pairs) < len(parts) or any(not 1 <= a <= b for a, b in pairs):
            raise InputError(
                f"{member}: '{name} frames {numbers.strip()}', expected frames as 1-95, 96-185"
            )
        ranges[name] = pairs
    if not ranges:
        raise InputError(f"{member}: no line as 'person01_boxing_d1  frames  1-95, 96-185' in it")
    there = {v.name for v in videos}
    groups = {(v.person, v.action) for v in videos}
    missing = [n for n in ranges if n not in there and (int(n[6:8]), n.split("_")[1]) in groups]
    if missing:
        logger.warning("%s: listed in %s but not there: %s", root, member, some(missing))
    return ranges


def _avi_header(member: Member) -> tuple[int, int]:
    """Frames in an AVI file as its header says, and microseconds between them."""
    head = member.read(72)
    if len(head) < 72 or head[:4] != b"RIFF" or head[8:12] != b"AVI " or head[24:28] != b"avih":
        raise InputError(
            f"{member}: no AVI file, or truncated in its header: it starts with {head[:12]!r}. "
            "Download it again"
        )
    interval, frames = struct.unpack_from("<I", head, 32)[0], struct.unpack_from("<I", head, 48)[0]
    if not frames or not interval:
        raise InputError(f"{member}: its header says {frames} frames every {interval} microseconds")
    if 8 * frames > (length := member.length):  # each frame is a chunk, with a head of 8 bytes
        raise InputError(
            f"{member}: its header says {frames} frames, more than its {length} bytes can hold: "
            "truncated or damaged. Download it again"
        )
    return frames, interval


def _read_avi(member: Member, first: int, size: tuple[int, int], a: int, b: int) -> np.ndarray:
    source = member.file if member.name is None else member.read()
    fit = partial(resize, size=size)
    return decode_video(source, first + a, first + b, name=str(member), grey=True, fit=fit)


def recognise(path: Path) -> str | None:
    """Say in one line whether a path holds KTH's actions, and in which form; None if not."""
    kinds = {"videos": _AVI, "extracted frames": _IMAGE}
    return first_of(path, {f"open_kth: KTH human actions, {k}": p for k, p in kinds.items()})
