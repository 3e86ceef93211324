"""What is peculiar to files from the Climate Data Store, made plain as they are opened."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .lazy import FirstValid
from .periods import when

logger = logging.getLogger(__name__)

EXPVER = "expver"
_FINAL, _PRELIMINARY = 1, 5  # ERA5, and ERA5T of the last three months


def merge_streams(ds: xr.Dataset, source: object) -> xr.Dataset:
    """Bring the two streams of ERA5 together, lazily.

    The final data (``expver`` 1) and the preliminary data of the last months (5, ERA5T) come in one
    file. In the older layout they lie on a dimension ``expver`` of size 2 with NaN where the other
    stream applies: the final data are taken where there are any, else the preliminary ones. In the
    newer layout ``expver`` is a text for each time, and nothing is to be done.

    Raises
    ------
    InputError
        If the dimension ``expver`` does not hold these two streams.
    """
    if EXPVER in ds.coords and ds[EXPVER].ndim == 1 and EXPVER not in ds.dims:
        _report_preliminary(ds, source)
    if EXPVER not in ds.dims:
        return ds
    streams = [_number(v) for v in ds[EXPVER].values] if EXPVER in ds.coords else []
    if ds.sizes[EXPVER] == 1:
        return ds.isel({EXPVER: 0}, drop=True)
    if sorted(streams) != [_FINAL, _PRELIMINARY]:
        raise InputError(
            f"{source}: dimension 'expver' of size {ds.sizes[EXPVER]} holds the streams "
            f"{streams or 'without their numbers'}, expected 1 (ERA5) and 5 (ERA5T): select one "
            "with xarray, and write it to a file"
        )
    order = [streams.index(_FINAL), streams.index(_PRELIMINARY)]
    merged: dict[Hashable, xr.Variable] = {}
    for name in ds.data_vars:
        variable = ds.variables[name]
        if EXPVER in variable.dims:
            final, late = (variable.isel({EXPVER: i}) for i in order)
            both = FirstValid(final, late)
            merged[name] = both.variable(final.dims, variable.attrs, variable.encoding)
    logger.info("%s: the streams ERA5 and ERA5T (expver 1 and 5) are taken as one", source)
    return ds.assign(merged).drop_dims(EXPVER)


def _number(stream: Any) -> int:
    try:
        return int(stream)
    except ValueError:
        return -1


def _report_preliminary(ds: xr.Dataset, source: object) -> None:
    along = ds[EXPVER].dims[0]
    late = np.array([_number(v) == _PRELIMINARY for v in ds[EXPVER].values])
    if late.any() and along in ds.coords:
        times = ds[along].values[late]
        first, last = when(times.min()), when(times.max())
        logger.info("%s: %d times are preliminary, %s to %s", source, late.sum(), first, last)
