"""Schedules of the learning rate."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import SHARED

from stforecast.training.config import TrainConfig
from stforecast.training.optimizers import Optimizer
from stforecast.training.schedule import schedule


def test_onecycle_is_pytorchs():
    config = TrainConfig(learning_rate=2e-3)
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=57, final_div_factor=1e4
    )
    for step in range(57):
        rate, beta = schedule(config, step, 57, 10)
        group = optimizer.param_groups[0]
        assert rate == pytest.approx(group["lr"], rel=1e-9)
        assert beta == pytest.approx(group["betas"][0], rel=1e-9)
        optimizer.step()
        if step < 56:
            theirs.step()


def test_a_constant_rate():
    config = TrainConfig(learning_rate=5e-3, schedule="constant")
    assert {schedule(config, step, 100, 10) for step in (0, 7, 99)} == {(5e-3, 0.9)}


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_epsilon_of_adam(kind):
    """The first step is the rate times g / (|g| + epsilon)."""
    network = torch.nn.Linear(1, 1, bias=False)
    before = float(network.weight.detach())
    optimizer = Optimizer(network, TrainConfig(optimizer=kind, epsilon=3.0))
    network(torch.tensor([[2.0]])).backward()
    optimizer.step(0.1, 0.9)
    assert float(network.weight.detach()) == pytest.approx(before - 0.1 * 2 / (2 + 3))


@pytest.mark.skipif(not (SHARED / "golden").exists(), reason="no ../shared/golden")
def test_schedules_are_the_papers():
    golden = json.loads((SHARED / "golden/public/schedules.json").read_text())
    case = golden["onecycle_mmnist_lr1e-3_total40"]
    ours = [schedule(TrainConfig(learning_rate=1e-3), s, 40, 10) for s in range(40)]
    np.testing.assert_allclose(ours, np.transpose([case["lr"], case["beta1"]]), rtol=1e-9)
    case = golden["cosine_weather_t2m_lr5e-3_50ep_warm0"]
    rates = case if isinstance(case, list) else case["lr"]
    config = TrainConfig(learning_rate=5e-3, schedule="cosine")
    ours = [schedule(config, 7 * epoch + 3, 350, 7)[0] for epoch in range(50)]
    np.testing.assert_allclose(ours, rates[:50], rtol=1e-9)
    case = golden["cosine_taxibj_lr5e-4_50ep_warm5"]
    config = TrainConfig(learning_rate=5e-4, schedule="cosine", warmup_epochs=5)
    ours = [schedule(config, 7 * epoch + 3, 350, 7)[0] for epoch in range(50)]
    np.testing.assert_allclose(ours, case[:50], rtol=1e-9)
