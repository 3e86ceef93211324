"""What the recurrent networks share: their settings, their sizes, the public code's names.

Shapes as :mod:`stforecast.models.recurrent.unrolling` has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...task import Task
from .. import sizing
from ..folding import packed
from ..layers import Conv2d
from .sampling import Sampling
from .unrolling import Unrolled

#: Their hyper-parameters of scheduled sampling, and ours.
_SAMPLING = {
    "sampling_start_value": "start",
    "sampling_changing_rate": "decay",
    "sampling_stop_iter": "stop",
    "r_sampling_step_1": "reverse_start",
    "r_sampling_step_2": "reverse_stop",
    "r_exp_alpha": "reverse_scale",
}


class Recurrent(Unrolled):
    """A network that maps a frame and a state to the next frame and the next state.

    Maps (B, T, C, H, W) to (B, T', C', H, W), with T' of any length.

    A subclass has what :class:`.unrolling.Unrolled` asks for. Any H x W will do, but for settings
    that say otherwise: the grid is padded to what patches and strides need, and the output is
    cropped.

    Parameters
    ----------
    input_steps, target_steps : int
        T and T'.
    channels : int
        C.
    out_channels : int, optional
        C', the first of the input channels; all of them unless given.
    patch : int
        p: patches of p x p points become the channels of one, in the order (row, column, channel).
    stride : int, optional
        What H and W are padded to a multiple of; the patch unless given.
    circular_longitude : bool
        Pad longitude (the last axis) with its other end instead of with zeros. Beyond the papers;
        for global grids.
    predict_change : bool
        Add what a step gives to the frame that went into it, in units of a step's typical change,
        which ``fit`` tells. Beyond the papers; it has no need then to learn to repeat a frame.
    grid : (int, int), optional
        H and W of the input, where weights belong to positions: no other grid fits then.
    sampling : str or mapping
        When true frames are fed in training: ``kind`` of :class:`.sampling.Sampling`, or its
        arguments by name.
    own : mapping, optional
        Settings of the subclass, by name.
    """

    #: ``forward(x, steps)`` forecasts as many steps as it is asked for.
    goes_on: ClassVar[bool] = True
    #: Their names of tensors, and ours: patterns; the first match of each is replaced, in order.
    openstl_names: ClassVar[Sequence[tuple[str, str]]] = ()
    #: Pattern of tensors in their files that are constants, or repeat others.
    openstl_ignored: ClassVar[str | None] = None
    #: Whether weights released up to version 0.3.0 of the public code belong to another cell.
    has_legacy: ClassVar[bool] = False
    #: Settings of the paper's benchmarks; "" of all that are not named.
    benchmarks: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: What whole numbers among the settings may be: from, to.
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {}
    #: Which of the settings are True or False, and which are lists of whole numbers.
    flags: ClassVar[tuple[str, ...]] = ()
    lists: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        out_channels: int | None = None,
        patch: int = 1,
        stride: int | None = None,
        circular_longitude: bool = False,
        predict_change: bool = False,
        grid: Sequence[int] | None = None,
        sampling: str | Mapping[str, Any] = "standard",
        own: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        #: The constructor's arguments, but for a stride that follows from them.
        self.settings: dict[str, Any] = {
            "input_steps": input_steps,
            "target_steps": target_steps,
            "channels": channels,
            "out_channels": out_channels,
            "patch": patch,
            "circular_longitude": circular_longitude,
            "predict_change": predict_change,
            "grid": list(grid) if isinstance(grid, Sequence) else grid,
            "sampling": dict(sampling) if isinstance(sampling, Mapping) else sampling,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in (own or {}).items()},
        }
        sizing.check_settings(
            self.settings,
            sizing.STEPS | {"patch": (1, 1_000)} | dict(self.limits),
            flags=("circular_longitude", "predict_change", *self.flags),
            lists=self.lists,
        )
        if out_channels > channels:
            raise InputError(
                f"{type(self).__name__} is fed with its own frames, so what it forecasts must be "
                f"among its inputs; found {channels} channels in, {out_channels} out"
            )
        self.input_steps, self.target_steps = input_steps, target_steps
        self.channels, self.out_channels = channels, out_channels
        self.patch, self.stride = patch, stride or patch
        self.circular_longitude, self.predict_change = circular_longitude, predict_change
        if predict_change:
            if not self.changes:
                raise InputError(f"{type(self).__name__} gives frames: leave predict_change out")
            self.register_buffer("tendency_std", torch.ones(out_channels, dtype=torch.float32))
        try:
            named = {"kind": sampling} if isinstance(sampling, str) else dict(sampling)
            self.sampling = Sampling(**named)
        except TypeError as error:
            raise InputError(f"sampling takes other settings: {error}") from None
        #: Rows and columns of patches that the weights belong to; None where any will do.
        self.cells_grid: tuple[int, int] | None = None
        if self.tied_to_grid(self.settings):
            if grid is None:
                raise InputError(
                    f"these settings of {type(self).__name__} have weights that depend on the "
                    "grid: give grid=(H, W)"
                )
            rows, columns = (-(-int(n) // self.stride) * self.stride // patch for n in grid)
            self.cells_grid = rows, columns

    @classmethod
    def tied_to_grid(cls, settings: Mapping[str, Any]) -> bool:
        """Whether weights belong to positions, by the settings."""
        return bool(settings.get("layer_norm"))

    @classmethod
    def for_task(
        cls, task: Task, grid: Mapping[str, Any] | None = None, /, **settings: Any
    ) -> Self:
        """Make the network for a task; `grid` gives H and W where weights belong to positions.

        Parameters
        ----------
        task : Task
        grid : mapping, optional
            As :func:`stforecast.models.registry.make_network` has it.
        **settings
            Arguments of the class, which take precedence over what follows from the task.
        """
        sizes: dict[str, Any] = sizing.of_task(task)
        if grid is not None and cls.tied_to_grid(settings):
            sizes["grid"] = sizing.of_grid(grid)
        return cls(**(sizes | settings))

    @classmethod
    def for_benchmark(cls, name: str, **overrides: Any) -> Self:
        """Make the network that the paper compares with on one of its benchmarks.

        Parameters
        ----------
        name : str
            "moving_mnist", "taxibj", "weatherbench_t2m", "kth" (10 -> 20; `target_steps` 40 is the
            paper's other one), "caltech", "robonet" or "bridgedata".
        **overrides
            Any argument of the class.

        Raises
        ------
        InputError
            If there is no such benchmark.
        """
        sizes = sizing.benchmark(name)
        own = dict(cls.benchmarks.get(name, cls.benchmarks.get("", {})))
        return cls(**(sizes | own | overrides))

    def check_task(self, task: Task) -> None:
        """Refuse a task of other sizes, or whose outputs are not the first inputs.

        Raises
        ------
        InputError
            That says which.
        """
        sizing.check_sizes(self.settings, task)
        sizing.check_outputs_first(task, type(self).__name__)

    @classmethod
    def arranged(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of their file as ours are, where another name is not all that differs.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            By our names, as `openstl_names` gives them.

        Returns
        -------
        dict of str to Tensor
        """
        return dict(tensors)

    @classmethod
    def from_openstl(
        cls, options: dict[str, Any], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Any]:
        """Our settings, from the hyper-parameters of the public code.

        Parameters
        ----------
        options : dict
            By their names; those that are known are taken out of it. Steps, channels and grid are
            dealt with by :func:`stforecast.models.load_openstl`.
        shapes : mapping
            Of the tensors of their file, by our names, for sizes that are constants there.

        Returns
        -------
        dict
        """
        sampling = {ours: options.pop(k) for k, ours in _SAMPLING.items() if k in options}
        sampling["kind"] = "standard"
        if options.pop("reverse_scheduled_sampling", 0):
            sampling["kind"] = "reverse"
        if not options.pop("scheduled_sampling", 1):
            sampling["kind"] = "never"
        return {"sampling": sampling}


def numbers(text: Any) -> list[int]:
    """The whole numbers of a setting that the public code writes as ``"64,64"``."""
    parts = text.split(",") if isinstance(text, str) else text
    return [int(n) for n in (parts if isinstance(parts, (list, tuple)) else [parts])]


class GateConv(nn.Sequential):
    """A convolution without bias that keeps the grid; with a grid, LayerNorm behind it.

    Parameters
    ----------
    c_in, c_out : int
        Channels.
    kernel : int
        Odd.
    circular_longitude : bool
        As of :class:`Recurrent`.
    norm : (int, int), optional
        Rows and columns of a norm over (c_out, h, w).
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        circular_longitude: bool = False,
        norm: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            Conv2d(c_in, c_out, kernel, circular_longitude=circular_longitude, bias=False),
            *([] if norm is None else [nn.LayerNorm([c_out, *norm])]),
        )


class ConvRecurrent(Recurrent):
    """What the networks of stacked convolutional cells share: settings, inlet and read-out.

    A subclass sets ``cells``, the first of which has the convolution ``conv_x`` of frames.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the layers.
    kernel : int
        Of the convolutions, odd.
    layer_norm : bool
        LayerNorm over (channels, h, w) behind the convolutions; the network then belongs to a grid.
    patch, own, **options
        As of :class:`Recurrent`.
    """

    limits: ClassVar[Mapping[str, Any]] = {"hidden": (1, 100_000), "kernel": (1, 999)}
    flags: ClassVar[tuple[str, ...]] = ("layer_norm",)
    lists: ClassVar[tuple[str, ...]] = ("hidden",)
    openstl_names: ClassVar[Any] = ((r"^cell_list\.", "cells."), (r"^conv_last\.", "readout."))
    benchmarks: ClassVar[Mapping[str, Any]] = {"moving_mnist": {"patch": 4}, "": {"patch": 2}}
    cells: nn.ModuleList

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        hidden: Sequence[int] = (128, 128, 128, 128),
        kernel: int = 5,
        layer_norm: bool = False,
        patch: int = 2,
        own: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        options["patch"] = patch
        own = {"hidden": hidden, "kernel": kernel, "layer_norm": layer_norm} | dict(own or {})
        super().__init__(input_steps, target_steps, channels, own=own, **options)
        if kernel % 2 == 0:
            raise InputError(f"kernel must be odd, found {kernel}")
        self.hidden, self.kernel = [int(c) for c in hidden], kernel
        #: What its convolutions have in common.
        self.conv: dict[str, Any] = {
            "circular_longitude": self.circular_longitude,
            "norm": self.cells_grid if layer_norm else None,
        }

    def equal_widths(self, least: int = 1) -> int:
        """The one width of the layers, of which there are `least` or more.

        Raises
        ------
        InputError
            If there are several widths, or too few layers.
        """
        if len(set(self.hidden)) > 1 or len(self.hidden) < least:
            raise InputError(
                f"{type(self).__name__} needs {least} or more layers of one width, found "
                f"hidden={self.hidden}"
            )
        return self.hidden[0]

    def folded(self, dtype: torch.dtype) -> nn.Module | None:
        """Make the quick form for a CPU, (B, T, C, H, W) -> (B, T', C', H, W); None: there is none.

        The weights of all steps are brought once into the order that oneDNN wants.
        """
        plain = all(p.dtype == torch.float32 for p in self.parameters())
        return packed(self, dtype) if plain else None

    @classmethod
    def from_openstl(
        cls, options: dict[str, Any], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Any]:
        """Our settings, from the hyper-parameters of the public code.

        Parameters
        ----------
        options, shapes
            As of :meth:`.Recurrent.from_openstl`.

        Returns
        -------
        dict
        """
        settings = super().from_openstl(options, shapes)
        if (stride := options.pop("stride", 1)) != 1:
            raise InputError(f"stride must be 1, as the public code needs it, found {stride!r}")
        if "num_hidden" in options:
            settings["hidden"] = numbers(options.pop("num_hidden"))
        for theirs, ours in (("filter_size", "kernel"), ("patch_size", "patch")):
            if theirs in options:
                settings[ours] = int(options.pop(theirs))
        settings["layer_norm"] = bool(options.pop("layer_norm", 0))
        return settings

    def inlet(self, frames: Tensor) -> Tensor:
        """The first layer's convolution of frames: (N, P, h, w) -> (N, gates, h, w)."""
        return self.cells[0].conv_x(frames)  # type: ignore[operator]

    def readout_of(self, hidden: int) -> Conv2d:
        """A 1 x 1 convolution without bias from the top layer to patches of the outputs."""
        patches = self.patch**2 * self.out_channels
        return Conv2d(hidden, patches, 1, circular_longitude=False, bias=False)


def zeros(frame: Tensor, channels: int) -> Tensor:
    """A state of zeros (B, channels, h, w) beside a frame (B, P, h, w), in channels-last memory."""
    B, _, h, w = frame.shape
    return frame.new_zeros(B, channels, h, w).contiguous(memory_format=torch.channels_last)


def unused(module: nn.Module) -> nn.Module:
    """Mark weights that take no part in anything: in the authors' files, and counted, no more."""
    return module.requires_grad_(False)
