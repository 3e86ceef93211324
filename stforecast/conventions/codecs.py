"""How zarr arrays may be encoded: a name that is not on this list is refused before it decodes.

A store names the codecs that its bytes pass through, and whoever wrote it chose them. One of
numcodecs' unpickles, which can run code, and any package may register more.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import xarray as xr

from ..errors import InputError
from .lazy import in_memory

_COMPRESS = "blosc zlib gzip zstd lz4 bz2 lzma pcodec zfpy"
_NUMBERS = (
    "shuffle bitround quantize fixedscaleoffset scale_offset delta astype cast_value packbits"
)
_LAYOUT = "bytes endian transpose sharding_indexed categorize base64"
_TEXTS = "json2 msgpack2 vlen-utf8 vlen-bytes vlen-array"
_SUMS = "crc32 crc32c adler32 fletcher32 jenkins_lookup3"
#: By the names of zarr 2 (numcodecs' ids) and 3, without the prefix ``numcodecs.``.
KNOWN = frozenset(" ".join((_COMPRESS, _NUMBERS, _LAYOUT, _TEXTS, _SUMS)).split())
_ROLES = ("filters", "compressor", "compressors", "codecs", "serializer", "object_codec")


def refuse_unknown_codecs(what: object, about: Mapping[Any, Any]) -> None:
    """Refuse an array, `what`, that is encoded with something that is not on the list.

    `about` are its metadata, as zarr 2 or 3 keeps them, or its encoding, as xarray does.
    """
    unknown = sorted({*_names([about.get(role) for role in _ROLES])} - KNOWN)
    if unknown:
        raise InputError(
            f"{what}: encoded with {', '.join(map(repr, unknown))}, which can run code or is not "
            f"known here. It is not read. Write it anew with one of {', '.join(sorted(KNOWN))}"
        )


def refuse_encoded(variables: Mapping[Hashable, xr.Variable]) -> None:
    """Refuse variables that xarray has opened from a zarr store, by what their encoding says."""
    for name, variable in variables.items():
        if not in_memory(variable):
            refuse_unknown_codecs(f"variable '{name}'", variable.encoding)


def _names(codecs: Any) -> Iterator[str]:
    """Names of codecs as zarr's metadata or its objects have them, those within others too."""
    if codecs is None or codecs == "auto":
        return
    if isinstance(codecs, (list, tuple)):
        for codec in codecs:
            yield from _names(codec)
        return
    if not isinstance(codecs, (str, Mapping)) and not hasattr(codecs, "codec_id"):
        codecs = codecs.to_dict() if hasattr(codecs, "to_dict") else type(codecs).__name__
    name, inner = codecs, None
    if isinstance(codecs, Mapping):
        name, inner = codecs.get("id", codecs.get("name")), codecs.get("configuration")
    yield str(getattr(codecs, "codec_id", name)).removeprefix("numcodecs.")
    if isinstance(inner, Mapping):
        yield from _names([inner.get("codecs"), inner.get("index_codecs")])
