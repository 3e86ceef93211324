"""What is told without a terminal: what will be done and how long it takes, then where it is."""

from __future__ import annotations

import logging
import re

import pytest
from helpers import Linear, tiny

from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training import TrainConfig, fit, progress, read_log


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def run(clock, steps, seconds, first=20.0, *, given=None, minutes=None, until=None):
    """Report steps that take so many seconds; the first one takes longer."""
    with progress.reporting(given, "1,234 parameters on cpu", minutes) as report:
        for step in range(1, (until or steps) + 1):
            clock.now += first if step == 1 else seconds
            event = {"step": step, "steps": steps, "samples": 16}
            report(event | ({"loss": 0.5} if step % 50 == 0 else {}))


def test_a_batch_job_says_what_it_does_and_where_it_is(clock, capfd):
    run(clock, 2300, 8.0, until=120)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert not out
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d training 1,234 parameters on cpu: 2,294 of 2,300 steps to go, of 16 "
        r"windows; 8 s a step, until about (\d{4}-\d\d-\d\d )?\d\d:\d\d, in 5 h 6 min",
        lines[0],
    )
    assert len(lines) == 1 + (120 - 6) * 8 // 304
    assert re.search(r"step 44 of 2,300: 8 s a step, until about .*, in 5 h 1 min", err)
    assert re.search(r"step 82 of 2,300: loss 0\.5; 8 s a step", err)


def test_a_budget_ends_it(clock, capfd):
    run(clock, 2300, 8.0, minutes=30, until=10)
    assert re.search(r"in 29 min\n$", capfd.readouterr().err)


@pytest.mark.parametrize(
    ("steps", "seconds", "first", "words"),
    [
        (30, 1.0, 5.0, None),  # there is less than a minute to wait
        (1, 1.0, 500.0, None),  # it is over
        (3, 70.0, 70.0, "2 of 3 steps to go, of 16 windows; 70 s a step"),  # told after the first
        (100_000, 90.0, 1.0, r"90 s a step, until about \d{4}-.*, in 104 d 3 h"),
    ],
)
def test_the_first_line(clock, capfd, steps, seconds, first, words):
    run(clock, steps, seconds, first, until=min(steps, 7))
    err = capfd.readouterr().err
    if words:
        assert re.search(words, err.splitlines()[0])
    else:
        assert not err


def test_nothing_is_written_that_was_not_asked_for(clock, capfd, caplog):
    """Who set logging up has the lines in the log; who gives a function or False, there alone."""
    seen = []
    run(clock, 2300, 8.0, given=seen.append, until=20)
    run(clock, 2300, 8.0, given=False, until=20)
    assert capfd.readouterr() == ("", "")
    assert len(seen) == 20
    with caplog.at_level(logging.INFO):
        run(clock, 2300, 8.0, until=20)
    assert capfd.readouterr() == ("", "")
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "2,294 of 2,300 steps to go" in record.getMessage()


def test_fit_tells_it(caplog):
    config = TrainConfig(steps=3, batch_size=4, precision="fp32", device="cpu")
    with caplog.at_level(logging.INFO):
        fit(make_weather(30, shape=(6, 10)), Task("t2m", 4, 3), model=tiny, config=config)
    size = sum(p.numel() for p in tiny().parameters())
    (line,) = [r.getMessage() for r in caplog.records if "steps to go" in r.getMessage()]
    assert line.startswith(f"training {size:,} parameters on cpu: 0 of 3 steps to go, of 4 windows")


def test_the_curve_begins_at_the_first_step(tmp_path):
    """Of a run whose first validation is far off; the mean of the others does not change."""
    config = TrainConfig(
        steps=53, validate_every=52, batch_size=1, precision="fp32", device="cpu", compile="never"
    )
    weather = make_weather(30, shape=(4, 8))
    fit(weather, Task("t2m", 4, 3), model=Linear, config=config, run_dir=tmp_path)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 50, 52, 53]
