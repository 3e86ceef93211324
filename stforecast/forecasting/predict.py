"""predict(): windows of labelled history, a forecaster, and labels again."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from ..errors import InputError
from ..task import WindowForecaster
from .core import forecast_with
from .draws import check_seed
from .ensemble import combine, members_of, refuse_differing, shares

if TYPE_CHECKING:
    import torch


logger = logging.getLogger(__name__)

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
    ensemble: int | str | None = None,
    seed: int = 0,
    members: int | None = None,
    lag: Any = None,
    known: xr.Dataset | None = None,
) -> xr.Dataset:
    """Forecast from labelled history.

    Parameters
    ----------
    ds : xarray.Dataset, DataArray or any object with ``to_xarray()``
        The history, such as a source of earthkit-data or climetlab, in any of the usual
        conventions: names (``t2m``, ``2m_temperature``, ...), dimension order, latitude direction,
        longitude from 0 or from -180, kelvin or Celsius.
    model : Forecaster, Persistence, Climatology, LinearRegression or path, or several, optional
        A forecaster, or the directory of a saved one. Without it, the bundle that ships with the
        package: hourly 2 m temperature on a global 5.625 degree grid, 12 hours in, 12 hours out.
        Several of one task, or a directory of bundles ``member-0``, ``member-1``, ... (see
        :func:`stforecast.forecasting.ensemble.save`), are an ensemble.
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
    ensemble : int or "lagged", optional
        Number of members. A forecaster of ``fit(ensemble=)`` draws as many as are asked for;
        several such share them evenly. Of other models each is one member, and the first so many
        are used. Without it several models give one forecast each, and a forecaster that draws
        its forecast without random numbers. "lagged":
        each forecast beside those from before it, at the valid times that all of them reach; of
        any one model, a baseline too (Hoffman and Kalnay, 1983, "Lagged average forecasting").
    seed : int
        Of the members that are drawn. A member follows from the seed, its number and the
        initialisation time alone, and goes on from its own forecast: it is one trajectory.
    members : int, optional
        Of a lagged ensemble: how many initialisations, the own one among them; 4 unless given.
    lag : time difference, optional
        Of a lagged ensemble: by how much each is before the other; one step unless given. Of
        `steps` target steps, ``steps - (members - 1) * lag / timestep`` remain.
    known : xarray.Dataset, optional
        What the task's ``known`` names, at the valid times of the forecasts, on the grid of `ds`:
        what cannot be computed and does not stand in `ds` itself for these times.

    Returns
    -------
    xarray.Dataset
        Dimensions ``time`` (initialisation), ``prediction_timedelta`` and the two of space, with
        the coordinate ``valid_time``; variable names, units, latitude order and longitude
        convention are those of `ds`. With dask inside if there was dask in `ds`: nothing is
        computed yet, and :func:`stforecast.forecasting.writing.write_forecast` (or ``to_zarr``)
        does so in bounded memory, on a ``dask.distributed`` cluster as well. The forecast of an
        ensemble has ``realization`` as its first dimension; mean and spread are in
        :mod:`stforecast.forecasting.ensemble`.

    Raises
    ------
    InputError
        If members are asked for, and the model draws none; or
        if `ds` lacks a variable, has another time step or grid, too short a history, or NaN in
        the input of a forecast (unless the model's task masks them: then the forecast is NaN
        where the last input step is), or this machine has no such `device`; the message says what
        was found and what to do.

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
    options: dict[str, Any] = {"init_time": init_time, "steps": steps, "regrid": regrid}
    options |= {"batch_size": batch_size, "device": device, "known": known}
    several = members_of(model)
    if isinstance(ensemble, str) or members is not None or lag is not None:
        if several is not None:
            raise InputError(
                "a lagged ensemble is of one model, found several: predict with each, and put the "
                "results side by side"
            )
        options |= {"members": members, "lag": lag}
    if several is None:
        only: Any = _resolve(model, device)  # type: ignore[arg-type]
        return forecast_with(only, ds, ensemble=ensemble, seed=seed, **options)
    check_seed(seed)
    several = [_resolve(member, device) for member in several]
    refuse_differing(several)
    parts: list[xr.Dataset] = []
    labels: list[int] = []
    for one, share in zip(several, shares(several, ensemble), strict=True):
        number = len(labels)
        if share is None:
            parts.append(forecast_with(one, ds, **options))
            labels.append(getattr(one, "realization", number))
        elif share:
            own: dict[str, Any] = {"ensemble": share, "seed": seed, "first_member": number}
            parts.append(forecast_with(one, ds, **own, **options))
            labels += range(number, number + share)
    return combine(parts, labels)


def _resolve(model: Model | None, device: Any) -> WindowForecaster:
    """Turn a path or nothing into a forecaster, on the device asked for."""
    if model is None or isinstance(model, (str, os.PathLike)):
        from ..models.surroundings import find_device
        from .bundle import default_bundle
        from .forecaster import load

        place = find_device(device)
        path = default_bundle() if model is None else Path(model)
        forecaster = load(path)
        if model is None:
            logger.info(
                "using the bundle that ships with the package, trained on: %s", forecaster.data
            )
        return forecaster.to(place)
    if not isinstance(model, WindowForecaster):
        raise InputError(
            f"model must be a Forecaster, a baseline or the path of a bundle, found "
            f"{type(model).__name__}; wrap a torch module: Forecaster(module, task)"
        )
    return model
