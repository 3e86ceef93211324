"""The command ``stforecast``, also ``python -m stforecast``: what can be run without a script."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

#: Commands, each a module of :mod:`stforecast.cli` with ``Options`` and ``main``.
COMMANDS = {
    "describe": ("PATH", "say what a path is, what it holds, and what opens it"),
    "begin": ("PATH", "look at data, write a short script that forecasts them, run it"),
    "fit": ("PATH", "train a forecaster on data of any kind, score it, save it"),
    "predict": ("PATH -o OUT", "forecast from a file, with a trained model or the package's"),
    "score": ("FORECAST... TRUTH", "score forecasts against truth, each other and baselines"),
    "compare": ("--benchmark NAME", "train the paper's models on a benchmark, side by side"),
    "ablate": ("--study NAME", "exchange parts of SimVPv2 between steps, or its translator"),
    "prepare": ("DATA STORE", "write a zarr store that is quick to train from"),
}
_LINES = "\n".join(f"  {f'{name} {words}':<26}{what}" for name, (words, what) in COMMANDS.items())
HELP = f"""\
usage: stforecast COMMAND ...

commands:
{_LINES}

stforecast COMMAND --help tells the options of a command."""


def main() -> None:
    """Run the command named first; the rest are its own options."""
    typed = "python -m stforecast" if Path(sys.argv[0]).name == "__main__.py" else "stforecast"
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        sys.stdout.write(f"{HELP}\n")
        return
    if name not in COMMANDS:
        raise SystemExit(f"{HELP}\n\nexpected a command, found {name!r}")
    sys.argv[0] = f"{typed} {name}"
    from .cli.run import run

    command = import_module(f"stforecast.cli.{name}")
    run(command.main, command.Options, positional=True)


if __name__ == "__main__":
    main()
