"""The graph networks of `model.py`, on the 2,048 nodes of the weather benchmark.

Beside each stands its plain form, with the same weights: the sums over neighbours as the equations
have them, gathered (CLCRN) or with dense matrices (DCRNN), every time that one is needed; AGCRN
with a stack of dense supports, made in every cell as the weights of its nodes are. Ours sums in one
call, keeps what is needed again, and makes once what is the same in a whole pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stforecast.models.graph import Spread
from stforecast.models.registry import make_network
from stforecast.task import Task

GRID = {"latitude": np.linspace(-87.1875, 87.1875, 32), "longitude": np.arange(64) * 5.625}
#: Settings, least ratio of the times, and greatest of the memory.
NAMES: dict[str, tuple[dict[str, Any], float, float | None]] = {
    "CLCRN": ({}, 5.0, 0.3),
    "DCRNN": ({"order": 3}, 3.0, None),
    "AGCRN": ({"protocol": "clcrn"}, 3.0, None),
}


class Forgetful(Spread):
    """Sums that are computed anew whenever they are asked for."""

    def __init__(self, sums: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__(sums)
        self.kept = deque(maxlen=0)


def made(name: str, device: torch.device) -> nn.Module:
    """Make a network, the same each time."""
    torch.manual_seed(0)
    return make_network(name, Task("t2m"), GRID, NAMES[name][0]).to(device)


def plain(name: str, device: torch.device) -> nn.Module:
    """The same network in its plain form."""
    network: Any = made(name, device)
    if name == "CLCRN":
        index = torch.from_numpy(network.mesh.neighbours).to(device)

        def fixed(x: Tensor) -> Any:
            kernel = network.kernel(x)[..., None, None]
            return Forgetful(lambda h: [(h[index] * kernel).sum(1)])

    elif name == "DCRNN":
        matrices = [walk(torch.eye(network.mesh.nodes, device=device)) for walk in network._walks]
        network._walks = [
            lambda x, P=P: (P @ x.flatten(1)).view(x.shape)  # type: ignore[misc]
            for P in matrices
        ]

        def fixed(x: Tensor) -> Any:
            return Forgetful(network._terms)

    else:
        for cell in network.encoder:
            cell.forward = by_equations(cell)
        embeddings = list(network.embeddings)

        def fixed(x: Tensor) -> Any:
            return embeddings

    network.fixed = fixed
    return network


def by_equations(cell: Any) -> Callable[..., Tensor]:
    """AGCRN's cell by equations 4 to 6 of its paper, of a stack of dense supports."""

    def forward(x: Tensor, h: Tensor, embeddings: list[Tensor]) -> Tensor:
        E = embeddings[cell.layer]

        def product(v: Tensor, name: str) -> Tensor:
            graph = torch.softmax(torch.relu(E @ E.T), dim=1)
            supports = torch.stack([torch.eye(len(E), device=E.device), graph])
            weight = torch.einsum("nd,dkio->nkio", E, getattr(cell, f"{name}_weight"))
            spread = torch.einsum("knm,mbi->nbki", supports, v)
            bias = E @ getattr(cell, f"{name}_bias")
            return torch.einsum("nbki,nkio->nbo", spread, weight) + bias[:, None]

        z, r = torch.sigmoid(product(torch.cat([x, h], -1), "gates")).chunk(2, -1)
        c = torch.tanh(product(torch.cat([x, z * h], -1), "candidate"))
        return r * h + (1 - r) * c

    return forward


def trainers(name: str, device: torch.device, batch: int) -> dict[str, Callable[[], Tensor]]:
    """Forward and backward pass of the plain form and of ours, in training."""
    x = torch.randn(batch, 12, 1, 32, 64, generator=torch.Generator().manual_seed(1)).to(device)

    def step(network: nn.Module) -> Callable[[], Tensor]:
        network.train()

        def run() -> Tensor:
            loss = network(x).square().mean()
            loss.backward()
            network.zero_grad(set_to_none=True)
            return loss.detach()

        return run

    steps = {"reference": step(plain(name, device)), "ours": step(made(name, device))}
    losses = [float(run()) for run in steps.values()]
    assert abs(losses[0] - losses[1]) < 1e-4 * abs(losses[0]), losses  # they are the same
    return steps
