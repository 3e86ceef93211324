"""From labelled history to a labelled forecast, with one model: what all forecasters share."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LAT, LEAD, LON, MEMBER, TIME, VALID
from ..conventions.gate import FORECAST_ATTRS, canonicalize, restore
from ..conventions.grid import Grid
from ..conventions.overlap import FINGERPRINT
from ..conventions.regrid import covers, to_grid
from ..conventions.times import as_labels, time_step, valid_times
from ..conventions.units import same_units
from ..errors import InputError
from ..parallel import survive_forks
from ..task import Task, WindowForecaster, refuse_months, window_starts
from .batches import Batch, batches, forecast_later, forecast_now
from .draws import draw
from .known import find_known
from .lagging import lagged, lagging

logger = logging.getLogger(__name__)

_MOST = 1_000_000  # steps, and forecasts at a time


class ForecastModel:
    """Base class of the forecasters: arrays in, arrays out, and labels around them.

    A subclass has a `task`, and :meth:`forecast` or what that calls: ``_forecast(inputs,
    init_time, steps)``, with the same inputs and result.
    """

    task: Task
    #: Whether ``forecast`` wants `known`, where the task names such.
    takes_known = False
    #: How it draws members of an ensemble; None where it draws none. One that does takes `drawn`
    #: (:class:`stforecast.forecasting.draws.Drawn`) in ``forecast``.
    draws: str | None = None
    #: The grid of the data that it was fitted to; None where any will do.
    fitted_on: Grid | None = None

    @property
    def trained_on(self) -> dict[str, str]:
        """Attributes of its forecasts that say which period it was trained on, and of what data."""
        return {}

    def forecast(
        self,
        inputs: np.ndarray,
        init_time: np.ndarray,
        steps: int,
        *,
        latitude: Any = None,
        longitude: Any = None,
        known: np.ndarray | None = None,
    ) -> np.ndarray:
        """Forecast from arrays.

        Parameters
        ----------
        inputs : numpy.ndarray of shape (B, T, C, H, W)
            History in physical units, channels in the order of ``task.variables``.
        init_time : numpy.ndarray of shape (B,)
            Times of the last input step, ``datetime64`` or cftime.
        steps : int
            Number of steps of ``task.timestep``.
        latitude, longitude : array-like of shape (H,), (W,), optional
            Grid of the input in canonical order; where the model was fitted on one, it must be that
            one to 0.001 degrees.
        known : numpy.ndarray of shape (B, N, K, H, W), optional
            What changes with time of ``task.known``, at the valid times: see
            :meth:`stforecast.Forecaster.forecast`. Where :attr:`takes_known` says so.

        Returns
        -------
        numpy.ndarray of shape (B, steps, C', H, W)
            In physical units, channels in the order of ``task.outputs``. Persistence returns a
            read-only view of the input.

        Raises
        ------
        InputError
            If the grid is another, or this number of steps cannot be made.
        """
        inputs = np.asarray(inputs)
        if self.fitted_on is not None:
            given = {LAT: latitude, LON: longitude}
            sizes = dict(zip(self.fitted_on.axes, inputs.shape[-2:], strict=True))
            coords = {k: np.asarray(v) for k, v in given.items() if k in sizes and v is not None}
            for axes in (sizes | coords, sizes):
                if difference := self.fitted_on.difference(Grid(**axes)):
                    raise InputError(
                        f"{type(self).__name__} was fitted on another grid than the input's: "
                        f"{difference}; fit it on this grid"
                    )
        made: Any = self._forecast
        more = {"known": known} if self.takes_known else {}
        return made(inputs, init_time, steps, **more)

    def _forecast(self, inputs: np.ndarray, init_time: np.ndarray, steps: int) -> np.ndarray:
        raise NotImplementedError

    def predict(self, ds: xr.Dataset, **options: Any) -> xr.Dataset:
        """Forecast from labelled history: :func:`stforecast.predict` with this model.

        Parameters
        ----------
        ds : xarray.Dataset
            The history, in any of the usual conventions.
        **options
            Those of :func:`stforecast.predict`, but for the model.

        Returns
        -------
        xarray.Dataset
            The forecast, with the names, units and orders of `ds`.

        Raises
        ------
        InputError
            As :func:`stforecast.predict`.
        """
        return forecast_with(self, ds, **options)


def forecast_with(
    model: WindowForecaster,
    ds: xr.Dataset | xr.DataArray | Any,
    *,
    init_time: Any = None,
    steps: int | None = None,
    batch_size: int | None = None,
    device: Any = None,
    regrid: bool = False,
    known: Any = None,
    ensemble: Any = None,
    seed: int = 0,
    members: Any = None,
    lag: Any = None,
    first_member: int = 0,
) -> xr.Dataset:
    """Forecast with one model; parameters, result and errors as of :func:`stforecast.predict`.

    `first_member` is the number of the first member that is drawn.
    """
    if device is not None:
        from ..models.surroundings import find_device  # torch, which a baseline does without

        place = find_device(device)
        if hasattr(model, "to"):
            model.to(place)
    survive_forks()
    task = model.task
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        number = isinstance(value, Real) and not isinstance(value, bool)
        if value is not None and not (number and 1 <= value <= _MOST and value == int(value)):
            raise InputError(
                f"{name} must be a whole number of at least 1, at most {_MOST:,}, found "
                f"{value!r:.60}"
            )
    steps = task.target_steps if steps is None else int(steps)
    task.lead_times(steps)  # those that are too long are refused before anything is computed
    batch_size = None if batch_size is None else int(batch_size)
    named = isinstance(ensemble, str)
    count, apart = lagging(task, ensemble if named else None, members, lag, steps)
    drawn = draw(model, None if named else ensemble, seed, first_member)

    given = ds
    ds, labels = canonicalize(ds, task.variables, form="history")
    _check_step(ds, model)
    check_units(ds, model)
    ds = _on_grid(ds, model, regrid)
    own = _inits(ds, task, init_time, task.history + (count - 1) * apart)
    several = own[:, None] - apart * np.arange(count)  # one after the other, without a gap
    ends = np.unique(several) if count > 1 else own

    space = ds[task.variables[0]].dims[1:]
    inputs = [ds[v].variable for v in task.variables]
    coordinates = {k: ds[k].values if k in space else None for k in ("latitude", "longitude")}
    times = ds["time"].values[ends]
    found = find_known(model, given, ds, times, steps, known)
    if found is not None:
        check_units({**found.ds.data_vars, **found.led}, model, "what is known")
    batch = Batch(model, steps, coordinates, found, drawn)
    shape = (*batch.before, steps, len(task.outputs), *inputs[0].shape[1:])
    size = 4 * math.prod(shape)
    cut = batches(len(ends), batch_size, size)
    lazy = any(v.chunks is not None for v in inputs)
    values = (forecast_later if lazy else forecast_now)(batch, inputs, times, ends, cut)
    out = restore(_labelled(values, ds, ends, steps, model, space), labels)
    clip, axis = labels.extras.get("clip"), labels.axes[TIME]
    if clip is not None and clip.dims == (axis.dim,):
        ordered = clip.values if axis.order is None else clip.values[axis.order]
        out = out.assign_coords(clip=(TIME, ordered[ends], clip.attrs))
    if count > 1:
        return lagged(out, np.searchsorted(ends, several), apart)
    return out if drawn is None else _numbered(out, len(drawn.members))


def _numbered(forecast: xr.Dataset, members: int) -> xr.Dataset:
    """Number the members, which come first."""
    about = {"standard_name": MEMBER, "long_name": "member"}
    if members == 1:  # a dimension of one has gone with the caller's labels
        forecast = forecast.map(lambda array: array.expand_dims(MEMBER), keep_attrs=True)
    return forecast.assign_coords({MEMBER: (MEMBER, np.arange(members), about)})


def _training_note(model: WindowForecaster) -> str:
    data = getattr(model, "data", "unknown")
    return "" if data == "unknown" else f" The model was trained on: {data}."


def _check_step(ds: xr.Dataset, model: WindowForecaster) -> None:
    task = model.task
    if ds.sizes["time"] < 2:
        return  # the window check says it better
    refuse_months(ds["time"].values)
    found = time_step(ds["time"].values)
    if found != task.step and abs(found - task.step) < task.step / 100:
        raise InputError(
            f"the data's times are {pd.Timedelta(found)} apart, near to the model's step of "
            f"{task.timestep} but not equal to it: where they were rounded, put them right with "
            f"ds.assign_coords(time=ds['time'].dt.round('{task.timestep}'))"
        )
    if found != task.step:
        step = found / np.timedelta64(1, "h")
        raise InputError(
            f"the data are {step:g}-hourly, the model needs a step of {task.timestep} ({task})."
            f"{_training_note(model)} Select or average the data to that step, or fit a model of "
            f"your own: stforecast.fit(ds, Task(..., timestep='{step:g}h'))"
        )


def check_units(ds: Mapping[Any, Any], model: Any, whose: str = "the data") -> None:
    """Refuse canonical data in other units than those that a model was trained on."""
    trained: Mapping[Any, Any] | None = getattr(model, "variables", None)
    if trained is None:  # a climatology
        own: Mapping[Any, Any] = getattr(getattr(model, "dataset", None), "data_vars", {})
        trained = {name: array.attrs for name, array in own.items()}
    for name, attrs in trained.items():
        ours, theirs = ds[name].attrs.get("units") if name in ds else None, attrs.get("units")
        if not same_units(ours, theirs):
            raise InputError(
                f"'{name}' is in {ours!r} in {whose}, and the model was trained on {theirs!r}: "
                f"convert {whose}, and set the attribute units"
            )


def _on_grid(ds: xr.Dataset, model: WindowForecaster, regrid: bool) -> xr.Dataset:
    """Check that the data are on the model's grid, or bring them there."""
    grid = getattr(model, "grid", None)
    if not grid or "latitude" not in grid:
        return ds
    if "latitude" not in ds.dims:
        raise InputError("the model needs a grid with latitude and longitude, found y and x")
    theirs, ours = Grid.of(ds), Grid.from_dict(grid)
    # A network takes any meridian for the first; what it knows of places lies where it lies.
    fixed = getattr(model, "reference", None) is not None or bool(getattr(model, "still", None))
    if theirs.same_cells(ours, turned=not fixed):
        return ds
    if regrid:
        return to_grid(ds, ours)
    remedy = "They do not cover it all: fit"
    if covers(theirs, ours):
        remedy = "Pass regrid=True to bring the data to the model's grid, or fit"
    raise InputError(
        f"the data are on a grid of {theirs.describe()}, the model was trained on "
        f"{ours.describe()}.{_training_note(model)} {remedy} a model of your own: "
        f"stforecast.fit(ds, task)"
    )


def _inits(ds: xr.Dataset, task: Task, init_time: Any, length: int) -> np.ndarray:
    """Positions in time of the initialisations: the last step of `length` ones without a gap."""
    time = ds.indexes["time"]
    needed = f"{length} steps of {task.timestep} in a row, up to and including it"
    complete = window_starts(time, task.step, length) + length - 1
    if len(complete) == 0:
        raise InputError(
            f"no initialisation has a complete input window ({needed}); found {len(time)} times"
            + (f" from {time[0]} to {time[-1]}" if len(time) else "")
        )
    if init_time is None:
        return complete[-1:]
    positions = xr.DataArray(np.arange(len(time)), coords={"time": ds["time"]}, dims="time")
    try:
        chosen = np.atleast_1d(positions.sel(time=as_labels(time, init_time)).values)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"init_time {init_time!r} is not among the data's times ({time[0]} to {time[-1]})"
        ) from error
    usable = np.intersect1d(chosen, complete) if isinstance(init_time, slice) else chosen
    short = np.setdiff1d(usable, complete)
    if len(short):
        raise InputError(
            f"{len(short)} of {len(chosen)} initialisations lack input: {time[short[0]]} needs "
            f"{needed}"
        )
    if len(usable) == 0:
        raise InputError(
            f"no time in init_time {init_time!r} has a complete input window ({needed})"
        )
    if len(usable) < len(chosen):
        logger.info(
            "%d times in %s have no complete input window", len(chosen) - len(usable), init_time
        )
    return usable


def _labelled(
    values: Any,
    ds: xr.Dataset,
    ends: np.ndarray,
    steps: int,
    model: WindowForecaster,
    space: tuple[Any, ...],
) -> xr.Dataset:
    """Put labels on the forecast: canonical names, `valid_time`, where it came from."""
    task = model.task
    lead = task.lead_times(steps)
    dims = (*[MEMBER] * (values.ndim - 5), TIME, LEAD, *space)
    variables = {}
    for channel, name in enumerate(task.outputs):
        attrs = ds[name].attrs if name in ds else getattr(model, "variables", {}).get(name, {})
        variables[name] = (dims, values[..., channel, :, :], dict(attrs))
    init = ds["time"].isel(time=ends)
    coords: dict[str, Any] = {
        TIME: (TIME, init.values, FORECAST_ATTRS[TIME]),
        LEAD: (LEAD, lead, FORECAST_ATTRS[LEAD]),
        VALID: ((TIME, LEAD), valid_times(init.values, lead), FORECAST_ATTRS[VALID]),
    }
    coords |= {d: ds[d] for d in space if d in ds.coords}
    attrs = {
        "Conventions": "CF-1.11",
        "title": f"Forecast of {', '.join(task.outputs)}",
        "source": f"stforecast {_name(model)}",
        "history_length": f"{task.history} steps of {task.timestep}",
    }
    attrs |= {FINGERPRINT: ds.attrs[FINGERPRINT]} if FINGERPRINT in ds.attrs else {}
    attrs |= getattr(model, "trained_on", {})
    if _training_note(model):
        attrs["training_data"] = getattr(model, "data", "")
    return xr.Dataset(variables, coords, attrs)


def _name(model: WindowForecaster) -> str:
    """Name of the network, or of the model: of the first public class it is made of."""
    kinds = type(getattr(model, "network", model)).__mro__
    return next(kind.__name__ for kind in kinds if not kind.__name__.startswith("_"))
