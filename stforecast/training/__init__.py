"""Training: settings, the loop, checkpoints, several processes."""

from __future__ import annotations

from .config import TrainConfig
from .fit import fit
from .log import read_log
from .tuning import find_learning_rate, trials

__all__ = ["TrainConfig", "find_learning_rate", "fit", "read_log", "trials"]
