"""Training on data that stay on disk, and on chosen windows."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tiny
from weather_task import CONFIG, TASK, stop_at

from stforecast.errors import InputError
from stforecast.loading.feeds import open_feed
from stforecast.loading.statistics import statistics
from stforecast.task import Task, window_starts
from stforecast.testing.weather import make_weather
from stforecast.training.fit import fit


def test_statistics_of_a_stream_are_those_of_the_whole(monkeypatch):
    """Seen in pieces, with gaps, missing values and a large offset, by a closed form."""
    monkeypatch.setattr("stforecast.loading.source._SWEEP_BYTES", 9 * 4 * 2 * 60)
    rng = np.random.default_rng(0)
    t2m = make_weather(90, shape=(6, 10)).isel(time=np.setdiff1d(np.arange(90), [33, 34]))
    far = (t2m["2m_temperature"] * 0 + rng.normal(5e4, 2.0, (88, 6, 10))).astype("f4")
    ds = t2m.assign(far=far.where(t2m["latitude"] > -60).assign_attrs(units="m", standard_name=""))
    task = Task(["t2m", "far"], 4, 3, targets=["far"], nan="mask")
    values = np.stack([ds["2m_temperature"].values, ds["far"].values], axis=1).astype(float)
    starts = window_starts(ds["time"].values, task.step, 7)
    pairs = [values[starts + 3 + k, 1] - values[starts + 3, 1] for k in (1, 2, 3)]
    for kind in ("resident", "stream"):
        with open_feed(ds, task, 4, feed=kind, buffer=10**5) as feed:
            mean, std, change = statistics(feed)
        np.testing.assert_allclose(mean, np.nanmean(values, (0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(std, np.nanstd(values, (0, 2, 3)), rtol=1e-5)
        want = np.sqrt([np.nanmean(p**2) for p in pairs])
        np.testing.assert_allclose(change[:, 0], want, rtol=1e-5)


def test_streamed_training(weather, valid, tmp_path):
    """The same statistics, loss and validation as resident, deterministic, resumed to the bit."""
    config = replace(CONFIG, feed="stream", buffer=40 * 240)
    chunked = weather.chunk(time=7)
    options = {"model": tiny, "validation": valid.chunk(time=9)}
    whole = fit(chunked, TASK, config=config, **options)
    resident = fit(weather, TASK, config=replace(config, feed="resident"), **options)
    assert torch.equal(whole.normalizer.mean, resident.normalizer.mean)
    np.testing.assert_allclose(
        whole.training["validation"]["val_rmse"],
        resident.training["validation"]["val_rmse"],
        rtol=0.2,  # other windows came first
    )
    with pytest.raises(KeyboardInterrupt):
        fit(chunked, TASK, config=config, run_dir=tmp_path, progress=stop_at(3), **options)
    again = fit(chunked, TASK, config=config, run_dir=tmp_path, **options)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
    other = replace(config, feed="resident")
    with pytest.raises(InputError, match="other settings"):  # its order is another
        fit(weather, TASK, config=other, run_dir=tmp_path, **options)
    assert not [t for t in threading.enumerate() if t.name.startswith("stforecast-read")]


def test_training_on_chosen_windows_only(weather):
    times = weather["time"].values[[3, 40, 92]]
    seen = []
    config = replace(CONFIG, steps=None, epochs=2, batch_size=2)
    fit(weather, TASK, model=tiny, config=config, init_time=times, progress=seen.append)
    assert [e["samples"] for e in seen] == [2, 1, 2, 1]
