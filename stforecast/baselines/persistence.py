"""Input steps repeated: the last one (persistence), or all of them in their order."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..forecasting.core import ForecastModel
from ..task import Task, require_task


class _Repeated(ForecastModel):
    """What takes its forecast from the input as it is."""

    def __init__(self, task: Task) -> None:
        require_task(task)
        missing = [name for name in task.outputs if name not in task.variables]
        if missing:
            raise InputError(
                f"{self._called} repeats its input, but {missing} are forecast without being "
                f"inputs (inputs: {list(task.variables)}); add them to Task.variables"
            )
        self.task = task
        self._channels = [task.variables.index(name) for name in task.outputs]

    _called = "persistence"


class Persistence(_Repeated):
    """Forecast that tomorrow is like now: the last input step, repeated.

    The paper's "Copying" on video; on weather that is most likely :class:`FrameCopy`.

    Parameters
    ----------
    task : Task
        What is forecast; each target must be among the inputs.
    """

    def _forecast(self, inputs: np.ndarray, init_time: np.ndarray, steps: int) -> np.ndarray:
        last = inputs[:, -1:, self._channels]
        return np.broadcast_to(last, (last.shape[0], steps, *last.shape[2:]))


class FrameCopy(_Repeated):
    """Forecast that the next T steps are like the T before: step k is input step k.

    Every step is T steps old, where persistence is one step old at first. Past T steps the input
    is repeated once more. "Copying" of the weather table in the SimVPv2 paper (MAE 1.6906, RMSE
    2.4838 K) is most likely this: of the graph models' test period a third party has measured
    1.421 and 2.700 K for persistence.

    Parameters
    ----------
    task : Task
        What is forecast; each target must be among the inputs.
    """

    _called = "a copy of the frames"

    def _forecast(self, inputs: np.ndarray, init_time: np.ndarray, steps: int) -> np.ndarray:
        return inputs[:, np.arange(steps) % inputs.shape[1]][:, :, self._channels]
