"""CrevNet: its inverse, its loops, its losses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import SHARED

from stforecast.errors import InputError
from stforecast.models import load_openstl, summary
from stforecast.models.recurrent import CrevNet

GOLDEN = SHARED / "golden" / "recurrent"
CASES = sorted(p.name.removesuffix(".weights.safetensors") for p in GOLDEN.glob("crevnet*.saf*"))


def small(channels=1, steps=5, **options):
    torch.manual_seed(0)
    options = {"blocks": [1, 2], "layers": 2, **options}
    return CrevNet(steps, 3, channels, **options).double().eval()


def public_loss(network, full, steps):
    """The sum over windows of their mean square errors."""
    frames, extra = network.teach(full[:, :steps], full[:, steps:], 0)
    return (((frames - full[:, 3:]) ** 2).mean() + extra) * frames.shape[1] / 3


@pytest.mark.skipif(not CASES, reason=f"no golden files at {GOLDEN}")
@pytest.mark.parametrize("name", CASES)
def test_golden_recurrent_losses(name):
    """Teacher forced: in evaluation, with all frames' gradient, and over six steps of Adam."""
    case, io = json.loads((GOLDEN / f"{name}.json").read_text()), np.load(GOLDEN / f"{name}.io.npz")
    network = load_openstl(
        GOLDEN / f"{name}.weights.safetensors",
        model="CrevNet",
        target_steps=case["aft_seq_length"],
        **case["hyper_parameters"],
    ).double()
    steps = io["x"].shape[1]
    full = torch.from_numpy(np.concatenate([io["x"], io["y"]], 1)).double().requires_grad_()
    loss = public_loss(network, full, steps)
    loss.backward()
    assert loss.item() == pytest.approx(case["eval_teacher_forced_loss_float64"], abs=1e-9)
    assert np.abs(full.grad.numpy() - io["grad_x64"]).max() < 1e-9
    optimizer, losses = torch.optim.Adam(network.train().parameters(), lr=1e-3), []
    for _ in range(6):
        optimizer.zero_grad()
        loss = public_loss(network, full.detach(), steps)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    expected = case["train_mode_float64"]["plain"]["losses"]
    np.testing.assert_allclose(losses, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("options", [{}, {"circular_longitude": True}])
def test_the_decoder_inverts_the_coder(options):
    network, window = small(channels=3, **options), torch.randn(2, 3, 3, 8, 12).double()
    with torch.no_grad():
        torch.testing.assert_close(network.decode(network.encode(window)), window)


def test_warm_up_sees_all_frames():
    """The public code's loop, without it, sees the last three."""
    x = torch.randn(1, 5, 1, 8, 8).double()
    blank = x.clone()
    blank[:, :2] = 0.0
    with torch.no_grad():
        warm, cold = small(), small(warm_up=False)
        assert not torch.allclose(warm(x), warm(blank))
        assert torch.equal(cold(x), cold(blank))
        assert torch.equal(cold(x), small(steps=3)(x[:, 2:]))  # which is all that one has


def test_further_channels_of_own_frames_are_those_of_the_input():
    """Pass by pass, by hand: known frames replace their estimates, in each window anew."""
    network = small(channels=2, out_channels=1, steps=3)
    x = torch.randn(1, 3, 2, 8, 8).double()
    with torch.no_grad():
        state = network.begin(x[:, 0])
        own, state = network.step(x.transpose(1, 2), state)
        first = torch.cat([own[:, :1, 2], x[:, 0, 1:]], dim=1)
        window = torch.stack([x[:, 1], x[:, 2], first], dim=2)
        own, state = network.step(window, state)
        again = torch.cat([own[:, :1, 1], x[:, 0, 1:]], dim=1)
        second = torch.cat([own[:, :1, 2], x[:, 1, 1:]], dim=1)
        own, _ = network.step(torch.stack([x[:, 2], again, second], dim=2), state)
        out = network(x)
    torch.testing.assert_close(
        out[:, :, 0], torch.stack([v[:, 0] for v in (first, second, own[:, :, 2])], 1)
    )


def test_missing_targets_reach_no_frame_and_no_loss():
    network = small().train()
    x, y = torch.randn(2, 5, 1, 6, 7).double(), torch.randn(2, 3, 1, 6, 7).double()
    y[0, 0, 0, 1:3, 2] = torch.nan
    frames, extra = network.teach(x, y, 0)
    assert frames.shape == (2, 5, 1, 6, 7)
    assert frames.isfinite().all()
    assert extra.isfinite()
    (frames.mean() + extra).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_a_rolled_globe_gives_rolled_forecasts():
    network, x = small(circular_longitude=True), torch.randn(1, 5, 1, 8, 16).double()
    with torch.no_grad():
        torch.testing.assert_close(network(x.roll(4, -1)), network(x).roll(4, -1))


@pytest.mark.slow
def test_costs_what_the_paper_prints_for_a_sample():
    """Table II prints a batch of 16: 270.68 G."""
    network = CrevNet.for_benchmark("moving_mnist").eval()
    found = summary(network, (1, 10, 1, 64, 64))
    assert found.flops / 1e9 == pytest.approx(270.68 / 16, rel=2e-3)
    assert found.parameters == 4_997_444


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 2}, "input_steps must be a whole number from 3"),
        ({"sampling": "standard"}, "sampling='always'"),
        ({"blocks": 4}, "blocks must be a list"),
    ],
)
def test_what_no_crevnet_has_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        small(**options)
