"""Closed forms first, then WeatherBench 2's formulas."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.conventions.grid import area_weights, cell_bounds, grid_weights
from stforecast.errors import InputError
from stforecast.evaluation.metrics import (
    METRICS,
    Metric,
    WeightedMean,
    absolute_error,
    anomaly_correlation,
    anomaly_products,
    error,
    squared_error,
)


def wb2_weights(latitude: np.ndarray) -> np.ndarray:
    """WeatherBench 2's get_lat_weights, written out: cells always reach to the poles."""
    points = np.deg2rad(latitude)
    bounds = np.concatenate([[-np.pi / 2], (points[:-1] + points[1:]) / 2, [np.pi / 2]])
    area = np.sin(bounds[1:]) - np.sin(bounds[:-1])
    return area / area.mean()


def gaussian(n: int) -> np.ndarray:
    return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(n)[0]))


GLOBAL = {
    "cell centres": np.linspace(-87.1875, 87.1875, 32),
    "with poles": np.linspace(-90, 90, 37),
    "Gaussian": gaussian(32),
    "float32": np.linspace(-87.1875, 87.1875, 32).astype("float32"),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_global_weights_are_weatherbench2s(name):
    np.testing.assert_allclose(area_weights(GLOBAL[name]), wb2_weights(GLOBAL[name]), rtol=1e-6)


def test_global_cells_cover_the_sphere():
    # Four rows: bounds at the pole, 45 degrees, the equator and so on. Unit sphere: sum is 2.
    s = np.sin(np.deg2rad(45))
    area = np.array([1 - s, s, s, 1 - s])
    np.testing.assert_allclose(area_weights([-67.5, -22.5, 22.5, 67.5]), area / area.mean())
    assert area.sum() == pytest.approx(2)


def test_a_pole_point_is_half_a_cell_and_not_nothing():
    weights = area_weights([-90, -45, 0, 45, 90])
    cap = 1 - np.sin(np.deg2rad(67.5))
    assert weights[0] == pytest.approx(cap / (2 / 5), rel=1e-12)
    assert weights[0] > 0
    assert np.cos(np.deg2rad(90)) == pytest.approx(0)


def test_a_regional_grid_is_not_stretched_to_the_pole():
    latitude = np.arange(15, 75.1, 2.5)
    edges = np.sin(np.deg2rad(np.arange(13.75, 76.3, 2.5)))
    expected = np.diff(edges) / np.diff(edges).mean()
    np.testing.assert_allclose(area_weights(latitude), expected, rtol=1e-12)
    # Stretched to the south pole, its first row would outweigh all the others together.
    assert wb2_weights(latitude)[0] > wb2_weights(latitude)[1:].sum()


def test_a_region_that_ends_one_spacing_before_the_pole_keeps_its_cell():
    latitude = np.arange(50, 87.6, 2.5).astype("float32") + np.float32(1e-5)
    edges = np.sin(np.deg2rad(np.arange(48.75, 88.8, 2.5)))
    expected = np.diff(edges) / np.diff(edges).mean()
    np.testing.assert_allclose(area_weights(latitude), expected, rtol=1e-5)


def test_north_up_is_south_up_reversed():
    latitude = gaussian(10)[:7]
    np.testing.assert_allclose(area_weights(latitude[::-1]), area_weights(latitude)[::-1], 1e-12)


def test_given_bounds_win_in_either_form():
    edges = np.array([-90.0, -20.0, 30.0, 50.0])
    expected = np.diff(np.sin(np.deg2rad(edges)))
    expected /= expected.mean()
    pairs = np.stack([edges[1:], edges[:-1]], axis=1)  # upper bound first: no matter
    for bounds in (edges, pairs):
        np.testing.assert_allclose(area_weights([-50, 0, 40], bounds=bounds), expected)


def test_one_row_has_weight_one():
    assert area_weights([48.0]).tolist() == [1.0]


def test_fine_rows():
    area = np.diff(np.sin(np.deg2rad([-0.05, 0.05, 0.15, 0.25])))
    np.testing.assert_allclose(area_weights([0, 0.1, 0.2]), area / area.mean())


@pytest.mark.parametrize(
    ("latitude", "bounds", "message"),
    [
        ([[0, 1], [2, 3]], None, "one dimension"),
        ([], None, "at least one point"),
        ([0, 45, 91], None, "-90 to 90"),
        ([0, np.nan, 20], None, "-90 to 90"),
        ([0, 20, 10], None, "ascending or descending"),
        ([0, 0.5, 0.2], None, "ascending or descending"),
        ([0, 0, 10], None, "ascending or descending"),
        ([20, 10, 10], None, "ascending or descending"),
        ([0, 10, 20], [-5, 5, 15], "shape"),
        ([0, 10, 20], [-5, 5, 15, 18], "within the bounds"),
    ],
)
def test_bad_latitudes(latitude, bounds, message):
    with pytest.raises(InputError, match=message):
        area_weights(latitude, bounds=bounds)


def test_mean_square_of_an_error_that_depends_on_latitude():
    # error = sin(latitude): its mean square over the sphere is 1/3. Second-order quadrature.
    gaps = []
    for n in (18, 36, 72):
        latitude = (np.arange(n) + 0.5) * 180 / n - 90
        error = np.broadcast_to(np.sin(np.deg2rad(latitude))[:, None], (n, 5))
        weights, _, _ = grid_weights((n, 5), latitude)
        gaps.append(abs(float(WeightedMean.of(error**2, weights).mean) - 1 / 3))
    assert gaps[-1] < 2e-4
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.02)
    assert gaps[1] / gaps[2] == pytest.approx(4, rel=0.02)


def test_policies_are_named_and_pixels_get_uniform_weights(caplog):
    weights, name, words = grid_weights((3, 4), [-60, 0, 60])
    assert name == "area"
    assert words == "cosine-free cell-area weights, mean 1"
    assert weights.mean() == pytest.approx(1)
    assert weights[0, 0] == weights[2, 3] < weights[1, 1]
    assert grid_weights((3, 4), [-60, 0, 60], "uniform")[1] == "uniform"
    with caplog.at_level(logging.INFO, "stforecast"):
        weights, name, words = grid_weights((3, 4), None)
    assert (weights == 1).all()
    assert name == "uniform"
    assert "no latitude" in words
    assert "no latitude" in caplog.text
    with pytest.raises(InputError, match="cosine"):
        grid_weights((3, 4), [-60, 0, 60], "cosine")


def test_statistics_by_hand():
    f, t = np.array([1.0, 2.0, 5.0]), np.array([3.0, 2.0, 1.0])
    np.testing.assert_array_equal(error(f, t), [-2, 0, 4])
    np.testing.assert_array_equal(absolute_error(f, t), [2, 0, 4])
    np.testing.assert_array_equal(squared_error(f, t), [4, 0, 16])
    products = anomaly_products(f, t, np.array([1.0, 1, 1]))
    np.testing.assert_array_equal(products, [[0, 1, 0], [0, 1, 16], [4, 1, 0]])


def test_weighted_mean_keeps_the_axes_asked_for_in_their_order():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(5, 2, 3, 4)), rng.uniform(0.5, 2, (3, 4))
    state = WeightedMean.of(values, weights, keep=(1, 0))
    expected = np.array([[np.average(m, weights=weights) for m in row] for row in values])
    np.testing.assert_allclose(state.mean, expected.T)
    by_row = WeightedMean.of(values, weights, keep=(2,))
    expected = [
        np.average(values[:, :, i].reshape(10, 4).mean(0), weights=weights[i]) for i in range(3)
    ]
    np.testing.assert_allclose(by_row.mean, expected)
    # Whatever was kept, the mean over the rest is the mean over everything.
    everything = np.average(values.mean((0, 1)), weights=weights)
    for part in (state, by_row, WeightedMean.of(values, weights)):
        assert float(part.collapse().mean) == pytest.approx(everything)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_in_any_order_are_the_whole(sizes, order, seed):
    rng = np.random.default_rng(seed)
    values, weights = 280 + rng.normal(size=(sum(sizes), 2, 3, 5)), rng.uniform(0.1, 3, (3, 5))
    whole = WeightedMean.of(values, weights, keep=(1,))
    ends = np.cumsum(sizes)
    parts = [
        WeightedMean.of(values[b - n : b], weights, keep=(1,))
        for n, b in zip(sizes, ends, strict=True)
    ]
    order.shuffle(parts)
    cut = order.randint(0, len(parts))
    halves = [WeightedMean.merge(p) for p in (parts[:cut], parts[cut:]) if p]
    np.testing.assert_allclose(WeightedMean.merge(halves).mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(WeightedMean.merge(halves).weight, whole.weight, rtol=1e-13)


def test_states_of_different_shape_do_not_add():
    a = WeightedMean.of(np.ones((4, 2, 3)), np.ones((2, 3)))
    b = WeightedMean.of(np.ones((4, 2, 3)), np.ones((2, 3)), keep=(0,))
    with pytest.raises(ValueError, match="shape"):
        a + b


def test_the_root_comes_last():
    mse = WeightedMean.of(np.array([[1.0], [9.0]]), np.ones(1)).mean
    assert METRICS["rmse"].finish(mse) == pytest.approx(np.sqrt(5))  # and not (1 + 3) / 2


def test_nan_propagates_but_for_points_of_weight_zero():
    values = np.array([[[1.0, np.nan], [3.0, 5.0]]])
    assert np.isnan(WeightedMean.of(values, np.ones((2, 2))).mean)
    mask = np.array([[1.0, 0.0], [2.0, 1.0]])
    assert WeightedMean.of(values, mask).mean == pytest.approx((1 + 6 + 5) / 4)
    assert np.isnan(
        WeightedMean.of(values, np.zeros((2, 2))).mean
    )  # nothing to say, and no warning


def test_float32_sums_are_made_in_float64():
    values = np.full((2000, 30, 40), 300.1, dtype="float32")
    mean = WeightedMean.of(values, np.ones((30, 40))).mean
    assert float(mean) == pytest.approx(float(np.float32(300.1)), rel=1e-12)


def test_units():
    units = {m: METRICS[m].units("K") for m in METRICS}
    assert units == {
        "rmse": "K",
        "mse": "K**2",
        "mae": "K",
        "bias": "K",
        "mape": "%",
        "acc": "1",
        "mse_sum": "K**2",
        "mae_sum": "K",
        "ssim": "1",
        "psnr": "dB",
        "ssim_paper": "1",
        "psnr_paper": "dB",
        "lpips": "1",
        "crps": "K",
        "crps_fair": "K",
        "spread_skill": "1",
        "rank_histogram": "1",
        "energy_score": "K",
        "energy_score_fair": "K",
        "spectrum": "K**2",
    }
    assert METRICS["mse"].units("m s**-1") == "(m s**-1)**2"
    assert METRICS["mse"].units("1") == "1"


def test_every_metric_is_said_in_words_of_its_own():
    words = [metric.long_name for metric in METRICS.values()]
    assert all(words)
    assert len({*words}) == len(words)


def test_which_metrics_are_of_whole_frames():
    whole = [name for name, metric in METRICS.items() if metric.of_frames]
    assert whole == ["mse_sum", "mae_sum", "ssim", "psnr", "ssim_paper", "psnr_paper", "lpips"]
    maps = [name for name, metric in METRICS.items() if metric.of_maps]
    assert [name for name, metric in METRICS.items() if metric.of_rows] == ["spectrum"]
    energy = ["energy_score", "energy_score_fair"]
    assert maps == ["acc", "ssim", "psnr", "ssim_paper", "psnr_paper", "lpips", *energy]


def test_the_table_of_metrics_cannot_be_changed():
    with pytest.raises(TypeError, match="does not support item assignment"):
        METRICS["mine"] = Metric("mine", error)
    assert all(metric.name == name for name, metric in METRICS.items())


@pytest.mark.parametrize("options", [{"dims": ("latitude",)}, {"dims": "y"}, {"settings": "nan"}])
def test_a_metric_of_unknown_dims_or_settings_is_refused(options):
    with pytest.raises(InputError, match="metric 'mine': dims are among"):
        Metric("mine", error, **options)


def test_bounds_of_cells():
    np.testing.assert_array_equal(cell_bounds([0, 20, 40]), [[-10, 10], [10, 30], [30, 50]])
    np.testing.assert_array_equal(cell_bounds([85, 75]), [[80, 90], [70, 80]])
    np.testing.assert_array_equal(cell_bounds([48.0]), [[48, 48]])


def test_anomaly_correlation_of_known_patterns():
    weights, _, _ = grid_weights((4, 8), [-60, -20, 20, 60])
    east = np.broadcast_to(np.arange(8) * np.pi / 4, (4, 8))
    c = 280 + np.random.default_rng(1).normal(size=(4, 8))
    wave, quarter = np.sin(east), np.cos(east)
    truth = c + wave
    for anomaly, expected in [(wave, 1), (3 * wave, 1), (-wave, -1), (quarter, 0)]:
        assert anomaly_correlation(c + anomaly, truth, c, weights) == pytest.approx(
            expected, abs=1e-9
        )
    # wave + quarter: correlation 1/sqrt(2)
    both = anomaly_correlation(
        np.stack([c + wave + quarter, truth]), np.stack([truth] * 2), c, weights
    )
    np.testing.assert_allclose(both, [np.sqrt(0.5), 1])
    assert np.isnan(anomaly_correlation(c, truth, c, weights))  # the climatology's own


def test_anomaly_correlation_is_weatherbench2s():
    rng = np.random.default_rng(2)
    latitude = gaussian(6)
    f, t, c = rng.normal(size=(3, 5, 2, 6, 9))
    w = np.broadcast_to(wb2_weights(latitude)[:, None], (6, 9))

    def mean(x):
        return (w * x).sum((-2, -1)) / w.sum()

    expected = mean((f - c) * (t - c)) / np.sqrt(mean((f - c) ** 2) * mean((t - c) ** 2))
    ours = anomaly_correlation(f, t, c, grid_weights((6, 9), latitude)[0])
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
