"""Several processes that train together, as ``torchrun`` starts them.

Each process is a *rank*. All run the same script on the same data; each sees its share of every
batch, and gradients are averaged over all of them by torch's ``DistributedDataParallel`` (gloo
between CPUs, NCCL between GPUs). Without ``torchrun`` there is one rank, and nothing here does
anything.

Beside the gradients a few numbers go from rank to rank (whether to stop, a mean loss), always
between the hosts, so that none of it makes a host wait for its GPU.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from ..errors import InputError, RankLostError
from ..models.surroundings import find_device

__all__ = ["TIMEOUT", "Shared", "World", "all_sum", "is_main", "joined", "world"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: How long the ranks wait for one that does not answer. One that ends, however it ends, is known at
#: once; this is for a host that vanishes from the network.
TIMEOUT = timedelta(minutes=10)

_LOST = re.compile(r"peer|connection|socket|timed? ?out|gloo|nccl|broken pipe", re.IGNORECASE)


@dataclass(frozen=True)
class World:
    """The processes that train together, and which of them this is.

    Parameters
    ----------
    rank, size : int
        This process, of how many.
    local_rank, local_size : int
        The same among the processes of this host.
    device : torch.device
        Where this process computes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    _hosts: Any = None  # the group in which host memory goes from rank to rank

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers, on all of them."""
        return max(int(each) for each in self.gather(torch.tensor(number)))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, which are of one shape, in host memory."""
        mine = tensor.detach().cpu()
        if self.size == 1:
            return [mine]
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine, group=self._hosts)
        return parts

    def from_main(self, work: Callable[[], Result]) -> Result:
        """What `work` gives on rank 0, or the error that it raises there, on all ranks."""
        if self.size == 1:
            return work()
        result: list[Any] = [None, None]
        if self.is_main:
            try:
                result[0] = work()
            except InputError as error:
                result[1] = error
        dist.broadcast_object_list(result, src=0, group=self._hosts)
        if result[1] is not None:
            raise result[1]
        return result[0]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Say so, at once, if another rank has ended while the block runs."""
        try:
            yield
        except RankLostError:
            raise
        except RuntimeError as error:
            if self.size == 1 or not (
                isinstance(error, dist.DistError) or _LOST.search(str(error))
            ):
                raise
            reason = str(error).strip().splitlines()[0]
            message = (
                f"rank {self.rank} of {self.size} stops, as another one has ended or does not "
                f"answer ({reason}): see what that one says. The same command goes on from the "
                f"last checkpoint"
            )
            logger.error("%s", message)  # torchrun, which ends this one, may be quicker than Python
            raise RankLostError(message) from error


def world(device: str | torch.device | None = None) -> World:
    """Which process this is, by what ``torchrun`` says in the environment.

    Parameters
    ----------
    device : str, optional
        ``"cpu"`` or ``"cuda"``; a GPU if there is one unless given. Of several GPUs each process
        takes the one of its ``LOCAL_RANK``.

    Returns
    -------
    World
        Of one process where ``RANK`` and ``WORLD_SIZE`` are not set.

    Raises
    ------
    InputError
        If there is no such device; or a GPU is asked for by number, which all processes would
        share, or there are too few.
    """
    numbers = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
    rank, size, local, here = (int(os.environ.get(name, other)) for name, other in numbers)
    wanted = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if size > 1 and wanted.startswith("cuda"):  # asked before what is there: this is the cause
        if ":" in wanted:
            raise InputError(
                f"device is {wanted!r} in each of {size} processes: give 'cuda', and each "
                f"takes the GPU of its own number"
            )
        if local >= torch.cuda.device_count():
            raise InputError(
                f"{here} processes on a host with {torch.cuda.device_count()} GPUs: start as many "
                f"as there are (torchrun --nproc-per-node)"
            )
        wanted = f"cuda:{local}"
    else:
        find_device(device)
    return World(rank, size, local, here, torch.device(wanted))


def is_main() -> bool:
    """Whether this process writes and reports: the only one, or rank 0 under ``torchrun``."""
    return int(os.environ.get("RANK", 0)) == 0


def all_sum(tensor: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place, to the same bits on each; returns it."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


@contextmanager
def joined(device: str | torch.device | None = None) -> Iterator[World]:
    """Meet the other processes of ``torchrun`` for the length of a block.

    A group of processes that the caller has set up already is used, and left as it is.

    Parameters
    ----------
    device : str, optional
        As for :func:`world`.

    Yields
    ------
    World

    Raises
    ------
    RankLostError
        If another process has ended: at once, or after :data:`TIMEOUT` where its host is gone.
    """
    place = world(device)
    if place.size == 1:
        yield place
        return
    cuda = place.device.type == "cuda"
    if cuda:
        torch.cuda.set_device(place.device)
    mine = not dist.is_initialized()
    done = False
    try:
        if mine:
            store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
            before = store.add(f"stforecast/joined/{rank}", 1)  # groups that have met and parted
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                timeout=TIMEOUT,
                store=dist.PrefixStore(f"stforecast/{before}", store),
                rank=rank,
                world_size=size,
            )
        hosts = dist.new_group(backend="gloo", timeout=TIMEOUT) if cuda else None
        logger.info("rank %d of %d, on %s", place.rank, place.size, place.device)
        place = replace(place, _hosts=hosts)
        with place.watched(), warnings.catch_warnings():
            # Of 1 x 1 convolutions, whose strides mean nothing.
            warnings.filterwarnings("ignore", "Grad strides do not match")
            yield place
        done = True
    except BaseException:
        done = not cuda  # NCCL may wait for those that are gone
        raise
    finally:
        if mine and done and dist.is_initialized():
            dist.destroy_process_group()


#: Whose statistics are taken over all ranks; torch's own layer for it is for GPUs only.
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Shared:
    """A module that several ranks train as one: with the gradients of the whole batch.

    Parameters
    ----------
    module : torch.nn.Module
        The :class:`~stforecast.training.objective.Objective`. It gets the weights of rank 0,
        if there are several. Batch normalisation takes the statistics of all ranks together while
        this is open: use it in a ``with`` block.
    place : World
    call : callable, optional
        The module, compiled.
    """

    def __init__(
        self, module: nn.Module, place: World, call: Callable[..., Any] | None = None
    ) -> None:
        self._call = module if call is None else call
        self._parallel: nn.parallel.DistributedDataParallel | None = None
        self._norms: list[nn.Module] = []
        self._counts, self._unsure, self._module = True, False, module
        if place.size > 1 and any(p.requires_grad for p in module.parameters()):
            self._parallel = nn.parallel.DistributedDataParallel(
                _Rehearsed(module, self._call), gradient_as_bucket_view=True
            )
            # After its first backward pass DDP arranges gradients anew, which changes the order in
            # which they are added. Let it do so before any step: then a run that goes on adds them
            # as one that was never stopped.
            self._parallel().backward()
            module.zero_grad(set_to_none=True)
            self._call, self._unsure = self._parallel, True
            group = dist.new_group(timeout=TIMEOUT)  # beside the gradients, in an order of its own
            for part in module.modules():
                if isinstance(part, _NORMS):
                    forward: Any = partial(self._batch_norm, part, group)
                    if place.device.type == "cuda":
                        forward = torch.compiler.disable(forward)
                    part.forward = forward  # type: ignore[method-assign]
                    self._norms.append(part)

    def __call__(self, *inputs: Any) -> Any:
        """What the module gives, of the kind that gradients can follow over all ranks."""
        return self._call(*inputs)

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *exc: object) -> None:
        for module in self._norms:
            del module.forward  # the class's own is seen again
        if self._parallel is not None:
            # What DDP holds of the group must go before the group does: else its threads may wait
            # for Python, and Python for them.
            self._call, self._parallel = self._module, None
            gc.collect()

    def micro_batches(
        self, x: Tensor, y: Tensor, parts: int, *more: Tensor | None
    ) -> Iterator[tuple[Any, ...]]:
        """Cut this rank's part of a batch for as many passes, on every rank, as `parts`.

        Yields some of the windows (of x and y) with a weight of 1, and of what `more` there is; or
        with a weight of 0 the stand-in with which a rank that has no windows (left) keeps step.
        Gradients are averaged over the ranks in the last.
        """
        cut = [[None] * parts if one is None else one.tensor_split(parts) for one in (x, y, *more)]
        for number, own in enumerate(zip(*cut, strict=True)):
            pieces: list[Any] = list(own)
            self._counts = len(pieces[0]) > 0
            if not self._counts:
                pieces = [v if v is None else v.new_zeros(1, *v.shape[1:]) for v in pieces]
            if self._parallel is not None:
                self._parallel.require_backward_grad_sync = number + 1 == parts
            yield *pieces[:2], float(self._counts), *pieces[2:]
        if self._unsure:  # DDP would wait for ever for their gradients
            self._unsure, named = False, self._module.named_parameters()
            if unused := [name for name, p in named if p.requires_grad and p.grad is None]:
                names = ", ".join(name.removeprefix("network.") for name in unused)
                raise InputError(
                    f"several processes cannot train weights that take no part in the forecast, "
                    f"found {names}: remove them, or say requires_grad_(False)"
                )

    def _batch_norm(self, norm: Any, group: Any, x: Tensor) -> Tensor:
        """Batch normalisation by mean and variance over the ranks (Ioffe and Szegedy, 2015)."""
        if not norm.training:
            return type(norm).forward(norm, x)
        C, axes, shape = x.shape[1], [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        values = x if x.dtype == torch.float64 else x.float()
        if norm.running_mean is not None:  # near the mean, the same on all ranks: less cancels
            values = values - norm.running_mean.to(values).view(shape)
        count = values.new_full((1,), x.numel() / C)
        sums = torch.cat([values.sum(axes), values.square().sum(axes), count])
        sums = _SumOfRanks.apply(sums if self._counts else sums * 0, group)
        n = sums[-1].detach()
        mean, square = (sums[:C] / n, sums[C:-1] / n)
        variance = (square - mean.square()).clamp_min(0)
        y = (values - mean.view(shape)) * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            y = y * norm.weight.view(shape) + norm.bias.view(shape)
        if norm.running_mean is not None:
            with torch.no_grad():
                norm.num_batches_tracked += 1
                part = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
                unbiased = variance * n / (n - 1).clamp_min(1)
                norm.running_mean += part * mean.to(norm.running_mean)  # it was subtracted
                norm.running_var += part * (unbiased.to(norm.running_var) - norm.running_var)
        return y.to(x.dtype)


class _Rehearsed(nn.Module):
    """A module; or, for no input, a pass in which every weight has a gradient, of zero."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self._compiled = module, call

    def forward(self, *inputs: Any) -> Any:
        if inputs:
            return self._compiled(*inputs)
        some = [p for p in self.module.parameters() if p.requires_grad]
        return torch.stack([(p * 0).sum() for p in reversed(some)]).sum()


class _SumOfRanks(torch.autograd.Function):
    """The sum over the ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = x.detach().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None
