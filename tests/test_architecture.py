"""One direction: who may import whom, and what may be imported where."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import structure


def told(found: list[structure.Import]) -> list[str]:
    return [f"{i.source}:{i.line} imports {i.target}.{i.name or ''}" for i in found]


def test_no_import_goes_up() -> None:
    assert told(structure.upward()) == []


def test_no_import_circle() -> None:
    assert structure.circles() == []


def test_no_private_name_crosses_rooms() -> None:
    assert told(structure.private()) == []


def test_torch_and_xarray_stay_in_their_rooms() -> None:
    assert told(structure.misplaced()) == []


def test_every_room_has_a_floor() -> None:
    assert {m for m in structure.modules() if structure.floor(m) < 0} == set()


def test_the_top_is_small() -> None:
    entries = structure.entries()
    assert sum(e.endswith(".py") for e in entries) <= 9
    assert sum(not e.endswith(".py") for e in entries) <= 11


@pytest.mark.parametrize(
    ("offender", "line", "check"),
    [
        ("task.py", "from .models import SimVPv2", structure.upward),
        ("task.py", "def f():\n    from .training.fit import fit", structure.upward),
        (
            "task.py",
            "if TYPE_CHECKING:\n    import stforecast.evaluation.metrics",
            structure.upward,
        ),
        ("files.py", "from . import predict", structure.upward),
        ("models/layers.py", "from .simvp import SimVPv2", structure.circles),
        ("models/layers.py", "def f():\n    from . import simvp", structure.circles),
        ("cli/run.py", "from ..plots.maps import _hidden", structure.private),
        ("datasets/weather.py", "import torch.nn", structure.misplaced),
        ("evaluation/metrics.py", "def f():\n    from torch import nn", structure.misplaced),
        ("models/layers.py", "from xarray import Dataset", structure.misplaced),
    ],
)
def test_a_planted_offender_is_found(tmp_path: Path, offender: str, line: str, check) -> None:
    library = tmp_path / "stforecast"
    ignore = shutil.ignore_patterns("*.zarr", "*.safetensors", "__pycache__")
    shutil.copytree(structure.LIBRARY, library, ignore=ignore)
    before = check(library)
    path = library / offender
    path.write_text(path.read_text() + f"\n{line}\n")
    assert len(check(library)) == len(before) + 1
