"""What anomalies are differences from: closed forms, and parts that are left out."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stforecast.baselines.reference import fit_reference
from stforecast.conventions.cycles import fractions, harmonics
from stforecast.errors import InputError
from stforecast.task import Task

YEARLY = Task("a", 2, 2, "6h", reference="climatology")
WEEKLY = Task("a", 2, 2, "12h", reference="weekly")


def series(start, stop, freq, values, calendar="standard"):
    time = xr.date_range(
        start, stop, freq=freq, calendar=calendar, use_cftime=calendar != "standard"
    )
    values = values(time).astype(np.float32)[:, None, None] * np.ones((1, 2), np.float32)
    return xr.Dataset({"a": (("time", "y", "x"), values)}, {"time": time})


def seasons(time):
    year, day = fractions(np.asarray(time))
    return 280 + 9 * np.cos(2 * np.pi * year) * np.sin(2 * np.pi * day) + np.sin(6 * np.pi * year)


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_harmonics_are_found_again_in_years_that_they_were_not_fitted_to(calendar):
    ds = series("2001-01-01", "2002-12-30T18", "6h", seasons, calendar)
    fit = fit_reference(ds, YEARLY)
    later = xr.date_range(
        "2010-02-01", periods=99, freq="6h", calendar=calendar, use_cftime=calendar != "standard"
    ).values
    found = fit.terms(later) @ fit.fields[:, 0, 0, 1]
    np.testing.assert_allclose(found, seasons(later), atol=1e-3)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 2), (4, 4)])
def test_what_is_left_out_has_no_part_in_what_is_left(first, last):
    rng = np.random.default_rng(0)
    ds = series("2001-01-01", "2005-12-31T18", "6h", lambda t: rng.normal(size=len(t)))
    years = ds["time"].dt.year - 2001
    fit = fit_reference(ds, YEARLY)
    kept = ds.isel(time=((years < first) | (years > last)).values)
    basis = harmonics(kept["time"].values, *fit.slots)
    expected = np.linalg.lstsq(basis, kept["a"].values[:, 0, 0].astype(float), rcond=None)[0]
    found = fit.without(first, last)[:, 0, 0, 0]
    # Six-hourly data cannot tell one of the second daily harmonics from nothing: compare values.
    np.testing.assert_allclose(basis @ found, basis @ expected, atol=1e-5)
    changed = ds.copy(deep=True)
    changed["a"].values[((years >= first) & (years <= last)).values] = 1e3
    other = fit_reference(changed, YEARLY).without(first, last)[:, 0, 0, 0]
    np.testing.assert_allclose(basis @ other, basis @ found, atol=1e-4)


def test_of_few_years_half_a_month_is_left_out():
    ds = series("2001-01-01", "2001-12-31T18", "6h", seasons)
    fit = fit_reference(ds, YEARLY)
    assert fit.groups[-1] == 24
    assert np.bincount(fit.groups).max() == 15 * 4
    pairs, which = fit.sets(np.array([0, 58, 59, 60]), 4)
    assert pairs.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert which.tolist() == [0, 1, 1, 2]


def test_a_week_is_the_median_of_the_others():
    def weeks(time):
        return np.repeat([1.0, 2.0, 50.0, 4.0, 7.0], 14)[: len(time)]

    ds = series("2018-01-01", "2018-02-04T12", "12h", weeks)
    fit = fit_reference(ds, WEEKLY)
    assert fit.fields.shape == (14, 1, 1, 2)
    assert (fit.fields == 4).all()
    assert (fit.without(0, 0) == 5.5).all()  # of 2, 50, 4, 7
    assert (fit.without(1, 2) == 4).all()  # of 1, 4, 7
    odd = np.zeros(len(ds["time"]), bool)
    odd[14:28] = True  # all of the second week are holidays
    assert (fit_reference(ds, WEEKLY, holidays=odd).fields == 5.5).all()
    odd[:] = True
    assert (fit_reference(ds, WEEKLY, holidays=odd).fields == 4).all()


def test_missing_values_count_as_the_mean_of_their_point():
    ds = series("2001-01-01", "2002-12-31T18", "6h", lambda t: np.full(len(t), 5.0))
    ds["a"].values[100:200] = np.nan
    fit = fit_reference(ds, YEARLY)
    np.testing.assert_allclose(fit.terms(ds["time"].values) @ fit.fields[:, 0, 0, 0], 5, atol=1e-5)
    ds["a"].values[:] = np.nan  # and a point without any has no mean
    found = fit_reference(ds, YEARLY)
    assert np.isnan(found.fields[0]).all()
    assert np.isnan(found.without(0, 0)[0]).all()


@pytest.mark.parametrize(
    ("stop", "task", "words"),
    [
        ("2001-09-01", YEARLY, "needs data through the whole year, and 122 days"),
        ("2001-01-10", WEEKLY, "needs at least 3 weeks"),
    ],
)
def test_a_period_that_is_too_short_is_refused(stop, task, words):
    ds = series("2001-01-01", stop, task.timestep, lambda t: np.ones(len(t)))
    with pytest.raises(InputError, match=words):
        fit_reference(ds, task)


def test_times_without_a_date_are_refused():
    ds = series("2001-01-01", "2001-12-31", "12h", seasons)
    ds = ds.assign_coords(time=np.arange(ds.sizes["time"]))
    with pytest.raises(InputError, match="needs dates"):
        fit_reference(ds, YEARLY)
