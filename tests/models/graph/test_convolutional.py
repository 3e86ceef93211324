"""TGCN, STGCN, MSTGCN, ASTGCN and AGCRN: closed forms, what reaches what, what is told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stforecast.errors import InputError
from stforecast.models.graph import Mesh, astgcn, convolution
from stforecast.models.registry import make_network, outline
from stforecast.task import Task

GLOBE = {"latitude": np.linspace(-75, 75, 6), "longitude": np.arange(8) * 45.0}
REGION = {"latitude": np.linspace(40, 50, 6), "longitude": np.linspace(0, 14, 8)}
TASK = Task("t2m", input_steps=6, target_steps=4)
NAMES = ("TGCN", "STGCN", "MSTGCN", "ASTGCN", "AGCRN")
SMALL = {"hidden": 4, "neighbours": 5}


def network_of(name, task=TASK, grid=GLOBE, **settings):
    torch.manual_seed(0)
    return make_network(name, task, grid, SMALL | settings).double().eval()


def frames(task=TASK, batch=2, seed=1):
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, task.input_steps, task.channels_in, 6, 8)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def dense(matrix, n):
    out = np.zeros((n, n))
    np.add.at(out, matrix[:2], matrix[2])
    return out


def to_nodes(x):
    """(B, T, C, H, W) -> (B, N, T, C)."""
    return x.flatten(3).permute(0, 3, 1, 2)


def cheb_terms(L, order):
    T = [torch.eye(len(L), dtype=L.dtype), L]
    while len(T) < order:
        T.append(2 * L @ T[-1] - T[-2])
    return T[:order]


# --- what holds of all ----------------------------------------------------------------------------


@pytest.mark.parametrize("task", [TASK, Task(("t2m", "z500"), 6, 3, targets="t2m")], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_its_batch(name, task):
    network, x = network_of(name, task), frames(task, batch=3)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(sample) for sample in x.split(1)])
    assert together.shape == (3, task.target_steps, 1, 6, 8)
    assert (together - alone).abs().max() < 1e-10
    assert together.std() > 1e-3


@pytest.mark.parametrize("name", ["TGCN", "MSTGCN"])
def test_a_turned_globe_gives_the_turned_forecast(name):
    network, x = network_of(name), frames()
    with torch.no_grad():
        there = network(x.roll(3, -1))
        assert (there - network(x).roll(3, -1)).abs().max() < 1e-10
    network = network_of(name, grid=REGION)  # which has two ends
    with torch.no_grad():
        assert (network(x.roll(3, -1)) - network(x).roll(3, -1)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["STGCN", "ASTGCN", "AGCRN"])
def test_weights_of_nodes_fit_their_grid_only(name):
    network = network_of(name)
    with pytest.raises(InputError, match=r"6 x 8 grid.*its weights belong to those nodes"):
        network(torch.zeros(1, 6, 1, 5, 8, dtype=torch.float64))


@pytest.mark.parametrize("name", ["TGCN", "MSTGCN"])
@pytest.mark.parametrize("grid", [GLOBE, REGION], ids=["globe", "region"])
def test_a_hotspot_reaches_its_neighbours(name, grid):
    """One hop, across the pole and the date line on a globe, and round no edge of a region."""
    settings = {"layers": 1} if name == "TGCN" else {"blocks": 1, "order": 2}
    task = Task("t2m", 1, 1)
    network = network_of(name, task, grid, **settings)
    listed = network.mesh.neighbours
    with torch.no_grad():
        for node in (0, 20, 47, 8 * 5):  # corners, among them those at pole and date line
            x = torch.zeros(1, 1, 1, 6, 8, dtype=torch.float64)
            spot = x.clone()
            spot.view(-1)[node] = 3.0
            reached = ((network(spot) - network(x)).abs() > 1e-9).flatten().numpy()
            expected = np.zeros(48, bool)  # those that it lists (who lists, is summed for its sake)
            expected[listed[node]] = True
            if name == "MSTGCN":  # and the others way round
                expected |= (listed == node).any(1)
            np.testing.assert_array_equal(reached, expected)
    across = listed[40] // 8 == 5
    assert (across & (listed[40] % 8 == 7)).any() == (grid is GLOBE)  # column 0 to column 7


@pytest.mark.parametrize("name", NAMES)
def test_training_reaches_every_weight(name):
    network, x = network_of(name).train(), frames()
    y = frames(Task("t2m", 4, 1), seed=2)
    teach = getattr(network, "teach", None)
    out = network(x) if teach is None else teach(x, y, 0, torch.Generator().manual_seed(0))[0]
    (out - y).square().mean().backward()
    for weight_name, weight in network.named_parameters():
        assert weight.grad is not None, weight_name
        assert weight.grad.abs().max() > 0, weight_name


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_trains(name):
    network = network_of(name).float().train()
    x = frames().float()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x)
    out.float().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    with torch.no_grad():
        network.eval()
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert (network(x) - exact).abs().mean() < 0.1 * exact.std() + 0.01


@pytest.mark.parametrize(
    ("name", "settings", "parameters"),
    [
        ("TGCN", {"hidden": 32}, 15_873),
        ("TGCN", {"hidden": 128}, 247_809),
        ("AGCRN", {}, 91_681),
        ("STGCN", {}, 50_980),
        ("STGCN", {"hidden": 64}, 23_460),
        ("MSTGCN", {}, 76_684),
        ("MSTGCN", {"order": 3}, 101_388),
        ("ASTGCN", {}, 8_407_302),
    ],
)
def test_the_printed_rows_have_their_numbers_of_parameters(name, settings, parameters):
    grid = {"latitude": np.linspace(-87, 87, 32), "longitude": np.arange(64) * 5.625}
    shapes = outline(name, Task("t2m"), grid, {"protocol": "clcrn", **settings})
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert sum(s.numel() for n, s in shapes.items() if not n.endswith(buffers)) == parameters


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("TGCN", {"form": "clcrn"}, "form must be None or 'authors'"),
        ("STGCN", {"form": "authors"}, "form must be None or 'clcrn'"),
        ("STGCN", {"time_kernel": 4}, "need at least 13 input steps, found 6: take fewer blocks"),
        ("STGCN", {"dropout": 2.0}, "dropout must be a number"),
        ("MSTGCN", {"form": "theirs"}, "form must be None, 'clcrn' or 'authors'"),
        ("ASTGCN", {"stride": 0}, "stride must be a whole number from 1"),
        ("AGCRN", {"embedding": 0}, "embedding must be a whole number from 1"),
        ("AGCRN", {"protocol": "openstl"}, "protocol must be 'clcrn' or left out"),
    ],
)
def test_settings_that_make_none_are_refused(name, settings, said):
    with pytest.raises(InputError, match=said):
        network_of(name, **settings)


# --- each by its equations ------------------------------------------------------------------------


def test_tgcn_by_its_equations():
    network, x = network_of("TGCN", Task("t2m", 2, 1), layers=1), frames(Task("t2m", 2, 1))
    cell, mesh = network.encoder[0], network.mesh
    A = torch.zeros(48, 48, dtype=torch.float64)
    A[mesh.edges] = 1.0
    D = A.sum(0)
    P = (A / (D[:, None] * D).sqrt()).T
    W, b = cell.spread.weight.chunk(3), cell.spread.bias.chunk(3)
    h = torch.zeros(2, 48, 4, dtype=torch.float64)
    for frame in (*to_nodes(x).unbind(2), torch.zeros(2, 48, 1, dtype=torch.float64)):

        def gate(i, layer, h, frame=frame):
            return layer(torch.cat([P @ frame @ W[i].T + b[i], h], -1))

        z, r = torch.sigmoid(gate(0, cell.update, h)), torch.sigmoid(gate(1, cell.reset, h))
        h = z * h + (1 - z) * torch.tanh(gate(2, cell.candidate, r * h))
    expected = network.readout(h).reshape(2, 1, 1, 6, 8)
    assert (network(x) - expected).abs().max() < 1e-12


def test_agcrn_by_its_equations():
    task = Task("t2m", 2, 3)
    network, x = network_of("AGCRN", task, layers=1, embedding=3, order=3), frames(task)
    cell, E = network.encoder[0], network.embeddings[0]
    T = torch.stack(cheb_terms(F.relu(E @ E.T).softmax(1), 3))

    def product(v, name):
        W, b = getattr(cell, f"{name}_weight"), getattr(cell, f"{name}_bias")
        return torch.einsum("knm,bmi,nd,dkio->bno", T, v, E, W) + E @ b

    h = torch.zeros(2, 48, 4, dtype=torch.float64)
    for frame in to_nodes(x).unbind(2):
        z, r = torch.sigmoid(product(torch.cat([frame, h], -1), "gates")).chunk(2, -1)
        c = torch.tanh(product(torch.cat([frame, z * h], -1), "candidate"))
        h = r * h + (1 - r) * c
    expected = network.readout(h).permute(0, 2, 1).reshape(2, 3, 1, 6, 8)
    assert (network(x) - expected).abs().max() < 1e-12
    assert network.teach is None  # nothing is fed back


def test_agcrn_forecasts_what_is_no_input():
    task = Task(("z500", "u10"), 2, 3, targets=("t2m",))
    network = network_of("AGCRN", task)
    network.check_task(task)
    assert network(frames(task)).shape == (2, 3, 1, 6, 8)
    with pytest.raises(InputError, match="takes its first inputs for what it forecasts"):
        network_of("TGCN", task).check_task(task)


def by_blocks(network, x, graph):
    """MSTGCN and ASTGCN, given the graph convolution of block i of (B, N, T, C)."""
    z = to_nodes(x)
    for i, block in enumerate(network.blocks):
        features = F.relu(graph(i, z)).permute(0, 3, 1, 2)  # (B, F, N, T)
        time = block.time.weight.unflatten(1, (-1, 3))[:, :, None]
        over_time = F.conv2d(
            features, time, block.time.bias, padding=(0, 1), stride=(1, block.stride)
        )
        rest = block.residual(z[:, :, :: block.stride])
        z = block.norm(F.relu(over_time.permute(0, 2, 3, 1) + rest))
    weight = network.head.weight.unflatten(1, z.shape[2:])
    y = torch.einsum("ohf,bnhf->bon", weight, z) + network.head.bias[:, None]
    return y.reshape(len(y), 4, 1, 6, 8)


@pytest.mark.parametrize("stride", [1, 4])
def test_mstgcn_by_its_equations(stride):
    network, x = network_of("MSTGCN", stride=stride, order=4), frames()
    L = torch.tensor(dense(convolution.laplacian(network.mesh, symmetric=True), 48))
    assert (L - L.T).abs().max() < 1e-14
    assert torch.linalg.eigvalsh(L).max() == pytest.approx(1, abs=1e-10)

    def graph(i, z):
        terms = [torch.einsum("nm,bmtc->bntc", T, z) for T in cheb_terms(L, 4)]
        return network.blocks[i].graph.linear(torch.cat(terms, -1))

    assert (network(x) - by_blocks(network, x, graph)).abs().max() < 1e-11


def test_astgcn_by_its_equations():
    network, x = network_of("ASTGCN"), frames()
    L = torch.tensor(dense(convolution.laplacian(network.mesh, symmetric=True), 48))

    def graph(i, z):
        layer = network.blocks[i].graph
        w = layer.weights
        left = torch.einsum("bntc,n,cm->btm", z, w["U1"], w["U2"])
        E = torch.einsum("btm,bmsc,c->bts", left, z, w["U3"])
        E = (w["Ve"] @ torch.sigmoid(E + w["be"])).softmax(1)
        v = torch.einsum("bnsc,bst->bntc", z, E)
        S = torch.einsum("bntc,t,cs,bmsd,d->bnm", v, w["W1"], w["W2"], v, w["W3"])
        S = (w["Vs"] @ torch.sigmoid(S + w["bs"])).softmax(1)
        terms = [torch.einsum("nm,bnm,bntc->bmtc", T, S, z) for T in cheb_terms(L, 3)]
        return layer.linear(torch.cat(terms, -1))

    assert (network(x) - by_blocks(network, x, graph)).abs().max() < 1e-11


@pytest.mark.parametrize("form", [None, "clcrn"])
def test_attention_in_pieces_is_the_same(form, monkeypatch):
    network, x = network_of("ASTGCN", form=form), frames()
    network(x).square().sum().backward()
    whole = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    monkeypatch.setattr(astgcn, "_PIECE", 2 * 48 * 7)  # 7 columns at once, the last time 6
    network(x).square().sum().backward()
    for p, expected in zip(network.parameters(), whole, strict=True):
        assert (p.grad - expected).abs().max() < 1e-10 * max(1, expected.abs().max())


def test_stgcn_by_its_equations():
    task = Task("t2m", 9, 4)
    network, x = network_of("STGCN", task, graph_hidden=3, output_hidden=5), frames(task)
    mesh, body = network.mesh, network.body
    W = torch.zeros(48, 48, dtype=torch.float64)
    W[mesh.edges] = torch.tensor(np.exp(-((mesh.distance / mesh.distance.std()) ** 2))).flatten()
    W = torch.maximum(W, W.T).fill_diagonal_(0)
    D = W.sum(1)
    L = torch.eye(48, dtype=torch.float64) - W / (D[:, None] * D).sqrt()
    L = 2 * L / torch.linalg.eigvalsh(L).max() - torch.eye(48)

    def align(layer, z):
        more = layer.more
        return F.pad(z, (0, more)) if more >= 0 else layer.linear(z)

    def gated(layer, z):
        weight = layer.linear.weight.unflatten(1, (-1, layer.width))[:, :, None]
        y = F.conv2d(z.permute(0, 3, 1, 2), weight, layer.linear.bias).permute(0, 2, 3, 1)
        p, q = y.chunk(2, -1)
        return (p + align(layer.align, z[:, :, layer.width - 1 :])) * torch.sigmoid(q)

    def normed(norm, z):  # over nodes and features of each sample and step
        z = z.transpose(1, 2)
        z = (z - z.mean((2, 3), keepdim=True)) / z.std((2, 3), keepdim=True, correction=0)
        return (z * norm.weight + norm.bias).transpose(1, 2)

    z = to_nodes(x)
    for block in body.blocks:
        z = align(block.align, gated(block.first, z))
        terms = [torch.einsum("nm,bmtc->bntc", T, z) for T in cheb_terms(L, 3)]
        z = F.relu(block.graph(torch.cat(terms, -1)) + z)
        z = normed(block.norm, gated(block.second, z))
    z = normed(body.norm, gated(body.last, z))[:, :, 0]
    y = body.readout(F.relu(body.hidden(z))).permute(0, 2, 1).reshape(2, 4, 1, 6, 8)
    assert (network(x) - y).abs().max() < 1e-9


# --- the printed rows, with their faults ----------------------------------------------------------


def test_printed_mstgcn_mixes_the_samples_of_a_batch():
    network, x = network_of("MSTGCN", protocol="clcrn"), frames()
    with torch.no_grad():
        assert (network(x)[:1] - network(x[:1])).abs().max() > 1e-2


def test_printed_stgcn_mixes_samples_of_two_channels_only():
    for variables, mixes in (("t2m", False), (("t2m", "z500"), True)):
        task = Task(variables, 6, 4)
        network, x = network_of("STGCN", task, protocol="clcrn"), frames(task)
        with torch.no_grad():
            assert ((network(x)[:1] - network(x[:1])).abs().max() > 1e-3) == mixes


def test_printed_networks_read_some_steps_only():
    """With stride 6 the first block reads steps 0, 1, 5, 6 and 7 of 12, and never the last four."""
    task = Task("t2m", 12, 3)
    x = frames(task).requires_grad_()
    network_of("MSTGCN", task, protocol="clcrn")(x).square().sum().backward()
    read = x.grad.abs().amax((0, 2, 3, 4)) > 0
    assert read.nonzero().flatten().tolist() == [0, 1, 5, 6, 7]


def test_protocol_gives_what_is_not_given():
    network = network_of("AGCRN", protocol="clcrn")
    assert network.settings["form"] == "clcrn"
    assert (network.settings["embedding"], network.settings["hidden"]) == (4, 4)
    assert len(network.embeddings) == 2
    assert network.teach is not None
    again = make_network("AGCRN", TASK, GLOBE, network.settings)
    assert again.settings == network.settings


def test_tgcn_of_the_authors_resets_with_half_of_the_nodes():
    """The first half of the nodes makes every reset gate, the second every update gate."""
    network = network_of("TGCN", Task("t2m", 1, 1), form="authors", layers=1, neighbours=1)
    cell, graph = network.encoder[0], network.fixed(None)
    h = frames().flatten(3)[:, 0].permute(2, 0, 1).expand(48, 2, 4).contiguous()
    frame = torch.zeros(48, 2, 1, dtype=torch.float64)
    changed = frame.clone()
    changed[40] = 5.0  # in the second half: update gates of nodes 2 (40 - 24) and the next
    with torch.no_grad():
        moved = (cell(changed, h, graph) - cell(frame, h, graph)).abs().amax((1, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [32, 33, 40]


# --- Laplacians and their powers ------------------------------------------------------------------


def test_the_largest_eigenvalue_of_a_large_graph():
    grid = {"latitude": np.linspace(-85, 85, 18), "longitude": np.arange(20) * 18.0}
    mesh = Mesh.from_grid(grid, 9)
    assert mesh.nodes > 200
    row, column, weight = mesh.adjacency()
    nodes, degree = np.arange(mesh.nodes), np.bincount(row, minlength=mesh.nodes)
    entries = tuple(
        np.concatenate(pair) for pair in ((row, nodes), (column, nodes), (-weight, degree))
    )
    every = np.linalg.eigvals(dense(entries, mesh.nodes))
    expected = every[np.abs(every).argmax()].real
    assert convolution.largest_eigenvalue(entries, mesh.nodes) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("elementwise", [False, True])
def test_powers_are_those_of_the_dense_matrix(elementwise):
    matrix = convolution.laplacian(Mesh.from_grid(GLOBE, 5), symmetric=False)
    L = dense(matrix, 48)
    expected = [np.eye(48), L]
    for _ in range(2):
        times = L * expected[-1] if elementwise else L @ expected[-1]
        expected.append(2 * times - expected[-2])
    found = convolution.powers(matrix, 48, 4, elementwise=elementwise)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(dense(ours, 48), theirs, atol=1e-13)


def test_a_graph_without_edges():
    network = network_of("MSTGCN", neighbours=1)
    assert network(frames()).isfinite().all()
