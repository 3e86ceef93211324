"""How much memory is left."""

from __future__ import annotations

import os
from pathlib import Path

import torch


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
