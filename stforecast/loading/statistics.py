"""Mean and standard deviation of the data, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Mean and deviation of channels, in one pass over blocks, in float64, of what is not NaN."""

    def __init__(self, channels: int) -> None:
        self._n = self.mean = self._square = torch.zeros(channels, dtype=torch.float64)

    def add(self, block: Tensor) -> None:
        """Add a block (N, C, H, W).

        Moments of parts add, without cancellation: Chan, Golub and LeVeque (1979).
        """
        values = block.double()
        more = (~values.isnan()).sum((0, 2, 3))
        middle = values.nanmean((0, 2, 3)).nan_to_num()
        spread = (values - middle[:, None, None]).square().nansum((0, 2, 3)).cpu()
        more, shift = more.cpu(), middle.cpu() - self.mean
        both = (self._n + more).clamp_min(1)
        self._square = self._square + spread + shift**2 * self._n * more / both
        self._n, self.mean = self._n + more, self.mean + shift * more / both

    @property
    def std(self) -> Tensor:
        """Deviation (C,)."""
        return (self._square / self._n.clamp_min(1)).sqrt()
