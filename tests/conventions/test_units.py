"""Spellings of units: what is one unit, what is another, and what is not understood."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast import Persistence, Task, evaluate
from stforecast.conventions import canonicalize, same_units
from stforecast.conventions.units import parse
from stforecast.errors import InputError
from stforecast.testing import make_weather

#: Each row is one unit; no two rows are.
SPELLINGS = [
    [
        "m s-1",
        "m s**-1",
        "m/s",
        "m s^-1",
        "m.s-1",
        "m*s-1",
        "meter/second",
        "metres per second",
        *(
            "m s⁻¹",
            "m·s⁻¹",
            "meter second-1",
            "m s^{-1}",
            "Meters/Second",
            "m / s",
            "s-1 m",
            "m(s)-1",
        ),
    ],
    ["km/h", "km h-1", "kilometers per hour", "km hr-1"],
    ["knots", "kt", "knot", "kn"],
    ["Pa", "pascal", "Pascals", "N m-2", "N/m2", "kg m-1 s-2", "J m-3"],
    ["hPa", "mbar", "millibar", "millibars", "mb", "hectopascal", "100 Pa"],
    ["kg m-2 s-1", "kg m**-2 s**-1", "kg/m2/s", "kg/(m2 s)", "kg m⁻² s⁻¹", "kilogram m-2 sec-1"],
    ["W m-2", "W m**-2", "W/m2", "W/m²", "watts/m^2", "Watt m-2", "J s-1 m-2"],
    ["J m-2", "J m**-2", "J/m2", "joules m-2"],
    ["kg kg-1", "kg kg**-1", "kg/kg", "1", "(0 - 1)", "~", "g/g", "dimensionless", "m3 m-3"],
    ["g/kg", "g kg-1", "g kg**-1", "1e-3 kg/kg", "0.001"],
    ["%", "percent", "0.01"],
    ["m", "metre", "meters", "gpm", "1e3 mm"],
    ["mm", "millimetre", "millimeters", "1e-3 m", "0.001 m", "10^-3 m"],
    ["mm/day", "mm d-1", "mm day-1", "millimeters per day"],
    ["m2 s-2", "m**2 s**-2", "J kg-1", "J/kg", "m^2/s^2"],
    ["K", "kelvin", "Kelvin", "degK"],
    ["degC", "°C", "degrees_Celsius", "celsius", "degrees Celsius"],
    ["degF", "Fahrenheit"],
    ["K s-1", "K/s", "degC s-1"],
    ["s-1", "s**-1", "1/s", "Hz"],
    ["Pa s-1", "Pa s**-1", "Pa/s"],
    ["K m2 kg-1 s-1", "K m**2 kg**-1 s**-1"],
    ["degree", "degrees", "deg", "degrees_north", "°"],
    ["rad", "radian", "radians"],
    ["m of water equivalent", "m  of water equivalent"],
    ["dBZ"],
    ["hours since 1900-01-01"],
]


@pytest.mark.parametrize("row", SPELLINGS, ids=lambda row: row[0])
def test_spellings_of_one_unit(row):
    for a, b in itertools.product(row, row):
        assert same_units(a, b), (a, b)


def test_spellings_of_different_units():
    for (i, one), (j, other) in itertools.combinations(enumerate(SPELLINGS), 2):
        for a, b in itertools.product(one, other):
            assert not same_units(a, b), (a, b)
        assert i != j


@pytest.mark.parametrize("absent", [None, "", "  "])
def test_what_is_not_given_contradicts_nothing(absent):
    assert same_units(absent, "m")
    assert same_units("m", absent)


@pytest.mark.parametrize(
    "text",
    [
        "m of water",
        "m//s",
        "/s",
        "m**",
        "(m",
        "m)",
        "m s--1",
        "2**999 m",
        "m^0.5",
        "s since 1900",
        *("1e999 m", "m" * 300, "((" * 90, "kgm-2", "dd", "m 1 2 x", "10**-400 m"),
    ],
)
def test_what_is_not_understood_is_one_unit_with_itself_only(text):
    assert parse(text) is None
    assert same_units(text, text)
    assert not same_units(text, "m")


#: A unit, and what it is in others: SI's definitions, and those of UDUNITS 2.
DEFINED = {
    "week": "7 d",
    "d": "24 h",
    "hour": "60 min",
    "minute": "60 s",
    "bar": "100 kPa",
    "mb": "hPa",
    "atm": "1013.25 hPa",
    "mmHg": "1.33322387415 hPa",
    "L": "dm3",
    "t": "Mg",
    "ha": "hm2",
    "ft": "12 inch",
    "inch": "2.54 cm",
    "mile": "5280 ft",
    "nmile": "1.852 km",
    "knot": "nmile/h",
    "mph": "mile/h",
    "9 degF/s": "5 K/s",
    "ppm": "1e-4 %",
    "ppb": "1e-3 ppm",
    "%": "1e-2",
    "DU": "0.44615 mmol m-2",
    "PVU": "1e-6 K m2 kg-1 s-1",
    "degree": "60 arcmin",
    "arcminute": "60 arcsec",
    "10 gon": "9 degree",
    "sr": "rad2",
    "3.14159265358979 rad": "180 degree",
    "Hz": "s-1",
    "N": "kg m s-2",
    "Pa": "kg m-1 s-2",
    "J": "kg m2 s-2",
    "W": "kg m2 s-3",
    "C": "A s",
    "V": "kg m2 s-3 A-1",
    "T": "kg s-2 A-1",
    "dam": "10 m",
    "hm": "100 m",
    "km": "1000 m",
    "Mm": "1e6 m",
    "Gm": "1e9 m",
    "Tm": "1e12 m",
    "Pm": "1e15 m",
    "dm": "1e-1 m",
    "cm": "1e-2 m",
    "mm": "1e-3 m",
    "um": "1e-6 m",
    "µm": "1e-6 m",
    "nm": "1e-9 m",
    "pm": "1e-12 m",
    "decameter": "10 m",
    "hectopascal": "100 Pa",
    "kilogram": "1000 g",
    "megawatt": "1e6 W",
    "gigajoule": "1e9 J",
    "teragram": "1e12 g",
    "decibar": "0.1 bar",
    "centimeter": "cm",
    "millisecond": "ms",
    "microgram": "1e-6 g",
    "nanometer": "nm",
    "picomole": "1e-12 mol",
}


def test_units_are_what_their_definitions_say():
    for unit, definition in DEFINED.items():
        assert parse(definition) is not None, definition
        assert same_units(unit, definition), (unit, definition)
        assert not same_units(unit, f"1.00001 {definition}"), (unit, definition)


#: Symbols and names of one unit, as UDUNITS has them.
SYNONYMS = [
    *("m metre meter", "s second sec", "g gram gramme", "mol mole", "A ampere", "rad radian"),
    "K kelvin degK degC degree_C degree_celsius deg_C celsius °C ℃",
    *("sr steradian", "arcmin arc_minute arcminute", "arcsec arc_second arcsecond", "gon grad"),
    "degree deg arc_degree ° degree_north degree_east degree_N degree_E degreeN degreeE",
    *("Hz hertz", "N newton", "Pa pascal", "J joule", "W watt", "C coulomb", "V volt", "T tesla"),
    *("atm atmosphere", "min minute", "h hr hrs hour", "d day", "L l litre liter"),
    *("t tonne metric_ton", "ha hectare", "gpm geopotential_meter geopotential_metre"),
    *("ft foot feet", "inch inches", "mi mile", "nmile nautical_mile", "kt kn knot"),
    *("degF degree_F degree_fahrenheit fahrenheit °F ℉", "% percent", "ppm ppmv", "ppb ppbv"),
    *("DU dobson", "1 fraction dimensionless unitless proportion"),
]


def test_synonyms():
    for words in SYNONYMS:
        first, *others = words.split()
        for other in others:  # with another unit: `C` alone is a temperature here
            assert same_units(f"mol {first}", f"mol {other}"), other
            assert parse(f"mol {other}") is not None, other
    for whole in ("-", "~", "(0 - 1)", "(0-1)", "0 - 1", "0-1", "numeric"):
        assert same_units(whole, "1"), whole


def test_what_takes_prefixes():
    units = "m s g K mol A rad sr Hz N Pa J W C V T bar L t gpm"
    for unit in units.split():  # `kt` is a knot
        assert same_units(f"G{unit} A", f"1e9 A {unit}"), unit
    others = "ft inch mi nmile kt d h min week ha mb atm mmHg % ppm degF degree DU PVU"
    for unit in others.split():
        assert parse(f"G{unit}") is None, unit


def test_how_long_and_how_high_a_unit_may_be():
    assert parse("m99") is not None
    assert parse("m100") is None
    assert parse(" ".join(["m"] * 100)) is not None  # 199 letters
    assert parse(" ".join(["m"] * 101)) is None


# --- against others -------------------------------------------------------------------------------

_POWERS = ("", "2", "-1", "-2", "3")
_WRITE = {
    "cf": lambda n, p: n + p,
    "ecmwf": lambda n, p: n + (f"**{p}" if p else ""),
    "caret": lambda n, p: n + (f"^{p}" if p else ""),
    "typeset": lambda n, p: n + p.translate(str.maketrans("123-", "¹²³⁻")),
}
_PREFIXED = [p + s for p in ("", "k", "m", "h", "c", "u") for s in ("m", "g", "Pa", "s", "J", "W")]
_SYMBOLS = [*_PREFIXED, "K", "day", "hour", "h", "d", "mol", "%", "degree", "N", "L", "bar"]
_NAMES = {
    "m": "meter",
    "s": "second",
    "kg": "kilogram",
    "Pa": "pascals",
    "K": "Kelvin",
    "h": "hour",
}

_factors = st.lists(
    st.tuples(st.sampled_from(_SYMBOLS), st.sampled_from(_POWERS)), min_size=1, max_size=4
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_factors, st.sampled_from(list(_WRITE)), st.sampled_from([" ", ".", "*", " * "]), st.data())
def test_however_it_is_written_it_is_the_same(factors, style, between, data):
    plain = " ".join(n + p for n, p in factors)
    shuffled = data.draw(st.permutations(factors))
    named = [(_NAMES.get(n, n) if data.draw(st.booleans()) else n, p) for n, p in shuffled]
    assert same_units(between.join(_WRITE[style](n, p) for n, p in named), plain)
    over = " / ".join([plain, *(n + p.lstrip("-") for n, p in factors if p.startswith("-"))])
    twice = " ".join([plain, *(n + p for n, p in factors if p.startswith("-"))])
    assert same_units(over, twice)
    if parse(plain).powers:
        assert not same_units(plain, f"1000 {plain}")
        assert not same_units(plain, f"{plain} A")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_factors)
def test_factors_and_powers_are_those_of_pint(factors):
    pint = pytest.importorskip("pint")
    registry = _registry(pint)
    text = " ".join(n + p for n, p in factors)
    product = "*".join(f"{n.replace('%', 'percent')}**({p or 1})" for n, p in factors)
    theirs = registry.Quantity(1, product).to_base_units()
    ours = parse(text)
    base = {"kg": 1e-3}.get("kg", 1.0)
    power = dict(ours.powers).get("g", 0)
    named = {"meter": "m", "second": "s", "gram": "g", "kilogram": "g", "kelvin": "K"}
    named |= {"mole": "mol", "radian": "rad", "ampere": "A"}
    found = {named[k]: int(v) for k, v in theirs.units._units.items()}
    assert {k: v for k, v in ours.powers if k != "rad"} == {
        k: v for k, v in found.items() if k != "rad"
    }
    np.testing.assert_allclose(ours.factor * base**power, theirs.magnitude, rtol=1e-9)


_REGISTRY: list = []


def _registry(pint):
    if not _REGISTRY:
        _REGISTRY.append(pint.UnitRegistry())
    return _REGISTRY[0]


def test_the_table_is_udunits():
    cf_units = pytest.importorskip("cf_units")
    ours_only = re.compile(
        "mb|gpm|[⁰-⁹⁻¹²³·]|[{}]|0 - 1|~|dimensionless|s C|m\\(s|nmile|degK|kn\\b|10\\^"
    )
    for row in SPELLINGS:
        known = [t for t in row if not ours_only.search(t) and parse(t) is not None]
        for a, b in itertools.pairwise(known):
            assert cf_units.Unit(a) == cf_units.Unit(b), (a, b)


# --- at the doors ---------------------------------------------------------------------------------


def _scored(forecast_units, truth_units):
    truth = make_weather(12, shape=(4, 8)).rename({"2m_temperature": "gust"})
    truth["gust"].attrs = {} if truth_units is None else {"units": truth_units}
    made = Persistence(Task("gust", 2, 2)).predict(truth, init_time=truth.time.values[4:6])
    made["gust"].attrs["units"] = forecast_units
    return evaluate(made, truth)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("m s-1", "m s**-1"), ("m/s", "meter second-1"), (np.array(["m/s"]), b"m s-1"), ("m", None)],
)
def test_evaluate_takes_one_unit_in_two_spellings(ours, theirs):
    assert float(_scored(ours, theirs)["gust"][0, 0]) > 0


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("mm", "m"), ("hPa", "Pa"), ("g/kg", "kg/kg"), ("m", "m of water equivalent"), ("%", "1")],
)
def test_evaluate_refuses_another_scale(ours, theirs):
    with pytest.raises(InputError, match=f"gust is in '{ours}' in the forecast and '{theirs}'"):
        _scored(ours, theirs)


def test_units_as_they_come_are_plain_in_canonical_form():
    ds = make_weather(4, shape=(4, 8))
    for units in (
        ["K"],
        np.array(["K"], dtype=object),
        b"K",
        np.array(b"Kelvin"),
        ("degK",),
        "K\0",
    ):
        ds["2m_temperature"].attrs["units"] = units
        assert canonicalize(ds)[0]["2m_temperature"].attrs["units"] == "K"
    ds["2m_temperature"].attrs["units"] = ["K", "degC"]
    with pytest.raises(InputError, match=r"'2m_temperature' has 2 units.*one text"):
        canonicalize(ds)
    ds["2m_temperature"].attrs["units"] = "x" * 10**6
    with pytest.raises(InputError, match="expected a temperature") as error:
        canonicalize(ds)
    assert len(str(error.value)) < 400
