"""The nearest points of a grid on the sphere, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stforecast.errors import InputError
from stforecast.models.graph import FixedSum, Mesh, orientation_weights

GLOBE = {"latitude": np.linspace(-87.1875, 87.1875, 32), "longitude": np.arange(64) * 5.625}
REGION = {"latitude": [30.0, 40.0, 50.0], "longitude": [-20.0, -10.0, 0.0, 10.0, 20.0]}


def test_polar_row_reaches_round_its_circle_and_the_date_line_is_none():
    mesh = Mesh.from_grid(GLOBE, 25)
    circle = (np.arange(-12, 13) + 5) % 64
    assert sorted(mesh.neighbours[5]) == sorted(circle)
    node = 16 * 64  # at 2.8 degrees north, on the first meridian: a box of 5 x 5
    rows, columns = np.divmod(mesh.neighbours[node], 64)
    assert set(rows) == set(range(14, 19))
    assert set(columns) == {62, 63, 0, 1, 2}
    assert mesh.neighbours[node, 0] == node
    assert mesh.distance[node, 0] == 0


def test_neighbours_are_found_across_a_pole():
    grid = {"latitude": [-60.0, 0.0, 60.0, 88.0], "longitude": np.arange(4) * 90.0}
    mesh = Mesh.from_grid(grid, 4)
    top = 3 * 4
    assert sorted(mesh.neighbours[top]) == [12, 13, 14, 15]
    np.testing.assert_allclose(np.rad2deg(mesh.distance[top].max()), 4.0)


def test_a_region_does_not_wrap():
    mesh = Mesh.from_grid(REGION, 4)
    columns = mesh.neighbours[::5] % 5
    assert columns.max() <= 3
    turn = mesh.local_coordinates("fast")[..., 0]
    assert np.abs(np.rad2deg(turn)).max() < 31


@pytest.mark.parametrize(
    "grid",
    [
        {"latitude": np.linspace(-85, 88, 12), "longitude": np.arange(20) * 18.0},
        {"latitude": np.linspace(-85, 88, 12), "longitude": np.arange(20) * 17.0},
        REGION,
    ],
)
def test_nearest_by_brute_force(grid):
    mesh = Mesh.from_grid(grid, 9)
    lon, lat = mesh.position.T
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    far = np.linalg.norm(points[:, None] - points[None], axis=-1)
    expected = np.sort(2 * np.arcsin(np.clip(far / 2, 0, 1)), axis=1)[:, :9]
    np.testing.assert_allclose(mesh.distance, expected, atol=1e-7)


def test_ties_go_by_index_and_turn_with_the_globe():
    """On this grid every node has a tie at the last place."""
    grid = {"latitude": (np.arange(24) - 11.5) * 7.5, "longitude": np.arange(40) * 9.0}
    mesh = Mesh.from_grid(grid, 16)
    rows, columns = np.divmod(mesh.neighbours, 40)
    offset = (columns - np.arange(960)[:, None] % 40 + 20) % 40
    for part in (rows, offset):
        part = part.reshape(24, 40, 16)
        assert (part == part[:, :1]).all()
    region = Mesh.from_grid({"latitude": [0.0], "longitude": [0.0, 1.0, 2.0, 3.0]}, 2)
    assert region.neighbours.tolist() == [[0, 1], [1, 0], [2, 1], [3, 2]]


def test_reverse_lists_and_in_degrees():
    mesh = Mesh.from_grid(GLOBE, 7)
    order, begin = mesh.reverse
    for node in (0, 100, 2047):
        listing = order[begin[node] : begin[node] + mesh.in_degrees[node]] // mesh.k
        assert sorted(listing) == sorted(np.flatnonzero((mesh.neighbours == node).any(1)))


def test_orientation_weights_of_a_cross():
    """Itself counts as due east."""
    local = np.array([[[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]]], float)
    weights = orientation_weights(local)[0]
    np.testing.assert_allclose(weights, [0.125, 0.125, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(orientation_weights(np.zeros((1, 4, 2))), 0.25)


def test_a_grid_with_fewer_points_has_all_of_them():
    assert Mesh.from_grid(REGION, 25).neighbours.shape == (15, 15)


def test_pole_points_come_first_themselves():
    mesh = Mesh.from_grid({"latitude": [-90.0, 0.0, 90.0], "longitude": np.arange(8) * 45.0}, 5)
    assert (mesh.neighbours[:, 0] == np.arange(24)).all()
    for kind in ("fast", "log", "horizon"):
        assert np.isfinite(mesh.local_coordinates(kind)).all()


def test_sums_are_products_with_the_matrix():
    mesh = Mesh.from_grid(REGION, 4)
    weight = torch.rand(15, 4, dtype=torch.float64, requires_grad=True)
    x = torch.rand(15, 2, 3, dtype=torch.float64, requires_grad=True)
    index = torch.from_numpy(mesh.neighbours)
    dense = torch.zeros(15, 15, dtype=torch.float64).scatter(1, index, weight)
    expected = torch.einsum("ij,jbc->ibc", dense, x)
    torch.testing.assert_close(mesh.neighbour_sum(x, weight), expected)
    assert torch.autograd.gradcheck(mesh.neighbour_sum, (x, weight))
    centre, neighbour = mesh.edges
    fixed = FixedSum(neighbour, centre, weight.detach().numpy().ravel(), 15)
    torch.testing.assert_close(fixed(x), torch.einsum("ij,ibc->jbc", dense.detach(), x))
    assert torch.autograd.gradcheck(fixed, (x,))


@pytest.mark.parametrize(
    ("grid", "options", "said"),
    [
        (None, {}, "latitudes and longitudes"),
        ({"y": 3, "x": 4}, {}, "a grid of y, x"),
        (REGION, {"neighbours": 0}, "at least 1"),
        (REGION, {"neighbours": 2.5}, "whole number"),
        (REGION, {"coordinates": "polar"}, "fast, log, horizon"),
        ({**REGION, "latitude": [80.0, 95.0]}, {}, "±90"),
    ],
)
def test_what_is_no_mesh_is_refused(grid, options, said):
    with pytest.raises(InputError, match=said):
        Mesh.from_grid(grid, **options)
