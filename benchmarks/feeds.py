"""How fast the feeds are, as ratios within one run, and how much memory streaming takes.

Windows of 24 steps on 32 x 64 points, batches of 32, from a zarr store as `xarray.to_zarr` writes
it (zstd), in chunks of 4 MiB. All contenders take turns, so that what else the machine does meets
them alike. "Reading" reads the very blocks that the stream reads, in order, and drops them.

    python benchmarks/feeds.py                      # makes a 12 GB store, and removes it again
    python benchmarks/feeds.py --store DIR --check  # keeps it; exits 1 where a line falls short
    python benchmarks/feeds.py --quick              # a minute or two, on 0.6 GB

The store takes 1.3 GB on disk: noise in steps of 0.25 K, and in the first point of each map
its number, by which windows are counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _table import Table, interleaved, machine

from stforecast import Task
from stforecast.datasets import open_weatherbench
from stforecast.loading import ResidentFeed, Source, StreamingFeed

TASK = Task("counted", input_steps=12, target_steps=12, timestep="1h")
BATCH, SHAPE, CHUNK = 32, (32, 64), 512
STEP_BYTES = 4 * SHAPE[0] * SHAPE[1]
FORTY_YEARS = 350_640
MB = 2**20


def make_store(path: Path, steps: int) -> None:
    """Write hourly maps, a chunk at a time."""
    import zarr

    print(f"making {path}: {steps * STEP_BYTES / 1e9:.1f} GB before compression", flush=True)
    times = np.datetime64("1850-01-01", "ns") + np.arange(steps) * np.timedelta64(1, "h")
    grid = {"latitude": np.linspace(-87.1875, 87.1875, 32), "longitude": np.arange(64) * 5.625}
    xr.Dataset(coords={"time": times, **grid}).to_zarr(path, zarr_format=3, consolidated=False)
    array = zarr.open_group(path).create_array(
        "counted",
        shape=(steps, *SHAPE),
        chunks=(CHUNK, *SHAPE),
        dtype="float32",
        dimension_names=("time", "latitude", "longitude"),
    )
    noise = np.random.default_rng(0).normal(280, 1, (CHUNK, *SHAPE))
    noise = (np.round(noise * 4) / 4).astype(np.float32)

    def write(first: int) -> None:
        stop = min(first + CHUNK, steps)
        block = np.roll(noise, first // CHUNK, axis=2)[: stop - first]
        block[:, 0, 0] = np.arange(first, stop)  # float32 counts to 16 million
        array[first:stop] = block

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(0, steps, CHUNK)))
    (path / "complete").touch()


def open_store(path: Path, steps: int | None = None) -> Source:
    ds = open_weatherbench(path, "counted", chunks=None)
    return Source(ds.isel(time=slice(0, steps)), TASK)


class Windows(torch.utils.data.IterableDataset):
    """Windows at random, each read through xarray, without end: how a DataLoader is often fed."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps

    def __iter__(self):
        array = open_store(self.path, self.steps).ds["counted"]
        random = np.random.default_rng(torch.initial_seed())
        while True:
            start = int(random.integers(self.steps - 24))
            yield array[start : start + 24].values


class Contenders:
    """Each of `work` shows (or only reads) as many samples as `samples` says."""

    def __init__(self, path: Path, steps: int, buffer: int) -> None:
        self.source, self.buffer = open_store(path, steps), buffer
        self.bounds = self.stream().bounds.tolist()
        few = min(steps, 35_064)  # resident: four years
        self.data = torch.cat([self.source.read(a, a + 8766) for a in range(0, few - 8765, 8766)])
        starts = np.arange(len(self.data) - 23)
        self.resident = ResidentFeed(self.data, starts, TASK, BATCH)
        self.order = np.random.default_rng(1).permutation(starts)[: 400 * BATCH].reshape(400, BATCH)
        self.rows = torch.from_numpy(self.order[:, :, None] + np.arange(24)).flatten(1)
        loader = torch.utils.data.DataLoader(
            Windows(path, steps), BATCH, num_workers=2, multiprocessing_context="spawn"
        )
        self.batches = iter(loader)
        next(self.batches)  # the processes start, and are not timed
        self.work: dict[str, Callable[[], object]] = {
            "index_select": lambda: [self.data.index_select(0, i) for i in self.rows][:0],
            "resident": lambda: [self.resident.batch(i) for i in range(400)][:0],
            "reading": self.read,
            "streaming": self.one_epoch,
            "xarray": self.sample_by_sample,
            "DataLoader": lambda: [next(self.batches) for _ in range(16)][:0],
            "pause": lambda: time.sleep(2),  # its workers fetch ahead, which the next would feel
        }
        self.samples = {
            "index_select": 400 * BATCH,
            "resident": 400 * BATCH,
            "reading": steps,
            "streaming": len(self.source.starts),
            "xarray": 4 * BATCH,
            "DataLoader": 16 * BATCH,
        }

    def stream(self) -> StreamingFeed:
        return StreamingFeed(self.source, batch_size=BATCH, buffer=self.buffer)

    def read(self) -> None:
        variable = self.source.ds["counted"].variable
        for first, stop in itertools.pairwise(self.bounds):
            variable[first:stop].to_numpy()

    def one_epoch(self) -> None:
        with self.stream() as feed:
            for step in range(feed.steps_per_epoch):
                feed.batch(step)

    def sample_by_sample(self) -> None:
        array = self.source.ds["counted"]
        for starts in self.order[:4]:
            torch.from_numpy(np.stack([array[s : s + 24].values for s in starts]))


def first_batch(path: Path, steps: int) -> float:
    """Seconds from the path of a store to its first batch, with the default buffer."""
    begin = time.perf_counter()
    with StreamingFeed(open_store(path, steps), batch_size=BATCH) as feed:
        feed.batch(0)
        return time.perf_counter() - begin


def resident_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def epoch(path: Path, buffer: int) -> dict[str, float]:
    """Stream all of a store once, in a process of its own: count windows, watch the memory."""
    source = open_store(path)
    source.read(0, CHUNK)  # the libraries that read are not the feed's
    before, memory, torn = resident_memory(), [], 0
    counts = np.zeros(source.shape[0], dtype=np.int32)
    begin = time.perf_counter()
    with StreamingFeed(source, batch_size=BATCH, buffer=buffer) as feed:
        for step in range(feed.steps_per_epoch):
            x, y = feed.batch(step)
            number = x[:, 0, 0, 0, 0].numpy().astype(np.int64)
            torn += int((y[:, -1, 0, 0, 0].numpy() != number + 23).sum())
            np.add.at(counts, number, 1)
            if step % 50 == 0:
                memory.append(resident_memory())
    once = np.zeros_like(counts)
    once[source.starts] = 1
    late = memory[len(memory) // 4 :]
    return {
        "wrong": int((counts != once).sum()) + torn,
        "windows": len(source.starts),
        "over": (max(memory) - before - buffer) / MB,
        "drift": (max(late) - min(late)) / MB,
        "rate": len(source.starts) / (time.perf_counter() - begin),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit 1 where a figure falls short")
    parser.add_argument("--quick", action="store_true", help="0.6 GB in place of 12, fewer rounds")
    parser.add_argument("--store", type=Path, help="directory to keep the store in")
    parser.add_argument("--rounds", type=int, help="turns of each (7; 3 with --quick)")
    parser.add_argument("--epoch-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--buffer", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.epoch_of:
        print(json.dumps(epoch(options.epoch_of, options.buffer)))
        return

    steps = int((0.6e9 if options.quick else 12e9) // STEP_BYTES)
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}")
    table = Table()
    place = nullcontext(options.store) if options.store else tempfile.TemporaryDirectory()
    with place as directory:
        path = Path(directory) / f"counted_{steps}.zarr"
        if not (path / "complete").exists():
            make_store(path, steps)
        some = min(steps, 4 * 35_064)
        contenders = Contenders(path, some, 128 * MB)
        seconds = interleaved(contenders.work, options.rounds or (3 if options.quick else 7))
        rate = {name: n / seconds[name] for name, n in contenders.samples.items()}
        for name, other, target in (
            ("resident", "index_select", 0.9),
            ("streaming", "reading", 0.7),
            ("streaming", "xarray", 20),
            ("streaming", "DataLoader", 10),
        ):
            note = f"{rate[name]:,.0f} and {rate[other]:,.0f} samples/s"
            table.add(f"{name} / {other}", rate[name] / rate[other], target, note)
        few = min(FORTY_YEARS, steps)
        table.add(
            "first batch, s", first_batch(path, few), 5, f"of {few / 8766:.0f} years", most=True
        )
        buffer = (64 if options.quick else 512) * MB
        command = [sys.executable, __file__, "--epoch-of", str(path), "--buffer", str(buffer)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    note = f"buffer of {buffer // MB} MiB; moves by {found['drift']:.0f} MiB after a quarter"
    table.add("memory over the buffer, MiB", found["over"], 200, note, most=True)
    note = f"of {found['windows']:,}, {found['rate']:,.0f} samples/s"
    table.add("windows not seen exactly once, or torn", found["wrong"], 0, note, most=True)
    table.finish(options.check)


if __name__ == "__main__":
    main()
