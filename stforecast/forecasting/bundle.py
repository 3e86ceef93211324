"""Bundles on disk: a description in JSON and tensors, checked; no class, no network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..conventions.axes import LAT, LON, X, Y
from ..errors import InputError
from ..models import registry
from ..package import __version__
from ..task import Task
from .reference import Reference

BUNDLE_FORMAT, BUNDLE_VERSION = "stforecast-bundle", 2
#: What version 1 called settings and buffers of SimVPv2.
_VERSION_1 = {
    "hidden_spatial": "encoder_channels",
    "hidden_temporal": "translator_channels",
    "spatial_layers": "encoder_layers",
    "temporal_layers": "translator_blocks",
    "periodic": "circular_longitude",
    "residual": "predict_change",
    "change_scale": "tendency_std",
}

#: What each part of a description is, beside the version and the grid.
_KINDS: dict[str, type] = dict.fromkeys(("format", "library", "sha256"), str)
_KINDS |= dict.fromkeys(("task", "model", "variables", "training"), dict)
_REQUIRED = {*_KINDS, "version", "grid"}
_OPTIONAL = {"reference", "draws"}  # of forecasters of anomalies, of those that draw members
_LONGEST = 2**26  # bytes of a description

_T = TypeVar("_T")


def read_bundle(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what a bundle holds, without making its network.

    Parameters
    ----------
    path : path-like
        The bundle's directory.

    Returns
    -------
    description : dict
        What ``bundle.json`` says.
    tensors : dict of Tensor
        ``network.*`` and ``normalizer.*``, on the CPU.

    Raises
    ------
    InputError
        As :func:`load`.
    """
    description, weights = read_description(path)
    blob = weights.read_bytes()
    if hashlib.sha256(blob).hexdigest() != description["sha256"]:
        raise InputError(
            f"{weights} is damaged: its checksum is not that in bundle.json; copy the bundle anew"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return _as_now(description, load(blob))
    except SafetensorError as error:
        raise InputError(f"{weights} is damaged: {error}; copy the bundle anew") from error


def read_shapes(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Read what a bundle says it holds: its description, checked, and the shapes of its tensors.

    Parameters and errors are those of :func:`read_bundle`; of the tensors nothing is read.
    """
    from safetensors import SafetensorError, safe_open

    description, weights = read_description(path)
    try:
        with safe_open(weights, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{weights} is damaged: {error}; copy the bundle anew") from error
    return _as_now(description, shapes)


def read_description(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Path]:
    """Read and check ``bundle.json``; also give the path of the weights, which are not read."""
    path = Path(path)
    what = (
        "a bundle is a directory with model.safetensors and bundle.json, as Forecaster.save writes"
    )
    if not path.exists():
        raise InputError(f"no bundle at {path}: there is no such directory")
    if not path.is_dir():
        raise InputError(
            f"{path} is a file; {what}. Pickled checkpoints are not opened: they can run code"
        )
    for name in ("bundle.json", "model.safetensors"):
        if not (path / name).is_file():
            found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
            raise InputError(f"{path} holds no {name} (found: {found}); {what}")
    return _read_description(path / "bundle.json"), path / "model.safetensors"


def _as_now(
    description: dict[str, Any], tensors: dict[str, _T]
) -> tuple[dict[str, Any], dict[str, _T]]:
    """Bring a bundle of version 1 up to date: names of settings and buffers have changed."""
    model = description["model"]
    if description["version"] == BUNDLE_VERSION:
        return description, tensors
    if model["settings"] is not None:
        settings = {_VERSION_1.get(k, k): v for k, v in model["settings"].items()}
        model = model | {"settings": settings}
    renamed = {}
    for name, tensor in tensors.items():
        owner, _, last = name.rpartition(".")
        last = _VERSION_1.get(last, last) if model["name"] == "SimVPv2" else last
        renamed[f"{owner}.{last}" if owner else last] = tensor
    return description | {"model": model, "version": BUNDLE_VERSION}, renamed


def default_bundle() -> Path:
    """Where the bundle that ships in the package is."""
    return Path(__file__).parents[1] / "bundles" / "t2m_5.625deg_12h"


def plain_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, row by row and each in memory of its own, as safetensors wants."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def over(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by their names with `prefix` in front."""
    return {f"{prefix}{k}": v for k, v in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by what follows it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors: their names, types, shapes and bits."""
    found = hashlib.sha256()
    for name, tensor in sorted(plain_tensors(tensors).items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _read_description(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LONGEST:
        raise InputError(f"{path} has more than {_LONGEST:,} bytes: it does not describe a bundle")
    try:
        description = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # of numbers with thousands of digits, too
        raise InputError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(description, dict) or description.get("format") != BUNDLE_FORMAT:
        raise InputError(f"{path} does not describe a bundle: its format is not {BUNDLE_FORMAT!r}")
    version = description.get("version")
    if isinstance(version, bool) or version not in (1, BUNDLE_VERSION):
        raise InputError(
            f"{path} is a bundle of version {version!r:.60}; this is stforecast "
            f"{__version__}, which reads versions 1 and {BUNDLE_VERSION}. Update one or the other"
        )
    if set(description) - _OPTIONAL != _REQUIRED:
        raise InputError(
            f"{path} should hold exactly {sorted(_REQUIRED)}; "
            f"missing {sorted(_REQUIRED - set(description))}, "
            f"unknown {sorted(set(description) - _REQUIRED - _OPTIONAL)[:8]}"
        )
    for name, kind in _KINDS.items():
        if not isinstance(description[name], kind):
            raise InputError(
                f"{path}: {name} must be {'a text' if kind is str else 'a table'}, found "
                f"{description[name]!r:.60}"
            )
    model, variables = description["model"], description["variables"]
    settings = model.setdefault("settings", None)
    if not (isinstance(model.get("name"), str) and isinstance(settings, dict | None)):
        raise InputError(
            f"{path}: model must have a name and a table of settings, found {model!r:.60}"
        )
    for name, attrs in variables.items():
        texts = attrs.values() if isinstance(attrs, dict) else [None]
        if not all(isinstance(v, str | int | float) for v in texts):
            raise InputError(
                f"{path}: variables must hold a table of texts for {name!r:.60}, found "
                f"{attrs!r:.60}"
            )
    try:
        description["task"] = Task(**description["task"]).to_dict()
        refuse_no_grid(description["grid"])
    except (TypeError, InputError) as error:
        raise InputError(f"{path} cannot be read: {error!s:.500}") from error
    return description


def refuse_no_grid(grid: Any) -> None:
    """Refuse what is no grid: two axes, each with its coordinates or how many there are.

    Raises
    ------
    InputError
        If axes are others or missing, or hold something else than finite numbers in their order.
    """
    if grid is None:
        return
    if not isinstance(grid, Mapping) or sorted(grid) not in ([LAT, LON], [X, Y]):
        raise InputError(f"grid must have latitude and longitude, or y and x, found {grid!r:.60}")
    for name, axis in grid.items():
        counted = isinstance(axis, int) and not isinstance(axis, bool) and name in (X, Y)
        if counted and axis > 0:
            continue
        values = np.asarray(axis) if _of_numbers(axis) else np.empty(0)
        steps = np.diff(values)
        ordered = abs(np.sign(steps).sum()) == steps.size
        if not (values.size and np.isfinite(values).all() and ordered):
            raise InputError(
                f"{name} of the grid must be finite numbers that rise or fall, found {axis!r:.60}"
            )


def reference_of(path: Any, about: Any, tensors: Mapping[str, Tensor]) -> Reference:
    """The climatology of a bundle, from what it says of it and its tensors."""
    try:
        arrays: dict[str, Any] = under("reference.", tensors)
        return Reference(**about, **arrays)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: the climatology in model.safetensors does not fit bundle.json: {error!s:.500}"
        ) from error


def still_of(path: Any, grid: Any, fields: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The fields of a bundle that never change, held against its grid."""
    shape = [v if isinstance(v, int) else len(v) for v in grid.values()] if grid else None
    for name, field in fields.items():
        if shape is None or sorted(field.shape) != sorted(shape) or not field.isfinite().all():
            raise InputError(
                f"{path}: '{name}' in model.safetensors is no field on the bundle's grid: its "
                f"shape is {tuple(field.shape)}"
            )
    return fields


def refuse_misfit(network: Mapping[str, Any], file: Mapping[str, Any], task: Task) -> None:
    """Refuse weights whose names and shapes are not the network's and its normalisation's."""
    wanted = {f"network.{k}": v for k, v in network.items()}
    wanted |= {f"normalizer.{k}": [len(task.channels)] for k in ("mean", "std")}
    if text := registry.misfit(wanted, file):
        raise InputError(f"model.safetensors does not fit the network in bundle.json: {text}")


def _of_numbers(axis: Any) -> bool:
    """Whether something is a list, or an array, of plain numbers."""
    if isinstance(axis, np.ndarray):
        return axis.ndim == 1 and axis.dtype.kind in "iuf"
    kinds = {type(v) for v in axis} if isinstance(axis, list | tuple) else {str}
    return kinds <= {int, float} and all(abs(v) < 1e9 for v in axis if isinstance(v, int))


def _empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _plain(value: Any) -> Any:
    """Write numpy numbers, times and paths as JSON does."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
