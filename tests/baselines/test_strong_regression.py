"""The strong form of linear regression: climatology, sun, what is known, lags, a lower bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.baselines import LinearRegression
from stforecast.datasets.forcings import sun_at
from stforecast.errors import InputError
from stforecast.task import Task, initialisations

NCEP = Path(__file__).parents[3] / "shared/data/ncep_air_temperature/air_temperature.zarr"
LATITUDE, LONGITUDE = np.array([-50.0, 10, 40]), np.array([0.0, 90, 180, 270])
TASK = Task("field", 3, 2, "6h")


def on_globe(start, stop, seed=0):
    """Seasons, days, and an anomaly that grows with the sun at its own time and forgets."""
    time = pd.date_range(start, stop, freq="6h")
    rng = np.random.default_rng(seed)
    sun = sun_at(time.to_numpy(), LATITUDE, LONGITUDE) / 1000
    weather = np.zeros(sun.shape)
    for i in range(1, len(time)):
        weather[i] = 0.8 * weather[i - 1] + 0.1 * rng.normal(size=sun.shape[1:])
    season = 10 * np.cos(2 * np.pi * (time.day_of_year.to_numpy() - 1) / 365)
    values = 280 + season[:, None, None] * np.sign(LATITUDE)[:, None] + weather * (1 + sun)
    space = {"latitude": LATITUDE, "longitude": LONGITUDE}
    data = {"field": (("time", *space), values.astype(np.float32), {"units": "K"})}
    return xr.Dataset(data, {"time": time, **space})


def flow(weeks, known=True):
    """A usual week, and what is announced for each time."""
    time = pd.date_range("2018-01-01", periods=28 * weeks, freq="6h")
    rng = np.random.default_rng(weeks)
    usual = np.tile(10 * rng.uniform(size=(28, 2, 3)), (weeks, 1, 1))
    event = (rng.uniform(size=usual.shape) < 0.2) * 4.0
    values = usual + event * np.arange(1, 4) + 0.01 * rng.normal(size=usual.shape)
    dims = ("time", "y", "x")
    data = {"flow": (dims, values.astype(np.float32))}
    return xr.Dataset(data | {"event": (dims, event.astype(np.float32))}, {"time": time})


def errors(model, ds, name, inits, **options):
    out = model.predict(ds, init_time=inits, **options)
    truth = ds[name].sel(time=out["valid_time"])
    others = [d for d in out[name].dims if d != "prediction_timedelta"]
    return np.sqrt(((out[name] - truth) ** 2).mean(others)).values


def test_on_a_globe_it_knows_the_season():
    train, test = (
        on_globe("2001-01-01", "2002-12-31T18"),
        on_globe("2003-01-01", "2003-12-31T18", 1),
    )
    inits = initialisations(test, TASK)
    forms = [LinearRegression.fit(train, TASK, form=form) for form in ("strong", "plain")]
    assert forms[0].dataset.attrs["reference"] == "harmonics"
    assert forms[0].dataset.attrs["sun"] == 1
    assert "usual" not in forms[1].dataset
    strong, plain = (errors(m, test, "field", inits) for m in forms)
    assert (strong < plain).all()
    # It is a regression of anomalies: of a field that is its climatology, it forecasts just that.
    calm = test.copy(deep=True)
    season = 10 * np.cos(2 * np.pi * (test["time"].dt.dayofyear - 1) / 365)
    calm["field"].values[:] = (280 + season).values[:, None, None] * np.ones((3, 4))
    calm["field"].values[:, 0] = (280 - season).values[:, None]
    assert (errors(forms[0], calm, "field", inits) < 0.15).all()


def test_blocks_of_dask_and_bands_give_what_the_whole_gives(monkeypatch):
    train = on_globe("2001-01-01", "2001-12-31T18")
    whole = LinearRegression.fit(train, TASK)
    monkeypatch.setattr("stforecast.baselines.regression._READ", 2**13)
    for other in (
        LinearRegression.fit(train.chunk(time=97), TASK),
        LinearRegression.fit(train, TASK, max_bytes=1),
    ):
        # Solutions of near-singular systems: compare what they forecast.
        one, two = (m.predict(train, init_time=slice("2001-03", "2001-04")) for m in (whole, other))
        np.testing.assert_allclose(two["field"].values, one["field"].values, atol=2e-3)


def test_flows_are_taken_around_their_week_and_with_what_is_known():
    train = flow(6)
    plain = Task("flow", 2, 2, "6h")
    knows = Task("flow", 2, 2, "6h", known="event")
    found = [LinearRegression.fit(train, task) for task in (plain, knows)]
    assert found[0].dataset.attrs["reference"] == "week"
    inits = train["time"].values[40:90]
    blind, seeing = (errors(m, train, "flow", inits) for m in found)
    assert (seeing < 0.6 * blind).all()  # what is left is the median's own error
    further = found[1].predict(train, init_time=inits[:3], steps=5)  # on its own output
    np.testing.assert_array_equal(
        further["flow"].values[:, :2], found[1].predict(train, init_time=inits[:3])["flow"].values
    )
    with pytest.raises(InputError, match="'event' is not in the data"):
        found[1].predict(train)


def test_lags_recall_the_day_before():
    time = pd.date_range("2018-01-01", periods=160, freq="6h")
    values = np.random.default_rng(0).normal(size=(160, 2, 2)).astype(np.float32)
    for i in range(4, 160):
        values[i] = values[i - 4]
    ds = xr.Dataset({"a": (("time", "y", "x"), values)}, {"time": time})
    task = Task("a", 2, 2, "6h", lags="1D", lower=-1)
    model = LinearRegression.fit(ds, task, form="plain")
    out = model.predict(ds, init_time=time[10:100], steps=4)["a"]
    truth = ds["a"].sel(time=out["valid_time"]).clip(min=-1)
    np.testing.assert_allclose(out.values, truth.values, atol=1e-3)
    assert float(out.min()) == -1
    with pytest.raises(InputError, match=r"needs 4 steps of history .* found 2"):
        model.forecast(values[None, :2, None], time[1:2], 2)


def test_what_was_saved_forecasts_the_same(tmp_path):
    ds = flow(5)
    task = Task("flow", 2, 2, "6h", reference="weekly", known=("event", "reference"), lags="7D")
    model = LinearRegression.fit(ds, task, neighbours=0)
    again = LinearRegression.load(model.save(tmp_path / "model.nc"))
    inits = ds["time"].values[50:60]
    xr.testing.assert_identical(
        again.predict(ds, init_time=inits), model.predict(ds, init_time=inits)
    )


@pytest.mark.skipif(not NCEP.exists(), reason="needs ../shared/data")
def test_real_temperatures_are_forecast_better_with_a_climatology():
    ds = xr.open_zarr(NCEP)[["air"]].isel(lat=slice(8, 16), lon=slice(16, 28)).load()
    train, test = ds.sel(time="2013"), ds.sel(time="2014")
    task = Task("air", 4, 4, "6h")
    inits = initialisations(test, task)
    strong, plain = (
        errors(LinearRegression.fit(train, task, form=form), test, "air", inits)
        for form in ("strong", "plain")
    )
    assert (strong < [0.9, 0.95, 0.98, 1] * plain).all()


def test_another_form_is_refused():
    with pytest.raises(InputError, match="form must be 'strong' or 'plain'"):
        LinearRegression.fit(flow(4), Task("flow"), form="weak")
