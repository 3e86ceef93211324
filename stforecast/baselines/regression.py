"""Linear regression at every grid point: a baseline that is cheap, and hard to beat."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..conventions.cycles import terms
from ..conventions.gate import canonicalize
from ..conventions.grid import Grid
from ..conventions.overlap import TRAINED_WHERE, period_of, told_of
from ..conventions.times import valid_times
from ..datasets.forcings import sun_at
from ..datasets.known import add_known
from ..errors import InputError
from ..files import replacing
from ..forecasting.core import ForecastModel
from ..parallel import Graph
from ..task import Task, require_task, window_starts
from .reference import ReferenceFit, fit_reference, never
from .ridge import Layout, anomalies_of, layout_of, padded_by, part_of, solve

__all__ = ["LinearRegression"]

_READ = 2**25  # bytes of a block of history
_WORK = 2**22  # numbers of one row's samples in memory at once
_FORMATS = (1, 2)  # of the files that `save` writes; the first knows no climatology
log = logging.getLogger(__name__)

_SUN = "toa_incident_solar_radiation"


class LinearRegression(ForecastModel):
    """Forecast each grid point and lead time by a ridge regression of its own.

    The predictors of a point are its own values at all input steps, those of its neighbours at the
    last steps, and a constant, for every input variable; and for each target step the sun at its
    time, what the task knows of it, and the task's lags. Values are differences from the
    climatology, where the training period is long enough for one.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :meth:`fit` makes it: ``coefficients`` with dims (target, predictor, latitude,
        longitude), or (…, y, x), and ``mean`` (variable, latitude, longitude), which the
        predictors and targets are differences from; or, for the outputs, ``usual`` (term, output,
        latitude, longitude).
    task : Task
        What is forecast.
    """

    takes_known = True

    def __init__(self, dataset: xr.Dataset, task: Task) -> None:
        wanted = {"coefficients": ("target", "predictor"), "mean": ("variable",)}
        for name, dims in wanted.items():
            if name not in dataset or dataset[name].dims[: len(dims)] != dims:
                raise InputError(
                    f"a linear regression has the variable {name!r} with dims {(*dims, '...')}: "
                    "make it with LinearRegression.fit"
                )
        self.dataset = dataset
        self.task = task
        self.fitted_on = Grid.of(dataset)
        self._channels = tuple(dataset["variable"].values.tolist())
        #: Units of what it was fitted to; none in files that older versions wrote.
        units = dataset["units"].values.tolist() if "units" in dataset.coords else []
        self.variables = {v: {"units": u} for v, u in zip(self._channels, units, strict=False) if u}
        #: What never changes, and so tells a point's regression nothing.
        self.still = tuple(v for v in task.known if v not in (*self._channels, "reference"))
        attrs = dataset.attrs
        self._layout = layout_of(
            task,
            self._channels,
            attrs["neighbours"],
            attrs["neighbour_steps"],
            bool(attrs.get("sun", 0)),
        )
        self._targets = [self._channels.index(name) for name in task.outputs]

    @property
    def trained_on(self) -> dict[str, str]:
        """Attributes of its forecasts that say which period it was fitted to, and of what data."""
        return told_of(self.dataset.attrs)

    @classmethod
    def fit(
        cls,
        ds: Any,
        task: Task,
        *,
        form: Literal["strong", "plain"] = "strong",
        neighbours: int = 1,
        neighbour_steps: int = 2,
        ridge: float = 1e-5,
        windows: int | None = 10_000,
        where: Callable[[np.ndarray], Any] | None = None,
        max_bytes: int = 2**29,
    ) -> LinearRegression:
        """Fit all points in closed form, from sums over the history, taken in one pass.

        The history is read block by block, and each block summed where it is read: by threads, or,
        for data of dask, by the scheduler that is active (a ``distributed.Client``, say). A
        climatology takes one more pass before.

        For standardised predictors Z and targets y of N windows the coefficients minimise
        ``|y - Z b|^2 / N + ridge |b|^2``; the constant is not shrunk.

        Parameters
        ----------
        ds : xarray.Dataset
            History, of the training period only: no period is selected here. Gaps are allowed.
        task : Task
            What is forecast. With ``nan="mask"`` a NaN counts as the point's mean.
        form : {"strong", "plain"}
            ``"strong"``: on anomalies from the task's ``reference``, or, where it has none, from
            harmonics of the year and the day (dates, latitude and longitude, and a period through
            the whole year) or from the usual week (flows on y and x, of three weeks at least);
            with the sun, where there are latitudes. ``"plain"``: none of these, as the linear
            regression of most tables, which has to learn the calendar; the strong form is that,
            too, where the period is too short for a climatology.
        neighbours : int
            How many cells away neighbours are taken, in every direction; 0 takes none. Neighbours
            go round the globe; beyond other edges the outermost cell stands in.
        neighbour_steps : int
            Last input steps at which neighbours are taken.
        ridge : float
            Above 0.
        windows : int or None
            Use no more windows than this, spread evenly and over all times of day; None takes all.
            The fit costs time in proportion.
        where : callable, optional
            Takes truth, in the data's units, and tells where it counts, as of
            :func:`stforecast.evaluate`: each target is fitted on the windows in which it does. A
            point of which none counts is forecast as usual.
        max_bytes : int
            Limit of the sums, 8 x (predictors) x (predictors + targets) bytes a point, of which
            there are four at once. A grid that needs more is taken in bands of rows, with one pass
            for each: a global one of 1.5 degrees in three.

        Returns
        -------
        LinearRegression
            Its ``dataset`` is float32; attributes record period and settings.

        Raises
        ------
        InputError
            If there are fewer windows than predictors, or data are not finite; or `where` is no
            such function, or nothing counts.
        """
        require_task(task)
        if form not in ("strong", "plain"):
            raise InputError(f"form must be 'strong' or 'plain', found {form!r:.60}")
        for name, value, least in (
            ("neighbours", neighbours, 0),
            ("neighbour_steps", neighbour_steps, 1),
            ("windows", 1 if windows is None else windows, 1),
        ):
            if isinstance(value, bool) or int(value) != value or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}: {value!r}")
        if where is not None and not callable(where):
            raise InputError(f"where must be a function of truth, found {where!r:.60}")
        if not ridge > 0:
            raise InputError(f"ridge must be above 0, found {ridge!r}")
        near_steps = min(neighbour_steps, task.input_steps)
        ds, still, led = add_known(ds, task)
        if led:
            raise InputError(
                f"a linear regression takes what is known for each time, and {', '.join(led)} has "
                "lead times: leave it out of the task"
            )
        channels = tuple(v for v in task.channels if v not in still)
        canonical, _ = canonicalize(ds, channels, form="history")
        usual = _usual(canonical, task) if form == "strong" else None
        sun = usual is not None and {"latitude", "longitude"} <= set(canonical.coords)
        sun = sun and _SUN not in channels
        layout = layout_of(task, channels, neighbours, near_steps, sun)
        time = canonical["time"].values
        starts = window_starts(time, task.step, task.window)
        if windows is not None and len(starts) > windows:
            # Not every nth: that would see some hours of the day only.
            starts = starts[np.linspace(0, len(starts) - 1, windows).round().astype(int)]
        least = 2 * (layout.shared + layout.own + 1)
        if len(starts) < least:
            raise InputError(
                f"{len(starts)} windows are too few for {least // 2} predictors a point ({task}); "
                "give a longer period, or fewer neighbours"
            )
        space = canonical[task.channels[0]].dims[1:]
        height, width = (canonical.sizes[d] for d in space)
        targets = [channels.index(name) for name in task.outputs]
        outputs = len(targets) * task.target_steps
        size = layout.size * (layout.size + outputs)
        if where is not None:
            size = outputs * (layout.shared + layout.own + 2) ** 2
        rows = max(1, max_bytes // (4 * 8 * width * size))

        coefficients = np.empty((outputs, layout.size, height, width), dtype=np.float32)
        job = _Job(canonical, task, channels, layout, starts, targets, usual, where)
        some = False
        for first in range(0, height, rows):
            band = slice(first, min(first + rows, height))
            sums = job.sums(band)
            some = some or where is None or bool(sums.any())
            for step in range(task.target_steps):
                mine = slice(step * len(targets), (step + 1) * len(targets))
                coefficients[mine, :, band] = solve(sums, layout, step, mine, float(ridge))
        if not some:
            raise InputError(f"no target counts ({where}): the limit may be in another unit")
        coords = {d: canonical[d] for d in map(str, space) if d in canonical.coords}
        attrs = {
            "title": "ridge regression of each grid point on its history and its neighbours'",
            **period_of(canonical),
            "form": form,
            "windows": len(starts),
            "neighbours": neighbours,
            "neighbour_steps": near_steps,
            "ridge": float(ridge),
            "periodic": int(job.periodic),
            "sun": int(sun),
            "timestep": task.timestep,
        }
        if where is not None:
            attrs[TRAINED_WHERE] = str(where)
        variables: dict[str, Any] = {
            "coefficients": (("target", "predictor", *space), coefficients),
            "mean": (("variable", *space), job.mean),
        }
        if usual is not None:
            variables["usual"] = (("term", "output", *space), usual.fields)
            variables["slot"] = ("slots", usual.slots)
            attrs["reference"] = usual.cycle
        units = [str(canonical[v].attrs.get("units", "")) for v in channels]
        named = {"variable": list(channels), "units": ("variable", units)}
        dataset = xr.Dataset(variables, {**coords, **named}, attrs)
        return cls(dataset, task)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a netCDF file, for :meth:`load`: coefficients, grid, settings and task.

        Parameters
        ----------
        path : path-like
            The file. One that is there is replaced, whole or not at all.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        path = Path(path)
        if path.is_dir():
            raise InputError(f"{path} is a directory; give the name of a file, as regression.nc")
        text = json.dumps(self.task.to_dict())
        with replacing(path) as part:
            own = self.dataset.assign_attrs(task=text, linear_regression_format=_FORMATS[-1])
            own.to_netcdf(part, engine="netcdf4")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LinearRegression:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The file.

        Raises
        ------
        InputError
            If there is no such file, or it is not one of :meth:`save`.
        """
        try:
            with xr.open_dataset(path, engine="netcdf4") as opened:
                dataset = opened.load()
            found = dataset.attrs.pop("linear_regression_format")
            task = Task(**json.loads(dataset.attrs.pop("task")))
        except FileNotFoundError:
            raise InputError(f"there is no file {path}") from None
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path} is not a file that LinearRegression.save wrote, or not all of it "
                f"({error}); fit and save it again"
            ) from error
        if found not in _FORMATS:
            raise InputError(
                f"{path} has format {found}, and this version of the library reads {_FORMATS[-1]}"
            )
        return cls(dataset.drop_encoding(), task)

    def _forecast(
        self, inputs: np.ndarray, init_time: np.ndarray, steps: int, known: Any = None
    ) -> np.ndarray:
        """Apply the regression; past the task's target steps to its own forecast."""
        task, ahead = self.task, self.task.target_steps
        if steps > ahead and task.outputs != task.variables:
            raise InputError(
                f"cannot forecast {steps} steps: past {ahead} the forecast would need "
                f"itself of every input, but it is of {', '.join(task.outputs)} only"
            )
        knows = len(self._layout.known)
        reach = -(-steps // ahead) * ahead
        if knows and (known is None or known.shape[1:3] != (reach, knows)):
            names = ", ".join(self._channels[-knows:])
            raise InputError(f"the regression needs {names} at {reach} valid times: give known=")
        history = inputs.shape[1]
        if history < task.history:  # a negative index would take another window's values
            raise InputError(
                f"the regression needs {task.history} steps of history ({task}), found {history}"
            )
        times = np.empty(0)
        if self._layout.sun or "usual" in self.dataset:
            times = valid_times(init_time, task.step * np.arange(1 - history, reach + 1))
        centre = np.broadcast_to(self.dataset["mean"].values, (1, 1, *self.dataset["mean"].shape))
        centre = centre.repeat(len(inputs), 0).repeat(history + reach, 1).astype(np.float32)
        if "usual" in self.dataset:
            fields = self.dataset["usual"].values
            found = terms(self.dataset.attrs["reference"], self.dataset["slot"].values, times)
            usual = fields[found] if found.ndim == 2 else np.tensordot(found, fields, 1)
            centre[:, :, self._targets] = usual
        window = np.zeros_like(centre)
        own = len(task.variables)
        window[:, :history, :own] = inputs - centre[:, :history, :own]
        if knows:
            window[:, history:, -knows:] = known - centre[:, history:, -knows:]
        if task.nan == "mask":
            window = np.nan_to_num(window, nan=0.0)
        sun = self._sun(times)
        for first in range(0, reach, ahead):
            part = slice(first, first + history + ahead)
            made = self._once(window[:, part], None if sun is None else sun[:, part])
            # What is forecast is known to the next pass, of the same variables.
            window[:, history + first : history + first + ahead, self._targets] = made
        out = (window + centre)[:, history : history + steps, self._targets]
        return out if task.lower is None else np.maximum(out, np.float32(task.lower))

    def _sun(self, times: np.ndarray) -> np.ndarray | None:
        """The sun at times (B, T): (B, T, H, W)."""
        if not self._layout.sun:
            return None
        places = (self.dataset[d].values for d in ("latitude", "longitude"))
        flat = sun_at(times.ravel(), *places) / np.float32(1000)
        return flat.reshape(*times.shape, *flat.shape[1:])

    def _once(self, window: np.ndarray, sun: np.ndarray | None) -> np.ndarray:
        """Forecast the last T' of differences (B, T + T', C, H, W): (B, T', C', H, W)."""
        batch, length, channels, height, width = window.shape
        layout, task = self._layout, self.task
        padded = padded_by(
            window.reshape(-1, channels, height, width),
            layout.radius,
            bool(self.dataset.attrs["periodic"]),
        )
        ends = np.arange(batch) * length + length - task.target_steps - 1
        shape = (batch, task.target_steps, len(task.outputs), height, width)
        out = np.empty(shape, dtype=np.float32)
        coefficients = self.dataset["coefficients"].values
        for row in range(height):
            around = padded[:, :, row : row + 2 * layout.radius + 1]
            lit = None if sun is None else sun[:, :, row].reshape(-1, width)
            x = layout.predictors(around, ends, np.float32, lit)
            y = x @ coefficients[:, :, row].transpose(2, 1, 0)  # (W, B, T' C')
            out[..., row, :] = y.transpose(1, 2, 0).reshape(*shape[:3], width)
        return out


def _usual(ds: xr.Dataset, task: Task) -> ReferenceFit | None:
    """Fit the climatology that suits the data, if one does."""
    if task.reference is not None:
        return fit_reference(ds, task)
    if "clip" in ds.coords or ds["time"].dtype.kind not in "MO":
        return None
    kind: Any = "climatology" if "latitude" in ds.coords else "weekly"
    try:
        return fit_reference(ds, replace(task, reference=kind))
    except InputError as error:
        log.info("a linear regression of plain values: %s", error)
        return None


def _centre(ds: xr.Dataset, names: tuple[str, ...], masked: set[str]) -> np.ndarray:
    """What values are taken as differences from (C, H, W): the mean of the first times.

    It need only be near the mean, so that sums of products lose no digits. It must be the same for
    all bands: the constant of a point depends on its neighbours' constants. Of variables that have
    a climatology it is 0.
    """
    out = []
    for name in names:
        first = ds[name].isel(time=slice(0, max(1, _READ // (4 * ds[name][0].size)))).values
        known = np.isfinite(first)
        total = np.where(known, first, 0).sum(axis=0, dtype=np.float64)
        mean = total / np.maximum(known.sum(axis=0), 1)
        out.append(np.zeros_like(mean) if name in masked else mean)
    return np.stack(out).astype(np.float32)


class _Job:
    """The sums over windows from which coefficients follow, for any band of rows."""

    def __init__(
        self,
        ds: xr.Dataset,
        task: Task,
        channels: tuple[str, ...],
        layout: Layout,
        starts: np.ndarray,
        targets: list[int],
        usual: ReferenceFit | None,
        where: Callable[[np.ndarray], Any] | None,
    ) -> None:
        self.ds, self.task, self.channels, self.layout = ds, task, channels, layout
        self.where = where
        self.starts, self.targets, self.usual = starts, targets, usual
        self.periodic = Grid.of(ds).periodic
        self.mean = _centre(ds, channels, set(task.outputs) if usual is not None else set())
        if task.nan == "mask" and usual is None:
            for i in targets:  # of a point that is never there no forecast is known
                self.mean[i][never(ds[channels[i]])] = np.nan
        self.time = ds["time"].values
        # Windows in order, and where the climatology that they may see is another one.
        self._sets: tuple[np.ndarray, np.ndarray] | None = None
        self._changes = np.empty(0, dtype=np.int64)
        if usual is not None:
            self._sets = usual.sets(starts, task.window)
            self._changes = np.flatnonzero(np.diff(self._sets[1])) + 1
            self._terms = usual.terms(self.time)

    def sums(self, band: slice) -> np.ndarray:
        """Sums over windows of predictors times predictors and targets: (rows, W, F, F + L).

        A task for each block of history, and then for each part of its rows; the order in which
        their sums are added is always the same.
        """
        task, layout, starts = self.task, self.layout, self.starts
        rows, height, width = band.stop - band.start, *self.mean.shape[1:]
        have = min(layout.radius, band.start), min(layout.radius, height - band.stop)
        around = slice(band.start - have[0], band.stop + have[1])
        variables = [self.ds[name].variable[:, around] for name in self.channels]
        length = max(task.window + 1, _READ // (4 * len(variables) * variables[0][0].size))
        outputs = len(self.targets) * task.target_steps
        count = max(1, _WORK // (width * (layout.size + outputs)))
        graph = Graph()
        mean = self.mean[:, around]
        prepare = graph.put(
            partial(
                partial(anomalies_of, task, self.channels, mean, layout.radius, self.periodic),
                have,
                self.where,
            )
        )
        part = graph.put(partial(part_of, task, layout, self.targets, count))
        lazy = variables[0].chunks is not None
        halves = [slice(0, rows // 2), slice(rows // 2, rows)] if rows > 1 else [slice(0, 1)]
        sums: list[str | None] = [None] * len(halves)
        first = 0
        while first < len(starts):
            # A window belongs to the block in which it starts, and lies in it whole.
            stop = int(np.searchsorted(starts, starts[first] + length - task.window, side="right"))
            stop = max(stop, first + 1)
            change = np.searchsorted(self._changes, first, side="right")
            if change < len(self._changes):
                stop = min(stop, int(self._changes[change]))
            mine = starts[first:stop]
            at = slice(int(mine[0]), int(mine[-1]) + task.window)
            read = [graph.whole(variable[at]) for variable in variables]
            times = self.time[at]
            usual = self._usual(first, at, around)
            block = graph.add(_call, prepare, graph.put((times[[0, -1]], usual)), read)
            lit = None
            if layout.sun:
                places = self.ds["latitude"].values[band], self.ds["longitude"].values
                lit = times, *places
            local = graph.put((mine - mine[0], lit))
            for i, half in enumerate(halves):
                own = graph.add(_call, part, graph.put(half), local, block)
                before = sums[i]
                sums[i] = own if before is None else graph.add(np.add, before, own)
            first = stop
        done = graph.add(_stacked, sums)
        return graph.compute(done, "active" if lazy else "threads")

    def _usual(self, first: int, at: slice, around: slice) -> Any:
        """Fields and terms of the climatology that the block of window `first` may see."""
        if self.usual is None or self._sets is None:
            return None
        pairs, which = self._sets
        group = int(which[first])
        if self._known[0] != group:
            a, b = pairs[group]
            self._known = group, self.usual.without(int(a), int(b))
        return self.targets, self._known[1][:, :, around], self._terms[at]

    _known: tuple[int, Any] = (-1, None)


def _call(function: Any, *args: Any) -> Any:
    return function(*args)


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts)
