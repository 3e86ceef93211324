"""How often true frames are fed: rates from the step, draws from the generator."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import SHARED

from stforecast.errors import InputError
from stforecast.models.recurrent.sampling import Sampling, draw

FILE = SHARED / "golden" / "recurrent" / "recurrent_sampling.json"


def test_the_rates_by_hand():
    standard, reverse = Sampling(), Sampling("reverse")
    assert standard.rates(0, 4, 3).tolist() == [1 - 2e-5] * 2
    assert standard.rates(24_999, 4, 3).tolist() == pytest.approx([0.5] * 2)
    assert standard.rates(50_000, 4, 3).tolist() == [0.0] * 2
    assert reverse.rates(24_999, 3, 3).tolist() == [0.5] * 4
    seen = 1 - 0.5 * np.exp(-1)
    assert reverse.rates(30_000, 3, 3).tolist() == pytest.approx([seen, seen, 0.4, 0.4])
    assert reverse.rates(50_000, 3, 3).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert Sampling("never").rates(7, 4, 3).tolist() == [0.0] * 2
    assert Sampling("always").rates(10**6, 4, 3).tolist() == [1.0] * 2
    assert Sampling().rates(3, 4, 1).shape == (0,)


@pytest.mark.skipif(not FILE.is_file(), reason=f"no {FILE}")
def test_golden_recurrent_sampling_rates():
    known = json.loads(FILE.read_text())
    for step, rates in zip(known["iterations"], known["reverse"], strict=True):  # to 5e-5
        found = Sampling("reverse").rates(step, 4, 3).numpy()
        np.testing.assert_allclose(found, rates, atol=5.1e-5)
    for step, rate in known["standard"].items():
        assert Sampling().rates(int(step), 4, 3)[0] == pytest.approx(rate, abs=1e-9)


@pytest.mark.skipif(not FILE.is_file(), reason=f"no {FILE}")
def test_golden_recurrent_sampling_draws(monkeypatch):
    """The same uniform numbers, compared with the rates, choose the same frames."""
    known, rng = json.loads(FILE.read_text()), np.random.RandomState(7)
    parts = [rng.random_sample((3, n)) for n in (3, 2)]
    monkeypatch.setattr(torch, "rand", lambda *n, **o: torch.from_numpy(np.hstack(parts)))
    found = draw(Sampling("reverse").rates(30_000, 4, 3), 3, None)
    assert found.int().tolist() == known["draw_reverse_iteration_30000"]
    uniform = np.random.RandomState(7).random_sample((3, 2))
    monkeypatch.setattr(torch, "rand", lambda *n, **o: torch.from_numpy(uniform))
    found = draw(Sampling(start=0.6).rates(0, 4, 3), 3, None)
    assert found.int().tolist() == known["draw_standard_eta_before_0_6"]
    assert Sampling(start=0.6).rates(0, 4, 3)[0] == pytest.approx(known["eta_after"], abs=1e-9)


def test_draws_are_of_the_generator_one_for_a_sample_and_step():
    rates = torch.full((400,), 0.3, dtype=torch.float64)
    one, two, other = (draw(rates, 50, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.shape == (50, 400)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.double().mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "sometimes"}, "sampling must be one of"),
        ({"decay": "slow"}, "decay must be a number"),
        ({"stop": 1.5}, "stop must be a whole number"),
        ({"reverse_start": 9, "reverse_stop": 9}, "needs reverse_start < reverse_stop"),
        ({"reverse_scale": 0.0}, "reverse_scale must be a number"),
    ],
)
def test_other_schedules_are_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        Sampling(**wrong)
