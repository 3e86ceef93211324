"""Files of one data set that are not alike, and the times that files have."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.datasets.weather import open_era5, open_grid, open_weatherbench
from stforecast.errors import InputError
from stforecast.testing.weather import make_weather

T2M = "2m_temperature"


def parts(directory, change, *, name: str = T2M, units: str | None = None, base=None):
    """Two files of 20 steps each, the second changed; what the first holds."""
    ds = make_weather(40, shape=(6, 8)).rename({T2M: name})
    if base is not None:
        ds[name] = base(ds[name])
    first, second = ds.isel(time=slice(0, 20)), ds.isel(time=slice(20, 40))
    for year, part in ((2013, first), (2014, second.assign({name: change(second[name])}))):
        part[name].attrs = {} if units is None else {"units": units}
        part.to_netcdf(directory / f"{year}.nc")
    return ds[name]


def kelvin(t):
    return t - 273.15


def pressure(t):
    return 101325 + 100 * (t - 270)


@pytest.mark.parametrize("chunks", ["auto", None])
@pytest.mark.parametrize(
    ("name", "units", "base", "change"),
    [
        (T2M, None, None, kelvin),
        (T2M, "K", None, kelvin),
        (T2M, None, kelvin, lambda t: t + 273.15),
        ("t2m", "degC", kelvin, lambda t: t + 273.15),
        ("msl", None, pressure, lambda p: p / 100),
        ("surface_pressure", "Pa", pressure, lambda p: p / 100),
        ("geopotential_500", None, lambda t: 200 * t, lambda z: z / 9.80665),
    ],
)
def test_files_in_other_units_are_named(tmp_path, name, units, base, change, chunks):
    parts(tmp_path, change, name=name, units=units, base=base)
    with pytest.raises(InputError, match=r"2014\.nc: .*2013\.nc: these are other units"):
        next(iter(open_grid(tmp_path, chunks=chunks).data_vars.values())).load()


@pytest.mark.parametrize("attribute", ["units", "none"])
def test_files_of_which_one_has_no_units_are_named(tmp_path, attribute):
    parts(tmp_path, lambda t: t, units="K")
    with xr.open_dataset(tmp_path / "2014.nc") as ds:
        ds = ds.load()
    ds[T2M].attrs = {} if attribute == "none" else {"units": "degC"}
    ds.to_netcdf(tmp_path / "2014.nc")
    with pytest.raises(InputError, match=r"2013\.nc and .*2014\.nc hold '2m_temperature' in diff"):
        open_grid(tmp_path)


@pytest.mark.parametrize(
    ("name", "base", "change"),
    [
        (T2M, None, lambda t: t - 60),  # from July to January
        ("msl", pressure, lambda p: p - 3000),
        ("10m_wind_speed", lambda t: t - 270, lambda u: 100 * u),  # units do not show in it
        (T2M, None, lambda t: t.where(t.time > t.time[0])),  # a first step of nothing
    ],
)
def test_weather_is_no_change_of_units(tmp_path, name, base, change):
    parts(tmp_path, change, name=name, units="K" if name == T2M else None, base=base)
    assert open_grid(tmp_path).load().sizes["time"] == 40


def test_files_packed_in_other_ways_hold_the_same(tmp_path):
    expected = parts(tmp_path, lambda t: t, units="K")
    for year, scale, offset in ((2013, 0.01, 270.0), (2014, 0.002, 260.0)):
        with xr.open_dataset(tmp_path / f"{year}.nc") as ds:
            ds = ds.load()
        packing = {"dtype": "i2", "scale_factor": scale, "add_offset": offset, "_FillValue": -32768}
        ds.to_netcdf(tmp_path / f"{year}.nc", encoding={T2M: packing})
    found = open_grid(tmp_path)[T2M]
    assert np.abs(found.values - expected.values).max() <= 0.0051


# --- ERA5 and ERA5T -------------------------------------------------------------------------------


def streams(times, numbers, value: float) -> xr.Dataset:
    """ERA5 in the layout since 2024: the stream is a text for each time."""
    shape = (len(times), 4, 5)
    ds = xr.Dataset(
        {"t2m": (("valid_time", "latitude", "longitude"), np.full(shape, value), {"units": "K"})},
        {
            "valid_time": pd.DatetimeIndex(times),
            "latitude": 46 - 0.25 * np.arange(4),
            "longitude": 6 + 0.25 * np.arange(5),
        },
    )
    texts = np.array([f"{n:04d}" for n in numbers], object)
    return ds.assign_coords(expver=("valid_time", texts))


TIMES = pd.date_range("2024-01-01", periods=6, freq="6h")


@pytest.mark.parametrize("opens", [open_era5, open_grid, open_weatherbench])
@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_final_data_win_in_two_files(tmp_path, opens, order, caplog):
    final = streams(TIMES[:4], [1] * 4, 270.0)
    late = streams(TIMES[2:], [5] * 4, 280.0)
    for name, which in zip("ab", order, strict=True):
        (final, late)[which].to_netcdf(tmp_path / f"{name}.nc")
    with caplog.at_level(logging.WARNING, "stforecast"):
        ds = opens(tmp_path)
    assert ds[T2M].values[:, 0, 0].tolist() == [270.0] * 4 + [280.0] * 2
    assert "2 times are preliminary (ERA5T), and final (ERA5) in" in caplog.text


@pytest.mark.parametrize("late_first", [False, True])
def test_final_data_win_in_one_file(tmp_path, late_first, caplog):
    both = [streams(TIMES[:4], [1] * 4, 270.0), streams(TIMES[2:], [5] * 4, 280.0)]
    xr.concat(both[::-1] if late_first else both, "valid_time").to_netcdf(tmp_path / "a.nc")
    with caplog.at_level(logging.WARNING, "stforecast"):
        ds = open_era5(tmp_path / "a.nc")
    assert ds[T2M].values[:, 0, 0].tolist() == [270.0] * 4 + [280.0] * 2
    assert "2 times are preliminary" in caplog.text


def test_one_stream_twice_is_refused(tmp_path):
    streams(TIMES, [5] * 6, 270.0).to_netcdf(tmp_path / "a.nc")
    streams(TIMES[3:], [5] * 3, 271.0).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(InputError, match="overlap in time, 3 times are in both"):
        open_era5(tmp_path)
    xr.concat([streams(TIMES, [1] * 6, 270.0)] * 2, "valid_time").to_netcdf(tmp_path / "c.nc")
    with pytest.raises(InputError, match="6 of its 12 times are duplicates"):
        open_era5(tmp_path / "c.nc")


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["coordinate", "variable", "valid_time", "size one", "valid_time of a forecast"]
)
def test_one_file_a_time(tmp_path, form):
    ds = make_weather(4, shape=(6, 8))
    for i in range(4):
        one = ds.isel(time=[i] if form == "size one" else i)
        if form.startswith("valid_time"):
            one = one.rename(time="valid_time")
        if form == "valid_time of a forecast":  # as cfgrib writes one message
            step = np.timedelta64(6, "h")
            one = one.assign_coords(time=one["valid_time"] - step, step=step)
        if form == "variable":
            one = one.reset_coords("time")
        one.to_netcdf(tmp_path / f"t2m_{i}.nc")
        if form == "variable":  # not listed as a coordinate
            import netCDF4

            with netCDF4.Dataset(tmp_path / f"t2m_{i}.nc", "a") as nc:
                for name in ("2m_temperature",):
                    if "coordinates" in nc[name].ncattrs():
                        nc[name].delncattr("coordinates")
    for chunks in ("auto", None):
        found = open_grid(tmp_path, chunks=chunks)
        np.testing.assert_array_equal(found["time"], ds["time"])
        np.testing.assert_array_equal(found[T2M], ds[T2M])


def test_a_file_without_a_time_says_where_one_may_be(tmp_path):
    ds = make_weather(2, shape=(6, 8)).isel(time=0).drop_vars("time")
    ds.assign_attrs(time_coverage_start="2020-01-01T00:00Z").to_netcdf(tmp_path / "a.nc")
    with pytest.raises(InputError, match=r"a\.nc has no time \(its attribute time_coverage_start"):
        open_grid(tmp_path / "a.nc")


@pytest.mark.parametrize("where", [slice(-3, None), slice(0, 3), [1, 5, 7]])
def test_missing_times_are_counted(tmp_path, where):
    ds = make_weather(20, shape=(6, 8))
    time = ds["time"].values.copy()
    time[where] = np.datetime64("NaT")
    ds.assign_coords(time=time).to_netcdf(tmp_path / "n.nc")
    with pytest.raises(InputError, match=r"n\.nc: 3 of its 20 times are missing"):
        open_grid(tmp_path / "n.nc")


@pytest.mark.parametrize(
    ("name", "numbers", "expected"),
    [
        ("date", 20200101 + 100 * np.arange(4), ["2020-01", "2020-02", "2020-03", "2020-04"]),
        ("date", np.array([20200228.0, 20200229, 20200301, 20200302.75]), None),
        ("time", 2020010100 + np.arange(0, 24, 6), None),
        ("time", np.array([202001, 202002, 202003, 202004]), None),
    ],
)
def test_dates_as_numbers(tmp_path, name, numbers, expected):
    """The Climate Data Store's monthly means have days as numbers; CDO's, parts of a day, too."""
    ds = make_weather(4, shape=(6, 8)).drop_vars("time").rename(time=name)
    ds.assign_coords({name: numbers}).to_netcdf(tmp_path / "m.nc")
    times = pd.DatetimeIndex(open_era5(tmp_path / "m.nc").time)
    if expected is None:
        digits = {8: "%Y%m%d", 10: "%Y%m%d%H", 6: "%Y%m"}[len(str(int(numbers[0])))]
        assert [t.strftime(digits) for t in times] == [str(int(n)) for n in numbers]
        assert times[-1].hour == (0 if digits == "%Y%m" else 18)
    else:
        assert times.equals(pd.DatetimeIndex(expected))


@pytest.mark.parametrize(
    ("units", "calendar", "numbers", "expected"),
    [
        ("months since 1960-01-01", "360", [0, 1, 14], "1960-01-01 1960-02-01 1961-03-01"),
        ("months since 1960-01-01", "360", [0.5, 1.5, 2.5], "1960-01-16 1960-02-16 1960-03-16"),
        ("months since 1960-01-01", "standard", [0, 1, 2], "1960-01-01 1960-02-01 1960-03-01"),
        ("months since 1960-01-01", None, [0.5, 1.0, 1.5], "1960-01-16 1960-02-01 1960-02-15"),
        ("months since 1960-01-15", "noleap", [0, 1, 2], "1960-01-15 1960-02-15 1960-03-15"),
        ("years since 1850-01-01", "standard", [0, 1, 2], "1850-01-01 1851-01-01 1852-01-01"),
        ("years since 1850-07-01", "365_day", [0, 1, 2], "1850-07-01 1851-07-01 1852-07-01"),
        ("days since 1960-02-01", "360", [0, 29, 30], "1960-02-01 1960-02-30 1960-03-01"),
        (
            "Months since 1960-1-1 00:00:00",
            "360_day",
            [0, 1, 2],
            "1960-01-01 1960-02-01 1960-03-01",
        ),
    ],
)
def test_months_and_years_since(tmp_path, units, calendar, numbers, expected):
    about = {"units": units} | ({"calendar": calendar} if calendar else {})
    ds = make_weather(3, shape=(6, 8)).drop_vars("time")
    ds = ds.assign_coords(time=("time", np.array(numbers, float), about))
    ds.to_netcdf(tmp_path / "m.nc")
    found = open_grid(tmp_path / "m.nc").indexes["time"]
    assert [t.strftime("%Y-%m-%d") for t in found] == expected.split()


def test_months_that_have_no_such_day_are_refused(tmp_path):
    ds = make_weather(3, shape=(6, 8)).drop_vars("time")
    about = {"units": "months since 1960-01-31", "calendar": "standard"}
    ds.assign_coords(time=("time", np.arange(3.0), about)).to_netcdf(tmp_path / "m.nc")
    with pytest.raises(InputError, match="'months since 1960-01-31'") as error:
        open_grid(tmp_path / "m.nc")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    "about",
    [{"units": "fortnights since 1960-01-01"}, {"units": "days since x", "calendar": "moon"}],
)
def test_other_units_of_time_are_not_called_damaged(tmp_path, about):
    ds = make_weather(3, shape=(6, 8)).drop_vars("time")
    ds.assign_coords(time=("time", np.arange(3.0), about)).to_netcdf(tmp_path / "m.nc")
    with pytest.raises(InputError, match=r"m\.nc: .*(units|calendar)") as error:
        open_grid(tmp_path / "m.nc")
    assert "damaged" not in str(error.value)
