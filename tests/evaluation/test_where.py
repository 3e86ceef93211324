"""Scores of the points that truth chooses: `where`, and the percentage error that needs it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.errors import InputError
from stforecast.evaluation import (
    METRICS,
    Above,
    Metric,
    compare,
    compare_forecasts,
    evaluate,
    scorecard,
    to_table,
)
from stforecast.evaluation.scorecards import mean_over_time
from stforecast.plots import write_report
from stforecast.testing import make_forecast, make_weather, relabel

LEAD = "prediction_timedelta"
ALL = ("rmse", "mae", "bias", "mape")


def flows(truth: np.ndarray, forecast: np.ndarray) -> tuple[xr.Dataset, xr.Dataset]:
    """Truth (T, H, W) and forecasts (N, L, H, W) of it: initialisation n is step n."""
    times = pd.date_range("2016-01-01", periods=len(truth), freq="30min")
    dims, attrs = ("y", "x"), {"units": "1", "long_name": "taxis"}
    n, leads = forecast.shape[:2]
    made = xr.Dataset(
        {"inflow": (("time", LEAD, *dims), forecast.astype(np.float32), attrs)},
        {"time": times[:n], LEAD: pd.to_timedelta(30 * np.arange(1, leads + 1), "min")},
    )
    return made, xr.Dataset(
        {"inflow": (("time", *dims), truth.astype(np.float32), attrs)}, {"time": times}
    )


def some(seed: int = 0, n: int = 9, leads: int = 4) -> tuple[xr.Dataset, xr.Dataset]:
    rng = np.random.default_rng(seed)
    truth = rng.poisson(rng.uniform(0, 25, (1, 5, 6)), (n + leads, 5, 6))
    return flows(truth, rng.uniform(0, 30, (n, leads, 5, 6)))


def pooled(forecast: xr.Dataset, truth: xr.Dataset, limit: float) -> dict[str, np.ndarray]:
    """Plain numpy: the scores by lead, over all points of all times where truth is above it."""
    f, t = forecast["inflow"].values.astype(float), truth["inflow"].values.astype(float)
    out: dict[str, list[float]] = {name: [] for name in ALL}
    for lead in range(f.shape[1]):
        observed = t[lead + 1 : lead + 1 + len(f)]
        e, y = (x[observed > limit] for x in (f[:, lead] - observed, observed))
        out["rmse"].append(np.sqrt((e**2).mean()))
        out["mae"].append(np.abs(e).mean())
        out["bias"].append(e.mean())
        out["mape"].append(100 * (np.abs(e) / y).mean())
    return {name: np.array(values) for name, values in out.items()}


def test_closed_form_and_a_false_alarm_costs_nothing():
    truth = np.array([[[0, 10, 20, 40]]]).repeat(2, 0)
    forecast, truth = flows(truth, np.array([[[[1000.0, -500.0, 23.0, 36.0]]]]))
    scores = evaluate(forecast, truth, metrics=ALL, where=Above(10))
    assert scores["inflow_overall"].sel(metric="rmse") == pytest.approx(12.5**0.5)
    assert scores["inflow_overall"].sel(metric="mae") == pytest.approx(3.5)
    assert scores["inflow_overall"].sel(metric="bias") == pytest.approx(-0.5)
    assert scores["inflow_overall"].sel(metric="mape") == pytest.approx(100 * (0.15 + 0.1) / 2)
    assert scores["inflow"].attrs["units_mape"] == "%"
    assert scores["inflow"].attrs["masked_points"] == 2
    assert scores["inflow"].attrs["masked_share"] == 0.5
    assert scores.attrs["where"] == "truth > 10 (a false alarm costs nothing)"
    # With everything, it costs what it costs.
    assert evaluate(forecast, truth)["inflow_overall"].sel(metric="mae") > 300


@pytest.mark.parametrize(
    "chunks", [None, {"time": 2}, {"time": 4, LEAD: 3}, {LEAD: 1, "y": 2, "x": 4}, {}]
)
def test_any_chunks_give_the_pooled_score(chunks):
    forecast, truth = some()
    wanted = pooled(forecast, truth, 10)
    if chunks is not None:
        forecast, truth = forecast.chunk(chunks), truth.chunk({"time": 5})
    scores = evaluate(forecast, truth, metrics=ALL, where=lambda t: t > 10)
    for name, by_lead in wanted.items():
        # Differences are float32, as the data are.
        np.testing.assert_allclose(scores["inflow"].sel(metric=name), by_lead, rtol=1e-6)
    assert scores.attrs["where"].startswith("a function of truth says so")


def test_by_time_and_cell():
    forecast, truth = some()
    f, t = forecast["inflow"].values, truth["inflow"].values
    observed = np.stack([t[lead + 1 : lead + 10] for lead in range(4)], axis=1)
    gone = np.where(observed > 10, np.abs(f - observed), np.nan)
    by = evaluate(forecast, truth, metrics="mae", by=("time", LEAD), where=Above(10))
    np.testing.assert_allclose(by["inflow"][0], np.nanmean(gone, (2, 3)), rtol=1e-6)
    by = evaluate(forecast, truth, metrics="mae", by=("y", "x"), where=Above(10))
    few = (observed > 10).any((0, 1))
    assert not few.all()  # cells where nothing counts have no score
    found = by["inflow"].values[0]
    np.testing.assert_allclose(found[few], np.nanmean(gone[..., few], (0, 1)), rtol=1e-6)
    assert np.isnan(found[~few]).all()


def test_weights_multiply_what_counts():
    forecast, truth = some()
    weights = xr.DataArray(np.arange(30.0).reshape(5, 6), dims=("y", "x"))
    scores = evaluate(forecast, truth, metrics="mae", weights=weights, where=Above(10))
    f, t = forecast["inflow"].values, truth["inflow"].values
    observed = np.stack([t[lead + 1 : lead + 10] for lead in range(4)], axis=1)
    counts = weights.values * (observed > 10)
    wanted = (counts * np.abs(f - observed)).sum() / counts.sum()
    np.testing.assert_allclose(scores["inflow_overall"], [wanted], rtol=1e-6)


def test_members_and_metrics_of_ones_own():
    made = [some(seed)[0] for seed in range(3)]
    truth = some(0)[1]
    members = xr.concat(made, "realization")
    late = Metric("late", lambda f, t: np.log(t) - np.log(t + f))  # log 0 where nothing counts
    of_mean = evaluate(members, truth, metrics=["mae", late], where=Above(10))
    mean = members.mean("realization", keep_attrs=True)
    alone = evaluate(mean, truth, metrics=["mae", late], where=Above(10))
    np.testing.assert_allclose(of_mean["inflow"], alone["inflow"], rtol=1e-6)
    assert np.isfinite(of_mean["inflow"]).all()
    each = evaluate(members, truth, metrics="mae", where=Above(10), ensemble="members")
    first = evaluate(made[0], truth, metrics="mae", where=Above(10))
    np.testing.assert_array_equal(each["inflow"].isel(realization=0), first["inflow"])


def test_missing_truth_is_no_choice():
    forecast, truth = some()
    t = truth["inflow"].values
    busy = np.argwhere(t[1:9] > 10)[0] + [1, 0, 0]
    t[tuple(busy)] = np.nan
    with pytest.raises(InputError, match="inflow of the truth is NaN"):
        evaluate(forecast, truth, where=Above(10))
    masked = evaluate(forecast, truth, where=Above(10), nan="mask", metrics=ALL)
    wanted = pooled(forecast, truth, 10)  # NaN > 10 is False
    np.testing.assert_allclose(masked["inflow"].sel(metric="mape"), wanted["mape"], rtol=1e-6)


def test_a_forecast_must_be_there_where_it_counts():
    forecast, truth = some()
    f, t = forecast["inflow"].values, truth["inflow"].values
    quiet, busy = (np.argwhere(x)[0] for x in (t[1:9] <= 10, t[1:9] > 10))
    f[quiet[0], 0, quiet[1], quiet[2]] = np.nan
    with_gap = evaluate(forecast, truth, where=Above(10))
    assert np.isfinite(with_gap["inflow"]).all()
    f[busy[0], 0, busy[1], busy[2]] = np.inf
    with pytest.raises(InputError, match="inflow of the forecast is NaN or infinite"):
        evaluate(forecast, truth, where=Above(10))


def test_what_cannot_be_scored_is_refused():
    forecast, truth = some()
    with pytest.raises(InputError, match=r"mape overflow or are NaN.*needs where="):
        evaluate(forecast, truth, metrics="mape")
    with pytest.raises(InputError, match=r"where must be a function of truth.*found 10"):
        evaluate(forecast, truth, where=10)
    with pytest.raises(InputError, match=r"where must give True or False.*found float32"):
        evaluate(forecast, truth, where=lambda t: t)
    with pytest.raises(InputError, match=r"where must give True or False.*shape \(\)"):
        evaluate(forecast, truth, where=lambda t: (t > 10).any())
    with pytest.raises(InputError, match=r"none of the 1080 points of truth .* truth > 1000"):
        evaluate(forecast, truth, where=Above(1000))
    with pytest.raises(InputError, match="take no masks; leave out nan, where or these"):
        evaluate(forecast, truth, metrics="mse_sum", where=Above(10))
    weather = make_weather(6, shape=(4, 6))
    with pytest.raises(InputError, match=r"thresholds of 2m_temperature are in K.* found 10"):
        evaluate(make_forecast(weather, inits=2), relabel(weather, units="degC"), where=Above(10))


def test_the_scorecard_and_the_report_say_it(tmp_path):
    forecasts = {"a": some(0, n=24)[0], "b": some(1, n=24)[0]}
    truth = some(0, n=24)[1]
    scores = {n: evaluate(f, truth, metrics=ALL, where=Above(10)) for n, f in forecasts.items()}
    card = scorecard(scores)
    title = "inflow mape [%], uniform weights, where truth > 10 (a false alarm costs nothing)"
    assert to_table(card, metric="mape").columns.name == title
    report = write_report(card, {}, truth, tmp_path / "report.html").read_text()
    assert "Only points where truth &gt; 10 (a false alarm costs nothing) are scored." in report
    other = evaluate(forecasts["b"], truth, metrics=ALL, where=Above(9))
    with pytest.raises(InputError, match=r"do not compare: where truth > 10.*truth > 9"):
        scorecard({"a": scores["a"], "b": other})
    # Initialisations do not weigh the same: neither a mean over them nor an interval.
    by_time = {
        n: evaluate(f, truth, metrics=ALL, by=("time", LEAD), where=Above(10))
        for n, f in forecasts.items()
    }
    with pytest.raises(InputError, match="weigh differently"):
        mean_over_time(by_time["a"])
    with pytest.raises(InputError, match="different numbers of points"):
        compare(by_time["a"], by_time["b"])
    assert scorecard(scores, by_time=by_time).attrs["intervals"].startswith("none: init")
    both = compare_forecasts(forecasts, truth, metrics=ALL, weights="uniform", where=Above(10))
    np.testing.assert_array_equal(both["inflow"], card["inflow"])
    assert both.attrs["intervals"].startswith("none: initialisations have different numbers")
    assert "mape" in METRICS
