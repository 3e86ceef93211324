"""Diagrams of the scores of ensembles, from scores whose every point is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stforecast import plots
from stforecast.errors import InputError

LEAD = "prediction_timedelta"
pytest.importorskip("matplotlib")
LEADS = np.arange(1, 4).astype("m8[h]").astype("m8[ns]")
CLASSES = np.linspace(0, 1, 5)


@pytest.fixture(scope="module")
def scores():
    """What evaluate gives of RMSE, spread and all the tables, by lead time and overall."""
    probability = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]] * 2)
    frequency = np.array([[0.1, 0.3, 0.5, 0.7, np.nan], [0.0, 0.2, 0.5, 0.8, 1.0]])
    share = np.array([[0.4, 0.3, 0.2, 0.1, 0.0], [0.2] * 5])
    table = np.stack([probability, frequency, share], axis=1)
    rates = np.array([[[1.0, 0.5, 0.2, 0.1, 0.0], [1.0, 0.9, 0.7, 0.4, 0.2]]] * 2)
    waves = np.stack([np.arange(6.0, 0, -1)] * 3)
    waves[2] = 0.5
    power = np.broadcast_to(waves[..., None], (3, 6, 3))
    ranks = np.array([[0.4, 0.25, 0.2], [0.1, 0.25, 0.2], [0.1, 0.25, 0.2], [0.4, 0.25, 0.4]])
    units = {"units_rmse": "K", "long_name": "temperature"}
    words = {"thresholds": "at or above 280, 290", "units": "1"}
    return xr.Dataset(
        {
            "t": (("metric", LEAD), [[1.0, 2, 3], [1.0, 0.8, 0.5]], units),
            "t_overall": (("metric",), [2.0, 0.8], units),
            "t_rank_histogram": (("rank", LEAD), ranks),
            "t_rank_histogram_overall": (("rank",), ranks.mean(1)),
            "t_spectrum": (("field", "wavenumber", LEAD), power, {"units": "K**2"}),
            "t_spectrum_overall": (("field", "wavenumber"), waves),
            "t_reliability_overall": (("threshold", "part", "probability"), table, words),
            "t_roc_overall": (("threshold", "rate", "warning"), rates, words),
        },
        {
            "metric": ["rmse", "spread_skill"],
            LEAD: LEADS,
            "rank": np.arange(4),
            "field": ["forecast", "truth", "ratio"],
            "wavenumber": np.arange(6.0),
            "threshold": [280.0, 290.0],
            "part": ["probability", "frequency", "share"],
            "probability": CLASSES,
            "rate": ["false_alarm_rate", "hit_rate"],
            "warning": CLASSES,
        },
        {"weights": "area"},
    )


def test_the_spread_is_the_ratio_times_the_error(scores):
    above, below = plots.spread_skill(scores).axes
    lines = {line.get_label(): line.get_ydata() for line in above.lines}
    np.testing.assert_allclose(lines["RMSE of the mean"], [1, 2, 3])
    np.testing.assert_allclose(lines["Spread"], [1, 1.6, 1.5])
    np.testing.assert_allclose(below.lines[-1].get_ydata(), [1, 0.8, 0.5])
    assert above.get_ylabel() == "RMSE, spread [K]"


def test_a_flat_rank_histogram_is_1_everywhere(scores):
    axes = plots.rank_histogram(scores).axes
    assert [ax.get_title("left") for ax in axes] == ["+1 h", "+2 h", "+3 h"]
    heights = [[bar.get_height() for bar in ax.containers[0]] for ax in axes]
    np.testing.assert_allclose(heights[0], [1.6, 0.4, 0.4, 1.6])
    np.testing.assert_allclose(heights[1], 1)
    assert len(plots.rank_histogram(scores, leads="2h").axes) == 1


def test_reliability_has_the_frequency_and_leaves_out_empty_classes(scores):
    axes = plots.reliability_diagram(scores).axes
    above, below = axes[0], axes[2]
    assert above.get_title("left") == "at or above 280"
    points = above.collections[-1].get_offsets()
    np.testing.assert_allclose(points, [[0, 0.1], [0.25, 0.3], [0.5, 0.5], [0.75, 0.7]])
    base = 0.4 * 0.1 + 0.3 * 0.3 + 0.2 * 0.5 + 0.1 * 0.7
    assert f"frequency {100 * base:.3g}%" in [t.get_text() for t in above.texts]
    skill = above.lines[1]
    np.testing.assert_allclose(skill.get_ydata(), [base / 2, base, (1 + base) / 2])
    bars = [bar.get_height() for bar in below.containers[0]]
    np.testing.assert_allclose(bars, [40, 30, 20, 10, 0])


def test_roc_lines_end_in_both_corners_and_say_their_area(scores):
    ax = plots.roc_curve(scores).axes[0]
    line = ax.lines[1]
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (1, 1)
    assert (line.get_xdata()[-1], line.get_ydata()[-1]) == (0, 0)
    area = 0.5 * 0.95 + 0.3 * 0.8 + 0.1 * 0.55 + 0.1 * 0.3
    assert line.get_label() == f"at or above 280: area {area:.3f}"


def test_spectra_leave_out_the_mean(scores):
    above, below = plots.power_spectrum(scores, leads=["1h", "3h"]).axes
    assert [line.get_label() for line in above.lines] == ["Truth", "+1 h", "+3 h"]
    np.testing.assert_allclose(above.lines[0].get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_allclose(above.lines[0].get_ydata(), [5, 4, 3, 2, 1])
    np.testing.assert_allclose(below.lines[0].get_ydata(), 0.5)
    assert above.get_ylabel() == "Power [K²]"


def test_scores_that_are_not_there_are_named(scores):
    with pytest.raises(InputError, match="no scores 'roc' of"):
        plots.roc_curve(scores.drop_vars("t_roc_overall"))
    with pytest.raises(InputError, match="spread_skill"):
        plots.spread_skill(scores.sel(metric=["rmse"]))
    with pytest.raises(InputError, match="'wind', found"):
        plots.rank_histogram(scores, variable="wind")
    regions = scores.expand_dims(region=["a", "b"])
    with pytest.raises(InputError, match=r"found also the dims \['region'\]"):
        plots.rank_histogram(regions)
    with pytest.raises(InputError, match="expected scores"):
        plots.spread_skill("scores.nc")
