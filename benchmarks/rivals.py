"""Whether every rival of the paper learns: small forms, equal steps, one core of a CPU.

    python benchmarks/rivals.py --only PhyDNet --data-set sample taxi   # benchmarks/rivals.json
    python benchmarks/rivals.py --only all             # all that rivals.json lacks, one by one
    python benchmarks/rivals.py --check                # exit 1 where one does not beat persistence

The twelve recurrent networks are trained on New York's taxis, on the sample in the package (2 m
temperature, 6 to 12 hours, every second row and column) and on Moving MNIST, as the fast preset has
them; the nine graph networks, and SimVPv2 (12 to 12 hours) with and without what the fast preset
knows besides, on the sample. What is recorded of a run is the RMSE at each lead time, beside
persistence's and the strong linear regression's on the same test windows, steps and processor
minutes. These are small forms after few steps: the table says who learns, not who is best. A run is
recorded when it ends.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from _table import Table, machine  # noqa: E402

from stforecast import Task, TrainConfig, evaluate, fit  # noqa: E402
from stforecast.baselines import LinearRegression, Persistence  # noqa: E402
from stforecast.cli import RECIPES, BenchmarkOptions, recipe  # noqa: E402
from stforecast.conventions import Grid  # noqa: E402
from stforecast.datasets import (  # noqa: E402
    open_moving_mnist,
    open_nyc_flow,
    open_sample,
    select_period,
    split,
    with_history,
)
from stforecast.errors import DivergenceError  # noqa: E402
from stforecast.files import replacing  # noqa: E402
from stforecast.models import SimVPv2  # noqa: E402
from stforecast.models.registry import make_network  # noqa: E402
from stforecast.task import initialisations  # noqa: E402

HERE = Path(__file__).parent
RECORD = HERE / "rivals.json"
RECURRENT = ("ConvLSTM", "PredRNN", "PredRNNpp", "PredRNNv2", "MIM", "E3DLSTM")
RECURRENT += ("PhyDNet", "MAU", "SwinLSTM-B", "SwinLSTM-D", "CrevNet", "MMVP")
GRAPH = ("TGCN", "STGCN", "MSTGCN", "ASTGCN", "GCGRU", "DCRNN", "AGCRN", "CLCSTN", "CLCRN")
#: Names of `RECIPES`.
DATA = {"taxi": "taxibj", "sample": "weatherbench_t2m", "moving_mnist": "moving_mnist"}
STEPS, BATCH, WINDOWS = 200, 4, 64
#: Of graph networks and of SimVPv2, which have no small forms in the recipes.
SMALL_GRAPH = {"hidden": 16, "neighbours": 9}
#: By their papers' curriculum these see the truth in place of their own output for thousands of
#: steps; so few as here would end before they have met it.
CURRICULUM = ("TGCN", "GCGRU", "DCRNN", "CLCRN")
SIMVP = ("SimVPv2", "SimVPv2-plain")
#: Its widths are the channels' times 64: with lags and known fields it has 125 M parameters.
FEW_CHANNELS = ("CrevNet",)


@dataclass(frozen=True)
class Data:
    """A data set, and what is forecast from what; `plain` is the task without anomalies."""

    train: xr.Dataset
    test: xr.Dataset
    plain: Task
    task: Task

    @property
    def longest(self) -> int:
        """Steps that some network or other needs in front of a window."""
        return max(self.task.history, self.plain.target_steps)

    @property
    def times(self) -> np.ndarray:
        """Test initialisations, evenly spread."""
        every = initialisations(self.test, replace(self.plain, input_steps=self.longest))
        return every[np.linspace(0, len(every) - 1, min(WINDOWS, len(every))).astype(int)]

    def score(self, forecaster: Any) -> list[float]:
        """RMSE at each lead time, of all variables."""
        forecast = forecaster.predict(self.test, init_time=self.times)
        scores = evaluate(forecast, self.test, metrics=("rmse",))
        each = [scores[v].sel(metric="rmse").values for v in self.task.outputs]
        return np.round(np.sqrt(np.mean(np.square(each), 0)), 5).tolist()


@cache
def opened(data_set: str, data: Path) -> Data:
    """Open a data set in memory."""
    own = RECIPES[DATA[data_set]]
    if data_set == "sample":
        every = slice(None, None, 2)  # a quarter of the points: 16 x 32
        ds = open_sample(chunks=None).isel(latitude=every, longitude=every).load()
        train, test = (select_period(ds, ds.attrs[f"{p}_period"]) for p in ("train", "test"))
        plain = replace(own.task, input_steps=6)
        return Data(train, test, plain, replace(plain, reference="climatology"))
    if data_set == "taxi":
        task = replace(own.task, **own.more)
        ds = open_nyc_flow(data / "nyc_flow/NYTaxi", chunks=None)[list(task.variables)].load()
        parts = split(ds, **{n: ds.attrs[f"{n}_period"] for n in ("train", "test")})
        return Data(parts["train"], with_history(parts["test"], ds, task), own.task, task)
    draw = partial(open_moving_mnist, data / "mnist")
    train, test = draw("train", sequences=STEPS * BATCH), draw("test", sequences=WINDOWS)
    return Data(train.load(), test.load(), own.task, own.task)


@cache
def references(data_set: str, data: Path) -> dict[str, Any]:
    """RMSE of persistence and of the strong linear regression, on the test windows of all."""
    one = opened(data_set, data)
    found = {"persistence": one.score(Persistence(one.plain))}
    if data_set != "moving_mnist":  # there is no climatology of digits
        linear = one.plain if data_set == "sample" else replace(one.plain, lags=one.task.lags)
        ridge = {} if data_set == "sample" else {"ridge": 0.05}
        found["floor"] = one.score(LinearRegression.fit(one.train, linear, **ridge))
    return found


def network(name: str, data_set: str, one: Data) -> tuple[Task, Callable[[], Any]]:
    """The task of a network, and what makes its small form."""
    own, task, grid = RECIPES[DATA[data_set]], one.task, Grid.of(one.test)
    if data_set == "taxi" and name in FEW_CHANNELS:
        task = one.plain
    if name in SIMVP:  # with all that the fast preset knows, and as little as the others
        task = replace(task, input_steps=own.task.input_steps)
        small = {**own.small, "linear_guess": name == "SimVPv2"}
        if name == "SimVPv2":
            task = replace(task, known=own.more["known"])
        return task, partial(SimVPv2.for_task, task, grid.to_dict(), **small)
    if name in GRAPH:
        settings = SMALL_GRAPH | ({"curriculum_decay": None} if name in CURRICULUM else {})
        return task, partial(make_network, name, task, grid.to_dict(), settings)
    made, _ = recipe(DATA[data_set], BenchmarkOptions(model=name), task=task, grid=grid)
    return task, made


def trained(name: str, data_set: str, data: Path, steps: int, seed: int) -> dict[str, Any]:
    """Train and score one network on one data set."""
    one = opened(data_set, data)
    found = dict(references(data_set, data))
    task, make = network(name, data_set, one)
    config = TrainConfig(
        steps=steps, batch_size=BATCH, learning_rate=1e-3, seed=seed, validate_every=steps,
        precision="fp32", device="cpu",
    )  # fmt: skip
    began, from_when = time.process_time(), time.monotonic()
    try:
        model = fit(one.train, task, model=make, config=config, progress=False)
    except DivergenceError as error:
        return {**found, "diverged": str(error)}
    minutes = {"processor_minutes": time.process_time() - began}
    minutes["minutes"] = time.monotonic() - from_when
    found |= {k: round(v / 60, 2) for k, v in minutes.items()}
    found["rmse"] = one.score(model)
    found["parameters"] = sum(p.numel() for p in model.network.parameters())
    return found | {"steps": steps, "batch": BATCH, "settings": model.network.settings}


def over(rmse: list[float], other: list[float], data_set: str) -> float:
    """All leads together: the RMSE over another, the MSE of Moving MNIST."""
    ratio = float(np.sqrt(np.mean(np.square(rmse)) / np.mean(np.square(other))))
    return ratio**2 if data_set == "moving_mnist" else ratio


def tabulate(record: dict[str, Any]) -> Table:
    """The figures that are asked for, from the records."""
    table = Table()
    for data_set in DATA:
        for name in (*RECURRENT, *GRAPH, *SIMVP):
            one = record.get(f"{data_set}/{name}")
            if one is None:
                continue
            if "diverged" in one:
                table.add(f"{data_set}: {name}", np.inf, 1.0, one["diverged"][:60], most=True)
                continue
            last = one["persistence"]
            note = f"{one['steps']} steps, {one['processor_minutes']:.1f} min"
            if "floor" in one:
                note = f"floor {over(one['floor'], last, data_set):.3f}; {note}"
            table.add(
                f"{data_set}: {name} / persistence",
                over(one["rmse"], last, data_set),
                0.9995,
                note,
                most=True,
            )
    return table


#: Which runs there are, in the order of `--only all`.
RUNS = [
    *((n, d) for d in DATA for n in RECURRENT),
    *((n, "sample") for n in (*GRAPH, *SIMVP)),
]


def main() -> int:
    """Run what is asked for, and show what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*RECURRENT, *GRAPH, *SIMVP]
    parser.add_argument("--only", nargs="+", default=[], choices=[*names, "all"], metavar="NAME")
    parser.add_argument("--data-set", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where a network has not learnt"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)

    def recorded() -> dict[str, Any]:
        return json.loads(given.record.read_text()) if given.record.is_file() else {}

    for name, data_set in RUNS:
        key, every = f"{data_set}/{name}", "all" in given.only
        if data_set not in given.data_set or (name not in given.only and not every):
            continue
        if every and key in recorded():
            continue
        found = trained(name, data_set, given.data, given.steps, given.seed)
        with replacing(given.record) as path:
            whole = {**recorded(), key: {**found, "machine": machine()}}
            path.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    table = tabulate(recorded())
    if not table.rows:
        print(f"nothing is recorded in {given.record}: give --only ({', '.join(names)} or all)")
        return int(given.check)
    table.finish(given.check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
