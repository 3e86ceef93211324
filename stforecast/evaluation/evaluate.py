"""Score forecasts against truth, block by block, by lead time, region, place and initialisation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..baselines.climatology import Climatology
from ..baselines.lookup import conform, places
from ..conventions.axes import LEAD, VALID, role_of
from ..conventions.grid import Grid
from ..conventions.overlap import TRAINED_WHERE, refuse_other_data, refuse_trained, told_of
from ..conventions.pairs import open_truth
from ..conventions.times import iso_time, valid_times
from ..errors import InputError
from ..package import __version__
from .aggregation import compute, gather
from .alignment import PointWeights, check_grid, check_units, valid_positions
from .choosing import (
    check_frames,
    check_rows,
    choose,
    choose_metrics,
    kinds_of,
    members_of,
    perceptual,
)
from .groups import PARTS, Groups
from .job import Job
from .means import ExactMean
from .metrics import MEMBERS, Above, Metric
from .published import benchmark_table
from .scorecards import hours_of, save_scores, scorecard, to_table
from .sums import FRAMES
from .thresholds import refuse_celsius

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
    last bit. Differences are float32, as the data are; sums are float64, in a fixed order. Sums of
    all but rmse, mse, mae, bias and acc are exact, so that these scores do not depend on the chunks
    either.

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
        and is the mean of the correlations of single maps. Of an ensemble: "crps" and "crps_fair",
        "spread_skill", "rank_histogram", "energy_score" and "energy_score_fair", and what
        :func:`stforecast.evaluation.brier`, :func:`~stforecast.evaluation.reliability`,
        :func:`~stforecast.evaluation.roc` and :func:`~stforecast.evaluation.quantile_score` make;
        of these a forecast without members is a sure one where that has a meaning (its CRPS is its
        MAE). Of events: what :func:`stforecast.evaluation.csi` and its like make. Of rows:
        "spectrum". Of whole frames: "mse_sum" and "mae_sum", errors summed over the points (and
        variables) of a frame; "ssim" (unit 1) and "psnr" (dB) of
        :mod:`stforecast.evaluation.images`, averaged over initialisations and leads; "lpips"
        (unit 1), which one or three channels have together and not each by itself. Metrics of whole
        frames need points that all count the same.
    climatology : Climatology or its Dataset, optional
        For "acc", which is added to `metrics` when this is given.
    weights : {"area", "uniform"}, both of these, or xarray.DataArray
        Area of the cells, or every point the same (as in the SimVPv2 paper's tables); or
        ``("area", "uniform")`` for both side by side. An array on the forecast's grid gives
        weights of your own, a mask of True and False 1 and 0; where it is 0, points are masked:
        neither scored nor checked for NaN. A grid without latitude has uniform weights.
    by : sequence of {"prediction_timedelta", "time", "latitude", "longitude", "season", ...}
        Dimensions to keep (``y``, ``x`` on grids without latitude); and "season" (DJF, MAM, JJA,
        SON), "month" (1 to 12) and "hour" (0 to 23), of the valid time in UTC: those that occur.
    regions : str, sequence of str or mapping, optional
        Names in :data:`stforecast.evaluation.regions.REGIONS`, or boxes ``{name: (south, north,
        west, east)}``, or arrays on the forecast's grid, of the part of each cell that lies in the
        region: ``{"land": mask, "sea": 1 - mask}``.
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
        ``ensemble="members"`` the dim ``realization`` after these. A metric that has dims of its
        own, such as the ranks of "rank_histogram", is not along ``metric``: it has the variables
        ``V_rank_histogram`` and ``V_rank_histogram_overall``, with its dims first. With metrics of
        whole frames
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
    chosen = choose_metrics(metrics, climatology is not None, data_range, protocol)
    if nan not in ("refuse", "mask"):
        raise InputError(f'nan must be "refuse" or "mask", found {nan!r}')
    if where is not None and not callable(where):
        raise InputError(
            f"where must be a function of truth, such as stforecast.evaluation.Above(10), found "
            f"{where!r}"
        )
    settings: dict[str, Any] = {"data_range": data_range, "lpips": perceptual(chosen, lpips)}
    reference = climatology.dataset if isinstance(climatology, Climatology) else climatology
    opened, member = members_of(forecast, truth, chosen, ensemble)
    needed = [] if reference is None else [reference]
    truth, truths = open_truth(truth, *opened[0], *needed)
    variables = [str(v) for v in truth.data_vars]
    members = [one[variables] for one, _ in opened]
    first = members[0]
    space = first[variables[0]].dims[2:]
    known = ("time", LEAD, *map(str, space), *PARTS)
    by = (by,) if isinstance(by, str) else by
    by = [n if n in known or n == VALID else role_of(n) or n for n in by]  # `lat` is latitude
    by = choose(by, known, "by", empty=True)
    refuse_other_data(first, truth)
    try:
        refuse_trained(first, told_of(first.attrs), truth, clips="clip" in truths.extras)
    except InputError as error:
        if allow_overlap is False:
            raise
        if allow_overlap is None:
            log.warning("%s", error)
    if where is None and (learned := told_of(first.attrs).get(TRAINED_WHERE)):
        log.warning(
            "the model learned where %s alone, and is scored everywhere: give where=",
            learned,
        )
    check_units(first, truth, variables)
    if isinstance(where, Above):
        for v in variables:
            refuse_celsius(first[v], where.limit)
    check_grid(first, truth, space, "truth")
    positions = valid_positions(first, truth)
    points = PointWeights.of(weights, regions, first, space)
    of_frames = [name for name, metric in chosen.items() if metric.of_frames]
    if of_frames:
        masks = nan == "mask" or where is not None
        check_frames(of_frames, first, truth, points, set(by) & set(space), masks)
    maps = [name for name, metric in chosen.items() if metric.of_maps and metric.weighted]
    if maps and set(by) & set(space):
        raise InputError(
            f"{', '.join(maps)} is of whole maps, over the map: it has no value by {space}"
        )
    if rows := [name for name, metric in chosen.items() if metric.of_rows]:
        check_rows(rows, points, by, space[1], nan == "mask" or where is not None)
    if reference is not None:
        reference = conform(reference, variables)
        check_grid(first, reference, space, "climatology")
        check_units(first, reference, variables, "the climatology")
        places(reference, valid_times(first["time"].values, first[LEAD].values))

    dims = ("time", LEAD, *space)
    keep = [dims.index(name) for name in by if name in dims]
    valid = valid_times(first["time"].values, first[LEAD].values)
    groups = Groups.of([name for name in by if name in PARTS], valid)
    settings["circular_longitude"] = Grid.of(first).periodic
    kinds, kind_of = kinds_of(chosen, settings)
    jobs = [Job.of(first, some, points, keep, nan, where, groups) for some in kinds]
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

    plain = [name for name, metric in chosen.items() if not metric.coords]
    coords: dict[str, Any] = {**({"metric": plain} if plain else {}), **points.coords}
    labels: list[Hashable] = [*points.coords, *([MEMBERS] if each else [])]
    if each and member is not None:
        coords[MEMBERS] = member
    coords |= groups.labels
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
        left = [*groups.labels, *sorted(set(by) & set(dims), key=dims.index)]
        sizes = [*points.shape, *([len(states)] if each else [])]
        for over in (False, True):
            found_of = {}
            for name, metric in chosen.items():
                # (weights and regions, member, groups, *keep), behind the metric's own dims
                values = [_finished(metric, s[v, kind_of[name]], size, over) for s in states]
                own = list(metric.coords or {})
                array = np.stack(values, axis=len(own) + 1)
                ahead, behind = array.shape[: len(own)], array.shape[len(own) + 2 :]
                behind = () if over else (*groups.shape, *behind[1:])
                _label(out, metric, ahead, settings)
                found_of[name] = xr.Variable(
                    (*own, *labels, *([] if over else left)),
                    array.reshape((*ahead, *sizes, *behind)),
                ).transpose(*own, *labels, *([] if over else by))
            end = "_overall" if over else ""
            if plain:
                out[f"{v}{end}"] = xr.Variable.concat([found_of[m] for m in plain], "metric")
                out[f"{v}{end}"].attrs = attrs
            for name in [m for m in chosen if m not in plain]:
                out[f"{v}_{name}{end}"] = found_of[name]
                out[f"{v}_{name}{end}"].attrs = _own_attrs(attrs, chosen[name], v)
    return out


def _words(where: Callable[..., Any]) -> str:
    """Say which points count, and what follows."""
    name = str(where) if isinstance(where, Above) else getattr(where, "__name__", "<lambda>")
    which = "a function of truth says so" if name == "<lambda>" else name
    return f"{which} (a false alarm costs nothing)"


def _finished(metric: Metric, state: Any, points: int, overall: bool) -> np.ndarray:
    """Metric from its state, for each array of weights."""
    mean = (state.collapse(1) if overall else state).mean
    if not metric.of_maps:
        exact = isinstance(state, ExactMean)  # which is of several statistics, or of one
        mean = metric.finish(mean[0] if exact and not metric.several else mean)
    return mean * (points if metric.summed else 1)


def _label(
    out: xr.Dataset, metric: Metric, sizes: tuple[int, ...], settings: Mapping[str, Any]
) -> None:
    """Add the labels of a metric's own dims."""
    known = {name: settings[name] for name in metric.settings if name in settings}
    for (dim, given), size in zip((metric.coords or {}).items(), sizes, strict=True):
        labels = np.asarray(given(size, **known) if callable(given) else given)
        if dim in out.coords and not np.array_equal(out[dim].values, labels):
            raise InputError(
                f"{metric.name} has the {dim} {labels.tolist()} where another metric has "
                f"{out[dim].values.tolist()}; evaluate them one by one"
            )
        out.coords[dim] = labels


def _own_attrs(attrs: Mapping[str, Any], metric: Metric, variable: str) -> dict[str, Any]:
    """Attributes of a metric that has a variable of its own."""
    shared = {"masked_points", "masked_share"}
    out = {k: a for k, a in attrs.items() if k in shared}
    out |= {"long_name": metric.long_name or metric.name, "units": attrs[f"units_{metric.name}"]}
    if metric.thresholds is not None:
        out["thresholds"] = metric.thresholds.of(variable)
    return out


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
    for name, metric in metrics.items():
        if metric.thresholds is not None and not metric.coords:
            attrs[f"threshold_{name}"] = metric.thresholds.of(str(variable.name))
    if len(set(units.values())) == 1:
        attrs["units"] = next(iter(units.values()))
    return attrs | units
