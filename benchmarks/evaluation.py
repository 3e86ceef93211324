"""How fast `evaluate` is beside simply reading the same store, and how much memory it takes.

A forecast of 12-hourly initialisations, 40 leads and 121 x 240 points (1.5 degrees with poles) and
its truth, as zarr stores that `xarray.to_zarr` would write (float32, zstd), in chunks of 4
initialisations x 20 leads. The numbers are noise in steps of 2^-12 K on a wave: they compress to
0.6 of their size and decompress as fast as two years of reanalysis do (0.5 to 0.7 GB/s a core).

"Reading" is dask reading every chunk of both stores with the same threads, and dropping it.
Memory is the most that a fresh process had at any time, its imports included.

The same is measured of the fair CRPS of an ensemble of 50 members, in chunks of 10 members x 1
initialisation x 10 leads; and beside the package scores, where it is installed, and WeatherBench-X:
time, memory, and the largest difference of the CRPS by lead time.

    python benchmarks/evaluation.py              # 10 GB (7 on disk), in a temporary directory
    python benchmarks/evaluation.py --store DIR  # keeps it
    python benchmarks/evaluation.py --check      # exits 1 where a line falls short
    python benchmarks/evaluation.py --quick      # 0.6 GB: a minute
    python benchmarks/evaluation.py --only ensemble
    python benchmarks/evaluation.py --weatherbenchx DIR  # a checkout; what it imports is installed
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import dask
import numpy as np
import xarray as xr
from _table import Table, interleaved, machine
from dask.delayed import delayed

from stforecast import evaluate

NAME, LEAD = "2m_temperature", "prediction_timedelta"
LEADS, HEIGHT, WIDTH = 40, 121, 240
INIT_BYTES = 4 * LEADS * HEIGHT * WIDTH
GB = 1e9
MEMBERS = 50
# Chunks of initialisations, leads, rows and columns; None is all there is.
LAYOUTS: dict[str, tuple[int | None, ...]] = {
    "by initialisation": (4, 20, None, None),
    "by lead": (128, 1, None, None),
    "by place": (None, None, 11, 16),
    "odd": (7, 9, 50, 77),
}


class Noise:
    """Maps that look like no other nearby, made from a few, and truth and forecast from these."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.bank = rng.normal(size=(31, HEIGHT, WIDTH)).astype("f4")
        rows = np.cos(np.linspace(-np.pi / 2, np.pi / 2, HEIGHT))[:, None]
        wave = np.sin(np.arange(WIDTH) * 4 * np.pi / WIDTH)
        self.base = (250 + 45 * rows + 5 * rows * wave).astype("f4")

    def map(self, number: int) -> np.ndarray:
        return np.roll(self.bank[number % 31], number // 31, axis=1)

    def truth(self, step: int) -> np.ndarray:
        return np.round((self.base + 4 * self.map(step)) * 4096) / 4096

    def forecast(self, init: int, lead: int) -> np.ndarray:
        error = growth(lead) * self.map(17 * init + 5 * lead + 3)
        return np.round((self.truth(2 * init + lead + 1) + error) * 4096) / 4096


def growth(lead: int | np.ndarray) -> np.ndarray:
    return np.asarray(0.5 + 0.1 * lead, "f4")


def make_stores(directory: Path, inits: int, layout: str) -> None:
    """Write forecast and truth, a chunk at a time."""
    import zarr

    print(f"writing {inits * INIT_BYTES / GB:.1f} GB, {layout}", flush=True)
    noise = Noise()
    step = np.timedelta64(6, "h").astype("m8[ns]")
    start = np.datetime64("2018-01-01", "ns")
    space = {"latitude": np.linspace(-90, 90, HEIGHT), "longitude": np.arange(WIDTH) * 1.5}
    coords = {"time": start + np.arange(inits) * 2 * step, LEAD: np.arange(1, LEADS + 1) * step}
    sizes = (inits, LEADS, HEIGHT, WIDTH)
    chunks = tuple(min(c or n, n) for c, n in zip(LAYOUTS[layout], sizes, strict=True))
    attributes = {"units": "K"}

    def create(name: str, shape: tuple[int, ...], chunks: tuple[int, ...], coords: dict):
        path = directory / name
        xr.Dataset(coords=coords | space).to_zarr(path, zarr_format=3, consolidated=False)
        return zarr.open_group(path).create_array(
            NAME,
            shape=shape,
            chunks=chunks,
            dtype="float32",
            dimension_names=tuple(coords | space),
            attributes=attributes,
        )

    steps = 2 * inits + LEADS
    times = {"time": start + np.arange(steps) * step}
    truth = create("truth.zarr", (steps, *sizes[2:]), (40, *sizes[2:]), times)
    forecast = create("forecast.zarr", sizes, chunks, coords)

    def write_truth(first: int) -> None:
        rows = range(first, min(first + 40, steps))
        truth[first : rows.stop] = np.stack([noise.truth(i) for i in rows])

    def write(place: tuple[int, int]) -> None:
        n, m = (
            range(a, min(a + c, size)) for a, c, size in zip(place, chunks, sizes, strict=False)
        )
        block = np.empty((len(n), len(m), HEIGHT, WIDTH), "f4")
        for (a, i), (b, j) in itertools.product(enumerate(n), enumerate(m)):
            block[a, b] = noise.forecast(i, j)
        forecast[n.start : n.stop, m.start : m.stop] = block

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write_truth, range(0, steps, 40)))
        places = [(a, b) for a in range(0, inits, chunks[0]) for b in range(0, LEADS, chunks[1])]
        list(pool.map(write, places))
    (directory / "complete").touch()


def make_ensemble(directory: Path, inits: int, leads: int) -> None:
    """Write an ensemble and its truth: members are draws around truth's map."""
    import zarr

    print(
        f"writing {MEMBERS * inits * leads * 4 * HEIGHT * WIDTH / GB:.1f} GB of members", flush=True
    )
    noise = Noise()
    step = np.timedelta64(6, "h").astype("m8[ns]")
    start = np.datetime64("2018-01-01", "ns")
    space = {"latitude": np.linspace(-90, 90, HEIGHT), "longitude": np.arange(WIDTH) * 1.5}
    for name, coords, chunks in (
        (
            "forecast.zarr",
            {
                "realization": np.arange(MEMBERS),
                "time": start + np.arange(inits) * 2 * step,
                LEAD: np.arange(1, leads + 1) * step,
            },
            (10, 1, 10, HEIGHT, WIDTH),
        ),
        (
            "truth.zarr",
            {"time": start + np.arange(2 * inits + leads) * step},
            (40, HEIGHT, WIDTH),
        ),
    ):
        coords |= space
        sizes = tuple(len(c) for c in coords.values())
        xr.Dataset(coords=coords).to_zarr(directory / name, zarr_format=3, consolidated=False)
        array = zarr.open_group(directory / name).create_array(
            NAME,
            shape=sizes,
            chunks=tuple(min(c, n) for c, n in zip(chunks, sizes, strict=True)),
            dtype="float32",
            dimension_names=tuple(coords),
            attributes={"units": "K"},
        )
        if name == "truth.zarr":
            array[:] = np.stack([noise.truth(i) for i in range(sizes[0])])
            continue
        for m, n in itertools.product(range(0, MEMBERS, 10), range(inits)):
            array[m : m + 10, n] = [
                [noise.forecast(31 * n + 7 * (m + k), lead) for lead in range(leads)]
                for k in range(10)
            ]


def open_pair(directory: Path) -> tuple[xr.Dataset, xr.Dataset]:
    return tuple(
        xr.open_zarr(directory / f"{name}.zarr", consolidated=False)
        for name in ("forecast", "truth")
    )


def read(directory: Path) -> None:
    """Read every chunk of forecast and truth, and drop it."""
    blocks = [b for ds in open_pair(directory) for b in ds[NAME].data.to_delayed().ravel()]
    dask.compute(*(delayed(len)(block) for block in blocks), scheduler="threads")


def score(directory: Path) -> xr.Dataset:
    return evaluate(*open_pair(directory))


def score_members(directory: Path) -> xr.Dataset:
    return evaluate(*open_pair(directory), metrics="crps_fair")


def aligned(directory: Path) -> tuple[xr.DataArray, xr.DataArray]:
    """Members, and truth at their valid times."""
    forecast, truth = (ds[NAME] for ds in open_pair(directory))
    return forecast, truth.sel(time=forecast["time"] + forecast[LEAD]).drop_vars("time")


def score_with_scores(directory: Path) -> np.ndarray:
    from scores.probability import crps_for_ensemble

    from stforecast.conventions.grid import area_weights

    forecast, truth = aligned(directory)
    weights = xr.DataArray(area_weights(forecast["latitude"].values), dims="latitude")
    found = crps_for_ensemble(
        forecast.chunk(realization=-1),
        truth,
        "realization",
        method="fair",
        preserve_dims=[LEAD, "latitude"],
    )
    return found.weighted(weights).mean("latitude").compute(scheduler="threads").values


def score_with_weatherbenchx(directory: Path) -> np.ndarray:
    """Sum initialisation by initialisation, as its pipelines do."""
    from weatherbenchX import aggregation, weighting
    from weatherbenchX.metrics import base, probabilistic

    metrics = {"crps": probabilistic.CRPSEnsemble(ensemble_dim="realization", use_sort=True)}
    dims = ["time", "latitude", "longitude"]
    aggregator = aggregation.Aggregator(dims, weigh_by=[weighting.GridAreaWeighting()])
    forecast, truth = aligned(directory)
    states = []
    for i in range(forecast.sizes["time"]):
        pair = ({NAME: x.isel(time=[i]).compute(scheduler="threads")} for x in (forecast, truth))
        statistics = base.compute_unique_statistics_for_all_metrics(metrics, *pair)
        states.append(aggregator.aggregate_statistics(statistics))
    total = aggregation.AggregationState.sum(states)
    return total.metric_values(metrics)[f"crps.{NAME}"].values


OTHERS = {"scores": score_with_scores, "WeatherBench-X": score_with_weatherbenchx}


def report_members(directory: Path, package: str) -> None:
    """Score members in this process; print figures and memory as JSON."""
    begin = time.perf_counter()
    if package == "stforecast":
        values = score_members(directory)[NAME].values[0]
    else:
        values = OTHERS[package](directory)
    seconds = time.perf_counter() - begin
    found = {"seconds": seconds, "memory": most_memory(), "values": values.tolist()}
    print(json.dumps(found))


def measure_members(
    table: Table, inits: int, leads: int, rounds: int, checkout: Path | None
) -> None:
    """Add what an ensemble takes, and what other packages take."""
    size = MEMBERS * inits * leads * 4 * HEIGHT * WIDTH / GB
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root)
        make_ensemble(directory, inits, leads)
        alone = fresh(directory, "--package", "stforecast")
        note = f"{size:.1f} GB of members"
        table.add("fair CRPS of 50 members: peak memory, GB", alone["memory"], 1.5, note, most=True)
        work = {"reading": lambda: read(directory), "scoring": lambda: score_members(directory)}
        seconds = interleaved(work, rounds)
        note = f"{size / seconds['scoring']:.2f} and {size / seconds['reading']:.2f} GB/s"
        ratio = seconds["reading"] / seconds["scoring"]
        table.add("fair CRPS of 50 members: scoring / reading", ratio, 0.5, note)
        installed = [name for name in ("scores",) if importlib.util.find_spec(name)]
        for package in [*installed, *(["WeatherBench-X"] if checkout else [])]:
            path = [str(checkout)] if package == "WeatherBench-X" else []
            other = fresh(directory, "--package", package, path=path)
            note = f"{other['seconds']:.1f} and {alone['seconds']:.1f} s, {other['memory']:.2f} GB"
            table.add(f"{package}: seconds / ours", other["seconds"] / alone["seconds"], None, note)
            gap = np.abs(np.array(other["values"]) - np.array(alone["values"])).max()
            table.add(f"{package}: largest difference, K", gap, 1e-5, most=True)


def report(directory: Path, cluster: bool) -> None:
    """Score in this process, or on a cluster of two; print figures and memory as JSON."""
    begin = time.perf_counter()
    workers: list[float] = []
    if cluster:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
            Client(local) as client,
        ):
            begin = time.perf_counter()
            result = score(directory)
            workers = list(client.run(most_memory).values())
    else:
        result = score(directory)
    found = {
        "seconds": time.perf_counter() - begin,
        "memory": max([most_memory(), *workers]),
        "values": result[NAME].values.tolist(),
        "overall": result[f"{NAME}_overall"].values.tolist(),
    }
    print(json.dumps(found))


def most_memory() -> float:
    """GB that this process has had at once (getrusage would count its parent's as well)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / GB


def fresh(directory: Path, *options: str, path: Sequence[str] = ()) -> dict:
    strict = [] if "--package" in options else ["-W", "error"]  # others warn
    command = [sys.executable, *strict, __file__, "--report", str(directory), *options]
    found = os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": found}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit 1 where a figure falls short")
    parser.add_argument("--quick", action="store_true", help="0.6 GB in place of 10")
    parser.add_argument("--store", type=Path, help="directory to keep the 10 GB in")
    parser.add_argument("--rounds", type=int, default=3, help="turns of reading and scoring")
    parser.add_argument("--only", choices=["forecast", "ensemble"], help="one part of it")
    parser.add_argument("--weatherbenchx", type=Path, metavar="DIR", help="a checkout of it")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--package", help=argparse.SUPPRESS)
    parser.add_argument("--cluster", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report and options.package:
        report_members(options.report, options.package)
        return
    if options.report:
        report(options.report, options.cluster)
        return

    print(f"{machine()}; load {os.getloadavg()[0]:.1f}")
    table = Table()
    if options.only != "ensemble":
        measure_forecast(table, options)
    if options.only != "forecast":
        sizes = (5, 10) if options.quick else (16, 20)
        measure_members(table, *sizes, options.rounds, options.weatherbenchx)
    table.finish(options.check)


def measure_forecast(table: Table, options: argparse.Namespace) -> None:
    """Add what a single forecast takes."""
    inits = int(np.ceil((0.6 if options.quick else 10) * GB / INIT_BYTES))
    few = inits if options.quick else inits // 5
    place = nullcontext(options.store) if options.store else tempfile.TemporaryDirectory()
    with place as root:
        directory = Path(root) / f"forecast_{inits}"
        if not (directory / "complete").exists():
            make_stores(directory, inits, "by initialisation")
        size = inits * INIT_BYTES / GB
        alone = fresh(directory)
        note = f"{size:.1f} GB of forecast"
        table.add("peak memory of scoring, GB", alone["memory"], 1.5, note, most=True)
        away = np.abs(np.array(alone["values"][0]) / growth(np.arange(LEADS)) - 1).max()
        table.add("RMSE beside the noise that was added", away, 0.01, most=True)
        work = {"reading": lambda: read(directory), "scoring": lambda: score(directory)}
        seconds = interleaved(work, options.rounds)
        note = f"{size / seconds['scoring']:.2f} and {size / seconds['reading']:.2f} GB/s"
        table.add("scoring / reading", seconds["reading"] / seconds["scoring"], 0.6, note)
        both = fresh(directory, "--cluster")
        gap = max(
            np.abs(np.array(alone[key]) - np.array(both[key])).max()
            for key in ("values", "overall")
        )
        table.add("cluster of 2 processes: largest difference", gap, 0.0, "to the bit", most=True)
        note = f"each worker; {size / both['seconds']:.2f} GB/s"
        table.add("cluster: peak memory, GB", both["memory"], 1.5, note, most=True)
    for layout in list(LAYOUTS)[1:]:
        with tempfile.TemporaryDirectory() as root:
            make_stores(Path(root), few, layout)
            found = fresh(Path(root))
            size = few * INIT_BYTES / GB
            note = f"{size:.1f} GB, {size / found['seconds']:.2f} GB/s"
            table.add(f"{layout}: peak memory, GB", found["memory"], 1.5, note, most=True)


if __name__ == "__main__":
    main()
