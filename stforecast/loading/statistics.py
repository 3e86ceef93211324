"""Mean, standard deviation and typical change of the data, in one pass; and their range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .base import Feed

_ROUNDING = 2.0**-24  # of float32, in which the data are


class Moments:
    """Mean and standard deviation of channels, of what is not NaN, in one pass, in float64."""

    def __init__(self, channels: int) -> None:
        self._n = self.mean = self._square = torch.zeros(channels, dtype=torch.float64)

    def add(self, block: Tensor) -> None:
        """Add a block (N, C, H, W).

        Moments of parts add, without cancellation: Chan, Golub and LeVeque (1979).
        """
        values = block.double()
        more = (~values.isnan()).sum((0, 2, 3))
        middle = values.nanmean((0, 2, 3)).nan_to_num()
        spread = (values - middle[:, None, None]).square().nansum((0, 2, 3)).cpu()
        more, shift = more.cpu(), middle.cpu() - self.mean
        both = (self._n + more).clamp_min(1)
        self._square = self._square + spread + shift**2 * self._n * more / both
        self._n, self.mean = self._n + more, self.mean + shift * more / both

    @property
    def std(self) -> Tensor:
        """Standard deviation (C,)."""
        return (self._square / self._n.clamp_min(1)).sqrt()


def statistics(
    feed: Feed,
    usual: Callable[[int, int], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation (C,), and the typical change (T', C') up to each lead time.

    In one pass over what is not NaN. The change is over about 512 windows.

    Parameters
    ----------
    feed : Feed
    usual : callable, optional
        What the targets are taken as differences from, (n, C', H, W), at n steps from one on.

    Raises
    ------
    InputError
        If a variable never changes, as far as float32 can tell.
    """
    task, out = feed.task, feed.targets
    some = feed.starts[:: max(len(feed.starts) // (512 * feed.thinning), 1)]
    moments: Moments | None = None
    for first, new, block in _anomalies(feed, usual):
        if moments is None:
            moments, shape = Moments(block.shape[1]), (2, task.target_steps, len(out))
            changes = torch.zeros(shape, dtype=torch.float64)  # sums, counts
        moments.add(block[new:])
        here = some[(some + task.window > first + new) & (some + task.window <= first + len(block))]
        last = torch.as_tensor(here - first, device=block.device) + task.history - 1
        for lead in range(task.target_steps if len(here) else 0):
            change = (block[last + 1 + lead][:, out] - block[last][:, out]).double()
            changes[0, lead] += change.square().nansum((0, 2, 3)).cpu()
            changes[1, lead] += (~change.isnan()).sum((0, 2, 3)).cpu()
    assert moments is not None
    change = (changes[0] / changes[1].clamp_min(1)).sqrt()
    still = (moments.std <= _ROUNDING * moments.mean.abs()).tolist()
    if constant := [
        f"'{name}' ({mean:.6g})"
        for name, mean, same in zip(feed.channels, moments.mean.tolist(), still, strict=True)
        if same
    ]:
        raise InputError(
            f"{', '.join(constant)} never {'change' if constant[1:] else 'changes'} in the "
            "training data, or all of it is missing: nothing can be learnt from it. Leave it out "
            "of the Task"
        )
    return moments.mean.float(), moments.std.float(), change.float()


def _anomalies(
    feed: Feed, usual: Callable[[int, int], Tensor] | None
) -> Iterator[tuple[int, int, Tensor]]:
    """The feed's sweep, its targets less what is usual."""
    for first, new, block in feed.sweep():
        if usual is not None:
            out = torch.tensor(feed.targets, device=block.device)
            own = usual(first, len(block)).to(block.device)
            block = block.index_add(1, out, own, alpha=-1)
        yield first, new, block


def extremes(
    feed: Feed, usual: Callable[[int, int], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Least and greatest value (C,) of each channel, of what is not NaN, in one pass.

    They are those of what :func:`statistics` sees, which has the same parameters: of a very long
    stream, every n-th block.
    """
    low = torch.full((len(feed.channels),), torch.inf)
    high = -low
    for _, _, block in _anomalies(feed, usual):
        known = ~block.isnan()
        least, most = block.where(known, torch.inf), block.where(known, -torch.inf)
        low = torch.minimum(low, least.amin((0, 2, 3)).float().cpu())
        high = torch.maximum(high, most.amax((0, 2, 3)).float().cpu())
    return low, high


def with_still(
    feed: Feed, mean: Tensor, std: Tensor, still: Mapping[str, np.ndarray]
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of all of a task's channels, in their order.

    Parameters
    ----------
    feed : Feed
        Whose channels `mean` and `std` (C,) are of.
    still : mapping of str to array (H, W)
        Fields that never change, of the other channels.
    """
    known = {v: (mean[i], std[i]) for i, v in enumerate(feed.channels)}
    for name, parts in feed.led.items():  # one mean for all lead times
        middles, spreads = (torch.stack([known[v][k] for v in parts]) for k in (0, 1))
        power = (spreads.square() + middles.square()).mean() - middles.mean().square()
        known[name] = (middles.mean(), power.clamp_min(0).sqrt())
    for name, field in still.items():
        whole = torch.as_tensor(field, dtype=torch.float64)
        known[name] = (whole.mean().to(mean), whole.std(correction=0).to(mean))
    pairs = [known[v] for v in feed.task.channels]
    return torch.stack([m for m, _ in pairs]), torch.stack([s for _, s in pairs])
