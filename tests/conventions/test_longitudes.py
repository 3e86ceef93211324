"""Longitudes in any order and range."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from layouts import NAME, round_trip

from stforecast.conventions.angles import is_global
from stforecast.conventions.gate import canonicalize


def with_longitude(lon, steps=2):
    values = 280 + np.arange(steps * 3 * len(lon), dtype=np.float32).reshape(steps, 3, len(lon)) / 9
    return xr.Dataset(
        {NAME: (("time", "latitude", "longitude"), values, {"units": "K"})},
        {
            "time": pd.date_range("2001", periods=steps),
            "latitude": [10.0, 20, 30],
            "longitude": lon,
        },
    )


@pytest.mark.parametrize(
    ("given_", "canonical"),
    [
        (np.arange(-180.0, 180, 60), np.arange(0.0, 360, 60)),
        (np.arange(60.0, 420, 60), np.arange(0.0, 360, 60)),
        ([-10.0, 0, 10, 20], [-10.0, 0, 10, 20]),  # Europe in one piece
        ([350.0, 360, 370, 380], [-10.0, 0, 10, 20]),
        ([0.0, 10, 20, 350], [-10.0, 0, 10, 20]),  # sorted from 0 to 360 it was torn
        ([-30.0, -20, -10], [330.0, 340, 350]),
        ([170.0, 180, -170], [170.0, 180, 190]),
        ([20.0, 10, 0], [0.0, 10, 20]),
        ([-20.0, -10, -1e-6], [-20.0, -10, 0]),  # rounding does not go round the globe
        ([12.5], [12.5]),
    ],
)
def test_longitudes(given_, canonical):
    ds = with_longitude(given_)
    got, _ = canonicalize(ds)
    np.testing.assert_allclose(got["longitude"], canonical, rtol=0, atol=1e-5)
    place = int(np.flatnonzero(np.isclose(np.mod(given_, 360), np.mod(canonical[0], 360)))[0])
    np.testing.assert_array_equal(got[NAME][:, :, 0], ds[NAME][:, :, place])
    xr.testing.assert_identical(round_trip(ds), ds)


def test_is_global():
    assert is_global(np.arange(64) * 5.625)
    assert is_global(np.arange(64) * 5.625 - 180)
    assert is_global(np.round(np.arange(1080) / 3, 2))
    assert not is_global(np.arange(63) * 5.625)
    assert not is_global(np.array([350.0, 0, 10]))
    assert not is_global(np.array([5.0]))
