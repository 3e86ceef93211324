"""Settings of a training: kinds and ranges, named where they are wrong."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from stforecast.errors import InputError
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training import TrainConfig, fit

NAN, INF = float("nan"), float("inf")
COUNTS = ("epochs", "steps", "batch_size", "accumulate", "validate_every", "checkpoint_every")
COUNTS += ("val_windows", "patience", "buffer", "warmup_epochs")
RATES = ("learning_rate", "clip_norm", "minutes", "ema", "weight_decay")


@pytest.mark.parametrize("value", [1.5, 4.0, "4", True, NAN, INF, -1, [4], np.float32(4), 1j, b"4"])
@pytest.mark.parametrize("name", [*COUNTS, "seed"])
def test_whole_numbers(name, value):
    with pytest.raises(InputError, match=rf"TrainConfig\.{name} must be .*found"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("value", [NAN, INF, -INF, "0.1", True, -0.5, [0.1], np.nan, 10**400, 1j])
@pytest.mark.parametrize("name", RATES)
def test_numbers(name, value):
    with pytest.raises(InputError, match=rf"TrainConfig\.{name} must .*found"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate", "seed", "buffer"])
def test_none_is_for_what_may_be_left_out(name):
    with pytest.raises(InputError, match=rf"TrainConfig\.{name} must be a .*number, found None"):
        TrainConfig(**{name: None})
    assert TrainConfig(steps=None, clip_norm=None, ema=None, minutes=None) == TrainConfig()


@pytest.mark.parametrize("given", [3, "3", [0], [-1], [1.5], [True], [None], {1: 2}])
def test_steps_to_keep(given):
    with pytest.raises(InputError, match=r"TrainConfig\.keep_checkpoints must be steps, .*found"):
        TrainConfig(keep_checkpoints=given)
    kept = TrainConfig(keep_checkpoints=[np.int64(5), 2, 5])
    assert kept.to_dict()["keep_checkpoints"] == (2, 5)
    assert "keep_checkpoints" not in TrainConfig().to_dict()  # runs of before go on


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70])
def test_seeds(seed):
    with pytest.raises(InputError, match=r"TrainConfig\.seed must be at least 0 and below 2\*\*63"):
        TrainConfig(seed=seed)
    assert TrainConfig(seed=2**63 - 1).seed == 2**63 - 1


def test_numbers_of_numpy_are_taken():
    given = TrainConfig(
        steps=np.int64(3), batch_size=np.uint8(4), learning_rate=np.float32(0.5), seed=np.int32(7),
        weight_decay=Fraction(1, 4), minutes=2, area_weighted=np.True_, patience=np.array(3)[()],
        variable_weights=np.float32([1, 2]),
    )  # fmt: skip
    plain = TrainConfig(
        steps=3, batch_size=4, learning_rate=0.5, seed=7, weight_decay=0.25, minutes=2.0,
        area_weighted=True, patience=3, variable_weights=[1.0, 2.0],
    )  # fmt: skip
    assert given == plain
    assert json.dumps(given.to_dict()) == json.dumps(plain.to_dict())


@pytest.mark.parametrize("name", ["loss", "optimizer", "schedule", "precision", "feed", "storage"])
@pytest.mark.parametrize("value", [None, 3, ["mse"], np.array(["mse", "mae"]), b"mse", {}])
def test_names(name, value):
    with pytest.raises(InputError, match=rf"TrainConfig\.{name} must be one of"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", ["area_weighted", "balance_leads"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_switches(name, value):
    with pytest.raises(InputError, match=rf"TrainConfig\.{name} must be True or False, found"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    "value", ["12", "ab", 3, [NAN], [INF], [0, 0], [], {"t2m": -1}, {3: 1.0}, ["a"], {}]
)
def test_weights_of_variables(value):
    with pytest.raises(InputError, match=r"TrainConfig\.variable_weights must be finite"):
        TrainConfig(variable_weights=value)


@pytest.mark.parametrize("value", ["tpu", "", "cpu:x", 3, ["cpu"], b"cpu"])
def test_devices(value):
    with pytest.raises(InputError, match="device"):
        TrainConfig(device=value)


def test_a_device_of_torch_is_known_by_its_name():
    assert TrainConfig(device=torch.device("cpu")).to_dict()["device"] == "cpu"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "t2m"}, r"fit needs a Task, found 't2m'"),
        ({"task": None}, r"fit needs a Task, found None"),
        ({"config": {"steps": 3}}, r"config must be a TrainConfig, found \{'steps': 3\}"),
        ({"config": 3}, r"config must be a TrainConfig, found 3"),
        ({"run_dir": 3}, r"run_dir must be a path, found 3"),
        ({"about": "mine"}, r"about must be a mapping, found 'mine'"),
    ],
)
def test_arguments_of_fit(change, words):
    options = {"task": Task("t2m"), "config": None} | change
    with pytest.raises(InputError, match=words):
        fit(make_weather(4, shape=(2, 4)), **options)
