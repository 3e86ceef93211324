"""RoboNet and BridgeData: genuine files, their split, hostile pickles, and damage."""

from __future__ import annotations

import os
import pickle
import pickletools
import shutil
import struct
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.datasets._pickled import Array, _Refused, _Scanner, scan_npy
from stforecast.datasets.robot import open_bridgedata, open_robonet, part_of, recognise
from stforecast.errors import InputError
from stforecast.forecasting.forecaster import load
from stforecast.testing._encode import encode_jpeg, encode_mp4, moving_blobs
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


@pytest.mark.parametrize("form", ["raw", "numpy"])
def test_bridgedata_gives_the_frames_that_were_written(tmp_path, form):
    clip = noise()
    write_bridgedata(tmp_path, form=form, train=2, validation=1, test=1, clips=[clip])
    ds = open_bridgedata(tmp_path, size=(60, 80), steps=None, chunks=None)
    got = colours(ds)
    assert ds.sizes["time"] % 14 == 0
    assert ds.sizes["time"] >= 28
    expected = np.tile(clip, (ds.sizes["time"] // 14, 1, 1, 1))
    # The last frame is a next observation only; im_10 comes after im_9, not after im_1.
    if form == "numpy":
        np.testing.assert_allclose(got, expected, atol=1e-4)
    else:
        assert np.abs(got - expected).mean() < 2
    assert ds["time"].values[1] - ds["time"].values[0] == np.timedelta64(200, "ms")


def test_halving_averages_four_pixels(tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (13, 60, 80, 3), dtype=np.uint8)
    write_bridgedata(tmp_path, form="numpy", train=1, validation=1, test=1, clips=[clip])
    ds = open_bridgedata(tmp_path, "test", size=(30, 40), chunks=None)
    expected = clip[:12].reshape(12, 30, 2, 40, 2, 3).mean(axis=(2, 4))
    assert np.abs(colours(ds) - expected).max() <= 0.5 + 1e-4


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
    numpy = write_bridgedata(tmp_path / "c", form="numpy", train=2, validation=1, test=1)
    monkeypatch.setattr(Array, "read", pytest.fail)
    assert open_bridgedata(numpy, **SMALL).sizes["time"] >= 24


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


@pytest.mark.parametrize("form", ["robonet", "raw", "numpy"])
def test_the_parts_share_no_trajectory(tmp_path, form):
    if form == "robonet":
        path, open_ = write_robonet(tmp_path, train=3, validation=2, test=1), open_robonet
    else:
        path = write_bridgedata(tmp_path, form=form, train=3, validation=2, test=1)
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


# --- pickles that are not unpickled -----------------------------------------------------------


def npy(path, payload, shape=(1,)):
    """A .npy file with an object header and this pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(payload)
    return path


def objects(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


def plain(value, file):
    """What numpy would have given."""
    if isinstance(value, Array):
        return value.read(file) if value.items is None else [plain(v, file) for v in value.items]
    if isinstance(value, dict):
        return {k: plain(v, file) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(v, file) for v in value)
    return value


arrays = st.tuples(
    st.sampled_from(["u1", "<i4", ">i2", "f4", ">f8", "?"]),
    st.lists(st.integers(0, 4), max_size=3),
    st.booleans(),
).map(
    lambda a: (np.asfortranarray if a[2] else np.ascontiguousarray)(
        np.arange(np.prod(a[1], dtype=int)).reshape(a[1]).astype(a[0])
    )
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
) | st.text(max_size=300)
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(a, b):
    if isinstance(b, np.ndarray):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
    elif isinstance(b, dict):
        assert list(a) == list(b)
        for k in b:
            same(a[k], b[k])
    elif isinstance(b, (list, tuple)):
        assert type(a) is type(b)
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b
        assert type(a) is type(b)


@settings(max_examples=150, deadline=None)
@given(st.lists(values, min_size=1, max_size=4), st.sampled_from([3, 4]))
def test_plain_data_come_as_numpy_would_give_them(tmp_path_factory, items, protocol):
    array = objects(*items)
    path = tmp_path_factory.mktemp("p") / "out.npy"
    npy(path, pickle.dumps(array, protocol=protocol), array.shape)
    with path.open("rb") as file:
        same(plain(scan_npy(path), file), items)


class Shout:
    """Unpickling this makes a directory."""

    def __init__(self, how, *arguments):
        self.how, self.arguments = how, arguments

    def __reduce__(self):
        return self.how, self.arguments


def hostile(mark):
    """Pickles that would run something, or bring a reader down."""

    def dumps(item, protocol=4):
        return pickle.dumps(objects({"a": item}), protocol)

    whole = pickle.dumps(objects({"a": np.arange(6, dtype=np.uint8)}), 4)
    inner = pickle.dumps(objects({"a": objects(1, 2)}), 4)
    proto = b"\x80\x04"
    return {
        "os.mkdir by REDUCE": dumps(Shout(os.mkdir, str(mark))),
        "os.mkdir by REDUCE, protocol 3": dumps(Shout(os.mkdir, str(mark)), 3),
        "eval": dumps(Shout(eval, f"__import__('os').mkdir({str(mark)!r})")),
        "getattr of a dotted name": proto + b"\x8c\x05numpy\x8c\x07os.path\x93.",
        "numpy.load": dumps(Shout(np.load, "x.npy")),
        "GLOBAL os system": b"cos\nsystem\n(S'mkdir x'\ntR.",
        "INST": proto + b"(\x8c\x01xios\nmkdir\n.",
        "OBJ": proto + b"(cnumpy\nndarray\nK\x05o.",
        "NEWOBJ": proto + b"cnumpy\nndarray\n)\x81.",
        "EXT1": proto + b"\x82\x01.",
        "PERSID": b"Pevil\n.",
        "BINPERSID": proto + b"K\x01Q.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "a call of ndarray itself": proto + b"cnumpy\nndarray\nK\x05\x85R.",
        "a call of a text": proto + b"\x8c\x01x)R.",
        "state for a dict": proto + b"}}b.",
        "state for a name": proto + b"cnumpy\nndarray\n}b.",
        "an array longer than its contents": whole.replace(b"K\x06\x85", b"K\x7f\x85"),
        "a shape below zero": whole.replace(b"K\x06\x85", b"J\xff\xff\xff\xff\x85"),
        "an object array of bytes": whole.replace(b"\x8c\x02u1", b"\x8c\x02O8"),
        "a list shorter than its array": inner.replace(b"K\x02\x85", b"K\x03\x85"),
        "TUPLE3 of two": proto + b"NN\x87.",
        "memo that was never set": proto + b"h\x07.",
        "APPEND to nothing": proto + b"K\x01a.",
        "stack left over": proto + b"NN.",
        "no stack": proto + b".",
        "SETITEMS of an odd number": proto + b"}(K\x01u.",
        "a text of 2 EB": proto + b"\x8d" + struct.pack("<Q", 2**61) + b"x.",
        "a deep tuple as a key": proto + b"})" + b"\x85" * 200_000 + b"Ns.",
        "POP of a mark": proto + b"(0.",
    }


IMPORTS = {"os.mkdir by REDUCE", "os.mkdir by REDUCE, protocol 3", "eval", "numpy.load"}
IMPORTS |= {"getattr of a dotted name", "GLOBAL os system"}


@pytest.mark.parametrize("case", hostile("x"))
def test_a_hostile_pickle_is_refused(tmp_path, case):
    mark = tmp_path / "unpickled"
    path = npy(tmp_path / "train" / "out.npy", hostile(mark)[case])
    with pytest.raises(InputError, match=r"out\.npy: .* not unpickled") as error:
        open_bridgedata(tmp_path, split=None)
    assert str(path) in str(error.value)
    assert ("wants to load" in str(error.value)) == (case in IMPORTS)
    assert not mark.exists()


def test_a_header_that_lies_about_the_shape_is_refused(tmp_path):
    path = npy(tmp_path / "out.npy", pickle.dumps(objects(1, 2), 4), shape=(3,))
    with pytest.raises(InputError, match="that its header announces"):
        scan_npy(path)


def test_the_hostile_pickles_are_hostile(tmp_path):
    """Without our scanner, this test's first weapon does fire."""
    mark = tmp_path / "unpickled"
    path = npy(tmp_path / "out.npy", hostile(mark)["os.mkdir by REDUCE"])
    np.load(path, allow_pickle=True)
    assert mark.exists()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_bytes_changed_at_random_never_do_harm(tmp_path_factory, data):
    """Whatever happens to the bytes: plain data, or the one error."""
    whole = bytearray(pickle.dumps(objects({"a": [np.arange(9), 1.5, "x"], "b": (1,)}), 4))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = npy(tmp_path_factory.mktemp("p") / "out.npy", bytes(whole))
    try:
        value = scan_npy(path)
    except InputError:
        return
    assert isinstance(value, Array)


def test_every_truncation_is_said_to_be_one(tmp_path):
    whole = pickle.dumps(objects({"a": np.arange(300, dtype=np.uint8), "b": "text"}), 4)
    for end in range(0, len(whole), 3):
        path = npy(tmp_path / "out.npy", whole[:end])
        with pytest.raises(InputError, match="truncated"):
            scan_npy(path)


REFUSED = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
REFUSED |= {"NEXT_BUFFER", "READONLY_BUFFER", "BYTEARRAY8", "DUP", "STRING", "UNICODE"}
CODES = {op.name: ord(op.code) for op in pickletools.opcodes}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_other_opcodes_are_not_known(name):
    with pytest.raises(_Refused, match=f"opcode {CODES[name]:#04x}"):
        _Scanner(b"\0" * 64, 0)._step(CODES[name])


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


def clear(path):
    shutil.rmtree(path)
    path.mkdir()


def half_video(path):
    with h5py.File(first(path)) as file:
        data = file["env/cam0_video/frames"][()].tobytes()
    replace_video(data[: len(data) // 2])(path)


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
    "raw and numpy in one tree -> said": (
        lambda p: npy(p / "train" / "out.npy", b""),
        "give the directory of one of them",
    ),
}


@pytest.mark.parametrize("case", BRIDGE_DAMAGE)
def test_damaged_bridgedata(tmp_path, case):
    damage, message = BRIDGE_DAMAGE[case]
    path = write_bridgedata(tmp_path / "raw", train=2, validation=0, test=0)
    damage(path)
    with pytest.raises(InputError, match=message):
        open_bridgedata(path, **SMALL).load()


def entries(change):
    """Write out.npy again with its first entry changed."""

    def damage(path):
        file = first(path, "out.npy")
        items = np.load(file, allow_pickle=True)
        items[0] = change(items[0])
        np.save(file, items, allow_pickle=True)

    return damage


def another_size(entry):
    entry["observations"][2]["images0"] = np.zeros((3, 4, 3), np.uint8)
    return entry


def of_floats(entry):
    for step in (*entry["observations"], *entry["next_observations"]):
        step["images0"] = step["images0"].astype(float)
    return entry


NUMPY_DAMAGE = {
    "out.npy cut -> truncated": (
        lambda p: (f := first(p, "out.npy")).write_bytes(f.read_bytes()[:-2000]),
        "it is truncated",
    ),
    "out.npy of numbers, not objects -> said": (
        lambda p: np.save(first(p, "out.npy"), np.zeros((3, 4))),
        "holds an array of float64, expected objects",
    ),
    "out.npy of no numpy file -> said": (
        lambda p: first(p, "out.npy").write_text("hello" * 50),
        "no array of numpy's .npy format",
    ),
    "empty out.npy -> said": (
        lambda p: first(p, "out.npy").write_bytes(b""),
        "no array of numpy's",
    ),
    "a trajectory that is a list -> named": (entries(lambda e: [e]), "trajectory 0 is no dict"),
    "a trajectory without observations -> named": (
        entries(lambda e: {"actions": []}),
        "trajectory 0 is no dict",
    ),
    "an image missing in one step -> named": (
        entries(lambda e: e | {"observations": [*e["observations"][:4], {}]}),
        "trajectory 0 is no dict",
    ),
    "one image of another size -> named": (
        entries(another_size),
        "trajectory 0: .* differ in size",
    ),
    "images of floats -> said": (entries(of_floats), "float64 .* expected uint8"),
    "a directory of another name -> said": (
        lambda p: first(p, "train").rename(first(p, "train").with_name("training")),
        "expected in a directory train or val",
    ),
}


@pytest.mark.parametrize("case", NUMPY_DAMAGE)
def test_damaged_bridgedata_in_numpy_form(tmp_path, case):
    damage, message = NUMPY_DAMAGE[case]
    path = write_bridgedata(tmp_path / "npy", form="numpy", train=2, validation=1, test=1)
    damage(path)
    with pytest.raises(InputError, match=message):
        open_bridgedata(path, split=None, **SMALL).load()


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
    numpy = write_bridgedata(tmp_path / "c", form="numpy", train=1, validation=1, test=1)
    assert recognise(robonet).startswith("open_robonet: ")
    assert recognise(first(robonet)).startswith("open_robonet: ")
    assert recognise(raw).startswith("open_bridgedata: ")
    assert recognise(numpy).startswith("open_bridgedata: ")
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
    ("name", "write", "published"),
    [
        ("robonet", write_robonet, "22.78"),
        ("bridgedata", write_bridgedata, "22.62"),
        ("bridgedata", partial(write_bridgedata, form="numpy"), "0.865"),
    ],
    ids=["robonet", "bridgedata raw", "bridgedata numpy"],
)
def test_the_whole_way(tmp_path, monkeypatch, capsys, name, write, published):
    data = write(tmp_path / "data", train=3, validation=1, test=2, shape=(32, 40))
    out = tmp_path / "out"
    options = ["--data", data, "--output", out, "--steps", 2, "--batch-size", 2]
    options += ["--size", 32, 40, "--device", "cpu"]
    assert pipeline(name, *options, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert published in shown
    assert "this run" in shown
    assert "persistence" in shown
    names = {"forecast.zarr", "model", "run", "scores.nc", "scores.csv"}
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
