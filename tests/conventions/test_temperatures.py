"""Which temperatures are plausible, to the kelvin, and which are differences."""

from __future__ import annotations

import logging

import pytest

from stforecast.conventions.temperatures import agreed_unit, is_difference
from stforecast.errors import InputError


@pytest.mark.parametrize(
    ("about", "low", "high"),
    [
        ("air temperature", 160, 330),
        ("sea water potential temperature", 160, 330),  # at the surface it is hardly warmer
        ("toa brightness temperature", 2, 400),
        ("air potential temperature", 160, 10_000),
        ("equivalent temperature", 160, 10_000),
    ],
)
@pytest.mark.parametrize(("unit", "zero"), [("K", 0), ("degC", 273.15)])
def test_the_range_of_plausible_temperatures(about, low, high, unit, zero):
    for kelvin in (low + 0.01, high - 0.01):
        assert agreed_unit("t", unit, unit, about, [kelvin - zero]) == unit
    for kelvin in (low - 0.01, high + 0.01):
        with pytest.raises(InputError, match="contradict"):
            agreed_unit("t", unit, unit, about, [300 - zero, kelvin - zero])


def test_units_that_are_not_given(caplog):
    with caplog.at_level(logging.WARNING, "stforecast"):
        assert agreed_unit("t", "", None, "air", [280.0, 161.0]) == "K"
        assert agreed_unit("t", "", None, "air", [-10.0, 30.0]) == "degC"
    assert "no units: taken as degC" in caplog.text
    for medians, words in (([], "all missing"), ([130.0], "around 130"), ([280, 7], "change from")):
        with pytest.raises(InputError, match=words):
            agreed_unit("t", "", None, "air", medians)
    assert agreed_unit("t", "degF", "degF", "air", []) == "degF"


def test_differences():
    words = "anomaly difference deviation departure error increment tendency uncertainty spread"
    for word in [*words.split(), "temperature_range", "temperature range"]:
        assert is_difference(f"2 metre temperature, {word} of it"), word
    assert not is_difference("2 metre temperature")
