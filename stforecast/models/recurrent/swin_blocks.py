"""Swin Transformer blocks that a second input may join, and what stands between grids of tokens.

Liu et al.: "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows"
(arXiv:2103.14030), section 3, as SwinLSTM (arXiv:2308.09891) has them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import MetaBlock, StridedConv2d
from ..translators import ChannelMlp, ChannelNorm, WindowAttention
from .base import unused

#: Rows and columns of a token.
PATCH = 2


class SwinBlock(MetaBlock):
    """A Swin Transformer block that a second input may join, through one norm and a linear layer.

    Parameters
    ----------
    dim : int
    attention : WindowAttention
    drop_path : float
    joins : bool
        Whether there is a second input. There is such a layer in any case: without use, it is
        in the files of the public code and in its parameter counts.
    """

    def __init__(
        self, dim: int, attention: WindowAttention, drop_path: float, *, joins: bool
    ) -> None:
        feed_forward = ChannelMlp(dim, 4 * dim, 0.0)
        super().__init__(
            dim,
            dim,
            ChannelNorm(dim),
            attention,
            ChannelNorm(dim),
            feed_forward,
            scale=None,
            drop_path=drop_path,
        )
        self.reduce = nn.Linear(2 * dim, dim)
        for layer in (attention.qkv, attention.project, feed_forward.expand, feed_forward.contract):
            layer.reset_parameters()  # torch's own start, as in the public code
        if not joins:
            unused(self.reduce)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(B, dim, h, w), and what joins it -> the same."""
        z = self.norm1(x)
        if other is not None:
            z = _over_channels(self.reduce, torch.cat([z, self.norm1(other)], dim=1))
        x = x + self._branch(None, self.attention(z))
        return x + self._branch(None, self.feed_forward(self.norm2(x)))


class Embedding(nn.Module):
    """Tokens of 2 x 2 points: a convolution, then a norm over the channels."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = StridedConv2d(channels, dim, PATCH, stride=PATCH)
        self.norm = ChannelNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, dim, H / 2, W / 2)."""
        return self.norm(self.proj(x))


class Merging(nn.Module):
    """2 x 2 tokens of `dim` channels become one of twice as many (arXiv:2103.14030, 3.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, 2 dim, h / 2, w / 2)."""
        parts = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return _over_channels(self.reduce, self.norm(torch.cat(parts, dim=1)))


class Expansion(nn.Module):
    """A token of `dim` channels becomes 2 x 2 of half as many."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = ChannelNorm(dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim / 2, 2 h, 2 w)."""
        z = _over_channels(self.expand, x).unflatten(1, (2, 2, -1))  # (B, row, column, dim/2, h, w)
        z = z.permute(0, 3, 4, 1, 5, 2)
        return self.norm(z.flatten(4).flatten(2, 3))


def _over_channels(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer over the channels of (B, C, h, w)."""
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
