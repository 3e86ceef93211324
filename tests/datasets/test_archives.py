"""Zip archives: extracted once, refused where they are hostile."""

from __future__ import annotations

import stat
import zipfile

import numpy as np
import pytest
from years_of_weather import T2M

from stforecast.datasets import archives
from stforecast.datasets.weather import open_weatherbench
from stforecast.errors import InputError


@pytest.fixture
def archive(years, tmp_path):
    directory, values = years
    path = tmp_path / "download" / "2m_temperature_5.625deg.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("__MACOSX/._2m_temperature_2013_5.625deg.nc", "not for us")
        for file in sorted(directory.glob("2m_*.nc")):
            zipped.write(file, f"5.625deg/{file.name}")
    return path, values


def test_zip_is_extracted_once(archive, tmp_path, monkeypatch):
    path, values = archive
    np.testing.assert_array_equal(open_weatherbench(path)[T2M], values)
    (extracted,) = (p for p in path.parent.iterdir() if p.is_dir())
    stamps = {p: p.stat().st_mtime_ns for p in extracted.rglob("*")}
    assert len(stamps) == 4
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkdtemp", lambda **_: pytest.fail("extracted twice"))
        np.testing.assert_array_equal(open_weatherbench(path, "t2m")[T2M], values)
    assert {p: p.stat().st_mtime_ns for p in extracted.rglob("*")} == stamps
    assert sorted(p.name for p in path.parent.iterdir()) == [extracted.name, path.name]

    np.testing.assert_array_equal(
        open_weatherbench(path, extract_to=tmp_path / "new" / "cache")[T2M], values
    )
    assert (tmp_path / "new" / "cache" / extracted.name).is_dir()

    next(extracted.rglob("*.nc")).unlink()
    with pytest.raises(InputError, match=r"1 files extracted earlier.*Delete the directory"):
        open_weatherbench(path)


def test_damaged_zips_leave_nothing_behind(archive):
    path, _ = archive
    whole = path.read_bytes()
    before = sorted(path.parent.iterdir())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"5\.625deg\.zip: damaged, incomplete or unknown zip"):
        open_weatherbench(path)
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    path.write_bytes(spoiled)
    with pytest.raises(InputError, match=r"5\.625deg\.zip: damaged"):
        open_weatherbench(path)
    assert sorted(path.parent.iterdir()) == before


def _symlink() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("2m_temperature_2013.nc")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link


@pytest.mark.parametrize(
    ("member", "contents", "message"),
    [
        ("../escaped.nc", "x", r"'\.\./escaped\.nc' would be written outside"),
        ("data/../../escaped.nc", "x", "would be written outside"),
        ("/tmp/escaped.nc", "x", "'/tmp/escaped.nc' would be written outside"),
        ("C:\\escaped.nc", "x", "would be written outside"),
        ("..\\escaped.nc", "x", "would be written outside"),
        (_symlink(), "/etc/passwd", "'2m_temperature_2013.nc' is a symbolic link"),
        ("bomb.nc", 120_000_000, r"would expand to 12000000\d"),
    ],
)
def test_hostile_zips_are_refused_untouched(tmp_path, member, contents, message):
    path = tmp_path / "inner" / "hostile.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        zipped.writestr("2m_temperature_2012.nc", "x")
        zipped.writestr(member, contents if isinstance(contents, str) else bytes(contents))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"hostile\.zip: .*" + message):
        open_weatherbench(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_zip_that_lies_about_its_size_is_stopped(tmp_path):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("2m_temperature_2012.nc", bytes(5_000_000))
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\1\2")
    raw[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"liar\.zip: damaged"):
        open_weatherbench(path)
    assert list(tmp_path.iterdir()) == [path]


def test_zip_limits(archive, tmp_path, monkeypatch):
    path, _ = archive
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(InputError, match="4 members, at most 3"):
        open_weatherbench(path)
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="at most 10000 bytes"):
        open_weatherbench(path)
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be extracted .* with extract_to="):
        open_weatherbench(path, extract_to=tmp_path / "file")


def test_zip_of_equal_names_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("a.nc", "1")
        zipped.writestr("A.nc", "2")
    with pytest.raises(InputError, match="several members called"):
        open_weatherbench(tmp_path / "a.zip")
