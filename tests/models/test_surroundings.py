"""Results depend neither on the caller's defaults of torch nor on forks, and leave both alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny
from safetensors.torch import save_file

import stforecast
from stforecast.errors import InputError
from stforecast.forecasting.bundle import default_bundle
from stforecast.models import load_openstl, registry, summary
from stforecast.models.surroundings import find_device, own_defaults
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training.config import TrainConfig
from stforecast.training.distributed import world

TASK = Task("t2m", input_steps=4, target_steps=3)
CONFIG = TrainConfig(steps=3, batch_size=4, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def weather():
    return make_weather(40, shape=(6, 10))


@pytest.fixture(scope="module")
def globe():
    return make_weather(14, shape=(32, 64))


@pytest.fixture
def caller():
    """Set a default of torch as a caller's program may; what it was is set back."""
    before = torch.get_default_dtype()

    def chosen(dtype, device):
        if dtype is not None:
            torch.set_default_dtype(dtype)
        torch.set_default_device(device)

    yield chosen
    torch.set_default_dtype(before)
    torch.set_default_device(None)


# --- devices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", "hpu:0", "", "cuda:-1", 7])
def test_a_device_that_is_not_there_is_named_with_those_that_are(device, globe):
    for door in (
        lambda: find_device(device),
        lambda: world(device),
        lambda: stforecast.load(default_bundle()).to(device),
        lambda: stforecast.predict(globe, device=device),
        lambda: stforecast.predict(globe, stforecast.Persistence(TASK), device=device),
    ):
        with pytest.raises(InputError, match=rf"no device '{device}' on this machine; it has cpu"):
            door()


def test_the_cpu_is_there():
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")


# --- defaults of the caller's ---------------------------------------------------------------------

DEFAULTS = [
    (torch.float64, None),
    (torch.bfloat16, None),
    (torch.float16, "cpu"),
    (None, "meta"),
]


@pytest.mark.parametrize(("dtype", "device"), DEFAULTS, ids=str)
def test_defaults_change_no_forecast(caller, globe, dtype, device):
    expected = stforecast.predict(globe)["2m_temperature"].values
    caller(dtype, device)
    found = stforecast.predict(globe)["2m_temperature"].values
    assert torch.get_default_dtype() == (dtype or torch.float32)
    np.testing.assert_array_equal(found, expected)


class Fills(torch.nn.Module):
    """Makes tensors without saying of which type and where."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3,), 0.1))

    def forward(self, x):
        return x[:, -1:] + self.weight.view(1, 3, 1, 1, 1) * torch.linspace(0, 0.1, x.shape[-1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_autocast_and_modes_of_the_callers_change_nothing(weather, precision):
    """Within another autocast our own would keep copies of weights that are no longer those."""
    config = replace(CONFIG, precision=precision)

    def trained():
        return stforecast.fit(weather, TASK, model=tiny, config=config)

    expected = trained()
    want = stforecast.predict(weather, expected)["2m_temperature"]
    outer = lambda: torch.autocast("cpu", dtype=torch.bfloat16)  # noqa: E731
    for mode in (outer, torch.no_grad, torch.inference_mode):
        with mode():
            found = trained()
            forecast = stforecast.predict(weather, found)["2m_temperature"]
        for name, tensor in expected.network.state_dict().items():
            assert torch.equal(found.network.state_dict()[name], tensor), (mode, name)
        np.testing.assert_array_equal(forecast, want)


@pytest.mark.parametrize(("dtype", "device"), DEFAULTS, ids=str)
@pytest.mark.parametrize("model", ["simvpv2", Fills], ids=["ours", "one's own"])
def test_defaults_change_no_training(caller, weather, dtype, device, model):
    if model == "simvpv2":
        model = tiny
    options = {"model": model, "config": CONFIG, "validation": weather, "allow_overlap": True}
    expected = stforecast.fit(weather, TASK, **options)
    caller(dtype, device)
    found = stforecast.fit(weather, TASK, **options)
    for name, tensor in expected.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor), name
    ours, theirs = (stforecast.predict(weather, f)["2m_temperature"] for f in (expected, found))
    np.testing.assert_array_equal(ours, theirs)


def test_defaults_of_several_threads_are_set_back(caller):
    """The caller's comes back with the last of them, in whatever order they end."""
    caller(torch.bfloat16, None)
    first, second = own_defaults(), own_defaults()
    with first:
        inside = threading.Thread(target=second.__enter__)
        inside.start()
        inside.join()
        assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_dtype() == torch.float32
    second.__exit__(None, None, None)
    assert torch.get_default_dtype() == torch.bfloat16


def test_the_callers_random_numbers_stay(weather, globe, tmp_path):
    forecaster = stforecast.fit(weather, TASK, model=tiny, config=CONFIG)
    path = forecaster.save(tmp_path / "bundle")
    theirs = {"enc.enc.0.conv.bias": torch.zeros(1)}
    save_file(theirs, tmp_path / "theirs.safetensors")
    before = torch.get_rng_state()
    stforecast.predict(globe)
    stforecast.load(path)
    summary(forecaster.network.train(), (1, 4, 1, 6, 10))
    with pytest.raises(InputError, match="do not fit"):
        load_openstl(tmp_path / "theirs.safetensors", in_shape=(4, 1, 8, 8))
    stforecast.fit(weather, TASK, model=lambda: tiny(dropout=0.5), config=CONFIG)
    assert torch.equal(torch.get_rng_state(), before)


# --- outlines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("translator", ["gsta", "incepu", "vit", "swin", "mlpmixer", "convmixer"])
def test_an_outline_has_the_networks_shapes(translator):
    grid = {"latitude": [-10.0, 10.0] * 4, "longitude": list(range(16))}
    options = {"translator": translator, "encoder_channels": 16, "translator_channels": 32}
    settings = options | {"translator_blocks": 2}
    network = registry.make_network("simvpv2", TASK, grid, settings)
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    assert registry.outline("simvpv2", TASK, grid, settings) == shapes


# --- forks ----------------------------------------------------------------------------------------

FORKED = """
import multiprocessing, stforecast
from stforecast.testing import make_weather
w = make_weather(30, shape=(32, 64))
lazy = w.chunk(time=5)
task = stforecast.Task("t2m", 4, 2)
def everything(_):
    now = stforecast.predict(w)
    later = stforecast.predict(lazy, stforecast.Persistence(task), init_time=slice(None)).compute()
    score = stforecast.evaluate(later.isel(time=slice(0, 4)), lazy)
    return [float(now["2m_temperature"].mean()), float(score["2m_temperature"].mean())]
if __name__ == "__main__":
    found = [everything(0)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found += pool.map(everything, [1, 2])
    print(all(abs(a - b) < 1e-3 for one in found for a, b in zip(one, found[0])))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_forecasts_and_scores():
    """A child has none of the threads that torch and dask had in its parent."""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=150, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr[-2000:]
