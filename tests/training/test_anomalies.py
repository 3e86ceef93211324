"""Training on anomalies, on what is known for the target times, and on lags."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers import tiny
from torch import nn

import stforecast
from stforecast.baselines import LinearRegression
from stforecast.baselines.reference import fit_reference
from stforecast.errors import InputError
from stforecast.loading.source import Source
from stforecast.task import Task
from stforecast.testing import make_forecast, make_weather, relabel
from stforecast.training import TrainConfig, fit
from stforecast.training.anomalies import fit_usual

CONFIG = TrainConfig(steps=150, batch_size=32, learning_rate=0.02, precision="fp32", device="cpu")


class Mix(nn.Module):
    """Every target step from all channels of all frames, the same at all points."""

    def __init__(self, task):
        super().__init__()
        self.sizes = task.target_steps, task.channels_out
        self.linear = nn.Linear(
            task.input_steps * task.channels_in, task.target_steps * task.channels_out
        )

    def forward(self, x):
        y = self.linear(x.movedim((1, 2), (-2, -1)).flatten(-2))
        return y.unflatten(-1, self.sizes).movedim((-2, -1), (1, 2))


def flows(weeks, *, seed=0, start="2018-01-01", cycle=5):
    """White noise on a 2 x 3 grid around a usual week, and an announced event."""
    time = pd.date_range(start, periods=weeks * 28, freq="6h")
    rng = np.random.default_rng(seed)
    shape = (len(time), 2, 3)
    event = rng.normal(size=shape)
    usual = 20 + cycle * np.sin(2 * np.pi * np.arange(28) / 28)
    flow = np.tile(usual, weeks)[:, None, None] + 3 * event + 0.05 * rng.normal(size=shape)
    dims = ("time", "y", "x")
    data = {"flow": (dims, flow.astype(np.float32)), "event": (dims, event.astype(np.float32))}
    return xr.Dataset(data, {"time": time})


def rmse(forecaster, ds, inits, **options):
    out = forecaster.predict(ds, init_time=inits, **options)
    truth = ds["flow"].sel(time=out["valid_time"])
    return float(np.sqrt(((out["flow"] - truth) ** 2).mean()))


def test_a_task_that_only_what_is_known_solves():
    train, test = flows(8, cycle=0), flows(3, seed=1, start="2018-03-26", cycle=0)
    plain, knows = Task("flow", 2, 2, "6h"), Task("flow", 2, 2, "6h", known="event")
    inits = test["time"].values[4:60]
    found = [
        rmse(fit(train, task, model=lambda task=task: Mix(task), config=CONFIG), test, inits)
        for task in (plain, knows)
    ]
    assert found[1] < 0.1 * found[0]


def test_what_is_known_comes_from_another_dataset_too(tmp_path):
    task = Task("flow", 2, 2, "6h", reference="weekly", known=("event", "reference"))
    forecaster = fit(flows(4), task, model=lambda: Mix(task), config=CONFIG)
    forecaster = stforecast.load(forecaster.save(tmp_path / "b"), network=Mix(task))
    test = flows(3, seed=1)
    past, ahead = test.isel(time=slice(0, 40)), test[["event"]].isel(time=slice(40, 60))
    whole = forecaster.predict(test, init_time=past["time"].values[-1], steps=5)
    found = forecaster.predict(past, known=ahead, steps=5)
    xr.testing.assert_allclose(found, whole)
    lazy = forecaster.predict(past.chunk(time=7), known=ahead.chunk(time=3), steps=5)
    xr.testing.assert_allclose(lazy.compute(), whole)
    with pytest.raises(InputError, match=r"'event' is not in the data for 2 of the 2 valid times"):
        forecaster.predict(past)
    with pytest.raises(InputError, match=r"NaN or infinite at the valid time"):
        forecaster.predict(past, known=ahead.where(ahead["time"] != ahead["time"][1]))


def test_what_is_known_may_be_the_same_everywhere_and_a_mask():
    ds = flows(4)
    ds["event"] = (ds["time"].dt.dayofweek == 6).astype("f4").broadcast_like(ds["flow"])
    sunday = (ds["time"].dt.dayofweek == 6).rename("event")
    task = Task("flow", 2, 2, "6h", known="event")
    config = replace(CONFIG, steps=2)
    made = [fit(one, task, model=lambda: Mix(task), config=config) for one in (
        ds, ds.assign(event=sunday)
    )]  # fmt: skip
    inits = ds["time"].values[4:60]
    want = made[0].predict(ds, init_time=inits)
    xr.testing.assert_equal(made[1].predict(ds, init_time=inits), want)
    for apart in (sunday, sunday.astype("i1").rename(time="valid_time"), ds["event"] > 0.5):
        got = made[0].predict(ds[["flow"]], init_time=inits, known=apart.to_dataset())
        xr.testing.assert_equal(got, want)


def test_what_is_known_is_in_its_units_and_on_the_grid_of_the_data():
    space = {"latitude": [-40.0, 40.0], "longitude": [0.0, 120.0, 240.0]}
    ds = flows(3).rename(y="latitude", x="longitude").assign_coords(space)
    ds["event"].attrs["units"] = "m s-1"
    task = Task("flow", 2, 2, "6h", known="event")
    net = fit(ds, task, model=lambda: Mix(task), config=replace(CONFIG, steps=2))
    knots = (ds["event"] * 1.94384).assign_attrs(units="knot").to_dataset()
    for made in (net, LinearRegression.fit(ds, task, neighbours=0)):
        want, event = made.predict(ds, init_time=ds["time"].values[9:12]), ds[["event"]]
        options = {"ds": ds[["flow"]], "init_time": ds["time"].values[9:12]}
        turned = relabel(event, north_first=True, west_negative=True)
        xr.testing.assert_allclose(made.predict(known=turned, **options), want)
        with pytest.raises(InputError, match=r"'event' is in 'knot'.* trained on 'm s-1'"):
            made.predict(known=knots, **options)
        with pytest.raises(InputError, match=r"'event' is in 'knot'.* trained on 'm s-1'"):
            made.predict(ds.assign(knots), init_time=options["init_time"])
        for other in (event.assign_coords(latitude=[10.0, 20.0]), event.drop_vars(space).rename(
            latitude="y", longitude="x"
        )):  # fmt: skip
            with pytest.raises(InputError, match="'event' lies on another grid"):
                made.predict(known=other, **options)


def test_forecasts_that_are_known_are_in_their_units():
    weather = make_weather(40, shape=(2, 4))
    other = make_forecast(weather, inits=38, steps=2).rename({"2m_temperature": "rain"})
    other["rain"].attrs = {"units": "mm"}
    task = Task("t2m", 2, 2, known="rain")
    ds = weather.isel(time=slice(38)).merge(other.drop_vars("valid_time"))
    made = fit(ds, task, model=lambda: Mix(task), config=replace(CONFIG, steps=2))
    assert made.predict(ds).sizes["time"] == 1
    metres = other.assign(rain=(other["rain"] / 1000).assign_attrs(units="m"))
    with pytest.raises(InputError, match=r"'rain' is in 'm'.* trained on 'mm'"):
        made.predict(weather.isel(time=slice(38)), known=metres)
    given = weather.isel(time=slice(38)).merge(metres.drop_vars("valid_time"))
    with pytest.raises(InputError, match="'rain' is in 'm' in the validation data"):
        fit(ds, task, model=lambda: Mix(task), config=replace(CONFIG, steps=2), validation=given)


@pytest.mark.parametrize("lags", [(), ("7D",), ("1D", "8D")])
@pytest.mark.parametrize("reference", ["weekly", "climatology"])
def test_a_window_learns_nothing_of_its_own_targets(reference, lags):
    """What is usual, at all steps that a window sees, is the same whatever its targets are."""
    if reference == "weekly":
        ds = flows(6)
    else:
        time = pd.date_range("2001-01-01", "2004-12-31T18:00", freq="6h")
        values = np.random.default_rng(0).normal(size=(len(time), 1, 2)).astype(np.float32)
        ds = xr.Dataset({"flow": (("time", "y", "x"), values)}, {"time": time})
    task = Task("flow", 2, 2, "6h", reference=reference, lags=lags)
    for start in (3, 27, 1420):
        if start + task.window > ds.sizes["time"]:
            continue
        steps = np.array([start])
        spoiled = ds.copy(deep=True)
        spoiled["flow"].values[start + task.history : start + task.window] += 100
        found = []
        for data in (ds, spoiled):
            source = Source(data, task)
            usual = fit_usual(source.ds, task)
            usual.ready(source.starts, torch.device("cpu"))
            found.append(usual(steps).numpy())
        np.testing.assert_allclose(found[1], found[0], atol=1e-3)
        whole = [fit_reference(Source(d, task).ds, task).fields for d in (ds, spoiled)]
        assert abs(whole[1] - whole[0]).max() > 1e-2  # the whole period's does hold them


def test_lags_are_the_outputs_at_the_same_time_of_earlier_days():
    time = pd.date_range("2018-01-01", periods=200, freq="6h")
    week = np.random.default_rng(0).normal(size=(28, 2, 3)).astype(np.float32)
    values = np.tile(week, (8, 1, 1))[:200]
    ds = xr.Dataset({"flow": (("time", "y", "x"), values)}, {"time": time})
    task = Task("flow", 2, 2, "6h", lags="7D")
    assert (task.history, task.window, task.channels_in) == (28, 30, 2)
    forecaster = fit(ds.isel(time=slice(40, None)), task, model=lambda: Mix(task), config=CONFIG)
    assert rmse(forecaster, ds, time[70:190]) < 0.05
    # Twice the steps: the second application finds its lags in the history as well.
    assert rmse(forecaster, ds, time[70:190], steps=4) < 0.05
    with pytest.raises(InputError, match="history of 28 steps for its lags, found 2"):
        forecaster.forecast(values[None, :2, None], time[1:2])
    with pytest.raises(InputError, match="28 steps of 6h in a row"):
        forecaster.predict(ds.isel(time=slice(0, 20)))


def test_no_forecast_is_below_the_lower_bound():
    task = Task("flow", 2, 2, "6h", reference="weekly", lower=20)
    forecaster = fit(flows(4), task, model=lambda: Mix(task), config=CONFIG)
    out = forecaster.predict(flows(3, seed=1), init_time=slice(None), steps=6)["flow"]
    assert float(out.min()) == 20
    assert float((out == 20).mean()) > 0.1


GLOBE = Task(
    "t2m", 4, 3, "1h", known=("toa_incident_solar_radiation", "latitude_sin", "land"), lower=0
)


@pytest.fixture(scope="module")
def globe():
    ds = stforecast.testing.make_weather(60, shape=(6, 10))
    land = (np.arange(60).reshape(6, 10) % 3 == 0).astype(np.float32)
    return ds.assign(land=(("latitude", "longitude"), land))


def test_fields_that_never_change_are_kept_with_the_forecaster(globe, tmp_path):
    def network():
        return tiny(channels=GLOBE.channels_in, out_channels=1)

    config = TrainConfig(steps=3, batch_size=8, device="cpu", precision="fp32")
    forecaster = fit(globe, GLOBE, model=network, config=config, validation=None)
    assert sorted(forecaster.still) == ["land", "latitude_sin"]
    np.testing.assert_array_equal(forecaster.still["land"].numpy(), globe["land"].values)
    again = stforecast.load(forecaster.save(tmp_path / "bundle"))
    whole = forecaster.predict(globe)
    xr.testing.assert_identical(again.predict(globe.drop_vars("land")), whole)  # nor is it needed
    # The order of rows and the sign of longitudes are the caller's, and do not matter.
    other = globe.drop_vars("land").isel(latitude=slice(None, None, -1))
    turned = again.predict(other)["2m_temperature"].sel(latitude=globe["latitude"])
    np.testing.assert_allclose(turned.values, whole["2m_temperature"].values, atol=1e-4)
    text = (tmp_path / "bundle" / "bundle.json").read_text()
    (tmp_path / "bundle" / "bundle.json").write_text(text.replace('"land"', '"lake"'))
    with pytest.raises(InputError, match="land"):
        stforecast.load(tmp_path / "bundle")


def test_streams_and_residents_give_the_same_windows(globe):
    from stforecast.loading import open_feed

    task = Task("t2m", 4, 3, known=("toa_incident_solar_radiation", "land"), lags="12h")
    feeds = [
        open_feed(globe.chunk(time=10), task, 8, feed=f, shuffle=False, buffer=2**20)
        for f in ("resident", "stream")
    ]
    with feeds[0] as resident, feeds[1] as stream:
        assert resident.channels == ("2m_temperature", "toa_incident_solar_radiation")
        for step in range(resident.steps_per_epoch):
            one, other = resident.batch(step), stream.batch(step)
            for a, b in zip((*one, one.known), (*other, other.known), strict=True):
                assert torch.equal(a, b)
            assert (one.first == other.first).all()
            assert one[0].shape[1] == 12
            at = globe["time"].values[one.first[0] + 12]
            truth = globe["2m_temperature"].sel(time=at).values
            assert torch.equal(one[1][0, 0, 0], torch.from_numpy(truth))


@pytest.mark.parametrize("kind", ["weekly", "climatology"])
def test_a_resumed_run_is_the_same_to_the_bit(kind, tmp_path):
    ds = flows(4) if kind == "weekly" else None
    if ds is None:
        time = pd.date_range("2001-01-01", "2001-12-31T18:00", freq="6h")
        values = np.random.default_rng(0).normal(size=(len(time), 2, 2)).astype(np.float32)
        ds = xr.Dataset({"flow": (("time", "y", "x"), values)}, {"time": time})
    task = Task("flow", 2, 2, "6h", reference=kind, known="reference")
    config = TrainConfig(steps=6, batch_size=8, checkpoint_every=2, device="cpu", precision="fp32")
    options = {"model": lambda: Mix(task), "config": config, "progress": False}
    whole = fit(ds, task, **options)

    class Stop(Exception):
        pass

    def stop(event):
        if event["step"] == 4:
            raise Stop

    with pytest.raises(Stop):
        fit(ds, task, run_dir=tmp_path, **options | {"progress": stop})
    again = fit(ds, task, run_dir=tmp_path, **options)
    for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": "mean"}, "must be one of climatology, weekly"),
        ({"known": "reference"}, "say which"),
        ({"known": "t2m"}, "in Task.variables and in Task.known"),
        ({"known": "u10", "targets": ["t2m", "u10"]}, "choose one of both"),
        ({"lags": "11h"}, "at least 0 days 12:00:00"),
        ({"lags": "90min"}, "multiple of the step"),
        ({"lags": 24}, "must read as time differences"),
        ({"lags": ["1D", "24h"]}, "different from each other"),
        ({"lags": "1D", "targets": "u10"}, "need the history of"),
        ({"lower": "no"}, "must be a finite number"),
        ({"lower": np.nan}, "must be a finite number"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        Task("t2m", **options)


def test_a_task_goes_to_json_and_back():
    task = Task("t2m", 4, 6, reference="climatology", known="tisr", lags=["1D"], lower=0)
    assert Task(**task.to_dict()) == task
    assert "lags" not in Task("t2m").to_dict()
    assert task.channels_in == 1 + 2 * 2  # six target steps on four frames
    assert "around the climatology" in str(task)
    assert "1D before" in str(task)


def test_what_cannot_be_known_is_refused(globe):
    with pytest.raises(InputError, match="'rain', which is not among the data"):
        fit(globe, Task("t2m", 4, 3, known="rain"), config=CONFIG)
    with pytest.raises(InputError, match=r"give Forecaster\(reference=\)"):
        stforecast.Forecaster(nn.Identity(), Task("t2m", reference="climatology"))


def guesses(ds, leads=3):
    """Another model's forecast of `ds`: right but for a sign, so that it must be looked at."""
    time = ds["time"].values[:-leads]
    lead = np.timedelta64(6, "h") * np.arange(1, leads + 1)
    values = np.stack([-ds["flow"].values[k : len(time) + k] for k in range(1, leads + 1)], axis=1)
    dims = ("time", "prediction_timedelta", "y", "x")
    coords = {"time": time, "prediction_timedelta": lead}
    return xr.Dataset({"guess": (dims, values)}, coords)


def test_another_models_forecast_is_known_by_initialisation_and_lead_time():
    ds, task = flows(4), Task("flow", 2, 2, "6h", known=("guess", "event"))
    train = ds.isel(time=slice(0, -3))
    whole = train.merge(guesses(ds))
    config = replace(CONFIG, steps=600)
    forecaster = fit(whole, task, model=lambda: Mix(task), config=config)
    inits = train["time"].values[30:80]
    out = forecaster.predict(whole, init_time=inits)
    truth = ds["flow"].sel(time=out["valid_time"])
    assert float(np.sqrt(((out["flow"] - truth) ** 2).mean())) < 0.1 * float(ds["flow"].std())
    # From a Dataset of its own, and lazily.
    given = ds[["flow"]].isel(time=slice(0, 80))
    known = xr.merge([guesses(ds), ds[["event"]]], join="inner")
    again = forecaster.predict(given, init_time=inits[:9], known=known)
    xr.testing.assert_allclose(again, out.isel(time=slice(0, 9)), atol=1e-5)
    lazy = forecaster.predict(given.chunk(time=11), init_time=inits[:9], known=known.chunk())
    xr.testing.assert_allclose(lazy.compute(), again)
    with pytest.raises(InputError, match="lacks the lead time 0 days 18:00:00"):
        forecaster.predict(
            given, init_time=inits[:2], known=known.isel(prediction_timedelta=[0, 1]), steps=4
        )
    with pytest.raises(InputError, match=r"which Task\.known names, lacks the lead time 0 days 12"):
        fit(whole.isel(prediction_timedelta=[0]), task, model=lambda: Mix(task), config=CONFIG)


def test_streams_and_residents_know_the_same_forecasts():
    from stforecast.loading import open_feed

    ds = flows(4)
    whole = ds.isel(time=slice(0, -3)).merge(guesses(ds))
    task = Task("flow", 2, 2, "6h", known=("guess", "event"))
    options = {"shuffle": False, "buffer": 2**18}
    with (
        open_feed(whole.chunk(time=10), task, 8, feed="stream", **options) as stream,
        open_feed(whole, task, 8, feed="resident", shuffle=False) as resident,
    ):
        one, other = stream.batch(1), resident.batch(1)
        assert torch.equal(one.known, other.known)
        at = other.first + 2  # the first target step
        values = ds["flow"].values
        np.testing.assert_array_equal(other.known[:, 0, 0].numpy(), -values[at])
        np.testing.assert_array_equal(other.known[:, 1, 0].numpy(), -values[at + 1])
        np.testing.assert_array_equal(other.known[:, 1, 1].numpy(), ds["event"].values[at + 1])
