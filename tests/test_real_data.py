"""Data that nobody here made: NCEP/NCAR reanalysis, and ERA5 as downloaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stforecast.baselines.persistence import Persistence
from stforecast.datasets.weather import open_weatherbench
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.predict import predict
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit

DATA = Path(__file__).parents[1].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"no data at {DATA}")

SMALL = partial(
    SimVPv2,
    encoder_channels=16,
    translator_channels=64,
    translator_blocks=4,
    mlp_ratio=4.0,
    drop_path=0.0,
    predict_change=True,
)


def test_ncep_beats_persistence():
    """Real 6-hourly analyses, 25 x 53, north first: fit on 2013, better at 24 hours on 2014."""
    ds = xr.open_zarr(DATA / "ncep_air_temperature/air_temperature.zarr")
    task = Task("air", input_steps=4, target_steps=4, timestep="6h")
    config = TrainConfig(
        steps=60, batch_size=16, learning_rate=3e-3, area_weighted=True, balance_leads=True
    )
    forecaster = fit(ds.sel(time="2013"), task, model=partial(SMALL, 4, 4), config=config)
    test = ds.sel(time="2014")
    init_time = test["time"].values[3:-4:9]
    forecast = predict(test, forecaster, init_time=init_time).compute()
    assert forecast["air"].dims == ("time", "prediction_timedelta", "lat", "lon")
    assert forecast["air"].attrs["units"] == "degK"
    xr.testing.assert_identical(forecast["lat"].variable, ds["lat"].variable)
    xr.testing.assert_identical(forecast["lon"].variable, ds["lon"].variable)
    ours = evaluate(forecast, test)["air"].sel(metric="rmse")
    theirs = evaluate(predict(test, Persistence(task), init_time=init_time), test)["air"].sel(
        metric="rmse"
    )
    ratio = (ours / theirs).values
    print("RMSE in parts of persistence's, 6 to 24 hours:", np.round(ratio, 3))  # noqa: T201
    assert ratio[-1] < 0.9


def test_era5_as_downloaded_keeps_its_labels():
    """A Climate Data Store file: 3-hourly, 43 x 48 over Italy, north first, packed."""
    path = DATA / "era5_t2m_italy/2m_temperature.nc"
    with xr.open_dataset(path) as ds:
        task = Task("t2m", input_steps=8, target_steps=4, timestep="3h")
        config = TrainConfig(steps=20, batch_size=8, learning_rate=3e-3, balance_leads=True)
        forecaster = fit(ds.sel(time="2022-05"), task, model=partial(SMALL, 8, 4), config=config)
        june = ds.sel(time="2022-06")
        forecast = forecaster.predict(june, init_time=slice("2022-06-10", "2022-06-12"))
        assert dict(forecast.sizes) == {
            "time": 24,
            "prediction_timedelta": 4,
            "latitude": 43,
            "longitude": 48,
        }
        for name in ("latitude", "longitude"):
            xr.testing.assert_identical(forecast[name].variable, ds[name].variable)
        assert forecast["t2m"].attrs["units"] == "K"
        assert forecast["t2m"].attrs["long_name"] == "2 metre temperature"
        scores = evaluate(forecast, open_weatherbench(path))
        assert 0 < float(scores["2m_temperature_overall"].sel(metric="rmse")) < 5
