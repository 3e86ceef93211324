"""ASTGCN: graph convolutions whose edges are weighed by attention, anew for each sample.

Guo, Lin, Feng, Song, Wan: "Attention Based Spatial-Temporal Graph Convolutional Networks for
Traffic Flow Forecasting" (AAAI 2019, doi:10.1609/aaai.v33i01.3301922), of its recent component.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .convolution import Sparse, powers
from .mesh import Mesh
from .mstgcn import MSTGCN, from_blocks
from .sums import as_tensor

_PIECE = 2**24  # elements of the (B, N, columns) of attention that are held at once


class ASTGCN(MSTGCN):
    """MSTGCN's blocks with attention over time and nodes; (B, T, C, H, W) to (B, T', C', H, W).

    The attention over nodes has two matrices (N, N) a block: 8.4 million weights on 2,048 nodes,
    which fit these nodes only, and a product of N^3 for each sample.

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
        None: as the paper has it, Σ_k (T_k ⊙ S)ᵀ x W_k. "clcrn": as the code of the printed row has
        it: directed edges, and S in T_0 and T_1 only. "authors": as the authors' code has it, whose
        T_2 is an elementwise product.

    References
    ----------
    .. [1] doi:10.1609/aaai.v33i01.3301922, sections "Spatial-Temporal Attention" and
       "Spatial-Temporal Convolution".
    """

    tied_to_nodes = True
    printed: ClassVar[Mapping[str, Any]] = {
        "form": "clcrn",
        "blocks": 1,
        "order": 1,
        "stride": None,
    }

    def _graph_of(self, matrix: Sparse) -> Any:
        form, order = self.settings["form"], self.settings["order"]
        terms = order if form != "clcrn" else min(order, 2)
        every = powers(matrix, self.mesh.nodes, terms, elementwise=form == "authors")
        return _Polynomials(every, self.mesh.nodes, by_row=form == "clcrn")

    def _convolution(self, steps: int, width: int) -> nn.Module:
        s = self.settings
        return _Attended(self.mesh.nodes, steps, width, s["hidden"], s["order"], s["form"])

    @classmethod
    def from_public(
        cls, tensors: Mapping[str, Tensor], mesh: Mesh, form: str, hyper_parameters: Any
    ) -> tuple[Self, dict[str, Tensor]]:
        """Make the network for public weights, and name these as ours."""
        settings, ours = from_blocks(tensors, form, hyper_parameters)
        for i in range(settings["blocks"]):
            name = f"blocks.{i}.graph."
            if form == "table":
                block, mark = f"network._blocklist.{i}._", "_"
                parts = ("temporal_attention.", "spatial_attention.")
                theirs = f"{block}chebconv_attention._"
                terms = list(tensors[f"{theirs}weight"])
                ours[f"{name}linear.bias"] = tensors[f"{theirs}bias"]
            else:
                block, mark, parts = f"BlockList.{i}.", "", ("TAt.", "SAt.")
                theirs = f"{block}cheb_conv_SAt.Theta"
                terms = [tensors[f"{theirs}.{k}"] for k in range(settings["order"])]
            ours[f"{name}linear.weight"] = torch.cat([w.T for w in terms], 1)
            for part, letters in zip(
                parts, (("U1", "U2", "U3", "be", "Ve"), ("W1", "W2", "W3", "bs", "Vs")), strict=True
            ):
                ours |= {
                    f"{name}weights.{letter}": tensors[f"{block}{part}{mark}{letter}"]
                    for letter in letters
                }
            for letter in ("be", "bs"):
                ours[f"{name}weights.{letter}"] = ours[f"{name}weights.{letter}"][0]
        return cls(mesh, **settings), ours


class _Attended(nn.Module):
    """Graph convolution of one block, with its two attentions."""

    def __init__(
        self, nodes: int, steps: int, channels: int, features: int, order: int, form: str | None
    ) -> None:
        super().__init__()
        N, T, C = nodes, steps, channels
        shapes = {"U1": (N,), "U2": (C, N), "U3": (C,), "be": (T, T), "Ve": (T, T)}
        shapes |= {"W1": (T,), "W2": (C, T), "W3": (C,), "bs": (N, N), "Vs": (N, N)}
        #: By the paper's letters.
        self.weights = nn.ParameterDict({n: torch.zeros(shape) for n, shape in shapes.items()})
        self.linear = nn.Linear(order * C, features, bias=form == "clcrn")
        self.order, self.form = order, form

    def forward(self, x: Tensor, graph: _Polynomials) -> Tensor:
        """(N, B, T, C) -> (N, B, T, F)."""
        S = self._attention(x, graph)
        weights = [S[:, at] for at in graph.place]
        if self.form != "clcrn":
            terms = [graph.sum(k, x, w) for k, w in enumerate(weights)]
        else:  # T_0 is diagonal; from T_2 on without attention
            terms = [weights[0].T[..., None, None] * x]
            for k in range(1, self.order):
                if k == 1:
                    terms.append(graph.sum(1, terms[0], weights[1]))
                else:
                    terms.append(2 * graph.sum(1, terms[-1]) - terms[-2])
        return self.linear(torch.cat(terms, -1))

    def _attention(self, x: Tensor, graph: _Polynomials) -> Tensor:
        """S at the edges (B, E): softmax of each column of V σ(... + b) over all rows."""
        w: dict[str, Tensor] = dict(self.weights)
        left = torch.einsum("nbtc,n->btc", x, w["U1"]) @ w["U2"]  # (B, T, N)
        right = x @ w["U3"]  # (N, B, T)
        over_time = torch.einsum("bsn,nbt->bst", left, right)
        over_time = (w["Ve"] @ torch.sigmoid(over_time + w["be"])).softmax(1)
        x = torch.einsum("nbsc,bst->nbtc", x, over_time)
        left = (torch.einsum("nbtc,t->nbc", x, w["W1"]) @ w["W2"]).transpose(0, 1)  # (B, N, T)
        right = (x @ w["W3"]).permute(1, 2, 0)  # (B, T, N)
        # The whole is (B, N, N): columns are made in pieces, and once more for the gradients.
        pieces = graph.pieces(max(1, _PIECE // (x.shape[1] * graph.nodes)))
        again = len(pieces) > 1 and torch.is_grad_enabled()
        found = []
        for columns, edges in pieces:
            row, column = (t[edges] for t in graph.on(x, "row", "column"))
            needs = (left, right[..., columns], w["bs"][:, columns], w["Vs"])
            made = partial(_columns, *needs, row, column - columns.start)
            found.append(checkpoint(made, use_reentrant=False) if again else made())
        return torch.cat(found, 1)


def _columns(
    left: Tensor, right: Tensor, bias: Tensor, mix: Tensor, row: Tensor, column: Tensor
) -> Tensor:
    """Some columns of the attention over nodes, at the edges."""
    S = (mix @ torch.sigmoid(left @ right + bias)).softmax(1)  # (B, N, columns)
    return S[:, row, column]


class _Polynomials:
    """Chebyshev polynomials of a graph, each summed with weights of each sample.

    Parameters
    ----------
    terms : list of (row, column, value)
        T_0 (the identity), T_1, ...
    nodes : int
        N.
    by_row : bool
        y_i = Σ_j P_ij x_j in place of y_j = Σ_i P_ij x_i.
    """

    def __init__(self, terms: list[Sparse], nodes: int, *, by_row: bool) -> None:
        self.nodes = nodes
        every = np.unique(np.concatenate([column * nodes + row for row, column, _ in terms]))
        #: Of the edges of all terms together, by columns.
        self.column, self.row = np.divmod(every, nodes)
        #: Where each term's edges stand among these.
        self.place: list[Tensor] = []
        self._placed: dict[Any, Any] = {}
        for k, (row, column, value) in enumerate(terms):
            receiver, sender = (row, column) if by_row else (column, row)
            order = np.argsort(receiver, kind="stable")
            begin = np.searchsorted(receiver[order], np.arange(nodes))
            at = np.searchsorted(every, (column * nodes + row)[order])
            self.place.append(torch.from_numpy(at))
            setattr(self, f"sender{k}", sender[order])
            setattr(self, f"value{k}", value[order])
            setattr(self, f"begin{k}", begin)

    def pieces(self, columns: int) -> list[tuple[slice, slice]]:
        """Slices of so many columns, and of their edges."""
        ends = [*range(0, self.nodes, columns), self.nodes]
        edges = np.searchsorted(self.column, ends).tolist()
        slices = zip(pairwise(ends), pairwise(edges), strict=True)
        return [(slice(*nodes), slice(*these)) for nodes, these in slices]

    def on(self, like: Tensor, *names: str) -> list[Tensor]:
        """Arrays as tensors on the device, and of the type, of `like`."""
        return [as_tensor(self._placed, name, getattr(self, name), like) for name in names]

    def sum(self, k: int, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Sum of term k with the weights of each sample (B, E); (N, B, ...) -> the same."""
        names = (f"{name}{k}" for name in ("sender", "value", "begin"))
        sender, value, begin = self.on(x, *names)
        B, E = x.shape[1], len(sender)
        weight = (value if weight is None else value * weight).expand(B, E)
        sample = torch.arange(B, device=x.device)[:, None]
        y = F.embedding_bag(
            (sender * B + sample).flatten(),
            x.flatten(2).flatten(0, 1),
            (begin + E * sample).flatten(),
            mode="sum",
            per_sample_weights=weight.to(x.dtype).flatten(),
        )
        return y.unflatten(0, (B, self.nodes)).transpose(0, 1).reshape(x.shape)
