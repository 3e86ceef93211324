"""Networks for forecasts on a CPU: the same function in fewer passes over memory.

Of gSTA blocks: in evaluation BatchNorm and layer scale are affine maps beside 1 x 1 convolutions
and go into their weights; activations and sums happen while a convolution's result is still in
registers; and a batch is worked on a few samples at a time, in the cache.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels
from .layers import Conv2d


class Folded(nn.Module):
    """A SimVPv2 whose gSTA translator is folded, a few samples at a time.

    Parameters
    ----------
    model : SimVPv2
        Its translator consists of gSTA blocks. Its encoder and decoder are shared.
    dtype : torch.dtype
        Of the folded convolutions: float32 (differs by rounding, 1e-6) or bfloat16.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        super().__init__()
        quick = copy.copy(model)  # shares the coders with `model`
        quick._modules = dict(model._modules)
        quick.translator = nn.Sequential(*(_Block(b, dtype) for b in model.translator))
        self.model = quick
        self.widest = max(block.expand.width for block in quick.translator) * dtype.itemsize

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, T, C, H, W) -> (B, T', C', H, W)."""
        cells = -(-x.shape[-2] // self.model.stride) * -(-x.shape[-1] // self.model.stride)
        n = max(1, kernels.BLOCK // (self.widest * cells))
        draws = [None] * len(x) if noise is None else noise.split(n)
        parts = [self.model(*pair) for pair in zip(x.split(n), draws, strict=False)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def packed(module: Any, dtype: torch.dtype) -> Any:
    """Copy a network for forecasts, its convolutions with their weights as oneDNN wants them.

    What :class:`stforecast.models.layers.Conv2d` computes is computed so, 1 x 1 convolutions in
    float32; all else is shared with `module`.
    """
    if type(module) is Conv2d and module.stride == (1, 1):
        return _Packed(module, dtype if module.kernel_size != (1, 1) else torch.float32)
    out = copy.copy(module)
    out._modules = {name: packed(part, dtype) for name, part in module._modules.items()}
    return out


class _Packed(nn.Module):
    def __init__(self, conv: Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.convolution = conv.weight, Convolution.of(conv, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)


class _Block(nn.Module):
    """A GSTABlock in evaluation: x -> x + s1 Attention(BN(x)) -> ... + s2 FeedForward(BN(...))."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        super().__init__()
        attention, feed_forward = block.attention, block.feed_forward
        with torch.no_grad():
            s1, s2 = (s.double() for s in (block.scale1, block.scale2) if s is not None)
            a1, b1 = _affine(block.norm1)
            a2, b2 = _affine(block.norm2)
            W, b = _matrix(attention.project_in)
            self.project_in = Convolution(W * a1, b + W @ b1, dtype, "gelu")
            self.local = Convolution.of(attention.local, dtype)
            self.dilated = Convolution.of(attention.dilated, dtype)
            W, b = _matrix(attention.gate)
            half = len(W) // 2
            self.features = Convolution(W[:half], b[:half], dtype)
            self.gate = Convolution(W[half:], b[half:], dtype, "sigmoid")
            # s1 (W y + b + BN(x)) + x = (s1 W) y + (1 + s1 a1) x + s1 (b + b1)
            W, b = _matrix(attention.project_out)
            self.project_out = Convolution(s1[:, None] * W, None, dtype)
            self.factor = (1 + s1 * a1).float()[:, None, None]
            self.offset = (s1 * (b + b1)).float()[:, None, None]
            W, b = _matrix(feed_forward.expand)
            self.expand = Convolution(W * a2, b + W @ b2, dtype)
            self.depthwise = Convolution.of(feed_forward.depthwise, dtype, "gelu")
            W, b = _matrix(feed_forward.contract)
            self.contract = Convolution(s2[:, None] * W, s2 * b, dtype)
            self.resize = None
            if isinstance(block.resize, nn.Conv2d):
                self.resize = Convolution(*_matrix(block.resize), dtype)

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
    """Weight (out, in) and bias of a 1 x 1 convolution, in float64."""
    return conv.weight.double()[:, :, 0, 0], conv.bias.double()


class Convolution:
    """A convolution that keeps the grid, with what follows it: an activation, a product or a sum.

    With oneDNN both happen in one pass, and weights are kept in the order that it wants; equal to
    convolution and activation of torch to 1e-5 in float32.

    Parameters
    ----------
    weight : Tensor of shape (C', C / groups, k, k), or (C', C) for a 1 x 1 convolution
    bias : Tensor of shape (C',), optional
    dtype : torch.dtype
        Of the arithmetic: float32 or bfloat16.
    then : {"none", "gelu", "sigmoid"}
        The activation of the plain result.
    groups, dilation, circular_longitude
        As :class:`stforecast.models.layers.Conv2d` has them.
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
        self.then, self.groups, self.dilation = then, groups, dilation
        self.circular_longitude = circular_longitude
        self.weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(dtype)
        # oneDNN's own padding is slow for dilated kernels, and knows no circular_longitude axis.
        self.before = bool(self.reach) and (dilation > 1 or circular_longitude)
        self.padding = 0 if self.before else self.reach
        self.fused = kernels.has_fused()
        self.form = ([self.padding] * 2, [1, 1], [dilation] * 2, groups)
        self.packed: dict[torch.Size, Tensor] = {}

    @classmethod
    def of(cls, conv: Any, dtype: torch.dtype, then: Any = "none") -> Convolution:
        """Take the weights of a :class:`stforecast.models.layers.Conv2d`."""
        bias = None if conv.bias is None else conv.bias.detach()
        weights = conv.weight.detach(), bias
        options = {"groups": conv.groups, "dilation": conv.dilation[0]}
        return cls(*weights, dtype, then, circular_longitude=conv.circular_longitude, **options)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        x = self._ready(x)
        if self.fused:
            return kernels.convolve(x, self._packed(x), self.bias, self.form, self.then)
        y = self._plain(x)
        return F.gelu(y) if self.then == "gelu" else y.sigmoid() if self.then == "sigmoid" else y

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """Product of the result and `other`."""
        x = self._ready(x)
        if self.fused:
            return kernels.convolve_times(x, other, self._packed(x), self.bias, self.form)
        return self._plain(x).mul_(other)

    def plus(self, x: Tensor, total: Tensor) -> Tensor:
        """Add the result to `total`, float32, in place."""
        if not self.fused:
            return total.add_(self._plain(self._ready(x)))
        if self.weight.dtype != total.dtype:
            return total.add_(self(x))
        x = self._ready(x)
        return kernels.convolve_plus(x, total, self._packed(x), self.bias, self.form)

    def _ready(self, x: Tensor) -> Tensor:
        """Bring `x` to the arithmetic, the padding and the memory that the weights want."""
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
            packed = kernels.pack(self.weight, self.form, x)
            self.packed = {size: packed}
        return packed
