"""Which metrics are asked for, of which members, and whether they have a meaning there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from ..conventions.forms import as_dataset, with_members
from ..conventions.gate import Labels
from ..conventions.pairs import open_forecast, open_members
from ..conventions.units import same_units
from ..errors import InputError
from .alignment import PointWeights
from .metrics import MEMBERS, METRICS, Metric
from .sums import FRAMES

#: Metrics that functions make, since they have settings of their own.
MADE = (
    *("brier", "brier_fair", "reliability", "roc", "roc_area", "quantile_score"),
    *("csi", "ets", "hss", "fss"),
)


def members_of(
    forecast: Any, truth: Any, metrics: Mapping[str, Metric], ensemble: str
) -> tuple[list[tuple[xr.Dataset, Labels]], xr.Variable | None]:
    """Members of a forecast, each through the gate, and their labels; of a single one itself."""
    if ensemble not in ("mean", "members"):
        raise InputError(f'ensemble must be "mean" or "members", found {ensemble!r}')
    of_all = {name: metric for name, metric in metrics.items() if MEMBERS in metric.dims}
    forecast = with_members(as_dataset(forecast))
    count = forecast.sizes.get(MEMBERS)
    many = [name for name, metric in of_all.items() if not metric.single]
    if count is None and (many or ensemble == "members"):
        what = ", ".join(many) or 'ensemble="members"'
        raise InputError(
            f"{what} is of forecasts with the dimension "
            f"{MEMBERS!r}, found {tuple(forecast.dims)}; "
            "predict(ds, [model, model, ...]) gives one"
        )
    if count == 0:
        raise InputError(f"the forecast has no member: its dimension {MEMBERS!r} is empty")
    few = [f"{m.name} needs {m.least}" for m in of_all.values() if count and count < m.least]
    if few:
        raise InputError(f"the forecast has {count} member: {', '.join(few)}")
    if of_all and ensemble == "members":
        raise InputError(
            f'{", ".join(of_all)} is of all members together: ask for it with ensemble="mean"'
        )
    if count is None:
        return [open_forecast(forecast, truth)], None
    each = open_members(forecast, MEMBERS, truth)
    return each, forecast[MEMBERS].variable if MEMBERS in forecast.coords else None


def kinds_of(
    metrics: Mapping[str, Metric], settings: Mapping[str, Any]
) -> tuple[list[list[Metric]], dict[str, str]]:
    """Metrics with different statistics, of a forecast and of all members; and whose each has.

    Metrics that differ only in what is done to the mean, such as RMSE and MSE, share its sums.
    """
    kinds: dict[Any, Metric] = {}
    kind_of = {}
    for name, metric in metrics.items():
        key: Any = (metric.statistic, metric.dims, metric.thresholds)
        key = name if metric.of_maps else key
        kinds.setdefault(key, replace(metric, statistic=metric.bound(settings), settings=()))
        kind_of[name] = kinds[key].name
    of_all = [kind for kind in kinds.values() if MEMBERS in kind.dims]
    others = [kind for kind in kinds.values() if MEMBERS not in kind.dims]
    return [some for some in (others, of_all) if some], kind_of


def choose_metrics(
    metrics: str | Metric | Sequence[str | Metric],
    climatology: bool,
    data_range: float | None,
    protocol: str | None,
) -> dict[str, Metric]:
    """Metrics to compute by name, with those that a climatology and a protocol add."""
    asked = [metrics] if isinstance(metrics, (str, Metric)) else list(metrics)
    # People had metrics of their own called crps before there was one here: theirs is taken, unless
    # ours is asked for beside it.
    taken = {m.name for m in asked if isinstance(m, Metric)} - {
        m for m in asked if isinstance(m, str)
    }
    known = {n: m for n, m in METRICS.items() if n not in taken or MEMBERS not in m.dims}
    for metric in asked:
        if isinstance(metric, Metric) and known.setdefault(metric.name, metric) != metric:
            raise InputError(f"two metrics have the name {metric.name!r}; give yours another")
    called = [m.name if isinstance(m, Metric) else m for m in asked]
    if made := [name for name in called if name in MADE and name not in known]:
        raise InputError(
            f"{', '.join(made)}: thresholds or levels are yours to choose; give "
            f"metrics=stforecast.evaluation.{made[0]}(...)"
        )
    names = choose(called, known, "metrics")
    if climatology and "acc" not in names:
        names = (*names, "acc")
    if "acc" in names and not climatology:
        raise InputError('metric "acc" needs climatology=: Climatology.fit(train, task)')
    if protocol not in (None, "paper"):
        raise InputError(f'protocol must be "paper" or None, found {protocol!r}')
    if protocol == "paper":
        added = [f"{m}_paper" for m in ("ssim", "psnr") if m in names]
        if not any(name.endswith("_paper") for name in (*names, *added)):
            raise InputError(
                'protocol="paper" is about "ssim" and "psnr", and neither is asked for; its errors '
                'are "mse_sum" and "mae_sum" for clips, weights="uniform" for weather'
            )
        names = tuple(dict.fromkeys((*names, *added)))
    ranged = [m for m in names if "data_range" in known[m].settings]
    if ranged and data_range is None:
        raise InputError(
            f"{', '.join(ranged)} depend on data_range=, the distance between the smallest and the "
            "largest value that the data can have: 1 for pictures on [0, 1]. It is never guessed; "
            "quantities without such a range, a temperature in K say, have no SSIM or PSNR"
        )
    if data_range is not None and any(m.endswith("_paper") for m in ranged) and data_range != 1:
        raise InputError(
            "the papers' SSIM and PSNR are of data on [0, 1], so data_range is 1, found "
            f"{data_range:g}: scale forecast and truth alike"
        )
    return {name: known[name] for name in names}


def perceptual(metrics: Mapping[str, Metric], lpips: Any) -> Any:
    """Read the weights of "lpips", where it is asked for."""
    if not any("lpips" in metric.settings for metric in metrics.values()):
        return None
    if lpips is None:
        raise InputError(
            'metric "lpips" needs weights that do not come with this package: lpips= the files '
            "alexnet-owt-*.pth of torchvision and alex.pth of the package lpips"
        )
    if callable(lpips):
        return lpips
    from .lpips import load_lpips

    return load_lpips(lpips)


def choose(
    asked: str | Sequence[str],
    known: Sequence[str] | Mapping[str, Any],
    what: str,
    empty: bool = False,
) -> tuple[str, ...]:
    """Take names of what there is, each once."""
    names = (asked,) if isinstance(asked, str) else tuple(dict.fromkeys(asked))
    unknown = [name for name in names if name not in known]
    if unknown or not (names or empty):
        raise InputError(f"{what} must be among {list(known)}, found {unknown or list(names)}")
    return names


def check_frames(
    names: Sequence[str],
    forecast: xr.Dataset,
    truth: xr.Dataset,
    points: PointWeights,
    by: set[Any],
    masks: bool,
) -> None:
    """Refuse metrics of whole frames where frames are not whole or do not add up."""
    what = f"{', '.join(names)}: metrics of whole frames"
    if by:
        raise InputError(f"{what} have no value by {', '.join(sorted(by))}")
    if points.names != ["uniform"] or points.shape not in ((), (1,)) or "region" in points.coords:
        raise InputError(
            f'{what} count every point the same; ask for them alone, with weights="uniform" and '
            "without regions"
        )
    if masks:
        raise InputError(f"{what} take no masks; leave out nan, where or these metrics")
    if FRAMES in forecast.data_vars:
        raise InputError(f"{what} are reported as {FRAMES!r}; rename the variable of that name")
    units = {str(v): forecast[v].attrs.get("units") for v in forecast.data_vars}
    one = next(iter(units.values()))
    if any(bool(u) != bool(one) or not same_units(u, one) for u in units.values()):
        raise InputError(
            f"{what} take all variables together, and these have several units: {units}; evaluate "
            "them one by one"
        )


def check_rows(
    names: Sequence[str], points: PointWeights, by: Sequence[Any], across: Any, masks: bool
) -> None:
    """Refuse metrics of whole rows where rows are not whole."""
    what = f"{', '.join(names)}: metrics of whole rows"
    if across in by:
        raise InputError(f"{what} have no value by {across}")
    if masks:
        raise InputError(f"{what} take no masks; leave out nan, where or these metrics")
    if any((array != array[:, :1]).any() for array in points.arrays):
        raise InputError(
            f"{what} count all points of a row the same; ask for them alone, with regions that "
            "are bands of latitude"
        )
