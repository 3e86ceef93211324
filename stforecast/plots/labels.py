"""What figures and the report write: names, units, times, scores."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD, TIME, VALID, scalar
from ..conventions.levels import split_level
from ..conventions.variables import VARIABLES, meant

MINUS = "\N{MINUS SIGN}"
METRICS = {"rmse": "RMSE", "mae": "MAE", "mse": "MSE", "bias": "bias", "acc": "ACC"}
METRICS |= {"mse_sum": "MSE, summed over a frame", "mae_sum": "MAE, summed over a frame"}


def plain(text: Any, most: int = 100) -> str:
    """Make a text that can be shown: on one line, cut, without what no font or file can hold."""
    line = " ".join(str(text)[: most + 1].split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def sentence(text: str) -> str:
    """Begin with a capital letter, and leave the rest as it is."""
    return text[:1].upper() + text[1:]


def variable_label(field: xr.DataArray) -> str:
    """Long name of a variable, or its name without underscores, and the pressure level."""
    name = "" if field.name is None else str(field.name)
    if name and name not in field.coords:
        name = meant(field.to_dataset(name=name))[0].canonical
    base, level = split_level(name) or (name, None)
    level = field.attrs.get("level", level if base in VARIABLES else None)
    name = (name if level is None else base).replace("_", " ")
    text = plain(field.attrs.get("long_name") or name)
    if not isinstance(level, Real) or f"{level:g}" in text:
        return text
    return f"{text} at {level:g} {plain(field.attrs.get('level_units', 'hPa'), 20)}"


def with_unit(text: Any, unit: Any) -> str:
    """Write ``text [unit]``; dimensionless and unknown units are left out."""
    return plain(text) + (f" [{unit}]" if (unit := unit_label(unit)) else "")


def unit_label(unit: Any) -> str:
    """A unit, or nothing where there is none or it is not known."""
    return "" if unit is None or str(unit) in ("", "1", "unknown") else plain(unit, 40)


def number(value: float, digits: int = 3, sign: str = "") -> str:
    """Write a number to some significant digits, with a typographic minus sign."""
    return f"{value:{sign}.{digits}g}".replace("-", MINUS)


def degrees(value: float, directions: str) -> str:
    """Write a latitude (`directions` "NS") or a longitude ("EW")."""
    value = (value + 180) % 360 - 180 if directions == "EW" else value
    direction = "" if value == 0 or abs(value) == 180 else directions[int(value < 0)]
    return f"{abs(value):.6g}°{direction}"


def lead_label(lead: Any) -> str:
    """Write a lead time as ``+6 h``, ``+30 min``, ``+5 d``; of clips ``+40 ms``."""
    minutes = np.timedelta64(lead) / np.timedelta64(1, "m")
    if minutes % 1:
        seconds = np.timedelta64(lead) / np.timedelta64(1, "s")
        text = f"{1000 * seconds:+g} ms" if abs(seconds) < 1 else f"{seconds:+g} s"
        return text.replace("-", MINUS)
    if minutes % 60:
        return f"{minutes:+g} min"
    hours = minutes / 60
    return f"{hours / 24:+g} d" if hours > 96 and hours % 24 == 0 else f"{hours:+g} h"


def lead_axis(leads: np.ndarray) -> tuple[np.ndarray, str]:
    """Lead times as numbers for an axis, and their unit: days, hours, minutes or seconds."""
    hours = leads / np.timedelta64(1, "h")
    if hours[-1] > 96:
        return hours / 24, "days"
    if hours[-1] < 2 / 60:
        return hours * 3600, "s"
    return (hours * 60, "min") if hours[-1] < 2 else (hours, "h")


def lead_range(leads: np.ndarray) -> str:
    """Write ``lead +1 h to +6 h``, or the one lead time there is."""
    return f"lead {' to '.join(dict.fromkeys(lead_label(leads[i]) for i in (0, -1)))}"


def time_label(time: Any, utc: bool = True) -> str:
    """Write a time, numpy's or cftime's, to the minute."""
    time = np.asarray(time)[()]
    time = pd.Timestamp(time) if isinstance(time, np.datetime64) else time
    return f"{time.strftime('%Y-%m-%d %H:%M')}{' UTC' * utc}"


def field_title(field: xr.DataArray, utc: bool) -> str:
    """Title of a field: its name, and on a second line the times among its scalar coordinates."""
    ds = field.to_dataset(name="field")
    start, lead = scalar(ds, TIME), scalar(ds, LEAD)
    text = "" if start is None else time_label(ds[start].values, utc)
    if text and lead is not None:
        text = f"initialised {text}, lead {lead_label(ds[lead].values)}"
    if start != VALID and VALID in ds.coords and ds[VALID].ndim == 0:
        text += f"{', ' * bool(text)}valid {time_label(ds[VALID].values, utc)}"
    return f"{sentence(variable_label(field))}\n{text}".strip()


def weights_label(scores: xr.Dataset) -> str:
    """Say how scores are weighted; of several weights the first is shown in figures."""
    weights = str(scores.attrs.get("weights", "")).split(", ")[0]
    return {"area": "area-weighted", "uniform": "unweighted"}.get(weights, "")


def sample_label(scores: xr.Dataset) -> str:
    """Say how many initialisations the scores rest on, and when."""
    n = int(scores.attrs.get("initialisations", 0))
    if not n:
        return ""
    a, b = (str(scores.attrs[f"{end}_initialisation"])[:10] for end in ("first", "last"))
    return f"{n} initialisation{'s' * (n != 1)}, {a if a == b else f'{a} to {b}'}"


def score_title(card: xr.Dataset, name: str) -> str:
    """Title of scores: the variable, and on a second line weights and sample."""
    small = " · ".join(filter(None, [weights_label(card), sample_label(card)]))
    return f"{sentence(variable_label(card[name]))}\n{small}"


def score_label(card: xr.Dataset, name: str, metric: str) -> str:
    """Name of a score, with its unit."""
    return with_unit(sentence(METRICS.get(metric, metric)), card[name].attrs.get(f"units_{metric}"))
