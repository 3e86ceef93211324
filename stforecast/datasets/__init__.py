"""Data sets: each ``open_*()`` gives a canonical, lazy :class:`xarray.Dataset`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .periods import select_period, split
    from .weather import open_sample, open_weatherbench

_HOMES = {
    "open_sample": "weather",
    "open_weatherbench": "weather",
    "select_period": "periods",
    "split": "periods",
}

__all__ = ["open_sample", "open_weatherbench", "select_period", "split"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'stforecast.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
