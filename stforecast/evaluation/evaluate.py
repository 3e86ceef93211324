"""Score forecasts against truth, block by block, by lead time, region, place and initialisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..baselines.climatology import Climatology, conform
from ..conventions.axes import LEAD
from ..conventions.gate import canonicalize
from ..conventions.times import iso_time
from ..errors import InputError
from ..package import __version__
from .aggregation import FRAMES, Job, compute, gather
from .alignment import Grids, check_grid, check_units, valid_positions
from .metrics import METRICS, Metric, WeightedMean
from .published import benchmark_table
from .scorecards import hours_of, save_scores, scorecard, to_table

__all__ = ["benchmark_table", "evaluate", "save_scores", "scorecard", "to_table"]


def evaluate(
    forecast: Any,
    truth: Any,
    *,
    metrics: str | Sequence[str] = ("rmse", "mae", "bias"),
    climatology: Climatology | xr.Dataset | None = None,
    weights: str | Sequence[str] | xr.DataArray = "area",
    by: str | Sequence[str] = (LEAD,),
    regions: str | Sequence[str] | Mapping[str, Any] | None = None,
    nan: str = "refuse",
    data_range: float | None = None,
    protocol: str | None = None,
    lpips: Any = None,
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
        single time or lead time may be a scalar coordinate.
    truth : xarray.Dataset
        The same variables with dims (time, latitude, longitude).
    metrics : sequence of str
        What to compute. "rmse", "mse", "mae", "bias" of points. "acc" of maps: the anomaly
        correlation (:func:`stforecast.evaluation.metrics.anomaly_correlation`) needs a `climatology`, and is
        the mean of the correlations of single maps. "mse_sum", "mae_sum", "ssim" and "psnr" of
        whole frames: errors summed over the points (and variables) of a frame, and structural
        similarity and peak signal-to-noise ratio (:mod:`stforecast.evaluation.images`), averaged over
        initialisations and leads. These four need points that all count the same, and so does
        "lpips", which one or three channels have together and not each by itself.
    climatology : Climatology or its Dataset, optional
        For "acc", which is added to `metrics` when this is given.
    weights : {"area", "uniform"}, both of these, or xarray.DataArray
        Area of the cells, or every point the same (as in the SimVPv2 paper's tables); or
        ``("area", "uniform")`` for both side by side. An array on the forecast's grid gives
        weights of your own; where it is 0, points are masked: neither scored nor checked for NaN.
        A grid without latitude has uniform weights.
    by : sequence of {"prediction_timedelta", "time", "latitude", "longitude"}
        Dimensions to keep (``y``, ``x`` on grids without latitude).
    regions : str, sequence of str or mapping, optional
        Names in :data:`stforecast.evaluation.regions.REGIONS`, or ``{name: (south, north, west, east)}``.
        Cells count with the part of them that lies in the region. "global" is one of the names.
    nan : {"refuse", "mask"}
        What a NaN in truth means. "mask" takes the point out of the score, at that time, and the
        number of points taken out is told. A NaN in the forecast where truth has a value is an
        error under either.
    data_range : float, optional
        For "ssim", "psnr" and "lpips": distance between the smallest and the largest value that
        data can have, 1 for pictures on [0, 1].
    protocol : {"paper"}, optional
        Adds to "ssim" and "psnr" the metrics "ssim_paper" and "psnr_paper": as the SimVP papers'
        code computes them (:func:`stforecast.evaluation.images.paper_ssim`,
        :func:`stforecast.evaluation.images.paper_psnr`), for data on [0, 1] and `data_range` 1.
    lpips : path, sequence of paths or callable, optional
        For "lpips": files of weights, or what :func:`stforecast.evaluation.lpips.load_lpips` gives.

    Returns
    -------
    xarray.Dataset
        For each variable V: ``V`` with dims ``(metric, *by)`` and ``V_overall`` with dim (metric),
        float64. Several weights or regions give the dims ``weights`` and ``region`` after metric.
        With metrics of whole frames also ``frames`` and ``frames_overall``, of all variables
        together: the channels of a clip. Attributes tell the units (``units`` where all metrics
        share it, and ``units_rmse`` and so on), the weights in force (``weights``,
        ``weights_policy``), the number of initialisations, the first and the last of them, the
        version, and what was masked (``masked_points``, ``masked_share`` of a variable).

    Raises
    ------
    InputError
        If grids differ by more than 0.001 degrees, units differ, truth lacks a valid time, or a
        value is NaN or infinite where the weight is not 0. A NaN is never skipped unasked: it
        would make the rest look like the whole.
    """
    names = _metric_names(metrics, climatology is not None, data_range, protocol)
    perceptual = _perceptual(names, lpips)
    if nan not in ("refuse", "mask"):
        raise InputError(f'nan must be "refuse" or "mask", found {nan!r}')

    forecast = _open_forecast(forecast)
    variables = [str(v) for v in forecast.data_vars]
    truth, _ = canonicalize(truth, variables)
    if LEAD in truth.dims:
        raise InputError(f"truth has {LEAD}; give observations or analyses by time, not forecasts")
    space = forecast[variables[0]].dims[2:]
    by = _choose(by, ("time", LEAD, *space), "by", empty=True)
    if "acc" in names and set(by) & set(space):
        raise InputError(f'"acc" is a correlation over the map: it has no value by {space}')
    check_units(forecast, truth, variables)
    check_grid(forecast, truth, space, "truth")
    positions = valid_positions(forecast, truth)
    grids = Grids.of(weights, regions, forecast, space)
    of_frames = [name for name in names if METRICS[name].of_frames]
    if of_frames:
        _check_frames(of_frames, forecast, truth, grids, set(by) & set(space), nan)
    reference = None
    if climatology is not None:
        reference = climatology.dataset if isinstance(climatology, Climatology) else climatology
        reference = conform(reference, variables)
        check_grid(forecast, reference, space, "climatology")

    dims = ("time", LEAD, *space)
    keep = [dims.index(name) for name in by]
    kinds = {METRICS[name].statistic for name in names}
    if "acc" not in names:
        reference = None
    job = Job.of(forecast, kinds, grids, keep, nan, data_range, perceptual)
    parts = compute(job, forecast[variables], truth[variables], positions, reference)
    shape = tuple(forecast.sizes[d] for d in dims)
    states, hidden = gather(job, parts, shape, together=bool(of_frames))

    coords: dict[str, Any] = {"metric": list(names), **grids.coords}
    coords |= {name: forecast[name].variable for name in by if name in forecast.coords}
    out = xr.Dataset(coords=coords, attrs=_sample_attrs(forecast, grids, nan, data_range, protocol))
    if reference is not None and "climatology_period" in reference.attrs:
        out.attrs["acc_climatology_period"] = reference.attrs["climatology_period"]
    for v in [*variables, *([FRAMES] if of_frames else [])]:
        attrs = _score_attrs(forecast[variables[0] if v == FRAMES else v], names)
        if v == FRAMES:
            attrs["long_name"] = f"{', '.join(variables)} together"
        elif nan == "mask":
            total = positions.size * np.count_nonzero(~grids.mask)
            attrs |= {"masked_points": hidden[v], "masked_share": hidden[v] / total}
        points = grids.mask.size * (len(variables) if v == FRAMES else 1)
        for key, over in ((v, False), (f"{v}_overall", True)):
            of = [states[v, METRICS[name].statistic] for name in names]
            values = np.stack(
                [
                    _finished(METRICS[name], state.collapse(1) if over else state, points)
                    for name, state in zip(names, of, strict=True)
                ]
            )
            values = values.reshape(len(names), *grids.shape, *values.shape[2:])
            left = [] if over else sorted(by, key=dims.index)
            array = xr.Variable(("metric", *grids.coords, *left), values, attrs)
            out[key] = array if over else array.transpose("metric", *grids.coords, *by)
    return out


def _finished(metric: Metric, state: WeightedMean, points: int) -> np.ndarray:
    """Metric from its state, for each array of weights."""
    mean = state.mean if metric.frame_by_frame else metric.finish(state.mean)
    return mean * (points if metric.summed else 1)


def _metric_names(
    metrics: str | Sequence[str], climatology: bool, data_range: float | None, protocol: str | None
) -> tuple[str, ...]:
    """Metrics to compute, with those that a climatology and a protocol add."""
    names = _choose(metrics, METRICS, "metrics")
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
    ranged = [m for m in names if METRICS[m].frame_by_frame]
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
    return names


def _perceptual(names: Sequence[str], lpips: Any) -> Any:
    """The measure of "lpips", where it is asked for."""
    if "lpips" not in names:
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


def _open_forecast(forecast: Any) -> xr.Dataset:
    """Pass a forecast through the gate, and check what makes it a forecast."""
    out, _ = canonicalize(forecast)
    if LEAD not in out.dims:
        raise InputError(
            f"a forecast has dims time (the initialisation) and {LEAD}, found "
            f"{tuple(out.dims)}; stforecast.predict gives this form"
        )
    return out


def _check_frames(
    names: Sequence[str],
    forecast: xr.Dataset,
    truth: xr.Dataset,
    grids: Grids,
    by: set[Any],
    nan: str,
) -> None:
    """Refuse metrics of whole frames where frames are not whole or do not add up."""
    what = f"{', '.join(names)}: metrics of whole frames"
    if by:
        raise InputError(f"{what} have no value by {', '.join(sorted(by))}")
    if grids.names != ["uniform"] or grids.shape not in ((), (1,)) or "region" in grids.coords:
        raise InputError(
            f'{what} count every point the same; ask for them alone, with weights="uniform" and '
            "without regions"
        )
    if nan == "mask":
        raise InputError(f"{what} take no masks; leave out nan or these metrics")
    if FRAMES in forecast.data_vars:
        raise InputError(f"{what} are reported as {FRAMES!r}; rename the variable of that name")
    units = {str(v): forecast[v].attrs.get("units") for v in forecast.data_vars}
    if len(set(units.values())) > 1:
        raise InputError(
            f"{what} take all variables together, and these have several units: {units}; evaluate "
            "them one by one"
        )


def _sample_attrs(
    forecast: xr.Dataset,
    grids: Grids,
    nan: str,
    data_range: float | None,
    protocol: str | None,
) -> dict[str, Any]:
    """What was scored, and how."""
    init = forecast["time"].values
    attrs: dict[str, Any] = {
        "weights": ", ".join(grids.names),
        "weights_policy": grids.description,
        "root": "taken last, of the mean over initialisations and area",
        "nan": nan,
        "initialisations": init.size,
        "first_initialisation": iso_time(init[0]),
        "last_initialisation": iso_time(init[-1]),
        "lead_hours": ", ".join(hours_of(forecast[LEAD].values)),
        "grid": " x ".join(map(str, grids.mask.shape)),
        "stforecast_version": __version__,
    }
    if data_range is not None:
        attrs["data_range"] = float(data_range)
    if protocol is not None:
        attrs["protocol"] = protocol
    return attrs


def _score_attrs(variable: xr.DataArray, names: Sequence[str]) -> dict[str, Any]:
    unit = variable.attrs.get("units", "unknown")
    units = {f"units_{m}": METRICS[m].units(unit) for m in names}
    attrs: dict[str, Any] = {"long_name": variable.attrs.get("long_name", str(variable.name))}
    if len(set(units.values())) == 1:
        attrs["units"] = next(iter(units.values()))
    return attrs | units
