"""Linear regression at every grid point: a baseline that is cheap, and hard to beat."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..conventions.overlap import period_of, told_of
from ..errors import InputError
from ..files import replacing
from ..forecasting.core import ForecastModel
from ..parallel import Graph
from ..task import Task, require_task, window_starts

__all__ = ["LinearRegression"]

_READ = 2**25  # bytes of a block of history
_WORK = 2**22  # numbers of one row's samples in memory at once
_FORMAT = 1  # of the files that `save` writes


@dataclass(frozen=True)
class _Layout:
    """Which values make the predictors of a point, in their order; the last is a constant 1."""

    lags: int  # of the point itself, for each variable
    radius: int  # of the neighbourhood, in cells
    near_lags: int  # of each neighbour
    channels: int

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Neighbours (rows up, columns right), without the point itself."""
        reach = range(-self.radius, self.radius + 1)
        return [(j, i) for j in reach for i in reach if (j, i) != (0, 0)]

    @property
    def size(self) -> int:
        return self.channels * (self.lags + self.near_lags * len(self.offsets)) + 1

    def predictors(self, band: np.ndarray, ends: np.ndarray, dtype: Any) -> np.ndarray:
        """Predictors of the middle row of a band for windows that end at `ends`.

        `band` is (time, C, 2 r + 1, W + 2 r): the row and its neighbours; gives (W, N, size).
        """
        r = self.radius
        width = band.shape[-1] - 2 * r
        out = np.empty((width, len(ends), self.size), dtype=dtype)
        column = 0
        for c in range(self.channels):
            for lag in range(self.lags):
                out[..., column] = band[ends - lag, c, r, r : r + width].T
                column += 1
            for j, i in self.offsets:
                for lag in range(self.near_lags):
                    out[..., column] = band[ends - lag, c, r + j, r + i : r + i + width].T
                    column += 1
        out[..., column] = 1
        return out


class LinearRegression(ForecastModel):
    """Forecast each grid point and lead time by a ridge regression of its own.

    The predictors of a point are its own values at all input steps, those of its neighbours at the
    last steps, and a constant, for every input variable.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :meth:`fit` makes it: ``coefficients`` with dims (target, predictor, latitude,
        longitude), or (…, y, x), and ``mean`` (variable, latitude, longitude), which the
        predictors and targets are differences from.
    task : Task
        What is forecast.
    """

    def __init__(self, dataset: xr.Dataset, task: Task) -> None:
        wanted = {"coefficients": ("target", "predictor"), "mean": ("variable",)}
        for name, dims in wanted.items():
            if name not in dataset or dataset[name].dims[: len(dims)] != dims:
                raise InputError(
                    f"a linear regression has the variable {name!r} with dims {(*dims, '...')}: "
                    "make it with LinearRegression.fit"
                )
        self.dataset = dataset
        self.task = task
        self.fitted_on = Grid.of(dataset)
        attrs = dataset.attrs
        self._layout = _Layout(
            task.input_steps, attrs["neighbours"], attrs["neighbour_steps"], len(task.variables)
        )
        self._targets = [task.channels.index(name) for name in task.outputs]

    @property
    def trained_on(self) -> dict[str, str]:
        """Attributes of its forecasts that say which period it was fitted to, and of what data."""
        return told_of(self.dataset.attrs)

    @classmethod
    def fit(
        cls,
        ds: Any,
        task: Task,
        *,
        neighbours: int = 1,
        neighbour_steps: int = 2,
        ridge: float = 1e-5,
        windows: int | None = 10_000,
        max_bytes: int = 2**29,
    ) -> LinearRegression:
        """Fit all points in closed form, from sums over the history, taken in one pass.

        The history is read block by block, and each block summed where it is read: by threads, or,
        for data of dask, by the scheduler that is active (a ``distributed.Client``, say).

        For standardised predictors Z and targets y of N windows the coefficients minimise
        ``|y - Z b|^2 / N + ridge |b|^2``; the constant is not shrunk.

        Parameters
        ----------
        ds : xarray.Dataset
            History, of the training period only: no period is selected here. Gaps are allowed.
        task : Task
            What is forecast. With ``nan="mask"`` a NaN counts as the point's mean.
        neighbours : int
            How many cells away neighbours are taken, in every direction; 0 takes none. Neighbours
            go round the globe; beyond other edges the outermost cell stands in.
        neighbour_steps : int
            Last input steps at which neighbours are taken.
        ridge : float
            Above 0.
        windows : int or None
            Use no more windows than this, spread evenly and over all times of day; None takes all.
            The fit costs time in proportion.
        max_bytes : int
            Limit of the sums, 8 x (predictors) x (predictors + targets) bytes a point, of which
            there are four at once. A grid that needs more is taken in bands of rows, with one pass
            for each: a global one of 1.5 degrees in three.

        Returns
        -------
        LinearRegression
            Its ``dataset`` is float32; attributes record period and settings.

        Raises
        ------
        InputError
            If there are fewer windows than predictors, or data are not finite.
        """
        require_task(task)
        for name, value, least in (
            ("neighbours", neighbours, 0),
            ("neighbour_steps", neighbour_steps, 1),
            ("windows", 1 if windows is None else windows, 1),
        ):
            if isinstance(value, bool) or int(value) != value or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}: {value!r}")
        if not ridge > 0:
            raise InputError(f"ridge must be above 0, found {ridge!r}")
        near_steps = min(neighbour_steps, task.input_steps)
        layout = _Layout(task.input_steps, neighbours, near_steps, len(task.variables))
        canonical, _ = canonicalize(ds, task.channels, form="history")
        time = canonical["time"].values
        starts = window_starts(time, task.step, task.window)
        if windows is not None and len(starts) > windows:
            # Not every nth: that would see some hours of the day only.
            starts = starts[np.linspace(0, len(starts) - 1, windows).round().astype(int)]
        if len(starts) < 2 * layout.size:
            raise InputError(
                f"{len(starts)} windows are too few for {layout.size} predictors a point ({task}); "
                "give a longer period, or fewer neighbours"
            )
        space = canonical[task.channels[0]].dims[1:]
        height, width = (canonical.sizes[d] for d in space)
        periodic = Grid.of(canonical).periodic
        targets = [task.channels.index(name) for name in task.outputs]
        outputs = len(targets) * task.target_steps
        rows = max(1, max_bytes // (4 * 8 * width * layout.size * (layout.size + outputs)))

        coefficients = np.empty((outputs, layout.size, height, width), dtype=np.float32)
        mean = _centre(canonical, task)
        for first in range(0, height, rows):
            band = slice(first, min(first + rows, height))
            sums = _sums(canonical, task, layout, starts, band, periodic, targets, mean)
            coefficients[:, :, band] = _solve(sums, layout.size, float(ridge))
        coords = {d: canonical[d] for d in map(str, space) if d in canonical.coords}
        attrs = {
            "title": "ridge regression of each grid point on its history and its neighbours'",
            **period_of(canonical),
            "windows": len(starts),
            "neighbours": neighbours,
            "neighbour_steps": near_steps,
            "ridge": float(ridge),
            "periodic": int(periodic),
            "timestep": task.timestep,
        }
        dataset = xr.Dataset(
            {
                "coefficients": (("target", "predictor", *space), coefficients),
                "mean": (("variable", *space), mean),
            },
            {**coords, "variable": list(task.channels)},
            attrs,
        )
        return cls(dataset, task)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a netCDF file, for :meth:`load`: coefficients, grid, settings and task.

        Parameters
        ----------
        path : path-like
            The file. One that is there is replaced, whole or not at all.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        path = Path(path)
        if path.is_dir():
            raise InputError(f"{path} is a directory; give the name of a file, as regression.nc")
        text = json.dumps(self.task.to_dict())
        with replacing(path) as part:
            own = self.dataset.assign_attrs(task=text, linear_regression_format=_FORMAT)
            own.to_netcdf(part, engine="netcdf4")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LinearRegression:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The file.

        Raises
        ------
        InputError
            If there is no such file, or it is not one of :meth:`save`.
        """
        try:
            with xr.open_dataset(path, engine="netcdf4") as opened:
                dataset = opened.load()
            found = dataset.attrs.pop("linear_regression_format")
            task = Task(**json.loads(dataset.attrs.pop("task")))
        except FileNotFoundError:
            raise InputError(f"there is no file {path}") from None
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path} is not a file that LinearRegression.save wrote, or not all of it "
                f"({error}); fit and save it again"
            ) from error
        if found != _FORMAT:
            raise InputError(
                f"{path} has format {found}, and this version of the library reads {_FORMAT}"
            )
        return cls(dataset.drop_encoding(), task)

    def _forecast(self, inputs: np.ndarray, init_time: np.ndarray, steps: int) -> np.ndarray:
        """Apply the regression; past the task's target steps to its own forecast."""
        task = self.task
        if steps > task.target_steps and task.outputs != task.variables:
            raise InputError(
                f"cannot forecast {steps} steps: past {task.target_steps} the forecast would need "
                f"itself of every input, but it is of {', '.join(task.outputs)} only"
            )
        mean = self.dataset["mean"].values
        window = inputs.astype(np.float32, copy=False) - mean[: len(task.variables)]
        if task.nan == "mask":
            window = np.nan_to_num(window, nan=0.0)
        done: list[np.ndarray] = []
        for first in range(0, steps, task.target_steps):
            if first:  # then inputs and outputs are the same variables
                window = np.concatenate([window, done[-1]], axis=1)[:, -task.input_steps :]
            done.append(self._once(window))
        return np.concatenate(done, axis=1)[:, :steps] + mean[self._targets]

    def _once(self, window: np.ndarray) -> np.ndarray:
        """Differences from the mean (B, T, C, H, W) to those forecast (B, T', C', H, W)."""
        batch, length, channels, height, width = window.shape
        layout, task = self._layout, self.task
        padded = _padded(
            window.reshape(-1, channels, height, width),
            layout.radius,
            bool(self.dataset.attrs["periodic"]),
        )
        ends = np.arange(batch) * length + length - 1
        shape = (batch, task.target_steps, len(task.outputs), height, width)
        out = np.empty(shape, dtype=np.float32)
        coefficients = self.dataset["coefficients"].values
        for row in range(height):
            around = padded[:, :, row : row + 2 * layout.radius + 1]
            x = layout.predictors(around, ends, np.float32)
            y = x @ coefficients[:, :, row].transpose(2, 1, 0)  # (W, B, T' C')
            out[..., row, :] = y.transpose(1, 2, 0).reshape(*shape[:3], width)
        return out


def _centre(ds: xr.Dataset, task: Task) -> np.ndarray:
    """What values are taken as differences from (C, H, W): the mean of the first times.

    It need only be near the mean, so that sums of products lose no digits. It must be the same for
    all bands: the constant of a point depends on its neighbours' constants.
    """
    out = []
    for name in task.channels:
        first = ds[name].isel(time=slice(0, max(1, _READ // (4 * ds[name][0].size)))).values
        known = np.isfinite(first)
        total = np.where(known, first, 0).sum(axis=0, dtype=np.float64)
        out.append(total / np.maximum(known.sum(axis=0), 1))
    return np.stack(out).astype(np.float32)


def _sums(
    ds: xr.Dataset,
    task: Task,
    layout: _Layout,
    starts: np.ndarray,
    band: slice,
    periodic: bool,
    targets: list[int],
    mean: np.ndarray,
) -> np.ndarray:
    """Sums over windows of predictors times predictors and targets: (rows, W, F, F + L).

    A task for each block of history, and then for each part of its rows; the order in which their
    sums are added is always the same.
    """
    rows, height, width = band.stop - band.start, *mean.shape[1:]
    have = min(layout.radius, band.start), min(layout.radius, height - band.stop)
    around = slice(band.start - have[0], band.stop + have[1])
    variables = [ds[name].variable[:, around] for name in task.channels]
    length = max(task.window + 1, _READ // (4 * len(variables) * variables[0][0].size))
    count = max(1, _WORK // (width * (layout.size + len(targets) * task.target_steps)))
    graph = Graph()
    prepare = graph.put(partial(_anomalies, task, mean[:, around], layout.radius, periodic, have))
    part = graph.put(partial(_part, task, layout, targets, count))
    lazy = variables[0].chunks is not None
    halves = [slice(0, rows // 2), slice(rows // 2, rows)] if rows > 1 else [slice(0, 1)]
    sums: list[str | None] = [None] * len(halves)
    first = 0
    while first < len(starts):
        # A window belongs to the block in which it starts, and lies in it whole.
        stop = int(np.searchsorted(starts, starts[first] + length - task.window, side="right"))
        mine = starts[first : max(stop, first + 1)]
        at = slice(int(mine[0]), int(mine[-1]) + task.window)
        read = [graph.whole(variable[at]) for variable in variables]
        times = ds["time"].values[[at.start, at.stop - 1]]
        block = graph.add(_call, prepare, graph.put(times), read)
        local = graph.put(mine - mine[0])
        for i, half in enumerate(halves):
            own = graph.add(_call, part, graph.put(half), local, block)
            before = sums[i]
            sums[i] = own if before is None else graph.add(np.add, before, own)
        first += len(mine)
    done = graph.add(_stacked, sums)
    return graph.compute(done, "active" if lazy else "threads")


def _call(function: Any, *args: Any) -> Any:
    return function(*args)


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts)


def _anomalies(
    task: Task,
    mean: np.ndarray,
    radius: int,
    periodic: bool,
    have: tuple[int, int],
    times: np.ndarray,
    values: list[np.ndarray],
) -> np.ndarray:
    """A block of history less the mean, with neighbours beyond its edges: (time, C, rows, W)."""
    anomalies = np.stack(values, axis=1) - mean
    if task.nan == "mask":
        anomalies = np.nan_to_num(anomalies, nan=0.0)
    if not np.isfinite(anomalies.sum(dtype=np.float64)):
        raise InputError(
            f"{', '.join(task.channels)}: NaN or infinite values between {times[0]} and "
            f'{times[1]}; fill them, leave these times out, or use a Task(nan="mask")'
        )
    return _padded(anomalies, radius, periodic, have)


def _part(
    task: Task,
    layout: _Layout,
    targets: list[int],
    count: int,
    rows: slice,
    starts: np.ndarray,
    padded: np.ndarray,
) -> np.ndarray:
    """Sums of one block for some rows, `count` windows at a time."""
    width = padded.shape[-1] - 2 * layout.radius
    outputs = len(targets) * task.target_steps
    sums = np.zeros((rows.stop - rows.start, width, layout.size, layout.size + outputs))
    steps = task.input_steps + np.arange(task.target_steps)
    for row in range(rows.start, rows.stop):
        around = padded[:, :, row : row + 2 * layout.radius + 1]
        middle = around[:, :, layout.radius, layout.radius : layout.radius + width]
        for a in range(0, len(starts), count):
            local = starts[a : a + count]
            # float64: lags are nearly the same, and what tells them apart is in the last digits.
            x = layout.predictors(around, local + task.input_steps - 1, np.float64)
            y = middle[local[:, None] + steps][:, :, targets]  # (N, T', C', W)
            both = np.concatenate([x, y.transpose(3, 0, 1, 2).reshape(width, len(local), -1)], -1)
            sums[row - rows.start] += x.transpose(0, 2, 1) @ both
    return sums


def _padded(
    values: np.ndarray, radius: int, periodic: bool, have: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Give (…, H, W) `radius` neighbours on each side, of which `have` rows are there already."""
    if radius == 0:
        return values
    rows = [(0, 0)] * (values.ndim - 2) + [(radius - have[0], radius - have[1]), (0, 0)]
    columns = [(0, 0)] * (values.ndim - 1) + [(radius, radius)]
    return np.pad(np.pad(values, rows, mode="edge"), columns, "wrap" if periodic else "edge")


def _solve(sums: np.ndarray, size: int, ridge: float) -> np.ndarray:
    """Ridge coefficients (targets, predictors, rows, W) from sums of products (rows, W, F, F + L).

    Predictors are standardised on the way, and the constant takes what their means leave.
    """
    n = sums[..., size - 1, size - 1][..., None, None]
    products, means = sums[..., :-1, :] / n, sums[..., -1:, :] / n
    x_mean, y_mean = means[..., : size - 1], means[..., size:]
    covariance = products[..., : size - 1] - x_mean.swapaxes(-1, -2) * x_mean
    cross = products[..., size:] - x_mean.swapaxes(-1, -2) * y_mean
    deviation = np.sqrt(np.clip(np.diagonal(covariance, axis1=-2, axis2=-1), 0, None))
    deviation = np.where(deviation > 0, deviation, 1.0)[..., None]  # constant: no influence
    correlation = covariance / (deviation * deviation.swapaxes(-1, -2))
    correlation += ridge * np.eye(size - 1)
    slopes = np.linalg.solve(correlation, cross / deviation) / deviation
    constant = y_mean - x_mean @ slopes
    return np.concatenate([slopes, constant], axis=-2).transpose(3, 2, 0, 1)
