"""Small synthetic data sets with known answers, for this library's tests and its users'.

``make_*`` give Datasets; ``write_*`` write files in the genuine formats of their owners, filled
with synthetic content.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .flow import make_flow, write_nyc_flow, write_taxibj, write_taxibj_npz
    from .moving_mnist import make_digits, write_mnist, write_mnist_test_seq
    from .robot import write_bridgedata, write_robonet
    from .video import write_caltech, write_kitti, write_kth, write_kth_frames, write_prednet_hkl
    from .weather import make_forecast, make_weather, relabel
    from .weather_files import write_cds, write_ncep, write_weatherbench1, write_weatherbench2

_HOMES = {
    "make_digits": "moving_mnist",
    "make_flow": "flow",
    "make_forecast": "weather",
    "make_weather": "weather",
    "relabel": "weather",
    "write_bridgedata": "robot",
    "write_caltech": "video",
    "write_cds": "weather_files",
    "write_kitti": "video",
    "write_kth": "video",
    "write_kth_frames": "video",
    "write_mnist": "moving_mnist",
    "write_mnist_test_seq": "moving_mnist",
    "write_ncep": "weather_files",
    "write_nyc_flow": "flow",
    "write_prednet_hkl": "video",
    "write_robonet": "robot",
    "write_taxibj": "flow",
    "write_taxibj_npz": "flow",
    "write_weatherbench1": "weather_files",
    "write_weatherbench2": "weather_files",
}

__all__ = [
    "make_digits",
    "make_flow",
    "make_forecast",
    "make_weather",
    "relabel",
    "write_bridgedata",
    "write_caltech",
    "write_cds",
    "write_kitti",
    "write_kth",
    "write_kth_frames",
    "write_mnist",
    "write_mnist_test_seq",
    "write_ncep",
    "write_nyc_flow",
    "write_prednet_hkl",
    "write_robonet",
    "write_taxibj",
    "write_taxibj_npz",
    "write_weatherbench1",
    "write_weatherbench2",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'stforecast.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
