"""The helpers that prove something are tested too."""

from __future__ import annotations

import json
import math

import pytest
from helpers import golden


def test_a_missing_golden_file_is_written_and_fails(tmp_path):
    with pytest.raises(AssertionError, match=r"figures\.json was missing .* look at it and commit"):
        golden("figures", {"mean": 288.0}, 1e-6, folder=tmp_path / "golden")
    assert json.loads((tmp_path / "golden" / "figures.json").read_text()) == {"mean": 288.0}
    golden("figures", {"mean": 288.0001}, 1e-6, folder=tmp_path / "golden")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mean": 288.001}, "288.0 is now 288.001"),
        ({"mean": math.nan}, "is now nan"),
        ({"middle": 288.0}, "other figures"),
    ],
)
def test_golden_figures_that_moved_are_told(tmp_path, value, message):
    (tmp_path / "figures.json").write_text('{"mean": 288.0}')
    with pytest.raises(AssertionError, match=message):
        golden("figures", value, 1e-6, folder=tmp_path)
