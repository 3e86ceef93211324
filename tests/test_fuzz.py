"""Damaged files and labels: right, or one InputError, soon and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys

import fuzz
import pytest
from helpers import ROOT

pytest.importorskip("av", reason="needs the extra 'video'")


#: libhdf5 itself does not end, or crashes, on some damage: nothing in its process can stop it.
HDF5 = ("netcdf4", "robonet", "hickle")


def child(seed, first, stop):
    """Try inputs in one process; give the last that was begun, the faults, and how it ended."""
    done = subprocess.run(
        [sys.executable, "-B", fuzz.__file__, str(seed), str(first), str(stop)],
        capture_output=True,
        text=True,
        timeout=6 * 3600,
        cwd=ROOT,
        env={
            "PYTHONPATH": ":".join(filter(None, sys.path)),
            "MALLOC_ARENA_MAX": "1",
            "OMP_NUM_THREADS": "1",
        },
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    faults = [f"{number}: {fault}" for number, fault in lines if fault is not None]
    return (lines[-1][0] if lines else first - 1), faults, done


@pytest.mark.parametrize(
    ("seed", "inputs"), [(0, 500), pytest.param(1, 20_000, marks=pytest.mark.slow)]
)
def test_damaged_input_is_right_or_refused(seed, inputs):
    """To try one again: ``python tests/fuzz.py SEED NUMBER NUMBER+1``."""
    first, faults = 0, []
    while first < inputs:
        last, found, done = child(seed, first, inputs)
        faults += found
        if done.returncode and fuzz.subject(last) not in HDF5:
            faults.append(f"{last}: the process ended: {done.stderr[-2000:]}")
        assert last >= first, done.stderr[-2000:]
        first = last + 1
    assert not faults, "\n".join(faults)
