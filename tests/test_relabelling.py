"""Whatever spelling of its labels a data set has, through every door: the same numbers.

One history and one forecast with known errors are written in random combinations of names, units,
orders of axes, calendars, packings, conventions of time and chunkings. Every door must give what it
gives for the canonical ones, in the caller's own labels. Nothing here may be refused.
"""

from __future__ import annotations

import functools
from typing import Any

import cftime
import dask
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stforecast import Forecaster, Task, TrainConfig, evaluate, fit, predict
from stforecast.conventions import canonicalize
from stforecast.forecasting.writing import write_forecast
from stforecast.testing import make_forecast, make_weather

LABELS = ["time", "prediction_timedelta", "latitude", "longitude", "valid_time"]
BIAS, SPREAD = 0.5, 1.0


class Kind:
    """A variable: its canonical name, others' names, and (scale, offset) of units they use."""

    def __init__(self, canonical, names, units, scale=1.0, shift=0.0, levels=False):
        self.canonical, self.names, self.units = canonical, names.split(), units
        self.scale, self.shift, self.levels = scale, shift, levels


KINDS = {
    # One unit is `scale * temperature + shift` of make_weather, so that errors are known as well.
    "temperature": Kind(
        "2m_temperature",
        "2m_temperature t2m 2t tas T2",
        dict.fromkeys(("K", "kelvin", "Kelvin", "degK"), (1.0, 0.0))
        | dict.fromkeys(("degC", "°C", "celsius", "degrees_Celsius", "deg_C", "C"), (1.0, -273.15))
        | dict.fromkeys(("degF", "Fahrenheit"), (1.8, -459.67)),
    ),
    "wind": Kind(
        "10m_u_component_of_wind",
        "10m_u_component_of_wind u10 10u uas U10",
        dict.fromkeys(("m s-1", "m s**-1", "m/s", "m s^-1", "meter second-1"), (1.0, 0.0)),
        shift=-285.0,
    ),
    "geopotential": Kind(
        "geopotential_500",
        "geopotential z",
        dict.fromkeys(("m2 s-2", "m**2 s**-2", "m^2/s^2", "m2/s2"), (1.0, 0.0)),
        scale=50.0,
        shift=40_000.0,
        levels=True,
    ),
}

LATITUDES = ("latitude", "lat", "nav_lat", "XLAT", "Latitude")
LONGITUDES = ("longitude", "lon", "nav_lon", "XLONG", "Longitude")

spellings = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(sorted(KINDS)),
        "name": st.integers(0, 99),
        "unit": st.integers(0, 99),
        "place": st.sampled_from(range(len(LATITUDES))),
        "bare_dims": st.booleans(),  # dimensions j, i with coordinates lat(j), lon(i)
        "time": st.sampled_from(["time", "date", "Time", "datetime", "valid_time"]),
        "order": st.permutations(range(3)),
        "north_first": st.booleans(),
        "west": st.sampled_from([0, -180, -20]),
        "dtype": st.sampled_from(["float32", "float64", ">f4", "int16", "uint16"]),
        "calendar": st.sampled_from(["ns", "s", "gregorian", "noleap", "360_day"]),
        "shuffled": st.booleans(),
        "chunks": st.sampled_from(["no", "no", "one time", "pieces", "whole"]),
        "level": st.sampled_from(["level", "plev", "pressure_level", "isobaricInhPa"]),
        "extras": st.sampled_from(["none", "scalars", "dimension"]),
    }
)
forms = st.fixed_dictionaries(
    {
        "form": st.sampled_from(["initialisations", "one run", "valid times"]),
        "init": st.sampled_from(["time", "init_time", "forecast_reference_time", "init"]),
        "lead": st.sampled_from(
            ["prediction_timedelta", "step", "lead_time", "leadtime", "forecast_period", "lead"]
        ),
        "lead_as": st.sampled_from(["timedelta", "hours", "h", "float hours", "days"]),
    }
)


def history(spelling):
    """The data set in canonical labels, and what its variable is."""
    return _history(spelling["kind"], calendar_of(spelling)).copy(), KINDS[spelling["kind"]]


def calendar_of(spelling):
    """The calendar that the dates follow, however they are written."""
    return spelling["calendar"] if spelling["calendar"] in ("noleap", "360_day") else "standard"


@functools.cache
def _history(name, calendar):
    kind = KINDS[name]
    ds = make_weather(9, time="2001-01-28T20:00", shape=(4, 6), calendar=calendar, seed=1)
    values = (ds["2m_temperature"] * kind.scale + kind.shift).astype(np.float32)
    units = next(unit for unit, change in kind.units.items() if change == (1.0, 0.0))
    return xr.Dataset({kind.canonical: values.assign_attrs(units=units)}, attrs=ds.attrs)


@functools.cache
def _forecast(name, calendar):
    model = Forecaster(Lopsided(), Task(KINDS[name].canonical, 2, 2, "1h"))
    return model, predict(_history(name, calendar), model, init_time=slice(None))


def name_and_unit(spelling):
    """A caller's name and unit of the variable; a number there is canonical * scale + offset."""
    kind = KINDS[spelling["kind"]]
    unit = list(kind.units)[spelling["unit"] % len(kind.units)]
    return kind.names[spelling["name"] % len(kind.names)], unit, *kind.units[unit]


def spelt(ds, spelling, *, time="time"):
    """Write a canonical Dataset, with a dimension of times or without, in a caller's labels."""
    kind, (name, unit, scale, offset) = KINDS[spelling["kind"]], name_and_unit(spelling)
    values = ds[kind.canonical].astype(np.float64) * scale + offset
    attrs: dict[str, Any] = {"units": unit}
    dtype = np.dtype(spelling["dtype"])
    if dtype.kind in "iu":  # packed, and not decoded
        step = 0.01 * kind.scale
        middle = round(float(values.mean())) - (400 * kind.scale if dtype.kind == "u" else 0)
        values = ((values - middle) / step).round()
        attrs |= {"scale_factor": step, "add_offset": middle}
    out = values.astype(dtype).to_dataset(name=name)
    if kind.levels:
        level, pascals = spelling["level"], spelling["level"] == "plev"
        coord = (level, np.array([500, 850]) * (100 if pascals else 1))
        out = xr.concat([out, out + dtype.type(1)], level).assign_coords(
            {level: (*coord, {"units": "Pa" if pascals else "hPa"})}
        )
    out[name].attrs = attrs
    if spelling["north_first"]:
        out = out.isel(latitude=slice(None, None, -1))
    if spelling["west"]:
        lon = (out["longitude"] - spelling["west"]) % 360 + spelling["west"]
        out = out.assign_coords(longitude=lon).sortby("longitude")
    out["longitude"].attrs = {"units": "degrees_east"}
    order = [("time", "latitude", "longitude")[i] for i in spelling["order"]]
    out = out.transpose(order[0], ..., *order[1:])
    if spelling["shuffled"]:
        shuffled = np.random.default_rng(0).permutation(out.sizes["time"])
        out = out.isel(time=shuffled)
    for coord in [c for c in out.coords if out[c].dtype.kind == "M"]:
        dates = in_calendar(out[coord].values, spelling["calendar"])
        out = out.assign_coords({coord: (out[coord].dims, dates, out[coord].attrs)})
    lat, lon = LATITUDES[spelling["place"]], LONGITUDES[spelling["place"]]
    if spelling["bare_dims"]:
        out = out.rename_dims(latitude="j", longitude="i").drop_indexes(["latitude", "longitude"])
    new = {"latitude": lat, "longitude": lon, "time": time}
    out = out.rename({a: b for a, b in new.items() if a != b})
    if spelling["extras"] != "none":
        out = out.assign_coords(number=0, surface=0.0, height=2.0)
    if spelling["extras"] == "dimension":
        out = out.expand_dims("number", axis=1)
    dims = {"one time": {out[name].dims[0]: 1}, "pieces": 3, "whole": -1}
    return out if spelling["chunks"] == "no" else out.chunk(dims[spelling["chunks"]])


def in_calendar(times, calendar):
    """Dates of the standard calendar as datetime64 of another unit, or as cftime."""
    if calendar == "s":
        return times.astype("datetime64[s]")
    if calendar != "gregorian":
        return times
    since = (times - np.datetime64("1970-01-01")) / np.timedelta64(1, "s")
    return cftime.num2date(since, "seconds since 1970-01-01", calendar="gregorian")


def tolerance(spelling):
    """Half a step of the packing, or of float32 in the farthest of the units."""
    scale = name_and_unit(spelling)[2]
    packed = np.dtype(spelling["dtype"]).kind in "iu"
    return KINDS[spelling["kind"]].scale * (0.0051 / scale if packed else 2e-4)


class Lopsided(torch.nn.Module):
    """A forecast that tells north from south, east from west, and each input step apart."""

    def forward(self, x):
        last, before = x[:, -1:], x[:, -2:-1]
        place = 0.25 * last.roll(1, -1) + 0.125 * last.roll(1, -2) + 0.0625 * before
        k = torch.tensor([1.0, 2.0]).view(1, -1, 1, 1, 1)
        return 0.5625 * last + place + 0.01 * k * (last - before)


class Line(torch.nn.Module):
    """One weight, for a single step of training."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((2, 2, 4, 6), 0.5))

    def forward(self, x):
        return torch.einsum("bschw,tshw->btchw", x, self.weight)


def in_a_form(forecast, spelling, form):
    """Write a canonical forecast in a caller's form of initialisations, leads and valid times."""
    out, valid, time = forecast.drop_vars("valid_time"), forecast["valid_time"].values, form["init"]
    reference = {"standard_name": "forecast_reference_time"}
    if form["form"] == "one run":
        out = out.isel(time=0).rename(time="forecast_reference_time")
        out = out.drop_vars("prediction_timedelta").rename(prediction_timedelta="time")
        out, time = out.assign_coords(time=valid[0]), "time"
    elif form["form"] == "valid times":
        leads = np.arange(out.sizes["prediction_timedelta"])
        init = np.arange(leads[-1], out.sizes["time"])[:, None] - leads
        at = xr.DataArray(init, dims=("valid", "prediction_timedelta"))
        lead = xr.DataArray(leads, dims="prediction_timedelta")
        out = out.isel(time=at, prediction_timedelta=lead).rename(time="forecast_reference_time")
        out, time = out.rename(valid="time").assign_coords(time=valid[leads[-1] :, 0]), "time"
    if "forecast_reference_time" in out.coords:
        out["forecast_reference_time"].attrs = reference
    out = spelt(out, spelling, time=time)
    if "prediction_timedelta" not in out.dims:
        return out
    if form["lead_as"] != "timedelta":
        hours = out["prediction_timedelta"] / np.timedelta64(1, "h")
        values = {"days": hours / 24, "float hours": hours}.get(form["lead_as"], hours.astype(int))
        units = form["lead_as"].removeprefix("float ")
        out = out.assign_coords(prediction_timedelta=values.assign_attrs(units=units))
    lead = form["lead"]
    return out if lead in out.dims else out.rename(prediction_timedelta=lead)


def check_predict(spelling):
    """The numbers of the canonical forecast, at its times and places; theirs is returned."""
    ours, kind = history(spelling)
    theirs = spelt(ours, spelling, time=spelling["time"])
    model, expected = _forecast(spelling["kind"], calendar_of(spelling))
    found = predict(theirs, model, init_time=slice(None))
    again, _ = canonicalize(found)
    xr.testing.assert_equal(again.coords.to_dataset()[LABELS], expected.coords.to_dataset()[LABELS])
    np.testing.assert_allclose(
        again[kind.canonical], expected[kind.canonical], rtol=0, atol=2.5 * tolerance(spelling)
    )
    return found, theirs


def check_labels(spelling):
    """The forecast has the caller's names, units, order of axes, coordinates and calendar."""
    found, theirs = check_predict(spelling)
    name, unit, *_ = name_and_unit(spelling)
    label = f"{name}_500" if KINDS[spelling["kind"]].levels else name
    assert list(found.data_vars) == [label]
    assert found[label].dtype == np.float32
    assert found[label].attrs["units"] == unit
    assert "scale_factor" not in found[label].attrs
    spatial = [d for d in theirs[name].dims if d in found[label].dims and d != "time"]
    assert found[label].dims == ("time", "prediction_timedelta", *spatial)
    for coord in (c for c in theirs.coords if theirs[c].dims and {*theirs[c].dims} <= {*spatial}):
        assert found[coord].variable.identical(theirs[coord].variable.compute())
    assert bool(found.chunks) == (spelling["chunks"] != "no")
    dates = theirs[spelling["time"]].values
    assert type(found["valid_time"].values.flat[0]) is type(dates.flat[0])


def check_evaluate(spelling, other, form):
    """The errors that the forecast was made with, whatever the spelling of either side."""
    ours, kind = history(spelling)
    made = {"bias": BIAS * kind.scale, "spread": SPREAD * kind.scale}
    forecast = make_forecast(ours, inits=5, steps=2, **made)
    other = dict(other, kind=spelling["kind"])
    if {"noleap", "360_day"} & {spelling["calendar"], other["calendar"]}:
        other["calendar"] = spelling["calendar"]
    truth = spelt(ours, spelling, time=spelling["time"])
    scores = evaluate(in_a_form(forecast, other, form), truth, metrics=["rmse", "bias"])
    names = [v for v in scores.data_vars if not v.endswith("_overall")]
    names = [v for v in names if v.endswith("500") or not kind.levels]
    assert len(names) == 1
    lead = np.arange(1, 3)
    rmse = kind.scale * np.sqrt(BIAS**2 + (lead * SPREAD) ** 2)
    atol = 2 * tolerance(spelling) + 2 * tolerance(other)
    for metric, right in (("rmse", rmse), ("bias", BIAS * kind.scale)):
        found = scores[names[0]].sel(metric=metric)
        np.testing.assert_allclose(found, right, rtol=0, atol=atol)
        np.testing.assert_array_equal(found["prediction_timedelta"], lead * np.timedelta64(1, "h"))


def check_write(spelling, path):
    """What is written is what was forecast, labels and all."""
    found, _ = check_predict(spelling)
    store = write_forecast(found, path / "f.zarr")
    with xr.open_zarr(store, decode_timedelta=True) as kept:
        xr.testing.assert_equal(canonicalize(kept)[0], canonicalize(found)[0])
        for name in found.data_vars:
            assert kept[name].attrs["units"] == found[name].attrs["units"]


def check_fit(spelling):
    """A step of training goes where it goes with the canonical labels."""
    ours, kind = history(spelling)
    theirs = spelt(ours, spelling, time=spelling["time"])
    task, config = Task(kind.canonical, 2, 2, "1h"), TrainConfig(steps=1, batch_size=4)
    one, two = (fit(ds, task, model=Line(), config=config, progress=False) for ds in (ours, theirs))
    first, second = (m.network.weight.detach().numpy() for m in (one, two))
    assert not np.allclose(first, 0.5)
    # Adam's first step is as long as its learning rate, whichever way: few weights lie between.
    assert np.mean(np.abs(second - first) > 0.05 * config.learning_rate) < 0.05
    for key, right in one.normalizer.state_dict().items():
        found = two.normalizer.state_dict()[key]
        np.testing.assert_allclose(found, right, rtol=1e-3, atol=2 * tolerance(spelling))


DOORS = st.sampled_from(["predict"] * 9 + ["evaluate"] * 12 + ["write", "fit"])


def through_a_door(door, spelling, other, form, path):
    with dask.config.set(scheduler="synchronous"):  # so small, threads take longer
        _through(door, spelling, other, form, path)


def _through(door, spelling, other, form, path):
    if door == "predict":
        check_labels(spelling)
    elif door == "evaluate":
        check_evaluate(spelling, other, form)
    elif door == "write":
        check_write(spelling, path)
    else:
        check_fit(spelling)


def combinations(number):
    def wrap(test):
        given_ = given(door=DOORS, spelling=spellings, other=spellings, form=forms)
        return settings(
            max_examples=number,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )(given_(test))

    return wrap


@combinations(1_320)  # some 2,000 relabellings: a score has two
def test_any_combination_of_labels(tmp_path_factory, door, spelling, other, form):
    through_a_door(door, spelling, other, form, tmp_path_factory.mktemp("s"))


@pytest.mark.slow
@combinations(6_500)
def test_many_combinations_of_labels(tmp_path_factory, door, spelling, other, form):
    through_a_door(door, spelling, other, form, tmp_path_factory.mktemp("s"))
