"""Zarr stores as others leave them: copies of metadata that are old, NCZarr, chunks left out."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr

from stforecast.baselines import Persistence
from stforecast.datasets.prepare import open_prepared, prepare
from stforecast.datasets.weather import open_grid, open_weatherbench
from stforecast.errors import InputError
from stforecast.task import Task
from stforecast.testing.weather import make_weather

T2M = "2m_temperature"


def grown(path, zarr_format: int, change: str) -> xr.Dataset:
    """A store that was changed after its metadata were consolidated; what it holds."""
    ds = make_weather(48, shape=(12, 24))
    options = {"zarr_format": zarr_format, "consolidated": False}
    if change == "appended":
        ds.isel(time=slice(24)).to_zarr(path, zarr_format=zarr_format, consolidated=True)
        ds.isel(time=slice(24, 48)).to_zarr(path, append_dim="time", **options)
        return ds
    ds.to_zarr(path, zarr_format=zarr_format, consolidated=True)
    if change == "units":
        celsius = (ds[[T2M]] - 273.15).assign_attrs(ds.attrs)
        celsius[T2M].attrs["units"] = "degC"
        shutil.rmtree(path / T2M)
        celsius.to_zarr(path, mode="a", **options)
        return ds
    wind = ds.rename({T2M: "10m_wind_speed"}).drop_attrs()
    wind.to_zarr(path, mode="a", **options)
    return ds.merge(wind)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("change", ["appended", "units", "added"])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_old_copies_of_metadata_give_way_to_the_arrays(tmp_path, zarr_format, change, caplog):
    expected = grown(tmp_path / "s.zarr", zarr_format, change)
    with caplog.at_level(logging.WARNING, "stforecast"):
        found = open_weatherbench(tmp_path / "s.zarr")
    assert set(found.data_vars) == set(expected.data_vars)
    for name in expected.data_vars:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    kept = zarr_format == 2 or zarr.open_group(tmp_path / "s.zarr").metadata.consolidated_metadata
    assert not kept or "consolidated metadata are older than its arrays" in caplog.text


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_copies_that_are_true_say_nothing(tmp_path, zarr_format, caplog):
    ds = make_weather(24, shape=(6, 8))
    ds["name"] = ("latitude", np.array(list("abcdef"), dtype=object))
    ds["still"] = np.nan
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=zarr_format, consolidated=True)
    with caplog.at_level(logging.WARNING, "stforecast"):
        open_weatherbench(tmp_path / "s.zarr")
    assert not caplog.records


def nczarr(path, where: str) -> None:
    """Name the dimensions of a store as netCDF-C does."""
    ds = make_weather(24, shape=(6, 8))
    ds.to_zarr(path, zarr_format=2, consolidated=False)
    for name in ds.variables:
        attrs = json.loads((path / name / ".zattrs").read_text())
        dims = {
            "dimension_references": None,
            "dimrefs": [f"/{d}" for d in attrs.pop("_ARRAY_DIMENSIONS")],
        }
        array = json.loads((path / name / ".zarray").read_text())
        if where == ".zarray":
            array["_NCZARR_ARRAY"] = dims
        else:
            attrs["_nczarr_array"] = dims
        (path / name / ".zattrs").write_text(json.dumps(attrs))
        (path / name / ".zarray").write_text(json.dumps(array))
        if where == "no attributes" and not set(attrs) - {"_nczarr_array"}:
            (path / name / ".zattrs").unlink()


@pytest.mark.parametrize("where", [".zarray", ".zattrs"])
@pytest.mark.parametrize("notebook", [False, True])
def test_stores_of_netcdf_c_open(tmp_path, where, notebook):
    nczarr(tmp_path / "nc.zarr", where)
    expected = make_weather(24, shape=(6, 8))[T2M]

    async def in_a_running_loop():
        return open_grid(tmp_path / "nc.zarr")

    ds = asyncio.run(in_a_running_loop()) if notebook else open_grid(tmp_path / "nc.zarr")
    np.testing.assert_array_equal(ds[T2M], expected)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_without_names_of_dimensions_are_not_called_damaged(tmp_path, zarr_format):
    group = zarr.open_group(tmp_path / "plain.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("t2m", data=np.zeros((4, 3, 3), "f4"))
    with pytest.raises(InputError, match="do not say which dimensions they have") as error:
        open_grid(tmp_path / "plain.zarr")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("opens", [open_grid, open_weatherbench])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_chunks_that_were_left_out_count_by_name(tmp_path, opens, zarr_format):
    """Zarr leaves chunks out that hold nothing but the fill value, unless it is asked not to."""
    sst = make_weather(24, shape=(12, 24)).rename({T2M: "sst"}).copy(deep=True)
    sst["sst"][:, :6] = np.nan
    sst.chunk(latitude=6).to_zarr(tmp_path / "sst.zarr", zarr_format=zarr_format)
    with pytest.raises(InputError, match=r"is missing.*missing_chunks='fill'"):
        opens(tmp_path / "sst.zarr")["sea_surface_temperature"].load()
    ds = opens(tmp_path / "sst.zarr", missing_chunks="fill")
    np.testing.assert_array_equal(ds["sea_surface_temperature"], sst["sst"])
    with pytest.raises(InputError, match="missing_chunks must be 'raise' or 'fill'"):
        opens(tmp_path / "sst.zarr", missing_chunks="nan")


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_forecasts_of_an_old_store_are_written_to_a_new_one(tmp_path):
    """Coordinates keep their encoding, but not the codecs and chunks of the store they are from."""
    ds = make_weather(48, shape=(6, 8))
    ds = ds.assign_coords(name=("latitude", np.array(list("abcdef"), dtype=object)))
    ds.to_zarr(tmp_path / "v2.zarr", zarr_format=2)
    history = xr.open_zarr(tmp_path / "v2.zarr")
    codecs = dict(history["time"].encoding)
    forecast = Persistence(Task(T2M, 4, 2)).predict(history)
    for version in (2, 3):
        forecast.to_zarr(tmp_path / f"{version}.zarr", zarr_format=version)
        back = xr.open_zarr(tmp_path / f"{version}.zarr")
        xr.testing.assert_equal(back.load(), forecast.load())
    assert history["time"].encoding == codecs  # the caller's is as it was
    store = prepare(history, tmp_path / "prepared.zarr")
    open_prepared(store).to_zarr(tmp_path / "again.zarr", zarr_format=2)


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_groups_of_a_store(tmp_path):
    ds = make_weather(24, shape=(6, 8))
    for group in ("forecast/surface", "analysis"):
        ds.to_zarr(tmp_path / "g.zarr", group=group, mode="a")
    with pytest.raises(InputError, match=r"has groups: analysis, forecast, forecast/surface") as e:
        open_grid(tmp_path / "g.zarr")
    assert "group='analysis'" in str(e.value)
    found = open_grid(tmp_path / "g.zarr", group="forecast/surface")
    np.testing.assert_array_equal(found[T2M], ds[T2M])
    with pytest.raises(InputError, match="it has no group 'other', its groups are analysis"):
        open_grid(tmp_path / "g.zarr", group="other")


def test_lost_copies_are_no_trouble(tmp_path):
    grown(tmp_path / "s.zarr", 2, "appended")
    (tmp_path / "s.zarr" / ".zmetadata").unlink()
    assert open_weatherbench(tmp_path / "s.zarr").sizes["time"] == 48
