"""How many slots a day has in files of TaxiBJ's form: half hours, hours and others."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

from stforecast.datasets.describe import describe
from stforecast.datasets.flow import open_taxibj
from stforecast.errors import InputError


def write(path, slots, days: int = 3):
    """A file of whole days of these slots; the first flow is 1, the second 2."""
    dates = pd.date_range("2014-04-01", periods=days)
    text = [f"{d:%Y%m%d}{s:02d}" for d in dates for s in slots]
    flows = np.broadcast_to(np.array([1, 2], "f4")[:, None, None], (len(text), 2, 4, 3))
    with h5py.File(path, "w") as file:
        file["date"], file["data"] = np.array(text, "S11"), flows
    return path


@pytest.mark.parametrize(
    ("name", "a_day", "step"),
    [
        ("NYC14_M16x8_T60_NewEnd.h5", 24, "60min"),
        ("BJ13_M32x32_T30_InOut.h5", 48, "30min"),
        ("BJ13_M32x32_T15_InOut.h5", 96, "15min"),
        ("BJ13_M32x32_T10_InOut.h5", 144, "10min"),
        ("hourly.h5", 24, "60min"),
        ("half.h5", 48, "30min"),
        ("quarter.h5", 96, "15min"),
        ("five.h5", 288, "5min"),
    ],
)
def test_slots_follow_from_names_and_dates(tmp_path, name, a_day, step):
    ds = open_taxibj(write(tmp_path / name, range(1, a_day + 1)))
    expected = pd.date_range("2014-04-01", periods=3 * a_day, freq=step)
    assert ds.indexes["time"].equals(expected)
    unit = {24: "hour", 48: "half hour"}.get(a_day, f"{1440 // a_day} minutes")
    assert ds["inflow"].attrs["long_name"].endswith(f"the cell per {unit}")
    assert ds.attrs["title"].endswith(f"4 x 3 cells, every {unit}")
    assert unit in describe(tmp_path / name).reason


def test_bikes_that_arrive_flow_in(tmp_path):
    """BikeNYC has the trips that begin before those that end; TaxiBJ has inflow first."""
    ds = open_taxibj(write(tmp_path / "NYC14_M16x8_T60_NewEnd.h5", range(1, 25)))
    assert (float(ds["inflow"].max()), float(ds["outflow"].max())) == (2, 1)
    assert ds.attrs["title"].startswith("BikeNYC: flows of bicycles in New York")
    assert open_taxibj(tmp_path).equals(ds)  # its directory
    ds = open_taxibj(write(tmp_path / "BJ13_M32x32_T30_InOut.h5", range(1, 49)))
    assert (float(ds["inflow"].max()), float(ds["outflow"].max())) == (1, 2)


def test_what_does_not_tell_is_asked_for(tmp_path):
    path = write(tmp_path / "part.h5", range(7, 21))
    with pytest.raises(InputError, match="its slots, up to 20, do not tell how many a day has"):
        open_taxibj(path)
    assert open_taxibj(path, slots=48).indexes["time"][0] == pd.Timestamp("2014-04-01T03:00")
    assert open_taxibj(path, slots=24).indexes["time"][0] == pd.Timestamp("2014-04-01T06:00")
    with pytest.raises(InputError, match="slots must divide"):
        open_taxibj(path, slots=7)
    with pytest.raises(InputError, match="SS from 01 to 12"):
        open_taxibj(path, slots=12)


def test_a_name_that_contradicts_its_dates_is_refused(tmp_path):
    path = write(tmp_path / "BJ13_M32x32_T30_InOut.h5", range(1, 25))
    with pytest.raises(InputError, match=r"T30 in its name says 48 slots a day, .* 01 to 24") as e:
        open_taxibj(path)
    assert "slots=24 or slots=48" in str(e.value)
    assert open_taxibj(path, slots=24).indexes["time"][-1] == pd.Timestamp("2014-04-03T23:00")
    path = write(tmp_path / "NYC14_M16x8_T60_NewEnd.h5", range(1, 49))
    with pytest.raises(InputError, match="T60 in its name says 24 slots a day"):
        open_taxibj(path)


def test_files_of_other_slots_are_not_joined(tmp_path):
    write(tmp_path / "BJ13_M32x32_T60_InOut.h5", range(1, 25))
    text = write(tmp_path / "BJ14_M32x32_T30_InOut.h5", range(1, 49))
    with h5py.File(text, "a") as file:
        file["date"][...] = [d.replace(b"2014", b"2015") for d in file["date"][:]]
    with pytest.raises(InputError, match=r"BJ14.* has 48 slots a day, .*BJ13.* 24"):
        open_taxibj(tmp_path)
