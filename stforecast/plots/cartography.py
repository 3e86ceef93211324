"""How a grid lies on a map: its cells, a projection that fits, outlines, frame and labels.

The public functions are in :mod:`stforecast.plots`. Nothing here uses the network or pyplot, and
nothing changes the settings of matplotlib or cartopy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..conventions import grid as conventions
from ..conventions.axes import LAT, LEAD, LON, TIME, Axis, find_axes
from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OUTLINES = (  # Natural Earth: category, name, width and colour of the line
    ("physical", "coastline", 0.7, "0.1"),
    ("cultural", "admin_0_boundary_lines_land", 0.4, "0.3"),
)
_SHIPPED = Path(__file__).parents[1] / "natural_earth"
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
        """Find the grid of a field that :func:`flat` has passed."""
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


def space_of(field: xr.DataArray) -> list[Any]:
    """Dimensions of space: those that are latitude, longitude, y or x, or else the last two."""
    roles = find_axes(field.to_dataset(name="field"))
    space = [d for d, (role, _) in roles.items() if role not in (TIME, LEAD)]
    return space if len(space) >= 2 else [d for d in field.dims if d not in roles][-2:]


def flat(field: xr.DataArray) -> xr.DataArray:
    """Drop dimensions of size 1 but those of space; refuse what is no single 2-D field."""
    roles, space = find_axes(field.to_dataset(name="field")), space_of(field)
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


def _polar(projection: Any) -> bool:
    return "stere" in str(projection.proj4_params.get("proj"))


def _sides(grid: Grid, projection: Any) -> tuple[float, float]:
    """Western and eastern side of the map, a hair apart where they are one meridian."""
    if not grid.periodic:
        return float(grid.columns[0]), float(grid.columns[-1])
    return _centre(projection) - 180 + 1e-6, _centre(projection) + 180 - 1e-6


def labels_above(grid: Grid, projection: Any) -> bool:
    """Whether labels stand above the map too: all around a pole, or north of the southern one."""
    around = projection is not None and _polar(projection)
    return around and (grid.periodic or grid.middle[0] < 0)


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
    if grid.periodic and _polar(projection):  # the circle is all of it
        parts = [parts[0] if grid.middle[0] > 0 else parts[2]]
    path = np.concatenate([_project(projection, *part) for part in parts])
    steps = np.abs(np.diff(path, axis=0))
    # Not finite, or torn apart: a projection of the caller's that does not show the grid in one.
    broken = not np.isfinite(path).all() or steps.max() > np.ptp(projection.x_limits) / 4
    return None if broken else path


def shape(grid: Grid, projection: Any | None) -> float:
    """Width of the map divided by its height."""
    if projection is None:
        width, height = len(grid.column_order), len(grid.row_order)
        return float(np.clip(width / height, 0.2, 5))
    path = outline(grid, projection)
    x, y = (projection.x_limits, projection.y_limits) if path is None else path.T
    return float(np.ptp(x) / np.ptp(y))


# --- drawing --------------------------------------------------------------------------------------


def draw(ax: Axes, grid: Grid, field: xr.DataArray, **style: Any) -> Any:
    """Draw the cells of `field` (dims of `grid`) and what goes around them; return the mesh."""
    values = np.ma.masked_invalid(np.asarray(field.transpose(*grid.dims).values, dtype=float))
    ax.set_facecolor("0.82")  # shows where values are missing
    if not grid.geographic:
        y, x, rows, columns = grid.cells(0)
        return ax.pcolormesh(x, y, values[np.ix_(rows, columns)], rasterized=True, **style)
    import cartopy.crs as ccrs

    projection: Any = ax.projection  # type: ignore[attr-defined]
    y, x, rows, columns = grid.cells(_centre(projection))
    x[0], x[-1] = _sides(grid, projection)
    plate = ccrs.PlateCarree()
    cells = values[np.ix_(rows, columns)]
    return ax.pcolormesh(x, y, cells, transform=plate, rasterized=True, **style)


def frame(ax: Any, grid: Grid, *, left: bool = True, bottom: bool = True) -> None:
    """Cut the map to its grid; add outlines, meridians and, at two sides, their labels."""
    if not grid.geographic:
        _plain_frame(ax, grid, left=left, bottom=bottom)
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
    for category, name, width, colour in _OUTLINES:
        if category == "physical" or not grid.whole:
            lines = outlines(category, name, grid)
            ax.add_feature(lines, facecolor="none", edgecolor=colour, linewidth=width)
    lon = _ticks(*_sides(grid, ax.projection))
    lat = _ticks(float(grid.rows[0]), float(grid.rows[-1]))
    style = {"linewidth": 0.4, "color": "0.3", "alpha": 0.4, "linestyle": "-"}
    ax.gridlines(xlocs=(lon + 180) % 360 - 180, ylocs=lat, **style)
    if path is not None:
        _label(ax, grid, lon if bottom else lon[:0], lat if left else lat[:0])


def _plain_frame(ax: Axes, grid: Grid, *, left: bool, bottom: bool) -> None:
    """Rows of pixels go down, as in a picture."""
    from matplotlib.ticker import MaxNLocator

    ax.set_aspect("auto")
    ax.invert_yaxis()
    for axis, dim, shown in ((ax.yaxis, grid.dims[0], left), (ax.xaxis, grid.dims[1], bottom)):
        axis.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_tick_params(labelsize=_SMALL, labelleft=shown, labelbottom=shown)
        if shown:
            axis.set_label_text(str(dim), fontsize=_SMALL)


@lru_cache(maxsize=32)
def _read(path: Path) -> np.ndarray:
    from cartopy.io.shapereader import Reader

    reader = Reader(str(path))
    try:
        return np.array(list(reader.geometries()), dtype=object)
    finally:
        reader.close()


def _file(category: str, name: str, span: float) -> Path:
    """Outlines on disk that suit a map `span` degrees wide.

    The shipped ones are of 1:110 million. Finer ones are taken for a small region if they are where
    cartopy keeps its files (``cartopy.config``); none is ever fetched.
    """
    import cartopy

    scales = ["50m"] * (span <= 60) + ["110m"]
    scales = ["10m"] * (span <= 15) + scales
    keys = ("pre_existing_data_dir", "data_dir")
    roots = [Path(d) for k in keys if (d := cartopy.config.get(k))]
    for scale in scales:
        for root in (*roots, _SHIPPED):
            folder = root / "shapefiles" / "natural_earth" / category
            path = folder / f"ne_{scale}_{name}.shp"
            if all(path.with_suffix(s).is_file() for s in (".shp", ".shx", ".dbf")):
                return path
    raise InputError(f"the outlines that ship with stforecast are missing from {_SHIPPED}")


def outlines(category: str, name: str, grid: Grid) -> Any:
    """Natural Earth's lines near a grid, as a feature of cartopy."""
    span = max(float(np.ptp(grid.columns)), float(np.ptp(grid.rows)))
    path = _file(category, name, span)
    # By value, so that the panels of a figure share one feature: cartopy caches what it projects.
    box = (grid.columns[0], grid.rows[0], grid.columns[-1], grid.rows[-1])
    return _lines(path, None if grid.periodic else tuple(float(b) for b in box))


@lru_cache(maxsize=32)
def _lines(path: Path, box: tuple[float, float, float, float] | None) -> Any:
    import cartopy.crs as ccrs
    import shapely  # type: ignore[import-untyped]
    from cartopy.feature import ShapelyFeature

    lines = _read(path)
    if box is not None:
        west, south, east, north = box
        turned = [shapely.box(west + t, south, east + t, north) for t in (-360, 0, 360)]
        lines = lines[shapely.intersects(lines, shapely.union_all(turned))]
    return ShapelyFeature(lines.tolist(), ccrs.PlateCarree())


# --- meridians and parallels ----------------------------------------------------------------------


def _ticks(low: float, high: float) -> np.ndarray:
    """Round degrees between two sides, about five."""
    step = next((s for s in _STEPS if (high - low) / s <= 6), 90)
    return np.round(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step, 6)


def _degrees(value: float, sides: Sequence[str]) -> str:
    value = (value + 180) % 360 - 180 if sides[0] == "E" else value
    side = "" if value == 0 or abs(value) == 180 else sides[int(value < 0)]
    return f"{abs(value):.6g}°{side}"


def _label(ax: Any, grid: Grid, lon: np.ndarray, lat: np.ndarray) -> None:
    """Label meridians along the southern edge and parallels along the western one.

    Near a pole meridians are labelled at the edge that lies away from it, and all around it there
    are no parallels' labels. Cartopy's own labels turn with the lines and stand on their heads.
    """
    circle = grid.periodic and _polar(ax.projection)
    (west, east), (south, north) = _sides(grid, ax.projection), (grid.rows[0], grid.rows[-1])
    edge, far = (
        (north, south)
        if labels_above(grid, ax.projection) and grid.middle[0] < 0
        else (south, north)
    )
    near = 0.02 * (east - west), 0.02 * (north - south)  # no labels in the corners
    if circle:
        lon, lat = np.arange(-180.0, 180.0, 30.0) if len(lon) else lon, lat[:0]
    else:
        lon = lon[(lon > west + near[0]) & (lon < east - near[0])]
        lat = lat[(lat > south + near[1]) & (lat < north - near[1])]
    places = [(x, edge, x, edge + 0.02 * (far - edge), _degrees(x, "EW")) for x in lon]
    places += [(west, y, west + near[0], y, _degrees(y, "NS")) for y in lat]
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
