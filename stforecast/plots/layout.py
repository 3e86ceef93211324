"""What the figures of :mod:`stforecast.plots` share: layout, colour scales and words."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD, TIME, VALID, scalar
from ..conventions.grid import grid_weights
from ..conventions.variables import canonical_name
from ..errors import InputError
from . import cartography as carto

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
TITLE, TEXT, SMALL = 12.0, 10.0, 8.5  # sizes of type in points
MINUS = "\N{MINUS SIGN}"
DIFFERENCE = f"Forecast {MINUS} truth"


def need(*modules: str) -> None:
    """Import what is optional, or say how to install it."""
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"maps need matplotlib and cartopy ({error}): pip install 'stforecast[maps]'"
            ) from error


@cache
def _figure_class() -> type[Figure]:
    from matplotlib.figure import Figure

    class MapFigure(Figure):
        """A Figure that a notebook shows although pyplot has no part in it."""

        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            stream = BytesIO()
            self.savefig(stream, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.1)
            png = stream.getvalue()
            width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
            # Shown at 100 dots an inch, so that it is sharp on dense screens.
            return png, {"width": width * 100 // DPI, "height": height * 100 // DPI}

    return MapFigure


# --- words ----------------------------------------------------------------------------------------


def capital(text: str) -> str:
    """Begin with a capital, and leave the rest as it is."""
    return text[:1].upper() + text[1:]


def words(field: xr.DataArray) -> str:
    """Name of a variable for people."""
    name = "" if field.name is None else canonical_name(str(field.name))
    return str(field.attrs.get("long_name") or name.replace("_", " "))


def with_unit(text: str, unit: Any) -> str:
    """Write ``text [unit]``; dimensionless and unknown units are left out."""
    return f"{text} [{unit}]" if unit not in (None, "", "1", "unknown") else text


def number(value: float, digits: int = 3, sign: str = "") -> str:
    """Write a number to some significant digits, with a minus sign that is one."""
    return f"{value:{sign}.{digits}g}".replace("-", MINUS)


def lead_words(lead: Any) -> str:
    """Write a lead time as people do: ``+6 h``, ``+30 min``, ``+5 d``; of clips ``+40 ms``."""
    minutes = np.timedelta64(lead) / np.timedelta64(1, "m")
    if minutes % 1:
        seconds = np.timedelta64(lead) / np.timedelta64(1, "s")
        return f"{1000 * seconds:+g} ms" if abs(seconds) < 1 else f"{seconds:+g} s"
    if minutes % 60:
        return f"{minutes:+g} min"
    hours = minutes / 60
    return f"{hours / 24:+g} d" if hours > 96 and hours % 24 == 0 else f"{hours:+g} h"


def time_words(time: Any, utc: bool = True) -> str:
    """Write a time, numpy's or cftime's, to the minute."""
    time = np.asarray(time)[()]
    time = pd.Timestamp(time) if isinstance(time, np.datetime64) else time
    return f"{time.strftime('%Y-%m-%d %H:%M')}{' UTC' * utc}"


def about(field: xr.DataArray, utc: bool) -> str:
    """Title of a field: its name, and on a second line the times among its scalar coordinates."""
    ds = field.to_dataset(name="field")
    start, lead = scalar(ds, TIME), scalar(ds, LEAD)
    text = "" if start is None else time_words(ds[start].values, utc)
    if text and lead is not None:
        text = f"initialised {text}, lead {lead_words(ds[lead].values)}"
    if start != VALID and VALID in ds.coords and ds[VALID].ndim == 0:
        text += f"{', ' * bool(text)}valid {time_words(ds[VALID].values, utc)}"
    return f"{capital(words(field))}\n{text}".strip()


# --- colours --------------------------------------------------------------------------------------


def top(values: np.ndarray) -> float:
    """Upper limit of a scale that starts at 0; the outermost half per cent does not stretch it."""
    finite = values[np.isfinite(values)]
    limit = float(np.percentile(finite, 99.5)) if finite.size else 0.0
    return limit or 1.0


@dataclass(frozen=True)
class Scale:
    """One colour scale for one or more maps, and the label of its bar."""

    cmap: Any
    vmin: float
    vmax: float
    extend: str
    label: str

    @classmethod
    def of(
        cls,
        fields: Iterable[xr.DataArray],
        grid: carto.Grid,
        *,
        cmap: Any = None,
        vmin: float | None = None,
        vmax: float | None = None,
        label: str | None = None,
        symmetric: bool = False,
    ) -> Scale:
        """Choose limits and colours that suit all of `fields`.

        Limits leave out the values on the lowest and highest half per cent of the area.
        """
        fields = list(fields)
        values = np.concatenate([np.ravel(f.transpose(..., *grid.dims).values) for f in fields])
        area = np.sin(np.deg2rad(grid.rows)) if grid.geographic else np.arange(len(grid.rows))
        weights = np.empty((len(grid.row_order), len(grid.column_order)))
        weights[grid.row_order] = np.diff(area)[:, None]
        there = np.isfinite(values)
        weights = np.tile(weights.ravel(), values.size // weights.size)[there]
        values = values[there].astype(float)
        if not values.size:
            raise InputError("the field holds no finite value: there is nothing to draw")
        low, high = _quantiles(values, weights, 0.005, 0.995)
        colours, diverging = _colours(fields[0], low, high)
        if (symmetric or diverging) and vmin is None and vmax is None:
            high = _quantiles(np.abs(values), weights, 0.995)[0] or 1.0
            low = -high
        low, high = low if vmin is None else float(vmin), high if vmax is None else float(vmax)
        if low == high:
            low, high = low - 0.5, high + 0.5
        if not low < high:
            raise InputError(f"vmin must be less than vmax, found {low:g} and {high:g}")
        below, above = values.min() < low, values.max() > high
        extend = ("both" if above else "min") if below else ("max" if above else "neither")
        if label is None:
            label = with_unit(capital(words(fields[0])), fields[0].attrs.get("units"))
        colours = "RdBu_r" if symmetric else colours
        return cls(colours if cmap is None else cmap, low, high, extend, label)

    def draw(self, ax: Any, grid: carto.Grid, field: xr.DataArray, **frame: bool) -> Any:
        """Draw a field in these colours, with its frame."""
        mesh = carto.draw(ax, grid, field, cmap=self.cmap, vmin=self.vmin, vmax=self.vmax)
        carto.frame(ax, grid, **frame)
        return mesh

    def bar(self, figure: Figure, mesh: Any, length: float = 6.0, **where: Any) -> None:
        """Draw the colour bar, with its label folded where it is longer than `length` inches."""
        bar = figure.colorbar(mesh, extend=self.extend, **where)
        letters = max(16, int((length + 0.7) / (0.55 * TEXT / 72)))  # it may stand out a little
        label = self.label.replace(" [", "\N{NO-BREAK SPACE}[")
        bar.set_label(textwrap.fill(label, letters), fontsize=TEXT, parse_math=False)
        bar.ax.tick_params(labelsize=SMALL, width=0.6, length=3)
        bar.outline.set_linewidth(0.6)


def _quantiles(values: np.ndarray, weights: np.ndarray, *levels: float) -> list[float]:
    found = np.quantile(values, levels, weights=weights, method="inverted_cdf")
    return [float(v) for v in found]


def _colours(field: xr.DataArray, low: float, high: float) -> tuple[str, bool]:
    """Colour map for a variable, and whether 0 is its middle."""
    name = " ".join([words(field), str(field.name), str(field.attrs.get("standard_name"))]).lower()
    if "anomal" not in name and ("temperature" in name or field.attrs.get("units") == "K"):
        return "RdYlBu_r", False
    if "precip" in name or "rain" in name:
        return "YlGnBu", False
    if low < 0 < high and min(-low, high) > 0.2 * max(-low, high):
        return "RdBu_r", True
    return "viridis", False


# --- layout ---------------------------------------------------------------------------------------


class Layout:
    """A figure of maps of one size in rows and columns, placed by the inch.

    Parameters
    ----------
    panel : (float, float)
        Width and height of a map.
    columns : int
        How many.
    gap : float
        Between columns.
    above : sequence of float
        Room above each row but the first.
    left, right, top, bottom : float
        Margins.
    """

    def __init__(
        self,
        panel: tuple[float, float],
        columns: int = 1,
        *,
        gap: float = 0.0,
        above: Sequence[float] = (),
        left: float,
        right: float,
        top: float,
        bottom: float,
    ) -> None:
        self.panel = panel
        self.x = [left + j * (panel[0] + gap) for j in range(columns)]
        self.y = [top]
        for room in above:
            self.y.append(self.y[-1] + panel[1] + room)
        self.size = self.x[-1] + panel[0] + right, self.y[-1] + panel[1] + bottom
        self.figure = blank(*self.size)

    def add(self, x: float, y: float, width: float, height: float, **options: Any) -> Any:
        """Add axes whose upper left corner is `x` and `y` from that of the figure."""
        w, h = self.size
        place = (x / w, 1 - (y + height) / h, width / w, height / h)
        return self.figure.add_axes(place, **options)

    def axes(self, row: int, column: int, projection: Any) -> Any:
        """Add the axes of a panel."""
        return self.add(self.x[column], self.y[row], *self.panel, projection=projection)

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write at a distance from the left and the top."""
        self.figure.text(x / self.size[0], 1 - y / self.size[1], text, parse_math=False, **style)

    def bar(self, scale: Scale, mesh: Any, rows: Sequence[int], x: float) -> None:
        """Add an upright colour bar `x` to the right of the panels of some rows."""
        first, last = self.y[rows[0]], self.y[rows[-1]] + self.panel[1]
        short = 0.03 * (last - first)
        place = (self.x[-1] + self.panel[0] + x, first + short, 0.14, last - first - 2 * short)
        scale.bar(self.figure, mesh, place[3], cax=self.add(*place, label="<colorbar>"))

    def bar_below(self, scale: Scale, mesh: Any, y: float) -> None:
        """Add a level colour bar `y` below the panel."""
        width, height = self.panel
        axes = self.add(
            self.x[0] + 0.15 * width, self.y[0] + height + y, 0.7 * width, 0.14, label="<colorbar>"
        )
        scale.bar(self.figure, mesh, width, cax=axes, orientation="horizontal")


def blank(width: float, height: float) -> Figure:
    """Make an empty white figure, in inches."""
    return _figure_class()(figsize=(width, height), dpi=100, facecolor="white")


def head(figure: Figure, left: float, title: str) -> None:
    """Write a title in the upper left corner, `left` inches from the side, its 2nd line small."""
    width, height = figure.get_size_inches()
    first, _, second = title.partition("\n")
    style: dict[str, Any] = {"va": "center", "parse_math": False}
    figure.text(left / width, 1 - 0.3 / height, first, fontsize=TITLE, fontweight="bold", **style)
    figure.text(left / width, 1 - 0.56 / height, second, fontsize=SMALL, color="0.35", **style)


# --- figures of several parts ---------------------------------------------------------------------


def panel(rows: dict[str, xr.DataArray], valid: np.ndarray, title: str, projection: Any) -> Figure:
    """Draw maps by lead time: rows "Forecast", and if wanted "Truth" and :data:`DIFFERENCE`.

    Parameters
    ----------
    rows : dict of xarray.DataArray
        Dims (prediction_timedelta, and two of space), all on one grid.
    valid : numpy.ndarray of shape (leads,)
        Valid times.
    title : str
        Of the figure.
    projection : cartopy.crs.Projection or None
        None for a grid without latitude and longitude.
    """
    forecast = rows["Forecast"]
    grid = carto.Grid.of(forecast[0])
    shared = Scale.of([f for name, f in rows.items() if name != DIFFERENCE], grid)
    scales = dict.fromkeys(rows, shared)
    if DIFFERENCE in rows:
        label = with_unit(DIFFERENCE, forecast.attrs.get("units"))
        scales[DIFFERENCE] = Scale.of([rows[DIFFERENCE]], grid, symmetric=True, label=label)

    shape, n = carto.shape(grid, projection), len(valid)
    room = not (grid.whole or carto.labels_above(grid, projection))
    around = 0.4 * room  # for the labels of meridians and parallels, on the left and below
    width = min(max(11.0 / n, 2.2), 4.2, 2.7 * shape)
    layout = Layout(
        (width, width / shape),
        n,
        gap=0.15,
        above=[0.12, 0.34][: len(rows) - 1],
        left=0.55 + around,
        right=1.0,
        top=1.25,
        bottom=0.15 + around,
    )
    centre = {"ha": "center", "va": "center"}
    meshes: dict[str, Any] = {}
    for i, (name, fields) in enumerate(rows.items()):
        middle = layout.y[i] + width / shape / 2
        layout.text(0.3, middle, name, rotation=90, fontsize=TEXT, **centre)
        for j, x in enumerate(layout.x):
            ends = {"left": j == 0 and room, "bottom": i == len(rows) - 1 and room}
            ax = layout.axes(i, j, projection)
            meshes[name] = scales[name].draw(ax, grid, fields[j], **ends)
            if name == DIFFERENCE:
                words_ = _error_words(fields[j], grid)
                layout.text(x + width / 2, layout.y[i] - 0.12, words_, fontsize=SMALL, **centre)
    for x, lead, time in zip(layout.x, forecast[LEAD].values, valid, strict=True):
        y, style = layout.y[0], {"fontsize": TEXT, "fontweight": "bold", **centre}
        layout.text(x + width / 2, y - 0.36, lead_words(lead), **style)
        when = time_words(time, grid.geographic)
        layout.text(x + width / 2, y - 0.15, when, fontsize=SMALL, color="0.3", **centre)
    layout.bar(shared, meshes["Forecast"], (0, min(1, len(rows) - 1)), 0.18)
    if DIFFERENCE in rows:
        layout.bar(scales[DIFFERENCE], meshes[DIFFERENCE], (2,), 0.18)
    head(layout.figure, 0.22, title)
    return layout.figure


def _error_words(error: xr.DataArray, grid: carto.Grid) -> str:
    """RMSE and bias of one map, weighted as the scores are."""
    values = error.transpose(*grid.dims).values.astype(float)
    there = np.isfinite(values)
    if not there.any():
        return "no truth"
    latitude = error[grid.dims[0]].values if grid.geographic else None
    weights = grid_weights(values.shape, latitude)[0][there]
    rmse = np.sqrt(np.average(values[there] ** 2, weights=weights))
    bias = np.average(values[there], weights=weights)
    parts = {"RMSE": number(rmse), "bias": number(bias, 2, "+")}
    return ", ".join(f"{k} {v} {error.attrs.get('units', '')}".rstrip() for k, v in parts.items())


def name_lines(ax: Any, ends: Sequence[tuple[float, str, Any, bool]]) -> None:
    """Write names (value at the end, name, colour, bold) beside lines, apart from each other."""
    low, high = ax.get_ylim()
    apart = 0.065 * (high - low)
    ends = sorted((end for end in ends if np.isfinite(end[0])), key=lambda end: end[0])
    places = np.array([end[0] for end in ends])
    for _ in range(100):  # neighbours that are too close give way to each other
        push = np.maximum(0, apart - np.diff(places)) / 2
        places[1:] += push
        places[:-1] -= push
    for place, (_, name, colour, bold) in zip(places, ends, strict=True):
        ax.annotate(
            name,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=TEXT,
            fontweight="bold" if bold else "normal",
            annotation_clip=False,
        )


def table_cells(ax: Any, table: pd.DataFrame, cmap: str, low: float, high: float) -> None:
    """Draw a table as coloured cells with their numbers in them; the last column stands apart."""
    values = table.to_numpy(float)
    cells = np.ma.masked_invalid(values)
    mesh = ax.pcolormesh(cells, cmap=cmap, vmin=low, vmax=high, edgecolors="white", linewidth=1.5)
    ax.set_facecolor("0.9")
    ax.invert_yaxis()
    colours = mesh.cmap(mesh.norm(cells))
    digits = int(np.clip(3 - np.floor(np.log10(high)), 0, 2)) if high > 0.05 else None
    for (i, j), value in np.ndenumerate(values):
        dark = colours[i, j, :3] @ [0.299, 0.587, 0.114] < 0.5 and np.isfinite(value)
        text = f"{value:.1e}" if digits is None else f"{value:.{digits}f}"
        ax.text(
            j + 0.5,
            i + 0.5,
            text.replace("-", MINUS) if np.isfinite(value) else "\N{EN DASH}",
            ha="center",
            va="center_baseline",
            fontsize=SMALL,
            color="white" if dark else "black",
        )
    ax.set_yticks(np.arange(len(table)) + 0.5, table.index, fontsize=SMALL + 0.5)
    ax.set_xticks(np.arange(table.shape[1]) + 0.5, table.columns, fontsize=SMALL)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.axvline(table.shape[1] - 1, color="white", linewidth=6)


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: float = DPI) -> Path:
    """Write a figure; it appears whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Any figure.
    path : path-like
        Its suffix says the format: ``.png``, ``.pdf``, ``.svg``... Missing directories are made.
    dpi : float
        Dots per inch.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If the format is not known, or the directory cannot be written to.
    """
    from ..files import replacing

    path = Path(path)
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise InputError(
            f"cannot tell the format of a picture from the name {path.name!r}: expected one of "
            f"{', '.join('.' + kind for kind in sorted(kinds))} at its end"
        )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, bbox_inches="tight", pad_inches=0.1)
    return path


SHORT = {"rmse": "RMSE", "mae": "MAE", "mse": "MSE", "bias": "bias", "acc": "ACC"}


def weighted(scores: xr.Dataset) -> str:
    weights = str(scores.attrs.get("weights", "")).split(", ")[0]  # of several the first is shown
    return {"area": "area-weighted", "uniform": "unweighted"}.get(weights, "")


def sample(scores: xr.Dataset) -> str:
    """How many initialisations the scores rest on, and when."""
    n = int(scores.attrs.get("initialisations", 0))
    if not n:
        return ""
    a, b = (str(scores.attrs[f"{end}_initialisation"])[:10] for end in ("first", "last"))
    return f"{n} initialisation{'s' * (n != 1)}, {a if a == b else f'{a} to {b}'}"
