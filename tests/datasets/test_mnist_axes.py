"""Moving MNIST as other packages keep it: which axis counts steps."""

from __future__ import annotations

import numpy as np
import pytest

from stforecast.datasets.describe import describe
from stforecast.datasets.moving_mnist import open_moving_mnist
from stforecast.errors import InputError
from stforecast.testing.moving_mnist import write_mnist_test_seq


def stored(path, steps_first: bool, sequences: int, steps: int, content: str) -> np.ndarray:
    """Write sequences; they are returned as (sequences, steps, rows, columns)."""
    if content == "digits":
        file = write_mnist_test_seq(path, sequences=sequences, steps=steps)
        frames = np.load(file).swapaxes(0, 1)
    elif content == "greys":  # each sequence has its own
        file = path / "mnist_test_seq.npy"
        grey = np.arange(sequences, dtype=np.uint8)[:, None, None, None]
        frames = np.broadcast_to(grey, (sequences, steps, 64, 64))
    else:
        file = path / "mnist_test_seq.npy"
        frames = np.random.default_rng(0).integers(0, 255, (sequences, steps, 64, 64), np.uint8)
    np.save(file, np.ascontiguousarray(frames.swapaxes(0, 1) if steps_first else frames))
    return frames


@pytest.mark.parametrize("steps_first", [True, False])
@pytest.mark.parametrize(
    ("sequences", "steps", "content"),
    [
        (30, 20, "digits"),
        (7, 20, "noise"),
        (100, 20, "greys"),
        (20, 20, "digits"),
        (20, 20, "greys"),
        (12, 10, "digits"),
        (40, 30, "greys"),
        (1, 20, "digits"),
        (1, 10, "digits"),
    ],
)
def test_steps_are_told_from_sequences(tmp_path, steps_first, sequences, steps, content):
    frames = stored(tmp_path, steps_first, sequences, steps, content)
    ds = open_moving_mnist(tmp_path / "mnist_test_seq.npy", chunks=None)
    found = np.round(ds["intensity"].values * 255).astype(np.uint8)
    np.testing.assert_array_equal(found.reshape(frames.shape), frames)
    assert ds["clip"].values.tolist() == np.repeat(np.arange(sequences), steps).tolist()
    assert (
        f"{sequences} test sequences of {steps} frames"
        in describe(tmp_path / "mnist_test_seq.npy").reason
    )


@pytest.mark.parametrize("steps_first", [True, False])
@pytest.mark.parametrize("sizes", [(20, 20), (12, 10)])
def test_what_does_not_tell_is_asked_for(tmp_path, steps_first, sizes):
    frames = stored(tmp_path, steps_first, *sizes, "noise")
    path = tmp_path / "mnist_test_seq.npy"
    with pytest.raises(InputError, match="do not tell: say it with first='step' or first='seq"):
        open_moving_mnist(path)
    ds = open_moving_mnist(path, first="step" if steps_first else "sequence")
    found = np.round(ds["intensity"].values * 255).astype(np.uint8)
    np.testing.assert_array_equal(found.reshape(frames.shape), frames)
    with pytest.raises(InputError, match="first must be 'step' or 'sequence'"):
        open_moving_mnist(path, first="time")
