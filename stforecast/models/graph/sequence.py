"""Sequence to sequence on a graph: the recurrence, the curriculum, and a cell on sums."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import GraphNetwork, number, public_sizes


class Recurrent(GraphNetwork):
    """Sequence to sequence: an encoder of recurrent cells, and a decoder fed its own frames.

    Encoder: in step t, layer 1 takes x_t, layer l the new state of layer l - 1; states are kept.
    Decoder: from those states, its first input zeros; each step gives y = readout(state of the
    last layer), which is its next input. Where C > C', the further channels of the k-th frame it
    is fed are those of input frame k mod T.

    A subclass has the settings ``hidden``, ``layers`` and ``curriculum_decay``, and sets
    ``encoder`` (modules ``cell(x, h, fixed) -> h`` on (N, B, ·)), ``decoder`` where it has cells of
    its own, and ``readout``. One that is ``direct`` has no decoder: the readout of the last state
    gives all target steps, (N, B, T' C').

    Notes
    -----
    While it learns, an input of the decoder is the truth instead with the probability
    k / (k + exp(b / k)) in batch b, k = ``curriculum_decay`` (Bengio et al. 2015,
    arXiv:1506.03099, inverse sigmoid): one draw a step for the whole batch. None: never.
    That is one half after k ln k batches, 15,000 of the default's: in a training that is shorter
    give a smaller one, or None. A network that has hardly met its own output goes astray on it.
    """

    feeds_itself = True
    encoder: nn.ModuleList
    readout: nn.Module
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {"hidden": (1, 100_000), "layers": (1, 100)}

    def __init__(self, *, direct: bool = False, **arguments: Any) -> None:
        self.feeds_itself = not direct and arguments.get("feed_known", True)
        super().__init__(**arguments)
        self.hidden: int = arguments["hidden"]
        #: Widths of what each layer takes.
        self.widths = [self.channels] + [self.hidden] * (arguments["layers"] - 1)
        #: Whether the last state gives all steps at once, and there is no decoder.
        self.direct = direct
        if direct:
            self.teach = None  # type: ignore[assignment, method-assign]
        self.curriculum_decay: float | None = arguments["curriculum_decay"]
        if self.curriculum_decay is not None:
            number("curriculum_decay", self.curriculum_decay, 1, 1e12)

    def fixed(self, x: Tensor) -> Any:
        """What is the same in all steps and layers of one pass: computed once, given to each cell.

        Parameters
        ----------
        x : Tensor
            Of the device and type that it is for.
        """
        return None

    def embed(self, frames: Tensor) -> Tensor:
        """(T, N, B, C) -> what the encoder's first layer takes, (T, N, B, ·)."""
        return frames

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T', C', H, W)."""
        return self._run(x)

    def teach(
        self, x: Tensor, y: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Forecast with the curriculum of batch `step`; no extra loss.

        Parameters
        ----------
        x, y : Tensor of shape (B, T, C, H, W) and (B, T', C', H, W)
            NaN in `y` is not fed: the network's own forecast stands there.
        step : int
            Batches seen.
        generator : torch.Generator
            On the CPU, for the draws.

        Returns
        -------
        prediction : Tensor of shape (B, T', C', H, W)
        extra : Tensor
            0.
        """
        p = teacher_probability(step, self.curriculum_decay)
        draws = torch.rand(self.target_steps, generator=generator, device="cpu")
        fed = (draws < p).tolist()
        return self._run(x, y, fed), x.new_zeros(())

    def _run(self, x: Tensor, truth: Tensor | None = None, fed: Sequence[bool] = ()) -> Tensor:
        frames = self.to_nodes(x)
        fixed = self.fixed(x)
        states = [frames.new_zeros(*frames.shape[1:3], self.hidden) for _ in self.encoder]
        for frame in self.embed(frames):
            states = _advance(self.encoder, frame, states, fixed)
        if self.direct:
            all_steps = self.readout(states[-1]).unflatten(2, (-1, self.out_channels))
            return self.to_fields(all_steps.movedim(2, 0))
        decoder = getattr(self, "decoder", self.encoder)
        truths = None if truth is None else truth.permute(1, 3, 4, 0, 2).flatten(1, 2)
        frame = torch.zeros_like(frames[0][..., : self.channels_fed])
        out: list[Tensor] = []
        for k in range(self.target_steps):
            states = _advance(decoder, frame, states, fixed)
            y = self.readout(states[-1])
            out.append(y)
            if truths is not None and fed[k]:
                y = torch.where(truths[k].isfinite(), truths[k].to(y.dtype), y)
            known = frames[k % self.input_steps][..., self.out_channels : self.channels_fed]
            frame = torch.cat([y, known], -1) if known.shape[-1] else y
        return self.to_fields(torch.stack(out))

    def linear_readout(self) -> nn.Linear:
        """From the last layer's state to a frame, or to all where there is no decoder."""
        return nn.Linear(self.hidden, (self.target_steps if self.direct else 1) * self.out_channels)

    @property
    def channels_fed(self) -> int:
        """Channels of a frame that the decoder takes."""
        return self.channels if self.feeds_itself else self.out_channels


def _advance(cells: nn.ModuleList, x: Tensor, states: Sequence[Tensor], fixed: Any) -> list[Tensor]:
    """One step through all layers."""
    new: list[Tensor] = []
    for cell, h in zip(cells, states, strict=True):
        x = cell(x, h, fixed)
        new.append(x)
    return new


class Spread:
    """What the sums over neighbours make of a frame, several of them side by side.

    A state is asked for twice, by the layer above and in the next step: the latest ones are kept.

    Parameters
    ----------
    sums : callable
        (N, B, ·) -> a list of the same shape.
    """

    def __init__(self, sums: Callable[[Tensor], list[Tensor]]) -> None:
        self.sums = sums
        self.kept: deque[tuple[Tensor, list[Tensor]]] = deque(maxlen=16)

    def __call__(self, x: Tensor, *, again: bool = True) -> list[Tensor]:
        """(N, B, ·) -> a list of the same shape; `again` says that it may be asked for again."""
        for seen, sums in self.kept:
            if seen is x:
                return sums
        sums = self.sums(x)
        if again:
            self.kept.append((x, sums))
        return sums


class SpreadCell(nn.Module):
    """A GRU on sums over neighbours, h' = u h + (1 - u) c; the reset gate comes first.

    Parameters
    ----------
    width, hidden : int
        Channels of its input and of its state.
    sums : int
        How many stand side by side.
    """

    def __init__(self, width: int, hidden: int, sums: int) -> None:
        super().__init__()
        self.gates = nn.Linear(sums * (width + hidden), 2 * hidden)
        self.candidate = nn.Linear(sums * (width + hidden), hidden)

    def forward(self, x: Tensor, h: Tensor, spread: Spread) -> Tensor:
        """(N, B, width) and the state (N, B, hidden) -> the new state."""
        inputs = spread(x)
        r, u = torch.sigmoid(self.gates(_beside(inputs, spread(h)))).chunk(2, -1)
        c = torch.tanh(self.candidate(_beside(inputs, spread(r * h, again=False))))
        return mix(c, h, u)


def mix(c: Tensor, h: Tensor, u: Tensor) -> Tensor:
    """Return u h + (1 - u) c, in the precision of h: under autocast the others have less."""
    return torch.lerp(c.to(h.dtype), h, u.to(h.dtype))


def _beside(inputs: list[Tensor], states: list[Tensor]) -> Tensor:
    """Sum by sum, the input's and the state's."""
    return torch.cat([part for pair in zip(inputs, states, strict=True) for part in pair], -1)


def teacher_probability(batch: int, decay: float | None) -> float:
    """Probability that the decoder's next input is the truth, k / (k + exp(b / k)).

    Parameters
    ----------
    batch : int
        b, batches seen so far.
    decay : float or None
        k; None for no teacher.
    """
    if decay is None:
        return 0.0
    return 1 / (1 + math.exp(min(batch / decay, 700.0)) / decay)


def recurrent_settings(hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a :class:`Recurrent`, from the names that all public code has for them."""
    h = hyper_parameters
    return public_sizes(h) | {"hidden": h["rnn_units"], "layers": h["layer_num"]}
