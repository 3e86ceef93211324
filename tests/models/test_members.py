"""Members from one network: noise that does nothing at first, dropout that is kept on, streams."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from torch import nn

from stforecast.errors import InputError
from stforecast.models.inference import for_inference
from stforecast.models.members import Dropping, Streams, check_draws, draw_mode, drawing


def noisy(**settings):
    """A network that makes something of its noise."""
    torch.manual_seed(0)
    network = tiny(noise=3, **settings).eval()
    for part in network.perturb:
        nn.init.normal_(part.project.weight, std=0.3)
    return network


@pytest.mark.parametrize("translator", ["gsta", "incepu", "tau"])
def test_noise_does_nothing_until_it_has_learned(translator):
    torch.manual_seed(0)
    plain = tiny(translator=translator, target_steps=6).eval()
    network = plain.altered(noise=5).eval()
    assert network.settings == plain.settings | {"noise": 5}
    assert network.takes_noise
    assert not plain.takes_noise
    x = torch.randn(2, 4, 1, 7, 10)
    noise = torch.randn(2, *network.noise_shape(7, 10))
    assert noise.shape == (2, 2, 5, 4, 5)
    assert torch.equal(network(x, noise=noise), plain(x))
    nn.init.ones_(network.perturb[-1].project.weight)
    assert (network(x, noise=noise) - plain(x)).abs().mean() > 1e-3


def test_each_application_has_noise_of_its_own():
    network = noisy(target_steps=6)
    x, noise = torch.randn(2, 4, 1, 6, 10), torch.randn(2, *network.noise_shape(6, 10))
    other = noise.clone()
    other[:, 1] = 0
    one, two = network(x, noise=noise), network(x, noise=other)
    assert torch.equal(one[:, :4], two[:, :4])
    assert (one - two)[:, 4:].abs().min(1).values.mean() > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_quick_form_takes_noise(precision):
    network = noisy()
    x, noise = torch.randn(9, 4, 1, 6, 10), torch.randn(9, *network.noise_shape(6, 10))
    quick = for_inference(network, precision=precision)(x, noise=noise)
    with torch.inference_mode():
        change = network(x, noise=noise) - x[:, -1:]
        assert (quick - x[:, -1:] - change).abs().max() < (1e-4 if precision == "fp32" else 0.1)
        assert (network(x) - network(x, noise=noise)).abs().mean() > 0.01


def test_a_stream_is_each_samples_own():
    """Whatever stands beside it, and in whatever order."""
    x = torch.randn(3, 4, 1, 6, 10)
    for draws, network in (("noise", noisy()), ("dropout", tiny(dropout=0.4).eval())):
        call = Dropping(network) if draws == "dropout" else network

        def two(seeds, rows, draws=draws, call=call, network=network):
            streams = Streams(draws, seeds)
            return [streams(call, network, x[rows]) for _ in range(2)]

        with torch.inference_mode():
            before = torch.get_rng_state()
            first, second = two([7, 8, 9], [0, 1, 2])
            alone = two([8], [1])
            turned = two([9, 7], [2, 0])
            assert torch.equal(torch.get_rng_state(), before)
        torch.testing.assert_close(first[1:2], alone[0])
        torch.testing.assert_close(second[1:2], alone[1])
        torch.testing.assert_close(second[[2, 0]], turned[1])
        assert (first - second).abs().mean() > 1e-4  # it goes on
        assert not network.training


def test_what_is_as_in_training_and_what_is_not():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, 2, 1)).eval()
    network[2].train()
    with drawing(network, "dropout"):
        assert [part.training for part in network] == [False, True, True]
    assert [part.training for part in network] == [False, False, True]
    draw_mode(network, "noise")
    assert not any(part.training for part in network.modules())


def test_ways_that_a_network_does_not_have_are_refused():
    check_draws(tiny(), None)
    check_draws(tiny(), "dropout")
    check_draws(tiny(noise=1), "noise")
    with pytest.raises(InputError, match=r"SimVPv2 without noise.*SimVPv2\(noise=8\)"):
        check_draws(tiny(), "noise")
    with pytest.raises(InputError, match="noise, dropout, or None, found 'dice'"):
        check_draws(tiny(), "dice")
    with pytest.raises(InputError, match="noise"):
        tiny(noise=-1)
