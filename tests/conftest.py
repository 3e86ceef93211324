"""Settings that all tests share."""

from __future__ import annotations

import builtins
import os
from importlib import util

import hypothesis
import pytest

# Threads that wait for one another sleep: on a busy machine those that spin held up the very ones
# they waited for, and a training of a second took up to a minute. Set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Side by side, with as many threads each as there are processors, tests wait for one another's
# threads; several_threads is for what has to do with them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is not a failure: how long an example takes is not what the tests are about.
hypothesis.settings.register_profile("stforecast", deadline=None)
hypothesis.settings.load_profile("stforecast")


#: The files that take longest, the longest first.
LONGEST = ("notebooks", "docs", "relabelling", "pipelines", "distributed", "faults", "real_data")


def pytest_collection_modifyitems(items):
    """Begin with the longest: a file is one worker's, and at the end the others would wait."""
    place = {f"test_{name}.py": k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="module")
def several_threads():
    """What is computed by several threads, tested with several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def without_matplotlib(monkeypatch):
    """As where matplotlib, cartopy and TensorBoard are not installed: nothing is drawn.

    For tests of the rest of a pipeline too, whose pictures take longer than its training.
    """
    absent = {"matplotlib", "cartopy", "tensorboard"}
    imports, finds = builtins.__import__, util.find_spec

    def refuse(name, *rest, **more):
        if name.split(".")[0] in absent:
            raise ImportError(f"No module named {name!r}")
        return imports(name, *rest, **more)

    def find(name, *rest):
        return None if name.split(".")[0] in absent else finds(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr("stforecast.plots.layout.import_module", refuse)
    monkeypatch.setattr(util, "find_spec", find)
