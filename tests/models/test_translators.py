"""The further translators: the public code's names, sums, sizes; any grid; round the globe."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import torch
from helpers import GOLDEN

from stforecast.errors import InputError
from stforecast.models import SimVPv2, summary
from stforecast.models.openstl import load_openstl
from stforecast.models.translators_gated import GATED

#: Names and shapes of the public code's tensors, and what an independent form of its blocks,
#: written from that code and in float64, gives for tensors filled by `fill`.
PUBLIC = json.loads((GOLDEN / "openstl_translators.json").read_text())
CODERS = {
    "enc.enc.0.conv.conv": (8, 1, 3, 3),
    "enc.enc.1.conv.conv": (8, 8, 3, 3),
    "dec.dec.0.conv.conv.0": (32, 8, 3, 3),
    "dec.dec.1.conv.conv": (8, 8, 3, 3),
    "dec.readout": (1, 8, 1, 1),
    **{f"{part}.{i}.conv.norm": (8,) for part in ("enc.enc", "dec.dec") for i in (0, 1)},
}


def fill(name, shape):
    """Numbers that follow from a name, by the rule of the golden full-size models."""
    n, mask = int(np.prod(shape)), np.uint64(0xFFFFFFFF)
    h = np.arange(n, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(zlib.crc32(name.encode()))
    h &= mask
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(2246822519)) & mask
    v = (h ^ (h >> np.uint64(13))).astype(np.float64) / 2**32 - 0.5
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith(".weight")):
        v = 1 + 0.4 * v
    elif len(shape) == 1:
        v = 0.2 * v
    elif n > shape[0]:
        v = v * 2 * np.sqrt(3) / np.sqrt(n / shape[0])
    if any(word in name for word in ("gamma", "layer_scale", "sigma")):
        v = v + 0.5  # so that every branch counts
    return torch.from_numpy(v.reshape(shape))


def small(name, *args, **options):
    torch.manual_seed(1)
    sizes = {"encoder_channels": 8, "translator_channels": 16, "translator_blocks": 3}
    model = SimVPv2(*args, translator=name, **sizes | {"mlp_ratio": 2.0} | options).double().eval()
    for key, parameter in model.named_parameters():
        if "scale" in key or "sigma" in key:
            parameter.data.uniform_(0.3, 1)
    return model


def field(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("model_type", PUBLIC)
def test_the_public_code_is_reproduced(model_type, tmp_path):
    expected = PUBLIC[model_type]
    shapes = {f"{name}.weight": shape for name, shape in CODERS.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in CODERS.items()} | expected["names"]
    tensors = {
        name: fill(name, tuple(shape)) if shape else torch.tensor(0)  # batches tracked
        for name, shape in shapes.items()
    }
    torch.save(tensors, tmp_path / "w.pth")
    sizes = {"in_shape": (2, 1, 6, 10), "hid_S": 8, "hid_T": 8, "N_S": 2, "N_T": 3}
    model = load_openstl(tmp_path / "w.pth", model_type=model_type, mlp_ratio=2.0, **sizes)
    model.double()  # the weights are rounded to float32
    x = fill("x", (1, 2, 1, 6, 10)).requires_grad_()
    y = model(x)
    y.square().sum().backward()
    np.testing.assert_allclose(
        y.detach().flatten()[::13].numpy(), expected["values"], atol=2e-6, rtol=0
    )
    assert x.grad.abs().sum().item() == pytest.approx(expected["gradient"], rel=1e-5)


#: Millions of parameters and G of FLOPs that the public code prints, on TaxiBJ and on t2m.
PRINTED = {
    "tau": (9.55, 2.49, 12.22, 6.70),
    "van": (9.48, 2.49, 12.15, 6.70),
    "moganet": (9.96, 2.61, 12.76, 7.01),
    "hornet": (9.68, 2.54, 12.42, 6.84),
    "convnext": (7.84, 2.08, 10.09, 5.66),
    "uniformer": (9.52, 2.71, 12.02, 7.45),
}


@pytest.mark.parametrize(
    ("benchmark", "shape", "column"),
    [
        ("taxibj", (1, 4, 2, 32, 32), 0),
        pytest.param("weatherbench_t2m", (1, 12, 1, 32, 64), 2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", GATED)
def test_sizes_and_operations_are_those_in_print(name, benchmark, shape, column):
    with torch.device("meta"):
        network = SimVPv2.for_benchmark(benchmark, translator=name)
    cost = summary(network, shape)
    assert cost.parameters / 1e6 == pytest.approx(PRINTED[name][column], abs=0.0095)
    assert cost.flops / 1e9 == pytest.approx(PRINTED[name][column + 1], rel=0.005)


@pytest.mark.parametrize("name", GATED)
def test_any_grid_and_one_sample_at_a_time(name):
    model = small(name, 3, 4)
    x = field(3, 3, 1, 7, 10)
    y = model(x)
    assert y.shape == (3, 4, 1, 7, 10)
    torch.testing.assert_close(model(x[1:2]), y[1:2], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", GATED)
def test_circular_longitude_goes_round(name):
    x = field(1, 2, 1, 6, 16)
    model = small(name, 2, 2, circular_longitude=True)
    torch.testing.assert_close(model(x.roll(6, -1)), model(x).roll(6, -1))
    flat = small(name, 2, 2)
    assert (flat(x.roll(6, -1)) - flat(x).roll(6, -1)).abs().max() > 1e-3


@pytest.mark.parametrize("name", GATED)
def test_what_is_dropped_in_training(name):
    x = field(2, 2, 1, 6, 8)
    for options in ({"dropout": 0.5, "drop_path": None}, {"drop_path": 0.9}):
        model = small(name, 2, 2, **options)
        before = model(x)
        model.train()
        for module in model.modules():  # only what is drawn shall change
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        assert (model(x) - before).abs().max() > 1e-3, options


@pytest.mark.parametrize("name", GATED)
def test_how_far_an_output_sees(name):
    """A translator alone, whose coders' norms would share a frame's statistics."""
    blocks = small(name, 2, 2, translator_blocks=2, translator_channels=8).translator
    reach = sum(block.reach for block in blocks)
    x = field(1, 16, 1, 200)
    other = x.clone()
    other[..., 100] += field(16, 1)
    moved = (blocks(other) - blocks(x)).abs().amax((0, 1, 2)) > 0
    seen = torch.arange(200).sub(100).abs() <= reach
    assert (moved == seen).all()


@pytest.mark.parametrize("name", ["moganet", "hornet"])
def test_widths_of_eighths(name):
    with pytest.raises(InputError, match=r"multiples of 8; found a width of 12"):
        SimVPv2(2, 2, translator=name, encoder_channels=8, translator_channels=12)
