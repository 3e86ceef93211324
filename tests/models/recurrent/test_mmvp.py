"""MMVP: its matrices, what they compose, its losses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import SHARED
from torch import nn

from stforecast.errors import InputError
from stforecast.models import load_openstl, summary
from stforecast.models.recurrent import MMVP
from stforecast.models.recurrent.mmvp import compose, similarity

GOLDEN = SHARED / "golden" / "recurrent"
CASES = sorted(p.name.removesuffix(".weights.safetensors") for p in GOLDEN.glob("mmvp*.saf*"))


def small(steps=3, target_steps=2, channels=1, **options):
    torch.manual_seed(0)
    blocks = dict.fromkeys(("encoder_blocks", "decoder_blocks", "enhancer_blocks"), 1)
    widths = {"encoder_channels": 4, "predictor_channels": 3}
    return MMVP(steps, target_steps, channels, **blocks | widths | options).double().eval()


@pytest.mark.skipif(not CASES, reason=f"no golden files at {GOLDEN}")
@pytest.mark.parametrize("variant", ["inputs_only", "inputs_and_targets"])
@pytest.mark.parametrize("name", CASES)
def test_golden_recurrent_losses(name, variant):
    """Before six steps of Adam; the public code's batch norms see the targets as well."""
    case, io = json.loads((GOLDEN / f"{name}.json").read_text()), np.load(GOLDEN / f"{name}.io.npz")
    network = load_openstl(
        GOLDEN / f"{name}.weights.safetensors",
        model="MMVP",
        target_steps=case["aft_seq_length"],
        encode_targets=variant == "inputs_and_targets",
        **case["hyper_parameters"],
    )
    optimizer = torch.optim.Adam(network.double().train().parameters(), lr=1e-3)
    (x, y), losses = (torch.from_numpy(io[k]).double() for k in "xy"), []
    for step in range(6):
        loss = (network.teach(x, y, step)[0] - y).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = case["train_mode_float64"][variant]["losses"]
    np.testing.assert_allclose(losses, expected, atol=1e-9, rtol=0)


def test_matrices_are_cosines():
    """Of each cell of a frame with each of the next: 1 where a shifted frame says so."""
    g = torch.randn(2, 1, 5, 3, 4).double()
    matrices = similarity(torch.cat([g, 3.0 * g.roll(1, -1)], dim=1))
    assert matrices.shape == (2, 1, 12, 12)
    after = torch.arange(12).view(3, 4).roll(1, -1).flatten()  # which cell has come to each
    torch.testing.assert_close(
        matrices[:, 0, after, torch.arange(12)], torch.ones(2, 12).double(), atol=1e-5, rtol=0
    )
    assert matrices.abs().max() <= 1


def test_all_observed_frames_move_on_to_each_target():
    """Against the products of matrices, one by one."""
    B, T, steps, c, grid = 2, 4, 3, 5, (2, 3)
    features = torch.randn(B * T, c, *grid).double()
    past, future = torch.rand(B, T - 1, 6, 6).double(), torch.rand(B, steps, 6, 6).double()
    found = compose(features, past, future, grid).unflatten(0, (B, steps)).flatten(3)
    f = features.flatten(2).unflatten(0, (B, T))
    for t in range(steps):
        total, weight = torch.zeros(B, c, 6).double(), torch.zeros(B, 1, 6).double()
        for i in range(T):
            way = future[:, t]
            for j in range(T - 2, i - 1, -1):
                way = past[:, j] @ way
            total, weight = total + f[:, i] @ way, weight + way.sum(1, keepdim=True)
        torch.testing.assert_close(found[:, t], total / (weight + 1e-6))


def test_channels_of_moved_frames_stay_in_order():
    """What the enhancer gets beside the decoded frames: each channel's own values."""
    network = small(channels=3, out_channels=2)
    network.enhance = nn.Identity()
    with torch.no_grad():
        network.enhanced = nn.Conv2d(4, 2, 1).double()
        network.enhanced.weight.copy_(torch.eye(4)[2:, :, None, None])
        nn.init.zeros_(network.enhanced.bias)
        x = torch.tensor([1.0, 5.0, 9.0]).double()[:, None, None].expand(1, 3, 3, 16, 32)
        out = network(x)
    wanted = x[:, :2, :2]
    torch.testing.assert_close(out, wanted.contiguous(), atol=0, rtol=1e-3)


@pytest.mark.parametrize("size", [(5, 7), (37, 51), (44, 46)])
def test_any_grid_will_do(size):
    with torch.no_grad():
        out = small()(torch.rand(1, 3, 1, *size).double())
    assert out.shape == (1, 2, 1, *size)
    assert out.isfinite().all()


def test_longitude_may_be_a_circle():
    x = torch.rand(1, 3, 1, 16, 64).double()
    with torch.no_grad():
        round_, flat = small(circular_longitude=True), small()
        torch.testing.assert_close(round_(x.roll(32, -1)), round_(x).roll(32, -1))
        assert not torch.allclose(flat(x.roll(32, -1)), flat(x).roll(32, -1), atol=1e-6)


@pytest.mark.parametrize("encode_targets", [False, True])
def test_targets_reach_no_forecast(encode_targets):
    """They are seen by batch statistics alone, and only where it is asked for; NaN never."""
    x, y = torch.rand(2, 3, 1, 16, 16).double(), torch.rand(2, 2, 1, 16, 16).double()
    network = small(encode_targets=encode_targets)
    with torch.no_grad():
        assert torch.equal(network.teach(x, y, 0)[0], network(x))
        network.train()
        found, other = (network.teach(x, z, 0)[0] for z in (y, 2.0 * y))
        assert torch.equal(found, other) is not encode_targets
        y[0, 1, 0, 3] = torch.nan
        assert network.teach(x, y, 0)[0].isfinite().all()


def test_what_one_pass_cannot_do_is_refused():
    with pytest.raises(InputError, match="forecasts 2 steps at once, found 3"):
        small()(torch.zeros(1, 3, 1, 16, 16).double(), 3)
    with pytest.raises(InputError, match="predicts one step from four, found 3 in and 2 out"):
        small(direct=False)
    for wrong in ({"factors": [2, 2]}, {"factors": [2, 3, 2]}, {"steps": 1}):
        with pytest.raises(InputError, match="MMVP needs three factors of 2 or 4"):
            small(**wrong)
    with pytest.raises(InputError, match="leave patch and sampling out"):
        small(sampling="standard")
    with pytest.raises(InputError, match="needs targets of all input channels"):
        small(channels=2, out_channels=1, encode_targets=True)


@pytest.mark.slow
def test_sizes_of_the_papers_network():
    """Parameters, the unused among them, and FLOPs within 1% of the figure in print."""
    with torch.device("meta"):
        network = MMVP.for_benchmark("moving_mnist")
    found = summary(network, (1, 10, 1, 64, 64))
    assert found.parameters == 14_828_581
    assert found.flops == pytest.approx(93.456e9, rel=0.01)
