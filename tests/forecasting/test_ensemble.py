"""Ensembles: members side by side, their mean and spread in closed form, bundles on disk."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from stforecast.baselines.persistence import Persistence
from stforecast.baselines.regression import LinearRegression
from stforecast.errors import InputError
from stforecast.forecasting import ensemble
from stforecast.forecasting.forecaster import Forecaster
from stforecast.forecasting.predict import predict
from stforecast.forecasting.writing import write_forecast
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task
from stforecast.testing.weather import make_weather, relabel

TASK = Task("t2m", input_steps=3, target_steps=2, timestep="1h")


class Warmer(torch.nn.Module):
    """The last step, and so many units more."""

    def __init__(self, by):
        super().__init__()
        self.by = torch.nn.Parameter(torch.tensor(float(by)))

    def forward(self, x):
        return x[:, -1:].expand(-1, 2, -1, -1, -1) + self.by


def warmer(*by):
    return [Forecaster(Warmer(b), TASK, mean=[280.0], std=[2.0]) for b in by]


@pytest.fixture(scope="module")
def weather():
    return make_weather(12, shape=(4, 6))


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("units", ["K", "degC"])
def test_members_mean_and_spread(weather, chunk, units):
    names = {"2m_temperature": "t2m", "latitude": "lat"}
    theirs = relabel(weather, names=names, units=units, north_first=True)
    given = theirs.chunk(time=chunk) if chunk else theirs
    times = weather["time"].values[[4, 7]]
    fc = predict(given, warmer(-1, 0, 4), init_time=times, steps=3)
    assert fc["t2m"].dims == ("realization", "time", "prediction_timedelta", "lat", "longitude")
    assert fc["realization"].values.tolist() == [0, 1, 2]
    assert bool(fc.chunks) == bool(chunk)
    assert fc["valid_time"].dims == ("time", "prediction_timedelta")
    for member, model in enumerate(warmer(-1, 0, 4)):
        alone = predict(given, model, init_time=times, steps=3)
        xr.testing.assert_equal(fc.sel(realization=member, drop=True).compute(), alone.compute())

    now = theirs["t2m"].sel(time=times)
    mean, spread = ensemble.mean(fc), ensemble.spread(fc)
    xr.testing.assert_equal(ensemble.mean(fc.rename(realization="number")), mean)
    for lead, passes in enumerate((1, 1, 2)):  # each pass adds 2 K times -1, 0, 4
        np.testing.assert_allclose(mean["t2m"][:, lead], now + 2 * passes, atol=1e-3)
        np.testing.assert_allclose(spread["t2m"][:, lead], 2 * passes * 7**0.5, atol=1e-3)
    assert mean["t2m"].attrs["cell_methods"] == "realization: mean"
    assert spread["t2m"].attrs["cell_methods"] == "realization: standard_deviation"
    assert mean["t2m"].attrs["units"] == spread["t2m"].attrs["units"] == units
    assert "cell_methods" not in fc["t2m"].attrs
    assert bool(mean.chunks) == bool(spread.chunks) == bool(chunk)


def test_spread_matches_the_error_where_members_and_truth_are_drawn_alike():
    draws = np.random.default_rng(0).standard_normal((6, 40_000))  # 5 members and the truth
    fc = xr.Dataset({"x": (("realization", "time"), draws[:5])})
    rmse = float((ensemble.mean(fc)["x"] - draws[5]).std())
    root = float((ensemble.spread(fc)["x"] ** 2).mean() ** 0.5)
    assert root * (6 / 5) ** 0.5 == pytest.approx(rmse, rel=0.02)


def test_forecasters_of_several_kinds_and_one_member(weather):
    long = make_weather(300, shape=(4, 6))
    models = [Persistence(TASK), LinearRegression.fit(long, TASK, neighbours=0), *warmer(1)]
    fc = predict(weather, models)
    assert fc.sizes["realization"] == 3
    assert fc.attrs["source"] == (
        "3 members: stforecast Persistence, stforecast LinearRegression, stforecast Warmer"
    )
    one = predict(weather, models[:1])
    assert one["2m_temperature"].dims[0] == "realization"
    xr.testing.assert_equal(ensemble.mean(one), predict(weather, models[0]))
    with pytest.raises(InputError, match="'realization' of at least 2, found 1"):
        ensemble.spread(one)
    with pytest.raises(InputError, match="found none"):
        ensemble.mean(predict(weather, models[0]))


def test_bundles_of_members_are_saved_and_loaded(weather, tmp_path):
    def member(seed):
        torch.manual_seed(seed)
        small = {
            "encoder_channels": 4,
            "translator_channels": 8,
            "translator_blocks": 2,
            "mlp_ratio": 1.0,
        }
        return Forecaster(SimVPv2(3, 2, **small), TASK, mean=[280.0], std=[15.0])

    members = [member(seed) for seed in range(11)]  # member-10 comes after member-9
    path = ensemble.save(members, tmp_path / "bundles")
    assert len(list(path.iterdir())) == 11
    fc = predict(weather, members)
    xr.testing.assert_allclose(predict(weather, path, device="cpu"), fc, rtol=0, atol=1e-4)
    three = predict(weather, path, ensemble=3)
    xr.testing.assert_allclose(
        three, fc.isel(realization=slice(0, 3)).assign_attrs(three.attrs), rtol=0, atol=1e-4
    )
    some = predict(weather, [path / "member-7", str(path / "member-1")])
    np.testing.assert_allclose(
        some["2m_temperature"], fc["2m_temperature"].isel(realization=[7, 1]), atol=1e-4
    )
    assert [m.task for m in ensemble.load(path)] == [TASK] * 11
    ensemble.save(members[:2], path)  # the older one is replaced whole
    assert len(ensemble.load(path)) == 2
    store = write_forecast(predict(weather.chunk(time=4), path), tmp_path / "f.zarr")
    back = xr.open_zarr(store, decode_timedelta=True)["2m_temperature"]
    np.testing.assert_allclose(back, fc["2m_temperature"].isel(realization=[0, 1]), atol=1e-4)


def test_networks_of_others_are_loaded_with_their_own(tmp_path):
    path = ensemble.save(warmer(1, 2), tmp_path / "bundles")
    found = ensemble.load(path, network=lambda: Warmer(0))
    assert [m.network.by.item() for m in found] == [1, 2]


def test_what_is_no_ensemble_is_named(weather, tmp_path):
    with pytest.raises(InputError, match="needs 3 models, found one"):
        predict(weather, Persistence(TASK), ensemble=3)
    with pytest.raises(InputError, match="ensemble=3, but there are 2 members"):
        predict(weather, warmer(1, 2), ensemble=3)
    with pytest.raises(InputError, match="at least one member"):
        predict(weather, [])
    with pytest.raises(InputError, match=r"must have one task.*member 1"):
        predict(weather, [Persistence(TASK), Persistence(Task("t2m", 4, 2))])
    with pytest.raises(InputError, match="model must be a Forecaster"):
        predict(weather, [Persistence(TASK), 3])
    with pytest.raises(InputError, match="no ensemble at"):
        ensemble.load(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is no ensemble \(it holds notes.txt\)"):
        ensemble.save(warmer(1), tmp_path / "mine")
    path = ensemble.save(warmer(1, 2), tmp_path / "bundles")
    (path / "member-1" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="is damaged"):
        ensemble.load(path, network=lambda: Warmer(0))
    shutil.rmtree(path / "member-0")
    with pytest.raises(InputError, match="member-0 is missing"):
        predict(weather, path)


# --- lagged: earlier initialisations as members ---------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 3])
def test_members_of_a_lagged_ensemble_are_earlier_forecasts(chunk):
    """Persistence from 2 m hours earlier is the value at that time; other models likewise."""
    weather = make_weather(24, shape=(4, 6))
    theirs = relabel(weather, names={"2m_temperature": "t2m"}, units="degC", north_first=True)
    given = theirs.chunk(time=chunk) if chunk else theirs
    times = weather["time"].values[[20, 9, 10]]
    lagged = {"ensemble": "lagged", "members": 3, "lag": "2h"}
    fc = predict(given, Persistence(TASK), init_time=times, steps=7, batch_size=4, **lagged)
    assert fc["t2m"].dims == (
        "realization",
        "time",
        "prediction_timedelta",
        "latitude",
        "longitude",
    )
    assert bool(fc.chunks) == bool(chunk)
    np.testing.assert_array_equal(fc["time"], times)
    leads = np.arange(1, 4) * np.timedelta64(1, "h")  # 7 - 2 * 2
    np.testing.assert_array_equal(fc["prediction_timedelta"], leads)
    np.testing.assert_array_equal(fc["valid_time"], times[:, None] + leads)
    assert fc["t2m"].attrs["units"] == "degC"
    assert fc.attrs["source"].startswith("3 members, initialised 2 steps apart: stforecast")
    for member in range(3):
        earlier = times - member * np.timedelta64(2, "h")
        then = theirs["t2m"].sel(time=earlier).values[:, None]
        found = fc["t2m"].isel(realization=member).values
        np.testing.assert_allclose(found, np.broadcast_to(then, found.shape), atol=1e-4)

    model = warmer(4)[0]
    fc = model.predict(given, init_time=times, steps=5, ensemble="lagged", members=2)
    assert fc.sizes["prediction_timedelta"] == 4
    before = model.predict(given, init_time=times - np.timedelta64(1, "h"), steps=5)
    before = before.isel(prediction_timedelta=slice(1, None))
    np.testing.assert_array_equal(fc["valid_time"], before["valid_time"])
    np.testing.assert_array_equal(fc["t2m"].isel(realization=1), before["t2m"])


def test_a_lagged_ensemble_needs_its_earlier_forecasts(weather, tmp_path):
    gap = weather.isel(time=[0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11])  # without 5
    lagged = {"steps": 4, "ensemble": "lagged", "members": 3}
    model = Persistence(TASK)
    found = predict(gap, model, init_time=slice(None), **lagged)
    np.testing.assert_array_equal(found["time"], gap["time"].values[[4, 9, 10]])
    newest = predict(weather, model, **lagged)  # its own newest initialisation
    assert newest["time"].values == weather["time"].values[-1:]
    assert predict(weather, model, steps=4, ensemble="lagged").sizes["realization"] == 4
    with pytest.raises(
        InputError, match=r"1 of 1 initialisations lack input: .* 08:00:00 needs 5 steps"
    ):
        predict(gap, model, init_time=gap["time"].values[7], **lagged)
    store = write_forecast(
        predict(weather.chunk(time=5), model, init_time=slice(None), **lagged), tmp_path / "fc.zarr"
    )
    whole = predict(weather, model, init_time=slice(None), **lagged)
    np.testing.assert_array_equal(xr.open_zarr(store)["2m_temperature"], whole["2m_temperature"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ensemble": "lags"}, "ensemble must be 'lagged', or the number of members .* 'lags'"),
        ({"ensemble": "lagged"}, "4 members, each initialised .* share no lead time of 2 steps"),
        ({"ensemble": "lagged", "members": 1}, "members must be a whole number of at least 2"),
        ({"ensemble": "lagged", "members": True}, "members must be a whole number of at least 2"),
        ({"ensemble": "lagged", "members": 2, "lag": "90min"}, "lag must be a multiple of"),
        ({"ensemble": "lagged", "members": 2, "lag": 1}, "lag must be a multiple .* found 1"),
        ({"ensemble": "lagged", "members": 2, "lag": "-1h"}, "lag must be a multiple"),
        ({"members": 2}, r"members and lag are those of predict\(ensemble='lagged'\)"),
        ({"ensemble": "lagged", "model": warmer(1, 2)}, "a lagged ensemble is of one model"),
    ],
)  # fmt: skip
def test_a_lagged_ensemble_that_cannot_be(weather, options, words):
    with pytest.raises(InputError, match=words):
        predict(weather, **{"model": Persistence(TASK)} | options)
