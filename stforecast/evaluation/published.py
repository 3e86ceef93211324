"""The published figures of the SimVPv2 paper's benchmarks, beside one's own.

A column holds one measure only: columns bear the names of :func:`stforecast.evaluate`'s metrics
(``ssim_paper`` is not ``ssim``, ``rmse_area`` not ``rmse``), and what cannot be had in a column's
measure stays empty there. What a column cannot tell (years, epochs, how the best weights were
chosen) stands in ``protocol``, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import InputError
from .metrics import METRICS

__all__ = ["BENCHMARKS", "benchmark_table", "cost_table"]

# What tables print for our metrics: name of the column: (metric, factor).
_SCALED = {"mse_x100": ("mse_sum", 100.0), "lpips_x100": ("lpips", 100.0)}
_OTHERS = ("gflops", "seconds_per_epoch", "fps")  # of the network, not of its forecasts


@dataclass(frozen=True)
class Benchmark:
    """Published rows of one benchmark.

    Parameters
    ----------
    columns : tuple of str
        Measures, in the order of `tables`' figures.
    tables : mapping of str to str
        From a protocol to its rows, one a line: "model: figures", with - for none.
    dated : bool
        Whether initialisations are dates (of weather and traffic) or only numbers (of clips).
    """

    columns: tuple[str, ...]
    tables: Mapping[str, str]
    dated: bool = False


_CLIPS = (
    "SSIM of data range 2 and PSNR with 8-bit wrap-around, as in the public code of the time (for "
    "PSNR inferred from its height)"
)
_ROBOTS = (
    "paper: 2 -> 10 frames of 3x120x160, 100 epochs; not in the authors' code: in the one whose "
    "settings these rows follow (PredBench) PSNR is of float32 with peak 1, as their height agrees "
    "with; that their SSIM is that of the other benchmarks is not known"
)

BENCHMARKS: dict[str, Benchmark] = {
    "weatherbench_t2m": Benchmark(
        ("mae", "rmse"),
        {
            "paper, Table IV: ERA5 at 5.625 degrees, trained 1979-2015, tested 2017-2018, "
            "unweighted; mean of three trials; its code chooses the weights on the test years": """
                Copying: 1.6906 2.4838
                TGCN: 3.8638 5.8554
                STGCN: 4.3525 6.8600
                MSTGCN: 1.2199 1.9203
                ASTGCN: 1.4896 2.4622
                GCGRU: 1.3256 2.1721
                DCRNN: 1.3232 2.1874
                AGCRN: 1.2551 1.9314
                CLCSTN: 1.3325 2.1239
                CLCRN: 1.1688 1.8825
                ConvLSTM: 1.0529 1.4606
                PredRNN: 0.8268 1.2119
                PredRNN++: 0.8054 1.1776
                SimVP: 0.7882 1.1483
                SimVPv2: 0.7475 1.0785""",
            "public code's table: ERA5 at 5.625 degrees, trained 2010-2015, tested 2017-2018, "
            "unweighted; 50 epochs; best weights chosen on the test years": """
                ConvLSTM: 0.7949 1.233
                E3D-LSTM: 0.8059 1.262
                PhyDNet: 8.7370 16.91
                PredRNN: 0.7246 1.154
                PredRNN++: 0.7883 1.278
                MIM: 0.8716 1.336
                MAU: 0.7036 1.119
                PredRNNv2: 0.7986 1.243
                SimVP: 0.7037 1.113
                gSTA: 0.6567 1.051
                ViT: 0.6712 1.070
                Swin: 0.6735 1.069
                MLP-Mixer: 0.7011 1.119
                ConvMixer: 0.7073 1.126
                PoolFormer: 0.6715 1.075
                TAU: 0.6707 1.078""",
        },
        dated=True,
    ),
    "taxibj": Benchmark(
        ("mse_x100", "mae_sum", "ssim_paper"),
        {
            "paper: flows on [0, 1], 4 -> 4 half hours, last four weeks test, 50 epochs; MSE (x "
            "100) and MAE summed over both flows and all cells; SSIM of data range 2; its code "
            "chooses the best weights on the test weeks": """
                ConvLSTM: 48.5 17.7 0.978
                PredRNN: 46.4 17.1 0.971
                PredRNN++: 44.8 16.9 0.977
                MIM: 42.9 16.6 0.971
                E3D-LSTM: 43.2 16.9 0.979
                PhyDNet: 41.9 16.2 0.982
                SimVP: 41.4 16.2 0.982
                SimVPv2: 34.8 15.6 0.984""",
        },
        dated=True,
    ),
    "moving_mnist": Benchmark(
        (*_OTHERS, "mse_sum", "mae_sum", "ssim_paper"),
        {
            "paper: 10 -> 10 frames, 200 epochs; MSE and MAE summed over pixels; SSIM of data "
            "range 2; FPS at batch 1 on a V100; its code chooses the weights on the test set": """
                ConvLSTM-S: 14.45 190 7.50 46.26 142.18 0.878
                PhyDNet: 15.33 452 4.62 35.68 96.70 0.917
                MAU: 17.79 535 3.08 30.64 88.17 0.928
                SimVP: 19.43 261 27.15 32.22 89.19 0.927
                SimVPv2-S: 16.53 156 44.09 26.60 77.32 0.940
                ConvLSTM-L: 127.01 879 6.24 29.88 95.05 0.925
                PredRNN: 115.95 869 3.97 25.04 76.26 0.944
                PredRNN++: 171.73 1280 3.71 22.45 69.70 0.950
                MIM: 179.18 1388 3.08 23.66 74.37 0.946
                E3D-LSTM: 298.87 2693 3.73 36.19 78.64 0.932
                CrevNet: 270.68 1166 1.01 30.15 86.28 0.935
                PredRNNv2: 116.59 899 3.49 27.73 82.17 0.937
                SwinLSTM: 69.87 820 6.51 27.44 78.69 0.938
                MMVP: 93.55 402 21.33 33.29 89.61 0.926
                SimVPv2-L: 152.20 796 21.23 21.81 66.43 0.952""",
            "paper: the same, trained as long as 600 epochs": """
                SimVPv2-S: - - - 22.37 - -""",
            "paper: the same, trained as long as 1,000 epochs": """
                SimVPv2-S: - - - 16.47 - -""",
            "paper: the same, trained as long as 2,000 epochs": """
                SimVPv2-S: - - - 15.05 - -""",
            "paper, translators: 200 epochs": """
                ViT: - - - 35.15 95.87 0.914
                Swin: - - - 29.70 84.05 0.933
                PoolFormer: - - - 31.79 88.48 0.927
                MLP-Mixer: - - - 29.52 83.36 0.934
                ConvMixer: - - - 32.09 88.93 0.926
                IncepU: - - - 32.22 89.19 0.927
                gSTA: - - - 26.60 77.32 0.940""",
        },
    ),
    "kth_10_20": Benchmark(
        ("ssim_paper", "psnr_paper"),
        {
            f"paper: persons 1-16 for training, 17-25 for the test; 100 epochs; {_CLIPS}": """
                PredRNN++: 0.865 28.47
                E3D-LSTM: 0.879 29.31
                STMFANet: 0.893 29.85
                SimVP: 0.905 33.72
                SimVPv2: 0.913 34.24""",
        },
    ),
    "kth_10_40": Benchmark(
        ("ssim_paper", "psnr_paper"),
        {
            f"paper: persons 1-16 for training, 17-25 for the test; 100 epochs; {_CLIPS}": """
                PredRNN++: 0.741 25.21
                E3D-LSTM: 0.810 27.24
                STMFANet: 0.851 27.56
                SimVP: 0.886 32.93
                SimVPv2: 0.895 33.35""",
        },
    ),
    "caltech": Benchmark(
        ("ssim_paper", "psnr_paper", "lpips_x100"),
        {
            f"paper: trained on KITTI for 50 epochs (its code: 100), 10 -> 1 frame; {_CLIPS}": """
                CrevNet: 0.925 29.3 -
                STMFANet: 0.927 29.1 5.89
                SimVP: 0.940 33.1 3.81
                SimVPv2: 0.949 33.2 3.11""",
        },
    ),
    "robonet": Benchmark(
        ("ssim_paper", "psnr"),
        {
            _ROBOTS: """
                ConvLSTM: 0.836 22.15
                PredRNN++: 0.849 22.66
                SimVP: 0.854 22.73
                SimVPv2: 0.856 22.78""",
        },
    ),
    "bridgedata": Benchmark(
        ("ssim_paper", "psnr"),
        {
            _ROBOTS: """
                ConvLSTM: 0.832 21.36
                PredRNN++: 0.856 22.34
                SimVP: 0.863 22.60
                SimVPv2: 0.865 22.62""",
        },
    ),
}


def benchmark_table(
    name: str, results: Mapping[str, xr.Dataset | Mapping[str, Any]] | None = None
) -> pd.DataFrame:
    """Put this run's scores beside the published ones of a benchmark.

    Parameters
    ----------
    name : str
        "weatherbench_t2m", "taxibj", "moving_mnist", "kth_10_20", "kth_10_40", "caltech",
        "robonet" or "bridgedata".
    results : mapping of str to xarray.Dataset or mapping, optional
        Rows to add, by name of model: what :func:`stforecast.evaluate` gives (its overall scores,
        of all variables together where there are several), or a mapping of metric to value with
        evaluate's names, in which ``"protocol"`` may say how they came about.

    Returns
    -------
    pandas.DataFrame
        Published rows, then those of `results`. Index ``model``; columns are metrics by evaluate's
        names, ``mse_x100`` and ``lpips_x100`` (the metric times 100), and ``protocol``. Scores
        weighted by area are in columns of their own, such as ``rmse_area``, which published rows do
        not have; and so are ``ssim`` and ``psnr`` where the published ones are ``ssim_paper`` and
        ``psnr_paper``. Other scores of a Dataset are left out.

    Raises
    ------
    InputError
        If there is no such benchmark, a mapping has names that are no metrics, or scores are of
        several variables that have no common value.

    Examples
    --------
    >>> ours = {"this run": {"ssim_paper": 0.9, "psnr_paper": 33.0, "protocol": "10 epochs"}}
    >>> table = benchmark_table("kth_10_20", ours)
    >>> table.loc[["SimVPv2", "this run"], "psnr_paper"].tolist()
    [34.24, 33.0]
    """
    if name not in BENCHMARKS:
        raise InputError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    rows: list[dict[str, Any]] = []
    for protocol, text in benchmark.tables.items():
        for line in text.strip().splitlines():
            model, figures = line.split(":")
            values = [float("nan") if f == "-" else float(f) for f in figures.split()]
            row = dict(zip(benchmark.columns, values, strict=True))
            rows.append({"model": model.strip(), **row, "protocol": protocol})
    for model, scores in (results or {}).items():
        if isinstance(scores, xr.Dataset):
            own = _row_of_scores(str(model), scores, benchmark)
        else:
            own = _row_of_mapping(str(model), scores, benchmark)
        rows.append({"model": str(model), **own})
    table = pd.DataFrame(rows).set_index("model")
    columns = [*benchmark.columns, *(c for c in table.columns if c not in benchmark.columns)]
    columns.remove("protocol")
    return table[[*columns, "protocol"]]


#: GFLOPs, seconds an epoch and frames a second (batch 1) of Moving MNIST, on a V100 (Table II).
_COSTS = """
    ConvLSTM-S: 14.45 190 7.50 46.26
    PhyDNet: 15.33 452 4.62 35.68
    MAU: 17.79 535 3.08 30.64
    SimVP: 19.43 261 27.15 32.22
    SimVPv2-S: 16.53 156 44.09 26.60
    ConvLSTM-L: 127.01 879 6.24 29.88
    PredRNN: 115.95 869 3.97 25.04
    PredRNN++: 171.73 1280 3.71 22.45
    MIM: 179.18 1388 3.08 23.66
    E3D-LSTM: 298.87 2693 3.73 36.19
    CrevNet: 270.68 1166 1.01 30.15
    PredRNNv2: 116.59 899 3.49 27.73
    SwinLSTM: 69.87 820 6.51 27.44
    MMVP: 93.55 402 21.33 33.29
    SimVPv2-L: 152.20 796 21.23 21.81
"""


def cost_table() -> pd.DataFrame:
    """Cost and error of the paper's models on Moving MNIST.

    :func:`stforecast.plots.performance` draws it.

    Returns
    -------
    pandas.DataFrame
        Index ``model``; columns ``gflops``, ``seconds_per_epoch``, ``frames_per_second`` (batch 1)
        and ``mse_sum`` after 200 epochs. All of one V100: not to be mixed with other machines'.
    """
    columns = ["gflops", "seconds_per_epoch", "frames_per_second", "mse_sum"]
    rows = dict(line.strip().split(": ") for line in _COSTS.strip().splitlines())
    figures = {model: [float(x) for x in text.split()] for model, text in rows.items()}
    table = pd.DataFrame.from_dict(figures, orient="index", columns=columns)
    return table.rename_axis("model")


def _wanted(column: str, benchmark: Benchmark) -> bool:
    """Whether a metric has a place in the table: as published, or the same by other means."""
    stem = column.removesuffix("_area").removesuffix("_custom").removesuffix("_paper")
    return stem in {known.removesuffix("_paper") for known in benchmark.columns}


def _row_of_scores(model: str, scores: xr.Dataset, benchmark: Benchmark) -> dict[str, Any]:
    names = [str(v) for v in scores.data_vars if str(v).endswith("_overall")]
    chosen = "frames_overall" if "frames_overall" in names else names[0] if names else ""
    if not names or "metric" not in scores.dims:
        raise InputError(f"{model!r}: expected what stforecast.evaluate gives, or a mapping")
    if chosen != "frames_overall" and len(names) > 1:
        raise InputError(
            f"{model!r}: scores of several variables ({', '.join(names)}) have no common value; "
            "ask evaluate for a metric of whole frames too, or give one variable"
        )
    extra = set(map(str, scores[chosen].dims)) - {"metric", "weights"}
    if extra:
        raise InputError(f"{model!r}: select one {' and '.join(sorted(extra))} of the scores first")
    overall = scores[chosen]
    if "weights" not in overall.dims:
        overall = overall.expand_dims(weights=[scores.attrs.get("weights", "uniform")])
    found: dict[str, float] = {}
    for weights in overall["weights"].values.tolist():
        suffix = "" if weights == "uniform" else f"_{weights}"
        for metric in overall["metric"].values.tolist():
            value = float(overall.sel(weights=weights, metric=metric))
            found[f"{metric}{suffix}"] = value
    found |= {c: k * found[m] for c, (m, k) in _SCALED.items() if m in found}
    row: dict[str, Any] = {c: v for c, v in found.items() if _wanted(c, benchmark)}
    attrs = scores.attrs
    words = f"{attrs.get('initialisations', '?')} initialisations"
    if benchmark.dated and "first_initialisation" in attrs:
        words += f", {attrs['first_initialisation']} to {attrs['last_initialisation']}"
    return {**row, "protocol": f"{words}; grid {attrs.get('grid', '?')}"}


def _row_of_mapping(model: str, scores: Mapping[str, Any], benchmark: Benchmark) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in scores.items():
        if key == "protocol":
            continue
        stem = key.removesuffix("_area").removesuffix("_custom")
        if stem not in METRICS and key not in (*_SCALED, *_OTHERS):
            raise InputError(
                f"{model!r}: {key!r} is no metric; the table has {', '.join(benchmark.columns)}, "
                f"and takes {', '.join(METRICS)}, these with _area, "
                f"{', '.join((*_SCALED, *_OTHERS))}"
            )
        row[key] = float(np.asarray(value))
    for column, (metric, factor) in _SCALED.items():
        if column in benchmark.columns and metric in row:
            row.setdefault(column, factor * row.pop(metric))
    return {**row, "protocol": str(scores.get("protocol", "not stated"))}
