"""Names and helpers of the tests of weather files."""

from __future__ import annotations

import xarray as xr

T2M, Z500, T850 = "2m_temperature", "geopotential_500", "temperature_850"

DIMS = ("time", "latitude", "longitude")


def plain(path, **kwargs) -> xr.Dataset:
    """What xarray alone reads, in memory."""
    with xr.open_dataset(path, **kwargs) as ds:
        return ds.load()
