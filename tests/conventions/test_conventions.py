"""The gate: whatever the caller's labels, the same canonical form, and the labels back."""

import pickle
from pathlib import Path

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import on_file, round_trip
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.conventions.angles import is_global
from stforecast.conventions.gate import canonicalize, check, restore
from stforecast.conventions.grid import Grid
from stforecast.conventions.times import time_gaps, time_step, valid_times
from stforecast.errors import InputError
from stforecast.testing.weather import make_forecast, make_weather, relabel

NAME = "2m_temperature"
HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


# --- any layout, the same numbers, the labels back ------------------------------------------------

layouts = st.fixed_dictionaries(
    {
        "variable": st.sampled_from([NAME, "t2m", "2t", "tas", "T2"]),
        "lat": st.sampled_from(["latitude", "lat", "y"]),
        "lon": st.sampled_from(["longitude", "lon", "x"]),
        "time": st.sampled_from(["time", "valid_time", "date", "Time"]),
        "order": st.permutations(["time", "latitude", "longitude"]),
        "north_first": st.booleans(),
        "west_negative": st.booleans(),
        "units": st.sampled_from(["K", "degC"]),
        "dtype": st.sampled_from(["float16", "float32", "float64", "packed"]),
        "calendar": st.sampled_from(["standard", "gregorian", "noleap", "360_day"]),
        "backing": st.sampled_from(["numpy", "dask", "file"]),
        "shuffled": st.booleans(),
        "extra": st.sampled_from(["none", "scalars", "size 1"]),
    }
)


def in_layout(ds, layout):
    """`ds` as a caller with this layout would have it."""
    ds = relabel(
        ds,
        order=layout["order"],
        north_first=layout["north_first"],
        west_negative=layout["west_negative"],
        units=layout["units"],
        dtype=layout["dtype"] if layout["dtype"] != "packed" else "float64",
        packed=layout["dtype"] == "packed",
        names={
            old: layout[new]
            for old, new in (("latitude", "lat"), ("longitude", "lon"), ("time", "time"))
            if old != layout[new]
        }
        | ({NAME: layout["variable"]} if layout["variable"] != NAME else {}),
    )
    if layout["calendar"] == "gregorian":  # the standard calendar, but as cftime
        ds = ds.convert_calendar("gregorian", dim=layout["time"], use_cftime=True)
    if layout["shuffled"]:
        ds = ds.isel({layout["time"]: [3, 0, 4, 1, 2]})
    if layout["extra"] != "none":
        ds = ds.assign_coords(number=0, surface=0.0, step=np.timedelta64(0, "ns"))
        ds = ds.assign_coords(expver=(layout["time"], ["0001"] * 4 + ["0005"]))
    if layout["extra"] == "size 1":
        ds = ds.expand_dims("number", axis=1)
    if layout["backing"] == "dask":
        ds = ds.chunk({layout["time"]: 2, layout["lon"]: 4})
    return on_file(ds)[0] if layout["backing"] == "file" else ds


@settings(max_examples=80, deadline=None)
@given(layout=layouts)
def test_any_layout_gives_the_same_numbers_and_comes_back(layout):
    calendar = layout["calendar"] if layout["calendar"] != "gregorian" else "standard"
    ours = make_weather(steps=5, shape=(3, 6), calendar=calendar)
    theirs = in_layout(ours, layout)
    got, labels = canonicalize(theirs)

    step = {"float16": 0.13, "packed": 0.0051}.get(layout["dtype"], 1e-4)
    assert list(got.data_vars) == [NAME]
    assert got[NAME].dims == ("time", "latitude", "longitude")
    assert got[NAME].dtype == np.float32
    assert got[NAME].attrs["units"] == "K"
    xr.testing.assert_allclose(got, ours, rtol=0, atol=step)
    np.testing.assert_array_equal(got["time"], ours["time"])
    assert (got[NAME].chunks is None) == (layout["backing"] != "dask")
    check(got, timestep=HOUR)

    back = restore(got, pickle.loads(pickle.dumps(labels)))
    assert (back[layout["variable"]].chunks is None) == (layout["backing"] != "dask")
    assert back[layout["variable"]].dtype == theirs[layout["variable"]].dtype
    if layout["units"] == "K" or layout["dtype"] == "packed":
        if layout["dtype"] == "float64":  # float32 in between
            back[layout["variable"]] = back[layout["variable"]].astype("float32").astype("float64")
            theirs = theirs.astype("float32").astype("float64")
        xr.testing.assert_identical(back, theirs)
    else:
        xr.testing.assert_allclose(back, theirs, rtol=0, atol=2e-5 if step < 0.1 else 1e-2)
        for name in theirs.variables:
            assert back[name].attrs == theirs[name].attrs
            assert back[name].dims == theirs[name].dims
            if name in theirs.coords:
                assert back[name].identical(theirs[name]) or name in back[name].coords


@settings(max_examples=40, deadline=None)
@given(layout=layouts)
def test_a_forecast_gets_the_callers_labels(layout):
    calendar = layout["calendar"] if layout["calendar"] != "gregorian" else "standard"
    theirs = in_layout(make_weather(steps=5, shape=(3, 6), calendar=calendar), layout)
    ours, labels = canonicalize(theirs)
    forecast = make_forecast(ours, inits=2, steps=3)
    got = restore(forecast, labels)

    spatial = [layout[k[:3]] for k in layout["order"] if k != "time"]
    array = got[layout["variable"]]
    assert array.dims == ("time", "prediction_timedelta", *spatial)
    assert array.dtype == np.float32
    assert array.attrs["units"] == layout["units"]
    assert "scale_factor" not in array.attrs
    assert got["valid_time"].dims == ("time", "prediction_timedelta")
    assert ("number" in got.coords) == (layout["extra"] != "none")
    assert not {"expver", "step", "date", "Time"} & set(got.coords)
    for name in spatial:
        assert got[name].variable.identical(theirs[name].variable)
    if layout["calendar"] == "gregorian":
        assert isinstance(got["valid_time"].values[0, 0], cftime.datetime)
    # What comes out goes in again, and is the same forecast.
    again, theirs_again = canonicalize(got)
    xr.testing.assert_allclose(again, forecast, rtol=0, atol=5e-5)
    back = restore(again, theirs_again)
    xr.testing.assert_allclose(back, got, rtol=0, atol=5e-5)
    assert back[layout["variable"]].dims == array.dims


def test_float64_celsius_comes_back_to_half_a_float32_step():
    theirs = relabel(make_weather(steps=4), units="degC", dtype="float64")
    back = round_trip(theirs)
    assert back[NAME].dtype == np.float64
    np.testing.assert_allclose(back[NAME], theirs[NAME], rtol=0, atol=1.6e-5)


# --- what is selected, and what comes back --------------------------------------------------------


def test_a_mask_is_taken_by_name_only(weather):
    warm = (weather[NAME] > 280).drop_attrs()
    ours, labels = canonicalize(weather.assign(warm=warm), ["warm"])
    np.testing.assert_array_equal(ours["warm"], warm.astype("f4"))
    xr.testing.assert_equal(restore(ours, labels)["warm"], warm)
    assert list(canonicalize(weather.assign(warm=warm))[0]) == [NAME]


def test_only_what_is_asked_for_is_taken(weather):
    plain = weather[NAME].assign_attrs(units="1", standard_name="cloud_area_fraction") * 0
    ds = weather.assign(tcc=plain, lsm=plain.isel(time=0))
    ds = ds.assign(bounds=("time", np.zeros(7)), text=("time", ["a"] * 7))
    assert set(canonicalize(ds)[0].data_vars) == {NAME, "total_cloud_cover"}
    for wanted in ("t2m", ["t2m"], (NAME,)):
        assert list(canonicalize(ds, wanted)[0].data_vars) == [NAME]
    assert list(round_trip(ds, variables=["tcc"]).data_vars) == ["tcc"]


def test_a_data_array_and_anything_that_becomes_xarray(weather):
    class Source:
        def to_xarray(self):
            return weather

    xr.testing.assert_identical(canonicalize(Source())[0], canonicalize(weather)[0])
    named = weather[NAME].rename("t2m")
    xr.testing.assert_identical(round_trip(named)["t2m"], named)
    unnamed = weather[NAME].rename(None)
    assert list(canonicalize(unnamed, [NAME])[0].data_vars) == [NAME]


def test_one_dimensional_coordinates_that_are_no_index(weather):
    ds = weather.rename_dims(latitude="y", longitude="x").reset_index(["latitude", "longitude"])
    ds = ds.assign_coords(y=("y", np.arange(4) * 1000.0, {"units": "m"})).isel(
        y=slice(None, None, -1)
    )
    got, _ = canonicalize(ds)
    assert got[NAME].dims == ("time", "latitude", "longitude")
    assert (got["latitude"].diff("latitude") > 0).all()
    xr.testing.assert_identical(round_trip(ds), ds)


def test_cells_without_latitude_stay_cells():
    rng = np.random.default_rng(0)
    time = pd.date_range("2016-01-01", periods=5, freq="30min")
    flow = xr.Dataset(
        {"inflow": (("x", "y", "time"), rng.poisson(9, (3, 4, 5)))},
        {"time": time, "y": ("y", [3.0, 2.0, 1.0, 0.0])},
    )
    got, _ = canonicalize(flow)
    assert got["inflow"].dims == ("time", "y", "x")
    np.testing.assert_array_equal(got["inflow"], flow["inflow"].transpose("time", "y", "x"))
    np.testing.assert_array_equal(got["y"], flow["y"])
    assert Grid.of(got).to_dict() == {"y": 4, "x": 3}
    back = round_trip(flow)
    xr.testing.assert_identical(back, flow)
    assert back["inflow"].dtype == flow["inflow"].dtype


def test_attributes_encoding_and_time_dtype_come_back(weather):
    weather["time"].encoding = {"units": "hours since 1900-01-01", "dtype": np.dtype("int32")}
    weather[NAME].encoding = {"dtype": np.dtype("int16"), "scale_factor": 0.01}
    weather.encoding = {"unlimited_dims": {"time"}}
    ds = weather.assign_coords(time=weather["time"].astype("datetime64[s]"))
    ds["time"].encoding = weather["time"].encoding
    ours, labels = canonicalize(ds)
    assert ours["time"].dtype == "datetime64[ns]"
    assert ours[NAME].encoding == {}
    back = restore(ours, labels)
    assert back["time"].dtype == "datetime64[s]"
    for name in ("time", NAME):
        assert back[name].encoding == ds[name].encoding
    assert back.encoding == ds.encoding


def test_a_part_comes_back_as_the_same_part(weather):
    theirs = relabel(
        weather, names={"latitude": "lat"}, north_first=True, west_negative=True, units="degC"
    )
    theirs = theirs.assign_coords(day=("time", np.arange(7)), name=("lat", list("abcd")))
    ours, labels = canonicalize(theirs)
    part = ours.isel(time=slice(2, 5), latitude=[0, 1], longitude=slice(1, 5))
    back = restore(part, labels)
    np.testing.assert_array_equal(back["lat"], theirs["lat"][2:])
    np.testing.assert_array_equal(back["longitude"], [-180, -120, 60, 120])
    assert not {"day", "name"} & set(back.coords)  # of whose places nothing is known
    expected = theirs.sel(longitude=back["longitude"]).isel(time=slice(2, 5), lat=[2, 3])
    xr.testing.assert_allclose(back, expected.drop_vars(["day", "name"]), rtol=0, atol=2e-5)


def test_another_grid_gets_the_callers_convention(weather):
    theirs = relabel(
        weather.assign_coords(longitude=weather["longitude"] + 15),
        names={"latitude": "lat", "longitude": "lon"},
        north_first=True,
        west_negative=True,
    )
    _, labels = canonicalize(theirs)
    finer = make_weather(steps=7, shape=(6, 8))
    back = restore(finer, labels)
    assert back[NAME].dims == theirs[NAME].dims
    np.testing.assert_array_equal(back["lon"], np.arange(-180, 180, 45))
    np.testing.assert_array_equal(back["lat"], np.arange(75, -90, -30))
    point = {"lat": 75.0, "lon": -45.0}
    assert (back[NAME].sel(point) == finer[NAME].sel(latitude=75.0, longitude=315.0)).all()


def test_whole_degrees_and_hours_do_not_cut_those_of_others(weather):
    theirs = make_weather(7, shape=(6, 12))
    whole = {name: theirs[name].astype(int) for name in ("latitude", "longitude")}
    _, labels = canonicalize(theirs.assign_coords(whole))
    back = restore(weather, labels)
    for name in whole:  # rows at 22.5 and 67.5 degrees, columns every 60
        np.testing.assert_array_equal(back[name], weather[name])
    assert back["longitude"].dtype.kind == "i"
    forecast = make_forecast(theirs)
    hours = ("prediction_timedelta", [1, 2, 3], {"units": "hours"})
    _, labels = canonicalize(forecast.assign_coords(prediction_timedelta=hours))
    leads = np.array([30, 60, 90], "timedelta64[m]").astype("timedelta64[ns]")
    other = forecast.assign_coords(prediction_timedelta=leads).drop_vars("valid_time")
    assert restore(other, labels)["prediction_timedelta"].values.tolist() == [0.5, 1.0, 1.5]


# --- longitude ------------------------------------------------------------------------------------


def with_longitude(lon, steps=2):
    values = 280 + np.arange(steps * 3 * len(lon), dtype=np.float32).reshape(steps, 3, len(lon)) / 9
    return xr.Dataset(
        {NAME: (("time", "latitude", "longitude"), values, {"units": "K"})},
        {
            "time": pd.date_range("2001", periods=steps),
            "latitude": [10.0, 20, 30],
            "longitude": lon,
        },
    )


@pytest.mark.parametrize(
    ("given_", "canonical"),
    [
        (np.arange(-180.0, 180, 60), np.arange(0.0, 360, 60)),
        (np.arange(60.0, 420, 60), np.arange(0.0, 360, 60)),
        ([-10.0, 0, 10, 20], [-10.0, 0, 10, 20]),  # Europe in one piece
        ([350.0, 360, 370, 380], [-10.0, 0, 10, 20]),
        ([0.0, 10, 20, 350], [-10.0, 0, 10, 20]),  # sorted from 0 to 360 it was torn
        ([-30.0, -20, -10], [330.0, 340, 350]),
        ([170.0, 180, -170], [170.0, 180, 190]),
        ([20.0, 10, 0], [0.0, 10, 20]),
        ([-20.0, -10, -1e-6], [-20.0, -10, 0]),  # rounding does not go round the globe
        ([12.5], [12.5]),
    ],
)
def test_longitudes(given_, canonical):
    ds = with_longitude(given_)
    got, _ = canonicalize(ds)
    np.testing.assert_allclose(got["longitude"], canonical, rtol=0, atol=1e-5)
    place = int(np.flatnonzero(np.isclose(np.mod(given_, 360), np.mod(canonical[0], 360)))[0])
    np.testing.assert_array_equal(got[NAME][:, :, 0], ds[NAME][:, :, place])
    xr.testing.assert_identical(round_trip(ds), ds)


def test_is_global():
    assert is_global(np.arange(64) * 5.625)
    assert is_global(np.arange(64) * 5.625 - 180)
    assert is_global(np.round(np.arange(1080) / 3, 2))
    assert not is_global(np.arange(63) * 5.625)
    assert not is_global(np.array([350.0, 0, 10]))
    assert not is_global(np.array([5.0]))
    assert is_global(np.array([0.0, 180.0]))
    assert is_global(np.array([0.0, 120.0, 245.0]))  # 115 is next to 120
    assert not is_global(np.array([0.0, 100.0, 200.0]))


def test_three_uneven_longitudes_are_refused():
    with pytest.raises(InputError, match="10 degrees between 0 and 10, elsewhere 15"):
        canonicalize(with_longitude([0.0, 10.0, 30.0]))
    rounded = [0.0, 10.0, 20.9, 30.0]  # a tenth of the spacing is rounding
    np.testing.assert_array_equal(canonicalize(with_longitude(rounded))[0]["longitude"], rounded)


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_steps_and_gaps(calendar):
    time = xr.date_range("2001-02-27", periods=96, freq="1h", calendar=calendar).values
    time = np.delete(time, [10, 11, 12, 40])
    assert time_step(time) == HOUR
    assert time_gaps(time, HOUR) == [(time[9], time[10], 3), (time[36], time[37], 1)]
    assert time_gaps(time[:10], HOUR) == []
    with pytest.raises(InputError, match="2 times, found 1"):
        time_step(time[:1])


def test_valid_times_of_other_calendars():
    start = np.array([cftime.DatetimeNoLeap(2004, 2, 28, 18)])
    lead = np.array([6, 12], "timedelta64[h]")
    assert valid_times(start, lead)[0, 0] == cftime.DatetimeNoLeap(2004, 3, 1, 0)
    got = valid_times(np.array(["2004-02-28T18"], "datetime64[h]"), lead)
    np.testing.assert_array_equal(got, np.array([["2004-02-29T00", "2004-02-29T06"]], "M8[h]"))


# --- real files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize(
    "path",
    ["plasim_t2m/2m_temperature_2013_5.625deg.nc", "era5_t2m_italy/2m_temperature.nc"],
)
def test_real_files_come_back(path, decode):
    path = Path(__file__).parents[2].parent / "shared" / "data" / path
    if not path.exists():
        pytest.skip(f"needs {path}")
    with xr.open_dataset(path, mask_and_scale=decode) as ds:
        ds = ds.isel(time=slice(0, 50))
        ours, labels = canonicalize(ds)
        check(ours, ["2m_temperature"])
        back = restore(ours, labels)
        xr.testing.assert_allclose(back, ds, rtol=0, atol=2e-5)
        assert back["t2m"].encoding == ds["t2m"].encoding
        if not decode:
            xr.testing.assert_identical(back, ds)
