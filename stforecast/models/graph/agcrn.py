"""AGCRN: a recurrent network that learns the graph, and weights of their own for the nodes.

Bai, Yao, Li, Wang, Wang: "Adaptive Graph Convolutional Recurrent Network for Traffic Forecasting"
(arXiv:2007.02842).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import arguments
from .mesh import Mesh
from .sequence import Recurrent, recurrent_settings
from .sums import Reused, chebyshev


class AGCRN(Recurrent):
    """A GRU on a graph of learned embeddings; (B, T, C, H, W) to (B, T', C', H, W).

    The last state gives all target steps at once: there is no decoder. Of the mesh only the number
    of nodes matters. The embeddings belong to the nodes, so that a network fits one grid only.

    Parameters
    ----------
    mesh : Mesh
    input_steps, target_steps, channels, out_channels : int
        T, T', C, C'.
    hidden : int
        Width of the state.
    layers : int
        Cells one above the other.
    embedding : int
        Numbers that each node is known by.
    order : int
        K, terms of the Chebyshev polynomials of the learned graph, T_0 to T_(K-1).
    form : {None, "clcrn"}
        None: as the paper has it. "clcrn": as the printed row has it: embeddings for each layer,
        and a decoder that is fed its own frames, with the encoder's cells.
    curriculum_decay : float, optional
        Of the form "clcrn": see :class:`Recurrent`.

    References
    ----------
    .. [1] arXiv:2007.02842, section 3: equation 4 (weights of the nodes), 5 (the graph), 6.
    """

    tied_to_nodes = True
    printed: ClassVar[Mapping[str, Any]] = {
        "form": "clcrn",
        "hidden": 32,
        "embedding": 4,
        "curriculum_decay": 2000,
    }
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        **Recurrent.limits,
        "embedding": (1, 10_000),
        "order": (1, 100),
    }
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
        layers: int = 2,
        embedding: int = 10,
        order: int = 2,
        form: str | None = None,
        curriculum_decay: float | None = None,
    ) -> None:
        super().__init__(**arguments(locals()), direct=form is None)
        self.embeddings = nn.ParameterList(
            torch.randn(mesh.nodes, embedding) for _ in range(1 if self.direct else layers)
        )
        self.encoder = nn.ModuleList(
            _Cell(i, width, hidden, embedding, order) for i, width in enumerate(self.widths)
        )
        self.readout = self.linear_readout()

    def fixed(self, x: Tensor) -> list[_Nodes]:
        """For each layer the learned graph, and the weights that its nodes have from embeddings."""
        made = [(E, F.relu(E @ E.T).softmax(1)) for E in self.embeddings]
        cells: list[Any] = list(self.encoder)
        return [cell.of_nodes(*made[i % len(made)]) for i, cell in enumerate(cells)]

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours."""
        h = hyper_parameters
        if form == "table":
            more = {"embedding": h["embed_dim"], "order": h["max_view"], "form": "clcrn"}
            settings = recurrent_settings(h) | more | {"curriculum_decay": h["cl_decay_steps"]}
            cell, readout = "conv.{}._", "decoder_model.projection_layer"
            embeddings = [f"conv.{i}.node_embeddings" for i in range(h["layer_num"])]
        else:
            settings = {
                "target_steps": h["horizon"],
                "channels": h["input_dim"],
                "out_channels": h["output_dim"],
                "hidden": h["rnn_units"],
                "layers": h["num_layers"],
                "embedding": h["embed_dim"],
                "order": h["cheb_k"],
                "input_steps": h.get("seq_len", h["horizon"]),
            }
            cell, readout = "encoder.dcrnn_cells.{}.", "end_conv"
            embeddings = ["node_embeddings"]
        ours = {f"embeddings.{i}": tensors[name] for i, name in enumerate(embeddings)}
        ours["readout.weight"] = tensors[f"{readout}.weight"].flatten(1)
        ours["readout.bias"] = tensors[f"{readout}.bias"]
        for i in range(settings["layers"]):
            for name, theirs in (("gates", "gate"), ("candidate", "update")):
                for part, pool in (("weight", "weights_pool"), ("bias", "bias_pool")):
                    ours[f"encoder.{i}.{name}_{part}"] = tensors[f"{cell.format(i)}{theirs}.{pool}"]
        return cls(mesh, **settings), ours


class _Nodes(NamedTuple):
    """What a cell needs of its nodes, made from their embeddings once in a pass."""

    graph: Tensor  # (N, N)
    gates_weight: Reused  # (N, K in, 2 u)
    gates_bias: Tensor  # (N, 1, 2 u)
    candidate_weight: Reused  # (N, K in, u)
    candidate_bias: Tensor  # (N, 1, u)


class _Cell(nn.Module):
    """GRU whose products have weights of their own at each node, Σ_d E_nd W_d. Equation 4 and 6."""

    def __init__(self, layer: int, width: int, hidden: int, embedding: int, order: int) -> None:
        super().__init__()
        self.layer, self.order = layer, order
        for name, features in (("gates", 2 * hidden), ("candidate", hidden)):
            weight = torch.empty(embedding, order, width + hidden, features)
            self.register_parameter(f"{name}_weight", nn.Parameter(weight))
            nn.init.xavier_normal_(weight)
            bias = torch.zeros(embedding, features)
            self.register_parameter(f"{name}_bias", nn.Parameter(bias))

    def of_nodes(self, E: Tensor, graph: Tensor) -> _Nodes:
        """Weights and biases of all nodes, of their embeddings (N, d) and graph (N, N)."""
        made: list[Any] = [graph]
        for name in ("gates", "candidate"):
            pool = getattr(self, f"{name}_weight")  # (d, K, in, out)
            made.append(Reused((E @ pool.flatten(1)).unflatten(1, (-1, pool.shape[-1]))))
            made.append((E @ getattr(self, f"{name}_bias"))[:, None])
        return _Nodes(*made)

    def forward(self, x: Tensor, h: Tensor, fixed: list[_Nodes]) -> Tensor:
        nodes = fixed[self.layer]

        def spread(x: Tensor) -> Tensor:
            return (nodes.graph @ x.flatten(1)).view(x.shape)

        def product(x: Tensor, weight: Reused, bias: Tensor) -> Tensor:
            return weight.behind(chebyshev(x, spread, self.order)) + bias

        gates = product(torch.cat([x, h], -1), nodes.gates_weight, nodes.gates_bias)
        z, r = torch.sigmoid(gates).chunk(2, -1)
        c = torch.cat([x, z * h], -1)
        c = torch.tanh(product(c, nodes.candidate_weight, nodes.candidate_bias))
        return torch.lerp(c, h.to(c.dtype), r)
