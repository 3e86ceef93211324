"""A checkpoint on disk: what its description must say, and what its tensors must be.

:mod:`stforecast.training.checkpoints` tells what a checkpoint holds. Whatever is read here may have
been altered by a fault of the disk or by somebody else: nothing is taken from it before all of it
has the form that this run would write.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..files import is_plain_file
from ..forecasting.bundle import under

FORMAT, VERSION = "stforecast-checkpoint", 3
Checkpoint = tuple[dict[str, Any], dict[str, Tensor]]
#: Data type and shape of a tensor; None where any will do.
Form = tuple[torch.dtype, tuple[int, ...] | None]

#: The entries of ``state.json`` beside its checksum, and what each must be.
_ENTRIES = {
    "format": lambda value: value == FORMAT,
    "version": lambda value: value == VERSION,
    "library": lambda value: isinstance(value, str),
    "step": lambda value: _is_count(value, 1),
    "losses": lambda value: _is_count(value, 0),
    "best": lambda value: isinstance(value, dict),
    "history": lambda value: isinstance(value, list) and all(map(is_event, value)),
    "seconds": lambda value: _is_number(value) and 0 <= value < math.inf,
    "ranks": lambda value: _is_count(value, 1),
    "identity": lambda value: isinstance(value, dict),
    "files": lambda value: isinstance(value, dict) and list(value) == ["state.safetensors"],
}
_TENSORS = "tensors"  # how many there are; checkpoints of before do not say


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that is whole.

    Parameters
    ----------
    path : Path
        Its directory.

    Returns
    -------
    state : dict
        What ``state.json`` says.
    tensors : dict of Tensor
        What ``state.safetensors`` holds, on the CPU.

    Raises
    ------
    InputError
        If a file is missing, is a link, differs by as much as a bit from what was written, or says
        less than it should.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "state.json"
    try:
        text = _plain(file).read_text(encoding="ascii")
        state = json.loads(text)
        if not isinstance(state, dict) or state.pop("sha256", None) is None:
            raise ValueError("it has no checksum")
        if sealed(state) != text:
            raise ValueError("its checksum is another")
        version = state.get("version")
        if state.get("format") != FORMAT or not _is_count(version, 0) or version != VERSION:
            raise ValueError(f"it is of version {version}, this library reads {VERSION}")
        _check(state, path)
        file = path / "state.safetensors"
        if sha256(_plain(file)) != state["files"][file.name]:
            raise ValueError("its checksum is another")
        tensors = load_file(file)
        if len(tensors) != state.get(_TENSORS, len(tensors)):
            raise ValueError(f"it holds {len(tensors)} tensors of {state[_TENSORS]}")
        return state, tensors
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise InputError(f"{file} is damaged ({error})") from error


def write_checkpoint(path: Path, state: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint into a new directory."""
    from safetensors.torch import save_file

    path.mkdir()
    save_file(tensors, path / "state.safetensors")
    files = {p.name: sha256(p) for p in path.iterdir()}
    head = {"format": FORMAT, "version": VERSION}
    (path / "state.json").write_text(
        sealed(head | dict(state) | {_TENSORS: len(tensors), "files": files})
    )


def find_checkpoints(directory: Path) -> list[Path]:
    """The latest first, by their steps."""
    found = [p for p in directory.glob("*") if re.fullmatch(r"checkpoint-\d{8,}", p.name)]
    return sorted(found, key=step_of, reverse=True)


def kept_steps(run_dir: str | os.PathLike[str]) -> list[int]:
    """Steps of a run whose checkpoints are there, in their order; empty where there is no run.

    Parameters
    ----------
    run_dir : path-like
        As of :func:`stforecast.fit`.

    Returns
    -------
    list of int
    """
    return [step_of(path) for path in reversed(find_checkpoints(Path(run_dir)))]


def weights_at(run_dir: str | os.PathLike[str], step: int | Literal["best"]) -> dict[str, Tensor]:
    """Weights and buffers of a run's network as they were after a step.

    They are those that a validation judged: where the run keeps a moving average, that.

    Parameters
    ----------
    run_dir : path-like
        As of :func:`stforecast.fit`.
    step : int or "best"
        One of :func:`kept_steps`; or the weights that the run has chosen.

    Returns
    -------
    dict of Tensor
        For the network's ``load_state_dict``.

    Raises
    ------
    InputError
        If there is no checkpoint of this step, or it is damaged.
    """
    steps = kept_steps(run_dir)
    if not steps or step not in ("best", *steps):
        there = f"those of steps {', '.join(map(str, steps))}" if steps else "none"
        raise InputError(
            f"{run_dir} has no checkpoint of step {step}, found {there}: a run keeps the last two, "
            "and those of TrainConfig(keep_checkpoints=)"
        )
    at = steps[-1] if step == "best" else step
    _, tensors = read_checkpoint(Path(run_dir) / f"checkpoint-{at:08d}")
    best = under("best.", tensors)
    if step == "best" and best:
        return best
    return under("network.", tensors) | under("average.", tensors)


def best_of(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Step and scores of the best of some validations, the first of equals; empty without any."""
    best: dict[str, Any] = {}
    for event in history:
        if event.get("val_score", math.inf) < best.get("val_score", math.inf):
            best = {k: v for k, v in event.items() if k == "step" or k.startswith("val_")}
    return best


def is_event(value: Any) -> bool:
    """Whether a value is what is told of some steps: numbers by name, a step among them."""
    if not isinstance(value, dict) or not _is_count(value.get("step"), 1):
        return False
    return all(_is_number(number) for number in value.values())


def is_rising(events: Iterable[Mapping[str, Any]], last: float = math.inf) -> bool:
    """Whether each event is of a later step than the one before it, none later than `last`."""
    steps = [event["step"] for event in events] + [last + 1]
    return all(a < b for a, b in pairwise(steps))


def misfit(tensors: Mapping[str, Tensor], needed: Mapping[str, Form]) -> str:
    """Say what is wrong with tensors that should have these names and forms; "" if nothing is."""
    for name, (dtype, shape) in needed.items():
        if name not in tensors:
            return f"{name} is missing"
        found = tensors[name]
        if found.dtype != dtype or shape not in (None, tuple(found.shape)):
            expected = _words(dtype, found.shape if shape is None else shape)
            return f"{name} is {_words(found.dtype, found.shape)}, expected {expected}"
    unknown = sorted(tensors.keys() - needed.keys())
    return f"nothing is known of {unknown[0]}" if unknown else ""


def forms(tensors: Mapping[str, Tensor]) -> dict[str, Form]:
    """Data type and shape of tensors, by name."""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def differences(saved: Any, now: Any, name: str = "") -> list[str]:
    """Say which entries of two nested mappings differ: ``["steps: 4, now 8"]``."""
    if isinstance(saved, dict) and isinstance(now, dict):
        return [
            text
            for key in [*saved, *(k for k in now if k not in saved)]
            for text in differences(saved.get(key), now.get(key), str(key))
        ]
    return [] if saved == now else [f"{name}: {saved!s:.90}, now {now!s:.90}"]


def sealed(state: Mapping[str, Any]) -> str:
    """JSON that ends with the checksum of what comes before."""
    checksum = sha256(json.dumps(state, indent=1).encode())
    return json.dumps({**state, "sha256": checksum}, indent=1) + "\n"


def sha256(what: bytes | Path) -> str:
    """The checksum of bytes or of a file."""
    if isinstance(what, bytes):
        return hashlib.sha256(what).hexdigest()
    with what.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(file: Path) -> Path:
    """A file that lies where its name does: a link leads out of the run, a pipe has no end."""
    if file.parent.is_symlink() or not is_plain_file(file):
        raise ValueError("it is missing, or a link, or no regular file")
    return file


def _check(state: Mapping[str, Any], path: Path) -> None:
    """Refuse a description that lacks anything, or contradicts itself."""
    for name, holds in _ENTRIES.items():
        if name not in state:
            raise ValueError(f"it says nothing of {name!r}")
        if not holds(state[name]):
            raise ValueError(f"it says {state[name]!r:.60} of {name!r}")
    if unknown := state.keys() - _ENTRIES.keys() - {_TENSORS}:
        raise ValueError(f"nothing is known of {min(unknown)!r}")
    if state["step"] != step_of(path):
        raise ValueError(f"it is of step {state['step']}, its directory of {step_of(path)}")
    if state["losses"] > state["step"] or not is_rising(state["history"], state["step"]):
        raise ValueError(f"it tells of steps after the last, which is {state['step']}")
    # As text, in which NaN equals NaN.
    if json.dumps(state["best"]) != json.dumps(best_of(state["history"])):
        raise ValueError("the best validation is not that of its history")


def step_of(path: Path) -> int:
    """The step of a checkpoint, by its name."""
    return int(path.name.rpartition("-")[2])


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**63  # True is no count


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _words(dtype: torch.dtype, shape: Iterable[int]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
