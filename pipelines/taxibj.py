"""TaxiBJ, 4 -> 4 half hours of traffic flow: from files to scores and a model.

Trains SimVPv2 (paper: 10 M parameters, 50 epochs; fast: 1000 steps on differences from the median
week, with the days before) and scores it beside persistence, the median week and a linear
regression on the last weeks, which training never saw. It takes TaxiBJ itself and its cousins from
New York; these also by the protocol of Lin et al. 2020, 12 -> 12 half hours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from stforecast import Forecaster
from stforecast.cli import (
    RECIPES,
    BenchmarkOptions,
    flow_floors,
    flow_parts,
    look_back,
    run,
    run_benchmark,
    sample_of,
    task_for,
)
from stforecast.datasets import FlowScale, open_nyc_flow
from stforecast.datasets.new_york import dsan_times, split_dsan


@dataclass(kw_only=True)
class Options(BenchmarkOptions):
    """Train and score a forecaster of traffic flow."""

    data: Path
    """The directory with BJ13_M32x32_T30_InOut.h5 to BJ16..., or dataset.npz of the authors' code;
    or NYTaxi or NYBike, or the directory with both (then taxis)."""
    protocol: Literal["paper", "dsan"] = "paper"
    """paper: 4 -> 4 half hours, all cells. dsan: New York's days 0 to 39 for training, 40 to 59 for
    the test (a week of these as history only), 12 -> 12, where the true flow is above 10. The
    linear regression and, with the fast preset, the network learn from what is scored alone."""
    output: Path = Path("runs/taxibj")


def main(options: Options) -> None:
    """Run the pipeline."""
    dsan = options.protocol == "dsan"
    name = "nyc_dsan" if dsan else "taxibj"
    plain = RECIPES[name].task
    whole: xr.Dataset | None
    if dsan:
        whole = open_nyc_flow(options.data, chunks=None)[list(plain.variables)].load()
        parts = split_dsan(whole)
        scale = FlowScale.of(parts["train"])
        history = xr.concat([parts["train"], parts["validation"]], "time")
        # As the regression, the fast network learns from all 40 days, by steps chosen before.
        if options.preset == "fast" and options.learning_rate != "auto" and not options.patience:
            parts = {"train": history, "test": parts["test"]}
    else:
        parts, whole, scale = flow_parts(options.data)
        history = parts["train"]
    task, init_time = task_for(name, options, parts["train"]), None
    sample = sample_of(name, parts["test"], options.stride)
    if dsan:
        init_time = dsan_times(parts["test"], plain)
    if task.lags and whole is not None:
        task, parts = look_back(task, parts, whole)
    scaled = task == plain  # as the paper has it
    for part in ("train", "validation") if scaled else ():
        parts[part] = scale.scale(parts[part])
    span = scale.high - scale.low

    def finish(forecaster: Forecaster) -> Forecaster:
        """Make it one of flows, whatever the network was trained on."""
        return forecaster.rescaled(span, scale.low) if scaled else forecaster

    def references(forecaster: Forecaster) -> Mapping[str, Any]:
        if whole is None:  # there are no weekdays
            return {}
        save = options.output / "usual_week.nc"
        where = RECIPES[name].scoring.get("where")
        return flow_floors(history, plain, tuple(task.lags), save, where)

    more: dict[str, Any] = {"references": references, "finish": finish}
    more |= {"task": task, "sample": sample}
    if dsan:
        run_benchmark(name, parts, options, init_time=init_time, **more)
        return
    table = run_benchmark(name, parts, options, scored=scale.scale, **more)
    unit = "vehicles" if whole is not None else "units of the file"
    print(f"Flows from {scale.low:g} to {scale.high:g} are 0 to 1 above. In {unit}:")
    cells = 2 * parts["test"].sizes["y"] * parts["test"].sizes["x"]
    for model, row in table[table["protocol"].str.contains("initialisations")].iterrows():
        rmse = (row["mse_x100"] / 100 / cells) ** 0.5 * span
        mae = row["mae_sum"] / cells * span
        print(f"  {model!s:12} RMSE {rmse:7.3f}  MAE {mae:7.3f}")


if __name__ == "__main__":
    run(main, Options)
