"""Accumulation, clipping, averages of the weights, and when training ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import Linear, tiny
from weather_task import CONFIG, TASK, ocean, weights

from stforecast.errors import InputError
from stforecast.training.fit import fit


@pytest.mark.parametrize("parts", [2, 3, 100], ids=lambda n: f"{n} passes")
def test_accumulation_changes_nothing(weather, valid, parts):
    """With steps of 7 windows and a last one of 6, cut in unequal parts, or single ones."""
    config = replace(CONFIG, steps=None, epochs=1, batch_size=7, val_windows=5)
    sea, other = ocean(weather)[0], ocean(valid)[0]  # whose parts have other numbers of points
    for task, train, test in ((TASK, weather, valid), (replace(TASK, nan="mask"), sea, other)):
        events, runs = [], []
        for accumulate in (1, parts):
            events.append([])
            runs.append(
                fit(
                    train, task, model=lambda: Linear().double(), validation=test,
                    config=replace(config, accumulate=accumulate), progress=events[-1].append,
                )
            )  # fmt: skip
        whole, cut = ([e["loss"] for e in run if "loss" in e] for run in events)
        np.testing.assert_allclose(whole, cut, rtol=1e-12)
        np.testing.assert_allclose(*map(weights, runs), rtol=1e-9, atol=1e-9)


def test_clipping(weather, monkeypatch):
    """Adam's first moment after one step is a tenth of the gradient: its norm is what was said."""
    norms = []
    step = torch.optim.Adam.step

    def look(self, *args):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    for clip in (None, 1e-3, 1e3):
        fit(weather, TASK, model=Linear, config=replace(CONFIG, steps=1, clip_norm=clip))
    assert norms[0] > 1e-3
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)
    assert norms[2] == norms[0]


def test_the_average_is_what_is_validated_kept_and_returned(weather, valid, monkeypatch):
    """By its definition, from the weights after each step."""
    seen = []
    step = torch.optim.Adam.step

    def look(self, *args):
        result = step(self, *args)
        seen.append([p.detach().clone() for group in self.param_groups for p in group["params"]])
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    events = []
    config = replace(CONFIG, ema=0.3, learning_rate=1e-2, validate_every=6)
    options = {"config": config, "validation": valid, "progress": events.append}
    forecaster = fit(weather, TASK, model=Linear, **options)
    torch.manual_seed(config.seed)
    average = [p.detach().clone() for p in Linear().parameters()]
    for number, state in enumerate(seen):
        decay = min(0.3, (1 + number) / (10 + number))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, state, strict=True)]
    ours = list(forecaster.network.parameters())
    for a, w, last in zip(average, ours, seen[-1], strict=True):
        torch.testing.assert_close(a, w)
        assert not torch.allclose(w, last)
    scores = {e["step"]: e["val_rmse"] for e in events if "val_rmse" in e}
    plain = fit(weather, TASK, model=Linear, **options | {"config": replace(config, ema=None)})
    assert plain.training["validation"]["val_rmse"] != scores[6]
    without = fit(weather, TASK, model=Linear, config=config)  # no validation: the average still
    assert all(map(torch.equal, without.network.parameters(), ours))


def test_patience(weather, valid, tmp_path):
    """It ends when nothing got better for so long; called again, it has ended; more, it goes on."""
    config = replace(CONFIG, steps=40, learning_rate=0.5, patience=1)  # far too high
    events = []
    options = {"model": tiny, "validation": valid, "run_dir": tmp_path, "progress": events.append}
    ended = fit(weather, TASK, config=config, **options)
    scores = [e["val_score"] for e in events if "val_score" in e]
    best = int(np.argmin(scores))
    assert len(scores) == best + 2
    step = 2 * len(scores)
    assert step < 40
    assert ended.training["stopped"] == {"why": "patience", "step": step, "steps": 40}
    again = fit(weather, TASK, config=config, **options)
    assert again.training["stopped"] == ended.training["stopped"]
    assert torch.equal(weights(again), weights(ended))
    assert events[-1]["step"] == step
    fit(weather, TASK, config=replace(config, patience=None), **options)
    assert events[-1]["step"] == 40
    with pytest.raises(InputError, match="patience=1 needs a validation period"):
        fit(weather, TASK, model=tiny, config=config)


def test_minutes(weather, valid, tmp_path):
    """A budget ends the call with a checkpoint; calls of one step each give the same weights."""
    whole = fit(weather, TASK, model=tiny, config=CONFIG, validation=valid)
    short, steps = replace(CONFIG, minutes=1e-9), []
    for _ in range(6):
        part = fit(weather, TASK, model=tiny, config=short, validation=valid, run_dir=tmp_path)
        steps.append(part.training.get("stopped", {}).get("step"))
    assert steps == [1, 2, 3, 4, 5, None]
    assert torch.equal(weights(part), weights(whole))
