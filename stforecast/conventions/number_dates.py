"""Dates that are written as numbers: ``20200131``, or months since a date."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import InputError

logger = logging.getLogger(__name__)

_STEPS = re.compile(r"\s*(month|year)s?\s+since\s+(.+)", re.IGNORECASE)
_CALENDARS = {"360": "360_day", "365": "365_day", "366": "366_day"}
_YEARS = (1800, 2200)  # within which a number is taken for a date
#: By their number of digits.
_FORMS = {6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


def dates_from_numbers(name: Hashable, variable: xr.Variable) -> np.ndarray:
    """Give the dates that a variable holds as numbers; what is none, as it is.

    Parameters
    ----------
    name : hashable
        For messages.
    variable : xarray.Variable
        ``months since 1960-01-01`` and ``years since ...`` count calendar months and years, a
        part of one in its days; without such units 20200131 is a date, 202001 a month, and
        20200131.25 six o'clock.

    Returns
    -------
    numpy.ndarray of shape (N,)
        ``datetime64[ns]``, or cftime where the calendar demands it.
    """
    values = np.atleast_1d(variable.to_numpy()).ravel()
    if values.dtype.kind not in "fiu" or not values.size:
        return values
    units = str(variable.attrs.get("units", ""))
    if match := _STEPS.fullmatch(units):
        calendar = str(variable.attrs.get("calendar", "standard")).lower()
        return _stepped(name, values, match, _CALENDARS.get(calendar, calendar))
    if " since " in units:
        return values
    if not np.isfinite(values).all():
        return values
    whole = np.floor(values).astype(np.int64)
    digits = {len(str(v)) for v in (whole.min(), whole.max())}
    form = _FORMS.get(digits.pop()) if len(digits) == 1 else None
    part = values - whole
    if form is None or (part.any() and form != "%Y%m%d"):
        return values
    text = pd.Series(whole).astype(str)
    dates = pd.to_datetime(text, format=form, errors="coerce")
    if not dates.dt.year.between(*_YEARS).all():
        return values
    logger.info("'%s' holds numbers such as %s: read as dates", name, text.iloc[0])
    return dates.to_numpy("datetime64[ns]") + (part * 86_400e9).astype("timedelta64[ns]")


def decode_times(ds: xr.Dataset) -> xr.Dataset:
    """Decode the times of a Dataset, those too that xarray itself does not.

    These are months and years since a date, and the calendars ``360``, ``365`` and ``366``.
    """
    changed: dict[Hashable, xr.Variable] = {}
    for name, variable in ds.variables.items():
        calendar = str(variable.attrs.get("calendar", "")).lower()
        if _STEPS.fullmatch(str(variable.attrs.get("units", ""))):
            attrs = {k: v for k, v in variable.attrs.items() if k not in ("units", "calendar")}
            dates = dates_from_numbers(name, variable).reshape(variable.shape)
            changed[name] = xr.Variable(variable.dims, dates, attrs)
        elif calendar in _CALENDARS:
            changed[name] = variable.copy(deep=False)
            changed[name].attrs["calendar"] = _CALENDARS[calendar]
    return xr.decode_cf(ds.assign(dict(changed)))


def _stepped(name: Hashable, values: np.ndarray, match: re.Match[str], calendar: str) -> np.ndarray:
    """Count calendar months or years from a date; a part of one in its days."""
    import cftime

    months = values.astype(np.float64) * (12 if match[1].lower() == "year" else 1)
    if not np.isfinite(months).all():
        return values
    try:
        start = cftime.num2date(0, f"days since {match[2]}", calendar=calendar)
        out = np.empty(len(months), object)
        for i, count in enumerate(months):
            month = start.month - 1 + int(np.floor(count))
            first, following = (
                start.replace(year=start.year + m // 12, month=m % 12 + 1)
                for m in (month, month + 1)
            )
            out[i] = first + (following - first) * float(count % 1)
    except ValueError as error:
        raise InputError(
            f"time coordinate '{name}' has units {match[0]!r}, calendar {calendar!r}, which do not "
            f"give dates ({error}): correct these attributes, or assign dates to it"
        ) from error
    logger.info("'%s' counts %ss: read as those of the calendar (%s)", name, match[1], calendar)
    return out
