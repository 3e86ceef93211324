"""Figures of the networks that must not move: they prove that a change keeps every bit."""

from __future__ import annotations

import torch
from helpers import golden

from stforecast.models import SimVPv2
from stforecast.models.translators import NAMES


def test_simvpv2():
    figures = {}
    for name in NAMES:
        torch.manual_seed(0)
        model = SimVPv2(
            4,
            6,
            2,
            encoder_channels=8,
            translator_channels=16,
            translator_blocks=2,
            drop_path=None,
            predict_change=True,
            translator=name,
            grid=(9, 14),
        ).double()
        y = model(torch.randn(2, 4, 2, 9, 14, dtype=torch.float64))  # twice its own output
        y.square().mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        figures[f"{name}, sum of |output|"] = y.abs().sum().item()
        figures[f"{name}, sum of |gradient|"] = sum(g.abs().sum().item() for g in gradients)
    golden("simvpv2", figures, 1e-9)
