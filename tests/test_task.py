"""Tasks, and windows that cross no gap."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from stforecast.conventions.times import time_differences
from stforecast.errors import InputError
from stforecast.task import Task, initialisations, refuse_months, require_task, window_starts

HOUR = np.timedelta64(1, "h")


def hours(*numbers):
    return np.datetime64("2001-01-01T00", "ns") + np.array(numbers) * HOUR


# --- Task -----------------------------------------------------------------------------------------


def test_a_task_stores_canonical_values():
    task = Task("t2m", 12, np.int64(24), pd.Timedelta("6h"), targets=["tas", "msl"])
    assert task.variables == ("2m_temperature",)
    assert task.outputs == ("2m_temperature", "mean_sea_level_pressure")
    assert task.channels == ("2m_temperature", "mean_sea_level_pressure")
    assert (task.input_steps, task.target_steps, task.window) == (12, 24, 36)
    assert type(task.target_steps) is int
    assert task.step == np.timedelta64(6, "h")
    assert task.step.dtype == "timedelta64[ns]"
    assert Task(["air", "t2m"]).outputs == ("air", "2m_temperature")


def test_lead_times_start_one_step_after_the_last_input():
    task = Task("t2m", target_steps=3, timestep="90min")
    np.testing.assert_array_equal(task.lead_times(), np.array([90, 180, 270], "timedelta64[m]"))
    assert task.lead_times(5)[-1] == np.timedelta64(450, "m")


@pytest.mark.parametrize(
    ("timestep", "short"),
    [
        ("1h", "1h"),
        ("60min", "1h"),
        ("0.5h", "30min"),
        ("24h", "1D"),
        ("36h", "36h"),
        ("90s", "90s"),
        ("0.04s", "40ms"),
        ("1500us", "1500us"),
    ],
)
def test_a_timestep_is_written_as_people_do(timestep, short):
    assert Task("t2m", timestep=timestep).timestep == short
    assert Task("t2m", timestep=short) == Task("t2m", timestep=timestep)


def test_a_task_goes_through_json():
    for task in (Task("t2m"), Task(["t2m", "msl"], 6, 3, "3h", targets="msl", nan="mask")):
        assert Task(**json.loads(json.dumps(task.to_dict()))) == task
        assert hash(Task(**task.to_dict())) == hash(task)
    assert str(Task("t2m", 12, 6)) == "2m_temperature: 12 steps in, 6 out, every 1h"


def test_a_task_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Task("t2m").input_steps = 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"variables": ()}, "one or more variable names"),
        ({"variables": ["t2m", ""]}, "one or more variable names"),
        ({"variables": ["t2m", 3]}, "one or more variable names"),
        ({"variables": ["t2m", "tas"]}, "different from each other"),
        ({"input_steps": 0}, "input_steps must be a whole number of at least 1, found 0"),
        ({"target_steps": 1.5}, "target_steps must be a whole number"),
        ({"input_steps": True}, "input_steps must be a whole number"),
        ({"timestep": "an hour"}, "must read as a time difference"),
        ({"timestep": "-1h"}, "must be positive"),
        ({"timestep": "0h"}, "must be positive"),
        ({"targets": []}, "one or more variable names"),
        ({"variables": 5}, "one or more variable names"),
        ({"timestep": None}, "must be positive, found None"),
        ({"timestep": [1]}, "must read as a time difference"),
        ({"timestep": "NaT"}, "must be positive"),
        *(({"timestep": v}, "must read as a time difference") for v in (1, 6.0, True, np.int64(3))),
        ({"target_steps": 10**9}, "at least 1 and at most 1,000,000"),
        ({"input_steps": float("nan")}, "must be a whole number"),
        ({"timestep": "1MS"}, "in months, found '1MS'.*convert_calendar"),
        ({"timestep": "2M"}, "in months"),
        ({"timestep": "ME"}, "in months"),
        ({"timestep": "1 month"}, "in months"),
        ({"nan": "skip"}, "nan must be 'refuse' or 'mask', found 'skip'"),
    ],
)
def test_a_bad_task(fields, words):
    with pytest.raises(InputError, match=words):
        Task(**{"variables": "t2m", **fields})


def test_channels_and_history_with_lags_and_what_is_known():
    more = {"reference": "weekly", "known": ["holiday", "reference"], "lags": ["36h", "2D"]}
    task = Task(["t2m", "msl"], 2, 3, "12h", **more)
    assert task.channels == ("2m_temperature", "mean_sea_level_pressure", "holiday")
    assert (task.lag_steps, task.lags) == ((3, 4), ("36h", "2D"))
    assert (task.history, task.window) == (4, 7)  # the longest lag is longer than the input
    # On each of 2 frames: 2 variables, and what 3 steps need on 2 frames, so twice: the holiday,
    # the reference of both outputs, and both outputs at both lags.
    assert (task.channels_in, task.channels_out) == (2 + 2 * (1 + 2 + 2 * 2), 2)
    other = Task("t2m", 6, 3, "12h", lags="36h", targets="t2m", known="holiday")
    assert (task.outputs, other.history, other.channels_in) == (task.variables, 6, 1 + 1 + 1)
    assert Task("t2m", 1, 1).history == 1
    assert Task("t2m", known="reference", reference="weekly").channels == ("2m_temperature",)


def test_what_a_task_says_of_itself():
    task = Task("t2m", 2, 3, "12h", reference="weekly", known="holiday", lags="2D", lower=0)
    assert type(task.lower) is float
    told = {"reference": "weekly", "known": ["holiday"], "lags": ["2D"], "lower": 0.0}
    assert task.to_dict() == Task("t2m", 2, 3, "12h").to_dict() | told
    assert str(task) == (
        "2m_temperature: 2 steps in, 3 out, every 12h, around the week, with holiday, 2D before, "
        "at least 0"
    )
    task = Task(["t2m", "msl"], targets="msl", nan="mask", reference="climatology")
    assert str(task) == (
        "2m_temperature, mean_sea_level_pressure: 12 steps in, 12 out of mean_sea_level_pressure, "
        "every 1h, NaN masked, around the climatology"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        *(({"lags": v}, "must read as time differences") for v in ("soon", True, 2.5)),
        *(({"lags": v}, "at least 0 days 12:00:00") for v in ("12h30min", "-1D", "0h")),
        ({"lags": "1000001h"}, "more than 1,000,000 steps"),
        *(({"lower": v}, "must be a finite number") for v in (True, np.inf)),
    ],
)
def test_lags_and_bounds_that_make_no_sense(fields, words):
    with pytest.raises(InputError, match=words):
        Task(**{"variables": "t2m", **fields})


def test_the_limits_themselves_are_allowed():
    assert Task("t2m", lags=["12h", "1000000h"]).lag_steps == (12, 1_000_000)
    assert Task("t2m", 1_000_000, 1_000_000).window == 2_000_000
    longest = np.iinfo(np.int64).max // (3600 * 10**9)
    assert Task("t2m").lead_times(longest)[-1] == longest * HOUR
    with pytest.raises(InputError, match=f"at most {longest} steps"):
        Task("t2m").lead_times(longest + 1)


def test_forecasts_on_a_networks_own_output():
    task = Task("t2m", 2, 3, lags="4h")
    assert task.rolled(1) is task
    # The history that lags ask for stays, in place of the lags.
    assert task.rolled(2) == Task("t2m", 4, 6)
    task.refuse_rollout(100)
    some = Task(["t2m", "lsm"], 2, 3, targets="t2m")
    some.refuse_rollout(3)
    with pytest.raises(InputError, match="cannot forecast 4 steps: past 3 the network would need"):
        some.refuse_rollout(4)


@pytest.mark.parametrize(
    ("given", "call"),
    [
        ("msl", r"Task\('msl', "),
        (["u10"], r"Task\(\['u10'\], "),
        ([], 'Task."t2m", '),
        (3, '."t2m"'),
    ],
)
def test_what_is_no_task_gets_the_call_that_makes_one(given, call):
    with pytest.raises(InputError, match=f"expected a Task, found .*{call}"):
        require_task(given)
    require_task(Task("t2m"))


# --- windows --------------------------------------------------------------------------------------


def test_windows_do_not_cross_a_gap():
    time = hours(0, 1, 2, 3, 5, 6, 7, 9)  # 4 and 8 are missing
    np.testing.assert_array_equal(window_starts(time, HOUR, 1), np.arange(8))
    np.testing.assert_array_equal(window_starts(time, HOUR, 2), [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(window_starts(time, HOUR, 3), [0, 1, 4])
    np.testing.assert_array_equal(window_starts(time, HOUR, 4), [0])
    assert window_starts(time, HOUR, 5).tolist() == []
    assert window_starts(time[:0], HOUR, 1).tolist() == []
    assert window_starts(time, HOUR, 3).dtype == np.int64


def test_the_stride_starts_anew_after_a_gap():
    time = hours(0, 1, 2, 3, 5, 6, 7)
    np.testing.assert_array_equal(window_starts(time, HOUR, 2, stride=2), [0, 2, 4])


def test_another_step_gives_no_windows():
    time = hours(0, 6, 12, 18)
    assert len(window_starts(time, HOUR, 2)) == 0
    np.testing.assert_array_equal(window_starts(time, 6 * HOUR, 3), [0, 1])


@given(
    present=st.lists(st.booleans(), min_size=1, max_size=40),
    length=st.integers(1, 6),
    stride=st.integers(1, 3),
    calendar=st.sampled_from(["standard", "noleap", "360_day"]),
)
def test_windows_by_brute_force(present, length, stride, calendar):
    every = xr.date_range("2001-02-28", periods=len(present), freq="1h", calendar=calendar).values
    index = np.flatnonzero(present)
    want, run = [], 0
    for i in range(len(index)):
        run = 0 if i == 0 or index[i] != index[i - 1] + 1 else run + 1
        whole = i + length <= len(index) and index[i + length - 1] == index[i] + length - 1
        if whole and run % stride == 0:
            want.append(i)
    assert window_starts(every[index], HOUR, length, stride).tolist() == want


def test_differences_of_any_times():
    leap = xr.date_range("2004-02-28", periods=3, freq="1D", calendar="noleap")
    for time in (
        pd.date_range("2001", periods=3),
        np.array(["2001-01-01", "2001-01-02", "2001-01-03"], "datetime64[D]"),
        xr.DataArray(leap.values, dims="time"),
        leap,
    ):
        got = time_differences(time)
        assert got.dtype == "timedelta64[ns]"
        assert (got == np.timedelta64(24, "h")).all()
        assert len(got) == 2


def test_initialisations_are_the_last_inputs_of_whole_windows():
    ds = xr.Dataset(coords={"time": hours(0, 1, 2, 3, 5, 6, 7, 8, 9)})
    found = initialisations(ds, Task("t2m", 2, 1))
    np.testing.assert_array_equal(found, hours(1, 2, 6, 7, 8))
    np.testing.assert_array_equal(initialisations(ds, Task("t2m", 2, 1), 2), hours(1, 6, 8))
    lagged = initialisations(ds, Task("t2m", 1, 1, lags="3h"))
    np.testing.assert_array_equal(lagged, hours(2, 7, 8))
    words = "none of the 9 times has 4 steps up to it and 2 after it without a gap"
    with pytest.raises(InputError, match=words):
        initialisations(ds, Task("t2m", 4, 2))


# --- months ---------------------------------------------------------------------------------------


def test_calendar_months_are_refused_and_said_what_to_do_about():
    months = pd.date_range("2001-01-01", periods=14, freq="MS")
    for time in (
        months,
        months.values[5:8],
        xr.date_range("2001", periods=5, freq="MS", calendar="noleap"),
    ):
        with pytest.raises(InputError, match=r"monthly.*convert_calendar\('360_day'"):
            refuse_months(time)
    for step, n in (("30D", 20), ("28D", 9), ("1D", 400), ("6h", 5), ("365D", 4)):
        refuse_months(pd.date_range("2001-01-01", periods=n, freq=step))
    refuse_months(months[:1])
    with pytest.raises(InputError, match="monthly"):
        refuse_months(pd.to_datetime(["2004-02-01", "2004-03-01", "2004-04-01"]))  # 29, 31 days
    refuse_months(pd.to_datetime(["2001-01-01", "2001-01-28", "2001-02-28"]))  # 27, 31
    refuse_months(pd.to_datetime(["2001-01-01", "2001-01-29", "2001-03-02"]))  # 28, 32


def test_the_advice_on_months_is_good():
    """On the 360-day calendar months keep their names, gaps are gaps, lead times are exact."""
    months = pd.date_range("2001-01-01", periods=30, freq="MS")
    ds = xr.Dataset({"sst": ("time", np.arange(30.0))}, {"time": months})
    ds = ds.drop_isel(time=[7])
    on_360 = ds.convert_calendar("360_day", align_on="date", use_cftime=True)
    task = Task("sst", 3, 2, timestep="30D")
    refuse_months(on_360["time"].values)
    starts = window_starts(on_360["time"].values, task.step, task.window)
    assert starts.tolist() == [*range(3), *range(7, 25)]
    first = on_360["time"].values[8]
    valid = first + pd.Timedelta(task.lead_times()[-1]).to_pytimedelta()
    assert (first.isoformat()[:10], valid.isoformat()[:10]) == ("2001-10-01", "2001-12-01")
