"""The authors' public code, reproduced: golden weights, inputs, outputs, gradients, losses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_cases import CASES, GOLDEN, load_case, relative

pytestmark = [
    pytest.mark.skipif(not CASES, reason=f"no golden files at {GOLDEN}"),
    pytest.mark.usefixtures("several_threads"),
]


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name):
    case, model, io = load_case(name)
    assert sum(p.numel() for p in model.parameters()) == case["params"]
    with torch.no_grad():
        out = model(torch.from_numpy(io["x"])).numpy()
    assert relative(out, io["out"]) < 1e-5

    model.double()
    x = torch.from_numpy(io["x"]).double().requires_grad_()
    out = model(x)
    assert np.abs(out.detach().numpy() - io["out64"]).max() < 1e-9
    ((out - torch.from_numpy(io["y"]).double()) ** 2).mean().backward()
    assert relative(x.grad.numpy(), io["grad_x64"]) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_training_losses(name):
    case, model, io = load_case(name)
    model.double().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.from_numpy(io["x"]).double(), torch.from_numpy(io["y"]).double()
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    expected = case["train_mode_float64"]
    np.testing.assert_allclose(losses, expected["losses"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_stays_near_float32(name):
    _, model, io = load_case(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = model(torch.from_numpy(io["x"])).float().numpy()
    assert relative(out, io["out"]) < 2e-2


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_weather_windows(part):
    """The authors' windows and normalisation, from the same files through our data set and feed.

    Theirs normalise each split by itself, lose its last hour and its last window, and cross the gap
    between two years (their files hold 40 hours of each). The values are the same otherwise.
    """
    from stforecast.datasets.periods import select_period
    from stforecast.datasets.weather import open_weatherbench
    from stforecast.loading.feeds import open_feed
    from stforecast.loading.statistics import statistics
    from stforecast.task import Task, window_starts

    case = json.loads((GOLDEN / "data_weather_t2m.json").read_text())
    expected = np.load(GOLDEN / "data_weather_t2m.npz")
    ds = open_weatherbench(GOLDEN / "data_weather_t2m_nc", "t2m", chunks=None)
    years = case["split_years"][part]
    ds = select_period(ds, f"{years[0]}:{years[1]}").load()
    task = Task("t2m", input_steps=len(case["idx_in"]), target_steps=len(case["idx_out"]))
    starts = window_starts(ds["time"].values, task.step, task.window)
    assert len(starts) == len(set(years)) * (case["hours_per_file"] - task.window + 1)

    theirs = case["splits"][part]
    kept = ds["2m_temperature"].values[: theirs["steps_kept"]].astype(np.float64)
    mean, std = kept.mean(), kept.std()
    feed = open_feed(ds, task, 1, shuffle=False)
    for which, first in (("0", 0), ("last", theirs["valid_idx_last"] - theirs["valid_idx_first"])):
        x, y = feed.batch(int(np.flatnonzero(starts == first)[0]))
        for name, values in (("x", x), ("y", y)):
            ours = (values[0].numpy() - mean) / std
            np.testing.assert_allclose(ours, expected[f"{part}_{name}{which}"], atol=2e-5)

    if part == "train":  # ours: the training years, all of their hours
        assert mean == pytest.approx(theirs["mean_attr"], rel=1e-6)
        assert std == pytest.approx(theirs["std_attr"], rel=1e-6)
        whole = ds["2m_temperature"].values.astype(np.float64)
        ours = statistics(feed)
        assert float(ours[0][0]) == pytest.approx(whole.mean(), rel=1e-6)
        assert float(ours[1][0]) == pytest.approx(whole.std(), rel=1e-6)
