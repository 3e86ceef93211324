"""STGCN: gated convolutions over time with a graph convolution between them.

Yu, Yin, Zhu: "Spatio-Temporal Graph Convolutional Networks: A Deep Learning Framework for Traffic
Forecasting" (arXiv:1709.04875).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from .base import GraphNetwork, arguments, glorot_, number, public_sizes
from .convolution import operator, scaled, taps
from .mesh import Mesh
from .sums import chebyshev


class STGCN(GraphNetwork):
    """Blocks of time, graph and time convolutions; (B, T, C, H, W) to (B, T', C', H, W).

    All target steps are given at once; the paper has one (T' = 1). Layer norms over all nodes have
    weights for each node, so that a network fits one grid only.

    Parameters
    ----------
    mesh : Mesh
    input_steps, target_steps, channels, out_channels : int
        T, T', C, C'. A block shortens T by twice ``time_kernel`` - 1.
    hidden : int
        Features after each convolution over time.
    graph_hidden : int
        Features after each graph convolution.
    output_hidden : int
        Features of the last two layers but one.
    blocks : int
        One behind the other.
    order : int
        K, terms of the Chebyshev polynomials: a block reaches K - 1 hops.
    time_kernel : int, optional
        Width of the convolutions over time, in steps; 3 unless the input steps are too few.
    dropout : float
        After each block.
    form : {None, "clcrn"}
        None: as the paper has it; edges weigh exp(-(d / σ)²), d the distance and σ the standard
        deviation of all. "clcrn": as the code of the printed row has it: one block with kernels of
        T / 2 steps, edges of one weight, and a batch norm for each node as the last layer, so that
        the forecasts of a node have a floor; with several channels, samples of a batch mix. Of
        the sizes it has ``hidden`` and ``order`` alone.

    References
    ----------
    .. [1] arXiv:1709.04875, sections 3.2 to 3.4; section 4.1 for the weights of the edges.
    """

    tied_to_nodes = True
    printed: ClassVar[Mapping[str, Any]] = {"form": "clcrn", "hidden": 128, "order": 1}
    limits: ClassVar[Mapping[str, tuple[int, int]]] = dict.fromkeys(
        ("hidden", "graph_hidden", "output_hidden", "blocks", "order", "time_kernel"), (1, 10_000)
    )
    forms = ("clcrn",)

    def __init__(
        self,
        mesh: Mesh,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        out_channels: int | None = None,
        *,
        hidden: int = 64,
        graph_hidden: int = 16,
        output_hidden: int = 128,
        blocks: int = 2,
        order: int = 3,
        time_kernel: int | None = None,
        dropout: float = 0.5,
        form: str | None = None,
    ) -> None:
        if time_kernel is None and isinstance(input_steps, int) and isinstance(blocks, int):
            time_kernel = min(3, 1 + (input_steps - 1) // (2 * max(1, blocks)))
        super().__init__(**arguments(locals()))
        number("dropout", dropout, 0, 1)
        made = _Printed if form else _Paper
        self.body = made(
            mesh.nodes,
            self.input_steps,
            self.target_steps,
            self.channels,
            self.out_channels,
            **{name: self.settings[name] for name in self.limits},
            dropout=dropout,
        )
        self._laplacian = _laplacian(mesh, weighted=form is None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T', C', H, W)."""
        z = self.to_nodes(x).movedim(0, 2)  # (N, B, T, C)
        return self.to_fields(self.body(z, self._laplacian))

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours."""
        convert = _from_table if form == "table" else _from_authors
        settings, ours = convert(tensors, hyper_parameters)
        network = cls(mesh, **settings)
        return network, {f"body.{name}": tensor for name, tensor in ours.items()}


class _Paper(nn.Module):
    """The paper's blocks, and its output layer for all target steps at once."""

    def __init__(
        self,
        nodes: int,
        input_steps: int,
        target_steps: int,
        channels: int,
        out_channels: int,
        *,
        hidden: int,
        graph_hidden: int,
        output_hidden: int,
        blocks: int,
        order: int,
        time_kernel: int,
        dropout: float,
    ) -> None:
        super().__init__()
        left = input_steps - 2 * blocks * (time_kernel - 1)
        if left < 1:
            raise InputError(
                f"{blocks} blocks with a time_kernel of {time_kernel} need at least "
                f"{input_steps - left + 1} input steps, found {input_steps}: take fewer blocks or "
                "a narrower time_kernel"
            )
        self.shape = (target_steps, out_channels)
        self.blocks = nn.ModuleList()
        for i in range(blocks):
            width = channels if i == 0 else hidden
            self.blocks.append(_Block(nodes, width, hidden, graph_hidden, order, time_kernel))
        self.dropout = nn.Dropout(dropout)
        self.last = _Gated(hidden, output_hidden, left)
        self.norm = nn.LayerNorm((nodes, output_hidden), eps=1e-12)
        self.hidden = nn.Linear(output_hidden, output_hidden)
        self.readout = nn.Linear(output_hidden, target_steps * out_channels)

    def forward(self, x: Tensor, laplacian: Any) -> Tensor:
        """(N, B, T, C) -> (T', N, B, C')."""
        for block in self.blocks:
            x = self.dropout(block(x, laplacian))
        x = over_nodes(self.norm, self.last(x)).squeeze(2)
        y = self.readout(F.relu(self.hidden(x)))
        return y.unflatten(2, self.shape).movedim(2, 0)


class _Block(nn.Module):
    """Time, graph, time; layer norm over nodes and features. Section 3.4."""

    def __init__(
        self, nodes: int, channels: int, hidden: int, graph_hidden: int, order: int, width: int
    ) -> None:
        super().__init__()
        self.first = _Gated(channels, hidden, width)
        self.align = Align(hidden, graph_hidden)
        self.graph = nn.Linear(order * graph_hidden, graph_hidden)
        glorot_(self.graph.weight, graph_hidden, graph_hidden)
        self.second = _Gated(graph_hidden, hidden, width)
        self.norm = nn.LayerNorm((nodes, hidden), eps=1e-12)
        self.order = order

    def forward(self, x: Tensor, laplacian: Any) -> Tensor:
        x = self.align(self.first(x))
        x = F.relu(self.graph(chebyshev(x, laplacian, self.order)) + x)
        return over_nodes(self.norm, self.second(x))


class _Gated(nn.Module):
    """(P + x) ⊙ σ(Q), P and Q convolutions over time without padding. Section 3.3."""

    def __init__(self, channels: int, features: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.align = Align(channels, features)
        self.linear = nn.Linear(width * channels, 2 * features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, B, T, C) -> (N, B, T - width + 1, F)."""
        p, q = self.linear(taps(x, self.width)).chunk(2, -1)
        return (p + self.align(x[:, :, self.width - 1 :])) * torch.sigmoid(q)


class Align(nn.Module):
    """As many features as are wanted: fewer by a linear map, more by zeros."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.more = features - channels
        self.linear = nn.Linear(channels, features) if channels > features else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., F)."""
        return F.pad(x, (0, self.more)) if self.linear is None else self.linear(x)


def over_nodes(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer norm of each sample and step over its nodes and features; (N, B, T, F) -> the same."""
    return norm(x.movedim(0, 2)).movedim(2, 0)


class _Printed(nn.Module):
    """The printed row's: two gated convolutions of T / 2 steps, a batch norm for each node."""

    def __init__(
        self,
        nodes: int,
        input_steps: int,
        target_steps: int,
        channels: int,
        out_channels: int,
        *,
        hidden: int,
        order: int,
        **unused: Any,
    ) -> None:
        super().__init__()
        width = max(1, input_steps // 2)
        self.shape, self.order = (target_steps, out_channels), order
        self.first = _Rectified(channels, hidden, width)
        self.graph = nn.Linear(order * hidden, hidden)
        glorot_(self.graph.weight, hidden, hidden)
        nn.init.zeros_(self.graph.bias)
        self.second = _Rectified(hidden, target_steps * out_channels, width)
        self.norm = nn.BatchNorm1d(nodes)

    def forward(self, x: Tensor, laplacian: Any) -> Tensor:
        """(N, B, T, C) -> (T', N, B, C')."""
        x = self.second(F.relu(self.graph(chebyshev(self.first(x), laplacian, self.order))))
        N, B, T, C = x.shape
        y = self.norm(x.transpose(0, 1).flatten(2)).view(B, N, T, C)[:, :, -1]
        y = y.permute(2, 0, 1).reshape(self.shape[0], B, N, self.shape[1])  # C > 1: samples mix
        return y.transpose(1, 2)


class _Rectified(nn.Module):
    """ReLU(P ⊙ σ(Q) + R), three convolutions over time without padding."""

    def __init__(self, channels: int, features: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width * channels, 3 * features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, B, T, C) -> (N, B, T - width + 1, F)."""
        p, q, r = self.linear(taps(x, self.width)).chunk(3, -1)
        return F.relu(torch.addcmul(r, p, torch.sigmoid(q)))


def _laplacian(mesh: Mesh, *, weighted: bool) -> Callable[[Tensor], Tensor]:
    """Scaled Laplacian 2 L / λ - I of L = I - D^(-1/2) A D^(-1/2), λ its largest eigenvalue."""
    n = mesh.nodes
    row, column, weight = mesh.adjacency("distance" if weighted else "neighbours")
    if not weighted:  # one way, and with 2 for λ
        return operator((row, column, np.full(len(row), -1 / max(mesh.k - 1, 1))), n)
    # Neighbours as soon as one lists the other; the distance is the same both ways
    keys = np.concatenate([row * n + column, column * n + row])
    keys, at = np.unique(keys, return_index=True)
    row, column, weight = keys // n, keys % n, np.tile(weight, 2)[at]
    degree = np.bincount(row, weight, minlength=n)
    value = -weight / np.sqrt(degree[row] * degree[column])
    return operator(scaled((row, column, value), np.ones(n), n), n)


def _from_table(
    tensors: Mapping[str, Tensor], h: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    more = {"hidden": h["hidden_units"], "order": h["max_view"], "form": "clcrn"}
    settings = public_sizes(h) | more
    lins = [tensors[f"network._graph_conv.lins.{k}.weight"] for k in range(h["max_view"])]
    ours = {"graph.weight": torch.cat(lins, 1), "graph.bias": tensors["network._graph_conv.bias"]}
    for name, theirs in (("first", "_temporal_conv1"), ("second", "_temporal_conv2")):
        for part in ("weight", "bias"):
            three = [tensors[f"network.{theirs}.conv_{i}.{part}"] for i in (1, 2, 3)]
            both = torch.cat(three)
            ours[f"{name}.linear.{part}"] = both.flatten(1) if part == "weight" else both
    norm = "network._batch_norm."
    ours |= {f"norm.{k.removeprefix(norm)}": v for k, v in tensors.items() if k.startswith(norm)}
    return settings, ours


def _from_authors(
    tensors: Mapping[str, Tensor], h: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    first, *inner, output, last = h["blocks"]
    if any(widths != inner[0] for widths in inner) or inner[0][0] != inner[0][2]:
        raise InputError(f"blocks must have the same widths, found {inner}")
    settings = {
        "input_steps": h["n_his"],
        "target_steps": 1,
        "channels": first[-1],
        "out_channels": last[-1],
        "hidden": inner[0][0],
        "graph_hidden": inner[0][1],
        "output_hidden": output[0],
        "blocks": len(inner),
        "order": h["Ks"],
        "time_kernel": h["Kt"],
        "dropout": h["droprate"],
    }
    names = (
        (r"^st_blocks\.", "blocks."),
        (r"\.tmp_conv1\.", ".first."),
        (r"\.tmp_conv2\.", ".second."),
        (r"^output\.first\.", "last."),
        (r"\.causal_conv\.", ".linear."),
        (r"\.graph_conv\.align\.", ".align."),
        (r"\.align_conv\.", ".linear."),
        (r"\.graph_conv\.cheb_graph_conv\.", ".graph."),
        (r"(\.tc2_ln|^output\.tc1_ln)\.", ".norm."),
        (r"^\.norm", "norm"),
        (r"^output\.fc1\.", "hidden."),
        (r"^output\.fc2\.", "readout."),
    )
    ours = {}
    for name, tensor in tensors.items():
        kept = tensor
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        if name.endswith("graph.weight"):
            kept = tensor.transpose(1, 2).transpose(0, 1).flatten(1)  # (K, in, out)
        elif ".norm" not in f".{name}" and tensor.ndim > 1:
            kept = tensor.flatten(1)
        # Where features are as many or more, that code has an alignment and does not use it
        if not (name.endswith("align.linear.weight") and len(tensor) >= tensor.shape[1]):
            ours[name] = kept
    unused = {n for n in ours if n.endswith("align.linear.bias") and n[:-4] + "weight" not in ours}
    return settings, {n: t for n, t in ours.items() if n not in unused}
