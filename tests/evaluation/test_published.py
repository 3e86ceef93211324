"""The tables of published figures: every one of them, and this run's rows beside them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stforecast.errors import InputError
from stforecast.evaluation import benchmark_names, benchmark_table, evaluate

PEER = Path(__file__).parents[2].parent / "shared" / "PEER.md"
LEAD = "prediction_timedelta"
NAMES = [
    *("weatherbench_t2m", "taxibj", "moving_mnist", "kth_10_20", "kth_10_40"),
    *("caltech", "robonet", "bridgedata"),
]


def row(name, model, protocol=""):
    table = benchmark_table(name)
    found = table[(table.index == model) & table["protocol"].str.contains(protocol)]
    assert len(found) == 1
    return found.iloc[0]


def test_the_benchmarks():
    assert benchmark_names() == NAMES
    for name in NAMES:
        table = benchmark_table(name)
        assert table.columns[-1] == "protocol"
        assert table.index.name == "model"
        assert table["protocol"].str.startswith(("paper", "public code")).all()
        assert not table.duplicated().any()
        # The same model occurs once under one protocol.
        assert not table.reset_index()[["model", "protocol"]].duplicated().any()


@pytest.mark.parametrize(
    ("name", "model", "protocol", "expected"),
    [
        ("weatherbench_t2m", "SimVPv2", "1979-2015", {"mae": 0.7475, "rmse": 1.0785}),
        ("weatherbench_t2m", "Copying", "1979-2015", {"mae": 1.6906, "rmse": 2.4838}),
        ("weatherbench_t2m", "gSTA", "2010-2015.*50 epochs", {"mae": 0.6567, "rmse": 1.051}),
        ("taxibj", "SimVPv2", "x 100", {"mse_x100": 34.8, "mae_sum": 15.6, "ssim_paper": 0.984}),
        ("moving_mnist", "SimVPv2-L", "200 epochs", {"mse_sum": 21.81, "gflops": 152.2}),
        ("moving_mnist", "SimVPv2-S", "2,000 epochs", {"mse_sum": 15.05}),
        ("kth_10_20", "SimVPv2", "wrap-around", {"ssim_paper": 0.913, "psnr_paper": 34.24}),
        ("kth_10_40", "SimVP", "data range 2", {"ssim_paper": 0.886, "psnr_paper": 32.93}),
        ("caltech", "SimVPv2", "KITTI", {"psnr_paper": 33.2, "lpips_x100": 3.11}),
        ("robonet", "SimVPv2", "peak 1", {"ssim_paper": 0.856, "psnr": 22.78}),
        ("bridgedata", "SimVP", "not known", {"ssim_paper": 0.863, "psnr": 22.60}),
    ],
)
def test_rows(name, model, protocol, expected):
    found = row(name, model, protocol)
    assert {k: found[k] for k in expected} == expected


def test_protocols_say_how_weights_were_chosen():
    for name in ("weatherbench_t2m", "taxibj", "moving_mnist"):
        first = benchmark_table(name)["protocol"].iloc[0]
        assert re.search("chooses the (best )?weights on the test", first)


@pytest.mark.skipif(not PEER.exists(), reason=f"no {PEER}")
def test_every_figure_of_the_source_is_there():
    """Rows as "model a/b/c" between the headings; all are in a table, with these figures."""
    text = PEER.read_text()
    text = text[text.index("## Published figures") : text.index("## Speed")]
    text = text.replace("*", "").replace("\u2013", "-")
    known = {}
    for name in NAMES:
        for model, values in benchmark_table(name).iterrows():
            figures = [v for v in values.iloc[:-1] if not np.isnan(v)]
            known.setdefault(model, []).append(figures)
    figures = r"((?:[\d.]+\d|-)(?:/(?:[\d.]+\d|-))+)"
    # "SimVP 0.905/33.72; 0.886/32.93": the second is of another benchmark.
    found = re.findall(rf"([A-Z][\w+-]*|gSTA) {figures}(?:[;,] {figures})?", text)
    assert len(found) == 74
    assert sum(bool(second) for *_, second in found) == 9
    for model, *both in found:
        for part in filter(None, both):
            values = [float(f) for f in part.split("/") if f != "-"]
            assert values in known[model], (model, values)


# --- this run's rows ------------------------------------------------------------------------------


def make_scores(channels=1, **options):
    rng = np.random.default_rng(0)
    time = pd.date_range("1970-01-01", periods=9, freq="1s").to_numpy()
    lead = np.array([1, 2], dtype="m8[s]").astype("m8[ns]")
    names = ["red", "green", "blue"][:channels]
    frames = {n: rng.random((9, 12, 8)) for n in names}
    truth = xr.Dataset({n: (("time", "y", "x"), f) for n, f in frames.items()}, {"time": time})
    at = np.arange(5)[:, None] + [1, 2]
    forecast = xr.Dataset(
        {
            n: (("time", LEAD, "y", "x"), f[at] + 0.1 * rng.normal(size=(5, 2, 12, 8)))
            for n, f in frames.items()
        },
        {"time": time[:5], LEAD: lead},
    )
    return evaluate(forecast, truth, **options)


def test_scores_of_a_run_come_as_evaluate_gives_them():
    scores = make_scores(
        3, metrics=("mse_sum", "mae_sum", "ssim", "psnr", "bias"), data_range=1, protocol="paper"
    )
    overall = scores["frames_overall"]
    table = benchmark_table("kth_10_20", {"ours": scores})
    assert table.columns.tolist() == ["ssim_paper", "psnr_paper", "ssim", "psnr", "protocol"]
    for metric in ("ssim_paper", "psnr_paper", "ssim", "psnr"):
        assert table.loc["ours", metric] == float(overall.sel(metric=metric))
    assert table.loc["ours", "protocol"] == "5 initialisations; grid 12 x 8"
    assert table["ssim"].drop("ours").isna().all()  # nobody published that
    flows = benchmark_table("taxibj", {"ours": scores}).loc["ours"]
    assert flows["mse_x100"] == pytest.approx(100 * float(overall.sel(metric="mse_sum")))
    assert flows["mae_sum"] == float(overall.sel(metric="mae_sum"))
    assert "psnr" not in flows
    assert "1970-01-01T00:00:00 to 1970-01-01T00:00:04" in flows["protocol"]


def make_weather_scores(**options):
    rng = np.random.default_rng(1)
    time = pd.date_range("2018-01-01", periods=9, freq="1h").to_numpy()
    space = {"latitude": [-60.0, 0, 60], "longitude": [0.0, 90, 180, 270]}
    values = 280 + rng.normal(size=(9, 3, 4))
    dims, attrs = ("time", *space), {"units": "K"}
    truth = xr.Dataset({"2m_temperature": (dims, values, attrs)}, {"time": time, **space})
    forecast = truth.isel(time=slice(8)).expand_dims({LEAD: np.array([1], "m8[h]")}, axis=1)
    return evaluate(
        forecast.assign_coords({LEAD: np.array([3600 * 10**9], "m8[ns]")}), truth, **options
    )


def test_weighted_scores_have_columns_of_their_own():
    both = make_weather_scores(weights=("area", "uniform"))
    table = benchmark_table("weatherbench_t2m", {"ours": both, "theirs": both})
    assert table.columns.tolist() == ["mae", "rmse", "rmse_area", "mae_area", "protocol"]
    overall = both["2m_temperature_overall"]
    for metric in ("mae", "rmse"):
        expected = overall.sel(metric=metric, weights="uniform")
        assert table.loc["ours", metric] == float(expected)
        expected = overall.sel(metric=metric, weights="area")
        assert table.loc["ours", f"{metric}_area"] == float(expected)
    assert table.index.tolist()[-2:] == ["ours", "theirs"]
    weighted = benchmark_table("weatherbench_t2m", {"ours": make_weather_scores()}).loc["ours"]
    assert np.isnan(weighted["rmse"])
    assert weighted["rmse_area"] > 0
    assert "2018-01-01T00:00:00 to 2018-01-01T07:00:00" in weighted["protocol"]


def test_a_mapping_of_values():
    values = {"mse_sum": 0.348, "ssim": 0.9, "protocol": "two epochs"}
    table = benchmark_table("taxibj", {"this run": values, "other": {"mae_sum": np.float32(2)}})
    assert table.loc["this run", "mse_x100"] == pytest.approx(34.8)
    assert table.loc["this run", "protocol"] == "two epochs"
    assert table.loc["other", "protocol"] == "not stated"
    assert table.columns.tolist() == ["mse_x100", "mae_sum", "ssim_paper", "ssim", "protocol"]


@pytest.mark.parametrize(
    ("name", "results", "message"),
    [
        ("kth", {}, "no benchmark 'kth'; there are weatherbench_t2m, taxibj"),
        ("caltech", {"us": {"SSIM": 0.9}}, "'us': 'SSIM' is no metric; the table has ssim_paper"),
        ("caltech", {"us": xr.Dataset()}, "'us': expected what stforecast.evaluate gives"),
        ("caltech", {"us": make_scores(2, metrics="mse")}, "several variables .*red_overall"),
        (
            "weatherbench_t2m",
            {"us": make_weather_scores(regions=("global", "tropics"))},
            "select one region",
        ),
    ],
)
def test_what_has_no_place_is_refused(name, results, message):
    with pytest.raises(InputError, match=message):
        benchmark_table(name, results)


OF_THE_PAPER = {
    "weatherbench_t2m": ("ERA5", "32 x 64", "2017-01-01 to 2018-12-31"),
    "taxibj": ("TaxiBJ", "32 x 32", "2016-03-14 to 2016-04-10"),
    "moving_mnist": ("Moving MNIST", "64 x 64", "mnist_test_seq.npy, 10000 of 10000 sequences"),
    "kth_10_20": ("KTH human actions", "128 x 128", "9 persons, 6 actions"),
    "kth_10_40": ("KTH human actions", "128 x 128", "9 persons, 6 actions"),
    "caltech": ("Caltech Pedestrian", "128 x 160", "66 sequences"),
    "robonet": ("RoboNet", "120 x 160", "trajectories of a list"),
    "bridgedata": ("BridgeData", "120 x 160", "trajectories of a list"),
}


@pytest.mark.parametrize("name", NAMES)
def test_published_rows_stand_beside_their_own_data_only(name):
    sample = dict(zip(("data", "grid", "test"), OF_THE_PAPER[name], strict=True))
    ours = {"this run": {"mae": 1.0, "protocol": "ours"}}
    table = benchmark_table(name, ours, sample=sample)
    assert len(table) == len(benchmark_table(name)) + 1
    assert table.attrs == {}
    for key in sample:
        table = benchmark_table(name, ours, sample=sample | {key: "another"})
        assert table.index.tolist() == ["this run"]
        assert list(table) == list(benchmark_table(name, ours))
        why = table.attrs["not_comparable"]
        assert why.startswith("not comparable: ")
        assert "another" in why
        assert sample[key] in why.split("published for ")[1]
        assert name in why
    assert benchmark_table(name, {}, sample=sample | {"grid": "another"}).empty


def test_the_graph_models_rows_stand_beside_their_own_test():
    """One window a day from 00 UTC, of another period: not SimVPv2's test, and so it is said."""
    sample = dict(zip(("data", "grid"), OF_THE_PAPER["weatherbench_t2m"], strict=False))
    sample["test"] = "2017-03-14 to 2018-12-30, every 24. initialisation"
    table = benchmark_table("weatherbench_t2m", sample=sample)
    graph = ["TGCN", "STGCN", "MSTGCN", "ASTGCN", "GCGRU", "DCRNN", "AGCRN", "CLCSTN", "CLCRN"]
    assert table.index.tolist() == graph
    assert "published for ERA5 32 x 64, test 2017-01-01" in table.attrs["not_comparable"]
    protocols = benchmark_table("weatherbench_t2m")["protocol"]
    assert set(protocols[graph]) == set(table["protocol"])
    assert "Not to be compared with SimVPv2's row" in protocols["CLCRN"]
    assert "FrameCopy), not persistence" in protocols["Copying"]
    assert "CLCRN" not in protocols[["SimVPv2"]].iloc[0]
    assert benchmark_table("weatherbench_t2m", sample=sample | {"grid": "8 x 8"}).empty
