"""Bundles: what is saved comes back the same; what is not a bundle is refused, and says why."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from stforecast.errors import InputError
from stforecast.files import replacing
from stforecast.forecasting.forecaster import Forecaster, Normalizer, load
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task

TASK = Task("t2m", input_steps=3, target_steps=2, timestep="6h")


class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(0.25))

    def forward(self, x):
        return x[:, -2:] + self.shift


@pytest.fixture
def forecaster():
    torch.manual_seed(3)
    network = SimVPv2(
        3, 2, encoder_channels=4, translator_channels=8, translator_blocks=2, mlp_ratio=2.0
    )
    grid = {"latitude": [-10.0, 0.0, 10.0, 20.0], "longitude": [0.0, 2.5, 5.0]}
    units = {"2m_temperature": {"units": "K"}}
    training = {"period": "2001", "data": "a test", "config": {"steps": np.int64(3)}}
    return Forecaster(
        network, TASK, mean=[280], std=[9.5], grid=grid, variables=units, training=training
    )


@pytest.fixture
def bundle(forecaster, tmp_path):
    return forecaster.save(tmp_path / "bundle")


def test_round_trip(forecaster, bundle):
    x = np.random.default_rng(0).normal(280, 5, (2, 3, 1, 4, 3)).astype(np.float32)
    again = load(bundle)
    np.testing.assert_array_equal(again.forecast(x), forecaster.forecast(x))
    assert again.task == TASK
    assert again.grid == forecaster.grid
    assert again.variables == forecaster.variables
    assert again.training == {"period": "2001", "data": "a test", "config": {"steps": 3}}
    assert sorted(p.name for p in bundle.iterdir()) == ["bundle.json", "model.safetensors"]
    assert "trained   2001" in repr(again)


def test_saving_again_replaces_a_bundle_and_nothing_else(forecaster, bundle, tmp_path):
    forecaster.save(bundle)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    with pytest.raises(InputError, match="exists and is no bundle"):
        forecaster.save(tmp_path / "photos")
    assert (tmp_path / "photos" / "a.jpg").read_text() == "x"


def test_a_network_of_ones_own(tmp_path):
    path = Forecaster(Own(), Task("t2m", 3, 2)).save(tmp_path / "own")
    with pytest.raises(InputError, match="'Own', not one of this library's networks"):
        load(path)
    network = Own()
    network.shift.data.zero_()
    assert load(path, network=network).network.shift.item() == 0.25


def edit(bundle, **changes):
    path = bundle / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: (b / "bundle.json").unlink(), "holds no bundle.json"),
        (lambda b: (b / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda b: (b / "bundle.json").write_text("{"), "not readable as JSON"),
        (lambda b: (b / "bundle.json").write_bytes(b"\xff\xfe\x00"), "not readable as JSON"),
        (lambda b: (b / "bundle.json").write_text("[]"), "does not describe a bundle"),
        (lambda b: edit(b, format="zip"), "does not describe a bundle"),
        (lambda b: edit(b, version=3), "reads versions 1 and 2"),
        (lambda b: edit(b, extra=1), r"unknown \['extra'\]"),
        (lambda b: edit(b, task={"variables": ["t2m"], "colour": "red"}), "cannot be read"),
        (lambda b: edit(b, model={"name": "SimVPv2", "settings": {"colour": 1}}), "do not make a"),
        (lambda b: edit(b, model={"name": "Else", "settings": {}}), "not one of this library's"),
        (
            lambda b: edit(
                b, model={"name": "SimVPv2", "settings": {"input_steps": 3, "target_steps": 2}}
            ),
            "does not fit the network",
        ),
    ],
)
def test_damaged_bundles(bundle, damage, words):
    damage(bundle)
    with pytest.raises(InputError, match=words):
        load(bundle)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_truncated_weights(bundle, keep):
    weights = bundle / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged"):
        load(bundle)


def test_a_flipped_bit(bundle):
    weights = bundle / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match="checksum"):
        load(bundle)


def test_pickles_are_not_opened(tmp_path, bundle):
    file = tmp_path / "model.pth"
    file.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="Pickled checkpoints are not opened"):
        load(file)
    (bundle / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="damaged"):
        load(bundle)


def test_unwritable_directory(forecaster, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        forecaster.save(tmp_path / "file" / "bundle")


def test_nothing_half_written(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with replacing(target) as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with replacing(target) as path:
        path.write_text("new")
    assert target.read_text() == "new"
    folder = tmp_path / "folder"
    for content in ("1", "2"):
        with replacing(folder) as path:
            path.mkdir()
            (path / content).write_text(content)
    assert [p.name for p in folder.iterdir()] == ["2"]


def test_normalizer():
    x = torch.full((2, 3, 2, 4, 5), 7.0)
    norm = Normalizer([1, 3], [2, 4])
    torch.testing.assert_close(norm(x)[0, 0, :, 0, 0], torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(norm.inverse(norm(x)), x)
    torch.testing.assert_close(norm(x[:, :, 1:], [1]), norm(x)[:, :, 1:])
    torch.testing.assert_close(norm.inverse(norm(x)[:, :, :1], slice(1)), x[:, :, :1])
    with pytest.raises(InputError, match="never changes"):
        Normalizer([1], [0])
    with pytest.raises(InputError, match="normalisation has 2 channels"):
        Forecaster(Own(), TASK, mean=[1, 2], std=[1, 1])


def tiny_forecaster():
    torch.manual_seed(0)
    sizes = {"encoder_channels": 4, "translator_channels": 8, "translator_blocks": 2}
    network = SimVPv2(3, 3, 1, predict_change=True, **sizes)
    return Forecaster(network, Task("t2m", 3, 3), mean=[280.0], std=[10.0])


def test_forecasts_follow_the_weights():
    """The quick form of the network is made anew when a weight changes in place."""
    forecaster = tiny_forecaster()
    x = 280 + 10 * torch.randn(2, 3, 1, 8, 16).numpy()
    before = forecaster.forecast(x)
    assert (forecaster.forecast(x) == before).all()
    with torch.no_grad():
        forecaster.network.readout.bias.add_(1.0)
    np.testing.assert_allclose(forecaster.forecast(x), before + 10, atol=1e-3)
    forecaster.network.load_state_dict(tiny_forecaster().network.state_dict())
    np.testing.assert_allclose(forecaster.forecast(x), before, atol=1e-4)


def test_quick_plain_and_half_precision_forecasts_agree():
    forecaster = tiny_forecaster()
    x = 280 + 10 * torch.randn(2, 3, 1, 8, 16).numpy()
    quick = forecaster.forecast(x)
    plain = forecaster.to(compile="never").forecast(x)
    np.testing.assert_allclose(quick, plain, atol=1e-4)
    half = forecaster.to(precision="bf16", compile="auto").forecast(x)
    change = np.abs(plain - x[:, -1:]).mean()
    assert 0 < np.abs(half - plain).mean() < 0.02 * change
    assert half.dtype == np.float32


def test_a_forecaster_that_has_forecast_can_be_sent_elsewhere():
    forecaster = tiny_forecaster()
    x = 280 + 10 * torch.randn(1, 3, 1, 8, 16).numpy()
    expected = forecaster.forecast(x)
    assert (pickle.loads(pickle.dumps(forecaster)).forecast(x) == expected).all()


@pytest.mark.parametrize("wrong", [{"precision": "fp16"}, {"compile": True}])
def test_unknown_settings_are_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must be one of"):
        tiny_forecaster().to(**wrong)
