"""Bundles: what is saved comes back the same; what is not a bundle is refused, and says why."""

from __future__ import annotations

import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from helpers import fill_up, mounted
from safetensors.torch import load_file, save_file

from stforecast.baselines.persistence import Persistence
from stforecast.baselines.regression import LinearRegression
from stforecast.errors import DiskFullError, InputError
from stforecast.files import replacing
from stforecast.forecasting import ensemble
from stforecast.forecasting.forecaster import Forecaster, Normalizer, load
from stforecast.forecasting.predict import predict
from stforecast.forecasting.writing import write_forecast
from stforecast.models.simvp import SimVPv2
from stforecast.plots.layout import save
from stforecast.plots.maps import plot_map
from stforecast.task import Task
from stforecast.testing.weather import make_weather

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


#: Too small, too large, no number at all.
NO_SIZE = (0, -1, 1.5, 10**9, 10**30, float("nan"), float("inf"), True, "x", None, [], {})


@pytest.mark.parametrize("name", ["translator_channels", "translator_blocks", "target_steps"])
@pytest.mark.parametrize("size", [10**4, *NO_SIZE], ids=repr)
def test_sizes_that_no_network_has(bundle, name, size):
    """Refused by themselves, or because the weights are others; without the network's memory."""
    description = json.loads((bundle / "bundle.json").read_text())
    description["model"]["settings"][name] = size
    edit(bundle, **description)
    with pytest.raises(InputError, match=f"bundle: .*({name} must be|does not fit|network has)"):
        load(bundle)
    if name == "target_steps" and size not in (10**4, 1.5):
        edit(bundle, task=TASK.to_dict() | {name: size})
        with pytest.raises(InputError, match=f"Task.{name} must be a whole number"):
            load(bundle)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("drop_path", v) for v in (1e9, -0.1, float("nan"), "x")),
        *(("dropout", v) for v in ("x", -0.1, True)),
        *(("grid", v) for v in (7, [4, 0], ["a", "b"])),
        *((name, v) for name in ("circular_longitude", "predict_change") for v in ("x", 1, None)),
        ("mlp_ratio", 1e9),
        ("encoder_kernel", 10**6 + 1),
        ("translator", 5),
    ],
)
def test_settings_of_another_kind(bundle, name, value):
    description = json.loads((bundle / "bundle.json").read_text())
    description["model"]["settings"][name] = value
    edit(bundle, **description)
    with pytest.raises(InputError, match=f"{name} must be"):
        load(bundle)


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        *(("model", v, "model must") for v in (5, None, [1], {}, {"name": 1, "settings": {}})),
        *(("model", {"name": "SimVPv2", "settings": v}, "a table of settings") for v in (3, [1])),
        *(("task", v, "task must be a table") for v in (5, None, ["t2m"])),
        *(("variables", v, "variables must") for v in (1, ["t2m"], {"t2m": 5})),
        ("variables", {"t2m": {"units": ["K"]}}, "variables must hold a table of texts"),
        *(("training", v, "training must be a table") for v in (1, "x", [])),
        *(("sha256", v, "sha256 must be a text") for v in (1, None)),
        *(("version", v, "bundle of version") for v in (True, "2", [2], 2.5, None)),
        *(("grid", v, "grid must have") for v in (5, [], {}, {"latitude": [1.0, 2.0]})),
        *(
            ("grid", {"latitude": v, "longitude": [0.0, 1.0]}, "latitude of the grid must be")
            for v in (["a"], [], 5, [[1.0]], [1.0, float("nan")], [1.0, 1.0], [10**400, 1], [True])
        ),
        *(("grid", {"y": v, "x": 3}, "y of the grid must be") for v in (0, -4, True, 1.5, "4")),
    ],
)
def test_parts_of_another_kind(bundle, part, value, words):
    edit(bundle, **{part: value})
    with pytest.raises(InputError, match=words):
        load(bundle)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, '{"format": ' + "9" * 5000 + "}"])
def test_json_that_python_does_not_read(bundle, text):
    (bundle / "bundle.json").write_text(text)
    with pytest.raises(InputError, match="not readable as JSON"):
        load(bundle)


def reweigh(bundle, change):
    """Change the tensors of a bundle, with the checksum that they then have."""
    tensors = load_file(bundle / "model.safetensors")
    change(tensors)
    save_file(tensors, bundle / "model.safetensors")
    sha = hashlib.sha256((bundle / "model.safetensors").read_bytes()).hexdigest()
    edit(bundle, sha256=sha)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("network.readout.bias"), "1 missing: network.readout.bias"),
        (lambda t: t.pop("normalizer.std"), "1 missing: normalizer.std"),
        (lambda t: t.update(more=torch.ones(1)), "1 not in the network: more"),
        (lambda t: t["network.readout.bias"].fill_(torch.nan), "NaN or infinite"),
        (lambda t: t["normalizer.std"].fill_(0), "2m_temperature has the mean 280"),
        (
            lambda t: t.update({"network.readout.bias": t["network.readout.bias"].long()}),
            "readout.bias hold numbers of another type",
        ),
        (lambda t: t.update({"normalizer.mean": torch.ones(2)}), r"file \(2,\), network \(1,\)"),
    ],
)
def test_tensors_that_are_not_the_networks(bundle, change, words):
    reweigh(bundle, change)
    with pytest.raises(InputError, match=words):
        load(bundle)


def test_weights_in_double_precision_come_back_in_it(forecaster, tmp_path):
    forecaster.network.double()
    x = np.random.default_rng(0).normal(280, 5, (2, 3, 1, 4, 3)).astype(np.float32)
    again = load(forecaster.save(tmp_path / "double"))
    assert again.dtype == torch.float64
    np.testing.assert_array_equal(again.forecast(x), forecaster.forecast(x))


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


@pytest.mark.parametrize("full", ["from the start", "half-way"])
@pytest.mark.parametrize("what", ["bundle", "ensemble", "forecast", "picture", "table"])
def test_a_full_disk_is_one_clear_error(forecaster, tmp_path, what, full):
    size = "256k" if full == "from the start" else "24k"
    weather = make_weather(40, shape=(16, 32), noise=1.0)
    forecast = predict(
        weather.chunk(time=5), Persistence(Task("t2m", 3, 12)), init_time=slice(None)
    )
    doors = {
        "bundle": lambda: forecaster.save(tmp_path / "new"),
        "ensemble": lambda: ensemble.save([forecaster, forecaster], tmp_path / "new"),
        "forecast": lambda: write_forecast(forecast, tmp_path / "new"),
        "picture": lambda: save(plot_map(weather["2m_temperature"][0]), tmp_path / "new.png"),
        "table": lambda: LinearRegression.fit(weather, Task("t2m", 3, 3), neighbours=0).save(
            tmp_path / "new.nc"
        ),
    }
    with mounted(tmp_path, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        if full == "from the start":
            fill_up(tmp_path / "other")
        with pytest.raises(DiskFullError, match=rf"{tmp_path / 'new'}.*the disk is full"):
            doors[what]()
        seen = {p.name for p in tmp_path.iterdir() if p.name[0] != "." or ".part" in p.name}
        assert seen <= {"other"}


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
