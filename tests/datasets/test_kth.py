"""KTH: genuine files, its protocol, damage to the lists."""

from __future__ import annotations

import logging
import shutil
import zipfile

import numpy as np
import pytest
import xarray as xr
from video_files import LUMA, _put, blobs, small_kth, small_kth_frames

from stforecast.datasets import kth
from stforecast.datasets.clips import protocol_times
from stforecast.datasets.kth import open_kth
from stforecast.datasets.video import resize
from stforecast.task import Task
from stforecast.testing.video import (
    write_kth,
    write_kth_frames,
)

av = pytest.importorskip("av", reason="needs the extra 'video'")


@pytest.mark.parametrize("write", [write_kth, write_kth_frames])
def test_kth_gives_the_frames_of_the_sub_sequences(tmp_path, write):
    videos = [blobs(16, (120, 160), seed) for seed in range(2)]
    write(tmp_path, persons=[2, 20], actions=["running"], lengths=(6, 5), clips=videos)
    ds = open_kth(tmp_path, chunks=None)
    assert dict(ds.sizes) == {"time": 22, "y": 128, "x": 128}
    assert ds["intensity"].dims == ("time", "y", "x")
    assert ds["intensity"].attrs["units"] == "1"
    for k in ("title", "source", "license", "references", "Conventions"):
        assert ds.attrs[k]
    # Frames 1 to 6 and 12 to 16 of each video; resized the way that the frames' helper does.
    kept = np.concatenate([v[[*range(6), *range(11, 16)]] for v in videos])
    expected = resize(np.rint(kept @ LUMA)[..., None].astype(np.uint8), (128, 128))[..., 0]
    assert np.abs(255 * ds["intensity"].values - expected).mean() < 1.5  # the codec's loss
    lengths = [6, 5, 6, 5]
    np.testing.assert_array_equal(ds["clip"], np.repeat(range(4), lengths))
    np.testing.assert_array_equal(ds["step"], np.concatenate([np.arange(n) for n in lengths]))
    np.testing.assert_array_equal(ds["person"], np.repeat([2, 20], 11))
    assert set(ds["action"].values) == {kth.ACTIONS.index("running")}
    assert ds["action"].attrs["flag_meanings"].split()[4] == "running"
    assert set(ds["stride"].values) == {3}
    assert (ds["time"].values[1] - ds["time"].values[0]) == np.timedelta64(40, "ms")


def test_the_videos_are_in_the_published_form(tmp_path):
    small_kth(tmp_path, persons=[1])
    with zipfile.ZipFile(tmp_path / "boxing.zip") as archive:
        assert archive.namelist() == ["person01_boxing_d1_uncomp.avi"]
        data = archive.read("person01_boxing_d1_uncomp.avi")
    assert data[112:116] == b"XVID"
    import io

    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("mpeg4", 160, 120)
        assert stream.average_rate == 25


def test_kth_persons_are_split_as_the_protocol_says(tmp_path):
    small_kth(tmp_path, persons=[1, 14, 15, 16, 17, 25], lengths=(2,))
    persons = {
        s: set(open_kth(tmp_path, s)["person"].values) for s in ("train", "validation", "test")
    }
    assert persons == {"train": {1, 14}, "validation": {15, 16}, "test": {17, 25}}
    everyone = set.union(*(set(kth._PERSONS[s]) for s in persons))
    assert everyone == set(range(1, 26))
    assert sum(len(kth._PERSONS[s]) for s in persons) == 25
    assert set(kth._PERSONS["train"]) | set(kth._PERSONS["validation"]) == set(range(1, 17))


def test_kth_actions_can_be_chosen(tmp_path):
    write_kth(tmp_path, persons=[1], lengths=(2,))
    assert set(open_kth(tmp_path, actions=["jogging"])["stride"].values) == {3}
    assert set(open_kth(tmp_path, actions=["boxing"])["stride"].values) == {0}


def test_without_sequences_a_video_is_a_clip_and_numbers_divide_frames(tmp_path):
    small_kth(tmp_path / "zips", persons=[1], sequences=False)
    ds = open_kth(tmp_path / "zips")
    assert ds.sizes["time"] == 16
    assert set(ds["clip"].values) == {0}
    small_kth_frames(tmp_path / "frames", persons=[1], sequences=False)
    ds = open_kth(tmp_path / "frames")
    np.testing.assert_array_equal(ds["clip"], np.repeat([0, 1], [4, 3]))


def test_a_zip_and_a_video_by_their_names_find_their_sequences(tmp_path):
    small_kth(tmp_path, persons=[1, 2])
    assert set(open_kth(tmp_path / "boxing.zip")["clip"].values) == {0, 1, 2, 3}
    small_kth(tmp_path / "b", persons=[1], zipped=False)
    file = tmp_path / "b/boxing/person01_boxing_d1_uncomp.avi"
    assert open_kth(file).sizes["time"] == 16  # 00sequences.txt is not beside it
    shutil.move(tmp_path / "b/00sequences.txt", file.parent)
    assert open_kth(file).sizes["time"] == 11


def test_the_published_lists_peculiarities_are_read(tmp_path):
    """Three ranges, overlaps, no order and a missing video: all of these are in the real file."""
    small_kth(tmp_path, persons=[7], actions=["jogging"], lengths=(20, 20))
    text = (
        "This database contains sequences of six classes\n\nTraining:   person11, 12\n\n"
        "person07_jogging_d1    \t\tframes\t1-12, 30-42, 13-25 \n"
        "person13_handclapping_d3\t*missing*\n"
        "person08_jogging_d1\t\tframes\t1-42, 84-126\n"
    )
    (tmp_path / "00sequences.txt").write_text(text)
    ds = open_kth(tmp_path)
    assert np.unique(ds["clip"], return_counts=True)[1].tolist() == [12, 13, 13]
    assert [n.split("frames ")[1] for n in ds.attrs["clip_names"]] == ["1-12", "30-42", "13-25"]


def test_the_video_that_is_damaged_as_published_is_cut(tmp_path):
    small_kth(tmp_path, persons=[1], lengths=(300, 55), clips=[blobs(7, (60, 80))])
    with zipfile.ZipFile(tmp_path / "boxing.zip") as archive:
        data = archive.read("person01_boxing_d1_uncomp.avi")
    (tmp_path / "boxing.zip").unlink()
    # Every frame from the 305th on is not there, as in the published file of scene 4.
    with av.open(str(_put(tmp_path / "a.avi", data))) as container:
        at = [p.pos for p in container.demux(video=0) if p.size]
    (tmp_path / "a.avi").unlink()
    _put(tmp_path / "person01_boxing_d4_uncomp.avi", data[: at[304]])
    (tmp_path / "00sequences.txt").write_text("person01_boxing_d4\tframes\t1-106, 290-355\n")
    ds = open_kth(tmp_path, size=(12, 16), chunks=None)
    assert np.unique(ds["clip"], return_counts=True)[1].tolist() == [106, 11]
    assert np.isfinite(ds["intensity"].values).all()


def test_videos_extracted_beside_their_zip_are_taken_once(tmp_path, monkeypatch):
    small_kth(tmp_path, persons=[1])
    once = open_kth(tmp_path).load()
    with zipfile.ZipFile(tmp_path / "boxing.zip") as archive:
        archive.extractall(tmp_path / "boxing")
    monkeypatch.setattr(kth.Member, "read", _only_files(kth.Member.read))
    again = open_kth(tmp_path)
    xr.testing.assert_identical(again.load().drop_attrs(), once.drop_attrs())


def _only_files(read):
    def checked(member, most=-1):
        assert member.name is None
        return read(member, most)

    return checked


def test_listed_videos_that_are_missing_are_named(tmp_path, caplog):
    small_kth(tmp_path, persons=[1])
    with open(tmp_path / "00sequences.txt", "a") as file:
        file.write("person01_boxing_d2\tframes\t1-3\nperson01_walking_d1\tframes\t1-3\n")
    with caplog.at_level(logging.WARNING):
        open_kth(tmp_path)
    (record,) = caplog.records
    assert record.getMessage().endswith("but not there: person01_boxing_d2")


def test_reading_from_zips_leaves_nothing_behind(tmp_path):
    small_kth(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    open_kth(tmp_path).load()
    assert sorted(tmp_path.rglob("*")) == before


def test_protocol_windows_of_kth(tmp_path):
    """Boxing: a window's length apart; jogging: 3 frames; both from the end of a sub-sequence."""
    write_kth(tmp_path, persons=[20], lengths=(70, 34))
    ds = open_kth(tmp_path, "test")
    task = Task("intensity", 10, 20, "40ms")
    at = ds.sel(time=protocol_times(ds, task))
    ends = {a: at["step"].values[at["stride"].values == a] + 20 for a in (0, 3)}
    assert ends[0].tolist() == [39, 69, 33]
    assert ends[3].tolist() == [*range(30, 70, 3), 30, 33]
