"""The figures of the graph models' public code, from `evaluate`, on numbers from that code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stforecast.evaluation import evaluate

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "graph"
CASES = sorted(p.stem for p in GOLDEN.glob("metric*.npz"))
pytestmark = pytest.mark.skipif(not CASES, reason=f"no golden files at {GOLDEN}")
NAME = "mean_sea_level_pressure"


def labelled(name):
    """Forecast and truth of samples a day apart; nodes of (step, sample, node, channel) in rows."""
    arrays = np.load(GOLDEN / f"{name}.npz")
    pred, true = (arrays[key][..., 0].swapaxes(0, 1).astype(float) for key in ("pred", "true"))
    samples, steps, nodes = pred.shape
    assert steps <= 24
    init = np.datetime64("2017-03-14T11", "ns") + np.arange(samples) * np.timedelta64(1, "D")
    lead = np.arange(1, steps + 1) * np.timedelta64(1, "h")
    space = {"latitude": [-45.0, 45.0], "longitude": np.arange(nodes // 2) * (720 / nodes)}
    dims = ("time", "prediction_timedelta", *space)
    shape, attrs = (2, nodes // 2), {"units": "Pa"}
    forecast = xr.Dataset(
        {NAME: (dims, pred.reshape(samples, steps, *shape), attrs)},
        {"time": init, "prediction_timedelta": lead.astype("m8[ns]"), **space},
    )
    time = (init[:, None] + lead).ravel()
    truth = xr.Dataset(
        {NAME: (("time", *space), true.reshape(-1, *shape), attrs)}, {"time": time, **space}
    )
    return forecast, truth


@pytest.mark.parametrize("name", CASES)
def test_golden_graph_metric(name):
    """A truth of exactly 0 counts as missing; figures of step n are of all steps up to it."""
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    forecast, truth = labelled(name)
    leads = forecast.sizes["prediction_timedelta"]
    for steps, expected in {leads: case["all"], **case["steps"]}.items():
        scores = evaluate(
            forecast.isel(prediction_timedelta=slice(int(steps))),
            truth.where(truth != 0),
            metrics=("mae", "rmse"),
            weights="uniform",
            nan="mask",
        )[f"{NAME}_overall"]
        for metric, value in expected.items():
            assert float(scores.sel(metric=metric)) == pytest.approx(value, rel=2e-6)
    plain = evaluate(forecast, truth, metrics=("mae", "rmse"), weights="uniform")
    for metric, value in case["plain_all"].items():
        found = float(plain[f"{NAME}_overall"].sel(metric=metric))
        assert found == pytest.approx(value, rel=2e-6)
