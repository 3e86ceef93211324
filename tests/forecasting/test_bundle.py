"""The bundle that ships with the package: its skill, its size, what it says of itself."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil

import numpy as np
import pytest
import xarray as xr

from stforecast.baselines.persistence import Persistence
from stforecast.datasets.periods import select_period
from stforecast.datasets.weather import open_sample
from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting import bundle
from stforecast.forecasting.bundle import default_bundle
from stforecast.forecasting.forecaster import load
from stforecast.forecasting.predict import predict
from stforecast.task import initialisations
from stforecast.testing.weather import make_weather, relabel


@pytest.fixture(scope="module")
def sample():
    ds = open_sample()
    return select_period(ds, ds.attrs["test_period"]).load()


@pytest.fixture(scope="module")
def reference(sample):
    return predict(sample)["2m_temperature"]


def test_skill_on_weeks_it_has_not_seen(sample):
    task = load(default_bundle()).task
    init_time = initialisations(sample, task, stride=9)
    ours, theirs = (
        evaluate(predict(sample, model, init_time=init_time), sample)
        for model in (None, Persistence(task))
    )
    name = "2m_temperature"
    overall, by_lead = (
        (ours[v] / theirs[v]).sel(metric="rmse").values for v in (f"{name}_overall", name)
    )
    assert overall <= 0.30
    ridge = np.interp(np.arange(1, 13), [1, 3, 6, 12], [0.34, 0.47, 0.55, 0.44])
    assert (by_lead < ridge).all()


def test_what_it_says_of_itself(caplog, sample):
    path = default_bundle()
    assert sum(p.stat().st_size for p in path.iterdir()) <= 10e6
    description = json.loads((path / "bundle.json").read_text())
    training = description["training"]
    first = training
    while "warm_start" in first:  # behind those that drew members
        first = first["warm_start"]
    assert first["command"].startswith("python pipelines/weatherbench_t2m.py")
    assert training["command"].startswith("python benchmarks/skill.py --only ensemble")
    assert "imulated" in description["training"]["data"]
    with caplog.at_level(logging.INFO, logger="stforecast"):
        forecast = predict(sample)
    assert "using the bundle that ships with the package, trained on: Simulated" in caplog.text
    assert "imulated" in forecast.attrs["training_data"]


@pytest.mark.parametrize(
    "layout",
    [
        {"north_first": True},
        {"west_negative": True},
        {"order": ["longitude", "time", "latitude"]},
        {"units": "degC"},
        {"names": {"2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"}},
    ],
    ids=str,
)
def test_no_layout_changes_the_forecast(sample, reference, layout):
    few = sample.isel(time=slice(-12, None))
    theirs = relabel(few, **layout)
    forecast = predict(theirs)
    (array,) = forecast.data_vars.values()
    names = layout.get("names", {})
    back = array.rename({v: k for k, v in names.items() if v in array.dims})
    back = back.assign_coords(longitude=back["longitude"] % 360).sortby(["latitude", "longitude"])
    values = back.transpose(*reference.dims).values + (273.15 if layout.get("units") else 0)
    np.testing.assert_allclose(values, reference.values, atol=1e-4, rtol=0)


def test_packing_as_int16_changes_nothing(sample, reference, tmp_path):
    """On disk in steps of 0.02 K, which is what the sample's values are multiples of."""
    packing = {"dtype": "int16", "scale_factor": 0.02, "add_offset": 270.0, "_FillValue": -32768}
    few = sample.isel(time=slice(-12, None)).drop_encoding()
    few.to_netcdf(tmp_path / "packed.nc", encoding={"2m_temperature": packing})
    for decoded in (True, False):  # also as it lies on disk, with its scale in the attributes
        with xr.open_dataset(tmp_path / "packed.nc", mask_and_scale=decoded) as ds:
            forecast = predict(ds)["2m_temperature"]
            np.testing.assert_allclose(forecast, reference, atol=1e-4, rtol=0)


def test_dask_and_rolled_longitude(sample, reference):
    lazy = predict(sample.chunk(time=5, latitude=8))
    assert lazy["2m_temperature"].chunks
    np.testing.assert_allclose(lazy["2m_temperature"], reference, atol=1e-4, rtol=0)
    rolled = predict(sample.roll(longitude=10, roll_coords=True))["2m_temperature"]
    assert rolled["longitude"].values[10] == 0  # in the caller's order; places are as they are
    back = rolled.roll(longitude=-10, roll_coords=True)
    np.testing.assert_allclose(back, reference, atol=1e-4, rtol=0)


def test_a_regular_grid_of_the_same_resolution_will_do(sample):
    regular = sample.assign_coords(latitude=np.linspace(-87.1875, 87.1875, 32))
    xr.testing.assert_equal(predict(regular)["latitude"], regular["latitude"])


def test_other_resolutions_and_steps_are_refused_or_regridded(sample):
    fine = make_weather(12, shape=(91, 180), noise=0)
    words = r"91 x 180 .*trained on\s32 x 64 .*trained on: Simulated.*regrid=True"
    with pytest.raises(InputError, match=words):
        predict(fine)
    assert predict(fine, regrid=True).sizes["latitude"] == 32
    with pytest.raises(InputError, match=r"6-hourly, the model needs a step of 1h.*Simulated"):
        predict(sample.isel(time=slice(0, 100, 6)))


def test_a_bundle_of_version_1_still_loads(tmp_path):
    """Version 1 has other names for settings and a buffer of SimVPv2; the numbers are the same."""
    from safetensors.torch import load_file, save_file

    old = {new: old for old, new in bundle._VERSION_1.items()}
    path = shutil.copytree(bundle.default_bundle(), tmp_path / "old")
    description = json.loads((path / "bundle.json").read_text())
    settings = {old.get(k, k): v for k, v in description["model"]["settings"].items()}
    assert "hidden_spatial" in settings
    tensors = load_file(path / "model.safetensors")
    tensors["network.change_scale"] = tensors.pop("network.tendency_std")
    save_file(tensors, path / "model.safetensors")
    sha = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    model = {"name": "SimVPv2", "settings": settings}
    description |= {"version": 1, "model": model, "sha256": sha}
    (path / "bundle.json").write_text(json.dumps(description))
    ds = open_sample().isel(time=slice(12))
    xr.testing.assert_identical(predict(ds, path), predict(ds))
