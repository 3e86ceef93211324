"""What the tests of figures draw."""

from __future__ import annotations

import pytest
import xarray as xr

from stforecast.testing import make_weather


@pytest.fixture(scope="session")
def weather() -> xr.Dataset:
    """Twelve hours of simulated temperature on a globe of 12 x 24 cells."""
    return make_weather(steps=12, shape=(12, 24))
