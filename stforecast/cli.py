"""What the pipelines share: options, progress, errors in one line, forecasts streamed to disk."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import xarray as xr

from .errors import DivergenceError, InputError
from .files import replacing

Options = TypeVar("Options")


def run(main: Callable[[Options], None], options: type[Options]) -> None:
    """Read the options from the command line, and run `main` with them.

    Bad input ends in one line on the standard error and exit code 2; Ctrl-C in 130; a training that
    diverged in 1. A traceback is printed for faults of the program only.

    Parameters
    ----------
    main : callable
        Takes an instance of `options`.
    options : dataclass
        Its fields and their docstrings become options and their help.
    """
    import tyro

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    try:
        main(tyro.cli(options, description=main.__globals__["__doc__"]))
    except InputError as error:
        _stop(f"error: {error}", 2)
    except DivergenceError as error:
        _stop(f"error: {error}", 1)
    except KeyboardInterrupt as stop:
        _stop(str(stop) or "stopped", 130)
    except OSError as error:
        _stop(f"error: {error}", 2)


def _stop(message: str, code: int) -> None:
    sys.stderr.write(message + "\n")
    raise SystemExit(code)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with time left, samples a second, loss and validation error, for :func:`fit`."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[note]}")) as bar:
        line = bar.add_task(what, note="", total=None)
        notes: dict[str, str] = {}
        samples, since = 0, time.monotonic()

        def update(event: dict[str, Any]) -> None:
            nonlocal samples
            samples += event["samples"]
            notes["speed"] = f"{samples / max(time.monotonic() - since, 1e-9):.3g} samples/s"
            if "loss" in event:
                notes["loss"] = f"loss {event['loss']:.3g}"
            if "valid_rmse" in event:
                notes["valid"] = f"validation RMSE {event['valid_rmse']:.3f}"
            if "valid_to_persistence" in event:
                notes["skill"] = f"({event['valid_to_persistence']:.2f} of persistence)"
            bar.update(
                line, total=event["steps"], completed=event["step"], note=" ".join(notes.values())
            )

        yield update


def write_forecast(forecast: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a forecast as zarr, block by block where it is lazy; an older one is replaced whole.

    Parameters
    ----------
    forecast : xarray.Dataset
        From :func:`stforecast.predict`.
    path : path-like
        The store, ``NAME.zarr``.

    Returns
    -------
    Path
        The store.
    """
    path = Path(path)
    with replacing(path) as store, warnings.catch_warnings():
        # Readers look for consolidated metadata and warn where there is none; the writer warns
        # that zarr's third version has not specified it yet.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        forecast.drop_encoding().to_zarr(store, mode="w", consolidated=True)
    return path
