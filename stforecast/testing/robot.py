"""Files in RoboNet's and BridgeData's genuine formats, filled with moving blobs or clips of yours.

Trajectories are numbered so that the split by name (:func:`stforecast.datasets.robot.part_of`) puts
as many into each part as asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from ..datasets.robot import part_of
from .encode import encode_jpeg, encode_mp4, moving_blobs

_SESSION = "2022-01-01_00-00-00"


def write_robonet(
    directory: str | os.PathLike[str],
    *,
    train: int = 4,
    validation: int = 2,
    test: int = 2,
    frames: int = 14,
    shape: tuple[int, int] = (60, 80),
    cameras: int = 1,
    encoding: str = "mp4",
    clips: Sequence[np.ndarray] | None = None,
    seed: int = 0,
) -> Path:
    """Write trajectory files as RoboNet publishes them: ``berkeley_sawyer_traj0.hdf5`` and so on.

    Parameters
    ----------
    directory : path-like
    train, validation, test : int
        Trajectories in each part of the split by name.
    frames : int
        Of each trajectory.
    shape : (int, int)
        Height and width; even, for the video codec.
    cameras : int
    encoding : {"mp4", "jpg"}
        One H.264 video a camera, as published, or one JPEG a frame, as the owners' tool converts.
    clips : sequence of ndarray of shape (T, H, W, 3), uint8, optional
        Content in turns, in place of moving blobs; `frames` and `shape` are then theirs.
    seed : int

    Returns
    -------
    Path
        The directory.
    """
    import h5py

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    content = _content(clips, frames, shape, rng)
    wanted = {"train": train, "validation": validation, "test": test}
    for name in _names("berkeley_sawyer_traj{}.hdf5", wanted, lambda name: name):
        with h5py.File(directory / name, "w") as file:
            file.create_dataset("file_version", data="0.1.0")
            env = file.create_group("env")
            env.attrs["n_cams"], env.attrs["cam_encoding"] = cameras, encoding
            for camera in range(cameras):
                video = next(content)
                group = env.create_group(f"cam{camera}_video")
                if encoding == "mp4":
                    encoded = {"frames": encode_mp4(video)}
                else:
                    encoded = {f"frame{t}": encode_jpeg(image) for t, image in enumerate(video)}
                for key, data in encoded.items():
                    made = group.create_dataset(key, data=np.frombuffer(data, np.uint8))
                    made.attrs["shape"] = video[0].shape
                    made.attrs["image_format"] = "RGB" if encoding == "mp4" else "BGR"
                if encoding == "mp4":
                    made.attrs["T"] = len(video)
            env.create_dataset("state", data=rng.random((len(video), 5)))
            file.create_dataset("policy/actions", data=rng.random((len(video) - 1, 4)))
            file.create_group("misc")
            file.create_group("metadata").attrs.update(robot="sawyer", camera_type="synthetic")
    return directory


def write_bridgedata(
    directory: str | os.PathLike[str],
    *,
    train: int = 4,
    validation: int = 2,
    test: int = 2,
    frames: int = 14,
    shape: tuple[int, int] = (60, 80),
    cameras: int = 1,
    clips: Sequence[np.ndarray] | None = None,
    seed: int = 0,
) -> Path:
    """Write BridgeData's raw tree of images.

    Parameters
    ----------
    directory : path-like
        Gets ``toykitchen2/set_table/00/2022-01-01_00-00-00/raw/traj_group0/traj0/images0/
        im_0.jpg`` and so on.
    train, validation, test, frames, shape, cameras, clips, seed
        As in :func:`write_robonet`.

    Returns
    -------
    Path
        The directory.
    """
    directory = Path(directory)
    task = directory / "toykitchen2" / "set_table" / "00"
    rng = np.random.default_rng(seed)
    content = _content(clips, frames, shape, rng)
    group = f"{_SESSION}/raw/traj_group0"
    wanted = {"train": train, "validation": validation, "test": test}
    for name in _names("traj{}", wanted, lambda name: f"{group}/{name}"):
        for camera in range(cameras):
            images = task / group / name / f"images{camera}"
            images.mkdir(parents=True)
            for t, image in enumerate(next(content)):
                (images / f"im_{t}.jpg").write_bytes(encode_jpeg(image))
    return directory


def _names(form: str, wanted: dict[str, int], key: Callable[[str], str]) -> list[str]:
    """Numbered names, the first ones that put as many into each part as wanted."""
    found: list[str] = []
    left = dict(wanted)
    for i in count():
        if not any(n > 0 for n in left.values()):
            return found
        name = form.format(i)
        part = part_of(key(name))
        if left.get(part, 0) > 0:
            left[part] -= 1
            found.append(name)
    raise AssertionError("count() does not end")


def _content(
    clips: Sequence[np.ndarray] | None,
    frames: int,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Videos (T, H, W, 3) uint8: those given, in turns, or new ones for ever."""
    for i in count():
        yield clips[i % len(clips)] if clips else moving_blobs(frames, shape, rng)
