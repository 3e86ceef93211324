"""The command ``stforecast``: what it does with files, as a person types it."""

from __future__ import annotations

import ast

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import SHARED

from stforecast import __main__
from stforecast.cli.begin import script_of
from stforecast.cli.plan import plan
from stforecast.forecasting import load
from stforecast.forecasting.predict import predict
from stforecast.testing.flow import write_nyc_flow
from stforecast.testing.moving_mnist import write_mnist
from stforecast.testing.weather import make_weather, relabel

NAMES = {"2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Ninety days, six-hourly, north first, from -180 degrees: as a stranger has them."""
    ds = make_weather(360, timestep="6h", shape=(6, 8), seed=1)
    theirs = relabel(ds, names=NAMES).isel(lat=slice(None, None, -1))
    path = tmp_path_factory.mktemp("data") / "t2m.nc"
    theirs.to_netcdf(path)
    return path


def test_every_command_is_there_and_says_what_it_takes(typed, capsys):
    for name in __main__.COMMANDS:
        code, said = typed(name, "--help")
        assert code == 0
        assert f"usage: stforecast {name}" in said.out


def test_describe_says_what_a_file_is_or_what_is_wrong(typed, file, tmp_path):
    code, said = typed("describe", file)
    assert code == 0
    assert "360 every 06:00:00" in said.out
    code, said = typed("describe", tmp_path / "nothing.nc")
    assert code == 2
    assert "no such file or directory" in said.err


def test_begin_writes_a_script_for_the_file_and_runs_it(typed, file, tmp_path):
    out = tmp_path / "begun"
    code, said = typed("begin", file, "--output", out, "--steps", 2)
    assert code == 0, said.err
    script = (out / "forecast.py").read_text()
    assert max(map(len, script.splitlines())) <= 100 + len(str(file))
    assert f'("{file}", chunks=None)' in script
    assert 'timestep="6h"' in script
    assert "SimVPv2: skill vs LinearRegression" in said.out
    assert (out / "maps.png").read_bytes()[:4] == b"\x89PNG"
    assert load(out / "model").task.input_steps == 4

    # A script that somebody has changed is not replaced.
    (out / "forecast.py").write_text(script + "# mine\n")
    code, said = typed("begin", file, "--output", out, "--no-run")
    assert code == 2
    assert "is another script" in said.err
    assert (out / "forecast.py").read_text().endswith("# mine\n")


def test_begin_can_write_without_running(typed, file, tmp_path):
    code, _ = typed("begin", file, "--output", tmp_path / "a", "--no-run")
    assert code == 0
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["forecast.py"]
    code, said = typed("begin", file, "--variables", "z500", "--output", tmp_path / "b")
    assert code == 2
    assert "has no geopotential_500: there are 2m_temperature" in said.err
    assert not (tmp_path / "b").exists()


@pytest.mark.usefixtures("without_matplotlib")
def test_fit_then_predict(typed, file, tmp_path):
    out = tmp_path / "fitted"
    line = ["fit", file, "--output", out, "--steps", 2, "--input-steps", 2, "--target-steps", 1]
    line += ["--model", "convlstm", "--test", "2001-03-20/2001-03-31"]
    line += ["--validation", "2001-03-01/2001-03-19", "--train", "2001-01/2001-02"]
    code, said = typed(*line)
    assert code == 0, said.err
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["model"]) == {"ConvLSTM", "Persistence", "LinearRegression"}
    model = load(out / "model")
    assert model.training["command"].startswith("stforecast fit ")
    assert "2001-02-28" in model.training["period"]

    # A forecast has the file's own labels, and is the library's.
    store = tmp_path / "forecast.nc"
    window = "2001-03-25/2001-03-26"
    code, said = typed(
        "predict", file, "-o", store, "--model", out / "model", "--init-time", window
    )
    assert code == 0, said.err
    with xr.open_dataset(file) as ds, xr.open_dataset(store) as forecast:
        xr.testing.assert_equal(forecast["lat"], ds["lat"])
        assert forecast["t2m"].dims == ("time", "prediction_timedelta", "lat", "lon")
        assert forecast.sizes["time"] == 8
        there = predict(ds, model, init_time=slice("2001-03-25", "2001-03-26"))
        np.testing.assert_allclose(forecast["t2m"], there["t2m"], rtol=1e-6)

    code, said = typed("predict", file, "-o", tmp_path / "forecast.csv")
    assert code == 2
    assert "NAME.nc or NAME.zarr" in said.err


def test_predict_takes_texts_along_the_times(typed, tmp_path):
    ds = make_weather(14, shape=(32, 64)).rename({"2m_temperature": "t2m", "time": "valid_time"})
    stream = np.array(["0001"] * 14, object)
    ds = ds.assign_coords(expver=("valid_time", stream))
    ds.to_netcdf(tmp_path / "cds.nc", format="NETCDF3_64BIT")
    code, said = typed("predict", tmp_path / "cds.nc", "-o", tmp_path / "out.nc")
    assert not code, said
    with xr.open_dataset(tmp_path / "out.nc") as made:
        np.testing.assert_array_equal(made["t2m"], predict(ds)["t2m"])


def test_prepare_takes_its_places_by_position(typed, file, tmp_path):
    code, said = typed("prepare", file, tmp_path / "a.zarr")
    assert code == 0, said.err
    assert "holds 360 time steps, verified" in said.out


def test_the_plan_is_for_these_data(tmp_path):
    flow = write_nyc_flow(tmp_path / "flow")
    found = plan(flow)
    assert found.task.outputs == ("inflow", "outflow")
    assert found.task.lower == 0
    assert (found.task.input_steps, found.task.target_steps) == (4, 4)

    digits = write_mnist(tmp_path / "mnist")
    found = plan(digits)
    assert (found.opener, found.periods) == ("open_moving_mnist", {})
    assert list(found.floors(found.parts()["train"])) == ["Persistence"]
    assert "clip_strip" in script_of(found, str(digits), 3)

    # Land is missing in an ocean's data, and months have several lengths.
    ocean = make_weather(60, timestep="1D", shape=(4, 6)).rename({"2m_temperature": "sst"})
    ocean["time"] = pd.date_range("2010-01-01", periods=60, freq="MS")
    ocean["sst"] = ocean["sst"].where(ocean["longitude"] > 0)
    ocean.to_netcdf(tmp_path / "sst.nc")
    found = plan(tmp_path / "sst.nc")
    assert found.monthly
    assert (found.task.nan, found.task.timestep, found.task.reference) == (
        "mask",
        "30D",
        "climatology",
    )
    script = script_of(found, "sst.nc", 3)
    assert 'nan="mask"' in script
    ast.parse(script)


SMALL = {
    "era5_t2m_italy/2m_temperature.nc": {"latitude": slice(0, 6), "longitude": slice(0, 6)},
    "ersst_v5/sst.mnmean.nc": {"lat": slice(40, 46), "lon": slice(20, 28)},
    "ncep_air_temperature/air_temperature.zarr": {"lat": slice(0, 6), "lon": slice(0, 8)},
    "plasim_t2m/2m_temperature_2013_5.625deg.nc": {"lat": slice(10, 16), "lon": slice(0, 8)},
    "nyc_flow/NYBike": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_begin_on_real_files(typed, tmp_path, name):
    """A part of each file, as it comes: the script runs, scores and maps."""
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    if SMALL[name] is not None:
        opener = xr.open_zarr if path.suffix == ".zarr" else xr.open_dataset
        with opener(path) as ds:
            part = ds.drop_encoding().isel(SMALL[name])
            path = tmp_path / path.name
            if path.suffix == ".zarr":
                part.to_zarr(path, zarr_format=2)
            else:
                part.to_netcdf(path)
    out = tmp_path / "begun"
    code, said = typed("begin", path, "--output", out, "--steps", 2)
    assert code == 0, said.err
    assert "skill vs LinearRegression" in said.out
    assert (out / "maps.png").read_bytes()[:4] == b"\x89PNG"
