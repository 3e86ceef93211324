"""Networks made to forecast quickly: the same function, and nothing else.

On a CPU a network's own ``folded`` form is used, if it has one (see
:mod:`stforecast.models.folding`). On a GPU ``torch.compile`` does the like, where the work is long
enough to pay for compiling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Compile = Literal["auto", "always", "never"]
#: Samples from which compiling on a GPU pays for itself.
WORTH_COMPILING = 20_000


def for_inference(
    model: nn.Module,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    compile: Compile = "auto",
    samples: int | None = None,
) -> nn.Module:
    """Make the quick form of a network, for forecasts only.

    Parameters
    ----------
    model : nn.Module
        It stays as it is. The quick form has copies of some weights and shares others: make it
        anew when they change.
    precision : {"fp32", "bf16"}
        Arithmetic of the convolutions; "fp32" is without TF32 on a GPU. Against float32, "fp32"
        differs by rounding (1e-6), "bf16" by 1-2% of the network's output.
    compile : {"auto", "always", "never"}
        "auto": fold on a CPU a network that has ``folded(dtype)``, ``torch.compile`` on a GPU one
        that says ``compiles`` where `samples` make it pay, and leave others as they are.
        "always": ``torch.compile`` in any case (it takes half a minute, and a C++ compiler on a
        CPU). "never": the network as it is.
    samples : int, optional
        How many samples it will forecast, as far as is known.

    Returns
    -------
    nn.Module
        Maps (B, T, C, H, W) to float32 (B, T', C', H, W), without gradients; of a network that
        goes on to any length, with T' as a second argument; of one with noise, with ``noise=``.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    quick: nn.Module = model
    if compile == "always" or (
        compile == "auto"
        and device.type == "cuda"
        and getattr(model, "compiles", False)
        and (samples or 0) >= WORTH_COMPILING
    ):
        quick = _Compiled(model)
    elif compile == "auto" and device.type == "cpu" and hasattr(model, "folded"):
        folded: Any = model.folded
        quick = folded(torch.bfloat16 if precision == "bf16" else torch.float32) or model
    return _Inference(quick, device.type, precision == "bf16")


class _Compiled(nn.Module):
    """A network compiled for whole batches: a smaller one, the last, is not worth compiling for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.compiled = network, torch.compile(network, dynamic=False)
        self.whole = 0  # samples of the largest batch so far

    def forward(self, x: Tensor, *steps: int, **noise: Tensor) -> Tensor:
        self.whole = max(self.whole, len(x))
        return (self.compiled if len(x) == self.whole else self.network)(x, *steps, **noise)


class _Inference(nn.Module):
    """Evaluation mode, no gradients, the arithmetic asked for, float32 out."""

    def __init__(self, network: nn.Module, device: str, half: bool) -> None:
        super().__init__()
        self.network, self.device, self.in_half = network, device, half

    def forward(self, x: Tensor, *steps: int, **noise: Tensor) -> Tensor:
        training = self.network.training
        if training:
            self.network.eval()
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device, torch.bfloat16, enabled=self.in_half),
                _float32_products(self.device),
            ):
                y = self.network(x, *steps, **noise)
                return y.float() if isinstance(y, Tensor) else y
        finally:
            if training:
                self.network.train()


def form(value: Any) -> str:
    """Say what a network gave: the shape of a tensor, the type of anything else."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    inside = f" of {', '.join(map(form, value))}" if isinstance(value, (tuple, list)) else ""
    return f"a {type(value).__name__}{inside}"


@contextmanager
def _float32_products(device: str) -> Iterator[None]:
    """Let a GPU compute float32 products from float32 factors.

    By default cuDNN rounds the factors to TF32, with 10 bits; forecasts then moved by up to
    0.0034 K with the memory layout of the input (measured on an H200).
    """
    kinds: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    places = kinds if device == "cuda" else ()
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed
