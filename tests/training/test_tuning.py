"""Learning rates are compared fairly, and trials reported as mean and standard deviation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stforecast.errors import InputError
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit
from stforecast.training.tuning import find_learning_rate, trials

TASK = Task("2m_temperature", input_steps=2, target_steps=1, timestep="1h")


class Scale(nn.Module):
    """One weight: the last step times it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):  # (B, T, C, H, W)
        return self.weight * x[:, -1:]


@pytest.fixture(scope="module")
def parts():
    ds = make_weather(120, shape=(4, 6))
    return ds.isel(time=slice(80)), ds.isel(time=slice(80, None))


CONFIG = TrainConfig(batch_size=8, precision="fp32", device="cpu")


def test_the_rate_that_gets_furthest_is_best(parts):
    train, valid = parts
    table = find_learning_rate(
        train,
        TASK,
        validation=valid,
        model=Scale,
        config=CONFIG,
        rates=(1e-4, 1e-1, 1e-3),
        steps=20,
    )
    assert table.index.tolist() == [1e-4, 1e-1, 1e-3]
    assert table.attrs["best"] == 1e-1
    scores = table["val_score"]
    assert scores[1e-1] < scores[1e-3] < scores[1e-4]
    config = TrainConfig(batch_size=8, precision="fp32", device="cpu", learning_rate=1e-3, steps=20)
    alone = fit(train, TASK, model=Scale, validation=valid, config=config)
    assert scores[1e-3] == alone.training["validation"]["val_score"]


def test_a_search_that_was_stopped_goes_on(parts, tmp_path):
    train, valid = parts
    options = {
        "validation": valid,
        "model": Scale,
        "config": CONFIG,
        "steps": 5,
        "run_dir": tmp_path,
    }
    first = find_learning_rate(train, TASK, rates=(1e-1,), **options)
    again = find_learning_rate(train, TASK, rates=(1e-1, 1e-2), **options)
    assert again.loc[1e-1, "val_score"] == first.loc[1e-1, "val_score"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rate-0.01", "rate-0.1"]


def test_a_rate_that_diverges_is_a_row(parts):
    train, valid = parts
    table = find_learning_rate(
        train, TASK, validation=valid, model=Scale, config=CONFIG, rates=(1e30, 1e-1), steps=10
    )
    assert table.attrs["best"] == 1e-1
    assert math.isinf(table.loc[1e30, "val_score"])
    assert "learning rate" in table.loc[1e30, "note"]
    with pytest.raises(InputError, match="diverged with every learning rate"):
        find_learning_rate(
            train, TASK, validation=valid, model=Scale, config=CONFIG, rates=(1e30,), steps=10
        )


def test_a_network_cannot_start_twice(parts):
    train, valid = parts
    with pytest.raises(InputError, match="a function that makes the network"):
        find_learning_rate(train, TASK, validation=valid, model=Scale(), config=CONFIG, steps=1)


def test_mean_and_standard_deviation():
    table = trials(3, lambda i: {"a": [1.0, 2.0, 6.0][i], "b": 0.5})
    assert table.loc["a", [0, 1, 2]].tolist() == [1, 2, 6]
    assert table.loc["a", "mean"] == 3
    assert table.loc["a", "std"] == pytest.approx(math.sqrt(7))  # (4 + 1 + 9) / 2
    assert table.loc["b", "std"] == 0
    assert math.isnan(trials(1, lambda i: {"a": 1.0}).loc["a", "std"])


def test_trials_that_do_not_compare():
    with pytest.raises(InputError, match="trial 1 gives"):
        trials(2, lambda i: {"a": 1.0} if i == 0 else {"b": 1.0})
    with pytest.raises(InputError, match="at least 1"):
        trials(0, lambda i: {})
