"""Trains SimVPv2-S on Moving MNIST by the paper's protocol with `fit`, as fast as the device can.

    python benchmarks/speedrun.py --task moving_mnist --minutes 9 --resume

and the same command again until it says that it is done. Needs torch, numpy, xarray, pandas,
safetensors and MNIST's four IDX files alone (`--data DIR`, ../shared/data/mnist unless given).

The protocol: 10 -> 10 frames of 64 x 64, 46.8 M parameters, 200 epochs of 10,000 sequences that are
drawn anew and never shown twice, batch 16, Adam, one cycle of the learning rate up to 1e-3, mean
square error (in standard deviations, as `fit` has it). The published figure: MSE 26.6, summed over
the pixels of a frame, on 10,000 sequences of test digits, after 200 epochs of 156 s on a V100, 8.7
hours. Nothing is chosen on the test digits: validation has digits of its own.

Only the feed is special: a thread draws sequences ahead, as bytes that are scaled on the device.
Writes `speedrun.json`, `curve.csv`, `curve.png` (where matplotlib is installed) and `run/`, from
which `--resume` goes on, to `--output` (or $OUT).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from _table import interleaved, machine  # noqa: E402

from stforecast import Task, TrainConfig, fit  # noqa: E402
from stforecast.datasets import open_moving_mnist  # noqa: E402
from stforecast.datasets.moving_mnist_generator import generate, load_digits  # noqa: E402
from stforecast.loading.base import Feed  # noqa: E402
from stforecast.loading.feeds import open_feed  # noqa: E402
from stforecast.models import SimVPv2, summary  # noqa: E402
from stforecast.training import read_log  # noqa: E402
from stforecast.training.validation import Validation  # noqa: E402

TASK = Task("intensity", input_steps=10, target_steps=10, timestep="1s")
EPOCH, PIXELS = 10_000, 64 * 64  # sequences, and of a frame
TARGET, PAPER_HOURS = 26.6, 200 * 156 / 3600
AHEAD, BLOCK = 4, 32  # blocks that are drawn before they are needed, and batches in one
#: For trying it out.
SMALL = {"encoder_channels": 8, "translator_channels": 16, "translator_blocks": 2, "mlp_ratio": 2.0}


class Sequences(Feed):
    """New sequences in each step: step n shows those numbered from n times the batch size."""

    kind = "stream"
    thinning = 25

    def __init__(self, images: np.ndarray, batch: int, seed: int, device: torch.device) -> None:
        full = EPOCH // batch * batch  # no smaller batch at the end of an epoch
        super().__init__(np.arange(full) * TASK.window, TASK, batch, seed, True, 0, 1)
        self.images, self.device = images, device
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._coming: dict[int, Future[Tensor]] = {}
        self._block, self._bytes = -1, torch.empty(0)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, 10, 1, 64, 64) in [0, 1]."""
        block, position = divmod(step, BLOCK)
        if block != self._block:
            wanted = range(block, block + AHEAD + 1)
            old, self._coming = self._coming, {}
            for n in wanted:
                self._coming[n] = old.get(n) or self._pool.submit(self._draw, n)
            self._bytes = self._coming[block].result().to(self.device, non_blocking=True)
            self._block = block
        frames = self._bytes[position * self.batch_size :][: self.batch_size, :, None]
        x, y = (frames.float() / 255).split(10, dim=1)
        return x, y

    def sweep(self) -> Iterator[tuple[int, int, Tensor]]:
        """Some of the first sequences, for mean and standard deviation."""
        for first in range(0, EPOCH, 100 * self.thinning):
            frames = generate(self.images, range(first, first + 100), seed=self.seed)
            values = torch.from_numpy(frames).flatten(0, 1)[:, None].float() / 255
            yield first * TASK.window, 0, values

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)

    def _draw(self, block: int) -> Tensor:
        first, n = block * BLOCK * self.batch_size, BLOCK * self.batch_size
        shape = (n, TASK.window, 64, 64)
        frames = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        generate(self.images, range(first, first + n), seed=self.seed, out=frames.numpy())
        return frames


def report(output: Path, known: dict[str, Any], share: float) -> dict[str, Any]:
    """Write what is known so far: JSON, the curve, its picture. `share` is that of a sample/s."""
    log = read_log(output / "run")
    curve = []
    for line in (line for line in log if "val_rmse" in line):
        row = {"step": line["step"], "minutes": line["seconds"] / 60, "loss": line["loss"]}
        curve.append(row | {"val_mse": PIXELS * line["val_rmse"] ** 2})
    rate = statistics.median([line["samples_per_s"] for line in log] or [known["samples_per_s"]])
    minutes = log[-1]["seconds"] / 60 if log else known["minutes"]
    ahead = (known["steps"] - known["step"]) * known["settings"]["batch_size"]
    result = known | {
        "samples_per_s": rate,
        "share_of_bf16_rate": share * rate,
        "minutes": minutes,
        "minutes_for_all": minutes + ahead / rate / 60,
        "paper_minutes": PAPER_HOURS * 60,
        "minutes_to_26.6": next((r["minutes"] for r in curve if r["val_mse"] <= TARGET), None),
        "val_mse": curve[-1]["val_mse"] if curve else None,
        "done": known["test_mse"] is not None,
    }
    (output / "speedrun.json").write_text(json.dumps(result, indent=1) + "\n")
    with (output / "curve.csv").open("w", newline="") as file:
        rows = [["step", "minutes", "loss", "val_mse"], *(row.values() for row in curve)]
        csv.writer(file).writerows(rows)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return result
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.add_subplot()
    x, mse = ([row[k] for row in curve] for k in ("minutes", "val_mse"))
    ax.plot(x, mse, "o-", markersize=3, label="validation digits")
    ax.axhline(TARGET, color="0.5", linestyle="--", label="the paper's, after 8.7 hours on a V100")
    ax.set(xlabel="Minutes of training", ylabel="MSE, summed over a frame", yscale="log")
    ax.legend(frameon=False)
    figure.savefig(output / "curve.png", dpi=130)
    return result


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run until done, or until the minutes are over."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--task", choices=["moving_mnist"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"))
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", "runs/speedrun")))
    parser.add_argument("--minutes", type=float, help="of this call, all included")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument("--epochs", type=float, default=200, help="of 10,000 sequences")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--val-every", type=int, help="steps; four epochs unless given")
    parser.add_argument("--val-sequences", type=int, default=1000)
    parser.add_argument("--test-sequences", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--compile", choices=["auto", "always", "graphs", "never"], default="auto")
    parser.add_argument("--small", action="store_true", help="a small network, to try it out")
    options = parser.parse_args(arguments)
    began, output, run_dir = time.monotonic(), options.output, options.output / "run"
    if run_dir.exists() and not options.resume:
        sys.exit(f"{output} holds a run: give --resume, or another --output")

    device, batch = torch.device(options.device), options.batch_size
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    network = partial(SimVPv2.for_benchmark, "moving_mnist", **(SMALL if options.small else {}))
    flops = summary(network(), (1, 10, 1, 64, 64)).torch_flops
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    peak = 2 * n**3 / interleaved({"product": lambda: a @ a}, 5, wait)["product"]
    print(f"{machine()}; {peak / 1e12:.3g} Tflop/s in bf16", flush=True)

    clock = lambda: (time.monotonic() - began) / 60  # noqa: E731
    config = TrainConfig(
        steps=max(1, round(options.epochs * EPOCH / batch)),
        batch_size=batch,
        learning_rate=options.learning_rate,
        precision=options.precision,
        compile=options.compile,
        validate_every=options.val_every or round(4 * EPOCH / batch),
        val_windows=options.val_sequences,
        minutes=options.minutes and max(0.95 * options.minutes - clock(), 1e-9),
        seed=options.seed,
        device=options.device,
    )
    names = ("epochs", "batch_size", "learning_rate", "seed", "precision", "compile", "small")
    known: dict[str, Any] = {
        "machine": machine(),
        "settings": {name: getattr(options, name) for name in names},
        "step": 0,
        "steps": config.steps,
        "minutes": 0.0,
        "samples_per_s": float("nan"),
        "bf16_rate_tflops": peak / 1e12,
        "test_mse": None,
    }
    share, seen = 3 * flops / peak, 0  # forward and backward take three times the forward pass

    def step_done(event: dict[str, Any]) -> None:
        nonlocal seen
        seen += event["samples"]
        known.update(step=event["step"], minutes=clock(), samples_per_s=seen / clock() / 60)
        if "val_rmse" in event:
            now = report(output, known, share)
            print(
                f"step {event['step']} of {event['steps']}: loss {event['loss']:.5f}, validation "
                f"MSE {now['val_mse']:.2f}, {now['samples_per_s']:.1f} samples/s, "
                f"{100 * now['share_of_bf16_rate']:.1f}% of the bf16 rate, "
                f"{now['minutes']:.2f} minutes",
                flush=True,
            )

    draw = partial(open_moving_mnist, options.data, chunks=None)
    forecaster = fit(
        draw("train", sequences=EPOCH, seed=options.seed),  # the labels; the feed has the values
        TASK,
        model=network,
        config=config,
        validation=draw("validation", sequences=options.val_sequences),
        feed=Sequences(load_digits(options.data, "train"), batch, options.seed, device),
        run_dir=run_dir,
        progress=step_done,
    )
    kept = output / "speedrun.json"
    if not seen and kept.exists() and json.loads(kept.read_text())["done"]:
        print(f"all {config.steps} steps are done: see {kept}")
        return json.loads(kept.read_text())
    if "stopped" not in forecaster.training:
        test = draw("test", sequences=options.test_sequences)
        feed = partial(open_feed, task=TASK, batch_size=100, shuffle=False, device=device)
        error = Validation(test, forecaster, feed, device)()["val_rmse"]
        known |= {"step": config.steps, "test_mse": PIXELS * error**2}
    result = report(output, known, share)
    print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
