"""What the commands print: tables, advice, options of all benchmarks."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import pipeline
from safetensors.torch import save_file

from stforecast.cli import BenchmarkOptions, TrainingOptions, recipe, run, to_lines
from stforecast.cli.run import advice
from stforecast.evaluation import benchmark_names, benchmark_table
from stforecast.forecasting.forecaster import load
from stforecast.models.translators import NAMES
from stforecast.testing.moving_mnist import write_mnist
from stforecast.testing.robot import write_robonet


@pytest.mark.parametrize("name", benchmark_names())
def test_tables_fit_a_terminal(name):
    own = {"ssim": 0.5, "psnr": 20.0} if "ssim_paper" in benchmark_table(name) else {"mae": 1.0}
    table = benchmark_table(name, {"this run": own, "persistence": own})
    lines = to_lines(table).splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for protocol in set(table["protocol"]):
        assert text.count(protocol) == 1


def test_figures_are_those_published():
    text = to_lines(benchmark_table("moving_mnist"))
    for figure in ("26.6", "15.05", "0.952"):
        assert f" {figure} " in text
    assert "00000" not in text


def test_columns_without_a_figure_are_left_out():
    table = pd.DataFrame(
        {"a": [np.nan, np.nan], "b_long_name": [0.123456, np.nan], "c": [12345.6, -3.0]},
        index=["x", "y"],
    ).assign(protocol="all")
    assert to_lines(table).splitlines() == [
        "   b_long_name      c",
        "x       0.1235  12346  (1)",
        "y       -          -3  (1)",
        "(1) all",
    ]


@dataclass
class _Options(TrainingOptions):
    nan: str = "refuse"
    overwrite: bool = False
    allow_overlap: bool = False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("or resume='never' (--resume never) to start", "or --resume never to start"),
        ('use nan="mask"', "use --nan mask"),
        ("(overwrite=True writes it anew)", "(--overwrite writes it anew)"),
        ("say allow_overlap=True", "say --allow-overlap"),
        ("or precision='fp32'. The last", "or --precision fp32. The last"),
        ("patience=3 needs", "--patience 3 needs"),
        ("use ds.rename({'...': 't2m'})", "rename it in the file"),
        ("use ds.rename, or leave", "rename it in the file, or leave"),
        ("variables=[...] and other='x'", "variables=[...] and other='x'"),
        ("batch_size must be at least 1, found 0", "batch_size must be at least 1, found 0"),
    ],
)
def test_advice_is_the_command_lines(text, said):
    assert advice(text, _Options) == said


def _tell(options):
    for _ in range(3):
        logging.getLogger("stforecast.conventions.grid").info("the grid has no latitude")
        logging.getLogger("stforecast.training").info("or %s", "overwrite=True")


def test_what_holds_for_the_whole_run_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr("sys.argv", ["command"])
    level = logging.root.level
    try:
        run(_tell, _Options)
    finally:
        logging.root.setLevel(level)
    told = capsys.readouterr().err
    assert told.count("the grid has no latitude") == 1
    assert told.count("or --overwrite\n") == 3


def arguments(tmp_path, *more):
    data = tmp_path / "data"
    if not data.exists():
        write_mnist(data)
    small = ["--data", data, "--batch-size", 2, "--val-sequences", 2, "--test-sequences", 3]
    return [*small, "--output", tmp_path / "out", "--device", "cpu", *more]


def test_minutes_resume_and_what_is_said(tmp_path, monkeypatch, capsys):
    """The whole of a benchmark that is stopped, gone on with, changed, and begun anew."""

    def call(*more):
        given = arguments(tmp_path, *more)
        code = pipeline("moving_mnist", *given, monkeypatch=monkeypatch)
        return code, capsys.readouterr()

    out = tmp_path / "out"
    code, told = call("--steps", 2, "--minutes", "1e-6")
    assert code == 0
    flat = " ".join(told.out.split())
    assert "stopped after step 1 of 2, as the minutes are over; scored are the weights of" in flat
    first = pd.read_csv(out / "table.csv", index_col="model")
    assert first.loc["this run", "gflops"] > 0
    for line in told.out.splitlines():
        assert len(line) <= 80 or line.startswith(("not comparable", "Results are in"))
    assert (out / "clips.png").stat().st_size > 10_000

    assert call("--steps", 2)[0] == 0
    second = pd.read_csv(out / "table.csv", index_col="model")
    assert "minutes" not in second.loc["this run", "protocol"]
    assert second.loc["this run", "mse_sum"] != first.loc["this run", "mse_sum"]
    assert second.loc["persistence", "mse_sum"] == first.loc["persistence", "mse_sum"]

    code, told = call("--steps", 2, "--learning-rate", "0.5")
    assert code == 2
    assert "--resume never" in told.err
    assert "resume='never'" not in told.err
    assert call("--steps", 2, "--learning-rate", "0.5", "--resume", "never")[0] == 0
    assert load(out / "model").training["config"]["learning_rate"] == 0.5


@pytest.mark.usefixtures("without_matplotlib")
def test_trials_say_the_names_of_the_table(tmp_path, monkeypatch, capsys):
    given = arguments(tmp_path, "--steps", 1, "--trials", 2)
    assert pipeline("moving_mnist", *given, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out.split("Mean and standard deviation of 2 trials:")[1]
    tables = [pd.read_csv(tmp_path / f"out/trial-{i}/table.csv", index_col="model") for i in (1, 2)]
    ours = [table.loc["this run", "mse_sum"] for table in tables]
    means, spread = shown.split("Standard deviation of a trial:")
    assert "ssim_paper" in means.splitlines()[1]
    assert f"{np.mean(ours):.4g}" in means
    assert f"{np.std(ours, ddof=1):.4g}" in spread


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_the_rest_is_there(tmp_path, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        given = arguments(tmp_path, "--steps", 1)
        assert pipeline("moving_mnist", *given, monkeypatch=monkeypatch) == 0
    assert sum("no pictures" in record.message for record in caplog.records) == 1
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"report.html", "scores.csv", "table.csv", "forecast.zarr"} <= names
    assert not [name for name in names if name.endswith(".png")]


@pytest.mark.usefixtures("without_matplotlib")
def test_lpips_with_weights_of_your_own(tmp_path, monkeypatch, capsys):
    data = write_robonet(tmp_path / "data", train=2, validation=1, test=1, shape=(32, 40))
    layers = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3)}
    layers |= {10: (256, 256, 3)}
    weights = {}
    for i, (number, (out, into, kernel)) in enumerate(layers.items()):
        weights[f"features.{number}.weight"] = torch.full((out, into, kernel, kernel), 0.01)
        weights[f"features.{number}.bias"] = torch.linspace(-1, 1, out)
        weights[f"lin{i}.model.1.weight"] = torch.full((1, out, 1, 1), 0.1)
    save_file(weights, tmp_path / "all.safetensors")
    given = ["--data", data, "--size", 32, 40, "--steps", 1, "--batch-size", 1, "--device", "cpu"]
    given += ["--output", tmp_path / "out"]
    missing = [*given, "--lpips", tmp_path / "none.pth"]
    assert pipeline("robonet", *missing, monkeypatch=monkeypatch) == 2
    assert not (tmp_path / "out/run").exists()  # said before the training
    whole = [*given, "--lpips", tmp_path / "all.safetensors"]
    assert pipeline("robonet", *whole, monkeypatch=monkeypatch) == 0
    assert "lpips_x100" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out/table.csv", index_col="model")
    scores = pd.read_csv(tmp_path / "out/scores.csv")
    scores = scores.query("variable == 'frames' and metric == 'lpips' and lead_hours == 'overall'")
    expected = 100 * scores.set_index("model")["value"]
    assert (expected > 0).all()
    for model in ("this run", "persistence"):
        assert table.loc[model, "lpips_x100"] == pytest.approx(expected[model])


@pytest.mark.parametrize("preset", ["fast", "paper"])
@pytest.mark.parametrize("name", ["taxibj", "weatherbench_t2m", "kth"])
@pytest.mark.parametrize("translator", NAMES)
def test_a_translator_of_choice(name, preset, translator):
    with torch.device("meta"):
        options = BenchmarkOptions(preset=preset, translator=translator)
        network = recipe(name, options, grid=(32, 32))[0]()
    assert network.settings["translator"] == translator
