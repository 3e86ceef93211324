"""The mirror image about the equator: what a forecast of it is, and who has one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import stforecast
from stforecast import Task, TrainConfig, fit
from stforecast.conventions import Grid
from stforecast.errors import InputError
from stforecast.models import SimVPv2

SMALL = {"encoder_channels": 4, "translator_channels": 6, "translator_blocks": 2}
SINE = 1  # the channel that says where a row lies


def network(**more) -> SimVPv2:
    settings = {"out_channels": 1, "predict_change": True, "grid": (6, 8), **SMALL}
    torch.manual_seed(0)
    made = SimVPv2(3, 2, 3, mirror=True, odd_channels=[SINE], **(settings | more))
    with torch.no_grad():
        for p in made.parameters():  # layer scales are small at first
            p.add_(0.3 * torch.randn(p.shape))
    return made


def sample(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, 3, 6, 8, generator=torch.Generator().manual_seed(1))


def turned(x: torch.Tensor) -> torch.Tensor:
    x = x.flip(-2).clone()
    x[:, :, SINE] *= -1
    return x


def alone(made: SimVPv2) -> SimVPv2:
    """The same network, which knows no mirror."""
    return made.altered(mirror=False, odd_channels=[]).train(made.training)


def test_the_mirror_of_a_forecast_is_the_forecast_of_the_mirror():
    made, x = network().eval(), sample()
    with torch.no_grad():
        y = made(x)
        torch.testing.assert_close(made(turned(x)), y.flip(-2))
        # It is the mean of both ways, and a network without the mirror knows but one.
        one = alone(made)
        torch.testing.assert_close(y, (one(x) + one(turned(x)).flip(-2)) / 2)
        assert not torch.allclose(one(turned(x)), one(x).flip(-2), atol=1e-2)


def test_a_sample_is_turned_or_not_in_training():
    made, x = network(drop_path=None).train(), sample(1)
    made.apply(lambda part: part.eval() if isinstance(part, torch.nn.BatchNorm2d) else None)
    with torch.no_grad():
        one = alone(made).eval()
        here, there = one(x), one(turned(x)).flip(-2)
        torch.manual_seed(0)
        y = made(x.expand(40, -1, -1, -1, -1))
        as_here = torch.isclose(y, here, atol=1e-5).flatten(1).all(1)
        as_there = torch.isclose(y, there, atol=1e-5).flatten(1).all(1)
        assert bool((as_here ^ as_there).all())
        assert 10 <= int(as_here.sum()) <= 30
        torch.manual_seed(0)
        torch.testing.assert_close(made(x.expand(40, -1, -1, -1, -1)), y)


def test_a_member_goes_one_way():
    """By the sign of its noise: so does training, and members differ as they did there."""
    made, x = network(noise=2).eval(), sample(1)
    noise = torch.randn(1, *made.noise_shape(6, 8))
    with torch.no_grad():
        one = alone(made)
        for sign in (1, -1):
            noise[:, 0, 0, 0, 0] = noise[:, 0, 0, 0, 0].abs() * sign
            wanted = one(x, noise) if sign < 0 else one(turned(x), noise).flip(-2)
            torch.testing.assert_close(made(x, noise), wanted)


def globe(latitude=(-60.0, -20.0, 20.0, 60.0), name="2m_temperature") -> xr.Dataset:
    rng, n = np.random.default_rng(0), 80
    time = pd.date_range("2018-01-01", periods=n, freq="1h")
    field = 280 + rng.normal(size=(n, len(latitude), 4)).cumsum(0).astype(np.float32)
    coords = {"time": time, "latitude": list(latitude), "longitude": [0.0, 90.0, 180.0, 270.0]}
    dims = ("time", "latitude", "longitude")
    return xr.Dataset({name: (dims, field, {"units": "K"})}, coords)


TASK = Task("2m_temperature", 3, 2, "1h", known=["longitude_cos", "latitude_sin"])


def trained(ds: xr.Dataset, task: Task = TASK) -> stforecast.Forecaster:
    make = partial(
        SimVPv2.for_task, task, Grid.of(ds).to_dict(), mirror=True, predict_change=True, **SMALL
    )
    return fit(ds, task, model=make, config=TrainConfig(steps=3, batch_size=4))


def test_a_bundle_keeps_its_mirror(tmp_path):
    ds = globe()
    forecaster = trained(ds)
    assert forecaster.network.settings["odd_channels"] == [2]
    again = stforecast.load(forecaster.save(tmp_path / "model"))
    xr.testing.assert_equal(again.predict(ds), forecaster.predict(ds))
    # A frame: two variables, the references of both, the sine.
    both = Task(["2m_temperature", "10m_temperature"], 3, 2, "1h", reference="climatology")
    around = replace(both, known=["reference", "latitude_sin"])
    made = SimVPv2.for_task(around, Grid.of(ds).to_dict(), mirror=True, **SMALL)
    assert made.settings["odd_channels"] == [4]


def test_what_has_no_mirror_image_is_refused():
    with pytest.raises(InputError, match=r"the same north and south of the equator.* 20 to 80"):
        trained(globe((20.0, 40.0, 60.0, 80.0)))
    own = partial(SimVPv2, 3, 2, mirror=True, predict_change=True, **SMALL)
    with pytest.raises(InputError, match=r"the same north and south of the equator.* -60 to -20"):
        fit(globe().isel(latitude=[0, 1]), Task("t2m", 3, 2), model=own)
    knows, task = own(channels=2, out_channels=1), Task("t2m", 3, 2, known="v10")
    with pytest.raises(InputError, match=r"whose sign the mirror leaves.*'10m_v_comp"):
        fit(globe().assign(v10=-globe()["2m_temperature"]), task, model=knows)
    wind = "v_component_of_wind"
    with pytest.raises(InputError, match=rf"whose sign the mirror leaves, found \['{wind}'\]"):
        trained(globe(name=wind), Task(wind, 3, 2, "1h"))
    with pytest.raises(InputError, match=r"odd_channels must be from 0 to 0, found \[1\]"):
        SimVPv2(3, 2, 1, mirror=True, odd_channels=[1], **SMALL)
    with pytest.raises(InputError, match=r"odd_channels=\[0\] are for mirror=True"):
        SimVPv2(3, 2, 1, odd_channels=[0], **SMALL)
    with pytest.raises(InputError, match="mirror must be True or False"):
        SimVPv2(3, 2, 1, mirror="yes", **SMALL)
