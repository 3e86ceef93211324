"""The validation period: a period that was trained on cannot judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tiny
from torch import nn

from stforecast.conventions.grid import area_weights
from stforecast.conventions.overlap import FINGERPRINT
from stforecast.errors import InputError
from stforecast.evaluation import Above, evaluate
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training import TrainConfig, find_learning_rate, fit

TASK = Task("t2m", input_steps=4, target_steps=3)
CONFIG = TrainConfig(
    steps=1, batch_size=4, val_windows=4, precision="fp32", device="cpu", compile="never"
)


@pytest.fixture(scope="module")
def weather():
    return make_weather(96, shape=(6, 10))


def go(weather, validation, **options):
    options = {"model": tiny, "config": CONFIG} | options
    return fit(weather, TASK, validation=validation, **options)


def times(ds, start, stop=None, step=None):
    return ds.isel(time=slice(start, stop, step))


def celsius(ds):
    return ds.assign({"2m_temperature": (ds["2m_temperature"] - 273.15).assign_attrs(units="degC")})


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda ds: ds, 92),  # all but the first inputs
        (lambda ds: times(ds, 50), 42),
        (lambda ds: times(ds, 85, 92), 3),  # one window
        (lambda ds: times(ds, None, None, -1), 92),
        (lambda ds: celsius(ds).rename(latitude="lat", longitude="lon", time="valid_time"), 92),
        (lambda ds: ds.convert_calendar("noleap", use_cftime=True), 92),
        (
            lambda ds: ds.roll(longitude=3, roll_coords=True).isel(latitude=slice(None, None, -1)),
            92,
        ),
        (lambda ds: ds.chunk(time=7), 92),
        (lambda ds: ds + 0.5, 92),  # another analysis of the same days
    ],
)
def test_an_overlap_is_refused(weather, change, count):
    other = change(weather)
    for variable in other.data_vars:
        other[variable].attrs.setdefault("units", "K")
    words = rf"{count} of the \d+ times of the validation period lie in the training period.*allow_"
    with pytest.raises(InputError, match=words):
        go(weather, other)


def test_by_name_it_can(weather):
    forecaster = go(weather, weather, allow_overlap=True)
    assert forecaster.training["validation"]["step"] == 1
    rates = {"rates": (1e-3,), "steps": 1, "model": tiny, "config": CONFIG}
    with pytest.raises(InputError, match="lie in the training period"):
        find_learning_rate(weather, TASK, validation=weather, **rates)
    find_learning_rate(weather, TASK, validation=weather, allow_overlap=True, **rates)


def test_inputs_may_be_steps_that_were_trained_on(weather):
    """What a forecast begins with was known: the first target is what must be new."""
    train = times(weather, None, 60)
    go(train, times(weather, 56))
    with pytest.raises(InputError, match="1 of the 37 times"):
        go(train, times(weather, 55))


def test_a_gap_in_the_training_period_can_judge(weather):
    train = weather.isel(time=np.r_[:30, 60:96])
    go(train, times(weather, 26, 60))
    with pytest.raises(InputError, match="2 of the"):
        go(train, times(weather, 26, 62))


def test_the_windows_that_are_chosen_are_the_training_period(weather):
    """Of one data set given twice, too."""
    chosen = weather["time"].values[3:40]
    go(weather, times(weather, 39), init_time=chosen)
    with pytest.raises(InputError, match="lie in the training period"):
        go(weather, times(weather, 38), init_time=chosen)


def test_times_of_clips_are_no_dates(weather):
    """All clips begin in 1970: those of another split judge, the same ones do not."""

    def clips(mark, seed):
        ds = make_weather(48, time="1970-01-01", shape=(6, 10), seed=seed)
        ds = ds.assign_coords(clip=("time", np.zeros(48, int)))
        return ds.assign_attrs({FINGERPRINT: mark})

    train, other = clips("KTH; split=train; 6 x 10; a", 0), clips("KTH; split=test; 6 x 10; b", 1)
    go(train, other)
    with pytest.raises(InputError, match="44 of the 44"):
        go(train, train)


def test_a_refusal_leaves_the_random_numbers_alone(weather):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(InputError):
        go(weather, weather)
    assert torch.equal(torch.rand(3), expected)


# --- where truth counts ---------------------------------------------------------------------------


class Constant(nn.Module):
    """One number for each target step and point, whatever it sees."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(3, 1, 6, 10))

    def forward(self, x):
        return self.value.expand(len(x), -1, -1, -1, -1)


@pytest.mark.parametrize("above", [None, 285.0])
def test_it_learns_from_what_counts_and_is_judged_by_it(weather, above, caplog):
    where = None if above is None else Above(above)
    seen, judge = times(weather, 0, 60), times(weather, 60)
    config = replace(CONFIG, steps=600, batch_size=54, learning_rate=0.1, where=where)
    config = replace(config, val_windows=1000, validate_every=600)
    forecaster = go(seen, judge, model=Constant, config=config)
    truth = weather["2m_temperature"].values.astype(np.float64)
    targets, judged = (
        np.stack([truth[k + 4 : k + 7] for k in steps]) for steps in (range(54), range(60, 90))
    )
    counts = np.ones_like(targets, bool) if above is None else targets > above
    wanted = np.where(counts, targets, 0).sum(0) / np.maximum(counts.sum(0), 1)
    found = forecaster.predict(seen)["2m_temperature"].values.reshape(wanted.shape)
    learned = counts.any(0)  # of a point that never counts nothing is learned
    np.testing.assert_allclose(found[learned], wanted[learned], atol=0.05)
    counts = np.ones_like(judged, bool) if above is None else judged > above
    area = area_weights(weather["latitude"].values)[:, None] * counts
    rmse = np.sqrt((area * (found - judged) ** 2).sum() / area.sum())
    last = np.stack([truth[k + 3] for k in range(60, 90)])[:, None]
    still = np.sqrt((area * (last - judged) ** 2).sum() / area.sum())
    told = forecaster.training["validation"]
    assert told["val_rmse"] == pytest.approx(rmse, rel=1e-4)
    assert told["val_to_persistence"] == pytest.approx(rmse / still, rel=1e-4)
    # Where it knows nothing it forecasts too much: it says what it learned from.
    said = None if above is None else "truth > 285"
    assert forecaster.training["config"].get("where") == said
    assert ("learned   where truth > 285" in repr(forecaster)) == (above is not None)
    forecast = forecaster.predict(judge, init_time=judge["time"].values[10:20])
    assert forecast.attrs.get("training_where") == said
    for how, warned in (({}, above is not None), ({"where": Above(285)}, False)):
        caplog.clear()
        evaluate(forecast, weather, metrics="rmse", **how)
        assert (
            "learned where truth > 285 alone, and is scored everywhere" in caplog.text
        ) == warned


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (lambda truth: truth, "one truth value for each point of the targets"),
        (lambda truth: truth[:, :1] > 280, "one truth value for each point of the targets"),
        (Above(10), "are in K, as it is scored, found 10"),
    ],
)
def test_what_chooses_no_points_is_refused(weather, where, words):
    with pytest.raises(InputError, match=words):
        go(weather, None, config=replace(CONFIG, where=where))


def test_of_a_limit_that_nothing_reaches_it_warns(weather, caplog):
    go(weather, None, config=replace(CONFIG, where=Above(1000)))
    assert "no target of the last 1 steps counts" in caplog.text


def test_a_limit_alone_does_not_choose():
    with pytest.raises(InputError, match=r"TrainConfig.where must be a function of truth"):
        TrainConfig(where=10)
