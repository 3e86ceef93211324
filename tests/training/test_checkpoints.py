"""Runs that are stopped go on, or begin anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tiny
from weather_task import CONFIG, TASK, stop_at

from stforecast.errors import InputError
from stforecast.models.simvp import SimVPv2
from stforecast.training import kept_steps, weights_at
from stforecast.training.fit import fit


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_stopped_and_resumed_gives_the_same_weights(weather, valid, tmp_path, step):
    options = {"model": lambda: SimVPv2(**(tiny().settings | {"drop_path": 0.3})), "config": CONFIG}
    whole = fit(weather, TASK, validation=valid, **options)
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step + 1} of 6"):
        fit(weather, TASK, validation=valid, run_dir=tmp_path, progress=stop_at(step), **options)
    seen = []
    again = fit(weather, TASK, validation=valid, run_dir=tmp_path, progress=seen.append, **options)
    assert seen[0]["step"] == step + 2
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


def test_a_damaged_checkpoint_falls_back_to_the_one_before(weather, tmp_path, caplog):
    whole = fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path)
    last = sorted(tmp_path.glob("checkpoint-*"))[-1]
    state = last / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    seen = []
    again = fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path, progress=seen.append)
    assert "damaged" in caplog.text
    assert [e["step"] for e in seen] == [5, 6]
    name = "readout.weight"
    assert torch.equal(whole.network.state_dict()[name], again.network.state_dict()[name])


def test_another_run_in_the_directory_is_refused(weather, tmp_path):
    fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path)
    other = replace(CONFIG, learning_rate=0.1)
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(InputError, match=r"a run with other settings \(config differ\)"):
        fit(weather, TASK, model=tiny, config=other, run_dir=tmp_path)
    assert (tmp_path / "run.json").read_text() == before


def test_starting_anew_leaves_nothing_of_the_old_run(weather, tmp_path):
    fit(weather, TASK, model=tiny, config=CONFIG, run_dir=tmp_path, resume="never")  # nothing yet
    shorter = {"model": tiny, "config": replace(CONFIG, steps=2), "run_dir": tmp_path}
    fit(weather, TASK, resume="never", **shorter)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000002"]
    seen = []
    fit(weather, TASK, progress=seen.append, **shorter)  # the new run is what is gone on with
    assert seen == []


@pytest.mark.parametrize("ema", [None, 0.5])
def test_states_of_chosen_steps_are_kept(weather, tmp_path, ema):
    config, network, seen = replace(CONFIG, ema=ema, keep_checkpoints=(3, 1)), tiny(), {}

    def watch(event):
        seen[event["step"]] = {k: v.clone() for k, v in network.state_dict().items()}

    options = {"model": network, "run_dir": tmp_path}
    whole = fit(weather, TASK, config=config, progress=watch, **options).network.state_dict()
    assert kept_steps(tmp_path) == [1, 3, 4, 6]
    for step in (1, 3, 6):
        same = all(seen[step][n].equal(t) for n, t in weights_at(tmp_path, step).items())
        assert same is (ema is None)  # else they are the averaged weights
    for step, same in (("best", True), (6, True), (3, False)):
        weights = weights_at(tmp_path, step)
        assert weights.keys() == whole.keys()
        assert all(whole[n].equal(t) for n, t in weights.items()) is same
    with pytest.raises(InputError, match=r"no checkpoint of step 2, found those of steps 1, 3,"):
        weights_at(tmp_path, 2)
    with pytest.raises(InputError, match="no checkpoint of step best, found none"):
        weights_at(tmp_path / "nowhere", "best")

    # It is no other run without them; they go then.
    fit(weather, TASK, config=replace(config, keep_checkpoints=()), **options)
    assert kept_steps(tmp_path) == [4, 6]


def test_the_best_weights_are_not_the_last_where_training_spoils_them(weather, valid, tmp_path):
    """What it learns of the waves is of no use where their order is lost."""
    seen = []
    config = replace(CONFIG, validate_every=1, learning_rate=0.1, schedule="constant", ema=None)
    options = {"model": tiny, "config": config, "run_dir": tmp_path, "progress": seen.append}
    values = valid["2m_temperature"].values
    values = np.random.default_rng(0).permutation(values)
    shuffled = valid.assign({"2m_temperature": valid["2m_temperature"].copy(data=values)})
    chosen = fit(weather, TASK, validation=shuffled, **options).network.state_dict()
    scores = [event["val_score"] for event in seen]
    assert scores.index(min(scores)) < len(scores) - 1, scores
    best, last = (weights_at(tmp_path, step) for step in ("best", 6))
    assert all(chosen[n].equal(t) for n, t in best.items())
    assert not all(chosen[n].equal(t) for n, t in last.items())
