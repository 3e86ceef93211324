"""Natural Earth's outlines, from the files that ship with the library or finer ones on disk.

A box is (west, south, east, north) in degrees; None stands for the whole globe.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

Box = tuple[float, float, float, float]

SHIPPED = Path(__file__).parents[1] / "natural_earth"
COASTLINE = ("physical", "coastline")
BORDERS = ("cultural", "admin_0_boundary_lines_land")


def outline_file(category: str, name: str, span: float = 360.0) -> Path:
    """Outlines on disk that suit a map `span` degrees wide.

    The shipped ones are of 1:110 million. Finer ones are taken for a small region if they are where
    cartopy keeps its files (``cartopy.config``); none is ever fetched.
    """
    roots = [SHIPPED]
    if span <= 60:
        import cartopy

        keys = ("pre_existing_data_dir", "data_dir")
        roots = [*(Path(d) for k in keys if (d := cartopy.config.get(k))), SHIPPED]
    for scale in ["10m"] * (span <= 15) + ["50m"] * (span <= 60) + ["110m"]:
        for root in roots:
            folder = root / "shapefiles" / "natural_earth" / category
            path = folder / f"ne_{scale}_{name}.shp"
            if all(path.with_suffix(s).is_file() for s in (".shp", ".shx", ".dbf")):
                return path
    raise InputError(f"the outlines that ship with stforecast are missing from {SHIPPED}")


@lru_cache(maxsize=32)
def read_lines(path: Path) -> list[np.ndarray]:
    """Lines of an ESRI shapefile, each (points, 2) of longitude and latitude.

    Read here because the report has a coastline where cartopy and pyshp are not installed.
    """
    raw = path.read_bytes()
    lines, at = [], 100  # a header of 100 bytes, then records
    while at < len(raw):
        length = 2 * struct.unpack_from(">i", raw, at + 4)[0]
        kind, *_, n_parts, n_points = struct.unpack_from("<i4d2i", raw, at + 8)
        if kind == 3:  # a polyline of one or more parts
            body = at + 8 + 44
            starts = np.frombuffer(raw, "<i4", n_parts, body)
            points = np.frombuffer(raw, "<f8", 2 * n_points, body + 4 * n_parts).reshape(-1, 2)
            lines += np.split(points, starts[1:])
        at += 8 + length
    return lines


def shipped_lines(what: tuple[str, str], box: Box | None) -> list[np.ndarray]:
    """Lines of the shipped coastline or borders that may meet a box, in its longitudes."""
    category, name = what
    lines = read_lines(SHIPPED / f"shapefiles/natural_earth/{category}/ne_110m_{name}.shp")
    if box is None:
        return lines
    turned = [line + np.array([turn, 0.0]) for turn in (-360.0, 0.0, 360.0) for line in lines]
    return [x for x in turned if np.all(x.max(0) >= box[:2]) and np.all(x.min(0) <= box[2:])]


@lru_cache(maxsize=32)
def outlines(category: str, name: str, box: Box | None) -> Any:
    """Outlines that meet a box, as a feature of cartopy.

    Maps of one box share it: cartopy keeps what it has projected of a feature.
    """
    import cartopy.crs as ccrs
    import shapely  # type: ignore[import-untyped]
    from cartopy.feature import ShapelyFeature

    west, south, east, north = box or (-180.0, -90.0, 180.0, 90.0)
    path = outline_file(category, name, max(east - west, north - south))
    lines = np.array([shapely.LineString(line) for line in read_lines(path)])
    if box is not None:
        turned = [shapely.box(west + t, south, east + t, north) for t in (-360, 0, 360)]
        lines = lines[shapely.intersects(lines, shapely.union_all(turned))]
    return ShapelyFeature(lines.tolist(), ccrs.PlateCarree())
