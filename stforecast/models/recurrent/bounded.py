"""What recurrent networks with a bounded output share: the map onto the range of the data."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Recurrent


class Bounded(Recurrent):
    """A recurrent network that ends in a sigmoid: its frames lie in (0, 1).

    Its papers scale their data so. Here inputs come standardised, and an affine map of each channel
    stands around the network: the least value of the training period becomes 0, the greatest 1.
    :func:`stforecast.fit` tells both (:meth:`set_output_range`), and bundles keep them in the
    buffer ``output_range`` (2, C'). A frame can therefore never leave the range of the training
    period. Until it is told the map is the identity, so that weights of the authors, and data
    that lie in [0, 1] already, are taken as they are. Channels that are not forecast keep their
    own units.

    Parameters
    ----------
    *sizes, **options
        As of :class:`~stforecast.models.recurrent.base.Recurrent`.
    """

    output_range: Tensor

    def __init__(self, *sizes: int, **options: Any) -> None:
        super().__init__(*sizes, **options)
        unit = torch.tensor([[0.0], [1.0]], dtype=torch.float32)
        self.register_buffer("output_range", unit.repeat(1, self.out_channels))

    def set_output_range(self, low: Tensor, high: Tensor) -> None:
        """Set the least and the greatest value (C',) of each channel that is forecast."""
        low, high = (v.to(self.output_range) for v in (low, high))
        self.output_range.copy_(torch.stack([low, torch.maximum(high, low + 1e-6)]))

    def squared_unit(self) -> Tensor:
        """Mean square of the range, by which mean square errors are larger than those in (0, 1)."""
        low, high = self.output_range
        return (high - low).square().mean()

    def unroll(
        self, x: Tensor, steps: int, y: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Go through all steps, in (0, 1), as :meth:`.Unrolled.unroll` does.

        Parameters
        ----------
        x, steps, y, mask
            As :meth:`.Unrolled.unroll` has them.

        Returns
        -------
        frames : Tensor of shape (B, T + steps - 1, C', H, W)
        state : Any
        """
        self._check_input(x, steps)
        low, high = self.output_range[..., None, None]
        frames, state = super().unroll(
            _to_unit(x, low, high), steps, None if y is None else _to_unit(y, low, high), mask
        )
        return frames * (high - low) + low, state


def _to_unit(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Map the first C' channels of (B, n, C, H, W) from [low, high] (C', 1, 1) to [0, 1]."""
    further = (0, 0, 0, 0, 0, x.shape[2] - len(low))
    return (x - F.pad(low, further)) / F.pad(high - low, further, value=1.0)
