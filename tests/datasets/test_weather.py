"""Weather in its owners' forms: layouts, levels, laziness, and what damage comes to."""

from __future__ import annotations

import logging
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.conventions.forms import FirstValid
from stforecast.conventions.gate import canonicalize, check
from stforecast.datasets import lazy as _lazy
from stforecast.datasets.periods import select_period
from stforecast.datasets.weather import (
    open_era5,
    open_grid,
    open_ncep,
    open_weatherbench,
    recognise,
)
from stforecast.errors import InputError
from stforecast.task import Task
from stforecast.testing.weather import make_weather
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
T2M, Z500, T850 = "2m_temperature", "geopotential_500", "temperature_850"
DIMS = ("time", "latitude", "longitude")


def plain(path, **kwargs) -> xr.Dataset:
    """What xarray alone reads, in memory."""
    with xr.open_dataset(path, **kwargs) as ds:
        return ds.load()


# --- WeatherBench 1 -------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_weatherbench1_tree(tmp_path, zipped, caplog):
    tree = path = write_weatherbench1(tmp_path / "5.625deg")
    if zipped:
        path = Path(shutil.make_archive(str(tmp_path / "all_5.625deg"), "zip", tree))
    with caplog.at_level(logging.WARNING):
        ds = open_weatherbench(path)
    assert set(ds.data_vars) == {T2M, Z500}  # not the one on several levels
    assert ds[Z500].attrs["level"] == 500
    assert ds[Z500].attrs["level_units"] == "hPa"
    assert ds[Z500].attrs["units"] == "m**2 s**-2"
    theirs = [
        plain(tree / Z500 / f"geopotential_500hPa_{year}_5.625deg.nc") for year in (2013, 2014)
    ]
    assert theirs[0]["z"].dims == ("time", "lat", "lon")
    assert theirs[0]["level"].ndim == 0
    np.testing.assert_array_equal(ds[Z500], np.concatenate([part["z"] for part in theirs]))
    (record,) = caplog.records
    assert "left out, as they lie on several levels: t (on 500, 850 hPa)" in record.getMessage()


def test_weatherbench1_opens_the_directories_it_needs(tmp_path):
    tree = write_weatherbench1(tmp_path)
    (tree / "geopotential").mkdir()
    for name in ("geopotential/geopotential_2013_5.625deg.nc", "geopotential_500/readme.txt"):
        (tree / name).write_text("whoever opens this, fails")
    ds = open_weatherbench(tree, ["t850", "z500", "t2m", "lsm", "orography"])
    assert list(ds.data_vars) == [T850, Z500, T2M, "land_sea_mask", "orography"]
    assert {v.dims for v in ds.values()} == {DIMS}
    files = sorted((tree / "temperature").iterdir())
    t = np.concatenate([plain(f)["t"].sel(level=850) for f in files])
    np.testing.assert_array_equal(ds[T850], t)
    fixed = plain(tree / "constants" / "constants_5.625deg.nc")
    np.testing.assert_array_equal(ds["land_sea_mask"][[0, 71]], [fixed["lsm"]] * 2)
    np.testing.assert_array_equal(ds["orography"][3, ::2, [5, 1]], fixed["orography"][::2, [5, 1]])
    (tree / "geopotential_500").rename(tree / "not here")
    with pytest.raises(InputError, match=r"geopotential_2013_5\.625deg\.nc: cannot be opened"):
        open_weatherbench(tree, ["z500", "t2m"])


def test_levels_of_one_variable_side_by_side(tmp_path):
    tree = write_weatherbench1(tmp_path / "a")
    shutil.move(tree / "temperature", tmp_path / "temperature")
    for level in (500, 850):  # as WeatherBench 1 has them: a directory a level, a level a file
        (tree / f"temperature_{level}").mkdir()
        for file in (tmp_path / "temperature").iterdir():
            one = plain(file).sel(level=[level])
            one.to_netcdf(tree / f"temperature_{level}" / f"{file.stem}_{level}.nc")
    ds = open_weatherbench(tree)
    assert {Z500, T2M, T850, "temperature_500"} == set(ds.data_vars)
    assert float((ds["temperature_850"] - ds["temperature_500"]).min()) > 10
    np.testing.assert_array_equal(ds[T850], open_weatherbench(tree, "t850")[T850])


def test_constants_as_weatherbench1_publishes_them(tmp_path):
    tree = write_weatherbench1(tmp_path)
    with pytest.raises(InputError, match=r"'land_sea_mask' has no time: ask for it beside"):
        open_weatherbench(tree / "constants" / "constants_5.625deg.nc", ["lsm"])
    ds = open_weatherbench(tree, ["t2m", "orography"], chunks=None)
    assert not ds["orography"].variable._in_memory
    again = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(again["orography"][-1], ds["orography"][0])
    np.testing.assert_array_equal(ds["orography"].isel(time=[4, 4, 0], latitude=-1).std("time"), 0)


# --- WeatherBench 2 and ARCO-ERA5 -----------------------------------------------------------------


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("chunks", ["auto", None])
def test_weatherbench2(tmp_path, zarr_format, chunks):
    path = write_weatherbench2(tmp_path, zarr_format=zarr_format)
    with xr.open_zarr(path, chunks=None, consolidated=zarr_format == 2) as theirs:
        assert theirs["geopotential"].dims == ("time", "level", "longitude", "latitude")
        z = theirs["geopotential"].sel(level=500).transpose(*DIMS).values
        mask = theirs["land_sea_mask"].transpose(*DIMS[1:]).values
    ds = open_weatherbench(path, ["z500", "land_sea_mask", "t2m"], chunks=chunks)
    assert list(ds.data_vars) == [Z500, "land_sea_mask", T2M]
    np.testing.assert_array_equal(ds[Z500], z)
    np.testing.assert_array_equal(ds["land_sea_mask"][7], mask)
    check(ds, timestep=np.timedelta64(6, "h"))
    assert list(open_weatherbench(path).data_vars) == [T2M]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arco_era5_is_cut_to_the_times_that_are_filled(tmp_path, zarr_format):
    path = write_weatherbench2(tmp_path, layout="arco", zarr_format=zarr_format, steps=96)
    ds = open_weatherbench(path, ["t2m", "t850", "lsm"])
    assert str(ds.time.values[0])[:13] == "2020-01-02T00"
    assert str(ds.time.values[-1])[:13] == "2020-01-03T23"
    assert (np.diff(ds["latitude"]) > 0).all()  # theirs goes from north to south
    check(ds, timestep=np.timedelta64(1, "h"))
    with pytest.raises(InputError, match=r"chunk .* of zarr array '2m_temperature' is missing"):
        open_grid(path, "t2m")[T2M].load()  # which knows nothing of the attribute


def test_a_store_behind_a_url_and_its_levels(tmp_path):
    path = write_weatherbench2(tmp_path).as_uri()
    ds = open_weatherbench(path, ["z850", "t2m"], storage_options={})
    assert list(ds.data_vars) == ["geopotential_850", T2M]
    check(ds)


def test_one_level_is_read_and_no_other(tmp_path):
    path = write_weatherbench2(tmp_path)
    with xr.open_zarr(path) as theirs:
        encoding = {"geopotential": {"chunks": (10, 1, 16, 8)}}
        theirs = theirs[["geopotential"]].load().drop_encoding()
    theirs.to_zarr(tmp_path / "levels.zarr", encoding=encoding, zarr_format=2)
    for chunk in (tmp_path / "levels.zarr" / "geopotential").glob("*.1.0.0"):
        chunk.unlink()  # 700 hPa: whoever reads it, fails
    ds = open_weatherbench(tmp_path / "levels.zarr", ["z500", "z850"])
    check(ds)
    with pytest.raises(InputError, match="is missing"):
        open_weatherbench(tmp_path / "levels.zarr", ["z700"])["geopotential_700"].load()


def test_a_level_is_decoded_once_for_a_chunk(tmp_path):
    path = write_weatherbench2(tmp_path)
    ds = open_weatherbench(path, ["t500", "t850"])
    names = {k[0] for k in ds["temperature_500"].__dask_keys__()[0][0]}
    assert names.isdisjoint(k[0] for k in ds[T850].__dask_keys__()[0][0])
    assert not np.array_equal(ds["temperature_500"], ds[T850])


# --- the Climate Data Store -----------------------------------------------------------------------


def cds(directory: Path, layout: str, **options) -> xr.Dataset:
    return open_era5(write_cds(directory, layout=layout, **options))


@pytest.mark.parametrize("layout", ["new", "old", "zip", "grib"])
def test_every_layout_of_the_cds_holds_the_same(tmp_path, layout):
    expected = plain(write_cds(tmp_path / "plain"))["t2m"].isel(latitude=slice(None, None, -1))
    ds = cds(tmp_path / "a", layout)
    names = {T2M} | ({"total_precipitation"} if layout == "zip" else set())
    assert set(ds.data_vars) == names
    assert set(ds.coords) == set(DIMS)
    step = {"old": 1e-3, "grib": 1e-5}.get(layout, 0)
    np.testing.assert_allclose(ds[T2M], expected, rtol=0, atol=step)
    np.testing.assert_array_equal(ds["time"], expected["valid_time"])
    assert (ds.attrs["title"], ds[T2M].attrs["units"]) == ("ERA5 from the Climate Data Store", "K")
    again = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(again[T2M][40:60], ds[T2M][40:60])
    inside = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(inside) == (2 if layout == "zip" else 1), inside  # no index beside it
    check(open_era5(tmp_path / "a" / inside[-1], chunks=None))


@pytest.mark.parametrize("layout", ["new", "old", "grib"])
def test_levels_from_the_cds(tmp_path, layout):
    path = write_cds(tmp_path, layout=layout, levels=(500, 850), steps=26)
    ds = open_era5(path, ["z500", "t850"])
    z = 9.80665 * 7400 * np.log(2)
    assert float(ds[Z500].mean()) == pytest.approx(z, rel=0.02)
    np.testing.assert_allclose(
        open_era5(path, ["t850", "t500"]).pipe(lambda ds: ds[T850] - ds["temperature_500"]),
        0.004 * 7400 * np.log(850 / 500),
        atol=0.01,
    )
    with pytest.raises(InputError, match=r"found t \(on .*500.* hPa\).*as in 'geopotential_500'"):
        open_era5(path)


def test_several_files_of_both_layouts(tmp_path):
    a = write_cds(tmp_path / "a", layout="old", steps=72, preliminary=0)
    with xr.open_dataset(write_cds(tmp_path / "b", steps=96)) as ds:
        ds.isel(valid_time=slice(72, None)).to_netcdf(tmp_path / "later.nc")
    ds = open_era5([tmp_path / "later.nc", a], "t2m")
    assert ds.sizes["time"] == 96
    assert (np.diff(ds["time"]) == np.timedelta64(1, "h")).all()
    check(ds)


def test_final_data_go_before_preliminary_ones(tmp_path):
    path = write_cds(tmp_path, layout="old", preliminary=24)
    ds = plain(path).drop_encoding()
    final, late = ds["t2m"].isel(expver=0), ds["t2m"].isel(expver=1)
    assert int(np.isnan(final).all(["latitude", "longitude"]).sum()) == 24
    both = ds.assign_coords(expver=[5, 1])  # the other way round, and one at all times
    both["t2m"] = ds["t2m"].dims, np.stack([late.fillna(250.0), final], axis=1), ds["t2m"].attrs
    both.to_netcdf(tmp_path / "both.nc")
    got = open_era5(tmp_path / "both.nc", chunks=None)["2m_temperature"]
    np.testing.assert_array_equal(got[:48], final[:48, ::-1].astype("f4"))
    np.testing.assert_array_equal(got[48:], late[48:, ::-1].astype("f4"))
    np.testing.assert_array_equal(open_era5(path)[T2M][48:], late[48:, ::-1].astype("f4"))


def test_preliminary_data_are_reported(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "stforecast"):
        cds(tmp_path, "new", preliminary=5)
    assert "5 times are preliminary, 2022-05-03T19:00 to 2022-05-03T23:00" in caplog.text


def test_packed_values_can_be_written_as_they_came(tmp_path):
    path = write_cds(tmp_path, layout="old", preliminary=0)
    encoding = open_era5(path)[T2M].encoding
    stored = plain(path, mask_and_scale=False)["t2m"]
    assert encoding["dtype"] == np.int16
    assert encoding["scale_factor"] == stored.attrs["scale_factor"]
    open_era5(path).to_netcdf(tmp_path / "again.nc")
    again = plain(tmp_path / "again.nc", mask_and_scale=False)[T2M]
    np.testing.assert_array_equal(again, stored[:, ::-1])
    # Years that are packed differently have no packing in common.
    other = plain(path).isel(time=slice(10)) - 50
    other["time"] = other["time"] - np.timedelta64(30, "D")
    other["t2m"].attrs["units"] = "K"
    other.to_netcdf(tmp_path / "other.nc", encoding={"t2m": encoding | {"add_offset": 200.0}})
    assert open_era5([path, tmp_path / "other.nc"])[T2M].encoding == {}


def test_accumulations_in_grib_lie_on_their_valid_times(tmp_path):
    eccodes = pytest.importorskip("eccodes")
    rng = np.random.default_rng(0)
    fields = {}
    with open(tmp_path / "tp.grib", "wb") as file:
        for start in (6, 18):
            for step in range(1, 13):
                message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1")
                keys = {"shortName": "tp", "dataDate": 20220501, "dataTime": start * 100}
                keys |= {"stepType": "accum", "startStep": step - 1, "endStep": step}
                keys |= {"Ni": 3, "Nj": 2, "bitsPerValue": 24, "centre": "ecmf"}
                keys |= {"latitudeOfFirstGridPointInDegrees": 1, "jDirectionIncrementInDegrees": 1}
                keys |= {"latitudeOfLastGridPointInDegrees": 0, "iDirectionIncrementInDegrees": 1}
                keys |= {
                    "longitudeOfFirstGridPointInDegrees": 0,
                    "longitudeOfLastGridPointInDegrees": 2,
                }
                for key, value in keys.items():
                    eccodes.codes_set(message, key, value)
                values = rng.random(6)
                fields[pd.Timestamp("2022-05-01") + pd.Timedelta(start + step, "h")] = values
                eccodes.codes_set_values(message, values)
                eccodes.codes_write(message, file)
                eccodes.codes_release(message)
    ds = open_era5(tmp_path / "tp.grib")
    assert ds.indexes["time"].equals(pd.DatetimeIndex(fields))
    first = ds["total_precipitation"][0].values[::-1].ravel()
    np.testing.assert_allclose(first, next(iter(fields.values())), atol=1e-6)


def test_grib_files_of_one_time_each(tmp_path):
    whole = write_cds(tmp_path, layout="grib", steps=3, preliminary=0, levels=(500, 850))
    raw = whole.read_bytes()
    ends = [i + 4 for i in range(len(raw)) if raw[i : i + 8] in (b"7777GRIB", b"7777")]
    assert len(ends) == 12
    for hour, (begin, end) in enumerate(((0, 2), (2, 4), (4, 6))):  # z and t come one after another
        parts = [raw[([0, *ends])[i + begin] : ends[i + end - 1]] for i in (0, 6)]
        (tmp_path / f"{hour}.grb").write_bytes(b"".join(parts))
    expected = open_era5(whole, ["z850", "t500"]).load()
    whole.unlink()
    xr.testing.assert_equal(open_era5(tmp_path, ["z850", "t500"]), expected)


def test_grib_without_its_extra_names_it(tmp_path, monkeypatch):
    path = write_cds(tmp_path, layout="grib", steps=1)
    monkeypatch.setitem(sys.modules, "cfgrib", None)
    with pytest.raises(InputError, match=r"download\.grib: .*pip install 'stforecast\[grib\]'"):
        open_era5(path)


# --- NCEP/NCAR, and any grid ----------------------------------------------------------------------


def test_ncep(tmp_path):
    path = write_ncep(tmp_path)
    assert [p.name for p in sorted(path.iterdir())] == ["air.sig995.2012.nc", "air.sig995.2013.nc"]
    ds = open_ncep(path)
    theirs = np.concatenate([plain(p)["air"] for p in sorted(path.iterdir())])
    np.testing.assert_array_equal(ds["air"], theirs[:, ::-1])
    assert ds.attrs["license"] == "no restrictions on use"
    assert ds.attrs["title"] == "4x daily NMC reanalysis (2012)"
    check(ds, timestep=np.timedelta64(6, "h"))


def test_ncep_on_levels(tmp_path):
    path = write_ncep(tmp_path, levels=(500, 850))
    ds = open_ncep(path, ["air_850", "air_500"])
    theirs = np.concatenate([plain(p)["air"].sel(level=850) for p in sorted(path.iterdir())])
    np.testing.assert_array_equal(ds["air_850"], theirs[:, ::-1])
    assert ds["air_850"].attrs["level"] == 850
    with pytest.raises(InputError, match=r"no variable 'air_300' in it; found air \(on 850, 500"):
        open_ncep(path, "air_300")


def test_any_grid_and_its_missing_values(tmp_path):
    ds = make_weather(4, shape=(4, 6)).rename({T2M: "chl"}).assign_attrs(title="of a friend")
    ds["chl"].attrs = {"units": "mg m-3"}
    ds["chl"][:, 1, 2] = np.nan
    ds.to_netcdf(tmp_path / "chl.nc")
    got = open_grid(tmp_path)
    np.testing.assert_array_equal(got["chl"], ds["chl"])
    assert got.attrs["license"] == "not stated by the files"
    assert got.attrs["title"] == "of a friend"


def test_what_files_say_of_themselves_goes_before_what_is_published(tmp_path):
    simulated = make_weather(4, shape=(4, 6))
    simulated.to_netcdf(tmp_path / "2m_temperature_2001_5.625deg.nc")
    ds = open_weatherbench(tmp_path)
    assert "synthetic" in ds.attrs["source"]
    assert "Copernicus" not in str(ds.attrs)


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


# --- damage ---------------------------------------------------------------------------------------


def truncate(path: Path, keep: float = 0.6) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def spoil(path: Path, word: bytes) -> Path:
    path.write_bytes(word + path.read_bytes()[len(word) :])
    return path


def edit(path: Path, change) -> Path:
    """Write a netCDF file anew, changed."""
    ds = change(plain(path).drop_encoding())
    path.unlink()
    ds.to_netcdf(path)
    return path


def years(tmp_path: Path, change=None) -> Path:
    """WeatherBench 1's 2 m temperature, the second year changed."""
    write_weatherbench1(tmp_path / "all")
    folder = (tmp_path / "all" / T2M).rename(tmp_path / T2M)
    if change is not None:
        change(folder / "2m_temperature_2014_5.625deg.nc")
    return folder


def again(path: Path) -> None:
    shutil.copy(path, path.with_name("2m_temperature_2015_5.625deg.nc"))


def hostile(tmp_path: Path, member: str, size: int) -> Path:
    with zipfile.ZipFile(tmp_path / "download.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, bytes(size))
    return tmp_path / "download.zip"


def without_chunk(path) -> Path:
    (path / T2M / "1.0.0").unlink()
    return path


def levels(tmp_path: Path, change=lambda ds: ds) -> Path:
    return edit(write_cds(tmp_path, levels=(500, 850)), change)


def streams(tmp_path: Path, change) -> Path:
    return edit(write_cds(tmp_path, layout="old"), change)


def renumbered(*numbers):
    return lambda ds: ds.assign_coords(expver=("expver", list(numbers)))


W, E, N, G = open_weatherbench, open_era5, open_ncep, open_grid
DAMAGE = {
    "yearly file truncated -> named": (
        lambda d: years(d, truncate),
        W,
        None,
        r"_2014_5\.625deg\.nc: .*truncated",
    ),
    "yearly file with a wrong magic -> named": (
        lambda d: years(d, lambda p: spoil(p, b"<html>!!")),
        W,
        None,
        r"_2014_5\.625deg\.nc: cannot be opened",
    ),
    "yearly file empty -> named": (
        lambda d: years(d, lambda p: truncate(p, 0)),
        W,
        None,
        r"_2014_5\.625deg\.nc: cannot be opened",
    ),
    "yearly file on another grid -> both named": (
        lambda d: years(d, lambda p: edit(p, lambda ds: ds.assign_coords(lat=ds["lat"] + 0.5))),
        W,
        None,
        r"_2013_.* and .*_2014_.* different grids: latitude",
    ),
    "yearly file with fewer columns -> both named": (
        lambda d: years(d, lambda p: edit(p, lambda ds: ds.isel(lon=slice(0, -1)))),
        W,
        None,
        "different grids: longitude",
    ),
    "the same year twice -> both named": (
        lambda d: years(d, again),
        W,
        None,
        r"_2014_.* and .*_2015_.* overlap in time, 24 times are in both",
    ),
    "a time twice in a file -> named": (
        lambda d: years(d, lambda p: edit(p, lambda ds: ds.isel(time=[0, 1, 1, 2]))),
        W,
        None,
        r"_2014_5\.625deg\.nc: 1 of its 4 times are duplicates",
    ),
    "other units in one year -> both named": (
        lambda d: years(
            d, lambda p: edit(p, lambda ds: ds.assign(t2m=ds["t2m"].assign_attrs(units="degC")))
        ),
        W,
        None,
        "hold '2m_temperature' in different forms",
    ),
    "no longitude -> what is there": (
        lambda d: years(d, lambda p: edit(p, lambda ds: ds.drop_vars("lon"))),
        W,
        None,
        "different grids: longitude",
    ),
    "no times -> named": (
        lambda d: years(d, lambda p: edit(p, lambda ds: ds.drop_vars("time"))),
        W,
        None,
        r"_2014_5\.625deg\.nc: dimension 'time' has no coordinate",
    ),
    "another variable in its place -> what is there": (
        lambda d: years(d),
        W,
        ["t2m", "z500"],
        r"no variable 'z500' in it; found t2m",
    ),
    "a level that is not there -> those that are": (
        write_weatherbench1,
        W,
        ["t2m", "t300"],
        r"no variable 't300' in it; found .*t \(on 500, 850 hPa\)",
    ),
    "store without a chunk -> named when read": (
        lambda d: without_chunk(write_weatherbench2(d)),
        W,
        None,
        "chunk '1.0.0' of zarr array '2m_temperature' is missing",
    ),
    "store with a broken chunk -> named when read": (
        lambda d: truncate(write_weatherbench2(d) / T2M / "1.0.0").parents[1],
        W,
        None,
        r"equiangular_conservative\.zarr: '2m_temperature' cannot be read",
    ),
    "store with broken metadata -> named": (
        lambda d: truncate(write_weatherbench2(d) / ".zmetadata").parent,
        W,
        None,
        r"equiangular_conservative\.zarr: cannot be opened",
    ),
    "zip that leaves its directory -> untouched": (
        lambda d: hostile(d, "../data_stream-oper_stepType-instant.nc", 100),
        E,
        None,
        "would be written outside",
    ),
    "zip that is a bomb -> untouched": (
        lambda d: hostile(d, "data_stream-oper_stepType-instant.nc", 120_000_000),
        E,
        None,
        "would expand to",
    ),
    "zip truncated -> named": (
        lambda d: truncate(write_cds(d, layout="zip")),
        E,
        None,
        r"download\.zip: damaged, incomplete or unknown zip",
    ),
    "zip with nothing for us -> what is there": (
        lambda d: hostile(d, "readme.txt", 100),
        E,
        None,
        "found readme.txt",
    ),
    "streams of another number -> named": (
        lambda d: streams(d, renumbered(1, 7)),
        E,
        None,
        r"internal\.nc: dimension 'expver' of size 2 holds the streams \[1, 7\]",
    ),
    "streams that are the same -> named": (
        lambda d: streams(d, renumbered(5, 5)),
        E,
        None,
        r"holds the streams \[5, 5\], expected 1 \(ERA5\) and 5 \(ERA5T\)",
    ),
    "streams without numbers -> named": (
        lambda d: streams(d, lambda ds: ds.drop_vars("expver")),
        E,
        None,
        "holds the streams without their numbers",
    ),
    "both streams missing at a time -> first such time": (
        lambda d: streams(d, lambda ds: ds.where(ds["time"] != ds["time"][50])),
        E,
        None,
        "holds 96 values .* NaN or infinite, the first at 2022-05-03T02",
    ),
    "ensemble members -> one to be selected": (
        lambda d: edit(
            write_cds(d),
            lambda ds: ds.drop_vars("number").expand_dims(number=[0, 1]),
        ),
        E,
        ["t2m"],
        "extra dimension 'number' of size 2",
    ),
    "kelvin called Celsius -> what the values fit": (
        lambda d: edit(
            write_cds(d), lambda ds: ds.assign(t2m=ds["t2m"].assign_attrs(units="degC"))
        ),
        E,
        None,
        r"data_0\.nc: 't2m' has units 'degC', but its values .* contradict",
    ),
    "netCDF cut short -> named": (
        lambda d: truncate(write_cds(d)),
        E,
        None,
        r"data_0\.nc: cannot be opened",
    ),
    "GRIB truncated -> named": (
        lambda d: truncate(write_cds(d, layout="grib"), 0.61),
        E,
        None,
        r"download\.grib: ",
    ),
    "GRIB with a wrong magic -> named": (
        lambda d: spoil(write_cds(d, layout="grib"), b"BIRG"),
        E,
        None,
        r"download\.grib: ",
    ),
    "GRIB with a broken message -> named when read": (
        lambda d: gap_in_grib(write_cds(d, layout="grib")),
        E,
        None,
        r"download\.grib: ",
    ),
    "all levels at once -> how to ask": (
        lambda d: levels(d),
        E,
        ["t"],
        "extra dimension 'pressure_level' of size 2: .* as 'temperature_850'",
    ),
    "a level of a variable without levels -> named": (
        lambda d: levels(d, lambda ds: ds.drop_vars("pressure_level")),
        E,
        ["t850"],
        "no variable 't850' in it; found t, z",
    ),
    "reanalysis without latitudes -> named": (
        lambda d: edit(next(write_ncep(d, steps=8).iterdir()), lambda ds: ds.drop_vars("lat")),
        N,
        None,
        "'lat' has no coordinate",
    ),
    "months out of order in a file -> in order": (
        lambda d: edit(
            next(write_ncep(d, steps=8).iterdir()), lambda ds: ds.isel(time=[3, 0, 2, 1, 4])
        ),
        N,
        None,
        None,
    ),
    "grid with gaps in longitude -> named": (
        lambda d: edit(
            next(write_ncep(d, steps=8).iterdir()), lambda ds: ds.isel(lon=[0, 1, 2, 5, 6])
        ),
        G,
        None,
        "longitude 'lon' is not evenly spaced",
    ),
}


def gap_in_grib(path: Path) -> Path:
    """Zeros in the middle of a message's packed values; the message keeps its length."""
    raw = bytearray(path.read_bytes())
    second = raw.index(b"GRIB", 4)
    raw[second + 28 : second + 84] = bytes(56)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("case", DAMAGE)
def test_damage(tmp_path, case):
    write, opens, variables, message = DAMAGE[case]
    path = write(tmp_path)
    before = {p for p in tmp_path.rglob("*") if p.name != "download.zip"}
    if message is None:
        check(opens(path, variables))
        return
    with pytest.raises(InputError, match=message) as error:
        check(opens(path, variables))
    assert "\n" not in str(error.value)
    left = set(tmp_path.rglob("*")) - before
    assert {p.name for p in left} <= {"download.zip"} or "readme" in str(left)


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


# --- and on it goes -------------------------------------------------------------------------------


def test_a_task_on_levels_goes_through_the_gate(tmp_path):
    task = Task(["z500", "t_850", "t2m"], 2, 2, "6h", targets="z500")
    assert task.variables == (Z500, T850, T2M)
    with xr.open_zarr(write_weatherbench2(tmp_path)) as theirs:
        ours, _ = canonicalize(theirs, task.channels)
    assert list(ours.data_vars) == [Z500, T850, T2M]
    opened = open_weatherbench(tmp_path, task.channels)
    xr.testing.assert_equal(ours.drop_attrs(), opened.drop_attrs())
