"""Small genuine files of KTH, KITTI and Caltech Pedestrian for the tests."""

from __future__ import annotations

import numpy as np
import pytest

from stforecast.testing.encode import moving_blobs
from stforecast.testing.video import (
    write_kth,
    write_kth_frames,
)

av = pytest.importorskip("av", reason="needs the extra 'video'")

LUMA = np.array([0.299, 0.587, 0.114])


def blobs(frames, shape, seed=0):
    return moving_blobs(frames, shape, np.random.default_rng(seed))


def colours(ds):
    """(T, H, W, 3) in 0 to 255."""
    return 255 * np.stack([ds[name].values for name in ("red", "green", "blue")], axis=-1)


def small_kth(directory, **options):
    return write_kth(directory, **({"actions": ["boxing"], "lengths": (6, 5)} | options))


def small_kth_frames(directory, **options):
    return write_kth_frames(directory, **({"actions": ["boxing"], "lengths": (4, 3)} | options))


def _put(path, data):
    path.write_bytes(data)
    return path


def _patch(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)
