"""Times networks beside a plain reference: forecasts, training steps, peak memory.

    python benchmarks/model.py                  # all; about half an hour on two cores
    python benchmarks/model.py --only taxibj --rounds 10
    python benchmarks/model.py --only recurrent --rounds 2    # five networks, or name one
    python benchmarks/model.py --only graph --batch 8 --rounds 2     # three networks, or name one
    python benchmarks/model.py --check          # exit 1 where a figure falls short
    python benchmarks/model.py --peer DIR       # beside the authors' code in the checkout DIR

Needs torch, numpy and safetensors only. Each row is a ratio, the reference's median time over ours
(for memory, ours over the reference's), measured in turns in one process. The reference is
`reference.py` or `reference_recurrent.py`: eager float32 in the default layout, the way the
authors' code runs; of a graph network its plain form in `graph.py`. `of peak` is the share of the
device's matrix rate, measured at the start with a product of 4096 x 4096, that our time makes of
the network's multiplications; `limit` is the ratio at which that share would be one.
A forecast of batch 1 passes at its target or at 65% of peak, whichever is less.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import graph  # noqa: E402
import recurrent  # noqa: E402
from _table import Table, interleaved, machine  # noqa: E402
from reference import ReferenceSimVPv2  # noqa: E402

from stforecast.models import SimVPv2, for_inference  # noqa: E402
from stforecast.training.schedule import schedule  # noqa: E402

BENCHMARKS = ("taxibj", "weatherbench_t2m", "moving_mnist")
#: Ratios to reach, (float32, bf16) on a CPU and bf16 on a GPU.
TARGETS: dict[str, dict[str, Any]] = {
    "cpu": {"train": (1.4, 2.5), 1: (1.4, 2.5), 16: (None, None), 64: (2.0, 5.0), "memory": 0.7},
    "cuda": {
        "train": (None, 4.0),
        1: (None, 8.0),
        16: (None, None),
        64: (None, 4.0),
        "memory": 0.5,
    },
}
#: A forecast of one sample passes at this share of the matrix rate, too: no arithmetic is left
#: to save where weights are read once for each of few positions.
ROOFLINE = 0.65
REFERENCE_SETTINGS = (
    *("input_steps", "target_steps", "channels", "encoder_channels", "translator_channels"),
    *("encoder_layers", "translator_blocks", "mlp_ratio", "drop_path"),
    *("encoder_kernel", "decoder_kernel"),
)
# The authors' names of the same things (OpenSTL's SimVP_Model).
PEER_SETTINGS = {
    "hid_S": "encoder_channels",
    "hid_T": "translator_channels",
    "N_S": "encoder_layers",
    "N_T": "translator_blocks",
    "mlp_ratio": "mlp_ratio",
    "drop_path": "drop_path",
}
#: The network whose loss curves are compared.
SMALL = {
    "encoder_channels": 16,
    "translator_channels": 64,
    "translator_blocks": 4,
    "mlp_ratio": 4.0,
}
Step = Callable[[], Tensor]


def networks(name: str, peer: Path | None) -> tuple[nn.Module, SimVPv2, tuple[int, ...]]:
    """Make the reference and ours, with the same weights (not the peer), and (T, C, H, W)."""
    torch.manual_seed(0)
    ours = SimVPv2.for_benchmark(name)
    shape = (ours.input_steps, ours.settings["channels"], *ours.settings["grid"])
    if peer is not None:
        sys.path.insert(0, str(peer))
        try:
            from openstl.models import SimVP_Model  # type: ignore[import-not-found]
        except ImportError as error:
            sys.exit(f"{peer} is no working checkout of OpenSTL: {error}")
        settings = {theirs: ours.settings[k] for theirs, k in PEER_SETTINGS.items()}
        return SimVP_Model(in_shape=shape, model_type="gSTA", **settings), ours, shape
    reference = ReferenceSimVPv2(**{k: ours.settings[k] for k in REFERENCE_SETTINGS})
    reference.load_state_dict(ours.state_dict())
    return reference, ours, shape


def training_step(network: nn.Module, x: Tensor, y: Tensor, *, half: bool, fused: bool) -> Step:
    """Forward, loss, backward, schedule, optimiser: one step of the paper's training."""
    optimizer = torch.optim.Adam(
        network.parameters(), lr=1e-3, **({"fused": True} if fused else {})
    )
    config: Any = SimpleNamespace(schedule="onecycle", learning_rate=1e-3)
    count = 0
    network.train()

    def step() -> Tensor:
        nonlocal count
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            prediction = network(x)
        loss = ((prediction.float() - y) ** 2).mean()
        loss.backward()
        rate, beta = schedule(config, min(count, 999), 1000, 100)
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = rate, (beta, 0.999)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        count += 1
        return loss.detach()  # nobody waits for it

    return step


def trainers(name: str, peer: Path | None, device: torch.device, batch: int) -> dict[str, Step]:
    """The three training steps that are compared."""
    reference, ours, shape = networks(name, peer)
    ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(batch, *shape, device=device)
    y = torch.randn(batch, ours.target_steps, *shape[1:], device=device)
    half, fused = copy.deepcopy(ours), device.type == "cuda"  # as in fit()
    steps = {
        "reference": training_step(reference.to(device), x, y, half=False, fused=False),
        "fp32": training_step(ours.to(device), x, y, half=False, fused=fused),
    }
    half.to(device)
    quick = torch.compile(half, dynamic=False) if device.type == "cuda" else half
    return steps | {"bf16": training_step(quick, x, y, half=True, fused=fused)}


def forecasters(
    name: str, peer: Path | None, device: torch.device, batch: int
) -> dict[str, Callable[[], Tensor]]:
    """The three forecasts that are compared."""
    reference, ours, shape = networks(name, peer)
    reference.to(device).eval()
    ours.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    x = torch.randn(batch, *shape, device=device)
    quick = {p: for_inference(ours, precision=p, samples=10**6) for p in ("fp32", "bf16")}

    def plain() -> Tensor:
        with torch.inference_mode():
            return reference(x)

    return {"reference": plain, **{p: lambda net=net: net(x) for p, net in quick.items()}}  # type: ignore[misc]


def peak_memory(step: Step, device: torch.device) -> int:
    """Bytes that a training step has allocated at its peak, beyond what was there before it."""
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(size for _, size in changes))


def matrix_rate(
    device: torch.device,
    dtype: torch.dtype,
    wait: Callable[[], None],
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Operations a second of a large matrix product."""
    a = torch.randn(4096, 4096, device=device, dtype=dtype)
    return 2 * 4096**3 / interleaved({"product": lambda: a @ a}, 3, wait, clock)["product"]


def operations(name: str) -> float:
    """Floating-point operations of a forecast, by torch's counter on the plain formulas."""
    from stforecast.models import summary

    model = SimVPv2.for_benchmark(name).eval()
    return summary(
        model, (1, model.input_steps, model.settings["channels"], *model.settings["grid"])
    ).torch_flops


def same_training(table: Table, device: torch.device, steps: int) -> None:
    """Losses of the reference and of ours over `steps` steps on the same batches."""
    curves = {}
    for which in ("reference", "fp32", "bf16"):
        torch.manual_seed(1)
        ours = SimVPv2.for_benchmark("taxibj", drop_path=None, **SMALL)
        net: nn.Module = ours
        if which == "reference":
            net = ReferenceSimVPv2(**{k: ours.settings[k] for k in REFERENCE_SETTINGS})
            net.load_state_dict(ours.state_dict())
        net.to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(2)
        weights = torch.randn(4, 4, generator=generator).to(device)
        losses = []
        for _ in range(steps):  # forecast a fixed mixture of the inputs
            x = torch.randn(4, 4, 2, 32, 32, generator=generator).to(device)
            y = torch.einsum("ts,bschw->btchw", weights, x)
            with torch.autocast(device.type, torch.bfloat16, enabled=which == "bf16"):
                prediction = net(x)
            loss = ((prediction.float() - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
        curves[which] = torch.tensor(losses)
    last = steps // 5
    for which in ("fp32", "bf16"):
        ratio = float(curves[which][-last:].mean() / curves["reference"][-last:].mean())
        first = float(curves["reference"][:5].mean())
        note = f"loss {first:.3g} -> {float(curves['reference'][-last:].mean()):.3g}"
        table.add(f"loss after {steps} steps, {which} / reference", ratio, 1.05, note, most=True)


def main() -> None:
    """Measure, print, check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    choices = [*BENCHMARKS, "recurrent", *recurrent.NAMES, "graph", *graph.NAMES]
    parser.add_argument("--only", choices=choices, nargs="*", default=list(BENCHMARKS))
    parser.add_argument("--what", nargs="*", default=["1", "16", "64", "train", "memory", "loss"])
    parser.add_argument("--batch", type=int, default=16, help="of a training step")
    parser.add_argument("--rounds", type=int, default=10, help="timings of each; medians are shown")
    busy = "count processor time: for one thread (OMP_NUM_THREADS=1) beside other work"
    parser.add_argument("--busy", action="store_true", help=busy)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peer", type=Path, help="a checkout of the authors' code")
    parser.add_argument("--check", action="store_true", help="exit 1 where a figure falls short")
    parser.add_argument(
        "--memory-of", choices=("reference", "fp32", "bf16"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    device = torch.device(options.device)
    clock = time.process_time if options.busy else time.perf_counter
    if options.busy and (device.type != "cpu" or torch.get_num_threads() > 1):
        parser.error("--busy is for one thread of a CPU: set OMP_NUM_THREADS=1")
    groups: dict[str, Any] = {"recurrent": recurrent.NAMES, "graph": graph.NAMES}
    names = [n for o in options.only for n in groups.get(o, [o])]
    graphs = [n for n in names if n in graph.NAMES]
    names = [n for n in names if n not in graph.NAMES]
    if options.peer and names:  # or stop here
        if names[0] in recurrent.NAMES:
            recurrent.networks(names[0], options.peer, device)
        else:
            networks(names[0], options.peer)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    print(machine())
    rates = {
        name: matrix_rate(device, dtype, wait, clock)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    print(", ".join(f"{k} matrix rate {v / 1e9:.0f} G/s" for k, v in rates.items()), "\n")
    table = Table()
    for name in names:
        source: Any = recurrent if name in recurrent.NAMES else sys.modules[__name__]
        targets = recurrent.TARGETS if source is recurrent else TARGETS[device.type]
        cost = source.operations(name)
        for what in options.what:
            if what in ("memory", "loss") or (what == "64" and source is recurrent):
                continue
            batch = options.batch if what == "train" else int(what)
            make: Any = source.trainers if what == "train" else source.forecasters
            work = make(name, options.peer, device, batch)
            seconds = interleaved(work, options.rounds, wait, clock)
            total = cost * batch * (3 if what == "train" else 1)
            label = (
                f"training step, batch {batch}" if what == "train" else f"forecast, batch {batch}"
            )
            wanted = targets.get("train" if what == "train" else batch, (None, None))
            for precision, target in zip(("fp32", "bf16"), wanted, strict=True):
                best = total / rates[precision]
                limit = seconds["reference"] / best
                if what == "1" and target is not None:
                    target = min(target, ROOFLINE * limit)
                table.add(
                    f"{name}: {label}, {precision}",
                    seconds["reference"] / seconds[precision],
                    target,
                    f"{seconds['reference']:.3f} s -> {seconds[precision]:.3f} s; "
                    f"{best / seconds[precision]:.0%} of peak, "
                    f"limit {limit:.2f}",
                )
        if "memory" in options.what:
            steps = source.trainers(name, options.peer, device, options.batch)
            used = {which: peak_memory(step, device) for which, step in steps.items()}
            for precision in ("fp32", "bf16"):
                table.add(
                    f"{name}: peak memory of a training step, {precision}",
                    used[precision] / used["reference"],
                    targets["memory"],
                    f"{used['reference'] / 2**30:.2f} -> {used[precision] / 2**30:.2f} GiB",
                    most=True,
                )
    for name in graphs:
        steps = graph.trainers(name, device, options.batch)
        least, most = graph.NAMES[name][1:]
        if "train" in options.what:
            seconds = interleaved(steps, options.rounds, wait)
            table.add(
                f"{name}: training step, batch {options.batch}, fp32",
                seconds["reference"] / seconds["ours"],
                least,
                f"{seconds['reference']:.3f} s -> {seconds['ours']:.3f} s",
            )
        if "memory" in options.what:
            used = {which: peak_memory(step, device) for which, step in steps.items()}
            table.add(
                f"{name}: peak memory of a training step, fp32",
                used["ours"] / used["reference"],
                most,
                f"{used['reference'] / 2**30:.2f} -> {used['ours'] / 2**30:.2f} GiB",
                most=True,
            )
    if "loss" in options.what and set(names) & set(BENCHMARKS):
        same_training(table, device, 200)
    table.finish(options.check)


if __name__ == "__main__":
    main()
