"""From a trained network to one that draws members: a short training on the fair CRPS."""

from __future__ import annotations

import copy
import logging
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
from .calibration import calibrate
from .config import TrainConfig

logger = logging.getLogger(__name__)
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
        Optimiser steps of the whole network; 0 leaves the forecast without random numbers what it
        is, to the bit.
    learning_rate : float
        The peak of their schedule.
    noise : int
        Random numbers at each place of the latent grid.
    noise_steps : int, optional
        Steps in front of these, which learn what noise does and nothing else; half as many unless
        given, and 0 where the network makes its noise itself, or draws by dropout.
    noise_rate : float
        The peak of their schedule.
    dropout : float, optional
        With ``draws="dropout"``: a rate in place of the network's own.
    calibrate : bool
        Scale the noise behind the training, where there are validation data: over their windows
        the spread of the members is then as large as the error of their mean, and as much too
        small at one lead time as too large at another.

    Raises
    ------
    InputError
        If a setting is out of its range, or of another kind.

    Notes
    -----
    The loss is that of :func:`stforecast.training.losses.crps` (Ferro 2014, equation 8). A short
    training on it behind one for the mean is what Lang et al. (2024), arXiv:2412.15832, and Alet
    et al. (2025), arXiv:2506.10772, do. Learned at once, noise that still does the wrong thing
    spoils what the network knows; so it is learned first, and fast, and the network then follows
    slowly.

    The CRPS forgives large errors more than squares do: where errors have long tails, as those of
    the first hour have, members that it has taught are too close together, on the whole; and errors
    are larger in years that are not trained on. ``calibrate`` makes up for both.
    """

    draws: Draws = "noise"
    members: int = 2
    steps: int = 600
    learning_rate: float = 5e-4
    noise: int = 8
    noise_steps: int | None = None
    noise_rate: float = 3e-3
    dropout: float | None = None
    calibrate: bool = True

    def __post_init__(self) -> None:
        if self.draws not in DRAWS:
            raise InputError(
                f"EnsembleConfig.draws must be one of {', '.join(DRAWS)}, found {self.draws!r:.60}"
            )
        least = {"members": 2, "noise": 1, "steps": 0, "noise_steps": 0}
        for name in least if self.noise_steps is not None else [*least][:3]:
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not whole or value < least[name]:
                raise InputError(
                    f"EnsembleConfig.{name} must be a whole number of at least {least[name]}, "
                    f"found {value!r:.60}"
                )
            object.__setattr__(self, name, int(value))
        if not self.steps and not self.noise_steps:
            raise InputError(
                "EnsembleConfig.steps must be at least 1, or noise_steps, found 0 and "
                f"{self.noise_steps}"
            )
        if self.noise_steps and self.draws != "noise":
            raise InputError(
                f"EnsembleConfig.noise_steps are for draws='noise'; found {self.noise_steps} and "
                f"{self.draws!r}"
            )
        if not isinstance(self.calibrate, bool):
            raise InputError(
                f"EnsembleConfig.calibrate must be True or False, found {self.calibrate!r:.60}"
            )
        for name in ("learning_rate", "noise_rate"):
            rate = getattr(self, name)
            real = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
            if not real or not 0 < rate < math.inf:
                raise InputError(f"EnsembleConfig.{name} must be positive, found {rate!r:.60}")
            object.__setattr__(self, name, float(rate))
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

    def training(self, config: TrainConfig, *, noise_alone: bool = False) -> TrainConfig:
        """Settings of a training on the CRPS, behind those of the training before it.

        Parameters
        ----------
        config : TrainConfig
            Of the training before.
        noise_alone : bool
            Settings of the steps that learn noise alone.

        Returns
        -------
        TrainConfig
        """
        applications = config.rollout if isinstance(config.rollout, int) else config.rollout[-1][1]
        steps = self._noise_steps if noise_alone else self.steps
        return replace(
            config,
            loss="crps",
            rollout=applications,
            members=self.members,
            draws=self.draws,
            steps=steps,
            learning_rate=self.noise_rate if noise_alone else self.learning_rate,
            validate_every=max(1, -(-steps // _VALIDATIONS)),
            patience=None,
            keep_checkpoints=(),
        )

    @property
    def _noise_steps(self) -> int:
        return self.steps // 2 if self.noise_steps is None else self.noise_steps

    def learns_noise_first(self, network: nn.Module) -> bool:
        """Whether there are steps for noise alone.

        Parameters
        ----------
        network : nn.Module
            Of :meth:`network`.

        Returns
        -------
        bool

        Raises
        ------
        InputError
            If they are asked for, and the network makes its noise itself.
        """
        noisy = any(isinstance(part, Perturbation) for part in network.modules())
        if self.noise_steps and not noisy:
            raise InputError(
                f"EnsembleConfig.noise_steps must be 0 for a {type(network).__name__}, which makes "
                f"its noise itself; found {self.noise_steps}"
            )
        return self.draws == "noise" and noisy and self._noise_steps > 0

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
            return copy.deepcopy(network)
        if not hasattr(network, "altered"):
            way = "takes no noise" if self.draws == "noise" else "has no other dropout than its own"
            raise InputError(
                f"a {type(network).__name__} {way}: give ensemble=EnsembleConfig(draws='dropout'), "
                "where it drops something in training, or SimVPv2"
            )
        altered: nn.Module = network.altered(**more)
        return altered


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

    def left() -> TrainConfig:
        """Settings with what is left of the minutes."""
        if config.minutes is None:
            return config
        spent = (time.monotonic() - began) / 60
        return replace(config, minutes=max(config.minutes - spent, 1e-6))

    def over(trained: Forecaster) -> bool:
        return trained.training.get("stopped", {}).get("why") == "minutes"

    directory = None if run_dir is None else Path(run_dir)
    if warm_start is None:
        trained = fit(ds, task, model=model, config=config, run_dir=run_dir, **options)
        if over(trained):
            return trained
        warm_start = trained
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
    network = how.network(trained)
    if how.learns_noise_first(network):
        network.requires_grad_(False)
        for part in network.modules():
            if isinstance(part, Perturbation):
                part.requires_grad_(True)
        noisy = fit(
            ds,
            task,
            model=network,
            config=how.training(left(), noise_alone=True),
            warm_start=warm_start,
            run_dir=directory and directory / "noise",
            **options,
        )
        noisy.network.requires_grad_(True)
        if over(noisy):
            return noisy
        network, warm_start = copy.deepcopy(noisy.network), noisy
    if how.steps:
        many = fit(
            ds,
            task,
            model=network,
            config=how.training(left()),
            warm_start=warm_start,
            run_dir=directory and directory / "ensemble",
            **options,
        )
    else:
        many = noisy
    if how.calibrate and options.get("validation") is not None and not over(many):
        try:
            calibrate(
                many,
                options["validation"],
                windows=config.val_windows,
                seed=config.seed,
                where=config.where,
            )
        except InputError as error:  # what has been learned is not lost for that
            logger.warning("the noise stays as it is, for it cannot be calibrated: %s", error)
    return many
