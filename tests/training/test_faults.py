"""Runs that are killed, checkpoints that are damaged, disks that fail: nothing is lost.

Kills are real: a warm process forks one process a run (of this very file), which SIGKILL ends at
a chosen call, or at a random moment. What the same command gives in the end is compared, to the
bit, with a run that was never stopped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import CONFIG, TASK, data, go, good, network

import stforecast.training.checkpoints
from stforecast.errors import DivergenceError, InputError
from stforecast.files import locked
from stforecast.loading.feeds import ResidentFeed, StreamingFeed
from stforecast.models.simvp import SimVPv2
from stforecast.training import validation as _validation
from stforecast.training.checkpoints import read_checkpoint
from stforecast.training.fit import fit
from stforecast.training.log import read_log

pytestmark = pytest.mark.usefixtures("without_curves")


# --- the runs that are killed ---------------------------------------------------------------------


#: What is called, and so can be killed, in the course of a run.
CALLS = {
    "batch": [(ResidentFeed, "batch"), (StreamingFeed, "batch")],  # also of validations
    "forward": [(SimVPv2, "forward")],
    "optimiser step": [(torch.optim.Adam, "step")],
    "validation": [(_validation.Validation, "__call__")],
    "weights written": [(sys.modules["safetensors.torch"], "save_file")],
    "fsync": [(os, "fsync")],
    "rename": [(os, "rename"), (os, "replace")],
    "file removed": [(os, "unlink")],
    "directory removed": [(os, "rmdir")],
}


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal is for the whole process, this may be but one thread of it


def arm(call, number, when, counts):
    """Count all calls; die at the `number`-th of `call`: before it, after it, or half through."""

    def wrap(name, original):
        def wrapped(*args, **options):
            counts[name] = counts.get(name, 0) + 1
            here = name == call and counts[name] == number
            if here and when == "before":
                die()
            result = original(*args, **options)
            if here and when == "half":
                os.truncate(args[1], os.path.getsize(args[1]) // 2)
            if here:
                die()
            return result

        return wrapped

    for name, places in CALLS.items():
        for owner, attribute in places:
            setattr(owner, attribute, wrap(name, getattr(owner, attribute)))


#: Beside the plain ones: all that has a memory of its own. Three passes a step, of 8 windows.
AVERAGED = {"ema": 0.9, "accumulate": 3, "clip_norm": 0.1, "patience": 3, "storage": "bf16"}


def train(directory, feed, datasets=None):
    """What is killed: fit, with a note of every sample shown, and its result in files."""
    more = AVERAGED if feed == "averaged" else {}
    feed = "resident" if more else feed
    log = os.open(directory / "samples", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    kind = {"resident": ResidentFeed, "stream": StreamingFeed}[feed]
    original = kind.batch

    def batch(self, step):
        x, y = original(self, step)
        if self.shuffle:  # not of validations
            digest = hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()
            os.write(log, f"{step} {digest}\n".encode())
        return x, y

    kind.batch = batch
    weather, valid = datasets or data()
    if feed == "stream":
        weather, valid = weather.chunk(time=7), valid.chunk(time=9)
    config = replace(CONFIG, feed=feed, **more)
    result = fit(
        weather, TASK, model=network, config=config, validation=valid, run_dir=directory / "run"
    )
    save_file({k: v.contiguous() for k, v in result.network.state_dict().items()},
              directory / "result.safetensors")  # fmt: skip
    (directory / "result.json").write_text(json.dumps(result.training["validation"]))


def serve():
    """Fork a run for each line that comes in; say how it ended and what it called."""
    torch.set_num_threads(1)
    datasets = [ds.load() for ds in data()]
    with tempfile.TemporaryDirectory() as warm:  # with all that is imported on the way
        options = {"model": network, "config": replace(CONFIG, steps=1), "validation": datasets[1]}
        fit(datasets[0], TASK, run_dir=Path(warm) / "run", **options)
    for line in sys.stdin:
        order = json.loads(line)
        directory = Path(order["directory"])
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                counts = {}
                arm(order.get("call"), order.get("number"), order.get("when"), counts)
                train(directory, order["feed"], datasets)
                (directory / "counts").write_text(json.dumps(counts))
                code = 0
            finally:
                os._exit(code)
        began = time.monotonic()
        if "seconds" in order:
            time.sleep(order["seconds"])
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([status, time.monotonic() - began]), flush=True)  # noqa: T201


class Server:
    """The warm process, asked."""

    def __init__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, directory, feed="resident", **kill):
        """Run once; returns the exit status (minus the signal) and the seconds it took."""
        directory.mkdir(exist_ok=True)
        order = {"directory": str(directory), "feed": feed} | kill
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """Runs that are never stopped: {feed: (outcome, calls, seconds)}."""
    runs = {}
    for feed in ("resident", "stream", "averaged"):
        directory = tmp_path_factory.mktemp(feed)
        status, seconds = server.run(directory, feed)
        assert status == 0
        calls = json.loads((directory / "counts").read_text())
        assert set(calls) == set(CALLS)
        runs[feed] = outcome(directory), calls, seconds
    return runs


def timeless(history):
    times = ("seconds", "samples_per_s", "waiting")
    return [{k: v for k, v in line.items() if k not in times} for line in history]


def outcome(directory):
    """All that must not depend on having been killed."""
    run = directory / "run"
    lines = (directory / "samples").read_text().splitlines()
    samples = {tuple(line.split()) for line in lines}  # a step that came twice: as before
    state = json.loads((run / "checkpoint-00000030/state.json").read_text())
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return {
        "weights": (directory / "result.safetensors").read_bytes(),
        "validation": json.loads((directory / "result.json").read_text()),
        "samples": sorted(samples),
        "optimiser, best, random state": (
            run / "checkpoint-00000030/state.safetensors"
        ).read_bytes(),
        "state": {k: v for k, v in state.items() if k not in ("seconds", "sha256", "history")},
        "history": timeless(history),
        "log": timeless(read_log(run)),
        "history in the checkpoint": timeless(state["history"]),
        "files": sorted(p.name for p in run.iterdir()),
    }


def check(found, expected):
    assert [k for k in expected if found[k] != expected[k]] == []


def test_an_uninterrupted_run_is_what_it_should_be(whole):
    found, calls, _ = whole["resident"]
    assert len(found["samples"]) == 30  # each step once
    assert [line["step"] for line in found["history"]] == [7, 14, 21, 28, 30]
    assert found["files"] == [
        "about.json", "checkpoint-00000028", "checkpoint-00000030", "history.jsonl", "log.jsonl",
        "loss.png", "run.json", "tensorboard",
    ]  # fmt: skip
    assert calls["optimiser step"] == 30
    assert calls["weights written"] == 10 + 3  # each third step; 7, 14 and 28


QUICK = {
    "in the first step": [("forward", 1, "after")],
    "between backward and the step": [("optimiser step", 17, "before")],
    "in a validation": [("batch", 7 + 1, "after")],
    "before a checkpoint": [("weights written", 3, "before")],
    "half through a checkpoint": [("weights written", 5, "half")],
    "before it is forced to disk": [("fsync", 18, "before")],
    "between writing and renaming": [("rename", 8, "before")],
    "between renaming and the history": [("rename", 8, "after")],
    "while the oldest is removed": [("file removed", 3, "after")],
    "twice, and while it goes on again": [("rename", 11, "after"), ("rename", 1, "before")],
}


@pytest.mark.parametrize("kills", QUICK.values(), ids=QUICK)
def test_killed_and_started_again(server, whole, tmp_path, kills):
    for call, number, when in kills:
        status, _ = server.run(tmp_path, call=call, number=number, when=when)
        assert status == -signal.SIGKILL
    assert server.run(tmp_path)[0] == 0
    check(outcome(tmp_path), whole["resident"][0])


@pytest.mark.parametrize("kill", [("optimiser step", 20, "before"), ("rename", 12, "after")])
def test_killed_with_average_accumulation_and_clipping(server, whole, tmp_path, kill):
    call, number, when = kill
    kill = {"call": call, "number": number, "when": when}
    assert server.run(tmp_path, "averaged", **kill)[0] == -signal.SIGKILL
    assert server.run(tmp_path, "averaged")[0] == 0
    check(outcome(tmp_path), whole["averaged"][0])
    assert whole["averaged"][0]["weights"] != whole["resident"][0]["weights"]


@pytest.mark.slow
@pytest.mark.parametrize(("feed", "kills"), [("resident", 100), ("averaged", 40), ("stream", 30)])
def test_killed_at_random_points(server, whole, tmp_path, feed, kills):
    """Every run that was killed, up to three times, ends as the one that was not."""
    rng = random.Random(feed)
    expected, calls, seconds = whole[feed]
    killed, runs = [], 0
    while len(killed) < kills:
        directory = tmp_path / "run"
        here = []
        for _ in range(rng.choice([1, 1, 2, 3])):
            kill = {"seconds": rng.uniform(0, seconds)}
            if rng.random() < 0.75:
                call = rng.choice(list(CALLS))
                when = ["before", "after", *["half"] * 2 * (call == "weights written")]
                kill = {"call": call, "number": rng.randint(1, calls[call])}
                kill |= {"when": rng.choice(when)}
            if server.run(directory, feed, **kill)[0] == -signal.SIGKILL:
                here.append(kill)
        killed += here
        assert server.run(directory, feed)[0] == 0, here
        found = outcome(directory)
        assert [k for k in expected if found[k] != expected[k]] == [], here
        runs += 1
        shutil.rmtree(directory)
    logging.getLogger(__name__).warning("%s: %d kills, %d runs", feed, len(killed), runs)


@pytest.mark.slow
def test_the_command_itself_killed(whole, tmp_path):
    """Without forks: a new interpreter each time, killed in start-up, training or at its end."""
    command = [sys.executable, __file__, str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    rng = random.Random(0)
    steps = iter([4, 11, 20, 29])
    for wanted in steps:
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                samples = tmp_path / "samples"
                if samples.exists() and f"\n{wanted} " in samples.read_text():
                    break
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    check(outcome(tmp_path), whole["resident"][0])


# --- stopping, and going on -----------------------------------------------------------------------


def interrupt_at(step):
    """Ctrl-C at the end of step `step`: the one after it is done still."""

    def progress(event):
        if event["step"] == step:
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.mark.parametrize("step", [2, 8, 13])
def test_ctrl_c_leaves_no_trace(datasets, tmp_path, whole, step):
    """Neither in the history, nor in what is the best, nor in the sums of the losses."""
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step + 1} of 30"):
        go(datasets, tmp_path, config=CONFIG, progress=interrupt_at(step))
    assert (tmp_path / f"checkpoint-{step + 1:08d}").is_dir()
    result = go(datasets, tmp_path, config=CONFIG)
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    for line, other in zip(history, whole["resident"][0]["history"], strict=True):
        assert timeless([line])[0] == pytest.approx(other, rel=1e-6)  # of other threads
    assert result.training["validation"]["step"] == whole["resident"][0]["validation"]["step"]


def test_moments_have_the_layout_of_their_weights(datasets, copy, monkeypatch):
    """Or a kernel that walks memory as it lies would pair them with the wrong weights."""
    shutil.rmtree(copy / "checkpoint-00000006")
    step, pairs = torch.optim.Adam.step, []

    def look(optimizer, *args):  # before the first step, with the moments of the checkpoint
        for weight, state in optimizer.state.items():
            pairs.append((weight.stride(), state["exp_avg"].stride()))
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    go(datasets, copy)
    assert any(len(w) == 4 and w[1] == 1 for w, _ in pairs)  # channels last
    assert all(w == m for w, m in pairs)


def test_weights_that_are_not_finite_are_not_kept(datasets, tmp_path):
    step = torch.optim.Adam.step

    def spoil(self, *args):
        step(self, *args)
        if self.param_groups[0]["lr"] and len(list(tmp_path.glob("checkpoint-*"))):
            self.param_groups[0]["params"][0].data.fill_(float("nan"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", spoil)
        with pytest.raises(DivergenceError, match="The last good checkpoint is kept"):
            go(datasets, tmp_path, validation=None)
    for path in tmp_path.glob("checkpoint-*"):
        _, tensors = read_checkpoint(path)
        assert all(v.isfinite().all() for v in tensors.values())


# --- two runs, one directory ----------------------------------------------------------------------


def test_two_runs_in_a_directory(datasets, tmp_path, monkeypatch):
    monkeypatch.setattr(stforecast.training.checkpoints, "_PATIENCE", 0.0)
    refused = []

    def second(event):
        if event["step"] == 3:
            with pytest.raises(InputError) as error:
                go(datasets, tmp_path, resume="never")
            refused.append(str(error.value))

    go(datasets, tmp_path, progress=second)
    assert f"another process (pid {os.getpid()}) is training in {tmp_path} already" in refused[0]
    assert good(tmp_path) == [4, 6]
    assert not (tmp_path / "run.lock").exists()


def test_a_lock_left_behind_is_taken_over(datasets, copy, caplog):
    (copy / "run.lock").write_text(f"999999999\n{socket.gethostname()}\n")
    go(datasets, copy)
    assert "taking over" in caplog.text
    assert "from process 999999999" in caplog.text
    assert not (copy / "run.lock").exists()


def test_locks_of_a_file_system_without_locks(tmp_path, monkeypatch):
    """There the file decides: it counts as long as the process that wrote it lives."""

    def without(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    path, host = tmp_path / "run.lock", socket.gethostname()
    path.write_text(f"{os.getpid()}\n{host}\n")
    with pytest.raises(InputError, match="already"), locked(path, "training"):
        pass
    path.write_text(f"999999999\n{host}\n")
    with locked(path, "training") as ours:
        assert ours()
        with pytest.raises(InputError, match="already"), locked(path, "training"):
            pass
    assert not path.exists()
    path.write_text(f"{os.getpid()}\nelsewhere\n")
    with pytest.raises(InputError, match="on elsewhere"), locked(path, "training"):
        pass  # a process of another host: nobody can tell


def test_a_finished_run_holds_what_its_description_says(finished):
    directory, result = finished
    state, tensors = read_checkpoint(directory / "checkpoint-00000006")
    assert set(state) == {
        "format", "version", "library", "step", "losses", "best", "history", "seconds", "ranks",
        "identity", "files", "tensors",
    }  # fmt: skip
    parts = {name.split(".")[0] for name in tensors}
    assert parts == {"network", "normalizer", "optimizer", "best", "rng", "loss_sum"}
    best = {k: v for k, v in tensors.items() if k.startswith("best.")}
    for name, value in result.network.state_dict().items():
        assert torch.equal(best[f"best.{name}"], value)
    assert load_file(directory / "checkpoint-00000006/state.safetensors").keys() == tensors.keys()
    assert state["identity"]["config"]["seed"] == 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        torch.set_num_threads(1)
        train(Path(sys.argv[1]), "resident")
    else:
        serve()
