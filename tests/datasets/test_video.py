"""KTH, KITTI and Caltech Pedestrian: genuine files, their protocols, lazy opening, and damage."""

from __future__ import annotations

import logging
import re
import shutil
import struct
import zipfile
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import pipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stforecast.baselines.persistence import Persistence
from stforecast.datasets import kitti_caltech as street
from stforecast.datasets import kth
from stforecast.datasets.clips import protocol_times
from stforecast.datasets.hickle_files import read_strings
from stforecast.datasets.kitti_caltech import open_caltech, open_kitti
from stforecast.datasets.kth import open_kth
from stforecast.datasets.seq_files import read_seq, read_seq_header
from stforecast.datasets.video import resize
from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.forecaster import load
from stforecast.forecasting.predict import predict
from stforecast.task import Task
from stforecast.testing.encode import moving_blobs
from stforecast.testing.video import (
    write_caltech,
    write_kitti,
    write_kth,
    write_kth_frames,
    write_prednet_hkl,
)

av = pytest.importorskip("av", reason="needs the extra 'video'")

ROOT = Path(__file__).parents[2]
CLIPS = ROOT.parent / "shared" / "data" / "video_clips"
LUMA = np.array([0.299, 0.587, 0.114])


def blobs(frames, shape, seed=0):
    return moving_blobs(frames, shape, np.random.default_rng(seed))


def colours(ds):
    """(T, H, W, 3) in 0 to 255."""
    return 255 * np.stack([ds[name].values for name in ("red", "green", "blue")], axis=-1)


def small_kth(directory, **options):
    return write_kth(directory, **({"actions": ["boxing"], "lengths": (6, 5)} | options))


def small_kth_frames(directory, **options):
    return write_kth_frames(directory, **({"actions": ["boxing"], "lengths": (4, 3)} | options))


# --- KTH --------------------------------------------------------------------------------------


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


def _put(path, data):
    path.write_bytes(data)
    return path


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


# --- lazy opening, and what the rest of the library does with it ----------------------------------

ALL = {
    "kth": (small_kth, open_kth),
    "kth frames": (small_kth_frames, open_kth),
    "kitti": (partial(write_kitti, size=(48, 160)), open_kitti),
    "kitti zips": (partial(write_kitti, size=(48, 160), zipped=True), open_kitti),
    "prednet": (write_prednet_hkl, open_kitti),
    "caltech": (write_caltech, open_caltech),
}


@pytest.mark.parametrize("name", ALL)
def test_opening_decodes_nothing(tmp_path, monkeypatch, name):
    write, open_it = ALL[name]
    write(tmp_path)

    def no(*arguments, **options):
        raise AssertionError("frames were read on opening")

    with monkeypatch.context() as patch:
        patch.setattr(av, "open", no)
        patch.setattr(av.CodecContext, "create", no, raising=False)
        patch.setattr(street, "_cut", no)
        patch.setattr(street, "read_seq", no)
        ds = open_it(tmp_path)
        assert ds.chunks
        open_it(tmp_path, chunks=None)
    first = ds[next(iter(ds))].isel(time=0).values
    assert 0 <= first.min() < first.max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_recognised(tmp_path, name):
    write, open_it = ALL[name]
    write(tmp_path)
    lines = [m.recognise(tmp_path) for m in (kth, street)]
    (line,) = [text for text in lines if text]
    assert line.startswith(f"{open_it.__name__}: ")
    assert "\n" not in line


def test_nothing_else_is_recognised(tmp_path):
    _put(tmp_path / "a.zip", b"no zip")
    assert [m.recognise(tmp_path) for m in (kth, street)] == [None, None]
    assert kth.recognise(tmp_path / "none") is None


@pytest.mark.parametrize("name", ["kth", "caltech"])
def test_the_library_works_on_it(tmp_path, name):
    write, open_it = ALL[name]
    write(tmp_path)
    ds = open_it(tmp_path)
    timestep = {"kth": "40ms", "caltech": "100ms"}[name]
    task = Task(tuple(ds.data_vars), 2, 2, timestep)
    forecast = predict(ds, Persistence(task), init_time=protocol_times(ds, task))
    scores = evaluate(forecast, ds, metrics=("mse_sum", "ssim", "psnr"), data_range=1.0)
    assert np.isfinite(scores["frames_overall"]).all()
    assert 0.2 < float(scores["frames_overall"].sel(metric="ssim")) < 1


# --- real clips -------------------------------------------------------------------------------


@pytest.mark.skipif(not CLIPS.exists(), reason=f"no clips at {CLIPS}")
@pytest.mark.parametrize(("name", "psnr"), [("kth", 30), ("kitti", 60), ("caltech", 30)])
def test_real_video_survives_the_genuine_formats(tmp_path, name, psnr):
    with av.open(str(CLIPS / "bikes.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][:12]
    clip = resize(np.stack(frames), (120, 160))
    if name == "kth":
        write_kth(tmp_path, persons=[17], actions=["walking"], lengths=(12,), clips=[clip])
        got = open_kth(tmp_path, "test", size=(120, 160))["intensity"].values
        expected = clip @ LUMA
    elif name == "kitti":
        write_kitti(tmp_path, drives={"0070": 12}, size=(120, 160), clips=[clip])
        got, expected = colours(open_kitti(tmp_path, "test")) / 255, street._cut(clip)
    else:
        write_caltech(tmp_path, sets={7: [12]}, size=(120, 160), clips=[clip])
        got, expected = colours(open_caltech(tmp_path, "test")) / 255, street._cut(clip)[2::3]
    assert expected.std() > 20  # there is something to see
    error = np.mean((got.astype(np.float64) - expected / 255) ** 2)
    assert -10 * np.log10(error + 1e-12) > psnr


# --- damage -----------------------------------------------------------------------------------


def _patch(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


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


# --- the pipelines ----------------------------------------------------------------------------


def write_streets(directory):
    write_kitti(directory, drives={"0001": 12, "0005": 11}, size=(48, 100))
    return write_caltech(directory, sets={6: [66]}, size=(60, 80))


@pytest.mark.parametrize(
    ("name", "write", "options", "reason", "sizes"),
    [
        pytest.param(
            "kth",
            partial(write_kth, lengths=(60,), actions=["boxing"], clips=[blobs(9, (60, 80))]),
            ["--size", 32, 32],
            "KTH human actions 32 x 32.*128 x 128.*kth_10_20",
            (2, 20, 32, 32),
            id="kth 10 -> 20",
        ),
        pytest.param(
            "kth",
            partial(
                write_kth_frames, lengths=(50,), actions=["boxing"], clips=[blobs(9, (60, 80))]
            ),
            ["--size", 32, 32, "--target-steps", 40],
            "KTH human actions 32 x 32.*128 x 128.*kth_10_40",
            (1, 40, 32, 32),
            id="kth 10 -> 40",
        ),
        pytest.param(
            "caltech",
            write_streets,
            [],
            "128 x 160, test 1 seq.*66 seq",
            (2, 1, 128, 160),
            id="caltech",
        ),
    ],
)
def test_the_whole_way(tmp_path, monkeypatch, capsys, name, write, options, reason, sizes):
    data, out = write(tmp_path / "data"), tmp_path / "out"
    options += ["--data", data, "--output", out, "--steps", 2, "--batch-size", 2, "--device", "cpu"]
    assert pipeline(name, *options, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    for text in ("this run", "persistence", "ssim_paper", "psnr_paper"):
        assert text in shown
    assert re.search(f"not comparable: .*{reason}", shown)
    assert "SimVP " not in shown
    names = {"forecast.zarr", "model", "run", "scores.nc", "scores.csv", "table.csv"}
    names |= {"clips.png", "scorecard.png", "report.html"}
    names |= {"mse_sum_by_lead.png"} if name == "kth" else set()  # the other has one lead only
    assert {p.name for p in out.iterdir()} == names
    forecast = xr.open_zarr(out / "forecast.zarr")
    dims = ("time", "prediction_timedelta", "y", "x")
    assert dict(forecast.sizes) == dict(zip(dims, sizes, strict=True))
    assert load(out / "model").task.target_steps == {"kth": 20, "caltech": 1}[name]


@pytest.mark.parametrize(
    ("name", "write", "millions", "rate"),
    [
        ("kth", partial(small_kth, lengths=(65,)), 15.632961, 1e-3),
        ("caltech", write_streets, 15.634243, 5e-3),
    ],
)
def test_the_papers_recipe(tmp_path, monkeypatch, capsys, name, write, millions, rate):
    """The network has the published size, and trains on the protocol's windows for 100 epochs."""
    calls = []

    def record(*arguments, **options):
        calls.append((arguments, options))
        return pd.DataFrame()

    monkeypatch.setattr("stforecast.cli.recipes.train_and_score", record)
    options = ["--data", write(tmp_path / "data"), "--preset", "paper"]
    assert pipeline(name, *options, monkeypatch=monkeypatch) == 0
    ((_, parts, task, network, config, _), given) = calls[0]
    assert sum(p.numel() for p in network().parameters()) == round(millions * 1e6)
    assert (config.epochs, config.steps, config.batch_size) == (100, None, 16)
    assert (config.learning_rate, config.schedule) == (rate, "onecycle")
    np.testing.assert_array_equal(given["train_times"], protocol_times(parts["train"], task))
    assert len(given["init_time"]) == 2


def test_a_pipeline_says_what_is_wrong_in_a_line(tmp_path, monkeypatch, capsys):
    small_kth(tmp_path / "kth", persons=[1, 15, 17])
    write_streets(tmp_path / "streets")
    for name, arguments, message in (
        ("kth", ["--data", tmp_path / "no"], "no such file or directory"),
        ("kth", ["--data", tmp_path / "kth"], "no clip has 30 frames"),
        ("caltech", ["--data", tmp_path / "kth"], "no drive of camera 3"),
    ):
        assert pipeline(name, *arguments, monkeypatch=monkeypatch) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
