"""Prepare any data set for training: `stforecast prepare`, with all options by name."""

from stforecast.cli import run
from stforecast.cli.prepare import Options, main

if __name__ == "__main__":
    run(main, Options)
