"""One roll-out: on the latest steps, as far as it is asked, with gradients through all of it."""

from __future__ import annotations

import pytest
import torch

from stforecast.models.rollout import rollout


@pytest.mark.parametrize("given", [1, 2, 3, 5])
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_each_input_is_the_latest_steps(given, steps):
    """A clock goes on: each application sees three steps in a row, and gives those after them."""

    def step(x):
        assert x.shape == (2, 3, 1, 1, 1)
        assert (x.diff(dim=1) == 1).all()
        return x[:, -1:] + torch.arange(1.0, given + 1).view(1, -1, 1, 1, 1)

    x = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(2, 3, 1, 1, 1)
    pieces = list(rollout(step, x, steps))
    assert len(pieces) == -(-steps // given)
    assert torch.cat(pieces, dim=1)[1].flatten().tolist() == list(range(3, 3 + steps))


def test_gradients_go_through_all_of_it():
    factor = torch.tensor(2.0, requires_grad=True)
    *_, last = rollout(lambda x: x * factor, torch.ones(1, 1, 1, 1, 1), 3)
    last.sum().backward()
    assert factor.grad.item() == 3 * 2.0**2
