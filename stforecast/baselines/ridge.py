"""Ridge regression at every grid point: predictors of windows, their sums, and the solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..datasets.forcings import sun_at
from ..errors import InputError
from ..task import Task

Where = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Layout:
    """Which values make the predictors of a point, in their order; the last is a constant 1."""

    lags: int  # of the point itself, for each variable
    radius: int  # of the neighbourhood, in cells
    near_lags: int  # of each neighbour
    channels: int
    ahead: int = 1  # target steps, each of which has predictors of its own:
    sun: bool = False  # the sun at its time,
    known: tuple[int, ...] = ()  # channels that are known then,
    earlier: tuple[tuple[int, int], ...] = ()  # a channel so many steps before

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Neighbours (rows up, columns right), without the point itself."""
        reach = range(-self.radius, self.radius + 1)
        return [(j, i) for j in reach for i in reach if (j, i) != (0, 0)]

    @property
    def shared(self) -> int:
        """Predictors that all target steps have."""
        return self.channels * (self.lags + self.near_lags * len(self.offsets))

    @property
    def own(self) -> int:
        """Further predictors of each target step."""
        return self.sun + len(self.known) + len(self.earlier)

    @property
    def size(self) -> int:
        """Predictors of all target steps, with the constant."""
        return self.shared + self.ahead * self.own + 1

    def used(self, step: int) -> np.ndarray:
        """Numbers of the predictors of one target step, without the constant."""
        own = self.shared + step * self.own + np.arange(self.own)
        return np.concatenate([np.arange(self.shared), own])

    def predictors(
        self, band: np.ndarray, ends: np.ndarray, dtype: Any, sun: np.ndarray | None = None
    ) -> np.ndarray:
        """Predictors of the middle row of a band for windows whose history ends at `ends`.

        `band` is (time, C, 2 r + 1, W + 2 r): the row and its neighbours; `sun` is (time, W). It
        gives (W, N, size).
        """
        r = self.radius
        width = band.shape[-1] - 2 * r
        out = np.empty((width, len(ends), self.size), dtype=dtype)
        middle = band[:, :, r, r : r + width]
        column = 0
        for c in range(self.channels):
            for lag in range(self.lags):
                out[..., column] = middle[ends - lag, c].T
                column += 1
            for j, i in self.offsets:
                for lag in range(self.near_lags):
                    out[..., column] = band[ends - lag, c, r + j, r + i : r + i + width].T
                    column += 1
        for at in (ends + 1 + step for step in range(self.ahead)):
            if sun is not None:
                out[..., column] = sun[at].T
            column += self.sun
            for c in self.known:
                out[..., column] = middle[at, c].T
                column += 1
            for lag, c in self.earlier:
                out[..., column] = middle[at - lag, c].T
                column += 1
        out[..., column] = 1
        return out


def layout_of(
    task: Task, channels: tuple[str, ...], neighbours: int, near_steps: int, sun: bool
) -> Layout:
    """The predictors that suit a task, with its channels in their order."""
    own = len(set(task.variables) | set(task.outputs))
    return Layout(
        task.input_steps,
        int(neighbours),
        int(near_steps),
        len(task.variables),
        task.target_steps,
        sun,
        tuple(range(own, len(channels))),
        tuple((lag, channels.index(v)) for lag in task.lag_steps for v in task.outputs),
    )


def anomalies_of(
    task: Task,
    channels: tuple[str, ...],
    mean: np.ndarray,
    radius: int,
    periodic: bool,
    have: tuple[int, int],
    where: Where | None,
    about: tuple[np.ndarray, Any],
    values: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray | None]:
    """A block of history less what is usual, with neighbours past its edges: (time, C, rows, W).

    And where the values themselves count, without these: (time, C, rows, W).
    """
    times, usual = about
    stacked, counted = np.stack(values, axis=1), None
    if where is not None:
        truth = stacked[:, :, have[0] : stacked.shape[2] - have[1]]
        counted = np.asarray(where(truth))
        if counted.shape != truth.shape or counted.dtype != bool:
            raise InputError(
                f"where must give True or False for every point of truth, shape {truth.shape}; "
                f"found {counted.dtype}, shape {counted.shape}"
            )
    anomalies = stacked - mean
    if usual is not None:
        targets, fields, found = usual
        anomalies[:, targets] -= (
            fields[found] if found.ndim == 1 else np.tensordot(found, fields, 1)
        )
    if task.nan == "mask":
        anomalies = np.nan_to_num(anomalies, nan=0.0)
    if not np.isfinite(anomalies.sum(dtype=np.float64)):
        raise InputError(
            f"{', '.join(channels)}: NaN or infinite values between {times[0]} and "
            f'{times[1]}; fill them, leave these times out, or use a Task(nan="mask")'
        )
    return padded_by(anomalies, radius, periodic, have), counted


def part_of(
    task: Task,
    layout: Layout,
    targets: list[int],
    count: int,
    rows: slice,
    windows: tuple[np.ndarray, Any],
    block: tuple[np.ndarray, np.ndarray | None],
) -> np.ndarray:
    """Sums of one block for some rows, `count` windows at a time."""
    (starts, lit), (padded, counted) = windows, block
    width = padded.shape[-1] - 2 * layout.radius
    outputs = len(targets) * task.target_steps
    shape: tuple[int, ...] = (layout.size, layout.size + outputs)
    if counted is not None:  # of each target its own windows, and the predictors that it uses
        used = [np.append(layout.used(s), layout.size - 1) for s in range(task.target_steps)]
        shape = (outputs, len(used[0]), len(used[0]) + 1)
    sums = np.zeros((rows.stop - rows.start, width, *shape))
    steps = task.history + np.arange(task.target_steps)
    for row in range(rows.start, rows.stop):
        around = padded[:, :, row : row + 2 * layout.radius + 1]
        middle = around[:, :, layout.radius, layout.radius : layout.radius + width]
        sun = None
        if lit is not None:
            times, latitude, longitude = lit
            sun = sun_at(times, latitude[row : row + 1], longitude)[:, 0] / np.float32(1000)
        for a in range(0, len(starts), count):
            local = starts[a : a + count]
            # float64: lags are nearly the same, and what tells them apart is in the last digits.
            x = layout.predictors(around, local + task.history - 1, np.float64, sun)
            y = middle[local[:, None] + steps][:, :, targets]  # (N, T', C', W)
            y = y.transpose(3, 0, 1, 2).reshape(width, len(local), -1)
            if counted is None:
                both = np.concatenate([x, y], -1)
                sums[row - rows.start] += x.transpose(0, 2, 1) @ both
                continue
            there = counted[local[:, None] + steps][:, :, targets, row]
            there = there.transpose(3, 0, 1, 2).reshape(y.shape)
            for i in range(outputs):
                mine = x[..., used[i // len(targets)]] * there[..., i, None]
                both = np.concatenate([mine, y[..., i, None]], -1)
                sums[row - rows.start, :, i] += mine.transpose(0, 2, 1) @ both
    return sums


def padded_by(
    values: np.ndarray, radius: int, periodic: bool, have: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Give (…, H, W) `radius` neighbours on each side, of which `have` rows are there already."""
    if radius == 0:
        return values
    rows = [(0, 0)] * (values.ndim - 2) + [(radius - have[0], radius - have[1]), (0, 0)]
    columns = [(0, 0)] * (values.ndim - 1) + [(radius, radius)]
    return np.pad(np.pad(values, rows, mode="edge"), columns, "wrap" if periodic else "edge")


def solve(sums: np.ndarray, layout: Layout, step: int, targets: slice, ridge: float) -> np.ndarray:
    """Ridge coefficients (targets, predictors, rows, W) from sums of products (rows, W, F, F + L).

    Of one target step, which uses some of the predictors. They are standardised on the way, and the
    constant takes what their means leave.
    """
    size, used = layout.size, layout.used(step)
    out = np.zeros((*sums.shape[:2], size, targets.stop - targets.start))
    if sums.ndim == 4:
        wanted = size + np.arange(targets.start, targets.stop)
        found = _coefficients(sums, used, size - 1, wanted, ridge)
    else:  # of each target its own windows
        own = np.arange(len(used))
        each = sums[:, :, targets].swapaxes(0, 2).swapaxes(1, 2)  # (target, rows, W, F', F' + 1)
        parts = [
            _coefficients(one, own, len(used), np.array([len(used) + 1]), ridge) for one in each
        ]
        found = np.concatenate(parts, -1)
    out[..., np.append(used, size - 1), :] = found
    return out.transpose(3, 2, 0, 1)


def _coefficients(
    sums: np.ndarray, used: np.ndarray, constant: int, wanted: np.ndarray, ridge: float
) -> np.ndarray:
    """Of predictors `used` and the constant, for targets in columns `wanted`: (rows, W, P, L)."""
    n = np.maximum(sums[..., constant, constant], 1.0)[..., None, None]
    x_mean, y_mean = (sums[..., constant : constant + 1, c] / n for c in (used, wanted))
    both = sums[..., used, :]
    covariance = both[..., used] / n - x_mean.swapaxes(-1, -2) * x_mean
    cross = both[..., wanted] / n - x_mean.swapaxes(-1, -2) * y_mean
    deviation = np.sqrt(np.clip(np.diagonal(covariance, axis1=-2, axis2=-1), 0, None))
    deviation = np.where(deviation > 0, deviation, 1.0)[..., None]  # constant: no influence
    correlation = covariance / (deviation * deviation.swapaxes(-1, -2))
    correlation += ridge * np.eye(len(used))
    slopes = np.linalg.solve(correlation, cross / deviation) / deviation
    return np.concatenate([slopes, y_mean - x_mean @ slopes], axis=-2)
