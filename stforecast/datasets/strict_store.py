"""A zarr store that refuses to invent data. Imports zarr, so it is imported when first used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from ..errors import InputError

_METADATA = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
# "air/0.0.0" and "air/0/0/0" (v2), "air/c/0/0/0" and "air/c" (v3)
_CHUNK = re.compile(r"^(?:(?P<array>.*?)/)?(?P<chunk>(?:c[/.])?\d+(?:[/.]\d+)*|c)$")


class StrictStore(WrapperStore[Store]):
    """Read from another store, but raise where a chunk is missing.

    Zarr itself reads a missing chunk as the fill value: a file that was lost in a transfer turns
    to plausible numbers. Metadata may be missing (readers probe for several formats).
    """

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read one object; a chunk must be there."""
        return self._present(key, await self._store.get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, Any]]
    ) -> list[Buffer | None]:
        """Read parts of objects; chunks must be there."""
        pairs = list(key_ranges)
        found = await self._store.get_partial_values(prototype, pairs)
        return [self._present(key, value) for (key, _), value in zip(pairs, found, strict=True)]

    def _present(self, key: str, value: Buffer | None) -> Buffer | None:
        if value is not None or key.rpartition("/")[2] in _METADATA:
            return value
        match = _CHUNK.match(key)
        array, chunk = (match["array"], match["chunk"]) if match else (None, key)
        raise InputError(
            f"{self._store}: chunk '{chunk}' of zarr array '{array or '/'}' is missing. Copy the "
            "store again; if the chunk was left out because all its values are the fill value, "
            "write it with write_empty_chunks=True"
        )
