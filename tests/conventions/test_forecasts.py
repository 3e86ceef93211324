"""Forecasts of any form at the gate: initialisations, lead and valid times."""

import numpy as np
import pytest
import xarray as xr
from helpers import round_trip

from stforecast.conventions.gate import canonicalize, canonicalize_along, restore
from stforecast.conventions.lazy import one_along
from stforecast.errors import InputError
from stforecast.testing.weather import relabel

NAME = "2m_temperature"
HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


def test_coordinates_say_what_they_are(weather, forecast):
    """CF's standard names, by which other software knows them."""
    ours = canonicalize(weather.drop_attrs().assign({NAME: weather[NAME]}))[0]
    told = {
        "time": {"standard_name": "time", "long_name": "time"},
        "latitude": {
            "standard_name": "latitude",
            "long_name": "latitude",
            "units": "degrees_north",
        },
        "longitude": {
            "standard_name": "longitude",
            "long_name": "longitude",
            "units": "degrees_east",
        },
    }
    assert {name: ours[name].attrs for name in ours.coords} == told
    ours = canonicalize(forecast.drop_attrs())[0]
    of_forecast = {
        "time": {"standard_name": "forecast_reference_time", "long_name": "initialisation time"},
        "prediction_timedelta": {"standard_name": "forecast_period", "long_name": "lead time"},
        "valid_time": {"standard_name": "time", "long_name": "valid time"},
    }
    assert {name: ours[name].attrs for name in ours.coords} == told | of_forecast


@pytest.mark.parametrize("name", ["valid_time", "v"])
def test_valid_times_are_known_by_name_or_standard_name(forecast, name):
    bare = forecast.drop_attrs().rename(valid_time=name)
    bare[NAME].attrs = forecast[NAME].attrs
    if name == "v":
        bare["v"].attrs = {"standard_name": "time"}
    xr.testing.assert_identical(round_trip(bare), bare)
    late = bare[name].copy(data=bare[name].values + np.timedelta64(1, "D"))
    with pytest.raises(InputError, match=f"'{name}' is not time . lead time at 12 places"):
        canonicalize(bare.assign_coords({name: late}))


def test_coordinates_of_one_dimension_that_counts_come_back(weather):
    ds = weather.expand_dims(number=[3], axis=1)
    ds = ds.assign_coords(run=(("number", "time"), [list("abcdefg")]))
    xr.testing.assert_identical(round_trip(ds), ds)


def test_forecasts_of_others(forecast):
    theirs = forecast.rename(prediction_timedelta="lead_time", longitude="lon", time="init_time")
    theirs = theirs.transpose("lon", "lead_time", "latitude", "init_time")
    xr.testing.assert_identical(round_trip(theirs), theirs)
    without = theirs.drop_vars("valid_time")
    got, _ = canonicalize(without)
    xr.testing.assert_equal(got["valid_time"], forecast["valid_time"])
    xr.testing.assert_identical(round_trip(without), without)


def test_hours_as_lead_time(forecast):
    hours = forecast.assign_coords(
        prediction_timedelta=("prediction_timedelta", [1, 2, 3], {"units": "hours"})
    )
    got, labels = canonicalize(hours)
    xr.testing.assert_equal(got, forecast)
    xr.testing.assert_identical(restore(got, labels), hours)
    part = restore(got.isel(prediction_timedelta=[2]), labels)
    assert part["prediction_timedelta"].values.tolist() == [3]


def test_one_lead_or_one_initialisation(forecast):
    for pick in ({"prediction_timedelta": 1}, {"time": 2}, {"time": 2, "prediction_timedelta": 1}):
        one = forecast.isel(pick)
        got, _ = canonicalize(one)
        want = forecast.isel({k: [v] for k, v in pick.items()})
        xr.testing.assert_equal(got, want)
        xr.testing.assert_identical(round_trip(one), one)


def test_valid_times_with_a_lead_time_are_a_history(weather):
    history = weather.rename(time="valid_time").assign_coords(step=np.timedelta64(6, "h"))
    got, _ = canonicalize(history)
    assert got[NAME].dims == ("time", "latitude", "longitude")
    xr.testing.assert_identical(round_trip(history), history)
    one = history.expand_dims("step")
    xr.testing.assert_equal(canonicalize(one)[0], got)
    xr.testing.assert_identical(round_trip(one), one)
    two = xr.concat([one, one.assign_coords(step=one["step"] * 2)], "step")
    with pytest.raises(InputError, match="beside the lead times 'step' are called 'valid_time'"):
        canonicalize(two)


def test_a_bad_forecast_is_not_taken_for_other_units(forecast):
    far_off = forecast.copy(data={NAME: forecast[NAME].values * 100})
    xr.testing.assert_identical(canonicalize(far_off)[0][NAME].variable, far_off[NAME].variable)


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds,
        lambda ds: ds.chunk(time=1, realization=2),
        lambda ds: relabel(ds, north_first=True, west_negative=True, units="degC", packed=True),
        lambda ds: relabel(ds, order=["longitude", "realization", ...], units="degC"),
        lambda ds: relabel(ds, names={"time": "init", NAME: "t2m"}, dtype="float64").chunk(init=2),
        lambda ds: ds.assign(still=ds[NAME].isel(realization=0)).chunk(longitude=5),
        # Of another form: one lead time of many runs, lead times of one run.
        lambda ds: ds.isel(prediction_timedelta=[1]),
        lambda ds: ds.isel(prediction_timedelta=1),
        lambda ds: ds.isel(time=1),
        lambda ds: ds.isel(time=1).drop_vars("valid_time"),
    ],
)
def test_members_are_what_each_is_alone(forecast, change):
    noise = np.random.default_rng(0).normal(size=(5, 1, 1, 1, 1)).astype("f4")
    ensemble = xr.concat([forecast + float(n) for n in noise.flat], "realization", join="exact")
    ensemble[NAME].attrs = forecast[NAME].attrs
    ensemble = change(ensemble)
    members = canonicalize_along(ensemble, "realization", "forecast")
    assert len(members) == 5
    for i, (ours, labels) in enumerate(members):
        alone = one_along(ensemble, "realization", i)
        wanted, same = canonicalize(alone, form="forecast")
        assert ours.chunksizes == wanted.chunksizes
        xr.testing.assert_identical(ours.compute(), wanted.compute())
        assert labels.dims == same.dims
        xr.testing.assert_identical(restore(ours, labels), restore(wanted, same))
