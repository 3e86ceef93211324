"""A network, the task it was trained for, and its normalisation: the thing that forecasts.

This is the one place where labelled arrays and torch meet, and where a trained forecaster is saved
as a *bundle*: a directory with ``model.safetensors`` and ``bundle.json``. None of it can run code.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..conventions.overlap import TRAINED_WHERE, told_of
from ..conventions.times import valid_times
from ..errors import InputError
from ..files import replacing
from ..models import inference, registry
from ..models.kernels import version
from ..models.members import Draws, Dropping, Streams, check_draws
from ..models.surroundings import find_device, own_defaults
from ..package import __version__
from ..parallel import survive_forks
from ..task import Task, require_task
from .batches import missing
from .bundle import (
    BUNDLE_FORMAT,
    BUNDLE_VERSION,
    _empty_directory,
    _plain,
    over,
    plain_tensors,
    read_bundle,
    read_shapes,
    reference_of,
    refuse_misfit,
    refuse_no_grid,
    still_of,
    under,
)
from .draws import Drawn
from .frames import Frames, Normalizer
from .reference import Reference

#: What a network raises, by itself or in torch, where its input has another shape than it wants.
_OF_SHAPES = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError)


class Forecaster(Frames):
    """A trained (or trainable) network with the labels of what it forecasts.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (B, T, C, H, W) to (B, T', C', H, W), in normalised units.
    task : Task
        Which variables, how many steps, how far apart.
    mean, std : sequence of float, optional
        Normalisation, one number a channel of ``task.channels``; 0 and 1 unless given.
    grid : dict, optional
        ``{"latitude": [...], "longitude": [...]}`` (canonical order) the network was trained on,
        or the sizes ``{"y": H, "x": W}``. Input on another latitude-longitude grid is refused
        unless it is regridded; without `grid` any will do.
    variables : dict, optional
        CF attributes of each variable (units at least), as in the training data.
    training : dict, optional
        How it came to be: period, settings, validation scores. Goes into the bundle.
    reference : Reference, optional
        The climatology that the network's inputs and outputs are differences from. It is subtracted
        from the history and added to the forecast, and goes into the bundle.
    still : dict, optional
        Fields (H, W) of what ``task.known`` names and never changes, in physical units.
    draws : {"noise", "dropout"}, optional
        How it draws members of an ensemble (see :mod:`stforecast.models.members`); ``fit`` with
        ``ensemble=`` makes forecasters that do. Goes into the bundle.

    Examples
    --------
    >>> import torch, stforecast
    >>> class Drift(torch.nn.Module):
    ...     def forward(self, x):  # (B, T, C, H, W)
    ...         k = torch.arange(1, 4).view(1, 3, 1, 1, 1)
    ...         return x[:, -1:] + k * (x[:, -1:] - x[:, -2:-1])
    >>> task = stforecast.Task("t2m", input_steps=2, target_steps=3, timestep="6h")
    >>> forecaster = stforecast.Forecaster(Drift(), task)
    """

    takes_known = True

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        *,
        mean: Any = None,
        std: Any = None,
        grid: Mapping[str, Any] | None = None,
        variables: Mapping[str, Mapping[str, Any]] | None = None,
        training: Mapping[str, Any] | None = None,
        reference: Reference | None = None,
        still: Mapping[str, Any] | None = None,
        draws: Draws | None = None,
    ) -> None:
        require_task(task)
        check_draws(network, draws)
        survive_forks()
        channels = len(task.channels)
        self.network, self.task = network, task
        self.normalizer = Normalizer(
            np.zeros(channels) if mean is None else mean,
            np.ones(channels) if std is None else std,
            task.channels,
        )
        for buffer in self.normalizer.buffers():
            if len(buffer) != channels:
                raise InputError(
                    f"normalisation has {len(buffer)} channels, the task has {channels}: "
                    f"{', '.join(task.channels)}"
                )
        refuse_no_grid(grid)
        self.grid = None if grid is None else {k: np.asarray(v).tolist() for k, v in grid.items()}
        self.variables = {k: dict(v) for k, v in (variables or {}).items()}
        self.training = dict(training or {})
        self.reference, self.draws = reference, draws
        self.still = {k: torch.as_tensor(v, dtype=torch.float32) for k, v in (still or {}).items()}
        if other := sorted(set(self.still) - set(task.known)):
            raise InputError(f"{', '.join(other)}: fields that the task ({task}) does not name")
        if task.reference is not None and reference is None:
            raise InputError(
                f"the task ({task}) is around a reference: give Forecaster(reference=), or let "
                "fit make the forecaster"
            )
        self.precision: Literal["fp32", "bf16"] = "fp32"
        self.compile: Literal["auto", "always", "never"] = "auto"
        self._quick: tuple[Any, nn.Module] | None = None
        self._samples = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_quick": None}  # made anew where it is needed

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.network.parameters())
        period, where = (self.training.get(k) for k in ("period", TRAINED_WHERE))
        period = "untrained" if period is None else period
        return (
            f"<stforecast.Forecaster {type(self.network).__name__}, {size:,} parameters>\n"
            f"  task      {self.task}\n  trained   {period}\n  data      {self.data}"
            + (f"\n  around    a climatology ({self.reference.cycle})" if self.reference else "")
            + (f"\n  draws     members by {self.draws}" if self.draws else "")
            + (f"\n  learned   where {where}" if where else "")
        )

    @property
    def data(self) -> str:
        """What it was trained on, in words."""
        return str(self.training.get("data", "unknown"))

    @property
    def trained_on(self) -> dict[str, str]:
        """Attributes of its forecasts that say which period it was trained on, and of what data."""
        return told_of((self.reference.about if self.reference else {}) | self.training)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's input: float64 if its weights are, float32 otherwise."""
        first = next((p.dtype for p in self.network.parameters()), torch.float32)
        return torch.float64 if first == torch.float64 else torch.float32

    def to(
        self,
        device: str | torch.device | None = None,
        *,
        precision: Literal["fp32", "bf16"] | None = None,
        compile: Literal["auto", "always", "never"] | None = None,
    ) -> Forecaster:
        """Choose where and how forecasts are computed; returns itself.

        Parameters
        ----------
        device : str, optional
            ``"cpu"``, ``"cuda"``; one that this machine has.
        precision : {"fp32", "bf16"}, optional
            Arithmetic of the network. "fp32" at first: forecasts then depend on the units and
            orders of the input by 1e-4 K at most. "bf16" is about twice as fast where the device
            has instructions for it, and differs by 1-2% of what the network gives, which for a
            residual network is the forecast change.
        compile : {"auto", "always", "never"}, optional
            As :func:`stforecast.models.inference.for_inference` has it; "auto" at first.
        """
        for name, value, allowed in (
            ("precision", precision, ("fp32", "bf16")),
            ("compile", compile, ("auto", "always", "never")),
        ):
            if value is not None and value not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, found {value!r}")
        self.precision, self.compile = precision or self.precision, compile or self.compile
        if device is not None:
            place = find_device(device)
            self.network.to(place)
            self.normalizer.to(place)
            if self.reference is not None:
                self.reference.to(place)
            self.still = {k: field.to(place) for k, field in self.still.items()}
        return self

    def rescaled(self, factor: float, offset: float = 0.0) -> Forecaster:
        """Make a forecaster of scaled data, as this one is, one of ``scaled * factor + offset``.

        Parameters
        ----------
        factor, offset : float
            Of every variable.

        Returns
        -------
        Forecaster
            With the same network, and the normalisation of the other unit.
        """
        out = copy.copy(self)
        mean, std = self.normalizer.mean * factor + offset, self.normalizer.std * factor
        out.normalizer = Normalizer(mean, std)
        return out

    def apply(
        self,
        x: Tensor,
        network: nn.Module | None = None,
        *,
        known: Tensor | None = None,
        usual: Tensor | None = None,
        steps: int | None = None,
        streams: Streams | None = None,
    ) -> Tensor:
        """Normalise, run the network, de-normalise.

        Parameters
        ----------
        x, known, usual
            As :meth:`encode` has them.
        network : torch.nn.Module, optional
            In place of the forecaster's own: its quick form, say.
        steps : int, optional
            T' of a network that goes on to any length; the task's unless given.
        streams : Streams, optional
            Random numbers of a member.

        Returns
        -------
        Tensor of shape (B, T', C', H, W)
            In physical units, less what is usual.

        Raises
        ------
        InputError
            If the network does not take such input, or gives something else.
        """
        out = [self.task.channels.index(v) for v in self.task.outputs]
        y = self.run(self.encode(x, known, usual), network, steps, streams)
        return self.normalizer.inverse(y, out)

    def run(
        self,
        x: Tensor,
        network: nn.Module | None = None,
        steps: int | None = None,
        streams: Streams | None = None,
    ) -> Tensor:
        """Run the network on what it sees.

        Parameters
        ----------
        x : Tensor of shape (B, T, C, H, W)
            As :meth:`encode` gives it.
        network, steps, streams
            As :meth:`apply` has them.

        Returns
        -------
        Tensor of shape (B, T', C', H, W)
            Normalised.

        Raises
        ------
        InputError
            As :meth:`apply`.
        """
        task = self.task
        try:
            more = () if steps is None else (steps,)
            call, x = network or self.network, x.to(self.dtype)
            y = call(x, *more) if streams is None else streams(call, self.network, x, *more)
        except _OF_SHAPES as error:
            if isinstance(error, (InputError, torch.OutOfMemoryError)):
                raise
            raise InputError(
                f"the network stops at input {tuple(x.shape)}, which is (batch, input steps, "
                f"channels, rows, columns) of the task ({task}): {type(error).__name__}: {error}"
            ) from error
        expected = (x.shape[0], steps or task.target_steps, task.channels_out, *x.shape[-2:])
        if isinstance(y, Tensor) and tuple(y.shape) == expected and not y.is_floating_point():
            raise InputError(f"the network gives numbers of {y.dtype}, expected floating point")
        if not isinstance(y, Tensor) or tuple(y.shape) != expected:
            raise InputError(
                f"the network gives {inference.form(y)} for input {tuple(x.shape)}; the task "
                f"({task}) asks for one tensor of shape {expected}, (batch, target steps, outputs, "
                "rows, columns)"
            )
        return y

    def try_out(self, height: int, width: int) -> None:
        """Forecast from two windows of mean values, to see that the network fits the task.

        It is left as it was, and so are the caller's random numbers.

        Parameters
        ----------
        height, width : int
            Of the grid.

        Raises
        ------
        InputError
            As :meth:`apply`.
        """
        task, training = self.task, self.network.training
        self.network.eval()
        with torch.no_grad(), own_defaults(self.device, random=self.device):
            mean = torch.zeros(1, 1, 1, 1, 1, device=self.device)
            x = mean.expand(2, task.input_steps, task.channels_in, height, width)
            self.run(x)
            if self.draws is not None:
                call = Dropping(self.network) if self.draws == "dropout" else None
                self.run(x, call, streams=Streams(self.draws, [0, 1]))
        self.network.train(training)

    def forecast(
        self,
        inputs: np.ndarray,
        init_time: Any = None,
        steps: int | None = None,
        *,
        latitude: Any = None,
        longitude: Any = None,
        known: np.ndarray | None = None,
        drawn: Drawn | None = None,
    ) -> np.ndarray:
        """Forecast `steps` steps from plain arrays, on its own output past the trained length.

        Parameters
        ----------
        inputs : array of shape (B, T, C, H, W)
            Canonical order and units, channels as ``task.variables``; T is ``task.history``.
        init_time : array of shape (B,), optional
            Times of the last input steps. Needed where there is a `reference`.
        latitude, longitude
            Not needed by a network; here for forecasters that look them up.
        steps : int, optional
            Target steps; ``task.target_steps`` unless given.
        known : array of shape (B, N, K, H, W), optional
            Of ``task.known``, what changes with time, at `steps` valid times or, where the network
            is applied more than once, as many as it then gives. Needed where there is such.
        drawn : Drawn, optional
            Members of an ensemble; the result is then (M, B, steps, C', H, W).

        Returns
        -------
        numpy.ndarray of float32, shape (B, steps, C', H, W)
            NaN where the last input step of the variable is, if the task masks NaN.
        """
        task = self.task
        steps = task.target_steps if steps is None else steps
        # What is known for target steps comes with the history, for one application each.
        goes_on = getattr(self.network, "goes_on", False) and not (task.known or task.lags)
        if not goes_on:
            task.refuse_rollout(steps)
        if drawn is not None and (self.draws is None or init_time is None):
            what = "draws=, or fit(ensemble=)" if self.draws is None else "forecast(init_time=)"
            raise InputError(f"members are drawn by a way and for a time: give {what}")
        self.network.eval()
        self._samples += len(inputs) * (1 if drawn is None else len(drawn.members))
        network = self._inference_network(drawn is not None)
        ahead, passes = task.target_steps, -(-steps // task.target_steps)
        with own_defaults(self.device), torch.inference_mode():
            x = torch.as_tensor(np.ascontiguousarray(inputs, dtype=np.float32)).to(self.device)
            past = self._usual(init_time, np.arange(1 - x.shape[1], 1), task.variables)
            x = x if past is None else x - past
            usual = self._usual(init_time, np.arange(1, passes * ahead + 1), task.outputs)
            more = None if known is None else torch.as_tensor(known, dtype=torch.float32)
            more = None if more is None else more.to(self.device)
            gone = None
            if task.nan == "mask":
                gone = torch.as_tensor(missing(inputs, task), device=x.device)

            def trajectory(streams: Streams | None = None) -> np.ndarray:
                length = steps if goes_on else None
                run = partial(self.run, network=network, steps=length, streams=streams)
                y = self.roll(
                    run, x, steps, known=more, usual=usual, gone=gone, at_once=goes_on
                ).float()
                y = y if usual is None else y + usual[:, :steps]
                if task.lower is not None:  # whatever rounding has left
                    y = y.clamp_min(task.lower)
                return y.cpu().numpy()

            if drawn is None:
                return trajectory()
            return np.stack(list(map(trajectory, drawn.streams(str(self.draws), init_time))))

    def _usual(self, init_time: Any, steps: np.ndarray, variables: Any) -> Tensor | None:
        """What anomalies are differences from (B, len(steps), C, H, W)."""
        if self.reference is None:
            return None
        if init_time is None:
            raise InputError(
                f"the network forecasts differences from a climatology ({self.reference.cycle}): "
                "give forecast(init_time=), the times of the last input steps"
            )
        return self.reference.at(valid_times(init_time, self.task.step * steps), variables)

    def _inference_network(self, drawing: bool = False) -> nn.Module:
        """The network's quick form, made anew when its weights or the settings have changed."""
        if drawing and self.draws == "dropout":
            dropping = Dropping(self.network)
            return inference.for_inference(dropping, precision=self.precision, compile="never")
        worth = self._samples >= inference.WORTH_COMPILING
        tensors = [*self.network.parameters(), *self.network.buffers()]
        if any(t.is_inference() for t in tensors):  # they do not tell when they change
            return inference.for_inference(self.network, compile="never")
        state = [(id(t), t.data_ptr(), version(t)) for t in tensors]
        key = (self.precision, self.compile, worth, id(self.network), state)
        if self._quick is None or self._quick[0] != key:
            settings: Any = {"precision": self.precision, "compile": self.compile}
            quick = inference.for_inference(self.network, samples=self._samples, **settings)
            self._quick = key, quick
        return self._quick[1]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a bundle: a directory with ``model.safetensors`` and ``bundle.json``.

        Parameters
        ----------
        path : path-like
            The directory. An older bundle there is replaced; anything else is not touched.

        Returns
        -------
        Path
            The directory.

        Raises
        ------
        InputError
            If `path` holds something else, or cannot be written.
        """
        from safetensors.torch import save_file

        path = Path(path)
        if path.exists() and not (path / "bundle.json").is_file() and not _empty_directory(path):
            raise InputError(f"{path} exists and is no bundle; choose a new directory name")
        tensors = over("network.", self.network.state_dict())
        tensors |= over("normalizer.", self.normalizer.state_dict())
        more: dict[str, Any] = {}
        if (usual := self.reference) is not None:
            tensors |= over("reference.", usual.state_dict())
            about = {"cycle": usual.cycle, "variables": usual.variables, "about": usual.about}
            more = {"reference": about}
        if self.draws is not None:
            more["draws"] = self.draws
        tensors |= over("still.", self.still)
        with replacing(path) as directory:
            directory.mkdir()
            weights = directory / "model.safetensors"
            save_file(plain_tensors(tensors), weights)
            description = {
                "format": BUNDLE_FORMAT,
                "version": BUNDLE_VERSION,
                "library": __version__,
                "task": self.task.to_dict(),
                "model": {
                    "name": registry.name_of(self.network),
                    "settings": getattr(self.network, "settings", None),
                },
                "grid": self.grid,
                "variables": self.variables,
                "training": self.training,
                **more,
                "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            }
            text = json.dumps(description, indent=1, default=_plain)
            (directory / "bundle.json").write_text(text + "\n")
        return path


def load(path: str | os.PathLike[str], *, network: nn.Module | None = None) -> Forecaster:
    """Read a bundle that :meth:`Forecaster.save` wrote.

    Parameters
    ----------
    path : path-like
        The bundle's directory.
    network : torch.nn.Module, optional
        The network to load the weights into. Needed only for networks that are not ours.

    Returns
    -------
    Forecaster
        On the CPU; :meth:`Forecaster.to` moves it.

    Raises
    ------
    InputError
        If there is no bundle, or it is damaged, or newer than this library, or holds what this
        library does not know. Pickled files are never opened.
    """
    description, shapes = read_shapes(path)
    around = description.get("reference")
    apart = ("still.",) if around is None else ("reference.", "still.")
    shapes = {k: v for k, v in shapes.items() if not k.startswith(apart)}
    task, model = Task(**description["task"]), description["model"]
    parts = model["name"], task, description["grid"], model["settings"]
    if network is None and (model["name"] not in registry.names() or model["settings"] is None):
        raise InputError(
            f"{path} holds a {model['name']!r:.60}, not one of this library's networks "
            f"({', '.join(registry.names())}); pass the network: load(path, network=...)"
        )
    own = network is None
    with own_defaults(random=torch.device("cpu")):
        try:
            if own and registry.is_own(model["name"]):  # laid out first: that takes no memory
                refuse_misfit(registry.outline(*parts), shapes, task)
            network = registry.make_network(*parts) if network is None else network
            for method, argument in (("check_task", task), ("check_grid", description["grid"])):
                if hasattr(network, method):
                    getattr(network, method)(argument)
            check_draws(network, description.get("draws"))
            there = network.state_dict()
            refuse_misfit({k: v.shape for k, v in there.items()}, shapes, task)
        except InputError as error:
            raise InputError(f"{path}: {error!s:.2000}") from error
        tensors = read_bundle(path)[1]
        weights = under("network.", tensors)
        floats = {k: t for k, t in weights.items() if t.is_floating_point()}
        if other := sorted(floats.keys() ^ {k for k, t in there.items() if t.is_floating_point()}):
            raise InputError(f"{path}: {', '.join(other[:4])} hold numbers of another type")
        if own and all(t.dtype == torch.float64 for t in floats.values()):
            network.double()
        network.load_state_dict(weights)
        if not all(bool(p.isfinite().all()) for p in network.parameters()):
            raise InputError(f"{path} holds weights that are NaN or infinite: train it anew")
        network.eval()
        return Forecaster(
            network,
            task,
            mean=tensors["normalizer.mean"],
            std=tensors["normalizer.std"],
            grid=description["grid"],
            variables=description["variables"],
            training=description["training"],
            reference=None if around is None else reference_of(path, around, tensors),
            still=still_of(path, description["grid"], under("still.", tensors)),
            draws=description.get("draws"),
        )
