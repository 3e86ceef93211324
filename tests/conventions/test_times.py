"""Times however they are written: rounded, with a zone, without a date, beyond the year 2262."""

import datetime
import logging

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.baselines import Persistence
from stforecast.conventions import canonicalize, restore, time_step, valid_times
from stforecast.conventions.axes import lead_times
from stforecast.conventions.times import (
    as_labels,
    canonical_times,
    is_cftime,
    is_dates,
    without_rounding,
)
from stforecast.datasets import select_period, split
from stforecast.errors import InputError
from stforecast.evaluation import evaluate
from stforecast.task import Task
from stforecast.testing.weather import make_forecast, make_weather

NAME = "2m_temperature"
TASK = Task("t2m", 4, 2)
ONE = np.timedelta64(1, "h")


@pytest.fixture
def weather() -> xr.Dataset:
    return make_weather(24, shape=(4, 6), time="2018-01-01")


def canonical_times_of(ds):
    return canonicalize(ds)[0]["time"].values


# --- rounding -------------------------------------------------------------------------------------


def days_since_year_1(ds):
    """What GrADS writes: days in floating point, decoded as xarray does."""
    days = (ds["time"].values - np.datetime64("2018-01-01")) / np.timedelta64(1, "D") + 736696
    return xr.decode_cf(
        ds.assign_coords(time=("time", days, {"units": "days since 0001-01-01 00:00"}))
    )


def off(ds, seconds, every=1):
    shift = np.zeros(ds.sizes["time"], "m8[ns]")
    shift[::every] = np.timedelta64(round(seconds * 1e9), "ns")
    return ds.assign_coords(time=ds["time"].values.astype("M8[ns]") + shift)


def float32_days(ds):
    days = ((ds["time"].values - ds["time"].values[0]) / np.timedelta64(1, "D")).astype("f4")
    units = {"units": "days since 2018-01-01"}
    return xr.decode_cf(ds.assign_coords(time=("time", days, units)))


def noleap(ds):
    ds = ds.convert_calendar("noleap", use_cftime=True)
    late = [t + datetime.timedelta(microseconds=-3 * (i % 2)) for i, t in enumerate(ds.time.values)]
    return ds.assign_coords(time=("time", np.array(late)))


ROUNDED = {
    "days since the year 1": days_since_year_1,
    "days in float32": float32_days,
    "a millisecond early": lambda ds: off(ds, -1e-3, every=2),
    "a tenth of a second late": lambda ds: off(ds, 0.1, every=2),
    "microseconds late": lambda ds: off(ds, 3e-6, every=3),
    "another calendar": noleap,
}


@pytest.mark.parametrize("case", ROUNDED)
def test_rounded_times_are_put_right_and_come_back_as_they_came(weather, case, caplog):
    theirs = ROUNDED[case](weather)
    whole = noleap(weather).time.dt.round("h") if case == "another calendar" else weather["time"]
    assert not np.array_equal(theirs["time"].values, whole.values)  # the case is one
    with caplog.at_level(logging.INFO, "stforecast.conventions"):
        ours, labels = canonicalize(theirs)
    assert "rounded" in caplog.text
    np.testing.assert_array_equal(ours["time"].values, whole.values)
    np.testing.assert_array_equal(restore(ours, labels)["time"].values, theirs["time"].values)
    part = restore(ours.isel(time=[3, 1]), labels)
    np.testing.assert_array_equal(part["time"].values, theirs["time"].values[[3, 1]])
    forecast = Persistence(TASK).predict(theirs)
    assert forecast["time"].values[0] == whole.values[-1]
    # Asked for by the labels that the caller sees, one by one and from one to another.
    for wanted in (theirs["time"].values[5:9], slice(*theirs["time"].values[[5, 8]])):
        some = Persistence(TASK).predict(theirs, init_time=wanted)
        np.testing.assert_array_equal(some["time"].values, whole.values[5:9])
    scores = evaluate(some, theirs)
    np.testing.assert_allclose(scores[NAME], evaluate(some, ours)[NAME])


@pytest.mark.parametrize(
    ("step", "seconds"),
    [("1h", 2.0), ("1s", 0.002), ("1D", 0.6), ("40ms", 0.0001), ("6h", -1.0)],
)
def test_what_is_no_rounding_stays(step, seconds):
    theirs = off(make_weather(8, shape=(4, 6), timestep=step), seconds)
    np.testing.assert_array_equal(canonical_times_of(theirs), theirs["time"].values)


@pytest.mark.parametrize("step", ["33333333ns", "40ms", "1s", "30min", "1h", "1D"])
def test_exact_times_stay(step):
    theirs = make_weather(50, shape=(4, 6), timestep=step)
    np.testing.assert_array_equal(canonical_times_of(theirs), theirs["time"].values)


@pytest.mark.parametrize(
    ("step", "right"),
    # A thousandth of the step, half a second, a hundredth of the unit that is whole.
    [("1h", 0.5), ("1min", 0.06), ("100s", 0.01), ("40ms", 1e-5), ("one time", 0.01)],
)
@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_the_most_that_is_rounding(step, right, calendar):
    n, freq = (1, "1s") if step == "one time" else (5, step)
    if calendar == "standard":
        whole = pd.date_range("2001-03-01T12", periods=n, freq=freq).to_numpy("M8[ns]")
    else:
        every = pd.Timedelta(freq).to_pytimedelta()
        whole = np.array([cftime.DatetimeNoLeap(2001, 3, 1, 12) + i * every for i in range(n)])
    for part, expected in ((0.9, True), (1.1, False)):
        shift = pd.Timedelta(right * part, "s")
        numpys = calendar == "standard"
        late = whole + (shift.to_timedelta64() if numpys else shift.to_pytimedelta())
        found = without_rounding("time", late)
        np.testing.assert_array_equal(found, whole if expected else late)
        assert found.dtype == whole.dtype


def test_labels_are_those_of_the_axis_but_for_rounding():
    index = pd.date_range("2001-01-01", periods=24, freq="1h")
    near, off = (index[5] + pd.Timedelta(v, "s") for v in (0.49, 0.51))
    assert as_labels(index, near.to_numpy()) == index[5]
    assert as_labels(index, off.to_numpy()) == off
    both = as_labels(index, np.array([near, off], dtype="M8[us]"))
    assert pd.DatetimeIndex(both).tolist() == [index[5], off]
    zoned = index[3].tz_localize("UTC").tz_convert("Asia/Tokyo")
    assert pd.DatetimeIndex(as_labels(index, [zoned])).tolist() == [index[3]]
    part = as_labels(index, slice(near.to_numpy(), None, 2))
    assert (part.start, part.stop, part.step) == (index[5], None, 2)
    for other in ("2001-01-01", None, 3, ["2001", "2002"]):
        assert as_labels(index, other) is other
    assert as_labels(index[:1], index[:1] + pd.Timedelta("9ms")) == index[:1]
    assert as_labels(index[:1], index[:1] + pd.Timedelta("11ms")) != index[:1]


def test_years_of_nanoseconds_are_dates_of_numpy():
    for year, kind in ((1677, "O"), (1678, "M"), (2261, "M"), (2262, "O")):
        times = [cftime.DatetimeGregorian(y, 6, 1) for y in (year, 2000)]
        assert canonical_times("time", np.array(times)).dtype.kind == kind, year


def test_times_that_are_far_off_are_refused_with_what_to_do(weather):
    uneven = off(weather, 3, every=2)
    with pytest.raises(InputError, match=r"step of 1h.*dt\.round"):
        Persistence(TASK).predict(uneven)


def test_rounded_lead_times():
    forecast = make_forecast(make_weather(12, shape=(4, 6)))
    days = np.array([1, 2, 3]) / 24
    theirs = forecast.assign_coords(
        prediction_timedelta=("prediction_timedelta", days.astype("f4"), {"units": "days"})
    )
    ours, labels = canonicalize(theirs)
    xr.testing.assert_equal(ours, forecast)
    xr.testing.assert_identical(restore(ours, labels), theirs)


# --- zones and texts ------------------------------------------------------------------------------


def python_dates(index):
    return xr.Variable("time", np.array([t.to_pydatetime() for t in index], dtype=object))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome", "Asia/Kolkata"])
@pytest.mark.parametrize("form", [lambda index: index, python_dates])
def test_times_with_a_zone_are_taken_as_utc(weather, zone, form):
    index = pd.DatetimeIndex(weather["time"].values).tz_localize("UTC").tz_convert(zone)
    theirs = weather.assign_coords(time=form(index))
    ours, labels = canonicalize(theirs)
    np.testing.assert_array_equal(ours["time"].values, weather["time"].values)
    back = restore(ours, labels)
    assert back["time"].to_index().equals(theirs["time"].to_index())
    forecast = Persistence(TASK).predict(theirs, init_time=index[6])
    assert forecast["time"].values[0] == weather["time"].values[6]
    assert evaluate(forecast, theirs).equals(evaluate(forecast, weather))


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (lambda t: [pd.Timestamp(v).isoformat() for v in t], ["pd.to_datetime(ds['time'])"]),
        (
            lambda t: [pd.Timestamp(v).tz_localize("UTC" if i else None) for i, v in enumerate(t)],
            ["time zone at 23 of 24", "utc=True"],
        ),
        (
            lambda t: [
                (cftime.DatetimeNoLeap if i % 2 else cftime.Datetime360Day)(2001, 1, 1 + i)
                for i in range(len(t))
            ],
            ["several calendars", "360_day, noleap", "convert_calendar"],
        ),
        (lambda t: np.arange(len(t)), ["int64", "decode_cf"]),
    ],
)
def test_what_is_no_time(weather, times, words):
    values = times(weather["time"].values)
    kind = object if not isinstance(values[0], (str, np.integer)) else None
    theirs = weather.assign_coords(time=xr.Variable("time", np.array(values, dtype=kind)))
    with pytest.raises(InputError) as error:
        canonicalize(theirs)
    assert all(word in str(error.value) for word in words), str(error.value)


# --- time since a start ---------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [False, True])
def test_dates_beside_the_time_since_a_start(weather, batch):
    """GraphCast's layout."""
    since = (weather["time"] - weather["time"][0]).values
    dates = weather["time"].values
    theirs = weather.drop_vars("time").assign_coords(time=since, datetime=("time", dates))
    if batch:
        theirs = theirs.expand_dims("batch", axis=0)
        theirs = theirs.drop_vars("datetime").assign_coords(
            datetime=(("batch", "time"), dates[None])
        )
    ours, labels = canonicalize(theirs)
    xr.testing.assert_equal(ours, weather)
    xr.testing.assert_identical(restore(ours, labels), theirs)
    assert Persistence(TASK).predict(theirs)["time"].values[0] == dates[-1]


def test_without_dates_the_time_since_a_start_is_refused(weather):
    theirs = weather.assign_coords(time=(weather["time"] - weather["time"][0]).values)
    with pytest.raises(InputError, match=r"'time' holds timedelta64.*assign_coords\(time=start"):
        Persistence(TASK).predict(theirs)


# --- beyond datetime64[ns] ------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("start", ["3000-01-01", "1200-03-01", "2261-12-31T12"])
def test_years_that_nanoseconds_do_not_hold(unit, start):
    times = np.datetime64(start, unit) + np.arange(24) * np.timedelta64(1, "h")
    theirs = make_weather(24, shape=(4, 6)).assign_coords(time=times)
    ours, labels = canonicalize(theirs)
    assert time_step(ours["time"].values) == ONE
    xr.testing.assert_identical(restore(ours, labels), theirs)
    forecast = Persistence(TASK).predict(theirs, init_time=times[5:8])
    np.testing.assert_array_equal(forecast["time"].values.astype(times.dtype), times[5:8])
    valid = forecast["valid_time"].values.astype(times.dtype)
    np.testing.assert_array_equal(valid[:, 1], times[7:10])
    assert np.isfinite(evaluate(forecast, theirs)[NAME]).all()


def test_valid_times_do_not_wrap():
    start = np.array(["2262-04-11T12"], "M8[ns]")
    lead = np.array([6, 12, 24 * 36525], "timedelta64[h]")
    found = valid_times(start, lead)
    assert [t.isoformat() for t in found[0]] == [
        *("2262-04-11T18:00:00", "2262-04-12T00:00:00", "2362-04-12T12:00:00")
    ]
    assert valid_times(start, lead[:1]).dtype == "M8[ns]"
    early = valid_times(np.array(["1677-09-22"], "M8[ns]"), -lead[:1] * 8)
    assert early[0, 0].isoformat() == "1677-09-20T00:00:00"


def test_a_forecast_across_the_end_of_nanoseconds():
    theirs = make_weather(12, shape=(4, 6), time="2262-04-11T10:00")
    forecast = Persistence(TASK).predict(theirs, steps=5)
    assert forecast["time"].dtype.kind == "M"
    assert forecast["valid_time"].values[0, -1].isoformat() == "2262-04-12T02:00:00"
    again, labels = canonicalize(forecast)
    xr.testing.assert_identical(restore(again, labels), forecast)


def test_lead_times_that_nanoseconds_do_not_hold():
    with pytest.raises(InputError, match=r"292 years.*at most 106751"):
        Task("t2m", 2, 2, timestep="1D").lead_times(150_000)
    weather = make_weather(4, shape=(4, 6), timestep="30D")
    with pytest.raises(InputError, match="292 years"):
        Persistence(Task("t2m", 2, 2, timestep="30D")).predict(weather, steps=10_000)
    forecast = make_forecast(make_weather(12, shape=(4, 6)))
    far = forecast.assign_coords(
        prediction_timedelta=("prediction_timedelta", [1, 2, 110_000], {"units": "days"})
    )
    with pytest.raises(InputError, match=r"goes to 301 years.*292"):
        canonicalize(far.drop_vars("valid_time"))
    for unit, most in (("s", 9_199_999_999), ("h", 2_555_555)):
        for number in (most, most + 2):
            lead = xr.Variable("k", np.array([0, number], f"m8[{unit}]"))
            if number == most:
                assert lead_times("k", lead)[1] == np.timedelta64(most, unit)
            else:
                with pytest.raises(InputError, match="292"):
                    lead_times("k", lead)


def test_a_single_time_of_any_class_is_one():
    zone = datetime.UTC
    for one, kind in (
        (datetime.datetime(2001, 2, 3, tzinfo=zone), "M"),
        (cftime.DatetimeNoLeap(2001, 2, 3), "O"),
    ):
        times = np.array([one], dtype=object)
        assert is_dates(times)
        assert is_cftime(times) == (kind == "O")
        assert canonical_times("time", times).dtype.kind == kind
    for none in (np.empty(0, object), np.array(["2001"], dtype=object), np.array([1.0])):
        assert not is_dates(none)


# --- periods of raw files -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["valid_time", "date", "time"])
def test_periods_are_selected_by_the_times_of_any_name(name):
    weather = make_weather(96, shape=(4, 6), time="2018-12-30")
    theirs = weather.rename({} if name == "time" else {"time": name})
    parts = split(theirs, train=2018, test="2019-01-01/2019-01-01T11")
    assert {k: v.sizes[name] for k, v in parts.items()} == {"train": 48, "test": 12}
    xr.testing.assert_identical(parts["train"], theirs.isel({name: slice(48)}))
    with pytest.raises(InputError, match="24 times in common"):
        split(theirs, a="2019-01-01", b="2019-01-01/2019-01-02")


def test_periods_of_rounded_times_and_of_times_with_a_zone(weather):
    early = off(weather, -1e-3, every=2)  # 23:59:59.999 of the year before is its first
    assert select_period(early, 2018).sizes["time"] == 24
    zoned = weather.assign_coords(time=pd.DatetimeIndex(weather["time"].values).tz_localize("UTC"))
    assert select_period(zoned, "2018-01-01T05/2018-01-01T06").sizes["time"] == 2


def test_years_beyond_all_counting_stay_as_they_are():
    far = [cftime.datetime(400_000, 1, day, calendar="proleptic_gregorian") for day in (1, 2)]
    flow = (("time", "y", "x"), np.zeros((2, 2, 2), np.float32))
    ds = xr.Dataset({"flow": flow}, {"time": far})
    assert list(canonical_times_of(ds)) == far
