"""Data and settings that training refuses."""

from __future__ import annotations

import pytest
from helpers import tiny
from weather_task import CONFIG, TASK

from stforecast.errors import InputError
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda d: d.where(d.time != d.time[5]),
            r"NaN.*at 1 of the 96 times read, first at 2001-01-01 05",
        ),
        (lambda d: d.isel(time=slice(0, 6)), "no window of 7 steps"),
        (lambda d: d.isel(time=slice(0, None, 2)), r"2:00:00, expected 0 days 01:00:00"),
        (lambda d: d * 0 + 280, "never changes"),
        (lambda d: d.rename({"2m_temperature": "sst"}), "2m_temperature"),
    ],
)
def test_bad_training_data(weather, spoil, words):
    spoiled = spoil(weather)
    for name in spoiled.data_vars:
        spoiled[name].attrs["units"] = "K"
    with pytest.raises(InputError, match=words):
        fit(spoiled, TASK, model=tiny, config=CONFIG)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"feed": "disk"}, "feed must be one of auto, resident, stream"),
        ({"buffer": 0}, "buffer must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"minutes": -1.0}, "minutes must be positive"),
        ({"ema": 1.0}, "ema must lie between 0 and 1"),
        ({"loss": "l2"}, "loss must be one of mse, mae, huber, crps, tau, or a function"),
        ({"optimizer": "sgd"}, "optimizer must be one of adam, adamw, muon"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"variable_weights": [0.0]}, "variable_weights must be finite, not negative, and not all"),
        ({"compile": "yes"}, "compile must be one of auto, always, graphs, never"),
        ({"storage": "int8"}, "storage must be one of fp32, bf16, fp16"),
        ({"storage": "bf16", "feed": "stream"}, "a stream is float32"),
    ],
)
def test_bad_settings(options, words):
    with pytest.raises(InputError, match=words):
        TrainConfig(**options)


def test_unknown_resume(weather, tmp_path):
    fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path)
    with pytest.raises(InputError, match="resume must be 'auto' or 'never'"):
        fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path, resume="nope")
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2


def test_unknown_model(weather):
    with pytest.raises(InputError, match=r"model must be .*'simvpv2'"):
        fit(weather, TASK, model="resnet", config=CONFIG)
