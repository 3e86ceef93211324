"""Networks that do not fit their task: named before the first step, not after the last."""

from __future__ import annotations

import pytest
import torch
from helpers import Linear, tiny

import stforecast
from stforecast.errors import InputError
from stforecast.forecasting.forecaster import Forecaster
from stforecast.forecasting.predict import predict
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit

TASK = Task("t2m", input_steps=4, target_steps=2)
CONFIG = TrainConfig(steps=2, batch_size=4, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def weather():
    ds = make_weather(40, shape=(6, 10))
    other = (ds["2m_temperature"] + 1).assign_attrs(units="Pa")
    return ds.assign(msl=other).rename(msl="mean_sea_level_pressure")


class Gives(torch.nn.Module):
    """What a function makes of the input."""

    def __init__(self, make):
        super().__init__()
        self.make, self.factor = make, torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.make(x * self.factor)


FORMS = {
    "one step for two": (lambda x: x[:, -1:], r"gives \(2, 1, 1, 6, 10\)"),
    "three steps for two": (lambda x: x[:, :3], r"gives \(2, 3, 1, 6, 10\)"),
    "no time": (lambda x: x[:, 0], r"gives \(2, 1, 6, 10\)"),
    "one sample for all": (lambda x: x[:1, :2], r"gives \(1, 2, 1, 6, 10\)"),
    "more axes": (lambda x: x[None, :, :2], r"gives \(1, 2, 2, 1, 6, 10\)"),
    "steps and channels in one": (lambda x: x[:, :2].flatten(1, 2), r"gives \(2, 2, 6, 10\)"),
    "one column": (lambda x: x[:, :2, ..., :1], r"gives \(2, 2, 1, 6, 1\)"),
    "frames and state": (
        lambda x: (x[:, :2], None),
        r"gives a tuple of \(2, 2, 1, 6, 10\), a None",
    ),
    "a dict": (lambda x: {"frames": x[:, :2]}, "gives a dict"),
    "nothing": (lambda x: None, "gives a NoneType"),
    "another input": (lambda x: x @ torch.ones(7, 7), r"stops at input \(2, 4, 1, 6, 10\)"),
    "more input steps": (lambda x: x.unflatten(1, (5, 1)), "stops at input"),
}


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_does_not_fit_is_named_before_the_first_step(weather, form, validated):
    make, words = FORMS[form]
    steps = []
    options = {"validation": weather, "allow_overlap": True} if validated else {}
    with pytest.raises(InputError, match=words):
        fit(weather, TASK, model=Gives(make), config=CONFIG, progress=steps.append, **options)
    assert not steps


def test_a_network_that_cannot_learn_is_named(weather):
    with pytest.raises(InputError, match="the output of Gives depends on no weight"):
        fit(weather, TASK, model=Gives(lambda x: x[:, :2].detach()), config=CONFIG)
    with pytest.raises(InputError, match=r"numbers of torch\.int64, expected floating"):
        fit(weather, TASK, model=Gives(lambda x: x[:, :2].long()), config=CONFIG)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_in_a_forecast(weather, form):
    make, words = FORMS[form]
    twice = weather["time"].values[10:12]
    with pytest.raises(InputError, match=words):
        predict(weather, Forecaster(Gives(make), TASK), init_time=twice)


@pytest.mark.parametrize(
    ("task", "sizes", "words"),
    [
        (Task(["t2m", "msl"], 4, 2, targets="t2m"), {"channels": 2}, "out_channels=2.*=1"),
        (Task("t2m", 4, 1), {"target_steps": 2}, "target_steps=2.*target_steps=1"),
        (Task("t2m", 3, 2), {}, "input_steps=4.*input_steps=3"),
        (Task(["t2m", "msl"], 4, 2), {}, "channels=1, out_channels=1.*channels=2"),
        (Task("t2m", 6, 2), {"predict_change": False}, "input_steps=4.*input_steps=6"),
    ],
)
def test_our_network_of_other_sizes_says_which(weather, task, sizes, words):
    network = tiny(**({"target_steps": 2} | sizes))
    with pytest.raises(InputError, match=f"the network has {words}"):
        fit(weather, task, model=network, config=CONFIG)


def test_ours_names_the_input_it_wants():
    with pytest.raises(InputError, match=r"of shape \(B, 4, 1, H, W\), found \(2, 4, 3, 6, 10\)"):
        tiny()(torch.zeros(2, 4, 3, 6, 10))


def test_trying_out_leaves_no_trace(weather):
    network = torch.nn.Sequential(Linear(), torch.nn.BatchNorm3d(3), torch.nn.Dropout(0.5)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    Forecaster(network, Task("t2m", 4, 3), mean=[280.0], std=[9.0]).try_out(6, 10)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("value", [415.0, 0.0, 415.1])
def test_a_channel_that_never_changes_is_named(weather, value):
    ds = weather.assign(co2=(weather["2m_temperature"] * 0 + value).assign_attrs(units="ppm"))
    for task in (Task(["t2m", "co2"], 4, 2), Task(["co2", "t2m"], 4, 2, targets="t2m")):
        with pytest.raises(InputError, match=r"'co2' .*never changes"):
            fit(ds, task, model=lambda: Gives(lambda x: x[:, :2]), config=CONFIG)


@pytest.mark.parametrize("device", ["cuda:99", "hpu:0"])
def test_a_device_that_is_not_there(weather, device):
    with pytest.raises(InputError, match=f"no device '{device}' on this machine; it has cpu"):
        fit(weather, TASK, config=TrainConfig(steps=1, device=device))


@pytest.mark.parametrize("task", ["t2m", ["t2m"], None, {"variables": "t2m"}])
def test_what_is_no_task_is_refused_with_the_call_that_makes_one(weather, task):
    for door in (
        lambda: fit(weather, task, config=CONFIG),
        lambda: Forecaster(torch.nn.Identity(), task),
        lambda: stforecast.Persistence(task),
        lambda: stforecast.Climatology.fit(weather, task),
    ):
        with pytest.raises(InputError, match=r"a Task, found .*Task\("):
            door()
