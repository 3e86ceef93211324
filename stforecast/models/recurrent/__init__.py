"""Recurrent networks, one paper a file: the ones that the SimVPv2 paper compares with."""

from .base import Recurrent
from .convlstm import ConvLSTM
from .crevnet import CrevNet
from .e3d_lstm import E3DLSTM
from .mau import MAU
from .mim import MIM
from .mmvp import MMVP
from .phydnet import PhyDNet
from .predrnn import PredRNN
from .predrnn_pp import PredRNNpp
from .predrnn_v2 import PredRNNv2
from .swin_lstm import SwinLSTMB, SwinLSTMD

__all__ = [
    "E3DLSTM",
    "MAU",
    "MIM",
    "MMVP",
    "ConvLSTM",
    "CrevNet",
    "PhyDNet",
    "PredRNN",
    "PredRNNpp",
    "PredRNNv2",
    "Recurrent",
    "SwinLSTMB",
    "SwinLSTMD",
]
