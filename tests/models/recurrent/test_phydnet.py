"""PhyDNet: its losses, its coin, and the range of its output."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import SHARED

import stforecast
from stforecast.errors import InputError
from stforecast.models import load_openstl, summary
from stforecast.models.recurrent import PhyDNet

GOLDEN = SHARED / "golden" / "recurrent"
CASES = sorted(p.name.removesuffix(".weights.safetensors") for p in GOLDEN.glob("phydnet*.saf*"))


def small(**options):
    torch.manual_seed(0)
    options = {"encoder_stride": 2, "width": 16, "hidden": [4], **options}
    return PhyDNet(3, 4, **options)


@pytest.mark.skipif(not CASES, reason=f"no golden files at {GOLDEN}")
@pytest.mark.parametrize("variant", ["teacher_forced", "free_running"])
@pytest.mark.parametrize("name", CASES)
def test_golden_recurrent_losses(name, variant):
    """The sum of all frames' errors and of the moment loss, before six steps of Adam."""
    case, io = json.loads((GOLDEN / f"{name}.json").read_text()), np.load(GOLDEN / f"{name}.io.npz")
    network = load_openstl(
        GOLDEN / f"{name}.weights.safetensors",
        model="PhyDNet",
        target_steps=case["aft_seq_length"],
        **case["hyper_parameters"],
    )
    network.double().train()
    moments = float(network.physics.moment_loss().detach())
    assert moments == pytest.approx(case["moment_loss"], abs=1e-9)
    x, y = (torch.from_numpy(io[k]).double() for k in "xy")
    truth, mask = torch.cat([x, y], 1)[:, 1:], torch.ones(len(y), y.shape[1] - 1)
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=1e-3), []
    for _ in range(6):
        frames, extra = network.teach(x, y, 0, mask=mask * (variant == "teacher_forced"))
        loss = frames.shape[1] * (((frames - truth) ** 2).mean() + extra)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = case["train_mode_float64"][variant]["losses"]
    np.testing.assert_allclose(losses, expected, atol=1e-9, rtol=0)


def test_filters_that_are_derivatives_have_no_moment_loss():
    """By a closed form: the filter with moment (1, 0) differences, and a scaled one is told."""
    cell = small().double().physics
    offset = torch.arange(7, dtype=torch.float64) - 3
    powers = torch.stack([offset**i / np.prod(np.arange(1, i + 1)) for i in range(7)])
    one_axis = torch.linalg.inv(powers).T  # row i has the moment i alone
    filters = torch.einsum("ia,jb->ijab", one_axis, one_axis).reshape(49, 1, 7, 7)
    with torch.no_grad():
        cell.derivatives.weight.copy_(filters.expand_as(cell.derivatives.weight))
        assert float(cell.moment_loss()) < 1e-20
        cell.derivatives.weight[:, 5] *= 3.0  # 49 moments of 2 too much
    assert float(cell.moment_loss().detach()) == pytest.approx(49 * 2.0**2 / 49**2)


def test_one_coin_a_batch_by_the_step():
    """At first all batches are forced, at last none; between, each one wholly or not at all."""
    network, rng = small().eval(), torch.Generator().manual_seed(1)
    x, y = torch.rand(3, 3, 1, 4, 4), torch.rand(3, 4, 1, 4, 4)
    with torch.no_grad():
        forced, free = (
            network.teach(x, y, 0, mask=torch.full((3, 3), k))[0] for k in (True, False)
        )
        assert not torch.allclose(forced, free)
        for step, wanted in ((0, {1}), (104_166, {0, 1}), (10**6, {0})):
            drawn = [network.teach(x, y, step, rng)[0] for _ in range(8)]
            assert all(torch.equal(d, forced) or torch.equal(d, free) for d in drawn)
            assert {int(torch.equal(d, forced)) for d in drawn} == wanted


def test_the_output_has_the_range_it_is_told():
    """An affine map around the same network; what is not forecast keeps its units."""
    network = small(channels=3, out_channels=2).double()
    x, y = torch.randn(2, 3, 3, 5, 6).double(), torch.randn(2, 4, 2, 5, 6).double()
    y[0, 1, 0, 2, 2] = torch.nan  # never fed
    low, high = torch.tensor([-3.0, -1.0]).double(), torch.tensor([5.0, 0.5]).double()
    span = (high - low)[:, None, None]
    mask = torch.ones(2, 3)
    with torch.no_grad():
        inside = torch.cat([(x[:, :, :2] - low[:, None, None]) / span, x[:, :, 2:]], dim=2)
        out = network(inside)
        frames, extra = network.teach(inside, (y - low[:, None, None]) / span, 0, mask=mask)
        network.set_output_range(low, high)
        torch.testing.assert_close(network(x), out * span + low[:, None, None])
        again, more = network.teach(x, y, 0, mask=mask)
        torch.testing.assert_close(again, frames * span + low[:, None, None])
    assert again.isfinite().all()
    assert float(more) == pytest.approx(float(extra) * (8.0**2 + 1.5**2) / 2)


def test_a_change_keeps_within_the_range():
    """Untrained it is persistence; the slope at the mean is the unit; the ends are never passed."""
    network = small(channels=2, out_channels=1, predict_change=True).double()
    low, high = torch.tensor([-4.0]).double(), torch.tensor([12.0]).double()
    network.set_output_range(low, high)
    network.set_tendency_std(torch.full((4, 1), 0.1))
    fed = torch.linspace(-3.9, 11.9, 6).double().view(1, 1, 2, 3).expand(1, 2, 2, 3)
    z = torch.zeros(1, 1, 2, 3).double()
    torch.testing.assert_close(network.close(z, fed), fed[:, :1])
    here = torch.zeros(1, 2, 2, 3).double()
    torch.testing.assert_close(network.close(z + 1e-3, here), z + 1e-4, rtol=1e-3, atol=0)
    for sign, end in ((-1, low), (1, high)):
        far = network.close(z + sign * 1e4, 50 * (here + sign))  # beyond the range from the start
        torch.testing.assert_close(far, end.expand_as(far))
        near = network.close(z, 50 * (here + sign))
        assert bool(((near > low) & (near < high)).all())
    assert float(network.squared_unit()) == 1


def test_a_task_s_network_predicts_changes():
    """As the authors' do not."""
    task = stforecast.Task("t2m", 3, 4)
    made = PhyDNet.for_task(task, width=16, hidden=(4,))
    assert made.predict_change
    assert not PhyDNet.for_task(task, width=16, hidden=(4,), predict_change=False).predict_change
    assert not PhyDNet.for_benchmark("weatherbench_t2m", width=16, hidden=(4,)).predict_change


def test_standardised_weather_trains_beyond_one_and_comes_back(tmp_path):
    """``fit`` tells the range, bundles keep it."""
    ds = stforecast.testing.make_weather(40, shape=(4, 8))
    config = stforecast.TrainConfig(steps=2, batch_size=4, device="cpu")
    forecaster = stforecast.fit(
        ds, stforecast.Task("t2m", 3, 4), model=lambda: small(), config=config
    )
    low, high = forecaster.network.output_range[:, 0].tolist()
    values = ds["2m_temperature"].values.astype(float)
    z = (values - values.mean()) / values.std()
    assert (low, high) == pytest.approx((z.min(), z.max()), rel=1e-4)
    again = stforecast.load(forecaster.save(tmp_path / "bundle"))
    assert torch.equal(again.network.output_range, forecaster.network.output_range)
    x = torch.from_numpy(values[None, :3, None]).float()
    with torch.no_grad():
        out, same = again.apply(x), forecaster.apply(x)
    torch.testing.assert_close(out, same)
    assert values.min() <= float(out.min())
    assert float(out.max()) <= values.max()


@pytest.mark.parametrize("stride", [2, 4])
def test_a_rolled_globe_gives_rolled_forecasts(stride):
    network = small(encoder_stride=stride, circular_longitude=True).double().eval()
    x = torch.randn(1, 3, 1, 8, 8 * stride).double()
    with torch.no_grad():
        torch.testing.assert_close(network(x.roll(stride, -1)), network(x).roll(stride, -1))


@pytest.mark.parametrize(
    ("name", "flops", "parameters"),
    [
        ("moving_mnist", 15.327511168, 3.091732),
        pytest.param("taxibj", 5.598103168, 3.092309, marks=pytest.mark.slow),
        pytest.param("weatherbench_t2m", 36.758591872, 3.091732, marks=pytest.mark.slow),
    ],
)
def test_costs_what_the_paper_prints(name, flops, parameters):
    """Table II, and the public code's counts."""
    network = PhyDNet.for_benchmark(name)
    found = summary(network, (1, network.input_steps, network.channels, *network.settings["grid"]))
    assert found.flops / 1e9 == pytest.approx(flops, rel=1e-3)
    assert found.parameters / 1e6 == pytest.approx(parameters, abs=1e-7)


@pytest.mark.parametrize("options", [{"encoder_stride": 3}, {"width": 24}, {"hidden": 64}])
def test_sizes_that_no_phydnet_has_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        small(**options)
