"""A forecaster by earth2studio's protocol of prognostic models, of which nothing is imported."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..conventions.axes import LAT, LON, TIME
from ..conventions.grid import Grid
from ..conventions.levels import split_level
from ..conventions.units import same_units
from ..errors import InputError
from .batches import Batch
from .forecaster import Forecaster
from .known import find_known

Coords = OrderedDict[str, np.ndarray]

#: earth2studio's names of variables (``#``: the pressure level in hPa), by their units there.
_VOCABULARY = {
    "K": "2m_temperature=t2m 2m_dewpoint_temperature=d2m temperature=t#",
    "m s-1": "10m_u_component_of_wind=u10m 10m_v_component_of_wind=v10m u_component_of_wind=u# "
    "v_component_of_wind=v#",
    "Pa": "mean_sea_level_pressure=msl surface_pressure=sp",
    "m2 s-2": "geopotential=z#",
    "kg kg-1": "specific_humidity=q#",
    "kg m-2": "total_column_water_vapour=tcwv",
}
_LAST = ("lead_time", "variable", "lat", "lon")


class Prognostic:
    """A forecaster as earth2studio 0.19 calls it (``PrognosticModel``), step by step of its task.

    The numbers are those of :func:`stforecast.predict`: past the steps that the network gives at
    once it goes on from its own output. What is done to a step that it has given changes no other.

    Parameters
    ----------
    forecaster : Forecaster
        On a grid of latitude and longitude. What its task knows ahead must be computed (the sun,
        the calendar), never change, or be its reference.
    names : mapping of str to str, optional
        earth2studio's names, by the forecaster's, where the vocabulary here has none; their units
        are for the caller to see to.

    Raises
    ------
    InputError
        If the forecaster has no such grid, or was trained on another unit than earth2studio's.
    """

    def __init__(self, forecaster: Forecaster, names: Mapping[str, str] | None = None) -> None:
        grid, task, names = forecaster.grid or {}, forecaster.task, names or {}
        if not {LAT, LON} <= set(grid):
            raise InputError("the forecaster has no grid: give Forecaster(grid={'latitude': ...})")
        self.forecaster, self._where = forecaster, {k: np.array(grid[k]) for k in (LAT, LON)}
        self._inputs = [names.get(v) or self._name(v) for v in task.variables]
        self._outputs = [names.get(v) or self._name(v) for v in task.outputs]

    def _name(self, variable: str) -> str:
        base, level = split_level(variable) or (variable, None)
        for unit, names in _VOCABULARY.items():
            name = dict(pair.split("=") for pair in names.split()).get(base, "")
            if not name or name.endswith("#") == (level is None):
                continue
            trained = self.forecaster.variables.get(variable, {}).get("units")
            if not same_units(trained, unit):
                was = f"'{variable}' is in {trained!r} in the training data, expected {unit!r}"
                raise InputError(f"{was}, as in earth2studio: train on data in that unit")
            return name.replace("#", f"{level or 0:g}")
        return variable

    def to(self, device: Any) -> Prognostic:
        """Move the network to a device; returns itself."""
        self.forecaster.to(device)
        return self

    def _coords(self, leading: Mapping[str, Any], lead: Any, names: list[str]) -> Coords:
        last = zip(_LAST, (lead, np.array(names), *self._where.values()), strict=True)
        return OrderedDict({**leading, **dict(last)})

    def input_coords(self) -> Coords:
        """Coordinates of the input: the history up to 0, ascending; those of length 0 are free."""
        history = self.forecaster.task.step * np.arange(1 - self.forecaster.task.history, 1)
        return self._coords(dict.fromkeys(("batch", "time"), np.empty(0)), history, self._inputs)

    def output_coords(self, input_coords: Coords) -> Coords:
        """Coordinates of the next step; any dimensions may lead, with ``time`` among them.

        Raises
        ------
        InputError
            If the others are not those of :meth:`input_coords`, but for moved lead times.
        """
        wanted, found = self.input_coords(), OrderedDict(input_coords)
        if tuple(found)[-4:] != _LAST or TIME not in found:
            raise InputError(f"expected dimensions (time, ..., {_LAST}), found {tuple(found)}")
        lead = np.asarray(found["lead_time"]).astype("timedelta64[ns]")
        moved = {**found, "lead_time": lead - lead[-1:]}
        for name in _LAST[:2]:
            if not np.array_equal(moved[name], wanted[name]):
                raise InputError(f"expected {name} {wanted[name]}, found {found[name]}")
        grids = (Grid(latitude=c["lat"], longitude=c["lon"]) for c in (found, wanted))
        if difference := next(grids).difference(next(grids)):
            raise InputError(f"the fields are not on the forecaster's grid: {difference}")
        leading = dict(list(found.items())[:-4])
        return self._coords(leading, lead[-1:] + self.forecaster.task.step, self._outputs)

    def __call__(self, x: Tensor, coords: Coords) -> tuple[Tensor, Coords]:
        """Forecast one step from x (..., T, C, H, W): (..., 1, C', H, W), and its coordinates."""
        return self._forecast(x, coords, 1), self.output_coords(coords)

    def create_iterator(self, x: Tensor, coords: Coords) -> Iterator[tuple[Tensor, Coords]]:
        """Give the last input, then step after step; parameters are as of :meth:`__call__`."""
        out, task = self.output_coords(coords), self.forecaster.task
        padded = torch.cat([x[..., -1:, :, :, :], x[..., -1:, :1, :, :] * torch.nan], -3)
        places = [self._inputs.index(n) if n in self._inputs else -1 for n in self._outputs]
        done, steps, first = 0, task.target_steps, out["lead_time"] - task.step
        yield padded[..., places, :, :], OrderedDict({**out, "lead_time": first})
        while True:  # twice as far each time, from the beginning: the numbers of one forecast
            whole = self._forecast(x, coords, steps)
            for step in range(done, steps):
                lead = out["lead_time"] + task.step * step
                yield whole[..., step : step + 1, :, :, :], OrderedDict({**out, "lead_time": lead})
            done, steps = steps, 2 * steps

    def _forecast(self, x: Tensor, coords: Coords, steps: int) -> Tensor:
        """Forecast from x (..., T, C, H, W): (..., steps, C', H, W)."""
        out, task, leading = self.output_coords(coords), self.forecaster.task, x.shape[:-4]
        if tuple(x.shape) != (sizes := tuple(len(v) for v in coords.values())):
            raise InputError(f"the tensor is {tuple(x.shape)}, its coordinates are {sizes}")
        along = [-1 if name == TIME else 1 for name in tuple(out)[:-4]]
        times = out[TIME].astype("datetime64[ns]") + (out["lead_time"] - task.step)
        init_time = np.broadcast_to(times.reshape(along), leading).ravel()
        rows = x.detach().cpu().numpy().reshape(-1, *x.shape[-3:])  # (B T, C, H, W)
        fields = {v: ((TIME, LAT, LON), rows[:1, c]) for c, v in enumerate(task.variables)}
        own = xr.Dataset(fields, {TIME: init_time[:1], **self._where})
        known = find_known(self.forecaster, None, own, np.unique(init_time), steps, None)
        ends = task.history * np.arange(1, len(init_time) + 1) - 1
        run = Batch(self.forecaster, steps, dict(self._where), known)
        found = run(init_time, ends, *rows.swapaxes(0, 1))
        return torch.as_tensor(found, device=x.device).reshape(*leading, *found.shape[1:])
