"""What MMVP is made of: its predictor of matrices, residual dense blocks, ways to other grids.

The residual dense blocks are those of Wang et al., "ESRGAN" (arXiv:1809.00219), section 3.1, with
three convolutions in place of four inside a dense block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ..layers import Conv2d
from .crevnet import Conv3d


class MatrixPredictor(nn.Module):
    """Future motion matrices from past ones: each row is a map, rows are a batch of their own.

    Parameters
    ----------
    K : int
        Channels.
    past, steps : int
        T - 1 and T'.
    direct : bool
        As of :class:`~stforecast.models.recurrent.mmvp.MMVP`.
    circular_longitude : bool
    """

    def __init__(
        self, K: int, past: int, steps: int, *, direct: bool, circular_longitude: bool
    ) -> None:
        super().__init__()
        if not direct and (past, steps) != (3, 1):
            raise InputError(
                f"direct=False predicts one step from four, found {past + 1} in and {steps} out"
            )
        self.steps = steps
        conv = {"circular_longitude": circular_longitude}
        self.embed = Conv2d(1, K, 3, bias=False, **conv)
        self.before_1, self.before_2 = NormedConv(K, K, **conv), NormedConv(K, K, **conv)
        self.fine = NormedConv(K, K, stride=2, **conv)
        self.fine_time = NormedConv3d(K, **conv)
        self.translate = Translation(past * K, steps * K) if direct else None
        self.coarse = NormedConv(K, 2 * K, stride=2, **conv)
        self.coarse_time = (
            NormedConv(2 * K, 2 * K, norm=False, **conv)
            if direct and steps == 1
            else NormedConv3d(2 * K, whole_windows=not direct, **conv)
        )
        self.join = NormedConv(3 * K, K, **conv)
        self.after = NormedConv(K, K, **conv)
        self.readout = Conv2d(K, 1, 3, bias=False, **conv)

    def forward(self, past: Tensor, grid: Sequence[int]) -> Tensor:
        """(B, T - 1, n, n) on a grid (h, w) -> (B, T', n, n)."""
        B, S, n = past.shape[:3]
        rows = past.transpose(1, 2).reshape(B * n * S, 1, *grid)
        a = self.fine(self.before_2(self.before_1(self.embed(rows))))
        a = self.fine_time(_in_time(a, S))  # (B n, K, T - 1, h', w')
        if self.translate is None:
            b = self.coarse_time(_in_time(self.coarse(_side_by_side(a)), S))
            a, b = a.amax(2), b[:, :, 0]
        else:
            steps = a.transpose(1, 2).flatten(1, 2)  # (B n, (T - 1) K, h', w')
            a = self.translate(steps).unflatten(1, (self.steps, -1)).flatten(0, 1)
            b = self.coarse(a)
            if self.steps == 1:
                b = self.coarse_time(b)
            else:
                b = _side_by_side(self.coarse_time(_in_time(b, self.steps)))
        z = self.join(torch.cat([resized(b, a.shape[-2:], "nearest"), a], dim=1))
        z = self.readout(self.after(resized(z, grid, "nearest")))
        return z.reshape(B, n, self.steps, n).transpose(1, 2)


class NormedConv(nn.Module):
    """A 3 x 3 convolution, batch norm unless it is said, and LeakyReLU."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        stride: int = 1,
        norm: bool = True,
        circular_longitude: bool,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(c_in, c_out, 3, stride=stride, circular_longitude=circular_longitude)
        self.norm = nn.BatchNorm2d(c_out) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, h, w) -> (N, c_out, h', w')."""
        return F.leaky_relu(self.norm(self.conv(x)))


class NormedConv3d(nn.Module):
    """The same over time, rows and columns; with `whole_windows` time gets shorter by two."""

    def __init__(
        self, channels: int, *, whole_windows: bool = False, circular_longitude: bool
    ) -> None:
        super().__init__()
        self.conv = Conv3d(channels, channels, 3, circular_longitude=circular_longitude)
        self.norm = nn.BatchNorm3d(channels)
        self.whole_windows = whole_windows

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, steps, h, w) -> the same, or with two steps fewer."""
        z = self.conv(x)
        return F.leaky_relu(self.norm(z[:, :, 1:-1] if self.whole_windows else z))


class Translation(nn.Module):
    """All past steps to all future ones: 1 x 1 convolution, LeakyReLU, and then batch norm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, h, w) -> (N, c_out, h, w)."""
        return self.norm(F.leaky_relu(self.conv(x)))


class DenseBlock(nn.Module):
    """x + 0.2 times the last of four convolutions, each of which sees x and those before it."""

    def __init__(self, channels: int, *, circular_longitude: bool) -> None:
        super().__init__()
        growth = channels // 2

        def conv(j: int, c_out: int) -> Conv2d:
            c_in = channels + j * growth
            return Conv2d(c_in, c_out, 3, circular_longitude=circular_longitude)

        self.conv1, self.conv2, self.conv3 = (conv(j, growth) for j in range(3))
        self.conv4 = conv(3, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, h, w) -> the same."""
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3):
            seen = torch.cat([seen, F.leaky_relu(conv(seen), 0.2)], dim=1)
        return x + 0.2 * self.conv4(seen)


class ResidualDense(nn.Module):
    """x + 0.2 times what three dense blocks make of it (arXiv:1809.00219, section 3.1)."""

    def __init__(self, channels: int, *, circular_longitude: bool) -> None:
        super().__init__()
        around = {"circular_longitude": circular_longitude}
        self.RDB1, self.RDB2, self.RDB3 = (DenseBlock(channels, **around) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, h, w) -> the same."""
        return x + 0.2 * self.RDB3(self.RDB2(self.RDB1(x)))


class Coarsening(nn.Module):
    """A residual block of stride 2 that doubles the channels, pooled once more for a factor 4."""

    def __init__(self, channels: int, factor: int, *, circular_longitude: bool) -> None:
        super().__init__()
        conv, out = {"circular_longitude": circular_longitude}, 2 * channels
        self.conv1 = Conv2d(channels, out, 3, stride=2, **conv)
        self.conv2 = Conv2d(out, out, 3, **conv)
        self.shortcut = nn.Conv2d(channels, out, 1, stride=2)
        self.pooled = factor == 4

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, h, w) -> (N, 2 c, h', w'), half or a quarter of h and w, rounded up."""
        z = F.relu(self.conv2(F.relu(self.conv1(x)))) + self.shortcut(x)
        return F.leaky_relu(F.max_pool2d(z, 2) if self.pooled else z)


class Refinement(nn.Module):
    """A transposed convolution to a finer grid of half the channels, and what is there already."""

    def __init__(self, channels: int, factor: int, *, skip: bool, circular_longitude: bool) -> None:
        super().__init__()
        half = channels // 2
        self.up = nn.ConvTranspose2d(channels, half, factor, stride=factor)
        self.conv = Conv2d(
            channels if skip else half, half, 3, bias=False, circular_longitude=circular_longitude
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(N, c, h, w), and (N, c / 2, h', w') -> (N, c / 2, h', w')."""
        z = self.up(x)
        if skip is not None:  # in its middle
            rows, columns = (a - b for a, b in zip(skip.shape[-2:], z.shape[-2:], strict=True))
            ends = columns // 2, columns - columns // 2, rows // 2, rows - rows // 2
            z = torch.cat([skip, F.pad(z, ends)], dim=1)
        return F.relu(self.conv(z))


def dense_blocks(channels: int, blocks: int, **conv: bool) -> nn.Sequential:
    """So many residual dense blocks."""
    return nn.Sequential(*(ResidualDense(channels, **conv) for _ in range(blocks)))


def filter_block(c_in: int, c: int, **conv: bool) -> nn.Sequential:
    """Three times convolution, batch norm, LeakyReLU."""
    layers: list[nn.Module] = []
    for first in (c_in, c, c):
        layers += [Conv2d(first, c, 3, **conv), nn.BatchNorm2d(c), nn.LeakyReLU()]
    return nn.Sequential(*layers)


def resized(x: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """(N, c, h, w) on another grid, where it is another."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    corners = None if mode == "nearest" else False
    return F.interpolate(x, tuple(size), mode=mode, align_corners=corners)


def _in_time(x: Tensor, steps: int) -> Tensor:
    """(N steps, c, h, w) -> (N, c, steps, h, w)."""
    return x.unflatten(0, (-1, steps)).transpose(1, 2)


def _side_by_side(x: Tensor) -> Tensor:
    """(N, c, steps, h, w) -> (N steps, c, h, w)."""
    return x.transpose(1, 2).flatten(0, 1)
