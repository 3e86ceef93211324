"""Figures of ensembles: which quantiles, which place, which cells, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stforecast import plots
from stforecast.errors import InputError
from stforecast.testing import make_forecast

T2M, LEAD = "2m_temperature", "prediction_timedelta"
pytest.importorskip("cartopy.crs")


@pytest.fixture(scope="module")
def ensemble(weather):
    """Twelve members: truth plus -5.5, -4.5, ..., 5.5 K."""
    one = make_forecast(weather, inits=3, steps=3, bias=0.0, spread=0.0)
    shift = xr.DataArray(np.arange(12) - 5.5, dims="realization").astype("float32")
    attrs = one[T2M].attrs
    return one.assign({T2M: (one[T2M] + shift).transpose("realization", ...).assign_attrs(attrs)})


def truth_at(weather, latitude, longitude):
    """Of the last initialisation, by lead time."""
    near = weather[T2M].sel(latitude=latitude, longitude=longitude, method="nearest")
    return near.values[3:6]


@pytest.mark.parametrize("dim", ["realization", "ens"])
def test_a_plume_shows_quantiles_and_truth_at_the_nearest_point(ensemble, weather, dim):
    ensemble = ensemble.rename(realization=dim)
    figure = plots.plume(ensemble, weather, place={"Here": (50.0, -12.0), "There": (-80, 181)})
    here, there = figure.axes
    assert here.get_title("left") == "Here (52.5°N, 15°W)"
    observed = truth_at(weather, 50, 348)
    lines = {line.get_label(): line.get_ydata() for line in here.lines}
    np.testing.assert_allclose(lines["Truth"], observed, rtol=1e-6)
    np.testing.assert_allclose(lines["Median"], observed, rtol=1e-6)
    wide, half = (c.get_paths()[0].vertices[:, 1] for c in here.collections)
    assert wide.max() == pytest.approx(observed.max() + 0.9 * 5.5, rel=1e-6)  # 95% of 11 steps
    assert half.max() == pytest.approx(observed.max() + 0.5 * 5.5, rel=1e-6)
    np.testing.assert_allclose(there.lines[1].get_ydata(), truth_at(weather, -80, 180), rtol=1e-6)


def test_of_few_members_each_is_a_line(ensemble):
    few = ensemble.isel(realization=slice(4))
    axes = plots.plume(few, place=(0.0, 0.0)).axes[0]
    assert len(axes.lines) == 4 + 1
    assert "All members" in [c.get_label() for c in axes.collections]


def test_stamps_are_departures_from_the_mean_of_all(ensemble, weather):
    figure = plots.member_stamps(ensemble, weather, most=4, lead=np.timedelta64(2, "h"))
    maps = {ax.get_title(): ax.collections[0] for ax in figure.axes if ax.get_title()}
    assert list(maps) == [
        "Mean", "Spread", "Truth \N{MINUS SIGN} mean", *(f"Member {i}" for i in (1, 2, 3, 4))
    ]  # fmt: skip
    np.testing.assert_allclose(maps["Member 1"].get_array(), -5.5, atol=1e-3)
    np.testing.assert_allclose(maps["Member 4"].get_array(), -2.5, atol=1e-3)
    np.testing.assert_allclose(maps["Truth \N{MINUS SIGN} mean"].get_array(), 0, atol=1e-3)
    np.testing.assert_allclose(maps["Spread"].get_array(), np.std(np.arange(12), ddof=1), rtol=1e-4)
    fields = plots.member_stamps(ensemble, departures=False, most=2)
    first = next(ax for ax in fields.axes if ax.get_title() == "Member 1").collections[0]
    low, high = (float(f(weather[T2M].isel(time=5))) for f in (np.min, np.max))
    assert float(first.get_array().min()) == pytest.approx(low - 5.5, abs=1e-3)
    assert float(first.get_array().max()) == pytest.approx(high - 5.5, abs=1e-3)


def test_probabilities_are_shares_of_members(ensemble, weather):
    observed = weather[T2M].isel(time=5)
    limit = float(observed.mean())
    expected = 100 * np.mean([observed.values + s >= limit for s in np.arange(12) - 5.5], axis=0)
    figure = plots.probability_map(ensemble, limit, weather)
    mesh, *outline = figure.axes[0].collections
    found = np.sort(np.unique(mesh.get_array()))
    np.testing.assert_allclose(found, np.unique(expected), rtol=1e-6)
    assert any(type(o).__name__ == "LineCollection" for o in outline)
    under = plots.probability_map(ensemble, limit, below=True).axes[0].collections[0]
    assert float(np.mean(under.get_array())) == pytest.approx(
        100 - float(np.mean(mesh.get_array()))
    )


def test_outlines_do_not_cross_the_map(ensemble, weather):
    """An event at the edge of the map, on both sides of it."""
    event = weather.copy(deep=True)
    event[T2M][:] = 250
    event[T2M][:, 5:7, 10:14] = 300  # longitudes 150 to 195
    axes = plots.probability_map(ensemble, 299, event).axes[0]
    lines = next(c for c in axes.collections if type(c).__name__ == "LineCollection")
    lengths = [np.ptp(path.vertices[:, 0]) for path in lines.get_paths()]
    assert 8 <= len(lengths) <= 12
    assert max(lengths) < 0.1 * np.ptp(axes.projection.x_limits)


def test_what_shows_no_ensemble_is_refused(ensemble, weather):
    one = ensemble.isel(realization=0)
    for draw in (plots.member_stamps, lambda f: plots.plume(f, place=(0, 0))):
        with pytest.raises(InputError, match="expected the members of an ensemble"):
            draw(one)
    with pytest.raises(InputError, match="95, 0 lies outside the grid"):
        plots.plume(ensemble, place=(95, 0))
    with pytest.raises(InputError, match="threshold must be a number"):
        plots.probability_map(ensemble, np.nan)
    with pytest.raises(InputError, match="no lead time"):
        plots.member_stamps(ensemble, lead="9h")
