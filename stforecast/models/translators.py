"""The other translators of the SimVPv2 paper's ablation, in plain torch.

All work on the stacked frames (B, T*S, h, w), as gSTA in ``simvp.py`` does. `IncepU` is SimVP's
(Gao et al. 2022, arXiv:2206.05099). The others put another mixer of positions into the
MetaFormer block: ViT (arXiv:2010.11929), Swin (arXiv:2103.14030), PoolFormer (arXiv:2111.11418),
MLP-Mixer (arXiv:2105.01601); ConvMixer (arXiv:2201.09792) has a block of its own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .kernels import wrap
from .layers import Conv2d, MetaBlock, fan_out_normal_

HEADS = 8
#: Translators whose weights depend on the size of the latent grid.
NEED_GRID = ("swin", "mlpmixer")
#: The paper's, and those of its authors' framework.
NAMES: tuple[str, ...] = ("gsta", "incepu", "vit", "swin", "poolformer", "mlpmixer", "convmixer")
NAMES += ("tau", "van", "moganet", "hornet", "convnext", "uniformer")


def translator_block(
    name: str,
    index: int,
    dim: int,
    out: int,
    *,
    grid: tuple[int, int],
    mlp_ratio: float,
    drop_path: float,
    dropout: float,
    circular_longitude: bool,
) -> nn.Module:
    """Block number `index` of a translator: (B, dim, h, w) -> (B, out, h, w), `grid` is (h, w)."""
    if name == "convmixer":
        return ConvMixerBlock(dim, out, circular_longitude=circular_longitude)
    feed_forward = ChannelMlp(dim, int(dim * mlp_ratio), dropout)
    scale, norms = None, (ChannelNorm(dim), ChannelNorm(dim))
    if name == "vit":
        attention: nn.Module = Attention(dim, dropout)
    elif name == "swin":
        attention = WindowAttention(dim, dropout, grid, shifted=bool(index % 2))
    elif name == "mlpmixer":
        attention = TokenMlp(grid, dim // 2, dropout)
        norms = (ChannelNorm(dim, eps=1e-6), ChannelNorm(dim, eps=1e-6))
    else:
        attention = PoolMinusIdentity(circular_longitude=circular_longitude)
        scale, norms = 1e-5, (nn.GroupNorm(1, dim), nn.GroupNorm(1, dim))  # type: ignore[assignment]
    return MetaBlock(
        dim, out, norms[0], attention, norms[1], feed_forward, scale=scale, drop_path=drop_path
    )


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def linear(c_in: int, c_out: int) -> nn.Linear:
    """Make a linear layer that starts truncated-normal (std 0.02), with bias 0."""
    layer = nn.Linear(c_in, c_out)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


class ChannelMlp(nn.Module):
    """Linear, GELU, linear over the channels of (B, C, h, w): each position by itself."""

    reach = 0.0

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.expand, self.contract = linear(dim, hidden), linear(hidden, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        return self._mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _mlp(self, x: Tensor) -> Tensor:
        x = F.dropout(F.gelu(self.expand(x)), self.dropout, self.training)
        return F.dropout(self.contract(x), self.dropout, self.training)


class TokenMlp(ChannelMlp):
    """The same over all positions of (B, C, h, w): each channel by itself, on one grid only."""

    reach = math.inf

    def __init__(self, grid: tuple[int, int], hidden: int, dropout: float) -> None:
        super().__init__(grid[0] * grid[1], hidden, dropout)
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        if x.shape[2:] != self.grid:
            raise InputError(
                f"this MLP-Mixer was built for a latent grid of {self.grid}, found "
                f"{tuple(x.shape[2:])}; its weights fit one grid only: give `grid` as the input's"
            )
        return self._mlp(x.flatten(2)).view_as(x)


class Attention(nn.Module):
    """Multi-head self-attention between all positions of (B, C, h, w), without position code."""

    reach = math.inf

    def __init__(self, dim: int, dropout: float, heads: int = HEADS) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(
                f"attention has {heads} heads, so translator_channels and input_steps x "
                f"encoder_channels must be multiples of {heads}; found a width of {dim}"
            )
        self.qkv, self.project = linear(dim, 3 * dim), linear(dim, dim)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        B, C, h, w = x.shape
        y = self._attend(x.permute(0, 2, 3, 1).reshape(B, h * w, C))
        return y.reshape(B, h, w, C).permute(0, 3, 1, 2)

    def _attend(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attention within each row of `x` (rows, tokens, C).

        `bias` (r, heads, tokens, tokens) is added to the logits: of every r rows the same.
        """
        R, N, C = x.shape
        r = 1 if bias is None else len(bias)
        qkv = self.qkv(x).reshape(R // r, r, N, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)  # (R/r, r heads, N, C/heads) each
        if bias is not None:
            bias = bias.to(q.dtype).flatten(0, 1)[None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        y = y.unflatten(1, (r, self.heads)).transpose(2, 3).reshape(R, N, C)
        return F.dropout(self.project(y), self.dropout, self.training)


class WindowAttention(Attention):
    """Self-attention within n x n windows, with a learnt bias for each relative position.

    `window` is n, or the smaller side of `grid`, (h, w), if that is smaller; SimVPv2's unless
    given. `shifted` windows, where more than one fits, are cut from the grid rolled by half a
    window. `apart` says along which axes the two sides that meet there are kept apart
    (arXiv:2103.14030, section 3.2); in the code of SimVPv2's authors nothing does. Where windows do
    not fit the grid (that code stops), it is filled up with positions that nobody attends to.
    """

    def __init__(
        self,
        dim: int,
        dropout: float,
        grid: tuple[int, int],
        *,
        shifted: bool,
        heads: int = HEADS,
        window: int | None = None,
        apart: tuple[bool, bool] = (False, False),
    ) -> None:
        super().__init__(dim, dropout, heads)
        if window is None:
            window = 7 if grid[0] % 7 == 0 else min(8, max(4, grid[0] // 16))
        self.window = n = min(window, *grid)
        self.shift, self.apart = n // 2 if shifted and min(grid) > window else 0, apart
        self.reach = n - 1
        self.bias = nn.Parameter(torch.empty((2 * n - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        n, s = self.window, self.shift
        B, C, h, w = x.shape
        H, W = h + -h % n, w + -w % n
        bias = self._position_bias()  # (1, heads, n n, n n)
        if (h, w) != (H, W) or (s and any(self.apart)):
            bias = bias + self._barriers(h, w, H, W, bias)[:, None]
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, W - w, 0, H - h)).roll((-s, -s), (1, 2))
        y = self._attend(self._windows(x), bias)
        y = y.reshape(B, H // n, W // n, n, n, C).transpose(2, 3).reshape(B, H, W, C)
        return y.roll((s, s), (1, 2))[:, :h, :w].permute(0, 3, 1, 2)

    def _windows(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B windows, n n, C)."""
        B, H, W, C = x.shape
        n = self.window
        x = x.reshape(B, H // n, n, W // n, n, C).transpose(2, 3)
        return x.reshape(-1, n * n, C)

    def _barriers(self, h: int, w: int, H: int, W: int, like: Tensor) -> Tensor:
        """What is added to the logits to part positions, (windows, n n, n n), query and key."""
        rows, columns = (torch.arange(n, device=like.device) for n in (H, W))
        s = self.shift
        sides = (rows >= H - s * self.apart[0]) * 2, columns >= W - s * self.apart[1]
        filled = ((rows + s) % H >= h)[:, None] | ((columns + s) % W >= w)
        side = (sides[0][:, None] + sides[1])[None, ..., None]
        side, filled = self._windows(side)[..., 0], self._windows(filled[None, ..., None])[..., 0]
        # As the authors have it: a finite number, with which a window of filled positions alone
        # has no NaN.
        barriers = like.new_zeros(()).where(side[:, :, None] == side[:, None, :], -100.0)
        return barriers.masked_fill(filled[:, None, :], -math.inf)

    def _position_bias(self) -> Tensor:
        """The bias table looked up at (dy + n - 1, dx + n - 1), (1, heads, n n, n n)."""
        n = self.window
        at = torch.arange(n, device=self.bias.device)
        delta = at[:, None] - at + n - 1  # (n, n), query minus key
        index = delta[:, None, :, None] * (2 * n - 1) + delta[None, :, None, :]
        return self.bias[index.reshape(n * n, n * n)].permute(2, 0, 1)[None]


class PoolMinusIdentity(nn.Module):
    """Mean over 3 x 3 neighbours (those on the grid), minus the position itself."""

    reach = 1.0

    def __init__(self, *, circular_longitude: bool) -> None:
        super().__init__()
        self.circular_longitude = circular_longitude

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        around = wrap(x, 1) if self.circular_longitude else x
        padding = (1, 0 if self.circular_longitude else 1)
        return F.avg_pool2d(around, 3, stride=1, padding=padding, count_include_pad=False) - x


class ConvMixerBlock(nn.Module):
    """x + BN(GELU(depthwise 11 x 11)), then BN(GELU(1 x 1)) without a shortcut."""

    reach = 5.0

    def __init__(self, dim: int, out: int, *, circular_longitude: bool) -> None:
        super().__init__()
        self.depthwise = Conv2d(dim, dim, 11, groups=dim, circular_longitude=circular_longitude)
        self.depthwise.in_paper_flops = False
        self.norm1 = nn.BatchNorm2d(dim)
        self.pointwise = nn.Conv2d(dim, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)
        fan_out_normal_(self)
        self.resize = nn.Conv2d(dim, out, 1) if out != dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, out, h, w)."""
        x = x + self.norm1(F.gelu(self.depthwise(x)))
        return self.resize(self.norm2(F.gelu(self.pointwise(x))))


class Inception(nn.Module):
    """1 x 1 convolution, then the sum of grouped convolutions 3, 5, 7 and 11 wide."""

    def __init__(self, c_in: int, c_mid: int, c_out: int, *, circular_longitude: bool) -> None:
        super().__init__()
        # The authors fall back to one group by c_mid alone, and stop where c_out does not divide.
        groups = 8 if c_mid % 8 == c_out % 8 == 0 else 1
        self.project = nn.Conv2d(c_in, c_mid, 1)
        self.convs = nn.ModuleList(
            Conv2d(c_mid, c_out, k, groups=groups, circular_longitude=circular_longitude)
            for k in (3, 5, 7, 11)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(groups, c_out) for _ in self.convs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, h, w) -> (B, c_out, h, w)."""
        x = self.project(x)
        branches = zip(self.convs, self.norms, strict=True)
        first, *others = (F.leaky_relu(norm(conv(x)), 0.2) for conv, norm in branches)
        return sum(others, first)


class IncepU(nn.Module):
    """SimVP's translator: a U of Inception modules with concatenated skips, all on one grid."""

    def __init__(self, outer: int, inner: int, layers: int, *, circular_longitude: bool) -> None:
        super().__init__()
        D, K = outer, inner

        def stack(*widths: tuple[int, int]) -> nn.ModuleList:
            return nn.ModuleList(
                Inception(i, K // 2, o, circular_longitude=circular_longitude) for i, o in widths
            )

        self.down = stack((D, K), *[(K, K)] * (layers - 1))
        self.up = stack((K, K), *[(2 * K, K)] * (layers - 2), (2 * K, D))
        self.reach = 5.0 * 2 * layers

    def forward(self, x: Tensor) -> Tensor:
        """(B, outer, h, w) -> the same; D = outer, K = inner channels."""
        skips = []
        for module in self.down:
            x = module(x)
            skips.append(x)
        x = self.up[0](skips.pop())
        for module in self.up[1:]:
            x = module(torch.cat([x, skips.pop()], dim=1))
        return x
