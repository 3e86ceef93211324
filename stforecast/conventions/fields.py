"""How a caller writes the numbers of a variable: units, packing, dtype, what is missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .attributes import LIMITS, PACKING, number, numbers, plain, text, unread
from .temperatures import SCALES, agreed_unit, is_difference, plausible
from .units import temperature_unit

logger = logging.getLogger(__name__)

_UNLIMITED = (-np.inf, np.inf)
#: K: by how much single values may lie beyond what is plausible of a map.
_BEYOND = 65.0
_LOOK = 1000  # numbers of a block are looked at

# What netCDF fills with that nobody has written, by kind and bytes; one-byte types are not filled
# so. Source: netCDF4.default_fillvals, NC_FILL_* in netcdf.h.
_UNWRITTEN = dict.fromkeys(("f4", "f8"), 9.969209968386869e36) | {
    "i2": -32767, "i4": -2147483647, "i8": -9223372036854775806,
    "u2": 65535, "u4": 4294967295, "u8": 18446744073709551614,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Field:
    """One variable as the caller writes it.

    Its numbers are integers or floats of `dtype`, with `fill` for missing values; times
    ``packing[0]`` plus ``packing[1]`` they are values in `unit`, a temperature's or None. Numbers
    outside `limits` and those in `unwritten` are missing too. Those of a temperature lie within
    `plausible`, in K, in all of the data and not only where it was first looked at.
    """

    name: Hashable
    dims: tuple[Hashable, ...]
    dtype: np.dtype
    attrs: dict[str, Any]
    encoding: dict[Any, Any]
    unit: str | None = None
    packing: tuple[float, float] | None = None
    fill: tuple[float, ...] = ()
    unwritten: tuple[Any, ...] = ()
    limits: tuple[float, float] = _UNLIMITED
    plausible: tuple[float, float] = _UNLIMITED

    @classmethod
    def of(
        cls,
        name: Hashable,
        variable: xr.Variable,
        *,
        temperature: bool,
        samples: Callable[[], Iterable[np.ndarray]] | None = None,
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
        samples : callable, optional
            Gives some maps of its numbers, to hold the units of a temperature and the valid range
            against them.

        Raises
        ------
        InputError
            If an attribute is not what it must be, or contradicts the numbers.
        """
        attrs, dtype = variable.attrs, variable.dtype
        if "_Unsigned" in attrs and dtype.kind in "iu":
            raise InputError(
                f"'{name}' has the attribute _Unsigned, so that its {dtype} are not the numbers "
                "meant: decode them with xr.decode_cf(ds)"
            )
        field = cls(
            name,
            variable.dims,
            dtype,
            dict(attrs),
            dict(variable.encoding),
            packing=_packing(name, attrs),  # xarray has not decoded it
            fill=tuple(
                float(np.asarray(v).astype(dtype))
                for key in ("_FillValue", "missing_value")
                for v in numbers(attrs, key, name)
                if _holds(dtype, v)
            ),
            unwritten=_unwritten(name, variable),
        )
        limits = _limits(field, _packing(name, variable.encoding))
        standard, units = text(attrs, "standard_name"), text(attrs, "units", name)
        said = (text(attrs, key) for key in ("long_name", "units_metadata", "cell_methods"))
        about = " ".join((str(name), standard, *said)).lower()
        checked = temperature or standard.endswith("temperature")
        unit = None
        if is_difference(about):
            checked = False
        else:
            unit = temperature_unit(units, letters=checked)
            if unit is None and units and temperature:
                raise InputError(
                    f"'{name}' has units {units[:60]!r}, expected a temperature (K, degC or degF): "
                    f"correct ds['{name}'].attrs['units'], or rename the variable if it is none"
                )
        checked = checked and bool(unit or temperature)
        if samples is not None and (checked or limits != _UNLIMITED):
            maps = list(samples())
            whole = [v[np.isfinite(v)] for v in map(field.decode, maps)]
            field = replace(field, limits=limits)
            within = [v[np.isfinite(v)] for v in map(field.decode, maps)]
            if any(v.size for v in whole) and not any(v.size for v in within):
                raise InputError(
                    f"'{name}' has no value within its {_limits_of(attrs)}: drop these attributes "
                    "if they are left from other units or another packing"
                )
            if checked:
                medians = [float(np.median(v)) for v in within if v.size]
                unit = agreed_unit(name, units, unit, about, medians)
                low, high = plausible(about)
                field = replace(field, plausible=(low - _BEYOND, high + _BEYOND))
        if limits != _UNLIMITED:
            logger.info("%r: numbers outside its %s are missing", name, _limits_of(attrs))
        return replace(field, unit=unit, limits=limits)

    @property
    def as_is(self) -> bool:
        """Whether values are written as they are but for their dtype."""
        return self.unit in (None, "K") and self.packing is None and not self.fill

    def is_canonical(self, numbers: np.ndarray) -> bool:
        """Whether the caller's numbers are canonical, without a missing one to decode."""
        same = self.as_is and self.dtype == np.float32 and self.limits == _UNLIMITED
        return same and not (
            # One look at the largest, without a copy; NaN calls for a closer one.
            not numbers.max(initial=-np.inf) < min(self.unwritten)
            and any((numbers == v).any() for v in self.unwritten)
        )

    @property
    def unpacked(self) -> Field:
        """The same units, written as plain float32 without a valid range."""
        attrs = {k: v for k, v in self.attrs.items() if k not in (*PACKING, *LIMITS)}
        return Field(self.name, self.dims, np.dtype(np.float32), plain(attrs), {}, self.unit)

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        """Caller's numbers to canonical float32, by way of float64; no copy if they are that."""
        out = numbers
        if not self.is_canonical(numbers):
            if self.as_is:
                out = numbers.astype(np.float32)
            else:
                scale, offset = SCALES[self.unit or "K"]
                factor, shift = self.packing or (1.0, 0.0)
                values = numbers.astype(np.float64) * factor + shift
                out = (values * scale + offset).astype(np.float32)
            for missing in self._missing(numbers):
                out[missing] = np.nan
        if self.plausible != _UNLIMITED:
            self._refuse_other_units(numbers, out)
        return out

    def _refuse_other_units(self, numbers: np.ndarray, values: np.ndarray) -> None:
        """Refuse a block of which a tenth must be in another unit.

        Files of several units that somebody else has joined change them where nobody has looked.
        """
        step = max(1, values.size // _LOOK)
        there, some = (v.flat[::step] for v in (numbers, values))
        some = np.sort(some[np.isfinite(some) & (there != 0)])  # 0: what is missing, to some
        low, high = self.plausible
        for value in some[[len(some) // 10, -1 - len(some) // 10]] if len(some) else ():
            if not low <= value <= high:
                raise InputError(
                    f"'{self.name}' is around {value:.4g} K in a part of the data, by the units "
                    "that suit their beginning: the units change with time. Bring all times to one "
                    f"unit, and set ds['{self.name}'].attrs['units']"
                )

    def _missing(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        if self.fill:
            yield np.isin(numbers, self.fill)
        for value in self.unwritten:
            yield numbers == value
        low, high = self.limits
        if low > -np.inf:
            yield numbers < low
        if high < np.inf:
            yield numbers > high

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Canonical values to the caller's numbers."""
        scale, offset = SCALES[self.unit or "K"]
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
            out, held = np.rint(out), np.iinfo(self.dtype)
            if out.size and not held.min <= out.min() <= out.max() <= held.max:
                # A cast would go round from one end to the other.
                raise InputError(
                    f"'{self.name}' holds numbers from {out.min():g} to {out.max():g}, as they are "
                    f"packed, which its dtype {self.dtype} cannot hold: give the input unpacked, "
                    "in float32"
                )
        return out.astype(self.dtype)


def _holds(dtype: np.dtype, value: float) -> bool:
    """Whether a number can stand among numbers of a type: 1e20 cannot among 16-bit integers."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


def _packing(name: Hashable, attrs: Mapping[Any, Any]) -> tuple[float, float] | None:
    """Scale and offset that attributes, or an encoding, tell of."""
    if not {"scale_factor", "add_offset"} & attrs.keys():
        return None
    scale = number(attrs, "scale_factor", name, 1.0)
    if scale == 0:
        raise InputError(f"'{name}' has scale_factor 0, expected another number: correct it")
    return scale, number(attrs, "add_offset", name, 0.0)


def _unwritten(name: Hashable, variable: xr.Variable) -> tuple[Any, ...]:
    """Numbers that stand in `variable` where netCDF has filled in what nobody has written."""
    encoding, dtype, found = variable.encoding, variable.dtype, []
    kind = f"{dtype.kind}{dtype.itemsize}"
    declared = "_FillValue" in variable.attrs or "_FillValue" in encoding
    if kind in _UNWRITTEN and (dtype.kind == "f" or not declared):
        found.append(np.array(_UNWRITTEN[kind], dtype)[()])
    if dtype.kind != "f":
        return tuple(found)
    stored = np.dtype(encoding.get("dtype") or dtype)
    kind = f"{stored.kind}{stored.itemsize}"
    packed = (
        [_UNWRITTEN[kind]] if stored.kind in "iu" and kind in _UNWRITTEN and not declared else []
    )
    packed += [v for key in unread(encoding) for v in numbers(encoding, key, name)]
    for value in np.array(packed).astype(dtype):
        # As xarray has decoded it, to the last bit.
        value *= np.asarray(encoding.get("scale_factor", 1)).ravel()[0]
        value += np.asarray(encoding.get("add_offset", 0)).ravel()[0]
        found.append(value)
    return tuple(found)


def _limits(field: Field, before: tuple[float, float] | None) -> tuple[float, float]:
    """Smallest and largest number, as numbers stand in the variable, that is not missing.

    `before` is the packing of what xarray has decoded.

    Source: CF 1.11, 2.5.1, and the NetCDF User's Guide, "Attribute Conventions": limits are in the
    units of the packed numbers, but where these are integers and the limits are not.
    """
    attrs, name = field.attrs, field.name
    both = numbers(attrs, "valid_range", name, most=2)
    if len(both) == 1:
        raise InputError(f"'{name}' has one number as valid_range, expected two: correct it")
    ends = [numbers(attrs, key, name, most=1) for key in LIMITS[1:]]
    given = [[*both[i : i + 1], *end] for i, end in enumerate(ends)]
    if not any(given):
        return _UNLIMITED
    stored = np.dtype(field.encoding.get("dtype") or field.dtype) if before else field.dtype
    scale, offset = field.packing or before or (1.0, 0.0)
    low, high = -np.inf, np.inf
    for end, values in enumerate(given):
        for value in values:
            packed = stored.kind == "f" or isinstance(value, int)
            at = float(value)
            if field.packing and not packed:
                at = (at - offset) / scale
            elif before and packed:
                at = at * scale + offset
            elif field.dtype.kind == "f":
                at = float(np.asarray(at).astype(field.dtype))  # 0.1 is not float32's 0.1
            lower = end == 0
            if scale < 0 and (packed if before else not packed and bool(field.packing)):
                lower = not lower
            low, high = (max(low, at), high) if lower else (low, min(high, at))
    if low > high:
        raise InputError(f"'{name}' has an empty range, {_limits_of(attrs)}: correct it")
    # Half a step of the packing, for rounding.
    slack = abs(scale) / 2 if before else 0.5 if field.packing else 0.0
    return low - slack, high + slack


def _limits_of(attrs: Mapping[Any, Any]) -> str:
    return ", ".join(f"{key} {text(attrs, key)[:60]}" for key in LIMITS if key in attrs)
