"""What may judge a forecast: the data that it was made from, and no period that was trained on."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from stforecast import plots
from stforecast.baselines import Climatology, LinearRegression, Persistence, baseline_forecasts
from stforecast.datasets import open_moving_mnist
from stforecast.errors import InputError
from stforecast.evaluation import compare_forecasts, evaluate
from stforecast.forecasting import write_forecast
from stforecast.forecasting.ensemble import combine
from stforecast.forecasting.predict import predict
from stforecast.task import Task
from stforecast.testing import write_mnist
from stforecast.testing.weather import make_weather

CLIPS, TASK = Task("intensity", 10, 10, "1s"), Task("t2m", 2, 2, "6h")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_mnist(tmp_path_factory.mktemp("mnist"), train=5_010)


@pytest.fixture
def mnist(digits):
    def open_(split="test", **options):
        return open_moving_mnist(digits, split, **{"sequences": 3, **options})

    return open_


@pytest.fixture(scope="module")
def year():
    return make_weather(steps=4 * 430, timestep="6h", shape=(4, 8))


OTHERS = [{"split": "train"}, {"split": "validation"}, {"seed": 1}, {"digits": 1}, {"steps": 21}]


@pytest.mark.parametrize("other", OTHERS, ids=str)
@pytest.mark.parametrize("door", ["evaluate", "compare", "strip", "baselines"])
def test_clips_of_other_data_are_no_truth(mnist, tmp_path, other, door):
    import xarray as xr

    at = mnist()["time"].values[9:10]
    made = predict(mnist(), Persistence(CLIPS), init_time=at)
    made = xr.open_zarr(write_forecast(made, tmp_path / "f.zarr"))
    judge = {
        "evaluate": lambda truth: evaluate(made, truth),
        "compare": lambda truth: compare_forecasts({"a": made}, truth, weights="uniform"),
        "strip": lambda truth: plots.clip_strip({"a": made}, truth),
        "baselines": lambda truth: baseline_forecasts(made, truth),
    }[door]
    with pytest.raises(InputError, match=r"made from \[Moving MNIST; split=test.*truth is \["):
        judge(mnist(**other))
    judge(mnist(sequences=5))  # sequence i is the same whatever comes after it


def test_a_forecast_says_which_clip_it_is_of(mnist):
    ds = mnist()
    at = ds["time"].values[[9, 49]]
    made = predict(ds, Persistence(CLIPS), init_time=at)
    assert made["clip"].dims == ("time",)
    assert made["clip"].values.tolist() == [0, 2]
    assert made.attrs["fingerprint"] == ds.attrs["fingerprint"]
    assert evaluate(made, ds).attrs["initialisations"] == 2


def fit(kind, ds):
    return kind.fit(ds, TASK)


@pytest.mark.parametrize("kind", [Climatology, LinearRegression])
def test_a_period_that_was_fitted_to_is_told_and_does_not_judge(year, kind, caplog):
    train, test = year.isel(time=slice(0, 1600)), year.isel(time=slice(1600, None))
    model = kind.fit(train, TASK)
    before, after = (p["time"].values[5:30] for p in (train, test))
    seen, fresh = predict(train, model, init_time=before), predict(test, model, init_time=after)
    assert seen.attrs["training_period"] == "2001-01-01T00:00:00/2002-02-04T18:00:00"
    with caplog.at_level(logging.WARNING):
        expected = evaluate(fresh, year)
        compare_forecasts({"a": fresh}, year)
    assert "training period" not in caplog.text
    assert expected.attrs["initialisations"] == 25
    for judge in (
        lambda: evaluate(seen, year, allow_overlap=False),
        lambda: compare_forecasts({"a": seen}, year),
        lambda: evaluate(combine([seen, seen]), year, allow_overlap=False),
    ):
        with pytest.raises(InputError, match=r"26 of the 26 times.*allow_overlap=True"):
            judge()
    compare_forecasts({"a": seen}, year, allow_overlap=True)
    evaluate(seen, year, allow_overlap=True)
    assert "training period" not in caplog.text
    evaluate(seen, year)
    assert "a period that was trained on cannot judge" in caplog.text


def test_baselines_are_not_fitted_to_what_is_scored(year):
    train, test = year.isel(time=slice(0, 1600)), year.isel(time=slice(1600, None))
    forecast = predict(test, Persistence(TASK), init_time=test["time"].values[12:40])
    assert len(baseline_forecasts(forecast, year, train=train)) == 3
    around = year.isel(time=np.r_[0:1600, 1660:1720])  # the scored period is a gap in it
    assert len(baseline_forecasts(forecast, year, train=around)) == 3
    own = Climatology.fit(year, TASK).dataset
    for options in (
        {"train": year},
        {"train": test},
        {"climatology": own},
    ):
        with pytest.raises(InputError, match="a period that was trained on cannot judge"):
            baseline_forecasts(forecast, year, **options)
        allowed = baseline_forecasts(forecast, year, **options, allow_overlap=True)
        assert "Persistence" in allowed
