"""What a checkpoint on disk must say, in closed form; test_resume tries it in runs."""

from __future__ import annotations

import math

import torch

from stforecast.training import kept_steps
from stforecast.training.checkpoint_files import (
    best_of,
    differences,
    find_checkpoints,
    forms,
    is_event,
    is_rising,
    misfit,
    read_checkpoint,
    write_checkpoint,
)

STATE = {
    "library": "1",
    "step": 3,
    "losses": 3,
    "best": {"step": 2, "val_score": 0.5},
    "history": [{"step": 2, "val_score": 0.5}, {"step": 3, "val_score": 0.5}],
    "seconds": 0.0,
    "ranks": 1,
    "identity": {},
}


def test_the_best_validation_is_the_first_of_the_lowest():
    history = [
        {"step": 1, "val_score": math.nan},
        {"step": 2, "train_loss": 0.1},
        {"step": 3, "val_score": 0.5, "val_rmse": 2.0, "train_loss": 0.2, "seconds": 1.0},
        {"step": 4, "val_score": 0.5},
        {"step": 5, "val_score": 0.7},
    ]
    assert best_of(history) == {"step": 3, "val_score": 0.5, "val_rmse": 2.0}
    assert best_of(history[:2]) == best_of([]) == {}


def test_differences_of_nested_mappings():
    saved = {"a": {"b": 1, "c": 2}, "d": [1], "e": 3}
    assert differences(saved, saved) == []
    now = {"a": {"b": 1, "c": 4}, "d": [2], "f": 5}
    told = ["c: 2, now 4", "d: [1], now [2]", "e: 3, now None", "f: None, now 5"]
    assert differences(saved, now) == told
    assert differences("x" * 99, "y", "k") == [f"k: {'x' * 90}, now y"]
    assert differences({"a": 1}, 2, "k") == ["k: {'a': 1}, now 2"]


def test_events_are_numbers_by_name_with_a_step():
    assert is_event({"step": 1, "val_score": math.nan, "n": 2**63 - 1})
    for bad in ({}, {"step": 0}, {"step": True}, {"step": 1.0}, {"step": 2**63}, [("step", 1)]):
        assert not is_event(bad), bad
    for value in ("1", None, True, 2**63, -(2**63)):
        assert not is_event({"step": 1, "x": value}), value


def test_events_rise_to_the_last():
    events = [{"step": s} for s in (1, 3, 4)]
    assert is_rising(events)
    assert is_rising(events, 4)
    assert not is_rising(events, 3)
    assert not is_rising(events[::-1])
    assert not is_rising(events[:1] * 2)
    assert is_rising([], 0)


def test_a_misfit_is_named():
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.int64)}
    assert misfit(tensors, forms(tensors)) == ""
    assert misfit(tensors, {**forms(tensors), "a": (torch.float32, None)}) == ""
    assert misfit(tensors, {**forms(tensors), "c": (torch.float32, None)}) == "c is missing"
    assert misfit(tensors, {"b": (torch.int64, ())}) == "nothing is known of a"
    shape = {"a": (torch.float32, (3, 2))}
    assert misfit(tensors, shape) == "a is float32 (2, 3), expected float32 (3, 2)"
    kind = {"a": (torch.float64, None)}
    assert misfit(tensors, kind) == "a is float32 (2, 3), expected float64 (2, 3)"


def test_checkpoints_by_their_steps(tmp_path):
    names = ["checkpoint-00000009", "checkpoint-100000000", "checkpoint-00000010"]
    others = ["checkpoint-0000001", "checkpoint-0000000x", "damaged-checkpoint-00000001", "log"]
    for name in [*names, *others]:
        (tmp_path / name).mkdir()
    assert [p.name for p in find_checkpoints(tmp_path)] == [names[1], names[2], names[0]]
    assert kept_steps(tmp_path) == [9, 10, 100_000_000]
    assert kept_steps(tmp_path / "nowhere") == []


def test_a_checkpoint_comes_back(tmp_path):
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, dtype=torch.int64)}
    path = tmp_path / "checkpoint-00000003"
    write_checkpoint(path, STATE, tensors)
    state, found = read_checkpoint(path)
    assert {k: state[k] for k in STATE} == STATE
    assert (state["format"], state["version"]) == ("stforecast-checkpoint", 3)
    assert (state["tensors"], list(state["files"])) == (2, ["state.safetensors"])
    assert found.keys() == tensors.keys()
    assert all(found[k].equal(t) for k, t in tensors.items())
