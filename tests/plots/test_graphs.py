"""A mesh on a map: which edges are drawn, and how often each node is read."""

from __future__ import annotations

import numpy as np
import pytest

from stforecast import plots
from stforecast.errors import InputError
from stforecast.models.graph import Mesh

pytest.importorskip("cartopy")


@pytest.fixture(scope="module")
def graph():
    grid = {"latitude": np.linspace(-75, 75, 6), "longitude": np.arange(12) * 30.0}
    return Mesh.from_grid(grid, 5)


def test_edges_lead_to_the_neighbours_where_they_are(graph):
    figure = plots.mesh(graph, [40, 3])
    ax = figure.axes[0]
    ends = {tuple(np.round(line.get_xydata().ravel(), 6)) for line in ax.lines}
    expected = set()
    for node in (40, 3):
        for n in graph.neighbours[node, 1:]:
            lon, lat = (
                (np.array([node, n]) % 12) * 30.0,
                np.linspace(-75, 75, 6)[[node // 12, n // 12]],
            )
            lon = np.where(lon >= 180, lon - 360, lon)
            expected.add((lon[0], lat[0], lon[1], lat[1]))
    assert ends == expected


def test_cells_show_by_how_many_they_are_read(graph):
    figure = plots.mesh(graph, [])
    cells = figure.axes[0].collections[0]
    assert set(np.asarray(cells.get_array()).ravel()) == set(graph.in_degrees)
    assert cells.get_clim() == (graph.in_degrees.min() - 0.5, graph.in_degrees.max() + 0.5)
    assert "5 nearest nodes" in figure.texts[0].get_text()


def test_a_node_that_is_none_is_refused(graph):
    with pytest.raises(InputError, match=r"nodes 0 to 71, found \[72\]"):
        plots.mesh(graph, [5, 72])
