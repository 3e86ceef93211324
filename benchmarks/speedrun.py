"""Trains SimVPv2-S on Moving MNIST by the paper's protocol, as fast as the device can.

    python benchmarks/speedrun.py --task moving_mnist --minutes 9 --resume

and the same command again until it says that it is done. Needs torch, numpy, safetensors and
MNIST's four IDX files alone (`--data DIR`, ../shared/data/mnist unless given).

The protocol: 10 -> 10 frames of 64 x 64, 46.8 M parameters, 200 epochs of 10,000 sequences that are
drawn anew and never shown twice, batch 16, Adam, one cycle of the learning rate up to 1e-3, mean
square error of frames on [0, 1]. The published figure: MSE 26.6, summed over the pixels of a frame,
on 10,000 sequences of test digits, after 200 epochs of 156 s on a V100, 8.7 hours. Nothing is
chosen on the test digits: validation, by which the curve is drawn, has digits of its own.

The fast path: channels-last, bf16 autocast with float32 weights, fused Adam, a compiled network
(CUDA graphs where `--compile max`), sequences drawn ahead by a thread as bytes and scaled on the
device; the host waits for the device when a line is printed, and not else.

Writes `speedrun.json`, `curve.csv`, `curve.png` (where matplotlib is installed) and `state/`, from
which `--resume` goes on, to `--output` (or $OUT).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from _table import interleaved, machine  # noqa: E402

from stforecast.datasets.moving_mnist_generator import generate, load_digits  # noqa: E402
from stforecast.models import SimVPv2, summary  # noqa: E402
from stforecast.training.schedule import schedule  # noqa: E402

SHAPE = (10, 1, 64, 64)
EPOCH = 10_000  # sequences
TARGET, PAPER_HOURS = 26.6, 200 * 156 / 3600
AHEAD = 4  # blocks of sequences that are drawn before they are needed
BLOCK = 32  # batches in one
#: For trying it out.
SMALL = {"encoder_channels": 8, "translator_channels": 16, "translator_blocks": 2, "mlp_ratio": 2.0}


class Sequences:
    """Batches of new sequences: step n shows those numbered from n times the batch size."""

    def __init__(self, images: np.ndarray, batch: int, seed: int, device: torch.device) -> None:
        self.images, self.batch, self.seed, self.device = images, batch, seed, device

    def draw(self, first: int, n: int) -> Tensor:
        pin = self.device.type == "cuda"
        block = torch.empty(n, 20, 64, 64, dtype=torch.uint8, pin_memory=pin)
        generate(self.images, range(first, first + n), seed=self.seed, out=block.numpy())
        return block

    def steps(self, begin: int, end: int) -> Iterator[Tensor]:
        """Bytes (B, 20, 1, 64, 64) on the device."""
        size = self.batch * BLOCK
        with ThreadPoolExecutor(1) as pool:
            firsts = range(begin * self.batch, end * self.batch, size)
            ends = [min(first + size, end * self.batch) for first in firsts]
            jobs = [(first, stop - first) for first, stop in zip(firsts, ends, strict=True)]
            coming = [pool.submit(self.draw, *job) for job in jobs[:AHEAD]]
            try:
                for i in range(len(jobs)):
                    block = coming.pop(0).result()
                    if i + AHEAD < len(jobs):
                        coming.append(pool.submit(self.draw, *jobs[i + AHEAD]))
                    block = block.to(self.device, non_blocking=True)[:, :, None]
                    yield from block.split(self.batch)
            finally:
                for job in coming:
                    job.cancel()


def score(network: nn.Module, images: np.ndarray, split: str, n: int, run: Any) -> float:
    """Mean square error, summed over the pixels of a frame, over `n` sequences."""
    network.eval()
    total = torch.zeros((), dtype=torch.float64, device=run.device)
    with torch.no_grad():
        for first in range(0, n, 100):
            numbers = range(first, min(first + 100, n))
            frames = torch.from_numpy(generate(images, numbers, seed=0, split=split))  # type: ignore[arg-type]
            x, y = (frames.to(run.device)[:, :, None].float() / 255).split(10, dim=1)
            with torch.autocast(run.device.type, torch.bfloat16, enabled=run.half):
                prediction = network(x)
            total += (prediction.float() - y).square().sum(dtype=torch.float64)
    network.train()
    return float(total) / (10 * n)


def compiled(network: nn.Module, how: str, half: bool, batch: int, device: torch.device) -> Any:
    """The network as it is called in training: compiled where that works and is asked for."""
    if how == "never" or (how == "auto" and device.type != "cuda"):
        return network
    options: dict[str, Any] = {"mode": "max-autotune"} if how == "max" else {}
    call = torch.compile(network, dynamic=False, **options)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:  # it is compiled when it is called, and not every machine can
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            x, _ = torch.zeros(batch, 20, *SHAPE[1:], device=device).split(10, dim=1)
            call(x).float().square().mean().backward()  # in memory as in training
    except Exception as error:
        print(f"not compiled: {type(error).__name__}: {str(error).splitlines()[0]}")
        call = network
    network.zero_grad(set_to_none=True)
    for name, buffer in network.named_buffers():  # of batch normalisation
        buffer.copy_(before[name])
    return call


def save(run: Any, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the state of the run under another name, and rename it."""
    from safetensors.torch import save_file

    new, there = run.output / "state.part", run.output / "state"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if run.device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(run.device)
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, new / "state.safetensors")
    state = {"step": run.step, "seconds": run.seconds, "wall": run.wall + run.clock()}
    state |= {"curve": run.curve, "settings": run.settings}
    (new / "state.json").write_text(json.dumps(state))
    if there.exists():
        shutil.rmtree(run.output / "state.old", ignore_errors=True)
        there.rename(run.output / "state.old")
    new.rename(there)
    shutil.rmtree(run.output / "state.old", ignore_errors=True)


def restore(run: Any, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Go on from what `save` wrote."""
    from safetensors.torch import load_file

    there = run.output / "state"
    if not there.exists() and (run.output / "state.old").exists():  # killed between two names
        there = run.output / "state.old"
    if not there.exists():
        return
    state = json.loads((there / "state.json").read_text())
    if state["settings"] != run.settings:
        sys.exit(f"{there} holds a run with other settings: {state['settings']}")
    tensors = load_file(there / "state.safetensors")
    network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
    saved = optimizer.state_dict()
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            saved["state"].setdefault(int(i), {})[key] = value
    optimizer.load_state_dict(saved)
    for parameter, moments in optimizer.state.items():  # in memory as the weights are
        for key, value in moments.items():
            if value.shape == parameter.shape:
                moments[key] = torch.empty_like(parameter).copy_(value)
    torch.set_rng_state(tensors["rng.cpu"])
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["rng.cuda"], run.device)
    run.step, run.seconds, run.curve = state["step"], state["seconds"], state["curve"]
    run.wall = state["wall"]
    print(f"going on from step {run.step} of {run.steps}, after {run.seconds / 60:.1f} minutes")


def report(run: Any, flops: float, peak: float) -> dict[str, Any]:
    """Write what is known so far: JSON, the curve, its picture."""
    rate = run.samples / run.training if run.training else float("nan")
    reached = next((row["minutes"] for row in run.curve if row["val_mse"] <= TARGET), None)
    ahead = (run.steps - run.step) * run.batch / rate / 60 if run.training else float("nan")
    result = {
        "machine": machine(),
        "settings": run.settings,
        "step": run.step,
        "steps": run.steps,
        "samples_per_s": rate,
        "share_of_bf16_rate": 3 * flops * rate / peak,
        "bf16_rate_tflops": peak / 1e12,
        "minutes": run.seconds / 60,
        "minutes_with_compiling_and_validation": (run.wall + run.clock()) / 60,
        "minutes_for_all": run.seconds / 60 + ahead,
        "paper_minutes": PAPER_HOURS * 60,
        "minutes_to_26.6": reached,
        "val_mse": run.curve[-1]["val_mse"] if run.curve else None,
        "test_mse": run.test_mse,
        "done": run.step == run.steps,
    }
    run.output.mkdir(parents=True, exist_ok=True)
    (run.output / "speedrun.json").write_text(json.dumps(result, indent=1) + "\n")
    with (run.output / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "minutes", "loss", "val_mse"])
        writer.writeheader()
        writer.writerows(run.curve)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return result
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.add_subplot()
    minutes, mse = ([row[k] for row in run.curve] for k in ("minutes", "val_mse"))
    ax.plot(minutes, mse, "o-", markersize=3, label="validation digits")
    ax.axhline(TARGET, color="0.5", linestyle="--", label="the paper's, after 8.7 hours on a V100")
    ax.set(xlabel="Minutes of training", ylabel="MSE, summed over a frame", yscale="log")
    ax.legend(frameon=False)
    figure.savefig(run.output / "curve.png", dpi=130)
    return result


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run until done, or until the minutes are over."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--task", choices=["moving_mnist"], default="moving_mnist")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"))
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", "runs/speedrun")))
    parser.add_argument("--minutes", type=float, help="of this call, all included")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --output")
    parser.add_argument("--epochs", type=float, default=200, help="of 10,000 sequences")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--val-every", type=int, help="steps; four epochs unless given")
    parser.add_argument("--val-sequences", type=int, default=1000)
    parser.add_argument("--test-sequences", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--compile", choices=["auto", "max", "never"], default="auto")
    parser.add_argument("--small", action="store_true", help="a small network, to try it out")
    options = parser.parse_args(arguments)
    began = time.monotonic()

    device = torch.device(options.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    half, batch = options.precision == "bf16", options.batch_size
    steps = max(1, round(options.epochs * EPOCH / batch))
    digits = {name: load_digits(options.data, name) for name in ("train", "validation", "test")}
    names = ("epochs", "batch_size", "learning_rate", "seed", "precision", "small")
    run = SimpleNamespace(
        output=options.output,
        device=device,
        half=half,
        batch=batch,
        steps=steps,
        step=0,
        seconds=0.0,  # of training, in all calls
        wall=0.0,  # of all earlier calls
        clock=lambda: time.monotonic() - began,
        curve=[],
        test_mse=None,
        settings={name: getattr(options, name) for name in names},
        samples=0,  # of this call, in `training` seconds
        training=0.0,
    )

    torch.manual_seed(options.seed)
    network = SimVPv2.for_benchmark("moving_mnist", **(SMALL if options.small else {}))
    flops = summary(network, (1, *SHAPE)).torch_flops
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(
        network.parameters(), lr=options.learning_rate, fused=device.type == "cuda"
    )
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    peak = 2 * n**3 / interleaved({"product": lambda: a @ a}, 5, wait)["product"]
    call = compiled(network, options.compile, half, batch, device)
    torch.manual_seed(options.seed)
    if options.resume:
        restore(run, network, optimizer)
    elif (run.output / "state").exists():
        sys.exit(f"{run.output} holds a run: give --resume, or another --output")
    if run.step == steps:
        print(f"all {steps} steps are done: see {run.output / 'speedrun.json'}")
        return json.loads((run.output / "speedrun.json").read_text())
    print(f"{machine()}; {peak / 1e12:.3g} Tflop/s in bf16; ready after {run.clock():.0f} s")

    config: Any = SimpleNamespace(schedule="onecycle", learning_rate=options.learning_rate)
    every = options.val_every or round(4 * EPOCH / batch)
    images = Sequences(digits["train"], batch, options.seed, device)
    loss_sum, losses, since = torch.zeros((), device=device), 0, time.monotonic()
    for frames in images.steps(run.step, steps):
        x, y = (frames.float() / 255).split(10, dim=1)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            prediction = call(x)
        loss = (prediction.float() - y).square().mean()
        loss.backward()
        rate, beta = schedule(config, run.step, steps, EPOCH // batch)
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = rate, (beta, 0.999)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss_sum, losses, run.step = loss_sum + loss.detach(), losses + 1, run.step + 1

        over = options.minutes is not None and run.clock() > 57 * options.minutes
        last = run.step == steps
        if over or last or run.step % every == 0:
            mean_loss = float(loss_sum) / losses  # the host waits for the device here
            took = time.monotonic() - since
            run.seconds += took
            run.samples, run.training = run.samples + losses * batch, run.training + took
            valid = score(network, digits["validation"], "validation", options.val_sequences, run)
            row = {"step": run.step, "minutes": run.seconds / 60, "loss": mean_loss}
            run.curve.append(row | {"val_mse": valid})
            print(
                f"step {run.step} of {steps}: loss {mean_loss:.5f}, validation MSE {valid:.2f}, "
                f"{losses * batch / took:.1f} samples/s, {run.seconds / 60:.2f} minutes",
                flush=True,
            )
            if last:
                run.test_mse = score(network, digits["test"], "test", options.test_sequences, run)
            result = report(run, flops, peak)
            save(run, network, optimizer)
            loss_sum, losses, since = torch.zeros((), device=device), 0, time.monotonic()
        if over and not last:
            break
    print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
