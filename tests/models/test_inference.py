"""The quick form of a network forecasts what the network forecasts."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, load_case, relative
from torch import nn

from stforecast.models.folding import Convolution
from stforecast.models.inference import for_inference
from stforecast.models.simvp import SimVPv2

pytestmark = pytest.mark.usefixtures("several_threads")

GSTA = [name for name in CASES if name.startswith("gsta")]


def small(**options):
    torch.manual_seed(0)
    settings = {"encoder_channels": 8, "translator_channels": 16, "translator_blocks": 3}
    model = SimVPv2(4, 4, 2, **(settings | options))
    for module in model.modules():  # numbers that all matter
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
        for name in ("scale1", "scale2"):
            if getattr(module, name, None) is not None:
                nn.init.uniform_(getattr(module, name), 0.1, 0.5)
    return model


def gap(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.skipif(not GSTA, reason="no golden files in ../shared")
@pytest.mark.parametrize("name", GSTA)
def test_golden_outputs(name):
    _, model, io = load_case(name)
    x = torch.from_numpy(io["x"])
    assert relative(for_inference(model)(x).numpy(), io["out"]) < 1e-5
    assert relative(for_inference(model, precision="bf16")(x).numpy(), io["out"]) < 2e-2


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({}, (8, 12)),
        ({"circular_longitude": True}, (8, 12)),
        ({"predict_change": True, "encoder_layers": 4}, (7, 13)),
        ({"circular_longitude": True, "predict_change": True}, (4, 4)),
        ({"translator": "incepu"}, (8, 12)),
    ],
)
def test_same_function(options, grid, fused, monkeypatch):
    monkeypatch.setattr("stforecast.models.kernels.has_fused", lambda: fused)
    model = small(**options)
    quick, half = for_inference(model), for_inference(model, precision="bf16")
    for batch in (5, 1):
        x = torch.randn(batch, 4, 2, *grid)
        with torch.no_grad():
            model.eval()
            expected = model(x)
            model.train()
        assert gap(quick(x), expected) < 1e-5
        assert gap(half(x), expected) < 5e-2
        assert model.training  # it is left as it was
        assert quick(x).dtype == half(x).dtype == torch.float32


def test_a_batch_gives_what_its_samples_give():
    model, x = small().eval(), torch.randn(6, 4, 2, 8, 12)
    quick = for_inference(model)
    alone = torch.cat([quick(sample[None]) for sample in x])
    torch.testing.assert_close(quick(x), alone, rtol=1e-6, atol=1e-6)


def test_other_networks_and_never_are_left_alone():
    model = small()
    assert for_inference(model, compile="never").network is model
    own = nn.Conv3d(4, 4, 1)
    assert for_inference(own).network is own
    assert for_inference(model.double()).network is model


def test_products_and_sums_without_onednn(monkeypatch):
    weight, bias = torch.randn(6, 3), torch.randn(6)
    x, other = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5)
    results = []
    for fused in (True, False):
        monkeypatch.setattr("stforecast.models.kernels.has_fused", lambda f=fused: f)
        conv = Convolution(weight, bias, torch.float32)
        results.append((conv(x), conv.times(x, other), conv.plus(x, other.clone())))
    plain = torch.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None]
    for result in results:
        for a, b in zip(result, (plain, plain * other, plain + other), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_smaller_last_batch_is_not_compiled_for(monkeypatch):
    seen = []

    def compiled(network, *, dynamic):
        assert not dynamic
        return lambda x: (seen.append(len(x)), network(x))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    model, x = small().eval(), torch.randn(5, 4, 2, 8, 12)
    quick = for_inference(model, compile="always")
    whole = quick(x)
    torch.testing.assert_close(quick(x[:2]), whole[:2], rtol=1e-5, atol=1e-5)
    quick(x)
    assert seen == [5, 5]
