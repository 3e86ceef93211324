"""Disks that are full or read-only, directories that vanish, clocks that jump."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from functools import partial

import pytest
from helpers import fill_up, mount, mounted
from small_runs import go, good, same_weights, tree

from stforecast.errors import InputError

pytestmark = pytest.mark.usefixtures("without_curves")


def at(step, act):
    def progress(event):
        if event["step"] == step:
            history = progress.directory / "history.jsonl"
            # Its writer is a thread; what it does last is to write the history.
            while not history.exists() or history.read_text().count("\n") < step // 2:
                time.sleep(0.01)
            time.sleep(0.2)
            act()

    return progress


def fails_then_goes_on(datasets, finished, directory, act, mend, words):
    """Let something fail after the checkpoint of step 4; mend it; the same call goes on."""
    progress, seen = at(4, act), []
    progress.directory = directory
    try:
        with pytest.raises(InputError, match=words):
            go(datasets, directory, progress=progress)
    finally:
        mend()
    assert good(directory)[-1] == 4
    assert [p.name for p in directory.iterdir() if p.name.startswith(".")] == []
    again = go(datasets, directory, progress=seen.append)
    assert [e["step"] for e in seen] == [5, 6]
    assert same_weights(again, finished[1])


def test_disk_full(datasets, finished, tmp_path):
    """A file system of its own, filled up by somebody else in the course of the run."""
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        run, other = tmp_path / "run", tmp_path / "other"

        words = r"cannot write the checkpoint of step 6 in .*No space left.*goes on from checkpoint"
        fails_then_goes_on(datasets, finished, run, partial(fill_up, other), other.unlink, words)


def test_quota(datasets, finished, tmp_path):
    """As full as a disk can be without one's own: files must not grow past a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (finished[0] / "checkpoint-00000006/state.safetensors").stat().st_size
    fails_then_goes_on(
        datasets,
        finished,
        tmp_path,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size * 2 // 3, hard)),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)),
        r"cannot write the checkpoint of step 6 in .*goes on from checkpoint-00000004",
    )


def make_read_only(directory):
    """Return how to undo it. Root writes whatever the mode says, but not to a read-only mount."""
    if os.geteuid():
        directory.chmod(0o555)
        return lambda: directory.chmod(0o755)
    mount("--bind", directory, directory)
    mount("-o", "remount,ro,bind", directory)
    return lambda: subprocess.run(["umount", str(directory)], check=False)


def test_read_only_in_the_course_of_the_run(datasets, finished, tmp_path):
    undo = []
    fails_then_goes_on(
        datasets,
        finished,
        tmp_path,
        lambda: undo.append(make_read_only(tmp_path)),
        lambda: undo[0](),
        "cannot write to",
    )


def test_read_only_from_the_start(datasets, copy):
    before = tree(copy)
    undo = make_read_only(copy)
    try:
        with pytest.raises(InputError, match=r"cannot write to .*choose a directory you may write"):
            go(datasets, copy)
    finally:
        undo()
    assert tree(copy) == before


def test_a_file_where_the_directory_should_be(datasets, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        go(datasets, tmp_path / "run")


@pytest.mark.parametrize("again", [False, True], ids=["removed", "removed and made again"])
def test_the_directory_is_removed(datasets, tmp_path, again):
    run = tmp_path / "run"

    def remove():
        while not (run / "checkpoint-00000004").exists():  # a thread writes it
            time.sleep(0.01)
        time.sleep(0.5)  # and then the history
        shutil.rmtree(run)
        if again:
            run.mkdir()

    progress = at(4, remove)
    progress.directory = run
    words = r"run was removed or replaced while the run in it went on.*step 6"
    with pytest.raises(InputError, match=words):
        go(datasets, run, progress=progress)
    there = [p.name for p in run.iterdir()] if run.exists() else []
    assert set(there) <= {"log.jsonl", "about.json"}  # no checkpoint, and nothing half-written


def test_the_clock_jumps_backwards(datasets, finished, copy, monkeypatch):
    """The step says what is the latest, not the times of the files."""
    shutil.rmtree(copy / "checkpoint-00000006")
    shutil.copytree(copy / "checkpoint-00000004", copy / "checkpoint-00000002")
    for path in copy.rglob("*"):
        os.utime(path, (2e9, 2e9))
    for path in (copy / "checkpoint-00000004", *(copy / "checkpoint-00000004").iterdir()):
        os.utime(path, (0, 0))
    clock = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    seen = []
    again = go(datasets, copy, progress=seen.append)
    assert [e["step"] for e in seen] == [5, 6]
    assert same_weights(again, finished[1])
    assert good(copy) == [4, 6]
