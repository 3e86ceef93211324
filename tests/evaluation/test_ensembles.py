"""Scores of ensembles: their mean, their members, and metrics of all members together."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from helpers import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast import predict
from stforecast.baselines import Persistence
from stforecast.errors import InputError
from stforecast.evaluation import Metric, evaluate, scorecard
from stforecast.forecasting import ensemble
from stforecast.task import Task
from stforecast.testing import make_forecast, make_weather

T2M, LEAD, MEMBERS = "2m_temperature", "prediction_timedelta", "realization"


def make_ensemble(truth: xr.Dataset, count: int = 3, seed: int = 0) -> xr.Dataset:
    """Members whose errors are noise, each with its own bias."""
    rng = np.random.default_rng(seed)
    base = make_forecast(truth, inits=10, steps=3, bias=0, spread=0)
    members = [base + rng.normal(i, 1, base[T2M].shape).astype("float32") for i in range(count)]
    whole = xr.concat(members, xr.Variable(MEMBERS, np.arange(count) * 10))
    whole[T2M].attrs = base[T2M].attrs
    return whole


def make_climatology(truth: xr.Dataset) -> xr.Dataset:
    days = {"hour": np.arange(24), "dayofyear": np.arange(1, 367)}
    space = {d: truth[d].values for d in ("latitude", "longitude")}
    values = np.random.default_rng(5).normal(280, 9, (24, 366, 12, 24)).astype("float32")
    return xr.Dataset({T2M: ((*days, *space), values, {"units": "K"})}, {**days, **space})


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return make_weather(30)


@pytest.fixture(scope="module")
def forecast(truth) -> xr.Dataset:
    return make_ensemble(truth)


def test_the_mean_of_known_members_in_closed_form(truth):
    members = [make_forecast(truth, steps=2, bias=b, spread=0.0) for b in (-1, 2, 5)]
    whole = xr.concat(members, MEMBERS)
    mean = evaluate(whole, truth, metrics=("rmse", "bias"))
    np.testing.assert_allclose(mean[T2M], 2, rtol=1e-5)
    assert mean.attrs["ensemble"] == "mean"
    assert mean.attrs["members"] == 3
    each = evaluate(whole, truth, metrics=("rmse", "bias"), ensemble="members")
    assert each[T2M].dims == ("metric", MEMBERS, LEAD)
    np.testing.assert_allclose(each[f"{T2M}_overall"], [[1, 2, 5], [-1, 2, 5]], rtol=1e-5)
    assert each.attrs["ensemble"] == "members"


OPTIONS = [
    {},
    {"by": ("latitude", "time")},
    {"regions": ("tropics", "northern-hemisphere"), "weights": ("area", "uniform")},
    {"metrics": ("rmse", "mse_sum", "psnr"), "weights": "uniform", "data_range": 50.0},
    {"climatology": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=[" ".join(o) or "plain" for o in OPTIONS])
@pytest.mark.parametrize("chunks", [None, {}, {"time": 4}, {"time": 3, LEAD: 2, "latitude": 5}])
def test_what_each_would_score_alone_to_the_bit(truth, forecast, options, chunks):
    if "climatology" in options:
        options = {"climatology": make_climatology(truth)}
    if chunks is not None:
        forecast = forecast.chunk(chunks)
    mean = evaluate(ensemble.mean(forecast), truth, **options)
    for realization in (1, 2, 3):
        given = forecast if chunks is None else forecast.chunk({MEMBERS: realization})
        found = evaluate(given, truth, **options)
        for v in mean.data_vars:
            np.testing.assert_array_equal(found[v], mean[v])
        each = evaluate(given, truth, ensemble="members", **options)
        assert each[MEMBERS].values.tolist() == [0, 10, 20]
        for i in range(3):
            alone = evaluate(forecast.isel({MEMBERS: i}, drop=True), truth, **options)
            for v in alone.data_vars:
                one = each[v].isel({MEMBERS: i}, drop=True)
                assert one.dims == alone[v].dims
                np.testing.assert_array_equal(one, alone[v])


@settings(max_examples=6, deadline=None)
@given(
    member=st.integers(1, 3),
    time=st.integers(1, 10),
    row=st.integers(3, 12),
    column=st.integers(6, 24),
    which=st.sampled_from(["mean", "members"]),
)
def test_any_chunks_give_what_the_whole_gives(member, time, row, column, which):
    truth = make_weather(30)
    forecast = make_ensemble(truth)
    chunks = {MEMBERS: member, "time": time, "latitude": row, "longitude": column}
    whole = evaluate(forecast, truth, ensemble=which)
    lazy = evaluate(forecast.chunk(chunks), truth.chunk(time=7), ensemble=which)
    xr.testing.assert_allclose(lazy, whole, rtol=1e-12, atol=1e-14)
    assert lazy.attrs == whole.attrs


def test_any_layout_gives_the_same(truth, forecast):
    moved = forecast.transpose("longitude", "time", MEMBERS, "latitude", LEAD)
    for which in ("mean", "members"):
        xr.testing.assert_allclose(
            evaluate(moved, truth, ensemble=which), evaluate(forecast, truth, ensemble=which)
        )


def test_masks_count_once(truth, forecast):
    hole = truth.copy(deep=True)
    hole[T2M][9, 2, 3] = np.nan
    one = evaluate(forecast.isel({MEMBERS: 0}), hole, nan="mask")
    for which in ("mean", "members"):
        found = evaluate(forecast, hole, nan="mask", ensemble=which)
        assert found[T2M].attrs["masked_points"] == one[T2M].attrs["masked_points"] > 0


def test_a_missing_value_of_one_member_is_refused(truth, forecast):
    hole = forecast.copy(deep=True)
    hole[T2M][{MEMBERS: 1, "time": 4, "latitude": 2, "longitude": 3}] = np.nan
    for which in ("mean", "members"):
        with pytest.raises(InputError, match="of the forecast is NaN or infinite: first at time"):
            evaluate(hole, truth, ensemble=which)


def test_what_predict_gives_is_scored(truth):
    models = [Persistence(Task(T2M, 1, 2, "1h")) for _ in range(2)]
    fc = predict(truth.isel(time=slice(20)), models)
    single = evaluate(predict(truth.isel(time=slice(20)), models[0]), truth)
    np.testing.assert_allclose(evaluate(fc, truth)[T2M], single[T2M], rtol=1e-6)
    each = evaluate(fc, truth, ensemble="members")
    np.testing.assert_array_equal(each[T2M].isel({MEMBERS: 1}), single[T2M])


# --- metrics of all members together --------------------------------------------------------------


def crps(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Fair CRPS of members (M, N, L, H, W), written out."""
    m = len(forecast)
    pairs = np.abs(forecast[:, None] - forecast[None]).sum((0, 1))
    return np.abs(forecast - truth).mean(0) - pairs / (2 * m * (m - 1))


CRPS = Metric("crps", crps, dims=(MEMBERS,))


@pytest.mark.parametrize("chunks", [None, {MEMBERS: 1, "time": 4}, {"time": 3, "latitude": 5}])
def test_a_metric_of_all_members_beside_one_of_their_mean(truth, forecast, chunks):
    given = forecast if chunks is None else forecast.chunk(chunks)
    found = evaluate(given, truth, metrics=("rmse", CRPS), weights="uniform")
    assert found.metric.values.tolist() == ["rmse", "crps"]
    at = truth[T2M].sel(time=forecast["valid_time"].rename(time="init"))
    at = at.transpose("init", LEAD, "latitude", "longitude")
    order = (MEMBERS, "time", LEAD, "latitude", "longitude")
    expected = crps(forecast[T2M].transpose(*order).values.astype("f8"), at.values.astype("f8"))
    np.testing.assert_allclose(found[T2M].sel(metric="crps"), expected.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(
        found[T2M].sel(metric="rmse"),
        evaluate(given, truth, metrics="rmse", weights="uniform")[T2M][0],
    )
    alone = evaluate(given, truth, metrics=CRPS, weights="uniform")
    np.testing.assert_array_equal(alone[T2M][0], found[T2M].sel(metric="crps"))


def test_a_missing_value_is_refused_there_too(truth, forecast):
    hole = forecast.copy(deep=True)
    hole[T2M][{MEMBERS: 1, "time": 4, "latitude": 2, "longitude": 3}] = np.nan
    time = str(forecast["time"].values[4])[:16]
    with pytest.raises(InputError, match=f"of the forecast is NaN .*{time}"):
        evaluate(hole, truth, metrics=CRPS)


def test_a_metric_of_frames_of_ones_own(truth, forecast):
    largest = Metric(
        "largest", lambda f, t: np.abs(f - t).max((-2, -1)), dims=("y", "x"), long_name="largest"
    )
    one = forecast.isel({MEMBERS: 0})
    found = evaluate(one, truth, metrics=(largest, "rmse"), weights="uniform")
    assert (found[T2M].sel(metric="largest") > found[T2M].sel(metric="rmse")).all()
    with pytest.raises(InputError, match="largest: metrics of whole frames have no value by lat"):
        evaluate(one, truth, metrics=largest, weights="uniform", by="latitude")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ensemble": "median"}, 'must be "mean" or "members", found \'median\''),
        ({"metrics": CRPS, "ensemble": "members"}, "crps is of all members together"),
        ({"metrics": Metric("rmse", crps)}, "two metrics have the name 'rmse'"),
        (
            {"metrics": Metric("flat", lambda f, t: f.mean((-2, -1)))},
            r"statistic of 'flat' must give an array of shape \(10, 3, .*, found \(10, 3\)",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(truth, forecast, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(forecast, truth, **options)


def test_a_single_forecast_has_no_members(truth, forecast):
    one = forecast.isel({MEMBERS: 0})
    for options, message in (
        ({"ensemble": "members"}, 'ensemble="members" is of forecasts with the dimension'),
        ({"metrics": CRPS}, "crps is of forecasts with the dimension 'realization', found"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(one, truth, **options)
    with pytest.raises(InputError, match="has no member"):
        evaluate(forecast.isel({MEMBERS: slice(0)}), truth)


def test_a_mean_beside_single_forecasts_in_a_scorecard(truth, forecast):
    card = scorecard(
        {"mean": evaluate(forecast, truth), "one": evaluate(forecast.isel({MEMBERS: 0}), truth)}
    )
    assert "ensemble" not in card.attrs
    assert card.model.values.tolist() == ["mean", "one"]


def test_golden_scores(truth, forecast):
    climatology = make_climatology(truth)
    of_mean = evaluate(forecast, truth, climatology=climatology, metrics=("rmse", CRPS))
    of_frames = evaluate(
        forecast, truth, metrics="psnr", weights="uniform", data_range=100.0, ensemble="members"
    )
    overall = of_mean[f"{T2M}_overall"]
    figures = {
        "rmse of the mean of three members, K": overall.sel(metric="rmse"),
        "fair crps of three members, K": overall.sel(metric="crps"),
        "acc of the mean of three members": overall.sel(metric="acc"),
        "psnr of the third member, dB": of_frames[f"{T2M}_overall"].isel({MEMBERS: 2})[0],
    }
    golden("scores", figures, 1e-9)
