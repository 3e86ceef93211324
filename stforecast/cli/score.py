"""Score forecasts against truth, against each other and against baselines.

Persistence is made from truth; climatology and linear regression are fitted where training data are
given. Writes a table to the terminal and, to the output directory, scores.csv, scores.nc, pictures
and report.html, one page with maps, curves, intervals and provenance.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from ..baselines.forecasts import baseline_forecasts
from ..errors import InputError
from ..evaluation.comparison import compare_forecasts, to_text
from ..plots.results import write_results
from .run import command_line


@dataclass(kw_only=True)
class Options:
    """Score one forecast, or several side by side, against truth and baselines."""

    paths: tuple[str, ...]
    """FORECAST... TRUTH: forecasts, and truth last. Zarr stores, netCDF or GRIB files, truth also a
    directory of them. A forecast has the dims time (the initialisation), prediction_timedelta,
    latitude and longitude."""
    names: tuple[str, ...] = ()
    """Names of the forecasts, in their order. Default: the names of their files."""
    climatology: str | None = None
    """Climatology, (hour, dayofyear, latitude, longitude): for ACC, and as a baseline."""
    train: str | None = None
    """Data of a period before, of truth's kind: climatology and linear regression are fitted
    to it and scored as baselines."""
    output: Path = Path("scores")
    """Where scores.csv, scores.nc, report.html and pictures go."""
    metrics: tuple[str, ...] = ("rmse", "mae", "bias")
    """rmse, mae, mse, bias, acc and others, as of stforecast.evaluate."""
    regions: tuple[str, ...] = ()
    """Regions by name: global, tropics, europe and others; global unless given."""
    nan: Literal["refuse", "mask"] = "refuse"
    """What a missing value in truth means: an error, or a point that does not count."""
    allow_overlap: bool = False
    """Score a period that a model or a baseline was trained on."""


def main(options: Options) -> None:
    """Run the command."""
    if len(options.paths) < 2:
        raise InputError(f"give forecasts and, last, truth; found {list(options.paths)}")
    *paths, truth_path = options.paths
    names = list(options.names) or default_names(paths)
    if len(names) != len(paths) or len(set(names)) != len(names):
        raise InputError(f"{len(paths)} forecasts need as many names, all different, found {names}")
    forecasts = {n: _open(p) for n, p in zip(names, paths, strict=True)}
    truth = _open_truth(truth_path)
    climatology = None if options.climatology is None else _open(options.climatology)
    train = None if options.train is None else _open_truth(options.train)
    first = forecasts[names[0]]
    overlap: dict[str, Any] = {"allow_overlap": options.allow_overlap}
    baselines = baseline_forecasts(first, truth, train=train, climatology=climatology, **overlap)
    forecasts |= {name: f for name, f in baselines.items() if name not in forecasts}
    if climatology is None and "Climatology" in baselines and "acc" in options.metrics:
        raise InputError("acc needs --climatology: fit one with stforecast.Climatology.fit")
    card = compare_forecasts(
        forecasts,
        truth,
        metrics=options.metrics,
        regions=options.regions or None,
        climatology=climatology,
        nan=options.nan,
        **overlap,
    )
    about: dict[str, Any] = {"command": command_line()}
    about |= {f"file of {n}": str(p) for n, p in zip(names, paths, strict=True)}
    about |= {"file of truth": truth_path}
    about |= {"training data of the baselines": options.train, "climatology": options.climatology}
    written = write_results(card, forecasts, truth, options.output, about=about)
    sys.stdout.write(f"{to_text(card)}\n\nResults are in {options.output.resolve()}:\n")
    sys.stdout.write(f"  {', '.join(p.name for p in written)}\n")


def default_names(paths: Sequence[str]) -> list[str]:
    """Names of forecasts from their files': of the directory too where they are the same."""
    stems = [Path(p).stem for p in paths]
    if len(set(stems)) < len(stems):
        stems = [f"{Path(p).absolute().parent.name}/{Path(p).stem}" for p in paths]
    return stems


def _open(path: str) -> xr.Dataset:
    """Open a forecast or climatology lazily, as it is."""
    from ..datasets.backends import existing, is_remote
    from ..datasets.grib import open_forecast

    ds = open_forecast(path if is_remote(path) else existing(path))
    chunks: dict[Any, Any] = {}
    for array in ds.data_vars.values():
        chunks |= array.encoding.get("preferred_chunks", {})
    return ds.chunk({d: chunks.get(d, "auto") for d in ds.dims})


def _open_truth(path: str) -> xr.Dataset:
    from ..datasets.weather import open_grid

    return open_grid(path)
