"""The parts of a network, and one network put together from several states of it.

Tan, Gao, Li, Li: "SimVPv2: Towards Simple yet Powerful Spatiotemporal Predictive Learning"
(arXiv:2211.12509), section V-E2: what each part has learned is seen where it is exchanged for the
same part of another epoch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InputError
from .simvp import SimVPv2

#: The paper's parts of SimVPv2, in the order that data go through them, and the modules of each.
PARTS = {
    "encoder": ("encoder",),
    "translator": ("translator", "perturb"),
    "decoder": ("decoder", "readout"),
}


@torch.no_grad()
def assemble(network: SimVPv2, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Give a network each of its parts from a state of it.

    The running statistics of batch normalisation go with the part that they are in.

    Parameters
    ----------
    network : SimVPv2
        It is changed in place. What belongs to no part (the size of the changes that it forecasts,
        the linear first guess) is no matter of the training's steps, and stays.
    states : mapping
        By the names of ``PARTS``: the ``state_dict`` of the whole network that this part is taken
        from.

    Raises
    ------
    InputError
        If there is a state too few or too many, or one is not of this network: nothing is changed.
    """
    if states.keys() != PARTS.keys():
        raise InputError(f"expected a state for each of {', '.join(PARTS)}, found {list(states)}")
    own = network.state_dict()
    of = {name: part_of(name) for name in own}
    for part, state in states.items():
        if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in own.items()}:
            raise InputError(f"the state for the {part} is of another network: its shapes differ")
        for name in (n for n in own if of[n] is None):
            if not torch.equal(state[name].to(own[name]), own[name]):
                raise InputError(f"the state for the {part} is of another training: {name} differs")
    for name, owner in of.items():
        if owner is not None:
            own[name].copy_(states[owner][name])


def part_of(name: str) -> str | None:
    """The part that a tensor of SimVPv2 is in, by its name; None for what is in none."""
    first = name.partition(".")[0]
    return next((part for part, modules in PARTS.items() if first in modules), None)
