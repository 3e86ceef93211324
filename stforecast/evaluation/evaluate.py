"""Score forecasts against truth, block by block, by lead time, region, place and initialisation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..baselines.climatology import Climatology
from ..baselines.lookup import conform, places
from ..conventions.axes import LEAD, VALID, role_of
from ..conventions.forms import as_dataset, with_members
from ..conventions.gate import Labels
from ..conventions.overlap import refuse_other_data, refuse_trained, told_of
from ..conventions.pairs import open_forecast, open_truth
from ..conventions.times import iso_time, valid_times
from ..conventions.units import same_units
from ..errors import InputError
from ..package import __version__
from .aggregation import FRAMES, compute, gather
from .alignment import PointWeights, check_grid, check_units, valid_positions
from .job import Job
from .metrics import MEMBERS, METRICS, Above, Metric, WeightedMean
from .published import benchmark_table
from .scorecards import hours_of, save_scores, scorecard, to_table

log = logging.getLogger(__name__)

__all__ = ["benchmark_table", "evaluate", "save_scores", "scorecard", "to_table"]


def evaluate(
    forecast: Any,
    truth: Any,
    *,
    metrics: str | Metric | Sequence[str | Metric] = ("rmse", "mae", "bias"),
    climatology: Climatology | xr.Dataset | None = None,
    weights: str | Sequence[str] | xr.DataArray = "area",
    by: str | Sequence[str] = (LEAD,),
    regions: str | Sequence[str] | Mapping[str, Any] | None = None,
    nan: str = "refuse",
    where: Callable[[np.ndarray], Any] | None = None,
    data_range: float | None = None,
    protocol: str | None = None,
    lpips: Any = None,
    ensemble: Literal["mean", "members"] = "mean",
    allow_overlap: bool | None = None,
) -> xr.Dataset:
    """Score a forecast against truth, by lead time and overall.

    Both pass the gate (:func:`stforecast.conventions.canonicalize`), so they may differ in names,
    units, order and longitude convention. Truth is taken at the forecast's *valid* times
    (initialisation + lead), and each of these must be there: nothing is dropped silently.

    Data may be larger than memory, in chunks of any dims: each chunk of the forecast is summed
    where it is read, and only sums are kept. Forecasts of dask are computed by the scheduler that
    is active: threads, or the workers of a cluster after ``client = distributed.Client(...)``.
    What is computed depends on the chunks alone, and every scheduler gives the same figures to the
    last bit. Differences are float32, as the data are; sums are float64, in a fixed order.

    RMSE is the root of the mean square over initialisations and area, and for the overall value
    over lead times too: the root comes last.

    Parameters
    ----------
    forecast : xarray.Dataset
        Dims (time, prediction_timedelta, latitude, longitude) in any order, as
        :func:`stforecast.predict` gives it, or (…, y, x). ``time`` is the initialisation. A
        single time or lead time may be a scalar coordinate. An ensemble has ``realization`` too.
        Where a coordinate tells initialisations or lead times, ``time`` may be the valid time. Of a
        variable on pressure levels each level is scored, as ``geopotential_500``.
    truth : xarray.Dataset
        The same variables with dims (time, latitude, longitude).
    metrics : str, Metric, or sequence of these
        Names of :data:`stforecast.evaluation.metrics.METRICS`, and metrics of your own
        (:class:`stforecast.evaluation.Metric`). Of points: "mse" in the square of the variable's
        unit; "rmse", "mae" and "bias" in its unit; "mape" in percent of truth, which must not be 0
        where points count (see `where`). Of maps: "acc", the anomaly correlation
        (:func:`stforecast.evaluation.metrics.anomaly_correlation`; unit 1) needs a `climatology`,
        and is the mean of the correlations of single maps. Of whole frames: "mse_sum" and
        "mae_sum", errors summed over the points (and variables) of a frame; "ssim" (unit 1) and
        "psnr" (dB) of :mod:`stforecast.evaluation.images`, averaged over initialisations and
        leads; "lpips" (unit 1), which one or three channels have together and not each by itself.
        Metrics of whole frames need points that all count the same.
    climatology : Climatology or its Dataset, optional
        For "acc", which is added to `metrics` when this is given.
    weights : {"area", "uniform"}, both of these, or xarray.DataArray
        Area of the cells, or every point the same (as in the SimVPv2 paper's tables); or
        ``("area", "uniform")`` for both side by side. An array on the forecast's grid gives
        weights of your own, a mask of True and False 1 and 0; where it is 0, points are masked:
        neither scored nor checked for NaN. A grid without latitude has uniform weights.
    by : sequence of {"prediction_timedelta", "time", "latitude", "longitude"}
        Dimensions to keep (``y``, ``x`` on grids without latitude).
    regions : str, sequence of str or mapping, optional
        Names in :data:`stforecast.evaluation.regions.REGIONS`, or boxes ``{name: (south, north,
        west, east)}``.
        Cells count with the part of them that lies in the region. "global" is one of the names.
    nan : {"refuse", "mask"}
        What a NaN in truth means. "mask" takes the point out of the score, at that time, and the
        number of points taken out is told. A NaN in the forecast where truth has a value is an
        error under either.
    where : callable, optional
        Which points count, by truth: it takes an array of truth, of any shape and in the units that
        are scored, and gives True or False for each. All others are left out, whatever is forecast
        there: **a false alarm costs nothing**, and the attribute ``where`` of the result says so.
        ``where=stforecast.evaluation.Above(10)``, ``where=lambda truth: truth > 10``.
    data_range : float, optional
        For "ssim", "psnr" and "lpips": distance between the smallest and the largest value that
        data can have, 1 for pictures on [0, 1].
    protocol : {"paper"}, optional
        Adds to "ssim" and "psnr" the metrics "ssim_paper" and "psnr_paper": as the SimVP papers'
        code computes them (:func:`stforecast.evaluation.images.paper_ssim`,
        :func:`stforecast.evaluation.images.paper_psnr`), for data on [0, 1] and `data_range` 1.
    lpips : path, sequence of paths or callable, optional
        For "lpips": files of weights, or what :func:`stforecast.evaluation.lpips.load_lpips` gives.
    ensemble : {"mean", "members"}
        What is scored of a forecast with the dimension ``realization``: the mean of its members,
        or each of them by itself. Metrics of all members together need "mean".
    allow_overlap : bool, optional
        What to do about valid times that the model was trained on, where the forecast says which
        these are (its attribute ``training_period``): a period that was trained on cannot judge.
        True: score them; False: an error. Default: score them, with a warning in the log.

    Returns
    -------
    xarray.Dataset
        For each variable V: ``V`` with dims ``(metric, *by)`` and ``V_overall`` with dim (metric),
        float64. Several weights or regions give the dims ``weights`` and ``region`` after metric,
        ``ensemble="members"`` the dim ``realization`` after these. With metrics of whole frames
        also ``frames`` and ``frames_overall``, of all variables together: the channels of a clip.
        Attributes tell the units (``units_rmse`` and so on, and ``units`` where all metrics share
        it: K, K**2, 1 or dB), the weights in force (``weights``, ``weights_policy``), the number
        of initialisations, the first and the last of them, the version, of an ensemble what was
        scored (``ensemble``) and its number of ``members``, and how many points `nan` and `where`
        took out (``masked_points``, ``masked_share`` of a variable).

    Raises
    ------
    InputError
        If grids differ by more than 0.001 degrees, units differ, truth lacks a valid time or is of
        other clips than the forecast was made from, valid times lie in the training period and
        `allow_overlap` is False, or a value is NaN or infinite where the weight is not 0. A NaN is
        never skipped unasked: it would make the rest look like the whole.
    """
    chosen = _choose_metrics(metrics, climatology is not None, data_range, protocol)
    if nan not in ("refuse", "mask"):
        raise InputError(f'nan must be "refuse" or "mask", found {nan!r}')
    if where is not None and not callable(where):
        raise InputError(
            f"where must be a function of truth, such as stforecast.evaluation.Above(10), found "
            f"{where!r}"
        )
    settings = {"data_range": data_range, "lpips": _perceptual(chosen, lpips)}
    reference = climatology.dataset if isinstance(climatology, Climatology) else climatology
    opened, member = _members(forecast, truth, chosen, ensemble)
    needed = [] if reference is None else [reference]
    truth, truths = open_truth(truth, *opened[0], *needed)
    variables = [str(v) for v in truth.data_vars]
    members = [one[variables] for one, _ in opened]
    first = members[0]
    space = first[variables[0]].dims[2:]
    known = ("time", LEAD, *map(str, space))
    by = (by,) if isinstance(by, str) else by
    by = [n if n in known or n == VALID else role_of(n) or n for n in by]  # `lat` is latitude
    by = _choose(by, known, "by", empty=True)
    if "acc" in chosen and set(by) & set(space):
        raise InputError(f'"acc" is a correlation over the map: it has no value by {space}')
    refuse_other_data(first, truth)
    try:
        refuse_trained(first, told_of(first.attrs), truth, clips="clip" in truths.extras)
    except InputError as error:
        if allow_overlap is False:
            raise
        if allow_overlap is None:
            log.warning("%s", error)
    check_units(first, truth, variables)
    check_grid(first, truth, space, "truth")
    positions = valid_positions(first, truth)
    points = PointWeights.of(weights, regions, first, space)
    of_frames = [name for name, metric in chosen.items() if metric.of_frames]
    if of_frames:
        masks = nan == "mask" or where is not None
        _check_frames(of_frames, first, truth, points, set(by) & set(space), masks)
    if reference is not None:
        reference = conform(reference, variables)
        check_grid(first, reference, space, "climatology")
        check_units(first, reference, variables, "the climatology")
        places(reference, valid_times(first["time"].values, first[LEAD].values))

    dims = ("time", LEAD, *space)
    keep = [dims.index(name) for name in by]
    kinds, kind_of = _kinds(chosen, settings)
    jobs = [Job.of(first, some, points, keep, nan, where) for some in kinds]
    each = ensemble == "members"
    runs = [(jobs[0], [m]) for m in members] if each else [(job, members) for job in jobs]
    parts = compute(runs, truth[variables], positions, reference)
    shape = tuple(first.sizes[d] for d in dims)
    found = [
        gather(job, part, shape, together=bool(of_frames))
        for (job, _), part in zip(runs, parts, strict=True)
    ]
    states = (
        [state for state, _ in found] if each else [{k: s for f, _ in found for k, s in f.items()}]
    )
    hidden = found[0][1]

    coords: dict[str, Any] = {"metric": list(chosen), **points.coords}
    labels: list[Hashable] = [*points.coords, *([MEMBERS] if each else [])]
    if each and member is not None:
        coords[MEMBERS] = member
    coords |= {name: first[name].variable for name in by if name in first.coords}
    out = xr.Dataset(coords=coords, attrs=_sample_attrs(first, points, nan, data_range, protocol))
    if where is not None:
        out.attrs["where"] = _words(where)
    if len(members) > 1 or each:
        out.attrs |= {"ensemble": ensemble, "members": len(members)}
    if reference is not None and "climatology_period" in reference.attrs:
        out.attrs["acc_climatology_period"] = reference.attrs["climatology_period"]
    for v in [*variables, *([FRAMES] if of_frames else [])]:
        attrs = _score_attrs(first[variables[0] if v == FRAMES else v], chosen)
        if v == FRAMES:
            attrs["long_name"] = f"{', '.join(variables)} together"
        elif nan == "mask" or where is not None:
            total = positions.size * np.count_nonzero(~points.mask)
            if hidden[v] == total and where is not None:
                raise InputError(
                    f"{v}: none of the {total} points of truth is one of those that count, where "
                    f"{out.attrs['where']}"
                )
            attrs |= {"masked_points": hidden[v], "masked_share": hidden[v] / total}
        size = points.mask.size * (len(variables) if v == FRAMES else 1)
        for key, over in ((v, False), (f"{v}_overall", True)):
            values = np.array(
                [
                    [_finished(m, state[v, kind_of[name]], size, over) for state in states]
                    for name, m in chosen.items()
                ]
            )  # (metric, member, weights and regions, *keep)
            values = np.moveaxis(values, 1, 2)
            left = [] if over else sorted(by, key=dims.index)
            whole = (len(chosen), *points.shape, *([len(states)] if each else []))
            array = xr.Variable(
                ("metric", *labels, *left), values.reshape(*whole, *values.shape[3:]), attrs
            )
            out[key] = array if over else array.transpose("metric", *labels, *by)
    return out


def _words(where: Callable[..., Any]) -> str:
    """Say which points count, and what follows."""
    name = str(where) if isinstance(where, Above) else getattr(where, "__name__", "<lambda>")
    which = "a function of truth says so" if name == "<lambda>" else name
    return f"{which} (a false alarm costs nothing)"


def _finished(metric: Metric, state: WeightedMean, points: int, overall: bool) -> np.ndarray:
    """Metric from its state, for each array of weights."""
    state = state.collapse(1) if overall else state
    mean = state.mean if metric.of_maps else metric.finish(state.mean)
    return mean * (points if metric.summed else 1)


def _members(
    forecast: Any, truth: Any, metrics: Mapping[str, Metric], ensemble: str
) -> tuple[list[tuple[xr.Dataset, Labels]], xr.Variable | None]:
    """Members of a forecast, each through the gate, and their labels; of a single one itself."""
    if ensemble not in ("mean", "members"):
        raise InputError(f'ensemble must be "mean" or "members", found {ensemble!r}')
    of_all = [name for name, metric in metrics.items() if MEMBERS in metric.dims]
    forecast = with_members(as_dataset(forecast))
    count = forecast.sizes.get(MEMBERS)
    if count is None and (of_all or ensemble == "members"):
        what = ", ".join(of_all) or 'ensemble="members"'
        raise InputError(
            f"{what} is of forecasts with the dimension "
            f"{MEMBERS!r}, found {tuple(forecast.dims)}; "
            "predict(ds, [model, model, ...]) gives one"
        )
    if count == 0:
        raise InputError(f"the forecast has no member: its dimension {MEMBERS!r} is empty")
    if of_all and ensemble == "members":
        raise InputError(
            f'{", ".join(of_all)} is of all members together: ask for it with ensemble="mean"'
        )
    if count is None:
        return [open_forecast(forecast, truth)], None
    each = [open_forecast(forecast.isel({MEMBERS: i}, drop=True), truth) for i in range(count)]
    return each, forecast[MEMBERS].variable if MEMBERS in forecast.coords else None


def _kinds(
    metrics: Mapping[str, Metric], settings: Mapping[str, Any]
) -> tuple[list[list[Metric]], dict[str, str]]:
    """Metrics with different statistics, of a forecast and of all members; and whose each has.

    Metrics that differ only in what is done to the mean, such as RMSE and MSE, share its sums.
    """
    kinds: dict[Any, Metric] = {}
    kind_of = {}
    for name, metric in metrics.items():
        key = name if metric.of_maps else (metric.statistic, MEMBERS in metric.dims)
        kinds.setdefault(key, replace(metric, statistic=metric.bound(settings), settings=()))
        kind_of[name] = kinds[key].name
    of_all = [kind for kind in kinds.values() if MEMBERS in kind.dims]
    others = [kind for kind in kinds.values() if MEMBERS not in kind.dims]
    return [some for some in (others, of_all) if some], kind_of


def _choose_metrics(
    metrics: str | Metric | Sequence[str | Metric],
    climatology: bool,
    data_range: float | None,
    protocol: str | None,
) -> dict[str, Metric]:
    """Metrics to compute by name, with those that a climatology and a protocol add."""
    asked = [metrics] if isinstance(metrics, (str, Metric)) else list(metrics)
    known = {**METRICS}
    for metric in asked:
        if isinstance(metric, Metric) and known.setdefault(metric.name, metric) != metric:
            raise InputError(f"two metrics have the name {metric.name!r}; give yours another")
    names = _choose([m.name if isinstance(m, Metric) else m for m in asked], known, "metrics")
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


def _perceptual(metrics: Mapping[str, Metric], lpips: Any) -> Any:
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


def _choose(
    asked: str | Sequence[str],
    known: Sequence[str] | Mapping[str, Any],
    what: str,
    empty: bool = False,
) -> tuple[str, ...]:
    names = (asked,) if isinstance(asked, str) else tuple(dict.fromkeys(asked))
    unknown = [name for name in names if name not in known]
    if unknown or not (names or empty):
        raise InputError(f"{what} must be among {list(known)}, found {unknown or list(names)}")
    return names


def _check_frames(
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


def _sample_attrs(
    forecast: xr.Dataset,
    points: PointWeights,
    nan: str,
    data_range: float | None,
    protocol: str | None,
) -> dict[str, Any]:
    """What was scored, and how."""
    init = forecast["time"].values
    attrs: dict[str, Any] = {
        "weights": ", ".join(points.names),
        "weights_policy": points.description,
        "root": "taken last, of the mean over initialisations and area",
        "nan": nan,
        "initialisations": init.size,
        "first_initialisation": iso_time(init[0]),
        "last_initialisation": iso_time(init[-1]),
        "lead_hours": ", ".join(hours_of(forecast[LEAD].values)),
        "grid": " x ".join(map(str, points.mask.shape)),
        "stforecast_version": __version__,
    }
    if data_range is not None:
        attrs["data_range"] = float(data_range)
    if protocol is not None:
        attrs["protocol"] = protocol
    return attrs


def _score_attrs(variable: xr.DataArray, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    unit = variable.attrs.get("units", "unknown")
    units = {f"units_{name}": metric.units(unit) for name, metric in metrics.items()}
    attrs: dict[str, Any] = {"long_name": variable.attrs.get("long_name", str(variable.name))}
    if len(set(units.values())) == 1:
        attrs["units"] = next(iter(units.values()))
    return attrs | units
