"""write_forecast(): complete or not there, gone on with after a kill, the same on a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from stforecast.baselines.persistence import Persistence
from stforecast.errors import InputError
from stforecast.forecasting.forecaster import Forecaster
from stforecast.forecasting.predict import predict
from stforecast.forecasting.writing import write_forecast
from stforecast.task import Task
from stforecast.testing.weather import make_weather, relabel

TASK = Task("t2m", input_steps=3, target_steps=2, timestep="1h")


class Still(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.change = torch.nn.Parameter(torch.zeros(2, 1, 1, 1))

    def forward(self, x):
        return x[:, -1:] + self.change


class Counting(Forecaster):
    """Notes every batch that it computes in a file; takes as long as the environment says."""

    def __init__(self, file):
        super().__init__(Still(), TASK)
        self.file = str(file)

    def forecast(self, inputs, init_time, steps, **grid):
        time.sleep(float(os.environ.get("SECONDS_A_BATCH", "0")))
        with open(self.file, "a") as file:
            file.write(f"{init_time[0]}\n")
        return super().forecast(inputs, init_time, steps, **grid)


def lines(file):
    return Path(file).read_text().splitlines() if Path(file).exists() else []


def weather(steps=62):
    return make_weather(steps, shape=(6, 10), chunks=16)


def store_files(path):
    return sorted(p.name for p in path.parent.iterdir())


def test_what_is_written_is_what_was_forecast(tmp_path):
    ds = relabel(weather(), names={"2m_temperature": "t2m", "latitude": "lat"}, units="degC")
    forecast = predict(ds, Persistence(TASK), init_time=slice(None), batch_size=8)
    path = write_forecast(forecast, tmp_path / "deep" / "f.zarr", progress=True)
    back = xr.open_zarr(path, decode_timedelta=True)
    xr.testing.assert_identical(back.load(), forecast.load())
    assert back["t2m"].encoding["chunks"] == (8, 2, 6, 10)
    assert store_files(path) == ["f.zarr"]


def test_in_memory_and_odd_chunks_and_dtypes(tmp_path):
    eager = predict(make_weather(20, shape=(4, 6)), Persistence(TASK), init_time=slice(None))
    xr.testing.assert_identical(
        xr.open_zarr(write_forecast(eager, tmp_path / "f.zarr"), decode_timedelta=True).load(),
        eager,
    )
    odd = eager.assign(
        whole=eager["2m_temperature"].round().astype("int16"), when=eager["valid_time"] + 0
    ).chunk(time=(5, 2, 8, 3))
    back = xr.open_zarr(write_forecast(odd, tmp_path / "f.zarr"), decode_timedelta=True)
    xr.testing.assert_equal(back.load(), odd.compute())  # the older one is replaced
    assert back["whole"].dtype == np.int16


def test_all_missing_blocks_are_written_too(tmp_path):
    forecast = predict(weather(), Persistence(TASK), init_time=slice(None), batch_size=8)
    path = write_forecast(forecast * np.nan, tmp_path / "f.zarr")
    assert len(list((path / "2m_temperature" / "c").iterdir())) == 8
    assert xr.open_zarr(path, decode_timedelta=True)["2m_temperature"].isnull().all()


def test_another_forecast_begins_anew_and_an_error_leaves_the_old_one(tmp_path):
    class Failing(Persistence):
        def forecast(self, inputs, init_time, steps, **grid):
            if len(lines(journal)) > 2:  # two blocks are noted
                raise OSError("no power")
            return super().forecast(inputs, init_time, steps, **grid)

    file, path = tmp_path / "count", tmp_path / "f.zarr"
    journal = tmp_path / ".f.zarr.writing" / "journal.jsonl"
    plan = {"init_time": slice(None), "batch_size": 10}
    old = predict(weather(30), Persistence(TASK), **plan)
    write_forecast(old, path)
    with pytest.raises(OSError, match="no power"):
        write_forecast(predict(weather(), Failing(TASK), **plan), path)
    xr.testing.assert_identical(xr.open_zarr(path, decode_timedelta=True).load(), old.load())
    assert store_files(path) == [".f.zarr.writing", "f.zarr"]
    write_forecast(predict(weather(), Counting(file), **plan), path)
    assert len(lines(file)) == 6  # all of them: the model is another
    assert store_files(path) == ["count", "f.zarr"]


KILLED = """
import sys
from test_writing import *
path, file = sys.argv[1:]
forecast = predict(weather(), Counting(file), init_time=slice(None),
                   batch_size=5)
write_forecast(forecast, path)
"""


def test_after_a_kill_only_what_is_missing_is_computed(tmp_path):
    path, file = tmp_path / "f.zarr", tmp_path / "count"
    begun = tmp_path / ".f.zarr.writing"
    journal = begun / "journal.jsonl"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "SECONDS_A_BATCH": "0.3",
    }
    child = subprocess.Popen([sys.executable, "-c", KILLED, path, file], env=environment)
    begin = time.monotonic()
    while len(lines(journal)) < 5 and time.monotonic() - begin < 60:  # 4 blocks are noted
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    regions = [json.loads(line)["region"] for line in journal.read_text().splitlines()[1:]]
    noted = [int(region.split("/")[1].split(".")[0]) for region in regions]
    assert 4 <= len(noted) < 12
    assert not path.exists()

    victim = noted[0]  # a block that the kill damaged is computed again, and no other
    chunk = begun / "store.zarr" / "2m_temperature" / "c" / str(victim) / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    Path(file).unlink()
    forecast = predict(weather(), Counting(file), init_time=slice(None), batch_size=5)
    write_forecast(forecast, path)
    firsts = forecast["time"].values[::5]
    expected = {str(firsts[i]) for i in range(12) if i not in noted[1:]}
    assert sorted(lines(file)) == sorted(expected)
    plain = predict(weather().load(), Persistence(TASK), init_time=slice(None))
    xr.testing.assert_equal(xr.open_zarr(path, decode_timedelta=True).load(), plain)
    assert store_files(path) == ["count", "f.zarr"]


def test_a_killed_to_zarr_is_completed_as_the_docstring_says(tmp_path):
    path, chunk = tmp_path / "f.zarr", 5
    forecast = predict(weather(), Persistence(TASK), init_time=slice(None), batch_size=chunk)
    forecast.to_zarr(path, compute=False, consolidated=False)
    part = forecast.isel(time=slice(0, 20))
    part.drop_vars([v for v in part.coords if "time" not in part[v].dims]).to_zarr(
        path, region={"time": slice(0, 20)}, consolidated=False
    )
    store = xr.open_zarr(path, consolidated=False, decode_timedelta=True)
    n = int(store["2m_temperature"].isnull().any(["prediction_timedelta", "latitude", "longitude"])
            .argmax("time"))  # fmt: skip
    first = n // chunk * chunk
    assert first == 20
    rest = forecast.isel(time=slice(first, None))
    rest.drop_vars([v for v in rest.coords if "time" not in rest[v].dims]).to_zarr(
        path, region={"time": slice(first, None)}, consolidated=False
    )
    store = xr.open_zarr(path, consolidated=False, decode_timedelta=True)
    xr.testing.assert_identical(store.load(), forecast.load())


def test_two_writers_of_one_store(tmp_path):
    path = tmp_path / "f.zarr"

    class Meanwhile(Persistence):
        def forecast(self, inputs, init_time, steps, **grid):
            with pytest.raises(InputError, match=r"is writing .* already"):
                write_forecast(predict(weather(20), Persistence(TASK)), path)
            return super().forecast(inputs, init_time, steps, **grid)

    write_forecast(predict(weather(20), Meanwhile(TASK)), path)


@pytest.mark.parametrize("name", ["x.nc", "x.NC4", "x.grib", "x.h5", "x.csv"])
def test_a_name_of_another_format_is_refused(tmp_path, name):
    forecast = predict(make_weather(8, shape=(4, 8)), Persistence(Task("t2m", 2, 2)))
    with pytest.raises(InputError, match=r"give 'x.zarr', or write netCDF: forecast.to_netcdf"):
        write_forecast(forecast, tmp_path / name)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no place for a zarr store"):
        write_forecast(forecast, tmp_path / "file")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        write_forecast(predict(weather(20), Persistence(TASK)), tmp_path / "file" / "f.zarr")


class Travelling(torch.nn.Module):
    """A network that notes whenever it is pickled and unpickled."""

    def __init__(self, directory):
        super().__init__()
        self.directory = str(directory)
        self.weight = torch.nn.Parameter(torch.tensor([0.5, -0.25]).view(1, 2, 1, 1, 1))

    def __getstate__(self):
        self.note("packed")
        return self.__dict__

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.note("unpacked")

    def note(self, what):
        with open(os.path.join(self.directory, what), "a") as file:
            file.write(f"{os.getpid()}\n")

    def forward(self, x):
        return x[:, -1:] + self.weight * (x[:, -1:] - x[:, -2:-1])


def test_a_cluster_gives_the_same_and_the_model_travels_once(tmp_path):
    """On a busy machine a worker may ask another for it before its own has come: then once more."""
    pytest.importorskip("distributed")
    for attempt in range(3):
        (directory := tmp_path / str(attempt)).mkdir()
        packed = write_on_a_cluster(directory)
        if packed <= 3:
            return
    pytest.fail(f"the model was packed {packed} times")


def write_on_a_cluster(tmp_path):
    """Write a forecast of 22 blocks, and count how often its model was packed."""
    import distributed

    ds = weather(90)
    model = Forecaster(Travelling(tmp_path), TASK, mean=[280.0], std=[15.0])
    forecast = predict(ds, model, init_time=slice(None), batch_size=4)
    single = predict(ds.load(), model, init_time=slice(None), batch_size=1)
    assert lines(tmp_path / "packed") == []
    settings = {
        "n_workers": 2,
        "threads_per_worker": 2,
        "dashboard_address": None,
        "silence_logs": 50,
    }
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster):
        path = write_forecast(forecast, tmp_path / "f.zarr")
    theirs = xr.open_zarr(path, decode_timedelta=True)
    np.testing.assert_allclose(theirs["2m_temperature"], single["2m_temperature"], atol=1e-5)
    # 22 blocks: once to the scheduler, from there to a worker, and from that one to the other.
    arrived = lines(tmp_path / "unpacked")
    assert 2 <= len(arrived) == len({*arrived}) <= 3
    packed = len(lines(tmp_path / "packed"))
    assert packed >= 2
    return packed
