"""Bundles on disk: a description in JSON and tensors, checked; no class, no network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..package import __version__
from ..task import Task

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

_REQUIRED = {"format", "version", "library", "sha256"}
_REQUIRED |= {"task", "model", "grid", "variables", "training"}


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
    description = _read_description(path / "bundle.json")
    weights = path / "model.safetensors"
    blob = weights.read_bytes()
    if hashlib.sha256(blob).hexdigest() != description["sha256"]:
        raise InputError(
            f"{weights} is damaged: its checksum is not that in bundle.json; copy the bundle anew"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    try:
        Task(**description["task"])
        tensors = load_tensors(blob)
    except (SafetensorError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return (description, tensors) if description["version"] == 2 else _updated(description, tensors)


def _updated(
    description: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Bring a bundle of version 1 up to date: names of settings and buffers have changed."""
    model = dict(description["model"])
    if isinstance(model.get("settings"), dict):
        model["settings"] = {_VERSION_1.get(k, k): v for k, v in model["settings"].items()}
    renamed = {}
    for name, tensor in tensors.items():
        owner, _, last = name.rpartition(".")
        last = _VERSION_1.get(last, last) if model.get("name") == "SimVPv2" else last
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
    try:
        description = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(description, dict) or description.get("format") != BUNDLE_FORMAT:
        raise InputError(f"{path} does not describe a bundle: its format is not {BUNDLE_FORMAT!r}")
    if description.get("version") not in (1, BUNDLE_VERSION):
        raise InputError(
            f"{path} is a bundle of version {description.get('version')!r}; this is stforecast "
            f"{__version__}, which reads versions 1 and {BUNDLE_VERSION}. Update one or the other"
        )
    if set(description) != _REQUIRED:
        raise InputError(
            f"{path} should hold exactly {sorted(_REQUIRED)}; "
            f"missing {sorted(_REQUIRED - set(description))}, "
            f"unknown {sorted(set(description) - _REQUIRED)}"
        )
    return description


def _empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _plain(value: Any) -> Any:
    """Write numpy numbers, times and paths as JSON does."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
