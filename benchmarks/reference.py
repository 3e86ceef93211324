"""SimVPv2 written down plainly: what `model.py` measures the library's network against.

Eager float32 in PyTorch's default (NCHW) layout, one operation after the other as the paper's
formulas read, with no regard to speed: the way the authors' public code runs. Its parameters carry
the library's names, so that both networks can hold the same weights; `tests/test_benchmarks.py`
proves it equal to the authors' outputs on the golden cases.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, SiLU; halving by stride 2, doubling by PixelShuffle."""

    def __init__(self, c_in: int, c_out: int, kernel: int, *, down: bool, up: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            c_in, 4 * c_out if up else c_out, kernel, stride=2 if down else 1, padding=kernel // 2
        )
        self.shuffle = nn.PixelShuffle(2) if up else nn.Identity()
        self.norm = nn.GroupNorm(2, c_out)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.shuffle(self.conv(x))))


class GatedAttention(nn.Module):
    """gSTA: a decomposed 21 x 21 kernel and a gate, with a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(dim, dim, 1)
        self.activation = nn.GELU()
        self.local = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.dilated = nn.Conv2d(dim, dim, 7, padding=9, groups=dim, dilation=3)
        self.gate = nn.Conv2d(dim, 2 * dim, 1)
        self.project_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(self.dilated(self.local(self.activation(self.project_in(x)))))
        features, gate = torch.split(y, x.shape[1], dim=1)
        return self.project_out(torch.sigmoid(gate) * features) + x


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.activation = nn.GELU()
        self.contract = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.activation(self.depthwise(self.expand(x))))


class Block(nn.Module):
    def __init__(self, dim: int, out: int, ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.BatchNorm2d(dim), GatedAttention(dim)
        self.norm2, self.feed_forward = nn.BatchNorm2d(dim), FeedForward(dim, int(dim * ratio))
        self.scale1 = nn.Parameter(torch.full((dim,), 0.01))
        self.scale2 = nn.Parameter(torch.full((dim,), 0.01))
        self.drop_path = drop_path
        self.resize = nn.Conv2d(dim, out, 1) if out != dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.scale1[:, None, None] * self.attention(self.norm1(x)))
        x = x + self.drop(self.scale2[:, None, None] * self.feed_forward(self.norm2(x)))
        return self.resize(x)

    def drop(self, y: Tensor) -> Tensor:
        if not self.training or not self.drop_path:
            return y
        keep = 1 - self.drop_path
        return y * y.new_empty(len(y), 1, 1, 1).bernoulli_(keep).div_(keep)


class ReferenceSimVPv2(nn.Module):
    """(B, T, C, H, W) -> (B, T', C, H, W); H and W must be multiples of the strides."""

    def __init__(
        self,
        input_steps: int,
        target_steps: int,
        channels: int,
        *,
        encoder_channels: int,
        translator_channels: int,
        encoder_layers: int,
        translator_blocks: int,
        mlp_ratio: float = 8.0,
        drop_path: float | None = 0.0,
        encoder_kernel: int = 3,
        decoder_kernel: int = 3,
    ) -> None:
        super().__init__()
        self.target_steps = target_steps
        S, K, outer = encoder_channels, translator_channels, input_steps * encoder_channels
        halve = [bool(i % 2) for i in range(encoder_layers)]
        self.encoder = nn.ModuleList(
            ConvBlock(S if i else channels, S, encoder_kernel, down=down, up=False)
            for i, down in enumerate(halve)
        )
        last = translator_blocks - 1
        rates = [0.0] * translator_blocks
        if drop_path is not None:
            rates = torch.linspace(0.01, drop_path, translator_blocks).tolist()
        self.translator = nn.Sequential(
            *(
                Block(outer if i == 0 else K, outer if i == last else K, mlp_ratio, rate)
                for i, rate in enumerate(rates)
            )
        )
        self.decoder = nn.ModuleList(
            ConvBlock(S, S, decoder_kernel, down=False, up=up) for up in reversed(halve)
        )
        self.readout = nn.Conv2d(S, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        frames = [x := self.one_pass(x)]
        while sum(f.shape[1] for f in frames) < self.target_steps:
            frames.append(x := self.one_pass(x))
        return torch.cat(frames, dim=1)[:, : self.target_steps]

    def one_pass(self, x: Tensor) -> Tensor:
        B, T, C, H, W = x.shape
        z = skip = self.encoder[0](x.view(B * T, C, H, W))
        for block in self.encoder[1:]:
            z = block(z)
        _, S, h, w = z.shape
        z = self.translator(z.view(B, T * S, h, w)).reshape(B * T, S, h, w)
        for block in self.decoder[:-1]:
            z = block(z)
        return self.readout(self.decoder[-1](z + skip)).reshape(B, T, -1, H, W)
