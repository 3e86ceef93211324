"""The synthetic data sets are what their closed forms say."""

import numpy as np
import pytest

from stforecast.testing.weather import make_forecast, make_weather

NAME = "2m_temperature"


def test_make_weather_is_its_closed_form():
    ds = make_weather(steps=3, shape=(4, 8), noise=0)[NAME]
    # 22.5 °N, 90 °E, after 2 hours
    phi, lam, t = np.pi / 8, np.pi / 2, 2.0
    want = 285 - 35 * np.sin(phi) ** 2 + 6 * np.cos(phi) * np.sin(2 * lam - 2 * np.pi * t / 30)
    want += 4 * np.cos(phi) * np.cos(2 * np.pi * t / 24 + lam - 3.9)
    assert float(ds.sel(latitude=22.5, longitude=90.0)[2]) == pytest.approx(want, abs=2e-5)
    noise = make_weather(steps=400, noise=0.5)[NAME] - make_weather(steps=400, noise=0)[NAME]
    assert float(noise.std()) == pytest.approx(0.5, rel=0.03)
    lagged = float((noise[1:].values * noise[:-1].values).mean()) / 0.25
    assert lagged == pytest.approx(0.9, abs=0.05)


def test_make_forecast_has_the_errors_it_says():
    weather = make_weather(steps=9, shape=(5, 8))
    forecast = make_forecast(weather, inits=3, steps=4, bias=-0.5, spread=0.25)
    truth = weather[NAME].sel(time=forecast["valid_time"])
    error = (forecast[NAME] - truth).mean(["time", "latitude", "longitude"])
    square = ((forecast[NAME] - truth) ** 2).mean(["time", "latitude", "longitude"])
    np.testing.assert_allclose(error, -0.5, atol=1e-4)
    np.testing.assert_allclose(square, 0.25 + (0.25 * np.arange(1, 5)) ** 2, atol=1e-4)
