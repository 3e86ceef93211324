"""What surrounds a field on a map: its frame, outlines, meridians and their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .cartography import Grid, aspect, outline, polar, project, sides_of
from .coastlines import BORDERS, COASTLINE, outlines
from .labels import degrees

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 90)  # between labelled meridians
_SMALL = 8  # points: size of the labels around a map


def frame(ax: Any, grid: Grid, *, left: bool = True, bottom: bool = True) -> None:
    """Cut the map to its grid; add outlines, meridians and, at two sides, their labels."""
    if not grid.geographic:
        _pixel_frame(ax, grid, left=left, bottom=bottom)
        return
    import matplotlib.path as mpath

    path = outline(grid, ax.projection)
    if path is None:
        ax.set_global()
    else:
        ax.set_boundary(mpath.Path(path))
        ax.set_xlim(path[:, 0].min(), path[:, 0].max())
        ax.set_ylim(path[:, 1].min(), path[:, 1].max())
    ax.spines["geo"].set(linewidth=0.6, edgecolor="0.3")
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.1", "linewidth": 0.7}
    ax.add_feature(outlines(*COASTLINE, grid.box), **style)
    if not grid.whole:
        style |= {"edgecolor": "0.3", "linewidth": 0.4}
        ax.add_feature(outlines(*BORDERS, grid.box), **style)
    lon = _ticks(*sides_of(grid, ax.projection))
    lat = _ticks(float(grid.rows[0]), float(grid.rows[-1]))
    style = {"linewidth": 0.4, "color": "0.3", "alpha": 0.4, "linestyle": "-"}
    ax.gridlines(xlocs=(lon + 180) % 360 - 180, ylocs=lat, **style)
    if path is not None:
        _label(ax, grid, lon if bottom else lon[:0], lat if left else lat[:0])


def _pixel_frame(ax: Axes, grid: Grid, *, left: bool, bottom: bool) -> None:
    """Rows of pixels go down, as in a picture; those of a projection go up, as on a map."""
    from matplotlib.ticker import MaxNLocator

    ax.set_box_aspect(1 / aspect(grid, None))
    if not grid.upward:
        ax.invert_yaxis()
    for axis, name, shown in ((ax.yaxis, grid.names[0], left), (ax.xaxis, grid.names[1], bottom)):
        axis.set_major_locator(MaxNLocator(5, integer=not grid.upward))
        axis.set_tick_params(labelsize=_SMALL, labelleft=shown, labelbottom=shown)
        axis.get_offset_text().set(fontsize=_SMALL, visible=shown)
        if shown:
            axis.set_label_text(name, fontsize=_SMALL, parse_math=False)


def _ticks(low: float, high: float) -> np.ndarray:
    """Round degrees between two sides, about five."""
    step = next((s for s in _STEPS if (high - low) / s <= 6), 90)
    return np.round(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step, 6)


def _label(ax: Any, grid: Grid, lon: np.ndarray, lat: np.ndarray) -> None:
    """Label meridians along the southern edge and parallels along the western one.

    Near a pole meridians are labelled at the edge that lies away from it, and all around it there
    are no parallels' labels. Cartopy's gridliner would leave out most labels of a fan-shaped map.
    """
    around = polar(ax.projection)
    (west, east), (south, north) = sides_of(grid, ax.projection), (grid.rows[0], grid.rows[-1])
    edge, far = (north, south) if around and grid.middle[0] < 0 else (south, north)
    if around and grid.periodic:
        lon, lat = np.arange(-180.0, 180.0, 30.0) if len(lon) else lon, lat[:0]
    near = 0.02 * (east - west), 0.02 * (north - south)  # no labels in the corners
    if not (around and grid.periodic):
        lon = lon[(lon > west + near[0]) & (lon < east - near[0])]
    lat = lat[(lat > south + near[1]) & (lat < north - near[1])]
    places = [(x, edge, x, edge + 0.02 * (far - edge), degrees(x, "EW")) for x in lon]
    places += [(west, y, west + near[0], y, degrees(y, "NS")) for y in lat]
    texts = []
    for x, y, x_in, y_in, text in places:
        at = project(ax.projection, [x, x_in], [y, y_in])
        out = (at[0] - at[1]) / max(float(np.hypot(*(at[0] - at[1]))), 1e-12)
        label = ax.annotate(
            text,
            at[0],
            xytext=4 * out,
            textcoords="offset points",
            fontsize=_SMALL,
            color="0.2",
            ha="right" if out[0] < -0.4 else "left" if out[0] > 0.4 else "center",
            va="top" if out[1] < -0.4 else "bottom" if out[1] > 0.4 else "center",
            annotation_clip=False,
        )
        texts.append(label)
    ax.add_artist(_thinner(texts))


def _thinner(texts: list[Any]) -> Any:
    """Hide the labels that would cover others, whenever the map is drawn and at whatever size."""
    from matplotlib.artist import Artist

    class Thinner(Artist):
        zorder = -1  # before the labels

        def draw(self, renderer: Any) -> None:
            taken: list[Any] = []
            for text in texts:
                text.set_visible(True)
                box = text.get_window_extent(renderer)
                gap = renderer.points_to_pixels(3.0)
                text.set_visible(not box.padded(gap, 1).count_overlaps(taken))
                taken += [box] * text.get_visible()

    artist = Thinner()
    artist.set_in_layout(False)
    return artist
