"""How a grid lies on a map: its cells, and a projection that fits.

The public functions are in :mod:`stforecast.plots`. Nothing here uses the network or pyplot, and
nothing changes the settings of matplotlib or cartopy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..conventions import grid as conventions
from ..conventions.axes import LAT, LEAD, LON, TIME, Axis, X, Y, find_axes, role_of
from ..conventions.fields import Field
from ..errors import InputError
from .coastlines import Box
from .labels import with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FINE = 1.5  # degrees: larger cells are cut up, so that their sides bend as meridians do
#: Rows that run from south to north although they have no latitude.
_NORTHWARD = {"rlat", "south_north", "grid_latitude", "projection_y_coordinate"}
_ON_THE_GROUND = ("deg", "rad", "microrad", "metre", "meter", "kilomet")  # their units begin so


# --- cells ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells of a field: where they begin and end, and which row and column lies in each.

    Parameters
    ----------
    dims : (str, str)
        Dimensions of the field: down, across.
    rows, columns : numpy.ndarray
        Sides of the cells, ascending: degrees north and east where `geographic`, else the field's
        own coordinates or indices.
    row_order, column_order : numpy.ndarray of int
        Positions in the field of the rows and columns between these sides.
    geographic, periodic : bool
        Whether this is latitude and longitude, and goes round the globe.
    upward : bool
        Whether the rows of a grid that is not geographic run from the bottom to the top, as on a
        map, and not from the top down, as in a picture.
    names : (str, str)
        What to write along its axes.
    """

    dims: tuple[Any, Any]
    rows: np.ndarray
    columns: np.ndarray
    row_order: np.ndarray
    column_order: np.ndarray
    geographic: bool = False
    periodic: bool = False
    upward: bool = False
    names: tuple[str, str] = ("", "")

    @classmethod
    def of(cls, field: xr.DataArray) -> Grid:
        """Find the grid of a field that :func:`single_field` has passed."""
        ds = field.to_dataset(name="field")
        found = {role: (dim, coord) for dim, (role, coord) in find_axes(ds).items()}
        if not {LAT, LON} <= set(found):
            return cls._plain(field, found)
        dims = found[LAT][0], found[LON][0]
        if min(field.sizes[d] for d in dims) < 2:
            raise InputError(f"a map needs at least 2 rows and 2 columns, found ({_sizes(field)})")
        lat, lon = (Axis.of(role, *found[role], ds) for role in (LAT, LON))
        assert lat.values is not None
        assert lon.values is not None
        points = conventions.Grid(lat.values, lon.values)
        rows, columns = (np.append(cells[:, 0], cells[-1, 1]) for cells in points.bounds())
        down, across = (
            np.arange(n) if axis.order is None else axis.order
            for axis, n in ((lat, lat.values.size), (lon, lon.values.size))
        )
        return cls(dims, rows, columns, down, across, True, points.periodic)

    @classmethod
    def _plain(cls, field: xr.DataArray, found: dict[str, tuple[Any, Any]]) -> Grid:
        """Find the cells of a field that has no latitude and longitude, on its own axes."""
        down, across = field.dims
        if found.get(Y, (None,))[0] == across or found.get(X, (None,))[0] == down:
            down, across = across, down
        coords = dict(found.values())
        (rows, y, row_order), (columns, x, column_order) = (
            _cells_along(field, dim, coords.get(dim)) for dim in (down, across)
        )
        upward = _northward(field.transpose(down, across), y, row_order)
        names = with_unit(y.name, y.attrs.get("units")), with_unit(x.name, x.attrs.get("units"))
        dims, orders = (down, across), (row_order, column_order)
        return cls(dims, rows, columns, *orders, upward=upward, names=names)

    @property
    def middle(self) -> tuple[float, float]:
        """Latitude and longitude of the middle; Greenwich for a grid that goes round."""
        lat, lon = (float(s[0] + s[-1]) / 2 for s in (self.rows, self.columns))
        return lat, 0.0 if self.periodic else lon

    @property
    def whole(self) -> bool:
        """Whether the grid covers the globe but for caps of 10 degrees at most."""
        return self.periodic and bool(self.rows[0] <= -80 and self.rows[-1] >= 80)

    @property
    def box(self) -> Box | None:
        """West, south, east and north; None for a grid that goes round the globe."""
        if self.periodic:
            return None
        x, y = self.columns, self.rows
        return float(x[0]), float(y[0]), float(x[-1]), float(y[-1])

    def cells(self, centre: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Sides of the cells to draw, and the row and column of the field in each.

        The cell that the edge of a map around the longitude `centre` cuts in two is drawn twice, a
        part at each edge: no cell reaches across the map, and there is no white seam.
        """
        y, rows, x, columns = self.rows, self.row_order, self.columns, self.column_order
        if self.periodic:
            low, high, turns = centre - 180.0, centre + 180.0, np.arange(-2, 3) * 360.0
            x = np.append((x[:-1] + turns[:, None]).ravel(), x[-1] + turns[-1])
            columns = np.tile(columns, len(turns))
            inside = (x[1:] > low + 1e-9) & (x[:-1] < high - 1e-9)
            x = x[np.append(inside, False) | np.append(False, inside)].clip(low, high)
            columns = columns[inside]
        if self.geographic:
            y, rows = _cut(y, rows)
            x, columns = _cut(x, columns)
        return y, x, rows, columns


def _sizes(field: xr.DataArray) -> str:
    return ", ".join(f"{dim}: {n}" for dim, n in field.sizes.items())


def space_dims(field: xr.DataArray) -> list[Any]:
    """Dimensions of space: latitude and longitude, or y and x, or else the last two."""
    roles = {d: role for d, (role, _) in find_axes(field.to_dataset(name="field")).items()}
    for pair in ((LAT, LON), (Y, X)):
        # A level called `height` looks like y; of two that do, the longer and the later is it.
        alike = [[d for d in field.dims if roles.get(d) == role] for role in pair]
        if all(alike):
            return [max(reversed(dims), key=lambda d: field.sizes[d] > 1) for dims in alike]
    space = [d for d, role in roles.items() if role not in (TIME, LEAD)]
    return space if len(space) >= 2 else [d for d in field.dims if d not in roles][-2:]


def single_field(field: xr.DataArray) -> xr.DataArray:
    """Drop dimensions of size 1 but those of space; refuse what is no single 2-D field."""
    roles, space = find_axes(field.to_dataset(name="field")), space_dims(field)
    field = field.squeeze([d for d, n in field.sizes.items() if n == 1 and d not in space])
    beside = [d for d in field.dims if d not in space]
    if field.ndim != 2 or any(d in roles for d in beside):
        example = ", ".join(f"{d}=0" for d in beside)
        raise InputError(
            f"a map shows one field of two dimensions of space, found ({_sizes(field)})"
            f"{f': choose one, for instance with da.isel({example})' if beside else ''}"
        )
    return without_wrap_point(_decoded(field))


def _decoded(field: xr.DataArray) -> xr.DataArray:
    """A field as its attributes say: unpacked, in its own units, NaN where it is missing."""
    how = Field.of(field.name or "the field", field.variable, temperature=False)
    if how.packing is None and not how.fill and np.isinf(how.limits).all():
        missing = np.isin(field.values, how.unwritten)
        return field.where(~missing) if missing.any() else field
    out = field.copy(data=how.unpacked.encode(how.decode(field.to_numpy())))
    out.attrs = how.unpacked.attrs
    return out


def without_wrap_point(data: Any) -> Any:
    """Drop the last column where it repeats the first one, a whole turn further east."""
    ds = data.to_dataset(name="field") if isinstance(data, xr.DataArray) else data
    for dim, (role, coord) in find_axes(ds).items():
        if role != LON or coord is None or ds.sizes[dim] < 3:
            continue
        west, east = np.asarray(ds[coord].values[[0, -1]], dtype=float)
        ends = (
            v.isel({dim: [0, -1]}).transpose(dim, ...).values
            for v in ds.data_vars.values()
            if dim in v.dims
        )
        if abs(abs(east - west) - 360) < 1e-3 and all(
            np.array_equal(a, b, equal_nan=True) for a, b in ends
        ):
            return data.isel({dim: slice(None, -1)})
    return data


def _cells_along(
    field: xr.DataArray, dim: Any, coord: Any
) -> tuple[np.ndarray, xr.DataArray, np.ndarray]:
    """Sides of cells along a dimension that is no latitude or longitude, its labels, the order."""
    n = field.sizes[dim]
    along = xr.DataArray(np.arange(n), dims=dim, name=dim) if coord is None else field[coord]
    if along.dtype.kind in "fiu" and n > 1:
        order = np.argsort(along.values, kind="stable")
        values = along.values[order].astype(float)
        if np.all(np.diff(values) > 0):
            return conventions.cell_edges(values), along, order
    return np.arange(n + 1) - 0.5, along, np.arange(n)


def _northward(field: xr.DataArray, y: xr.DataArray, order: np.ndarray) -> bool:
    """Whether rows (y, x), in this order, run from south to north; those of pictures do not."""
    attrs = y.attrs
    for coord in field.coords.values():  # a latitude of every point knows it best
        if coord.dims == field.dims and role_of(coord.name, coord.variable) == LAT:
            return bool(np.nanmean(np.diff(coord.values[order], axis=0)) > 0)
    if attrs.get("positive") in ("up", "down"):
        return bool(attrs["positive"] == "up")
    units = str(attrs.get("units", "")).lower()
    ground = units in ("m", "km") or units.startswith(_ON_THE_GROUND)
    return ground or bool({str(y.name).lower(), attrs.get("standard_name")} & _NORTHWARD)


def _cut(sides: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut cells into equal parts of at most `_FINE` degrees."""
    parts = np.maximum(1, np.ceil(np.diff(sides) / _FINE - 1e-9)).astype(int)
    ends = zip(sides[:-1], sides[1:], parts, strict=True)
    pieces = [np.linspace(a, b, n, endpoint=False) for a, b, n in ends]
    return np.concatenate([*pieces, sides[-1:]]), np.repeat(order, parts)


# --- projection -----------------------------------------------------------------------------------


def projection_for(grid: Grid) -> Any:
    """Choose a projection: equal areas for the globe, true shapes near a pole and between."""
    import cartopy.crs as ccrs

    south, north = float(grid.rows[0]), float(grid.rows[-1])
    lat, lon = grid.middle
    width, height = float(np.ptp(grid.columns)), north - south
    if grid.periodic and (south >= 20 or north <= -20):
        return (ccrs.NorthPolarStereo if lat > 0 else ccrs.SouthPolarStereo)(lon)
    if grid.periodic and max(north, -south) <= 60:  # a belt
        return ccrs.PlateCarree(lon)
    if grid.periodic or width > 200 or height > 110:
        return ccrs.EqualEarth(lon)
    if max(north, -south) > 80 and abs(lat) > 60:
        return (ccrs.NorthPolarStereo if lat > 0 else ccrs.SouthPolarStereo)(lon)
    if south * north >= 0 and abs(lat) >= 20:
        parallels = south + height / 6, north - height / 6
        cutoff = -30 if lat > 0 else 30
        return ccrs.LambertConformal(lon, lat, standard_parallels=parallels, cutoff=cutoff)
    return ccrs.PlateCarree(lon)


def _centre(projection: Any) -> float:
    """Longitude of the middle of a map; plain latitude and longitude call it a prime meridian."""
    parameters = projection.proj4_params
    return float(parameters.get("lon_0", parameters.get("pm", 0.0)))


def polar(projection: Any) -> bool:
    """Whether a map looks down on a pole."""
    return "stere" in str(projection.proj4_params.get("proj"))


def sides_of(grid: Grid, projection: Any) -> tuple[float, float]:
    """Western and eastern side of the map, a hair apart where they are one meridian."""
    if not grid.periodic:
        return float(grid.columns[0]), float(grid.columns[-1])
    return _centre(projection) - 180 + 1e-6, _centre(projection) + 180 - 1e-6


def project(projection: Any, lon: Any, lat: Any) -> np.ndarray:
    """Points (..., 2) on a map."""
    import cartopy.crs as ccrs

    lon, lat = np.broadcast_arrays(np.asarray(lon, float), np.asarray(lat, float))
    return projection.transform_points(ccrs.PlateCarree(), lon, lat)[..., :2]


def outline(grid: Grid, projection: Any) -> np.ndarray | None:
    """Border of a regional grid in the projection's units; None to show all of the projection."""
    if grid.whole:
        return None
    west, east = sides_of(grid, projection)
    south, north = grid.rows[0], grid.rows[-1]
    along = np.linspace(0, 1, 181)
    parts = [
        (west + (east - west) * along, np.full(181, south)),
        (np.full(181, east), south + (north - south) * along),
        (east + (west - east) * along, np.full(181, north)),
        (np.full(181, west), north + (south - north) * along),
    ]
    if grid.periodic and polar(projection):  # the circle is all of it
        parts = [parts[0] if grid.middle[0] > 0 else parts[2]]
    path = np.concatenate([project(projection, *part) for part in parts])
    steps = np.abs(np.diff(path, axis=0))
    # Not finite, or torn apart: a projection of the caller's that does not show the grid in one.
    broken = not np.isfinite(path).all() or steps.max() > np.ptp(projection.x_limits) / 4
    return None if broken else path


def aspect(grid: Grid, projection: Any | None) -> float:
    """Width of the map divided by its height."""
    if projection is None:
        width, height = float(len(grid.column_order)), float(len(grid.row_order))
        if grid.upward and np.ptp(grid.rows) > 0 and np.ptp(grid.columns) > 0:
            width, height = float(np.ptp(grid.columns)), float(np.ptp(grid.rows))
        return float(np.clip(width / height, 0.2, 5))
    path = outline(grid, projection)
    x, y = (projection.x_limits, projection.y_limits) if path is None else path.T
    return float(np.ptp(x) / np.ptp(y))


# --- drawing --------------------------------------------------------------------------------------


def draw(ax: Axes, grid: Grid, field: xr.DataArray, **style: Any) -> Any:
    """Draw the cells of `field` (dims of `grid`), and nothing around them; return the mesh."""
    ax.set_facecolor("0.82")  # shows where values are missing
    y, x, *_ = grid.cells(_map_centre(ax))
    if grid.geographic:
        import cartopy.crs as ccrs

        x[0], x[-1] = sides_of(grid, ax.projection)  # type: ignore[attr-defined]
        style["transform"] = ccrs.PlateCarree()
    return ax.pcolormesh(x, y, cell_values(ax, grid, field), rasterized=True, **style)


def cell_values(ax: Axes, grid: Grid, field: xr.DataArray) -> np.ma.MaskedArray:
    """Values of `field` (dims of `grid`) in the cells that :func:`draw` draws on these axes."""
    values = np.ma.masked_invalid(np.asarray(field.transpose(*grid.dims).values, dtype=float))
    _, _, rows, columns = grid.cells(_map_centre(ax))
    return values[np.ix_(rows, columns)]


def _map_centre(ax: Any) -> float:
    return _centre(ax.projection) if hasattr(ax, "projection") else 0.0
