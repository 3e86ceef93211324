"""Forecasts batch by batch: from plain arrays at once, from dask's when they are asked for."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from ..task import Task, WindowForecaster
    from .draws import Drawn
    from .known import Known

_BATCH = 32
_CHANGES_WITH_USE = ("_quick", "_samples")  # attributes of a Forecaster
_BATCH_BYTES = 64 * 2**20  # of forecast, where nobody says how many at a time


class Batch:
    """What turns the input rows of a batch of windows into their forecast.

    One object serves all batches: to a cluster it travels once, and in each process it runs one
    batch at a time, since a network uses all cores by itself; meanwhile other threads read what
    comes next and write what is done.
    """

    def __init__(
        self,
        model: WindowForecaster,
        steps: int,
        coordinates: dict[str, np.ndarray | None],
        known: Known | None = None,
        drawn: Drawn | None = None,
    ) -> None:
        from dask.utils import SerializableLock

        self.model, self.steps, self.coordinates = model, steps, coordinates
        self.known, self.drawn = known, drawn
        #: Sizes of what stands before the initialisations: (M,) of an ensemble.
        self.before = () if drawn is None else (len(drawn.members),)
        self.turn = SerializableLock()

    def __dask_tokenize__(self) -> str:  # without it dask pickles the model to name it
        from dask.base import tokenize

        known = self.known and (self.known.ds, self.known.led)
        about = list(self.coordinates.values()), known
        drawn = () if self.drawn is None else (repr(self.drawn),)
        return tokenize(identity(self.model), self.steps, *about, *drawn)

    def __call__(self, init_time: np.ndarray, local: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
        """Forecast from rows (N, H, W) of each input, where windows end at rows `local`.

        Returns
        -------
        numpy.ndarray of float32, shape (B, steps, C', H, W)
            (M, B, steps, C', H, W) of an ensemble.
        """
        task, masked = self.model.task, self.model.task.nan == "mask"
        stacked = np.stack([np.asarray(a, np.float32) for a in arrays], axis=1)  # (N, C, H, W)
        windows = stacked[local[:, None] + np.arange(1 - task.history, 1)]  # (B, T, C, H, W)
        if np.isinf(stacked).any() if masked else not np.isfinite(stacked).all():
            bad = np.isinf(windows) if masked else ~np.isfinite(windows)
            b, _, c = np.argwhere(bad.any(axis=(3, 4)))[0]
            raise InputError(
                f"the input of the forecast from {init_time[b]} holds NaN or infinite values in "
                f"{task.variables[c]}; fill them, or choose other initialisations"
            )
        options: dict[str, Any] = dict(self.coordinates)
        if self.known is not None:
            options["known"] = self.known(init_time)
        if self.drawn is not None:
            options["drawn"] = self.drawn
        with self.turn:
            result = self.model.forecast(windows, init_time, self.steps, **options)
        result = np.asarray(result, np.float32)
        expected = (len(windows), self.steps, len(task.outputs), *windows.shape[3:])
        expected = (*self.before, *expected)
        if result.shape != expected:
            raise InputError(
                f"{type(self.model).__name__}.forecast gave an array of shape {result.shape}, "
                f"expected {expected}: (initialisation, step, variable, and the grid)"
            )
        # Nothing is known of the missing points: not a forecast, whatever the model.
        return np.where(missing(windows, task), np.float32(np.nan), result) if masked else result


def missing(windows: np.ndarray, task: Task) -> np.ndarray:
    """Where a forecast is NaN: where the last input step of its variable is.

    Parameters
    ----------
    windows : array of shape (B, T, C, H, W)
        Inputs, channels as ``task.variables``.
    task : Task

    Returns
    -------
    numpy.ndarray of bool, shape (B, 1, C', H, W)
        Nowhere for a variable that is forecast without a history of its own.
    """
    gone = np.zeros((len(windows), 1, len(task.outputs), *windows.shape[3:]), dtype=bool)
    for channel, name in enumerate(task.outputs):
        if name in task.variables:
            gone[:, 0, channel] = np.isnan(windows[:, -1, task.variables.index(name)])
    return gone


def batches(count: int, wanted: int | None, forecast_bytes: int) -> list[slice]:
    """Cut `count` forecasts in batches of one size, of which only the last may be smaller."""
    if wanted is None:
        wanted = max(1, min(_BATCH, _BATCH_BYTES // forecast_bytes))
    size = math.ceil(count / math.ceil(count / wanted))
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def forecast_now(
    batch: Batch, variables: Sequence[xr.Variable], times: np.ndarray, ends: np.ndarray, cut: Any
) -> np.ndarray:
    """Forecast from arrays that are in memory or read when asked: (N, steps, C', H, W).

    Of an ensemble (M, N, steps, C', H, W), here and in :func:`forecast_later`.

    Parameters
    ----------
    batch : Batch
    variables : sequence of Variable (time, H, W)
        The inputs.
    times : array (N,)
        Initialisation times.
    ends : array (N,)
        Position in time of the last step of each window.
    cut : list of slice
        From :func:`batches`.
    """
    task = batch.model.task
    shape = (len(ends), batch.steps, len(task.outputs), *variables[0].shape[1:])
    out = np.empty((*batch.before, *shape), np.float32)
    for part in cut:
        rows, local = _rows(ends[part], task.history)
        keep = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows
        found = batch(times[part], local, *(v[keep].to_numpy() for v in variables))
        out[..., part, :, :, :, :] = found
    return out


def forecast_later(
    batch: Batch, variables: Sequence[xr.Variable], times: np.ndarray, ends: np.ndarray, cut: Any
) -> Any:
    """Return the same as a dask array, a task a batch, of which nothing is computed yet.

    Each task takes what it needs of the inputs' own chunks, so that the graph stays small. Equal
    models and inputs give equal names, also in another process: unfinished work can be gone on
    with.
    """
    import dask
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    task = batch.model.task
    inputs = [  # whole maps; what is not dask's beside what is, in one chunk
        (v.data if v.chunks is not None else v.chunk().data).rechunk({1: -1, 2: -1})
        for v in variables
    ]
    bounds = [np.concatenate([[0], np.cumsum(a.chunks[0])]) for a in inputs]
    token = tokenize(batch, [a.name for a in inputs], times, ends, cut)
    name = f"forecast-{token}"
    shared = dask.delayed(batch, name=f"model-{token}", traverse=False)
    layer: dict[Any, Any] = {}
    for number, part in enumerate(cut):
        rows, local = _rows(ends[part], task.history)
        places, keys = [], []
        for array, edges in zip(inputs, bounds, strict=True):
            owner = np.searchsorted(edges, rows, side="right") - 1
            own = []
            for chunk in np.unique(owner):
                here = rows[owner == chunk] - edges[chunk]
                whole = here[-1] - here[0] + 1 == len(here)
                own.append(slice(int(here[0]), int(here[-1]) + 1) if whole else here)
                keys.append((array.name, int(chunk), 0, 0))
            places.append(own)
        layer[name, *[0] * len(batch.before), number, 0, 0, 0, 0] = (
            _from_chunks, shared.key, times[part], local, places, *keys,
        )  # fmt: skip
    graph = HighLevelGraph.from_collections(name, layer, dependencies=[shared, *inputs])
    sizes = tuple(part.stop - part.start for part in cut)
    space = [(n,) for n in inputs[0].shape[1:]]
    members = [(n,) for n in batch.before]
    chunks = (*members, sizes, (batch.steps,), (len(task.outputs),), *space)
    return da.Array(graph, name, chunks, dtype=np.float32)


def _from_chunks(
    batch: Batch, times: np.ndarray, local: np.ndarray, places: Any, *chunks: np.ndarray
) -> np.ndarray:
    """Take the rows of each input out of its chunks, and forecast."""
    given, arrays = iter(chunks), []
    for own in places:
        parts = [next(given)[place] for place in own]
        arrays.append(parts[0] if len(parts) == 1 else np.concatenate(parts))
    return batch(times, local, *arrays)


def _rows(ends: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Time steps that the windows ending at `ends` need, and where each window ends in them."""
    windows = ends[:, None] + np.arange(1 - length, 1)
    rows, inverse = np.unique(windows, return_inverse=True)
    return rows, inverse.reshape(windows.shape)[:, -1]


def identity(model: Any) -> Any:
    """Describe a model for dask's names: equal for equal weights and settings, in any process."""
    torch = sys.modules.get("torch")  # where it was never imported, there are no networks
    if torch is not None and isinstance(model, torch.nn.Module):
        return _weights(model)
    if not hasattr(model, "forecast") or hasattr(model, "__dask_tokenize__"):
        return model
    state = {k: identity(v) for k, v in vars(model).items() if k not in _CHANGES_WITH_USE}
    return f"{type(model).__module__}.{type(model).__qualname__}", state


def _weights(network: nn.Module) -> str:
    """Digest of a network's parts, their plain settings and all its numbers."""
    import torch

    plain = (bool, int, float, str, tuple, type(None))
    about: list[Any] = [repr(network)]
    for name, module in network.named_modules():
        settings = {k: v for k, v in vars(module).items() if isinstance(v, plain)}
        settings.pop("training")  # forecasts are made in evaluation, whatever it is now
        about.append((name, f"{type(module).__module__}.{type(module).__qualname__}", settings))
    digest = hashlib.sha256(repr(about).encode())
    for key, tensor in network.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().flatten().contiguous()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
