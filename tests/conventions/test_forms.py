"""The forms in which others hand over histories and forecasts."""

import logging
import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.baselines import Climatology, LinearRegression, Persistence
from stforecast.baselines.weekly import WeeklyClimatology
from stforecast.conventions import canonicalize, restore
from stforecast.errors import InputError
from stforecast.evaluation import evaluate
from stforecast.loading.source import Source
from stforecast.task import Task
from stforecast.testing.weather import make_forecast, make_weather

NAME = "2m_temperature"
LEAD = "prediction_timedelta"
TASK = Task("t2m", 4, 2)
INIT = {"standard_name": "forecast_reference_time"}
PERIOD = {"standard_name": "forecast_period"}
HOURS = {"units": "hours", **PERIOD}


@pytest.fixture
def weather() -> xr.Dataset:
    return make_weather(12, shape=(4, 6))


@pytest.fixture
def forecast(weather) -> xr.Dataset:
    """Another field for every initialisation and lead time, so that none is taken for another."""
    out = make_forecast(weather, inits=6, steps=3)
    further = np.arange(6, dtype="f4")[:, None, None, None] / 10
    return out.copy(data={NAME: out[NAME].values + further})


def hours(n, attrs=HOURS):
    return np.arange(1.0, n + 1), attrs


# --- by valid time --------------------------------------------------------------------------------


def by_valid_time(forecast, join="inner"):
    """The same forecast on valid times: those that all lead times have, or all there are."""
    parts = []
    for lead in forecast[LEAD].values:
        one = forecast.sel({LEAD: lead}).drop_vars("valid_time")
        parts.append(one.assign_coords(time=one["time"] + lead))
    out = xr.concat(parts, LEAD, join=join).transpose("time", LEAD, ...)
    return out.assign_coords(time=("time", out["time"].values, {"standard_name": "time"}))


def with_init(ds, name="init_time", attrs=INIT, dims=("time", LEAD)):
    init = (ds["time"] - ds[LEAD]).transpose(*dims)
    return ds.assign_coords({name: (dims, init.values, attrs)})


BY_VALID_TIME = {
    "standard name": with_init,
    "any name": lambda ds: with_init(ds, "of_run"),
    "a name only": lambda ds: with_init(ds, "initialization_time", {}),
    "nothing but its values": lambda ds: with_init(ds, "x", {}),
    "the other way round": lambda ds: with_init(ds, dims=(LEAD, "time")),
    "called valid_time": lambda ds: with_init(ds).rename(time="valid_time"),
    "as CF has it": lambda ds: (
        with_init(ds, "forecast_reference_time")
        .assign_coords({LEAD: (LEAD, *hours(3))})
        .rename({LEAD: "forecast_period"})
    ),
    "dask": lambda ds: with_init(ds).chunk(time=2),
    "a member of size 1": lambda ds: with_init(ds.expand_dims("number")),
}


@pytest.mark.parametrize("case", BY_VALID_TIME)
def test_a_forecast_by_its_valid_times(forecast, weather, case, caplog):
    theirs = BY_VALID_TIME[case](by_valid_time(forecast))
    got, labels = canonicalize(theirs)
    assert "4 of its 12 fields belong to others" not in caplog.text  # nothing but what is true
    assert "left out" in caplog.text
    # Of four valid times, two initialisations have all three lead times.
    want = forecast.isel(time=slice(2, 4))
    xr.testing.assert_allclose(got[NAME].drop_attrs(), want[NAME].drop_attrs(), rtol=0, atol=0)
    xr.testing.assert_equal(got["valid_time"], want["valid_time"])
    assert (got[NAME].chunks is None) == (case != "dask")
    back = restore(got, pickle.loads(pickle.dumps(labels)))
    xr.testing.assert_equal(canonicalize(back)[0], got)
    assert back["time"].attrs == INIT
    assert evaluate(theirs, weather).drop_attrs().equals(evaluate(want, weather).drop_attrs())
    with pytest.raises(InputError, match=r"needs a history .* found a forecast"):
        Persistence(Task("t2m", 2, 1)).predict(theirs)


def test_by_valid_time_without_a_whole_initialisation(forecast):
    theirs = with_init(by_valid_time(forecast).isel(time=slice(None, None, 3)))
    with pytest.raises(InputError, match=r"no initialisation has all of its lead times"):
        canonicalize(theirs)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda ds: with_init(ds).pipe(
                lambda f: f.assign_coords(init_time=f["init_time"] + np.timedelta64(1, "D"))
            ),
            "'init_time' is called an initialisation, and is neither",
        ),
        (
            lambda ds: ds.assign_coords(
                time=("time", ds["time"].values, {"long_name": "valid time"})
            ),
            r"'valid time', expected initialisations.*assign_coords\(init_time=",
        ),
        (
            lambda ds: with_init(ds).isel(time=0),
            "along the lead times 'prediction_timedelta' the initialisation 'init_time' changes",
        ),
    ],
)
def test_valid_times_that_cannot_be_told(forecast, spoil, words):
    with pytest.raises(InputError, match=words):
        canonicalize(spoil(by_valid_time(forecast)))


def test_what_the_error_advises_works(forecast, weather):
    theirs = by_valid_time(forecast)
    theirs["time"].attrs["long_name"] = "valid time"
    said = theirs.assign_coords(init_time=theirs["time"] - theirs[LEAD])
    want = evaluate(forecast.isel(time=slice(2, 4)), weather)
    assert evaluate(said, weather).drop_attrs().equals(want.drop_attrs())


def test_an_initialisation_beside_the_initialisations_changes_nothing(forecast):
    theirs = forecast.assign_coords(run=("time", forecast["time"].values, INIT))
    same = xr.broadcast(forecast["time"], forecast[LEAD])[0]
    theirs = theirs.assign_coords(init_time=same.drop_vars("valid_time", errors="ignore"))
    xr.testing.assert_equal(canonicalize(theirs)[0], forecast)


def test_valid_times_called_time_are_checked(forecast):
    theirs = forecast.rename(time="forecast_reference_time", valid_time="time")
    xr.testing.assert_equal(canonicalize(theirs)[0], forecast)
    wrong = theirs.assign_coords(time=theirs["time"] + np.timedelta64(1, "h"))
    with pytest.raises(InputError, match=r"'time' is not time . lead time"):
        canonicalize(wrong)


# --- names and units of leads ---------------------------------------------------------------------


@pytest.mark.parametrize("init", ["time", "init", "initialization_time", "reference_time"])
@pytest.mark.parametrize(
    ("lead", "values", "attrs"),
    [
        *((name, [1, 2, 3], {"units": "hours"}) for name in ("lead", "step", "lead_time", "any")),
        ("leadtime", np.array([1, 2, 3], "i2"), {"units": "hr"}),
        ("fhour", [1, 2, 3], {}),
        ("forecast_hour", [1.0, 2, 3], {}),
        ("lead", [1 / 24, 2 / 24, 3 / 24], {"units": "days"}),
        ("lead", [60, 120, 180], {"units": "minutes"}),
        ("lead", np.array([1, 2, 3], "m8[h]"), {}),
    ],
)
def test_leads_by_any_name_and_unit(forecast, init, lead, values, attrs):
    attrs = attrs | (PERIOD if lead == "any" else {})
    theirs = forecast.drop_vars("valid_time").rename({LEAD: lead})
    theirs = theirs if init == "time" else theirs.rename(time=init)
    theirs = theirs.assign_coords({lead: (lead, values, attrs)})
    got, labels = canonicalize(theirs)
    xr.testing.assert_equal(got, forecast)
    xr.testing.assert_identical(restore(got, labels), theirs)
    one = canonicalize(theirs.isel({init: [2], lead: [1]}))[0]
    xr.testing.assert_equal(one, forecast.isel({"time": [2], LEAD: [1]}))


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"units": "months"}, r"'months'.*one length.*30, 'D'"),
        ({"units": "M"}, "'M'.*one length"),
        ({"units": "years"}, "'years'.*one length"),
        ({}, r"pd\.to_timedelta\(ds\['lead'\]"),
    ],
)
def test_leads_without_a_length(forecast, attrs, words):
    theirs = forecast.drop_vars("valid_time").rename({LEAD: "lead"})
    with pytest.raises(InputError, match=words):
        canonicalize(theirs.assign_coords(lead=("lead", [1, 2, 3], attrs)))


# --- one run, one lead time -----------------------------------------------------------------------


def one_run(forecast, dim="time", init="forecast_reference_time", period="forecast_period"):
    """The third initialisation as CF and Iris write it: on its valid times."""
    one = forecast.isel(time=2, drop=True)
    valid = one["valid_time"].values
    one = one.drop_vars("valid_time").rename({LEAD: dim}).assign_coords({dim: valid})
    if init:
        one = one.assign_coords({init: ((), forecast["time"].values[2], INIT)})
    return one.assign_coords({period: (dim, *hours(len(valid)))}) if period else one


ONE_RUN = {
    "CF": one_run,
    "no lead times": lambda f: one_run(f, period=None),
    "no initialisation": lambda f: one_run(f, init=None),
    "by name": lambda f: one_run(f, init="init_time", period=None).drop_attrs(),
    "valid_time": lambda f: one_run(f, "valid_time", "time", "step"),
    "initialisation of size 1": lambda f: one_run(f).expand_dims("forecast_reference_time"),
    "by standard names": lambda f: one_run(f, init="of_run", period="since"),
    "on lead times": lambda f: (
        one_run(f, init=None)
        .swap_dims(time="forecast_period")
        .reset_coords(drop=False)
        .set_coords("time")
    ),
    "time since the start": lambda f: (
        one_run(f, "time", None, None)
        .rename_vars(time="datetime")
        .drop_indexes("datetime")
        .assign_coords(time=f[LEAD].values)
    ),
    "initialisation at all times": lambda f: one_run(f, period=None, init=None).assign_coords(
        forecast_reference_time=("time", f["time"].values[[2, 2, 2]], INIT)
    ),
    "dates among the variables": lambda f: one_run(f).reset_coords(
        ["forecast_reference_time", "forecast_period"]
    ),
    "rounded": lambda f: one_run(f).assign_coords(
        time=one_run(f)["time"] - np.timedelta64(3, "us").astype("m8[ns]")
    ),
}


@pytest.mark.parametrize("case", ONE_RUN)
def test_one_run_on_its_valid_times(forecast, weather, case):
    theirs = ONE_RUN[case](forecast)
    want = forecast.isel(time=[2])
    got, labels = canonicalize(theirs, form="forecast")
    xr.testing.assert_equal(got, want)
    xr.testing.assert_equal(canonicalize(restore(got, labels))[0], want)
    assert evaluate(theirs, weather).drop_attrs().equals(evaluate(want, weather).drop_attrs())


def test_initialisations_among_the_variables_tell_valid_times(forecast, weather):
    theirs = by_valid_time(forecast)
    init = (theirs["time"] - theirs[LEAD]).transpose("time", LEAD)
    theirs = theirs.assign(start=init.drop_attrs().assign_attrs(INIT))
    got, _ = canonicalize(theirs, form="forecast")
    want = forecast.sel(time=got["time"])
    np.testing.assert_array_equal(got[NAME].values, want[NAME].values)
    with pytest.raises(InputError, match="no variable but dates"):
        canonicalize(theirs[["start"]])


@pytest.mark.parametrize("case", ["CF", "no lead times", "no initialisation", "valid_time"])
def test_one_run_is_a_history_where_one_is_needed(forecast, case):
    theirs = ONE_RUN[case](forecast)
    got = canonicalize(theirs, form="history")[0]
    np.testing.assert_array_equal(got["time"].values, forecast["valid_time"].values[2])
    made = Persistence(Task("t2m", 2, 1)).predict(theirs)
    assert made["time"].values[0] == forecast["valid_time"].values[2, -1]


def test_several_runs_on_one_axis_are_refused(forecast, weather):
    theirs = one_run(forecast)
    theirs["forecast_period"] = theirs["forecast_period"].copy(data=[1.0, 1.0, 2.0])
    with pytest.raises(InputError, match="belong to several initialisations"):
        evaluate(theirs, weather)
    with pytest.raises(InputError, match=r"a forecast has the dimensions .* nothing that tells"):
        evaluate(one_run(forecast, init=None, period=None), weather)


def one_lead(forecast, init, period, dim="time", attrs=None):
    """The second lead time of all runs, on valid times."""
    one = forecast.isel({LEAD: 1}, drop=True)
    valid, runs = one["valid_time"].values, one["time"].values
    one = one.drop_vars(["valid_time", "time"]).rename({} if dim == "time" else {"time": dim})
    one = one.assign_coords({dim: (dim, valid, attrs or {}), "period": period})
    return one.assign_coords({init: (dim, runs, INIT)}) if init else one


@pytest.mark.parametrize(
    "period", [np.timedelta64(2, "h").astype("m8[ns]"), xr.Variable((), 2.0, HOURS)]
)
@pytest.mark.parametrize(
    ("init", "dim", "attrs"),
    [
        ("forecast_reference_time", "time", {"standard_name": "time"}),
        ("run", "time", {}),
        (None, "time", {"long_name": "valid time"}),
        (None, "valid_time", {}),
        ("time", "valid_time", {}),
    ],
)
@pytest.mark.parametrize("size_1", [False, True])
def test_one_lead_time_on_valid_times(forecast, weather, period, init, dim, attrs, size_1):
    name = "step" if not isinstance(period, xr.Variable) else "forecast_period"
    theirs = one_lead(forecast, init, period, dim, attrs).rename(period=name)
    theirs = theirs.expand_dims(name) if size_1 else theirs
    want = forecast.isel({LEAD: [1]})
    xr.testing.assert_equal(canonicalize(theirs, form="forecast")[0], want)
    assert evaluate(theirs, weather).drop_attrs().equals(evaluate(want, weather).drop_attrs())
    history = canonicalize(theirs, form="history")[0]
    np.testing.assert_array_equal(history["time"].values, want["valid_time"].values[:, 0])


# --- a history where one is needed ----------------------------------------------------------------


@pytest.mark.parametrize(
    "door",
    [
        lambda ds: Persistence(TASK).predict(ds),
        lambda ds: Source(ds, TASK),
        lambda ds: Climatology.fit(ds, TASK),
        lambda ds: WeeklyClimatology.fit(ds, TASK),
        lambda ds: LinearRegression.fit(ds, TASK),
        lambda ds: evaluate(ds, ds),
    ],
)
@pytest.mark.parametrize(
    "form", [lambda f: f, lambda f: f.isel({LEAD: 0}), lambda f: with_init(by_valid_time(f))]
)
def test_a_forecast_is_no_history(forecast, door, form):
    with pytest.raises(InputError, match=r"needs a history .* found a forecast"):
        door(form(forecast))


# --- trees and streams ----------------------------------------------------------------------------


def test_the_one_node_of_a_tree(weather, forecast):
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"a": 1}), "/surface": weather})
    xr.testing.assert_identical(canonicalize(tree)[0], canonicalize(weather)[0])
    assert Persistence(TASK).predict(tree).sizes["time"] == 1
    assert evaluate(xr.DataTree(forecast), tree).equals(evaluate(forecast, weather))
    several = xr.DataTree.from_dict({"/a": weather, "/b/c": weather})
    with pytest.raises(InputError, match=r"2 nodes .*'/a', '/b/c'.*tree\['/a'\]\.to_dataset\(\)"):
        canonicalize(several)
    with pytest.raises(InputError, match="empty"):
        canonicalize(xr.DataTree())


def streams(weather, numbers, late=5):
    preliminary = xr.DataArray(np.arange(weather.sizes["time"]) >= late, dims="time")
    parts = {1: weather.where(~preliminary), 5: (weather + 1).where(preliminary)}
    both = [parts[int(n)] for n in numbers]
    return xr.concat(both, xr.DataArray(numbers, dims="expver", name="expver"))


@pytest.mark.parametrize("numbers", [[1, 5], [5, 1], ["0001", "0005"]])
@pytest.mark.parametrize("chunks", [None, {"time": 4}])
def test_the_two_streams_of_era5(weather, numbers, chunks, caplog):
    theirs = streams(weather, numbers).transpose("time", "expver", ...)
    theirs = theirs if chunks is None else theirs.chunk(chunks)
    with caplog.at_level(logging.INFO, "stforecast.conventions"):
        got, _ = canonicalize(theirs)
    assert "ERA5 and ERA5T" in caplog.text
    assert (got[NAME].chunks is None) == (chunks is None)
    want = weather[NAME].values + (np.arange(12) >= 5)[:, None, None]
    np.testing.assert_array_equal(got[NAME].values, want)
    assert "expver" not in Persistence(TASK).predict(theirs).coords


def test_streams_of_packed_numbers_are_decoded(weather, tmp_path):
    packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 273.0, "_FillValue": -32767}
    streams(weather, [1, 5]).to_netcdf(tmp_path / "a.nc", encoding={NAME: packing})
    with xr.open_dataset(tmp_path / "a.nc", mask_and_scale=False) as theirs:
        got, _ = canonicalize(theirs)
        want = weather[NAME].values + (np.arange(12) >= 5)[:, None, None]
        np.testing.assert_allclose(got[NAME].values, want, atol=0.0051)


def test_where_both_streams_have_values_the_final_one_wins(weather):
    both = xr.concat([weather + 1, weather], pd.Index([5, 1], name="expver"))
    np.testing.assert_array_equal(canonicalize(both)[0][NAME].values, weather[NAME].values)


def test_other_streams_are_refused(weather):
    both = xr.concat([weather, weather], pd.Index([1, 7], name="expver"))
    with pytest.raises(InputError, match=r"'expver' of size 2 holds the streams \[1, 7\]"):
        canonicalize(both)
    one = weather.expand_dims(expver=[1])
    xr.testing.assert_identical(restore(*canonicalize(one)), one)


def test_members_are_named_as_such(weather):
    with pytest.raises(InputError, match=r"ds\.sel\(number=1\), or take the mean.*ds\.mean"):
        canonicalize(weather.expand_dims(number=[1, 2]))
