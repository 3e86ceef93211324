"""The unfinished store of :func:`stforecast.datasets.prepare`, and what of it is done."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..conventions.axes import TIME, Y
from ..errors import InputError
from ..files import replacing
from .content import BLOCK_BYTES, Packing
from .joining import some

logger = logging.getLogger(__name__)

ORDER = "variables"  # the attribute that holds their order


@dataclass(frozen=True)
class Shard:
    """A stretch of time of one variable or a few: a file each, written by one worker at once."""

    names: tuple[str, ...]
    start: int
    stop: int

    @property
    def key(self) -> str:
        """Name in the journal."""
        return f"{','.join(self.names)}/{self.start}"


@dataclass(frozen=True)
class Plan:
    """What is to be written, and how."""

    ds: xr.Dataset  # canonical
    packings: Mapping[str, Packing | None]
    chunk: int  # in time steps, as the next
    shard: int
    about: Mapping[str, Any]  # to know the same data and settings again, after a kill

    @property
    def shards(self) -> list[Shard]:
        """All of them, in order of time."""
        names, steps = [str(n) for n in self.ds.data_vars], self.ds.sizes[TIME]
        # The channels of a clip are decoded together, so they are written together.
        together = [tuple(names)] if Y in self.ds.dims else [(n,) for n in names]
        starts = range(0, steps, self.shard)
        return [Shard(of, a, min(a + self.shard, steps)) for a in starts for of in together]

    @property
    def worker_bytes(self) -> int:
        """What a worker needs: the numbers of a shard, compressed too, and what it reads."""
        most = max(len(s.names) for s in self.shards) * self.shard * widest(self.ds, self.packings)
        return 2 * most + 4 * BLOCK_BYTES

    def unpacked(self, name: str) -> Plan:
        """Return the plan with one variable as float32."""
        return replace(self, packings={**self.packings, name: None})


def widest(ds: xr.Dataset, packings: Mapping[str, Packing | None]) -> int:
    """Bytes of the largest map as it is stored."""
    of = {n: np.dtype(p.dtype).itemsize if p else 4 for n, p in packings.items()}
    return max(of[str(n)] * math.prod(v.shape[1:]) for n, v in ds.data_vars.items())


class Journal:
    """The unfinished store, and which of its shards are done: a line of JSON each."""

    def __init__(self, work: Path, plan: Plan) -> None:
        self.work, self.plan = work, plan
        self.store, self.path = work / "store.zarr", work / "journal.jsonl"
        self.done: dict[str, dict[str, Any]] = {}

    @classmethod
    def begin(cls, work: Path, plan: Plan, overwrite: bool) -> Journal:
        """Take up what a killed call left, or lay out a new store."""
        journal = cls(work, plan)
        head, lines = journal._read()
        if head is not None:
            changed = [k for k, v in plan.about.items() if head["about"].get(k) != v]
            if not changed:
                for name in head["unpacked"]:
                    journal.plan = journal.plan.unpacked(name)
                journal.done = {line["shard"]: line for line in lines}
                logger.info(
                    "going on with %s: %d of %d shards are done", work, len(lines), len(plan.shards)
                )
                return journal
            if not overwrite:
                raise InputError(
                    f"{work}: an unfinished preparation of other data, or with other settings, is "
                    f"there; {_differences(head['about'], plan.about, changed)}. Run that one to "
                    "its end, give overwrite=True to discard it, or choose another name"
                )
        journal.discard()
        try:
            work.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"cannot write to {work.parent} ({error.strerror}): choose a directory you may "
                "write"
            ) from error
        _lay_out(journal.store, plan)
        unpacked = [n for n, p in plan.about["packing"].items() if p and not plan.packings[n]]
        journal._append({"about": plan.about, "unpacked": unpacked})  # the store is now whole
        return journal

    def _read(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        lines: list[dict[str, Any]] = []
        if self.path.exists() and self.store.exists():
            for line in self.path.read_text().splitlines():
                try:
                    lines.append(json.loads(line))
                except ValueError:  # the kill came in the middle of the last line
                    logger.info("%s: its last line is cut short and left out", self.path)
        return (lines[0], lines[1:]) if lines and "about" in lines[0] else (None, [])

    def add(self, shard: Shard, entry: Mapping[str, Any]) -> None:
        """Write down that a shard is done."""
        self._append({"shard": shard.key, **entry})
        self.done[shard.key] = dict(entry)

    def forget(self, keys: Iterable[str]) -> None:
        """Write down that shards are not done after all."""
        head, lines = self._read()
        gone = set(keys)
        with replacing(self.path) as new:
            kept = [head, *(line for line in lines if line["shard"] not in gone)]
            new.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.done = {k: v for k, v in self.done.items() if k not in gone}

    def _append(self, entry: Mapping[str, Any]) -> None:
        with open(self.path, "a") as file:
            if file.tell() and not self.path.read_bytes().endswith(b"\n"):
                file.write("\n")  # after a line that was cut short
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.done = {}


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], names: Sequence[str]) -> str:
    if plain := [n for n in names if n not in ("grid", "packing", "values")]:
        return "; ".join(f"{n}: {there.get(n)} there, {here[n]} asked for" for n in plain)
    return f"its {some(names)} differ"


def _lay_out(store: Path, plan: Plan) -> None:
    """Write everything but the data: coordinates, attributes, the form of the arrays."""
    import dask.array as da
    from zarr.codecs import BloscCodec

    template = plan.ds.drop_encoding()
    template.attrs[ORDER] = [str(n) for n in plan.ds.data_vars]  # zarr's is the alphabet's
    encoding: dict[str, dict[str, Any]] = {}
    for name, array in plan.ds.data_vars.items():
        space, packing = array.shape[1:], plan.packings[str(name)]
        nothing = da.zeros(array.shape, dtype=np.float32, chunks=(plan.shard, *space))
        template[name] = (array.dims, nothing, array.attrs)
        encoding[str(name)] = {
            "chunks": (plan.chunk, *space),
            "shards": (plan.shard, *space),
            "compressors": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
            **(packing.encoding if packing else {"dtype": "float32", "_FillValue": np.nan}),
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr, on what its third version has not specified yet
        template.to_zarr(
            store,
            mode="w",
            compute=False,
            consolidated=True,
            zarr_format=3,
            encoding=encoding,
            write_empty_chunks=True,  # of coordinates that are all zero
        )
