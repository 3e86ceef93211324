"""Grids: their cells, what differs between two of them, and regridding that keeps integrals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from stforecast.conventions.grid import Grid, area_weights, axis_difference, cell_bounds
from stforecast.conventions.regrid import covers, to_grid
from stforecast.errors import InputError


def gaussian(n):
    return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(n)[0]))


def centred(n):
    return (np.arange(n) + 0.5) * 180 / n - 90


def poles(n):
    return np.linspace(-90, 90, n)


def globe(rows, columns, start=0.0):
    return Grid(rows, start + np.arange(columns) * 360 / columns)


def field(grid, seed=0):
    values = np.random.default_rng(seed).normal(280, 10, grid.shape)
    return xr.Dataset({"t": (("latitude", "longitude"), values)}, grid.axes)


@pytest.mark.parametrize("rows", [gaussian(32), centred(9), poles(19), gaussian(48)[::-1]])
@pytest.mark.parametrize("start", [0.0, 2.8125, -180.0])
def test_cells_of_a_global_grid_cover_the_sphere_once(rows, start):
    grid = globe(rows, 12, start)
    latitude, longitude = grid.bounds()
    assert (latitude.min(), latitude.max()) == (-90, 90)
    np.testing.assert_allclose(np.ptp(np.sin(np.deg2rad(latitude)), axis=1).sum(), 2, rtol=1e-14)
    np.testing.assert_allclose(np.ptp(longitude, axis=1).sum(), 360, rtol=1e-14)
    np.testing.assert_array_equal(longitude[1:, 0], longitude[:-1, 1])
    np.testing.assert_array_equal(grid.area()[:, 3], area_weights(rows))
    assert grid.periodic


def test_cells_of_a_region_and_of_pixels():
    rows, columns = Grid(np.array([10.0, 12.0, 14.0]), np.array([-2.0, 0.0])).bounds()
    assert rows.tolist() == [[9, 11], [11, 13], [13, 15]]
    assert columns.tolist() == [[-3, -1], [-1, 1]]
    rows, columns = Grid(y=2, x=np.array([0.0, 10.0, 20.0])).bounds()
    assert rows.tolist() == [[-0.5, 0.5], [0.5, 1.5]]
    assert columns.tolist() == [[-5, 5], [5, 15], [15, 25]]
    np.testing.assert_array_equal(Grid(y=2, x=3).area(), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Grid(np.array([0.0, 5.0]), np.array([1.0, 2.0])), None),
        (Grid(np.array([0.0, 5.0005]), np.array([1.0, 2.0])), None),
        (
            Grid(np.array([0.0, 5.002]), np.array([1.0, 2.0])),
            "latitude has 2 points from 0 to 5 and 2 points from 0 to 5.002, up to 0.002 apart",
        ),
        (
            Grid(np.array([0.0, 5.0]), np.array([1.0, 2.0, 3.0])),
            "longitude has 2 points from 1 to 2 and 3 points from 1 to 3",
        ),
        (Grid(np.array([0.0, np.nan]), np.array([1.0, 2.0])), "up to nan apart"),
        (Grid(y=2, x=2), "latitude and longitude in one, y and x in the other"),
    ],
)
def test_a_difference_is_said_in_words(other, words):
    grid = Grid(np.array([0.0, 5.0]), np.array([1.0, 2.0]))
    found = grid.difference(other)
    assert found is None if words is None else words in found
    assert grid.same_as(other) == (words is None)


def test_pixels_without_coordinates_differ_by_their_number_only():
    assert Grid(y=2, x=3).same_as(Grid(y=np.array([5.0, 6.0]), x=3))
    assert Grid(y=2, x=3).difference(Grid(y=2, x=4)) == "x has 3 points and 4 points"
    dates = np.array(["2000-01-01", "2000-01-02"], "datetime64[D]")
    assert axis_difference("day", dates, dates) is None
    assert "2000-01-03" in axis_difference("day", dates, dates + 1)


def test_axes_of_no_points_and_of_points_without_coordinates():
    assert axis_difference("x", np.empty(0), np.empty(0)) is None
    assert axis_difference("x", 3, 3) is None
    assert axis_difference("x", 3, np.arange(3.0)) == "x has 3 points and 3 points from 0 to 2"
    assert axis_difference("x", np.array([1.0]), np.array([1.001])) is None  # to the tolerance
    assert not Grid(y=2, x=3).periodic
    single = Grid(np.array([48.0]), np.array([2.0]))
    assert single.describe() == "1 x 1 points, 360 x 360 degrees, 48 to 48 north, 2 to 2 east"
    assert single.same_cells(Grid(np.array([49.0]), np.array([2.0])))


def test_cells_end_at_the_poles_and_hold_their_points():
    wide = cell_bounds([80, 90], bounds=[75, 85, 95])
    assert wide.tolist() == cell_bounds([80, 90], bounds=[[75, 85], [95, 85]]).tolist()
    assert wide.tolist() == [[75, 85], [85, 90]]
    assert cell_bounds([0.0, 90.0000005])[1, 1] == 90  # rounding
    assert cell_bounds([10.0], bounds=[10.0000005, 20]).tolist() == [[10.0000005, 20]]
    assert cell_bounds([20.0], bounds=[10, 19.9999995]).tolist() == [[10, 19.9999995]]
    for latitude, bounds in (
        *(([0.0, 90.00001], None), ([10.0], [10.00001, 20]), ([20.0], [10, 19.99999])),
        *(([0.0, 10, 20], [[-5, 5], [5, 15]]), ([0.0, 10], [[-5, 5, 6], [5, 15, 16]])),
    ):
        with pytest.raises(InputError, match=r"found|within the bounds"):
            cell_bounds(latitude, bounds=bounds)
    one = area_weights([48.0], bounds=[40, 50])
    assert one.tolist() == [1.0]


def test_the_same_cells_may_start_elsewhere_round_the_globe():
    grid = globe(gaussian(32), 64)
    assert grid.same_cells(globe(centred(32), 64, 2.8))
    assert not grid.same_cells(globe(gaussian(32), 32))
    assert not grid.same_cells(globe(gaussian(32) + 2, 64))
    region = Grid(np.array([0.0, 1.0]), np.array([5.0, 6.0]))
    assert region.same_cells(Grid(np.array([0.1, 1.1]), np.array([5.2, 6.2])))
    assert not region.same_cells(Grid(np.array([0.0, 1.0]), np.array([5.5, 6.5])))


def test_a_grid_goes_through_json():
    for grid in (globe(gaussian(4), 8), Grid(y=np.arange(4.0), x=3)):
        saved = json.loads(json.dumps(grid.to_dict()))
        assert Grid.from_dict(saved).same_as(grid, 0)
    assert saved == {"y": 4, "x": 3}
    assert Grid.of(field(globe(gaussian(4), 8))).same_as(globe(gaussian(4), 8), 0)
    assert Grid(y=4, x=3).describe() == "4 x 3 points without latitude and longitude"
    with pytest.raises(InputError, match=r"latitude and longitude \(or y and x\).*'time'"):
        Grid.of(xr.Dataset({"t": ("time", [0])}))


ROWS = st.sampled_from([gaussian, centred, poles])


@st.composite
def finer_and_coarser(draw):
    """A source that is finer than its target, which it covers; each global or regional."""
    fine, coarse = draw(st.integers(24, 60)), draw(st.integers(3, 12))
    source = globe(draw(ROWS)(fine), 2 * fine, draw(st.sampled_from([0.0, 0.9, -180.0])))
    target = globe(draw(ROWS)(coarse), 2 * coarse, draw(st.sampled_from([0.0, 4.3])))
    if draw(st.booleans()):  # a region of the target, and perhaps one of the source
        rows, columns = draw(st.integers(0, coarse - 3)), draw(st.integers(0, coarse - 3))
        target = Grid(target.latitude[rows : rows + 3], target.longitude[columns : columns + 3])
        if draw(st.booleans()):
            south, north = (edge(target.bounds()[0]) for edge in (np.min, np.max))
            west, east = (edge(target.bounds()[1]) for edge in (np.min, np.max))
            source = globe(source.latitude, 2 * fine, -180.0)
            inside = (source.latitude >= south - 1) & (source.latitude <= north + 1)
            across = (source.longitude >= west - 1) & (source.longitude <= east + 1)
            if east > 175 or inside.sum() < 9 or across.sum() < 9:
                source = globe(source.latitude, 2 * fine)
            else:
                source = Grid(source.latitude[inside], source.longitude[across])
    turned = [
        Grid(grid.latitude[:: draw(st.sampled_from([1, -1]))], grid.longitude)
        for grid in (source, target)
    ]
    return turned[0], turned[1]


def area_within(grid, other):
    """Areas (H, W) of the cells of a grid, as far as they lie in the extent of another."""
    sides = []
    for axis, turn in ((0, 0.0), (1, 360.0 * (grid.periodic or other.periodic))):
        cells, extent = grid.bounds()[axis], other.bounds()[axis]
        size = 0
        for shift in {-turn, 0.0, turn}:
            part = np.clip(cells + shift, extent.min(), extent.max())
            size = size + np.ptp(np.sin(np.deg2rad(part)) if axis == 0 else part, axis=1)
        sides.append(size)
    return np.outer(*sides)


@given(finer_and_coarser())
def test_regridding_keeps_the_integral_over_the_area_that_both_cover(pair):
    source, target = pair
    ds = field(source)
    out = to_grid(ds, target)
    assert Grid.of(out).same_as(target, 0)
    before = (ds["t"].values * area_within(source, target)).sum()
    after = (out["t"].values * area_within(target, source)).sum()
    assert after == pytest.approx(before, rel=1e-12)


def test_regridding_a_gaussian_grid_keeps_the_mean_of_the_globe():
    source, target = globe(gaussian(64), 128), globe(gaussian(32), 64, 1.4)
    ds = field(source)
    out = to_grid(ds, target)["t"].values
    mean = (ds["t"].values * source.area()).mean()
    assert (out * target.area()).mean() == pytest.approx(mean, rel=1e-14)
    flipped = to_grid(ds.isel(latitude=slice(None, None, -1)), target)["t"].values
    np.testing.assert_allclose(flipped, out, rtol=1e-14)


def test_interpolation_does_not_mind_the_order_of_rows():
    source, target = globe(centred(9), 18), globe(gaussian(20), 40)
    ds = field(source)
    back = ds.isel(latitude=slice(None, None, -1))
    one, other = (to_grid(d, target)["t"].values for d in (ds, back))
    np.testing.assert_allclose(other, one, rtol=1e-14)


def test_what_the_data_do_not_cover_is_refused():
    region = Grid(np.linspace(10, 20, 11), np.linspace(0, 10, 11))
    with pytest.raises(InputError, match=r"11 x 11 points.*do not cover the model's grid \(9 x 18"):
        to_grid(field(region), globe(centred(9), 18))


def test_a_row_without_extent_is_not_covered():
    row = Grid(np.array([10.0]), np.arange(0.0, 360, 20))
    assert not covers(globe(centred(18), 36), row)
    assert covers(globe(centred(18), 36), globe(centred(9), 18))


def test_data_a_tenth_finer_are_interpolated_still():
    values = xr.Dataset({"t": (("latitude", "longitude"), np.eye(3))})
    for spacing, between in ((9.0, 0.0), (8.9, None)):
        rows = np.array([-spacing, 0.0, spacing])
        source = values.assign_coords(latitude=rows, longitude=rows)
        target = Grid(np.array([-10.0, 0.0]), np.array([0.0, 10.0]))
        out = to_grid(source, target)["t"].values
        assert (out[1, 0] == 1.0) == (between == 0.0)  # else a mean over cells


def test_coarser_data_are_not_carried_beyond_their_cells():
    coarse = Grid(np.array([10.0, 15, 20]), np.array([40.0, 45, 50]))  # cells: 7.5 to 22.5, 37.5 on
    inside = Grid(np.arange(8.0, 23), np.arange(38.0, 53))
    out = to_grid(field(coarse), inside)["t"].values
    values = field(coarse)["t"].values
    assert out[0, 0] == pytest.approx(values[0, 0])  # the outer cells are constant
    assert out[7, 7] == pytest.approx(values[1, 1])
    assert out[4, 2] == pytest.approx(0.6 * values[0, 0] + 0.4 * values[1, 0])
    for rows, columns in (
        (np.arange(6.0, 23), inside.longitude),
        (np.arange(8.0, 25), inside.longitude),
        (inside.latitude, np.arange(36.0, 53)),
        (inside.latitude, np.arange(38.0, 55)),
    ):
        assert not covers(coarse, Grid(rows, columns))
