"""New York's flows: the table of days, where the cells lie, the protocol of Lin et al."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.baselines.persistence import Persistence
from stforecast.conventions import Grid, canonicalize, restore
from stforecast.datasets import FlowScale, open_nyc_flow, select_period
from stforecast.datasets.new_york import dsan_times, split_dsan
from stforecast.errors import InputError
from stforecast.evaluation import evaluate
from stforecast.forecasting.predict import predict
from stforecast.task import Task
from stforecast.testing import write_nyc_flow

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "nyc_flow"
WEATHER = ["air_temperature", "air_temperature_max", "air_temperature_min"]
WEATHER += ["precipitation", "snowfall", "snow_thickness"]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Taxis on the genuine grid."""
    return write_nyc_flow(tmp_path_factory.mktemp("data"), shape=(16, 12), days=(9, 3, 3))


def test_a_part_is_that_part(path):
    whole = open_nyc_flow(path)
    xr.testing.assert_identical(open_nyc_flow(path, part="all"), whole)
    assert whole.sizes["time"] == 15 * 48
    for part in ("train", "validation", "test"):
        wanted = select_period(whole, whole.attrs[f"{part}_period"])
        xr.testing.assert_identical(open_nyc_flow(path, part=part), wanted)
    with pytest.raises(InputError, match="'train', 'validation' or 'test', found 'val'"):
        open_nyc_flow(path, part="val")


@pytest.mark.parametrize("chunks", ["auto", None])
def test_days_are_variables_of_every_cell_and_half_hour(path, chunks):
    ds = open_nyc_flow(path, chunks=chunks)
    assert list(ds) == ["inflow", "outflow", "holiday", *WEATHER]
    day = ds["time"].dt.day.values
    for name, wanted in {
        "holiday": day == 1,
        "air_temperature": 2.7777778 + 273.15 + 0 * day,  # 37 degF
        "precipitation": np.where(day == 10, 0.25 * 25.4, 0.0),  # inches; the 9th has a trace
    }.items():
        everywhere = np.broadcast_to(wanted[:, None, None], ds[name].shape)
        np.testing.assert_allclose(ds[name].values, everywhere, rtol=1e-6)
    assert {ds[v].attrs["units"] for v in WEATHER} == {"K", "mm"}
    some = ds["precipitation"].isel(time=[432, 0], y=slice(3, 5), x=7).values
    np.testing.assert_allclose(some, [[6.35, 6.35], [0, 0]])


def test_cells_lie_where_they_lie_and_count_the_same(path, tmp_path):
    ds = open_nyc_flow(path).compute()
    rows, columns = ds["cell_latitude"].values, ds["cell_longitude"].values
    height, width = (40.849878 - 40.699031) / 16, (74.022216 - 73.873868) / 12
    np.testing.assert_allclose(rows[[0, -1]], [40.849878 - height / 2, 40.699031 + height / 2])
    np.testing.assert_allclose(columns[[0, -1]], [-74.022216 + width / 2, -73.873868 - width / 2])
    assert (np.diff(rows) < 0).all()
    assert (np.diff(columns) > 0).all()
    assert not Grid.of(canonicalize(ds)[0]).geographic
    task = Task(("inflow", "outflow"), 4, 4, "30min")
    at = ds["time"].values[[100, 200]]
    forecast = predict(ds, Persistence(task), init_time=at)
    np.testing.assert_array_equal(forecast["cell_latitude"], rows)
    assert evaluate(forecast, ds).attrs["weights"] == "uniform"
    # Under the names of a geographic grid they make one.
    globe = ds.rename(cell_latitude="latitude", cell_longitude="longitude")
    ours, labels = canonicalize(globe)
    assert Grid.of(ours).geographic
    assert not Grid.of(ours).periodic
    np.testing.assert_array_equal(ours["inflow"].values, ds["inflow"].values[:, ::-1])
    np.testing.assert_array_equal(restore(ours, labels)["inflow"], ds["inflow"])
    forecast = predict(globe, Persistence(task), init_time=at)
    assert evaluate(forecast, globe).attrs["weights"] == "area"
    # Nobody knows where another grid's cells lie.
    other = open_nyc_flow(write_nyc_flow(tmp_path, shape=(9, 7)))
    assert set(other.coords) == {"time"}


def test_holidays_and_weather_are_inputs_of_a_task(path):
    ds = open_nyc_flow(path)
    task = Task(("inflow", "outflow", "holiday", "air_temperature"), 4, 4, targets="inflow")
    seen = []

    class Spy(Persistence):
        def _forecast(self, inputs, init_time, steps):
            seen.append(inputs)
            return super()._forecast(inputs, init_time, steps)

    task = Task(task.variables, 4, 4, "30min", targets="inflow")
    init = ds["time"].values[[10, 100]]
    predict(ds, Spy(task), init_time=init).compute()
    inputs = np.concatenate(seen)
    np.testing.assert_array_equal(inputs[:, -1, 2, 5, 5], [1, 0])
    np.testing.assert_allclose(inputs[:, :, 3], 275.9278, rtol=1e-6)


def test_scaling_leaves_what_is_no_flow(path):
    ds = open_nyc_flow(path)
    scaled = FlowScale(0.0, 50.0).scale(ds)
    np.testing.assert_allclose(scaled["inflow"], ds["inflow"] / 50, rtol=1e-6)
    xr.testing.assert_identical(scaled[WEATHER], ds[WEATHER])


@pytest.mark.parametrize(
    ("put", "words"),
    [
        ("5-1-2016,42,32,warm,", "'average temperature' is 'warm' on 5-1-2016, expected a number"),
        ("5-1-2016,42,32,nan,", "'average temperature' is 'nan' on 5-1-2016, expected a number"),
        ("5-1-2016,32,37.0,", "9 columns are named, and 1 rows .* first on 5-1-2016"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, put, words):
    table = write_nyc_flow(tmp_path) / "external_knowledge.csv"
    table.write_text(table.read_text().replace("5-1-2016,42,32,37.0,", put, 1))
    with pytest.raises(InputError, match=words):
        open_nyc_flow(tmp_path)


def test_a_table_of_dates_alone_has_no_variables(tmp_path):
    table = write_nyc_flow(tmp_path) / "external_knowledge.csv"
    rows = list(csv.reader(table.read_text().splitlines()))
    table.write_text("\n".join(row[0] for row in rows))
    assert list(open_nyc_flow(tmp_path)) == ["inflow", "outflow"]


def test_a_table_that_changes_is_told(path, tmp_path):
    table = write_nyc_flow(tmp_path) / "external_knowledge.csv"
    ds = open_nyc_flow(tmp_path, chunks=None)
    table.write_text("date\n" + "\n".join(f"{d}-1-2016" for d in range(1, 25)))
    with pytest.raises(InputError, match="has changed since it was opened"):
        ds["holiday"].load()


def test_the_protocol_of_lin_et_al(tmp_path):
    ds = open_nyc_flow(write_nyc_flow(tmp_path, days=(50, 7, 5), shape=(2, 2)), chunks=None)
    parts = split_dsan(ds)
    days = {name: part["time"].dt.dayofyear.values - 1 for name, part in parts.items()}
    assert {k: (d[0], d[-1], len(d)) for k, d in days.items()} == {
        "train": (0, 32, 33 * 48),
        "validation": (33, 39, 7 * 48),
        "test": (40, 59, 20 * 48),
    }
    # In that code the targets of window t are the steps t to t + 11, for t in range(7 * 48,
    # 20 * 48 - 12); the input of ours ends one step before.
    times = dsan_times(parts["test"], Task(("inflow", "outflow"), 4, 12, "30min"))
    np.testing.assert_array_equal(times, parts["test"]["time"].values[7 * 48 - 1 : 20 * 48 - 13])
    assert len(times) == 612
    for broken in (ds.isel(time=slice(0, 59 * 48)), ds.isel(time=slice(1, None))):
        with pytest.raises(InputError, match="60 days of half hours from a midnight on"):
            split_dsan(broken)
    with pytest.raises(InputError, match="60 days"):
        split_dsan(ds.drop_isel(time=1000))


@pytest.mark.skipif(not REAL.exists(), reason=f"no data at {REAL}")
def test_the_real_table_and_grid():
    taxi, bike = (open_nyc_flow(REAL, kind, chunks=None) for kind in ("taxi", "bike"))
    assert str(taxi["time"].values[-1])[:16] == "2016-03-30T23:30"
    assert str(bike["time"].values[-1])[:16] == "2016-10-29T23:30"
    snow = taxi["snowfall"].isel(y=0, x=0).load()
    assert str(snow["time"].values[snow.values.argmax()])[:10] == "2016-01-23"
    np.testing.assert_allclose(snow.max(), 27.3 * 25.4, rtol=1e-6)
    days = taxi["holiday"].isel(y=5, x=5).load().resample(time="1D").max()
    named = pd.DatetimeIndex(days["time"].values[days.values > 0])
    assert {"2016-01-01", "2016-01-18", "2016-02-15"} <= set(named.strftime("%Y-%m-%d"))
    # On its wettest days the bicycles stand still.
    rain = bike["precipitation"].isel(y=0, x=0).load().resample(time="1D").max()
    rides = bike["outflow"].sum(("y", "x")).resample(time="1D").sum()
    assert str(rides["time"].values[rides.values.argmin()])[:10] in ("2016-10-09", "2016-10-27")
    assert float(rain.sel(time="2016-10-27")) == pytest.approx(1.41 * 25.4)
    # Midtown, where most pick-ups are, lies at 40.75 N, 73.99 W.
    busy = taxi["outflow"].sum("time")
    y, x = np.unravel_index(busy.values.argmax(), busy.shape)
    at = float(taxi["cell_latitude"][y]), float(taxi["cell_longitude"][x])
    np.testing.assert_allclose(at, (40.755, -73.98), atol=0.012)
