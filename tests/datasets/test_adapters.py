"""What every adapter promises, held against each. A new one joins with a line in CASES."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from stforecast import datasets, testing
from stforecast.conventions.axes import TIME
from stforecast.conventions.gate import canonicalize, check
from stforecast.datasets.content import fingerprint
from stforecast.datasets.describe import describe
from stforecast.datasets.prepare import open_prepared, prepare
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.predict import predict
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task, initialisations
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit


class Case:
    """An adapter: what writes a path in its genuine form, what opens that, and a task on it."""

    def __init__(self, name: str, write: str, open: str, task: Task, **options: Any) -> None:
        self.name, self.writer, self.opener, self.task = name, write, open, task
        self.to_write = {k[6:]: v for k, v in options.items() if k.startswith("write_")}
        self.to_open = {k: v for k, v in options.items() if not k.startswith("write_")}

    @property
    def open(self) -> Callable[..., xr.Dataset]:
        return partial(getattr(datasets, self.opener), **self.to_open)

    def write(self, directory: Path) -> Path:
        return getattr(testing, self.writer)(directory, **self.to_write)


RGB = ("red", "green", "blue")
FLOW = ("inflow", "outflow")
# fmt: off
CASES = [
    Case("weatherbench 1", "write_weatherbench1", "open_weatherbench", Task("t2m", 2, 2, "1h"),
         write_steps=400),
    Case("weatherbench 2", "write_weatherbench2", "open_weatherbench", Task("t2m", 2, 2, "6h")),
    Case("weatherbench 2 levels", "write_weatherbench2", "open_weatherbench",
         Task(("z500", "t2m"), 2, 2, "6h"), variables=["z500", "t2m"]),
    Case("arco era5", "write_weatherbench2", "open_weatherbench", Task("t2m", 2, 2, "1h"),
         write_layout="arco"),
    Case("era5 from the cds", "write_cds", "open_era5", Task("t2m", 2, 2, "1h"), write_steps=400),
    Case("era5, older layout", "write_cds", "open_era5", Task("t2m", 2, 2, "1h"),
         write_layout="old", write_steps=400),
    Case("era5, zip", "write_cds", "open_era5", Task("t2m", 2, 2, "1h"),
         write_layout="zip", write_steps=400),
    Case("era5, grib", "write_cds", "open_era5", Task("t2m", 2, 2, "1h"), write_layout="grib"),
    Case("ncep", "write_ncep", "open_ncep", Task("air", 2, 2, "6h")),
    Case("taxibj", "write_taxibj", "open_taxibj", Task(FLOW, 4, 4, "30min"),
         write_days=(2, 2, 2, 60)),
    Case("taxibj npz", "write_taxibj_npz", "open_taxibj", Task(FLOW, 4, 4, "30min")),
    Case("nyc flow", "write_nyc_flow", "open_nyc_flow", Task(FLOW, 4, 4, "30min")),
    Case("moving mnist", "write_mnist", "open_moving_mnist", Task("intensity", 2, 2, "1s"),
         sequences=3, size=32),
    Case("moving mnist test", "write_mnist_test_seq", "open_moving_mnist",
         Task("intensity", 2, 2, "1s"), write_size=32),
    Case("kth", "write_kth", "open_kth", Task("intensity", 2, 2, "40ms"), size=(24, 32),
         write_persons=(1, 17), write_lengths=(6, 9)),
    Case("kth frames", "write_kth_frames", "open_kth", Task("intensity", 2, 2, "40ms"),
         size=(24, 32), write_persons=(1, 17), write_lengths=(6, 9)),
    Case("kitti", "write_kitti", "open_kitti", Task(RGB, 2, 1, "100ms"),
         write_drives={"0001": 6, "0005": 5}),
    Case("kitti hickle", "write_prednet_hkl", "open_kitti", Task(RGB, 2, 1, "100ms"),
         write_parts={"train": [6], "val": [5], "test": [5]}),
    Case("caltech", "write_caltech", "open_caltech", Task(RGB, 2, 1, "100ms"),
         write_sets={0: [16], 6: [19]}),
    Case("robonet", "write_robonet", "open_robonet", Task(RGB, 2, 2, "1s"), size=(24, 32)),
    Case("bridgedata", "write_bridgedata", "open_bridgedata", Task(RGB, 2, 2, "200ms"),
         size=(24, 32)),
]
# fmt: on

TINY = {
    "encoder_channels": 4,
    "translator_channels": 8,
    "encoder_layers": 2,
    "translator_blocks": 2,
}


@pytest.fixture(params=CASES, ids=lambda case: case.name, scope="module")
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module")
def path(case, tmp_path_factory) -> Path:
    return case.write(tmp_path_factory.mktemp("data") / "genuine")


@pytest.fixture(scope="module")
def values(case, path) -> xr.Dataset:
    """Everything, read."""
    with case.open(path, chunks=None) as ds:
        return ds.load()


@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "lazy"])
def test_labels_and_units(case, path, chunks):
    ds = case.open(path, chunks=chunks)
    check(ds, case.task.variables, timestep=case.task.step, nan=False)
    space = {"latitude", "longitude"} if "latitude" in ds.dims else {"y", "x"}
    for name, array in ds.data_vars.items():
        assert array.dims[0] == TIME
        assert set(array.dims[1:]) == space
        assert array.dtype == np.float32
        assert array.attrs.get("units"), name
        assert array.attrs.get("long_name") or array.attrs.get("standard_name"), name
        assert (array.chunks is None) == (chunks is None)
    assert ds[TIME].dtype == np.dtype("datetime64[ns]")
    missing = {"title", "source", "license", "references", "Conventions"} - ds.attrs.keys()
    assert not missing
    if "y" in ds.dims and "clip" in ds.coords:
        np.testing.assert_array_equal(np.diff(ds["clip"]) != 0, np.diff(ds["step"]) <= 0)


def test_opened_alike_lazily_and_by_dask(case, path, values):
    xr.testing.assert_identical(case.open(path).load(), values)


def test_the_gate_lets_it_through_unchanged(values):
    again, _ = canonicalize(values)
    xr.testing.assert_equal(again, values.reset_coords(drop=True))


def test_it_is_recognised(case, path, values):
    found = describe(path)
    assert found.adapter == case.opener, found
    if "variables" not in case.to_open:  # by default none of several levels is taken
        assert set(case.task.variables) <= set(found.variables)
    assert found.problems == ()
    assert len(str(found).splitlines()) > 4


@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "lazy"])
def test_opening_reads_no_data(case, path, values, tmp_path, chunks):
    """Between opening and reading, every byte of every file is turned into another.

    What had been read by then would come out as it was. (Of a temperature one time step may be
    read, to hold its units against it: the first is not looked at, and files are longer than the
    buffer of HDF5.)
    """
    copy = tmp_path / "genuine"
    shutil.copytree(path if path.is_dir() else path.parent, copy)
    ds = case.open(copy if path.is_dir() else copy / path.name, chunks=chunks)
    for file in (f for f in copy.rglob("*") if f.is_file()):
        data = np.fromfile(file, np.uint8)
        with open(file, "r+b") as handle:  # the same file, should it be held open or mapped
            handle.write((~data).tobytes())
    for name, array in ds.data_vars.items():
        first = [] if array.attrs["units"] == "K" else [0]
        for step in (*first, ds.sizes[TIME] // 2, ds.sizes[TIME] - 1):
            try:
                found = array.isel({TIME: step}).to_numpy()
            except Exception:  # of whatever reads it: it is not there to be read any more
                continue
            assert not np.array_equal(found, values[name].isel({TIME: step})), (name, step)


def test_it_comes_back_from_a_prepared_store_and_trains(case, path, values, tmp_path):
    store = prepare(case.open(path), tmp_path / "prepared.zarr")
    prepared = open_prepared(store, chunks=None)
    xr.testing.assert_equal(prepared, values)
    assert list(prepared.data_vars) == list(values.data_vars)
    assert prepared.attrs["data_fingerprint"] == fingerprint(values)
    units = {name: array.attrs["units"] for name, array in prepared.data_vars.items()}
    assert units == {name: array.attrs["units"] for name, array in values.data_vars.items()}

    task = case.task
    model = partial(SimVPv2, task.input_steps, task.target_steps, len(task.variables), **TINY)
    config = TrainConfig(steps=2, batch_size=2)
    forecaster = fit(prepared, task, model=model, config=config)
    init_time = initialisations(values, task)[:2]
    forecast = predict(prepared, forecaster, init_time=init_time)
    from_files = predict(case.open(path, chunks=None), forecaster, init_time=init_time)
    xr.testing.assert_equal(forecast.compute(), from_files.compute())
    assert set(forecast.data_vars) == set(task.variables)
    scores = evaluate(forecast, values)
    for name in task.variables:
        assert np.isfinite(scores[name].sel(metric="rmse")).all()
