"""What a network costs: parameters, operations, memory, and how far it sees."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from . import kernels
from .inference import for_inference
from .layers import BATCH_NORMS
from .surroundings import own_defaults

_CONVOLUTIONS: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVOLUTIONS += (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# Operations an element of the output: how fvcore, the counter of the paper, books normalisation.
_NORMS: tuple[tuple[Any, int], ...] = (
    (BATCH_NORMS, 2),
    (nn.GroupNorm, 5),
    (nn.LayerNorm, 5),
)


@dataclass(frozen=True)
class Summary:
    """What :func:`summary` found for a network and an input shape.

    Attributes
    ----------
    parameters : int
        Learnable numbers.
    flops : int
        The paper's FLOPs: multiply-accumulates of one pass, as fvcore counts them.
    torch_flops : int
        What torch's ``FlopCounterMode`` counts in the whole forward pass: two operations for
        each multiply-accumulate of what is computed, normalisation not counted.
    passes : int
        Applications of the network, more than one for a SimVPv2 that forecasts more than T steps.
    activation_bytes : int
        What a training step keeps of the forward pass for the backward pass, parameters excluded.
    receptive_field : float or None
        Input pixels along an axis that an output pixel depends on, worked out from the kernels'
        sizes (see :attr:`SimVPv2.receptive_field`); infinite for global attention, None where the
        network does not tell.
    input_shape : tuple of int
        What all this holds for.
    """

    parameters: int
    flops: int
    torch_flops: int
    passes: int
    activation_bytes: int
    receptive_field: float | None
    input_shape: tuple[int, ...]

    def __str__(self) -> str:
        field = self.receptive_field
        if field is None:
            sees = "unknown"
        elif field >= max(self.input_shape[-2:]):
            sees = "the whole grid"
            sees += f" ({field:.0f} pixels)" if field != float("inf") else ""
        else:
            sees = f"{field:.0f} x {field:.0f} pixels"
        rows = (
            ("input", " x ".join(map(str, self.input_shape))),
            ("parameters", f"{self.parameters / 1e6:.3f} M"),
            ("FLOPs (MACs of a pass, as in the paper)", f"{self.flops / 1e9:.3f} G"),
            (f"FLOPs (torch's counter, passes: {self.passes})", f"{self.torch_flops / 1e9:.3f} G"),
            ("activations kept for training", f"{self.activation_bytes / 2**20:.1f} MiB"),
            ("receptive field", sees),
        )
        return "\n".join(f"{name:<40}  {value}" for name, value in rows)


def forecasts_per_second(
    network: nn.Module, input_shape: Sequence[int], *, seconds: float = 1.0
) -> float:
    """Time forecasts, in the quick form of the network that :func:`stforecast.predict` uses.

    Parameters
    ----------
    network : nn.Module
        On the device to be timed.
    input_shape : sequence of int
        (B, T, C, H, W); the paper's figures are for B = 1.
    seconds : float
        How long to go on, at least; two forecasts are made before.

    Returns
    -------
    float
        Forecasts, of all T' steps each, a second.
    """
    first = next(network.parameters(), torch.zeros(()))
    device, dtype = first.device, first.dtype if first.is_floating_point() else torch.float32
    training = network.training
    quick = for_inference(network.eval(), samples=1)
    x = torch.zeros(tuple(input_shape), dtype=dtype, device=device)

    def forecast() -> float:
        quick(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    with torch.inference_mode():
        forecast()
        began = now = forecast()
        count = 0
        while now - began < seconds:
            now, count = forecast(), count + 1
    network.train(training)
    return count * input_shape[0] / (now - began)


def summary(model: nn.Module, input_shape: Sequence[int]) -> Summary:
    """Count what a network costs, without computing anything.

    The network runs on torch's meta device, with shapes in the place of numbers: a model of 500 M
    parameters takes a second or two and no memory, and may be on the meta device itself. It runs in
    the mode it is in (`train` or `eval`).

    Parameters
    ----------
    model : nn.Module
        Any network; convolutions, linear layers, normalisation and attention are counted.
    input_shape : sequence of int
        (B, T, C, H, W). Operations and memory grow with B; the paper's figures are for B = 1.

    Returns
    -------
    Summary
        Print it, or read its fields.

    Examples
    --------
    >>> from stforecast.models import SimVPv2, summary
    >>> print(summary(SimVPv2.for_benchmark("taxibj"), (1, 4, 2, 32, 32)))  # doctest: +ELLIPSIS
    input                                     1 x 4 x 2 x 32 x 32
    parameters                                9.961 M
    ...
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    meta = {
        k: torch.empty_like(v, device="meta").requires_grad_(v.requires_grad)
        for k, v in tensors.items()
    }
    dtype = next((v.dtype for v in tensors.values() if v.is_floating_point()), torch.float32)
    x = torch.empty(tuple(input_shape), dtype=dtype, device="meta")

    by_module = 0  # multiply-accumulates of convolutions, and normalisation

    def count(module: nn.Module, inputs: Any, out: Any) -> None:
        nonlocal by_module
        times = int(getattr(module, "in_paper_flops", 1))
        if isinstance(module, _CONVOLUTIONS) and times:
            # By the book, however it is computed: each weight once for each place it is used at.
            places, width = out, module.out_channels
            if module.transposed:
                places, width = inputs[0], module.in_channels
            by_module += times * (places.numel() * module.weight.numel() // width)
        for kind, operations in _NORMS:
            if isinstance(module, kind):
                by_module += operations * out.numel()

    kept: dict[int, Tensor] = {}  # by storage; the references keep the ids from being used again
    ours = {kernels.storage(v) for v in meta.values()}

    def keep(tensor: Tensor) -> Tensor:
        storage = kernels.storage(tensor)
        if storage not in ours:
            kept[storage] = tensor
        return tensor

    counter = FlopCounterMode(display=False)
    handles = [m.register_forward_hook(count) for m in model.modules()]
    try:
        with (
            own_defaults(random=torch.device("cpu")),
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            counter,
        ):
            functional_call(model, meta, (x,))
    finally:
        for handle in handles:
            handle.remove()
    convolutions = kernels.convolution_flops(counter.get_flop_counts()["Global"])
    passes = int(getattr(model, "passes", 1))
    return Summary(
        parameters=sum(p.numel() for p in model.parameters()),
        flops=((counter.get_total_flops() - convolutions) // 2 + by_module) // passes,
        torch_flops=counter.get_total_flops(),
        passes=passes,
        activation_bytes=sum(t.untyped_storage().nbytes() for t in kept.values()),
        receptive_field=getattr(model, "receptive_field", None),
        input_shape=tuple(input_shape),
    )
