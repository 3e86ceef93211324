"""Confidence intervals and paired significance: known coverage, another's block lengths."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.errors import InputError
from stforecast.evaluation.cosines import ar1_variances, student
from stforecast.evaluation.evaluate import evaluate
from stforecast.evaluation.scorecards import mean_over_time, scorecard, verdicts
from stforecast.evaluation.significance import adjusted_for_number, block_length, compare

LEAD = "prediction_timedelta"
HOURS = np.array([1, 2], dtype="m8[h]").astype("m8[ns]")


def correlated(n, phi, seed, burn=0):
    noise = np.random.default_rng(seed).normal(size=n + burn)
    x = np.zeros(n + burn)
    for i in range(1, n + burn):
        x[i] = phi * x[i - 1] + noise[i]
    return x[burn:]


# arch 8, optimal_block_length(correlated(n, phi, seed=n))["circular"]
ARCH = {
    (0, 50): 1.1913780982595221,
    (0, 2000): 2.6436699732348163,
    (0.3, 50): 3.7897233746362375,
    (0.3, 365): 4.337929411147106,
    (0.6, 365): 12.480853532851057,
    (0.6, 2000): 20.75893030495893,
    (0.9, 50): 8.338004324347741,
    (0.9, 365): 25.882645915214074,
    (-0.5, 365): 13.032568991118282,
}


@pytest.mark.parametrize(("phi", "n"), ARCH)
def test_block_lengths_are_those_of_arch(phi, n):
    assert block_length(correlated(n, phi, n)) == pytest.approx(ARCH[phi, n], rel=1e-9)


def test_block_lengths_of_what_does_not_vary_and_of_what_never_forgets():
    assert block_length(np.full(100, 3.7)) == 1
    assert block_length(np.zeros(100)) == 1
    # A random walk: at most N / 3, rounded up.
    assert block_length(np.cumsum(np.random.default_rng(4).normal(size=25))) == 9


def coverage(phi, n, replications=300, **options):
    """How often 95% intervals of mean differences hold the true one, 0: series as lead times."""
    rng = np.random.default_rng([n, round(100 * phi)])
    x = rng.normal(size=(n, replications))
    for i in range(1, n):
        x[i] = phi * x[i - 1] + np.sqrt(1 - phi**2) * x[i]
    leads = np.arange(replications).astype("m8[h]").astype("m8[ns]")
    both = (make_scores(losses, leads=leads) for losses in (10 + x, 0 * x + 10))
    found = compare(*both, metric="mse", samples=200, **options)["field"]
    low, high = found.sel(quantity="low"), found.sel(quantity="high")
    return float(((low < 0) & (high > 0)).mean())


@pytest.mark.parametrize(("phi", "n"), [(0, 300), (0.5, 100), (0.9, 100), (0.97, 100), (0.97, 400)])
def test_intervals_hold_the_truth_as_often_as_they_say(phi, n):
    assert 0.92 <= coverage(phi, n) <= 0.98  # 0.95, standard deviation 0.013


def test_what_holds_less():
    assert 0.86 <= coverage(0.6, 300, method="bootstrap") <= 0.97
    assert coverage(0.6, 300, 100, block=1) < 0.75  # single initialisations: much too sure
    assert coverage(0.97, 100, method="ewc") < 0.75  # its spectrum is not flat


def test_published_cosines_are_a_mean_square():
    """EWC from its definition: projections on nu cosines, Student's t (Lazarus et al., eq. 4)."""
    x, n, nu = correlated(400, 0.3, 1), 400, 21
    found = compare(
        make_scores(np.stack([10 + x] * 2, 1)), make_scores(np.full((n, 2), 10.0)), metric="mse",
        method="ewc",
    )["field"].isel({LEAD: 0})  # fmt: skip
    t = np.arange(n) + 0.5
    projected = [np.sqrt(2 / n) * x @ np.cos(np.pi * j * t / n) for j in range(1, nu + 1)]
    error = np.sqrt(np.mean(np.square(projected)) / n)
    half = 2.0796138447276626 * error  # 97.5% quantile of Student's t with 21 degrees
    np.testing.assert_allclose(
        found.sel(quantity=["low", "high"]), [x.mean() - half, x.mean() + half]
    )
    assert np.isnan(found.sel(quantity="block_length"))


def test_tails_and_variances_of_the_cosines():
    stats = pytest.importorskip("scipy.stats")
    for nu in (1, 2, 7, 126):
        t = np.array([0, 0.3, 2.5, 8])
        tail, density = student(t, nu)
        np.testing.assert_allclose(tail, 2 * stats.t.sf(t, nu), atol=1e-14)
        np.testing.assert_allclose(density, stats.t.pdf(t, nu), rtol=1e-10)
    for n, phi in ((40, 0.9), (41, 0.99), (41, -0.4)):
        lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        basis = np.sqrt(2 / n) * np.cos(np.pi * np.outer(np.arange(n) + 0.5, np.arange(12)) / n)
        basis[:, 0] = np.sqrt(1 / n)
        expected = np.einsum("ij,ik,kj->j", basis, phi**lag / (1 - phi**2), basis)
        found = ar1_variances(n, 11, np.array([phi]))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_method_follows_from_the_lag_correlation():
    x = np.stack([correlated(200, phi, 3) for phi in (0, 0.8)], axis=1)
    found = compare(make_scores(20 + x), make_scores(20 + 0 * x), metric="mse")["field"]
    lag, block = (found.sel(quantity=q).values for q in ("lag_correlation", "block_length"))
    assert lag[0] < 0.2 < 0.6 < lag[1]
    assert np.isnan(block).tolist() == [False, True]
    daily = np.tile([3.0, -1, -1, -1], 50)[:, None] + 0.1 * x  # only the fourth lag is alike
    found = compare(make_scores(20 + daily), make_scores(20 + 0 * x), metric="mse")["field"]
    assert (found.sel(quantity="lag_correlation") > 0.9).all()


def test_p_values_are_adjusted_for_their_number():
    # Benjamini and Hochberg (1995), section 3.2: four of these fifteen are found at q = 0.05.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    p += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    mixed = np.random.default_rng(0).permutation(15)
    found = adjusted_for_number(np.array(p)[mixed])[np.argsort(mixed)]
    assert (found <= 0.05).tolist() == [True] * 4 + [False] * 11
    np.testing.assert_allclose(found[:4], [0.0015, 0.003, 0.0095, 0.035625])
    assert (np.diff(found) >= 0).all()
    assert found[-1] == 1
    assert adjusted_for_number([0.04]) == 0.04


def test_verdicts_count_leads_after_the_correction():
    """40 lead times without a difference: some intervals leave out 0, no verdict does."""
    rng = np.random.default_rng(8)
    leads = np.arange(1, 41).astype("m8[h]").astype("m8[ns]")
    pair = [make_scores(1 + rng.random((60, 40)), leads=leads, metric="rmse") for _ in range(2)]
    whole = {name: mean_over_time(s) for name, s in zip("ab", pair, strict=True)}
    card = scorecard(whole, by_time=dict(zip("ab", pair, strict=True)))
    of = card["field_difference"].sel(model="a", other_model="b")
    low, high = of.sel(quantity="low"), of.sel(quantity="high")
    assert int(((low > 0) | (high < 0)).sum()) >= 1
    row = verdicts(card).loc["a", "b"]
    assert row["leads"] == "0 of 40"
    assert row["against"] == ""
    assert "Benjamini and Hochberg (1995)" in card.attrs["intervals"]


def make_scores(losses, by=("time", LEAD), name="field", metric="mse", leads=HOURS):
    """Scores by initialisation as evaluate() gives them, from squared errors (N, L)."""
    n = len(losses)
    time = pd.date_range("2018-01-01", periods=n, freq="6h").to_numpy()
    arrays = {
        name: (("metric", *by), np.asarray(losses)[None], {f"units_{metric}": "K**2"}),
        f"{name}_overall": (("metric",), [np.mean(losses)]),
    }
    coords = {"metric": [metric], "time": time} | ({LEAD: leads} if LEAD in by else {})
    return xr.Dataset(arrays, coords, {"weights": "area", "initialisations": n})


def test_a_constant_difference_is_certain():
    rng = np.random.default_rng(0)
    b = 4 + rng.random((100, 2))
    result = compare(make_scores(b - 1), make_scores(b), metric="mse")
    assert result["field"].dims == ("quantity", LEAD)
    table = result["field"].to_dataset("quantity")
    np.testing.assert_allclose(table["a"], (b - 1).mean(0))
    np.testing.assert_allclose(table["b"], b.mean(0))
    for quantity in ("difference", "low", "high"):
        np.testing.assert_allclose(table[quantity], -1, atol=1e-12)
    overall = result["field_overall"]
    assert float(overall.sel(quantity="difference")) == pytest.approx(-1)
    assert float(overall.sel(quantity="p_value")) == 1 / 2001  # no drawn one is as far from it


def test_equal_models_do_not_differ():
    losses = np.random.default_rng(0).random((50, 2))
    result = compare(make_scores(losses), make_scores(losses))["field_overall"]
    assert float(result.sel(quantity="difference")) == 0
    assert float(result.sel(quantity="p_value")) == 1
    assert float(result.sel(quantity="block_length")) == 1


def test_the_root_comes_last_and_draws_are_paired():
    weather = 1 + 5 * np.random.default_rng(1).random((200, 1))  # hard days are hard for both
    a = weather * np.random.default_rng(2).uniform(0.8, 1, (200, 2))
    b = weather * np.random.default_rng(3).uniform(0.9, 1.1, (200, 2))
    result = compare(make_scores(a), make_scores(b), samples=1000)
    table = result["field"].to_dataset("quantity")
    np.testing.assert_allclose(table["a"], np.sqrt(a.mean(0)))
    np.testing.assert_allclose(table["difference"], np.sqrt(a.mean(0)) - np.sqrt(b.mean(0)))
    assert (table["low"] < table["difference"]).all()
    assert (table["difference"] < table["high"]).all()
    assert (table["high"] < 0).all()  # certain, although single days differ far more than models
    assert (table["p_value"] < 0.01).all()
    assert float(table["high"].max() - table["low"].min()) < 0.1
    overall = result["field_overall"].sel(quantity="a")
    assert float(overall) == pytest.approx(np.sqrt(a.mean()))
    # Roots of scores by initialisation are squared first.
    roots = [make_scores(np.sqrt(x), metric="rmse") for x in (a, b)]
    xr.testing.assert_allclose(compare(*roots, samples=1000), result)


def test_the_other_way_round():
    rng = np.random.default_rng(4)
    a, b = 1 + rng.random((60, 2)), 1.2 + rng.random((60, 2))
    one = compare(make_scores(a), make_scores(b), metric="mse")["field"]
    two = compare(make_scores(b), make_scores(a), metric="mse")["field"]
    np.testing.assert_allclose(one.sel(quantity="low"), -two.sel(quantity="high"), atol=1e-9)
    np.testing.assert_allclose(one.sel(quantity="p_value"), two.sel(quantity="p_value"))


def test_the_seed_decides_and_attributes_tell():
    rng = np.random.default_rng(5)
    pair = [make_scores(1 + rng.random((40, 2))) for _ in range(2)]
    first = compare(*pair, samples=200, seed=1)
    xr.testing.assert_identical(first, compare(*pair, samples=200, seed=1))
    assert not first["field"].equals(compare(*pair, samples=200, seed=2)["field"])
    attrs = first.attrs
    assert "circular block bootstrap" in attrs["method"]
    assert "Patton" in attrs["block_length"]
    assert (attrs["samples"], attrs["seed"], attrs["level"]) == (200, 1, 0.95)
    fixed = compare(*pair, samples=200, block=7)
    assert (fixed["field"].sel(quantity="block_length") == 7).all()
    assert fixed.attrs["block_length"] == "fixed by the caller"
    wide = compare(*pair, samples=200, level=0.99)["field"]
    assert (
        wide.sel(quantity="low") < compare(*pair, samples=200)["field"].sel(quantity="low")
    ).all()


def test_scores_of_evaluate():
    rng = np.random.default_rng(6)
    time = pd.date_range("2018-01-01", periods=80, freq="1h").to_numpy()
    space = {"latitude": [-45.0, 0, 45], "longitude": [0.0, 90, 180, 270]}
    truth = xr.Dataset(
        {"t2m": (("time", *space), 280 + rng.normal(size=(80, 3, 4)), {"units": "K"})},
        {"time": time, **space},
    )
    at = np.arange(70)[:, None] + [1, 2]
    scores = {}
    for name, size in (("good", 1.0), ("bad", 2.0)):
        values = truth["t2m"].values[at] + size * rng.normal(size=(70, 2, 3, 4))
        forecast = xr.Dataset(
            {"t2m": (("time", LEAD, *space), values, {"units": "K"})},
            {"time": time[:70], LEAD: HOURS, **space},
        )
        scores[name] = evaluate(forecast, truth, by=("time", LEAD), metrics=("rmse", "mae"))
    result = compare(scores["good"], scores["bad"])
    name = "2m_temperature"
    assert result[name].attrs["units"] == "K"
    for who, quantity in (("good", "a"), ("bad", "b")):
        expected = scores[who][f"{name}_overall"].sel(metric="rmse")
        overall = result[f"{name}_overall"].sel(quantity=quantity)
        assert float(overall) == pytest.approx(float(expected), rel=1e-9)
    assert float(result[f"{name}_overall"].sel(quantity="high")) < -0.5
    absolute = compare(scores["good"], scores["bad"], metric="mae")
    assert float(absolute[f"{name}_overall"].sel(quantity="p_value")) < 0.01
    whole = {
        k: make_scores(np.arange(30.0) % 7 + i, by=("time",)) for i, k in enumerate(("a", "b"))
    }
    assert list(compare(whole["a"], whole["b"]).dims) == ["quantity"]


LOSSES = 1 + np.random.default_rng(0).random((40, 2))


def _changed(scores, **attrs):
    return scores.assign_attrs(attrs)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (make_scores(LOSSES), make_scores(LOSSES[:30]), {}, "not of the same forecasts"),
        (
            make_scores(LOSSES),
            _changed(make_scores(LOSSES), weights="uniform"),
            {},
            "weights area and uniform",
        ),
        (make_scores(LOSSES), make_scores(LOSSES, name="other"), {}, "variables"),
        (make_scores(LOSSES[:10]), make_scores(LOSSES[:10]), {}, "10 initialisations are too few"),
        (make_scores(LOSSES), make_scores(LOSSES), {"metric": "bias"}, "found 'bias'"),
        (make_scores(LOSSES), make_scores(LOSSES), {"metric": "mae"}, "no 'mae', found"),
        (make_scores(LOSSES), make_scores(LOSSES), {"level": 95}, "level must lie"),
        (make_scores(LOSSES), make_scores(LOSSES), {"block": 41}, "block must be from 1 to 40"),
        (make_scores(LOSSES), make_scores(LOSSES), {"method": "hac"}, "found 'hac'"),
        (make_scores(LOSSES), make_scores(LOSSES), {"block": 4, "method": "ewc"}, "of the boots"),
        (make_scores(LOSSES), make_scores(LOSSES * np.nan), {}, "80 scores are NaN"),
        (
            make_scores(LOSSES).mean("time"),
            make_scores(LOSSES).mean("time"),
            {},
            "scores_a must be by initialisation",
        ),
    ],
)
def test_what_does_not_compare(a, b, options, message):
    with pytest.raises(InputError, match=message):
        compare(a, b, **options)
