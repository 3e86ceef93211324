"""Statistics of ensembles at every point, and what their means add up to.

Arrays are members (M, N, L, H, W) and truth (N, L, H, W), float32. Members are worked on one after
the other, in their order of size where that matters: M log M steps and no array of M x M.

**Fair and plain.** A plain score takes the M members for the whole forecast, and so punishes a
small ensemble for its size. A fair one (Ferro 2014, *Fair scores for ensemble forecasts*, QJRMS
140) estimates the score of the distribution that the members are drawn from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import numpy as np

Happens = Callable[[np.ndarray], np.ndarray]


def ordered_errors(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Members minus truth, the smallest first, those of a point together: (N, L, H, W, M)."""
    errors = np.empty((*truth.shape, len(members)), np.result_type(members, truth))
    np.subtract(np.moveaxis(members, 0, -1), truth[..., None], out=errors)
    errors.sort(axis=-1)
    return errors


def crps_terms(members: np.ndarray, truth: np.ndarray) -> Iterator[np.ndarray]:
    """CRPS of the members, and of what they are drawn from, at points.

    E|X - y| - E|X - X'| / 2 (Gneiting and Raftery 2007, eq. 21), X' any member or, of the fair one,
    another (Ferro 2014). With e_(i) the errors in order, sum_ij |X_i - X_j| = 2 sum_i (2 i - M - 1)
    e_(i): rounding is by the size of the errors, and so of the score.
    """
    errors = ordered_errors(members, truth)
    count = len(members)
    ranks = np.arange(1 - count, count, 2).astype(errors.dtype)
    # Each point by itself, so that its bits do not depend on its block, as those of BLAS may.
    apart = np.einsum("...m,m", errors, ranks).astype(np.float64)
    far = np.einsum("...m,m", np.abs(errors, out=errors), np.ones_like(ranks)) / float(count)
    yield far - apart / count**2
    yield far - apart / (count * max(count - 1, 1))


def crps(terms: np.ndarray, fair: bool) -> np.ndarray:
    """CRPS from the means of :func:`crps_terms`."""
    return terms[int(fair)]


def mean_of(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean over members of their error, in float64, added in their order."""
    total = np.zeros(truth.shape)
    for one in members:
        total += np.subtract(one, truth)
    return total / len(members)


def spread_terms(members: np.ndarray, truth: np.ndarray) -> Iterator[np.ndarray]:
    """Variance of the members times (M + 1) / M, and squared error of their mean."""
    count, mean = len(members), mean_of(members, truth)
    squares = np.zeros(truth.shape)
    for one in members:
        squares += np.square(np.subtract(one, truth) - mean)
    yield squares * ((count + 1) / (count * (count - 1)))
    yield np.square(mean)


def spread_skill(terms: np.ndarray) -> np.ndarray:
    """Root of the mean variance over root mean squared error, roots last."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(terms[0] / terms[1])


def rank_terms(members: np.ndarray, truth: np.ndarray) -> Iterator[np.ndarray]:
    """For every rank from 0 to M: 1 where truth has it; parts of 1 where members equal truth."""
    below, equal = (np.zeros(truth.shape, np.int16) for _ in range(2))
    for one in members:
        below += one < truth
        equal += one == truth
    share = 1 / (1.0 + equal)
    for rank in range(len(members) + 1):
        yield np.where((below <= rank) & (rank <= below + equal), share, 0.0)


def energy_terms(members: np.ndarray, truth: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances at points of members and truth, then of all pairs of members."""
    errors = np.subtract(members, truth)
    for one in errors:
        yield np.square(one, dtype=np.float64)
    for i, one in enumerate(errors):
        for other in errors[i + 1 :]:
            yield np.square(one - other, dtype=np.float64)


def energy_score(squares: np.ndarray, fair: bool) -> np.ndarray:
    """Energy score of maps, from the mean squares of :func:`energy_terms`."""
    count = int(np.sqrt(2 * len(squares) + 0.25))  # M + M (M - 1) / 2 of them
    norms = np.sqrt(squares)
    pairs = count * (count - 1) if fair else count**2
    # One by one: numpy's own order of summation depends on how many maps there are.
    none = np.zeros(norms.shape[1:])
    near, apart = (reduce(np.add, some, none) for some in (norms[:count], norms[count:]))
    return near / count - apart / max(pairs, 1)


def pinball(members: np.ndarray, truth: np.ndarray, levels: Sequence[float]) -> Iterator:
    """Quantile score of the members' quantiles, interpolated between them, by level."""
    errors = ordered_errors(members, truth)
    for level in levels:
        place = level * (len(members) - 1)
        low = min(int(place), max(len(members) - 2, 0))
        high = min(low + 1, len(members) - 1)
        below, above = errors[..., low].astype(np.float64), errors[..., high]
        error = below + (place - low) * (above - below)
        yield np.maximum(-level * error, (1 - level) * error)


def _events(members: np.ndarray, happens: Happens) -> np.ndarray:
    """How many members have the event."""
    count = np.zeros(members.shape[1:], np.int16)
    for one in members:
        count += happens(one)
    return count


def brier_terms(
    members: np.ndarray, truth: np.ndarray, limits: Sequence[Happens]
) -> Iterator[np.ndarray]:
    """(p - o)^2 and p (1 - p) / (M - 1), by threshold."""
    count = len(members)
    for happens in limits:
        p = _events(members, happens) / count
        yield np.square(p - happens(truth))
        yield p * (1 - p) / max(count - 1, 1)


def brier(terms: np.ndarray, thresholds: int, fair: bool) -> np.ndarray:
    """Brier score by threshold."""
    pairs = terms.reshape(thresholds, 2, *terms.shape[1:])
    return pairs[:, 0] - pairs[:, 1] if fair else pairs[:, 0]


def joint_terms(
    members: np.ndarray, truth: np.ndarray, limits: Sequence[Happens], bins: int | None
) -> Iterator[np.ndarray]:
    """By threshold and class of probability: cases, their probability, and events."""
    count = len(members)
    last = count if bins is None else bins
    for happens in limits:
        having, event = _events(members, happens), happens(truth)
        which = (2 * last * having.astype(np.int64) + count) // (2 * count)  # nearest k / last
        for k in range(last + 1):
            case = which == k
            yield case
            yield np.where(case, having / count, 0.0)
            yield case & event


def _joint(terms: np.ndarray, thresholds: int) -> np.ndarray:
    """Terms of :func:`joint_terms` as (cases, probability and events; threshold; class; ...)."""
    return np.moveaxis(terms.reshape(thresholds, -1, 3, *terms.shape[1:]), 2, 0)


def reliability(terms: np.ndarray, thresholds: int) -> np.ndarray:
    """(threshold; mean probability, frequency of the event, share of cases; class; ...)."""
    cases, probability, events = _joint(terms, thresholds)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([probability / cases, events / cases, cases], axis=1)


def roc(terms: np.ndarray, thresholds: int) -> np.ndarray:
    """(threshold; false alarm rate, hit rate; least probability that warns; ...)."""
    cases, _, events = _joint(terms, thresholds)
    rates = []
    for having in (cases - events, events):
        beyond = np.cumsum(having[:, ::-1], axis=1)[:, ::-1]  # of this class and those above
        with np.errstate(invalid="ignore", divide="ignore"):
            rates.append(beyond / beyond[:, :1])
    return np.stack(rates, axis=1)


def roc_area(terms: np.ndarray, thresholds: int) -> np.ndarray:
    """Area under the curve of :func:`roc`, whose points straight lines join: by threshold."""
    curves = roc(terms, thresholds)
    false, hits = np.moveaxis(np.concatenate([curves, 0 * curves[:, :, :1]], axis=2), 1, 0)
    return ((false[:, :-1] - false[:, 1:]) * (hits[:, :-1] + hits[:, 1:]) / 2).sum(1)
