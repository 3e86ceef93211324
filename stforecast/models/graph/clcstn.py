"""CLCSTN: CLCRN's conditional local convolution between convolutions over time.

Lin, Gao, Xu, Wu, Li, Li: "Conditional Local Convolution for Spatio-temporal Meteorological
Forecasting" (AAAI 2022, arXiv:2101.01000), in the ablation study; the blocks are ASTGCN's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .base import GraphNetwork, flag, renamed, whole
from .clcrn import (
    KERNEL_NAMES,
    PRINTED_KERNEL,
    ConditionalKernel,
    NodeEmbedding,
    conditional_mesh,
    kernel_sums,
)
from .convolution import Block, Head
from .mesh import Mesh
from .sequence import Spread


class CLCSTN(GraphNetwork):
    """Blocks of the conditional convolution and one over time; all target steps at once.

    Maps (B, T, C, H, W) to (B, T', C', H, W).

    Parameters
    ----------
    mesh : Mesh
    input_steps, target_steps, channels, out_channels : int
        T, T', C, C'.
    hidden : int
        Features of each node in each block.
    blocks : int
        One behind the other.
    stride : int, optional
        Of the first block, in steps. None: half of T, as printed; the last steps are then not seen
        (four of twelve).
    embedding, views, train_embedding, coordinates, coded_orientation
        As of :class:`stforecast.models.graph.CLCRN`.
    kernel_widths, swapped, tanh_first, running_statistics
        Of :class:`stforecast.models.graph.ConditionalKernel`.
    uniform_start : bool
        Begin as the public code does: matrices after Glorot, and all vectors, those of the
        normalisations too, from (0, 1).

    References
    ----------
    .. [1] arXiv:2101.01000, section 4 (the convolution).
    """

    printed: ClassVar[Mapping[str, Any]] = {
        **PRINTED_KERNEL,
        "train_embedding": False,
        "stride": None,
        "uniform_start": True,
    }

    def __init__(
        self,
        mesh: Mesh,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        out_channels: int | None = None,
        *,
        hidden: int = 64,
        blocks: int = 4,
        stride: int | None = 1,
        embedding: int = 8,
        views: int = 1,
        kernel_widths: Sequence[int] = (10, 8, 6),
        swapped: bool = False,
        tanh_first: bool = False,
        running_statistics: bool = False,
        train_embedding: bool = True,
        coordinates: str = "fast",
        coded_orientation: bool = False,
        uniform_start: bool = False,
    ) -> None:
        super().__init__(
            mesh,
            input_steps,
            target_steps,
            channels,
            out_channels,
            hidden=hidden,
            blocks=blocks,
            stride=stride,
            embedding=embedding,
            views=views,
            kernel_widths=list(kernel_widths),
            swapped=swapped,
            tanh_first=tanh_first,
            running_statistics=running_statistics,
            train_embedding=train_embedding,
            coordinates=coordinates,
            coded_orientation=coded_orientation,
            uniform_start=flag("uniform_start", uniform_start),
        )
        stride = max(1, input_steps // 2) if stride is None else stride
        for name, value in (("hidden", hidden), ("blocks", blocks), ("stride", stride)):
            whole(name, value, 1, 10_000)
        self.views = whole("views", views, 1, 100)
        self.kernel = ConditionalKernel(
            mesh,
            kernel_widths,
            swapped=swapped,
            tanh_first=tanh_first,
            running_statistics=running_statistics,
        )
        self.nodes = NodeEmbedding(mesh, self.channels, embedding, trained=train_embedding)
        self.tied_to_nodes = embedding > 0
        self.blocks = nn.ModuleList()
        for i in range(blocks):
            width = hidden if i else self.nodes.width
            graph = _Convolution(views * width, hidden)
            self.blocks.append(Block(graph, width, hidden, 1 if i else stride))
        steps = 1 + (self.input_steps - 1) // stride
        self.head = Head(steps, hidden, self.target_steps, self.out_channels)
        if uniform_start:
            for weight in (p for p in self.parameters() if p.requires_grad):
                fill = nn.init.xavier_uniform_ if weight.ndim > 1 else nn.init.uniform_
                fill(weight)

    @classmethod
    def _mesh(cls, grid: Any, neighbours: int, settings: Mapping[str, Any]) -> Mesh:
        return conditional_mesh(grid, neighbours, settings)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T', C', H, W)."""
        z = self.nodes(self.to_nodes(x)).movedim(0, 2)  # (N, B, T, ·)
        spread = kernel_sums(self.kernel, z, self.views)
        for block in self.blocks:
            z = block(z, spread)
        return self.to_fields(self.head(z))

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours."""
        h = hyper_parameters
        settings = {
            **cls.printed,
            "input_steps": h["seq_len"],
            "target_steps": h["horizon"],
            "channels": h["input_dim"],
            "out_channels": h["output_dim"],
            "hidden": h["hidden_units"],
            "blocks": h["block_num"],
            "embedding": h["embed_dim"],
            "views": h["max_view"],
            "swapped": form == "table",
            "uniform_start": False,
        }
        names = {
            **KERNEL_NAMES,
            "network._blocklist": "blocks",
            "network._final_conv": "head",
            "_time_conv": "time",
            "_residual_conv": "residual",
            "_layer_norm": "norm",
            ".conv.linear": ".graph.linear",
        }
        ours = renamed(tensors, names)
        return cls(mesh, **settings), {
            k: v.flatten(1) if v.ndim > 2 else v for k, v in ours.items()
        }


class _Convolution(nn.Module):
    """A linear map of the kernel's sums."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, features)

    def forward(self, x: Tensor, spread: Spread) -> Tensor:
        return self.linear(torch.cat(spread(x, again=False), -1))
