"""How fast a year of forecasts comes to disk, beside the network alone, and in how much memory.

A year of hourly initialisations at 5.625 degrees (8,749 of them, 12 steps of 1 h each), read from
a zarr store through dask, forecast by the bundle that ships in the package, written as a zarr store
of WeatherBench 2's form and read back. Beside it the bundle's network alone, on a batch of the same
size that is ready in memory, of random numbers: once after every eighth batch, when what is to be
written has been, since this machine's speed wanders by a sixth within minutes. These pauses do not
count.

    python benchmarks/predict.py             # some minutes on two cores; 1 GB of temporary disk
    python benchmarks/predict.py --check     # exits 1 where a line falls short
    python benchmarks/predict.py --quick     # a month in place of the year
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from _table import Table, machine

import stforecast
from stforecast.datasets import open_sample, open_weatherbench, select_period
from stforecast.forecasting import Forecaster, default_bundle, write_forecast
from stforecast.models import for_inference

SPEED, MEMORY = 0.9, 1500  # of the bare network's; MB
EVERY = 8  # batches
NAME = "2m_temperature"


def make_store(path: Path, steps: int) -> None:
    """Write the sample's year as WeatherBench 2 has it."""
    ds = open_sample()
    year = select_period(ds, ds.attrs["train_period"]).isel(time=slice(0, steps))
    year.drop_encoding().chunk(time=512).to_zarr(path, zarr_format=2, consolidated=True)


class Beside:
    """A forecaster that stops now and then, and times its network alone."""

    def __init__(self, forecaster: Forecaster) -> None:
        self.forecaster = forecaster
        self.network = for_inference(forecaster.network, samples=10**6)
        self.batches, self.bare, self.paused = 0, [], 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.forecaster, name)

    def __dask_tokenize__(self) -> str:
        return "the forecaster of the package"

    def get_ready(self, ds: xr.Dataset, batch: int) -> None:
        """Take a batch of that size for the network; run once, which packs the weights."""
        shape = batch, self.task.input_steps, self.task.channels_in, *ds[NAME].shape[1:]
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.x = x.to(self.forecaster.device)
        self.pause()
        self.bare, self.paused = [], 0.0

    def forecast(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Forecast as the forecaster; pause after every eighth batch."""
        result = self.forecaster.forecast(*args, **kwargs)
        self.batches += 1
        if self.batches % EVERY == 0:
            self.pause()
        return result

    def pause(self) -> None:
        begin = time.perf_counter()
        time.sleep(0.1)  # until the last batch is written
        start = time.perf_counter()
        with torch.inference_mode():
            float(self.network(self.x).mean())  # and the device is done
        now = time.perf_counter()
        self.bare.append(now - start)
        self.paused += now - begin


def wrong_in(path: Path, ds: xr.Dataset, forecaster: Forecaster) -> int:
    """Count what is not as it should be in the store."""
    store = xr.open_zarr(path, decode_timedelta=True)
    inits, steps = store["time"].values, forecaster.task.input_steps
    dims = ("time", "prediction_timedelta", "latitude", "longitude")
    wrong = store[NAME].dims != dims or store[NAME].dtype != np.float32
    wrong += not np.array_equal(inits, ds["time"].values[steps - 1 :])
    wrong += not (store["valid_time"] == store["time"] + store["prediction_timedelta"]).all()
    wrong += sum(not np.array_equal(store[d], ds[d]) for d in dims[2:])
    few = inits[:: max(1, len(inits) // 5)]
    again = stforecast.predict(ds.sel(time=slice(None, few[-1])).load(), forecaster, init_time=few)
    wrong += int((np.abs(again[NAME] - store[NAME].sel(time=few)) > 1e-4).sum())
    return int(wrong) + int(store[NAME].isnull().sum())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit 1 where a figure falls short")
    parser.add_argument("--quick", action="store_true", help="a month in place of the year")
    parser.add_argument("--rounds", type=int, default=1, help="how often; the median counts (1)")
    options = parser.parse_args()
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}")
    table = Table()
    forecaster = stforecast.load(default_bundle())
    forecaster.to("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "year.zarr", Path(directory) / "forecast.zarr"
        make_store(source, 744 if options.quick else 8760)
        ds = open_weatherbench(source)
        found: list[dict[str, Any]] = []
        for _ in range(options.rounds):
            beside, start = Beside(forecaster), time.perf_counter()
            forecast = stforecast.predict(ds, beside, init_time=slice(None))
            planned = time.perf_counter() - start
            batch, inits = forecast.chunks["time"][0], forecast.sizes["time"]
            beside.get_ready(ds, batch)
            start = time.perf_counter()
            write_forecast(forecast, target)
            seconds = planned + time.perf_counter() - start - beside.paused
            rate, bare = inits / seconds, batch / statistics.mean(beside.bare)
            found.append({"ratio": rate / bare, "rate": rate, "bare": bare, "seconds": seconds})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        middle = statistics.median_low([f["ratio"] for f in found])
        it = next(f for f in found if f["ratio"] == middle)
        note = f"{it['rate']:,.0f} and {it['bare']:,.0f} forecasts/s, {it['seconds']:.0f} s"
        table.add(f"{inits} forecasts to disk / bare network", middle, SPEED, note)
        table.add("peak memory of the process, MB", peak, MEMORY, most=True)
        table.add("wrong or missing in the store", wrong_in(target, ds, forecaster), 0, most=True)
    table.finish(options.check)


if __name__ == "__main__":
    main()
