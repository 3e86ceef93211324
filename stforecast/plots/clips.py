"""Frames side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.gate import canonicalize
from ..errors import InputError
from .layout import SMALL, TEXT, Layout, head, lead_words, need, time_words

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
    need("matplotlib")
    from .fields import _choose_init, _lead_positions

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
    if leads is None:
        n = first.sizes[LEAD]
        where = np.unique(np.linspace(0, n - 1, min(n, 8)).round().astype(int)).tolist()
    else:
        where = _lead_positions(first[LEAD].values, leads)
    at, positions = _choose_init(first, theirs, init_time)
    when = first["time"].values[at]

    def pictures(ds: xr.Dataset) -> np.ndarray:  # (frames, H, W, 1 or 3)
        return np.stack([ds[v].values for v in variables], axis=-1).astype(float) / data_range

    seen = pictures(theirs.isel(time=positions[where]))
    rows: list[tuple[str, np.ndarray, bool]] = [("Truth", seen, False)]
    for name, forecast in opened.items():
        if not forecast.indexes[LEAD].equals(first.indexes[LEAD]):
            raise InputError(f"{name!r} has other lead times than the first forecast")
        mine, found = _choose_init(forecast, theirs, when)
        if not np.array_equal(found, positions):
            raise InputError(f"{name!r} has no forecast from {when}")
        made = pictures(forecast.isel(time=mine, **{LEAD: where}).compute())
        rows += [(name, made, False), ("|error|", np.abs(made - seen), True)]

    H, W = seen.shape[1:3]
    columns, width = len(where), min(max(9.0 / len(where), 0.8), 2.4)
    height = width * H / W
    layout = Layout(
        (width, height),
        columns,
        gap=0.04,
        above=[0.12 if not error else 0.03 for _, _, error in rows[1:]],
        left=1.1,
        right=0.2,
        top=0.75 + 0.25 * (title != ""),
        bottom=0.15,
    )
    for i, (label, frames, error) in enumerate(rows):
        style: dict[str, Any] = {"fontsize": TEXT if not error else SMALL, "va": "center"}
        layout.text(0.15, layout.y[i] + height / 2, label, color="0.35" if error else "0", **style)
        for j, frame in enumerate(frames):
            ax = layout.axes(i, j, None)
            grey = frame.mean(axis=-1) if error else frame[..., 0]
            shown = grey if error or not colours else np.clip(frame, 0, 1)
            ax.imshow(shown, cmap="magma" if error else "gray", vmin=0, vmax=1, aspect="auto")
            ax.set_axis_off()
    for x, lead in zip(layout.x, first[LEAD].values[where], strict=True):
        layout.text(
            x + width / 2, layout.y[0] - 0.12, lead_words(lead), fontsize=SMALL, ha="center"
        )
    if title != "":
        head(layout.figure, 0.15, title or f"Forecasts from {time_words(when, False)}")
    return layout.figure
