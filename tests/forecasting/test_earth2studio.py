"""A forecaster by earth2studio's protocol: the same numbers as predict, under its coordinates."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytest
import torch

from stforecast.errors import InputError
from stforecast.forecasting import Forecaster, Prognostic, predict
from stforecast.task import Task
from stforecast.testing import make_weather

Tensor, Coords = torch.Tensor, OrderedDict[str, np.ndarray]


@runtime_checkable
class PrognosticModel(Protocol):
    """What earth2studio asks of a model (``earth2studio.models.px.base``, release 0.19)."""

    def __call__(self, x: Tensor, coords: Coords) -> tuple[Tensor, Coords]: ...
    def create_iterator(self, x: Tensor, coords: Coords) -> Iterator[tuple[Tensor, Coords]]: ...
    def input_coords(self) -> Coords: ...
    def output_coords(self, input_coords: Coords) -> Coords: ...
    def to(self, device: Any) -> Any: ...


class Drift(torch.nn.Module):
    """The last step and k times the last change, and what the sun adds where it is seen."""

    def forward(self, x):
        k = torch.arange(1.0, 4.0, device=x.device).view(1, 3, 1, 1, 1)
        last, before = x[:, -1:, :1], x[:, -2:-1, :1]
        return last + k * (last - before) + x[:, -1:, 1:].sum(2, keepdim=True) / 100


HOURS = np.timedelta64(1, "h")


@pytest.fixture
def ds():
    return make_weather(30, shape=(4, 6))


def forecaster_on(ds, **options):
    task = Task("t2m", input_steps=2, target_steps=3, **options)
    grid = {"latitude": ds["latitude"].values, "longitude": ds["longitude"].values}
    units = {"2m_temperature": {"units": "K"}}
    return Forecaster(Drift(), task, mean=[280] * len(task.channels), grid=grid, variables=units)


def fields(model, ds, times, members=None):
    """What earth2studio's ``fetch_data`` and a perturbation of the members would give."""
    wanted = model.input_coords()
    rows = ds.indexes["time"].get_indexer(times)[:, None] + wanted["lead_time"] // HOURS
    x = torch.tensor(ds["2m_temperature"].values[rows][:, :, None])
    coords = OrderedDict({**wanted, "time": np.asarray(times)})
    del coords["batch"]
    if members is not None:
        x = torch.stack([x + m for m in range(members)])
        coords = OrderedDict({"ensemble": np.arange(members), **coords})
    return x, coords


@pytest.mark.parametrize("known", [(), ("toa_incident_solar_radiation",)])
def test_the_numbers_of_predict_step_by_step(ds, known):
    forecaster = forecaster_on(ds, known=known)
    model = Prognostic(forecaster)
    assert isinstance(model, PrognosticModel)
    times = ds["time"].values[[7, 12]]
    x, coords = fields(model, ds, times)
    wanted = predict(ds, forecaster, init_time=times, steps=8)["2m_temperature"].values
    given = list(islice(model.create_iterator(x, coords), 9))
    np.testing.assert_array_equal(given[0][0], x[:, -1:])
    for step, (y, out) in enumerate(given):
        assert list(out) == ["time", "lead_time", "variable", "lat", "lon"]
        assert tuple(y.shape) == tuple(len(v) for v in out.values())
        np.testing.assert_array_equal(out["lead_time"], [step * HOURS])
        np.testing.assert_array_equal(out["time"], times)
        assert out["variable"].tolist() == ["t2m"]
        if step:
            np.testing.assert_array_equal(y[:, 0, 0], wanted[:, step - 1])
    y, out = model(x, coords)
    np.testing.assert_array_equal(y, given[1][0])
    assert list(out["lead_time"]) == list(given[1][1]["lead_time"])


def test_members_and_moved_lead_times(ds):
    """Any dimensions lead; the initialisation is time + the last lead time of the input."""
    forecaster = forecaster_on(ds, known=("toa_incident_solar_radiation",))
    model, times = Prognostic(forecaster), ds["time"].values[[9, 14]]
    x, coords = fields(model, ds, times, members=3)
    coords["time"] = coords["time"] - 4 * HOURS
    coords["lead_time"] = coords["lead_time"] + 4 * HOURS
    y, out = model(x, coords)
    np.testing.assert_array_equal(out["lead_time"], [5 * HOURS])
    for member in range(3):
        wanted = predict(ds + member, forecaster, init_time=times, steps=1)
        np.testing.assert_array_equal(y[member, :, 0, 0], wanted["2m_temperature"][:, 0])


def test_coordinates_of_the_signature_and_names(ds):
    model = Prognostic(forecaster_on(ds))
    out = model.output_coords(model.input_coords())
    assert {k: v.shape for k, v in out.items()} == {
        "batch": (0,), "time": (0,), "lead_time": (1,), "variable": (1,), "lat": (4,), "lon": (6,)
    }  # fmt: skip
    assert model.to("cpu") is model
    names = ["t2m", "z500", "u_850", "msl", "geopotential", "air"]
    forecaster = Forecaster(Drift(), Task(names, 2, 3), grid=model.forecaster.grid)
    found = Prognostic(forecaster, {"air": "t2m"}).input_coords()["variable"]
    assert found.tolist() == ["t2m", "z500", "u850", "msl", "geopotential", "t2m"]


def test_targets_without_history_are_nan_at_first(ds):
    task = Task("t2m", 2, 3, targets=("2m_temperature", "air"))
    forecaster = Forecaster(torch.nn.Identity(), task, grid=forecaster_on(ds).grid)
    model = Prognostic(forecaster)
    first, out = next(model.create_iterator(*fields(model, ds, ds["time"].values[[5]])))
    assert out["variable"].tolist() == ["t2m", "air"]
    assert first[:, :, 0].isfinite().all()
    assert first[:, :, 1].isnan().all()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("lead_time", lambda v: v * 6, "expected lead_time"),
        ("lead_time", lambda v: v[1:], "expected lead_time"),
        ("variable", lambda v: np.array(["msl"]), r"expected variable \['t2m'\], found \['msl'\]"),
        ("lat", lambda v: v[::-1], "not on the forecaster's grid"),
        ("lon", lambda v: v + 0.5, "not on the forecaster's grid"),
    ],
)
def test_other_coordinates_are_refused(ds, name, change, message):
    model = Prognostic(forecaster_on(ds))
    x, coords = fields(model, ds, ds["time"].values[[5]])
    coords[name] = change(coords[name])
    with pytest.raises(InputError, match=message):
        model(x, coords)


def test_what_is_wrong_is_said(ds):
    model = Prognostic(forecaster_on(ds))
    x, coords = fields(model, ds, ds["time"].values[[5]])
    with pytest.raises(InputError, match=r"tensor is \(1, 2, 1, 4, 5\)"):
        model(x[..., 1:], coords)
    with pytest.raises(InputError, match="holds NaN or infinite"):
        model(x * torch.nan, coords)
    with pytest.raises(InputError, match="expected dimensions"):
        model(x, OrderedDict(reversed(coords.items())))
    with pytest.raises(InputError, match="the forecaster has no grid"):
        Prognostic(Forecaster(Drift(), Task("t2m", 2, 3)))
    units = {"mean_sea_level_pressure": {"units": "hPa"}}
    grid = model.forecaster.grid
    with pytest.raises(InputError, match="'hPa' in the training data, expected 'Pa'"):
        Prognostic(Forecaster(Drift(), Task("msl", 2, 3), grid=grid, variables=units))
