"""Linear regression: recurrences it must find exactly, the normal equations, bands and blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.baselines.persistence import Persistence
from stforecast.baselines.regression import LinearRegression
from stforecast.datasets.periods import split
from stforecast.datasets.weather import open_weatherbench
from stforecast.errors import InputError
from stforecast.evaluation import Above
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.core import WindowForecaster
from stforecast.forecasting.predict import predict
from stforecast.task import Task, initialisations

DATA = Path(__file__).parents[2].parent / "shared" / "data"
LATITUDE = np.array([-60.0, -20, 20, 60])
LONGITUDE = np.arange(0, 360, 60.0)
TASK = Task("field", input_steps=3, target_steps=2, timestep="1h")


def make_data(values, latitude=LATITUDE, longitude=LONGITUDE, name="field", drop=()):
    time = pd.date_range("2015-01-01", periods=len(values), freq="1h").to_numpy()
    space = {"latitude": latitude, "longitude": longitude}
    ds = xr.Dataset({name: (("time", *space), values.astype("f4"))}, {"time": time, **space})
    return ds.drop_isel(time=list(drop)) if len(drop) else ds


def noise(steps=400, height=4, width=6, seed=0):
    """A random field with a memory in time and space, around 280."""
    rng = np.random.default_rng(seed)
    x = np.zeros((steps, height, width))
    for i in range(1, steps):
        east = np.roll(x[i - 1], 1, axis=-1)
        x[i] = 0.6 * x[i - 1] + 0.3 * east + rng.normal(size=(height, width))
    return 280 + 3 * x


def score(model, ds, steps=None, metric="rmse"):
    task = model.task
    init = initialisations(ds, Task(task.variables, task.input_steps, steps or task.target_steps))
    forecast = predict(ds, model, init_time=init, steps=steps)
    return evaluate(forecast, ds, metrics=metric)["field"].values


# --- closed forms ---------------------------------------------------------------------------------


def test_oscillations_are_continued_exactly():
    # x(t) = mean + a cos(wt) obeys x(t+1) - mean = 2 cos(w) (x(t) - mean) - (x(t-1) - mean).
    t = np.arange(300.0)[:, None, None]
    w = np.linspace(0.3, 0.9, 24).reshape(4, 6)
    mean = np.linspace(-40, 300, 24).reshape(4, 6)
    ds = make_data(mean + 5 * np.cos(w * t + mean))
    model = LinearRegression.fit(ds.isel(time=slice(200)), TASK, neighbours=0, ridge=1e-9)
    assert isinstance(model, WindowForecaster)
    later = ds.isel(time=slice(200, None))
    assert (score(model, later) < 2e-3).all()
    assert (score(model, later, steps=20) < 2e-2).all()  # on its own output
    assert score(Persistence(TASK), later).min() > 1


def test_a_wave_that_arrives_from_next_door_is_seen_coming():
    # What is here at t + 1 is at the western neighbour at t: noise that moves one cell an hour.
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(500, 4))
    columns = np.arange(6)
    values = np.stack([pattern[500 - 100 - i + columns].T for i in range(1, 300)])
    ds = make_data(values)
    task = Task("field", 2, 1, "1h")
    alone = LinearRegression.fit(ds, task, neighbours=0)
    model = LinearRegression.fit(ds, task, neighbours=1, ridge=1e-8)
    inputs = ds["field"].values[100:102][None, :, None]
    truth, first = ds["field"].values[102], model.forecast(inputs, ds.time.values[:1], 1)[0, 0, 0]
    np.testing.assert_allclose(first[:, 1:], truth[:, 1:], atol=1e-3)
    # Nobody sees what comes into the first column: the field is not periodic.
    assert np.abs(first[:, 0] - truth[:, 0]).max() > 0.3
    assert np.abs(alone.forecast(inputs, None, 1)[0, 0, 0] - truth)[:, 1:].max() > 0.5


def test_a_constant_point_stays():
    values = noise()
    values[:, 2, 3] = 5
    model = LinearRegression.fit(make_data(values), TASK)
    out = model.forecast(values[None, 50:53, None].astype("f4"), None, 4)
    np.testing.assert_allclose(out[0, :, 0, 2, 3], 5, atol=1e-4)
    assert np.isfinite(out).all()


# --- the definition -------------------------------------------------------------------------------


def normal_equations(values, row, column, ridge, above, task=TASK):
    """Coefficients and forecasts of one point, written out; each target where it is above."""
    values = values.astype("f4").astype("f8")
    lags, steps = task.input_steps, task.target_steps
    around = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if (j, i) != (0, 0)]
    height, width = values.shape[1:]
    x, y = [], []
    for end in range(lags - 1, len(values) - steps):
        own = [values[end - lag, row, column] for lag in range(lags)]
        near = [
            values[end - lag, min(max(row + j, 0), height - 1), (column + i) % width]
            for j, i in around
            for lag in range(2)
        ]
        x.append(own + near)
        y.append(values[end + 1 : end + 1 + steps, row, column])
    x, y, made = np.array(x), np.array(y), []
    for target in y.T:
        counts = target > above
        mean, std, middle = x[counts].mean(0), x[counts].std(0), target[counts].mean()
        z = (x[counts] - mean) / std
        b = np.linalg.solve(
            z.T @ z / len(z) + ridge * np.eye(z.shape[1]), z.T @ (target[counts] - middle) / len(z)
        )
        made.append((x - mean) / std @ b + middle)
    return np.stack(made, axis=1)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 3), (3, 5)])
@pytest.mark.parametrize("ridge", [1e-3, 0.5])
@pytest.mark.parametrize("above", [-np.inf, 279.0])
def test_it_is_ridge_regression_of_standardised_predictors(row, column, ridge, above):
    values = noise(200)
    ds = make_data(values)
    where = Above(above) if np.isfinite(above) else None
    model = LinearRegression.fit(ds, TASK, ridge=ridge, where=where)
    told = "truth > 279" if where else None
    assert model.dataset.attrs.get("training_where") == told
    expected = normal_equations(values, row, column, ridge, above)
    forecast = predict(ds, model, init_time=initialisations(ds, TASK))
    ours = forecast["field"].values[:, :, row, column]
    np.testing.assert_allclose(ours, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (10, "where must be a function of truth, found 10"),
        (lambda truth: truth, "where must give True or False for every point of truth"),
        (lambda truth: truth[0] > 0, "where must give True or False for every point of truth"),
        (Above(1e6), "no target counts .truth > 1e.06.: the limit may be in another unit"),
    ],
)
def test_what_chooses_no_points_is_refused(where, words):
    with pytest.raises(InputError, match=words):
        LinearRegression.fit(make_data(noise(200)), TASK, where=where)


@settings(max_examples=12, deadline=None)
@given(
    read=st.integers(20, 200),
    rows=st.integers(1, 4),
    work=st.integers(500, 5000),
    chunk=st.integers(1, 60),
    neighbours=st.integers(0, 2),
    gaps=st.lists(st.integers(5, 115), max_size=3, unique=True),
    where=st.sampled_from([None, Above(275)]),
)
def test_bands_and_blocks_give_what_the_whole_gives(
    read, rows, work, chunk, neighbours, gaps, where
):
    ds = make_data(noise(160), drop=gaps)
    task = Task("field", 2, 1, "1h")
    whole = LinearRegression.fit(ds, task, neighbours=neighbours, neighbour_steps=1, where=where)
    size = whole.dataset.sizes["predictor"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stforecast.baselines.regression._READ", 4 * 24 * read)
        patch.setattr("stforecast.baselines.regression._WORK", work)
        limit = 8 * 6 * size * (size + 1) * rows
        parts = LinearRegression.fit(
            ds.chunk(time=chunk),
            task,
            neighbours=neighbours,
            neighbour_steps=1,
            where=where,
            max_bytes=limit,
        )
    # What values are taken as differences from may differ, so compare what is forecast.
    inputs = np.random.default_rng(1).normal(280, 5, (3, 2, 1, 4, 6)).astype("f4")
    np.testing.assert_allclose(
        parts.forecast(inputs, None, 1), whole.forecast(inputs, None, 1), atol=2e-3
    )
    assert parts.dataset.attrs["windows"] == whole.dataset.attrs["windows"]


def test_windows_cross_no_gap():
    values = noise(200)
    values[100:] += 1000  # a window over the edge would see a jump
    gap = make_data(values, drop=[99])
    model = LinearRegression.fit(gap, TASK, neighbours=0)
    expected = 2 * (100 - 4) - 1
    assert model.dataset.attrs["windows"] == expected


def test_longitudes_go_round_and_other_edges_do_not():
    # Every longitude is like the others, so that a globe turned is the same globe.
    values = np.concatenate([np.roll(noise(150, seed=4), i, axis=-1) for i in range(6)])
    ds = make_data(values, drop=[i * 150 for i in range(1, 6)])
    model = LinearRegression.fit(ds, TASK)
    assert model.dataset.attrs["periodic"] == 1
    inputs = values[None, 20:23, None].astype("f4")
    turned = model.forecast(np.roll(inputs, 2, axis=-1), None, 2)
    np.testing.assert_allclose(turned, np.roll(model.forecast(inputs, None, 2), 2, -1), atol=0.05)
    region = LinearRegression.fit(make_data(values, longitude=np.arange(6) * 10.0), TASK)
    assert region.dataset.attrs["periodic"] == 0


def test_several_variables_and_targets():
    values, other = noise(seed=1), noise(seed=2)
    values[1:] += 2 * (other[:-1] - 280)  # the other tells what comes
    ds = make_data(values).assign(other=make_data(other, name="other")["other"])
    both = Task(("field", "other"), 2, 1, "1h", targets="field")
    model = LinearRegression.fit(ds, both)
    test = ds.isel(time=slice(300, None))
    init = initialisations(test, both)
    with_other = evaluate(predict(test, model, init_time=init), test, metrics="rmse")
    alone = LinearRegression.fit(ds, Task("field", 2, 1, "1h"))
    without = evaluate(predict(test, alone, init_time=init), test, metrics="rmse")
    assert list(with_other.data_vars) == ["field", "field_overall"]
    assert float(with_other["field"][0, 0]) < 0.7 * float(without["field"][0, 0])
    with pytest.raises(InputError, match="cannot forecast 2 steps"):
        model.forecast(np.zeros((1, 2, 2, 4, 6)), None, 2)


def test_data_in_other_units_are_refused(tmp_path):
    metres = make_data(noise())
    metres["field"].attrs["units"] = "m"
    model = LinearRegression.fit(metres, TASK)
    other = (metres * 1000).assign(field=lambda ds: ds["field"].assign_attrs(units="mm"))
    for one in (model, LinearRegression.load(model.save(tmp_path / "m.nc"))):
        assert one.predict(metres).sizes["time"] == 1
        with pytest.raises(InputError, match=r"'field' is in 'mm' in the data.* trained on 'm'"):
            one.predict(other)


@pytest.mark.parametrize("reference", [None, "climatology"])
def test_of_a_point_without_any_training_there_is_no_forecast(reference):
    ds = make_data(noise(400)).assign_coords(time=pd.date_range("2015", periods=400, freq="1D"))
    empty = ds.where((ds["latitude"] > -30) | (ds["longitude"] > 30))
    task = Task("field", 3, 2, "1D", nan="mask", reference=reference)
    model = LinearRegression.fit(
        empty, task, neighbours=0, form="plain" if not reference else "strong"
    )
    found = model.predict(ds, init_time=ds["time"].values[100:103])["field"]
    assert np.isnan(found[:, :, 0, 0]).all()
    assert np.isfinite(found).sum() == found.size - 6


def test_flow_grids_and_masked_points():
    values = noise()
    values[:, 1, 2] = np.nan  # land
    ds = make_data(values).rename(latitude="y", longitude="x").drop_vars(("x", "y"))
    with pytest.raises(InputError, match="field: NaN or infinite values between"):
        LinearRegression.fit(ds, TASK)
    task = Task("field", 3, 2, "1h", nan="mask")
    model = LinearRegression.fit(ds, task)
    forecast = predict(ds, model, init_time=ds.time.values[100:103])["field"]
    assert forecast.dims == ("time", "prediction_timedelta", "y", "x")
    assert np.isnan(forecast[:, :, 1, 2]).all()
    assert np.isfinite(forecast).sum() == forecast.size - 6


def test_no_more_windows_than_asked_for_at_all_times_of_day():
    ds = make_data(noise(480))
    model = LinearRegression.fit(ds, TASK, neighbours=0, windows=100)
    assert model.dataset.attrs["windows"] == 100
    # What only happens at 7 and 8 is seen in 22 windows, but not in every 22nd of 484.
    hour = np.arange(488) % 24
    pulse = np.where(hour == 7, 10.0, np.where(hour == 8, 5.0, 0.0))
    ds = make_data(pulse[:, None, None] + np.zeros((488, 4, 6)))
    model = LinearRegression.fit(ds, TASK, neighbours=0, windows=22)
    inputs = np.zeros((1, 3, 1, 4, 6))
    inputs[:, -1] = 10
    np.testing.assert_allclose(model.forecast(inputs, None, 1), 5, atol=1)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [TASK, Task("field", 3, 2, "1h", targets=("field",), nan="mask")])
def test_what_was_saved_forecasts_the_same(tmp_path, task):
    ds = make_data(noise(150))
    model = LinearRegression.fit(ds, task)
    path = model.save(tmp_path / "new" / "regression.nc")
    assert [p.name for p in path.parent.iterdir()] == ["regression.nc"]
    again = LinearRegression.load(path)
    assert again.task == task
    xr.testing.assert_identical(again.dataset, model.dataset)
    init = ds.time.values[20:30]
    expected = predict(ds, model, init_time=init, steps=5)
    xr.testing.assert_identical(predict(ds, again, init_time=init, steps=5), expected)
    model.save(path)  # over itself


def test_files_that_are_none_of_ours(tmp_path):
    model = LinearRegression.fit(make_data(noise(100)), TASK, neighbours=0)
    path = model.save(tmp_path / "regression.nc")
    with pytest.raises(InputError, match="there is no file"):
        LinearRegression.load(tmp_path / "other.nc")
    with pytest.raises(InputError, match="is a directory"):
        model.save(tmp_path)
    for content in (b"", b"no netCDF", path.read_bytes()[: path.stat().st_size // 2]):
        (tmp_path / "broken.nc").write_bytes(content)
        with pytest.raises(InputError, match=r"is not a file that LinearRegression\.save wrote"):
            LinearRegression.load(tmp_path / "broken.nc")
    make_data(noise(100)).to_netcdf(tmp_path / "data.nc")
    with pytest.raises(InputError, match=r"is not a file that LinearRegression\.save wrote"):
        LinearRegression.load(tmp_path / "data.nc")
    with xr.open_dataset(path) as opened:
        opened.load().assign_attrs(linear_regression_format=9).to_netcdf(tmp_path / "later.nc")
    with pytest.raises(InputError, match="has format 9, and this version of the library reads 2"):
        LinearRegression.load(tmp_path / "later.nc")


def test_history_is_read_in_one_pass():
    """Each chunk once, in data of dask: but for the first, which gives the middle of the values."""
    import dask.array as da

    values = noise(400).astype("f4")
    read = []

    def source(block_info):
        first, last = block_info[None]["array-location"][0]
        read.append(first)
        return values[first:last]

    lazy = da.map_blocks(source, chunks=((50,) * 8, (4,), (6,)), dtype="f4", meta=values[:0])
    ds = make_data(values)
    whole = LinearRegression.fit(ds, TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stforecast.baselines.regression._READ", 4 * 24 * 90)
        found = LinearRegression.fit(ds.assign(field=(ds["field"].dims, lazy)), TASK)
        assert sorted(read) == sorted([*range(0, 400, 50), 0, 50])
    inputs = values[None, 100:103, None]
    np.testing.assert_allclose(
        found.forecast(inputs, None, 2), whole.forecast(inputs, None, 2), atol=2e-3
    )


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": 0}, "ridge must be above 0"),
        ({"neighbours": -1}, "neighbours must be a whole number of at least 0"),
        ({"neighbour_steps": 0}, "neighbour_steps must be"),
        ({"windows": 0}, "windows must be"),
        ({"windows": 30}, "30 windows are too few for 20 predictors"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        LinearRegression.fit(make_data(noise(100)), TASK, **options)


def test_another_grid_is_refused():
    model = LinearRegression.fit(make_data(noise()), TASK)
    inputs = np.zeros((1, 3, 1, 4, 6))
    with pytest.raises(InputError, match=r"than the input.s: latitude has 4 points"):
        model.forecast(inputs, None, 1, latitude=LATITUDE + 1, longitude=LONGITUDE)
    with pytest.raises(
        InputError,
        match=r"than the input.s: longitude has 6 points and 5 points",
    ):
        model.forecast(inputs[..., :5], None, 1)
    with pytest.raises(InputError, match=r"'coefficients' with dims .*LinearRegression\.fit"):
        LinearRegression(xr.Dataset(), TASK)


# --- real size ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"no data at {DATA}")
def test_less_than_half_of_persistences_error():
    """The bar of ../shared: 0.48 of persistence's RMSE over twelve leads, hourly and global."""
    ds = open_weatherbench(DATA / "plasim_t2m", ["2m_temperature"])
    parts = split(ds, train="2013:2016", validation="2017", test="2018")
    task = Task("2m_temperature", 12, 12, "1h")
    model = LinearRegression.fit(parts["train"], task)
    test = parts["test"].compute()
    init = initialisations(test, task, 47)
    rmse = [
        float(evaluate(predict(test, m, init_time=init), test)["2m_temperature_overall"][0])
        for m in (model, Persistence(task))
    ]
    assert rmse[0] / rmse[1] < 0.48
