"""Geoscience forecasting on labelled arrays.

``stforecast.predict(ds)`` takes gridded history as an :class:`xarray.Dataset` and gives the
forecast back with the labels it came with. The public names are loaded when they are first used
(PEP 562), so ``import stforecast`` needs neither torch nor dask nor cartopy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import datasets, maps, metrics, models, testing
    from .baselines import Climatology, Persistence
    from .datasets import open_sample
    from .evaluation import evaluate
    from .forecaster import Forecaster, load
    from .maps import plot_map
    from .models import SimVPv2
    from .prediction import predict
    from .training import TrainConfig, fit
    from .windows import Task

__version__ = "0.1.0"

_MODULES = ("datasets", "maps", "metrics", "models", "testing")
_HOMES = {
    "Climatology": "baselines",
    "Forecaster": "forecaster",
    "Persistence": "baselines",
    "SimVPv2": "models",
    "Task": "windows",
    "TrainConfig": "training",
    "evaluate": "evaluation",
    "fit": "training",
    "load": "forecaster",
    "open_sample": "datasets",
    "plot_map": "maps",
    "predict": "prediction",
}

__all__ = [  # noqa: RUF022  (in the order in which a user meets them)
    "Task",
    "Forecaster",
    "TrainConfig",
    "Persistence",
    "Climatology",
    "SimVPv2",
    "fit",
    "predict",
    "load",
    "evaluate",
    "open_sample",
    "plot_map",
    "datasets",
    "models",
    "metrics",
    "maps",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'stforecast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
