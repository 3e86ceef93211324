"""The recurrent networks of `model.py`: what is timed beside what, on Moving MNIST."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from reference_recurrent import NETWORKS, Plain
from torch import Tensor, nn

from stforecast.models import for_inference, summary
from stforecast.models.recurrent.sampling import draw
from stforecast.models.registry import network_class

#: Network, and sizes by the public code's names.
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "convlstm_s": ("ConvLSTM", {"num_hidden": "64,64,64,64"}),
    "predrnn": ("PredRNN", {"num_hidden": "128,128,128,128"}),
    "predrnn_v2": ("PredRNNv2", {"num_hidden": "128,128,128,128"}),
    "phydnet": ("PhyDNet", {}),
    "mau": ("MAU", {"num_hidden": "64,64,64,64"}),
}
NAMES = tuple(SIZES)
SHAPE = (10, 1, 64, 64)
TARGET_STEPS = 10
#: Ratios to reach, (float32, bf16); memory at most.
TARGETS: dict[str, Any] = {"train": (1.3, 2.0), 1: (1.2, 1.6), 16: (1.3, 2.0), "memory": 0.8}
Step = Callable[[], Tensor]


class Peer(nn.Module):
    """A network of the authors' checkout, called like :class:`reference_recurrent.Plain`."""

    def __init__(self, name: str, device: torch.device) -> None:
        super().__init__()
        from openstl import models  # type: ignore[import-not-found]

        kind, sizes = SIZES[name]
        configs = SimpleNamespace(
            in_shape=SHAPE,
            pre_seq_length=SHAPE[0],
            aft_seq_length=TARGET_STEPS,
            total_length=SHAPE[0] + TARGET_STEPS,
            patch_size=1 if kind == "MAU" else 4,
            filter_size=5,
            stride=1,
            layer_norm=0,
            reverse_scheduled_sampling=int(kind == "PredRNNv2"),
            decouple_beta=0.1,
            sr_size=4,
            tau=5,
            cell_mode="normal",
            model_mode="normal",
            device=device,
        )
        made, self.configs = getattr(models, f"{kind}_Model"), configs
        self.one_by_one = kind == "PhyDNet"
        widths = [int(n) for n in sizes.get("num_hidden", "").split(",") if n]
        self.network = made(configs) if self.one_by_one else made(len(widths), widths, configs)
        self.plain = Plain(SHAPE, TARGET_STEPS, configs.patch_size)  # for its patches

    def loss(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """What that code makes small."""
        if self.one_by_one:
            wanted = torch.eye(49, device=x.device).unflatten(1, (7, 7))
            return self.network(x, y, wanted, teacher_forcing_ratio=1.0)
        full = self.plain.cut(torch.cat([x, y], dim=1)).permute(0, 1, 3, 4, 2)
        fed = mask[:, :, None, None, None].expand(-1, -1, *full.shape[2:])
        return self.network(full, fed)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Forecast."""
        y = x.new_zeros(len(x), TARGET_STEPS, *SHAPE[1:])
        if self.one_by_one:
            return self.network.inference(x, y, None, return_loss=False)[0]  # type: ignore[operator]
        full = self.plain.cut(torch.cat([x, y], dim=1)).permute(0, 1, 3, 4, 2)
        steps = TARGET_STEPS - 1 + self.configs.reverse_scheduled_sampling * (SHAPE[0] - 1)
        fed = full.new_zeros(len(x), steps, *full.shape[2:])
        fed[:, : steps - TARGET_STEPS + 1] = 1.0
        return self.network(full, fed, return_loss=False)[0][:, -TARGET_STEPS:]


def networks(name: str, peer: Path | None, device: torch.device) -> tuple[nn.Module, Any]:
    """Make the reference and ours."""
    torch.manual_seed(0)
    kind, sizes = SIZES[name]
    ours = network_class(kind).for_benchmark("moving_mnist")
    if peer is not None:
        sys.path.insert(0, str(peer))
        try:
            reference: nn.Module = Peer(name, device)
        except ImportError as error:
            sys.exit(f"{peer} is no working checkout of OpenSTL: {error}")
        return reference.to(device), ours.to(device)
    reference = NETWORKS[kind](SHAPE, TARGET_STEPS, **sizes)
    count, own = (
        sum(p.numel() for p in net.parameters() if p.requires_grad) for net in (reference, ours)
    )
    if count != own:
        raise SystemExit(f"{name}: the reference has {count:,} numbers to learn, ours has {own:,}")
    return reference.to(device), ours.to(device)


def training_step(loss: Callable[[], Tensor], network: nn.Module, *, fused: bool) -> Step:
    """Forward, loss, backward, optimiser."""
    alive = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(alive, lr=1e-4, **({"fused": True} if fused else {}))
    network.train()

    def step() -> Tensor:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    return step


def trainers(name: str, peer: Path | None, device: torch.device, batch: int) -> dict[str, Step]:
    """The three training steps that are compared, at the start of a training."""
    reference, ours = networks(name, peer, device)
    x = torch.rand(batch, *SHAPE, device=device)
    y = torch.rand(batch, TARGET_STEPS, *SHAPE[1:], device=device)
    truth = torch.cat([x, y], dim=1)[:, 1:]
    rates = ours.sampling.rates(0, SHAPE[0], TARGET_STEPS)
    mask = draw(rates, batch, torch.Generator().manual_seed(0)).to(device)

    def plain() -> Tensor:
        if isinstance(reference, Peer):
            return reference.loss(x, y, mask.float())
        frames, extra = reference(x, y, mask.float())
        return ((frames - truth) ** 2).mean() + extra

    def own(network: Any, half: bool) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            frames, extra = network.teach(x, y, 0, mask=mask)
        return ((frames.float() - truth) ** 2).mean() + extra

    fused = device.type == "cuda"  # as in fit()
    steps = {"reference": training_step(plain, reference, fused=False)}
    for precision in ("fp32", "bf16"):
        network, half = copy.deepcopy(ours), precision == "bf16"
        for weight in network.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        work = lambda network=network, half=half: own(network, half)  # noqa: E731
        steps[precision] = training_step(work, network, fused=fused)
    return steps


def forecasters(name: str, peer: Path | None, device: torch.device, batch: int) -> dict[str, Step]:
    """The three forecasts that are compared."""
    reference, ours = networks(name, peer, device)
    reference.eval()
    ours.to(memory_format=torch.channels_last).eval()
    x = torch.rand(batch, *SHAPE, device=device)
    quick = {p: for_inference(ours, precision=p, samples=10**6) for p in ("fp32", "bf16")}

    def plain() -> Tensor:
        with torch.inference_mode():
            out = reference(x)
            return out if isinstance(out, Tensor) else out[0]

    return {"reference": plain, **{p: lambda net=net: net(x) for p, net in quick.items()}}  # type: ignore[misc]


def operations(name: str) -> float:
    """Floating-point operations of a forecast, by torch's counter."""
    model = network_class(SIZES[name][0]).for_benchmark("moving_mnist").eval()
    return summary(model, (1, *SHAPE)).torch_flops
