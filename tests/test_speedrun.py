"""The speed run trains what it says, on little, and goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stforecast.datasets.moving_mnist_generator import generate, load_digits
from stforecast.errors import InputError
from stforecast.models.simvp import SimVPv2
from stforecast.testing.moving_mnist import write_mnist
from stforecast.training.schedule import schedule

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# What a machine may lack; the last is what the sample and the labels are made of.
ABSENT = ("zarr", "dask", "netCDF4", "h5py", "matplotlib", "cartopy", "rich", "tyro")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_mnist(tmp_path_factory.mktemp("mnist"))


@pytest.fixture
def speedrun(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import speedrun

    return speedrun


def arguments(digits, output, *more):
    few = ["--epochs", "0.0008", "--batch-size", "2", "--precision", "fp32", "--small"]
    few += ["--val-sequences", "2", "--test-sequences", "2", "--val-every", "3"]
    return ["--data", str(digits), "--output", str(output), "--device", "cpu", *few, *more]


def weights(output):
    from safetensors.torch import load_file

    return load_file(output / "run/checkpoint-00000004/state.safetensors")


def test_it_is_the_papers_training(digits, tmp_path, speedrun):
    """Losses of a loop that is written out."""
    result = speedrun.main(arguments(digits, tmp_path))
    assert result["done"]
    assert (result["step"], result["steps"]) == (4, 4)

    torch.manual_seed(0)
    network = SimVPv2.for_benchmark("moving_mnist", **speedrun.SMALL).train()
    images, losses = load_digits(digits, "train"), []
    mean, std = (weights(tmp_path)[f"normalizer.{name}"] for name in ("mean", "std"))
    seen = generate(images, range(100), seed=0) / 255
    assert mean.item() == pytest.approx(seen.mean(), rel=0.05)
    assert std.item() == pytest.approx(seen.std(), rel=0.05)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    config = SimpleNamespace(schedule="onecycle", learning_rate=1e-3)
    for step in range(4):
        frames = generate(images, range(2 * step, 2 * step + 2), seed=0)
        frames = (torch.from_numpy(frames.astype(np.float32) / 255)[:, :, None] - mean) / std
        loss = ((network(frames[:, :10]) - frames[:, 10:]) ** 2).mean()
        loss.backward()
        rate, beta = schedule(config, step, 4, 5000)
        optimizer.param_groups[0].update(lr=rate, betas=(beta, 0.999))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    curve = np.loadtxt(tmp_path / "curve.csv", delimiter=",", skiprows=1)
    assert curve[:, 0].tolist() == [3, 4]
    assert curve[:, 2] == pytest.approx([np.mean(losses[:3]), losses[3]], rel=1e-4)

    network.eval()
    frames = generate(load_digits(digits, "validation"), range(2), seed=0, split="validation")
    frames = (torch.from_numpy(frames.astype(np.float32) / 255)[:, :, None] - mean) / std
    with torch.no_grad():
        error = (network(frames[:, :10]) - frames[:, 10:]) * std
    assert curve[1, 3] == pytest.approx(float((error**2).sum((2, 3, 4)).mean()), rel=1e-3)


def test_a_stopped_run_goes_on_to_the_same_weights(digits, tmp_path, speedrun):
    speedrun.main(arguments(digits, tmp_path / "whole"))
    stopped = speedrun.main(arguments(digits, tmp_path / "parts", "--minutes", "1e-6"))
    assert not stopped["done"]
    assert stopped["step"] == 1
    assert stopped["minutes_for_all"] > stopped["minutes"]
    result = speedrun.main(arguments(digits, tmp_path / "parts", "--resume"))
    assert result["done"]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_a_run_that_is_done_stays_as_it_is(digits, tmp_path, speedrun):
    speedrun.main(arguments(digits, tmp_path))
    before = (tmp_path / "speedrun.json").read_bytes()
    assert speedrun.main(arguments(digits, tmp_path, "--resume"))["done"]
    assert (tmp_path / "speedrun.json").read_bytes() == before
    with pytest.raises(SystemExit, match="holds a run: give --resume"):
        speedrun.main(arguments(digits, tmp_path))


def test_another_run_is_not_gone_on_with(digits, tmp_path, speedrun):
    speedrun.main(arguments(digits, tmp_path, "--minutes", "1e-6"))
    with pytest.raises(InputError, match="other settings"):
        speedrun.main(arguments(digits, tmp_path, "--resume", "--seed", "1"))


def test_torch_xarray_and_safetensors_are_enough(digits, tmp_path):
    block = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))"
    run = "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", f"{block}; {run}", str(BENCHMARKS / "speedrun.py")]
    done = subprocess.run(
        [*command, *arguments(digits, tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "speedrun.json").read_text())["done"]
