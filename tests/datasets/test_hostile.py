"""Files that claim more than they hold, run code or reach elsewhere: one InputError each, soon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

av = pytest.importorskip("av", reason="needs the extra 'video'")

import hostile_files  # noqa: E402

from stforecast.datasets import open_nyc_flow, set_limits  # noqa: E402
from stforecast.errors import InputError  # noqa: E402
from stforecast.testing import write_nyc_flow  # noqa: E402


@pytest.fixture(scope="module")
def outcomes():
    """Try all cases in one process, a gigabyte larger than its libraries; outcomes by name."""
    done = subprocess.run(
        [sys.executable, "-B", hostile_files.__file__],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
        env={
            "PYTHONPATH": ":".join(filter(None, sys.path)),
            "MALLOC_ARENA_MAX": "1",
            "OMP_NUM_THREADS": "1",
        },
        check=False,
    )
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    return found, done.stderr


@pytest.mark.parametrize("name", hostile_files.CASES)
def test_a_hostile_file_is_refused(name, outcomes):
    found, errors = outcomes
    assert name in found, f"the process ended before this: {errors[-3000:]}"
    assert found[name].startswith("InputError: "), found[name]
    assert hostile_files.CASES[name][1] in found[name]


def test_a_limit_is_raised_by_name(tmp_path):
    act = hostile_files.mnist(tmp_path, sequences=3, steps=5)
    with set_limits(frames=14), pytest.raises(InputError, match=r"15 frames.*set_limits\(frames="):
        act()
    with set_limits(frames=15):
        act()
    act()


@pytest.mark.parametrize("value", [0, -1, 1.5, "4", True])
def test_a_limit_is_a_whole_number(value):
    with pytest.raises(InputError, match="piece_bytes must be a whole number"):
        set_limits(piece_bytes=value)


def test_an_npz_that_is_cut_while_it_is_mapped_ends_no_process(tmp_path):
    write_nyc_flow(tmp_path)
    ds = open_nyc_flow(tmp_path, chunks=None)
    ds["inflow"][:4].load()
    file = next(tmp_path.rglob("flow_train.npz"))
    os.truncate(file, 2000)
    with pytest.raises(InputError, match=r"flow_train\.npz: it was changed while it was read"):
        ds["inflow"][4:8].load()
