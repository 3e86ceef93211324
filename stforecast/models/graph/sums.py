"""Sums over the edges of a graph: fused in torch, and their gradients, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from ..kernels import Uses, backward_pass, by_hand, gathered


class FixedSum:
    """y = P x on nodes, for a sparse matrix P that is given: a fused sum over edges.

    Parameters
    ----------
    receiver, sender : numpy.ndarray of int, shape (E,)
        Of each edge: ``y[receiver] += weight * x[sender]``. An edge may stand twice.
    weight : numpy.ndarray of shape (E,)
    nodes : int
        N.
    """

    def __init__(
        self, receiver: np.ndarray, sender: np.ndarray, weight: np.ndarray, nodes: int
    ) -> None:
        order = np.argsort(receiver, kind="stable")
        self._edges = Edges(receiver[order], sender[order], nodes)
        self._weight = np.asarray(weight, np.float64)[order]

    def __call__(self, x: Tensor) -> Tensor:
        """(N, ...) -> the same."""
        return self._edges.sum(x, as_tensor(self._edges.placed, "weight", self._weight, x))


class Edges:
    """Edges sorted by their receiver, and by their sender for the way back.

    Parameters
    ----------
    receiver, sender : numpy.ndarray of int, shape (E,)
        In the order of the receivers.
    nodes : int
        N.
    """

    def __init__(self, receiver: np.ndarray, sender: np.ndarray, nodes: int) -> None:
        back = np.argsort(sender, kind="stable")
        self.arrays = {
            "sender": sender,
            "begin": begins(receiver, nodes),
            "back": back,
            "receiver": receiver[back],
            "back_begin": begins(sender, nodes),
        }
        self.placed: dict[Any, Any] = {}

    def sum(self, x: Tensor, weight: Tensor) -> Tensor:
        """Sum (N, ...) over the edges, with a weight (E,) for each."""
        lists = [as_tensor(self.placed, name, array, x) for name, array in self.arrays.items()]
        flat = x.reshape(len(x), -1)  # (N, B * C) is summed at once
        return _Sum.apply(flat, weight.to(x.dtype), *lists).view(x.shape)


class _Sum(torch.autograd.Function):
    """The fused sum, whose gradient is a fused sum as well: over the edges turned round.

    Torch's own gradient of ``embedding_bag`` takes five to ten times as long on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        sender: Tensor,
        begin: Tensor,
        back: Tensor,
        receiver: Tensor,
        back_begin: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, sender, begin, back, receiver, back_begin)
        return embedding_bag(sender, x, begin, mode="sum", per_sample_weights=weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, sender, begin, back, receiver, back_begin = ctx.saved_tensors
        gradient = gradient.contiguous()
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x = embedding_bag(
                receiver, gradient, back_begin, mode="sum", per_sample_weights=weight[back]
            )
        if ctx.needs_input_grad[1]:
            with torch.enable_grad():
                leaf = weight.detach().requires_grad_()
                y = embedding_bag(sender, x.detach(), begin, mode="sum", per_sample_weights=leaf)
            (to_weight,) = torch.autograd.grad(y, leaf, gradient)
        return (to_x, to_weight, *(None,) * 5)


def chebyshev(x: Tensor, operator: Callable[[Tensor], Tensor], order: int) -> Tensor:
    """Chebyshev polynomials of an operator side by side, T_k = 2 P T_(k-1) - T_(k-2).

    Parameters
    ----------
    x : Tensor of shape (N, ..., C)
        T_0; T_1 is P x.
    operator : callable
        P, (N, ...) -> the same.
    order : int
        K, how many.

    Returns
    -------
    Tensor of shape (N, ..., K C)
        T_0 to T_(K-1).
    """
    terms = [x]
    for k in range(1, order):
        spread = operator(terms[-1])
        terms.append(spread if k == 1 else 2 * spread - terms[-2])
    return torch.cat(terms, -1) if order > 1 else x


class Reused:
    """A large matrix that a pass multiplies many times: its gradient is one product of all of them.

    By itself torch makes the gradient of each product, and adds it to the others': as many times
    the matrix is written and read, which takes longer than the products themselves.

    Parameters
    ----------
    matrix : Tensor of shape (..., K, O)
        Of the type that products have, under autocast as well.
    """

    def __init__(self, matrix: Tensor) -> None:
        device = matrix.device.type
        if device != "meta" and torch.is_autocast_enabled(device):  # which has no autocast
            matrix = matrix.to(torch.get_autocast_dtype(device))
        self._uses: Uses | None = {} if matrix.requires_grad and by_hand(matrix) else None
        self.matrix = matrix if self._uses is None else gathered(matrix, self._uses, _summed)

    def behind(self, x: Tensor) -> Tensor:
        """Multiply x (..., B, K) by it: x W, (..., B, O)."""
        if self._uses is None:
            return x @ self.matrix
        return _Product.apply(x.to(self.matrix.dtype), self.matrix, self._uses)


def _summed(uses: list[tuple[Tensor, Tensor]], other: Tensor | None) -> Tensor | None:
    """The gradient of the matrix, of the factors and gradients of all products."""
    if not uses:
        return other
    factors, gradients = zip(*uses, strict=True)
    total = torch.cat(factors, -2).mT @ torch.cat(gradients, -2)
    return total if other is None else total + other


class _Product(torch.autograd.Function):
    """x W; the gradient of W is left to :func:`_summed`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, uses: Uses) -> Tensor:
        ctx.save_for_backward(x, matrix)
        ctx.uses = uses
        return x @ matrix

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, matrix = ctx.saved_tensors
        ctx.uses.setdefault(backward_pass(), []).append((x.detach(), gradient))
        return gradient @ matrix.mT, None, None


def begins(node_of_edge: np.ndarray, nodes: int) -> np.ndarray:
    """Where the edges of each of N nodes begin, once edges are sorted by their node."""
    degrees = np.bincount(node_of_edge, minlength=nodes)
    return np.concatenate([[0], np.cumsum(degrees)[:-1]])


def as_tensor(placed: dict[Any, Any], name: str, array: np.ndarray, like: Tensor) -> Tensor:
    """An array as a tensor on the device of `like`, and of its type where it is no index."""
    dtype = torch.int64 if array.dtype.kind == "i" else like.dtype
    key = name, like.device, dtype
    if key not in placed:
        with torch.inference_mode(False):  # a later call may want gradients
            placed[key] = torch.from_numpy(np.ascontiguousarray(array)).to(like.device, dtype)
    return placed[key]
