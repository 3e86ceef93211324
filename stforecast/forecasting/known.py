"""What is known for the valid times of forecasts, found in data or computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LAT, LEAD, LON, TIME, X, Y, find_axes
from ..conventions.forms import as_dataset
from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..conventions.times import valid_times
from ..conventions.variables import meant
from ..datasets.forcings import COMPUTED, add_inputs
from ..datasets.known import add_known
from ..errors import InputError
from ..task import Task


class Known:
    """Fields of some variables at the valid times of forecasts.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical, lazy: the variables at all valid times that will be asked for.
    names : tuple of str
        Its variables, in their order.
    leads : array of timedelta64, shape (N,)
    masked : bool
        Whether NaN are missing values; else they are refused.
    led : mapping of str to Variable, optional
        Those that are forecasts, (initialisation, lead time, H, W), of which the first has a
        coordinate ``initialisation`` in `ds`.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        names: tuple[str, ...],
        leads: np.ndarray,
        *,
        masked: bool,
        led: Mapping[str, xr.Variable] | None = None,
    ) -> None:
        self.ds, self.names, self.leads, self.masked = ds, names, leads, masked
        self.led = dict(led or {})

    def __call__(self, init_time: np.ndarray) -> np.ndarray:
        """Read what is known for forecasts from (B,) times: (B, N, K, H, W), float32."""
        valid = valid_times(init_time, self.leads)
        rows = self.ds.indexes[TIME].get_indexer(pd.Index(valid.ravel()))
        needed, where = np.unique(rows, return_inverse=True)
        out = []
        for name in self.names:
            if name in self.led:
                out.append(self._forecast(name, init_time))
                continue
            part = self.ds.variables[name][needed].compute(scheduler="synchronous").to_numpy()
            bad = np.isinf(part) if self.masked else ~np.isfinite(part)
            if bad.any():
                when = self.ds[TIME].values[needed[int(bad.any(axis=(1, 2)).argmax())]]
                raise InputError(f"'{name}' is NaN or infinite at the valid time {when}: fill it")
            part = part.astype(np.float32, copy=False)[where]
            out.append(part.reshape(*valid.shape, *part.shape[1:]))
        return np.stack(out, axis=2)

    def _forecast(self, name: str, init_time: np.ndarray) -> np.ndarray:
        """What another model has forecast from (B,) times: (B, N, H, W)."""
        rows = self.ds.indexes["initialisation"].get_indexer(pd.Index(init_time))
        part = self.led[name][rows].compute(scheduler="synchronous").to_numpy()
        bad = np.isinf(part) if self.masked else ~np.isfinite(part)
        if bad.any():
            when = init_time[int(bad.any(axis=(1, 2, 3)).argmax())]
            raise InputError(f"'{name}' holds NaN or infinite values from {when} on: fill it")
        return part.astype(np.float32, copy=False)


def find_known(
    model: Any, given: Any, own: xr.Dataset, init_time: np.ndarray, steps: int, known: Any
) -> Known | None:
    """Find what a model needs to know for the valid times of its forecasts.

    Parameters
    ----------
    model : WindowForecaster
    given : xarray.Dataset
        The caller's history, where variables may go on past the initialisations.
    own : xarray.Dataset
        The canonical history, on the model's grid.
    init_time : array of shape (B,)
    steps : int
    known : xarray.Dataset or None
        The caller's further Dataset, which comes first.

    Returns
    -------
    Known or None
        None where the model needs nothing.

    Raises
    ------
    InputError
        If something is not there for a valid time.
    """
    task: Task = model.task
    still = getattr(model, "still", {})
    names = tuple(v for v in task.known if v != "reference" and v not in still)
    if not names or not getattr(model, "takes_known", False):
        return None
    reach = -(-steps // task.target_steps) * task.target_steps
    leads = task.lead_times(reach)
    valid = np.unique(valid_times(init_time, leads))
    sources = [as_dataset(ds) for ds in (known, given) if ds is not None]
    space = [d for d in own[task.variables[0]].dims if d != TIME]
    coords = {d: own[d] for d in space if d in own.coords}
    parts, led = {}, {}
    for name in names:
        holder = next((ds for ds in sources if meant(ds, name)), None)
        if holder is None:
            if name not in COMPUTED or not {LAT, LON} <= set(coords):
                raise InputError(
                    f"the forecast needs '{name}' at its valid times, from {valid[0]} to "
                    f"{valid[-1]}: give predict(known=), a Dataset that holds it"
                )
            template = xr.Dataset(coords={TIME: (TIME, valid), **coords})
            parts[name] = add_inputs(template, name)[name]
            continue
        only = holder[[meant(holder, name)[0].name]]
        roles = {role for role, _ in find_axes(only).values()}
        if LEAD in roles:
            led[name] = _led(only, name, own, init_time, leads)
            continue
        if meant(holder, task.variables[0]):  # whose grid is that of what is known
            holder, _, _ = add_known(holder, Task(task.variables, known=(name,)))
        elif not roles & {LAT, LON, Y, X}:  # the same everywhere
            holder = only.expand_dims({d: coords.get(d, own.sizes[d]) for d in space})
        found, _ = canonicalize(holder, [name], form="history")
        if difference := Grid.of(found).difference(Grid.of(own)):
            raise InputError(
                f"'{name}' lies on another grid than the history: {difference}; give both on one"
            )
        at = found.indexes[TIME].get_indexer(pd.Index(valid))
        if np.any(at < 0):
            where = "known" if holder is not given else "the data"
            raise InputError(
                f"'{name}' is not in {where} for {np.count_nonzero(at < 0)} of the {len(valid)} "
                f"valid times, first {valid[at < 0][0]}: give predict(known=), a Dataset that "
                f"holds it up to {valid[-1]}"
            )
        parts[name] = found[name].isel({TIME: at})
    ds = xr.Dataset({k: v.variable for k, v in parts.items()}, {TIME: (TIME, valid), **coords})
    ds = ds.assign_coords(initialisation=("initialisation", np.unique(init_time)))
    return Known(ds, names, leads, masked=task.nan == "mask", led=led)


def _led(
    forecast: xr.Dataset, name: str, own: xr.Dataset, init_time: np.ndarray, leads: np.ndarray
) -> xr.Variable:
    """Another model's forecast from each initialisation (M, N, H, W), in their order."""
    found, _ = canonicalize(forecast, [name], form="forecast")
    if difference := Grid.of(found).difference(Grid.of(own)):
        raise InputError(f"the forecast '{name}' lies on another grid than the data: {difference}")
    inits = np.unique(init_time)
    rows = found.indexes[TIME].get_indexer(pd.Index(inits))
    columns = found.indexes[LEAD].get_indexer(pd.Index(leads))
    if np.any(rows < 0) or np.any(columns < 0):
        first = inits[rows < 0][0] if np.any(rows < 0) else pd.Timedelta(leads[columns < 0][0])
        what = "initialisation" if np.any(rows < 0) else "lead time"
        raise InputError(f"the forecast '{name}' lacks the {what} {first}, which is needed")
    (label,) = found.data_vars
    return found[label].isel({TIME: rows, LEAD: columns}).variable
