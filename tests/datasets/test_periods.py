"""Parts of a series that begin earlier, for what their forecasts look back to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.datasets import split, with_history
from stforecast.errors import InputError
from stforecast.task import Task, initialisations

TASK = Task("a", 2, 2, "6h", lags=("1D", "2D"))
TIME = pd.date_range("2018-01-01", periods=60, freq="6h")
WHOLE = xr.Dataset({"a": ("time", np.arange(60.0))}, {"time": TIME})


def test_a_part_has_the_initialisations_that_it_has_without_lags():
    parts = split(WHOLE, train="2018-01-01/2018-01-08", test="2018-01-09/2018-01-15")
    longer = with_history(parts["test"], WHOLE, TASK)
    assert longer["time"].values[0] == np.datetime64("2018-01-07T12")  # 8 steps in all, not 2
    wanted = initialisations(parts["test"], Task("a", 2, 2, "6h"))
    np.testing.assert_array_equal(initialisations(longer, TASK), wanted)
    plain = with_history(parts["test"], WHOLE, Task("a", 2, 2, "6h"))
    xr.testing.assert_identical(plain, parts["test"])


@pytest.mark.parametrize("gap", [[], [30]])
def test_a_part_whose_history_is_not_there_is_refused(gap):
    whole = WHOLE.drop_isel(time=gap) if gap else WHOLE
    part = whole.isel(time=slice(4, 20) if not gap else slice(33, 50))
    with pytest.raises(InputError, match=r"initialisations have no history of 8 steps"):
        with_history(part, whole, TASK)
