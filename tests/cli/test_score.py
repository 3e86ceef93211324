"""The scoring command's own refusals, in the words of a command line."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from stforecast.__main__ import main
from stforecast.baselines import Persistence
from stforecast.forecasting.predict import predict
from stforecast.task import Task
from stforecast.testing.weather import make_weather


def test_baselines_of_the_scored_period_are_asked_for_by_name(tmp_path, monkeypatch, capsys):
    truth = make_weather(steps=400, timestep="6h", shape=(4, 8))
    task = Task("t2m", 2, 2, "6h")
    forecast = predict(truth, Persistence(task), init_time=truth["time"].values[300:330])
    forecast.to_netcdf(tmp_path / "f.nc")
    truth.to_netcdf(tmp_path / "truth.nc")
    out = tmp_path / "out"
    words = ["score", tmp_path / "f.nc", tmp_path / "truth.nc", "--train", tmp_path / "truth.nc"]
    line = ["stforecast", *map(str, words), "--output", str(out)]
    monkeypatch.setattr(sys, "argv", list(line))
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "31 of the 31 times of the forecast lie in the training period" in said
    assert "or --allow-overlap if it is meant" in said
    assert not out.exists()

    monkeypatch.setattr(sys, "argv", [*line, "--allow-overlap"])
    main()
    assert "LinearRegression" in set(pd.read_csv(out / "scores.csv")["model"])
