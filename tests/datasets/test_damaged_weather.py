"""Weather files that are damaged or contradict each other: each is named."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from weather_cases import T2M, plain

from stforecast.conventions.gate import check
from stforecast.datasets.weather import (
    open_era5,
    open_grid,
    open_ncep,
    open_weatherbench,
)
from stforecast.errors import InputError
from stforecast.testing.weather_files import (
    write_cds,
    write_ncep,
    write_weatherbench1,
    write_weatherbench2,
)


def overwrite(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


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
    "store whose consolidated metadata are a number -> named": (
        lambda d: overwrite(write_weatherbench2(d) / ".zmetadata", '{"metadata": 3}').parent,
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
