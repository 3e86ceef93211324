"""Robot video: RoboNet's trajectory files and BridgeData's image trees, as clips of 120 x 160 RGB.

Both are split by trajectory, by a hash of the trajectory's name: the lists of the published figures
cannot be had in a form that names files, and a hash gives every copy and every part of the data the
same split. 85% train, 5% validate, 10% test.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .backends import PathLike, existing, open_hdf5, stamp
from .clips import Clip, Split, check_split, clip_dataset
from .joining import some
from .limits import missing_numbers, read_whole
from .video import decode_images, decode_video, resize

logger = logging.getLogger(__name__)

#: Called with what resizes frames, start and stop; gives (stop - start, H, W, 3) uint8.
Reader = Callable[[Callable[[np.ndarray], np.ndarray], int, int], np.ndarray]
_CHANNELS = ("red", "green", "blue")
_TRAJECTORY = re.compile(r"traj\d+")
_IMAGE = re.compile(r"im_(\d+)\.jpg")

_ROBONET = {
    "title": "RoboNet: robot arms pushing objects, seen by fixed cameras",
    "source": "RoboNet trajectory files (HDF5)",
    "license": "CC-BY-4.0",
    "references": "Dasari et al. 2019, arXiv:1910.11215; https://www.robonet.wiki",
}
_BRIDGE = {
    "title": "BridgeData V2: a WidowX arm manipulating objects in toy kitchens and on tables",
    "source": "BridgeData V2",
    "license": "CC-BY-4.0",
    "references": "Walke et al. 2023, arXiv:2308.12952; https://rail-berkeley.github.io/bridgedata",
}


@dataclass(frozen=True)
class _Trajectory:
    """A trajectory before anything of it is read."""

    name: str
    path: Path
    part: str  # of the split
    #: Reads what says how long it is. None where the camera asked for did not film it.
    look: Callable[[], tuple[int, Reader] | None]


def part_of(name: str) -> str:
    """Part of the split that a trajectory of this name belongs to: train, validation or test.

    RoboNet: the file's name. BridgeData: the last four parts of the trajectory's path, such as
    ``2022-01-01_00-00-00/raw/traj_group0/traj0``.

    Examples
    --------
    >>> part_of("berkeley_sawyer_traj0.hdf5")
    'validation'
    """
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "test" if share < 0.10 else "validation" if share < 0.15 else "train"


def open_robonet(
    path: PathLike,
    split: Split | None = "train",
    *,
    camera: int = 0,
    steps: int | None = 12,
    size: tuple[int, int] = (120, 160),
    test_files: Sequence[str] | None = None,
    chunks: Any = "auto",
) -> xr.Dataset:
    """Open RoboNet's trajectory files (``.hdf5``) as clips.

    Parameters
    ----------
    path : path-like
        A directory with the files in it or below, or one file.
    split : {"train", "validation", "test"} or None
        Part of the trajectories, by a hash of the file's name: see ``part_of``. None: all.
    camera : int
        Whose video. Robots have different numbers of cameras; trajectories without this one are
        left out, and their number is logged.
    steps : int or None
        Frames of each trajectory, from its first; shorter ones are left out. None: all.
    size : (int, int)
        Height and width of the frames; the genuine ones (240 x 320 mostly) are averaged down.
    test_files : sequence of str, optional
        Names of the test files, where you have a published list: it takes the place of the hash,
        and validation stays a part of the others.
    chunks : {"auto"}, None or mapping
        As in :func:`open_weatherbench`.

    Returns
    -------
    xarray.Dataset
        ``red``, ``green``, ``blue`` (time, y, x) in [0, 1], with ``clip`` and ``step`` along time.
        Opening reads the headers of the files; frames are decoded when used. The files hold no
        times: the step of 1 s is nominal.

    Raises
    ------
    InputError
        If there is no trajectory to open, or a file is truncated or damaged.
    """
    root = existing(path)
    if root.is_file() and root.suffix != ".hdf5":
        raise InputError(
            f"{root}: expected a directory or a file of the kind *.hdf5. Unpack an archive first"
        )
    files = sorted(root.rglob("*.hdf5")) if root.is_dir() else [root]
    if not files:
        raise InputError(f"{root}: no trajectory (*.hdf5) in it or below. Unpack the archive first")
    parts = _listed_parts(root, files, test_files)
    trajectories = [
        _Trajectory(str(f), f, parts(f.name), partial(_look_robonet, f, camera)) for f in files
    ]
    return _open(
        root,
        trajectories,
        split,
        camera,
        steps,
        size,
        listed=test_files is not None,
        timestep="1s",
        attrs=_ROBONET,
        chunks=chunks,
    )


def open_bridgedata(
    path: PathLike,
    split: Split | None = "train",
    *,
    camera: int = 0,
    steps: int | None = 12,
    size: tuple[int, int] = (120, 160),
    chunks: Any = "auto",
) -> xr.Dataset:
    """Open BridgeData (V1 or V2), the raw tree of images, as clips.

    Parameters
    ----------
    path : path-like
        A directory with trajectories anywhere below: ``.../traj0/images0/im_0.jpg``.
    split : {"train", "validation", "test"} or None
        Part of the trajectories, by a hash of the path: see ``part_of``. None: all.
    camera : int
        Which ``images`` directory. Trajectories without it are left out, and their number logged.
    steps, size, chunks
        As in :func:`open_robonet`; the genuine frames have 480 x 640 pixels.

    Returns
    -------
    xarray.Dataset
        As from :func:`open_robonet`, frames 0.2 s apart (the robot is controlled at 5 Hz).

    Raises
    ------
    InputError
        If there is no trajectory to open; if a frame is missing in the middle, is damaged or of
        another size; if all there is is ``out.npy``, as the owners' conversion writes it: it is a
        pickle, which can run code and is never opened.
    """
    root = existing(path)
    found = [root] if root.is_file() else list(_walk(root))
    raw = [p for p in found if _TRAJECTORY.fullmatch(p.name)]
    pickles = [p for p in found if p.name == "out.npy"]
    if not raw:
        raise InputError(
            f"{pickles[0]} is a pickle, which can run code and is never opened here: give the raw "
            "trajectories (traj0/images0/im_0.jpg). If you trust the file, write its images with "
            "numpy and PIL: for i, t in enumerate(np.load(path, allow_pickle=True)): for n, o in "
            "enumerate([*t['observations'], t['next_observations'][-1]]): "
            "Image.fromarray(o['images0']).save(f'traj{i}/images0/im_{n}.jpg'), "
            "after making each directory"
            if pickles
            else f"{root}: no trajectory (traj0/images0/im_0.jpg) in it or below. Unpack an "
            "archive first"
        )
    for pickle in pickles:
        logger.warning("%s is a pickle, which is never opened: it is left unread", pickle)
    trajectories = [
        _Trajectory(
            str(t), t, part_of("/".join(t.absolute().parts[-4:])), partial(_look_raw, t, camera)
        )
        for t in raw
    ]
    return _open(
        root,
        trajectories,
        split,
        camera,
        steps,
        size,
        timestep="200ms",
        attrs=_BRIDGE,
        chunks=chunks,
    )


def recognise(path: Path) -> str | None:
    """Say in one line what a path is, if it is robot video; None if not."""
    if path.is_dir():
        for found in islice(_walk(path), 1000):  # of a great tree, the beginning says enough
            if (line := recognise(found)) is not None:
                return line
            if _TRAJECTORY.fullmatch(found.name) and list(found.glob("images*")):
                return "open_bridgedata: BridgeData, trajectories of JPEG images"
    elif path.suffix == ".hdf5" and path.is_file():
        with suppress(InputError), open_hdf5(path) as file:
            if "env" in file and "policy" in file:
                return "open_robonet: RoboNet, trajectories in HDF5"
    return None


# --- what the two share ---------------------------------------------------------------------------


def _open(
    root: Path,
    trajectories: Sequence[_Trajectory],
    split: str | None,
    camera: int,
    steps: int | None,
    size: tuple[int, int],
    listed: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Choose the trajectories, look how long they are, and make clips of them."""
    check_split(split)
    if steps is not None and steps < 1:
        raise InputError(f"steps must be at least 1, found {steps}")
    chosen = [t for t in trajectories if split in (None, t.part)]
    if not chosen:
        raise InputError(
            f"{root}: none of its {len(trajectories)} trajectories falls into '{split}' (they are "
            "split by a hash of their names): give more of them, or split=None for all"
        )
    clips, blind, short = [], 0, 0
    for trajectory in chosen:
        found = trajectory.look()
        if found is None:
            blind += 1
        elif steps is not None and found[0] < steps:
            short += 1
        else:
            read = partial(found[1], partial(resize, size=size))
            clips.append(Clip(trajectory.name, steps or found[0], read, stamp(trajectory.path)))
    if blind or short:
        left = f"{blind} have no camera {camera}, {short} have fewer than {steps} frames"
        if not clips:
            raise InputError(f"{root}: none of its {len(chosen)} trajectories will do: {left}")
        logger.info("%s: of %d trajectories are left out: %s", root, len(chosen), left)
    told = f"camera {camera}, {steps or 'all'} frames each{', test files listed' * listed}"
    return clip_dataset(clips, _CHANNELS, size, split=split, options=told, **options)


# --- RoboNet --------------------------------------------------------------------------------------


def _listed_parts(
    root: Path, files: Sequence[Path], test_files: Sequence[str] | None
) -> Callable[[str], str]:
    """What gives a file's part of the split, with the user's own list of test files if any."""
    if test_files is None:
        return part_of
    listed = {Path(name).name for name in test_files}
    missing = sorted(listed - {f.name for f in files})
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {len(listed)} test files are not here: {some(missing)}"
        )
    return lambda name: "test" if name in listed else part_of(name).replace("test", "train")


def _look_robonet(path: Path, camera: int) -> tuple[int, Reader] | None:
    """Read how many frames a trajectory has, and how they are encoded."""
    with open_hdf5(path) as file:
        found = (re.fullmatch(r"cam(\d+)_video", name) for name in file.get("env", ()))
        cameras = {int(m[1]) for m in found if m}
        if not cameras:
            raise InputError(f"{path}: no env/cam0_video in it: no trajectory of RoboNet")
        announced = int(file["env"].attrs.get("n_cams", len(cameras)))
        if camera not in cameras:
            if camera < announced:
                raise InputError(
                    f"{path}: env/cam{camera}_video is missing; the file says it has {announced} "
                    "cameras. Get it again"
                )
            return None
        group = file[f"env/cam{camera}_video"]
        if "frames" in group:  # one mp4, as published
            attrs = group["frames"].attrs
            if "T" not in attrs:
                raise InputError(f"{path}: env/cam{camera}_video/frames lacks its attribute T")
            # cv2 gave BGR to some; the published files say RGB.
            order = -1 if attrs.get("image_format", "RGB") == "BGR" else 1
            total, size = int(attrs["T"]), group["frames"].nbytes
            if total > size:
                raise InputError(
                    f"{path}: its attribute T says {total} frames, more than the {size} bytes of "
                    "its video can hold. Get it again"
                )
            return total, partial(_robonet_video, path, camera, total, order)
        numbers = sorted(int(n[5:]) for n in group if re.fullmatch(r"frame\d+", n))
        _refuse_gaps(f"{path}: env/cam{camera}_video", "frame{}", numbers)
        # Whatever image_format says here: cv2.imencode wrote proper JPEG, and it decodes to RGB.
        return len(numbers), partial(_robonet_images, path, camera)


def _robonet_video(
    path: Path, camera: int, total: int, order: int, fit: Callable, start: int, stop: int
) -> np.ndarray:
    with open_hdf5(path) as file:
        encoded = read_whole(path, file[f"env/cam{camera}_video/frames"]).tobytes()

    def turned(frame: np.ndarray) -> np.ndarray:
        return fit(frame[..., ::order])

    frames = decode_video(encoded, start, stop, name=f"{path}: camera {camera}", fit=turned)
    if len(frames) < stop - start:
        raise InputError(
            f"{path}: camera {camera} has {start + len(frames)} frames, expected {total}"
        )
    return frames


def _robonet_images(path: Path, camera: int, fit: Callable, start: int, stop: int) -> np.ndarray:
    with open_hdf5(path) as file:
        group = file[f"env/cam{camera}_video"]
        encoded = [
            (f"{path}: frame{t}", read_whole(path, group[f"frame{t}"]).tobytes())
            for t in range(start, stop)
        ]
    return decode_images(encoded, fit)


# --- BridgeData -----------------------------------------------------------------------------------


def _walk(root: Path) -> Iterator[Path]:
    """Trajectory directories and files below `root`, in order; nothing within trajectories."""
    for directory, below, files in os.walk(root):
        below.sort()
        for name in [n for n in below if _TRAJECTORY.fullmatch(n)]:
            below.remove(name)
            yield Path(directory, name)
        yield from (Path(directory, name) for name in sorted(files))


def _look_raw(path: Path, camera: int) -> tuple[int, Reader] | None:
    """List the images of a trajectory."""
    directory = path / f"images{camera}"
    if not directory.is_dir():
        return None
    numbers = sorted(int(m[1]) for n in os.listdir(directory) if (m := _IMAGE.fullmatch(n)))
    _refuse_gaps(str(directory), "im_{}.jpg", numbers)
    return len(numbers), partial(_raw_images, directory)


def _raw_images(directory: Path, fit: Callable, start: int, stop: int) -> np.ndarray:
    files = [directory / f"im_{t}.jpg" for t in range(start, stop)]
    return decode_images(((str(file), file.read_bytes()) for file in files), fit)


def _refuse_gaps(place: str, form: str, numbers: Sequence[int]) -> None:
    """Refuse frames that are not numbered 0, 1, 2 and so on."""
    if not numbers:
        raise InputError(f"{place} holds no frame ({form.format(0)} and so on)")
    count, missing = missing_numbers(numbers, 0, numbers[-1])
    if missing:
        more = f" and {count - len(missing)} more" if count > len(missing) else ""
        raise InputError(
            f"{place}: {some([form.format(n) for n in missing])}{more} missing; the last is "
            f"{form.format(numbers[-1])}. Get the trajectory again, or move it away"
        )
