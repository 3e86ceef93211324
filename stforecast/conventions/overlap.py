"""Whether a period that is to judge was trained on: times and fingerprints held side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..errors import InputError
from .axes import LEAD
from .times import is_cftime, iso_time, time_differences, time_step, valid_times

#: Attribute of a data set whose times are invented, as those of clips are: what tells it from
#: others that have the same times.
FINGERPRINT = "fingerprint"
#: Attributes of a forecast: the period that its model was trained on (:func:`write_period`), and
#: the fingerprint of these data.
TRAINED, TRAINED_FINGERPRINT = "training_period", "training_fingerprint"
#: And where truth counted in its training, if that was not everywhere.
TRAINED_WHERE = "training_where"
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


def period_of(ds: xr.Dataset) -> dict[str, str]:
    """What a model says of the data that it was trained on, and its forecasts with it.

    Parameters
    ----------
    ds : xarray.Dataset
        The training period, canonical.

    Returns
    -------
    dict of str to str
        ``training_period``, and ``training_fingerprint`` where the data have one.
    """
    mark = ds.attrs.get(FINGERPRINT)
    told = {TRAINED: write_period(ds["time"].values)}
    return told if mark is None else {**told, TRAINED_FINGERPRINT: str(mark)}


def told_of(attrs: Mapping[str, Any]) -> dict[str, str]:
    """Take what :func:`period_of` said out of the attributes of a forecast or a climatology."""
    keys = (TRAINED, TRAINED_FINGERPRINT, TRAINED_WHERE)
    told = {k: str(attrs[k]) for k in keys if k in attrs}
    if TRAINED not in told and "climatology_period" in attrs:
        told[TRAINED] = str(attrs["climatology_period"])
    return told


def with_earlier(now: Mapping[str, str], earlier: Mapping[str, str]) -> dict[str, str]:
    """Add the period of an earlier training to what :func:`period_of` says.

    Parameters
    ----------
    now, earlier : mapping
        Times of data with different fingerprints have nothing in common, and are not added.
    """
    if now.get(TRAINED_FINGERPRINT) != earlier.get(TRAINED_FINGERPRINT):
        return dict(now)
    periods = [*now[TRAINED].split(";"), *earlier.get(TRAINED, now[TRAINED]).split(";")]
    return {**now, TRAINED: ";".join(dict.fromkeys(periods))}


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


def refuse_other_data(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    """Refuse truth of other data than the forecast was made from, where both say what they are.

    Clips have no dates: those of every data set begin at the same invented time, and another
    split's would pass for truth.

    Parameters
    ----------
    forecast, truth : xarray.Dataset
        With the attribute ``fingerprint``, or without.

    Raises
    ------
    InputError
        If their fingerprints differ; both are named.
    """
    made_from, found = (ds.attrs.get(FINGERPRINT) for ds in (forecast, truth))
    if made_from is not None and found is not None and made_from != found:
        raise InputError(
            f"the forecast was made from [{made_from}], and truth is [{found}]: their times are "
            "counted from the same invented beginning and say nothing of each other. Open the "
            "data, the split and with the options that the forecast was made from"
        )


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


def refuse_trained(
    forecast: xr.Dataset, told: Mapping[str, str], truth: xr.Dataset, *, clips: bool
) -> None:
    """Refuse to score a forecast for times that a model was trained on.

    Parameters
    ----------
    forecast : xarray.Dataset
        Canonical.
    told : mapping
        What :func:`period_of` said of the training data; nothing is refused where it is empty.
    truth : xarray.Dataset
        What the forecast is scored against; its fingerprint counts where the forecast has none.
    clips : bool
        The times of both are no dates.

    Raises
    ------
    InputError
        If valid times lie in the training period.
    """
    if TRAINED in told:
        judge = valid_times(forecast["time"].values, forecast[LEAD].values)
        mark = forecast.attrs.get(FINGERPRINT, truth.attrs.get(FINGERPRINT))
        pair = told.get(TRAINED_FINGERPRINT), mark
        refuse_overlap(told[TRAINED], judge, "the forecast", fingerprints=pair, invented=clips)
