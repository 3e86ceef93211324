"""PredRNNv2: PredRNN whose two memories are taught to hold different things.

Wang, Wu, Zhang, Gao, Wang, Yu, Long: "PredRNN: A Recurrent Neural Network for Spatiotemporal
Predictive Learning" (arXiv:2103.09504), the sections on decoupling and on reverse sampling, as the
public code of the SimVPv2 paper (arXiv:2211.12509) has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import full_precision
from ..sizing import check_settings
from .predrnn import PredRNN, States


class Decoupled(NamedTuple):
    """The states of PredRNN, and the sum of the decoupling terms so far, a number."""

    states: States
    overlap: Tensor


class PredRNNv2(PredRNN):
    """PredRNNv2: PredRNN with a decoupling loss, and sampling in reverse (arXiv:2103.09504).

    Maps (B, T, C, H, W) to (B, T', C', H, W); a forecast is that of a PredRNN of these weights.

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    decouple : float
        Beta, the weight of the decoupling loss: the mean absolute cosine between what is added to
        the cell state and what is added to the memory, in each channel over all points.
    sampling : str or mapping
        As of :class:`~stforecast.models.recurrent.base.Recurrent`; the paper's is "reverse".
    **options
        As of :class:`.predrnn.PredRNN`.

    References
    ----------
    .. [1] arXiv:2103.09504, the section on memory decoupling.
    """

    benchmarks: ClassVar[dict[str, dict[str, Any]]] = {
        "moving_mnist": {"patch": 4, "decouple": 0.1},
        "kth": {"patch": 2, "decouple": 0.01},
        "robonet": {"patch": 2, "decouple": 0.01},
        "bridgedata": {"patch": 2, "decouple": 0.01},
        "": {"patch": 2, "decouple": 0.1},
    }

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        decouple: float = 0.1,
        sampling: str | Mapping[str, Any] = "reverse",
        **options: Any,
    ) -> None:
        check_settings({"decouple": decouple}, {}, {"decouple": (0.0, 1e6)})
        options |= {"own": {"decouple": decouple}, "sampling": sampling}
        super().__init__(input_steps, target_steps, channels, **options)
        self.decouple = decouple
        self.adapter = nn.Conv2d(self.hidden[0], self.hidden[0], 1, bias=False)

    def begin(self, frame: Tensor) -> Any:
        """All zero; in training with the sum of the decoupling terms."""
        states = super().begin(frame)
        return Decoupled(states, frame.new_zeros(())) if self.training else states

    def step(self, u: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step, upwards through the layers.

        Parameters
        ----------
        u : Tensor of shape (B, 7c, h, w)
            Of :meth:`.Unrolled.inlet`.
        state : States or Decoupled

        Returns
        -------
        frame : Tensor of shape (B, P', h, w)
        state : States or Decoupled
            As it was given.
        """
        if isinstance(state, States):
            return super().step(u, state)
        (h_old, c_old, m), overlap = state
        hs: list[Tensor] = []
        cs: list[Tensor] = []
        for i, cell in enumerate(self.cells):
            a: Tensor = u if i == 0 else cell.conv_x(hs[-1])  # type: ignore[operator]
            h, c, m, to_c, to_m = cell.increments(a, h_old[i], c_old[i], m)  # type: ignore[operator]
            hs, cs, overlap = [*hs, h], [*cs, c], overlap + self._overlap(to_c, to_m)
        with full_precision(u):
            frame = self.readout(hs[-1].to(self.readout.weight.dtype))
        return frame, Decoupled(States(hs, cs, m), overlap)

    def _overlap(self, to_c: Tensor, to_m: Tensor) -> Tensor:
        """Mean over samples and channels of the |cosine| over the points, after the adapter."""
        with full_precision(to_c):
            dtype = self.adapter.weight.dtype
            a, b = (self.adapter(z.to(dtype)).flatten(2) for z in (to_c, to_m))
            a, b = F.normalize(a, dim=2), F.normalize(b, dim=2)
            return (a * b).sum(2).abs().mean()

    def extra_loss(self, frames: Tensor, truth: Tensor, state: Any) -> Tensor:
        """The decoupling loss, times its weight.

        Parameters
        ----------
        frames, truth, state
            As of :meth:`.Unrolled.extra_loss`.

        Returns
        -------
        Tensor
        """
        return self.decouple * state.overlap / (frames.shape[1] * len(self.hidden))

    @classmethod
    def from_openstl(
        cls, options: dict[str, Any], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Any]:
        """Our settings, from the hyper-parameters of the public code.

        Parameters
        ----------
        options, shapes
            As of :meth:`.Recurrent.from_openstl`.

        Returns
        -------
        dict
        """
        beta = options.pop("decouple_beta", 0.1)
        return super().from_openstl(options, shapes) | {"decouple": float(beta)}
