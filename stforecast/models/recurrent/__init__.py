"""Recurrent networks, one paper a file: the ones that the SimVPv2 paper compares with."""

from .base import Recurrent
from .convlstm import ConvLSTM

__all__ = ["ConvLSTM", "Recurrent"]
