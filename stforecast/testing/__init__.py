"""Small synthetic data sets with known answers, for this library's tests and its users'.

``make_*`` give Datasets; ``write_*`` write files in the genuine formats of their owners, filled
with synthetic content.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .weather import make_forecast, make_weather, relabel

_HOMES = {
    "make_forecast": "weather",
    "make_weather": "weather",
    "relabel": "weather",
}

__all__ = ["make_forecast", "make_weather", "relabel"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'stforecast.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
