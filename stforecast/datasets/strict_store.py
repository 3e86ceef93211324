"""A zarr store that refuses to invent data. Imports zarr, so it is imported when first used."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore

from ..errors import InputError

logger = logging.getLogger(__name__)

_METADATA = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
# "air/0.0.0" and "air/0/0/0" (v2), "air/c/0/0/0" and "air/c" (v3)
_CHUNK = re.compile(r"^(?:(?P<array>.*?)/)?(?P<chunk>(?:c[/.])?\d+(?:[/.]\d+)*|c)$")
_DIMS, _NCZARR = "_ARRAY_DIMENSIONS", ("_NCZARR_ARRAY", "_nczarr_array")


class StrictStore(WrapperStore[Store]):
    """Read from another store what it holds, and nothing else.

    Zarr itself reads a missing chunk as the fill value: a file that was lost in a transfer turns
    to plausible numbers. Here it is an error, unless `fill` says that it is meant. Metadata may be
    missing (readers probe for several formats). Consolidated metadata give way to the arrays' own
    where these are others: the store was appended to since. Dimensions that are written as netCDF-C
    does (NCZarr) are given as xarray reads them.
    """

    def __init__(self, store: Store, *, fill: bool = False) -> None:
        super().__init__(store)
        self.fill = fill

    def _with_store(self, store: Store) -> StrictStore:
        return StrictStore(store, fill=self.fill)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read one object; a chunk must be there."""
        prototype = prototype or default_buffer_prototype()
        value = await self._store.get(key, prototype, byte_range)
        if byte_range is not None:
            return self._present(key, value)
        if key.endswith(".zattrs"):
            return await self._with_dimensions(key, value, prototype)
        if value is not None and key in (".zmetadata", "zarr.json"):
            return await self._fresh(key, value, prototype)
        return self._present(key, value)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, Any]]
    ) -> list[Buffer | None]:
        """Read parts of objects; chunks must be there."""
        pairs = list(key_ranges)
        found = await self._store.get_partial_values(prototype, pairs)
        return [self._present(key, value) for (key, _), value in zip(pairs, found, strict=True)]

    def _present(self, key: str, value: Buffer | None) -> Buffer | None:
        if value is not None or self.fill or key.rpartition("/")[2] in _METADATA:
            return value
        match = _CHUNK.match(key)
        array, chunk = (match["array"], match["chunk"]) if match else (None, key)
        raise InputError(
            f"{self._store}: chunk '{chunk}' of zarr array '{array or '/'}' is missing. Copy the "
            "store again; if the chunk was left out because all its values are the fill value, as "
            "zarr does by default, open it with missing_chunks='fill'"
        )

    async def _with_dimensions(
        self, key: str, value: Buffer | None, prototype: BufferPrototype
    ) -> Buffer | None:
        """Put the names of dimensions where xarray looks for them."""
        attrs = {} if value is None else _json(value)
        if attrs is None or _DIMS in attrs:
            return value
        array = await self._store.get(key.removesuffix(".zattrs") + ".zarray", prototype)
        about = (array is not None and _json(array)) or {}
        for name in _NCZARR:
            found: Any = attrs.get(name, about.get(name))
            if isinstance(found, dict) and "dimrefs" in found:
                dims = [str(dim).rpartition("/")[2] for dim in found["dimrefs"]]
                return _buffer({**attrs, _DIMS: dims}, prototype)
        return value

    async def _fresh(self, key: str, value: Buffer, prototype: BufferPrototype) -> Buffer:
        """Bring a consolidated copy of the arrays' metadata up to date."""
        whole = _json(value) or {}
        version2 = key == ".zmetadata"
        holder = whole if version2 else whole.get("consolidated_metadata") or {}
        copies: Any = holder.get("metadata")
        if not isinstance(copies, dict):
            return value  # no consolidated copy, or a broken one: zarr says so
        every = list(copies)
        if isinstance(self._store, LocalStore):
            ends = ("/.zarray", "/.zattrs") if version2 else ("",)
            here = [m async for m in self._store.list_dir("") if m not in _METADATA]
            every += [member + end for member in here for end in ends]
            stale = await self._changed(every, copies, prototype)
        else:  # ask for little: what grows, grows along a coordinate
            lines = [n for n in every if len(copies[n].get("shape", "no array")) == 1]
            stale = await self._changed(lines, copies, prototype)
            stale = stale and await self._changed(every, copies, prototype)
        if not stale:
            return value
        copies |= stale
        arrays = sorted({n.rpartition("/")[0] if version2 else n for n in stale})
        logger.warning(
            "%s: its consolidated metadata are older than its arrays (%s), whose own are taken. "
            "zarr.consolidate_metadata(store) renews them",
            self._store,
            ", ".join(a or "/" for a in arrays[:8]),
        )
        return _buffer(whole, prototype)

    async def _changed(
        self, names: list[str], copies: dict[str, Any], prototype: BufferPrototype
    ) -> dict[str, Any]:
        """Metadata of arrays that differ from their copies, by the copies' names."""
        keys = {n: n if n.rpartition("/")[2] in _METADATA else f"{n}/zarr.json" for n in names}
        found = await asyncio.gather(*(self.get(key, prototype) for key in keys.values()))
        own = {n: _json(v) for n, v in zip(keys, found, strict=True) if v is not None}
        return {
            name: about
            for name, about in own.items()
            if about is not None
            and about.get("node_type") != "group"
            and json.dumps(about, sort_keys=True) != json.dumps(copies.get(name), sort_keys=True)
        }


def _json(value: Buffer) -> dict[str, Any] | None:
    try:
        found = json.loads(value.to_bytes())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _buffer(value: Any, prototype: BufferPrototype) -> Buffer:
    return prototype.buffer.from_bytes(json.dumps(value).encode())
