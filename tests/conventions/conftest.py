"""Fixtures of the tests of conventions."""

import pytest
import xarray as xr

from stforecast.testing.weather import make_weather


@pytest.fixture
def weather() -> xr.Dataset:
    return make_weather(steps=7, shape=(4, 6))
