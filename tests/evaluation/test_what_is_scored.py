"""What of a forecast is held against what of truth and of a climatology."""

import logging

import numpy as np
import pytest
import xarray as xr

from stforecast import Climatology, Persistence, Task
from stforecast.baselines.forecasts import baseline_forecasts
from stforecast.conventions import canonical_name
from stforecast.errors import InputError
from stforecast.evaluation import evaluate
from stforecast.evaluation.comparison import compare_forecasts
from stforecast.testing.weather import make_forecast, make_weather

T2M = "2m_temperature"
LEAD = "prediction_timedelta"
RMSE = np.sqrt(0.25 + np.arange(1.0, 4) ** 2)  # of make_forecast


@pytest.fixture
def weather() -> xr.Dataset:
    return make_weather(30, shape=(6, 8))


@pytest.fixture
def forecast(weather) -> xr.Dataset:
    return make_forecast(weather, inits=8)


def rmse(scores, variable):
    return scores[variable].sel(metric="rmse").values


# --- levels ---------------------------------------------------------------------------------------


def on_levels(ds, levels=(500, 850), dim="level", units="hPa", name="geopotential"):
    scale = {500: 30.0, 850: 60.0, 925: 90.0}
    values = np.array(levels) * (100.0 if units == "Pa" else 1.0)
    level = xr.DataArray(values, dims=dim, name=dim, attrs={"units": units})
    field = xr.concat([ds[T2M] * scale[v] for v in levels], level).rename(name)
    return ds.assign({name: field.assign_attrs(units="m**2 s**-2").transpose("time", ...)})


@pytest.mark.parametrize(
    ("dim", "units", "levels", "name"),
    [
        ("level", "hPa", (500, 850), "geopotential"),
        ("plev", "Pa", (850, 500), "z"),
        ("pressure_level", "millibar", (850, 500), "z"),
    ],
)
@pytest.mark.parametrize("chunks", [None, {"time": 3}])
def test_every_level_is_scored(forecast, weather, dim, units, levels, name, chunks):
    theirs = on_levels(forecast, levels, dim, units, name)
    theirs = theirs if chunks is None else theirs.chunk(chunks)
    scores = evaluate(theirs, on_levels(weather))
    assert [v for v in scores.data_vars if "overall" not in str(v)] == [
        *(T2M, *(f"geopotential_{level}" for level in levels))
    ]
    for variable, scale in ((T2M, 1), ("geopotential_500", 30), ("geopotential_850", 60)):
        np.testing.assert_allclose(rmse(scores, variable), RMSE * scale, rtol=1e-3)
    each = {f"z{v}": on_levels(weather)["geopotential"].sel(level=v, drop=True) for v in levels}
    by_name = evaluate(theirs, weather.assign(each))
    np.testing.assert_allclose(rmse(by_name, "geopotential_500"), RMSE * 30, rtol=1e-3)


def test_levels_without_truth_are_left_out_with_a_warning(forecast, weather, caplog):
    theirs = on_levels(forecast, (500, 850, 925))
    with caplog.at_level(logging.WARNING):
        scores = evaluate(theirs, on_levels(weather))
    assert list(scores.data_vars)[2:] == [
        f"geopotential_{v}" for v in ("500", "500_overall", "850", "850_overall")
    ]
    assert "no truth: geopotential_925" in caplog.text
    caplog.clear()
    scores = evaluate(theirs, weather)
    assert list(scores.data_vars) == [T2M, f"{T2M}_overall"]
    assert "geopotential_500, geopotential_850, geopotential_925" in caplog.text
    with pytest.raises(InputError, match="geopotential_500"):  # nothing is left
        evaluate(theirs[["geopotential"]], weather)
    with pytest.raises(InputError, match="'geopotential_500' is not in the Dataset"):  # by name
        evaluate(forecast.assign(z500=forecast[T2M]), weather)


def test_members_and_heights_that_are_left_out_are_told(forecast, weather, caplog):
    other = forecast[T2M].expand_dims(height=[2.0, 10.0]).rename("u")
    with caplog.at_level(logging.WARNING):
        evaluate(forecast.assign(u=other), weather)
    assert "left out: 'u' has an extra dimension 'height' of size 2" in caplog.text


def test_baselines_have_the_levels_too(forecast, weather):
    theirs, truth = on_levels(forecast), on_levels(weather)
    found = baseline_forecasts(theirs, truth)
    assert set(found["Persistence"].data_vars) == {T2M, "geopotential_500", "geopotential_850"}
    card = compare_forecasts({"mine": theirs, **found}, truth)
    assert "geopotential_850" in card


@pytest.mark.parametrize("dim", ["realization", "number"])
def test_baselines_of_an_ensemble_have_no_members(forecast, weather, dim):
    members = forecast.expand_dims({dim: 3})
    found = baseline_forecasts(members, weather)["Persistence"]
    xr.testing.assert_equal(found, baseline_forecasts(forecast, weather)["Persistence"])
    card = compare_forecasts({"mine": members, "Persistence": found}, weather, metrics=("crps",))
    mine, flat = card[f"{T2M}_overall"].isel(weights=0, missing_dims="ignore").squeeze().values
    for score, one in ((mine, forecast), (flat, found)):  # members that are all alike
        mae = evaluate(one, weather, metrics=("mae",))[f"{T2M}_overall"]
        assert score == pytest.approx(float(mae.isel(weights=0, missing_dims="ignore").squeeze()))


# --- forms ----------------------------------------------------------------------------------------


def test_exchanged_forecast_and_truth(forecast, weather):
    for door in (evaluate, baseline_forecasts):
        with pytest.raises(InputError, match="forecast and truth look exchanged"):
            door(weather, forecast)
    with pytest.raises(InputError, match="look exchanged"):
        evaluate(weather.assign(rain=weather[T2M]), forecast)
    with pytest.raises(InputError, match="a forecast has the dimensions"):
        evaluate(weather, weather)


@pytest.mark.parametrize("name", ["realization", "number", "member", "ens", "any"])
def test_an_ensemble_by_any_name(weather, name):
    persistence = Persistence(Task("t2m", 4, 3))
    members = [persistence.predict(weather + i, init_time=weather["time"][5:9]) for i in (0, 2)]
    attrs = {"standard_name": "realization"} if name == "any" else {}
    both = xr.concat(members, xr.DataArray([0, 1], dims=name, name=name, attrs=attrs))
    scores = evaluate(both, weather, metrics="rmse")
    mean = evaluate(members[0] + 1, weather)
    np.testing.assert_allclose(rmse(scores, T2M), rmse(mean, T2M), rtol=1e-5)
    each = evaluate(both, weather, ensemble="members")
    assert each.sizes["realization"] == 2


@pytest.mark.parametrize("start", ["2261-12-30", "2261-12-31T18"])
def test_truth_may_leave_the_years_that_the_forecast_stays_in(start):
    hours = np.datetime64(start, "s") + np.arange(72) * np.timedelta64(3600, "s")
    truth = make_weather(72, shape=(6, 8)).assign_coords(time=hours)
    theirs = make_forecast(truth.isel(time=slice(5)), inits=2)
    np.testing.assert_allclose(rmse(evaluate(theirs, truth), T2M), RMSE, rtol=1e-3)
    later = make_forecast(truth.isel(time=slice(40, 50)), inits=2)
    np.testing.assert_allclose(rmse(evaluate(later, truth), T2M), RMSE, rtol=1e-3)


# --- climatologies --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def days() -> xr.Dataset:
    return make_weather(800, shape=(6, 8), timestep="1D", time="2019-01-01T12:00")


@pytest.fixture(scope="module")
def daily(days) -> xr.Dataset:
    task = Task("t2m", 4, 2, timestep="1D")
    return Persistence(task).predict(days, init_time=days["time"].values[100:120])


def by_day(days):
    return days.groupby("time.dayofyear").mean()


CLIMATOLOGIES = {
    "by day alone": by_day,
    "a DataArray": lambda days: by_day(days)[T2M],
    "the hour as a label": lambda days: by_day(days).assign_coords(hour=12),
    "by hour and day": lambda days: by_day(days).expand_dims(hour=[12]),
    "other names of dims": lambda days: by_day(days).rename(dayofyear="climatology_day_of_year"),
    "named climatology": lambda days: by_day(days).rename({T2M: "climatology_t2m"}),
    "365 days": lambda days: by_day(days).isel(dayofyear=slice(365)),
    "dask": lambda days: by_day(days).chunk(dayofyear=50),
}


@pytest.mark.parametrize("case", CLIMATOLOGIES)
def test_a_climatology_by_day_alone(days, daily, case):
    usual = CLIMATOLOGIES[case](days)
    acc = evaluate(daily, days, climatology=usual)[T2M].sel(metric="acc").values
    want = by_day(days)[T2M].sel(dayofyear=daily["valid_time"].dt.dayofyear)
    ours, truth = daily[T2M] - want, days[T2M].sel(time=daily["valid_time"]) - want
    area = np.cos(np.deg2rad(days["latitude"]))
    space = ["latitude", "longitude"]
    products = [
        (a * b * area).mean(space) for a, b in ((ours, truth), (ours, ours), (truth, truth))
    ]
    expected = (products[0] / np.sqrt(products[1] * products[2])).mean("time")
    np.testing.assert_allclose(acc, expected, atol=1e-4)


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_a_climatology_by_month(days, daily, calendar):
    if calendar == "noleap":
        days = days.convert_calendar(calendar, use_cftime=True)
        task = Task("t2m", 4, 2, timestep="1D")
        daily = Persistence(task).predict(days, init_time=days["time"].values[100:120])
    usual = days.groupby("time.month").mean()
    acc = evaluate(daily, days, climatology=usual)[T2M].sel(metric="acc")
    month = usual[T2M].sel(month=days["time"].dt.month).drop_vars("month")
    repeated = month.to_dataset().groupby("time.dayofyear").first()
    np.testing.assert_allclose(
        acc, evaluate(daily, days, climatology=repeated)[T2M].sel(metric="acc"), atol=1e-6
    )


def test_a_climatology_by_day_alone_is_no_climatology_of_hours(weather, forecast):
    usual = weather.groupby("time.dayofyear").mean()
    with pytest.raises(InputError, match=r"by day alone.* 10 times of day"):
        evaluate(forecast, weather, climatology=usual)
    with pytest.raises(InputError, match=r"by day alone"):
        baseline_forecasts(forecast, weather, climatology=usual)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda ds: ds.groupby("time.dayofyear").mean().isel(dayofyear=slice(100)),
            "100 values of 'dayofyear', from 1 to 100, which do not include",
        ),
        (
            lambda ds: ds.groupby("time.month").mean().isel(month=[0, 1, 2]),
            "3 values of 'month'",
        ),
        (lambda ds: ds.groupby("time.hour").mean(), r"expand_dims\(dayofyear=range\(1, 367\)\)"),
        (lambda ds: ds.groupby("time.season").mean(), "month in place of dayofyear"),
    ],
)
def test_climatologies_that_do_not_do(days, daily, make, words):
    with pytest.raises(InputError, match=words):
        evaluate(daily, days, climatology=make(days))


def test_what_the_error_advises_works(days, daily):
    usual = days.groupby("time.hour").mean().expand_dims(dayofyear=range(1, 367))
    assert "acc" in evaluate(daily, days, climatology=usual)["metric"]


def test_a_forecaster_of_a_climatology_by_day_alone(days):
    model = Climatology(by_day(days), Task("t2m", 4, 2, timestep="1D"))
    got = model.predict(days)[T2M].isel(time=0)
    want = by_day(days)[T2M].sel(dayofyear=got["valid_time"].dt.dayofyear)
    np.testing.assert_allclose(got.values, want.values, rtol=1e-6)
    assert canonical_name("t2m") in model.dataset
