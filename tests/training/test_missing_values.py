"""Values that are missing: neither loss nor score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import SHARED, tiny
from weather_task import CONFIG, TASK, ocean

from stforecast.baselines.climatology import Climatology
from stforecast.baselines.persistence import Persistence
from stforecast.conventions.grid import area_weights
from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.forecaster import load
from stforecast.forecasting.predict import predict
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task, initialisations
from stforecast.testing.weather import make_weather
from stforecast.training.fit import fit
from stforecast.training.objective import Objective


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
