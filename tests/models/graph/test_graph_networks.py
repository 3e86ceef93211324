"""The graph networks in their right forms, in what holds whatever their weights are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stforecast
from stforecast.errors import InputError
from stforecast.models import registry, summary
from stforecast.models.graph import ConditionalKernel, GraphNetwork, Mesh
from stforecast.task import Task
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit

TASK = Task("t2m", input_steps=6, target_steps=3)
GLOBE = {"latitude": np.linspace(-75, 75, 6), "longitude": np.arange(8) * 45.0}
NAMES = [n for n in registry.names() if issubclass(registry.network_class(n), GraphNetwork)]
#: Those whose weights belong to nodes, or that are told longitudes.
KNOW_COLUMNS = ("AGCRN", "ASTGCN", "CLCRN", "CLCSTN", "STGCN")


def made(name, task=TASK, grid=GLOBE, **settings):
    torch.manual_seed(0)
    network = registry.make_network(name, task, grid, {"neighbours": 9, **settings})
    return network.double().eval()


@pytest.mark.parametrize("name", NAMES)
def test_operations_are_counted(name):
    """On torch's meta device, which has no autocast."""
    assert summary(made(name), (1, 6, 1, 6, 8)).flops > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_know_its_batch(name):
    network = made(name)
    x = torch.randn(3, 6, 1, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[:1], network(x[:1]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in KNOW_COLUMNS])
def test_turning_the_globe_turns_the_forecast(name):
    network = made(name)
    x = torch.randn(2, 6, 1, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        y = network(x)
        for columns in (1, 3, 7):
            turned = network(x.roll(columns, -1))
            torch.testing.assert_close(turned, y.roll(columns, -1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_further_channels_are_seen_and_not_forecast(name):
    task = Task(["t2m", "sun"], targets="t2m", input_steps=6, target_steps=3)
    network = made(name, task)
    network.check_task(task)
    x = torch.randn(1, 6, 2, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        y = network(x)
        x[:, 1, 1] += 1
        assert y.shape == (1, 3, 1, 6, 8)
        assert (network(x) - y).abs().max() > 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_another_grid_is_refused(name):
    network = made(name)
    network.check_grid({**GLOBE, "longitude": GLOBE["longitude"].tolist()})
    said = "those nodes: train" if network.tied_to_nodes else "for_task"
    for other in (
        {**GLOBE, "latitude": GLOBE["latitude"] * 0.9},
        {**GLOBE, "longitude": np.arange(9) * 40.0},
    ):
        with pytest.raises(InputError, match=said):
            network.check_grid(other)
    with pytest.raises(InputError, match="6 x 8 grid"):
        network(torch.zeros(1, 6, 1, 6, 9, dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_a_grid_without_places_and_settings_that_are_none_are_refused(name):
    with pytest.raises(InputError, match="latitudes and longitudes"):
        made(name, grid={"y": 6, "x": 8})
    with pytest.raises(InputError, match="protocol must be 'clcrn'"):
        made(name, protocol="paper")
    with pytest.raises(InputError, match="hidden"):
        made(name, hidden=0)


@pytest.mark.parametrize(
    ("name", "settings", "parameters"),
    [
        ("CLCRN", {"protocol": "clcrn"}, 22_742 + 16_384),  # those of the nodes are not trained
        ("CLCRN", {}, 39_268),
        ("CLCSTN", {"protocol": "clcrn"}, 78_881 + 16_384),
        ("GCGRU", {"protocol": "clcrn"}, 9_729),
        ("GCGRU", {"protocol": "clcrn", "hidden": 64}, 37_889),
        ("GCGRU", {}, 28_353),
        ("DCRNN", {"protocol": "clcrn"}, 18_849),
        ("DCRNN", {"protocol": "clcrn", "hidden": 64}, 74_561),
        ("DCRNN", {"protocol": "clcrn", "order": 3}, 56_097),
    ],
)
def test_numbers_of_parameters(name, settings, parameters):
    grid = {"latitude": np.linspace(-87, 87, 32), "longitude": np.arange(64) * 5.625}
    shapes = registry.outline(name, Task("t2m"), grid, {"neighbours": 3, **settings})
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert sum(s.numel() for n, s in shapes.items() if not n.endswith(buffers)) == parameters


def test_no_seed_shuts_all_edges_of_a_kernel():
    mesh = Mesh.from_grid(GLOBE, 9)
    for seed in range(100):
        torch.manual_seed(seed)
        with torch.no_grad():
            kernel = ConditionalKernel(mesh)(torch.zeros(0))
        assert (kernel > 0).float().mean() > 0.1, seed


def test_fit_by_name_on_the_sample():
    """From the public door to a forecast with the labels of the data."""
    ds = stforecast.open_sample().isel(time=slice(0, 8))
    task = Task("t2m", input_steps=2, target_steps=2)
    config = TrainConfig(steps=1, batch_size=1, val_windows=1, device="cpu", precision="fp32")
    forecaster = fit(ds, task, model="clcrn", config=config)
    assert registry.name_of(forecaster.network) == "CLCRN"
    forecast = forecaster.predict(ds.isel(time=slice(-2, None)))
    assert forecast["2m_temperature"].shape == (1, 2, 32, 64)
    assert abs(float(forecast["2m_temperature"].mean()) - float(ds["2m_temperature"].mean())) < 5


@pytest.mark.parametrize("name", NAMES)
def test_as_it_was_printed_by_name(name):
    network = made(name, protocol="clcrn")
    for setting, value in network.printed.items():
        if value is not None:  # which stands for what follows from the task
            found = network.settings[setting]
            assert found == (list(value) if isinstance(value, tuple) else value)


def test_forecasts_fed_back_carry_what_is_known():
    """The k-th own frame has the further channels of input frame k mod T."""
    task = Task(["t2m", "sun"], targets="t2m", input_steps=6, target_steps=9)
    network = made("GCGRU", task)
    x = torch.randn(1, 6, 2, 6, 8, dtype=torch.float64)
    seen = []
    cell = network.encoder[0]
    cell.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(x)
    fed = seen[6:]
    assert (fed[0] == 0).all()
    for k, frame in enumerate(fed[1:]):
        torch.testing.assert_close(frame[:, 0, 1], x[0, k % 6, 1].flatten())


def test_the_curriculum_draws_from_the_generator_and_feeds_no_nan():
    network = made("GCGRU", curriculum_decay=50.0)
    x, y = torch.randn(2, 1, 6, 1, 6, 8, dtype=torch.float64)
    y = y[:, :3].clone()
    y[0, 0, 0, 0, 0] = torch.nan

    def taught(step, seed):
        with torch.no_grad():
            return network.teach(x, y, step, torch.Generator().manual_seed(seed))[0]

    free = network(x).detach()
    assert taught(0, 1).isfinite().all()
    assert not torch.equal(taught(0, 1), free)
    assert torch.equal(taught(5000, 1), free)
    half = int(50 * np.log(50))  # where the truth is as likely as not
    assert torch.equal(taught(half, 1), taught(half, 1))
    assert len({float(taught(half, seed).sum()) for seed in range(8)}) > 1


@pytest.mark.parametrize("grid", [GLOBE, {"latitude": [40.0, 50.0], "longitude": [0.0, 9.0, 18.0]}])
def test_a_hotspot_reaches_those_that_list_it(grid):
    """One sum: the first term of a one-hop network spreads a hotspot to its true neighbours."""
    mesh = Mesh.from_grid(grid, 4)
    network = registry.make_network(
        "GCGRU", Task("t2m", input_steps=1, target_steps=1), grid, {"neighbours": 4, "order": 2}
    )
    x = torch.zeros(1, 1, 1, *mesh.shape)
    node = mesh.nodes - 1  # in the last row, at the last column
    with torch.no_grad():
        spread = network.fixed(x)
        hot = torch.zeros(mesh.nodes, 1)
        hot[node] = 1
        reached = spread(hot).flatten().nonzero().flatten().tolist()
    assert reached == sorted(set(mesh.neighbours[node].tolist()) - {node})
