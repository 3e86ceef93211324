"""Networks by name: sized to a task, made from JSON, and documented alike."""

from __future__ import annotations

import json
import re
import sys
from types import ModuleType

import pytest
import torch
from helpers import SMALL_NETWORKS
from torch import nn

import stforecast
from stforecast.errors import InputError
from stforecast.models import registry
from stforecast.task import Task

TASK = Task(["t2m", "sp"], input_steps=3, target_steps=2)
GRID = {
    "latitude": [-30.0, -10.0, 10.0, 30.0],
    "longitude": [0.0, 60.0, 120.0, 180.0, 240.0, 300.0],
}


class Drift(nn.Module):
    """Persistence with a learnt drift, which knows its grid."""

    def __init__(self, steps, shape):
        super().__init__()
        self.settings = {"steps": steps}
        self.drift = nn.Parameter(torch.zeros(steps, 1, *shape))

    @classmethod
    def for_task(cls, task, grid, **settings):
        shape = len(grid["latitude"]), len(grid["longitude"])
        return cls(settings.get("steps", task.target_steps), shape)

    def forward(self, x):
        return x[:, -1:] + self.drift


@pytest.fixture
def drift(monkeypatch):
    """Register a network from outside the library, and forget it afterwards."""
    monkeypatch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))
    module = ModuleType("networks_of_mine")
    module.Drift = Drift
    monkeypatch.setattr(Drift, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    registry.register("drift", "networks_of_mine:Drift")


@pytest.mark.parametrize("name", registry.names())
def test_every_network_says_what_it_is(name):
    """Its forward has the shapes; its class or module has the paper, and the class its section."""
    kind = registry.network_class(name)
    said = kind.forward.__doc__
    assert re.search(r"\(B, T, C, H, W\)(.|\n)*\(B, T', C', H, W\)", said)
    paper = f"{kind.__doc__}{sys.modules[kind.__module__].__doc__}"
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.", paper)
    assert re.search(r"[Ss]ections? ", f"{said}{kind.__doc__}")


@pytest.mark.parametrize("name", registry.names())
def test_settings_in_json_make_the_same_network(name):
    torch.manual_seed(0)
    network = registry.make_network(name.upper(), TASK, GRID, SMALL_NETWORKS.get(name))
    settings = json.loads(json.dumps(network.settings))
    again = registry.make_network(name, TASK, GRID, settings)
    again.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 2, 4, 6)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), again.eval()(x))
    assert network(x).shape == (1, 2, 2, 4, 6)
    assert registry.name_of(network) == name


def test_a_name_may_be_written_in_any_way():
    for name in ("PredRNN++", "predrnn_pp", "PREDRNN-PP"):
        assert registry.network_class(name) is registry.network_class("PredRNNpp")
    assert registry.network_class("predrnn_v2").__name__ == "PredRNNv2"


def test_translators_that_need_a_grid_get_it():
    network = registry.make_network("simvpv2", TASK, GRID, {"translator": "mlpmixer"})
    assert network.settings["grid"] == [4, 6]
    network = registry.make_network("simvpv2", TASK, {"y": 8, "x": 9}, {"translator": "swin"})
    assert network.settings["grid"] == [8, 9]
    assert registry.make_network("simvpv2", TASK, GRID).settings["grid"] is None


def test_unknown_networks_and_settings_are_refused():
    with pytest.raises(InputError, match=r"no network 'resnet'; there are .*SimVPv2"):
        registry.make_network("resnet", TASK)
    with pytest.raises(InputError, match=r"do not make a SimVPv2: .*colour"):
        registry.make_network("simvpv2", TASK, settings={"colour": "red"})


def test_a_network_from_outside_trains_and_comes_back(drift, tmp_path):
    ds = stforecast.testing.make_weather(40, shape=(4, 8))
    task = Task("t2m", 3, 2)
    config = stforecast.TrainConfig(steps=2, batch_size=4, device="cpu")
    forecaster = stforecast.fit(ds, task, model="Drift", config=config)
    again = stforecast.load(forecaster.save(tmp_path / "bundle"))
    assert type(again.network) is Drift
    assert torch.equal(again.network.drift, forecaster.network.drift)
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["model"] == {
        "name": "drift",
        "settings": {"steps": 2},
    }


def test_a_name_is_given_once(drift):
    registry.register("drift", "networks_of_mine:Drift")  # as it was
    with pytest.raises(InputError, match="there is a network 'SimVPv2' already"):
        registry.register("simvpv2", "networks_of_mine:Drift")
    with pytest.raises(InputError, match="'module:Class'"):
        registry.register("other", "networks_of_mine.Drift")
