"""Damaged files and labels: right, or one InputError, soon and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys

import fuzz
import pytest
from helpers import ROOT

pytest.importorskip("av", reason="needs the extra 'video'")


@pytest.mark.parametrize(
    ("seed", "inputs"), [(0, 500), pytest.param(1, 20_000, marks=pytest.mark.slow)]
)
def test_damaged_input_is_right_or_refused(seed, inputs):
    """To try one again: ``python tests/fuzz.py SEED NUMBER NUMBER+1``."""
    done = subprocess.run(
        [sys.executable, "-B", fuzz.__file__, str(seed), "0", str(inputs)],
        capture_output=True,
        text=True,
        timeout=600 if inputs <= 500 else 6 * 3600,
        cwd=ROOT,
        env={
            "PYTHONPATH": ":".join(filter(None, sys.path)),
            "MALLOC_ARENA_MAX": "1",
            "OMP_NUM_THREADS": "1",
        },
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    faults = [line for line in lines if line[1] is not None]
    begun = [number for number, fault in lines if fault is None]
    assert begun == list(range(inputs)), f"the process ended at {begun[-1:]}: {done.stderr[-2000:]}"
    assert not faults, "\n".join(f"{number}: {fault}" for number, fault in faults)
