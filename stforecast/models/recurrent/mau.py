"""MAU: a unit that attends to what its layer saw before, and so sees further back in time.

Chang, Zhang, Wang, Ma, Ye, Xiang, Gao: "MAU: A Motion-Aware Unit for Video Prediction and Beyond"
(NeurIPS 2021, openreview.net/forum?id=qwtfY-3ibt7), its attention module, fusion module and
information recalling, as the public code of the SimVPv2 paper (arXiv:2211.12509) has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...errors import InputError
from .. import kernels
from ..folding import packed
from ..layers import Conv2d, ConvTranspose2d, full_precision
from .base import Recurrent, numbers, unused, zeros

#: Of a layer: its temporal state, and the last `tau` pairs of its input and state, oldest first.
LayerState = tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]


class MAU(Recurrent):
    """MAU: a frame is encoded, goes up through motion-aware units, and is decoded.

    Maps (B, T, C, H, W) to (B, T', C', H, W).

    The norms of the units have a weight for each point of the latent grid, h x w with h = H /
    `encoder_stride`: a network belongs to the grid (H, W) that it was made for, and the weights
    grow with it.

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    hidden : sequence of int
        Widths of the layers, all the same.
    kernel : int
        Of the units' convolutions, odd.
    encoder_stride : int
        Rows and columns that become one in the latent grid, a power of 2 (``sr_size`` in the
        public code).
    tau : int
        Steps that a unit looks back.
    residual : bool
        Whether a unit adds its input to its spatial output (``cell_mode="residual"``).
    recall : bool
        Whether the decoder adds what the encoder had on the same grid (``model_mode="recall"``).
    **options
        As of :class:`~stforecast.models.recurrent.base.Recurrent`.

    Notes
    -----
    The rate of scheduled sampling follows from the step. (The public code stores it nowhere: there
    it stays at 0.99998 up to step 50,000, and then falls to 0.) ``merge`` and ``conv_last_sr`` are
    in the files of the public code and in its parameter counts, and take no part in anything.

    References
    ----------
    .. [1] NeurIPS 2021, openreview.net/forum?id=qwtfY-3ibt7, section 3.
    """

    benchmarks: ClassVar[dict[str, dict[str, Any]]] = {
        "moving_mnist": {"encoder_stride": 4},
        "": {"encoder_stride": 2},
    }
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        "hidden": (1, 100_000),
        "kernel": (1, 999),
        "encoder_stride": (1, 1_024),
        "tau": (1, 10_000),
    }
    flags = ("residual", "recall")
    lists = ("hidden",)
    openstl_names = (
        (r"^cell_list\.", "cells."),
        (r"^encoders\.(\d+)\.encoder_t[^.]+\.", r"encoder.\1."),
        (r"^decoders\.(\d+)\.c_decoder\d+\.", r"decoder.\1."),
        (r"^srcnn\.0\.", "readout."),
    )

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        hidden: Sequence[int] = (64, 64, 64, 64),
        kernel: int = 5,
        encoder_stride: int = 2,
        tau: int = 5,
        residual: bool = False,
        recall: bool = False,
        **options: Any,
    ) -> None:
        own = {
            "hidden": hidden,
            "kernel": kernel,
            "encoder_stride": encoder_stride,
            "tau": tau,
            "residual": residual,
            "recall": recall,
        }
        options |= {"stride": encoder_stride, "own": own}
        super().__init__(input_steps, target_steps, channels, **options)
        halvings = int(encoder_stride).bit_length() - 1
        if self.patch != 1 or kernel % 2 == 0 or len(set(hidden)) > 1 or 2**halvings != self.stride:
            raise InputError(
                "MAU needs an odd kernel, layers of one width, an encoder_stride that is a power "
                f"of 2, and patch=1; found kernel={kernel}, hidden={list(hidden)}, "
                f"encoder_stride={encoder_stride} and patch={self.patch}"
            )
        assert self.cells_grid is not None  # by tied_to_grid
        self.latent = tuple(n // self.stride for n in self.cells_grid)
        self.tau, self.recall = tau, recall
        c, conv = hidden[0], {"circular_longitude": self.circular_longitude}
        self.encoder = nn.ModuleList([Conv2d(self.channels, c, 1, **conv)])
        self.encoder.extend(Conv2d(c, c, 3, stride=2, **conv) for _ in range(halvings))
        self.cells = nn.ModuleList(
            MAUCell(c, self.latent, kernel, residual=residual, **conv) for _ in hidden
        )
        self.decoder = nn.ModuleList(ConvTranspose2d(c, c, 2, **conv) for _ in range(halvings))
        self.readout = Conv2d(c, self.out_channels, 1, **conv)
        self.merge = unused(nn.Conv2d(2 * c, c, 1))
        self.conv_last_sr = unused(nn.Conv2d(2 * self.out_channels, self.out_channels, 1))

    @classmethod
    def tied_to_grid(cls, settings: Mapping[str, Any]) -> bool:
        """Whether weights belong to positions: those of the norms always do."""
        return True

    def inlet(self, frames: Tensor) -> Tensor:
        """Encode frames (N, C, H, W): (N, c, h, w); as they are where the decoder recalls more."""
        return frames if self.recall else self._encoded(frames)[-1]

    def begin(self, frame: Tensor) -> list[LayerState]:
        """Zero, with `tau` pairs of zeros before the first step."""
        zero = zeros(frame[..., :: self.stride, :: self.stride], self.settings["hidden"][0])
        return [(zero, ((zero, zero),) * self.tau) for _ in self.cells]

    def step(self, u: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """One step, upwards through the layers.

        Parameters
        ----------
        u : Tensor of shape (B, c, h, w)
            Of :meth:`.Unrolled.inlet`; a frame (B, C, H, W) with `recall`.
        state : list of LayerState
            As of :meth:`begin`.

        Returns
        -------
        frame : Tensor of shape (B, C', H, W)
        state : list of LayerState
        """
        seen = self._encoded(u) if self.recall else [u]
        spatial, new = seen.pop(), []
        for cell, (temporal, past) in zip(self.cells, state, strict=True):
            below = _remembered(spatial, temporal.dtype)
            spatial, temporal = cell(below, temporal, past)
            temporal = _remembered(temporal, temporal.dtype)
            new.append((temporal, (*past[1:], (below, temporal))))
        z = spatial
        for j, conv in enumerate(self.decoder):
            z = conv(z)
            z = F.leaky_relu(z, 0.2) if j < len(self.decoder) - 1 else z
            z = z + seen.pop() if self.recall else z  # information recalling
        with full_precision(z):
            return _pointwise(self.readout, z.to(self.readout.weight.dtype)), new

    def folded(self, dtype: torch.dtype) -> nn.Module | None:
        """Make the quick form for a CPU, (B, T, C, H, W) -> (B, T', C', H, W); None: there is none.

        The weights of all steps are brought once into the order that oneDNN wants.
        """
        plain = all(p.dtype == torch.float32 for p in self.parameters())
        return packed(self, dtype) if plain else None

    def _encoded(self, frames: Tensor) -> list[Tensor]:
        """What the encoder gives of frames (N, C, H, W) on each of its grids, finest first."""
        first, *others = self.encoder
        stages = [F.leaky_relu(_pointwise(first, frames), 0.2)]
        for conv in others:
            stages.append(F.leaky_relu(conv(stages[-1]), 0.2))
        return stages

    @classmethod
    def from_openstl(
        cls, options: dict[str, Any], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Any]:
        """Our settings from that code's, parameters as of :meth:`.Recurrent.from_openstl`."""
        settings = super().from_openstl(options, shapes)
        options.pop("layer_norm", None)  # in its files, and without effect there
        for name in ("stride", "patch_size"):
            if (value := options.pop(name, 1)) != 1:
                raise InputError(f"{name} must be 1, as the public code needs it, found {value!r}")
        if "num_hidden" in options:
            settings["hidden"] = numbers(options.pop("num_hidden"))
        for theirs, ours in (
            ("filter_size", "kernel"),
            ("sr_size", "encoder_stride"),
            ("tau", "tau"),
        ):
            if theirs in options:
                settings[ours] = int(options.pop(theirs))
        for theirs, ours in (("cell_mode", "residual"), ("model_mode", "recall")):
            mode = options.pop(theirs, "normal")
            if mode not in ("normal", ours):
                raise InputError(f"{theirs} must be 'normal' or {ours!r}, found {mode!r:.60}")
            settings[ours] = mode == ours
        return settings


class MAUCell(nn.Module):
    """A motion-aware unit: attention to the past of its layer, then fusion of space and time.

    Parameters
    ----------
    c : int
        Channels.
    grid : (int, int)
        h and w.
    kernel : int
    residual : bool
        As of :class:`MAU`.
    circular_longitude : bool
    """

    def __init__(
        self,
        c: int,
        grid: Sequence[int],
        kernel: int,
        *,
        residual: bool,
        circular_longitude: bool,
    ) -> None:
        super().__init__()

        def gates(n: int) -> nn.Sequential:
            conv = Conv2d(c, n * c, kernel, circular_longitude=circular_longitude)
            return nn.Sequential(conv, MapNorm([n * c, *grid]))

        self.conv_t, self.conv_t_next, self.conv_s, self.conv_s_next = map(gates, (3, 1, 3, 1))
        self.residual = residual

    def forward(
        self, spatial: Tensor, temporal: Tensor, past: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Spatial input and temporal state (B, c, h, w), and `tau` earlier pairs -> both, new."""
        full = temporal.dtype  # which autocast may halve in the convolutions alone
        # Attention module: past spatial states are compared with the present one as a whole, by
        # one number a state; past temporal states are mixed so.
        query = self.conv_s_next(spatial)
        if kernels.by_hand(query):
            states = [state for pair in past for state in pair]
            looks = [getattr(state.grad_fn, "uses", None) for state in states]
            attended = _Attention.apply(query.to(full), looks, *states)
        else:
            scores = torch.stack([(s * query).sum((1, 2, 3)) for s, _ in past], dim=1)
            weights = (scores / math.sqrt(spatial[0].numel())).softmax(1).to(full)
            attended = torch.zeros_like(temporal)
            for weight, (_, t) in zip(weights.unbind(1), past, strict=True):
                attended = torch.addcmul(attended, weight[:, None, None, None], t)
        # The augmented motion information.
        motion = _gated(self.conv_t_next(temporal).to(full), temporal, attended)

        # Fusion module: each state takes from the other by a gate.
        t_gate, t_own, t_other = self.conv_t(motion).to(full).chunk(3, dim=1)
        s_gate, s_other, s_own = self.conv_s(spatial).to(full).chunk(3, dim=1)
        t_new, s_new = _gated(t_gate, t_own, s_other), _gated(s_gate, s_own, t_other)
        return (s_new + spatial if self.residual else s_new), t_new


def _pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """A 1 x 1 convolution; with one channel on a side oneDNN has no quick gradient of it."""
    if not kernels.by_hand(x):
        return cast(Tensor, conv(x))
    weight: Any = conv.weight
    rows = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), conv.bias)  # type: ignore[arg-type]
    return rows.permute(0, 3, 1, 2)


def _gated(gate: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """sigmoid(gate) times `own`, and the rest of 1 times `other`."""
    if kernels.by_hand(gate):
        return cast(Tensor, _Gated.apply(gate, own, other))
    return torch.lerp(other, own, torch.sigmoid(gate))


class _Gated(torch.autograd.Function):
    """The gate, whose gradients are made of two maps."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, own: Tensor, other: Tensor) -> Tensor:
        share, difference = torch.sigmoid(gate), own - other
        ctx.save_for_backward(share, difference)
        return torch.addcmul(other, share, difference)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        share, difference = ctx.saved_tensors
        to_own = gradient * share
        to_gate = to_own * difference
        to_gate.addcmul_(to_gate, share, value=-1)
        return to_gate, to_own, gradient - to_own


def _remembered(state: Tensor, dtype: torch.dtype) -> Tensor:
    """Have the gradient that a state gets from all later looks at it made at once."""
    return kernels.gathered(state.to(dtype), {}, _mixed) if kernels.by_hand(state) else state


class _Attention(torch.autograd.Function):
    """Mix past temporal states by how much the spatial ones beside them are like the query.

    Takes query (B, c, h, w), the uses of each state, and s, t of each step, oldest first. A look at
    a state is a weight (B) and a map (B, c, h, w).
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, looks: list[kernels.Uses | None], *states: Tensor
    ) -> Tensor:
        scores = torch.stack([_products(s, query) for s in states[::2]], 1)
        weights = (scores / math.sqrt(query[0].numel())).softmax(1)
        ctx.looks = looks
        ctx.save_for_backward(query, weights, *states)
        return cast(Tensor, _mixed(list(zip(weights.unbind(1), states[1::2], strict=True))))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, weights, *states = ctx.saved_tensors
        to_weights = torch.stack([_products(t, gradient) for t in states[1::2]], 1)
        to_scores = weights * (to_weights - (weights * to_weights).sum(1, keepdim=True))
        to_scores = (to_scores / math.sqrt(query[0].numel())).unbind(1)
        to_query = _mixed(list(zip(to_scores, states[::2], strict=True)))
        passed, seen = kernels.backward_pass(), query.detach()  # its graph holds the uses
        to_states: list[Tensor | None] = [None] * len(states)
        pairs = zip(to_scores, weights.unbind(1), strict=True)
        for i, look in enumerate(x for s, w in pairs for x in ((s, seen), (w, gradient))):
            if ctx.looks[i] is not None:
                ctx.looks[i].setdefault(passed, []).append(look)
            elif ctx.needs_input_grad[i + 2]:
                to_states[i] = _mixed([look])
        return (to_query, None, *to_states)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products of maps (B, c, h, w) in channels-last memory: (B)."""
    rows = (x.permute(0, 2, 3, 1).reshape(len(x), -1).unbind() for x in (a, b))
    return torch.stack([torch.dot(u, v) for u, v in zip(*rows, strict=True)])


def _mixed(looks: list[tuple[Tensor, Tensor]], first: Tensor | None = None) -> Tensor | None:
    """Maps times their weights, added up, and to `first`."""
    total = None if first is None or not looks else first.clone()
    for weight, x in looks:
        weight = weight[:, None, None, None]
        total = x * weight if total is None else total.addcmul_(weight, x)
    return first if total is None else total


class MapNorm(nn.LayerNorm):
    """LayerNorm over (c, h, w), whose input and output stay in channels-last memory."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, h, w) -> the same."""
        weight, bias = (p.permute(1, 2, 0) for p in (self.weight, self.bias))
        y = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, self.eps)
        return y.permute(0, 3, 1, 2)
