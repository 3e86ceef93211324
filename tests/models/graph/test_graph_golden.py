"""Public code of the graph models, reproduced: outputs, gradients, losses, kernels, geometry."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from stforecast.models.graph import Mesh, load_public, orientation_weights, teacher_probability
from stforecast.task import window_starts

GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden" / "graph"
CASES = sorted(p.name.removesuffix(".weights.safetensors") for p in GOLDEN.glob("*.safetensors"))
GEOMETRIES = sorted(p.stem for p in GOLDEN.glob("geometry_*.npz"))
PROTOCOLS = sorted(p.name for p in GOLDEN.glob("protocol*.json"))
CURRICULA = sorted(p.name for p in GOLDEN.glob("curriculum*.json"))
pytestmark = pytest.mark.skipif(not CASES, reason=f"no golden files at {GOLDEN}")


@cache
def data(name):
    """What is said of a case, and its arrays."""
    arrays = dict(np.load(GOLDEN / f"{name}.io.npz"))
    return json.loads((GOLDEN / f"{name}.json").read_text()), arrays


def holding(array):
    return [name for name in CASES if array in data(name)[1]]


def mesh_of(case, io):
    """The mesh as that code had it, its rounding and its faults included."""
    grid = case["grid"]
    nodes, k = grid["H"] * grid["W"], grid["k_neighbours"]
    if not io["geodesic_radians"].size:  # it has the symmetric graph's edges alone
        latitude, longitude = (np.unique(io["lonlat_degrees"][:, axis]) for axis in (1, 0))
        return Mesh.from_grid({"latitude": latitude, "longitude": longitude}, k)
    return Mesh(
        (grid["H"], grid["W"]),
        np.deg2rad(io["lonlat_degrees"].astype(float)),
        io["edge_index"][1].reshape(nodes, k).astype(np.int64),
        io["geodesic_radians"].reshape(nodes, k),
        io["local_coordinates"].reshape(nodes, k, 4)[..., 2:],
        io["angle_ratio"].reshape(nodes, k),
    )


def network_of(name):
    case, io = data(name)
    more = {}
    if case["kind"] == "orig_TGCN":  # which takes any length
        more["seq_len"] = io["x"].shape[1]
    network = load_public(
        GOLDEN / f"{name}.weights.safetensors",
        model=case["kind"],
        mesh=mesh_of(case, io),
        **case["hyper_parameters"] | more,
    )
    return case, io, network


def layout_of(case, array):
    """Letters of the axes; what has no axis of channels is (sample, node, step)."""
    letters = case["x_layout"].replace("F", "C")
    nodes = case["grid"]["H"] * case["grid"]["W"]
    same = array.ndim == len(letters) and array.shape[letters.index("N")] == nodes
    return letters if same else "BNT"


def to_fields(array, letters, shape):
    """Theirs -> (B, T, C, H, W)."""
    x = torch.as_tensor(array)
    if "C" not in letters:
        x, letters = x.unsqueeze(-1), letters + "C"
    return x.permute([letters.index(a) for a in "BTCN"]).unflatten(3, shape)


def from_fields(x, letters):
    """(B, T, C, H, W) -> theirs."""
    x = x.flatten(3)
    if "C" not in letters:
        return x.squeeze(2).permute(["BTN".index(a) for a in letters])
    return x.permute(["BTCN".index(a) for a in letters])


def run(name, dtype):
    """Output and gradient of the mean squared error, in their layout."""
    case, io, network = network_of(name)
    network.to(dtype)
    letters = layout_of(case, io["x"])
    x = to_fields(io["x"], letters, network.mesh.shape).to(dtype).requires_grad_()
    out = from_fields(network(x), layout_of(case, io["y"]))
    ((out - torch.from_numpy(io["y"]).to(dtype)) ** 2).mean().backward()
    return io, out.detach().numpy(), from_fields(x.grad, letters).numpy()


@pytest.mark.parametrize("name", CASES)
def test_golden_graph_outputs_and_gradients(name):
    io, out, gradient = run(name, torch.float64)
    assert np.abs(out - io["out64"]).max() < 1e-9
    assert np.abs(gradient - io["grad_x64"]).max() < 1e-9
    io, out, gradient = run(name, torch.float32)
    assert np.abs(out - io["out"]).max() < 5e-5
    assert np.abs(gradient - io["grad_x"]).max() < 5e-5


@pytest.mark.parametrize("name", CASES)
def test_golden_graph_training_losses(name):
    case, io, network = network_of(name)
    network.double().train()
    trained = [p for p in network.parameters() if p.requires_grad]
    norms = case["train_mode_float64"]["param_grad_norms_step1"]  # of those that are used at all
    used = sum(int(np.prod(case["tensor_shapes"][k])) for k in norms)
    assert sum(p.numel() for p in trained) == used <= case["params_trainable"]
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(trained, lr=1e-3)
    x = to_fields(io["x"], layout_of(case, io["x"]), network.mesh.shape).double()
    y = to_fields(io["y"], layout_of(case, io["y"]), network.mesh.shape).double()
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = ((network(x) - y) ** 2).mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    assert np.abs(np.array(losses) - case["train_mode_float64"]["losses"]).max() < 1e-9


@pytest.mark.parametrize("name", holding("out64_all_teacher_forced"))
def test_golden_graph_teacher_forced(name):
    case, io, network = network_of(name)
    network.double()
    network.curriculum_decay = 1e300  # the truth always
    letters = layout_of(case, io["x"])
    x, y = (to_fields(io[n], letters, network.mesh.shape).double() for n in "xy")
    out, extra = network.teach(x, y, 0, torch.Generator().manual_seed(0))
    assert extra == 0
    difference = from_fields(out, letters).detach().numpy() - io["out64_all_teacher_forced"]
    assert np.abs(difference).max() < 1e-9


@pytest.mark.parametrize("name", holding("kernel64"))
def test_golden_graph_kernels(name):
    _, io, network = network_of(name)
    kernel = network.double().kernel(torch.zeros(0, dtype=torch.float64)).detach().numpy()
    assert np.abs(kernel.ravel() - io["kernel64"].ravel()).max() < 1e-9


@pytest.mark.parametrize("name", holding("adjacency"))
def test_golden_graph_adjacency(name):
    case, io = data(name)
    mesh = mesh_of(case, io)
    kind = {"binary": "neighbours", "binary_sym": "symmetric"}.get(
        case["adjacency"], case["adjacency"]
    )
    centre, neighbour, weight = mesh.adjacency(kind, itself=bool(io["adjacency"][0, 0]))
    dense = np.zeros_like(io["adjacency"])
    dense[centre, neighbour] = weight
    np.testing.assert_allclose(dense, io["adjacency"], atol=1e-12)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_golden_graph_geometry(name):
    case, z = json.loads((GOLDEN / f"{name}.json").read_text()), np.load(GOLDEN / f"{name}.npz")
    H, W, k = case["H"], case["W"], case["k_neighbours"]
    position = z["lonlat_degrees"]
    grid = {"latitude": position[::W, 1], "longitude": position[:W, 0]}
    nodes = np.arange(0, H * W, H * W // len(z["neighbours"]))
    mesh = Mesh.from_grid(grid, k)
    np.testing.assert_allclose(mesh.distance[nodes], z["own_distance"], atol=1e-9)
    if not case["nodes_with_a_tie_across_the_kth_place"]:
        assert (np.sort(mesh.neighbours[nodes], 1) == np.sort(z["neighbours"], 1)).all()
        degrees = mesh.in_degrees.reshape(H, W).mean(1)
        np.testing.assert_allclose(degrees, case["in_degree_by_row"], atol=5.1e-4)
    # With their neighbours, in their order:
    listed = np.tile(np.arange(k), (H * W, 1))
    listed[nodes] = z["neighbours"]
    theirs = Mesh((H, W), np.deg2rad(position), listed, *[np.zeros(0)] * 3)
    for kind in ("fast", "log", "horizon"):
        own = z["local_fast"][..., 2:] if kind == "fast" else z[f"own_local_{kind}"]
        np.testing.assert_allclose(theirs.local_coordinates(kind)[nodes], own, atol=1e-9)
        coded = z[f"local_{kind}"][..., 2:]
        weights = orientation_weights(coded)
        # Due west counts as two directions there where rounding gives it both signs: left out.
        angle = np.arctan2(coded[..., 1], coded[..., 0])
        clear = ~((angle.min(1) < 1e-9 - np.pi) & (angle.max(1) > np.pi - 1e-9))
        expected = z[f"angle_ratio_wrapped_{kind}"][clear]
        np.testing.assert_allclose(weights[clear], expected, atol=1e-9)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
        as_coded = orientation_weights(coded, coded=True)
        np.testing.assert_allclose(as_coded, z[f"angle_ratio_{kind}"], atol=1e-9)


@pytest.mark.parametrize("name", CURRICULA)
def test_golden_graph_curriculum(name):
    case = json.loads((GOLDEN / name).read_text())
    for decay, table in ((case["k"], case["p"]), (1000, case["p_k1000"])):
        for batch, p in table.items():
            assert abs(teacher_probability(int(batch), decay) - p) < 1e-12


@pytest.mark.parametrize("name", PROTOCOLS)
def test_golden_graph_protocol(name):
    """Its split by dates, and one window a day, are its windows: a stride of 24 hours."""
    case = json.loads((GOLDEN / name).read_text())
    step, length = np.timedelta64(1, "h"), case["input_steps"] + case["target_steps"]
    for split in ("train", "validation", "test"):
        first, last = (np.datetime64(case[split][end]) for end in ("first_input", "last_target"))
        time = np.arange(first, last + step)
        starts = window_starts(time, step, length, stride=case["step_between_windows"])
        assert len(starts) == case[split]["count"]
        hours = time[starts[:, None] + np.arange(length)].astype(int) % 24
        assert (hours == [*case["input_hours_utc"], *case["target_hours_utc"]]).all()
