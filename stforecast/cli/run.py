"""Options from the command line, and errors in one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import DivergenceError, InputError, RankLostError

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
    logging.basicConfig(
        level=logging.INFO if first else logging.WARNING,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    try:
        given = tyro.cli(
            options,
            description=main.__globals__["__doc__"],
            config=(tyro.conf.PositionalRequiredArgs,) if positional else (),
        )
        if getattr(given, "trials", 1) != 1:
            _trials(main, given)
        else:
            main(given)
    except InputError as error:
        text = str(error)
        if hasattr(options, "allow_overlap"):
            text = text.replace("allow_overlap=True", "--allow-overlap")
        _stop(f"error: {text}", 2)
    except (DivergenceError, RankLostError) as error:
        _stop(f"error: {error}", 1)
    except KeyboardInterrupt as stop:
        _stop(str(stop) or "stopped", 130)
    except OSError as error:
        _stop(f"error: {error}", 2)


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
    shown = [f"{m:.4f} +- {d:.4f}" for m, d in zip(table["mean"], table["std"], strict=True)]
    text = pd.Series(shown, index=table.index).to_string()
    sys.stdout.write(f"\nMean and standard deviation of {options.trials} trials:\n{text}\n")
