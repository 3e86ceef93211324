"""Choosing a learning rate, and telling luck from skill: short runs, and runs of several seeds."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import DivergenceError, InputError

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from ..task import Task
    from .config import TrainConfig

logger = logging.getLogger(__name__)

#: What the paper chooses from, for every network and data set (section IV-A).
RATES = (1e-2, 5e-3, 1e-3, 5e-4, 1e-4)


def find_learning_rate(
    ds: xr.Dataset,
    task: Task,
    *,
    validation: xr.Dataset,
    model: str | Callable[[], nn.Module] = "simvpv2",
    config: TrainConfig | None = None,
    rates: Sequence[float] = RATES,
    steps: int = 200,
    run_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Train shortly with each of some learning rates, and compare them on the validation period.

    Each run has the whole schedule in its `steps`, the same initial weights and the same windows.

    Parameters
    ----------
    ds, validation : xarray.Dataset
        Training and validation period.
    task : Task
    model : "simvpv2" or callable
        As for :func:`stforecast.fit`; not a network itself, since each run starts from the same
        initial weights.
    config : TrainConfig, optional
        All other settings. A budget of ``minutes`` is not for these runs.
    rates : sequence of float
        Peak learning rates to try. Default: the paper's.
    steps : int
        Optimiser steps of each run.
    run_dir : path-like, optional
        Where to keep the runs, so that a stopped search goes on.
    **options
        More for :func:`stforecast.fit`: ``warm_start``, ``init_time``, ``allow_overlap``,
        ``progress``.

    Returns
    -------
    pandas.DataFrame
        A row for each rate, in the order given: ``val_score`` (root mean square error in
        standard deviations, of all outputs), ``val_rmse`` (of the first output, in its units) and
        ``note``, which says where a run diverged. ``attrs["best"]`` is the rate with the smallest
        score.

    Raises
    ------
    InputError
        If no rate is given, `model` is a network, or every run diverged.

    Examples
    --------
    >>> import stforecast
    >>> from stforecast.testing import make_weather
    >>> ds = make_weather(200)
    >>> task = stforecast.Task("2m_temperature", input_steps=2, target_steps=2)
    >>> small = lambda: stforecast.SimVPv2(
    ...     2, 2, encoder_channels=4, translator_channels=8, encoder_layers=2, translator_blocks=2
    ... )
    >>> table = find_learning_rate(
    ...     ds.isel(time=slice(150)), task, validation=ds.isel(time=slice(150, None)), model=small,
    ...     rates=(1e-2, 1e-3), steps=2,
    ... )
    >>> table.attrs["best"] in (1e-2, 1e-3)
    True
    """
    from torch import nn

    from .config import TrainConfig
    from .fit import fit

    config = config or TrainConfig()
    if not rates:
        raise InputError("find_learning_rate needs at least one rate")
    if isinstance(model, nn.Module):
        raise InputError(
            "find_learning_rate needs a function that makes the network, found a network: each run "
            "is to start from the same initial weights"
        )
    rows: dict[float, dict[str, Any]] = {}
    alone: dict[str, Any] = {"minutes": None, "keep_checkpoints": ()}
    config = replace(config, steps=steps, validate_every=steps, **alone)
    for rate in rates:
        row: dict[str, Any] = {"val_score": math.inf, "val_rmse": math.inf, "note": ""}
        try:
            forecaster = fit(
                ds,
                task,
                model=model,
                validation=validation,
                config=replace(config, learning_rate=rate),
                run_dir=None if run_dir is None else Path(run_dir) / f"rate-{rate:g}",
                **options,
            )
        except DivergenceError as error:
            row["note"] = str(error)
        else:
            found = forecaster.training["validation"]
            row |= {key: float(found[key]) for key in ("val_score", "val_rmse") if key in found}
        rows[float(rate)] = row
        logger.info("learning rate %g: validation RMSE %.4g %s", rate, row["val_rmse"], row["note"])
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("learning_rate")
    if math.isinf(table["val_score"].min()):
        raise InputError(
            f"training diverged with every learning rate ({', '.join(f'{r:g}' for r in rates)}): "
            f"give smaller ones, or precision='fp32'"
        )
    table.attrs["best"] = min(rows, key=lambda rate: rows[rate]["val_score"])
    return table


def pace(
    ds: xr.Dataset,
    task: Task,
    *,
    validation: xr.Dataset,
    model: str | Callable[[], nn.Module] = "simvpv2",
    config: TrainConfig | None = None,
    steps: int = 8,
    **options: Any,
) -> dict[str, float]:
    """Time a few steps of a training, and one validation.

    Parameters
    ----------
    ds, validation, task, model, config
        As for :func:`stforecast.fit`. Nothing is compiled.
    steps : int
        How many; at least 4, of which the first two are not counted.
    **options
        More for :func:`stforecast.fit`.

    Returns
    -------
    dict
        Seconds of a ``"step"`` (the median) and of a ``"validation"``; on a GPU of CUDA also
        ``"peak_memory"``, bytes.

    Raises
    ------
    InputError
        As :func:`stforecast.fit`.
    """
    import torch

    from ..models.surroundings import find_device
    from .config import TrainConfig
    from .fit import fit

    steps = max(4, steps)
    config = replace(
        config or TrainConfig(), steps=steps, validate_every=steps, checkpoint_every=None,
        minutes=None, patience=None, compile="never", keep_checkpoints=(),
    )  # fmt: skip
    device = find_device(config.device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    ends: list[float] = []

    def note(event: dict[str, Any]) -> None:
        if on_gpu:  # a step ends when the device has done it
            torch.cuda.synchronize(device)
        ends.append(time.monotonic())

    fit(ds, task, model=model, validation=validation, config=config, progress=note, **options)
    took = [b - a for a, b in pairwise(ends)]
    step = median(took[1:-1])
    found = {"step": step, "validation": max(0.0, took[-1] - step)}
    if on_gpu:
        found["peak_memory"] = float(torch.cuda.max_memory_allocated(device))
    return found


def trials(
    n: int, run: Callable[[int], Mapping[Hashable, float] | pd.Series[float]]
) -> pd.DataFrame:
    """Run something `n` times, with seeds of its own, and give mean and standard deviation.

    The paper reports means over three trials.

    Parameters
    ----------
    n : int
        How often.
    run : callable
        Takes the number of the trial, from 0, and gives named figures.

    Returns
    -------
    pandas.DataFrame
        A row for each figure, in the order of the first trial: columns ``0`` to ``n - 1``,
        ``mean`` and ``std`` (standard deviation of a single trial, with n - 1 in the
        denominator; NaN where n is 1).

    Raises
    ------
    InputError
        If `n` is not positive, or trials give different figures.

    Examples
    --------
    >>> trials(3, lambda i: {"rmse": 1.0 + i}).loc["rmse", ["mean", "std"]].tolist()
    [2.0, 1.0]
    """
    if n < 1:
        raise InputError(f"the number of trials must be at least 1, found {n}")
    columns = {i: pd.Series(run(i), dtype=float) for i in range(n)}
    first = columns[0].index
    for i, column in columns.items():
        if set(column.index) != set(first):
            raise InputError(
                f"trial {i} gives {list(column.index)}, the first one gave {list(first)}"
            )
    table = pd.DataFrame({i: column.reindex(first) for i, column in columns.items()})
    return table.assign(mean=table.mean(axis=1), std=table.std(axis=1, ddof=1))
