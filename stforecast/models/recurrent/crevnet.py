"""CrevNet: a coder that is its own inverse, run both ways, and a reversible predictor between.

Yu, Lu, Easterbrook, Fidler: "Efficient and Information-Preserving Future Frame Prediction and
Beyond" (ICLR 2020; first as arXiv:1910.11577). Sections below are those of the former; sizes and
the loops are the public code's of the SimVPv2 paper (arXiv:2211.12509).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, groupby, pairwise, takewhile
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ..kernels import wrap, wrong_in_16_bits
from ..layers import full_precision
from .base import Recurrent

_DEPTH = 3  # frames of a window
State = tuple[list[tuple[Tensor, Tensor]], Tensor]


class CrevNet(Recurrent):
    """CrevNet: windows of three frames, coded without loss, predicted, and decoded by the inverse.

    Maps (B, T, C, H, W) to (B, T', C', H, W), T of at least 3. A pass takes the window of frames
    t - 3, t - 2 and t - 1 to that of frames t - 2, t - 1 and t. Frames of it that are known are put
    in place of their estimates before the next pass. The coder is reversible with the statistics of
    its batch norms fixed, as they are in a forecast; in training each pass has its own.

    In training every window has the true frames (no sampling), and what is made small is the
    mean square error of all three frames of all windows.

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    blocks : sequence of int
        Blocks of the coder's stages; the grid is halved before the first and by each later one.
    layers : int
        Of the predictor.
    warm_up : bool
        Go through the input frames from the first one on before the forecast, as the authors do.
        The public code does so too, and then begins anew, so that its forecasts depend on the last
        three frames alone: that is False.
    **options
        As of :class:`~stforecast.models.recurrent.base.Recurrent`, without `patch`; `sampling` can
        only be "always".

    References
    ----------
    .. [1] Yu et al. (2020), section 3: two-way autoencoder, reversible module, 3-D convolutions.
    """

    openstl_names = (
        *(
            (rf"^encoder\.stack\.{block}\.bottleneck_block\.{n}\.", rf"coder.{ours}.{part}.")
            for block, ours, names in (
                ("0", "0", {0: "convs.0", 1: "norms.1", 3: "convs.1", 5: "norms.2", 7: "convs.2"}),
                (r"(\d+)", r"\1", {0: "norms.0", 2: "convs.0", 3: "norms.1"}),
                (r"(\d+)", r"\1", {5: "convs.1", 7: "norms.2", 9: "convs.2"}),
            )
            for n, part in names.items()
        ),
        (r"^frame_predictor\.att\.(\d+)\.0\.", r"predictor.\1.blend."),
        (r"^frame_predictor\.convlstm\.", "predictor."),
        (r"\.w1\.", ".mix."),
        (r"_gate1\.", "_memory."),
        (r"_gate\.", "_cell."),
        (r"\.out_cell\.", ".output."),
        (r"\.in_", ".input_"),
        (r"\.cell_", ".candidate_"),
    )
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        "input_steps": (_DEPTH, 10_000),
        "blocks": (1, 1_000),
        "layers": (1, 1_000),
    }
    flags = ("warm_up",)
    changes = False
    lists = ("blocks",)

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        blocks: Sequence[int] = (4, 5, 3),
        layers: int = 8,
        warm_up: bool = True,
        **options: Any,
    ) -> None:
        own = {"blocks": blocks, "layers": layers, "warm_up": warm_up}
        if isinstance(blocks, (list, tuple)):
            options["stride"] = 2 ** len(blocks)
        if options.setdefault("sampling", "always") != "always" or options.get("patch", 1) != 1:
            raise InputError(
                "CrevNet is trained on true frames and folds frames itself: expected "
                f"sampling='always' and patch=1, found {options}"
            )
        super().__init__(input_steps, target_steps, channels, own=own, **options)
        self.warm_up = warm_up
        around = {"circular_longitude": self.circular_longitude}
        coder: list[nn.Module] = []
        width = 2 * self.channels  # of each of the two streams
        for stage, several in enumerate(blocks):
            for k in range(several):
                wider = 4 * width if stage > 0 and k == 0 else width
                coder.append(Block(width, wider, not coder, **around))
                width = wider
        self.coder, self.width = nn.ModuleList(coder), width
        self.predictor = nn.ModuleList(Layer(width, **around) for _ in range(layers))

    def encode(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Code a window: (B, C, 3, H, W) -> two streams (B, c, 3, h, w), without loss."""
        a, b = fold(window).chunk(2, dim=1)
        for block in self.coder:
            more = block(b)
            if more.shape != b.shape:
                a, b = fold(a), fold(b)
            a, b = b, more + a
        return a, b

    def decode(self, code: tuple[Tensor, Tensor]) -> Tensor:
        """Invert :meth:`encode`: two streams (B, c, 3, h, w) -> (B, C, 3, H, W)."""
        a, b = code
        for block in reversed(self.coder):
            before = unfold(a) if block.halves else a
            more = b - block(before)
            a, b = unfold(more) if block.halves else more, before
        return unfold(torch.cat([a, b], dim=1))

    def begin(self, frame: Tensor) -> State:
        """Output and cell state of each layer of the predictor, and the memory they share: zero.

        Parameters
        ----------
        frame : Tensor of shape (B, C, H, W)
            The first, for its sizes, type and device.
        """
        h, w = (n // self.stride for n in frame.shape[-2:])
        zero = frame.new_zeros(len(frame), self.width, _DEPTH, h, w)
        return [(zero, zero)] * len(self.predictor), zero

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        """A pass: code the window, predict the next one's code, decode it.

        Parameters
        ----------
        u : Tensor of shape (B, C, 3, H, W)
            Three frames.
        state : (list of (Tensor, Tensor), Tensor)
            As of :meth:`begin`.

        Returns
        -------
        window : Tensor of shape (B, C, 3, H, W)
            Estimates of the last two of these, and of the next one.
        state : (list of (Tensor, Tensor), Tensor)
        """
        (a, b), (cells, memory), new = self.encode(u), state, []
        for layer, (h, c) in zip(self.predictor, cells, strict=True):
            a, b, h, c, memory = layer(a, b, h, c, memory)
            new.append((h, c))
        return self.decode((a, b)), (new, memory)

    def unroll(
        self, x: Tensor, steps: int, y: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Go through the windows of the input, and on with those of the network's own frames.

        Parameters
        ----------
        x : Tensor of shape (B, T, C, H, W)
        steps : int
            How many frames after the input to give.
        y, mask
            Not used.

        Returns
        -------
        frames : Tensor of shape (B, n + steps, C', H, W)
            Estimates of the last n frames of the input, n = T - 3 (0 without warm-up), and on.
        state : (list of (Tensor, Tensor), Tensor)
            After the last pass.
        """
        windows, state = self._passes(x, steps)
        return windows[:, :, -1], state

    def teach(
        self,
        x: Tensor,
        y: Tensor,
        step: int,
        generator: torch.Generator | None = None,
        *,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Go through all windows of a training sequence, each with the true frames.

        Parameters
        ----------
        x, y : Tensor of shape (B, T, C, H, W) and (B, T', C', H, W)
            Inputs and targets. A target that is NaN gives way to its estimate.
        step, generator, mask
            Not used: nothing is drawn.

        Returns
        -------
        frames : Tensor of shape (B, n, C', H, W)
            The last frame of each window but the first, n = T + T' - 3.
        extra : Tensor
            The mean square error of the first frame of each, and that of the second: with the mean
            square error of `frames` it is, times n / 3, the public code's loss.
        """
        windows, _ = self._passes(x, y.shape[1], y)
        truth = torch.cat([x[:, :, : self.out_channels], y], dim=1).unfold(1, _DEPTH, 1)
        wanted = truth[:, 1:].movedim(-1, 2)[:, :, :-1]
        known = ~wanted.isnan()
        gap = windows[:, :, :-1] - wanted.where(known, windows[:, :, :-1])
        extra = gap.square().sum() / known.sum().clamp_min(1) * (_DEPTH - 1)
        return windows[:, :, -1], extra

    def _passes(self, x: Tensor, steps: int, y: Tensor | None = None) -> tuple[Tensor, State]:
        """Estimated windows (B, n, 3, C', H, W), and the state; of true frames where there is y."""
        self._check_input(x, steps)
        T, size, given = x.shape[1], x.shape[-2:], self.cut(x)
        targets = None if y is None else self.cut(y)
        first = 0 if self.warm_up or targets is not None else T - _DEPTH
        window, state = given[:, first : first + _DEPTH].transpose(1, 2), self.begin(given[:, 0])
        windows: list[Tensor] = []
        for t in range(first + _DEPTH, T + steps):
            ahead, state = self.step(window, state)
            own = ahead[:, : self.out_channels].transpose(1, 2)
            windows.append(self.join(own, size))
            frames = []
            for k, s in enumerate(range(t - _DEPTH + 1, t + 1)):
                frame = given[:, s] if s < T else self._own_frame(own[:, k], given, s, size)
                if s >= T and targets is not None:
                    true = self._true_frame(given, targets, s)
                    frame = true.where(~true.isnan(), frame)
                frames.append(frame)
            window = torch.stack(frames, dim=2)
        return torch.stack(windows, dim=1), state

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
            With that code's way to forecast: without warm-up.
        """
        settings: dict[str, Any] = {"warm_up": False}
        if "predictor_rnn_layers" in options:
            settings["layers"] = int(options.pop("predictor_rnn_layers"))
        for follows_from_others in ("rnn_size", "n_eval", "batch_size"):
            options.pop(follows_from_others, None)
        names = (f"coder.{i}.convs.2.weight" for i in count())
        widths = [shapes[name][0] for name in takewhile(shapes.__contains__, names)]
        blocks = [len(list(stage)) for _, stage in groupby(widths)]
        return settings | ({"blocks": blocks} if blocks else {})


class Block(nn.Module):
    """What one stream adds to the other: three 3-D convolutions, batch norm and ReLU before each.

    Parameters
    ----------
    c_in, c_out : int
        Channels; with more out than in the grid is halved.
    first : bool
        Nothing before its first convolution: it is the coder's first block.
    circular_longitude : bool
        As of :class:`CrevNet`.
    """

    def __init__(self, c_in: int, c_out: int, first: bool, *, circular_longitude: bool) -> None:
        super().__init__()
        self.halves, self.first = c_out > c_in, first
        widths = (c_in, c_out // 2, c_out // 2, c_out)
        self.norms = nn.ModuleList(
            nn.Identity() if first and k == 0 else nn.BatchNorm3d(width)
            for k, width in enumerate(widths[:-1])
        )
        options: dict[str, Any] = {"bias": False, "circular_longitude": circular_longitude}
        self.convs = nn.ModuleList(
            Conv3d(*pair, 3, stride=2 if self.halves and k == 0 else 1, **options)
            for k, pair in enumerate(pairwise(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, 3, H, W) -> (B, c_out, 3, H, W), or half of H and W."""
        for k, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            x = conv(x if self.first and k == 0 else F.relu(norm(x)))
        return x


class Layer(nn.Module):
    """A layer of the predictor: a spatiotemporal LSTM of 3-D convolutions on one stream.

    Its output is blended into the other stream, and the streams change places.

    Parameters
    ----------
    width : int
        Channels of a stream, of the states and of the memory.
    circular_longitude : bool
        As of :class:`CrevNet`.
    """

    def __init__(self, width: int, *, circular_longitude: bool) -> None:
        super().__init__()
        around = {"circular_longitude": circular_longitude}
        self.input_cell, self.remember_cell, self.candidate_cell = (
            Conv3d(3 * width, width, 3, **around) for _ in range(3)
        )
        self.input_memory, self.remember_memory, self.candidate_memory = (
            Conv3d(3 * width, width, 3, **around) for _ in range(3)
        )
        self.output = Conv3d(4 * width, width, 3, **around)
        self.mix = Conv3d(2 * width, width, 1, **around)
        self.blend = Conv3d(width, width, 1, **around)

    def forward(
        self, a: Tensor, b: Tensor, h: Tensor, c: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Streams, output, cell state and memory (B, width, 3, h, w) -> the next ones."""
        seen = torch.cat([a, h, c], dim=1)
        f, i = torch.sigmoid(self.remember_cell(seen)), torch.sigmoid(self.input_cell(seen))
        c = f * c + i * torch.tanh(self.candidate_cell(seen))
        shared = torch.cat([a, memory, c], dim=1)
        f, i = torch.sigmoid(self.remember_memory(shared)), torch.sigmoid(self.input_memory(shared))
        memory = f * memory + i * torch.tanh(self.candidate_memory(shared))
        gate = torch.sigmoid(self.output(torch.cat([a, h, c, memory], dim=1)))
        h = gate * torch.tanh(self.mix(torch.cat([c, memory], dim=1)))
        share = torch.sigmoid(self.blend(h))
        return (1 - share) * b + share * h, a, h, c, memory


class Conv3d(nn.Conv3d):
    """A 3-D convolution that pads to keep the grid; `stride` is of rows and columns.

    Parameters
    ----------
    c_in, c_out, kernel : int
        Channels, and points along each axis.
    stride, bias
        As of ``nn.Conv3d``, the stride of rows and columns alone.
    circular_longitude : bool
        Pad the last axis with its other end.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int = 1,
        bias: bool = True,
        circular_longitude: bool,
    ) -> None:
        self.wrapped = kernel // 2 if circular_longitude else 0
        reach = kernel // 2
        padding = (reach, reach, reach - self.wrapped)
        super().__init__(c_in, c_out, kernel, (1, stride, stride), padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, D, H, W) -> (B, c_out, D, H, W), or with stride 2 half of H and W."""
        x = wrap(x, self.wrapped) if self.wrapped else x
        if wrong_in_16_bits(x, self.stride[-1]):
            with full_precision(x):
                return super().forward(x.to(self.weight.dtype))
        return super().forward(x)


def fold(x: Tensor) -> Tensor:
    """Points of 2 x 2 to channels (row, column, channel): (B, C, D, H, W) -> half of H and W."""
    x = x.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # (B, C, D, h, row, w, column)
    return x.permute(0, 4, 6, 1, 2, 3, 5).flatten(1, 3)


def unfold(x: Tensor) -> Tensor:
    """Invert :func:`fold`."""
    x = x.unflatten(1, (2, 2, -1))  # (B, row, column, C, D, h, w)
    return x.permute(0, 3, 4, 5, 1, 6, 2).flatten(-2).flatten(-3, -2)
