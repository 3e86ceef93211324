"""Whether a period that is to judge was trained on."""

from __future__ import annotations

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from stforecast.conventions.overlap import (
    make_fingerprint,
    period_of,
    refuse_other_data,
    refuse_overlap,
    refuse_trained,
    times_within,
    told_of,
    with_earlier,
    write_period,
)
from stforecast.errors import InputError

HOURS = pd.date_range("2013-01-01", periods=200, freq="6h").to_numpy()
CLIPS = np.datetime64(0, "ns") + np.arange(50) * np.timedelta64(40, "ms")


def calendar(name, steps=200):
    start = cftime.datetime(2013, 1, 1, calendar=name)
    return np.array([start + pd.Timedelta("6h").to_pytimedelta() * i for i in range(steps)])


def test_a_period_is_written_as_its_stretches():
    assert write_period(HOURS[:5]) == "2013-01-01T00:00:00/2013-01-02T00:00:00"
    both = np.concatenate([HOURS[:5], HOURS[9:10]])
    assert write_period(both).split(";")[1] == "2013-01-03T06:00:00/2013-01-03T06:00:00"
    assert write_period(HOURS[:0]) == ""
    assert write_period(HOURS[:1]) == "2013-01-01T00:00:00/2013-01-01T00:00:00"
    many = write_period(np.delete(HOURS, np.arange(3, 200, 5))).split(";")
    assert len(many) == 41
    hours = pd.date_range("2013", periods=3000, freq="h").to_numpy()
    assert len(write_period(np.delete(hours, np.arange(3, 3000, 5))).split(";")) == 101


@given(
    st.sampled_from([HOURS, calendar("noleap"), calendar("360_day"), CLIPS]),
    st.sets(st.integers(0, 49), min_size=2),
)
def test_times_lie_in_their_own_period_and_not_in_its_gaps(times, chosen):
    chosen = sorted(chosen)
    step = min(np.diff(chosen))
    if len(set(np.diff(chosen))) > 1:
        values, counts = np.unique(np.diff(chosen), return_counts=True)
        step = values[counts.argmax()]
    expected = np.zeros(len(times), bool)
    for a, b in zip(chosen, chosen[1:] + chosen[-1:], strict=True):
        expected[a : b + 1 if b - a <= step else a + 1] = True
    np.testing.assert_array_equal(times_within(times, write_period(times[chosen])), expected)


@pytest.mark.parametrize(
    ("judge", "count"),
    [
        (HOURS, 200),  # the same
        (HOURS[150:], 50),  # a part
        (HOURS[1::2], 100),  # every other step: between those that were trained on
        (HOURS[100:] + np.timedelta64(3, "h"), 99),  # other hours of the same days
        (calendar("noleap"), 200),  # another calendar
        (np.stack([HOURS[198:], HOURS[198:] + np.timedelta64(1, "D")]), 2),  # valid times
    ],
)
def test_an_overlap_is_refused_by_its_times(judge, count):
    with pytest.raises(InputError, match=rf"{count} of the \d+ times of the validation period lie"):
        refuse_overlap(HOURS, judge, "the validation period")


def test_what_a_model_says_of_its_period():
    ds = xr.Dataset(coords={"time": HOURS[:2]})
    period = "2013-01-01T00:00:00/2013-01-01T06:00:00"
    assert period_of(ds) == {"training_period": period}
    both = period_of(ds.assign_attrs(fingerprint=7))
    assert both == {"training_period": period, "training_fingerprint": "7"}
    assert told_of({**both, "title": "x"}) == both
    assert told_of({"climatology_period": "a/b"}) == {"training_period": "a/b"}
    assert told_of({**both, "climatology_period": "a/b"}) == both
    assert told_of({"title": "x"}) == {}


def test_the_period_of_an_earlier_training_is_added_once():
    now = {"training_period": "c/d"}
    assert with_earlier(now, {"training_period": "a/b"}) == {"training_period": "c/d;a/b"}
    assert with_earlier(now, now) == with_earlier(now, {}) == now
    both = {"training_period": "c/d;a/b"}
    assert with_earlier(now, both) == with_earlier(both, now) == both
    marked = {**now, "training_fingerprint": "7"}
    assert with_earlier(marked, {"training_period": "a/b"}) == marked
    other = {"training_period": "a/b", "training_fingerprint": "7"}
    assert with_earlier(marked, other) == {**marked, "training_period": "c/d;a/b"}


def test_truth_of_other_data_is_refused_and_both_are_named():
    forecast, truth = (xr.Dataset(attrs={"fingerprint": mark}) for mark in ("KTH", "BAIR"))
    with pytest.raises(InputError, match=r"made from \[KTH\], and truth is \[BAIR\]"):
        refuse_other_data(forecast, truth)
    for one, other in ((forecast, forecast), (forecast, xr.Dataset()), (xr.Dataset(), truth)):
        refuse_other_data(one, other)


def test_a_forecast_is_not_scored_where_its_model_was_trained():
    told = {"training_period": write_period(HOURS[:9])}
    leads = {"prediction_timedelta": [np.timedelta64(6, "h"), np.timedelta64(12, "h")]}
    late, early = (xr.Dataset(coords={"time": HOURS[i : i + 1], **leads}) for i in (8, 7))
    refuse_trained(late, told, xr.Dataset(), clips=False)
    refuse_trained(early, {}, xr.Dataset(), clips=False)
    with pytest.raises(InputError, match="1 of the 2 times of the forecast"):
        refuse_trained(early, told, xr.Dataset(), clips=False)
    refuse_trained(early, told, xr.Dataset(), clips=True)  # no data in common that are told of
    marked, truth = {**told, "training_fingerprint": "a; b; c; d"}, {"fingerprint": "a; b; c; d"}
    with pytest.raises(InputError, match="1 of the 2 times of the forecast"):
        refuse_trained(early, marked, xr.Dataset(attrs=truth), clips=True)
    refuse_trained(early.assign_attrs(fingerprint="e"), marked, xr.Dataset(attrs=truth), clips=True)


def test_times_before_after_and_in_a_gap_judge():
    trained = np.concatenate([HOURS[:50], HOURS[100:150]])
    for judge in (HOURS[50:100], HOURS[150:], HOURS[:2] - np.timedelta64(7, "D")):
        refuse_overlap(trained, judge, "it")
        refuse_overlap(write_period(trained), judge, "it")
    with pytest.raises(InputError, match=r"1 of the 51 times.*--allow-overlap"):
        refuse_overlap(trained, HOURS[49:100], "it", remedy="--allow-overlap")


def test_invented_times_say_something_of_the_same_data_only():
    test, train, everything = (
        make_fingerprint("KTH", split, "128 x 128", split or "c")
        for split in ("test", "train", None)
    )
    other = make_fingerprint("KTH", None, "64 x 64", "d")
    for pair in [(train, test), (test, other), (train, None), (None, test), ("garbage", test)]:
        refuse_overlap(CLIPS, CLIPS, "it", fingerprints=pair, invented=True)
    refuse_overlap(CLIPS, CLIPS, "it", invented=True)
    for pair in [(test, test), (everything, test), (train, everything)]:
        with pytest.raises(InputError, match="50 of the 50"):
            refuse_overlap(CLIPS, CLIPS, "it", fingerprints=pair, invented=True)
    refuse_overlap(CLIPS[:20], CLIPS[20:], "it", fingerprints=(test, test), invented=True)
