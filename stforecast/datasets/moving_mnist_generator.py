"""The generator of Moving MNIST: digits that move in straight lines and bounce off the border.

Needs numpy only, so that a training loop can call it without labels, stores or dask:

>>> from stforecast.datasets.moving_mnist_generator import generate, load_digits
>>> images = load_digits("mnist/", "train")  # doctest: +SKIP
>>> generate(images, range(16), seed=0).shape  # doctest: +SKIP
(16, 20, 64, 64)
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np

from ..errors import InputError
from .limits import refuse_claim

Split = Literal["train", "validation", "test"]
#: Second half of the Philox key: the splits' sequences have nothing in common.
SPLITS: dict[str, int] = {"train": 0, "validation": 1, "test": 2}
#: Images at the end of the training file that make up the validation digits.
VALID_DIGITS = 5_000
#: Of the free range, in one time step.
STEP = 0.1

_FILES = {"train": "train-images", "validation": "train-images", "test": "t10k-images"}
_BELOW = ("", "raw", "MNIST/raw")  # where a downloader may have put the files
_MAX_BYTES = 2**31
_BLOCK = 64  # sequences drawn at once: 5 MB, which stays in the cache


def generate(
    images: np.ndarray,
    indices: Sequence[int] | np.ndarray | range,
    *,
    seed: int = 0,
    split: Split = "train",
    digits: int = 2,
    steps: int = 20,
    size: int = 64,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Draw sequences of bouncing digits.

    Sequence i is a pure function of (`seed`, `split`, i, `digits`) and the images: which others are
    drawn with it, or before it, does not matter. Digit j of it takes the four numbers of block
    ``i * digits + j`` of numpy's Philox under the key (seed, number of the split): x, y, angle,
    image.

    Parameters
    ----------
    images : numpy.ndarray of uint8, shape (N, h, w)
        To choose from, see :func:`load_digits`.
    indices : sequence of int
        Numbers of the sequences, from 0; runs of neighbours are quickest.
    seed : int
        From 0 to 2**64 - 1.
    split : {"train", "validation", "test"}
    digits : int
        In a frame; overlapping ones are merged by the pixelwise maximum.
    steps, size : int
        Frames in a sequence, height and width of a frame.
    out : numpy.ndarray, optional
        Written to and returned, instead of a new array.

    Returns
    -------
    numpy.ndarray of uint8, shape (n, steps, size, size)

    Raises
    ------
    InputError
        If an argument is out of range.
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.dtype != np.uint8 or not images.size:
        raise InputError(
            f"images must be uint8 (N, h, w), found {images.dtype} {images.shape}: load_digits()"
        )
    for name, value, least in (
        ("digits", digits, 1),
        ("steps", steps, 1),
        ("size", size, max(images.shape[1:])),
        ("seed", seed, 0),
    ):
        if value < least:
            raise InputError(f"{name} must be at least {least}, found {value}")
    if seed >= 2**64:
        raise InputError(f"seed must be below 2**64, found {seed}")
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, found {split!r}")
    chosen = np.asarray(indices, dtype=np.int64)
    if chosen.ndim != 1 or (chosen < 0).any():
        raise InputError("indices must be a list of whole numbers from 0")
    shape = (len(chosen), steps, size, size)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise InputError(f"out must be contiguous uint8 {shape}, found {out.dtype} {out.shape}")
    for start in range(0, len(chosen), _BLOCK):
        block = slice(start, start + _BLOCK)
        x, y, turn, which = np.moveaxis(
            uniform_draws(chosen[block], seed, SPLITS[split], digits), -1, 0
        )
        paths = trajectories(x, y, 2 * math.pi * turn, steps)
        render(images, (which * len(images)).astype(np.int64), paths, out[block])
    return out


def trajectories(
    x: np.ndarray, y: np.ndarray, angle: np.ndarray, steps: int, *, step: float = STEP
) -> np.ndarray:
    """Follow points that bounce in the unit square: (y, x) from 0 to 1, float64 (..., steps, 2).

    A point starts at (x, y) with the velocity ``step * (cos(angle), sin(angle))``. It moves first
    and is noted then; where it reaches or passes a border it is set on the border, and that
    component of its velocity is reversed.

    Examples
    --------
    >>> import numpy as np
    >>> trajectories(np.array(0.85), np.array(0.5), np.array(0.0), 4)[:, 1].round(2).tolist()
    [0.95, 1.0, 0.9, 0.8]
    """
    place = np.stack(np.broadcast_arrays(y, x), axis=-1).astype(np.float64)
    velocity = np.stack(np.broadcast_arrays(np.sin(angle), np.cos(angle)), axis=-1)
    path = np.empty((*place.shape[:-1], steps, 2))
    for k in range(steps):
        place = place + velocity * step
        velocity = np.where((place <= 0) | (place >= 1), -velocity, velocity)
        place = place.clip(0, 1)
        path[..., k, :] = place
    return path


def render(images: np.ndarray, which: np.ndarray, paths: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Draw digits along their paths: overwrite `out`, contiguous uint8 (n, steps, H, W).

    `which` (n, digits) is the number of each digit in `images` (N, h, w); `paths`
    (n, digits, steps, 2) are scaled to the free range in pixels and cut to whole ones.
    """
    n, steps, *frame = out.shape
    out[...] = 0
    frames = out.reshape(n * steps, *frame)
    patch = images.shape[1:]
    windows = np.lib.stride_tricks.sliding_window_view(
        frames, patch, axis=(1, 2), writeable=True
    )  # (frame, top, left, h, w): every place a digit can be
    free = np.array(frame) - patch
    every = np.arange(n * steps)
    for j in range(which.shape[1]):
        top, left = (free * paths[:, j]).astype(np.int64).reshape(-1, 2).T
        drawn = np.repeat(images[which[:, j]], steps, axis=0)
        if j:
            np.maximum(drawn, windows[every, top, left], out=drawn)
        windows[every, top, left] = drawn
    return out


def uniform_draws(indices: np.ndarray, seed: int, stream: int, digits: int) -> np.ndarray:
    """Draw the numbers that sequences are made of: float64 (n, digits, 4) in [0, 1).

    `seed` and `stream` are the two halves of the Philox key; each digit takes a block.
    """
    out = np.empty((len(indices), digits, 4))
    bits = np.random.Philox(counter=0, key=np.array([seed, stream], np.uint64))
    state = bits.state
    ends = np.flatnonzero(np.diff(indices) != 1) + 1
    for start, stop in zip([0, *ends], [*ends, len(indices)], strict=True):
        if stop > start:
            state["state"]["counter"][0] = int(indices[start]) * digits
            bits.state = state  # five times quicker than a new Philox
            raw = cast(np.ndarray, bits.random_raw((stop - start) * digits * 4))
            out[start:stop] = ((raw >> np.uint64(11)) * 2.0**-53).reshape(-1, digits, 4)
    return out


# --- the digits -----------------------------------------------------------------------------------


def load_digits(directory: str | os.PathLike[str], split: Split = "train") -> np.ndarray:
    """Read the digits of a split from the MNIST files.

    "train": ``train-images-idx3-ubyte`` but for its last 5,000 images; "validation": these; "test":
    ``t10k-images-idx3-ubyte``. So no digit is in two splits. The files lie, as they are or ``.gz``,
    in the directory or in ``raw`` or ``MNIST/raw`` below. Gives uint8 (N, 28, 28).
    """
    return read_idx(find_digits(directory, split))[digits_of(split)]


def digits_of(split: str) -> slice:
    """Which images of its file belong to a split."""
    parts = {"train": slice(None, -VALID_DIGITS), "validation": slice(-VALID_DIGITS, None)}
    return parts.get(split, slice(None))


def find_digits(directory: str | os.PathLike[str], split: str) -> Path:
    """Find the file with the digits of a split; see :func:`load_digits`."""
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, found {split!r}")
    root, stem = Path(directory).expanduser(), _FILES[split]
    names = [f"{stem}{dot}idx3-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    for place in (root / below for below in _BELOW):
        for name in names:
            if (place / name).is_file():
                return place / name
    state = "no such directory" if not root.is_dir() else f"no {names[0]}[.gz] in it"
    raise InputError(f"{root}: {state}; give the directory with the four MNIST files, as published")


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file of images, plain or gzipped: uint8 (N, h, w).

    Source: Y. LeCun, C. Cortes, C. Burges: "The MNIST database of handwritten digits", section on
    the file formats.
    """
    shape = idx_shape(path)
    expected = math.prod(shape)
    refuse_claim(path, expected, os.stat(path).st_size)
    try:
        with _open(path) as file:
            file.read(16)
            data = file.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read to its end ({error}): it is truncated or damaged. "
            "Copy or download it again"
        ) from error
    if len(data) != expected:
        what = f"only {len(data)}" if len(data) < expected else "more"
        raise InputError(
            f"{path}: its header says {shape[0]} images of {shape[1]} x {shape[2]}, "
            f"{expected} bytes, and it holds {what}. Copy or download it again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def idx_shape(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Read the header of an IDX file of images: (N, h, w)."""
    try:
        with _open(path) as file:
            head = file.read(16)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}). Copy or download it again") from error
    if len(head) < 16 or head[:4] != b"\0\0\x08\x03":
        raise InputError(
            f"{path}: no IDX file of images, it begins with {head[:4].hex(' ') or 'nothing'} and "
            "not with 00 00 08 03 (bytes in three dimensions)"
        )
    n, rows, columns = struct.unpack(">3I", head[4:])
    if not 0 < n * rows * columns < _MAX_BYTES:
        raise InputError(f"{path}: its header says {n} images of {rows} x {columns}: damaged")
    return n, rows, columns


def beginning_of(path: str | os.PathLike[str]) -> bytes:
    """First bytes of a file, plain or gzipped, which tell it from others; none if damaged."""
    with suppress(OSError, EOFError, zlib.error), _open(path) as file:
        return file.read(4096)
    return b""


def _open(path: str | os.PathLike[str]) -> IO[bytes]:
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if zipped else open(path, "rb")
