"""Fixtures of the tests of data sets."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from years_of_weather import LAT, LON, weather, write


@pytest.fixture
def years(tmp_path):
    """Three files in WeatherBench 1's layout, 100 hours each, and the constants beside them."""
    directory = tmp_path / "5.625deg"
    whole = weather("2013-12-30", 300)
    for i, packed in enumerate((True, False, True)):
        part = whole.isel(time=slice(100 * i, 100 * i + 100))
        write(part, directory / f"2m_temperature_{2013 + i}_5.625deg.nc", packed=packed)
    lsm = (("lat", "lon"), np.arange(24.0, dtype="f4").reshape(4, 6) / 24, {"units": "1"})
    write(
        xr.Dataset({"lsm": lsm, "orography": lsm}, {"lat": LAT, "lon": LON}),
        directory / "constants_5.625deg.nc",
        packed=False,
    )
    return directory, whole["t2m"].values
