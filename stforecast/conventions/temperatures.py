"""Temperatures: kelvin, Celsius or Fahrenheit, and whether the values bear their units out."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

from ..errors import InputError

logger = logging.getLogger(__name__)

#: kelvin = scale * x + offset
SCALES = {"K": (1.0, 0.0), "degC": (1.0, 273.15), "degF": (5 / 9, 273.15 - 32 * 5 / 9)}

#: K: between which the median of a field lies, of temperatures whose names say what they are, ...
_PLAUSIBLE_OF = {
    "brightness": (2.0, 400.0),  # microwaves see a cold sea
    "potential": (160.0, 1e4),  # the stratosphere, brought down to the ground
    "equivalent": (160.0, 1e4),
}
#: ... and of all others, of air, sea and ground.
_PLAUSIBLE = (160.0, 330.0)

_DIFFERENCES = (
    *("anom", "difference", "deviation", "departure", "error", "increment", "tendency"),
    *("uncertainty", "spread", "temperature_range", "temperature range"),
)


def is_difference(about: str) -> bool:
    """Whether a variable says that it is a difference: 1 degC of it is 1 K, and not 274.15 K."""
    return any(word in about for word in _DIFFERENCES)


def plausible(about: str) -> tuple[float, float]:
    """Between which the median of a map lies, in K, of a temperature that says this of itself."""
    sea = "water" in about  # sea water that is brought to the surface is hardly warmer
    return next((r for w, r in _PLAUSIBLE_OF.items() if w in about and not sea), _PLAUSIBLE)


def agreed_unit(
    name: Hashable, units: str, unit: str | None, about: str, medians: Sequence[float]
) -> str | None:
    """Hold a temperature's unit against its values, and infer it where it is missing.

    Parameters
    ----------
    name, units, about : hashable, str, str
        The caller's name, its units as they are written, what the variable says that it is.
    unit : {"K", "degC", "degF"} or None
        What `units` are.
    medians : sequence of float
        Medians of some maps, as they are written; without missing ones.

    Raises
    ------
    InputError
        If no unit fits all maps, or not the one that is given.
    """
    if unit is not None and not medians:
        return unit
    low, high = plausible(about)
    fits = [[u for u, (a, b) in SCALES.items() if low <= a * m + b <= high] for m in medians]
    for middle, units_of in zip(medians, fits, strict=True):
        if unit is not None and unit not in units_of:
            raise InputError(
                f"'{name}' has units {units!r}, but its values (around {middle:g}) contradict them,"
                f" they would fit {' or '.join(map(repr, units_of)) or 'no unit of temperature'}: "
                f"correct ds['{name}'].attrs['units'] or the values; of anomalies and other "
                "differences say so in the long_name"
            )
    if unit is not None:
        return unit
    first = fits[0] if fits else []
    if not {"K", "degC"} & set(first):
        around = f"around {medians[0]:g}" if medians else "all missing"
        raise InputError(
            f"'{name}' has no units, and its values ({around}) do not tell them: set "
            f"ds['{name}'].attrs['units'] to 'K', 'degC' or 'degF'"
        )
    for middle, units_of in zip(medians, fits, strict=True):
        if first[0] not in units_of:
            raise InputError(
                f"'{name}' has no units, and its values change from {first[0]} (around "
                f"{medians[0]:g}) to others (around {middle:g}) with time: bring all times to one "
                f"unit, and set ds['{name}'].attrs['units']"
            )
    logger.warning(
        "%r has no units: taken as %s, its values are around %g", name, first[0], medians[0]
    )
    return first[0]
