"""Feeds: what a step shows, that an epoch shows everything once, and what goes wrong by name."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stforecast.datasets.weather import open_weatherbench
from stforecast.errors import InputError
from stforecast.loading.feeds import ResidentFeed, StreamingFeed, open_feed
from stforecast.loading.memory import Recycled
from stforecast.loading.order import StreamOrder
from stforecast.loading.source import ReadAhead, Source, stored_edges
from stforecast.task import Task
from stforecast.testing.weather import make_weather

TASK = Task("a", input_steps=3, target_steps=2)
STEP_BYTES = 4 * 2 * 3


def counting(steps, *, variables=("a",), chunks=None, missing=()):
    """Every value says its step: variable number * 1000 + step (+ 0.01 a grid point)."""
    time = np.datetime64("2001-01-01", "ns") + np.arange(steps) * np.timedelta64(1, "h")
    grid = 0.01 * np.arange(6).reshape(2, 3)
    data = {
        name: (
            ("time", "y", "x"),
            (1000 * i + np.arange(steps)[:, None, None] + grid).astype(np.float32),
        )
        for i, name in enumerate(variables)
    }
    ds = xr.Dataset(data, {"time": time}).isel(time=np.setdiff1d(np.arange(steps), missing))
    return ds if chunks is None else ds.chunk(time=chunks)


def stream(ds, task=TASK, *, places=8, **options):
    source = Source(ds, task)
    return StreamingFeed(source, buffer=places * 12 * source.step_bytes, **options)


def epoch_of(feed, epoch=0):
    n = feed.steps_per_epoch
    return [feed.batch(epoch * n + i) for i in range(n)]


def shown(batches):
    """First step of every window, in the order shown."""
    return [int(x[i, 0, 0, 0, 0]) for x, _ in batches for i in range(len(x))]


# --- the order: numbers only ----------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    steps=st.integers(12, 400),
    window=st.integers(1, 9),
    block=st.integers(1, 40),
    places=st.integers(1, 9),
    world=st.integers(1, 4),
    batch=st.integers(4, 40),
    shuffle=st.booleans(),
    gaps=st.sets(st.integers(0, 399), max_size=6),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
    first=st.integers(0, 30),
)
def test_the_order_keeps_its_promises(
    steps, window, block, places, world, batch, shuffle, gaps, seed, epoch, first
):
    """Played through: what a window needs lies in the buffer, whole, when it is shown."""
    starts = np.array(
        [s for s in range(steps - window + 1) if not gaps & set(range(s, s + window))], dtype=int
    )
    if len(starts) == 0:
        return
    bounds = np.append(np.arange(0, steps, block), steps)
    seen = []
    for rank in range(world):
        order = StreamOrder(
            starts, window, bounds, places,
            batch_size=batch, seed=seed, shuffle=shuffle, rank=rank, world_size=world,
        )  # fmt: skip
        plan = order.epoch(epoch)
        seen += plan.starts.tolist()
        if len(plan.starts) == 0:
            continue
        n = len(plan.stop)
        first = min(first, n - 1)  # as after a jump to the windows that need this block
        ring = np.full(places * order.span, -1)
        blocks = order.blocks(epoch, max(0, first - places + 1))
        read = -1
        for row, start, need in zip(plan.rows, plan.starts, plan.need, strict=True):
            if need < first:
                continue
            while read < need:
                b = next(blocks)
                place = b.number % places * order.span
                if b.before >= 0:
                    there = b.before % places * order.span
                    there += plan.stop[b.before] - plan.begin[b.before]
                    ring[place : place + order.overlap] = ring[there : there + order.overlap].copy()
                row0 = place + order.overlap + b.first - plan.begin[b.number]
                assert place <= row0
                assert row0 + b.stop - b.first <= place + order.span
                ring[row0 : row0 + b.stop - b.first] = np.arange(b.first, b.stop)
                read = b.number
            assert ring[row : row + window].tolist() == list(range(start, start + window))
    assert sorted(seen) == starts.tolist()  # each once, over all ranks


def test_few_steps_are_read_twice_and_neighbours_come_from_many_places():
    """750 blocks of 2048 steps, as a 12 GB store has: the cost and the worth of the lanes."""
    starts = np.arange(750 * 2048 - 23)
    bounds = np.arange(0, 751 * 2048, 2048)
    order = StreamOrder(
        starts, 24, bounds, 27, batch_size=32, seed=0, shuffle=True, rank=0, world_size=1
    )
    plan = order.epoch(0)
    blocks = [b for b, _ in zip(order.blocks(0, 0), range(750), strict=False)]
    again = sum(b.first // 2048 < b.stop // 2048 - 1 for b in blocks)  # reads the chunk before too
    assert again <= 0.07 * 750
    middle = plan.starts[700_000:702_000].reshape(-1, 2)  # pairs shown one after the other
    assert np.mean(np.abs(np.diff(middle)) > 2048 * 5) > 0.9
    months = np.histogram(plan.starts[700_000:732_000] % 8766, bins=12)[0]
    assert months.min() > 1000  # all seasons in a stretch of a thousand batches


# --- both feeds -----------------------------------------------------------------------------------


def both(ds, task=TASK, **options):
    source = Source(ds, task)
    data = torch.cat([block[new:] for _, new, block in source.sweep()])
    yield ResidentFeed(data, source.starts, task, **options)
    yield stream(ds, task, places=16, **options)


@pytest.mark.parametrize("chunks", [None, 7, 50], ids=["lazy", "dask of 7", "dask of 50"])
def test_every_window_once_an_epoch(chunks):
    ds = counting(150, chunks=chunks, missing=[40, 41, 99])
    want = Source(ds, TASK).starts
    steps = ds["a"].values[:, 0, 0]  # the step that each position in time holds
    for feed in both(ds, batch_size=16, seed=3):
        orders = []
        for epoch in range(3):
            batches = epoch_of(feed, epoch)
            assert [len(x) for x, _ in batches] == [16] * 8 + [len(want) - 128]
            orders.append(shown(batches))
            assert sorted(orders[-1]) == steps[want].tolist()
            for x, y in batches:  # whole windows, in physical units, all grid points
                first = x[:, :1, :1, :1, :1]
                offsets = torch.arange(5.0).view(5, 1, 1, 1)
                grid = 0.01 * torch.arange(6.0).view(2, 3)
                torch.testing.assert_close(torch.cat([x, y], 1), first + offsets + grid)
        assert orders[0] != orders[1]
        feed.close()


def test_any_position_gives_the_batch_of_an_uninterrupted_run():
    ds = counting(300, chunks=10)
    whole = [b for epoch in range(3) for b in epoch_of(stream(ds, batch_size=16, seed=1), epoch)]
    feed = stream(ds, batch_size=16, seed=1)
    for step in [0, 31, 5, 6, 30, 55, 18, 19, 36, 37, 38, 2, 56, 54, *range(13), 4, 12, 3]:
        for ours, theirs in zip(feed.batch(step), whole[step], strict=True):
            assert torch.equal(ours, theirs), step
    other = stream(ds, batch_size=16, seed=2)
    assert not torch.equal(other.batch(0)[0], whole[0][0])


def test_a_batch_larger_than_the_buffer():
    feed = stream(counting(200, chunks=5), places=2, batch_size=96)
    assert sorted(shown(epoch_of(feed))) == list(range(196))


def test_without_shuffling_windows_come_in_order():
    for feed in both(counting(150, chunks=10), batch_size=16, shuffle=False):
        assert shown(epoch_of(feed)) == list(range(146))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_batches(world):
    """Equal numbers of batches, sizes of one to the next at most, each window on one rank."""
    ds = counting(135, chunks=10)  # 131 windows: 13 batches of 10, and one window more
    for ranks in zip(
        *(both(ds, batch_size=10, rank=r, world_size=world, seed=2) for r in range(world)),
        strict=True,
    ):
        assert {f.steps_per_epoch for f in ranks} == {14}
        for epoch in range(2):
            epochs = [epoch_of(f, epoch) for f in ranks]
            sizes = np.array([[len(x) for x, _ in batches] for batches in epochs])
            assert sizes.sum(axis=0).tolist() == [ranks[0].size(s) for s in range(14)]
            assert (np.ptp(sizes, axis=0) <= 1).all()
            assert sorted(s for batches in epochs for s in shown(batches)) == list(range(131))
        assert epochs[1][-1][0].shape == (0, 3, 1, 2, 3)  # nothing left for the second rank


def test_fewer_windows_than_ranks():
    for rank, seen in ((0, [0]), (1, [])):
        for feed in both(counting(5), batch_size=4, rank=rank, world_size=2):
            assert shown(epoch_of(feed, 3)) == seen


def test_ranks_of_resident_data_see_the_batch_of_one_process():
    feeds = [next(both(counting(100), batch_size=10, rank=r, world_size=2)) for r in range(2)]
    one = next(both(counting(100), batch_size=10))
    for step in range(20):
        together = shown([f.batch(step) for f in feeds])
        assert sorted(together) == sorted(shown([one.batch(step)]))


def test_inputs_and_targets_are_channels():
    task = Task(["b", "mask"], input_steps=3, target_steps=2, targets=["c", "b"])
    ds = counting(60, variables=("mask", "b", "c"), chunks=7)
    for feed in both(ds, task, batch_size=4):
        x, y = feed.batch(3)
        start = x[:, 0, 1, 0, 0]
        assert x.shape == (4, 3, 2, 2, 3)
        assert y.shape == (4, 2, 2, 2, 3)
        torch.testing.assert_close(x[:, 2, 0, 0, 0], 1000 + start + 2)
        torch.testing.assert_close(y[:, 1, :, 0, 0], start[:, None] + torch.tensor([2004, 1004.0]))


def test_a_feed_without_windows_or_with_too_many_ranks():
    with pytest.raises(ValueError, match="no windows"):
        ResidentFeed(torch.zeros(3, 1, 1, 1), np.array([]), TASK, 4)
    with pytest.raises(InputError, match="a batch of 2 windows cannot be shared by 3 processes"):
        ResidentFeed(torch.zeros(9, 1, 1, 1), np.arange(4), TASK, 2, world_size=3)


# --- reading --------------------------------------------------------------------------------------


def test_a_source_reads_each_step_once_in_a_sweep_and_holds_every_window_in_one_block(monkeypatch):
    monkeypatch.setattr("stforecast.loading.source._SWEEP_BYTES", 20 * STEP_BYTES)
    source = Source(counting(150, chunks=6, missing=[70]), TASK)
    steps, windows = [], []
    for first, new, block in source.sweep():
        assert (
            block[:, 0, 0, 0].tolist()
            == source.ds["a"].values[first : first + len(block), 0, 0].tolist()
        )
        steps += range(first + new, first + len(block))
        ends = source.starts + 5
        windows += source.starts[(ends > first + new) & (ends <= first + len(block))].tolist()
        assert all(first <= w for w in windows[-3:])
    assert steps == list(range(149))
    assert windows == source.starts.tolist()


def write_zarr(path, steps=100, chunk=10):
    ds = make_weather(steps, shape=(4, 6))
    ds.to_zarr(
        path,
        zarr_format=3,
        consolidated=False,
        encoding={"2m_temperature": {"chunks": (chunk, 4, 6)}},
    )
    return ds


def test_stored_chunks_are_found_under_xarrays_layers(tmp_path):
    write_zarr(tmp_path / "a.zarr", 100, 10)
    make_weather(35, time="2001-01-05T04", shape=(4, 6)).to_netcdf(
        tmp_path / "b.nc", encoding={"2m_temperature": {"chunksizes": (15, 4, 6)}}
    )
    paths = [tmp_path / "a.zarr", tmp_path / "b.nc"]
    ds = open_weatherbench(paths, chunks=None)
    edges = [*range(10, 101, 10), 115, 130]
    variable = ds["2m_temperature"].variable
    assert stored_edges(variable, "time").tolist() == edges
    part = ds.isel(time=slice(7, 120))["2m_temperature"].variable
    assert stored_edges(part, "time").tolist() == [e - 7 for e in edges if 7 < e < 120]
    odd = ds.isel(time=slice(None, None, 2))["2m_temperature"].variable
    assert stored_edges(odd, "time") is None
    assert stored_edges(ds.load()["2m_temperature"].variable, "time") is None
    dask = open_weatherbench(paths, chunks={"time": 33}).isel(time=slice(3, None))
    assert stored_edges(dask["2m_temperature"].variable, "time").tolist() == [30, 63, 96, 129]
    plain = xr.open_zarr(tmp_path / "a.zarr", chunks=None, consolidated=False).isel(
        time=slice(4, None)
    )
    source = Source(plain, Task("t2m", 3, 2))
    assert source.blocks(25).tolist() == [0, 16, 36, 56, 76, 96]


def test_each_chunk_is_read_once(tmp_path, monkeypatch):
    write_zarr(tmp_path / "a.zarr", 960, 20)
    source = Source(open_weatherbench(tmp_path / "a.zarr", chunks=None), Task("t2m", 3, 2))
    spans, read = [], Source.read
    monkeypatch.setattr(Source, "read", lambda s, a, b: spans.append((a, b)) or read(s, a, b))
    feed = StreamingFeed(source, batch_size=16, buffer=8 * 24 * source.step_bytes)
    epoch_of(feed)
    feed.close()
    spans = spans[:48]  # what comes then is read ahead for the next epoch
    assert sorted(b for _, b in spans) == list(range(20, 961, 20))
    assert sum(a % 20 != 0 for a, _ in spans) <= 3  # the first of each run, and where it goes round


def test_blocks_end_at_gaps_where_chunks_are_unknown():
    ds = counting(100, missing=[30, 61, 92])
    assert Source(ds, TASK).blocks(40).tolist() == [0, 30, 60, 97]
    assert Source(ds, TASK).blocks(12).tolist() == [0, 12, 24, 30, 42, 54, 60, 72, 84, 90, 97]


def test_a_buffer_too_small_is_refused_with_what_it_needs():
    source = Source(counting(100, chunks=50), TASK)
    with pytest.raises(InputError, match=r"blocks of 54 steps.*at least 2592 bytes, found 1000"):
        StreamingFeed(source, batch_size=4, buffer=1000)
    StreamingFeed(source, batch_size=4, buffer=2592).batch(0)


class Broken:
    """An array whose steps from 50 on cannot be read."""

    def __init__(self, array):
        self.array = array

    def __call__(self, block):
        if (block >= 50).any():
            raise OSError("input/output error on block 7")
        return block


def broken():
    ds = counting(100, chunks=10)
    ds["a"].data = ds["a"].data.map_blocks(
        Broken(None), dtype=np.float32, meta=np.empty((0, 0, 0), "f4")
    )
    ds["a"].encoding["source"] = "/data/a_2001.nc"
    return ds


def test_what_goes_wrong_in_a_thread_is_raised_in_batch_with_the_file():
    feed = stream(broken(), batch_size=8, shuffle=False, places=4)
    feed.batch(0)
    words = r"a_2001.nc: 'a' cannot be read from 2001-01-0. .* \(OSError: input/output error"
    for _ in range(2):  # and again, not a batch of something else
        with pytest.raises(InputError, match=words):
            epoch_of(feed)
    assert len(feed.batch(1)[0]) == 8
    feed.close()


def test_nan_is_refused_in_the_stream_by_time_and_name():
    ds = counting(100, chunks=10)
    ds = ds.where(ds["time"] != ds["time"][55])
    feed = stream(ds, batch_size=8, shuffle=False)
    with pytest.raises(
        InputError, match=r"NaN or infinite values: a at 1 of the \d+ times.*01-03 07"
    ):
        epoch_of(feed)
    task = Task("a", 3, 2, nan="mask")
    batches = epoch_of(stream(ds, task, batch_size=8, shuffle=False))
    assert torch.isnan(torch.cat([y for _, y in batches])).sum() == 2 * 6
    feed = stream(ds.fillna(np.inf), task, batch_size=8)
    with pytest.raises(InputError, match="hold infinite values: a"):
        epoch_of(feed)


def readers():
    return [
        t for t in threading.enumerate() if t.name.startswith("stforecast-read") and t.is_alive()
    ]


HOLDERS = {
    "a view": lambda x: x[0, 0],
    "an array of numpy": lambda x: x.numpy()[0],
    "a view of a view": lambda x: x.flatten(0, 1)[1:][0],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_memory_is_used_again_when_nobody_holds_it(holder):
    memory = Recycled()
    first = memory.empty((4, 3, 2)).fill_(7)
    place, kept = first.data_ptr(), HOLDERS[holder](first)
    del first
    other = memory.empty((4, 3, 2)).fill_(0)
    assert other.data_ptr() != place
    assert (np.asarray(kept) == 7).all()
    del kept
    gc.collect()
    assert memory.empty((2, 3, 2)).data_ptr() == place  # a smaller one fits too


def test_memory_that_a_gradient_needs_is_held():
    memory, weight = Recycled(), torch.ones((), requires_grad=True)
    loss = (weight * memory.empty((4, 3)).fill_(7)).sum()
    memory.empty((4, 3)).fill_(0)
    loss.backward()
    assert weight.grad == 7 * 12


def test_batches_keep_their_numbers():
    """Held while others are made, in memory that is used again."""
    ds = counting(200, chunks=10)
    with stream(ds, batch_size=8) as feed:
        held = [feed.batch(step)[0] for step in range(20)][::3]
    with stream(ds, batch_size=8) as feed:
        for step, x in zip(range(0, 20, 3), held, strict=True):
            assert torch.equal(feed.batch(step)[0], x)


def test_threads_end_with_the_feed():
    assert readers() == []
    with stream(counting(200, chunks=10), batch_size=8) as feed:
        feed.batch(0)
        assert readers()
    assert readers() == []
    feed.batch(0)  # a closed feed begins anew
    threads = readers()
    del feed
    gc.collect()
    for thread in threads:
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_nothing_hangs_at_the_interpreters_exit():
    code = (
        "import stforecast.loading.feeds as f\n"
        "from stforecast.testing import make_weather\n"
        "task = f.Task('t2m', 3, 2)\n"
        "ds = make_weather(400, shape=(2, 4), chunks=10)\n"
        "feed = f.open_feed(ds, task, 8, feed='stream', buffer=10**4)\n"
        "feed.batch(0)\nprint('done')"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")


def test_read_ahead_is_bounded_and_in_order():
    asked = []
    ahead = ReadAhead((asked.append(i) or i for i in range(100)), lambda i: i * i, depth=5)
    for i in range(20):
        assert next(ahead) == (i, i * i)
        assert len(asked) == min(i + 5, 100)
    ahead.close()
    assert list(ahead) == []


# --- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "kind"), [(1e9, "resident"), (5000, "stream")])
def test_auto_goes_by_size_and_says_so(monkeypatch, caplog, free, kind):
    monkeypatch.setattr("stforecast.loading.feeds.free_memory", lambda device: int(free))
    with caplog.at_level(logging.INFO):
        feed = open_feed(counting(200, chunks=10), TASK, 8, buffer=10**5)
    assert feed.kind == kind
    assert f"training data: {kind}, by their size (they take 4.8e-06 GB; half of" in caplog.text
    assert sorted(shown(epoch_of(feed))) == list(range(196))
    feed.close()


def test_only_so_many_windows():
    for kind in ("resident", "stream"):
        with open_feed(counting(200), TASK, 8, feed=kind, windows=5, shuffle=False) as feed:
            assert shown(epoch_of(feed)) == [0, 48, 97, 146, 195]


def test_windows_of_given_initialisations():
    ds = counting(100, missing=[50])
    times = ds["time"].values
    for kind in ("resident", "stream"):
        with open_feed(ds, TASK, 8, feed=kind, init_time=times[[40, 2, 13]]) as feed:
            assert sorted(shown(epoch_of(feed))) == [0, 11, 38]
    for wrong in ([1], [2, 48], [98]):  # no input before; a gap; no target after
        with pytest.raises(InputError, match=r"1 of the \d times in init_time have no complete"):
            open_feed(ds, TASK, 8, init_time=times[wrong])


def test_an_unknown_feed():
    with pytest.raises(InputError, match="feed must be 'auto', 'resident' or 'stream'"):
        open_feed(counting(20), TASK, 8, feed="disk")


def test_free_memory_is_what_the_machine_has():
    from stforecast.loading.memory import free_memory

    assert 10**7 < free_memory(torch.device("cpu")) < 10**14


@pytest.mark.parametrize(("storage", "part"), [("bf16", 256), ("fp16", 2048)])
def test_sixteen_bits_are_deviations(storage, part):
    """Half the memory; errors by the bits of what deviates, not of 280 K; NaN stay."""
    ds = make_weather(60, shape=(6, 10)).rename({"2m_temperature": "a"})
    ds["a"][3, 2, 1] = np.nan
    ds = ds.assign(
        mask=(ds["a"] * 0 + 7).assign_attrs(units="1", standard_name="")
    )  # one that never changes
    task = Task(["a", "mask"], input_steps=3, target_steps=2, nan="mask")
    full = open_feed(ds, task, 8)
    half = open_feed(ds, task, 8, storage=storage)
    assert half.data.nbytes * 2 == full.data.nbytes
    std = float(ds["a"].std())
    for ours, theirs in zip(half.batch(1), full.batch(1), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours.isnan(), theirs.isnan())
        error, far = (
            (ours - theirs)[:, :, 0].abs().nan_to_num(),
            theirs[:, :, 0] - ds["a"].mean().item(),
        )
        near = far.abs().nan_to_num() < 2 * std
        assert 0 < error[near].max() <= std / part
        assert torch.equal(ours[:, :, 1].nan_to_num(), theirs[:, :, 1].nan_to_num())
    with pytest.raises(InputError, match="storage must be one of fp32, bf16, fp16"):
        open_feed(ds, task, 8, storage="int8")
