"""Begin with a data set: look at it, write a short script for exactly these data, and run it.

The script opens the data, trains a small SimVPv2, scores it beside persistence and a linear
regression on the last part of the period, and draws a map. It is yours to change.
"""

from __future__ import annotations

import json
import runpy
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets.describe import describe
from ..errors import InputError
from ..files import replacing
from ..task import Task
from .plan import Plan, plan

_SCRIPT = '''\
"""{title}

Written by `stforecast begin`; change what you like, and run it again.
"""

from pathlib import Path

import stforecast
from stforecast import SimVPv2, Task, TrainConfig, datasets, plots
from stforecast.baselines import {baselines}
from stforecast.evaluation import compare_forecasts, to_text
from stforecast.task import initialisations

OUT = Path(__file__).parent
{opening}
{task}
{network}
{config}

model = stforecast.fit(
    parts["train"], task, model=network, config=config, validation=parts["validation"],
    run_dir=OUT / "run", resume="never",
)
model.save(OUT / "model")  # stforecast.predict(ds, OUT / "model")

# Scores on the last period, beside what is to be beaten.
models = {{
    "SimVPv2": model,
    "Persistence": Persistence(task),
{linear}}}
test = parts["test"]
times = initialisations(test, task){stride}
forecasts = {{name: m.predict(test, init_time=times) for name, m in models.items()}}
card = compare_forecasts(forecasts, test{scores})
{shown}

{picture}
'''


@dataclass(kw_only=True)
class Options:
    """Begin with a data set: write a script for it, and run it."""

    path: str
    """A file, a directory, a .zip or a zarr store: what `stforecast describe` knows."""
    variables: tuple[str, ...] = ()
    """What is forecast. Default: traffic flows, 2 m temperature, or the first variable."""
    output: Path = Path("begun")
    """The directory of the script, forecast.py, and of what it writes."""
    steps: int = 300
    """Optimiser steps of the script's training: minutes on two cores."""
    run: bool = True
    """Run the script (--no-run: write it only)."""


def main(options: Options) -> None:
    """Run the command."""
    sys.stdout.write(f"{describe(options.path)}\n\n")
    found = plan(options.path, variables=options.variables)
    script = options.output / "forecast.py"
    text = script_of(found, options.path, options.steps)
    if script.exists() and script.read_text() != text:
        raise InputError(
            f"{script} is there, and is another script: run it, or give another directory, "
            "--output DIR"
        )
    with replacing(script) as path:
        path.write_text(text)
    sys.stdout.write(f"{textwrap.indent(text, '    ')}\n")
    if options.run:
        sys.stdout.flush()
        runpy.run_path(str(script.absolute()), run_name="__main__")
    sys.stdout.write(f"\nThe script is {script.resolve()}\n")


def script_of(found: Plan, path: str, steps: int) -> str:
    """Write the script of a plan.

    Parameters
    ----------
    found : Plan
    path : str
        As it was given.
    steps : int
        Optimiser steps.

    Returns
    -------
    str
        Python.
    """
    task, clips = found.task, not found.periods
    names = ", ".join(task.outputs)
    options = "".join(f", {k}={v!r}" for k, v in found.opening.items())
    place = json.dumps(found.path, ensure_ascii=False)
    if clips:
        opening = (
            "parts = {\n"
            f"    name: datasets.{found.opener}({place}, name{options})\n"
            '    for name in ("train", "validation", "test")\n}'
        )
        picture = "figure = plots.clip_strip(forecasts, test)"
    else:
        opening = f"ds = datasets.{found.opener}({place}{options})"
        if found.monthly:
            opening += (
                "\n# Months have several lengths, and windows one: 360-day years, the same dates.\n"
                'ds = ds.convert_calendar("360_day", align_on="date", use_cftime=True)'
            )
        opening += f"\n{_call('parts = datasets.split', ['ds'], found.periods)}"
        picture = f'figure = plots.forecast_panel(forecasts["SimVPv2"], test{_first(task)})'
    fields = {
        k: tuple(v) if isinstance(v, list) else v
        for k, v in task.to_dict().items()
        if k in _ALWAYS or v != _DEFAULTS.get(k)
    }
    variables = fields.pop("variables")
    first = variables[0] if len(variables) == 1 else variables
    training = dict(found.training) | {"steps": steps}
    ridge = f", ridge={found.ridge:g}" if found.ridge > Plan.ridge else ""
    title = f"{task.target_steps} steps of {task.timestep}"
    return _SCRIPT.format(
        title=f"Forecast {names} of {Path(path).name}: {title}.",
        opening=opening,
        task=_call("task = Task", [_quoted(first)], fields),
        network=_call("network = SimVPv2.for_task", ["task"], found.network),
        config=_call("config = TrainConfig", [], training),
        baselines="Persistence" if clips else "LinearRegression, Persistence",
        linear="" if clips else _LINEAR.format(ridge=ridge),
        stride=f"[:: {found.stride}]" if found.stride > 1 else "",
        shown="print(to_text(card))",
        scores=', nan="mask"' if task.nan == "mask" else "",
        picture=f'{picture}\nplots.save(figure, OUT / "{"clips" if clips else "maps"}.png")',
    )


_LINEAR = """\
    "LinearRegression": LinearRegression.fit(parts["train"], task, windows=2000{ridge}),
"""
_DEFAULTS = Task("x").to_dict()
_ALWAYS = ("input_steps", "target_steps", "timestep")


def _first(task: Task) -> str:
    return f", variable={_quoted(task.outputs[0])}" if len(task.outputs) > 1 else ""


def _quoted(value: Any) -> str:
    """Python for a value, with double quotes."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_quoted, value))}{',' * (len(value) == 1)})"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _call(name: str, first: list[str], options: Any) -> str:
    """A call in one line, or in lines of at most 100 letters."""
    words = [*first, *(f"{k}={_quoted(v)}" for k, v in options.items())]
    line = f"{name}({', '.join(words)})"
    if len(line) <= 100:
        return line
    body = textwrap.wrap(", ".join(words), 92, break_long_words=False, break_on_hyphens=False)
    return "\n".join([f"{name}(", *(f"    {part}" for part in body), ")"])
