"""A zarr store written region by region, whole under its name or not there.

Until it is complete it stands in ``.NAME.DOING`` beside its place, with a record of the regions
that are done: a line of JSON each. A writer that is killed leaves both, and the next goes on.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import warnings
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import DiskFullError, InputError
from .files import locked, move, replacing


class Unfinished:
    """The store that grows, and what of it is done.

    Parameters
    ----------
    target : Path
        Where the store will stand.
    doing : str
        ``"preparing"``: for messages, and the name of the directory.
    regions : str
        What its regions are called in messages: ``"shards"``.
    total : int
        Number of regions.
    """

    def __init__(self, target: Path, doing: str, regions: str, total: int) -> None:
        self.target, self.doing, self.regions, self.total = target, doing, regions, total
        self.work = target.with_name(f".{target.name}.{doing}")
        self.store, self.record = self.work / "store.zarr", self.work / "journal.jsonl"
        self.done: dict[str, dict[str, Any]] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other writers out while the block runs; it may read, begin, note and finish.

        Raises
        ------
        InputError
            If another process writes here, the directory cannot be written, or the disk is full.
        """
        with locked(self.work.with_name(f"{self.work.name}.lock"), f"{self.doing} {self.target}"):
            try:
                yield
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                self.read()
                raise DiskFullError(
                    f"{self.target}: the disk is full"
                    + f" after {len(self.done)} of {self.total} {self.regions}" * bool(self.total)
                    + ": make room, and run the same again"
                ) from error
            finally:
                self.read()
                if not self.done:  # nothing to go on from
                    self.discard()

    def read(self) -> Any:
        """Return what was begun here, or None; `done` then holds what of it is done."""
        self.done, about = {}, None
        if self.store.exists() and self.record.exists():
            text = self.record.read_text()
            if not text.endswith("\n"):  # a kill came in the middle of the last line
                with open(self.record, "a") as file:
                    file.write("\n")
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if "about" in entry:
                    about = entry["about"]
                elif about is not None:
                    self.done[entry.pop("region")] = entry
        return about

    def begin(
        self, about: Any, template: xr.Dataset, encoding: Mapping[Hashable, Mapping[str, Any]]
    ) -> None:
        """Lay out a new store in place of what is there.

        Parameters
        ----------
        about : JSON
            What :meth:`read` gives to the next writer.
        template : xarray.Dataset
            What is in memory is written; of what is dask's, the form.
        encoding : mapping
            As :meth:`xarray.Dataset.to_zarr` takes it; the codec is put in.
        """
        from zarr.codecs import BloscCodec

        self.discard()
        self.work.mkdir(parents=True)
        codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of zarr, on what its third version does not specify
            template.to_zarr(
                self.store,
                mode="w",
                compute=False,
                consolidated=True,
                zarr_format=3,
                encoding={name: {"compressors": codec, **how} for name, how in encoding.items()},
                write_empty_chunks=True,  # of coordinates that are all zero
            )
        self.record.write_text(json.dumps({"about": about}) + "\n")  # the store is now whole

    def note(self, region: str, entry: Mapping[str, Any]) -> None:
        """Write down that a region is done."""
        note(self.record, region, entry)
        self.done[region] = dict(entry)

    def forget(self, regions: Collection[str]) -> None:
        """Write down that regions are not done after all."""
        about = self.read()
        self.done = {k: v for k, v in self.done.items() if k not in regions}
        lines = [{"about": about}, *({"region": k, **v} for k, v in self.done.items())]
        with replacing(self.record) as new:
            new.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def finish(self, wrong: Collection[str], attrs: Mapping[str, Any] | None = None) -> None:
        """Put the store in its place, with more attributes.

        Parameters
        ----------
        wrong : collection of str
            Regions that do not read back as they were written.
        attrs : mapping, optional
            Of the group.

        Raises
        ------
        InputError
            If there are `wrong` regions; the next writer writes them anew.
        """
        import zarr

        if wrong:
            self.forget(wrong)
            raise InputError(
                f"{self.store}: {len(wrong)} of {self.total} {self.regions} do not read back as "
                f"they were written, the first is {min(wrong)}: is the disk sound? Run the same "
                "again to write them anew"
            )
        if attrs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                zarr.open_group(self.store, mode="r+").attrs.update(attrs)
                zarr.consolidate_metadata(self.store)
        move(self.store, self.target)
        self.discard()

    def discard(self) -> None:
        """Remove everything."""
        for pause in (0, 0.01, 0.1, 0.5):
            time.sleep(pause)  # after an error zarr's threads may still write what was under way
            shutil.rmtree(self.work, ignore_errors=True)
            if not self.work.exists():
                break
        self.done = {}


def note(record: Path, region: str, entry: Mapping[str, Any]) -> None:
    """Write down in a record that a region is done, from any process."""
    handle = os.open(record, os.O_WRONLY | os.O_APPEND)
    try:  # one call: lines of several writers do not mix
        os.write(handle, (json.dumps({"region": region, **entry}) + "\n").encode())
    finally:
        os.close(handle)


def write_region(store: Path, name: str, region: tuple[slice, ...], values: np.ndarray) -> None:
    """Write a part of an array. Chunks that hold only the fill value are written too.

    What is missing is then an error to a strict reader.
    """
    import zarr

    array = zarr.open_array(store, path=name, mode="r+")
    array.with_config({"write_empty_chunks": True})[region] = values
