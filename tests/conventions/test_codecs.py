"""Which encodings of zarr arrays are read: only those that are on the list, wherever they stand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stforecast.conventions.codecs import refuse_encoded, refuse_unknown_codecs
from stforecast.conventions.lazy import LazyArray
from stforecast.errors import InputError

ROLES = ["filters", "compressor", "compressors", "codecs", "serializer", "object_codec"]
#: Those of zarr and numcodecs that turn bytes into numbers and texts, and run nothing.
HARMLESS = """
    blosc zlib gzip zstd lz4 bz2 lzma pcodec zfpy shuffle bitround quantize fixedscaleoffset
    scale_offset delta astype cast_value packbits bytes endian transpose sharding_indexed categorize
    base64 json2 msgpack2 vlen-utf8 vlen-bytes vlen-array crc32 crc32c adler32 fletcher32
    jenkins_lookup3
"""


class Old:
    codec_id = "pickle"


class New:
    def __init__(self, name):
        self.name = name

    def to_dict(self):
        return {"name": self.name, "configuration": {}}


WRITTEN = {
    "zarr 2": {"id": "pickle", "protocol": 5},
    "zarr 3": {"name": "numcodecs.pickle", "configuration": {}},
    "a name": "pickle",
    "numcodecs' object": Old(),
    "zarr's object": New("numcodecs.pickle"),
    "behind another": [{"id": "zlib"}, {"id": "pickle"}],
    "in a shard": {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "pickle"}]}},
    "in an index": {"name": "sharding_indexed", "configuration": {"index_codecs": ["pickle"]}},
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("form", WRITTEN)
def test_what_unpickles_is_refused_wherever_it_stands(role, form):
    with pytest.raises(InputError, match="variable 't': encoded with 'pickle', which can run code"):
        refuse_unknown_codecs("variable 't'", {role: WRITTEN[form]})


def test_what_is_harmless_is_read():
    for name in HARMLESS.split():
        for form in ({"id": name}, {"name": f"numcodecs.{name}"}, New(name), [name, None]):
            refuse_unknown_codecs("t", {"filters": form})
    refuse_unknown_codecs("t", {"serializer": "auto", "compressors": None, "chunks": (1,)})


def test_what_says_nothing_of_itself_is_refused_by_its_class():
    with pytest.raises(InputError, match="'object'"):
        refuse_unknown_codecs("t", {"filters": [object()]})
    with pytest.raises(InputError, match="'None'"):
        refuse_unknown_codecs("t", {"filters": [{}]})


def test_what_is_decoded_already_does_no_harm():
    class Numbers(LazyArray):
        shape, dtype = (2,), np.dtype("f4")

    encoding = {"filters": [{"id": "pickle"}]}
    refuse_encoded({"t": xr.Variable("x", [1.0, 2.0], encoding=encoding)})
    with pytest.raises(InputError, match="variable 't'"):
        refuse_encoded({"t": Numbers().variable(("x",), encoding=encoding)})
