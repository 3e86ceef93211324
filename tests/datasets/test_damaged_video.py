"""Videos, pictures and lists that are damaged: each is named."""

from __future__ import annotations

import shutil
import struct
import zipfile
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from video_files import _patch, _put, small_kth, small_kth_frames

from stforecast.datasets.kitti_caltech import open_caltech, open_kitti
from stforecast.datasets.kth import open_kth
from stforecast.errors import InputError
from stforecast.testing.video import (
    write_caltech,
    write_kitti,
    write_prednet_hkl,
)

av = pytest.importorskip("av", reason="needs the extra 'video'")


def _cut(path, part):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


def _avi(edit, **options):
    """Write one video, change it, and give its directory."""

    def damage(tmp):
        small_kth(tmp, persons=[1], zipped=False, **options)
        edit(tmp / "boxing/person01_boxing_d1_uncomp.avi")
        return tmp

    return damage


def _sequences(text):
    def damage(tmp):
        small_kth(tmp, persons=[1])
        (tmp / "00sequences.txt").write_text(text)
        return tmp

    return damage


def _zip(edit, name="boxing.zip"):
    def damage(tmp):
        small_kth(tmp, persons=[1], lengths=(60,))
        edit(tmp / name)
        return tmp

    return damage


def _member(name, data=b"x", **info):
    def add(path):
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            for key, value in info.items():
                setattr(member, key, value)
            archive.writestr(member, data)

    return add


def _frames(edit):
    def damage(tmp):
        small_kth_frames(tmp, persons=[1])
        edit(tmp / "boxing/person01_boxing_d1")
        return tmp

    return damage


def _other_size(path):
    _put(path, kth_jpeg(np.zeros((60, 80, 3), np.uint8)))


def kth_jpeg(image):
    from stforecast.testing.encode import encode_jpeg

    return encode_jpeg(image)


def _kitti(edit):
    def damage(tmp):
        write_kitti(tmp, drives={"0001": 4}, size=(48, 160))
        edit(tmp / "2011_09_26/2011_09_26_drive_0001_sync/image_03/data")
        return tmp

    return damage


def _png_of_other_size(folder):
    write_kitti(folder.parents[4] / "other", drives={"0001": 3}, size=(50, 160))
    (file,) = (folder.parents[4] / "other").rglob("*0002.png")
    shutil.move(file, folder / file.name)
    shutil.rmtree(folder.parents[4] / "other")


def _hkl(edit, **options):
    def damage(tmp):
        write_prednet_hkl(tmp, parts={"train": (4, 3)}, **options)
        edit(tmp)
        return tmp

    return damage


def _rewrite(name, node, value, **attrs):
    def edit(tmp):
        with h5py.File(tmp / name, "a") as file:
            del file[node]
            file[node] = value
            file[node].attrs.update(attrs)

    return edit


def _seq(edit, **options):
    def damage(tmp):
        write_caltech(tmp, sets={6: [9]}, size=(32, 40), **options)
        edit(tmp / "set06/V000.seq")
        return tmp

    return damage


def _image(path, number):
    """Where the size field of an image is."""
    data, at = path.read_bytes(), 1024
    for _ in range(number):
        at += struct.unpack_from("<I", data, at)[0] + 16
    return at


def _both_forms(tmp):
    small_kth(tmp, persons=[1])
    return small_kth_frames(tmp, persons=[1])


def _kitti_and_hickle(tmp):
    write_kitti(tmp, drives={"0001": 2}, size=(24, 80))
    return write_prednet_hkl(tmp, parts={"train": (2,)})


def _zipped_seq(tmp):
    write_caltech(tmp / "a", sets={6: [3]}, size=(16, 20))
    with zipfile.ZipFile(tmp / "set06.zip", "w") as archive:
        archive.write(tmp / "a/set06/V000.seq", "set06/V000.seq")
    shutil.rmtree(tmp / "a")
    return tmp


def _twice(tmp):
    write_caltech(tmp / "a", sets={6: [3]}, size=(16, 20))
    write_caltech(tmp / "b", sets={6: [3]}, size=(16, 20))
    return tmp


def _empty(tmp):
    return tmp


V1 = "person01_boxing_d1"

CASES = [
    # what -> outcome: (how to make it, opener, when it is found, what the error says)
    ("avi cut in half -> named when read", _avi(partial(_cut, part=0.5)), open_kth, "read", V1),
    (
        "avi cut in its header -> named",
        _avi(partial(_cut, part=0.001)),
        open_kth,
        "open",
        "no AVI file, or truncated",
    ),
    (
        "text called avi -> named",
        _avi(lambda p: p.write_text("<html>404" * 20)),
        open_kth,
        "open",
        "no AVI file",
    ),
    (
        "avi whose header has no frames -> named",
        _avi(lambda p: _patch(p, 48, bytes(4))),
        open_kth,
        "open",
        "says 0 frames",
    ),
    (
        "avi with fewer frames than its header says -> named when read",
        _avi(lambda p: _patch(p, 48, struct.pack("<I", 99)), sequences=False),
        open_kth,
        "read",
        "ends after 16 frames, expected 99",
    ),
    (
        "bytes lost within an avi -> named when read",
        _avi(lambda p: _patch(p, p.stat().st_size // 2, bytes(300)), lengths=(60,)),
        open_kth,
        "read",
        V1,
    ),
    (
        "videos of different frame rates -> both named",
        lambda tmp: _avi(
            lambda p: _patch(
                Path(shutil.copy(p, p.with_name(p.name.replace("01", "02")))),
                32,
                struct.pack("<I", 33_333),
            ),
            sequences=False,
        )(tmp),
        open_kth,
        "open",
        "different frame rates",
    ),
    (
        "sub-sequence beyond the video -> named",
        _sequences("person01_boxing_d1\tframes\t1-6, 12-400\n"),
        open_kth,
        "open",
        "16 frames, but 00sequences.txt wants 12-400",
    ),
    (
        "sub-sequence backwards -> its line shown",
        _sequences("person01_boxing_d1\tframes\t6-1\n"),
        open_kth,
        "open",
        "frames 6-1",
    ),
    (
        "sub-sequence that is no range -> its line shown",
        _sequences("person01_boxing_d1\tframes\t1-6; 12\n"),
        open_kth,
        "open",
        "frames 1-6; 12",
    ),
    (
        "list without videos -> named",
        _sequences("404 not found"),
        open_kth,
        "open",
        "no line as",
    ),
    (
        "video that the list lacks -> named",
        _sequences("person02_boxing_d1\tframes\t1-6\n"),
        open_kth,
        "open",
        f"{V1} is not in 00sequences.txt",
    ),
    ("zip cut in half -> named", _zip(partial(_cut, part=0.5)), open_kth, "open", "boxing.zip"),
    (
        "bytes turned in a zip -> named when read",
        _zip(lambda p: _patch(p, 2000, bytes(200))),
        open_kth,
        "read",
        "cannot be read from the zip",
    ),
    (
        "zip member outside -> refused",
        _zip(_member("../../person01_boxing_d2_uncomp.avi")),
        open_kth,
        "open",
        "outside the directory",
    ),
    (
        "zip member that is a link -> refused",
        _zip(_member("person01_boxing_d2_uncomp.avi", external_attr=0o120777 << 16)),
        open_kth,
        "open",
        "symbolic link",
    ),
    (
        "zip bomb -> refused",
        _zip(_member("person01_boxing_d2_uncomp.avi", bytes(200 * 2**20))),
        open_kth,
        "open",
        "would expand",
    ),
    (
        "video twice -> both named",
        _avi(lambda p: shutil.copy(p, p.with_name("person01_boxing_d1.avi"))),
        open_kth,
        "open",
        "are the same video",
    ),
    ("videos and their frames -> refused", _both_forms, open_kth, "open", "remove one form"),
    (
        "missing frame -> named",
        _frames(lambda d: (d / "image_0003.jpg").unlink()),
        open_kth,
        "open",
        "first image_0003.jpg",
    ),
    (
        "truncated frame -> named when read",
        _frames(lambda d: _cut(d / "image_0003.jpg", 0.5)),
        open_kth,
        "read",
        "image_0003.jpg: a damaged or truncated JPEG",
    ),
    (
        "frame of another size -> named when read",
        _frames(lambda d: _other_size(d / "image_0003.jpg")),
        open_kth,
        "read",
        "image_0003.jpg: 60 x 80 pixels",
    ),
    (
        "text called jpg -> named when read",
        _frames(lambda d: (d / "image_0002.jpg").write_text("<html>")),
        open_kth,
        "read",
        "image_0002.jpg: neither a JPEG nor a PNG",
    ),
    ("nothing there -> what was expected", _empty, open_kth, "open", "expected boxing.zip"),
    (
        "missing frame of a drive -> named",
        _kitti(lambda d: (d / "0000000002.png").unlink()),
        open_kitti,
        "open",
        "frame 0000000002.png",
    ),
    (
        "truncated png -> named when read",
        _kitti(lambda d: _cut(d / "0000000002.png", 0.7)),
        open_kitti,
        "read",
        "0000000002.png: a damaged or truncated PNG",
    ),
    (
        "png of another size -> named when read",
        _kitti(_png_of_other_size),
        open_kitti,
        "read",
        "0000000002.png: 50 x 160 pixels",
    ),
    (
        "drive without that camera -> what was expected",
        _kitti(lambda d: None),
        partial(open_kitti, camera=2),
        "open",
        "no drive of camera 2",
    ),
    ("drives and hickle files -> refused", _kitti_and_hickle, open_kitti, "open", "both raw"),
    (
        "X without its sources -> named",
        _hkl(lambda d: (d / "sources_train.hkl").unlink()),
        open_kitti,
        "open",
        "sources_train.hkl is missing",
    ),
    (
        "sources of another length -> both named",
        _hkl(_rewrite("sources_train.hkl", "data_0", [b"a"] * 6, type=[b"<class 'list'>"])),
        open_kitti,
        "open",
        "7 frames, but sources_train.hkl names 6",
    ),
    (
        "pickle in hickle 3 -> refused",
        _hkl(_rewrite("sources_train.hkl", "data_0", [b"cos\nsystem"], type=[b"pickle"])),
        open_kitti,
        "open",
        "pickled",
    ),
    (
        "pickle in hickle 4 -> refused",
        _hkl(_rewrite("X_train.hkl", "data", [b"cos\nsystem"], base_type=b"pickle"), version=4),
        open_kitti,
        "open",
        "pickled",
    ),
    (
        "pickle in hickle 5 -> refused",
        _hkl(_rewrite("X_train.hkl", "data", np.zeros(9, np.uint8)), version=5),
        open_kitti,
        "open",
        "pickled",
    ),
    (
        "X of floats -> its form shown",
        _hkl(_rewrite("X_train.hkl", "data_0", np.zeros((7, 8, 8, 3)))),
        open_kitti,
        "open",
        "float64 of shape",
    ),
    (
        "X of channels first -> its form shown",
        _hkl(_rewrite("X_train.hkl", "data_0", np.zeros((7, 3, 8, 8), np.uint8))),
        open_kitti,
        "open",
        r"uint8 of shape (7, 3, 8, 8)",
    ),
    (
        "sources that are numbers -> named",
        _hkl(_rewrite("sources_train.hkl", "data_0", np.arange(7))),
        open_kitti,
        "open",
        "expected strings",
    ),
    (
        "hickle file cut short -> named",
        _hkl(lambda d: _cut(d / "X_train.hkl", 0.5)),
        open_kitti,
        "open",
        "X_train.hkl: truncated",
    ),
    (
        "HDF5 of something else -> named",
        _hkl(lambda d: h5py.File(d / "X_train.hkl", "w").close()),
        open_kitti,
        "open",
        "no hickle file",
    ),
    (
        "seq of wrong magic -> named",
        _seq(lambda p: _patch(p, 0, b"RIFF")),
        open_caltech,
        "open",
        "starts with 52494646",
    ),
    (
        "seq cut in its header -> named",
        _seq(lambda p: p.write_bytes(p.read_bytes()[:700])),
        open_caltech,
        "open",
        "truncated in its header",
    ),
    ("empty seq -> named", _seq(lambda p: p.write_bytes(b"")), open_caltech, "open", "nothing"),
    (
        "seq of raw images -> refused",
        _seq(lambda p: None, image_format=200),
        open_caltech,
        "open",
        "images in format 200",
    ),
    (
        "seq with a header of another size -> refused",
        _seq(lambda p: _patch(p, 32, struct.pack("<i", 8192))),
        open_caltech,
        "open",
        "header of 8192 bytes",
    ),
    (
        "seq whose image reaches beyond the end -> named when read",
        _seq(lambda p: _patch(p, _image(p, 1), struct.pack("<I", 2**31))),
        open_caltech,
        "read",
        "for frame 1 of 9",
    ),
    (
        "seq whose image has no size -> named when read",
        _seq(lambda p: _patch(p, _image(p, 1), bytes(4))),
        open_caltech,
        "read",
        "an image of 0 bytes",
    ),
    (
        "seq cut in its last image -> named when read",
        _seq(partial(_cut, part=0.95)),
        open_caltech,
        "read",
        "for frame 8 of 9",
    ),
    (
        "damaged image in a seq -> named when read",
        _seq(lambda p: _patch(p, (_image(p, 2) + _image(p, 3)) // 2, b"\xff\xd9")),
        open_caltech,
        "read",
        "V000.seq: frame 2",
    ),
    ("seq in a zip -> told to extract", _zipped_seq, open_caltech, "open", "Extract it"),
    ("sequence twice -> both named", _twice, open_caltech, "open", "are the same sequence"),
    ("no sequence -> what was expected", _empty, open_caltech, "open", "set06/V000.seq"),
    (
        "no such path -> named",
        lambda tmp: tmp / "none",
        open_caltech,
        "open",
        "no such file or directory",
    ),
    (
        "split of another name -> those there are",
        _kitti(lambda d: None),
        partial(open_kitti, split="val"),
        "open",
        "split must be",
    ),
    (
        "split that is empty -> named",
        _kitti(lambda d: None),
        partial(open_kitti, split="test"),
        "open",
        "nothing of split='test'",
    ),
    (
        "action of another name -> those there are",
        small_kth,
        partial(open_kth, actions=["dancing"]),
        "open",
        "unknown actions dancing",
    ),
    (
        "every 0th frame -> refused",
        _empty,
        partial(open_caltech, every=0),
        "open",
        "every must be at least 1",
    ),
]


@pytest.mark.parametrize(
    ("damage", "open_it", "when", "message"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_damage(tmp_path, damage, open_it, when, message):
    path = damage(tmp_path / "data") if damage is not _empty else tmp_path
    if when == "read":
        ds = open_it(path, chunks=None)
    use = ds.load if when == "read" else partial(open_it, path)
    with pytest.raises(InputError) as error:
        use()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_damage_far_away_does_not_hurt(tmp_path):
    """Frames before the damage are there."""
    path = _seq(partial(_cut, part=0.95))(tmp_path)
    with pytest.raises(InputError):
        open_caltech(path)["red"].load()
    small_kth_frames(tmp_path / "k", persons=[1], lengths=(4, 3))
    _cut(tmp_path / "k/boxing/person01_boxing_d1/image_0011.jpg", 0.5)
    ds = open_kth(tmp_path / "k", chunks=None)["intensity"]
    assert ds.isel(time=slice(0, 4)).load().max() > 0.2
    with pytest.raises(InputError, match="image_0011"):
        ds.load()
