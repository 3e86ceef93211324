"""The operations that take a CPU's time and memory, with gradients written by hand.

PyTorch's own are correct and slow here: the weight gradient of a depthwise convolution takes up to
thirty times as long as the convolution, and tensors eight times as wide as the features go to
memory and back at every step. These functions compute the same sums in another order. They work in
channels-last memory, follow autocast, and can be differentiated once.

On other devices, in ``torch.compile`` and in ``torch.export`` the plain formulas are used.

This is also the one file with private parts of torch: an upgrade has one place to look, and
``tests/models/test_kernels.py`` says which version changed which. Where a version lacks one, the
plain formulas are used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Bytes of the wide tensors worked on at a time: they stay in the cache. Half of it and twice as
#: much were 10% slower (32 MiB shared by two cores; `benchmarks/RECORDS.md`).
BLOCK = 8 * 2**20


#: What the hand-written gradients need of ``torch.ops.aten``, and fused convolutions of
#: ``torch.ops.mkldnn``.
GRADIENTS = (
    *("silu", "silu_backward", "gelu_backward", "convolution_backward"),
    *("native_group_norm", "native_group_norm_backward"),
)
FUSED = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")


@cache
def lacking() -> tuple[str, ...]:
    """Names of the private operations that this version of torch lacks."""
    wanted: list[tuple[str, Any, str]] = [("aten", torch.ops.aten, name) for name in GRADIENTS]
    wanted += [("mkldnn", torch.ops.mkldnn, name) for name in FUSED]
    wanted += [("autograd", torch._C, "_current_graph_task_id")]
    return tuple(f"{kind}.{name}" for kind, where, name in wanted if not hasattr(where, name))


def by_hand(x: Tensor) -> bool:
    """Whether the hand-written gradients are to be used for `x`."""
    plain = x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling()
    return not plain and all(name.startswith("mkldnn") for name in lacking())


def wrong_in_16_bits(x: Tensor, stride: int) -> bool:
    """Whether the weight gradient of a strided convolution of `x` is wrong in 16 bits.

    With torch 2.13 on AVX-512 and AMX oneDNN leaves memory in it that nobody has written where the
    result has one column, and adds up other points where kernel and stride are 4 or more. Somewhat
    more is taken for it here. That of float32 is right.
    """
    suspect = stride > 3 or (stride > 1 and x.shape[-1] <= 2 * stride)
    return suspect and x.device.type == "cpu" and torch.is_grad_enabled()


def wrap(x: Tensor, n: int) -> Tensor:
    """Extend the last axis of `x` by `n` columns from its other end, on both sides."""
    W = x.shape[-1]
    if n > W:  # a kernel that reaches more than once round a small grid
        return x[..., torch.arange(-n, W + n, device=x.device) % W]
    return torch.cat([x[..., W - n :], x, x[..., :n]], dim=-1)


def pad(x: Tensor, n: int, circular_longitude: bool) -> Tensor:
    """Extend (B, C, H, W) by `n` rows of zeros and `n` columns, of zeros or of the other end."""
    return F.pad(wrap(x, n), (0, 0, n, n)) if circular_longitude else F.pad(x, (n, n, n, n))


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, dilation: int, circular_longitude: bool
) -> Tensor:
    """Convolve every channel by itself and keep the grid: (B, C, H, W) -> (B, C, H, W).

    ``F.conv2d`` with C groups and "same" padding; result and gradients equal its own to rounding
    (1e-6 in float32, relative to the largest).

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
    weight : Tensor of shape (C, 1, k, k)
    bias : Tensor of shape (C,)
    dilation : int
    circular_longitude : bool
        Whether the last axis goes on at its other end; zeros are beyond the others.
    """
    if by_hand(x):
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        return _Depthwise.apply(_last(x.to(dtype)), weight, bias, dilation, circular_longitude)
    reach = dilation * (weight.shape[-1] - 1) // 2
    # On a CPU padding before a dilated convolution is ten times faster than its own.
    if circular_longitude or (dilation > 1 and x.device.type == "cpu"):
        x, reach = _last(pad(x, reach, circular_longitude)), 0
    return F.conv2d(_last(x), weight, bias, 1, reach, dilation, groups=len(weight))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int, circular_longitude: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.form = dilation, circular_longitude
        reach = dilation * (weight.shape[-1] - 1) // 2
        with _autocast_off():
            return F.conv2d(
                _last(pad(x, reach, circular_longitude)),
                weight.to(x.dtype),
                bias.to(x.dtype),
                dilation=dilation,
                groups=len(weight),
            )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dilation, circular_longitude = ctx.form
        (B, C, H, W), k = x.shape, weight.shape[-1]
        reach = dilation * (k - 1) // 2
        gradient = _last(gradient)
        to_x = None
        if ctx.needs_input_grad[0]:  # the same convolution with the kernel turned round
            to_x = F.conv2d(
                _last(pad(gradient, reach, circular_longitude)),
                weight.flip(2, 3).to(x.dtype),
                dilation=dilation,
                groups=C,
            )
        # Weight (c, i, j) meets x[b, c, y + d i, x + d j] gradient[b, c, y, x]: a convolution of
        # stride d, whose kernels are the gradients, over all B C maps as channels of one image.
        maps = pad(x, reach, circular_longitude).permute(2, 3, 0, 1)
        maps = maps.reshape(1, H + 2 * reach, -1, B * C).permute(0, 3, 1, 2)
        turned = gradient.reshape(B * C, 1, H, W)
        products = F.conv2d(maps, turned, stride=dilation, groups=B * C)
        to_weight = products.view(B, C, k, k).to(weight.dtype).sum(0)[:, None]
        return to_x, to_weight, gradient.sum((0, 2, 3), dtype=weight.dtype), None, None


def norm_silu(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """``F.group_norm``, then ``F.silu``: (B, C, H, W) -> (B, C, H, W), equal to rounding.

    The normalised features are not kept for the gradient, which computes them anew: at the full
    resolution of pictures they are as large as all of a translator.

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
    weight, bias : Tensor of shape (C,)
        Of the norm; the result has their type.
    groups : int
    eps : float
    """
    if by_hand(x):
        return _NormSiLU.apply(x, weight, bias, groups, eps)
    # Under autocast one rounding, behind the activation, instead of two (CUDA does so anyway).
    x = F.group_norm(x.to(weight.dtype), groups, weight, bias, eps)
    return F.silu(x, inplace=not torch.is_grad_enabled())  # the norm's result is nobody else's


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        x = _last(x)
        ctx.save_for_backward(x, weight, bias)
        ctx.form = groups, eps
        result = torch.empty_like(x, dtype=weight.dtype)
        with _autocast_off():
            for part in _blocks(x, x.shape[1], weight.element_size()):
                y = F.group_norm(x[part].to(weight.dtype), groups, weight, bias, eps)
                torch.ops.aten.silu.out(y, out=result[part])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        groups, eps = ctx.form
        (_, C, H, W), gradient = x.shape, _last(gradient)
        to_x, to_weight, to_bias = torch.empty_like(x), weight.new_zeros(C), bias.new_zeros(C)
        for part in _blocks(x, C, weight.element_size()):
            some = x[part].to(weight.dtype)
            form = (len(some), C, H * W, groups)
            y, mean, scale = torch.native_group_norm(some, weight, bias, *form, eps)
            to_y = torch.ops.aten.silu_backward(gradient[part], y)
            backward = torch.ops.aten.native_group_norm_backward
            to_some, part_weight, part_bias = backward(
                to_y, some, mean, scale, weight, *form, [True, True, True]
            )
            to_x[part] = to_some
            to_weight += part_weight
            to_bias += part_bias
        return to_x, to_weight, to_bias, None, None


def feed_forward(
    x: Tensor,
    expand: nn.Conv2d,
    depthwise: nn.Conv2d,
    contract: nn.Conv2d,
    *,
    circular_longitude: bool,
) -> Tensor:
    """1 x 1 convolution, depthwise k x k, GELU, 1 x 1 convolution.

    Equal to ``contract(F.gelu(depthwise(expand(x))))`` to rounding. A few samples are worked on at
    a time; between the passes only the expanded features are kept, a third of what the plain
    formulas keep.

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
    expand, depthwise, contract : Conv2d
        C -> R, R -> R with R groups, and R -> C' channels, whose weights are used.
    circular_longitude : bool
        As of :func:`depthwise`.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    weights = (p for layer in (expand, depthwise, contract) for p in (layer.weight, layer.bias))
    return _FeedForward.apply(_last(x.to(dtype)), *weights, circular_longitude)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        w3: Tensor,
        b3: Tensor,
        circular_longitude: bool,
    ) -> Tensor:
        ctx.circular_longitude = circular_longitude
        B, C, H, W = x.shape
        wide, out = len(w1), len(w3)
        v1, c1, v2, c2, v3, c3 = (p.to(x.dtype) for p in (w1, b1, w2, b2, w3, b3))
        v1, v3 = v1.flatten(1), v3.flatten(1)
        rows = x.permute(0, 2, 3, 1).view(B, H * W, C)
        hidden, result = x.new_empty(B, H * W, wide), x.new_empty(B, H * W, out)
        with _autocast_off():
            for part in _blocks(x, wide, x.element_size()):
                h = hidden[part].view(-1, wide)
                torch.addmm(c1, rows[part].reshape(-1, C), v1.t(), out=h)
                h = _image(h, H, W)
                h = F.gelu(_filter(h, v2, c2, circular_longitude))
                torch.addmm(c3, _rows(h), v3.t(), out=result[part].view(-1, out))
        ctx.save_for_backward(x, hidden, w1, w2, b2, w3)
        return _image(result, H, W)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, w1, w2, b2, w3 = ctx.saved_tensors
        B, C, H, W = x.shape
        wide, out = len(w1), len(w3)
        v1, v2, c2, v3 = (p.to(x.dtype) for p in (w1, w2, b2, w3))
        v1, v3 = v1.flatten(1), v3.flatten(1)
        rows = x.permute(0, 2, 3, 1).view(B, H * W, C)
        given = _last(gradient).permute(0, 2, 3, 1).view(B, H * W, out)
        to_x = x.new_empty(B, H * W, C)
        # Sums over the blocks are kept in the weights' own precision.
        to_1, to_b1, to_2, to_b2, to_3 = (
            p.new_zeros(p.shape) for p in (w1.flatten(1), w1[:, 0, 0, 0], w2, b2, w3.flatten(1))
        )
        for part in _blocks(x, wide, x.element_size()):
            r, g = rows[part].reshape(-1, C), given[part].reshape(-1, out)
            h = _image(hidden[part].view(-1, wide), H, W)
            # Computed anew, and the GELU too: both are cheaper than memory for them.
            z = _filter(h, v2, c2, ctx.circular_longitude)
            _add_product(to_3, g.t(), _rows(F.gelu(z)))
            to_z = torch.ops.aten.gelu_backward(_image(g @ v3, H, W), z)
            to_h, part_2, part_b2 = _filter_backward(to_z, h, v2, ctx.circular_longitude)
            to_2 += part_2
            to_b2 += part_b2
            to_h = _rows(to_h)
            _add_product(to_1, to_h.t(), r)
            to_b1 += to_h.sum(0, dtype=to_b1.dtype)
            torch.mm(to_h, v1, out=to_x[part].view(-1, C))
        return (
            _image(to_x, H, W),
            *(to_1.view_as(w1), to_b1, to_2, to_b2, to_3.view_as(w3)),
            given.sum((0, 1), dtype=w3.dtype),
            None,
        )


def _filter(h: Tensor, weight: Tensor, bias: Tensor, circular_longitude: bool) -> Tensor:
    reach = weight.shape[-1] // 2
    if circular_longitude:
        return F.conv2d(_last(pad(h, reach, True)), weight, bias, groups=len(weight))
    return F.conv2d(h, weight, bias, padding=reach, groups=len(weight))


def _filter_backward(
    gradient: Tensor, h: Tensor, weight: Tensor, circular_longitude: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`_filter` with respect to `h`, the weight and the bias."""
    C, reach = len(weight), weight.shape[-1] // 2
    padding, source = (0, _last(pad(h, reach, True))) if circular_longitude else (reach, h)
    plain = ([C], [1, 1], [padding, padding], [1, 1], False, [0, 0], C)
    backward = torch.ops.aten.convolution_backward
    to_h, to_weight, to_bias = backward(
        gradient, source, weight, *plain, [not circular_longitude, True, True]
    )
    if circular_longitude:
        to_h = F.conv2d(_last(pad(gradient, reach, True)), weight.flip(2, 3), groups=C)
    return to_h, to_weight, to_bias


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:  # products in half precision, their sum in full
        total.add_(a @ b)


def _blocks(x: Tensor, wide: int, size: int) -> list[slice]:
    """Samples of `x` to work on at a time, where each grows to `wide` channels of `size` bytes."""
    B, _, H, W = x.shape
    n = max(1, round(BLOCK / (wide * H * W * size)))
    return [slice(first, min(first + n, B)) for first in range(0, B, n)]


def _image(rows: Tensor, H: int, W: int) -> Tensor:
    """(..., channels) -> (B, channels, H, W), a channels-last view."""
    return rows.view(-1, H, W, rows.shape[-1]).permute(0, 3, 1, 2)


def _rows(image: Tensor) -> Tensor:
    """(B, channels, H, W) -> (B H W, channels), a view of channels-last memory."""
    return _last(image).permute(0, 2, 3, 1).reshape(-1, image.shape[1])


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _autocast_off() -> Any:
    return torch.autocast("cpu", enabled=False)


# --- private parts of torch that other files use --------------------------------------------------


def has_fused() -> bool:
    """Whether the fused convolutions, which torch's compiler uses, can be used here."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and not any(name.startswith("mkldnn") for name in lacking())
    )


# Each takes x (B, C, H, W) in channels-last memory, the weight that `pack` gave, the bias (C',) or
# None, and form = (padding, stride, dilation, groups). Only without gradients.


def pack(weight: Tensor, form: Any, x: Tensor) -> Tensor:
    """Weights in the order that oneDNN wants for inputs like `x`."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *form, list(x.shape))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, form: Any, then: str) -> Tensor:
    """Convolution and "none", "gelu" (by the error function) or "sigmoid": (B, C', H, W)."""
    rounded = "none" if then == "gelu" else ""  # not the approximation by tanh
    operation = torch.ops.mkldnn._convolution_pointwise.default
    return operation(x, weight, bias, *form, then, [], rounded)


def convolve_times(
    x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None, form: Any
) -> Tensor:
    """Convolution of `x`, times `other` (B, C', H, W)."""
    operation = torch.ops.mkldnn._convolution_pointwise.binary
    return operation(x, other, weight, bias, *form, "mul", None, None, [], None)


def convolve_plus(
    x: Tensor, total: Tensor, weight: Tensor, bias: Tensor | None, form: Any
) -> Tensor:
    """Add the convolution of `x` to `total` (B, C', H, W), in place."""
    operation = torch.ops.mkldnn._convolution_pointwise_.binary
    return operation(total, x, weight, bias, *form, "add", 1.0, None, [], None)


def backward_pass() -> int:
    """Number of the backward pass that is under way in this thread, -1 where there is none."""
    return torch._C._current_graph_task_id()


#: What was done with a tensor, by the backward pass that goes through it: a factor, a gradient.
Uses = dict[int, list[tuple[Tensor, Tensor]]]


def gathered(
    x: Tensor, uses: Uses, total: Callable[[list[tuple[Tensor, Tensor]], Tensor | None], Any]
) -> Tensor:
    """A tensor as it is, whose gradient is made once, of all its uses.

    By itself torch writes one for each use, and adds it to the others. Uses are left in `uses`,
    under :func:`backward_pass`, by gradients written by hand, which give none themselves.

    Parameters
    ----------
    x : Tensor
    uses : dict
        Empty.
    total : callable
        The gradient, of the uses and of what else torch has as one, or None.

    Returns
    -------
    Tensor
        The shape of `x`.
    """
    out: Tensor = _Gathered.apply(x, uses, total)
    return out


class _Gathered(torch.autograd.Function):
    """On the way back this comes after all uses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, uses: Uses, total: Callable[..., Any]) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.uses, ctx.total = uses, total
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        return ctx.total(ctx.uses.pop(backward_pass(), []), gradient), None, None


def version(tensor: Tensor) -> object:
    """What changes when a tensor is changed in place; new at each call where torch does not say."""
    return getattr(tensor, "_version", object())


def storage(tensor: Tensor) -> int:
    """Number of the memory that a tensor is a view of, on the meta device too."""
    memory = tensor.untyped_storage()
    return getattr(memory, "_cdata", id(memory))


def convolution_flops(counts: Any) -> int:
    """Operations of convolutions among the totals of a ``FlopCounterMode``, two a multiply-add."""
    return counts.get(torch.ops.aten.convolution, 0)
