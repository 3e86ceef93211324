"""Prepare any data set for training: one zarr store with chunks and shards fit for a feed.

Finds out what the data are and which adapter reads them, and writes a store that is verified, with
statistics and a fingerprint. It can be stopped at any time: the same command goes on where it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import datasets
from ..datasets import describe, open_prepared, prepare, statistics
from ..errors import InputError
from ..training.progress import progress_bar


@dataclass
class Options:
    """Prepare a data set for training."""

    data: str
    """What to prepare: a file, a directory, a .zip, a zarr store (with --adapter also gs://...)."""
    store: Path
    """The zarr store to write."""
    adapter: str = "auto"
    """The function that opens the data, such as open_taxibj; auto: as the data look."""
    options: str = "{}"
    """The adapter's own options, as JSON: '{"split": "train"}'."""
    variables: Sequence[str] = ()
    """Variables to take; all on time and a grid unless given."""
    period: str | None = None
    """Times to take: 2013:2016, or 2013-01-01/2013-06-30."""
    chunks: int | None = None
    """Time steps in a chunk (4 MiB of float32 unless given)."""
    shards: int | None = None
    """Time steps in a shard, a multiple of chunks (128 MiB unless given)."""
    workers: int | None = None
    """Shards worked on at once."""
    overwrite: bool = False
    """Replace a store that is there, and discard an unfinished one of other data."""


def main(options: Options) -> None:
    """Run the command."""
    adapter = options.adapter
    if adapter == "auto":
        found = describe(options.data)
        sys.stdout.write(f"{found}\n")
        sys.stdout.flush()
        if found.adapter is None:
            raise InputError(f"{options.data}: {found.reason}. Name one with --adapter")
        adapter = found.adapter
    openers = sorted(name for name in dir(datasets) if name.startswith("open_"))
    if adapter not in openers:
        raise InputError(f"no adapter is called '{adapter}', there are {', '.join(openers)}")
    try:
        own = json.loads(options.options)
        ds = getattr(datasets, adapter)(options.data, **own)
    except (TypeError, json.JSONDecodeError) as error:
        raise InputError(f"--options {options.options}: {error}") from error
    with progress_bar("preparing") as progress:
        store = prepare(
            ds,
            options.store,
            variables=options.variables or None,
            period=options.period,
            chunks=options.chunks,
            shards=options.shards,
            workers=options.workers,
            overwrite=options.overwrite,
            progress=progress,
        )
    ready = open_prepared(store)
    for name, of in statistics(ready).items():
        sys.stdout.write(
            f"{name}: mean {of['mean']:.6g}, std {of['std']:.6g}, {of['min']:.6g} to "
            f"{of['max']:.6g}, NaN {of['nan_share']:.2%}\n"
        )
    sys.stdout.write(
        f"{store.resolve()} holds {ready.sizes['time']} time steps, verified;\n"
        f"  fingerprint {ready.attrs['data_fingerprint']}\n"
    )
