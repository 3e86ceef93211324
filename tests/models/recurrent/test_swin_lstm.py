"""SwinLSTM: its windows, its grids, its losses."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from helpers import SHARED
from torch import nn

from stforecast.errors import InputError
from stforecast.models import load_openstl, summary
from stforecast.models.recurrent import SwinLSTMB, SwinLSTMD
from stforecast.models.translators import WindowAttention

GOLDEN = SHARED / "golden" / "recurrent"
CASES = sorted(p.name.removesuffix(".weights.safetensors") for p in GOLDEN.glob("swinlstm*.saf*"))
KINDS = {
    SwinLSTMB: {"width": 8, "depth": 3, "heads": 2},
    SwinLSTMD: {"width": 8, "down": [2, 3], "up": [3, 2], "heads": [2, 4]},
}


def small(kind, size=(16, 16), channels=1, **options):
    torch.manual_seed(0)
    return kind(2, 3, channels, grid=size, **KINDS[kind] | options).double().eval()


@pytest.mark.skipif(not CASES, reason=f"no golden files at {GOLDEN}")
@pytest.mark.parametrize("name", CASES)
def test_golden_recurrent_losses(name):
    """Of all frames, fed with its own, before six steps of Adam."""
    case, io = json.loads((GOLDEN / f"{name}.json").read_text()), np.load(GOLDEN / f"{name}.io.npz")
    network = load_openstl(
        GOLDEN / f"{name}.weights.safetensors",
        model=case["model"],
        target_steps=case["aft_seq_length"],
        **case["hyper_parameters"],
    )
    optimizer = torch.optim.Adam(network.double().train().parameters(), lr=1e-3)
    (x, y), losses = (torch.from_numpy(io[k]).double() for k in "xy"), []
    for step in range(6):
        loss = (network.teach(x, y, step)[0] - torch.cat([x, y], 1)[:, 1:]).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = case["train_mode_float64"]["plain"]["losses"]
    np.testing.assert_allclose(losses, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("apart", [(True, True), (True, False)])
@pytest.mark.parametrize("size", [(6, 6), (4, 8), (5, 7)])
def test_sides_that_meet_in_a_shifted_window_are_kept_apart(size, apart):
    """Against plain loops over pairs of positions, on grids that windows of 4 fit and do not."""
    torch.manual_seed(0)
    layer = WindowAttention(6, 0.0, (8, 8), shifted=True, heads=2, window=4, apart=apart).double()
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 6, *size).double()
    q, k, v = layer.qkv(x.permute(0, 2, 3, 1)).chunk(3, dim=-1)
    full = [n + -n % 4 for n in size]
    cells = list(itertools.product(*map(range, size)))

    def seen(at, c):
        """Whether both lie in one window, and on one side of where the grid is rolled."""
        for axis in (0, 1):
            a, b = ((p[axis] - 2) % full[axis] for p in (at, c))
            if a // 4 != b // 4 or (apart[axis] and (at[axis] < 2) != (c[axis] < 2)):
                return False
        return True

    expected = torch.zeros_like(q)
    for at, head in itertools.product(cells, (0, 1)):
        part, window = slice(3 * head, 3 * head + 3), [c for c in cells if seen(at, c)]
        steps = [[(at[a] - 2) % full[a] - (c[a] - 2) % full[a] + 3 for a in (0, 1)] for c in window]
        bias = layer.bias[[7 * dy + dx for dy, dx in steps], head]
        keys, values = (torch.stack([z[:, *c, part] for c in window], 1) for z in (k, v))
        weights = ((keys @ q[:, *at, part, None]).squeeze(-1) / 3**0.5 + bias).softmax(-1)
        expected[:, *at, part] = (weights[..., None] * values).sum(1)
    torch.testing.assert_close(layer(x), layer.project(expected).permute(0, 3, 1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_any_grid_will_do(kind):
    """Also another one than that by which the windows were chosen."""
    network = small(kind, size=(13, 21))
    for size in ((13, 21), (8, 24), (3, 5)):
        with torch.no_grad():
            out = network(torch.rand(1, 2, 1, *size).double())
        assert out.shape == (1, 3, 1, *size)
        assert out.min() > 0
        assert out.max() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_longitude_may_be_a_circle(kind):
    """By whole windows of the deepest grid: nothing is kept apart at the seam."""
    x = torch.rand(1, 2, 1, 16, 64).double()
    with torch.no_grad():
        round_ = small(kind, size=(16, 64), circular_longitude=True)
        torch.testing.assert_close(round_(x.roll(32, -1)), round_(x).roll(32, -1))
        flat = small(kind, size=(16, 64))
        assert not torch.allclose(flat(x.roll(32, -1)), flat(x).roll(32, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_stochastic_depth_is_in_training_alone(kind):
    x, y = torch.rand(2, 2, 1, 16, 16).double(), torch.rand(2, 3, 1, 16, 16).double()
    network = small(kind, drop_path=0.5)
    with torch.no_grad():
        assert torch.equal(network(x), small(kind, drop_path=0.0)(x))
        learning = network.train().teach(x, y, 0)[0]
        assert not torch.allclose(learning, network.teach(x, y, 0)[0])


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="give grid="):
        SwinLSTMB(2, 3)
    with pytest.raises(InputError, match=r"heads must divide the width of their cell, 8, found 3"):
        small(SwinLSTMB, heads=3)
    with pytest.raises(InputError, match="down, up and heads must be as many"):
        small(SwinLSTMD, heads=[2])
    with pytest.raises(InputError, match="drop_path must be a number from 0"):
        small(SwinLSTMB, drop_path=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "parameters", "flops"),
    [(SwinLSTMB, 2_778_417, 51_102_351_360), (SwinLSTMD, 20_191_969, 69_877_858_304)],
)
def test_sizes_of_the_papers_networks(kind, parameters, flops):
    """Parameters, the unused among them, and FLOPs as in print."""
    with torch.device("meta"):
        network = kind.for_benchmark("moving_mnist")
    found = summary(network, (1, 10, 1, 64, 64))
    assert (found.parameters, found.flops) == (parameters, flops)
