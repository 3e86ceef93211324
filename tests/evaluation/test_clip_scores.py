"""Scores of whole frames: the authors' figures through evaluate(), and channels together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.evaluation.scorecards import save_scores, scorecard, to_table

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "public"
LEAD = "prediction_timedelta"
FRAME_METRICS = ("mse_sum", "mae_sum", "ssim", "psnr")


def make_pair(pred: np.ndarray, true: np.ndarray, names=None, units="1"):
    """A forecast and truth of clips from arrays (B, T, C, H, W)."""
    clips, leads, channels = pred.shape[:3]
    names = names or [f"channel_{i}" for i in range(channels)]
    second = np.timedelta64(1, "s").astype("m8[ns]")
    # Each clip has one input frame before its targets, and a gap after them.
    init = np.datetime64("1970-01-01", "ns") + np.arange(clips) * (leads + 2) * second
    lead = np.arange(1, leads + 1) * second
    valid = (init[:, None] + lead).ravel()
    forecast = xr.Dataset(
        {
            n: (("time", LEAD, "y", "x"), pred[:, :, i], {"units": units})
            for i, n in enumerate(names)
        },
        {"time": init, LEAD: lead},
    )
    flat = true.reshape(-1, *true.shape[2:])
    truth = xr.Dataset(
        {n: (("time", "y", "x"), flat[:, i], {"units": units}) for i, n in enumerate(names)},
        {"time": valid},
    )
    return forecast, truth


def make_frames(clips=4, leads=3, channels=2, height=9, width=11, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.random((clips, leads, channels, height, width)).astype("float32")
    return true + rng.normal(0, 0.2, true.shape).astype("float32"), true


def frames(scores: xr.Dataset, metric: str) -> float:
    return float(scores["frames_overall"].sel(metric=metric))


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden files at {GOLDEN}")
@pytest.mark.parametrize("name", ["caltech_like", "large_error", "mmnist_like", "taxibj_like"])
def test_the_authors_code(name):
    case = json.loads((GOLDEN / f"metric_{name}.json").read_text())
    with np.load(GOLDEN / f"metric_{name}.npz") as arrays:
        forecast, truth = make_pair(arrays["pred"], arrays["true"])
    scores = evaluate(
        forecast, truth, metrics=(*FRAME_METRICS, "rmse"), data_range=1, protocol="paper"
    )
    for key in ("openstl_float32", "openstl_float64_inputs"):
        golden = case[key]
        assert frames(scores, "mse_sum") == pytest.approx(golden["mse"], rel=1e-6)
        assert frames(scores, "mae_sum") == pytest.approx(golden["mae"], rel=1e-6)
        assert frames(scores, "ssim_paper") == pytest.approx(golden["ssim"], abs=1e-6)
        # Their "rmse" is the root of the summed error.
        assert frames(scores, "mse_sum") ** 0.5 == pytest.approx(golden["rmse"], rel=1e-6)
    old, others = case["old_simvp_repos"], case["extra"]
    assert frames(scores, "psnr_paper") == pytest.approx(old["psnr_uint8_wraparound"], abs=1e-6)
    assert frames(scores, "ssim_paper") == pytest.approx(old["ssim"], abs=1e-6)
    clipped = evaluate(forecast.clip(0, 1), truth, metrics=("ssim", "psnr"), data_range=1)
    assert frames(clipped, "psnr") == pytest.approx(case["openstl_float32"]["psnr"], abs=1e-6)
    assert frames(clipped, "ssim") == pytest.approx(others["ssim_if_data_range_were_1"], abs=1e-6)


def test_a_constant_error_in_closed_form():
    true = np.random.default_rng(0).random((3, 2, 3, 8, 10)).astype("float32")
    scores = evaluate(*make_pair(true + np.float32(0.1), true), metrics=FRAME_METRICS, data_range=1)
    assert frames(scores, "mse_sum") == pytest.approx(0.01 * 3 * 80, rel=1e-5)
    assert frames(scores, "mae_sum") == pytest.approx(0.1 * 3 * 80, rel=1e-5)
    assert frames(scores, "psnr") == pytest.approx(20, rel=1e-5)
    one = scores["channel_1_overall"]
    assert float(one.sel(metric="mse_sum")) == pytest.approx(0.01 * 80, rel=1e-5)
    assert float(one.sel(metric="psnr")) == pytest.approx(20, rel=1e-5)


def test_channels_together_by_hand():
    pred, true = make_frames()
    pred[:, :, 1] += 0.5  # channels that differ, so that means of what comes last differ too
    metrics = (*FRAME_METRICS, "mse", "rmse", "mae", "bias")
    scores = evaluate(*make_pair(pred, true), metrics=metrics, data_range=1)
    error = pred.astype("f8") - true
    square = (error**2).mean(axis=(2, 3, 4))  # (B, T)
    expected = {
        "mse_sum": (error**2).sum(axis=(2, 3, 4)).mean(axis=0),
        "mae_sum": abs(error).sum(axis=(2, 3, 4)).mean(axis=0),
        "psnr": (-10 * np.log10(square)).mean(axis=0),
        "mse": square.mean(axis=0),
        "rmse": np.sqrt(square.mean(axis=0)),
        "mae": abs(error).mean(axis=(0, 2, 3, 4)),
        "bias": error.mean(axis=(0, 2, 3, 4)),
        "ssim": np.mean(
            [
                [
                    structural_similarity(p, t, data_range=1, channel_axis=0)
                    for p, t in zip(*clip, strict=True)
                ]
                for clip in zip(pred.astype("f8"), true.astype("f8"), strict=True)
            ],
            axis=0,
        ),
    }
    assert scores["frames"].dims == ("metric", LEAD)
    for metric, values in expected.items():
        np.testing.assert_allclose(scores["frames"].sel(metric=metric), values, rtol=1e-6)
        overall = np.sqrt(square.mean()) if metric == "rmse" else values.mean()
        assert frames(scores, metric) == pytest.approx(overall, rel=1e-6)
    # One channel by itself, and one initialisation by itself.
    second = -10 * np.log10((error[:, :, 1] ** 2).mean(axis=(2, 3)))
    np.testing.assert_allclose(scores["channel_1"].sel(metric="psnr"), second.mean(0), rtol=1e-6)
    by_clip = evaluate(*make_pair(pred, true), metrics=metrics, data_range=1, by=("time",))
    np.testing.assert_allclose(
        by_clip["frames"].sel(metric="psnr"), -10 * np.log10(square).mean(1), rtol=1e-6
    )
    np.testing.assert_allclose(
        by_clip["frames"].sel(metric="rmse"), np.sqrt(square.mean(1)), rtol=1e-6
    )


def test_one_channel_has_frames_too():
    pred, true = make_frames(channels=1)
    scores = evaluate(*make_pair(pred, true), metrics=FRAME_METRICS, data_range=1)
    np.testing.assert_allclose(scores["frames"], scores["channel_0"], rtol=1e-12)
    without = evaluate(*make_pair(pred, true))
    assert list(without.data_vars) == ["channel_0", "channel_0_overall"]


def test_a_perfect_frame_has_no_finite_ratio():
    _, true = make_frames()
    pred = true + np.float32(0.1)
    pred[1, 1] = true[1, 1]
    scores = evaluate(*make_pair(pred, true), metrics="psnr", data_range=1)["frames"]
    assert np.isinf(scores[0]).values.tolist() == [False, True, False]


def test_the_range_scales():
    pred, true = make_frames()
    one = evaluate(*make_pair(pred, true), metrics=("ssim", "psnr"), data_range=1)
    bits = evaluate(*make_pair(255 * pred, 255 * true), metrics=("ssim", "psnr"), data_range=255)
    np.testing.assert_allclose(one["frames"], bits["frames"], rtol=1e-5)
    assert bits.attrs["data_range"] == 255


def test_what_the_attributes_tell():
    pair = make_pair(*make_frames(), units="m s**-1")
    scores = evaluate(*pair, metrics=FRAME_METRICS, data_range=1.0, protocol="paper")
    metrics = ["mse_sum", "mae_sum", "ssim", "psnr", "ssim_paper", "psnr_paper"]
    assert scores.metric.values.tolist() == metrics
    attrs = scores["frames"].attrs
    assert [attrs[f"units_{m}"] for m in metrics] == [
        "(m s**-1)**2",
        "m s**-1",
        "1",
        "dB",
        "1",
        "dB",
    ]
    assert attrs["long_name"] == "channel_0, channel_1 together"
    assert scores.attrs["protocol"] == "paper"
    assert scores.attrs["data_range"] == 1
    assert scores.attrs["weights"] == "uniform"


@settings(max_examples=15, deadline=None)
@given(
    chunk=st.integers(1, 5),
    block=st.integers(1, 6),
    by=st.sampled_from([(LEAD,), (), ("time",), (LEAD, "time")]),
)
def test_blocks_give_what_the_whole_gives(chunk, block, by):
    forecast, truth = make_pair(*make_frames(clips=5))
    options = {"metrics": (*FRAME_METRICS, "rmse"), "data_range": 1, "by": by}
    whole = evaluate(forecast, truth, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stforecast.evaluation.sums.BLOCK", block * 4 * 99 * 3)
        patch.setattr("stforecast.evaluation.aggregation.PIECE", 1)
        lazy = evaluate(forecast.chunk(time=chunk, y=4, x=5), truth.chunk(time=4, x=3), **options)
    xr.testing.assert_allclose(lazy, whole, rtol=1e-12)
    assert lazy.attrs == whole.attrs


def test_scorecards_of_clips(tmp_path):
    pred, true = make_frames()
    options = {"metrics": ("mse_sum", "ssim"), "data_range": 1, "protocol": "paper"}
    forecasts = {"Net": true + 0.5 * (pred - true), "Persistence": pred}
    card = scorecard({n: evaluate(*make_pair(f, true), **options) for n, f in forecasts.items()})
    # Half the error has a quarter of the squared error: skill 0.5 in terms of RMSE.
    skill = card["frames_skill_overall"].sel(model="Net", reference="Persistence")
    assert float(skill) == pytest.approx(0.5, abs=1e-6)
    table = to_table(card, variable="frames", metric="ssim_paper")
    assert table.columns.tolist() == ["1 s", "2 s", "3 s", "overall"]
    assert table.index.tolist() == ["Net", "Persistence"]
    assert table.columns.name == "frames ssim_paper [1], uniform weights"
    assert "Net: skill vs Persistence" in to_table(card, variable="frames", metric="mse_sum").index
    _, csv = save_scores(card, tmp_path)
    rows = pd.read_csv(csv).query("variable == 'frames' and lead_hours == 'overall'")
    assert set(rows["metric"]) == {"mse_sum", "ssim", "ssim_paper", "skill_vs_Persistence"}
    # Without a squared error there is no skill, and no complaint either.
    only = {
        n: evaluate(*make_pair(f, true), metrics="ssim", data_range=1) for n, f in forecasts.items()
    }
    assert "frames_skill" not in scorecard(only)
    with pytest.raises(InputError, match="skill needs one of"):
        scorecard(only, references=["Persistence"])


def kelvin():
    pred, true = make_frames(channels=1)
    return make_pair(pred + 280, true + 280, ["field"], units="K")


def on_latitudes(pair):
    space = {"y": "latitude", "x": "longitude"}
    coords = {"latitude": np.arange(-40.0, 41, 10), "longitude": np.arange(11) * 10.0}
    return tuple(ds.rename(space).assign_coords(coords) for ds in pair)


@pytest.mark.parametrize(
    ("pair", "options", "message"),
    [
        (kelvin(), {"metrics": "ssim"}, "ssim depend on data_range=.* K say"),
        (kelvin(), {"metrics": ("rmse", "psnr")}, "psnr depend on data_range="),
        (
            kelvin(),
            {"metrics": "ssim", "data_range": 1, "protocol": "paper"},
            r"\[0, 1\]; the truth runs from 280",
        ),
        (kelvin(), {"metrics": "ssim", "data_range": 100, "protocol": "paper"}, "found 100"),
        (kelvin(), {"metrics": "ssim_paper"}, "data_range"),
        (kelvin(), {"metrics": "rmse", "protocol": "paper"}, "neither is asked for"),
        (kelvin(), {"metrics": "ssim", "data_range": 1, "protocol": "wb2"}, "found 'wb2'"),
        (kelvin(), {"metrics": "ssim", "data_range": -1}, "positive number"),
        (kelvin(), {"metrics": "mse_sum", "by": ("y",)}, "no value by y"),
        (kelvin(), {"metrics": "mse_sum", "nan": "mask"}, "take no masks"),
        (on_latitudes(kelvin()), {"metrics": "mse_sum"}, 'weights="uniform"'),
        (
            on_latitudes(kelvin()),
            {"metrics": "mse_sum", "weights": ("area", "uniform")},
            'alone, with weights="uniform"',
        ),
        (
            on_latitudes(kelvin()),
            {"metrics": "mse_sum", "weights": "uniform", "regions": "tropics"},
            "without regions",
        ),
        (
            kelvin(),
            {"metrics": "mse_sum", "weights": xr.DataArray(np.eye(9, 11), dims=("y", "x"))},
            "count every point the same",
        ),
        (make_pair(*make_frames(channels=1), ["frames"]), {"metrics": "mse_sum"}, "rename"),
        (
            make_pair(*make_frames(height=6)),
            {"metrics": "ssim", "data_range": 1},
            "the pictures have 6 x 11",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(pair, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(*pair, **options)


def test_channels_of_several_units_have_no_frames():
    forecast, truth = make_pair(*make_frames())
    for ds in (forecast, truth):
        ds["channel_1"].attrs["units"] = "m"
    with pytest.raises(InputError, match=r"several units: .*'channel_1': 'm'"):
        evaluate(forecast, truth, metrics="mae_sum")


def test_latitudes_are_no_hindrance_where_every_point_counts_the_same():
    pair = kelvin()
    on_grid = evaluate(*on_latitudes(pair), metrics="psnr", data_range=1, weights="uniform")
    np.testing.assert_allclose(
        on_grid["frames"], evaluate(*pair, metrics="psnr", data_range=1)["frames"]
    )
