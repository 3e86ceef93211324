"""Weather files in the genuine forms of their owners, with synthetic content."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..conventions.axes import LAT, LON, TIME
from ..package import load_proj
from .weather import make_weather

_HISTORY = (
    "2019-11-11 20:05:36 GMT by grib_to_netcdf-2.14.0: grib_to_netcdf -S param -o x.nc x.grib"
)
_LATLON: dict[Any, dict[str, Any]] = {
    "latitude": {"units": "degrees_north", "long_name": "latitude"},
    "longitude": {"units": "degrees_east", "long_name": "longitude"},
}


def _fields(
    steps: int, start: str, timestep: str, shape: tuple[int, int], levels: Sequence[int], seed: int
) -> xr.Dataset:
    """t2m, and t and z on levels: canonical but for the names and the dimension of levels."""
    ds = make_weather(steps, time=start, timestep=timestep, shape=shape, seed=seed)
    t2m = ds["2m_temperature"]
    level = xr.DataArray(np.array(levels, np.int32), dims="level", name="level")
    # Metres, of an atmosphere of one scale height.
    height = level.copy(data=7400.0 * np.log(1000.0 / level.to_numpy()))
    out = xr.Dataset(
        {"t2m": t2m, "t": t2m - 0.004 * height, "z": t2m * 30 - 8400 + height * 9.80665},
        {"level": level},
    )
    out = out.astype("f4").transpose(TIME, "level", LAT, LON)
    out["t2m"].attrs = {"units": "K", "long_name": "2 metre temperature"}
    out["t"].attrs = {"units": "K", "long_name": "Temperature", "standard_name": "air_temperature"}
    out["z"].attrs = {"units": "m**2 s**-2", "long_name": "Geopotential"}
    for name, attrs in _LATLON.items():
        out[name].attrs = dict(attrs)
    return out


def _fixed(ds: xr.Dataset) -> xr.Dataset:
    """Land-sea mask and orography (m) on the grid of `ds`."""
    lat, lon = np.deg2rad(ds[LAT].to_numpy()), np.deg2rad(ds[LON].to_numpy())
    values = (np.cos(lat)[:, None] * np.sin(2 * lon)).clip(0).astype("f4")
    land = xr.DataArray(values, {LAT: ds[LAT], LON: ds[LON]}, (LAT, LON))
    fixed = xr.Dataset({"lsm": land, "orography": 2000 * land**2})
    fixed["lsm"].attrs = {"units": "(0 - 1)", "long_name": "Land-sea mask"}
    fixed["orography"].attrs = {"units": "m", "long_name": "Orography"}
    return fixed


def write_weatherbench1(
    directory: str | os.PathLike[str],
    *,
    steps: int = 72,
    start: str = "2013-12-30",
    shape: tuple[int, int] = (8, 16),
    levels: Sequence[int] = (500, 850),
    seed: int = 0,
) -> Path:
    """Write WeatherBench 1's tree of directories, with a netCDF file a variable and year.

    Parameters
    ----------
    directory : path
        Made if need be.
    steps : int
        Hours.
    start : str
        First time.
    shape : (int, int)
        Latitudes and longitudes.
    levels : sequence of int
        hPa; the first one has a directory of its own besides.
    seed : int
        Of the noise.

    Returns
    -------
    Path
        The directory of ``2m_temperature`` (t2m), ``geopotential_500`` (z, with a scalar
        coordinate of its level), ``temperature`` (t on all levels) and ``constants``.
    """
    root = Path(directory)
    ds = _fields(steps, start, "1h", shape, levels, seed).rename({LAT: "lat", LON: "lon"})
    ds.attrs = {"Conventions": "CF-1.6", "history": _HISTORY}
    one = levels[0]
    kinds = {
        "2m_temperature": ("2m_temperature", ds[["t2m"]]),
        f"geopotential_{one}": (f"geopotential_{one}hPa", ds[["z"]].sel(level=one)),
        "temperature": ("temperature", ds[["t"]]),
    }
    for folder, (stem, part) in kinds.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for year, own in part.groupby("time.year"):
            encoding = {TIME: {"units": "hours since 1900-01-01", "dtype": "int32"}}
            own.to_netcdf(root / folder / f"{stem}_{year}_5.625deg.nc", encoding=encoding)
    (root / "constants").mkdir(exist_ok=True)
    fixed = _fixed(ds.rename(lat=LAT, lon=LON)).rename({LAT: "lat", LON: "lon"})
    fixed.drop_vars("level", errors="ignore").to_netcdf(root / "constants/constants_5.625deg.nc")
    return root


def write_weatherbench2(
    directory: str | os.PathLike[str],
    *,
    steps: int = 40,
    shape: tuple[int, int] = (8, 16),
    levels: Sequence[int] = (500, 700, 850),
    layout: Literal["weatherbench2", "arco"] = "weatherbench2",
    zarr_format: Literal[2, 3] = 2,
    seed: int = 0,
) -> str | Path:
    """Write a zarr store as WeatherBench 2 (6-hourly) or ARCO-ERA5 (hourly) publishes it.

    Parameters
    ----------
    directory : path or URL
        Where the store goes.
    steps, shape, levels, seed
        As in :func:`write_weatherbench1`; steps of 6 hours, or of 1 hour in the layout "arco".
    layout : {"weatherbench2", "arco"}
        The former has (time, longitude, latitude) with latitude ascending; the latter (time,
        latitude, longitude) with latitude descending, one time a chunk, and times that are not
        filled before and after ``valid_time_start`` and ``valid_time_stop``.
    zarr_format : {2, 3}
        Version 2 has consolidated metadata.

    Returns
    -------
    Path or str
        The store: ``2m_temperature``, ``temperature`` and ``geopotential`` on levels,
        ``land_sea_mask`` without time.
    """
    arco = layout == "arco"
    name = "full_37-1h.zarr" if arco else "1959-2022-6h-64x32_equiangular_conservative.zarr"
    ds = _fields(steps, "2020-01-01", "1h" if arco else "6h", shape, levels, seed)
    ds["lsm"] = _fixed(ds)["lsm"]
    ds = ds.rename(t2m="2m_temperature", t="temperature", z="geopotential", lsm="land_sea_mask")
    ds = ds.assign_coords(level=ds["level"].astype("int64"))
    if arco:
        ds = ds.isel({LAT: slice(None, None, -1)})
        ds.attrs = {"valid_time_start": "2020-01-02", "valid_time_stop": "2020-01-03"}
    else:
        ds = ds.transpose(TIME, "level", LON, LAT)
    encoding: dict[Any, Any] = {TIME: {"units": "hours since 1959-01-01", "dtype": "int64"}}
    for variable in ds.data_vars:
        sizes = dict(ds[variable].sizes)
        if TIME in sizes:
            sizes[TIME] = 1 if arco else 10
        encoding[variable] = {"chunks": tuple(sizes.values())}
    remote = "://" in str(directory)
    store: str | Path = f"{directory}/{name}" if remote else Path(directory) / name
    options: dict[str, Any] = {"zarr_format": zarr_format, "consolidated": zarr_format == 2}
    if not arco:
        ds.to_zarr(store, encoding=encoding, **options)
        return store
    filled = ds.sel({TIME: slice("2020-01-02", "2020-01-03")})
    begin = int(np.searchsorted(ds[TIME].to_numpy(), filled[TIME].to_numpy()[0]))
    fixed = ds[["land_sea_mask"]]
    moving = ds.drop_vars("land_sea_mask").chunk({TIME: 1})  # laid out, without its chunks
    moving.merge(fixed).to_zarr(store, encoding=encoding, compute=False, **options)
    filled.drop_vars(["land_sea_mask", LAT, LON, "level"]).to_zarr(
        store, region={TIME: slice(begin, begin + filled.sizes[TIME])}, **options
    )
    return store


def write_cds(
    directory: str | os.PathLike[str],
    *,
    layout: Literal["new", "old", "zip", "grib"] = "new",
    steps: int = 72,
    shape: tuple[int, int] = (8, 12),
    levels: Sequence[int] = (),
    preliminary: int = 24,
    seed: int = 0,
) -> Path:
    """Write ERA5 as the Climate Data Store delivers it.

    Parameters
    ----------
    directory, steps, seed
        As in :func:`write_weatherbench1`.
    layout : {"new", "old", "zip", "grib"}
        netCDF with ``valid_time``, ``number`` and ``expver`` as texts; netCDF packed in int16 with
        ``time`` and ``expver`` as a dimension of size 2; a zip of files in the new layout, of
        instants and accumulations; GRIB 1 (needs the extra ``grib``).
    shape : (int, int)
        Latitudes and longitudes of a region in Europe, north first.
    levels : sequence of int
        hPa, for ``t`` and ``z`` on levels instead of ``t2m``; not in the zip.
    preliminary : int
        Number of last steps that are ERA5T (``expver`` 5).

    Returns
    -------
    Path
        The file.
    """
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    ds = _fields(steps, "2022-05-01", "1h", shape, levels or (500,), seed)
    lat, lon = 46.0 - 0.25 * np.arange(shape[0]), 6.0 + 0.25 * np.arange(shape[1])
    ds = ds.isel({LAT: slice(None, None, -1)}).assign_coords({LAT: lat, LON: lon})
    for name, attrs in _LATLON.items():
        ds[name].attrs = dict(attrs)
    ds = ds[["t", "z"]] if levels else ds[["t2m"]]
    if layout == "grib":
        return _write_grib(ds, root / "download.grib")
    if layout == "old":
        return _write_old(ds, root / "adaptor.mars.internal.nc", preliminary)
    new = _new_layout(ds, preliminary)
    if layout == "new":
        new.to_netcdf(root / "data_0.nc")
        return root / "data_0.nc"
    rain = ((new["t2m"] - 280).clip(0) * 1e-5).astype("f4").rename("tp")
    rain.attrs = {"units": "m", "long_name": "Total precipitation", "GRIB_stepType": "accum"}
    with zipfile.ZipFile(root / "download.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for kind, part in (("instant", new), ("accum", rain.to_dataset().assign_attrs(new.attrs))):
            member = root / f"data_stream-oper_stepType-{kind}.nc"
            part.to_netcdf(member)
            archive.write(member, member.name)
            member.unlink()
    return root / "download.zip"


def _new_layout(ds: xr.Dataset, preliminary: int) -> xr.Dataset:
    texts = ["0001"] * (ds.sizes[TIME] - preliminary) + ["0005"] * preliminary
    new = ds.rename({TIME: "valid_time"}).assign_coords(
        number=((), 0, {"long_name": "ensemble member numerical id", "units": "1"}),
        expver=("valid_time", np.array(texts, dtype=object)),
    )
    if "level" in new.dims:
        new = new.rename(level="pressure_level").isel(pressure_level=slice(None, None, -1))
        new = new.assign_coords(pressure_level=new["pressure_level"].astype("f8"))
        new["pressure_level"].attrs = {"units": "hPa", "standard_name": "air_pressure"}
    for array in new.values():
        array.attrs |= {"GRIB_gridType": "regular_ll", "GRIB_stepType": "instant"}
    new["valid_time"].encoding = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    new.attrs = {
        "GRIB_centre": "ecmf",
        "Conventions": "CF-1.7",
        "institution": "European Centre for Medium-Range Weather Forecasts",
        "history": "2024-10-01T10:00 GRIB to CDM+CF via cfgrib-0.9.14.1/ecCodes-2.36.0",
    }
    return new


def _write_old(ds: xr.Dataset, path: Path, preliminary: int) -> Path:
    ds = ds.assign_attrs({"Conventions": "CF-1.6", "history": _HISTORY})
    encoding: dict[Any, Any] = {TIME: {"units": "hours since 1900-01-01", "dtype": "int32"}}
    for name, array in ds.data_vars.items():
        low, high = float(array.min()), float(array.max())
        scale = (high - low) / 65000
        packing = {"scale_factor": scale, "add_offset": (low + high) / 2}
        encoding[name] = {"dtype": "int16", "_FillValue": -32767, "missing_value": -32767} | packing
    if preliminary:
        late = np.arange(ds.sizes[TIME]) >= ds.sizes[TIME] - preliminary
        late_only = xr.DataArray(late, dims=TIME)
        ds = xr.concat(
            [ds.where(~late_only), ds.where(late_only)],
            xr.DataArray([1, 5], dims="expver", name="expver"),
        )
        ds = ds.assign_coords(expver=ds["expver"].astype("int32"))
        ds = ds.transpose(TIME, "expver", ...)
    if "level" in ds.dims:
        ds["level"].attrs = {"units": "millibars", "long_name": "pressure_level"}
    ds.to_netcdf(path, encoding=encoding)
    return path


def _write_grib(ds: xr.Dataset, path: Path) -> Path:
    load_proj()
    import eccodes

    lat, lon = ds[LAT].to_numpy(), ds[LON].to_numpy()
    grid = {
        "gridType": "regular_ll",
        "Ni": len(lon),
        "Nj": len(lat),
        "latitudeOfFirstGridPointInDegrees": lat[0],
        "latitudeOfLastGridPointInDegrees": lat[-1],
        "longitudeOfFirstGridPointInDegrees": lon[0],
        "longitudeOfLastGridPointInDegrees": lon[-1],
        "iDirectionIncrementInDegrees": lon[1] - lon[0],
        "jDirectionIncrementInDegrees": lat[0] - lat[1],
    }
    with open(path, "wb") as file:
        for name, array in ds.data_vars.items():
            levels = ds["level"].to_numpy().tolist() if "level" in array.dims else [0]
            for step, time in enumerate(ds.indexes[TIME]):
                for i, level in enumerate(levels):
                    message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib1")
                    keys = grid | {
                        "centre": "ecmf",
                        "typeOfLevel": "isobaricInhPa" if level else "surface",
                        "level": level,
                        "shortName": {"t2m": "2t"}.get(str(name), str(name)),
                        "dataDate": int(time.strftime("%Y%m%d")),
                        "dataTime": int(time.strftime("%H%M")),
                        "bitsPerValue": 24,
                    }
                    for key, value in keys.items():
                        eccodes.codes_set(message, key, value)
                    values = array[step, i] if level else array[step]
                    eccodes.codes_set_values(message, values.to_numpy().ravel().astype("f8"))
                    eccodes.codes_write(message, file)
                    eccodes.codes_release(message)
    return path


def write_ncep(
    directory: str | os.PathLike[str],
    *,
    steps: int = 60,
    shape: tuple[int, int] = (9, 16),
    levels: Sequence[int] = (),
    seed: int = 0,
) -> Path:
    """Write NCEP/NCAR reanalysis 1 as NOAA PSL publishes it: a file a variable and year.

    Parameters
    ----------
    directory, seed
        As in :func:`write_weatherbench1`.
    steps : int
        6-hourly, from 2012-12-28 on.
    shape : (int, int)
        Latitudes (north first) and longitudes.
    levels : sequence of int
        hPa: ``air.2012.nc`` on levels, instead of ``air.sig995.2012.nc``.

    Returns
    -------
    Path
        The directory.
    """
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    ds = _fields(steps, "2012-12-28", "6h", shape, levels or (850,), seed)
    ds = ds.isel({LAT: slice(None, None, -1)}).rename({LAT: "lat", LON: "lon"})
    ds = ds[["t"]].rename(t="air") if levels else ds[["t2m"]].rename(t2m="air")
    ds["air"].attrs = {
        "long_name": "4xDaily Air temperature" + ("" if levels else " at sigma level 995"),
        "units": "degK",
        "var_desc": "Air temperature",
        "dataset": "NCEP Reanalysis",
        "level_desc": "Multiple levels" if levels else "Surface",
    }
    if levels:
        ds = ds.isel(level=slice(None, None, -1))
        ds["level"].attrs = {"units": "millibar", "positive": "down", "axis": "Z"}
    for year, own in ds.groupby("time.year"):
        own.attrs = {
            "Conventions": "COARDS",
            "title": f"4x daily NMC reanalysis ({year})",
            "dataset_title": "NCEP-NCAR Reanalysis 1",
            "references": "http://www.psl.noaa.gov/data/gridded/data.ncep.reanalysis.html",
        }
        own["lat"].attrs |= {"axis": "Y", "actual_range": [90.0, -90.0]}
        encoding = {TIME: {"units": "hours since 1800-01-01 00:00:0.0", "dtype": "float64"}}
        own.to_netcdf(root / f"air{'' if levels else '.sig995'}.{year}.nc", encoding=encoding)
    return root
