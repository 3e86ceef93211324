"""Five recurrent networks written down plainly: what `model.py` measures the library's against.

Eager float32 in PyTorch's default layout, frame by frame, one convolution after the other as the
formulas of the papers read, with no regard to speed: the way the authors' public code runs. What is
fed is `mask * truth + (1 - mask) * own`, as there. The parameters carry that code's names;
`tests/test_benchmarks.py` proves the networks equal to its outputs on the golden cases.

Shapes: B samples, T and T' steps, F = T + T' - 1, C channels, H x W; P = p^2 C.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = Sequence[int]


def conv(c_in: int, c_out: int, kernel: int, norm: Shape | None, bias: bool = False) -> nn.Module:
    """A convolution that keeps the grid, with LayerNorm over (c_out, *norm) behind it."""
    layer = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)
    return nn.Sequential(layer, *([] if norm is None else [nn.LayerNorm([c_out, *norm])]))


class Plain(nn.Module):
    """A loop over frames: (B, T, C, H, W) -> all outputs (B, F, C, H, W)."""

    def __init__(self, in_shape: Shape, target_steps: int, patch: int = 1) -> None:
        super().__init__()
        (self.steps, self.channels, H, W), self.patch = in_shape, patch
        self.target_steps, self.grid = target_steps, (H // patch, W // patch)

    def begin(self, frame: Tensor) -> Any:
        raise NotImplementedError

    def step(self, frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def extra(self, state: Any) -> Tensor | float:
        """What is added to the mean square error of all outputs."""
        return 0.0

    def cut(self, x: Tensor) -> Tensor:
        (B, n, C, H, W), p = x.shape, self.patch
        x = x.reshape(B, n, C, H // p, p, W // p, p).permute(0, 1, 4, 6, 2, 3, 5)
        return x.reshape(B, n, p * p * C, H // p, W // p)

    def join(self, x: Tensor) -> Tensor:
        (B, n, P, h, w), p = x.shape, self.patch
        x = x.reshape(B, n, p, p, P // p**2, h, w).permute(0, 1, 4, 5, 2, 6, 3)
        return x.reshape(B, n, P // p**2, h * p, w * p)

    def forward(
        self, x: Tensor, y: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | float]:
        """All outputs, and what is added to their loss; `mask` (B, n) is of the last n steps."""
        full = self.cut(x if y is None else torch.cat([x, y], dim=1))
        total = self.steps + self.target_steps - 1
        known = self.steps if mask is None else total - mask.shape[1]
        state, outputs = self.begin(full[:, 0]), []
        for t in range(total):
            if t < known:
                frame = full[:, t]
            elif mask is None:
                frame = outputs[-1]
            else:
                fed = mask[:, t - known, None, None, None]
                frame = fed * full[:, t] + (1 - fed) * outputs[-1]
            output, state = self.step(frame, state)
            outputs.append(output)
        return self.join(torch.stack(outputs, dim=1)), self.extra(state)


class Stacked(Plain):
    """Layers of convolutional cells, each fed by the one below, and a 1 x 1 read-out."""

    def __init__(
        self,
        in_shape: Shape,
        target_steps: int,
        *,
        num_hidden: str,
        filter_size: int = 5,
        patch_size: int = 4,
        layer_norm: int = 0,
        **ignored: Any,
    ) -> None:
        super().__init__(in_shape, target_steps, patch_size)
        self.widths = [int(n) for n in num_hidden.split(",")]
        patches = patch_size**2 * self.channels
        norm = self.grid if layer_norm else None
        below = [patches, *self.widths]
        self.cell_list = nn.ModuleList(
            self.cell(c_in, c, filter_size, norm)
            for c_in, c in zip(below, self.widths, strict=False)
        )
        self.conv_last = nn.Conv2d(self.widths[-1], patches, 1, bias=False)

    def cell(self, c_in: int, c: int, kernel: int, norm: Shape | None) -> nn.Module:
        raise NotImplementedError

    def zeros(self, frame: Tensor) -> list[Tensor]:
        return [frame.new_zeros(len(frame), c, *self.grid) for c in self.widths]


class ConvLSTMCell(nn.Module):
    def __init__(self, c_in: int, c: int, kernel: int, norm: Shape | None) -> None:
        super().__init__()
        self.conv_x = conv(c_in, 4 * c, kernel, norm)
        self.conv_h = conv(c, 4 * c, kernel, norm)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = torch.chunk(self.conv_x(x) + self.conv_h(h), 4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvLSTM(Stacked):
    def cell(self, *sizes: Any) -> nn.Module:
        return ConvLSTMCell(*sizes)

    def begin(self, frame: Tensor) -> Any:
        return self.zeros(frame), self.zeros(frame)

    def step(self, frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        h, c, x = list(state[0]), list(state[1]), frame
        for i, cell in enumerate(self.cell_list):
            h[i], c[i] = cell(x, h[i], c[i])
            x = h[i]
        return self.conv_last(x), (h, c)


class STLSTMCell(nn.Module):
    def __init__(self, c_in: int, c: int, kernel: int, norm: Shape | None) -> None:
        super().__init__()
        self.conv_x = conv(c_in, 7 * c, kernel, norm)
        self.conv_h = conv(c, 4 * c, kernel, norm)
        self.conv_m = conv(c, 3 * c, kernel, norm)
        self.conv_o = conv(2 * c, c, kernel, norm)
        self.conv_last = nn.Conv2d(2 * c, c, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, ...]:
        x_i, x_f, x_g, y_i, y_f, y_g, x_o = torch.chunk(self.conv_x(x), 7, dim=1)
        h_i, h_f, h_g, h_o = torch.chunk(self.conv_h(h), 4, dim=1)
        m_i, m_f, m_g = torch.chunk(self.conv_m(m), 3, dim=1)
        of_c = torch.sigmoid(x_i + h_i) * torch.tanh(x_g + h_g)
        c = torch.sigmoid(x_f + h_f + 1.0) * c + of_c
        of_m = torch.sigmoid(y_i + m_i) * torch.tanh(y_g + m_g)
        m = torch.sigmoid(y_f + m_f + 1.0) * m + of_m
        both = torch.cat([c, m], dim=1)
        o = torch.sigmoid(x_o + h_o + self.conv_o(both))
        return o * torch.tanh(self.conv_last(both)), c, m, of_c, of_m


class PredRNN(Stacked):
    def cell(self, *sizes: Any) -> nn.Module:
        return STLSTMCell(*sizes)

    def begin(self, frame: Tensor) -> Any:
        return self.zeros(frame), self.zeros(frame), self.zeros(frame)[0], []

    def step(self, frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        h, c, m, told, x = list(state[0]), list(state[1]), state[2], state[3], frame
        for i, cell in enumerate(self.cell_list):
            h[i], c[i], m, of_c, of_m = cell(x, h[i], c[i], m)
            told = [*told, self.decoupling(of_c, of_m)]
            x = h[i]
        return self.conv_last(x), (h, c, m, told)

    def decoupling(self, of_c: Tensor, of_m: Tensor) -> Tensor | float:
        return 0.0


class PredRNNv2(PredRNN):
    def __init__(self, *sizes: Any, decouple_beta: float = 0.1, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.beta = decouple_beta
        self.adapter = nn.Conv2d(self.widths[0], self.widths[0], 1, bias=False)

    def decoupling(self, of_c: Tensor, of_m: Tensor) -> Tensor | float:
        if not self.training:
            return 0.0
        c, m = (F.normalize(self.adapter(v).flatten(2), dim=2) for v in (of_c, of_m))
        return torch.cosine_similarity(c, m, dim=2).abs().mean()

    def extra(self, state: Any) -> Tensor | float:
        return self.beta * sum(state[3]) / len(state[3])


class Coder(nn.Module):
    """A convolution, GroupNorm and LeakyReLU; transposed where it goes up."""

    def __init__(self, c_in: int, c_out: int, stride: int, up: bool = False) -> None:
        super().__init__()
        layer = (
            nn.ConvTranspose2d(c_in, c_out, 3, stride, 1, output_padding=stride - 1)
            if up
            else nn.Conv2d(c_in, c_out, 3, stride, 1)
        )
        self.main = nn.Sequential(layer, nn.GroupNorm(16, c_out), nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class PhyDNet(Plain):
    def __init__(
        self,
        in_shape: Shape,
        target_steps: int,
        *,
        patch_size: int = 4,
        nf: int = 32,
        hidden_dims: Sequence[int] = (128, 128),
    ) -> None:
        super().__init__(in_shape, target_steps)
        C, deep, last = self.channels, 2 * nf, patch_size // 2
        self.latent = deep, *(n // patch_size for n in in_shape[2:])
        layers = {
            "encoder_E": [(C, nf, 2), (nf, nf, 1), (nf, deep, last)],
            "encoder_Ep": [(deep, deep, 1)] * 2,
            "encoder_Er": [(deep, deep, 1)] * 2,
            "decoder_Dp": [(deep, deep, 1)] * 2,
            "decoder_Dr": [(deep, deep, 1)] * 2,
            "decoder_D": [(deep, nf, 2), (nf, nf, 1)],
        }
        self.encoder = nn.ModuleDict()
        for name, sizes in layers.items():
            up = name.startswith("decoder")
            self.encoder[name] = nn.ModuleDict(
                {f"{'up' * up}c{k}": Coder(*size, up=up) for k, size in enumerate(sizes, 1)}
            )
        self.encoder["decoder_D"]["upc3"] = nn.ConvTranspose2d(  # type: ignore[operator]
            nf, C, 3, last, 1, output_padding=last - 1
        )
        cell = nn.Module()
        cell.F = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(deep, 49, 7, padding=3),
                "bn1": nn.GroupNorm(7, 49),
                "conv2": nn.Conv2d(49, deep, 1),
            }
        )
        cell.convgate = nn.Conv2d(2 * deep, deep, 3, padding=1)
        self.encoder["phycell"] = nn.ModuleDict({"cell_list": nn.ModuleList([cell])})
        self.cell, self.widths = [cell], [*hidden_dims, deep]
        gates = (
            nn.ModuleDict({"conv": nn.Conv2d(c_in + c, 4 * c, 3, padding=1)})
            for c_in, c in zip([deep, *self.widths], self.widths, strict=False)
        )
        self.encoder["convcell"] = nn.ModuleDict({"cell_list": nn.ModuleList(gates)})

    def through(self, name: str, x: Tensor) -> Tensor:
        for layer in self.encoder[name].values():  # type: ignore[operator]
            x = layer(x)
        return x

    def begin(self, frame: Tensor) -> Any:
        zero = [frame.new_zeros(len(frame), c, *self.latent[1:]) for c in self.widths]
        return frame.new_zeros(len(frame), *self.latent), zero, zero

    def step(self, frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        (physical, h, c), cell = state, self.cell[0]
        z = self.through("encoder_E", frame)
        u, x = self.through("encoder_Ep", z), self.through("encoder_Er", z)
        gain = torch.sigmoid(cell.convgate(torch.cat([u, physical], dim=1)))
        change = cell.F["conv2"](cell.F["bn1"](cell.F["conv1"](physical)))
        predicted = physical + change
        physical = predicted + gain * (u - predicted)
        h, c = list(h), list(c)
        for k, layer in enumerate(self.encoder["convcell"]["cell_list"]):  # type: ignore[index]
            i, f, o, g = torch.chunk(layer["conv"](torch.cat([x, h[k]], dim=1)), 4, dim=1)
            c[k] = torch.sigmoid(f) * c[k] + torch.sigmoid(i) * torch.tanh(g)
            x = h[k] = torch.sigmoid(o) * torch.tanh(c[k])
        both = self.through("decoder_Dp", physical) + self.through("decoder_Dr", x)
        return torch.sigmoid(self.through("decoder_D", both)), (physical, h, c)

    def extra(self, state: Any) -> Tensor | float:
        """The moment loss, as a part of the mean over F outputs."""
        weight = self.cell[0].F["conv1"].weight
        offset = torch.arange(7, device=weight.device, dtype=weight.dtype) - 3
        factorial = torch.cumprod(torch.arange(7, device=weight.device).clamp(min=1), 0)
        powers = torch.stack([offset**i for i in range(7)]) / factorial[:, None]
        moments = torch.einsum("ia,ncab,jb->ncij", powers, weight, powers).flatten(2)
        wanted = torch.eye(49, device=weight.device, dtype=weight.dtype)[:, None]
        loss = ((moments - wanted) ** 2).mean((0, 2)).sum()
        return loss / (self.steps + self.target_steps - 1)


class MAUCell(nn.Module):
    def __init__(self, c: int, kernel: int, grid: Shape, tau: int, residual: bool) -> None:
        super().__init__()
        self.conv_t, self.conv_s = (conv(c, 3 * c, kernel, grid, bias=True) for _ in range(2))
        self.conv_t_next, self.conv_s_next = (conv(c, c, kernel, grid, bias=True) for _ in range(2))
        self.tau, self.residual = tau, residual

    def forward(
        self, s: Tensor, t: Tensor, past_s: list[Tensor], past_t: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        s_next, t_next = self.conv_s_next(s), self.conv_t_next(t)
        before_s, before_t = (torch.stack(v[-self.tau :]) for v in (past_s, past_t))
        scores = (before_s * s_next).sum((2, 3, 4)) / s[0].numel() ** 0.5
        weights = torch.softmax(scores, dim=0)[..., None, None, None]
        attended = (weights * before_t).sum(0)
        u = torch.sigmoid(t_next)
        t_gate, t_t, t_s = torch.chunk(self.conv_t(u * t + (1 - u) * attended), 3, dim=1)
        s_gate, s_t, s_s = torch.chunk(self.conv_s(s), 3, dim=1)
        t_gate, s_gate = torch.sigmoid(t_gate), torch.sigmoid(s_gate)
        t = t_gate * t_t + (1 - t_gate) * s_t
        new = s_gate * s_s + (1 - s_gate) * t_s
        return t, new + s if self.residual else new


class MAU(Plain):
    def __init__(
        self,
        in_shape: Shape,
        target_steps: int,
        *,
        num_hidden: str,
        sr_size: int = 4,
        tau: int = 5,
        filter_size: int = 5,
        cell_mode: str = "normal",
        model_mode: str = "normal",
        **ignored: Any,
    ) -> None:
        super().__init__(in_shape, target_steps)
        self.widths = [int(n) for n in num_hidden.split(",")]
        c, self.tau, self.recall = self.widths[0], tau, model_mode == "recall"
        self.latent = c, *(n // sr_size for n in in_shape[2:])
        halvings = sr_size.bit_length() - 1
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        for j in range(halvings + 1):
            layer = nn.Conv2d(c, c, 3, 2, 1) if j else nn.Conv2d(self.channels, c, 1)
            self.encoders.append(nn.Sequential())
            self.encoders[-1].add_module(f"encoder_t{j - 1}" if j else "encoder_t_conv-1", layer)
            self.encoders[-1].add_module(f"relu{j}", nn.LeakyReLU(0.2))
        for j in range(halvings):
            self.decoders.append(nn.Sequential())
            up = nn.ConvTranspose2d(c, c, 3, 2, 1, output_padding=1)
            self.decoders[-1].add_module(f"c_decoder{j}", up)
            if j < halvings - 1:
                self.decoders[-1].add_module(f"relu{j}", nn.LeakyReLU(0.2))
        grid, residual = self.latent[1:], cell_mode == "residual"
        self.cell_list = nn.ModuleList(
            MAUCell(c, filter_size, grid, tau, residual) for _ in self.widths
        )
        self.srcnn = nn.Sequential(nn.Conv2d(c, self.channels, 1))

    def begin(self, frame: Tensor) -> Any:
        zero = frame.new_zeros(len(frame), *self.latent)
        memories = [[zero] * self.tau for _ in self.widths]
        return [zero] * len(self.widths), memories, memories

    def step(self, frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        states, past_s, past_t = list(state[0]), list(state[1]), list(state[2])
        s, encoded = frame, []
        for layer in self.encoders:
            s = layer(s)
            encoded.append(s)
        for i, cell in enumerate(self.cell_list):
            given = s
            states[i], s = cell(s, states[i], past_s[i], past_t[i])
            past_s[i], past_t[i] = [*past_s[i], given], [*past_t[i], states[i]]
        for j, layer in enumerate(self.decoders):
            s = layer(s)
            s = s + encoded[-2 - j] if self.recall else s
        return self.srcnn(s), (states, past_s, past_t)


#: By the public code's names.
NETWORKS: dict[str, type[Plain]] = {
    kind.__name__: kind for kind in (ConvLSTM, PredRNN, PredRNNv2, PhyDNet, MAU)
}
