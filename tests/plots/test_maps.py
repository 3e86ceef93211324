"""Maps and score figures: what is drawn where, in which colours, with which words; no network."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stforecast import plots
from stforecast.errors import InputError
from stforecast.evaluation import evaluate, published, scorecard
from stforecast.plots import cartography as carto
from stforecast.plots import coastlines
from stforecast.plots.fields import lead_positions
from stforecast.testing import make_forecast, make_weather, relabel

ccrs = pytest.importorskip("cartopy.crs")
SHARED = Path(__file__).parents[2].parent / "shared"
RED = np.array([165, 0, 38])  # the end of RdYlBu_r


@pytest.fixture(scope="module")
def forecast(weather):
    return make_forecast(weather, inits=4, steps=3, bias=0.5, spread=1.0)


@pytest.fixture(scope="module")
def card(weather, forecast):
    worse = make_forecast(weather, inits=4, steps=3, bias=0.0, spread=4.0)
    middle = make_forecast(weather, inits=4, steps=3, bias=3.0, spread=0.0)
    models = {"SimVPv2": forecast, "Persistence": worse, "Climatology": middle}
    return scorecard({name: evaluate(f, weather) for name, f in models.items()})


def field(lat, lon, **attrs):
    values = 250.0 + np.arange(len(lat) * len(lon)).reshape(len(lat), len(lon)) % 31
    attrs = {"units": "K", "long_name": "2m temperature"} | attrs
    return xr.DataArray(
        values, {"latitude": lat, "longitude": lon}, ("latitude", "longitude"), "t2m", attrs
    )


def meshes(figure):
    """The map meshes of a figure, without the colour bars."""
    return [ax.collections[0] for ax in figure.axes if ax.get_label() != "<colorbar>"]


def bars(figure):
    """Labels of the colour bars, unfolded."""
    axes = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    return [" ".join((ax.get_xlabel() or ax.get_ylabel()).split()) for ax in axes]


def words(figure):
    """What stands in a figure: its title, then the titles and labels of its maps."""
    maps = [text for ax in figure.axes for text in (ax.title, *ax.texts)]
    return [t for text in (*figure.texts, *maps) if (t := text.get_text())]


def pixels(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(50)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


# --- cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", [0.0, 180.0, -75.0])
def test_cells_of_a_global_grid_fill_the_map_from_side_to_side(weather, centre):
    grid = carto.Grid.of(weather["2m_temperature"][0])
    y, x, rows, columns = grid.cells(centre)
    assert (x[0], x[-1]) == pytest.approx((centre - 180, centre + 180))
    assert (y[0], y[-1]) == (-90, 90)
    assert np.all(np.diff(x) > 0)
    assert np.all(np.diff(y) > 0)
    away = np.abs((x[:-1] + x[1:]) / 2 - weather["longitude"].values[columns] + 180) % 360 - 180
    assert np.abs(away).max() < 7.5  # half a spacing: every cell shows the column it lies in
    assert np.abs((y[:-1] + y[1:]) / 2 - weather["latitude"].values[rows]).max() < 7.5


def test_outer_rows_reach_the_pole_only_where_they_are_next_to_it():
    def rows(*latitude):
        return carto.Grid.of(field(np.array(latitude), np.arange(24) * 15.0)).rows

    assert rows(-85.76, -80.27, -74.74)[0] == -90
    np.testing.assert_allclose(rows(15.0, 17.5, 20.0), [13.75, 16.25, 18.75, 21.25])
    assert rows(80.0, 85.0, 90.0)[-1] == 90


@pytest.mark.parametrize("centre", [0, 180])
def test_no_seam_where_longitudes_meet(centre):
    lon = np.arange(24) * 15.0
    hot = field(np.linspace(-82.5, 82.5, 12), lon) * 0 + 300.0
    style = {"vmin": 200, "vmax": 300, "cmap": "RdYlBu_r", "title": "", "colorbar": False}
    figure = plots.plot_map(hot, projection=ccrs.PlateCarree(centre), **style)
    ax = figure.axes[0]
    for artist in ax.get_children():  # leave the mesh alone
        if artist is not ax.collections[0] and artist is not ax.patch:
            artist.set_visible(False)
    sides = meshes(figure)[0].get_coordinates()[0, [0, -1], 0]
    np.testing.assert_allclose(sides, [centre - 180, centre + 180], atol=1e-5)
    box = ax.get_position()
    image = pixels(figure)
    height, width = image.shape[:2]
    inside = image[
        int((1 - box.y1) * height) + 2 : int((1 - box.y0) * height) - 2,
        int(box.x0 * width) + 2 : int(box.x1 * width) - 2,
    ]
    assert inside.size > 10_000
    assert np.abs(inside - RED).max() < 20  # the ground of the map is (209, 209, 209)


def test_packed_numbers_are_drawn_decoded_and_missing_ones_not(weather):
    ours = weather["2m_temperature"][3]
    packed = relabel(weather, packed=True)["2m_temperature"][3]
    failed = ours.copy()
    failed[:2, :2] = -9999
    failed.attrs["valid_min"] = 150.0
    unwritten = ours.where(failed > 0, np.float32(9.96921e36))
    shown = [meshes(plots.plot_map(d))[0].get_array() for d in (ours, packed, failed, unwritten)]
    np.testing.assert_allclose(shown[1], shown[0], atol=0.006)
    part = ours.where(failed > 0)
    wanted = meshes(plots.plot_map(part))[0].get_array()
    for array in shown[2:]:
        np.testing.assert_array_equal(np.ma.filled(array, np.nan), np.ma.filled(wanted, np.nan))


def test_any_layout_gives_the_same_map(weather):
    ours = weather["2m_temperature"][3]
    theirs = relabel(
        weather,
        names={"2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"},
        order=("longitude", "time", "latitude"),
        north_first=True,
        west_negative=True,
    )
    a, b = (meshes(plots.plot_map(d))[0] for d in (ours, theirs.isel(time=[3])))
    np.testing.assert_allclose(a.get_array(), b.get_array(), rtol=1e-6)
    np.testing.assert_allclose(a.get_coordinates(), b.get_coordinates())
    # and it is the right one: the cell over a point shows the value at that point
    grid = carto.Grid.of(ours)
    y, x, *_ = grid.cells(0.0)
    cell = a.get_array()[np.searchsorted(y, 37.5) - 1, np.searchsorted(x, -60.0) - 1]
    assert cell == pytest.approx(float(ours.sel(latitude=37.5, longitude=300.0)))


def test_a_region_across_greenwich_stays_in_one_piece():
    lon = np.array([345.0, 350.0, 355.0, 0.0, 5.0, 10.0])
    figure = plots.plot_map(field(np.array([40.0, 45, 50, 55]), np.sort(lon)))
    ax = figure.axes[0]
    assert ax.projection.proj4_params["lon_0"] == pytest.approx(-2.5)
    np.testing.assert_allclose(meshes(figure)[0].get_coordinates()[0, [0, -1], 0], [-17.5, 12.5])


# --- projections ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lat", "lon", "expected", "centre"),
    [
        ((-87, 87, 30), (0, 354, 60), "EqualEarth", 0),
        ((15, 75, 25), (200, 330, 53), "LambertConformal", 265),
        ((36.4, 46.9, 43), (6.57, 18.32, 48), "LambertConformal", 12.445),
        ((-45, -10, 8), (110, 155, 10), "LambertConformal", 132.5),
        ((-20, 20, 9), (90, 150, 13), "PlateCarree", 120),
        ((-30, 30, 13), (0, 355, 72), "PlateCarree", 0),
        ((50, 90, 9), (0, 355, 72), "NorthPolarStereo", 0),
        ((-90, -65, 6), (100, 190, 19), "SouthPolarStereo", 145),
        ((-40, 75, 24), (10, 150, 29), "EqualEarth", 80),
    ],
)
def test_the_projection_fits_the_grid(lat, lon, expected, centre):
    data = field(np.linspace(*lat)[::-1], np.linspace(*lon)).expand_dims(time=3)
    chosen = plots.projection_for(data)
    assert type(chosen).__name__ == expected
    parameters = chosen.proj4_params
    assert parameters.get("lon_0", parameters.get("pm")) == pytest.approx(centre)


def test_the_extent_of_a_region_is_its_cells():
    data = field(np.arange(40.0, 51, 2), np.arange(0.0, 31, 5))
    ax = plots.plot_map(data).axes[0]
    corners = ax.projection.transform_points(
        ccrs.PlateCarree(), np.array([-2.5, 32.5, 15.0]), np.array([39.0, 39.0, 51.0])
    )
    assert ax.get_xlim() == pytest.approx((corners[0, 0], corners[1, 0]))
    assert ax.get_ylim()[0] == pytest.approx(
        float(ax.projection.transform_point(15.0, 39.0, ccrs.PlateCarree())[1])
    )
    labels = [t.get_text() for t in ax.texts]
    assert "10°E" in labels
    assert "45°N" in labels or "44°N" in labels


def test_a_wrap_point_is_drawn_once(weather):
    ours = weather["2m_temperature"][0]
    whole = ours.assign_coords(longitude=ours["longitude"] - 180.0)
    for field in (ours, whole, ours.isel(longitude=slice(None, None, -1))):
        first = field.isel(longitude=[0])
        turn = 360.0 if field["longitude"][1] > field["longitude"][0] else -360.0
        wrapped = xr.concat(
            [field, first.assign_coords(longitude=first["longitude"] + turn)], "longitude"
        )
        a, b = (meshes(plots.plot_map(f))[0] for f in (field, wrapped))
        np.testing.assert_array_equal(a.get_array(), b.get_array())
        np.testing.assert_allclose(a.get_coordinates(), b.get_coordinates())
        assert type(plots.projection_for(wrapped)) is type(plots.projection_for(field))
        wrapped[:, -1] += 1.0
        with pytest.raises(InputError, match=r"same meridian twice.*isel\(longitude="):
            plots.plot_map(wrapped)


@pytest.mark.parametrize(
    ("south", "north", "west", "east"),
    [
        (-90, 90, 150, 210),
        (-90, 90, 0, 20),
        (-60, 60, 170, 190),
        (60, 90, 0, 357.5),
        (70, 90, 0, 30),
        (-90, -60, 100, 190),
        (28, 34, 0, 120),
    ],
)
@pytest.mark.parametrize("width", [None, 1.2])
def test_labels_around_a_map_do_not_overlap(south, north, west, east, width):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = field(np.arange(max(south, -88.75), north, 2.5), np.arange(west, east + 1, 2.5))
    if width is None:
        figure = plots.plot_map(data)
    else:  # an axes of the caller's
        figure = Figure((width, width), layout="constrained")
        ax = figure.add_subplot(projection=plots.projection_for(data))
        plots.plot_map(data, ax=ax, title="", colorbar=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = [t for t in figure.axes[0].texts if t.get_visible()]
    boxes = [t.get_window_extent(canvas.get_renderer()) for t in labels]
    assert len(boxes) >= (2 if width is None else 1)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


# --- grids without latitude and longitude ---------------------------------------------------------

ROWS = np.arange(6.0)
AXES = {  # names of the axes, their coordinates and attributes, and what is written along them
    "rotated": (("rlat", "rlon"), ROWS - 3, {"units": "degrees"}, "rlat [degrees]"),
    "met office": (("grid_latitude", "grid_longitude"), ROWS, {}, "grid_latitude"),
    "projected": (("projection_y_coordinate", "projection_x_coordinate"), ROWS, {}, "projection_y"),
    "metres": (("y", "x"), 1e6 + 1e4 * ROWS, {"units": "m"}, "y [m]"),
    "north first": (("y", "x"), (1e6 - 1e4 * ROWS), {"units": "km"}, "y [km]"),
    "geostationary": (("y", "x"), 0.1 - 0.01 * ROWS, {"units": "rad"}, "y [rad]"),
    "standard name": (("y", "x"), ROWS, {"standard_name": "projection_y_coordinate"}, "y"),
    "weather model": (("south_north", "west_east"), None, {}, "south_north"),
}


def on_axes(dims, values, attrs, steps=4):
    """Rows whose value grows to the north: a history, and a forecast that is 1 too warm."""
    north_first = values is not None and values[0] > values[-1]
    rows = 280 + (ROWS[::-1] if north_first else ROWS)
    array = rows[:, None] + np.zeros((steps, 6, 8)) + np.arange(steps)[:, None, None] / 10
    time = np.datetime64("2001-01-01", "ns") + np.arange(steps) * np.timedelta64(3600, "s")
    coords = {} if values is None else {dims[0]: (dims[0], values, attrs)}
    if values is not None:
        coords[dims[1]] = (dims[1], np.arange(8) * float(abs(values[1] - values[0])))
    about = {"units": "K", "long_name": "temperature"}
    history = xr.Dataset({"tas": (("time", *dims), array, about)}, {"time": time, **coords})
    lead = np.array([1, 2], "timedelta64[h]").astype("timedelta64[ns]")
    ahead = np.stack([array[1:3], array[2:4]], axis=1) + 1.0
    forecast = xr.Dataset(
        {"tas": (("time", "prediction_timedelta", *dims), ahead, about)},
        {"time": time[:2], "prediction_timedelta": lead, **coords},
    )
    return history, forecast


def shown_upwards(ax):
    """Values of the first column of a map from its bottom to its top, as they are seen."""
    mesh = ax.collections[0]
    values, y = np.asarray(mesh.get_array())[:, 0], mesh.get_coordinates()[:, 0, 1]
    assert np.all(np.diff(y) > 0)
    return values if ax.get_ylim()[0] < ax.get_ylim()[1] else values[::-1]


@pytest.mark.parametrize("case", AXES)
def test_projected_grids_are_drawn_north_up_on_their_own_axes(case):
    dims, values, attrs, label = AXES[case]
    history, forecast = on_axes(dims, values, attrs)
    one = history["tas"][0]
    figures = [
        plots.plot_map(one),
        plots.plot_map(one.transpose()),
        plots.forecast_panel(forecast, history),
        plots.forecast_panel(forecast),
    ]
    for figure in figures:
        ax = figure.axes[0]
        assert np.all(np.diff(shown_upwards(ax)) > 0)
        assert ax.get_ylabel().startswith(label)
    worse = forecast + xr.DataArray(ROWS / 10, dims=dims[0])  # by how much grows with the row
    worse["tas"].attrs = forecast["tas"].attrs
    up = np.all(np.diff(shown_upwards(figures[0].axes[0])) > 0)
    expected = 1 if values is None or values[0] < values[-1] else -1
    for figure in (plots.error_map(worse, history), plots.difference_map(worse, forecast, history)):
        ax = figure.axes[0]
        assert np.all(np.diff(shown_upwards(ax)) * expected > 0) == up
        assert ax.get_ylabel().startswith(label)
    assert plots.hovmoller(history).axes[0].get_xlabel().startswith(dims[1])


def test_a_latitude_of_every_point_says_which_way_rows_run():
    history, _ = on_axes(("south_north", "west_east"), None, {})
    latitude = np.broadcast_to(40 + ROWS[:, None], (6, 8))
    down = history["tas"][0].rename(south_north="y", west_east="x")
    for sign in (1, -1):
        data = down.assign_coords(XLAT=(("y", "x"), sign * latitude, {"units": "degree_north"}))
        ax = plots.plot_map(data).axes[0]
        assert (ax.get_ylim()[0] < ax.get_ylim()[1]) == (sign > 0)


def test_pixels_and_cells_have_their_first_row_at_the_top():
    pixels, _ = on_axes(("y", "x"), ROWS, {"units": "1"})
    for data in (pixels, pixels.drop_vars(["y", "x"]), pixels.rename(y="row", x="col")):
        ax = plots.plot_map(data["tas"][0]).axes[0]
        assert ax.yaxis_inverted()
        assert np.all(np.diff(shown_upwards(ax)) < 0)


@pytest.mark.parametrize("dims", [("latitude", "longitude"), ("rlat", "rlon")])
def test_a_level_of_size_one_is_dropped_and_one_of_several_is_to_be_chosen(dims):
    data = field(np.arange(40.0, 52, 2), np.arange(0.0, 30, 5))
    data = data.rename(dict(zip(("latitude", "longitude"), dims, strict=True)))
    height = xr.DataArray([2.0], dims="height_2m", attrs={"standard_name": "height", "units": "m"})
    one = data.expand_dims(height_2m=height).expand_dims(time=1)
    a, b = (meshes(plots.plot_map(d))[0].get_array() for d in (data, one))
    np.testing.assert_array_equal(a, b)
    several = xr.concat([one[0]] * 2, "height_2m")
    with pytest.raises(InputError, match=r"choose one, for instance with da.isel\(height_2m=0\)"):
        plots.plot_map(several)


# --- words and colours ----------------------------------------------------------------------------


def test_units_and_times_are_written_as_they_are(weather, forecast):
    celsius = relabel(weather, units="degC")["2m_temperature"][5]
    figure = plots.plot_map(celsius)
    assert bars(figure) == ["2m temperature [degC]"]
    assert words(figure) == ["2m temperature", "2001-01-01 05:00 UTC"]
    assert meshes(figure)[0].get_clim()[0] < 0
    one = plots.plot_map(forecast["2m_temperature"][1, 2])
    assert words(one)[1] == (
        "initialised 2001-01-01 01:00 UTC, lead +3 h, valid 2001-01-01 04:00 UTC"
    )


def test_calendars_of_models_have_titles_too():
    data = make_weather(steps=2, time="2001-02-29", calendar="360_day")["2m_temperature"][0]
    assert words(plots.plot_map(data))[1] == "2001-02-29 00:00 UTC"


def test_colours_suit_the_variable():
    lat, lon = np.arange(30.0, 60, 3), np.arange(0.0, 50, 3)
    wind = (field(lat, lon) - 260).assign_attrs(units="m s-1", long_name="wind")
    figure = plots.plot_map(wind)
    low, high = meshes(figure)[0].get_clim()
    assert low == -high
    assert meshes(figure)[0].get_cmap().name == "RdBu_r"
    assert meshes(plots.plot_map(field(lat, lon)))[0].get_cmap().name == "RdYlBu_r"


def test_outliers_do_not_stretch_the_scale_and_the_bar_says_so():
    data = field(np.arange(20.0, 60), np.arange(0.0, 50))
    data[3, 4] = 1e6
    figure = plots.plot_map(data)
    assert meshes(figure)[0].get_clim() == (250, 280)
    assert meshes(figure)[0].colorbar.extend == "max"


def test_missing_values_are_grey_and_constants_can_be_drawn():
    data = field(np.arange(20.0, 60, 5), np.arange(0.0, 50, 5)) * 0 + 280.0
    data[2] = np.nan
    mesh = meshes(plots.plot_map(data))[0]
    assert mesh.get_array().mask.sum() == 4 * data.sizes["longitude"] * 4  # 5 degrees: 4 x 4 parts
    assert mesh.get_clim() == (279.5, 280.5)


def test_pixels_need_no_cartopy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cartopy", None)
    flow = xr.DataArray(
        np.arange(12.0).reshape(4, 3), dims=("y", "x"), name="inflow", attrs={"units": "trips"}
    )
    figure = plots.plot_map(flow.expand_dims(time=1))
    ax = figure.axes[0]
    assert not hasattr(ax, "projection")
    assert ax.yaxis_inverted()  # the first row at the top
    np.testing.assert_array_equal(meshes(figure)[0].get_array(), flow.values)
    assert bars(figure) == ["Inflow [trips]"]
    assert plots.projection_for(flow) is None


def test_draws_in_axes_of_the_caller(weather):
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot(projection=plots.projection_for(weather))
    assert plots.plot_map(weather["2m_temperature"][0], ax=ax, title="mine") is figure
    assert ax.get_title() == "mine"
    assert bars(figure) == ["2m temperature [K]"]


# --- forecasts and errors -------------------------------------------------------------------------


def test_panel_shares_scales_and_shows_the_closed_form(weather, forecast):
    figure = plots.forecast_panel(forecast.chunk(time=1), weather, leads=["1h", "3h"])
    first, truth, error = np.array(meshes(figure)).reshape(2, 3).T  # a row for each lead time
    assert len({m.get_clim() for m in (*first, *truth)}) == 1
    assert len({m.get_clim() for m in error}) == 1
    assert error[0].get_clim() == pytest.approx((-3.5, 3.5))  # bias + 3 * spread
    for f, t, e in zip(first, truth, error, strict=True):
        np.testing.assert_allclose(f.get_array() - t.get_array(), e.get_array(), atol=1e-4)
    found = words(figure)
    assert "initialised 2001-01-01 03:00 UTC" in found  # the last that truth covers
    assert {"+1 h", "+3 h", "2001-01-01 04:00 UTC", "2001-01-01 06:00 UTC"} <= set(found)
    assert "RMSE 1.12 K, bias +0.5 K" in found  # sqrt(0.25 + 1)
    assert "RMSE 3.04 K, bias +0.5 K" in found  # sqrt(0.25 + 9)
    assert bars(figure) == ["2m temperature [K]", "Forecast \N{MINUS SIGN} truth [K]"]


def test_the_shared_scale_holds_both(weather):
    hot = make_forecast(weather, inits=1, steps=2, bias=30.0, spread=0.0)
    ours = meshes(plots.forecast_panel(hot, weather, leads="2h"))[0].get_clim()
    truth = meshes(plots.plot_map(weather["2m_temperature"][2]))[0].get_clim()
    assert ours[0] == pytest.approx(truth[0], abs=1)
    assert ours[1] == pytest.approx(truth[1] + 30, abs=1)


def test_panel_writes_the_scores_that_evaluate_gives(weather):
    forecast = make_forecast(weather, inits=1, steps=1, bias=0.0, spread=0.0)
    forecast = forecast + (forecast["latitude"] / 10).astype("float32") + 1  # larger near the poles
    forecast["2m_temperature"].attrs = weather["2m_temperature"].attrs
    scores = evaluate(forecast, weather)["2m_temperature_overall"]
    rmse, bias = (float(scores.sel(metric=m)) for m in ("rmse", "bias"))
    figure = plots.forecast_panel(forecast, weather)
    assert f"RMSE {rmse:.3g} K, bias {bias:+.2g} K" in words(figure)
    assert rmse < 4.9 < np.sqrt(np.mean((weather["latitude"] / 10 + 1) ** 2))  # unweighted: 5.27


def test_panel_speaks_the_callers_units(weather, forecast):
    theirs = relabel(forecast, units="degC", names={"latitude": "lat", "longitude": "lon"})
    figure = plots.forecast_panel(theirs, weather, init_time="2001-01-01T01:00", leads="2h")
    assert bars(figure) == ["2m temperature [degC]", "Forecast \N{MINUS SIGN} truth [degC]"]
    values, truth, _ = (m.get_array() for m in meshes(figure))
    assert truth.min() < 0 < truth.max() < 40
    assert values.max() < 45


def test_panel_without_truth_and_with_truth_that_ends_early(weather, forecast):
    assert len(meshes(plots.forecast_panel(forecast))) == 3
    short = weather.isel(time=slice(0, 5))  # covers initialisations 0 and 1 only
    figure = plots.forecast_panel(forecast, short, leads="3h")
    assert "initialised 2001-01-01 01:00 UTC" in words(figure)


def test_a_grid_of_forecasts_and_of_their_errors(weather, forecast):
    warmer = forecast + 2
    warmer["2m_temperature"].attrs = forecast["2m_temperature"].attrs
    both = {"ours": forecast, "warmer": warmer, "again": forecast}
    truth, *shown = meshes(figure := plots.forecast_grid(both, weather, columns=2))
    assert len({m.get_clim() for m in (truth, *shown)}) == 1
    assert "Truth" in words(figure)
    missed = meshes(errors := plots.forecast_grid(both, weather, errors=True, lead="3h"))
    assert bars(errors) == ["Forecast \N{MINUS SIGN} truth [K]"]
    for panel, error in zip(shown, missed, strict=True):
        difference = panel.get_array() - truth.get_array()
        np.testing.assert_allclose(difference, error.get_array(), atol=1e-4)
    for words_of in (words(figure), words(errors)):
        assert "ours\nRMSE 3.04 K, bias +0.5 K" in words_of
        assert "warmer\nRMSE 3.91 K, bias +2.5 K" in words_of  # sqrt(2.5 ** 2 + 9)
    with pytest.raises(InputError, match="'later' is valid"):
        plots.forecast_grid({"a": forecast, "later": forecast.isel(time=[0])}, weather)
    with pytest.raises(InputError, match="at least one"):
        plots.forecast_grid({}, weather)


@pytest.mark.parametrize("chunks", [None, {"realization": 1}])
def test_of_an_ensemble_the_mean_is_drawn(weather, forecast, chunks):
    members = [forecast - 1, forecast, forecast + 4]
    for member in members:
        member["2m_temperature"].attrs = forecast["2m_temperature"].attrs
    ensemble = xr.concat(members, "realization")
    ensemble = ensemble if chunks is None else ensemble.chunk(chunks)
    figure = plots.forecast_panel(ensemble, weather, leads="1h")
    shown, mean = (meshes(f)[0].get_array() for f in (figure, plots.forecast_panel(forecast)))
    np.testing.assert_allclose(shown, mean + 1, atol=1e-3)
    assert "2m temperature, ensemble mean" in words(figure)
    assert "2.22" not in words(plots.error_map(ensemble, weather))[1]  # of the member without bias


@pytest.mark.parametrize("draw", [plots.error_map, plots.difference_map])
def test_maps_of_errors_take_truth_with_holes(weather, forecast, draw):
    holes = weather.copy(deep=True)
    holes["2m_temperature"][:, 3] = np.nan  # a row that is land, say
    holes["2m_temperature"][5, 7, 9] = np.nan
    pair = (forecast,) if draw is plots.error_map else (forecast, forecast + 1)
    with pytest.raises(InputError, match='nan="mask"'):
        draw(*pair, holes)
    figure = draw(*pair, holes, nan="mask")
    whole = draw(*pair, weather)
    a, b = (meshes(f)[0].get_array() for f in (figure, whole))
    grid = carto.Grid.of(weather["2m_temperature"][0])
    *_, rows, columns = grid.cells(0.0)
    gone = np.broadcast_to((rows == 3)[:, None], a.shape)
    np.testing.assert_array_equal(np.ma.getmaskarray(a), gone)
    same = ~gone & ~((rows == 7)[:, None] & (columns == 9))
    np.testing.assert_allclose(a[same], b[same], rtol=1e-6)


def test_default_leads_run_from_first_to_last():
    lead = np.arange(1, 13) * np.timedelta64(1, "h").astype("timedelta64[ns]")
    assert lead_positions(lead, None, default=4) == [0, 4, 7, 11]
    assert lead_positions(lead[:2], None, default=4) == [0, 1]
    assert lead_positions(lead, None) == list(range(12))


def test_error_map_is_the_score_at_every_point(weather, forecast):
    figure = plots.error_map(forecast, weather)
    k = np.arange(1, 4)
    odd, even = np.sqrt(np.mean((0.5 + k) ** 2)), np.sqrt(np.mean((0.5 - k) ** 2))
    shown = np.unique(np.round(np.asarray(meshes(figure)[0].get_array()), 3))
    np.testing.assert_allclose(shown, sorted([even, odd]), atol=2e-3)
    assert meshes(figure)[0].get_clim() == pytest.approx((0, odd), abs=1e-3)
    assert words(figure)[0] == "RMSE of 2m temperature"
    assert "lead +1 h to +3 h · area-weighted RMSE 2.22 K · 4 initialisations" in words(figure)[1]
    bias = plots.error_map(forecast, weather, metric="bias", lead="2h")
    low, high = meshes(bias)[0].get_clim()
    assert low == -high == pytest.approx(-2.5, abs=1e-3)
    assert "lead +2 h ·" in words(bias)[1]


def test_lead_curve_draws_every_model(card):
    figure = plots.lead_curve(card)
    ax = figure.axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["SimVPv2"].get_xdata(), [1, 2, 3])
    k = np.arange(1, 4)
    np.testing.assert_allclose(lines["SimVPv2"].get_ydata(), np.sqrt(0.25 + k**2), rtol=1e-4)
    np.testing.assert_allclose(lines["Persistence"].get_ydata(), 4.0 * k, rtol=1e-4)
    assert lines["Climatology"].get_linestyle() != lines["SimVPv2"].get_linestyle() == "-"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Lead time [h]", "RMSE [K]")
    assert ax.get_ylim()[0] == 0
    assert {"SimVPv2", "Persistence", "Climatology"} == {t.get_text() for t in ax.texts}
    # names of lines that end close together are moved apart: by a line's height at least
    places = sorted(t.xy[1] for t in ax.texts)
    assert np.diff(places).min() > 0.05 * ax.get_ylim()[1]


def test_scorecard_shows_scores_and_skill(card):
    figure = plots.scorecard(card)
    scores, skill = figure.axes
    assert [t.get_text() for t in scores.get_xticklabels()] == ["1 h", "2 h", "3 h", "overall"]
    assert [t.get_text() for t in skill.get_yticklabels()] == [
        "SimVPv2 vs Persistence",
        "SimVPv2 vs Climatology",
    ]
    assert [t.get_text() for t in scores.texts[:3]] == ["1.12", "2.06", "3.04"]
    assert skill.texts[0].get_text() == "0.72"  # 1 - 1.118 / 4
    assert skill.texts[6].get_text() == "\N{MINUS SIGN}0.01"  # 1 - 3.041 / 3


def test_scores_of_one_model_need_no_card(weather, forecast):
    scores = evaluate(forecast, weather)
    assert len(plots.lead_curve(scores, metric="mae").axes[0].lines) == 1
    assert len(plots.scorecard(scores).axes) == 1


# --- texts from anywhere --------------------------------------------------------------------------

ODD = {
    "no text": "a\ud800b\x00\x1b[31mb\nc" + "$\\sqrt{" * 200_000,
    "mathtext": "$\\frac{$",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_any_name_and_unit_can_be_drawn(weather, forecast, text, tmp_path):
    def named(ds):
        tracer = ds["2m_temperature"].drop_attrs(deep=False)
        return tracer.assign_attrs(long_name=text, units=text).to_dataset(name="tracer")

    ours, truth = named(forecast), named(weather)
    scores = evaluate(forecast, weather)
    scores["2m_temperature"].attrs |= {"long_name": text, "units_rmse": text}
    card = scorecard({text: scores, "Persistence": scores})
    table = published.cost_table()
    table.loc[text] = table.iloc[0]
    flat = truth["tracer"][0].rename(latitude="y", longitude="x")
    flat["y"].attrs = {"units": text}
    figures = [
        plots.plot_map(truth["tracer"][0]),
        plots.plot_map(truth["tracer"][0], title=text),
        plots.plot_map(flat),
        plots.forecast_panel(ours, truth, leads="1h"),
        plots.error_map(ours, truth),
        plots.difference_map(ours, ours + 1, truth, names=(text, text)),
        plots.hovmoller(truth),
        plots.lead_curve(card),
        plots.scorecard(card),
        plots.performance(table),
    ]
    for figure in figures:
        figure.draw_without_rendering()
    assert len(plots.save(figures[0], tmp_path / "x.png", dpi=30).read_bytes()) < 2e5
    if len(text) < 10:
        assert text in words(figures[0])[0]


def test_a_map_in_axes_of_the_caller_has_any_title(weather):
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot(projection=plots.projection_for(weather))
    for text in ODD.values():
        plots.plot_map(weather["2m_temperature"][0], ax=ax, title=text)
        figure.draw_without_rendering()


@pytest.mark.parametrize("name", ["z", "geopotential", "gh"])
def test_a_level_is_part_of_the_title(name):
    z = field(np.arange(30.0, 60, 3), np.arange(0.0, 50, 3), long_name="Geopotential").rename(name)
    pressure = xr.DataArray(500.0, attrs={"units": "hPa", "standard_name": "air_pressure"})
    on_level = z.assign_coords(isobaricInhPa=pressure)
    assert words(plots.plot_map(on_level))[0] == "Geopotential at 500 hPa"
    assert bars(plots.plot_map(on_level)) == ["Geopotential at 500 hPa [K]"]
    attrs = {"level": 850.0, "level_units": "hPa"}
    assert words(plots.plot_map(z.assign_attrs(attrs)))[0] == "Geopotential at 850 hPa"
    said = z.assign_attrs(attrs, long_name="Height of the 850 hPa level")
    assert words(plots.plot_map(said))[0] == "Height of the 850 hPa level"
    near = field(np.arange(30.0, 60, 3), np.arange(0.0, 50, 3)).assign_coords(level=500.0)
    assert words(plots.plot_map(near))[0] == "2m temperature"  # comes from a file with levels


# --- what is refused ------------------------------------------------------------------------------


def _refusals(weather, forecast, card):
    t2m = weather["2m_temperature"]
    both = weather.assign(other=t2m)
    shifted = weather.assign_coords(latitude=weather["latitude"] + 0.5)
    by_place = evaluate(forecast, weather, by=("latitude",))
    return [
        (lambda: plots.plot_map(t2m), r"time: 12.*isel\(time=0\)"),
        (lambda: plots.plot_map(both), "2m_temperature.*other.*variable="),
        (lambda: plots.plot_map("file.nc"), "found str"),
        (lambda: plots.plot_map(t2m[0] * np.nan), "no finite value"),
        (lambda: plots.plot_map(t2m[0, :1]), "at least 2 rows"),
        (lambda: plots.plot_map(t2m[:, 0]), "time: 12"),
        (lambda: plots.plot_map(t2m[0], vmin=300, vmax=200), "less than vmax"),
        (lambda: plots.forecast_panel(weather, weather), "prediction_timedelta"),
        (lambda: plots.forecast_panel(forecast, weather, leads=[6]), "such as '6h', found 6"),
        (lambda: plots.forecast_panel(forecast, weather, leads="9h"), r"\+9 h.*\+1 h, \+2 h"),
        (lambda: plots.forecast_panel(forecast, weather, init_time="1999"), "no initialisation"),
        (lambda: plots.forecast_panel(forecast, weather[{"time": slice(1)}]), "valid times"),
        (
            lambda: plots.forecast_panel(forecast, shifted),
            "forecast and truth lie on different grids: latitude",
        ),
        (lambda: plots.error_map(forecast, weather, metric="acc"), "climatology"),
        (lambda: plots.error_map(weather, forecast), "look exchanged"),
        (lambda: plots.forecast_panel(weather, forecast), "look exchanged"),
        (lambda: plots.lead_curve(weather), "expected scores"),
        (lambda: plots.lead_curve(by_place), "by lead time"),
        (lambda: plots.lead_curve(card, metric="crps"), "crps"),
    ]


@pytest.mark.parametrize("case", range(19))
def test_bad_input_is_named(weather, forecast, card, case):
    call, message = _refusals(weather, forecast, card)[case]
    with pytest.raises(InputError, match=message):
        call()


def test_axes_without_a_projection_are_refused(weather):
    from matplotlib.figure import Figure

    with pytest.raises(InputError, match="projection_for"):
        plots.plot_map(weather["2m_temperature"][0], ax=Figure().add_subplot())


# --- files, network, state ------------------------------------------------------------------------


def test_nothing_is_fetched_and_nothing_stays_changed(weather, monkeypatch, tmp_path):
    import cartopy
    import matplotlib
    from cartopy.io import Downloader

    def refuse(*args, **kwargs):
        raise AssertionError("a map must not use the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(Downloader, "path", refuse)
    before = dict(cartopy.config), dict(matplotlib.rcParams), matplotlib.get_backend()
    region = weather["2m_temperature"][0].sel(latitude=slice(20, 80), longitude=slice(0, 90))
    for name, data in {"globe": weather["2m_temperature"][0], "region": region}.items():
        path = plots.save(plots.plot_map(data), tmp_path / "new" / f"{name}.png", dpi=60)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert (dict(cartopy.config), dict(matplotlib.rcParams), matplotlib.get_backend()) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_the_shipped_outlines_are_real():
    europe = carto.Grid.of(field(np.arange(36.0, 60), np.arange(0.0, 30)))
    globe = carto.Grid.of(field(np.linspace(-85, 85, 18), np.arange(36) * 10.0))
    coast, near = (coastlines.outlines(*coastlines.COASTLINE, g.box) for g in (globe, europe))
    assert len(list(coast.geometries())) == 134
    assert 3 < len(list(near.geometries())) < 30
    again = coastlines.outlines(*coastlines.COASTLINE, europe.box)
    assert near is again  # shared by all panels
    assert len(list(coastlines.outlines(*coastlines.BORDERS, europe.box).geometries())) > 20
    assert "public domain" in (coastlines.SHIPPED / "NOTICE.txt").read_text()


def test_finer_outlines_on_disk_are_used_for_small_regions(monkeypatch, tmp_path):
    import cartopy

    monkeypatch.setitem(cartopy.config, "pre_existing_data_dir", str(tmp_path))
    monkeypatch.setitem(cartopy.config, "data_dir", str(tmp_path / "none"))
    folder = tmp_path / "shapefiles" / "natural_earth" / "physical"
    folder.mkdir(parents=True)
    fine = folder / "ne_50m_coastline.shp"
    for suffix in (".shp", ".shx"):
        fine.with_suffix(suffix).touch()
    shipped = coastlines.SHIPPED / "shapefiles/natural_earth/physical/ne_110m_coastline.shp"
    assert (
        coastlines.outline_file("physical", "coastline", 20.0) == shipped
    )  # one that is not whole
    fine.with_suffix(".dbf").touch()
    assert coastlines.outline_file("physical", "coastline", 20.0) == fine
    assert coastlines.outline_file("physical", "coastline", 360.0) == shipped


def test_a_picture_appears_whole_or_not_at_all(card, monkeypatch, tmp_path):
    figure = plots.lead_curve(card)
    path = tmp_path / "curve.png"
    path.write_bytes(b"the old one")

    def fail(name, **options):
        Path(name).write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            plots.save(figure, path)
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["curve.png"]
    plots.save(figure, str(path), dpi=40)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"curve\.xyz.*\.png"):
        plots.save(figure, tmp_path / "curve.xyz")


def test_notebooks_show_the_figure(card):
    png, size = plots.lead_curve(card)._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert 600 < size["width"] < 900


def test_what_is_missing_is_named(weather, monkeypatch):
    monkeypatch.setitem(sys.modules, "cartopy", None)
    with pytest.raises(ImportError, match=r"pip install 'stforecast\[maps\]'"):
        plots.plot_map(weather["2m_temperature"][0])


def test_importing_needs_neither_matplotlib_nor_cartopy():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'cartopy', 'shapely']));"
        "import stforecast; stforecast.plot_map"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_real_regional_analysis():
    store = SHARED / "data" / "ncep_air_temperature" / "air_temperature.zarr"
    if not store.exists():
        pytest.skip("needs ../shared/data/ncep_air_temperature")
    air = xr.open_zarr(store)["air"][40]  # 25 x 53, latitude descending
    figure = plots.plot_map(air)
    assert type(figure.axes[0].projection).__name__ == "LambertConformal"
    assert bars(figure) == ["4xDaily Air temperature at sigma level 995 [degK]"]
    array = np.asarray(meshes(figure)[0].get_array())
    assert array[0, 0] == pytest.approx(float(air.sel(lat=15, lon=200)))
    assert array[-1, -1] == pytest.approx(float(air.sel(lat=75, lon=330)))
