"""Whether a period that is to judge was trained on: times and fingerprints held side by side."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ..errors import InputError
from .times import is_cftime, iso_time, time_differences, time_step

#: Attribute of a data set whose times are invented, as those of clips are: what tells it from
#: others that have the same times.
FINGERPRINT = "fingerprint"
_GAPS = 100  # at most, in a period that is written down; the shortest others are taken as closed


def write_period(time: Any) -> str:
    """Write the stretches of times without a gap, such as ``2013-01-01T00:00:00/2013-06-30T…``.

    Parameters
    ----------
    time : array-like of shape (N,)
        Sorted, unique times: ``datetime64`` or cftime. Two that are further apart than the usual
        step have a gap between them.

    Returns
    -------
    str
        First and last time of each stretch, ISO 8601, stretches joined by ``;``; at most 101, with
        the longest gaps between them.
    """
    values = np.asarray(time)
    if not len(values):
        return ""
    gaps = np.empty(0, np.int64)
    if len(values) > 1:
        apart = time_differences(values)
        gaps = np.flatnonzero(apart > time_step(values))
        longest = np.argsort(-apart[gaps].astype(np.int64), kind="stable")[:_GAPS]
        gaps = np.sort(gaps[longest])
    firsts, lasts = [0, *(gaps + 1)], [*gaps, len(values) - 1]
    return ";".join(
        f"{iso_time(values[a])}/{iso_time(values[b])}" for a, b in zip(firsts, lasts, strict=True)
    )


def times_within(time: Any, period: str) -> np.ndarray:
    """Tell which times lie in a period, in any calendar: a mask of the shape of `time`.

    Parameters
    ----------
    time : array-like
        ``datetime64`` or cftime.
    period : str
        From :func:`write_period`: the ends of its stretches lie in it, and all between them.
    """
    values = np.asarray(time)
    if is_cftime(values):
        words = np.array([t.isoformat() for t in values.flat], dtype=str).reshape(values.shape)
    else:
        words = np.datetime_as_string(values.astype("datetime64[ns]"))
    words = _without_zeros(words)
    found = np.zeros(values.shape, dtype=bool)
    for stretch in filter(None, period.split(";")):
        first, last = _without_zeros(np.array(stretch.partition("/")[::2]))
        found |= (words >= first) & (words <= last)  # ISO 8601 sorts as text
    return found


def _without_zeros(words: np.ndarray) -> np.ndarray:
    """Drop what says nothing behind the seconds: ``00:00:01.50`` is ``00:00:01.5``."""
    short = np.strings.rstrip(np.strings.rstrip(words, "0"), ".")
    return np.where(np.strings.find(words, ".") < 0, words, short)


def make_fingerprint(name: str, split: str | None, options: str, digest: str) -> str:
    """Write what tells a data set with invented times from others that have the same times.

    Parameters
    ----------
    name : str
        Of the data.
    split : str or None
        Part of it; None for all.
    options, digest : str
        How it was opened, for people; and of what, for the comparison.
    """
    return "; ".join([name, f"split={split or 'all'}", options, digest])


def _common(a: str | None, b: str | None, invented: bool) -> Literal["nothing", "times", "all"]:
    """What two data sets have in common, by their fingerprints."""
    if a is None or b is None:
        return "nothing" if invented or a != b else "times"
    if a == b:
        return "times"
    mine, other = a.split("; "), b.split("; ")
    whole = "split=all" in (*mine[1:2], *other[1:2])
    within = whole and mine[:1] == other[:1] and mine[2:3] == other[2:3]
    return "all" if within else "nothing"


def refuse_overlap(
    trained: Any,
    judge: Any,
    what: str,
    *,
    fingerprints: tuple[str | None, str | None] = (None, None),
    invented: bool = False,
    remedy: str = "allow_overlap=True",
) -> None:
    """Refuse to judge by a period that was trained on.

    Parameters
    ----------
    trained : str or array-like of times
        The training period: times, or what :func:`write_period` made of them. A time that lies
        between two of its neighbours is in it as well.
    judge : array-like of times
        Times of the period that judges.
    what : str
        What the latter is called, as ``"the validation period"``.
    fingerprints : (str or None, str or None)
        Of both data sets, where they have one: other data have no times in common.
    invented : bool
        The times are no dates, as those of clips: they say something only of the same data.
    remedy : str
        How an overlap is asked for by name.

    Raises
    ------
    InputError
        If times of `judge` lie in the training period.
    """
    common = _common(*fingerprints, invented)
    if common == "nothing":
        return
    times = np.unique(np.asarray(judge))
    if not isinstance(trained, str):
        trained = write_period(trained)
    within = times if common == "all" else times[times_within(times, trained)]
    if len(within):
        raise InputError(
            f"{len(within)} of the {len(times)} times of {what} lie in the training period, from "
            f"{iso_time(within[0])} to {iso_time(within[-1])}: a period that was trained on cannot "
            f"judge. Give another one, or {remedy} if it is meant"
        )
