"""Arrays that are rearranged and converted when they are read; what leans on parts of xarray."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing


class LazyView(BackendArray):
    """A variable with its dimensions in another order and its numbers converted, when read.

    xarray's own transpose turns lazy arrays to pointwise indexing, which is slow from files.
    """

    def __init__(self, source: xr.Variable, dims: Sequence[Hashable], convert: Any, dtype: Any):
        self.source, self.dims, self.convert = source, tuple(dims), convert
        self.dtype = np.dtype(dtype)
        self.shape = tuple(source.sizes.get(d, 1) for d in dims)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        keys = dict(zip(self.dims, key, strict=True))
        part = self.source.isel({d: k for d, k in keys.items() if d in self.source.dims})
        numbers = part.to_numpy()
        part = xr.Variable(part.dims, self.convert(numbers) if self.convert else numbers)
        sizes = {
            d: part.sizes[d] if d in part.dims else len(np.arange(1)[k])
            for d, k in keys.items()
            if not isinstance(k, (int, np.integer))
        }
        return part.set_dims(sizes).to_numpy()  # in the order of `sizes`


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
    if variable.chunks is None and not (plain and variable._in_memory):
        view = indexing.LazilyIndexedArray(LazyView(variable, dims, convert, dtype))
        return xr.Variable(dims, view).isel(indexers)
    sizes = {d: variable.sizes.get(d, 1) for d in dims}
    data = variable.set_dims(sizes).isel(indexers).data
    if convert is not None:
        data = data.map_blocks(convert, dtype=dtype, meta=np.empty((0,) * len(dims), dtype))
    return xr.Variable(dims, data)


def _as_slice(order: np.ndarray) -> slice | np.ndarray:
    """Turn a reversal into a slice, which makes a view and not a copy."""
    return slice(None, None, -1) if (order == np.arange(len(order))[::-1]).all() else order
