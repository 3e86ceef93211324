"""Forecast from a file, and write the forecast with the file's own names, units and order."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from .. import datasets
from ..conventions.axes import TIME, find_axes
from ..datasets.backends import existing, is_remote
from ..datasets.grib import open_forecast
from ..errors import InputError
from ..files import replacing
from ..forecasting import predict, write_forecast

_WEATHER = ("open_weatherbench", "open_era5", "open_ncep", "open_grid")


@dataclass(kw_only=True)
class Options:
    """Forecast from the history in a file."""

    path: str
    """The history: a file, a zarr store or the URL of one, or what else `stforecast describe`
    knows."""
    output: Path = Path("forecast.nc")
    """Where the forecast goes: NAME.nc or NAME.zarr. Also -o."""
    model: Path | None = None
    """The bundle of a trained model, or of an ensemble. Default: the one in the package, hourly
    2 m temperature on a global 5.625 degree grid."""
    init_time: tuple[str, ...] = ()
    """Initialisation times; START/END for all of a period. Default: the last one that there is."""
    steps: int | None = None
    """Target steps. Default: as many as the model was trained for."""
    regrid: bool = False
    """Bring the history to the model's grid."""
    device: str | None = None
    """Where to compute: cpu, cuda. A GPU if there is one."""


def main(options: Options) -> None:
    """Run the command."""
    if options.output.suffix not in (".nc", ".zarr"):
        raise InputError(f"--output must be NAME.nc or NAME.zarr, found {options.output}")
    ds = _history(options.path)
    forecast = predict(
        ds,
        options.model,
        init_time=_times(options.init_time),
        steps=options.steps,
        regrid=options.regrid,
        device=options.device,
    )
    if options.output.suffix == ".zarr":
        write_forecast(forecast, options.output, progress=sys.stderr.isatty())
    else:
        with replacing(options.output) as path:
            forecast.drop_encoding().to_netcdf(path)
    sizes = ", ".join(f"{n} {d}" for d, n in forecast.sizes.items())
    names = ", ".join(map(str, forecast.data_vars))
    sys.stdout.write(f"{names} ({sizes})\nin {options.output.resolve()}\n")


def _history(path: str) -> xr.Dataset:
    """Open weather as it is, so that its labels come back; other data by what knows them."""
    found = datasets.describe(path)
    if found.adapter is None:
        raise InputError(f"{path}: {found.reason}")
    several = found.files > 1 and "zarr" not in found.kind
    if found.adapter not in _WEATHER or several:
        return found.open()
    ds = open_forecast(path if is_remote(path) else existing(path))
    time = next((d for d, (role, _) in find_axes(ds).items() if role == TIME), None)
    # Not its labels: dask cannot tell how large texts are, such as ERA5's stream at each time.
    numbers = [v for v in ds.data_vars if time in ds[v].dims and ds[v].dtype.kind in "fiu"]
    return ds.assign({v: ds.variables[v].chunk({time: "auto"}) for v in numbers})


def _times(given: tuple[str, ...]) -> Any:
    if len(given) == 1 and "/" in given[0]:
        start, _, end = given[0].partition("/")
        return slice(start or None, end or None)
    return list(given) or None
