"""Clips on one time axis, the pictures they are made of, and the paper's axes."""

from __future__ import annotations

import io
import pickle
import shutil
import threading
import time
from functools import partial

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.baselines.persistence import Persistence
from stforecast.conventions.gate import canonicalize, check, restore
from stforecast.datasets import (
    clips,
    open_bridgedata,
    open_caltech,
    open_kth,
    open_prepared,
    open_robonet,
    open_taxibj,
    prepare,
)
from stforecast.datasets import lazy as _lazy
from stforecast.datasets.clips import Clip, as_samples, clip_dataset, clip_times, protocol_times
from stforecast.datasets.video import centre_crop, decode_image, decode_images, decode_video, resize
from stforecast.errors import InputError
from stforecast.forecasting.predict import predict
from stforecast.task import Task, window_starts
from stforecast.testing import (
    write_bridgedata,
    write_caltech,
    write_kth,
    write_robonet,
    write_taxibj_npz,
)

SHAPE = (3, 5)
RGB = ["red", "green", "blue"]


def frames_of(number, start, stop, channels=3):
    """Frames with a value of their own in every pixel of every channel."""
    index = np.indices((stop - start, *SHAPE, channels))
    index[0] += start
    return (index[0] * 31 + index[1] * 7 + index[2] * 3 + index[3] * 83 + number * 11).astype("u1")


def made_of(lengths, calls=None, delay=0, **options):
    def read(number, start, stop):
        if calls is not None:
            calls.append((number, start, stop))
        time.sleep(delay)
        return frames_of(number, start, stop)

    made = [Clip(f"clip{i}", n, partial(read, i)) for i, n in enumerate(lengths)]
    options = {"timestep": "40ms", "attrs": {"title": "made"}} | options
    return clip_dataset(made, RGB, SHAPE, **options)


def truth_of(lengths):
    return np.concatenate([frames_of(i, 0, n) for i, n in enumerate(lengths)])


# --- the fingerprint --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "open_", "split", "others"),
    [
        (
            partial(write_kth, lengths=(30,), actions=["boxing", "running"]),
            open_kth,
            "test",
            [{"split": "train"}, {"split": None}, {"size": (64, 64)}, {"actions": ["running"]}],
        ),
        (
            partial(write_caltech, sets={0: [9], 6: [12]}),
            open_caltech,
            "test",
            [{"split": "train"}, {"split": None}, {"every": 2}],
        ),
        (
            partial(write_robonet, cameras=2),
            open_robonet,
            "train",
            [{"split": None}, {"camera": 1}, {"steps": 8}, {"size": (60, 80)}],
        ),
        (write_bridgedata, open_bridgedata, "train", [{"split": "test"}, {"steps": 8}]),
        (
            write_taxibj_npz,
            open_taxibj,
            "test",
            [{"split": "train"}, {"split": "validation"}, {"split": None}],
        ),
    ],
)
def test_clips_of_one_time_axis_are_told_apart(tmp_path, write, open_, split, others):
    here = write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere/a", copy_function=shutil.copyfile)
    copy = tmp_path / "elsewhere" / here.relative_to(tmp_path)
    mark = open_(here, split=split).attrs["fingerprint"]
    assert f"split={split}" in mark
    assert open_(copy, split=split).attrs["fingerprint"] == mark
    marks = {open_(here, **{"split": split} | other).attrs["fingerprint"] for other in others}
    assert len(marks - {mark}) == len(others)


def test_a_prepared_store_keeps_the_fingerprint(tmp_path):
    ds = made_of([4, 5])
    store = open_prepared(prepare(ds, tmp_path / "clips.zarr"))
    assert store.attrs["fingerprint"] == ds.attrs["fingerprint"]
    assert made_of([4, 6]).attrs["fingerprint"] != ds.attrs["fingerprint"]


# --- the time axis ----------------------------------------------------------------------------


def test_times_leave_one_step_out_between_clips():
    times, clip, step = clip_times([3, 1, 2], "40ms")
    assert times.dtype == "datetime64[ns]"
    assert ((times - times[0]) / np.timedelta64(40, "ms")).tolist() == [0, 1, 2, 4, 6, 7]
    assert clip.tolist() == [0, 0, 0, 1, 2, 2]
    assert step.tolist() == [0, 1, 2, 0, 0, 1]


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_windows_never_cross_clips_and_none_is_lost(lengths, window):
    times, clip, _ = clip_times(lengths, "40ms")
    starts = window_starts(times, np.timedelta64(40, "ms"), window)
    assert all(clip[s] == clip[s + window - 1] for s in starts)
    assert len(starts) == sum(max(0, n - window + 1) for n in lengths)


def test_protocol_windows_lie_from_the_end_without_a_frame_in_common():
    task = Task("red", 2, 3, "40ms")
    ds = made_of([12, 4, 5])
    ends = [(c, s + 3) for c, s in _places(ds, protocol_times(ds, task))]
    assert ends == [(0, 6), (0, 11), (2, 4)]
    strided = ds.assign_coords(stride=("time", np.where(ds["clip"] == 0, 3, 0)))
    ends = [(c, s + 3) for c, s in _places(strided, protocol_times(strided, task))]
    assert ends == [(0, 5), (0, 8), (0, 11), (2, 4)]
    rolled = _places(ds, protocol_times(ds, task, steps=9))
    assert [(c, s + 9) for c, s in rolled] == [(0, 11)]
    with pytest.raises(InputError, match="no clip has 13 frames"):
        protocol_times(ds, task, steps=11)


def _places(ds, times):
    at = ds.sel(time=times)
    return list(zip(at["clip"].values.tolist(), at["step"].values.tolist(), strict=True))


# --- lazy arrays ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", ["auto", None, {"time": 2}])
def test_opening_reads_nothing_and_reading_decodes_once(chunks):
    calls = []
    ds = made_of([4, 3], calls, chunks=chunks)
    made = canonicalize(ds)[0].isel(time=slice(1, 6))
    assert calls == []
    assert made.sizes["time"] == 5
    loaded = ds.compute()
    for channel, name in enumerate(RGB):
        expected = truth_of([4, 3])[..., channel].astype(np.float64) * (1 / 255)
        np.testing.assert_array_equal(loaded[name].values, expected.astype(np.float32))
    decoded = sorted((n, i) for n, a, b in calls for i in range(a, b))
    assert decoded == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]


def test_it_is_canonical_already():
    ds = made_of([4, 3])
    canonical, labels = canonicalize(ds)
    check(canonical, timestep=np.timedelta64(40, "ms"))
    xr.testing.assert_identical(restore(canonical, labels).load(), ds.load())
    for name in RGB:
        assert ds[name].attrs["units"] == "1"
        assert ds[name].encoding == {"dtype": "uint8", "scale_factor": 1 / 255}
    assert ds.attrs["Conventions"] == "CF-1.11"
    assert ds.attrs["clip_names"] == ["clip0", "clip1"]
    assert "clip_names" not in made_of([1] * 65).attrs


INDEX = st.one_of(
    st.integers(-12, 11),
    st.slices(12).filter(lambda s: len(range(12)[s])),  # empty and backwards: xarray fails itself
    st.lists(st.integers(0, 11), max_size=6).map(lambda i: np.asarray(i, dtype=int)),
)


@settings(deadline=None)
@given(INDEX, st.integers(0, 2), st.sampled_from([slice(None), 1, [4, 0], slice(4, None, -2)]))
def test_any_index_gives_what_numpy_gives(index, channel, columns):
    lengths = [5, 1, 6]
    got = made_of(lengths)[RGB[channel]].isel(time=index, x=columns)
    expected = truth_of(lengths)[..., channel][index][..., columns]
    np.testing.assert_array_equal(np.rint(got.values * 255), expected)


def test_threads_decode_a_clip_once_and_agree():
    calls, results = [], []
    ds = made_of([9, 9], calls, delay=0.02)  # as decoding takes, so that they meet
    gate = threading.Barrier(6)

    def work(name):
        gate.wait()  # all at once
        results.append((name, ds[name].values))

    workers = [threading.Thread(target=work, args=(RGB[i % 3],)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(calls) == [(0, 0, 9), (1, 0, 9)]
    for name, values in results:
        channel = RGB.index(name)
        np.testing.assert_array_equal(np.rint(values * 255), truth_of([9, 9])[..., channel])


def test_memory_of_decoded_frames_is_bounded(monkeypatch):
    frame = 3 * SHAPE[0] * SHAPE[1]
    monkeypatch.setattr(clips, "CACHE_BYTES", 8 * frame)
    calls = []
    ds = made_of([30], calls)
    source = ds["red"].variable._data.array.source
    np.testing.assert_array_equal(np.rint(ds["blue"].values * 255), truth_of([30])[..., 2])
    assert max(b - a for _, a, b in calls) <= 2
    assert source.held == sum(f.nbytes for f in source.cache.values()) <= 8 * frame
    assert all(f.base is None for f in source.cache.values())  # no view keeps a larger block
    calls.clear()
    assert ds["red"].isel(time=29).values.shape == SHAPE
    assert calls == []  # still there
    assert ds["red"].isel(time=0).values.shape == SHAPE
    assert calls == [(0, 0, 1)]


def test_far_frames_are_read_without_those_between():
    calls = []
    ds = made_of([100], calls)
    ds["red"].isel(time=[2, 3, 90]).load()
    assert calls == [(0, 2, 4), (0, 90, 91)]


def test_it_can_be_sent_to_another_process():
    made = [Clip("c", 4, partial(frames_of, 1))]
    ds = clip_dataset(made, RGB, SHAPE, timestep="1s", attrs={})
    ds["red"].load()
    again = pickle.loads(pickle.dumps(ds["green"]))
    np.testing.assert_array_equal(np.rint(again.values * 255), frames_of(1, 0, 4)[..., 1])


def test_float_frames_are_taken_as_they_are():
    made = [Clip("c", 2, lambda a, b: np.full((b - a, *SHAPE, 1), 0.3, np.float32))]
    ds = clip_dataset(made, ["intensity"], SHAPE, timestep="1s", attrs={})
    np.testing.assert_array_equal(ds["intensity"].values, np.float32(0.3))


def test_chunks_end_where_clips_end(monkeypatch):
    monkeypatch.setattr(_lazy, "_CHUNK_BYTES", 4 * SHAPE[0] * SHAPE[1] * 10)
    ds = made_of([4, 5, 3, 25, 2], chunks="auto")
    assert ds.chunks["time"] == (9, 3, 8, 8, 9, 2)
    assert ds.chunks["y"] == (3,)
    assert ds["clip"].chunks is None
    first, second = (made_of([4], chunks="auto")["red"].data.name for _ in range(2))
    assert first == second  # the same data have the same keys


@pytest.mark.parametrize(
    ("chunks", "message"),
    [({"lat": 3}, "no dimension 'lat'"), ("big", "chunks must be 'auto'")],
)
def test_chunks_that_mean_nothing_are_refused(chunks, message):
    with pytest.raises(InputError, match=message):
        made_of([4], chunks=chunks)


def _raise(error, start, stop):
    raise error


@pytest.mark.parametrize(
    ("read", "message"),
    [
        pytest.param(lambda a, b: frames_of(0, a, b - 1), "ends after 3 frames", id="too few"),
        pytest.param(
            lambda a, b: frames_of(0, a, b, 1), r"frames are \(3, 5, 1\)", id="other channels"
        ),
        pytest.param(
            lambda a, b: frames_of(0, a, b)[:, 1:], r"frames are \(2, 5, 3\)", id="other size"
        ),
        pytest.param(lambda a, b: frames_of(0, a, b).astype(float), "float64", id="other numbers"),
        pytest.param(partial(_raise, OSError("disk")), "OSError: disk", id="input-output error"),
        pytest.param(partial(_raise, ValueError("odd")), "ValueError: odd", id="decoder's error"),
        pytest.param(partial(_raise, InputError("mine: no")), "mine: no", id="its own error"),
    ],
)
def test_clips_that_read_badly_are_named(read, message):
    made = [Clip("a.avi", 4, read)]
    ds = clip_dataset(made, RGB, SHAPE, timestep="1s", attrs={})
    with pytest.raises(InputError, match=message) as error:
        ds["red"].load()
    assert str(error.value).startswith(("a.avi: ", "mine: "))


def test_no_clips_and_empty_clips_are_refused():
    with pytest.raises(InputError, match="there are no clips"):
        made_of([])
    with pytest.raises(InputError, match="clip1: a clip without frames"):
        made_of([3, 0])


# --- the paper's axes -------------------------------------------------------------------------


def test_forecasts_get_the_papers_axes():
    ds = made_of([6, 7])
    forecast = predict(ds, Persistence(Task(tuple(RGB), 2, 3, "40ms")), init_time=slice(None))
    samples = as_samples(forecast)["frames"]
    assert samples.dims == ("sample", "step", "channel", "y", "x")
    assert samples.shape == (11, 3, 3, *SHAPE)
    assert samples["channel"].values.tolist() == RGB
    for channel, name in enumerate(RGB):
        np.testing.assert_array_equal(samples.values[:, :, channel], forecast[name].values)
    np.testing.assert_array_equal(samples["time"], forecast["time"])
    np.testing.assert_array_equal(samples["valid_time"], forecast["valid_time"])
    np.testing.assert_array_equal(samples["prediction_timedelta"], forecast["prediction_timedelta"])


@pytest.mark.parametrize("chunks", ["auto", None])
def test_clips_of_one_length_get_the_papers_axes(chunks):
    ds = made_of([4, 6, 5], chunks=chunks)
    with pytest.raises(InputError, match="clips have 4 to 6 frames"):
        as_samples(ds)
    samples = as_samples(ds.isel(time=ds["step"] < 4))["frames"]
    assert samples.shape == (3, 4, 3, *SHAPE)
    for number in range(3):
        expected = np.moveaxis(frames_of(number, 0, 4), -1, 1)
        np.testing.assert_array_equal(np.rint(samples.values[number] * 255), expected)
    single = as_samples(ds.isel(time=ds["step"] < 1))
    assert single["frames"].shape == (3, 1, 3, *SHAPE)
    np.testing.assert_array_equal(single["time"], ds["time"].values[ds["step"].values == 0])


def test_samples_want_clips():
    with pytest.raises(InputError, match="without"):
        as_samples(xr.Dataset({"a": ("latitude", np.zeros(3))}))


# --- pictures ---------------------------------------------------------------------------------


def test_shrinking_is_the_mean_of_the_area():
    frames = np.random.default_rng(0).random((2, 6, 10, 3)).astype(np.float32)
    blocks = frames.reshape(2, 3, 2, 2, 5, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(resize(frames, (3, 2)), blocks, atol=1e-6)
    # 3 pixels to 2: each takes one and a half.
    row = np.array([[[3.0], [6.0], [12.0]]], np.float32)
    np.testing.assert_allclose(resize(row, (1, 2))[0, :, 0], [(3 + 3) / 1.5, (3 + 12) / 1.5])


def test_growing_is_linear_between_centres():
    row = np.array([[[0.0], [8.0]]], np.float32)
    np.testing.assert_allclose(resize(row, (1, 4))[0, :, 0], [0, 2, 6, 8])
    ramp = np.arange(6, dtype=np.float32)[None, :, None]
    grown = resize(ramp, (1, 12))[0, :, 0]
    np.testing.assert_allclose(np.diff(grown)[1:-1], 0.5, atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 25), st.integers(1, 25))
def test_resizing_keeps_what_is_even_and_the_range(h, w, height, width):
    even = np.full((h, w, 1), 77, np.uint8)
    assert (resize(even, (height, width)) == 77).all()
    noise = np.random.default_rng(h * w).random((h, w, 2)).astype(np.float32)
    out = resize(noise, (height, width))
    assert out.shape == (height, width, 2)
    assert out.min() >= noise.min() - 1e-6
    assert out.max() <= noise.max() + 1e-6
    if height <= h and width <= w:
        np.testing.assert_allclose(out.mean(), noise.mean(), atol=1e-5)


def test_the_middle_is_cut_out():
    frames = np.arange(5 * 8).reshape(1, 5, 8, 1)
    cut = centre_crop(frames, (3, 5))
    assert cut[0, 0, 0, 0] == 1 * 8 + 1
    assert cut.shape == (1, 3, 5, 1)
    with pytest.raises(InputError, match="too small"):
        centre_crop(frames, (3, 9))


@pytest.fixture(scope="module")
def encode():
    pytest.importorskip("av", reason="needs the extra 'video'")
    from stforecast.testing import encode

    return encode


COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)


def png(encode, image):
    return encode.encode(image[None], "image2pipe", "png", "rgb24")


def test_png_comes_back_exactly_and_greys_by_bt601(encode):
    image = np.repeat(np.repeat(COLOURS, 8, axis=0), 4, axis=1)
    data = png(encode, image)
    np.testing.assert_array_equal(decode_image(data, name="a.png"), image)
    grey = decode_image(data, name="a.png", grey=True)
    assert grey.shape == (8, 16, 1)
    assert np.abs(grey[0, 1::4, 0] - [76.2, 149.7, 29.1, 255]).max() < 1.5


def test_jpeg_keeps_colours_and_sides(encode):
    image = np.repeat(np.repeat(COLOURS, 32, axis=0), 8, axis=1)
    data = encode.encode_jpeg(image)
    got = decode_image(data, name="a.jpg")
    assert np.abs(got.astype(int) - image)[:, 4::8].max() < 8
    grey = decode_image(data, name="a.jpg", grey=True)
    luma = image @ [0.299, 0.587, 0.114]
    assert np.abs(grey[:, 4::8, 0] - luma[:, 4::8]).max() < 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda d: d[: len(d) // 2], "damaged or truncated", id="half"),
        pytest.param(lambda d: d[:30], "damaged or truncated", id="header only"),
        pytest.param(lambda d: b"", "neither a JPEG nor a PNG", id="empty"),
        pytest.param(lambda d: b"GIF89a" + d, "neither a JPEG nor a PNG", id="other format"),
    ],
)
@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_damaged_images_are_refused(encode, form, damage, message):
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    data = encode.encode_jpeg(image) if form == "jpeg" else png(encode, image)
    with pytest.raises(InputError, match=f"^pic: .*{message}"):
        decode_image(damage(data), name="pic")


def test_a_byte_turned_in_a_png_is_found(encode):
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    data = bytearray(png(encode, image))
    data[len(data) // 2] ^= 255
    with pytest.raises(InputError, match="damaged or truncated PNG"):
        decode_image(bytes(data), name="pic")


def test_images_of_another_size_are_named(encode):
    first, second = (np.zeros((8, 8 + 8 * i, 3), np.uint8) for i in range(2))
    encoded = [("a", png(encode, first)), ("b", png(encode, second))]
    with pytest.raises(InputError, match="b: 8 x 16 pixels, those before it have 8 x 8"):
        decode_images(encoded, lambda image: image)


def test_parts_of_a_video_are_what_the_whole_has_there(encode, tmp_path):
    frames = encode.moving_blobs(30, (48, 64), np.random.default_rng(0))
    data = encode.encode_mp4(frames)
    whole = decode_video(data, 0, 99, name="v")
    assert whole.shape == frames.shape
    assert np.abs(whole.astype(int) - frames).mean() < 2
    np.testing.assert_array_equal(decode_video(data, 17, 23, name="v"), whole[17:23])
    (tmp_path / "v.mp4").write_bytes(data)
    np.testing.assert_array_equal(decode_video(tmp_path / "v.mp4", 0, 2, name="v"), whole[:2])
    grey = decode_video(data, 0, 1, name="v", grey=True)
    assert np.abs(grey[0, ..., 0] - whole[0] @ [0.299, 0.587, 0.114]).mean() < 2
    assert len(decode_video(data, 40, 50, name="v")) == 0
    with pytest.raises(InputError, match=r"^v: "):
        decode_video(data[:500], 0, 30, name="v")


def test_a_video_of_an_unknown_codec_is_refused(encode):
    frames = encode.moving_blobs(4, (48, 64), np.random.default_rng(0))
    data = encode.encode(frames, "avi", "mpeg4", "yuv420p", fps=25)
    assert data.count(b"FMP4") == 2
    with pytest.raises(InputError, match="v: no video in it that can be decoded"):
        decode_video(data.replace(b"FMP4", b"zzzz"), 0, 4, name="v")


def test_damage_within_a_video_is_not_concealed(encode):
    """FFmpeg would fill a damaged frame up from those beside it, and say nothing."""
    frames = encode.moving_blobs(12, (48, 64), np.random.default_rng(0))
    data = encode.encode(frames, "avi", "mpeg4", "yuv420p", fps=25)
    with pytest.importorskip("av").open(io.BytesIO(data)) as container:
        packets = [(p.pos + 8, p.size) for p in container.demux(video=0) if p.size]
    found = 0
    for start, size in packets:
        noise = np.random.default_rng(start).integers(0, 256, size // 2).astype(np.uint8).tobytes()
        damaged = data[: start + size // 2] + noise + data[start + size // 2 + len(noise) :]
        try:
            decode_video(damaged, 0, 12, name="v")
        except InputError:
            found += 1
    assert found >= 9  # of 12: noise can happen to be a picture
