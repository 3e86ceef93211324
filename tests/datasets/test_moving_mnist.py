"""Moving MNIST: the generator against the authors' and closed forms, the data set, damage."""

from __future__ import annotations

import gzip
import json
import math
import pickle
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.baselines.persistence import Persistence
from stforecast.conventions.gate import canonicalize, check
from stforecast.datasets import moving_mnist
from stforecast.datasets import moving_mnist_generator as bouncing
from stforecast.datasets.moving_mnist import open_moving_mnist, recognise
from stforecast.datasets.moving_mnist_generator import (
    generate,
    load_digits,
    read_idx,
    render,
    trajectories,
)
from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.predict import predict
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task, window_starts
from stforecast.testing.moving_mnist import make_digits, write_mnist, write_mnist_test_seq
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit

SHARED = Path(__file__).parents[2].parent / "shared"
GOLDEN = SHARED / "golden/public/data_mmnist.npz"
MNIST = SHARED / "data/mnist"
TASK = Task("intensity", 10, 10, "1s")


@pytest.fixture(scope="module")
def digits():
    return make_digits(30)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_mnist(tmp_path_factory.mktemp("mnist"))


def tiny():
    return SimVPv2(
        10, 10, 1, encoder_channels=4, translator_channels=8, translator_blocks=2, mlp_ratio=1.0
    )


# --- the generator --------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden files at {GOLDEN}")
def test_trajectories_are_the_authors():
    golden = np.load(GOLDEN)
    draw = random.Random(
        json.loads(GOLDEN.with_suffix(".json").read_text())["python_random_seed_traj"]
    )
    for top, left in zip(golden["traj_y"], golden["traj_x"], strict=True):
        x, y, angle = draw.random(), draw.random(), draw.random() * 2 * math.pi
        path = trajectories(np.array(x), np.array(y), np.array(angle), 20)
        np.testing.assert_array_equal((36 * path).astype(int), np.stack([top, left], 1))


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden files at {GOLDEN}")
def test_frames_are_the_authors():
    golden = np.load(GOLDEN)
    draw = random.Random(
        json.loads(GOLDEN.with_suffix(".json").read_text())["python_random_seed_items"]
    )
    for x_frames, y_frames in zip(golden["x"], golden["y"], strict=True):
        count = draw.choice([2])
        paths, which = [], []
        for _ in range(count):
            x, y, angle = draw.random(), draw.random(), draw.random() * 2 * math.pi
            paths.append(trajectories(np.array(x), np.array(y), np.array(angle), 20))
            which.append(draw.randint(0, len(golden["digits"]) - 1))
        out = np.empty((1, 20, 64, 64), np.uint8)
        render(golden["digits"], np.array([which]), np.stack(paths)[None], out)
        theirs = np.concatenate([x_frames, y_frames])[:, 0]
        np.testing.assert_array_equal(out[0], np.round(theirs * 255))
        np.testing.assert_allclose(out[0] / 255, theirs, atol=3e-8)


def test_a_point_goes_straight_and_bounces():
    """Towards a corner at 45 degrees: 0.1 / sqrt(2) a step, set on both borders, and back."""
    path = trajectories(np.array(0.9), np.array(0.9), np.array(math.pi / 4), 4)
    step = 0.1 / math.sqrt(2)
    first = 0.9 + step
    expected = [first, 1.0, 1 - step, 1 - 2 * step]
    np.testing.assert_allclose(path, np.stack([expected, expected], 1))
    # What reaches the border exactly has bounced, too.
    path = trajectories(np.array(0.9), np.array(0.5), np.array(0.0), 3)
    np.testing.assert_allclose(path, [[0.5, 1.0], [0.5, 0.9], [0.5, 0.8]])


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 2 * math.pi), st.integers(2, 40))
def test_a_point_stays_inside_and_keeps_its_speed(x, y, angle, steps):
    path = trajectories(np.array(x), np.array(y), np.array(angle), steps)
    assert path.shape == (steps, 2)
    assert path.min() >= 0
    assert path.max() <= 1
    move = np.diff(path, axis=0)
    free = ((path > 0) & (path < 1)).all(1)
    away = free[1:] & free[:-1]  # not on a border before or after
    np.testing.assert_allclose(np.hypot(*move[away].T), 0.1, rtol=1e-9)
    assert (np.hypot(*move.T) <= 0.1 + 1e-12).all()


def by_hand(images, index, seed, stream, count, steps, size):
    """One sequence in plain Python, of numpy's Philox and the written rule alone."""
    frames = np.zeros((steps, size, size), np.uint8)
    for j in range(count):
        bits = np.random.Philox(counter=index * count + j, key=seed + (stream << 64))
        x, y, turn, which = ((int(r) >> 11) / 2**53 for r in bits.random_raw(4))
        digit = images[int(which * len(images))]
        vx, vy = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
        for k in range(steps):
            x, y = x + 0.1 * vx, y + 0.1 * vy
            vx, vy = -vx if not 0 < x < 1 else vx, -vy if not 0 < y < 1 else vy
            x, y = min(max(x, 0), 1), min(max(y, 0), 1)
            top, left = int((size - 28) * y), int((size - 28) * x)
            here = frames[k, top : top + 28, left : left + 28]
            np.maximum(here, digit, out=here)
    return frames


@pytest.mark.parametrize(("split", "stream"), [("train", 0), ("validation", 1), ("test", 2)])
@pytest.mark.parametrize(("count", "steps", "size"), [(1, 3, 28), (2, 20, 64), (3, 5, 41)])
def test_sequences_follow_the_written_rule(digits, split, stream, count, steps, size):
    options = {"seed": 9, "split": split, "digits": count, "steps": steps, "size": size}
    ours = generate(digits, [0, 1, 70], **options)
    for frames, index in zip(ours, [0, 1, 70], strict=True):
        expected = by_hand(digits, index, 9, stream, count, steps, size)
        np.testing.assert_array_equal(frames, expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=40), st.integers(0, 2**64 - 1))
def test_a_sequence_does_not_depend_on_its_company(indices, seed):
    images = make_digits(5)
    options = {"seed": seed, "steps": 2, "size": 30}
    together = generate(images, indices, **options)
    for frames, index in zip(together, indices, strict=True):
        np.testing.assert_array_equal(frames, generate(images, [index], **options)[0])


def test_seed_split_and_number_all_matter(digits):
    kinds = [
        generate(digits, [index], seed=seed, split=split, steps=3)
        for index in (0, 1)
        for seed in (0, 1)
        for split in ("train", "validation", "test")
    ]
    assert len({k.tobytes() for k in kinds}) == 12


def test_draws_are_uniform():
    """Starts, directions and digits of 20,000 digits, within four standard errors."""
    draws = bouncing.uniform_draws(np.arange(10_000), 3, 0, 2).reshape(-1, 4)
    n = len(draws)
    assert np.abs(draws.mean(0) - 0.5).max() < 4 / math.sqrt(12 * n)
    assert np.abs(draws.var(0) - 1 / 12).max() < 4 * math.sqrt(1 / 180 / n)
    correlation = np.corrcoef(draws.T) - np.eye(4)
    assert np.abs(correlation).max() < 4 / math.sqrt(n)
    first, second = draws[::2], draws[1::2]
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 4 / math.sqrt(n / 2)


def test_out_is_reused(digits):
    out = np.full((70, 4, 64, 64), 7, np.uint8)
    assert generate(digits, range(70), steps=4, out=out) is out
    np.testing.assert_array_equal(out, generate(digits, range(70), steps=4))


def test_the_generator_needs_numpy_alone():
    code = (
        "import sys; from stforecast.datasets.moving_mnist_generator import generate; "
        "assert not {'torch', 'xarray', 'dask', 'zarr', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.ones((3, 28, 28))}, "uint8"),
        ({"digits": 0}, "digits must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"size": 27}, "size must be at least 28"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**64}, r"below 2\*\*64"),
        ({"split": "dev"}, "split must be one of train, validation, test"),
        ({"indices": [3, -1]}, "from 0"),
        ({"out": np.empty((1, 20, 64, 64))}, "out must be contiguous uint8"),
    ],
)
def test_what_the_generator_refuses(digits, change, words):
    arguments = {"images": digits, "indices": [0]} | change
    with pytest.raises(InputError, match=words):
        generate(**arguments)


# --- the digits -----------------------------------------------------------------------------------


def test_no_digit_is_in_two_splits(tmp_path):
    write_mnist(tmp_path, train=5_040, test=20, zipped=False)
    everything = read_idx(tmp_path / "train-images-idx3-ubyte")
    train, valid, test = (load_digits(tmp_path, k) for k in ("train", "validation", "test"))
    assert (len(train), len(valid), len(test)) == (40, 5_000, 20)
    np.testing.assert_array_equal(np.concatenate([train, valid]), everything)
    assert not {d.tobytes() for d in test} & {d.tobytes() for d in everything}


@pytest.mark.skipif(not MNIST.exists(), reason=f"no data at {MNIST}")
def test_real_digits():
    train, valid, test = (load_digits(MNIST, k) for k in ("train", "validation", "test"))
    assert (len(train), len(valid), len(test)) == (55_000, 5_000, 10_000)
    whole = np.concatenate([train, valid]).mean(dtype=np.float64)
    assert whole / 255 == pytest.approx(0.1307, abs=1e-4)  # as everybody normalises MNIST by
    frames = generate(test, range(200), split="test")
    assert frames.max() == 255
    # Two digits of 103 ink pixels in 4096 (they may overlap).
    assert (frames > 127).mean() == pytest.approx(
        2 * (test > 127).sum((1, 2)).mean() / 4096, rel=0.1
    )


def test_files_are_found_where_downloaders_put_them(tmp_path):
    for place, name in (
        ("a/raw", "train-images-idx3-ubyte"),
        ("b/MNIST/raw", "train-images.idx3-ubyte"),
    ):
        write_mnist(tmp_path / place, zipped=False)
        (tmp_path / place / "train-images-idx3-ubyte").rename(tmp_path / place / name)
        assert len(load_digits(tmp_path / place.split("/")[0])) == 40


# --- the data set ---------------------------------------------------------------------------------


def test_the_data_set_is_the_generator(directory):
    ds = open_moving_mnist(directory, "validation", sequences=60, seed=5)
    check(ds, timestep=np.timedelta64(1, "s"))
    assert ds.attrs["title"]
    assert ds["intensity"].attrs["units"] == "1"
    assert len(window_starts(ds["time"].values, TASK.step, TASK.window)) == 60
    expected = generate(load_digits(directory, "validation"), range(60), seed=5, split="validation")
    frames = ds["intensity"].values.reshape(60, 20, 64, 64)
    np.testing.assert_array_equal(frames, (expected.astype(np.float64) / 255).astype(np.float32))
    np.testing.assert_array_equal(ds["clip"], np.repeat(np.arange(60), 20))
    np.testing.assert_array_equal(ds["step"], np.tile(np.arange(20), 60))
    stored = np.round(frames / ds["intensity"].encoding["scale_factor"]).astype(np.uint8)
    np.testing.assert_array_equal(stored, expected)
    # A longer one begins with the same sequences: an epoch more does not change those before.
    longer = open_moving_mnist(directory, "validation", sequences=61, seed=5, chunks=None)
    np.testing.assert_array_equal(longer["intensity"][:40], ds["intensity"][:40])


@pytest.mark.parametrize("chunks", ["auto", None, {"time": 33}])
@pytest.mark.parametrize("form", ["idx", "npy"])
def test_any_selection_is_that_of_the_whole(directory, tmp_path, form, chunks):
    path = directory if form == "idx" else write_mnist_test_seq(tmp_path, sequences=40)
    ds = open_moving_mnist(path, "test", sequences=40, size=64, chunks=chunks)
    lazy = open_moving_mnist(path, "test", sequences=40, chunks=None)["intensity"]
    whole = lazy.values
    picks = [
        (slice(3, 47), slice(None), slice(None)),
        (slice(700, 100, -7), slice(5, 60, 3), 8),
        (np.array([799, 0, 30, 30, 411]), slice(None), np.array([3, 1])),
        (21, 4, slice(2, 9)),
        (-1, slice(None), slice(None)),
        (slice(0, 0), slice(None), slice(None)),
    ]
    for pick in picks:
        for array in (ds["intensity"], lazy):
            found = array[pick].values
            expected = whole[pick[0]]
            expected = expected[..., pick[1], :]
            np.testing.assert_array_equal(found, expected[..., pick[2]])
    assert pickle.loads(pickle.dumps(ds)).equals(ds)


def test_chunks_end_between_sequences(directory):
    ds = open_moving_mnist(directory, sequences=130)
    assert ds["intensity"].chunks[0] == (1020, 1020, 560)
    assert isinstance(ds["clip"].variable.data, np.ndarray)
    for bad in ("tiny", {"level": 3}):
        with pytest.raises(InputError, match="chunks"):
            open_moving_mnist(directory, chunks=bad)


def test_the_published_test_sequences(tmp_path):
    path = write_mnist_test_seq(tmp_path, sequences=6)
    array = np.load(path)
    assert array.shape == (20, 6, 64, 64)
    ds = open_moving_mnist(path)
    check(ds, timestep=np.timedelta64(1, "s"))
    frames = ds["intensity"].values.reshape(6, 20, 64, 64)
    np.testing.assert_array_equal(np.round(frames * 255), array.swapaxes(0, 1))
    assert open_moving_mnist(path, sequences=4).sizes["time"] == 80
    with pytest.raises(InputError, match="these are test sequences"):
        open_moving_mnist(path, "train")


@pytest.mark.parametrize("chunks", ["auto", None])
def test_opening_reads_no_digits(directory, tmp_path, monkeypatch, chunks):
    path = write_mnist_test_seq(tmp_path)

    def refuse(*_, **__):
        raise AssertionError("digits were read")

    monkeypatch.setattr(moving_mnist, "read_idx", refuse)
    monkeypatch.setattr(np, "load", refuse)
    for ds in (
        open_moving_mnist(directory, sequences=50, chunks=chunks),
        open_moving_mnist(path, chunks=chunks),
    ):
        canonical, _ = canonicalize(ds)
        with pytest.raises(AssertionError, match="were read"):
            canonical["intensity"][:3].values  # noqa: B018


def test_options_tell_dask_keys_apart(directory):
    def name(**options):
        return open_moving_mnist(directory, sequences=30, **options)["intensity"].data.name

    names = {
        name(),
        name(seed=1),
        name(digits=3),
        name(steps=10),
        name(split="validation"),
        name(size=50),
    }
    assert len(names) == 6
    assert name() == name(seed=0)


def test_fit_predict_evaluate(directory):
    train, valid, test = (
        open_moving_mnist(directory, k, sequences=4) for k in ("train", "validation", "test")
    )
    config = TrainConfig(steps=2, batch_size=2)
    forecaster = fit(train, TASK, model=tiny, config=config, validation=valid)
    times = test["time"].values[9::20]
    forecast = predict(test, forecaster, init_time=times)
    assert forecast["intensity"].shape == (4, 10, 64, 64)
    copying = predict(test, Persistence(TASK), init_time=times)
    scores = evaluate(copying, test, metrics=("mse_sum", "mae_sum", "ssim"), data_range=1.0)
    frames = test["intensity"].values.reshape(4, 20, 64, 64)
    expected = ((frames[:, 9:10] - frames[:, 10:]) ** 2).sum((2, 3)).mean()
    assert float(scores["frames_overall"].sel(metric="mse_sum")) == pytest.approx(
        expected, rel=1e-5
    )


def test_recognise(directory, tmp_path):
    assert recognise(directory) == "open_moving_mnist: MNIST, 5040 digits in the training file"
    path = write_mnist_test_seq(tmp_path)
    assert recognise(path) == "open_moving_mnist: 6 test sequences of 20 frames, 64 x 64"
    np.save(tmp_path / "a.npy", np.ones(3))
    (tmp_path / "b.npy").write_text("text")
    for other in (tmp_path, tmp_path / "a.npy", tmp_path / "b.npy", tmp_path / "nowhere"):
        assert recognise(other) is None


# --- damage ---------------------------------------------------------------------------------------

IDX = "train-images-idx3-ubyte"


def idx(change, zipped=False, read=False):
    """A damaged training file: `change` maps its bytes, unzipped and then as they are on disk."""

    def make(tmp_path):
        path = write_mnist(tmp_path / "data", train=5_010, zipped=zipped)
        file = path / (IDX + (".gz" if zipped else ""))
        file.write_bytes(change(file.read_bytes()))
        return lambda p: open_moving_mnist(p, sequences=2, chunks=None)["intensity"].values, path

    return make


def header(*numbers):
    return lambda data: struct.pack(">4I", *numbers) + data[16:]


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes(b ^ 0xFF for b in data[middle : middle + 40]) + data[middle + 40 :]


def npy(array=None, change=None):
    def make(tmp_path):
        path = write_mnist_test_seq(tmp_path / "data")
        if array is not None:
            np.save(path, array, allow_pickle=array.dtype.hasobject)
        if change is not None:
            path.write_bytes(change(path.read_bytes()))
        return open_moving_mnist, path

    return make


def nothing(tmp_path):
    return open_moving_mnist, tmp_path / "nowhere"


def other_files(tmp_path):
    path = write_mnist(tmp_path / "data")
    (path / f"{IDX}.gz").rename(path / "pictures.gz")
    return open_moving_mnist, path


def no_training_digits(tmp_path):
    path = write_mnist(tmp_path / "data", train=4_000)
    return lambda p: open_moving_mnist(p, sequences=1).load(), path


def options(**given):
    def make(tmp_path):
        path = write_mnist(tmp_path / "data")
        return lambda p: open_moving_mnist(p, **given), path

    return make


DAMAGE = {
    "no such directory -> named": (nothing, "nowhere: no such directory"),
    "training file missing -> named": (other_files, f"data: no {IDX}"),
    "IDX of labels -> wrong magic": (idx(header(0x801, 5010, 28, 28)), f"{IDX}.*00 00 08 01"),
    "IDX of floats -> wrong magic": (idx(header(0xD03, 5010, 28, 28)), f"{IDX}.*00 00 0d 03"),
    "IDX is a text -> wrong magic": (idx(lambda _: b"no digits in this file"), f"{IDX}.*no IDX"),
    "IDX empty -> wrong magic": (idx(lambda _: b""), f"{IDX}.*nothing"),
    "IDX header cut -> wrong magic": (idx(lambda d: d[:9]), f"{IDX}.*no IDX"),
    "IDX truncated -> bytes": (idx(lambda d: d[:-100]), f"{IDX}.*says 5010.*only 3927740"),
    "IDX with bytes too many -> bytes": (idx(lambda d: d + b"x"), f"{IDX}.*holds more"),
    "IDX count too high -> bytes": (idx(header(0x803, 6000, 28, 28)), f"{IDX}.*says 6000.*only"),
    "IDX of no images -> damaged": (idx(header(0x803, 0, 28, 28)), f"{IDX}.*0 images"),
    "IDX count hostile -> refused": (idx(header(0x803, 2**32 - 1, 28, 28)), f"{IDX}.*4294967295"),
    "IDX larger than the frame -> size": (idx(header(0x803, 1, 99, 99)), "99 x 99.*larger size"),
    "gzip truncated -> cannot be read": (idx(lambda d: d[:-2000], True), f"{IDX}.gz.*truncated"),
    "gzip changed on disk -> cannot be read": (idx(flip, True), f"{IDX}.gz.*cannot be read"),
    "gzip checksum wrong -> cannot be read": (
        idx(lambda d: d[:-8] + b"\0\0\0\0" + d[-4:], True),
        f"{IDX}.gz.*CRC",
    ),
    "gzip of a text -> wrong magic": (idx(lambda _: gzip.compress(b"x" * 99), True), "no IDX"),
    "too few images for a split -> named": (no_training_digits, "no digit for this split"),
    "npy of floats -> shape": (npy(np.ones((20, 3, 64, 64), np.float32)), r"float32 \(20, 3, 64"),
    "npy of three dimensions -> shape": (npy(np.ones((20, 64, 64), np.uint8)), r"\(20, 64, 64\)"),
    "npy of oblong frames -> shape": (npy(np.ones((20, 3, 64, 60), np.uint8)), r"64, 60\)"),
    "npy of no sequences -> shape": (npy(np.ones((20, 0, 64, 64), np.uint8)), r"\(20, 0, 64"),
    "npy truncated -> bytes": (npy(change=lambda d: d[:-5]), "491643 bytes.*491648"),
    "npy is a text -> format": (npy(change=lambda _: b"some text"), "no array of numpy's"),
    "npy header cut -> format": (npy(change=lambda d: d[:40]), "no array of numpy's"),
    "npy pickled -> refused": (npy(np.array([{}, None])), "pickled.*can run code"),
    "unknown split -> named": (options(split="dev"), "found 'dev'"),
    "no sequences asked for -> named": (options(sequences=0), "at least 1, found 0"),
    "frames smaller than a digit -> named": (options(size=20), "larger size"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage(case, tmp_path):
    make, words = DAMAGE[case]
    opener, path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        opener(path)
    assert re.search(words, str(caught.value)), caught.value


# --- the pipeline ---------------------------------------------------------------------------------


@pytest.mark.parametrize("published", [False, True])
def test_pipeline(tmp_path, monkeypatch, capsys, published):
    data = write_mnist(tmp_path / "data")
    if published:
        write_mnist_test_seq(data, sequences=3)
    out = tmp_path / "out"
    arguments = ["--data", data, "--steps", 2, "--batch-size", 2, "--test-sequences", 4]
    arguments += ["--val-sequences", 2, "--output", out]
    assert pipeline("moving_mnist", *arguments, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    rows = [line.split("  ")[0].strip() for line in shown.splitlines()]
    assert {"this run", "persistence"} <= set(rows)
    assert "SimVPv2-L" not in rows  # that is of 10,000 sequences of the published file
    found = "mnist_test_seq.npy, 3 of 3 seq" if published else "drawn from the test digits"
    assert re.search(f"not comparable: .*{found}.*published for .*10000 of 10000", shown)
    names = {"model", "run", "forecast.zarr", "scores.csv", "scores.nc"}
    assert names <= {p.name for p in out.iterdir()}
    assert xr.open_zarr(out / "forecast.zarr").sizes["time"] == (3 if published else 4)


def test_the_paper_preset_is_the_papers(tmp_path, monkeypatch):
    seen = {}

    def spy(name, parts, task, network, config, output, **options):
        seen.update(locals())
        raise KeyboardInterrupt

    monkeypatch.setattr("stforecast.cli.recipes.train_and_score", spy)
    data = write_mnist(tmp_path)
    arguments = ["--data", data, "--preset", "paper", "--epochs", 2, "--output", tmp_path / "out"]
    assert pipeline("moving_mnist", *arguments, monkeypatch=monkeypatch) == 130
    network = seen["network"]()
    assert sum(p.numel() for p in network.parameters()) == 46_769_665
    config, task = seen["config"], seen["task"]
    # Two times 10,000 sequences, each seen once; the schedule is by step.
    assert (config.epochs, config.steps, config.batch_size) == (1, 1250, 16)
    assert (config.learning_rate, config.schedule) == (1e-3, "onecycle")
    assert config.validate_every == 625
    assert (task.input_steps, task.target_steps) == (10, 10)
    assert seen["parts"]["train"].sizes["time"] == 20 * 20_000
    assert seen["parts"]["test"].sizes["time"] == 20 * 10_000
