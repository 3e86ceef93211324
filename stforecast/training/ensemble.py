"""From a trained network to one that draws members: a short training on the fair CRPS."""

from __future__ import annotations

import copy
import math
import numbers
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..forecasting.forecaster import Forecaster, load
from ..models.members import DRAWS, Draws, Perturbation
from ..task import Task
from .config import TrainConfig

_VALIDATIONS = 4


@dataclass(frozen=True)
class EnsembleConfig:
    """How a trained network learns to draw members of an ensemble.

    Parameters
    ----------
    draws : {"noise", "dropout"}
        By noise in the translator, which the network learns to use; or by what it drops while it
        learns, dropout and stochastic depth, which goes on in forecasts.
    members : int
        Members of each window in training, from 2 on. Forecasts may have any number.
    steps : int
        Optimiser steps.
    learning_rate : float
        The peak of the schedule.
    noise : int
        Random numbers at each place of the latent grid.
    dropout : float, optional
        With ``draws="dropout"``: a rate in place of the network's own.
    noise_alone : bool
        With ``draws="noise"``: learn what noise does and nothing else, so that the forecast without
        random numbers stays what it is.

    Raises
    ------
    InputError
        If a setting is out of its range, or of another kind.

    Notes
    -----
    The loss is that of :func:`stforecast.training.losses.crps` (Ferro 2014, equation 8). A short
    training on it behind one for the mean is what Lang et al. (2024), arXiv:2412.15832, and Alet
    et al. (2025), arXiv:2506.10772, do.
    """

    draws: Draws = "noise"
    members: int = 2
    steps: int = 300
    learning_rate: float = 1e-3
    noise: int = 8
    dropout: float | None = None
    noise_alone: bool = False

    def __post_init__(self) -> None:
        if self.draws not in DRAWS:
            raise InputError(
                f"EnsembleConfig.draws must be one of {', '.join(DRAWS)}, found {self.draws!r:.60}"
            )
        for name, least in (("members", 2), ("steps", 1), ("noise", 1)):
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not whole or value < least:
                raise InputError(
                    f"EnsembleConfig.{name} must be a whole number of at least {least}, found "
                    f"{value!r:.60}"
                )
            object.__setattr__(self, name, int(value))
        rate = self.learning_rate
        if not isinstance(rate, numbers.Real) or isinstance(rate, bool) or not 0 < rate < math.inf:
            raise InputError(f"EnsembleConfig.learning_rate must be positive, found {rate!r:.60}")
        object.__setattr__(self, "learning_rate", float(rate))
        if not isinstance(self.noise_alone, bool) or (self.noise_alone and self.draws != "noise"):
            raise InputError(
                "EnsembleConfig.noise_alone must be True or False, and is for draws='noise'; found "
                f"{self.noise_alone!r:.60} and {self.draws!r}"
            )
        if (share := self.dropout) is not None:
            fits = isinstance(share, numbers.Real) and not isinstance(share, bool) and 0 < share < 1
            if not fits or self.draws != "dropout":
                raise InputError(
                    "EnsembleConfig.dropout must lie between 0 and 1, and is for draws='dropout'; "
                    f"found {share!r:.60} and {self.draws!r}"
                )

    @classmethod
    def of(cls, given: Any) -> EnsembleConfig:
        """Settings from what ``fit(ensemble=)`` is given: "crps", or settings."""
        if given == "crps":
            return cls()
        if not isinstance(given, cls):
            raise InputError(
                f"ensemble must be 'crps' or an EnsembleConfig, found {given!r:.60}: the members "
                "that a forecast has are predict(ensemble=20)'s to say"
            )
        return given

    def training(self, config: TrainConfig) -> TrainConfig:
        """Settings of the training on the CRPS, behind those of the training before it."""
        applications = config.rollout if isinstance(config.rollout, int) else config.rollout[-1][1]
        return replace(
            config,
            loss="crps",
            rollout=applications,
            members=self.members,
            draws=self.draws,
            steps=self.steps,
            learning_rate=self.learning_rate,
            validate_every=max(1, -(-self.steps // _VALIDATIONS)),
            patience=None,
            keep_checkpoints=(),
        )

    def network(self, trained: Forecaster) -> nn.Module:
        """A copy of a trained network that can draw members.

        Raises
        ------
        InputError
            If it cannot have noise.
        """
        network: Any = trained.network
        more = {"noise": self.noise} if self.draws == "noise" else {"dropout": self.dropout}
        has = self.draws == "noise" and getattr(network, "takes_noise", False)
        if has or more == {"dropout": None}:
            return self._kept(copy.deepcopy(network))
        if not hasattr(network, "altered"):
            way = "takes no noise" if self.draws == "noise" else "has no other dropout than its own"
            raise InputError(
                f"a {type(network).__name__} {way}: give ensemble=EnsembleConfig(draws='dropout'), "
                "where it drops something in training, or SimVPv2"
            )
        return self._kept(network.altered(**more))

    def _kept(self, network: nn.Module) -> nn.Module:
        """Keep all but what noise does from being learned, where that is asked for."""
        if self.noise_alone:
            network.requires_grad_(False)
            for part in network.modules():
                if isinstance(part, Perturbation):
                    part.requires_grad_(True)
        return network


def fine_tuned(
    fit: Callable[..., Forecaster],
    ds: Any,
    task: Task,
    how: EnsembleConfig,
    *,
    model: Any,
    config: TrainConfig,
    warm_start: str | os.PathLike[str] | Forecaster | None,
    run_dir: str | os.PathLike[str] | None,
    **options: Any,
) -> Forecaster:
    """Train a network, unless a trained one is given, and then on the CRPS of its members.

    Parameters
    ----------
    fit : callable
        :func:`stforecast.training.fit`.
    ds, task, model, config, warm_start, run_dir, **options
        Its parameters.
    how : EnsembleConfig

    Returns
    -------
    Forecaster
        Which draws members; without, where the minutes were over before (``training["stopped"]``).

    Raises
    ------
    InputError
        If settings contradict each other, or the trained network is of another task.
    """
    if config.members > 1 or config.loss == "crps":
        raise InputError(
            "with ensemble= the training on the CRPS comes behind another one, and has its members "
            f"from there: leave loss='crps' and members={config.members} out of the TrainConfig"
        )
    began = time.monotonic()
    if warm_start is None:
        trained = fit(ds, task, model=model, config=config, run_dir=run_dir, **options)
        if trained.training.get("stopped", {}).get("why") == "minutes":
            return trained
        warm_start = trained
        if config.minutes is not None:  # what is left of them
            spent = (time.monotonic() - began) / 60
            config = replace(config, minutes=max(config.minutes - spent, 1e-6))
    else:
        if model != "simvpv2":
            raise InputError(
                "with ensemble= and warm_start= the network is the trained one: leave out model="
            )
        trained = warm_start if isinstance(warm_start, Forecaster) else load(warm_start)
        if trained.task != task:
            raise InputError(
                f"the trained network is of another task ({trained.task}) than the one given "
                f"({task}): give Forecaster.task, or leave out warm_start"
            )
    made = fit(
        ds,
        task,
        model=how.network(trained),
        config=how.training(config),
        warm_start=warm_start,
        run_dir=None if run_dir is None else Path(run_dir) / "ensemble",
        **options,
    )
    made.network.requires_grad_(True)
    return made
