"""Weather in yearly files for the tests of datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

T2M = "2m_temperature"

LAT = np.array([-60.0, -20.0, 20.0, 60.0])

LON = np.arange(0.0, 360.0, 60.0)

PACKING = {
    "t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 270.0, "_FillValue": -32768}
}


def weather(start: str, steps: int, *, seed: int = 0, lat=LAT, lon=LON, freq="h") -> xr.Dataset:
    """Make WeatherBench 1's layout, with values that are whole hundredths of a kelvin."""
    values = np.random.default_rng(seed).integers(-3000, 3000, (steps, len(lat), len(lon)))
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), (values / 100 + 270).astype("f4"), {"units": "K"})},
        {"time": pd.date_range(start, periods=steps, freq=freq), "lat": lat, "lon": lon},
    )


def write(ds: xr.Dataset, path: Path, *, packed: bool = True, **kwargs) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.to_netcdf(path, encoding=PACKING if packed else None, engine="netcdf4", **kwargs)
    return path
