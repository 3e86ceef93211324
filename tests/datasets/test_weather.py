"""Weather in its owners' forms: layouts, levels, laziness, and what damage comes to."""

from __future__ import annotations

import logging
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from weather_cases import DIMS, T2M, T850, Z500, plain

from stforecast.conventions.gate import canonicalize, check
from stforecast.datasets.weather import (
    open_era5,
    open_grid,
    open_ncep,
    open_weatherbench,
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


# --- and on it goes -------------------------------------------------------------------------------


def test_a_task_on_levels_goes_through_the_gate(tmp_path):
    task = Task(["z500", "t_850", "t2m"], 2, 2, "6h", targets="z500")
    assert task.variables == (Z500, T850, T2M)
    with xr.open_zarr(write_weatherbench2(tmp_path)) as theirs:
        ours, _ = canonicalize(theirs, task.channels)
    assert list(ours.data_vars) == [Z500, T850, T2M]
    opened = open_weatherbench(tmp_path, task.channels)
    xr.testing.assert_equal(ours.drop_attrs(), opened.drop_attrs())
