"""The mesh of a graph network on a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .layout import require
from .maps import plot_map

if TYPE_CHECKING:
    from cartopy.crs import Projection
    from matplotlib.figure import Figure

    from ..models.graph import Mesh

_EDGE = "#c43c1d"


def mesh(
    graph: Mesh,
    nodes: Sequence[int] | None = None,
    *,
    title: str | None = None,
    projection: Projection | None = None,
) -> Figure:
    """Draw which nodes some nodes of a mesh read, and how many nodes each is read by.

    Parameters
    ----------
    graph : stforecast.models.graph.Mesh
    nodes : sequence of int, optional
        Nodes (row * W + column) whose edges are drawn, along great circles; at the end of each its
        neighbour, the larger the more of the horizon it stands for. Default: one in the first row,
        one halfway to the middle, and one in the middle.
    title : str, optional
    projection : cartopy.crs.Projection, optional
        Default: what :func:`projection_for` chooses; ``cartopy.crs.SouthPolarStereo()`` shows what
        happens at the pole.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the mesh has no such node.
    ImportError
        If matplotlib or cartopy is not installed.
    """
    require("matplotlib", "cartopy")
    import cartopy.crs as ccrs

    H, W = graph.shape
    if nodes is None:
        nodes = sorted({row * W + W // 4 for row in (0, H // 4, H // 2)})
    if wrong := [n for n in nodes if not 0 <= n < graph.nodes]:
        raise InputError(f"the mesh has nodes 0 to {graph.nodes - 1:,}, found {wrong[:4]}")
    degrees = np.rad2deg(graph.position)
    field = xr.DataArray(
        graph.in_degrees.reshape(H, W),
        {"latitude": degrees[::W, 1], "longitude": degrees[:W, 0]},
        ("latitude", "longitude"),
        "nodes that read it",
    )
    said = f"Each node's {graph.k} nearest nodes" if title is None else title
    limits = {"vmin": field.values.min() - 0.5, "vmax": field.values.max() + 0.5}
    figure = plot_map(field, title=said, cmap="Blues", projection=projection, **limits)
    ax: Any = figure.axes[0]
    for node in nodes:
        listed, share = graph.neighbours[node], graph.orientation[node]
        for n in listed[1:]:
            line = degrees[[node, n]].T
            ax.plot(*line, color=_EDGE, linewidth=0.8, transform=ccrs.Geodetic())
        size = 4 + 400 * share
        at = degrees[listed].T
        ax.scatter(*at, size, _EDGE, edgecolors="white", transform=ccrs.PlateCarree(), zorder=3)
    return figure
