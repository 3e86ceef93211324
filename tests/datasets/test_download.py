"""Downloads from a local server that breaks off, lies and stalls; archives that are hostile."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from stforecast.datasets import download, extract, fetch
from stforecast.datasets.transport import source_of
from stforecast.errors import InputError
from stforecast.files import locked

downloads = import_module("stforecast.datasets.download")

BODY = np.random.default_rng(0).bytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body`; what it does wrong is set by the test."""

    daemon_threads = True
    body = BODY
    etag: str | None = '"one"'
    ranges = True
    skewed = 0  # bytes by which a range that was asked for is missed
    break_after: int | None = None  # bytes of an answer; once
    stall = 0.0  # seconds before every block
    status: list[int]  # answers to give first
    asked: list[tuple[str | None, str | None]]  # Range, If-Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.headers["Range"], self.headers["If-Range"]))
        if server.status:
            self.send_error(server.status.pop(0))
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/data.bin")
            self.end_headers()
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/data.bin")
            self.end_headers()
            return
        body, start = server.body, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        same = self.headers["If-Range"] in (None, server.etag)
        if asked and server.ranges and same:
            start = int(asked[1]) + server.skewed
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        sent = 0
        for at in range(start, len(body), 10_000):
            time.sleep(server.stall)
            if server.break_after is not None and sent >= server.break_after:
                server.break_after = None
                return
            try:
                self.wfile.write(body[at : at + 10_000])
                self.wfile.flush()
            except OSError:
                return
            sent += 10_000

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "_PAUSE", 0)  # between the attempts
    server = Server(("127.0.0.1", 0), Handler)
    server.status, server.asked = [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


# --- the good days --------------------------------------------------------------------------------


def test_a_file_arrives_whole_and_once(server, tmp_path):
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "data.bin"
    assert fetch(server.url, target, sha256=SHA, progress=lambda *a: seen.append(a)) == target
    assert target.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert fetch(server.url, target, sha256=SHA) == target
    assert len(server.asked) == 1
    assert names(target.parent) == ["data.bin"]


def test_without_a_checksum_it_is_loudly_unverified(server, tmp_path, caplog):
    fetch(server.url, tmp_path / "a")
    assert "not verified" in caplog.text
    assert SHA in caplog.text


def test_md5_is_taken_where_owners_give_only_that(server, tmp_path):
    fetch(server.url, tmp_path / "a", sha256=f"md5:{hashlib.md5(BODY).hexdigest()}")
    with pytest.raises(InputError, match="its md5 is"):
        fetch(server.url, tmp_path / "b", sha256=f"md5:{'0' * 32}")


def test_an_empty_file_is_a_file(server, tmp_path):
    server.body = b""
    assert fetch(server.url, tmp_path / "a").read_bytes() == b""
    assert names(tmp_path) == ["a"]


def test_redirections_are_followed_within_http(server, tmp_path):
    base = server.url.rpartition("/")[0]
    assert fetch(f"{base}/moved", tmp_path / "a", sha256=SHA).read_bytes() == BODY
    with pytest.raises(InputError, match="less safe"):
        fetch(f"{base}/elsewhere", tmp_path / "b")


@pytest.mark.parametrize("form", ["path", "file URL", "obstore"])
def test_other_sources(tmp_path, monkeypatch, form):
    source = tmp_path / "the source"
    source.write_bytes(BODY)
    url = {"path": str(source), "file URL": source.as_uri(), "obstore": "s3://b/the source"}[form]
    if form == "obstore":
        obstore = pytest.importorskip("obstore.store")
        monkeypatch.setattr(obstore, "from_url", lambda *_, **__: obstore.LocalStore(tmp_path))
    assert fetch(url, tmp_path / "a", sha256=SHA).read_bytes() == BODY
    with pytest.raises(InputError, match=r"cannot be read|no such file"):
        fetch(url + "2", tmp_path / "b")
    assert names(tmp_path) == ["a", "the source"]


def test_a_part_from_a_store_goes_on_if_the_object_is_the_same(tmp_path, monkeypatch):
    obstore = pytest.importorskip("obstore.store")
    monkeypatch.setattr(obstore, "from_url", lambda *_, **__: obstore.LocalStore(tmp_path))
    (tmp_path / "a").write_bytes(BODY)
    source = source_of("s3://b/a", {})
    with source("s3://b/a", 0, None, 9.0) as answer:
        assert (answer.start, answer.total) == (0, len(BODY))
        mark = answer.validator
    with source("s3://b/a", 1000, mark, 9.0) as answer:
        assert answer.start == 1000
        assert bytes(answer.file.read(500)) == BODY[1000:1500]
    with source("s3://b/a", 1000, "another", 9.0) as answer:
        assert answer.start == 0
        assert bytes(answer.file.read(500)) == BODY[:500]


# --- interruptions --------------------------------------------------------------------------------


def test_a_broken_connection_goes_on_where_it_was(server, tmp_path):
    server.break_after = 100_000
    assert fetch(server.url, tmp_path / "a", sha256=SHA).read_bytes() == BODY
    assert server.asked == [(None, None), ("bytes=100000-", '"one"')]


def interrupted(server: Server, target: Path, **options) -> None:
    """Get a part of the file, as far as the server breaks off."""
    server.break_after = 100_000
    with pytest.raises(InputError, match="100000 bytes have arrived and are kept"):
        fetch(server.url, target, tries=1, **options)
    assert not target.exists()


def test_a_part_is_kept_for_the_next_call(server, tmp_path):
    interrupted(server, tmp_path / "a")
    assert names(tmp_path) == [".a.part", ".a.part.json"]
    assert fetch(server.url, tmp_path / "a").read_bytes() == BODY
    assert server.asked[1] == ("bytes=100000-", '"one"')
    assert names(tmp_path) == ["a"]


def test_a_file_that_changed_meanwhile_starts_anew(server, tmp_path):
    interrupted(server, tmp_path / "a")
    server.body, server.etag = BODY[::-1], '"two"'
    assert fetch(server.url, tmp_path / "a").read_bytes() == BODY[::-1]
    assert server.asked[1] == ("bytes=100000-", '"one"')


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.ranges = False
    interrupted(server, tmp_path / "a", sha256=SHA)
    assert fetch(server.url, tmp_path / "a", sha256=SHA).read_bytes() == BODY


def test_a_range_that_was_not_asked_for_is_not_taken(server, tmp_path):
    server.skewed = 10
    interrupted(server, tmp_path / "a")
    assert fetch(server.url, tmp_path / "a").read_bytes() == BODY
    assert [asked for asked, _ in server.asked] == [None, "bytes=100000-", None]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_validator_only_a_verified_file_goes_on(server, tmp_path, etag):
    server.etag = etag
    interrupted(server, tmp_path / "a")
    fetch(server.url, tmp_path / "a")
    interrupted(server, tmp_path / "b", sha256=SHA)
    fetch(server.url, tmp_path / "b", sha256=SHA)
    assert [asked for asked, _ in server.asked] == [None, None, None, "bytes=100000-"]


def test_a_part_of_another_address_is_not_continued(server, tmp_path):
    interrupted(server, tmp_path / "a", sha256=SHA)
    fetch(server.url + "?v=2", tmp_path / "a", sha256=SHA)
    assert server.asked[1] == (None, None)


def test_a_complete_part_is_only_verified(server, tmp_path):
    (tmp_path / ".a.part").write_bytes(BODY)
    note = {"url": server.url, "validator": '"one"'}
    (tmp_path / ".a.part.json").write_text(json.dumps(note))
    assert fetch(server.url, tmp_path / "a", sha256=SHA).read_bytes() == BODY
    assert server.asked == [(f"bytes={len(BODY)}-", '"one"')]


def test_a_part_longer_than_the_file_starts_anew(server, tmp_path):
    (tmp_path / ".a.part").write_bytes(BODY + b"more")
    note = {"url": server.url, "validator": '"one"'}
    (tmp_path / ".a.part.json").write_text(json.dumps(note))
    assert fetch(server.url, tmp_path / "a", sha256=SHA).read_bytes() == BODY


def test_a_killed_download_goes_on(server, tmp_path):
    server.stall = 0.02
    code = "import sys; from stforecast.datasets import fetch; fetch(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, server.url, str(tmp_path / "a")])
    part, deadline = tmp_path / ".a.part", time.monotonic() + 60
    while not part.exists() or part.stat().st_size < 50_000:
        assert process.poll() is None
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a").exists()
    kept, server.stall = part.stat().st_size, 0.0
    assert fetch(server.url, tmp_path / "a", sha256=SHA).read_bytes() == BODY
    assert server.asked[-1][0] == f"bytes={kept}-"
    assert names(tmp_path) == ["a"]


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ([404], "404 .*there is no such file"),
        ([403], "403 .*permission"),
        ([503] * 9, "503 .*times"),
    ],
    ids=["404 -> at once", "403 -> at once", "503 -> after some tries"],
)
def test_what_the_server_says_is_told(server, tmp_path, status, reason):
    server.status = list(status)
    with pytest.raises(InputError, match=reason):
        fetch(server.url, tmp_path / "a")
    assert len(server.asked) == min(len(status), 4)
    assert names(tmp_path) == []


def test_a_server_error_may_pass(server, tmp_path):
    server.status = [503, 429]
    assert fetch(server.url, tmp_path / "a", sha256=SHA).read_bytes() == BODY


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(InputError, match=f"sha256 is {SHA}, expected {'0' * 64}"):
        fetch(server.url, tmp_path / "a", sha256="0" * 64)
    assert names(tmp_path) == []


def test_a_file_that_is_there_is_verified_too(server, tmp_path):
    (tmp_path / "a").write_bytes(b"something else")
    with pytest.raises(InputError, match="is there already, but it is another file"):
        fetch(server.url, tmp_path / "a", sha256=SHA)
    assert (tmp_path / "a").read_bytes() == b"something else"


def test_a_server_that_says_nothing_does_not_hang(server, tmp_path):
    server.stall = 1.0
    began = time.monotonic()
    with pytest.raises(InputError, match=r"no answer in 0\.1 s, 2 times; 0 bytes"):
        fetch(server.url, tmp_path / "a", timeout=0.1, tries=2)
    assert time.monotonic() - began < 5
    assert names(tmp_path) == []


def test_a_server_that_drips_does_not_hang(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_SLOWEST", 10**6)
    server.stall = 0.03
    with pytest.raises(InputError, match=r"bytes in 0\.1 s"):
        fetch(server.url, tmp_path / "a", timeout=0.1, tries=1)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://no-such-host.invalid/a", "its name is not known.*is there a network"),
        ("http://127.0.0.1:9/a", "cannot be reached"),
        ("http://", "not an address|cannot be reached"),
        ("sftp9://host/a", "cannot be opened"),
    ],
    ids=["no such host", "nobody listens", "no host", "no such protocol"],
)
def test_what_cannot_be_reached_is_told_at_once(tmp_path, url, reason):
    with pytest.raises(InputError, match=reason):
        fetch(url, tmp_path / "a")
    assert names(tmp_path) == []


def test_a_full_disk_is_told_before_the_download(server, tmp_path, monkeypatch):
    free = type("usage", (), {"free": 1000})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: free)
    with pytest.raises(InputError, match="the disk is full"):
        fetch(server.url, tmp_path / "a")
    assert names(tmp_path) == []


@pytest.mark.parametrize("sha256", ["", "abc", "md5:abc", f"crc:{'0' * 64}"])
def test_a_checksum_that_is_none_is_refused(tmp_path, sha256):
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        fetch("http://127.0.0.1:9/", tmp_path / "a", sha256=sha256)


def test_a_directory_is_no_target(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        fetch("http://127.0.0.1:9/", tmp_path)


# --- two at once ----------------------------------------------------------------------------------


def test_two_downloads_of_one_file_are_one(server, tmp_path):
    server.stall = 0.01
    threads = [
        threading.Thread(target=fetch, args=(server.url, tmp_path / "a"), kwargs={"wait": 30})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() == BODY
    assert len(server.asked) == 1
    assert names(tmp_path) == ["a"]


def test_another_process_is_named(server, tmp_path):
    lock = tmp_path / ".a.lock"
    with (
        locked(lock, "downloading a"),
        pytest.raises(InputError, match=rf"another process \(pid {os.getpid()}\) is downloading"),
    ):
        fetch(server.url, tmp_path / "a")
    fetch(server.url, tmp_path / "a")


def test_a_dead_process_holds_nothing(server, tmp_path):
    """A killed holder leaves its lock file, but not its lock."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from stforecast.files import locked\n"
        "with locked(Path(sys.argv[1]), 'x'): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".a.lock")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=rf"pid {process.pid}\)"):
        fetch(server.url, tmp_path / "a")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / ".a.lock").exists()
    fetch(server.url, tmp_path / "a", sha256=SHA)
    assert names(tmp_path) == ["a"]


# --- archives -------------------------------------------------------------------------------------


def tar(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '')}") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip"])
def test_an_archive_is_unpacked_once(tmp_path, suffix):
    path, content = tmp_path / f"data{suffix}", {"a.txt": b"one", "below/b.txt": b"two"}
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        tar(path, special("below", tarfile.DIRTYPE), *content.items())
    found = extract(path, tmp_path / "out", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert {n: (found / n).read_bytes() for n in content} == content
    assert re.fullmatch(r"data-[0-9a-f]{8}", found.name)
    stamp = found.stat().st_mtime_ns
    assert extract(path, tmp_path / "out") == found
    assert found.stat().st_mtime_ns == stamp
    (found / "a.txt").unlink()
    with pytest.raises(InputError, match="missing or changed"):
        extract(path, tmp_path / "out")


def bomb(path: Path) -> Path:
    with gzip.open(path, "wb") as file:
        for _ in range(150):
            file.write(bytes(2**20))
    return path


def truncated(path: Path) -> Path:
    tar(path, ("a", BODY))
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def flipped(path: Path) -> Path:
    tar(path, ("a", BODY))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def written(data: bytes):
    def write(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: tar(p, ("ok", b"1"), ("../evil", b"2")), "outside the directory"),
        (lambda p: tar(p, ("/etc/evil", b"2")), "outside the directory"),
        (lambda p: tar(p, ("a\\..\\..\\evil", b"2")), "outside the directory"),
        (lambda p: tar(p, special("l", tarfile.SYMTYPE, "/etc")), "link or a special file"),
        (lambda p: tar(p, special("l", tarfile.LNKTYPE, "../x")), "link or a special file"),
        (lambda p: tar(p, special("d", tarfile.CHRTYPE)), "link or a special file"),
        (lambda p: tar(p, special("f", tarfile.FIFOTYPE)), "link or a special file"),
        (lambda p: tar(p, ("a", b"1"), ("A", b"2")), "several members called 'A'"),
        (bomb, "expand to more than"),
        (truncated, "damaged"),
        (flipped, "damaged"),
        (written(b"\x1f\x8bnonsense"), "damaged"),
        (written(b"plain text"), "damaged, incomplete or no archive"),
        (written(b""), "damaged, incomplete or no archive"),
        (written(b"7z\xbc\xaf"), "unpack it yourself"),
        (written(b"PK\3\4 cut"), "damaged"),
    ],
    ids=[
        "dots -> refused",
        "absolute path -> refused",
        "dots with backslashes -> refused",
        "symbolic link -> refused",
        "hard link -> refused",
        "device -> refused",
        "pipe -> refused",
        "two of a name -> refused",
        "bomb -> stopped",
        "truncated -> damaged",
        "flipped bit -> damaged",
        "gzip magic only -> damaged",
        "text -> no archive",
        "empty -> no archive",
        "7z -> by hand",
        "cut zip -> damaged",
    ],
)
def test_a_hostile_or_damaged_archive_writes_nothing(tmp_path, make, reason):
    path = make(tmp_path / "x.tar.gz")
    with pytest.raises(InputError, match=reason):
        extract(path, tmp_path / "out")
    assert names(tmp_path) in (["x.tar.gz"], ["out", "x.tar.gz"])
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []


def test_another_archive_than_expected_is_not_unpacked(tmp_path):
    path = tar(tmp_path / "x.tar.gz", ("a", b"1"))
    with pytest.raises(InputError, match="another file than expected"):
        extract(path, sha256="0" * 64)
    with pytest.raises(InputError, match="no such archive"):
        extract(tmp_path / "none.zip")
    assert names(tmp_path) == ["x.tar.gz"]


# --- data sets by name ----------------------------------------------------------------------------


def test_a_data_set_is_downloaded_by_name(server, tmp_path, monkeypatch, caplog):
    other = server.url + "2"
    made = downloads.Address(
        "test data", "CC0", "1 MB", "open_x", {"a": (server.url, SHA), "b": (other, None)}
    )
    monkeypatch.setattr(downloads, "addresses", lambda: {"made": made})
    assert download("made", tmp_path / "d") == tmp_path / "d"
    assert names(tmp_path / "d") == ["SHA256SUMS", "a", "b"]
    assert (tmp_path / "d" / "SHA256SUMS").read_text() == f"{SHA}  b\n"
    assert caplog.text.count("not verified") == 1
    download("made", tmp_path / "d")
    assert len(server.asked) == 2
    (tmp_path / "d" / "b").write_bytes(b"changed")
    with pytest.raises(InputError, match="is there already"):
        download("made", tmp_path / "d")


def test_data_sets_without_an_address_say_where_they_are(tmp_path):
    by_hand = [name for name, a in downloads.addresses().items() if not a.files]
    assert {"taxibj", "kitti", "robonet", "bridgedata"} <= set(by_hand)
    for name in by_hand:
        with pytest.raises(InputError, match=r"https://|gs://"):
            download(name, tmp_path)
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        download("mnst", tmp_path)
    assert names(tmp_path) == []


def test_addresses_are_complete():
    from stforecast import datasets

    for name, address in downloads.addresses().items():
        assert bool(address.files) != bool(address.by_hand), name
        assert address.licence, name
        assert hasattr(datasets, address.reader), (name, address.reader)
        for url, known in address.files.values():
            assert url.startswith(("https://", "http://www.cs.toronto.edu/"))
            assert known is None or re.fullmatch("[0-9a-f]{64}|md5:[0-9a-f]{32}", known)
