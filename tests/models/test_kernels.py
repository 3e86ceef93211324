"""Hand-written gradients are the gradients of the plain formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stforecast.models import kernels
from stforecast.models.layers import Conv2d, ConvTranspose2d, StridedConv2d
from stforecast.models.recurrent.crevnet import Conv3d

pytestmark = pytest.mark.usefixtures("several_threads")


def leaves(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes
    ]


def plain_depthwise(x, weight, bias, dilation, circular_longitude):
    """By the definition: every weight times the shifted map."""
    k, (H, W) = weight.shape[-1], x.shape[-2:]
    n = dilation * (k // 2)
    total = bias[:, None, None].expand_as(x)
    for i in range(k):
        for j in range(k):
            rows, columns = torch.arange(H) + i * dilation - n, torch.arange(W) + j * dilation - n
            inside = ((rows >= 0) & (rows < H))[:, None]
            if not circular_longitude:
                inside = inside & ((columns >= 0) & (columns < W))
            shifted = x[..., rows.clamp(0, H - 1), :][..., columns.clamp(0, W - 1)]
            if circular_longitude:
                shifted = x[..., rows.clamp(0, H - 1), :][..., columns % W]
            total = total + weight[:, 0, i, j][:, None, None] * shifted * inside
    return total


@pytest.mark.parametrize("circular_longitude", [False, True])
@pytest.mark.parametrize("grid", [(6, 7), (3, 4), (1, 1)])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (7, 3)])
def test_depthwise(kernel, dilation, grid, circular_longitude):
    x, weight, bias, given = leaves((2, 3, *grid), (3, 1, kernel, kernel), (3,), (2, 3, *grid))
    ours = kernels.depthwise(x, weight, bias, dilation, circular_longitude)
    plain = plain_depthwise(x, weight, bias, dilation, circular_longitude)
    torch.testing.assert_close(ours, plain)
    with torch.no_grad():
        torch.testing.assert_close(
            kernels.depthwise(x, weight, bias, dilation, circular_longitude), plain
        )
    inputs = (x, weight, bias)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, given.detach()),
        torch.autograd.grad(plain, inputs, given.detach()),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def feed_forward_layers(circular_longitude):
    torch.manual_seed(0)
    expand, contract = nn.Conv2d(3, 8, 1).double(), nn.Conv2d(8, 5, 1).double()
    return expand, nn.Conv2d(8, 8, 3, groups=8).double(), contract


@pytest.mark.parametrize("block", [1, 2**22])  # a sample at a time, or all
@pytest.mark.parametrize("circular_longitude", [False, True])
def test_feed_forward(circular_longitude, block, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", block)
    expand, depthwise, contract = layers = feed_forward_layers(circular_longitude)
    x, given = leaves((3, 3, 4, 5), (3, 5, 4, 5))
    ours = kernels.feed_forward(x, *layers, circular_longitude=circular_longitude)
    hidden = plain_depthwise(expand(x), depthwise.weight, depthwise.bias, 1, circular_longitude)
    plain = contract(F.gelu(hidden))
    torch.testing.assert_close(ours, plain)
    inputs = (x, *(p for layer in layers for p in layer.parameters()))
    for a, b in zip(
        torch.autograd.grad(ours, inputs, given.detach()),
        torch.autograd.grad(plain, inputs, given.detach()),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("block", [1, 2**22])
def test_norm_silu(block, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", block)
    x, weight, bias, given = leaves((3, 6, 4, 5), (6,), (6,), (3, 6, 4, 5))
    ours = kernels.norm_silu(x, weight, bias, 2, 1e-5)
    halves = x.view(3, 2, -1)
    normed = (halves - halves.mean(2, keepdim=True)) / (
        halves.var(2, keepdim=True, correction=0) + 1e-5
    ).sqrt()
    y = normed.view_as(x) * weight[:, None, None] + bias[:, None, None]
    plain = y * y.sigmoid()
    torch.testing.assert_close(ours, plain)
    with torch.no_grad():
        torch.testing.assert_close(kernels.norm_silu(x, weight, bias, 2, 1e-5), plain)
    inputs = (x, weight, bias)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, given.detach()),
        torch.autograd.grad(plain, inputs, given.detach()),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_half_precision_sums_in_full():
    """Weights' gradients come in the weights' precision, near the exact ones."""
    layers = [layer.float() for layer in feed_forward_layers(False)]
    x = torch.randn(40, 3, 16, 16)
    exact = torch.autograd.grad(
        kernels.feed_forward(x, *layers, circular_longitude=False).sum(), layers[0].weight
    )[0]
    with torch.autocast("cpu", torch.bfloat16):
        y = kernels.feed_forward(x, *layers, circular_longitude=False)
    assert y.dtype == torch.bfloat16
    half = torch.autograd.grad(y.sum(), layers[0].weight)[0]
    assert half.dtype == torch.float32
    assert float((half - exact).norm() / exact.norm()) < 1e-2


def test_second_derivatives_are_refused_not_wrong():
    x, weight, bias = leaves((1, 2, 4, 4), (2, 1, 3, 3), (2,))
    y = kernels.depthwise(x, weight, bias, 1, False)
    gradient = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def flops_of_a_convolution():
    with FlopCounterMode(display=False) as counter:
        F.conv2d(torch.ones(1, 2, 4, 4), torch.ones(3, 2, 1, 1))
    return torch.tensor(kernels.convolution_flops(counter.get_flop_counts()["Global"]))


def versions():
    x = torch.zeros(2)
    before = kernels.version(x)
    same = kernels.version(x) == before
    return torch.tensor([same, kernels.version(x.add_(1)) == before])


def numbers_of_passes():
    """One for all of a backward pass, another for the next; none outside."""
    seen, x = [], torch.ones(2, requires_grad=True)
    y = x * 2
    for tensor in (x, y):
        tensor.register_hook(lambda g: seen.append(kernels.backward_pass()))
    for _ in range(2):
        y.sum().backward(retain_graph=True)
    one, same, other, again = seen
    return torch.tensor([one == same != other == again, kernels.backward_pass() == -1])


def private_parts():
    """Each private part of torch that the library uses, and what it should give."""
    x, w, b, other = (t.detach().float() for t in leaves((2, 3, 4, 5), (6, 3), (6,), (2, 6, 4, 5)))
    x, other = (t.contiguous(memory_format=torch.channels_last) for t in (x, other))
    weight, form, aten = w[:, :, None, None], ([0, 0], [1, 1], [1, 1], 1), torch.ops.aten
    y, leaf = F.conv2d(x, weight, b), x.clone().requires_grad_()
    gelu, silu = F.gelu(leaf), F.silu(leaf)
    ones, out = torch.ones_like(x), torch.empty_like(x)
    norm = leaf, torch.ones(3), torch.zeros(3), 2, 3, 20, 3, 1e-5
    mean, scale = torch.native_group_norm(*(t.detach() if t is leaf else t for t in norm))[1:]
    plain = ([6], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, False, False])

    def to_leaf(result):
        return torch.autograd.grad(result, leaf, torch.ones_like(result))[0]

    def fused(call, *arguments):
        return lambda: call(*arguments) if kernels.has_fused() else None

    def pack():
        return kernels.pack(weight, form, x)

    return {
        "aten.silu.out": (lambda: aten.silu.out(x, out=out), F.silu(x)),
        "aten.silu_backward": (lambda: aten.silu_backward(ones, x), to_leaf(silu)),
        "aten.gelu_backward": (lambda: aten.gelu_backward(ones, x), to_leaf(gelu)),
        "native_group_norm": (lambda: torch.native_group_norm(x, *norm[1:])[0], F.group_norm(x, 3)),
        "aten.native_group_norm_backward": (
            lambda: aten.native_group_norm_backward(
                ones, x, mean, scale, norm[1], 2, 3, 20, 3, [True] * 3
            )[0],
            to_leaf(F.group_norm(leaf, 3)),
        ),
        "aten.convolution_backward": (
            lambda: aten.convolution_backward(torch.ones_like(y), x, weight, *plain)[0],
            to_leaf(F.conv2d(leaf, weight)),
        ),
        "mkldnn._convolution_pointwise": (
            fused(lambda: kernels.convolve(x, pack(), b, form, "gelu")),
            F.gelu(y),
        ),
        "mkldnn._convolution_pointwise.binary": (
            fused(lambda: kernels.convolve_times(x, other, pack(), b, form)),
            y * other,
        ),
        "mkldnn._convolution_pointwise_.binary": (
            fused(lambda: kernels.convolve_plus(x, other.clone(), pack(), b, form)),
            y + other,
        ),
        "Tensor._version": (versions, torch.tensor([True, False])),
        "UntypedStorage._cdata": (
            lambda: torch.tensor(kernels.storage(x) == kernels.storage(x[1:])),
            torch.tensor(True),
        ),
        "_C._current_graph_task_id": (numbers_of_passes, torch.tensor([True, True])),
        "FlopCounterMode, by aten.convolution": (flops_of_a_convolution, torch.tensor(2 * 16 * 6)),
    }


@pytest.mark.parametrize("name", private_parts())
def test_private_parts_of_torch(name):
    """They may change with any version; what broke is then named, with the version."""
    call, expected = private_parts()[name]
    assert not kernels.lacking(), f"torch {torch.__version__} lacks {kernels.lacking()}"
    try:
        found = call()
    except Exception as error:
        pytest.fail(f"torch {torch.__version__} changed {name}: {error}")
    if found is None:
        pytest.skip("oneDNN's fused convolutions need AVX instructions")
    equal = torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert equal, f"torch {torch.__version__}: {name} gives something else"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: Conv2d(16, 32, 3, stride=2, circular_longitude=False), (8, 16, 4, 1)),
        (lambda: Conv2d(16, 32, 3, stride=2, circular_longitude=False), (8, 16, 16, 2)),
        (lambda: Conv2d(16, 32, 5, stride=4, circular_longitude=False), (8, 16, 8, 3)),
        (lambda: StridedConv2d(16, 8, 2, stride=2), (8, 16, 16, 3)),
        (lambda: StridedConv2d(16, 8, 4, stride=4), (8, 16, 32, 16)),
        (lambda: ConvTranspose2d(16, 16, 2, circular_longitude=False), (8, 16, 8, 1)),
        (lambda: Conv3d(16, 16, 3, stride=2, circular_longitude=False), (8, 16, 2, 8, 2)),
    ],
)
def test_strided_convolutions_have_right_gradients_in_16_bits(layer, shape):
    """Those of torch 2.13 are memory that nobody has written, on narrow grids and large strides."""
    torch.manual_seed(0)
    layer, x = layer(), torch.randn(shape)
    for _ in range(3):
        found = []
        for half in (True, False):
            torch.full((400_000,), torch.nan)  # what such memory may hold
            layer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                y = layer(x)
            y.float().square().sum().backward()
            found.append(layer.weight.grad.clone())
        assert (found[0] - found[1]).abs().max() < 0.03 * found[1].abs().max()


def test_without_private_parts_the_plain_formulas_are_used(monkeypatch):
    x = torch.ones(1, requires_grad=True)
    assert kernels.by_hand(x)
    monkeypatch.setattr(kernels, "lacking", lambda: ("aten.silu", "mkldnn.pack"))
    assert not kernels.by_hand(x)
    assert not kernels.has_fused()
