"""What the caller's program has set in torch, and the machine it runs on.

Results depend on neither: networks are made and run in float32 on a device that was named, and
the caller's random numbers and defaults are what they were before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..errors import InputError

_LOCK = threading.Lock()
_CALLERS: list[torch.dtype] = []  # the caller's default type, once for each block under way


def find_device(wanted: str | torch.device | None = None) -> torch.device:
    """Find the device to compute on.

    Parameters
    ----------
    wanted : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; a GPU of CUDA if there is one unless given.

    Raises
    ------
    InputError
        If this machine has no such device; the text says which there are.
    """
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": 1}
    if (kind := torch.accelerator.current_accelerator(check_available=True)) is not None:
        there[kind.type] = torch.accelerator.device_count()
    try:
        place = torch.device(wanted) if isinstance(wanted, (str, torch.device)) else None
    except RuntimeError:
        place = None
    if place is None or (place.index or 0) >= there.get(place.type, 0):
        names = [f"{k}:{i}" for k, n in there.items() for i in range(n) if k != "cpu"]
        raise InputError(
            f"there is no device {str(wanted)!r:.60} on this machine; it has "
            f"{', '.join(['cpu', *names])}"
        )
    return place


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 2)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextmanager
def own_defaults(
    device: str | torch.device = "cpu", *, random: torch.device | None = None
) -> Iterator[None]:
    """Make tensors in float32 on `device` while the block runs, whatever the caller's defaults are.

    Torch has one default type for all threads: the last of several blocks sets it back.

    Parameters
    ----------
    device : str
        Where tensors are made for which nobody says where.
    random : torch.device, optional
        Where the block draws random numbers, besides the CPU; those that the caller draws
        afterwards do not change. Without it they do.
    """
    with ExitStack() as stack:
        with _LOCK:
            _CALLERS.append(_CALLERS[-1] if _CALLERS else torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        stack.callback(_leave)
        if torch.get_default_device() != torch.device(device):  # it costs a little at each call
            stack.enter_context(torch.device(device))
        for kind in ("cpu", "cuda", "mps"):
            # The caller computes in another type. What our own autocast keeps of the weights would
            # outlive it within theirs, and the step of an optimizer.
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        if random is not None:
            cards = [random] if random.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices=cards))
        yield


class Outline(TorchFunctionMode):
    """Lay a network out on the meta device without filling its tensors: shapes, and no memory.

    Torch's own functions that fill there take seconds to load.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name.endswith("_") and not name.endswith("__"):  # fills its first argument
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _leave() -> None:
    with _LOCK:
        before = _CALLERS.pop()
        if not _CALLERS:
            torch.set_default_dtype(before)
