"""MAU: its attention, its grid, its sampling."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from stforecast.errors import InputError
from stforecast.models import kernels, summary
from stforecast.models.recurrent import MAU
from stforecast.models.recurrent.mau import MAUCell


def small(channels=1, size=(8, 12), **options):
    torch.manual_seed(0)
    options = {"hidden": [4, 4], "kernel": 3, "grid": size, **options}
    return MAU(3, 4, channels, **options).double().eval()


class Own(nn.Module):
    """An open gate before its input, and nothing of the other state."""

    def forward(self, x):
        return torch.cat([torch.full_like(x, 50.0), x, torch.zeros_like(x)], dim=1)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_unit_attends_to_the_past_states_of_its_layer(temperature):
    """Closed form: weights from inner products over all points, a softmax over the steps."""
    torch.manual_seed(0)
    cell = MAUCell(3, (4, 5), 1, residual=False, circular_longitude=False).double()
    cell.conv_t, cell.conv_s_next = Own(), nn.Identity()
    nn.init.zeros_(cell.conv_t_next[1].weight)
    nn.init.constant_(cell.conv_t_next[1].bias, -50.0)  # nothing of the present temporal state
    spatial, temporal = torch.randn(2, 2, 3, 4, 5).double() * temperature
    past = [tuple(torch.randn(2, 2, 3, 4, 5).double()) for _ in range(3)]
    _, found = cell(spatial, temporal, past)
    scores = torch.stack([torch.einsum("bchw,bchw->b", s, spatial) for s, _ in past]) / 60**0.5
    weights = torch.exp(scores) / torch.exp(scores).sum(0)
    expected = sum(w[:, None, None, None] * t for w, (_, t) in zip(weights, past, strict=True))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("recall", [False, True])
def test_gradients_written_by_hand_are_those_of_torch(monkeypatch, recall):
    """Of all weights and of the input; a second backward pass through a kept graph gives them, too.

    There are 6 steps of 3 that a unit looks back: states are looked at by all steps that may.
    """
    network = small(tau=3, recall=recall)
    x = torch.randn(2, 3, 1, 8, 12).double().requires_grad_()

    def gradients(passes=1):
        inputs = [x, *(p for p in network.parameters() if p.requires_grad)]
        y = network(x)
        loss = (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()
        for left in reversed(range(passes)):
            found = torch.autograd.grad(loss, inputs, retain_graph=left > 0, allow_unused=True)
        return [g for g in found if g is not None]

    assert kernels.by_hand(x)
    ours, again = gradients(), gradients(2)
    monkeypatch.setattr(kernels, "by_hand", lambda x: False)
    theirs = gradients()
    assert len(theirs) > 20
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(again, theirs)


def test_a_graph_is_let_go_of_where_states_get_no_gradient(monkeypatch):
    """The gradient of the units alone: what the encoder gave is looked at, and never asked for."""
    network, kept, gathered = small(), [], kernels.gathered

    class Uses(dict):
        """Which can be watched."""

    def watched(x, uses, total):
        uses = Uses()
        kept.append(weakref.ref(uses))
        return gathered(x, uses, total)

    monkeypatch.setattr(kernels, "gathered", watched)
    y = network(torch.randn(2, 3, 1, 8, 12).double())
    torch.autograd.grad(y.sum(), list(network.cells[0].conv_s_next.parameters()))
    assert len(kept) == 24
    del y
    gc.collect()
    assert [one() for one in kept if one() is not None] == []


def test_rates_follow_from_the_step():
    """True frames at first, its own at last, also in a run that begins there."""
    network, rng = small(), torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 1, 8, 12).double(), torch.randn(2, 4, 1, 8, 12).double()
    with torch.no_grad():
        assert torch.equal(network.teach(x, y, 50_000, rng)[0][:, -4:], network(x))
        fed = network.teach(x, y, 0, mask=torch.ones(2, 3))[0]
        assert torch.equal(network.teach(x, y, 0, rng)[0], fed)  # at a rate of 0.99998
        assert not torch.allclose(fed[:, -3:], network(x)[:, -3:])


def test_it_belongs_to_the_grid_that_it_was_made_for():
    with pytest.raises(InputError, match="give grid="):
        MAU(3, 4)
    with pytest.raises(InputError, match=r"belong to a grid of 8 x 12, found input of 8 x 16"):
        small()(torch.zeros(1, 3, 1, 8, 16).double())
    assert small(size=(7, 9))(torch.zeros(1, 3, 1, 7, 9).double()).shape == (1, 4, 1, 7, 9)
    for wrong in ({"encoder_stride": 6}, {"hidden": [4, 8]}, {"kernel": 4}, {"patch": 2}):
        with pytest.raises(InputError, match="MAU needs an odd kernel"):
            small(**wrong)


@pytest.mark.parametrize("recall", [False, True])
def test_longitude_may_be_a_circle(recall):
    x = torch.randn(1, 3, 1, 8, 12).double()
    options = {"recall": recall, "encoder_stride": 4}
    with torch.no_grad():
        round_, flat = small(circular_longitude=True, **options), small(**options)
        torch.testing.assert_close(round_(x.roll(4, -1)), round_(x).roll(4, -1))
        assert not torch.allclose(flat(x.roll(4, -1)), flat(x).roll(4, -1))


@pytest.mark.parametrize("options", [{}, {"recall": True, "circular_longitude": True}])
def test_the_quick_form_forecasts_alike(options):
    network, x = small(**options).float(), torch.randn(2, 3, 1, 8, 12)
    quick = network.folded(torch.float32)
    with torch.no_grad():
        assert not torch.equal(quick(x), quick(x.flip(1)))
        torch.testing.assert_close(quick(x), network(x), atol=1e-5, rtol=1e-5)
    assert small().folded(torch.float32) is None  # of weights in float64


@pytest.mark.slow
def test_sizes_of_the_papers_network():
    """Parameters, the unused among them, and FLOPs as in print."""
    with torch.device("meta"):
        network = MAU.for_benchmark("taxibj")
    found = summary(network, (1, 4, 2, 32, 32))
    assert (found.parameters, found.flops) == (4_409_868, 6_024_331_264)
