"""MSTGCN: ASTGCN's blocks without its attention.

Guo, Lin, Feng, Song, Wan: "Attention Based Spatial-Temporal Graph Convolutional Networks for
Traffic Flow Forecasting" (AAAI 2019, doi:10.1609/aaai.v33i01.3301922), of its recent component.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...errors import InputError
from .base import arguments, glorot_, public_sizes
from .convolution import BlockNetwork, Sparse, initialise, laplacian, operator, powers
from .mesh import Mesh
from .sums import chebyshev


class MSTGCN(BlockNetwork):
    """Blocks of a graph convolution and one over time; (B, T, C, H, W) to (B, T', C', H, W).

    Parameters
    ----------
    mesh : Mesh
    input_steps, target_steps, channels, out_channels : int
        T, T', C, C'.
    hidden : int
        Features of each node in each block.
    blocks : int
        One behind the other.
    order : int
        K, terms of the Chebyshev polynomials: a block reaches K - 1 hops.
    stride : int, optional
        Of the first block, in steps. None: half of T, as printed.
    form : {None, "clcrn", "authors"}
        None: as the paper has it. "clcrn": as the code of the printed row has it: directed edges,
        and features whose axes are mixed up on the way into the graph convolution and out of it, so
        that a forecast depends on what else is in the batch. "authors": as the authors' code has
        it, whose T_2 is an elementwise product.

    References
    ----------
    .. [1] doi:10.1609/aaai.v33i01.3301922, sections "Spatial-Temporal Convolution", "Experiments".
    """

    printed: ClassVar[Mapping[str, Any]] = {
        "form": "clcrn",
        "blocks": 4,
        "order": 1,
        "stride": None,
    }
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {**BlockNetwork.limits, "order": (1, 10_000)}
    forms = ("clcrn", "authors")

    def __init__(
        self,
        mesh: Mesh,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        out_channels: int | None = None,
        *,
        hidden: int = 64,
        blocks: int = 2,
        order: int = 3,
        stride: int | None = 1,
        form: str | None = None,
    ) -> None:
        super().__init__(**arguments(locals()))
        self._graph = self._graph_of(laplacian(mesh, symmetric=form != "clcrn"))
        self.stack(self.channels, self._convolution)
        initialise(self, uniform=form is not None)

    def _graph_of(self, matrix: Sparse) -> Any:
        """What the convolutions are given of the graph's Laplacian."""
        nodes = self.mesh.nodes
        if self.settings["form"] == "authors":
            terms = powers(matrix, nodes, self.settings["order"], elementwise=True)
            return [operator(term, nodes) for term in terms]
        return operator(matrix, nodes)

    def _convolution(self, steps: int, width: int) -> nn.Module:
        s = self.settings
        return _Chebyshev(width, s["hidden"], s["order"], mixed=s["form"] == "clcrn")

    def fixed(self, x: Tensor) -> Any:
        """The graph."""
        return self._graph

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours."""
        settings, ours = from_blocks(tensors, form, hyper_parameters)
        for i in range(settings["blocks"]):
            name = f"blocks.{i}.graph.linear"
            if form == "table":
                theirs = f"network._blocklist.{i}._cheb_conv"
                terms = [tensors[f"{theirs}.lins.{k}.weight"] for k in range(settings["order"])]
                ours |= {f"{name}.bias": tensors[f"{theirs}.bias"]}
            else:
                theirs = f"BlockList.{i}.cheb_conv.Theta"
                terms = [tensors[f"{theirs}.{k}"].T for k in range(settings["order"])]
            ours[f"{name}.weight"] = torch.cat(terms, 1)
        return cls(mesh, **settings), ours


class _Chebyshev(nn.Module):
    """Σ_k T_k x W_k, with a bias in the printed row's code only."""

    def __init__(self, channels: int, features: int, order: int, *, mixed: bool) -> None:
        super().__init__()
        self.order, self.mixed = order, mixed
        self.linear = nn.Linear(order * channels, features, bias=mixed)
        glorot_(self.linear.weight, channels, features)

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        N, B, T, C = x.shape
        if self.mixed:  # (C, B, N, T) read as (N, C, T B)
            x = x.permute(3, 1, 0, 2).reshape(N, C, T * B).transpose(1, 2)
        if isinstance(graph, list):
            terms = torch.cat([term(x) for term in graph], -1)
        else:
            terms = chebyshev(x, graph, self.order)
        y = self.linear(terms)
        if self.mixed:  # (N, F, T B) read as (N, F, B, T)
            y = y.transpose(1, 2).reshape(N, -1, B, T).permute(0, 2, 3, 1)
        return y


def from_blocks(
    tensors: Mapping[str, Tensor], form: str, hyper_parameters: Any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and weights of all that MSTGCN and ASTGCN have in common, by our names."""
    h = hyper_parameters
    if form == "table":
        settings = public_sizes(h) | {
            "hidden": h["hidden_units"],
            "blocks": h["block_num"],
            "order": h["max_view"],
            "stride": None,
            "form": "clcrn",
        }
        names = ("network._blocklist.", "_time_conv", "_residual_conv", "_layer_norm")
        head = "network._final_conv"
    else:
        if h["nb_chev_filter"] != h["nb_time_filter"]:
            raise InputError("nb_chev_filter and nb_time_filter must be equal")
        settings = {
            "input_steps": h["len_input"],
            "target_steps": h["num_for_predict"],
            "channels": h["in_channels"],
            "out_channels": 1,
            "hidden": h["nb_time_filter"],
            "blocks": h["nb_block"],
            "order": h["K"],
            "stride": h["time_strides"],
            "form": None if form == "clean" else "authors",
        }
        names = ("BlockList.", "time_conv", "residual_conv", "ln")
        head = "final_conv"
    ours = {
        "head.weight": tensors[f"{head}.weight"].flatten(1),
        "head.bias": tensors[f"{head}.bias"],
    }
    for i in range(settings["blocks"]):
        for part, theirs in zip(("time", "residual", "norm"), names[1:], strict=True):
            name = f"{names[0]}{i}.{theirs}"
            if f"{name}.weight" not in tensors:  # ASTGCN's there
                name = name.replace("_conv", "_convolution")
            weight = tensors[f"{name}.weight"]
            ours[f"blocks.{i}.{part}.weight"] = weight if weight.ndim == 1 else weight.flatten(1)
            ours[f"blocks.{i}.{part}.bias"] = tensors[f"{name}.bias"]
    return settings, ours
