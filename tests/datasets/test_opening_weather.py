"""Opening weather reads next to nothing, and a path tells what it is; genuine files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from weather_cases import DIMS, T2M, plain

from stforecast.conventions.forms import FirstValid
from stforecast.conventions.gate import check
from stforecast.datasets import lazy as _lazy
from stforecast.datasets.periods import select_period
from stforecast.datasets.weather import (
    open_era5,
    open_grid,
    open_ncep,
    open_weatherbench,
    recognise,
)
from stforecast.testing.weather_files import (
    write_cds,
    write_ncep,
    write_weatherbench1,
    write_weatherbench2,
)

SHARED = Path(__file__).parents[2].parent / "shared"

needs_shared = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason="the shared data are not beside this checkout"
)


# --- opening reads nothing ------------------------------------------------------------------------


OPEN = {
    "WeatherBench 1": (write_weatherbench1, open_weatherbench, ["t2m", "z500", "t850", "lsm"]),
    "WeatherBench 2": (write_weatherbench2, open_weatherbench, ["t2m", "z500", "t850", "lsm"]),
    "ERA5, new": (write_cds, open_era5, ["t2m"]),
    "ERA5, old": (lambda path: write_cds(path, layout="old"), open_era5, ["t2m"]),
    "ERA5, GRIB": (lambda path: write_cds(path, layout="grib", steps=8), open_era5, ["t2m"]),
    "NCEP": (write_ncep, open_ncep, ["air"]),
}


@pytest.mark.parametrize("chunks", ["auto", None])
@pytest.mark.parametrize("case", OPEN)
def test_opening_reads_one_map_at_most(tmp_path, case, chunks, monkeypatch):
    write, opens, variables = OPEN[case]
    path = write(tmp_path)
    reads = []
    for kind in (_lazy.Joined, _lazy.Repeated, FirstValid):
        read = kind._read

        def counted(self, key, read=read):
            values = read(self, key)
            reads.append(values.size)
            return values

        monkeypatch.setattr(kind, "_read", counted)
    ds = opens(path, variables, chunks=chunks)
    assert max(reads, default=0) <= ds.sizes["latitude"] * ds.sizes["longitude"]
    assert len(reads) <= 3  # of temperatures only
    before = len(reads)
    assert {v.dims for v in ds.values()} == {DIMS}
    assert all(v.attrs["units"] for v in ds.values())
    assert {"title", "source", "license", "references", "Conventions"} <= set(ds.attrs)
    assert len(reads) == before
    assert not any(v.variable._in_memory for v in ds.values())
    for name in ds.data_vars:
        assert np.isfinite(ds[name][3:5].values).all()
    assert len(reads) > before


# --- what a path is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "begins"),
    [
        (write_weatherbench1, "open_weatherbench: WeatherBench 1 netCDF, 7 files: "),
        (write_weatherbench2, "open_weatherbench: zarr store"),
        (write_cds, "open_era5: netCDF"),
        (lambda path: write_cds(path, layout="old"), "open_era5: netCDF"),
        (lambda path: write_cds(path, layout="zip"), "open_era5: zip"),
        (lambda path: write_cds(path, layout="grib", steps=2), "open_era5: GRIB"),
        (write_ncep, "open_ncep: "),
        (lambda path: path, None),
        (lambda path: path / "nowhere", None),
        (lambda path: Path(__file__), None),
        (lambda path: Path(__file__).parent, None),
    ],
)
def test_recognise(tmp_path, write, begins):
    path = Path(write(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    said = recognise(path)
    assert said is None if begins is None else said.startswith(begins), said
    assert sorted(tmp_path.rglob("*")) == before  # nothing was extracted or left
    if said is not None:
        opens = {f.__name__: f for f in (open_weatherbench, open_era5, open_ncep)}
        assert len(opens[said.partition(":")[0]](path).data_vars)


# --- genuine data ---------------------------------------------------------------------------------


@needs_shared
def test_genuine_ncep():
    path = SHARED / "data" / "ncep_air_temperature" / "air_temperature.zarr"
    ds = open_ncep(path)
    assert dict(ds.sizes) == {"time": 2920, "latitude": 25, "longitude": 53}
    assert ds.attrs["title"] == "4x daily NMC reanalysis (1948)"
    assert ds["air"].encoding["dtype"] == np.int16
    check(select_period(ds, "2014"), timestep=np.timedelta64(6, "h"))
    assert recognise(path).startswith("open_ncep: ")


@needs_shared
def test_genuine_sea_surface_temperature_keeps_its_land():
    path = SHARED / "data" / "ersst_v5" / "sst.mnmean.nc"
    ds = open_grid(path)
    sst = ds["sea_surface_temperature"]
    assert sst.attrs["units"] == "K"
    land = np.isnan(sst.values)
    assert 0.3 < land.mean() < 0.32
    assert (land == land[0]).all()
    np.testing.assert_allclose(
        sst[-1], plain(path)["sst"][-1].sortby("lat").astype("f8") + 273.15, rtol=0, atol=2e-5
    )
    assert ds.attrs["license"] == "No constraints on data access or use"
    assert ds.attrs["title"] == "NOAA ERSSTv5 (in situ only)"


@needs_shared
@pytest.mark.parametrize(
    ("folder", "begins"),
    [
        ("era5_t2m_italy", "open_era5: netCDF as of ERA5, 2m_temperature.nc: t2m"),
        ("plasim_t2m", "open_weatherbench: WeatherBench 1 netCDF, 7 files: t2m"),
        ("ersst_v5", "open_grid: gridded data, sst.mnmean.nc: sst"),
        ("nyc_flow", None),
        ("mnist", None),
        ("video_clips", None),
    ],
)
def test_genuine_paths_are_recognised(folder, begins):
    assert recognise(SHARED / "data" / folder) == begins


@needs_shared
def test_genuine_era5():
    ds = open_era5(SHARED / "data" / "era5_t2m_italy")
    check(ds, [T2M], timestep=np.timedelta64(3, "h"))
    assert ds.attrs["Conventions"] == "CF-1.6"
    assert "Copernicus" in ds.attrs["license"]
