"""How fields move: Hovmöller diagrams and films."""

from __future__ import annotations

import os
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.gate import canonicalize
from ..conventions.grid import area_weights, cell_edges
from ..errors import InputError
from ..files import replacing
from . import cartography as carto
from .colours import Scale
from .fields import ForecastCase, choose_initialisation, mean_member, restored
from .labels import degrees, lead_label, sentence, time_label, with_unit
from .layout import SMALL, TEXT, new_figure, require

if TYPE_CHECKING:
    from cartopy.crs import Projection
    from matplotlib.figure import Figure


def hovmoller(
    data: Any,
    *,
    variable: str | None = None,
    latitude: tuple[float, float] | None = None,
    init_time: Any = None,
    title: str | None = None,
    cmap: Any = None,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Figure:
    """Draw time against longitude, averaged over latitudes (Hovmöller, 1949): how waves travel.

    Parameters
    ----------
    data : xarray.Dataset or DataArray
        A history (time, latitude, longitude), or a forecast, of which one initialisation is drawn
        by lead time. Of grids without latitude the mean over the first axis of space is drawn.
    variable : str, optional
        Default: the first.
    latitude : (float, float), optional
        South and north of the band, degrees; the mean is area-weighted. Default: all latitudes.
    init_time : time label, optional
        Of a forecast. Default: the last.
    title, cmap, vmin, vmax : optional
        As for :func:`plot_map`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no row in the band, or there are less than two times.
    """
    require("matplotlib")
    data = mean_member(data)
    if isinstance(data, (xr.Dataset, xr.DataArray)):
        data = carto.without_wrap_point(data)
    ds, labels = canonicalize(data, None if variable is None else [variable])
    name = str(next(iter(ds.data_vars)))
    ds = ds[[name]]
    forecast = LEAD in ds.dims
    at = choose_initialisation(ds, None, init_time)[0] if forecast else 0
    start = ds["time"].values[at]
    if forecast:
        hours = ds[LEAD].values / np.timedelta64(1, "h")
        ds = ds.isel(time=at)
    else:
        index = ds.indexes["time"]
        hours = np.asarray((index - index[0]) / pd.Timedelta("1h"), dtype=float)
    if len(hours) < 2:
        raise InputError(f"time against longitude needs at least two times, found {len(hours)}")
    mean, band = _band_mean(ds[name], latitude)
    mean = restored(mean.compute(), labels, name)

    columns = mean.dims[-1]
    geographic = columns == "longitude"
    along = next((c for c in mean.coords.values() if c.dims == (columns,)), None)
    across = np.arange(mean.sizes[columns]) if along is None else along.values
    label = (
        f"{columns} [cell]" if along is None else with_unit(along.name, along.attrs.get("units"))
    )
    days = hours[-1] > 96
    plain = xr.DataArray(mean.values, dims=("t", "x"), name=name, attrs=mean.attrs)
    scale = Scale.of([plain], carto.Grid.of(plain), cmap=cmap, vmin=vmin, vmax=vmax)
    start_label = time_label(start, geographic)
    if title is None:
        what = f"forecast from {start_label} · " if forecast else ""
        title = f"{sentence(mean.attrs['long_name'])}\n{what}{band}"
    figure = new_figure(7.2, 4.6, title)
    ax = figure.add_subplot()
    sides = cell_edges(np.asarray(across, float))
    rows = cell_edges(hours / 24 if days else hours)
    mesh = ax.pcolormesh(sides, rows, mean.values, rasterized=True, **scale.style)
    ax.set_facecolor("0.82")
    ax.invert_yaxis()  # time runs down, as Hovmöller has it
    label = "Longitude [degrees east]" if geographic else label
    ax.set_xlabel(label, fontsize=TEXT, parse_math=False)
    if geographic and np.ptp(across) > 180:
        ax.set_xticks(np.arange(0, 361, 60))
        ax.set_xlim(float(sides[0]), float(sides[-1]))
    since = f"{'Days' if days else 'Hours'} since {start_label}"
    ax.set_ylabel(f"Lead time [{'days' if days else 'h'}]" if forecast else since, fontsize=TEXT)
    ax.tick_params(labelsize=SMALL, length=3)
    scale.bar(figure, mesh, ax, inches=3.8)
    return figure


def _band_mean(
    field: xr.DataArray, latitude: tuple[float, float] | None
) -> tuple[xr.DataArray, str]:
    """Mean over the rows of a band, weighted by area where there is one, and what to call it."""
    rows, columns = map(str, field.dims[-2:])
    weights = xr.ones_like(field[rows], dtype=float)
    if rows == "latitude":  # of the whole grid's cells, of which the band takes some
        weights = weights.copy(data=area_weights(field["latitude"].values))
    if latitude is None:
        return field.weighted(weights).mean(rows), f"mean over {rows}"
    if rows != "latitude":
        raise InputError(f"a grid of {rows} and {columns} has no band of latitudes")
    south, north = latitude
    field = field.sel(latitude=slice(south, north))
    if not field.sizes["latitude"]:
        raise InputError(f"no row of the grid lies between {south:g} and {north:g} degrees")
    mean = field.weighted(weights.sel(latitude=field["latitude"])).mean(rows)
    return mean, f"mean from {degrees(south, 'NS')} to {degrees(north, 'NS')}"


def animate(
    forecast: Any,
    path: str | os.PathLike[str],
    truth: Any = None,
    *,
    variable: str | None = None,
    init_time: Any = None,
    frames_per_second: float = 3.0,
    dpi: float = 90,
    projection: Projection | None = None,
) -> Path:
    """Write a film of a forecast by lead time, with the truth beside it.

    Parameters
    ----------
    forecast, truth, variable, init_time, projection
        As for :func:`forecast_panel`. All frames share one colour scale.
    path : path-like
        ``.gif`` (with Pillow, which matplotlib brings), or ``.mp4`` (H.264, with PyAV: the extra
        ``video``).
    frames_per_second : float
        Lead times a second.
    dpi : float
        Dots per inch; a frame is about six inches wide, or ten with the truth.

    Returns
    -------
    Path
        `path`. It appears whole or not at all.

    Raises
    ------
    InputError
        If the name does not end in .gif or .mp4, or the data do not fit together.
    ImportError
        If PyAV is needed and not installed.
    """
    require("matplotlib")
    path = Path(path)
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise InputError(f"a film is .gif or .mp4, found the name {path.name!r}")
    if not frames_per_second > 0:
        raise InputError(f"frames_per_second must be positive, found {frames_per_second}")
    case = ForecastCase.open(forecast, truth, variable, init_time)
    grid, projection = case.grid, case.projection(projection)
    writer = _film_writer(path.suffix.lower(), frames_per_second)

    aspect, n = carto.aspect(grid, projection), len(case.fields)
    width, margin = min(4.6, 3.4 * aspect), 0.0 if grid.whole else 0.4
    scale = Scale.of(list(case.fields.values()), grid)
    # At least as wide as the line of times under the title.
    size = max(3.8, n * (width + margin + 0.15) + 1.05), width / aspect + 0.4 + margin
    figure = new_figure(*size, f"{case.name}\n ")
    subtitle = figure.texts[-1]
    axes = figure.subplots(1, n, squeeze=False, subplot_kw={"projection": projection})[0]
    meshes = []
    for ax, (name, field) in zip(axes, case.fields.items(), strict=True):
        meshes.append(scale.draw(ax, grid, field[0]))
        ax.set_title(name, fontsize=TEXT)
    scale.bar(figure, meshes[0], list(axes), inches=width / aspect)
    with replacing(path) as temporary, writer.saving(figure, temporary, dpi):
        for i, (lead, valid) in enumerate(zip(case.leads, case.valid, strict=True)):
            subtitle.set_text(f"from {case.start} · {lead_label(lead)} · {valid}")
            for mesh, field in zip(meshes, case.fields.values(), strict=True):
                mesh.set_array(carto.cell_values(mesh.axes, grid, field[i]))
            writer.grab_frame()
            figure.set_layout_engine("none")  # as the first frame lies, all others do
    return path


def _film_writer(suffix: str, rate: float) -> Any:
    """Matplotlib's writer of GIF, or one of MP4 that needs PyAV and no program on the path."""
    from matplotlib.animation import AbstractMovieWriter, PillowWriter

    if suffix == ".gif":
        return PillowWriter(fps=rate)  # type: ignore[arg-type]
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "films in .mp4 need PyAV: pip install 'stforecast[video]', or write a .gif"
        ) from error

    class Mp4Writer(AbstractMovieWriter):
        def setup(self, fig: Figure, outfile: Any, dpi: float | None = None) -> None:
            super().setup(fig, outfile, dpi)
            self.container = av.open(str(outfile), "w", format="mp4")
            self.stream = self.container.add_stream(
                "libx264", rate=Fraction(rate).limit_denominator(1000)
            )
            self.stream.width, self.stream.height = (n // 2 * 2 for n in self.frame_size)
            self.stream.pix_fmt = "yuv420p"  # in which sides are even, and which browsers play

        def grab_frame(self, **options: Any) -> None:
            self.fig.savefig(buffer := BytesIO(), format="rgba", dpi=self.dpi)
            width, height = self.frame_size
            pixels = np.frombuffer(buffer.getbuffer(), np.uint8).reshape(height, width, 4)
            pixels = np.ascontiguousarray(pixels[: self.stream.height, : self.stream.width, :3])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            self.container.mux(self.stream.encode(frame))

        def finish(self) -> None:
            self.container.mux(self.stream.encode())
            self.container.close()

    return Mp4Writer(fps=rate)  # type: ignore[arg-type]
