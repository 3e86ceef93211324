"""A zarr store whose arrays are looked at before a byte of them is decoded. Imports zarr."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from ..conventions.codecs import refuse_unknown_codecs
from ..errors import InputError
from .limits import refuse_claim

_METADATA = re.compile(r"^(?:(?P<array>.*)/)?(?:zarr\.json|\.zarray|\.zmetadata)$")
_CHUNK = re.compile(r"^(?:(?P<array>.*?)/)?(?:c[/.])?\d+(?:[/.]\d+)*$|^(?:(?P<scalar>.*)/)?c$")
_WIDEST = 16  # bytes of a number, where a type does not say


class GuardedStore(WrapperStore[Store]):
    """Read from another store; refuse chunks of arrays that are encoded in unknown ways.

    Chunks that claim to be much larger than what is stored of them are refused too, and stores with
    a coordinate that is larger than any.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._name = str(store).replace("wrapping-", "")
        self._arrays: dict[str, Mapping[str, Any]] = {}  # metadata, by path

    def _with_store(self, store: Store) -> GuardedStore:
        return GuardedStore(store)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read one object."""
        self._refuse_codecs(key)
        value = await self._store.get(key, prototype, byte_range)
        if value is not None and (match := _METADATA.match(key)):
            self._learn(match["array"] or "", value.to_bytes())
        elif byte_range is None:
            self._refuse_size(key, value)
        return value

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, Any]]
    ) -> list[Buffer | None]:
        """Read parts of objects."""
        pairs = list(key_ranges)
        for key, _ in pairs:
            self._refuse_codecs(key)
        return await self._store.get_partial_values(prototype, pairs)

    def _learn(self, path: str, text: bytes) -> None:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return  # zarr says so
        for array, about in _arrays(path, found):
            self._arrays[array] = about
            shape, chunk = about["shape"], _chunk(about)
            lengths = chunk if isinstance(chunk, list) else [chunk]
            if any(n == 0 for n in lengths) and all(shape):
                raise InputError(
                    f"{self._name}: '{array}' is said to lie in chunks of {chunk}: each length "
                    f"must be at least 1. Its metadata are damaged; copy {array or 'it'} anew"
                )
            if len(shape) == 1:  # a coordinate, of which xarray makes an index
                refuse_claim(f"{self._name}: '{array}'", 8 * shape[0], len(text))

    def _of(self, key: str) -> tuple[str, Mapping[str, Any]]:
        match = _CHUNK.match(key)
        path = (match["array"] or match["scalar"] or "") if match else ""
        return path, self._arrays.get(path, {}) if match else {}

    def _refuse_codecs(self, key: str) -> None:
        path, about = self._of(key)
        refuse_unknown_codecs(f"{self._name}: array '{path}'", about)

    def _refuse_size(self, key: str, value: Buffer | None) -> None:
        path, about = self._of(key)
        chunk = _chunk(about)
        if value is not None and chunk is not None and _numbers(chunk):
            digits = re.search(r"\d+$", str(about.get("dtype") or about.get("data_type")))
            width = min(int(digits[0]), _WIDEST) if digits and "dtype" in about else 8
            what = f"{self._name}: a chunk of '{path}'"
            refuse_claim(what, width * math.prod(chunk), len(value))


def _arrays(path: str, found: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Find the arrays in metadata, consolidated or of one array, by their paths."""
    if not isinstance(found, Mapping):
        return
    if _numbers(found.get("shape")):
        yield path, found
    consolidated = found.get("consolidated_metadata")
    below = found if consolidated is None else consolidated
    below = below.get("metadata") if isinstance(below, Mapping) else None
    for name, about in below.items() if isinstance(below, Mapping) else ():
        array = str(name).removesuffix("/.zarray") if str(name) != ".zarray" else ""
        if isinstance(about, Mapping) and _numbers(about.get("shape")):
            yield f"{path}/{array}".strip("/"), about


def _chunk(about: Mapping[str, Any]) -> Any:
    """Find the lengths of a chunk as the metadata of an array have them, whatever they are."""
    grid = about.get("chunk_grid") or {}
    own = grid.get("configuration") or {} if isinstance(grid, Mapping) else {}
    return about.get("chunks", own.get("chunk_shape") if isinstance(own, Mapping) else None)


def _numbers(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(n) is int for n in shape)
