"""The pipelines as a person starts them: the whole way on small data, and what bad input does."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers import pipeline

from stforecast.cli import PRINTED_PERIODS, BenchmarkOptions, recipe, train
from stforecast.cli.compared import SMALL
from stforecast.datasets import split
from stforecast.errors import InputError
from stforecast.forecasting.forecaster import load
from stforecast.forecasting.predict import predict
from stforecast.models import registry
from stforecast.models.surroundings import Outline, own_defaults
from stforecast.testing.weather import make_weather, relabel

PIPELINES = Path(__file__).parents[2] / "pipelines"
PERIODS = ["--train", "2001-01-01/2001-01-04", "--validation", "2001-01-05/2001-01-06"]
PERIODS += ["--test", "2001-01-07/2001-01-08"]


def weather(hours=192, **options):
    return make_weather(hours, shape=(8, 14), **options)


def write_year(ds, directory, name="2m_temperature_2001_5.625deg.nc"):
    """WeatherBench 1's layout: t2m(time, lat, lon), one file a year."""
    directory.mkdir(exist_ok=True)
    theirs = relabel(ds, names={"2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"})
    theirs.to_netcdf(directory / name)
    return directory


def test_the_whole_way(tmp_path, monkeypatch, capsys):
    year = weather(365 * 24)
    data = write_year(year, tmp_path / "data")
    out = tmp_path / "out"
    options = ["--data", data, "--steps", 3, "--batch-size", 2, "--output", out]
    options += [
        "--train",
        "2001-01/2001-11",
        "--validation",
        "2001-12-01",
        "--test",
        "2001-12-30/2001-12-31",
    ]
    assert pipeline("weatherbench_t2m", *options, monkeypatch=monkeypatch) == 0

    names = {"forecast.zarr", "model", "run", "scores.nc", "scores.csv", "report.html"}
    pictures = {"maps.png", "error.png", "rmse_by_lead.png", "scorecard.png"}
    assert {p.name for p in out.iterdir()} == names | pictures
    for name in pictures:
        assert (out / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    forecast = xr.open_zarr(out / "forecast.zarr")
    assert forecast["2m_temperature"].dims == (
        "time",
        "prediction_timedelta",
        "latitude",
        "longitude",
    )
    assert forecast.sizes["time"] == 48 - 23
    assert forecast["2m_temperature"].attrs["units"] == "K"
    valid = forecast["time"] + forecast["prediction_timedelta"]
    assert (forecast["valid_time"] == valid).all()
    scores = pd.read_csv(out / "scores.csv")
    baselines = {"Persistence", "Climatology", "LinearRegression"}
    assert set(scores["model"]) == {"SimVPv2"} | baselines
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("SimVPv2", "Persistence", "Climatology", str(out)))

    # The bundle gives the forecast that was written, and says how it came to be.
    model = load(out / "model")
    assert model.training["command"].startswith("python pipelines/weatherbench_t2m.py --data")
    again = predict(year, model, init_time=forecast["time"].values[-1:])
    np.testing.assert_allclose(again["2m_temperature"], forecast["2m_temperature"][-1:], atol=1e-3)

    # A second call has nothing left to train, and gives the same.
    before = (out / "scores.csv").read_bytes()
    assert pipeline("weatherbench_t2m", *options, monkeypatch=monkeypatch) == 0
    assert (out / "scores.csv").read_bytes() == before


@pytest.mark.usefixtures("without_matplotlib")
def test_published_figures_of_other_data_are_not_put_beside(tmp_path, monkeypatch, capsys):
    data = write_year(weather(), tmp_path / "data")
    options = ["--data", data, *PERIODS, "--steps", 1, "--batch-size", 1, "--stride", 5]
    options += ["--preset", "paper", "--output", tmp_path / "out"]
    assert pipeline("weatherbench_t2m", *options, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "Climatology" not in shown  # four days of training cannot give one
    assert "not area-weighted" in shown
    assert "1.0785" not in shown
    assert "8 x 14, test 2001-01-07 to 2001-01-08, every 5. initialisation, published for" in shown
    assert "ERA5 32 x 64, test 2017-01-01 to 2018-12-31" in shown


def test_help_is_for_strangers(monkeypatch, capsys):
    assert pipeline("weatherbench_t2m", "--help", monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    for words in (
        "--data",
        "--preset",
        "--output",
        "--seed",
        "--device",
        "persistence",
        "1979:2015",
    ):
        assert words in text


def test_the_paper_preset_is_the_papers():
    make, config = recipe("weatherbench_t2m", BenchmarkOptions(preset="paper"))
    network = make()
    assert sum(p.numel() for p in network.parameters()) == 12_758_305
    assert not network.circular_longitude
    assert not network.predict_change
    assert (config.epochs, config.steps, config.batch_size) == (50, None, 16)
    assert (config.learning_rate, config.schedule) == (5e-3, "cosine")
    assert not config.area_weighted
    assert not config.balance_leads
    assert network.settings["drop_path"] == 0.1


class Drift(torch.nn.Module):
    """A network from outside the library: the last frame, and one number for all."""

    def __init__(self, steps, points=None):
        super().__init__()
        self.settings = {"points": points}
        self.drift = torch.nn.Parameter(torch.zeros(steps, 1, 1, 1))

    @classmethod
    def for_task(cls, task, grid, points=None):
        return cls(task.target_steps, points or len(grid["latitude"]) * len(grid["longitude"]))

    @classmethod
    def for_benchmark(cls, name):
        return cls(12, name)

    def forward(self, x):
        return x[:, -1:] + self.drift


@pytest.fixture
def drift(monkeypatch):
    monkeypatch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))
    registry.register("Drift", f"{__name__}:Drift")


@pytest.mark.usefixtures("without_matplotlib")
def test_a_network_of_choice(drift, tmp_path, monkeypatch, capsys):
    options = shared(tmp_path, "--model", "drift", "--steps", 1)
    assert pipeline("weatherbench_t2m", *options, monkeypatch=monkeypatch) == 0
    model = load(tmp_path / "out/model")
    assert (type(model.network), model.network.settings) == (Drift, {"points": 8 * 14})
    scored = {"Drift", "Persistence", "LinearRegression"}
    assert set(pd.read_csv(tmp_path / "out/scores.csv")["model"]) == scored


class Loose(Drift):
    """One that takes noise."""

    takes_noise = True

    def noise_shape(self, height, width):
        return 12, 1, height, width

    def forward(self, x, noise=None):
        return super().forward(x) + (0 if noise is None else noise)


@pytest.mark.usefixtures("without_matplotlib")
def test_an_ensemble_from_the_command_line(drift, tmp_path, monkeypatch, capsys):
    """Trained, or from a bundle: the forecast has as many members; scores are of their mean."""
    registry.register("Loose", f"{__name__}:Loose")
    options = shared(tmp_path, "--model", "loose", "--steps", 1)
    options += ["--ensemble", 3, "--ensemble-steps", 1]
    assert pipeline("weatherbench_t2m", *options, monkeypatch=monkeypatch) == 0
    forecast = xr.open_zarr(tmp_path / "out/forecast.zarr")["2m_temperature"]
    assert forecast.sizes["realization"] == 3
    scores = pd.read_csv(tmp_path / "out/scores.csv")
    assert scores["value"].notna().all()
    model = load(tmp_path / "out/model")
    assert model.draws == "noise"
    assert model.training["config"]["loss"] == "crps"
    (tmp_path / "again").mkdir()
    again = shared(tmp_path / "again", "--model", "loose")
    again += ["--warm-start", tmp_path / "out/model"]
    again += ["--ensemble", 2, "--ensemble-steps", 1]
    assert pipeline("weatherbench_t2m", *again, monkeypatch=monkeypatch) == 0
    assert not list((tmp_path / "again/out/run").glob("checkpoint-*"))  # nothing but the teaching
    assert xr.open_zarr(tmp_path / "again/out/forecast.zarr").sizes["realization"] == 2


def test_a_network_of_choice_has_its_own_settings_of_a_benchmark(drift):
    network, config = recipe("taxibj", BenchmarkOptions(preset="paper", model="drift"))
    assert network().settings == {"points": "taxibj"}
    assert config.learning_rate == 5e-4
    assert recipe("taxibj", BenchmarkOptions(model="drift"))[0] == "drift"
    with pytest.raises(InputError, match="translator and size L are SimVPv2's"):
        recipe("taxibj", BenchmarkOptions(model="drift", translator="vit"))
    with pytest.raises(InputError, match="drop_path, dropout and mirror are SimVPv2's"):
        recipe("taxibj", BenchmarkOptions(model="drift", dropout=0.1))


def test_a_graph_network_as_it_was_printed(tmp_path, monkeypatch, capsys):
    """One window a day, from 00 UTC, to train, to choose the weights and to score."""
    seen = {}
    monkeypatch.setattr("stforecast.cli.train", lambda *a, **k: seen.update(k) or train(*a, **k))
    options = ["--data", write_year(weather(), tmp_path / "data"), *PERIODS, "--steps", 1]
    options += ["--model", "mstgcn", "--preset", "paper", "--output", tmp_path / "out"]
    assert pipeline("weatherbench_t2m", *options, monkeypatch=monkeypatch) == 0
    model = load(tmp_path / "out/model")
    assert {**model.network.settings, "form": "clcrn", "blocks": 4, "order": 1, "stride": 6} == (
        model.network.settings
    )
    config = json.loads((tmp_path / "out/model/bundle.json").read_text())["training"]["config"]
    assert (config["loss"], config["schedule"], config["batch_size"]) == ("mae", "constant", 32)
    assert config["val_windows"] == 2
    forecast = xr.open_zarr(tmp_path / "out/forecast.zarr")
    assert forecast["time"].dt.hour.values.tolist() == [11, 11]
    assert [str(t)[:13] for t in seen["init_time"]] == [f"2001-01-0{day}T11" for day in "1234"]
    assert "every 24. initialisation, published for" in capsys.readouterr().out


def test_a_printed_row_stands_among_those_of_its_test(monkeypatch):
    pipeline("weatherbench_t2m", "--help", monkeypatch=monkeypatch)
    beside = sys.modules["weatherbench_t2m"].beside_published
    sample = {"data": "ERA5", "grid": "32 x 64", "test": "2017-03-14 to 2018-12-30"}
    daily = sample | {"test": f"{sample['test']}, every 24. initialisation"}
    shown = beside("CLCRN", {"mae": 1.2, "rmse": 2.0}, daily)
    assert all(words in shown for words in ("this run", "1.169", "AGCRN", "not comparable"))
    assert "1.079" not in shown  # SimVPv2's, of every hour
    assert "AGCRN" not in beside("CLCRN", {"mae": 1.2, "rmse": 2.0}, sample)


PROTOCOL = Path(__file__).parents[3] / "shared/golden/graph/protocol_clcrn.json"


@pytest.mark.skipif(not PROTOCOL.exists(), reason=f"no {PROTOCOL}")
def test_golden_graph_windows(monkeypatch):
    """The windows of the printed rows: how many in each part, the first and the last."""
    case = json.loads(PROTOCOL.read_text())
    pipeline("weatherbench_t2m", "--help", monkeypatch=monkeypatch)
    once_a_day = sys.modules["weatherbench_t2m"].once_a_day
    time = pd.date_range("2010-01-01", "2018-12-31T23", freq="1h")
    for name, part in split(xr.Dataset(coords={"time": time}), **PRINTED_PERIODS).items():
        times = pd.DatetimeIndex(once_a_day(part))
        assert len(times) == case[name]["count"]
        first, last = times[0] - pd.Timedelta("11h"), times[-1] + pd.Timedelta("12h")
        assert first == pd.Timestamp(case[name]["first_input"])
        assert last == pd.Timestamp(case[name]["last_target"])


def hostile_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("../2m_temperature_2001_5.625deg.nc", "x")
    return tmp_path / "data.zip"


def truncated(tmp_path):
    file = write_year(weather(), tmp_path / "data") / "2m_temperature_2001_5.625deg.nc"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def missing_chunk(tmp_path):
    weather().chunk(time=48).to_zarr(tmp_path / "data.zarr", consolidated=False)
    chunks = sorted(p for p in (tmp_path / "data.zarr/2m_temperature/c").rglob("*") if p.is_file())
    chunks[1].unlink()
    return tmp_path / "data.zarr"


def overlapping(tmp_path):
    write_year(weather(100), tmp_path / "data")
    late = weather(192).isel(time=slice(90, None))
    return write_year(late, tmp_path / "data", "2m_temperature_2002_5.625deg.nc")


def changed(change):
    def make(tmp_path):
        return write_year(change(weather().copy(deep=True)), tmp_path / "data")

    return make


def with_nan(ds):
    ds["2m_temperature"][30, 2, 3] = np.nan
    return ds


def in_units(units):
    def change(ds):
        ds["2m_temperature"].attrs["units"] = units
        return ds

    return change


def text_file(tmp_path):
    (tmp_path / "data.nc").write_text("this is no netCDF")
    return tmp_path / "data.nc"


def empty_dataset(tmp_path):
    xr.Dataset().to_netcdf(tmp_path / "data.nc")
    return tmp_path / "data.nc"


def other_variable(tmp_path):
    ds = relabel(weather(), names={"2m_temperature": "u10"}, units="K")
    ds["u10"].attrs = {"units": "m s-1"}
    ds.to_netcdf(tmp_path / "data.nc")
    return tmp_path / "data.nc"


def nothing(tmp_path):
    return tmp_path / "nowhere"


def empty_directory(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def two_grids(tmp_path):
    write_year(weather(100), tmp_path / "data")
    other = make_weather(92, time="2001-01-05T04", shape=(8, 16))
    return write_year(other, tmp_path / "data", "2m_temperature_2002_5.625deg.nc")


def good(tmp_path):
    return write_year(weather(), tmp_path / "data")


def repeated(ds):
    time = ds["time"].values.copy()
    time[20] = time[19]
    return ds.assign_coords(time=time)


FAULTS = {
    "no such path": (nothing, [], "nowhere"),
    "empty directory": (empty_directory, [], "data"),
    "not netCDF": (text_file, [], "data.nc"),
    "empty Dataset": (empty_dataset, [], "data.nc"),
    "missing variable": (other_variable, [], "2m_temperature"),
    "wrong kind of units": (changed(in_units("m s-1")), [], "m s-1"),
    "units against values": (changed(in_units("degC")), [], "degC|celsius"),
    "NaN in training": (changed(with_nan), [], "NaN"),
    "duplicated times": (changed(repeated), [], "duplicate|twice|repeat"),
    "gaps everywhere": (
        changed(lambda d: d.isel(time=np.arange(192) % 20 > 0)),
        [],
        "without a gap",
    ),
    "three-hourly": (changed(lambda d: d.isel(time=slice(0, None, 3))), [], "3:00:00|3-hourly"),
    "truncated netCDF": (truncated, [], "truncated|damaged|cannot"),
    "missing zarr chunk": (missing_chunk, [], "chunk"),
    "zip with ../": (hostile_zip, [], r"\.\./|outside"),
    "overlapping files": (overlapping, [], "overlap|twice|duplicate"),
    "two grids": (two_grids, [], "grid|longitude"),
    "period without data": (good, ["--train", "1990:1995"], "no data"),
    "period that cannot be read": (good, ["--train", "last year"], "last year"),
    "test period trained on": (good, ["--test", "2001-01-03/2001-01-07"], "in common"),
    "too few steps": (good, ["--train", "2001-01-01T00/2001-01-01T20"], "no window of 24 steps"),
    "unwritable output": (good, ["--output", "/proc/stforecast"], "cannot write"),
    "output under a file": (good, ["--output", __file__ + "/out"], "cannot write"),
    "batch size of nothing": (good, ["--batch-size", "0"], "batch_size must be at least 1"),
    "no such network": (good, ["--model", "simvpv3"], "no network 'simvpv3'; there are"),
    "no steps": (good, ["--steps", "0"], "steps must be at least 1"),
    "learning rate of nothing": (good, ["--learning-rate", "0"], "learning_rate must be positive"),
    "loss that diverges": (good, ["--learning-rate", "1e30", "--steps", "6"], "the loss is"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_bad_input_ends_in_one_clear_error(case, tmp_path, monkeypatch, capsys):
    make, options, words = FAULTS[case]
    data = make(tmp_path)
    out = tmp_path / "out"
    before = {p for p in tmp_path.rglob("*") if out not in (p, *p.parents)}
    arguments = [
        "--data",
        data,
        "--steps",
        2,
        "--batch-size",
        2,
        "--output",
        out,
        *PERIODS,
        *options,
    ]
    code = pipeline("weatherbench_t2m", *arguments, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code in (1, 2), error
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    import re

    assert re.search(words, error), error
    # Nothing half-written: no results, no temporary files, the data as they were.
    assert not [p for p in tmp_path.rglob("*") if ".part" in p.name or p.name.endswith(".old")]
    assert {p.name for p in out.glob("*")} <= {"run"}
    assert {p for p in tmp_path.rglob("*") if out not in (p, *p.parents)} == before


def test_unknown_option(monkeypatch, capsys):
    assert pipeline("weatherbench_t2m", "--colour", "red", monkeypatch=monkeypatch) == 2


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_keeps_a_checkpoint(tmp_path, monkeypatch, capsys):
    import signal

    from stforecast.loading import feeds

    data = write_year(weather(), tmp_path / "data")
    out = tmp_path / "out"
    order, pressed = feeds.ResidentFeed.batch, []

    def interrupting(self, step):
        before = (signal.default_int_handler, signal.SIG_IGN)  # a first guess is being fitted
        if step == 2 and not pressed and signal.getsignal(signal.SIGINT) not in before:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)
        return order(self, step)

    monkeypatch.setattr(feeds.ResidentFeed, "batch", interrupting)
    arguments = ["--data", data, "--steps", 6, "--batch-size", 2, "--output", out, *PERIODS]
    assert pipeline("weatherbench_t2m", *arguments, monkeypatch=monkeypatch) == 130
    assert "stopped after step 3 of 6; the same call goes on" in capsys.readouterr().err
    state = json.loads((out / "run/checkpoint-00000003/state.json").read_text())
    assert state["step"] == 3


# --- what all pipelines that train share --------------------------------------------------------


def shared(tmp_path, *more):
    data = tmp_path / "data"
    if not data.exists():
        write_year(weather(), data)
    options = ["--data", data, "--batch-size", 2, "--stride", 9, *PERIODS, *more]
    return [*options, "--output", tmp_path / "out"]


@pytest.mark.usefixtures("without_matplotlib")
def test_a_budget_of_minutes_ends_with_scores_and_goes_on(tmp_path, monkeypatch, capsys):
    arguments = shared(tmp_path, "--steps", 4)
    assert (
        pipeline("weatherbench_t2m", *arguments, "--minutes", "1e-6", monkeypatch=monkeypatch) == 0
    )
    out = tmp_path / "out"
    words = "Stopped after step 1 of 4, as the minutes are over; scored are the weights of step 1"
    assert words in capsys.readouterr().out
    assert (out / "run/checkpoint-00000001").is_dir()
    before = (out / "scores.csv").read_bytes()
    assert load(out / "model").training["stopped"]["why"] == "minutes"
    assert pipeline("weatherbench_t2m", *arguments, monkeypatch=monkeypatch) == 0
    assert "stopped" not in load(out / "model").training
    assert "Stopped after" not in capsys.readouterr().out
    assert (out / "scores.csv").read_bytes() != before  # of the last weights
    calls = json.loads((out / "run/about.json").read_text())["calls"]
    assert [call["from_step"] for call in calls] == [0, 1]


@pytest.mark.usefixtures("without_matplotlib")
def test_other_settings_are_named_and_a_run_can_start_anew(tmp_path, monkeypatch, capsys):
    def go(*arguments):
        return pipeline("weatherbench_t2m", *shared(tmp_path, *arguments), monkeypatch=monkeypatch)

    minutes = ("--minutes", "1e-6")  # so that it takes one step
    assert go("--steps", 4, *minutes) == 0
    assert go("--steps", 5, *minutes) == 2
    error = capsys.readouterr().err
    assert "(config differ): steps: 4, now 5" in error
    assert "--resume never" in error
    assert go("--steps", 5, "--resume", "never", *minutes) == 0
    assert "Stopped after step 1 of 5" in capsys.readouterr().out


@pytest.mark.usefixtures("without_matplotlib")
def test_trials_have_seeds_of_their_own(tmp_path, monkeypatch, capsys):
    arguments = shared(tmp_path, "--steps", 2, "--trials", 2, "--seed", 7)
    assert pipeline("weatherbench_t2m", *arguments, monkeypatch=monkeypatch) == 0
    out = tmp_path / "out"
    assert "Mean and standard deviation of 2 trials" in capsys.readouterr().out
    seeds = [load(out / f"trial-{i}/model").training["config"]["seed"] for i in (1, 2)]
    assert seeds == [7, 8]
    table = pd.read_csv(out / "trials.csv").query("weights == 'area'")
    table = table.set_index(["model", "metric"])
    each = [
        pd.read_csv(out / f"trial-{i}/scores.csv").query("lead_hours == 'overall'") for i in (1, 2)
    ]
    values = [
        float(one.query("model == 'SimVPv2' and metric == 'rmse'")["value"].iloc[0]) for one in each
    ]
    row = table.loc[("SimVPv2", "rmse")]
    assert float(row["mean"]) == pytest.approx(np.mean(values))
    assert float(row["std"]) == pytest.approx(np.std(values, ddof=1))
    assert float(table.loc[("Persistence", "rmse"), "std"]) == 0


@pytest.mark.usefixtures("without_matplotlib")
def test_the_learning_rate_can_be_looked_for(tmp_path, monkeypatch, capsys):
    arguments = shared(tmp_path, "--steps", 5, "--learning-rate", "auto")
    assert pipeline("weatherbench_t2m", *arguments, monkeypatch=monkeypatch) == 0
    table = pd.read_csv(tmp_path / "out/learning_rate.csv", index_col=0)
    assert table.index.tolist() == [1e-2, 5e-3, 1e-3, 5e-4, 1e-4]
    chosen = load(tmp_path / "out/model").training["config"]["learning_rate"]
    assert chosen == table["val_score"].idxmin()
    assert f"learning rate: {chosen:g}" in capsys.readouterr().out


@pytest.mark.usefixtures("without_matplotlib")
def test_options_reach_the_training(tmp_path, monkeypatch):
    first = shared(tmp_path, "--steps", 2)
    assert pipeline("weatherbench_t2m", *first, monkeypatch=monkeypatch) == 0
    settings = ["--precision", "fp32", "--accumulate", 2, "--clip-norm", 1, "--ema", 0.9]
    settings += ["--patience", 3, "--seed", 5, "--learning-rate", 0.002, "--device", "cpu"]
    settings += ["--drop-path", 0.25, "--dropout", 0.125]
    second = shared(tmp_path, "--steps", 2, *settings, "--warm-start", tmp_path / "out/model")
    second[-1] = tmp_path / "tuned"
    assert pipeline("weatherbench_t2m", *second, monkeypatch=monkeypatch) == 0
    tuned = load(tmp_path / "tuned/model")
    training, settings = tuned.training, tuned.network.settings
    assert (settings["drop_path"], settings["stochastic_depth"]) == (0.25, "uniform")
    assert settings["dropout"] == 0.125
    wanted = {"precision": "fp32", "accumulate": 2, "clip_norm": 1.0, "ema": 0.9, "patience": 3}
    wanted |= {"seed": 5, "learning_rate": 0.002, "batch_size": 2, "device": "cpu"}
    assert {k: training["config"][k] for k in wanted} == wanted
    assert training["warm_start"]["share"] > 0.99  # all but what describes the data
    assert training["warm_start"]["left"] == {}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_what_the_paper_compares_with_has_its_own_rates(name):
    """Small in the fast preset, of the benchmark's sizes in the paper's; any spelling will do."""
    written = name.replace("pp", "++").replace("v2", "_v2").lower()
    sizes = {}
    for preset in ("fast", "paper"):
        with own_defaults("meta"), Outline():
            options = BenchmarkOptions(preset=preset, model=written)
            make, config = recipe("moving_mnist", options, grid=(64, 64))
            network = make()
        assert registry.name_of(network) == name
        assert (network.settings["target_steps"], network.settings["channels"]) == (10, 1)
        sizes[preset] = sum(p.numel() for p in network.parameters())
    assert sizes["fast"] <= sizes["paper"]
    known = {"PredRNNpp": 1e-4, "CrevNet": 5e-3, "MAU": 1e-3, "ConvLSTM": 5e-4}
    if name in known:
        assert config.learning_rate == known[name]
    assert recipe("robonet", options)[1].learning_rate == 1e-4


def test_a_convlstm_has_its_sizes():
    options = BenchmarkOptions(preset="paper", model="convlstm")
    with own_defaults("meta"), Outline():
        counts = [
            sum(p.numel() for p in recipe("moving_mnist", options, size=size)[0]().parameters())
            for size in ("S", "M", "L")
        ]
    assert counts == [3_822_592, 15_083_520, 33_782_784]


def test_a_recurrent_network_of_choice(tmp_path, monkeypatch, capsys):
    options = shared(tmp_path, "--model", "predrnn_v2", "--steps", 1)
    assert pipeline("weatherbench_t2m", *options, monkeypatch=monkeypatch) == 0
    network = load(tmp_path / "out/model").network
    assert type(network).__name__ == "PredRNNv2"
    assert network.settings["circular_longitude"]
    assert network.settings["channels"] > network.settings["out_channels"] == 1
