"""E3D-LSTM: windows of two frames, and cells that recall all of their former states.

Wang, Jiang, Yang, Li, Long, Fei-Fei: "Eidetic 3D LSTM: A Model for Video Prediction and Beyond",
ICLR 2019 (openreview.net/forum?id=B1lKS2AqtX), section 3 ("Eidetic 3D LSTM"), as the public code of
the SimVPv2 paper (arXiv:2211.12509) has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Conv2d, full_precision
from .base import ConvRecurrent, Recurrent


class States(NamedTuple):
    """Of L layers; the depth of 2 is that of the window."""

    h: list[Tensor]  #: outputs, L of (B, c, 2, h, w)
    c: list[Tensor]  #: cell states, of the same shape
    past: list[Tensor]  #: all former cell states in rows of c numbers, L of (B, 1, rows, c)
    m: Tensor  #: the memory that goes through all layers, (B, c, 2, h, w)
    before: Tensor  #: the last frame, (B, P, h, w)


class E3DLSTM(ConvRecurrent):
    """E3D-LSTM: 3-D convolutional cells with attention to their past (ICLR 2019, section 3).

    Maps (B, T, C, H, W) to (B, T', C', H, W). The norm of the cell state has weights at points,
    which tie the network to one grid. Training adds the mean absolute error to the loss.

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    conv_stride : int
        Of the convolutions in the cells, whose results are brought back to the grid by repetition.
    global_memory : bool
        Whether the memory M of the paper's equations goes on to the next layer and step. The public
        code, like its authors' own, computes it and then returns the old one, which so is zero for
        ever, and convolves it with weights that never learn. False reproduces this (without the
        work on zeros).
    **options
        ``hidden`` (equal widths), ``kernel``, ``layer_norm`` as of
        :class:`~stforecast.models.recurrent.base.ConvRecurrent`, and what
        :class:`~stforecast.models.recurrent.base.Recurrent` has; ``grid`` must be given.

    Notes
    -----
    A convolution takes both frames of a window and gives one, which stands for both.

    The attention reads the cell states as they lie in memory, channels first: a row is a run of c
    numbers of one channel and not, as in the paper, the c channels of a point. It has no scale, and
    never stores its matrix, which grows with the steps and the square of the points.

    References
    ----------
    .. [1] openreview.net/forum?id=B1lKS2AqtX, section 3, the equations of the eidetic memory.
    """

    flags = (*ConvRecurrent.flags, "global_memory")
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        **ConvRecurrent.limits,
        "conv_stride": (1, 100),
    }
    openstl_names = (
        (r"^cell_list\.", "cells."),
        (r"\._norm_c_t\.", ".norm."),
        (r"\.conv_gm\.", ".conv_m."),
        (r"\.conv_new_cell\.", ".conv_new_c."),
        (r"\.conv_new_gm\.", ".conv_new_m."),
        (r"\.conv3d\.", "."),
        (r"^conv_last\.", "readout."),
    )
    benchmarks: ClassVar[dict[str, dict[str, Any]]] = {
        "taxibj": {"patch": 2},
        "kth": {"patch": 8, "conv_stride": 2},
        "robonet": {"patch": 4, "hidden": (64, 64, 64, 64)},
        "bridgedata": {"patch": 4, "hidden": (64, 64, 64, 64)},
        "": {"patch": 4},
    }
    inlet = Recurrent.inlet  # frames as they are: its convolutions are of windows

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        conv_stride: int = 1,
        global_memory: bool = False,
        **options: Any,
    ) -> None:
        own = {"conv_stride": conv_stride, "global_memory": global_memory}
        super().__init__(input_steps, target_steps, channels, own=own, **options)
        c, grid = self.equal_widths(), self.cells_grid or (1, 1)
        below = [self.patch**2 * channels, *self.hidden[1:]]
        conv = {"stride": conv_stride, **self.conv}
        self.cells = nn.ModuleList(
            E3DCell(c_in, c, self.kernel, grid, global_memory=global_memory, **conv)
            for c_in in below
        )
        self.readout = self.readout_of(2 * c)

    @classmethod
    def tied_to_grid(cls, settings: Mapping[str, Any]) -> bool:
        """Always: the norm of the cell state has weights at points."""
        return True

    def begin(self, frame: Tensor) -> States:
        """All zero; so is the frame before the first."""
        B, c, n = len(frame), self.hidden[0], len(self.hidden)
        z = frame.new_zeros(B, c, 2, *frame.shape[2:])
        return States([z] * n, [z] * n, [z.reshape(B, 1, -1, c)] * n, z, torch.zeros_like(frame))

    def step(self, u: Tensor, state: States) -> tuple[Tensor, States]:
        """One step, upwards through the layers.

        Parameters
        ----------
        u : Tensor of shape (B, P, h, w)
            A frame.
        state : States

        Returns
        -------
        frame : Tensor of shape (B, P', h, w)
        state : States
        """
        h, c, past, m = list(state.h), list(state.c), list(state.past), state.m
        x = torch.stack([state.before, u], dim=2)  # the window
        for i, cell in enumerate(self.cells):
            h[i], c[i], past[i], m = cell(x, h[i], c[i], past[i], m)
            x = h[i]
        with full_precision(u):
            frame = self.readout(x.flatten(1, 2).to(self.readout.weight.dtype))
        return frame, States(h, c, past, m, u)

    def extra_loss(self, frames: Tensor, truth: Tensor, state: Any) -> Tensor:
        """The mean absolute error over all known points.

        Parameters
        ----------
        frames, truth, state
            As of :meth:`.Unrolled.extra_loss`.

        Returns
        -------
        Tensor
        """
        known = truth.isfinite()
        error = (frames - torch.where(known, truth, frames.detach())).abs()
        return error.sum() / known.sum().clamp_min(1)

    @classmethod
    def from_openstl(
        cls, options: dict[str, Any], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Any]:
        """Our settings, from the hyper-parameters of the public code.

        Parameters
        ----------
        options, shapes
            As of :meth:`Recurrent.from_openstl`.

        Returns
        -------
        dict
        """
        options.pop("filter_size", None)  # which that code ignores: its kernels are 5 x 5
        stride = int(options.pop("stride", 1))
        return super().from_openstl(options, shapes) | {"conv_stride": stride}


class WindowConv(nn.Module):
    """A convolution of a window without bias: (B, c_in, 2, h, w) -> (B, c_out, 1 or 2, h, w).

    The kernel is 2 deep and the depth is not padded, so one slice comes out, which stands for both:
    it is broadcast, or has a norm with weights for two.

    Parameters
    ----------
    c_in, c_out : int
        Channels.
    kernel : int
        Its rows and columns, odd.
    stride : int
        What this skips is filled by repetition (nearest neighbours).
    circular_longitude : bool
        As of :class:`~stforecast.models.recurrent.base.Recurrent`.
    norm : (int, int), optional
        Rows and columns of a LayerNorm over (c_out, 2, h, w).
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int,
        circular_longitude: bool,
        norm: Sequence[int] | None,
    ) -> None:
        super().__init__()
        around = {"circular_longitude": circular_longitude}
        layers: list[nn.Module] = [
            Conv2d(2 * c_in, c_out, kernel, stride=stride, bias=False, **around)
        ]
        if norm is not None:
            layers.append(nn.LayerNorm([c_out, 2, *norm]))
        for i, layer in enumerate(layers):  # named as in a sequence
            self.add_module(str(i), layer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, 2, h, w) -> (B, c_out, 1, h, w), or 2 slices behind a norm."""
        conv, *norms = self.children()
        y = conv(x.flatten(1, 2))
        if y.shape[2:] != x.shape[3:]:
            y = F.interpolate(y, size=x.shape[3:])
        y = y.unsqueeze(2)
        for norm in norms:
            y = norm(y.expand(-1, -1, 2, -1, -1))
        return y


class E3DCell(nn.Module):
    """One layer (ICLR 2019, section 3): recall, eidetic cell state, memory, output.

    Parameters
    ----------
    c_in, c : int
        Channels of the input and of the states.
    kernel : int
    grid : (int, int)
        Rows and columns.
    global_memory : bool
        As of :class:`E3DLSTM`.
    **conv
        As of :class:`WindowConv`.
    """

    def __init__(
        self,
        c_in: int,
        c: int,
        kernel: int,
        grid: tuple[int, int],
        *,
        global_memory: bool,
        **conv: Any,
    ) -> None:
        super().__init__()
        self.global_memory = global_memory
        self.norm = nn.LayerNorm([c, 2, *grid])
        self.conv_x = WindowConv(c_in, 7 * c, kernel, **conv)
        self.conv_h = WindowConv(c, 4 * c, kernel, **conv)
        self.conv_m = WindowConv(c, 4 * c, kernel, **conv)
        self.conv_new_c = WindowConv(c, c, kernel, **conv)
        self.conv_new_m = WindowConv(c, c, kernel, **conv)
        self.conv_last = nn.Conv2d(2 * c, c, 1, bias=False)
        if not global_memory:
            for name, weight in self.conv_m.named_parameters():
                weight.requires_grad_(name.endswith("bias"))  # a norm of zeros is its bias
            # The publications count the convolution of zeros, four times as wide as this one.
            next(self.conv_new_m.children()).in_paper_flops = 5  # type: ignore[assignment]

    def forward(
        self, x: Tensor, h: Tensor, c: Tensor, past: Tensor, m: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step.

        Parameters
        ----------
        x, h, c, m : Tensor of shape (B, c, 2, h, w)
            Input and states, x with its own channels.
        past : Tensor of shape (B, 1, rows, c)

        Returns
        -------
        h, c, past, m : Tensor
        """
        width = h.shape[1]
        x_gates, x_m = self.conv_x(x).split([4 * width, 3 * width], dim=1)
        i, g, r, o = (x_gates + self.conv_h(h)).chunk(4, dim=1)
        # Recall: no scale, rows as they lie in memory.
        query = torch.sigmoid(r).expand_as(h).reshape(len(h), 1, -1, width).to(past.dtype)
        recalled = F.scaled_dot_product_attention(query, past, past, scale=1.0)
        c = self.norm(c + recalled.view(h.shape)) + torch.sigmoid(i) * torch.tanh(g)
        past = torch.cat([past, c.reshape(len(c), 1, -1, width).to(past.dtype)], dim=2)

        x_i, x_g, x_f = x_m.chunk(3, dim=1)
        m_i, m_f, m_g, m_m = self._convolved(m).chunk(4, dim=1)
        new = torch.sigmoid(x_f + m_f + 1) * torch.tanh(m_m)
        new = (new + torch.sigmoid(x_i + m_i) * torch.tanh(x_g + m_g)).expand_as(h)
        o = torch.tanh(o + self.conv_new_c(c) + self.conv_new_m(new))
        both = torch.cat([c, new.to(c.dtype)], dim=1).flatten(2, 3)  # depth beside rows
        h = torch.tanh(self.conv_last(both).view(h.shape)) * torch.sigmoid(o)
        return h, c, past, new if self.global_memory else m

    def _convolved(self, m: Tensor) -> Tensor:
        """`conv_m` of the memory, which of zeros is known: (B, 4c, 1 or 2, h, w)."""
        if self.global_memory:
            return self.conv_m(m)
        if len(list(self.conv_m.children())) > 1:
            return self.conv_m.get_parameter("1.bias")[None]
        return m[:, :, :1].repeat(1, 4, 1, 1, 1)
