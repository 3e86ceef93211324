"""The private parts of xarray that the library leans on: which one an upgrade broke."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import xarray as xr

from stforecast.conventions.lazy import LazyArray, arrange, below, in_memory, one_along
from stforecast.parallel import Graph

PARTS = {
    "xarray.backends": ["BackendArray"],
    "xarray.core.indexing": [
        "ExplicitIndexer",
        "ExplicitlyIndexedNDArrayMixin",
        "IndexingSupport.BASIC",
        "IndexingSupport.OUTER",
        "LazilyIndexedArray",
        "explicit_indexing_adapter",
    ],
    "xarray": ["Variable._in_memory"],
}


class Numbers(LazyArray):
    """An array that is read like a file."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.keys = []

    def _read(self, key):
        self.keys.append(key)
        return self.values[np.ix_(*(np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)))]


@pytest.fixture
def numbers():
    return Numbers(np.arange(24.0).reshape(4, 6))


def broken(part):
    return f"xarray {xr.__version__}: {part} is not what conventions/lazy.py takes it for"


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in PARTS.items() for n in names])
def test_the_part_is_there(module, name):
    found = importlib.import_module(module)
    for attribute in name.split("."):
        assert hasattr(found, attribute), broken(f"{module}.{name}")
        found = getattr(found, attribute)


def test_variable_in_memory(numbers):
    lazy = numbers.variable(("y", "x"))
    assert not in_memory(lazy), broken("Variable._in_memory")
    assert not in_memory(lazy[1:]), broken("Variable._in_memory")
    assert in_memory(xr.Variable("x", [1, 2])), broken("Variable._in_memory")
    assert not in_memory(xr.Variable("x", [1, 2]).chunk()), broken("Variable._in_memory")
    assert numbers.keys == [], broken("Variable._in_memory")


def test_variable_data_and_the_keys_of_lazy_layers(numbers):
    lazy = numbers.variable(("y", "x"))
    for part, axis, expected in (
        (lazy, 1, (1, 0)),
        (lazy[1:, 2:], 1, (1, 2)),
        (lazy[2, 3:], 0, (1, 3)),
        (lazy[:, 1:][:, 2:5], 1, (1, 3)),
    ):
        found = below(part, axis)
        assert found is not None, broken("LazilyIndexedArray.key")
        assert found[0] is numbers, broken("Variable._data")
        assert found[1:] == expected, broken("LazilyIndexedArray.key")
    packed = xr.Dataset({"v": lazy[1:, 2:]})
    packed["v"].attrs = {"scale_factor": 2.0}
    decoded = xr.decode_cf(packed).variables["v"]  # a layer between two others
    assert below(decoded[1:, 1:], 1) == (numbers, 1, 3)
    assert below(decoded[2], 0) == (numbers, 1, 2)
    assert below(lazy[:, ::2], 1) is None, broken("LazilyIndexedArray.key")
    assert numbers.keys == [], broken("Variable._data")


def test_explicit_indexing_adapter(numbers):
    lazy = numbers.variable(("y", "x"))
    for key in ((1, 2), (slice(None, None, -1), [3, 1, 1]), (-1, slice(1, 3)), ([0, 2], [5])):
        expected = numbers.values[key[0]] if isinstance(key[0], int) else numbers.values[key[0], :]
        expected = expected[..., key[1]]
        np.testing.assert_array_equal(
            lazy[key].to_numpy(), expected, broken("indexing.explicit_indexing_adapter")
        )


def test_a_view_is_read_in_the_order_of_its_source(numbers):
    turned = arrange(numbers.variable(("y", "x")), ["x", "new", "y"], {}, np.sqrt, np.float64)
    assert not in_memory(turned)
    assert numbers.keys == []
    np.testing.assert_array_equal(turned[2:4, 0, 1].to_numpy(), np.sqrt(numbers.values[1, 2:4]))
    ((rows, columns),) = numbers.keys
    assert (rows.stop - rows.start, columns.stop - columns.start) == (1, 2)


@pytest.mark.parametrize("chunks", [(2, 3, 5), (4, 1, 2), (4, 7, 5)])
@pytest.mark.parametrize("coords", [{}, {"m": np.ones(7)}])
def test_one_along_a_dimension_is_a_view_of_its_chunk(chunks, coords):
    numbers = np.arange(140.0).reshape(4, 7, 5)
    ds = xr.Dataset({"a": (("y", "m", "x"), numbers, {"units": "K"}), "b": ("y", np.arange(4))})
    ds = ds.assign_coords(coords)
    lazy = ds.chunk(dict(zip(("y", "m", "x"), chunks, strict=True))).persist(scheduler="sync")
    for i in range(7):
        one = one_along(lazy, "m", i)
        assert one["a"].chunks == (lazy["a"].chunks[0], lazy["a"].chunks[2])
        xr.testing.assert_identical(one.compute(), ds.isel(m=i, drop=True))
        xr.testing.assert_identical(one_along(ds, "m", i), ds.isel(m=i, drop=True))
    chunk, view = (
        ds["a"].data.to_delayed()[at].compute(scheduler="sync")
        for ds, at in ((lazy, (0, -1, 0)), (one, (0, 0)))
    )
    assert np.shares_memory(view, chunk)


@pytest.mark.parametrize("chunks", [(2, 3, 5), (4, 7, 5)])
def test_a_view_of_a_chunk_is_no_task_of_its_own(chunks):
    numbers = np.arange(140.0).reshape(4, 7, 5)
    ds = xr.Dataset({"a": (("y", "m", "x"), numbers)}).chunk(dict(zip("ymx", chunks, strict=True)))
    graph, one = Graph(), one_along(ds, "m", 4)["a"].variable
    blocks = graph.blocks(one, one.chunks)
    assert all(callable(task[0]) for task in blocks.flat)
    total = graph.add(lambda parts: np.concatenate(parts).sum(), blocks[:, 0].tolist())
    assert graph.compute(total, "threads") == numbers[:, 4].sum()
