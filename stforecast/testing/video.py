"""KTH, KITTI and Caltech Pedestrian in their genuine formats: moving blobs, or clips of yours."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..datasets.video import resize
from .encode import encode, encode_jpeg, moving_blobs

Clips = Sequence[np.ndarray] | None


def write_kth(
    directory: str | os.PathLike[str],
    *,
    persons: Sequence[int] = (1, 15, 17),
    actions: Sequence[str] = ("boxing", "jogging"),
    lengths: Sequence[int] = (32, 34),
    zipped: bool = True,
    sequences: bool = True,
    clips: Clips = None,
    seed: int = 0,
) -> Path:
    """Write KTH's videos as published: ``boxing.zip`` with ``person01_boxing_d1_uncomp.avi``, ...

    Parameters
    ----------
    directory : path-like
    persons, actions : sequence
        One video of each person and action, of the first scene, 160 x 120, 25 frames a second,
        MPEG-4.
    lengths : sequence of int
        Frames of the sub-sequences of each video; between two of them there are 5 more frames.
    zipped : bool
        In one zip an action, or in one directory.
    sequences : bool
        Write ``00sequences.txt``.
    clips : sequence of ndarray of shape (T, H, W, 3), uint8, optional
        Content in turns, in place of moving blobs; repeated and resized as needed.
    seed : int

    Returns
    -------
    Path
        The directory.
    """
    directory, ranges = Path(directory), _ranges(lengths)
    for action, videos in _kth_videos(persons, actions, ranges, clips, seed):
        files = {f"{name}_uncomp.avi": _avi(video) for name, video in videos.items()}
        if zipped:
            _write_tree(directory, files, f"{action}.zip", zipfile.ZIP_DEFLATED)
        else:
            _write_tree(directory / action, files)
    return _with_sequences(directory, persons, actions, ranges, sequences)


def write_kth_frames(
    directory: str | os.PathLike[str],
    *,
    persons: Sequence[int] = (1, 15, 17),
    actions: Sequence[str] = ("boxing", "jogging"),
    lengths: Sequence[int] = (32, 34),
    sequences: bool = True,
    clips: Clips = None,
    seed: int = 0,
) -> Path:
    """Write KTH's frames as extracted: ``boxing/person01_boxing_d1/image_0001.jpg``, ...

    Only frames of sub-sequences are there, under their numbers in the video, 160 x 120.

    Parameters
    ----------
    directory, persons, actions, lengths, sequences, clips, seed
        As in :func:`write_kth`.

    Returns
    -------
    Path
        The directory.
    """
    directory, ranges = Path(directory), _ranges(lengths)
    numbers = [number for a, b in ranges for number in range(a, b + 1)]
    for action, videos in _kth_videos(persons, actions, ranges, clips, seed):
        for name, video in videos.items():
            files = {f"image_{k:04d}.jpg": encode_jpeg(video[k - 1]) for k in numbers}
            _write_tree(directory / action / name, files)
    return _with_sequences(directory, persons, actions, ranges, sequences)


def write_kitti(
    directory: str | os.PathLike[str],
    *,
    drives: Mapping[str, int] | None = None,
    cameras: Sequence[int] = (3,),
    size: tuple[int, int] = (96, 318),
    zipped: bool = False,
    clips: Clips = None,
    seed: int = 0,
) -> Path:
    """Write KITTI raw drives: ``2011_09_26/2011_09_26_drive_0001_sync/image_03/data/*.png``.

    Parameters
    ----------
    directory : path-like
    drives : mapping, optional
        Frames of each drive by its four digits; one to train with, one to validate and one to test
        unless given.
    cameras : sequence of int
    size : (int, int)
        Height and width; the genuine frames have about 375 x 1242.
    zipped : bool
        In one zip a drive, as published.
    clips, seed
        As in :func:`write_kth`.

    Returns
    -------
    Path
        The directory.
    """
    directory = Path(directory)
    drives = {"0001": 14, "0005": 13, "0070": 13} if drives is None else drives
    for number, (drive, frames) in enumerate(drives.items()):
        day = "2011_09_26"
        name = f"{day}_drive_{drive}_sync"
        files = {}
        for camera in cameras:
            video = _content(clips, number, frames, size, seed + number + 100 * camera)
            for i, frame in enumerate(video):
                png = encode(frame[None], "image2pipe", "png", "rgb24")
                files[f"{day}/{name}/image_{camera:02d}/data/{i:010d}.png"] = png
        _write_tree(directory, files, f"{name}.zip" if zipped else None)
    return directory


def write_caltech(
    directory: str | os.PathLike[str],
    *,
    sets: Mapping[int, Sequence[int]] | None = None,
    size: tuple[int, int] = (120, 160),
    image_format: int = 201,
    gap: int = 16,
    clips: Clips = None,
    seed: int = 0,
) -> Path:
    """Write Caltech Pedestrian's StreamPix sequences: ``set06/V000.seq``, ...

    Parameters
    ----------
    directory : path-like
    sets : mapping, optional
        Frames of each sequence by the number of their set; one short sequence of sets 0, 5 and 6
        unless given.
    size : (int, int)
        Height and width; the genuine frames have 480 x 640.
    image_format : int
        102 (monochrome JPEG), 201 (colour JPEG) or what you like for the header.
    gap : int
        Bytes between two images, time stamp included: 8 or 16.
    clips, seed
        As in :func:`write_kth`.

    Returns
    -------
    Path
        The directory.
    """
    directory = Path(directory)
    sets = {0: [39], 5: [36], 6: [39]} if sets is None else sets
    count = 0
    for number, lengths in sets.items():
        folder = directory / f"set{number:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        for video, length in enumerate(lengths):
            frames = _content(clips, count, length, size, seed + count)
            count += 1
            height, width = size
            head = struct.pack("<I", 0xFEED) + "Norpix seq".encode("utf-16-le").ljust(24, b"\0")
            head += struct.pack("<2i", 3, 1024) + bytes(512)
            numbers = (width, height, 24, 8, 3 * height * width, image_format, length, 0, 0)
            head += struct.pack("<9Id", *numbers, 30.0)
            with open(folder / f"V{video:03d}.seq", "wb") as file:
                file.write(head.ljust(1024, b"\0"))
                for i, frame in enumerate(frames):
                    image = encode_jpeg(frame)
                    stamp = struct.pack("<IHH", 1 + i // 30, 33 * (i % 30), 0)
                    file.write(struct.pack("<I", len(image) + 4) + image + stamp.ljust(gap, b"\0"))
    return directory


def write_prednet_hkl(
    directory: str | os.PathLike[str],
    *,
    parts: Mapping[str, Sequence[int]] | None = None,
    version: Literal[1, 3, 4, 5] = 3,
    clips: Clips = None,
    seed: int = 0,
) -> Path:
    """Write PredNet's pairs ``X_train.hkl``, ``sources_train.hkl`` as hickle of a version does.

    Parameters
    ----------
    directory : path-like
    parts : mapping, optional
        Frames of each recording by part (train, val, test).
    version : {1, 3, 4, 5}
        Of hickle's file layout; PredNet's own files are of an early one.
    clips, seed
        As in :func:`write_kth`.

    Returns
    -------
    Path
        The directory.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    for part, lengths in ({"train": (14, 12), "val": (13,)} if parts is None else parts).items():
        videos, sources = [], []
        for length in lengths:
            videos.append(_content(clips, count, length, (128, 160), seed + count))
            sources += [f"city-2011_09_26_drive_{count + 1:04d}_sync"] * length
            count += 1
        _hickle(directory / f"X_{part}.hkl", np.concatenate(videos), version)
        _hickle(directory / f"sources_{part}.hkl", sources, version)
    return directory


def _hickle(path: Path, content: np.ndarray | list[str], version: int) -> None:
    import h5py

    is_list = isinstance(content, list)
    kind, base = ("<class 'list'>", "list") if is_list else ("ndarray", "ndarray")
    data: Any = [s.encode() for s in content] if is_list else content
    with h5py.File(path, "w") as file:
        if version == 1:
            file["data"], file["type"] = data, [base.encode()]
        elif version == 3:
            file.attrs["CLASS"], file.attrs["VERSION"] = b"hickle", "3.4.9"
            file["data_0"] = data
            file["data_0"].attrs["type"] = [kind.encode()]
        else:
            file.attrs["HICKLE_VERSION"] = f"{version}.0.1"
            if version == 5 and is_list:
                group = file.create_group("data")
                group.attrs["num_items"] = len(data)
                first: dict[bytes, int] = {}
                for i, text in enumerate(data):
                    if first.setdefault(text, i) < i:  # a reference to the same string before
                        group[f"data{i}"] = group[f"data{first[text]}"].ref
                        continue
                    letters = np.frombuffer(text, "S1")[None]
                    group.create_dataset(f"data{i}", data=letters).attrs["str_type"] = b"str"
            else:
                file["data"] = data
            file["data"].attrs["base_type"] = base.encode()
            file["data"].attrs["type"] = np.void(b"\x80\x04\x8c\x08builtins\x8c\x04list\x93.")


def _kth_videos(
    persons: Sequence[int],
    actions: Sequence[str],
    ranges: Sequence[tuple[int, int]],
    clips: Clips,
    seed: int,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Actions, and of each a video of each person, by its name."""
    for n, action in enumerate(actions):
        yield (
            action,
            {
                f"person{person:02d}_{action}_d1": _content(
                    clips, k, ranges[-1][1], (120, 160), seed + k
                )
                for k, person in enumerate(persons, start=n * len(persons))
            },
        )


def _content(
    clips: Clips, number: int, frames: int, size: tuple[int, int], seed: int
) -> np.ndarray:
    """A video (frames, H, W, 3) uint8."""
    if not clips:
        return moving_blobs(frames, size, np.random.default_rng(seed))
    clip = clips[number % len(clips)]
    return resize(clip[np.arange(frames) % len(clip)], size)


def _avi(frames: np.ndarray) -> bytes:
    data = encode(frames, "avi", "mpeg4", "yuv420p", fps=25, qmin=2, qmax=2)
    return data.replace(b"FMP4", b"XVID", 2)  # FFmpeg signs MPEG-4 with its own name


def _ranges(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """First and last frames of sub-sequences, counted from 1."""
    out, first = [], 1
    for length in lengths:
        out.append((first, first + length - 1))
        first += length + 5
    return out


def _with_sequences(
    directory: Path,
    persons: Sequence[int],
    actions: Sequence[str],
    ranges: Sequence[tuple[int, int]],
    wanted: bool,
) -> Path:
    """Write ``00sequences.txt``, if it is wanted; return the directory."""
    frames = ", ".join(f"{a}-{b}" for a, b in ranges)
    lines = [f"person{p:02d}_{a}_d1\t\tframes\t{frames}" for a in actions for p in persons]
    head = "\nTraining:   person11, 12, 13, 14, 15, 16, 17, 18\n\n\n"
    missing = "person13_handclapping_d3\t*missing*\n"
    if wanted:
        (directory / "00sequences.txt").write_text(head + "\n".join(lines) + f"\n{missing}")
    return directory


def _write_tree(
    directory: Path,
    files: Mapping[str, bytes],
    archive: str | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if archive is not None:
        with zipfile.ZipFile(directory / archive, "w", compression) as file:
            for name, data in files.items():
                file.writestr(name, data)
        return
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
