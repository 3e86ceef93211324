"""Weights of another network to start from."""

from __future__ import annotations

import logging
import os
from typing import Any

from torch import nn

from ..conventions.overlap import told_of
from ..errors import InputError
from ..forecasting.bundle import checksum, plain_tensors, read_bundle, under
from ..forecasting.forecaster import Forecaster

logger = logging.getLogger(__name__)

#: Buffers that describe the data, not what was learned.
_OF_THE_DATA = {"tendency_std", "output_range", "residual_std"}


def carry_over(
    network: nn.Module, warm_start: str | os.PathLike[str] | Forecaster
) -> dict[str, Any]:
    """Copy the weights of a trained network that fit another one by name and shape.

    Parameters
    ----------
    network : torch.nn.Module
        What is to be trained. What does not fit keeps its initial values; so do buffers that
        describe the data.
    warm_start : Forecaster or path-like
        A forecaster, or the directory of a bundle.

    Returns
    -------
    dict
        ``from``, ``sha256`` (of the weights), ``carried`` (how many tensors), ``share`` (of the
        network's parameters), ``left``: names of those that keep their initial values, and why;
        ``trained_on``: the period behind the weights; where these are known ``command``: that made
        them, and ``warm_start``: the same of what they themselves began with.

    Raises
    ------
    InputError
        If there is no bundle, or nothing fits.
    """
    if isinstance(warm_start, Forecaster):
        name, given = "a forecaster", plain_tensors(warm_start.network.state_dict())
        before, training = warm_start.trained_on, warm_start.training
    else:
        description, tensors = read_bundle(warm_start)
        name, given = os.fspath(warm_start), under("network.", tensors)
        training = description.get("training") or {}
        before = told_of(training)
    mine, fit, left = network.state_dict(), {}, {}
    for key, tensor in mine.items():
        if key.rpartition(".")[2] in _OF_THE_DATA:
            continue
        if key not in given:
            left[key] = "not there"
        elif given[key].shape != tensor.shape:
            left[key] = f"{tuple(given[key].shape)} there, {tuple(tensor.shape)} here"
        else:
            fit[key] = given[key]
    count = sum(mine[k].numel() for k in fit)
    if not count:
        raise InputError(
            f"warm_start={name!r}: none of its {len(given)} tensors has the name and shape of one "
            f"of the network's {len(mine)}; give a network of the same kind and sizes"
        )
    network.load_state_dict(fit, strict=False)
    total = sum(v.numel() for v in mine.values())
    logger.info(
        "%d of %d tensors (%.1f%% of the numbers) carried over from %s%s",
        len(fit), len(fit) + len(left), 100 * count / total, name,
        "".join(f"; {k} is new ({why})" for k, why in left.items()),
    )  # fmt: skip
    return {
        "from": name,
        "sha256": checksum(given),
        "carried": len(fit),
        "share": round(count / total, 6),
        "left": left,
        "trained_on": before,
        **{
            key: training[key] for key in ("command", "warm_start") if training.get(key) is not None
        },
    }
