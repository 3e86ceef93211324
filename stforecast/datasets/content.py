"""What data hold, apart from how they are stored: packing, statistics, fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.axes import TIME
from ..conventions.fields import Field

_PACKED_FILLS = ("_FillValue", "missing_value")
#: Of float32 read at once where nothing else says how much.
BLOCK_BYTES = 16 * 2**20


def cuts(array: xr.Variable) -> list[tuple[int, int]]:
    """Cut the times of an array in stretches of about 16 MiB, or of one dask chunk if larger."""
    steps = array.shape[0]
    size = max(1, BLOCK_BYTES // (4 * math.prod(array.shape[1:])))
    ends = list(range(size, steps, size))
    if array.chunks is not None:  # cut where the source is cut, so that nothing is read twice
        ends, last = [], 0
        for end in map(int, np.cumsum(array.chunks[0])):
            if end - last >= size and end < steps:
                ends.append(end)
                last = end
    return list(zip([0, *ends], [*ends, steps], strict=True))


def read(array: xr.Variable, start: int, stop: int) -> np.ndarray:
    """Read time steps [start, stop) as float32, in this thread."""
    part = array.isel({TIME: slice(start, stop)}).compute(scheduler="synchronous")
    return np.asarray(part.to_numpy(), dtype=np.float32)


# --- packing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packing:
    """Whole numbers n of `dtype` that stand for ``n * scale + offset``; `fill` stands for NaN."""

    dtype: str
    scale: float = 1.0
    offset: float = 0.0
    fill: int | None = None

    @classmethod
    def of(cls, field: Field) -> Packing | None:
        """Return how the caller packs a variable, or None where it is not packed."""
        how = dict(field.encoding)
        if field.packing is not None:  # xarray has not decoded it
            how = {"dtype": field.dtype, "scale_factor": field.packing[0]}
            how |= {"add_offset": field.packing[1], "_FillValue": (*field.fill, None)[0]}
        dtype = np.dtype(how.get("dtype") or "f4")
        if dtype.kind not in "iu" or dtype.itemsize > 2 or field.unit not in (None, "K"):
            return None
        fills = [np.ravel(how[k])[0] for k in _PACKED_FILLS if how.get(k) is not None]
        fill = int(fills[0]) if fills and np.isfinite(fills[0]) else None
        scale, offset = how.get("scale_factor"), how.get("add_offset")
        return cls(dtype.name, float(scale or 1.0), float(offset or 0.0), fill)

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Pack float32 values: the numbers, and what they unpack to.

        None where a value would not come back. To come back means: equal to the rounding of
        float32, that is within 2**-23 of the larger of the value and the offset.
        """
        limits = np.iinfo(self.dtype)
        missing = np.isnan(values)
        some_missing = bool(missing.any())
        numbers = np.rint((values.astype(np.float64) - self.offset) / self.scale)
        if some_missing:
            if self.fill is None:
                return None
            numbers[missing] = self.fill
        if numbers.size and not (limits.min <= numbers.min() and numbers.max() <= limits.max):
            return None
        packed = numbers.astype(self.dtype)
        back = self.decode(packed)
        near = np.maximum(np.abs(values), np.float32(abs(self.offset))) * np.float32(2.0**-23)
        good = np.abs(back - values) <= near
        if some_missing:
            good |= missing & np.isnan(back)
        return (packed, back) if good.all() else None

    def decode(self, packed: np.ndarray) -> np.ndarray:
        """Unpack as xarray does from zarr: in float64, rounded to float32 once."""
        out = (packed.astype(np.float64) * self.scale + self.offset).astype(np.float32)
        if self.fill is not None:
            out[packed == self.fill] = np.nan
        return out

    @property
    def encoding(self) -> dict[str, Any]:
        """For xarray. An offset of zero is left out: without it decoding is quicker."""
        out: dict[str, Any] = {"dtype": self.dtype, "scale_factor": self.scale}
        if self.offset:
            out["add_offset"] = self.offset
        return out | {"_FillValue": self.fill}


# --- statistics -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Statistics of values, in float64; two of them add (Chan, Golub and LeVeque, 1979)."""

    count: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0  # of the distances from the mean
    min: float = math.inf
    max: float = -math.inf

    @classmethod
    def of(cls, values: np.ndarray) -> Summary:
        """Take the statistics of an array; NaN are counted and left out."""
        missing = int(np.isnan(values).sum())
        there = values[~np.isnan(values)] if missing else values
        if not there.size:
            return cls(0, missing)
        mean = float(there.mean(dtype=np.float64))
        distances = there.astype(np.float64) - mean
        squares = float(np.vdot(distances, distances))
        return cls(there.size, missing, mean, squares, float(there.min()), float(there.max()))

    def __add__(self, other: Summary) -> Summary:
        if not (self.count and other.count):
            one = self if self.count else other
            return Summary(**asdict(one) | {"missing": self.missing + other.missing})
        count, gap = self.count + other.count, other.mean - self.mean
        return Summary(
            count,
            self.missing + other.missing,
            self.mean + gap * other.count / count,
            self.squares + other.squares + gap**2 * self.count * other.count / count,
            min(self.min, other.min),
            max(self.max, other.max),
        )

    def to_dict(self) -> dict[str, float | int | None]:
        """Return count, mean, std, min, max and nan_share; None for what has no value."""
        size = self.count + self.missing
        known = self.count > 0
        return {
            "count": self.count,
            "mean": self.mean if known else None,
            "std": math.sqrt(self.squares / self.count) if known else None,
            "min": self.min if known else None,
            "max": self.max if known else None,
            "nan_share": self.missing / size if size else None,
        }


# --- fingerprint ----------------------------------------------------------------------------------


def step_digests(values: np.ndarray) -> bytes:
    """SHA-256 of every time step's map: float32, little-endian, row by row; 32 bytes a step."""
    plain = values.astype("<f4", copy=False) + np.float32(0)  # one zero, not two; and a copy
    plain[np.isnan(plain)] = np.nan  # one NaN
    return b"".join(hashlib.sha256(step.data).digest() for step in np.ascontiguousarray(plain))


def combine_digests(ds: xr.Dataset, digests: Mapping[str, bytes]) -> str:
    """Make the fingerprint of a Dataset from the :func:`step_digests` of its variables.

    Hashed are, in this order: the names, dimensions, sizes and units of the variables in
    alphabetical order; every coordinate of one dimension, by name and values; every variable's
    digests in order of time.
    """
    total = hashlib.sha256()
    names = sorted(digests)
    heads = [
        [name, list(map(str, ds[name].dims)), list(ds[name].shape), ds[name].attrs.get("units")]
        for name in names
    ]
    total.update(json.dumps(heads).encode())
    for name in sorted(str(c) for c in ds.coords if ds[c].ndim == 1):
        total.update(f"{name}:".encode() + digest(ds[name].to_numpy()))
    for name in names:
        total.update(digests[name])
    return f"sha256:{total.hexdigest()}"


def digest(values: np.ndarray) -> bytes:
    """SHA-256 of the values of a coordinate, whatever integer, float or time they are."""
    if values.dtype.kind in "mM":
        values = values.astype(f"{values.dtype.kind}8[ns]").astype("<i8")
    elif values.dtype.kind in "biuf":
        values = values.astype("<f8")
    else:  # cftime
        return hashlib.sha256(repr([str(v) for v in values.ravel()]).encode()).digest()
    return hashlib.sha256(np.ascontiguousarray(values).data).digest()


def fingerprint(ds: xr.Dataset) -> str:
    """Hash what a canonical Dataset holds, independent of files, chunks, packing and attributes.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical. Every value is read once, about 16 MiB at a time.

    Returns
    -------
    str
        ``"sha256:..."``. Each time step of each variable is hashed for itself (float32,
        little-endian, row by row), and the hashes are hashed in order together with names, units,
        dimensions and coordinates; so any cut into chunks gives the same, and parts can be hashed
        in parallel.
    """
    digests = {
        str(name): b"".join(
            step_digests(read(array.variable, a, b)) for a, b in cuts(array.variable)
        )
        for name, array in ds.data_vars.items()
    }
    return combine_digests(ds, digests)
