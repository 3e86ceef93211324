"""Traffic flows on city grids: TaxiBJ (Beijing) and its cousins from New York.

Canonical form: ``inflow`` and ``outflow`` (time, y, x), vehicles that enter and leave a cell in the
slot, mostly half an hour, which begins at ``time``. Times are local and naive, as the owners give
them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .backends import PathLike, existing, stamp
from .clips import Clip, Split, check_split, clip_dataset
from .flow_files import CHANNELS, label_flows, open_taxibj_file, slot_name
from .joining import some
from .limits import open_zip
from .new_york import city_of, open_nyc_flow
from .numpy_files import NpzMember
from .periods import select_period, when

__all__ = ["FlowScale", "open_nyc_flow", "open_taxibj", "recognise"]

_WEEKS = 4  # of test, and of validation before it
_BJ_FILE = re.compile(r"(BJ|NYC)\d\d_M\d+x\d+_T\d+_(InOut|NewEnd)\.h5")
_NPZ = "dataset.npz"
_NPZ_KEYS = ("X_train", "Y_train", "X_test", "Y_test")
_NPZ_VALID = 0.1
_TAXIBJ = {
    "Conventions": "CF-1.11",
    "title": "TaxiBJ: flows of taxis in Beijing, 32 x 32 cells, every half hour",
    "license": "not stated by the owners, who ask to be cited",
    "references": "Zhang, Zheng, Qi 2017 (AAAI), arXiv:1610.00081",
}


def open_taxibj(
    path: PathLike,
    split: Split | None = None,
    *,
    slots: int | None = None,
    chunks: Any = "auto",
) -> xr.Dataset:
    """Open TaxiBJ: the owners' HDF5 files, or the authors' ``dataset.npz``; BikeNYC as well.

    Parameters
    ----------
    path : path
        The directory with ``BJ13_M32x32_T30_InOut.h5`` to ``BJ16...``, or one of these; or
        ``dataset.npz``, or its directory.
    split : {"train", "validation", "test"}, optional
        Part to open; all of it unless given. For HDF5 these are the periods in the attributes.
    slots : int, optional
        Slots in a day of the HDF5 files, 48 for half hours. Default: what the files' names and
        dates say (``T30``, ``T60``: minutes in a slot).
    chunks : {"auto"}, None or mapping
        As in :func:`stforecast.datasets.open_weatherbench`.

    Returns
    -------
    xarray.Dataset
        Lazy: ``inflow`` and ``outflow`` (time, y, x). HDF5: taxis per half hour, or per slot of
        another length (BikeNYC: bicycles per hour); slot 01 of a date begins at midnight. Missing
        slots stay missing (windows do not cross them; no day is left out for being incomplete), as
        does the time between the files' periods. ``dataset.npz``: its windows have no dates and are
        scaled to [-1, 1] already; they become clips of 8 steps, one behind the other on a time axis
        that counts from 1970.

    Raises
    ------
    InputError
        If a file is missing, truncated, damaged or of another form; if dates cannot be read, are
        out of order or occur twice.

    Notes
    -----
    ``attrs["test_period"]`` is the last four weeks (of BJ16, in the whole), as in ST-ResNet's
    protocol; ``validation_period`` is the four weeks before, ``train_period`` all that comes before
    those. ``dataset.npz`` has no validation part: the last tenth of its training windows makes one,
    and the windows that share steps with it are in neither.
    """
    path = existing(path)
    check_split(split)
    if path.suffix == ".npz":
        return _open_windows(path, split, chunks)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if _BJ_FILE.fullmatch(p.name))
        if not files and (path / _NPZ).is_file():
            return _open_windows(path / _NPZ, split, chunks)
        if not files:
            raise InputError(
                f"{path}: no BJ13_M32x32_T30_InOut.h5 to BJ16... and no {_NPZ} in it; found "
                f"{some(sorted(p.name for p in path.iterdir())) or 'nothing'}"
            )
    else:
        files = [path]
    if slots is not None and (slots < 1 or 24 * 60 % slots):
        raise InputError(f"slots must divide the minutes of a day, as 24, 48 or 96, found {slots}")
    opened = sorted((open_taxibj_file(file, slots) for file in files), key=lambda pair: pair[1][0])
    parts, times = [part for part, _ in opened], [t for _, t in opened]
    for a, b, before, after in zip(parts[:-1], parts[1:], times[:-1], times[1:], strict=True):
        if after[0] <= before[-1]:
            raise InputError(
                f"{a.path} (to {when(before[-1])}) and {b.path} (from {when(after[0])}) overlap: "
                "leave one of them out"
            )
    whole = np.concatenate(times)
    bikes = all(p.path.name.startswith("NYC") for p in parts)
    name, city, noun = (
        ("BikeNYC", "New York", "bicycles") if bikes else ("TaxiBJ", "Beijing", "taxis")
    )
    rows, columns = parts[0].shape[2:]
    attrs = _TAXIBJ | {
        "title": f"{name}: flows of {noun} in {city}, {rows} x {columns} cells, every "
        f"{slot_name(parts[0].slots)}",
        "source": f"{name}, {some(p.path.name for p in parts)}",
        **_last_weeks(whole),
    }
    ds = label_flows(parts, whole, chunks, attrs, noun)
    if split is None:
        return ds
    if f"{split}_period" not in attrs:
        raise InputError(f"{path}: {when(whole[0])} to {when(whole[-1])} is too short for a split")
    return select_period(ds, attrs[f"{split}_period"])


@dataclass(frozen=True)
class FlowScale:
    """Scale flows linearly to a fixed range, by the extremes of the training period.

    The paper's protocol: [-1, 1] over all cells, both flows and the whole training period together,
    then [0, 1], in which its figures are.

    Parameters
    ----------
    low, high : float
        Smallest and largest flow; see :meth:`of`.

    Examples
    --------
    >>> from stforecast.datasets.flow import FlowScale
    >>> scale = FlowScale(0.0, 1250.0)
    >>> scale.scale(625.0), scale.scale(625.0, to=(-1, 1)), scale.restore(0.5)
    (0.5, 0.0, 625.0)
    """

    low: float
    high: float

    @classmethod
    def of(cls, train: xr.Dataset) -> FlowScale:
        """Take the extremes of `train`: of the training period only, nothing is selected here."""
        flows = train[[v for v in CHANNELS if v in train]]
        low, high = (getattr(flows, k)().to_dataarray() for k in ("min", "max"))
        limits = float(low.min()), float(high.max())
        if not limits[0] < limits[1]:
            raise InputError(f"flows from {limits[0]} to {limits[1]} cannot be scaled")
        return cls(*limits)

    def scale(self, flows: Any, to: tuple[float, float] = (0.0, 1.0)) -> Any:
        """Bring flows linearly from [low, high] to another range.

        Parameters
        ----------
        flows : Dataset, array or number
            Lazy stays lazy. Variables beside inflow and outflow, the weather say, stay as they are.
        to : (float, float)
            The range.

        Returns
        -------
        As `flows`
        """
        return self._linear(flows, (self.low, self.high), to)

    def restore(self, scaled: Any, to: tuple[float, float] = (0.0, 1.0)) -> Any:
        """Undo :meth:`scale`, of forecasts too; parameters as of :meth:`scale`."""
        return self._linear(scaled, to, (self.low, self.high))

    @staticmethod
    def _linear(x: Any, source: tuple[float, float], target: tuple[float, float]) -> Any:
        if isinstance(x, xr.Dataset):
            names: list[Any] = [v for v in CHANNELS if v in x] or list(x)
            return x.assign({v: FlowScale._linear(x[v], source, target) for v in names})
        factor = (target[1] - target[0]) / (source[1] - source[0])
        with xr.set_options(keep_attrs=True):
            return (x - source[0]) * factor + target[0]


def recognise(path: Path) -> str | None:
    """Say which of this module's openers reads a path, in a line; None where none does."""
    path = Path(path)
    try:
        if path.is_dir():
            files = sorted(p.name for p in path.iterdir() if _BJ_FILE.fullmatch(p.name))
            if files:
                return f"open_taxibj: TaxiBJ, {len(files)} HDF5 files, {files[0]} to {files[-1]}"
            if (path / _NPZ).is_file():
                return recognise(path / _NPZ)
            city = city_of(path)
            return f"open_nyc_flow: flows in New York ({city})" if city else None
        if path.suffix == ".npz":
            with open_zip(path) as file:
                if {f"{k}.npy" for k in _NPZ_KEYS} <= set(file.namelist()):
                    return "open_taxibj: TaxiBJ as the authors' code has it, scaled windows"
            return None
        if path.suffix == ".h5":
            part, times = open_taxibj_file(path)
            unit = slot_name(part.slots)
            return f"open_taxibj: TaxiBJ, {len(times)} steps of one {unit} from {when(times[0])}"
    except (InputError, OSError, zipfile.BadZipFile):
        pass
    return None


def _last_weeks(times: np.ndarray) -> dict[str, str]:
    """Periods of the protocol; none where the data are too short for them."""
    first, last = times[0].astype("datetime64[D]"), times[-1].astype("datetime64[D]")
    week = np.timedelta64(7 * _WEEKS, "D")
    test, valid = last - week + 1, last - 2 * week + 1
    if valid <= first:
        return {}
    return {
        "train_period": f"{first}/{valid - 1}",
        "validation_period": f"{valid}/{test - 1}",
        "test_period": f"{test}/{last}",
    }


def _open_windows(path: Path, split: Split | None, chunks: Any) -> xr.Dataset:
    """Windows of the authors' ``dataset.npz``, as clips."""
    arrays = {key: NpzMember(path, key) for key in _NPZ_KEYS}
    shape = arrays["X_train"].shape
    rows, columns = shape[3:5] if len(shape) == 5 else (0, 0)
    for (kx, x), (ky, y) in (list(arrays.items())[i : i + 2] for i in (0, 2)):
        good = len(x.shape) == len(y.shape) == 5 and x.shape[0] == y.shape[0] > 0
        if not good or {x.shape[2:], y.shape[2:]} != {(2, rows, columns)}:
            raise InputError(
                f"{path}: {kx} is {x.shape} and {ky} {y.shape}, expected (N, 4, 2, 32, 32) for both"
            )
    n = arrays["X_train"].shape[0]
    steps = arrays["X_train"].shape[1] + arrays["Y_train"].shape[1]
    valid = round(n * _NPZ_VALID)
    ranges: dict[str, Iterable[tuple[str, int]]] = {
        "train": (("train", i) for i in range(n - valid - (steps - 1 if valid else 0))),
        "validation": (("train", i) for i in range(n - valid, n)),
        "test": (("test", i) for i in range(arrays["X_test"].shape[0])),
    }
    wanted = ranges[split] if split else [("train", i) for i in range(n)] + list(ranges["test"])
    clips, changed = [], stamp(path)
    for part, i in wanted:
        x, y = arrays[f"X_{part}"], arrays[f"Y_{part}"]
        length = x.shape[1] + y.shape[1]
        read = partial(_window, x, y, i)
        clips.append(Clip(f"{path}: {part} window {i}", length, read, changed))
    if not clips:
        raise InputError(f"{path}: its {n} training windows are too few for a part '{split}'")
    attrs = _TAXIBJ | {
        "source": f"TaxiBJ, {path.name} of the authors' public code",
        "comment": "scaled to [-1, 1] by its makers; the windows have no dates",
    }
    ds = clip_dataset(
        clips,
        CHANNELS,
        (rows, columns),
        timestep="30min",
        attrs=attrs,
        chunks=chunks,
        split=split,
    )
    for name, verb in zip(CHANNELS, ("entering", "leaving"), strict=True):
        ds[name].attrs |= {"units": "1", "long_name": f"taxis {verb} the cell, scaled to [-1, 1]"}
        ds[name].encoding = {}  # these are no bytes
    return ds


def _window(x: NpzMember, y: NpzMember, i: int, start: int, stop: int) -> np.ndarray:
    frames = np.concatenate([x.array[i], y.array[i]])[start:stop]
    return np.moveaxis(frames, 1, -1).astype(np.float32, copy=False)
