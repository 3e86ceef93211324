"""Fixtures of the tests of training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_runs import data, go

from stforecast.testing.weather import make_weather
from stforecast.training import log as journal


@pytest.fixture(scope="module")
def without_curves():
    """Neither TensorBoard's files nor pictures, here: they take longer than such a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_tensorboard", lambda *args: None)
        patch.setattr(journal.util, "find_spec", lambda name: None)
        yield


@pytest.fixture(scope="module")
def datasets():
    return data()


@pytest.fixture(scope="module")
def finished(datasets, tmp_path_factory):
    """A finished run of six steps, with checkpoints of the last two: 4 and 6."""
    directory = tmp_path_factory.mktemp("finished")
    result = go(datasets, directory)
    assert [p.name for p in sorted(directory.glob("checkpoint-*"))] == [
        "checkpoint-00000004", "checkpoint-00000006",
    ]  # fmt: skip
    return directory, result


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


@pytest.fixture(scope="module")
def weather():
    return make_weather(96, shape=(6, 10))


@pytest.fixture(scope="module")
def valid():
    return make_weather(48, time="2002-01-01", shape=(6, 10), seed=1)
