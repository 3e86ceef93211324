"""What the tests of the command share: to type it, and small data."""

from __future__ import annotations

import sys

import pytest

from stforecast import __main__
from stforecast.testing.weather import make_weather, relabel


@pytest.fixture
def typed(monkeypatch, capsys):
    """Type a command; gives its exit code, and what it said."""

    def type_(*words):
        monkeypatch.setitem(sys.modules, "tensorboard", None)  # a log that takes seconds to import
        monkeypatch.setattr(sys, "argv", ["/usr/bin/stforecast", *map(str, words)])
        try:
            __main__.main()
        except SystemExit as stop:
            return stop.code, capsys.readouterr()
        return 0, capsys.readouterr()

    return type_


@pytest.fixture(scope="package")
def weather(tmp_path_factory):
    """Eight days of WeatherBench's layout."""
    directory = tmp_path_factory.mktemp("weather")
    ds = make_weather(192, shape=(4, 6))
    theirs = relabel(ds, names={"2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"})
    theirs.to_netcdf(directory / "2m_temperature_2001_5.625deg.nc")
    periods = ["--train", "2001-01-01/2001-01-04", "--validation", "2001-01-05/2001-01-06"]
    return ["--data", directory, *periods, "--test", "2001-01-07/2001-01-08"]
