"""Figures of the forecasts that must not move."""

from __future__ import annotations

from helpers import golden

import stforecast


def test_the_forecast_of_the_bundle():
    ds = stforecast.open_sample()
    t2m = stforecast.predict(ds, init_time=ds.time.values[[11, -1]], steps=14)["2m_temperature"]
    first, last = t2m.sel(prediction_timedelta=t2m.prediction_timedelta[[0, -1]]).transpose(
        "prediction_timedelta", ...
    )
    figures = {"mean": t2m.mean(), "std": t2m.std(), "mean at 1 h": first.mean()}
    golden("bundle_forecast", figures | {"mean at 14 h": last.mean()}, 1e-6)
