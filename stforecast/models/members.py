"""Members of an ensemble from one network: by learned noise, or by dropout that is kept on.

Noise: a field of random numbers on the latent grid shifts and scales the channels in front of each
block of a translator, and behind the last. One field serves all of them, as one vector does in
Alet et al. (2025), "Skillful joint probabilistic weather forecasting from marginals"
(arXiv:2506.10772), section 2; a number for each place is that of Lang et al. (2024), "AIFS-CRPS"
(arXiv:2412.15832), section 3. The projections start at zero, so that a network is at first the one
without noise.

Dropout: what a network drops while it learns (dropout, stochastic depth) it drops in forecasts,
too (Gal and Ghahramani 2016, arXiv:1506.02142).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import InputError
from .layers import BATCH_NORMS, channels_last
from .surroundings import own_defaults

Draws = Literal["noise", "dropout"]
DRAWS: tuple[str, ...] = get_args(Draws)


class Perturbation(nn.Module):
    """Scale and shift channels by a projection of noise, which starts at zero."""

    def __init__(self, noise: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(noise, 2 * channels, 1, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """(B, C, h, w) and noise (B, K, h, w) -> (B, C, h, w)."""
        scale, shift = self.project(channels_last(noise)).chunk(2, dim=1)
        return channels_last(x + (x * scale + shift))


def check_draws(network: nn.Module, draws: str | None) -> None:
    """Refuse a way to draw that a network does not have.

    Raises
    ------
    InputError
        If `draws` is no way, or asks for noise that the network does not take.
    """
    if draws not in (None, *DRAWS):
        raise InputError(f"draws must be one of {', '.join(DRAWS)}, or None, found {draws!r:.60}")
    if draws == "noise" and not getattr(network, "takes_noise", False):
        raise InputError(
            f"a {type(network).__name__} without noise draws no members by it: make it with noise, "
            "such as SimVPv2(noise=8), or let it draw by 'dropout'"
        )


def draw_mode(network: nn.Module, draws: str) -> None:
    """Set each part of a network to how it is when members are drawn: gradients work as well.

    With dropout all is as in training but for batch normalisation, which keeps the statistics that
    it has: a member does not depend on those beside it. With noise all is as in evaluation.
    """
    network.train(draws == "dropout")
    for part in network.modules():
        if isinstance(part, BATCH_NORMS):
            part.eval()


@contextmanager
def drawing(network: nn.Module, draws: str) -> Iterator[None]:
    """Have a network in :func:`draw_mode` while the block runs."""
    before = [(part, part.training) for part in network.modules()]
    draw_mode(network, draws)
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


class Dropping(nn.Module):
    """A network that drops in forecasts what it drops in training."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, *steps: int) -> Tensor:
        """(B, T, C, H, W) -> (B, T', C', H, W).

        Raises
        ------
        InputError
            If it has drawn no random numbers: all members would be the same.
        """
        state = torch.cuda.get_rng_state if x.is_cuda else torch.get_rng_state
        before = state()
        with drawing(self.network, "dropout"):
            y: Tensor = self.network(x, *steps)
        if torch.equal(before, state()):
            raise InputError(
                f"the {type(self.network).__name__} drops nothing, and all members would be the "
                "same: give it dropout, such as SimVPv2(dropout=0.1), or let it draw by noise"
            )
        return y


class Common:
    """The mean noise of a group of members, in one pass of the network after the other.

    Parameters
    ----------
    seeds : sequence of sequence of int
        Of each member of the group, one for each sample.
    """

    def __init__(self, seeds: Sequence[Sequence[int]]) -> None:
        self._generators = [[_generator(seed) for seed in member] for member in seeds]
        self._means: list[Tensor] = []

    def mean(self, turn: int, shape: tuple[int, ...]) -> Tensor:
        """Mean over the group (B, *shape) of what each draws in its turn-th pass."""
        while turn >= len(self._means):
            each = [_noise(member, shape) for member in self._generators]
            self._means.append(torch.stack(each).mean(0))
        return self._means[turn]


class Streams:
    """The random numbers of a member: a stream for each sample, which goes on from pass to pass.

    What a sample draws follows from its own seed, whatever stands beside it in the batch.

    Parameters
    ----------
    draws : {"noise", "dropout"}
    seeds : sequence of int
        One for each sample, from 0 to 2**63.
    common : Common, optional
        Of noise: the member's own less the mean of its group. Members then differ from each other
        as independent ones do, and the error that their mean has because they are few is smaller.
    """

    def __init__(self, draws: str, seeds: Sequence[int], common: Common | None = None) -> None:
        self.draws, self._common, self._turn = draws, common, 0
        self._generators = [_generator(seed) for seed in seeds]

    def __call__(self, call: nn.Module, network: Any, x: Tensor, *steps: int) -> Tensor:
        """Apply a network once, with the next random numbers.

        Parameters
        ----------
        call : nn.Module
            `network`, or its quick form.
        network : nn.Module
        x : Tensor of shape (B, T, C, H, W)

        Returns
        -------
        Tensor of shape (B, T', C', H, W)
        """
        if self.draws == "noise":
            shape = network.noise_shape(*x.shape[-2:])
            own = _noise(self._generators, shape)
            if self._common is not None:
                own = own - self._common.mean(self._turn, shape)
            self._turn += 1
            y: Tensor = call(x, *steps, noise=own.to(x))
            return y
        parts = []  # torch draws for a whole batch at once: so each sample is a batch of its own
        with own_defaults(x.device, random=x.device):
            for one, generator in zip(x.split(1), self._generators, strict=True):
                seed = torch.randint(2**62, (), generator=generator, device="cpu")
                torch.manual_seed(int(seed))
                parts.append(call(one, *steps))
        return torch.cat(parts)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _noise(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers (B, *shape), each sample's from its own stream."""
    return torch.stack([torch.randn(shape, generator=g, device="cpu") for g in generators])


def draw_for_training(network: Any, draws: str, x: Tensor, generator: torch.Generator) -> Any:
    """Apply a network with new random numbers for each sample, and with gradients.

    Parameters
    ----------
    network : nn.Module
        In :func:`draw_mode`.
    draws : {"noise", "dropout"}
    x : Tensor of shape (B, T, C, H, W)
    generator : torch.Generator
        On the CPU: of the noise. Dropout draws from torch's own.

    Returns
    -------
    Tensor of shape (B, T', C', H, W)
    """
    if draws != "noise":
        return network(x)
    shape = len(x), *network.noise_shape(*x.shape[-2:])
    return network(x, noise=torch.randn(shape, generator=generator, device="cpu").to(x))
