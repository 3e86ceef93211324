"""Training: settings, what is made small, the loop, its log, learning rates."""

from __future__ import annotations

from .checkpoint_files import kept_steps, weights_at
from .config import TrainConfig
from .ensemble import EnsembleConfig
from .fit import fit
from .log import read_log
from .objective import Objective
from .tuning import find_learning_rate, trials

__all__ = [
    "EnsembleConfig",
    "Objective",
    "TrainConfig",
    "find_learning_rate",
    "fit",
    "kept_steps",
    "read_log",
    "trials",
    "weights_at",
]
