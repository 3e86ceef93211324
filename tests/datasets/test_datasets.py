"""Opening weather data: genuine layouts, damaged files, hostile zips, periods of time."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from years_of_weather import PACKING, T2M, weather, write

from stforecast.conventions.gate import check
from stforecast.datasets import joining
from stforecast.datasets.periods import select_period
from stforecast.datasets.weather import SAMPLE, open_sample, open_weatherbench
from stforecast.errors import InputError

SHARED = Path(__file__).parents[2].parent / "shared"

needs_shared = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason="the shared data are not beside this checkout"
)


# --- the sample -----------------------------------------------------------------------------------


def test_sample_is_small_simulated_and_says_so():
    stored = [p for p in SAMPLE.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in stored) <= 16_000_000
    assert len(stored) < 20
    ds = open_sample()
    assert json.loads((SAMPLE / "zarr.json").read_text())["zarr_format"] == 3
    assert "SIMULATED" in ds.attrs["comment"]
    assert "not observed" in ds.attrs["comment"]
    assert ds.attrs["license"] == "CC0-1.0"
    assert ds[T2M].dims == ("time", "latitude", "longitude")
    assert ds[T2M].dtype == np.float32
    assert ds[T2M].chunks is not None
    assert ds[T2M].shape == (10008, 32, 64)
    check(ds.isel(time=slice(0, 2000)), [T2M])
    assert 180 < float(ds[T2M].min()) < 230
    assert 300 < float(ds[T2M].max()) < 335


def test_sample_periods_are_whole_separate_and_in_order():
    ds = open_sample()
    periods = {
        k: select_period(ds, ds.attrs[k])
        for k in ("train_period", "validation_period", "test_period")
    }
    train, valid, test = periods.values()
    assert [p.sizes["time"] for p in periods.values()] == [8760, 4 * 6 * 24, 4 * 7 * 24]
    assert train.time[-1] < valid.time[0]
    assert valid.time[-1] < test.time[0]
    for period, blocks in ((train, 1), (valid, 4), (test, 4)):
        assert int((np.diff(period.time) != np.timedelta64(1, "h")).sum()) == blocks - 1
    assert sum(p.sizes["time"] for p in periods.values()) == ds.sizes["time"]


def test_sample_opens_without_this_package():
    ours, plain = open_sample(chunks=None), xr.open_zarr(SAMPLE, chunks=None)
    np.testing.assert_array_equal(ours[T2M][9000:9010], plain[T2M][9000:9010].astype("f4"))
    assert plain[T2M].attrs["units"] == "K"


@needs_shared
def test_sample_is_the_source_to_the_bit():
    ds, source = open_sample(), open_weatherbench(SHARED / "data" / "plasim_t2m")
    pick = ds.isel(time=slice(0, None, 97))
    np.testing.assert_array_equal(pick[T2M], source[T2M].sel(time=pick.time))


# --- WeatherBench 1 -------------------------------------------------------------------------------


def test_directory_of_yearly_files(years, caplog):
    directory, values = years
    with caplog.at_level(logging.WARNING):
        ds = open_weatherbench(directory)
    assert list(ds.data_vars) == [T2M]
    assert dict(ds.sizes) == {"time": 300, "latitude": 4, "longitude": 6}
    np.testing.assert_array_equal(ds[T2M], values)
    assert ds[T2M].attrs["units"] == "K"
    assert not caplog.records
    ds.close()


@pytest.mark.parametrize("kind", ["file", "glob", "list", "subfolder", "tree", "text"])
def test_other_ways_to_name_files(years, tmp_path, kind, monkeypatch):
    directory, values = years
    path = directory
    if kind == "file":
        path, values = directory / "2m_temperature_2014_5.625deg.nc", values[100:200]
    elif kind == "glob":
        path = str(directory / "2m_*_201[45]_*.nc")
        values = values[100:]
    elif kind == "list":
        path = [directory / f"2m_temperature_{y}_5.625deg.nc" for y in (2015, 2013, 2014)]
    elif kind == "subfolder":
        path = tmp_path / "all"
        shutil.move(directory, path / T2M)
    elif kind == "tree":  # beside a folder that is of no concern, and is not even opened
        path = tmp_path / "all"
        shutil.move(directory, path / "5.625deg" / T2M)
        (path / "5.625deg" / "geopotential").mkdir()
        (path / "5.625deg" / "geopotential" / "broken.nc").write_text("no netCDF")
    else:
        monkeypatch.chdir(tmp_path)
        path = "5.625deg"
    ds = open_weatherbench(path, ["t2m"])
    np.testing.assert_array_equal(ds[T2M], values)


def test_constants_come_when_asked_for(years):
    directory, values = years
    for chunks in ("auto", None):
        ds = open_weatherbench(directory, ["t2m", "lsm"], chunks=chunks)
        assert list(ds.data_vars) == [T2M, "land_sea_mask"]
        mask = np.arange(24, dtype="f4").reshape(4, 6) / 24
        np.testing.assert_array_equal(ds["land_sea_mask"][[0, 150, -1]], [mask] * 3)
        np.testing.assert_array_equal(ds[T2M][99:101], values[99:101])
    with pytest.raises(InputError, match=r"'orography' has no time: ask for it beside"):
        open_weatherbench(directory, "orography")


def test_opening_forty_years_reads_no_data(tmp_path, monkeypatch):
    for i in range(40):
        ds = weather(f"{1979 + i}-01-01", 48, seed=i)
        encoding = {"t2m": {**PACKING["t2m"], "fletcher32": True, "chunksizes": (48, 4, 6)}}
        path = tmp_path / f"2m_temperature_{1979 + i}.nc"
        ds.to_netcdf(path, encoding=encoding, engine="netcdf4")
        if i:  # whoever reads it, fails
            _spoil_data(path)
    reads = []
    piece = joining.Joined._piece
    monkeypatch.setattr(
        joining.Joined,
        "_piece",
        lambda self, n, key: reads.append((n, key[0])) or piece(self, n, key),
    )
    ds = open_weatherbench(tmp_path)
    assert ds.sizes["time"] == 40 * 48
    assert reads in ([], [(0, slice(0, 1))])  # at most one step, to hold the units against values
    assert len(ds[T2M].data.chunks[0]) == 40  # none across two files
    with pytest.raises(InputError, match=r"2m_temperature_1999\.nc: 't2m' cannot be read.*damaged"):
        ds[T2M].sel(time="1999-01-01").compute()


def _spoil_data(path: Path) -> None:
    """Overwrite the values of a variable that lies in one plain chunk, and nothing else."""
    with xr.open_dataset(path, mask_and_scale=False, decode_times=False) as ds:
        values = ds["t2m"].values.tobytes()
    raw = path.read_bytes()
    assert raw.count(values) == 1
    path.write_bytes(raw.replace(values, b"\xff" * len(values)))


@pytest.mark.parametrize("chunks", ["auto", None, {"time": 7}, {"time": 64, "latitude": 2}])
def test_chunks_change_nothing_but_the_arrays(years, chunks):
    directory, values = years
    ds = open_weatherbench(directory, chunks=chunks)
    array = ds[T2M]
    if chunks is None:
        assert array.chunks is None
        assert not array.variable._in_memory
    else:
        expected = 100 if chunks == "auto" else chunks["time"]
        assert array.chunks[0][0] == expected
    keys = (slice(95, 205), slice(290, 90, -20), [60, 50, 250, 120, 120], 199, -1, slice(7, 7))
    for key in keys:
        for row in (slice(None), slice(None, None, -1), 2):
            np.testing.assert_array_equal(array[key, row], values[key][..., row, :])
    again = pickle.loads(pickle.dumps(ds))  # dask's other processes need this
    np.testing.assert_array_equal(again[T2M][90:110], values[90:110])
    np.testing.assert_array_equal(array[:, 1, [4, 0]], values[:, 1][:, [4, 0]])
    assert not ds[T2M].variable._in_memory


def test_bad_chunks(years):
    with pytest.raises(InputError, match=r"'lead'.*there are time, latitude, longitude"):
        open_weatherbench(years[0], chunks={"lead": 3})
    with pytest.raises(InputError, match="chunks must be"):
        open_weatherbench(years[0], chunks="small")


def test_files_are_ordered_by_time_not_by_name(tmp_path):
    whole = weather("2013-01-01", 72)
    for name, start in (("c", 0), ("a", 24), ("b", 48)):
        write(whole.isel(time=slice(start, start + 24)), tmp_path / f"{name}.nc")
    np.testing.assert_array_equal(open_weatherbench(tmp_path)[T2M], whole["t2m"])


def test_missing_hours_are_reported_not_raised(tmp_path, caplog):
    whole = weather("2013-01-01", 96)
    write(whole.isel(time=np.r_[0:10, 13:40]), tmp_path / "a.nc")
    write(whole.isel(time=slice(41, 96)), tmp_path / "b.nc")
    with caplog.at_level(logging.WARNING):
        ds = open_weatherbench(tmp_path)
    assert ds.sizes["time"] == 92
    (record,) = caplog.records
    message = record.getMessage()
    assert "4 steps of 1 h are missing" in message
    assert "3 between 2013-01-01T09:00 and 2013-01-01T13:00" in message
    assert "1 between 2013-01-02T15:00 and 2013-01-02T17:00" in message


def test_variables_in_files_of_their_own(tmp_path, caplog):
    """WeatherBench 1 keeps a directory a variable; some begin later than others."""
    t2m = weather("2013-01-01", 48)
    u10 = weather("2013-01-01T07", 30, seed=1).rename(t2m="u10")
    u10["u10"].attrs["units"] = "m s**-1"
    write(t2m, tmp_path / T2M / "2m_temperature_2013.nc")
    write(u10, tmp_path / "10m_u_component_of_wind" / "u10.nc", packed=False)
    with caplog.at_level(logging.WARNING):
        ds = open_weatherbench(tmp_path)
    assert set(ds.data_vars) == {T2M, "10m_u_component_of_wind"}
    np.testing.assert_array_equal(ds[T2M], t2m["t2m"][7:37])
    np.testing.assert_array_equal(ds["10m_u_component_of_wind"], u10["u10"])
    assert "kept the 30 times that the variables share" in caplog.text
    assert open_weatherbench(tmp_path, "t2m").sizes["time"] == 48
    shutil.rmtree(tmp_path / T2M)
    write(weather("2015-01-01", 3), tmp_path / T2M / "2m_temperature_2015.nc")
    with pytest.raises(InputError, match=r"the variables share no times: .*2013-01-01T07:00"):
        open_weatherbench(tmp_path)


def test_unknown_variable_opens_when_named_or_alone(tmp_path, caplog):
    ds = weather("2013-01-01", 24).rename(t2m="air")
    write(ds, tmp_path / "one.nc", packed=False)
    assert list(open_weatherbench(tmp_path / "one.nc").data_vars) == ["air"]
    write(ds.assign(soot=ds["air"] * 2), tmp_path / "two.nc", packed=False)
    assert list(open_weatherbench(tmp_path / "two.nc", "soot").data_vars) == ["soot"]
    with pytest.raises(
        InputError, match=r"no known variable on time and a grid in it; found air, soot\. Name what"
    ):
        open_weatherbench(tmp_path / "two.nc")
    with pytest.raises(InputError, match=r"no variable 'u10' in it; found air, soot"):
        open_weatherbench(tmp_path / "two.nc", ["air", "u10"])


# --- genuine data ---------------------------------------------------------------------------------


@needs_shared
def test_genuine_zarr_v2_store():
    path = SHARED / "data" / "ncep_air_temperature" / "air_temperature.zarr"
    ds = open_weatherbench(path)
    with xr.open_zarr(path) as theirs:
        np.testing.assert_array_equal(
            ds["air"][1000], theirs["air"][1000].sortby("lat").astype("f4")
        )
    assert ds["air"].sizes == {"time": 2920, "latitude": 25, "longitude": 53}


@needs_shared
def test_genuine_netcdf3_from_the_climate_data_store():
    ds = open_weatherbench(SHARED / "data" / "era5_t2m_italy")
    check(ds, [T2M], timestep=np.timedelta64(3, "h"))


@needs_shared
def test_a_whole_year_is_read_quickly():
    start = time.process_time()
    ds = open_weatherbench(SHARED / "data" / "plasim_t2m")
    values = select_period(ds, "2016")[T2M].values
    assert time.process_time() - start < 5  # a fifth of a second on an idle core
    assert values.dtype == np.float32
    assert values.shape == (366 * 24, 32, 64)
    assert np.isfinite(values).all()


def test_importing_datasets_is_light():
    code = (
        "import sys, stforecast.datasets as d; "
        "print([m for m in ('xarray', 'torch', 'dask', 'zarr', 'netCDF4') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment
    )
    assert found.stdout.strip() == "[]", found.stdout + found.stderr
