"""What tests in several rooms need."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
import xarray as xr

from stforecast.cli import run
from stforecast.conventions.gate import canonicalize, restore
from stforecast.conventions.lazy import LazyArray
from stforecast.models.simvp import SimVPv2

ROOT = Path(__file__).parents[1]
#: Real data and cases with known answers; tests that need them skip where they are absent.
SHARED = ROOT.parent / "shared"

GOLDEN = ROOT / "tests" / "golden"


def golden(name: str, value: Mapping[str, float], tolerance: float, *, folder: Path = GOLDEN):
    """Compare figures with those in ``tests/golden/NAME.json``, which prove that nothing moved.

    A missing file is written, and the test fails: figures that nobody has looked at prove nothing.

    Parameters
    ----------
    name : str
        Of the file.
    value : mapping of str to float
        About ten figures at most, each with a name that says what it is.
    tolerance : float
        Largest difference, relative to the figure, or absolute where the figure is below 1.
    """
    path = folder / f"{name}.json"
    found = {key: float(number) for key, number in value.items()}
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        raise AssertionError(f"{path} was missing and has been written: look at it and commit it")
    kept = json.loads(path.read_text())
    assert found.keys() == kept.keys(), f"{path} has other figures; delete it to write it anew"
    moved = {
        key: f"{kept[key]!r} is now {number!r}"
        for key, number in found.items()
        if not abs(number - kept[key]) <= tolerance * max(1.0, abs(kept[key]))
    }
    assert not moved, f"{path}: {moved}"


def pipeline(name, *arguments, monkeypatch):
    """Run a pipeline in this process; return its exit code."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "pipelines" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [f"pipelines/{name}.py", *map(str, arguments)])
    try:
        run(module.main, module.Options)
    except SystemExit as stop:
        return stop.code
    return 0


def tiny(input_steps=4, target_steps=3, channels=1, *, double=False, **settings):
    """The paper's network, as small as it goes: 4 -> 3 steps of a globe unless told otherwise."""
    sizes = {"encoder_channels": 4, "translator_channels": 12, "translator_blocks": 2}
    more = {"mlp_ratio": 2.0, "circular_longitude": True, "predict_change": True}
    network = SimVPv2(input_steps, target_steps, channels, **sizes | more | settings)
    return network.double() if double else network


#: Settings that make each network of the registry small, for grids of a few points.
SMALL_NETWORKS: dict[str, dict] = {
    "AGCRN": {"hidden": 6, "neighbours": 5},
    "ASTGCN": {"hidden": 6, "blocks": 1, "neighbours": 5},
    "CLCRN": {"hidden": 6, "embedding": 2, "neighbours": 5},
    "CLCSTN": {"hidden": 6, "blocks": 1, "embedding": 2, "neighbours": 5},
    "DCRNN": {"hidden": 6, "neighbours": 5},
    "GCGRU": {"hidden": 6, "neighbours": 5},
    "MSTGCN": {"hidden": 6, "blocks": 1, "neighbours": 5},
    "STGCN": {"hidden": 6, "neighbours": 5},
    "TGCN": {"hidden": 6, "neighbours": 5},
    "E3DLSTM": {"hidden": [4, 4], "kernel": 3},
    "MIM": {"hidden": [4, 4], "kernel": 3},
    "ConvLSTM": {"hidden": [4, 6], "kernel": 3},
    "MAU": {"hidden": [4, 4], "kernel": 3},
    "MMVP": {
        "encoder_channels": 2,
        "predictor_channels": 3,
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "enhancer_blocks": 1,
    },
    "PredRNN": {"hidden": [4, 4], "kernel": 3, "sampling": {"start": 0.5}},
    "CrevNet": {"blocks": [1, 1], "layers": 1},
    "PhyDNet": {"encoder_stride": 2, "width": 16, "hidden": [4]},
    "PredRNNpp": {"hidden": [4, 4], "kernel": 3},
    "PredRNNv2": {"hidden": [4, 4], "kernel": 3},
    "SimVPv2": {"encoder_channels": 4, "translator_channels": 12, "translator_blocks": 2},
    "SwinLSTM-B": {"width": 8, "depth": 3, "heads": 2},
    "SwinLSTM-D": {"width": 8, "down": [2, 3], "up": [3, 2], "heads": [2, 4]},
}


class Linear(torch.nn.Module):
    """4 -> 3 steps without batch statistics: what a batch gives is the sum of its windows."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Conv3d(4, 3, 3, padding=1)

    def forward(self, x):
        return x[:, -3:] + self.mix(x)


def mount(*arguments):
    command = ["mount", *map(str, arguments)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount: {error}")
    if result.returncode:
        pytest.skip(f"{' '.join(command)}: {result.stderr.strip()}")


@contextmanager
def mounted(directory, *arguments):
    mount(*arguments, directory)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=False)  # threads may write yet


def fill_up(path):
    """Fill the disk that `path` is on."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def round_trip(ds, **options):
    """Through the gate and back, the labels by way of a file."""
    ours, labels = canonicalize(ds, **options)
    return restore(ours, pickle.loads(pickle.dumps(labels)))


class Counted(LazyArray):
    """A lazy array, like a file, that counts what is read of it."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, 0

    def _read(self, key):
        part = xr.Variable(tuple("abcdef")[: len(key)], self.values)[key].values
        self.read += part.size
        return part


def on_file(ds):
    """The same Dataset, read lazily as from a file, and its arrays by name."""
    arrays = {name: Counted(v.values) for name, v in ds.data_vars.items()}
    lazy = {n: a.variable(ds[n].dims, ds[n].attrs) for n, a in arrays.items()}
    return xr.Dataset(lazy, ds.coords, ds.attrs), arrays
