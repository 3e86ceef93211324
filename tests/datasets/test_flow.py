"""Traffic flows: TaxiBJ in the owners' and the authors' form, New York, the usual week, damage."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import pipeline
from hypothesis import given
from hypothesis import strategies as st

from stforecast.baselines.persistence import Persistence
from stforecast.baselines.weekly import WeeklyClimatology
from stforecast.conventions.gate import canonicalize, check
from stforecast.conventions.times import time_gaps
from stforecast.datasets.flow import FlowScale, open_nyc_flow, open_taxibj, recognise
from stforecast.datasets.flow_files import Channel
from stforecast.datasets.numpy_files import NpzMember
from stforecast.datasets.periods import select_period, split
from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.forecasting.predict import predict
from stforecast.models.simvp import SimVPv2
from stforecast.task import Task, window_starts
from stforecast.testing.flow import make_flow, write_nyc_flow, write_taxibj, write_taxibj_npz
from stforecast.training.config import TrainConfig
from stforecast.training.fit import fit

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "nyc_flow"
TASK = Task(("inflow", "outflow"), 4, 4, "30min")
HALF_HOUR = np.timedelta64(30, "m")


def tiny():
    return SimVPv2(
        4,
        4,
        2,
        encoder_channels=4,
        translator_channels=8,
        translator_blocks=2,
        mlp_ratio=1.0,
        drop_path=0,
    )


# --- TaxiBJ ---------------------------------------------------------------------------------------


def test_taxibj_has_the_owners_dates_and_numbers(tmp_path):
    directory = write_taxibj(tmp_path, missing=(30,))
    ds = open_taxibj(directory)
    assert list(ds.data_vars) == ["inflow", "outflow"]
    check(ds, timestep=HALF_HOUR)
    assert {v.attrs["units"] for v in ds.data_vars.values()} == {"1"}
    for name in ("title", "source", "license", "references"):
        assert ds.attrs[name]
    # Slot 15 begins at 07:00; step 30 of each file is missing, and the time between the files.
    assert ds["time"].values[0] == np.datetime64("2013-07-01T07:00")
    assert ds["time"].values[-1] == np.datetime64("2015-12-30T12:30")
    with h5py.File(directory / "BJ14_M32x32_T30_InOut.h5") as file:
        data, dates = file["data"][:], file["date"][:]
    assert dates[0] == b"2014030115"
    there = select_period(ds, 2014)
    np.testing.assert_array_equal(there["inflow"], data[:, 0])
    np.testing.assert_array_equal(there["outflow"], data[:, 1])
    slots = there["time"].dt.hour * 2 + there["time"].dt.minute // 30 + 1
    assert [int(d[8:]) for d in dates] == slots.values.tolist()
    assert np.datetime64("2014-03-03T10:00") not in there["time"].values  # its step 30
    assert len(time_gaps(ds["time"].values, HALF_HOUR)) == 83 + 4  # nights, and the missing ones


def test_no_window_crosses_a_gap(tmp_path):
    ds = open_taxibj(write_taxibj(tmp_path, missing=(30,)))
    starts = window_starts(ds["time"].values, TASK.step, TASK.window)
    # Twelve steps a day have five windows; a missing one, seventh of its day, leaves none there.
    assert len(starts) == 5 * (84 - 4)


def test_the_last_four_weeks_are_the_test(tmp_path):
    ds = open_taxibj(write_taxibj(tmp_path))
    parts = split(ds, **{k: ds.attrs[f"{k}_period"] for k in ("train", "validation", "test")})
    days = {k: np.unique(p["time"].values.astype("M8[D]")) for k, p in parts.items()}
    assert len(days["test"]) == len(days["validation"]) == 28
    assert days["test"][-1] == np.datetime64("2015-12-30")
    assert days["validation"][-1] + 1 == days["test"][0]
    assert days["train"][-1] + 1 == days["validation"][0]
    assert sum(p.sizes["time"] for p in parts.values()) == ds.sizes["time"]
    for name, part in parts.items():
        xr.testing.assert_identical(open_taxibj(tmp_path, name), part)


def test_one_file_opens_by_itself(tmp_path):
    directory = write_taxibj(tmp_path, days=(8, 8))
    ds = open_taxibj(directory / "BJ13_M32x32_T30_InOut.h5")
    assert ds.sizes == {"time": 95, "y": 8, "x": 8}
    assert "test_period" not in ds.attrs
    with pytest.raises(InputError, match="too short for a split"):
        open_taxibj(directory / "BJ13_M32x32_T30_InOut.h5", "test")


@pytest.mark.parametrize("chunks", ["auto", None, {"time": 7}])
def test_opening_reads_no_flows(tmp_path, monkeypatch, chunks):
    directory, npz = write_taxibj(tmp_path / "h5"), write_taxibj_npz(tmp_path / "npz")
    taxi = write_nyc_flow(tmp_path)

    def refuse(*_):
        raise AssertionError("flows were read")

    with monkeypatch.context() as patch:
        patch.setattr(Channel, "_read", refuse)
        patch.setattr(NpzMember, "array", property(refuse))
        opened = [
            open_taxibj(directory, chunks=chunks),
            open_taxibj(npz, "train", chunks=chunks),
            open_nyc_flow(taxi, chunks=chunks),
        ]
        canonical = [canonicalize(ds)[0] for ds in opened]
        with pytest.raises(AssertionError, match="were read"):
            opened[0]["inflow"][:3].values  # noqa: B018
    for ds, again in zip(opened, canonical, strict=True):
        assert (ds["inflow"].chunks is None) == (chunks is None)
        extra = [name for name in ("clip", "step") if name in ds.coords]
        xr.testing.assert_equal(ds.drop_vars(extra), again)  # it was canonical already
        np.testing.assert_array_equal(
            ds["outflow"][5:2:-1, ::2, 1].values, ds["outflow"].values[5:2:-1, ::2, 1]
        )
        assert pickle.loads(pickle.dumps(ds)).equals(ds)


def test_another_file_has_another_name_in_dask(tmp_path):
    before = open_taxibj(write_taxibj(tmp_path, seed=0))["inflow"].data.name
    assert open_taxibj(tmp_path)["inflow"].data.name == before
    assert open_taxibj(write_taxibj(tmp_path, seed=1))["inflow"].data.name != before


@pytest.mark.parametrize("compressed", [False, True])
def test_the_authors_windows_become_clips(tmp_path, compressed):
    path = write_taxibj_npz(tmp_path, windows=40, compressed=compressed)
    ds = open_taxibj(path, "test")
    with np.load(path) as file:
        x, y = file["X_test"], file["Y_test"]
    check(ds, timestep=HALF_HOUR)
    assert len(window_starts(ds["time"].values, TASK.step, TASK.window)) == 10
    frames = np.stack([ds["inflow"].values, ds["outflow"].values], 1).reshape(10, 8, 2, 8, 8)
    np.testing.assert_array_equal(frames, np.concatenate([x, y], 1))
    assert ds["inflow"].encoding == {}
    assert float(ds["inflow"].min()) == -1


def test_the_authors_windows_get_a_validation_part(tmp_path):
    path = write_taxibj_npz(tmp_path, windows=40)
    sizes = {
        k: open_taxibj(tmp_path, k).sizes["time"] // 8 for k in ("train", "validation", "test")
    }
    # Windows 36 to 39 are for validation; 29 to 35 share half hours with 36, and are in neither.
    assert sizes == {"train": 29, "validation": 4, "test": 10}
    assert open_taxibj(path).sizes["time"] == 8 * 50
    train, valid = (open_taxibj(path, k)["inflow"].values for k in ("train", "validation"))
    steps = {frame.tobytes() for frame in train}
    assert not [frame for frame in valid if frame.tobytes() in steps]


# --- New York -------------------------------------------------------------------------------------


def test_nyc_parts_lie_one_behind_the_other(tmp_path):
    path = write_nyc_flow(tmp_path, days=(16, 4, 4))
    ds = open_nyc_flow(path)
    check(ds, timestep=HALF_HOUR)
    assert not time_gaps(ds["time"].values, HALF_HOUR)
    parts = split(ds, **{k: ds.attrs[f"{k}_period"] for k in ("train", "validation", "test")})
    for name, (stem, days) in {
        "train": ("train", 16),
        "validation": ("val", 4),
        "test": ("test", 4),
    }.items():
        with np.load(path / f"flow_{stem}.npz") as file:
            np.testing.assert_array_equal(parts[name]["inflow"], file["flow"][..., 0])
            np.testing.assert_array_equal(parts[name]["outflow"], file["flow"][..., 1])
        assert parts[name].sizes["time"] == 48 * days
    xr.testing.assert_identical(open_nyc_flow(tmp_path), ds)  # the directory with both: taxis
    with pytest.raises(InputError, match="no NYBike"):
        open_nyc_flow(tmp_path, "bike")


@pytest.mark.skipif(not REAL.exists(), reason=f"no data at {REAL}")
@pytest.mark.parametrize(("kind", "first"), [("taxi", "2016-01-01"), ("bike", "2016-08-01")])
def test_the_real_dates_are_right(kind, first):
    ds = open_nyc_flow(REAL, kind, chunks=None)
    time = pd.DatetimeIndex(ds["time"].values)
    assert (time[0], len(time)) == (pd.Timestamp(first), 90 * 48)
    # The owners' own marks: day of the week from Sunday, then the half hour, for every step.
    directory = REAL / ("NYTaxi" if kind == "taxi" else "NYBike")
    names = [directory / f"ex_knlg_{part}.npz" for part in ("train", "val", "test")]
    marks = np.concatenate([np.load(name)["external_knowledge"] for name in names])
    assert (marks[:, :7].argmax(1) == (time.day_of_week + 1) % 7).all()
    assert (marks[:, 7:55].argmax(1) == time.hour * 2 + time.minute // 30).all()
    # People arrive after they have left: drop-offs follow pick-ups.
    inflow, outflow = (ds[name].sum(("y", "x")).values for name in ("inflow", "outflow"))
    after = np.corrcoef(outflow[:-1], inflow[1:])[0, 1]
    assert after > np.corrcoef(outflow[1:], inflow[:-1])[0, 1] + 0.03
    if kind == "taxi":
        days = ds["outflow"].sum(("y", "x")).resample(time="1D").sum()
        assert (
            str(days["time"].values[int(days.values.argmin())])[:10] == "2016-01-23"
        )  # the blizzard
        total = ds["outflow"].sum(("y", "x"))
        assert (
            total.sel(time=slice("2016-03-13T02:00", "2016-03-13T02:30")).max() < 20
        )  # no such hour
        assert total.sel(time="2016-03-13T03:00") > 5000


# --- scaling --------------------------------------------------------------------------------------


def test_scaling_is_by_the_training_period_alone(tmp_path):
    ds = open_taxibj(write_taxibj(tmp_path))
    train = open_taxibj(tmp_path, "train")
    scale = FlowScale.of(train)
    both = np.stack([train["inflow"].values, train["outflow"].values])
    assert (scale.low, scale.high) == (both.min(), both.max())
    unit, signed = scale.scale(train), scale.scale(train, to=(-1, 1))
    for scaled, low in ((unit, 0), (signed, -1)):
        assert scaled["inflow"].chunks is not None  # still lazy
        assert scaled["inflow"].dtype == np.float32
        assert scaled["inflow"].attrs["units"] == "1"
        assert min(float(scaled[v].min()) for v in scaled) == low
        assert max(float(scaled[v].max()) for v in scaled) == 1
    xr.testing.assert_allclose((signed + 1) / 2, unit, atol=1e-6)
    xr.testing.assert_allclose(scale.restore(scale.scale(ds)), ds, atol=1e-3)
    xr.testing.assert_allclose(scale.restore(signed, to=(-1, 1)), train, atol=1e-3)
    with pytest.raises(InputError, match="cannot be scaled"):
        FlowScale.of(train * 0)


@given(st.floats(-1e4, 1e4), st.floats(1e-2, 1e4), st.floats(-1e4, 1e4))
def test_scaling_comes_back(low, span, value):
    scale = FlowScale(low, low + span)
    assert scale.restore(scale.scale(value, (-1, 1)), (-1, 1)) == pytest.approx(value, abs=1e-6)
    assert scale.scale(low) == 0
    assert scale.scale(low + span, (-1, 1)) == pytest.approx(1)


# --- the usual week -------------------------------------------------------------------------------


def weeks(count, seed=0):
    """A history whose week is known: the time of the week in it, times a factor a week."""
    time = pd.date_range("2016-01-06", periods=count * 336, freq="30min")  # a Wednesday
    slot = (time.day_of_week * 48 + time.hour * 2 + time.minute // 30).to_numpy()
    factor = np.random.default_rng(seed).integers(1, 9, count)[np.arange(len(time)) // 336]
    value = np.float32(slot * factor)[:, None, None] * np.ones((1, 2, 3), np.float32)
    coords = {"time": time}
    data = {"inflow": (("time", "y", "x"), value), "outflow": (("time", "y", "x"), -value)}
    return xr.Dataset(data, coords), slot, factor


def test_the_usual_week_is_the_mean_of_the_weeks():
    ds, slot, factor = weeks(4)
    usual = WeeklyClimatology.fit(ds.chunk(time=100), TASK)
    assert usual.dataset.sizes["week_hour"] == 336
    assert set(usual.dataset["weeks"].values.tolist()) == {4}
    mean = factor.reshape(4, 336)[:, 0].mean()
    later = pd.date_range("2017-03-05T23:30", periods=3, freq="30min")  # a Sunday night
    found = usual.at(later.to_numpy())
    np.testing.assert_allclose(found["inflow"][:, 0, 0], [335 * mean, 0, mean])
    np.testing.assert_allclose(found["outflow"], -found["inflow"])
    forecast = usual.predict(ds, init_time=ds["time"].values[20:23])
    expected = slot[20:23, None] + np.arange(1, 5)
    np.testing.assert_allclose(forecast["inflow"][:, :, 1, 2], expected * mean)


def test_the_usual_week_may_be_the_median_of_the_weeks():
    ds, slot, factor = weeks(5)
    usual = WeeklyClimatology.fit(ds.chunk(time=100), TASK, statistic="median")
    middle = np.median(factor.reshape(5, 336)[:, 0])
    found = usual.at(ds["time"].values[:300:7])["inflow"]
    np.testing.assert_allclose(found[:, 1, 2], slot[:300:7] * middle)
    with pytest.raises(InputError, match="'mean' or 'median'"):
        WeeklyClimatology.fit(ds, TASK, statistic="mode")


def test_a_time_of_the_week_without_data_is_refused(tmp_path):
    ds = open_taxibj(write_taxibj(tmp_path))
    usual = WeeklyClimatology.fit(ds, TASK)
    with pytest.raises(InputError, match="no data on a Tuesday at 03:00"):
        usual.at(np.array(["2015-12-01T08:00", "2015-12-01T03:00"], "M8[ns]"))
    usual.save(tmp_path / "usual.nc")
    with xr.open_dataset(tmp_path / "usual.nc") as again:
        xr.testing.assert_equal(WeeklyClimatology(again, TASK).dataset, usual.dataset)
    with pytest.raises(InputError, match="has no"):
        WeeklyClimatology(usual.dataset, Task("speed", 4, 4, "30min"))
    with pytest.raises(InputError, match="NaN"):
        WeeklyClimatology.fit(ds.where(ds["inflow"] > 5), TASK)


# --- through the library --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["h5", "npz", "nyc"])
def test_fit_predict_evaluate(tmp_path, form):
    if form == "h5":
        ds = open_taxibj(write_taxibj(tmp_path))
        parts = split(ds, **{k: ds.attrs[f"{k}_period"] for k in ("train", "validation", "test")})
    elif form == "npz":
        path = write_taxibj_npz(tmp_path)
        parts = {k: open_taxibj(path, k) for k in ("train", "validation", "test")}
    else:
        ds = open_nyc_flow(write_nyc_flow(tmp_path))
        parts = split(ds, **{k: ds.attrs[f"{k}_period"] for k in ("train", "validation", "test")})
    config = TrainConfig(steps=2, batch_size=2, val_windows=4)
    forecaster = fit(
        parts["train"], TASK, model=tiny, config=config, validation=parts["validation"]
    )
    forecast = predict(parts["test"], forecaster)
    assert forecast["inflow"].dims == ("time", "prediction_timedelta", "y", "x")
    every = predict(parts["test"], Persistence(TASK), init_time=parts["test"]["time"].values[3:4])
    scores = evaluate(every, parts["test"])
    assert np.isfinite(scores["outflow_overall"]).all()


def test_the_synthetic_city_is_plausible():
    time = pd.date_range("2016-01-04", periods=7 * 48, freq="30min")
    flow = make_flow(time, (5, 6))
    assert (flow >= 0).all()
    assert (flow == np.round(flow)).all()
    night, noon = flow[time.hour == 3].mean(), flow[time.hour == 15].mean()
    assert night < noon / 5
    assert flow[time.day_of_week < 5].mean() > flow[time.day_of_week > 4].mean()


def test_recognise(tmp_path):
    directory = write_taxibj(tmp_path / "h5", days=(2, 2))
    npz = write_taxibj_npz(tmp_path / "npz")
    taxi = write_nyc_flow(tmp_path / "nyc")
    assert recognise(directory).startswith("open_taxibj: TaxiBJ, 2 HDF5 files")
    assert recognise(directory / "BJ13_M32x32_T30_InOut.h5").startswith("open_taxibj: ")
    assert recognise(npz).startswith("open_taxibj: ")
    assert recognise(npz.parent) == recognise(npz)
    assert recognise(taxi) == recognise(taxi.parent) == "open_nyc_flow: flows in New York (NYTaxi)"
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other/a.npz", x=np.ones(3))
    (tmp_path / "other/b.h5").write_text("text")
    (tmp_path / "other/c.npz").write_text("text")
    for path in (tmp_path / "other", *(tmp_path / "other").iterdir(), tmp_path / "nowhere"):
        assert recognise(path) is None


# --- damage ---------------------------------------------------------------------------------------

BJ = "BJ13_M32x32_T30_InOut.h5"


def h5(change):
    """A damaged file of TaxiBJ: `change` gets the open file."""

    def make(tmp_path):
        directory = write_taxibj(tmp_path / "data", days=(4, 4))
        with h5py.File(directory / BJ, "r+") as file:
            change(file)
        return open_taxibj, directory

    return make


def dates(change):
    def edit(file):
        text = file["date"][:]
        change(text)
        file["date"][...] = text

    return h5(edit)


def replaced(name, value):
    def edit(file):
        old = file[name][:]
        del file[name]
        if value is not None:
            file[name] = value(old)

    return h5(edit)


def swap(text):
    text[[3, 4]] = text[[4, 3]]


def at(index, value):
    def change(text):
        text[index] = value

    return change


def cut(write, opener, name, share=0.6):
    def make(tmp_path):
        path = write(tmp_path / "data")
        file = path / name if path.is_dir() else path
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
        return opener, path

    return make


def flipped_on_disk(tmp_path):
    path = write_taxibj(tmp_path / "data", days=(4, 4))
    with h5py.File(path / BJ, "r+") as file:
        data = file["data"][:]
        del file["data"]
        file.create_dataset("data", data=data, chunks=(8, 2, 8, 8), compression="gzip")
        where = file["data"].id.get_chunk_info(1)
    blob = bytearray((path / BJ).read_bytes())
    for i in range(where.byte_offset + 10, where.byte_offset + 60):
        blob[i] ^= 0xFF
    (path / BJ).write_bytes(bytes(blob))
    return lambda p: open_taxibj(p).load(), path


def overlapping(tmp_path):
    path = write_taxibj(tmp_path / "data", days=(4, 4))
    (path / "BJ15_M32x32_T30_InOut.h5").write_bytes((path / BJ).read_bytes())
    return open_taxibj, path


def other_grid(tmp_path):
    path = write_taxibj(tmp_path / "data", days=(4, 4))
    write_taxibj(tmp_path / "other", days=(4, 4), shape=(6, 8))
    (tmp_path / "other" / BJ).replace(path / BJ)
    return open_taxibj, path


def text_file(name, opener):
    def make(tmp_path):
        (tmp_path / name).write_text("not what it seems")
        return opener, tmp_path / name

    return make


def empty_directory(tmp_path):
    (tmp_path / "data").mkdir()
    return open_taxibj, tmp_path / "data"


def npz(**changes):
    def make(tmp_path):
        path = write_taxibj_npz(tmp_path / "data")
        with np.load(path) as file:
            arrays = dict(file)
        for key, change in changes.items():
            array = arrays.pop(key)
            if change is not None:
                arrays[key] = change(array)
        np.savez(path, **arrays)
        return open_taxibj, path

    return make


def nyc(name, **arrays):
    def make(tmp_path):
        path = write_nyc_flow(tmp_path)
        np.savez(path / name, **arrays)
        return open_nyc_flow, path

    return make


def nyc_file(name, text):
    def make(tmp_path):
        path = write_nyc_flow(tmp_path)
        (path / name).unlink() if text is None else (path / name).write_text(text)
        return open_nyc_flow, path

    return make


def objects(array):
    return np.array([None, {}], dtype=object)


DAMAGE = {
    "HDF5 truncated -> cannot be opened": (cut(write_taxibj, open_taxibj, BJ), f"{BJ}.*truncated"),
    "HDF5 is a text -> cannot be opened": (text_file(BJ, open_taxibj), f"{BJ}.*no HDF5"),
    "HDF5 chunk changed on disk -> error on reading": (flipped_on_disk, f"{BJ}.*flow' cannot"),
    "HDF5 without date -> named": (replaced("date", None), "no 'date' in it.*found data"),
    "HDF5 without data -> named": (replaced("data", None), "no 'data' in it.*found date"),
    "HDF5 data of one flow -> shape": (replaced("data", lambda d: d[:, :1]), r"\(47, 1, 8, 8\)"),
    "HDF5 data without channels -> shape": (replaced("data", lambda d: d[:, 0]), r"\(47, 8, 8\)"),
    "HDF5 with fewer dates than steps -> counts": (
        replaced("date", lambda d: d[1:]),
        "47 steps.*46",
    ),
    "date with slot 49 -> named": (dates(at(5, b"2013070149")), "'2013070149'"),
    "date with slot 00 -> named": (dates(at(5, b"2013070100")), "'2013070100'"),
    "date on 32 July -> named": (dates(at(5, b"2013073201")), "'2013073201'"),
    "date that is no number -> named": (dates(at(5, b"yesterday!")), "'yesterday!'"),
    "dates out of order -> named": (dates(swap), "'2013070118' .step 4. is out of order"),
    "date twice -> named": (dates(at(6, b"2013070120")), "'2013070120' .step 6. occurs twice"),
    "two files of one period -> overlap": (overlapping, "BJ13.*BJ15.*overlap"),
    "files on two grids -> named": (other_grid, r"grid of \(8, 8\).*\(6, 8\)"),
    "no such path -> named": (lambda p: (open_taxibj, p / "nowhere"), "nowhere: no such"),
    "empty directory -> named": (empty_directory, "data: no BJ13.*found nothing"),
    "unknown split -> named": (lambda p: (lambda q: open_taxibj(q, "dev"), p), "found 'dev'"),
    "npz truncated -> damaged": (cut(write_taxibj_npz, open_taxibj, ""), "dataset.npz.*truncated"),
    "npz is a text -> damaged": (text_file("dataset.npz", open_taxibj), "dataset.npz.*no .npz"),
    "npz without Y_test -> named": (npz(Y_test=None), "no array 'Y_test'.*found X_train"),
    "npz of pickled objects -> refused": (npz(X_test=objects), "pickled.*can run code"),
    "npz with fewer Y than X -> shapes": (npz(Y_train=lambda a: a[1:]), "X_train is.*Y_train"),
    "npz on two grids -> shapes": (npz(Y_test=lambda a: a[..., :5]), "X_test is.*Y_test"),
    "npz flat -> shapes": (npz(X_train=lambda a: a.ravel()), "X_train is"),
    "flow_val.npz truncated -> damaged": (
        cut(write_nyc_flow, open_nyc_flow, "flow_val.npz"),
        "flow_val.npz.*truncated",
    ),
    "flow_test.npz missing -> named": (nyc_file("flow_test.npz", None), "flow_test.npz: no such"),
    "flow_val.npz without flow -> named": (nyc("flow_val.npz", x=np.ones(3)), "'flow'.*found x"),
    "flow_val.npz of pickled objects -> refused": (
        nyc("flow_val.npz", flow=objects(0)),
        "pickled.*can run code",
    ),
    "flow_val.npz on another grid -> named": (
        nyc("flow_val.npz", flow=np.ones((48, 5, 5, 2))),
        "flow_val.npz.*5, 5",
    ),
    "flow_val.npz of three dimensions -> shape": (
        nyc("flow_val.npz", flow=np.ones((48, 5, 5))),
        r"\(48, 5, 5\)",
    ),
    "no table of dates -> named": (nyc_file("external_knowledge.csv", None), "external_knowledge"),
    "table of dates with a hole -> named": (
        nyc_file("external_knowledge.csv", "date\n1-1-2016\n3-1-2016\n"),
        "not one day after the other",
    ),
    "table without dates -> named": (
        nyc_file("external_knowledge.csv", "date\nMonday\n"),
        "day-month-year",
    ),
    "fewer dates than steps -> counts": (
        nyc_file("external_knowledge.csv", "date\n1-1-2016\n2-1-2016\n"),
        "1152 half hours.*only 2 days",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage(case, tmp_path):
    make, words = DAMAGE[case]
    opener, path = make(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(InputError) as caught:
        opener(path)
    assert re.search(words, str(caught.value)), caught.value
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


# --- the pipeline ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["h5", "npz", "nyc"])
def test_pipeline(tmp_path, monkeypatch, capsys, form):
    write = {"h5": write_taxibj, "npz": write_taxibj_npz, "nyc": write_nyc_flow}[form]
    data = write(tmp_path / "data")
    out = tmp_path / "out"
    options = ["--data", data, "--steps", 2, "--batch-size", 2, "--output", out]
    assert pipeline("taxibj", *options, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    rows = {line.split("  ")[0].strip(): line for line in shown.splitlines()}
    assert {"this run", "persistence"} <= set(rows)
    assert "SimVPv2" not in rows  # that is of Beijing's 32 x 32 cells
    found = {"h5": r"TaxiBJ \d+ x \d+, test", "npz": r"TaxiBJ \d+ x \d+,", "nyc": r"NYTaxi \d+ x"}
    assert re.search(f"not comparable: {found[form]}.*published for TaxiBJ 32 x 32", shown)
    assert ("usual week" in rows) == (form != "npz")
    names = {"model", "run", "forecast.zarr", "scores.csv", "scores.nc", "report.html"}
    names |= {"maps_inflow.png", "maps_outflow.png", "error_inflow.png", "error_outflow.png"}
    names |= {"mse_sum_by_lead.png", "scorecard.png", "table.csv"}
    assert names <= {p.name for p in out.iterdir()}
    assert "scores are of values on [0, 1]" in (out / "report.html").read_text()
    if form == "nyc":  # two steps in, it is the anomaly that persists: far better than copying
        forecast, truth = xr.open_zarr(out / "forecast.zarr"), open_nyc_flow(data)
        assert forecast.sizes["time"] == 4 * 48 - 7
        times = forecast["time"].values
        ours, theirs = (
            float(evaluate(f, truth)["inflow_overall"].sel(metric="rmse"))
            for f in (forecast, predict(truth, Persistence(TASK), init_time=times))
        )
        assert ours < 0.9 * theirs
        # The bundle is one of vehicles, and what is written says no name that is none.
        again = predict(truth.compute(), out / "model", init_time=times)
        np.testing.assert_allclose(again["inflow"], forecast["inflow"], rtol=1e-3, atol=0.05)
        assert forecast.attrs["source"] == "stforecast SimVPv2"
        assert forecast.attrs["training_period"] == truth.attrs["train_period"].replace(
            "/", ":00/"
        ) + (":00")


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"no data at {REAL}")
@pytest.mark.parametrize("name", ["", "NYBike"])
def test_real_flows_beat_copying_and_the_usual_week(tmp_path, monkeypatch, capsys, name):
    arguments = ["--data", REAL / name, "--steps", 300, "--output", tmp_path]
    assert pipeline("taxibj", *arguments, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out.split("In vehicles:")[1]
    rmse = {row[0]: float(row[1]) for row in re.findall(r"(\S.*?) +RMSE +(\S+)", shown)}
    assert rmse["this run"] < 0.9 * rmse["usual week"] < rmse["usual week"] < rmse["persistence"]


def test_the_paper_preset_is_the_papers(tmp_path, monkeypatch):
    seen = {}

    def spy(name, parts, task, network, config, output, **options):
        seen.update(locals())
        raise KeyboardInterrupt

    monkeypatch.setattr("stforecast.cli.recipes.train_and_score", spy)
    data = write_taxibj(tmp_path)
    arguments = ["--data", data, "--preset", "paper", "--output", tmp_path / "out"]
    assert pipeline("taxibj", *arguments, monkeypatch=monkeypatch) == 130
    network = seen["network"]()
    assert sum(p.numel() for p in network.parameters()) == 9_961_058
    assert not network.predict_change
    assert network.settings["drop_path"] == 0.1
    config, task = seen["config"], seen["task"]
    assert (config.epochs, config.steps, config.batch_size) == (50, None, 16)
    assert (config.learning_rate, config.schedule, config.warmup_epochs) == (5e-4, "cosine", 5)
    assert (task.input_steps, task.target_steps, task.timestep) == (4, 4, "30min")
    # Nothing in the model's place; every table has the strong floor.
    assert set(seen["options"]["references"](None)) == {"usual week", "linear regression"}
    assert float(seen["parts"]["train"]["inflow"].min()) >= 0
    assert float(seen["parts"]["train"]["outflow"].max()) <= 1
