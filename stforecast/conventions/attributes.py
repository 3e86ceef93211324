"""Attributes as plain text and numbers, whatever form a file format or a library gave them.

A text may be bytes or the only entry of a list or an array (HDF5, MATLAB, JSON); a number may be a
text ("0.1": GDAL, OPeNDAP) or the only entry of a list. What has no one meaning is refused by the
name of the attribute.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from ..errors import InputError

#: How a variable's numbers are written: meaningless once they are decoded.
PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")
#: Between which of its numbers a variable has values (CF 2.5.1).
LIMITS = ("valid_range", "valid_min", "valid_max")


def _entries(value: Any) -> list[Any]:
    """Take what an attribute holds, one by one; bytes are read as text."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    entries = []
    for one in value if isinstance(value, (list, tuple)) else [value]:
        one = one.item() if isinstance(one, np.generic) else one
        if isinstance(one, (list, tuple, np.ndarray)):
            entries += _entries(one)
        elif one is not None:
            entries.append(one.decode("utf-8", "replace") if isinstance(one, bytes) else one)
    return entries


def text(attrs: Mapping[Any, Any], key: str, name: Hashable = None) -> str:
    """An attribute as text; "" where it is absent.

    Raises
    ------
    InputError
        If it holds several entries and the `name` of its variable is given; else they are joined.
    """
    entries = _entries(attrs.get(key))
    if len(entries) > 1 and name is not None:
        raise InputError(
            f"'{name}' has {len(entries)} {key}, {_shown(attrs[key])}, expected one text: correct "
            f"ds['{name}'].attrs['{key}']"
        )
    return " ".join(str(one).strip(" \t\r\n\0") for one in entries)


def numbers(attrs: Mapping[Any, Any], key: str, name: Hashable, most: int = 0) -> list[int | float]:
    """An attribute as numbers, whole ones as `int`; none where it is absent or NaN.

    Raises
    ------
    InputError
        If one of them is no number, or there are more than `most`, if given.
    """
    found: list[int | float] = []
    for one in _entries(attrs.get(key)):
        for part in one.replace(",", " ").split() if isinstance(one, str) else [one]:
            try:
                found.append(_number(part))
            except (TypeError, ValueError, OverflowError):
                raise _refused(attrs, key, name, "a number") from None
    if most and len(found) > most:
        raise _refused(attrs, key, name, "one number" if most == 1 else f"{most} numbers")
    return [v for v in found if not math.isnan(v)]


def _number(part: Any) -> int | float:
    if isinstance(part, str):
        part = int(part) if part.lstrip("+-").isdigit() else float(part)
    value = float(part)  # refuses what a float cannot hold
    return part if isinstance(part, int) else value


def number(attrs: Mapping[Any, Any], key: str, name: Hashable, default: float) -> float:
    """An attribute as one finite number, `default` where it is absent; else it is refused."""
    found = numbers(attrs, key, name, most=1)
    if not _entries(attrs.get(key)):
        return default
    if not found or not math.isfinite(found[0]):
        raise _refused(attrs, key, name, "a number")
    return float(found[0])


def unread(attrs: Mapping[Any, Any]) -> list[str]:
    """Which attributes of packing xarray cannot read: texts, and lists where it wants a number."""
    found = {key: _entries(attrs[key]) for key in PACKING if key in attrs}
    return [
        key
        for key, entries in found.items()
        if any(isinstance(e, str) for e in entries) or (key in PACKING[:2] and len(entries) != 1)
    ]


def mend(name: Hashable, attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes with numbers where :func:`unread` finds none; refused as :func:`numbers`."""
    out = dict(attrs)
    for key in unread(attrs):
        del out[key]
        if key in PACKING[:2]:
            out[key] = number(attrs, key, name, float(key == PACKING[0]))
        elif found := numbers(attrs, key, name):
            out[key] = found[0] if len(found) == 1 else np.array(found)
    return out


def plain(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes with texts as texts: neither bytes nor the only entry of a list or an array.

    Those that say nothing (None, an empty array) are left out: no file holds them.
    """
    out = dict(attrs)
    for key, value in attrs.items():
        entries = _entries(value)
        if not entries:
            del out[key]
        elif len(entries) == 1 and isinstance(entries[0], str):
            out[key] = entries[0].strip("\0")
    return out


def _refused(attrs: Mapping[Any, Any], key: str, name: Hashable, wanted: str) -> InputError:
    return InputError(
        f"'{name}' has {key} {_shown(attrs[key])}, expected {wanted}: correct "
        f"ds['{name}'].attrs['{key}']"
    )


def _shown(value: Any) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
