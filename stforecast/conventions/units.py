"""Texts of units, in the many ways that files spell them, and whether two of them are one unit.

What is read is the part of UDUNITS' grammar that CF, GRIB and WeatherBench 2 use: products
(``m s-1``, ``m.s-1``, ``m*s**-1``), quotients (``kg/m2/s``, ``meters per second``), powers
(``m2``, ``m^2``, ``m**2``, ``m²``), numbers (``1e-3 kg``), SI prefixes, names and symbols.
Quotients and products bind alike, from the left, so ``W/m2 sr`` is ``W m-2 sr``, as in UDUNITS. A
text that is not understood (``m of water equivalent``) is one unit with itself only.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

# Symbols and names of a unit: its definition, "" for a base unit. Source: UDUNITS 2's tables; `mb`
# is a millibar in this field and not a millibarn, `gpm` a height, as in GRIB and not m2 s-2.
_DEFINITIONS = {
    "m metre meter": "",
    "s second sec": "",
    "g gram gramme": "",
    "K kelvin degK degC degree_C degree_celsius deg_C celsius °C ℃": "",
    "mol mole": "",
    "A ampere": "",
    "rad radian": "",
    "sr steradian": "rad2",
    "degree deg arc_degree ° degree_north degree_east degree_N degree_E degreeN degreeE": (
        f"{math.pi / 180!r} rad"
    ),
    "arcmin arc_minute arcminute": f"{math.pi / 10800!r} rad",
    "arcsec arc_second arcsecond": f"{math.pi / 648000!r} rad",
    "gon grad": f"{math.pi / 200!r} rad",
    "Hz hertz": "s-1",
    "N newton": "kg m s-2",
    "Pa pascal": "N m-2",
    "J joule": "N m",
    "W watt": "J s-1",
    "C coulomb": "A s",
    "V volt": "W A-1",
    "T tesla": "V s m-2",
    "bar": "1e5 Pa",
    "mb": "100 Pa",
    "atm atmosphere": "101325 Pa",
    "mmHg": "133.322387415 Pa",
    "min minute": "60 s",
    "h hr hrs hour": "3600 s",
    "d day": "86400 s",
    "week": "604800 s",
    "L l litre liter": "1e-3 m3",
    "t tonne metric_ton": "1000 kg",
    "ha hectare": "1e4 m2",
    "gpm geopotential_meter geopotential_metre": "m",
    "ft foot feet": "0.3048 m",
    "inch inches": "0.0254 m",
    "mi mile": "1609.344 m",
    "nmile nautical_mile": "1852 m",
    "kt kn knot": "1852 m/h",
    "mph": "1609.344 m/h",
    "degF degree_F degree_fahrenheit fahrenheit °F ℉": f"{5 / 9!r} K",
    "% percent": "0.01",
    "ppm ppmv": "1e-6",
    "ppb ppbv": "1e-9",
    "DU dobson": "4.4615e-4 mol m-2",
    "PVU": "1e-6 K m2 kg-1 s-1",
    "1 fraction dimensionless unitless proportion": "1",
}
_KNOWN = {
    word: (words.split()[0], d) for words, d in _DEFINITIONS.items() for word in words.split()
}
_WORDS = {word.lower(): found for word, found in _KNOWN.items() if len(word) > 2}
#: Units that take SI prefixes: a `cd` is a candela and no hundredth of a day.
_METRIC = {
    *("m", "s", "g", "K", "mol", "A", "rad", "sr", "Hz", "N", "Pa", "J", "W", "C", "V", "T"),
    *("bar", "L", "t", "gpm"),
}
_SYMBOLS = {"da": 1e1, "h": 1e2, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15} | {
    "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9, "p": 1e-12
}  # fmt: skip
_PREFIXES = {"deca": 1e1, "hecto": 1e2, "kilo": 1e3, "mega": 1e6, "giga": 1e9, "tera": 1e12} | {
    "deci": 1e-1, "centi": 1e-2, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "pico": 1e-12
}  # fmt: skip
_LETTERS = {"k": "K", "c": "degC", "f": "degF"}
#: Whole texts for a number without a unit (ECMWF's, GRIB's).
_NUMBERS = ("-", "~", "(0 - 1)", "(0-1)", "0 - 1", "0-1", "numeric")
_TYPED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺−μº·⋅×", "0123456789-+-µ°***", "{}")  # noqa: RUF001
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<word>[^\W\d_]+(?:_[^\W\d_]+)*|°[CF]?|[℃℉%])"
    r"|(?P<bracket>[()])|(?P<over>/)|(?P<times>\*(?!\*)|\.))"
)
_POWER = re.compile(r"(?:\s*(?:\^|\*\*)\s*)?([+-]?\d+)(?![\d.]*\d)(?!\.\d)")


@dataclass(frozen=True)
class Unit:
    """A unit as a factor times powers of m, s, g, K, mol, A and rad."""

    factor: float = 1.0
    powers: tuple[tuple[str, int], ...] = ()

    def times(self, other: Unit, power: int = 1) -> Unit:
        """Multiply by a power of another unit."""
        powers = Counter(dict(self.powers))
        for base, n in other.powers:
            powers[base] += n * power
        kept = tuple(sorted((base, n) for base, n in powers.items() if n))
        return Unit(self.factor * other.factor**power, kept)


@lru_cache(maxsize=1024)
def parse(text: str) -> Unit | None:
    """Read a text; None where it is not understood. Temperatures are intervals: degC is K."""
    typed = text.strip().translate(_TYPED)
    if typed in _NUMBERS:
        return Unit()
    if not typed or len(typed) > 200:
        return None
    try:
        unit, rest = _product(re.sub(r"(?<=\w)\s+per\s+(?=\w)", "/", typed))
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return unit if not rest.strip() and 0 < unit.factor < math.inf else None


def _product(text: str) -> tuple[Unit, str]:
    """Read products and quotients up to a closing bracket or the end; and what is left."""
    unit, sign, waiting = Unit(), 1, True
    while text.strip() and not text.lstrip().startswith(")"):
        token = _TOKEN.match(text)
        if token is None:
            raise ValueError(text)
        text = text[token.end() :]
        if token["over"] or token["times"]:
            if waiting:
                raise ValueError(text)
            sign, waiting = -1 if token["over"] else 1, True
            continue
        if token["number"]:
            one = Unit(float(token["number"]))
        elif token["word"]:
            one = _unit(token["word"])
        else:
            one, text = _product(text)
            if not text.lstrip().startswith(")"):
                raise ValueError(text)
            text = text.lstrip()[1:]
        power = 1
        # `10 2` is no power, `10^2` is.
        explicit = not token["number"] or text.lstrip().startswith(("^", "**"))
        if explicit and (match := _POWER.match(text)):
            power, text = int(match[1]), text[match.end() :]
        if abs(power) > 99:
            raise ValueError(text)
        unit, sign, waiting = unit.times(one, sign * power), 1, False
    if waiting:
        raise ValueError(text)
    return unit, text


def _unit(word: str) -> Unit:
    """Look up a symbol or a name, with a prefix or an ending of the plural."""
    named = word.lower()  # of names an ending too, but `ms` is no plural of `m`
    named = named.removesuffix("s") if named not in _WORDS else named
    named = named.replace("degrees", "degree")
    for known, given, prefixes in ((_KNOWN, word, _SYMBOLS), (_WORDS, named, _PREFIXES)):
        for prefix, factor in {"": 1.0, **prefixes}.items():
            name = given.removeprefix(prefix)
            fits = name in known and (not prefix or known[name][0] in _METRIC)
            if fits and given.startswith(prefix):
                return Unit(factor).times(_defined(*known[name]))
    raise ValueError(word)


def _defined(symbol: str, definition: str) -> Unit:
    if definition in ("", "1"):
        return Unit(1.0, ((symbol, 1),) if not definition else ())
    found = parse(definition)
    assert found is not None, definition
    return found


def same_units(ours: object, theirs: object) -> bool:
    """Whether two texts are one unit; a unit that is not given contradicts none.

    Parameters
    ----------
    ours, theirs : str or None
        Texts of units. One of another scale (hPa beside Pa) is another unit.

    Examples
    --------
    >>> same_units("m s**-1", "m/s"), same_units("kg m-2 s-1", "mm/day"), same_units("mm", "m")
    (True, False, False)
    """
    texts = [" ".join(str(u).split()) if u is not None else "" for u in (ours, theirs)]
    if not all(texts) or texts[0] == texts[1]:
        return True
    scales = [temperature_unit(t) for t in texts]
    if any(scales):
        return scales[0] == scales[1]
    a, b = map(parse, texts)
    if a is None or b is None or a.powers != b.powers:
        return False
    return math.isclose(a.factor, b.factor, rel_tol=1e-6)


def temperature_unit(units: str, *, letters: bool = False) -> str | None:
    """Read 'K', 'degC' or 'degF'; a bare C (coulomb) or F (farad) only where `letters`."""
    word = units.lower().replace("℃", "degc").replace("℉", "degf")
    bare = word.translate({ord(c): None for c in " _°º."})
    for prefix in ("degrees", "degree", "deg"):
        bare = bare.removeprefix(prefix)
    if bare not in ("k", "kelvin", "kelvins", "c", "celsius", "f", "fahrenheit"):
        return None
    return None if word in ("c", "f") and not letters else _LETTERS[bare[0]]
