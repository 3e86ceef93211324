"""Networks rewritten to forecast quickly: the same function, and nothing else.

On a CPU, gSTA blocks are *folded*: in evaluation BatchNorm and layer scale are affine maps beside
1 x 1 convolutions and go into their weights, activations and sums happen while a convolution's
result is still in registers (oneDNN's post-operations), and a batch is worked on a few samples at
a time, in the cache. On a GPU, ``torch.compile`` does the like, where the work is long enough to
pay for compiling.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels
from .simvp import GSTABlock, SimVPv2

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
        Arithmetic of the convolutions. Against float32, "fp32" differs by rounding (1e-6), "bf16"
        by 1-2% of the network's output.
    compile : {"auto", "always", "never"}
        "auto": fold on a CPU, ``torch.compile`` on a GPU where `samples` make it pay, and nothing
        for networks that are not this library's. "always": ``torch.compile`` in any case (it
        takes half a minute, and a C++ compiler on a CPU). "never": the network as it is.
    samples : int, optional
        How many samples it will forecast, as far as is known.

    Returns
    -------
    nn.Module
        Maps (B, T, C, H, W) to float32 (B, T', C', H, W), without gradients.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    quick = model
    if compile == "always" or (
        compile == "auto"
        and device.type == "cuda"
        and isinstance(model, SimVPv2)
        and (samples or 0) >= WORTH_COMPILING
    ):
        quick = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    elif compile == "auto" and device.type == "cpu" and _can_fold(model):
        quick = _Folded(model, torch.bfloat16 if precision == "bf16" else torch.float32)
    return _Inference(quick, device.type, precision == "bf16")


class _Inference(nn.Module):
    """Evaluation mode, no gradients, the arithmetic asked for, float32 out."""

    def __init__(self, network: nn.Module, device: str, half: bool) -> None:
        super().__init__()
        self.network, self.device, self.in_half = network, device, half

    def forward(self, x: Tensor) -> Tensor:
        training = self.network.training
        if training:
            self.network.eval()
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device, torch.bfloat16, enabled=self.in_half),
            ):
                return self.network(x).float()
        finally:
            if training:
                self.network.train()


def _can_fold(model: nn.Module) -> bool:
    return (
        type(model) is SimVPv2
        and all(p.dtype == torch.float32 for p in model.parameters())
        and isinstance(model.translator, nn.Sequential)
        and all(type(block) is GSTABlock for block in model.translator)
    )


class _Folded(nn.Module):
    """A SimVPv2 whose translator is folded, a few samples at a time."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        super().__init__()
        quick = copy.copy(model)  # shares the coders with `model`
        quick._modules = dict(model._modules)
        quick.translator = nn.Sequential(*(_FoldedBlock(b, dtype) for b in model.translator))
        self.model = quick
        self.widest = max(block.expand.width for block in quick.translator) * dtype.itemsize

    def forward(self, x: Tensor) -> Tensor:
        cells = -(-x.shape[-2] // self.model.stride) * -(-x.shape[-1] // self.model.stride)
        n = max(1, kernels.BLOCK // (self.widest * cells))
        parts = [self.model(part) for part in x.split(n)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class _FoldedBlock(nn.Module):
    """A GSTABlock in evaluation: x -> x + s1 Attention(BN(x)) -> ... + s2 FeedForward(BN(...))."""

    def __init__(self, block: GSTABlock, dtype: torch.dtype) -> None:
        super().__init__()
        attention, feed_forward = block.attention, block.feed_forward
        with torch.no_grad():
            s1, s2 = (s.double() for s in (block.scale1, block.scale2) if s is not None)
            a1, b1 = _affine(block.norm1)
            a2, b2 = _affine(block.norm2)
            W, b = _matrix(attention.project_in)
            self.project_in = _Conv(W * a1, b + W @ b1, dtype, "gelu")
            self.local = _Conv.of(attention.local, dtype)
            self.dilated = _Conv.of(attention.dilated, dtype)
            W, b = _matrix(attention.gate)
            half = len(W) // 2
            self.features = _Conv(W[:half], b[:half], dtype)
            self.gate = _Conv(W[half:], b[half:], dtype, "sigmoid")
            # s1 (W y + b + BN(x)) + x = (s1 W) y + (1 + s1 a1) x + s1 (b + b1)
            W, b = _matrix(attention.project_out)
            self.project_out = _Conv(s1[:, None] * W, None, dtype)
            self.factor = (1 + s1 * a1).float()[:, None, None]
            self.offset = (s1 * (b + b1)).float()[:, None, None]
            W, b = _matrix(feed_forward.expand)
            self.expand = _Conv(W * a2, b + W @ b2, dtype)
            self.depthwise = _Conv.of(feed_forward.depthwise, dtype, "gelu")
            W, b = _matrix(feed_forward.contract)
            self.contract = _Conv(s2[:, None] * W, s2 * b, dtype)
            self.resize = None
            if isinstance(block.resize, nn.Conv2d):
                self.resize = _Conv(*_matrix(block.resize), dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, out, h, w); the running sum stays float32."""
        x = x.float()
        y = self.dilated(self.local(self.project_in(x)))
        y = self.features.times(y, self.gate(y))
        x = self.project_out.plus(y, torch.addcmul(self.offset, x, self.factor))
        x = self.contract.plus(self.depthwise(self.expand(x)), x)
        return x if self.resize is None else self.resize(x)


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """BatchNorm in evaluation as a x + b, in float64."""
    a = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return a, norm.bias.double() - a * norm.running_mean.double()


def _matrix(conv: Any) -> tuple[Tensor, Tensor]:
    return conv.weight.double()[:, :, 0, 0], conv.bias.double()


class _Conv:
    """A convolution with what follows it: an activation, a product or a sum.

    With oneDNN both happen in one pass, and weights are kept in the order that it wants.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        then: Literal["none", "gelu", "sigmoid"] = "none",
        *,
        groups: int = 1,
        dilation: int = 1,
        circular_longitude: bool = False,
    ) -> None:
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        self.width, self.reach = len(weight), dilation * (weight.shape[-1] - 1) // 2
        self.then, self.groups, self.dilation, self.circular_longitude = (
            then,
            groups,
            dilation,
            circular_longitude,
        )
        self.weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(dtype)
        # oneDNN's own padding is slow for dilated kernels, and knows no circular_longitude axis.
        self.before = bool(self.reach) and (dilation > 1 or circular_longitude)
        self.padding = 0 if self.before else self.reach
        form: Any = ([self.padding] * 2, [1, 1], [dilation] * 2, groups)
        self.fused, self.form = _has_fused(), form
        if self.fused:
            convolution = torch.ops.mkldnn._convolution_pointwise
            self.convolve, self.multiply = convolution.default, convolution.binary
            self.add = torch.ops.mkldnn._convolution_pointwise_.binary
        # With GELU goes its algorithm: by the error function.
        self.alone: Any = (*form, then, [], "none" if then == "gelu" else "")
        self.product: Any = (*form, "mul", None, None, [], None)
        self.sum: Any = (*form, "add", 1.0, None, [], None)
        self.packed: dict[torch.Size, Tensor] = {}

    @classmethod
    def of(cls, conv: Any, dtype: torch.dtype, then: Any = "none") -> _Conv:
        return cls(
            conv.weight.detach(),
            conv.bias.detach(),
            dtype,
            then,
            groups=conv.groups,
            dilation=conv.dilation[0],
            circular_longitude=conv.circular_longitude,
        )

    def __call__(self, x: Tensor) -> Tensor:
        x = self._ready(x)
        if self.fused:
            return self.convolve(x, self._packed(x), self.bias, *self.alone)
        y = self._plain(x)
        return F.gelu(y) if self.then == "gelu" else y.sigmoid() if self.then == "sigmoid" else y

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """Product of the result and `other`."""
        x = self._ready(x)
        if self.fused:
            return self.multiply(x, other, self._packed(x), self.bias, *self.product)
        return self._plain(x).mul_(other)

    def plus(self, x: Tensor, total: Tensor) -> Tensor:
        """Add the result to `total`, float32, in place."""
        if not self.fused:
            return total.add_(self._plain(self._ready(x)))
        if self.weight.dtype != total.dtype:
            return total.add_(self(x))
        x = self._ready(x)
        return self.add(total, x, self._packed(x), self.bias, *self.sum)

    def _ready(self, x: Tensor) -> Tensor:
        if x.dtype != self.weight.dtype:
            x = x.to(self.weight.dtype)
        if self.before:
            x = kernels.pad(x, self.reach, self.circular_longitude)
        return x.contiguous(memory_format=torch.channels_last)

    def _plain(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, 1, self.padding, self.dilation, self.groups)

    def _packed(self, x: Tensor) -> Tensor:
        """The weights in the order that oneDNN wants for maps of this size."""
        size = x.shape[1:]
        packed = self.packed.get(size)
        if packed is None:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            packed = pack(self.weight, *self.form, list(x.shape))
            self.packed = {size: packed}
        return packed


def _has_fused() -> bool:
    """Whether torch's fused convolutions, which its compiler uses, can be used here."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )
