"""GRIB files in which fields lie on each other: several runs, the two streams of ERA5."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stforecast.conventions.gate import canonicalize
from stforecast.datasets.grib import open_grib
from stforecast.datasets.weather import open_era5, open_grid
from stforecast.errors import InputError

eccodes = pytest.importorskip("eccodes")
pytest.importorskip("cfgrib")
T2M = "2m_temperature"
GRID = {
    "gridType": "regular_ll",
    "Ni": 5,
    "Nj": 4,
    "latitudeOfFirstGridPointInDegrees": 46.0,
    "latitudeOfLastGridPointInDegrees": 45.25,
    "longitudeOfFirstGridPointInDegrees": 6.0,
    "longitudeOfLastGridPointInDegrees": 7.0,
    "iDirectionIncrementInDegrees": 0.25,
    "jDirectionIncrementInDegrees": 0.25,
    "centre": "ecmf",
    "bitsPerValue": 24,
}


def message(value: float, hour: int, step: int = 0, *, day: int = 1, stream: int | None = None):
    """One field of 2 m temperature, all of it `value`."""
    sample = "regular_ll_sfc_grib2" if stream is None else "regular_ll_pl_grib1"
    handle = eccodes.codes_grib_new_from_samples(sample)
    keys = {"typeOfLevel": "surface", "level": 0} if stream is not None else {}
    keys |= GRID | {"shortName": "2t", "dataDate": 20240100 + day, "dataTime": hour * 100}
    if stream is not None:
        keys |= {"setLocalDefinition": 1, "experimentVersionNumber": f"{stream:04d}"}
    if step:
        keys["step"] = step
    for key, given in keys.items():
        eccodes.codes_set(handle, key, given)
    eccodes.codes_set_values(handle, np.full(20, float(value)))
    raw = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return raw


def grib(path: Path, *messages: bytes) -> Path:
    path.write_bytes(b"".join(messages))
    return path


def values(ds: xr.Dataset) -> list[float]:
    return np.round(ds[T2M].values[:, 0, 0], 3).tolist()


@pytest.mark.parametrize("opens", [open_era5, open_grid])
@pytest.mark.parametrize("backwards", [False, True])
def test_runs_that_overlap_are_refused_and_named(tmp_path, opens, backwards):
    fields = [message(270 + hour + step / 6, hour, step) for hour in (0, 12) for step in (0, 6, 12)]
    path = grib(tmp_path / "ifs.grib", *(fields[::-1] if backwards else fields))
    with pytest.raises(InputError, match="1 of its fields are there twice") as error:
        opens(path)
    for part in ("2t at the valid time 2024-01-01T12:00", "00:00 + 12 h", "12:00 + 0 h"):
        assert part in str(error.value)


def test_runs_that_follow_each_other_are_a_history(tmp_path):
    fields = [message(270 + h + s, h, s) for h in (0, 12) for s in (0, 6)]
    path = grib(tmp_path / "a.grib", *fields)
    assert values(open_era5(path)) == [270, 276, 282, 288]
    # The same message twice is no other field.
    path.write_bytes(path.read_bytes() + fields[1])
    assert values(open_era5(path)) == [270, 276, 282, 288]


def test_forecasts_keep_their_runs_where_they_are_asked_for(tmp_path):
    fields = [message(270 + h + s, h, s) for h in (0, 12) for s in (6, 12, 18)]
    (part,) = open_grib(grib(tmp_path / "f.grib", *fields), forecast=True)
    ours, _ = canonicalize(part)
    assert dict(ours.sizes) == {"time": 2, "prediction_timedelta": 3, "latitude": 4, "longitude": 5}
    assert ours[T2M].values[1, :, 0, 0].tolist() == [288, 294, 300]


@pytest.mark.parametrize("first", ["final", "preliminary", "mixed"])
def test_final_data_win_in_one_file_whichever_comes_first(tmp_path, first, caplog):
    final = [message(270 + h, h, stream=1) for h in (0, 6, 12)]
    late = [message(280 + h, h, stream=5) for h in (6, 12, 18)]
    fields = {"final": final + late, "preliminary": late + final, "mixed": final[::-1] + late}
    path = grib(tmp_path / "era5.grib", *fields[first])
    with caplog.at_level(logging.WARNING, "stforecast"):
        assert values(open_era5(path)) == [270, 276, 282, 298]
    assert "2 times are preliminary (ERA5T), and final (ERA5) in" in caplog.text


def test_files_of_one_stream_each_are_named(tmp_path):
    final = grib(tmp_path / "a.grib", *(message(270 + h, h, stream=1) for h in (0, 6, 12)))
    late = grib(tmp_path / "b.grib", *(message(280 + h, h, stream=5) for h in (6, 12, 18)))
    with pytest.raises(InputError, match=r"a\.grib .* and .*b\.grib .* overlap in time, 2 times"):
        open_era5([final, late])
