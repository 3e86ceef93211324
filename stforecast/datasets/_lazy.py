"""Arrays made of others, which are read when they are used."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from ..conventions import InputError
from .sources import is_read_error


class _Joined(BackendArray):
    """A variable in several files, joined along one dimension and read when used.

    Errors while reading name the file.
    """

    def __init__(self, name: Hashable, pieces: Sequence[tuple[str, xr.Variable]], axis: int | None):
        first = pieces[0][1]
        self.name, self.pieces, self.axis = name, list(pieces), axis
        self.dtype = np.result_type(*(v.dtype for _, v in pieces))
        self.shape = first.shape
        if axis is not None:
            self.ends = np.cumsum([v.shape[axis] for _, v in pieces])
            self.shape = (*first.shape[:axis], int(self.ends[-1]), *first.shape[axis + 1 :])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        if self.axis is None:
            return self._piece(0, key)
        axis, along = self.axis, key[self.axis]
        wanted = np.atleast_1d(np.arange(self.shape[axis])[along])
        owner = np.searchsorted(self.ends, wanted, side="right")
        read = []
        for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(owner)) + 1):
            piece = int(owner[run[0]]) if len(run) else 0
            local = wanted[run] - (self.ends[piece - 1] if piece else 0)
            read.append(self._piece(piece, (*key[:axis], _as_slice(local), *key[axis + 1 :])))
        # Integers before `axis` have dropped their dimensions.
        here = axis - sum(isinstance(k, (int, np.integer)) for k in key[:axis])
        out = read[0] if len(read) == 1 else np.concatenate(read, axis=here)
        return out.take(0, axis=here) if isinstance(along, (int, np.integer)) else out

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
                f"({type(error).__name__}: {error}): the file is damaged. Copy or download it again"
            ) from error


class _Repeated(BackendArray):
    """A variable without time, the same at every time."""

    def __init__(self, still: xr.Variable, steps: int):
        self.still, self.dtype, self.shape = still, still.dtype, (steps, *still.shape)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        values = self.still[key[1:]].to_numpy()
        if isinstance(key[0], (int, np.integer)):
            return values
        times = len(np.arange(self.shape[0])[key[0]])
        return np.broadcast_to(values, (times, *values.shape)).copy()


class _FirstValid(BackendArray):
    """Values of one variable, and where they are NaN those of another."""

    def __init__(self, first: xr.Variable, second: xr.Variable):
        self.first, self.second = first, second
        self.dtype, self.shape = np.dtype(first.dtype), first.shape

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        values = self.first[key].to_numpy()
        missing = np.isnan(values)
        return np.where(missing, self.second[key].to_numpy(), values) if missing.any() else values


def _as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Write neighbours as a slice, which files read faster than a list."""
    if len(index) and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _where(variable: xr.Variable, key: tuple[Any, ...]) -> str:
    places = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(variable.shape, key, strict=True))
    spans = (f"{d} {p[0]}..{p[-1]}" for d, p in zip(variable.dims, places, strict=True) if len(p))
    return ", ".join(spans)
