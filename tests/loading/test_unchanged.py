"""A source that changes in mid-run: the run stops, and the file is named."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest
import xarray as xr

from stforecast.datasets import open_grid
from stforecast.errors import InputError
from stforecast.loading import open_feed
from stforecast.task import Task
from stforecast.testing import make_weather

TASK = Task("2m_temperature", 2, 1, "1h")
FORMS = ["nc3", "nc4", "zarr2", "zarr3"]


def write(path, form, offset=0.0):
    ds = make_weather(steps=96) + offset
    ds["2m_temperature"].attrs["units"] = "K"
    if form.startswith("zarr"):
        ds.chunk(time=16).to_zarr(path, zarr_format=int(form[-1]), mode="w", consolidated=False)
    else:
        ds.to_netcdf(path, format={"nc3": "NETCDF3_CLASSIC", "nc4": "NETCDF4"}[form])
    return path


def opened(path, door):
    if door == "xarray":
        many = path.is_dir()
        return (
            xr.open_zarr(path, consolidated=False, chunks=None) if many else xr.open_dataset(path)
        )
    return open_grid(path, chunks=None if door == "lazy" else {"time": 16})


def feed(ds, **options):
    size = 4 * 24 * 12
    return open_feed(ds, TASK, 4, feed="stream", buffer=size * 300, seed=1, **options)


def steps(feed, first, last):
    for step in range(first, last):
        feed.batch(step)


@pytest.mark.parametrize("door", ["lazy", "dask", "xarray"])
@pytest.mark.parametrize("form", FORMS)
def test_a_source_that_stays_is_read_for_three_epochs(tmp_path, form, door):
    ds = opened(write(tmp_path / "a", form), door)
    with feed(ds) as batches:
        steps(batches, 0, 3 * batches.steps_per_epoch)


@pytest.mark.parametrize("door", ["lazy", "dask", "xarray"])
@pytest.mark.parametrize("change", ["cut", "overwritten", "gone"])
@pytest.mark.parametrize("form", ["nc3", "nc4"])
def test_a_file_that_changes_stops_the_run(tmp_path, form, door, change):
    path = write(tmp_path / "a.nc", form)
    ds = opened(path, door)
    with feed(ds) as batches:
        steps(batches, 0, 1)
        if change == "cut":
            os.truncate(path, path.stat().st_size // 2)
        elif change == "gone":
            path.unlink()
        else:
            other = write(tmp_path / "b.nc", form, offset=5.0).read_bytes()
            with open(path, "r+b") as file:  # the same file, of the same length
                file.write(other)
            os.utime(path, ns=(0, time.time_ns() + 10**9))
        with pytest.raises(InputError, match=r"a\.nc: it was changed while it was read"):
            steps(batches, 1, 3 * batches.steps_per_epoch)


@pytest.mark.parametrize("door", ["lazy", "dask", "xarray"])
@pytest.mark.parametrize("form", FORMS)
def test_other_numbers_in_the_next_epoch_stop_the_run(tmp_path, form, door):
    """Sizes and times of change are as before: the numbers alone tell."""
    path = write(tmp_path / "a", form)
    other = write(tmp_path / "b", form, offset=5.0)
    ds = opened(path, door)
    times = {p: p.stat() for p in [path, *path.rglob("*")]}
    with feed(ds) as batches:
        steps(batches, 0, batches.steps_per_epoch)
        if path.is_dir():
            shutil.copytree(other, path, dirs_exist_ok=True)
        else:
            with open(path, "r+b") as file:
                file.write(other.read_bytes())
        for file, was in times.items():
            os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
        with pytest.raises(InputError, match=r"a: it was changed while it was read"):
            steps(batches, batches.steps_per_epoch, 3 * batches.steps_per_epoch)


@pytest.mark.parametrize("form", ["zarr2", "zarr3"])
def test_a_store_that_is_appended_to_stops_the_run(tmp_path, form, monkeypatch):
    monkeypatch.setattr("stforecast.loading.unchanged._EVERY", 0.0)
    path = write(tmp_path / "a", form)
    ds = opened(path, "lazy")
    with feed(ds) as batches:
        steps(batches, 0, 1)
        more = make_weather(steps=16)
        more["time"] = ds["time"].values[-1] + np.arange(1, 17) * np.timedelta64(1, "h")
        more.chunk(time=16).to_zarr(path, append_dim="time", consolidated=False)
        with pytest.raises(InputError, match="it was changed while it was read"):
            steps(batches, 1, 3 * batches.steps_per_epoch)
