"""The authors' public code, reproduced: golden weights, inputs, outputs, gradients, losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stforecast.models import load_openstl

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden" / "public"
CASES = sorted(p.name.removesuffix(".weights.safetensors") for p in GOLDEN.glob("*.safetensors"))
pytestmark = pytest.mark.skipif(not CASES, reason=f"no golden files at {GOLDEN}")


def load_case(name):
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    options = case["hyper_parameters"] | {"drop_path": None}  # they were taken with it off
    model = load_openstl(
        GOLDEN / f"{name}.weights.safetensors", target_steps=case["aft_seq_length"], **options
    )
    return case, model, np.load(GOLDEN / f"{name}.io.npz")


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


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
