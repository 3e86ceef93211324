"""Frames side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.gate import canonicalize
from ..errors import InputError
from .fields import choose_initialisation, lead_positions
from .labels import lead_label, time_label
from .layout import SMALL, TEXT, new_figure, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_COLOURS = {"red", "green", "blue"}  # variables of a clip in colour


def clip_strip(
    truth: Any,
    forecasts: Mapping[str, Any],
    *,
    init_time: Any = None,
    leads: Any = None,
    data_range: float = 1.0,
    title: str | None = None,
) -> Figure:
    """Draw frames side by side: truth, each forecast, and under it its absolute error.

    As Figures 8 and 10 of the paper do.

    Parameters
    ----------
    truth : xarray.Dataset
        A clip data set, or any other with dims (time, y, x): one variable in grey, or ``red``,
        ``green`` and ``blue``.
    forecasts : mapping of str to xarray.Dataset
        Forecasts of the same variables, by name.
    init_time : time label, optional
        Which initialisation. Default: the last one whose valid times are all in `truth`.
    leads : time difference or sequence of them, optional
        Default: up to eight, evenly spread.
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
        If there is no forecast, or one does not fit `truth`.
    """
    require("matplotlib")
    if not forecasts:
        raise InputError("a strip needs at least one forecast: {'name': forecast}")
    opened = {n: canonicalize(f)[0] for n, f in forecasts.items()}
    name, first = next(iter(opened.items()))
    variables = [str(v) for v in first.data_vars]
    colours = set(variables) == _COLOURS
    if LEAD not in first.dims or not (colours or len(variables) == 1):
        raise InputError(
            f"a strip shows forecasts of one variable, or of red, green and blue, found "
            f"{variables} with dims {dict(first.sizes)} in {name!r}"
        )
    variables = ["red", "green", "blue"] if colours else variables
    theirs = canonicalize(truth, variables)[0]
    where = lead_positions(first[LEAD].values, leads, default=8)
    at, positions = choose_initialisation(first, theirs, init_time)
    when = first["time"].values[at]

    def pictures(ds: xr.Dataset) -> np.ndarray:  # (frames, H, W, 1 or 3)
        return np.stack([ds[v].values for v in variables], axis=-1).astype(float) / data_range

    seen = pictures(theirs.isel(time=positions[where]))
    rows: list[tuple[str, np.ndarray, bool]] = [("Truth", seen, False)]
    for name, forecast in opened.items():
        if not forecast.indexes[LEAD].equals(first.indexes[LEAD]):
            raise InputError(f"{name!r} has other lead times than the first forecast")
        mine, found = choose_initialisation(forecast, theirs, when)
        if not np.array_equal(found, positions):
            raise InputError(f"{name!r} has no forecast from {when}")
        made = pictures(forecast.isel({"time": mine, LEAD: where}).compute())
        rows += [(name, made, False), ("|error|", np.abs(made - seen), True)]

    H, W = seen.shape[1:3]
    width = min(max(9.0 / len(where), 0.8), 2.4)
    if title is None:
        title = f"Forecasts from {time_label(when, False)}"
    size = len(where) * (width + 0.05) + 1.1, len(rows) * (width * H / W + 0.05) + 0.25
    figure = new_figure(*size, title, w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    axes = figure.subplots(len(rows), len(where), squeeze=False)
    for line, (label, frames, error) in zip(axes, rows, strict=True):
        style = {"fontsize": SMALL, "color": "0.35"} if error else {"fontsize": TEXT}
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", **style)
        for ax, frame in zip(line, frames, strict=True):
            grey = frame.mean(axis=-1) if error else frame[..., 0]
            shown = grey if error or not colours else np.clip(frame, 0, 1)
            ax.imshow(shown, cmap="magma" if error else "gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    for ax, lead in zip(axes[0], first[LEAD].values[where], strict=True):
        ax.set_title(lead_label(lead), fontsize=SMALL, pad=3)
    return figure
