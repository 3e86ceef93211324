"""Forecasters of anomalies: the climatology is theirs, in the forecast and in the bundle."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from stforecast.baselines import Climatology, WeeklyClimatology
from stforecast.errors import InputError
from stforecast.forecasting.forecaster import Forecaster, load
from stforecast.forecasting.predict import predict
from stforecast.forecasting.reference import Reference
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task
from stforecast.testing.weather import make_weather

FLOWS = Task(("inflow", "outflow"), 4, 3, "30min")
WEATHER = Task("field", 2, 2, "6h")


def flows(weeks=3):
    time = pd.date_range("2016-01-06", periods=weeks * 336, freq="30min")
    values = np.random.default_rng(0).gamma(2, 50, (2, len(time), 3, 4)).astype(np.float32)
    attrs = {"units": "1", "long_name": "taxis"}
    data = {v: (("time", "y", "x"), a, attrs) for v, a in zip(FLOWS.outputs, values, strict=True)}
    return xr.Dataset(data, {"time": time})


def weather():
    ds = make_weather(4 * 366, timestep="6h", shape=(4, 8))
    field = ds["2m_temperature"].assign_attrs(units="1")  # a difference in K is no temperature
    return field.to_dataset(name="field")


CASES = {"week": (flows, FLOWS, WeeklyClimatology), "year": (weather, WEATHER, Climatology)}


def table(usual):
    """Cycle, times since its beginning in ns, and fields (K, C, H, W) of a climatology."""
    fields = np.stack([usual.dataset[v].values for v in usual.task.outputs])
    if "week_hour" in usual.dataset:
        return "week", usual.dataset["week_hour"].values * 3600e9, fields.swapaxes(0, 1)
    hours, days = usual.dataset["hour"].values, usual.dataset["dayofyear"].values - 1
    times = (days[:, None] * 24 + hours) * 3600e9  # fields are (C, hour, day, H, W)
    by_day = fields.transpose(2, 1, 0, 3, 4)
    return "year", times.ravel(), by_day.reshape(-1, *by_day.shape[2:])


def around(usual, network):
    """The network's forecaster around a climatology, as bundles hold it."""
    cycle, slots, fields = table(usual)
    about = usual.trained_on
    reference = Reference(cycle, np.round(slots), fields, usual.task.outputs, about)
    return Forecaster(
        network.network, network.task, mean=network.normalizer.mean, std=network.normalizer.std,
        variables=network.variables, reference=reference,
    )  # fmt: skip


def fitted(task):
    torch.manual_seed(0)
    channels = len(task.outputs)
    net = SimVPv2(
        task.input_steps, task.target_steps, channels=channels, encoder_channels=4,
        translator_channels=8, translator_blocks=2, predict_change=True,
    )  # fmt: skip
    units = {v: {"units": "1", "long_name": "an anomaly"} for v in task.outputs}
    return Forecaster(net, task, mean=[1] * channels, std=[30] * channels, variables=units)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [None, 5])
def test_the_climatology_is_subtracted_before_and_added_after(case, steps, tmp_path):
    make, task, kind = CASES[case]
    ds, network = make(), fitted(task)
    usual = kind.fit(ds, task)
    forecaster = around(usual, network)
    at = ds["time"].values[[30, 400, 777]]
    found = predict(ds, forecaster, init_time=at, steps=steps)

    # By hand: the network's own forecast of the anomalies, and the climatology at the valid times.
    anomalies = ds.copy()
    for v in task.outputs:
        anomalies[v] = ds[v] - usual.at(ds["time"])[v].drop_vars("valid_time")
    theirs = predict(anomalies, network, init_time=at, steps=steps)
    for v in task.outputs:
        expected = theirs[v] + usual.at(theirs["valid_time"])[v].values
        np.testing.assert_allclose(found[v], expected, rtol=2e-6)

    # In the bundle, and out of it; lazily, too.
    again = load(forecaster.save(tmp_path / "bundle"))
    np.testing.assert_array_equal(
        predict(ds.chunk(time=100), again, init_time=at, steps=steps).to_dataarray(),
        found.to_dataarray(),
    )
    assert f"climatology ({case})" in repr(again)
    assert again.trained_on == usual.trained_on != {}


def test_what_is_asked_of_it_must_be_there():
    ds, network = flows(), fitted(FLOWS)
    forecaster = around(WeeklyClimatology.fit(ds, FLOWS), network)
    inputs = np.zeros((1, 4, 2, 3, 4), np.float32)
    with pytest.raises(InputError, match=r"give forecast\(init_time=\)"):
        forecaster.forecast(inputs)
    with pytest.raises(InputError, match="nothing at the time of the week of 2016-01-06T00:10"):
        forecaster.forecast(inputs, np.array(["2016-01-06T01:40"], "datetime64[ns]"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cycle": "month"}, "of the week or the year"),
        ({"variables": ["inflow"]}, "fields of 1 variables"),
        ({"more": 1}, "does not fit bundle.json"),
    ],
)
def test_a_bundle_whose_climatology_does_not_fit_is_refused(change, words, tmp_path):
    path = around(WeeklyClimatology.fit(flows(), FLOWS), fitted(FLOWS)).save(tmp_path / "bundle")
    text = json.loads((path / "bundle.json").read_text())
    text["reference"] |= change
    (path / "bundle.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match=words):
        load(path)


def test_a_forecaster_of_scaled_data_becomes_one_of_the_data():
    ds, scaled = flows(), (flows() - 5) / 100
    network = fitted(FLOWS)
    at = ds["time"].values[[30, 400]]
    expected = predict(scaled, network, init_time=at) * 100 + 5
    found = predict(ds, network.rescaled(100, 5), init_time=at)
    np.testing.assert_allclose(found.to_dataarray(), expected.to_dataarray(), rtol=1e-5, atol=1e-3)


def test_a_climatology_lies_where_it_lies():
    """A network takes any meridian for the first, but not the climatology that it is around."""
    ds = weather()
    grid = {d: ds[d].values for d in ("latitude", "longitude")}
    usual = Reference("harmonics", [0, 0], np.ones((1, 1, 4, 8)), WEATHER.outputs, {})
    around_it = replace(WEATHER, reference="climatology")
    plain, fixed = (
        Forecaster(fitted(WEATHER).network, task, grid=grid, reference=reference)
        for task, reference in ((WEATHER, None), (around_it, usual))
    )
    ds = ds.isel(time=slice(4))
    turned = ds.assign_coords(longitude=ds["longitude"] + 22.5)
    assert predict(turned, plain).sizes["longitude"] == 8
    with pytest.raises(InputError, match=r"22\.5 to 337\.5 east.*regrid=True"):
        predict(turned, fixed)
    near = ds.assign_coords(longitude=ds["longitude"] + 1).roll(longitude=3, roll_coords=True)
    np.testing.assert_array_equal(
        predict(near, fixed)["field"].roll(longitude=-3).values, predict(ds, fixed)["field"].values
    )
