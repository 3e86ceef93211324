"""Training: the feed's order, the schedules, the loss, resuming, stopping, and that it learns."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import SHARED, Linear, tiny

from stforecast.baselines.climatology import Climatology
from stforecast.baselines.persistence import Persistence
from stforecast.conventions.grid import area_weights
from stforecast.errors import DivergenceError, InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.forecaster import load
from stforecast.forecasting.predict import predict
from stforecast.loading.feeds import ResidentFeed, open_feed
from stforecast.loading.statistics import statistics
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task, initialisations, window_starts
from stforecast.testing.weather import make_weather
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit
from stforecast.training.objective import Objective
from stforecast.training.optimizers import Optimizer
from stforecast.training.schedule import schedule

TASK = Task("t2m", input_steps=4, target_steps=3)
CONFIG = TrainConfig(
    steps=6, batch_size=4, validate_every=2, val_windows=8, precision="fp32", device="cpu"
)


@pytest.fixture(scope="module")
def weather():
    return make_weather(96, shape=(6, 10))


@pytest.fixture(scope="module")
def valid():
    return make_weather(48, time="2002-01-01", shape=(6, 10), seed=1)


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


def ocean(ds, *, name="2m_temperature"):
    """Land of NaN over a third of the grid, and the oceans between."""
    land = (ds["longitude"] > 100) & (ds["longitude"] < 220)
    return ds.assign({name: ds[name].where(~land)}), land.values


def test_masked_points_carry_no_loss_and_no_score(weather, valid):
    """What stands on land does not matter: NaN, whatever the sea does beside it."""
    task = replace(TASK, nan="mask")
    train, land = ocean(weather)
    test, _ = ocean(valid)
    config = replace(CONFIG, steps=20, learning_rate=3e-3, val_windows=100)
    forecaster = fit(train, task, model=tiny, config=config, validation=test)
    sea = train["2m_temperature"].values[..., ~land].astype(float)
    assert float(forecaster.normalizer.mean) == pytest.approx(sea.mean(), rel=1e-6)
    assert float(forecaster.normalizer.std) == pytest.approx(sea.std(), rel=1e-5)

    times = initialisations(test, task)
    forecast = forecaster.predict(test, init_time=times, steps=5)  # past what it was trained for
    found = np.isnan(forecast["2m_temperature"].values)
    assert (found == np.broadcast_to(land, found.shape)).all()
    once = forecast.isel(time=[0], prediction_timedelta=slice(0, 3))
    latest = once["2m_temperature"][0].drop_vars("time")
    latest = latest.rename(prediction_timedelta="time").assign_coords(
        time=once["valid_time"].values[0]
    )
    history = xr.concat(
        [test.sel(time=times[:1])["2m_temperature"], latest.drop_vars("valid_time")], "time"
    )
    again = forecaster.predict(history.to_dataset(name="2m_temperature"), steps=2)
    ours = forecast["2m_temperature"].values[0, 3:]
    np.testing.assert_allclose(ours, again["2m_temperature"].values[0], rtol=1e-6)

    forecast = forecaster.predict(test, init_time=times)
    scores = evaluate(forecast, test, nan="mask")["2m_temperature_overall"]
    rmse = float(scores.sel(metric="rmse"))
    assert rmse == pytest.approx(forecaster.training["validation"]["val_rmse"], rel=1e-4)
    truth = test["2m_temperature"].sel(time=forecast["valid_time"]).values
    error = (forecast["2m_temperature"].values - truth).astype(float)[..., ~land]
    rows = np.asarray(area_weights(test["latitude"].values))[:, None]
    assert rmse == pytest.approx(np.sqrt((error**2 * rows).mean()), rel=1e-5)
    persistence = Persistence(task).predict(test, init_time=times)
    assert np.isfinite(evaluate(persistence, test, nan="mask")["2m_temperature_overall"]).all()


def test_the_masked_loss_and_its_gradient():
    prediction = torch.tensor([[1.0, 2.0], [4.0, 8.0]], requires_grad=True)
    y = torch.tensor([[0.0, np.nan], [2.0, np.nan]])
    weights = torch.tensor([3.0, 5.0])
    masked = Objective(torch.nn.Identity(), weights=weights, masked=True)
    total, points = masked(prediction, y, 0)
    assert points == masked.points(y, 2) == 2
    loss = total / points
    assert loss.item() == (3 * 1 + 3 * 4) / 2
    loss.backward()
    assert prediction.grad.tolist() == [[3.0, 0.0], [6.0, 0.0]]
    plain = Objective(torch.nn.Identity(), weights=weights)
    assert torch.isnan(plain(prediction, y, 0)[0])
    assert plain(prediction, y, 0)[1] == 4
    assert plain.points(y, 3) == 3 * 2
    nothing = y * np.nan
    assert masked.points(nothing, 2) == 1
    assert masked(prediction, nothing, 0)[0].item() == 0


def test_values_that_are_missing_at_times_only(weather):
    """Ice comes and goes: the forecast is NaN where the last input step is, and nowhere else."""
    task = replace(TASK, nan="mask")
    ds = weather.copy(deep=True)
    ds["2m_temperature"][20:40, :2] = np.nan

    class Warm:
        def __init__(self, task):
            self.task = task

        def forecast(self, inputs, init_time, steps, *, latitude, longitude):
            return np.full((len(inputs), steps, 1, *inputs.shape[-2:]), 300.0)

    for model in (fit(ds, task, model=tiny, config=CONFIG), Warm(task)):
        forecast = predict(ds, model, init_time=ds["time"].values[[19, 22, 39, 40]])
        gone = np.isnan(forecast["2m_temperature"].values).any(axis=(1, 3))
        assert gone[:, 0].tolist() == [False, True, True, False]
        assert not gone[:, 2:].any()


def test_inputs_that_need_no_target(weather, valid, tmp_path):
    """A land-sea mask, which never changes, and the sun, which does, beside the temperature."""

    def with_inputs(ds):
        hours = np.arange(ds.sizes["time"]) % 24
        sun = np.maximum(np.cos(2 * np.pi * (hours - 12) / 24), 0)[:, None, None]
        like = ds["2m_temperature"]
        return ds.assign(
            land_sea_mask=xr.zeros_like(like)
            .where(ds["latitude"] > 0, 1.0)
            .assign_attrs(units="1"),
            sun=(xr.zeros_like(like) + sun.astype("f4")).assign_attrs(units="1"),
        )

    task = Task(["t2m", "lsm", "sun"], 4, 3, targets="t2m")
    sizes = {"encoder_channels": 4, "translator_channels": 12, "translator_blocks": 2}
    network = SimVPv2(4, 3, 3, out_channels=1, predict_change=True, **sizes)
    train, test = with_inputs(weather), with_inputs(valid)
    forecaster = fit(train, task, model=network, config=CONFIG, validation=test)
    forecaster = load(forecaster.save(tmp_path / "model"))
    times = initialisations(test, task)
    forecast = forecaster.predict(test, init_time=times)
    assert list(forecast) == ["2m_temperature"]
    for model in (forecaster, Persistence(task)):
        scores = evaluate(model.predict(test, init_time=times), test)
        assert np.isfinite(scores["2m_temperature_overall"]).all()
    with pytest.raises(InputError, match="its own forecast of every input"):
        forecaster.predict(test, steps=4)
    wrong = Task(["lsm", "t2m", "sun"], 4, 3, targets="t2m")
    words = r"first inputs.*use Task\(\['2m_temperature', 'land_sea_mask', 'sun'\], targets="
    with pytest.raises(InputError, match=words):
        fit(train, wrong, model=network, config=CONFIG)


@pytest.mark.parametrize("real", [True, False], ids=["ERSST v5", "its synthetic twin"])
def test_monthly_sea_surface_temperature(real):
    """Land is NaN, months differ in length: fit, predict, score, against both baselines."""
    if real and not (SHARED / "data/ersst_v5").exists():
        pytest.skip("no ../shared/data/ersst_v5")
    if real:
        ds = xr.open_dataset(SHARED / "data/ersst_v5/sst.mnmean.nc")[["sst"]].load()
        ds = ds.isel(lat=slice(None, None, 4), lon=slice(None, None, 4))
    else:
        wave, _ = ocean(make_weather(128, shape=(6, 10)))
        months = np.arange("2010-01", "2020-09", dtype="M8[M]").astype("M8[ns]")
        ds = wave.rename({"2m_temperature": "sst"}).assign_coords(time=months)
    task = Task("sst", 4, 3, timestep="30D", nan="mask")
    options = {"model": lambda: tiny(), "config": replace(CONFIG, steps=10)}
    for call in (lambda: fit(ds, task, **options), lambda: Persistence(task).predict(ds)):
        with pytest.raises(InputError, match=r"data are monthly.*360_day"):
            call()
    ds = ds.convert_calendar("360_day", align_on="date", use_cftime=True)
    with pytest.raises(InputError, match=r"hold NaN.*nan='mask'"):
        fit(ds, replace(task, nan="refuse"), **options)
    train, test = ds.isel(time=slice(0, 96)), ds.isel(time=slice(96, None))
    forecaster = fit(train, task, validation=test, **options)
    baselines = [Persistence(task), Climatology.fit(train, task)]
    times = initialisations(test, task)
    masked = np.isnan(test["sst"].values[0])
    for model in (forecaster, *baselines):
        forecast = model.predict(test, init_time=times)
        values = forecast["sst"].transpose("time", "prediction_timedelta", ...).values
        assert (np.isnan(values) == masked).all()
        scores = evaluate(forecast, test, nan="mask")
        name = next(v for v in scores.data_vars if str(v).endswith("_overall"))
        assert 0 < float(scores[name].sel(metric="rmse")) < 20
    first = forecast["valid_time"].values[0, -1]  # three months after April 2018
    assert (first.year, first.month, first.day) == (2018, 7, 1)


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


def stop_at(step):
    def progress(event):
        if event["step"] == step:
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_stopped_and_resumed_gives_the_same_weights(weather, valid, tmp_path, step):
    options = {"model": lambda: SimVPv2(**(tiny().settings | {"drop_path": 0.3})), "config": CONFIG}
    whole = fit(weather, TASK, validation=valid, **options)
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step + 1} of 6"):
        fit(weather, TASK, validation=valid, run_dir=tmp_path, progress=stop_at(step), **options)
    seen = []
    again = fit(weather, TASK, validation=valid, run_dir=tmp_path, progress=seen.append, **options)
    assert seen[0]["step"] == step + 2
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


def test_a_damaged_checkpoint_falls_back_to_the_one_before(weather, tmp_path, caplog):
    whole = fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path)
    last = sorted(tmp_path.glob("checkpoint-*"))[-1]
    state = last / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    seen = []
    again = fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path, progress=seen.append)
    assert "damaged" in caplog.text
    assert [e["step"] for e in seen] == [5, 6]
    name = "readout.weight"
    assert torch.equal(whole.network.state_dict()[name], again.network.state_dict()[name])


def test_another_run_in_the_directory_is_refused(weather, tmp_path):
    fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path)
    other = replace(CONFIG, learning_rate=0.1)
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(InputError, match=r"a run with other settings \(config differ\)"):
        fit(weather, TASK, model=tiny, config=other, run_dir=tmp_path)
    assert (tmp_path / "run.json").read_text() == before


def test_starting_anew_leaves_nothing_of_the_old_run(weather, tmp_path):
    fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path)
    shorter = {"model": tiny, "config": replace(CONFIG, steps=2), "run_dir": tmp_path}
    fit(weather, TASK, resume="never", **shorter)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000002"]
    seen = []
    fit(weather, TASK, progress=seen.append, **shorter)  # the new run is what is gone on with
    assert seen == []


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


def weights(forecaster):
    return torch.cat([v.flatten() for v in forecaster.network.state_dict().values()])


@pytest.mark.parametrize("parts", [2, 3, 100], ids=lambda n: f"{n} passes")
def test_accumulation_changes_nothing(weather, valid, parts):
    """With steps of 7 windows and a last one of 6, cut in unequal parts, or single ones."""
    config = replace(CONFIG, steps=None, epochs=1, batch_size=7, val_windows=5)
    sea, other = ocean(weather)[0], ocean(valid)[0]  # whose parts have other numbers of points
    for task, train, test in ((TASK, weather, valid), (replace(TASK, nan="mask"), sea, other)):
        events, runs = [], []
        for accumulate in (1, parts):
            events.append([])
            runs.append(
                fit(
                    train, task, model=lambda: Linear().double(), validation=test,
                    config=replace(config, accumulate=accumulate), progress=events[-1].append,
                )
            )  # fmt: skip
        whole, cut = ([e["loss"] for e in run if "loss" in e] for run in events)
        np.testing.assert_allclose(whole, cut, rtol=1e-12)
        np.testing.assert_allclose(*map(weights, runs), rtol=1e-9, atol=1e-9)


def test_clipping(weather, monkeypatch):
    """Adam's first moment after one step is a tenth of the gradient: its norm is what was said."""
    norms = []
    step = torch.optim.Adam.step

    def look(self, *args):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    for clip in (None, 1e-3, 1e3):
        fit(weather, TASK, model=Linear, config=replace(CONFIG, steps=1, clip_norm=clip))
    assert norms[0] > 1e-3
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)
    assert norms[2] == norms[0]


def test_the_average_is_what_is_validated_kept_and_returned(weather, valid, monkeypatch):
    """By its definition, from the weights after each step."""
    seen = []
    step = torch.optim.Adam.step

    def look(self, *args):
        result = step(self, *args)
        seen.append([p.detach().clone() for group in self.param_groups for p in group["params"]])
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    events = []
    config = replace(CONFIG, ema=0.3, learning_rate=1e-2, validate_every=6)
    options = {"config": config, "validation": valid, "progress": events.append}
    forecaster = fit(weather, TASK, model=Linear, **options)
    torch.manual_seed(config.seed)
    average = [p.detach().clone() for p in Linear().parameters()]
    for number, weights in enumerate(seen):
        decay = min(0.3, (1 + number) / (10 + number))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    ours = list(forecaster.network.parameters())
    for a, w, last in zip(average, ours, seen[-1], strict=True):
        torch.testing.assert_close(a, w)
        assert not torch.allclose(w, last)
    scores = {e["step"]: e["val_rmse"] for e in events if "val_rmse" in e}
    plain = fit(weather, TASK, model=Linear, **options | {"config": replace(config, ema=None)})
    assert plain.training["validation"]["val_rmse"] != scores[6]
    without = fit(weather, TASK, model=Linear, config=config)  # no validation: the average still
    assert all(map(torch.equal, without.network.parameters(), ours))


def test_patience(weather, valid, tmp_path):
    """It ends when nothing got better for so long; called again, it has ended; more, it goes on."""
    config = replace(CONFIG, steps=40, learning_rate=0.5, patience=1)  # far too high
    events = []
    options = {"model": tiny, "validation": valid, "run_dir": tmp_path, "progress": events.append}
    ended = fit(weather, TASK, config=config, **options)
    scores = [e["val_score"] for e in events if "val_score" in e]
    best = int(np.argmin(scores))
    assert len(scores) == best + 2
    step = 2 * len(scores)
    assert step < 40
    assert ended.training["stopped"] == {"why": "patience", "step": step, "steps": 40}
    again = fit(weather, TASK, config=config, **options)
    assert again.training["stopped"] == ended.training["stopped"]
    assert torch.equal(weights(again), weights(ended))
    assert events[-1]["step"] == step
    fit(weather, TASK, config=replace(config, patience=None), **options)
    assert events[-1]["step"] == 40
    with pytest.raises(InputError, match="patience=1 needs a validation period"):
        fit(weather, TASK, model=tiny, config=config)


def test_minutes(weather, valid, tmp_path):
    """A budget ends the call with a checkpoint; calls of one step each give the same weights."""
    whole = fit(weather, TASK, model=tiny, config=CONFIG, validation=valid)
    short, steps = replace(CONFIG, minutes=1e-9), []
    for _ in range(6):
        part = fit(weather, TASK, model=tiny, config=short, validation=valid, run_dir=tmp_path)
        steps.append(part.training.get("stopped", {}).get("step"))
    assert steps == [1, 2, 3, 4, 5, None]
    assert torch.equal(weights(part), weights(whole))


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
