"""Moving MNIST: sequences of bouncing digits, drawn when they are read, or from the test file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..conventions.axes import TIME, X, Y
from ..conventions.lazy import LazyArray
from ..conventions.overlap import FINGERPRINT, make_fingerprint
from ..errors import InputError
from .backends import PathLike, stamp
from .clips import clip_times
from .lazy import as_slice, in_chunks
from .limits import refuse_claim, refuse_frames
from .moving_mnist_generator import (
    SPLITS,
    Split,
    beginning_of,
    digits_of,
    find_digits,
    generate,
    idx_shape,
    read_idx,
)
from .numpy_files import npy_header

_SCALE = 1 / 255
_STEPS = 20  # of the published sequences
_STEP = ((1, 0), (0, 1))  # to the next frame along either axis
_ALIKE = 0.8  # the next step differs by at most so much of what another sequence does
_TOGETHER = 32  # sequences held as bytes at once
_ATTRS = {
    "Conventions": "CF-1.11",
    "title": "Moving MNIST: handwritten digits that bounce in a square",
    "license": "CC BY-SA 3.0 (MNIST: Y. LeCun, C. Cortes, C. Burges)",
    "references": "Srivastava, Mansimov, Salakhutdinov 2015 (ICML), arXiv:1502.04681",
}


def open_moving_mnist(
    path: PathLike,
    split: Split | None = None,
    *,
    sequences: int = 10_000,
    digits: int = 2,
    steps: int = 20,
    size: int = 64,
    seed: int = 0,
    first: Literal["step", "sequence"] | None = None,
    chunks: Any = "auto",
) -> xr.Dataset:
    """Open Moving MNIST as clips: from the MNIST files, or the published test sequences.

    Parameters
    ----------
    path : path
        The directory with the four MNIST files (``train-images-idx3-ubyte.gz`` and so on, also
        unzipped), from which sequences are drawn when they are read; or ``mnist_test_seq.npy``
        (20, N, 64, 64), which is mapped; or such a file of (N, 20, 64, 64).
    split : {"train", "validation", "test"}, optional
        Whose digits: "train" (unless given) has the training file's first 55,000, "validation" its
        last 5,000, "test" those of the test file. ``mnist_test_seq.npy`` is "test".
    sequences : int
        How many; of ``mnist_test_seq.npy`` the first of them. The paper trains on 10,000 new ones
        an epoch: ask for 10,000 times the epochs, and train for one.
    digits, steps, size, seed
        As in :func:`stforecast.datasets.moving_mnist_generator.generate`.
        ``mnist_test_seq.npy`` has its own.
    first : {"step", "sequence"}, optional
        What the first axis of an ``.npy`` file counts. Default: the axis of 20 counts steps; where
        none or both have 20, the one along which neighbouring frames are alike.
    chunks : {"auto"}, None or mapping
        As in :func:`stforecast.datasets.open_weatherbench`; ``"auto"`` cuts between sequences.

    Returns
    -------
    xarray.Dataset
        Lazy: ``intensity`` (time, y, x) in [0, 1], sequences one behind the other on one time axis
        (see :mod:`stforecast.datasets.clips`), a second a step. Sequence i is a pure function of
        (seed, split, i).

    Raises
    ------
    InputError
        If a file is missing or its header wrong; on reading, if it is truncated or damaged.
    """
    path = Path(path).expanduser()
    if split not in (None, *SPLITS):
        raise InputError(f"split must be one of {', '.join(SPLITS)}, found {split!r}")
    if sequences < 1:
        raise InputError(f"sequences must be at least 1, found {sequences}")
    read: Callable[[np.ndarray], np.ndarray]
    if path.suffix == ".npy":
        if split not in (None, "test"):
            raise InputError(
                f"{path}: these are test sequences, not for '{split}'; give the directory with the "
                "MNIST files"
            )
        steps, there, size, steps_first = _test_file_shape(path, first)
        sequences = min(sequences, there)
        mapped = partial(np.load, path, mmap_mode="r", allow_pickle=False)
        read = _Read(mapped, partial(_of_file, steps_first)).sequences
        source, file, what = f"{path.name}, {sequences} of {there} sequences", path, ""
    else:
        split = split or "train"
        file = find_digits(path, split)
        _, *patch = idx_shape(file)
        if size < max(patch) or digits < 1 or steps < 1:
            raise InputError(
                f"cannot draw {digits} digits of {patch[0]} x {patch[1]} in {steps} frames of "
                f"{size} x {size}: give a larger size, and at least one digit and step"
            )
        for name, bytes_ in (("steps and size", steps * size**2), ("digits", 32 * digits)):
            refuse_claim(f"{name} of a sequence", _TOGETHER * bytes_, 0)
        options: dict[str, Any] = {
            "seed": seed,
            "split": split,
            "digits": digits,
            "steps": steps,
            "size": size,
        }
        read = _Read(
            partial(_digits, file, digits_of(split)), partial(generate, **options)
        ).sequences
        source = f"drawn from the {split} digits of {file.name}"
        what = ", ".join(f"{k}={v}" for k, v in options.items())
    refuse_frames(f"{path}: {sequences} sequences of {steps}", sequences * steps)
    times, clip, step = clip_times(np.full(sequences, steps), "1s")  # type: ignore[arg-type]
    about = {"units": "1", "long_name": "intensity, 1 is ink"}
    packing = {"dtype": "uint8", "scale_factor": _SCALE}
    lazy = _Sequences(read, sequences, steps, size)
    variable = lazy.variable((TIME, Y, X), about, packing)
    coords = {
        TIME: (TIME, times, {"standard_name": "time", "long_name": "time since the first frame"}),
        Y: (Y, np.arange(size), {"units": "1", "long_name": "pixel row, from the top"}),
        X: (X, np.arange(size), {"units": "1", "long_name": "pixel column, from the left"}),
    }
    attrs = _ATTRS | {"source": source} | ({"comment": what} if what else {})
    # Not of how many: sequence i is the same whatever comes after it.
    told = what or f"{file.name}, {steps} frames of {size} x {size}"
    digest = hashlib.sha256(repr((told, beginning_of(file))).encode()).hexdigest()[:16]
    name = _ATTRS["title"].split(":")[0]
    attrs[FINGERPRINT] = make_fingerprint(name, split or "test", told, f"digest {digest}")
    ds = xr.Dataset({"intensity": variable}, coords, attrs)
    dims, made_of = {d: d for d in (TIME, Y, X)}, (str(file), stamp(file), what, sequences)
    ds = in_chunks(ds, chunks, dims, lambda most: steps * max(1, most // steps), *made_of)
    return ds.assign_coords(  # not in chunks: they are there already
        clip=(TIME, clip, {"long_name": "number of the sequence"}),
        step=(TIME, step, {"long_name": "number of the frame in its sequence"}),
    )


def recognise(path: Path) -> str | None:
    """Say in a line that :func:`open_moving_mnist` reads a path; None where it does not."""
    path = Path(path)
    try:
        if path.suffix == ".npy":
            steps, count, size, _ = _test_file_shape(path)
            return f"open_moving_mnist: {count} test sequences of {steps} frames, {size} x {size}"
        if path.is_dir():
            count = idx_shape(find_digits(path, "train"))[0]
            return f"open_moving_mnist: MNIST, {count} digits in the training file"
    except (InputError, OSError):
        pass
    return None


class _Read:
    """A file, loaded once when the first sequence is made of it; pickled without its content."""

    def __init__(self, load: Callable[[], np.ndarray], make: Callable[..., np.ndarray]) -> None:
        self.load, self.make = load, make

    @cached_property
    def content(self) -> np.ndarray:
        return self.load()

    def sequences(self, numbers: np.ndarray) -> np.ndarray:
        return self.make(self.content, numbers)

    def __getstate__(self) -> dict[str, Any]:
        return {"load": self.load, "make": self.make}


def _digits(file: Path, part: slice) -> np.ndarray:
    images = read_idx(file)[part]
    if not len(images):
        raise InputError(f"{file}: it holds no digit for this split")
    return images


def _of_file(steps_first: bool, frames: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return frames[:, numbers].swapaxes(0, 1) if steps_first else frames[numbers]


def _test_file_shape(path: Path, first: str | None = None) -> tuple[int, int, int, bool]:
    """Steps, sequences, size of a frame, and whether steps are the first axis, by the header.

    The file must be as long as its header says.
    """
    if first not in (None, "step", "sequence"):
        raise InputError(f"first must be 'step' or 'sequence', found {first!r}")
    try:
        with open(path, "rb") as file:
            shape, dtype, fortran, head = npy_header(file, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error
    if len(shape) != 4 or shape[2] != shape[3] or dtype != np.uint8 or fortran or 0 in shape:
        raise InputError(
            f"{path}: {dtype} {shape}, expected uint8 (20, N, 64, 64): steps, sequences, rows, "
            "columns"
        )
    actual, expected = path.stat().st_size, head + math.prod(shape)
    if actual != expected:
        raise InputError(
            f"{path}: {actual} bytes, its header says {expected}: truncated or damaged. "
            "Copy or download it again"
        )
    steps_first = first == "step" if first else _steps_first(path, shape, head)
    steps, sequences = shape[:2] if steps_first else shape[1::-1]
    return steps, sequences, shape[2], steps_first


def _steps_first(path: Path, shape: tuple[int, ...], head: int) -> bool:
    """Tell (steps, sequences) from (sequences, steps): a few frames are read where sizes do not."""
    if (shape[0] == _STEPS) != (shape[1] == _STEPS):
        return shape[0] == _STEPS
    if shape[1] == 1:
        return True
    if shape[0] == 1:
        return False
    frames = np.memmap(path, np.uint8, "r", head, shape)
    places = np.linspace(0, min(shape[:2]) - 2, 8).astype(int)
    a = np.array([frames[i, i] for i in places], int)
    along = [np.abs(np.array([frames[i + j, i + k] for i in places]) - a).mean() for j, k in _STEP]
    if min(along) > _ALIKE * max(along):
        raise InputError(
            f"{path}: {shape} may be (steps, sequences, ...) or (sequences, steps, ...), and its "
            "frames do not tell: say it with first='step' or first='sequence'"
        )
    return along[0] < along[1]


class _Sequences(LazyArray):
    """Sequences of one length one behind the other: (time, y, x) float32 in [0, 1]."""

    def __init__(
        self, read: Callable[[np.ndarray], np.ndarray], sequences: int, steps: int, size: int
    ) -> None:
        self.read, self.steps = read, steps
        self.shape = (sequences * steps, size, size)
        self.dtype = np.dtype(np.float32)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        along, rows, columns = key
        if isinstance(along, slice):  # an index of all frames would be large
            along = np.arange(*along.indices(self.shape[0]))
        wanted = np.asarray(along) % self.shape[0]
        numbers, which = np.unique(wanted // self.steps, return_inverse=True)
        out = np.empty((len(wanted), *self.shape[1:]), np.float32)[:, rows][..., columns]
        for start in range(0, len(numbers), _TOGETHER):
            frames = self.read(numbers[start : start + _TOGETHER])
            here = as_slice(np.flatnonzero((which >= start) & (which < start + _TOGETHER)))
            chosen = as_slice((which[here] - start) * self.steps + wanted[here] % self.steps)
            bytes_ = frames.reshape(-1, *frames.shape[2:])[chosen][:, rows][..., columns]
            target = out[here]  # a view, where frames are asked for in order
            # In float64, rounded once: so the bytes can be had back from the product.
            np.multiply(bytes_, np.float64(_SCALE), out=target, casting="unsafe")
            if not isinstance(here, slice):
                out[here] = target
        return out
