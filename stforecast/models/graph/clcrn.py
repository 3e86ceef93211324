"""CLCRN: a recurrent network whose neighbour sums are weighted by where the neighbours lie.

Lin, Gao, Xu, Wu, Li, Li: "Conditional Local Convolution for Spatio-temporal Meteorological
Forecasting" (AAAI 2022, arXiv:2101.01000). The public code departs from the paper in ways that the
settings of the same names undo or keep; ``protocol="clcrn"`` keeps them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..layers import full_precision
from ..sizing import check_settings
from .base import arguments, renamed
from .mesh import Mesh, orientation_weights
from .sequence import Recurrent, Spread, SpreadCell, recurrent_settings

#: Settings of the public code's kernel.
PRINTED_KERNEL: Mapping[str, Any] = {
    "kernel_widths": (4, 8),
    "swapped": True,
    "tanh_first": True,
    "running_statistics": True,
    "coded_orientation": True,
}
KERNEL_LIMITS = {"embedding": (0, 10_000), "views": (1, 100)}


class ConditionalKernel(nn.Module):
    """Weights (N, k) of the edges, ``K_ij = g(q_ij) exp(-|a_ij| d_ij) (w_ij + [i = j])``.

    q: the centre's longitude and latitude and the neighbour's two local coordinates; g: a small
    network of q, with batch normalisation over all edges and ReLU at its end; a: the product of
    linear maps of the centre's and the neighbour's position; d: distance; w: orientation weight.

    Parameters
    ----------
    mesh : Mesh
    widths : sequence of int
        Of the layers of g.
    attention_width : int
        To which the positions are mapped for a.
    swapped : bool
        d and w in each other's place, as the public code calls them: the nearest neighbours then
        weigh least.
    tanh_first : bool
        Tanh on the coordinates themselves, and none between the first two layers.
    running_statistics : bool
        Normalise by running statistics in evaluation, as for batches that vary. The edges do not.

    References
    ----------
    .. [1] arXiv:2101.01000, section 4.
    """

    def __init__(
        self,
        mesh: Mesh,
        widths: Sequence[int] = (10, 8, 6),
        attention_width: int = 8,
        *,
        swapped: bool = False,
        tanh_first: bool = False,
        running_statistics: bool = False,
    ) -> None:
        super().__init__()
        own = {"kernel_widths": widths, "swapped": swapped, "tanh_first": tanh_first}
        own |= {"running_statistics": running_statistics}
        limits = {"kernel_widths": (1, 10_000)}
        check_settings(own, limits, flags=tuple(own)[1:], lists=tuple(limits))
        if mesh.nodes < 2:
            raise InputError("a conditional kernel needs at least two nodes, found 1")
        self.mesh = mesh
        self.swapped, self.tanh_first = swapped, tanh_first
        layers: list[nn.Module] = [nn.Linear(4, widths[0])]
        for i, o in pairwise(widths):
            norm = nn.BatchNorm1d(o, track_running_stats=running_statistics)
            layers += [nn.Linear(i, o), norm]
        last = nn.Linear(widths[-1], 1)
        if not swapped:  # as torch starts it, ReLU shuts all edges for one seed in fifty, for ever
            nn.init.constant_(last.bias, 0.5)
        self.network = nn.ModuleList([*layers, last])
        self.query, self.key = nn.Linear(2, attention_width), nn.Linear(2, attention_width)

    def forward(self, like: Tensor) -> Tensor:
        """The weights (N, k), of the type and on the device of a tensor."""
        position, local, distance, orientation = self.mesh.on(
            like, "position", "local", "distance", "orientation"
        )
        centre = position[:, None].expand_as(local)
        g = torch.cat([centre, local], -1).flatten(0, 1)
        for i, layer in enumerate(self.network):
            g = layer(g if i == self.tanh_first else torch.tanh(g))
        g = torch.relu(g).view_as(distance)
        a = (self.query(position)[:, None] * self.key(centre + local)).sum(-1)
        near, share = (orientation, distance) if self.swapped else (distance, orientation)
        itself = torch.zeros_like(share)
        itself[:, 0] = 1
        return g * torch.exp(-a.abs() * near) * (share + itself)


class CLCRN(Recurrent):
    """The conditional local convolution in a GRU; (B, T, C, H, W) to (B, T', C', H, W).

    The encoder takes each frame with an embedding of its node, the decoder its own frames; one
    kernel serves all gates, layers and steps. See :class:`Recurrent` for the curriculum.

    Parameters
    ----------
    mesh : Mesh
    input_steps, target_steps, channels, out_channels : int
        T, T', C, C'.
    hidden : int
        Width of the state (``rnn_units``).
    layers : int
        Cells one above the other.
    embedding : int
        Width of the node's embedding and of the frame's (``embed_dim``); 0 for a network that fits
        every grid. Otherwise its weights belong to the nodes.
    views : int
        V: the sums are taken with the kernel and its elementwise powers to V (``max_view``).
    kernel_widths, swapped, tanh_first, running_statistics
        Of :class:`ConditionalKernel`.
    train_embedding : bool
        Whether the embeddings of the nodes are learned. In the public code they stay random.
    coordinates : {"fast", "log", "horizon"}
        Of :meth:`Mesh.local_coordinates`.
    coded_orientation : bool
        Orientation weights as the public code measures them: see
        :func:`stforecast.models.graph.orientation_weights`.
    feed_known : bool
        Whether the decoder takes the input's further channels with each frame of its own.
    curriculum_decay : float, optional
        See :class:`Recurrent`.

    References
    ----------
    .. [1] arXiv:2101.01000, sections 4 (the convolution) and 5 (the network).
    """

    printed: ClassVar[Mapping[str, Any]] = {
        **PRINTED_KERNEL,
        "train_embedding": False,
        "feed_known": False,
    }
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {**Recurrent.limits, **KERNEL_LIMITS}
    flags = ("train_embedding", "feed_known")

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
        embedding: int = 8,
        views: int = 1,
        kernel_widths: Sequence[int] = (10, 8, 6),
        swapped: bool = False,
        tanh_first: bool = False,
        running_statistics: bool = False,
        train_embedding: bool = True,
        coordinates: str = "fast",
        coded_orientation: bool = False,
        feed_known: bool = True,
        curriculum_decay: float | None = 2000,
    ) -> None:
        super().__init__(**arguments(locals()))
        self.views = views
        self.tied_to_nodes = embedding > 0
        self.kernel = ConditionalKernel(
            mesh,
            kernel_widths,
            swapped=swapped,
            tanh_first=tanh_first,
            running_statistics=running_statistics,
        )
        self.nodes = NodeEmbedding(mesh, self.channels, embedding, trained=train_embedding)
        self.project = nn.Linear(self.nodes.width, hidden)
        self.encoder = nn.ModuleList(SpreadCell(hidden, hidden, views) for _ in range(layers))
        self.decoder = nn.ModuleList(
            SpreadCell(hidden if i else self.channels_fed, hidden, views) for i in range(layers)
        )
        self.readout = self.linear_readout()

    @classmethod
    def _mesh(cls, grid: Any, neighbours: int, settings: Mapping[str, Any]) -> Mesh:
        return conditional_mesh(grid, neighbours, settings)

    def fixed(self, x: Tensor) -> Spread:
        """The kernel's sums, and those of its powers."""
        return kernel_sums(self.kernel, x, self.views)

    def embed(self, frames: Tensor) -> Tensor:
        """(T, N, B, C) -> (T, N, B, hidden)."""
        return self.project(self.nodes(frames))

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours."""
        network = cls(
            mesh,
            **recurrent_settings(hyper_parameters),
            embedding=hyper_parameters["embed_dim"],
            views=hyper_parameters["max_view"],
            **{**cls.printed, "swapped": form == "table"},
        )
        names = {
            **KERNEL_NAMES,
            "encoder_model.projection_layer": "project",
            "decoder_model.projection_layer": "readout",
            "encoder_model.clgru_layers": "encoder",
            "decoder_model.clgru_layers": "decoder",
            "ru_gconv.linear": "gates",
            "c_gconv.linear": "candidate",
        }
        return network, renamed(tensors, names)


class NodeEmbedding(nn.Module):
    """What the network sees of a frame at a node: [a map of it, the node's own numbers, it]."""

    def __init__(self, mesh: Mesh, channels: int, embedding: int, *, trained: bool) -> None:
        super().__init__()
        self.frame = nn.Linear(channels, embedding) if embedding else None
        self.node = nn.Parameter(torch.empty(mesh.nodes, embedding), requires_grad=trained)
        nn.init.normal_(self.node)
        self.width = 2 * embedding + channels

    def forward(self, frames: Tensor) -> Tensor:
        """(T, N, B, C) -> (T, N, B, width)."""
        if self.frame is None:
            return frames
        node = self.node[:, None].expand(*frames.shape[:3], -1).to(frames.dtype)
        return torch.cat([self.frame(frames), node, frames], -1)


def kernel_sums(kernel: ConditionalKernel, like: Tensor, views: int) -> Spread:
    """Sums with the kernel and its elementwise powers, for one pass."""
    with full_precision(like):
        weights = kernel(like)
    powers = [weights**view for view in range(1, views + 1)]
    return Spread(lambda x: [kernel.mesh.neighbour_sum(x, power) for power in powers])


def conditional_mesh(grid: Any, neighbours: int, settings: Mapping[str, Any]) -> Mesh:
    """The mesh of a grid with the coordinates and the orientation weights of the settings."""
    mesh = Mesh.from_grid(grid, neighbours, settings.get("coordinates", "fast"))
    if settings.get("coded_orientation", False):
        weights = orientation_weights(mesh.local, coded=True)
        return dataclasses.replace(mesh, orientation=weights)
    return mesh


#: Our names of the public code's kernel and embeddings.
KERNEL_NAMES = {
    "conv_ker.lcker.network": "kernel.network",
    "conv_ker.weight_att.query_linear": "kernel.query",
    "conv_ker.weight_att.key_linear": "kernel.key",
    "feature_embedding": "nodes.frame",
    "node_embeddings": "nodes.node",
}
