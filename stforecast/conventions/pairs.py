"""A forecast and what it is held against, through the gate together."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import xarray as xr

from ..errors import InputError
from .axes import LEAD
from .forms import as_dataset
from .gate import Labels, canonicalize, canonicalize_along
from .lazy import one_along
from .variables import meant

logger = logging.getLogger(__name__)


def open_forecast(
    forecast: Any, truth: Any = None, variables: Sequence[str] | None = None
) -> tuple[xr.Dataset, Labels]:
    """Pass a forecast through the gate.

    Parameters
    ----------
    forecast : xarray.Dataset
        In any form; its variables on several pressure levels become one variable a level.
    truth : xarray.Dataset, optional
        What it was given with: only looked at where the forecast is none.
    variables : sequence of str, optional
        As of :func:`stforecast.conventions.canonicalize`.

    Returns
    -------
    canonical, labels
        As of :func:`stforecast.conventions.canonicalize`.

    Raises
    ------
    InputError
        If it is no forecast; and where `truth` is one, that the two look exchanged.
    """
    with _exchanged_is_told(forecast, truth):
        return canonicalize(forecast, variables, form="forecast")


def open_members(
    forecast: xr.Dataset, dim: str, truth: Any = None
) -> list[tuple[xr.Dataset, Labels]]:
    """Pass the members of a forecast through the gate.

    Parameters
    ----------
    forecast : xarray.Dataset
        As of :func:`open_forecast`, with one more dimension.
    dim : str
        That of its members.
    truth : xarray.Dataset, optional
        As of :func:`open_forecast`.

    Returns
    -------
    list of (canonical, labels)
        As of :func:`open_forecast`, for each member.

    Raises
    ------
    InputError
        As of :func:`open_forecast`.
    """
    with _exchanged_is_told(one_along(forecast, dim, 0), truth):
        return canonicalize_along(forecast, dim, "forecast")


@contextmanager
def _exchanged_is_told(forecast: Any, truth: Any) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        if truth is not None and not _is_forecast(forecast) and _is_forecast(truth):
            raise InputError(
                "forecast and truth look exchanged: the first has no lead times and the second "
                "has; the forecast comes first, then the truth"
            ) from error
        raise


def _is_forecast(ds: Any) -> bool:
    try:
        return LEAD in canonicalize(ds, form="forecast")[0].dims
    except InputError:
        return False


def open_truth(
    truth: Any, forecast: xr.Dataset, labels: Labels, *others: Any
) -> tuple[xr.Dataset, Labels]:
    """Pass truth through the gate: a history of the variables that the forecast has.

    Levels of the forecast that truth, or another Dataset that is needed, does not have are left
    out, and a warning is logged.

    Parameters
    ----------
    truth : xarray.Dataset
        Observations or analyses, by time.
    forecast, labels
        From :func:`open_forecast`.
    *others : xarray.Dataset
        What must have the variables too, such as a climatology.

    Returns
    -------
    canonical, labels
        As of :func:`stforecast.conventions.canonicalize`; its variables are those that all have.

    Raises
    ------
    InputError
        If truth lacks a variable, or is no history.
    """
    truth, *needed = [as_dataset(ds) for ds in (truth, *others)]
    names = [str(v) for v in forecast.data_vars]
    lacking = [
        v for v in names if v in labels.unasked and not all(meant(o, v) for o in (truth, *needed))
    ]
    wanted = [v for v in names if v not in lacking] or names
    if len(wanted) < len(names):
        logger.warning("left out of the comparison, for they have no truth: %s", ", ".join(lacking))
    return canonicalize(truth, wanted, form="history")
