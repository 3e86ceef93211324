"""Further translators of SimVPv2, in plain torch: large kernels and gated convolutions.

The authors' framework offers them beside those of the paper's ablation (``translators.py``), in the
same MetaFormer block: TAU (Tan et al. 2023, arXiv:2206.12126), VAN (Guo et al. 2022,
arXiv:2202.09741), MogaNet (Li et al. 2022, arXiv:2211.03295), HorNet (Rao et al. 2022,
arXiv:2207.14284), ConvNeXt (Liu et al. 2022, arXiv:2201.03545), UniFormer (Li et al. 2022,
arXiv:2201.09450).

There are no weights of theirs to check these against. Sizes, names and the choices that the papers
leave open were read in the public code (version 0.3), whose printed parameters and FLOPs they meet;
where code and paper differ, the code is followed, and the class says so.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .layers import Conv2d, FeedForward, MetaBlock, fan_out_normal_, stochastic_depth
from .translators import Attention, ChannelMlp, ChannelNorm

GATED = ("tau", "van", "moganet", "hornet", "convnext", "uniformer")


def gated_block(
    name: str,
    index: int,
    dim: int,
    out: int,
    *,
    mlp_ratio: float,
    drop_path: float,
    dropout: float,
    circular_longitude: bool,
) -> nn.Module:
    """Block number `index` of a translator: (B, dim, h, w) -> (B, out, h, w)."""
    hidden = int(dim * mlp_ratio)
    around = {"circular_longitude": circular_longitude}
    if name == "convnext":
        return ConvNeXtBlock(dim, out, hidden, dropout, drop_path=drop_path, **around)
    if name == "uniformer":
        local = index == 0 or dim != out
        return UniFormerBlock(dim, out, hidden, dropout, local=local, drop_path=drop_path, **around)
    scale, norms = 0.01, (nn.BatchNorm2d(dim), nn.BatchNorm2d(dim))
    attention: nn.Module
    feed_forward: nn.Module = FeedForward(dim, mlp_ratio, dropout, **around)
    fan_out_normal_(feed_forward)
    if name == "tau":  # the authors leave its convolutions as PyTorch starts them
        attention = TemporalAttention(dim, **around)
    elif name == "van":
        attention = LargeKernelAttention(dim, **around)
        fan_out_normal_(attention)
    elif name == "moganet":
        scale = 1e-5
        attention = MultiOrderGate(dim, **around)
        feed_forward = ChannelAggregation(dim, hidden, dropout, **around)
        fan_out_normal_(attention)
        fan_out_normal_(feed_forward)
    else:
        scale = 1e-6
        attention = RecursiveGate(dim, **around)
        feed_forward = ChannelMlp(dim, hidden, dropout)
        norms = (ChannelNorm(dim, eps=1e-6), ChannelNorm(dim, eps=1e-6))  # type: ignore[assignment]
        fan_out_normal_(attention)
    return MetaBlock(
        dim, out, norms[0], attention, norms[1], feed_forward, scale=scale, drop_path=drop_path
    )


def _eighths(name: str, dim: int) -> None:
    if dim % 8:
        raise InputError(
            f"{name} divides its channels by 8, so translator_channels and input_steps x "
            f"encoder_channels must be multiples of 8; found a width of {dim}"
        )


class LargeKernelAttention(nn.Module):
    """VAN, section 3.1: features times a 1 x 1 map of their 21 x 21 neighbourhood (eq. 1, 2).

    The large kernel is a depthwise 5 x 5, then a depthwise 7 x 7 of dilation 3. A 1 x 1 convolution
    with GELU stands before, another one behind, and a shortcut around all (figure 3).
    """

    def __init__(self, dim: int, *, circular_longitude: bool) -> None:
        super().__init__()
        around = {"circular_longitude": circular_longitude}
        self.project_in = nn.Conv2d(dim, dim, 1)
        self.local = Conv2d(dim, dim, 5, groups=dim, **around)
        self.dilated = Conv2d(dim, dim, 7, groups=dim, dilation=3, **around)
        self.gate = nn.Conv2d(dim, dim, 1)
        self.project_out = nn.Conv2d(dim, dim, 1)
        self.reach: float = self.local.reach + self.dilated.reach

    def forward(self, u: Tensor) -> Tensor:
        """(B, dim, h, w) -> the same."""
        return self.project_out(self._weigh(F.gelu(self.project_in(u)))) + u

    def _weigh(self, z: Tensor) -> Tensor:
        return self.gate(self.dilated(self.local(z))) * z


class TemporalAttention(LargeKernelAttention):
    """TAU: VAN's attention within a frame, times one weight a channel between frames.

    The paper's section on the Temporal Attention Unit: statical attention (the large kernel) times
    dynamical attention (squeeze and excitation of the stacked frames' channels, by their means over
    the grid) times the features. Frames are channels here, so a weight is that of a frame's
    feature. The code squeezes `dim` channels to dim // max(dim // 16, 4), about 16 whatever the
    width; the paper names no number.
    """

    def __init__(self, dim: int, *, circular_longitude: bool) -> None:
        super().__init__(dim, circular_longitude=circular_longitude)
        squeezed = max(1, dim // max(dim // 16, 4))
        self.squeeze = nn.Linear(dim, squeezed, bias=False)
        self.excite = nn.Linear(squeezed, dim, bias=False)
        self.reach = math.inf

    def _weigh(self, z: Tensor) -> Tensor:
        weight = torch.sigmoid(self.excite(F.relu(self.squeeze(z.mean((2, 3))))))
        return weight[:, :, None, None] * super()._weigh(z)


class MultiOrderGate(nn.Module):
    """MogaNet, section 4.2: feature decomposition, then gated aggregation of three contexts.

    The value is a depthwise 5 x 5; 3/8 of its channels go through another 5 x 5 of dilation 2, and
    4/8 through a 7 x 7 of dilation 3. SiLU(gate) * SiLU(value), and a shortcut around all, which
    the code has beside the block's own.
    """

    reach = math.inf  # the mean over the grid

    def __init__(self, dim: int, *, circular_longitude: bool) -> None:
        super().__init__()
        _eighths("MogaNet", dim)
        self.widths = dim // 8, 3 * dim // 8, dim // 2
        _, near, far = self.widths
        around = {"circular_longitude": circular_longitude}
        self.project_in = nn.Conv2d(dim, dim, 1)
        self.sigma = nn.Parameter(torch.full((dim,), 1e-5))
        self.gate = nn.Conv2d(dim, dim, 1)
        self.local = Conv2d(dim, dim, 5, groups=dim, **around)
        self.near = Conv2d(near, near, 5, groups=near, dilation=2, **around)
        self.far = Conv2d(far, far, 7, groups=far, dilation=3, **around)
        self.pointwise = nn.Conv2d(dim, dim, 1)
        self.project_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> the same."""
        z = self.project_in(x)
        mean = z.mean((2, 3), keepdim=True)
        z = F.silu(z + self.sigma[:, None, None] * (z - mean))
        here, near, far = self.local(z).split(self.widths, dim=1)
        value = self.pointwise(torch.cat([here, self.near(near), self.far(far)], dim=1))
        return self.project_out(F.silu(self.gate(z)) * F.silu(value)) + x


class ChannelAggregation(nn.Module):
    """MogaNet, section 4.3: the feed-forward part that weighs what one channel cannot say.

    1 x 1 convolution to r times the width, depthwise 3 x 3, GELU; z + sigma (z - GELU(W z)), where
    W makes one channel of all; 1 x 1 convolution back.
    """

    def __init__(self, dim: int, hidden: int, dropout: float, *, circular_longitude: bool) -> None:
        super().__init__()
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.depthwise = Conv2d(
            hidden, hidden, 3, groups=hidden, circular_longitude=circular_longitude
        )
        self.decompose = nn.Conv2d(hidden, 1, 1)
        self.sigma = nn.Parameter(torch.full((hidden,), 1e-5))
        self.contract = nn.Conv2d(hidden, dim, 1)
        self.dropout = dropout
        self.reach = self.depthwise.reach

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> the same."""
        z = F.dropout(F.gelu(self.depthwise(self.expand(x))), self.dropout, self.training)
        z = z + self.sigma[:, None, None] * (z - F.gelu(self.decompose(z)))
        return F.dropout(self.contract(z), self.dropout, self.training)


class RecursiveGate(nn.Module):
    """HorNet, section 3.1: recursive gated convolution of order 4, at widths C/8, C/4, C/2, C.

    p_0 and q_0, ..., q_3 come from one 1 x 1 convolution, the q pass a depthwise 7 x 7, and
    p_{k+1} = g_k(p_k) * q_k with 1 x 1 convolutions g_k (g_0 is the identity).
    """

    reach = 3.0

    def __init__(self, dim: int, *, circular_longitude: bool) -> None:
        super().__init__()
        _eighths("HorNet", dim)
        self.widths = [dim // 8, dim // 4, dim // 2, dim]
        q = sum(self.widths)
        self.project_in = nn.Conv2d(dim, 2 * dim, 1)
        self.depthwise = Conv2d(q, q, 7, groups=q, circular_longitude=circular_longitude)
        self.widen = nn.ModuleList(nn.Conv2d(w, 2 * w, 1) for w in self.widths[:-1])
        self.project_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> the same."""
        p, q = self.project_in(x).split([self.widths[0], sum(self.widths)], dim=1)
        first, *others = self.depthwise(q).split(self.widths, dim=1)
        p = p * first
        for widen, gate in zip(self.widen, others, strict=True):
            p = widen(p) * gate
        return self.project_out(p)


class ConvNeXtBlock(nn.Module):
    """ConvNeXt, section 2.6 and figure 4: x + s * Mlp(LayerNorm(depthwise 7 x 7)), one branch.

    The Mlp is over channels, linear, GELU, linear. `dropout` is in it; the code has none.
    """

    reach = 3.0

    def __init__(
        self,
        dim: int,
        out: int,
        hidden: int,
        dropout: float,
        *,
        drop_path: float,
        circular_longitude: bool,
    ) -> None:
        super().__init__()
        self.depthwise = Conv2d(dim, dim, 7, groups=dim, circular_longitude=circular_longitude)
        self.norm = ChannelNorm(dim, eps=1e-6)
        self.feed_forward = ChannelMlp(dim, hidden, dropout)
        fan_out_normal_(self)
        self.scale = nn.Parameter(torch.full((dim,), 1e-6))
        self.drop_path = drop_path
        self.resize = nn.Conv2d(dim, out, 1) if out != dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, out, h, w)."""
        y = self.scale[:, None, None] * self.feed_forward(self.norm(self.depthwise(x)))
        if self.training and self.drop_path:
            y = stochastic_depth(y, self.drop_path)
        return self.resize(x + y)


class UniFormerBlock(MetaBlock):
    """UniFormer, section 3.1: position encoding, relation aggregator, feed-forward part.

    A depthwise 3 x 3 added to x tells the positions. The aggregator is `local` (section 3.2: 1 x 1,
    depthwise 5 x 5 and 1 x 1 convolutions behind BatchNorm, no layer scale) or attention between
    all positions (section 3.3, behind LayerNorm). The code takes the local one in the first block
    and wherever the width changes.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        hidden: int,
        dropout: float,
        *,
        local: bool,
        drop_path: float,
        circular_longitude: bool,
    ) -> None:
        position = Conv2d(dim, dim, 3, groups=dim, circular_longitude=circular_longitude)
        feed_forward = ChannelMlp(dim, hidden, dropout)
        attention: nn.Module
        if local:
            norms: list[nn.Module] = [nn.BatchNorm2d(dim), nn.BatchNorm2d(dim)]
            attention = LocalAggregator(dim, circular_longitude=circular_longitude)
            for part in (position, attention, feed_forward):
                fan_out_normal_(part)
        else:
            norms = [ChannelNorm(dim), ChannelNorm(dim)]
            attention = Attention(dim, dropout)
        super().__init__(
            dim,
            out,
            norms[0],
            attention,
            norms[1],
            feed_forward,
            scale=None if local else 1e-6,
            drop_path=drop_path,
        )
        self.position = position
        self.reach += position.reach

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, out, h, w)."""
        return super().forward(x + self.position(x))


class LocalAggregator(nn.Module):
    """1 x 1, depthwise 5 x 5 and 1 x 1 convolutions."""

    def __init__(self, dim: int, *, circular_longitude: bool) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(dim, dim, 1)
        self.local = Conv2d(dim, dim, 5, groups=dim, circular_longitude=circular_longitude)
        self.project_out = nn.Conv2d(dim, dim, 1)
        self.reach: float = self.local.reach

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> the same."""
        return self.project_out(self.local(self.project_in(x)))
