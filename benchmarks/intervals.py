"""How often intervals called 95% hold the truth, where errors resemble their neighbours.

    python benchmarks/intervals.py [--check] [--replications 2000]

Two models are equally good, so an interval of their difference should hold 0 in 95% of cases. Their
losses are simulated with a lag correlation from one initialisation to the next; each lead time is a
replication. Tables in Markdown: the method of ``compare``, equally weighted cosines as published,
and the block bootstrap (of an eighth of the replications); the median width beside
1.96 standard deviations of the mean to either side, which only a simulation knows. `--check` exits
with 1 where the first column of the first table is not between 93 and 97%; the others, of processes
that the method does not assume, have a quarter of the replications. Some ten minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr

from stforecast.conventions.axes import LEAD
from stforecast.evaluation import compare

CORRELATIONS, LENGTHS = (0.5, 0.9, 0.97), (100, 400, 2000)
CELLS = 10  # of the field whose squared errors are averaged
FROM, TO = 93.0, 97.0


def autoregressive(phi: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Stationary AR(1) series of variance 1 along the first axis."""
    x = rng.normal(size=shape)
    for i in range(1, len(x)):
        x[i] = phi * x[i - 1] + np.sqrt(1 - phi**2) * x[i]
    return x


def gaussian(phi: float, n: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Losses whose difference is an AR(1) process."""
    return 10 + autoregressive(phi, (n, count), rng), np.full((n, count), 10.0)


def noisy(phi: float, n: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """The same beside as much white noise: lag-one correlation is phi / 2."""
    return gaussian(phi, n, count, rng)[0] + rng.normal(size=(n, count)), np.full((n, count), 10.0)


def squares(phi: float, n: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Mean squares of two models' errors at ten places; losses have the lag correlation phi."""
    found = [np.zeros((n, count)), np.zeros((n, count))]
    for losses in found:  # a place at a time: ten fields at once would not fit into memory
        for _ in range(CELLS):
            losses += autoregressive(np.sqrt(phi), (n, count), rng) ** 2 / CELLS
    return tuple(found)


def held(losses: tuple[np.ndarray, ...], metric: str, **options: object) -> tuple[float, float]:
    """Percentage of intervals that hold 0, and their median width."""
    n, count = losses[0].shape
    coords = {
        "metric": ["mse"],
        "time": pd.date_range("2018-01-01", periods=n, freq="6h").to_numpy(),
        LEAD: np.arange(count).astype("m8[h]").astype("m8[ns]"),
    }
    scores = [
        xr.Dataset({"x": (tuple(coords), x[None]), "x_overall": (("metric",), [x.mean()])}, coords)
        for x in losses
    ]
    found = compare(*scores, metric=metric, **options)["x"]  # type: ignore[arg-type]
    low, high = (found.sel(quantity=q).values for q in ("low", "high"))
    return 100 * float(np.mean((low <= 0) & (high >= 0))), float(np.median(high - low))


def table(
    title: str,
    made: Callable[..., tuple[np.ndarray, ...]],
    metric: str,
    replications: int,
    correlations: tuple[float, ...] = CORRELATIONS,
) -> bool:
    """Print one table; whether all of its first column holds."""
    print(f"\n{title}\n\n| lag correlation | n | held | width | EWC | block bootstrap |")
    print("|---|---|---|---|---|---|")
    good = True
    for phi in correlations:
        for n in LENGTHS:
            losses = made(phi, n, replications, np.random.default_rng([n, round(100 * phi)]))
            means = [x.mean(0) for x in losses]
            spread = np.std(np.sqrt(means[0]) - np.sqrt(means[1]))
            spread = spread if metric == "rmse" else np.std(means[0] - means[1])
            ours, width = held(losses, metric)
            ewc, _ = held(losses, metric, method="ewc")
            few = tuple(x[:, : max(1, replications // 8)] for x in losses)
            blocks, _ = held(few, metric, method="bootstrap", samples=500)
            ratio = width / (2 * 1.96 * spread)
            print(
                f"| {phi:g} | {n:,} | {ours:.1f}% | {ratio:.2f} | {ewc:.1f}% | {blocks:.1f}% |",
                flush=True,
            )
            good &= FROM <= ours <= TO
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    count = options.replications
    good = table("AR(1) differences", gaussian, "mse", count)
    table("RMSE of ten squares, little correlation", squares, "rmse", count // 4, (0.0, 0.3))
    table("RMSE of ten squares", squares, "rmse", count // 4)
    table("AR(1) beside as much white noise", noisy, "mse", count // 4)
    sys.exit(int(options.check and not good))
