"""A latitude-longitude grid as a graph on the sphere: each point and those nearest to it.

Local coordinates and orientation weights are of the conditional local convolution, Lin et al.:
"Conditional Local Convolution for Spatio-temporal Meteorological Forecasting" (AAAI 2022,
arXiv:2101.01000), sections 4.1 and 4.2, in forms that hold on the whole sphere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ...conventions.angles import is_global
from ...errors import InputError
from .sums import Edges, as_tensor, begins

#: Radians: distances and directions that differ by less are equal but for rounding.
_ROUNDING = 1e-9
_MAPS = ("fast", "log", "horizon")


@dataclass(frozen=True, eq=False)
class Mesh:
    """The points of a grid as N nodes, each with its k nearest nodes, itself the first.

    Nodes are numbered row by row, as an array (H, W) lies in memory: node = row * W + column.
    An edge (i, n) goes from the centre i to the n-th of its neighbours. The mesh is no tensor and
    no weight: it follows from the grid, and is made anew from it.

    Parameters
    ----------
    shape : (int, int)
        H and W, N = H * W.
    position : numpy.ndarray of shape (N, 2)
        Longitude and latitude, radians; a globe's longitudes are from -π to π.
    neighbours : numpy.ndarray of int, shape (N, k)
        Nodes in order of distance.
    distance : numpy.ndarray of shape (N, k)
        Along the great circle, radians.
    local : numpy.ndarray of shape (N, k, 2)
        Where the neighbour lies as seen from the centre: see :meth:`local_coordinates`.
    orientation : numpy.ndarray of shape (N, k)
        Share of the horizon that each neighbour stands for; sums to 1 for each centre.
    """

    shape: tuple[int, int]
    position: np.ndarray
    neighbours: np.ndarray
    distance: np.ndarray
    local: np.ndarray
    orientation: np.ndarray
    _placed: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_grid(cls, grid: Any, neighbours: int = 25, coordinates: str = "fast") -> Mesh:
        """Find the nearest points of every point of a grid.

        Neighbours come in the order of distance; at one distance (to 1e-9 radians) in the order of
        their index, that is by row and then by column. On a globe the columns count from the one
        opposite the centre, so that all columns are treated alike. A region has no neighbours
        beyond its edge; on a globe they are found across the date line and across the poles.

        Parameters
        ----------
        grid : mapping or Grid
            ``{"latitude": [...], "longitude": [...]}`` in degrees.
        neighbours : int
            k, the point itself included; a grid with fewer points has all of them.
        coordinates : {"fast", "log", "horizon"}
            As of :meth:`local_coordinates`.

        Returns
        -------
        Mesh

        Raises
        ------
        InputError
            If the grid has no latitude and longitude, or k or the coordinates are none.
        """
        shape, position = positions(grid)
        if isinstance(neighbours, bool) or not isinstance(neighbours, (int, np.integer)):
            raise InputError(f"neighbours must be a whole number, found {neighbours!r:.60}")
        if neighbours < 1:
            raise InputError(f"neighbours must be at least 1 (the point), found {neighbours}")
        H, W = shape
        lon, lat = position[:W, 0], position[::W, 1]
        globe = is_global(np.rad2deg(lon))
        k = min(int(neighbours), H * W)
        even = globe and bool(np.ptp(np.mod(np.diff(lon), 2 * np.pi)) < 1e-8)
        nearest = np.stack([_row(lat, lon, i, k, globe=globe, even=even) for i in range(H)])
        index = nearest.reshape(H * W, k)
        mesh = cls(shape, position, index, *(np.zeros(0),) * 3)
        distance = great_circle(position[:, None], position[index])
        distance[:, 0] = 0.0
        local = mesh.local_coordinates(coordinates)
        return cls(shape, position, index, distance, local, orientation_weights(local))

    @property
    def nodes(self) -> int:
        """N."""
        return len(self.position)

    @property
    def k(self) -> int:
        """Neighbours of a node, itself included."""
        return self.neighbours.shape[1]

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Centre and neighbour of the N k edges, self edges among them."""
        return np.repeat(np.arange(self.nodes), self.k), self.neighbours.ravel()

    @property
    def in_degrees(self) -> np.ndarray:
        """How many nodes list each node (N,), itself included."""
        return np.bincount(self.neighbours.ravel(), minlength=self.nodes)

    @property
    def reverse(self) -> tuple[np.ndarray, np.ndarray]:
        """Edges (N k,) sorted by their neighbour, and where each node's begin (N,).

        ``order[begin[j]:begin[j] + in_degrees[j]] // k`` are the nodes that list j.
        """
        listed = self.neighbours.ravel()
        return np.argsort(listed, kind="stable"), begins(listed, self.nodes)

    def adjacency(
        self, kind: str = "neighbours", *, itself: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Edges of the graph in one of its forms, with their weights.

        Parameters
        ----------
        kind : {"neighbours", "symmetric", "distance"}
            1 for each of a node's neighbours; 1 where either of two nodes lists the other; for each
            neighbour exp(-(d / s)^2), with s the standard deviation of all distances in the mesh.
        itself : bool
            Whether each node has an edge to itself.

        Returns
        -------
        centre, neighbour : numpy.ndarray of int, shape (E,)
        weight : numpy.ndarray of shape (E,)

        Raises
        ------
        InputError
            If there is no such form.
        """
        centre, neighbour = self.edges
        weight = np.ones(len(centre))
        if kind == "symmetric":
            code = np.concatenate(
                [centre * self.nodes + neighbour, neighbour * self.nodes + centre]
            )
            centre, neighbour = np.divmod(np.unique(code), self.nodes)
            weight = np.ones(len(centre))
        elif kind == "distance":
            weight = np.exp(-((self.distance.ravel() / (self.distance.std() or 1.0)) ** 2))
        elif kind != "neighbours":
            raise InputError(
                f"adjacency must be 'neighbours', 'symmetric' or 'distance', found {kind!r:.60}"
            )
        kept = (centre != neighbour) | itself
        return centre[kept], neighbour[kept], weight[kept]

    def local_coordinates(self, kind: str = "fast") -> np.ndarray:
        """Two coordinates of each neighbour as seen from its centre.

        Parameters
        ----------
        kind : {"fast", "log", "horizon"}
            "fast": differences of longitude, within ±π, and of latitude; near a pole they are not
            distances. "log": east and north of the azimuthal-equidistant map round the centre.
            "horizon": the distance times the unit vector of (cos φ' sin Δλ, sin φ' − sin φ).

        Returns
        -------
        numpy.ndarray of shape (N, k, 2), float64
            Radians.

        Raises
        ------
        InputError
            If there are no such coordinates.
        """
        if kind not in _MAPS:
            raise InputError(f"coordinates must be one of {', '.join(_MAPS)}; found {kind!r:.60}")
        there, here = self.position[self.neighbours], self.position[:, None]
        turn = there[..., 0] - here[..., 0]
        turn = turn - 2 * np.pi * np.ceil((turn - np.pi) / (2 * np.pi) - _ROUNDING)  # (-π, π]
        if kind == "fast":
            return np.stack([turn, there[..., 1] - here[..., 1]], -1)
        phi, to = here[..., 1], there[..., 1]
        east = np.cos(to) * np.sin(turn)
        if kind == "log":
            # sin of the difference plus what the meridians' convergence adds: no cancellation
            north = np.sin(to - phi) + 2 * np.sin(phi) * np.cos(to) * np.sin(turn / 2) ** 2
        else:
            north = np.sin(to) - np.sin(phi)
        flat = np.stack([east, north], -1)
        flat[np.abs(flat) < 1e-14] = 0.0  # the sine of π is none
        length = np.linalg.norm(flat, axis=-1, keepdims=True)
        unit = np.divide(flat, length, out=np.zeros_like(flat), where=length > 0)
        return great_circle(here, there)[..., None] * unit

    def neighbour_sum(self, x: Tensor, weight: Tensor) -> Tensor:
        """Sum over each node's neighbours, y_i = Σ_n w_in x_(neighbours_in).

        Parameters
        ----------
        x : Tensor of shape (N, ...)
        weight : Tensor of shape (N, k)

        Returns
        -------
        Tensor of shape (N, ...)
            Gradients go to both, once: there is no second derivative.
        """
        return self._sums.sum(x, weight.reshape(-1))

    @cached_property
    def _sums(self) -> Edges:
        return Edges(*self.edges, self.nodes)

    def on(self, like: Tensor, *names: str) -> list[Tensor]:
        """Arrays of the mesh as tensors, made once for each device and type.

        Parameters
        ----------
        like : Tensor
            Whose device and, for what is not an index, type they take.
        *names : str
            Attributes of the mesh.

        Returns
        -------
        list of Tensor
        """
        return [as_tensor(self._placed, name, getattr(self, name), like) for name in names]


def great_circle(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Distance on the unit sphere, exact for near and for opposite points alike.

    Parameters
    ----------
    here, there : numpy.ndarray of shape (..., 2)
        Longitude and latitude, radians.

    Returns
    -------
    numpy.ndarray of shape (...)
        Radians.
    """
    turn = there[..., 0] - here[..., 0]
    phi, to = here[..., 1], there[..., 1]
    east = np.cos(to) * np.sin(turn)
    north = np.cos(phi) * np.sin(to) - np.sin(phi) * np.cos(to) * np.cos(turn)
    along = np.sin(phi) * np.sin(to) + np.cos(phi) * np.cos(to) * np.cos(turn)
    return np.arctan2(np.hypot(east, north), along)


def orientation_weights(local: np.ndarray, *, coded: bool = False) -> np.ndarray:
    """Share of the horizon for which each neighbour stands.

    Half the angle to the next direction on either side, divided by the whole turn, and equally
    between neighbours of one direction (to 1e-9 radians). The centre itself counts as due east.

    Parameters
    ----------
    local : numpy.ndarray of shape (N, k, 2)
        Local coordinates.
    coded : bool
        As the public code of the conditional local convolution measures them: from the last
        direction to the first it goes the long way round, so that sums reach 1.9, and directions
        count as different if only rounding makes them so.

    Returns
    -------
    numpy.ndarray of shape (N, k)
        Sums to 1 over k.
    """
    turn, k = 2 * np.pi, local.shape[1]
    angle = np.arctan2(local[..., 1], local[..., 0])
    if not coded:
        angle = np.mod(angle, turn)
        angle = np.where(turn - angle < _ROUNDING, 0.0, angle)
    order = np.argsort(angle, axis=1, kind="stable")
    angle = np.take_along_axis(angle, order, 1)
    new = np.diff(angle, axis=1, prepend=-turn) > (
        0 if coded else _ROUNDING
    )  # the first of each direction
    begin = np.maximum.accumulate(np.where(new, np.arange(k), 0), axis=1)
    end = np.minimum.accumulate(np.where(new, np.arange(k), k)[:, ::-1], axis=1)[:, ::-1]
    end = np.concatenate([end[:, 1:], np.full((len(end), 1), k)], axis=1)
    twice = np.concatenate([angle, angle[:, :1] + turn], axis=1)
    after = np.take_along_axis(twice, end, 1) - np.take_along_axis(angle, begin, 1)
    if coded:
        after = np.where(end == k, angle[:, -1:] - angle[:, :1], after)
    before = np.take_along_axis(after, begin - 1, 1)  # round the circle, from the last
    weight = np.empty_like(angle)
    np.put_along_axis(weight, order, (after + before) / (2 * turn) / (end - begin), 1)
    return weight


def positions(grid: Any) -> tuple[tuple[int, int], np.ndarray]:
    """Where the nodes of a grid lie.

    Parameters
    ----------
    grid : mapping or Grid
        ``{"latitude": [...], "longitude": [...]}`` in degrees.

    Returns
    -------
    shape : (int, int)
        H and W.
    position : numpy.ndarray of shape (N, 2)
        Longitude and latitude, radians; a globe's longitudes are from -π to π.

    Raises
    ------
    InputError
        If it has none.
    """
    axes = grid if isinstance(grid, Mapping) else getattr(grid, "axes", {})
    if not {"latitude", "longitude"} <= set(axes):
        found = f"a grid of {', '.join(axes)}" if axes else f"{grid!r:.60}"
        raise InputError(
            f"a graph network needs the latitudes and longitudes of its nodes, found {found}: "
            'give {"latitude": [...], "longitude": [...]} in degrees'
        )
    lat, lon = (np.asarray(axes[n], np.float64) for n in ("latitude", "longitude"))
    for name, values in (("latitude", lat), ("longitude", lon)):
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise InputError(f"{name} must be a list of degrees, found {axes[name]!r:.60}")
    if np.abs(lat).max() > 90 + 1e-6:
        raise InputError(f"latitude must lie within ±90 degrees, found {np.abs(lat).max():g}")
    if is_global(lon):
        lon = np.mod(lon + 180.0, 360.0) - 180.0
    both = np.broadcast_arrays(np.deg2rad(lon)[None, :], np.deg2rad(lat)[:, None])
    return (len(lat), len(lon)), np.stack(both, -1).reshape(-1, 2)


def _row(
    lat: np.ndarray, lon: np.ndarray, i: int, k: int, *, globe: bool, even: bool
) -> np.ndarray:
    """The k nearest nodes (W, k) of each node of row i; one node will do where columns are even.

    Rows are taken in the order of their distance, until the next could hold no nearer node.
    """
    H, W = len(lat), len(lon)
    apart = np.abs(lat - lat[i])
    order = np.argsort(apart, kind="stable")
    step = np.arange(W)
    centres = np.zeros(1, int) if even else step
    near = min(H, -(-k // W) + 2)
    while True:
        rows = np.sort(order[:near])
        column = np.broadcast_to(step, (len(centres), len(rows), W))
        if even:  # differences of longitude that are exactly alike on both sides
            turn = np.minimum(step, W - step) * (2 * np.pi / W)
            turn = np.broadcast_to(turn, column.shape)
        else:
            turn = (lon[None, :] - lon[centres, None])[:, None] + np.zeros(column.shape)
        here = np.stack([np.zeros_like(turn), np.full_like(turn, lat[i])], -1)
        there = np.stack([turn, np.broadcast_to(lat[rows][:, None], turn.shape)], -1)
        distance = great_circle(here, there)
        itself = np.arange(len(centres)), np.searchsorted(rows, i), centres
        distance[itself] = -1.0  # first, even where others lie at the same point
        flat = distance.reshape(len(centres), -1)
        sort = np.argsort(flat, axis=1, kind="stable")
        ascending = np.take_along_axis(flat, sort, 1)
        enough = near == H or (
            flat.shape[1] >= k and ascending[:, k - 1].max() < apart[order[near]] - _ROUNDING
        )
        if enough:
            break
        near = min(H, 2 * near)
    group = np.empty(sort.shape, int)
    ties = np.cumsum(np.diff(ascending, axis=1, prepend=-2.0) > _ROUNDING, axis=1)
    np.put_along_axis(group, sort, ties, 1)
    offset = np.mod(column - centres[:, None, None] + W // 2, W) if globe else column
    rank = (np.arange(len(rows))[:, None] * W + offset).reshape(len(centres), -1)
    first = np.lexsort((rank, group), axis=1)[:, :k]
    row, column = rows[first // W], first % W
    if even:
        column = (column + step[:, None]) % W
        row = np.broadcast_to(row, column.shape)
    return row * W + column
