"""Mean, deviation and range of the training data: what never changes is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny
from torch import nn

from stforecast.errors import InputError
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training import TrainConfig, fit


@pytest.fixture(scope="module")
def weather():
    return make_weather(30, shape=(6, 10))


def with_still(ds, **values):
    for name, value in values.items():
        ds = ds.assign({name: (ds["2m_temperature"] * 0 + value).assign_attrs(units="1")})
    return ds


@pytest.mark.parametrize("feed", ["resident", "stream"])
@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ({"co2": 415.0}, {}, r"'co2' \(415\) never changes"),
        ({"co2": 0.1}, {}, r"'co2' \(0\.1\) never changes"),  # whose sums are rounded
        ({"sea": 1.0, "flag": 0.0}, {}, r"'sea' \(1\), 'flag' \(0\) never change "),
        ({"sea": np.nan}, {"nan": "mask"}, r"'sea' \(0\) never changes.*or all of it is missing"),
        ({"sea": 3.0}, {"targets": ["sea"]}, r"'sea' \(3\) never changes"),
    ],
)
def test_a_variable_that_never_changes_is_named(weather, feed, values, options, words):
    task = Task(["t2m", *values], 4, 3, **options)
    config = TrainConfig(steps=1, batch_size=2, feed=feed, device="cpu")
    with pytest.raises(InputError, match=words):
        fit(with_still(weather, **values), task, config=config)


def test_a_field_that_changes_in_space_alone_is_an_input(weather):
    ds = with_still(weather, height=0.0)
    ds["height"] = (ds["height"] + xr.ones_like(ds["latitude"]) * ds["latitude"]).astype("f4")
    ds["height"].attrs["units"] = "m"
    task = Task(["t2m", "height"], 4, 3, targets=["t2m"])
    config = TrainConfig(steps=1, batch_size=2, device="cpu")
    fit(ds, task, model=lambda: tiny(channels=2, out_channels=1), config=config)


class Bounded(nn.Module):
    """A network whose output is bounded by the range that it is told."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("output_range", torch.zeros(2, 1))

    def set_output_range(self, low, high):
        self.output_range.copy_(torch.stack([low, high]))

    def forward(self, x):
        low, high = self.output_range[..., None, None]
        return low + torch.sigmoid(x[:, -3:, 1:] + self.weight) * (high - low)


@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_a_bounded_network_is_told_the_range_of_its_outputs(weather, feed, monkeypatch):
    """By a closed form, with missing values, in pieces; a warm start keeps the new data's."""
    monkeypatch.setattr("stforecast.loading.source._SWEEP_BYTES", 9 * 4 * 2 * 60)
    wave = (weather["2m_temperature"] * 0 + np.arange(30)[:, None, None] ** 2).astype("f4")
    ds = weather.assign(wave=wave.where(weather["latitude"] > -60).assign_attrs(units="1"))
    task = Task(["t2m", "wave"], 4, 3, targets=["wave"], nan="mask")
    config = TrainConfig(steps=1, batch_size=2, feed=feed, buffer=10**5, device="cpu")
    forecaster = fit(ds, task, model=Bounded, config=config)
    known = ds["wave"].values[~np.isnan(ds["wave"].values)].astype(float)
    want = [(v - known.mean()) / known.std() for v in (0.0, 29.0**2)]
    np.testing.assert_allclose(forecaster.network.output_range[:, 0], want, rtol=1e-5)

    half = ds.isel(time=slice(15))
    again = fit(half, task, model=Bounded, config=config, warm_start=forecaster)
    assert float(again.network.output_range[1]) != float(forecaster.network.output_range[1])
