"""Weather in memory and on disk for the tests of the gate."""

import pickle

import numpy as np
import xarray as xr

from stforecast.conventions.gate import canonicalize, restore
from stforecast.conventions.lazy import LazyArray

NAME = "2m_temperature"

HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


def round_trip(ds, **options):
    ours, labels = canonicalize(ds, **options)
    return restore(ours, pickle.loads(pickle.dumps(labels)))


class Counted(LazyArray):
    """A lazy array, like a file, that counts what is read of it."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, 0

    def _read(self, key):
        part = xr.Variable(tuple("abcdef")[: len(key)], self.values)[key].values
        self.read += part.size
        return part


def on_file(ds):
    """The same Dataset, read lazily as from a file, and its arrays by name."""
    arrays = {name: Counted(v.values) for name, v in ds.data_vars.items()}
    lazy = {n: a.variable(ds[n].dims, ds[n].attrs) for n, a in arrays.items()}
    return xr.Dataset(lazy, ds.coords, ds.attrs), arrays
