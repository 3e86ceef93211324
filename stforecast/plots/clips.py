"""Frames side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions import pairs
from ..conventions.axes import LEAD
from ..conventions.gate import canonicalize
from ..conventions.times import valid_times
from ..errors import InputError
from .fields import choose_initialisation, lead_positions, mean_member
from .labels import lead_label, plain, time_label
from .layout import SMALL, TEXT, new_figure, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLOURS = {"red", "green", "blue"}  # variables of a clip in colour
_MOST = 10  # frames across


def clip_strip(
    forecasts: Any,
    truth: Any,
    *,
    init_time: Any = None,
    leads: Any = None,
    data_range: float = 1.0,
    title: str | None = None,
) -> Figure:
    """Draw frames side by side: the input, the truth, each forecast and its absolute error.

    As Figures 8 and 10 of the paper do.

    Parameters
    ----------
    forecasts : mapping of str to xarray.Dataset, or xarray.Dataset
        Forecasts of the same variables, by name; or one of them.
    truth : xarray.Dataset
        A clip data set, or any other with dims (time, y, x): one variable in grey, or ``red``,
        ``green`` and ``blue``. Frames that it has before the initialisation are shown as input.
    init_time : time label, optional
        Which initialisation. Default: the last one whose valid times are all in `truth`.
    leads : time difference or sequence of them, optional
        Default: up to ten, equally far apart, of which the last is the longest.
    data_range : float
        White; black is 0. Errors go from 0 to it.
    title : str, optional
        ``""`` for none.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no forecast, one does not fit `truth`, or the two are exchanged.
    """
    require("matplotlib")
    if isinstance(forecasts, (xr.Dataset, xr.DataArray)):
        if isinstance(truth, Mapping) and not isinstance(truth, xr.Dataset):
            pairs.open_forecast(forecasts, next(iter(truth.values()), None))
        forecasts = {"Forecast": forecasts}
    if not forecasts:
        raise InputError("a strip needs at least one forecast: {'name': forecast}")
    opened = {n: pairs.open_forecast(mean_member(f), truth)[0] for n, f in forecasts.items()}
    name, first = next(iter(opened.items()))
    variables = [str(v) for v in first.data_vars]
    colours = set(variables) == COLOURS
    if LEAD not in first.dims or not (colours or len(variables) == 1):
        raise InputError(
            f"a strip shows forecasts of one variable, or of red, green and blue, found "
            f"{variables} with dims {dict(first.sizes)} in {name!r}"
        )
    variables = ["red", "green", "blue"] if colours else variables
    theirs = canonicalize(truth, variables)[0]
    n = first.sizes[LEAD]
    stride = int(np.ceil(n / _MOST))
    even = list(range((n - 1) % stride, n, stride))
    where = even if leads is None else lead_positions(first[LEAD].values, leads)
    at, positions = choose_initialisation(first, theirs, init_time)
    when, ahead = first["time"].values[at], first[LEAD].values[where]

    def pictures(ds: xr.Dataset) -> np.ndarray:  # (frames, H, W, 1 or 3)
        return np.stack([ds[v].values for v in variables], axis=-1).astype(float) / data_range

    seen = pictures(theirs.isel(time=positions[where]))
    rows = [("Truth", seen, ahead, False)]
    before, past = _inputs(truth, theirs, when, ahead)
    if len(past):
        rows.insert(0, ("Input", pictures(theirs.isel(time=before)), past, False))
    for name, forecast in opened.items():
        if not forecast.indexes[LEAD].equals(first.indexes[LEAD]):
            raise InputError(f"{name!r} has other lead times than the first forecast")
        mine, found = choose_initialisation(forecast, theirs, when)
        if not np.array_equal(found, positions):
            raise InputError(f"{name!r} has no forecast from {when}")
        made = pictures(forecast.isel({"time": mine, LEAD: where}).compute())
        rows += [(name, made, ahead, False), ("|error|", np.abs(made - seen), ahead, True)]

    H, W = seen.shape[1:3]
    width = min(max(9.0 / len(where), 0.8), 2.4)
    names = [textwrap.fill(plain(label, 60), 18) for label, *_ in rows]
    beside = 0.3 + 0.085 * max(len(line) for name in names for line in name.split("\n"))
    above = 0.5 if len(past) else 0.25  # for the lines of times
    title = _title(truth, positions[where], when) if title is None else title
    size = len(where) * (width + 0.05) + beside, len(rows) * (width * H / W + 0.05) + above
    figure = new_figure(*size, title, w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    axes = figure.subplots(len(rows), len(where), squeeze=False)
    for i, (line, label, (_, frames, times, error)) in enumerate(
        zip(axes, names, rows, strict=True)
    ):
        style: dict[str, Any] = {"fontsize": TEXT, "rotation": 0, "ha": "right", "va": "center"}
        style |= {"fontsize": SMALL, "color": "0.35"} if error else {}
        line[0].set_ylabel(label, parse_math=False, **style)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, frame, time in zip(line[-len(times) :], frames, times, strict=True):
            grey = frame.mean(axis=-1) if error else frame[..., 0]
            shown = grey if error or not colours else np.clip(frame, 0, 1)
            ax.imshow(shown, cmap="magma" if error else "gray", vmin=0, vmax=1)
            if i <= len(rows) - 1 - 2 * len(opened):  # over the input and the truth
                ax.set_title(lead_label(time) if time else "0", fontsize=SMALL, pad=3)
    return figure


def is_clip(forecast: xr.Dataset, truth: xr.Dataset) -> bool:
    """Whether :func:`clip_strip` shows a forecast best: of one variable or of colours, on clips.

    Parameters
    ----------
    forecast, truth : xarray.Dataset
    """
    variables = {str(v) for v in forecast.data_vars}
    return "clip" in truth.coords and (len(variables) == 1 or variables == COLOURS)


def _inputs(
    truth: Any, opened: xr.Dataset, when: Any, ahead: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of frames up to the initialisation, as far apart as leads, and their distances."""
    apart = np.diff(ahead).min() if len(ahead) > 1 else ahead[0]
    past = -apart * np.arange(len(ahead))[::-1]
    at = opened.indexes["time"].get_indexer(pd.Index(valid_times(np.array([when]), past)[0]))
    now = at[-1]
    clip = getattr(truth, "coords", {}).get("clip")
    there = at >= 0
    if clip is not None and clip.dims == ("time",) and now >= 0:
        there &= clip.values[at] == clip.values[now]
    last = len(at) - int(np.argmin([*there[::-1], False]))  # without a gap
    return at[last:], past[last:]


def _title(truth: Any, positions: np.ndarray, when: Any) -> str:
    """Which clip, and which of its frames; times where there are no clips."""
    coords = getattr(truth, "coords", {})
    if not {"clip", "step"} <= set(coords):
        invented = str(when).startswith("1970")  # frames that are counted, not dated
        return "Forecasts" if invented else f"Forecasts from {time_label(when, False)}"
    clip = int(coords["clip"].values[positions[0]])
    first, last = (int(coords["step"].values[positions[i]]) + 1 for i in (0, -1))
    names = np.atleast_1d(truth.attrs.get("clip_names", []))
    named = f": {names[clip]}" if len(names) > clip else ""
    which = f"Frame {first}" if first == last else f"Frames {first} to {last}"
    return f"Clip {clip}{named}\n{which}, forecast from those before"
