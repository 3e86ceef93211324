"""What is said of a source that cannot be opened: damaged only where nothing else explains it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from stforecast.datasets.describe import describe
from stforecast.datasets.prepare import prepare
from stforecast.datasets.weather import open_grid, open_weatherbench
from stforecast.errors import InputError
from stforecast.testing.weather import make_weather
from stforecast.testing.weather_files import write_cds, write_weatherbench2

T2M = "2m_temperature"


@pytest.fixture
def plain(tmp_path):
    make_weather(24, shape=(6, 8)).to_netcdf(tmp_path / "a.nc")
    return (tmp_path / "a.nc").read_bytes()


@pytest.mark.parametrize("named", ["b.nc", "b.nc.{}"])
@pytest.mark.parametrize(
    ("suffix", "pack", "tool"),
    [
        ("gz", gzip.compress, "gunzip"),
        ("bz2", bz2.compress, "bunzip2"),
        ("xz", lzma.compress, "unxz"),
        ("zst", lambda raw: b"\x28\xb5\x2f\xfd" + raw, "unzstd"),
        ("Z", lambda raw: b"\x1f\x9d" + raw, "uncompress"),
    ],
)
def test_compressed_files_are_to_be_unpacked(tmp_path, plain, suffix, pack, tool, named):
    path = tmp_path / "packed" / named.format(suffix)
    path.parent.mkdir()
    path.write_bytes(pack(plain))
    with pytest.raises(InputError, match=rf"it is compressed, .*`{tool} {path.name}`") as error:
        open_grid(path)
    assert "damaged" not in str(error.value)
    if path.suffix != ".nc":
        with pytest.raises(InputError, match=rf"{path.name} is compressed: unpack it first"):
            open_grid(path.parent)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"\x89PNG\r\n\x1a\n", "it is a PNG image, neither netCDF nor zarr"),
        (b"<!DOCTYPE html><html>", "damaged or neither netCDF nor zarr"),
        (b"\x89HDF\r\n\x1a\n", "damaged"),
        (b"", "damaged"),
    ],
)
def test_what_a_file_is_instead(tmp_path, head, said):
    (tmp_path / "a.nc").write_bytes(head + bytes(200 if head else 0))
    with pytest.raises(InputError, match=said):
        open_grid(tmp_path / "a.nc")


@pytest.mark.parametrize("count", [2**31 - 1, -1, 2**20])
@pytest.mark.parametrize("length", [-8, 2**31 - 1, 0])
def test_a_header_of_any_numbers_is_read_in_no_time(tmp_path, count, length):
    numbers = np.array([0, 10, count, length, 5], ">i4").tobytes()
    (tmp_path / "a.nc").write_bytes(b"CDF\1" + numbers + bytes(64))
    with pytest.raises(InputError, match=r"a\.nc: "):
        open_grid(tmp_path / "a.nc")


def test_groups_of_a_file_are_named_and_opened(tmp_path):
    ds = make_weather(24, shape=(6, 8))
    ds.to_netcdf(tmp_path / "g.nc", group="forecast/surface")
    with pytest.raises(InputError, match=r"has groups: forecast, forecast/surface\. Open one with"):
        open_weatherbench(tmp_path / "g.nc")
    found = open_grid(tmp_path / "g.nc", group="forecast/surface")
    np.testing.assert_array_equal(found[T2M], ds[T2M])
    with pytest.raises(InputError, match="no group 'surface', its groups are forecast"):
        open_grid(tmp_path / "g.nc", group="surface")


def test_a_path_beyond_the_locale_is_not_called_damaged(tmp_path, plain):
    (tmp_path / "température.nc").write_bytes(plain)
    code = (
        "import os, sys; from stforecast import datasets; d = sys.argv[1]\n"
        "path = [e for e in os.listdir(d) if not e.isascii()][0]\n"
        "print(datasets.open_grid(os.path.join(d, path)).sizes['time'])"
    )
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, env=env
    )
    assert "24" in done.stdout or "Set LC_ALL=C.UTF-8" in done.stderr
    assert "damaged" not in done.stderr


def test_a_file_that_went_away_is_not_called_damaged(tmp_path):
    make_weather(24, shape=(6, 8)).to_zarr(tmp_path / "a.zarr", consolidated=False)
    ds = open_grid(tmp_path / "a.zarr")
    (tmp_path / "a.zarr").rename(tmp_path / "b.zarr")
    with pytest.raises(InputError) as error:
        ds.load()
    assert "damaged" not in str(error.value)


# --- URLs -----------------------------------------------------------------------------------------


class Answer(BaseHTTPRequestHandler):
    """Answers with the number that stands in the path."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def served(tmp_path):
    """Serve a handler's answers, or a directory; gives the address."""
    pytest.importorskip("obstore")
    servers = []

    def serve(handler) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class Files(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (404, "there is no zarr store or file of this name"),
        (403, "it may not be read"),
        (401, "it wants credentials"),
        (None, "it cannot be reached. Is there a network"),
    ],
)
def test_addresses_that_do_not_answer_as_hoped(served, code, said):
    base = "http://127.0.0.1:1" if code is None else f"{served(Answer)}/{code}"
    for opens in (open_weatherbench, open_grid):
        with pytest.raises(InputError, match=said) as error:
            opens(f"{base}/x.zarr")
        assert "damaged" not in str(error.value)
        assert len(str(error.value)) < 600
    found = describe(f"{base}/x.zarr")
    assert found.adapter is None
    assert said in found.reason


def test_a_store_behind_a_url_is_described(tmp_path, served):
    path = write_weatherbench2(tmp_path)
    store = prepare(make_weather(24, shape=(6, 8)), tmp_path / "prepared.zarr")
    base = served(lambda *args: Files(*args, directory=str(tmp_path)))
    found = describe(f"{base}/{path.name}")
    assert (found.adapter, found.dims) == ("open_weatherbench", describe(path).dims)
    assert found.open().sizes["time"] == found.dims["time"]
    assert describe(f"{base}/{store.name}").adapter == "open_prepared"
    assert describe(path.as_uri()).adapter == "open_weatherbench"


def test_levels_are_listed_and_missed_aloud(tmp_path, caplog):
    path = write_weatherbench2(tmp_path)
    open_weatherbench(path)
    assert "left out, as they lie on several levels: geopotential (on 500" in caplog.text
    assert any("geopotential (on 500" in v for v in describe(path).levels)
    assert "geopotential (on 500" in str(describe(path))
    caplog.clear()
    open_weatherbench(path, ["t2m"])
    assert not caplog.records


def test_describing_a_zip_writes_nothing(tmp_path):
    path = write_cds(tmp_path, layout="zip")
    before = sorted(tmp_path.rglob("*"))
    assert describe(path).dims["time"] > 0
    assert sorted(tmp_path.rglob("*")) == before
