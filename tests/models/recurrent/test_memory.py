"""MIM and E3D-LSTM: what they remember, within a sequence and no longer; how the past is read."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import SHARED

from stforecast.errors import InputError
from stforecast.models import E3DLSTM, MIM, load_openstl, summary
from stforecast.models.recurrent.e3d_lstm import E3DCell
from stforecast.models.recurrent.mim import PeepholeLSTM
from stforecast.task import Task
from stforecast.training.objective import Objective

GOLDEN = SHARED / "golden" / "recurrent"
MIMS = sorted(GOLDEN.glob("mim_*.json"))


def field(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def small(kind, *sizes, grid=(6, 8), **settings):
    """In float64, with every weight random, peepholes and norms too."""
    torch.manual_seed(1)
    steps = sizes or (3, 3, 1)
    network = kind(*steps, **{"hidden": [3, 3, 3], "kernel": 3, "grid": grid} | settings).double()
    for weight in network.parameters():
        weight.data.add_(0.2 * torch.randn_like(weight))
    return network.eval()


# --- MIM ------------------------------------------------------------------------------------------


def test_a_peephole_lstm_by_hand():
    """With 1 x 1 kernels on one point: the equations in numbers."""
    cell = PeepholeLSTM(1, 1, (1, 1)).double()
    cell.conv_x[0].weight.data.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]).view(4, 1, 1, 1))
    cell.conv_h[0].weight.data.copy_(torch.tensor([0.5, 0.6, 0.7, 0.8]).view(4, 1, 1, 1))
    cell.gate_peephole.data.copy_(torch.tensor([0.9, 1.1]).view(2, 1, 1))
    cell.output_peephole.data.fill_(1.2)
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    x, h, c = 2.0, -1.0, 0.5
    i, f = sigmoid(0.1 * x + 0.5 * h + 0.9 * c), sigmoid(0.3 * x + 0.7 * h + 1.1 * c + 1)
    new = f * c + i * math.tanh(0.2 * x + 0.6 * h)
    out = sigmoid(0.4 * x + 0.8 * h + 1.2 * new) * math.tanh(new)
    found = cell(x * one, h * one, c * one)
    assert [z.item() for z in found] == pytest.approx([out, new], abs=1e-7)


def test_the_first_step_knows_no_change():
    """Non-stationary modules begin at the second step."""
    x = field(1, 1, 1, 6, 8)
    one, two = small(MIM, 1, 1, 1), small(MIM, 1, 2, 1)
    before = one(x), two(x)
    for network in (one, two):
        network.differences[0].conv_x[0].weight.data.mul_(3)
    assert torch.equal(one(x), before[0])
    after = two(x)
    assert torch.equal(after[:, 0], before[1][:, 0])
    assert (after[:, 1] - before[1][:, 1]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", [MIM, E3DLSTM])
def test_nothing_is_remembered_between_sequences(kind):
    """The public MIM's second call differs from its first by up to 0.8."""
    network = small(kind).train()
    x = field(2, 3, 1, 6, 8)
    first = network(x)
    network(field(5, 3, 1, 6, 8))
    assert torch.equal(network(x), first)


def test_where_the_gradient_stops():
    x = field(1, 3, 1, 6, 8).requires_grad_()
    kept, stopped = small(MIM, detach=False), small(MIM)
    assert stopped.settings["detach"] is True
    grads = [torch.autograd.grad(network(x).sum(), x)[0] for network in (kept, stopped)]
    assert torch.equal(kept(x), stopped(x))
    assert (grads[0] - grads[1]).abs().max() > 1e-6


@pytest.mark.skipif(not MIMS, reason=f"no golden files at {GOLDEN}")
@pytest.mark.parametrize("path", MIMS, ids=lambda path: path.stem)
def test_golden_recurrent_gradient_through_the_memory(path):
    case, io = json.loads(path.read_text()), np.load(path.with_suffix(".io.npz"))
    network = load_openstl(
        path.with_suffix(".weights.safetensors"),
        model="MIM",
        target_steps=case["aft_seq_length"],
        **case["hyper_parameters"],
    ).double()
    network.detach = False
    x, y = (torch.from_numpy(io[k]).double() for k in ("x", "y"))
    x.requires_grad_()
    (network(x) - y).square().mean().backward()
    assert np.abs(x.grad.numpy() - io["grad_x64_without_detach"]).max() < 1e-9


@pytest.mark.parametrize("kind", [MIM, E3DLSTM])
def test_weights_belong_to_a_grid(kind):
    network = small(kind, patch=2, grid=(7, 9))  # padded to whole patches
    assert network(field(1, 3, 1, 7, 9)).shape == (1, 3, 1, 7, 9)
    with pytest.raises(InputError, match="belong to a grid of 7 x 9, found input of 8 x 8"):
        network(field(1, 3, 1, 8, 8))
    with pytest.raises(InputError, match=r"depend on the grid: give grid=\(H, W\)"):
        kind(3, 3, 1)
    made = kind.for_task(Task("t2m", 3, 2), {"y": 6, "x": 10}, hidden=[3, 3], kernel=3)
    assert made.settings["grid"] == [6, 10]
    with pytest.raises(InputError, match="layers of one width"):
        kind(3, 3, 1, grid=(6, 8), hidden=[3, 4])


# --- E3D-LSTM -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("norm", [None, (5, 7)])
def test_a_cell_in_three_dimensions(stride, norm):
    """The equations with 3-D convolutions and the whole matrix of the attention."""
    torch.manual_seed(0)
    options = {"stride": stride, "circular_longitude": False, "norm": norm}
    cell = E3DCell(2, 3, 3, (5, 7), global_memory=True, **options).double()
    for weight in cell.parameters():
        weight.data.add_(0.3 * torch.randn_like(weight))
    x, (h, c, m) = field(2, 2, 2, 5, 7), field(3, 2, 3, 2, 5, 7)
    past = [field(2, 3, 2, 5, 7) + k for k in range(3)]

    def convolved(layer, z):
        conv, *norms = layer.children()
        kernel = conv.weight.unflatten(1, (-1, 2))
        y = F.conv3d(z, kernel, padding=(0, 1, 1), stride=(1, stride, stride))
        y = F.interpolate(y, size=(2, 5, 7))
        return norms[0](y) if norms else y

    i, g, r, o, i2, g2, f2 = convolved(cell.conv_x, x).chunk(7, 1)
    hi, hg, hr, ho = convolved(cell.conv_h, h).chunk(4, 1)
    mi, mf, mg, mm = convolved(cell.conv_m, m).chunk(4, 1)
    query = torch.sigmoid(r + hr).reshape(2, -1, 3)
    keys = torch.cat(past, 1).reshape(2, -1, 3)
    recalled = (torch.softmax(query @ keys.mT, -1) @ keys).reshape(h.shape)
    new_c = cell.norm(c + recalled) + torch.sigmoid(i + hi) * torch.tanh(g + hg)
    new_m = torch.sigmoid(f2 + mf + 1) * torch.tanh(mm)
    new_m = new_m + torch.sigmoid(i2 + mi) * torch.tanh(g2 + mg)
    o = o + ho + convolved(cell.conv_new_c, new_c) + convolved(cell.conv_new_m, new_m)
    both = torch.cat([new_c, new_m], 1)
    new_h = torch.einsum("oc,bcdhw->bodhw", cell.conv_last.weight[:, :, 0, 0], both)
    new_h = torch.tanh(new_h) * torch.sigmoid(torch.tanh(o))
    rows = torch.cat([z.reshape(2, 1, -1, 3) for z in past], 2)
    found = cell(x, h, c, rows, m)
    for ours, theirs in zip(found[:2], (new_h, new_c), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(found[3], new_m)
    torch.testing.assert_close(found[2][:, :, :-70], rows)
    torch.testing.assert_close(found[2][:, 0, -70:], new_c.reshape(2, -1, 3))


def test_the_attention_does_not_store_its_matrix():
    network = small(E3DLSTM, 2, 4, 1, grid=(12, 16), hidden=[2])
    largest = 0

    def keep(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(field(1, 2, 1, 12, 16)).sum().backward()
    assert (
        largest < (2 * 12 * 16) ** 2 / 4
    )  # the matrix of the first step alone has four times that


def test_the_memory_that_the_public_code_drops():
    x = field(1, 3, 1, 6, 8)
    theirs, ours = small(E3DLSTM), small(E3DLSTM, global_memory=True)
    assert theirs.unroll(x, 2)[1].m.count_nonzero() == 0
    assert not any(p.requires_grad for p in theirs.cells[0].conv_m.parameters())
    assert ours.unroll(x, 2)[1].m.abs().max() > 0
    ours(x).sum().backward()
    for cell in ours.cells:
        assert cell.conv_m.get_parameter("0.weight").grad.abs().max() > 0
    same, other = theirs(x), ours(x)
    assert (same - other).abs().max() > 1e-6
    # What the publications count is the same either way: the convolution of zeros as well.
    operations = [summary(network, (1, 3, 1, 6, 8)).flops for network in (theirs, ours)]
    assert operations[0] == operations[1]


def test_the_loss_has_absolute_errors_of_what_is_known():
    network = small(E3DLSTM)
    x, y = field(2, 3, 1, 6, 8), field(2, 3, 1, 6, 8)
    frames, extra = network.teach(x, y, 0, mask=torch.zeros(2, 2).bool())
    truth = torch.cat([x, y], 1)[:, 1:]
    torch.testing.assert_close(extra, (frames - truth).abs().mean())
    y[0, 1, 0, 2, 3:] = torch.nan
    loss, points = Objective(network.train(), masked=True)(x, y, 0)
    assert loss.isfinite()
    assert points == y.isfinite().sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
