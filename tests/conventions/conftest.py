"""Fixtures of the tests of the gate."""

import pytest
import xarray as xr

from stforecast.testing.weather import make_forecast, make_weather


@pytest.fixture
def weather() -> xr.Dataset:
    return make_weather(steps=7, shape=(4, 6))


@pytest.fixture
def forecast(weather) -> xr.Dataset:
    return make_forecast(weather)
