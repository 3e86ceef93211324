"""Members that one forecaster draws: by seed, number and time alone, each one trajectory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny
from torch import nn

import stforecast
from stforecast.baselines.persistence import Persistence
from stforecast.errors import InputError
from stforecast.forecasting import ensemble
from stforecast.forecasting.draws import Drawn
from stforecast.forecasting.forecaster import Forecaster
from stforecast.forecasting.predict import predict
from stforecast.forecasting.writing import write_forecast
from stforecast.task import Task
from stforecast.testing.weather import make_weather, relabel

TASK = Task("t2m", input_steps=4, target_steps=3)


class Walk(nn.Module):
    """A step at random from the last one, then the same again: a walk."""

    takes_noise = True

    def noise_shape(self, height, width):
        return 3, 1, 1, 1

    def forward(self, x, noise=None):
        steps = x[:, -1:].expand(-1, 3, -1, -1, -1)
        return steps if noise is None else steps + noise.cumsum(1)


def walker(**more):
    return Forecaster(Walk(), TASK, mean=[280.0], std=[2.0], draws="noise", **more)


def network(draws, seed=0):
    torch.manual_seed(seed)
    made = tiny(dropout=0.3) if draws == "dropout" else tiny(noise=2)
    for part in made.perturb:
        nn.init.normal_(part.project.weight, std=0.3)
    return Forecaster(made, TASK, mean=[280.0], std=[15.0], draws=draws)


@pytest.fixture(scope="module")
def weather():
    return make_weather(16, shape=(4, 6))


@pytest.mark.parametrize("draws", ["noise", "dropout"])
def test_a_member_depends_on_seed_number_and_time_alone(weather, draws):
    """Lazily, in other batches, among others, or alone, past the trained length."""
    model, times = network(draws), weather["time"].values[4:10]
    options = {"steps": 5, "seed": 7}
    whole = predict(weather, model, init_time=times, ensemble=3, **options)["2m_temperature"]
    assert whole.dims[:3] == ("realization", "time", "prediction_timedelta")
    assert whole.shape == (3, 6, 5, 4, 6)
    lazy = predict(
        weather.chunk(time=3), model, init_time=times, ensemble=3, batch_size=4, **options
    )["2m_temperature"]
    assert lazy.chunks[:2] == ((3,), (3, 3))
    few = predict(weather, model, init_time=times[[4, 1]], ensemble=2, **options)["2m_temperature"]
    for other in (lazy.compute(), few):
        xr.testing.assert_allclose(
            other, whole.sel(time=other["time"], realization=other["realization"]), atol=1e-3
        )
    for key in ("realization", "time"):  # none is another's
        assert (np.abs(whole.diff(key)).max(("prediction_timedelta", "latitude")) > 1e-3).all()
    other = predict(weather, model, init_time=times, ensemble=3, steps=5)["2m_temperature"]
    assert np.abs(other - whole).max() > 1e-2
    short = predict(weather, model, init_time=times, ensemble=3, seed=7)["2m_temperature"]
    xr.testing.assert_allclose(short, whole.isel(prediction_timedelta=slice(3)), atol=1e-3)


def test_a_member_is_one_trajectory(weather):
    """A walk goes on from where it is: the variance grows as the lead time."""
    fc = walker().predict(weather, ensemble=1000, steps=9)["2m_temperature"].isel(time=0)
    variance = fc.var("realization").mean(("latitude", "longitude"))
    np.testing.assert_allclose(variance, 4 * np.arange(1, 10), rtol=0.15)
    steps = fc.diff("prediction_timedelta").isel(latitude=0, longitude=0).values / 2
    together = np.corrcoef(steps, rowvar=False) - np.eye(8)
    assert np.abs(together).max() < 0.15  # each step of each application is new


def test_twenty_members_of_a_linear_walk_are_centred_on_the_forecast_without_noise(weather):
    """In each pass; their spread is that of independent members, and others change nothing."""
    options = {"steps": 9, "init_time": weather["time"].values[4:10]}
    fc = walker().predict(weather, ensemble=20, **options)["2m_temperature"]
    control = walker().predict(weather, **options)["2m_temperature"]
    xr.testing.assert_allclose(fc.mean("realization"), control, atol=1e-3)
    variance = fc.var("realization", ddof=1).mean(("time", "latitude", "longitude"))
    np.testing.assert_allclose(variance, 4 * np.arange(1, 10), rtol=0.15)
    more = walker().predict(weather, ensemble=23, **options)["2m_temperature"]
    xr.testing.assert_allclose(more.sel(realization=fc["realization"]), fc, atol=1e-4)


def test_labels_and_one_member(weather):
    names = {"2m_temperature": "t2m", "latitude": "lat"}
    theirs = relabel(weather, names=names, units="degC", north_first=True)
    for count in (1, 2):
        fc = predict(theirs, walker(), ensemble=count)
        assert fc["t2m"].dims == (
            "realization", "time", "prediction_timedelta", "lat", "longitude"
        )  # fmt: skip
        assert fc["realization"].values.tolist() == list(range(count))
        assert fc["t2m"].attrs["units"] == "degC"
        assert fc["valid_time"].dims == ("time", "prediction_timedelta")
    kelvin = predict(weather, walker(), ensemble=2)["2m_temperature"]
    np.testing.assert_allclose(fc["t2m"].values, kelvin.values[..., ::-1, :] - 273.15, atol=1e-3)
    control = predict(weather, walker())["2m_temperature"]
    assert "realization" not in control.dims
    now = weather["2m_temperature"].isel(time=-1)
    np.testing.assert_allclose(control.isel(time=0, prediction_timedelta=2), now, atol=1e-3)


def test_names_of_lazy_forecasts_tell_seeds_and_sizes_apart(weather):
    lazy, model = weather.chunk(time=8), walker()
    options = [{"ensemble": 2}, {"ensemble": 3}, {"ensemble": 2, "seed": 1}, {}]
    names = [predict(lazy, model, **o)["2m_temperature"].data.name for o in options]
    assert len(set(names)) == 4
    assert predict(lazy, walker(), ensemble=2)["2m_temperature"].data.name == names[0]


def test_an_ensemble_is_written_and_read(weather, tmp_path):
    times = weather["time"].values[4:12]
    options = {"init_time": times, "ensemble": 3, "batch_size": 2}
    store = write_forecast(predict(weather.chunk(time=4), walker(), **options), tmp_path / "f.zarr")
    back = xr.open_zarr(store, decode_timedelta=True)
    xr.testing.assert_allclose(
        back["2m_temperature"].compute(), predict(weather, walker(), **options)["2m_temperature"]
    )
    assert back["realization"].attrs["standard_name"] == "realization"


def test_several_networks_share_the_members(weather, tmp_path):
    """5 of 2: 3 and 2, of which each has random numbers of its own."""
    models, times = [network("noise", seed) for seed in (0, 1)], weather["time"].values[5:7]
    fc = predict(weather, models, init_time=times, ensemble=5, seed=2)["2m_temperature"]
    assert fc["realization"].values.tolist() == [0, 1, 2, 3, 4]
    first = predict(weather, models[0], init_time=times, ensemble=3, seed=2)["2m_temperature"]
    np.testing.assert_allclose(fc[:3], first, atol=1e-3)
    inputs = np.stack([weather["2m_temperature"].values[[i - 3, i - 2, i - 1, i]] for i in (5, 6)])
    second = models[1].forecast(inputs[:, :, None], times, drawn=Drawn(range(3, 5), 2))
    np.testing.assert_allclose(fc[3:], second[:, :, :, 0], atol=1e-3)
    path = ensemble.save(models, tmp_path / "both")
    again = predict(weather, path, init_time=times, ensemble=5, seed=2)["2m_temperature"]
    np.testing.assert_allclose(again, fc, atol=1e-3)
    assert predict(weather, models, init_time=times).sizes["realization"] == 2
    silent = [network("noise"), Persistence(TASK)]
    mixed = predict(weather, silent, init_time=times, ensemble=2)["2m_temperature"]
    one = predict(weather, silent[0], init_time=times, ensemble=1)["2m_temperature"]
    np.testing.assert_allclose(mixed[:1], one, atol=1e-3)
    with pytest.raises(InputError, match="ensemble=3, but there are 2 members, of which 1"):
        predict(weather, silent, ensemble=3)


def test_what_draws_none_says_what_to_do(weather, tmp_path):
    plain = Forecaster(tiny(), TASK, mean=[280.0], std=[15.0])
    path = plain.save(tmp_path / "b")
    for model in (plain, path, Persistence(TASK)):  # the bundle in the package draws
        with pytest.raises(InputError, match=r"draws no members.*ensemble='crps'"):
            predict(weather, model, ensemble=20)
    for bad in (0, 1.5, True, "many"):
        with pytest.raises(InputError, match="ensemble must be"):
            walker().predict(weather, ensemble=bad)
    for seed in (-1, 0.5, 2**63):
        with pytest.raises(InputError, match="seed must be"):
            walker().predict(weather, ensemble=2, seed=seed)
    with pytest.raises(InputError, match=r"forecast\(init_time=\)"):
        walker().forecast(np.zeros((1, 4, 1, 4, 6)), drawn=Drawn(range(2)))
    with pytest.raises(InputError, match="fit"):
        plain.forecast(np.zeros((1, 4, 1, 4, 6)), [0], drawn=Drawn(range(2)))
    quiet = Forecaster(tiny(drop_path=None), TASK, draws="dropout")
    with pytest.raises(InputError, match="drops nothing"):
        quiet.predict(weather, ensemble=2)


def test_a_bundle_draws_alike(weather, tmp_path):
    model = network("noise")
    again = stforecast.load(model.save(tmp_path / "b"))
    for one in (again, tmp_path / "b"):
        xr.testing.assert_equal(
            predict(weather, one, ensemble=2, device="cpu"), predict(weather, model, ensemble=2)
        )
