"""The two streams of ERA5 in files: final data, and preliminary ones (ERA5T)."""

from __future__ import annotations

import logging
from collections.abc import Hashable

import numpy as np
import xarray as xr

from ..conventions.forms import EXPVER, PRELIMINARY, merge_streams, stream_number
from .periods import when

logger = logging.getLogger(__name__)


def streams_of(ds: xr.Dataset, along: Hashable, steps: int) -> np.ndarray:
    """Say of which stream each of the times along a dimension is; 0 where the file does not."""
    if EXPVER not in ds.variables or ds[EXPVER].dims not in ((), (along,)):
        return np.zeros(steps, int)
    numbers = [stream_number(value) for value in np.atleast_1d(ds[EXPVER].values)]
    return np.broadcast_to(np.array(numbers), (steps,))


def one_stream(ds: xr.Dataset, source: object) -> xr.Dataset:
    """Bring the two streams of ERA5 together, and tell which times are preliminary.

    In the newer layout of the Climate Data Store ``expver`` is a text for each time, and nothing
    else is to be done.
    """
    if EXPVER in ds.coords and ds[EXPVER].ndim == 1 and EXPVER not in ds.dims:
        _report_preliminary(ds, source)
    return merge_streams(ds, source)


def _report_preliminary(ds: xr.Dataset, source: object) -> None:
    along = ds[EXPVER].dims[0]
    late = np.array([stream_number(v) == PRELIMINARY for v in ds[EXPVER].values])
    if late.any() and along in ds.coords:
        times = ds[along].values[late]
        first, last = when(times.min()), when(times.max())
        logger.info("%s: %d times are preliminary, %s to %s", source, late.sum(), first, last)
