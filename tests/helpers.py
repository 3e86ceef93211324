"""What tests in several rooms need."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from stforecast.cli import run

ROOT = Path(__file__).parents[1]
#: Real data and cases with known answers; tests that need them skip where they are absent.
SHARED = ROOT.parent / "shared"


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
