"""What is known for the valid times of forecasts, found in data or computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import LAT, LON, TIME
from ..conventions.forms import as_dataset
from ..conventions.gate import canonicalize
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
    """

    def __init__(
        self, ds: xr.Dataset, names: tuple[str, ...], leads: np.ndarray, *, masked: bool
    ) -> None:
        self.ds, self.names, self.leads, self.masked = ds, names, leads, masked

    def __call__(self, init_time: np.ndarray) -> np.ndarray:
        """Read what is known for forecasts from (B,) times: (B, N, K, H, W), float32."""
        valid = valid_times(init_time, self.leads)
        rows = self.ds.indexes[TIME].get_indexer(pd.Index(valid.ravel()))
        needed, where = np.unique(rows, return_inverse=True)
        out = []
        for name in self.names:
            part = self.ds.variables[name][needed].compute(scheduler="synchronous").to_numpy()
            bad = np.isinf(part) if self.masked else ~np.isfinite(part)
            if bad.any():
                when = self.ds[TIME].values[needed[int(bad.any(axis=(1, 2)).argmax())]]
                raise InputError(f"'{name}' is NaN or infinite at the valid time {when}: fill it")
            out.append(part.astype(np.float32, copy=False)[where])
        return np.stack(out, axis=1).reshape(*valid.shape, len(out), *out[0].shape[1:])


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
    parts = {}
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
        if meant(holder, task.variables[0]):  # whose grid is that of what is known
            holder, _ = add_known(holder, Task(task.variables, known=(name,)))
        found, _ = canonicalize(holder, [name], form="history")
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
    shape = own[task.variables[0]].shape[1:]
    for name, field in parts.items():
        if field.shape[1:] != shape:
            raise InputError(
                f"'{name}' has {field.shape[1:]} points, the history {shape}: give both on one grid"
            )
    return Known(ds, names, leads, masked=task.nan == "mask")
