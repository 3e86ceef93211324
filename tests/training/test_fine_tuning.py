"""Fine-tuning on the fair CRPS: members that are as far apart as they are wrong."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers import Linear, tiny
from torch import nn

import stforecast
from stforecast.conventions.grid import area_weights
from stforecast.errors import InputError
from stforecast.forecasting import ensemble as members
from stforecast.models.members import Perturbation, Streams
from stforecast.task import Task, initialisations
from stforecast.testing.weather import make_weather
from stforecast.training import EnsembleConfig, TrainConfig, fit
from stforecast.training.calibration import calibrate
from stforecast.training.objective import Objective

TASK = Task("t2m", input_steps=4, target_steps=3)
CONFIG = TrainConfig(
    steps=4, batch_size=8, validate_every=2, val_windows=8, ema=0.9, precision="fp32", device="cpu"
)
HOW = EnsembleConfig(
    members=2, steps=4, noise=2, noise_steps=0, learning_rate=1e-3, calibrate=False
)


@pytest.fixture(autouse=True, scope="module")
def without_curves():
    """Neither TensorBoard's files nor pictures, here: they take longer than such a run."""
    from stforecast.training import log

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_tensorboard", lambda *args: None)
        patch.setattr(log.util, "find_spec", lambda name: None)
        yield


class Spread(nn.Module):
    """The mean of all, and noise of a size that each column learns."""

    takes_noise = True

    def __init__(self, steps=2, columns=2):
        super().__init__()
        self.middle = nn.Parameter(torch.zeros(steps, 1, 1, columns))
        self.size = nn.Parameter(torch.full((steps, 1, 1, columns), 0.3))
        self.noise = 1.0

    def noise_shape(self, height, width):
        return len(self.middle), 1, height, width

    def forward(self, x, noise=None):
        z = 0.0 if noise is None else noise
        return (self.middle + self.size * z).expand(len(x), -1, -1, *x.shape[-2:])


class Thinned(Spread):
    """The same by dropout of many small parts."""

    takes_noise = False

    def forward(self, x):
        ones = x.new_ones(len(x), *self.middle.shape[:-1], x.shape[-1], 64)
        dropped = nn.functional.dropout(ones, 0.5, self.training).mean(-1)
        return (self.middle + 8 * self.size * (dropped - 1)).expand(-1, -1, -1, x.shape[-2], -1)


def rolls(n, seed):
    """White noise, three times as large in the second column: nothing but its spread is known."""
    values = np.random.default_rng(seed).normal(size=(n, 3, 2)) * [1, 3] + 20
    time = pd.date_range(f"20{seed:02d}-01-01", periods=n, freq="1h")
    return xr.Dataset({"count": (("time", "y", "x"), values.astype(np.float32))}, {"time": time})


@pytest.mark.parametrize(("model", "draws"), [(Spread, "noise"), (Thinned, "dropout")])
def test_spread_equals_skill_where_the_noise_is_known(model, draws):
    """And the members' ranks are uniform; before the training they are not."""
    task = Task("count", 2, 2)
    config = TrainConfig(
        steps=10, batch_size=64, learning_rate=0.01, val_windows=64, precision="fp32", device="cpu"
    )
    how = EnsembleConfig(draws=draws, members=4, steps=120, learning_rate=0.05)
    train, test = rolls(600, 1), rolls(300, 2)
    forecaster = fit(train, task, model=model(), config=config, validation=test, ensemble=how)
    assert forecaster.draws == draws
    fc = forecaster.predict(test, init_time=initialisations(test, task), ensemble=10, seed=3)
    truth = test["count"].sel(time=fc["valid_time"])
    error = members.mean(fc)["count"] - truth
    over = ("time", "y")
    ratio = (members.spread(fc)["count"] ** 2).mean(over) ** 0.5 * 1.1**0.5
    ratio = ratio / (error**2).mean(over) ** 0.5
    np.testing.assert_allclose(ratio, 1, atol=0.12)
    below = (fc["count"] < truth).sum("realization").values.ravel()
    counts = np.bincount(below, minlength=11) / below.size
    np.testing.assert_allclose(counts * 11, 1, atol=0.35)
    told = forecaster.training["validation"]
    assert told["val_score"] == pytest.approx(told["val_crps"] / 2.24, rel=0.05)
    assert told["val_spread_to_skill"] == pytest.approx(1, abs=0.1)
    assert told["val_crps"] == pytest.approx(2 / np.pi**0.5, rel=0.05)  # (1 + 3) / 2 of them


class Shifted(nn.Module):
    """The mean of all, and noise of a given size at each lead time."""

    takes_noise = True

    def __init__(self, sizes):
        super().__init__()
        self.perturb = Perturbation(1, len(sizes))
        with torch.no_grad():
            self.perturb.project.weight[len(sizes) :] = torch.tensor(sizes)[:, None, None, None]

    def noise_shape(self, height, width):
        return 1, height, width

    def forward(self, x, noise=None):
        y = x.new_zeros(len(x), len(self.perturb.project.weight) // 2, *x.shape[-2:])
        return (y if noise is None else self.perturb(y, noise)).unsqueeze(2)


@pytest.mark.parametrize("masked", ["", "nan", "where"])
@pytest.mark.parametrize(("sizes", "factor"), [((0.8, 1.25), 1), ((0.5, 1.2), 0.6**-0.5)])
def test_noise_is_scaled_until_spread_equals_skill(sizes, factor, masked):
    """Too small at one lead time as it is too large at the other."""
    truth = (rolls(600, 1) - 20) / xr.DataArray([1, 3], dims="x")  # errors of 1
    if masked:
        truth = truth.where(
            xr.DataArray([True, False], dims="x"), np.nan if masked == "nan" else 99
        )
    task = Task("count", 2, 2, nan="mask" if masked == "nan" else "refuse")
    forecaster = stforecast.Forecaster(Shifted(sizes), task, draws="noise")
    where = (lambda y: y.lt(99)) if masked == "where" else None  # of tensors, as in training
    told = calibrate(forecaster, truth, seed=1, where=where)
    assert told == forecaster.training["calibration"]
    assert told["noise_scaled"] == pytest.approx(factor, rel=0.05)
    found = forecaster.network.perturb.project.weight[2:].squeeze()
    torch.testing.assert_close(found, torch.tensor(sizes) * told["noise_scaled"])
    assert told["least"] * told["most"] == pytest.approx(1, abs=0.05)
    assert told["most"] / told["least"] == pytest.approx(sizes[1] / sizes[0], rel=0.1)


@pytest.mark.parametrize("size", [0.0, 0.3, 4.0])
def test_noise_that_is_far_from_right_is_told(size, caplog):
    """Scaling is no teaching."""
    truth = rolls(100, 1).isel(x=[0]) - 20
    forecaster = stforecast.Forecaster(Shifted((size, size)), Task("count", 2, 2), draws="noise")
    told = calibrate(forecaster, truth)
    assert "which scaling cannot mend" in caplog.text
    assert told["noise_scaled"] == pytest.approx({0.0: 1, 0.3: 1.5, 4.0: 1 / 1.5}[size])


def test_fit_scales_noise_on_the_validation_period(data, tmp_path):
    how = replace(HOW, noise_steps=4, calibrate=True)
    raw = go(data, ensemble=replace(how, calibrate=False))
    scaled = go(data, ensemble=how, run_dir=tmp_path)
    factor = scaled.training["calibration"]["noise_scaled"]
    assert "calibration" not in raw.training
    one, other = (f.network.state_dict() for f in (raw, scaled))
    for name in one:
        expected = one[name] * (factor if name.startswith("perturb") else 1)
        torch.testing.assert_close(other[name], expected)
    assert same(go(data, ensemble=how, run_dir=tmp_path), scaled)  # from its last checkpoint
    scaled.save(tmp_path / "bundle")
    assert same(stforecast.load(tmp_path / "bundle"), scaled)
    assert stforecast.load(tmp_path / "bundle").training["calibration"]["noise_scaled"] == factor


def test_what_is_learned_outlives_a_calibration_that_fails(data, monkeypatch, caplog):
    def broken(*arguments, **options):
        raise InputError("no scores")

    monkeypatch.setattr(stforecast.evaluation, "evaluate", broken)
    found = go(data, ensemble=replace(HOW, calibrate=True))
    assert same(found, go(data))
    assert "cannot be calibrated: no scores" in caplog.text


def test_what_has_no_noise_or_no_validation_is_not_scaled(data):
    how = replace(HOW, calibrate=True)
    for options in ({"validation": None}, {"ensemble": replace(how, draws="dropout")}):
        options = {"model": lambda: tiny(dropout=0.2), "ensemble": how} | options
        assert "calibration" not in go(data, **options).training


# --- the run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return make_weather(60, shape=(6, 10)), make_weather(24, time="2002", shape=(6, 10), seed=1)


def go(data, **options):
    options = {"model": tiny, "config": CONFIG, "validation": data[1], "ensemble": HOW} | options
    return fit(data[0], TASK, **options)


@pytest.fixture(scope="module")
def trained(data):
    return fit(data[0], TASK, model=lambda: tiny(dropout=0.2), config=CONFIG)


def same(one, two):
    a, b = (f.network.state_dict() for f in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("draws", ["noise", "dropout"])
@pytest.mark.parametrize("stopped_at", [2, 6])
def test_a_stopped_run_goes_on_to_the_bit(data, tmp_path, draws, stopped_at):
    """Whether it was stopped before the fine-tuning or in it."""
    how, seen = replace(HOW, draws=draws), []
    options = {"model": lambda: tiny(dropout=0.2), "ensemble": how}

    def stop(event):
        seen.append(event["step"])
        if len(seen) == stopped_at:
            signal.raise_signal(signal.SIGINT)

    whole = go(data, **options)
    with pytest.raises(KeyboardInterrupt):
        go(data, run_dir=tmp_path, progress=stop, **options)
    again = go(data, run_dir=tmp_path, **options)
    assert same(whole, again)
    assert whole.training["validation"] == again.training["validation"]
    assert (tmp_path / "ensemble" / "history.jsonl").is_file()


def test_a_trained_forecaster_or_its_bundle_is_fine_tuned(data, trained, tmp_path):
    path = trained.save(tmp_path / "bundle")
    config = replace(CONFIG, steps=None, epochs=99)  # of a training that is not done again
    one = fit(data[0], TASK, config=config, warm_start=trained, ensemble=HOW)
    two = fit(data[0], TASK, config=config, warm_start=path, ensemble=HOW)
    assert same(one, two)
    assert one.network.settings == trained.network.settings | {"noise": 2}
    assert "noise" not in trained.network.settings or not trained.network.settings["noise"]
    moved = one.network.readout.weight - trained.network.readout.weight
    assert 0 < moved.abs().max() < 0.02
    statistics = {k: v for k, v in trained.network.state_dict().items() if "running" in k}
    for key, tensor in statistics.items():  # drawn with the statistics that forecasts have
        assert torch.equal(tensor, one.network.state_dict()[key])
    told = one.training
    assert told["config"]["members"] == 2
    assert told["config"]["loss"] == "crps"
    left = told["warm_start"]["left"]
    assert left
    assert all(name.startswith("perturb.") for name in left)


def test_a_first_guess_stays_what_the_network_has_learned_to_add_to(data):
    """Fitted on other windows, as those of another seed are, it would be another."""
    model = lambda: tiny(linear_guess=True, grid=(6, 10))  # noqa: E731
    one = fit(data[0], TASK, model=model, config=CONFIG)
    config = replace(CONFIG, seed=5, batch_size=4)
    two = fit(data[0], TASK, config=config, warm_start=one, ensemble=HOW)
    for name, tensor in one.network.first_guess.state_dict().items():
        assert tensor.abs().max() > 0
        assert torch.equal(tensor, two.network.first_guess.state_dict()[name])


def test_a_bundle_carries_how_it_draws(data, trained, tmp_path):
    init = data[1]["time"].values[[5, 9]]
    for draws in ("noise", "dropout"):
        how = replace(HOW, draws=draws, learning_rate=0.02)
        one = fit(data[0], TASK, config=CONFIG, warm_start=trained, ensemble=how)
        path = one.save(tmp_path / draws)
        assert json.loads((path / "bundle.json").read_text())["draws"] == draws
        two = stforecast.load(path)
        assert two.draws == draws
        assert f"members by {draws}" in repr(two)
        a, b = (f.predict(data[1], init_time=init, ensemble=3, seed=4) for f in (one, two))
        xr.testing.assert_equal(a, b)
        assert float(a["2m_temperature"].std("realization").min()) > 0
    text = path / "bundle.json"
    text.write_text(text.read_text().replace('"draws": "dropout"', '"draws": "noise"'))
    with pytest.raises(InputError, match="without noise"):
        stforecast.load(path)


def test_the_score_is_the_fair_crps(data, trained):
    """Of the members that a forecast has, whatever the batches of the validation."""
    events = []
    found = fit(
        data[0], TASK, config=CONFIG, warm_start=trained, ensemble=HOW, validation=data[1],
        progress=events.append,
    )  # fmt: skip
    told = found.training["validation"]
    scores = [e["val_score"] for e in events if "val_score" in e]
    assert told["val_score"] == min(scores)
    init = initialisations(data[1], TASK)
    init = init[np.linspace(0, len(init) - 1, 8).astype(int)]
    fc = found.predict(data[1], init_time=init, ensemble=2)["2m_temperature"]
    truth = data[1]["2m_temperature"].sel(time=fc["valid_time"])
    pair = np.abs(fc[0] - fc[1]) / 2
    crps = np.abs(fc - truth).mean("realization") - pair
    rows = area_weights(data[1]["latitude"].values)
    weights = xr.DataArray(np.asarray(rows), dims="latitude")
    assert told["val_crps"] == pytest.approx(float(crps.weighted(weights).mean()), rel=1e-4)
    error = fc.mean("realization") - truth
    rmse = float((error**2).weighted(weights).mean()) ** 0.5
    assert told["val_rmse"] == pytest.approx(rmse, rel=1e-4)


def test_around_a_climatology_and_not_below_nothing(data):
    ds = data[0] - 290  # at times below 0
    ds["2m_temperature"].attrs |= {"units": "1"}
    ds = ds.rename({"2m_temperature": "count"})
    task = Task("count", 4, 3, reference="weekly", lower=0.0)
    times = pd.date_range("2001-01-01", periods=3 * 168, freq="1h")
    long = xr.concat([ds] * 9, "time").isel(time=slice(len(times))).assign_coords(time=times)
    how = replace(HOW, learning_rate=0.02)
    made = fit(long, task, model=tiny, config=CONFIG, ensemble=how)
    fc = made.predict(long, ensemble=4)["count"]
    assert float(fc.min()) == 0
    assert float(fc.std("realization").max()) > 0


def test_members_go_on_from_their_own_output_in_training_too(data):
    """By a schedule that has come to two applications."""
    config = replace(CONFIG, rollout=[(0, 1), (2, 2)])
    made = go(data, config=config, ensemble=replace(HOW, learning_rate=0.01))
    assert made.training["config"]["rollout"] == 2
    fc = made.predict(data[1], ensemble=3, steps=6)["2m_temperature"]
    assert float(fc.std("realization").min()) > 0
    assert made.training["validation"]["val_score"] > 0


# --- what is made small ---------------------------------------------------------------------------


def test_the_noise_follows_from_seed_step_and_rank():
    x, y = torch.randn(2, 4, 1, 6, 10), torch.randn(2, 3, 1, 6, 10)
    torch.manual_seed(0)
    network = tiny(noise=2)
    for part in network.perturb:
        nn.init.normal_(part.project.weight)

    def loss(step, **seeds):
        made = Objective(network, "crps", members=3, **seeds)
        made.train()
        assert not any(part.training for part in network.modules())
        torch.manual_seed(step)  # of no matter
        return made(x, y, step)[0].item()

    assert loss(3) == loss(3)
    assert len({loss(3), loss(4), loss(3, seed=1), loss(3, rank=1)}) == 4


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ensemble": 20}, r"'crps' or an EnsembleConfig, found 20.*predict\(ensemble=20\)"),
        ({"model": Linear}, r"Linear takes no noise.*draws='dropout'"),
        ({"config": replace(CONFIG, loss="crps", members=2)}, "leave loss='crps'"),
        ({"warm_start": "here"}, "leave out model="),
    ],
)
def test_what_cannot_be_fine_tuned_is_said(data, options, match):
    with pytest.raises(InputError, match=match):
        go(data, **options)


def test_another_task_is_refused(data, trained):
    with pytest.raises(InputError, match="of another task"):
        fit(data[0], replace(TASK, target_steps=2), warm_start=trained, ensemble="crps")


@pytest.mark.parametrize(
    "settings",
    [
        {"members": 1},
        {"steps": -1},
        {"steps": 0, "noise_steps": 0},
        {"steps": 0},
        {"noise": 1.5},
        {"noise_steps": -1},
        {"noise_steps": 3, "draws": "dropout"},
        {"noise_rate": 0},
        {"draws": "dice"},
        {"learning_rate": -1.0},
        {"dropout": 0.1},
    ],
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(InputError, match=f"EnsembleConfig.{next(iter(settings))}"):
        EnsembleConfig(**settings)


def test_members_are_for_the_crps_and_a_network_that_draws(data):
    with pytest.raises(InputError, match="members=2 are for loss='crps'"):
        TrainConfig(members=2)
    config = replace(CONFIG, loss="crps", members=2)
    with pytest.raises(InputError, match="without noise draws no members"):
        fit(data[0], TASK, model=tiny, config=config)
    never = replace(HOW, draws="dropout")
    more = go(data, model=lambda: tiny(drop_path=None), ensemble=replace(never, dropout=0.3))
    assert more.network.settings["dropout"] == 0.3
    with pytest.raises(InputError, match="drops nothing"):
        go(data, model=lambda: tiny(drop_path=None), ensemble=never)


def test_the_streams_are_the_members_of_the_forecast():
    """A guard of the test above: another stream gives another member."""
    network = Spread()
    x = torch.zeros(1, 2, 1, 3, 2)
    one, two = (Streams("noise", [seed])(network, network, x) for seed in (1, 2))
    assert not torch.equal(one, two)


def test_noise_is_learned_first_and_alone(data):
    """Without further steps the forecast that has no random numbers is what it was to the bit."""
    one = fit(data[0], TASK, model=tiny, config=CONFIG)
    how = replace(HOW, steps=0, noise_steps=4)
    many = fit(data[0], TASK, config=CONFIG, warm_start=one, ensemble=how)
    xr.testing.assert_equal(many.predict(data[1]), one.predict(data[1]))
    drawn = many.predict(data[1], ensemble=3)["2m_temperature"]
    assert float(drawn.std("realization").min()) > 0
    assert all(p.requires_grad for p in many.network.parameters())
    both = fit(data[0], TASK, config=CONFIG, warm_start=one, ensemble=replace(how, steps=8))
    later = replace(HOW, steps=8)
    assert same(both, fit(data[0], TASK, config=CONFIG, warm_start=many, ensemble=later))
    told = both.training["warm_start"]
    assert told["trained_on"] == one.trained_on == both.trained_on
    assert not told["left"]
    assert {name.partition(".")[0] for name in told["warm_start"]["left"]} == {"perturb"}
    half = replace(later, noise_steps=None)
    assert same(both, fit(data[0], TASK, config=CONFIG, warm_start=one, ensemble=half))


@pytest.mark.parametrize("stopped_at", [6, 10])
def test_a_run_that_is_stopped_while_noise_is_learned_goes_on_to_the_bit(
    data, tmp_path, stopped_at
):
    """Or behind that."""
    how, seen = replace(HOW, noise_steps=4), []

    def stop(event):
        seen.append(event["step"])
        if len(seen) == stopped_at:
            signal.raise_signal(signal.SIGINT)

    whole = go(data, ensemble=how)
    with pytest.raises(KeyboardInterrupt):
        go(data, run_dir=tmp_path, progress=stop, ensemble=how)
    assert (tmp_path / "noise" / "history.jsonl").is_file()
    assert (tmp_path / "ensemble").is_dir() == (stopped_at == 10)
    assert same(whole, go(data, run_dir=tmp_path, ensemble=how))


def test_a_network_that_makes_its_noise_itself_has_no_steps_for_it_alone():
    with pytest.raises(InputError, match=r"noise_steps must be 0 for a Spread"):
        fit(
            rolls(60, 1), Task("count", 2, 2), model=Spread(), config=CONFIG,
            ensemble=EnsembleConfig(steps=4, noise_steps=4),
        )  # fmt: skip
