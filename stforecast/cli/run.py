"""Options from the command line, and errors in one line."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from ..errors import DivergenceError, InputError, RankLostError
from .tables import TABLE, to_lines

Options = TypeVar("Options")


def run(
    main: Callable[[Options], None], options: type[Options], *, positional: bool = False
) -> None:
    """Read the options from the command line, and run `main` with them.

    Bad input ends in one line on the standard error and exit code 2; Ctrl-C in 130; a training that
    diverged, or lost one of its processes, in 1. A traceback is printed for faults of the program
    only.

    Parameters
    ----------
    main : callable
        Takes an instance of `options`.
    options : dataclass
        Its fields and their docstrings become options and their help.
    positional : bool
        Fields without a default are given by position, not by name.
    """
    import tyro

    first = os.environ.get("RANK", "0") == "0"  # of several processes one tells what goes on
    handler = logging.StreamHandler()
    handler.addFilter(_Told(options))
    logging.basicConfig(
        handlers=[handler],
        level=logging.INFO if first else logging.WARNING,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    try:
        given = tyro.cli(
            options,
            args=["--output" if word == "-o" else word for word in sys.argv[1:]],
            description=main.__globals__["__doc__"],
            config=(tyro.conf.PositionalRequiredArgs,) if positional else (),
        )
        if getattr(given, "trials", 1) != 1 and not getattr(options, "repeats_itself", False):
            _trials(main, given)
        else:
            main(given)
    except InputError as error:
        _stop(f"error: {advice(str(error), options)}", 2)
    except (DivergenceError, RankLostError) as error:
        _stop(f"error: {advice(str(error), options)}", 1)
    except KeyboardInterrupt as stop:
        _stop(str(stop) or "stopped", 130)
    except OSError as error:
        _stop(f"error: {error}", 2)


def command_line() -> str:
    """What was typed, to be typed again."""
    program, *arguments = sys.argv
    words = [program] if " " in program else ["python", shlex.quote(program)]
    return " ".join([*words, *map(shlex.quote, arguments)])


def advice(text: str, options: type) -> str:
    """Say in a command line's words what a text of the library advises in Python.

    Parameters
    ----------
    text : str
        Of an error or of the log.
    options : dataclass
        Those of the command: ``nan='mask'`` becomes ``--nan mask`` where it has this option.

    Returns
    -------
    str

    Examples
    --------
    >>> from stforecast.cli import TrainingOptions
    >>> advice("give another directory, or resume='never'", TrainingOptions)
    'give another directory, or --resume never'
    """

    def said(found: re.Match[str]) -> str:
        value = found["value"].strip("'\"")
        return f"--{found['name'].replace('_', '-')}" + ("" if value == "True" else f" {value}")

    names = "|".join(f.name for f in fields(options))
    value = r"(?P<value>'[^'\s]*'|\"[^\"\s]*\"|True|\d[\w.-]*)"
    text = re.sub(rf"\b(?:TrainConfig\.)?(?P<name>{names})={value}", said, text)
    text = re.sub(r"(--[a-z-]+(?: \w+)?) \(\1\)", r"\1", text)  # where the text has said both
    return re.sub(r"use ds\.rename(\([^)]*\))?", "rename it in the file", text)


class _Told(logging.Filter):
    """Advice for the command line, and what holds for the whole run once."""

    def __init__(self, options: type) -> None:
        super().__init__()
        self.options, self.told = options, set[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = advice(record.getMessage(), self.options), None
        again = record.msg in self.told and record.name.startswith("stforecast.conventions")
        self.told.add(record.msg)
        return not again


def _stop(message: str, code: int) -> None:
    sys.stderr.write(message + "\n")
    raise SystemExit(code)


class OnlyHelped(SystemExit):
    """A process of ``torchrun`` that is not the first has trained, and has nothing left to do."""


def _trials(main: Callable[[Any], None], options: Any) -> None:
    """Run a pipeline several times; write and print mean and standard deviation of its scores."""
    import pandas as pd

    from ..files import replacing
    from ..training.distributed import is_main
    from ..training.tuning import trials

    keys = ["model", "variable", "metric", "weights"]

    def one(i: int) -> pd.Series[float]:
        output = options.output / f"trial-{i + 1}"
        try:
            main(replace(options, trials=1, seed=options.seed + i, output=output))
        except OnlyHelped:  # there is another trial to help with
            return pd.Series(dtype=float)
        scores = pd.read_csv(output / "scores.csv")
        overall = scores[scores["lead_hours"].astype(str) == "overall"]
        if "region" in overall:
            overall = overall[overall["region"].isin([overall["region"].iloc[0]])]
        return overall.set_index(keys)["value"]

    table = trials(options.trials, one)
    if not is_main():
        return
    with replacing(options.output / "trials.csv") as path:
        table.to_csv(path)
    published = [options.output / f"trial-{i + 1}" / TABLE for i in range(options.trials)]
    if all(path.exists() for path in published):  # by the names that the benchmark's table has
        each = [pd.read_csv(path, index_col="model") for path in published]
        figures = np.stack([one.drop(columns="protocol").to_numpy(float) for one in each])
        means, spread = each[0].copy(), each[0].drop(columns="protocol")
        means[spread.columns], spread[:] = figures.mean(0), figures.std(0, ddof=1)
        ours = spread[spread.index.isin(table.index.get_level_values("model"))]
        text = f"{to_lines(means)}\n\nStandard deviation of a trial:\n{to_lines(ours)}"
    else:
        pairs = zip(table["mean"], table["std"], strict=True)
        shown = [f"{mean:.4f} +- {std:.4f}" for mean, std in pairs]
        text = pd.Series(shown, index=table.index).to_string()
    sys.stdout.write(f"\nMean and standard deviation of {options.trials} trials:\n{text}\n")
