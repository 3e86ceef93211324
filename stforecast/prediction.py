"""predict(): windows of labelled history, a forecaster, and labels again."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from . import conventions, regridding
from ._blocks import Batch, batches, forecast_later, forecast_now
from .conventions import InputError
from .ensemble import combine, members_of, refuse_differing
from .windows import Task, refuse_months, window_starts

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@runtime_checkable
class WindowForecaster(Protocol):
    """What :func:`predict` needs of a model: a task, and arrays in, arrays out."""

    task: Task

    def forecast(
        self,
        inputs: np.ndarray,
        init_time: np.ndarray,
        steps: int,
        *,
        latitude: Any,
        longitude: Any,
    ) -> np.ndarray:
        """(B, T, C, H, W) and initialisation times (B,) to (B, steps, C', H, W)."""
        ...


Model = WindowForecaster | str | os.PathLike[str]


def predict(
    ds: xr.Dataset | xr.DataArray | Any,
    model: Model | Sequence[Model] | None = None,
    *,
    init_time: Any = None,
    steps: int | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    regrid: bool = False,
    ensemble: int | None = None,
) -> xr.Dataset:
    """Forecast from labelled history.

    Parameters
    ----------
    ds : xarray.Dataset, DataArray or any object with ``to_xarray()``, such as climetlab's
        The history, in any of the usual conventions: names (``t2m``, ``2m_temperature``, ...),
        dimension order, latitude direction, longitude from 0 or from -180, kelvin or Celsius.
    model : Forecaster, Persistence, Climatology, LinearRegression or path, or several, optional
        A forecaster, or the directory of a saved one. Without it, the bundle that ships with the
        package: hourly 2 m temperature on a global 5.625 degree grid, 12 hours in, 12 hours out.
        Several of one task, or a directory of bundles ``member-0``, ``member-1``, ... (see
        :func:`stforecast.ensemble.save`), are an ensemble.
    init_time : label, sequence of labels or slice, optional
        Initialisation times, the last input step of each forecast. The last time with a complete
        window of input before it unless given. A slice takes all times in it that have one.
    steps : int, optional
        Target steps; as many as the model was trained for unless given. Past these the forecast
        goes on from its own output.
    batch_size : int, optional
        Forecasts computed at a time, at most; 32 unless given, or less on large grids. Where there
        is dask in `ds`, these are the chunks of the result.
    device : str, optional
        Where to compute: ``"cpu"``, ``"cuda"``. A model given as an object stays where it is; one
        loaded here goes to a GPU if there is one.
    regrid : bool
        Bring `ds` to the model's grid where it is on another: cell averages from a finer grid,
        linear interpolation from a coarser one. The forecast is on the model's grid.
    ensemble : int, optional
        Take the first so many members of an ensemble; all unless given.

    Returns
    -------
    xarray.Dataset
        Dimensions ``time`` (initialisation), ``prediction_timedelta`` and the two of space, with
        the coordinate ``valid_time``; variable names, units, latitude order and longitude
        convention are those of `ds`. With dask inside if there was dask in `ds`: nothing is
        computed yet, and :func:`stforecast.writing.write_forecast` (or ``to_zarr``) does so in
        bounded memory, on a ``dask.distributed`` cluster as well. The forecast of an ensemble has
        ``realization`` as its first dimension; :mod:`stforecast.ensemble` has mean and spread.

    Raises
    ------
    InputError
        If `ds` lacks a variable, has another time step or grid, too short a history, or NaN in
        the input of a forecast (unless the model's task masks them: then the forecast is NaN
        where the last input step is); the message says what was found and what to do.

    Notes
    -----
    One by one or in batches, eager or lazy, on threads or on a cluster, forecasts are the same but
    for the last bit of float32 here and there, which is worth 3e-5 K at 288 K.

    Examples
    --------
    >>> import stforecast
    >>> forecast = stforecast.predict(stforecast.open_sample())
    >>> dict(forecast.sizes)
    {'time': 1, 'prediction_timedelta': 12, 'latitude': 32, 'longitude': 64}
    """
    if not isinstance(ds, (xr.Dataset, xr.DataArray)) and hasattr(ds, "to_xarray"):
        ds = ds.to_xarray()
    members = members_of(model, ensemble)
    if members is not None:
        members = [_resolve(member, device) for member in members]
        refuse_differing(members)
        options: dict[str, Any] = {"init_time": init_time, "steps": steps, "regrid": regrid}
        return combine([predict(ds, m, batch_size=batch_size, **options) for m in members])
    model = _resolve(model, device)  # type: ignore[arg-type]
    task = model.task
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
            raise InputError(f"{name} must be a whole number of at least 1, found {value!r}")
    steps = task.target_steps if steps is None else int(steps)
    batch_size = None if batch_size is None else int(batch_size)

    ds, labels = conventions.canonicalize(ds, task.variables)
    if "prediction_timedelta" in ds.dims:
        raise InputError("predict needs a history (time, latitude, longitude), found a forecast")
    _check_step(ds, model)
    ds = _on_grid(ds, model, regrid)
    ends = _inits(ds, task, init_time)

    space = ds[task.variables[0]].dims[1:]
    inputs = [ds[v].variable for v in task.variables]
    coordinates = {k: ds[k].values if k in space else None for k in ("latitude", "longitude")}
    batch = Batch(model, steps, coordinates)
    size = 4 * steps * len(task.outputs) * int(np.prod(inputs[0].shape[1:]))
    cut = batches(len(ends), batch_size, size)
    lazy = any(v.chunks is not None for v in inputs)
    values = (forecast_later if lazy else forecast_now)(
        batch, inputs, ds["time"].values[ends], ends, cut
    )
    return conventions.restore(_labelled(values, ds, ends, steps, model, space), labels)


def _resolve(model: Model | None, device: Any) -> WindowForecaster:
    """Turn a path or nothing into a forecaster, on the device asked for."""
    if model is None or isinstance(model, (str, os.PathLike)):
        import torch

        from .forecaster import default_bundle, load

        path = default_bundle() if model is None else Path(model)
        forecaster = load(path)
        if model is None:
            logger.info(
                "using the bundle that ships with the package, trained on: %s", forecaster.data
            )
        return forecaster.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if not isinstance(model, WindowForecaster):
        raise InputError(
            f"model must be a Forecaster, a baseline or the path of a bundle, found "
            f"{type(model).__name__}; wrap a torch module: Forecaster(module, task)"
        )
    if device is not None and hasattr(model, "to"):
        model.to(device)
    return model


def _training_note(model: WindowForecaster) -> str:
    data = getattr(model, "data", "unknown")
    return "" if data == "unknown" else f" The model was trained on: {data}."


def _check_step(ds: xr.Dataset, model: WindowForecaster) -> None:
    task = model.task
    if ds.sizes["time"] < 2:
        return  # the window check says it better
    refuse_months(ds["time"].values)
    found = conventions.time_step(ds["time"].values)
    if found != task.step:
        step = found / np.timedelta64(1, "h")
        raise InputError(
            f"the data are {step:g}-hourly, the model needs a step of {task.timestep} ({task})."
            f"{_training_note(model)} Select or average the data to that step, or fit a model of "
            f"your own: stforecast.fit(ds, Task(..., timestep='{step:g}h'))"
        )


def _on_grid(ds: xr.Dataset, model: WindowForecaster, regrid: bool) -> xr.Dataset:
    """Check that the data are on the model's grid, or bring them there."""
    grid = getattr(model, "grid", None)
    if not grid or "latitude" not in grid:
        return ds
    if "latitude" not in ds.dims:
        raise InputError("the model needs a grid with latitude and longitude, found y and x")
    theirs = {k: ds[k].values.astype(float) for k in ("latitude", "longitude")}
    ours = {k: np.asarray(v) for k, v in grid.items()}
    if regridding.same_grid(theirs, ours):
        return ds
    if regrid:
        return regridding.to_grid(ds, ours)
    raise InputError(
        f"the data are on a grid of {regridding.describe(theirs)}, the model was trained on "
        f"{regridding.describe(ours)}.{_training_note(model)} Pass regrid=True to bring the data "
        f"to the model's grid, or fit a model of your own: stforecast.fit(ds, task)"
    )


def _inits(ds: xr.Dataset, task: Task, init_time: Any) -> np.ndarray:
    """Positions in time of the initialisations: the last step of each input window."""
    time = ds.indexes["time"]
    needed = f"{task.input_steps} steps of {task.timestep} in a row, up to and including it"
    complete = window_starts(time, task.step, task.input_steps) + task.input_steps - 1
    if len(complete) == 0:
        raise InputError(
            f"no initialisation has a complete input window ({needed}); found {len(time)} times"
            + (f" from {time[0]} to {time[-1]}" if len(time) else "")
        )
    if init_time is None:
        return complete[-1:]
    positions = xr.DataArray(np.arange(len(time)), coords={"time": ds["time"]}, dims="time")
    try:
        chosen = np.atleast_1d(positions.sel(time=init_time).values)
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
    dims = ("time", "prediction_timedelta", *space)
    variables = {}
    for channel, name in enumerate(task.outputs):
        attrs = ds[name].attrs if name in ds else getattr(model, "variables", {}).get(name, {})
        variables[name] = (dims, values[:, :, channel], dict(attrs))
    init = ds["time"].isel(time=ends)
    coords: dict[str, Any] = {
        "time": (
            "time",
            init.values,
            {"long_name": "initialisation time", "standard_name": "forecast_reference_time"},
        ),
        "prediction_timedelta": (
            "prediction_timedelta",
            lead,
            {"long_name": "lead time", "standard_name": "forecast_period"},
        ),
        "valid_time": (
            ("time", "prediction_timedelta"),
            conventions.valid_times(init.values, lead),
            {"long_name": "valid time", "standard_name": "time"},
        ),
    }
    coords |= {d: ds[d] for d in space if d in ds.coords}
    attrs = {
        "Conventions": "CF-1.11",
        "title": f"Forecast of {', '.join(task.outputs)}",
        "source": f"stforecast {_name(model)}",
        "history_length": f"{task.input_steps} steps of {task.timestep}",
    }
    if _training_note(model):
        attrs["training_data"] = getattr(model, "data", "")
    return xr.Dataset(variables, coords, attrs)


def _name(model: WindowForecaster) -> str:
    return type(getattr(model, "network", model)).__name__
