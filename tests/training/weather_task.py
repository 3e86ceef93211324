"""A small task and its data for the tests of training."""

from __future__ import annotations

import signal

import torch

from stforecast.task import Task
from stforecast.training.config import TrainConfig

TASK = Task("t2m", input_steps=4, target_steps=3)

CONFIG = TrainConfig(
    steps=6, batch_size=4, validate_every=2, val_windows=8, precision="fp32", device="cpu"
)


def ocean(ds, *, name="2m_temperature"):
    """Land of NaN over a third of the grid, and the oceans between."""
    land = (ds["longitude"] > 100) & (ds["longitude"] < 220)
    return ds.assign({name: ds[name].where(~land)}), land.values


def stop_at(step):
    def progress(event):
        if event["step"] == step:
            signal.raise_signal(signal.SIGINT)

    return progress


def weights(forecaster):
    return torch.cat([v.flatten() for v in forecaster.network.state_dict().values()])
