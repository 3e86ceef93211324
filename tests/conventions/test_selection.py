"""What the gate takes of a Dataset, and what comes back."""

import numpy as np
import pandas as pd
import xarray as xr
from layouts import NAME, round_trip

from stforecast.conventions.gate import canonicalize, restore
from stforecast.conventions.grid import Grid
from stforecast.testing.weather import make_weather, relabel


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
