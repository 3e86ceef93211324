"""Small synthetic data sets with known answers, for this library's tests and its users'.

``make_*`` give Datasets; ``write_*`` write files in the genuine formats of their owners, filled
with synthetic content.
"""

from __future__ import annotations

from .flow import make_flow, write_nyc_flow, write_taxibj, write_taxibj_npz
from .moving_mnist import make_digits, write_mnist, write_mnist_test_seq
from .robot import write_bridgedata, write_robonet
from .video import write_caltech, write_kitti, write_kth, write_kth_frames, write_prednet_hkl
from .weather import make_forecast, make_weather, relabel
from .weather_files import write_cds, write_ncep, write_weatherbench1, write_weatherbench2

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
