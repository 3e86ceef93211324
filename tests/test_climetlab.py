"""climetlab finds our data sets by their entry points; nothing here needs a network, or hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import stforecast
from stforecast.baselines.persistence import Persistence
from stforecast.datasets.weather import open_sample, open_weatherbench
from stforecast.errors import InputError
from stforecast.forecasting.predict import predict
from stforecast.task import Task
from stforecast.testing.weather import make_weather, relabel

ENTRY_POINTS = {
    "stforecast-sample": "stforecast.climetlab:Sample",
    "weatherbench-t2m": "stforecast.climetlab:WeatherBenchT2m",
}
LIMIT = 60  # s


class Source:
    """Anything with to_xarray(), as climetlab's sources and data sets are."""

    def __init__(self, ds):
        self.ds = ds

    def to_xarray(self):
        return self.ds


def theirs():
    ds = make_weather(30, shape=(8, 12))
    names = {"2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"}
    return relabel(ds, names=names, units="degC", north_first=True)


def test_predict_takes_what_has_to_xarray():
    model = Persistence(Task("t2m", 3, 2))
    xr.testing.assert_identical(predict(Source(theirs()), model), predict(theirs(), model))


def test_open_weatherbench_takes_what_has_to_xarray():
    ds = open_weatherbench(Source(theirs()), "t2m", chunks={"time": 7})
    plain = make_weather(30, shape=(8, 12))
    np.testing.assert_allclose(ds["2m_temperature"], plain["2m_temperature"], atol=1e-4)
    assert ds["latitude"].values[0] < 0
    assert ds.chunks["time"][0] == 7
    assert ds.attrs["source"] == plain.attrs["source"]
    with pytest.raises(InputError, match="variable 'z500' is not in the Dataset"):
        open_weatherbench(Source(theirs()), "z500")


def test_the_entry_points_are_declared():
    project = tomllib.loads((Path(stforecast.__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["climetlab.datasets"] == ENTRY_POINTS


@pytest.fixture
def in_a_process(tmp_path):
    """Run code where climetlab sees our entry points, has settings of its own, and no network.

    A refused proxy stands for no network. Warnings are errors.
    """
    pytest.importorskip("climetlab")
    about = tmp_path / "path" / "stforecast-0.dist-info"
    about.mkdir(parents=True)
    lines = [f"{name} = {where}" for name, where in ENTRY_POINTS.items()]
    (about / "entry_points.txt").write_text("\n".join(["[climetlab.datasets]", *lines]))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stforecast\nVersion: 0\n")
    (tmp_path / "home").mkdir()
    nowhere = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(tmp_path / "path"),
    }

    def run(code):
        settings = tmp_path / "home" / ".climetlab" / "settings.yaml"
        command = [sys.executable, "-W", "error", "-c", f"import climetlab\n{code}"]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, timeout=LIMIT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "catalogs-urls: []" not in settings.read_text()
        return done.stdout.strip().splitlines()

    return run


def test_climetlab_loads_both(in_a_process, tmp_path):
    ds = open_sample().isel(time=slice(0, 20)).drop_encoding()
    ds.to_zarr(tmp_path / "t2m.zarr", zarr_format=2, consolidated=True)
    found = in_a_process("""
import stforecast
sample = climetlab.load_dataset("stforecast-sample")
print(dict(sample.to_xarray().sizes), sample.licence, len(sample))
few = climetlab.load_dataset("weatherbench-t2m", path="t2m.zarr", chunks=None)
print(few.to_numpy().shape, few.to_numpy().dtype, "<h4>weatherbench-t2m</h4>" in few._repr_html_())
print(dict(stforecast.predict(few).sizes))
print(stforecast.datasets.open_weatherbench(few).sizes["time"])
""")
    size = open_sample().sizes["time"]
    assert found == [
        f"{{'time': {size}, 'latitude': 32, 'longitude': 64}} CC0-1.0 {size}",
        "(20, 32, 64) float32 True",
        "{'time': 1, 'prediction_timedelta': 12, 'latitude': 32, 'longitude': 64}",
        "20",
    ]


def test_unknown_names_and_no_path_end_at_once(in_a_process):
    found = in_a_process("""
from stforecast.climetlab import load_dataset
from stforecast.errors import InputError
for name in ("stforecast-smaple", "weatherbench-t2m"):
    try:
        load_dataset(name)
    except InputError as error:
        print(error)
print(climetlab.settings.get("datasets-catalogs-urls") != [])
""")
    assert "did you mean 'stforecast-sample'?" in found[0]
    assert 'load_dataset("weatherbench-t2m", path=DIR)' in found[1]
    assert found[2] == "True"
