"""The log of a run: lines, provenance, curves."""

from __future__ import annotations

import json
import os
from importlib import util

import pytest

from stforecast.plots import loss_curve
from stforecast.training.log import TrainingLog, origin, read_log

ABOUT = {"task": {"variables": ["t2m"]}, "data": {"title": "made up"}}


def line(step, **more):
    return {"step": step, "loss": 1.0 / step, "waiting": 0.01, **more}


def test_lines_and_where_they_come_from(tmp_path):
    with TrainingLog(tmp_path, ABOUT) as log:
        log.note(line(50))
        log.note(line(100, val_rmse=0.5))
    assert read_log(tmp_path) == [line(50), line(100, val_rmse=0.5)]
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["task"] == ABOUT["task"]
    (call,) = about["calls"]
    assert call["from_step"] == 0
    assert call["began"] <= call["ended"]
    assert set(call["versions"]) >= {"torch", "numpy", "stforecast"}
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_what_a_killed_call_wrote_after_its_checkpoint_is_cut(tmp_path):
    with TrainingLog(tmp_path, ABOUT) as log:
        for step in (50, 100, 150):
            log.note(line(step))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 200, "lo')  # torn
    with TrainingLog(tmp_path, ABOUT, step=100) as log:
        log.note(line(150))
        log.note(line(200))
    assert [entry["step"] for entry in read_log(tmp_path)] == [50, 100, 150, 200]
    calls = json.loads((tmp_path / "about.json").read_text())["calls"]
    assert [call["from_step"] for call in calls] == [0, 100]


def test_a_new_run_forgets_the_old_one(tmp_path):
    with TrainingLog(tmp_path, ABOUT) as log:
        log.note(line(50))
    with TrainingLog(tmp_path, ABOUT):
        pass
    assert read_log(tmp_path) == []
    assert len(json.loads((tmp_path / "about.json").read_text())["calls"]) == 1


def test_an_error_is_told(tmp_path):
    with pytest.raises(ZeroDivisionError), TrainingLog(tmp_path, ABOUT):
        _ = 1 / 0
    (call,) = json.loads((tmp_path / "about.json").read_text())["calls"]
    assert call["error"] == "ZeroDivisionError: division by zero"


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with TrainingLog(None, ABOUT) as log:
        log.note(line(50))
    assert os.listdir(tmp_path) == []


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    with TrainingLog(tmp_path, ABOUT) as log:
        (tmp_path / "log.jsonl").unlink()
        (tmp_path / "log.jsonl").mkdir()  # as a full disk would: every line fails
        log.note(line(50))
        log.note(line(100))
    assert [r.message for r in caplog.records if "the log in" in r.message] == [
        caplog.records[0].message
    ]


@pytest.mark.skipif(not util.find_spec("tensorboard"), reason="TensorBoard is not installed")
def test_tensorboard_reads_it(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TrainingLog(tmp_path, ABOUT) as log:
        log.note(line(50))
        log.note(line(100, val_rmse=0.5))
        log.note(line(150))
    with TrainingLog(tmp_path, ABOUT, step=100) as log:
        log.note({**line(150), "loss": 0.25})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {e.step: e.value for e in events.Scalars("training/loss")} == pytest.approx(
        {50: 0.02, 100: 0.01, 150: 0.25}
    )
    assert [e.value for e in events.Scalars("validation/val_rmse")] == [0.5]


def test_curves(tmp_path):
    figure = loss_curve([line(50), line(100, val_rmse=0.5), line(150, val_rmse=0.4)])
    loss, valid = figure.axes
    assert loss.lines[0].get_xdata().tolist() == [50, 100, 150]
    assert valid.lines[0].get_ydata().tolist() == [0.5, 0.4]
    assert valid.texts[0].get_text() == "best: 0.4"


@pytest.mark.parametrize("best", [0, 2, 4])
def test_the_best_error_and_its_point_are_whole(best):
    figure = loss_curve([line(50 * i, val_rmse=1 + (i - 1 - best) ** 2 / 10) for i in range(1, 6)])
    figure.draw_without_rendering()
    ax = figure.axes[1]
    point = next(x for x in ax.lines if x.get_markersize() == 6)
    assert not point.get_clip_on()
    assert point.get_xdata().tolist() == [50 * (best + 1)]
    box, frame = ax.texts[0].get_window_extent(), ax.get_window_extent()
    assert frame.x0 <= box.x0 < box.x1 <= frame.x1
    assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_origin_names_no_path_of_this_machine():
    told = json.dumps(origin() | {"command": ""})
    assert os.path.expanduser("~") not in told
    assert os.getcwd() not in told
