"""What recurrent networks with a bounded output share: frames within the range of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ...task import Task
from .base import Recurrent

_UNTOLD = 10.0  # standard deviations to either side of the mean, until the range is told
_EDGE = 1e-3  # of the range: where a frame lies on its end, the sigmoid would be flat


class Bounded(Recurrent):
    """A recurrent network that ends in a sigmoid: its frames lie in the range of the data.

    :func:`stforecast.fit` tells the least and the greatest value of the training period
    (:meth:`set_output_range`), and bundles keep them in the buffer ``output_range`` (2, C'). A
    frame can never leave that range. Channels that are not forecast keep their own units.

    The papers scale their data to [0, 1]. So does an affine map of each channel that stands around
    the network. Until the range is told the map is the identity, so that weights of the authors,
    and data that lie in [0, 1] already, are taken as they are.

    With ``predict_change=True``, which :meth:`for_task` takes, the network is fed with standardised
    frames as they are, and the sigmoid's argument is that of the frame that went in, changed by
    what the step gives. Weather needs it: anomalies of temperature have a range of 17 standard
    deviations and change by a tenth of one in an hour. In [0, 1] that is 0.006, which the norms
    behind the first convolution hide beside the mean of 1/2, and which a step of the optimiser
    overshoots.

    Parameters
    ----------
    *sizes, **options
        As of :class:`~stforecast.models.recurrent.base.Recurrent`.
    """

    output_range: Tensor

    def __init__(self, *sizes: int, **options: Any) -> None:
        super().__init__(*sizes, **options)
        ends = [[-_UNTOLD], [_UNTOLD]] if self.predict_change else [[0.0], [1.0]]
        unit = torch.tensor(ends, dtype=torch.float32)
        self.register_buffer("output_range", unit.repeat(1, self.out_channels))

    @classmethod
    def for_task(
        cls, task: Task, grid: Mapping[str, Any] | None = None, /, **settings: Any
    ) -> Self:
        """Make the network for a task, with ``predict_change=True`` unless told otherwise.

        Parameters
        ----------
        task, grid, **settings
            As of :meth:`.Recurrent.for_task`.
        """
        return super().for_task(task, grid, **({"predict_change": True} | settings))

    def set_output_range(self, low: Tensor, high: Tensor) -> None:
        """Set the least and the greatest value (C',) of each channel that is forecast."""
        low, high = (v.to(self.output_range) for v in (low, high))
        self.output_range.copy_(torch.stack([low, torch.maximum(high, low + 1e-6)]))

    def squared_unit(self) -> Tensor:
        """Mean square of the network's unit, by which errors in (0, 1) would be smaller."""
        low, high = self.output_range
        return torch.ones_like(low[0]) if self.predict_change else (high - low).square().mean()

    def close(self, z: Tensor, fed: Tensor) -> Tensor:
        """An estimate of the next frame, in the range; shapes as of :meth:`.Unrolled.close`.

        A unit of `z` is the typical change of one step, as far as the sigmoid is straight: at the
        mean of the training period.
        """
        if not self.predict_change:
            return torch.sigmoid(z)
        low, high = (self.per_place(v) for v in self.output_range)
        span = high - low
        mean = (-low / span).clamp(0.05, 0.95)
        unit = self.per_place(self.tendency_std) / (span * mean * (1 - mean))
        now = ((self.forecast_part(fed) - low) / span).clamp(_EDGE, 1 - _EDGE)
        return low + span * torch.sigmoid(torch.logit(now) + unit * z.to(fed.dtype))

    def unroll(
        self, x: Tensor, steps: int, y: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Go through all steps, in the network's unit, as :meth:`.Unrolled.unroll` does.

        Parameters
        ----------
        x, steps, y, mask
            As :meth:`.Unrolled.unroll` has them.

        Returns
        -------
        frames : Tensor of shape (B, T + steps - 1, C', H, W)
        state : Any
        """
        if self.predict_change:
            return super().unroll(x, steps, y, mask)
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
