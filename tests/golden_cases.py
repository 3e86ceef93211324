"""Cases of the authors' public code with known answers, for the tests that hold ours against it."""

from __future__ import annotations

import json

import numpy as np
from helpers import SHARED

from stforecast.models.openstl import load_openstl

GOLDEN = SHARED / "golden" / "public"
CASES = sorted(p.name.removesuffix(".weights.safetensors") for p in GOLDEN.glob("*.safetensors"))


def load_case(name):
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    options = case["hyper_parameters"] | {"drop_path": None}  # they were taken with it off
    model = load_openstl(
        GOLDEN / f"{name}.weights.safetensors", target_steps=case["aft_seq_length"], **options
    )
    return case, model, np.load(GOLDEN / f"{name}.io.npz")


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
