"""GCGRU: a gated recurrent unit whose products are Chebyshev polynomials of the graph Laplacian.

Seo, Defferrard, Vandergheynst, Bresson: "Structured Sequence Modeling with Graph Convolutional
Recurrent Networks" (arXiv:1612.07659); the polynomials are of Defferrard et al. (2016,
arXiv:1606.09375).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from .base import arguments, glorot_
from .mesh import Mesh
from .sequence import Recurrent, mix, recurrent_settings
from .sums import FixedSum, chebyshev


class GCGRU(Recurrent):
    """A graph-convolutional GRU, sequence to sequence; (B, T, C, H, W) to (B, T', C', H, W).

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
    order : int
        K, terms of the polynomials, T_0 to T_(K-1): a product reaches K - 1 hops. The printed row
        has 1: it reads no neighbour, and is a GRU at each point.
    curriculum_decay : float, optional
        See :class:`Recurrent`.

    References
    ----------
    .. [1] arXiv:1612.07659, section 4 (the GRU in the place of the LSTM).
    """

    printed: ClassVar[Mapping[str, Any]] = {"order": 1}
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {**Recurrent.limits, "order": (1, 100)}

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
        curriculum_decay: float | None = 2000,
    ) -> None:
        super().__init__(**arguments(locals()))
        # Scaled Laplacian with 2 for its largest eigenvalue: each node sums over those that list it
        centre, neighbour = mesh.edges
        others = centre != neighbour
        degree = max(mesh.k - 1, 1)
        weight = np.full(others.sum(), -1 / degree)
        self._laplacian = FixedSum(neighbour[others], centre[others], weight, mesh.nodes)
        self.encoder = nn.ModuleList(_Cell(width, hidden, order) for width in self.widths)
        self.readout = self.linear_readout()

    def fixed(self, x: Tensor) -> FixedSum:
        """The graph's Laplacian."""
        return self._laplacian

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours."""
        network = cls(
            mesh, **recurrent_settings(hyper_parameters), order=hyper_parameters["max_view"]
        )
        order = network.settings["order"]
        ours = {
            f"readout.{w}": tensors[f"decoder_model.projection_layer.{w}"]
            for w in ("weight", "bias")
        }
        for i in range(network.settings["layers"]):

            def lin(part: str, gate: str, i: int = i) -> Tensor:
                name = f"conv.{i}.conv_{part}_{gate}.lins"
                return torch.cat([tensors[f"{name}.{k}.weight"] for k in range(order)], 1)

            def bias(part: str, gates: str, i: int = i) -> Tensor:
                return torch.cat([tensors[f"conv.{i}.conv_{part}_{g}.bias"] for g in gates])

            for name, part, gates in (
                ("inputs", "x", "zrh"),
                ("gates", "h", "zr"),
                ("candidate", "h", "h"),
            ):
                ours[f"encoder.{i}.{name}.weight"] = torch.cat([lin(part, g) for g in gates])
                ours[f"encoder.{i}.{name}.bias"] = bias(part, gates)
        return network, ours


class _Cell(nn.Module):
    """One GRU: six polynomials of the Laplacian, three of the input and three of the state."""

    def __init__(self, width: int, hidden: int, order: int) -> None:
        super().__init__()
        self.order = order
        self.inputs = nn.Linear(order * width, 3 * hidden)
        self.gates = nn.Linear(order * hidden, 2 * hidden)
        self.candidate = nn.Linear(order * hidden, hidden)
        for layer, fan_in in (
            (self.inputs, width),
            (self.gates, hidden),
            (self.candidate, hidden),
        ):
            glorot_(layer.weight, fan_in, hidden)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, h: Tensor, laplacian: FixedSum) -> Tensor:
        inputs = self.inputs(chebyshev(x, laplacian, self.order))
        zr, c = inputs.tensor_split([2 * h.shape[-1]], -1)
        z, r = torch.sigmoid(zr + self.gates(chebyshev(h, laplacian, self.order))).chunk(2, -1)
        c = torch.tanh(c + self.candidate(chebyshev(r * h, laplacian, self.order)))
        return mix(c, h, z)
