"""KITTI and Caltech Pedestrian: genuine files and their protocols."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from video_files import _patch, blobs, colours

from stforecast.datasets import kitti_caltech as street
from stforecast.datasets.hickle_files import read_strings
from stforecast.datasets.kitti_caltech import open_caltech, open_kitti
from stforecast.datasets.seq_files import read_seq, read_seq_header
from stforecast.datasets.video import resize
from stforecast.errors import InputError
from stforecast.testing.video import (
    write_caltech,
    write_kitti,
    write_prednet_hkl,
)

av = pytest.importorskip("av", reason="needs the extra 'video'")


# --- KITTI ------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_kitti_gives_the_middle_of_the_frames(tmp_path, zipped):
    video = blobs(5, (150, 400))
    write_kitti(tmp_path, drives={"0001": 5}, size=(150, 400), zipped=zipped, clips=[video])
    ds = open_kitti(tmp_path, chunks=None)
    assert dict(ds.sizes) == {"time": 5, "y": 128, "x": 160}
    # 400 x 128 / 150 = 341 columns, of which 90 to 249 are the middle.
    expected = resize(video, (128, 341))[:, :, 90:250]
    np.testing.assert_array_equal(np.rint(colours(ds)), expected)
    assert (ds["time"].values[1] - ds["time"].values[0]) == np.timedelta64(100, "ms")
    assert {"clip", "step"} <= set(ds.coords)
    assert ds.attrs["license"].startswith("CC")


def test_left_stays_left():
    ramp = np.broadcast_to(np.arange(1242, dtype=np.float32)[:, None], (1, 375, 1242, 3))
    cut = street._cut(ramp)
    assert cut.shape == (1, 128, 160, 3)
    assert (np.diff(cut[0, 0, :, 0]) > 0).all()
    np.testing.assert_allclose(cut[0, :, :, 0].mean(), 620.5, atol=1)  # the middle column


def test_kitti_drives_are_split_as_prednet_does(tmp_path):
    drives = {"0001": 1, "0005": 2, "0070": 3, "0079": 4, "0104": 5, "0002": 6}
    write_kitti(tmp_path, drives=drives, size=(24, 80))
    frames = {s: open_kitti(tmp_path, s).sizes["time"] for s in ("train", "validation", "test")}
    assert frames == {"train": 7, "validation": 2, "test": 12}
    ds = open_kitti(tmp_path)
    assert ds.sizes["time"] == 21
    assert ds.attrs["clip_names"][0] == "2011_09_26_drive_0001_sync/image_03"


def test_cameras_of_kitti(tmp_path):
    write_kitti(tmp_path, drives={"0001": 2}, cameras=(2, 3), size=(24, 80))
    left, right = (open_kitti(tmp_path, camera=c, chunks=None)["red"].values for c in (2, 3))
    assert np.abs(left - right).max() > 0.1
    np.testing.assert_array_equal(open_kitti(tmp_path)["red"].values, right)


@pytest.mark.parametrize("version", [1, 3, 4, 5])
def test_prednets_pair_is_divided_by_its_sources(tmp_path, version):
    video = blobs(14, (128, 160))
    parts = {"train": (5, 3), "val": (4,)}
    write_prednet_hkl(tmp_path, parts=parts, version=version, clips=[video])
    ds = open_kitti(tmp_path, "train", chunks=None)
    np.testing.assert_array_equal(ds["clip"], np.repeat([0, 1], [5, 3]))
    expected = np.concatenate([video[:5], video[:3]])
    np.testing.assert_array_equal(np.rint(colours(ds)), expected)
    assert open_kitti(tmp_path, "validation").sizes["time"] == 4
    assert open_kitti(tmp_path).sizes["time"] == 12
    sources = read_strings(tmp_path / "sources_train.hkl")
    assert sources == [f"city-2011_09_26_drive_000{n}_sync" for n in (1, 1, 1, 1, 1, 2, 2, 2)]


# --- Caltech Pedestrian -----------------------------------------------------------------------


@pytest.mark.parametrize("gap", [8, 16])
@pytest.mark.parametrize("image_format", [102, 201])
def test_caltech_takes_every_third_frame(tmp_path, gap, image_format):
    levels = np.arange(0, 220, 10, dtype=np.uint8)
    video = np.broadcast_to(levels[:, None, None, None], (22, 60, 100, 3)).copy()
    write_caltech(
        tmp_path, sets={6: [22]}, gap=gap, image_format=image_format, size=(60, 100), clips=[video]
    )
    ds = open_caltech(tmp_path, chunks=None)
    assert dict(ds.sizes) == {"time": 7, "y": 128, "x": 160}
    np.testing.assert_allclose(255 * ds["green"].mean(("y", "x")), levels[2::3][:7], atol=1.5)
    assert (ds["time"].values[1] - ds["time"].values[0]) == np.timedelta64(100, "ms")
    each = open_caltech(tmp_path, every=1)
    assert each.sizes["time"] == 22


def test_caltech_sets_are_split_as_the_owners_do(tmp_path):
    sets = {0: [3], 4: [6], 5: [9], 6: [12, 3], 10: [15]}
    write_caltech(tmp_path, sets=sets, size=(16, 20))
    frames = {s: open_caltech(tmp_path, s).sizes["time"] for s in ("train", "validation", "test")}
    assert frames == {"train": 3, "validation": 3, "test": 10}
    assert open_caltech(tmp_path / "set10/V000.seq").sizes["time"] == 5


def test_a_recording_that_does_not_know_its_length_is_counted(tmp_path):
    write_caltech(tmp_path, sets={6: [7]}, size=(16, 20))
    path = tmp_path / "set06/V000.seq"
    known = read_seq(path, 7, range(7))
    _patch(path, 572, struct.pack("<I", 0))
    assert read_seq_header(path).frames == 7
    assert read_seq(path, 7, range(7)) == known


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(st.data())
def test_a_cut_sequence_never_gives_another_image(tmp_path, data):
    """However short the file, an image is the one that was there, or there is an error."""
    path = tmp_path / "set06/V000.seq"
    if not path.exists():
        write_caltech(tmp_path, sets={6: [4]}, size=(16, 20))
    whole = path.read_bytes()
    images = read_seq(path, 4, range(4))
    cut = tmp_path / "cut.seq"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 17))])
    try:
        assert read_seq_header(cut).frames == 4
        assert read_seq(cut, 4, range(4)) == images
    except InputError as error:
        assert str(error).startswith(str(cut))  # noqa: PT017
    else:
        pytest.fail("a truncated file was read")
