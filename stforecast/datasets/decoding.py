"""Files whose packing xarray cannot read, as where scale_factor is a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from ..conventions.attributes import mend, unread
from ..errors import InputError


def open_decoded(source: str | Path, open_with: Callable[..., xr.Dataset]) -> xr.Dataset:
    """Open a file or store; a packing that is written as text is read as numbers.

    Parameters
    ----------
    source : str or path
        What messages call it.
    open_with : callable
        ``xarray.open_dataset`` of it, which takes further keywords.

    Raises
    ------
    InputError
        If a packing is no number, by file, variable and attribute. What else is wrong raises what
        xarray raises.
    """
    try:
        ds = open_with()
    except Exception:  # of whatever library
        raw = _undecoded(open_with)
        if raw is None or not any(unread(v.attrs) for v in _packed(raw)):
            raise
    else:
        if not any(unread(v.encoding) for v in _packed(ds)):
            return ds
        ds.close()
        raw = open_with(decode_cf=False)
    try:
        for name, variable in raw.variables.items():
            if variable.dtype.kind in "fiu":
                variable.attrs = mend(name, variable.attrs)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return xr.decode_cf(raw)


def _undecoded(open_with: Callable[..., xr.Dataset]) -> xr.Dataset | None:
    try:
        return open_with(decode_cf=False)
    except Exception:  # it is no question of attributes
        return None


def _packed(ds: xr.Dataset) -> list[xr.Variable]:
    """Variables that are stored as numbers; undecodable ones are texts to xarray."""
    stored = ((v, np.dtype(v.encoding.get("dtype") or v.dtype)) for v in ds.variables.values())
    return [v for v, dtype in stored if dtype.kind in "fiu"]
