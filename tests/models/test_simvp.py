"""The network: exact sums, any grid, any length, circular longitude, no dependence on the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stforecast.errors import InputError
from stforecast.models.kernels import wrap
from stforecast.models.layers import Conv2d
from stforecast.models.openstl import load_openstl
from stforecast.models.simvp import SimVPv2


def small(*args, **options):
    torch.manual_seed(1)
    settings = {
        "encoder_channels": 4,
        "translator_channels": 12,
        "translator_blocks": 3,
        "mlp_ratio": 2.0,
    }
    model = SimVPv2(*args, **(settings | options)).double().eval()
    for module in model.modules():  # running statistics that are not 0 and 1, scales that count
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for name, parameter in model.named_parameters():
        if "scale" in name:
            parameter.data.uniform_(0.3, 1)
    return model


def field(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        ({"channels": 1, "input_steps": 12, "target_steps": 12}, 12.758305),  # WeatherBench t2m
        ({"channels": 2, "input_steps": 4, "target_steps": 4}, 9.961058),  # TaxiBJ
    ],
)
def test_parameter_count_is_the_papers(sizes, millions):
    assert sum(p.numel() for p in SimVPv2(**sizes).parameters()) == round(millions * 1e6)


@pytest.mark.parametrize("size", [(16, 32), (13, 27), (5, 7)])
@pytest.mark.parametrize("circular_longitude", [False, True])
def test_dilated_convolution_without_dilation(size, circular_longitude):
    conv = Conv2d(6, 6, 7, groups=6, dilation=3, circular_longitude=circular_longitude).double()
    x = field(2, 6, *size).requires_grad_()
    padded = F.pad(wrap(x, 9) if circular_longitude else F.pad(x, (9, 9)), (0, 0, 9, 9))
    expected = F.conv2d(padded, conv.weight, conv.bias, dilation=3, groups=6)
    torch.testing.assert_close(conv(x), expected)
    (gradient,) = torch.autograd.grad((conv(x) ** 2).sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected**2).sum(), x)[0])


@pytest.mark.parametrize("n", [0, 3, 7, 25])
def test_wrap_goes_round(n):
    x = torch.arange(7.0).expand(1, 1, 2, 7)
    expected = torch.arange(-n, 7 + n) % 7
    torch.testing.assert_close(wrap(x, n)[0, 0, 0], expected.float())


@pytest.mark.parametrize("grid", [(8, 16), (25, 53), (1, 3), (7, 10)])
@pytest.mark.parametrize("layers", [2, 4])
def test_any_grid(grid, layers):
    model = small(3, 3, encoder_layers=layers)
    assert model(field(2, 3, 1, *grid)).shape == (2, 3, 1, *grid)


@pytest.mark.parametrize("predict_change", [False, True])
@pytest.mark.parametrize("steps", [2, 4, 5, 8, 11])
def test_any_length_is_the_model_on_its_own_output(steps, predict_change):
    model, same = (
        small(4, steps, predict_change=predict_change),
        small(4, 4, predict_change=predict_change),
    )
    if predict_change:
        model.tendency_std.fill_(0.7)
        same.tendency_std.fill_(0.7)
    same.load_state_dict(
        model.state_dict() | ({"tendency_std": same.tendency_std} if predict_change else {})
    )
    x = field(1, 4, 1, 6, 8)
    expected = [same(x)]
    while 4 * len(expected) < steps:
        expected.append(same(expected[-1]))
    torch.testing.assert_close(model(x), torch.cat(expected, dim=1)[:, :steps])


@pytest.mark.parametrize("predict_change", [False, True])
@pytest.mark.parametrize("layers", [2, 4])
def test_periodic_longitude(layers, predict_change):
    model = small(
        3, 3, encoder_layers=layers, circular_longitude=True, predict_change=predict_change
    )
    x = field(2, 3, 1, 6, 16)
    k = model.stride * 3
    torch.testing.assert_close(model(x.roll(k, -1)), model(x).roll(k, -1))
    flat = small(3, 3, encoder_layers=layers, predict_change=predict_change)
    assert (flat(x.roll(k, -1)) - flat(x).roll(k, -1)).abs().max() > 1e-3


def test_a_sample_does_not_depend_on_its_batch():
    model = small(3, 3)
    x = field(16, 3, 1, 6, 8)
    torch.testing.assert_close(model(x)[5:6], model(x[5:6]), rtol=1e-6, atol=1e-9)


def test_residual_starts_from_persistence():
    model = small(3, 2, 2, predict_change=True)
    model.tendency_std.zero_().add_(1e-9)
    x = field(1, 3, 2, 6, 8)
    torch.testing.assert_close(model(x), x[:, -1:].expand(-1, 2, -1, -1, -1), atol=1e-6, rtol=0)


def test_residual_scales_the_change_at_each_lead():
    """With two input steps only lead 1's scale reaches the frames; lead 2's is a plain factor."""
    one, three = small(2, 2, predict_change=True), small(2, 2, predict_change=True)
    three.tendency_std.copy_(torch.tensor([[1.0], [3.0]]))
    x = field(1, 2, 1, 6, 8)
    change, larger = one(x) - x[:, -1:], three(x) - x[:, -1:]
    torch.testing.assert_close(larger[:, 0], change[:, 0])
    torch.testing.assert_close(larger[:, 1], 3 * change[:, 1])


def test_channels_may_differ():
    model = small(3, 2, 3, out_channels=1)
    assert model(field(2, 3, 3, 6, 8)).shape == (2, 2, 1, 6, 8)


def test_changes_are_of_what_is_forecast_alone():
    model = small(3, 2, 3, out_channels=1, predict_change=True)
    x = field(2, 3, 3, 6, 8)
    seen = []
    model.encoder[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(x)
    frames = seen[0].unflatten(0, (2, 3))
    assert torch.equal(frames[:, :, :3], x)
    torch.testing.assert_close(frames[:, :, 3], x[:, :, 0] - x[:, -1:, 0])
    assert frames.shape[2] == 4


@pytest.mark.parametrize(
    ("kind", "rates"), [("uniform", [0.2] * 3), ("linear", [0.01, 0.105, 0.2])]
)
def test_stochastic_depth_is_uniform_or_grows(kind, rates):
    model = small(3, 3, drop_path=0.2, stochastic_depth=kind)
    assert [block.drop_path for block in model.translator] == pytest.approx(rates)
    with pytest.raises(InputError, match="'linear' or 'uniform'"):
        small(3, 3, stochastic_depth="deep")


def test_stochastic_depth_keeps_the_mean():
    block = small(3, 3, drop_path=0.5).translator[-1].train()
    torch.manual_seed(0)
    y = field(4000, 1, 1, 1).abs() + 1
    kept = block._branch(torch.ones(1, dtype=torch.float64), y)
    assert ((kept == 0) | torch.isclose(kept, 2 * y)).all()
    assert float((kept / y).mean()) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder_layers": 3}, "encoder_layers must be even"),
        ({"encoder_channels": 5}, "encoder_channels must be even"),
        ({"translator_blocks": 1}, "translator_blocks"),
        ({"encoder_kernel": 4}, "encoder_kernel must be odd"),
        ({"out_channels": 2, "predict_change": True}, "predict_change=True needs every output"),
        ({"channels": 2, "out_channels": 1, "target_steps": 20}, "as many output channels"),
    ],
)
def test_impossible_networks_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SimVPv2(**options)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"expected input of shape \(B, 3, 1, H, W\)"):
        small(3, 3)(field(2, 4, 1, 6, 8))


def test_openstl_names_round_trip(tmp_path):
    """Without the golden files: our weights under their names come back the same."""
    from safetensors.torch import save_file

    model = SimVPv2(
        3, 2, encoder_channels=4, translator_channels=8, encoder_layers=2, translator_blocks=2
    )
    theirs = {}
    for name, tensor in model.state_dict().items():
        part, *rest = name.split(".")
        rest = ".".join(rest)
        if part in ("encoder", "decoder"):
            i, tail = rest.split(".", 1)
            up = part == "decoder" and i == "0" and tail.startswith("conv")
            tail = tail.replace("conv.", "conv.0.") if up else tail
            name = f"{part[:3]}.{part[:3]}.{i}.conv.{tail}"
        elif part == "readout":
            name = f"dec.{name}"
        else:
            i, tail = rest.split(".", 1)
            for ours, their in (
                ("attention.project_in", "attn.proj_1"),
                ("attention.project_out", "attn.proj_2"),
                ("attention.local", "attn.spatial_gating_unit.conv0"),
                ("attention.dilated", "attn.spatial_gating_unit.conv_spatial"),
                ("attention.gate", "attn.spatial_gating_unit.conv1"),
                ("feed_forward.expand", "mlp.fc1"),
                ("feed_forward.depthwise", "mlp.dwconv.dwconv"),
                ("feed_forward.contract", "mlp.fc2"),
                ("scale1", "layer_scale_1"),
                ("scale2", "layer_scale_2"),
            ):
                tail = tail.replace(ours, their)
            name = f"hid.enc.{i}." + (
                tail.replace("resize", "reduction")
                if tail.startswith("resize")
                else f"block.{tail}"
            )
        theirs[name] = tensor.contiguous()
    save_file(theirs, tmp_path / "weights.safetensors")
    torch.save(
        {"state_dict": {f"method.model.{k}": v for k, v in theirs.items()}}, tmp_path / "w.ckpt"
    )
    sizes = {"in_shape": (3, 1, 8, 8), "hid_S": 4, "hid_T": 8, "N_S": 2, "N_T": 2}
    for file in ("weights.safetensors", "w.ckpt"):
        loaded = load_openstl(tmp_path / file, target_steps=2, **sizes)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], tensor)
    with pytest.raises(InputError, match="other shapes"):
        load_openstl(tmp_path / "w.ckpt", **(sizes | {"hid_T": 16}))
    with pytest.raises(InputError, match="missing"):
        load_openstl(tmp_path / "w.ckpt", **(sizes | {"N_T": 3}))
    with pytest.raises(InputError, match=r"unknown hyper-parameters \['hid_X'\]"):
        load_openstl(tmp_path / "w.ckpt", **sizes, hid_X=3)


def test_openstl_never_unpickles(tmp_path):
    import pickle

    (tmp_path / "bad.pth").write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match="cannot be read as weights alone"):
        load_openstl(tmp_path / "bad.pth", in_shape=(3, 1, 8, 8))


def test_settings_build_the_same_network():
    model = small(3, 5, circular_longitude=True)
    again = SimVPv2(**model.settings)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert np.isfinite(again(field(1, 3, 1, 4, 6).float()).detach().numpy()).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"needs in_shape=\(T, C, H, W\)"),
        ({"in_shape": (3, 1)}, r"in_shape must be \(T, C, H, W\)"),
        ({"in_shape": (3, 1, 8, 8), "model_type": "dcn"}, "'dcn' is not supported; .* gsta, inc"),
        ({"in_shape": (3, 1, 8, 8)}, "there is no such file"),
    ],
)
def test_openstl_says_what_it_lacks(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        load_openstl(tmp_path / "none.safetensors", **options)
