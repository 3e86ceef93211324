"""Computed inputs: the sun against closed forms and geometry, the calendar, and constants."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.conventions.gate import canonicalize, check
from stforecast.datasets import forcings as computed
from stforecast.datasets.forcings import add_inputs
from stforecast.datasets.weather import open_weatherbench
from stforecast.errors import InputError
from stforecast.task import Task
from stforecast.testing.weather import make_forecast, make_weather, relabel
from stforecast.testing.weather_files import write_weatherbench1

SUN = "toa_incident_solar_radiation"
SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "plasim_t2m"


def at(times, shape=(36, 72), **kwargs) -> xr.Dataset:
    """A data set at these times, on cell centres and longitudes from 0."""
    times = pd.DatetimeIndex(times) if isinstance(times, list) else times
    ds = make_weather(len(times), shape=shape, noise=0, **kwargs)
    return ds.assign_coords(time=times)


def sun(times, **kwargs) -> xr.DataArray:
    return add_inputs(at(times, **kwargs), SUN)[SUN]


def mean(field: xr.DataArray) -> float:
    """Mean over the globe, by the exact areas of the cells."""
    edges = np.linspace(-90, 90, field.sizes["latitude"] + 1)
    area = xr.DataArray(np.diff(np.sin(np.deg2rad(edges))), dims="latitude")
    return float((field.astype("f8") * area).sum() / (area.sum() * field[..., 0, 0].size * 72))


# --- the sun --------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", ["2015", "2016"])
def test_annual_global_mean_is_a_quarter_of_the_solar_constant(year):
    times = pd.date_range(year, str(int(year) + 1), freq="9h", inclusive="left")
    got = mean(sun(times))
    # The mean of 1 / r² over the year is 1 + e² / 2 and a little, with e = 0.0167.
    assert got == pytest.approx(1360.8 / 4 * 1.00014, rel=2e-4)


@pytest.mark.parametrize(
    ("day", "nearness"), [("2015-01-04", 1.0343), ("2015-07-05", 0.9670), ("2015-04-04", 1.0)]
)
def test_global_mean_at_an_instant_follows_the_distance_of_the_sun(day, nearness):
    # Half of the globe is lit, and its disc is a quarter of the surface, at every hour.
    for hour in (0, 7.5, 18):
        got = mean(sun([pd.Timestamp(day) + pd.Timedelta(hour, "h")]))
        assert got == pytest.approx(1360.8 / 4 * nearness, rel=2e-3)


def test_half_of_the_globe_has_night():
    field = sun(pd.date_range("2015-05-03", periods=24, freq="h"))
    dark = (field == 0).astype("f4")
    assert float(field.min()) == 0
    assert mean(dark) == pytest.approx(0.5, abs=0.01)
    at_midnight = field.sel(latitude=2.5, longitude=0)[0]
    assert float(at_midnight) == 0


def test_equinox_is_symmetric_and_solstice_is_not():
    equinox = sun([pd.Timestamp("2015-03-20 22:45")])  # the instant, by the almanac
    np.testing.assert_allclose(equinox, equinox[:, ::-1], atol=0.5)
    june = sun(pd.date_range("2015-06-21", periods=24, freq="h")).mean(["time", "longitude"])
    assert float(june.sel(latitude=-87.5)) == 0  # polar night
    # Polar day: at the pole the sun stands 23.44 degrees high at all hours.
    high = 1360.8 * 0.9674 * np.sin(np.deg2rad(23.44)) * np.sin(np.deg2rad(87.5))
    assert float(june.sel(latitude=87.5)) == pytest.approx(high, rel=3e-3)
    assert float(june.idxmax()) > 60  # more in a day than at the tropic


@pytest.mark.parametrize(
    ("when", "minutes"),  # the almanac's equation of time
    [("2015-02-11", -14.2), ("2015-05-14", 3.7), ("2015-07-26", -6.5), ("2015-11-03", 16.5)],
)
@pytest.mark.parametrize("hour", [3, 15])
def test_noon_is_where_the_sun_stands(when, minutes, hour):
    field = sun([pd.Timestamp(when) + pd.Timedelta(hour, "h")], shape=(36, 1440))[0]
    row = field.sel(latitude=2.5)
    apparent = (12 - hour - minutes / 60) * 15 % 360
    lit = row["longitude"][row > 0]
    middle = np.rad2deg(np.angle(np.exp(1j * np.deg2rad(lit)).mean())) % 360
    assert abs((middle - apparent + 180) % 360 - 180) < 0.3
    assert abs((float(row.idxmax()) - apparent + 180) % 360 - 180) < 1.0


@pytest.mark.parametrize(
    ("day", "declination"),
    [("2015-06-21 16:38", 23.44), ("2015-12-22 04:48", -23.43), ("2015-09-23 08:20", 0.0)],
)
def test_the_sun_is_overhead_at_its_declination(day, declination):
    field = sun([pd.Timestamp(day)], shape=(1800, 720))[0].max("longitude")
    assert float(field.idxmax()) == pytest.approx(declination, abs=0.06)


@settings(max_examples=30, deadline=None)
@given(
    start=st.datetimes(pd.Timestamp("1950-01-01"), pd.Timestamp("2049-01-01")),
    shift=st.integers(0, 23),
)
def test_an_hour_later_is_fifteen_degrees_to_the_west(start, shift):
    times = pd.DatetimeIndex([start, pd.Timestamp(start) + pd.Timedelta(shift, "h")])
    field = sun(times, shape=(6, 24)).values
    # but for the change of the declination and of the equation of time in a day, 0.4 degrees
    np.testing.assert_allclose(field[1], np.roll(field[0], -shift, axis=-1), atol=12)
    assert (field >= 0).all()
    assert (field <= 1360.8 * 1.036).all()


# --- the calendar and the place -------------------------------------------------------------------


def test_hour_and_place_are_their_closed_forms():
    ds = add_inputs(
        at(pd.date_range("2015-01-01", periods=24, freq="h")),
        ["hour_sin", "hour_cos", "latitude_sin", "latitude_cos", "longitude_sin", "longitude_cos"],
    )
    point = {"latitude": 32.5, "longitude": 90.0}
    six = ds.isel(time=6).sel(point)  # noon there
    assert float(six["hour_cos"]) == pytest.approx(-1, abs=1e-6)
    assert float(six["hour_sin"]) == pytest.approx(0, abs=1e-6)
    assert float(ds["hour_sin"].isel(time=6).sel(longitude=0)[0]) == pytest.approx(1)
    np.testing.assert_allclose(ds["latitude_sin"].sel(point), np.sin(np.deg2rad(32.5)), rtol=1e-6)
    np.testing.assert_allclose(ds["latitude_cos"].sel(point), np.cos(np.deg2rad(32.5)), rtol=1e-6)
    np.testing.assert_allclose(ds["longitude_sin"].sel(point), 1, rtol=1e-6)
    for name in ("hour", "latitude", "longitude"):
        one = ds[f"{name}_sin"] ** 2 + ds[f"{name}_cos"] ** 2
        np.testing.assert_allclose(one, 1, rtol=1e-6)


def test_places_may_be_in_radians():
    ds = at(pd.date_range("2015-06-01", periods=2, freq="h"))
    theirs = ds.assign_coords(
        {d: (d, np.deg2rad(ds[d].values), {"units": "radian"}) for d in ("latitude", "longitude")}
    )
    names = ["toa_incident_solar_radiation", "hour_sin", "latitude_sin"]
    ours, got = add_inputs(ds, names), add_inputs(theirs, names)
    for name in names:
        np.testing.assert_allclose(got[name].values, ours[name].values, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day", "all_leap", "julian"])
def test_the_year_in_any_calendar(calendar):
    use = calendar != "standard"
    times = xr.date_range("2015-01-01", "2017-01-01", freq="12h", calendar=calendar, use_cftime=use)
    names = ["day_of_year_sin", "day_of_year_cos", SUN]
    ds = add_inputs(at(times, shape=(4, 6), calendar=calendar), names)
    angle = np.arctan2(ds["day_of_year_sin"], ds["day_of_year_cos"])[:, 0, 0] % (2 * np.pi)
    starts = [i for i, t in enumerate(times) if (t.month, t.day, t.hour) == (1, 1, 0)]
    assert len(starts) == 3
    np.testing.assert_allclose(ds["day_of_year_cos"][starts], 1, atol=1e-6)
    for a, b in ((starts[0], starts[1]), (starts[1], starts[2])):
        want = 2 * np.pi * np.arange(b - a) / (b - a)
        np.testing.assert_allclose(angle[a:b][1:], want[1:], atol=1e-5)
    june = [t.year == 2015 and t.month == 6 for t in times]
    summer = ds[SUN][june].mean(["time", "longitude"])
    assert float(summer[-1]) > 3 * float(summer[0])
    check(canonicalize(ds)[0])


# --- constants ------------------------------------------------------------------------------------


@pytest.fixture
def constants():
    ds = make_weather(1, shape=(4, 6), noise=0).isel(time=0, drop=True)
    lsm = ds["2m_temperature"].copy(data=np.arange(24.0).reshape(4, 6) / 24)
    lsm.attrs = {"units": "1", "long_name": "land"}
    return xr.Dataset({"lsm": lsm, "orography": (100 * lsm).assign_attrs(units="m")})


@pytest.mark.parametrize("form", ["path", "Dataset", "with times", "other order"])
def test_constants_of_any_form(constants, tmp_path, form):
    given_as = constants
    if form == "path":
        constants.rename(latitude="lat", longitude="lon").to_netcdf(tmp_path / "constants.nc")
        given_as = tmp_path / "constants.nc"
    elif form == "with times":
        given_as = constants.expand_dims(time=pd.date_range("1979", periods=2))
    elif form == "other order":
        given_as = constants.transpose("longitude", "latitude").isel(latitude=slice(None, None, -1))
        west = (given_as["longitude"] + 180) % 360 - 180
        given_as = given_as.assign_coords(longitude=west).sortby("longitude")
    ds = add_inputs(make_weather(5, shape=(4, 6)), ["lsm", "orography"], constants=given_as)
    assert list(ds.data_vars) == ["2m_temperature", "land_sea_mask", "orography"]
    np.testing.assert_array_equal(
        ds["land_sea_mask"], np.broadcast_to(constants["lsm"].astype("f4"), (5, 4, 6))
    )
    assert ds["orography"].attrs["units"] == "m"
    check(ds)


def test_the_callers_order_is_kept(constants):
    ours = make_weather(5, shape=(4, 6))
    names = ["lsm", SUN, "hour_cos"]
    theirs = relabel(ours, names={"latitude": "lat"}, north_first=True, west_negative=True)
    got = add_inputs(theirs, names, constants=constants)
    assert got["land_sea_mask"].dims == ("time", "lat", "longitude")
    canonical, _ = canonicalize(got)
    xr.testing.assert_allclose(
        canonical.drop_attrs(), add_inputs(ours, names, constants=constants).drop_attrs()
    )


# --- lazy, and through the library ----------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, 20])
def test_nothing_is_computed_until_it_is_read(constants, chunks, monkeypatch):
    names = [*computed._INPUTS, "lsm"]
    ds = make_weather(72, shape=(4, 6), chunks=chunks)
    calls = []
    read = computed._Computed._read
    monkeypatch.setattr(
        computed._Computed, "_read", lambda self, key: calls.append(key) or read(self, key)
    )
    got = add_inputs(ds, names, constants=constants)
    canonical, _ = canonicalize(got, names)
    assert not calls
    assert (canonical[SUN].chunks is not None) == (chunks is not None)
    if chunks:
        assert canonical[SUN].chunks[0] == (20, 20, 20, 12)
    whole = got[SUN].values
    for key in (
        {"time": 3},
        {"time": slice(30, 10, -3), "latitude": [2, 0]},
        {"time": [5, 5, 60], "longitude": -1},
        {"latitude": 1, "longitude": [4, 1]},
        {"time": slice(0, 0)},
    ):
        np.testing.assert_array_equal(
            got[SUN].isel(key), xr.Variable(got[SUN].dims, whole).isel(key)
        )
    again = pickle.loads(pickle.dumps(got))
    xr.testing.assert_equal(again, got)
    assert len({str(v.data.name) for v in got.values()}) == len(got) if chunks else True


def test_as_inputs_of_a_task(tmp_path):
    ds = open_weatherbench(write_weatherbench1(tmp_path), "t2m")
    fixed = tmp_path / "constants" / "constants_5.625deg.nc"
    task = Task(["t2m", SUN, "lsm", "hour_sin"], 2, 2, "1h", targets="t2m")
    canonical, _ = canonicalize(add_inputs(ds, task.variables[1:], constants=fixed), task.channels)
    assert list(canonical.data_vars) == list(task.channels)
    check(canonical)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not beside this checkout")
def test_the_genuine_constants():
    ds = open_weatherbench(SHARED)
    got = add_inputs(ds, ["lsm", "oro", SUN], constants=SHARED / "constants_5.625deg.nc")
    mask = got["land_sea_mask"].isel(time=100)
    assert 0.2 < float(mask.mean()) < 0.45
    assert float(mask.sel(latitude=50, longitude=90, method="nearest")) == 1
    assert float(got["orography"][0].sel(latitude=33, longitude=90, method="nearest")) > 3000
    # PlaSim's days are warm after the sun was high: in the tropics most of all land follows it.
    assert got[SUN].chunks == got["2m_temperature"].chunks


BAD = {
    "unknown name -> what there is": (
        lambda ds, c: add_inputs(ds, "moon"),
        "'moon' cannot be computed, expected toa_incident_solar_radiation, day_of_year_sin",
    ),
    "constants not given -> where they come from": (
        lambda ds, c: add_inputs(ds, "lsm"),
        "'lsm' cannot be computed.* from constants=",
    ),
    "not among the constants -> what is": (
        lambda ds, c: add_inputs(ds, "soil_type", constants=c),
        "constants: no variable 'soil_type' in it; found lsm, orography",
    ),
    "constants on another grid -> both grids": (
        lambda ds, c: add_inputs(ds, "lsm", constants=c.isel(latitude=slice(1, None))),
        "'lsm' .*different grids: latitude has 3 points .* and 4 points",
    ),
    "constants on shifted longitudes -> both grids": (
        lambda ds, c: add_inputs(
            ds, "lsm", constants=c.assign_coords(longitude=c["longitude"] + 2)
        ),
        "'lsm' .*different grids: longitude has 6 points from 2 to 302",
    ),
    "constants on several levels -> the gate's words": (
        lambda ds, c: add_inputs(ds, "lsm", constants=c.expand_dims(member=[1, 2])),
        "constants: 'lsm' has an extra dimension 'member'",
    ),
    "constants that are not there -> named": (
        lambda ds, c: add_inputs(ds, "lsm", constants="nowhere.nc"),
        "nowhere.nc: no such file",
    ),
    "in the data already -> named": (
        lambda ds, c: add_inputs(add_inputs(ds, SUN), SUN),
        f"'{SUN}' is in the Dataset already",
    ),
    "twice -> named": (lambda ds, c: add_inputs(ds, ["hour_sin"] * 2), "'hour_sin' is in the"),
    "no latitude -> what is missing": (
        lambda ds, c: add_inputs(ds.isel(latitude=0, drop=True), SUN),
        "expected one dimension of latitude, found 0",
    ),
    "no times -> what is missing": (
        lambda ds, c: add_inputs(ds.drop_vars("time"), SUN),
        "need coordinates",
    ),
    "a forecast -> a history": (
        lambda ds, c: add_inputs(make_forecast(ds), SUN),
        "takes a history",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests(constants, case):
    run, message = BAD[case]
    with pytest.raises(InputError, match=message):
        run(make_weather(12, shape=(4, 6)), constants)
