"""SimVPv2: a convolutional encoder, a stack of gated spatiotemporal attention blocks, a decoder.

Tan, Gao, Li, Li: "SimVPv2: Towards Simple yet Powerful Spatiotemporal Predictive Learning"
(arXiv:2211.12509). Sections and equations in the comments below are that paper's.

Shapes: B samples, T input steps, T' target steps, C channels, H x W grid; S = ``encoder_channels``
(hid_S in the paper's code), K = ``translator_channels`` (hid_T); h x w is the latent grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..task import Task
from . import sizing
from .first_guess import RIDGE, FirstGuess
from .folding import Folded
from .gsta import GSTABlock
from .layers import (
    ConvBlock,
    channels_last,
    full_precision,
)
from .members import Perturbation
from .mirror import Mirror, check_rows, odd_channels, refuse_vectors
from .rollout import rollout
from .translators import NAMES, NEED_GRID, IncepU, translator_block
from .translators_gated import GATED, gated_block

# The public code's configurations: S, K, spatial and temporal layers, drop_path.
_BENCHMARKS: dict[str, tuple[Any, ...]] = {
    "moving_mnist": (64, 512, 4, 8, 0.0),
    "taxibj": (32, 256, 2, 8, 0.1),
    "weatherbench_t2m": (32, 256, 2, 8, 0.1),
    "kth": (64, 256, 2, 6, 0.2),
    "caltech": (64, 256, 2, 6, 0.2),
    "robonet": (64, 512, 4, 6, 0.0),
    "bridgedata": (64, 512, 4, 6, 0.0),
}
# What each setting may be: from, to; a fraction is less than its second number.
_WHOLE = {
    "encoder_channels": (2, 100_000),
    "translator_channels": (1, 1_000_000),
    "encoder_layers": (2, 32),
    "translator_blocks": (2, 256),
    "encoder_kernel": (1, 999),
    "decoder_kernel": (1, 999),
    "noise": (0, 10_000),
    "known_channels": (0, 100_000),
}
_FRACTION = {"mlp_ratio": (0.0, 1000.0), "drop_path": (0.0, 1.0), "dropout": (0.0, 1.0)}
_FRACTION |= {"guess_ridge": (0.0, 1e6)}
_LARGE: dict[str, Any] = {
    "encoder_channels": 128,
    "translator_channels": 1024,
    "translator_blocks": 24,
}


class SimVPv2(nn.Module):
    """SimVPv2, with gated spatiotemporal attention (gSTA) or another translator in its middle.

    Maps (B, T, C, H, W) to (B, T', C', H, W).

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
    encoder_channels, translator_channels : int
        S and K, the widths of the encoder and of the translator (``hid_S``, ``hid_T``).
    encoder_layers, translator_blocks : int
        Layers of the encoder and of the decoder (even; every second one halves the grid), and
        blocks of the translator (``N_S``, ``N_T``).
    mlp_ratio : float
        Expansion in the blocks' feed-forward part.
    drop_path : float or None
        Stochastic depth of the last block; it changes linearly from 0.01 at the first, even to 0.
        None switches stochastic depth off. IncepU and ConvMixer have none.
    stochastic_depth : {"linear", "uniform"}
        Whether the blocks' rates change linearly, or all are `drop_path`.
    dropout : float
        Dropout in the feed-forward part, and behind the attention of "vit", "swin" and "uniformer".
    encoder_kernel, decoder_kernel : int
        Kernel sizes of the encoder and of the decoder, odd.
    circular_longitude : bool
        Pad longitude (the last axis) with its other end instead of with zeros. Beyond the paper;
        for global grids. Rolling the input by a multiple of :attr:`stride` columns then rolls
        the output by as many (Swin: by whole windows,
        where these fit the latent columns; MLP-Mixer cannot be circular_longitude).
    predict_change : bool
        Forecast the change from the last input step. Beyond the paper; see `Notes`.
    linear_guess : bool
        With `predict_change`: forecast the change from a first guess that is linear, a ridge
        regression of each point's own (:class:`stforecast.models.first_guess.FirstGuess`), which
        the network also sees. It then belongs to its `grid`.
    guess_ridge : float
        How much the predictors of this regression are damped: the more, the fewer windows there
        are to train on.
    known_channels : int
        How many of the input channels, the last ones, hold what is known for the target steps, on
        the frames in their order; the regression has them as predictors. :meth:`for_task` counts
        them.
    mirror : bool
        Learn from the mirror image about the equator as well, and forecast the mean of both
        (:mod:`stforecast.models.mirror`). Beyond the paper; for grids that are the same north and
        south. A forecast takes twice as long.
    odd_channels : sequence of int
        With `mirror`: input channels whose sign the mirror changes, such as the sine of latitude.
        :meth:`for_task` finds them.
    translator : str
        "gsta"; one of the paper's ablation: "incepu" (which makes this SimVP, the first version),
        "vit", "swin", "poolformer", "mlpmixer", "convmixer"; or one more of the authors' framework:
        "tau" (which makes this TAU), "van", "moganet", "hornet", "convnext", "uniformer".
    grid : (int, int), optional
        H and W of the input. Needed by "swin" (which chooses its windows by it, and then takes
        any grid) and "mlpmixer" (whose weights fit this grid only); the others take any grid.
    noise : int
        Random numbers at each place of the latent grid, with which members of an ensemble are
        drawn: see :mod:`stforecast.models.members`. Beyond the paper; 0: none.

    Notes
    -----
    With ``predict_change=True`` the output is ``x[T] + tendency_std * network``, and every input
    frame is accompanied, in what is forecast, by its difference from the last one, in the same
    units. ``tendency_std`` (T', C') is a buffer with the typical size of the change at each lead
    time: the network works on numbers of order one at every lead, and a tenth of a kelvin survives
    bfloat16. Scaling by the standard deviation of the change follows Lam et al. (2023),
    doi:10.1126/science.adi2336.

    The parts of one trained network can be put into another (the paper's module study, section
    V-E2): ``encoder``, ``translator`` and ``decoder`` (with its ``readout``). Here the translator
    of `b`, of whatever kind, between the encoder and the decoder of `a`::

        mixed = copy.deepcopy(b)
        for part in ("encoder", "decoder", "readout"):
            getattr(mixed, part).load_state_dict(getattr(a, part).state_dict())

    Of several states of one network :func:`stforecast.models.assemble` makes one.

    References
    ----------
    .. [1] arXiv:2211.12509, section III (SimVP) and IV (gSTA).
    """

    tendency_std: Tensor
    #: ``torch.compile`` pays for many forecasts on a GPU.
    compiles = True

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        out_channels: int | None = None,
        encoder_channels: int = 32,
        translator_channels: int = 256,
        encoder_layers: int = 2,
        translator_blocks: int = 8,
        mlp_ratio: float = 8.0,
        drop_path: float | None = 0.1,
        stochastic_depth: str = "linear",
        dropout: float = 0.0,
        encoder_kernel: int = 3,
        decoder_kernel: int = 3,
        circular_longitude: bool = False,
        predict_change: bool = False,
        linear_guess: bool = False,
        guess_ridge: float = RIDGE,
        known_channels: int = 0,
        mirror: bool = False,
        odd_channels: Sequence[int] = (),
        translator: str = "gsta",
        grid: Sequence[int] | None = None,
        noise: int = 0,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        #: The constructor's arguments: ``SimVPv2(**model.settings)`` builds the same network.
        self.settings: dict[str, Any] = {
            "input_steps": input_steps,
            "target_steps": target_steps,
            "channels": channels,
            "out_channels": out_channels,
            "encoder_channels": encoder_channels,
            "translator_channels": translator_channels,
            "encoder_layers": encoder_layers,
            "translator_blocks": translator_blocks,
            "mlp_ratio": mlp_ratio,
            "drop_path": drop_path,
            "stochastic_depth": stochastic_depth,
            "dropout": dropout,
            "encoder_kernel": encoder_kernel,
            "decoder_kernel": decoder_kernel,
            "circular_longitude": circular_longitude,
            "predict_change": predict_change,
            "linear_guess": linear_guess,
            "guess_ridge": guess_ridge,
            "known_channels": known_channels,
            "mirror": mirror,
            "odd_channels": list(odd_channels),
            "translator": translator,
            "grid": list(grid) if isinstance(grid, Iterable) else grid,
            "noise": noise,
        }
        flags = ("circular_longitude", "predict_change", "linear_guess", "mirror")
        whole = sizing.STEPS | _WHOLE
        sizing.check_settings(self.settings, whole, _FRACTION, flags=flags, absent=("drop_path",))
        if encoder_layers < 2 or encoder_layers % 2:
            raise InputError(f"encoder_layers must be even and at least 2, found {encoder_layers}")
        if translator_blocks < 2:
            raise InputError(f"translator_blocks must be at least 2, found {translator_blocks}")
        if encoder_channels % 2:
            raise InputError(
                f"encoder_channels must be even (two groups), found {encoder_channels}"
            )
        for name, size in (("encoder_kernel", encoder_kernel), ("decoder_kernel", decoder_kernel)):
            if size % 2 == 0:
                raise InputError(f"{name} must be odd, found {size}")
        if (target_steps > input_steps or predict_change) and out_channels > channels:
            which = "predict_change=True" if predict_change else "target_steps > input_steps"
            raise InputError(
                f"{which} needs every output channel among the inputs; found {channels} in, "
                f"{out_channels} out"
            )
        if target_steps > input_steps and out_channels != channels:
            raise InputError(
                "target_steps > input_steps applies the network to its own output, so it needs "
                f"as many output channels as inputs; found {channels} in, {out_channels} out"
            )
        if stochastic_depth not in ("linear", "uniform"):
            raise InputError(
                f"stochastic_depth must be 'linear' or 'uniform', found {stochastic_depth!r:.60}"
            )
        if translator not in NAMES:
            raise InputError(f"translator must be one of {', '.join(NAMES)}; found {translator!r}")
        if linear_guess and (grid is None or not predict_change or target_steps > input_steps):
            raise InputError(
                "linear_guess=True needs predict_change=True, grid=(H, W) and no more target than "
                f"input steps; found {predict_change}, {grid!r:.40}, {target_steps} and "
                f"{input_steps}"
            )
        if guess_ridge != RIDGE and not linear_guess:
            raise InputError(f"guess_ridge={guess_ridge} is for linear_guess=True, found False")
        if known_channels and (not linear_guess or known_channels > channels - out_channels):
            raise InputError(
                f"known_channels are for linear_guess=True, and at most the {channels} channels "
                f"less the {out_channels} that are forecast; found {known_channels} and "
                f"{linear_guess}"
            )
        if odd_channels and not mirror:
            raise InputError(f"odd_channels={list(odd_channels)} are for mirror=True, found False")
        if unknown := [i for i in odd_channels if i not in range(channels)]:
            raise InputError(f"odd_channels must be from 0 to {channels - 1}, found {unknown}")
        if translator in NEED_GRID and grid is None:
            raise InputError(
                f"translator={translator!r} has weights that depend on the grid: give grid=(H, W)"
            )
        if translator == "mlpmixer" and circular_longitude:
            raise InputError(
                "circular_longitude=True needs a translator that treats all columns alike; the "
                "weights of 'mlpmixer' belong to positions"
            )
        self.input_steps, self.target_steps = input_steps, target_steps
        self.circular_longitude, self.predict_change = circular_longitude, predict_change
        #: Columns and rows that become one in the latent grid.
        self.stride = 2 ** (encoder_layers // 2)

        S = encoder_channels
        # With each frame its difference from the last one, and the first guess of one target step.
        frame_channels = channels + out_channels * (predict_change + linear_guess)
        halve = [bool(i % 2) for i in range(encoder_layers)]  # strides 1, 2, 1, 2, ...
        self.encoder = nn.ModuleList(
            ConvBlock(
                S if i else frame_channels,
                S,
                encoder_kernel,
                down=down,
                circular_longitude=circular_longitude,
            )
            for i, down in enumerate(halve)
        )
        rows, columns = grid or (1, 1)
        self.translator = _translator(
            translator,
            input_steps * S,
            translator_channels,
            translator_blocks,
            grid=(-(-rows // self.stride), -(-columns // self.stride)),
            mlp_ratio=mlp_ratio,
            drop_path=drop_path,
            uniform=stochastic_depth == "uniform",
            dropout=dropout,
            circular_longitude=circular_longitude,
        )
        inner = len(self._blocks) - 1
        outer = input_steps * S
        widths = [outer, *[translator_channels] * inner, outer] if noise else []
        #: What noise does in front of each block of the translator, and behind the last.
        self.perturb = nn.ModuleList(Perturbation(noise, width) for width in widths)
        self.decoder = nn.ModuleList(
            ConvBlock(S, S, decoder_kernel, up=up, circular_longitude=circular_longitude)
            for up in reversed(halve)
        )
        self.readout = nn.Conv2d(S, out_channels, 1)
        if predict_change:
            self.register_buffer("tendency_std", torch.ones(target_steps, out_channels))
        self.mirror = Mirror(channels, odd_channels) if mirror else None
        #: The linear first guess, where there is one: training fits it before its first step.
        self.first_guess: FirstGuess | None = None
        if linear_guess and grid is not None:
            steps = (input_steps, target_steps)
            self.first_guess = FirstGuess(
                *steps,
                out_channels,
                (rows, columns),
                known=known_channels,
                circular_longitude=circular_longitude,
                ridge=guess_ridge,
            )

    @classmethod
    def for_task(
        cls, task: Task, grid: Mapping[str, Any] | None = None, /, **settings: Any
    ) -> SimVPv2:
        """Make the network for a task; `grid` gives H and W where the translator needs them.

        Parameters
        ----------
        task : Task
        grid : mapping, optional
            As :func:`stforecast.models.registry.make_network` has it.
        **settings
            Arguments of the class, which take precedence over what follows from the task.
        """
        sizes: dict[str, Any] = sizing.of_task(task)
        wants = settings.get("translator") in NEED_GRID or settings.get("linear_guess")
        if wants and grid is not None:
            sizes["grid"] = sizing.of_grid(grid)
        # A bundle's settings have all sizes; older ones are of guesses from history alone.
        if settings.get("linear_guess") and "channels" not in settings:
            sizes["known_channels"] = task.channels_known
        if settings.get("mirror"):
            sizes["odd_channels"] = odd_channels(task, grid)
        return cls(**(sizes | settings))

    def check_grid(self, grid: Mapping[str, Any] | None) -> None:
        """Refuse a grid that has no mirror image, where the network learns from that.

        Raises
        ------
        InputError
        """
        if self.mirror is not None and grid is not None:
            check_rows(grid)

    def check_task(self, task: Task) -> None:
        """Refuse a task of other sizes, or whose outputs are not the inputs that are built upon.

        Raises
        ------
        InputError
            If steps or channels are others; with ``predict_change=True`` or more target than input
            steps, also if the outputs are not the first inputs.
        """
        sizing.check_sizes(self.settings, task)
        if self.mirror is not None:
            refuse_vectors(task)
        if self.predict_change or task.target_steps > task.input_steps:
            why = " (with predict_change=True, or more target than input steps)"
            sizing.check_outputs_first(task, "SimVPv2", why)

    def set_tendency_std(self, change: Tensor) -> None:
        """Set the typical change up to each lead time, where changes are forecast.

        Parameters
        ----------
        change : Tensor of shape (T', C')
        """
        if not self.predict_change:
            return
        self.tendency_std.copy_(change.clamp_min(1e-6))  # a channel may never change

    @classmethod
    def for_benchmark(
        cls, name: str, *, size: str = "S", translator: str = "gsta", **overrides: Any
    ) -> SimVPv2:
        """Make the paper's network for one of its benchmarks.

        Parameters
        ----------
        name : str
            "moving_mnist", "taxibj", "weatherbench_t2m", "kth" (10 -> 20; `target_steps` 40 is the
            paper's other one), "caltech", "robonet" or "bridgedata".
        size : {"S", "L"}
            "L" is the paper's large network of 524 M parameters, for Moving MNIST only.
        translator : str
            As of the class. "incepu" is SimVP, by the public code's configuration: on KTH and
            Caltech with 4 layers (the figures in print need ``translator_blocks=6``).
        **overrides
            Any argument of the class.
        """
        sizes = sizing.benchmark(name)
        if size not in ("S", "L") or (size == "L" and name != "moving_mnist"):
            raise InputError(
                f"size {size!r} does not exist for {name}: the paper has 'S' everywhere and 'L' "
                "for moving_mnist only"
            )
        S, K, spatial, temporal, drop_path = _BENCHMARKS[name]
        if translator == "incepu" and name in ("kth", "caltech"):
            temporal = 4
        settings: dict[str, Any] = {
            "encoder_channels": S,
            "translator_channels": K,
            "encoder_layers": spatial,
            "translator_blocks": temporal,
            "drop_path": drop_path,
            "translator": translator,
        }
        return cls(**(sizes | settings | (_LARGE if size == "L" else {}) | overrides))

    def folded(self, dtype: torch.dtype) -> nn.Module | None:
        """Make the quick form for a CPU, (B, T, C, H, W) -> (B, T', C', H, W); None: there is none.

        There is one of gSTA in float32, but not of a subclass, which may compute something else.
        """
        plain = type(self) is SimVPv2 and all(p.dtype == torch.float32 for p in self.parameters())
        gsta = isinstance(self.translator, nn.Sequential) and all(
            type(block) is GSTABlock for block in self.translator
        )
        return Folded(self, dtype) if plain and gsta else None

    def altered(self, **settings: Any) -> SimVPv2:
        """Make the same network with some other settings.

        Weights that they add, such as those of noise, are as in a new network; all others are kept.

        Parameters
        ----------
        **settings
            Arguments of the class.

        Returns
        -------
        SimVPv2

        Raises
        ------
        RuntimeError
            If the weights of this network do not fit the other.
        """
        made = type(self)(**(self.settings | settings)).to(self.readout.weight)
        made.load_state_dict({**made.state_dict(), **self.state_dict()})
        return made

    @property
    def takes_noise(self) -> bool:
        """Whether it draws members by noise."""
        return len(self.perturb) > 0

    def noise_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the noise of one sample on a grid: (applications, K, h, w).

        Parameters
        ----------
        height, width : int
            H and W.

        Returns
        -------
        tuple of int
        """
        h, w = -(-height // self.stride), -(-width // self.stride)
        return self.passes, self.settings["noise"], h, w

    @property
    def _blocks(self) -> Sequence[nn.Module]:
        """The blocks of the translator, of which the whole may be one."""
        one = self.translator
        return list(one) if isinstance(one, nn.Sequential) else [one]

    @property
    def passes(self) -> int:
        """How often the network is applied: more than once where T' is longer than T."""
        return -(-self.target_steps // self.input_steps)

    @property
    def receptive_field(self) -> float:
        """Input pixels along an axis that an output pixel depends on, by the kernels' sizes.

        Infinite for attention or an MLP over all positions. The statistics of GroupNorm, which
        every pixel of a frame shares, are not counted.
        """
        reach: float = sum(block.reach for block in self._blocks)  # type: ignore[misc]
        if math.isinf(reach):
            return reach
        n = 1  # the width of what is seen, followed from the output back to the input
        for _ in range(self.passes):
            for block in reversed(self.decoder):
                n = block.seen(n)  # type: ignore[operator]
            n += int(2 * reach)
            for block in reversed(self.encoder):
                n = block.seen(n)  # type: ignore[operator]
        return n

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Forecast T' steps from T.

        Parameters
        ----------
        x : Tensor of shape (B, T, C, H, W)
        noise : Tensor of shape (B, applications, K, h, w), optional
            Standard normal numbers (:meth:`noise_shape`), which draw a member.

        Returns
        -------
        Tensor of shape (B, T', C', H, W)
        """
        if x.ndim != 5 or x.shape[1:3] != (self.input_steps, self.settings["channels"]):
            raise InputError(
                f"expected input of shape (B, {self.input_steps}, "
                f"{self.settings['channels']}, H, W), found {tuple(x.shape)}"
            )
        leads = count(0, self.input_steps)  # steps that are forecast already: T' may be above T
        draws = iter([None] * self.passes if noise is None else noise.unbind(1))
        passes = rollout(
            lambda x: self._one_pass(x, next(leads), next(draws)), x, self.target_steps
        )
        first, *others = passes
        return torch.cat([first, *others], dim=1) if others else first

    def _one_pass(self, x: Tensor, lead: int, noise: Tensor | None = None) -> Tensor:
        """T steps from T, one way or the other."""
        guess = None
        if self.first_guess is not None:  # its weights belong to the places as they are
            with full_precision(x):
                guess = self.first_guess(x)

        def apply(x: Tensor, guess: Tensor | None) -> Tensor:
            return self._through(x, guess, lead, noise)

        return self.mirror(apply, x, guess, noise) if self.mirror else apply(x, guess)

    def _through(self, x: Tensor, guess: Tensor | None, lead: int, noise: Tensor | None) -> Tensor:
        """Encoder, translator, decoder (paper, Fig. 2, eq. 2)."""
        B, T, _, H, W = x.shape
        frames = x
        if self.predict_change:
            # Change scales of this pass, repeated at the end where T' is not a multiple of T.
            leads = torch.arange(lead, lead + T, device=x.device).clamp_max(self.target_steps - 1)
            scale = self._scale(x, leads)
            last = x[:, -1:]
            # Frame t is T-t steps from the last one: the change typical of that many steps.
            own = x[:, :, : scale.shape[2]]  # what is forecast: the first C'
            change = (own - last[:, :, : scale.shape[2]]) / self._lag_scale(x)
            frames = torch.cat([x, change], dim=2)  # (B,T,C+C',H,W)
        if guess is not None:
            more = guess / scale[:, : guess.shape[1]]
            more = F.pad(more, (0, 0, 0, 0, 0, 0, 0, T - guess.shape[1]))
            frames = torch.cat([frames, more], dim=2)
        frames = self._pad(frames.flatten(0, 1))  # (BT, C, H', W')

        # Encoder, every frame by itself: (BT, C, H', W') -> (BT, S, h, w). Section III-B.
        # The first block is never in half precision: rounding the input is the worst rounding.
        with full_precision(frames):
            z = skip = self.encoder[0](frames.to(self.readout.weight.dtype))
        for block in self.encoder[1:]:
            z = block(z)

        # Translator on the stacked frames: (B, TS, h, w). Section III-C.
        _, S, h, w = z.shape
        z = channels_last(z.reshape(B, T * S, h, w))
        if noise is None:
            z = self.translator(z)
        else:
            for perturb, block in zip(self.perturb, self._blocks, strict=False):
                z = block(perturb(z, noise))
            z = self.perturb[-1](z, noise)
        z = channels_last(z).reshape(B * T, S, h, w)

        # Decoder; its last block also sees the first block's output. Section III-D.
        for block in self.decoder[:-1]:
            z = block(z)
        z = self.readout(self.decoder[-1](z + skip))[..., :H, :W]
        y = z.reshape(B, T, -1, H, W)
        if self.predict_change:
            base = last[:, :, : y.shape[2]]
            if self.first_guess is not None and guess is not None:
                base, y = base + guess, y[:, : self.target_steps]
                scale = self.first_guess.residual_std.to(x.dtype)[None, :, :, None, None]
            y = base + scale * y.to(x.dtype)
        return y

    def _lag_scale(self, x: Tensor) -> Tensor:
        """Typical change over the lags T-1, ..., 1, 0 of the input frames, (1, T, C', 1, 1)."""
        T = x.shape[1]
        lags = torch.arange(T - 1, -1, -1, device=x.device)
        # Lag 0 has difference 0 anyway.
        return self._scale(x, (lags - 1).clamp(0, self.target_steps - 1))

    def _scale(self, x: Tensor, leads: Tensor) -> Tensor:
        """Typical change at some leads, (1, T, C', 1, 1)."""
        return self.tendency_std.to(x.dtype)[leads][None, :, :, None, None]

    def _pad(self, x: Tensor) -> Tensor:
        """Pad H and W to multiples of the stride (cropped again at the exit)."""
        rows, columns = -x.shape[-2] % self.stride, -x.shape[-1] % self.stride
        if columns:
            x = F.pad(
                x, (0, columns, 0, 0), mode="circular" if self.circular_longitude else "replicate"
            )
        if rows:
            x = F.pad(x, (0, 0, 0, rows), mode="replicate")
        return x


def _translator(
    name: str,
    outer: int,
    inner: int,
    layers: int,
    *,
    grid: tuple[int, int],
    drop_path: float | None,
    uniform: bool,
    **options: Any,
) -> nn.Module:
    """`layers` blocks: the first at `outer` (T*S) channels, the others at `inner` (K)."""
    if name == "incepu":
        return IncepU(outer, inner, layers, circular_longitude=options["circular_longitude"])
    rates = [0.0] * layers
    if drop_path is not None:  # on the CPU, so that a network can be laid out on the meta device
        first = drop_path if uniform else 0.01
        rates = torch.linspace(first, drop_path, layers, dtype=torch.float32, device="cpu").tolist()
    blocks: list[nn.Module] = []
    for i, rate in enumerate(rates):
        widths = outer if i == 0 else inner, outer if i == layers - 1 else inner
        if name == "gsta":
            blocks.append(GSTABlock(*widths, drop_path=rate, **options))
        elif name in GATED:
            blocks.append(gated_block(name, i, *widths, drop_path=rate, **options))
        else:
            blocks.append(translator_block(name, i, *widths, grid=grid, drop_path=rate, **options))
    return nn.Sequential(*blocks)
