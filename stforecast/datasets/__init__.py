"""Data sets: each ``open_*()`` gives a canonical, lazy :class:`xarray.Dataset`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .addresses import download
    from .clips import as_samples, protocol_times
    from .computed import add_inputs
    from .content import fingerprint
    from .describing import Description, describe
    from .downloads import fetch
    from .extracting import extract
    from .flow import FlowScale, open_nyc_flow, open_taxibj
    from .kth import open_kth
    from .moving_mnist import open_moving_mnist
    from .periods import select_period, split
    from .preparing import open_prepared, prepare, statistics
    from .robot import open_bridgedata, open_robonet
    from .street import open_caltech, open_kitti
    from .weather import open_era5, open_grid, open_ncep, open_sample, open_weatherbench

_HOMES = {
    "Description": "describing",
    "FlowScale": "flow",
    "add_inputs": "computed",
    "as_samples": "clips",
    "describe": "describing",
    "download": "addresses",
    "extract": "extracting",
    "fetch": "downloads",
    "fingerprint": "content",
    "open_bridgedata": "robot",
    "open_caltech": "street",
    "open_era5": "weather",
    "open_grid": "weather",
    "open_kitti": "street",
    "open_kth": "kth",
    "open_moving_mnist": "moving_mnist",
    "open_ncep": "weather",
    "open_nyc_flow": "flow",
    "open_prepared": "preparing",
    "open_robonet": "robot",
    "open_sample": "weather",
    "open_taxibj": "flow",
    "open_weatherbench": "weather",
    "prepare": "preparing",
    "protocol_times": "clips",
    "select_period": "periods",
    "split": "periods",
    "statistics": "preparing",
}

__all__ = [
    "Description",
    "FlowScale",
    "add_inputs",
    "as_samples",
    "describe",
    "download",
    "extract",
    "fetch",
    "fingerprint",
    "open_bridgedata",
    "open_caltech",
    "open_era5",
    "open_grid",
    "open_kitti",
    "open_kth",
    "open_moving_mnist",
    "open_ncep",
    "open_nyc_flow",
    "open_prepared",
    "open_robonet",
    "open_sample",
    "open_taxibj",
    "open_weatherbench",
    "prepare",
    "protocol_times",
    "select_period",
    "split",
    "statistics",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'stforecast.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
