"""ConvLSTM: LSTM cells whose products are convolutions.

Shi, Chen, Wang, Yeung, Wong, Woo: "Convolutional LSTM Network: A Machine Learning Approach for
Precipitation Nowcasting" (arXiv:1506.04214), section 3.1, equation 3, without its peepholes, as the
public code of the SimVPv2 paper (arXiv:2211.12509) has it.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..layers import full_precision
from .base import ConvRecurrent, GateConv, unused, zeros

_WIDTHS = {"S": 64, "M": 128, "L": 192}


class ConvLSTM(ConvRecurrent):
    """ConvLSTM: stacked layers, each fed by the one below (arXiv:1506.04214, section 3).

    Maps (B, T, C, H, W) to (B, T', C', H, W).

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    legacy : bool
        The cell of the public code up to version 0.3.0, whose output is ``o * g`` with the
        candidate in place of the cell state: that of all its released weights and of the figures
        in print.
    **options
        ``hidden`` (widths, which may differ), ``kernel``, ``layer_norm`` as of
        :class:`~stforecast.models.recurrent.base.ConvRecurrent`, and what
        :class:`~stforecast.models.recurrent.base.Recurrent` has.

    References
    ----------
    .. [1] arXiv:1506.04214, section 3.1, equation 3.
    """

    has_legacy = True
    flags = (*ConvRecurrent.flags, "legacy")

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
        below = [self.patch**2 * channels, *self.hidden]
        self.cells = nn.ModuleList(
            ConvLSTMCell(c_in, c, self.kernel, legacy=legacy, **self.conv)
            for c_in, c in zip(below, self.hidden, strict=False)
        )
        self.readout = self.readout_of(self.hidden[-1])

    @classmethod
    def for_benchmark(cls, name: str, *, size: str | None = None, **overrides: Any) -> Self:
        """Make the network that the paper compares with on one of its benchmarks.

        Parameters
        ----------
        name : str
            As of :meth:`.Recurrent.for_benchmark`.
        size : {"S", "M", "L"}, optional
            Four layers of 64, 128 or 192. The paper's ConvLSTM-S and -L on Moving MNIST are "S" and
            "L"; everywhere else, and in the public code's tables, it is "M". Default: "S" on
            Moving MNIST, "M" elsewhere.
        **overrides
            Any argument of the class.

        Raises
        ------
        InputError
            If there is no such benchmark or size.
        """
        size = size or ("S" if name == "moving_mnist" else "M")
        if size not in _WIDTHS:
            raise InputError(f"no size {size!r} of ConvLSTM; there are {', '.join(_WIDTHS)}")
        return super().for_benchmark(name, **({"hidden": [_WIDTHS[size]] * 4} | overrides))

    def begin(self, frame: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Output and cell state of each layer, zero."""
        return [(z, z) for z in (zeros(frame, c) for c in self.hidden)]

    def step(
        self, u: Tensor, state: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """One step, upwards through the layers.

        Parameters
        ----------
        u : Tensor of shape (B, 4c, h, w)
            Of :meth:`.Unrolled.inlet`.
        state : list of (Tensor, Tensor)
            As of :meth:`begin`.

        Returns
        -------
        frame : Tensor of shape (B, P', h, w)
        state : list of (Tensor, Tensor)
        """
        new: list[tuple[Tensor, Tensor]] = []
        for i, (cell, before) in enumerate(zip(self.cells, state, strict=True)):
            a = u if i == 0 else cell.conv_x(new[-1][0])  # type: ignore[operator]
            new.append(cell(a, *before))
        with full_precision(u):
            return self.readout(new[-1][0].to(self.readout.weight.dtype)), new


class ConvLSTMCell(nn.Module):
    """One layer: input, forget, candidate and output gate from input and last output, equation 3.

    Parameters
    ----------
    c_in, c : int
        Channels of the input and of the state.
    kernel : int
    legacy : bool
        As of :class:`ConvLSTM`.
    **conv
        As of :class:`~stforecast.models.recurrent.base.GateConv`.
    """

    def __init__(self, c_in: int, c: int, kernel: int, *, legacy: bool, **conv: Any) -> None:
        super().__init__()
        self.legacy = legacy
        self.conv_x = GateConv(c_in, 4 * c, kernel, **conv)
        self.conv_h = GateConv(c, 4 * c, kernel, **conv)
        self.conv_o = unused(GateConv(2 * c, c, kernel, **conv))
        self.conv_last = unused(nn.Conv2d(2 * c, c, 1, bias=False))

    def forward(self, a: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Convolved input (B, 4c, h, w) and states (B, c, h, w) -> the next states."""
        i, f, g, o = (a + self.conv_h(h)).chunk(4, dim=1)
        g = torch.tanh(g)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * g
        return torch.sigmoid(o) * (g if self.legacy else torch.tanh(c)), c
