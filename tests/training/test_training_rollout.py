"""Training on a network's own output: what a forecast past the trained length does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers import tiny
from torch import nn

from stforecast.cli import TrainingOptions
from stforecast.errors import InputError
from stforecast.forecasting.forecaster import Forecaster
from stforecast.loading import open_feed
from stforecast.loading.source import Source
from stforecast.models.registry import make_network
from stforecast.task import Task
from stforecast.training import TrainConfig, fit
from stforecast.training.objective import Objective

CONFIG = TrainConfig(steps=4, batch_size=8, precision="fp32", device="cpu")


class Mix(nn.Module):
    """Every target step from all channels of all frames, the same at all points."""

    def __init__(self, task):
        super().__init__()
        self.sizes, self.applied = (task.target_steps, task.channels_out), []
        channels = task.input_steps * task.channels_in, task.target_steps * task.channels_out
        self.linear = nn.Linear(*channels)

    def forward(self, x):
        self.applied.append(len(x))
        y = self.linear(x.movedim((1, 2), (-2, -1)).flatten(-2))
        return y.unflatten(-1, self.sizes).movedim((-2, -1), (1, 2))


class Factor(nn.Module):
    """The next step is `a` times this one."""

    def __init__(self, a=0.5):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x):
        return self.a * x[:, -1:]


def flows(weeks=6, *, start="2018-01-01", seed=0, gaps=False):
    time = pd.date_range(start, periods=weeks * 28, freq="6h")
    rng = np.random.default_rng(seed)
    event, noise = rng.normal(size=(2, len(time), 2, 3)).astype(np.float32)
    usual = 20 + 5 * np.sin(2 * np.pi * np.arange(len(time)) / 28)
    flow = (usual[:, None, None] + 3 * event + noise).astype(np.float32)
    if gaps:
        flow[rng.random(flow.shape) < 0.1] = np.nan
    dims = ("time", "y", "x")
    return xr.Dataset({"flow": (dims, flow), "event": (dims, event)}, {"time": time})


PLAIN = Task("flow", 2, 2, "6h")
TASKS = {
    "plain": PLAIN,
    "unequal": replace(PLAIN, input_steps=3),
    "anomalies": replace(PLAIN, reference="weekly", known=("reference", "event"), lags=("1D",)),
    "masked": replace(PLAIN, nan="mask", reference="weekly", known="reference"),
    "bounded": replace(PLAIN, lower=18.0),
}


@pytest.mark.parametrize("name", TASKS)
def test_what_is_trained_is_what_is_forecast(name):
    """Loss and validation are those of predict(steps=6): known inputs, usual fields, lags, NaN."""
    task, gaps = TASKS[name], name == "masked"
    train, later = flows(gaps=gaps), flows(4, start="2018-03-05", seed=1, gaps=gaps)
    config = replace(CONFIG, rollout=3, val_windows=10**6)
    model = fit(train, task, model=lambda: Mix(task), config=config, validation=later)
    feed = open_feed(Source(later, task, rollout=3), task.rolled(3), 10**6, shuffle=False)
    windows = feed.batch(0)
    times = later["time"].values[windows.first + task.history - 1]
    out = model.predict(later, init_time=times, steps=6)
    truth = later["flow"].sel(time=out["valid_time"])
    error = ((out["flow"] - truth) / float(model.normalizer.std[0])).values
    assert (gaps or name == "bounded") or np.isfinite(error).all()
    usual = None
    if task.reference:
        steps = times[:, None] + task.step * np.arange(1 - task.history, 7)
        usual = model.reference.at(steps, task.outputs)
    x, y, *ahead = model.parts(windows, usual)
    objective = Objective(model.network.eval(), frames=model, masked=gaps)
    with torch.no_grad():
        total, points = objective(x, y, 0, *ahead)
    if name in ("masked", "bounded"):  # a loss is of what the network gives, which goes elsewhere
        seen = model.roll_normalised(model.run, x, 6, known=ahead[0], usual=ahead[1])
        where = np.isfinite(error) & (out["flow"].values > (task.lower or 0))
        np.testing.assert_allclose(
            (seen - y).detach()[:, :, 0].numpy()[where], error[where], atol=1e-4
        )
        assert 0.5 < where.mean() < 0.95
        return
    assert float(total) / points == pytest.approx(np.square(error).mean(), rel=1e-4)
    rmse = model.training["validation"]["val_rmse"]
    assert rmse == pytest.approx(
        float(np.sqrt(np.square(error).mean())) * float(model.normalizer.std[0]), rel=1e-4
    )


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_go_through_or_do_not(detach):
    """Of (a x - y1)^2 + (a (a x) - y2)^2, by hand."""
    network, (x, y1, y2) = Factor(0.5), (3.0, 2.0, 1.0)
    frames = Forecaster(network, Task("flow", 1, 1))
    objective = Objective(network, frames=frames, detach=detach)
    total, points = objective(
        torch.full((1, 1, 1, 1, 1), x), torch.tensor([y1, y2]).view(1, 2, 1, 1, 1), 0
    )
    assert (total.item(), points) == (0.25 + 0.0625, 2)
    total.backward()
    by_itself = 2 * (0.5 * x - y1) * x + 2 * (0.25 * x - y2) * 0.5 * x
    through = 2 * (0.25 * x - y2) * 0.5 * x  # the second application's input falls with a as well
    assert network.a.grad.item() == pytest.approx(by_itself + (0 if detach else through))


def test_weights_of_lead_times_are_those_of_all_applications():
    network = Factor(1.0)
    weights = torch.arange(1.0, 4.0).view(3, 1, 1, 1)
    objective = Objective(network, weights=weights, frames=Forecaster(network, Task("flow", 1, 1)))
    x = torch.zeros(1, 1, 1, 1, 1)
    assert objective(x, torch.ones(1, 3, 1, 1, 1), 0)[0].item() == 6
    assert objective(x, torch.ones(1, 2, 1, 1, 1), 0)[0].item() == 3


def test_a_network_learns_what_its_own_output_needs():
    """A signal that stays, seen with noise: one step asks for a mean, many ask to keep it."""
    rng = np.random.default_rng(0)
    signal = np.repeat(rng.normal(size=(1, 4, 5)), 200, axis=0)
    values = (signal + rng.normal(size=signal.shape)).astype(np.float32)
    time = pd.date_range("2018-01-01", periods=200, freq="6h")
    ds = xr.Dataset({"flow": (("time", "y", "x"), values)}, {"time": time})
    found = {}
    for how in (1, 4, [(0, 1), (100, 4)]):
        config = replace(CONFIG, steps=200, learning_rate=0.02, rollout=how)
        model = fit(ds, Task("flow", 1, 1, "6h"), model=Factor, config=config)
        out = model.predict(ds, init_time=slice(time[0], time[-5]), steps=4)["flow"]
        error = out - ds["flow"].sel(time=out["valid_time"])
        found[str(how)] = float((error**2).isel(prediction_timedelta=3).mean())
    plain, rolled, grown = found.values()
    assert rolled < 0.9 * plain
    assert grown == pytest.approx(rolled, rel=0.05)


def test_a_schedule_says_how_often_the_network_is_applied():
    network = Mix(PLAIN)
    config = replace(CONFIG, steps=5, rollout=[(1, 2), (3, 3)], area_weighted=False)
    fit(flows(), PLAIN, model=network, config=replace(config, balance_leads=True))
    assert network.applied == [2, *[8] * (1 + 2 + 2 + 3 + 3)]  # the first is tried out


def test_cut_in_passes_or_stopped_the_weights_are_the_same(tmp_path):
    task, train = TASKS["anomalies"], flows()
    config = replace(CONFIG, rollout=[(0, 1), (2, 3)], checkpoint_every=1)

    def go(config=config, **options):
        torch.manual_seed(1)
        model = fit(train, task, model=lambda: Mix(task), config=config, **options)
        return model.network.linear.weight.detach()

    def stop(event):
        if event["step"] == 3:
            raise RuntimeError("killed")

    whole = go()
    with pytest.raises(RuntimeError, match="killed"):
        go(run_dir=tmp_path, progress=stop)
    assert torch.equal(go(run_dir=tmp_path), whole)
    torch.testing.assert_close(go(replace(config, accumulate=3)), whole, rtol=1e-3, atol=1e-5)
    assert not torch.equal(go(replace(config, rollout_gradients="detached")), whole)
    with pytest.raises(InputError, match=r"config differ\): rollout: \[\[0, 1\], \[2, 3\]\]"):
        go(replace(config, rollout=3), run_dir=tmp_path)


def test_what_cannot_be_rolled_out():
    config, ds = replace(CONFIG, rollout=3), flows(2)
    task = Task(["flow", "event"], 2, 2, "6h", targets="flow")
    with pytest.raises(InputError, match="cannot forecast 6 steps: past 2 the network would need"):
        fit(ds, task, model=lambda: Mix(task), config=config)
    with pytest.raises(InputError, match=r"no window of 8 steps .*shorter than rollout=3"):
        fit(ds.isel(time=slice(7)), PLAIN, model=lambda: Mix(PLAIN), config=config)
    network = make_network("ConvLSTM", PLAIN, {"y": 4, "x": 4}, {"hidden": [4], "kernel": 3})
    with pytest.raises(InputError, match="ConvLSTM learns long forecasts in its own way: give"):
        Objective(network, frames=Forecaster(network, PLAIN))
    objective = Objective(tiny(2, 3), frames=Forecaster(tiny(2, 3), PLAIN))
    x, y = torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 4, 1, 4, 4)
    with pytest.raises(InputError, match=r"the network gives \(1, 3, 1, 4, 4\).* gives 2 of the"):
        objective(x, y, 0)
    with open_feed(ds, PLAIN, 8) as feed, pytest.raises(InputError, match="a feed of your own"):
        fit(ds, PLAIN, model=lambda: Mix(PLAIN), config=config, feed=feed)


@pytest.mark.parametrize(
    "given",
    [0, 1001, 1.5, True, "4", [], [(0, 1), (0, 2)], [(3, 1), (1, 2)], [(0, 0)], [(0,)], [4]],
)
def test_a_roll_out_that_makes_no_sense(given):
    with pytest.raises(InputError, match=r"TrainConfig.rollout must be .* found"):
        TrainConfig(rollout=given)


def test_a_roll_out_from_the_command_line(caplog):
    read = lambda text: TrainingOptions(rollout=text).config().rollout  # noqa: E731
    assert (read(None), read("4"), read("0:1,40:4")) == (1, 4, [(0, 1), (40, 4)])
    for wrong, found in (("often", "'often'"), ("0:1:2", r"\[\(0, 1, 2\)\]")):
        with pytest.raises(InputError, match=f"rollout must be .* found {found}"):
            read(wrong)
    assert "rollout" not in TrainConfig().to_dict()  # so that older runs go on
    fit(flows(2), PLAIN, model=lambda: Mix(PLAIN), config=replace(CONFIG, rollout=[(9, 2)]))
    assert "the roll-out changes at step 9, the run has 4" in caplog.text
