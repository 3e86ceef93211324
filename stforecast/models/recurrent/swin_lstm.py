"""SwinLSTM: an LSTM without input and output gate, whose products are Swin Transformer blocks.

Tang, Li, Zhang, Tang: "SwinLSTM: Improving Spatiotemporal Prediction Accuracy using Swin
Transformer and LSTM" (arXiv:2308.09891), section 3, as the public code of the SimVPv2 paper
(arXiv:2211.12509) has it; the blocks are those of Liu et al. (arXiv:2103.14030), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...errors import InputError
from .. import sizing
from ..layers import ConvTranspose2d, full_precision
from ..translators import WindowAttention
from .base import numbers, unused
from .bounded import Bounded
from .swin_blocks import PATCH, Embedding, Expansion, Merging, SwinBlock

#: Output and cell state of each cell, None before the first step: zeros.
State = list[tuple[Tensor, Tensor] | None]


class _SwinLSTM(Bounded):
    """What both networks share: tokens of 2 x 2 points, cells with what stands between them."""

    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        "width": (1, 100_000),
        "window": (1, 1_000),
        "heads": (1, 10_000),
    }
    #: Their names of settings, and ours.
    openstl_settings: ClassVar[Mapping[str, str]] = {
        "embed_dim": "width",
        "window_size": "window",
        "num_heads": "heads",
        "depths": "depth",
    }
    openstl_ignored = r"\.(relative_position_index|attn_mask)$"
    openstl_names = (
        (r"^(Downsample|ST)\.patch_embed\.", "embed."),
        (r"^(Upsample\.Unembed|ST\.patch_inflated)\.Conv\.", "readout."),
        (r"^Upsample\.patch_embed\.", "unused_embed."),
        (r"^Downsample\.layers\.", "down."),
        (r"^Upsample\.layers\.", "up."),
        (r"^ST\.layer\.", "cell."),
        (r"^Downsample\.downsample\.", "merge."),
        (r"^Upsample\.upsample\.", "expand."),
        (r"\.(STBs|Swin\.layers)\.", ".blocks."),
        (r"\.attn\.proj\.", ".attention.project."),
        (r"\.attn\.relative_position_bias_table$", ".attention.bias"),
        (r"\.attn\.", ".attention."),
        (r"\.mlp\.fc1\.", ".feed_forward.expand."),
        (r"\.mlp\.fc2\.", ".feed_forward.contract."),
        (r"\.(red|reduction)\.", ".reduce."),
    )

    def __init__(
        self,
        *sizes: int,
        width: int,
        window: int,
        drop_path: float,
        halvings: int = 0,
        own: Mapping[str, Any],
        **options: Any,
    ) -> None:
        own = {"width": width, "window": window, "drop_path": drop_path, **own}
        options |= {"stride": PATCH * 2**halvings, "own": own}
        super().__init__(*sizes, **options)
        sizing.check_settings(self.settings, {}, {"drop_path": (0.0, 1.0)})
        if self.patch != 1:
            raise InputError(f"SwinLSTM embeds 2 x 2 points itself: patch=1, found {self.patch}")
        assert self.cells_grid is not None  # by tied_to_grid
        #: Rows and columns of tokens, by which windows are chosen; other grids will do as well.
        self.tokens = tuple(n // PATCH for n in self.cells_grid)
        self.cells_grid = None
        self.embed = Embedding(self.channels, width)
        self.readout = ConvTranspose2d(
            width, self.out_channels, 2, circular_longitude=self.circular_longitude
        )

    @classmethod
    def tied_to_grid(cls, settings: Mapping[str, Any]) -> bool:
        """Whether the grid must be known: for the windows, which are no larger than it."""
        return True

    def make_cell(self, level: int, heads: int, rates: Sequence[float]) -> SwinLSTMCell:
        """A cell on a grid halved `level` times, with a block for each rate of `drop_path`."""
        width, window = self.settings["width"] * 2**level, self.settings["window"]
        if width % heads:
            raise InputError(f"heads must divide the width of their cell, {width}, found {heads}")
        grid = self.tokens[0] // 2**level, self.tokens[1] // 2**level
        circular = self.circular_longitude
        return SwinLSTMCell(width, heads, window, grid, rates, circular_longitude=circular)

    @property
    def chain(self) -> list[tuple[SwinLSTMCell, nn.Module | None]]:
        """The cells in their order, and what takes the output of each to the grid of the next."""
        raise NotImplementedError

    def inlet(self, frames: Tensor) -> Tensor:
        """Embed frames (N, C, H, W): (N, E, h, w)."""
        return self.embed(frames)

    def begin(self, frame: Tensor) -> State:
        """No state yet."""
        return [None] * len(self.chain)

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        """One step, through all cells.

        Parameters
        ----------
        u : Tensor of shape (B, E, h, w)
            Of :meth:`.Unrolled.inlet`.
        state : list of (Tensor, Tensor)
            As of :meth:`begin`.

        Returns
        -------
        z : Tensor of shape (B, C', H, W)
            For :meth:`.Bounded.close`.
        state : list of (Tensor, Tensor)
        """
        z, new = u, []
        for (cell, change), before in zip(self.chain, state, strict=True):
            new.append(cell(z, before))
            z = new[-1][0] if change is None else change(new[-1][0])
        with full_precision(z):
            return self.readout(z.to(self.readout.weight.dtype)), [*new]

    @classmethod
    def from_openstl(
        cls, options: dict[str, Any], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Any]:
        """Our settings from those of that code; parameters as of :meth:`.Recurrent.from_openstl`.

        ``drop_path`` may be among them; stochastic depth is off without it (0.1 in that code).
        """
        settings = super().from_openstl(options, shapes) | {"sampling": "never"}
        if (value := options.pop("patch_size", PATCH)) != PATCH:
            raise InputError(f"patch_size must be 2, as the public code needs it, found {value!r}")
        settings["drop_path"] = float(options.pop("drop_path", 0.0))
        for theirs, ours in cls.openstl_settings.items():
            if theirs in options:
                values = numbers(options.pop(theirs))
                settings[ours] = values if ours in cls.lists else values[0]
        return settings


class SwinLSTMB(_SwinLSTM):
    """SwinLSTM-B: one SwinLSTM cell between a patch embedding and its inverse.

    Maps (B, T, C, H, W) to (B, T', C', H, W). It ends in a sigmoid: no forecast can leave the range
    of the training period, which ``fit`` tells (see
    :class:`~stforecast.models.recurrent.bounded.Bounded`).

    Any H x W will do (the public code stops where H and W differ, or windows do not fit): the grid
    is padded to whole tokens, and filled up to whole windows with positions that nobody attends to.

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    width : int
        E, channels of a token of 2 x 2 points.
    window : int
        Tokens along a side of the windows of attention, at most the shorter side of the grid.
    depth : int
        Swin Transformer blocks of the cell; every second one shifts the windows.
    heads : int
        Of the attention.
    drop_path : float
        Stochastic depth of each block in training.
    grid : (int, int)
        H and W, by which the windows are chosen; the network then takes any grid.
    **options
        As of :class:`~stforecast.models.recurrent.base.Recurrent`. `sampling` is "never", the
        paper's: in training too the network is fed with its own frames after the input.

    References
    ----------
    .. [1] arXiv:2308.09891, section 3.
    """

    limits: ClassVar[Mapping[str, tuple[int, int]]] = {**_SwinLSTM.limits, "depth": (1, 1_000)}

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        width: int = 128,
        window: int = 4,
        depth: int = 12,
        heads: int = 4,
        drop_path: float = 0.1,
        sampling: str | Mapping[str, Any] = "never",
        **options: Any,
    ) -> None:
        options |= {"width": width, "window": window, "drop_path": drop_path, "sampling": sampling}
        own = {"depth": depth, "heads": heads}
        super().__init__(input_steps, target_steps, channels, own=own, **options)
        self.cell = self.make_cell(0, heads, [drop_path] * depth)

    @property
    def chain(self) -> list[tuple[SwinLSTMCell, nn.Module | None]]:
        """The one cell."""
        return [(self.cell, None)]


class SwinLSTMD(_SwinLSTM):
    """SwinLSTM-D: SwinLSTM cells on grids that are halved, then doubled again.

    Maps (B, T, C, H, W) to (B, T', C', H, W), as :class:`SwinLSTMB` does.

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    width : int
        E, channels of a token of 2 x 2 points; twice as many after each halving.
    window : int
        Tokens along a side of the windows of attention, at most the shorter side of a cell's grid.
    down, up : sequence of int
        Blocks of the cells on the way down, finest grid first, and on the way up, where cell i
        stands on the grid that follows cell i on the way down.
    heads : sequence of int
        Heads of cell i on both ways.
    drop_path : float
        Stochastic depth of the deepest block in training; it rises to it from 0.
    grid : (int, int)
        H and W, by which the windows are chosen; the network then takes any grid.
    **options
        As of :class:`SwinLSTMB`.

    References
    ----------
    .. [1] arXiv:2308.09891, section 3.
    """

    lists = ("down", "up", "heads")
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        **_SwinLSTM.limits,
        "down": (1, 1_000),
        "up": (1, 1_000),
    }
    openstl_settings: ClassVar[Mapping[str, str]] = {
        "embed_dim": "width",
        "window_size": "window",
        "num_heads": "heads",
        "depths_downsample": "down",
        "depths_upsample": "up",
    }

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        width: int = 128,
        window: int = 4,
        down: Sequence[int] = (2, 6),
        up: Sequence[int] = (6, 2),
        heads: Sequence[int] = (4, 8),
        drop_path: float = 0.1,
        sampling: str | Mapping[str, Any] = "never",
        **options: Any,
    ) -> None:
        levels = len(down)
        if not len(up) == len(heads) == levels:
            raise InputError(
                f"down, up and heads must be as many, found {list(down)}, {list(up)}, {list(heads)}"
            )
        options |= {"width": width, "window": window, "drop_path": drop_path, "sampling": sampling}
        own = {"down": down, "up": up, "heads": heads}
        super().__init__(input_steps, target_steps, channels, halvings=levels, own=own, **options)
        down_rates, up_rates = _rates(drop_path, down), _rates(drop_path, up)
        order = range(levels, 0, -1)  # on the way up, deepest first
        self.down = nn.ModuleList(self.make_cell(i, heads[i], down_rates[i]) for i in range(levels))
        self.merge = nn.ModuleList(Merging(width * 2**i) for i in range(levels))
        self.up = nn.ModuleList(
            self.make_cell(i, heads[i - 1], up_rates[i - 1][::-1]) for i in order
        )
        self.expand = nn.ModuleList(Expansion(width * 2**i) for i in order)
        self.unused_embed = unused(Embedding(self.channels, width))

    @property
    def chain(self) -> list[tuple[SwinLSTMCell, nn.Module | None]]:
        """Down, each cell with its merging, and up, each with its expansion."""
        cells, changes = [*self.down, *self.up], [*self.merge, *self.expand]
        return list(zip(cells, changes, strict=True))


class SwinLSTMCell(nn.Module):
    """A gate f and a candidate from the same Swin blocks: c <- f (c + tanh o), h <- f tanh c.

    Parameters
    ----------
    dim, heads, window : int
    grid : (int, int)
        h and w.
    rates : sequence of float
        Stochastic depth of each block.
    circular_longitude : bool
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        grid: tuple[int, int],
        rates: Sequence[float],
        *,
        circular_longitude: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim,
                WindowAttention(
                    dim,
                    0.0,
                    grid,
                    shifted=bool(j % 2),
                    heads=heads,
                    window=window,
                    apart=(True, not circular_longitude),
                ),
                rate,
                joins=j % 2 == 0,
            )
            for j, rate in enumerate(rates)
        )

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Input and states (B, dim, h, w) -> the next output and cell state."""
        h, c = (torch.zeros_like(x),) * 2 if state is None else state
        o = x
        for j, block in enumerate(self.blocks):  # the output h joins the first, x every other one
            o = block(o, (x if j else h) if j % 2 == 0 else None)
        f = torch.sigmoid(o)
        c = f * (c + torch.tanh(o))
        return f * torch.tanh(c), c


def _rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates of stochastic depth from 0 to the last block's, cut into the blocks of each cell."""
    total = sum(depths)
    # On the CPU, so that a network can be laid out on the meta device.
    rates = torch.linspace(0, last, total, dtype=torch.float32, device="cpu")
    return [part.tolist() for part in rates.split(list(depths))]
