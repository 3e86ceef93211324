"""Arrays that are read when they are used; the only place that leans on private parts of xarray.

These are ``xarray.core.indexing``, ``Variable._data`` and ``Variable._in_memory``. There is no
public way to ask whether a variable is in memory, or what lies below its lazy layers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

#: What a :class:`LazyArray` may be asked for: slices, or a list of indices along each axis too.
BASIC, OUTER = indexing.IndexingSupport.BASIC, indexing.IndexingSupport.OUTER


class LazyArray(BackendArray):
    """An array of which :meth:`_read` reads a part; it has `shape` and `dtype`.

    It is asked for slices with a positive step or lists of indices along each axis, and for slices
    only where `support` says so.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    support = OUTER

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, self.support, self._at)

    def _at(self, key: tuple[Any, ...]) -> np.ndarray:
        """Read; an integer is a slice of one, and takes its axis away."""
        single = tuple(i for i, k in enumerate(key) if isinstance(k, (int, np.integer)))
        whole = list(key)
        for axis in single:
            place = int(key[axis]) % self.shape[axis]
            whole[axis] = slice(place, place + 1)
        return self._read(tuple(whole)).squeeze(single)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        raise NotImplementedError

    def variable(
        self, dims: Sequence[Hashable], attrs: Any = None, encoding: Any = None
    ) -> xr.Variable:
        """Give a variable that is read when it is used."""
        return xr.Variable(dims, indexing.LazilyIndexedArray(self), attrs, encoding)


class LazyView(LazyArray):
    """A variable with its dimensions in another order and its numbers converted, when read.

    xarray's own transpose turns lazy arrays to pointwise indexing, which is slow from files.
    """

    def __init__(self, source: xr.Variable, dims: Sequence[Hashable], convert: Any, dtype: Any):
        self.source, self.dims, self.convert = source, tuple(dims), convert
        self.dtype = np.dtype(dtype)
        self.shape = tuple(source.sizes.get(d, 1) for d in dims)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        keys = dict(zip(self.dims, key, strict=True))
        part = self.source.isel({d: k for d, k in keys.items() if d in self.source.dims})
        numbers = part.to_numpy()
        part = xr.Variable(part.dims, self.convert(numbers) if self.convert else numbers)
        sizes = {
            d: part.sizes.get(d, len(np.arange(n)[keys[d]]))
            for d, n in zip(self.dims, self.shape, strict=True)
        }
        return part.set_dims(sizes).to_numpy()  # in the order of `sizes`


def in_memory(variable: xr.Variable) -> bool:
    """Whether the numbers of a variable are in memory, neither in a file nor of dask."""
    return bool(variable._in_memory)


def below(variable: xr.Variable, axis: int) -> tuple[Any, int, int] | None:
    """Look through xarray's lazy layers, down to the array that reads.

    Returns
    -------
    tuple or None
        That array, and where `axis` of the variable lies in it: axis and offset. None where the
        layers take other than neighbouring places along it.
    """
    data, offset = variable._data, 0
    while isinstance(data, indexing.ExplicitlyIndexedNDArrayMixin) and hasattr(data, "array"):
        if isinstance(data, indexing.LazilyIndexedArray):
            key = data.key.tuple
            axis = [i for i, k in enumerate(key) if not isinstance(k, (int, np.integer))][axis]
            if not isinstance(key[axis], slice) or key[axis].step not in (None, 1):
                return None
            offset += key[axis].start or 0
        data = data.array
    return data, axis, offset


def one_along(ds: xr.Dataset, dim: str, i: int) -> xr.Dataset:
    """Take place `i` along a dimension, without that and its coordinate.

    Of dask arrays these are views of their chunks: an index of dask copies a small part of a chunk.
    """
    views = {}
    for name, array in ds.data_vars.items():
        if array.chunks is not None and dim in array.dims:
            variable = array.variable
            data = _view(variable.data, variable.dims.index(dim), i)
            dims = [d for d in variable.dims if d != dim]
            views[name] = xr.Variable(dims, data, variable.attrs, variable.encoding)
    rest = ds.drop_vars(list(views))  # of these xarray would make an index of dask, for nothing
    rest = rest.isel({dim: i}, drop=True, missing_dims="ignore")
    return rest.assign(views)[list(ds.data_vars)]


def _view(data: Any, axis: int, i: int) -> Any:
    """Dask array of what lies at `i` along an axis of another."""
    from dask.array import Array
    from dask.highlevelgraph import HighLevelGraph

    ends = np.cumsum(data.chunks[axis])
    block = int(np.searchsorted(ends, i, side="right"))
    index = (slice(None),) * axis + (i - int(ends[block]) + data.chunks[axis][block],)
    chunks = data.chunks[:axis] + data.chunks[axis + 1 :]
    name = f"{data.name}-{axis}-{i}"
    tasks: dict[Any, Any] = {
        (name, *at): (itemgetter(index), (data.name, *at[:axis], block, *at[axis:]))
        for at in np.ndindex(*map(len, chunks))
    }
    graph = HighLevelGraph.from_collections(name, tasks, [data])
    return Array(graph, name, chunks, data.dtype)


def arrange(
    variable: xr.Variable,
    dims: Sequence[Hashable],
    orders: Mapping[Hashable, np.ndarray | None],
    convert: Callable[[np.ndarray], np.ndarray] | None,
    dtype: Any,
) -> xr.Variable:
    """Give a variable the dimensions `dims` and their `orders`, and convert its numbers to `dtype`.

    Dask arrays stay so; all others become lazy views, but for what numpy can do without a copy.
    Dimensions that are not in `dims` have size 1 and go; new ones of size 1 are put in.
    """
    variable = variable.isel({d: 0 for d in variable.dims if d not in dims})
    indexers = {d: _as_slice(o) for d, o in orders.items() if o is not None and d in dims}
    plain = convert is None and all(isinstance(i, slice) for i in indexers.values())
    if variable.chunks is None and not (plain and in_memory(variable)):
        return LazyView(variable, dims, convert, dtype).variable(dims).isel(indexers)
    sizes = {d: variable.sizes.get(d, 1) for d in dims}
    data = variable.set_dims(sizes).isel(indexers).data
    if convert is not None:
        data = data.map_blocks(convert, dtype=dtype, meta=np.empty((0,) * len(dims), dtype))
    return xr.Variable(dims, data)


def _as_slice(order: np.ndarray) -> slice | np.ndarray:
    """Turn a reversal into a slice, which makes a view and not a copy."""
    return slice(None, None, -1) if (order == np.arange(len(order))[::-1]).all() else order
