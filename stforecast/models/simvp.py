"""SimVPv2: a convolutional encoder, a stack of gated spatiotemporal attention blocks, a decoder.

Tan, Gao, Li, Li: "SimVPv2: Towards Simple yet Powerful Spatiotemporal Predictive Learning"
(arXiv:2211.12509). Sections and equations in the comments below are that paper's.

Shapes: B samples, T input steps, T' target steps, C channels, H x W grid; S = ``hidden_spatial``
(hid_S in the paper's code), K = ``hidden_temporal`` (hid_T); h x w is the latent grid.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SimVPv2(nn.Module):
    """SimVPv2 with gated spatiotemporal attention (gSTA): (B, T, C, H, W) -> (B, T', C', H, W).

    Any H x W will do: the grid is padded to what the strides need, and the output is cropped.
    Where T' is longer than T, the network is applied to its own output, as the paper does.

    Parameters
    ----------
    input_steps, target_steps : int
        T and T'.
    channels : int
        C, input channels.
    out_channels : int, optional
        C', output channels; as many as input channels unless given.
    hidden_spatial, hidden_temporal : int
        S and K, the widths of the encoder and of the translator (``hid_S``, ``hid_T``).
    spatial_layers, temporal_layers : int
        Layers of the encoder and of the decoder (even; every second one halves the grid), and
        blocks of the translator (``N_S``, ``N_T``).
    mlp_ratio : float
        Expansion in the blocks' feed-forward part.
    drop_path : float
        Stochastic depth of the last block; it rises linearly from 0.01 at the first.
    dropout : float
        Dropout in the feed-forward part.
    encoder_kernel, decoder_kernel : int
        Kernel sizes of the encoder and of the decoder, odd.
    periodic : bool
        Pad longitude (the last axis) with its other end instead of with zeros. Beyond the paper;
        for global grids. Rolling the input by a multiple of :attr:`stride` columns then rolls
        the output by as many.
    residual : bool
        Forecast the change from the last input step. Beyond the paper; see `Notes`.

    Notes
    -----
    With ``residual=True`` the output is ``x[T] + change_scale * network``, and every input frame
    is accompanied by its difference from the last one, in the same units. ``change_scale`` (T', C')
    is a buffer with the typical size of the change at each lead time: the network works on
    numbers of order one at every lead, and a tenth of a kelvin survives bfloat16. Scaling by the
    deviation of the change follows Lam et al. (2023), doi:10.1126/science.adi2336.

    References
    ----------
    .. [1] arXiv:2211.12509, section III (SimVP) and IV (gSTA).
    """

    change_scale: Tensor

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        out_channels: int | None = None,
        hidden_spatial: int = 32,
        hidden_temporal: int = 256,
        spatial_layers: int = 2,
        temporal_layers: int = 8,
        mlp_ratio: float = 8.0,
        drop_path: float = 0.1,
        dropout: float = 0.0,
        encoder_kernel: int = 3,
        decoder_kernel: int = 3,
        periodic: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        #: The constructor's arguments: ``SimVPv2(**model.settings)`` builds the same network.
        self.settings: dict[str, Any] = {
            "input_steps": input_steps,
            "target_steps": target_steps,
            "channels": channels,
            "out_channels": out_channels,
            "hidden_spatial": hidden_spatial,
            "hidden_temporal": hidden_temporal,
            "spatial_layers": spatial_layers,
            "temporal_layers": temporal_layers,
            "mlp_ratio": mlp_ratio,
            "drop_path": drop_path,
            "dropout": dropout,
            "encoder_kernel": encoder_kernel,
            "decoder_kernel": decoder_kernel,
            "periodic": periodic,
            "residual": residual,
        }
        if spatial_layers < 2 or spatial_layers % 2:
            raise ValueError(f"spatial_layers must be even and at least 2, found {spatial_layers}")
        if temporal_layers < 2:
            raise ValueError(f"temporal_layers must be at least 2, found {temporal_layers}")
        if hidden_spatial % 2:
            raise ValueError(f"hidden_spatial must be even (two groups), found {hidden_spatial}")
        for name, size in (("encoder_kernel", encoder_kernel), ("decoder_kernel", decoder_kernel)):
            if size % 2 == 0:
                raise ValueError(f"{name} must be odd, found {size}")
        if (target_steps > input_steps or residual) and out_channels > channels:
            raise ValueError(
                f"{'residual=True' if residual else 'target_steps > input_steps'} needs every "
                f"output channel among the inputs; found {channels} in, {out_channels} out"
            )
        if target_steps > input_steps and out_channels != channels:
            raise ValueError(
                "target_steps > input_steps applies the network to its own output, so it needs "
                f"as many output channels as inputs; found {channels} in, {out_channels} out"
            )
        self.input_steps, self.target_steps = input_steps, target_steps
        self.periodic, self.residual = periodic, residual
        #: Columns and rows that become one in the latent grid.
        self.stride = 2 ** (spatial_layers // 2)

        S = hidden_spatial
        frame_channels = 2 * channels if residual else channels
        halve = [bool(i % 2) for i in range(spatial_layers)]  # strides 1, 2, 1, 2, ...
        self.encoder = nn.ModuleList(
            ConvBlock(S if i else frame_channels, S, encoder_kernel, down=down, periodic=periodic)
            for i, down in enumerate(halve)
        )
        self.translator = nn.Sequential(
            *gsta_stack(
                input_steps * S,
                hidden_temporal,
                temporal_layers,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
                dropout=dropout,
                periodic=periodic,
            )
        )
        self.decoder = nn.ModuleList(
            ConvBlock(S, S, decoder_kernel, up=up, periodic=periodic) for up in reversed(halve)
        )
        self.readout = nn.Conv2d(S, out_channels, 1)
        if residual:
            self.register_buffer("change_scale", torch.ones(target_steps, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Forecast T' steps from T.

        Parameters
        ----------
        x : Tensor of shape (B, T, C, H, W)

        Returns
        -------
        Tensor of shape (B, T', C', H, W)
        """
        if x.ndim != 5 or x.shape[1] != self.input_steps:
            raise ValueError(
                f"expected input of shape (B, {self.input_steps}, "
                f"{self.settings['channels']}, H, W), found {tuple(x.shape)}"
            )
        if self.target_steps <= self.input_steps:
            return self._one_pass(x, 0)[:, : self.target_steps]
        passes, done = [], 0
        while done < self.target_steps:  # T' > T: on its own last output
            x = self._one_pass(x, done)
            passes.append(x)
            done += self.input_steps
        return torch.cat(passes, dim=1)[:, : self.target_steps]

    def _one_pass(self, x: Tensor, lead: int) -> Tensor:
        """T steps from T: encoder, translator, decoder (paper, Fig. 2 and eq. 2)."""
        B, T, _, H, W = x.shape
        frames = x
        if self.residual:
            # Change scales of this pass, repeated at the end where T' is not a multiple of T.
            leads = torch.arange(lead, lead + T, device=x.device).clamp_max(self.target_steps - 1)
            scale = self.change_scale.to(x.dtype)[leads][None, :, :, None, None]  # (1,T,C',1,1)
            last = x[:, -1:]
            # Frame t is T-t steps from the last one: the change typical of that many steps.
            frames = torch.cat([x, (x - last) / self._lag_scale(x)], dim=2)  # (B,T,2C,H,W)
        frames = self._pad(frames.flatten(0, 1))  # (BT, C, H', W')

        # Encoder, every frame by itself: (BT, C, H', W') -> (BT, S, h, w). Section III-B.
        z = skip = self.encoder[0](frames)
        for block in self.encoder[1:]:
            z = block(z)

        # Translator on the stacked frames: (B, TS, h, w). Section III-C.
        _, S, h, w = z.shape
        z = channels_last(z.reshape(B, T * S, h, w))
        z = channels_last(self.translator(z)).reshape(B * T, S, h, w)

        # Decoder; its last block also sees the first block's output. Section III-D.
        for block in self.decoder[:-1]:
            z = block(z)
        z = self.readout(self.decoder[-1](z + skip))[..., :H, :W]
        y = z.reshape(B, T, -1, H, W)
        if self.residual:
            y = last[:, :, : y.shape[2]] + scale * y.to(x.dtype)
        return y

    def _lag_scale(self, x: Tensor) -> Tensor:
        """Typical change over the lags T-1, ..., 1, 0 of the input frames, (1, T, C, 1, 1)."""
        T, C = x.shape[1:3]
        lags = torch.arange(T - 1, -1, -1, device=x.device)
        index = (lags - 1).clamp(0, self.target_steps - 1)  # lag 0 has difference 0 anyway
        scale = self.change_scale.to(x.dtype)[index]
        if scale.shape[1] < C:  # inputs that are not forecast: compared in their own units
            scale = F.pad(scale, (0, C - scale.shape[1]), value=1.0)
        return scale[None, :, :, None, None]

    def _pad(self, x: Tensor) -> Tensor:
        """Pad H and W to multiples of the stride (cropped again at the exit)."""
        rows, columns = -x.shape[-2] % self.stride, -x.shape[-1] % self.stride
        if columns:
            x = F.pad(x, (0, columns, 0, 0), mode="circular" if self.periodic else "replicate")
        if rows:
            x = F.pad(x, (0, 0, 0, rows), mode="replicate")
        return x


class _ChannelsLast(torch.autograd.Function):
    """Channels-last memory for a tensor and for its gradient.

    Where the two differ, CPU convolutions fall back to reference kernels, up to 100 times slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)


def channels_last(x: Tensor) -> Tensor:
    """Return `x` in channels-last memory; its gradient comes back so too."""
    if x.requires_grad and torch.is_grad_enabled():
        return _ChannelsLast.apply(x)  # type: ignore[no-any-return]
    return x.contiguous(memory_format=torch.channels_last)


class Conv2d(nn.Conv2d):
    """A 2-D convolution that pads to keep the grid, with longitude wrapped round if `periodic`."""

    def __init__(self, c_in: int, c_out: int, kernel: int, *, periodic: bool, **kwargs: Any):
        self.reach = (kernel - 1) * kwargs.get("dilation", 1) // 2
        self.periodic = periodic
        super().__init__(
            c_in, c_out, kernel, padding=(self.reach, 0 if periodic else self.reach), **kwargs
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.dilation != (1, 1):
            return self._forward_dilated(x)
        if self.periodic and self.reach:
            x = wrap(x, self.reach)
        return channels_last(super().forward(channels_last(x)))

    def _forward_dilated(self, x: Tensor) -> Tensor:
        """The same sums without dilation: a dilated convolution is d x d plain ones, each on every
        d-th row and column. No library has a quick backward pass for dilated depthwise kernels.
        """
        d, n = self.dilation[0], self.reach
        B, C, H, W = x.shape
        if self.periodic:
            x = wrap(x, n)
        # Pad to multiples of d, then move the d x d phases into the batch: (d d B, C, H/d, W/d).
        side = 0 if self.periodic else n
        x = F.pad(x, (side, side + -W % d, n, n + -H % d))
        h, w = (H + 2 * n + -H % d) // d, (W + 2 * n + -W % d) // d
        x = x.reshape(B, C, h, d, w, d).permute(3, 5, 0, 1, 2, 4).reshape(d * d * B, C, h, w)
        x = channels_last(
            F.conv2d(channels_last(x), self.weight, self.bias, groups=self.groups)
        )
        h, w = x.shape[2:]
        x = x.reshape(d, d, B, C, h, w).permute(2, 3, 4, 0, 5, 1).reshape(B, C, h * d, w * d)
        return x[..., :H, :W]


def wrap(x: Tensor, n: int) -> Tensor:
    """Extend the last axis of `x` by `n` columns from its other end, on both sides."""
    W = x.shape[-1]
    if n > W:  # a kernel that reaches more than once round a small grid
        return x[..., torch.arange(-n, W + n, device=x.device) % W]
    return torch.cat([x[..., W - n :], x, x[..., :n]], dim=-1)


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, SiLU; optionally halving (stride 2) or doubling (PixelShuffle)."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        down: bool = False,
        up: bool = False,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(
            c_in, 4 * c_out if up else c_out, kernel, stride=2 if down else 1, periodic=periodic
        )
        self.up = up
        self.norm = nn.GroupNorm(2, c_out)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.silu(self.norm(F.pixel_shuffle(x, 2) if self.up else x))


class GatedAttention(nn.Module):
    """Gated spatiotemporal attention, eq. 6-8: a 21 x 21 kernel in three steps, then a gate.

    The large kernel is decomposed into a depthwise 5 x 5, a depthwise 7 x 7 of dilation 3, and a
    1 x 1 convolution whose two halves are the features and their gate.
    """

    def __init__(self, dim: int, *, periodic: bool = False) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(dim, dim, 1)
        self.local = Conv2d(dim, dim, 5, groups=dim, periodic=periodic)
        self.dilated = Conv2d(dim, dim, 7, groups=dim, dilation=3, periodic=periodic)
        self.gate = nn.Conv2d(dim, 2 * dim, 1)
        self.project_out = nn.Conv2d(dim, dim, 1)

    def forward(self, u: Tensor) -> Tensor:
        z = F.gelu(self.project_in(u))
        features, gate = self.gate(self.dilated(self.local(z))).chunk(2, dim=1)
        return self.project_out(torch.sigmoid(gate) * features) + u


class FeedForward(nn.Module):
    """1 x 1 convolution to r times the width, depthwise 3 x 3, GELU, 1 x 1 convolution back."""

    def __init__(self, dim: int, ratio: float, dropout: float, *, periodic: bool = False) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.depthwise = Conv2d(hidden, hidden, 3, groups=hidden, periodic=periodic)
        self.contract = nn.Conv2d(hidden, dim, 1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.depthwise(self.expand(x)))
        x = self.contract(F.dropout(x, self.dropout, self.training))
        return F.dropout(x, self.dropout, self.training)


class GSTABlock(nn.Module):
    """x + DropPath(s1 * Attention(BN(x))), then x + DropPath(s2 * FeedForward(BN(x))).

    `out` gives the width behind the block: a 1 x 1 convolution where it differs from `dim`.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        mlp_ratio: float,
        drop_path: float,
        dropout: float,
        periodic: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.attention = GatedAttention(dim, periodic=periodic)
        self.scale1 = nn.Parameter(torch.full((dim,), 0.01))
        self.norm2 = nn.BatchNorm2d(dim)
        self.feed_forward = FeedForward(dim, mlp_ratio, dropout, periodic=periodic)
        self.scale2 = nn.Parameter(torch.full((dim,), 0.01))
        self.drop_path = drop_path
        for module in self.modules():  # N(0, 2 / fan_out), fan_out per group
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.resize = nn.Conv2d(dim, out, 1) if out != dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._branch(self.scale1, self.attention(self.norm1(x)))
        x = x + self._branch(self.scale2, self.feed_forward(self.norm2(x)))
        return self.resize(x)

    def _branch(self, scale: Tensor, y: Tensor) -> Tensor:
        if self.training and self.drop_path:  # stochastic depth: a sample keeps the branch or not
            keep = 1 - self.drop_path
            y = y * y.new_empty(len(y), 1, 1, 1).bernoulli_(keep).div_(keep)
        return scale[:, None, None] * y


def gsta_stack(
    outer: int,
    inner: int,
    layers: int,
    *,
    mlp_ratio: float,
    drop_path: float,
    dropout: float,
    periodic: bool,
) -> list[GSTABlock]:
    """The translator's blocks: the first at `outer` (T*S) channels, the others at `inner` (K)."""
    rates = torch.linspace(0.01, drop_path, layers).tolist()
    return [
        GSTABlock(
            outer if i == 0 else inner,
            outer if i == layers - 1 else inner,
            mlp_ratio=mlp_ratio,
            drop_path=rates[i],
            dropout=dropout,
            periodic=periodic,
        )
        for i in range(layers)
    ]
