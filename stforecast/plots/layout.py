"""Figures: a white sheet with a title that lays itself out, and the file it is written to.

Sizes are inches; matplotlib's constrained layout places maps, labels and colour bars.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import replacing
from ..package import load_proj
from .labels import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
TITLE, TEXT, SMALL = 12.0, 10.0, 8.5  # sizes of type in points


def require(*modules: str) -> None:
    """Import optional packages, or say how to install them.

    Raises
    ------
    ImportError
        If one is not there.
    InputError
        If the program has loaded ecCodes and then pyproj, so that cartopy would crash.
    """
    for name in modules:
        try:
            if name == "cartopy":
                load_proj()
                _refuse_second_proj()
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"maps need matplotlib and cartopy ({error}): pip install 'stforecast[maps]'"
            ) from error


def _refuse_second_proj() -> None:
    """Refuse a pyproj that calls the copy of PROJ in ecCodes' wheels (see `load_proj`)."""
    proj: Any = sys.modules.get("pyproj")
    if proj is None or "eckitlib" not in sys.modules:
        return
    runs, wants = (getattr(proj, f"__proj_{k}version__", None) for k in ("", "compiled_"))
    if runs != wants:
        raise InputError(
            f"eccodes was loaded before pyproj, which now calls eccodes' copy of PROJ ({runs}) "
            f"instead of its own ({wants}): maps would be wrong or crash. Begin the program with "
            "'import pyproj', before eccodes, cfgrib and earthkit, or pip install 'eccodes<2.48'"
        )


@cache
def _figure_class() -> type[Figure]:
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        """A Figure that a notebook shows although pyplot has no part in it."""

        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            stream = BytesIO()
            self.savefig(stream, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.1)
            png = stream.getvalue()
            width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
            # Shown at 100 dots an inch, so that it is sharp on dense screens.
            return png, {"width": width * 100 // DPI, "height": height * 100 // DPI}

    return NotebookFigure


def new_figure(width: float, height: float, title: str, **spacing: float) -> Figure:
    """Make an empty figure with a title in its upper left corner, the second line small.

    The title comes on top of `height`; `spacing` is for the layout engine.
    """
    lines = [plain(line, 200) for line in title.splitlines()]
    above = (0.12, 0.48, 0.72)[min(len(lines), 2)]
    total = height + above
    figure = _figure_class()(figsize=(width, total), dpi=100, facecolor="white")
    # Axes of a fixed aspect (maps) come close together; others fill what there is.
    spacing = {"w_pad": 0.06, "h_pad": 0.05} | spacing
    figure.set_layout_engine("compressed", rect=(0, 0, 1, height / total), **spacing)
    styles: tuple[dict[str, Any], ...] = (
        {"fontsize": TITLE, "fontweight": "bold"},
        {"fontsize": SMALL, "color": "0.35"},
    )
    for text, style, y in zip((*lines, "", ""), styles, (0.3, 0.56), strict=False):
        if text:
            figure.text(0.1 / width, 1 - y / total, text, va="center", parse_math=False, **style)
    return figure


def plain_axes(ax: Any, grid: str = "both") -> None:
    """Style the axes of a curve: light lines of the grid, no frame above and on the right."""
    ax.tick_params(labelsize=SMALL, length=3)
    ax.grid(axis=grid, color="0.91", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


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
