"""MIM: blocks whose forget gate is a recurrence of its own, on differences of what lies below.

Wang, Zhang, Zhu, Long, Wang, Yu: "Memory In Memory: A Predictive Neural Network for Learning
Higher-Order Non-Stationarity from Spatiotemporal Dynamics", CVPR 2019 (arXiv:1811.07490), section 3
("Memory In Memory Blocks" and "Networks"), as the public code of the SimVPv2 paper
(arXiv:2211.12509) has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..layers import full_precision
from .base import ConvRecurrent, GateConv, unused, zeros
from .predrnn import STLSTMCell


class States(NamedTuple):
    """Of L layers and the L - 1 blocks among them; each tensor (B, c, h, w)."""

    h: list[Tensor]  #: outputs, L
    c: list[Tensor]  #: cell states, L
    m: Tensor  #: the memory that goes through all layers
    s: list[Tensor]  #: memories of the stationary modules
    d: list[Tensor]  #: outputs of the non-stationary modules
    n: list[Tensor]  #: memories of the non-stationary modules
    first: bool  #: before the first step


class MIM(ConvRecurrent):
    """MIM: an ST-LSTM layer, and Memory In Memory blocks on it (arXiv:1811.07490, section 3).

    Maps (B, T, C, H, W) to (B, T', C', H, W). Weights at the points of the grid (peepholes) tie the
    network to one grid.

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    detach : bool
        Whether the gradient stops, at every step, at the memory of the stationary modules, as in
        the public code.
    **options
        ``hidden`` (equal widths, two layers or more), ``kernel``, ``layer_norm`` as of
        :class:`~stforecast.models.recurrent.base.ConvRecurrent`, and what
        :class:`~stforecast.models.recurrent.base.Recurrent` has; ``grid`` must be given.

    Notes
    -----
    All states start at zero with each sequence. The public code carries the memory of the
    stationary modules from the last sequence of a batch into the first step of the next, in tests
    as well, so that what it forecasts depends on what it forecast before: its figures in print
    cannot be had exactly.

    From the second block on, a non-stationary module is fed with the output of that below, where
    the paper feeds it with the change of the block's own input.

    References
    ----------
    .. [1] arXiv:1811.07490, section 3, the equations of MIM, MIM-N and MIM-S.
    """

    flags = (*ConvRecurrent.flags, "detach")
    openstl_names = (
        (
            r"^stlstm_layer\.(\d+)\.(ct_weight|oc_weight|conv_[hx]_concat\b)",
            r"cells.\1.stationary.\2",
        ),
        (r"^stlstm_layer_diff\.", "differences."),
        (r"^stlstm_layer\.", "cells."),
        (r"^conv_last\.", "readout."),
        (r"\.ct_weight$", ".gate_peephole"),
        (r"\.oc_weight$", ".output_peephole"),
        (r"\.conv_([hx])_concat\.", r".conv_\1."),
        (r"\.conv_x_cc\.", ".conv_x."),
        (r"\.conv_s_cc\.", ".conv_m."),
        (r"\.conv_t_cc\.", ".conv_h."),
    )
    benchmarks: ClassVar[dict[str, dict[str, Any]]] = {
        "taxibj": {"patch": 2},
        "caltech": {"patch": 2},
        "": {"patch": 4},
    }

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        detach: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(input_steps, target_steps, channels, own={"detach": detach}, **options)
        c, (h, w) = self.equal_widths(least=2), self.cells_grid or (1, 1)
        self.detach = detach
        first = STLSTMCell(self.patch**2 * channels, c, self.kernel, **self.conv)
        blocks = [MIMBlock(c, self.kernel, (h, w), **self.conv) for _ in self.hidden[1:]]
        self.cells = nn.ModuleList([first, *blocks])
        self.differences = nn.ModuleList(
            PeepholeLSTM(c, self.kernel, (h, w), **self.conv) for _ in blocks
        )
        for module in self.differences:  # in that code's files, and of no use there either
            module.conv_last = unused(nn.Conv2d(2 * c, c, 1, bias=False))
        self.readout = self.readout_of(c)

    @classmethod
    def tied_to_grid(cls, settings: Mapping[str, Any]) -> bool:
        """Always: the peepholes are weights at points."""
        return True

    def begin(self, frame: Tensor) -> States:
        """All zero."""
        z = zeros(frame, self.hidden[0])
        layers, blocks = [z] * len(self.hidden), [z] * (len(self.hidden) - 1)
        return States(layers, layers, z, blocks, blocks, blocks, first=True)

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
        h, c, s, d, n = (list(z) for z in (state.h, state.c, state.s, state.d, state.n))
        h[0], c[0], m = self.cells[0](u, h[0], c[0], state.m)
        change = h[0] - state.h[0]
        for i, (block, difference) in enumerate(
            zip(self.cells[1:], self.differences, strict=True), start=1
        ):
            if not state.first:  # there is no change before the second step
                d[i - 1], n[i - 1] = difference(change, d[i - 1], n[i - 1])
                change = d[i - 1]
            memory = s[i - 1].detach() if self.detach else s[i - 1]
            h[i], c[i], m, s[i - 1] = block(h[i - 1], d[i - 1], h[i], c[i], m, memory)
        with full_precision(u):
            frame = self.readout(h[-1].to(self.readout.weight.dtype))
        return frame, States(h, c, m, s, d, n, first=False)


class PeepholeLSTM(nn.Module):
    """A convolutional LSTM with peepholes: MIM-N and MIM-S (arXiv:1811.07490, section 3).

    Parameters
    ----------
    c : int
        Channels of input and states.
    kernel : int
    grid : (int, int)
        Rows and columns of the peepholes.
    **conv
        As of :class:`~stforecast.models.recurrent.base.GateConv`.
    """

    def __init__(self, c: int, kernel: int, grid: tuple[int, int], **conv: Any) -> None:
        super().__init__()
        self.gate_peephole = nn.Parameter(torch.zeros(2 * c, *grid))
        self.output_peephole = nn.Parameter(torch.zeros(c, *grid))
        self.conv_h = GateConv(c, 4 * c, kernel, **conv)
        self.conv_x = GateConv(c, 4 * c, kernel, **conv)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Input and states (B, c, h, w) -> the next output and memory."""
        i, g, f, o = (self.conv_h(h) + self.conv_x(x)).chunk(4, dim=1)
        to_i, to_f = self.gate_peephole.chunk(2)
        i, f = torch.sigmoid(i + c * to_i), torch.sigmoid(f + c * to_f + 1)
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(o + c * self.output_peephole) * torch.tanh(c), c


class MIMBlock(nn.Module):
    """A layer whose forget gate is a stationary module (arXiv:1811.07490, section 3, MIM-S).

    Parameters
    ----------
    c, kernel, grid, **conv
        As of :class:`PeepholeLSTM`.
    """

    def __init__(self, c: int, kernel: int, grid: tuple[int, int], **conv: Any) -> None:
        super().__init__()
        self.stationary = PeepholeLSTM(c, kernel, grid, **conv)
        self.conv_h = GateConv(c, 3 * c, kernel, **conv)
        self.conv_m = GateConv(c, 4 * c, kernel, **conv)
        self.conv_x = GateConv(c, 4 * c, kernel, **conv)
        self.conv_last = nn.Conv2d(2 * c, c, 1, bias=False)

    def forward(
        self, x: Tensor, d: Tensor, h: Tensor, c: Tensor, m: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step; all tensors are (B, c, h, w).

        Parameters
        ----------
        x : Tensor
            Output of the layer below.
        d : Tensor
            Of the non-stationary module.
        h, c : Tensor
            Output and cell state of this layer.
        m : Tensor
            The memory, from below.
        s : Tensor
            Of the stationary module.

        Returns
        -------
        h, c, m, s : Tensor
        """
        x_i, x_g, x_f, x_o = self.conv_x(x).chunk(4, dim=1)
        m_i, m_g, m_f, m_o = self.conv_m(m).chunk(4, dim=1)
        h_i, h_g, h_o = self.conv_h(h).chunk(3, dim=1)
        m = torch.sigmoid(x_f + m_f + 1) * m + torch.sigmoid(x_i + m_i) * torch.tanh(x_g + m_g)
        kept, s = self.stationary(d, c, s)  # in the place of forget gate times cell state
        c = kept + torch.sigmoid(x_i + h_i) * torch.tanh(x_g + h_g)
        o = torch.sigmoid(x_o + h_o + m_o)
        return o * torch.tanh(self.conv_last(torch.cat([c, m], dim=1))), c, m, s
