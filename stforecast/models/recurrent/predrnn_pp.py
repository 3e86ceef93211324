"""PredRNN++: two memories in a row in each layer, and a short road for gradients through time.

Wang, Gao, Long, Wang, Yu: "PredRNN++: Towards A Resolution of the Deep-in-Time Dilemma in
Spatiotemporal Predictive Learning" (arXiv:1804.06300), the sections on the causal LSTM and on the
gradient highway, as the public code of the SimVPv2 paper (arXiv:2211.12509) has it.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..layers import Conv2d, full_precision
from .base import ConvRecurrent, GateConv, unused, zeros


class States(NamedTuple):
    """Of all layers: outputs and cell states (each L of (B, c, h, w)); memory, and the highway."""

    h: list[Tensor]
    c: list[Tensor]
    m: Tensor
    z: Tensor


class PredRNNpp(ConvRecurrent):
    """PredRNN++: causal LSTM layers, a gradient highway above the first (arXiv:1804.06300).

    Maps (B, T, C, H, W) to (B, T', C', H, W).

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    legacy : bool
        The cell of the public code up to version 0.3.0, whose first cascade sees the memory in
        place of the cell state: that of all its released weights and of the figures in print.
    **options
        ``hidden`` (two or more layers of equal widths), ``kernel``, ``layer_norm`` as of
        :class:`~stforecast.models.recurrent.base.ConvRecurrent`, and what
        :class:`~stforecast.models.recurrent.base.Recurrent` has. The public code fails with
        ``layer_norm``.

    References
    ----------
    .. [1] arXiv:1804.06300, the sections on the causal LSTM and the gradient highway unit.
    """

    has_legacy = True
    flags: ClassVar[tuple[str, ...]] = (*ConvRecurrent.flags, "legacy")
    openstl_names = (*ConvRecurrent.openstl_names, (r"^gradient_highway\.", "highway."))

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        legacy: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(input_steps, target_steps, channels, own={"legacy": legacy}, **options)
        c = self.equal_widths(least=2)
        self.cells = nn.ModuleList(
            CausalLSTMCell(
                c if i else self.patch**2 * channels, c, self.kernel, legacy=legacy, **self.conv
            )
            for i in range(len(self.hidden))
        )
        self.highway = Highway(c, self.kernel, **self.conv)
        self.readout = self.readout_of(c)

    def begin(self, frame: Tensor) -> States:
        """All zero."""
        z = zeros(frame, self.hidden[0])
        return States([z] * len(self.hidden), [z] * len(self.hidden), z, z)

    def step(self, u: Tensor, state: States) -> tuple[Tensor, States]:
        """One step, upwards through the layers, with the highway above the first.

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
        h, c, m = self.cells[0](u, state.h[0], state.c[0], state.m)
        z = self.highway(h, state.z)
        new = States([h], [c], m, z)
        below = z
        for i, cell in enumerate(list(self.cells)[1:], start=1):
            a = cell.conv_x(below)  # type: ignore[operator]
            below, c, m = cell(a, state.h[i], state.c[i], new.m)
            new = States([*new.h, below], [*new.c, c], m, z)
        with full_precision(u):
            return self.readout(below.to(self.readout.weight.dtype)), new


class Highway(nn.Module):
    """Gradient highway unit: keeps its state z where the switch says so.

    Parameters
    ----------
    c, kernel : int
    **conv
        As of :class:`~stforecast.models.recurrent.base.GateConv`.
    """

    def __init__(self, c: int, kernel: int, **conv: Any) -> None:
        super().__init__()
        self.x_concat = GateConv(c, 2 * c, kernel, **conv)
        self.z_concat = GateConv(c, 2 * c, kernel, **conv)
        for part in (self.x_concat, self.z_concat):
            nn.init.uniform_(part[0].weight, -0.001, 0.001)  # type: ignore[arg-type]

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Input and state, both (B, c, h, w) -> the next state."""
        p, u = (self.x_concat(x) + self.z_concat(z)).chunk(2, dim=1)
        u = torch.sigmoid(u)
        return u * torch.tanh(p) + (1 - u) * z


class CausalLSTMCell(nn.Module):
    """One layer: the cell state first, then from it the memory, and from both the output.

    Parameters
    ----------
    c_in, c : int
        Channels of the input and of the states.
    kernel : int
    legacy : bool
        As of :class:`PredRNNpp`.
    **conv
        As of :class:`~stforecast.models.recurrent.base.GateConv`.
    """

    def __init__(self, c_in: int, c: int, kernel: int, *, legacy: bool, **conv: Any) -> None:
        super().__init__()
        self.width, self.legacy = c, legacy
        self.conv_x = GateConv(c_in, 7 * c, kernel, **conv)
        self.conv_h = GateConv(c, 4 * c, kernel, **conv)
        self.conv_c = GateConv(c, 3 * c, kernel, **conv)
        self.conv_m = GateConv(c, 3 * c, kernel, **conv)
        self.conv_o = unused(GateConv(2 * c, c, kernel, **conv))
        self.conv_c2m = GateConv(c, 4 * c, kernel, **conv)
        self.conv_om = GateConv(c, c, kernel, **conv)
        self.conv_last = Conv2d(2 * c, c, 1, circular_longitude=False, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Convolved input (B, 7c, h, w) and states (B, c, h, w) -> the next states."""
        n = self.width
        x_c, x_m, x_o = x.split([3 * n, 3 * n, n], dim=1)
        h_c, h_o = self.conv_h(h).split([3 * n, n], dim=1)
        i, f, g = (x_c + h_c + self.conv_c(m if self.legacy else c)).chunk(3, dim=1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)

        # The memory: its gates see the new cell state, in the order i, g, f, o.
        c_i, c_g, c_f, c_o = self.conv_c2m(c).chunk(4, dim=1)
        m_i, m_f, m_m = self.conv_m(m).chunk(3, dim=1)
        x_i, x_f, x_g = x_m.chunk(3, dim=1)
        kept = torch.sigmoid(x_f + m_f + c_f + 1) * torch.tanh(m_m)
        m = kept + torch.sigmoid(x_i + m_i + c_i) * torch.tanh(x_g + c_g)

        o = torch.tanh(x_o + h_o + c_o + self.conv_om(m))
        return o * torch.tanh(self.conv_last(torch.cat([c, m], dim=1))), c, m
