"""Traffic flows in the genuine formats of TaxiBJ and its cousins, with synthetic content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_STARTS = {"13": "2013-07-01", "14": "2014-03-01", "15": "2015-03-01", "16": "2015-11-01"}


def make_flow(times: pd.DatetimeIndex, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Make flows of a city: a centre, a daily cycle, quiet weekends, and days that differ.

    Parameters
    ----------
    times : pandas.DatetimeIndex
    shape : tuple of int
        Rows and columns.
    seed : int

    Returns
    -------
    numpy.ndarray of float32, shape (N, 2, rows, columns)
        Whole numbers; inflow, then outflow, which is half an hour ahead.
    """
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(-1, 1, n) for n in shape)
    city = 100 * np.exp(-2 * (y[:, None] ** 2 + (x - 0.2) ** 2))
    hour = times.hour.to_numpy() + times.minute.to_numpy() / 60
    quiet = np.where(times.day_of_week.to_numpy() < 5, 1.0, 0.6)
    day = times.normalize().factorize()[0]
    busy = 1 + 0.2 * rng.standard_normal(day.max() + 1)[day]
    cycle = [1 + np.sin((hour + ahead - 9) / 12 * np.pi) for ahead in (0, 0.5)]
    mean = np.stack(cycle, 1)[:, :, None, None] * (quiet * busy.clip(0.3))[:, None, None, None]
    return rng.poisson(mean * city).astype(np.float32)


def write_taxibj(
    directory: Path,
    *,
    days: Sequence[int] = (8, 8, 8, 60),
    shape: tuple[int, int] = (8, 8),
    slots: Sequence[int] = range(15, 27),
    missing: Sequence[int] = (30,),
    seed: int = 0,
) -> Path:
    """Write ``BJ13_M32x32_T30_InOut.h5`` to ``BJ16...``, as the owners of TaxiBJ publish them.

    Parameters
    ----------
    directory : Path
        Made if it is not there.
    days : sequence of int
        In each file, from the genuine first dates; the default is long enough for the split.
    shape : tuple of int
        Rows and columns; the genuine files have 32 x 32.
    slots : sequence of int
        Half hours that a day has, of 01 to 48. Genuine days may be incomplete, too.
    missing : sequence of int
        Steps to leave out of each file.
    seed : int

    Returns
    -------
    Path
        `directory`.
    """
    import h5py

    directory.mkdir(parents=True, exist_ok=True)
    for (year, start), length in zip(_STARTS.items(), days, strict=False):
        dates = pd.date_range(start, periods=length)
        text = [f"{d:%Y%m%d}{slot:02d}" for d in dates for slot in slots]
        times = [d + pd.Timedelta(minutes=30 * (slot - 1)) for d in dates for slot in slots]
        keep = np.setdiff1d(np.arange(len(text)), missing)
        flow = make_flow(pd.DatetimeIndex(times), shape, seed + int(year))
        with h5py.File(directory / f"BJ{year}_M32x32_T30_InOut.h5", "w") as file:
            file["data"] = flow[keep]
            file["date"] = np.array(text, dtype="S10")[keep]
    return directory


def write_taxibj_npz(
    directory: Path,
    *,
    windows: int = 40,
    shape: tuple[int, int] = (8, 8),
    compressed: bool = False,
    seed: int = 0,
) -> Path:
    """Write ``dataset.npz``, as the authors' public code reads it: windows in [-1, 1].

    Parameters
    ----------
    directory, shape, seed
        As in :func:`write_taxibj`.
    windows : int
        For training; a quarter as many for the test.
    compressed : bool

    Returns
    -------
    Path
        The file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    test = windows // 4
    flow = make_flow(pd.date_range("2013-07-01", periods=windows + test + 14, freq="30min"), shape)
    scaled = np.float32(2) * flow / flow.max() - np.float32(1)
    arrays: dict[str, Any] = {}
    for part, starts in (
        ("train", range(windows)),
        ("test", range(windows + 7, windows + 7 + test)),
    ):
        arrays[f"X_{part}"] = np.stack([scaled[i : i + 4] for i in starts])
        arrays[f"Y_{part}"] = np.stack([scaled[i + 4 : i + 8] for i in starts])
    (np.savez_compressed if compressed else np.savez)(directory / "dataset.npz", **arrays)
    return directory / "dataset.npz"


def write_nyc_flow(
    directory: Path,
    *,
    days: tuple[int, int, int] = (16, 4, 4),
    shape: tuple[int, int] = (9, 7),
    seed: int = 0,
) -> Path:
    """Write a directory ``NYTaxi`` with ``flow_{train,val,test}.npz`` and its table of days.

    Parameters
    ----------
    directory : Path
        ``NYTaxi`` is made in it.
    days : tuple of int
        Of training, validation and test.
    shape : tuple of int
        Rows and columns; the genuine grid has 16 x 12.
    seed : int

    Returns
    -------
    Path
        ``directory / "NYTaxi"``.
    """
    target = directory / "NYTaxi"
    target.mkdir(parents=True, exist_ok=True)
    times = pd.date_range("2016-01-01", periods=48 * sum(days), freq="30min")
    flow = np.moveaxis(make_flow(times, shape, seed).astype(np.float64), 1, -1)
    ends = 48 * np.cumsum(days)
    for name, part in zip(("train", "val", "test"), np.split(flow, ends[:-1]), strict=True):
        np.savez_compressed(target / f"flow_{name}.npz", flow=part)
    measured = "maximum temperature,minimum temperature,average temperature,precipitation"
    lines = [f"date,{measured},snow fall,snow depth,day,holiday"]
    for date in pd.date_range("2016-01-01", periods=sum(days)):
        day = f"{date.day}-{date.month}-{date.year}"
        rain = "0.25" if date.day == 10 else "T" if date.day == 9 else "0.00"
        holiday = int((date.month, date.day) == (1, 1))
        lines.append(f"{day},42,32,37.0,{rain},0.0,0,{(date.day_of_week + 1) % 7},{holiday}")
    (target / "external_knowledge.csv").write_text("\n".join(lines) + "\n")
    return target
