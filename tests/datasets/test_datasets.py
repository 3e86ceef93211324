"""Opening weather data: genuine layouts, damaged files, hostile zips, periods of time."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import stat
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.conventions.gate import check
from stforecast.datasets import archives, joining
from stforecast.datasets.backends import object_store
from stforecast.datasets.periods import select_period, split
from stforecast.datasets.weather import SAMPLE, open_sample, open_weatherbench
from stforecast.errors import InputError

SHARED = Path(__file__).parents[2].parent / "shared"
needs_shared = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason="the shared data are not beside this checkout"
)
T2M = "2m_temperature"
LAT = np.array([-60.0, -20.0, 20.0, 60.0])
LON = np.arange(0.0, 360.0, 60.0)
PACKING = {
    "t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 270.0, "_FillValue": -32768}
}


def weather(start: str, steps: int, *, seed: int = 0, lat=LAT, lon=LON, freq="h") -> xr.Dataset:
    """Make WeatherBench 1's layout, with values that are whole hundredths of a kelvin."""
    values = np.random.default_rng(seed).integers(-3000, 3000, (steps, len(lat), len(lon)))
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), (values / 100 + 270).astype("f4"), {"units": "K"})},
        {"time": pd.date_range(start, periods=steps, freq=freq), "lat": lat, "lon": lon},
    )


def write(ds: xr.Dataset, path: Path, *, packed: bool = True, **kwargs) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.to_netcdf(path, encoding=PACKING if packed else None, engine="netcdf4", **kwargs)
    return path


@pytest.fixture
def years(tmp_path):
    """Three files in WeatherBench 1's layout, 100 hours each, and the constants beside them."""
    directory = tmp_path / "5.625deg"
    whole = weather("2013-12-30", 300)
    for i, packed in enumerate((True, False, True)):
        part = whole.isel(time=slice(100 * i, 100 * i + 100))
        write(part, directory / f"2m_temperature_{2013 + i}_5.625deg.nc", packed=packed)
    lsm = (("lat", "lon"), np.arange(24.0, dtype="f4").reshape(4, 6) / 24, {"units": "1"})
    write(
        xr.Dataset({"lsm": lsm, "orography": lsm}, {"lat": LAT, "lon": LON}),
        directory / "constants_5.625deg.nc",
        packed=False,
    )
    return directory, whole["t2m"].values


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


# --- files that do not go together ----------------------------------------------------------------


def test_overlapping_files_are_named(tmp_path):
    write(weather("2013-01-01", 48), tmp_path / "a.nc")
    write(weather("2013-01-02T20", 48), tmp_path / "b.nc")
    with pytest.raises(
        InputError, match=r"a\.nc .*T23:00\) and .*b\.nc .* overlap.*4 times are in"
    ):
        open_weatherbench(tmp_path)


def test_duplicated_times_are_named(tmp_path):
    ds = weather("2013-01-01", 10)
    write(ds.isel(time=[0, 1, 2, 2, 3]), tmp_path / "a.nc")
    with pytest.raises(InputError, match=r"a\.nc: 1 of its 5 times are duplicates"):
        open_weatherbench(tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"lat": LAT + 0.01}, r"different grids: latitude .*4 points from -60 to 60 and .*-59\.99"),
        (
            {"lon": np.arange(0.0, 360.0, 45.0)},
            r"different grids: longitude .*6 points .* and 8 points",
        ),
        ({"lat": LAT[::-1]}, r"different grids: latitude"),
    ],
)
def test_different_grids_are_named(tmp_path, other, message):
    write(weather("2013-01-01", 5), tmp_path / "a.nc")
    write(weather("2014-01-01", 5, **other), tmp_path / "b.nc")
    with pytest.raises(InputError, match=r"a\.nc and .*b\.nc have " + message):
        open_weatherbench(tmp_path)


def test_grids_that_differ_by_rounding_are_one(tmp_path):
    write(weather("2013-01-01", 5), tmp_path / "a.nc")
    write(weather("2014-01-01", 5, lat=LAT.astype("f4") + np.float32(1e-5)), tmp_path / "b.nc")
    assert open_weatherbench(tmp_path).sizes == {"time": 10, "latitude": 4, "longitude": 6}


def test_other_units_orders_and_calendars_are_named(tmp_path):
    write(weather("2013-01-01", 5), tmp_path / "a.nc")
    celsius = weather("2014-01-01", 5)
    celsius["t2m"] = (celsius["t2m"] - 273.15).assign_attrs(units="degC")
    write(celsius, tmp_path / "b.nc", packed=False)
    with pytest.raises(InputError, match=r"a\.nc and .*b\.nc hold '2m_temperature' in different"):
        open_weatherbench(tmp_path)
    write(weather("2014-01-01", 5).transpose("time", "lon", "lat"), tmp_path / "b.nc")
    with pytest.raises(InputError, match=r"'lon', 'lat'"):
        open_weatherbench(tmp_path)
    noleap = weather("2014-01-01", 5).convert_calendar("noleap", use_cftime=True)
    write(noleap, tmp_path / "b.nc")
    with pytest.raises(InputError, match="different calendars"):
        open_weatherbench(tmp_path)
    assert open_weatherbench(tmp_path / "b.nc").indexes["time"].calendar == "noleap"


def test_same_dimensions_under_other_names_are_joined(tmp_path):
    """The Climate Data Store renamed time and expver in 2024."""
    write(weather("2013-01-01", 5), tmp_path / "a.nc")
    renamed = weather("2013-01-01T05", 5, seed=1).rename(
        time="valid_time", lat="latitude", lon="longitude"
    )
    write(renamed, tmp_path / "b.nc")
    ds = open_weatherbench(tmp_path)
    np.testing.assert_array_equal(ds[T2M][5:], renamed["t2m"])


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.01, 0.0])
@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF3_64BIT", "NETCDF3_CLASSIC"])
def test_truncated_netcdf_is_named(tmp_path, format, keep):
    """The netCDF library reads zeros past the end of a truncated netCDF 3 file."""
    write(weather("2013-01-01", 30), tmp_path / "a.nc", format=format)
    path = write(weather("2014-01-01", 30), tmp_path / "b.nc", format=format)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(InputError, match=r"b\.nc: .*(truncated|damaged).*ownload it again"):
        open_weatherbench(tmp_path)


@pytest.mark.parametrize(
    "format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]
)
@pytest.mark.parametrize("unlimited", [[], ["time"]])
@pytest.mark.parametrize("second", [False, True])
def test_whole_netcdf3_is_not_taken_for_truncated(tmp_path, format, unlimited, second):
    import netCDF4

    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=format) as nc:
        for name, size in (("time", None if unlimited else 5), ("lat", 3), ("lon", 5)):
            nc.createDimension(name, size)
        for name, values in (("lat", [-10, 0, 10]), ("lon", [0, 1, 2, 3, 4])):
            nc.createVariable(name, "f4", (name,))[:] = values
        nc.createVariable("time", "i4", ("time",)).setncattr("units", "hours since 2013-01-01")
        nc["time"][:] = np.arange(5)
        variable = nc.createVariable("t2m", "i2", ("time", "lat", "lon"))  # 30 bytes a step
        variable.setncatts({"units": "K", "scale_factor": 0.01, "add_offset": 270.0})
        variable[:] = 280 + np.arange(75).reshape(5, 3, 5) / 100
        if second:
            nc.createVariable("flag", "i1", ("time", "lon"))[:] = 1
    ds = open_weatherbench(tmp_path / "a.nc")
    np.testing.assert_allclose(ds[T2M][-1, -1], 280 + np.arange(70, 75) / 100, atol=1e-4)
    whole = (tmp_path / "a.nc").read_bytes()
    (tmp_path / "b.nc").write_bytes(whole[:-8])
    with pytest.raises(InputError, match=rf"truncated netCDF 3 file, {len(whole) - 8} bytes of"):
        open_weatherbench(tmp_path / "b.nc")


def test_what_is_no_netcdf_is_named(tmp_path):
    (tmp_path / "page.nc").write_text("<html>404 Not Found</html>")
    with pytest.raises(InputError, match=r"page\.nc: cannot be opened .*neither netCDF nor zarr"):
        open_weatherbench(tmp_path)


def test_file_without_times(tmp_path):
    write(weather("2013-01-01", 0), tmp_path / "a.nc", packed=False)
    with pytest.raises(InputError, match=r"a\.nc: it has no times"):
        open_weatherbench(tmp_path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([], "found nothing, it is empty"),
        (["notes.txt", "x.csv"], "found notes.txt, x.csv"),
        (["a.zip"], "Give a zip by its name: a.zip"),
    ],
)
def test_directory_without_data(tmp_path, contents, message):
    for name in contents:
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=f"no netCDF file .*{message}"):
        open_weatherbench(tmp_path)


def test_paths_that_do_not_exist(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or directory"):
        open_weatherbench(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no file matches"):
        open_weatherbench(str(tmp_path / "*.nc"))
    with pytest.raises(InputError, match="asks for nothing"):
        open_weatherbench(tmp_path, [])


# --- zarr -----------------------------------------------------------------------------------------


def store(path: Path | str, zarr_format: int, *, shards=None, steps: int = 40) -> xr.Dataset:
    """Write WeatherBench 2's layout: (time, longitude, latitude), chunks of 10 steps."""
    ds = weather("2020-01-01", steps, freq="6h")
    ds = ds.rename(t2m=T2M, lat="latitude", lon="longitude")
    ds = ds.transpose("time", "longitude", "latitude")
    ds["temperature"] = ds[T2M].expand_dims(level=[500, 850], axis=1)
    encoding = {T2M: {"chunks": (10, 6, 4), **({"shards": shards} if shards else {})}}
    ds.to_zarr(path, zarr_format=zarr_format, encoding=encoding, consolidated=zarr_format == 2)
    return ds


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_weatherbench2_store(tmp_path, zarr_format):
    theirs = store(tmp_path / "era5.zarr", zarr_format)
    for path in (tmp_path / "era5.zarr", tmp_path):
        ds = open_weatherbench(path)
        assert list(ds.data_vars) == [T2M]  # not the one on levels
        assert ds[T2M].dims == ("time", "latitude", "longitude")
        np.testing.assert_array_equal(ds[T2M], theirs[T2M].transpose(*ds[T2M].dims))
    with pytest.raises(InputError, match="extra dimension 'level'"):
        open_weatherbench(tmp_path, "temperature")


@pytest.mark.parametrize(
    ("zarr_format", "chunk"),
    [(2, "2m_temperature/2.0.0"), (3, "2m_temperature/c/2/0/0"), (3, "sharded")],
)
@pytest.mark.parametrize("chunks", ["auto", None])
def test_missing_zarr_chunk_raises_when_read(tmp_path, zarr_format, chunk, chunks):
    path = tmp_path / "era5.zarr"
    theirs = store(path, zarr_format, shards=(20, 6, 4) if chunk == "sharded" else None)
    chunk = "2m_temperature/c/1/0/0" if chunk == "sharded" else chunk
    (path / chunk).unlink()
    ds = open_weatherbench(path, chunks=chunks)
    good = ds[T2M][:20]
    if chunks is None:  # dask reads more than was asked for
        np.testing.assert_array_equal(good, theirs[T2M][:20].transpose(*good.dims))
    name = chunk.partition("/")[2]
    with pytest.raises(InputError, match=rf"'{name}' of zarr array '2m_temperature' is missing"):
        ds[T2M][25].compute()
    with pytest.raises(InputError, match="is missing"):
        check(ds)


def test_missing_chunk_of_a_coordinate_raises_at_once(tmp_path):
    store(tmp_path / "era5.zarr", 3)
    (tmp_path / "era5.zarr" / "time" / "c" / "0").unlink()
    with pytest.raises(InputError, match="chunk 'c/0' of zarr array 'time' is missing"):
        open_weatherbench(tmp_path)


def test_damaged_zarr_chunk_is_named(tmp_path):
    store(tmp_path / "era5.zarr", 3)
    chunk = tmp_path / "era5.zarr" / T2M / "c" / "3" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:50])
    ds = open_weatherbench(tmp_path)
    with pytest.raises(
        InputError, match=r"era5\.zarr: '2m_temperature' cannot be read at time 0..39"
    ):
        ds[T2M].compute()


def test_damaged_zarr_metadata_is_named(tmp_path):
    store(tmp_path / "era5.zarr", 3)
    (tmp_path / "era5.zarr" / T2M / "zarr.json").write_text('{"zarr_format": 3,')
    with pytest.raises(InputError, match=r"era5\.zarr: cannot be opened"):
        open_weatherbench(tmp_path)


def test_store_behind_a_url(tmp_path):
    theirs = store(tmp_path / "era5.zarr", 3)
    url = (tmp_path / "era5.zarr").as_uri()
    ds = open_weatherbench(url)
    np.testing.assert_array_equal(ds[T2M], theirs[T2M].transpose(*ds[T2M].dims))
    with pytest.raises(InputError, match="nowhere"):
        open_weatherbench((tmp_path / "nowhere.zarr").as_uri())
    with pytest.raises(InputError, match="only zarr stores are read from a URL"):
        open_weatherbench("https://example.org/2m_temperature_2013_5.625deg.nc")


def test_cloud_without_its_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(InputError, match=r"obstore.*pip install 'stforecast\[cloud\]'"):
        open_weatherbench("gs://weatherbench2/datasets/era5/64x32.zarr")


@pytest.mark.parametrize(
    "url", ["gs://bucket/a.zarr", "s3://bucket/a.zarr", "https://a.org/a.zarr"]
)
def test_a_wrong_storage_option_is_named(url):
    with pytest.raises(InputError, match=r"a\.zarr: cannot be opened .*found \[.*'anon'"):
        open_weatherbench(url, storage_options={"anon": True})


@pytest.mark.parametrize("options", [None, {}, {"region": "us-west-2"}])
def test_requests_are_anonymous_unless_asked_otherwise(options):
    pytest.importorskip("obstore")
    assert object_store("s3://bucket/a.zarr", options).config["skip_signature"] == "true"
    signed = object_store("s3://bucket/a.zarr", {**(options or {}), "skip_signature": False})
    assert signed.config["skip_signature"] == "false"
    own = {"access_key_id": "a", "secret_access_key": "b"}
    assert "skip_signature" not in object_store("s3://bucket/a.zarr", own).config


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


def test_a_store_is_read_over_http_and_a_lost_chunk_is_refused(tmp_path):
    theirs = store(tmp_path / "era5.zarr", 2)
    handler = partial(SilentHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/era5.zarr"
        ds = open_weatherbench(url)
        np.testing.assert_array_equal(ds[T2M], theirs[T2M].transpose(*ds[T2M].dims))
        next((tmp_path / "era5.zarr" / T2M).glob("0*")).unlink()
        with pytest.raises(InputError, match="is missing"):
            open_weatherbench(url)[T2M].compute()
        server.shutdown()


# --- zip ------------------------------------------------------------------------------------------


@pytest.fixture
def archive(years, tmp_path):
    directory, values = years
    path = tmp_path / "download" / "2m_temperature_5.625deg.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("__MACOSX/._2m_temperature_2013_5.625deg.nc", "not for us")
        for file in sorted(directory.glob("2m_*.nc")):
            zipped.write(file, f"5.625deg/{file.name}")
    return path, values


def test_zip_is_extracted_once(archive, tmp_path, monkeypatch):
    path, values = archive
    np.testing.assert_array_equal(open_weatherbench(path)[T2M], values)
    (extracted,) = (p for p in path.parent.iterdir() if p.is_dir())
    stamps = {p: p.stat().st_mtime_ns for p in extracted.rglob("*")}
    assert len(stamps) == 4
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkdtemp", lambda **_: pytest.fail("extracted twice"))
        np.testing.assert_array_equal(open_weatherbench(path, "t2m")[T2M], values)
    assert {p: p.stat().st_mtime_ns for p in extracted.rglob("*")} == stamps
    assert sorted(p.name for p in path.parent.iterdir()) == [extracted.name, path.name]

    np.testing.assert_array_equal(
        open_weatherbench(path, extract_to=tmp_path / "new" / "cache")[T2M], values
    )
    assert (tmp_path / "new" / "cache" / extracted.name).is_dir()

    next(extracted.rglob("*.nc")).unlink()
    with pytest.raises(InputError, match=r"1 files extracted earlier.*Delete the directory"):
        open_weatherbench(path)


def test_damaged_zips_leave_nothing_behind(archive):
    path, _ = archive
    whole = path.read_bytes()
    before = sorted(path.parent.iterdir())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"5\.625deg\.zip: damaged, incomplete or unknown zip"):
        open_weatherbench(path)
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    path.write_bytes(spoiled)
    with pytest.raises(InputError, match=r"5\.625deg\.zip: damaged"):
        open_weatherbench(path)
    assert sorted(path.parent.iterdir()) == before


def _symlink() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("2m_temperature_2013.nc")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link


@pytest.mark.parametrize(
    ("member", "contents", "message"),
    [
        ("../escaped.nc", "x", r"'\.\./escaped\.nc' would be written outside"),
        ("data/../../escaped.nc", "x", "would be written outside"),
        ("/tmp/escaped.nc", "x", "'/tmp/escaped.nc' would be written outside"),
        ("C:\\escaped.nc", "x", "would be written outside"),
        ("..\\escaped.nc", "x", "would be written outside"),
        (_symlink(), "/etc/passwd", "'2m_temperature_2013.nc' is a symbolic link"),
        ("bomb.nc", 120_000_000, r"would expand to 12000000\d"),
    ],
)
def test_hostile_zips_are_refused_untouched(tmp_path, member, contents, message):
    path = tmp_path / "inner" / "hostile.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        zipped.writestr("2m_temperature_2012.nc", "x")
        zipped.writestr(member, contents if isinstance(contents, str) else bytes(contents))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"hostile\.zip: .*" + message):
        open_weatherbench(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_zip_that_lies_about_its_size_is_stopped(tmp_path):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("2m_temperature_2012.nc", bytes(5_000_000))
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\1\2")
    raw[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"liar\.zip: damaged"):
        open_weatherbench(path)
    assert list(tmp_path.iterdir()) == [path]


def test_zip_limits(archive, tmp_path, monkeypatch):
    path, _ = archive
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(InputError, match="4 members, at most 3"):
        open_weatherbench(path)
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="at most 10000 bytes"):
        open_weatherbench(path)
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be extracted .* with extract_to="):
        open_weatherbench(path, extract_to=tmp_path / "file")


def test_zip_of_equal_names_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("a.nc", "1")
        zipped.writestr("A.nc", "2")
    with pytest.raises(InputError, match="several members called"):
        open_weatherbench(tmp_path / "a.zip")


# --- periods --------------------------------------------------------------------------------------


def days(start: str, end: str, calendar: str = "standard") -> xr.Dataset:
    time = xr.date_range(start, end, freq="D", calendar=calendar, use_cftime=calendar != "standard")
    return xr.Dataset({"n": ("time", np.arange(len(time)))}, {"time": time})


@pytest.mark.parametrize(
    ("period", "first", "last", "count"),
    [
        ("2013", "2013-01-01", "2013-12-31", 365),
        (2014, "2014-01-01", "2014-12-31", 365),
        ("2013:2014", "2013-01-01", "2014-12-31", 730),
        (" 2013 : 2014 ", "2013-01-01", "2014-12-31", 730),
        ("2013-12", "2013-12-01", "2013-12-31", 31),
        ("2014-02", "2014-02-01", "2014-02-28", 28),
        ("2013-12/2014-01", "2013-12-01", "2014-01-31", 62),
        ("2013-01-05/2013-01-06T23", "2013-01-05", "2013-01-06", 2),
        ("2013-01-05T01/2013-01-07T00:00", "2013-01-06", "2013-01-07", 2),
        ("2014-06-01/2014-06-02;2013-06-01/2013-06-02;", "2013-06-01", "2014-06-02", 4),
        ("2013-06-01/2013-06-09;2013-06-05/2013-06-10", "2013-06-01", "2013-06-10", 10),
    ],
)
@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_periods(period, first, last, count, calendar, caplog):
    ds = days("2013-01-01", "2014-12-31", calendar)
    with caplog.at_level(logging.WARNING):
        part = select_period(ds, period)
    assert part.sizes["time"] == count
    assert str(part["time"].values[0])[:10] == first
    assert str(part["time"].values[-1])[:10] == last
    assert (np.diff(part["n"]) > 0).all()
    assert not caplog.records


def test_period_of_a_360_day_calendar():
    ds = days("2013-01-01", "2014-12-30", "360_day")
    assert select_period(ds, "2013").sizes["time"] == 360
    assert select_period(ds, "2013-02-30/2013-03-01").sizes["time"] == 2
    with pytest.raises(InputError, match="2013-01-31"):
        select_period(ds, "2013-01-31")


def test_lacking_years_are_logged(caplog):
    ds = days("2013-01-01", "2017-06-30").drop_sel(time=["2014-05-01", "2014-05-02"])
    with caplog.at_level(logging.WARNING):
        part = select_period(ds, "1979:2018")
    assert part.sizes == ds.sizes
    (record,) = caplog.records
    assert record.getMessage() == (
        "period 1979:2018: the data have nothing for 1979-2012, 2018; only part of "
        "2014 (363 of 365 steps), 2017 (181 of 365 steps)"
    )


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
@pytest.mark.parametrize("period", ["1990", "2013;2016", "2013-01-01T01/2013-01-01T05"])
def test_period_without_data(period, calendar):
    ds = days("2013-01-01", "2014-12-31", calendar)
    empty = period.rpartition(";")[2]
    with pytest.raises(
        InputError, match=f"period '{empty}' has no data: .* 2013-01-01T00:00 to 2014-12-31T00:00"
    ):
        select_period(ds, period)


@pytest.mark.parametrize(
    "period",
    ["", ";", "last year", "2013-13", "2013-02-30", "2013/2014/2015", "13:14", "2013-1-1x"],
)
def test_periods_that_cannot_be_read(period):
    with pytest.raises(InputError, match="expected '2013:2016'"):
        select_period(days("2013-01-01", "2013-03-01"), period)


def test_periods_that_make_no_sense():
    with pytest.raises(InputError, match="ends before it starts"):
        select_period(days("2013-01-01", "2013-03-01"), "2014:2013")
    with pytest.raises(InputError, match="expected a time coordinate"):
        select_period(xr.Dataset(), "2013")
    with pytest.raises(InputError, match="expected times in order"):
        select_period(days("2013-01-01", "2013-03-01").isel(time=slice(None, None, -1)), "2013")


def test_selected_period_stays_lazy(years):
    ds = select_period(open_weatherbench(years[0]), "2014-01-02T00/2014-01-04T05;2014-01-06")
    assert ds[T2M].chunks is not None
    assert ds.sizes["time"] == 54 + 24


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


def test_split_refuses_periods_that_overlap():
    ds = xr.Dataset(coords={"time": pd.date_range("2013-01-01", "2015-12-31", freq="D")})
    parts = split(ds, train="2013:2014", validation="2015-01/2015-06", test="2015-07/2015-12")
    assert [p.sizes["time"] for p in parts.values()] == [730, 181, 184]
    with pytest.raises(
        InputError, match=r"validation \(2014\) .* 365 times in common, from 2014-01-01"
    ):
        split(ds, train="2013:2014", validation="2014", test="2015")
