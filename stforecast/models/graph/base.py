"""What the graph networks share: nodes inside and fields outside, sizes, and the grid.

Within a network tensors are node-major: (N, B, C) is one frame, N = H * W, and a neighbour sum
takes it as (N, B * C) in one go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor, nn

from ...errors import InputError
from ...task import Task
from .. import sizing
from .mesh import Mesh, positions

#: Radians by which coordinates may differ that are rounded versions of each other.
_SAME = np.deg2rad(1e-3)


class GraphNetwork(nn.Module):
    """A network on the nodes of a mesh; maps (B, T, C, H, W) to (B, T', C', H, W).

    A subclass begins with ``super().__init__(**arguments(locals()))`` and computes on nodes:
    :meth:`to_nodes` and :meth:`to_fields` go there and back. The mesh is in no file of weights: it
    follows from the grid and from ``settings["neighbours"]``.

    Parameters
    ----------
    mesh : Mesh
        The nodes and their neighbours.
    input_steps, target_steps : int
        T and T'.
    channels : int
        C.
    out_channels : int, optional
        C'; C unless given.
    **settings
        All further arguments of the subclass, as JSON has them.
    """

    #: Whether weights belong to single nodes, so that they fit one grid only.
    tied_to_nodes = False
    #: Whether the forecast goes back in as input, so that it must be among the inputs.
    feeds_itself = False
    #: Settings of the row in the table of Lin et al. (2022), faults of that code included.
    printed: ClassVar[Mapping[str, Any]] = {}
    #: What whole numbers among the settings may be: from, to.
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {}
    #: Which of the settings are True or False, and which are lists of whole numbers.
    flags: ClassVar[tuple[str, ...]] = ()
    lists: ClassVar[tuple[str, ...]] = ()
    #: What ``form`` may be beside None.
    forms: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        mesh: Mesh,
        input_steps: int,
        target_steps: int,
        channels: int,
        out_channels: int | None,
        **settings: Any,
    ) -> None:
        super().__init__()
        #: ``for_task(task, grid, **settings)`` makes the same network.
        self.settings: dict[str, Any] = {
            "input_steps": input_steps,
            "target_steps": target_steps,
            "channels": channels,
            "out_channels": channels if out_channels is None else out_channels,
            "neighbours": mesh.k,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()},
        }
        whole = sizing.STEPS | dict(self.limits)
        sizing.check_settings(self.settings, whole, flags=self.flags, lists=self.lists)
        if (form := settings.get("form")) is not None and form not in self.forms:
            *several, last = ("None", *map(repr, self.forms))
            raise InputError(f"form must be {', '.join(several)} or {last}, found {form!r:.60}")
        self.mesh = mesh
        self.input_steps, self.target_steps = input_steps, target_steps
        self.channels, self.out_channels = channels, self.settings["out_channels"]
        if self.feeds_itself and self.out_channels > channels:
            raise InputError(
                f"{type(self).__name__} feeds itself its own frames, so it needs every output "
                f"channel among the inputs; found {channels} in, {self.out_channels} out"
                f"{self._or_else}"
            )

    @classmethod
    def for_task(
        cls, task: Task, grid: Mapping[str, Any] | None = None, /, **settings: Any
    ) -> Self:
        """Make the network for a task on a grid.

        Parameters
        ----------
        task : Task
        grid : mapping
            ``{"latitude": [...], "longitude": [...]}``, degrees.
        **settings
            Arguments of the class, and ``neighbours`` of :meth:`Mesh.from_grid`; they take
            precedence over what follows from the task. With ``protocol="clcrn"`` what is not
            given is as in the table of Lin et al. (2022), the faults of that code included.

        Raises
        ------
        InputError
            If the grid has no latitude and longitude, or a setting is none.
        """
        if (protocol := settings.pop("protocol", None)) is not None:
            if protocol != "clcrn":
                raise InputError(f"protocol must be 'clcrn' or left out, found {protocol!r:.60}")
            settings = {**cls.printed, **settings}
        neighbours = settings.pop("neighbours", 25)
        return cls(cls._mesh(grid, neighbours, settings), **(sizing.of_task(task) | settings))

    @classmethod
    def _mesh(cls, grid: Any, neighbours: int, settings: Mapping[str, Any]) -> Mesh:
        """The mesh of a grid, as the settings want it."""
        return Mesh.from_grid(grid, neighbours)

    def check_task(self, task: Task) -> None:
        """Refuse a task of other sizes, or whose outputs are not the inputs that are fed back.

        Raises
        ------
        InputError
            Saying what differs.
        """
        sizing.check_sizes(self.settings, task)
        if self.feeds_itself:
            sizing.check_outputs_first(task, type(self).__name__, instead=self._or_else)

    def check_grid(self, grid: Mapping[str, Any] | None) -> None:
        """Refuse a grid whose points are not the nodes of the mesh.

        Parameters
        ----------
        grid : mapping
            As of :meth:`for_task`.

        Raises
        ------
        InputError
            Saying what to do.
        """
        shape, position = positions(grid)
        if shape == self.mesh.shape:
            apart = np.abs(position - self.mesh.position)
            apart[:, 0] = np.minimum(apart[:, 0], 2 * np.pi - apart[:, 0])
            if apart.max() < _SAME:
                return
            found = f"points up to {np.rad2deg(apart.max()):.4g} degrees from them"
        else:
            found = f"a grid of {shape[0]} x {shape[1]}"
        H, W = self.mesh.shape
        raise InputError(
            f"{type(self).__name__} is of the {H} x {W} nodes of its mesh, found {found}; "
            f"{self._on_another_grid}"
        )

    @property
    def _on_another_grid(self) -> str:
        """What to do where it is another grid."""
        if self.tied_to_nodes:
            return "its weights belong to those nodes: train one on the other grid"
        return (
            f"make one with {type(self).__name__}.for_task(task, grid) for the other grid; the "
            "weights fit there, too"
        )

    @property
    def _or_else(self) -> str:
        """What else would do, where decoder and encoder may differ."""
        return "; or feed_known=False" if "feed_known" in self.settings else ""

    def to_nodes(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (T, N, B, C)."""
        want = (self.input_steps, self.channels, *self.mesh.shape)
        if x.ndim != 5 or tuple(x.shape[1:]) != want:
            T, C, H, W = want
            raise InputError(
                f"{type(self).__name__} is of {T} steps, {C} channels and the {H} x {W} grid of "
                f"its mesh, found input {tuple(x.shape)}; {self._on_another_grid}"
            )
        return x.permute(1, 3, 4, 0, 2).flatten(1, 2)

    def to_fields(self, y: Tensor) -> Tensor:
        """(T', N, B, C') -> (B, T', C', H, W)."""
        return y.unflatten(1, self.mesh.shape).permute(3, 0, 4, 1, 2)


def arguments(names: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor, of the ``locals()`` with which it begins."""
    return {k: v for k, v in names.items() if k not in ("self", "__class__")}


def public_sizes(hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Steps and channels, from the names that the printed table's code has for them."""
    names = {"input_steps": "seq_len", "target_steps": "horizon"}
    names |= {"channels": "input_dim", "out_channels": "output_dim"}
    return {ours: hyper_parameters[theirs] for ours, theirs in names.items()}


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors with each part of their names replaced that stands in `names`."""
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for theirs, own in names.items():
            name = name.replace(theirs, own)
        ours[name] = tensor
    return ours


def glorot_(weight: Tensor, fan_in: int, fan_out: int) -> None:
    """Fill a weight that holds several maps, each from `fan_in` to `fan_out`, as Glorot has it."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(weight, -bound, bound)


def number(name: str, value: Any, least: float, most: float) -> None:
    """Refuse what is not a number from `least` to `most`."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not least <= value <= most:
        raise InputError(f"{name} must be a number from {least:g} to {most:g}, found {value!r:.60}")
