"""A log is no state: what cannot be read of it is set aside, and training goes on to the bit."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from stforecast.training import log as journal
from stforecast.training.log import TrainingLog, read_log

ABOUT = {"data": {"title": "made up"}}


@pytest.fixture(autouse=True)
def without_curves(monkeypatch):
    monkeypatch.setattr(journal.util, "find_spec", lambda name: None)


def line(step, **more):
    return {"step": step, "loss": 1.0 / step, **more}


def put(text):
    def change(path):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([lines[0], text + "\n", *lines[1:]]))

    return change


def noise(path):
    path.write_bytes(path.read_bytes() + bytes(range(256)) + b"\n")


def other(make):
    def change(path):
        path.unlink()
        make(path)

    return change


DAMAGES = {
    "noise": noise,
    "a number": put("3"),
    "a list": put("[]"),
    "a text for a step": put('{"step": "60", "loss": 1.0}'),
    "a step that is true": put('{"step": true}'),
    "half a step": put('{"step": 60.5}'),
    "no step": put('{"loss": 1.0}'),
    "a step before": put('{"step": 50, "loss": 1.0}'),
    "a huge step": put('{"step": 1' + 400 * "0" + "}"),
    "an infinite loss": put('{"step": 60, "loss": Infinity}'),
    "a text for a loss": put('{"step": 60, "loss": "low"}'),
    "a table for a score": put('{"step": 60, "val_rmse": {}}'),
    "deep": put(100_000 * "["),
    "an empty line": put(""),
    "5,000 digits": put('{"step": ' + 5_000 * "7" + "}"),
}
NO_FILES = {
    "a pipe": other(os.mkfifo),
    "a device": other(lambda p: p.symlink_to("/dev/zero")),
    "a link": other(lambda p: (p.with_name("x").write_text("mine"), p.symlink_to("x"))),
    "a directory": other(lambda p: p.mkdir()),
}


@pytest.mark.parametrize("damage", {**DAMAGES, **NO_FILES}.values(), ids={**DAMAGES, **NO_FILES})
def test_a_damaged_log_is_set_aside(tmp_path, caplog, damage):
    with TrainingLog(tmp_path, ABOUT) as log:
        log.note(line(50))
        log.note(line(100))
    damage(tmp_path / "log.jsonl")
    kept = read_log(tmp_path)
    assert kept == ([line(50), line(100)] if damage in DAMAGES.values() else [])
    with TrainingLog(tmp_path, ABOUT, step=100) as log:
        log.note(line(150))
    assert read_log(tmp_path) == [*kept, line(150)]
    assert "set aside as damaged-log.jsonl" in caplog.text
    assert os.path.lexists(tmp_path / "damaged-log.jsonl")
    assert not (tmp_path / "x").exists() or (tmp_path / "x").read_text() == "mine"


def test_a_second_damage_takes_the_place_of_the_first(tmp_path):
    for step in (50, 100, 150):
        with TrainingLog(tmp_path, ABOUT, step=step - 50) as log:
            log.note(line(step))
        put("noise")(tmp_path / "log.jsonl")
    assert (tmp_path / "damaged-log.jsonl").is_file()
    assert [entry["step"] for entry in read_log(tmp_path)] == [50, 100, 150]


@pytest.mark.parametrize("text", ["{", '{"calls": 3}', "[]", 100_000 * "[", None])
def test_a_damaged_about(tmp_path, text):
    path = tmp_path / "about.json"
    os.mkfifo(path) if text is None else path.write_text(text)
    with TrainingLog(tmp_path, ABOUT, step=50):
        pass
    (call,) = json.loads(path.read_text())["calls"]
    assert call["from_step"] == 50


def test_a_full_disk_ends_the_log_only(tmp_path, caplog, monkeypatch):
    real = Path.open

    def full(self, mode="r", *args, **options):
        if "a" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *args, **options)

    with TrainingLog(tmp_path, ABOUT) as log:
        monkeypatch.setattr(Path, "open", full)
        for step in (50, 100):
            log.note(line(step))
    assert caplog.text.count("the log in") == 1
    assert "No space left" in caplog.text


def test_a_score_that_overflowed_is_not_drawn(tmp_path, monkeypatch):
    """Nor does it stop the picture of the others."""
    monkeypatch.undo()
    monkeypatch.setattr(journal, "_tensorboard", lambda *args: None)
    with TrainingLog(tmp_path, ABOUT) as log:
        log.note(line(50, val_rmse=float("inf"), grad_norm=float("nan")))
        log.note(line(100, val_rmse=0.5))
    assert (tmp_path / "loss.png").is_file()
    assert read_log(tmp_path)[0]["val_rmse"] == float("inf")


def test_a_link_in_the_place_of_tensorboards_files(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(journal.util, "find_spec", lambda name: name == "tensorboard")
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run/tensorboard").symlink_to(tmp_path / "elsewhere")
    with TrainingLog(tmp_path / "run", ABOUT) as log:
        log.note(line(50))
    assert "is a link, which leads out of the run" in caplog.text
    assert not list((tmp_path / "elsewhere").iterdir())
    shutil.rmtree(tmp_path / "run")
