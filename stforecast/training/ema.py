"""Exponential moving average of the weights, which forecasts better than the last weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Exponential moving average of a network's weights.

    After each step the average moves to the weights by ``1 - d``, where d is `decay`, but at most
    ``(1 + step) / (10 + step)``: the initial weights are soon forgotten. Buffers are not averaged.

    Parameters
    ----------
    network : torch.nn.Module
    decay : float or None
        Between 0 and 1; with None there is no average, and nothing below does anything.

    References
    ----------
    Polyak and Juditsky (1992), "Acceleration of stochastic approximation by averaging", for the
    idea; Tarvainen and Valpola (2017), section 2, for the exponential one.
    """

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        self.decay = decay
        named = {} if decay is None else dict(network.named_parameters())
        self._weights: list[Tensor] = list(named.values())
        # In memory as the weights are: channels last, say.
        self.tensors: dict[str, Tensor] = {k: w.detach().clone() for k, w in named.items()}

    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 0."""
        if self.decay is not None:
            decay = min(self.decay, (1 + step) / (10 + step))
            get_ema_multi_avg_fn(decay)(list(self.tensors.values()), self._weights, 0)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the average that a checkpoint holds."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def take(self) -> None:
        """Exchange weights and average: called twice, all is as it was."""
        for weight, name in zip(self._weights, self.tensors, strict=True):
            weight.data, self.tensors[name] = self.tensors[name], weight.data

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network have the average for its weights while the block runs."""
        self.take()
        try:
            yield
        finally:
            self.take()
