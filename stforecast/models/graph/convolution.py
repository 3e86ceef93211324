"""What the convolutional graph networks share: blocks, the last layer, Laplacians and their powers.

Block and last layer are of Guo, Lin, Feng, Song, Wan: "Attention Based Spatial-Temporal Graph
Convolutional Networks for Traffic Flow Forecasting" (AAAI 2019, doi:10.1609/aaai.v33i01.3301922),
section "Spatial-Temporal Convolution". Inside, tensors are (N, B, T, C).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from .base import GraphNetwork
from .mesh import Mesh
from .sums import FixedSum

#: Dimensions of a Krylov space that holds the largest eigenvalue of a grid's Laplacian to 1e-12.
_KRYLOV = 200


class Block(nn.Module):
    """LayerNorm(ReLU(convolution over time of ReLU(graph(x)) + 1 x 1 convolution of x)).

    Parameters
    ----------
    graph : torch.nn.Module
        (N, B, T, C) to (N, B, T, F); called with what else the block is called with.
    channels, features : int
        C and F.
    stride : int
        Of both convolutions, in steps.
    """

    def __init__(self, graph: nn.Module, channels: int, features: int, stride: int = 1) -> None:
        super().__init__()
        self.graph, self.stride = graph, stride
        self.time = nn.Linear(3 * features, features)
        self.residual = nn.Linear(channels, features)
        self.norm = nn.LayerNorm(features)

    def forward(self, x: Tensor, *more: object) -> Tensor:
        """(N, B, T, C) -> (N, B, 1 + (T - 1) // stride, F)."""
        features = F.pad(F.relu(self.graph(x, *more)), (0, 0, 1, 1))
        over_time = self.time(taps(features, 3, self.stride))
        return self.norm(F.relu(over_time + self.residual(x[:, :, :: self.stride])))


class Head(nn.Linear):
    """All steps and features of a node to all its target steps and channels at once.

    Parameters
    ----------
    steps, features : int
        What is left of T, and F.
    target_steps, channels : int
        T' and C'.
    """

    def __init__(self, steps: int, features: int, target_steps: int, channels: int) -> None:
        super().__init__(steps * features, target_steps * channels)
        self.shape = (target_steps, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, B, T, F) -> (T', N, B, C')."""
        return super().forward(x.flatten(2)).unflatten(2, self.shape).movedim(2, 0)


class BlockNetwork(GraphNetwork):
    """Blocks one behind the other and a last layer: all target steps at once.

    A subclass has the settings ``hidden``, ``blocks`` and ``stride`` (of the first block, in steps;
    None: half of T), calls :meth:`stack`, and has :meth:`fixed`.
    """

    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        "hidden": (1, 10_000),
        "blocks": (1, 10_000),
        "stride": (1, 10_000),
    }

    def __init__(self, *, input_steps: int, stride: int | None, **arguments: Any) -> None:
        stride = max(1, input_steps // 2) if stride is None else stride  # 6 of 12
        super().__init__(input_steps=input_steps, stride=stride, **arguments)

    def stack(self, width: int, convolution: Callable[[int, int], nn.Module]) -> None:
        """Make the blocks and the last layer.

        Parameters
        ----------
        width : int
            Features of a node in the first block's input.
        convolution : callable
            Makes a block's graph convolution for so many steps and features of its input.
        """
        hidden, stride, steps = self.settings["hidden"], self.settings["stride"], self.input_steps
        self.blocks = nn.ModuleList()
        for _ in range(self.settings["blocks"]):
            self.blocks.append(Block(convolution(steps, width), width, hidden, stride))
            width, steps, stride = hidden, 1 + (steps - 1) // stride, 1
        self.head = Head(steps, hidden, self.target_steps, self.out_channels)

    def fixed(self, x: Tensor) -> Any:
        """What all blocks of one pass are called with.

        Parameters
        ----------
        x : Tensor
            Of the device and type that it is for.
        """
        raise NotImplementedError

    def embed(self, frames: Tensor) -> Tensor:
        """(T, N, B, C) -> what the first block takes, (T, N, B, ·)."""
        return frames

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T', C', H, W)."""
        z, fixed = self.embed(self.to_nodes(x)).movedim(0, 2), self.fixed(x)
        for block in self.blocks:
            z = block(z, fixed)
        return self.to_fields(self.head(z))


def initialise(network: nn.Module, *, uniform: bool) -> None:
    """Fill matrices after Glorot, attention's vectors so that they take means, biases with zeros.

    With `uniform` as the public code does: all vectors, those of the norms too, from (0, 1).
    """
    for name, weight in network.named_parameters():
        if not weight.requires_grad:
            continue
        if weight.ndim > 1:
            nn.init.xavier_uniform_(weight)
        elif uniform:
            nn.init.uniform_(weight)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
        elif ".norm." not in name:
            nn.init.uniform_(weight, 0, 2 / len(weight))


def taps(x: Tensor, width: int, stride: int = 1) -> Tensor:
    """What a kernel over time sees at each place, for a linear layer in the convolution's place.

    Parameters
    ----------
    x : Tensor of shape (N, B, T, C)
    width, stride : int
        Of the kernel, in steps.

    Returns
    -------
    Tensor of shape (N, B, 1 + (T - width) // stride, C * width)
        Steps fastest, as a convolution's weights lie.
    """
    return x.unfold(2, width, stride).flatten(3)


Sparse = tuple[np.ndarray, np.ndarray, np.ndarray]  # row, column and value of each entry


def laplacian(mesh: Mesh, *, symmetric: bool) -> Sparse:
    """Scaled Laplacian 2 (D - A) / λ - I, λ the eigenvalue of D - A of largest modulus.

    Parameters
    ----------
    mesh : Mesh
    symmetric : bool
        Whether two nodes are neighbours as soon as one lists the other; else A_ij = 1 where i lists
        j. A node is no neighbour of its own, and D has the sums of A's rows.
    """
    n = mesh.nodes
    row, column, weight = mesh.adjacency("symmetric" if symmetric else "neighbours")
    return scaled((row, column, -weight), np.bincount(row, weight, minlength=n), n)


def scaled(edges: Sparse, diagonal: np.ndarray, n: int) -> Sparse:
    """2 L / λ - I, λ the eigenvalue of L of largest modulus.

    Parameters
    ----------
    edges : (row, column, value)
        Of L without its diagonal.
    diagonal : numpy.ndarray of shape (N,)
        Of L.
    n : int
        N.
    """
    row, column, value = edges
    nodes = np.arange(n)
    row, column = np.concatenate([row, nodes]), np.concatenate([column, nodes])
    scale = 2 / largest_eigenvalue((row, column, np.concatenate([value, diagonal])), n)
    return row, column, np.concatenate([scale * value, scale * diagonal - 1])


def largest_eigenvalue(matrix: Sparse, n: int) -> float:
    """Real part of the eigenvalue of largest modulus, by Arnoldi's iteration; 1 of no edges.

    Parameters
    ----------
    matrix : (row, column, value)
        Of the entries that are not zero.
    n : int
        Rows, and columns.
    """
    row, column, value = matrix
    if n <= _KRYLOV:
        dense = np.zeros((n, n))
        np.add.at(dense, (row, column), value)
        found = np.linalg.eigvals(dense)
        return float(found[np.abs(found).argmax()].real) or 1.0
    basis = np.zeros((_KRYLOV + 1, n))
    upper = np.zeros((_KRYLOV + 1, _KRYLOV))
    basis[0] = np.random.default_rng(0).normal(size=n)
    basis[0] /= np.linalg.norm(basis[0])
    for k in range(_KRYLOV):
        new: np.ndarray = np.bincount(row, value * basis[k, column], minlength=n)
        for _ in range(2):  # once more against rounding
            along = basis[: k + 1] @ new
            new = new - along @ basis[: k + 1]
            upper[: k + 1, k] += along
        upper[k + 1, k] = np.linalg.norm(new)
        basis[k + 1] = new / max(upper[k + 1, k], 1e-300)
    found = np.linalg.eigvals(upper[:-1])
    return float(found[np.abs(found).argmax()].real) or 1.0


def powers(matrix: Sparse, n: int, order: int, *, elementwise: bool) -> list[Sparse]:
    """Chebyshev polynomials T_0 to T_(K-1) of a matrix, as matrices.

    Parameters
    ----------
    matrix : (row, column, value)
        Its entries, each once.
    n : int
        Rows, and columns.
    order : int
        K.
    elementwise : bool
        Whether T_k = 2 L T_(k-1) - T_(k-2) multiplies entry by entry, as the authors' code does,
        in place of the matrices.
    """
    nodes = np.arange(n)
    found: list[Sparse] = [(nodes, nodes, np.ones(n)), matrix]
    for _ in range(2, order):
        rows, columns, values = _product(matrix, found[-1], n, elementwise=elementwise)
        before = found[-2]
        entries = (
            np.concatenate([rows, before[0]]),
            np.concatenate([columns, before[1]]),
            np.concatenate([2 * values, -before[2]]),
        )
        found.append(_summed(entries, n))
    return found[:order]


def _product(a: Sparse, b: Sparse, n: int, *, elementwise: bool) -> Sparse:
    if elementwise:
        ours, theirs = (m[0] * n + m[1] for m in (a, b))
        keys, i, j = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
        return keys // n, keys % n, a[2][i] * b[2][j]
    order = np.argsort(b[0], kind="stable")
    begin = np.searchsorted(b[0][order], np.arange(n + 1))
    many = np.diff(begin)[a[1]]  # entries of b's row that each entry of a meets
    left = np.repeat(np.arange(len(many)), many)
    within = np.arange(len(left)) - np.repeat(np.cumsum(many) - many, many)
    right = order[begin[a[1][left]] + within]
    return _summed((a[0][left], b[1][right], a[2][left] * b[2][right]), n)


def _summed(entries: Sparse, n: int) -> Sparse:
    """Entries of one place added up; an array of (N N,) is faster than sorting them."""
    total = np.bincount(entries[0] * n + entries[1], entries[2], minlength=n * n)
    keys = np.flatnonzero(total)
    return keys // n, keys % n, total[keys]


def operator(matrix: Sparse, n: int) -> Callable[[Tensor], Tensor]:
    """y_j = Σ_i P_ij x_i: each node sums over those that list it.

    Parameters
    ----------
    matrix : (row, column, value)
    n : int
        Rows, and columns.
    """
    row, column, value = matrix
    return FixedSum(column, row, value, n)
