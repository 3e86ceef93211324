"""KTH, KITTI and Caltech Pedestrian: genuine files, their protocols, lazy opening, and damage."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import pipeline
from video_files import LUMA, _put, blobs, colours, small_kth, small_kth_frames

from stforecast.baselines.persistence import Persistence
from stforecast.datasets import kitti_caltech as street
from stforecast.datasets import kth
from stforecast.datasets.clips import protocol_times
from stforecast.datasets.kitti_caltech import open_caltech, open_kitti
from stforecast.datasets.kth import open_kth
from stforecast.datasets.video import resize
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.forecaster import load
from stforecast.forecasting.predict import predict
from stforecast.task import Task
from stforecast.testing.video import (
    write_caltech,
    write_kitti,
    write_kth,
    write_kth_frames,
    write_prednet_hkl,
)

av = pytest.importorskip("av", reason="needs the extra 'video'")

ROOT = Path(__file__).parents[2]

CLIPS = ROOT.parent / "shared" / "data" / "video_clips"


# --- lazy opening, and what the rest of the library does with it ----------------------------------


ALL = {
    "kth": (small_kth, open_kth),
    "kth frames": (small_kth_frames, open_kth),
    "kitti": (partial(write_kitti, size=(48, 160)), open_kitti),
    "kitti zips": (partial(write_kitti, size=(48, 160), zipped=True), open_kitti),
    "prednet": (write_prednet_hkl, open_kitti),
    "caltech": (write_caltech, open_caltech),
}


@pytest.mark.parametrize("name", ALL)
def test_opening_decodes_nothing(tmp_path, monkeypatch, name):
    write, open_it = ALL[name]
    write(tmp_path)

    def no(*arguments, **options):
        raise AssertionError("frames were read on opening")

    with monkeypatch.context() as patch:
        patch.setattr(av, "open", no)
        patch.setattr(av.CodecContext, "create", no, raising=False)
        patch.setattr(street, "_cut", no)
        patch.setattr(street, "read_seq", no)
        ds = open_it(tmp_path)
        assert ds.chunks
        open_it(tmp_path, chunks=None)
    first = ds[next(iter(ds))].isel(time=0).values
    assert 0 <= first.min() < first.max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_recognised(tmp_path, name):
    write, open_it = ALL[name]
    write(tmp_path)
    lines = [m.recognise(tmp_path) for m in (kth, street)]
    (line,) = [text for text in lines if text]
    assert line.startswith(f"{open_it.__name__}: ")
    assert "\n" not in line


def test_nothing_else_is_recognised(tmp_path):
    _put(tmp_path / "a.zip", b"no zip")
    assert [m.recognise(tmp_path) for m in (kth, street)] == [None, None]
    assert kth.recognise(tmp_path / "none") is None


@pytest.mark.parametrize("name", ["kth", "caltech"])
def test_the_library_works_on_it(tmp_path, name):
    write, open_it = ALL[name]
    write(tmp_path)
    ds = open_it(tmp_path)
    timestep = {"kth": "40ms", "caltech": "100ms"}[name]
    task = Task(tuple(ds.data_vars), 2, 2, timestep)
    forecast = predict(ds, Persistence(task), init_time=protocol_times(ds, task))
    scores = evaluate(forecast, ds, metrics=("mse_sum", "ssim", "psnr"), data_range=1.0)
    assert np.isfinite(scores["frames_overall"]).all()
    assert 0.2 < float(scores["frames_overall"].sel(metric="ssim")) < 1


# --- real clips -------------------------------------------------------------------------------


@pytest.mark.skipif(not CLIPS.exists(), reason=f"no clips at {CLIPS}")
@pytest.mark.parametrize(("name", "psnr"), [("kth", 30), ("kitti", 60), ("caltech", 30)])
def test_real_video_survives_the_genuine_formats(tmp_path, name, psnr):
    with av.open(str(CLIPS / "bikes.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][:12]
    clip = resize(np.stack(frames), (120, 160))
    if name == "kth":
        write_kth(tmp_path, persons=[17], actions=["walking"], lengths=(12,), clips=[clip])
        got = open_kth(tmp_path, "test", size=(120, 160))["intensity"].values
        expected = clip @ LUMA
    elif name == "kitti":
        write_kitti(tmp_path, drives={"0070": 12}, size=(120, 160), clips=[clip])
        got, expected = colours(open_kitti(tmp_path, "test")) / 255, street._cut(clip)
    else:
        write_caltech(tmp_path, sets={7: [12]}, size=(120, 160), clips=[clip])
        got, expected = colours(open_caltech(tmp_path, "test")) / 255, street._cut(clip)[2::3]
    assert expected.std() > 20  # there is something to see
    error = np.mean((got.astype(np.float64) - expected / 255) ** 2)
    assert -10 * np.log10(error + 1e-12) > psnr


# --- the pipelines ----------------------------------------------------------------------------


def write_streets(directory):
    write_kitti(directory, drives={"0001": 12, "0005": 11}, size=(48, 100))
    return write_caltech(directory, sets={6: [66]}, size=(60, 80))


@pytest.mark.parametrize(
    ("name", "write", "options", "reason", "sizes"),
    [
        pytest.param(
            "kth",
            partial(write_kth, lengths=(60,), actions=["boxing"], clips=[blobs(9, (60, 80))]),
            ["--size", 32, 32],
            "KTH human actions 32 x 32.*128 x 128.*kth_10_20",
            (2, 20, 32, 32),
            id="kth 10 -> 20",
        ),
        pytest.param(
            "kth",
            partial(
                write_kth_frames, lengths=(50,), actions=["boxing"], clips=[blobs(9, (60, 80))]
            ),
            ["--size", 32, 32, "--target-steps", 40],
            "KTH human actions 32 x 32.*128 x 128.*kth_10_40",
            (1, 40, 32, 32),
            id="kth 10 -> 40",
        ),
        pytest.param(
            "caltech",
            write_streets,
            [],
            "128 x 160, test 1 seq.*66 seq",
            (2, 1, 128, 160),
            id="caltech",
        ),
    ],
)
def test_the_whole_way(tmp_path, monkeypatch, capsys, name, write, options, reason, sizes):
    data, out = write(tmp_path / "data"), tmp_path / "out"
    options += ["--data", data, "--output", out, "--steps", 2, "--batch-size", 2, "--device", "cpu"]
    assert pipeline(name, *options, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    for text in ("this run", "persistence", "ssim_paper", "psnr_paper"):
        assert text in shown
    assert re.search(f"not comparable: .*{reason}", shown)
    assert "SimVP " not in shown
    names = {"forecast.zarr", "model", "run", "scores.nc", "scores.csv", "table.csv"}
    names |= {"clips.png", "scorecard.png", "report.html"}
    names |= {"mse_sum_by_lead.png"} if name == "kth" else set()  # the other has one lead only
    assert {p.name for p in out.iterdir()} == names
    forecast = xr.open_zarr(out / "forecast.zarr")
    dims = ("time", "prediction_timedelta", "y", "x")
    assert dict(forecast.sizes) == dict(zip(dims, sizes, strict=True))
    assert load(out / "model").task.target_steps == {"kth": 20, "caltech": 1}[name]


@pytest.mark.parametrize(
    ("name", "write", "millions", "rate"),
    [
        ("kth", partial(small_kth, lengths=(65,)), 15.632961, 1e-3),
        ("caltech", write_streets, 15.634243, 5e-3),
    ],
)
def test_the_papers_recipe(tmp_path, monkeypatch, capsys, name, write, millions, rate):
    """The network has the published size, and trains on the protocol's windows for 100 epochs."""
    calls = []

    def record(*arguments, **options):
        calls.append((arguments, options))
        return pd.DataFrame()

    monkeypatch.setattr("stforecast.cli.recipes.train_and_score", record)
    options = ["--data", write(tmp_path / "data"), "--preset", "paper"]
    assert pipeline(name, *options, monkeypatch=monkeypatch) == 0
    ((_, parts, task, network, config, _), given) = calls[0]
    assert sum(p.numel() for p in network().parameters()) == round(millions * 1e6)
    assert (config.epochs, config.steps, config.batch_size) == (100, None, 16)
    assert (config.learning_rate, config.schedule) == (rate, "onecycle")
    np.testing.assert_array_equal(given["train_times"], protocol_times(parts["train"], task))
    assert len(given["init_time"]) == 2


def test_a_pipeline_says_what_is_wrong_in_a_line(tmp_path, monkeypatch, capsys):
    small_kth(tmp_path / "kth", persons=[1, 15, 17])
    write_streets(tmp_path / "streets")
    for name, arguments, message in (
        ("kth", ["--data", tmp_path / "no"], "no such file or directory"),
        ("kth", ["--data", tmp_path / "kth"], "no clip has 30 frames"),
        ("caltech", ["--data", tmp_path / "kth"], "no drive of camera 3"),
    ):
        assert pipeline(name, *arguments, monkeypatch=monkeypatch) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
