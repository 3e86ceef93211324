"""Networks put together from several states of one."""

from __future__ import annotations

import copy

import pytest
import torch

from stforecast.errors import InputError
from stforecast.models import PARTS, SimVPv2, assemble
from stforecast.models.parts import part_of


def network(translator="gsta"):
    torch.manual_seed(0)
    return SimVPv2(
        2, 2, encoder_channels=4, translator_channels=8, translator_blocks=2, grid=(6, 8),
        translator=translator, predict_change=True, drop_path=0.0, noise=2,
    ).eval()  # fmt: skip


def states(a, **others):
    return dict.fromkeys(PARTS, a) | others


@pytest.mark.parametrize("translator", ["gsta", "incepu", "swin"])
def test_each_part_is_taken_whole_and_alone(translator):
    a = network(translator)
    b = copy.deepcopy(a)
    for tensor in (*b.parameters(), *b.translator.buffers()):
        tensor.data = tensor + 1
    first, second = ({k: v.clone() for k, v in one.state_dict().items()} for one in (a, b))
    x = torch.randn(2, 2, 1, 6, 8)
    for part in PARTS:
        mixed = copy.deepcopy(a)
        assemble(mixed, states(first, **{part: second}))
        moved = {k for k, v in mixed.state_dict().items() if not v.equal(first[k])}
        assert moved == {k for k in first if part_of(k) == part and not second[k].equal(first[k])}
        assert moved
        assemble(mixed, states(second))  # all of them: the other network
        assert mixed(x).equal(b(x))
        assemble(mixed, states(first))
        assert mixed(x).equal(a(x))


def test_what_does_not_fit_changes_nothing():
    a = network()
    before = {k: v.clone() for k, v in a.state_dict().items()}
    drawn = {k: v + 1 for k, v in before.items()}
    kept = drawn | {k: v for k, v in before.items() if part_of(k) is None}
    for given, words in (
        (states(kept, decoder=drawn), "for the decoder is of another training: tendency_std"),
        (states(kept, decoder=network("vit").state_dict()), "for the decoder is of another netw"),
        ({"encoder": kept}, "a state for each of encoder, translator, decoder"),
    ):
        with pytest.raises(InputError, match=words):
            assemble(a, given)
        assert all(v.equal(before[k]) for k, v in a.state_dict().items())
