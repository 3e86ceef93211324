"""predict(): windows of labelled history, a forecaster, and labels again."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from . import conventions, regridding
from .conventions import InputError
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


def predict(
    ds: xr.Dataset | xr.DataArray,
    model: WindowForecaster | str | os.PathLike[str] | None = None,
    *,
    init_time: Any = None,
    steps: int | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    regrid: bool = False,
) -> xr.Dataset:
    """Forecast from labelled history.

    Parameters
    ----------
    ds : xarray.Dataset or DataArray
        The history, in any of the usual conventions: names (``t2m``, ``2m_temperature``, ...),
        dimension order, latitude direction, longitude from 0 or from -180, kelvin or Celsius.
    model : Forecaster, Persistence, Climatology or path, optional
        A forecaster, or the directory of a saved one. Without it, the bundle that ships with the
        package: hourly 2 m temperature on a global 5.625 degree grid, 12 hours in, 12 hours out.
    init_time : label, sequence of labels or slice, optional
        Initialisation times, the last input step of each forecast. The last time with a complete
        window of input before it unless given. A slice takes all times in it that have one.
    steps : int, optional
        Target steps; as many as the model was trained for unless given. Past these the forecast
        goes on from its own output.
    batch_size : int, optional
        Forecasts computed at a time; 32 unless given.
    device : str, optional
        Where to compute: ``"cpu"``, ``"cuda"``. A model given as an object stays where it is; one
        loaded here goes to a GPU if there is one.
    regrid : bool
        Bring `ds` to the model's grid where it is on another: cell averages from a finer grid,
        linear interpolation from a coarser one. The forecast is on the model's grid.

    Returns
    -------
    xarray.Dataset
        Dimensions ``time`` (initialisation), ``prediction_timedelta`` and the two of space, with
        the coordinate ``valid_time``; variable names, units, latitude order and longitude
        convention are those of `ds`. With dask inside if there was dask in `ds`.

    Raises
    ------
    InputError
        If `ds` lacks a variable, has another time step or grid, too short a history, or NaN in
        the input of a forecast (unless the model's task masks them: then the forecast is NaN
        where the last input step is); the message says what was found and what to do.

    Examples
    --------
    >>> import stforecast
    >>> forecast = stforecast.predict(stforecast.open_sample())
    >>> dict(forecast.sizes)
    {'time': 1, 'prediction_timedelta': 12, 'latitude': 32, 'longitude': 64}
    """
    model = _resolve(model, device)
    task = model.task
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
            raise InputError(f"{name} must be a whole number of at least 1, found {value!r}")
    steps = task.target_steps if steps is None else int(steps)
    batch_size = 32 if batch_size is None else int(batch_size)

    ds, labels = conventions.canonicalize(ds, task.variables)
    if "prediction_timedelta" in ds.dims:
        raise InputError("predict needs a history (time, latitude, longitude), found a forecast")
    _check_step(ds, model)
    ds = _on_grid(ds, model, regrid)
    ends = _inits(ds, task, init_time)

    space = ds[task.variables[0]].dims[1:]
    times = ds["time"].values
    compute = partial(_forecast_block, model, times, steps, _coordinates(ds, space), task)
    arrays = [ds[v].data for v in task.variables]
    blocks = []
    for first in range(0, len(ends), batch_size):
        block = ends[first : first + batch_size]
        rows, local = _rows(block, task.input_steps)
        if any(ds[v].chunks for v in task.variables):
            blocks.append(_delayed_block(compute, arrays, rows, local, block, steps, task))
        else:
            blocks.append(
                compute(local, block, *(ds[v].isel(time=rows).values for v in task.variables))
            )
    return conventions.restore(_labelled(blocks, ds, ends, steps, model, space), labels)


def _resolve(
    model: WindowForecaster | str | os.PathLike[str] | None, device: Any
) -> WindowForecaster:
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


def _rows(ends: np.ndarray, length: int) -> tuple[slice | np.ndarray, np.ndarray]:
    """Time steps that the windows ending at `ends` need, and where each window ends in them."""
    windows = ends[:, None] + np.arange(1 - length, 1)
    rows, inverse = np.unique(windows, return_inverse=True)
    local = inverse.reshape(windows.shape)[:, -1]
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1), local
    return rows, local


def _forecast_block(
    model: WindowForecaster,
    times: np.ndarray,
    steps: int,
    coordinates: dict[str, np.ndarray | None],
    task: Task,
    local: np.ndarray,
    ends: np.ndarray,
    *arrays: np.ndarray,
) -> np.ndarray:
    """Forecast from the rows of one block: (B, steps, C', H, W)."""
    stacked = np.stack([np.asarray(a, dtype=np.float32) for a in arrays], axis=1)  # (rows, C, H, W)
    windows = stacked[local[:, None] + np.arange(1 - task.input_steps, 1)]  # (B, T, C, H, W)
    masked = task.nan == "mask"
    if np.isinf(stacked).any() if masked else not np.isfinite(stacked).all():
        bad = np.isinf(windows) if masked else ~np.isfinite(windows)
        b, _, c = np.argwhere(bad.any(axis=(3, 4)))[0]
        raise InputError(
            f"the input of the forecast from {times[ends[b]]} holds NaN or infinite values in "
            f"{task.variables[c]}; fill them, or choose other initialisations"
        )
    result = np.asarray(model.forecast(windows, times[ends], steps, **coordinates), np.float32)
    if masked:  # nothing is known of these points: not a forecast, whatever the model
        gone = np.zeros((len(windows), 1, *result.shape[2:]), dtype=bool)
        for channel, name in enumerate(task.outputs):
            if name in task.variables:
                gone[:, 0, channel] = np.isnan(windows[:, -1, task.variables.index(name)])
        result = np.where(gone, np.float32(np.nan), result)
    return result


def _delayed_block(
    compute: Any,
    arrays: list[Any],
    rows: slice | np.ndarray,
    local: np.ndarray,
    ends: np.ndarray,
    steps: int,
    task: Task,
) -> Any:
    """Return the same block as a dask array, computed when it is asked for."""
    import dask
    import dask.array as da

    inputs = [a[rows] for a in arrays]
    shape = (len(ends), steps, len(task.outputs), *inputs[0].shape[1:])
    result = dask.delayed(compute, pure=False)(local, ends, *inputs)
    return da.from_delayed(result, shape, dtype=np.float32)


def _coordinates(ds: xr.Dataset, space: tuple[Any, ...]) -> dict[str, np.ndarray | None]:
    geographic = "latitude" in space
    return {k: ds[k].values if geographic else None for k in ("latitude", "longitude")}


def _labelled(
    blocks: list[Any],
    ds: xr.Dataset,
    ends: np.ndarray,
    steps: int,
    model: WindowForecaster,
    space: tuple[Any, ...],
) -> xr.Dataset:
    """Put labels on the forecast: canonical names, `valid_time`, where it came from."""
    task = model.task
    if isinstance(blocks[0], np.ndarray):
        values = np.concatenate(blocks)
    else:
        import dask.array as da

        values = da.concatenate(blocks)
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
