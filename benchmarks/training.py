"""How much of the hardware's speed training keeps: `fit` beside the bare step of its network.

    python benchmarks/training.py               # about ten minutes on two cores
    python benchmarks/training.py --check       # exit 1 where a figure falls short
    python benchmarks/training.py --peer DIR    # beside the authors' network, fed as they feed it

`fit` runs as a user runs it: feed, normalisation, step, log, checkpoints on disk. The bare step is
forward, loss, backward and Adam of the same network on one batch that lies ready. They take turns;
a figure is the median over the turns, of steps after the first few. Resident: all data on the
device. Streaming: from a zarr store eight times as large as its buffer (from memory where zarr is
not installed). The network is the demo's, 1.6 M parameters, 12 -> 12 hours on 32 x 64 points,
batch 16; in bf16 where the device has it. `--peer` (a checkout of the authors' code) and
`--reference` (the plain network of `reference.py`) time the paper's network for this data set in
their way as well: eager float32, a DataLoader with two workers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from _table import Table, machine  # noqa: E402
from model import networks, training_step  # noqa: E402

from stforecast import Task, TrainConfig, fit  # noqa: E402
from stforecast.models import SimVPv2  # noqa: E402
from stforecast.models.surroundings import has_bf16  # noqa: E402
from stforecast.testing import make_weather  # noqa: E402

TASK = Task("2m_temperature", input_steps=12, target_steps=12, timestep="1h")
BATCH, SHAPE = 16, (32, 64)
WARM = 5  # steps of each turn that are not timed
NETWORK: dict[str, Any] = {
    "encoder_channels": 16,
    "translator_channels": 128,
    "translator_blocks": 6,
    "mlp_ratio": 4.0,
    "drop_path": 0.0,
    "circular_longitude": True,
    "predict_change": True,
}


def make_network() -> SimVPv2:
    return SimVPv2(12, 12, **NETWORK)


def data(directory: Path, steps: int) -> dict[str, xr.Dataset]:
    """Training data for the resident and for the streaming feed."""
    memory = make_weather(steps, shape=SHAPE)
    resident = memory.isel(time=slice(2048)).copy(deep=True)
    try:
        import zarr  # noqa: F401
    except ImportError:
        print("zarr is not installed: the stream reads from memory")
        return {"resident": resident, "streaming": memory}
    from stforecast.datasets import open_weatherbench

    memory.chunk(time=256).drop_encoding().to_zarr(directory / "weather.zarr", consolidated=False)
    stream = open_weatherbench(directory / "weather.zarr", ["2m_temperature"], chunks=None)
    return {"resident": resident, "streaming": stream}


class Fit:
    """Runs `fit` anew at each call, and keeps what its steps took."""

    def __init__(
        self,
        ds: xr.Dataset,
        config: TrainConfig,
        directory: Path,
        network: Callable[[], nn.Module] = make_network,
    ) -> None:
        self.ds, self.config, self.directory, self.network = ds, config, directory, network
        self.waiting: list[float] = []
        self.checkpoint: list[float] = []  # seconds that a step with a checkpoint took longer

    def __call__(self) -> float:
        """Seconds a step."""
        times: list[float] = []
        steps = self.config.steps
        assert steps is not None

        def step_done(event: dict[str, Any]) -> None:
            times.append(time.perf_counter())

        with tempfile.TemporaryDirectory(dir=self.directory) as run:
            fit(
                self.ds,
                TASK,
                model=self.network,
                config=self.config,
                run_dir=run,
                progress=step_done,
            )
            log = [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]
        self.waiting += [line["waiting"] for line in log if "waiting" in line]
        # The last step's checkpoint is written after the loop: it is in no step's time here.
        each = np.diff(times[WARM - 1 :])
        every = self.config.checkpoint_every or steps
        wrote = [t for n, t in enumerate(each, start=WARM + 1) if n % every == 0 and n < steps]
        self.checkpoint += [t - float(np.median(each)) for t in wrote]
        return float(each.mean())


def bare(device: torch.device, steps: int, half: bool) -> Callable[[], float]:
    """Seconds of the step alone."""
    torch.manual_seed(0)
    x, y = torch.randn(2, BATCH, 12, 1, *SHAPE, device=device).unbind()
    network = make_network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = training_step(network, x, y, half=half, fused=device.type == "cuda")

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def run() -> float:
        for i in range(steps):
            if i == WARM:
                wait()
                begin = time.perf_counter()
            step()
        wait()
        return (time.perf_counter() - begin) / (steps - WARM)

    return run


class Windows(torch.utils.data.Dataset):
    """The authors' data set: all years in memory, a window at a time."""

    def __init__(self, ds: xr.Dataset) -> None:
        values = ds["2m_temperature"].transpose("time", "latitude", "longitude").values
        values = values.astype(np.float32)[:, None]
        self.values = (values - values.mean()) / values.std()

    def __len__(self) -> int:
        return len(self.values) - 23

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(self.values[i : i + 12]), torch.tensor(self.values[i + 12 : i + 24])


def their_loop(
    network: nn.Module, ds: xr.Dataset, device: torch.device, steps: int
) -> Callable[[], float]:
    """Seconds a step of an eager float32 loop behind a DataLoader."""
    loader = torch.utils.data.DataLoader(
        Windows(ds),
        BATCH,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        multiprocessing_context="spawn",
        persistent_workers=True,
    )
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=10**6)

    def run() -> float:
        for i, (x, y) in enumerate(loader):
            if i == WARM:
                begin = time.perf_counter()
            if i == steps:
                break
            x, y = x.to(device), y.to(device)
            loss = ((network(x) - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss.item()
        return (time.perf_counter() - begin) / (steps - WARM)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit 1 where a figure falls short")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--steps", type=int, help="of a turn (CPU: 40, GPU: 400)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peer", type=Path, help="a checkout of the authors' code")
    parser.add_argument("--reference", action="store_true", help="time the plain loop as well")
    options = parser.parse_args()
    device = torch.device(options.device)
    steps = options.steps or (400 if device.type == "cuda" else 40)
    if steps < 4 * WARM:
        parser.error(f"--steps must be at least {4 * WARM}")
    half = has_bf16(device)
    print(f"{machine()}; {'bf16' if half else 'fp32'}")

    table = Table()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sets = data(directory, 8192 if device.type == "cpu" else 65536)
        config = partial(
            TrainConfig,
            steps=steps,
            batch_size=BATCH,
            checkpoint_every=steps // 2,
            device=str(device),
        )
        stream = sets["streaming"].sizes["time"] * 4 * SHAPE[0] * SHAPE[1] // 8
        fits = {
            "resident": Fit(sets["resident"], config(feed="resident"), directory),
            "streaming": Fit(sets["streaming"], config(feed="stream", buffer=stream), directory),
        }
        work: dict[str, Callable[[], float]] = {"bare": bare(device, steps, half), **fits}
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(options.rounds):
            for name, call in work.items():
                seconds[name].append(call())
        step = {name: statistics.median(values) for name, values in seconds.items()}
        for name, target in (("resident", 0.95), ("streaming", 0.9)):
            # Turn by turn: what slows the machine for a minute slows both.
            ratios = [b / s for b, s in zip(seconds["bare"], seconds[name], strict=True)]
            note = f"{BATCH / step[name]:.1f} of {BATCH / step['bare']:.1f} samples/s"
            table.add(f"fit, {name} / bare step", statistics.median(ratios), target, note)
            waiting = statistics.mean(fits[name].waiting)
            table.add(f"waiting for data, {name}, share of the time", waiting, None)
            cost = statistics.median(fits[name].checkpoint)
            table.add(
                f"what a checkpoint costs, {name}, s", cost, None, f"{step[name]:.3f} s a step"
            )
        if options.peer or options.reference:
            theirs, _, _ = networks("weatherbench_t2m", options.peer)
            plain = their_loop(theirs, sets["resident"], device, 20)
            ours = partial(SimVPv2.for_benchmark, "weatherbench_t2m")
            run = Fit(sets["resident"], config(steps=20, checkpoint_every=10), directory, ours)
            ratios, rate = [], 0.0
            for _ in range(min(options.rounds, 3)):
                a, b = plain(), run()
                ratios.append(a / b)
                rate = BATCH / b
            note = f"the paper's network for t2m, {rate:.1f} samples/s"
            table.add("fit / their loop, samples/s", statistics.median(ratios), None, note)
    table.finish(options.check)


if __name__ == "__main__":
    main()
