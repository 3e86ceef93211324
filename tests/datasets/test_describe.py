"""What describe() says of real forms, of damage and of nonsense. It never raises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import ROOT, SHARED, pipeline

from stforecast.datasets.describe import Description, describe
from stforecast.datasets.prepare import open_prepared, prepare
from stforecast.errors import InputError
from stforecast.testing.flow import write_taxibj
from stforecast.testing.robot import write_bridgedata
from stforecast.testing.video import write_kth
from stforecast.testing.weather import make_weather

describing = import_module("stforecast.datasets.describe")

DATA = SHARED / "data"


@pytest.fixture
def years(tmp_path) -> Path:
    """Two years of daily data in WeatherBench 1's layout, with a gap and some NaN."""
    directory = tmp_path / "5.625deg"
    directory.mkdir()
    for year, steps in ((2001, 365), (2003, 300)):
        ds = make_weather(steps, time=f"{year}-01-01", timestep="1D", shape=(4, 8))
        ds = ds.rename({"2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"})
        ds["t2m"][:, 0, 0] = np.nan
        ds.to_netcdf(directory / f"2m_temperature_{year}_5.625deg.nc")
    return directory


def test_what_a_directory_of_years_holds(years):
    found = describe(years)
    assert found.adapter == "open_weatherbench"
    assert found.variables == {"2m_temperature": "K"}
    assert found.dims == {"time": 665, "latitude": 4, "longitude": 8}
    assert found.period == ("2001-01-01T00:00", "2003-10-27T00:00")
    assert found.years == "2001, 2003"
    assert found.timestep == "1 days 00:00:00"
    assert found.gaps == (("2001-12-31T00:00", "2003-01-01T00:00", 365),)
    assert found.nan_share == {"2m_temperature": pytest.approx(1 / 32)}
    assert found.sampled == "in 8 time steps of 665"
    assert found.size == sum(f.stat().st_size for f in years.iterdir())
    assert found.memory == 4 * 665 * 32
    assert (found.files, found.problems) == (2, ())
    text = str(found)
    for part in (
        "directory (2 .nc), 2 files",
        "365 steps missing: 365 between",
        "3.12%",
        "2001, 2003",
    ):
        assert part in text
    xr.testing.assert_equal(found.open(chunks=None), found.open())


def test_a_zip_is_looked_into_but_not_unpacked_beside(years, tmp_path, monkeypatch):
    path = tmp_path / "zips" / "t2m.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for file in years.iterdir():
            archive.write(file, file.name)
    found = describe(path)
    assert (found.adapter, found.kind) == ("open_weatherbench", "zip archive")
    assert found.dims["time"] == 665
    monkeypatch.setattr(describing, "_ZIP_BYTES", 100)
    assert "not looked into, it is large: 2 members" in describe(path).problems[0]
    assert [f.name for f in path.parent.iterdir()] == ["t2m.zip"]


def test_clips_are_counted(tmp_path):
    found = describe(write_kth(tmp_path / "kth", persons=(1, 17), lengths=(5, 9)))
    assert (found.adapter, found.clips) == ("open_kth", "8 of 5 to 9 frames")
    assert (found.period, found.gaps) == (None, ())
    assert describe(write_bridgedata(tmp_path / "bridge")).clips == "8 of 12 frames"


def test_a_prepared_store_is_known(tmp_path):
    store = prepare(make_weather(steps=30), tmp_path / "a.zarr")
    found = describe(store)
    assert (found.adapter, found.kind) == ("open_prepared", "zarr 3 store")
    assert found.sampled == "in 8 time steps of 30"


def test_steps_of_a_short_series_are_all_looked_at(tmp_path):
    make_weather(steps=3).to_netcdf(tmp_path / "t.nc")
    assert describe(tmp_path).sampled == "in all time steps"
    make_weather(steps=1).to_netcdf(tmp_path / "t.nc")
    assert describe(tmp_path).timestep is None


# --- damage ---------------------------------------------------------------------------------------


def cut(path: Path, keep: float = 0.6) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def netcdf(tmp_path: Path) -> Path:
    make_weather(steps=20).to_netcdf(tmp_path / "t.nc")
    return tmp_path / "t.nc"


def written(name: str, data: bytes):
    def write(tmp_path: Path) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


def curvilinear(tmp_path: Path) -> Path:
    places = {"nav_lat": (("j", "i"), np.ones((2, 3)), {"units": "degrees_north"})}
    ds = xr.Dataset({"t2m": (("time", "j", "i"), np.ones((4, 2, 3)))}, places)
    ds.to_netcdf(tmp_path / "t.nc")
    return tmp_path / "t.nc"


def lost_chunk(tmp_path: Path) -> Path:
    store = prepare(make_weather(steps=20), tmp_path / "a.zarr", chunks=5, shards=5)
    (store / "2m_temperature" / "c" / "3" / "0" / "0").unlink()
    return store


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (lambda p: p / "nothing", "nothing", "no such file or directory"),
        (lambda p: p, "empty directory", "nothing to read"),
        (
            written("a.nc", b""),
            "empty file",
            "open_grid would read such files, but .*cannot be opened",
        ),
        (lambda p: cut(netcdf(p)), "HDF5", "truncated"),
        (written("a.nc", b"\x89HDF\r\n\x1a\n" + bytes(99)), "HDF5", "truncated|damaged"),
        (written("a.nc", b"CDF\1" + bytes(3)), "netCDF 3", "truncated|damaged"),
        (written("a.grib", b"GRIB\0\0"), "GRIB", "open_grid would read such files, but"),
        (written("a.zip", b"PK\3\4" + bytes(99)), "zip", "zip"),
        (written("a.seq", b"\xed\xfe\0\0N\0o\0r\0p\0i\0x\0"), "StreamPix", "open_caltech|a.seq"),
        (written("data.hdf5", b"\x89HDF\r\n\x1a\n"), "HDF5", "open_robonet would read"),
        (written("BJ13_M32x32_T30_InOut.h5", b"x"), "unknown", "open_taxibj would read"),
        (written("dataset.npz", b"PK\5\6" + bytes(18)), "numpy archive", "open_taxibj would read"),
        (written("train-images-idx3-ubyte", b"\0\0\x08\3" + bytes(5)), "IDX", "open_moving_mnist"),
        (
            written("mnist_test_seq.npy", b"\x93NUMPY\1"),
            "numpy array",
            "open_moving_mnist would read",
        ),
        (written("notes.txt", b"hello"), "unknown", "no adapter knows"),
        (written("person01_boxing_d1_uncomp.avi", b"RIFF"), "unknown", "person01"),
        (curvilinear, "HDF5", "open_grid would read such files, but"),
        (lost_chunk, "zarr 3", "chunk 'c/3/0/0' .*missing"),
    ],
    ids=[
        "no such path -> said",
        "empty directory -> said",
        "empty netCDF -> why it does not open",
        "truncated netCDF 4 -> said",
        "HDF5 header only -> said",
        "netCDF 3 header only -> said",
        "GRIB magic only -> why",
        "zip header only -> said",
        "StreamPix magic only -> why",
        "RoboNet file, header only -> why",
        "TaxiBJ file of nonsense -> why",
        "npz without members -> why",
        "IDX cut in its header -> why",
        "npy cut in its header -> why",
        "text -> no adapter",
        "KTH name on a cut video -> said",
        "curvilinear grid -> why",
        "zarr with a lost chunk -> opens, problem named",
    ],
)
def test_damage_is_described(tmp_path, make, kind, reason):
    path = make(tmp_path)
    found = describe(path)
    assert isinstance(found, Description)
    assert kind in found.kind
    said = " ".join([found.reason, *found.problems])
    assert re.search(reason, said), said
    assert all(part in str(found) for part in (found.reason, *found.problems))
    if found.adapter is None:
        with pytest.raises(InputError):
            found.open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(tmp_path):
    path = netcdf(tmp_path)
    path.chmod(0)
    assert "Permission" in str(describe(path))


@pytest.mark.parametrize("path", [None, 3, "", "\0", "~nobody-here/x"], ids=repr)
def test_what_is_no_path_is_said(path):
    assert describe(path).adapter is None


def test_one_adapters_fault_does_not_hide_the_others(years, monkeypatch):
    from stforecast.datasets import flow

    monkeypatch.setattr(flow, "recognise", lambda _: 1 / 0)
    assert describe(years).adapter == "open_weatherbench"


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not beside this checkout")
@pytest.mark.parametrize(
    ("path", "adapter", "steps"),
    [
        ("plasim_t2m", "open_weatherbench", 52584),
        ("ncep_air_temperature/air_temperature.zarr", "open_ncep", 2920),
        ("era5_t2m_italy", "open_era5", 488),
        ("ersst_v5/sst.mnmean.nc", "open_grid", 128),
        ("nyc_flow/NYBike", "open_nyc_flow", 4320),
        ("mnist", "open_moving_mnist", 200_000),
    ],
)
def test_real_data_are_recognised(path, adapter, steps):
    found = describe(DATA / path)
    assert (found.adapter, found.dims["time"], found.problems) == (adapter, steps, ())
    shares = found.nan_share.values()
    assert all(0.3 < s < 0.33 if "sst" in path else s == 0 for s in shares)


# --- the pipeline ---------------------------------------------------------------------------------


def test_the_pipeline_finds_the_adapter(tmp_path):
    data = write_taxibj(tmp_path / "TaxiBJ", days=(2, 2, 2, 60))
    command = [sys.executable, ROOT / "pipelines/prepare.py", "--data", data]
    command += ["--store", tmp_path / "a.zarr", "--chunks", "50", "--shards", "100"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "open_taxibj" in ran.stdout
    assert "verified" in ran.stdout
    ready = open_prepared(tmp_path / "a.zarr")
    assert list(ready.data_vars) == ["inflow", "outflow"]
    assert ready.attrs["data_fingerprint"] in ran.stdout


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "there is nothing to read. Name one with --adapter"),
        (("--adapter", "open_sesame"), "no adapter is called 'open_sesame', there are open_"),
        (("--adapter", "open_kth", "--options", "{'a'"), "--options"),
    ],
    ids=["nothing there", "unknown adapter", "options that are no JSON"],
)
def test_the_pipeline_says_what_is_wrong_in_a_line(tmp_path, monkeypatch, capsys, options, reason):
    given = ["--data", tmp_path, "--store", tmp_path / "a.zarr", *options]
    assert pipeline("prepare", *given, monkeypatch=monkeypatch) == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]
