"""DCRNN: a gated recurrent unit whose products are random walks on the graph, there and back.

Li, Yu, Shahabi, Liu: "Diffusion Convolutional Recurrent Neural Network: Data-Driven Traffic
Forecasting" (ICLR 2018, arXiv:1707.01926). The paper's equation 2 is a power series of the walks;
all public code takes Chebyshev's recursion, T_k = 2 P T_(k-1) - T_(k-2), and so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError
from .base import arguments, glorot_, renamed
from .mesh import Mesh
from .sequence import Recurrent, Spread, SpreadCell, recurrent_settings
from .sums import FixedSum


class DCRNN(Recurrent):
    """Diffusion convolutions in a GRU; (B, T, C, H, W) to (B, T', C', H, W).

    See :class:`Recurrent` for encoder, decoder and curriculum.

    Parameters
    ----------
    mesh : Mesh
    input_steps, target_steps, channels, out_channels : int
        T, T', C, C'.
    hidden : int
        Width of the state.
    layers : int
        Cells one above the other.
    order : int
        K, terms in each direction, T_0 to T_(K-1). The printed row has 1: it reads no neighbour,
        and is a GRU at each point.
    directions : {2, 1}
        Walks along the edges and against them, or along them only.
    adjacency : {"distance", "neighbours", "symmetric"}
        Of :meth:`Mesh.adjacency`.
    self_edges : bool
        Whether a walk may stay where it is.
    shared_cells : bool
        Whether the decoder has the encoder's cells, and T_0 a weight for each direction, as in the
        code of the printed row.
    coded : bool
        Keep a fault of public code. With `shared_cells`, the weights against the edges are those of
        other edges, and T_k = 2 P T_(k-1) - T_0; otherwise (the authors'), from the third term on,
        the second direction does not begin with the input but where the first left off.
    feed_known : bool
        Whether the decoder takes the input's further channels with each frame of its own.
    curriculum_decay : float, optional
        See :class:`Recurrent`.

    References
    ----------
    .. [1] arXiv:1707.01926, sections 2.2 (diffusion convolution) and 2.3 (the network).
    """

    printed: ClassVar[Mapping[str, Any]] = {
        "order": 1,
        "adjacency": "neighbours",
        "self_edges": True,
        "shared_cells": True,
        "coded": True,
    }
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        **Recurrent.limits,
        "order": (1, 100),
        "directions": (1, 2),
    }
    flags = ("self_edges", "shared_cells", "coded", "feed_known")

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
        order: int = 3,
        directions: int = 2,
        adjacency: str = "distance",
        self_edges: bool = False,
        shared_cells: bool = False,
        coded: bool = False,
        feed_known: bool = True,
        curriculum_decay: float | None = 2000,
    ) -> None:
        super().__init__(**arguments(locals()))
        if shared_cells and self.channels_fed != self.channels:
            raise InputError("shared_cells=True needs feed_known=True: both take the same channels")
        self.order, self.shared_cells, self.coded = order, shared_cells, coded
        edges = mesh.adjacency(adjacency, itself=self_edges)
        self._walks = _walks(edges, mesh.nodes, coded=coded and shared_cells)[:directions]
        terms = directions * order if shared_cells else 1 + directions * (order - 1)

        def cells(width: int) -> nn.ModuleList:
            widths = [width] + [hidden] * (layers - 1)
            return nn.ModuleList(SpreadCell(w, hidden, terms) for w in widths)

        self.encoder = cells(self.channels)
        if not shared_cells:
            self.decoder = cells(self.channels_fed)
        self.readout = self.linear_readout()
        for cell in (m for m in self.modules() if isinstance(m, SpreadCell)):
            for linear in (cell.gates, cell.candidate):
                glorot_(linear.weight, linear.in_features // terms, hidden)
                nn.init.zeros_(linear.bias)
            if not shared_cells:  # the authors': gates open at first
                nn.init.ones_(cell.gates.bias)

    def fixed(self, x: Tensor) -> Spread:
        """The walks."""
        return Spread(self._terms)

    def _terms(self, x: Tensor) -> list[Tensor]:
        """x, then T_1 to T_(K-1) of each direction; with shared cells x before each."""
        terms: list[Tensor] = [] if self.shared_cells else [x]
        begin = x
        for walk in self._walks:
            if self.shared_cells:
                terms.append(x)
            before, last = begin, begin
            for k in range(1, self.order):
                spread = walk(last)
                before, last = last, spread if k == 1 else 2 * spread - before
                terms.append(last)
                if self.coded and self.shared_cells:
                    before = x
            if self.coded and not self.shared_cells and self.order > 2:
                begin = before
        return terms

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours."""
        if form == "orig":
            return cls._from_authors(tensors, mesh, hyper_parameters)
        settings = {**cls.printed, "order": hyper_parameters["max_view"]}
        if form == "clean":
            settings |= {"adjacency": "symmetric", "coded": False}
        network = cls(mesh, **recurrent_settings(hyper_parameters), **settings)
        ours = renamed(
            {k: v for k, v in tensors.items() if not k.startswith("conv.")},
            {"decoder_model.projection_layer": "readout"},
        )
        for i in range(network.settings["layers"]):
            for name, gates in (("gates", "rz"), ("candidate", "h")):
                weights = [tensors[f"conv.{i}.conv_x_{g}.weight"].flatten(0, 2).T for g in gates]
                biases = [tensors[f"conv.{i}.conv_x_{g}.bias"] for g in gates]
                ours[f"encoder.{i}.{name}.weight"] = torch.cat(weights)
                ours[f"encoder.{i}.{name}.bias"] = torch.cat(biases)
        return network, ours

    @classmethod
    def _from_authors(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """The same for the authors' own code, whose weights have the order of the term fastest."""
        walks = {"dual_random_walk": 2, "random_walk": 1}
        if (kind := hyper_parameters["filter_type"]) not in walks:
            raise InputError(f"filter_type must be one of {', '.join(walks)}; found {kind!r:.60}")
        sizes = {**hyper_parameters, "layer_num": hyper_parameters["num_rnn_layers"]}
        order = hyper_parameters["max_diffusion_step"] + 1
        network = cls(
            mesh,
            **recurrent_settings(sizes),
            order=order,
            directions=walks[kind],
            coded=True,
            feed_known=False,
        )
        terms = 1 + walks[kind] * (order - 1)
        hidden = network.hidden
        ours = {}
        for name, tensor in tensors.items():
            part, kind = name.rpartition(".")[::2]
            part = part.replace("encoder_model.dcgru_layers", "encoder")
            part = part.replace("decoder_model.dcgru_layers", "decoder")
            part = part.replace("decoder_model.projection_layer", "readout")
            if kind.startswith("gconv_"):
                gate = "gates" if tensor.shape[-1] == 2 * hidden else "candidate"
                part = f"{part}.{gate}"
                if kind.startswith("gconv_weight"):
                    tensor = tensor.unflatten(0, (-1, terms)).permute(2, 1, 0).flatten(1)
                kind = "weight" if kind.startswith("gconv_weight") else "bias"
            ours[f"{part}.{kind}"] = tensor
        return network, ours


def _walks(
    edges: tuple[np.ndarray, np.ndarray, np.ndarray], nodes: int, *, coded: bool
) -> list[FixedSum]:
    """Random walks along the edges and against them; a step divides by the sender's degree."""
    centre, neighbour, weight = edges
    out = np.bincount(centre, weight, minlength=nodes)
    into = np.bincount(neighbour, weight, minlength=nodes)
    along = FixedSum(neighbour, centre, _share(weight, out[centre]), nodes)
    share = _share(weight, into[neighbour])
    if coded:  # there edge n, sorted by neighbour, has the weight that belongs to edge n as listed
        order = np.lexsort((centre, neighbour))
        share = np.empty(len(weight))
        share[order] = 1 / into[centre]
    return [along, FixedSum(centre, neighbour, share, nodes)]


def _share(weight: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Their ratio; 0 where the weights are so small that they add up to nothing."""
    return np.divide(weight, whole, where=whole > 0, out=np.zeros(len(weight)))
