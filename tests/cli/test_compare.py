"""``stforecast compare``: every model by its name, the same budget, one table."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import tiny

from stforecast import plots
from stforecast.cli.compared import models_of, weaned
from stforecast.conventions.grid import Grid
from stforecast.errors import InputError
from stforecast.files import locked
from stforecast.models import registry
from stforecast.models.graph.sequence import teacher_probability
from stforecast.task import Task
from stforecast.testing.flow import write_nyc_flow
from stforecast.testing.moving_mnist import write_mnist
from stforecast.testing.weather import make_weather
from stforecast.training.tuning import pace


@pytest.fixture
def compare(typed):
    """Type the command; gives its exit code, and what it said."""
    return partial(typed, "compare")


def test_models_have_the_names_of_the_papers_tables():
    found = models_of(["simvpv2,predrnn++", "E3D-LSTM", "tau", "clcrn"], [])
    assert list(found) == ["SimVPv2", "PredRNN++", "E3D-LSTM", "TAU", "CLCRN"]
    assert found["TAU"] == {"model": "SimVPv2", "translator": "tau", "loss": "tau"}
    everything = models_of(["all"], ["Copying", "SimVP", "PredRNN++", "SimVPv2"])
    assert list(everything) == ["SimVPv2", "SimVP", "PredRNN++"]
    for name in registry.names():  # every network can be asked for
        assert models_of([name], [])
    with pytest.raises(InputError, match=r"no model predrn: there are AGCRN, .*SimVP, SimVPv2"):
        models_of(["predrn"], [])


@pytest.mark.usefixtures("without_matplotlib")
def test_a_comparison_in_small(weather, compare, tmp_path, monkeypatch):
    out = tmp_path / "out"
    line = [*weather, "--steps", 2, "--batch-size", 2, "--stride", 6, "--output", out]
    code, said = compare(*line, "--models", "convlstm,clcrn", "--trials", 2)
    assert code == 0, said.err
    table = pd.read_csv(out / "compare.csv", index_col="model")
    assert {"ConvLSTM", "CLCRN", "Persistence", "LinearRegression"} <= set(table.index)
    ours = table.loc[["ConvLSTM", "CLCRN"]]
    for column in (
        "parameters_m",
        "gflops",
        "seconds_per_step",
        "seconds_per_epoch",
        "forecasts_per_second",
        "minutes",
    ):
        assert (ours[column] > 0).all(), column
    assert (ours["trials"] == 2).all()
    assert (ours["steps"] == 2).all()
    with xr.open_dataset(out / "compare.nc", decode_timedelta=True) as both:
        rmse = both["2m_temperature_overall"].sel(metric="rmse", weights="uniform")
        trials = rmse.sel(model="ConvLSTM").values
        assert trials[0] != trials[1]  # seeds of their own
        assert table.loc["ConvLSTM", "rmse"] == pytest.approx(trials.mean())
        assert table.loc["ConvLSTM", "rmse_std"] == pytest.approx(trials.std(ddof=1))
        assert np.isnan(rmse.sel(model="Persistence").values).tolist() == [False, True]
    assert "published for ERA5 32 x 64" in said.out

    # What is done is not done again; a model more joins it, and one that fails is named.
    def broken(*arguments, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("stforecast.cli.compare.pace", broken)
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/trial-*/result.json")}
    assert len(before) == 4
    code, said = compare(*line, "--models", "convlstm,tgcn,clcrn", "--trials", 2)
    assert code == 1
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "TGCN failed: RuntimeError: out of memory" in said.out
    assert "out of memory" in (out / "tgcn" / "failed.txt").read_text()
    assert pd.read_csv(out / "compare.csv", index_col="model").loc["CLCRN", "trials"] == 2

    # Another comparison does not go into the same directory.
    code, said = compare(*line, "--models", "clcrn", "--seed", 7)
    assert code == 2
    assert "seed 0, now 7" in said.err


@pytest.mark.usefixtures("without_matplotlib")
def test_models_are_shared_by_processes(weather, compare, tmp_path):
    out = tmp_path / "out"
    line = [*weather, "--steps", 1, "--batch-size", 2, "--stride", 8, "--output", out]
    with locked(out / "convlstm" / ".lock", "another GPU's"):
        code, said = compare(*line, "--models", "convlstm")
    assert code == 0, said.err
    assert "ConvLSTM: in the hands of another process" in said.out
    assert not (out / "compare.csv").exists()


def test_a_budget_of_minutes_is_planned_in_steps(weather, compare, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "stforecast.cli.compare.pace", lambda *a, **k: {"step": 2.0, "validation": 3.0}
    )

    def nothing(*arguments, **options):
        raise InputError(f"{arguments[3].steps} steps, every {arguments[3].validate_every}")

    monkeypatch.setattr("stforecast.cli.compare.train", nothing)
    line = [*weather, "--models", "simvpv2", "--output", tmp_path / "out"]
    code, said = compare(*line, "--minutes", 2)
    assert code == 1
    # All 25 windows were timed; 10 validations of 20 are a fifth of 120 s: (120 - 10 * 2.4) / 2.
    assert "SimVPv2 failed: InputError: 48 steps, every 5" in said.out
    planned = json.loads((tmp_path / "out/simvpv2/plan.json").read_text())["training"]
    assert (planned["steps"], planned["val_windows"]) == (48, 20)
    code, said = compare(*line, "--minutes", 2, "--steps", 3)
    assert code == 2
    assert "one budget" in said.err


@pytest.mark.parametrize("steps", [1, 8, 200, 100_000])
def test_a_curriculum_ends_within_the_training(steps):
    where = Task("t2m", 3, 2), Grid.of(make_weather(30, shape=(4, 6)))
    made = weaned("CLCRN", steps, *where)
    network = made() if steps < 100_000 else None
    if network is None:
        assert made == "CLCRN"  # 2,000 of its own end early enough
        return
    shares = [teacher_probability(b, network.curriculum_decay) for b in (steps // 4, steps)]
    assert shares[0] >= 0.45
    assert shares[1] < {1: 0.4, 8: 0.1, 200: 1e-3}[steps]
    assert network.teach is not None
    assert weaned("AGCRN", steps, *where) == "AGCRN"  # it has none
    assert weaned(tiny, steps, *where) is tiny


def test_the_pace_of_a_training():
    from stforecast import SimVPv2, Task, TrainConfig

    ds, task = make_weather(80, shape=(4, 6)), Task("t2m", 2, 2)
    parts = {"ds": ds.isel(time=slice(60)), "validation": ds.isel(time=slice(60, None))}
    network = SimVPv2.for_task(task, encoder_channels=4, translator_channels=8)
    found = pace(task=task, model=lambda: network, config=TrainConfig(batch_size=2), **parts)
    assert found["step"] > 0
    assert found["validation"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["taxibj", "moving_mnist"])
def test_other_benchmarks_in_small(benchmark, compare, tmp_path, monkeypatch):
    drawn = []

    def performance(table, *, quality, costs):
        drawn.append(quality)
        return plots.performance(table, quality=quality, costs=costs)

    monkeypatch.setattr("stforecast.cli.compare.performance", performance)
    writer = {"taxibj": write_nyc_flow, "moving_mnist": write_mnist}[benchmark]
    data, out = writer(tmp_path / "data"), tmp_path / "out"
    line = ["--benchmark", benchmark, "--data", data, "--models", "simvpv2,convlstm"]
    line += ["--steps", 1, "--batch-size", 1, "--stride", 20, "--output", out]
    line += ["--sequences", 10, "--test-sequences", 40]
    code, said = compare(*line)
    assert code == 0, said.err
    table = pd.read_csv(out / "compare.csv", index_col="model")
    assert {"SimVPv2", "ConvLSTM", "persistence"} <= set(table.index)
    assert (out / "error_against_cost.png").read_bytes()[:4] == b"\x89PNG"
    assert drawn == [{"moving_mnist": "mse_sum", "taxibj": "mse_x100"}[benchmark]]
    assert (out / "report.html").is_file()
