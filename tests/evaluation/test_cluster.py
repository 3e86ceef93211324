"""The same figures on a `dask.distributed` cluster of processes as on threads."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.baselines.climatology import Climatology
from stforecast.baselines.regression import LinearRegression
from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.evaluation.metrics import Metric
from stforecast.task import Task

distributed = pytest.importorskip("distributed")
T2M, LEAD = "2m_temperature", "prediction_timedelta"
SPACE = {"latitude": np.linspace(-90, 90, 13), "longitude": np.arange(24) * 15.0}
TASK = Task(T2M, 3, 4, "6h")


@pytest.fixture(scope="module")
def client():
    """Two processes of one thread each, closed at the end."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[xr.Dataset, xr.Dataset]:
    """Forecast and truth in zarr stores, as `xr.open_zarr` gives them."""
    rng = np.random.default_rng(0)
    time = pd.date_range("2016-01-01", periods=120, freq="6h").to_numpy()
    values = 280 + 5 * rng.normal(size=(120, 13, 24)).astype("f4")
    truth = xr.Dataset({T2M: (("time", *SPACE), values, {"units": "K"})}, {"time": time, **SPACE})
    leads = (np.arange(1, 5) * np.timedelta64(6, "h")).astype("m8[ns]")
    at = np.arange(0, 112, 2)[:, None] + np.arange(1, 5)
    wrong = values[at] + rng.normal(size=(56, 4, 13, 24)).astype("f4")
    coords = {"time": time[0:112:2], LEAD: leads, **SPACE}
    forecast = xr.Dataset({T2M: (("time", LEAD, *SPACE), wrong, {"units": "K"})}, coords)
    directory = tmp_path_factory.mktemp("stores")
    forecast.chunk({"time": 5, LEAD: 3}).to_zarr(directory / "f.zarr", consolidated=False)
    truth.chunk(time=17).to_zarr(directory / "t.zarr", consolidated=False)
    return tuple(xr.open_zarr(directory / f"{x}.zarr", consolidated=False) for x in "ft")


@contextlib.contextmanager
def scored_there(client, least=24):
    """Use a cluster, and see that it did the work: more than looking at one step of truth."""
    before = sum(client.run(lambda dask_worker: dask_worker.state.executed_count).values())
    with client.as_current():
        yield
    after = sum(client.run(lambda dask_worker: dask_worker.state.executed_count).values())
    assert after - before >= least


def climatology(truth: xr.Dataset) -> Climatology:
    days = {"hour": np.arange(0, 24, 6), "dayofyear": np.arange(1, 367)}
    values = 280 + np.random.default_rng(1).normal(size=(4, 366, 13, 24)).astype("f4")
    ds = xr.Dataset({T2M: ((*days, *SPACE), values, {"units": "K"})}, {**days, **SPACE})
    return Climatology(ds, TASK)


CASES = {
    "by lead": lambda f, t: (f, t, {"climatology": climatology(t)}),
    "regions": lambda f, t: (f, t, {"regions": ("tropics", "europe"), "by": ("time",)}),
    "by place": lambda f, t: (f, t, {"by": ("longitude", "latitude")}),
    "truth in memory": lambda f, t: (f, t.compute(), {}),
    "chunks of places": lambda f, t: (
        f.chunk(time=-1, latitude=4, longitude=5),
        t,
        {"climatology": climatology(t).dataset.chunk(dayofyear=50)},
    ),
    "another layout": lambda f, t: (f.transpose("longitude", LEAD, "latitude", "time"), t, {}),
    "members": lambda f, t: (
        xr.concat([f, f + 1, f - 2], "realization").chunk(realization=2),
        t,
        {"ensemble": "members"},
    ),
    "mean of members": lambda f, t: (xr.concat([f, f + 1, f - 2], "realization"), t, {}),
    "frames": lambda f, t: (
        f,
        t,
        {"metrics": ("ssim", "rmse"), "data_range": 80.0, "weights": "uniform"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_cluster_gives_the_same_figures_to_the_bit(client, pair, case):
    forecast, truth, options = CASES[case](*pair)
    expected = evaluate(forecast, truth, **options)
    with scored_there(client):
        found = evaluate(forecast, truth, **options)
    xr.testing.assert_identical(found, expected)


def test_data_in_memory_are_scored_where_they_are(client, pair):
    forecast, truth = (ds.compute() for ds in pair)
    before = sum(client.run(lambda dask_worker: dask_worker.state.executed_count).values())
    with client.as_current():
        found = evaluate(forecast, truth)
    after = sum(client.run(lambda dask_worker: dask_worker.state.executed_count).values())
    assert after == before
    xr.testing.assert_allclose(found, evaluate(*pair), rtol=1e-12)


def test_what_is_refused_is_refused_in_the_same_words(client, pair):
    forecast, truth = pair
    hole = truth.where((truth.time != truth.time[40]) | (truth.latitude != 0))
    hole[T2M].attrs = truth[T2M].attrs
    with (
        client.as_current(),
        pytest.raises(InputError, match=r"2m_temperature of the truth is NaN .*2016-01-11T00"),
    ):
        evaluate(forecast, hole)


def test_a_statistic_of_ones_own_travels(client, pair):
    misses = Metric("misses", lambda f, t: np.abs(f - t) > 1, units=lambda unit: "1")
    with scored_there(client):
        found = evaluate(*pair, metrics=misses)
    assert float(found[f"{T2M}_overall"][0]) == pytest.approx(0.317, abs=0.01)  # beyond one sigma
    assert found[T2M].attrs["units_misses"] == "1"


def test_linear_regression_is_fitted_on_a_cluster(client, pair):
    truth = pair[1]
    expected = LinearRegression.fit(truth.compute(), TASK, neighbours=0)
    with scored_there(client, least=20):
        found = LinearRegression.fit(truth, TASK, neighbours=0)
    xr.testing.assert_allclose(found.dataset, expected.dataset, rtol=1e-5, atol=1e-6)
