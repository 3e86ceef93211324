"""MNIST and Moving MNIST in their genuine formats, with synthetic content."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np


def make_digits(count: int, size: int = 28, seed: int = 0) -> np.ndarray:
    """Make images like digits: rings of different widths and heights, dark at the border.

    Parameters
    ----------
    count, size, seed : int

    Returns
    -------
    numpy.ndarray of uint8, shape (count, size, size)
    """
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) / (size - 1) * 2 - 1
    tall, wide = rng.uniform(0.3, 0.7, (2, count, 1, 1))
    radius = np.hypot(y / tall, x / wide)
    return (255 * np.exp(-(((radius - 1) / 0.3) ** 2))).round().astype(np.uint8)


def write_mnist(
    directory: Path,
    *,
    train: int = 5_040,
    test: int = 20,
    zipped: bool = True,
    seed: int = 0,
) -> Path:
    """Write the two IDX files of images, as MNIST is published.

    Parameters
    ----------
    directory : Path
        Made if it is not there.
    train, test : int
        Numbers of images; the last 5,000 of training are for validation.
    zipped : bool
        ``.gz``.
    seed : int

    Returns
    -------
    Path
        `directory`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for stem, count, start in (("train", train, seed), ("t10k", test, seed + 1)):
        # A few images, repeated: the file is small.
        images = np.resize(make_digits(min(count, 40), seed=start), (count, 28, 28))
        data = struct.pack(">4I", 0x803, *images.shape) + images.tobytes()
        path = directory / f"{stem}-images-idx3-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(data, 1) if zipped else data)
    return directory


def write_mnist_test_seq(
    directory: Path, *, sequences: int = 6, steps: int = 20, size: int = 64, seed: int = 0
) -> Path:
    """Write ``mnist_test_seq.npy``: uint8 (steps, sequences, rows, columns).

    Parameters
    ----------
    directory : Path
        Made if it is not there.
    sequences, steps, size, seed : int

    Returns
    -------
    Path
        The file.
    """
    from ..datasets.moving_mnist_generator import generate

    directory.mkdir(parents=True, exist_ok=True)
    images = make_digits(40, seed=seed)
    drawn = generate(images, range(sequences), seed=seed, split="test", steps=steps, size=size)
    np.save(directory / "mnist_test_seq.npy", drawn.swapaxes(0, 1).copy())
    return directory / "mnist_test_seq.npy"
