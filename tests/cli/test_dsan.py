"""New York's flows by the protocol of Lin et al. 2020, against plain numpy on the files."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import pipeline

from stforecast.cli import to_lines
from stforecast.errors import InputError
from stforecast.evaluation import benchmark_names, benchmark_table, evaluate
from stforecast.testing import write_nyc_flow

DAY, LEADS = 48, 12


def flows_of(path) -> np.ndarray:
    parts = [np.load(path / f"flow_{part}.npz")["flow"] for part in ("train", "val", "test")]
    return np.concatenate(parts)[: 60 * DAY]  # (time, y, x, 2)


def plain(forecast: np.ndarray, flows: np.ndarray) -> dict[str, float]:
    """Scores of forecasts (612, 12, y, x, 2): the targets of window t are steps t to t + 11."""
    starts = np.arange(47 * DAY, 60 * DAY - LEADS)
    found = {}
    for lead in range(LEADS):
        truth = flows[starts + lead]
        for c, name in enumerate(("inflow", "outflow")):
            real, made = truth[..., c], forecast[:, lead, ..., c]
            chosen = real > 10
            real, made = real[chosen], made[chosen]
            at = f"{name}_{30 * (lead + 1)}min"
            found[f"rmse_{at}"] = np.sqrt(np.mean((real - made) ** 2))
            found[f"mae_{at}"] = np.mean(np.abs(real - made))
            found[f"mape_{at}"] = np.mean(100 * np.abs(real - made) / real)
    return found


def test_the_pipeline_scores_as_the_public_code_does(tmp_path, monkeypatch, capsys):
    data = write_nyc_flow(tmp_path / "data", days=(50, 7, 5), shape=(6, 5))
    given = ["--data", data, "--protocol", "dsan", "--steps", 2, "--batch-size", 2]
    out = tmp_path / "out"
    # Pictures are as of every pipeline, and take longer than all else.
    monkeypatch.setattr("stforecast.plots.results.write_results", lambda *args, **options: [])
    assert pipeline("taxibj", *given, "--output", out, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    flows = flows_of(data)
    starts = np.arange(47 * DAY, 60 * DAY - LEADS)
    steps = starts[:, None] + np.arange(LEADS)
    train = flows[: 40 * DAY]
    # 1 January 2016 is a Friday, as is the 50th day; weeks are as long wherever they begin.
    week = np.stack([np.median(train[slot :: 7 * DAY], 0) for slot in range(7 * DAY)])
    opened = xr.open_zarr(out / "forecast.zarr")
    models = {
        "this run": np.stack([opened[v].values for v in ("inflow", "outflow")], -1),
        "persistence": np.repeat(flows[starts - 1][:, None], LEADS, 1),
        "usual week": week[steps % (7 * DAY)],
    }
    table = pd.read_csv(out / "table.csv", index_col="model")
    assert set(table.index) == {*models, "linear regression"}
    for model, forecast in models.items():
        wanted = plain(forecast.astype(np.float32), flows)
        assert len(wanted) == 72
        for column, value in wanted.items():
            assert table.loc[model, column] == pytest.approx(value, rel=1e-5), (model, column)
    regression = table.loc["linear regression"]
    assert regression["rmse_inflow_30min"] < table.loc["persistence", "rmse_inflow_30min"]
    # What is printed says what counts, how much, and that these are no published data.
    assert re.search(r"612 initialisations, 2016-02-16T23:30:00 to\s+2016-02-29T17:00:00", shown)
    assert "where truth > 10 (a false alarm costs nothing)" in " ".join(shown.split())
    assert "not comparable: NYTaxi 6 x 5, published for NYTaxi 16 x 12" in shown
    line = next(line for line in shown.splitlines() if line.startswith("persistence"))
    assert float(line.split()[1]) == pytest.approx(
        table.loc["persistence", "rmse_inflow_30min"], rel=1e-3
    )
    # It was trained on all forty days, as the week and the regression were.
    assert opened.attrs["training_period"] == "2016-01-01T00:00:00/2016-02-09T23:30:00"


def test_the_one_public_log_is_quoted_as_that():
    table = benchmark_table("nyc_dsan")
    assert "nyc_dsan" not in benchmark_names()
    row = table.iloc[0]
    log = "18.16/23.85, 20.49/26.66, 21.80/28.62, 22.68/29.39, 23.43/29.84"
    for minutes, pair in zip((30, 60, 90, 120, 150), log.split(", "), strict=True):
        for name, value in zip(("inflow", "outflow"), pair.split("/"), strict=True):
            assert row[f"rmse_{name}_{minutes}min"] == float(value)
    assert "log of an early version" in row["protocol"]
    assert "no figure of their paper" in row["protocol"]
    of = {"data": "NYTaxi", "grid": "16 x 12", "test": "2016-02-10 to 2016-02-29"}
    assert len(benchmark_table("nyc_dsan", sample=of)) == 1
    bikes = benchmark_table("nyc_dsan", sample=of | {"data": "NYBike"})
    assert bikes.empty
    assert "published for NYTaxi 16 x 12" in bikes.attrs["not_comparable"]
    shown = to_lines(table)
    assert "inflow, rmse" in shown
    assert shown.count("log of an early version") == 1
    assert max(map(len, shown.splitlines())) <= 80
    ours = benchmark_table("nyc_dsan", {"ours": {"rmse_inflow_60min": 19.0}})
    assert ours.loc["ours", "rmse_inflow_60min"] == 19
    time = pd.date_range("2016-01-01", periods=9, freq="30min")
    truth = xr.Dataset({"inflow": (("time", "y", "x"), np.ones((9, 2, 2)))}, {"time": time})
    made = truth.isel(time=slice(0, 2)).expand_dims(prediction_timedelta=[np.timedelta64(30, "m")])
    scores = evaluate(made, truth, by=("time", "prediction_timedelta"))
    with pytest.raises(InputError, match="scores by lead time are asked for"):
        benchmark_table("nyc_dsan", {"ours": scores})


def test_days_without_a_test_are_refused(tmp_path, monkeypatch, capsys):
    data = write_nyc_flow(tmp_path / "data", days=(16, 4, 4))
    given = ["--data", data, "--protocol", "dsan", "--output", tmp_path / "out"]
    assert pipeline("taxibj", *given, monkeypatch=monkeypatch) == 2
    assert "the protocol is of 60 days of half hours" in capsys.readouterr().err
    assert not (tmp_path / "out" / "run").exists()
