"""Gated spatiotemporal attention, the translator of SimVPv2 (arXiv:2211.12509, section IV)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Conv2d, FeedForward, MetaBlock, fan_out_normal_


class GatedAttention(nn.Module):
    """Gated spatiotemporal attention, eq. 6-8: a 21 x 21 kernel in three steps, then a gate.

    The large kernel is decomposed into a depthwise 5 x 5, a depthwise 7 x 7 of dilation 3, and a
    1 x 1 convolution whose two halves are the features and their gate.
    """

    def __init__(self, dim: int, *, circular_longitude: bool = False) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(dim, dim, 1)
        self.local = Conv2d(dim, dim, 5, groups=dim, circular_longitude=circular_longitude)
        self.dilated = Conv2d(
            dim, dim, 7, groups=dim, dilation=3, circular_longitude=circular_longitude
        )
        self.gate = nn.Conv2d(dim, 2 * dim, 1)
        self.project_out = nn.Conv2d(dim, dim, 1)
        self.reach = self.local.reach + self.dilated.reach

    def forward(self, u: Tensor) -> Tensor:
        """(B, dim, h, w) -> the same."""
        z = F.gelu(self.project_in(u))
        z = self.gate(self.dilated(self.local(z)))  # eq. 6: the large kernel; (B, 2 dim, h, w)
        features, gate = z.chunk(2, dim=1)  # eq. 7: two halves
        return self.project_out(torch.sigmoid(gate) * features) + u  # eq. 8: the gate


class GSTABlock(MetaBlock):
    """x + DropPath(s1 * GatedAttention(BN(x))), then x + DropPath(s2 * FeedForward(BN(x)))."""

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        mlp_ratio: float,
        drop_path: float,
        dropout: float,
        circular_longitude: bool,
    ) -> None:
        attention = GatedAttention(dim, circular_longitude=circular_longitude)
        feed_forward = FeedForward(dim, mlp_ratio, dropout, circular_longitude=circular_longitude)
        fan_out_normal_(attention)
        fan_out_normal_(feed_forward)
        super().__init__(
            dim,
            out,
            nn.BatchNorm2d(dim),
            attention,
            nn.BatchNorm2d(dim),
            feed_forward,
            scale=0.01,
            drop_path=drop_path,
        )
