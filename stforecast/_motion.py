"""Figures of :mod:`stforecast.maps` that compare models, or show how fields move."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from . import _cartography as carto
from ._axes import LEAD
from ._figures import (
    SMALL,
    TEXT,
    Layout,
    Scale,
    blank,
    capital,
    head,
    lead_words,
    need,
    number,
    time_words,
    top,
    words,
)
from .conventions import InputError, canonicalize, valid_times
from .metrics import area_weights, grid_weights

if TYPE_CHECKING:
    from cartopy.crs import Projection
    from matplotlib.figure import Figure

_COLOURS = {"red", "green", "blue"}  # variables of a clip in colour


def difference_map(
    first: Any,
    second: Any,
    truth: Any,
    *,
    names: tuple[str, str] = ("first", "second"),
    variable: str | None = None,
    metric: str = "rmse",
    lead: Any = None,
    title: str | None = None,
    vmax: float | None = None,
    projection: Projection | None = None,
) -> Figure:
    """Map where one forecast is better than another: the difference of their scores.

    Blue where the first has the smaller error, red where the second has.

    Parameters
    ----------
    first, second : xarray.Dataset
        Two forecasts of the same variable from the same initialisations, on one grid.
    truth : xarray.Dataset
        As for :func:`stforecast.evaluate`.
    names : (str, str)
        What to call the two.
    variable : str, optional
        Default: the first one's first.
    metric : {"rmse", "mse", "mae"}
        Which score.
    lead : time difference, optional
        One lead time, such as ``"6h"``. Default: all of them together.
    title, projection : optional
        As for :func:`plot_map`.
    vmax : float, optional
        End of the scale, which begins at ``-vmax``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the two forecasts are not of the same initialisations and lead times, or do not fit
        `truth`.
    """
    need("matplotlib")
    from .evaluation import evaluate
    from .maps import _lead_positions, _open, plot_map

    if metric not in ("rmse", "mse", "mae"):
        raise InputError(f"metric must be rmse, mse or mae, found {metric!r}")
    ours, _, name = _open(first, variable)
    theirs, _, _ = _open(second, name)
    for dim in ("time", LEAD):
        if not ours.indexes[dim].equals(theirs.indexes[dim]):
            raise InputError(
                f"the two forecasts differ in {dim}: {ours.sizes[dim]} from "
                f"{ours[dim].values[0]} and {theirs.sizes[dim]} from {theirs[dim].values[0]}; "
                f"select what they have in common"
            )
    if lead is not None:
        at = _lead_positions(ours[LEAD].values, [lead])
        ours, theirs = ours.isel({LEAD: at}), theirs.isel({LEAD: at})
    space = [str(d) for d in ours[name].dims[2:]]
    scores = [evaluate(f, truth, metrics=(metric,), by=space) for f in (ours, theirs)]
    a, b = (s[name].sel(metric=metric, drop=True) for s in scores)
    word, unit = metric.upper(), scores[0][name].attrs[f"units_{metric}"]
    difference = (a - b).assign_attrs(long_name=f"{word}, {names[0]} less {names[1]}", units=unit)
    if title is None:
        steps = dict.fromkeys(lead_words(ours[LEAD].values[i]) for i in (0, -1))
        shape = difference.sizes[space[0]], difference.sizes[space[1]]
        latitude = difference["latitude"].values if space[0] == "latitude" else None
        weights = grid_weights(shape, latitude)[0]
        better = float((weights * (difference.values < 0)).sum() / weights.sum())
        whole = [number(float(s[f"{name}_overall"].sel(metric=metric))) for s in scores]
        small = f"lead {' to '.join(steps)} · {names[0]} {whole[0]}, {names[1]} {whole[1]} {unit}"
        small = f"{small.removesuffix(' unknown')} · {names[0]} better on {100 * better:.0f}%"
        title = f"{word} of {words(ours[name])}, {names[0]} less {names[1]}\n{small}"
    limit = top(np.abs(difference.values)) if vmax is None else vmax
    return plot_map(
        difference, title=title, cmap="RdBu_r", vmin=-limit, vmax=limit, projection=projection
    )


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
    from .maps import _choose_init

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
        carto.edges(np.asarray(across, float)),
        carto.edges(down),
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
        sides = carto.edges(np.asarray(across, float))
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
    from .files import replacing
    from .maps import _choose_init, _open

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


def clip_strip(
    truth: Any,
    forecasts: Mapping[str, Any],
    *,
    init_time: Any = None,
    leads: Any = None,
    data_range: float = 1.0,
    title: str | None = None,
) -> Figure:
    """Draw frames side by side: truth, each forecast, and under it its absolute error.

    As Figures 8 and 10 of the paper do.

    Parameters
    ----------
    truth : xarray.Dataset
        A clip data set, or any other with dims (time, y, x): one variable in grey, or ``red``,
        ``green`` and ``blue``.
    forecasts : mapping of str to xarray.Dataset
        Forecasts of the same variables, by name.
    init_time : time label, optional
        Which initialisation. Default: the last one whose valid times are all in `truth`.
    leads : time difference or sequence of them, optional
        Default: up to eight, evenly spread.
    data_range : float
        White; black is 0. Errors go from 0 to it.
    title : str, optional
        ``""`` for none.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is no forecast, or one does not fit `truth`.
    """
    need("matplotlib")
    from .maps import _choose_init, _lead_positions

    if not forecasts:
        raise InputError("a strip needs at least one forecast: {'name': forecast}")
    opened = {n: canonicalize(f)[0] for n, f in forecasts.items()}
    name, first = next(iter(opened.items()))
    variables = [str(v) for v in first.data_vars]
    colours = set(variables) == _COLOURS
    if LEAD not in first.dims or not (colours or len(variables) == 1):
        raise InputError(
            f"a strip shows forecasts of one variable, or of red, green and blue, found "
            f"{variables} with dims {dict(first.sizes)} in {name!r}"
        )
    variables = ["red", "green", "blue"] if colours else variables
    theirs = canonicalize(truth, variables)[0]
    if leads is None:
        n = first.sizes[LEAD]
        where = np.unique(np.linspace(0, n - 1, min(n, 8)).round().astype(int)).tolist()
    else:
        where = _lead_positions(first[LEAD].values, leads)
    at, positions = _choose_init(first, theirs, init_time)
    when = first["time"].values[at]

    def pictures(ds: xr.Dataset) -> np.ndarray:  # (frames, H, W, 1 or 3)
        return np.stack([ds[v].values for v in variables], axis=-1).astype(float) / data_range

    seen = pictures(theirs.isel(time=positions[where]))
    rows: list[tuple[str, np.ndarray, bool]] = [("Truth", seen, False)]
    for name, forecast in opened.items():
        if not forecast.indexes[LEAD].equals(first.indexes[LEAD]):
            raise InputError(f"{name!r} has other lead times than the first forecast")
        mine, found = _choose_init(forecast, theirs, when)
        if not np.array_equal(found, positions):
            raise InputError(f"{name!r} has no forecast from {when}")
        made = pictures(forecast.isel(time=mine, **{LEAD: where}).compute())
        rows += [(name, made, False), ("|error|", np.abs(made - seen), True)]

    H, W = seen.shape[1:3]
    columns, width = len(where), min(max(9.0 / len(where), 0.8), 2.4)
    height = width * H / W
    layout = Layout(
        (width, height),
        columns,
        gap=0.04,
        above=[0.12 if not error else 0.03 for _, _, error in rows[1:]],
        left=1.1,
        right=0.2,
        top=0.75 + 0.25 * (title != ""),
        bottom=0.15,
    )
    for i, (label, frames, error) in enumerate(rows):
        style: dict[str, Any] = {"fontsize": TEXT if not error else SMALL, "va": "center"}
        layout.text(0.15, layout.y[i] + height / 2, label, color="0.35" if error else "0", **style)
        for j, frame in enumerate(frames):
            ax = layout.axes(i, j, None)
            grey = frame.mean(axis=-1) if error else frame[..., 0]
            shown = grey if error or not colours else np.clip(frame, 0, 1)
            ax.imshow(shown, cmap="magma" if error else "gray", vmin=0, vmax=1, aspect="auto")
            ax.set_axis_off()
    for x, lead in zip(layout.x, first[LEAD].values[where], strict=True):
        layout.text(
            x + width / 2, layout.y[0] - 0.12, lead_words(lead), fontsize=SMALL, ha="center"
        )
    if title != "":
        head(layout.figure, 0.15, title or f"Forecasts from {time_words(when, False)}")
    return layout.figure


def performance(
    table: pd.DataFrame,
    *,
    quality: str = "mse_sum",
    costs: Sequence[str] = ("seconds_per_epoch", "frames_per_second"),
    highlight: Sequence[str] = (),
    title: str | None = None,
) -> Figure:
    """Draw how good models are against what they cost, as Figure 7 of the paper does.

    Parameters
    ----------
    table : pandas.DataFrame
        A row for each model, named by the index: :func:`stforecast.published.cost_table`, rows of
        your own added.
    quality : str
        Column of the error, upwards.
    costs : sequence of str
        Columns to go across, a panel each, on a logarithmic axis.
    highlight : sequence of str
        Models to draw in colour. Default: those with SimVPv2 in their names.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If `table` lacks a column.
    """
    need("matplotlib")
    missing = [c for c in (quality, *costs) if c not in table.columns]
    if missing:
        raise InputError(f"the table has no column {missing}, found {list(table.columns)}")
    chosen = set(highlight) or {str(m) for m in table.index if "SimVPv2" in str(m)}
    wide = 5.2
    figure = blank(0.9 + wide * len(costs), 5.0)
    W = 0.9 + wide * len(costs)
    for i, cost in enumerate(costs):
        ax = figure.add_axes(((0.75 + i * wide) / W, 0.115, (wide - 0.55) / W, 0.7))
        rows = table[[quality, cost]].dropna()
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.margins(x=0.18, y=0.08)
        for model, row in rows.iterrows():
            ours = str(model) in chosen
            colour = "#c43c1d" if ours else "0.35"
            ax.plot(row[cost], row[quality], "o", color=colour, markersize=8 if ours else 5)
        _name_points(ax, rows[cost], rows[quality], chosen)
        ax.set_xlabel(cost.replace("_", " "), fontsize=TEXT)
        if i == 0:
            ax.set_ylabel(quality.replace("_", " "), fontsize=TEXT)
        ax.tick_params(labelsize=SMALL)
        ax.grid(color="0.92", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    head(figure, 0.25, title if title is not None else "Error against cost")
    return figure


def _name_points(ax: Any, x: pd.Series[float], y: pd.Series[float], bold: set[str]) -> None:
    """Write names beside points, each where it covers no other, if there is such a place."""
    ax.viewLim  # noqa: B018  (asking for the limits settles them)
    at = ax.transData.transform(np.column_stack([x, y])) * 72 / ax.figure.dpi  # in points
    taken = [(px - 4, py - 4, px + 4, py + 4) for px, py in at]
    for name, (px, py), one, two in zip(map(str, x.index), at, x, y, strict=True):
        wide, high = 0.62 * SMALL * len(name), SMALL
        places = [(7, -3, "left"), (-7, -3, "right"), (7, 5, "left"), (-7, 5, "right")]
        places += [(7, -11, "left"), (-7, -11, "right"), (0, 8, "center"), (0, -15, "center")]
        boxes = []
        for dx, dy, side in places:
            left = px + dx - {"left": 0, "right": wide, "center": wide / 2}[side]
            boxes.append((left, py + dy, left + wide, py + dy + high))
        free = [i for i, box in enumerate(boxes) if not any(_meet(box, t) for t in taken)]
        best = free[0] if free else 0
        dx, dy, side = places[best]
        taken.append(boxes[best])
        ax.annotate(
            name,
            (one, two),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=side,
            fontsize=SMALL,
            color="#c43c1d" if name in bold else "0.35",
            fontweight="bold" if name in bold else "normal",
            parse_math=False,
        )


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# --- frames ---------------------------------------------------------------------------------------


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
