"""Going on: with other settings, from somebody else's directory, from what says too little."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import tiny
from safetensors.torch import load_file, save_file

from stforecast.errors import InputError
from stforecast.files import locked
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training import TrainConfig, fit
from stforecast.training.checkpoints import read_checkpoint, sealed

TASK = Task("t2m", input_steps=4, target_steps=3)
CONFIG = TrainConfig(
    steps=6, batch_size=8, validate_every=2, val_windows=8, ema=0.9, precision="fp32", device="cpu"
)


@pytest.fixture(autouse=True, scope="module")
def without_curves():
    """Neither TensorBoard's files nor pictures, here: they take longer than such a run."""
    from stforecast.training import log

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_tensorboard", lambda *args: None)
        patch.setattr(log.util, "find_spec", lambda name: None)
        yield


@pytest.fixture(scope="module")
def data():
    return make_weather(60, shape=(6, 10)), make_weather(24, time="2002", shape=(6, 10), seed=1)


def go(data, directory, **options):
    options = {"model": tiny, "config": CONFIG, "validation": data[1], "task": TASK} | options
    return fit(data[0], run_dir=directory, **options)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run with checkpoints of steps 4 and 6, and its weights."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, go(data, directory).network.state_dict()


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


# --- another run: which setting differs, and how --------------------------------------------------

WIDE = {"encoder_channels": 8, "translator_channels": 8}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"config": replace(CONFIG, steps=8)},
            r"\(config differ\): steps: 6, now 8; .*resume='never'.*cannot be made longer.*warm_st",
        ),
        ({"config": replace(CONFIG, steps=5)}, r"\(config differ\): steps: 6, now 5;"),
        ({"config": replace(CONFIG, steps=None, epochs=3)}, r"steps: 6, now 21"),
        ({"config": replace(CONFIG, seed=1, ema=None)}, r"ema: 0.9, now None; seed: 0, now 1"),
        ({"config": replace(CONFIG, loss="mae")}, r"\(config differ\): loss: mse, now mae;"),
        ({"model": lambda: tiny(**WIDE)}, r"\(model differ\): encoder_channels: \d+, now 8"),
        ({"task": replace(TASK, nan="mask")}, r"\(task differ\): nan: refuse, now mask;"),
        (
            {"validation": None},
            r"\(validation period differ\): validation period: 2002-.*now None;",
        ),
    ],
)
def test_what_differs_is_named(data, copy, change, words):
    with pytest.raises(InputError, match=words):
        go(data, copy, **change)


def test_only_steps_cannot_be_more(data, copy):
    with pytest.raises(InputError) as error:
        go(data, copy, config=replace(CONFIG, seed=1))
    assert "longer" not in str(error.value)


# --- a checkpoint that says less than it should ---------------------------------------------------


def reseal(path, change=None, tensors=None):
    """Alter a checkpoint so that all its checksums hold."""
    if tensors is not None:
        held = load_file(path / "state.safetensors")
        held = tensors(held) or held
        save_file(held, path / "state.safetensors")
    state = json.loads((path / "state.json").read_text())
    del state["sha256"]
    digest = hashlib.sha256((path / "state.safetensors").read_bytes()).hexdigest()
    state["files"] = {"state.safetensors": digest}  # and then the change, which may be of these
    state = (change(state) or state) if change else state
    (path / "state.json").write_text(sealed(state))


def falls_back(data, finished, directory, caplog, words=""):
    """The checkpoint of step 4 is taken, loudly; and the run ends as it did, to the bit."""
    seen = []
    again = go(data, directory, progress=seen.append).network.state_dict()
    assert [event["step"] for event in seen] == [5, 6]
    assert all(torch.equal(value, again[name]) for name, value in finished[1].items())
    loud = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "checkpoint-00000006" in loud[0]
    assert words in loud[0]
    assert (directory / "damaged-checkpoint-00000006").is_dir()


ENTRIES = ["format", "version", "library", "step", "losses", "best", "history", "seconds", "ranks"]
ENTRIES += ["identity", "files"]
KINDS = [None, True, "x", 1.5, -1, 10**12, [], {}, [1], {"a": 1}, float("nan"), float("inf")]


@pytest.mark.parametrize("entry", ENTRIES)
def test_entries_that_are_missing_or_of_another_kind(copy, entry):
    path = copy / "checkpoint-00000006"
    state, _ = read_checkpoint(path)
    harmless = {"library": ["x"], "seconds": [1.5, 10**12], "losses": [], "ranks": [10**12]}
    (path / "state.json").write_text(sealed({k: v for k, v in state.items() if k != entry}))
    with pytest.raises(InputError, match=r"state\.json is damaged"):
        read_checkpoint(path)
    for value in KINDS:
        if any(value is other or value == other for other in harmless.get(entry, [])):
            continue
        if entry == "identity" and isinstance(value, dict):
            continue  # it is held against the run's own
        (path / "state.json").write_text(sealed(state | {entry: value}))
        with pytest.raises(InputError, match=r"state\.json is damaged"):
            read_checkpoint(path)


def without(*beginnings):
    return lambda held: {k: v for k, v in held.items() if not k.startswith(beginnings)}


def put(**values):
    """Tensors in place of others; dots are written as two underscores."""
    return lambda held: (
        held | {k.replace("__", "."): v(held[k.replace("__", ".")]) for k, v in values.items()}
    )


def first(held, beginning, ending=""):
    return next(k for k in sorted(held) if k.startswith(beginning) and k.endswith(ending))


def at_first(beginning, change, ending=""):
    return lambda held: held | {(k := first(held, beginning, ending)): change(held[k])}


SPOILT = {
    "another step": lambda s: s | {"step": 5},
    "a step that is true": lambda s: s | {"step": True},
    "losses of later steps": lambda s: s | {"losses": 7},
    "no best": lambda s: s | {"best": {}},
    "another best": lambda s: s | {"best": s["best"] | {"step": 2, "val_score": 0.0}},
    "a shorter history": lambda s: s | {"history": s["history"][:0]},
    "a history that goes back": lambda s: s | {"history": s["history"][::-1]},
    "a text in the history": lambda s: s | {"history": [{**s["history"][0], "loss": "x"}]},
    "no files": lambda s: s | {"files": {}},
    "a list of files": lambda s: s | {"files": ["state.safetensors"]},
    "a device among the files": lambda s: s | {"files": s["files"] | {"/dev/zero": "0"}},
    "an entry more": lambda s: s | {"more": 1},
}
UNFIT = {
    "a step that is true": SPOILT["a step that is true"],
    "processes without random numbers": lambda s: s | {"ranks": 2},
    "very many processes": lambda s: s | {"ranks": 10**12},
    "an identity that lacks something": lambda s: s | {"identity": {"task": s["identity"]["task"]}},
}
SPOILT_TENSORS = {
    "no moments": without("optimizer."),
    "no moments of a weight": without("optimizer.0."),
    "a moment less": lambda h: without(first(h, "optimizer.0.", "exp_avg"))(h),
    "moments of another shape": at_first("optimizer.", lambda t: t[None], "exp_avg"),
    "moments of another kind": at_first("optimizer.", lambda t: t.double(), "exp_avg_sq"),
    "moments of other steps": at_first("optimizer.", lambda t: t + 1, ".step"),
    "moments of no weight": lambda h: h | {"optimizer.999.step": torch.ones(())},
    "no random numbers": without("rng."),
    "random numbers that are none": put(rng__cpu=torch.zeros_like),
    "too few random numbers": put(rng__cpu=lambda t: t[:10].clone()),
    "no sum of losses": without("loss_sum"),
    "no average": without("average."),
    "no best weights": without("best."),
    "best weights of another network": at_first("best.", lambda t: torch.zeros(3, 3)),
    "a weight less": lambda h: without(first(h, "network."))(h),
    "weights of another shape": at_first("network.", lambda t: t[None]),
    "weights of another kind": at_first("network.", lambda t: t.half()),
    "weights that are not finite": at_first("network.", lambda t: t * float("nan")),
    "no mean": without("normalizer.mean"),
    "a tensor more": lambda h: h | {"more": torch.zeros(1)},
}


@pytest.mark.parametrize("change", SPOILT.values(), ids=SPOILT)
def test_a_description_that_contradicts_itself(copy, change):
    reseal(copy / "checkpoint-00000006", change)
    with pytest.raises(InputError, match=r"state\.json is damaged"):
        read_checkpoint(copy / "checkpoint-00000006")


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT)
def test_a_description_that_says_less(data, finished, copy, caplog, change):
    reseal(copy / "checkpoint-00000006", change)
    falls_back(data, finished, copy, caplog)


@pytest.mark.parametrize("change", SPOILT_TENSORS.values(), ids=SPOILT_TENSORS)
def test_tensors_that_do_not_fit(data, finished, copy, caplog, change):
    reseal(copy / "checkpoint-00000006", tensors=change)
    falls_back(data, finished, copy, caplog)


def test_a_checkpoint_of_before_goes_on(data, finished, copy):
    """Which does not say how many tensors there are."""
    shutil.rmtree(copy / "checkpoint-00000006")
    reseal(copy / "checkpoint-00000004", lambda s: {k: v for k, v in s.items() if k != "tensors"})
    again = go(data, copy).network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in finished[1].items())


def test_a_network_of_another_kind_is_another_run(data, tmp_path):
    go(data, tmp_path)
    with pytest.raises(InputError, match=r"\(model differ\): .* is float32 .*, expected float64"):
        go(data, tmp_path, model=lambda: tiny().double())
    assert not list(tmp_path.glob("damaged-*"))


# --- a directory of somebody else -----------------------------------------------------------------


def to_link(path):
    elsewhere = path.parents[1] / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def to_pipe(path):
    path.unlink()
    os.mkfifo(path)


def to_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("change", [to_link, to_pipe, to_device])
@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_files_that_are_no_files(data, finished, copy, caplog, change, name):
    if change is to_link:
        path = copy / "checkpoint-00000006"
        if name == "state.json":  # once the directory itself
            to_link(path)
        else:
            shutil.move(path / name, copy / "elsewhere")
            (path / name).symlink_to(copy / "elsewhere")
    else:
        change(copy / "checkpoint-00000006" / name)
    falls_back(data, finished, copy, caplog, "a link, or no regular file")


@pytest.mark.parametrize("kind", ["pipe", "link", "dead link", "directory", "device"])
def test_a_lock_that_is_no_file(tmp_path, kind):
    lock, other = tmp_path / "run.lock", tmp_path / "other"
    other.write_text("mine")
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "directory":
        lock.mkdir()
    else:
        targets = {"link": other, "dead link": tmp_path / "none", "device": Path("/dev/null")}
        lock.symlink_to(targets[kind])
    with pytest.raises(InputError, match=r"run\.lock is no lock.*remove it"), locked(lock, "x"):
        pass
    assert other.read_text() == "mine"
    assert not (tmp_path / "none").exists()
