"""What the graph networks share: nodes inside and fields outside, the recurrence, the curriculum.

Within a network tensors are node-major: (N, B, C) is one frame, N = H * W, and a neighbour sum
takes it as (N, B * C) in one go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...task import Task
from .mesh import Mesh

#: The sizes that every network has, and the most that each may be.
_SIZES = {"input_steps": 10_000, "target_steps": 10_000, "channels": 100_000}


class GraphNetwork(nn.Module):
    """A network on the nodes of a mesh; maps (B, T, C, H, W) to (B, T', C', H, W).

    A subclass calls ``super().__init__(mesh, input_steps, ..., its own settings)`` and computes on
    nodes: :meth:`to_nodes` and :meth:`to_fields` go there and back. The mesh is in no file of
    weights: it follows from the grid and from ``settings["neighbours"]``.

    Parameters
    ----------
    mesh : Mesh
        The nodes and their neighbours.
    input_steps, target_steps : int
        T and T'.
    channels, out_channels : int
        C and C'.
    **settings
        All further arguments of the subclass, as JSON has them.
    """

    #: Whether weights belong to single nodes, so that they fit one grid only.
    tied_to_nodes = False
    #: Whether the forecast goes back in as input, so that it must be among the inputs.
    feeds_itself = False
    #: Settings of the row in the table of Lin et al. (2022), faults of that code included.
    printed: ClassVar[Mapping[str, Any]] = {}

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
        out_channels = channels if out_channels is None else out_channels
        sizes = {"input_steps": input_steps, "target_steps": target_steps, "channels": channels}
        for name, most in (_SIZES | {"out_channels": 100_000}).items():
            whole(name, (sizes | {"out_channels": out_channels})[name], 1, most)
        self.mesh = mesh
        self.input_steps, self.target_steps = input_steps, target_steps
        self.channels, self.out_channels = channels, out_channels
        #: ``for_task(task, grid, **settings)`` makes the same network.
        self.settings: dict[str, Any] = {
            **sizes,
            "out_channels": out_channels,
            "neighbours": mesh.k,
            **settings,
        }
        if self.feeds_itself and out_channels > channels:
            raise InputError(
                f"{type(self).__name__} feeds itself its own frames, so it needs every output "
                f"channel among the inputs; found {channels} in, {out_channels} out"
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
        sizes = {
            "input_steps": task.input_steps,
            "target_steps": task.target_steps,
            "channels": task.channels_in,
            "out_channels": task.channels_out,
        }
        return cls(cls._mesh(grid, neighbours, settings), **(sizes | settings))

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
        needs = {
            "input_steps": task.input_steps,
            "target_steps": task.target_steps,
            "channels": task.channels_in,
            "out_channels": task.channels_out,
        }
        wrong = {k: n for k, n in needs.items() if self.settings[k] != n}
        if wrong:
            found, wanted = (
                ", ".join(f"{k}={sizes[k]}" for k in wrong) for sizes in (self.settings, needs)
            )
            raise InputError(f"the network has {found}, the task ({task}) needs {wanted}")
        outputs = task.outputs
        if self.feeds_itself and task.variables[: len(outputs)] != outputs:
            first = [*outputs, *(v for v in task.variables if v not in outputs)]
            raise InputError(
                f"{type(self).__name__} takes its first inputs for what it forecasts, found inputs "
                f"{list(task.variables)} and targets {list(outputs)}: use Task({first}, "
                f"targets={list(outputs)}, ...)"
            )

    def to_nodes(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (T, N, B, C)."""
        want = (self.input_steps, self.channels, *self.mesh.shape)
        if x.ndim != 5 or tuple(x.shape[1:]) != want:
            T, C, H, W = want
            tied = "its weights belong to those nodes: train one on the other grid"
            made = f"make one for the other grid with {type(self).__name__}.for_task"
            raise InputError(
                f"{type(self).__name__} is of {T} steps, {C} channels and the {H} x {W} grid of "
                f"its mesh, found input {tuple(x.shape)}; "
                f"{tied if self.tied_to_nodes else made}"
            )
        return x.permute(1, 3, 4, 0, 2).flatten(1, 2)

    def to_fields(self, y: Tensor) -> Tensor:
        """(T', N, B, C') -> (B, T', C', H, W)."""
        return y.unflatten(1, self.mesh.shape).permute(3, 0, 4, 1, 2)


class Recurrent(GraphNetwork):
    """Sequence to sequence: an encoder of recurrent cells, and a decoder fed its own frames.

    Encoder: in step t, layer 1 takes x_t, layer l the new state of layer l - 1; states are kept.
    Decoder: from those states, its first input zeros; each step gives y = readout(state of the
    last layer), which is its next input. Where C > C', the further channels of the k-th frame it
    is fed are those of input frame k mod T.

    A subclass sets ``encoder`` (modules ``cell(x, h, fixed) -> h`` on (N, B, ·)), ``decoder``
    where it has cells of its own, ``readout``, and ``hidden``. One that is ``direct`` has no
    decoder: the readout of the last state gives all target steps, (N, B, T' C').

    Notes
    -----
    While it learns, an input of the decoder is the truth instead with the probability
    k / (k + exp(b / k)) in batch b, k = ``curriculum_decay`` (Bengio et al. 2015,
    arXiv:1506.03099, inverse sigmoid): one draw a step for the whole batch. None: never.
    """

    feeds_itself = True
    encoder: nn.ModuleList
    readout: nn.Module
    hidden: int

    def __init__(
        self,
        *sizes: Any,
        hidden: int,
        layers: int,
        curriculum_decay: float | None,
        direct: bool = False,
        **settings: Any,
    ) -> None:
        if direct:
            self.feeds_itself = False
        super().__init__(
            *sizes,
            hidden=hidden,
            layers=layers,
            **settings,
            curriculum_decay=curriculum_decay,
        )
        whole("hidden", hidden, 1, 100_000)
        whole("layers", layers, 1, 100)
        self.hidden = hidden
        #: Whether the last state gives all steps at once, and there is no decoder.
        self.direct = direct
        if direct:
            self.teach = None  # type: ignore[assignment, method-assign]
        if curriculum_decay is not None:
            number("curriculum_decay", curriculum_decay, 1, 1e12)
        self.curriculum_decay = curriculum_decay

    def fixed(self, x: Tensor) -> Any:
        """What is the same in all steps and layers of one pass: computed once, given to each cell.

        Parameters
        ----------
        x : Tensor
            Of the device and type that it is for.
        """
        return None

    def embed(self, frames: Tensor) -> Tensor:
        """(T, N, B, C) -> what the encoder's first layer takes, (T, N, B, ·)."""
        return frames

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T', C', H, W)."""
        return self._run(x)

    def teach(
        self, x: Tensor, y: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Forecast with the curriculum of batch `step`; no extra loss.

        Parameters
        ----------
        x, y : Tensor of shape (B, T, C, H, W) and (B, T', C', H, W)
            NaN in `y` is not fed: the network's own forecast stands there.
        step : int
            Batches seen.
        generator : torch.Generator
            On the CPU, for the draws.

        Returns
        -------
        prediction : Tensor of shape (B, T', C', H, W)
        extra : Tensor
            0.
        """
        p = teacher_probability(step, self.curriculum_decay)
        draws = torch.rand(self.target_steps, generator=generator, device="cpu")
        fed = (draws < p).tolist()
        return self._run(x, y, fed), x.new_zeros(())

    def _run(self, x: Tensor, truth: Tensor | None = None, fed: Sequence[bool] = ()) -> Tensor:
        frames = self.to_nodes(x)
        fixed = self.fixed(x)
        states = [frames.new_zeros(*frames.shape[1:3], self.hidden) for _ in self.encoder]
        for frame in self.embed(frames):
            states = _advance(self.encoder, frame, states, fixed)
        if self.direct:
            all_steps = self.readout(states[-1]).unflatten(2, (-1, self.out_channels))
            return self.to_fields(all_steps.movedim(2, 0))
        decoder = getattr(self, "decoder", self.encoder)
        truths = None if truth is None else truth.permute(1, 3, 4, 0, 2).flatten(1, 2)
        frame = torch.zeros_like(frames[0][..., : self.channels_fed])
        out: list[Tensor] = []
        for k in range(self.target_steps):
            states = _advance(decoder, frame, states, fixed)
            y = self.readout(states[-1])
            out.append(y)
            if truths is not None and fed[k]:
                y = torch.where(truths[k].isfinite(), truths[k].to(y.dtype), y)
            known = frames[k % self.input_steps][..., self.out_channels : self.channels_fed]
            frame = torch.cat([y, known], -1) if known.shape[-1] else y
        return self.to_fields(torch.stack(out))

    @property
    def channels_fed(self) -> int:
        """Channels of a frame that the decoder takes."""
        return self.channels


def _advance(cells: nn.ModuleList, x: Tensor, states: Sequence[Tensor], fixed: Any) -> list[Tensor]:
    """One step through all layers."""
    new: list[Tensor] = []
    for cell, h in zip(cells, states, strict=True):
        x = cell(x, h, fixed)
        new.append(x)
    return new


def teacher_probability(batch: int, decay: float | None) -> float:
    """Probability that the decoder's next input is the truth, k / (k + exp(b / k)).

    Parameters
    ----------
    batch : int
        b, batches seen so far.
    decay : float or None
        k; None for no teacher.
    """
    if decay is None:
        return 0.0
    return 1 / (1 + math.exp(min(batch / decay, 700.0)) / decay)


def recurrent_settings(hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a :class:`Recurrent`, from the names that all public code has for them."""
    names = {
        "input_steps": "seq_len",
        "target_steps": "horizon",
        "channels": "input_dim",
        "out_channels": "output_dim",
        "hidden": "rnn_units",
        "layers": "layer_num",
    }
    return {ours: hyper_parameters[theirs] for ours, theirs in names.items()}


def glorot_(weight: Tensor, fan_in: int, fan_out: int) -> None:
    """Fill a weight that holds several maps, each from `fan_in` to `fan_out`, as Glorot has it."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(weight, -bound, bound)


def whole(name: str, value: Any, least: int, most: int) -> None:
    """Refuse what is not a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(
            f"{name} must be a whole number from {least:,} to {most:,}, found {value!r:.60}"
        )


def number(name: str, value: Any, least: float, most: float) -> None:
    """Refuse what is not a number from `least` to `most`."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not least <= value <= most:
        raise InputError(f"{name} must be a number from {least:g} to {most:g}, found {value!r:.60}")
