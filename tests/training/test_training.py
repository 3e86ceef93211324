"""Training: the feed's order, the schedules, the loss, resuming, stopping, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import Linear, tiny
from weather_task import CONFIG, TASK, stop_at, weights

from stforecast.baselines.persistence import Persistence
from stforecast.conventions.grid import area_weights
from stforecast.conventions.overlap import write_period
from stforecast.errors import DivergenceError, InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.forecaster import load
from stforecast.loading.feeds import ResidentFeed
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task, initialisations, window_starts
from stforecast.testing.weather import make_weather
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit


class TestFeed:
    data = torch.arange(60.0).view(30, 2, 1, 1)

    def feed(self, **options):
        starts = window_starts(np.arange(30).astype("datetime64[h]"), TASK.step, 7)
        task = Task(["a", "b"], input_steps=4, target_steps=3)
        return ResidentFeed(self.data, starts, task, 5, **options)

    def test_every_window_once_an_epoch_in_an_order_of_seed_and_epoch(self):
        feed, again = self.feed(seed=7), self.feed(seed=7)
        assert feed.steps_per_epoch == 5  # 24 windows, the last batch has 4
        epochs = []
        for epoch in range(2):
            batches = [feed.batch(epoch * 5 + i)[0] for i in range(5)]
            assert [len(b) for b in batches] == [5, 5, 5, 5, 4]
            epochs.append(torch.cat(batches)[:, 0, 0, 0, 0] / 2)
            assert sorted(epochs[-1].tolist()) == list(range(24))
        assert not torch.equal(*epochs)
        torch.testing.assert_close(again.batch(8)[0], feed.batch(8)[0])  # without the steps before
        assert not torch.equal(self.feed(seed=8).batch(0)[0], feed.batch(0)[0])

    def test_windows(self):
        x, y = self.feed(shuffle=False).batch(1)
        assert x.shape == (5, 4, 2, 1, 1)
        assert x[0, :, 0].flatten().tolist() == [10, 12, 14, 16]
        assert y[0, :, 1].flatten().tolist() == [19, 21, 23]

    def test_targets_choose_channels(self):
        task = Task(["a"], input_steps=4, target_steps=3, targets=["b"])
        x, y = ResidentFeed(self.data, np.array([3]), task, 1, shuffle=False).batch(0)
        assert x.flatten().tolist() == [6, 8, 10, 12]
        assert y.flatten().tolist() == [15, 17, 19]


def test_validation_in_other_units_is_refused(weather, valid):
    task = Task("gust", 4, 3)
    train, test = (ds.rename({"2m_temperature": "gust"}) for ds in (weather, valid))
    train["gust"].attrs, test["gust"].attrs = {"units": "m s-1"}, {"units": "m/s"}
    config = replace(CONFIG, steps=1)
    fit(train, task, model=tiny, config=config, validation=test)
    test["gust"].attrs["units"] = "km/h"
    with pytest.raises(InputError, match=r"'km/h' in the validation data.* trained on 'm s-1'"):
        fit(train, task, model=tiny, config=config, validation=test)


def test_learns_a_wave(weather, valid):
    """A travelling wave is forecast far better than by persistence after a minute's training."""
    smooth = make_weather(200, shape=(6, 10), noise=0.02)
    test = make_weather(60, time="2003-01-01", shape=(6, 10), noise=0.02, seed=5)
    config = TrainConfig(
        steps=150, batch_size=8, learning_rate=5e-3, validate_every=75, precision="fp32"
    )
    forecaster = fit(smooth, TASK, model=tiny, config=config, validation=valid)
    init_time = initialisations(test, TASK)
    scores = [
        evaluate(m.predict(test, init_time=init_time), test)["2m_temperature_overall"].sel(
            metric="rmse"
        )
        for m in (forecaster, Persistence(TASK))
    ]
    assert float(scores[0]) < 0.4 * float(scores[1])


def test_statistics_come_from_the_training_period(weather, valid):
    forecaster = fit(
        weather, TASK, model=tiny, config=replace(CONFIG, steps=1), validation=valid + 40
    )
    x = weather["2m_temperature"].values.astype(float)
    assert float(forecaster.normalizer.mean) == pytest.approx(x.mean(), rel=1e-6)
    assert float(forecaster.normalizer.std) == pytest.approx(x.std(), rel=1e-6)
    change = np.sqrt([np.mean((x[3 + k : 96 - 3 + k] - x[3:-3]) ** 2) for k in (1, 2, 3)])
    ours = forecaster.network.tendency_std[:, 0] * forecaster.normalizer.std
    np.testing.assert_allclose(ours, change, rtol=0.05)


def test_same_seed_same_weights(weather):
    runs = [
        fit(weather, TASK, model=tiny, config=replace(CONFIG, seed=seed)).network.state_dict()
        for seed in (1, 1, 2)
    ]
    name = "readout.weight"
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])
    assert not torch.equal(runs[0][name], runs[2][name])


def test_the_global_random_state_is_left_alone(weather):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(weather, TASK, model=tiny, config=replace(CONFIG, steps=1))
    assert torch.equal(before, torch.get_rng_state())


def test_area_weights_and_balance_change_the_loss_as_stated(weather):
    """One step without learning: the recorded loss is the weighted mean square of the errors."""

    def certain():
        network = tiny()
        for block in network.translator:
            block.drop_path = 0.0
        return network

    events = {}
    for area in (False, True):
        for balance in (False, True):
            config = replace(CONFIG, steps=1, area_weighted=area, balance_leads=balance, seed=3)
            seen = []
            fit(weather, TASK, model=certain, config=config, progress=seen.append)
            events[area, balance] = seen[-1]["loss"]
    fresh = []
    config = replace(CONFIG, steps=1, learning_rate=1e-30, seed=3)
    forecaster = fit(weather, TASK, model=certain, config=config, progress=fresh.append)
    data = torch.from_numpy(weather["2m_temperature"].values)[:, None]
    starts = window_starts(weather["time"].values, TASK.step, 7)
    x, y = ResidentFeed(data, starts, TASK, 4, seed=3).batch(0)
    norm = forecaster.normalizer
    forecaster.network.train()
    error = (forecaster.network(norm(x)) - norm(y)).detach().double() ** 2
    rows = torch.from_numpy(np.asarray(area_weights(weather["latitude"].values)))[:, None]
    change = forecaster.network.tendency_std.double()[..., None, None]
    lead = (1 / change) * (change**2).sum() / change.sum()
    assert events[False, False] == pytest.approx(float(error.mean()), rel=1e-4)
    assert events[True, False] == pytest.approx(float((error * rows).mean()), rel=1e-4)
    assert events[False, True] == pytest.approx(float((error * lead).mean()), rel=1e-4)
    assert events[True, True] == pytest.approx(float((error * lead * rows).mean()), rel=1e-4)


def test_best_validation_weights_are_returned(weather, valid, tmp_path):
    events = []
    config = replace(CONFIG, steps=8, learning_rate=0.5)  # too high: it gets worse on the way
    forecaster = fit(
        weather,
        TASK,
        model=tiny,
        config=config,
        validation=valid,
        run_dir=tmp_path,
        progress=events.append,
    )
    scores = {e["step"]: e["val_rmse"] for e in events if "val_rmse" in e}
    assert list(scores) == [2, 4, 6, 8]
    best = min(scores, key=scores.get)
    assert forecaster.training["validation"]["step"] == best
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [h["val_rmse"] for h in history] == list(scores.values())
    time = valid["time"].values
    windows = window_starts(time, TASK.step, 7)
    init = time[windows[np.linspace(0, len(windows) - 1, 8).astype(int)] + 3]
    again = evaluate(forecaster.predict(valid, init_time=init), valid)
    assert float(again["2m_temperature_overall"].sel(metric="rmse")) == pytest.approx(
        scores[best], rel=1e-4
    )


def test_a_loss_that_is_not_finite_stops_with_a_named_error(weather, tmp_path):
    class Blows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x[:, -3:] * self.weight * (float("nan") if self.calls > 3 else 1)

    with pytest.raises(DivergenceError, match=r"the loss is nan at step 4.*lower learning_rate"):
        fit(weather, TASK, model=Blows(), config=CONFIG, run_dir=tmp_path)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000002"]


def test_warm_start(weather, valid, tmp_path, caplog):
    """What fits is carried over, from another grid and with other steps; the rest is named."""
    config = replace(CONFIG, steps=1, learning_rate=1e-30)
    first = fit(weather, TASK, model=tiny, config=replace(CONFIG, learning_rate=5e-3))
    bundle = first.save(tmp_path / "model")
    other = make_weather(40, shape=(8, 14))
    task = Task("t2m", input_steps=4, target_steps=2)
    sizes = tiny().settings | {"target_steps": 2, "mlp_ratio": 4.0}
    caplog.set_level("INFO")
    for init in (bundle, first):
        second = fit(other, task, model=lambda: SimVPv2(**sizes), config=config, warm_start=init)
        told = second.training["warm_start"]
        mine, theirs = second.network.state_dict(), first.network.state_dict()
        left = set(told["left"])
        assert left == {k for k in mine if mine[k].shape != theirs[k].shape} - {"tendency_std"}
        assert any("expand" in k for k in left)
        assert all(" there, (" in why for why in told["left"].values())
        for k in set(mine) - left - {"tendency_std"}:
            if "running" not in k and "tracked" not in k:
                torch.testing.assert_close(mine[k], theirs[k])
        assert told["carried"] == len(set(mine) - left - {"tendency_std"})
        assert 0.3 < told["share"] < 1
    assert "carried over from" in caplog.text
    same = fit(
        weather, TASK, model=tiny, config=config, warm_start=bundle, run_dir=tmp_path / "run"
    )
    assert same.training["warm_start"]["left"] == {}
    with pytest.raises(InputError, match=r"warm_start differ"):
        fit(weather, TASK, model=tiny, config=config, run_dir=tmp_path / "run")
    with pytest.raises(InputError, match=r"none of its .* tensors has the name and shape"):
        fit(weather, TASK, model=Linear, config=config, warm_start=bundle)
    with pytest.raises(InputError, match="no bundle at"):
        fit(weather, TASK, model=tiny, config=config, warm_start=tmp_path / "nothing")


def test_what_a_warm_start_was_trained_on_is_no_judge_either(weather, tmp_path):
    """However often a network is trained on, all that it has seen stays with it."""
    early, late = weather.isel(time=slice(None, 20)), weather.isel(time=slice(20, None))
    first = fit(early, TASK, model=tiny, config=CONFIG)
    bundle = first.save(tmp_path / "model")
    seen = first.training["training_period"]
    for init in (first, bundle):
        second = fit(late, TASK, model=tiny, config=CONFIG, warm_start=init)
        both = second.training["training_period"]
        assert both == f"{write_period(late.time.values)};{seen}"
        with pytest.raises(InputError, match="validation period lie in the training period"):
            fit(late, TASK, model=tiny, config=CONFIG, warm_start=init, validation=early)
    assert second.predict(late).attrs["training_period"] == both
    again = fit(early, TASK, model=tiny, config=CONFIG, warm_start=first)
    assert again.training["training_period"] == seen


def test_a_float64_network_computes_in_float64(weather, valid):
    forecaster = fit(weather, TASK, model=lambda: tiny().double(), config=CONFIG, validation=valid)
    assert weights(forecaster).dtype == torch.float64
    assert forecaster.predict(valid)["2m_temperature"].dtype == np.float32


def test_the_run_tells_what_happens(weather, valid, tmp_path):
    """A line a validation, with speed and waiting; the same when it was stopped in between."""
    from stforecast.training.log import read_log

    options = {"model": tiny, "config": replace(CONFIG, clip_norm=1.0), "validation": valid}
    fit(weather, TASK, run_dir=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        fit(weather, TASK, run_dir=tmp_path / "run", progress=stop_at(2), **options)
    fit(weather, TASK, run_dir=tmp_path / "run", **options)
    logs = [read_log(tmp_path / name) for name in ("whole", "run")]
    assert [line["step"] for line in logs[0]] == [2, 4, 6]
    for line, other in zip(*logs, strict=True):
        assert 0 < line["waiting"] < 1
        assert line["samples_per_s"] > 0
        assert line["samples"] == 4 * line["step"]
        times = {"seconds", "samples_per_s", "waiting"}
        assert line.keys() >= times | {"loss", "learning_rate", "val_rmse", "grad_norm"}
        assert {k: v for k, v in line.items() if k not in times} == {
            k: v for k, v in other.items() if k not in times
        }
    about = json.loads((tmp_path / "run/about.json").read_text())
    assert about["task"]["input_steps"] == 4
    assert len(about["fingerprint"]) == 16
    assert [call["from_step"] for call in about["calls"]] == [0, 3]


def test_a_bar_is_shown_where_somebody_looks(weather, capfd, monkeypatch):
    """In a terminal or in Jupyter; on the standard error, as the standard output is for results."""
    kernelapp = pytest.importorskip("ipykernel.kernelapp")  # to import it is not to be in it
    fit(weather, TASK, model=tiny, config=replace(CONFIG, steps=2))
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(kernelapp.IPKernelApp, "initialized", lambda: True)
    fit(weather, TASK, model=tiny, config=replace(CONFIG, steps=2))
    out, err = capfd.readouterr()
    assert not out
    assert "training" in err
    assert "2/2" in err


def test_a_network_that_shares_weights_is_kept_and_saved(weather, tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(1, 1, 3, padding=1)
            self.second = self.first

        def forward(self, x):
            y = self.second(torch.tanh(self.first(x[:, -1])))
            return x[:, -3:] + y[:, None]

    options = {"config": CONFIG, "run_dir": tmp_path / "run"}
    forecaster = fit(weather, TASK, model=Tied, **options)
    again = load(forecaster.save(tmp_path / "model"), network=Tied())
    for name, tensor in forecaster.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name])
    resumed = fit(weather, TASK, model=Tied, **options)
    assert torch.equal(resumed.network.first.weight, forecaster.network.first.weight)


def test_the_named_model_is_the_papers():
    weather = make_weather(30, shape=(4, 8))
    forecaster = fit(weather, Task("t2m"), config=replace(CONFIG, steps=1, batch_size=1))
    assert sum(p.numel() for p in forecaster.network.parameters()) == 12_758_305


def test_a_grid_without_latitude():
    """Flows on city cells: y and x stay what they are, and weights are uniform."""
    rng = np.random.default_rng(0)
    day = np.sin(np.arange(120) * 2 * np.pi / 48)[:, None, None]
    flows = {
        name: (("time", "y", "x"), (20 + 10 * day + rng.normal(size=(120, 5, 7))).astype("f4"))
        for name in ("inflow", "outflow")
    }
    time = np.datetime64("2016-01-01") + np.arange(120) * np.timedelta64(30, "m")
    ds = xr.Dataset(flows, {"time": time})
    task = Task(["inflow", "outflow"], input_steps=4, target_steps=3, timestep="30min")
    network = SimVPv2(4, 3, 2, encoder_channels=4, translator_channels=12, translator_blocks=2)
    forecaster = fit(ds, task, model=network, config=CONFIG)
    assert forecaster.grid == {"y": 5, "x": 7}
    forecast = forecaster.predict(ds, init_time=slice("2016-01-02", "2016-01-02T12"))
    assert forecast["inflow"].dims == ("time", "prediction_timedelta", "y", "x")
    scores = evaluate(forecast, ds)
    assert scores.attrs["weights"] == "uniform"
    assert np.isfinite(scores["outflow_overall"]).all()


def test_any_kind_of_convolution_trains():
    network = torch.nn.Conv3d(4, 4, 3, padding=1)  # its weights have five dimensions
    ds = make_weather(steps=20, shape=(4, 8))
    task = Task("t2m", input_steps=4, target_steps=4)
    forecaster = fit(ds, task, model=network, config=TrainConfig(steps=2, batch_size=2))
    assert forecaster.predict(ds)["2m_temperature"].notnull().all()
