"""CLCSTN: CLCRN's conditional local convolution between convolutions over time.

Lin, Gao, Xu, Wu, Li, Li: "Conditional Local Convolution for Spatio-temporal Meteorological
Forecasting" (AAAI 2022, arXiv:2101.01000), in the ablation study; the blocks are ASTGCN's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .base import arguments, public_sizes, renamed
from .clcrn import (
    KERNEL_LIMITS,
    KERNEL_NAMES,
    PRINTED_KERNEL,
    ConditionalKernel,
    NodeEmbedding,
    conditional_mesh,
    kernel_sums,
)
from .convolution import BlockNetwork, initialise
from .mesh import Mesh
from .sequence import Spread


class CLCSTN(BlockNetwork):
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
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {**BlockNetwork.limits, **KERNEL_LIMITS}
    flags = ("train_embedding", "uniform_start")

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
        super().__init__(**arguments(locals()))
        self.views = views
        self.kernel = ConditionalKernel(
            mesh,
            kernel_widths,
            swapped=swapped,
            tanh_first=tanh_first,
            running_statistics=running_statistics,
        )
        self.nodes = NodeEmbedding(mesh, self.channels, embedding, trained=train_embedding)
        self.tied_to_nodes = embedding > 0
        self.stack(self.nodes.width, lambda _, width: _Convolution(views * width, hidden))
        if uniform_start:
            initialise(self, uniform=True)

    @classmethod
    def _mesh(cls, grid: Any, neighbours: int, settings: Mapping[str, Any]) -> Mesh:
        return conditional_mesh(grid, neighbours, settings)

    def fixed(self, x: Tensor) -> Spread:
        """The kernel's sums, and those of its powers."""
        return kernel_sums(self.kernel, x, self.views)

    def embed(self, frames: Tensor) -> Tensor:
        """(T, N, B, C) -> (T, N, B, ·)."""
        return self.nodes(frames)

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours."""
        h = hyper_parameters
        settings = {
            **cls.printed,
            **public_sizes(h),
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
