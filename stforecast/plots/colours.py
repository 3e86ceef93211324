"""Colour scales: limits and colours that suit a variable, and their bar."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..errors import InputError
from . import cartography as carto
from .frames import frame
from .labels import sentence, variable_label, with_unit
from .layout import SMALL, TEXT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: ColorBrewer's colours and viridis from low to high, for where matplotlib does not draw.
STOPS = {
    "RdYlBu_r": "313695 4575b4 74add1 abd9e9 e0f3f8 ffffbf fee090 fdae61 f46d43 d73027 a50026",
    "RdBu_r": "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f",
    "YlGnBu": "ffffd9 edf8b1 c7e9b4 7fcdbb 41b6c4 1d91c0 225ea8 253494 081d58",
    "viridis": "440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725",
}


def upper_limit(values: np.ndarray) -> float:
    """Upper limit of a scale that starts at 0; the outermost half per cent does not stretch it."""
    finite = values[np.isfinite(values)]
    return (float(np.percentile(finite, 99.5)) if finite.size else 0.0) or 1.0


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
        colours, diverging = colours_of(fields[0], low, high)
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
            label = with_unit(sentence(variable_label(fields[0])), fields[0].attrs.get("units"))
        colours = "RdBu_r" if symmetric else colours
        return cls(colours if cmap is None else cmap, low, high, extend, label)

    @property
    def style(self) -> dict[str, Any]:
        """Options of matplotlib's functions that colour cells."""
        return {"cmap": self.cmap, "vmin": self.vmin, "vmax": self.vmax}

    def draw(self, ax: Any, grid: carto.Grid, field: xr.DataArray, **labels: bool) -> Any:
        """Draw a field in these colours, with its frame; labels at the `left` and the `bottom`."""
        mesh = carto.draw(ax, grid, field, **self.style)
        frame(ax, grid, **labels)
        return mesh

    def bar(
        self, figure: Figure, mesh: Any, ax: Any, *, inches: float = 6.0, **options: Any
    ) -> None:
        """Draw the colour bar beside `ax`, its label folded where it is longer than `inches`."""
        level = options.get("location") == "bottom"
        options = {"shrink": 0.8 if level else 0.92, "pad": 0.02, "aspect": inches * 6} | options
        bar = figure.colorbar(mesh, ax=ax, extend=self.extend, **options)
        letters = max(16, int((inches + 0.7) / (0.55 * TEXT / 72)))  # it may stand out a little
        label = self.label.replace(" [", "\N{NO-BREAK SPACE}[")
        bar.set_label(textwrap.fill(label, letters), fontsize=TEXT, parse_math=False)
        bar.ax.tick_params(labelsize=SMALL, width=0.6, length=3)
        bar.outline.set_linewidth(0.6)


def _quantiles(values: np.ndarray, weights: np.ndarray, *levels: float) -> list[float]:
    found = np.quantile(values, levels, weights=weights, method="inverted_cdf")
    return [float(v) for v in found]


def colours_of(field: xr.DataArray, low: float, high: float) -> tuple[str, bool]:
    """Colour map for a variable, and whether 0 is its middle."""
    names = variable_label(field), str(field.name), str(field.attrs.get("standard_name"))
    name = " ".join(names).lower()
    if "anomal" not in name and ("temperature" in name or field.attrs.get("units") == "K"):
        return "RdYlBu_r", False
    if "precip" in name or "rain" in name:
        return "YlGnBu", False
    if low < 0 < high and min(-low, high) > 0.2 * max(-low, high):
        return "RdBu_r", True
    return "viridis", False
