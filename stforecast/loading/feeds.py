"""Batches of windows for training.

A feed maps a step number to a batch, and nothing else: which windows, in which order, is a pure
function of (seed, epoch, rank, world size). A run that stops at step n goes on at step n.

What fits the device is *resident*: one tensor, windows gathered by index; it takes half the memory
where it is kept in bfloat16 or float16, as deviations from each channel's mean. What does not is
*streamed*: whole stored chunks pass through a shuffle buffer of stated size, read ahead by threads,
each once an epoch but for a few at the ends of the runs in which they are read.

Several processes share the batches: ``batch_size`` is what all ranks together see in a step, so the
steps of an epoch do not depend on how many there are. Each window is shown to exactly one rank an
epoch. In the last step, which may be smaller, a rank may have one window less than another, or none
(``batch`` gives tensors of length 0). Where gradients are averaged over the ranks, as DDP does,
weight a rank's mean loss by ``len(x) * world_size / feed.size(step)``: the average is then that
over all windows of the step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..task import Task
from .base import Feed, Windows
from .memory import Recycled, empty, free_memory
from .order import Block, StreamOrder, generator, share
from .source import ReadAhead, Source, reader_threads
from .statistics import Moments

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["BUFFER", "ResidentFeed", "StreamingFeed", "open_feed", "suited"]

logger = logging.getLogger(__name__)

#: Default size of the shuffle buffer in bytes.
BUFFER = 2**29

#: In what a resident feed can keep its numbers.
STORAGE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_ENOUGH = 2**32  # bytes of the data that tell their mean and standard deviation


class ResidentFeed(Feed):
    """Windows gathered from one tensor that lives on the device.

    Parameters
    ----------
    data : Tensor of shape (N, C, H, W)
        All time steps, channels in the order of ``task.channels``, less what never changes,
        in physical units. Of another type
        than float32, too: batches are float32.
    starts : array of int, shape (M,)
        First step of each window, from :func:`stforecast.task.window_starts`.
    task : Task
    batch_size : int
        Windows in a batch, of all ranks together; the last batch of an epoch may be smaller.
    seed : int
    shuffle : bool
        A new order every epoch; otherwise the order of `starts`.
    rank, world_size : int
        This process and how many there are. Each takes every `world_size`-th window of a batch, so
        that all of them together see the batch that one process would see.
    mean, std : Tensor of shape (C, 1, 1), optional
        What was subtracted from `data`, and what they were divided by, to be kept in few bits.
    """

    kind = "resident"

    def __init__(
        self,
        data: Tensor,
        starts: np.ndarray,
        task: Task,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:
        super().__init__(starts, task, batch_size, seed, shuffle, rank, world_size)
        self.data, self._mean, self._std = data, mean, std
        self._epoch, self._order, self._starts = -1, torch.empty(0), np.empty(0, int)

    def order(self, epoch: int) -> np.ndarray:
        """Window starts in the order in which epoch `epoch` shows them, on all ranks."""
        return generator(self.seed, epoch).permutation(self.starts) if self.shuffle else self.starts

    def batch(self, step: int) -> Windows:
        """Inputs (B, T, C, H, W) and targets (B, T', C', H, W) of step `step`, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, self.order(epoch)
            self._order = torch.as_tensor(self._starts, device=self.data.device)
        mine = slice(position * self.batch_size + self.rank, (position + 1) * self.batch_size)
        first = self._order[mine][:: self.world_size, None]
        index = (first + torch.arange(self.task.window, device=self.data.device)).flatten()
        window = self._physical(self.data.index_select(0, index))
        window = window.view(len(first), self.task.window, *window.shape[1:])
        return self._split(window, self._starts[mine][:: self.world_size])

    def sweep(self) -> Iterator[tuple[int, int, Tensor]]:
        """The data once, in order."""
        n, overlap = len(self.data), self.task.window - 1
        rows = max(1, 2**25 // (4 * self.data[0].numel()))
        for new in range(0, n, rows):
            first = max(0, new - overlap)
            yield first, new - first, self._physical(self.data[first : new + rows])

    def _physical(self, data: Tensor) -> Tensor:
        data = data.float()
        if self._mean is None or self._std is None:
            return data
        return data * self._std + self._mean


class StreamingFeed(Feed):
    """Windows from a shuffle buffer through which the data are streamed.

    The data are cut in blocks of whole stored chunks. These are read in several lanes at once, each
    a run through a part of the period, so that few steps are read twice for the windows that lie
    across two blocks. Every window draws a place within the time that its block spends in the
    buffer: the order that results is known for the whole epoch before anything is read.

    Parameters
    ----------
    source : Source
        What to read.
    starts : array of int, optional
        Windows to show; all unless given.
    batch_size, seed, shuffle, rank, world_size
        As for :class:`ResidentFeed`. Each rank reads and shows a part of the period of its own, as
        long as its share of the batches, and another one every epoch.
    buffer : int
        Bytes for the shuffle buffer and what is read ahead for it. The order depends on it, and on
        how the data are chunked.
    device : torch.device
        Where the buffer is, and batches are made. A time step goes there once, not once a window.
    threads : int, optional
        That read ahead; as many as processors, up to 4, unless given.

    Raises
    ------
    InputError
        If the buffer cannot hold two blocks. Later, if data cannot be read or hold what the task
        refuses: the file or the time is named.
    """

    kind = "stream"

    def __init__(
        self,
        source: Source,
        starts: np.ndarray | None = None,
        *,
        batch_size: int,
        buffer: int = BUFFER,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        threads: int | None = None,
    ) -> None:
        starts = source.starts if starts is None else starts
        super().__init__(starts, source.task, batch_size, seed, shuffle, rank, world_size)
        self.source, self.buffer, self.device = source, buffer, torch.device(device)
        self._threads = reader_threads() if threads is None else threads
        self.thinning = max(1, round(source.nbytes / _ENOUGH))
        overlap, held = self.task.window - 1, buffer // source.step_bytes  # in steps
        # About 32 blocks, so that many places mix; longer ones where windows are long.
        #: Time steps at which the blocks that are read begin, and the end of the last.
        self.bounds = bounds = source.blocks(max(1, held // 32, min(4 * overlap, held // 8)))
        span = int(np.diff(bounds).max()) + overlap
        places = held // span
        if places < 2:
            raise InputError(
                f"the {source.what} data are read in blocks of {span} steps (whole stored chunks, "
                f"and a window) of {source.step_bytes / 2**20:.3g} MiB: streaming needs a buffer "
                f"of at least {2 * span * source.step_bytes} bytes, found {buffer}; give more, or "
                f"store the data in smaller chunks (stforecast.datasets.prepare)"
            )
        self._depth = max(1, min(places // 6, 8))  # of the data alone: the order depends on it
        self._order = StreamOrder(
            self.starts,
            self.task.window,
            bounds,
            min(places - self._depth, len(bounds) - 1),
            batch_size=self.batch_size,
            seed=seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
        )
        self._ring: Tensor | None = None
        self._memory = Recycled()
        self._ahead: ReadAhead[Block, Tensor] | None = None
        self._since = self._last = (-1, -1)  # (epoch, number) of the blocks in the ring

    def order(self, epoch: int) -> np.ndarray:
        """Window starts in the order in which epoch `epoch` shows them on this rank."""
        return self._order.epoch(epoch).starts

    def batch(self, step: int) -> Windows:
        """Inputs (B, T, C, H, W) and targets (B, T', C', H, W) of step `step`, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        begin = position * share(self.batch_size, self.rank, self.world_size)
        mine = slice(begin, begin + share(self.size(step), self.rank, self.world_size))
        plan = self._order.epoch(epoch)
        rows, need = plan.rows[mine], plan.need[mine]
        if self._ring is None:
            shape = (self._order.places * self._order.span, *self.source.shape[1:])
            self._ring = empty(shape, self.device)
        shape = (len(rows), self.task.window, *self._ring.shape[1:])
        host = self.device.type == "cpu"
        window = self._memory.empty(shape) if host else empty(shape, self.device)
        done = 0
        while done < len(rows):  # once, but where reading goes on within a batch
            self._fill(epoch, int(need[done]))
            end = int(np.searchsorted(need, need[done], side="right"))
            _take(self._ring, rows[done:end], window[done:end])
            done = end
        return self._split(window, plan.starts[mine])

    def sweep(self) -> Iterator[tuple[int, int, Tensor]]:
        """Every `thinning`-th block of the data, in order: about 4 GB of what is more."""
        if self.thinning > 1:
            logger.info("statistics come from one block in %d of the data", self.thinning)
        return self.source.sweep(self.thinning)

    def close(self) -> None:
        """Stop reading and free the buffer. The next batch begins anew."""
        if self._ahead is not None:
            self._ahead.close()
        self._ahead = self._ring = None
        self._memory = Recycled()
        self._since = self._last = (-1, -1)

    def _fill(self, epoch: int, number: int) -> None:
        """Read up to block `number` of an epoch: on from what is there, or anew after a jump."""
        wanted = (epoch, number)
        oldest = (epoch, max(0, number - self._order.places + 1))
        if not (self._ahead and self._since <= oldest and self._goes_on(wanted)):
            if self._ahead is not None:
                self._ahead.close()
            load = partial(_load, self.source, self.device.type == "cuda")
            blocks = self._order.blocks(*oldest)
            self._ahead = ReadAhead(blocks, load, self._depth, self._threads)
            self._since, self._last = oldest, (-1, -1)
        try:
            while self._last != wanted:
                self._insert(*next(self._ahead))
        except BaseException:
            self.close()
            raise

    def _goes_on(self, wanted: tuple[int, int]) -> bool:
        """Whether a block is there, or comes soon: else reading up to it would be a waste."""
        epoch, number = self._last
        if epoch == wanted[0]:
            return number <= wanted[1] <= number + self._order.places
        return epoch == wanted[0] - 1 and number == len(self._order.epoch(epoch).stop) - 1

    def _insert(self, block: Block, data: Tensor) -> None:
        """Put a block in its place in the ring; take the steps before it from where they are."""
        assert self._ring is not None
        order, plan = self._order, self._order.epoch(block.epoch)
        place = block.number % order.places * order.span
        if block.before >= 0:
            there = block.before % order.places * order.span
            there += int(plan.stop[block.before] - plan.begin[block.before])
            # It may lie in the very place that the block is to take.
            before = self._ring[there : there + order.overlap]
            _copy(self._ring[place : place + order.overlap], before)
        row = place + order.overlap + block.first - int(plan.begin[block.number])
        _copy(self._ring[row : row + len(data)], data)
        self._last = (block.epoch, block.number)


# On the host numpy copies: one thread of it is as fast as torch's several, which wait for one
# another, and so become many times slower where readers keep the processors busy.


def _take(ring: Tensor, first: np.ndarray, out: Tensor) -> None:
    """Copy the windows that begin at rows `first` of the ring to `out` (B, window, C, H, W)."""
    rows = (first[:, None] + np.arange(out.shape[1])).ravel()
    if ring.device.type == "cpu":
        # One call: a thread that lets go of the interpreter for each window has to queue for it
        # behind the readers each time. Clipping does nothing, but "raise" would copy twice.
        np.take(ring.numpy(), rows, axis=0, out=out.flatten(0, 1).numpy(), mode="clip")
    else:
        index = torch.from_numpy(rows)
        if ring.device.type == "cuda":  # or the host would wait for the copy
            index = index.pin_memory()
        index = index.to(ring.device, non_blocking=True)
        torch.index_select(ring, 0, index, out=out.flatten(0, 1))


def _copy(to: Tensor, source: Tensor) -> None:
    """Copy, also where both overlap."""
    if to.device.type == "cpu":
        np.copyto(to.numpy(), source.numpy())
    else:
        to.copy_(source if source.device.type == "cpu" else source.clone(), non_blocking=True)


def _load(source: Source, pin: bool, block: Block) -> Tensor:
    data = source.read(block.first, block.stop)
    return data.pin_memory() if pin else data


# --- the choice -----------------------------------------------------------------------------------


def suited(
    source: Source,
    device: torch.device | str,
    *,
    storage: Literal["fp32", "bf16", "fp16"] = "fp32",
    processes: int = 1,
) -> Literal["resident", "stream"]:
    """Which feed suits the size of the data.

    Parameters
    ----------
    source : Source
    device : torch.device
    storage
        As :func:`open_feed` has it.
    processes : int
        How many have the data on this device, or on this host.

    Returns
    -------
    {"resident", "stream"}
        Resident where the data take at most half of the free memory (host) or a third of it (GPU,
        which needs the rest for training), streamed where not. Which, and why, is logged.
    """
    device = torch.device(device)
    part, share = ("half", 2) if device.type == "cpu" else ("a third", 3)
    room = free_memory(device) // share // (processes if device.type == "cpu" else 1)
    size = source.nbytes * STORAGE[storage].itemsize // 4
    kind: Literal["resident", "stream"] = "resident" if size <= room else "stream"
    logger.info(
        "feed of the %s data: %s, by their size (they take %.3g GB; %s of the free memory of %s, "
        "shared by %d, is %.3g GB)",
        source.what, kind, size / 1e9, part, device, processes, room / 1e9,
    )  # fmt: skip
    return kind


def open_feed(
    ds: xr.Dataset | Source,
    task: Task,
    batch_size: int,
    *,
    feed: Literal["auto", "resident", "stream"] = "auto",
    storage: Literal["fp32", "bf16", "fp16"] = "fp32",
    buffer: int = BUFFER,
    windows: int | None = None,
    init_time: Any = None,
    seed: int = 0,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
) -> Feed:
    """Open the feed that suits the size of the data.

    Parameters
    ----------
    ds : xarray.Dataset
        The training period, best opened with ``chunks=None``.
    task : Task
        What a window holds.
    batch_size : int
        Windows in a batch, of all ranks together.
    feed : {"auto", "resident", "stream"}
        ``"auto"``: as :func:`suited` says.
    storage : {"fp32", "bf16", "fp16"}
        In what a resident feed keeps the data. 16 bits take half the memory; the data are read
        twice then, as they are kept as deviations from each channel's mean over its standard
        deviation s: rounded by up to s/256 (bf16) or s/2048 (fp16) within 2 s, and more further
        out. A stream is float32.
    buffer : int
        Bytes of the shuffle buffer, where it streams.
    windows : int, optional
        Number of windows to show, spread evenly over the period (default: all).
    init_time : array of times, optional
        Show only the windows whose last input step is at one of these.
    seed, shuffle, rank, world_size
        See :class:`ResidentFeed`.
    device : torch.device
        Where batches are made.

    Returns
    -------
    ResidentFeed or StreamingFeed
        Use it in a ``with`` block, or close it: streaming holds threads.

    Raises
    ------
    InputError
        If the data do not fit the task, or hold NaN (unless the task masks them).
    """
    if feed not in ("auto", "resident", "stream"):
        raise InputError(f"feed must be 'auto', 'resident' or 'stream', found {feed!r}")
    if storage not in STORAGE:
        raise InputError(f"storage must be one of {', '.join(STORAGE)}, found {storage!r}")
    source = ds if isinstance(ds, Source) else Source(ds, task)
    device = torch.device(device)
    kind = suited(source, device, storage=storage) if feed == "auto" else feed
    starts = source.starts if init_time is None else source.select(init_time)
    if windows is not None and windows < len(starts):
        starts = starts[np.linspace(0, len(starts) - 1, windows).astype(int)]
    common: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "shuffle": shuffle}
    common |= {"rank": rank, "world_size": world_size}
    if kind == "stream":
        stream = StreamingFeed(source, starts, buffer=buffer, device=device, **common)
        stream.channels, stream.led = source.channels, source.led
        return stream
    data = empty(source.shape, device, STORAGE[storage])
    if storage != "fp32":
        moments = Moments(source.shape[1])
        for _, new, block in source.sweep():
            moments.add(block[new:])
        mean, std = (m.float()[:, None, None] for m in (moments.mean, moments.std))
        std = torch.where(std > 0, std, 1.0)  # of a channel that never changes
        common |= {"mean": mean.to(device), "std": std.to(device)}
    for first, new, block in source.sweep():
        values = block[new:] if storage == "fp32" else (block[new:] - mean) / std
        data[first + new : first + len(block)] = values.to(device)
    resident = ResidentFeed(data, starts, task, **common)
    resident.channels, resident.led = source.channels, source.led
    return resident
