"""T-GCN: a gated recurrent unit that takes its input from the graph.

Zhao, Song, Zhang, Liu, Wang, Lin, Deng, Li: "T-GCN: A Temporal Graph Convolutional Network for
Traffic Prediction" (arXiv:1811.05320).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from .base import arguments, glorot_
from .mesh import Mesh
from .sequence import Recurrent, recurrent_settings
from .sums import FixedSum


class TGCN(Recurrent):
    """A GRU on one-hop sums, sequence to sequence; (B, T, C, H, W) to (B, T', C', H, W).

    Encoder and decoder are the same cells. See :class:`Recurrent` for the curriculum.

    Parameters
    ----------
    mesh : Mesh
    input_steps, target_steps, channels, out_channels : int
        T, T', C, C'.
    hidden : int
        Width of the state.
    layers : int
        Cells one above the other.
    form : {None, "authors"}
        None: the input alone is spread over the graph, by one layer for each gate (the paper has
        two), as in the printed row. "authors": as the authors' code has it: input and state are
        spread, the last state gives all steps, and there is no decoder; its gates are cut in two
        along the nodes, so that one half of them resets all states and the other updates them.
    curriculum_decay : float, optional
        See :class:`Recurrent`.

    References
    ----------
    .. [1] arXiv:1811.05320, section III.B.
    """

    forms = ("authors",)

    def __init__(
        self,
        mesh: Mesh,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        out_channels: int | None = None,
        *,
        hidden: int = 32,
        layers: int = 2,
        form: str | None = None,
        curriculum_decay: float | None = 2000,
    ) -> None:
        super().__init__(**arguments(locals()), direct=form == "authors")
        # D^(-1/2) A D^(-1/2), self edges in A: each node sums over those that list it
        centre, neighbour = mesh.edges
        degree = mesh.in_degrees if form is None else np.full(mesh.nodes, mesh.k)
        weight = 1 / np.sqrt(degree[centre] * degree[neighbour])
        self._graph = FixedSum(neighbour, centre, weight, mesh.nodes)
        cell = _Cell if form is None else _CellOfTheAuthors
        self.encoder = nn.ModuleList(cell(width, hidden) for width in self.widths)
        self.readout = self.linear_readout()

    def fixed(self, x: Tensor) -> FixedSum:
        """The graph, each node's sum divided by its degree."""
        return self._graph

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours.

        The authors' module gives its last state: so does ours, whose readout is the identity.
        """
        if form != "table":
            return cls._from_authors(tensors, mesh, hyper_parameters)
        network = cls(mesh, **recurrent_settings(hyper_parameters))
        ours = {
            f"readout.{w}": tensors[f"decoder_model.projection_layer.{w}"]
            for w in ("weight", "bias")
        }
        for i in range(network.settings["layers"]):
            for w, theirs in (("weight", "lin.weight"), ("bias", "bias")):
                three = [tensors[f"conv.{i}.conv_{gate}.{theirs}"] for gate in "zrh"]
                ours[f"encoder.{i}.spread.{w}"] = torch.cat(three)
                for gate, name in zip("zrh", ("update", "reset", "candidate"), strict=True):
                    ours[f"encoder.{i}.{name}.{w}"] = tensors[f"conv.{i}.linear_{gate}.{w}"]
        return network, ours

    @classmethod
    def _from_authors(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, h: Mapping[str, Any]
    ) -> tuple[Self, dict[str, Tensor]]:
        u = h["hidden_dim"]
        network = cls(
            mesh, h["seq_len"], u, hidden=u, layers=1, form="authors", curriculum_decay=None
        )
        network.readout.requires_grad_(False)
        centre, neighbour = mesh.edges
        weight = tensors["tgcn_cell.graph_conv1.laplacian"].numpy()[neighbour, centre]
        network._graph = FixedSum(neighbour, centre, weight, mesh.nodes)  # as float32 rounded it
        ours = {"readout.weight": torch.eye(u), "readout.bias": torch.zeros(u)}
        for name, theirs in (("gates", "graph_conv1"), ("candidate", "graph_conv2")):
            ours[f"encoder.0.{name}.weight"] = tensors[f"tgcn_cell.{theirs}.weights"].T
            ours[f"encoder.0.{name}.bias"] = tensors[f"tgcn_cell.{theirs}.biases"]
        return network, ours


class _Cell(nn.Module):
    """GRU whose gates see what the graph brings of the input, and the state of their own node."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.spread = nn.Linear(width, 3 * hidden)
        glorot_(self.spread.weight, width, hidden)
        nn.init.zeros_(self.spread.bias)
        self.update, self.reset, self.candidate = (nn.Linear(2 * hidden, hidden) for _ in range(3))

    def forward(self, x: Tensor, h: Tensor, graph: FixedSum) -> Tensor:
        for_z, for_r, for_c = self.spread(graph(x)).chunk(3, -1)
        z = torch.sigmoid(self.update(torch.cat([for_z, h], -1)))
        r = torch.sigmoid(self.reset(torch.cat([for_r, h], -1)))
        c = torch.tanh(self.candidate(torch.cat([for_c, r * h], -1)))
        return torch.lerp(c, h.to(c.dtype), z)


class _CellOfTheAuthors(nn.Module):
    """GRU on the graph's sums of input and state."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(width + hidden, 2 * hidden)
        self.candidate = nn.Linear(width + hidden, hidden)
        for layer, bias in ((self.gates, 1.0), (self.candidate, 0.0)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor, h: Tensor, graph: FixedSum) -> Tensor:
        gates = torch.sigmoid(self.gates(graph(torch.cat([x, h], -1))))  # (N, B, 2 u)
        N, B, u = h.shape
        # The first half of (N 2 u) resets, the second updates: not halves of each node's 2 u
        r, z = gates.transpose(0, 1).reshape(B, 2, N, u).transpose(0, 1).transpose(1, 2)
        c = torch.tanh(self.candidate(graph(torch.cat([x, r * h], -1))))
        return torch.lerp(c, h.to(c.dtype), z)
