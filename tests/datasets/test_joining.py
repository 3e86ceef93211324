"""Files that do not go together."""

from __future__ import annotations

import numpy as np
import pytest
from years_of_weather import LAT, T2M, weather, write

from stforecast.datasets.weather import open_weatherbench
from stforecast.errors import InputError


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


def test_one_unit_in_two_spellings_is_joined(tmp_path):
    for start, units in (("2013-01-01", "m s**-1"), ("2014-01-01", "m/s")):
        ds = weather(start, 5).rename(t2m="u10")
        ds["u10"].attrs["units"] = units
        ds.to_netcdf(tmp_path / f"{start}.nc")
    assert open_weatherbench(tmp_path).sizes["time"] == 10


def test_same_dimensions_under_other_names_are_joined(tmp_path):
    """The Climate Data Store renamed time and expver in 2024."""
    write(weather("2013-01-01", 5), tmp_path / "a.nc")
    renamed = weather("2013-01-01T05", 5, seed=1).rename(
        time="valid_time", lat="latitude", lon="longitude"
    )
    write(renamed, tmp_path / "b.nc")
    ds = open_weatherbench(tmp_path)
    np.testing.assert_array_equal(ds[T2M][5:], renamed["t2m"])
