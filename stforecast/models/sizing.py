"""Sizes that networks are given: by a task, by a benchmark of the paper; and what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from ..errors import InputError
from ..task import Task

#: The paper's benchmarks, by the public code's configurations (RoboNet, BridgeData: PredBench's):
#: (T, T', C), (H, W).
BENCHMARKS: dict[str, tuple[tuple[int, int, int], tuple[int, int]]] = {
    "moving_mnist": ((10, 10, 1), (64, 64)),
    "taxibj": ((4, 4, 2), (32, 32)),
    "weatherbench_t2m": ((12, 12, 1), (32, 64)),
    "kth": ((10, 20, 1), (128, 128)),
    "caltech": ((10, 1, 3), (128, 160)),
    "robonet": ((2, 10, 3), (120, 160)),
    "bridgedata": ((2, 10, 3), (120, 160)),
}
#: What the sizes that all networks have may be: from, to.
STEPS: dict[str, tuple[int, int]] = {
    "input_steps": (1, 10_000),
    "target_steps": (1, 10_000),
    "channels": (1, 100_000),
    "out_channels": (1, 100_000),
}
_SIDE = 100_000  # points along an axis of the grid


def benchmark(name: str) -> dict[str, Any]:
    """Sizes of one of the paper's benchmarks, as arguments of a network.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in BENCHMARKS:
        raise InputError(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    (T, T_out, C), grid = BENCHMARKS[name]
    return {"input_steps": T, "target_steps": T_out, "channels": C, "grid": grid}


def of_task(task: Task) -> dict[str, int]:
    """Steps and channels of a task, as arguments of a network."""
    return {
        "input_steps": task.input_steps,
        "target_steps": task.target_steps,
        "channels": task.channels_in,
        "out_channels": task.channels_out,
    }


def of_grid(grid: Mapping[str, Any]) -> list[int]:
    """H and W of a grid as :func:`stforecast.models.registry.make_network` has it."""
    return [n if isinstance(n, int) else len(n) for n in grid.values()]


def check_sizes(settings: Mapping[str, Any], task: Task) -> None:
    """Refuse a task of other steps or channels than the network of these settings has."""
    wrong = [(k, n) for k, n in of_task(task).items() if settings[k] != n]
    if wrong:
        found, wanted = (
            ", ".join(f"{k}={sizes[k]}" for k, _ in wrong) for sizes in (settings, dict(wrong))
        )
        raise InputError(f"the network has {found}, the task ({task}) needs {wanted}")


def check_outputs_first(task: Task, who: str, why: str = "", instead: str = "") -> None:
    """Refuse a task whose outputs are not the first inputs, of a network that builds on these.

    Parameters
    ----------
    task : Task
    who : str
        The network's name.
    why, instead : str
        More to say: why, in brackets, and what else would do.
    """
    outputs = task.outputs
    if task.variables[: len(outputs)] != outputs:
        first = [*outputs, *(v for v in task.variables if v not in outputs)]
        raise InputError(
            f"{who} takes its first inputs for what it forecasts{why}, found inputs "
            f"{list(task.variables)} and targets {list(outputs)}: use Task({first}, "
            f"targets={list(outputs)}, ...){instead}"
        )


def check_settings(
    settings: Mapping[str, Any],
    whole: Mapping[str, tuple[int, int]],
    fraction: Mapping[str, tuple[float, float]] | None = None,
    *,
    flags: tuple[str, ...] = (),
    absent: tuple[str, ...] = (),
    lists: tuple[str, ...] = (),
) -> None:
    """Refuse settings of another type, and sizes that no network has.

    Parameters
    ----------
    settings : mapping
        By name; ``grid``, if there is one, is (H, W) or None.
    whole : mapping
        The least and the largest of a whole number.
    fraction : mapping, optional
        The least of a number, and what it must be below.
    flags : tuple of str
        What is True or False.
    absent : tuple of str
        What may be None.
    lists : tuple of str
        What is a sequence of such numbers, at least one.

    Raises
    ------
    InputError
        That names the setting, what it must be and what was found.
    """
    fraction = fraction or {}
    for name, (least, most) in (dict(whole) | dict(fraction)).items():
        value, counted = settings[name], name in whole
        if value is None and name in absent:
            continue
        several = name in lists and isinstance(value, (list, tuple)) and len(value) > 0
        for number in value if several else [value]:
            if name in lists and not several:
                raise InputError(f"{name} must be a list of whole numbers, found {value!r:.60}")
            good = isinstance(number, Integral if counted else Real)
            good = good and not isinstance(number, bool) and least <= number <= most
            if not (good and (counted or number < most)):
                raise InputError(
                    f"{name} must be a {'whole number' if counted else 'number'} from {least:,} "
                    f"to {'' if counted else 'below '}{most:,}, found {value!r:.60}"
                )
    for name in flags:
        if not isinstance(settings[name], bool):
            raise InputError(f"{name} must be True or False, found {settings[name]!r:.60}")
    grid = settings.get("grid")
    sides = isinstance(grid, (list, tuple)) and [
        isinstance(n, Integral) and 0 < int(n) <= _SIDE for n in grid
    ]
    if grid is not None and sides != [True, True]:
        raise InputError(f"grid must be (H, W) of the input, found {grid!r:.60}")
