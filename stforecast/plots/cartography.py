"""How a grid lies on a map: its cells, a projection that fits, outlines, frame and labels.

The public functions are in :mod:`stforecast.plots`. Nothing here uses the network or pyplot, and
nothing changes the settings of matplotlib or cartopy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..conventions import grid as conventions
from ..conventions.axes import LAT, LEAD, LON, TIME, Axis, find_axes
from ..errors import InputError
from .coastlines import BORDERS, COASTLINE, Box, outlines
from .labels import degrees

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FINE = 1.5  # degrees: larger cells are cut up, so that their sides bend as meridians do
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 90)  # between labelled meridians
_SMALL = 8  # points: size of the labels around a map


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
    """

    dims: tuple[Any, Any]
    rows: np.ndarray
    columns: np.ndarray
    row_order: np.ndarray
    column_order: np.ndarray
    geographic: bool = False
    periodic: bool = False

    @classmethod
    def of(cls, field: xr.DataArray) -> Grid:
        """Find the grid of a field that :func:`single_field` has passed."""
        ds = field.to_dataset(name="field")
        found = {role: (dim, coord) for dim, (role, coord) in find_axes(ds).items()}
        if not {LAT, LON} <= set(found):
            (rows, down), (columns, across) = (_plain(field, dim) for dim in field.dims)
            return cls((field.dims[0], field.dims[1]), rows, columns, down, across)
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
    """Dimensions of space: those that are latitude, longitude, y or x, or else the last two."""
    roles = find_axes(field.to_dataset(name="field"))
    space = [d for d, (role, _) in roles.items() if role not in (TIME, LEAD)]
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
    return field


def _plain(field: xr.DataArray, dim: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sides and order of cells along a dimension that is no latitude or longitude."""
    n = field.sizes[dim]
    if dim in field.coords and field[dim].dtype.kind in "fiu" and n > 1:
        order = np.argsort(field[dim].values, kind="stable")
        values = field[dim].values[order].astype(float)
        if np.all(np.diff(values) > 0):
            return conventions.cell_edges(values), order
    return np.arange(n + 1) - 0.5, np.arange(n)


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


def _sides(grid: Grid, projection: Any) -> tuple[float, float]:
    """Western and eastern side of the map, a hair apart where they are one meridian."""
    if not grid.periodic:
        return float(grid.columns[0]), float(grid.columns[-1])
    return _centre(projection) - 180 + 1e-6, _centre(projection) + 180 - 1e-6


def _project(projection: Any, lon: Any, lat: Any) -> np.ndarray:
    import cartopy.crs as ccrs

    lon, lat = np.broadcast_arrays(np.asarray(lon, float), np.asarray(lat, float))
    return projection.transform_points(ccrs.PlateCarree(), lon, lat)[..., :2]


def outline(grid: Grid, projection: Any) -> np.ndarray | None:
    """Border of a regional grid in the projection's units; None to show all of the projection."""
    if grid.whole:
        return None
    west, east = _sides(grid, projection)
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
    path = np.concatenate([_project(projection, *part) for part in parts])
    steps = np.abs(np.diff(path, axis=0))
    # Not finite, or torn apart: a projection of the caller's that does not show the grid in one.
    broken = not np.isfinite(path).all() or steps.max() > np.ptp(projection.x_limits) / 4
    return None if broken else path


def aspect(grid: Grid, projection: Any | None) -> float:
    """Width of the map divided by its height."""
    if projection is None:
        width, height = len(grid.column_order), len(grid.row_order)
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

        x[0], x[-1] = _sides(grid, ax.projection)  # type: ignore[attr-defined]
        style["transform"] = ccrs.PlateCarree()
    return ax.pcolormesh(x, y, cell_values(ax, grid, field), rasterized=True, **style)


def cell_values(ax: Axes, grid: Grid, field: xr.DataArray) -> np.ma.MaskedArray:
    """Values of `field` (dims of `grid`) in the cells that :func:`draw` draws on these axes."""
    values = np.ma.masked_invalid(np.asarray(field.transpose(*grid.dims).values, dtype=float))
    _, _, rows, columns = grid.cells(_map_centre(ax))
    return values[np.ix_(rows, columns)]


def _map_centre(ax: Any) -> float:
    return _centre(ax.projection) if hasattr(ax, "projection") else 0.0


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
    lon = _ticks(*_sides(grid, ax.projection))
    lat = _ticks(float(grid.rows[0]), float(grid.rows[-1]))
    style = {"linewidth": 0.4, "color": "0.3", "alpha": 0.4, "linestyle": "-"}
    ax.gridlines(xlocs=(lon + 180) % 360 - 180, ylocs=lat, **style)
    if path is not None:
        _label(ax, grid, lon if bottom else lon[:0], lat if left else lat[:0])


def _pixel_frame(ax: Axes, grid: Grid, *, left: bool, bottom: bool) -> None:
    """Rows of pixels go down, as in a picture."""
    from matplotlib.ticker import MaxNLocator

    ax.set_box_aspect(1 / aspect(grid, None))
    ax.invert_yaxis()
    for axis, dim, shown in ((ax.yaxis, grid.dims[0], left), (ax.xaxis, grid.dims[1], bottom)):
        axis.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_tick_params(labelsize=_SMALL, labelleft=shown, labelbottom=shown)
        if shown:
            axis.set_label_text(str(dim), fontsize=_SMALL)


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
    (west, east), (south, north) = _sides(grid, ax.projection), (grid.rows[0], grid.rows[-1])
    edge, far = (north, south) if around and grid.middle[0] < 0 else (south, north)
    if around and grid.periodic:
        lon, lat = np.arange(-180.0, 180.0, 30.0) if len(lon) else lon, lat[:0]
    near = 0.02 * (east - west), 0.02 * (north - south)  # no labels in the corners
    if not (around and grid.periodic):
        lon = lon[(lon > west + near[0]) & (lon < east - near[0])]
    lat = lat[(lat > south + near[1]) & (lat < north - near[1])]
    places = [(x, edge, x, edge + 0.02 * (far - edge), degrees(x, "EW")) for x in lon]
    places += [(west, y, west + near[0], y, degrees(y, "NS")) for y in lat]
    for x, y, x_in, y_in, text in places:
        at = _project(ax.projection, [x, x_in], [y, y_in])
        out = (at[0] - at[1]) / max(float(np.hypot(*(at[0] - at[1]))), 1e-12)
        ax.annotate(
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
