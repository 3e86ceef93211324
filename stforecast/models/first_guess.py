"""A first guess that is linear: ridge regression of each point on itself and its neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError

#: How many steps before the last one the eight neighbours are seen.
_SEEN = (0, 2)
#: Of what predictors are damped by, unless told otherwise.
RIDGE = 1e-3


class FirstGuess(nn.Module):
    """The change up to each step, by a ridge regression of each point's own.

    The predictors of a point are, of each of the channels that are forecast, its values at all
    input steps (the last one, and the differences of the others from it) and the differences of its
    eight neighbours from it at the last step and two before; a constant; and for each target step
    what is known for it. The weights are fitted once, before the first step of the training, and
    are no parameters: a network learns what they leave.

    Parameters
    ----------
    input_steps, target_steps : int
        T and T'.
    channels : int
        C', of what is forecast: the first ones of the input.
    grid : (int, int)
        H and W.
    known : int
        Channels, the last ones of the input, that hold what is known for the target steps, on the
        frames in their order.
    circular_longitude : bool
        Whether the last column is the first one's neighbour. A point beyond an edge is as the edge.
    ridge : float
        How much a predictor is damped, in its own mean square over the grid.
    """

    weight: Tensor
    residual_std: Tensor

    def __init__(
        self,
        input_steps: int,
        target_steps: int,
        channels: int,
        grid: tuple[int, int],
        *,
        known: int = 0,
        circular_longitude: bool,
        ridge: float = RIDGE,
    ) -> None:
        super().__init__()
        self.ridge, self.known = ridge, known
        self.seen = [lag for lag in _SEEN if lag < input_steps]
        self.circular_longitude = circular_longitude
        count = channels * (input_steps + 8 * len(self.seen)) + 1 + known
        self.register_buffer("weight", torch.zeros(target_steps, count, channels, *grid))
        self.register_buffer("residual_std", torch.ones(target_steps, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Give the changes (B, T', C', H, W) from the last step of (B, T, C, H, W)."""
        if x.shape[-2:] != self.weight.shape[-2:]:
            raise InputError(
                f"with linear_guess the network belongs to a grid of "
                f"{tuple(self.weight.shape[-2:])} points, found input {tuple(x.shape)}"
            )
        weight = self.weight.to(x.dtype)
        shared, known = self._predictors(x)
        n = shared.shape[1]
        y = torch.einsum("bphw,tpchw->btchw", shared, weight[:, :n])
        return y + torch.einsum("btkhw,tkchw->btchw", known, weight[:, n:]) if self.known else y

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Fit the weights, and the standard deviation of what they leave at each lead time.

        Parameters
        ----------
        pairs : iterable of (Tensor, Tensor)
            Input steps (B, T, C, H, W) and target steps (B, T', C', H, W). What is NaN at a point
            is left out there.

        Returns
        -------
        dict
            The state, for other processes.
        """
        steps, size, channels = self.weight.shape[:3]
        n, count = size - self.known, 0
        #: Products of what all leads share with all there is, and of what each has for itself.
        all_sums = each_sums = torch.zeros(1, dtype=torch.float64)
        for x, y in pairs:
            x, y = x.double(), y.double()
            shared, known = self._predictors(x)
            own = torch.cat([known, y - x[:, -1:, :channels]], dim=2)  # (B, T', K + C', H, W)
            finite = shared.isfinite().all(1, keepdim=True)
            finite = finite & own.isfinite().flatten(1, 2).all(1, keepdim=True)
            shared, own = shared.where(finite, 0.0), own.where(finite[:, None], 0.0)
            both = torch.cat([shared, own.flatten(1, 2)], dim=1)
            all_sums = all_sums.to(both) + torch.einsum("bphw,bqhw->hwpq", shared, both)
            each_sums = each_sums.to(both) + torch.einsum("btphw,btqhw->thwpq", own, own)
            count += len(x)
        for step in range(steps):
            mixed = all_sums[..., n:].unflatten(-1, (steps, -1))[..., step, :]
            top = torch.cat([all_sums[..., :n], mixed], dim=-1)
            sums = torch.cat([top, torch.cat([mixed.mT, each_sums[step]], dim=-1)], dim=-2)
            products, cross = sums[..., :size, :size], sums[..., :size, size:]
            # Each predictor is damped by its own mean square over the grid; the constant is not.
            damping = products.diagonal(dim1=-2, dim2=-1).mean((0, 1))
            damping = (self.ridge * damping).clamp_min(1e-9 * count)
            damping[n - 1] = 1e-9 * count
            weight = torch.linalg.solve(products + damping.diag(), cross)  # (H, W, P, C')
            self.weight[step] = weight.permute(2, 3, 0, 1)
            # |y - X w|^2 = |y|^2 - 2 w.X'y + w.X'X w
            squares = sums[..., size:, size:].diagonal(dim1=-2, dim2=-1)
            squares = squares - (weight * (2 * cross - products @ weight)).sum(-2)  # (H, W, C')
            variance = squares.sum((0, 1)) / products[..., n - 1, n - 1].sum()
            self.residual_std[step] = variance.clamp_min(1e-12).sqrt()
        return {name: tensor.cpu() for name, tensor in self.state_dict().items()}

    def _predictors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C, H, W) -> what all leads share (B, P, H, W), what is known (B, T', K, H, W)."""
        steps, channels = self.weight.shape[0], self.weight.shape[2]
        known, x = x[:, :steps, x.shape[2] - self.known :], x[:, :, :channels]
        last, (H, W) = x[:, -1:], x.shape[-2:]
        near = x[:, [-1 - lag for lag in self.seen]]
        mode = "circular" if self.circular_longitude else "replicate"
        padded = F.pad(
            F.pad(near.flatten(0, 1), (1, 1, 0, 0), mode=mode), (0, 0, 1, 1), "replicate"
        )
        padded = padded.unflatten(0, near.shape[:2])
        around = [
            padded[..., j : j + H, i : i + W] - last
            for j, i in product(range(3), range(3))
            if (j, i) != (1, 1)
        ]
        own = torch.cat([last, x[:, :-1] - last, *around], dim=1).flatten(1, 2)
        return torch.cat([own, torch.ones_like(last[:, :, 0])], dim=1), known
