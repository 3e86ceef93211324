"""The order in which a stream shows its windows: numbers only, known before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np


def generator(seed: int, epoch: int, *more: int) -> np.random.Generator:
    """Random numbers of an epoch, the same on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, *more])))


def share(windows: int, rank: int, world_size: int) -> int:
    """How many of the windows of one step are a rank's."""
    return len(range(windows)[rank::world_size])


@dataclass(frozen=True)
class Epoch:
    """What one rank sees in one epoch: blocks as they are read, windows as they are shown.

    The buffer is a ring of places: block p, counted in the order of reading, lies in place
    ``p % places`` until block ``p + places`` takes it. A window of block p is shown while `need`
    blocks and one have been read, and ``need - places < p <= need``.
    """

    starts: np.ndarray  # (M,) windows in the order of showing
    rows: np.ndarray  # (M,) where in the buffer each begins
    need: np.ndarray  # (M,) ascending
    first: np.ndarray  # (n,) first step that a window of each block needs, in the order of reading
    begin: np.ndarray  # (n,) first step of the block itself
    stop: np.ndarray  # (n,) its end
    before: np.ndarray  # (n,) number of the block before it in time, -1 where no window needs that


@dataclass(frozen=True)
class Block:
    """A block to be read, of `epoch`, as number `number`: the steps from `first` to `stop`."""

    epoch: int
    number: int
    first: int
    stop: int
    before: int  # number of the block in the buffer that ends with the steps before it, or -1


class StreamOrder:
    """The windows and blocks of every epoch, as one rank sees them.

    Parameters
    ----------
    starts : array of int, shape (M,)
        First steps of the windows of all ranks, ascending.
    window : int
        Steps of a window.
    bounds : array of int, shape (N + 1,)
        Of the blocks, in steps.
    places : int
        Blocks that the buffer holds.
    batch_size, seed, shuffle, rank, world_size
        As for :class:`stforecast.loading.feeds.ResidentFeed`.
    """

    def __init__(
        self,
        starts: np.ndarray,
        window: int,
        bounds: np.ndarray,
        places: int,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int,
        world_size: int,
    ) -> None:
        self.starts, self.bounds, self.places = starts, bounds, places
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.overlap = window - 1  # steps before a block that its windows may need
        self.span = int(np.diff(bounds).max()) + self.overlap  # steps of a place in the buffer
        self._epochs: dict[int, Epoch] = {}

    def epoch(self, number: int) -> Epoch:
        """Plan of an epoch; the last two asked for are kept."""
        if number not in self._epochs:
            kept = {k: v for k, v in self._epochs.items() if k == number - 1}
            self._epochs = {**kept, number: self._plan(number)}
        return self._epochs[number]

    def _plan(self, epoch: int) -> Epoch:
        starts, random = self._part(epoch), generator(self.seed, epoch, self.rank)
        # A window belongs to the block in which it ends; both ascend.
        owner = np.searchsorted(self.bounds, starts + self.overlap, side="right") - 1
        earliest = np.flatnonzero(np.diff(owner, prepend=-1))
        used = owner[earliest]
        visit = np.arange(len(used))
        if self.shuffle and len(used):  # fewer windows than ranks: some have none
            visit = _lanes(len(used), self.places, random)
        number = np.empty_like(visit)  # of each block in the order of reading
        number[visit] = np.arange(len(used))
        place = np.repeat(number, np.diff(earliest, append=len(starts))).astype(np.int32)
        rows = place % self.places * self.span + starts - self.bounds[owner] + self.overlap
        when = random.random(len(starts)) if self.shuffle else np.zeros(len(starts))
        when *= self.places  # some time while the block is in the buffer
        when += place
        np.minimum(when, np.nextafter(place + self.places, 0.0), out=when)
        shown = np.argsort(when, kind="stable")
        need = np.minimum(when[shown].astype(np.int32), len(used) - 1)
        first, begin, stop = starts[earliest], self.bounds[used], self.bounds[used + 1]
        before = np.full(len(used), -1, dtype=np.int64)
        follows = np.flatnonzero((np.diff(used) == 1) & (first[1:] < begin[1:])) + 1
        before[follows] = number[follows - 1]
        narrow = np.int32 if max(self.bounds[-1], self.places * self.span) < 2**31 else np.int64
        return Epoch(
            starts[shown].astype(narrow),
            rows[shown].astype(narrow),
            need,
            *(a[visit] for a in (first, begin, stop, before)),
        )

    def _part(self, epoch: int) -> np.ndarray:
        """Return this rank's windows: neighbours in time, as many as its batches hold."""
        M, B, world = len(self.starts), self.batch_size, self.world_size
        if world == 1:
            return self.starts
        shares = [M // B * share(B, r, world) + share(M % B, r, world) for r in range(world)]
        first = sum(shares[: self.rank])
        if self.shuffle:  # other ranks saw these in other epochs
            first += int(generator(self.seed, epoch).integers(M))
        return self.starts[np.sort(np.arange(first, first + shares[self.rank]) % M)]

    def blocks(self, epoch: int, number: int) -> Iterator[Block]:
        """Blocks to read, from block `number` of `epoch` on, without end."""
        since = number  # nothing that was read earlier is in the buffer
        while True:
            plan = self.epoch(epoch)
            for n in range(number, len(plan.stop)):
                before = int(plan.before[n])
                here = since <= before < n <= before + self.places
                first = int(plan.begin[n] if here else plan.first[n])
                yield Block(epoch, n, first, int(plan.stop[n]), before if here else -1)
            epoch, number, since = epoch + 1, 0, 0


def _lanes(blocks: int, places: int, random: np.random.Generator) -> np.ndarray:
    """Order of reading: runs through parts of the period, a block of each in turn.

    Each run begins somewhere in its part and goes round; else all of them would pass through the
    seasons together.
    """
    if not blocks:  # a rank without windows
        return np.empty(0, dtype=np.int64)
    lanes = int(np.clip(blocks // 32, 1, places))
    turned = np.roll(np.arange(blocks), random.integers(blocks))
    runs = [np.roll(run, random.integers(len(run))) for run in np.array_split(turned, lanes)]
    random.shuffle(runs)
    return np.array([b for row in zip_longest(*runs) for b in row if b is not None])
