"""The notebooks: sources and executed copies have the same content, and all of them run."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
MOST_BYTES = 600_000
NAMES = ("quickstart", "your_own_data", "verification", "how_sure", "traffic")

#: Fewer steps and initialisations than a reader has, where a test is about the code.
FEWER = {
    "quickstart": {
        "initialisations(test, task, 4)": "initialisations(test, task, 48)",
        "(16, 17, 18, 19)": "(16,)",
    },
    "your_own_data": {"steps=240": "steps=40"},
    "verification": {"initialisations(test, task, 3)": "initialisations(test, task, 18)"},
    "how_sure": {"initialisations(test, longer, 18)": "initialisations(test, longer, 96)"},
    "traffic": {"steps=300": "steps=40"},
}

for module in ("jupytext", "nbclient", "ipykernel", "matplotlib", "cartopy"):
    pytest.importorskip(module)


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("execute", NOTEBOOKS / "execute.py")
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


TOOL = _tool()


def _committed(name: str) -> dict[str, Any]:
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())


def _texts(notebook: Any) -> str:
    """All that the outputs show as text."""
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            found.append(output.get("text", ""))
            for kind, data in output.get("data", {}).items():
                found += [data] if kind.startswith("text/") else []
    return "".join("".join(text) for text in found)


def _check_outputs(notebook: Any) -> None:
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"], "warnings or logs are shown"
    text = _texts(notebook)
    assert not re.search(r"Warning|Traceback", text)
    # HTML and addresses have slashes too; these begin the paths of a machine.
    assert not re.search(r"(?<![\w.])/(home|work|tmp|root|usr|Users|opt|mnt)/", text)


def test_every_notebook_is_tested() -> None:
    assert {p.stem for p in NOTEBOOKS.glob("*.ipynb")} == set(NAMES) == set(TOOL.NAMES)
    assert {p.stem for p in NOTEBOOKS.glob("*.py")} == {*NAMES, "execute"}


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_is_the_executed_source(name: str) -> None:
    source, committed = TOOL.read(name), _committed(name)
    # What a cell says, whether a list of lines or one string.
    told = [(c["cell_type"], "".join(c["source"])) for c in committed["cells"]]
    assert told == [(c["cell_type"], c["source"]) for c in source["cells"]], (
        f"run python notebooks/execute.py {name}"
    )
    counts = [c["execution_count"] for c in committed["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    _check_outputs(committed)
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < MOST_BYTES
    assert set(committed["metadata"]) == {"kernelspec"}  # nothing of the machine


@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str) -> None:
    """Each cell, with the real data where they are, in a directory of its own."""
    before, notebook = sorted(NOTEBOOKS.iterdir()), TOOL.read(name)
    for what, fewer in FEWER[name].items():
        cells = [cell for cell in notebook.cells if what in cell["source"]]
        assert len(cells) == 1, f"{what} stands in {len(cells)} cells"
        cells[0]["source"] = cells[0]["source"].replace(what, fewer)
    _check_outputs(TOOL.execute(notebook))
    assert sorted(p for p in NOTEBOOKS.iterdir() if p.name != "__pycache__") == [
        p for p in before if p.name != "__pycache__"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_as_it_stands(name: str) -> None:
    _check_outputs(TOOL.execute(TOOL.read(name)))


@pytest.mark.slow
@pytest.mark.skipif(not TOOL.SHARED.is_dir(), reason="without ../shared test_runs is this test")
@pytest.mark.parametrize("name", ["your_own_data", "traffic"])
def test_runs_on_synthetic_data(name: str) -> None:
    """As in a fresh clone, without the real data."""
    _check_outputs(TOOL.execute(TOOL.read(name), shared=False))
