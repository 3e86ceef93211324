"""Networks (B, T, C, H, W) -> (B, T', C', H, W). They know nothing of xarray."""

from . import graph
from .cost import Summary, forecasts_per_second, summary
from .inference import for_inference
from .openstl import load_openstl
from .parts import PARTS, assemble
from .recurrent import (
    E3DLSTM,
    MAU,
    MIM,
    MMVP,
    ConvLSTM,
    CrevNet,
    PhyDNet,
    PredRNN,
    PredRNNpp,
    PredRNNv2,
    SwinLSTMB,
    SwinLSTMD,
)
from .simvp import SimVPv2

__all__ = [
    "E3DLSTM",
    "MAU",
    "MIM",
    "MMVP",
    "PARTS",
    "ConvLSTM",
    "CrevNet",
    "PhyDNet",
    "PredRNN",
    "PredRNNpp",
    "PredRNNv2",
    "SimVPv2",
    "Summary",
    "SwinLSTMB",
    "SwinLSTMD",
    "assemble",
    "for_inference",
    "forecasts_per_second",
    "graph",
    "load_openstl",
    "summary",
]
