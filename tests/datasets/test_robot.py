"""RoboNet and BridgeData: genuine files, their split, and damage."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import pipeline

from stforecast.datasets.robot import open_bridgedata, open_robonet, part_of, recognise
from stforecast.errors import InputError
from stforecast.forecasting.forecaster import load
from stforecast.testing.encode import encode_jpeg, encode_mp4, moving_blobs
from stforecast.testing.robot import write_bridgedata, write_robonet

av = pytest.importorskip("av", reason="needs the extra 'video'")

ROOT = Path(__file__).parents[2]
CLIPS = ROOT.parent / "shared" / "data" / "video_clips"
PARTS = ["validation", "validation", "train", "validation", "train", "train", "train", "train"]
#: Parts of berkeley_sawyer_traj0 to 7.
PARTS = ["validation", "validation", "train", "validation", "train", "train", "train", "train"]
SMALL = {"size": (30, 40), "chunks": None}
TASK_FOLDER = "toykitchen2/set_table/00"


def noise(frames=14, shape=(60, 80), seed=0):
    return moving_blobs(frames, shape, np.random.default_rng(seed))


def colours(ds):
    """(T, H, W, 3) in 0 to 255."""
    return 255 * np.stack([ds[name].values for name in ("red", "green", "blue")], axis=-1)


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["mp4", "jpg"])
def test_robonet_gives_the_frames_that_were_written(tmp_path, encoding):
    clips = [noise(seed=i) for i in range(3)]
    write_robonet(tmp_path, train=3, validation=0, test=0, encoding=encoding, clips=clips)
    ds = open_robonet(tmp_path, size=(60, 80), chunks=None)
    names = sorted(p.name for p in tmp_path.iterdir())
    order = [sorted(names, key=lambda n: int(n[20:-5])).index(n) for n in names]
    assert ds.sizes == {"time": 36, "y": 60, "x": 80}
    assert ds["red"].attrs["units"] == "1"
    assert ds["red"].dtype == np.float32
    for k in ("title", "source", "license", "references", "Conventions"):
        assert ds.attrs[k]
    np.testing.assert_array_equal(ds["clip"], np.repeat([0, 1, 2], 12))
    np.testing.assert_array_equal(ds["step"], np.tile(np.arange(12), 3))
    expected = np.concatenate([clips[i][:12] for i in order])
    assert np.abs(colours(ds) - expected).mean() < 2  # the codec's loss
    # Red and blue are different here, so that an exchange would show.
    assert np.abs(expected[..., 0].astype(float) - expected[..., 2]).mean() > 10


def test_frames_that_say_bgr_are_turned(tmp_path):
    clip = noise()
    write_robonet(tmp_path, train=1, validation=0, test=0, clips=[clip[..., ::-1]])
    (file,) = tmp_path.iterdir()
    with h5py.File(file, "a") as f:
        f["env/cam0_video/frames"].attrs["image_format"] = "BGR"
    ds = open_robonet(tmp_path, size=(60, 80), chunks=None)
    assert np.abs(colours(ds) - clip[:12]).mean() < 2


def test_bridgedata_gives_the_frames_that_were_written(tmp_path):
    clip = noise()
    write_bridgedata(tmp_path, train=2, validation=1, test=1, clips=[clip])
    ds = open_bridgedata(tmp_path, size=(60, 80), steps=None, chunks=None)
    got = colours(ds)
    assert ds.sizes["time"] % 14 == 0
    assert ds.sizes["time"] >= 28
    expected = np.tile(clip, (ds.sizes["time"] // 14, 1, 1, 1))
    assert np.abs(got - expected).mean() < 2  # im_10 comes after im_9, not after im_1
    assert ds["time"].values[1] - ds["time"].values[0] == np.timedelta64(200, "ms")


def test_halving_averages_four_pixels(tmp_path):
    """JPEG is lossy: what is read at half the size is held against what is read at full size."""
    clip = np.random.default_rng(0).integers(0, 256, (13, 60, 80, 3), dtype=np.uint8)
    write_bridgedata(tmp_path, train=1, validation=1, test=1, clips=[clip])
    whole, half = (
        colours(open_bridgedata(tmp_path, "test", size=size, chunks=None))
        for size in ((60, 80), (30, 40))
    )
    expected = whole.reshape(12, 30, 2, 40, 2, 3).mean(axis=(2, 4))
    assert np.abs(half - expected).max() <= 0.5 + 1e-3


def test_the_default_size_and_window_are_the_papers(tmp_path):
    ds = open_robonet(write_robonet(tmp_path, train=2, validation=0, test=0))
    assert dict(ds.sizes) == {"time": 24, "y": 120, "x": 160}
    assert ds["red"].chunks is not None


def test_the_second_camera_is_another_video(tmp_path):
    for form, write, open_ in (
        ("h", write_robonet, open_robonet),
        ("b", write_bridgedata, open_bridgedata),
    ):
        path = write(tmp_path / form, train=2, validation=0, test=0, cameras=2)
        first, second = (colours(open_(path, camera=c, **SMALL)) for c in (0, 1))
        assert np.abs(first - second).mean() > 5


def test_opening_reads_no_frame(tmp_path, monkeypatch):
    paths = {
        open_robonet: write_robonet(tmp_path / "a", train=2, validation=0, test=0),
        open_bridgedata: write_bridgedata(tmp_path / "b", train=2, validation=0, test=0),
    }
    monkeypatch.setattr("stforecast.datasets.robot.decode_video", pytest.fail)
    monkeypatch.setattr("stforecast.datasets.robot.decode_images", pytest.fail)
    for open_, path in paths.items():
        assert open_(path, **SMALL).sizes["time"] == 24


def test_real_video_comes_back(tmp_path):
    """Four real clips, 120 x 160, written in both formats."""
    if not CLIPS.exists():
        pytest.skip(f"no data at {CLIPS}")
    clips = []
    for path in sorted(CLIPS.glob("*.mp4")):
        with av.open(str(path)) as file:
            frames = [
                frame.reformat(160, 120).to_ndarray(format="rgb24")
                for frame, _ in zip(file.decode(video=0), range(13), strict=False)
            ]
        clips.append(np.stack(frames))
    assert len(clips) == 4
    for name, write, open_, loss in (
        ("robonet", write_robonet, open_robonet, 3.0),
        ("bridgedata", write_bridgedata, open_bridgedata, 3.0),
    ):
        path = write(tmp_path / name, train=4, validation=0, test=0, clips=clips)
        ds = open_(path, chunks=None)
        got = colours(ds).reshape(4, 12, 120, 160, 3)
        for clip in clips:  # files are in another order than clips
            assert min(np.abs(g - clip[:12]).mean() for g in got) < loss


# --- the split --------------------------------------------------------------------------------


def test_parts_are_fixed_for_ever():
    """The split is a promise: these never change."""
    names = [f"berkeley_sawyer_traj{i}.hdf5" for i in range(2000)]
    parts = [part_of(n) for n in names]
    assert parts[:8] == PARTS
    shares = [parts.count(p) / 2000 for p in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, [0.85, 0.05, 0.10], atol=0.015)


@pytest.mark.parametrize("form", ["robonet", "bridgedata"])
def test_the_parts_share_no_trajectory(tmp_path, form):
    if form == "robonet":
        path, open_ = write_robonet(tmp_path, train=3, validation=2, test=1), open_robonet
    else:
        path = write_bridgedata(tmp_path, train=3, validation=2, test=1)
        open_ = open_bridgedata
    parts = {p: colours(open_(path, p, **SMALL)) for p in ("train", "validation", "test", None)}
    assert len(parts["validation"]) == 24
    assert len(parts["test"]) == 12
    assert sum(len(v) for k, v in parts.items() if k) == len(parts[None])
    firsts = [v[::12] for k, v in parts.items() if k]
    every = np.concatenate(firsts).reshape(-1, 30 * 40 * 3)
    assert len(np.unique(every, axis=0)) == len(every)


def test_a_list_of_test_files_takes_the_place_of_the_hash(tmp_path):
    write_robonet(tmp_path, train=4, validation=1, test=2)
    names = sorted(p.name for p in tmp_path.iterdir())
    mine = [n for n in names if part_of(n) == "train"][:2]
    sizes = {
        part: open_robonet(tmp_path, part, test_files=[f"hdf5/{n}" for n in mine], **SMALL)
        for part in ("train", "validation", "test")
    }
    assert {k: v.sizes["time"] // 12 for k, v in sizes.items()} == {
        "train": 4,  # 4 - 2 + the 2 that the hash would have tested on
        "validation": 1,
        "test": 2,
    }


# --- damage -----------------------------------------------------------------------------------


def first(path, pattern="*.hdf5"):
    return sorted(path.rglob(pattern))[0]


def edit(action):
    """Damage the first trajectory file from within."""

    def damage(path):
        with h5py.File(first(path), "a") as file:
            action(file)

    return damage


def cut(path):
    file = first(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def replace_video(data):
    def action(file):
        attrs = dict(file["env/cam0_video/frames"].attrs)
        del file["env/cam0_video/frames"]
        made = file["env/cam0_video"].create_dataset("frames", data=np.frombuffer(data, np.uint8))
        made.attrs.update(attrs)

    return edit(action)


def remove(name):
    return edit(lambda file: file.__delitem__(name))


def pickled(path):
    (path / "train").mkdir()
    np.save(path / "train" / "out.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def clear(path):
    shutil.rmtree(path)
    path.mkdir()


def half_video(path):
    with h5py.File(first(path)) as file:
        data = file["env/cam0_video/frames"][()].tobytes()
    replace_video(data[: len(data) // 2])(path)


def test_a_pickle_beside_raw_frames_is_left_unread_and_named(tmp_path, caplog):
    write_bridgedata(tmp_path)
    pickled(tmp_path)
    open_bridgedata(tmp_path, None, steps=None)
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any("out.npy" in text and "left unread" in text for text in warned)


ROBONET_DAMAGE = {
    "truncated file -> named": (cut, "truncated, damaged or no HDF5"),
    "text in place of HDF5 -> named": (
        lambda p: first(p).write_text("<html>404</html>" * 99),
        "truncated, damaged or no HDF5",
    ),
    "empty file -> named": (lambda p: first(p).write_bytes(b""), "truncated, damaged or no HDF5"),
    "no env group -> not RoboNet": (remove("env"), "no trajectory of RoboNet"),
    "no camera at all -> not RoboNet": (remove("env/cam0_video"), "no trajectory of RoboNet"),
    "two cameras announced, camera 0 lost -> named": (
        edit(
            lambda f: (
                f["env"].move("cam0_video", "cam1_video"),
                f["env"].attrs.modify("n_cams", 2),
            )
        ),
        "env/cam0_video is missing; the file says it has 2",
    ),
    "frames without T -> named": (
        edit(lambda f: f["env/cam0_video/frames"].attrs.__delitem__("T")),
        "frames lacks its attribute T",
    ),
    "camera group empty -> named": (remove("env/cam0_video/frames"), "holds no frame"),
    "fewer frames than T says -> both numbers": (
        replace_video(encode_mp4(noise(5))),
        "has 5 frames, expected 14",
    ),
    "noise for video -> named": (
        replace_video(np.random.default_rng(0).bytes(5000)),
        r"traj\d+\.hdf5: camera 0",
    ),
    "video cut in the middle -> named": (half_video, r"traj\d+\.hdf5: camera 0"),
    "no file -> said": (clear, "no trajectory"),
    "all too short -> said": (
        lambda p: (clear(p), write_robonet(p, train=2, validation=0, test=0, frames=8)),
        "2 have fewer than 12 frames",
    ),
}


@pytest.mark.parametrize("case", ROBONET_DAMAGE)
def test_damaged_robonet(tmp_path, case):
    damage, message = ROBONET_DAMAGE[case]
    path = write_robonet(tmp_path / "hdf5", train=2, validation=0, test=0)
    damage(path)
    with pytest.raises(InputError, match=message):
        open_robonet(path, **SMALL).load()


ROBONET_JPEG_DAMAGE = {
    "frame7 missing in the middle -> named": (
        remove("env/cam0_video/frame7"),
        "'?frame7'? missing",
    ),
    "frame3 is no JPEG -> named": (
        edit(
            lambda f: f["env/cam0_video/frame3"].write_direct(
                np.zeros(f["env/cam0_video/frame3"].shape, np.uint8)
            )
        ),
        "frame3",
    ),
}


@pytest.mark.parametrize("case", ROBONET_JPEG_DAMAGE)
def test_damaged_robonet_of_jpegs(tmp_path, case):
    damage, message = ROBONET_JPEG_DAMAGE[case]
    path = write_robonet(tmp_path / "hdf5", train=2, validation=0, test=0, encoding="jpg")
    damage(path)
    with pytest.raises(InputError, match=message):
        open_robonet(path, **SMALL).load()


def image(path, number):
    return first(path, f"im_{number}.jpg")


BRIDGE_DAMAGE = {
    "im_7.jpg missing in the middle -> named": (
        lambda p: image(p, 7).unlink(),
        r"images0: im_7\.jpg missing",
    ),
    "im_0.jpg missing -> named": (lambda p: image(p, 0).unlink(), r"im_0\.jpg missing"),
    "images of another camera's number only -> said": (
        lambda p: [d.rename(d.with_name("images3")) for d in p.rglob("images0")],
        "2 have no camera 0",
    ),
    "a trajectory without images -> said": (
        lambda p: [f.unlink() for f in first(p, "images0").iterdir()],
        "holds no frame",
    ),
    "one image of another size -> both sizes": (
        lambda p: image(p, 4).write_bytes(encode_jpeg(noise(1, (40, 50))[0])),
        r"im_4\.jpg: 40 x 50 pixels, those before it have 60 x 80",
    ),
    "an image cut in the header -> named": (
        lambda p: image(p, 3).write_bytes(image(p, 3).read_bytes()[:40]),
        r"im_3\.jpg",
    ),
    "an image of no bytes -> named": (lambda p: image(p, 3).write_bytes(b""), r"im_3\.jpg"),
    "text in place of an image -> named": (
        lambda p: image(p, 2).write_text("not an image " * 50),
        r"im_2\.jpg",
    ),
    "empty tree -> said": (clear, "no trajectory"),
    "pickles in place of images -> never opened, and how to convert": (
        lambda p: pickled(clear(p) or p),
        r"out\.npy is a pickle, .* never opened here: give the raw .* Image\.fromarray",
    ),
}


@pytest.mark.parametrize("case", BRIDGE_DAMAGE)
def test_damaged_bridgedata(tmp_path, case):
    damage, message = BRIDGE_DAMAGE[case]
    path = write_bridgedata(tmp_path / "raw", train=2, validation=0, test=0)
    damage(path)
    with pytest.raises(InputError, match=message):
        open_bridgedata(path, **SMALL).load()


def archive(path):
    path.write_bytes(b"PK" * 50)
    return path


ASKED_WRONGLY = {
    "a path that is not there": (lambda p: open_robonet(p / "no"), "no such file"),
    "a path that is not there, bridge": (lambda p: open_bridgedata(p / "no"), "no such file"),
    "an archive": (lambda p: open_robonet(archive(p / "a.tar.gz")), "Unpack an archive first"),
    "an archive, bridge": (lambda p: open_bridgedata(archive(p / "a.zip")), "Unpack an archive"),
    "a camera that no robot has": (lambda p: open_robonet(p, camera=9), "2 have no camera 9"),
    "a split that is none": (lambda p: open_robonet(p, "val"), "split must be 'train'"),
    "a part with nothing in it": (lambda p: open_robonet(p, "test"), "none of its 2 .* 'test'"),
    "no steps": (lambda p: open_robonet(p, steps=0), "steps must be at least 1"),
    "test files that are not here": (
        lambda p: open_robonet(p, "test", test_files=["a.hdf5"]),
        "1 of 1 test files are not here: .*a.hdf5",
    ),
}


@pytest.mark.parametrize("case", ASKED_WRONGLY)
def test_wrong_questions(tmp_path, case):
    ask, message = ASKED_WRONGLY[case]
    with pytest.raises(InputError, match=message):
        ask(write_robonet(tmp_path, train=2, validation=0, test=0))


# --- what it is -------------------------------------------------------------------------------


def test_recognise(tmp_path):
    robonet = write_robonet(tmp_path / "a", train=1, validation=0, test=0)
    raw = write_bridgedata(tmp_path / "b", train=1, validation=0, test=0)
    assert recognise(robonet).startswith("open_robonet: ")
    assert recognise(first(robonet)).startswith("open_robonet: ")
    assert recognise(raw).startswith("open_bridgedata: ")
    other = tmp_path / "d"
    other.mkdir()
    assert recognise(other) is None
    (other / "x.hdf5").write_text("no")
    assert recognise(other) is None
    with h5py.File(other / "y.hdf5", "w") as file:
        file["data"] = 1
    assert recognise(other) is None
    assert recognise(tmp_path / "nothing") is None


# --- the pipelines ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "write"),
    [("robonet", write_robonet), ("bridgedata", write_bridgedata)],
    ids=["robonet", "bridgedata"],
)
def test_the_whole_way(tmp_path, monkeypatch, capsys, name, write):
    data = write(tmp_path / "data", train=3, validation=1, test=2, shape=(32, 40))
    out = tmp_path / "out"
    options = ["--data", data, "--output", out, "--steps", 2, "--batch-size", 2]
    options += ["--size", 32, 40, "--device", "cpu"]
    assert pipeline(name, *options, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert re.search("not comparable: .*32 x 40, test trajectories by a hash.*120 x 160", shown)
    assert "this run" in shown
    assert "persistence" in shown
    names = {"forecast.zarr", "model", "run", "scores.nc", "scores.csv", "table.csv"}
    names |= {"clips.png", "mse_sum_by_lead.png", "scorecard.png", "report.html"}
    assert {p.name for p in out.iterdir()} == names
    forecast = xr.open_zarr(out / "forecast.zarr")
    assert dict(forecast.sizes) == {"time": 2, "prediction_timedelta": 10, "y": 32, "x": 40}
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["model"]) == {"this run", "persistence"}
    frames = scores[(scores["variable"] == "frames") & (scores["lead_hours"] == "overall")]
    assert frames["value"].notna().all()
    assert load(out / "model").training["command"].startswith(f"python pipelines/{name}.py --data")


def test_a_pipeline_says_what_is_wrong_in_a_line(tmp_path, monkeypatch, capsys):
    data = write_robonet(tmp_path, train=2, validation=0, test=0)
    for arguments, message in (
        (["--data", tmp_path / "no"], "no such file or directory"),
        (["--data", data, "--size", 32, 40], "falls into 'validation'"),
        (["--data", data, "--test-files", tmp_path / "no.txt"], "no.txt"),
    ):
        assert pipeline("robonet", *arguments, monkeypatch=monkeypatch) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
