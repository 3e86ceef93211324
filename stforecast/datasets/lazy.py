"""Arrays that are read when they are used: those made of others, and their chunks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.axes import TIME
from ..conventions.lazy import LazyArray
from ..errors import InputError
from .backends import fault, is_read_error, reason
from .drift import differ, spread

_CHUNK_BYTES = 16 * 2**20  # of float32: small enough for a few at once, large enough for dask


class Joined(LazyArray):
    """A variable in several files, joined along one dimension and read when used.

    Errors while reading name the file. Where `scale` says by what its units can be told, as of
    :func:`stforecast.datasets.drift.kind_of_scale`, the first step of each file is held against
    that of the first file when something of it is read: opening reads nothing.
    """

    def __init__(
        self,
        name: Hashable,
        pieces: Sequence[tuple[str, xr.Variable]],
        axis: int | None,
        scale: str | None = None,
    ):
        first = pieces[0][1]
        self.name, self.pieces, self.axis = name, list(pieces), axis
        self.scale = None if axis is None else scale
        self.held: dict[int, tuple[float, float] | None] = {}
        self.dtype = np.result_type(*(v.dtype for _, v in pieces))
        self.shape = first.shape
        if axis is not None:
            self.ends = np.cumsum([v.shape[axis] for _, v in pieces])
            self.shape = (*first.shape[:axis], int(self.ends[-1]), *first.shape[axis + 1 :])

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        axis = self.axis
        if axis is None:
            return self._piece(0, key)
        owner, local = locate(self.ends, key[axis])
        read = []
        for run in np.split(np.arange(len(local)), np.flatnonzero(np.diff(owner)) + 1):
            piece = int(owner[run[0]]) if len(run) else 0
            if self.scale and piece and piece not in self.held:
                self._hold(piece)
            read.append(self._piece(piece, (*key[:axis], as_slice(local[run]), *key[axis + 1 :])))
        return read[0] if len(read) == 1 else np.concatenate(read, axis=axis)

    def _hold(self, number: int) -> None:
        """Refuse a file whose numbers are in other units than those of the first."""
        for which in (0, number):
            if which not in self.held:
                key = [slice(None)] * len(self.shape)
                key[self.axis or 0] = slice(0, 1)
                self.held[which] = spread(self._piece(which, tuple(key)))
        first, other = self.held[0], self.held[number]
        if self.scale and first and other and differ(self.scale, first, other):
            del self.held[number]
            raise InputError(
                f"{self.pieces[number][0]}: '{self.name}' is around {other[0]:g} at its first "
                f"time, and around {first[0]:g} in {self.pieces[0][0]}: these are other units. "
                "Convert one of them, and give both the attribute 'units'"
            )

    def _piece(self, number: int, key: tuple[Any, ...]) -> np.ndarray:
        source, variable = self.pieces[number]
        try:
            return variable[key].to_numpy().astype(self.dtype, copy=False)
        except InputError:
            raise
        except Exception as error:
            if not is_read_error(error):
                raise
            raise InputError(
                f"{source}: '{self.name}' cannot be read at {_where(variable, key)} "
                f"({reason(error)}): {fault(error)}"
            ) from error


class Repeated(LazyArray):
    """A variable without time, the same at every time."""

    def __init__(self, still: xr.Variable, steps: int):
        self.still, self.dtype, self.shape = still, still.dtype, (steps, *still.shape)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        values = self.still[key[1:]].to_numpy()
        times = len(np.arange(self.shape[0])[key[0]])
        return np.broadcast_to(values, (times, *values.shape)).copy()


class Everywhere(LazyArray):
    """Float32 in time that `read` gives, the same in every cell of a grid: `shape` (time, y, x)."""

    def __init__(self, read: Callable[[], np.ndarray], shape: tuple[int, ...]):
        self.read, self.dtype, self.shape = read, np.dtype(np.float32), shape

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        rows, columns = (len(np.arange(n)[k]) for n, k in zip(self.shape[1:], key[1:], strict=True))
        return self.read()[key[0]][:, None, None].repeat(rows, 1).repeat(columns, 2)


def locate(ends: np.ndarray, key: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find indices in parts that lie one behind the other and end at `ends`.

    Returns the part's number and the place in it, for every index that `key` stands for.
    """
    wanted = np.arange(ends[-1])[key]
    owner = np.searchsorted(ends, wanted, side="right")
    return owner, wanted - np.append(0, ends)[owner]


def as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Write neighbours as a slice, which files read faster than a list."""
    if len(index) and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def in_chunks(
    ds: xr.Dataset,
    chunks: Any,
    dims: Mapping[str, Hashable],
    cut: Callable[[int], int | tuple[int, ...]],
    *made_of: Any,
) -> xr.Dataset:
    """Make of lazy arrays what an opener's argument `chunks` says.

    Parameters
    ----------
    ds : xarray.Dataset
        Lazy; without what is to stay as it is.
    chunks : {"auto"}, None or mapping
        ``"auto"``: dask arrays of about 16 MiB. None: none. A mapping: dask chunk sizes by
        dimension.
    dims : mapping
        Names of the dimensions that `chunks` may have, and what `ds` calls them; time is one.
    cut : callable
        For ``"auto"``: takes how many time steps fit, gives the sizes of chunks along time.
    *made_of
        What tells these data from others, and changes when the files do.

    Raises
    ------
    InputError
        If `chunks` is something else, or has another dimension.
    """
    if chunks is None:
        return ds
    from dask.base import tokenize

    time = dims[TIME]
    sizes: dict[Hashable, Any]
    if isinstance(chunks, Mapping):
        if unknown := [d for d in chunks if d not in dims]:
            raise InputError(
                f"chunks: no dimension {', '.join(map(repr, unknown))}, there are {', '.join(dims)}"
            )
        sizes = {dims[d]: size for d, size in chunks.items()}
    elif chunks == "auto":
        step_bytes = 4 * int(np.prod([n for d, n in ds.sizes.items() if d != time]))
        sizes = {**dict.fromkeys(ds.dims, -1), time: cut(_CHUNK_BYTES // step_bytes)}
    else:
        raise InputError(f"chunks must be 'auto', None or a mapping by dimension, found {chunks!r}")
    return ds.chunk(sizes, token=tokenize(*made_of))


def _where(variable: xr.Variable, key: tuple[Any, ...]) -> str:
    places = (np.arange(n)[k] for n, k in zip(variable.shape, key, strict=True))
    spans = (f"{d} {p[0]}..{p[-1]}" for d, p in zip(variable.dims, places, strict=True) if len(p))
    return ", ".join(spans)
