"""The recurrent networks of the authors' public code, reproduced from their stored cases."""

from __future__ import annotations

import json
import logging
from functools import cache

import numpy as np
import pytest
import torch
from helpers import SHARED
from safetensors.torch import load_file

from stforecast.errors import InputError
from stforecast.models import load_openstl

GOLDEN = SHARED / "golden" / "recurrent"
CASES = sorted(p.name.removesuffix(".weights.safetensors") for p in GOLDEN.glob("*.safetensors"))
pytestmark = pytest.mark.skipif(not CASES, reason=f"no golden files at {GOLDEN}")


@cache
def describe(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


@cache
def arrays(name):
    return dict(np.load(GOLDEN / f"{name}.io.npz"))


def network(name, **options):
    case = describe(name)
    return load_openstl(
        GOLDEN / f"{name}.weights.safetensors",
        model=case["model"],
        target_steps=case["aft_seq_length"],
        **case["hyper_parameters"],
        **options,
    )


def tensor(name, key):
    return torch.from_numpy(arrays(name)[key]).double()


def gap(found, expected):
    return np.abs(found.detach().numpy() - expected).max()


@pytest.mark.parametrize("name", CASES)
def test_golden_recurrent_outputs(name):
    """In float32 and float64, after all steps; with as many parameters, those in no use known."""
    model, io, case = network(name), arrays(name), describe(name)
    assert sum(p.numel() for p in model.parameters()) == case["params"]
    with torch.no_grad():
        assert gap(model(torch.from_numpy(io["x"])), io["out"]) < 5e-5
        out = model.double()(tensor(name, "x"))
        assert gap(out, io["out64"]) < 1e-9
        if "steps64" in io:
            all_steps = model.unroll(tensor(name, "x"), case["aft_seq_length"])[0]
            assert gap(all_steps, io["steps64"]) < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_golden_recurrent_gradients(name):
    """With respect to the input, and none for what that code does not use either."""
    model, io, case = network(name).double(), arrays(name), describe(name)
    if case["model"] == "CrevNet":
        pytest.skip("its test loop has no gradient: see its own tests")
    x = tensor(name, "x").requires_grad_()
    ((model(x) - tensor(name, "y")) ** 2).mean().backward()
    assert gap(x.grad, io["grad_x64"]) < 1e-9
    dead = {k: v for k, v in model.named_parameters() if v.grad is None}
    in_training = {"adapter.weight"}  # of PredRNNv2's loss
    assert not {k for k in dead if dead[k].requires_grad} - in_training
    frozen = sorted(k.rpartition(".")[0] for k in dead if not dead[k].requires_grad)
    theirs = case["parameters_without_gradient"]
    assert len(frozen) == len(theirs), (frozen, theirs)


def losses(model, name, mask):
    """Six losses of Adam with the mask fixed."""
    model = model.double().train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    x, y, found = tensor(name, "x"), tensor(name, "y"), []
    for _ in range(6):
        optimizer.zero_grad()
        frames, extra = model.teach(x, y, 0, mask=mask)
        truth = torch.cat([x, y], dim=1)[:, -frames.shape[1] :]
        loss = ((frames - truth) ** 2).mean() + extra
        found.append(loss.item())
        loss.backward()
        optimizer.step()
    return found


#: How the stored variants of a training are had, by their names; others have tests of their own.
VARIANTS = {"fixed_mask": {}, "reset": {}}


@pytest.mark.parametrize("name", CASES)
def test_golden_recurrent_training(name):
    variants = describe(name)["train_mode_float64"].keys() & VARIANTS
    if not variants:
        pytest.skip("its losses are in its own tests")
    for variant in variants:
        model = network(name, **VARIANTS[variant])
        mask = torch.from_numpy(arrays(name)["mask"]).bool()
        expected = describe(name)["train_mode_float64"][variant]["losses"]
        np.testing.assert_allclose(losses(model, name, mask), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", [n for n in CASES if "legacy_0_3_0_max_abs_diff" in describe(n)])
def test_golden_recurrent_legacy(name, caplog):
    """The cell of the released weights; where it is not said, the new one, with a warning."""
    with torch.no_grad():
        out = network(name, legacy=True).double()(tensor(name, "x"))
    assert gap(out, arrays(name)["out64_legacy_0_3_0"]) < 1e-9
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "stforecast"):
        network(name)
    assert "legacy=True" in caplog.text


@pytest.mark.parametrize("name", CASES)
def test_golden_recurrent_half_precision(name):
    """In bfloat16 near float32."""
    model, io = network(name), arrays(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = model(torch.from_numpy(io["x"])).float().numpy()
    # PredRNN++ adds four convolutions before each gate, and feeds itself with the sum's rounding.
    most = 4e-2 if describe(name)["model"] == "PredRNNpp" else 3e-2
    assert np.linalg.norm(out - io["out"]) < most * np.linalg.norm(io["out"])


@pytest.mark.parametrize(
    ("file", "around", "prefix"),
    [
        ("checkpoint.pth", None, "module."),
        ("latest.pth", "state_dict", ""),
        ("best.ckpt", "state_dict", "model."),
    ],
)
def test_golden_recurrent_files(tmp_path, file, around, prefix):
    """Of the weights alone, of a training with more, and Lightning's."""
    name = next(n for n in CASES if describe(n)["model"] == "PredRNN")
    tensors = load_file(GOLDEN / f"{name}.weights.safetensors")
    content = {prefix + k: v for k, v in tensors.items()}
    more = {around: content, "epoch": 3, "optimizer": {"lr": [1e-3]}}
    torch.save(more if around else content, tmp_path / file)
    case = describe(name)
    sizes = {"model": "PredRNN", "target_steps": case["aft_seq_length"], **case["hyper_parameters"]}
    found = load_openstl(tmp_path / file, **sizes).state_dict()
    for key, tensor in network(name).state_dict().items():
        assert torch.equal(tensor, found[key])
    for wrong, words in (
        ({"legacy": True}, "legacy is of ConvLSTM and PredRNN"),
        ({"colour": 1}, r"unknown hyper-parameters \['colour'\] of PredRNN"),
        ({"num_hidden": "8"}, "do not fit these hyper-parameters"),
        ({"model": "ResNet"}, "no network 'ResNet'"),
    ):
        with pytest.raises(InputError, match=words):
            load_openstl(tmp_path / file, **sizes | wrong)
