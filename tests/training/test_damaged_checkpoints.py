"""Checkpoints that are damaged, missing or of another run."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from small_runs import SHORT, go, same_weights, tree

from stforecast.errors import InputError
from stforecast.loading.feeds import ResidentFeed
from stforecast.models.simvp import SimVPv2
from stforecast.training import checkpoints
from stforecast.training.checkpoints import read_checkpoint

pytestmark = pytest.mark.usefixtures("without_curves")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place if place >= 0 else len(content) + place] ^= 1 << 4
    path.write_bytes(content)


def cut(path, to):
    os.truncate(path, to if to >= 0 else path.stat().st_size + to)


DAMAGES = {
    "the first byte flipped": lambda p: flip(p, 0),
    "a byte in the middle flipped": lambda p: flip(p, p.stat().st_size // 2),
    "the last byte flipped": lambda p: flip(p, -1),
    "cut by a byte": lambda p: cut(p, -1),
    "cut to a half": lambda p: cut(p, p.stat().st_size // 2),
    "empty": lambda p: cut(p, 0),
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "gone": lambda p: p.unlink(),
    "a byte more": lambda p: p.write_bytes(p.read_bytes() + b"\n"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
def test_a_damaged_file(datasets, finished, copy, caplog, file, damage):
    """The checkpoint before is taken, loudly; and the run ends as it did."""
    damage(copy / "checkpoint-00000006" / file)
    seen = []
    again = go(datasets, copy, progress=seen.append)
    assert [e["step"] for e in seen] == [5, 6]
    loud = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert f"checkpoint-00000006/{file} is damaged" in loud[0]
    assert same_weights(again, finished[1])
    assert (copy / "damaged-checkpoint-00000006").is_dir()
    assert go(datasets, copy, progress=seen.append).training["validation"]["step"]
    assert len(seen) == 2  # the new checkpoint of the end is the last one now


def test_every_byte_counts(copy):
    path = copy / "checkpoint-00000006"
    read_checkpoint(path)
    rng = random.Random(0)
    for file in path.iterdir():
        content = file.read_bytes()
        for place in rng.sample(range(len(content)), 300):
            spoiled = bytearray(content)
            spoiled[place] ^= 1 << rng.randrange(8)
            file.write_bytes(spoiled)
            with pytest.raises(InputError, match=f"{file.name} is damaged"):
                read_checkpoint(path)
        file.write_bytes(content)
    read_checkpoint(path)


def test_damaged_ones_do_not_outlive_good_ones(datasets, copy, monkeypatch):
    """A stop at step 5 writes an earlier step than the damaged 6: it must not be dropped for it."""
    cut(copy / "checkpoint-00000006/state.json", 10)
    batch = ResidentFeed.batch

    def interrupting(self, step):
        if self.shuffle:
            signal.raise_signal(signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(ResidentFeed, "batch", interrupting)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 5 of 6"):
        go(datasets, copy)
    names = sorted(p.name for p in copy.glob("checkpoint-*"))
    assert names == ["checkpoint-00000004", "checkpoint-00000005"]


def test_no_checkpoint_is_whole(datasets, finished, copy):
    cut(copy / "checkpoint-00000006/state.safetensors", 100)
    flip(copy / "checkpoint-00000004/state.json", 30)
    before = tree(copy)
    words = (
        r"no checkpoint in .*copy is whole: .*06/state.safetensors is damaged.*04/state.json is "
        r"damaged.*Restore.*resume='never'"
    )
    for _ in range(2):
        with pytest.raises(InputError, match=words):
            go(datasets, copy)
        assert tree(copy) == before
    seen = []
    again = go(datasets, copy, resume="never", progress=seen.append)
    assert len(seen) == 6
    assert same_weights(again, finished[1])


def test_the_checkpoints_are_gone(datasets, copy):
    for path in copy.glob("checkpoint-*"):
        shutil.rmtree(path)
    with pytest.raises(InputError, match=r"history.jsonl tells of a run, but its checkpoints are"):
        go(datasets, copy)


@pytest.mark.parametrize("spoil", ["torn", "beyond", "gone"])
def test_history_is_the_checkpoints(datasets, copy, spoil):
    history = copy / "history.jsonl"
    before = history.read_text()
    spoilt = {"torn": before[:-20], "beyond": before + '{"step": 8}\n{"st'}
    history.unlink() if spoil == "gone" else history.write_text(spoilt[spoil])
    go(datasets, copy)
    assert history.read_text() == before


def test_leftovers_of_a_kill_are_cleared(datasets, copy):
    before = tree(copy)
    (copy / ".checkpoint-00000008.0123abcd.part").mkdir()
    (copy / ".checkpoint-00000008.0123abcd.part/state.json").write_text("{")
    (copy / ".history.0123abcd.part.jsonl").write_text("{")
    (copy / "notes.txt").write_text("mine")
    go(datasets, copy)
    assert tree(copy) == before | {copy / "notes.txt": b"mine"}


class Steps(torch.nn.Linear):
    """A network of another class, that fits the task."""

    def __init__(self, size):
        super().__init__(size, size)

    def forward(self, x):
        return super().forward(x[:, -3:])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"model": lambda: SimVPv2(4, 3, encoder_channels=8, translator_channels=12)},
            r"\(model differ",
        ),
        ({"model": lambda: Steps(10)}, r"\(model differ"),
        ({"config": replace(SHORT, seed=1)}, r"\(config differ"),
        ({"init_time": "some"}, r"\(windows differ"),
        ({"warmer": 10.0}, r"\(values of the data differ"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_another_run(datasets, copy, change, words):
    weather, valid = datasets
    change = dict(change)
    if "init_time" in change:
        change["init_time"] = weather["time"].values[10:60]
    if warmer := change.pop("warmer", 0):
        weather = weather.assign({"2m_temperature": weather["2m_temperature"] + warmer})
        weather["2m_temperature"].attrs = datasets[0]["2m_temperature"].attrs
    before = tree(copy)
    with pytest.raises(InputError, match=words):
        go((weather, valid), copy, **change)
    assert tree(copy) == before


def test_a_network_of_another_size(datasets, tmp_path):
    """Which says nothing of its settings, so that its tensors must."""

    class Scale(torch.nn.Module):
        def __init__(self, size):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(size))

        def forward(self, x):
            return x[:, -3:] * self.factor.mean()

    go(datasets, tmp_path, model=lambda: Scale(4))
    with pytest.raises(InputError, match=r"\(model differ"):
        go(datasets, tmp_path, model=lambda: Scale(5))


def test_a_checkpoint_of_another_version(datasets, copy):
    for path in copy.glob("checkpoint-*"):
        state, _ = read_checkpoint(path)
        (path / "state.json").write_text(checkpoints.sealed(state | {"version": 1}))
    with pytest.raises(InputError, match="it is of version 1, this library reads 3"):
        go(datasets, copy)
