"""Scores of ensembles and probabilities: closed forms, other packages' figures, equal bits."""

from __future__ import annotations

from math import erf, pi

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.errors import InputError
from stforecast.evaluation import (
    brier,
    csi,
    evaluate,
    fss,
    quantile_score,
    reliability,
    roc,
    roc_area,
)
from stforecast.evaluation.probabilistic import crps_terms, energy_score
from stforecast.testing import make_forecast, make_weather

T2M, LEAD, MEMBERS = "2m_temperature", "prediction_timedelta", "realization"
SPACE = ("latitude", "longitude")
ALL = (
    *("crps", "crps_fair", "spread_skill", "rank_histogram"),
    *("energy_score", "energy_score_fair", "spectrum"),
)


def make_pair(count: int = 5, seed: int = 0, inits: int = 10, spread: float = 1.0):
    """An ensemble whose members and truth are draws from one distribution, if `spread` is 1."""
    truth = make_weather(20)
    rng = np.random.default_rng(seed)
    base = make_forecast(truth, inits=inits, steps=3, bias=0, spread=0)
    noise = rng.normal(size=(count, *base[T2M].shape)).astype("f4")
    whole = base[T2M].expand_dims({MEMBERS: count}) + spread * noise
    truth[T2M] += rng.normal(size=truth[T2M].shape).astype("f4")
    whole.attrs = truth[T2M].attrs = {"units": "K"}
    return whole.to_dataset(name=T2M), truth


def paired(forecast: xr.Dataset, truth: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Forecast, and truth at its valid times, in float64 and one order of dims."""
    at = truth[T2M].sel(time=forecast["valid_time"].rename(time="init"))
    at = at.drop_vars("time").rename(init="time").assign_coords(time=forecast["time"])
    dims = ("time", LEAD, *SPACE)
    f = forecast[T2M].transpose(MEMBERS, *dims)
    return f.astype("f8").drop_vars("valid_time"), at.transpose(*dims).astype("f8")


@pytest.fixture(scope="module")
def pair():
    return make_pair()


# --- closed forms ---------------------------------------------------------------------------------


def constant(value: float, steps: int = 12) -> xr.Dataset:
    truth = make_weather(steps)
    truth[T2M] = truth[T2M] * 0 + np.float32(value)
    truth[T2M].attrs["units"] = "K"
    return truth


def members(truth: xr.Dataset, values) -> xr.Dataset:
    """Members that are the same everywhere: truth plus a number."""
    one = make_forecast(truth, inits=4, steps=2, bias=0, spread=0)
    parts = [one.assign({T2M: one[T2M] + np.float32(v)}) for v in values]
    whole = xr.concat(parts, MEMBERS)
    whole[T2M].attrs["units"] = "K"
    return whole


def test_crps_of_a_gaussian():
    # Members at the quantiles of N(0, 1), 1,000 of them; truth is at 0.7.
    y, count = 0.7, 1000
    levels = (np.arange(count) + 0.5) / count
    grid = np.linspace(-6, 6, 200_001)
    cdf = np.array([0.5 * (1 + erf(x / 2**0.5)) for x in grid])
    values = np.interp(levels, cdf, grid)
    phi, density = 0.5 * (1 + erf(y / 2**0.5)), np.exp(-(y**2) / 2) / (2 * pi) ** 0.5
    expected = y * (2 * phi - 1) + 2 * density - pi**-0.5  # Gneiting and Raftery 2007, eq. 20
    forecast = np.repeat(values.astype("f4")[:, None, None, None, None], 1, 1)
    from stforecast.evaluation.metrics import METRICS

    crps = METRICS["crps"]
    terms = np.array(list(crps.statistic(forecast, np.full((1, 1, 1, 1), y, "f4"))))
    assert float(crps.finish(terms).squeeze()) == pytest.approx(expected, abs=1e-5)


def test_crps_is_the_integral_of_the_squared_distance_of_two_distributions():
    truth = constant(256.0)
    values, at = np.array([-1.0, 0.5, 0.5, 2.0]), 0.0
    x = np.linspace(-3, 3, 600_001)
    cdf = (values[:, None] <= x).mean(0)
    integral = np.square(cdf - (x >= at)).sum() * (x[1] - x[0])
    found = evaluate(members(truth, values), truth, metrics=("crps", "crps_fair"))
    np.testing.assert_allclose(found[T2M].sel(metric="crps"), integral, rtol=1e-5)
    apart = np.abs(values[:, None] - values).sum()
    fair = np.abs(values).mean() - apart / (2 * 4 * 3)
    np.testing.assert_allclose(found[T2M].sel(metric="crps_fair"), fair, rtol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 50])
@pytest.mark.parametrize(("bias", "spread"), [(0, 1), (-9, 0.01), (0.01, 9)])
def test_crps_of_members_in_float64(count, bias, spread):
    rng = np.random.default_rng(count)
    truth = rng.normal(280, 20, (2, 3, 5, 7)).astype("f4")
    forecast = truth + rng.normal(bias, spread, (count, *truth.shape)).astype("f4")
    f, t = forecast.astype("f8"), truth.astype("f8")
    near, apart = np.abs(f - t).mean(0), np.abs(f[:, None] - f).sum((0, 1)) / 2
    plain, fair = crps_terms(forecast, truth)
    np.testing.assert_allclose(plain, near - apart / count**2, atol=3e-7 * near.max())
    np.testing.assert_allclose(fair, near - apart / (count * (count - 1)), atol=3e-7 * near.max())
    for at in ((slice(1),) * 4, (slice(1, 2), slice(1, 3), slice(None), slice(2))):
        part = list(crps_terms(forecast[(slice(None), *at)], truth[at]))
        np.testing.assert_array_equal(part, [plain[at], fair[at]])


def test_quantile_scores_of_all_levels_make_the_crps():
    # CRPS is twice the mean quantile score over all levels (Gneiting and Ranjan 2011, eq. 14);
    # with quantiles between the members it is nearly so.
    forecast, truth = make_pair(100, inits=2)
    levels = (np.arange(20) + 0.5) / 20
    found = evaluate(forecast, truth, metrics=("crps", quantile_score(levels)))
    score = 2 * found[f"{T2M}_quantile_score_overall"].mean("quantile")
    np.testing.assert_allclose(found[f"{T2M}_overall"][0], score, rtol=0.01)


def test_energy_score_of_known_members():
    truth = constant(256.0)
    found = evaluate(members(truth, [-1, 1, 3]), truth, metrics=("energy_score", "crps"))
    # Errors that are the same at all points: the mean distance is that of one point.
    np.testing.assert_allclose(found[T2M][0], found[T2M][1], rtol=1e-6)
    np.testing.assert_allclose(found[T2M][0], 5 / 3 - 8 / 9, rtol=1e-6)


def test_brier_score_of_known_members():
    truth = constant(256.0)
    forecast = members(truth, [-1, 1, 3, 5])
    found = evaluate(forecast, truth, metrics=(brier(257.5), brier(257.5, fair=True)))
    np.testing.assert_allclose(found[T2M][0], 0.25, rtol=1e-6)
    np.testing.assert_allclose(found[T2M][1], 0.25 - 0.25 / 3, rtol=1e-6)
    assert found[T2M].attrs["threshold_brier"] == "at or above 257.5"


def test_a_single_forecast_is_a_sure_one(pair):
    forecast, truth = pair
    one = forecast.isel({MEMBERS: 0}, drop=True)
    names = ("mae", "rmse", "crps", "crps_fair", "energy_score")
    found = evaluate(one, truth, metrics=(*names, brier(280)))[T2M]
    np.testing.assert_allclose(found.sel(metric="crps"), found.sel(metric="mae"), rtol=1e-6)
    np.testing.assert_allclose(found.sel(metric="crps_fair"), found.sel(metric="mae"), rtol=1e-6)
    hits = evaluate(one, truth, metrics=csi(280.0))  # an event that is not sure scores 0 or 1
    assert (found.sel(metric="brier") <= 1 - hits[T2M][0]).all()
    with pytest.raises(InputError, match="rank_histogram is of forecasts with the dimension"):
        evaluate(one, truth, metrics="rank_histogram")
    with pytest.raises(InputError, match="has 1 member: crps_fair needs 2"):
        evaluate(forecast.isel({MEMBERS: [0]}), truth, metrics="crps_fair")


# --- calibration ----------------------------------------------------------------------------------


def histogram(forecast: xr.Dataset, truth: xr.Dataset) -> np.ndarray:
    found = evaluate(forecast, truth, metrics="rank_histogram", weights="uniform")
    return found[f"{T2M}_rank_histogram_overall"].values


def test_exchangeable_members_have_even_ranks_and_biased_ones_have_not():
    forecast, truth = make_pair(9)
    n = forecast[T2M].isel({MEMBERS: 0}).size
    even = histogram(forecast, truth)
    assert even.sum() == pytest.approx(1, abs=1e-12)
    # Valid times share their truth, so cases are fewer than points: 5 of its standard deviations.
    assert np.abs(even - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / (n / 3))
    biased = histogram(forecast + np.float32(0.5), truth)
    assert biased[0] > 1.5 * biased[-1]
    narrow = histogram(make_pair(9, spread=0.3)[0], truth)
    assert min(narrow[0], narrow[-1]) > 2 * narrow[1:-1].max()


def test_ties_are_shared():
    truth = constant(256.0)
    np.testing.assert_allclose(histogram(members(truth, [0, 0, 1]), truth), [1 / 3] * 3 + [0])


def test_spread_is_skill_where_members_and_truth_are_alike():
    for count in (2, 5):
        ratio = evaluate(*make_pair(count), metrics="spread_skill")[f"{T2M}_overall"]
        assert float(ratio[0]) == pytest.approx(1, abs=0.05)
    ratio = evaluate(*make_pair(5, spread=0.5), metrics="spread_skill")[f"{T2M}_overall"]
    assert float(ratio[0]) < 0.6


def test_reliability_and_roc_by_hand(pair):
    forecast, truth = pair
    f, t = paired(forecast, truth)
    p, o = (f >= 280).mean(MEMBERS).values, (t >= 280).values
    made = (reliability(280), roc(280), roc_area(280))
    found = evaluate(forecast, truth, metrics=made, weights="uniform")
    table = found[f"{T2M}_reliability_overall"]
    assert table.dims == ("part", "probability")
    for k in (0, 2, 10):  # of five members: 0, 0.2, ..., 1
        case = np.isclose(p, k / 10)
        expected = [k / 10, o[case].mean(), case.mean()]
        np.testing.assert_allclose(table.isel(probability=k), expected, rtol=1e-6)
    assert np.isnan(table.sel(part="frequency")[1])
    curve = found[f"{T2M}_roc_overall"].sel(warning=0.6)
    warned = p > 0.59
    np.testing.assert_allclose(curve, [warned[~o].mean(), warned[o].mean()], rtol=1e-6)
    # The area is the chance that an event has the higher probability, ties halved.
    events, rest = p[o][:, None], p[~o]
    area = (events > rest).mean() + (events == rest).mean() / 2
    np.testing.assert_allclose(found[f"{T2M}_overall"].sel(metric="roc_area"), area, rtol=1e-6)


# --- other packages -------------------------------------------------------------------------------


def test_beside_scores(pair):
    scores = pytest.importorskip("scores")
    forecast, truth = pair
    f, t = paired(forecast, truth)
    levels, limits = [0.1, 0.5, 0.8], [278.0, 282.0]
    made = (quantile_score(levels), brier(limits), brier(limits, fair=True))
    found = evaluate(forecast, truth, metrics=(*ALL, *made), weights="uniform")
    keep = {"preserve_dims": [LEAD]}
    for name, method in (("crps", "ecdf"), ("crps_fair", "fair")):
        other = scores.probability.crps_for_ensemble(f, t, MEMBERS, method=method, **keep)
        np.testing.assert_allclose(found[T2M].sel(metric=name), other, rtol=1e-6)
    for name, fair in (("brier", False), ("brier_fair", True)):
        other = scores.probability.brier_score_for_ensemble(
            f, t, MEMBERS, limits, fair_correction=fair, **keep
        )
        ours = found[f"{T2M}_{name}"]
        np.testing.assert_allclose(ours, other.transpose(*ours.dims), rtol=1e-6)
    other = scores.probability.rank_histogram(f, t, MEMBERS, **keep)
    ours = found[f"{T2M}_rank_histogram"]
    np.testing.assert_allclose(ours, other.transpose("rank", LEAD), rtol=1e-6)
    for level in levels:
        other = scores.continuous.quantile_score(f.quantile(level, MEMBERS), t, level, **keep)
        ours = found[f"{T2M}_quantile_score"].sel(quantile=level)
        np.testing.assert_allclose(ours, other, rtol=1e-6)


def test_beside_scoringrules(pair):
    rules = pytest.importorskip("scoringrules")
    forecast, truth = pair
    f, t = (np.moveaxis(x.values, 0, -1) if x.ndim > 4 else x.values for x in paired(*pair))
    found = evaluate(forecast, truth, metrics=ALL, weights="uniform")[f"{T2M}_overall"]
    for name, estimator in (("crps", "nrg"), ("crps_fair", "fair")):
        other = rules.crps_ensemble(t, f, estimator=estimator).mean()
        np.testing.assert_allclose(found.sel(metric=name), other, rtol=1e-6)


def test_energy_scores_in_full(pair):
    forecast, truth = pair
    f, t = (x.values for x in paired(forecast, truth))
    weights = np.sin(np.deg2rad(truth["latitude"].values + 7.5))
    weights = weights - np.sin(np.deg2rad(truth["latitude"].values - 7.5))
    found = evaluate(forecast, truth, metrics=("energy_score", "energy_score_fair"))
    area = np.broadcast_to(weights[:, None] / weights.sum() / f.shape[-1], f.shape[-2:])

    def norm(x):
        return np.sqrt((np.square(x) * area).sum((-2, -1)))

    near = norm(f - t).mean(0)
    apart = norm(f[:, None] - f[None]).sum((0, 1))
    for name, pairs in (("energy_score", 25), ("energy_score_fair", 20)):
        expected = (near - apart / (2 * pairs)).mean(0)
        np.testing.assert_allclose(found[T2M].sel(metric=name), expected, rtol=1e-6)


@pytest.mark.parametrize("fair", [False, True])
def test_energy_scores_are_the_same_beside_other_maps(fair):
    squares = np.random.default_rng(0).random((1275, 1, 7, 3))  # of 50 members and their pairs
    whole = energy_score(squares, fair)
    one = [
        [energy_score(squares[:, :, i : i + 1, j : j + 1], fair) for j in range(3)]
        for i in range(7)
    ]
    np.testing.assert_array_equal(np.block(one), whole)


# --- streamed -------------------------------------------------------------------------------------

EVERYTHING = (
    *ALL,
    brier([278.0, 282.0]),
    reliability([278.0, 282.0]),
    roc_area(280.0),
    quantile_score(0.9),
    csi([278.0, 282.0]),
    fss(280.0, 3),
)


@settings(max_examples=4, deadline=None)
@given(
    member=st.integers(1, 5),
    time=st.integers(2, 4),
    lead=st.integers(1, 3),
    row=st.integers(5, 12),
    column=st.integers(9, 24),
    by=st.sampled_from([(LEAD,), ("hour", LEAD), ("time",), ()]),
)
def test_any_chunks_give_the_same_bits(member, time, lead, row, column, by):
    forecast, truth = make_pair(inits=4)
    chunks = {MEMBERS: member, "time": time, LEAD: lead, "latitude": row, "longitude": column}
    options = {"metrics": EVERYTHING, "by": by}
    whole = evaluate(forecast, truth, **options)
    lazy = evaluate(forecast.chunk(chunks), truth.chunk(time=7, longitude=5), **options)
    assert set(lazy.data_vars) == set(whole.data_vars)
    xr.testing.assert_identical(lazy, whole)


def test_any_chunks_give_the_same_bits_by_place_and_season(pair):
    forecast, truth = pair
    metrics = [m for m in EVERYTHING if not str(m).startswith(("energy", "spectrum"))]
    forecast = forecast.isel(time=slice(4))
    options = {"metrics": metrics, "by": ("hour", *SPACE)}
    lazy = evaluate(forecast.chunk({"time": 3, "longitude": 7, LEAD: 2}), truth, **options)
    xr.testing.assert_identical(lazy, evaluate(forecast, truth, **options))


@pytest.mark.parametrize("metric", [m for m in EVERYTHING if m in ALL or m.whole])
def test_parts_of_maps_are_no_maps(pair, metric):
    forecast, truth = pair
    forecast = forecast.isel(time=slice(2))
    lazy = evaluate(forecast.chunk({"latitude": 5, "longitude": 7}), truth, metrics=metric)
    xr.testing.assert_identical(lazy, evaluate(forecast, truth, metrics=metric))


def test_any_blocks_give_the_same_bits(pair):
    forecast, truth = pair
    whole = evaluate(forecast, truth, metrics=EVERYTHING)
    for block in (4 * 24 * 7, 2**14):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stforecast.evaluation.sums.BLOCK", block)
            xr.testing.assert_identical(evaluate(forecast, truth, metrics=EVERYTHING), whole)


def test_missing_values(pair):
    forecast, truth = pair
    hole = truth.copy(deep=True)
    hole[T2M][9, 2, 3] = np.nan
    metrics = [m for m in EVERYTHING if m != "spectrum"]
    with pytest.raises(InputError, match="of the truth is NaN or infinite"):
        evaluate(forecast, hole, metrics=brier(280.0))
    found = evaluate(forecast, hole, metrics=metrics, nan="mask", weights="uniform")
    f, t = paired(forecast, hole)
    gaps = np.isnan(t.values)
    p = (f >= 278).mean(MEMBERS).values
    expected = np.square(p - (t.values >= 278))[~gaps].mean()
    ours = found[f"{T2M}_brier_overall"].sel(threshold=278)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    away = forecast.copy(deep=True)
    away[T2M][{MEMBERS: 1, "time": 4, "latitude": 2, "longitude": 3}] = np.nan
    for metric in EVERYTHING:
        with pytest.raises(InputError, match="of the forecast is NaN or infinite: first at time"):
            evaluate(away, truth, metrics=metric)


def test_what_has_no_meaning_is_refused(pair):
    forecast, truth = pair
    for options, message in (
        ({"metrics": "brier"}, r"give metrics=stforecast.evaluation.brier\(...\)"),
        ({"metrics": brier(7.0)}, "thresholds of 2m_temperature are in K"),
        ({"metrics": (brier([1e3]), csi([280.0]))}, "csi has the threshold"),
        ({"metrics": "energy_score", "by": "latitude"}, "energy_score is of whole maps"),
        ({"metrics": brier({"v": 300.0})}, "no thresholds for"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(forecast, truth, **options)
    for call in (
        lambda: quantile_score(1.5),
        lambda: reliability(1, bins=0),
        lambda: brier([3, 2]),
        lambda: brier("warm"),
        lambda: fss(280, 4),
    ):
        with pytest.raises(InputError):
            call()
