"""``stforecast ablate``: parts of SimVPv2 from several steps, and its translators."""

from __future__ import annotations

from functools import partial

import pandas as pd
import pytest
from safetensors.torch import load_file

from stforecast.cli.compared import translators_of
from stforecast.errors import InputError
from stforecast.evaluation import evaluate
from stforecast.forecasting import load, predict
from stforecast.testing.flow import write_nyc_flow
from stforecast.testing.moving_mnist import write_mnist

SMALL = ["--batch-size", 2, "--stride", 12]


@pytest.fixture
def ablate(typed):
    """Type the command; gives its exit code, and what it said."""
    return partial(typed, "ablate")


def score(run, encoder, translator, decoder, weather):
    """RMSE past the command: the weights of each part as that step's checkpoint has them."""
    from stforecast.datasets import open_weatherbench, split
    from stforecast.task import initialisations

    model = load(run / "model")
    steps = {"encoder": encoder, "translator": translator, "decoder": decoder, "readout": decoder}
    for module, step in steps.items():
        saved = load_file(run / "run" / f"checkpoint-{step:08d}" / "state.safetensors")
        front = f"network.{module}."
        own = {k.removeprefix(front): t for k, t in saved.items() if k.startswith(front)}
        getattr(model.network, module).load_state_dict(own)
    ds = open_weatherbench(weather[1], ["2m_temperature"])
    test = split(ds, test=weather[-1])["test"].load()
    times = initialisations(test, model.task)[::12]
    scores = evaluate(predict(test, model, init_time=times), test, weights="uniform")
    return float(scores["2m_temperature_overall"].sel(metric="rmse"))


@pytest.mark.usefixtures("without_matplotlib")
def test_parts_of_several_steps(weather, ablate, tmp_path, monkeypatch):
    out = tmp_path / "out"

    # What the training has kept is there for the same command, or another.
    def stop(*given):
        raise InputError("stopped")

    line = [*weather, *SMALL, "--steps", 12, "--at", 2, 12]
    with monkeypatch.context() as patch:
        patch.setattr("stforecast.cli.ablate._whole", stop)
        code, said = ablate(*line, "--output", out)
    assert said.err.endswith("error: stopped\n")
    code, said = ablate(*weather, *SMALL[2:], "--run", out, "--output", tmp_path / "again")
    assert code == 0, said.err
    assert not (tmp_path / "again" / "run").exists()
    table = pd.read_csv(tmp_path / "again" / "modules.csv", index_col="parts")
    assert list(table.index) == [
        "as trained",
        *(f"{e} / {t} / {d}" for e in (2, 12) for t in (2, 12) for d in (2, 12)),
    ]
    assert table.loc["2 / 12 / 2", ["encoder", "translator", "decoder"]].tolist() == [2, 12, 2]
    rmse = table["rmse"]
    # All parts of one step are that step's network; every exchange is another.
    for at in [(2, 2, 2), (2, 2, 12), (2, 12, 12)]:
        by_hand = score(out, *at, weather)
        assert rmse[" / ".join(map(str, at))] == pytest.approx(by_hand, rel=1e-5)
    best = load(out / "model").training["validation"]["step"]
    assert rmse["as trained"] == rmse[" / ".join([str(best)] * 3)]
    assert rmse.iloc[1:].nunique() == 8
    assert "/ 12 / 12" in said.out
    assert "modules.csv" in said.out

    # What does not go with a run that is done, or is not there.
    for words, why in {
        ("--run", out, "--steps", 12): "leave out --steps",
        ("--run", out, "--at", 3, 12): "no checkpoint of step 3, found those of steps 2, ",
        ("--run", tmp_path / "again"): "checkpoints of 0 steps",
        ("--run", out, "--at", 2): "two or three steps",
        ("--run", out, "--trials", 2): "no --minutes or --trials",
        ("--steps", 12, "--batch-size", 2, "--output", out, "--at", 3, 12): "is past step 3",
        ("--steps", 12, "--output", out, "--at", 2, 13): "the training has 12",
        ("--models", "gsta,vit", "--output", tmp_path / "new"): "of one network",
        ("--study", "translators", "--at", 2, 12): "are for --study modules",
        ("--run", out, "--preset", "paper"): "give the --benchmark, --data and --preset",
    }.items():
        code, said = ablate(*weather, *words)
        assert code == 2, words
        assert why in said.err, (words, said.err)

    # A bundle that is not the run's.
    other = load(out / "model")
    other.network.readout.bias.data += 1
    other.save(out / "model")
    code, said = ablate(*weather, "--run", out)
    assert code == 2
    assert "its weights differ" in said.err


@pytest.mark.usefixtures("without_matplotlib")
@pytest.mark.slow  # the comparison that it is has its own test
def test_translators_in_small(weather, ablate, tmp_path):
    out = tmp_path / "out"
    line = [*weather, *SMALL, "--steps", 1, "--output", out, "--study", "translators"]
    code, said = ablate(*line, "--models", "poolformer")
    assert code == 0, said.err
    ours = pd.read_csv(out / "compare.csv", index_col="model").loc["PoolFormer"]
    assert (ours[["parameters_m", "gflops", "seconds_per_step", "rmse"]] > 0).all()
    assert ours["steps"] == 1
    model = load(out / "poolformer" / "trial-1" / "model")
    assert model.network.settings["translator"] == "poolformer"

    code, said = ablate(*line, "--models", "convlstm")
    assert code == 2
    assert "ConvLSTM: another network" in said.err


def test_translators_by_name():
    everything = translators_of(["all"])
    assert len(everything) == 13
    assert everything["TAU"]["loss"] == "tau"
    with pytest.raises(InputError, match="no model gasta"):
        translators_of(["gasta"])


def test_the_default_is_table_viii(ablate, weather, monkeypatch):
    seen = []
    monkeypatch.setattr("stforecast.cli.compare.main", seen.append)
    code, _ = ablate(*weather, "--study", "translators", "--steps", 3)
    assert code == 0
    models = {"ViT", "Swin", "PoolFormer", "MLP-Mixer", "ConvMixer", "SimVP", "SimVPv2"}
    assert set(seen[0].models) == models
    assert (seen[0].steps, str(seen[0].output)) == (3, "runs/ablate")


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["taxibj", "moving_mnist"])
def test_other_benchmarks_in_small(benchmark, ablate, tmp_path):
    writer = {"taxibj": write_nyc_flow, "moving_mnist": write_mnist}[benchmark]
    data, out = writer(tmp_path / "data"), tmp_path / "out"
    line = ["--benchmark", benchmark, "--data", data, "--steps", 2, "--at", 1, 2]
    line += ["--batch-size", 1, "--stride", 20, "--sequences", 10, "--test-sequences", 40]
    code, said = ablate(*line, "--output", out)
    assert code == 0, said.err
    table = pd.read_csv(out / "modules.csv", index_col="parts")
    best = load(out / "model").training["validation"]["step"]
    whole = " / ".join([str(best)] * 3)
    pd.testing.assert_series_equal(table.loc["as trained"], table.loc[whole], check_names=False)
    pictures = {p.name for p in out.glob("*.png")}
    flows = {
        f"{name}_{v}.png" for name in ("modules", "modules_error") for v in ("inflow", "outflow")
    }
    assert pictures == ({"modules.png"} if benchmark == "moving_mnist" else flows)
