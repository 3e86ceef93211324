"""The linear first guess: exact where the truth is linear, and what training makes of it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import stforecast
from stforecast import Task, TrainConfig, fit
from stforecast.errors import InputError
from stforecast.models import SimVPv2
from stforecast.models.first_guess import FirstGuess

SMALL = {"encoder_channels": 4, "translator_channels": 4, "translator_blocks": 2}


def linear(x: torch.Tensor) -> torch.Tensor:
    """Two steps of change: from the east, from the past, of the point's own and constant."""
    last, rate = x[:, -1], torch.arange(1.0, 7.0).reshape(2, 3).to(x)
    east = x[:, -1].roll(-1, -1) - last
    return torch.stack([0.3 * east + 2.0, rate * (x[:, -2] - last) - 0.5 * last], dim=1)


def test_what_is_linear_is_guessed_exactly():
    guess = FirstGuess(4, 2, 1, (2, 3), circular_longitude=True)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(6000, 4, 1, 2, 3, generator=draw, dtype=torch.float64)
    noise = torch.randn(6000, 2, 1, 2, 3, generator=draw, dtype=torch.float64)
    noise = noise * torch.tensor([0.1, 0.4])[:, None, None, None]
    y = x[:, -1:] + linear(x) + noise
    y[:50, :, :, 0, 1] = torch.nan  # left out at this point
    guess.fit((x[a : a + 1000], y[a : a + 1000]) for a in range(0, 6000, 1000))
    fresh = torch.randn(50, 4, 1, 2, 3, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(guess(fresh), linear(fresh), rtol=0, atol=0.1)
    np.testing.assert_allclose(guess.residual_std[:, 0], [0.1, 0.4], rtol=0.02)


def test_one_variable_is_guessed_from_another():
    guess = FirstGuess(2, 1, 2, (2, 3), circular_longitude=False, ridge=1e-6)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, 2, 2, 3, generator=draw, dtype=torch.float64)
    a, b = x[:, -1].unbind(1)
    earlier = x[:, 0, 0] - a
    y = torch.stack([a + 0.5 * b, b - 0.2 * earlier + 3.0], 1)[:, None]
    guess.fit([(x[:200], y[:200])])
    torch.testing.assert_close(guess(x), y - x[:, -1:], rtol=0, atol=1e-4)
    weaker = FirstGuess(2, 1, 2, (2, 3), circular_longitude=False, ridge=1.0)
    weaker.fit([(x, y)])  # of independent predictors, damped by as much as they are
    of_other = weaker.weight[0, 1, 0]  # b for a, nearly half of 0.5
    assert (of_other > 0.1).all()
    assert (of_other < 0.4).all()


def test_what_is_known_for_a_step_is_a_predictor_of_that_step_alone():
    guess = FirstGuess(3, 2, 1, (2, 3), known=2, circular_longitude=True, ridge=1e-9)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, 4, 2, 3, generator=draw, dtype=torch.float64)
    last, sun, earlier = x[:, -1:, :1], x[:, :2, 2:3], x[:, :2, 3:]  # frame t is of target step t
    change = 0.5 * sun + torch.tensor([2.0, -1.0])[:, None, None, None] * earlier - 0.25 * last
    guess.fit([(x[:300], last[:300] + change[:300])])
    torch.testing.assert_close(guess(x), change, rtol=0, atol=1e-5)
    assert (guess.residual_std < 1e-4).all()


def test_a_network_guesses_from_the_same_time_of_earlier_days():
    ds = walk(24 * 30)
    flow = np.random.default_rng(1).normal(size=(24 * 30, 2, 3)).astype(np.float32)
    for t in range(24, len(flow)):  # the hour before tells nothing, the day before most
        flow[t] = 0.95 * flow[t - 24] + 0.3 * flow[t]
    ds["flow"] = ds["flow"].copy(data=flow)
    found = []
    for lags in ((), ("1D",)):
        task = Task("flow", 2, 2, "1h", lags=lags)
        config = TrainConfig(steps=1, batch_size=16, learning_rate=1e-9, device="cpu")
        model = partial(SimVPv2.for_task, task, predict_change=True, linear_guess=True, **SMALL)
        one = fit(ds, task, model=partial(model, {"y": 2, "x": 3}), config=config)
        assert one.network.first_guess.known == len(lags)
        found.append(float(one.network.first_guess.residual_std.mean()))
    assert found[1] < 0.7 * found[0]


def test_settings_from_before_have_a_guess_from_history_alone():
    task = Task("flow", 2, 2, "1h", lags=("1D",))
    made = SimVPv2.for_task(task, {"y": 2, "x": 3}, predict_change=True, linear_guess=True, **SMALL)
    assert made.settings["known_channels"] == made.first_guess.known == 1
    by_name = SimVPv2.for_task(task, grid=(2, 3), predict_change=True, linear_guess=True, **SMALL)
    assert by_name.first_guess.known == 1
    before = {k: v for k, v in made.settings.items() if k != "known_channels"}
    assert SimVPv2.for_task(task, {"y": 2, "x": 3}, **before).first_guess.known == 0
    again = SimVPv2.for_task(task, {"y": 2, "x": 3}, **made.settings)
    assert again.first_guess.weight.shape == made.first_guess.weight.shape


def test_only_a_circular_longitude_has_a_neighbour_past_its_edge():
    x = torch.zeros(1, 2, 1, 3, 4)
    x[..., 0] = 1.0
    for circular, reached in ((True, 1.0), (False, 0.0)):
        guess = FirstGuess(2, 1, 1, (3, 4), circular_longitude=circular)
        guess.weight[0, 2 + 4] = 1.0  # the neighbour in the east
        assert guess(x)[0, 0, 0, 1, 3] == reached


def walk(hours: int = 200) -> xr.Dataset:
    """A field that goes back to what it was, each point at its own rate."""
    rng, rate = np.random.default_rng(0), np.linspace(0.1, 0.9, 6).reshape(2, 3)
    flow = np.zeros((hours, 2, 3), np.float32)
    for t in range(1, hours):
        flow[t] = rate * flow[t - 1] + rng.normal(size=(2, 3))
    time = pd.date_range("2018-01-01", periods=hours, freq="1h")
    return xr.Dataset({"flow": (("time", "y", "x"), flow)}, {"time": time})


def test_training_starts_from_the_guess_and_the_bundle_keeps_it(tmp_path):
    ds, task = walk(), Task("flow", 2, 2, "1h")
    how = {"steps": 1, "batch_size": 16, "learning_rate": 1e-9, "device": "cpu"}
    config = TrainConfig(precision="fp32", **how)
    model = partial(SimVPv2.for_task, task, {"y": 2, "x": 3}, predict_change=True, **SMALL)
    plain, guessed = (
        fit(ds, task, model=partial(model, linear_guess=given), config=config)
        for given in (False, True)
    )
    errors = []
    for forecaster in (plain, guessed):
        with torch.no_grad():
            forecaster.network.readout.weight.zero_()
            forecaster.network.readout.bias.zero_()
        times = ds["time"].values[1:-2]
        forecast = forecaster.predict(ds, init_time=times)["flow"]
        truth = np.stack([ds["flow"].values[2 + k : len(times) + 2 + k] for k in (0, 1)], axis=1)
        errors.append(float(((forecast - truth) ** 2).mean()))
    assert errors[1] < 0.8 * errors[0]  # persistence against each point's own regression
    again = stforecast.load(guessed.save(tmp_path / "bundle"))
    xr.testing.assert_identical(again.predict(ds), guessed.predict(ds))
    with pytest.raises(InputError, match=r"belongs to a grid of \(2, 3\)"):
        again.network(torch.zeros(1, 2, 1, 4, 3))


def test_a_guess_that_cannot_be_is_refused():
    for settings in ({"grid": (4, 4)}, {"predict_change": True}, {"target_steps": 24}):
        with pytest.raises(InputError, match="needs predict_change=True, grid"):
            SimVPv2(linear_guess=True, **settings)
    with pytest.raises(InputError, match=r"guess_ridge=1.0 is for linear_guess=True, found False"):
        SimVPv2(guess_ridge=1.0)
    for more in ({"known_channels": 1}, {"known_channels": 3, "linear_guess": True}):
        with pytest.raises(InputError, match="known_channels are for linear_guess=True, and at"):
            SimVPv2(channels=3, out_channels=1, predict_change=True, grid=(4, 4), **more)
    with pytest.raises(InputError, match="guess_ridge must be"):
        SimVPv2(linear_guess=True, predict_change=True, grid=(4, 4), guess_ridge=-1.0)
