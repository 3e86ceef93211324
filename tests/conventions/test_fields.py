"""What attributes say of numbers: packing, fills, limits, temperatures; and names at the gate."""

from __future__ import annotations

import warnings

import netCDF4
import numpy as np
import pytest
import xarray as xr

from stforecast import Persistence, Task, evaluate, predict
from stforecast.conventions import Grid, canonicalize, restore
from stforecast.errors import InputError
from stforecast.testing import make_forecast, make_weather, relabel

NAME = "2m_temperature"


@pytest.fixture
def weather() -> xr.Dataset:
    return make_weather(12, shape=(6, 8))


def with_attrs(ds: xr.Dataset, values=None, **attrs) -> xr.Dataset:
    """The data with other attributes; None takes one away."""
    out = ds.copy(deep=True)
    if values is not None:
        out[NAME] = out[NAME].copy(data=values)
    merged = ds[NAME].attrs | attrs
    out[NAME].attrs = {k: v for k, v in merged.items() if v is not None}
    return out


def missing(ds: xr.Dataset) -> int:
    return int(np.isnan(canonicalize(ds)[0][NAME].values).sum())


# --- angles ---------------------------------------------------------------------------------------


def in_units(ds: xr.Dataset, units, per_degree: float, dtype="f8") -> xr.Dataset:
    return ds.assign_coords(
        {
            axis: (axis, (ds[axis].values * per_degree).astype(dtype), {"units": units})
            for axis in ("latitude", "longitude")
        }
    )


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(6, 8), (7, 8)])  # the second has points at the poles
@pytest.mark.parametrize(
    ("units", "per_degree"),
    [
        *((u, np.pi / 180) for u in ("radian", "radians", "rad", b"radian", ["radian"], "Radian")),
        ("arc_minute", 60),
        ("degrees", 1),
        ("degrees_north", 1),
        ("", 1),
        ("unknown", 1),
    ],
)
def test_angles_in_any_unit(units, per_degree, shape, dtype):
    ds = make_weather(4, shape=shape)
    if shape[0] == 7:
        ds = ds.assign_coords(latitude=np.linspace(-90, 90, 7))
    theirs = in_units(ds, units, per_degree, dtype)
    if units == "degrees_north":
        theirs["longitude"].attrs["units"] = "degrees_east"
    ours, labels = canonicalize(theirs)
    assert Grid.of(ours).same_as(Grid.of(ds), 1e-4)
    assert Grid.of(ours).periodic
    Grid.of(ours).bounds()  # refuses what lies beyond a pole
    xr.testing.assert_identical(restore(ours, labels), theirs)
    part = restore(ours.isel(latitude=slice(1, 3), longitude=slice(2, 5)), labels)
    np.testing.assert_allclose(part["latitude"], theirs["latitude"][1:3], rtol=1e-5)
    np.testing.assert_allclose(part["longitude"], theirs["longitude"][2:5], rtol=1e-5)


def test_scores_of_radians_are_those_of_degrees(weather):
    forecast = make_forecast(weather, spread=0, bias=0)
    forecast[NAME] = forecast[NAME] + forecast["latitude"].astype("f4") / 10
    forecast[NAME].attrs["units"] = "K"
    right = evaluate(forecast, weather)
    per = np.pi / 180
    got = evaluate(in_units(forecast, "rad", per), in_units(weather, "radian", per))
    np.testing.assert_allclose(got[NAME], right[NAME], rtol=1e-6)
    np.testing.assert_allclose(
        evaluate(forecast, in_units(weather, "radian", per))[NAME], right[NAME], rtol=1e-6
    )


@pytest.mark.parametrize("attrs", [{}, {"units": "degrees_north"}])
@pytest.mark.parametrize("west", [False, True])
def test_a_globe_that_looks_like_radians_is_refused(weather, attrs, west):
    ds = weather.assign_coords(longitude=weather["longitude"] - 180) if west else weather
    ds = in_units(ds, "", np.pi / 180)
    ds["latitude"].attrs = attrs
    with pytest.raises(InputError, match=r"look like radians.*'radian'"):
        canonicalize(ds)


def test_a_small_region_in_degrees_is_none(weather):
    small = weather.assign_coords(latitude=np.linspace(-1.5, 1.5, 6), longitude=np.arange(8) * 0.75)
    assert canonicalize(small)[0]["longitude"].values[-1] == 5.25
    nearly = small.assign_coords(longitude=np.arange(8) * 2 * np.pi / 8.1)
    assert canonicalize(nearly)[0]["latitude"].values[-1] == 1.5


def test_projected_coordinates_are_no_angles(weather):
    ds = weather.rename(latitude="rlat", longitude="rlon")
    for axis in ("rlat", "rlon"):
        ds[axis].attrs = {"units": "radian"}
    assert canonicalize(ds)[0]["y"].values[0] == ds["rlat"].values[0]
    metres = in_units(weather, "m", 1000.0)
    with pytest.raises(InputError, match=r"latitude 'latitude' has units 'm'.*call it y"):
        canonicalize(metres)
    wrong = in_units(weather, "radian", 1.0)
    with pytest.raises(InputError, match=r"latitude"):
        canonicalize(wrong)
    beyond = weather.assign_coords(latitude=[-75.0, -45, -15, 15, 45, 90.5])
    with pytest.raises(InputError, match="expected -90 to 90"):
        canonicalize(in_units(beyond, "radian", np.pi / 180))


# --- what nobody has written ----------------------------------------------------------------------


def test_the_fills_are_those_of_netcdf():
    for kind, fill in netCDF4.default_fillvals.items():
        if kind[0] not in "fiu":
            continue
        values = np.ones((3, 2, 4), kind)
        values[1, 0, 2] = fill
        coords = {"latitude": [-45.0, 45.0], "longitude": np.arange(4) * 90.0}
        coords["time"] = np.arange(3).astype("M8[D]").astype("M8[ns]")
        ds = xr.Dataset({NAME: (("time", "latitude", "longitude"), values)}, coords)
        ds = ds.rename({NAME: "counts"})
        got = canonicalize(ds)[0]["counts"].values
        assert np.argwhere(np.isnan(got)).tolist() == ([] if kind[1] == "1" else [[1, 0, 2]]), kind


@pytest.mark.parametrize("how", ["memory", "file", "dask"])
@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize(
    "encoding",
    [
        {"dtype": "f4"},
        {"dtype": "f8"},
        {"dtype": "i2", "scale_factor": 0.01, "add_offset": 273.15},
        {"dtype": "i2", "scale_factor": np.float32(0.01), "add_offset": np.float32(270)},
        {"dtype": "i4", "scale_factor": 0.001},
    ],
)
def test_a_file_that_was_written_half(weather, tmp_path, encoding, decode, how):
    ds = weather.copy(deep=True)
    ds[NAME].encoding = {"_FillValue": None} | encoding
    with warnings.catch_warnings():  # without a _FillValue
        warnings.simplefilter("ignore")
        ds.to_netcdf(tmp_path / "half.nc")
    with netCDF4.Dataset(tmp_path / "half.nc", "a") as file:
        file.set_auto_maskandscale(False)
        file[NAME][9:] = netCDF4.default_fillvals[encoding["dtype"]]
    with xr.open_dataset(tmp_path / "half.nc", mask_and_scale=decode) as opened:
        if how == "memory":
            opened = opened.load()
        elif how == "dask":
            opened = opened.chunk(time=5)
        assert missing(opened) == 3 * 6 * 8
        with pytest.raises(InputError, match=r"NaN"):
            Persistence(Task("t2m", 2, 1)).predict(opened).compute()


def test_a_fill_that_is_declared_is_the_only_one(weather):
    packed = relabel(weather, packed=True)  # _FillValue -32768
    packed[NAME][2, 1, 3] = -32767
    assert missing(packed) == 0


def test_close_to_a_fill_is_a_number(weather):
    values = weather[NAME].values.copy()
    values[0, 0, 0] = np.nextafter(np.float32(9.96921e36), np.float32(0))
    assert missing(with_attrs(weather, values)) == 0


# --- limits ---------------------------------------------------------------------------------------

OUT = 3 * 2 * 2


@pytest.fixture
def failed(weather) -> xr.Dataset:
    """An instrument that failed for some hours."""
    values = weather[NAME].values.copy()
    values[9:, 3:5, 3:5] = -9999
    return with_attrs(weather, values)


@pytest.mark.parametrize(
    "limits",
    [
        {"valid_min": np.float32(150), "valid_max": np.float32(350)},
        {"valid_min": 150},
        {"valid_range": [150.0, 350.0]},
        {"valid_range": np.array([150, 350], "f8")},
        {"valid_range": "150, 350"},
        {"valid_min": "150"},
        {"valid_min": [150]},
        {"valid_min": b"150"},
        {"valid_range": [-1e4, 1e4], "valid_min": 0},
    ],
)
@pytest.mark.parametrize("chunks", [None, 5])
def test_numbers_outside_the_limits_are_missing(failed, limits, chunks):
    ds = with_attrs(failed, **limits)
    ds = ds if chunks is None else ds.chunk(time=chunks)
    assert missing(ds) == OUT
    ours, labels = canonicalize(ds)
    assert not set(limits) & set(ours[NAME].attrs)  # they are applied
    assert set(limits) <= set(restore(ours, labels)[NAME].attrs)
    assert missing(ours) == OUT  # once more through the gate


def test_limits_are_in_the_units_of_the_file(failed):
    celsius = with_attrs(failed, failed[NAME].values - 273.15, units="degC", valid_min=-100)
    assert missing(celsius) == OUT
    edge = with_attrs(failed, units="K", valid_max=float(failed[NAME].max()))
    assert missing(edge) == 0


@pytest.mark.parametrize("scale", [0.01, -0.01])
@pytest.mark.parametrize("unpacked", [True, False])
@pytest.mark.parametrize("decode", [True, False])
def test_limits_of_packed_numbers(weather, tmp_path, scale, unpacked, decode):
    values = np.rint((weather[NAME].values.astype("f8") - 273.15) / scale).astype("i2")
    low, high = int(values.min()), int(values.max())
    values[9:, 3:5, 3:5] = 32000
    limits = np.array([low, high], "i2")
    if unpacked:  # as the NetCDF User's Guide has it: of the type of scale_factor
        limits = np.sort(np.array([low, high]) * scale + 273.15)
    packed = with_attrs(weather)
    attrs = {"units": "K", "scale_factor": scale, "add_offset": 273.15, "valid_range": limits}
    packed[NAME] = (packed[NAME].dims, values, attrs)
    packed.to_netcdf(tmp_path / "packed.nc")
    with xr.open_dataset(tmp_path / "packed.nc", mask_and_scale=decode) as ds:
        assert missing(ds) == OUT
        forecast = Persistence(Task("t2m", 2, 1)).predict(ds, init_time=ds.time.values[4])
        assert "valid_range" not in forecast[NAME].attrs  # it was of the packed numbers
        assert missing(forecast) == 0


def test_a_forecast_may_leave_the_limits_of_its_input(weather):
    ds = weather.rename({NAME: "humidity"})
    ds["humidity"].attrs = {"units": "%", "valid_max": 1000.0}
    assert "valid_max" not in Persistence(Task("humidity", 2, 1)).predict(ds)["humidity"].attrs


def test_limits_that_leave_nothing_are_refused(weather):
    anomalies = with_attrs(
        weather, weather[NAME].values - 270, long_name="anomaly", valid_min=150.0, valid_max=350.0
    )
    with pytest.raises(InputError, match=r"no value within its valid_min 150.0, valid_max 350.0"):
        canonicalize(anomalies)


# --- attributes of any form -----------------------------------------------------------------------

FORMS = [0.01, "0.01", [0.01], ["0.01"], np.array([0.01]), np.array(0.01), b"0.01", (0.01,)]
FORMS += [np.array([b"0.01"]), np.array(["0.01"], dtype=object), " 0.01 ", "1e-2"]


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_packing_of_any_form(weather, form):
    packed = relabel(weather, packed=True)
    right = canonicalize(packed)[0]
    offset, fill = packed[NAME].attrs["add_offset"], packed[NAME].attrs["_FillValue"]
    for key, value in (("scale_factor", form), ("add_offset", [str(offset)])):
        xr.testing.assert_equal(canonicalize(with_attrs(packed, **{key: value}))[0], right)
    packed[NAME][2, 1, 3] = fill
    for value in ([fill], str(fill), np.array([fill]), [str(fill).encode()]):
        assert missing(with_attrs(packed, _FillValue=value)) == 1
        assert missing(with_attrs(packed, _FillValue=None, missing_value=[value, -31000])) == 1


@pytest.mark.parametrize(
    "attrs",
    [
        {"scale_factor": "abc"},
        {"scale_factor": [0.01, 0.02]},
        {"scale_factor": 0},
        {"scale_factor": np.nan},
        {"scale_factor": np.inf},
        {"scale_factor": {"a": 1}},
        {"scale_factor": "9" * 5000},
        {"add_offset": ["x"]},
        {"add_offset": "1 2"},
        {"_FillValue": "none"},
        {"missing_value": [[1], "nix"]},
        {"valid_min": "low"},
        {"valid_range": [1]},
        {"valid_range": [1, 2, 3]},
        {"valid_range": [10.0, 1.0]},
        {"valid_min": 2.0, "valid_max": 1.0},
        {"units": ["K", "degC"]},
        {"units": "y" * 10**6},
    ],
    ids=lambda a: str(a)[:40],
)
def test_attributes_that_mean_nothing_are_named(weather, attrs):
    for ds in (weather, relabel(weather, packed=True)):
        with pytest.raises(InputError) as error:
            canonicalize(with_attrs(ds, **attrs))
        assert any(key in str(error.value) for key in attrs)
        assert NAME in str(error.value)
        assert len(str(error.value)) < 500


def test_what_a_file_says_that_means_nothing_is_named(weather):
    weather[NAME].encoding = {"missing_value": "nix"}
    with pytest.raises(InputError, match=f"'{NAME}' has missing_value 'nix', expected a number"):
        canonicalize(weather)


def test_what_is_still_to_be_decoded_is_named(weather):
    numbers = np.rint((weather[NAME].values - 200) / 0.5).astype("u1").view("i1")
    packing = {"scale_factor": 0.5, "add_offset": 200.0, "_Unsigned": "true"}
    theirs = with_attrs(weather, numbers, **packing)
    with pytest.raises(InputError, match=r"_Unsigned.*decode_cf"):
        canonicalize(theirs)
    decoded = canonicalize(xr.decode_cf(theirs))[0]
    np.testing.assert_allclose(decoded[NAME], weather[NAME], atol=0.26)
    rows = np.rint(weather["latitude"].values * 100).astype("i2")
    packed = weather.assign_coords(latitude=("latitude", rows, {"scale_factor": 0.01}))
    with pytest.raises(InputError, match=r"'latitude' is packed.*decode_cf"):
        canonicalize(packed)
    xr.testing.assert_allclose(canonicalize(xr.decode_cf(packed))[0], canonicalize(weather)[0])


def test_a_fill_that_the_type_cannot_hold_is_none(weather):
    packed = relabel(weather, packed=True)
    assert missing(with_attrs(packed, _FillValue=None, missing_value=1e20)) == 0
    assert missing(with_attrs(packed, _FillValue=np.nan)) == 0
    assert missing(with_attrs(weather, _FillValue=float("nan"), missing_value="nan")) == 0


def test_labels_of_axes_may_come_in_arrays(weather):
    ds = weather.rename(latitude="a", longitude="b")
    ds["a"].attrs = {"units": np.array(["degrees_north"], dtype=object)}
    ds["b"].attrs = {"standard_name": [b"longitude"], "axis": np.array(["X"])}
    assert canonicalize(ds)[0][NAME].dims == ("time", "latitude", "longitude")


def test_forecasts_can_be_written_whatever_the_attributes_are(weather, tmp_path):
    ds = with_attrs(weather, units=np.array([b"K"]), long_name=b"air", valid_min="150")
    forecast = Persistence(Task("t2m", 2, 1)).predict(ds)
    assert forecast[NAME].attrs["units"] == "K"
    forecast.to_netcdf(tmp_path / "f.nc")
    forecast.to_zarr(tmp_path / "f.zarr", consolidated=False)


# --- temperatures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attrs",
    [
        {"long_name": "2 metre temperature anomaly"},
        {"long_name": ["Temperature Anomalies"]},
        {"standard_name": "air_temperature_anomaly"},
        {"units_metadata": "temperature: difference"},
        {"cell_methods": "realization: standard_deviation"},
        {"long_name": "departure from normal"},
        {"long_name": "analysis increment"},
        {"long_name": "ensemble spread"},
    ],
    ids=str,
)
@pytest.mark.parametrize("units", ["K", "degC", None])
def test_differences_of_temperature_are_taken_as_they_are(weather, attrs, units):
    values = weather[NAME].values - weather[NAME].values.mean(0)
    ds = with_attrs(weather, values, units=units, **attrs)
    ours, labels = canonicalize(ds)
    np.testing.assert_array_equal(ours[NAME], values)
    xr.testing.assert_identical(restore(ours, labels), ds)
    scores = evaluate(Persistence(Task("t2m", 2, 1)).predict(ds, init_time=ds.time[4:8]), ds)
    full = Persistence(Task("t2m", 2, 1)).predict(weather, init_time=weather.time[4:8])
    right = evaluate(full, weather)  # what is taken off cancels in the errors
    np.testing.assert_allclose(scores[NAME], right[NAME], rtol=1e-4)


def test_anomalies_that_do_not_say_so_get_the_advice(weather):
    with pytest.raises(InputError, match=r"'K'.*contradict.*of anomalies.*long_name"):
        canonicalize(with_attrs(weather, weather[NAME].values - 270))


@pytest.mark.parametrize(
    ("attrs", "shift"),
    [
        ({"standard_name": "air_potential_temperature"}, 450),
        ({"standard_name": "equivalent_potential_temperature"}, 90),
        ({"standard_name": "air_equivalent_temperature"}, 80),
        ({"standard_name": "virtual_temperature"}, 0),
        ({"standard_name": "toa_brightness_temperature"}, -130),
        ({"standard_name": "brightness_temperature", "long_name": "10.7 GHz"}, -180),
        ({"long_name": "potential temperature", "standard_name": "temperature"}, 900),
    ],
    ids=str,
)
def test_which_temperatures_are_plausible(weather, attrs, shift):
    values = weather[NAME].values + np.float32(shift)
    ds = with_attrs(weather, values, **attrs).rename({NAME: "theta"})
    np.testing.assert_array_equal(canonicalize(ds)[0]["theta"], values)
    ds = with_attrs(weather, values, **attrs)
    np.testing.assert_array_equal(canonicalize(ds)[0][NAME], values)


@pytest.mark.parametrize(
    ("standard", "units", "shift"),
    [
        ("air_temperature", "K", 400),
        ("air_temperature", "degC", 0),
        ("sea_water_potential_temperature", "degC", 0),
        ("soil_temperature", "K", -273.15),
        ("air_potential_temperature", "K", -273.15),
    ],
)
def test_units_that_contradict_are_still_refused(weather, standard, units, shift):
    ds = with_attrs(weather, weather[NAME].values + shift, standard_name=standard, units=units)
    with pytest.raises(InputError, match=r"contradict"):
        canonicalize(ds.rename({NAME: "field"}))


@pytest.mark.parametrize("units", ["K", "degC", None])
@pytest.mark.parametrize("chunk", [3, 12])
def test_units_that_change_where_nobody_looked_are_refused_when_read(weather, units, chunk):
    start = weather[NAME].values - np.float32(273.15 if units == "degC" else 0)
    values = start + np.float32(273.15 if units == "degC" else -273.15)
    values = np.where((np.arange(12) < 6)[:, None, None], start, values)
    ds = with_attrs(weather, values, units=units).chunk(time=chunk)
    ours, _ = canonicalize(ds)  # of which the first map is plausible
    with pytest.raises(InputError, match="the units change with time"):
        ours[NAME].isel(time=-1).compute()
    with pytest.raises(InputError, match="the units change with time"):
        Persistence(Task("t2m", 4, 2)).predict(ds).compute()
    if chunk == 3:
        want = weather[NAME].values[:6]
        np.testing.assert_allclose(ours[NAME].isel(time=slice(6)).values, want, atol=2e-5)


def test_zeros_and_a_few_odd_values_are_no_other_units(weather):
    values = weather[NAME].values.copy()
    values[:, :2] = 0  # what is missing, to some
    values[5:, 4, :3] = -9999
    got = canonicalize(with_attrs(weather, values).chunk(time=4))[0]
    np.testing.assert_array_equal(got[NAME].values, values)


@pytest.mark.parametrize("units", ["K", None])
def test_units_that_change_with_time_are_refused(weather, units):
    for changed in (slice(8, None), slice(3, 6)):
        values = weather[NAME].values.copy()
        values[changed] -= np.float32(273.15)
        with pytest.raises(InputError, match=r"contradict|change from K"):
            canonicalize(with_attrs(weather, values, units=units))


# --- names, and grids that are none ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "../../x",
        "$T$",
        "+a",
        "@a",
        "a\nb",
        "a\0",
        "\x7f",
        "a" * 256,
        "é" * 128,
        "a\ud800",
        *("", " a", "a ", "a\\b", ".", "(a)", "-a", "t2m_overall", "t2m_skill", 3),
    ],
    ids=ascii,
)
def test_names_that_no_file_holds_are_refused(weather, name):
    ds = weather.rename({NAME: name})
    with pytest.raises(InputError, match=r"ds\.rename|expected"):
        canonicalize(ds)
    with pytest.raises(InputError):
        predict(ds, Persistence(Task("air", 2, 1)))
    if isinstance(name, str) and not name.endswith(("_overall", "_skill")):
        with pytest.raises(InputError, match=r"ds\.rename"):
            canonicalize(weather.assign_coords({name: ("time", np.arange(12))}))


@pytest.mark.parametrize(
    "name", ["a", "10m_wind", "_x", "é", "a$b", "a-b", "a.b (c)", "skill", "温"]
)
def test_names_that_files_hold_are_taken(weather, name, tmp_path):
    forecast = Persistence(Task(name, 2, 1)).predict(weather.rename({NAME: name}))
    forecast.to_netcdf(tmp_path / "f.nc")
    forecast.to_zarr(tmp_path / "f.zarr", consolidated=False)


@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize("as_data", [True, False])
@pytest.mark.parametrize(
    ("name", "attrs"),
    [
        ("XLAT", {"units": "degree_north"}),
        ("lat", {}),
        ("phi", {"standard_name": "latitude", "units": "radian"}),
    ],
)
def test_latitudes_of_more_dimensions_are_refused(weather, time, as_data, name, attrs):
    ds = weather.drop_vars(["latitude", "longitude"])
    ds = ds.rename(latitude="south_north", longitude="west_east", time="Time")
    dims = ("Time", "south_north", "west_east") if time else ("south_north", "west_east")
    lat = np.broadcast_to(weather["latitude"].values[:, None], [ds.sizes[d] for d in dims])
    ds = ds.assign_coords({name: (dims, lat, attrs)})
    ds = ds.reset_coords(name) if as_data else ds
    with pytest.raises(InputError, match=f"curvilinear.*'{name}' is {len(dims)}-D.*drop_vars"):
        canonicalize(ds, ["t2m"])
    assert canonicalize(ds.drop_vars(name))[0][NAME].dims == ("time", "y", "x")
