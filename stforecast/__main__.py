"""The command ``stforecast``, also ``python -m stforecast``: what can be run without a script."""

from __future__ import annotations

import sys

HELP = """\
usage: stforecast COMMAND ...

commands:
  score FORECAST... TRUTH   score forecasts against truth, each other and baselines;
                            writes tables, pictures and report.html

stforecast COMMAND --help tells the options of a command."""


def main() -> None:
    """Run the command named first; the rest are its own options."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        sys.stdout.write(f"{HELP}\n")
        return
    if name != "score":
        raise SystemExit(f"{HELP}\n\nexpected a command, found {name!r}")
    from .cli.score import command

    command()


if __name__ == "__main__":
    main()
