"""The benchmarks measure what they say: the plain reference is the authors' network."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_cases import CASES, load_case, relative
from helpers import SHARED

from stforecast.models import SimVPv2

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
GSTA = [name for name in CASES if name.startswith("gsta")]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.skipif(not GSTA, reason="no golden files in ../shared")
@pytest.mark.parametrize("name", GSTA)
def test_reference_is_the_authors_network(name, benchmarks):
    from model import REFERENCE_SETTINGS
    from reference import ReferenceSimVPv2

    case, ours, io = load_case(name)
    reference = ReferenceSimVPv2(**{k: ours.settings[k] for k in REFERENCE_SETTINGS})
    reference.load_state_dict(ours.state_dict())
    reference.eval()
    with torch.no_grad():
        assert relative(reference(torch.from_numpy(io["x"])).numpy(), io["out"]) < 1e-5
    if "like" not in name:  # the others cost as much and train the same layers
        return

    reference.double().train()
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-3)
    x, y = torch.from_numpy(io["x"]).double(), torch.from_numpy(io["y"]).double()
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = ((reference(x) - y) ** 2).mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    assert losses == pytest.approx(case["train_mode_float64"]["losses"], abs=1e-6)


@pytest.mark.parametrize("name", ["CLCRN", "DCRNN", "AGCRN"])
def test_plain_graph_networks_are_ours(name, benchmarks, monkeypatch):
    import graph

    monkeypatch.setattr(graph, "GRID", {"latitude": [-40, 0, 40], "longitude": range(0, 360, 30)})
    x = torch.randn(2, 12, 1, 3, 12, generator=torch.Generator().manual_seed(0))
    found = []
    for make in (graph.made, graph.plain):
        network = make(name, torch.device("cpu"))
        y = network(x)
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad for p in network.parameters())])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-4 * float(ours.abs().max()), rtol=0)


RECURRENT = SHARED / "golden" / "recurrent"
PLAIN = [
    path.stem
    for path in sorted(RECURRENT.glob("*.json"))
    if json.loads(path.read_text()).get("model")
    in ("ConvLSTM", "PredRNN", "PredRNNv2", "PhyDNet", "MAU")
]


@pytest.mark.skipif(not PLAIN, reason="no golden files in ../shared")
@pytest.mark.parametrize("name", PLAIN)
def test_recurrent_reference_is_the_authors_network(name, benchmarks):
    """Forecasts and the first training loss, with their weights by their names."""
    from reference_recurrent import NETWORKS
    from safetensors.torch import load_file

    case, io = (
        json.loads((RECURRENT / f"{name}.json").read_text()),
        np.load(RECURRENT / f"{name}.io.npz"),
    )
    sizes = case["hyper_parameters"] | case.get("sizes_that_are_constants_in_the_public_code", {})
    shape, steps = sizes.pop("in_shape"), case["aft_seq_length"]
    reference = NETWORKS[case["model"]](shape, steps, **sizes)
    kept = reference.load_state_dict(
        load_file(RECURRENT / f"{name}.weights.safetensors"), strict=False
    )
    assert not kept.missing_keys
    assert len(kept.unexpected_keys) == len(case["parameters_without_gradient"])
    x, y = (torch.from_numpy(io[k]).double() for k in "xy")
    with torch.no_grad():
        out = reference.double().eval()(x)[0][:, -steps:]
        assert np.abs(out.numpy() - io["out64"]).max() < 1e-9
        variants = case["train_mode_float64"]
        mask = torch.from_numpy(io["mask"]) if "mask" in io else torch.ones(len(y), steps - 1)
        frames, extra = reference.train()(x, y, mask)
        loss = ((frames - torch.cat([x, y], dim=1)[:, 1:]) ** 2).mean() + extra
    scale = 1 if "fixed_mask" in variants else frames.shape[1]  # PhyDNet's is a sum over frames
    expected = variants.get("fixed_mask", variants.get("teacher_forced"))["losses"][0]
    assert float(loss * scale) == pytest.approx(expected, abs=1e-9)


def test_training_takes_the_same_course(benchmarks):
    from _table import Table
    from model import same_training

    table = Table()
    same_training(table, torch.device("cpu"), 10)
    (_, _, fp32, _, _), (_, _, bf16, _, _) = table.rows
    assert fp32 == pytest.approx(1, abs=1e-4)
    assert bf16 == pytest.approx(1, abs=0.05)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("convlstm_s", "phydnet")]


@pytest.mark.parametrize("network", ["moving_mnist", *SLOW])
def test_a_dry_run_gives_every_figure(network, benchmarks, monkeypatch, capsys):
    """What is run on a GPU, here on one sample: SimVPv2 in small, the others as they are."""
    import model

    class Small(SimVPv2):
        @classmethod
        def for_benchmark(cls, name, **settings):
            return SimVPv2.for_benchmark(name, **model.SMALL, **settings)

    monkeypatch.setattr(model, "SimVPv2", Small)
    monkeypatch.setattr(model, "matrix_rate", lambda *a: 1e12)  # nothing comes near to it
    line = ["--only", network, "--what", "1", "train", "memory", "--batch", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["model.py", *line, "--device", "cpu", "--check"])
    with contextlib.suppress(SystemExit):  # of --check: how fast it is here does not matter
        model.main()
    said = capsys.readouterr().out
    for work in ("forecast, batch 1", "training step, batch 1", "peak memory of a training step"):
        for precision in ("fp32", "bf16"):
            assert re.search(rf"{network}: {work}, {precision} +[0-9.]+ +[<>]=", said), said


def test_forecasts_to_disk_are_measured_beside_the_network(benchmarks, monkeypatch, capsys):
    import predict

    make, few = predict.make_store, 30
    monkeypatch.setattr(predict, "make_store", lambda path, steps: make(path, few))
    monkeypatch.setattr(predict, "EVERY", 1)
    monkeypatch.setattr(sys, "argv", ["predict.py"])
    predict.main()
    said = capsys.readouterr().out
    assert re.search(rf"{few - 11} forecasts to disk / bare network +[0-9.]+ +>=", said), said
    assert re.search(r"wrong or missing in the store +0 +<= 0 ok", said), said


def test_check_exits_with_1_where_a_figure_falls_short(benchmarks, capsys):
    from _table import Table

    table = Table()
    table.add("fast", 2.0, 1.4)
    table.add("small", 0.6, 0.7, most=True)
    table.finish(check=True)
    table.add("no target", 0.1, None)
    table.add("slow", 1.3, 1.4)
    table.add("large", 0.8, 0.7, most=True)
    table.finish(check=False)
    with pytest.raises(SystemExit) as stop:
        table.finish(check=True)
    assert stop.value.code == 1
    assert table.short == ["slow", "large"]
    assert "SHORT" in capsys.readouterr().out


def test_a_directory_that_is_no_checkout_is_named(tmp_path):
    command = [sys.executable, BENCHMARKS / "model.py", "--peer", tmp_path, "--only", "taxibj"]
    done = subprocess.run([*command, "--what", "1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no working checkout of OpenSTL" in done.stderr


def test_recorded_skill_is_held_against_its_targets(tmp_path, benchmarks, monkeypatch, capsys):
    import skill

    record = tmp_path / "skill.json"

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["skill.py", "--record", str(record), *arguments])
        return skill.main()

    assert main("--check") == 1  # nothing is recorded: nothing is shown
    leads = [1.0] * 13
    good = {"bundle": [0.19 * x for x in leads], "floor": [0.26] * 13, "persistence": leads}
    record.write_text(json.dumps({"bundle/0": good}))
    assert main("--check") == 0
    assert "bundle / strong floor, worst lead" in capsys.readouterr().out
    record.write_text(json.dumps({"bundle/0": {**good, "floor": [0.25] * 13}}))
    with pytest.raises(SystemExit) as stop:  # 0.76 of the floor
        main("--check")
    assert stop.value.code == 1
    monkeypatch.setitem(skill.RUNS, "ours", lambda data, seed: {"seed": seed})
    monkeypatch.setattr(skill, "tabulate", lambda record: skill.Table())
    main("--only", "ours", "--seed", "3")
    kept = json.loads(record.read_text())
    assert kept["ours/3"]["seed"] == 3
    assert "commit" in kept["ours/3"]["machine"]


def test_the_ladder_of_skill_goes_from_the_papers_network_to_ours(benchmarks):
    import skill

    assert next(iter(skill.RUNGS)) == "paper"
    assert skill.OURS in skill.RUNGS
    sizes = []
    for name in ("paper", skill.OURS):
        task, network = skill.Task("2m_temperature", 12, 12, "1h"), dict(skill.SMALL)
        for rung, (more, settings, _) in skill.RUNGS.items():
            task, network = skill.replace(task, **more), network | settings
            if rung == name:
                break
        made = skill.SimVPv2.for_task(task, **network)
        sizes.append(sum(p.numel() for p in made.parameters()))
    assert abs(sizes[1] / sizes[0] - 1) < 0.05  # equal terms
