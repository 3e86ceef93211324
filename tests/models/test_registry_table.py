"""Every network of the registry, the same demands of each: a table, one row a network."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from helpers import SMALL_NETWORKS

import stforecast
from stforecast.models import for_inference, registry
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit

TASK = Task("t2m", input_steps=3, target_steps=2)
CONFIG = TrainConfig(steps=3, batch_size=3, validate_every=1, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def weather():
    return make_weather(16, shape=(8, 8))


@pytest.fixture(scope="module")
def trained(weather):
    """Of a name: the network that three steps of training make, made once."""
    made = {}

    def train(name, **options):
        grid = {k: weather[k].values.tolist() for k in ("latitude", "longitude")}

        def network():
            return registry.make_network(name, TASK, grid, SMALL_NETWORKS.get(name))

        return fit(weather, TASK, model=network, config=CONFIG, **options)

    def get(name, **options):
        if options:
            return train(name, **options)
        if name not in made:
            made[name] = train(name)
        return made[name]

    return get


@pytest.mark.parametrize("name", registry.names())
def test_stopped_and_resumed_gives_the_same_weights(weather, trained, tmp_path, name):
    """And so does the same seed."""
    if name == "SimVPv2":
        pytest.skip("in tests/training/test_objective.py")

    def stop(event):
        if event["step"] == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(name, run_dir=tmp_path, progress=stop)
    again = trained(name, run_dir=tmp_path).network.state_dict()
    for key, tensor in trained(name).network.state_dict().items():
        assert torch.equal(tensor, again[key]), key


@pytest.mark.parametrize("name", registry.names())
def test_a_bundle_forecasts_alike(weather, trained, tmp_path, name):
    forecaster = trained(name)
    again = stforecast.load(forecaster.save(tmp_path / "bundle"))
    assert registry.name_of(again.network) == name
    one, two = (each.predict(weather)["2m_temperature"].values for each in (forecaster, again))
    assert one.shape == (1, 2, 8, 8)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", registry.names())
def test_a_sample_does_not_see_its_batch(trained, name):
    """In evaluation and in training's mode of sequences one after the other nothing is kept."""
    network = trained(name).network.eval()
    x = torch.randn(3, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(each[None]) for each in x])
        assert together.shape == (3, 2, 1, 8, 8)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together, network(x), atol=0, rtol=0)


@pytest.mark.parametrize("name", registry.names())
def test_half_precision_stays_near(trained, name):
    network = trained(name).network.eval()
    x = torch.randn(3, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            near = network(x).float()
    assert (near - exact).norm() < 3e-2 * exact.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", ["ConvLSTM", "PredRNNv2", "PhyDNet"])
def test_compiled_computes_the_same(trained, name):
    network = trained(name).network.eval()
    x = torch.randn(3, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = network(x)
    torch.testing.assert_close(
        for_inference(network, compile="always")(x), exact, atol=1e-4, rtol=0
    )
