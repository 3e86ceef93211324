"""PhyDNet: a cell that learns a partial differential equation, beside a ConvLSTM for the rest.

Le Guen, Thome: "Disentangling Physical Dynamics from Unknown Factors for Unsupervised Video
Prediction" (arXiv:2003.01460). Sections and equations below are that paper's; sizes are the public
code's of the SimVPv2 paper (arXiv:2211.12509).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import count, pairwise, takewhile
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..layers import Conv2d, ConvTranspose2d, full_precision
from .base import zeros
from .bounded import Bounded
from .sampling import draw

_GROUPS = 16  # of the coders' norms
_MOMENTS = 7  # derivatives up to order 6 along each axis: 7 x 7 filters of 7 x 7 points
# Their names of the coders, and ours.
_CODERS = {
    "encoder_E": "encoder",
    "encoder_Ep": "physics_in",
    "encoder_Er": "residual_in",
    "decoder_Dp": "physics_out",
    "decoder_Dr": "residual_out",
    "decoder_D": "decoder",
}

State = tuple[Tensor, list[tuple[Tensor, Tensor]]]


class PhyDNet(Bounded):
    """PhyDNet: PhyCell for what follows a differential equation, ConvLSTM for what does not.

    Maps (B, T, C, H, W) to (B, T', C', H, W). It ends in a sigmoid: no forecast can leave the range
    of the training period, which ``fit`` tells (see
    :class:`~stforecast.models.recurrent.bounded.Bounded`).

    In training one coin a batch says whether it is fed with the true frames after the input, or
    with its own (the public code's way). That code lowers the probability by 0.003 an epoch, from
    1; here it falls by 4.8e-6 a step, the same on Moving MNIST at batch 16 (`sampling`). What is
    made small is the paper's loss (section 3.3): the mean square errors of all F = T + T' - 1
    frames, in the unit of the network, and the moment loss of the filters.
    (The public code makes the square of the difference between that sum and the target small,
    which is a slip.)

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    encoder_stride : {2, 4}
        Rows and columns that become one in the latent grid (``patch_size`` in the public code).
    width : int
        Of the first layers of the coders, a multiple of 16; the latent frames have twice as many
        channels.
    hidden : sequence of int
        Widths of the ConvLSTM's layers below its last, whose width is that of the latent frames.
    sampling : str or mapping
        As of :class:`~stforecast.models.recurrent.base.Recurrent`; the probability that all
        frames of a batch are true.
    **options
        As of :class:`~stforecast.models.recurrent.base.Recurrent`.

    References
    ----------
    .. [1] arXiv:2003.01460, section 3: 3.1 (the two branches), 3.2 (PhyCell), 3.3 (the loss).
    """

    openstl_ignored = r"^(phycell|convcell|k2m)\."  # these repeat others, or are constants
    openstl_names = (
        *(
            (rf"^encoder\.{theirs}\.(up)?c{layer + 1}\.main", f"{ours}.{layer}")
            for theirs, ours in _CODERS.items()
            for layer in range(3)
        ),
        (r"^encoder\.decoder_D\.upc3\.", "readout."),
        (r"^encoder\.phycell\.cell_list\.0\.F\.conv1\.", "physics.derivatives."),
        (r"^encoder\.phycell\.cell_list\.0\.F\.bn1\.", "physics.norm."),
        (r"^encoder\.phycell\.cell_list\.0\.F\.conv2\.", "physics.combine."),
        (r"^encoder\.phycell\.cell_list\.0\.convgate\.", "physics.gate."),
        (r"^encoder\.convcell\.cell_list\.(\d+)\.conv\.", r"residual.\1."),
    )
    benchmarks: ClassVar[dict[str, dict[str, Any]]] = {
        "": {"encoder_stride": 2},
        "moving_mnist": {"encoder_stride": 4},
        "kth": {"encoder_stride": 4},
        "caltech": {"encoder_stride": 4},
    }
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        "encoder_stride": (2, 4),
        "width": (_GROUPS, 100_000),
        "hidden": (1, 100_000),
    }
    lists = ("hidden",)

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        encoder_stride: int = 4,
        width: int = 32,
        hidden: Sequence[int] = (128, 128),
        sampling: str | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if sampling is None:
            sampling = {"kind": "standard", "decay": 4.8e-6, "stop": 208_333}
        own = {"encoder_stride": encoder_stride, "width": width, "hidden": hidden}
        options |= {"stride": encoder_stride, "sampling": sampling, "own": own}
        super().__init__(input_steps, target_steps, channels, **options)
        if encoder_stride == 3 or width % _GROUPS:
            raise InputError(
                f"encoder_stride must be 2 or 4 and width a multiple of {_GROUPS}, found "
                f"{encoder_stride} and {width}"
            )
        deep, last = 2 * width, encoder_stride // 2
        conv = {"circular_longitude": self.circular_longitude}

        def layers(*sizes: tuple[int, int, int], up: bool = False) -> nn.Sequential:
            return nn.Sequential(*(Layer(*size, up=up, **conv) for size in sizes))

        # The coder E of frames, those of the two branches, and their inverses; figure 2.
        self.encoder = layers((self.channels, width, 2), (width, width, 1), (width, deep, last))
        self.physics_in, self.residual_in = (layers(*2 * [(deep, deep, 1)]) for _ in range(2))
        self.physics = PhyCell(deep, **conv)
        widths = [deep, *self.settings["hidden"], deep]
        self.residual = nn.ModuleList(
            JointConv(below, c, 4 * c, **conv) for below, c in pairwise(widths)
        )
        self.physics_out, self.residual_out = (
            layers(*2 * [(deep, deep, 1)], up=True) for _ in range(2)
        )
        self.decoder = layers((deep, width, 2), (width, width, 1), up=True)
        self.readout = ConvTranspose2d(width, self.out_channels, last, **conv)

    def inlet(self, frames: Tensor) -> Tensor:
        """Encode frames (N, C, H, W), with all that depends on them alone: (N, ..., h, w)."""
        z = self.encoder(frames)
        u, r = self.physics_in(z), self.residual_in(z)
        first: JointConv = self.residual[0]  # type: ignore[assignment]
        return torch.cat([u, self.physics.gate.x(u), first.x(r)], dim=1)

    def begin(self, frame: Tensor) -> State:
        """The state of PhyCell, and output and cell state of each layer of ConvLSTM: zero."""
        frame, deep = frame[..., :: self.stride, :: self.stride], 2 * self.settings["width"]
        widths = (*self.settings["hidden"], deep)
        return zeros(frame, deep), [(zeros(frame, c), zeros(frame, c)) for c in widths]

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of both branches, whose outputs are added before they are decoded.

        Parameters
        ----------
        u : Tensor of shape (B, ..., h, w)
            Of :meth:`.Unrolled.inlet`.
        state : (Tensor, list of (Tensor, Tensor))
            As of :meth:`begin`.

        Returns
        -------
        z : Tensor of shape (B, C', H, W)
            For :meth:`.Bounded.close`.
        state : (Tensor, list of (Tensor, Tensor))
        """
        physical, residual = state
        deep = physical.shape[1]
        physical = self.physics(u[:, :deep], u[:, deep : 2 * deep], physical)
        ahead = u[:, 2 * deep :]
        new: list[tuple[Tensor, Tensor]] = []
        for conv, (h, c) in zip(self.residual, residual, strict=True):
            if new:
                ahead = conv.x(new[-1][0])  # type: ignore[operator]
            i, f, o, g = conv(ahead, h).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            new.append((torch.sigmoid(o) * torch.tanh(c), c))
        z = self.decoder(self.physics_out(physical) + self.residual_out(new[-1][0]))
        # Full precision behind the last convolution: in (1/2, 1) bfloat16 has steps of 1/256.
        return self.readout(z).to(physical.dtype), (physical, new)

    def teach(
        self,
        x: Tensor,
        y: Tensor,
        step: int,
        generator: torch.Generator | None = None,
        *,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Go through a training sequence, with all true frames after the input or with none.

        Parameters
        ----------
        x, y, step, generator, mask
            As :meth:`~stforecast.models.recurrent.base.Recurrent.teach` has them.

        Returns
        -------
        frames : Tensor of shape (B, F, C', H, W)
        extra : Tensor
            The moment loss, as a part of the mean over F frames.
        """
        if mask is None:
            rate = self.sampling.rates(step, x.shape[1], 2)[-1:]
            mask = draw(rate, 1, generator).expand(len(x), y.shape[1] - 1)
        return super().teach(x, y, step, generator, mask=mask)

    def extra_loss(self, frames: Tensor, truth: Tensor, state: Any) -> Tensor:
        """The moment loss beside the mean square error, on the scale of `frames`.

        Parameters
        ----------
        frames, truth, state
            As :meth:`.Unrolled.extra_loss` has them.

        Returns
        -------
        Tensor
            A number.
        """
        return self.squared_unit() * self.physics.moment_loss() / frames.shape[1]

    @classmethod
    def arranged(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their convolutions of [x, h], as ours of x and of h.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            As of :meth:`.Recurrent.arranged`.

        Returns
        -------
        dict of str to Tensor
        """
        found = dict(tensors)
        joint = [k for k in found if re.match(r"(residual\.\d+|physics\.gate)\.weight", k)]
        for name in joint:
            weight, part = found.pop(name), name.removesuffix("weight")
            # The states have a quarter of the gates' channels, and PhyCell's as many as its gate.
            c = len(weight) // (1 if part.startswith("physics") else 4)
            found[f"{part}x.weight"], found[f"{part}h.weight"] = weight[:, :-c], weight[:, -c:]
            found[f"{part}x.bias"] = found.pop(f"{part}bias")
        return found

    @classmethod
    def from_openstl(
        cls, options: dict[str, Any], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Any]:
        """Our settings, from the hyper-parameters of the public code, and from sizes it fixes.

        Parameters
        ----------
        options, shapes
            As of :meth:`.Recurrent.from_openstl`.

        Returns
        -------
        dict
        """
        patch = int(options.pop("patch_size", 4))
        settings: dict[str, Any] = {"encoder_stride": patch if patch in (2, 4) else 4}  # as there
        names = (f"residual.{i}.h.weight" for i in count())
        widths = [shapes[name][1] for name in takewhile(shapes.__contains__, names)]
        if widths:
            settings["hidden"] = widths[:-1]
        if "encoder.0.0.weight" in shapes:
            settings["width"] = shapes["encoder.0.0.weight"][0]
        return settings


class Layer(nn.Sequential):
    """A 3 x 3 convolution, GroupNorm and LeakyReLU of the coders.

    Parameters
    ----------
    c_in, c_out : int
        Channels.
    stride : int
        1 or 2.
    up : bool
        Transposed: the grid grows by the stride.
    circular_longitude : bool
        As of :class:`PhyDNet`.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, up: bool, circular_longitude: bool
    ) -> None:
        around = {"circular_longitude": circular_longitude}
        super().__init__(
            ConvTranspose2d(c_in, c_out, stride, **around)
            if up
            else Conv2d(c_in, c_out, 3, stride=stride, **around),
            nn.GroupNorm(_GROUPS, c_out),
            nn.LeakyReLU(0.2),
        )


class JointConv(nn.Module):
    """A 3 x 3 convolution of [x, h]: that of x can be taken ahead, for many frames at once.

    Parameters
    ----------
    c_x, c_h, c_out : int
        Channels of x, of h and of the result.
    circular_longitude : bool
        As of :class:`PhyDNet`.
    """

    def __init__(self, c_x: int, c_h: int, c_out: int, *, circular_longitude: bool) -> None:
        super().__init__()
        around = {"circular_longitude": circular_longitude}
        self.x = Conv2d(c_x, c_out, 3, **around)
        self.h = Conv2d(c_h, c_out, 3, bias=False, **around)
        most = 1 / math.sqrt(9 * (c_x + c_h))  # PyTorch's start of the one convolution
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -most, most)

    def forward(self, ahead: Tensor, h: Tensor) -> Tensor:
        """What `x` gives (B, c_out, h, w), and h (B, c_h, h, w) -> (B, c_out, h, w)."""
        return ahead + self.h(h)


class PhyCell(nn.Module):
    """A step of a differential equation, then a correction by the frame (section 3.2).

    The prediction is ``h + Phi(h)``, where Phi combines the partial derivatives of h up to order 6
    along each axis: filters of 7 x 7 points which the moment loss makes finite differences. The
    correction adds ``K (E(u) - prediction)``, K a gate like the gain of a Kalman filter.

    Parameters
    ----------
    c : int
        Channels of the state.
    circular_longitude : bool
        As of :class:`PhyDNet`.
    """

    def __init__(self, c: int, *, circular_longitude: bool) -> None:
        super().__init__()
        around = {"circular_longitude": circular_longitude}
        self.derivatives = Conv2d(c, _MOMENTS**2, _MOMENTS, **around)
        self.norm = nn.GroupNorm(_MOMENTS, _MOMENTS**2)
        self.combine = nn.Conv2d(_MOMENTS**2, c, 1)
        self.gate = JointConv(c, c, c, **around)

    def forward(self, u: Tensor, gate: Tensor, h: Tensor) -> Tensor:
        """Frame, its part of the gate, and state, all (B, c, h, w) -> the next state."""
        predicted = h + self.combine(self.norm(self.derivatives(h)))
        gain = torch.sigmoid(self.gate(gate, h))
        return predicted + gain * (u - predicted)

    def moment_loss(self) -> Tensor:
        """How far the filters are from the derivatives that they stand for (section 3.3).

        The moment of order (i, j) of a filter w is the sum of ``w[a, b] (a - 3)^i (b - 3)^j / (i!
        j!)`` over its points; filter 7 i + j is the derivative of that order if this moment is 1
        and all others are 0.
        """
        weight = self.derivatives.weight
        with full_precision(weight):
            offset = (
                torch.arange(_MOMENTS, device=weight.device, dtype=weight.dtype) - _MOMENTS // 2
            )
            powers = torch.stack([offset**i / math.factorial(i) for i in range(_MOMENTS)])
            moments = torch.einsum("ia,ncab,jb->ncij", powers, weight, powers).flatten(2)
            wanted = torch.eye(_MOMENTS**2, device=weight.device, dtype=weight.dtype)
            return (moments - wanted[:, None]).square().mean((0, 2)).sum()
