"""How fields move: Hovmöller diagrams and films."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LEAD
from ..conventions.gate import canonicalize
from ..conventions.grid import area_weights, cell_edges
from ..conventions.times import valid_times
from ..errors import InputError
from . import cartography as carto
from .layout import (
    SMALL,
    TEXT,
    Layout,
    Scale,
    blank,
    capital,
    head,
    lead_words,
    need,
    time_words,
    words,
)

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
    need("matplotlib")
    from .fields import _choose_init

    ds, labels = canonicalize(data, None if variable is None else [variable])
    name = str(next(iter(ds.data_vars)))
    ds = ds[[name]]
    form = labels.fields[name].unpacked
    forecast = LEAD in ds.dims
    if forecast:
        at = _choose_init(ds, None, init_time)[0]
        start = ds["time"].values[at]
        hours = ds[LEAD].values / np.timedelta64(1, "h")
        ds = ds.isel(time=at)
    else:
        start = ds["time"].values[0]
        index = ds.indexes["time"]
        hours = np.asarray((index - index[0]) / pd.Timedelta("1h"), dtype=float)
    if len(hours) < 2:
        raise InputError(f"time against longitude needs at least two times, found {len(hours)}")
    field = ds[name]
    long_name = words(field)
    rows, columns = map(str, field.dims[-2:])
    geographic = rows == "latitude"
    weights = xr.ones_like(field[rows], dtype=float)
    if geographic:  # of the whole grid's cells, of which the band takes some
        weights = weights.copy(data=area_weights(field["latitude"].values))
    band = f"mean over {rows}"
    if latitude is not None:
        if not geographic:
            raise InputError(f"a grid of {rows} and {columns} has no band of latitudes")
        south, north = latitude
        field = field.sel(latitude=slice(south, north))
        if not field.sizes["latitude"]:
            raise InputError(f"no row of the grid lies between {south:g} and {north:g} degrees")
        weights = weights.sel(latitude=field["latitude"])
        band = f"mean from {_degrees(south)} to {_degrees(north)}"
    mean = field.weighted(weights).mean(rows).compute()
    mean = mean.copy(data=form.encode(mean.values)).assign_attrs(form.attrs)
    mean.attrs.setdefault("long_name", long_name)

    across = mean[columns].values if columns in mean.coords else np.arange(mean.sizes[columns])
    days = hours[-1] > 96
    down = hours / 24 if days else hours
    grid = carto.Grid.of(xr.DataArray(mean.values, dims=("t", "x"), name=name, attrs=mean.attrs))
    flat = xr.DataArray(mean.values, dims=("t", "x"), name=name, attrs=mean.attrs)
    scale = Scale.of([flat], grid, cmap=cmap, vmin=vmin, vmax=vmax)
    figure = blank(7.2, 5.2)
    ax = figure.add_axes((0.11, 0.115, 0.72, 0.73))
    mesh = ax.pcolormesh(
        cell_edges(np.asarray(across, float)),
        cell_edges(down),
        mean.values,
        cmap=scale.cmap,
        vmin=scale.vmin,
        vmax=scale.vmax,
        rasterized=True,
    )
    ax.set_facecolor("0.82")
    ax.invert_yaxis()  # time runs down, as Hovmöller has it
    ax.set_xlabel("Longitude [degrees east]" if geographic else f"{columns} [cell]", fontsize=TEXT)
    if geographic and np.ptp(across) > 180:
        ax.set_xticks(np.arange(0, 361, 60))
        sides = cell_edges(np.asarray(across, float))
        ax.set_xlim(float(sides[0]), float(sides[-1]))
    since = f"{'Days' if days else 'Hours'} since {time_words(start, geographic)}"
    ax.set_ylabel(f"Lead time [{'days' if days else 'h'}]" if forecast else since, fontsize=TEXT)
    ax.tick_params(labelsize=SMALL, length=3)
    scale.bar(figure, mesh, 3.8, cax=figure.add_axes((0.855, 0.13, 0.02, 0.7)))
    if title is None:
        what = f"forecast from {time_words(start, geographic)} · " if forecast else ""
        title = f"{capital(long_name)}\n{what}{band}"
    head(figure, 0.25, title)
    return figure


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
    need("matplotlib")
    from ..files import replacing
    from .fields import _choose_init, _open

    path = Path(path)
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise InputError(f"a film is .gif or .mp4, found the name {path.name!r}")
    if not frames_per_second > 0:
        raise InputError(f"frames_per_second must be positive, found {frames_per_second}")
    ours, labels, name = _open(forecast, variable)
    theirs = None if truth is None else canonicalize(truth, [name])[0]
    at, positions = _choose_init(ours, theirs, init_time)
    form = labels.fields[name].unpacked
    drawn = ours[name].isel(time=at).compute()
    long_name = words(drawn)
    drawn = drawn.copy(data=form.encode(drawn.values)).assign_attrs(form.attrs)
    drawn.attrs.setdefault("long_name", long_name)
    fields = {"Forecast": drawn}
    if theirs is not None:
        observed = form.encode(theirs[name].isel(time=positions).values)
        fields["Truth"] = drawn.copy(data=observed)
    grid = carto.Grid.of(drawn[0])
    need(*["cartopy"] * grid.geographic)
    if projection is None and grid.geographic:
        projection = carto.projection_for(grid)
    scale = Scale.of(list(fields.values()), grid)
    start = time_words(ours["time"].values[at], grid.geographic)
    valid = valid_times(ours["time"].values[[at]], ours[LEAD].values)[0]
    frames = []
    for i, lead in enumerate(drawn[LEAD].values):
        small = f"from {start} · {lead_words(lead)} · {time_words(valid[i], grid.geographic)}"
        title = f"{capital(words(drawn))}\n{small}"
        frame = _frame({n: f[i] for n, f in fields.items()}, scale, grid, projection, title)
        frames.append(_pixels(frame, dpi))
    with replacing(path) as temporary:
        write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
        write(temporary, frames, frames_per_second)
    return path


def _frame(
    fields: dict[str, xr.DataArray], scale: Scale, grid: carto.Grid, projection: Any, title: str
) -> Figure:
    shape = carto.shape(grid, projection)
    width = min(4.6, 3.4 * shape)
    room = 0.0 if grid.whole else 0.4
    layout = Layout(
        (width, width / shape),
        len(fields),
        gap=0.2 + room,
        left=0.3 + room,
        right=1.05,
        top=1.05,
        bottom=0.2 + room,
    )
    for j, (name, field) in enumerate(fields.items()):
        mesh = scale.draw(layout.axes(0, j, projection), grid, field)
        style = {"fontsize": TEXT, "ha": "center", "va": "center"}
        layout.text(layout.x[j] + width / 2, layout.y[0] - 0.15, name, **style)
    layout.bar(scale, mesh, (0,), 0.18)
    head(layout.figure, 0.3, title)
    return layout.figure


def _pixels(figure: Figure, dpi: float) -> np.ndarray:
    """The picture of a figure: uint8 (H, W, 3), with H and W even, as films want them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    return pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2].copy()


def _write_gif(path: Path, frames: list[np.ndarray], rate: float) -> None:
    from PIL import Image

    pictures = [Image.fromarray(f).quantize(256, dither=Image.Dither.NONE) for f in frames]
    pictures[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / rate),
        loop=0,
    )


def _write_mp4(path: Path, frames: list[np.ndarray], rate: float) -> None:
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "films in .mp4 need PyAV: pip install 'stforecast[video]', or write a .gif"
        ) from error
    from fractions import Fraction

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _degrees(latitude: float) -> str:
    return f"{abs(latitude):g}°{'N' if latitude > 0 else 'S' if latitude < 0 else ''}"
