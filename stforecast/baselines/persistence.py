"""Persistence: the last input step, repeated."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..forecasting.core import ForecastModel
from ..task import Task, require_task


class Persistence(ForecastModel):
    """Forecast that tomorrow is like now: the last input step, repeated (the paper's "Copying").

    Parameters
    ----------
    task : Task
        What is forecast; each target must be among the inputs.
    """

    def __init__(self, task: Task) -> None:
        require_task(task)
        missing = [name for name in task.outputs if name not in task.variables]
        if missing:
            raise InputError(
                f"persistence repeats its input, but {missing} are forecast without being inputs "
                f"(inputs: {list(task.variables)}); add them to Task.variables"
            )
        self.task = task
        self._channels = [task.variables.index(name) for name in task.outputs]

    def _forecast(self, inputs: np.ndarray, init_time: np.ndarray, steps: int) -> np.ndarray:
        last = inputs[:, -1:, self._channels]
        return np.broadcast_to(last, (last.shape[0], steps, *last.shape[2:]))
