"""How good forecasts are: ours beside the paper's on equal terms, and beside the strongest floor.

    python benchmarks/skill.py --only ours_400 --seed 1   # repeat one run; benchmarks/skill.json
    python benchmarks/skill.py --only bundle ncep taxi    # several, one after the other
    python benchmarks/skill.py --check                    # exit 1 where a recorded figure is short
    python benchmarks/skill.py --only ensemble --bundle DIR --output DIR  # members from a bundle

A run trains on the data in ../shared/data (or --data) and is scored once; its figures, settings and
commit stand in skill.json. The table below is made of these records. On equal terms: the same
1.6 M parameters, steps, batches and years; the paper's network (temperature in, temperature out,
no extras) and ours, and the ladder from the one to the other, one ingredient at a time, on 256
windows of 2017. Each run takes less than half an hour on two cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from _table import Table, machine  # noqa: E402

from stforecast import Task, TrainConfig, evaluate, fit, load  # noqa: E402
from stforecast.baselines import LinearRegression, Persistence  # noqa: E402
from stforecast.cli import RECIPES, BenchmarkOptions, recipe  # noqa: E402
from stforecast.conventions.grid import area_weights  # noqa: E402
from stforecast.datasets import (  # noqa: E402
    add_inputs,
    open_nyc_flow,
    open_weatherbench,
    select_period,
    split,
    with_history,
)
from stforecast.datasets.new_york import dsan_times, split_dsan  # noqa: E402
from stforecast.evaluation import Above  # noqa: E402
from stforecast.files import replacing  # noqa: E402
from stforecast.models import SimVPv2  # noqa: E402
from stforecast.models.members import Perturbation  # noqa: E402
from stforecast.task import initialisations  # noqa: E402
from stforecast.training import EnsembleConfig  # noqa: E402
from stforecast.training.calibration import calibrate, scale_noise  # noqa: E402

HERE = Path(__file__).parent
RECORD = HERE / "skill.json"
SUN, STILL = "toa_incident_solar_radiation", ("latitude_sin", "latitude_cos")
STILL += ("longitude_sin", "longitude_cos", "land_sea_mask", "orography")

#: The ladder: what each rung adds, to the task, the network and the training.
RUNGS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "paper": ({}, {"drop_path": 0.1}, {}),
    "change": ({}, {"drop_path": 0.0, "predict_change": True}, {}),
    "reference": ({"reference": "climatology"}, {}, {}),
    "sun": ({"known": (SUN,)}, {}, {}),
    "usual": ({"known": ("reference", SUN)}, {}, {}),
    "still": ({"known": ("reference", SUN, *STILL)}, {}, {}),
    "longitude": ({}, {"circular_longitude": True}, {}),
    "leads": ({}, {}, {"balance_leads": True, "area_weighted": True}),
    "guess": ({}, {"linear_guess": True, "grid": (32, 64), "known_channels": 0}, {}),
    "muon": ({}, {}, {"optimizer": "muon"}),
    "depth": ({}, {"drop_path": 0.05, "stochastic_depth": "uniform"}, {}),
}
OURS = "guess"  # the rung that "ours" is
SMALL: dict[str, Any] = {"encoder_channels": 16, "translator_channels": 128, "translator_blocks": 6}
SMALL |= {"mlp_ratio": 4.0}


def globe(data: Path) -> xr.Dataset:
    """The simulated globe with land and height."""
    ds = open_weatherbench(data / "plasim_t2m", ["2m_temperature"])
    names, path = ["land_sea_mask", "orography"], data / "plasim_t2m/constants_5.625deg.nc"
    fields = add_inputs(ds.isel(time=slice(1)), names, constants=path)[names]
    return ds.assign(fields.isel(time=0, drop=True).load())


def by_lead(forecast: xr.Dataset, truth: xr.Dataset, name: str, **how: Any) -> list[float]:
    """Area-weighted RMSE at each lead time, and over all of them."""
    scores = evaluate(forecast, truth, metrics=("rmse",), **how)
    each = scores[name].sel(metric="rmse").values
    return [*np.round(each, 5).tolist(), round(float(np.sqrt(np.mean(each**2))), 5)]


def rung(name: str, steps: int, data: Path, seed: int) -> dict[str, Any]:
    """Train what one rung of the ladder has, and all below it, and score it on 2017."""
    task = Task("2m_temperature", 12, 12, "1h")
    network: dict[str, Any] = dict(SMALL)
    training: dict[str, Any] = {"steps": steps, "batch_size": 16, "learning_rate": 3e-3}
    for one, (more, settings, options) in RUNGS.items():
        task, network, training = replace(task, **more), network | settings, training | options
        if one == name:
            break
    ds = globe(data)
    train, test = (select_period(ds, period) for period in ("2013:2016", "2017"))
    config = TrainConfig(seed=seed, validate_every=steps, **training)
    make = partial(SimVPv2.for_task, task, **network)
    began = time.monotonic()
    model = fit(train, task, model=make, config=config)
    times = initialisations(test, Task("2m_temperature", 12, 12, "1h"))
    times = times[np.linspace(0, len(times) - 1, 256).astype(int)]
    found = by_lead(model.predict(test, init_time=times), test, "2m_temperature")
    size = sum(p.numel() for p in model.network.parameters())
    about = {"task": task.to_dict(), "network": network, "training": training, "parameters": size}
    return {"rmse": found, "minutes": round((time.monotonic() - began) / 60, 1), **about}


#: Of "rollout": steps before, steps after, applications in the first half of these; a lean network,
#: minutes of one core.
FIRST, FURTHER, APPLICATIONS = 600, 400, 4
LEAN: dict[str, Any] = {"encoder_channels": 8, "translator_channels": 64, "translator_blocks": 3}
LEAN |= {"linear_guess": False, "known_channels": 0}


def rollout(data: Path, seed: int) -> dict[str, Any]:
    """One network trained on as before, and on its own output, by equal steps; to 48 h of 2017.

    On 16 x 32 points, means of four cells. The second half of the steps is of one application: the
    errors of the later ones outweigh those of the first, which is then 2% worse. Chosen on 2016.
    """
    own = RECIPES["weatherbench_t2m"]
    task = replace(own.task, **own.more)
    ds = open_weatherbench(data / "plasim_t2m", ["2m_temperature"])
    train, test = (
        select_period(ds, period).load().coarsen(latitude=2, longitude=2).mean(keep_attrs=True)
        for period in ("2013:2014", "2017")
    )
    options = BenchmarkOptions(seed=seed, steps=FIRST, batch_size=4)
    make, config = recipe("weatherbench_t2m", options, task=task)
    make = partial(make, **LEAN)
    # By squares the last hours, with errors of 2 K, would outweigh the first, with a tenth of a K.
    config = replace(config, loss="mae")
    first = fit(train, task, model=make, config=config)
    further = replace(config, steps=FURTHER, learning_rate=1e-4)
    steps = APPLICATIONS * task.target_steps
    times = initialisations(test, replace(own.task, target_steps=steps))
    times = times[np.linspace(0, len(times) - 1, 64).astype(int)]
    found, minutes = {}, {}
    stages = [(0, APPLICATIONS), (FURTHER // 2, 1)]
    for name, applications in (("plain", 1), ("rolled", stages)):
        began = time.monotonic()
        one = replace(further, rollout=applications)
        model = fit(train, task, model=make, config=one, warm_start=first)
        minutes[name] = round((time.monotonic() - began) / 60, 1)
        found[name] = by_lead(
            model.predict(test, init_time=times, steps=steps), test, "2m_temperature"
        )
    about = {
        "task": task.to_dict(),
        "first": config.to_dict(),
        "further": further.to_dict(),
        "network": LEAN,
    }
    return {**found, "minutes": minutes, "applications": APPLICATIONS, **about}


def bundle(data: Path, seed: int) -> dict[str, Any]:
    """Score the bundle in the package on all of 2018, beside the floor of the same five years."""
    ds = globe(data)
    train, test = (select_period(ds, period) for period in ("2013:2017", "2018"))
    task = Task("2m_temperature", 12, 12, "1h")
    test = test.compute().chunk(time=720)
    times = initialisations(test, task)
    models = {
        "bundle": load(HERE.parent / "stforecast/bundles/t2m_5.625deg_12h"),
        "floor": LinearRegression.fit(train, task),
        "persistence": Persistence(task),
    }
    forecasts = {name: model.predict(test, init_time=times) for name, model in models.items()}
    return {name: by_lead(f, test, "2m_temperature") for name, f in forecasts.items()}


def ncep(data: Path, seed: int) -> dict[str, Any]:
    """Real analyses: trained on 2013, scored on 2014."""
    ds = xr.open_zarr(data / "ncep_air_temperature/air_temperature.zarr").load()
    train, test = ds.sel(time="2013"), ds.sel(time="2014")
    known = ("reference", SUN, "latitude_sin", "longitude_sin", "longitude_cos")
    plain = Task("air", 4, 4, "6h")
    task = replace(plain, reference="climatology", known=known)
    network: dict[str, Any] = {"encoder_channels": 16, "translator_channels": 64}
    network |= {"translator_blocks": 4, "mlp_ratio": 4.0, "predict_change": True, "dropout": 0.1}
    network |= {"drop_path": 0.2, "stochastic_depth": "uniform"}
    training: dict[str, Any] = {"steps": 800, "batch_size": 16, "learning_rate": 3e-3}
    began = time.monotonic()
    config = TrainConfig(seed=seed, ema=0.99, **training)
    model = fit(train, task, model=partial(SimVPv2.for_task, task, **network), config=config)
    minutes = round((time.monotonic() - began) / 60, 1)
    times = initialisations(test, plain)
    floor = LinearRegression.fit(train, plain, ridge=1e-3)
    forecasts = {"ours": model, "floor": floor, "persistence": Persistence(plain)}
    figures = {
        name: by_lead(one.predict(test, init_time=times), test, "air")
        for name, one in forecasts.items()
    }
    return {**figures, "minutes": minutes, "network": network, "training": training}


def flow_parts(kind: str, protocol: str, data: Path) -> tuple[Any, Any, Task, Any, Any]:
    """New York's flows in their parts; the later ones with history, task, test times, history."""
    own = RECIPES["nyc_dsan" if protocol == "dsan" else "taxibj"]
    task = replace(own.task, **own.more)
    whole = open_nyc_flow(data / "nyc_flow" / kind, chunks=None)[list(task.variables)].load()
    if protocol == "dsan":
        parts = split_dsan(whole)
        times = dsan_times(parts["test"], own.task)
        history = xr.concat([parts["train"], parts["validation"]], "time")
    else:
        names = ("train", "validation", "test")
        parts = split(whole, **{n: whole.attrs[f"{n}_period"] for n in names})
        times, history = initialisations(parts["test"], own.task), parts["train"]
    later = {n: with_history(parts[n], whole, task) for n in ("validation", "test")}
    return parts, later, task, times, history


def flows(kind: str, protocol: str, data: Path, seed: int) -> dict[str, Any]:
    """New York's flows, by the files' split (4 -> 4, all cells) or by the protocol of Lin et al."""
    name = "nyc_dsan" if protocol == "dsan" else "taxibj"
    parts, later, task, times, history = flow_parts(kind, protocol, data)
    grid = parts["test"].sizes["y"], parts["test"].sizes["x"]
    make, config = recipe(name, BenchmarkOptions(seed=seed), task=task, grid=grid)
    # By the protocol of Lin et al. both learn from all days before the test, of what is scored.
    dsan = protocol == "dsan"
    seen, chooses = (history, None) if dsan else (parts["train"], later["validation"])
    model = fit(seen, task, model=make, config=config, validation=chooses)
    linear = replace(RECIPES[name].task, lags=task.lags, lower=0.0)
    where = Above(10) if dsan else None
    floor = LinearRegression.fit(history, linear, ridge=0.3 if dsan else 0.05, where=where)
    models = {"ours": model, "floor": floor}
    how: dict[str, Any] = {"metrics": ("rmse", "mae"), "where": where}
    found: dict[str, Any] = {"validation": model.training.get("validation")}
    for one, forecaster in models.items():
        forecast = forecaster.predict(later["test"], init_time=times)
        scores = evaluate(forecast, later["test"], **how)
        found[one] = {
            f"{v}_{m}": np.round(scores[v].sel(metric=m).values, 4).tolist()
            for v in task.outputs
            for m in ("rmse", "mae")
        }
    return found


TAUGHT = 800  # steps of teaching a network to draw, behind half as many of noise alone
#: 1 / sqrt(0.841 * 0.994), the least and the greatest ratio of spread and skill on 96 windows of
#: 2017, in blocks of 12 days that a teaching on the rest of 2017 left out.
SCALED = 1.09
#: The share of weights that learned to forecast without random numbers; chosen on 2017 out of 0,
#: 0.15, 0.2, 0.3, 0.5 and 1.
SINGLE = 0.15


def drawn(one: Any, many: Any, test: xr.Dataset, times: Any, area: bool) -> dict[str, Any]:
    """Scores of 20 members at each lead time, beside the one forecast of the network before.

    The fair CRPS, spread / skill (Fortin et al. 2014), the RMSE of the mean and of the forecast
    without random numbers over the RMSE before, and how often the truth is in each rank, over 1/21;
    a truth that equals members is in any of their ranks, at random.
    """
    M, rng, names = 20, np.random.default_rng(0), one.task.outputs
    weights = np.ones(1)
    if area:
        weights = np.asarray(area_weights(test["latitude"].values))[:, None]
    pairs = np.arange(1 - M, M, 2) / (M * (M - 1))
    sums = np.zeros((6, len(names), one.task.target_steps))
    ranks = np.zeros(M + 1)
    for part in np.array_split(times, max(1, len(times) // 16)):
        before, control = (f.predict(test, init_time=part) for f in (one, many))
        forecast = many.predict(test, init_time=part, ensemble=M)
        for v, name in enumerate(names):
            x = forecast[name].values.astype(np.float64)  # (M, B, T', H, W)
            y = test[name].sel(time=forecast["valid_time"]).values
            mean, last = x.mean(0), before[name].values
            figures = (
                np.abs(x - y).mean(0) - np.tensordot(pairs, np.sort(x, 0), 1),
                np.abs(last - y),
                (last - y) ** 2,
                (mean - y) ** 2,
                (control[name].values - y) ** 2,
                x.var(0, ddof=1) * (1 + 1 / M),
            )
            sums[:, v] += [(f * weights).mean((-2, -1)).sum(0) for f in figures]
            low, equal = (x < y).sum(0), (x == y).sum(0)
            share = np.broadcast_to(weights, y.shape).ravel()
            ranks += np.bincount(rng.integers(low, low + equal + 1).ravel(), share, M + 1)
    crps, mae, before, mean, control, variance = sums / (len(times) * weights.mean())
    figures = {
        "crps_to_mae": crps.mean() / mae.mean(),
        "rmse_to_before": np.sqrt(mean / before),
        "without_noise_to_before": np.sqrt(control / before),
        "spread_to_skill": np.sqrt(variance / mean),
        "ranks": ranks / ranks.mean(),
        "crps": crps,
        "mae": mae,
    }
    return {k: np.round(v, 4).tolist() for k, v in figures.items()}


def ensemble(
    draws: str, data: Path, seed: int, bundle: Path | None = None, output: Path | None = None
) -> dict[str, Any]:
    """Teach the bundle in the package, or another one, to draw members, and score them on 2018.

    It is taught on 2017, of which it has seen nothing: in the years that it has learned from its
    errors are smaller than they will be, and members that are as far apart are too close.
    """
    ds = globe(data)
    seen, unseen, test = (select_period(ds, p).load() for p in ("2013:2017", "2017", "2018"))
    one = load(bundle or HERE.parent / "stforecast/bundles/t2m_5.625deg_12h")
    config = TrainConfig(seed=seed, batch_size=4, area_weighted=True, balance_leads=True, ema=0.98)
    rate = 0.1 if draws == "dropout" else None
    how = EnsembleConfig(draws=draws, dropout=rate, steps=TAUGHT)
    began = time.monotonic()
    many = fit(
        seen, one.task, config=config, warm_start=one, ensemble=how,
        init_time=initialisations(unseen, one.task), run_dir=output and output / "run",
        about={"command": " ".join(["python", *sys.argv])},
    )  # fmt: skip
    minutes = round((time.monotonic() - began) / 60, 1)
    if draws == "noise":
        scale_noise(many.network, SCALED)
        many.training["calibration"] = {"noise_scaled": SCALED, "least": 0.841, "most": 0.994}
    if output:
        many.save(output / "model")
    times = initialisations(test, one.task)
    times = times[np.linspace(0, len(times) - 1, 512).astype(int)]
    return drawn(one, many, test, times, True) | {"minutes": minutes}


def further(
    data: Path, seed: int, bundle: Path | None = None, output: Path | None = None
) -> dict[str, Any]:
    """Teach a bundle that draws members on, on 2013 to 2016: nearly two hours of one core.

    By the CRPS, which makes the forecast without random numbers 2% worse than it was; and, for a
    short time, without random numbers, which makes members half as far apart as they should be. Of
    the weights 0.85 are of the first and 0.15 of the second training: on 2017, of which the bundle
    in the package has seen little, the mean of twenty members is then better than the forecast
    without random numbers at every lead, and that is as good as before. The noise is scaled by 2017
    as well. So the bundle in the package came from that of commit 48922d72e (``--bundle``), of
    which "in the package" is said above.
    """
    ds = globe(data)
    train, later, test = (select_period(ds, p).load() for p in ("2013:2016", "2017", "2018"))
    one = load(bundle or HERE.parent / "stforecast/bundles/t2m_5.625deg_12h")
    config = TrainConfig(
        seed=seed, steps=7500, batch_size=8, learning_rate=1.5e-3, optimizer="muon", ema=0.998,
        area_weighted=True, balance_leads=True, loss="crps", members=2, validate_every=1250,
        val_windows=128, checkpoint_every=200,
    )  # fmt: skip
    began = time.monotonic()
    many = fit(
        train, one.task, model=one.network, config=config, warm_start=one, validation=later,
        allow_overlap=True, run_dir=output and output / "run",
        about={"command": " ".join(["python", *sys.argv])},
    )  # fmt: skip
    calibrate(many, later)
    network = copy.deepcopy(many.network)
    for part in network.modules():
        if isinstance(part, Perturbation):
            part.requires_grad_(False)
    short: dict[str, Any] = {"seed": seed + 1, "steps": 600, "learning_rate": 5e-4, "ema": 0.99}
    short |= {"loss": "mse", "members": 1, "validate_every": 600, "checkpoint_every": None}
    single = fit(
        train, one.task, model=network, config=replace(config, **short), warm_start=many,
        run_dir=output and output / "single",
    )  # fmt: skip
    with torch.no_grad():
        other = single.network.state_dict()
        for name, tensor in many.network.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(other[name], SINGLE)
    many.training["weights"] = (
        f"{1 - SINGLE} of these, {SINGLE} of {short['steps']} further steps without random numbers"
    )
    calibrate(many, later)
    minutes = round((time.monotonic() - began) / 60, 1)
    if output:
        many.save(output / "model")
    times = initialisations(test, one.task)
    times = times[np.linspace(0, len(times) - 1, 512).astype(int)]
    return drawn(one, many, test, times, True) | {"minutes": minutes}


def taxi_ensemble(
    data: Path, seed: int, bundle: Path | None = None, output: Path | None = None
) -> dict[str, Any]:
    """Train on New York's taxis as the run "taxi" does, teach the network to draw, score both.

    It is taught on the validation part, which has chosen its weights and taught it nothing.
    """
    parts, later, task, times, _ = flow_parts("NYTaxi", "paper", data)
    grid = parts["test"].sizes["y"], parts["test"].sizes["x"]
    make, config = recipe("taxibj", BenchmarkOptions(seed=seed), task=task, grid=grid)
    how: dict[str, Any] = {"config": config, "validation": later["validation"]}
    if bundle is None:
        run = output and output / "run"
        one = fit(parts["train"], task, model=make, run_dir=run, **how)
    else:
        one = load(bundle)
    seen = xr.concat([parts["train"], parts["validation"]], "time", combine_attrs="override")
    unseen = initialisations(later["validation"], task)
    many = fit(
        seen, task, config=config, warm_start=one, ensemble=EnsembleConfig(),
        init_time=unseen,
    )  # fmt: skip
    if output:
        many.save(output / "model")
    return drawn(one, many, later["test"], times, False)


#: What can be repeated, by name.
RUNS: dict[str, Callable[..., dict[str, Any]]] = {
    "bundle": bundle,
    "ensemble": partial(ensemble, "noise"),
    "ensemble_dropout": partial(ensemble, "dropout"),
    "ensemble_further": further,
    "taxi_ensemble": taxi_ensemble,
    "ncep": ncep,
    "rollout": rollout,
    **{
        f"{short}{suffix}": partial(flows, kind, protocol)
        for short, kind in (("taxi", "NYTaxi"), ("bike", "NYBike"))
        for suffix, protocol in (("", "paper"), ("_dsan", "dsan"))
    },
    **{f"{name}_400": partial(rung, name, 400) for name in RUNGS},
    **{f"{name}_2000": partial(rung, name, 2000) for name in ("paper", OURS)},
}


def pooled(figures: dict[str, list[float]], metric: str) -> float:
    """One figure over both flows and all leads."""
    each = np.array([v for k, v in figures.items() if k.endswith(metric)])
    return float(np.sqrt((each**2).mean()) if metric == "rmse" else each.mean())


def tabulate(record: dict[str, Any]) -> Table:
    """The figures that are asked for, from the records."""
    table = Table()
    if one := record.get("bundle/0"):
        ours, floor, last = (np.array(one[k]) for k in ("bundle", "floor", "persistence"))
        table.add("globe 2018: bundle / persistence, all leads", (ours / last)[-1], 0.20, most=True)
        worst = float((ours / floor)[:-1].max())
        table.add("globe 2018: bundle / strong floor, worst lead", worst, 0.75, most=True)
    overall = {
        name: [r["rmse"][-1] for key, r in record.items() if key.split("/")[0] == name]
        for name in RUNS
        if any(key.split("/")[0] == name and "rmse" in r for key, r in record.items())
    }
    for other, steps, most in (("paper", 400, 0.70), ("paper", 2000, 0.80), ("change", 400, 0.85)):
        pair = [overall.get(f"{one}_{steps}") for one in (OURS, other)]
        if pair[0] and pair[1]:
            ratio = statistics.mean(pair[0]) / statistics.mean(pair[1])
            note = f"{len(pair[0])} and {len(pair[1])} seeds"
            table.add(f"ours / {other}, {steps} steps", ratio, most, note, most=True)
    for name, values in overall.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        note = f"K; standard deviation {spread:.4f}, {len(values)} seeds"
        table.add(f"rmse over all leads: {name}", statistics.mean(values), None, note)
    if one := record.get("rollout/0"):
        ratios = np.divide(one["rolled"], one["plain"])[:-1]
        table.add("rolled / plain, 24 to 48 h: worst lead", ratios[23:].max(), 0.92, most=True)
        table.add("rolled / plain, 1 to 12 h: worst lead", ratios[:12].max(), 1.02, most=True)
    if one := record.get("ncep/0"):
        for lead, most in enumerate((1.22, 1.62, 1.90, 2.13)):
            note = f"floor {one['floor'][lead]:.3f}"
            table.add(f"ncep 2014, {6 * lead + 6} h", one["ours"][lead], most, note, most=True)
    for name, rmse, mae in (("taxi", 12.3, 3.95), ("bike", 4.6, 1.85)):
        if one := record.get(f"{name}/0"):
            for metric, most in (("rmse", rmse), ("mae", mae)):
                note = f"floor {pooled(one['floor'], metric):.3f}"
                table.add(f"{name}, {metric}", pooled(one["ours"], metric), most, note, most=True)
        if one := record.get(f"{name}_dsan/0"):
            ratios = np.array(
                [np.divide(v, one["floor"][k]) for k, v in one["ours"].items() if "rmse" in k]
            )
            worst = [float(ratios[:, :4].max()), float(ratios.max())]
            table.add(f"{name} dsan: rmse / floor, worst up to 2 h", worst[0], 0.95, most=True)
            table.add(f"{name} dsan: rmse / floor, worst lead", worst[1], 1.0, most=True)
    for run, low, high in (("ensemble_further/3", 0.9, 1.1), ("taxi_ensemble/0", 0.85, 1.15)):
        if one := record.get(run):
            name = run.split("/")[0]
            table.add(f"{name}: fair CRPS / MAE before", one["crps_to_mae"], 0.75, most=True)
            each = np.array(one["spread_to_skill"])
            table.add(f"{name}: spread / skill, least", each.min(), low)
            table.add(f"{name}: spread / skill, most", each.max(), high, most=True)
            worst = np.array(one["rmse_to_before"]).max()
            table.add(f"{name}: RMSE of the mean / before, worst lead", worst, 1.0, most=True)
            away = np.abs(np.array(one["ranks"]) - 1).max()
            table.add(f"{name}: ranks, furthest from flat", away, 0.2, most=True)
    return table


def main() -> int:
    """Run what is asked for, and show what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], choices=list(RUNS), metavar="RUN")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data")
    parser.add_argument("--bundle", type=Path, help="a trained network for the runs of ensembles")
    parser.add_argument("--output", type=Path, help="where these keep their run and their bundle")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--check", action="store_true", help="exit 1 where a figure falls short")
    given = parser.parse_args()
    record = json.loads(given.record.read_text()) if given.record.is_file() else {}
    for name in given.only:
        more = {"bundle": given.bundle, "output": given.output} if "ensemble" in name else {}
        found = RUNS[name](given.data, given.seed, **more)
        record[f"{name}/{given.seed}"] = {**found, "machine": machine()}
        with replacing(given.record) as path:
            path.write_text(json.dumps(record, indent=1) + "\n")
    table = tabulate(record)
    if not table.rows:
        print(f"nothing is recorded in {given.record}: give --only ({', '.join(RUNS)})")
        return int(given.check)
    table.finish(given.check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
