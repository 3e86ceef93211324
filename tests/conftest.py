"""Settings that all tests share."""

from __future__ import annotations

import os

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


@pytest.fixture(scope="module")
def several_threads():
    """What is computed by several threads, tested with several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)
