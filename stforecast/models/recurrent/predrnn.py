"""PredRNN: a memory that goes upwards through all layers, and on to the bottom of the next step.

Wang, Long, Wang, Gao, Yu: "PredRNN: Recurrent Neural Networks for Predictive Learning using
Spatiotemporal LSTMs", NeurIPS 2017 (its extended version: arXiv:2103.09504), section 3, as the
public code of the SimVPv2 paper (arXiv:2211.12509) has it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..layers import Conv2d, full_precision
from .base import ConvRecurrent, GateConv, zeros


class States(NamedTuple):
    """Of all layers: outputs and cell states (each L of (B, c, h, w)), and the one memory."""

    h: list[Tensor]
    c: list[Tensor]
    m: Tensor


class PredRNN(ConvRecurrent):
    """PredRNN: stacked ST-LSTM layers (arXiv:2103.09504, section 3).

    Maps (B, T, C, H, W) to (B, T', C', H, W).

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    **options
        ``hidden`` (equal widths), ``kernel``, ``layer_norm`` as of
        :class:`~stforecast.models.recurrent.base.ConvRecurrent`, and what
        :class:`~stforecast.models.recurrent.base.Recurrent` has.

    References
    ----------
    .. [1] arXiv:2103.09504, section 3, the equations of the ST-LSTM.
    """

    def __init__(
        self, input_steps: int = 12, target_steps: int = 12, channels: int = 1, **options: Any
    ) -> None:
        super().__init__(input_steps, target_steps, channels, **options)
        c = self.equal_widths()
        self.cells = nn.ModuleList(
            STLSTMCell(c if i else self.patch**2 * channels, c, self.kernel, **self.conv)
            for i in range(len(self.hidden))
        )
        self.readout = self.readout_of(c)

    def begin(self, frame: Tensor) -> States:
        """All zero."""
        z = zeros(frame, self.hidden[0])
        return States([z] * len(self.hidden), [z] * len(self.hidden), z)

    def step(self, u: Tensor, state: States) -> tuple[Tensor, States]:
        """One step, upwards through the layers.

        Parameters
        ----------
        u : Tensor of shape (B, 7c, h, w)
            Of :meth:`.Unrolled.inlet`.
        state : States

        Returns
        -------
        frame : Tensor of shape (B, P', h, w)
        state : States
        """
        new = States([], [], state.m)
        for i, cell in enumerate(self.cells):
            a = u if i == 0 else cell.conv_x(new.h[-1])  # type: ignore[operator]
            h, c, m = cell(a, state.h[i], state.c[i], new.m)
            new = States([*new.h, h], [*new.c, c], m)
        with full_precision(u):
            return self.readout(new.h[-1].to(self.readout.weight.dtype)), new


class STLSTMCell(nn.Module):
    """One layer, with a cell state of its own and the memory of all (arXiv:2103.09504, section 3).

    Parameters
    ----------
    c_in, c : int
        Channels of the input and of the states.
    kernel : int
    **conv
        As of :class:`~stforecast.models.recurrent.base.GateConv`.
    """

    def __init__(self, c_in: int, c: int, kernel: int, **conv: Any) -> None:
        super().__init__()
        self.conv_x = GateConv(c_in, 7 * c, kernel, **conv)
        self.conv_h = GateConv(c, 4 * c, kernel, **conv)
        self.conv_m = GateConv(c, 3 * c, kernel, **conv)
        self.conv_o = GateConv(2 * c, c, kernel, **conv)
        self.conv_last = Conv2d(2 * c, c, 1, circular_longitude=False, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Convolved input (B, 7c, h, w) and states (B, c, h, w) -> the next states."""
        return self.increments(x, h, c, m)[:3]

    def increments(
        self, x: Tensor, h: Tensor, c: Tensor, m: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The next states, and what was added to the cell state and to the memory.

        Parameters
        ----------
        x, h, c, m : Tensor
            As :meth:`forward` has them.

        Returns
        -------
        h, c, m, to_c, to_m : Tensor of shape (B, c, h, w)
        """
        n = c.shape[1]
        x_c, x_m, x_o = x.split([3 * n, 3 * n, n], dim=1)
        h_c, h_o = self.conv_h(h).split([3 * n, n], dim=1)
        i, f, g = (x_c + h_c).chunk(3, dim=1)
        to_c = torch.sigmoid(i) * torch.tanh(g)
        c = torch.sigmoid(f + 1) * c + to_c
        i, f, g = (x_m + self.conv_m(m)).chunk(3, dim=1)
        to_m = torch.sigmoid(i) * torch.tanh(g)
        m = torch.sigmoid(f + 1) * m + to_m
        both = torch.cat([c, m], dim=1)
        o = torch.sigmoid(x_o + h_o + self.conv_o(both))
        return o * torch.tanh(self.conv_last(both)), c, m, to_c, to_m
