"""Preparing a store for training: what it holds, kills, damage, other data, two at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stforecast.datasets import clips as clips_module
from stforecast.datasets import content
from stforecast.datasets.clips import Clip, clip_dataset
from stforecast.datasets.content import Packing, Summary, fingerprint
from stforecast.datasets.prepare import open_prepared, prepare, statistics
from stforecast.datasets.weather import open_weatherbench
from stforecast.errors import InputError
from stforecast.forecasting.predict import predict
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit

T2M = "2m_temperature"
PACKING = {"dtype": "int16", "scale_factor": 0.02, "add_offset": 270.0, "_FillValue": -32768}


def packed_file(path: Path, steps: int = 100, seed: int = 0, **packing) -> Path:
    numbers = np.random.default_rng(seed).integers(-900, 900, (steps, 4, 8))
    ds = make_weather(steps, shape=(4, 8), noise=0).rename({T2M: "t2m"})
    ds["t2m"].values[:] = numbers * 0.02 + 270
    path.parent.mkdir(exist_ok=True)
    ds.to_netcdf(path, encoding={"t2m": PACKING | packing})
    return path


def frames(number: int, start: int, stop: int) -> np.ndarray:
    at = np.arange(start, stop)[:, None, None, None]
    rows, columns, channels = np.ogrid[:6, :8, :3]
    return ((rows * 31 + columns * 7 + channels * 50 + at * 13 + number) % 256).astype(np.uint8)


def colour_clips(chunks=None) -> xr.Dataset:
    clips = [Clip(f"clip {i}", 7 + i, partial(frames, i)) for i in range(5)]
    return clip_dataset(
        clips,
        ["red", "green", "blue"],
        (6, 8),
        timestep="40ms",
        attrs={"title": "t"},
        chunks=chunks,
    )


def array(store: Path, name: str = T2M) -> zarr.Array:
    return zarr.open_array(store, path=name, mode="r")


def leftovers(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir() if p.name.startswith("."))


def work(store: Path) -> Path:
    """Where the store grows."""
    return store.with_name(f".{store.name}.preparing")


def watched(ds: xr.Dataset, look: Callable[[int], None], steps: int = 10) -> xr.Dataset:
    """The same data; `look` is given the first time step of every block of them that is read."""

    def read(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info:  # dask asks for the dtype without
            look(block_info[0]["array-location"][0][0])
        return block

    lazy = ds.chunk(time=steps)
    data = lazy[T2M].data.map_blocks(read, dtype=np.float32)
    return lazy.assign({T2M: (lazy[T2M].dims, data, lazy[T2M].attrs)})


class Failing:
    """Raises when a block that starts in `where` is read while the store grows."""

    def __init__(self, store: Path, error: Exception, where: range = range(20, 50)) -> None:
        self.store, self.error, self.where, self.raised = store, error, where, 0

    def __call__(self, start: int) -> None:
        if work(self.store).exists() and start in self.where:
            self.raised += 1
            raise self.error


# --- what the store holds -------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "lazy"])
def test_what_goes_in_comes_out(tmp_path, chunks):
    ds = make_weather(steps=100, shape=(6, 10)).assign_attrs(title="a title", license="CC0-1.0")
    store = prepare(ds, tmp_path / "a.zarr", chunks=8, shards=24)
    back = open_prepared(store, chunks=chunks)
    xr.testing.assert_equal(back, ds)
    assert back[T2M].dtype == np.float32
    assert (back[T2M].chunks is None) == (chunks is None)
    assert back[T2M].attrs["units"] == "K"
    assert {"title": "a title", "license": "CC0-1.0"}.items() <= back.attrs.items()
    assert array(store).chunks == (8, 6, 10)
    assert array(store).shards == (24, 6, 10)
    assert array(store).metadata.zarr_format == 3
    assert leftovers(tmp_path) == []


def test_a_store_opens_as_any_other(tmp_path):
    ds = make_weather(steps=30)
    store = prepare(ds, tmp_path / "a.zarr")
    xr.testing.assert_equal(open_weatherbench(store), ds)
    xr.testing.assert_equal(xr.open_zarr(store), ds)


@pytest.mark.parametrize(("packed", "shard"), [(False, 16384), (True, 32768)])
def test_chunks_are_of_4_mib_and_shards_of_128(tmp_path, packed, shard):
    """Of the layout only: nothing is read but three maps, nothing written."""
    import dask.array as da

    found = []

    def look(start: int) -> None:
        if work(tmp_path / "a.zarr").exists():
            store = array(work(tmp_path / "a.zarr") / "store.zarr")
            found.append((store.chunks[0], store.shards[0]))
            raise InputError("enough")

    space = {"latitude": np.linspace(-87, 87, 32), "longitude": np.arange(64) * 5.625}
    times = np.datetime64("1979-01-01", "ns") + np.arange(100_000) * np.timedelta64(1, "h")
    data = da.full((100_000, 32, 64), 280.0, dtype="f4", chunks=(1000, 32, 64))
    dims = ("time", "latitude", "longitude")
    ds = xr.Dataset({T2M: (dims, data, {"units": "K"})}, {"time": times, **space})
    ds = watched(ds, look, 1000)
    if packed:
        ds[T2M].encoding = PACKING
    with pytest.raises(InputError, match="enough"):
        prepare(ds, tmp_path / "a.zarr", scheduler="synchronous")
    assert found == [(512, shard)]  # 8 KiB a map


def test_statistics_leave_out_nan_and_are_numpys(tmp_path):
    ds = make_weather(steps=50)
    ds[T2M].values[7:9, 2, 3:6] = np.nan
    store = prepare(ds, tmp_path / "a.zarr", chunks=4, shards=12)
    found, values = statistics(open_prepared(store))[T2M], ds[T2M].values.astype(np.float64)
    assert found["count"] == values.size - 6
    assert found["nan_share"] == pytest.approx(6 / values.size)
    expected = {k: getattr(np, f"nan{k}")(values) for k in ("mean", "std", "min", "max")}
    assert {k: found[k] for k in expected} == pytest.approx(expected, rel=1e-12)


def test_the_fingerprint_is_of_the_content_not_of_the_storage(tmp_path):
    ds = make_weather(steps=50)
    mark = fingerprint(ds)
    for i, how in enumerate([{}, {"chunks": 7, "shards": 21}, {"scheduler": "synchronous"}]):
        store = prepare(ds, tmp_path / f"{i}.zarr", **how)
        assert open_prepared(store).attrs["data_fingerprint"] == mark
    assert fingerprint(ds.chunk(time=13)) == mark
    other = {
        "value": ds.where(ds[T2M] < ds[T2M].max(), 300),
        "time": ds.assign_coords(time=ds["time"] + np.timedelta64(1, "h")),
        "place": ds.assign_coords(latitude=ds["latitude"] + 0.5),
        "name": ds.rename({T2M: "other"}),
        "order": ds.assign({T2M: ds[T2M][::-1].assign_coords(time=ds["time"])}),
    }
    marks = {fingerprint(o) for o in other.values()}
    assert len(marks) == len(other)
    assert mark not in marks


def test_the_fingerprint_knows_one_nan_and_one_zero():
    ds = make_weather(steps=3)
    ds[T2M].values[0, 0, :2] = np.nan, 0.0
    other = ds.copy(deep=True)
    bits = other[T2M].values.view(np.uint32)
    bits[0, 0, :2] = 0xFFC12345, 0x80000000
    assert np.isnan(other[T2M].values[0, 0, 0])
    assert fingerprint(other) == fingerprint(ds)


def test_packed_numbers_stay_packed_and_equal(tmp_path):
    source = xr.open_dataset(packed_file(tmp_path / "in" / "t.nc"), cache=False)
    store = prepare(source, tmp_path / "a.zarr", chunks=8, shards=24)
    assert array(store).dtype == np.int16
    found = open_prepared(store)[T2M].values
    np.testing.assert_array_equal(found, source["t2m"].values.astype("f4"))
    assert open_prepared(store).attrs["data_fingerprint"] == fingerprint(open_prepared(store))


def test_numbers_that_do_not_fit_their_packing_become_float32(tmp_path, caplog):
    """Half-way through, so that the packed part has been written by then."""
    source = xr.open_dataset(packed_file(tmp_path / "in" / "t.nc")).load()
    source["t2m"].values[60] += 0.007
    store = prepare(source, tmp_path / "a.zarr", chunks=8, shards=24, scheduler="synchronous")
    assert array(store).dtype == np.float32
    np.testing.assert_array_equal(open_prepared(store)[T2M], source["t2m"].values.astype("f4"))
    assert "does not fit its packing" in caplog.text
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "lazy"])
def test_clips_stay_bytes_and_keep_their_numbers(tmp_path, chunks):
    ds = colour_clips(chunks)
    store = prepare(ds, tmp_path / "a.zarr", chunks=4, shards=12)
    back = open_prepared(store, chunks=None)
    assert array(store, "red").dtype == np.uint8
    assert list(back.data_vars) == ["red", "green", "blue"]
    xr.testing.assert_equal(back, ds.load())
    assert back["clip"].dtype == np.int64
    assert back.attrs["data_fingerprint"] == fingerprint(ds)


def test_channels_of_a_clip_are_decoded_once(tmp_path, monkeypatch):
    """Even where no more than a few frames of them can be kept."""
    monkeypatch.setattr(clips_module, "CACHE_BYTES", 12 * 6 * 8 * 3)
    monkeypatch.setattr(content, "BLOCK_BYTES", 4 * 10 * 6 * 8)
    looked: list[int] = []
    decoded: list[int] = []

    def read(start: int, stop: int) -> np.ndarray:
        (decoded if work(tmp_path / "a.zarr").exists() else looked).append(stop - start)
        return frames(0, start, stop)

    clips = [Clip("one", 40, read)]
    names = ["red", "green", "blue"]
    ds = clip_dataset(clips, names, (6, 8), timestep="1s", attrs={}, chunks=None)
    prepare(ds, tmp_path / "a.zarr", chunks=5, shards=10, workers=1)  # two share the few frames
    assert sum(decoded) <= 40 + sum(looked)
    assert sum(looked) <= 12  # three frames, and what lies between two that are near


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "float32"])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_constant_field_is_written_too(tmp_path, value, packed):
    """Else it would be missing, which the reader refuses."""
    ds = make_weather(steps=20).rename({T2M: "flag"})
    ds["flag"].values[:] = value
    ds["flag"].attrs = {"units": "1"}
    if packed:
        ds["flag"].encoding = {"dtype": "int16", "_FillValue": -1}
    store = prepare(ds, tmp_path / "a.zarr", chunks=5, shards=10)
    assert array(store, "flag").dtype == (np.int16 if packed else np.float32)
    xr.testing.assert_equal(open_prepared(store), ds)


def test_variables_and_periods_are_chosen(tmp_path):
    ds = make_weather(steps=96)
    ds["10m_u_component_of_wind"] = ds[T2M] * 0 + 1
    store = prepare(ds, tmp_path / "a.zarr", variables="t2m", period="2001-01-02/2001-01-03")
    back = open_prepared(store)
    assert (list(back.data_vars), back.sizes["time"]) == ([T2M], 48)


def test_units_and_latitudes_are_made_canonical(tmp_path):
    ds = make_weather(steps=10)
    celsius = (ds - 273.15).isel(latitude=slice(None, None, -1))
    celsius[T2M].attrs = {"units": "degC"}
    back = open_prepared(prepare(celsius, tmp_path / "a.zarr"))
    xr.testing.assert_allclose(back[T2M], ds[T2M], atol=1e-4)


def test_a_prepared_store_trains_and_predicts(tmp_path):
    ds = make_weather(steps=60, shape=(8, 12))
    store = prepare(ds, tmp_path / "a.zarr", chunks=8, shards=24)
    task = Task("t2m", 3, 3)
    model = partial(SimVPv2, 3, 3, encoder_channels=4, translator_channels=8, translator_blocks=2)
    config = TrainConfig(steps=2, batch_size=4)
    for chunks in ("auto", None):
        back = open_prepared(store, chunks=chunks)
        theirs = predict(back, fit(back, task, model=model, config=config))
        ours = predict(ds, fit(ds, task, model=model, config=config))
        xr.testing.assert_equal(theirs.compute(), ours.compute())


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.int16, 20),
    st.floats(1e-3, 10),
    st.floats(-500, 500),
)
def test_every_packed_number_comes_back(numbers, scale, offset):
    packing = Packing("int16", scale, offset, -32768)
    packed, back = packing.encode(packing.decode(numbers)) or (None, None)
    np.testing.assert_array_equal(packed, numbers)
    np.testing.assert_array_equal(back, packing.decode(numbers))


@pytest.mark.parametrize(
    ("values", "fill"),
    [([1.005], None), ([400.0], None), ([np.nan], None), ([-0.5], -50)],
    ids=["between two numbers", "out of range", "NaN without fill", "the fill itself"],
)
def test_what_does_not_fit_is_not_packed(values, fill):
    assert Packing("int16", 0.01, 0.0, fill).encode(np.array(values, np.float32)) is None


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(-1e3, 1e3, width=32)), st.data()
)
def test_statistics_add(values, data):
    at = data.draw(st.integers(0, len(values)))
    whole, parts = Summary.of(values), Summary.of(values[:at]) + Summary.of(values[at:])
    for key, value in whole.to_dict().items():
        assert parts.to_dict()[key] == (value if value is None else pytest.approx(value, abs=1e-5))


def test_progress_counts_shards_and_steps(tmp_path):
    events: list[dict] = []
    prepare(
        make_weather(steps=50), tmp_path / "a.zarr", chunks=5, shards=20, progress=events.append
    )
    assert [e["stage"] for e in events] == ["write"] * 3 + ["verify"] * 3
    assert [e["step"] for e in events] == [1, 2, 3] * 2
    assert sum(e["samples"] for e in events) == 100


# --- kills, damage, others ------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
from test_prepare import make_weather, prepare, watched, work
store = Path(sys.argv[1])
slowly = lambda start: time.sleep(0.15 * work(store).exists())
prepare(watched(make_weather(steps=400, shape=(6, 10)), slowly, 20), store, chunks=10, shards=20)
"""


def test_a_killed_preparation_goes_on_where_it_was(tmp_path):
    store, ds = tmp_path / "a.zarr", make_weather(steps=400, shape=(6, 10))
    journal = work(store) / "journal.jsonl"
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(store)], env={**os.environ, "PYTHONPATH": path}
    )
    deadline = time.monotonic() + 60
    while not journal.exists() or len(journal.read_bytes().splitlines()) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not store.exists()
    done = len(journal.read_text().splitlines()) - 1
    assert 4 <= done < 20
    with open(journal, "a") as file:
        file.write('{"shard": "2m_temp')  # the kill may come while a line is written

    events: list[dict] = []
    assert prepare(ds, store, chunks=10, shards=20, progress=events.append) == store
    assert [e["step"] for e in events if e["stage"] == "write"] == [*range(done + 1, 21)]
    xr.testing.assert_equal(open_prepared(store), ds)
    assert open_prepared(store).attrs["data_fingerprint"] == fingerprint(ds)
    assert leftovers(tmp_path) == []


@pytest.fixture
def unfinished(tmp_path):
    """A preparation that failed after two shards of five."""
    ds, store = make_weather(steps=50), tmp_path / "a.zarr"
    damaged = watched(ds, Failing(store, InputError("disk.nc: damaged")))
    with pytest.raises(InputError, match=r"disk\.nc"):
        prepare(damaged, store, chunks=5, shards=10, scheduler="synchronous")
    assert not store.exists()
    return ds, store


def test_a_failed_preparation_goes_on_when_the_source_is_mended(unfinished):
    ds, store = unfinished
    events: list[dict] = []
    prepare(ds, store, chunks=5, shards=10, progress=events.append)
    assert [e["step"] for e in events if e["stage"] == "write"] == [3, 4, 5]
    xr.testing.assert_equal(open_prepared(store), ds)


def test_a_line_that_was_cut_short_costs_no_other(unfinished):
    """A kill in the middle of a line, then a failure after one more shard."""
    ds, store = unfinished
    with open(work(store) / "journal.jsonl", "a") as file:
        file.write('{"shard": "2m_temp')
    damaged = watched(ds, Failing(store, InputError("damaged again"), range(30, 40)))
    with pytest.raises(InputError, match="again"):
        prepare(damaged, store, chunks=5, shards=10, scheduler="synchronous")
    events: list[dict] = []
    prepare(ds, store, chunks=5, shards=10, progress=events.append)
    assert [e["step"] for e in events if e["stage"] == "write"] == [4, 5]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": make_weather(steps=50, seed=1)}, "its values differ"),
        ({"source": make_weather(steps=49)}, "49 from 2001"),
        ({"source": make_weather(steps=50, time="2002-01-01")}, "2002-01-01"),
        ({"chunks": 10}, "time steps in a chunk: 5 there, 10 asked for"),
        ({"shards": 20}, "time steps in a shard: 10 there, 20 asked for"),
    ],
    ids=["other values", "fewer times", "other times", "other chunks", "other shards"],
)
def test_an_unfinished_store_of_something_else_is_refused(unfinished, change, reason):
    ds, store = unfinished
    how = {"source": ds, "chunks": 5, "shards": 10} | change
    with pytest.raises(InputError, match=reason) as caught:
        prepare(how["source"], store, chunks=how["chunks"], shards=how["shards"])
    assert "overwrite=True" in str(caught.value)
    assert len(leftovers(store.parent)) == 1  # still there to go on with
    prepare(how["source"], store, chunks=how["chunks"], shards=how["shards"], overwrite=True)
    xr.testing.assert_equal(open_prepared(store), how["source"])
    assert leftovers(store.parent) == []


def test_a_failure_before_the_first_shard_leaves_nothing(tmp_path):
    ds = make_weather(steps=20)
    ds[T2M].values[3, 1, 1] = np.inf
    with pytest.raises(InputError, match="infinite values in time steps 0 to"):
        prepare(ds, tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_an_error_stops_the_other_threads(tmp_path):
    failing = Failing(tmp_path / "a.zarr", InputError("damaged"), range(200))
    source = watched(make_weather(steps=200), failing, 2)
    with pytest.raises(InputError, match="damaged"):
        prepare(source, tmp_path / "a.zarr", chunks=2, shards=2, workers=2)
    assert 0 < failing.raised < 10
    assert list(tmp_path.iterdir()) == []


def test_a_finished_store_is_not_written_again(tmp_path):
    ds, store = make_weather(steps=20), tmp_path / "a.zarr"
    prepare(ds, store)
    events: list[dict] = []
    assert prepare(ds, store, progress=events.append) == store
    assert events == []
    with pytest.raises(InputError, match="exists and holds something else"):
        prepare(make_weather(steps=21), store)


def test_overwriting_replaces_stores_only(tmp_path):
    store, keep = tmp_path / "a.zarr", tmp_path / "work"
    prepare(make_weather(steps=20), store)
    prepare(make_weather(steps=21), store, overwrite=True)
    assert open_prepared(store).sizes["time"] == 21
    keep.mkdir()
    (keep / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"choose another name$"):
        prepare(make_weather(steps=20), keep, overwrite=True)
    assert (keep / "thesis.tex").exists()


def test_what_does_not_read_back_equal_is_refused_and_written_anew(tmp_path):
    ds, store = make_weather(steps=50), tmp_path / "a.zarr"

    def spoil(event: dict) -> None:
        if (event["stage"], event["step"]) == ("write", 5):
            chunks = work(store) / "store.zarr" / T2M / "c"
            file = sorted(p for p in chunks.rglob("*") if p.is_file())[2]
            data = bytearray(file.read_bytes())
            data[100] ^= 1
            file.write_bytes(data)

    with pytest.raises(InputError, match="1 of 5 shards do not read back"):
        prepare(ds, store, chunks=5, shards=10, progress=spoil)
    assert not store.exists()
    events: list[dict] = []
    prepare(ds, store, chunks=5, shards=10, progress=events.append)
    assert [e["step"] for e in events if e["stage"] == "write"] == [5]
    xr.testing.assert_equal(open_prepared(store), ds)


def test_a_full_disk_says_so_and_can_go_on(tmp_path):
    ds, store = make_weather(steps=50), tmp_path / "a.zarr"
    full = watched(ds, Failing(store, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(InputError, match="the disk is full after 2 of 5 shards"):
        prepare(full, store, chunks=5, shards=10, scheduler="synchronous")
    prepare(ds, store, chunks=5, shards=10)
    xr.testing.assert_equal(open_prepared(store), ds)


def test_two_at_once_are_refused(tmp_path):
    ds, store = make_weather(steps=20), tmp_path / "a.zarr"
    inside, go = threading.Event(), threading.Event()

    def waiting(_: int) -> None:
        if work(store).exists():
            inside.set()
            assert go.wait(30)

    first = threading.Thread(target=prepare, args=(watched(ds, waiting), store))
    first.start()
    assert inside.wait(30)
    with pytest.raises(InputError, match=rf"pid {os.getpid()}\) is preparing"):
        prepare(ds, store)
    go.set()
    first.join()
    xr.testing.assert_equal(open_prepared(store), ds)
    assert leftovers(tmp_path) == []


def test_a_lost_shard_is_an_error_when_read(tmp_path):
    store = prepare(make_weather(steps=50), tmp_path / "a.zarr", chunks=5, shards=10)
    shutil.rmtree(store / T2M / "c" / "3")
    with pytest.raises(InputError, match="missing"):
        open_prepared(store, chunks=None)[T2M].values  # noqa: B018


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"chunks": 0}, "at least 1"),
        ({"chunks": 4, "shards": 6}, "multiple"),
        ({"scheduler": "processes"}, "scheduler must be"),
        ({"variables": "zz"}, "'zz' is not in the Dataset"),
        ({"period": "1999"}, "no data"),
    ],
)
def test_wrong_settings_are_named(tmp_path, how, reason):
    with pytest.raises(InputError, match=reason):
        prepare(make_weather(steps=20), tmp_path / "a.zarr", **how)
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_no_dataset(tmp_path):
    with pytest.raises(InputError, match="describe"):
        prepare(tmp_path, tmp_path / "a.zarr")  # type: ignore[arg-type]


def test_what_is_no_prepared_store_is_not_opened(tmp_path):
    with pytest.raises(InputError, match="found nothing"):
        open_prepared(tmp_path / "no.zarr")
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "b.zarr", zarr_format=2)
    with pytest.raises(InputError, match=r"b\.zarr"):
        open_prepared(tmp_path / "b.zarr")
    with pytest.raises(InputError, match="no statistics"):
        statistics(make_weather(steps=2))


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        prepare(make_weather(steps=2), tmp_path / "file" / "a.zarr")


def test_the_journal_is_plain_json(unfinished):
    _, store = unfinished
    lines = (work(store) / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line).get("region") for line in lines] == [None, f"{T2M}/0", f"{T2M}/10"]
