"""Large pieces of memory: how much is left, and how to have them."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device: what the system says, or what a container leaves."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        meminfo = Path("/proc/meminfo").read_text()
        free = int(meminfo.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    group = Path("/sys/fs/cgroup")
    try:  # the pages of files that are cached count as used there, but can be had
        used = int((group / "memory.current").read_text())
        cached = int((group / "memory.stat").read_text().split("inactive_file ")[1].split()[0])
        free = min(free, int((group / "memory.max").read_text()) - used + cached)
    except (OSError, IndexError, ValueError):  # no container, or one without a limit
        pass
    return max(free, 0)


def empty(shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for numbers that are read in pieces from all over.

    On the host from numpy, which asks Linux for huge pages: windows are gathered a quarter faster.
    """
    if device.type == "cpu":
        bits = {4: np.float32, 2: np.int16}[dtype.itemsize]
        return torch.from_numpy(np.empty(shape, dtype=bits)).view(dtype)
    return torch.empty(*shape, device=device, dtype=dtype)


class Recycled:
    """Float32 memory on the host that is given out again when nobody holds it any more.

    Fresh memory comes page by page, zeroed: for batches of many MB that can take as long as to fill
    it.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def empty(self, shape: Sequence[int]) -> Tensor:
        """Return a tensor of any content. Its memory is used again once all its views are gone."""
        size = math.prod(shape)
        fits = (i for i, memory in enumerate(self._free) if memory.size >= size)
        at = next(fits, None)
        memory = np.empty(size, np.float32) if at is None else self._free.pop(at)
        lease = memory[:size]  # an object of its own, which the tensor's storage holds
        weakref.finalize(lease, self._free.append, memory).atexit = False
        return torch.from_numpy(lease).view(*shape)
