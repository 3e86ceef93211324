"""Regions by name and by box; weights side by side; points masked by NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.conventions.grid import area_weights, cell_bounds
from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.evaluation.regions import REGIONS, choose_regions, region_fractions
from stforecast.evaluation.scorecards import save_scores, scorecard, to_table

DATA = Path(__file__).parents[2].parent / "shared" / "data"
T2M, LEAD = "2m_temperature", "prediction_timedelta"
LATITUDE = np.array([-75.0, -45.0, -15.0, 15.0, 45.0, 75.0])
LONGITUDE = np.arange(0, 360, 40.0)
HOURS = np.array([1, 2, 3], dtype="m8[h]").astype("m8[ns]")


def sine(degrees):
    return np.sin(np.deg2rad(degrees))


def make_pair(error=None, latitude=LATITUDE, longitude=LONGITUDE, seed=0, names=(T2M,)):
    """Truth, and a forecast of it with `error` (N, L, H, W)."""
    rng = np.random.default_rng(seed)
    shape = (12, len(latitude), len(longitude))
    time = pd.date_range("2016-02-27T20", periods=12, freq="1h").to_numpy()
    space = {"latitude": latitude, "longitude": longitude}
    truth, forecast = {}, {}
    at = np.arange(8)[:, None] + [1, 2, 3]
    for name in names:
        values = 280 + rng.normal(size=shape)
        wrong = rng.normal(size=(8, 3, *shape[1:])) if error is None else error
        truth[name] = (("time", *space), values.astype("f4"), {"units": "K"})
        forecast[name] = (("time", LEAD, *space), values[at] + wrong, {"units": "K"})
    return (
        xr.Dataset(forecast, {"time": time[:8], LEAD: HOURS, **space}),
        xr.Dataset(truth, {"time": time, **space}),
    )


# --- fractions ------------------------------------------------------------------------------------


def test_an_edge_cuts_cells_exactly():
    # Cells of 30 degrees: the box from 20 to 50 N takes parts of two of them, by area.
    part = region_fractions(LATITUDE, LONGITUDE, (20, 50))
    expected = np.zeros(6)
    expected[3] = (sine(30) - sine(20)) / (sine(30) - sine(0))
    expected[4] = (sine(50) - sine(30)) / (sine(60) - sine(30))
    np.testing.assert_allclose(part, np.repeat(expected, 9).reshape(6, 9), atol=1e-12)
    # Longitudes: cells of 40 degrees around 0, 40, ...; 10 W to 30 E takes 30 and 10 of them.
    part = region_fractions(LATITUDE, LONGITUDE, (-90, 90, -10, 30))
    np.testing.assert_allclose(part[2], [0.75, 0.25, *[0] * 7], atol=1e-12)
    np.testing.assert_allclose(region_fractions(LATITUDE, LONGITUDE, (-90, 90, 350, 30)), part)


def test_the_whole_globe_and_its_parts():
    everything = region_fractions(LATITUDE, LONGITUDE, "global")
    np.testing.assert_allclose(everything, 1, rtol=1e-12)
    tropics, others, north, south = (
        region_fractions(LATITUDE, LONGITUDE, r)
        for r in ("tropics", "extra-tropics", "northern-hemisphere", "southern-hemisphere")
    )
    np.testing.assert_allclose(tropics + others, 1, rtol=1e-12)
    np.testing.assert_allclose(north + south, others, rtol=1e-12)
    assert set(REGIONS) >= {"global", "tropics", "extra-tropics", "europe", "arctic"}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(2, 40),
    columns=st.integers(2, 40),
    south=st.floats(-90, 85),
    height=st.floats(1, 170),
    west=st.floats(-180, 359),
    width=st.floats(1, 359),
    start=st.floats(0, 8),
)
def test_the_area_of_a_box_is_its_own(rows, columns, south, height, west, width, start):
    """On a grid that covers the globe: fractions times areas of cells add to the box's area."""
    latitude = -90 + (np.arange(rows) + 0.5) * 180 / rows
    longitude = start + np.arange(columns) * 360 / columns
    north, east = min(south + height, 90), west + width
    east -= 360 if east > 360 else 0
    part = region_fractions(latitude, longitude, (south, north, west, east))
    assert 0 <= part.min() <= part.max() <= 1
    cells = np.diff(sine(cell_bounds(latitude)))
    area = (cells * part).sum() * 360 / columns
    assert area == pytest.approx((sine(north) - sine(south)) * width, rel=1e-9, abs=1e-9)


def test_cells_of_a_regional_grid_end_half_a_spacing_outside():
    latitude, longitude = np.array([40.0, 50, 60]), np.array([-10.0, 0, 10, 20])
    part = region_fractions(latitude, longitude, (35, 65, -15, 25))
    np.testing.assert_allclose(part, 1)
    part = region_fractions(latitude, longitude, (-90, 90, 20, 180))
    np.testing.assert_allclose(part[1], [0, 0, 0, 0.5])
    north_up = region_fractions(latitude[::-1], longitude, (45, 90))
    np.testing.assert_allclose(north_up[:, 0], [1, 1, 0], atol=1e-12)
    # One row or column is a point: in or out.
    np.testing.assert_array_equal(region_fractions([50.0], longitude, (50, 60))[0], 1)
    np.testing.assert_array_equal(region_fractions([50.0], [7.0], (50, 60, 8, 9)), 0)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("atlantis", "no region 'atlantis'; there are global, tropics"),
        ((20, 10), "south < north"),
        ((20, 100), "-90 <= south"),
        ((20, 30, 5, 5), "no width"),
        ((20, 30, 5), "a box is"),
        (7, "a box is"),
        ([(0, 30), (20, 40)], "overlap"),
        ([(0, 30, 350, 10), (20, 40, 5, 20)], "overlap"),
    ],
)
def test_what_is_no_region(region, message):
    with pytest.raises(InputError, match=message):
        region_fractions(LATITUDE, LONGITUDE, region)


def test_several_regions():
    mine = {"alps": (44, 48, 5, 16), "both": [(-60, -20), (20, 60)], "tropics": "tropics"}
    assert list(choose_regions(mine, LATITUDE, LONGITUDE)) == list(mine)
    assert list(choose_regions("arctic", LATITUDE, LONGITUDE)) == ["arctic"]
    with pytest.raises(InputError, match=r"no part .*'arctic': latitudes run from 30 to 50"):
        choose_regions(["arctic"], [30.0, 40, 50], LONGITUDE[:3])
    with pytest.raises(InputError, match="empty"):
        choose_regions([], LATITUDE, LONGITUDE)


# --- scores by region and weights -----------------------------------------------------------------


def test_scores_of_regions_are_weighted_means_over_them():
    forecast, truth = make_pair()
    regions = {"global": "global", "tropics": "tropics", "box": (10, 50, 350, 130)}
    result = evaluate(forecast, truth, regions=regions)
    assert result[T2M].dims == ("metric", "region", LEAD)
    assert result[f"{T2M}_overall"].dims == ("metric", "region")
    assert result.region.values.tolist() == list(regions)
    at = np.arange(8)[:, None] + [1, 2, 3]
    error = forecast[T2M].values.astype("f4").astype("f8") - truth[T2M].values[at]
    for name, region in regions.items():
        w = area_weights(LATITUDE)[:, None] * region_fractions(LATITUDE, LONGITUDE, region)
        mse = (w * error**2).sum((0, 2, 3)) / (8 * w.sum())
        ours = result[T2M].sel(metric="rmse", region=name)
        np.testing.assert_allclose(ours, np.sqrt(mse), rtol=1e-9)
        overall = float(result[f"{T2M}_overall"].sel(metric="rmse", region=name))
        assert overall == pytest.approx(np.sqrt(mse.mean()), rel=1e-9)
    plain = evaluate(forecast, truth)
    xr.testing.assert_allclose(result.sel(region="global", drop=True), plain, rtol=1e-12)


def test_regions_whose_edges_are_cells_edges_are_weatherbench2s():
    """Where no cell is cut, cells in the box and no others: what choosing points gives."""
    forecast, truth = make_pair()
    ours = evaluate(forecast, truth, regions={"r": (-30, 60, 20, 180)}, metrics="mse")
    inside = {"latitude": slice(-30, 60), "longitude": slice(20, 180)}
    w = xr.DataArray(area_weights(LATITUDE), {"latitude": LATITUDE}).sel(latitude=slice(-30, 60))
    at = np.arange(8)[:, None] + [1, 2, 3]
    error = forecast[T2M].astype("f4").astype("f8") - truth[T2M].values[at]
    mse = (error.sel(inside) ** 2).weighted(w).mean(("time", "latitude", "longitude"))
    np.testing.assert_allclose(ours[T2M].sel(metric="mse", region="r"), mse, rtol=1e-6)


def test_no_cell_outside_the_regions_is_looked_at():
    forecast, truth = make_pair()
    forecast[T2M][:, :, -1] = np.nan  # 60 to 90 N
    result = evaluate(forecast, truth, regions="tropics")
    assert np.isfinite(result[T2M]).all()
    with pytest.raises(InputError, match="forecast is NaN"):
        evaluate(forecast, truth, regions=("tropics", "arctic"))


def test_both_weights_side_by_side():
    forecast, truth = make_pair()
    both = evaluate(forecast, truth, weights=("area", "uniform"), regions=("global", "tropics"))
    assert both[T2M].dims == ("metric", "weights", "region", LEAD)
    assert both.attrs["weights"] == "area, uniform"
    assert "cell-area" in both.attrs["weights_policy"]
    assert "counts the same" in both.attrs["weights_policy"]
    for policy in ("area", "uniform"):
        alone = evaluate(forecast, truth, weights=policy, regions=("global", "tropics"))
        xr.testing.assert_allclose(both.sel(weights=policy, drop=True), alone, rtol=1e-12)
        assert alone.attrs["weights"] == policy
    pixels = [
        ds.rename(latitude="y", longitude="x").drop_vars(("y", "x")) for ds in (forecast, truth)
    ]
    only = evaluate(*pixels, weights=("area", "uniform"))
    assert only.weights.values.tolist() == ["uniform"]  # pixels have no area
    with pytest.raises(InputError, match="latitude and longitude"):
        evaluate(*pixels, regions="tropics")
    with pytest.raises(InputError, match="weights is empty"):
        evaluate(forecast, truth, weights=())
    mask = xr.zeros_like(truth[T2M][0]) + 1
    mask[2:4] = 0
    custom = evaluate(forecast, truth, weights=(mask, "area"))
    assert custom.weights.values.tolist() == ["custom", "area"]
    with pytest.raises(InputError, match="0 all over one of the regions"):
        evaluate(forecast, truth, weights=mask, regions={"r": (-20, 20)})


def test_tables_of_several_weights_and_regions(tmp_path):
    forecast, truth = make_pair()
    options = {"weights": ("area", "uniform"), "regions": ("tropics", "arctic")}
    card = scorecard(
        {
            "Net": evaluate(forecast, truth, **options),
            "Persistence": evaluate(forecast + 1, truth, **options),
        }
    )
    table = to_table(card, weights="uniform", region="arctic", digits=9)
    assert table.columns.name == "2m_temperature rmse [K], uniform weights, arctic"
    expected = card[f"{T2M}_overall"].sel(
        model="Net", metric="rmse", weights="uniform", region="arctic"
    )
    assert table.loc["Net", "overall"] == pytest.approx(float(expected), abs=1e-8)
    assert to_table(card).columns.name == "2m_temperature rmse [K], area weights, tropics"
    for wrong in ({"region": "europe"}, {"weights": "custom"}):
        with pytest.raises(InputError, match="the scores have the"):
            to_table(card, **wrong)
    plain = scorecard({"Net": evaluate(forecast, truth)})
    assert to_table(plain, weights="area").columns.name == "2m_temperature rmse [K], area weights"
    with pytest.raises(InputError, match="no several weights; found weights='uniform'"):
        to_table(plain, weights="uniform")
    nc, csv = save_scores(card, tmp_path)
    rows = pd.read_csv(csv).query("lead_hours == 'overall' and metric == 'rmse' and model == 'Net'")
    assert sorted(zip(rows["weights"], rows["region"], strict=True)) == [
        *(("area", "arctic"), ("area", "tropics"), ("uniform", "arctic"), ("uniform", "tropics"))
    ]
    with xr.open_dataset(nc) as opened:
        xr.testing.assert_allclose(opened.load(), card)
    with pytest.raises(InputError, match="do not compare"):
        scorecard({"a": evaluate(forecast, truth, **options), "b": evaluate(forecast, truth)})


# --- NaN in truth ---------------------------------------------------------------------------------


def test_points_without_truth_have_no_score():
    forecast, truth = make_pair(names=("field_a", "field_b"))
    full = [ds.copy(deep=True) for ds in (forecast, truth)]
    truth["field_a"][:, 1, :4] = np.nan  # land
    truth["field_a"][5, 3, 3] = np.nan  # and one observation that is missing
    forecast["field_a"][:, :, 1, :4] = np.nan
    with pytest.raises(InputError, match=r'field_a of the truth is NaN.* or nan="mask"'):
        evaluate(forecast, truth)
    result = evaluate(forecast, truth, nan="mask", by=("time", LEAD))
    at = np.arange(8)[:, None] + [1, 2, 3]
    error = (
        full[0]["field_a"].values.astype("f4") - full[1]["field_a"].values[at].astype("f8")
    ) ** 2
    w = area_weights(LATITUDE)[:, None] * np.isfinite(truth["field_a"].values[at])
    rmse = np.sqrt((w * error).sum((2, 3)) / w.sum((2, 3)))
    np.testing.assert_allclose(result["field_a"].sel(metric="rmse"), rmse, rtol=1e-9)
    overall = np.sqrt((w * error).sum() / w.sum())
    ours = result["field_a_overall"].sel(metric="rmse")
    assert float(ours) == pytest.approx(overall, rel=1e-9)
    # The other variable is untouched, and what is masked is counted.
    xr.testing.assert_allclose(
        result["field_b"],
        evaluate(*full, by=("time", LEAD))["field_b"].assign_attrs(result["field_b"].attrs),
    )
    assert result.attrs["nan"] == "mask"
    assert result["field_b"].attrs["masked_points"] == 0
    assert (
        result["field_a"].attrs["masked_points"] == 8 * 3 * 4 + 3
    )  # the one is in three forecasts
    assert result["field_a"].attrs["masked_share"] == pytest.approx(99 / (8 * 3 * 54))


def test_by_place_points_never_observed_have_no_score():
    forecast, truth = make_pair()
    truth[T2M][:, 1, 4] = np.nan
    by_place = evaluate(forecast, truth, nan="mask", by=("latitude", "longitude"))[T2M]
    assert np.isnan(by_place).sum("metric").values.nonzero()[0].tolist() == [1]
    assert np.isnan(by_place[:, 1, 4]).all()


def test_a_forecast_must_be_there_where_truth_is():
    forecast, truth = make_pair()
    truth[T2M][:, 1, :4] = np.nan
    forecast[T2M][2, 0, 1, 4] = np.nan
    with pytest.raises(InputError, match=r"2m_temperature of the forecast is NaN.* 1 values"):
        evaluate(forecast, truth, nan="mask")
    forecast[T2M][2, 0, 1, 4] = 280
    truth[T2M][4, 0, 0] = np.inf  # infinity is no missing value
    with pytest.raises(InputError, match="truth is NaN or infinite"):
        evaluate(forecast, truth, nan="mask")
    with pytest.raises(InputError, match="found 'skip'"):
        evaluate(forecast, truth, nan="skip")


def test_an_anomaly_correlation_over_the_points_that_count():
    from stforecast.baselines.climatology import Climatology
    from stforecast.task import Task

    forecast, truth = make_pair()
    space = {"latitude": LATITUDE, "longitude": LONGITUDE}
    usual = 280 + 0.1 * np.random.default_rng(3).normal(size=(24, 366, 6, 9))
    usual[:, :, 1, :4] = np.nan
    coords = {"hour": np.arange(24), "dayofyear": np.arange(1, 367), **space}
    ds = xr.Dataset({T2M: (("hour", "dayofyear", *space), usual, {"units": "K"})}, coords)
    climatology = Climatology(ds, Task("t2m"))
    truth[T2M][:, 1, :4] = np.nan
    mask = xr.DataArray(np.broadcast_to(area_weights(LATITUDE)[:, None], (6, 9)).copy(), space)
    mask[1, :4] = 0
    by_mask = evaluate(forecast, truth, weights=mask, climatology=climatology)
    by_nan = evaluate(forecast, truth, nan="mask", climatology=climatology)
    np.testing.assert_allclose(by_nan[T2M], by_mask[T2M], rtol=1e-6, atol=1e-8)  # float32 array
    # A map without any truth is no map, and its correlation does not enter the mean.
    truth[T2M][4] = np.nan
    kept = evaluate(forecast, truth, nan="mask", climatology=climatology, by="time")
    assert np.isfinite(kept[T2M].sel(metric="acc")).all()
    each = evaluate(forecast, truth, nan="mask", climatology=climatology, by=("time", LEAD))
    acc = each[T2M].sel(metric="acc")
    assert np.isnan(acc).sum() == 3
    np.testing.assert_allclose(kept[T2M].sel(metric="acc"), acc.mean(LEAD), rtol=1e-12)


@settings(max_examples=10, deadline=None)
@given(
    chunk=st.integers(1, 8),
    lead_chunk=st.integers(1, 3),
    rows=st.integers(1, 6),
    columns=st.integers(1, 9),
    block=st.integers(1, 300),
    by=st.sampled_from([(LEAD,), ("time",)]),
    climatology=st.booleans(),
)
def test_blocks_of_masked_data_give_what_the_whole_gives(
    chunk, lead_chunk, rows, columns, block, by, climatology
):
    forecast, truth = make_pair()
    values = truth[T2M].values
    values[np.random.default_rng(0).random(values.shape) < 0.2] = np.nan
    options = {"nan": "mask", "by": by, "regions": ("global", "tropics", "europe")}
    if climatology:
        days = {"hour": np.arange(24), "dayofyear": np.arange(1, 367)}
        known = np.random.default_rng(1).normal(280, 1, (24, 366, 6, 9)).astype("f4")
        space = {"latitude": LATITUDE, "longitude": LONGITUDE}
        options["climatology"] = xr.Dataset({T2M: ((*days, *space), known)}, {**days, **space})
    whole = evaluate(forecast, truth, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stforecast.evaluation.sums.BLOCK", 4 * block)
        patch.setattr("stforecast.evaluation.aggregation.PIECE", 1)
        sizes = {"time": chunk, LEAD: lead_chunk, "latitude": rows, "longitude": columns}
        lazy = evaluate(forecast.chunk(sizes), truth.chunk(time=5), **options)
    xr.testing.assert_allclose(lazy, whole, rtol=1e-12, atol=1e-14)
    assert lazy[T2M].attrs == whole[T2M].attrs


@pytest.mark.skipif(not DATA.exists(), reason=f"no data at {DATA}")
def test_real_sea_surface_temperatures_have_land():
    with xr.open_dataset(DATA / "ersst_v5/sst.mnmean.nc") as ds:
        sst = ds[["sst"]].load()
    step = np.timedelta64(31, "D").astype("m8[ns]")
    january = sst.isel(time=slice(0, 120, 12))
    february = sst.isel(time=slice(1, 120, 12))
    forecast = january.expand_dims({LEAD: [step]}, axis=1)
    result = evaluate(forecast, february, nan="mask", regions=("global", "tropics"))
    rmse = result["sea_surface_temperature_overall"].sel(metric="rmse")
    assert 0.3 < float(rmse.sel(region="tropics")) < float(rmse.sel(region="global")) < 1.5
    share = result["sea_surface_temperature"].attrs["masked_share"]
    assert share == pytest.approx(float(np.isnan(february["sst"]).mean()), rel=1e-9)
