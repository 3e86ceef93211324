"""Zarr stores: published ones, damaged ones, and those behind a URL."""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from years_of_weather import T2M, weather

from stforecast.conventions.gate import check
from stforecast.datasets.backends import object_store
from stforecast.datasets.weather import open_weatherbench
from stforecast.errors import InputError


def store(path: Path | str, zarr_format: int, *, shards=None, steps: int = 40) -> xr.Dataset:
    """Write WeatherBench 2's layout: (time, longitude, latitude), chunks of 10 steps."""
    ds = weather("2020-01-01", steps, freq="6h")
    ds = ds.rename(t2m=T2M, lat="latitude", lon="longitude")
    ds = ds.transpose("time", "longitude", "latitude")
    ds["temperature"] = ds[T2M].expand_dims(level=[500, 850], axis=1)
    encoding = {T2M: {"chunks": (10, 6, 4), **({"shards": shards} if shards else {})}}
    ds.to_zarr(path, zarr_format=zarr_format, encoding=encoding, consolidated=zarr_format == 2)
    return ds


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_weatherbench2_store(tmp_path, zarr_format):
    theirs = store(tmp_path / "era5.zarr", zarr_format)
    for path in (tmp_path / "era5.zarr", tmp_path):
        ds = open_weatherbench(path)
        assert list(ds.data_vars) == [T2M]  # not the one on levels
        assert ds[T2M].dims == ("time", "latitude", "longitude")
        np.testing.assert_array_equal(ds[T2M], theirs[T2M].transpose(*ds[T2M].dims))
    with pytest.raises(InputError, match="extra dimension 'level'"):
        open_weatherbench(tmp_path, "temperature")


@pytest.mark.parametrize(
    ("zarr_format", "chunk"),
    [(2, "2m_temperature/2.0.0"), (3, "2m_temperature/c/2/0/0"), (3, "sharded")],
)
@pytest.mark.parametrize("chunks", ["auto", None])
def test_missing_zarr_chunk_raises_when_read(tmp_path, zarr_format, chunk, chunks):
    path = tmp_path / "era5.zarr"
    theirs = store(path, zarr_format, shards=(20, 6, 4) if chunk == "sharded" else None)
    chunk = "2m_temperature/c/1/0/0" if chunk == "sharded" else chunk
    (path / chunk).unlink()
    ds = open_weatherbench(path, chunks=chunks)
    good = ds[T2M][:20]
    if chunks is None:  # dask reads more than was asked for
        np.testing.assert_array_equal(good, theirs[T2M][:20].transpose(*good.dims))
    name = chunk.partition("/")[2]
    with pytest.raises(InputError, match=rf"'{name}' of zarr array '2m_temperature' is missing"):
        ds[T2M][25].compute()
    with pytest.raises(InputError, match="is missing"):
        check(ds)


def test_missing_chunk_of_a_coordinate_raises_at_once(tmp_path):
    store(tmp_path / "era5.zarr", 3)
    (tmp_path / "era5.zarr" / "time" / "c" / "0").unlink()
    with pytest.raises(InputError, match="chunk 'c/0' of zarr array 'time' is missing"):
        open_weatherbench(tmp_path)


def test_damaged_zarr_chunk_is_named(tmp_path):
    store(tmp_path / "era5.zarr", 3)
    chunk = tmp_path / "era5.zarr" / T2M / "c" / "3" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:50])
    ds = open_weatherbench(tmp_path)
    with pytest.raises(
        InputError, match=r"era5\.zarr: '2m_temperature' cannot be read at time 0..39"
    ):
        ds[T2M].compute()


def test_damaged_zarr_metadata_is_named(tmp_path):
    store(tmp_path / "era5.zarr", 3)
    (tmp_path / "era5.zarr" / T2M / "zarr.json").write_text('{"zarr_format": 3,')
    with pytest.raises(InputError, match=r"era5\.zarr: cannot be opened"):
        open_weatherbench(tmp_path)


def test_store_behind_a_url(tmp_path):
    theirs = store(tmp_path / "era5.zarr", 3)
    url = (tmp_path / "era5.zarr").as_uri()
    ds = open_weatherbench(url)
    np.testing.assert_array_equal(ds[T2M], theirs[T2M].transpose(*ds[T2M].dims))
    with pytest.raises(InputError, match="nowhere"):
        open_weatherbench((tmp_path / "nowhere.zarr").as_uri())
    with pytest.raises(InputError, match="only zarr stores are read from a URL"):
        open_weatherbench("https://example.org/2m_temperature_2013_5.625deg.nc")


def test_cloud_without_its_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(InputError, match=r"obstore.*pip install 'stforecast\[cloud\]'"):
        open_weatherbench("gs://weatherbench2/datasets/era5/64x32.zarr")


@pytest.mark.parametrize(
    "url", ["gs://bucket/a.zarr", "s3://bucket/a.zarr", "https://a.org/a.zarr"]
)
def test_a_wrong_storage_option_is_named(url):
    with pytest.raises(InputError, match=r"a\.zarr: cannot be opened .*found \[.*'anon'"):
        open_weatherbench(url, storage_options={"anon": True})


@pytest.mark.parametrize("options", [None, {}, {"region": "us-west-2"}])
def test_requests_are_anonymous_unless_asked_otherwise(options):
    pytest.importorskip("obstore")
    assert object_store("s3://bucket/a.zarr", options).config["skip_signature"] == "true"
    signed = object_store("s3://bucket/a.zarr", {**(options or {}), "skip_signature": False})
    assert signed.config["skip_signature"] == "false"
    own = {"access_key_id": "a", "secret_access_key": "b"}
    assert "skip_signature" not in object_store("s3://bucket/a.zarr", own).config


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


def test_a_store_is_read_over_http_and_a_lost_chunk_is_refused(tmp_path):
    theirs = store(tmp_path / "era5.zarr", 2)
    handler = partial(SilentHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/era5.zarr"
        ds = open_weatherbench(url)
        np.testing.assert_array_equal(ds[T2M], theirs[T2M].transpose(*ds[T2M].dims))
        next((tmp_path / "era5.zarr" / T2M).glob("0*")).unlink()
        with pytest.raises(InputError, match="is missing"):
            open_weatherbench(url)[T2M].compute()
        server.shutdown()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("length", [0, False, [0], [False]])
def test_chunks_of_no_length_are_refused(tmp_path, zarr_format, length):
    """Nobody can divide by them, and zarr would."""
    path = tmp_path / "era5.zarr"
    store(path, zarr_format)
    for file in (path / ".zmetadata", path / "zarr.json"):
        file.unlink(missing_ok=True)
    if zarr_format == 3:
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    file = path / "latitude" / (".zarray" if zarr_format == 2 else "zarr.json")
    about = json.loads(file.read_text())
    if zarr_format == 2:
        about["chunks"] = length
    else:
        about["chunk_grid"]["configuration"]["chunk_shape"] = length
    file.write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"'latitude' is said to lie in chunks of .*at least 1"):
        open_weatherbench(path)
