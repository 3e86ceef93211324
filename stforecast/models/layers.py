"""What the networks share: convolutions that keep the grid, the coders' layer, the MetaFormer's."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class _ChannelsLast(torch.autograd.Function):
    """Channels-last memory for a tensor and for its gradient.

    Where the two differ, CPU convolutions fall back to reference kernels, up to 100 times slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)


def channels_last(x: Tensor) -> Tensor:
    """Return `x` in channels-last memory; its gradient comes back so too."""
    if x.requires_grad and torch.is_grad_enabled():
        return _ChannelsLast.apply(x)
    return x.contiguous(memory_format=torch.channels_last)


class StridedConv2d(nn.Conv2d):
    """A 2-D convolution in float32 where a CPU's 16 bits would give it a wrong gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H', W')."""
        if kernels.wrong_in_16_bits(x, self.stride[-1]):
            with full_precision(x):
                return super().forward(x.to(self.weight.dtype))
        return super().forward(x)


class Conv2d(StridedConv2d):
    """A 2-D convolution that pads to keep the grid; `circular_longitude` wraps the last axis."""

    #: False where the authors write padding="same": fvcore, which counts FLOPs for them, overlooks
    #: such a convolution, so the figures in print lack it. A number: how often they have it, with
    #: work on zeros beside it that we leave out.
    in_paper_flops: bool | int = True

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, circular_longitude: bool, **kwargs: Any
    ):
        self.reach = (kernel - 1) * kwargs.get("dilation", 1) // 2
        self.circular_longitude = circular_longitude
        super().__init__(
            c_in,
            c_out,
            kernel,
            padding=(self.reach, 0 if circular_longitude else self.reach),
            **kwargs,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W), or half of H and W with stride 2."""
        if self.groups == self.in_channels == self.out_channels and self.bias is not None:
            return kernels.depthwise(
                x, self.weight, self.bias, self.dilation[0], self.circular_longitude
            )
        if self.circular_longitude and self.reach:
            x = kernels.wrap(x, self.reach)
        return channels_last(super().forward(channels_last(x)))


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed 3 x 3 convolution: each axis of the grid grows by `stride`, 1 or 2."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, circular_longitude: bool):
        self.circular_longitude = circular_longitude
        # One column from the other end becomes `stride` columns, which are cut off again.
        columns = 1 + stride if circular_longitude else 1
        super().__init__(c_in, c_out, 3, stride, padding=(1, columns), output_padding=stride - 1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H, W), or twice H and W with stride 2."""
        x = channels_last(kernels.wrap(x, 1) if self.circular_longitude else x)
        if self.stride[0] == 1:  # a convolution with the kernel turned round, which is quicker
            turned = self.weight.flip(2, 3).transpose(0, 1)
            columns = 0 if self.circular_longitude else 1
            return channels_last(F.conv2d(x, turned, self.bias, padding=(1, columns)))
        if kernels.wrong_in_16_bits(x, self.stride[-1]):
            with full_precision(x):
                return channels_last(super().forward(x.to(self.weight.dtype), output_size))
        return channels_last(super().forward(x, output_size))


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off for the device of `x`."""
    if x.device.type == "meta":  # it has no autocast
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def fan_out_normal_(module: nn.Module) -> None:
    """Start every convolution in `module` at N(0, 2 / fan_out), fan_out per group, and bias 0.

    A linear layer is a 1 x 1 convolution.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fan_out = layer.weight[:, 0].numel() // getattr(layer, "groups", 1)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def stochastic_depth(y: Tensor, rate: float) -> Tensor:
    """Drop a branch for some samples: (B, C, h, w) times 0 or 1 / (1 - rate), a draw a sample."""
    keep = 1 - rate
    return y * y.new_empty(len(y), 1, 1, 1).bernoulli_(keep).div_(keep)


class GroupNormSiLU(nn.GroupNorm):
    """GroupNorm, then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), in the precision of the weights."""
        return kernels.norm_silu(x, self.weight, self.bias, self.num_groups, self.eps)


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, SiLU; optionally halving (stride 2) or doubling (PixelShuffle)."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        down: bool = False,
        up: bool = False,
        circular_longitude: bool = False,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(
            c_in,
            4 * c_out if up else c_out,
            kernel,
            stride=2 if down else 1,
            circular_longitude=circular_longitude,
        )
        self.up = up
        self.norm = GroupNormSiLU(2, c_out)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def seen(self, n: int) -> int:
        """How many neighbouring input pixels `n` neighbouring output pixels depend on, at most."""
        n = n // 2 + 1 if self.up else n
        return (n - 1) * self.conv.stride[0] + self.conv.kernel_size[0]

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H', W'), where H' is H, H/2 or 2 H."""
        x = self.conv(x)
        x = F.pixel_shuffle(x, 2) if self.up else x
        return self.norm(x)


class FeedForward(nn.Module):
    """1 x 1 convolution to r times the width, depthwise 3 x 3, GELU, 1 x 1 convolution back."""

    def __init__(
        self, dim: int, ratio: float, dropout: float, *, circular_longitude: bool = False
    ) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.depthwise = Conv2d(
            hidden, hidden, 3, groups=hidden, circular_longitude=circular_longitude
        )
        self.contract = nn.Conv2d(hidden, dim, 1)
        self.dropout = dropout
        self.reach = self.depthwise.reach

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> the same."""
        if kernels.by_hand(x) and not (self.training and self.dropout):
            layers = (self.expand, self.depthwise, self.contract)
            return kernels.feed_forward(
                x, *layers, circular_longitude=self.depthwise.circular_longitude
            )
        x = F.gelu(self.depthwise(self.expand(x)))
        x = self.contract(F.dropout(x, self.dropout, self.training))
        return F.dropout(x, self.dropout, self.training)


class MetaBlock(nn.Module):
    """x + DropPath(s1 * Mix(Norm(x))), then x + DropPath(s2 * FeedForward(Norm(x))).

    The MetaFormer block of Yu et al. (2022), arXiv:2111.11418: a translator is named after what
    mixes the positions. All parts map (B, dim, h, w) to the same shape.

    Parameters
    ----------
    dim, out : int
        Width of the block, and width behind it: a 1 x 1 convolution follows where they differ.
    norm1, norm2, attention, feed_forward : nn.Module
        `attention` mixes positions; the ``reach`` of it and of `feed_forward` says how far.
    scale : float, optional
        Initial layer scale s1 and s2 of each channel; no layer scale unless given.
    drop_path : float
        Probability that a sample skips a branch in training (stochastic depth).
    """

    def __init__(
        self,
        dim: int,
        out: int,
        norm1: nn.Module,
        attention: nn.Module,
        norm2: nn.Module,
        feed_forward: nn.Module,
        *,
        scale: float | None,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1, self.attention = norm1, attention
        self.scale1 = None if scale is None else nn.Parameter(torch.full((dim,), scale))
        self.norm2, self.feed_forward = norm2, feed_forward
        self.scale2 = None if scale is None else nn.Parameter(torch.full((dim,), scale))
        self.drop_path = drop_path
        self.resize = nn.Conv2d(dim, out, 1) if out != dim else nn.Identity()
        #: How many latent cells away a cell of the output sees.
        self.reach: float = attention.reach + feed_forward.reach  # type: ignore[assignment,operator]

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, out, h, w)."""
        x = x + self._branch(self.scale1, self.attention(self.norm1(x)))
        x = x + self._branch(self.scale2, self.feed_forward(self.norm2(x)))
        return self.resize(x)

    def _branch(self, scale: Tensor | None, y: Tensor) -> Tensor:
        if self.training and self.drop_path:
            y = stochastic_depth(y, self.drop_path)
        return y if scale is None else scale[:, None, None] * y
