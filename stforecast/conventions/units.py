"""How a caller writes the numbers of a variable (units, packing, dtype), and lazy views of them."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError

logger = logging.getLogger(__name__)

# kelvin = scale * x + offset
_SCALES = {"K": (1.0, 0.0), "degC": (1.0, 273.15), "degF": (5 / 9, 273.15 - 32 * 5 / 9)}

_LETTERS = {"k": "K", "c": "degC", "f": "degF"}

_PLAUSIBLE = (160.0, 330.0)  # K: the median of any field of air, sea or ground temperature

_PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")

_DELTAS = ("anom", "difference", "deviation", "error", "tendency", "uncertainty")


@dataclass(frozen=True, eq=False)
class Field:
    """One variable as the caller writes it.

    Its numbers are integers or floats of `dtype`, with `fill` for missing values; times
    ``packing[0]`` plus ``packing[1]`` they are values in `unit`, a temperature's or None.
    """

    name: Hashable
    dims: tuple[Hashable, ...]
    dtype: np.dtype
    attrs: dict[str, Any]
    encoding: dict[Any, Any]
    unit: str | None = None
    packing: tuple[float, float] | None = None
    fill: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, name: Hashable, variable: xr.Variable, *, temperature: bool, sample: Any = None
    ) -> Field:
        """Read the units and the packing of a variable.

        Parameters
        ----------
        name : hashable
            The caller's name.
        variable : xarray.Variable
            Its data are not read.
        temperature : bool
            Whether its name says that it is a temperature, which must have units of one.
        sample : callable, optional
            Gives some of its numbers, to hold the units of a temperature against them.
        """
        attrs = variable.attrs
        packing = None
        if "scale_factor" in attrs or "add_offset" in attrs:  # xarray has not decoded it
            packing = (float(attrs.get("scale_factor", 1.0)), float(attrs.get("add_offset", 0.0)))
        fills = [v for key in _PACKING[2:] if key in attrs for v in np.ravel(attrs[key])]
        fill = tuple(float(v.astype(variable.dtype)) for v in fills if not np.isnan(v))
        field = cls(name, variable.dims, variable.dtype, dict(attrs), dict(variable.encoding))
        field = replace(field, packing=packing, fill=fill)
        standard = str(attrs.get("standard_name", ""))
        about = f"{name} {standard} {attrs.get('long_name', '')}".lower()
        if not temperature and any(word in about for word in _DELTAS):
            return field  # 1 degC of difference is not 274.15 K
        checked = temperature or standard.endswith("temperature")
        units = str(attrs.get("units", "")).strip()
        unit = _temperature_unit(units, letters=checked)
        if unit is None and units and temperature:
            raise InputError(
                f"'{name}' has units {units!r}, expected a temperature (K, degC or degF): correct "
                f"ds['{name}'].attrs['units'], or rename the variable if it is none"
            )
        if checked and sample is not None and (unit or temperature):
            unit = _agreed_unit(name, units, unit, field.decode(sample()))
        return replace(field, unit=unit)

    @property
    def as_is(self) -> bool:
        """Whether the numbers are canonical but for their dtype."""
        return self.unit in (None, "K") and self.packing is None and not self.fill

    @property
    def unpacked(self) -> Field:
        """The same units, written as plain float32."""
        attrs = {k: v for k, v in self.attrs.items() if k not in _PACKING}
        return Field(self.name, self.dims, np.dtype(np.float32), attrs, {}, self.unit)

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        """Caller's numbers to canonical float32, by way of float64."""
        if self.as_is:
            return numbers.astype(np.float32)
        out = numbers.astype(np.float64)
        if self.fill:
            out[np.isin(numbers, self.fill)] = np.nan
        scale, offset = _SCALES[self.unit or "K"]
        factor, shift = self.packing or (1.0, 0.0)
        return ((out * factor + shift) * scale + offset).astype(np.float32)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Canonical values to the caller's numbers."""
        scale, offset = _SCALES[self.unit or "K"]
        factor, shift = self.packing or (1.0, 0.0)
        out = values
        if not self.as_is:
            out = ((values.astype(np.float64) - offset) / scale - shift) / factor
        if self.fill:
            out = np.where(np.isnan(out), self.fill[0], out)
        if self.dtype.kind in "iu":
            if np.isnan(out).any():
                raise InputError(
                    f"'{self.name}' holds {np.isnan(out).sum()} missing values (NaN), which its "
                    f"integer dtype {self.dtype} without a _FillValue cannot hold"
                )
            out = np.rint(out)
        return out.astype(self.dtype)


def _temperature_unit(units: str, *, letters: bool) -> str | None:
    """Read 'K', 'degC' or 'degF'; a bare C (coulomb) or F (farad) only where `letters`."""
    word = units.lower().replace("℃", "degc").replace("℉", "degf")
    bare = word.translate({ord(c): None for c in " _°º."})
    for prefix in ("degrees", "degree", "deg"):
        bare = bare.removeprefix(prefix)
    if bare not in ("k", "kelvin", "kelvins", "c", "celsius", "f", "fahrenheit"):
        return None
    return None if word in ("c", "f") and not letters else _LETTERS[bare[0]]


def _agreed_unit(name: Hashable, units: str, unit: str | None, values: np.ndarray) -> str | None:
    """Hold a temperature's unit against its values; infer it where it is missing."""
    finite = values[np.isfinite(values)]
    if unit is not None and not finite.size:
        return unit
    middle = float(np.median(finite)) if finite.size else float("nan")
    fits = [u for u, (a, b) in _SCALES.items() if _PLAUSIBLE[0] <= a * middle + b <= _PLAUSIBLE[1]]
    if unit in fits:
        return unit
    if unit is not None:
        raise InputError(
            f"'{name}' has units {units!r}, but its values (around {middle:g}) contradict them, "
            f"they would fit {' or '.join(map(repr, fits)) or 'no unit of temperature'}: correct "
            f"ds['{name}'].attrs['units'] or the values"
        )
    if not {"K", "degC"} & set(fits):
        raise InputError(
            f"'{name}' has no units, and its values (around {middle:g}) do not tell them: set "
            f"ds['{name}'].attrs['units'] to 'K', 'degC' or 'degF'"
        )
    logger.warning("%r has no units: taken as %s, its values are around %g", name, fits[0], middle)
    return fits[0]
