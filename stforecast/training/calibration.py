"""Noise of a size that makes the spread of members as large as the error of their mean."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from ..forecasting.forecaster import Forecaster
from ..models.members import Perturbation
from ..task import initialisations

logger = logging.getLogger(__name__)
_MEMBERS, _WINDOWS, _FURTHEST = 8, 128, 1.5


def scale_noise(network: nn.Module, factor: float) -> None:
    """Scale what each :class:`stforecast.models.members.Perturbation` of a network does, in place.

    Parameters
    ----------
    network : nn.Module
    factor : float
        Members of a network that has been taught are then about as many times as far apart.
    """
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, Perturbation):
                part.project.weight.mul_(factor)


def calibrate(
    forecaster: Forecaster,
    validation: Any,
    *,
    windows: int = 128,
    seed: int = 0,
    where: Callable[[Any], Any] | None = None,
) -> dict[str, float] | None:
    """Scale the noise of a network until spread equals skill on data that it was not trained on.

    Parameters
    ----------
    forecaster : Forecaster
        Which draws members by noise of :class:`stforecast.models.members.Perturbation`; its network
        is changed in place, and ``training["calibration"]`` tells what was found.
    validation : xarray.Dataset
    windows : int
        How many are forecast, evenly spread, 128 at the most.
    seed : int
        Of the members' noise.
    where : callable, optional
        Tells of truth which points count, as :class:`stforecast.TrainConfig` has it.

    Returns
    -------
    dict, optional
        ``"noise_scaled"``, the factor, from 2/3 to 3/2, and ``"least"`` and ``"most"``, the ratios
        of spread and skill (``spread_skill`` of :func:`stforecast.evaluate`) over lead times and
        variables before the last step. None where nothing can be scaled.

    Notes
    -----
    The spread of members that have been taught grows nearly as the noise does: 1.09 times the noise
    made it 1.08 to 1.09 times as large, of the bundle in the package. Scaled is by
    1 / sqrt(least * most), twice.
    """
    from ..evaluation import evaluate
    from ..evaluation.scorecards import variables_of
    from ..forecasting import predict

    task = forecaster.task
    if not any(isinstance(part, Perturbation) for part in forecaster.network.modules()):
        return None
    times = initialisations(validation, task)
    times = times[np.linspace(0, len(times) - 1, min(windows, _WINDOWS, len(times))).astype(int)]
    factor, least, most = 1.0, math.nan, math.nan
    how: dict[str, Any] = {"nan": task.nan}
    if where is not None:  # which is given tensors, as in training
        how["where"] = lambda truth: np.asarray(where(torch.tensor(truth)))
    for _ in range(2):
        forecast = predict(validation, forecaster, init_time=times, ensemble=_MEMBERS, seed=seed)
        scores = evaluate(forecast, validation, metrics=("spread_skill",), **how)
        found = [scores[v].values for v in variables_of(scores)]
        least, most = float(np.min(found)), float(np.max(found))
        wanted = factor / math.sqrt(least * most) if 0 < least <= most < math.inf else math.nan
        if not 1 / _FURTHEST <= wanted <= _FURTHEST:
            logger.warning(
                "the spread of the members is %.3g to %.3g of the error of their mean, which "
                "scaling cannot mend: teach them for more steps",
                least,
                most,
            )
            wanted = min(max(wanted, 1 / _FURTHEST), _FURTHEST) if wanted == wanted else factor
        scale_noise(forecaster.network, wanted / factor)
        factor = wanted
    told = {"noise_scaled": factor, "least": least, "most": most}
    logger.info("noise scaled by %.3f: spread / skill was %.3f to %.3f", factor, least, most)
    forecaster.training["calibration"] = told
    return told
