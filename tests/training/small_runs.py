"""A small training, and how to look at what it left."""

from __future__ import annotations

from dataclasses import replace

import torch
from helpers import tiny

from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training.checkpoints import read_checkpoint
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit

TASK = Task("t2m", input_steps=4, target_steps=3)

CONFIG = TrainConfig(
    steps=30,  # two epochs and a half
    batch_size=8,
    validate_every=7,
    checkpoint_every=3,
    val_windows=16,
    precision="fp32",
    device="cpu",
    buffer=40 * 240,  # of the streaming feed: a part of the data
)

SHORT = replace(CONFIG, steps=6, validate_every=2)


def network():
    return tiny(drop_path=0.3)


def data():
    train = make_weather(96, shape=(6, 10))
    return train, make_weather(48, time="2002-01-01", shape=(6, 10), seed=1)


def go(datasets, directory, **options):
    weather, valid = datasets
    options = {"model": network, "config": SHORT, "validation": valid} | options
    return fit(weather, TASK, run_dir=directory, **options)


def same_weights(a, b):
    weights = b.network.state_dict()
    return all(torch.equal(v, weights[k]) for k, v in a.network.state_dict().items())


def tree(directory):
    """All that is there but what tells of the calls: those differ."""
    calls = {"about.json", "loss.png", "log.jsonl"}
    files = [p for p in sorted(directory.rglob("*")) if p.is_file() and p.name not in calls]
    return {p: p.read_bytes() for p in files if p.parent.name != "tensorboard"}


def good(directory):
    """Steps of the checkpoints, all of which must be whole."""
    return sorted(read_checkpoint(p)[0]["step"] for p in directory.glob("checkpoint-*"))
