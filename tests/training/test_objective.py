"""What training makes small: losses, weights, networks that are taught, optimisers; to the bit."""

from __future__ import annotations

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import Linear, golden, tiny

from stforecast.errors import InputError
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit
from stforecast.training.losses import LOSSES, crps, loss_weights, tau
from stforecast.training.objective import Objective, compiled
from stforecast.training.optimizers import Optimizer

TASK = Task("t2m", input_steps=4, target_steps=3)
CONFIG = TrainConfig(steps=6, batch_size=4, validate_every=2, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def weather():
    return make_weather(40, shape=(6, 10))


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_losses_are_torchs(name):
    theirs = {"mse": "MSELoss", "mae": "L1Loss", "huber": "HuberLoss"}
    x, y = torch.randn(2, 3, 4, 2, 5, 6, generator=torch.Generator().manual_seed(0)).unbind()
    found = LOSSES[name](3 * x, y)
    assert found.shape == y.shape
    torch.testing.assert_close(found.mean(), getattr(torch.nn, theirs[name])()(3 * x, y))
    members = LOSSES[name](torch.stack([x, y]), y)
    assert members.shape == (2, *y.shape)
    assert not members[1].any()


def test_the_fair_crps():
    """Of two members by hand, of many by its definition, and without bias for few."""
    x, y = torch.tensor([[1.0], [4.0]]), torch.tensor([2.0])
    assert crps(x, y).tolist() == [(1 + 2) / 2 - 3 / 2]
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5, 2, 3, 1, 2, 2, generator=rng, dtype=torch.float64)
    y = torch.randn(2, 3, 1, 2, 2, generator=rng, dtype=torch.float64)
    pairs = (x[:, None] - x[None]).abs().sum((0, 1)) / (2 * 5 * 4)
    torch.testing.assert_close(crps(x, y), (x - y).abs().mean(0) - pairs)
    # Members from the standard normal distribution: Gneiting and Raftery (2007), equation 5.
    z = 0.7
    density = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    exact = z * math.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
    found = crps(torch.randn(3, 400_000, generator=rng), torch.full((400_000,), z)).mean()
    assert float(found) == pytest.approx(exact, abs=3e-3)
    with pytest.raises(InputError, match="at least two members"):
        crps(x[:1], y)


def test_the_loss_of_tau():
    """Its mean is the publication's: MSE + 0.1 KL of softmaxed changes; of two steps MSE alone."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 3, 4, 2, 5, 6, generator=rng, dtype=torch.float64).unbind()
    p, q = (torch.softmax((z[:, 1:] - z[:, :-1]).flatten(2) / 0.1, -1) for z in (x, y))
    expected = (x - y).square().mean() + 0.1 * (p * (p / q).log()).mean()
    found = tau(x, y)
    assert found.shape == y.shape
    assert found.mean().item() == pytest.approx(expected.item(), rel=1e-12)
    assert not tau(torch.stack([x, y]), y)[1].any()
    torch.testing.assert_close(tau(x[:, :2], y[:, :2]), (x[:, :2] - y[:, :2]).square())
    assert LOSSES["tau"] is tau


def test_weights_of_variables(weather):
    ds = weather.assign(z=weather["2m_temperature"].assign_attrs(units="m2 s-2"))
    task = Task(["t2m", "z"], 4, 3)
    for given in ({"t2m": 3.0}, [3.0, 1.0]):
        config = TrainConfig(variable_weights=given)
        weights = loss_weights(config, task, ds, torch.ones(3, 2))
        assert weights.flatten().tolist() == [1.5, 0.5]
    for given, words in (
        ({"u10": 1.0}, "names 10m_u_component_of_wind, which the task does not forecast"),
        ([1.0], "has 1 weights, the task forecasts 2"),
    ):
        with pytest.raises(InputError, match=words):
            loss_weights(TrainConfig(variable_weights=given), task, ds, torch.ones(3, 2))


class Twice(torch.nn.Module):
    """Two members: what it is given, and one more."""

    def forward(self, x):
        return torch.stack([x, x + 1])


def test_members_and_missing_targets():
    """What a loss leaves of the members is averaged; where the target is NaN nothing is added."""
    x, y = torch.zeros(2, 1, 1, 1, 3, requires_grad=True), torch.ones(2, 1, 1, 1, 3)
    assert Objective(Twice())(x, y, 0)[0].item() == 6 / 2
    y[0, ..., 0] = torch.nan
    total, points = Objective(Twice(), "crps", masked=True)(x, y, 0)
    assert points == 5
    assert total.item() == 5 * (1 / 2 - 1 / 2)
    total.backward()
    assert x.grad.isfinite().all()
    assert x.grad[0, ..., 0] == 0


def test_what_has_another_shape_is_refused():
    x, y = torch.zeros(2, 4, 1, 6, 10), torch.zeros(2, 3, 1, 6, 10)
    with pytest.raises(InputError, match=r"gives \(2, 4, 1, 6, 10\).*the targets are \(2, 3"):
        Objective(torch.nn.Identity())(x, y, 0)
    with pytest.raises(InputError, match="must give the loss at each point"):
        Objective(Linear(), torch.nn.MSELoss())(x, y, 0)


# --- to the bit -----------------------------------------------------------------------------------


class Taught(Linear):
    """Takes the truth for its last input, now and then; and wants small weights."""

    def teach(self, x, y, step, generator):
        truth = torch.rand(len(x), 1, 1, 1, 1, generator=generator) < 1 / (1 + step)
        x = torch.where(truth, torch.cat([x[:, 1:], y[:, :1]], 1), x)
        return self(x), self.mix.weight.square().mean()


def quartic(prediction, target):
    return (prediction - target) ** 4


CASES = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "loss": "mae"},
    "muon": {"optimizer": "muon", "weight_decay": 0.1, "loss": "huber", "ema": 0.9},
    "a function": {"loss": quartic, "variable_weights": {"t2m": 2.0}, "weight_decay": 0.01},
    "taught": {"accumulate": 2},
}


def stop_at(step):
    def progress(event):
        if event["step"] == step:
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.mark.parametrize("case", CASES)
def test_stopped_and_resumed_gives_the_same_weights(weather, tmp_path, case):
    options = {"model": Taught if case == "taught" else lambda: tiny(drop_path=0.3)}
    options["config"] = replace(CONFIG, **CASES[case])
    whole = fit(weather, TASK, **options)
    with pytest.raises(KeyboardInterrupt):
        fit(weather, TASK, run_dir=tmp_path, progress=stop_at(2), **options)
    again = fit(weather, TASK, run_dir=tmp_path, **options)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
    plain = {"model": Linear if case == "taught" else options["model"], "config": CONFIG}
    other = fit(weather, TASK, **plain).network.state_dict()
    assert not all(torch.equal(v, other[k]) for k, v in whole.network.state_dict().items())


def test_a_function_is_known_by_its_name(weather, tmp_path):
    config = replace(CONFIG, loss=quartic, steps=1)
    forecaster = fit(weather, TASK, model=Linear, config=config, run_dir=tmp_path / "run")
    assert forecaster.training["config"]["loss"] == f"{__name__}.quartic"
    forecaster.save(tmp_path / "model")
    with pytest.raises(InputError, match=r"other settings \(config differ\)"):
        fit(
            weather,
            TASK,
            model=Linear,
            config=replace(config, loss="mse"),
            run_dir=tmp_path / "run",
        )


def test_what_is_taught_is_drawn_for_seed_step_and_rank():
    x, y = torch.zeros(2, 4, 1, 6, 10), torch.zeros(2, 3, 1, 6, 10)
    drawn = []

    class Draws(Linear):
        def teach(self, x, y, step, generator):
            drawn.append(torch.rand(3, generator=generator).tolist())
            return self(x), torch.tensor(0.5)

    for seed, rank, steps in ((0, 0, (5, 6, 6)), (0, 0, (6, 6)), (1, 0, (6,)), (0, 1, (6,))):
        objective = Objective(Draws(), seed=seed, rank=rank)
        for step in steps:
            total, points = objective(x, y, step)
    five, six, more, six_again, more_again, seed, rank = drawn
    assert (six, more) == (six_again, more_again)  # of two passes; without the step before
    assert len({tuple(d) for d in (five, six, more, seed, rank)}) == 5
    with torch.no_grad():
        bare = ((objective.network(x) - y) ** 2).sum()
    assert total.item() == pytest.approx(float(bare) + 0.5 * points)


def test_losses_of_training_are_what_they_were(weather):
    """Of a tiny run, on any machine."""
    seen = []
    config = replace(CONFIG, validate_every=1)
    fit(weather, TASK, model=tiny, config=config, progress=seen.append)
    golden("training_losses", {f"step {e['step']}": e["loss"] for e in seen}, 1e-5)


# --- optimisers -----------------------------------------------------------------------------------


def test_muon_turns_matrices_and_adam_the_rest():
    """1 x 1 convolutions are matrices: their step has singular values near one scale."""
    network = torch.nn.Sequential(torch.nn.Conv2d(6, 10, 1), torch.nn.Conv2d(10, 4, 3)).to(
        memory_format=torch.channels_last
    )
    before = [p.detach().clone() for p in network.parameters()]
    optimizer = Optimizer(network, TrainConfig(optimizer="muon"))
    network(
        torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    ).square().sum().backward()
    optimizer.step(1e-2, 0.9)
    step = [(p.detach() - b) / 1e-2 for p, b in zip(network.parameters(), before, strict=True)]
    singular = torch.linalg.svdvals(step[0].flatten(1)) / (0.2 * math.sqrt(10))
    assert singular.min() > 0.5
    assert singular.max() < 1.5
    for other in step[1:]:  # Adam's first step is one learning rate, either way
        assert other.abs().max() == pytest.approx(1, rel=1e-3)
    assert all(p.grad is None for p in network.parameters())
    assert [len(part.param_groups[0]["params"]) for part in optimizer.parts] == [1, 3]


def test_muon_is_refused_where_it_cannot_be(monkeypatch):
    config = TrainConfig(optimizer="muon")
    with pytest.raises(InputError, match="a network with matrices"):
        Optimizer(torch.nn.Conv2d(1, 4, 3), config)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match=r"needs torch 2\.9 or later, found"):
        Optimizer(torch.nn.Linear(3, 3), config)


def test_weight_decay_is_coupled_in_adam_alone():
    """Without a gradient of the loss only decoupled decay shrinks weights in proportion."""
    for name, expected in (("adam", 1 - 1e-2), ("adamw", 1 - 1e-2 * 0.1), ("muon", 1 - 1e-2 * 0.1)):
        layer = torch.nn.Linear(2, 2, bias=False)
        torch.nn.init.ones_(layer.weight)
        optimizer = Optimizer(layer, TrainConfig(optimizer=name, weight_decay=0.1))
        layer.weight.grad = torch.zeros(2, 2)
        optimizer.step(1e-2, 0.9)
        np.testing.assert_allclose(layer.weight.detach(), expected, rtol=1e-5)


# --- compiled -------------------------------------------------------------------------------------


def test_compiled_once_for_all_steps(monkeypatch):
    graphs, original = [], torch.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda m, mode, dynamic: original(m, backend=backend))
    x, y = torch.ones(2, 4, 1, 6, 10), torch.ones(2, 3, 1, 6, 10)
    objective = Objective(Linear())
    call = compiled(objective, TrainConfig(compile="graphs"), 5, torch.device("cpu"))
    found = [call(x, y, step)[0].item() for step in range(4)]
    assert len(graphs) == 1
    assert found == pytest.approx(4 * [objective(x, y, 0)[0].item()])


def test_a_machine_that_cannot_compile(monkeypatch, caplog):
    def fails(*inputs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda module, **options: fails)
    x, y, gpu = torch.ones(2, 4, 1, 6, 10), torch.ones(2, 3, 1, 6, 10), torch.device("cuda")
    objective = Objective(Linear())
    call = compiled(objective, TrainConfig(), 2000, gpu)
    assert torch.equal(call(x, y, 0)[0], objective(x, y, 0)[0])
    assert "not compiled: RuntimeError: no compiler" in caplog.text
    with pytest.raises(RuntimeError, match="no compiler"):
        compiled(objective, TrainConfig(compile="always"), 1, gpu)(x, y, 0)
    for config, steps, device in (
        (TrainConfig(compile="never"), 2000, gpu),
        (TrainConfig(), 1999, gpu),
        (TrainConfig(), 2000, torch.device("cpu")),
    ):
        assert compiled(objective, config, steps, device) is None
    assert compiled(Objective(Taught()), TrainConfig(compile="graphs"), 1, gpu) is None
